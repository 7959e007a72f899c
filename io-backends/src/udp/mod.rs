//! UDP ports: any number of neighbours on one socket.
//!
//! The kernel joins received datagrams into trains (`UDP_GRO`) and splits sent trains into
//! datagrams (`UDP_SEGMENT`). The port does not copy payload.
//!
//! | module | contents |
//! |---|---|
//! | `port` | the port, which combines the parts below |
//! | `uring`, `mmsg` | receive with io_uring, or with recvmmsg |
//! | `rx_queue` | cuts received trains into frames, and finds the neighbour of each |
//! | `send`, `queue` | send with sendmmsg |
//! | `send_sockets` | selects the send socket, so that one neighbour does not block others |
//! | `sources` | the local address to which each sender sent, on a wildcard socket |
//! | `neighbours`, `name` | the neighbours of the socket; socket addresses in the kernel's form |
//! | `steer` | makes the kernel steer handshakes to a separate socket |
//! | `control` | control messages of datagrams |
//! | `select_mode` | tests what the machine supports, and describes the result |
//! | `socket`, `limits` | system calls; the limits and their reasons |
//!
//! ```no_run
//! use strowger_frame::{Address, Burst, Mark, Pool, PoolSpec, Port};
//! use strowger_io::udp::{UdpSpec, open};
//!
//! let opened = open(&UdpSpec::new("127.0.0.1:7000".parse()?), 0)?;
//! println!("{}", opened.report);
//! let mut port = opened.port;
//! port.admit(Mark(0), Address::Udp("127.0.0.1:7001".parse()?))?;
//!
//! let mut pool = Pool::new(&PoolSpec { trains: 128, singles: 0, huge_pages: true })?;
//! let mut burst = Burst::new();
//! port.rx_burst(&mut pool, &mut burst);
//! port.tx_burst(Mark(0), &mut burst);
//! port.flush();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod control;
pub mod limits;
mod mmsg;
mod name;
mod neighbours;
mod port;
mod queue;
mod rx_queue;
mod select_mode;
mod send;
mod send_sockets;

mod socket;
mod sources;
mod steer;
mod uring;

use std::{fmt, net::SocketAddr};

pub use port::UdpPort;
pub use select_mode::{Backend, BufferBytes, UdpCapabilities, UdpReport, probe};
pub use steer::{Steered, open_steered, worker_of};

use self::{mmsg::Mmsg, neighbours::Neighbours, socket::Socket, uring::Uring};
use crate::sys::{
    CallError, Errno, Refusal,
    messages::{self, ALLOW_CALLS, Calls},
};

/// The backend to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// recvmmsg, which was as fast as io_uring or faster when measured. The report states whether
    /// io_uring would work.
    #[default]
    Auto,
    /// io_uring, or an error if it does not work.
    IoUring,
    /// recvmmsg, without trying io_uring.
    Mmsg,
}

/// Settings of a UDP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpSpec {
    /// The local address. With port number 0 the kernel chooses a port, which the report contains.
    pub bind: SocketAddr,
    /// The backend that receives.
    pub backend: BackendChoice,
    /// Whether a socket at `[::]` also receives IPv4. Its IPv4 neighbours then have plain IPv4
    /// addresses.
    pub dual_stack: bool,
    /// Requested size of the receive buffer and of the send buffer, in bytes.
    pub socket_buffer_bytes: usize,
    /// Maximum number of neighbours. The index of a mark is below this.
    pub neighbours_max: u32,
    /// Whether other sockets of this user may bind to the same address, one per worker
    /// (`SO_REUSEPORT`).
    ///
    /// The kernel then distributes flows among these sockets.
    pub reuse_port: bool,
    /// Whether to receive trains (`UDP_GRO`).
    pub gro: bool,
    /// Whether to send trains (`UDP_SEGMENT`).
    pub gso: bool,
    /// Number of receive buffers that io_uring has posted, rounded up to a power of two. Each is a
    /// train chunk.
    ///
    /// A small number of buffers stays in the cache. With too few, the multishot receive ends more
    /// often and must be armed again.
    pub posted_buffers: u16,
    /// Maximum length of a datagram that recvmmsg receives without GRO.
    ///
    /// Longer datagrams count as `truncated`. With io_uring or GRO, any datagram fits.
    pub frame_bytes_max: usize,
    /// Simulates a kernel that refuses io_uring, for tests.
    #[doc(hidden)]
    pub ring_errno_forced: Option<i32>,
    /// Simulates a kernel that refuses steering, for tests and measurements.
    #[doc(hidden)]
    pub steering_refused: bool,
    /// Index of the first set of io_uring flags to try. With it, tests cover the sets that older
    /// kernels support.
    #[doc(hidden)]
    pub ring_mode_first: usize,
}

