//! A relay's configuration: text in, checked values out, once. It never touches a socket; whatever
//! is wrong is one line that names the file, the line in it and the way out.
//!
//! `strowger config sample` prints a commented file with every key.

pub(crate) mod addresses;
mod ethernet;
mod links;
mod ports;
mod process;
mod reader;

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
    limits::{ATTACHED_MAX, FRAME_BYTES_MAX, HOPS_MAX, PORTS_MAX},
    link::Rights,
};
use strowger_frame::Address;
use strowger_io::udp::Choice;
use strowger_runtime::IdlePolicy;
use strowger_wire::{Scheme, Slot, hello::SealWish, limits::LINK_MTU_MIN, scheme::V3X5X8};

use self::reader::{Document, Section};
pub(crate) use self::{
    ethernet::{Ethernet, Queues},
    links::{parse_key, parse_peer_id, parse_rights},
    process::RunAs,
};
use crate::{
    command::conform::scheme_of,
    exit::{Exit, Failure},
    limits::{WAIT, WAIT_S_MAX},
};
use strowger_runtime::{
    address::{self, Interfaces},
    files,
    untrusted::is_harmless,
};

/// A commented configuration with every key, which itself passes the check (a test says so).
pub(crate) const SAMPLE: &str = include_str!("sample.toml");

/// Workers at most: what one switch takes.
const WORKERS_MAX: u64 = 64;
/// The highest slot number that is given out unless the configuration says otherwise.
const SLOT_MAX_DEFAULT: u32 = 256;
/// A day: no packet is longer on its way.
const QUARANTINE_S_MAX: u64 = 86_400;
/// A month: whoever names a slot by a former number is told the new one with every packet but few.
const ALIAS_S_MAX: u64 = 30 * 86_400;
/// Chunks a worker at most: 68 GiB of train chunks, so a typing error is refused, not mapped.
const CHUNKS_MAX: u64 = 1 << 20;
/// Train chunks that a worker needs to forward anything at all.
const TRAINS_MIN: u64 = 64;
/// The largest socket buffer that can be asked of Linux: half of what an `int` holds.
const SOCKET_BUFFER_BYTES_MAX: u64 = (i32::MAX / 2) as u64;
/// What is asked of the kernel for each socket buffer unless the configuration says otherwise.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// The longest packet of a unix endpoint.
const UNIX_FRAME_BYTES: usize = 2_048;
/// A name is shown in tables and JSON; longer ones would only be cut off.
const NAME_BYTES_MAX: usize = 64;
/// The longest path of a unix socket that the kernel takes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What a relay is to be.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// How many workers: `None` for one on each usable core.
    pub(crate) workers: Option<usize>,
    /// The core of each worker, in the workers' order; `None` leaves it to the scheduler.
    pub(crate) cores: Option<Vec<usize>>,
    /// What a worker does when there is nothing to do.
    pub(crate) idle: IdlePolicy,
    /// How the switch behaves.
    pub(crate) switch: SwitchConfig,
    /// Memory of each worker.
    pub(crate) memory: Memory,
    /// Where the control socket is.
    pub(crate) control_socket: PathBuf,
    /// Where slot numbers are kept over restarts; nowhere if none is named.
    pub(crate) state: Option<PathBuf>,
    /// UDP listeners, in the file's order.
    pub(crate) udp: Vec<Listener>,
    /// Ethernet interfaces, in the file's order.
    pub(crate) ethernet: Vec<Ethernet>,
    /// Who this node is, without which it has no sealed links.
    pub(crate) identity: Option<IdentityFile>,
    /// Peers behind listeners, by sealed links.
    pub(crate) peers: Vec<Peer>,
    /// What whoever is not configured may do; `None`: nothing at all.
    pub(crate) unknown_peers: Option<UnknownPeerPolicy>,
    /// Neighbours behind listeners, by plain links.
    pub(crate) neighbours: Vec<Neighbour>,
    /// Local processes.
    pub(crate) unix: Vec<UnixEndpoint>,
    /// Who the relay becomes once all is open; it stays who it is if nobody is named.
    pub(crate) run_as: Option<RunAs>,
    /// How long a start waits for addresses and interfaces that the machine has not yet.
    pub(crate) wait: Duration,
    /// Names of interfaces in the addresses above, which the machine has or has not yet.
    pub(crate) interfaces: Interfaces,
}

