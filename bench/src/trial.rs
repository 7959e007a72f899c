//! One run of one forwarder: sources, forwarder and sink on threads of their own, a warm-up, and a
//! window in which the sink's count and the forwarder's CPU time are read. Every run has fresh
//! sockets, so none inherits another's queues.

use std::{
    io,
    net::SocketAddrV4,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use strowger_engine::control::Balance;
use strowger_frame::tally::Counter;
use strowger_wire::Label;

use crate::{
    Failure,
    machine::{Cores, ThreadClock, settle_on},
    packet, peers,
    peers::Routes,
    relay::{Relay, RelaySpec},
    sockets::{Kernel, address, socket},
    traffic::{Arrived, Flows, Traffic},
};

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarder {
    /// Ours.
    Relay(RelaySpec),
    /// recvmmsg and sendmmsg.
    Mmsg,
    /// One datagram a call.
    OneByOne,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// What forwards.
    pub forwarder: Forwarder,
    /// Bytes of each packet: the UDP payload.
    pub size: usize,
    /// How packets come.
    pub flows: Flows,
    /// Packets a second that the sources offer; as many as they can, if `None`.
    pub packets_per_s: Option<f64>,
    /// Bytes of the forwarder's receive buffer to ask the kernel for.
    pub buffer_bytes: usize,
    /// How long the window is.
    pub window: Duration,
    /// Who runs where.
    pub cores: &'a Cores,
}

/// What a run found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Packets a second that came through.
    pub rate: f64,
    /// Packets that came through for each second of CPU that the forwarder's thread had and did not
    /// spend looking in vain: what the rate would be if nobody else had used its core, and there
    /// had always been packets.
    pub rate_per_busy_s: f64,
    /// The part of its CPU time in which the forwarder looked for packets in vain: far above 0, and
    /// the source was the limit.
    pub idle: f64,
    /// Packets a second that were offered.
    pub offered: f64,
    /// Packets sent from first to last.
    pub sent: u64,
    /// Packets that came through from first to last.
    pub arrived: u64,
    /// Datagrams that the kernel dropped at the sink: more than a few, and the sink was the limit.
    pub sink_drops: u64,
    /// Datagrams that the kernel dropped at the forwarder's socket, in its own words.
    pub forwarder_drops: u64,
    /// What a relay counted, once all had come to rest.
    pub balance: Option<Balance>,
    /// How a relay received: `io_uring` or `mmsg`.
    pub backend: &'static str,
}

/// Before the window: long enough for queues to fill and clocks to rise.
pub(crate) const WARM_UP: Duration = Duration::from_millis(150);

/// How much longer than it was to be a window may last in which nothing comes. On a machine with much
/// else to do somebody may have had no turn at all, and of nothing there is no rate to compare.
const TURN_MAX: Duration = Duration::from_secs(10);
const TURN_LOOK: Duration = Duration::from_millis(5);

/// Warms up, and reads at both ends of a window; the first frame ends one in which nothing `came`.
pub(crate) fn both_ends<R>(
    window: Duration,
    reading: impl Fn() -> Result<R, Failure>,
    came: impl Fn(&R) -> u64,
) -> Result<[R; 2], Failure> {
    thread::sleep(WARM_UP);
    let (before, started) = (reading()?, Instant::now());
    thread::sleep(window);
    loop {
        let after = reading()?;
        if came(&after) > came(&before) || started.elapsed() > window + TURN_MAX {
            return Ok([before, after]);
        }
        thread::sleep(TURN_LOOK);
    }
}

/// What a forwarder's thread says when it is ready.
struct Ready {
    at: SocketAddrV4,
    clock: ThreadClock,
    packets: Vec<Vec<u8>>,
    backend: &'static str,
    /// What it takes to look in vain once.
    vain_look: Duration,
}

/// What is read at both ends of the window.
struct Reading {
    at: Instant,
    arrived: u64,
    sent: u64,
    vain: u64,
    used: Duration,
}

/// Looks in vain whose time is taken before the first packet comes.
const LOOKS: u64 = 2_000;

