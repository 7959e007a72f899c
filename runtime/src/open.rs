//! From a checked configuration to a switch that runs: memory, workers, ports, and what is attached
//! at start. It says what was chosen and why; it never forwards a frame itself.

mod alternates;
mod ethernet;
mod memory;
mod rehearsal;
mod roles;
mod udp;

use std::{
    fmt,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use strowger_crypto::{LocalIdentity, OsEntropy, PeerId, Psk, aead::Provider};
use strowger_engine::{
    Now,
    control::{
        Attach, Event, PortId, Switch,
        peering::{PeerSpec, PeeringConfig},
    },
    link::Behind,
    worker::Worker,
};
use strowger_frame::{Address, Pool, Port, map::Backing, reserve::PoolUser};
use strowger_io::{
    Doorbell, Ringer, UnixPort,
    account::Account,
    capture::{Capture, CaptureSpec},
    cores::{cpu_quota, usable_cores, workers_worth},
    udp::{Refusal, Report},
    unix::UnixSpec,
};
use strowger_runtime::{
    clock::Clock,
    worker_thread::{Idle, Running, WorkerBell, start},
};

use self::{alternates::Alternates, ethernet::Opening, memory::needs};
pub(crate) use self::{
    ethernet::{Wire, is_ours_alone, specs_of},
    memory::{MemoryUse, mib},
    rehearsal::rehearse,
    roles::roles,
};
use crate::{
    config::{Config, UnixEndpoint},
    exit::{Exit, Failure},
    files::Opener,
    key, rights,
    state::StateFile,
    untrusted::Untrusted,
};

/// Workers that "auto" makes at most: what one switch takes.
const WORKERS_MAX: usize = 64;
/// How long workers may take to know everything that is attached at start.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// A switch that runs, and what is to be known of it.
pub(crate) struct Topology {
    pub(crate) switch: Switch,
    pub(crate) running: Vec<Running>,
    pub(crate) clock: Clock,
    pub(crate) state: Option<StateFile>,
    pub(crate) ports: Vec<PortInfo>,
    pub(crate) memory: MemoryUse,
    pub(crate) idle: Idle,
    pub(crate) cores: Option<Vec<usize>>,
    /// Who this node is, where it has an identity.
    pub(crate) identity: Option<PeerId>,
    pub(crate) alternates: Alternates,
    /// What came true before anybody could listen.
    pub(crate) events: Vec<Event>,
}

/// What one port is, beside its counters.
#[derive(Clone, Debug)]
pub(crate) struct PortInfo {
    pub(crate) id: PortId,
    /// As the configuration calls it.
    pub(crate) name: String,
    pub(crate) kind: PortKind,
    /// The listener that it is an alternate of.
    pub(crate) alternate_of: Option<PortId>,
}

#[derive(Clone, Debug)]
pub(crate) enum PortKind {
    /// A listener, with what the ladder chose for each worker.
    Udp {
        local: SocketAddr,
        plain: bool,
        reports: Vec<Report>,
        /// Whether handshakes come in apart from the workers; `None` where there are none.
        steered: Option<Result<(), Refusal>>,
    },
    /// An interface, with what the ladder chose for each queue.
    Ethernet(Wire),
    /// A local process.
    Unix { path: String, worker: usize },
}

impl PortInfo {
    /// `io_uring`, `mmsg`, a rung of Ethernet's ladder, or `unix`.
    pub(crate) fn backend(&self) -> &'static str {
        match &self.kind {
            PortKind::Udp { reports, .. } => {
                reports.first().map_or("none", |report| report.backend.name())
            }
            PortKind::Ethernet(wire) => wire.backend(),
            PortKind::Unix { .. } => "unix",
        }
    }

    /// Whether there may be unsealed links to others behind it.
    pub(crate) fn is_plain(&self) -> bool {
        match &self.kind {
            PortKind::Udp { plain, .. } => *plain,
            PortKind::Ethernet(wire) => wire.plain,
            PortKind::Unix { .. } => false,
        }
    }

    /// Whether sealed links to others may be behind it.
    pub(crate) fn has_sealed_links(&self) -> bool {
        !self.is_plain() && !matches!(self.kind, PortKind::Unix { .. })
    }

    /// Whether neighbours behind it have addresses of this kind.
    pub(crate) fn fits(&self, at: Address) -> bool {
        match &self.kind {
            PortKind::Udp { .. } => matches!(at, Address::Udp(_)),
            PortKind::Ethernet(_) => matches!(at, Address::Ether(_)),
            PortKind::Unix { .. } => false,
        }
    }

    /// What would be better here, each once, with the way out.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let all: Vec<String> = match &self.kind {
            PortKind::Udp { reports, steered, .. } => {
                let through_workers = |why: &Refusal| format!("workers take handshakes in: {why}");
                let refused = steered.as_ref().and_then(|steered| steered.as_ref().err());
                let of_sockets = reports.iter().flat_map(Report::warnings);
                of_sockets.chain(refused.map(through_workers)).collect()
            }
            PortKind::Ethernet(wire) => wire.warnings(),
            PortKind::Unix { .. } => {
                let refused = UnixPort::many().err();
                refused
                    .map(|why| format!("one system call for each packet: {why}"))
                    .into_iter()
                    .collect()
            }
        };
        let mut warnings: Vec<String> = Vec::new();
        for warning in all {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        warnings
    }
}

