//! A socket: messages to and from one peer in one protocol.

use std::{
    future::{Future, poll_fn},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use strowger_crypto::PeerId;
use strowger_frame::{BURST_MAX, Frame, ring};
use strowger_wire::switch_header::Ecn;

use crate::{
    error::{RecvError, SendError, TrySendError},
    limits::TX_BUFFERS_MAX,
    message::{Hold, Message, Messages},
    shared::{
        Alive, Arrived, NO_PATH, OPEN, SocketCounters, SocketEnds, SocketShared, UNSUPPORTED,
        marking, unpack_marking,
    },
    tx_buffer::{Carver, TxBuffer, TxBuffers},
    wait::block_on,
};

/// State that the halves of a socket share. When both halves are dropped, the driver closes the
/// socket.
struct Handle {
    shared: Arc<SocketShared>,
    alive: Arc<Alive>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Release: pairs with Acquire in the driver, which then sees all pushed frames.
        self.shared.is_dropped.store(true, Ordering::Release);
        self.alive.0.signal(self.shared.place);
    }
}

impl Handle {
    fn set_marking(&self, class: Option<u8>, ecn: Option<Ecn>) {
        let (old_class, old_ecn) = unpack_marking(self.shared.marking.load(Ordering::Relaxed));
        let new = marking(class.unwrap_or(old_class), ecn.unwrap_or(old_ecn));
        self.shared.marking.store(new, Ordering::Relaxed);
        self.alive.0.signal(self.shared.place);
    }
}

/// Messages to and from one peer in one protocol.
///
/// A socket has one owner and no lock: its calls take `&mut self`. [`split`](Self::split) makes two
/// halves for two threads or tasks. When the socket, or both halves, are dropped, the driver sends
/// the queued messages and then a goodbye for the protocol.
///
/// Messages are not acknowledged, not repeated and not ordered. A message arrives whole, once, or
/// not at all.
pub struct Socket {
    sender: SocketSender,
    receiver: SocketReceiver,
}

/// The half of a socket that sends.
pub struct SocketSender {
    handle: Arc<Handle>,
    carver: Carver,
    filled: ring::Producer<Frame>,
    /// Counts the transmit buffers that the program holds.
    hold: Arc<Hold>,
}

/// The half of a socket that receives.
pub struct SocketReceiver {
    handle: Arc<Handle>,
    arrived: ring::Consumer<Arrived>,
    /// A message that was too long for the buffer of `recv_into`.
    kept: Option<Message>,
}

impl Socket {
    pub(crate) fn new(shared: Arc<SocketShared>, alive: Arc<Alive>, ends: SocketEnds) -> Self {
        let handle = Arc::new(Handle { shared, alive });
        Self {
            sender: SocketSender {
                handle: handle.clone(),
                carver: Carver::new(ends.chunks),
                filled: ends.filled,
                hold: Arc::default(),
            },
            receiver: SocketReceiver { handle, arrived: ends.arrived, kept: None },
        }
    }

    /// Reports that the program has taken an accepted socket.
    pub(crate) fn note_taken(&self) {
        let handle = &self.sender.handle;
        handle.shared.is_taken.store(true, Ordering::Release);
        handle.alive.0.signal(handle.shared.place);
    }

    /// Splits the socket, so that one thread or task can send while another receives.
    pub fn split(self) -> (SocketSender, SocketReceiver) {
        (self.sender, self.receiver)
    }

    /// The sending half, for code that takes a [`SocketSender`].
    pub fn sender(&mut self) -> &mut SocketSender {
        &mut self.sender
    }

    /// The receiving half, for code that takes a [`SocketReceiver`].
    pub fn receiver(&mut self) -> &mut SocketReceiver {
        &mut self.receiver
    }
}

