//! One worker: the path of a packet, from the port it came in by to the port it leaves by. It never
//! allocates after it was made, never locks, never blocks, and never reads a clock.
//!
//! Read [`Worker::breathe`] and `forward`; everything else here is what those two call.

use std::{mem, sync::Arc};

use arrayvec::ArrayVec;
use crossbeam_queue::ArrayQueue;
use strowger_frame::{
    BURST_MAX, Burst, Frame, Mark, Pool,
    port::Arm,
    ring::{Consumer, Producer, ring},
};

use crate::{
    Now,
    control::SwitchConfig,
    discard::{Discard, DiscardTally},
    header::{AnyHeader, Header, HeaderError, hops_behind},
    label::Register,
    limits::{ATTACHED_MAX, ORDERS_PER_BREATH, PORTS_MAX},
    link::Link,
    orders::{Bell, Handover, Order, PortSeat, Punt, Report},
    slots::{Exit, SlotTable},
};

/// One core's share of a switch: its own table, its own queue of every port, its own memory.
pub struct Worker {
    number: u8,
    hops_max: u8,
    pool: Pool,
    slots: Box<SlotTable>,
    /// By [`Mark::index`].
    links: Vec<Option<Box<Link>>>,
    /// Boxed, so that one can be given back to the slow path without allocating.
    #[allow(clippy::vec_box)]
    ports: Vec<Box<PortSeat>>,
    /// By port number: where in `ports` it sits.
    seats: Vec<Option<u16>>,
    /// Links with frames at their exits, each once.
    exhaling: Vec<Mark>,
    exhaled: Vec<Mark>,
    exchange: Exchange,
    orders: Consumer<Order>,
    reports: Producer<Report>,
    punts: Arc<ArrayQueue<Punt>>,
    /// Discards of frames whose exit had gone before they came to it.
    homeless: Arc<DiscardTally>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("number", &self.number)
            .field("ports", &self.ports.len())
            .finish_non_exhaustive()
    }
}

/// Where a frame goes after a step, and how it queues there.
#[derive(Clone, Copy)]
enum Onward {
    Exit { egress: Mark, is_control: bool, ingress_slot: u32 },
    Punt { ingress_slot: u32 },
}

impl Worker {
    /// One breath: obey, take in and switch what has arrived, let out what is ready. Returns how
    /// many frames were switched; 0 means that there was nothing to do.
    pub fn breathe(&mut self, now: Now) -> usize {
        self.obey();
        self.pool.gather();

        let mut switched = self.take_handovers();
        for seat in 0..self.ports.len() {
            let mut burst = Burst::new();
            self.ports[seat].port.rx_burst(&mut self.pool, &mut burst);
            switched += burst.len();

            // Decide for the whole burst where it lies, then move each frame once.
            let onward: ArrayVec<_, BURST_MAX> =
                burst.iter_mut().map(|frame| self.forward(frame, now)).collect();
            for (frame, onward) in burst.into_iter().zip(onward) {
                let sent = match onward {
                    Ok(onward) => self.send_on(onward, frame),
                    Err(discard) => Err((discard, frame)),
                };
                if let Err((discard, frame)) = sent {
                    self.discard(seat, discard, &frame);
                }
            }
            self.exhale();
        }
        switched
    }

    /// A packet's whole way through the switch, up to the queue in which it waits to be let out.
    #[inline]
    fn forward(&self, frame: &mut Frame, now: Now) -> Result<Onward, Discard> {
        let ingress = live(&self.links, frame.mark()).ok_or(Discard::IngressGone)?;
        ingress.count_arrival(frame, now);

        // Opened in place; lengths are checked by `parse`, and nowhere behind it.
        let packet = ingress.open(frame)?.into_bytes();
        match AnyHeader::parse(packet)? {
            AnyHeader::W64(header) => self.step(ingress, header),
            AnyHeader::W128(header) => self.step(ingress, header),
            AnyHeader::W256(header) => self.step(ingress, header),
        }
    }

