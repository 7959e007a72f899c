//! The loop that polls a worker, and the thread that runs the loop.

use std::{
    io,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use strowger_engine::{limits::PORTS_MAX, worker::Worker};
use strowger_frame::{alloc, port::Arm};
use strowger_io::{Doorbell, DoorbellWaker, Waiter, sys::cores::pin_to_core};

use crate::clock::Clock;

/// The behaviour of a worker without work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdlePolicy {
    /// Polls `idle_polls` times without work and then blocks. An idle relay uses almost no CPU
    /// time.
    Block {
        /// The number of polls without work before the worker blocks.
        idle_polls: u32,
    },
    /// Polls without blocking. The latency is the lowest, but the core is always busy.
    Spin,
}

impl IdlePolicy {
    /// Polls for about 10 µs before it blocks. A wake-up takes about the same time.
    pub const ADAPTIVE: Self = Self::Block { idle_polls: 200 };

    /// The policy's name: `adaptive` or `spin`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Block { .. } => "adaptive",
            Self::Spin => "spin",
        }
    }
}

impl Default for IdlePolicy {
    /// [`ADAPTIVE`](Self::ADAPTIVE).
    fn default() -> Self {
        Self::ADAPTIVE
    }
}

/// The maximum time that a worker blocks. Work ends the block earlier, so the limit matters only if
/// Strowger or a driver has a bug. Six wake-ups a minute cost almost nothing.
const BLOCK_MAX: Duration = Duration::from_secs(10);

/// The maximum time that a worker blocks if some events of its ports do not wake it. For example,
/// only a poll detects that an Ethernet interface has vanished.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// The maximum time that a worker blocks while work is pending that does not wake it, such as
/// frames that a port has not sent yet.
const RETRY: Duration = Duration::from_micros(200);

/// The loop around a worker. It polls the worker, and spins or blocks while there is no work. A
/// relay runs one loop per worker, each on its own thread. Benchmarks run it on their own threads.
#[derive(Debug)]
pub struct WorkerLoop {
    worker: Worker,
    doorbell: Doorbell,
    waiter: Waiter,
    clock: Clock,
    idle: IdlePolicy,
    progress: Arc<Progress>,
    slow_path: Option<DoorbellWaker>,
    block_max: Duration,
}

impl WorkerLoop {
    /// Makes a loop that, without work, blocks until this doorbell rings or a port has work.
    pub fn new(worker: Worker, doorbell: Doorbell, clock: Clock, idle: IdlePolicy) -> Self {
        let waiter = Waiter::with_capacity(PORTS_MAX + 1);
        let (progress, slow_path) = (Arc::default(), None);
        let block_max = BLOCK_MAX;
        Self { worker, doorbell, waiter, clock, idle, progress, slow_path, block_max }
    }

    /// Runs until `is_over` returns true. The loop calls it after each poll, with the number of
    /// frames that the poll switched, and with 0 before the thread blocks. The loop allocates no
    /// memory.
    pub fn run(&mut self, mut is_over: impl FnMut(usize) -> bool) {
        let mut idle_for = 0;
        loop {
            let switched = self.worker.poll(self.clock.now());
            if is_over(switched) {
                return;
            }
            if switched > 0 {
                idle_for = 0;
                continue;
            }
            idle_for += 1;
            match self.idle {
                IdlePolicy::Block { idle_polls } if idle_for > idle_polls => {
                    self.sleep(&mut is_over);
                    idle_for = 0;
                }
                IdlePolicy::Block { .. } | IdlePolicy::Spin => std::hint::spin_loop(),
            }
        }
    }

    /// Blocks until a port, the slow path or another worker has work for this worker.
    fn sleep(&mut self, is_over: &mut impl FnMut(usize) -> bool) {
        let Self { worker, doorbell, waiter, progress, block_max, .. } = self;
        waiter.begin();
        // Arm the doorbell before the checks, so that no ring between a check and the block is
        // missed.
        doorbell.arm();
        waiter.add(Arm::Wait(doorbell.as_raw_fd()));
        let may_block = worker.arm(|arm| waiter.add(arm));
        if !is_over(0) && !waiter.is_awake() {
            progress.is_asleep.store(true, Ordering::SeqCst);
            waiter.wait(Some(if may_block { *block_max } else { RETRY }));
            progress.is_asleep.store(false, Ordering::SeqCst);
        }
        let has_work = std::cell::Cell::new(false);
        // Index 0 of the waiter is the doorbell, so the indexes of ports begin at 1.
        worker.disarm(|nth| {
            let is_ready = waiter.is_ready(1 + nth);
            has_work.set(has_work.get() | is_ready);
            is_ready
        });
        doorbell.disarm();
        if has_work.get()
            && progress.must_wake()
            && let Some(waker) = &self.slow_path
        {
            waker.wake();
        }
    }

