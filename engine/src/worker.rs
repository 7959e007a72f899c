//! One worker: the path of a packet, from the port it came in by to the port it leaves by. It never
//! allocates after it was made, never locks, never blocks, and never reads a clock.
//!
//! Read [`Worker::breathe`] and `forward`; everything else here is what those two call. What the
//! slow path orders is carried out in `worker/apply.rs`; what it is told, and
//! what it says itself, is in `worker/punt.rs`; the way to other workers, in `worker/handoff.rs`;
//! what waits for a quiet link's keys, in `worker/pending.rs`.

mod apply;
mod forward;
mod handoff;
mod open;
mod pending;
mod poll_order;
mod punt;
mod settle;
mod transmit;
mod verdict;

use std::sync::Arc;

use arrayvec::ArrayVec;
use strowger_frame::{
    Address, BURST_MAX, Burst, Mark, Pool,
    reserve::PoolUser,
    ring::{Consumer, Producer},
    tally::Counter,
};

pub(crate) use self::handoff::Exchange;
use self::poll_order::PollOrder;
use crate::{
    Now,
    control::SwitchConfig,
    discard::{Discard, DiscardTally},
    header::HeaderError,
    limits::{ATTACHED_MAX, BURSTS_PER_POLL, PORTS_MAX, WORKERS_MAX},
    link::{Link, TxContext},
    orders::{Bell, Order, PortSeat, PuntQueues, Report},
    session::{AwaitedPlaces, Sessions},
    slots::SlotTable,
};

/// The mark of a frame whose session another worker's port received for: its address is not here.
const ELSEWHERE: Mark = Mark(u32::MAX);

/// No port of this worker.
const NO_SEAT: usize = usize::MAX;

/// One core's share of a switch: its own table, its own queue of every port, its own memory.
pub struct Worker {
    number: u8,
    hops_max: u8,
    tx: TxContext,
    slots: Box<SlotTable>,
    /// By [`Mark::index`].
    links: Vec<Option<Box<Link>>>,
    /// Boxed, so that one can be given back to the slow path without allocating.
    #[allow(clippy::vec_box)]
    ports: Vec<Box<PortSeat>>,
    /// By port number: where in `ports` it sits.
    seats: Vec<Option<u16>>,
    exhaled: Vec<Mark>,
    /// Links whose port has left frames at their exits: each once, and in none of the lists above.
    contended: Vec<Mark>,
    /// By slot: who stands there, or stood there last.
    by_slot: Vec<Mark>,
    /// Numbers of ports that were given frames since they were last flushed, or have sends in flight.
    unflushed: Vec<u16>,
    /// Counts polls, and so gives each its own order of ports.
    polls: u64,
    /// Ports and, behind them, rings that are polled next, in this order.
    polled: Vec<u16>,
    /// A session has moved here: what is in the rings now goes first.
    rings_first: bool,
    /// Frames that came in since the last flush.
    unflushed_frames: usize,
    exchange: Exchange,
    orders: Consumer<Order>,
    reports: Producer<Report>,
    sessions: Sessions,
    /// Frames that wait for keys, at all links.
    waiting: usize,
    /// The worker that received what was handed over last, for its session.
    strayed_by: u8,
    alias_used: punt::AliasUsed,
    up: Arc<PuntQueues>,
    /// Where answers to handshakes are awaited.
    awaited: Arc<AwaitedPlaces>,
    /// What wakes the slow path, and whether it has something new to read.
    control_bell: Option<Arc<dyn Bell>>,
    news: bool,
    /// Discards of frames whose exit had gone before they came to it.
    homeless: Arc<DiscardTally>,
    /// Frames that this worker made for the slow path.
    frames_made: Arc<Counter>,
    /// Slot 1, as far as it is like a link: what the switch itself sends comes in by it.
    own: Box<Link>,
    /// What makes the switch's own time of the caller's.
    skew: Arc<Counter>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("number", &self.number)
            .field("ports", &self.ports.len())
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// One breath: obey, take in and switch what has arrived, let out what is ready. Returns how
    /// many frames were switched; 0 means that there was nothing to do.
    pub fn breathe(&mut self, now: Now) -> usize {
        let now = Now(now.0.wrapping_add(self.skew.read()));
        self.tx.now = now;
        self.obey(now);
        self.tx.pool.gather();

        self.offer_again();
        self.polls = self.polls.wrapping_add(1);
        let (ports, rings) = (self.ports.len(), self.exchange.workers());
        let (mut switched, had_turn) = if rings > 0 { self.take_first(now) } else { (0, 0) };
        // One burst from each in turn, so that whoever is first is ahead by no more than that.
        self.polled.clear();
        self.polled.extend(PollOrder::new(ports + rings, self.polls));
        for round in 0..BURSTS_PER_POLL {
            let mut has_more = 0;
            for at in 0..self.polled.len() {
                let place = self.polled[at];
                let taken = match usize::from(place).checked_sub(ports) {
                    None => Some(self.poll_port(usize::from(place), now)),
                    Some(ring) if round == 0 && had_turn >> ring & 1 == 1 => None,
                    Some(ring) => Some(self.take_handovers(ring, now)),
                };
                switched += taken.unwrap_or_default();
                if taken.is_none_or(|taken| taken == BURST_MAX) {
                    self.polled[has_more] = place;
                    has_more += 1;
                }
            }
            self.polled.truncate(has_more);
            if has_more == 0 {
                break;
            }
        }
        self.flush();
        switched
    }

