//! Opens Ethernet interfaces. They must be open before the switch gets the pools, because the
//! kernel's fill rings take chunks from the pools.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use strowger_engine::control::peering::BeaconSpec;
use strowger_frame::{Address, BURST_MAX, Pool, Port, port::PortTally};
use strowger_io::xdp::{
    Arena, EtherPort, EtherReport, Group, ModeChoice, OpenedEtherPort, RxMode, XdpSpec, limits,
    open,
};
use strowger_wire::beacon::FIRST_BYTE;

use crate::{
    builder::RelayBuilder,
    error::StartError,
    files::Opener,
    memory::{EGRESS_WAITING, Need, SENDS_WAITING},
    open::captured,
    spec::{EthernetInterface, Queues, file_of_worker},
};

/// The group address of beacons, and the first byte of a beacon (wire.md W10-6).
const BEACON_GROUP: Group = Group { address: *b"\x03strow", first_byte: FIRST_BYTE };

/// An open interface.
pub(crate) struct OpenedPort {
    pub(crate) queues: Vec<(usize, Box<dyn Port>)>,
    pub(crate) info: EthernetInfo,
}

/// The state of an Ethernet interface and its queues.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EthernetInfo {
    /// Whether plain links through the interface are allowed.
    pub plain: bool,
    /// The number of seconds between two beacons; `None` if beacons are disabled on the interface.
    pub beacon_s: Option<u32>,
    /// The report of each queue, in the order of the queues.
    pub reports: Vec<EtherReport>,
    /// For each queue, whether its interface has vanished.
    gone: Vec<Arc<AtomicBool>>,
    /// The counters of each queue.
    tallies: Vec<Arc<PortTally>>,
    /// Warnings in addition to those of the reports.
    notes: Vec<String>,
}

impl EthernetInfo {
    /// The description of an interface that is not open.
    pub(crate) fn unopened(plain: bool, beacon_s: Option<u32>) -> Self {
        let (reports, notes) = (Vec::new(), Vec::new());
        Self { plain, beacon_s, reports, gone: Vec::new(), tallies: Vec::new(), notes }
    }

    /// One line per queue, with its mode and the reason for the mode.
    pub fn chosen(&self) -> Vec<String> {
        let first =
            |report: &EtherReport| report.to_string().lines().next().unwrap_or("").to_owned();
        self.reports.iter().map(first).collect()
    }

    /// The beacons that the interface sends; `None` if beacons are disabled.
    pub(crate) fn beacon(&self) -> Option<BeaconSpec> {
        let to = Address::Ether(BEACON_GROUP.address);
        self.beacon_s.map(|s| BeaconSpec::new(to, std::time::Duration::from_secs(u64::from(s))))
    }

    /// Whether the interface has vanished. The port works again only after a restart of the relay.
    pub fn is_gone(&self) -> bool {
        // Relaxed: the flag guards no other data.
        self.gone.iter().any(|gone| gone.load(Ordering::Relaxed))
    }

    /// The mode of the first queue.
    pub fn backend(&self) -> &'static str {
        self.reports.first().map_or("none", |report| report.mode.name())
    }

    /// Warnings about what the machine refuses or limits.
    pub fn warnings(&self) -> Vec<String> {
        let of_reports = self.reports.iter().flat_map(EtherReport::warnings);
        of_reports.chain(self.notes.iter().cloned()).collect()
    }

    /// The number of sent frames whose payload was copied.
    pub fn frames_copied(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.frames_copied.read()).sum()
    }
}

/// The chunks that Ethernet ports need from each worker's pool.
pub(crate) fn needs(config: &RelayBuilder, workers: usize) -> Vec<Need> {
    let mut needs = Vec::new();
    let mut need = |what: String, trains: u32, singles: u32| {
        needs.push(Need { what, trains, singles });
    };
    for ethernet in &config.ethernet {
        let EthernetInterface { name, fill_ring_frames, .. } = ethernet;
        // With AF_PACKET the port needs a burst of chunks of each kind, and no fill ring.
        need(format!("receive chunks of {name}"), BURST_MAX as u32, *fill_ring_frames);
        need(format!("headers and copies of {name}"), 0, limits::OWN_CHUNKS);
        // A waiting frame that arrived over Ethernet holds a single chunk. Many other frames can
        // share one train chunk.
        need(
            format!("sends of {name} that the device has not done"),
            limits::TRAINS_MAX as u32,
            limits::SENDS_WAITING,
        );
    }
    if !config.ethernet.is_empty() {
        let sends = SENDS_WAITING * config.udp.len() as u32;
        let handed = (workers as u32 - 1) * strowger_engine::limits::HANDOFF_FRAMES_MAX as u32;
        let singles = BURST_MAX as u32 + EGRESS_WAITING + sends + handed;
        need("frames from Ethernet being switched or sent elsewhere".to_owned(), 0, singles);
    }
    needs
}

