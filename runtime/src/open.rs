//! Opens a relay: its memory, workers and ports, and the slots that are attached at start. No
//! thread runs before [`OpenRelay::start`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use strowger_crypto::{LocalIdentity, NetworkId, OsEntropy, PeerId};
use strowger_engine::{
    Now,
    control::{
        Attach, Event as SwitchEvent, Snapshot, Switch,
        peering::{PeerSpec, PeeringConfig},
    },
    link::Behind,
    worker::Worker,
};
use strowger_frame::{Address, Pool, Port, map::Backing, reserve::PoolUser, sleep::Wake};
use strowger_io::{
    Doorbell, UnixPort,
    capture::{Capture, CaptureSpec},
    endpoint,
    sys::cores::{cpu_quota, usable_cores, workers_worth},
    unix::{Clients, SwitchFacts, UnixSpec},
};
use strowger_wire::Slot;

use crate::{
    alternates::Alternates,
    attach,
    builder::RelayBuilder,
    clock::Clock,
    error::{NeighborError, Source, StartError},
    ethernet,
    event::EventHub,
    files::Opener,
    handle::RelayHandle,
    limits::{ALTERNATES_MAX, NAME_BYTES_MAX, START_MAX, WORKERS_MAX},
    local_port::{LocalPort, SharedScheme},
    machine_addresses::MachineAddresses,
    memory::{MemoryUse, needs},
    port_info::{PortInfo, PortKind},
    rights,
    slow_path::{RequestReceiver, SlowPath},
    spec::{CustomQueues, LocalPortSpec, UnixSocket},
    state::StateFile,
    udp,
    unix_clients::UnixClients,
    unix_facts::UnixFacts,
    untrusted::is_harmless,
    worker_thread::{self, WorkerThread},
};

/// A relay whose memory, ports and files are open, and whose threads have not been started.
#[must_use = "an open relay does nothing until it is started"]
pub struct OpenRelay {
    pub(crate) switch: Switch,
    workers: Vec<Worker>,
    doorbells: Vec<Doorbell>,
    inbox: RequestReceiver,
    clock: Clock,
    state: Option<(StateFile, Option<Snapshot>)>,
    ports: Vec<PortInfo>,
    memory: MemoryUse,
    builder: RelayBuilder,
    opener: Opener,
    identity: Option<PeerId>,
    alternates: Alternates,
    hub: Arc<EventHub>,
    local_ports: BTreeMap<String, LocalPort>,
    scheme: Arc<SharedScheme>,
    unix_facts: UnixFacts,
    unix_clients: UnixClients,
    quota: Option<String>,
}

impl fmt::Debug for OpenRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenRelay").field("ports", &self.ports).finish_non_exhaustive()
    }
}

