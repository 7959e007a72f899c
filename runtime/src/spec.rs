//! Specifications of ports, peers and neighbors, each with a builder.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use strowger_crypto::{Identity, PeerId, Psk, StaticPublic};
use strowger_engine::{control::peering::Liveness, limits::FRAME_BYTES_MAX, link::Rights};
use strowger_frame::{Address, PoolSpec, Port};
use strowger_io::{
    EndpointSpec,
    udp::{self, limits::POSTED_BUFFERS},
    unix::UnixSpec,
    xdp,
};
use strowger_wire::Slot;
use strowger_wire::hello::SealWish;

use crate::{address, limits::LOCAL_PORT_FRAMES, port_info::PortKind, unix_clients::port_name};

/// Defines setters that take the builder and return it.
macro_rules! setters {
    ($( $(#[$doc:meta])* $name:ident: $type:ty; )*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.$name = $name;
                self
            }
        )*
    };
}

/// A UDP address on which the relay listens.
///
/// ```
/// use strowger_runtime::UdpListener;
///
/// let listener = UdpListener::new("0.0.0.0:4737".parse()?).name("wan");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct UdpListener {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) plain: bool,
    pub(crate) backend: udp::BackendChoice,
    pub(crate) socket_buffer_bytes: usize,
    pub(crate) posted_buffers: u16,
    pub(crate) capture: Option<PathBuf>,
}

impl UdpListener {
    /// A listener on this address, for sealed links. Its default name is `udp`, followed by the
    /// address. With port 0 the kernel chooses a free port.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            name: format!("udp {address}"),
            address,
            plain: false,
            backend: udp::BackendChoice::Auto,
            socket_buffer_bytes: udp::UdpSpec::new(address).socket_buffer_bytes,
            posted_buffers: POSTED_BUFFERS,
            capture: None,
        }
    }

    setters! {
        /// Whether plain (unsealed) links through the port are allowed instead of sealed ones.
        plain: bool;
        /// The receive backend of the sockets.
        backend: udp::BackendChoice;
        /// The size of each socket's receive and send buffers, in bytes.
        socket_buffer_bytes: usize;
        /// The number of receive buffers that are posted to an io_uring.
        posted_buffers: u16;
    }

    /// The name of the port, for peers, counters and messages.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Writes the port's traffic to a pcapng file. With several workers there is one file per
    /// worker, with the worker's number before the extension. In a relay with an identity, the
    /// handshake socket has its own file.
    #[must_use]
    pub fn capture(mut self, file: impl Into<PathBuf>) -> Self {
        self.capture = Some(file.into());
        self
    }

    /// The files that [`capture`](Self::capture) makes in a relay with this number of workers.
    pub fn capture_files(&self, workers: usize, has_identity: bool) -> Vec<PathBuf> {
        let Some(capture) = &self.capture else { return Vec::new() };
        let mut files: Vec<_> =
            (0..workers).map(|worker| file_of_worker(capture, worker, workers)).collect();
        files.extend(has_identity.then(|| handshake_file(capture)));
        files
    }
}

/// The queues of an Ethernet interface that a relay uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Queues {
    /// One queue, which one worker reads.
    One {
        /// The queue.
        queue: u32,
        /// The worker.
        worker: usize,
    },
    /// One queue per worker: worker 0 reads queue 0, and so on.
    All,
}

/// An Ethernet interface, or one queue of it, through AF_XDP or AF_PACKET.
#[derive(Clone, Debug)]
pub struct EthernetInterface {
    pub(crate) name: String,
    pub(crate) interface: String,
    pub(crate) queues: Queues,
    pub(crate) ethertype: u16,
    pub(crate) vlan: Option<u16>,
    pub(crate) plain: bool,
    pub(crate) backend: xdp::ModeChoice,
    pub(crate) multi_buffer: bool,
    pub(crate) fill_ring_frames: u32,
    pub(crate) beacon_s: Option<u32>,
    pub(crate) capture: Option<PathBuf>,
}

