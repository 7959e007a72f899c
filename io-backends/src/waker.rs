//! Where one task leaves its waker for another thread to call. It never locks; the waking side
//! never drops a waker, since that could free memory on a worker (R13).

use std::{
    cell::UnsafeCell,
    sync::atomic::{AtomicU32, Ordering},
    task::Waker,
};

/// Nobody touches the waker.
const FREE: u32 = 0;
/// The task is writing its waker.
const REGISTERING: u32 = 1;
/// A waking thread is calling the waker, or has asked the registering task to call its own.
const WAKING: u32 = 2;

/// A waker that one task at a time registers, and any thread calls.
pub(crate) struct WakerCell {
    state: AtomicU32,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: `waker` is written only by who moved the state from FREE to REGISTERING and read only by
// who moved it from FREE to WAKING, so never both at once; `Waker` is Send and Sync.
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
    /// Leaves `waker` here. If somebody is waking right now, `waker` is called at once: its task
    /// looks again, and registers again.
    pub(crate) fn register(&self, waker: &Waker) {
        // Acquire: pairs with Release in `wake`: the call through the old waker is over.
        if self
            .state
            .compare_exchange(FREE, REGISTERING, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            return waker.wake_by_ref();
        }
        // SAFETY: the state is REGISTERING by our hand, so nobody else touches the cell.
        let kept = unsafe { &mut *self.waker.get() };
        match kept {
            Some(kept) => kept.clone_from(waker),
            None => *kept = Some(waker.clone()),
        }
        // AcqRel: Release pairs with Acquire in `wake`, which reads the waker; Acquire takes in
        // what a thread published that asked to wake meanwhile.
        if self.state.swap(FREE, Ordering::AcqRel) != REGISTERING {
            waker.wake_by_ref();
        }
    }

    /// Calls the waker that was left last.
    pub(crate) fn wake(&self) {
        // AcqRel: Acquire pairs with Release in `register`; Release, for when the registering
        // task does the waking.
        if self.state.fetch_or(WAKING, Ordering::AcqRel) != FREE {
            // REGISTERING: the task sees our mark and wakes itself. WAKING: another does it, and
            // a task that registers meanwhile wakes itself.
            return;
        }
        // SAFETY: the state went from FREE to WAKING by our hand, so nobody writes the cell.
        if let Some(waker) = unsafe { &*self.waker.get() } {
            waker.wake_by_ref();
        }
        // Release: pairs with Acquire in `register`.
        self.state.store(FREE, Ordering::Release);
    }
}
