//! Where frames come in and go out. A port knows addresses and marks; it never knows what a label,
//! a link's key or a slot is.

use std::{net::SocketAddr, os::fd::RawFd, sync::Arc};

use arrayvec::ArrayVec;

use crate::{Burst, Frame, Mark, Pool, reserve::Chunks, tally::Counter};

/// Where a neighbour is, in the words of its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// The port has one neighbour and needs no address: memory, endpoint, unix.
    Only,
    /// A UDP socket address.
    Udp(SocketAddr),
    /// A MAC address on an Ethernet; which VLAN, if any, is the port's to know.
    Ether([u8; 6]),
}

impl Address {
    /// The address as bytes: the same for the same address, different for different ones of one
    /// kind. For keyed hashes, not for the wire.
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

/// Why a port could not take a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmitError {
    /// The address is not of this port's kind (an IPv6 address for an IPv4 socket, say).
    WrongKind,
    /// Another mark already stands for this address.
    Taken,
    /// The port's table is full, or the mark lies beyond it.
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

/// Why a frame that had reached a port went no further there. Closed; each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Loss {
    /// It came from an address that no neighbour has.
    UnknownSender,
    /// It was longer than the memory for it, and what arrived was cut off.
    Truncated,
    /// The kernel's message about it made no sense.
    Malformed,
    /// No neighbour stands under the mark it was to go to.
    NoNeighbour,
    /// The kernel said that it is too long for the path (`EMSGSIZE`).
    PathTooNarrow,
    /// A probe of the path's width that is too long for it: the answer that the probe asks for, and no
    /// failure.
    PathProbe,
    /// The kernel refused to send it (no route, refused, no buffers).
    SendRefused,
    /// What was sent to this neighbour before has not left the machine (a next hop that does not
    /// answer, an interface that is slow), and it has its share of the send buffers.
    SendStalled,
    /// The far side of this port is gone (a closed endpoint, a dead process).
    PeerGone,
    /// The pool had no memory for it.
    PoolEmpty,
    /// A fault wrapper lost it on purpose.
    Injected,
}

impl Loss {
    /// How many there are.
    pub const COUNT: usize = 11;
    /// All of them, in the order of their numbers.
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

    /// Its name in counters and captures: lower case, underscores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownSender => "stranger",
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

/// Why the kernel dropped what was for a port before it was a frame, most of it in the kernel's own
/// counts. Closed. Those that are of packets are all that it dropped, each once; the others say why,
/// or that somebody has a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum KernelDrop {
    /// Packets: no room in the socket's buffer (`SO_RXQ_OVFL`, `PACKET_STATISTICS`). The kernel
    /// counts buffers: a train that it had joined, or that came as one over loopback, counts once,
    /// so this is the number of datagrams only where there are no trains, and a lower bound where
    /// there are.
    SocketFull,
    /// Packets: no room in the receive ring, since the worker takes too few (AF_XDP).
    RxRingFull,
    /// Packets: no chunk to receive it into, or longer than one (AF_XDP).
    RxDropped,
    /// Times that it looked for a chunk to receive into, and there was none (AF_XDP).
    FillRingEmpty,
    /// Times that the port did not ask for packets, since the pool had no chunk to receive them
    /// into: what had arrived waits in the kernel's buffer, and is dropped there once that is full.
    PoolEmpty,
    /// Descriptors of ours that it refused on the way in: a bug (AF_XDP). Linux 6.18 counts none.
    RxInvalid,
    /// Descriptors of ours that it refused in the transmit ring: a bug (AF_XDP).
    TxInvalid,
}

impl KernelDrop {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::SocketFull,
        Self::RxRingFull,
        Self::RxDropped,
        Self::FillRingEmpty,
        Self::PoolEmpty,
        Self::RxInvalid,
        Self::TxInvalid,
    ];

    /// Its name in counters and JSON: lower case, underscores, and unlike that of any [`Loss`].
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

    /// Whether it counts packets.
    pub const fn is_of_packets(self) -> bool {
        matches!(self, Self::SocketFull | Self::RxRingFull | Self::RxDropped)
    }
}

/// What the kernel dropped, by reason. Written by the port's thread alone, read by anyone.
#[derive(Debug, Default)]
pub struct KernelTally([Counter; KernelDrop::COUNT]);

