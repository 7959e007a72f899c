//! Sealed traffic over real UDP sockets: a source that seals, a forwarder that opens and seals, and a
//! sink that opens. One generator for all forwarders: it asks a closure to seal a packet into the
//! next place of a train, and sends the train. The source has no forwarder's code in it.

use std::{
    io::{IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use arrayvec::ArrayVec;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use strowger_frame::tally::Counter;

use crate::{
    Failure,
    machine::{Cores, OtherThreads, ThreadClock, Times, settle_on},
    sockets::{self, BUFFER_BYTES, Kernel, address, socket},
    traffic::{SINK_BATCH, SINK_BUFFER_BYTES, TRAIN_BYTES_MAX, TRAIN_PACKETS_MAX},
    trial::{Outcome, both_ends, join, time_vain_looks},
};

/// Bytes of a sink's room for each datagram: one packet, to be opened.
const SINK_ROOM_BYTES: usize = 1_500;

/// How long the first packet may take to come through.
const FIRST_PACKET_MAX: Duration = Duration::from_secs(5);

/// Seals the next packet into these bytes, all of them.
pub(crate) type Seal = Box<dyn FnMut(&mut [u8]) + Send>;

/// Opens a packet; says whether it is what was sent.
pub(crate) type Open = Box<dyn FnMut(&mut [u8]) -> bool + Send>;

/// Forwards until told to stop; counts in the first how often it looked in vain.
pub(crate) type Forward<'a> = Box<dyn FnMut(&Counter, &dyn Fn() -> bool) + Send + 'a>;

/// Who forwards.
pub(crate) enum Forwarder<'a> {
    /// This, on a thread that the trial makes.
    Here(Forward<'a>),
    /// Threads that go on by themselves, on the forwarder's core, and sleep when there is nothing.
    #[cfg_attr(not(feature = "wireguard"), expect(dead_code, reason = "a WireGuard's device"))]
    There(OtherThreads),
}

/// What a trial needs of a forwarder of others.
pub(crate) struct Parts {
    pub(crate) at: SocketAddrV4,
    pub(crate) seal: Seal,
    pub(crate) open: Open,
    pub(crate) forwarder: Forwarder<'static>,
}

/// Runs a trial of a forwarder of others between these ends.
pub(crate) type Run<'a> = dyn Fn(Ends, Parts) -> Result<Outcome, Failure> + Sync + 'a;

/// Both ends of a way through a forwarder.
pub(crate) struct Ends {
    pub(crate) source: UdpSocket,
    pub(crate) sink: UdpSocket,
}

impl Ends {
    pub(crate) fn new() -> Result<Self, Failure> {
        let (source, sink) = (socket(0)?, socket(SINK_BUFFER_BYTES)?);
        sockets::take_trains(&sink)?;
        Ok(Self { source, sink })
    }
}

/// One run.
pub(crate) struct SealedTrial<'a> {
    pub(crate) size: usize,
    pub(crate) window: Duration,
    pub(crate) cores: &'a Cores,
    /// Where the forwarder is.
    pub(crate) at: SocketAddrV4,
    pub(crate) ends: Ends,
    pub(crate) seal: Seal,
    pub(crate) open: Open,
    pub(crate) forwarder: Forwarder<'a>,
    pub(crate) backend: &'static str,
}

impl SealedTrial<'_> {
    /// Runs it: as [`Trial::run`](crate::trial::Trial::run) does, with one source.
    pub(crate) fn run(self) -> Result<Outcome, Failure> {
        let Self { size, window, cores, at, ends, mut seal, mut open, forwarder, backend } = self;
        let [stop_source, stop_forwarder, stop_sink] = [const { AtomicBool::new(false) }; 3];
        let (sent, arrived, wrong, vain) =
            (Counter::default(), Counter::default(), Counter::default(), Counter::default());
        let told = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let sink_port = address(&ends.sink)?.port();
        let source_core = *cores.sources.first().ok_or(Failure::Bug("there is a core"))?;
        ends.source.connect(at).map_err(Failure::kernel("connect"))?;
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let refused = Failure::kernel("a thread");
        thread::scope(|scope| {
            let _stop = StopAll([&stop_source, &stop_forwarder, &stop_sink]);
            let (vain, sent, arrived, wrong) = (&vain, &sent, &arrived, &wrong);
            let (stop_source, stop_forwarder, stop_sink) =
                (&stop_source, &stop_forwarder, &stop_sink);
            let (forwarder, meter) = match forwarder {
                Forwarder::Here(mut forward) => {
                    let (say_ready, ready) = std::sync::mpsc::channel();
                    let thread = named("forwarder").spawn_scoped(scope, move || {
                        let clock = settle_on(cores.forwarder)?;
                        let vain_look = time_vain_looks(&mut forward);
                        let gone = |_| Failure::Bug("whoever started a forwarder waits for it");
                        say_ready.send(Meter::Looks { clock, vain_look }).map_err(gone)?;
                        forward(vain, &|| told(stop_forwarder));
                        Ok::<_, Failure>(())
                    });
                    let thread = thread.map_err(&refused)?;
                    let Ok(meter) = ready.recv() else {
                        return match join(thread) {
                            Err(failure) => Err(failure),
                            Ok(()) => Err(Failure::Bug("a forwarder says that it is ready")),
                        };
                    };
                    (Some(thread), meter)
                }
                Forwarder::There(threads) => (None, Meter::Sleeps(threads)),
            };
            let sink_socket = ends.sink;
            let sink = named("sink").spawn_scoped(scope, move || {
                settle_on(cores.sink)?;
                let alone = cores.sink_is_alone();
                while !told(stop_sink) {
                    let came = take(&sink_socket, size, &mut open, arrived, wrong);
                    match (came, alone) {
                        (true, _) => {}
                        (false, true) => std::hint::spin_loop(),
                        (false, false) => thread::sleep(Duration::from_micros(20)),
                    }
                }
                // Given back alive: what it dropped is asked later.
                Ok::<_, Failure>(sink_socket)
            });
            let sink = sink.map_err(&refused)?;
            let source_socket = ends.source;
            let source = named("source").spawn_scoped(scope, move || {
                settle_on(source_core)?;
                send_trains(&source_socket, size, &mut seal, sent, &|| told(stop_source));
                Ok::<_, Failure>(source_socket)
            });
            let source = source.map_err(&refused)?;

            // On a machine with much else to do it takes the three threads a while to run at all.
            let started = Instant::now();
            while arrived.read() == 0 && started.elapsed() < FIRST_PACKET_MAX {
                thread::sleep(Duration::from_millis(1));
            }
            let reading = || {
                let counts = (sent.read(), arrived.read(), vain.read());
                Ok::<_, Failure>((Instant::now(), counts, meter.times()?))
            };
            let ends = both_ends(window, reading, |(_, (_, arrived, _), _)| *arrived)?;
            let [(began, before, times_before), (ended, after, times_after)] = ends;
            stop_source.store(true, Ordering::Relaxed);
            let _source = join(source)?;
            let forwarder_drops = Kernel::at_rest(at.port())?.drops;
            stop_forwarder.store(true, Ordering::Relaxed);
            forwarder.map_or(Ok(()), join)?;
            let sink_drops = Kernel::at_rest(sink_port)?.drops;
            stop_sink.store(true, Ordering::Relaxed);
            let _sink = join(sink)?;

            if wrong.read() > 0 || arrived.read() == 0 {
                return Err(Failure::Wrong(format!(
                    "{} of {} packets that {backend} sent on were not what was sent",
                    wrong.read(),
                    arrived.read()
                )));
            }
            let seconds = (ended - began).as_secs_f64();
            let came = (after.1 - before.1) as f64;
            let times = times_after.since(times_before);
            let (idle, busy) = meter.idle_and_busy(times, after.2 - before.2, seconds);
            Ok(Outcome {
                rate: came / seconds,
                rate_per_busy_s: if busy > 0.0 { came / busy } else { 0.0 },
                idle,
                offered: (after.0 - before.0) as f64 / seconds,
                sent: sent.read(),
                arrived: arrived.read(),
                sink_drops,
                forwarder_drops,
                balance: None,
                backend,
            })
        })
    }
}

