//! What the slow path orders, carried out between breaths: at most a few orders at a time, each
//! answered by one report. Nothing is allocated and nothing is freed here.

use std::mem;

use strowger_crypto::Sealed;
use strowger_frame::{
    Address, ChunkClass, Frame, Mark,
    pool::{HEADROOM_BYTES, SINGLE_STRIDE_BYTES},
    reserve::{Chunks, PoolUser},
};
use strowger_wire::{limits::TAG_BYTES, link_header::LINK_HEADER_BYTES};

use super::Worker;
use crate::{
    Now,
    command::{Order, PortSeat, Punt, Report},
    discard::Discard,
    egress::Egress,
    limits::ORDERS_PER_BREATH,
    link::{Guard, Link},
    session::Place,
};

impl Worker {
    /// Does what the slow path has decided since the last breath, a few orders at most.
    pub(super) fn obey(&mut self, now: Now) {
        for _ in 0..ORDERS_PER_BREATH {
            // An order is taken only when its report has a place.
            if self.slow_path.reports.is_full() {
                return;
            }
            let Some(order) = self.slow_path.orders.pop() else { return };
            let report = self.carry_out(order, now);
            let reported = self.slow_path.reports.push(report);
            self.slow_path.note_completion();
            debug_assert!(reported.is_ok(), "a place was seen above, and only we fill it");
        }
    }

