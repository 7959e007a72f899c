//! Sources that send to a forwarder, and sinks that count the packets that it forwards. Both are
//! real UDP sockets on loopback. Only the forwarder is to be measured, so a result reports whether
//! the source or the sink was the bottleneck.

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

/// The number of peers on each side if successive packets belong to different peers.
pub const PEERS: usize = 64;

/// Maximum number of packets in a train, as far as [`TRAIN_BYTES_MAX`] allows. Every kernel with
/// `UDP_SEGMENT` accepts this number.
pub(crate) const TRAIN_PACKETS_MAX: usize = 64;

/// Maximum number of bytes in a train: the largest UDP payload over IPv4.
pub(crate) const TRAIN_BYTES_MAX: usize = 65_507;

/// The number of trains that a source sends in one call.
const TRAINS_A_CALL: usize = 4;

/// Maximum number of datagrams that a sink receives in one call.
pub(crate) const SINK_BATCH: usize = 64;

/// Bytes that a sink reads of each datagram: enough to identify its flow; the kernel reports the
/// length.
const SINK_READ_BYTES: usize = 64;

/// Bytes of a sink's receive buffer. It must hold the datagrams that arrive while the thread of the
/// sink does not run.
pub(crate) const SINK_BUFFER_BYTES: usize = 16 << 20;

/// The kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flows {
    /// This number of bulk flows, whose sources send packets in trains.
    Trains(usize),
    /// Successive packets are from and to different peers out of [`PEERS`].
    Singles,
}

/// Sockets that send and sockets that receive: source `n` sends to sink `n`.
#[derive(Debug)]
pub struct Traffic {
    sources: Vec<UdpSocket>,
    sinks: Vec<UdpSocket>,
    size: usize,
    trains: bool,
}

impl Traffic {
    /// Opens as many sources and sinks as `flows` needs.
    ///
    /// # Errors
    /// The operation that the kernel refused.
    pub fn new(size: usize, flows: Flows) -> Result<Self, Failure> {
        let (count, trains) = match flows {
            Flows::Trains(count) => (count.max(1), true),
            Flows::Singles => (PEERS, false),
        };
        sockets::ensure_descriptors(2 * count as u64)?;
        let sources = (0..count).map(|_| socket(0)).collect::<Result<_, _>>()?;
        let sinks =
            (0..count).map(|_| socket(SINK_BUFFER_BYTES / count)).collect::<Result<Vec<_>, _>>()?;
        for sink in &sinks {
            // Sinks always receive trains, because otherwise the kernel would segment trains on the
            // forwarder's core.
            sockets::take_trains(sink)?;
        }
        Ok(Self { sources, sinks, size, trains })
    }

    /// The addresses of each source and its sink.
    ///
    /// # Errors
    /// The operation that the kernel refused.
    pub fn routes(&self) -> Result<Vec<(SocketAddrV4, SocketAddrV4)>, Failure> {
        let pairs = self.sources.iter().zip(&self.sinks);
        pairs.map(|(from, to)| Ok((address(from)?, address(to)?))).collect()
    }

    /// Splits these sockets into sources for up to this number of threads, and the sink. Each
    /// source repeatedly sends its packet of `packets` to `to`.
    ///
    /// # Errors
    /// The operation that the kernel refused.
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

/// The sources of one thread.
#[derive(Debug)]
pub struct Source {
    pairs: Vec<(UdpSocket, Vec<u8>)>,
    trains: bool,
}

impl Source {
    /// Sends until `stopped`, at `packets_per_s` or as fast as possible. Counts in `sent`.
    pub fn send(&self, sent: &Counter, packets_per_s: Option<f64>, stopped: &dyn Fn() -> bool) {
        let pace = Pace::new(packets_per_s);
        let send = if self.trains { send_trains } else { send_singles };
        send(&self.pairs, sent, &pace, stopped);
    }
}

impl Source {
    /// Sends one packet from the first socket.
    pub fn send_one(&self, sent: &Counter) {
        if let Some((socket, packet)) = self.pairs.first()
            && socket.send(packet).is_ok()
        {
            sent.add(1);
        }
    }
}

/// The pace of a source.
struct Pace {
    started: Instant,
    packets_per_s: Option<f64>,
}

impl Pace {
    fn new(packets_per_s: Option<f64>) -> Self {
        Self { started: Instant::now(), packets_per_s }
    }

    /// Whether more packets were sent than the pace allows by now.
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

/// Counts packets that arrive.
#[derive(Debug)]
pub struct Sink {
    sockets: Vec<UdpSocket>,
    size: usize,
}

/// The counts of a sink.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Packets that arrived.
    pub packets: Counter,
    /// Datagrams of a wrong length or flow. If the kernel joined packets, a datagram is a train.
    pub wrong: Counter,
}

impl Sink {
    /// Counts until `stopped`. It polls instead of blocking, because a wake-up would cost the
    /// forwarder time; with `is_alone` it never sleeps.
    pub fn count(&self, arrived: &Arrived, is_alone: bool, mut stopped: impl FnMut() -> bool) {
        let mut buffers = [[0; SINK_READ_BYTES]; SINK_BATCH];
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(SINK_BATCH, None);
        while !stopped() {
            let mut any = false;
            for (flow, socket) in (0..).zip(&self.sockets) {
                any |= self.take(flow, socket, &mut buffers, &mut headers, arrived);
            }
            match (any, is_alone) {
                (true, _) => {}
                (false, true) => std::hint::spin_loop(),
                (false, false) => std::thread::sleep(Duration::from_micros(20)),
            }
        }
    }

    /// Receives at one socket; returns whether there was a datagram.
    fn take(
        &self,
        flow: u8,
        socket: &UdpSocket,
        buffers: &mut [[u8; SINK_READ_BYTES]; SINK_BATCH],
        headers: &mut MultiHeaders<SockaddrIn>,
        arrived: &Arrived,
    ) -> bool {
        let mut lengths = ArrayVec::<usize, SINK_BATCH>::new();
        {
            let mut vectors = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
            // The read is truncated, so that a train is not copied. The kernel reports its full
            // length.
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            let fd = socket.as_raw_fd();
            let Ok(messages) = recvmmsg(fd, headers, vectors.iter_mut(), flags, None) else {
                return false;
            };
            lengths.extend(messages.map(|message| message.bytes));
        }
        let mut packets = 0;
        let mut wrong = 0;
        for (buffer, &bytes) in buffers.iter().zip(&lengths) {
            packets += bytes / self.size;
            wrong += u64::from(bytes % self.size != 0 || buffer[PAYLOAD_AT] != flow);
        }
        arrived.packets.add(packets as u64);
        arrived.wrong.add(wrong);
        !lengths.is_empty()
    }

    /// The ports of the sink's sockets.
    ///
    /// # Errors
    /// The operation that the kernel refused.
    pub fn ports(&self) -> Result<Vec<u16>, Failure> {
        self.sockets.iter().map(|socket| Ok(address(socket)?.port())).collect()
    }
}
