//! Sends frames from egress queues to ports, and prepares a worker for the sleep of its thread.

use std::mem;

use strowger_frame::{BURST_MAX, Mark, port::Arm};

use super::Worker;
use crate::{command::PortQueue, discard::Discard, limits::BURSTS_PER_FLUSH};

impl Worker {
    /// Offers to the ports the frames that joined egress queues since the last call.
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

    /// Offers one egress queue to its port. Returns whether the queue is empty afterwards.
    #[inline]
    fn offer(&mut self, mark: Mark) -> bool {
        let Some(link) = self.links.get_mut(mark) else { return true };
        match self.ports.transmit_queue(link.port) {
            Some(queue) => link.transmit(&mut *queue.port),
            None => link.egress.waiting() == 0,
        }
    }

    /// Offers contended queues to ports that take frames again, and flushes ports with sends in
    /// flight. The worker calls this once per poll. A blocked queue costs one call of `is_blocked`.
    pub(super) fn offer_again(&mut self) {
        if !self.tx.tx_pending.is_empty() {
            self.transmit(); // frames that commands have added
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

    /// Whether the port takes no frames for this link now.
    fn is_blocked(&self, mark: Mark) -> bool {
        let Some(link) = self.links.get(mark) else { return false };
        self.ports.of_port(link.port).is_some_and(|queue| queue.port.is_blocked(mark))
    }

    /// Flushes if enough frames arrived since the last flush. Also flushes after a burst that was
    /// not full, because the rate of arrival is then low.
    #[inline]
    pub(super) fn flush_after(&mut self, arrived: usize) {
        self.schedule.unflushed_frames += arrived;
        let is_enough = self.schedule.unflushed_frames >= BURSTS_PER_FLUSH * BURST_MAX;
        if is_enough || arrived > 0 && arrived < BURST_MAX {
            self.flush();
        }
    }

    /// Flushes the ports. Wakes the workers to which this worker has handed frames, and the slow
    /// path if there is something new for it.
    pub(super) fn flush(&mut self) {
        self.schedule.unflushed_frames = 0;
        if self.ports.has_unflushed() {
            self.ports.flush();
        }
        if self.tx.pool.take_ran_low() {
            self.handoff_rings.wake_all(); // their egress queues may hold frames of this pool
        }
        self.handoff_rings.wake_others();
        self.note_what_came_up();
        self.slow_path.wake_if_news();
    }

    /// Counts the frames that other frames displaced in a contended egress queue.
    #[cold]
    fn count_displaced(&mut self) {
        for slot in mem::take(&mut self.tx.displaced) {
            let by = self.links.mark_at(slot);
            // The drop is counted at the port on which the frame arrived, if that port belongs to
            // this worker.
            self.count_at_egress(by, Discard::EgressFull);
        }
    }

    /// Prepares the worker for a sleep of its thread. It passes the wake-up source of each port to
    /// `each`, and returns whether the thread may sleep. Call [`disarm`](Self::disarm) afterwards.
    pub fn arm(&mut self, mut each: impl FnMut(Arm)) -> bool {
        let mut may_block = self.tx.tx_pending.is_empty() && self.slow_path.commands.is_empty();
        may_block &= self.handoff_rings.is_empty();
        for queue in self.ports.iter_mut() {
            let arm = queue.port.arm();
            may_block &= arm != Arm::Ready && queue.port.is_flushed();
            each(arm);
        }
        // The thread may sleep only while every contended port is blocked. A blocked port wakes the
        // thread when it takes frames again; a port that is not blocked, or cannot report it, must
        // be polled.
        may_block && self.backlog.contended.iter().all(|&mark| self.is_blocked(mark))
    }

    /// Ends a sleep of the thread. `is_ready(n)` returns whether the descriptor of the n-th call of
    /// [`arm`](Self::arm)'s `each` is readable.
    pub fn disarm(&mut self, is_ready: impl Fn(usize) -> bool) {
        for (nth, PortQueue { port, .. }) in self.ports.iter_mut().enumerate() {
            if is_ready(nth) {
                port.on_readable();
            }
            port.disarm();
        }
    }

    /// The number of frames that wait in egress queues; 0 when the switch is idle.
    pub fn frames_waiting(&self) -> usize {
        let listed = self.tx.tx_pending.iter().chain(&self.backlog.contended);
        listed.filter_map(|&mark| Some(self.links.get(mark)?.egress.waiting())).sum()
    }
}
