//! Ports: the input and output of frames. A port knows addresses and marks, but no labels, keys or
//! slots.

use std::{net::SocketAddr, os::fd::RawFd, sync::Arc};

use arrayvec::ArrayVec;

use crate::{Burst, Frame, Mark, Pool, reserve::Chunks, tally::Counter};

/// The address of a neighbour, in the form that its port uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// The port has one neighbour and needs no address: memory, endpoint, unix.
    Only,
    /// A UDP socket address.
    Udp(SocketAddr),
    /// A MAC address on an Ethernet. The VLAN, if any, is a property of the port.
    Ether([u8; 6]),
}

impl Address {
    /// The address as bytes, for keyed hashes. Within one variant, different addresses have
    /// different bytes, except that the scope and flow label of IPv6 addresses are left out.
    pub fn to_bytes(&self) -> ArrayVec<u8, 32> {
        let mut bytes = ArrayVec::new();
        match self {
            Self::Only => {}
            Self::Udp(at) => {
                match at.ip() {
                    std::net::IpAddr::V4(ip) => bytes.extend(ip.octets()),
                    std::net::IpAddr::V6(ip) => bytes.extend(ip.octets()),
                }
                bytes.extend(at.port().to_be_bytes());
            }
            Self::Ether(mac) => bytes.extend(*mac),
        }
        bytes
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Only => f.write_str("-"),
            Self::Udp(at) => at.fmt(f),
            Self::Ether([a, b, c, d, e, g]) => {
                write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
        }
    }
}

/// The reason for which a port refuses a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmitError {
    /// The address is not of this port's kind, such as an IPv6 address for an IPv4 socket.
    WrongKind,
    /// Another mark has this address.
    Taken,
    /// The port's table is full, or the mark's index is out of the table's range.
    Full,
}

impl std::fmt::Display for AdmitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::WrongKind => "the address is not of this port's kind",
            Self::Taken => "another neighbour has this address",
            Self::Full => "the port's table of neighbours is full",
        })
    }
}

impl std::error::Error for AdmitError {}

/// The reason for which a port dropped a frame. Each reason has its own counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Loss {
    /// The frame's source address belongs to no neighbour.
    UnknownSender,
    /// The frame was longer than its buffer and was truncated on arrival.
    Truncated,
    /// The kernel's metadata of the frame is invalid.
    Malformed,
    /// The frame's destination mark belongs to no neighbour.
    NoNeighbour,
    /// The frame is too long for the path, as the kernel reports (`EMSGSIZE`).
    PathTooNarrow,
    /// A path MTU probe is too long for the path. This is a result of the probe, and not a failure.
    PathProbe,
    /// The kernel refused to send the frame, for example because there is no route.
    SendRefused,
    /// Earlier frames to this neighbour are not transmitted yet, and use up its share of the send
    /// buffers.
    ///
    /// The usual causes are a next hop that does not answer ARP or neighbour discovery, and a slow
    /// interface.
    SendStalled,
    /// The far end of this port is closed: an endpoint was closed, or a process exited.
    PeerGone,
    /// The pool has no free chunk for the frame.
    PoolEmpty,
    /// A fault-injection wrapper dropped the frame on purpose.
    Injected,
}

impl Loss {
    /// The number of reasons.
    pub const COUNT: usize = 11;
    /// All reasons in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::UnknownSender,
        Self::Truncated,
        Self::Malformed,
        Self::NoNeighbour,
        Self::PathTooNarrow,
        Self::PathProbe,
        Self::SendRefused,
        Self::SendStalled,
        Self::PeerGone,
        Self::PoolEmpty,
        Self::Injected,
    ];

    /// The name in counters and captures: lower case with underscores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownSender => "unknown_sender",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::NoNeighbour => "no_neighbour",
            Self::PathTooNarrow => "path_too_narrow",
            Self::PathProbe => "path_probe",
            Self::SendRefused => "send_refused",
            Self::SendStalled => "send_stalled",
            Self::PeerGone => "peer_gone",
            Self::PoolEmpty => "pool_empty",
            Self::Injected => "injected",
        }
    }
}