impl OpenRelay {
    pub(crate) fn open(mut builder: RelayBuilder) -> Result<Self, StartError> {
        check_names(&builder)?;
        let opener = builder.opener.take().unwrap_or_else(|| Opener::new(builder.run_as.as_ref()));
        let count = workers(builder.workers, builder.cores.as_deref())?;
        let (mut pools, memory) = pools(&mut builder, count)?;
        // Open the interfaces before the switch gets the pools: the kernel's fill rings take chunks
        // from the pools.
        let interfaces = ethernet::open_all(&builder, &opener, &mut pools)?;
        let (mut switch, mut workers) =
            Switch::new(builder.switch, pools).map_err(StartError::Switch)?;
        let handshake_sockets = builder.udp.len() * (1 + ALTERNATES_MAX) + builder.custom.len();
        let (inbox, slow_path_waker) =
            RequestReceiver::new(handshake_sockets + builder.unix.len())?;
        let doorbells = doorbells(&mut switch, &mut workers)?;
        let waker = Arc::new(slow_path_waker);
        for worker in &mut workers {
            worker.set_slow_path_waker(waker.clone());
        }
        let clock = Clock::start();
        let identity = identify(&builder, &mut switch, clock)?;
        switch.set_resolver(builder.resolver.take().map(|known| known.0));
        let scheme =
            Arc::new(SharedScheme::new(*builder.switch.scheme(), builder.switch.hops_max()));
        let mut plugging = Plugging {
            builder: &mut builder,
            opener: &opener,
            workers: count,
            switch: &mut switch,
            ports: Vec::new(),
            local_ports: BTreeMap::new(),
            unix_facts: UnixFacts::default(),
            unix_clients: UnixClients::default(),
        };
        plugging.udp()?;
        plugging.ethernet(interfaces)?;
        plugging.unix(identity, &waker)?;
        plugging.local(&scheme)?;
        plugging.custom()?;
        let Plugging { ports, local_ports, unix_facts, unix_clients, .. } = plugging;
        let state = match &builder.state_file {
            Some(path) => Some(
                StateFile::load(path, &opener, &mut switch, clock).map_err(StartError::State)?,
            ),
            None => None,
        };
        let (attach_requests, mut refused) = attach_requests(&mut builder, &switch, &ports);
        if !refused.is_empty() {
            return Err(refused.swap_remove(0));
        }
        for request in attach_requests {
            request.attach(&mut switch, clock.now())?;
        }
        let alternates = alternates(&builder, &ports);
        Ok(Self {
            quota: quota(builder.workers.is_some(), count),
            switch,
            workers,
            doorbells,
            inbox,
            clock,
            state,
            ports,
            memory,
            builder,
            opener,
            identity,
            alternates,
            hub: Arc::default(),
            local_ports,
            scheme,
            unix_facts,
            unix_clients,
        })
    }

    /// The memory of the workers, as a sum of named needs.
    pub fn memory(&self) -> &MemoryUse {
        &self.memory
    }

    /// The ports, grouped by kind. Ports of one kind are in the order in which they were added.
    pub fn ports(&self) -> &[PortInfo] {
        &self.ports
    }

    /// The PeerId of the relay; `None` if the relay has no identity.
    pub fn identity(&self) -> Option<PeerId> {
        self.identity
    }

    /// A message for the operator, if the CPU quota of the control groups is less than the workers
    /// could use.
    pub fn quota_note(&self) -> Option<&str> {
        self.quota.as_deref()
    }

    /// Subscribes to all events, including those of the start.
    pub fn events(&self, waiting_max: usize) -> crate::event::Events {
        self.hub.subscribe(waiting_max)
    }

    /// Drops privileges if the relay is configured to run as another user, starts the threads, and
    /// blocks until every worker has confirmed the attached slots.
    ///
    /// # Errors
    /// [`StartError`]. After an error no thread of the relay runs.
    pub fn start(self) -> Result<RelayHandle, StartError> {
        let mut notes = Vec::new();
        let Self { mut switch, workers, doorbells, clock, builder, mut unix_facts, .. } = self;
        // Before a worker accepts a process.
        unix_facts.set(&switch);
        // Privileges are no longer needed: everything that requires them is open.
        if let Some(account) = &builder.run_as {
            rights::give_up(&builder, account, &self.opener, &mut notes)?;
        }
        let mut state = self.state.map(|(mut state, before)| {
            if let Some(before) = before {
                notes.push(format!("state: {} slots as before", before.numbers.len()));
                notes.extend(StateFile::overruled(&before, &switch.snapshot(clock.now())));
            }
            if let Some(change) = state.keep(&mut switch, clock) {
                notes.push(change.to_string());
            }
            state
        });
        let mut threads = Vec::new();
        // Custom ports may need to be polled, as Ethernet ports are.
        let polls_ports = self
            .ports
            .iter()
            .any(|port| matches!(port.kind, PortKind::Ethernet(_) | PortKind::Custom { .. }));
        for (number, (worker, doorbell)) in workers.into_iter().zip(doorbells).enumerate() {
            let core = builder.cores.as_ref().and_then(|cores| cores.get(number).copied());
            let started = worker_thread::start(
                worker,
                doorbell,
                clock,
                builder.idle,
                core,
                Some(self.inbox.waker()),
                polls_ports,
            );
            let what = "cannot start a worker's thread";
            threads.push(started.map_err(|source| StartError::Resource { what, source })?);
        }
        let hub = self.hub.clone();
        let early = settle(&mut switch, &threads, clock, state.as_mut(), &mut notes)?;
        let slow_path = SlowPath::new(crate::slow_path::Parts {
            switch,
            threads,
            clock,
            state,
            ports: self.ports,
            memory: self.memory,
            idle: builder.idle,
            cores: builder.cores,
            identity: self.identity,
            alternates: self.alternates,
            hub: self.hub.clone(),
            scheme: self.scheme,
            unix_facts,
            unix_clients: self.unix_clients,
        });
        RelayHandle::start(slow_path, self.inbox, early, self.local_ports, notes, hub)
    }
}