impl EthernetInterface {
    /// Queue 0 of this interface, for sealed links. Worker 0 reads it. By default the port has the
    /// name of the interface.
    pub fn new(interface: impl Into<String>) -> Self {
        let interface = interface.into();
        let spec = xdp::XdpSpec::new(&interface, 0);
        Self {
            name: interface.clone(),
            interface,
            queues: Queues::One { queue: 0, worker: 0 },
            ethertype: spec.ethertype,
            vlan: None,
            plain: false,
            backend: spec.backend,
            multi_buffer: spec.multi_buffer,
            fill_ring_frames: spec.fill_ring_frames,
            beacon_s: None,
            capture: None,
        }
    }

    setters! {
        /// The queues that the relay uses.
        queues: Queues;
        /// The ethertype of the port's frames.
        ethertype: u16;
        /// The VLAN (802.1Q) of the port's frames; `None` for untagged frames.
        vlan: Option<u16>;
        /// Whether plain (unsealed) links through the port are allowed instead of sealed ones.
        plain: bool;
        /// The backend of the queues.
        backend: xdp::ModeChoice;
        /// Whether an AF_XDP frame may span several buffers (`XDP_USE_SG`).
        multi_buffer: bool;
        /// The number of chunks in the kernel's fill ring, per queue.
        fill_ring_frames: u32;
        /// The number of seconds between two beacons; `None` to neither send nor receive beacons.
        beacon_s: Option<u32>;
    }

    /// The name of the port, for peers, counters and messages.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Writes the port's traffic to a pcapng file. With `Queues::All` and several workers there is
    /// one file per worker, as with [`UdpListener::capture`].
    #[must_use]
    pub fn capture(mut self, file: impl Into<PathBuf>) -> Self {
        self.capture = Some(file.into());
        self
    }

    /// The files that [`capture`](Self::capture) makes in a relay with this number of workers.
    pub fn capture_files(&self, workers: usize) -> Vec<PathBuf> {
        let Some(capture) = &self.capture else { return Vec::new() };
        match self.queues {
            Queues::One { .. } => vec![capture.clone()],
            Queues::All => {
                (0..workers).map(|worker| file_of_worker(capture, worker, workers)).collect()
            }
        }
    }
}

/// A unix socket on a slot. A process of this machine connects to it with
/// [`strowger_io::unix::Client`]. With [`clients`](Self::clients), several processes connect to the
/// socket, and each gets its own slot.
#[derive(Clone, Debug)]
pub struct UnixSocket {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) slot: Option<Slot>,
    pub(crate) frame_bytes_max: usize,
    pub(crate) worker: usize,
    pub(crate) capture: Option<PathBuf>,
    pub(crate) clients: Option<usize>,
}

impl UnixSocket {
    /// A socket at this path, on any free slot, served by worker 0.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            slot: None,
            frame_bytes_max: UnixSpec::default().frame_bytes_max,
            worker: 0,
            capture: None,
            clients: None,
        }
    }

    /// Serves up to this number of processes at a time. Each gets a port, named after the socket
    /// with a number from 1, and the lowest free slot number, which goes into quarantine when the
    /// process disconnects. A slot number of the socket's own is not used.
    #[must_use]
    pub fn clients(mut self, count: usize) -> Self {
        self.clients = Some(count);
        self
    }

    /// The names of the socket's ports.
    pub(crate) fn port_names(&self) -> Vec<String> {
        match self.clients {
            None => vec![self.name.clone()],
            Some(count) => (0..count).map(|number| port_name(&self.name, number)).collect(),
        }
    }

    /// The displayed information about each of the socket's ports.
    pub(crate) fn port_kind(&self) -> PortKind {
        let path = self.path.display().to_string();
        PortKind::Unix { path, worker: self.worker, is_shared: self.clients.is_some() }
    }

    /// The files to which [`capture`](Self::capture) writes: with [`clients`](Self::clients), one for
    /// each port, such as `local.1.pcapng`.
    pub fn capture_files(&self) -> Vec<PathBuf> {
        let of_port = |capture: &PathBuf| match self.clients {
            None => vec![capture.clone()],
            Some(count) => (1..=count).map(|port| with_word(capture, &port.to_string())).collect(),
        };
        self.capture.as_ref().map(of_port).unwrap_or_default()
    }

    setters! {
        /// The maximum length of a packet in either direction, in bytes.
        frame_bytes_max: usize;
        /// The worker that serves the socket.
        worker: usize;
    }

    /// The slot number of the port.
    #[must_use]
    pub fn slot(mut self, slot: impl Into<Slot>) -> Self {
        self.slot = Some(slot.into());
        self
    }

    /// Writes the port's traffic to a pcapng file.
    #[must_use]
    pub fn capture(mut self, file: impl Into<PathBuf>) -> Self {
        self.capture = Some(file.into());
        self
    }
}

