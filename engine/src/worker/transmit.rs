//! From the queues at exits to the ports, and what a worker does before it sleeps. It never decides
//! which frame may wait.

use std::mem;

use strowger_frame::{BURST_MAX, Mark, port::Arm};

use super::{Worker, live, live_mut};
use crate::{discard::Discard, limits::BURSTS_PER_FLUSH, link::Link, orders::PortSeat};

impl Worker {
    /// Gives the ports what was put at exits since this was last called, as far as they take it.
    pub(super) fn exhale(&mut self) {
        mem::swap(&mut self.tx.exhaling, &mut self.exhaled);
        for at in 0..self.exhaled.len() {
            let mark = self.exhaled[at];
            if !self.offer(mark) {
                self.contended.push(mark);
            }
        }
        self.exhaled.clear();
        if !self.tx.displaced.is_empty() {
            self.count_displaced();
        }
    }

    /// Offers what waits at one exit to its port. Says whether nothing waits there any more.
    #[inline]
    fn offer(&mut self, mark: Mark) -> bool {
        let Self { links, seats, ports, unflushed, .. } = self;
        let Some(link) = live_mut(links, mark) else { return true };
        let seat = seats.get(usize::from(link.port)).copied().flatten();
        let Some(seat) = seat.and_then(|seat| ports.get_mut(usize::from(seat))) else {
            return link.egress.waiting() == 0;
        };
        list_port(seat, unflushed);
        link.let_out(&mut *seat.port)
    }

    /// Once a poll: offers what ports have left at exits to those of them that take frames again, and
    /// asks those that have sends in flight. A blocked exit costs one question.
    pub(super) fn offer_again(&mut self) {
        if !self.tx.exhaling.is_empty() {
            self.exhale(); // what orders have put there
        }
        let mut at = 0;
        while let Some(&mark) = self.contended.get(at) {
            if !self.is_blocked(mark) && self.offer(mark) {
                self.contended.swap_remove(at);
            } else {
                at += 1;
            }
        }
        if !self.contended.is_empty() && self.tx.pool.is_scarce() {
            self.settle();
        }
        if !self.unflushed.is_empty() {
            self.flush_ports();
        }
    }

    /// Whether the port says that this link takes no frames now.
    fn is_blocked(&self, mark: Mark) -> bool {
        let Some(link) = live(&self.links, mark) else { return false };
        let seat = self.seat_of(link.port).and_then(|seat| self.ports.get(seat));
        seat.is_some_and(|seat| seat.port.is_blocked(mark))
    }

    /// Flushes if enough has come in since that was last done, or little comes.
    #[inline]
    pub(super) fn flush_after(&mut self, arrived: usize) {
        self.unflushed_frames += arrived;
        let is_enough = self.unflushed_frames >= BURSTS_PER_FLUSH * BURST_MAX;
        if is_enough || arrived > 0 && arrived < BURST_MAX {
            self.flush();
        }
    }

    /// Lets go what the ports were given, and wakes those who have something to do.
    pub(super) fn flush(&mut self) {
        self.unflushed_frames = 0;
        if !self.unflushed.is_empty() {
            self.flush_ports();
        }
        self.exchange.ring_bells();
        self.note_what_came_up();
        if mem::take(&mut self.news)
            && let Some(bell) = &self.control_bell
        {
            bell.ring();
        }
    }

    fn flush_ports(&mut self) {
        let Self { unflushed, ports, seats, .. } = self;
        unflushed.retain(|&number| {
            let seat = seats.get(usize::from(number)).copied().flatten();
            let seat = seat.and_then(|seat| ports.get_mut(usize::from(seat)));
            seat.is_some_and(|seat| {
                seat.port.flush();
                seat.is_listed = !seat.port.is_flushed();
                seat.is_listed
            })
        });
    }

    /// Counts the frames that had to leave their queue for others.
    #[cold]
    fn count_displaced(&mut self) {
        for mark in mem::take(&mut self.tx.displaced) {
            let by = self.by_slot.get(mark.0 as usize).copied().unwrap_or(Link::OWN);
            // At the port that it came in by, if that is one of this worker's.
            self.count_at_exit(by, Discard::EgressFull);
        }
    }

    /// Called before the thread blocks: gives each port's word on what would wake it, and says
    /// whether the thread may block at all. Call [`disarm`](Self::disarm) after.
    pub fn arm(&mut self, mut each: impl FnMut(Arm)) -> bool {
        let mut may_block = self.tx.exhaling.is_empty() && self.orders.is_empty();
        may_block &= self.exchange.is_empty();
        for seat in &mut self.ports {
            let arm = seat.port.arm();
            may_block &= arm != Arm::Ready && seat.port.is_flushed();
            each(arm);
        }
        // What is blocked wakes the thread; a port that has just ended it, or never says so, is asked.
        may_block && self.contended.iter().all(|&mark| self.is_blocked(mark))
    }

    /// Called after the thread has woken. `is_ready` says of each descriptor that
    /// [`arm`](Self::arm) gave, by its place in the order of the calls, whether it is readable.
    pub fn disarm(&mut self, is_ready: impl Fn(usize) -> bool) {
        for (nth, seat) in self.ports.iter_mut().enumerate() {
            let PortSeat { port, .. } = &mut **seat;
            if is_ready(nth) {
                port.wake();
            }
            port.disarm();
        }
    }

    /// Frames that wait at exits: 0 at rest.
    pub fn frames_waiting(&self) -> usize {
        let listed = self.tx.exhaling.iter().chain(&self.contended);
        listed.filter_map(|&mark| Some(live(&self.links, mark)?.egress.waiting())).sum()
    }
}

/// Lists a port that was given frames, once.
#[inline]
pub(super) fn list_port(seat: &mut PortSeat, unflushed: &mut Vec<u16>) {
    if !mem::replace(&mut seat.is_listed, true) {
        debug_assert!(unflushed.len() < unflushed.capacity(), "each port is listed once");
        unflushed.push(seat.number);
    }
}
