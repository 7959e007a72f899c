//! Tests what this machine supports for UDP (backend, GRO, GSO, buffer sizes), and describes the
//! result. It does not rely on kernel versions. An option that can be set does not necessarily
//! work, so most options are tested with datagrams over loopback.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use strowger_frame::{Burst, Mark, Pool, PoolSpec, port::PortTally};

use super::{
    control::{CONTROL_MESSAGE_BYTES, segment_message},
    limits::{SEGMENTS_SAFE, SEGMENTS_TRIED},
    name::Name,
    neighbours::Neighbours,
    rx_queue::RxQueue,
    socket::{Socket, receive_messages, send_messages},
    steer::self_test as self_test_steering,
    uring::{RingMode, Uring},
};
use crate::sys::{
    CallError, Errno, Refusal,
    messages::{self, empty_header},
};

/// Time after which a datagram over loopback counts as lost.
pub(super) const SELF_TEST_MAX: Duration = Duration::from_secs(1);

/// The backend that receives. Both backends send with sendmmsg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Multishot `recvmsg` of io_uring, with provided buffers.
    IoUring,
    /// `recvmmsg`.
    Mmsg,
}

impl Backend {
    /// The backend's name in counters and JSON: `io_uring` or `mmsg`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Mmsg => "mmsg",
        }
    }
}

/// The requested size of a buffer, and its actual size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferBytes {
    /// The size that the spec requests.
    pub requested: usize,
    /// The size that the kernel reports, without the half that it reserves for bookkeeping.
    pub given: usize,
}

impl BufferBytes {
    /// Whether the kernel gave less than requested.
    pub fn is_short(&self) -> bool {
        self.given < self.requested
    }
}

/// The selected mode of a UDP port, and the reasons why no better mode was possible.
#[derive(Clone, Debug)]
pub struct UdpReport {
    /// The local address, including the port number that the kernel chose if 0 was requested.
    pub local: SocketAddr,
    /// The worker of the port.
    pub worker: usize,
    /// The backend that receives.
    pub backend: Backend,
    /// The flags of the ring. `None` without io_uring.
    pub ring: Option<&'static str>,
    /// Better backends that do not work here, and the reasons.
    pub refused: Vec<(Backend, Refusal)>,
    /// Whether io_uring works but is not used, because recvmmsg was as fast or faster when
    /// measured.
    pub passed_over: bool,
    /// Whether the kernel joins received datagrams into trains (`UDP_GRO`).
    pub gro: Result<(), Refusal>,
    /// Maximum number of frames in one send (`UDP_SEGMENT`).
    pub gso: Result<usize, Refusal>,
    /// Receive buffer of the socket.
    pub receive_buffer: BufferBytes,
    /// Send buffer of the socket.
    pub send_buffer: BufferBytes,
    /// Whether the kernel reports how many datagrams it dropped (`SO_RXQ_OVFL`).
    pub drops_counted: Result<(), Refusal>,
    /// Whether one system call sends or receives many messages (`recvmmsg`, `sendmmsg`).
    pub many: Result<(), Refusal>,
    /// Whether the socket receives both IPv4 and IPv6.
    pub dual_stack: bool,
    /// Number of send sockets, each with its own send buffer.
    ///
    /// With several, frames that are stuck in this machine do not fill the send buffer that other
    /// neighbours use.
    pub send_sockets: usize,
    /// The reason why the port has fewer send sockets than it should have, or why it has only one
    /// with `reuse_port`; `None` if it has all.
    pub send_sockets_refused: Option<Refusal>,
}

impl UdpReport {
    /// One sentence for each feature that does not work or is limited.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (backend, refusal) in &self.refused {
            let (backend, with) = (backend.name(), self.backend.call());
            warnings.push(format!("{backend} does not work here: {refusal}; using {with}"));
        }
        if let Err(refusal) = &self.many {
            warnings.push(format!("one system call for each datagram instead of many: {refusal}"));
        }
        if let Err(refusal) = &self.gro {
            warnings.push(format!("received datagrams are not joined into trains: {refusal}"));
        }
        if let Err(refusal) = &self.gso {
            warnings.push(format!("frames are sent one by one instead of as trains: {refusal}"));
        }
        for (what, bytes, sysctl) in [
            ("receive", self.receive_buffer, "net.core.rmem_max"),
            ("send", self.send_buffer, "net.core.wmem_max"),
        ] {
            if bytes.is_short() {
                let BufferBytes { requested, given } = bytes;
                warnings.push(format!(
                    "the {what} buffer has {given} bytes instead of {requested}; raise the limit with: \
                     sysctl -w {sysctl}={requested}"
                ));
            }
        }
        if let Some(refusal) = &self.send_sockets_refused {
            let sockets = self.send_sockets;
            warnings.push(format!(
                "only {sockets} send sockets, so a next hop that does not answer can fill the send buffer \
                 of other neighbours: {refusal}"
            ));
        }
        if let Err(refusal) = &self.drops_counted {
            warnings.push(format!("datagrams that the kernel drops are not counted: {refusal}"));
        }
        warnings
    }
}