    fn carry_out(&mut self, order: Order, now: Now) -> Report {
        match order {
            Order::Slots(table) => return Report::Slots(mem::replace(&mut self.slots, table)),
            Order::Renumber(mark, slot, mut return_path) => {
                if let Some(link) = self.links.get_mut(mark) {
                    link.slot = slot;
                    mem::swap(&mut link.return_path, &mut return_path);
                    self.links.note_slot(slot, mark);
                }
                return Report::ReturnPath(return_path);
            }
            Order::Grow(mut growth) => {
                mem::swap(&mut *self.slots, &mut growth.table);
                for (mark, return_path) in &mut growth.return_paths {
                    if let Some(link) = self.links.get_mut(*mark) {
                        mem::swap(&mut link.return_path, return_path);
                    }
                }
                return Report::Grown(growth);
            }
            Order::Attach(link, at) => return self.attach(link, at),
            Order::Detach(mark) => return self.detach(mark),
            Order::Plug(queue) => return self.plug(queue),
            Order::Unplug(number) => return self.unplug(number),
            Order::Open(mut session) => {
                session.lately.note_at_home(now);
                // What the worker before has handed over comes before what comes in here (R7).
                self.schedule.rings_first = true;
                return given_back(self.sessions.put(Place::Here(session)));
            }
            Order::OpenElsewhere(index, worker) => {
                return given_back(self.sessions.put(Place::Elsewhere(index, worker)));
            }
            Order::Close(index) => return given_back(self.sessions.take(index)),
            Order::Seal(mark, sealer) => {
                let Some(link) = self.links.get_mut(mark) else {
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
                let Some(link) = self.links.get_mut(mark) else { return Report::Done };
                link.may_wake = true;
                if let Guard::Sealed(sealer) = &mut link.guard
                    && let Some(old) = sealer.take()
                {
                    return Report::Sealer(old);
                }
            }
            Order::GiveUp(mark) => self.give_up(mark),
            Order::AllowData(mark, allows_data) => {
                if let Some(link) = self.links.get_mut(mark) {
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
                self.originate(&packet, now);
                return Report::Sent(packet);
            }
            Order::Send(port, to, message) => {
                self.send(port, to, &message);
                return Report::Sent(message);
            }
            Order::Readdress { link, port, home, at } => {
                self.change_port(link, port, home);
                if let Some((_, queue)) = self.link_and_queue(link) {
                    // Refused only where another link has the address: then that one keeps it.
                    let _ = queue.port.admit(link, at);
                }
            }
            Order::Unaddress(mark) => {
                if let Some((_, queue)) = self.link_and_queue(mark) {
                    queue.port.forget(mark);
                }
            }
            Order::AcceptUnknown(port, accept) => {
                if let Some(queue) = self.ports.of_port_mut(port) {
                    queue.port.accept_unknown(accept);
                }
            }
            Order::HearBeacons(port, hears) => {
                if let Some(queue) = self.ports.of_port_mut(port) {
                    queue.hears_beacons = hears;
                }
            }
            Order::Mtu(mark, bytes) => {
                if let Some(link) = self.links.get_mut(mark) {
                    link.frame_bytes_max = bytes;
                }
            }
            Order::Rights(mark, rights) => {
                if let Some(link) = self.links.get_mut(mark) {
                    link.rights = rights;
                }
            }
            Order::Muster(mut muster) => {
                // There is room for all: nothing is allocated here.
                muster.links.extend(self.links.iter().map(|link| link.mark));
                muster.sessions.extend(self.sessions.indices());
                return Report::Mustered(muster);
            }
        }
        Report::Done
    }

    fn attach(&mut self, link: Box<Link>, at: Option<Address>) -> Report {
        let mark = link.mark;
        if let (Some(queue), Some(at)) = (self.ports.of_port_mut(link.port), at)
            && let Err(why) = queue.port.admit(mark, at)
        {
            return Report::AttachRefused(link, why);
        }
        self.links.insert(link);
        Report::Done
    }

    fn detach(&mut self, mark: Mark) -> Report {
        let Some(mut link) = self.links.remove(mark) else { return Report::Done };
        self.backlog.pending_frames -= link.waiting.len();
        let waiting = (link.egress.waiting() + link.waiting.len()) as u64;
        link.tally.discards.add(waiting);
        match self.ports.of_port_mut(link.port) {
            Some(queue) => {
                queue.port.forget(mark);
                queue.discards.count_many(Discard::ExitGone, waiting);
            }
            // Another worker's port, or one that has gone already.
            None => self.slow_path.orphan_drops.count_many(Discard::ExitGone, waiting),
        }
        self.tx.exhaling.retain(|&listed| listed != mark);
        self.backlog.contended.retain(|&listed| listed != mark);
        link.egress = Egress::default();
        link.waiting.clear();
        Report::Detached(link)
    }

    /// The link is behind this port from now on. What waits for the former port's queue leaves by the new
    /// one, or, where that is another worker's, not at all: it is sealed on this worker's lane.
    fn change_port(&mut self, mark: Mark, port: u16, home: Option<u8>) {
        let home = home.filter(|&home| home != self.number);
        let Some(link) = self.links.get_mut(mark) else { return };
        let former = mem::replace(&mut link.port, port);
        link.home = home;
        if former == port {
            return;
        }
        if let Some(queue) = self.ports.of_port_mut(former) {
            queue.port.forget(mark);
        }
        if home.is_some() {
            let dropped = link.egress.waiting() + link.waiting.len();
            self.backlog.pending_frames -= link.waiting.len();
            link.waiting.clear();
            link.egress = Egress::default();
            link.listed = false;
            link.tally.discards.add(dropped as u64);
            self.tx.exhaling.retain(|&listed| listed != mark);
            self.backlog.contended.retain(|&listed| listed != mark);
            self.slow_path.orphan_drops.count_many(Discard::ExitGone, dropped as u64);
        }
    }

    fn plug(&mut self, queue: Box<PortSeat>) -> Report {
        let (user, floor) = (PoolUser::port(queue.number), queue.port.receive_chunks());
        match self.ports.insert(queue) {
            Ok(()) => {
                self.tx.pool.reserve(user, floor);
                Report::Done
            }
            Err(refused) => Report::PlugRefused(refused),
        }
    }

    fn unplug(&mut self, number: u16) -> Report {
        let Some(removed) = self.ports.remove(number) else { return Report::Done };
        self.tx.pool.reserve(PoolUser::port(number), Chunks::default());
        Report::Unplugged(removed)
    }

    fn link_and_queue(&mut self, mark: Mark) -> Option<(&mut Link, &mut PortSeat)> {
        let link = self.links.get_mut(mark)?;
        let queue = self.ports.of_port_mut(link.port)?;
        Some((link, queue))
    }

    /// A frame of this worker's own making, which the counters know of: also where there is no memory
    /// for it.
    pub(super) fn make(&mut self, bytes: usize) -> Option<Frame> {
        let is_short = HEADROOM_BYTES + bytes + TAG_BYTES <= SINGLE_STRIDE_BYTES;
        let single = if is_short { self.tx.pool.take(ChunkClass::Single) } else { None };
        self.slow_path.frames_made.add(1);
        let chunk = single.or_else(|| self.tx.pool.take(ChunkClass::Train));
        if chunk.is_none() {
            self.slow_path.orphan_drops.count(Discard::PoolEmpty);
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
        padding.fill(0); // the peer must not read what lay there before
        frame.set_mark(mark);
        let Self { links, tx, .. } = self;
        let said = match (links.get_mut(mark), to) {
            (None, _) => Err(Discard::ExitGone),
            // It has just moved behind a port that is another worker's.
            (Some(link), None) if link.home.is_some() => Err(Discard::ExitGone),
            (Some(link), None) => link.say(frame, what, tx),
            (Some(link), Some((port, to))) => link.seal(&mut frame, what, tx).and_then(|()| {
                let queue = self.ports.transmit_queue(port).ok_or(Discard::ExitGone)?;
                match padded_bytes {
                    0 => queue.port.send_to(to, frame),
                    _ => queue.port.send_probe(to, frame),
                }
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
        match self.ports.of_port_mut(port) {
            Some(queue) => {
                queue.port.send_to(to, frame);
                queue.port.flush();
                if let Some(errno) = queue.port.last_send_error(to) {
                    self.note(Punt::SendFailed { port, to, errno });
                }
            }
            None => self.slow_path.orphan_drops.count(Discard::ExitGone),
        }
    }
}

/// Keys that a session's new place has displaced go back to be freed.
fn given_back(place: Option<Place>) -> Report {
    match place {
        Some(Place::Here(session)) => Report::Session(session),
        Some(Place::Elsewhere(..)) | None => Report::Done,
    }
}
