//! UDP: any number of neighbours behind one socket. Trains come in as the kernel joins them
//! (`UDP_GRO`) and go out as it cuts them (`UDP_SEGMENT`); payload is never copied here.
//!
//! | room | what it holds |
//! |---|---|
//! | `port` | the port itself: which half does what |
//! | `uring`, `mmsg` | receiving with io_uring, and with recvmmsg where that is refused |
//! | `rx_queue` | what both do with a datagram once they have it |
//! | `send`, `queue` | sending, for both: sendmmsg |
//! | `send_sockets` | by which socket each neighbour is sent to, so that none fills a send buffer for others |
//! | `sources` | which address of ours each sender asked, where the socket has them all |
//! | `neighbours`, `name` | who is behind the socket; addresses as the kernel writes them |
//! | `steer` | handshakes to a socket of their own, by the kernel |
//! | `control` | what the kernel says beside a datagram |
//! | `select_mode` | what the machine allows, found by trying and said in words |
//! | `socket`, `limits` | system calls; every bound and its reason |
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
pub use select_mode::{Backend, BufferBytes, Capabilities, UdpReport, probe};
pub use steer::{Steered, open_steered, worker_of};

use self::{mmsg::Mmsg, neighbours::Neighbours, socket::Socket, uring::Uring};
use crate::sys::{
    CallError, Errno, Refusal,
    messages::{self, ALLOW_CALLS, Calls},
};

/// Which backend is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one that was measured to forward most: recvmmsg. What becomes of io_uring here is
    /// found out and said all the same.
    #[default]
    Auto,
    /// io_uring, or an error.
    IoUring,
    /// recvmmsg, without trying anything better.
    Mmsg,
}

/// How a UDP port is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpSpec {
    /// Where to bind; port 0 takes one of the kernel's choice, which the report tells.
    pub bind: SocketAddr,
    /// How to receive.
    pub backend: Choice,
    /// Whether a socket at `[::]` takes IPv4 as well. Its neighbours' IPv4 addresses are plain ones.
    pub dual_stack: bool,
    /// Bytes of the socket's receive and send buffers, each.
    pub socket_buffer_bytes: usize,
    /// Neighbours at most; marks have an index below this.
    pub neighbours_max: u32,
    /// Whether other sockets of this user may bind the same address, one a worker; the kernel
    /// then spreads flows over them.
    pub reuse_port: bool,
    /// Whether to receive trains (`UDP_GRO`).
    pub gro: bool,
    /// Whether to send trains (`UDP_SEGMENT`).
    pub gso: bool,
    /// Receive buffers that an io_uring has posted: rounded up to a power of two, a train chunk
    /// each. Fewer stay in the cache; too few, and the receive must be armed anew more often.
    pub posted_buffers: u16,
    /// The longest datagram to make room for where the kernel does not join trains; longer ones
    /// are then lost as `truncated`. Where it does, there is room for any.
    pub frame_bytes_max: usize,
    /// Stands in for the kernel's refusal of io_uring: for tests of what is said then.
    #[doc(hidden)]
    pub ring_errno_forced: Option<i32>,
    /// Stands in for the kernel's refusal to steer: for tests, and for measuring without.
    #[doc(hidden)]
    pub steering_refused: bool,
    /// The first of io_uring's sets of flags to try: for tests of those that older kernels take.
    #[doc(hidden)]
    pub ring_mode_first: usize,
}

impl UdpSpec {
    /// A port bound to `bind`, all else as it serves most.
    pub fn new(bind: SocketAddr) -> Self {
        Self {
            bind,
            backend: Choice::Auto,
            // A tenth of a second of 300 Mbit/s, and what Linux allows at most in many an
            // installation; less and bursts of trains are dropped before a worker has woken up.
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
    /// Whether the socket is for IPv6 and IPv4.
    pub fn is_dual(&self) -> bool {
        self.dual_stack && self.bind.is_ipv6() && self.bind.ip().is_unspecified()
    }

    /// Train chunks that such a port may keep while it receives, a burst on its way included: one
    /// named need of the pool. What waits to be sent comes on top, and is the pool's to bound.
    pub fn train_chunks_max(&self) -> u32 {
        let posted = match self.backend {
            Choice::Auto | Choice::Mmsg => 0,
            Choice::IoUring => u32::from(uring::entries(self.posted_buffers)),
        };
        // A port whose ring has broken receives with recvmmsg, and keeps both.
        posted + limits::MESSAGES_IN_MAX as u32 + strowger_frame::BURST_MAX as u32
    }
}

/// Why a UDP port cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// Another socket has this address (`EADDRINUSE`).
    Busy {
        /// The address asked for.
        at: SocketAddr,
    },
    /// This machine does not have the address (`EADDRNOTAVAIL`).
    NotLocal {
        /// The address asked for.
        at: SocketAddr,
    },
    /// A system call failed.
    Call {
        /// The address asked for.
        at: SocketAddr,
        /// The call and the kernel's error.
        error: CallError,
    },
    /// A sandbox refuses all calls that send or receive messages.
    CallsRefused {
        /// The address asked for.
        at: SocketAddr,
        /// The call for one message, and how it was refused.
        error: CallError,
    },
    /// The spec demands io_uring, which does not work here.
    NoRing(Refusal),
}

impl fmt::Display for OpenError {
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

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Call { error, .. } | Self::CallsRefused { error, .. } => Some(error),
            Self::NoRing(refusal) => Some(refusal),
            Self::Busy { .. } | Self::NotLocal { .. } => None,
        }
    }
}

