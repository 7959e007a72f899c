//! One worker: the path of a packet, from the port it came in by to the port it leaves by. It never
//! allocates after it was made, never locks, never blocks, and never reads a clock.
//!
//! Read [`Worker::breathe`] and `forward`; everything else here is what those two call. What the
//! slow path orders is carried out in `worker/obey.rs`; what it is told, and
//! what it says itself, is in `worker/tell.rs`; the way to other workers, in `worker/exchange.rs`;
//! what waits for a quiet link's keys, in `worker/wait.rs`.

mod exchange;
mod obey;
mod order;
mod settle;
mod tell;
mod transmit;
mod wait;

use std::sync::Arc;

use arrayvec::ArrayVec;
use strowger_crypto::{limits::TAG_BYTES, link_header::Kind};
use strowger_frame::{
    BURST_MAX, Burst, Frame, Mark, Pool,
    reserve::PoolUser,
    ring::{Consumer, Producer},
    tally::Counter,
};

pub(crate) use self::exchange::Exchange;
use self::order::PollOrder;
use crate::{
    Now,
    control::SwitchConfig,
    discard::{Discard, DiscardTally},
    header::{AnyHeader, Header, HeaderError, hops_behind},
    label::Register,
    limits::{ATTACHED_MAX, BURSTS_PER_POLL, PORTS_MAX, WORKERS_MAX},
    link::{Link, Opened, TxContext, Waiting, kind_of, session_of},
    orders::{Bell, Order, PortSeat, Punt, PuntQueues, Report},
    session::{AwaitedPlaces, Place, Sessions, Vouched},
    slots::{Exit, SlotTable},
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
    alias_used: tell::AliasUsed,
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

/// Where a frame goes from here.
#[derive(Clone, Copy)]
enum Onward {
    /// To an exit of this switch.
    Exit { egress: Mark, is_control: bool, ingress_slot: u32 },
    /// To the switch itself.
    Punt { ingress_slot: u32 },
    /// Nowhere: its exit refused it.
    Refused { egress: Mark, discard: Discard, is_control: bool, ingress_slot: u32 },
    /// Nowhere: a keepalive has said all it had to say.
    Heard,
    /// To the slow path, as a link's own message.
    Said { kind: Kind, from: Mark },
    /// To the slow path, as a message that proves nothing yet.
    Knock,
    /// To the worker that opens its session.
    Stray { worker: u8 },
    /// To an exit of another worker.
    Elsewhere { home: u8, egress: Mark, is_control: bool, ingress_slot: u32 },
}

/// What came of opening a sealed frame.
enum Arrival<'f> {
    /// A packet to be switched.
    Packet(Opened<'f>),
    /// Something else, which goes there.
    Other(Onward),
}

/// Whether two frames leave by one exit and in one queue.
#[inline]
fn goes_along(a: &Result<Onward, Discard>, b: &Result<Onward, Discard>) -> bool {
    match (a, b) {
        (
            Ok(Onward::Exit { egress: a, is_control: a_control, .. }),
            Ok(Onward::Exit { egress: b, is_control: b_control, .. }),
        ) => a == b && a_control == b_control,
        _ => false,
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

        // Each frame is decided and made ready where it lies, then moved once.
        let onward: ArrayVec<_, BURST_MAX> =
            burst.iter_mut().map(|frame| self.forward(frame, seat, now)).collect();
        self.send_on(burst.drain(..), &onward, seat);
        self.exhale();
        self.flush_after(arrived);
        arrived
    }

    /// A packet's whole way through the switch, up to the queue in which it waits to be let out.
    #[inline(always)] // returned through memory, what was decided would stall the burst
    fn forward(&mut self, frame: &mut Frame, seat: usize, now: Now) -> Result<Onward, Discard> {
        let onward = self.route(frame, seat, now)?;
        self.ready(frame, onward, now)
    }

    /// Makes a frame ready for the exit that was found for it.
    #[inline(always)]
    fn ready(&mut self, frame: &mut Frame, onward: Onward, now: Now) -> Result<Onward, Discard> {
        if let Onward::Exit { egress, is_control, ingress_slot } = onward {
            let link = live_mut(&mut self.links, egress).ok_or(Discard::ExitGone)?;
            if is_control | link.is_special() {
                return self.ready_special(frame, egress, ingress_slot, is_control, now);
            }
            if let Err(discard) = link.prepare(frame, ingress_slot, &mut self.tx) {
                return Ok(Onward::Refused { egress, discard, is_control, ingress_slot });
            }
        }
        Ok(onward)
    }

    /// As [`ready`](Self::ready), for control, for an exit of another worker, and for one whose port has
    /// left frames behind.
    #[cold]
    #[inline(never)]
    fn ready_special(
        &mut self,
        frame: &mut Frame,
        egress: Mark,
        ingress_slot: u32,
        is_control: bool,
        now: Now,
    ) -> Result<Onward, Discard> {
        let is_control = is_control && self.may_go_ahead(frame, now);
        let link = live_mut(&mut self.links, egress).ok_or(Discard::ExitGone)?;
        if let Some(home) = link.home {
            return Ok(Onward::Elsewhere { home, egress, is_control, ingress_slot });
        }
        let prepared = link.prepare_special(frame, ingress_slot, is_control, &mut self.tx);
        Ok(match prepared {
            Ok(is_control) => Onward::Exit { egress, is_control, ingress_slot },
            Err(discard) => Onward::Refused { egress, discard, is_control, ingress_slot },
        })
    }

    /// Opens a frame and finds where it goes.
    #[inline(always)]
    fn route(&mut self, frame: &mut Frame, seat: usize, now: Now) -> Result<Onward, Discard> {
        let kind = kind_of(frame)?;
        let opened = match kind {
            Kind::PlainData => {
                let ingress = live(&self.links, frame.mark()).ok_or_else(|| nobody(frame))?;
                ingress.open_plain(frame)?
            }
            Kind::SealedData | Kind::SealedHeaderData | Kind::PathChallenge | Kind::PathAnswer => {
                match self.open_sealed(frame, kind, seat, now)? {
                    Arrival::Packet(opened) => opened,
                    Arrival::Other(onward) => return Ok(onward),
                }
            }
            Kind::Initiation | Kind::Response | Kind::Cookie => return Ok(Onward::Knock),
            Kind::Beacon if self.hears_beacons(seat) => return Ok(Onward::Knock),
            Kind::Beacon => return Err(Discard::BadLinkKind),
        };

        let ingress = live(&self.links, opened.frame().mark()).ok_or(Discard::IngressGone)?;
        ingress.count_arrival(opened.frame(), now);
        if opened.is_keepalive() {
            return Ok(Onward::Heard);
        }
        // Lengths are checked by `parse`, and nowhere behind it.
        match AnyHeader::parse(opened.packet())? {
            AnyHeader::W64(header) => self.step(ingress, header),
            AnyHeader::W128(header) => self.step(ingress, header),
            AnyHeader::W256(header) => self.step(ingress, header),
        }
    }

    /// Opens a frame by its session's keys, and tells the slow path what that proves.
    #[inline(never)] // beside an AEAD a call is nothing, and the plain path stays short
    fn open_sealed<'f>(
        &mut self,
        frame: &'f mut Frame,
        kind: Kind,
        seat: usize,
        now: Now,
    ) -> Result<Arrival<'f>, Discard> {
        let index = session_of(frame)?;
        let session = match self.sessions.find(index)? {
            Place::Here(session) => session,
            Place::Elsewhere(_, worker) => {
                return Ok(Arrival::Other(Onward::Stray { worker: *worker }));
            }
        };
        let from = frame.mark();
        let Vouched { first, opened } = session.open(now, frame)?;
        let link = session.link;
        if from != ELSEWHERE {
            session.lately.note_at_home(now);
        }
        if matches!(kind, Kind::PathChallenge | Kind::PathAnswer) {
            // A challenge is asked from where a peer may be, and proves nothing of the kind.
            let may = session.lately.may_say(now);
            let strayed = from == ELSEWHERE && session.lately.tells_strayed(now);
            if first {
                self.note(Punt::Heard(index));
            }
            if strayed {
                self.note(Punt::Strayed(index, self.strayed_by));
            }
            return if may {
                Ok(Arrival::Other(Onward::Said { kind, from }))
            } else {
                Err(Discard::OverBudget)
            };
        }
        let is_heard = first || opened.is_keepalive();
        if is_heard || from != link {
            let lately = &mut session.lately;
            let heard = first || is_heard && lately.tells_heard(now);
            let strayed = from == ELSEWHERE && lately.tells_strayed(now);
            let roamed = from != ELSEWHERE && from != link && lately.tells_roamed(now);
            if heard {
                self.note(Punt::Heard(index));
                if from == link
                    && let Some(seat) = self.ports.get_mut(seat)
                {
                    seat.port.authenticated(opened.frame());
                }
            }
            if strayed {
                self.note(Punt::Strayed(index, self.strayed_by));
            }
            if roamed {
                self.note_roamed(link, from, opened.frame().len() + TAG_BYTES, seat);
            }
        }
        Ok(Arrival::Packet(opened))
    }

    /// One step (wire.md 1.2): decides first and writes after, so that a frame that ends here is
    /// still as it came; one that its exit has no room for has its label rewritten already.
    #[inline(always)]
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
            Exit::Alias { to, slot, is_endpoint: false } => {
                let (form, width) = (hop.form(), hop.width());
                self.pass_alias(ingress, slot, to, form, width, header.to_repr(), header.payload())
            }
            Exit::Endpoint(egress) | Exit::Alias { to: egress, is_endpoint: true, .. } => {
                check_turn(ingress, egress)?;
                check_right(ingress.rights.endpoints)?;
                arrive(&header, hop.width())?;
                if let Exit::Alias { slot, .. } = hop.exit() {
                    self.note_alias(ingress, slot, header.to_repr(), header.payload());
                }
                return Ok(Onward::Exit { egress, is_control, ingress_slot });
            }
            Exit::Switch => {
                // Whoever may not ask may still answer: the slow path looks at the right.
                arrive(&header, hop.width())?;
                return Ok(Onward::Punt { ingress_slot });
            }
            Exit::Empty => return Err(Discard::EmptySlot),
            Exit::Gone => return Err(Discard::SlotGone),
            Exit::NoDirector => return Err(Discard::NoDirector),
        };
        check_turn(ingress, egress)?;
        check_right(ingress.rights.transit)?;
        let way_back = match ingress.way_back.in_form(hop.form()) {
            Some(way_back) => way_back,
            None => former_way_back(ingress, hop.form()).ok_or(Discard::ReturnPath)?,
        };
        let shift = shift + u16::from(hop.width());
        if u32::from(shift) >= R::BITS {
            return Err(Discard::LabelFull);
        }
        header.advance(label.advance(hop.width(), way_back), shift, hops_left);
        Ok(Onward::Exit { egress, is_control, ingress_slot })
    }

    /// Moves each frame to where it was decided that it goes, a run to one exit at a time. An exit is
    /// always there: it was made ready in this burst, and links go only between breaths (`obey`).
    #[inline]
    fn send_on(
        &mut self,
        mut frames: impl ExactSizeIterator<Item = Frame>,
        onward: &[Result<Onward, Discard>],
        seat: usize,
    ) {
        let mut rest = onward;
        while let Some(first) = rest.first() {
            let run = rest.iter().take_while(|onward| goes_along(first, onward)).count().max(1);
            match *first {
                Ok(Onward::Exit { egress, is_control, .. }) => {
                    let Some(link) = live_mut(&mut self.links, egress) else { return };
                    link.egress.put(frames.by_ref().take(run), is_control);
                }
                other => {
                    let Some(frame) = frames.next() else { return };
                    self.end_here(other, frame, seat);
                }
            }
            rest = &rest[run..];
        }
    }

    /// What goes by no exit of this worker: to another worker, to the slow path, or nowhere.
    #[cold]
    fn end_here(&mut self, onward: Result<Onward, Discard>, frame: Frame, seat: usize) {
        let (sent, exit) = match onward {
            Ok(Onward::Refused { egress, discard, is_control, ingress_slot }) => {
                let waiting = Waiting { frame, ingress_slot, is_control };
                (self.keep(egress, discard, waiting), Some(egress))
            }
            Ok(onward) => (self.hand_over(onward, frame, seat), None),
            Err(discard) => (Err((discard, frame)), None),
        };
        if let Err((discard, frame)) = sent {
            self.tell_end(discard, &frame, exit);
            self.discard(seat, discard, &frame);
        }
    }

    /// Hands to the slow path, or to another worker, what does not go to an exit.
    #[cold]
    fn hand_over(
        &mut self,
        onward: Onward,
        frame: Frame,
        seat: usize,
    ) -> Result<(), (Discard, Frame)> {
        let mark = frame.mark();
        if let Onward::Punt { ingress_slot } = onward {
            return self.hand_up(ingress_slot, frame);
        }
        let port = self.ports.get(seat);
        let address_of =
            |mark| port.and_then(|seat| Some((seat.number, seat.port.address_of(mark)?)));
        match onward {
            Onward::Heard => {
                if let Some(link) = live(&self.links, mark) {
                    link.tally.keepalives_in.add(1);
                }
                Err((Discard::Handled, frame))
            }
            Onward::Exit { .. } | Onward::Punt { .. } => Err((Discard::Unhandled, frame)),
            Onward::Refused { discard, .. } => Err((discard, frame)),
            Onward::Elsewhere { home, egress, is_control, ingress_slot } => {
                self.hand_to_exit(home, egress, ingress_slot, is_control, frame)
            }
            Onward::Said { kind, from } => {
                let from = address_of(from);
                self.hand_up_saying(kind, from, frame)
            }
            Onward::Knock => self.hand_up_knock(frame, seat),
            Onward::Stray { worker } => self.hand_to_session(worker, frame, seat),
        }
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
            alias_used: tell::AliasUsed::default(),
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

/// Leaving by the slot one came in by is refused unless the operator allows it (wire.md 1.2).
#[inline]
fn check_turn(ingress: &Link, egress: Mark) -> Result<(), Discard> {
    if ingress.mark == egress && !ingress.u_turns { Err(Discard::UTurn) } else { Ok(()) }
}

/// Who is not allowed hears no more than who names an empty slot, but is counted apart.
#[inline]
fn check_right(has: bool) -> Result<(), Discard> {
    if has { Ok(()) } else { Err(Discard::NotAllowed) }
}

/// What a link writes where its number does not fit: its former number, as long as that leads to it.
#[cold]
#[inline(never)]
fn former_way_back(ingress: &Link, form: u8) -> Option<u64> {
    let way_back = ingress.way_back.former_in_form(form)?;
    ingress.tally.by_former.add(1);
    Some(way_back)
}

/// Why no link stands under a frame's mark.
#[cold]
fn nobody(frame: &Frame) -> Discard {
    if frame.mark().is_stranger() { Discard::Stranger } else { Discard::IngressGone }
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
