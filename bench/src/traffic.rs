//! Whoever sends to a forwarder, and whoever counts what it sent on. Sources and sinks are real UDP
//! sockets on loopback; they are never what is measured, so both say when they were the limit.

use std::{
    io::{IoSlice, IoSliceMut},
    net::{SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use arrayvec::ArrayVec;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use strowger_frame::tally::Counter;

use crate::{
    Failure,
    packet::PAYLOAD_AT,
    sockets::{self, address, socket},
};

/// Peers each way where every packet is another's.
pub const PEERS: usize = 64;

/// Packets of a train, as far as [`TRAIN_BYTES_MAX`] allows: what every kernel with `UDP_SEGMENT`
/// takes.
pub(crate) const TRAIN_PACKETS_MAX: usize = 64;

/// Bytes of a train: the longest datagram over IPv4.
pub(crate) const TRAIN_BYTES_MAX: usize = 65_507;

/// Trains in one call of a source.
const TRAINS_A_CALL: usize = 4;

/// Datagrams that a sink takes in one call.
pub(crate) const SINK_BATCH: usize = 64;

/// Bytes of a sink's room for each: enough to see whose it is; the kernel says how long it was.
const SINK_ROOM_BYTES: usize = 64;

/// Bytes of a sink's receive buffer: what may pile up while its thread is not running.
pub(crate) const SINK_BUFFER_BYTES: usize = 16 << 20;

/// How packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flows {
    /// In so many bulk flows, whose packets leave their source in trains.
    Trains(usize),
    /// Each from and to another of [`PEERS`].
    Singles,
}

/// Sockets that send and sockets that receive: what source `n` sends is for sink `n`.
#[derive(Debug)]
pub struct Traffic {
    sources: Vec<UdpSocket>,
    sinks: Vec<UdpSocket>,
    size: usize,
    trains: bool,
}

impl Traffic {
    /// As many sources and sinks as `flows` says; see [`Flows`].
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new(size: usize, flows: Flows) -> Result<Self, Failure> {
        let (count, trains) = match flows {
            Flows::Trains(count) => (count.max(1), true),
            Flows::Singles => (PEERS, false),
        };
        sockets::room_for_descriptors(2 * count as u64)?;
        let sources = (0..count).map(|_| socket(0)).collect::<Result<_, _>>()?;
        let sinks =
            (0..count).map(|_| socket(SINK_BUFFER_BYTES / count)).collect::<Result<Vec<_>, _>>()?;
        for sink in &sinks {
            // Always: else the kernel would cut trains at the forwarder's expense.
            sockets::take_trains(sink)?;
        }
        Ok(Self { sources, sinks, size, trains })
    }

    /// Where they are: from, to.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn routes(&self) -> Result<Vec<(SocketAddrV4, SocketAddrV4)>, Failure> {
        let pairs = self.sources.iter().zip(&self.sinks);
        pairs.map(|(from, to)| Ok((address(from)?, address(to)?))).collect()
    }

    /// Takes it apart: sources for this many threads, and the sink. `packets` are what each source
    /// sends, over and over, to `to`.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn split(
        self,
        packets: Vec<Vec<u8>>,
        to: SocketAddrV4,
        threads: usize,
    ) -> Result<(Vec<Source>, Sink), Failure> {
        for source in &self.sources {
            source.connect(to).map_err(Failure::kernel("connect"))?;
        }
        let mut pairs: Vec<_> = self.sources.into_iter().zip(packets).collect();
        let threads = threads.clamp(1, pairs.len());
        let share = pairs.len().div_ceil(threads);
        let mut sources = Vec::new();
        while !pairs.is_empty() {
            let rest = pairs.split_off(share.min(pairs.len()));
            sources.push(Source { pairs, trains: self.trains });
            pairs = rest;
        }
        Ok((sources, Sink { sockets: self.sinks, size: self.size }))
    }
}

/// One thread's share of the sources.
#[derive(Debug)]
pub struct Source {
    pairs: Vec<(UdpSocket, Vec<u8>)>,
    trains: bool,
}

impl Source {
    /// Sends until `stopped`, counting in `sent`: as fast as it can, or `packets_per_s`.
    pub fn send(&self, sent: &Counter, packets_per_s: Option<f64>, stopped: &dyn Fn() -> bool) {
        let pace = Pace::new(packets_per_s);
        let send = if self.trains { send_trains } else { send_singles };
        send(&self.pairs, sent, &pace, stopped);
    }
}

impl Source {
    /// Sends one more packet, alone.
    pub fn send_one(&self, sent: &Counter) {
        if let Some((socket, packet)) = self.pairs.first()
            && socket.send(packet).is_ok()
        {
            sent.add(1);
        }
    }
}

/// How much may have been sent by now.
struct Pace {
    started: Instant,
    packets_per_s: Option<f64>,
}

