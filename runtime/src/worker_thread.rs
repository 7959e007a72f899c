//! Runs a worker on a thread of its own: breathe, and when there is nothing to breathe, spin a
//! little and then block. The one place where the data plane meets a clock and a scheduler; it
//! never touches a frame.

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

use strowger_engine::{limits::PORTS_MAX, orders::Bell, worker::Worker};
use strowger_frame::{alloc, port::Arm};
use strowger_io::{Doorbell, Ringer, Waiter, cores::pin_to_core};

use crate::clock::Clock;

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Breathes in vain this many times, then blocks: an idle node costs close to nothing.
    Block {
        /// Breaths in vain before blocking.
        breaths: u32,
    },
    /// Never blocks: lowest latency, one core always busy.
    Spin,
}

impl Idle {
    /// Some 10 µs of looking before blocking: what a wake-up would cost anyway.
    pub const ADAPTIVE: Self = Self::Block { breaths: 200 };
}

/// The longest that a worker blocks: bounds what a lost wake-up could cost.
const BLOCK_MAX: Duration = Duration::from_millis(100);

/// While frames wait for a port that cannot take them, it is asked again this often.
const RETRY: Duration = Duration::from_micros(200);

/// A worker that runs.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    turns: Arc<AtomicU64>,
    ringer: Ringer,
    thread: JoinHandle<Worker>,
}

/// The ringer of a worker's doorbell, as the engine wants it.
#[derive(Clone, Debug)]
pub struct WorkerBell(pub Ringer);

impl Bell for WorkerBell {
    fn ring(&self) {
        self.0.ring();
    }
}

/// Runs `worker` on a thread of its own until it is told to stop. The thread may not allocate: it
/// aborts the process if it does (R13), provided that the process installed the guarded allocator.
///
/// # Errors
/// The kernel's, when no thread is to be had.
pub fn start(
    mut worker: Worker,
    mut doorbell: Doorbell,
    clock: Clock,
    idle: Idle,
    core: Option<usize>,
) -> io::Result<Running> {
    let stop = Arc::new(AtomicBool::new(false));
    let ringer = doorbell.ringer();
    let turns = Arc::new(AtomicU64::new(0));
    let (told, turned) = (stop.clone(), turns.clone());
    let name = format!("worker-{}", worker.number());
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        // A core that cannot be had is no reason not to forward.
        let _ = core.map(pin_to_core);
        let mut waiter = Waiter::with_capacity(PORTS_MAX + 1);
        let forbidden = alloc::forbid();
        let (mut vain, mut turn) = (0, 0_u64);
        while !told.load(Ordering::Relaxed) {
            turn = turn.wrapping_add(1);
            // Relaxed: only whether it changes is looked at.
            turned.store(turn, Ordering::Relaxed);
            if worker.breathe(clock.now()) > 0 {
                vain = 0;
                continue;
            }
            vain += 1;
            match idle {
                Idle::Block { breaths } if vain > breaths => {
                    sleep(&mut worker, &mut doorbell, &mut waiter, &told);
                    vain = 0;
                }
                Idle::Block { .. } | Idle::Spin => std::hint::spin_loop(),
            }
        }
        drop(forbidden);
        worker
    })?;
    Ok(Running { stop, turns, ringer, thread })
}

/// Blocks until a port, the slow path or another worker has something.
fn sleep(worker: &mut Worker, doorbell: &mut Doorbell, waiter: &mut Waiter, told: &AtomicBool) {
    waiter.begin();
    // Armed first, looked at last: whoever rings in between is not missed.
    doorbell.arm();
    waiter.add(Arm::Wait(doorbell.as_raw_fd()));
    let may_block = worker.arm(|arm| waiter.add(arm));
    if !told.load(Ordering::Acquire) && !waiter.is_awake() {
        waiter.wait(Some(if may_block { BLOCK_MAX } else { RETRY }));
    }
    // The doorbell was added first.
    worker.disarm(|nth| waiter.is_ready(1 + nth));
    doorbell.disarm();
}

impl Running {
    /// Tells the worker to stop, and waits for it: it comes back with its ports and links.
    ///
    /// # Panics
    /// If the worker's thread panicked.
    pub fn stop(self) -> Worker {
        self.stop.store(true, Ordering::Release);
        self.ringer.ring();
        match self.thread.join() {
            Ok(worker) => worker,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A number that changes while the worker makes progress, asleep or not.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Whether the thread has ended by itself, which only a panic does.
    pub fn has_died(&self) -> bool {
        self.thread.is_finished()
    }
}
