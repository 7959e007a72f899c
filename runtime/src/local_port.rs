//! A port for code of this process. It sends and receives packets, with blocking, polled and async
//! calls.

use std::{
    error::Error,
    fmt,
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use strowger_engine::link::emit_plain;
use strowger_frame::{Burst, Frame};
use strowger_io::endpoint::{self, EndpointReceiver, EndpointSender};
use strowger_wire::{
    Label, Register, Scheme, Slot, U256,
    label::LabelError,
    link_header::LINK_HEADER_BYTES,
    switch_header::{AnyHeader, HeaderRepr, header_bytes},
};

/// The scheme of the switch, which local ports need for return paths. It may grow while the relay
/// runs.
#[derive(Debug)]
pub(crate) struct SharedScheme {
    version: AtomicU64,
    scheme: Mutex<Scheme>,
    hops_max: u8,
}

impl SharedScheme {
    pub(crate) fn new(scheme: Scheme, hops_max: u8) -> Self {
        Self { version: AtomicU64::new(0), scheme: Mutex::new(scheme), hops_max }
    }

    pub(crate) fn set(&self, scheme: Scheme) {
        *self.scheme.lock().unwrap_or_else(PoisonError::into_inner) = scheme;
        // Release: pairs with Acquire in `LocalSender::scheme`.
        self.version.fetch_add(1, Ordering::Release);
    }

    fn get(&self) -> Scheme {
        *self.scheme.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The port is closed: the relay has ended, or the slot was detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortClosed;

impl fmt::Display for PortClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the port is closed: the relay has ended, or the slot was detached")
    }
}

impl Error for PortClosed {}

/// The reason why a packet was not sent.
#[derive(Debug)]
#[non_exhaustive]
pub enum PacketError {
    /// The queue to the relay is full. The packet is returned.
    Full(TxBuffer),
    /// The port is closed. The packet is returned.
    Closed(TxBuffer),
    /// All chunks of the port's send pool are in use.
    NoMemory,
    /// The packet would exceed the maximum length of a frame.
    TooLong {
        /// The payload's length.
        bytes: usize,
    },
    /// No packet can be sent along the label, or the received packet has no return path.
    Label(LabelError),
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the queue to the relay is full; send the packet again later"),
            Self::Closed(_) => PortClosed.fmt(f),
            Self::NoMemory => f.write_str(
                "all memory for packets to send is in use; wait until the relay has sent some, or give \
                 the port a larger send pool",
            ),
            Self::TooLong { bytes } => {
                write!(f, "{bytes} bytes of payload do not fit a frame; send several packets")
            }
            Self::Label(why) => why.fmt(f),
        }
    }
}

impl Error for PacketError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Label(source) => Some(source),
            _ => None,
        }
    }
}

impl From<LabelError> for PacketError {
    fn from(why: LabelError) -> Self {
        Self::Label(why)
    }
}

impl From<endpoint::SendError> for PacketError {
    fn from(error: endpoint::SendError) -> Self {
        match error {
            endpoint::SendError::Full(frame) => Self::Full(TxBuffer::of(frame)),
            endpoint::SendError::Gone(frame) => Self::Closed(TxBuffer::of(frame)),
        }
    }
}

/// An in-process port: the program that runs the relay sends and receives packets through it.
///
/// [`RelayHandle::take_port`](crate::RelayHandle::take_port) returns it. To send and receive,
/// [`split`](Self::split) it.
#[derive(Debug)]
pub struct LocalPort {
    name: String,
    sender: LocalSender,
    receiver: LocalReceiver,
}

impl LocalPort {
    pub(crate) fn new(
        name: String,
        shared: Arc<SharedScheme>,
        sender: EndpointSender,
        receiver: EndpointReceiver,
    ) -> Self {
        let (version, scheme) = (shared.version.load(Ordering::Acquire), shared.get());
        let sender = LocalSender { endpoint: sender, shared, version, scheme };
        Self { name, sender, receiver: LocalReceiver { endpoint: receiver } }
    }

    /// The name of the port's slot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Splits the port into its two halves, so that one thread or task can send while another
    /// receives. Dropping them does not detach the slot. Packets for a port whose halves were
    /// dropped are discarded as `peer_gone`.
    pub fn split(self) -> (LocalSender, LocalReceiver) {
        (self.sender, self.receiver)
    }
}

/// A packet to send. Its headers are complete; the program writes the payload.
#[derive(Debug)]
pub struct TxBuffer {
    frame: Frame,
    payload_at: usize,
}

