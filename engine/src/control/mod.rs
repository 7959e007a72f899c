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
//! | renumber | the table that names it twice | the new number goes into ways back, everywhere | the old one's time begins |
//!
//! So a worker never holds a table that names a link it does not have.

mod clock;
mod door;
pub mod ledger;
pub mod messages;
pub mod numbers;
pub mod peering;
mod ports;
mod renumber;
mod request;
mod salvage;
mod snapshot;
mod view;
mod workers;

use std::{
    collections::{BTreeMap, HashMap},
    fmt, mem,
    sync::Arc,
};

use strowger_frame::{
    Loss, Mark, Pool, Port, Wake,
    port::{Address, AdmitError, PortTally},
};
use strowger_wire::Slot;

pub use self::door::Door;
pub use self::request::{
    Attach, AttachError, ConfigError, DetachError, Event, GrowError, NotFree, PlugError, PortId,
    RenumberError, SwitchConfig,
};
pub use self::snapshot::{Former, Kept, RestoreError, Snapshot};
pub use self::view::{Balance, PortView, QueueView, SlotState, SlotView};
use self::{
    clock::Clock,
    messages::Messages,
    numbers::{Given, Numbers, Who},
    peering::{DownReason, Location, Peering},
    ports::Ports,
    salvage::Mustering,
    workers::{Step, Workers},
};
use crate::{
    Now,
    discard::{Discard, DiscardTally},
    limits::{ATTACHED_MAX, EXCHANGE_FRAMES_MAX, HOPS_MAX},
    link::{Behind, SlotTally},
    orders::{Punt, PuntKind, Report},
    slots::{NextHop, SlotTable},
    worker::{Exchange, Worker},
};

/// One thing attached, as the slow path knows it.
struct Attachment {
    slot: u32,
    /// The number that workers write into return paths: every table leads by it.
    written: u32,
    port: PortId,
    at: Option<Address>,
    behind: Behind,
    sealed: bool,
    name: String,
    /// As it is known again after a restart.
    who: Who,
    state: SlotState,
    tallies: Vec<Arc<SlotTally>>,
    refused: Option<AdmitError>,
    /// Whether [`Event::SlotAttached`] was told.
    announced: bool,
}