/// Opens all interfaces, each queue with the pool of the worker that owns it.
pub(crate) fn open_all(
    config: &RelayBuilder,
    opener: &Opener,
    pools: &mut [Pool],
) -> Result<Vec<OpenedPort>, StartError> {
    let Some(first) = pools.first() else { return Ok(Vec::new()) };
    let mut arena = Arena::of(first);
    let mut opened: Vec<OpenedPort> = Vec::new();
    for ethernet in &config.ethernet {
        let opening = open_one(ethernet, config.switch.slot_max() + 1, opener, &mut arena, pools)
            .and_then(|opening| check(config, ethernet, opening))
            .map_err(|why| StartError::Port {
                kind: "ethernet",
                name: ethernet.name.clone(),
                source: why.replace(":\n ", ":").replace("\n ", ";").into(),
            })?;
        opened.push(opening);
    }
    Ok(opened)
}

/// The queues that the relay uses, each with the worker that owns it.
fn queues_of(ethernet: &EthernetInterface, workers: usize) -> Vec<(usize, u32)> {
    match ethernet.queues {
        Queues::One { queue, worker } => vec![(worker, queue)],
        Queues::All => (0..workers).map(|worker| (worker, worker as u32)).collect(),
    }
}

fn spec_of(ethernet: &EthernetInterface, neighbours_max: u32) -> XdpSpec {
    XdpSpec {
        backend: ethernet.backend,
        ethertype: ethernet.ethertype,
        vlan: ethernet.vlan,
        neighbours_max,
        fill_ring_frames: ethernet.fill_ring_frames,
        multi_buffer: ethernet.multi_buffer,
        group: ethernet.beacon_s.map(|_| BEACON_GROUP),
        ..XdpSpec::new(&ethernet.interface, 0)
    }
}

impl EthernetInterface {
    /// The specification of each queue, in a relay with this number of workers and this highest
    /// slot number.
    pub fn specs(&self, workers: usize, slot_max: u32) -> Vec<XdpSpec> {
        let spec = spec_of(self, slot_max + 1);
        let queues = queues_of(self, workers).into_iter();
        queues.map(|(_, queue)| XdpSpec { queue, ..spec.clone() }).collect()
    }
}

fn open_one(
    ethernet: &EthernetInterface,
    neighbours_max: u32,
    opener: &Opener,
    arena: &mut Arena,
    pools: &mut [Pool],
) -> Result<OpenedPort, String> {
    let workers = pools.len();
    let wanted = queues_of(ethernet, workers);
    let mut spec = spec_of(ethernet, neighbours_max);
    let mut info = EthernetInfo::unopened(ethernet.plain, ethernet.beacon_s);
    let mut queues: Vec<(usize, Box<dyn Port>)> = Vec::new();
    for (worker, queue) in wanted {
        spec.queue = queue;
        let pool = pools.get_mut(worker).ok_or(format!("there is no worker {worker}"))?;
        let opened = open(&spec, arena, pool, worker);
        let OpenedEtherPort { port, report } = opened.map_err(|error| match ethernet.queues {
            Queues::All if queue > 0 => format!(
                "{error}; with queues = \"all\" each of {workers} workers needs a queue: ethtool -L \
                 {} combined {workers}",
                ethernet.interface
            ),
            _ => error.to_string(),
        })?;
        let mode = report.mode;
        // All queues of an interface must have the same mode.
        spec.backend = ModeChoice::Only(mode);
        info.gone.push(port.gone().clone());
        info.tallies.push(port.tally().clone());
        info.reports.push(report);
        queues.push((worker, boxed(ethernet, port, opener, worker, workers)?));
        if mode == RxMode::Packet {
            if ethernet.queues == Queues::All && workers > 1 {
                info.notes.push(format!(
                    "af_packet receives the frames of all queues: worker {worker} handles them"
                ));
            }
            return Ok(OpenedPort { queues, info });
        }
    }
    Ok(OpenedPort { queues, info })
}

fn boxed(
    ethernet: &EthernetInterface,
    port: EtherPort,
    opener: &Opener,
    worker: usize,
    workers: usize,
) -> Result<Box<dyn Port>, String> {
    let path = ethernet.capture.as_deref().map(|file| match ethernet.queues {
        Queues::One { .. } => file.to_owned(),
        Queues::All => file_of_worker(file, worker, workers),
    });
    captured(Box::new(port), opener, path.as_deref())
}

/// Checks an interface as a whole. Refuses it, or adds warnings.
fn check(
    config: &RelayBuilder,
    ethernet: &EthernetInterface,
    mut opening: OpenedPort,
) -> Result<OpenedPort, String> {
    let at = &ethernet.interface;
    let sections = config.ethernet.iter().filter(|other| other.interface == *at).count();
    let info = &mut opening.info;
    if info.reports.iter().any(|report| report.mode == RxMode::Packet) {
        if sections == 1 {
            return Ok(opening);
        }
        // Refuse a second socket: each socket receives the frames of all queues, so the relay would
        // receive each frame twice.
        let refused = info.warnings().join("; ");
        return Err(format!(
            "{at} uses af_packet, which receives the frames of all queues; leave one [[ethernet]] of {at}, \
             or allow AF_XDP: {refused}"
        ));
    }
    let has = info.reports.first().map_or(0, |report| report.queues as usize);
    let used = info.reports.len().max(sections);
    if has > used {
        info.notes.push(format!(
            "{at} has {has} queues, and the relay uses {used}: frames that arrive in others go to the kernel \
             and are lost; reduce the queues: ethtool -L {at} combined {used}"
        ));
    }
    Ok(opening)
}
