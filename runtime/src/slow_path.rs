//! The slow path's thread. It polls the switch, runs calls of other threads, checks the workers and
//! the machine, and shuts the relay down in the right order.

use std::{
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use strowger_crypto::PeerId;
use strowger_engine::{
    Now,
    control::{DetachError, Event as SwitchEvent, PortId, SlotState, SlotView, Switch},
};
use strowger_frame::port::Arm;
use strowger_io::{Doorbell, DoorbellWaker, Waiter, endpoint};
use strowger_wire::Slot;

use crate::{
    alternates::Alternates,
    attach,
    clock::Clock,
    error::{NeighborError, ShutdownError, StartError},
    event::{Event, EventHub, EventKind},
    health::Health,
    host::Host,
    limits::{CALLS_WAITING_MAX, CHECK_EVERY, STOP_MAX},
    local_port::{LocalPort, SharedScheme},
    machine_addresses::MachineAddresses,
    memory::MemoryUse,
    port_info::{PortInfo, PortKind},
    recovery::{Restarts, caught},
    spec::{LocalPortSpec, Neighbor, Peer},
    state::{StateChange, StateFile},
    stats::{LinkStats, PortStats, Stats, Summary},
    unix_clients::UnixClients,
    unix_facts::UnixFacts,
    worker_thread::{IdlePolicy, WorkerThread},
};

/// The goodbye code of a relay that stops (wire.md W5-31).
const GOODBYE_STOPPING: u8 = 1;

/// The goodbye code for a peer that is detached, and the number of seconds after which the peer may
/// retry.
const GOODBYE_DETACHED: u8 = 3;
const DETACHED_RETRY_S: u32 = 60;

/// The interval at which the slow path polls while it recovers from a panic.
const RECOVERY_TICK: Duration = Duration::from_millis(10);
/// The maximum number of descriptors that [`Host::arm`] adds.
const MACHINE_DESCRIPTORS: usize = 2;
/// The interval at which a shutdown polls the workers.
const BUSY_TICK: Duration = Duration::from_millis(1);
/// The minimum time from one turn to the next, so that a flood of handshakes does not keep this
/// thread busy. Handshakes wait in their queues for this time. After a turn with calls, the next
/// turn follows immediately.
const TURN_MIN: Duration = Duration::from_millis(1);

/// A closure from another thread that the slow path runs.
pub(crate) type Call = Box<dyn FnOnce(&mut SlowPath) + Send>;

/// Receives the calls to the slow path, and wakes it.
pub(crate) struct RequestReceiver {
    calls: Receiver<Call>,
    pub(crate) calls_in: SyncSender<Call>,
    doorbell: Doorbell,
    waiter: Waiter,
}

impl RequestReceiver {
    /// Makes a receiver that also blocks on up to this number of sockets.
    pub(crate) fn new(sockets: usize) -> Result<(Self, DoorbellWaker), StartError> {
        let what = "cannot make a doorbell";
        let doorbell = Doorbell::new().map_err(|source| StartError::Resource { what, source })?;
        let (calls_in, calls) = sync_channel(CALLS_WAITING_MAX);
        let waker = doorbell.waker();
        let waiter = Waiter::with_capacity(1 + MACHINE_DESCRIPTORS + sockets);
        Ok((Self { calls, calls_in, doorbell, waiter }, waker))
    }

    pub(crate) fn waker(&self) -> DoorbellWaker {
        self.doorbell.waker()
    }

    /// Blocks until the armed doorbell rings, a handshake arrives, the machine changes, or the
    /// timeout passes.
    fn wait(&mut self, timeout: Option<Duration>, slow_path: &mut SlowPath) {
        self.waiter.begin();
        self.waiter.add(Arm::Wait(self.doorbell.as_raw_fd()));
        slow_path.switch.arm(|arm| self.waiter.add(arm));
        if let Some(host) = &slow_path.host {
            host.arm(|arm| self.waiter.add(arm));
        }
        slow_path.unix_clients.arm(|arm| self.waiter.add(arm));
        self.waiter.wait(timeout);
        slow_path.switch.disarm();
        self.doorbell.disarm();
    }
}

/// The arguments of `SlowPath::new`.
pub(crate) struct Parts {
    pub(crate) switch: Switch,
    pub(crate) threads: Vec<WorkerThread>,
    pub(crate) clock: Clock,
    pub(crate) state: Option<StateFile>,
    pub(crate) ports: Vec<PortInfo>,
    pub(crate) memory: MemoryUse,
    pub(crate) idle: IdlePolicy,
    pub(crate) cores: Option<Vec<usize>>,
    pub(crate) identity: Option<PeerId>,
    pub(crate) alternates: Alternates,
    pub(crate) hub: Arc<EventHub>,
    pub(crate) scheme: Arc<SharedScheme>,
    pub(crate) unix_facts: UnixFacts,
    pub(crate) unix_clients: UnixClients,
}

/// A running relay, on its slow path's thread. [`RelayHandle::call`](crate::RelayHandle::call)
/// passes it to the program's code.
pub struct SlowPath {
    pub(crate) switch: Switch,
    pub(crate) threads: Vec<WorkerThread>,
    pub(crate) clock: Clock,
    state: Option<StateFile>,
    pub(crate) ports: Vec<PortInfo>,
    pub(crate) memory: MemoryUse,
    idle: IdlePolicy,
    cores: Option<Vec<usize>>,
    pub(crate) identity: Option<PeerId>,
    pub(crate) alternates: Alternates,
    hub: Arc<EventHub>,
    scheme: Arc<SharedScheme>,
    unix_facts: UnixFacts,
    unix_clients: UnixClients,
    health: Option<Health>,
    host: Option<Host>,
    began: Instant,
    restarts: Restarts,
    /// The number of times the slow path blocked and was woken.
    wakeups: u64,
    /// Whether the slow path is recovering from a panic: some interrupted changes are neither
    /// completed nor undone yet.
    recovering: bool,
    /// The ports whose vanished interface was reported.
    gone: Vec<PortId>,
    /// The slots of local ports. When such a slot is detached, its port is unplugged.
    local_slots: Vec<(Slot, PortId)>,
}

impl std::fmt::Debug for SlowPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlowPath").field("switch", &self.switch).finish_non_exhaustive()
    }
}

