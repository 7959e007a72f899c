//! The configuration of a relay: parses and checks a file. An error is one line that names the file
//! and the line in it, and says what is wrong and what to do.
//!
//! `strowger config sample` prints a commented file with every key.

pub(crate) mod addresses;
mod ethernet;
mod links;
mod ports;
mod process;
mod reader;
mod switch;
#[cfg(test)]
mod tests;
mod unique;

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use strowger_crypto::{Identity, NetworkId, StaticPublic};
use strowger_engine::{
    control::{
        SwitchConfig,
        peering::{Liveness, UnknownPeerPolicy},
    },
    limits::PORTS_MAX,
    link::Rights,
};
use strowger_frame::Address;
use strowger_io::udp::BackendChoice;
use strowger_runtime::{
    IdlePolicy,
    address::{self, Interfaces},
    files, places,
};
use strowger_wire::hello::SealWish;

pub(crate) use self::{
    ethernet::{Ethernet, Queues},
    links::{parse_key, parse_peer_id, parse_rights},
    process::RunAs,
    switch::default_slot_max,
    unique::check_name,
};
use self::{
    reader::{Document, Section},
    unique::{Captures, Names, Slots},
};
use crate::{
    exit::{Exit, Failure},
    limits::{CHUNKS_MAX, SOCKET_PATH_BYTES_MAX, TRAINS_MIN, WAIT, WAIT_S_MAX},
};

/// A commented configuration with every key. It passes the check.
pub(crate) const SAMPLE: &str = include_str!("sample.toml");

/// A checked configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The number of workers. With `None` the runtime chooses it, by the usable cores and the CPU
    /// quota.
    pub(crate) workers: Option<usize>,
    /// The core of each worker, in the workers' order. With `None` the scheduler chooses the cores.
    pub(crate) cores: Option<Vec<usize>>,
    /// The behaviour of a worker without work.
    pub(crate) idle: IdlePolicy,
    /// The settings of the switch.
    pub(crate) switch: SwitchConfig,
    /// The size of each worker's memory.
    pub(crate) memory: Memory,
    /// The path of the control socket.
    pub(crate) control_socket: PathBuf,
    /// The state file, which keeps slot numbers across restarts, if there is one.
    pub(crate) state: Option<PathBuf>,
    /// The address book, from which the relay answers lookups of programs; `None` if there is none.
    pub(crate) address_book: Option<PathBuf>,
    /// UDP listeners, in the file's order.
    pub(crate) udp: Vec<Listener>,
    /// Ethernet interfaces, in the file's order.
    pub(crate) ethernet: Vec<Ethernet>,
    /// The identity of this node. Without an identity the node has no sealed links.
    pub(crate) identity: Option<IdentityFile>,
    /// Peers: other switches, reached through listeners over sealed links.
    pub(crate) peers: Vec<Peer>,
    /// The policy for unknown peers; `None` refuses them.
    pub(crate) unknown_peers: Option<UnknownPeerPolicy>,
    /// Neighbours: other switches, reached through listeners over plain links.
    pub(crate) neighbours: Vec<Neighbour>,
    /// Unix sockets for processes of this machine.
    pub(crate) unix: Vec<UnixEndpoint>,
    /// The user to which the relay switches after everything is open. With `None` the process keeps
    /// its user.
    pub(crate) run_as: Option<RunAs>,
    /// The maximum time for which a start waits for missing addresses and interfaces.
    pub(crate) wait: Duration,
    /// The names of interfaces in the addresses above, including those that this machine does not
    /// have.
    pub(crate) interfaces: Interfaces,
}

/// The size of each worker's memory. A number that is `None` is the sum of the needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// The number of train chunks.
    pub(crate) trains: Option<u32>,
    /// The number of single chunks.
    pub(crate) singles: Option<u32>,
    /// Whether to use huge pages if the kernel has them.
    pub(crate) huge_pages: bool,
}