/// Makes everything, starts the workers and waits until they know what is attached.
///
/// # Errors
/// What the machine refused, with the way out. Nothing runs then.
pub(crate) fn assemble(
    config: &Config,
    slow_path: Ringer,
    (account, opener): (Option<&Account>, &Opener),
    said: &mut dyn Write,
) -> Result<Topology, Failure> {
    let count = workers(config)?;
    let (spec, needs, waiting) = needs(config, count);
    let mut pools = Pool::many(&spec, count).map_err(|error| {
        let mib = mib(spec.bytes() * count);
        let line = format!(
            "cannot map {mib} of memory: {error}; lower [memory] trains, or raise `ulimit -v`"
        );
        Failure::new(Exit::Refused, line)
    })?;
    let first = pools.first().map(|pool| (pool.backing(), pool.mapping().bytes()));
    let (backing, bytes) = first.unwrap_or((Backing::SmallPages, 0));
    let tallies = pools.iter().map(|pool| pool.tally().clone()).collect();
    let doors = if udp::has_doors(config) { config.udp.len() } else { 0 };
    let bytes = bytes + doors * udp::DOOR_MEMORY.bytes();
    let memory = MemoryUse { spec, needs, workers: count, doors, bytes, backing, tallies };
    let _ = write!(said, "{memory}");
    say_quota(config, count, said);

    for pool in &mut pools {
        pool.keep(PoolUser::WAITING, waiting);
    }
    // While the pools are still here: chunks of theirs are lent to the kernel.
    let wires = ethernet::open_all(config, opener, &mut pools)?;
    let (mut switch, mut workers) = Switch::new(config.switch, pools)
        .map_err(|error| Failure::new(Exit::Usage, format!("the configuration: {error}")))?;
    let bells = bells(&mut switch, &mut workers)?;
    let bell = Arc::new(WorkerBell(slow_path));
    for worker in &mut workers {
        worker.set_control_bell(bell.clone());
    }
    let clock = Clock::start();
    let identity = identify(config, opener, &mut switch, clock)?;
    if let Some(peer_id) = identity {
        let _ = writeln!(said, "identity: {peer_id}");
    }
    let ports = plug(config, opener, (count, wires), &mut switch, said)?;
    let state = match &config.state {
        Some(path) => Some(StateFile::load(path, opener, &mut switch, clock)?),
        None => None,
    };
    let ids: Vec<PortId> = ports.iter().map(|port| port.id).collect();
    for wish in wishes(config, &switch, &ids, |file| key::psk(file, opener))? {
        wish.attach(&mut switch, clock.now())?;
    }
    // All that needs rights is open, and every key is read.
    if let Some(account) = account {
        rights::give_up(config, account, opener, said)?;
    }
    let state = state.map(|(mut state, before)| {
        if let Some(before) = before {
            let _ = writeln!(said, "state: {} slots as before", before.numbers.len());
            for line in StateFile::overruled(&before, &switch.snapshot(clock.now())) {
                let _ = writeln!(said, "{line}");
            }
        }
        if let Some(warning) = state.keep(&mut switch, clock) {
            let _ = writeln!(said, "{warning}");
        }
        state
    });

    let mut running = Vec::new();
    for (number, (worker, bell)) in workers.into_iter().zip(bells).enumerate() {
        let core = config.cores.as_ref().and_then(|cores| cores.get(number).copied());
        let started = start(worker, bell, clock, config.idle, core);
        running.push(started.map_err(|error| refused("cannot start a worker's thread", &error))?);
    }
    let events = settle(&mut switch, &running, clock)?;
    let (idle, cores) = (config.idle, config.cores.clone());
    let sealed = ports.iter().zip(&config.udp).filter(|(port, _)| port.has_sealed_links());
    let sealed = sealed.filter(|_| config.identity.is_some());
    let alternates =
        Alternates::of(sealed.map(|(port, listener)| {
            (port.id, udp::spec_of(listener, config), listener.name.clone())
        }));
    Ok(Topology {
        switch,
        running,
        clock,
        state,
        ports,
        memory,
        idle,
        cores,
        identity,
        alternates,
        events,
    })
}

