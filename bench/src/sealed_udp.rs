//! Sealed traffic over real UDP sockets: a source that seals, a forwarder that opens and seals, and
//! a sink that opens. One generator serves all forwarders: it calls a closure to seal a packet into
//! the next place of a train, and sends the train. The closure is the only part of the source that
//! depends on the forwarder.

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
    machine::{Cores, OtherThreads, ThreadClock, Times, pin_this_thread},
    sockets::{self, BUFFER_BYTES, Kernel, address, socket},
    traffic::{SINK_BATCH, SINK_BUFFER_BYTES, TRAIN_BYTES_MAX, TRAIN_PACKETS_MAX},
    trial::{Outcome, StopOnDrop, join, measure_window, time_idle_poll},
};

/// Bytes of a sink's buffer per datagram: one packet to open.
const SINK_READ_BYTES: usize = 1_500;

/// Longest time to wait for the first packet.
const FIRST_PACKET_MAX: Duration = Duration::from_secs(5);

/// Seals the next packet into these bytes; the packet fills all of them.
pub(crate) type Seal = Box<dyn FnMut(&mut [u8]) + Send>;

/// Opens a packet; returns whether it is the packet that was sent.
pub(crate) type Open = Box<dyn FnMut(&mut [u8]) -> bool + Send>;

/// Forwards until stopped; counts idle polls in the first argument.
pub(crate) type Forward<'a> = Box<dyn FnMut(&Counter, &dyn Fn() -> bool) + Send + 'a>;

/// The forwarder.
pub(crate) enum Forwarder<'a> {
    /// A closure, on a thread that the trial makes.
    InThread(Forward<'a>),
    /// Threads that already run on the forwarder's core, and block when there is no work.
    #[cfg_attr(not(feature = "wireguard"), expect(dead_code, reason = "a WireGuard's device"))]
    External(OtherThreads),
}

/// The parts of a trial with a forwarder other than Strowger.
pub(crate) struct Parts {
    pub(crate) at: SocketAddrV4,
    pub(crate) seal: Seal,
    pub(crate) open: Open,
    pub(crate) forwarder: Forwarder<'static>,
}

/// Runs a trial of a forwarder other than Strowger between these ends.
pub(crate) type Run<'a> = dyn Fn(Ends, Parts) -> Result<Outcome, Failure> + Sync + 'a;

/// Both ends of a path through a forwarder.
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

/// One trial.
pub(crate) struct SealedTrial<'a> {
    pub(crate) size: usize,
    pub(crate) window: Duration,
    pub(crate) cores: &'a Cores,
    /// The address of the forwarder.
    pub(crate) at: SocketAddrV4,
    pub(crate) ends: Ends,
    pub(crate) seal: Seal,
    pub(crate) open: Open,
    pub(crate) forwarder: Forwarder<'a>,
    pub(crate) backend: &'static str,
}

