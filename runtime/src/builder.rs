//! The builder of a relay, with all settings that are fixed when the relay starts.

use std::{fmt, net::SocketAddr, path::PathBuf};

use strowger_crypto::{IdentityKey, aead::Provider};
use strowger_engine::control::{SwitchConfig, messages::Resolver, peering::UnknownPeerPolicy};
use strowger_frame::Pool;
use strowger_io::sys::account::Account;

use crate::{
    error::StartError,
    files::Opener,
    handle::RelayHandle,
    open::OpenRelay,
    spec::{
        CustomPort, EthernetInterface, LocalPortSpec, Memory, Neighbor, Peer, UdpListener,
        UnixSocket,
    },
    worker_thread::IdlePolicy,
};

/// A relay. [`Relay::builder`] returns the builder that configures and starts it, and
/// [`RelayHandle`] controls it while it runs.
#[derive(Debug)]
pub enum Relay {}

impl Relay {
    /// A builder for a relay without an identity, ports or neighbors, and with the default number
    /// of workers.
    pub fn builder() -> RelayBuilder {
        RelayBuilder::default()
    }
}

/// The settings of a relay. [`start`](Self::start) opens and runs the relay.
///
/// ```
/// use strowger_runtime::{IdentityKey, OsEntropy, Relay};
///
/// let key = IdentityKey::generate(&mut OsEntropy)?;
/// let relay = Relay::builder()
///     .identity(key)
///     .network("example")
///     .workers(1)
///     .udp("127.0.0.1:0".parse()?)
///     .local_port("app")
///     .start()?;
/// relay.shutdown()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until it is started"]
pub struct RelayBuilder {
    pub(crate) identity: Option<IdentityKey>,
    pub(crate) network: String,
    pub(crate) accept_unknown: Option<UnknownPeerPolicy>,
    pub(crate) provider: Provider,
    pub(crate) switch: SwitchConfig,
    pub(crate) workers: Option<usize>,
    pub(crate) cores: Option<Vec<usize>>,
    pub(crate) idle: IdlePolicy,
    pub(crate) memory: Memory,
    pub(crate) pools: Option<Vec<Pool>>,
    pub(crate) state_file: Option<PathBuf>,
    pub(crate) resolver: Option<KnownLabels>,
    pub(crate) run_as: Option<Account>,
    pub(crate) opener: Option<Opener>,
    pub(crate) udp: Vec<UdpListener>,
    pub(crate) ethernet: Vec<EthernetInterface>,
    pub(crate) unix: Vec<UnixSocket>,
    pub(crate) local: Vec<LocalPortSpec>,
    pub(crate) custom: Vec<CustomPort>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) neighbors: Vec<Neighbor>,
}

/// The source of labels that [`RelayBuilder::resolver`] sets.
pub(crate) struct KnownLabels(pub(crate) Box<dyn Resolver>);

impl fmt::Debug for KnownLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KnownLabels(..)")
    }
}

impl RelayBuilder {
    /// The identity of this relay. Without an identity the relay has no sealed links.
    pub fn identity(mut self, key: IdentityKey) -> Self {
        self.identity = Some(key);
        self
    }

    /// The name of the network, at most 32 bytes: relays of different networks cannot establish
    /// sealed links with each other.
    pub fn network(mut self, name: impl Into<String>) -> Self {
        self.network = name.into();
        self
    }

    /// Accepts peers that the program did not add, with these rights and limits. By default the
    /// relay refuses them.
    pub fn accept_unknown(mut self, policy: UnknownPeerPolicy) -> Self {
        self.accept_unknown = Some(policy);
        self
    }

    /// The AEAD library that seals and opens frames. By default the relay uses the fastest one that
    /// was compiled in.
    pub fn provider(mut self, provider: Provider) -> Self {
        self.provider = provider;
        self
    }

    /// The settings of the switch: scheme, slot numbers, maximum number of hops, quarantine.
    pub fn switch(mut self, config: SwitchConfig) -> Self {
        self.switch = config;
        self
    }

    /// The number of workers, each on its own thread. By default there is one per usable core, or
    /// fewer if the CPU quota of the control groups or the maximum number of workers is lower.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Pins the first worker to the first of these cores, the second worker to the second, and so
    /// on. Workers without a core in the list are not pinned.
    pub fn cores(mut self, cores: impl Into<Vec<usize>>) -> Self {
        self.cores = Some(cores.into());
        self
    }