impl Backend {
    fn call(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Mmsg => "recvmmsg",
        }
    }
}

impl fmt::Display for UdpReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = if self.dual_stack { " (IPv6 and IPv4)" } else { "" };
        write!(f, "udp {}{both} by {}", self.local, self.backend.call())?;
        if let Some(ring) = self.ring {
            write!(f, " ({ring})")?;
        }
        f.write_str(if self.gro.is_ok() { ", GRO on" } else { ", GRO off" })?;
        match &self.gso {
            Ok(segments) => write!(f, ", GSO of {segments} frames")?,
            Err(_) => f.write_str(", GSO off")?,
        }
        let (receive, send) = (self.receive_buffer.given, self.send_buffer.given);
        write!(f, ", buffers {receive} in and {send} out")?;
        if self.passed_over {
            f.write_str(
                "\n  io_uring works here but is not used: recvmmsg was measured as fast with trains, \
                 and faster without",
            )?;
        }
        for warning in self.warnings() {
            write!(f, "\n  {warning}")?;
        }
        Ok(())
    }
}

/// The results of testing each feature on loopback sockets, for `strowger doctor`.
#[derive(Clone, Debug)]
pub struct UdpCapabilities {
    /// Sending and receiving a datagram with the calls that ports use.
    pub datagrams: Result<String, Refusal>,
    /// Sending and receiving many messages in one system call.
    pub many: Result<String, Refusal>,
    /// Receiving a datagram with io_uring. The result is the flags of the ring.
    pub io_uring: Result<String, Refusal>,
    /// Receives a train as one message.
    pub gro: Result<String, Refusal>,
    /// Sends a train as one message.
    pub gso: Result<String, Refusal>,
    /// Sets socket buffers of the requested size.
    pub buffers: Result<String, Refusal>,
    /// Steers handshakes to a separate socket.
    pub steering: Result<String, Refusal>,
}

impl UdpCapabilities {
    /// All results, each with its name.
    pub fn each(&self) -> [(&'static str, &Result<String, Refusal>); 7] {
        [
            ("udp", &self.datagrams),
            ("udp_mmsg", &self.many),
            ("io_uring", &self.io_uring),
            ("udp_gro", &self.gro),
            ("udp_gso", &self.gso),
            ("socket_buffers", &self.buffers),
            ("udp_steering", &self.steering),
        ]
    }
}

/// Tries every feature that a UDP port may use. `buffer_bytes` is the size to request for each
/// socket buffer.
pub fn probe(buffer_bytes: usize) -> UdpCapabilities {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    UdpCapabilities {
        datagrams: try_datagram(local),
        many: messages::many().map(|()| "many datagrams in one system call".to_owned()),
        io_uring: self_test_ring(local, 0).map(|mode| {
            let mode = mode.name();
            format!("multishot receive into provided buffers works ({mode})")
        }),
        gro: try_gro(local),
        gso: try_segments(local).map(|most| format!("{most} frames a send")),
        buffers: try_buffers(local, buffer_bytes),
        steering: self_test_steering(local)
            .map(|()| "the kernel steers handshakes to a socket of their own".to_owned()),
    }
}

/// The loopback address of the same family, with port 0, so that the kernel chooses the port.
pub(super) fn loopback(like: SocketAddr) -> SocketAddr {
    if like.is_ipv4() { (Ipv4Addr::LOCALHOST, 0).into() } else { (Ipv6Addr::LOCALHOST, 0).into() }
}

/// Makes a socket on loopback for a test.
fn scratch(like: SocketAddr) -> Result<(Socket, SocketAddr), Refusal> {
    let refused = |step: &'static str| {
        move |errno| CallError::new(step, errno).with_remedy("set the loopback interface up")
    };
    let at = loopback(like);
    let socket = Socket::new(at).map_err(refused("socket"))?;
    socket.bind(at).map_err(refused("bind to loopback"))?;
    let local = socket.local().map_err(refused("getsockname"))?;
    Ok((socket, local))
}

