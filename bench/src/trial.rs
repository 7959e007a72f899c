//! One trial (RFC 2544) of one forwarder: sources, forwarder and sink on separate threads, a
//! warm-up, and a window at whose ends the sink's count and the forwarder's CPU time are read.
//! Every trial has fresh sockets, so that no packets remain in queues from an earlier trial.

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
    machine::{Cores, ThreadClock, pin_this_thread},
    packet, peers,
    peers::Routes,
    relay::{Relay, RelaySpec},
    sockets::{Kernel, address, socket},
    traffic::{Arrived, Flows, Traffic},
};

/// The forwarder under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarder {
    /// Strowger.
    Relay(RelaySpec),
    /// A plain forwarder with recvmmsg and sendmmsg.
    Mmsg,
    /// A plain forwarder with one datagram per call.
    OneByOne,
}

/// One trial.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// The forwarder.
    pub forwarder: Forwarder,
    /// Bytes of each packet: the UDP payload.
    pub size: usize,
    /// The kind of traffic.
    pub flows: Flows,
    /// Packets per second that the sources offer; if `None`, the sources send as fast as possible.
    pub packets_per_s: Option<f64>,
    /// Bytes of the forwarder's receive buffer.
    pub buffer_bytes: usize,
    /// The length of the window.
    pub window: Duration,
    /// The assignment of cores to threads.
    pub cores: &'a Cores,
}

/// The result of a trial.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Packets per second that arrived at the sink.
    pub rate: f64,
    /// Packets that arrived per second of the forwarder thread's CPU time, without the time of idle
    /// polls. It is the rate on a core without other load if packets are always available.
    pub rate_per_busy_s: f64,
    /// The share of CPU time that the forwarder spent on idle polls. If it is far above 0, the
    /// source was the limit.
    pub idle: f64,
    /// Packets per second that were offered.
    pub offered: f64,
    /// Packets sent in the whole trial.
    pub sent: u64,
    /// Packets that arrived in the whole trial.
    pub arrived: u64,
    /// Datagrams that the kernel dropped at the sink. If there are more than a few, the sink was
    /// the limit.
    pub sink_drops: u64,
    /// Datagrams that the kernel dropped at the forwarder's socket, as counted by the kernel.
    pub forwarder_drops: u64,
    /// The relay's counters after all packets have arrived; `None` for other forwarders.
    pub balance: Option<Balance>,
    /// The receive backend of a relay: `io_uring` or `mmsg`. For other forwarders it is `none`.
    pub backend: &'static str,
}

/// The warm-up before the window. It is long enough for queues to fill and clock rates to rise.
pub(crate) const WARM_UP: Duration = Duration::from_millis(150);

/// Longest extension of a window without a packet. The extension is necessary, because on a loaded
/// machine a thread may not have run at all, and without packets there is no rate.
const EXTENSION_MAX: Duration = Duration::from_secs(10);
const EXTENSION_STEP: Duration = Duration::from_millis(5);

/// Warms up, then reads the counts at both ends of a window. If no packet `came`, the window is
/// extended until the first packet, for at most `EXTENSION_MAX`.
pub(crate) fn measure_window<R>(
    window: Duration,
    reading: impl Fn() -> Result<R, Failure>,
    came: impl Fn(&R) -> u64,
) -> Result<[R; 2], Failure> {
    thread::sleep(WARM_UP);
    let (before, started) = (reading()?, Instant::now());
    thread::sleep(window);
    loop {
        let after = reading()?;
        if came(&after) > came(&before) || started.elapsed() > window + EXTENSION_MAX {
            return Ok([before, after]);
        }
        thread::sleep(EXTENSION_STEP);
    }
}

/// The report of a forwarder's thread when it is ready.
struct Ready {
    at: SocketAddrV4,
    clock: ThreadClock,
    packets: Vec<Vec<u8>>,
    backend: &'static str,
    /// The time of one idle poll.
    idle_poll_time: Duration,
}

/// The counts at one end of the window.
struct Reading {
    at: Instant,
    arrived: u64,
    sent: u64,
    idle_polls: u64,
    used: Duration,
}

/// The number of idle polls in one timed run, before the first packet.
const IDLE_POLLS_TIMED: u64 = 2_000;

/// Times one idle poll of `forward`: the minimum of several runs of many polls, because
/// interruptions can only make a run longer.
pub(crate) fn time_idle_poll(mut forward: impl FnMut(&Counter, &dyn Fn() -> bool)) -> Duration {
    let took = (0..5).map(|_| {
        let (polled, started) = (Counter::default(), Instant::now());
        forward(&polled, &|| polled.read() >= IDLE_POLLS_TIMED);
        started.elapsed()
    });
    took.min().unwrap_or_default() / IDLE_POLLS_TIMED as u32
}