/// The slow path's half of a switch. One thread owns it.
pub struct Switch {
    config: SwitchConfig,
    workers: Workers,
    /// By mark index, with the generation that the next user of the index will have.
    attached: Vec<(u16, Option<Attachment>)>,
    /// Who has an address, by mark index. One that has gone may still stand here.
    by_address: HashMap<(u16, Address), usize>,
    /// Below this mark index, and above [`barred`](Self::barred), all are taken.
    vacant_from: usize,
    numbers: Numbers,
    /// Polls since the first of the numbers that wait to be published could have been.
    publish_polls: u32,
    /// Published as soon as their numbers have rested.
    deferred: Vec<Given>,
    /// By whom numbers are held over a restart: what is written down already, if that is done.
    written: Option<u64>,
    /// As numbers rest by ([`Clock::rest`]).
    now: Now,
    ports: Ports,
    clock: Clock,
    /// Sealed links; none before [`Switch::set_identity`].
    peering: Option<Peering>,
    messages: Messages,
    /// Frames that ended here, on the slow path.
    discards: DiscardTally,
    /// Frames in hand whose end was not counted yet.
    in_hand: u64,
    /// Marks below this index are given to nobody.
    barred: usize,
    muster: Mustering,
    events: Vec<Event>,
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch")
            .field("workers", &self.workers.len())
            .field("generation", &self.numbers.generation())
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
        let exchanges = Exchange::between(pools.len(), EXCHANGE_FRAMES_MAX);
        let mut workers = Vec::new();
        for (number, ((pool, exchange), slow_path)) in
            pools.into_iter().zip(exchanges).zip(theirs).enumerate()
        {
            let table = Box::new(table(&config, &BTreeMap::new())?);
            workers.push(Worker::new(number as u8, &config, pool, table, exchange, slow_path));
        }
        let switch = Self {
            config,
            workers: handles,
            attached: Vec::new(),
            by_address: HashMap::new(),
            vacant_from: 0,
            publish_polls: 0,
            numbers: Numbers::new(config.slot_max),
            deferred: Vec::new(),
            written: None,
            now: Now(0),
            ports: Ports::default(),
            clock,
            peering: None,
            messages: Messages::default(),
            discards: DiscardTally::default(),
            in_hand: 0,
            barred: 0,
            muster: Mustering::default(),
            events: Vec::new(),
        };
        Ok((switch, workers))
    }

    /// What wakes worker `number` when it has been given orders.
    pub fn set_waker(&mut self, number: usize, waker: Arc<dyn Wake>) {
        self.workers.set_waker(number, waker);
    }

    /// How the switch was told to behave.
    pub fn config(&self) -> &SwitchConfig {
        &self.config
    }

    /// Plugs in a port that has a queue of its own on every worker, in the workers' order.
    ///
    /// # Errors
    /// [`PlugError`]; the ports are dropped then.
    pub fn plug_everywhere(&mut self, ports: Vec<Box<dyn Port>>) -> Result<PortId, PlugError> {
        self.ports.plug_everywhere(ports, &mut self.workers)
    }

    /// Plugs in a port that one worker owns; the others hand it frames over their exchange rings.
    ///
    /// # Errors
    /// [`PlugError`]; the port is dropped then.
    pub fn plug_at(&mut self, worker: usize, port: Box<dyn Port>) -> Result<PortId, PlugError> {
        self.ports.plug_at(worker, port, &mut self.workers)
    }

    /// Stops a port and gives its queues back (they are dropped by [`poll`](Self::poll)). Whatever
    /// is attached behind it must be detached first.
    ///
    /// # Errors
    /// [`DetachError`].
    pub fn unplug(&mut self, id: PortId) -> Result<(), DetachError> {
        if let Some(user) = self.attachments().find(|(_, user)| user.port == id) {
            return Err(DetachError::PortInUse(user.1.slot));
        }
        self.ports.unplug(id, &mut self.workers)?;
        self.drop_beacon(id);
        Ok(())
    }

    fn attachments(&self) -> impl Iterator<Item = (Mark, &Attachment)> {
        self.attached.iter().enumerate().filter_map(|(index, (generation, attachment))| {
            attachment.as_ref().map(|a| (Mark::new(index as u16, *generation), a))
        })
    }

    /// Does what is due: gives waiting orders, reads reports, takes the next steps, ends punted
    /// frames. It never blocks. What has come true is returned, oldest first.
    ///
    /// Call it when [`next_timeout`](Self::next_timeout) has come, after a worker has called the waker that
    /// [`Worker::set_slow_path_waker`] gave it, when what [`arm`](Self::arm) named is ready, and after any other
    /// call that changes something. More often does no harm.
    pub fn poll(&mut self, now: Now) -> Vec<Event> {
        let now = self.clock.turn(now);
        self.now = self.clock.rest();
        self.renew_secrets(now);
        self.take_notes(now);
        self.take_punts(now);
        self.take_knocks(now);
        self.answer_doors(now);
        self.turn_peering(now);
        self.turn_beacons(now);
        self.turn_numbers(self.now);
        loop {
            self.take_steps();
            if self.workers.may_sleep() {
                break;
            }
        }
        mem::take(&mut self.events)
    }

    /// When [`poll`](Self::poll) has something to do next if nothing else happens, as the caller's clock will
    /// show it; a time that has passed if that is now. `None` if time alone brings nothing.
    pub fn next_timeout(&self) -> Option<Now> {
        let is_due = self.workers.is_due(self.written) || !self.events.is_empty();
        if is_due || !self.workers.punts().is_empty() {
            return Some(self.clock.said_at(Now(0)));
        }
        let peering = self.peers_due().into_iter().chain(self.beacons_due());
        let due = peering.map(|due| Now(due.0)).chain(self.messages.next_timeout()).min();
        let numbers = self.numbers_due().map(|due| self.clock.said_at_rest(due));
        due.map(|due| self.clock.said_at(due)).into_iter().chain(numbers).min()
    }

    /// Fills the workers' rings, reads what they report, and takes the steps that are due.
    fn take_steps(&mut self) {
        loop {
            self.workers.flush();
            while let Some(report) = self.workers.next_report() {
                self.read_report(report);
            }
            match self.workers.next_step() {
                Some(step) => self.take_step(step, self.now),
                None if self.publish_due() => {}
                None => break,
            }
        }
        self.show_opened();
    }

    /// Whether no change is under way.
    pub fn is_settled(&self) -> bool {
        self.workers.is_settled()
    }

    /// Takes what the workers have noticed.
    fn take_notes(&mut self, now: Now) {
        let punts = self.workers.punts();
        for _ in 0..punts.notes.len() {
            match punts.notes.pop() {
                Some(Punt::Heard(session)) => self.take_heard(session, now),
                Some(Punt::Roamed { link, port, from: at, bytes }) => {
                    let from = Location { port: PortId(port), at };
                    self.take_roamed(link, from, usize::from(bytes), now);
                }
                Some(Punt::Strayed(session, worker)) => self.take_strayed(session, worker),
                Some(Punt::Worn(link)) => self.take_worn(link, now),
                Some(Punt::Unsealed(link)) => self.wake(link, now),
                Some(Punt::SendFailed { port, to, errno }) => {
                    let link = self.link_at(PortId(port), to);
                    self.note_reason(link, DownReason::Unreachable { to, errno }, now);
                }
                Some(Punt::AliasUsed { slot, packet }) => self.take_alias_used(slot, packet, now),
                Some(Punt::Packet { .. } | Punt::Ended(_) | Punt::Said { .. }) | None => return,
            }
        }
    }

    /// Takes who knocks: those who are known first.
    fn take_knocks(&mut self, now: Now) {
        let punts = self.workers.punts();
        for _ in 0..punts.knocks.len() {
            let Some(knock) = punts.knocks.pop() else { break };
            self.note_taken(knock.link, knock.worker, PuntKind::Knock);
            self.in_hand += 1;
            self.take_knock(&knock, now);
        }
        for _ in 0..punts.strangers.len() {
            let Some(knock) = punts.strangers.pop() else { break };
            self.in_hand += 1;
            self.take_knock(&knock, now);
        }
    }

    /// A worker's punt has left its queue, so its link has one place more there.
    fn note_taken(&mut self, link: Mark, worker: u8, kind: PuntKind) {
        if let Some(tally) = self.user(link).and_then(|user| user.tallies.get(usize::from(worker)))
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

    fn read_report(&mut self, report: Report) {
        match report {
            // Freed here, on the slow path: that is what reports are for.
            Report::Done
            | Report::Slots(_)
            | Report::Detached(_)
            | Report::Unplugged(_)
            | Report::Sealer(_)
            | Report::Sent(_)
            | Report::ReturnPath(_)
            | Report::Grown(_) => (),
            Report::Session(session) => self.take_session_back(session),
            Report::Mustered(muster) => self.muster.take(*muster),
            Report::AttachRefused(link, why) => {
                if let Some(attachment) = self.user(link.mark) {
                    attachment.refused = Some(why);
                }
            }
            Report::PlugRefused(seat) => {
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

/// Frames that a port lost, by the switch's names for it.
fn losses(tally: &PortTally) -> impl Iterator<Item = (Discard, u64)> {
    Loss::ALL.into_iter().map(|loss| (Discard::from(loss), tally.lost(loss)))
}