/// A UDP address on which the relay listens.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// Whether plain links through the listener are allowed: `seal = "plain"`.
    pub(crate) plain: bool,
    pub(crate) backend: BackendChoice,
    pub(crate) socket_buffer_bytes: usize,
    pub(crate) posted_buffers: u16,
    /// The pcapng file for the port's traffic; `None` for no capture.
    pub(crate) capture: Option<PathBuf>,
}

/// The file of this node's key, and the name of its network.
#[derive(Clone, Debug)]
pub(crate) struct IdentityFile {
    pub(crate) key: PathBuf,
    pub(crate) network: NetworkId,
}

/// A peer: another switch, reached over a sealed link.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    /// The static key; `None` if the handshake finds it.
    pub(crate) key: Option<StaticPublic>,
    /// The identity with which the peer must authenticate; `None` for any identity.
    pub(crate) identity: Option<Identity>,
    /// The address; `None` if the peer must start the handshake.
    pub(crate) address: Option<Address>,
    /// The index of the listener. The listeners of [`Config::udp`] come first, then those of
    /// [`Config::ethernet`].
    pub(crate) listener: usize,
    pub(crate) slot: Option<u32>,
    /// The file of the pre-shared key; `None` for a link without one.
    pub(crate) psk: Option<PathBuf>,
    pub(crate) rights: Rights,
    pub(crate) seal: SealWish,
    pub(crate) frame_bytes_max: u16,
    pub(crate) liveness: Liveness,
}

/// A neighbour: another switch, reached over a plain link.
#[derive(Clone, Debug)]
pub(crate) struct Neighbour {
    pub(crate) name: String,
    pub(crate) address: Address,
    /// The index of the listener. The listeners of [`Config::udp`] come first, then those of
    /// [`Config::ethernet`].
    pub(crate) listener: usize,
    pub(crate) slot: Option<u32>,
}

/// A unix socket on a slot, for one process of this machine, or for several with a slot each.
#[derive(Clone, Debug)]
pub(crate) struct UnixEndpoint {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) slot: Option<u32>,
    /// The maximum number of processes, each with its own slot. `None` means one process, on the
    /// slot of the socket.
    pub(crate) clients: Option<usize>,
    pub(crate) frame_bytes_max: usize,
    pub(crate) worker: usize,
    /// The pcapng file for the port's traffic; `None` for no capture.
    pub(crate) capture: Option<PathBuf>,
}

/// An error in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The line in the file, counted from 1.
    pub(crate) line: usize,
    /// One sentence with the fault and the remedy.
    pub(crate) text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.text)
    }
}

/// Reads and checks a file.
///
/// # Errors
/// One line: the file cannot be read, or `file:line: error` for the first error.
pub(crate) fn read(path: &Path) -> Result<Config, Failure> {
    read_lines(path)?.map_err(|lines: Vec<String>| {
        let more = match lines.len() - 1 {
            0 => String::new(),
            1 => "; `strowger config check` shows 1 more".to_owned(),
            more => format!("; `strowger config check` shows {more} more"),
        };
        Failure::new(Exit::Usage, format!("{}{more}", lines[0]))
    })
}

/// Reads and checks a file. The inner error has a line for each error of the content.
///
/// # Errors
/// One line: the file cannot be read.
pub(crate) fn read_lines(path: &Path) -> Result<Result<Config, Vec<String>>, Failure> {
    let shown = path.display();
    let bytes = files::configuration(path).map_err(|error| {
        let remedy = "`strowger config sample` prints an example";
        Failure::new(Exit::Refused, format!("{shown}: cannot be read: {error}; {remedy}"))
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count();
        Failure::new(Exit::Usage, format!("{shown}:{line}: not UTF-8; save the file as UTF-8"))
    })?;
    Ok(parse_all(&text).map_err(|mut faults| {
        faults.sort_by_key(|fault| fault.line);
        faults.iter().map(|fault| format!("{shown}:{fault}")).collect()
    }))
}