    /// The worker.
    pub fn worker_mut(&mut self) -> &mut Worker {
        &mut self.worker
    }
}

/// The state of a worker's thread, for other threads to read.
#[derive(Debug, Default)]
struct Progress {
    turns: AtomicU64,
    is_asleep: AtomicBool,
    /// Whether the worker must wake the slow path when a port wakes the worker.
    is_watched: AtomicBool,
}

impl Progress {
    /// Whether the worker, woken by a port, must now wake the slow path. Clears the request.
    fn must_wake(&self) -> bool {
        // SeqCst, here and in `watch`: this thread stores `is_asleep` and then loads `is_watched`;
        // the slow path stores `is_watched` and then loads `is_asleep`. At least one of the two
        // loads sees the other thread's store.
        self.is_watched.load(Ordering::SeqCst) && self.is_watched.swap(false, Ordering::SeqCst)
    }
}

/// Wakes the slow path when the thread ends, even if it ends with a panic.
struct WakeAtEnd(Option<DoorbellWaker>);

impl Drop for WakeAtEnd {
    fn drop(&mut self) {
        if let Some(waker) = &self.0 {
            waker.wake();
        }
    }
}

/// A worker that runs on its own thread.
#[derive(Debug)]
pub(crate) struct WorkerThread {
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    waker: DoorbellWaker,
    /// The thread; `None` after it was joined.
    thread: Option<JoinHandle<Worker>>,
}

/// Runs `worker` on its own thread until [`WorkerThread::stop`]. If the thread allocates, the
/// process is aborted (R13). This requires that the process installed
/// [`GuardedAlloc`](strowger_frame::alloc::GuardedAlloc). The thread wakes `slow_path` when it
/// ends, and when a port wakes the thread for the first time after a [`WorkerThread::watch`]. With
/// `polls_ports` the thread polls its ports at least ten times a second, because some of their
/// events do not wake it.
///
/// # Errors
/// The kernel cannot create the thread.
pub(crate) fn start(
    worker: Worker,
    doorbell: Doorbell,
    clock: Clock,
    idle: IdlePolicy,
    core: Option<usize>,
    slow_path: Option<DoorbellWaker>,
    polls_ports: bool,
) -> io::Result<WorkerThread> {
    let stop = Arc::new(AtomicBool::new(false));
    let waker = doorbell.waker();
    let progress = Arc::new(Progress::default());
    let (must_stop, shown) = (stop.clone(), progress.clone());
    let name = format!("worker-{}", worker.number());
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        // Ignore an error: a worker that cannot be pinned still forwards.
        let _ = core.map(pin_to_core);
        let wake_at_end = WakeAtEnd(slow_path.clone());
        let mut worker = WorkerLoop::new(worker, doorbell, clock, idle);
        if polls_ports {
            worker.block_max = POLL_EVERY;
        }
        (worker.progress, worker.slow_path) = (shown.clone(), slow_path);
        let forbidden = alloc::forbid();
        let mut turn = 0_u64;
        worker.run(|_| {
            turn = turn.wrapping_add(1);
            // Relaxed: readers only compare it with its former value.
            shown.turns.store(turn, Ordering::Relaxed);
            // Acquire: pairs with Release in `request_stop`.
            must_stop.load(Ordering::Acquire)
        });
        drop(forbidden);
        drop(wake_at_end);
        worker.worker
    })?;
    Ok(WorkerThread { stop, progress, waker, thread: Some(thread) })
}

impl WorkerThread {
    /// Stops the worker, blocks until its thread has ended, and returns the worker with its ports
    /// and links.
    ///
    /// # Panics
    /// If the worker's thread panicked.
    pub(crate) fn stop(mut self) -> Worker {
        self.request_stop();
        let thread = self.thread.take().expect("joined once, here or in `drop`");
        match thread.join() {
            Ok(worker) => worker,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// A counter that changes while the worker is awake and makes progress.
    pub(crate) fn turns(&self) -> u64 {
        self.progress.turns.load(Ordering::Relaxed)
    }

    /// Whether the worker is blocked because it has no work.
    pub(crate) fn is_asleep(&self) -> bool {
        self.progress.is_asleep.load(Ordering::SeqCst)
    }

    /// Makes the worker wake the slow path the next time a port wakes the worker. The caller must
    /// call [`is_asleep`](Self::is_asleep) afterwards: a worker that is already awake wakes the
    /// slow path only after its next block.
    pub(crate) fn watch(&self) {
        self.progress.is_watched.store(true, Ordering::SeqCst);
    }

    /// Whether the thread has ended without [`stop`](Self::stop). If so, it panicked.
    pub(crate) fn has_died(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Drop for WorkerThread {
    /// Stops the worker, and drops it with its ports.
    fn drop(&mut self) {
        self.request_stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the worker has already been reported.
            drop(thread.join());
        }
    }
}