/// Checks that names are unique, have 1 to 64 bytes, and contain only characters that can be
/// printed safely. Ports have one namespace and users of slots another. Unix sockets and local
/// ports need a unique name in both. Each port of a unix socket for several processes has its own
/// name.
pub(crate) fn check_names(builder: &RelayBuilder) -> Result<(), StartError> {
    let mut ports = BTreeSet::new();
    let mut slots = BTreeSet::new();
    let port_names = (builder.udp.iter().map(|it| &it.name))
        .chain(builder.ethernet.iter().map(|it| &it.name))
        .chain(builder.custom.iter().map(|it| &it.name));
    let of_clients = builder.unix.iter().filter(|it| it.clients.is_some());
    let of_clients: Vec<String> = of_clients.flat_map(|it| it.port_names()).collect();
    let users = || {
        let unix = builder.unix.iter().map(|it| &it.name).chain(&of_clients);
        unix.chain(builder.local.iter().map(|it| &it.name))
    };
    let neighbors = (builder.peers.iter().map(|it| &it.name))
        .chain(builder.neighbors.iter().map(|it| &it.name));
    let check = |name: &String, taken: &mut BTreeSet<String>| {
        let why = if name.is_empty() {
            "is empty"
        } else if name.len() > NAME_BYTES_MAX {
            "is longer than 64 bytes"
        } else if !name.chars().all(is_harmless) {
            "holds characters that cannot be shown"
        } else if !taken.insert(name.clone()) {
            "is used twice"
        } else {
            return Ok(());
        };
        Err(StartError::Name { name: name.clone(), why })
    };
    port_names.chain(users()).try_for_each(|name| check(name, &mut ports))?;
    neighbors.chain(users()).try_for_each(|name| check(name, &mut slots))
}

/// Allocates the pools of all workers, unless the program supplied them. Returns them with their
/// needs.
fn pools(builder: &mut RelayBuilder, workers: usize) -> Result<(Vec<Pool>, MemoryUse), StartError> {
    let (spec, needs, waiting) = needs(builder, workers);
    let mut pools = match builder.pools.take() {
        Some(pools) => pools,
        None => Pool::group(&spec, workers)
            .map_err(|source| StartError::Memory { bytes: spec.bytes() * workers, source })?,
    };
    let first = pools.first().map(|pool| (pool.backing(), pool.mapping().bytes()));
    let (backing, bytes) = first.unwrap_or((Backing::SmallPages, 0));
    let tallies = pools.iter().map(|pool| pool.tally().clone()).collect();
    let handshake_sockets = if udp::has_handshakes(builder) { builder.udp.len() } else { 0 };
    let bytes = bytes + handshake_sockets * udp::HANDSHAKE_POOL.bytes();
    for pool in &mut pools {
        pool.reserve(PoolUser::WAITING, waiting);
    }
    Ok((pools, MemoryUse { spec, needs, workers, handshake_sockets, bytes, backing, tallies }))
}