impl SealedTrial<'_> {
    /// Runs the trial, like [`Trial::run`](crate::trial::Trial::run) with one source.
    pub(crate) fn run(self) -> Result<Outcome, Failure> {
        let Self { size, window, cores, at, ends, mut seal, mut open, forwarder, backend } = self;
        let [stop_source, stop_forwarder, stop_sink] = [const { AtomicBool::new(false) }; 3];
        let (sent, arrived, wrong, idle_polls) =
            (Counter::default(), Counter::default(), Counter::default(), Counter::default());
        let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let sink_port = address(&ends.sink)?.port();
        let source_core = *cores.sources.first().ok_or(Failure::Bug("there is a core"))?;
        ends.source.connect(at).map_err(Failure::kernel("connect"))?;
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let refused = Failure::kernel("a thread");
        thread::scope(|scope| {
            let _stop = StopOnDrop([&stop_source, &stop_forwarder, &stop_sink]);
            let (idle_polls, sent, arrived, wrong) = (&idle_polls, &sent, &arrived, &wrong);
            let (stop_source, stop_forwarder, stop_sink) =
                (&stop_source, &stop_forwarder, &stop_sink);
            let (forwarder, meter) = match forwarder {
                Forwarder::InThread(mut forward) => {
                    let (ready_tx, ready) = std::sync::mpsc::channel();
                    let thread = named("forwarder").spawn_scoped(scope, move || {
                        let clock = pin_this_thread(cores.forwarder)?;
                        let idle_poll_time = time_idle_poll(&mut forward);
                        let gone = |_| Failure::Bug("the trial waits for its forwarder");
                        ready_tx.send(Meter::IdlePolls { clock, idle_poll_time }).map_err(gone)?;
                        forward(idle_polls, &|| is_set(stop_forwarder));
                        Ok::<_, Failure>(())
                    });
                    let thread = thread.map_err(&refused)?;
                    let Ok(meter) = ready.recv() else {
                        return match join(thread) {
                            Err(failure) => Err(failure),
                            Ok(()) => Err(Failure::Bug("a forwarder reports that it is ready")),
                        };
                    };
                    (Some(thread), meter)
                }
                Forwarder::External(threads) => (None, Meter::Sleeps(threads)),
            };
            let sink_socket = ends.sink;
            let sink = named("sink").spawn_scoped(scope, move || {
                pin_this_thread(cores.sink)?;
                let alone = cores.sink_is_alone();
                while !is_set(stop_sink) {
                    let came = take(&sink_socket, size, &mut open, arrived, wrong);
                    match (came, alone) {
                        (true, _) => {}
                        (false, true) => std::hint::spin_loop(),
                        (false, false) => thread::sleep(Duration::from_micros(20)),
                    }
                }
                // The socket is returned open, because its drops are read later.
                Ok::<_, Failure>(sink_socket)
            });
            let sink = sink.map_err(&refused)?;
            let source_socket = ends.source;
            let source = named("source").spawn_scoped(scope, move || {
                pin_this_thread(source_core)?;
                send_trains(&source_socket, size, &mut seal, sent, &|| is_set(stop_source));
                Ok::<_, Failure>(source_socket)
            });
            let source = source.map_err(&refused)?;

            // On a loaded machine the three threads may not start at the same time.
            let started = Instant::now();
            while arrived.read() == 0 && started.elapsed() < FIRST_PACKET_MAX {
                thread::sleep(Duration::from_millis(1));
            }
            let reading = || {
                let counts = (sent.read(), arrived.read(), idle_polls.read());
                Ok::<_, Failure>((Instant::now(), counts, meter.times()?))
            };
            let ends = measure_window(window, reading, |(_, (_, arrived, _), _)| *arrived)?;
            let [(began, before, times_before), (ended, after, times_after)] = ends;
            stop_source.store(true, Ordering::Relaxed);
            let _source = join(source)?;
            let forwarder_drops = Kernel::wait_drained(at.port())?.drops;
            stop_forwarder.store(true, Ordering::Relaxed);
            forwarder.map_or(Ok(()), join)?;
            let sink_drops = Kernel::wait_drained(sink_port)?.drops;
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

/// The method by which the busy time of a forwarder's threads is measured.
enum Meter {
    /// The thread never blocks, and counts idle polls.
    IdlePolls { clock: ThreadClock, idle_poll_time: Duration },
    /// The threads block when there is no work.
    Sleeps(OtherThreads),
}

impl Meter {
    fn times(&self) -> Result<Times, Failure> {
        match self {
            Self::IdlePolls { clock, .. } => {
                Ok(Times { used: clock.read()?, waited: Duration::ZERO })
            }
            Self::Sleeps(threads) => threads.times(),
        }
    }

    /// Returns the idle share of the time, and the busy CPU time in seconds.
    fn idle_and_busy(&self, times: Times, idle_polls: u64, seconds: f64) -> (f64, f64) {
        let [used, waited] = [times.used, times.waited].map(|time| time.as_secs_f64());
        match self {
            Self::IdlePolls { idle_poll_time, .. } => {
                let looked = idle_polls as f64 * idle_poll_time.as_secs_f64();
                let idle = if used > 0.0 { (looked / used).min(1.0) } else { 1.0 };
                (idle, used * (1.0 - idle))
            }
            Self::Sleeps(_) => ((1.0 - (used + waited) / seconds).max(0.0), used),
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

/// Receives datagrams, opens the first packet of each, and returns whether any datagram arrived.
fn take(
    socket: &UdpSocket,
    size: usize,
    open: &mut Open,
    arrived: &Counter,
    wrong: &Counter,
) -> bool {
    let mut buffers = [[0_u8; SINK_READ_BYTES]; SINK_BATCH];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(SINK_BATCH, None);
    let mut lengths = ArrayVec::<usize, SINK_BATCH>::new();
    {
        let mut vectors = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let fd = socket.as_raw_fd();
        let Ok(messages) = recvmmsg(fd, &mut headers, vectors.iter_mut(), flags, None) else {
            return false;
        };
        lengths.extend(messages.map(|message| message.bytes));
    }
    for (buffer, &bytes) in buffers.iter_mut().zip(&lengths) {
        // Keepalives and handshakes are not part of the measured traffic.
        if bytes < size {
            continue;
        }
        arrived.add((bytes / size) as u64);
        wrong.add(u64::from(bytes % size != 0 || !open(&mut buffer[..size])));
    }
    !lengths.is_empty()
}

/// An address on loopback with a port that the kernel chooses.
pub(crate) fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Bytes of the forwarder's receive buffer.
pub(crate) const FORWARDER_BUFFER_BYTES: usize = BUFFER_BYTES;