/// The reason for which the kernel dropped packets for a port before they became frames.
///
/// Most counts are the kernel's own. Each dropped packet is counted once, by a reason that counts
/// packets. The other reasons explain such drops or indicate a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum KernelDrop {
    /// Packets: the socket's receive buffer is full (`SO_RXQ_OVFL`, `PACKET_STATISTICS`).
    ///
    /// The kernel counts buffers. A train that it coalesced, or that arrived as one buffer over
    /// loopback, counts once. So the count is exact if there are no trains, and otherwise a lower
    /// bound of the number of datagrams.
    SocketFull,
    /// Packets: the receive ring is full, because the worker does not take packets fast enough
    /// (AF_XDP).
    RxRingFull,
    /// Packets: no chunk was free to receive into, or the packet was longer than a chunk (AF_XDP).
    RxDropped,
    /// The number of times that the kernel found no chunk to receive into (AF_XDP).
    FillRingEmpty,
    /// The number of times that the port requested no packets, because the pool had no free chunk
    /// for them.
    ///
    /// Packets that have arrived wait in the kernel's buffer. When it is full, the kernel drops
    /// further packets.
    PoolEmpty,
    /// The number of receive descriptors that the kernel refused, which indicates a bug (AF_XDP).
    /// Linux 6.18 does not count them.
    RxInvalid,
    /// The number of transmit descriptors that the kernel refused, which indicates a bug (AF_XDP).
    TxInvalid,
}

impl KernelDrop {
    /// The number of reasons.
    pub const COUNT: usize = 7;
    /// All reasons in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::SocketFull,
        Self::RxRingFull,
        Self::RxDropped,
        Self::FillRingEmpty,
        Self::PoolEmpty,
        Self::RxInvalid,
        Self::TxInvalid,
    ];

    /// The name in counters and JSON: lower case with underscores, distinct from every [`Loss`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::SocketFull => "kernel_socket_full",
            Self::RxRingFull => "kernel_rx_ring_full",
            Self::RxDropped => "kernel_rx_dropped",
            Self::FillRingEmpty => "kernel_fill_ring_empty",
            Self::PoolEmpty => "receive_pool_empty",
            Self::RxInvalid => "kernel_rx_invalid",
            Self::TxInvalid => "kernel_tx_invalid",
        }
    }

    /// Whether the reason counts packets.
    pub const fn is_of_packets(self) -> bool {
        matches!(self, Self::SocketFull | Self::RxRingFull | Self::RxDropped)
    }
}

/// Kernel drops by reason. The port's thread writes them; any thread may read them.
#[derive(Debug, Default)]
pub struct KernelTally([Counter; KernelDrop::COUNT]);

impl KernelTally {
    /// Adds `n`, for a kernel counter that reports increments.
    pub fn add(&self, drop: KernelDrop, n: u64) {
        self.0[drop as usize].add(n);
    }

    /// Sets the count, for a kernel counter that reports totals.
    pub fn set(&self, drop: KernelDrop, n: u64) {
        self.0[drop as usize].set(n);
    }

    /// The count of one reason.
    pub fn of(&self, drop: KernelDrop) -> u64 {
        self.0[drop as usize].read()
    }

    /// The number of packets dropped, for all reasons.
    pub fn read(&self) -> u64 {
        KernelDrop::ALL
            .into_iter()
            .filter(|drop| drop.is_of_packets())
            .map(|drop| self.of(drop))
            .sum()
    }
}

/// Counters of a port. The port's thread writes them; any thread may read them.
///
/// While no frame is in transit, `frames_in` = frames passed to callers of `rx_burst` + receive
/// losses, and frames taken for sending = `frames_out` + send losses.
#[derive(Debug, Default)]
#[repr(align(64))] // on cache lines of its own, because each tally has a different writer
pub struct PortTally {
    /// Received frames, including frames that were then lost.
    pub frames_in: Counter,
    /// Bytes of the received frames.
    pub bytes_in: Counter,
    /// Sent frames: those that the kernel, or the far end inside this process, has accepted.
    pub frames_out: Counter,
    /// Bytes of the sent frames.
    pub bytes_out: Counter,
    /// Frames that the port made, such as duplicates from a fault-injection wrapper. They are a
    /// source in R3's balance.
    pub frames_made: Counter,
    /// Receive operations that returned something. One operation may return a coalesced train.
    pub trains_in: Counter,
    /// Send operations. One operation may send a train.
    pub trains_out: Counter,
    /// The number of trains that the kernel refused to send to a neighbour (segmentation offload,
    /// `EIO`). For some time after that, the port sends frames to this neighbour one by one.
    pub trains_refused: Counter,
    /// The number of times that the port tried a train again after a refusal.
    pub trains_retried: Counter,
    /// Packets that the kernel dropped before they became frames. They are not part of R3's
    /// balance.
    pub kernel_drops: KernelTally,
    /// Frames whose payload this port copied to send it, because the kernel could not read it in
    /// place.
    ///
    /// Copies on receive are counted by the pool's own counter.
    pub frames_copied: Counter,
    losses: [Counter; Loss::COUNT],
}

