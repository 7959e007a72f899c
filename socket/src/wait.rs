//! Blocks a thread until a polled operation is ready. The thread's waker unparks it.

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::{Duration, Instant},
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

thread_local! {
    /// One waker for each thread, so that blocking allocates nothing.
    static WAKER: Waker = Waker::from(Arc::new(Unparker(std::thread::current())));
}

/// Polls until the operation is ready, and parks the thread in between. Returns `None` after the
/// timeout (`None`: no limit).
pub(crate) fn block_on<T>(
    timeout: Option<Duration>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    let waker = WAKER.with(Waker::clone);
    let mut cx = Context::from_waker(&waker);
    // A first attempt that succeeds reads no clock.
    if let Poll::Ready(value) = poll(&mut cx) {
        return Some(value);
    }
    // A timeout that overflows the clock counts as no limit.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        match deadline {
            None => std::thread::park(),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return None;
                }
                std::thread::park_timeout(left);
            }
        }
        if let Poll::Ready(value) = poll(&mut cx) {
            return Some(value);
        }
    }
}