impl UdpSpec {
    /// A port bound to `bind`, with default settings.
    pub fn new(bind: SocketAddr) -> Self {
        Self {
            bind,
            backend: BackendChoice::Auto,
            // This buffer holds a tenth of a second at 300 Mbit/s. The size is the default limit
            // since Linux 6.18. With a smaller one, the kernel may drop bursts of trains before a
            // worker wakes.
            socket_buffer_bytes: 4 << 20,
            neighbours_max: 1024,
            dual_stack: true,
            reuse_port: false,
            gro: true,
            gso: true,
            posted_buffers: limits::POSTED_BUFFERS,
            frame_bytes_max: limits::DATAGRAM_BYTES_MAX,
            ring_errno_forced: None,
            steering_refused: false,
            ring_mode_first: 0,
        }
    }
}

impl UdpSpec {
    /// Whether the socket receives both IPv6 and IPv4.
    pub(super) fn is_dual(&self) -> bool {
        self.dual_stack && self.bind.is_ipv6() && self.bind.ip().is_unspecified()
    }

    /// Maximum number of train chunks that a port with these settings holds for receiving,
    /// including one burst.
    ///
    /// Frames that wait to be sent are not included. The pool limits those.
    pub fn train_chunks_max(&self) -> u32 {
        let posted = match self.backend {
            BackendChoice::Auto | BackendChoice::Mmsg => 0,
            BackendChoice::IoUring => u32::from(uring::entries(self.posted_buffers)),
        };
        // A port whose ring has failed receives with recvmmsg, and keeps the chunks of both.
        posted + limits::MESSAGES_IN_MAX as u32 + strowger_frame::BURST_MAX as u32
    }
}

/// Why a UDP port cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UdpOpenError {
    /// Another socket is bound to this address (`EADDRINUSE`).
    Busy {
        /// The requested address.
        at: SocketAddr,
    },
    /// This machine does not have the address (`EADDRNOTAVAIL`).
    NotLocal {
        /// The requested address.
        at: SocketAddr,
    },
    /// A system call failed.
    Call {
        /// The requested address.
        at: SocketAddr,
        /// The call and the kernel's error.
        error: CallError,
    },
    /// A sandbox refuses all calls that send or receive messages.
    CallsRefused {
        /// The requested address.
        at: SocketAddr,
        /// The call for one message, and the error with which it was refused.
        error: CallError,
    },
    /// The spec requires io_uring, which does not work here.
    NoRing(Refusal),
}

impl fmt::Display for UdpOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { at } => write!(
                f,
                "udp {at} is in use by another socket: {}; stop that process or choose another \
                 port",
                Errno(libc::EADDRINUSE)
            ),
            Self::NotLocal { at } => write!(
                f,
                "udp {at}: this machine does not have the address: {}; `ip address` lists its addresses",
                Errno(libc::EADDRNOTAVAIL)
            ),
            Self::Call { at, error } => write!(f, "udp {at}: {error}"),
            Self::CallsRefused { at, error } => write!(f, "udp {at}: {error}; {ALLOW_CALLS}"),
            Self::NoRing(refusal) => {
                write!(f, "io_uring does not work here: {refusal}; backend `auto` uses recvmmsg")
            }
        }
    }
}

impl std::error::Error for UdpOpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Call { error, .. } | Self::CallsRefused { error, .. } => Some(error),
            Self::NoRing(refusal) => Some(refusal),
            Self::Busy { .. } | Self::NotLocal { .. } => None,
        }
    }
}