impl PortTally {
    /// Counts `n` frames lost for this reason.
    #[inline]
    pub fn count_loss(&self, loss: Loss, n: u64) {
        self.losses[loss as usize].add(n);
    }

    /// The number of frames lost for this reason.
    pub fn lost(&self, loss: Loss) -> u64 {
        self.losses[loss as usize].read()
    }

    /// The number of frames lost for all reasons.
    pub fn total_lost(&self) -> u64 {
        self.losses.iter().map(Counter::read).sum()
    }
}

/// The state of a port when its worker is about to block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Work may be waiting: the worker must not block.
    Ready,
    /// No work is waiting. This descriptor becomes readable when there is work.
    Wait(RawFd),
    /// No work is waiting, and no descriptor will report new work: the worker must poll.
    Poll,
}

/// A source and sink of frames: a UDP socket, a NIC queue, a unix socket, or a ring of this
/// process.
///
/// One worker owns a port, and no other thread calls it. Another thread may construct it. From the
/// first call of `rx_burst` on, it belongs to the calling thread.
///
/// The contract, which the conformance suite in `strowger-io` checks for every backend:
/// - no method blocks, and no method allocates after construction;
/// - frames from a neighbour and frames to a neighbour keep their order;
/// - each frame that the port accepted is sent or counted as a [`Loss`];
/// - a received frame has its neighbour's mark, and its payload is not copied in this process.
pub trait Port: Send {
    /// Receives frames into `burst` until it is full or no more frames are waiting. The frames are
    /// in chunks from `pool`.
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst);

    /// Takes frames from the front of `frames`, to send them to the neighbour `to`.
    ///
    /// Frames that the port cannot take now stay in `frames`, in order, for the next call. The port
    /// also takes frames that can never be sent, and counts them as lost.
    fn tx_burst(&mut self, to: Mark, frames: &mut Burst);

    /// Sends the frames that `tx_burst` took. Call it once after a round of `tx_burst`.
    ///
    /// A round may consist of several bursts. The more frames a round has for one neighbour, the
    /// longer its train.
    fn flush(&mut self);

    /// Whether the port takes no frames for this neighbour now.
    ///
    /// This state begins with a `tx_burst` that leaves frames. The port ends it in a later
    /// `rx_burst`, `flush` or [`arm`](Self::arm). Callers may offer frames in the meantime, usually
    /// at the cost of a useless system call. A worker may sleep while a neighbour is blocked: `arm`
    /// returns a descriptor that becomes readable when the neighbour takes frames again. If a port
    /// always returns `false` here, the caller must offer its frames at every poll.
    fn is_blocked(&self, _to: Mark) -> bool {
        false
    }

    /// Whether no frame waits for `flush` and no send is in flight.
    fn is_flushed(&self) -> bool {
        true
    }

    /// Binds `mark` to `at`: frames from `at` carry the mark, and frames to the mark go to `at`.
    ///
    /// # Errors
    /// [`AdmitError`]. In this case nothing has changed.
    fn admit(&mut self, mark: Mark, at: Address) -> Result<(), AdmitError>;

    /// Removes the neighbour with this mark.
    fn forget(&mut self, mark: Mark);

    /// Sets whether frames from unknown senders are delivered. They then carry a [`Mark::unknown`].
    ///
    /// By default a port drops them and counts [`Loss::UnknownSender`].
    fn accept_unknown(&mut self, _accept: bool) {}

    /// The address of the neighbour with this mark. For the mark of an unknown sender, the address
    /// is known until the next `rx_burst`.
    fn address_of(&self, _mark: Mark) -> Option<Address> {
        None
    }

    /// Sends one frame to an address, which need not be a neighbour's. Use it for rare frames:
    /// handshake messages and replies.
    ///
    /// A frame that cannot be sent is counted as lost.
    fn send_to(&mut self, _to: Address, _frame: Frame) {
        self.tally().count_loss(Loss::NoNeighbour, 1);
    }

    /// Sends a path MTU probe. It works as [`send_to`](Self::send_to), but a probe that is too long
    /// for the path counts as [`Loss::PathProbe`].
    fn send_probe(&mut self, to: Address, probe: Frame) {
        self.send_to(to, probe);
    }

    /// Reports that a frame of the last `rx_burst` was authenticated.
    ///
    /// The port then sends to the frame's neighbour from the local address to which the frame was
    /// sent. Before the first authenticated frame, it uses the local address to which the
    /// neighbour's last frame was sent.
    fn authenticated(&mut self, _frame: &Frame) {}

    /// The errno with which the kernel refused the last send to an address. `None` if the kernel
    /// accepted that send, or if no error is recorded for the address.
    ///
    /// Typical errors are `EHOSTUNREACH`, `ENETUNREACH`, `EPERM` and `EINVAL`. The error is
    /// recorded for neighbours, and for the last few addresses for which [`send_to`](Self::send_to)
    /// failed. It explains to operators why a link is down; the data path does not depend on it.
    fn last_send_error(&self, _to: Address) -> Option<i32> {
        None
    }

    /// Prepares the port for a worker that is about to block. Returns how the port notifies the
    /// worker of new work.
    fn arm(&mut self) -> Arm;

    /// Reports that the descriptor from [`arm`](Self::arm) is readable. The caller calls this
    /// before `disarm`.
    ///
    /// A port that checks an expensive source only at intervals then checks it in its next
    /// `rx_burst`.
    fn on_readable(&mut self) {}

    /// Reports that the worker is awake again.
    fn disarm(&mut self) {}

    /// The length of the longest frame that this port can send, in bytes.
    fn frame_bytes_max(&self) -> usize;

    /// The number of chunks that the port needs to receive at its usual rate. The worker reserves
    /// them in its pool.
    fn receive_chunks(&self) -> Chunks {
        Chunks::default()
    }

    /// The port's counters, which other threads may read.
    fn tally(&self) -> &Arc<PortTally>;

    /// A short description for operators: `udp 127.0.0.1:7000 (io_uring)`.
    fn describe(&self) -> &str;

    /// Reports the reason for which a frame that this port received was dropped. Only the capture
    /// wrapper uses it.
    fn note_discard(&mut self, _frame: &Frame, _reason: &'static str) {}
}