impl SlowPath {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { switch, threads, clock, state, ports, memory, idle, cores, .. } = parts;
        let is_local = |id| {
            let local = |port: &PortInfo| matches!(port.kind, PortKind::Local { .. });
            ports.iter().any(|port| port.id == id && local(port))
        };
        let slots = switch.slots().into_iter();
        let local_slots = slots.filter_map(|view| Some((view.slot, view.port?)));
        let local_slots = local_slots.filter(|&(_, port)| is_local(port)).collect();
        Self {
            switch,
            threads,
            clock,
            state,
            ports,
            memory,
            idle,
            cores,
            identity: parts.identity,
            alternates: parts.alternates,
            hub: parts.hub,
            scheme: parts.scheme,
            unix_facts: parts.unix_facts,
            unix_clients: parts.unix_clients,
            health: Some(Health::new()),
            host: Some(Host::new()),
            began: Instant::now(),
            restarts: Restarts::default(),
            wakeups: 0,
            recovering: false,
            gone: Vec::new(),
            local_slots,
        }
    }

    /// Runs until `stop` is set, then shuts down in order.
    ///
    /// # Errors
    /// [`ShutdownError`].
    pub(crate) fn run(
        &mut self,
        inbox: &mut RequestReceiver,
        early: &[SwitchEvent],
        stop: &AtomicBool,
    ) -> Result<Summary, ShutdownError> {
        self.emit_switch_events(early);
        self.serve(inbox, stop)?;
        self.finish()
    }

    fn serve(
        &mut self,
        inbox: &mut RequestReceiver,
        stop: &AtomicBool,
    ) -> Result<(), ShutdownError> {
        loop {
            // Arm the doorbell first, so that no ring after this point is missed.
            inbox.doorbell.arm();
            let began = Instant::now();
            self.turn()?;
            if let Some(dead) = self.threads.iter().position(WorkerThread::has_died) {
                return Err(ShutdownError::WorkerDied(dead));
            }
            let mut was_called = false;
            while let Ok(call) = inbox.calls.try_recv() {
                was_called = true;
                self.guarded(call)?;
            }
            // Acquire: pairs with Release in `Shared::stop`.
            if stop.load(Ordering::Acquire) {
                return Ok(());
            }
            if !was_called {
                let timeout = self.timeout(Instant::now());
                inbox.wait(timeout, self);
                self.wakeups += 1;
                std::thread::sleep(TURN_MIN.saturating_sub(began.elapsed()));
            }
        }
    }

    /// The time until the next timer of the switch or of the other checks is due. `None` if there
    /// is no timer.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let now_ns = self.clock.now().0;
        let switch = self.switch.next_timeout();
        let switch = switch.map(|due| Duration::from_nanos(due.0.saturating_sub(now_ns)));
        let health = self.health.as_ref().and_then(|health| health.next_timeout(self));
        let host = self.host.as_ref().and_then(Host::next_timeout);
        let state = self.state.as_ref().and_then(StateFile::next_timeout);
        // A timer is needed for Ethernet ports: a worker that finds an interface gone does not wake
        // the slow path.
        let has_wires = self.ports.iter().any(|port| matches!(port.kind, PortKind::Ethernet(_)));
        let interfaces = has_wires.then_some(now + CHECK_EVERY);
        let clients = self.unix_clients.next_timeout();
        let others = [health, host, state, interfaces, clients].into_iter().flatten();
        let others = others.map(|due| due.saturating_duration_since(now));
        others.chain(switch).chain(self.recovering.then_some(RECOVERY_TICK)).min()
    }

    /// Runs one turn of the slow path. The slow path recovers if the turn panics.
    ///
    /// # Errors
    /// The slow path has panicked too many times, or its recovery panicked.
    fn turn(&mut self) -> Result<(), ShutdownError> {
        self.guarded(Self::turn_once)?;
        if self.recovering && self.switch.is_settled() {
            self.recovering = false;
            self.emit(EventKind::SlowPathRecovered);
        }
        Ok(())
    }

    /// Runs code of the slow path. If the code panics, the slow path recovers: the workers
    /// continue, and partial changes are completed or undone.
    fn guarded(&mut self, what: impl FnOnce(&mut Self)) -> Result<(), ShutdownError> {
        let Err(message) = caught(|| what(self)) else { return Ok(()) };
        let too_often = !self.restarts.may_restart(Instant::now());
        let recovered = caught(|| self.switch.recover(self.clock.now()));
        if too_often || recovered.is_err() {
            return Err(ShutdownError::SlowPathDied(message));
        }
        let panic = message.replace(['\n', '\r'], " ");
        self.emit(EventKind::SlowPathRestarted { panic });
        self.recovering = true;
        Ok(())
    }

    fn turn_once(&mut self) {
        self.keep_state(false);
        let events = self.switch.poll(self.clock.now());
        self.keep_state(!events.is_empty());
        self.emit_switch_events(&events);
        for event in &events {
            match *event {
                SwitchEvent::WantsAlternate(port) => self.add_alternate(port),
                SwitchEvent::PortUnplugged(port) => self.forget_port(port),
                SwitchEvent::SlotMoved(from, to) => self.move_local(from, to),
                SwitchEvent::SlotDetached(slot) => self.unplug_local(slot),
                SwitchEvent::SchemeGrown => self.scheme.set(*self.switch.config().scheme()),
                _ => {}
            }
        }
        let (quarantine, now) = (self.switch.config().quarantine(), self.clock.now());
        self.unix_clients.follow(&events, quarantine, now);
        self.unix_clients.turn(&mut self.switch, now);
        self.unix_facts.follow(&self.switch, &events);
        self.report_vanished_interfaces();
        let now = Instant::now();
        // `health` and `host` are moved out of `self`, because their checks borrow it. If a check
        // panics, the next turn makes a new value for it.
        let mut health = self.health.take().unwrap_or_else(Health::new);
        health.check(now, self).into_iter().for_each(|kind| self.emit(kind));
        self.health = Some(health);
        let mut host = self.host.take().unwrap_or_else(Host::new);
        host.check(now, self).into_iter().for_each(|kind| self.emit(kind));
        self.host = Some(host);
    }

    fn emit(&self, kind: EventKind) {
        let at = self.began.elapsed();
        self.hub.emit(&Event { at, slot: None, name: String::new(), kind });
    }

    fn emit_switch_events(&self, events: &[SwitchEvent]) {
        if events.is_empty() || !self.hub.has_subscribers() {
            return;
        }
        let at = self.began.elapsed();
        for event in events {
            if matches!(event, SwitchEvent::WantsAlternate(_)) {
                continue; // another event reports the result
            }
            let slot = event.slot();
            let name = slot.and_then(|slot| self.switch.name_at(slot));
            let name = name.unwrap_or_default().to_owned();
            self.hub.emit(&Event { at, slot, name, kind: EventKind::Switch(event.clone()) });
        }
    }

    fn add_alternate(&mut self, port: PortId) {
        let listener = self.ports.iter().find(|info| info.id == port);
        let name = listener.map(|info| info.name.clone()).unwrap_or_default();
        match self.open_alternate(port) {
            Ok(None) => {}
            Ok(Some(local)) => self.emit(EventKind::AlternatePort { port: name, local }),
            Err(why) => self.emit(EventKind::AlternatePortFailed { port: name, why }),
        }
    }

    fn forget_port(&mut self, port: PortId) {
        self.forget_alternate(port);
        self.ports.retain(|info| info.id != port || !matches!(info.kind, PortKind::Local { .. }));
    }

    fn move_local(&mut self, from: Slot, to: Slot) {
        for (slot, _) in self.local_slots.iter_mut().filter(|(slot, _)| *slot == from) {
            *slot = to;
        }
    }

    fn unplug_local(&mut self, slot: Slot) {
        if let Some(at) = self.local_slots.iter().position(|(of, _)| *of == slot) {
            let (_, port) = self.local_slots.swap_remove(at);
            let _ = self.switch.unplug(port);
        }
    }

    /// Reports each vanished interface once.
    fn report_vanished_interfaces(&mut self) {
        let mut vanished = Vec::new();
        for port in &self.ports {
            if let PortKind::Ethernet(info) = &port.kind
                && info.is_gone()
                && !self.gone.contains(&port.id)
            {
                self.gone.push(port.id);
                vanished.push(port.name.clone());
            }
        }
        vanished.into_iter().for_each(|port| self.emit(EventKind::InterfaceGone { port }));
    }

    /// Writes the state file if `has_changed`, or if the file is older than the state of the
    /// switch.
    fn keep_state(&mut self, has_changed: bool) {
        let Self { switch, clock, state: Some(state), .. } = self else { return };
        if !has_changed && !state.is_behind(switch, *clock) {
            return;
        }
        match state.keep(switch, *clock) {
            None => {}
            Some(StateChange::Written(file)) => {
                let file = file.display().to_string();
                self.emit(EventKind::StateFileWritten { file });
            }
            Some(failed @ StateChange::Failed(..)) => {
                self.emit(EventKind::StateFileFailed { why: failed.to_string() });
            }
        }
    }

    /// The relay's switch.
    pub fn switch(&mut self) -> &mut Switch {
        &mut self.switch
    }

    /// The current time in the switch's clock.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// The time since the relay started.
    pub fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// The ports.
    pub fn ports(&self) -> &[PortInfo] {
        &self.ports
    }

    /// The names of the ports, with their numbers.
    pub fn port_names(&self) -> Vec<(u16, String)> {
        self.ports.iter().map(|port| (port.id.0, port.name.clone())).collect()
    }

    /// The memory of the workers.
    pub fn memory(&self) -> &MemoryUse {
        &self.memory
    }

    /// The behaviour of a worker without work.
    pub fn idle(&self) -> IdlePolicy {
        self.idle
    }

    /// The core of each worker; `None` if the workers are not pinned.
    pub fn cores(&self) -> Option<&[usize]> {
        self.cores.as_deref()
    }

    /// The PeerId of the relay; `None` if the relay has no identity.
    pub fn identity(&self) -> Option<PeerId> {
        self.identity
    }

    /// The number of times the slow path has recovered from a panic.
    pub fn restarts(&self) -> u64 {
        self.restarts.count()
    }

    /// The number of times the slow path blocked and was woken. In an idle relay it hardly grows.
    pub fn wakeups(&self) -> u64 {
        self.wakeups
    }

    /// Whether every link is sealed: the relay has an identity, and no port allows plain links.
    pub fn is_sealed(&self) -> bool {
        self.identity.is_some() && !self.ports.iter().any(PortInfo::is_plain)
    }

    /// Adds a peer and returns its slot. The link comes up later.
    ///
    /// # Errors
    /// [`NeighborError`].
    pub fn add_peer(&mut self, peer: Peer) -> Result<Slot, NeighborError> {
        attach::check_name(&self.switch, &peer.name)?;
        let spec = attach::peer_spec(&self.ports, &MachineAddresses::now(), peer)?;
        let port = spec.port();
        let slot = self.switch.add_peer(spec, self.now()).map_err(NeighborError::Peer)?;
        self.switch.accept_unknown(port, true);
        // The peer's frames may arrive on any listener with sealed links.
        for port in self.ports.iter().filter(|port| port.has_sealed_links()) {
            self.switch.accept_unknown(port.id, true);
        }
        Ok(slot)
    }

    /// Adds a neighbor with a plain link and returns its slot.
    ///
    /// # Errors
    /// [`NeighborError`].
    pub fn add_neighbor(&mut self, neighbor: Neighbor) -> Result<Slot, NeighborError> {
        attach::check_name(&self.switch, &neighbor.name)?;
        let attach = attach::plain_attach(&self.ports, &MachineAddresses::now(), neighbor)?;
        self.switch.attach(attach).map_err(NeighborError::Switch)
    }

    /// Adds a port for code of this process and returns its slot.
    ///
    /// # Errors
    /// [`NeighborError`].
    pub fn add_local_port(
        &mut self,
        spec: LocalPortSpec,
    ) -> Result<(Slot, LocalPort), NeighborError> {
        let LocalPortSpec { name, slot, worker, endpoint } = spec;
        attach::check_name(&self.switch, &name)?;
        let (port, sender, receiver) =
            endpoint::split_pair(&endpoint).map_err(NeighborError::Resource)?;
        let id = self.switch.plug_at(worker, Box::new(port)).map_err(NeighborError::Plug)?;
        let attach = strowger_engine::control::Attach::plain(
            id,
            strowger_frame::Address::Only,
            strowger_engine::link::Behind::Endpoint,
            &name,
        )
        .with_slot(slot);
        let slot = self.switch.attach(attach).map_err(|why| {
            let _ = self.switch.unplug(id);
            NeighborError::Switch(why)
        })?;
        self.ports.push(PortInfo::new(id, &name, PortKind::Local { worker }));
        self.local_slots.push((slot, id));
        Ok((slot, LocalPort::new(name, self.scheme.clone(), sender, receiver)))
    }

    /// Detaches the user of a slot. A peer whose link is up receives a goodbye first.
    ///
    /// # Errors
    /// [`DetachError`].
    pub fn detach(&mut self, slot: Slot) -> Result<(), DetachError> {
        if self.switch.peers().iter().any(|peer| peer.slot == slot && peer.is_up()) {
            let why = "detached by the operator";
            self.switch.goodbye(slot, GOODBYE_DETACHED, DETACHED_RETRY_S, why);
        }
        self.switch.detach(slot)
    }

    /// Whether the link of the peer or neighbor with this name forwards.
    pub fn is_up(&self, name: &str) -> bool {
        match self.switch.peers().iter().find(|peer| peer.name == name) {
            Some(peer) => peer.is_up(),
            None => {
                let is_it = |view: &SlotView| {
                    view.name == name && view.port.is_some() && view.state == SlotState::Attached
                };
                self.switch.slots().iter().any(is_it)
            }
        }
    }

    /// Whether a worker has not confirmed the slot yet. `None` if the slot has no user, for example
    /// because a port refused the user's address.
    pub(crate) fn is_pending(&self, slot: Slot) -> Option<bool> {
        let views = self.switch.slots();
        let view = views.iter().find(|view| view.slot == slot && view.port.is_some())?;
        match view.state {
            SlotState::Coming => Some(true),
            SlotState::Leaving | SlotState::Quarantined | SlotState::Kept => None,
            _ => Some(false),
        }
    }

    /// Copies all counters of the relay.
    pub fn stats(&self) -> Stats {
        let mut peers = self.switch.peers();
        let links = self.switch.slots().into_iter().map(|slot| {
            let at = peers.iter().position(|peer| peer.slot == slot.slot);
            LinkStats { peer: at.map(|at| peers.swap_remove(at)), slot }
        });
        let links = links.collect();
        let name_of = |id: PortId| {
            let info = self.ports.iter().find(|info| info.id == id);
            info.map(|info| info.name.clone()).unwrap_or_default()
        };
        let ports = self.switch.ports().into_iter();
        Stats {
            uptime: self.uptime(),
            totals: self.switch.balance(),
            ports: ports.map(|port| PortStats { name: name_of(port.id), port }).collect(),
            links,
            frames_copied: self.frames_copied(),
            slow_path_restarts: self.restarts(),
        }
    }

    /// The number of frames whose payload was copied by workers, or by Ethernet ports to send them.
    fn frames_copied(&self) -> u64 {
        let by_ports = self.ports.iter().map(|port| match &port.kind {
            PortKind::Ethernet(info) => info.frames_copied(),
            _ => 0,
        });
        let by_workers = self.memory.tallies.iter().map(|pool| pool.frames_copied.read());
        by_workers.chain(by_ports).sum()
    }

    /// Detaches and closes everything in order, so that every frame is sent or counted.
    fn finish(&mut self) -> Result<Summary, ShutdownError> {
        // Write the state file before anything is detached, so that it keeps the current slots. The
        // detachments that follow must not be written.
        self.keep_state(true);
        self.state = None;
        self.unix_clients.close();
        self.switch.set_written(u64::MAX);
        let attached = self.switch.slots();
        let is_there =
            |state| matches!(state, SlotState::Attached | SlotState::Draining | SlotState::Coming);
        // Send goodbyes before anything is detached. A plain neighbor gets none, because a plain
        // link authenticates nothing.
        for peer in self.switch.peers().iter().filter(|peer| peer.is_up()) {
            self.switch.goodbye(peer.slot, GOODBYE_STOPPING, 0, "the relay stops");
        }
        let mut settled = self.settle();
        let leaving = attached.iter().filter(|view| is_there(view.state)).map(|view| view.slot);
        self.switch.detach_all(leaving);
        settled &= self.settle();
        let (ports, names) = (self.switch.ports(), self.port_names());
        for port in self.ports.clone() {
            let _ = self.switch.unplug(port.id);
        }
        settled &= self.settle();
        for thread in std::mem::take(&mut self.threads) {
            drop(thread.stop());
        }
        self.turn()?;
        let summary = Summary { ports, names, totals: self.switch.balance() };
        match (settled, summary.totals.is_even()) {
            (true, true) => Ok(summary),
            (true, false) => Err(ShutdownError::Uneven(Box::new(summary))),
            (false, _) => Err(ShutdownError::Unfinished(Box::new(summary))),
        }
    }

    /// Polls until the workers have completed all commands. Returns `false` after [`STOP_MAX`], or
    /// if a worker or the slow path died.
    fn settle(&mut self) -> bool {
        let deadline = Instant::now() + STOP_MAX;
        loop {
            if self.turn().is_err() {
                return false;
            }
            if self.switch.is_settled() {
                return true;
            }
            let died = self.threads.iter().any(WorkerThread::has_died);
            if died || Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(BUSY_TICK);
        }
    }
}