/// An open port and its report.
#[derive(Debug)]
pub struct OpenedUdpPort {
    /// The port, for one worker.
    pub port: UdpPort,
    /// The selected mode, and the reasons why no better mode was possible.
    pub report: UdpReport,
}

impl OpenedUdpPort {
    /// The local address.
    pub fn local_addr(&self) -> SocketAddr {
        self.report.local
    }

    /// Returns the port as a trait object, and its report.
    pub fn boxed(self) -> (Box<dyn strowger_frame::Port>, UdpReport) {
        (Box::new(self.port), self.report)
    }
}

/// Opens a socket for the given worker.
///
/// Any thread may open the port. The worker's thread must be the first one that receives with it.
///
/// # Errors
/// [`UdpOpenError`], with a remedy for the operator where one is known.
pub fn open(spec: &UdpSpec, worker: usize) -> Result<OpenedUdpPort, UdpOpenError> {
    if spec.reuse_port {
        // A port with `reuse_port` has no further send sockets, because the kernel would give each
        // of them a share of the received traffic.
        let mut opened = open_with(spec, worker, |_| ())?;
        let why = "with reuse_port the kernel spreads flows over all sockets of the address";
        opened.report.send_sockets_refused = Some(Refusal::new(why, ""));
        return Ok(opened);
    }
    steer::try_alone(spec)?;
    let mut steers = Ok(());
    let mut opened = open_with(spec, worker, |socket| {
        let shared = socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
        steers = shared.and_then(|()| socket.attach_to_group(&steer::first_alone()));
        if steers.is_err() {
            // Without the program, other sockets at the address would receive part of the traffic.
            // An error is ignored, because the port works without this setting.
            let _ = socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 0);
        }
    })?;
    let steers = steers.map_err(steer::refused);
    steer::open_send_sockets(&mut opened, spec, steers, limits::SEND_SOCKETS);
    Ok(opened)
}

fn bind_refused(at: SocketAddr, errno: i32) -> UdpOpenError {
    match errno {
        libc::EADDRINUSE => UdpOpenError::Busy { at },
        libc::EADDRNOTAVAIL => UdpOpenError::NotLocal { at },
        _ => UdpOpenError::Call { at, error: CallError::new("bind", errno) },
    }
}

/// Opens a port without further send sockets, and calls `before_bind` with its socket before
/// binding it.
fn open_with(
    spec: &UdpSpec,
    worker: usize,
    mut before_bind: impl FnMut(&Socket),
) -> Result<OpenedUdpPort, UdpOpenError> {
    let at = spec.bind;
    let refused = |call| move |errno| UdpOpenError::Call { at, error: CallError::new(call, errno) };
    // The calls are tested first, because a port that opens but cannot receive would be worse than
    // an error.
    Calls::find().map_err(|error| UdpOpenError::CallsRefused { at, error })?;
    let dual = spec.is_dual();
    let socket = Socket::with(at, dual).map_err(refused("socket"))?;
    let reports_source = ask_own_address(&socket, at).map_err(refused("IP_PKTINFO"))?;
    if spec.reuse_port {
        socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).map_err(refused("SO_REUSEPORT"))?;
    }
    never_fragment(&socket, at).map_err(refused("IP_MTU_DISCOVER"))?;
    // Buffers and options are set before `bind`, because they do not apply to datagrams that have
    // already arrived.
    let receive_buffer = select_mode::receive_buffer(&socket, spec.socket_buffer_bytes);
    let send_buffer = select_mode::send_buffer(&socket, spec.socket_buffer_bytes);
    let drops_counted = select_mode::count_drops(&socket);
    let unwanted = || Refusal::new("switched off in the settings of the port", "");
    let gro = if spec.gro { select_mode::enable_gro(&socket) } else { Err(unwanted()) };
    let gso = if spec.gso { select_mode::try_segments(at) } else { Err(unwanted()) };
    let (ring, refused_backends) = ring(spec)?;
    let passed_over = spec.backend == BackendChoice::Auto && refused_backends.is_empty();

    before_bind(&socket);
    socket.bind(at).map_err(|errno| bind_refused(at, errno))?;
    let local = socket.local().map_err(refused("getsockname"))?;
    let report = UdpReport {
        local,
        worker,
        backend: if ring.is_some() { Backend::IoUring } else { Backend::Mmsg },
        ring: ring.as_ref().map(|ring| ring.mode().name()),
        refused: refused_backends,
        passed_over,
        gro,
        gso,
        receive_buffer,
        send_buffer,
        drops_counted,
        many: messages::many(),
        dual_stack: dual,
        send_sockets: 1,
        send_sockets_refused: None,
    };
    let described = [Backend::IoUring, Backend::Mmsg]
        .map(|backend| format!("udp {local} ({})", backend.name()));
    let mmsg = Mmsg::new(report.gro.is_ok(), spec.frame_bytes_max);
    let neighbours = Neighbours::new(spec.neighbours_max, local);
    let segments_max = report.gso.as_ref().map_or(1, |segments| *segments);
    let mut port = UdpPort::new(socket, ring, mmsg, neighbours, segments_max, described);
    if reports_source {
        port.keep_sources();
    }
    if dual {
        port.set_dual();
    }
    Ok(OpenedUdpPort { port, report })
}