impl Config {
    /// Puts the numbers that interfaces have now into the addresses that name them.
    ///
    /// # Errors
    /// A line for each address whose interface this machine has not; it stays as it is.
    pub(crate) fn resolve(&mut self) -> Result<(), Vec<String>> {
        let interfaces = std::mem::take(&mut self.interfaces);
        let mut absent = Vec::new();
        let mut resolve = |whose: &dyn fmt::Display, at: &mut SocketAddr| match interfaces
            .resolve(*at)
        {
            Ok(resolved) => *at = resolved,
            Err(name) => {
                let shown = interfaces.shown(*at);
                let why =
                    format!("{whose}: address \"{shown}\": this machine has no interface {name}");
                absent.push(why);
            }
        };
        for listener in &mut self.udp {
            resolve(&format_args!("listener \"{}\"", listener.name), &mut listener.address);
        }
        for peer in &mut self.peers {
            if let Some(Address::Udp(at)) = &mut peer.address {
                resolve(&format_args!("peer \"{}\"", peer.name), at);
            }
        }
        for neighbour in &mut self.neighbours {
            if let Address::Udp(at) = &mut neighbour.address {
                resolve(&format_args!("neighbour \"{}\"", neighbour.name), at);
            }
        }
        if absent.is_empty() { Ok(()) } else { Err(absent) }
    }
}

/// Memory of each worker; what is `None` is the sum of the needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Train chunks.
    pub(crate) trains: Option<u32>,
    /// Single chunks.
    pub(crate) singles: Option<u32>,
    /// Whether huge pages are tried for.
    pub(crate) huge_pages: bool,
}

/// One UDP address that the relay listens at.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// Whether unsealed links may be behind it, because the operator wrote so.
    pub(crate) plain: bool,
    pub(crate) backend: Choice,
    pub(crate) socket_buffer_bytes: usize,
    pub(crate) posted_buffers: u16,
    /// The pcapng file that its traffic is written to.
    pub(crate) capture: Option<PathBuf>,
}

/// Where this node's key is, and which network it is part of.
#[derive(Clone, Debug)]
pub(crate) struct IdentityFile {
    pub(crate) key: PathBuf,
    pub(crate) network: NetworkId,
}

/// One peer: another switch, by a sealed link.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    /// `None` if it is to be found out.
    pub(crate) key: Option<StaticPublic>,
    /// Who it must prove to be; whoever has the key, or is there, if nobody is named.
    pub(crate) identity: Option<Identity>,
    /// `None` if it will come by itself.
    pub(crate) address: Option<Address>,
    /// Which of [`Config::udp`], and behind their last, of [`Config::ethernet`].
    pub(crate) listener: usize,
    pub(crate) slot: Option<u32>,
    /// The file of the key that both operators have.
    pub(crate) psk: Option<PathBuf>,
    pub(crate) rights: Rights,
    pub(crate) seal: SealWish,
    pub(crate) frame_bytes_max: u16,
    pub(crate) liveness: Liveness,
}

/// One neighbour: another switch, by a plain link.
#[derive(Clone, Debug)]
pub(crate) struct Neighbour {
    pub(crate) name: String,
    pub(crate) address: Address,
    /// Which of [`Config::udp`], and behind their last, of [`Config::ethernet`].
    pub(crate) listener: usize,
    pub(crate) slot: Option<u32>,
}

/// One local process on a slot.
#[derive(Clone, Debug)]
pub(crate) struct UnixEndpoint {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) slot: Option<u32>,
    pub(crate) frame_bytes_max: usize,
    pub(crate) worker: usize,
    /// The pcapng file that its traffic is written to.
    pub(crate) capture: Option<PathBuf>,
}

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Counted from 1.
    pub(crate) line: usize,
    /// One sentence, with the way out.
    pub(crate) text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.text)
    }
}

/// Whether a listener at this address takes IPv4 as well: `[::]` does, unless another listener has the
/// same port for IPv4.
pub(crate) fn is_dual_stack(at: SocketAddr, listeners: &[Listener]) -> bool {
    let has_v4 = |other: &Listener| other.address.is_ipv4() && other.address.port() == at.port();
    at.is_ipv6() && at.ip().is_unspecified() && !listeners.iter().any(has_v4)
}

/// Where the control socket is if nobody says: of this user's runtime directory if there is one.
pub(crate) fn default_control_socket() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !directory.is_empty() => Path::new(&directory).join("strowger.sock"),
        _ => PathBuf::from("/run/strowger.sock"),
    }
}

/// Reads and checks a file.
///
/// # Errors
/// One line: the file cannot be read, or `file:line: what is wrong`, the first of what is.
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

