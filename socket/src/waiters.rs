//! Wakers of the tasks that wait for an object that several threads share.

use std::{
    sync::Mutex,
    task::{Context, Poll, Waker},
};

use strowger_frame::sleep::SleepFlag;

use crate::reply::lock;

/// Wakers of waiting tasks. The mutex is taken only if a task waits.
#[derive(Default)]
pub(crate) struct Waiters {
    flag: SleepFlag,
    wakers: Mutex<Vec<Waker>>,
}

impl Waiters {
    /// Makes an attempt, registers the task's waker, and makes another attempt, so that no wake-up
    /// between the two is lost.
    pub(crate) fn poll_with<T>(
        &self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Poll<T> {
        if let Some(done) = attempt() {
            return Poll::Ready(done);
        }
        self.register(cx.waker());
        attempt().map_or(Poll::Pending, Poll::Ready)
    }

    fn register(&self, waker: &Waker) {
        let mut wakers = lock(&self.wakers);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        // Set the flag under the lock, so that a thread that clears the flag finds the waker.
        self.flag.fall_asleep();
    }

    /// Wakes all tasks that wait. Call this after the change has been published.
    #[inline]
    pub(crate) fn wake(&self) {
        if self.flag.must_wake() {
            self.wake_all();
        }
    }

    #[cold]
    fn wake_all(&self) {
        for waker in lock(&self.wakers).drain(..) {
            waker.wake();
        }
    }
}