impl KernelTally {
    /// Counts `n` more, where the kernel tells what is new.
    pub fn add(&self, drop: KernelDrop, n: u64) {
        self.0[drop as usize].add(n);
    }

    /// Takes over the kernel's count, where it tells all since the beginning.
    pub fn set(&self, drop: KernelDrop, n: u64) {
        self.0[drop as usize].set(n);
    }

    /// What was dropped for this reason.
    pub fn of(&self, drop: KernelDrop) -> u64 {
        self.0[drop as usize].read()
    }

    /// Packets dropped for any reason.
    pub fn read(&self) -> u64 {
        KernelDrop::ALL
            .into_iter()
            .filter(|drop| drop.is_of_packets())
            .map(|drop| self.of(drop))
            .sum()
    }
}

/// What a port counts. Written by the port's thread alone, read by anyone.
///
/// At rest `frames_in` = frames handed to `rx_burst`'s callers + losses on the way in, and
/// frames taken by `tx_burst` = `frames_out` + losses on the way out.
#[derive(Debug, Default)]
#[repr(align(64))] // on cache lines of its own: each has another writer
pub struct PortTally {
    /// Frames that arrived, lost ones included.
    pub frames_in: Counter,
    /// Their bytes.
    pub bytes_in: Counter,
    /// Frames that the far side of the port took.
    pub frames_out: Counter,
    /// Their bytes.
    pub bytes_out: Counter,
    /// Frames that the port made (a fault wrapper's duplicates): on the left side of R3's balance.
    pub frames_made: Counter,
    /// Receives that yielded something: trains, where the kernel coalesced.
    pub trains_in: Counter,
    /// Messages handed to the kernel: trains, where frames could ride together.
    pub trains_out: Counter,
    /// Trains that the way to a neighbour refused, so that frames go there one by one for a while
    /// (segmentation offload, `EIO`).
    pub trains_refused: Counter,
    /// Times that trains were tried again after that.
    pub trains_retried: Counter,
    /// What the kernel dropped before it became frames; no part of the balance, since we never had
    /// it.
    pub kernel_drops: KernelTally,
    /// Frames whose payload this port had to copy on their way out, since the kernel could not
    /// reach them where they lay. What is copied on the way in stands in the pool's own count.
    pub frames_copied: Counter,
    losses: [Counter; Loss::COUNT],
}

impl PortTally {
    /// Counts `n` frames lost for this reason.
    #[inline]
    pub fn count_loss(&self, loss: Loss, n: u64) {
        self.losses[loss as usize].add(n);
    }

    /// Frames lost for this reason.
    pub fn lost(&self, loss: Loss) -> u64 {
        self.losses[loss as usize].read()
    }

    /// Frames lost for any reason.
    pub fn total_lost(&self) -> u64 {
        self.losses.iter().map(Counter::read).sum()
    }
}

/// What a worker may do with a port before it blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Something may already be waiting: do not block.
    Ready,
    /// Nothing is waiting; this descriptor becomes readable when something is.
    Wait(RawFd),
    /// Nothing is waiting and nothing will wake the worker: it must poll, or be told otherwise.
    Poll,
}