/// Says who the node is, where the configuration does.
fn identify(
    config: &Config,
    opener: &Opener,
    switch: &mut Switch,
    clock: Clock,
) -> Result<Option<PeerId>, Failure> {
    let Some(identity) = &config.identity else { return Ok(None) };
    let local = LocalIdentity::new(&key::identity(&identity.key, opener)?, identity.network);
    introduce(config, local, switch, clock).map(Some)
}

/// Gives the switch its identity.
fn introduce(
    config: &Config,
    local: LocalIdentity,
    switch: &mut Switch,
    clock: Clock,
) -> Result<PeerId, Failure> {
    let peer_id = local.identity().peer_id();
    let peering = PeeringConfig {
        local,
        entropy: Box::new(OsEntropy),
        provider: Provider::DEFAULT,
        wall_at_zero: clock.wall_at_zero(SystemTime::now()),
        strangers: config.strangers,
    };
    switch
        .set_identity(peering, clock.now())
        .map_err(|error| Failure::new(Exit::Refused, format!("[identity]: {error}")))?;
    Ok(peer_id)
}

fn refused(what: &str, error: &io::Error) -> Failure {
    let line = format!("{what}: {error}; the limits are those of `ulimit -u` and `ulimit -n`");
    Failure::new(Exit::Refused, line)
}

/// How many workers there are to be.
///
/// # Errors
/// One line: a core that this process may not use.
pub(crate) fn workers(config: &Config) -> Result<usize, Failure> {
    let usable = usable_cores();
    if let Some(core) = config.cores.iter().flatten().find(|core| !usable.contains(core)) {
        let line = format!(
            "core {core} cannot be used by this process; usable: {usable:?} (see `taskset -p`, or \
             the container's cpuset)"
        );
        return Err(Failure::new(Exit::Refused, line));
    }
    let worth = workers_worth(usable.len(), cpu_quota());
    Ok(config.workers.unwrap_or(worth.min(WORKERS_MAX)))
}

/// Says whether control groups leave less processor time than the workers could use.
fn say_quota(config: &Config, workers: usize, said: &mut dyn Write) {
    let Some(quota) = cpu_quota() else { return };
    let usable = usable_cores().len();
    if config.workers.is_none() && usable > workers {
        let _ = writeln!(
            said,
            "workers: {workers}, since control groups allow {quota:.2} of {usable} cores' time"
        );
    } else if config.workers.is_some() && quota < workers as f64 {
        let _ = writeln!(
            said,
            "  warning: workers = {workers}, and control groups allow {quota:.2} cores' time; they are \
             held still for parts of a second under load; write workers = \"auto\", or raise the quota"
        );
    }
}

/// Ties slow path and workers to each other's doorbells.
fn bells(switch: &mut Switch, workers: &mut [Worker]) -> Result<Vec<Doorbell>, Failure> {
    let mut doorbells = Vec::new();
    for number in 0..workers.len() {
        let doorbell = Doorbell::new().map_err(|error| refused("no doorbell", &error))?;
        let bell = Arc::new(WorkerBell(doorbell.ringer()));
        switch.set_bell(number, bell.clone());
        for worker in workers.iter_mut() {
            worker.set_bell(number, bell.clone());
        }
        doorbells.push(doorbell);
    }
    Ok(doorbells)
}