    /// One step (wire.md 1.2): decides first and writes after, so that a frame that goes no further
    /// is still as it came.
    #[inline]
    fn step<R: Register>(
        &self,
        ingress: &Link,
        mut header: Header<'_, R>,
    ) -> Result<Onward, Discard> {
        let hops_left = hops_behind(header.hops_left(), self.hops_max).ok_or(Discard::HopsSpent)?;
        let (label, shift) = (header.label(), header.shift());
        if label.is_spent(shift) {
            return Err(Discard::LabelSpent);
        }

        let hop = self.slots.take(label.low());
        let (ingress_slot, is_control) = (ingress.slot, header.is_control());
        let egress = match hop.exit() {
            Exit::Neighbour(egress) => egress,
            Exit::Endpoint(egress) => {
                check_turn(ingress, egress)?;
                arrive(&header, hop.width())?;
                return Ok(Onward::Exit { egress, is_control, ingress_slot });
            }
            Exit::Switch => {
                arrive(&header, hop.width())?;
                return Ok(Onward::Punt { ingress_slot });
            }
            Exit::Empty => return Err(Discard::EmptySlot),
            Exit::Gone => return Err(Discard::SlotGone),
            Exit::NoDirector => return Err(Discard::NoDirector),
        };
        check_turn(ingress, egress)?;
        let way_back = ingress.way_back.in_form(hop.form()).ok_or(Discard::ReturnPath)?;
        let shift = shift + u16::from(hop.width());
        if u32::from(shift) >= R::BITS {
            return Err(Discard::LabelFull);
        }
        header.advance(label.advance(hop.width(), way_back), shift, hops_left);
        Ok(Onward::Exit { egress, is_control, ingress_slot })
    }

    /// Puts a frame at its exit, or on the way to the worker that has it, or before the slow path.
    #[inline]
    fn send_on(&mut self, onward: Onward, frame: Frame) -> Result<(), (Discard, Frame)> {
        let (egress, is_control, ingress_slot) = match onward {
            Onward::Exit { egress, is_control, ingress_slot } => (egress, is_control, ingress_slot),
            Onward::Punt { ingress_slot } => return self.punt(ingress_slot, frame),
        };
        let Some(link) = live_mut(&mut self.links, egress) else {
            return Err((Discard::ExitGone, frame));
        };
        match link.home {
            None => link.queue(frame, ingress_slot, is_control, &mut self.exhaling),
            Some(home) => {
                let handover = Handover { to: egress, ingress_slot, is_control, frame };
                self.exchange.send(home, handover)
            }
        }
    }

    /// Sends what waits at all exits, as far as the ports take it.
    fn exhale(&mut self) {
        if self.exhaling.is_empty() {
            return;
        }
        mem::swap(&mut self.exhaling, &mut self.exhaled);
        for &mark in &self.exhaled {
            let Some(link) = live_mut(&mut self.links, mark) else { continue };
            let seat = self.seats.get(usize::from(link.port)).copied().flatten();
            if let Some(seat) = seat.and_then(|seat| self.ports.get_mut(usize::from(seat))) {
                link.let_out(&mut *seat.port, &mut self.exhaling);
            }
        }
        self.exhaled.clear();
        for seat in &mut self.ports {
            seat.port.flush();
        }
        self.exchange.ring_bells();
    }

    /// Takes the frames that other workers' flows send by exits of this one.
    fn take_handovers(&mut self) -> usize {
        let mut taken = 0;
        for from in 0..self.exchange.from.len() {
            let mut handovers = ArrayVec::<Handover, BURST_MAX>::new();
            self.exchange.from[from].pop_burst(&mut handovers);
            taken += handovers.len();
            for Handover { to, ingress_slot, is_control, frame } in handovers {
                let refused = match live_mut(&mut self.links, to) {
                    None => Err((Discard::ExitGone, frame)),
                    Some(link) => link.queue(frame, ingress_slot, is_control, &mut self.exhaling),
                };
                if let Err((discard, _frame)) = refused {
                    self.count_at_exit(to, discard);
                }
            }
            self.exhale();
        }
        taken
    }

    /// Hands a frame that is for the switch itself to the slow path.
    #[cold]
    fn punt(&mut self, ingress_slot: u32, frame: Frame) -> Result<(), (Discard, Frame)> {
        let punt = Punt { worker: self.number, ingress: frame.mark(), ingress_slot, frame };
        self.punts.push(punt).map_err(|punt| (Discard::PuntFull, punt.frame))
    }