/// Sets the identity of the switch, if there is one.
pub(crate) fn identify(
    builder: &RelayBuilder,
    switch: &mut Switch,
    clock: Clock,
) -> Result<Option<PeerId>, StartError> {
    let Some(key) = &builder.identity else { return Ok(None) };
    let network = NetworkId::new(builder.network.as_bytes())
        .ok_or_else(|| StartError::Network(builder.network.clone()))?;
    let local = LocalIdentity::new(key, network);
    let peer_id = local.identity().peer_id();
    let peering = PeeringConfig::new(local, Box::new(OsEntropy))
        .with_provider(builder.provider)
        .with_wall_at_zero(clock.wall_at_zero(SystemTime::now()))
        .with_unknown_peers(builder.accept_unknown);
    switch.set_identity(peering, clock.now()).map_err(StartError::Identity)?;
    Ok(Some(peer_id))
}

/// The number of workers: `wanted`, or the number that the usable cores and the CPU quota allow.
/// Also checks `cores`.
///
/// # Errors
/// [`StartError::Core`]: this process may not use one of the cores.
pub fn workers(wanted: Option<usize>, cores: Option<&[usize]>) -> Result<usize, StartError> {
    let usable = usable_cores();
    if let Some(&core) = cores.into_iter().flatten().find(|core| !usable.contains(core)) {
        return Err(StartError::Core { core, usable });
    }
    let worth = workers_worth(usable.len(), cpu_quota());
    Ok(wanted.unwrap_or(worth.min(WORKERS_MAX)))
}

/// Returns a message if the CPU quota of the control groups is less than the workers could use.
fn quota(is_chosen: bool, workers: usize) -> Option<String> {
    let quota = cpu_quota()?;
    let usable = usable_cores().len();
    if !is_chosen && usable > workers {
        return Some(format!(
            "workers: {workers}, since control groups allow {quota:.2} of {usable} cores' time"
        ));
    }
    (is_chosen && quota < workers as f64).then(|| {
        format!(
            "  warning: workers = {workers}, and control groups allow {quota:.2} cores' time; the \
             kernel stops them for parts of a second under load; write workers = \"auto\", or raise the quota"
        )
    })
}

/// Makes a doorbell per worker, and passes its waker to the slow path and to all workers.
fn doorbells(switch: &mut Switch, workers: &mut [Worker]) -> Result<Vec<Doorbell>, StartError> {
    let mut doorbells = Vec::new();
    for number in 0..workers.len() {
        let what = "cannot make a doorbell";
        let doorbell = Doorbell::new().map_err(|source| StartError::Resource { what, source })?;
        let waker = Arc::new(doorbell.waker());
        switch.set_waker(number, waker.clone());
        for worker in workers.iter_mut() {
            worker.set_waker(number, waker.clone());
        }
        doorbells.push(doorbell);
    }
    Ok(doorbells)
}

/// Opens the ports and plugs them into the switch, one kind after the other.
struct Plugging<'r> {
    builder: &'r mut RelayBuilder,
    opener: &'r Opener,
    workers: usize,
    switch: &'r mut Switch,
    ports: Vec<PortInfo>,
    local_ports: BTreeMap<String, LocalPort>,
    unix_facts: UnixFacts,
    unix_clients: UnixClients,
}

/// Returns a function that wraps an error of this port in a `StartError`.
fn refused<E: Into<Source>>(kind: &'static str, name: &str) -> impl FnOnce(E) -> StartError {
    let name = name.to_owned();
    move |error| StartError::Port { kind, name, source: error.into() }
}