/// Sends `bytes` to `to`. If `segment` is given, they are split into segments of this length.
pub(super) fn send(
    socket: &Socket,
    to: SocketAddr,
    bytes: &[u8],
    segment: Option<u16>,
) -> Result<(), i32> {
    let name = Name::of(to);
    let mut vector =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = segment_message(segment.unwrap_or_default());
    let mut header = empty_header();
    header.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
    header.msg_hdr.msg_namelen = name.len() as libc::socklen_t;
    header.msg_hdr.msg_iov = &mut vector;
    header.msg_hdr.msg_iovlen = 1;
    if segment.is_some() {
        header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = CONTROL_MESSAGE_BYTES as _;
    }
    // SAFETY: name, vector, bytes and control message outlive the call and have these lengths.
    unsafe { send_messages(socket, std::slice::from_mut(&mut header)) }.map(drop)
}

/// Sends and receives a datagram as a port does.
fn try_datagram(like: SocketAddr) -> Result<String, Refusal> {
    let (receiver, to) = scratch(like)?;
    let (sender, _) = scratch(like)?;
    let sandbox = "perhaps a sandbox's seccomp profile, or a firewall on loopback";
    let refused = |step| move |errno| CallError::new(step, errno).with_remedy(sandbox);
    send(&sender, to, b"strowger", None).map_err(refused("sending a datagram over loopback"))?;
    if !receiver.wait_readable(SELF_TEST_MAX.as_millis() as i32) {
        return Err(refused("a datagram over loopback")(libc::ETIMEDOUT));
    }
    let mut header = empty_header();
    // SAFETY: the header points to nothing, with length 0; the datagram is cut off.
    let received = unsafe { receive_messages(&receiver, std::slice::from_mut(&mut header)) };
    received.map_err(refused("receiving a datagram over loopback"))?;
    Ok("a datagram went over loopback".to_owned())
}

/// Receives one datagram over loopback with io_uring, on a ring like that of a port.
pub(super) fn self_test_ring(like: SocketAddr, first_mode: usize) -> Result<RingMode, Refusal> {
    let (socket, local) = scratch(like)?;
    let mut ring = Uring::new(2, first_mode).map_err(ring_refused)?;
    let spec = PoolSpec { trains: 4, singles: 0, huge_pages: false };
    let mut pool =
        Pool::new(&spec).map_err(|error| CallError { call: "memory", errno: Errno::of(&error) })?;
    let mut neighbours = Neighbours::new(1, local);
    let mut rx_queue = RxQueue::new(std::sync::Arc::new(PortTally::default()));
    if neighbours.admit(Mark(0), local).is_err() {
        return Err(ring_refused(CallError::new("admitting ourselves", libc::EINVAL)));
    }
    let mut burst = Burst::new();
    let deadline = Instant::now() + SELF_TEST_MAX;
    // The receive is armed before the datagram is sent, so that the kernel must complete a receive
    // that already waits.
    let mut sent = false;
    while burst.is_empty() {
        if !ring.rx_burst(&socket, &mut neighbours, &mut rx_queue, &mut pool, &mut burst) {
            return Err(ring_refused(CallError::new("io_uring_enter", libc::EINVAL)));
        }
        if !sent {
            send(&socket, local, b"strowger", None)
                .map_err(|errno| ring_refused(CallError::new("a datagram over loopback", errno)))?;
            sent = true;
        }
        if Instant::now() > deadline {
            return Err(ring_refused(CallError::new("a multishot receive", libc::ETIMEDOUT)));
        }
    }
    if burst[0].bytes() == b"strowger" {
        Ok(ring.mode())
    } else {
        Err(ring_refused(CallError::new("a multishot receive returned other bytes", libc::EIO)))
    }
}

/// Adds the remedy: how to allow io_uring.
pub(super) fn ring_refused(error: CallError) -> Refusal {
    error.with_remedy(match error.errno.0 {
        libc::EPERM | libc::EACCES => {
            "perhaps a container's seccomp profile, or sysctl kernel.io_uring_disabled"
        }
        libc::ENOSYS => "io_uring with multishot recvmsg needs Linux 6.0",
        libc::EINVAL => "this kernel is too old: multishot recvmsg needs Linux 6.0",
        libc::ENOMEM => "raise the limit of locked memory: ulimit -l",
        libc::EMFILE | libc::ENFILE => "raise the limit of open files: ulimit -n",
        _ => "",
    })
}