    /// Sets the behaviour of a worker without work.
    pub fn idle(mut self, idle: IdlePolicy) -> Self {
        self.idle = idle;
        self
    }

    /// The size of each worker's memory.
    pub fn memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// Uses pools that the program allocated, one per worker, instead of pools with the sizes of
    /// [`memory`](Self::memory). This also sets the number of workers.
    pub fn pools(mut self, pools: Vec<Pool>) -> Self {
        self.workers = Some(pools.len());
        self.pools = Some(pools);
        self
    }

    /// Keeps slot numbers across restarts in this file. By default they are not kept.
    pub fn state_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.state_file = Some(file.into());
        self
    }

    /// Sets a source of labels for the lookups of programs at this relay (wire.md 5.5), besides the
    /// peers that have announced themselves at its slots. The slow path calls it, so it must not
    /// block.
    pub fn resolver(mut self, resolver: Box<dyn Resolver>) -> Self {
        self.resolver = Some(KnownLabels(resolver));
        self
    }

    /// Switches the process to this user after everything is open, and drops all other privileges.
    /// The program must call `Account::prepare` before it starts its first other thread.
    pub fn run_as(mut self, account: Account) -> Self {
        self.run_as = Some(account);
        self
    }

    /// Opens files with this opener. The relay then refuses to write to a file that the program has
    /// already opened for writing with this opener.
    pub fn opener(mut self, opener: Opener) -> Self {
        self.opener = Some(opener);
        self
    }

    /// Listens on a UDP address, for sealed links.
    pub fn udp(self, address: SocketAddr) -> Self {
        self.udp_listener(UdpListener::new(address))
    }

    /// Listens on a UDP address, with these settings.
    pub fn udp_listener(mut self, listener: UdpListener) -> Self {
        self.udp.push(listener);
        self
    }

    /// Uses queue 0 of an Ethernet interface, for sealed links.
    pub fn ethernet(self, interface: impl Into<String>) -> Self {
        self.ethernet_interface(EthernetInterface::new(interface))
    }

    /// Uses an Ethernet interface, with these settings.
    pub fn ethernet_interface(mut self, interface: EthernetInterface) -> Self {
        self.ethernet.push(interface);
        self
    }

    /// Listens on a unix socket for one process of this machine.
    pub fn unix(self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.unix_socket(UnixSocket::new(name, path))
    }

    /// Listens on a unix socket, with these settings.
    pub fn unix_socket(mut self, socket: UnixSocket) -> Self {
        self.unix.push(socket);
        self
    }

    /// Adds a port for code of this process; [`RelayHandle::take_port`] returns it.
    pub fn local_port(self, name: impl Into<String>) -> Self {
        self.local_port_spec(LocalPortSpec::new(name))
    }

    /// Adds a port for code of this process, with these settings.
    pub fn local_port_spec(mut self, port: LocalPortSpec) -> Self {
        self.local.push(port);
        self
    }

    /// Adds a port that the program opened itself.
    pub fn custom_port(mut self, port: CustomPort) -> Self {
        self.custom.push(port);
        self
    }

    /// Adds a peer: another relay, reached over a sealed link.
    pub fn peer(mut self, peer: Peer) -> Self {
        self.peers.push(peer);
        self
    }

    /// Adds a neighbor: another switch, reached over a plain link.
    pub fn neighbor(mut self, neighbor: Neighbor) -> Self {
        self.neighbors.push(neighbor);
        self
    }

    /// Opens everything without starting the relay. Use it to open more files before the relay
    /// drops its privileges, or to subscribe before the first event.
    ///
    /// # Errors
    /// [`StartError`]. Everything that was opened is closed again.
    pub fn open(self) -> Result<OpenRelay, StartError> {
        OpenRelay::open(self)
    }

    /// Opens everything, starts the relay, and blocks until it forwards. Links to peers come up
    /// later: [`RelayHandle::events`] reports them.
    ///
    /// # Errors
    /// [`StartError`]. Everything that was opened is closed again.
    pub fn start(self) -> Result<RelayHandle, StartError> {
        self.open()?.start()
    }
}