const SECTIONS: &[(&str, &[&str])] = &[
    ("switch", switch::SWITCH_KEYS),
    ("memory", MEMORY_KEYS),
    ("control", CONTROL_KEYS),
    ("process", process::PROCESS_KEYS),
    ("identity", links::IDENTITY_KEYS),
    ("liveness", links::LIVENESS_KEYS),
    ("unknown_peers", links::UNKNOWN_PEERS_KEYS),
    ("udp", ports::UDP_KEYS),
    ("ethernet", ethernet::ETHERNET_KEYS),
    ("peer", links::PEER_KEYS),
    ("neighbour", links::NEIGHBOUR_KEYS),
    ("unix", ports::UNIX_KEYS),
];
const MEMORY_KEYS: &[&str] = &["trains", "singles", "huge_pages"];
const CONTROL_KEYS: &[&str] = &["socket"];
/// Checks a configuration's text.
///
/// # Errors
/// The first [`Fault`] that is found.
#[cfg(test)]
pub(crate) fn parse(text: &str) -> Result<Config, Fault> {
    parse_all(text).map_err(|mut faults| faults.swap_remove(0))
}

/// Checks a configuration's text. After a fault it continues with everything that does not depend
/// on the faulty part.
///
/// # Errors
/// All faults, in the order in which they are found. There is at least one.
pub(crate) fn parse_all(text: &str) -> Result<Config, Vec<Fault>> {
    let document = Document::parse(text).map_err(|fault| vec![fault])?;
    let config = read_all(&document);
    match config {
        Some(config) if document.faults() == 0 => Ok(config),
        _ => {
            let mut faults: Vec<Fault> = Vec::new();
            for fault in document.into_faults() {
                if !faults.contains(&fault) {
                    faults.push(fault);
                }
            }
            Err(faults)
        }
    }
}

