//! Ethernet ports at the two ends of a veth pair, and a packet socket that can send any frame.
#![allow(dead_code, unused_imports, unused_macros, clippy::unwrap_used)] // an example uses a part of this file

use std::{
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use strowger_frame::{
    Address, Burst, ChunkClass, Frame, Mark, Pool, PoolSpec, Port,
    port::{Arm, PortTally},
};
use strowger_io::xdp::{
    Arena, EtherOpenError, EtherPort, ModeChoice, OpenedEtherPort, RxMode, XdpSpec,
    features::{RX_VLAN_OFFLOADS, TX_VLAN_OFFLOADS, set_features},
    open,
};
pub(crate) use strowger_testkit::{
    DEADLINE,
    harness::netns::{Namespace, Veth},
    skip, until,
};

/// Number of chunks that tests post. It is enough for a few bursts.
pub(crate) const LENT: u32 = 256;

/// The modes that a veth supports.
pub(crate) const RX_MODES: [RxMode; 3] = [RxMode::Copy, RxMode::Generic, RxMode::Packet];

/// Sets whether this interface passes the VLAN tags of sent frames as metadata, and whether it
/// reports that it removes tags from received frames.
pub(crate) fn offload_tags(interface: &str, on: bool) -> Result<(), String> {
    [RX_VLAN_OFFLOADS, TX_VLAN_OFFLOADS].into_iter().try_for_each(|features| {
        set_features(interface, &features, on).map_err(|error| format!("{features:?}: {error}"))
    })
}

/// Makes a veth pair, with these arguments of `ip link` for each end. If that is not possible, the
/// test is skipped.
macro_rules! veth {
    () => {
        veth!("", "")
    };
    ($a:expr, $b:expr) => {
        match $crate::veth::Veth::or_skip($crate::veth::Veth::with($a, $b)) {
            Some(veth) => veth,
            None => return,
        }
    };
}

pub(crate) fn pool_of(trains: u32, singles: u32) -> Pool {
    Pool::new(&PoolSpec { trains, singles, huge_pages: false }).expect("memory")
}

/// Makes a pool with several times the number of chunks that a port takes.
pub(crate) fn pool() -> Pool {
    pool_of(16, 1500)
}

pub(crate) fn spec(interface: &str, mode: RxMode) -> XdpSpec {
    let backend = ModeChoice::Only(mode);
    XdpSpec { backend, fill_ring_frames: LENT, neighbours_max: 64, ..XdpSpec::new(interface, 0) }
}

/// A port with its own pool.
pub(crate) struct Station {
    pub(crate) pool: Pool,
    pub(crate) arena: Arena,
    pub(crate) port: EtherPort,
    pub(crate) at: Address,
}

pub(crate) fn opened(
    namespace: &Namespace,
    spec: &XdpSpec,
    arena: &mut Arena,
    pool: &mut Pool,
) -> Result<OpenedEtherPort, EtherOpenError> {
    namespace.within(|| open(spec, arena, pool, 0))
}

impl Station {
    pub(crate) fn new(namespace: &Namespace, spec: &XdpSpec) -> Result<Self, EtherOpenError> {
        let mut pool = pool();
        let mut arena = Arena::of(&pool);
        let OpenedEtherPort { port, report } = opened(namespace, spec, &mut arena, &mut pool)?;
        Ok(Self { pool, arena, port, at: Address::Ether(report.mac) })
    }

    pub(crate) fn tally(&self) -> &PortTally {
        self.port.tally()
    }
}

/// Makes two stations that have admitted each other with mark 0.
pub(crate) fn stations(veth: &Veth, a: &XdpSpec, b: &XdpSpec) -> (Station, Station) {
    let mut a = Station::new(&veth.a, a).unwrap();
    let mut b = Station::new(&veth.b, b).unwrap();
    a.port.admit(Mark(0), b.at).unwrap();
    b.port.admit(Mark(0), a.at).unwrap();
    (a, b)
}

/// Makes a frame in its own chunk, with headroom. Each of its bytes is `fill`.
pub(crate) fn frame(pool: &mut Pool, len: usize, fill: u8) -> Frame {
    let chunk = pool.take(ChunkClass::Single).expect("a free chunk");
    let mut frame = chunk.into_frame(256, len);
    frame.bytes_mut().fill(fill);
    frame
}

/// Makes `count` frames of `len` bytes, contiguous in one chunk. Each is filled with its number.
pub(crate) fn train(pool: &mut Pool, len: usize, count: usize) -> Vec<Frame> {
    let chunk = pool.take(ChunkClass::Train).expect("a free chunk");
    let start = chunk.start();
    let mut train = chunk.into_train(start, len * count, len);
    std::iter::from_fn(|| train.next_frame())
        .enumerate()
        .map(|(n, mut frame)| {
            frame.bytes_mut().fill(n as u8);
            frame
        })
        .collect()
}

/// Sends frames until the port has taken them all.
pub(crate) fn send(port: &mut dyn Port, to: Mark, frames: impl IntoIterator<Item = Frame>) {
    let mut frames = frames.into_iter().peekable();
    while frames.peek().is_some() {
        let mut burst: Burst = frames.by_ref().take(64).collect();
        until("room to send", || {
            port.tx_burst(to, &mut burst);
            port.flush();
            burst.is_empty() && port.is_flushed()
        });
    }
}

/// Receives until `n` frames have arrived, and blocks as a worker does.
pub(crate) fn receive(port: &mut dyn Port, pool: &mut Pool, n: usize) -> Vec<Frame> {
    let deadline = Instant::now() + DEADLINE;
    let mut frames = Vec::new();
    while frames.len() < n {
        let mut burst = Burst::new();
        port.rx_burst(pool, &mut burst);
        let idle = burst.is_empty();
        frames.extend(burst);
        assert!(Instant::now() < deadline, "{} of {n} came: {:?}", frames.len(), port.tally());
        if idle {
            wait(port, Duration::from_millis(100));
        }
    }
    assert_eq!(frames.len(), n, "more came than were sent");
    frames
}

/// Blocks as a worker does. Returns `true` if it was woken.
pub(crate) fn wait(port: &mut dyn Port, timeout: Duration) -> bool {
    let woken = match port.arm() {
        Arm::Wait(fd) => {
            let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: the call accesses one pollfd, which outlives it.
            unsafe { libc::poll(&mut poll, 1, timeout.as_millis() as i32) == 1 }
        }
        _ => true,
    };
    port.disarm();
    woken
}

/// Receives until no more frames are in flight.
pub(crate) fn drain(port: &mut dyn Port, pool: &mut Pool) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut looks_in_vain = 0;
    while looks_in_vain < 200 {
        let mut burst = Burst::new();
        port.rx_burst(pool, &mut burst);
        looks_in_vain = if burst.is_empty() { looks_in_vain + 1 } else { 0 };
        frames.extend(burst);
        std::thread::yield_now();
    }
    frames
}

