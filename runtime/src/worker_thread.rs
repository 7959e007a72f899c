//! The loop around a worker, and its thread. The loop polls the worker, spins for a short time when
//! there is no work, and then blocks.

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

/// The behavior of a worker without work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdlePolicy {
    /// Polls this many times without work and then blocks. An idle relay then uses almost no
    /// processor time.
    Block {
        /// The number of polls without work before the worker blocks.
        idle_polls: u32,
    },
    /// Polls without blocking. This has the lowest latency, but the core is always busy.
    Spin,
}

impl IdlePolicy {
    /// Polls for some 10 µs before it blocks. A wake-up costs about the same time.
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

/// The maximum time that a worker blocks. All work wakes the worker, so this only limits the effect
/// of a bug in Strowger or in a driver. Six wake-ups a minute cost almost nothing.
const BLOCK_MAX: Duration = Duration::from_secs(10);

/// The maximum time that a worker blocks if some of its ports do not wake it for everything. For
/// example, the loss of an Ethernet interface is found only by polling.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// The interval at which a worker polls a port that cannot accept the frames that wait for it.
const RETRY: Duration = Duration::from_micros(200);

/// The loop around a worker. It polls the worker, and spins or blocks while there is no work. A
/// relay runs one loop on a thread for each worker, and benchmarks run it on their own threads.
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
    /// Makes a loop that blocks until this doorbell rings or a port has work.
    pub fn new(worker: Worker, doorbell: Doorbell, clock: Clock, idle: IdlePolicy) -> Self {
        let waiter = Waiter::with_capacity(PORTS_MAX + 1);
        let (progress, slow_path) = (Arc::default(), None);
        let block_max = BLOCK_MAX;
        Self { worker, doorbell, waiter, clock, idle, progress, slow_path, block_max }
    }

    /// Runs until `is_over` returns true. `is_over` gets the number of switched frames after each
    /// poll, and 0 before the thread blocks. The loop allocates no memory.
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
        // Arm first and check last, so that no ring in between is missed.
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

/// The progress of a worker's thread, for other threads.
#[derive(Debug, Default)]
struct Progress {
    turns: AtomicU64,
    is_asleep: AtomicBool,
    /// Whether the worker must wake the slow path when the worker wakes up.
    is_watched: AtomicBool,
}

impl Progress {
    /// Whether the worker, which a port has woken, must now wake the slow path.
    fn must_wake(&self) -> bool {
        // SeqCst, here and in `watch`: of this load after the store of `is_asleep`, and of the store and the load there,
        // one side sees the other's store.
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
/// ends, and after [`WorkerThread::watch`]. With `polls_ports` the thread polls its ports ten times
/// a second, for ports that do not wake it for everything.
///
/// # Errors
/// The kernel refuses a thread.
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
    /// Stops the worker, blocks until its thread has ended, and returns it with its ports and
    /// links.
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

    /// Makes the worker wake the slow path once, when a port wakes the worker.
    /// [`is_asleep`](Self::is_asleep) must be called after this, because a worker that is awake
    /// does not wake the slow path.
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