fn plug(
    config: &Config,
    opener: &Opener,
    (workers, wires): (usize, Vec<Opening>),
    switch: &mut Switch,
    said: &mut dyn Write,
) -> Result<Vec<PortInfo>, Failure> {
    let refused = |error: String| Failure::new(Exit::Refused, error);
    let mut ports = Vec::new();
    // Handshakes come from addresses that nobody has yet, and so does the data of a peer that has
    // moved.
    let is_open = |place: usize, plain: bool| {
        let is_met = config.peers.iter().any(|peer| peer.listener == place);
        // A peer may come in by any listener whose links are sealed.
        let is_sealed = config.identity.is_some() && !plain;
        is_met || is_sealed && (config.strangers.is_some() || !config.peers.is_empty())
    };
    for listener in &config.udp {
        let udp::Opening { queues, reports, door, steered } =
            udp::open(listener, config, opener, workers)
                .map_err(|error| refused(format!("[[udp]] {}: {error}", listener.name)))?;
        let local = reports.first().map_or(listener.address, |report| report.local);
        let id = switch.plug_everywhere(queues).map_err(|error| refused(error.to_string()))?;
        if let Some(door) = door {
            switch.open_door(id, door).map_err(|error| refused(error.to_string()))?;
        }
        switch.welcome_strangers(id, is_open(ports.len(), listener.plain));
        let kind = PortKind::Udp { local, plain: listener.plain, reports, steered };
        ports.push(PortInfo { id, name: listener.name.clone(), kind, alternate_of: None });
    }
    for (ethernet, Opening { mut queues, info }) in config.ethernet.iter().zip(wires) {
        let id = match (queues.pop(), queues.is_empty()) {
            (Some((worker, only)), true) => switch.plug_at(worker, only),
            (last, _) => {
                let all = queues.into_iter().chain(last).map(|(_, queue)| queue);
                switch.plug_everywhere(all.collect())
            }
        };
        let id = id.map_err(|error| refused(error.to_string()))?;
        let beacon = info.beacon();
        switch.welcome_strangers(id, is_open(ports.len(), info.plain) || beacon.is_some());
        switch.set_beacon(id, beacon);
        let kind = PortKind::Ethernet(info);
        ports.push(PortInfo { id, name: ethernet.name.clone(), kind, alternate_of: None });
    }
    for UnixEndpoint { name, path, frame_bytes_max, worker, capture, .. } in &config.unix {
        let spec = UnixSpec { frame_bytes_max: *frame_bytes_max, ..UnixSpec::default() };
        let listening = opener.within(path, |_, _| Ok(UnixPort::listen(path, &spec)));
        let port = listening
            .map_err(|error| refused(format!("[[unix]] {name}: {}: {error}", path.display())))?
            .map_err(|error| refused(format!("[[unix]] {name}: {error}")))?;
        let port = captured(Box::new(port), opener, capture.as_deref())
            .map_err(|error| refused(format!("[[unix]] {name}: {error}")))?;
        let id = switch.plug_at(*worker, port);
        let id = id.map_err(|error| refused(error.to_string()))?;
        let kind = PortKind::Unix { path: path.display().to_string(), worker: *worker };
        ports.push(PortInfo { id, name: name.clone(), kind, alternate_of: None });
    }
    for port in &ports {
        let _ = write!(said, "{port}");
    }
    Ok(ports)
}

/// The port as it is, or behind a wrapper that writes what passes to a file.
fn captured(
    port: Box<dyn Port>,
    opener: &Opener,
    path: Option<&Path>,
) -> Result<Box<dyn Port>, String> {
    let Some(path) = path else { return Ok(port) };
    let file = opener.capture(path);
    let capture = file.and_then(|file| Capture::to_file(port, file, &CaptureSpec::default()));
    let capture = capture.map_err(|error| {
        format!("cannot capture to {}: {error}; choose another file", path.display())
    })?;
    Ok(Box::new(capture))
}

/// `wan.pcapng` for a worker alone, `wan.0.pcapng` and so on for several: each writes its own file.
fn of_worker(path: &Path, worker: usize, workers: usize) -> PathBuf {
    if workers == 1 { path.to_owned() } else { beside(path, &worker.to_string()) }
}

/// `wan.handshakes.pcapng` beside `wan.pcapng`.
fn beside(path: &Path, word: &str) -> PathBuf {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    path.with_extension(format!("{word}.{extension}").trim_end_matches('.'))
}

/// What is to have a slot.
enum Wish {
    Plain(Attach),
    Sealed(Box<PeerSpec>),
}

impl Wish {
    fn slot(&self) -> Option<u32> {
        match self {
            Self::Plain(attach) => attach.slot,
            Self::Sealed(spec) => spec.slot,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Plain(attach) => attach.name.clone(),
            Self::Sealed(spec) => spec.name.clone(),
        }
    }

    /// Gives it a slot.
    fn attach(self, switch: &mut Switch, now: Now) -> Result<(), Failure> {
        let name = self.name();
        let refused = |why: &dyn fmt::Display| {
            Failure::new(Exit::Usage, format!("{name} cannot be attached: {why}"))
        };
        match self {
            Self::Plain(attach) => switch.attach(attach).map_err(|why| refused(&why))?,
            Self::Sealed(spec) => switch.add_peer(*spec, now).map_err(|why| refused(&why))?,
        };
        Ok(())
    }