/// Reads and checks a file; inside, all that is wrong with what it says, a line each.
///
/// # Errors
/// One line: the file cannot be read.
pub(crate) fn read_lines(path: &Path) -> Result<Result<Config, Vec<String>>, Failure> {
    let shown = path.display();
    let bytes = files::configuration(path).map_err(|error| {
        let way_out = "`strowger config sample` prints one to begin with";
        Failure::new(Exit::Refused, format!("{shown}: cannot be read: {error}; {way_out}"))
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
    ("switch", SWITCH_KEYS),
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
const SWITCH_KEYS: &[&str] = &[
    "workers",
    "cores",
    "idle",
    "scheme",
    "slot_max",
    "hops_max",
    "u_turns",
    "quarantine_s",
    "alias_s",
    "state",
    "wait_s",
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

/// Checks a configuration's text, and goes on after a fault as far as what follows makes sense.
///
/// # Errors
/// All faults, in the order in which they are found; at least one.
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

/// What a document says; `None` where so much is wrong that nothing more is to be read from it. All that is wrong is
/// noted.
fn read_all(document: &Document<'_>) -> Option<Config> {
    document.check_sections(SECTIONS);

    let section = document.good(document.section("switch", SWITCH_KEYS));
    let (mut switch, mut state, mut workers) = (None, None, None);
    let (mut cores, mut idle, mut wait) = (None, None, None);
    if let Some(section) = &section {
        switch = document.good(self::switch(section));
        state = document.good(state_path(section));
        workers = document.good(self::workers(section));
        cores = workers.and_then(|workers| document.good(self::cores(section, workers)));
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
    // Behind a listener that is wrong everything would be.
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
    if udp.len() + ethernet.len() + unix.len() > PORTS_MAX {
        let text = format!(
            "more than {PORTS_MAX} [[udp]], [[ethernet]] and [[unix]]; give some to another relay"
        );
        document.note(Fault { line: 1, text });
    }
    let wanted = neighbours.len() + peers.len() + unix.len();
    let free = switch.slot_max() as usize; // 0 to slot_max, without 1
    if wanted > free {
        let text = format!(
            "{wanted} things are to be attached and slot_max = {} leaves {free} slots; raise \
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
        control_socket: control_socket?.unwrap_or_else(default_control_socket),
        state: state?,
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

fn state_path(section: &Section<'_>) -> Result<Option<PathBuf>, Fault> {
    let Some(path) = section.text("state")? else { return Ok(None) };
    if Path::new(path.value).file_name().is_none() || path.value.contains('\0') {
        let text = "state in [switch] must be the path of a file; it is made if it is not there";
        return Err(Fault { line: path.line, text: text.to_owned() });
    }
    Ok(Some(PathBuf::from(path.value)))
}

fn switch(section: &Section<'_>) -> Result<SwitchConfig, Fault> {
    let scheme = match section.text("scheme")? {
        None => V3X5X8,
        Some(name) => scheme_of(name.value).map_err(|kind| {
            let text = format!(
                "scheme \"{}\" in [switch] is none ({kind}): f4, f8, v3x5x8, v4x8, or a \
                 serialised one in hex",
                name.value
            );
            Fault { line: name.line, text }
        })?,
    };
    let no_switch = |text: &str| {
        let line = section.line_of("scheme");
        Fault { line, text: format!("{text}; use f4, f8, v3x5x8 or v4x8") }
    };
    scheme
        .self_director()
        .map_err(|_| no_switch("the scheme cannot spell slot 1, the switch itself"))?;
    scheme
        .prefix_index_bits()
        .map_err(|_| no_switch("the scheme's prefixes are too alike for a table"))?;
    let highest = highest_slot(&scheme, ATTACHED_MAX as u32)
        .ok_or_else(|| no_switch("the scheme can write no slot but 1"))?;
    let slot_max = section.number("slot_max", 2, u64::from(highest))?.map(|max| max as u32);
    let slot_max = match slot_max {
        None => default_slot_max(&scheme).unwrap_or(highest),
        Some(max) if highest_slot(&scheme, max) == Some(max) => max,
        Some(max) => {
            let line = section.line_of("slot_max");
            return Err(Fault { line, text: format!("the scheme cannot write slot {max}") });
        }
    };
    let defaults = SwitchConfig::default();
    let quarantine_s = section.number("quarantine_s", 0, QUARANTINE_S_MAX)?;
    let alias_s = section.number("alias_s", 0, ALIAS_S_MAX)?;
    let hops_max = section.number("hops_max", 1, u64::from(HOPS_MAX))?;
    Ok(SwitchConfig::default()
        .with_scheme(scheme)
        .with_slot_max(slot_max)
        .with_hops_max(hops_max.map_or(defaults.hops_max(), |hops| hops as u8))
        .with_u_turns(section.flag("u_turns")?.unwrap_or(defaults.u_turns()))
        .with_quarantine(quarantine_s.map_or(defaults.quarantine(), Duration::from_secs))
        .with_alias(alias_s.map_or(defaults.alias(), Duration::from_secs)))
}

/// The highest slot number that is given out where nobody says.
pub(crate) fn default_slot_max(scheme: &Scheme) -> Option<u32> {
    highest_slot(scheme, SLOT_MAX_DEFAULT)
}

/// The highest slot, up to `at_most`, that the scheme can write.
fn highest_slot(scheme: &Scheme, at_most: u32) -> Option<u32> {
    (2..=at_most).rev().find(|&slot| scheme.encode_least(Slot::new(slot)).is_ok())
}

fn workers(section: &Section<'_>) -> Result<Option<usize>, Fault> {
    if section.is_text("workers", "auto") {
        return Ok(None);
    }
    let given = section.number_or("workers", 1, WORKERS_MAX, " or \"auto\"")?;
    Ok(Some(given.unwrap_or(1) as usize))
}

fn cores(section: &Section<'_>, workers: Option<usize>) -> Result<Option<Vec<usize>>, Fault> {
    let Some(cores) = section.numbers("cores", 0, 4095)? else { return Ok(None) };
    let cores: Vec<usize> = cores.into_iter().map(|core| core as usize).collect();
    let fault = |text| Err(Fault { line: section.line_of("cores"), text });
    if let Some(core) = twice(&cores) {
        return fault(format!("cores in [switch] names core {core} twice; one worker a core"));
    }
    match workers {
        Some(workers) if workers == cores.len() => Ok(Some(cores)),
        Some(workers) => fault(format!(
            "cores in [switch] names {} and workers = {workers}; name one core for each worker",
            cores.len()
        )),
        None => fault(
            "cores in [switch] goes with a number of workers, and workers is \"auto\"".to_owned(),
        ),
    }
}

fn twice(numbers: &[usize]) -> Option<usize> {
    numbers.iter().enumerate().find(|(at, n)| numbers[..*at].contains(n)).map(|(_, n)| *n)
}

/// Names given so far: by whom, and in which line. Listeners, neighbours and endpoints share them,
/// so that a name alone says what is meant.
#[derive(Default)]
struct Names {
    taken: HashMap<String, (&'static str, usize)>,
    /// Those of interfaces that addresses name.
    interfaces: Interfaces,
}

impl Names {
    fn claim(
        &mut self,
        kind: &'static str,
        name: &str,
        section: &Section<'_>,
    ) -> Result<(), Fault> {
        let line = section.line_of("name");
        match self.taken.insert(name.to_owned(), (kind, line)) {
            None => Ok(()),
            Some((kind, first)) => {
                let text = format!(
                    "the name \"{name}\" is taken by the [[{kind}]] in line {first}; choose another"
                );
                Err(Fault { line, text })
            }
        }
    }
}

/// Files that are captured to so far, with the line.
#[derive(Default)]
struct Captures(HashMap<PathBuf, usize>);

impl Captures {
    fn claim(&mut self, section: &Section<'_>) -> Result<Option<PathBuf>, Fault> {
        let Some(path) = section.text("capture")? else { return Ok(None) };
        let fault = |text| Err(Fault { line: path.line, text });
        if path.value.is_empty() {
            return fault("capture must be the path of a file".to_owned());
        }
        match self.0.insert(path.value.into(), path.line) {
            None => Ok(Some(path.value.into())),
            Some(first) => fault(format!("{} is written by line {first} already", path.value)),
        }
    }
}

/// Slots pinned so far, with the line.
struct Slots<'c> {
    taken: HashMap<u32, usize>,
    config: &'c SwitchConfig,
}

impl Slots<'_> {
    fn claim(&mut self, section: &Section<'_>) -> Result<Option<u32>, Fault> {
        let max = self.config.slot_max();
        let Some(slot) = section.number("slot", 0, u64::from(max))? else { return Ok(None) };
        let slot = slot as u32;
        let line = section.line_of("slot");
        if slot == Slot::SWITCH.number() {
            let text = "slot 1 is the switch itself; choose another, or leave the key out";
            return Err(Fault { line, text: text.to_owned() });
        }
        match self.taken.insert(slot, line) {
            None => Ok(Some(slot)),
            Some(first) => {
                let text = format!("slot {slot} is taken in line {first}; choose another");
                Err(Fault { line, text })
            }
        }
    }
}

fn name(section: &Section<'_>) -> Result<String, Fault> {
    let name = section.text("name")?.ok_or_else(|| section.missing("name"))?;
    check_name(name.value).map_err(|text| Fault { line: name.line, text })?;
    Ok(name.value.to_owned())
}

/// Whether people and programs can be shown this name.
///
/// # Errors
/// One sentence that says what a name is.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let is_shown = name.chars().all(is_harmless);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_shown {
        return Err(format!(
            "a name has 1 to {NAME_BYTES_MAX} bytes and no control characters, unlike {name:?}"
        ));
    }
    Ok(())
}

fn socket_address(section: &Section<'_>, interfaces: &mut Interfaces) -> Result<SocketAddr, Fault> {
    let text = section.text("address")?.ok_or_else(|| section.missing("address"))?;
    let at = address::parse_socket(text.value, interfaces);
    at.map_err(|why| Fault { line: text.line, text: why })
}

/// The address of a neighbour, and as it is written.
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

#[cfg(test)]
mod tests {
    use strowger_wire::{hex::Hex, scheme::Form};

    use super::*;

    /// A file in which all is well.
    const GOOD: &str = "\
[switch]
workers = 2
[[udp]]
name = \"wan\"
address = \"127.0.0.1:7000\"
seal = \"plain\"
[[neighbour]]
name = \"a\"
address = \"127.0.0.1:7001\"
slot = 2
[[unix]]
name = \"local\"
path = \"/run/local\"
slot = 4
";

    #[test]
    fn a_state_file_has_a_name() {
        let state = |text: &str| parse(text).map(|config| config.state);
        assert_eq!(state(""), Ok(None));
        let path = PathBuf::from("kept/state");
        assert_eq!(state("[switch]\nstate = \"kept/state\""), Ok(Some(path)));
        for none in ["", "..", "/"] {
            let fault = state(&format!("[switch]\nstate = \"{none}\"")).expect_err("no file");
            assert_eq!(fault.line, 2);
        }
    }

    #[test]
    fn a_good_file_is_read_as_it_stands() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.workers, Some(2));
        assert_eq!(config.idle, IdlePolicy::ADAPTIVE);
        assert_eq!(config.udp[0].backend, Choice::Auto);
        let neighbour = &config.neighbours[0];
        assert_eq!((neighbour.listener, neighbour.slot), (0, Some(2)));
        assert_eq!(config.unix[0].path, Path::new("/run/local"));
        assert!(config.memory.huge_pages && config.memory.trains.is_none());
        let empty = parse("").unwrap();
        assert_eq!((empty.workers, empty.switch.slot_max()), (Some(1), 256));
    }

    #[test]
    fn a_scheme_bounds_its_slots() {
        let config = parse("switch.scheme = \"f4\"").unwrap();
        assert_eq!((config.switch.scheme().name(), config.switch.slot_max()), (Some("f4"), 15));
        let config = parse("switch.scheme = \"6114458100\"").unwrap();
        assert_eq!(config.switch.scheme().name(), Some("v3x5x8"));
        let auto = parse("switch.workers = \"auto\"").unwrap();
        assert_eq!(auto.workers, None);
    }

    #[test]
    fn the_sample_is_fine_and_its_wide_scheme_is_what_it_says() {
        parse(SAMPLE).unwrap();
        let wide = SAMPLE.lines().find_map(|line| line.split_once("up to 4095: ")).unwrap().1;
        let forms = [(4, 1, 0b1), (8, 2, 0b10), (12, 2, 0b00)]
            .map(|(data, prefix_bits, prefix)| Form::new(data, prefix_bits, prefix));
        let scheme = Scheme::new(&forms).unwrap();
        assert_eq!(wide, format!("scheme = \"{}\"", Hex(scheme.serialize().as_bytes())));
        let config = parse(&format!("switch.{wide}\nswitch.slot_max = 4095")).unwrap();
        assert_eq!(config.switch.scheme(), &scheme);
    }

    /// What is put in the place of a line of the good file, the line that is blamed, and words of
    /// what is said.
    #[test]
    fn each_error_names_its_line_and_the_way_out() {
        let cases: &[(&str, &str, usize, &[&str])] = &[
            // Keys.
            ("workers = 2", "wokers = 2", 2, &["`wokers` in [switch]", "did you mean `workers`?"]),
            ("slot = 2", "solt = 2", 10, &["`solt` in [[neighbour]]", "did you mean `slot`?"]),
            ("slot = 2", "colour = 2", 10, &["`colour`", "its keys are: name, address"]),
            ("[switch]", "[swich]", 1, &["unknown section `swich`", "did you mean `switch`?"]),
            ("[switch]", "[[switch]]", 1, &["one section; write [switch]"]),
            ("[[udp]]", "[udp]", 3, &["several of udp; write [[udp]]"]),
            ("[switch]", "", 2, &["`workers` stands outside", "belongs into [switch]"]),
            ("[switch]", "colours = 7\n[switch]", 1, &["unknown key `colours`"]),
            ("workers = 2", "workers = 2\nworkers = 3", 3, &["no TOML", "duplicate"]),
            ("workers = 2", "workers = ", 2, &["no TOML"]),
            // Types and ranges.
            ("workers = 2", "workers = 0", 2, &["a number from 1 to 64 or \"auto\"", "not 0"]),
            ("workers = 2", "workers = -1", 2, &["not -1"]),
            ("workers = 2", "workers = 99999999999999999999999", 2, &["from 1 to 64"]),
            ("workers = 2", "workers = \"many\"", 2, &["not \"many\""]),
            ("workers = 2", "workers = 2.5", 2, &["not 2.5"]),
            ("workers = 2", "u_turns = 1", 2, &["u_turns in [switch] must be true or false"]),
            ("workers = 2", "idle = \"lazy\"", 2, &["\"adaptive\" or \"spin\"", "\"lazy\""]),
            ("workers = 2", "hops_max = 65", 2, &["a number from 1 to 64"]),
            ("workers = 2", "scheme = \"v9\"", 2, &["f4, f8, v3x5x8, v4x8"]),
            ("workers = 2", "slot_max = 257", 2, &["a number from 2 to 256"]),
            ("workers = 2", "quarantine_s = 86401", 2, &["0 to 86400"]),
            ("workers = 2", "alias_s = 2592001", 2, &["0 to 2592000"]),
            ("workers = 2", "cores = 1", 2, &["a list"]),
            ("workers = 2", "cores = [0, 1]", 2, &["names 2 and workers = 1"]),
            ("workers = 2", "workers = 2\ncores = [3, 3]", 3, &["core 3 twice"]),
            ("workers = 2", "workers = \"auto\"\ncores = [3]", 3, &["workers is \"auto\""]),
            ("[[udp]]", "[memory]\ntrains = 5\n[[udp]]", 4, &["64 to 1048576"]),
            ("[[udp]]", "[memory]\nhuge_pages = true\n[[udp]]", 4, &["\"try\" or \"no\""]),
            ("[[udp]]", "[control]\nsocket = \"\"\n[[udp]]", 4, &["1 to 107 bytes"]),
            // Listeners.
            ("seal = \"plain\"", "", 7, &["only sealed ones", "seal = \"plain\""]),
            ("seal = \"plain\"", "seal = \"none\"", 6, &["\"sealed\" or \"plain\""]),
            (
                "[[neighbour]]",
                "[[udp]]\naddress = \"127.0.0.1:7009\"\n[[neighbour]]\nlistener = \"wan\"",
                7,
                &["has sealed links", "needs [identity]", "key new", "seal = \"plain\""],
            ),
            ("127.0.0.1:7000", "localhost:7000", 5, &["no address", "not looked up"]),
            ("127.0.0.1:7000", "127.0.0.1", 5, &["an IP and a port"]),
            ("name = \"wan\"", "name = \"\"", 4, &["1 to 64 bytes"]),
            (
                "name = \"wan\"",
                "name = \"local\"",
                12,
                &["\"local\" is taken", "[[udp]] in line 4"],
            ),
            ("seal = \"plain\"", "seal = \"plain\"\nbackend = \"mmap\"", 7, &["\"mmsg\""]),
            (
                "[[neighbour]]",
                "[[udp]]\naddress = \"127.0.0.1:7000\"\nseal = \"plain\"\n[[neighbour]]",
                8,
                &["listened at already (line 5)"],
            ),
            (
                "[[neighbour]]",
                "[[udp]]\naddress = \"127.0.0.1:7009\"\nseal = \"plain\"\n[[neighbour]]",
                10,
                &["needs listener", "wan, udp1"],
            ),
            // Neighbours and endpoints.
            ("slot = 2", "slot = 1", 10, &["slot 1 is the switch itself"]),
            ("slot = 2", "slot = 4", 10, &["slot 4 is taken in line 14"]),
            ("slot = 2", "slot = 257", 10, &["a number from 0 to 256"]),
            ("slot = 2", "listener = \"wna\"", 10, &["\"wna\"", "did you mean \"wan\"?"]),
            ("127.0.0.1:7001", "[::1]:7001", 9, &["IPv4", "add a [[udp]]"]),
            ("127.0.0.1:7001", "127.0.0.1:0", 9, &["neighbour \"a\"", "not usable", "port 0"]),
            ("127.0.0.1:7001", "0.0.0.0:7", 9, &["neighbour \"a\"", "not usable", "unicast IP"]),
            ("127.0.0.1:7001", "127.0.0.1:7000", 9, &["not usable", "this relay itself listens"]),
            ("127.0.0.1:7001", "224.0.0.1:7000", 9, &["not usable", "multicast"]),
            ("127.0.0.1:7001", "255.255.255.255:7", 9, &["not usable", "broadcast"]),
            ("127.0.0.1:7000", "224.0.0.1:7000", 5, &["listener \"wan\"", "multicast"]),
            ("127.0.0.1:7000", "[2001:db8::1%lo]:7000", 5, &["no link-local", "leave \"%lo\" out"]),
            ("name = \"a\"", "", 7, &["[[neighbour]] needs the key `name`"]),
            ("name = \"a\"", "name = 5", 8, &["must be a string, not 5"]),
            (
                "[[unix]]",
                "[[neighbour]]\nname = \"b\"\naddress = \"127.0.0.1:7001\"\n[[unix]]",
                13,
                &["a neighbour's already (line 9)"],
            ),
            ("path = \"/run/local\"", "", 11, &["[[unix]] needs the key `path`"]),
            ("slot = 4", "worker = 2", 14, &["a number from 0 to 1"]),
            ("slot = 4", "frame_bytes_max = 1", 14, &["24 to 9216"]),
            ("slot = 4", "capture = \"\"", 14, &["the path of a file"]),
        ];
        for (line, instead, blamed, words) in cases {
            assert!(GOOD.contains(line), "{line}");
            let text = GOOD.replacen(line, instead, 1);
            let fault = parse(&text).expect_err(instead);
            assert_eq!(fault.line, *blamed, "{instead}: {fault}");
            assert!(words.iter().all(|word| fault.text.contains(word)), "{instead}: {fault}");
            assert!(!fault.text.contains('\n'), "one line: {fault}");
        }
    }

    /// A file with a sealed link in which all is well.
    const SEALED: &str = "\
[identity]
key = \"k\"
network = \"n\"
[unknown_peers]
allow = false
[[udp]]
address = \"127.0.0.1:7000\"
[[peer]]
name = \"a\"
key = \"0101010101010101010101010101010101010101010101010101010101010101\"
address = \"127.0.0.1:7001\"
rights = [\"transit\", \"control\"]
seal = \"header-only\"
mtu = 1400
";

    #[test]
    fn every_error_is_found_and_none_that_follows_from_another() {
        let text = GOOD
            .replace("workers = 2", "wokers = 2\nidle = \"lazy\"")
            .replace("127.0.0.1:7001", "0.0.0.0:7001")
            .replace("slot = 4", "slot = 1\n[[unix]]\nname = \"local\"\npath = \"/run/other\"");
        let faults = parse_all(&text).expect_err("five errors");
        let mut lines: Vec<usize> = faults.iter().map(|fault| fault.line).collect();
        lines.sort_unstable();
        assert_eq!(lines, [2, 3, 10, 15, 17], "{faults:#?}");
        // Neighbours behind a listener that is wrong are not judged.
        let text = GOOD.replace("127.0.0.1:7000", "localhost");
        assert_eq!(parse_all(&text).expect_err("one").len(), 1);
    }

    #[test]
    fn a_sealed_file_is_read_as_it_stands() {
        let config = parse(SEALED).unwrap();
        let peer = &config.peers[0];
        assert_eq!((peer.key.map(|key| key.0), peer.frame_bytes_max), (Some([1; 32]), 1400));
        assert_eq!(peer.rights, Rights { endpoints: false, ..Rights::ALL });
        assert_eq!((peer.seal, peer.psk.is_none()), (SealWish::MayHeaderOnly, true));
        assert!(config.unknown_peers.is_none() && !config.udp[0].plain);
        let text = SEALED.replace("allow = false", "allow = true\nmax = 3");
        let text = text.replace("rights =", "#").replace("seal =", "#");
        let config = parse(&text).unwrap();
        let policy = UnknownPeerPolicy::default().with_links_max(3);
        assert_eq!(config.unknown_peers, Some(policy), "nothing but what is written");
        let Peer { rights, seal, .. } = &config.peers[0];
        assert_eq!((*rights, *seal), (Rights { control: false, ..Rights::ALL }, SealWish::Full));
    }

    #[test]
    fn each_error_of_a_sealed_file_names_its_line_and_the_way_out() {
        let key = "key = \"0101010101010101010101010101010101010101010101010101010101010101\"";
        let cases: &[(&str, &str, usize, &[&str])] = &[
            ("[identity]\nkey = \"k\"\nnetwork = \"n\"", "\n\n", 8, &["[[peer]]", "key new FILE"]),
            ("key = \"k\"", "", 1, &["[identity] needs the key `key`", "key new FILE"]),
            ("key = \"k\"", "key = \"\"", 2, &["the path of a file"]),
            ("key = \"k\"", "kye = \"k\"", 2, &["did you mean `key`?"]),
            ("\"n\"", "\"a name that has more than 32 bytes, much\"", 3, &["at most 32 bytes"]),
            (key, "", 8, &["[[peer]] has neither key nor peer_id", "[unknown_peers]"]),
            (key, "key = \"01\"", 10, &["64 hex digits", "key id FILE"]),
            ("name = \"a\"\n", "", 8, &["needs the key `name`"]),
            ("\"transit\"", "\"transmit\"", 12, &["no right \"transmit\"", "\"transit\"?"]),
            ("\"transit\"", "7", 12, &["a list of strings"]),
            ("\"header-only\"", "\"plain\"", 13, &["\"full\" or \"header-only\""]),
            ("mtu = 1400", "mtu = 575", 14, &["576 to 9216"]),
            ("mtu = 1400", "psk = \"\"", 14, &["the path of a file"]),
            ("mtu = 1400", "slot = 1", 14, &["slot 1 is the switch itself"]),
            ("127.0.0.1:7001", "[::1]:7001", 11, &["IPv4"]),
            ("[[udp]]\naddress = \"127.0.0.1:7000\"", "\n", 8, &["[[peer]] needs a [[udp]]"]),
            ("allow = false", "max = 0", 5, &["1 to 8192"]),
            (
                "[[peer]]",
                "[[neighbour]]\nname = \"b\"\naddress = \"127.0.0.1:9\"\n[[peer]]",
                8,
                &["only sealed ones", "[[peer]] with a key"],
            ),
            (
                "[unknown_peers]",
                "[strangers]",
                4,
                &["unknown section `strangers`", "it is called [unknown_peers] now"],
            ),
            ("[unknown_peers]", "[liveness]\nmultiplier = 0\n[unknown_peers]", 5, &["1 to 255"]),
            ("mtu = 1400", "interval_ms = 9", 14, &["interval_ms in [[peer]]", "10 to"]),
            ("allow = false", "always = 1", 5, &["always in [unknown_peers]", "true or false"]),
            ("mtu = 1400", "peer_id = \"12D3KooW\"", 14, &["no PeerId", "key id FILE"]),
            (
                "mtu = 1400",
                "peer_id = \"QmNLei78zWmzUdbeRB3CiUfAizWUrbeeZh5K1rhAQKCh51\"",
                14,
                &["no PeerId"],
            ),
        ];
        for (line, instead, blamed, words) in cases {
            assert!(SEALED.contains(line), "{line}");
            let fault = parse(&SEALED.replacen(line, instead, 1)).expect_err(instead);
            assert_eq!(fault.line, *blamed, "{instead}: {fault}");
            assert!(words.iter().all(|word| fault.text.contains(word)), "{instead}: {fault}");
            assert!(!fault.text.contains('\n'), "one line: {fault}");
        }
        let twice = format!("{SEALED}[[peer]]\nname = \"b\"\n{key}\n");
        assert!(parse(&twice).unwrap_err().text.contains("line 10"));
        // Without a key.
        let id = "peer_id = \"12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X\"";
        let named = SEALED.replace(key, id);
        assert!(parse(&named).unwrap().peers[0].identity.is_some());
        let twice = format!("{named}[[peer]]\nname = \"b\"\n{id}\n");
        assert!(parse(&twice).unwrap_err().text.contains("line 10"));
        let psk = named.replace("mtu = 1400", "psk = \"p\"");
        assert!(parse(&psk).unwrap_err().text.contains("goes with key"));
        let anybody = SEALED.replace(key, "").replace("allow = false", "allow = true");
        let fault = parse(&anybody).unwrap_err();
        assert!(fault.line == 12 && fault.text.contains("those of [unknown_peers]"), "{fault}");
        let anybody = anybody.replace("rights = [\"transit\", \"control\"]", "");
        let peer = parse(&anybody).unwrap().peers.remove(0);
        assert!(peer.key.is_none() && peer.identity.is_none() && peer.rights == Rights::NONE);
        let nowhere = anybody.replace("address = \"127.0.0.1:7001\"", "");
        assert!(parse(&nowhere).unwrap_err().text.contains("address"));
        let only_policy = "[unknown_peers]\nallow = true";
        assert!(parse(only_policy).unwrap_err().text.contains("needs [identity]"));
    }

    #[test]
    fn more_than_there_are_slots_is_said_before_anything_runs() {
        let mut text = GOOD.replace("workers = 2", "scheme = \"f4\"");
        for port in 1..=14 {
            text += &format!("[[neighbour]]\nname = \"n{port}\"\naddress = \"127.0.0.1:{port}\"\n");
        }
        let fault = parse(&text).unwrap_err();
        assert!(fault.text.contains("16 things") && fault.text.contains("15 slots"), "{fault}");
    }

    #[test]
    fn no_bytes_panic() {
        let mut state = 1_u64;
        for _ in 0..2_000 {
            let mut text = GOOD.as_bytes().to_vec();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % text.len();
                text[at] = b"\n[]\"=#{}, 0a."[(state >> 50) as usize % 13];
            }
            let text = String::from_utf8(text).unwrap();
            if let Err(fault) = parse(&text) {
                assert!(fault.line >= 1 && fault.line <= 1 + text.lines().count(), "{fault}");
            }
        }
    }
}