/// Declares the functions that a socket and its halves have.
macro_rules! about {
    ($name:ident, $($field:ident).+) => {
        impl $name {
            /// The peer.
            pub fn peer(&self) -> PeerId {
                self.$($field).+.shared.peer
            }

            /// The name of the protocol.
            pub fn protocol_name(&self) -> &str {
                &self.$($field).+.shared.protocol
            }

            /// Bytes of the longest message that the present path allows. The limit changes with
            /// the path.
            pub fn message_max(&self) -> usize {
                self.$($field).+.shared.message_max.load(Ordering::Relaxed)
            }

            /// Whether the socket is closed. Messages that arrived before may still be received.
            pub fn is_closed(&self) -> bool {
                self.$($field).+.shared.is_closed()
            }

            /// Whether the peer does not accept the protocol now, or not from this node. Messages
            /// are then refused. The task that waits to receive is woken when this becomes true.
            pub fn is_unsupported(&self) -> bool {
                self.$($field).+.shared.state.load(Ordering::Relaxed) == UNSUPPORTED
            }

            /// The counters of the socket.
            pub fn counters(&self) -> SocketCounters {
                self.$($field).+.shared.tally.read()
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("peer", &self.peer())
                    .field("protocol", &self.protocol_name())
                    .finish_non_exhaustive()
            }
        }
    };
}

about!(Socket, sender.handle);
about!(SocketSender, handle);
about!(SocketReceiver, handle);

impl SocketSender {
    /// Checks the conditions that do not depend on the queue.
    #[inline]
    fn check(&self, len: usize) -> Result<(), TrySendError> {
        let shared = &self.handle.shared;
        if shared.is_closed() {
            return Err(TrySendError::Closed(shared.reason()));
        }
        match shared.state.load(Ordering::Relaxed) {
            OPEN => {}
            NO_PATH => return Err(TrySendError::NoPath),
            UNSUPPORTED => return Err(TrySendError::Unsupported),
            _ => {}
        }
        let max = shared.message_max.load(Ordering::Relaxed);
        if len > max { Err(TrySendError::TooLong { max }) } else { Ok(()) }
    }

    fn headers(&self) -> usize {
        self.handle.shared.headers.load(Ordering::Relaxed)
    }

    #[inline]
    fn signal(&self) {
        self.handle.alive.0.signal(self.handle.shared.place);
    }

    /// Cuts a frame. If there is no chunk, asks the driver for one.
    fn cut(&mut self, len: usize) -> Result<Frame, TrySendError> {
        let headers = self.headers();
        self.carver.frame(headers, len).ok_or_else(|| {
            self.signal();
            TrySendError::Full
        })
    }

    /// Queues a message, which is copied once. Queues all of it or nothing, and does not block.
    ///
    /// # Errors
    /// [`TrySendError`].
    pub fn try_send(&mut self, message: &[u8]) -> Result<(), TrySendError> {
        self.check(message.len())?;
        if self.filled.is_full() {
            return Err(TrySendError::Full);
        }
        let mut frame = self.cut(message.len())?;
        frame.bytes_mut().copy_from_slice(message);
        self.push(frame).map_err(|_| TrySendError::Full)
    }

    fn push(&mut self, frame: Frame) -> Result<(), Frame> {
        self.filled.push(frame)?;
        self.signal();
        Ok(())
    }