/// A port for code of this process.
///
/// [`RelayHandle::take_port`](crate::RelayHandle::take_port) returns the port.
#[derive(Clone, Debug)]
pub struct LocalPortSpec {
    pub(crate) name: String,
    pub(crate) slot: Option<Slot>,
    pub(crate) worker: usize,
    pub(crate) endpoint: EndpointSpec,
}

impl LocalPortSpec {
    /// A port with this name, on any free slot, served by worker 0.
    pub fn new(name: impl Into<String>) -> Self {
        let endpoint = EndpointSpec { depth_frames: LOCAL_PORT_FRAMES, ..EndpointSpec::default() };
        Self { name: name.into(), slot: None, worker: 0, endpoint }
    }

    setters! {
        /// The worker that serves the port.
        worker: usize;
    }

    /// The slot number of the port.
    #[must_use]
    pub fn slot(mut self, slot: impl Into<Slot>) -> Self {
        self.slot = Some(slot.into());
        self
    }

    /// The number of frames that may wait in each direction. Frames that the program does not
    /// receive hold chunks of the relay, so the relay sizes its pools for this number, up to a
    /// limit.
    #[must_use]
    pub fn depth_frames(mut self, frames: usize) -> Self {
        self.endpoint.depth_frames = frames;
        self
    }

    /// The size of the send pool, from which the program allocates packets.
    #[must_use]
    pub fn send_pool(mut self, pool: PoolSpec) -> Self {
        self.endpoint.pool = pool;
        self
    }
}

/// A port that the program implements: any implementation of [`Port`].
#[derive(Debug)]
pub struct CustomPort {
    pub(crate) name: String,
    pub(crate) queues: CustomQueues,
    pub(crate) plain: bool,
    pub(crate) trains: u32,
    pub(crate) singles: u32,
}

#[derive(Debug)]
pub(crate) enum CustomQueues {
    /// One queue for each worker, in the workers' order.
    Each(Vec<Box<dyn Port>>),
    /// A single port, which this worker serves.
    At(usize, Box<dyn Port>),
}

impl CustomPort {
    /// A port that one worker serves. The other workers hand off their frames for the port to that
    /// worker.
    pub fn at_worker(name: impl Into<String>, worker: usize, port: Box<dyn Port>) -> Self {
        Self::of(name, CustomQueues::At(worker, port))
    }

    /// A port with one queue per worker, in the workers' order.
    pub fn for_each_worker(name: impl Into<String>, queues: Vec<Box<dyn Port>>) -> Self {
        Self::of(name, CustomQueues::Each(queues))
    }

    fn of(name: impl Into<String>, queues: CustomQueues) -> Self {
        Self { name: name.into(), queues, plain: true, trains: 0, singles: 0 }
    }

    setters! {
        /// Whether plain (unsealed) links through the port are allowed instead of sealed ones. The
        /// default is true.
        plain: bool;
        /// The number of train chunks of each worker's pool that the port may hold, to receive into
        /// and in frames that wait to be sent.
        trains: u32;
        /// The number of single chunks of each worker's pool that the port may hold.
        singles: u32;
    }
}

