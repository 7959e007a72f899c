//! Blocks a thread until a polled operation is ready or another thread ends the wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

struct Unparker(Thread);

impl Wake for Unparker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// A flag that ends the waits of a thread.
#[derive(Clone, Debug, Default)]
pub(super) struct End(Arc<AtomicBool>);

impl End {
    /// Ends the waits of this thread, now and later.
    pub(super) fn set(&self, thread: Option<&Thread>) {
        // Release: pairs with Acquire in `Waiting::until`.
        self.0.store(true, Ordering::Release);
        if let Some(thread) = thread {
            thread.unpark();
        }
    }
}

/// The waits of one thread.
pub(super) struct Waiting {
    end: End,
    waker: Waker,
}

impl Waiting {
    /// Makes the waits of the calling thread.
    pub(super) fn new(end: End) -> Self {
        Self { end, waker: Waker::from(Arc::new(Unparker(thread::current()))) }
    }

    /// Polls until the operation is ready. Returns `None` when [`End::set`] was called.
    pub(super) fn until<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        let mut cx = Context::from_waker(&self.waker);
        loop {
            if self.end.0.load(Ordering::Acquire) {
                return None;
            }
            if let Poll::Ready(value) = poll(&mut cx) {
                return Some(value);
            }
            thread::park();
        }
    }
}