    /// Queues a message, or registers the task's waker if the queue is full.
    ///
    /// # Errors
    /// [`SendError`], except `Timeout`.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        message: &[u8],
    ) -> Poll<Result<(), SendError>> {
        self.poll_with(cx, |this| this.try_send(message))
    }

    /// Makes an attempt, registers the task's waker, and makes another attempt, so that no wake-up
    /// between the two is lost.
    fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&mut Self) -> Result<T, TrySendError>,
    ) -> Poll<Result<T, SendError>> {
        for is_last in [false, true] {
            match attempt(self) {
                Ok(done) => {
                    self.handle.shared.tx_bell.awake();
                    return Poll::Ready(Ok(done));
                }
                Err(error) => {
                    if let Some(error) = SendError::of(error) {
                        return Poll::Ready(Err(error));
                    }
                }
            }
            if !is_last {
                self.handle.shared.tx_bell.register(cx.waker());
            }
        }
        Poll::Pending
    }

    /// Sends a message: waits while the queue is full. The future works in any async runtime. A
    /// dropped future has queued all of the message or nothing.
    ///
    /// # Errors
    /// [`SendError`], except `Timeout`.
    pub fn send(&mut self, message: &[u8]) -> impl Future<Output = Result<(), SendError>> {
        poll_fn(move |cx| self.poll_send(cx, message))
    }

    /// Sends a message: blocks while the queue is full, but no longer than `timeout`.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send_wait(&mut self, message: &[u8], timeout: Duration) -> Result<(), SendError> {
        block_on(Some(timeout), |cx| self.poll_send(cx, message)).unwrap_or(Err(SendError::Timeout))
    }

    /// A buffer for a message of `len` bytes, which the program fills in place. `None` if no buffer
    /// is free now, if the program holds too many, or if `len` is above the longest message.
    pub fn tx_buffer(&mut self, len: usize) -> Option<TxBuffer> {
        self.check(len).ok()?;
        if Arc::strong_count(&self.hold) > TX_BUFFERS_MAX {
            return None;
        }
        let frame = self.cut(len).ok()?;
        Some(TxBuffer { frame, hold: self.hold.clone() })
    }

    /// `n` buffers for messages of `len` bytes, adjacent in memory: a port sends them as one train.
    /// `None` as in [`tx_buffer`](Self::tx_buffer), or if `n` is 0, above 64, or too many for one
    /// chunk of 64 KiB.
    pub fn tx_buffers(&mut self, len: usize, n: usize) -> Option<TxBuffers> {
        self.check(len).ok()?;
        let headers = self.headers();
        let fits = strowger_frame::pool::TRAIN_DATA_BYTES;
        let wanted = n.checked_mul(headers + len + crate::limits::TAILROOM)?;
        if n == 0 || n > BURST_MAX || wanted > fits {
            return None;
        }
        if Arc::strong_count(&self.hold) > TX_BUFFERS_MAX {
            return None;
        }
        let Some(frames) = self.carver.frames(headers, len, n) else {
            self.signal();
            return None;
        };
        Some(TxBuffers { frames, _hold: self.hold.clone() })
    }

    /// Queues a filled buffer, which may come from another socket. Does not block.
    ///
    /// # Errors
    /// [`TrySendError`], with the buffer.
    pub fn send_tx_buffer(&mut self, buffer: TxBuffer) -> Result<(), (TrySendError, TxBuffer)> {
        if let Err(error) = self.check(buffer.len()) {
            return Err((error, buffer));
        }
        let TxBuffer { frame, hold } = buffer;
        self.push(frame).map_err(|frame| (TrySendError::Full, TxBuffer { frame, hold }))
    }

    /// Queues filled buffers, all or none, and leaves `buffers` empty. Does not block.
    ///
    /// # Errors
    /// [`TrySendError`]; the buffers stay.
    pub fn send_tx_buffers(&mut self, buffers: &mut TxBuffers) -> Result<(), TrySendError> {
        self.check(buffers.frames.iter().map(Frame::len).max().unwrap_or(0))?;
        if !self.filled.has_room(buffers.frames.len()) {
            return Err(TrySendError::Full);
        }
        self.filled.push_burst(&mut buffers.frames);
        self.signal();
        Ok(())
    }

    /// Registers the task's waker. The driver wakes the task when a place in the queue or a
    /// transmit buffer may have become free, and when the socket's state has changed. Try to send
    /// after this call.
    pub fn register_send(&mut self, cx: &mut Context<'_>) {
        self.handle.shared.tx_bell.register(cx.waker());
    }

    /// Sets the traffic class of the packets, from the next ones that the driver takes.
    pub fn set_class(&mut self, class: u8) {
        self.handle.set_marking(Some(class), None);
    }

    /// Sets the congestion mark of the packets, from the next ones that the driver takes.
    pub fn set_ecn(&mut self, ecn: Ecn) {
        self.handle.set_marking(None, Some(ecn));
    }
}

