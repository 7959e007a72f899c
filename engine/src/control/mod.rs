//! The slow path, sans I/O: what is attached to the switch, what each worker has been told, and
//! what they said. It never touches a frame on its way through, and never reads a clock.
//!
//! Every change reaches the workers in steps, and the next step is taken when all of them have said
//! that the one before is done:
//!
//! | change | first | then | last |
//! |---|---|---|---|
//! | attach | the link, everywhere | the table that names it | the event |
//! | detach | the table that no longer names it | the link comes back, everywhere | its number rests in quarantine |
//! | renumber | the table that names it twice | the new number goes into return paths, everywhere | the old one's time begins |
//!
//! So a worker never holds a table that names a link it does not have.
//!
//! `Workers` keeps commands and the steps that wait for them, `Ports` the ports, `Slots` what is attached and
//! under which number. [`Switch`] hands events to them, and their decisions go to `Outputs`. Peers
//! ([`peering`]) and control messages ([`messages`]) are methods of [`Switch`].

mod attachments;
mod clock;
pub mod grace_period;
mod handshake_socket;
pub mod messages;
pub mod peering;
mod ports;
mod recover;
mod request;
pub mod slot_allocator;
mod slots;
mod snapshot;
mod view;
mod workers;

use std::{collections::BTreeMap, fmt, mem, sync::Arc};

use strowger_frame::{Address, Loss, Mark, Pool, Port, Wake, port::PortTally};
use strowger_wire::{Scheme, Slot};

pub use self::handshake_socket::HandshakeSocket;
pub use self::request::{
    Attach, AttachError, ConfigError, DetachError, Event, GrowError, NotFree, PlugError, PortId,
    RenumberError, SwitchConfig,
};
pub use self::snapshot::{Former, Kept, RestoreError, Snapshot};
pub use self::view::{Balance, PortView, QueueView, SlotState, SlotView};
use self::{
    clock::Clock,
    messages::Messages,
    peering::{DownReason, Location, Peering},
    ports::Ports,
    recover::Recovering,
    slot_allocator::Who,
    slots::Slots,
    workers::{Step, Workers},
};
use crate::{
    Now,
    command::{Completion, DropNotice, Punt, PuntKind},
    discard::{Discard, DiscardTally},
    limits::{ATTACHED_MAX, HANDOFF_FRAMES_MAX, HOPS_MAX},
    slots::{NextHop, SlotTable},
    worker::{HandoffRings, Worker},
};

/// Where decisions go: to the workers, and to whoever polls.
struct Outputs {
    workers: Workers,
    events: Vec<Event>,
}

/// The slow path's half of a switch. One thread owns it.
pub struct Switch {
    out: Outputs,
    slots: Slots,
    ports: Ports,
    clock: Clock,
    /// Sealed links; none before [`Switch::set_identity`].
    peering: Option<Peering>,
    messages: Messages,
    /// Frames that ended here, on the slow path.
    discards: DiscardTally,
    /// Frames in hand whose end was not counted yet.
    in_hand: u64,
    /// Answers to handshakes, which leave by the handshake sockets once the workers have been given the keys.
    answers: Vec<(PortId, Address, Vec<u8>)>,
    inventory: Recovering,
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch")
            .field("workers", &self.out.workers.len())
            .field("generation", &self.slots.generation())
            .finish_non_exhaustive()
    }
}