/// How it is known what a forwarder's threads do with their core.
enum Meter {
    /// It never sleeps, and counts how often it looks in vain.
    Looks { clock: ThreadClock, vain_look: Duration },
    /// They sleep when there is nothing.
    Sleeps(OtherThreads),
}

impl Meter {
    fn times(&self) -> Result<Times, Failure> {
        match self {
            Self::Looks { clock, .. } => Ok(Times { used: clock.read()?, waited: Duration::ZERO }),
            Self::Sleeps(threads) => threads.times(),
        }
    }

    /// The part in which there was nothing to do, and the seconds of CPU in which there was.
    fn idle_and_busy(&self, times: Times, vain: u64, seconds: f64) -> (f64, f64) {
        let [used, waited] = [times.used, times.waited].map(|time| time.as_secs_f64());
        match self {
            Self::Looks { vain_look, .. } => {
                let looked = vain as f64 * vain_look.as_secs_f64();
                let idle = if used > 0.0 { (looked / used).min(1.0) } else { 1.0 };
                (idle, used * (1.0 - idle))
            }
            Self::Sleeps(_) => ((1.0 - (used + waited) / seconds).max(0.0), used),
        }
    }
}

/// Raises all flags when it goes.
struct StopAll<'a>([&'a AtomicBool; 3]);

