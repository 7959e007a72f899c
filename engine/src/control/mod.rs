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
mod renumber;
mod request;
mod salvage;
mod snapshot;
mod view;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt, mem,
    sync::Arc,
};

use strowger_frame::{
    Loss, Mark, Pool, Port,
    port::{Address, AdmitError, PortTally},
    ring::{Consumer, Producer, ring},
    tally::Counter,
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
    ledger::{Awaited, Ledger},
    messages::Messages,
    numbers::{Given, Informed, Numbers, Retiring, Unnamed, Who},
    peering::{DownReason, Location, Peering},
    salvage::Mustering,
};
use crate::{
    Now,
    discard::{Discard, DiscardTally},
    limits::{
        ANSWERS_WAITING_MAX, ATTACHED_MAX, EXCHANGE_FRAMES_MAX, HOPS_MAX, MESSAGES_WAITING_MAX,
        ORDERS_MAX, PORTS_MAX,
    },
    link::{Behind, SlotTally},
    orders::{Bell, Order, PortSeat, Punt, PuntKind, PuntQueues, Report},
    session::AwaitedPlaces,
    slots::{NextHop, SlotTable},
    worker::{Exchange, SlowPath, Worker},
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

/// One port, as the slow path knows it.
struct PortRecord {
    describe: String,
    /// By worker: `None` where the port has no queue there.
    queues: Vec<Option<Queue>>,
    /// Where handshakes come in, if not at the workers.
    door: Option<Door>,
    /// How the handshakes and beacons that came in by the port ended.
    handshakes: DiscardTally,
    /// What was last ordered of it ([`Switch::welcome_strangers`]).
    welcomes: Option<bool>,
    leaving: bool,
}

struct Queue {
    tally: Arc<PortTally>,
    discards: Arc<DiscardTally>,
}

/// How the slow path reaches one worker.
struct WorkerHandle {
    orders: Producer<Order>,
    reports: Consumer<Report>,
    waiting: VecDeque<Order>,
    /// Answers and errors, by the ingress of what they are about. They are given to the worker when it has
    /// caught up with all else.
    answers: VecDeque<(Mark, Vec<u8>)>,
    bell: Option<Arc<dyn Bell>>,
    /// Reports are of orders from before the slow path began anew, up to the answer to this muster: the
    /// ledger knows nothing of them.
    awaits: Option<u64>,
}

/// What is done once every worker has reported what it was given before.
enum Step {
    Publish(Awaited<Given>),
    Announce(Awaited<Mark>),
    /// Tables lead by both numbers: the new one goes into ways back.
    Rewrite(Awaited<Retiring>),
    Retire(Awaited<Retiring>),
    Remove(Awaited<Informed>),
    Rest(Awaited<Unnamed>),
    /// All workers have said what they have.
    Muster(Awaited<Informed>),
    /// As [`Step::Rest`], and the last of what was left over is gone.
    Recovered(Awaited<Unnamed>),
    Grown(Awaited<()>),
    Forget(Awaited<PortId>),
    /// Sessions have moved to this worker.
    Moved(Awaited<u8>),
}

/// The slow path's half of a switch. One thread owns it.
pub struct Switch {
    config: SwitchConfig,
    workers: Vec<WorkerHandle>,
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
    ledger: Ledger,
    /// As numbers rest by ([`Clock::rest`]).
    now: Now,
    ports: Vec<Option<PortRecord>>,
    pending: VecDeque<Step>,
    /// Orders or answers were given since the rings were last filled.
    unpumped: bool,
    /// What workers hand up.
    up: Arc<PuntQueues>,
    awaited: Arc<AwaitedPlaces>,
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
    /// By worker: frames handed over to it whose exit had gone meanwhile.
    homeless: Vec<Arc<DiscardTally>>,
    /// By worker: frames that it made for the slow path.
    made: Vec<Arc<Counter>>,
    /// What ports and slots that are gone had counted, so that totals never go backwards.
    past: Balance,
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
        let count = pools.len();
        let up = Arc::new(PuntQueues::new());
        let awaited = Arc::new(AwaitedPlaces::new());
        let mut exchanges = Exchange::between(count, EXCHANGE_FRAMES_MAX);
        let mut handles = Vec::new();
        let mut workers = Vec::new();
        let mut all_homeless = Vec::new();
        let mut all_made = Vec::new();
        let clock = Clock::default();
        for (number, pool) in pools.into_iter().enumerate() {
            let (orders, orders_taken) = ring(ORDERS_MAX);
            let (reports_given, reports) = ring(ORDERS_MAX);
            let table = Box::new(table(&config, &BTreeMap::new())?);
            let exchange = mem::take(&mut exchanges[number]);
            let homeless = Arc::new(DiscardTally::default());
            let made = Arc::new(Counter::default());
            let slow_path = SlowPath {
                orders: orders_taken,
                reports: reports_given,
                punts: up.clone(),
                awaited: awaited.clone(),
                orphan_drops: homeless.clone(),
                frames_made: made.clone(),
                skew: clock.skew(),
                waker: None,
                has_news: false,
            };
            workers.push(Worker::new(number as u8, &config, pool, table, exchange, slow_path));
            all_made.push(made);
            all_homeless.push(homeless);
            let (waiting, answers) = (VecDeque::new(), VecDeque::new());
            let (bell, awaits) = (None, None);
            handles.push(WorkerHandle { orders, reports, waiting, answers, bell, awaits });
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
            ledger: Ledger::new(count),
            now: Now(0),
            ports: Vec::new(),
            pending: VecDeque::new(),
            unpumped: false,
            up,
            awaited,
            clock,
            peering: None,
            messages: Messages::default(),
            discards: DiscardTally::default(),
            in_hand: 0,
            barred: 0,
            muster: Mustering::default(),
            homeless: all_homeless,
            made: all_made,
            past: Balance::default(),
            events: Vec::new(),
        };
        Ok((switch, workers))
    }

    /// What wakes worker `number` when it has been given orders.
    pub fn set_bell(&mut self, number: usize, bell: Arc<dyn Bell>) {
        if let Some(worker) = self.workers.get_mut(number) {
            worker.bell = Some(bell);
        }
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
        if ports.len() != self.workers.len() {
            return Err(PlugError::QueueCount { queues: ports.len(), workers: self.workers.len() });
        }
        let id = self.free_port_id()?;
        let describe = ports.first().map(|port| port.describe().to_owned()).unwrap_or_default();
        self.record_port(id, describe);
        for (worker, port) in ports.into_iter().enumerate() {
            self.seat(id, worker, port);
        }
        Ok(id)
    }

    /// Plugs in a port that one worker owns; the others hand it frames over their exchange rings.
    ///
    /// # Errors
    /// [`PlugError`]; the port is dropped then.
    pub fn plug_at(&mut self, worker: usize, port: Box<dyn Port>) -> Result<PortId, PlugError> {
        if worker >= self.workers.len() {
            return Err(PlugError::NoWorker(worker));
        }
        let id = self.free_port_id()?;
        self.record_port(id, port.describe().to_owned());
        self.seat(id, worker, port);
        Ok(id)
    }

    fn free_port_id(&self) -> Result<PortId, PlugError> {
        let free = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        if free < PORTS_MAX { Ok(PortId(free as u16)) } else { Err(PlugError::Full) }
    }

    fn record_port(&mut self, id: PortId, describe: String) {
        let queues = (0..self.workers.len()).map(|_| None).collect();
        let record = Some(PortRecord {
            describe,
            queues,
            door: None,
            handshakes: DiscardTally::default(),
            welcomes: None,
            leaving: false,
        });
        match self.ports.get_mut(usize::from(id.0)) {
            Some(place) => *place = record,
            None => self.ports.push(record),
        }
    }

    fn seat(&mut self, id: PortId, worker: usize, port: Box<dyn Port>) {
        let discards = Arc::new(DiscardTally::default());
        if let Some(record) = self.ports.get_mut(usize::from(id.0)).and_then(Option::as_mut) {
            record.queues[worker] =
                Some(Queue { tally: port.tally().clone(), discards: discards.clone() });
        }
        let seat =
            PortSeat { number: id.0, port, discards, hears_beacons: false, is_listed: false };
        self.give(worker, Order::Plug(Box::new(seat)));
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
        let record = self.port_mut(id).ok_or(DetachError::NoPort)?;
        record.leaving = true;
        // First of all: the kernel then gives handshakes to the workers, like everything else.
        let door = record.door.take();
        let owners: Vec<bool> = record.queues.iter().map(Option::is_some).collect();
        if let Some(door) = door {
            self.past.add_tally(door.tally());
        }
        for (worker, _) in owners.iter().enumerate().filter(|(_, owns)| **owns) {
            self.give(worker, Order::Unplug(id.0));
        }
        self.drop_beacon(id);
        self.after_all(id, Step::Forget);
        Ok(())
    }

    fn forget_port(&mut self, id: PortId) {
        if let Some(record) = self.ports.get_mut(usize::from(id.0)).and_then(Option::take) {
            for queue in record.queues.iter().flatten() {
                self.past.add_queue(&queue.tally, &queue.discards);
            }
            self.past.add_discards(&record.handshakes);
            self.events.push(Event::PortUnplugged(id));
        }
    }

    fn port_mut(&mut self, id: PortId) -> Option<&mut PortRecord> {
        let record = self.ports.get_mut(usize::from(id.0))?.as_mut()?;
        (!record.leaving).then_some(record)
    }

    fn attachments(&self) -> impl Iterator<Item = (Mark, &Attachment)> {
        self.attached.iter().enumerate().filter_map(|(index, (generation, attachment))| {
            attachment.as_ref().map(|a| (Mark::new(index as u16, *generation), a))
        })
    }

    /// Does what is due: gives waiting orders, reads reports, takes the next steps, ends punted
    /// frames. It never blocks. What has come true is returned, oldest first.
    ///
    /// Call it when [`next_timeout`](Self::next_timeout) has come, after a worker has rung the bell that
    /// [`Worker::set_control_bell`] gave it, when what [`arm`](Self::arm) named is ready, and after any other
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
            if !self.awaits_workers() {
                self.up.attention.ignore_completions();
                break;
            }
            self.up.attention.want_completions();
            // Whatever a worker completes from here on it tells; what it has completed is read now.
            if self.workers.iter_mut().all(|worker| worker.reports.is_empty()) {
                break;
            }
        }
        mem::take(&mut self.events)
    }

    /// When [`poll`](Self::poll) has something to do next if nothing else happens, as the caller's clock will
    /// show it; a time that has passed if that is now. `None` if time alone brings nothing.
    pub fn next_timeout(&self) -> Option<Now> {
        let is_due = self.pending.front().is_some_and(|step| self.is_due(step));
        if is_due || self.unpumped || !self.events.is_empty() || !self.up.is_empty() {
            return Some(self.clock.said_at(Now(0)));
        }
        let peering = self.peers_due().into_iter().chain(self.beacons_due());
        let due = peering.map(|due| Now(due.0)).chain(self.messages.next_timeout()).min();
        let numbers = self.numbers_due().map(|due| self.clock.said_at_rest(due));
        due.map(|due| self.clock.said_at(due)).into_iter().chain(numbers).min()
    }

    /// Whether what workers report lets something go on.
    fn awaits_workers(&self) -> bool {
        let is_behind = |worker: usize| self.ledger.outstanding(worker) > ORDERS_MAX as u64 / 2;
        let has_waiting = |worker: &WorkerHandle| {
            !worker.waiting.is_empty() || !worker.answers.is_empty() || worker.awaits.is_some()
        };
        !self.pending.is_empty()
            || self.has_opening()
            || self.workers.iter().any(has_waiting)
            || (0..self.workers.len()).any(is_behind)
    }

    /// Gives orders, reads reports, and takes the steps that are due.
    fn take_steps(&mut self) {
        loop {
            self.pump();
            self.read_reports();
            // In order: a later change never overtakes an earlier one.
            match self.pending.pop_front() {
                Some(Step::Publish(given)) => {
                    if !self.publish_all(given) {
                        break;
                    }
                }
                Some(step) if self.is_due(&step) => self.take_step(step, self.now),
                Some(step) => break self.pending.push_front(step),
                None => break,
            }
        }
        self.show_opened();
    }

    /// Whether no change is under way.
    pub fn is_settled(&self) -> bool {
        let no_answers = self.workers.iter().all(|worker| worker.answers.is_empty());
        no_answers && self.pending.is_empty() && self.ledger.is_even()
    }

    /// Takes what the workers have noticed.
    fn take_notes(&mut self, now: Now) {
        for _ in 0..self.up.notes.len() {
            match self.up.notes.pop() {
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
        for _ in 0..self.up.knocks.len() {
            let Some(knock) = self.up.knocks.pop() else { break };
            self.note_taken(knock.link, knock.worker, PuntKind::Knock);
            self.in_hand += 1;
            self.take_knock(&knock, now);
        }
        for _ in 0..self.up.strangers.len() {
            let Some(knock) = self.up.strangers.pop() else { break };
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
        let record = self.ports.get(usize::from(port.0)).and_then(Option::as_ref);
        record.map_or(&self.discards, |record| &record.handshakes).count(how);
        self.in_hand = self.in_hand.saturating_sub(1);
    }

    fn give(&mut self, worker: usize, order: Order) {
        self.unpumped = true;
        let is_message = matches!(order, Order::Say(..) | Order::Probe(..) | Order::Send(..));
        if is_message && self.workers[worker].waiting.len() >= MESSAGES_WAITING_MAX {
            // Made, and lost before it was a frame: on both sides of R3's balance (`balance`).
            self.discards.count(Discard::OrdersFull);
            return;
        }
        self.ledger.note_given(worker);
        self.workers[worker].waiting.push_back(order);
    }

    /// Has a worker send an answer to something that came in by `ingress`, which has as many places at most
    /// as are left free for the others.
    fn give_answer(&mut self, worker: usize, ingress: Mark, packet: Vec<u8>) {
        self.unpumped = true;
        let answers = &mut self.workers[worker].answers;
        let held = answers.iter().filter(|(by, _)| *by == ingress).count();
        if held < ANSWERS_WAITING_MAX - answers.len() {
            answers.push_back((ingress, packet));
        } else {
            self.discards.count(Discard::OrdersFull);
        }
    }

    /// Takes a step once every worker has reported all that it was given so far.
    fn after_all<T>(&mut self, what: T, step: fn(Awaited<T>) -> Step) {
        self.pending.push_back(step(self.ledger.wait_for_all(what)));
    }

    fn pump(&mut self) {
        self.unpumped = false;
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let mut given = false;
            while let Some(order) = worker.waiting.pop_front() {
                if let Err(order) = worker.orders.push(order) {
                    worker.waiting.push_front(order);
                    break;
                }
                given = true;
            }
            // Half of the ring stays free for what must not wait behind them.
            while worker.waiting.is_empty()
                && worker.orders.has_room(ORDERS_MAX / 2 + 1)
                && let Some((_, packet)) = worker.answers.pop_front()
            {
                self.ledger.note_given(number);
                let pushed = worker.orders.push(Order::Transmit(packet));
                debug_assert!(pushed.is_ok(), "room was seen above, and only we fill it");
                given = true;
            }
            if given && let Some(bell) = &worker.bell {
                bell.ring();
            }
        }
    }

    fn read_reports(&mut self) {
        for number in 0..self.workers.len() {
            while let Some(report) = self.workers[number].reports.pop() {
                let handle = &mut self.workers[number];
                if let Report::Mustered(muster) = &report {
                    handle.awaits.take_if(|awaited| *awaited == muster.number);
                }
                if handle.awaits.is_none() {
                    self.ledger.note_reported(number);
                }
                self.read_report(report);
            }
        }
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
