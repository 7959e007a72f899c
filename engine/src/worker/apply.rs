//! What the slow path orders, carried out between breaths: at most a few orders at a time, each
//! answered by one report. Nothing is allocated and nothing is freed here.

use std::mem;

use strowger_crypto::{Sealed, limits::TAG_BYTES, link_header::LINK_HEADER_BYTES};
use strowger_frame::{
    Address, ChunkClass, Frame, Mark,
    pool::{HEADROOM_BYTES, SINGLE_STRIDE_BYTES},
    reserve::{Chunks, PoolUser},
};

use super::{Worker, live_mut, transmit::list_port};
use crate::{
    Now,
    discard::Discard,
    egress::Egress,
    limits::{ORDERS_PER_BREATH, PORTS_MAX},
    link::{Guard, Link},
    orders::{Order, PortSeat, Punt, Report},
    session::Place,
};

impl Worker {
    /// Does what the slow path has decided since the last breath, a few orders at most.
    pub(super) fn obey(&mut self, now: Now) {
        for _ in 0..ORDERS_PER_BREATH {
            // An order is taken only when its report has a place.
            if self.reports.is_full() {
                return;
            }
            let Some(order) = self.orders.pop() else { return };
            let report = self.carry_out(order, now);
            let reported = self.reports.push(report);
            self.news = true;
            debug_assert!(reported.is_ok(), "a place was seen above, and only we fill it");
        }
    }

    fn carry_out(&mut self, order: Order, now: Now) -> Report {
        match order {
            Order::Slots(table) => return Report::Slots(mem::replace(&mut self.slots, table)),
            Order::Renumber(mark, slot, mut way_back) => {
                if let Some(link) = live_mut(&mut self.links, mark) {
                    link.slot = slot;
                    note_slot(&mut self.by_slot, slot, mark);
                    mem::swap(&mut link.way_back, &mut way_back);
                }
                return Report::WayBack(way_back);
            }
            Order::Grow(mut growth) => {
                mem::swap(&mut *self.slots, &mut growth.table);
                for (mark, way_back) in &mut growth.ways_back {
                    if let Some(link) = live_mut(&mut self.links, *mark) {
                        mem::swap(&mut link.way_back, way_back);
                    }
                }
                return Report::Grown(growth);
            }
            Order::Attach(link, at) => return self.attach(link, at),
            Order::Detach(mark) => return self.detach(mark),
            Order::Plug(seat) => return self.plug(seat),
            Order::Unplug(number) => return self.unplug(number),
            Order::Open(mut session) => {
                session.lately.note_at_home(now);
                // What the worker before has handed over comes before what comes in here (R7).
                self.rings_first = true;
                return given_back(self.sessions.put(Place::Here(session)));
            }
            Order::OpenElsewhere(index, worker) => {
                return given_back(self.sessions.put(Place::Elsewhere(index, worker)));
            }
            Order::Close(index) => return given_back(self.sessions.take(index)),
            Order::Seal(mark, sealer) => {
                let Some(link) = live_mut(&mut self.links, mark) else {
                    return Report::Sealer(sealer);
                };
                link.may_wake = true;
                let allows_data = link.allows_data;
                let old = mem::replace(&mut link.guard, Guard::Sealed(Some(sealer)));
                if allows_data {
                    self.let_leave(mark);
                }
                if let Guard::Sealed(Some(old)) = old {
                    return Report::Sealer(old);
                }
            }
            Order::Unseal(mark) => {
                let Some(link) = live_mut(&mut self.links, mark) else { return Report::Done };
                link.may_wake = true;
                if let Guard::Sealed(sealer) = &mut link.guard
                    && let Some(old) = sealer.take()
                {
                    return Report::Sealer(old);
                }
            }
            Order::GiveUp(mark) => self.give_up(mark),
            Order::AllowData(mark, allows_data) => {
                if let Some(link) = live_mut(&mut self.links, mark) {
                    link.allows_data = allows_data;
                    if allows_data && matches!(link.guard, Guard::Sealed(Some(_))) {
                        self.let_leave(mark);
                    }
                }
            }
            Order::Say(mark, what, to, bytes) => self.say(mark, what, to, &bytes, 0),
            Order::Probe(mark, to, token, bytes) => {
                let bytes = usize::from(bytes).saturating_sub(LINK_HEADER_BYTES + TAG_BYTES);
                self.say(mark, Sealed::PathChallenge, Some(to), &token, bytes);
            }
            Order::Transmit(packet) => {
                self.transmit(&packet, now);
                return Report::Sent(packet);
            }
            Order::Send(port, to, message) => {
                self.send(port, to, &message);
                return Report::Sent(message);
            }
            Order::Readdress { link, port, home, at } => {
                self.change_port(link, port, home);
                if let Some((_, seat)) = self.link_and_seat(link) {
                    // Refused only where another link has the address: then that one keeps it.
                    let _ = seat.port.admit(link, at);
                }
            }
            Order::Unaddress(mark) => {
                if let Some((_, seat)) = self.link_and_seat(mark) {
                    seat.port.forget(mark);
                }
            }
            Order::WelcomeStrangers(port, welcome) => {
                if let Some(seat) = self.seat_of(port) {
                    self.ports[seat].port.welcome_strangers(welcome);
                }
            }
            Order::HearBeacons(port, hears) => {
                if let Some(seat) = self.seat_of(port) {
                    self.ports[seat].hears_beacons = hears;
                }
            }
            Order::Mtu(mark, bytes) => {
                if let Some(link) = live_mut(&mut self.links, mark) {
                    link.frame_bytes_max = bytes;
                }
            }
            Order::Rights(mark, rights) => {
                if let Some(link) = live_mut(&mut self.links, mark) {
                    link.rights = rights;
                }
            }
            Order::Muster(mut muster) => {
                // There is room for all: nothing is allocated here.
                muster.links.extend(self.links.iter().flatten().map(|link| link.mark));
                muster.sessions.extend(self.sessions.indices());
                return Report::Mustered(muster);
            }
        }
        Report::Done
    }

