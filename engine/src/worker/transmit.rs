//! From the queues at exits to the ports, and what a worker does before it sleeps. It never decides
//! which frame may wait.

use std::mem;

use strowger_frame::{BURST_MAX, Mark, port::Arm};

use super::Worker;
use crate::{command::PortQueue, discard::Discard, limits::BURSTS_PER_FLUSH};

impl Worker {
    /// Gives the ports what was put at exits since this was last called, as far as they take it.
    pub(super) fn transmit(&mut self) {
        mem::swap(&mut self.tx.tx_pending, &mut self.backlog.offering);
        for at in 0..self.backlog.offering.len() {
            let mark = self.backlog.offering[at];
            if !self.offer(mark) {
                self.backlog.contended.push(mark);
            }
        }
        self.backlog.offering.clear();
        if !self.tx.displaced.is_empty() {
            self.count_displaced();
        }
    }

    /// Offers what waits at one exit to its port. Says whether nothing waits there any more.
    #[inline]
    fn offer(&mut self, mark: Mark) -> bool {
        let Some(link) = self.links.get_mut(mark) else { return true };
        match self.ports.transmit_queue(link.port) {
            Some(queue) => link.transmit(&mut *queue.port),
            None => link.egress.waiting() == 0,
        }
    }

    /// Once a poll: offers what ports have left at exits to those of them that take frames again, and
    /// asks those that have sends in flight. A blocked exit costs one question.
    pub(super) fn offer_again(&mut self) {
        if !self.tx.tx_pending.is_empty() {
            self.transmit(); // what commands have put there
        }
        let mut at = 0;
        while let Some(&mark) = self.backlog.contended.get(at) {
            if !self.is_blocked(mark) && self.offer(mark) {
                self.backlog.contended.swap_remove(at);
            } else {
                at += 1;
            }
        }
        if !self.backlog.contended.is_empty() && self.tx.pool.is_low() {
            self.settle();
        }
        if self.ports.has_unflushed() {
            self.ports.flush();
        }
    }

    /// Whether the port says that this link takes no frames now.
    fn is_blocked(&self, mark: Mark) -> bool {
        let Some(link) = self.links.get(mark) else { return false };
        self.ports.of_port(link.port).is_some_and(|queue| queue.port.is_blocked(mark))
    }

    /// Flushes if enough has come in since that was last done, or little comes.
    #[inline]
    pub(super) fn flush_after(&mut self, arrived: usize) {
        self.schedule.unflushed_frames += arrived;
        let is_enough = self.schedule.unflushed_frames >= BURSTS_PER_FLUSH * BURST_MAX;
        if is_enough || arrived > 0 && arrived < BURST_MAX {
            self.flush();
        }
    }

    /// Lets go what the ports were given, and wakes those who have something to do.
    pub(super) fn flush(&mut self) {
        self.schedule.unflushed_frames = 0;
        if self.ports.has_unflushed() {
            self.ports.flush();
        }
        if self.tx.pool.take_ran_low() {
            self.handoff_rings.wake_all(); // frames of this pool wait at their exits, too
        }
        self.handoff_rings.wake_others();
        self.note_what_came_up();
        self.slow_path.wake_if_news();
    }

    /// Counts the frames that had to leave their queue for others.
    #[cold]
    fn count_displaced(&mut self) {
        for mark in mem::take(&mut self.tx.displaced) {
            let by = self.links.mark_at(mark.0);
            // At the port that it came in by, if that is one of this worker's.
            self.count_at_egress(by, Discard::EgressFull);
        }
    }

    /// Called before the thread blocks: gives each port's word on what would wake it, and says
    /// whether the thread may block at all. Call [`disarm`](Self::disarm) after.
    pub fn arm(&mut self, mut each: impl FnMut(Arm)) -> bool {
        let mut may_block = self.tx.tx_pending.is_empty() && self.slow_path.commands.is_empty();
        may_block &= self.handoff_rings.is_empty();
        for queue in self.ports.iter_mut() {
            let arm = queue.port.arm();
            may_block &= arm != Arm::Ready && queue.port.is_flushed();
            each(arm);
        }
        // What is blocked wakes the thread; a port that has just ended it, or never says so, is asked.
        may_block && self.backlog.contended.iter().all(|&mark| self.is_blocked(mark))
    }

    /// Called after the thread has woken. `is_ready` says of each descriptor that
    /// [`arm`](Self::arm) gave, by its place in the order of the calls, whether it is readable.
    pub fn disarm(&mut self, is_ready: impl Fn(usize) -> bool) {
        for (nth, PortQueue { port, .. }) in self.ports.iter_mut().enumerate() {
            if is_ready(nth) {
                port.on_readable();
            }
            port.disarm();
        }
    }

    /// Frames that wait at exits: 0 at rest.
    pub fn frames_waiting(&self) -> usize {
        let listed = self.tx.tx_pending.iter().chain(&self.backlog.contended);
        listed.filter_map(|&mark| Some(self.links.get(mark)?.egress.waiting())).sum()
    }
}
