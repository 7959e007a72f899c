//! Whether a thread is asleep, as those who may have to wake it see it: a flag that lets the
//! waking system call be spared while the sleeper is awake. It never blocks and never wakes
//! anybody itself; `strowger-io`'s doorbell puts an eventfd behind it.
//!
//! The two sides must not miss each other. Each writes, fences, then reads what the other wrote
//! (Dekker's pattern, the "store buffer" of memory-model papers):
//!
//! | sleeper | waker |
//! |---|---|
//! | [`fall_asleep`](SleepFlag::fall_asleep): set the flag | publish the work |
//! | fence (SeqCst) | [`must_wake`](SleepFlag::must_wake): fence (SeqCst) |
//! | look for work once more, then block | read the flag |
//!
//! The fences stand in one order that all threads agree on. Whichever is first, what its thread
//! wrote is seen by the other thread: so either the sleeper finds the work, or the waker finds the
//! flag. Without either fence both could read the old value, and the wake-up would be lost.
//!
//! ```
//! let flag = strowger_frame::sleep::SleepFlag::default();
//! assert!(!flag.must_wake());
//! flag.fall_asleep();
//! assert!(flag.must_wake()); // this waker, and no other, makes the system call
//! assert!(!flag.must_wake());
//! ```

use crate::sync::{AtomicBool, Ordering, fence};

/// Whether one thread sleeps, or is about to. One sleeper, any number of wakers.
#[derive(Debug)]
pub struct SleepFlag(AtomicBool);

impl Default for SleepFlag {
    fn default() -> Self {
        Self(AtomicBool::new(false))
    }
}

impl SleepFlag {
    /// The sleeper's first step. Afterwards it must look for work once more, and block only if
    /// there is none.
    #[inline]
    pub fn fall_asleep(&self) {
        // Relaxed: the fence below orders it.
        self.0.store(true, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `must_wake`.
        fence(Ordering::SeqCst);
    }

    /// The sleeper is awake again; wakers need not make the system call.
    #[inline]
    pub fn wake_up(&self) {
        // Relaxed: a waker that still sees the flag makes one system call too many, no more.
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether the flag is set, as far as this thread has seen. A hint: only [`must_wake`](Self::must_wake)
    /// orders it behind published work.
    #[inline]
    pub fn is_asleep(&self) -> bool {
        // Relaxed: a hint.
        self.0.load(Ordering::Relaxed)
    }

    /// Called by a waker after it has published work: whether the sleeper must be woken. Of all
    /// wakers one at most is told so until the sleeper falls asleep again.
    #[inline]
    pub fn must_wake(&self) -> bool {
        // SeqCst: pairs with the fence in `fall_asleep`.
        fence(Ordering::SeqCst);
        // Relaxed: the fence above orders the load; the swap only chooses one among the wakers,
        // and what they published reaches the sleeper by the work's own Release and Acquire.
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

/// Wakes one thread that may sleep. Implemented by whatever the thread sleeps beside.
pub trait Wake: Send + Sync {
    /// Wakes the thread if it sleeps; costs one fence and one load if it does not.
    ///
    /// Call it after the work has been published.
    fn wake(&self);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_waker_is_told_and_only_while_asleep() {
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