impl Pace {
    fn new(packets_per_s: Option<f64>) -> Self {
        Self { started: Instant::now(), packets_per_s }
    }

    /// Whether so many packets are as many as may have gone by now.
    fn is_ahead(&self, sent: u64) -> bool {
        self.packets_per_s
            .is_some_and(|pace| sent as f64 > self.started.elapsed().as_secs_f64() * pace)
    }
}

fn send_trains(
    pairs: &[(UdpSocket, Vec<u8>)],
    sent: &Counter,
    pace: &Pace,
    stopped: &dyn Fn() -> bool,
) {
    let Some(size) = pairs.first().map(|(_, packet)| packet.len()) else { return };
    let packets = (TRAIN_BYTES_MAX / size).min(TRAIN_PACKETS_MAX);
    let trains: Vec<_> = pairs.iter().map(|(_, packet)| packet.repeat(packets)).collect();
    let segment = size as u16;
    let controls = [ControlMessage::UdpGsoSegments(&segment)];
    let space = nix::cmsg_space!(u16);
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(TRAINS_A_CALL, Some(space));
    let addresses = [None; TRAINS_A_CALL];
    while !stopped() {
        if pace.is_ahead(sent.read()) {
            std::hint::spin_loop();
            continue;
        }
        for ((socket, _), train) in pairs.iter().zip(&trains) {
            let vectors = [[IoSlice::new(train)]; TRAINS_A_CALL];
            let flags = MsgFlags::empty();
            let fd = socket.as_raw_fd();
            if sendmmsg(fd, &mut headers, &vectors, addresses, controls, flags).is_ok() {
                sent.add((TRAINS_A_CALL * packets) as u64);
            }
        }
    }
}

fn send_singles(
    pairs: &[(UdpSocket, Vec<u8>)],
    sent: &Counter,
    pace: &Pace,
    stopped: &dyn Fn() -> bool,
) {
    while !stopped() {
        if pace.is_ahead(sent.read()) {
            std::hint::spin_loop();
            continue;
        }
        for (socket, packet) in pairs {
            if socket.send(packet).is_ok() {
                sent.add(1);
            }
        }
    }
}

/// Counts what came through.
#[derive(Debug)]
pub struct Sink {
    sockets: Vec<UdpSocket>,
    size: usize,
}

/// What a sink counts.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Packets that came through.
    pub packets: Counter,
    /// Datagrams, each a train where the kernel joined packets, that were not what was sent: of
    /// another length or another flow.
    pub wrong: Counter,
}

impl Sink {
    /// Counts until `stopped`. Looks, and never waits to be woken, since waking would be the
    /// forwarder's work; with `is_alone` it never sleeps either.
    pub fn count(&self, arrived: &Arrived, is_alone: bool, mut stopped: impl FnMut() -> bool) {
        let mut rooms = [[0; SINK_ROOM_BYTES]; SINK_BATCH];
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(SINK_BATCH, None);
        while !stopped() {
            let mut any = false;
            for (flow, socket) in (0..).zip(&self.sockets) {
                any |= self.take(flow, socket, &mut rooms, &mut headers, arrived);
            }
            match (any, is_alone) {
                (true, _) => {}
                (false, true) => std::hint::spin_loop(),
                (false, false) => std::thread::sleep(Duration::from_micros(20)),
            }
        }
    }

    /// Takes what is there at one socket; says whether anything was.
    fn take(
        &self,
        flow: u8,
        socket: &UdpSocket,
        rooms: &mut [[u8; SINK_ROOM_BYTES]; SINK_BATCH],
        headers: &mut MultiHeaders<SockaddrIn>,
        arrived: &Arrived,
    ) -> bool {
        let mut lengths = ArrayVec::<usize, SINK_BATCH>::new();
        {
            let mut vectors = rooms.each_mut().map(|room| [IoSliceMut::new(room)]);
            // Truncated, so that a train costs no copy; its whole length is said all the same.
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            let fd = socket.as_raw_fd();
            let Ok(messages) = recvmmsg(fd, headers, vectors.iter_mut(), flags, None) else {
                return false;
            };
            lengths.extend(messages.map(|message| message.bytes));
        }
        let mut packets = 0;
        let mut wrong = 0;
        for (room, &bytes) in rooms.iter().zip(&lengths) {
            packets += bytes / self.size;
            wrong += u64::from(bytes % self.size != 0 || room[PAYLOAD_AT] != flow);
        }
        arrived.packets.add(packets as u64);
        arrived.wrong.add(wrong);
        !lengths.is_empty()
    }

    /// Where its sockets are.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn ports(&self) -> Result<Vec<u16>, Failure> {
        self.sockets.iter().map(|socket| Ok(address(socket)?.port())).collect()
    }
}