impl Switch {
    /// A switch with one worker for each pool. The workers are to be run by whoever called: each on
    /// a thread of its own, or by hand.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: SwitchConfig, pools: Vec<Pool>) -> Result<(Self, Vec<Worker>), ConfigError> {
        check(&config)?;
        if pools.is_empty() || pools.len() > 64 {
            return Err(ConfigError::Workers);
        }
        let clock = Clock::default();
        let (handles, theirs) = Workers::tie(pools.len(), &clock.skew());
        let handoff_rings = HandoffRings::between(pools.len(), HANDOFF_FRAMES_MAX);
        let mut workers = Vec::new();
        for (number, ((pool, handoff_rings), slow_path)) in
            pools.into_iter().zip(handoff_rings).zip(theirs).enumerate()
        {
            let table = Box::new(table(&config, &BTreeMap::new())?);
            workers.push(Worker::new(number as u8, &config, pool, table, handoff_rings, slow_path));
        }
        let switch = Self {
            out: Outputs { workers: handles, events: Vec::new() },
            slots: Slots::new(config),
            ports: Ports::default(),
            clock,
            peering: None,
            messages: Messages::default(),
            discards: DiscardTally::default(),
            in_hand: 0,
            answers: Vec::new(),
            inventory: Recovering::default(),
        };
        Ok((switch, workers))
    }

    /// What wakes worker `number` when it has been given commands.
    pub fn set_waker(&mut self, number: usize, waker: Arc<dyn Wake>) {
        self.out.workers.set_waker(number, waker);
    }

    /// How the switch was told to behave.
    pub fn config(&self) -> &SwitchConfig {
        self.slots.config()
    }

    /// Plugs in a port that has a queue of its own on every worker, in the workers' order.
    ///
    /// # Errors
    /// [`PlugError`]; the ports are dropped then.
    pub fn plug_everywhere(&mut self, ports: Vec<Box<dyn Port>>) -> Result<PortId, PlugError> {
        self.ports.plug_everywhere(ports, &mut self.out.workers)
    }

    /// Plugs in a port that one worker owns; the others hand it frames over their handoff rings.
    ///
    /// # Errors
    /// [`PlugError`]; the port is dropped then.
    pub fn plug_at(&mut self, worker: usize, port: Box<dyn Port>) -> Result<PortId, PlugError> {
        self.ports.plug_at(worker, port, &mut self.out.workers)
    }

    /// Stops a port and gives its queues back (they are dropped by [`poll`](Self::poll)). Whatever
    /// is attached behind it must be detached first.
    ///
    /// # Errors
    /// [`DetachError`].
    pub fn unplug(&mut self, id: PortId) -> Result<(), DetachError> {
        if let Some(user) = self.slots.attachments().find(|(_, user)| user.port == id) {
            return Err(DetachError::PortInUse(user.1.slot));
        }
        self.ports.unplug(id, &mut self.out.workers)?;
        self.drop_beacon(id);
        Ok(())
    }

    /// Attaches a neighbour or an endpoint; says which slot it has. Frames flow once the event
    /// [`Event::SlotAttached`] has come.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(&mut self, attach: Attach) -> Result<u32, AttachError> {
        Ok(self.slots.attach(attach, &self.ports, &mut self.out)?.0)
    }

    /// Detaches what is attached to a slot, and ends its aliases. The numbers rest before they are
    /// given again.
    ///
    /// # Errors
    /// [`DetachError`].
    pub fn detach(&mut self, slot: u32) -> Result<(), DetachError> {
        self.slots.detach(slot, &mut self.out)?;
        self.drop_left_peers();
        Ok(())
    }

    /// Detaches what is attached to all these slots, as [`detach`](Self::detach) does to one. The workers get
    /// one table for all of them, where many calls of `detach` cost a table of all slots each. Empty slots are
    /// passed over.
    pub fn detach_all(&mut self, slots: impl IntoIterator<Item = u32>) {
        self.slots.detach_all(slots, &mut self.out);
        self.drop_left_peers();
    }

    /// Gives the user of a slot another number: this one, or the lowest free. The old one leads to
    /// it for [`SwitchConfig::alias_ns`] after [`Event::SlotMoved`], and rests then.
    ///
    /// # Errors
    /// [`RenumberError`].
    pub fn renumber(&mut self, slot: u32, to: Option<u32>) -> Result<u32, RenumberError> {
        self.slots.renumber(slot, to, &mut self.out)
    }

    /// Says that no new label should name a slot, and detaches it after `for_ns` from the last
    /// [`poll`](Self::poll). It forwards as before until then.
    ///
    /// # Errors
    /// [`RenumberError::EmptySlot`].
    pub fn drain(&mut self, slot: u32, for_ns: u64) -> Result<(), RenumberError> {
        self.slots.drain(slot, for_ns, &mut self.out)
    }

    /// Goes over to a scheme that reads every code in use as before, while traffic flows, and gives
    /// out numbers up to `slot_max` from now on.
    ///
    /// # Errors
    /// [`GrowError`].
    pub fn grow_scheme(&mut self, scheme: Scheme, slot_max: u32) -> Result<(), GrowError> {
        self.slots.grow_scheme(scheme, slot_max, &mut self.out)?;
        self.offer_scheme();
        Ok(())
    }

    /// The name of what a slot number leads to, or what is just leaving it; `None` if there is nothing.
    pub fn name_at(&self, slot: u32) -> Option<&str> {
        self.slots.name_at(slot)
    }

    /// All slots in use or in quarantine, in order of their numbers.
    pub fn slots(&self) -> Vec<SlotView> {
        self.slots.views()
    }

    /// All ports, in order of their numbers.
    pub fn ports(&self) -> Vec<PortView> {
        self.ports.views()
    }

    /// The sums of all counters, those of ports that are gone included.
    pub fn balance(&self) -> Balance {
        let mut balance = self.ports.balance();
        balance.add_discards(&self.discards);
        self.out.workers.add_to(&mut balance);
        balance
    }

    /// How many numbers were ever given, over restarts: tells whether there is news to write down.
    pub fn generation(&self) -> u64 {
        self.slots.generation()
    }

    /// What is to be found again after a restart at this moment.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        self.slots.snapshot(self.clock.rest_at(now), self.stamps_until(now))
    }

    /// Takes up a snapshot, before anything is attached. Whoever had a number gets it again, unless
    /// it asks for another; nobody else gets it before its quarantine has ended, and then last of
    /// all. A number that another is pinned to is that one's, and opens when it has rested; so does the
    /// first one that comes free, where no other is left. Former numbers lead to their users again when
    /// these are back, and so does a number whose user asks for another. Stamps go on from those of
    /// before if [`set_identity`](Self::set_identity) came first.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore(&mut self, snapshot: &Snapshot, now: Now) -> Result<(), RestoreError> {
        self.slots.check_restore(snapshot)?;
        self.clock.turn(now);
        self.slots.set_now(self.clock.rest());
        self.slots.restore(snapshot, &mut self.out)?;
        self.stamp_from(snapshot.stamps_until);
        Ok(())
    }

    /// Whether a number is kept over the restart for the peer with this static key, or, without one, for
    /// what has this name: these get their numbers before others do.
    pub fn is_kept_for(&self, key: Option<[u8; 32]>, name: &str) -> bool {
        self.slots.is_kept_for(&Who::new(key, name))
    }

    /// How long it is, in nanoseconds, before a slot that was given may lead to its user: labels that name
    /// the number's last user must be gone first. `None` if nothing has to be waited for.
    pub fn opens_in(&self, slot: u32) -> Option<u64> {
        self.slots.opens_in(slot)
    }

    /// From now on no number leads anywhere before a snapshot that names it was written down, so
    /// that even a crash keeps all numbers that labels may name ([`Self::set_written`]).
    pub fn wait_for_writing(&mut self) {
        self.slots.wait_for_writing();
    }

    /// A snapshot of this generation was written down, or could not be: go on.
    pub fn set_written(&mut self, generation: u64) {
        self.slots.set_written(generation);
    }

    /// Forgets the peers whose slots were taken away.
    fn drop_left_peers(&mut self) {
        for mark in self.slots.take_left() {
            self.drop_peer(mark);
        }
    }

    /// Does what is due: gives waiting commands, reads reports, takes the next steps, ends punted
    /// frames. It never blocks. What has come true is returned, oldest first.
    ///
    /// Call it when [`next_timeout`](Self::next_timeout) has come, after a worker has called the waker that
    /// [`Worker::set_slow_path_waker`] gave it, when what [`arm`](Self::arm) named is ready, and after any other
    /// call that changes something. More often does no harm.
    pub fn poll(&mut self, now: Now) -> Vec<Event> {
        let now = self.clock.turn(now);
        self.slots.set_now(self.clock.rest());
        self.renew_secrets(now);
        self.take_notes(now);
        self.take_punts(now);
        self.take_knocks(now);
        self.read_handshake_sockets(now);
        self.turn_peering(now);
        self.turn_beacons(now);
        self.slots.poll(&mut self.out);
        self.drop_left_peers();
        loop {
            self.take_steps();
            if self.out.workers.may_sleep() {
                break;
            }
        }
        for (port, to, message) in mem::take(&mut self.answers) {
            // A port that went meanwhile answers nothing.
            self.ports.send(port, to, &message);
        }
        mem::take(&mut self.out.events)
    }

    /// When [`poll`](Self::poll) has something to do next if nothing else happens, as the caller's clock will
    /// show it; a time that has passed if that is now. `None` if time alone brings nothing.
    pub fn next_timeout(&self) -> Option<Now> {
        let is_due = self.out.workers.is_due(self.slots.written()) || !self.out.events.is_empty();
        if is_due || !self.out.workers.punts().is_empty() {
            return Some(self.clock.said_at(Now(0)));
        }
        let peering = self.peers_due().into_iter().chain(self.beacons_due());
        let due = peering.map(|due| Now(due.0)).chain(self.messages.next_timeout()).min();
        let numbers = self.slots.next_timeout().map(|due| self.clock.said_at_rest(due));
        due.map(|due| self.clock.said_at(due)).into_iter().chain(numbers).min()
    }

    /// Fills the workers' rings, reads what they report, and takes the steps that are due.
    fn take_steps(&mut self) {
        loop {
            self.out.workers.flush();
            while let Some(report) = self.out.workers.next_report() {
                self.read_report(report);
            }
            match self.out.workers.next_step() {
                Some(step) => self.take_step(step),
                None if self.slots.publish_due(&mut self.out) => {}
                None => break,
            }
            self.drop_left_peers();
        }
        self.show_opened();
    }

    /// Takes a step, all of whose workers have reported.
    fn take_step(&mut self, step: Step) {
        let Self { slots, out, .. } = self;
        match step {
            // Those are taken together: `Slots::publish_due`.
            Step::Publish(_) => {}
            Step::Announce(mark) => slots.announce(mark, out),
            Step::Rewrite(moving) => slots.rewrite(moving, out),
            Step::Retire(moving) => slots.retire(moving, out),
            Step::Remove(told) => slots.drop_user(told, out),
            Step::Rest(unnamed) => slots.rest(unnamed, out),
            Step::Inventory(told) => self.take_inventory(told),
            Step::Recovered(unnamed) => {
                slots.unbar();
                slots.rest(unnamed, out);
            }
            Step::Grown(_) => out.events.push(Event::SchemeGrown),
            Step::Moved(worker) => {
                if let Ok(passed) = out.workers.pass(worker) {
                    self.end_moves(passed.into_inner());
                }
            }
            Step::Forget(id) => {
                if let Ok(passed) = out.workers.pass(id) {
                    let id = passed.into_inner();
                    out.events.extend(self.ports.forget(id).then_some(Event::PortUnplugged(id)));
                }
            }
        }
    }

    /// A frame named a slot by a number that is retiring, or was until a moment ago.
    fn take_alias_used(&mut self, named: u32, packet: DropNotice, now: Now) {
        let ingress = packet.ingress_slot;
        if let Some(slot) = self.slots.renamed(named) {
            self.out.events.push(Event::AliasUsed { ingress, named, slot });
            self.send_slot_moved(packet, named, slot, now);
        }
    }

    /// Whether no change is under way.
    pub fn is_settled(&self) -> bool {
        self.out.workers.is_settled()
    }

    /// Takes what the workers have noticed.
    fn take_notes(&mut self, now: Now) {
        let punts = self.out.workers.punts();
        for _ in 0..punts.notes.len() {
            match punts.notes.pop() {
                Some(Punt::Heard(session)) => self.take_heard(session, now),
                Some(Punt::Roamed { link, port, from: at, bytes }) => {
                    let from = Location { port: PortId(port), at };
                    self.take_roamed(link, from, usize::from(bytes), now);
                }
                Some(Punt::Migrate(session, worker)) => self.take_strayed(session, worker),
                Some(Punt::RekeyDue(link)) => self.take_rekey_due(link, now),
                Some(Punt::Unsealed(link)) => self.wake(link, now),
                Some(Punt::SendFailed { port, to, errno }) => {
                    let link = self.link_at(PortId(port), to);
                    self.note_reason(link, DownReason::Unreachable { to, errno }, now);
                }
                Some(Punt::AliasUsed { slot, packet }) => self.take_alias_used(slot, packet, now),
                Some(Punt::Packet { .. } | Punt::Dropped(_) | Punt::Said { .. }) | None => return,
            }
        }
    }

    /// Takes who handshakes: those who are known first.
    fn take_knocks(&mut self, now: Now) {
        let punts = self.out.workers.punts();
        for _ in 0..punts.handshakes.len() {
            let Some(datagram) = punts.handshakes.pop() else { break };
            self.note_taken(datagram.link, datagram.worker, PuntKind::HandshakeDatagram);
            self.in_hand += 1;
            self.take_handshake(&datagram, now);
        }
        for _ in 0..punts.unknown_peers.len() {
            let Some(datagram) = punts.unknown_peers.pop() else { break };
            self.in_hand += 1;
            self.take_handshake(&datagram, now);
        }
    }

    /// A worker's punt has left its queue, so its link has one place more there.
    fn note_taken(&mut self, link: Mark, worker: u8, kind: PuntKind) {
        if let Some(tally) =
            self.slots.user_of(link).and_then(|user| user.tallies.get(usize::from(worker)))
        {
            tally.punts_taken[kind as usize].add(1);
        }
    }

    /// A frame that was taken in hand has come to its end.
    fn end(&mut self, how: Discard) {
        self.discards.count(how);
        self.in_hand = self.in_hand.saturating_sub(1);
    }

    /// The same of a handshake or beacon, which is counted at the port that it came in by.
    fn end_at(&mut self, port: PortId, how: Discard) {
        if !self.ports.count_handshake(port, how) {
            self.discards.count(how);
        }
        self.in_hand = self.in_hand.saturating_sub(1);
    }

    fn read_report(&mut self, report: Completion) {
        match report {
            // Freed here, on the slow path: that is what reports are for.
            Completion::Done
            | Completion::Slots(_)
            | Completion::Detached(_)
            | Completion::Unplugged(_)
            | Completion::Sealer(_)
            | Completion::Sent(_)
            | Completion::ReturnPath(_)
            | Completion::Grown(_) => (),
            Completion::Session(session) => self.take_session_back(session),
            Completion::Inventoried(inventory) => self.inventory.take(*inventory),
            Completion::AttachRefused(link, why) => {
                if let Some(attachment) = self.slots.user(link.mark) {
                    attachment.refused = Some(why);
                }
            }
            Completion::PlugRefused(seat) => {
                // Ports are numbered within the workers' bounds, so this is a bug of ours.
                debug_assert!(false, "a worker had no place for {seat:?}");
            }
        }
    }
}

