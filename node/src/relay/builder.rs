//! Converts a configuration to a builder of the runtime, and the runtime's errors to exit codes.

use std::path::Path;

use strowger_crypto::{IdentityKey, Psk};
use strowger_io::sys::account::Account;
use strowger_runtime::{
    EthernetInterface, Memory, Neighbor, NeighborError, Peer, PeerKey, Queues, Relay, RelayBuilder,
    StartError, UdpListener, UnixSocket,
};

use crate::{
    exit::{Exit, Failure},
    relay::{
        book::{BookResolver, LateLog},
        config::{self, Config, Ethernet, RunAs},
    },
};

/// The builder of the relay that a configuration describes, with this identity key. `psk` reads the
/// file of a pre-shared key. Faults of the address book while the relay runs go to `log`.
///
/// # Errors
/// Errors of `psk`, and faults of the address book.
pub(crate) fn builder(
    config: &Config,
    identity: Option<IdentityKey>,
    psk: impl Fn(&Path) -> Result<Psk, Failure>,
    log: &LateLog,
) -> Result<RelayBuilder, Failure> {
    let mut builder = Relay::builder().switch(config.switch).idle(config.idle);
    if let (Some(key), Some(written)) = (identity, &config.identity) {
        let network = String::from_utf8_lossy(written.network.as_bytes()).into_owned();
        builder = builder.identity(key).network(network);
    }
    if let Some(policy) = config.unknown_peers {
        builder = builder.accept_unknown(policy);
    }
    if let Some(workers) = config.workers {
        builder = builder.workers(workers);
    }
    if let Some(cores) = &config.cores {
        builder = builder.cores(cores.clone());
    }
    let config::Memory { trains, singles, huge_pages } = config.memory;
    let memory = Memory::default().trains(trains).singles(singles).huge_pages(huge_pages);
    builder = builder.memory(memory);
    if let Some(state) = &config.state {
        builder = builder.state_file(state);
    }
    if let Some(book) = &config.address_book {
        builder = builder.resolver(Box::new(BookResolver::open(book, log.clone())?));
    }
    for listener in &config.udp {
        builder = builder.udp_listener(udp_listener(listener));
    }
    for ethernet in &config.ethernet {
        builder = builder.ethernet_interface(ethernet_interface(ethernet));
    }
    for unix in &config.unix {
        builder = builder.unix_socket(unix_socket(unix));
    }
    for peer in &config.peers {
        builder = builder.peer(self::peer(peer, config, &psk)?);
    }
    for neighbour in &config.neighbours {
        let neighbor = Neighbor::new(&neighbour.name, neighbour.address)
            .behind(name_of_listener(config, neighbour.listener));
        builder =
            builder.neighbor(neighbour.slot.into_iter().fold(neighbor, |it, slot| it.slot(slot)));
    }
    Ok(builder)
}

pub(crate) fn unix_socket(unix: &config::UnixEndpoint) -> UnixSocket {
    let config::UnixEndpoint { name, path, slot, clients, frame_bytes_max, worker, capture } = unix;
    let socket = UnixSocket::new(name, path).frame_bytes_max(*frame_bytes_max).worker(*worker);
    let socket = slot.iter().fold(socket, |socket, slot| socket.slot(*slot));
    let socket = clients.iter().fold(socket, |socket, clients| socket.clients(*clients));
    capture.iter().fold(socket, UnixSocket::capture)
}

pub(crate) fn udp_listener(listener: &config::Listener) -> UdpListener {
    let udp = UdpListener::new(listener.address)
        .name(&listener.name)
        .plain(listener.plain)
        .backend(listener.backend)
        .socket_buffer_bytes(listener.socket_buffer_bytes)
        .posted_buffers(listener.posted_buffers);
    listener.capture.iter().fold(udp, UdpListener::capture)
}