/// The keys with which a peer must authenticate: its static key, the identity of its PeerId, both,
/// or neither for an unknown peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerKey {
    pub(crate) key: Option<StaticPublic>,
    pub(crate) identity: Option<Identity>,
    /// Whether the given PeerId contains no valid public key.
    pub(crate) is_invalid: bool,
}

impl PeerKey {
    /// The peer must authenticate with both this static key and this identity.
    pub fn both(key: StaticPublic, identity: Identity) -> Self {
        Self { key: Some(key), identity: Some(identity), is_invalid: false }
    }

    /// Accepts any node at the peer's address, with the rights of an unknown peer.
    pub fn unknown() -> Self {
        Self { key: None, identity: None, is_invalid: false }
    }
}

impl From<StaticPublic> for PeerKey {
    fn from(key: StaticPublic) -> Self {
        Self { key: Some(key), identity: None, is_invalid: false }
    }
}

impl From<Identity> for PeerKey {
    fn from(identity: Identity) -> Self {
        Self { key: None, identity: Some(identity), is_invalid: false }
    }
}

impl From<PeerId> for PeerKey {
    fn from(peer_id: PeerId) -> Self {
        let identity = peer_id.identity().ok();
        Self { key: None, identity, is_invalid: identity.is_none() }
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.identity, self.key) {
            (Some(identity), _) => identity.peer_id().fmt(f),
            (None, Some(key)) => key.fmt(f),
            (None, None) => f.write_str("unknown peer"),
        }
    }
}

/// The address of a peer or neighbor, given as an address or as text.
///
/// The text is an IP address and a port (`192.0.2.1:4737`, `[fe80::1%eth0]:4737`) or a MAC address
/// (`02:00:00:00:00:01`). Host names are not resolved. An error in the text is reported when the
/// relay starts, or when the peer or neighbor is added to a running relay.
#[derive(Clone, Debug)]
pub struct NeighborAddress(pub(crate) Result<Address, String>);

impl From<&str> for NeighborAddress {
    fn from(text: &str) -> Self {
        Self(address::parse_here(text))
    }
}

impl From<SocketAddr> for NeighborAddress {
    fn from(address: SocketAddr) -> Self {
        Self(Ok(Address::Udp(address)))
    }
}

impl From<Address> for NeighborAddress {
    fn from(address: Address) -> Self {
        Self(Ok(address))
    }
}

/// Another relay, reached over a sealed link.
///
/// ```
/// use strowger_runtime::Peer;
/// # let key = strowger_runtime::IdentityKey::generate(&mut strowger_runtime::OsEntropy)?;
/// # let alice = key.public().peer_id();
///
/// let peer = Peer::new(alice).name("alice").at("192.0.2.1:4737").slot(2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Peer {
    pub(crate) name: String,
    pub(crate) key: PeerKey,
    pub(crate) psk: Psk,
    pub(crate) at: Option<NeighborAddress>,
    pub(crate) behind: Option<String>,
    pub(crate) slot: Option<Slot>,
    pub(crate) rights: Rights,
    pub(crate) seal: SealWish,
    pub(crate) frame_bytes_max: u16,
    pub(crate) liveness: Liveness,
}

impl Peer {
    /// The peer with this [`PeerId`] or static key. By default its name is its PeerId or key. By
    /// default its packets may leave through every slot except slot 1, the relay itself.
    pub fn new(key: impl Into<PeerKey>) -> Self {
        let key = key.into();
        Self {
            name: key.to_string(),
            key,
            psk: Psk::NONE,
            at: None,
            behind: None,
            slot: None,
            rights: Rights { control: false, ..Rights::ALL },
            seal: SealWish::Full,
            frame_bytes_max: FRAME_BYTES_MAX as u16,
            liveness: Liveness::default(),
        }
    }