impl TxBuffer {
    /// Wraps a frame that [`LocalSender::buffer`] made.
    fn of(mut frame: Frame) -> Self {
        let payload_at = payload_at(&mut frame);
        Self { frame, payload_at }
    }

    /// The payload, for the program to write. Its initial content is arbitrary.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.frame.bytes_mut()[self.payload_at..]
    }

    /// The frame, for [`LocalSender::send_burst`].
    pub fn into_frame(self) -> Frame {
        self.frame
    }
}

/// The offset at which the payload of a frame begins.
fn payload_at(frame: &mut Frame) -> usize {
    let header = match frame.bytes_mut().get_mut(LINK_HEADER_BYTES..).map(AnyHeader::parse) {
        Some(Ok(AnyHeader::W64(_))) => header_bytes::<u64>(),
        Some(Ok(AnyHeader::W128(_))) => header_bytes::<u128>(),
        Some(Ok(AnyHeader::W256(_))) => header_bytes::<U256>(),
        Some(Err(_)) | None => 0,
    };
    LINK_HEADER_BYTES + header
}

/// The sending half of a local port.
///
/// ```
/// # use strowger_runtime::{Relay, Label};
/// # let relay = Relay::builder().workers(1).local_port("app").start()?;
/// # let (mut sender, _receiver) = relay.take_port("app")?.split();
/// let label: Label = "0000.0000.0000.0013".parse()?;
/// sender.send_to(label, b"hello")?; // copies the payload once
///
/// let mut buffer = sender.buffer(label, 5)?; // copies nothing
/// buffer.payload_mut().copy_from_slice(b"hello");
/// sender.send(buffer)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LocalSender {
    endpoint: EndpointSender,
    shared: Arc<SharedScheme>,
    version: u64,
    scheme: Scheme,
}

impl LocalSender {
    /// Allocates a packet for this label with `bytes` bytes of payload, from the port's send pool.
    ///
    /// # Errors
    /// [`PacketError::NoMemory`], [`PacketError::TooLong`], [`PacketError::Label`].
    pub fn buffer<R: Register>(
        &mut self,
        label: Label<R>,
        bytes: usize,
    ) -> Result<TxBuffer, PacketError> {
        let (label, shift) = label.depart()?;
        let payload_at = LINK_HEADER_BYTES + header_bytes::<R>();
        let len = payload_at + bytes;
        if len > strowger_engine::limits::FRAME_BYTES_MAX {
            return Err(PacketError::TooLong { bytes });
        }
        let mut frame = self.endpoint.frame(len).ok_or(PacketError::NoMemory)?;
        let header = HeaderRepr::new(label, shift, self.shared.hops_max);
        let emitted = emit_plain(frame.bytes_mut(), &header).is_ok();
        debug_assert!(emitted, "the frame is as long as header and payload");
        Ok(TxBuffer { frame, payload_at })
    }

    /// Sends a payload along a label. Blocks while the queue is full. Copies the payload.
    ///
    /// # Errors
    /// [`PacketError`], except `Full`.
    pub fn send_to<R: Register>(
        &mut self,
        label: Label<R>,
        payload: &[u8],
    ) -> Result<(), PacketError> {
        let mut buffer = self.buffer(label, payload.len())?;
        buffer.payload_mut().copy_from_slice(payload);
        self.send(buffer)
    }

    /// Replies to a packet along its return path. Copies the payload.
    ///
    /// # Errors
    /// [`PacketError`], except `Full`.
    pub fn reply(&mut self, to: &Packet, payload: &[u8]) -> Result<(), PacketError> {
        let buffer = self.reply_buffer(to, payload)?;
        self.send(buffer)
    }

    fn reply_buffer(&mut self, to: &Packet, payload: &[u8]) -> Result<TxBuffer, PacketError> {
        let scheme = *self.scheme();
        let mut buffer = match to.header {
            AnyRepr::W64(header) => {
                self.buffer(return_path(&header, to.ingress, &scheme)?, payload.len())
            }
            AnyRepr::W128(header) => {
                self.buffer(return_path(&header, to.ingress, &scheme)?, payload.len())
            }
            AnyRepr::W256(header) => {
                self.buffer(return_path(&header, to.ingress, &scheme)?, payload.len())
            }
        }?;
        buffer.payload_mut().copy_from_slice(payload);
        Ok(buffer)
    }

    /// The current scheme of the relay's switch.
    pub fn scheme(&mut self) -> &Scheme {
        // Acquire: pairs with Release in `SharedScheme::set`.
        let version = self.shared.version.load(Ordering::Acquire);
        if version != self.version {
            (self.version, self.scheme) = (version, self.shared.get());
        }
        &self.scheme
    }