impl Plugging<'_> {
    /// Whether the port accepts frames from unknown addresses: handshakes, and data from a peer
    /// that has moved.
    fn is_open(&self, name: &str, plain: bool) -> bool {
        let RelayBuilder { peers, identity, .. } = &*self.builder;
        let is_met = peers.iter().any(|peer| peer.behind.as_deref() == Some(name));
        // A peer's frames may arrive on any listener with sealed links. Without peers, the slow
        // path refuses handshakes, and so reports who calls.
        is_met || identity.is_some() && !plain
    }

    fn udp(&mut self) -> Result<(), StartError> {
        for listener in &self.builder.udp {
            let name = &listener.name;
            let udp::OpenedPort { queues, reports, handshake_socket, steered } =
                udp::open(listener, self.builder, self.opener, self.workers)
                    .map_err(refused("udp", name))?;
            let local = reports.first().map_or(listener.address, |report| report.local);
            let id = self.switch.plug_everywhere(queues).map_err(refused("udp", name))?;
            if let Some(handshake_socket) = handshake_socket {
                self.switch
                    .open_handshake_socket(id, handshake_socket)
                    .map_err(refused("udp", name))?;
            }
            self.switch.accept_unknown(id, self.is_open(name, listener.plain));
            let kind = PortKind::Udp { local, plain: listener.plain, reports, steered };
            self.ports.push(PortInfo::new(id, name, kind));
        }
        Ok(())
    }

    fn ethernet(&mut self, interfaces: Vec<ethernet::OpenedPort>) -> Result<(), StartError> {
        for (ethernet, opening) in self.builder.ethernet.iter().zip(interfaces) {
            let ethernet::OpenedPort { mut queues, info } = opening;
            let name = &ethernet.name;
            let id = match (queues.pop(), queues.is_empty()) {
                (Some((worker, only)), true) => self.switch.plug_at(worker, only),
                (last, _) => {
                    let all = queues.into_iter().chain(last).map(|(_, queue)| queue);
                    self.switch.plug_everywhere(all.collect())
                }
            };
            let id = id.map_err(refused("ethernet", name))?;
            let beacon = info.beacon();
            let is_open = self.is_open(name, info.plain) || beacon.is_some();
            self.switch.accept_unknown(id, is_open);
            self.switch.set_beacon(id, beacon);
            self.ports.push(PortInfo::new(id, name, PortKind::Ethernet(info)));
        }
        Ok(())
    }

    fn unix(
        &mut self,
        peer_id: Option<PeerId>,
        slow_path: &Arc<impl Wake + 'static>,
    ) -> Result<(), StartError> {
        let identity = peer_id.and_then(|peer_id| peer_id.identity().ok());
        let identity = identity.map_or([0; 32], |identity| identity.to_bytes());
        for socket in &self.builder.unix {
            let UnixSocket { name, path, frame_bytes_max, .. } = socket;
            let spec = UnixSpec { frame_bytes_max: *frame_bytes_max, ..UnixSpec::default() };
            let listening = self.opener.within(path, |_, _| {
                Ok(match socket.clients {
                    None => UnixPort::listen(path, &spec).map(|port| (None, vec![port])),
                    Some(count) => {
                        let owner: Arc<dyn Wake> = slow_path.clone();
                        Clients::listen(path, &spec, count, &owner)
                            .map(|(listener, ports)| (Some(listener), ports))
                    }
                })
            });
            let (listener, ports) = listening
                .map_err(|error| format!("{}: {error}", path.display()))
                .map_err(refused("unix", name))?
                .map_err(|error| refused("unix", name)(error.to_string()))?;
            let mut plugged = Vec::new();
            let (names, captures) = (socket.port_names(), socket.capture_files());
            for (number, mut port) in ports.into_iter().enumerate() {
                let facts = Arc::new(SwitchFacts::new(identity));
                port.set_facts(facts.clone());
                let capture = captures.get(number).map(PathBuf::as_path);
                let port = captured(Box::new(port), self.opener, capture)
                    .map_err(refused("unix", name))?;
                let id = self.switch.plug_at(socket.worker, port).map_err(refused("unix", name))?;
                self.unix_facts.add(id, facts.clone());
                self.ports.push(PortInfo::new(id, &names[number], socket.port_kind()));
                plugged.push((id, facts));
            }
            if let Some(listener) = listener {
                let slot_max = self.builder.switch.slot_max();
                self.unix_clients.add(name, listener, plugged, slot_max);
            }
        }
        Ok(())
    }

    fn local(&mut self, scheme: &Arc<SharedScheme>) -> Result<(), StartError> {
        for LocalPortSpec { name, worker, endpoint, .. } in &self.builder.local {
            let (port, sender, receiver) =
                endpoint::split_pair(endpoint).map_err(refused("local", name))?;
            let id =
                self.switch.plug_at(*worker, Box::new(port)).map_err(refused("local", name))?;
            self.ports.push(PortInfo::new(id, name, PortKind::Local { worker: *worker }));
            let port = LocalPort::new(name.clone(), scheme.clone(), sender, receiver);
            self.local_ports.insert(name.clone(), port);
        }
        Ok(())
    }

    fn custom(&mut self) -> Result<(), StartError> {
        for custom in std::mem::take(&mut self.builder.custom) {
            let name = &custom.name;
            let id = match custom.queues {
                CustomQueues::Each(queues) => self.switch.plug_everywhere(queues),
                CustomQueues::At(worker, port) => self.switch.plug_at(worker, port),
            };
            let id = id.map_err(refused("custom", name))?;
            self.switch.accept_unknown(id, self.is_open(name, custom.plain));
            self.ports.push(PortInfo::new(id, name, PortKind::Custom { plain: custom.plain }));
        }
        Ok(())
    }
}