impl Drop for StopAll<'_> {
    fn drop(&mut self) {
        for flag in self.0 {
            flag.store(true, Ordering::Relaxed);
        }
    }
}

fn send_trains(
    socket: &UdpSocket,
    size: usize,
    seal: &mut Seal,
    sent: &Counter,
    stopped: &dyn Fn() -> bool,
) {
    let packets = (TRAIN_BYTES_MAX / size).min(TRAIN_PACKETS_MAX);
    let mut train = vec![0; packets * size];
    let segment = size as u16;
    let controls = [ControlMessage::UdpGsoSegments(&segment)];
    let space = nix::cmsg_space!(u16);
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(1, Some(space));
    while !stopped() {
        for packet in train.chunks_exact_mut(size) {
            seal(packet);
        }
        let vectors = [[IoSlice::new(&train)]];
        let fd = socket.as_raw_fd();
        if sendmmsg(fd, &mut headers, &vectors, [None], controls, MsgFlags::empty()).is_ok() {
            sent.add(packets as u64);
        }
    }
}

/// Takes what is there, opens the first packet of each datagram, and says whether anything was.
fn take(
    socket: &UdpSocket,
    size: usize,
    open: &mut Open,
    arrived: &Counter,
    wrong: &Counter,
) -> bool {
    let mut rooms = [[0_u8; SINK_ROOM_BYTES]; SINK_BATCH];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(SINK_BATCH, None);
    let mut lengths = ArrayVec::<usize, SINK_BATCH>::new();
    {
        let mut vectors = rooms.each_mut().map(|room| [IoSliceMut::new(room)]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let fd = socket.as_raw_fd();
        let Ok(messages) = recvmmsg(fd, &mut headers, vectors.iter_mut(), flags, None) else {
            return false;
        };
        lengths.extend(messages.map(|message| message.bytes));
    }
    for (room, &bytes) in rooms.iter_mut().zip(&lengths) {
        // Keepalives and handshakes are the link's own.
        if bytes < size {
            continue;
        }
        arrived.add((bytes / size) as u64);
        wrong.add(u64::from(bytes % size != 0 || !open(&mut room[..size])));
    }
    !lengths.is_empty()
}

/// An address on loopback with a port of the kernel's choice.
pub(crate) fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Bytes of the forwarder's receive buffer to ask for.
pub(crate) const FORWARDER_BUFFER_BYTES: usize = BUFFER_BYTES;
