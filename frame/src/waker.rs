//! A cell in which one task stores its waker, so that other threads can call it.
//!
//! It uses no lock. The thread that wakes does not drop a waker, because dropping could free memory
//! on a worker (R13).

use std::task::Waker;

use crate::{
    sleep::SleepFlag,
    sync::{AtomicU32, Ordering, UnsafeCell},
};

/// The waker is not in use.
const FREE: u32 = 0;
/// The task is storing its waker.
const REGISTERING: u32 = 1;
/// A thread is calling the waker, or has requested that the registering task call its own.
const WAKING: u32 = 2;

/// Holds a waker. One task at a time stores it, and any thread calls it.
pub struct WakerCell {
    state: AtomicU32,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: only the thread that moved the state from FREE to REGISTERING writes `waker`, and only
// the thread that moved it from FREE to WAKING reads it, so the two never overlap; `Waker` is Send
// and Sync.
unsafe impl Sync for WakerCell {}

impl Default for WakerCell {
    fn default() -> Self {
        Self { state: AtomicU32::new(FREE), waker: UnsafeCell::new(None) }
    }
}

impl std::fmt::Debug for WakerCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WakerCell").finish_non_exhaustive()
    }
}

impl WakerCell {
    /// Stores `waker`.
    ///
    /// If another thread is calling the former waker at this moment, this function calls `waker`
    /// instead of storing it. The task then polls again and registers again.
    pub fn register(&self, waker: &Waker) {
        // Acquire: pairs with Release in `wake`, so the call of the old waker has ended.
        if self
            .state
            .compare_exchange(FREE, REGISTERING, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            return waker.wake_by_ref();
        }
        self.waker.with_mut(|kept| {
            // SAFETY: this thread set the state to REGISTERING, so no other thread touches the
            // cell.
            match unsafe { &mut *kept } {
                Some(kept) => kept.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        });
        // AcqRel: Release pairs with Acquire in `wake`, which reads the waker; Acquire makes
        // visible what a thread published before it asked for a wake-up in the meantime.
        if self.state.swap(FREE, Ordering::AcqRel) != REGISTERING {
            waker.wake_by_ref();
        }
    }

    /// Calls the stored waker.
    pub fn wake(&self) {
        // AcqRel: Acquire pairs with Release in `register`; Release is for the case that the
        // registering task does the waking.
        if self.state.fetch_or(WAKING, Ordering::AcqRel) != FREE {
            // REGISTERING: the task sees the WAKING bit and wakes itself. WAKING: another thread
            // wakes, and a task that registers meanwhile wakes itself.
            return;
        }
        self.waker.with(|waker| {
            // SAFETY: this thread moved the state from FREE to WAKING, so no other thread writes
            // the cell.
            if let Some(waker) = unsafe { &*waker } {
                waker.wake_by_ref();
            }
        });
        // Release: pairs with Acquire in `register`.
        self.state.store(FREE, Ordering::Release);
    }
}

/// A doorbell without a descriptor: a waker, and a flag that shows whether its task waits.
///
/// While the task does not wait, [`ring`](Self::ring) costs one fence and one load. A thread that
/// blocks is a task, too: its waker unparks it.
///
/// ```
/// use std::task::Waker;
/// let bell = strowger_frame::waker::TaskBell::default();
/// bell.register(Waker::noop()); // then check for work once more, and only then wait
/// bell.ring();
/// bell.awake();
/// ```
#[derive(Debug, Default)]
pub struct TaskBell {
    flag: SleepFlag,
    waker: WakerCell,
}

impl TaskBell {
    /// Stores the waker of the task that is about to wait.
    ///
    /// The task must then check for work once more, and wait only if there is none. One task at a
    /// time may call this.
    #[inline]
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
        // After the waker, so that a thread that sees the flag also finds the waker.
        self.flag.fall_asleep();
    }

    /// Reports that the task does not wait. Ringing then calls no waker.
    #[inline]
    pub fn awake(&self) {
        if self.flag.is_asleep() {
            self.flag.wake_up();
        }
    }

    /// Wakes the task if it waits. Call this after the work has been published.
    #[inline]
    pub fn ring(&self) {
        if self.flag.must_wake() {
            self.waker.wake();
        }
    }
}