/// Reads the configuration of a document, and notes all faults. Returns `None` if a fault left a
/// part of the configuration without a value.
fn read_all(document: &Document<'_>) -> Option<Config> {
    document.check_sections(SECTIONS);

    let section = document.good(document.section("switch", switch::SWITCH_KEYS));
    let (mut switch, mut state, mut workers, mut address_book) = (None, None, None, None);
    let (mut cores, mut idle, mut wait) = (None, None, None);
    if let Some(section) = &section {
        switch = document.good(switch::switch(section));
        state = document.good(switch::state_path(section));
        address_book = document.good(switch::address_book(section));
        workers = document.good(switch::workers(section));
        cores = workers.and_then(|workers| document.good(switch::cores(section, workers)));
        let words = [("adaptive", IdlePolicy::ADAPTIVE), ("spin", IdlePolicy::Spin)];
        idle = document.good(section.choice("idle", &words));
        wait = document.good(section.number("wait_s", 0, WAIT_S_MAX));
    }
    let memory = document.section("memory", MEMORY_KEYS).and_then(|section| {
        let chunks = |key, min| {
            let given = section.number(key, min, CHUNKS_MAX)?;
            Ok(given.map(|given| given as u32))
        };
        let pages = [("try", true), ("no", false)];
        Ok(Memory {
            trains: chunks("trains", TRAINS_MIN)?,
            singles: chunks("singles", 0)?,
            huge_pages: section.choice("huge_pages", &pages)?.unwrap_or(true),
        })
    });
    let memory = document.good(memory);
    let control_socket = document.section("control", CONTROL_KEYS);
    let control_socket = control_socket.and_then(|section| socket_path(&section, "socket"));
    let control_socket = document.good(control_socket);
    let run_as = document.good(process::process(document));

    let mut names = Names::default();
    let mut captures = Captures::default();
    let before = document.faults();
    let udp = document.good(ports::listeners(document, &mut names, &mut captures));
    let ethernet = ethernet::ethernet(document, workers.flatten(), &mut names, &mut captures);
    let ethernet = document.good(ethernet);
    // Stop here if a listener is faulty, because each section that depends on it would be reported
    // as faulty, too.
    let (Some(switch), Some(workers), Some(udp), Some(ethernet)) = (switch, workers, udp, ethernet)
    else {
        return None;
    };
    if document.faults() > before {
        return None;
    }
    let mut slots = Slots { taken: HashMap::new(), config: &switch };
    let unix = document.good(ports::unix(document, workers, &mut names, &mut slots, &mut captures));
    let identity = document.good(links::identity(document));
    let mut behind = links::Behind { udp: &udp, ethernet: &ethernet, addresses: HashMap::new() };
    let neighbours = links::neighbours(document, &mut behind, &mut names, &mut slots);
    let neighbours = document.good(neighbours);
    let liveness = document.good(links::liveness(document)).unwrap_or_default();
    let unknown_peers = document.good(links::unknown_peers(document, liveness));
    let policies = links::Policies { liveness, unknown_peers: unknown_peers.flatten() };
    let peers = links::peers(document, &mut behind, &mut names, &mut slots, &policies);
    let peers = document.good(peers);
    let identity = identity?;
    document.good(links::check_identity(document, identity.as_ref()));
    let (unix, neighbours, peers) = (unix?, neighbours?, peers?);
    let unix_ports: usize = unix.iter().map(|unix| unix.clients.unwrap_or(1)).sum();
    if udp.len() + ethernet.len() + unix_ports > PORTS_MAX {
        let text = format!(
            "more than {PORTS_MAX} [[udp]], [[ethernet]] and [[unix]], with each of its clients; move \
             some to another relay"
        );
        document.note(Fault { line: 1, text });
    }
    let wanted = neighbours.len() + peers.len() + unix_ports;
    let free = switch.slot_max() as usize; // 0 to slot_max, without 1
    if wanted > free {
        let text = format!(
            "{wanted} peers, neighbours and endpoints need a slot, and slot_max = {} leaves {free} slots; raise \
            slot_max in [switch], or choose a wider scheme",
            switch.slot_max()
        );
        document.note(Fault { line: 1, text });
    }
    Some(Config {
        workers,
        cores: cores?,
        idle: idle?.unwrap_or(IdlePolicy::ADAPTIVE),
        switch,
        memory: memory?,
        control_socket: control_socket?.unwrap_or_else(places::control_socket),
        state: state?,
        address_book: address_book?,
        udp,
        ethernet,
        identity,
        peers,
        unknown_peers: policies.unknown_peers,
        neighbours,
        unix,
        run_as: run_as?,
        wait: wait?.map_or(WAIT, Duration::from_secs),
        interfaces: names.interfaces,
    })
}

fn socket_address(section: &Section<'_>, interfaces: &mut Interfaces) -> Result<SocketAddr, Fault> {
    let text = section.text("address")?.ok_or_else(|| section.missing("address"))?;
    let at = address::parse_socket(text.value, interfaces);
    at.map_err(|why| Fault { line: text.line, text: why })
}

/// The address of a neighbour, both parsed and as text.
fn address<'s>(
    section: &Section<'s>,
    interfaces: &mut Interfaces,
) -> Result<(Address, &'s str), Fault> {
    let text = section.text("address")?.ok_or_else(|| section.missing("address"))?;
    let at = address::parse(text.value, interfaces);
    at.map(|at| (at, text.value)).map_err(|why| Fault { line: text.line, text: why })
}

fn socket_path(section: &Section<'_>, key: &'static str) -> Result<Option<PathBuf>, Fault> {
    let Some(path) = section.text(key)? else { return Ok(None) };
    if path.value.is_empty()
        || path.value.len() > SOCKET_PATH_BYTES_MAX
        || path.value.contains('\0')
    {
        let text = format!(
            "{key} in {} must have 1 to {SOCKET_PATH_BYTES_MAX} bytes: the kernel takes no longer \
             path for a socket",
            section.title
        );
        return Err(Fault { line: path.line, text });
    }
    Ok(Some(PathBuf::from(path.value)))
}
