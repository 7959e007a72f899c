//! Datagram sockets: one socket for a protocol and all peers.

use std::{
    future::{Future, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use crossbeam_queue::ArrayQueue;
use strowger_connection::{CloseReason, MessageInfo};
use strowger_crypto::PeerId;
use strowger_frame::Frame;

use crate::{
    error::{RecvError, SendError, TrySendError},
    message::{Hold, Message},
    shared::{Alive, SocketCounters, SocketTally},
    wait::block_on,
    waiters::Waiters,
};

/// A message to send, and its receiver.
pub(crate) struct Filled {
    pub(crate) peer: PeerId,
    pub(crate) frame: Frame,
}

/// A message that arrived, and its sender.
pub(crate) struct DatagramArrived {
    pub(crate) from: PeerId,
    pub(crate) frame: Frame,
    pub(crate) info: MessageInfo,
}

/// State that a datagram socket and the driver share.
pub(crate) struct DatagramShared {
    /// The number of the socket's ready bit; `usize::MAX` until the driver has opened it.
    pub(crate) place: AtomicUsize,
    pub(crate) message_max: AtomicUsize,
    /// Empty frames, each as long as the longest message.
    pub(crate) empty: ArrayQueue<Frame>,
    pub(crate) filled: ArrayQueue<Filled>,
    pub(crate) arrived: ArrayQueue<DatagramArrived>,
    pub(crate) rx_waiters: Waiters,
    pub(crate) tx_waiters: Waiters,
    pub(crate) is_closed: AtomicBool,
    pub(crate) is_dropped: AtomicBool,
    pub(crate) hold: Arc<Hold>,
    pub(crate) tally: SocketTally,
}

impl DatagramShared {
    pub(crate) fn new(depth: usize) -> Self {
        Self {
            place: AtomicUsize::new(usize::MAX),
            message_max: AtomicUsize::new(0),
            empty: ArrayQueue::new(depth),
            // Each frame is in one of the two queues, so this queue never overflows.
            filled: ArrayQueue::new(depth),
            arrived: ArrayQueue::new(depth),
            rx_waiters: Waiters::default(),
            tx_waiters: Waiters::default(),
            is_closed: AtomicBool::new(false),
            is_dropped: AtomicBool::new(false),
            hold: Arc::default(),
            tally: SocketTally::default(),
        }
    }

    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.rx_waiters.wake();
        self.tx_waiters.wake();
    }
}

/// Messages to and from all peers in one protocol, without opening a socket for each: for gossip,
/// hash tables and UDP. Sending connects if there is no connection.
///
/// Several threads may use a datagram socket at once; its calls take `&self`. A clone is another
/// handle of the same socket. When the last handle is dropped, the node no longer accepts the
/// protocol.
#[derive(Clone)]
pub struct DatagramSocket(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) shared: Arc<DatagramShared>,
    pub(crate) alive: Arc<Alive>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.is_dropped.store(true, Ordering::Release);
        self.alive.0.request_sweep();
    }
}

impl DatagramSocket {
    /// Bytes of the longest message that a buffer of this socket holds. If the path to a peer
    /// allows less, the message is dropped and counted as `tx_refused`.
    pub fn message_max(&self) -> usize {
        self.0.shared.message_max.load(Ordering::Relaxed)
    }

    /// The counters of the socket.
    pub fn counters(&self) -> SocketCounters {
        self.0.shared.tally.read()
    }

    /// Queues a message to a peer, which is copied once. Queues all of it or nothing, and does not
    /// block.
    ///
    /// # Errors
    /// `Full`, `TooLong` or `Closed`. A failure to connect is not reported here: a message to an
    /// unreachable peer is dropped and counted as `tx_refused`.
    pub fn try_send_to(&self, peer: &PeerId, message: &[u8]) -> Result<(), TrySendError> {
        let shared = &self.0.shared;
        if shared.is_closed.load(Ordering::Acquire) {
            return Err(TrySendError::Closed(CloseReason::ByUs));
        }
        let Some(mut frame) = shared.empty.pop() else { return Err(TrySendError::Full) };
        if message.len() > frame.len() {
            let max = frame.len();
            let _ = shared.empty.push(frame);
            return Err(TrySendError::TooLong { max });
        }
        frame.truncate(message.len());
        frame.bytes_mut().copy_from_slice(message);
        if shared.filled.push(Filled { peer: *peer, frame }).is_err() {
            return Err(TrySendError::Full);
        }
        let node = &self.0.alive.0;
        node.ready_datagrams.set(shared.place.load(Ordering::Acquire));
        node.driver.wake();
        Ok(())
    }

    /// Queues a message, or registers the task's waker if the queue is full.
    ///
    /// # Errors
    /// As [`try_send_to`](Self::try_send_to), except `Full`.
    pub fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        peer: &PeerId,
        message: &[u8],
    ) -> Poll<Result<(), SendError>> {
        self.0.shared.tx_waiters.poll_with(cx, || match self.try_send_to(peer, message) {
            Ok(()) => Some(Ok(())),
            Err(error) => SendError::of(error).map(Err),
        })
    }

    /// Sends a message: waits while the queue is full. The future works in any async runtime. A
    /// dropped future has queued all of the message or nothing.
    ///
    /// # Errors
    /// As [`poll_send_to`](Self::poll_send_to).
    pub fn send_to(
        &self,
        peer: &PeerId,
        message: &[u8],
    ) -> impl Future<Output = Result<(), SendError>> {
        poll_fn(move |cx| self.poll_send_to(cx, peer, message))
    }

    /// Sends a message: blocks while the queue is full, but no longer than `timeout`.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send_to_wait(
        &self,
        peer: &PeerId,
        message: &[u8],
        timeout: Duration,
    ) -> Result<(), SendError> {
        block_on(Some(timeout), |cx| self.poll_send_to(cx, peer, message))
            .unwrap_or(Err(SendError::Timeout))
    }

    fn take(&self) -> Option<Result<Message, RecvError>> {
        let shared = &self.0.shared;
        // Read the flag before taking a message, as a receiver does.
        let is_closed = shared.is_closed.load(Ordering::Acquire);
        match shared.arrived.pop() {
            Some(DatagramArrived { from, frame, info }) => {
                Some(Ok(Message { frame, info, from, _hold: shared.hold.clone() }))
            }
            None => is_closed.then_some(Err(RecvError::Closed(CloseReason::ByUs))),
        }
    }

    /// The next message if one has arrived. Its sender is [`Message::from`]. Does not block.
    ///
    /// # Errors
    /// [`RecvError::Closed`], after the last message.
    pub fn try_recv(&self) -> Result<Option<Message>, RecvError> {
        self.take().transpose()
    }

    /// Returns the next message, or registers the task's waker if there is none.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Result<Message, RecvError>> {
        self.0.shared.rx_waiters.poll_with(cx, || self.take())
    }

    /// Waits for the next message. The future works in any async runtime. If it is dropped, it has
    /// taken no message.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn recv(&self) -> impl Future<Output = Result<Message, RecvError>> {
        poll_fn(|cx| self.poll_recv(cx))
    }

    /// Blocks until the next message arrives, but no longer than `timeout`. Returns `None` after
    /// the timeout.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Message>, RecvError> {
        block_on(Some(timeout), |cx| self.poll_recv(cx)).transpose()
    }
}

impl std::fmt::Debug for DatagramSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatagramSocket")
            .field("waiting", &self.0.shared.arrived.len())
            .finish_non_exhaustive()
    }
}