impl SocketReceiver {
    fn message(&self, arrived: Arrived) -> Message {
        let shared = &self.handle.shared;
        Message {
            frame: arrived.frame,
            info: arrived.info,
            from: shared.peer,
            _hold: shared.hold.clone(),
        }
    }

    /// The next message if one has arrived. Does not block.
    ///
    /// # Errors
    /// [`RecvError::Closed`], after the last message.
    pub fn try_recv(&mut self) -> Result<Option<Message>, RecvError> {
        if self.kept.is_some() {
            return Ok(self.kept.take());
        }
        // Read the flag before taking a message: then messages that the driver pushed before it
        // closed the socket are visible.
        let is_closed = self.handle.shared.is_closed();
        match self.arrived.pop() {
            Some(arrived) => Ok(Some(self.message(arrived))),
            None if is_closed => Err(RecvError::Closed(self.handle.shared.reason())),
            None => Ok(None),
        }
    }

    /// Returns the next message, or registers the task's waker if there is none.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, RecvError>> {
        if let Some(received) = self.try_recv().transpose() {
            return Poll::Ready(received);
        }
        self.handle.shared.rx_bell.register(cx.waker());
        match self.try_recv().transpose() {
            Some(received) => {
                self.handle.shared.rx_bell.awake();
                Poll::Ready(received)
            }
            None => Poll::Pending,
        }
    }

    /// Waits for the next message. The future works in any async runtime. If it is dropped, it has
    /// taken no message.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn recv(&mut self) -> impl Future<Output = Result<Message, RecvError>> {
        poll_fn(|cx| self.poll_recv(cx))
    }

    /// Blocks until the next message arrives.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn recv_wait(&mut self) -> Result<Message, RecvError> {
        loop {
            if let Some(received) = block_on(None, |cx| self.poll_recv(cx)) {
                return received;
            }
        }
    }

    /// Blocks until the next message arrives, but no longer than `timeout`. Returns `None` after
    /// the timeout.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Message>, RecvError> {
        block_on(Some(timeout), |cx| self.poll_recv(cx)).transpose()
    }

    /// Takes the messages that have arrived, as many as `into` has room for. Returns their number.
    /// Does not block.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv), if no message was taken.
    pub fn recv_burst(&mut self, into: &mut Messages) -> Result<usize, RecvError> {
        let before = into.len();
        while !into.is_full() {
            match self.try_recv() {
                Ok(Some(message)) => into.push(message),
                Ok(None) => break,
                Err(error) if into.len() == before => return Err(error),
                Err(_) => break,
            }
        }
        Ok(into.len() - before)
    }

    /// Takes messages as [`recv_burst`](Self::recv_burst) does, or registers the task's waker if
    /// there is none.
    ///
    /// # Errors
    /// As [`recv_burst`](Self::recv_burst).
    pub fn poll_recv_burst(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Messages,
    ) -> Poll<Result<usize, RecvError>> {
        match self.recv_burst(into) {
            Ok(0) if !into.is_full() => {}
            taken => return Poll::Ready(taken),
        }
        self.handle.shared.rx_bell.register(cx.waker());
        match self.recv_burst(into) {
            Ok(0) => Poll::Pending,
            taken => {
                self.handle.shared.rx_bell.awake();
                Poll::Ready(taken)
            }
        }
    }

    /// Copies the next message into `buffer` and returns its length, if one has arrived. Does not
    /// block.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv); [`RecvError::BufferTooShort`], and the message stays.
    pub fn recv_into(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, RecvError> {
        let Some(message) = self.try_recv()? else { return Ok(None) };
        let bytes = message.len();
        match buffer.get_mut(..bytes) {
            Some(room) => {
                room.copy_from_slice(&message);
                Ok(Some(bytes))
            }
            None => {
                self.kept = Some(message);
                Err(RecvError::BufferTooShort { bytes })
            }
        }
    }
}