    /// Counts the end of a frame at the port that it came in by.
    #[cold]
    fn discard(&mut self, seat: usize, discard: Discard, frame: &Frame) {
        if let Some(link) = live(&self.links, frame.mark()) {
            link.tally.discards.add(1);
        }
        if let Some(seat) = self.ports.get_mut(seat) {
            seat.discards.count(discard);
            seat.port.note_discard(frame, discard.name());
        }
    }

    /// Counts the end of a frame at the exit that it was to leave by.
    #[cold]
    fn count_at_exit(&mut self, exit: Mark, discard: Discard) {
        let seat = live(&self.links, exit).and_then(|link| {
            link.tally.discards.add(1);
            self.seats.get(usize::from(link.port)).copied().flatten()
        });
        match seat.and_then(|seat| self.ports.get(usize::from(seat))) {
            Some(seat) => seat.discards.count(discard),
            // The link is gone, and its port may be, too.
            None => self.homeless.count(discard),
        }
    }

    /// Does what the slow path has decided since the last breath, a few orders at most.
    fn obey(&mut self) {
        for _ in 0..ORDERS_PER_BREATH {
            // An order is taken only when its report has a place.
            if self.reports.is_full() {
                return;
            }
            let Some(order) = self.orders.pop() else { return };
            let report = self.carry_out(order);
            let reported = self.reports.push(report);
            debug_assert!(reported.is_ok(), "a place was seen above, and only we fill it");
        }
    }

    fn carry_out(&mut self, order: Order) -> Report {
        match order {
            Order::Slots(table) => Report::Slots(mem::replace(&mut self.slots, table)),
            Order::Attach(link, at) => {
                let mark = link.mark;
                if let Some(seat) = self.seat_of(link.port)
                    && let Err(why) = self.ports[seat].port.admit(mark, at)
                {
                    return Report::AttachRefused(link, why);
                }
                match self.links.get_mut(mark.index()) {
                    Some(place) => *place = Some(link),
                    None => debug_assert!(false, "marks are below ATTACHED_MAX"),
                }
                Report::Done
            }
            Order::Detach(mark) => {
                let place = self.links.get_mut(mark.index());
                let Some(mut link) = place.and_then(|p| p.take_if(|l| l.mark == mark)) else {
                    return Report::Done;
                };
                if let Some(seat) = self.seat_of(link.port) {
                    let seat = &mut self.ports[seat];
                    seat.port.forget(mark);
                    let waiting = link.egress.waiting() as u64;
                    link.tally.discards.add(waiting);
                    seat.discards.count_many(Discard::ExitGone, waiting);
                }
                self.exhaling.retain(|&listed| listed != mark);
                link.egress = crate::egress::Egress::default();
                Report::Detached(link)
            }
            Order::Plug(seat) => {
                let number = usize::from(seat.number);
                if self.ports.len() == PORTS_MAX || number >= self.seats.len() {
                    return Report::PlugRefused(seat);
                }
                self.seats[number] = Some(self.ports.len() as u16);
                self.ports.push(seat);
                Report::Done
            }
            Order::Unplug(number) => {
                let Some(seat) = self.seat_of(number) else { return Report::Done };
                let gone = self.ports.swap_remove(seat);
                self.seats[usize::from(number)] = None;
                if let Some(moved) = self.ports.get(seat) {
                    self.seats[usize::from(moved.number)] = Some(seat as u16);
                }
                Report::Unplugged(gone)
            }
        }
    }

    fn seat_of(&self, port: u16) -> Option<usize> {
        self.seats.get(usize::from(port)).copied().flatten().map(usize::from)
    }

    /// Called before the thread blocks: gives each port's word on what would wake it, and says
    /// whether the thread may block at all. Call [`disarm`](Self::disarm) after.
    pub fn arm(&mut self, mut each: impl FnMut(Arm)) -> bool {
        let mut may_block = self.exhaling.is_empty() && self.orders.is_empty();
        may_block &= self.exchange.from.iter_mut().all(Consumer::is_empty);
        for seat in &mut self.ports {
            let arm = seat.port.arm();
            may_block &= arm != Arm::Ready && seat.port.is_flushed();
            each(arm);
        }
        may_block
    }