/// Has `forward` look in vain some thousand times; says what one look took. The least of a few, as
/// whatever disturbs only adds.
pub(crate) fn time_vain_looks(mut forward: impl FnMut(&Counter, &dyn Fn() -> bool)) -> Duration {
    let took = (0..5).map(|_| {
        let (looks, started) = (Counter::default(), Instant::now());
        forward(&looks, &|| looks.read() >= LOOKS);
        started.elapsed()
    });
    took.min().unwrap_or_default() / LOOKS as u32
}

impl Trial<'_> {
    /// Runs it.
    ///
    /// # Errors
    /// What the kernel refused, or what came out wrong at the sink.
    pub fn run(&self) -> Result<Outcome, Failure> {
        let traffic = Traffic::new(self.size, self.flows)?;
        let routes = traffic.routes()?;
        let [stop_sources, stop_forwarder, stop_sink] = [const { AtomicBool::new(false) }; 3];
        let arrived = Arrived::default();
        let vain = Counter::default();
        let sent: Vec<Counter> = self.cores.sources.iter().map(|_| Counter::default()).collect();
        let sent_in_all = || sent.iter().map(Counter::read).sum::<u64>();

        // Names, so that a profiler can tell them apart.
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let refused = Failure::kernel("a thread");
        thread::scope(|scope| {
            // Whatever happens below, nobody is left running.
            let _stop = StopAll([&stop_sources, &stop_forwarder, &stop_sink]);
            let (say_ready, ready) = mpsc::channel();
            let forwarder = named("forwarder").spawn_scoped(scope, || {
                let say_ready = say_ready;
                self.forward(routes, &say_ready, &vain, || stop_forwarder.load(Ordering::Relaxed))
            });
            let forwarder = forwarder.map_err(&refused)?;
            let Ok(Ready { at, clock, packets, backend, vain_look }) = ready.recv() else {
                // It has ended without a word: its error says why.
                return match forwarder.join() {
                    Ok(Err(failure)) => Err(failure),
                    _ => Err(Failure::Bug("a forwarder says that it is ready")),
                };
            };
            let (sources, sink) = traffic.split(packets, at, self.cores.sources.len())?;

            let sink_ports = sink.ports()?;

            let sink_thread = named("sink").spawn_scoped(scope, || {
                let sink = sink;
                settle_on(self.cores.sink)?;
                let stopped = || stop_sink.load(Ordering::Relaxed);
                sink.count(&arrived, self.cores.sink_is_alone(), stopped);
                // Given back alive: what its sockets dropped is asked later.
                Ok::<_, Failure>(sink)
            });
            let sink_thread = sink_thread.map_err(&refused)?;
            let share = self.packets_per_s.map(|all| all / sources.len() as f64);
            let each = sources.into_iter().zip(&sent).zip(&self.cores.sources);
            let source_threads = each
                .map(|((source, sent), &core)| {
                    let told = &stop_sources;
                    named("source").spawn_scoped(scope, move || {
                        settle_on(core)?;
                        source.send(sent, share, &|| told.load(Ordering::Relaxed));
                        // Given back alive: a closed socket would be news to the forwarder.
                        Ok::<_, Failure>(source)
                    })
                })
                .collect::<io::Result<Vec<_>>>()
                .map_err(&refused)?;

            let reading = || {
                let at = Instant::now();
                let (arrived, sent) = (arrived.packets.read(), sent_in_all());
                Ok::<_, Failure>(Reading {
                    at,
                    arrived,
                    sent,
                    vain: vain.read(),
                    used: clock.read()?,
                })
            };
            let [before, after] = both_ends(self.window, reading, |reading| reading.arrived)?;

            stop_sources.store(true, Ordering::Relaxed);
            let sources = source_threads.into_iter().map(join).collect::<Result<Vec<_>, _>>()?;
            // What has been sent comes to rest: at the forwarder's socket, then at the sink's. The
            // kernel tells of drops with the next datagram, so one more goes when all is quiet.
            Kernel::at_rest(at.port())?;
            for (source, sent) in sources.iter().zip(&sent) {
                source.send_one(sent);
            }
            let forwarder_drops = Kernel::at_rest(at.port())?.drops;
            stop_forwarder.store(true, Ordering::Relaxed);
            let balance = join(forwarder)?;
            let drops = sink_ports.iter().map(|&port| Ok(Kernel::at_rest(port)?.drops));
            let sink_drops = drops.sum::<Result<u64, Failure>>()?;
            stop_sink.store(true, Ordering::Relaxed);
            let sink = join(sink_thread)?;
            drop((sources, sink));

            if arrived.wrong.read() > 0 {
                return Err(Failure::Wrong(format!(
                    "{} of the datagrams that {:?} sent on were not what was to be sent on",
                    arrived.wrong.read(),
                    self.forwarder
                )));
            }
            let seconds = (after.at - before.at).as_secs_f64();
            let came = (after.arrived - before.arrived) as f64;
            let used = after.used.saturating_sub(before.used).as_secs_f64();
            let looked = (after.vain - before.vain) as f64 * vain_look.as_secs_f64();
            let idle = if used > 0.0 { (looked / used).min(1.0) } else { 1.0 };
            let busy = used * (1.0 - idle);
            Ok(Outcome {
                rate: came / seconds,
                rate_per_busy_s: if busy > 0.0 { came / busy } else { 0.0 },
                idle,
                offered: (after.sent - before.sent) as f64 / seconds,
                sent: sent_in_all(),
                arrived: arrived.packets.read(),
                sink_drops,
                forwarder_drops,
                balance,
                backend,
            })
        })
    }

    /// The forwarder's thread.
    fn forward(
        &self,
        routes: Vec<(SocketAddrV4, SocketAddrV4)>,
        say_ready: &mpsc::Sender<Ready>,
        vain: &Counter,
        stopped: impl Fn() -> bool,
    ) -> Result<Option<Balance>, Failure> {
        let clock = settle_on(self.cores.forwarder)?;
        let gone = |_| Failure::Bug("whoever started a forwarder waits for it");
        if let Forwarder::Relay(spec) = self.forwarder {
            let mut relay = Relay::new(spec, self.buffer_bytes)?;
            let mut packets = Vec::new();
            for (flow, &(from, to)) in (0..).zip(&routes) {
                let (from, to) = (relay.attach(from)?, relay.attach(to)?);
                let label = packet::label(relay.scheme(), &[(from, to)])?;
                packets.push(packet::packet(self.size, label, flow));
            }
            relay.settle();
            let std::net::SocketAddr::V4(at) = relay.report().local else {
                return Err(Failure::Bug("relays are bound to 127.0.0.1"));
            };
            let backend = relay.report().backend.name();
            let vain_look = time_vain_looks(|vain, stopped| relay.forward(vain, stopped));
            say_ready.send(Ready { at, clock, packets, backend, vain_look }).map_err(gone)?;
            relay.forward(vain, stopped);
            relay.settle_down();
            return Ok(Some(relay.balance()));
        }

        let socket = socket(self.buffer_bytes)?;
        let at = address(&socket)?;
        // As long as ours; peers read no header.
        let here = Label::here();
        let flows = 0..routes.len() as u8;
        let packets = flows.map(|flow| packet::packet(self.size, here, flow)).collect();
        let routes = Routes::new(routes);
        let forward = |vain: &Counter, stopped: &dyn Fn() -> bool| match self.forwarder {
            Forwarder::OneByOne => peers::one_by_one(&socket, &routes, vain, stopped),
            _ => peers::mmsg(&socket, &routes, vain, stopped),
        };
        let vain_look = time_vain_looks(forward);
        say_ready.send(Ready { at, clock, packets, backend: "none", vain_look }).map_err(gone)?;
        forward(vain, &stopped);
        Ok(None)
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

pub(crate) fn join<T>(
    thread: thread::ScopedJoinHandle<'_, Result<T, Failure>>,
) -> Result<T, Failure> {
    match thread.join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