    /// Sends a packet. Blocks while the queue is full.
    ///
    /// # Errors
    /// [`PacketError::Closed`], with the packet.
    pub fn send(&mut self, buffer: TxBuffer) -> Result<(), PacketError> {
        Ok(self.endpoint.send_wait(buffer.frame, None)?)
    }

    /// Sends a packet. Blocks while the queue is full, but no longer than `timeout`.
    ///
    /// # Errors
    /// [`PacketError::Full`] after the timeout, or [`PacketError::Closed`], with the packet.
    pub fn send_timeout(&mut self, buffer: TxBuffer, timeout: Duration) -> Result<(), PacketError> {
        Ok(self.endpoint.send_wait(buffer.frame, Some(timeout))?)
    }

    /// Sends a packet without blocking.
    ///
    /// # Errors
    /// [`PacketError::Full`] or [`PacketError::Closed`], with the packet.
    pub fn try_send(&mut self, buffer: TxBuffer) -> Result<(), PacketError> {
        Ok(self.endpoint.send(buffer.frame)?)
    }

    /// Sends packets from the front of `burst` without blocking, and returns the number of packets
    /// sent. The others stay in `burst`.
    ///
    /// # Errors
    /// [`PortClosed`]. The packets stay in `burst`.
    pub fn send_burst(&mut self, burst: &mut Burst) -> Result<usize, PortClosed> {
        self.endpoint.send_burst(burst).map_err(|endpoint::Gone| PortClosed)
    }

    /// Polls whether the queue to the relay has a free place. If not, registers the task's waker.
    ///
    /// # Errors
    /// [`PortClosed`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PortClosed>> {
        self.endpoint.poll_ready(cx).map_err(|endpoint::Gone| PortClosed)
    }

    /// Sends a packet. Waits while the queue is full. The future works in any async runtime.
    ///
    /// # Errors
    /// [`PacketError::Closed`], with the packet.
    pub async fn send_async(&mut self, buffer: TxBuffer) -> Result<(), PacketError> {
        Ok(self.endpoint.send_async(buffer.frame).await?)
    }

    /// Sends a payload along a label as [`send_to`](Self::send_to) does, for async code.
    ///
    /// # Errors
    /// [`PacketError`], except `Full`.
    pub async fn send_to_async<R: Register>(
        &mut self,
        label: Label<R>,
        payload: &[u8],
    ) -> Result<(), PacketError> {
        let mut buffer = self.buffer(label, payload.len())?;
        buffer.payload_mut().copy_from_slice(payload);
        self.send_async(buffer).await
    }

    /// Replies to a packet as [`reply`](Self::reply) does, for async code.
    ///
    /// # Errors
    /// [`PacketError`], except `Full`.
    pub async fn reply_async(&mut self, to: &Packet, payload: &[u8]) -> Result<(), PacketError> {
        let buffer = self.reply_buffer(to, payload)?;
        self.send_async(buffer).await
    }

    /// The sending half of the underlying endpoint, for trains of frames and for counters.
    pub fn endpoint(&mut self) -> &mut EndpointSender {
        &mut self.endpoint
    }
}

/// The label of the return path of a packet that arrived with this header on this ingress slot.
fn return_path<R: Register>(
    header: &HeaderRepr<R>,
    ingress: u32,
    scheme: &Scheme,
) -> Result<Label<R>, LabelError> {
    // The last switch does not write the ingress slot into the label. It passes the slot alongside
    // the packet (wire.md 1.3).
    header.label.reverse_at_endpoint(header.shift, scheme, Slot::new(ingress))
}

/// A header with a label of any width.
#[derive(Clone, Copy, Debug)]
enum AnyRepr {
    W64(HeaderRepr<u64>),
    W128(HeaderRepr<u128>),
    W256(HeaderRepr<U256>),
}

/// A received packet.
#[derive(Debug)]
pub struct Packet {
    frame: Frame,
    header: AnyRepr,
    payload_at: usize,
    ingress: u32,
}

impl Packet {
    /// Wraps a received frame. Returns `None` if the frame contains no valid switch header.
    pub fn from_frame(mut frame: Frame) -> Option<Self> {
        let packet = frame.bytes_mut().get_mut(LINK_HEADER_BYTES..)?;
        let (header, bytes) = match AnyHeader::parse(packet).ok()? {
            AnyHeader::W64(header) => (AnyRepr::W64(header.to_repr()), header_bytes::<u64>()),
            AnyHeader::W128(header) => (AnyRepr::W128(header.to_repr()), header_bytes::<u128>()),
            AnyHeader::W256(header) => (AnyRepr::W256(header.to_repr()), header_bytes::<U256>()),
        };
        let ingress = frame.mark().0;
        Some(Self { frame, header, payload_at: LINK_HEADER_BYTES + bytes, ingress })
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.frame.bytes()[self.payload_at..]
    }