/// Wraps the port in a capture if `path` is given.
pub(crate) fn captured(
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

/// A neighbor, peer, unix socket or local port to attach to a slot at start.
pub(crate) enum AttachRequest {
    Plain(Attach),
    Sealed(Box<PeerSpec>),
}

impl AttachRequest {
    fn slot(&self) -> Option<Slot> {
        match self {
            Self::Plain(attach) => attach.slot(),
            Self::Sealed(spec) => spec.slot(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Plain(attach) => attach.name().to_owned(),
            Self::Sealed(spec) => spec.name().to_owned(),
        }
    }

    /// Attaches this neighbor, peer, unix socket or local port to a slot of the switch.
    pub(crate) fn attach(self, switch: &mut Switch, now: Now) -> Result<(), StartError> {
        let name = self.name();
        let attached = match self {
            Self::Plain(attach) => switch.attach(attach).map_err(NeighborError::Switch),
            Self::Sealed(spec) => switch.add_peer(*spec, now).map_err(NeighborError::Peer),
        };
        attached.map(drop).map_err(|source| StartError::Attach { name, source })
    }

    /// Whether the state file has a slot for the user.
    fn is_expected(&self, switch: &Switch) -> bool {
        match self {
            Self::Plain(attach) => switch.is_kept_for(None, attach.name()),
            Self::Sealed(spec) => switch.is_kept_for(spec.key().map(|key| key.0), spec.name()),
        }
    }
}

/// The requests for slots, in the order in which they must be attached. Those with a configured
/// slot come first, so that no other request gets that slot. Those with a slot in the state file
/// come next, so that no new user gets their slot. Also returns the errors of requests that are
/// invalid.
pub(crate) fn attach_requests(
    builder: &mut RelayBuilder,
    switch: &Switch,
    ports: &[PortInfo],
) -> (Vec<AttachRequest>, Vec<StartError>) {
    let (mut attach_requests, mut errors) = (Vec::new(), Vec::new());
    let mut add = |name: String, request: Result<AttachRequest, NeighborError>| match request {
        Ok(request) => attach_requests.push(request),
        Err(source) => errors.push(StartError::Attach { name, source }),
    };
    let machine = MachineAddresses::now();
    for peer in std::mem::take(&mut builder.peers) {
        let name = peer.name.clone();
        let spec = attach::peer_spec(ports, &machine, peer);
        add(name, spec.map(|spec| AttachRequest::Sealed(Box::new(spec))));
    }
    for neighbor in std::mem::take(&mut builder.neighbors) {
        let name = neighbor.name.clone();
        add(name, attach::plain_attach(ports, &machine, neighbor).map(AttachRequest::Plain));
    }
    // The ports of a socket for several processes are attached when processes connect.
    let unix = builder.unix.iter().filter(|unix| unix.clients.is_none());
    let users = (unix.map(|unix| (&unix.name, unix.slot)))
        .chain(builder.local.iter().map(|local| (&local.name, local.slot)));
    for (name, slot) in users {
        let Some(port) = ports.iter().find(|port| port.name == *name) else { continue };
        let plain = Attach::plain(port.id, Address::Only, Behind::Endpoint, name);
        add(name.clone(), Ok(AttachRequest::Plain(plain.with_slot(slot))));
    }
    let (mut pinned, free): (Vec<AttachRequest>, Vec<AttachRequest>) =
        attach_requests.into_iter().partition(|request| request.slot().is_some());
    let (expected, new): (Vec<AttachRequest>, Vec<AttachRequest>) =
        free.into_iter().partition(|request| request.is_expected(switch));
    pinned.extend(expected);
    pinned.extend(new);
    (pinned, errors)
}

/// Prepares alternate ports for the listeners with sealed links.
fn alternates(builder: &RelayBuilder, ports: &[PortInfo]) -> Alternates {
    let sealed = ports.iter().zip(&builder.udp).filter(|(port, _)| port.has_sealed_links());
    let sealed = sealed.filter(|_| builder.identity.is_some());
    Alternates::new(
        sealed.map(|(port, listener)| {
            (port.id, udp::spec_of(listener, builder), listener.name.clone())
        }),
    )
}

/// Polls until every worker has confirmed the attached slots. Returns the events of these polls.
///
/// This loop must also write the state file. An unknown peer may connect meanwhile, and its slot is
/// published only after the state file contains it. Without the write, the switch would not settle
/// and the start would time out.
fn settle(
    switch: &mut Switch,
    threads: &[WorkerThread],
    clock: Clock,
    mut state: Option<&mut StateFile>,
    notes: &mut Vec<String>,
) -> Result<Vec<SwitchEvent>, StartError> {
    let mut events = Vec::new();
    let deadline = Instant::now() + START_MAX;
    loop {
        for event in switch.poll(clock.now()) {
            if let SwitchEvent::AttachRefused(slot, why) = event {
                return Err(StartError::Refused { slot, source: why.to_string().into() });
            }
            events.push(event);
        }
        if switch.is_settled() {
            return Ok(events);
        }
        if let Some(state) = state.as_mut().filter(|state| state.is_behind(switch, clock)) {
            // The slow path retries a failed write, and reports only the first of several failures.
            notes.extend(state.keep(switch, clock).map(|change| change.to_string()));
        }
        if threads.iter().any(WorkerThread::has_died) || Instant::now() > deadline {
            return Err(StartError::Workers);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use strowger_engine::{control::Attach, link::Behind};
    use strowger_frame::Address;

    use super::*;
    use crate::{CustomPort, IdlePolicy, Relay};

    #[test]
    fn a_peer_that_arrives_during_the_start_does_not_fail_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (port, _far) = strowger_io::memory::wire(64).expect("a wire");
        let open = Relay::builder()
            .workers(1)
            .custom_port(CustomPort::at_worker("wire", 0, Box::new(port)))
            .state_file(folder.path().join("state"))
            .open()
            .expect("it opens");
        let OpenRelay { mut switch, workers, doorbells, clock, state, ports, .. } = open;
        let (mut state, _) = state.expect("a state file");
        assert!(state.keep(&mut switch, clock).is_none(), "no failure");
        let start = |(worker, doorbell)| {
            worker_thread::start(worker, doorbell, clock, IdlePolicy::ADAPTIVE, None, None, true)
        };
        let threads: Vec<_> =
            workers.into_iter().zip(doorbells).map(|it| start(it).expect("a thread")).collect();

        // Like the slot of an unknown peer, this slot is published only after the file contains it.
        let attach = Attach::plain(ports[0].id, Address::Only, Behind::Neighbour, "late");
        switch.attach(attach).expect("a free slot");
        // The write fails, since a folder is in the place of the file. The start must report that.
        fs::create_dir(folder.path().join("state")).expect("a folder");
        let mut notes = Vec::new();
        settle(&mut switch, &threads, clock, Some(&mut state), &mut notes).expect("it settles");
        assert!(notes.len() == 1 && notes[0].contains("cannot be written"), "{notes:?}");
        for thread in threads {
            thread.stop();
        }
    }
}