fn check(config: &SwitchConfig) -> Result<(), ConfigError> {
    let scheme = &config.scheme;
    scheme.self_director().map_err(|_| ConfigError::SchemeWithoutSelf)?;
    scheme.prefix_index_bits().map_err(|_| ConfigError::SchemeTooAlike)?;
    if config.hops_max == 0 || config.hops_max > HOPS_MAX {
        return Err(ConfigError::HopsMax);
    }
    let writable = |slot: u32| scheme.encode_least(Slot::new(slot)).is_ok();
    let highest = ATTACHED_MAX as u32;
    if config.slot_max < 2 || config.slot_max > highest || !writable(config.slot_max) {
        let max = (2..=highest).rev().find(|&slot| writable(slot));
        return Err(ConfigError::SlotMax(max));
    }
    Ok(())
}

fn table(config: &SwitchConfig, exits: &BTreeMap<u32, NextHop>) -> Result<SlotTable, ConfigError> {
    let exit = |slot| exits.get(&slot).copied().unwrap_or(NextHop::Drop(Discard::EmptySlot));
    // Only slots up to the highest in use need hops of their own.
    let highest = exits.last_key_value().map_or(1, |(&slot, _)| slot);
    SlotTable::new(&config.scheme, highest, exit).map_err(|_| ConfigError::SchemeTooAlike)
}

/// The form, if any, in which a number written by one scheme is not read as itself by another.
fn read_otherwise(slot: u32, old: &Scheme, new: &Scheme) -> Option<u8> {
    (0..old.forms().len() as u8).find(|&form| {
        let Ok(director) = old.encode_in(Slot::new(slot), form) else { return false };
        let reads_so = |bits: u64| {
            new.decode(bits).is_ok_and(|read| {
                read.slot() == director.slot() && read.width() == director.width()
            })
        };
        // With nothing above it, and with anything at all.
        !reads_so(director.bits()) || !reads_so(director.bits() | u64::MAX << director.width())
    })
}

/// Frames that a port lost, by the switch's names for it.
fn losses(tally: &PortTally) -> impl Iterator<Item = (Discard, u64)> {
    Loss::ALL.into_iter().map(|loss| (Discard::from(loss), tally.lost(loss)))
}