/// A socket that sends any bytes as a frame.
pub(crate) struct Raw {
    fd: std::os::fd::OwnedFd,
    at: libc::sockaddr_ll,
}

impl Raw {
    /// Opens the socket on this interface of the thread's namespace.
    pub(crate) fn new(interface: &str) -> Self {
        use std::os::fd::FromRawFd as _;
        // SAFETY: the call takes and returns only numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "a packet socket");
        // SAFETY: the kernel has just returned this descriptor, and only we have it.
        let fd = unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) };
        let name = std::ffi::CString::new(interface).unwrap();
        // SAFETY: the string ends in a zero byte and outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        // SAFETY: all fields are numbers, for which zero is a valid value.
        let mut at: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        at.sll_family = libc::AF_PACKET as u16;
        at.sll_ifindex = index as i32;
        Self { fd, at }
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        let (at, len) = (bytes.as_ptr().cast(), bytes.len());
        let to = (&raw const self.at).cast();
        let to_len = std::mem::size_of_val(&self.at) as libc::socklen_t;
        // SAFETY: `bytes` and the address are this long, and outlive the call.
        let sent = unsafe { libc::sendto(self.fd.as_raw_fd(), at, len, 0, to, to_len) };
        assert_eq!(sent, len as isize, "{}", std::io::Error::last_os_error());
    }
}