    /// Whether a slot is kept for it over the restart.
    fn is_expected(&self, switch: &Switch) -> bool {
        match self {
            Self::Plain(attach) => switch.is_kept_for(None, &attach.name),
            Self::Sealed(spec) => switch.is_kept_for(spec.key.map(|key| key.0), &spec.name),
        }
    }
}

/// What is to have a slot, in the order in which slots are given: pinned ones first, so that no other neighbour is
/// given one of them; then those who had one before, so that nothing new gets one of theirs. `ports` are those of
/// the configuration, in its order.
///
/// # Errors
/// Those of `psk`, which reads a file.
fn wishes(
    config: &Config,
    switch: &Switch,
    ports: &[PortId],
    psk: impl Fn(&Path) -> Result<Psk, Failure>,
) -> Result<Vec<Wish>, Failure> {
    let mut wishes = Vec::new();
    for peer in &config.peers {
        let mut spec = PeerSpec::discovered(&peer.name, peer.identity, ports[peer.listener]);
        spec.key = peer.key;
        spec.psk = peer.psk.as_ref().map_or(Ok(Psk::NONE), |file| psk(file))?;
        spec.at = peer.address;
        spec.slot = peer.slot;
        spec.rights = peer.rights;
        spec.seal = peer.seal;
        spec.frame_bytes_max = peer.frame_bytes_max;
        spec.liveness = peer.liveness;
        wishes.push(Wish::Sealed(Box::new(spec)));
    }
    for neighbour in &config.neighbours {
        let (port, at) = (ports[neighbour.listener], neighbour.address);
        let plain = Attach::plain(port, at, Behind::Neighbour, &neighbour.name);
        wishes.push(Wish::Plain(Attach { slot: neighbour.slot, ..plain }));
    }
    let others = config.udp.len() + config.ethernet.len();
    for (unix, port) in config.unix.iter().zip(&ports[others..]) {
        let plain = Attach::plain(*port, Address::Only, Behind::Endpoint, &unix.name);
        wishes.push(Wish::Plain(Attach { slot: unix.slot, ..plain }));
    }
    let (mut pinned, free): (Vec<Wish>, Vec<Wish>) =
        wishes.into_iter().partition(|wish| wish.slot().is_some());
    let (expected, new): (Vec<Wish>, Vec<Wish>) =
        free.into_iter().partition(|wish| wish.is_expected(switch));
    pinned.extend(expected);
    pinned.extend(new);
    Ok(pinned)
}

/// Polls until every worker knows all that is attached; what came true meanwhile is returned.
fn settle(switch: &mut Switch, running: &[Running], clock: Clock) -> Result<Vec<Event>, Failure> {
    let mut events = Vec::new();
    let deadline = Instant::now() + SETTLE_MAX;
    loop {
        for event in switch.poll(clock.now()) {
            if let Event::AttachRefused(slot, why) = event {
                let line = format!("what was to have slot {slot} cannot be attached: {why}");
                return Err(Failure::new(Exit::Usage, line));
            }
            events.push(event);
        }
        if switch.is_settled() {
            return Ok(events);
        }
        if running.iter().any(Running::has_died) || Instant::now() > deadline {
            let line = "the workers do not start; `strowger doctor` says what the machine allows";
            return Err(Failure::new(Exit::Died, line));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

impl fmt::Display for PortInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id: PortId(id), name, kind, .. } = self;
        match kind {
            PortKind::Unix { path, worker } => {
                writeln!(f, "port {id} {name}: unix {}, on worker {worker}", Untrusted(path))?;
            }
            PortKind::Udp { reports, plain, steered, .. } => {
                if let Some(report) = reports.first() {
                    // Its warnings follow, those of all workers together and each once.
                    let chosen = report.to_string();
                    let chosen = chosen.lines().next().unwrap_or_default();
                    let links = if *plain { "links plain, not sealed" } else { "links sealed" };
                    let apart = match steered {
                        Some(Ok(())) => ", handshakes apart",
                        Some(Err(_)) | None => "",
                    };
                    writeln!(f, "port {id} {name}: {chosen}; {links}{apart}")?;
                }
            }
            PortKind::Ethernet(wire) => {
                let links = if wire.plain { "links plain, not sealed" } else { "links sealed" };
                let every = wire.beacon_s.map(|s| format!(", a beacon every {s} s"));
                let beacon = every.unwrap_or_default();
                for chosen in wire.chosen() {
                    writeln!(f, "port {id} {name}: {chosen}; {links}{beacon}")?;
                }
            }
        }
        let mut warnings = self.warnings().into_iter();
        warnings.try_for_each(|warning| writeln!(f, "  warning: {warning}"))
    }
}
