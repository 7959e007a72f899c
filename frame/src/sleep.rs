//! A flag that shows whether a thread sleeps. If it does not, a waker needs no system call.
//!
//! The flag itself neither blocks nor wakes a thread; `strowger-io`'s doorbell combines it with an
//! eventfd.
//!
//! Neither side may miss a write of the other. Each side writes, executes a fence, and then reads
//! the value that the other side writes (Dekker's pattern, the "store buffer" test of memory
//! models):
//!
//! | sleeper | waker |
//! |---|---|
//! | [`fall_asleep`](SleepFlag::fall_asleep): set the flag | publish the work |
//! | fence (SeqCst) | [`must_wake`](SleepFlag::must_wake): fence (SeqCst) |
//! | check for work once more, then block | read the flag |
//!
//! All threads agree on one order of the fences. The side whose fence comes second sees what the
//! first side wrote: either the sleeper finds the work, or the waker finds the flag. If one
//! of the two fences were missing, both sides could read the old value, and the wake-up would be
//! lost.
//!
//! ```
//! let flag = strowger_frame::sleep::SleepFlag::default();
//! assert!(!flag.must_wake());
//! flag.fall_asleep();
//! assert!(flag.must_wake()); // this waker, and no other, makes the system call
//! assert!(!flag.must_wake());
//! ```

use crate::sync::{AtomicBool, Ordering, fence};

/// Whether one thread sleeps or is about to sleep. There is one sleeper and any number of wakers.
#[derive(Debug)]
pub struct SleepFlag(AtomicBool);

impl Default for SleepFlag {
    fn default() -> Self {
        Self(AtomicBool::new(false))
    }
}

impl SleepFlag {
    /// Sets the flag. The sleeper must then check for work once more, and block only if there is
    /// none.
    #[inline]
    pub fn fall_asleep(&self) {
        // Relaxed: the fence below orders it.
        self.0.store(true, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `must_wake`.
        fence(Ordering::SeqCst);
    }

    /// Clears the flag: the sleeper is awake again, and wakers skip the system call.
    #[inline]
    pub fn wake_up(&self) {
        // Relaxed: a waker that still sees the flag makes one needless system call.
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether the flag is set, as a hint. Only [`must_wake`](Self::must_wake) orders the check
    /// after published work.
    #[inline]
    pub fn is_asleep(&self) -> bool {
        // Relaxed: a hint.
        self.0.load(Ordering::Relaxed)
    }

    /// Whether the waker must wake the sleeper. Call it after publishing the work.
    ///
    /// Returns `true` to at most one waker, until the sleeper sets the flag again.
    #[inline]
    pub fn must_wake(&self) -> bool {
        // SeqCst: pairs with the fence in `fall_asleep`.
        fence(Ordering::SeqCst);
        // Relaxed: the fence above orders the load; the swap picks one of the wakers. The work is
        // published by its own Release and Acquire operations.
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

/// Wakes one thread that may sleep. `strowger-io`'s doorbell implements it.
pub trait Wake: Send + Sync {
    /// Wakes the thread if it sleeps. Otherwise the call costs one fence and one load.
    ///
    /// Call it after publishing the work.
    fn wake(&self);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_waker_must_wake_and_only_while_asleep() {
        let flag = SleepFlag::default();
        assert!(!flag.must_wake());
        flag.fall_asleep();
        assert!(flag.must_wake());
        assert!(!flag.must_wake());
        flag.fall_asleep();
        flag.wake_up();
        assert!(!flag.must_wake());
    }
}