pub(crate) fn ethernet_interface(ethernet: &Ethernet) -> EthernetInterface {
    let queues = match ethernet.queues {
        config::Queues::One { queue, worker } => Queues::One { queue, worker },
        config::Queues::All => Queues::All,
    };
    let interface = EthernetInterface::new(&ethernet.interface)
        .name(&ethernet.name)
        .queues(queues)
        .ethertype(ethernet.ethertype)
        .vlan(ethernet.vlan)
        .plain(ethernet.plain)
        .backend(ethernet.backend)
        .multi_buffer(ethernet.multi_buffer)
        .fill_ring_frames(ethernet.fill_ring_frames)
        .beacon_s(ethernet.beacon_s);
    ethernet.capture.iter().fold(interface, EthernetInterface::capture)
}

fn peer(
    written: &config::Peer,
    config: &Config,
    psk: impl Fn(&Path) -> Result<Psk, Failure>,
) -> Result<Peer, Failure> {
    let key = match (written.key, written.identity) {
        (Some(key), Some(identity)) => PeerKey::both(key, identity),
        (Some(key), None) => key.into(),
        (None, Some(identity)) => identity.into(),
        (None, None) => PeerKey::unknown(),
    };
    let mut peer = Peer::new(key)
        .name(&written.name)
        .behind(name_of_listener(config, written.listener))
        .rights(written.rights)
        .seal(written.seal)
        .frame_bytes_max(written.frame_bytes_max)
        .liveness(written.liveness);
    if let Some(at) = written.address {
        peer = peer.at(at);
    }
    if let Some(slot) = written.slot {
        peer = peer.slot(slot);
    }
    if let Some(file) = &written.psk {
        peer = peer.psk(psk(file)?);
    }
    Ok(peer)
}

/// The name of a listener by its index. The indexes count the `[[udp]]` sections first, then the
/// `[[ethernet]]` sections.
fn name_of_listener(config: &Config, index: usize) -> &str {
    let udp = config.udp.iter().map(|listener| listener.name.as_str());
    udp.chain(config.ethernet.iter().map(|it| it.name.as_str())).nth(index).unwrap_or_default()
}

/// The account of `[process]`, if there is one.
///
/// # Errors
/// One line: the user does not exist.
pub(crate) fn account(config: &Config) -> Result<Option<Account>, Failure> {
    let Some(RunAs { user, group }) = &config.run_as else { return Ok(None) };
    let found = Account::find(user, group.as_deref());
    found.map(Some).map_err(|why| Failure::new(Exit::Refused, format!("[process]: {why}")))
}

/// Converts an error of the runtime to the terms of the configuration, with an exit code.
pub(crate) fn failure(error: StartError) -> Failure {
    match error {
        StartError::Switch(why) => Failure::new(Exit::Usage, format!("the configuration: {why}")),
        StartError::Identity(why) => Failure::new(Exit::Refused, format!("[identity]: {why}")),
        StartError::Port { kind, name, source } => {
            Failure::new(Exit::Refused, format!("[[{kind}]] {name}: {source}"))
        }
        StartError::Account { user, source } => {
            Failure::new(Exit::Refused, format!("[process] user {user}: {source}"))
        }
        StartError::Attach { .. } | StartError::Refused { .. } | StartError::Name { .. } => {
            Failure::new(Exit::Usage, error.to_string())
        }
        StartError::Workers => Failure::new(Exit::Died, error.to_string()),
        error => Failure::new(Exit::Refused, error.to_string()),
    }
}

/// Returns the errors of a start without real ports. Errors of addresses are left out, because
/// `config::addresses` reports them.
pub(crate) fn dry_run(builder: RelayBuilder) -> Vec<Failure> {
    let errors = builder.dry_run().into_iter();
    let is_address = |error: &StartError| {
        matches!(error, StartError::Attach { source: NeighborError::Address { .. }, .. })
    };
    errors.filter(|error| !is_address(error)).map(failure).collect()
}