/// Where frames come in and go out: a UDP socket, a NIC queue, a unix socket, a ring of this
/// process. Owned by one worker, called by no other thread; it may be made on another, and belongs
/// to the one that first receives with it.
///
/// The contract every backend passes (the conformance suite in `strowger-io`):
/// - nothing here blocks, and after construction nothing allocates;
/// - order is kept from each neighbour and to each neighbour;
/// - every frame that the port took is either sent or counted as a [`Loss`];
/// - a frame is received with its neighbour's mark, and payload is not copied in this process.
pub trait Port: Send {
    /// Moves what has arrived into `burst`, as far as there is room, taking memory from `pool`.
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst);

    /// Takes frames for neighbour `to` from the front of `frames`. Frames that it cannot take now
    /// stay, in order, for the next call; frames that can never go are taken and counted as lost.
    fn tx_burst(&mut self, to: Mark, frames: &mut Burst);

    /// Lets go what `tx_burst` has taken: called once after a round of them. A round may be several
    /// bursts: the more frames to one neighbour, the longer its train.
    fn flush(&mut self);

    /// Whether this neighbour takes no frames now. It begins with a `tx_burst` that leaves frames,
    /// and the port itself ends it, in a later `rx_burst`, `flush` or [`arm`](Self::arm): offering
    /// the neighbour frames meanwhile is allowed, and in most cases a system call without effect.
    /// A worker may sleep while a neighbour is blocked: `arm` gives a descriptor that wakes it when
    /// the neighbour takes frames again. A port that answers `false` wants to be asked every poll.
    fn is_blocked(&self, _to: Mark) -> bool {
        false
    }

    /// Whether `flush` has something to do, or sends are still in flight.
    fn is_flushed(&self) -> bool {
        true
    }

    /// From now on, frames from `at` carry `mark` and frames to `mark` go to `at`.
    ///
    /// # Errors
    /// [`AdmitError`]; nothing has changed then.
    fn admit(&mut self, mark: Mark, at: Address) -> Result<(), AdmitError>;

    /// The neighbour under `mark` is one no longer.
    fn forget(&mut self, mark: Mark);

    /// Whether frames from addresses that no neighbour has are handed up under a
    /// [`Mark::unknown`], or counted as [`Loss::UnknownSender`], which is what a port does unless told.
    fn accept_unknown(&mut self, _accept: bool) {}

    /// The address behind a mark: a neighbour's, or, until the next `rx_burst`, a stranger's.
    fn address_of(&self, _mark: Mark) -> Option<Address> {
        None
    }

    /// Sends one frame to whoever is at an address, neighbour or not. Rare: handshakes, answers.
    /// What cannot go is counted as lost.
    fn send_to(&mut self, _to: Address, _frame: Frame) {
        self.tally().count_loss(Loss::NoNeighbour, 1);
    }

    /// Sends a probe of the path's width: as [`send_to`](Self::send_to), but one that is too long for
    /// the path counts as [`Loss::PathProbe`].
    fn send_probe(&mut self, to: Address, probe: Frame) {
        self.send_to(to, probe);
    }

    /// A frame of the last `rx_burst` was authenticated: its neighbour is sent to from the address of
    /// ours that this frame came to. Until the first such frame a port goes by what it heard last.
    fn authenticated(&mut self, _frame: &Frame) {}

    /// The errno of the last send to an address, if the kernel refused it and took none since:
    /// `EHOSTUNREACH`, `ENETUNREACH`, `EPERM`, `EINVAL`. Known for neighbours, and for the last few
    /// addresses that [`send_to`](Self::send_to) failed for. For people, who want to know why a link is
    /// down; no decision of the data path rests on it.
    fn last_send_error(&self, _to: Address) -> Option<i32> {
        None
    }

    /// Called before the worker blocks: says what would wake it.
    fn arm(&mut self) -> Arm;

    /// The descriptor that [`arm`](Self::arm) gave is readable: called before `disarm`. A port that
    /// looks only now and then at what costs a system call looks at once in its next `rx_burst`.
    fn on_readable(&mut self) {}

    /// Called after the worker has woken up, whatever woke it.
    fn disarm(&mut self) {}

    /// The longest frame in bytes that can go out here.
    fn frame_bytes_max(&self) -> usize;

    /// Chunks that the port must be able to have from its worker's pool, to go on receiving at its
    /// usual rate: a worker keeps so many for it, whatever memory others hold.
    fn receive_chunks(&self) -> Chunks {
        Chunks::default()
    }

    /// The port's counters, to be kept by whoever shows them.
    fn tally(&self) -> &Arc<PortTally>;

    /// What it is, in a few words for people: `udp 127.0.0.1:7000 (io_uring)`.
    fn describe(&self) -> &str;

    /// Says why a frame that this port delivered last went no further; only a capture listens.
    fn note_discard(&mut self, _frame: &Frame, _reason: &'static str) {}
}

impl std::fmt::Debug for dyn Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Port").field(&self.describe()).finish()
    }
}

/// The methods in which a [`Port`] that wraps another only asks that one: who is behind it, what it is
/// and what it counts. `delegate_port!(self, self.inner)`, among the others of its `impl`.
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

/// A port behind a pointer is a port, so that wrappers take either.
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