    /// The payload, for the program to change.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.frame.bytes_mut()[self.payload_at..]
    }

    /// The number of the slot on which the packet arrived at this relay.
    pub fn ingress(&self) -> u32 {
        self.ingress
    }

    /// The label of the return path, if the packet has a 64-bit label. [`LocalSender::reply`] works
    /// with labels of any width.
    ///
    /// # Errors
    /// [`LabelError`]. The packet has no return path, or its label has another width.
    pub fn return_path(&self, scheme: &Scheme) -> Result<Label, LabelError> {
        match &self.header {
            AnyRepr::W64(header) => return_path(header, self.ingress, scheme),
            AnyRepr::W128(_) | AnyRepr::W256(_) => Err(LabelError::TooLong),
        }
    }

    /// The frame, with its headers.
    pub fn into_frame(self) -> Frame {
        self.frame
    }
}

/// The receiving half of a local port.
///
/// ```
/// # use strowger_runtime::Relay;
/// # use std::time::Duration;
/// # let relay = Relay::builder().workers(1).local_port("app").start()?;
/// # let (mut sender, mut receiver) = relay.take_port("app")?.split();
/// while let Some(packet) = receiver.recv_timeout(Duration::ZERO)? {
///     sender.reply(&packet, b"received")?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LocalReceiver {
    endpoint: EndpointReceiver,
}

impl LocalReceiver {
    /// Blocks until the next packet arrives.
    ///
    /// # Errors
    /// [`PortClosed`], after the port was closed and all packets that had arrived were received.
    pub fn recv(&mut self) -> Result<Packet, PortClosed> {
        loop {
            if let Some(packet) = self.receive(None)? {
                return Ok(packet);
            }
        }
    }

    /// Blocks until the next packet arrives, but no longer than `timeout`. Returns `None` after the
    /// timeout.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Packet>, PortClosed> {
        self.receive(Some(timeout))
    }

    /// Returns the next packet if one has arrived, without blocking.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<Option<Packet>, PortClosed> {
        self.receive(Some(Duration::ZERO))
    }

    fn receive(&mut self, timeout: Option<Duration>) -> Result<Option<Packet>, PortClosed> {
        let received = self.endpoint.receive_wait(timeout);
        Ok(received.map_err(|endpoint::Gone| PortClosed)?.and_then(Packet::from_frame))
    }

    /// Receives the frames that have arrived, as many as `burst` has space for, without blocking.
    /// Returns their number. [`Packet::from_frame`] turns a frame into a packet.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_burst(&mut self, burst: &mut Burst) -> Result<usize, PortClosed> {
        self.endpoint.receive_burst(burst).map_err(|endpoint::Gone| PortClosed)
    }

    /// Receives frames as [`recv_burst`](Self::recv_burst) does, and blocks until at least one has
    /// arrived. If there is a timeout, it does not block longer than that.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_burst_wait(
        &mut self,
        burst: &mut Burst,
        timeout: Option<Duration>,
    ) -> Result<usize, PortClosed> {
        let received = self.endpoint.receive_burst_wait(burst, timeout);
        received.map_err(|endpoint::Gone| PortClosed)
    }

    /// Polls for the next packet. If there is none, registers the task's waker.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Packet, PortClosed>> {
        loop {
            match self.endpoint.poll_receive(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(endpoint::Gone)) => return Poll::Ready(Err(PortClosed)),
                Poll::Ready(Ok(frame)) => {
                    if let Some(packet) = Packet::from_frame(frame) {
                        return Poll::Ready(Ok(packet));
                    }
                }
            }
        }
    }

    /// Receives frames as [`recv_burst`](Self::recv_burst) does. If there is none, registers the
    /// task's waker.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn poll_recv_burst(
        &mut self,
        cx: &mut Context<'_>,
        burst: &mut Burst,
    ) -> Poll<Result<usize, PortClosed>> {
        self.endpoint.poll_receive_burst(cx, burst).map_err(|endpoint::Gone| PortClosed)
    }

    /// Waits for the next packet. The future works in any async runtime.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub async fn recv_async(&mut self) -> Result<Packet, PortClosed> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The receiving half of the underlying endpoint, for frames and counters.
    pub fn endpoint(&mut self) -> &mut EndpointReceiver {
        &mut self.endpoint
    }
}