    fn attach(&mut self, link: Box<Link>, at: Option<Address>) -> Report {
        let mark = link.mark;
        if let (Some(seat), Some(at)) = (self.seat_of(link.port), at)
            && let Err(why) = self.ports[seat].port.admit(mark, at)
        {
            return Report::AttachRefused(link, why);
        }
        note_slot(&mut self.by_slot, link.slot, mark);
        match self.links.get_mut(mark.index()) {
            Some(place) => *place = Some(link),
            None => debug_assert!(false, "marks are below ATTACHED_MAX"),
        }
        Report::Done
    }

    fn detach(&mut self, mark: Mark) -> Report {
        let place = self.links.get_mut(mark.index());
        let Some(mut link) = place.and_then(|p| p.take_if(|l| l.mark == mark)) else {
            return Report::Done;
        };
        self.waiting -= link.waiting.len();
        let waiting = (link.egress.waiting() + link.waiting.len()) as u64;
        link.tally.discards.add(waiting);
        match self.seat_of(link.port) {
            Some(seat) => {
                let seat = &mut self.ports[seat];
                seat.port.forget(mark);
                seat.discards.count_many(Discard::ExitGone, waiting);
            }
            // Another worker's port, or one that has gone already.
            None => self.homeless.count_many(Discard::ExitGone, waiting),
        }
        self.tx.exhaling.retain(|&listed| listed != mark);
        self.contended.retain(|&listed| listed != mark);
        link.egress = Egress::default();
        link.waiting.clear();
        Report::Detached(link)
    }

    /// The link is behind this port from now on. What waits for the former port's queue leaves by the new
    /// one, or, where that is another worker's, not at all: it is sealed on this worker's lane.
    fn change_port(&mut self, mark: Mark, port: u16, home: Option<u8>) {
        let home = home.filter(|&home| home != self.number);
        let Some(link) = live_mut(&mut self.links, mark) else { return };
        let former = mem::replace(&mut link.port, port);
        link.home = home;
        if former == port {
            return;
        }
        let seat = self.seats.get(usize::from(former)).copied().flatten();
        if let Some(seat) = seat.and_then(|seat| self.ports.get_mut(usize::from(seat))) {
            seat.port.forget(mark);
        }
        if home.is_some() {
            let dropped = link.egress.waiting() + link.waiting.len();
            self.waiting -= link.waiting.len();
            link.waiting.clear();
            link.egress = Egress::default();
            link.listed = false;
            link.tally.discards.add(dropped as u64);
            self.tx.exhaling.retain(|&listed| listed != mark);
            self.contended.retain(|&listed| listed != mark);
            self.homeless.count_many(Discard::ExitGone, dropped as u64);
        }
    }

    fn plug(&mut self, seat: Box<PortSeat>) -> Report {
        let number = usize::from(seat.number);
        if self.ports.len() == PORTS_MAX || number >= self.seats.len() {
            return Report::PlugRefused(seat);
        }
        self.seats[number] = Some(self.ports.len() as u16);
        self.tx.pool.keep(PoolUser::port(seat.number), seat.port.receive_chunks());
        self.ports.push(seat);
        Report::Done
    }