impl std::fmt::Debug for dyn Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Port").field(&self.describe()).finish()
    }
}

/// Implements those methods of [`Port`] that a wrapper passes unchanged to the port inside it.
///
/// Use `delegate_port!(self, self.inner)` among the wrapper's other methods.
#[macro_export]
macro_rules! delegate_port {
    ($self:ident, $inner:expr) => {
        fn admit(
            &mut $self,
            mark: $crate::Mark,
            at: $crate::Address,
        ) -> Result<(), $crate::port::AdmitError> {
            $inner.admit(mark, at)
        }

        fn forget(&mut $self, mark: $crate::Mark) {
            $inner.forget(mark);
        }

        fn accept_unknown(&mut $self, accept: bool) {
            $inner.accept_unknown(accept);
        }

        fn address_of(&$self, mark: $crate::Mark) -> Option<$crate::Address> {
            $inner.address_of(mark)
        }

        fn send_to(&mut $self, to: $crate::Address, frame: $crate::Frame) {
            $inner.send_to(to, frame);
        }

        fn send_probe(&mut $self, to: $crate::Address, probe: $crate::Frame) {
            $inner.send_probe(to, probe);
        }

        fn is_blocked(&$self, to: $crate::Mark) -> bool {
            $inner.is_blocked(to)
        }

        fn on_readable(&mut $self) {
            $inner.on_readable();
        }

        fn authenticated(&mut $self, frame: &$crate::Frame) {
            $inner.authenticated(frame);
        }

        fn last_send_error(&$self, to: $crate::Address) -> Option<i32> {
            $inner.last_send_error(to)
        }

        fn disarm(&mut $self) {
            $inner.disarm();
        }

        fn frame_bytes_max(&$self) -> usize {
            $inner.frame_bytes_max()
        }

        fn receive_chunks(&$self) -> $crate::reserve::Chunks {
            $inner.receive_chunks()
        }

        fn tally(&$self) -> &std::sync::Arc<$crate::port::PortTally> {
            $inner.tally()
        }

        fn describe(&$self) -> &str {
            $inner.describe()
        }
    };
}

/// A boxed port implements `Port`, so that wrappers accept boxed ports too.
impl<P: Port + ?Sized> Port for Box<P> {
    #[inline]
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst) {
        (**self).rx_burst(pool, burst);
    }

    #[inline]
    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        (**self).tx_burst(to, frames);
    }

    #[inline]
    fn flush(&mut self) {
        (**self).flush();
    }

    #[inline]
    fn is_flushed(&self) -> bool {
        (**self).is_flushed()
    }

    fn arm(&mut self) -> Arm {
        (**self).arm()
    }

    delegate_port!(self, (**self));

    fn note_discard(&mut self, frame: &crate::Frame, reason: &'static str) {
        (**self).note_discard(frame, reason);
    }
}
