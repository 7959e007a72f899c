//! Runs a node in real time. Its worker runs as in `strowger relay`, its slow path runs at a fixed
//! interval, the innocent pair sends at a fixed pace, and the offender sends at another pace.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use strowger_engine::Now;
use strowger_frame::tally::Counter;
use strowger_io::Doorbell;
use strowger_runtime::{IdlePolicy, WorkerLoop, clock::Clock};

use super::{
    Half, drops,
    node::{Node, drain},
};
use crate::{
    Failure, Options,
    machine::{ThreadClock, pin_this_thread},
    trial::{StopOnDrop, join},
};

/// Shortest interval between two polls of the slow path.
const SLOW_PATH_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Maximum number of packets that a sender sends back to back after it was not scheduled. It then
/// continues at its pace, so that it takes longer to send the same number of packets.
const CATCH_UP_MAX: u64 = 16;

/// After the last packet was sent, a pause of this length without an arrival ends the run.
const ARRIVE_MAX: Duration = Duration::from_millis(500);

/// The time for which the idle worker is measured.
const IDLE_WINDOW: Duration = Duration::from_millis(300);

/// Longest time to wait until the offender has sent its head start. The run then continues.
const HEAD_START_WAIT_MAX: Duration = Duration::from_secs(30);

/// Packets to send from one socket, in turn, at a fixed pace.
pub(super) struct Flow {
    pub(super) socket: UdpSocket,
    pub(super) packets: Vec<Vec<u8>>,
    pub(super) per_s: f64,
}

impl Flow {
    /// Sends until `stopped` or until `most` packets were sent. Counts the packets in `sent`, and
    /// calls `between` after each group of packets that were due together.
    fn send(
        &self,
        most: u64,
        sent: &Counter,
        stopped: impl Fn() -> bool,
        mut between: impl FnMut(),
    ) {
        let mut next = self.packets.iter().cycle();
        let (mut started, mut due_before) = (Instant::now(), 0);
        while sent.read() < most && !stopped() {
            let due = (started.elapsed().as_secs_f64() * self.per_s) as u64;
            let behind = due - due_before;
            if behind > CATCH_UP_MAX {
                started = Instant::now();
                due_before = 0;
            } else {
                due_before = due;
            }
            for packet in
                next.by_ref().take(behind.min(CATCH_UP_MAX).min(most - sent.read()) as usize)
            {
                if self.socket.send(packet).is_ok() {
                    sent.add(1);
                }
            }
            between();
            thread::sleep(Duration::from_micros(300));
        }
    }
}

/// One half of a pair in real time.
pub(super) struct Paced<'a> {
    pub(super) options: &'a Options,
    pub(super) node: Node,
    pub(super) innocent: Flow,
    pub(super) sink: UdpSocket,
    /// Packets that the innocent pair sends.
    pub(super) count: u64,
    /// The packets of the offender; `None` in the half without the offender.
    pub(super) offender: Option<Flow>,
    /// Packets that the offender sends before the innocent pair begins.
    pub(super) head_start: u64,
    /// Whether to measure the CPU time of the idle worker after both senders have stopped.
    pub(super) then_idle: bool,
}

impl Paced<'_> {
    pub(super) fn run(self) -> Result<Half, Failure> {
        let Self { options, mut node, innocent, sink, count, offender, head_start, then_idle } =
            self;
        let cores = &options.cores;
        let source_core = *cores.sources.first().ok_or(Failure::Bug("there is a core"))?;
        let [stop_worker, stop_offender] = [const { AtomicBool::new(false) }; 2];
        let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let (sent, offender_sent) = (Counter::default(), Counter::default());
        node.settle(Now(1))?;
        let clock = Clock::starting_at(Now(2));
        let worker = node.workers.pop().ok_or(Failure::Bug("paced nodes have one worker"))?;
        let doorbell = Doorbell::new().map_err(Failure::kernel("a doorbell"))?;
        let waker = doorbell.waker();
        let mut worker = WorkerLoop::new(worker, doorbell, clock, IdlePolicy::ADAPTIVE);
        thread::scope(|scope| {
            let _stop = StopOnDrop([&stop_worker, &stop_offender]);
            let (stop_worker, stop_offender, offender_sent) =
                (&stop_worker, &stop_offender, &offender_sent);
            let (ready_tx, ready) = std::sync::mpsc::channel();
            let worker = scope.spawn(move || {
                let cpu = pin_this_thread(cores.forwarder)?;
                ready_tx
                    .send(cpu)
                    .map_err(|_| Failure::Bug("the benchmark waits for its worker"))?;
                worker.run(|_| is_set(stop_worker));
                Ok::<_, Failure>(worker)
            });
            let slow_path = scope.spawn(move || {
                pin_this_thread(source_core)?;
                while !is_set(stop_worker) {
                    let polled = Instant::now();
                    node.switch.poll(clock.now());
                    thread::sleep(SLOW_PATH_INTERVAL_MIN.saturating_sub(polled.elapsed()));
                }
                Ok::<_, Failure>(node)
            });
            let Ok(cpu) = ready.recv() else {
                return Err(join(worker)
                    .err()
                    .unwrap_or(Failure::Bug("a worker reports that it is ready")));
            };
            pin_this_thread(source_core)?;
            let offending = offender.is_some();
            let offender = offender.map(|flow| {
                scope.spawn(move || {
                    pin_this_thread(source_core)?;
                    flow.send(u64::MAX, offender_sent, || is_set(stop_offender), || ());
                    Ok::<_, Failure>(())
                })
            });
            let waiting = Instant::now();
            while offending
                && offender_sent.read() < head_start
                && waiting.elapsed() < HEAD_START_WAIT_MAX
            {
                thread::sleep(Duration::from_millis(1));
            }
            let mut delivered = 0;
            innocent.send(count, &sent, || false, || delivered += drain(&sink));
            let mut received_at = Instant::now();
            while delivered < sent.read() && received_at.elapsed() < ARRIVE_MAX {
                match drain(&sink) {
                    0 => thread::sleep(Duration::from_millis(1)),
                    more => (delivered, received_at) = (delivered + more, Instant::now()),
                }
            }
            stop_offender.store(true, Ordering::Relaxed);
            offender.map_or(Ok(()), join)?;
            let cpu = then_idle.then(|| idle_share(cpu)).transpose()?;
            // Release: the worker sees the flag when the waker has woken it.
            stop_worker.store(true, Ordering::Release);
            waker.wake();
            let _worker = join(worker)?;
            let mut node = join(slow_path)?;
            node.switch.poll(clock.now());
            let drops = drops(&node.balance());
            let (offered, offender) = (sent.read(), offender_sent.read());
            Ok(Half { offered, delivered, offender, drops, cpu, ..Half::default() })
        })
    }
}

/// The share of a core that an idle worker uses.
fn idle_share(clock: ThreadClock) -> Result<f64, Failure> {
    let (used, began) = (clock.read()?, Instant::now());
    thread::sleep(IDLE_WINDOW);
    let used = clock.read()?.saturating_sub(used);
    Ok(used.as_secs_f64() / began.elapsed().as_secs_f64())
}