    /// Called after the thread has woken.
    pub fn disarm(&mut self) {
        for seat in &mut self.ports {
            seat.port.disarm();
        }
    }

    /// What wakes the worker with this number, rung when a frame is handed over to it.
    pub fn set_bell(&mut self, number: usize, bell: Arc<dyn Bell>) {
        if let Some(place) = self.exchange.bells.get_mut(number) {
            *place = Some(bell);
        }
    }

    /// This worker's number in its switch.
    pub fn number(&self) -> usize {
        usize::from(self.number)
    }

    /// Frames that wait at exits: 0 at rest.
    pub fn frames_waiting(&self) -> usize {
        let listed = self.exhaling.iter().filter_map(|mark| {
            let link = self.links.get(mark.index())?.as_ref()?;
            Some(link.egress.waiting())
        });
        listed.sum()
    }

    /// The memory that this worker's frames live in.
    pub fn pool_mut(&mut self) -> &mut Pool {
        &mut self.pool
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
        punts: Arc<ArrayQueue<Punt>>,
        homeless: Arc<DiscardTally>,
    ) -> Self {
        Self {
            number,
            hops_max: config.hops_max,
            pool,
            slots,
            links: (0..ATTACHED_MAX).map(|_| None).collect(),
            ports: Vec::with_capacity(PORTS_MAX),
            seats: vec![None; PORTS_MAX],
            exhaling: Vec::with_capacity(ATTACHED_MAX),
            exhaled: Vec::with_capacity(ATTACHED_MAX),
            exchange,
            orders,
            reports,
            punts,
            homeless,
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

/// Leaving by the slot one came in by is refused unless the operator allows it (wire.md 1.2).
#[inline]
fn check_turn(ingress: &Link, egress: Mark) -> Result<(), Discard> {
    if ingress.mark == egress && !ingress.u_turns { Err(Discard::UTurn) } else { Ok(()) }
}

/// Where a label ends, nothing may be left of it but its end marker (wire.md 1.3).
#[inline]
fn arrive<R: Register>(header: &Header<'_, R>, width: u8) -> Result<(), Discard> {
    let forward = header.label().forward(header.shift()).register();
    let rest = forward.shr(u32::from(width));
    if rest == R::ZERO || rest == R::ONE { Ok(()) } else { Err(Discard::BeyondEndpoint) }
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

/// One worker's rings to and from every other.
#[derive(Default)]
pub(crate) struct Exchange {
    /// By worker; `None` for oneself.
    to: Vec<Option<Producer<Handover>>>,
    from: Vec<Consumer<Handover>>,
    bells: Vec<Option<Arc<dyn Bell>>>,
    /// Bit `w`: worker `w` was handed frames since its bell was last rung.
    given: u64,
}

impl Exchange {
    /// The rings between `count` workers (64 at most), by worker.
    pub(crate) fn between(count: usize, frames_max: usize) -> Vec<Self> {
        let mut all: Vec<Self> =
            (0..count).map(|_| Self { bells: vec![None; count], ..Self::default() }).collect();
        for from in 0..count {
            for to in 0..count {
                if from == to {
                    all[from].to.push(None);
                    continue;
                }
                let (producer, consumer) = ring(frames_max);
                all[from].to.push(Some(producer));
                all[to].from.push(consumer);
            }
        }
        all
    }

    #[inline]
    fn send(&mut self, home: u8, handover: Handover) -> Result<(), (Discard, Frame)> {
        let Some(Some(ring)) = self.to.get_mut(usize::from(home)) else {
            return Err((Discard::ExitGone, handover.frame));
        };
        self.given |= 1 << home;
        ring.push(handover).map_err(|handover| (Discard::ExchangeFull, handover.frame))
    }

    fn ring_bells(&mut self) {
        let mut given = mem::take(&mut self.given);
        while given != 0 {
            let worker = given.trailing_zeros() as usize;
            given &= given - 1;
            if let Some(Some(bell)) = self.bells.get(worker) {
                bell.ring();
            }
        }
    }
}