    /// Takes in and switches one burst of what has arrived at a port.
    fn poll_port(&mut self, seat: usize, now: Now) -> usize {
        let mut burst = Burst::new();
        let PortSeat { number, port, .. } = &mut *self.ports[seat];
        self.tx.pool.act_for(PoolUser::port(*number));
        port.rx_burst(&mut self.tx.pool, &mut burst);
        self.tx.pool.act_for(PoolUser::COMMON);
        let arrived = burst.len();

        self.forward(&mut burst, seat, now);
        self.flush_after(arrived);
        arrived
    }

    /// The port and the address that stand behind a mark there.
    #[cold]
    fn address_of(&self, queue: usize, mark: Mark) -> Option<(u16, Address)> {
        let queue = self.ports.get(queue)?;
        Some((queue.number, queue.port.address_of(mark)?))
    }

    fn seat_of(&self, port: u16) -> Option<usize> {
        self.seats.get(usize::from(port)).copied().flatten().map(usize::from)
    }

    /// What wakes the worker with this number, rung when a frame is handed over to it.
    pub fn set_bell(&mut self, number: usize, bell: Arc<dyn Bell>) {
        self.exchange.set_bell(number, bell);
    }

    /// What wakes the slow path, rung when this worker has reported something or handed something
    /// up, at most once for every flush.
    pub fn set_control_bell(&mut self, bell: Arc<dyn Bell>) {
        self.control_bell = Some(bell);
    }

    /// This worker's number in its switch.
    pub fn number(&self) -> usize {
        usize::from(self.number)
    }

    /// The memory that this worker's frames live in.
    pub fn pool_mut(&mut self) -> &mut Pool {
        &mut self.tx.pool
    }

    #[allow(clippy::too_many_arguments)] // one caller, which makes all of a worker's ties at once
    pub(crate) fn new(
        number: u8,
        config: &SwitchConfig,
        pool: Pool,
        slots: Box<SlotTable>,
        orders: Consumer<Order>,
        reports: Producer<Report>,
        exchange: Exchange,
        up: Arc<PuntQueues>,
        awaited: Arc<AwaitedPlaces>,
        homeless: Arc<DiscardTally>,
        frames_made: Arc<Counter>,
        skew: Arc<Counter>,
    ) -> Self {
        let tx = TxContext {
            now: Now::default(),
            pool,
            exhaling: Vec::with_capacity(ATTACHED_MAX),
            displaced: ArrayVec::new(),
            worn: None,
        };
        Self {
            number,
            hops_max: config.hops_max,
            tx,
            slots,
            links: (0..ATTACHED_MAX).map(|_| None).collect(),
            ports: Vec::with_capacity(PORTS_MAX),
            seats: vec![None; PORTS_MAX],
            exhaled: Vec::with_capacity(ATTACHED_MAX),
            contended: Vec::with_capacity(ATTACHED_MAX),
            by_slot: vec![Link::OWN; ATTACHED_MAX + 1],
            unflushed: Vec::with_capacity(PORTS_MAX),
            polls: 0,
            polled: Vec::with_capacity(PORTS_MAX + WORKERS_MAX),
            rings_first: false,
            unflushed_frames: 0,
            exchange,
            orders,
            reports,
            sessions: Sessions::new(),
            waiting: 0,
            strayed_by: number,
            alias_used: punt::AliasUsed::default(),
            up,
            awaited,
            control_bell: None,
            news: false,
            homeless,
            frames_made,
            own: Box::new(Link::own(&config.scheme)),
            skew,
        }
    }
}

/// The link under this mark, if it is still the same one.
#[inline]
fn live(links: &[Option<Box<Link>>], mark: Mark) -> Option<&Link> {
    let link = links.get(mark.index())?.as_deref()?;
    (link.mark == mark).then_some(link)
}

/// The same, to be changed.
#[inline]
fn live_mut(links: &mut [Option<Box<Link>>], mark: Mark) -> Option<&mut Link> {
    let link = links.get_mut(mark.index())?.as_deref_mut()?;
    (link.mark == mark).then_some(link)
}

impl From<HeaderError> for Discard {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::TooShort => Self::TooShort,
            HeaderError::Version => Self::BadVersion,
            HeaderError::Width => Self::BadWidth,
            HeaderError::Shift => Self::BadHeader,
        }
    }
}
