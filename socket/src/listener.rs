//! Listeners: sockets that peers open.

use std::{
    future::{Future, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use crossbeam_queue::ArrayQueue;

use crate::{
    error::NodeClosed, limits::BACKLOG, shared::Alive, socket::Socket, wait::block_on,
    waiters::Waiters,
};

/// State that a listener and the driver share.
pub(crate) struct ListenerShared {
    pub(crate) accepted: ArrayQueue<Socket>,
    pub(crate) waiters: Waiters,
    pub(crate) is_closed: AtomicBool,
    /// The program has dropped the listener.
    pub(crate) is_dropped: AtomicBool,
}

impl ListenerShared {
    pub(crate) fn new() -> Self {
        Self {
            accepted: ArrayQueue::new(BACKLOG),
            waiters: Waiters::default(),
            is_closed: AtomicBool::new(false),
            is_dropped: AtomicBool::new(false),
        }
    }

    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.waiters.wake();
    }
}

/// Accepts sockets that peers open, in the protocols of the listener.
///
/// Several threads may use a listener at once. Dropping a listener ends the acceptance of its
/// protocols and closes the sockets that the program has not taken. Sockets that the program has
/// taken stay open.
pub struct Listener {
    pub(crate) shared: Arc<ListenerShared>,
    pub(crate) alive: Arc<Alive>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.is_dropped.store(true, Ordering::Release);
        while self.shared.accepted.pop().is_some() {}
        self.alive.0.request_sweep();
    }
}

impl Listener {
    fn take(&self) -> Option<Result<Socket, NodeClosed>> {
        // Read the flag before taking a socket, as a receiver does.
        let is_closed = self.shared.is_closed.load(Ordering::Acquire);
        match self.shared.accepted.pop() {
            Some(socket) => {
                socket.note_taken();
                Some(Ok(socket))
            }
            None => is_closed.then_some(Err(NodeClosed)),
        }
    }

    /// The next socket if a peer has opened one. Does not block.
    ///
    /// # Errors
    /// [`NodeClosed`], after the last socket.
    pub fn try_accept(&self) -> Result<Option<Socket>, NodeClosed> {
        self.take().transpose()
    }

    /// Returns the next socket, or registers the task's waker if there is none.
    ///
    /// # Errors
    /// As [`try_accept`](Self::try_accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<Socket, NodeClosed>> {
        self.shared.waiters.poll_with(cx, || self.take())
    }

    /// Waits until a peer opens a socket. The future works in any async runtime. If it is dropped,
    /// it has taken no socket.
    ///
    /// # Errors
    /// As [`try_accept`](Self::try_accept).
    pub fn accept(&self) -> impl Future<Output = Result<Socket, NodeClosed>> {
        poll_fn(|cx| self.poll_accept(cx))
    }

    /// Blocks until a peer opens a socket.
    ///
    /// # Errors
    /// As [`try_accept`](Self::try_accept).
    pub fn accept_wait(&self) -> Result<Socket, NodeClosed> {
        block_on(None, |cx| self.poll_accept(cx)).unwrap_or(Err(NodeClosed))
    }

    /// Blocks until a peer opens a socket, but no longer than `timeout`. Returns `None` after the
    /// timeout.
    ///
    /// # Errors
    /// As [`try_accept`](Self::try_accept).
    pub fn accept_timeout(&self, timeout: Duration) -> Result<Option<Socket>, NodeClosed> {
        block_on(Some(timeout), |cx| self.poll_accept(cx)).transpose()
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener")
            .field("waiting", &self.shared.accepted.len())
            .finish_non_exhaustive()
    }
}
