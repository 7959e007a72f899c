//! Replies of the driver to requests of other threads.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{error::NodeClosed, wait::block_on};

enum Slot<T> {
    Pending(Option<Waker>),
    Done(Result<T, NodeClosed>),
    Taken,
}

type Shared<T> = Arc<Mutex<Slot<T>>>;

/// Locks a mutex and ignores poisoning, because no code leaves partial state in a mutex.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends the reply. A responder that is dropped unused replies [`NodeClosed`].
pub(crate) struct Responder<T>(Option<Shared<T>>);

/// The reply to a request, which the driver sends: a future, and [`wait`](Self::wait) for code
/// without async. It may be dropped at any time; the driver then still executes the request.
#[must_use = "the reply says whether it worked"]
pub struct Reply<T>(Shared<T>);

pub(crate) fn reply<T>() -> (Responder<T>, Reply<T>) {
    let shared = Arc::new(Mutex::new(Slot::Pending(None)));
    (Responder(Some(shared.clone())), Reply(shared))
}

impl<T> Responder<T> {
    pub(crate) fn send(mut self, value: T) {
        if let Some(shared) = self.0.take() {
            finish(&shared, Ok(value));
        }
    }

    /// Whether the reply was dropped.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| Arc::strong_count(shared) == 1)
    }
}

impl<T> Drop for Responder<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            finish(&shared, Err(NodeClosed));
        }
    }
}

fn finish<T>(shared: &Shared<T>, value: Result<T, NodeClosed>) {
    let before = std::mem::replace(&mut *lock(shared), Slot::Done(value));
    if let Slot::Pending(Some(waker)) = before {
        waker.wake();
    }
}

impl<T> Reply<T> {
    fn poll_reply(&self, cx: &mut Context<'_>) -> Poll<Result<T, NodeClosed>> {
        let mut slot = lock(&self.0);
        match &mut *slot {
            Slot::Pending(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Slot::Done(_) => match std::mem::replace(&mut *slot, Slot::Taken) {
                Slot::Done(value) => Poll::Ready(value),
                Slot::Pending(_) | Slot::Taken => Poll::Ready(Err(NodeClosed)),
            },
            Slot::Taken => Poll::Ready(Err(NodeClosed)),
        }
    }

    /// Blocks until the reply arrives, but no longer than `timeout`. Returns `None` after the
    /// timeout.
    ///
    /// # Errors
    /// [`NodeClosed`].
    pub fn wait(&self, timeout: Duration) -> Option<Result<T, NodeClosed>> {
        block_on(Some(timeout), |cx| self.poll_reply(cx))
    }

    pub(crate) fn wait_forever(&self) -> Result<T, NodeClosed> {
        block_on(None, |cx| self.poll_reply(cx)).unwrap_or(Err(NodeClosed))
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T, NodeClosed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_reply(cx)
    }
}

impl<T> std::fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}