/// Declares functions of a socket that call the same function of a half.
macro_rules! delegate {
    ($($(#[$doc:meta])* $half:ident . $name:ident ( $($arg:ident : $ty:ty),* ) -> $out:ty;)+) => {
        impl Socket {
            $($(#[$doc])*
            pub fn $name(&mut self, $($arg: $ty),*) -> $out {
                self.$half.$name($($arg),*)
            })+
        }
    };
}

delegate! {
    /// As [`SocketSender::try_send`].
    ///
    /// # Errors
    /// [`TrySendError`].
    sender.try_send(message: &[u8]) -> Result<(), TrySendError>;
    /// As [`SocketSender::poll_send`].
    ///
    /// # Errors
    /// [`SendError`], except `Timeout`.
    sender.poll_send(cx: &mut Context<'_>, message: &[u8]) -> Poll<Result<(), SendError>>;
    /// As [`SocketSender::send_wait`].
    ///
    /// # Errors
    /// [`SendError`].
    sender.send_wait(message: &[u8], timeout: Duration) -> Result<(), SendError>;
    /// As [`SocketSender::tx_buffer`].
    sender.tx_buffer(len: usize) -> Option<TxBuffer>;
    /// As [`SocketSender::tx_buffers`].
    sender.tx_buffers(len: usize, n: usize) -> Option<TxBuffers>;
    /// As [`SocketSender::send_tx_buffer`].
    ///
    /// # Errors
    /// [`TrySendError`], with the buffer.
    sender.send_tx_buffer(buffer: TxBuffer) -> Result<(), (TrySendError, TxBuffer)>;
    /// As [`SocketSender::send_tx_buffers`].
    ///
    /// # Errors
    /// [`TrySendError`]; the buffers stay.
    sender.send_tx_buffers(buffers: &mut TxBuffers) -> Result<(), TrySendError>;
    /// As [`SocketSender::set_class`].
    sender.set_class(class: u8) -> ();
    /// As [`SocketSender::set_ecn`].
    sender.set_ecn(ecn: Ecn) -> ();
    /// As [`SocketReceiver::try_recv`].
    ///
    /// # Errors
    /// [`RecvError::Closed`], after the last message.
    receiver.try_recv() -> Result<Option<Message>, RecvError>;
    /// As [`SocketReceiver::poll_recv`].
    ///
    /// # Errors
    /// [`RecvError::Closed`], after the last message.
    receiver.poll_recv(cx: &mut Context<'_>) -> Poll<Result<Message, RecvError>>;
    /// As [`SocketReceiver::recv_wait`].
    ///
    /// # Errors
    /// [`RecvError::Closed`], after the last message.
    receiver.recv_wait() -> Result<Message, RecvError>;
    /// As [`SocketReceiver::recv_timeout`].
    ///
    /// # Errors
    /// [`RecvError::Closed`], after the last message.
    receiver.recv_timeout(timeout: Duration) -> Result<Option<Message>, RecvError>;
    /// As [`SocketReceiver::recv_burst`].
    ///
    /// # Errors
    /// [`RecvError::Closed`], after the last message.
    receiver.recv_burst(into: &mut Messages) -> Result<usize, RecvError>;
    /// As [`SocketReceiver::recv_into`].
    ///
    /// # Errors
    /// [`RecvError`].
    receiver.recv_into(buffer: &mut [u8]) -> Result<Option<usize>, RecvError>;
}

impl Socket {
    /// As [`SocketSender::send`].
    ///
    /// # Errors
    /// [`SendError`], except `Timeout`.
    pub fn send(&mut self, message: &[u8]) -> impl Future<Output = Result<(), SendError>> {
        self.sender.send(message)
    }

    /// As [`SocketReceiver::recv`].
    ///
    /// # Errors
    /// [`RecvError::Closed`], after the last message.
    pub fn recv(&mut self) -> impl Future<Output = Result<Message, RecvError>> {
        self.receiver.recv()
    }
}