    setters! {
        /// The pre-shared key of the link. It can be used only if the peer's static key is given.
        psk: Psk;
        /// The rights of the peer's packets.
        rights: Rights;
        /// The seal mode that the relay requests for the link.
        seal: SealWish;
        /// The maximum length of a frame to the peer, in bytes. The relay discovers the path MTU up
        /// to this length.
        frame_bytes_max: u16;
        /// The timing of liveness probes to the peer.
        liveness: Liveness;
    }

    /// The name of the peer's slot, for counters and messages.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The peer's address. Without an address the relay waits for the peer's handshake.
    #[must_use]
    pub fn at(mut self, address: impl Into<NeighborAddress>) -> Self {
        self.at = Some(address.into());
        self
    }

    /// The name of the port through which the peer is reached. By default the relay chooses a port
    /// that fits the peer's address.
    #[must_use]
    pub fn behind(mut self, port: impl Into<String>) -> Self {
        self.behind = Some(port.into());
        self
    }

    /// The peer's slot number. The default is its number in the state file, or else the lowest free
    /// one.
    #[must_use]
    pub fn slot(mut self, slot: impl Into<Slot>) -> Self {
        self.slot = Some(slot.into());
        self
    }
}

/// Another switch, reached over a plain (unsealed) link, or the only user of a [`CustomPort`].
#[derive(Clone, Debug)]
pub struct Neighbor {
    pub(crate) name: String,
    pub(crate) at: NeighborAddress,
    pub(crate) behind: Option<String>,
    pub(crate) slot: Option<Slot>,
    pub(crate) is_endpoint: bool,
}

impl Neighbor {
    /// A switch with this name, at this address.
    pub fn new(name: impl Into<String>, at: impl Into<NeighborAddress>) -> Self {
        Self { name: name.into(), at: at.into(), behind: None, slot: None, is_endpoint: false }
    }

    /// The only user of a [`CustomPort`]. Labels end at it; it is not a switch.
    pub fn endpoint(name: impl Into<String>) -> Self {
        Self { is_endpoint: true, ..Self::new(name, Address::Only) }
    }

    /// The name of the port through which the neighbor is reached. By default the relay chooses a
    /// port that fits the neighbor's address.
    #[must_use]
    pub fn behind(mut self, port: impl Into<String>) -> Self {
        self.behind = Some(port.into());
        self
    }

    /// The neighbor's slot number. The default is its number in the state file, or else the lowest
    /// free one.
    #[must_use]
    pub fn slot(mut self, slot: impl Into<Slot>) -> Self {
        self.slot = Some(slot.into());
        self
    }
}

/// The size of each worker's memory. By default each number of chunks is the sum of what the
/// relay's ports and the switch need.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub(crate) trains: Option<u32>,
    pub(crate) singles: Option<u32>,
    pub(crate) huge_pages: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self { trains: None, singles: None, huge_pages: true }
    }
}

impl Memory {
    setters! {
        /// The number of train chunks (68 KiB each) of each worker; `None` for the sum of the
        /// needs.
        trains: Option<u32>;
        /// The number of single chunks (4 KiB each) of each worker; `None` for the sum of the
        /// needs.
        singles: Option<u32>;
        /// Whether to use huge pages if the kernel has them.
        huge_pages: bool;
    }
}

/// The capture file of a worker: `wan.pcapng` for one worker; `wan.0.pcapng` and so on for several.
pub(crate) fn file_of_worker(path: &Path, worker: usize, workers: usize) -> PathBuf {
    if workers == 1 { path.to_owned() } else { with_word(path, &worker.to_string()) }
}

/// The capture file of the handshake socket: `wan.handshakes.pcapng` for `wan.pcapng`.
pub(crate) fn handshake_file(path: &Path) -> PathBuf {
    with_word(path, "handshakes")
}

fn with_word(path: &Path, word: &str) -> PathBuf {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    path.with_extension(format!("{word}.{extension}").trim_end_matches('.'))
}