/// An open port and what is to be said of it.
#[derive(Debug)]
pub struct Opened {
    /// The port, for one worker.
    pub port: UdpPort,
    /// What was chosen, and why nothing better.
    pub report: UdpReport,
}

impl Opened {
    /// The address it is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.report.local
    }

    /// The port as the engine wants it.
    pub fn boxed(self) -> (Box<dyn strowger_frame::Port>, UdpReport) {
        (Box::new(self.port), self.report)
    }
}

/// Opens a socket as `spec` says, for the given worker. May be called on any thread; the port then
/// belongs to the thread that first receives with it.
///
/// # Errors
/// [`OpenError`], each with the way out.
pub fn open(spec: &UdpSpec, worker: usize) -> Result<Opened, OpenError> {
    if spec.reuse_port {
        // The kernel gives every socket of the address its part, also one that only sends.
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
            // An error here shows when it is bound.
            let _ = socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 0);
        }
    })?;
    let steers = steers.map_err(steer::refused);
    steer::open_send_sockets(&mut opened, spec, steers, limits::SEND_SOCKETS);
    Ok(opened)
}

fn bind_refused(at: SocketAddr, errno: i32) -> OpenError {
    match errno {
        libc::EADDRINUSE => OpenError::Busy { at },
        libc::EADDRNOTAVAIL => OpenError::NotLocal { at },
        _ => OpenError::Call { at, error: CallError::new("bind", errno) },
    }
}

/// As [`open`], with something done to the socket before it is bound.
fn open_with(
    spec: &UdpSpec,
    worker: usize,
    mut before_bind: impl FnMut(&Socket),
) -> Result<Opened, OpenError> {
    let at = spec.bind;
    let refused = |call| move |errno| OpenError::Call { at, error: CallError::new(call, errno) };
    // An open port that cannot receive would be worse than none.
    Calls::find().map_err(|error| OpenError::CallsRefused { at, error })?;
    let dual = spec.is_dual();
    let socket = Socket::with(at, dual).map_err(refused("socket"))?;
    let told = ask_own_address(&socket, at).map_err(refused("IP_PKTINFO"))?;
    if spec.reuse_port {
        socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).map_err(refused("SO_REUSEPORT"))?;
    }
    never_fragment(&socket, at).map_err(refused("IP_MTU_DISCOVER"))?;
    // Buffers and options first: what arrives between `bind` and here would not know of them.
    let receive_buffer = select_mode::receive_buffer(&socket, spec.socket_buffer_bytes);
    let send_buffer = select_mode::send_buffer(&socket, spec.socket_buffer_bytes);
    let drops_counted = select_mode::count_drops(&socket);
    let unwanted = || Refusal::new("switched off in the settings of the port", "");
    let gro = if spec.gro { select_mode::enable_gro(&socket) } else { Err(unwanted()) };
    let gso = if spec.gso { select_mode::try_segments(at) } else { Err(unwanted()) };
    let (ring, refused_backends) = ring(spec)?;
    let passed_over = spec.backend == Choice::Auto && refused_backends.is_empty();

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
    if told {
        port.keep_sources();
    }
    if dual {
        port.set_dual();
    }
    Ok(Opened { port, report })
}

/// A ring that has been seen to receive, or why there is none.
#[allow(clippy::type_complexity)] // the two halves of one answer, taken apart at once
fn ring(spec: &UdpSpec) -> Result<(Option<Uring>, Vec<(Backend, Refusal)>), OpenError> {
    if spec.backend == Choice::Mmsg {
        return Ok((None, Vec::new()));
    }
    let self_tested = match spec.ring_errno_forced {
        Some(errno) => Err(select_mode::ring_refused(CallError::new("io_uring_setup", errno))),
        None => select_mode::self_test_ring(spec.bind, spec.ring_mode_first),
    };
    if spec.backend == Choice::Auto {
        // The numbers are in decision 0011: equal with trains, and behind without them.
        return Ok((
            None,
            self_tested.err().map(|why| (Backend::IoUring, why)).into_iter().collect(),
        ));
    }
    let ring = self_tested.and_then(|_| {
        Uring::new(spec.posted_buffers, spec.ring_mode_first).map_err(select_mode::ring_refused)
    });
    ring.map(|ring| (Some(ring), Vec::new())).map_err(OpenError::NoRing)
}

/// A frame too long for the path is an error that is told, never a datagram in pieces. `PROBE`
/// also disregards what ICMP claims about the path, since anybody can forge that.
fn never_fragment(socket: &Socket, at: SocketAddr) -> Result<(), i32> {
    if at.is_ipv4() {
        socket.set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    } else {
        socket.set(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
        // For the IPv4 that it takes, too. One for IPv6 alone sends none.
        socket.set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
    }
}

/// A socket that is bound to all addresses is told to which of them each datagram was sent.
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

    #[test]
    fn ports_never_fragment_and_never_believe_what_icmp_says_of_the_path() {
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