impl Trial<'_> {
    /// Runs the trial.
    ///
    /// # Errors
    /// The operation that the kernel refused, or the fault that the sink observed.
    pub fn run(&self) -> Result<Outcome, Failure> {
        let traffic = Traffic::new(self.size, self.flows)?;
        let routes = traffic.routes()?;
        let [stop_sources, stop_forwarder, stop_sink] = [const { AtomicBool::new(false) }; 3];
        let arrived = Arrived::default();
        let idle_polls = Counter::default();
        let sent: Vec<Counter> = self.cores.sources.iter().map(|_| Counter::default()).collect();
        let sent_in_all = || sent.iter().map(Counter::read).sum::<u64>();

        // The threads have names, so that a profiler can distinguish them.
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let refused = Failure::kernel("a thread");
        thread::scope(|scope| {
            // Stops every thread if a step below fails.
            let _stop = StopOnDrop([&stop_sources, &stop_forwarder, &stop_sink]);
            let (ready_tx, ready) = mpsc::channel();
            let forwarder = named("forwarder").spawn_scoped(scope, || {
                let ready_tx = ready_tx;
                self.forward(routes, &ready_tx, &idle_polls, || {
                    stop_forwarder.load(Ordering::Relaxed)
                })
            });
            let forwarder = forwarder.map_err(&refused)?;
            let Ok(Ready { at, clock, packets, backend, idle_poll_time }) = ready.recv() else {
                // The thread has ended before it was ready. Its error contains the reason.
                return match forwarder.join() {
                    Ok(Err(failure)) => Err(failure),
                    _ => Err(Failure::Bug("a forwarder reports that it is ready")),
                };
            };
            let (sources, sink) = traffic.split(packets, at, self.cores.sources.len())?;

            let sink_ports = sink.ports()?;

            let sink_thread = named("sink").spawn_scoped(scope, || {
                let sink = sink;
                pin_this_thread(self.cores.sink)?;
                let stopped = || stop_sink.load(Ordering::Relaxed);
                sink.count(&arrived, self.cores.sink_is_alone(), stopped);
                // The sink is returned open, because the drops of its sockets are read later.
                Ok::<_, Failure>(sink)
            });
            let sink_thread = sink_thread.map_err(&refused)?;
            let share = self.packets_per_s.map(|all| all / sources.len() as f64);
            let each = sources.into_iter().zip(&sent).zip(&self.cores.sources);
            let source_threads = each
                .map(|((source, sent), &core)| {
                    let stop = &stop_sources;
                    named("source").spawn_scoped(scope, move || {
                        pin_this_thread(core)?;
                        source.send(sent, share, &|| stop.load(Ordering::Relaxed));
                        // The source is returned open, because a closed socket would cause errors
                        // at the forwarder.
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
                    idle_polls: idle_polls.read(),
                    used: clock.read()?,
                })
            };
            let [before, after] = measure_window(self.window, reading, |reading| reading.arrived)?;

            stop_sources.store(true, Ordering::Relaxed);
            let sources = source_threads.into_iter().map(join).collect::<Result<Vec<_>, _>>()?;
            // Wait until the forwarder's socket is drained. The kernel reports drops with the next
            // datagram, so each source thread then sends one more datagram.
            Kernel::wait_drained(at.port())?;
            for (source, sent) in sources.iter().zip(&sent) {
                source.send_one(sent);
            }
            let forwarder_drops = Kernel::wait_drained(at.port())?.drops;
            stop_forwarder.store(true, Ordering::Relaxed);
            let balance = join(forwarder)?;
            let drops = sink_ports.iter().map(|&port| Ok(Kernel::wait_drained(port)?.drops));
            let sink_drops = drops.sum::<Result<u64, Failure>>()?;
            stop_sink.store(true, Ordering::Relaxed);
            let sink = join(sink_thread)?;
            drop((sources, sink));

            if arrived.wrong.read() > 0 {
                return Err(Failure::Wrong(format!(
                    "{} of the datagrams that {:?} forwarded differ from those sent",
                    arrived.wrong.read(),
                    self.forwarder
                )));
            }
            let seconds = (after.at - before.at).as_secs_f64();
            let came = (after.arrived - before.arrived) as f64;
            let used = after.used.saturating_sub(before.used).as_secs_f64();
            let looked =
                (after.idle_polls - before.idle_polls) as f64 * idle_poll_time.as_secs_f64();
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
        ready_tx: &mpsc::Sender<Ready>,
        idle_polls: &Counter,
        stopped: impl Fn() -> bool,
    ) -> Result<Option<Balance>, Failure> {
        let clock = pin_this_thread(self.cores.forwarder)?;
        let gone = |_| Failure::Bug("the trial waits for its forwarder");
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
            let idle_poll_time =
                time_idle_poll(|idle_polls, stopped| relay.forward(idle_polls, stopped));
            ready_tx.send(Ready { at, clock, packets, backend, idle_poll_time }).map_err(gone)?;
            relay.forward(idle_polls, stopped);
            relay.drain();
            return Ok(Some(relay.balance()));
        }

        let socket = socket(self.buffer_bytes)?;
        let at = address(&socket)?;
        // This label is as long as the labels for Strowger, so the packets have the same layout.
        // Plain forwarders do not read headers.
        let here = Label::here();
        let flows = 0..routes.len() as u8;
        let packets = flows.map(|flow| packet::packet(self.size, here, flow)).collect();
        let routes = Routes::new(routes);
        let forward = |idle_polls: &Counter, stopped: &dyn Fn() -> bool| match self.forwarder {
            Forwarder::OneByOne => peers::one_by_one(&socket, &routes, idle_polls, stopped),
            _ => peers::mmsg(&socket, &routes, idle_polls, stopped),
        };
        let idle_poll_time = time_idle_poll(forward);
        ready_tx
            .send(Ready { at, clock, packets, backend: "none", idle_poll_time })
            .map_err(gone)?;
        forward(idle_polls, &stopped);
        Ok(None)
    }
}

/// Sets all flags when dropped.
pub(crate) struct StopOnDrop<'a, const N: usize>(pub(crate) [&'a AtomicBool; N]);

impl<const N: usize> Drop for StopOnDrop<'_, N> {
    fn drop(&mut self) {
        for flag in self.0 {
            flag.store(true, Ordering::Relaxed);
        }
    }
}

/// Joins a thread and returns its result. Panics if the thread panicked.
pub(crate) fn join<T>(
    thread: thread::ScopedJoinHandle<'_, Result<T, Failure>>,
) -> Result<T, Failure> {
    match thread.join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