/// Makes the ring, if the spec requires one, after a self-test. For `Auto` it makes no ring, and
/// returns the reason if the self-test failed.
#[allow(clippy::type_complexity)] // two halves of one result, which the caller takes apart
fn ring(spec: &UdpSpec) -> Result<(Option<Uring>, Vec<(Backend, Refusal)>), UdpOpenError> {
    if spec.backend == BackendChoice::Mmsg {
        return Ok((None, Vec::new()));
    }
    let self_tested = match spec.ring_errno_forced {
        Some(errno) => Err(select_mode::ring_refused(CallError::new("io_uring_setup", errno))),
        None => select_mode::self_test_ring(spec.bind, spec.ring_mode_first),
    };
    if spec.backend == BackendChoice::Auto {
        // Decision 0011 contains the measurements: io_uring is about as fast as recvmmsg with
        // trains, and slower without trains.
        return Ok((
            None,
            self_tested.err().map(|why| (Backend::IoUring, why)).into_iter().collect(),
        ));
    }
    let ring = self_tested.and_then(|_| {
        Uring::new(spec.posted_buffers, spec.ring_mode_first).map_err(select_mode::ring_refused)
    });
    ring.map(|ring| (Some(ring), Vec::new())).map_err(UdpOpenError::NoRing)
}

/// Forbids fragmentation: the kernel refuses datagrams that are longer than the MTU of the
/// interface, and sets the DF bit in IPv4.
///
/// `PROBE` also ignores ICMP messages about the path MTU, which an attacker can forge.
fn never_fragment(socket: &Socket, at: SocketAddr) -> Result<(), i32> {
    if at.is_ipv4() {
        socket.set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    } else {
        socket.set(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
        // This option applies to the IPv4 traffic of a dual-stack socket. An IPv6-only socket sends
        // no IPv4.
        socket.set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    }
}

/// On a wildcard socket, makes the kernel report the local address of each datagram.
fn ask_own_address(socket: &Socket, at: SocketAddr) -> Result<bool, i32> {
    if !at.ip().is_unspecified() {
        return Ok(false);
    }
    match at {
        SocketAddr::V4(_) => socket.set(libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        SocketAddr::V6(_) => socket.set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
    }
    .map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// wire.md: W8-10.
    #[test]
    fn ports_do_not_fragment_and_ignore_the_path_mtu_of_icmp() {
        let wanted = [
            ("127.0.0.1:0", libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
            ("[::1]:0", libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
        ];
        for (at, level, option, probe) in wanted {
            let at = at.parse().unwrap();
            let socket = match Socket::new(at) {
                Err(libc::EAFNOSUPPORT) => {
                    strowger_testkit::skip_case(
                        &at.to_string(),
                        "the kernel has no such addresses",
                    );
                    continue;
                }
                socket => socket.unwrap(),
            };
            never_fragment(&socket, at).unwrap();
            assert_eq!(socket.read(level, option), Ok(probe), "{at}");
        }
    }
}