    fn unplug(&mut self, number: u16) -> Report {
        let Some(seat) = self.seat_of(number) else { return Report::Done };
        let gone = self.ports.swap_remove(seat);
        self.seats[usize::from(number)] = None;
        self.unflushed.retain(|&listed| listed != number);
        self.tx.pool.keep(PoolUser::port(number), Chunks::default());
        if let Some(moved) = self.ports.get(seat) {
            self.seats[usize::from(moved.number)] = Some(seat as u16);
        }
        Report::Unplugged(gone)
    }

    fn link_and_seat(&mut self, mark: Mark) -> Option<(&mut Link, &mut PortSeat)> {
        let link = live_mut(&mut self.links, mark)?;
        let seat = self.seats.get(usize::from(link.port)).copied().flatten()?;
        Some((link, self.ports.get_mut(usize::from(seat))?))
    }

    /// A frame of this worker's own making, which the counters know of: also where there is no memory
    /// for it.
    pub(super) fn make(&mut self, bytes: usize) -> Option<Frame> {
        let is_short = HEADROOM_BYTES + bytes + TAG_BYTES <= SINGLE_STRIDE_BYTES;
        let single = if is_short { self.tx.pool.take(ChunkClass::Single) } else { None };
        self.frames_made.add(1);
        let chunk = single.or_else(|| self.tx.pool.take(ChunkClass::Train));
        if chunk.is_none() {
            self.homeless.count(Discard::PoolEmpty);
        }
        Some(chunk?.into_frame(HEADROOM_BYTES, bytes))
    }

    /// Sends a sealed message of a link itself: by its exit, or, where it is to prove an address,
    /// to that, behind whatever port. Zeros follow it up to `padded_bytes`; with any it is a probe of the
    /// path's width.
    fn say(
        &mut self,
        mark: Mark,
        what: Sealed,
        to: Option<(u16, Address)>,
        bytes: &[u8],
        padded_bytes: usize,
    ) {
        let body_bytes = bytes.len().max(padded_bytes);
        let Some(mut frame) = self.make(LINK_HEADER_BYTES + body_bytes) else { return };
        let (said, padding) = frame.bytes_mut()[LINK_HEADER_BYTES..].split_at_mut(bytes.len());
        said.copy_from_slice(bytes);
        padding.fill(0); // what lay there before is nobody else's to read
        frame.set_mark(mark);
        let Self { links, tx, .. } = self;
        let said = match (live_mut(links, mark), to) {
            (None, _) => Err(Discard::ExitGone),
            // It has just moved behind a port that is another worker's.
            (Some(link), None) if link.home.is_some() => Err(Discard::ExitGone),
            (Some(link), None) => link.say(frame, what, tx),
            (Some(link), Some((port, to))) => link.seal(&mut frame, what, tx).and_then(|()| {
                let seat = self.seat_of(port).ok_or(Discard::ExitGone)?;
                match padded_bytes {
                    0 => self.ports[seat].port.send_to(to, frame),
                    _ => self.ports[seat].port.send_probe(to, frame),
                }
                list_port(&mut self.ports[seat], &mut self.unflushed);
                Ok(())
            }),
        };
        if let Err(discard) = said {
            self.count_at_exit(mark, discard);
        }
    }

    fn send(&mut self, port: u16, to: Address, message: &[u8]) {
        let Some(mut frame) = self.make(message.len()) else { return };
        frame.bytes_mut().copy_from_slice(message);
        match self.seat_of(port) {
            Some(seat) => {
                self.ports[seat].port.send_to(to, frame);
                self.ports[seat].port.flush();
                if let Some(errno) = self.ports[seat].port.last_send_error(to) {
                    self.note(Punt::SendFailed { port, to, errno });
                }
            }
            None => self.homeless.count(Discard::ExitGone),
        }
    }
}

/// Remembers who stands on a slot.
fn note_slot(by_slot: &mut [Mark], slot: u32, mark: Mark) {
    if let Some(place) = by_slot.get_mut(slot as usize) {
        *place = mark;
    }
}

/// Keys that a session's new place has displaced go back to be freed.
fn given_back(place: Option<Place>) -> Report {
    match place {
        Some(Place::Here(session)) => Report::Session(session),
        Some(Place::Elsewhere(..)) | None => Report::Done,
    }
}