/// Returns the largest number of segments that the kernel accepts in one send, of those tried over
/// loopback.
pub(super) fn try_segments(like: SocketAddr) -> Result<usize, Refusal> {
    const OLD: &str = "UDP_SEGMENT needs Linux 4.18";
    let Ok((receiver, to)) = scratch(like) else {
        // Without loopback, this returns the number that every kernel with the option accepts.
        let socket = Socket::new(like).map_err(|errno| CallError::new("socket", errno))?;
        let set = socket.set(libc::SOL_UDP, libc::UDP_SEGMENT, 0);
        return set
            .map(|()| SEGMENTS_SAFE)
            .map_err(|errno| CallError::new("UDP_SEGMENT", errno).with_remedy(OLD));
    };
    let (sender, _) = scratch(like)?;
    let bytes = [0; 8 * SEGMENTS_TRIED[0]];
    let mut refused = libc::EINVAL;
    for segments in SEGMENTS_TRIED {
        match send(&sender, to, &bytes[..8 * segments], Some(8)) {
            Ok(()) => return Ok(segments),
            Err(errno) => refused = errno,
        }
    }
    drop(receiver);
    Err(CallError::new("UDP_SEGMENT", refused).with_remedy(OLD))
}

/// Sends a train to a socket with `UDP_GRO`, and tests whether it arrives as one message.
fn try_gro(like: SocketAddr) -> Result<String, Refusal> {
    let (receiver, to) = scratch(like)?;
    let (sender, _) = scratch(like)?;
    enable_gro(&receiver)?;
    let sent = send(&sender, to, &[7; 100], Some(10));
    sent.map_err(|errno| CallError::new("sending a train over loopback", errno))?;
    if !receiver.wait_readable(SELF_TEST_MAX.as_millis() as i32) {
        return Err(CallError::new("a train over loopback", libc::ETIMEDOUT).into());
    }
    match receiver.take_one() {
        Ok(100) => Ok("a train of 10 frames arrived as one message".to_owned()),
        Err(errno) => Err(CallError::new("receiving a train", errno).into()),
        Ok(_) => Ok("UDP_GRO can be set, but loopback does not join frames".to_owned()),
    }
}

pub(super) fn enable_gro(socket: &Socket) -> Result<(), Refusal> {
    socket
        .set(libc::SOL_UDP, libc::UDP_GRO, 1)
        .map_err(|errno| CallError::new("UDP_GRO", errno).with_remedy("UDP_GRO needs Linux 5.0"))
}

fn try_buffers(like: SocketAddr, requested: usize) -> Result<String, Refusal> {
    let (socket, _) = scratch(like)?;
    for (buffer, sysctl) in [
        (receive_buffer(&socket, requested), "net.core.rmem_max"),
        (send_buffer(&socket, requested), "net.core.wmem_max"),
    ] {
        if buffer.is_short() {
            return Err(Refusal::new(
                format!("the kernel gave {} of {requested} bytes", buffer.given),
                format!("raise the limit with: sysctl -w {sysctl}={requested}"),
            ));
        }
    }
    Ok(format!("{requested} bytes in each direction"))
}

/// Sets the receive buffer. With `CAP_NET_ADMIN` it may exceed `net.core.rmem_max`.
pub(super) fn receive_buffer(socket: &Socket, requested: usize) -> BufferBytes {
    buffer(socket, requested, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)
}

/// Sets the send buffer. With `CAP_NET_ADMIN` it may exceed `net.core.wmem_max`.
pub(super) fn send_buffer(socket: &Socket, requested: usize) -> BufferBytes {
    buffer(socket, requested, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)
}

fn buffer(socket: &Socket, requested: usize, force: i32, plain: i32) -> BufferBytes {
    // The kernel doubles the value, so at most half of the maximum can be requested.
    let wanted = requested.min(i32::MAX as usize / 2) as i32;
    if socket.set(libc::SOL_SOCKET, force, wanted).is_err() {
        // An error is ignored, because the size that is read back shows whether the call worked.
        let _ = socket.set(libc::SOL_SOCKET, plain, wanted);
    }
    let given = socket.read(libc::SOL_SOCKET, plain).unwrap_or_default() / 2;
    BufferBytes { requested, given: usize::try_from(given).unwrap_or_default() }
}

pub(super) fn count_drops(socket: &Socket) -> Result<(), Refusal> {
    socket
        .set(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)
        .map_err(|errno| CallError::new("SO_RXQ_OVFL", errno).into())
}
