//! Frames between workers: a ring from each to each other, for those whose exit or session another one
//! has. Data leaves places free for control (R12).

use std::{mem, sync::Arc};

use arrayvec::ArrayVec;
use strowger_frame::{
    BURST_MAX, Frame,
    ring::{Consumer, Producer, ring},
};

use super::{ELSEWHERE, NO_SEAT, Onward, Worker, live};
use crate::{
    Now,
    discard::Discard,
    limits::{EXCHANGE_CONTROL_FRAMES_MAX, EXCHANGE_FRAMES_MAX},
    link::{Guard, Link, Waiting},
    orders::{Bell, Handover},
};

/// One worker's rings to and from every other.
#[derive(Default)]
pub(crate) struct Exchange {
    /// By worker; `None` for oneself.
    to: Vec<Option<Producer<Handover>>>,
    from: Vec<Consumer<Handover>>,
    /// By ring: what was taken from it and has not had its turn. Empty between polls.
    staged: Vec<ArrayVec<Handover, BURST_MAX>>,
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
                all[to].staged.push(ArrayVec::new());
            }
        }
        all
    }

    /// Hands a frame to another worker.
    #[inline]
    pub(super) fn send(&mut self, home: u8, handover: Handover) -> Result<(), (Discard, Frame)> {
        let Some(Some(ring)) = self.to.get_mut(usize::from(home)) else {
            return Err((Discard::ExitGone, handover.into_frame()));
        };
        // Data leaves places free for control (R12).
        if !handover.is_control() && !ring.has_room(EXCHANGE_CONTROL_FRAMES_MAX + 1) {
            return Err((Discard::ExchangeFull, handover.into_frame()));
        }
        self.given |= 1 << home;
        ring.push(handover).map_err(|full| (Discard::ExchangeFull, full.into_frame()))
    }

    /// Wakes those who were handed frames since this was last called.
    pub(super) fn ring_bells(&mut self) {
        let mut given = mem::take(&mut self.given);
        while given != 0 {
            let worker = given.trailing_zeros() as usize;
            given &= given - 1;
            if let Some(Some(bell)) = self.bells.get(worker) {
                bell.ring();
            }
        }
    }

    /// How many workers there are rings from.
    pub(super) fn workers(&self) -> usize {
        self.from.len()
    }

    /// Takes a burst from a ring, which then waits for its turn.
    #[inline]
    fn stage(&mut self, ring: usize) {
        let staged = &mut self.staged[ring];
        if staged.is_empty() {
            self.from[ring].pop_burst(staged);
        }
    }

    /// Whether nothing waits here.
    pub(super) fn is_empty(&mut self) -> bool {
        self.from.iter_mut().all(Consumer::is_empty)
    }

    /// What wakes the worker with this number.
    pub(super) fn set_bell(&mut self, number: usize, bell: Arc<dyn Bell>) {
        if let Some(place) = self.bells.get_mut(number) {
            *place = Some(bell);
        }
    }
}

impl Worker {
    /// Takes the rings' frames that have to come before what the ports have (R7): of flows that may come
    /// in by this worker's own ports now, since the kernel steers them or their session has moved. Says how
    /// many there were; rings that had any have had their turn in this round: bit `r` for ring `r`.
    pub(super) fn take_first(&mut self, now: Now) -> (usize, u64) {
        let (mut taken, mut had) = (0, 0);
        let bursts = if self.rings_first { EXCHANGE_FRAMES_MAX.div_ceil(BURST_MAX) } else { 1 };
        for ring in 0..self.exchange.workers() {
            for _ in 0..bursts {
                self.exchange.stage(ring);
                let staged = &self.exchange.staged[ring];
                if !self.rings_first && !staged.iter().any(|handover| self.may_overtake(handover)) {
                    break;
                }
                taken += self.take_handovers(ring, now);
                had |= 1 << ring;
            }
        }
        self.rings_first = false;
        (taken, had)
    }

    /// Whether frames behind this one in its flow may come in by a port of this worker.
    fn may_overtake(&self, handover: &Handover) -> bool {
        match handover {
            Handover::Stray { .. } => true,
            // A session's frames are opened where the session is, whatever port they come in by.
            Handover::Exit { ingress_slot, .. } => {
                let by = self.by_slot.get(*ingress_slot as usize).copied().unwrap_or(Link::OWN);
                live(&self.links, by).is_some_and(|link| {
                    matches!(link.guard, Guard::Plain { .. }) && self.seat_of(link.port).is_some()
                })
            }
        }
    }

    /// Takes a burst of frames that came in by another worker and leave, or are opened, by this one.
    pub(super) fn take_handovers(&mut self, ring: usize, now: Now) -> usize {
        self.exchange.stage(ring);
        let handovers = mem::take(&mut self.exchange.staged[ring]);
        let taken = handovers.len();
        for handover in handovers {
            self.take_handover(handover, now);
        }
        self.exhale();
        self.flush_after(taken);
        taken
    }

    #[inline(never)]
    fn take_handover(&mut self, handover: Handover, now: Now) {
        let (by, mut frame) = match handover {
            Handover::Exit { to, ingress_slot, is_control, frame } => {
                return self.leave(to, Waiting { frame, ingress_slot, is_control });
            }
            Handover::Stray { by, frame } => (by, frame),
        };
        frame.set_mark(ELSEWHERE);
        self.strayed_by = by;
        let onward = match self.forward(&mut frame, NO_SEAT, now) {
            // Handed over once already: its session is just moving.
            Ok(Onward::Stray { .. }) => Err(Discard::NoSession),
            onward => onward,
        };
        match onward {
            Ok(_) => self.send_on(Some(frame).into_iter(), &[onward], NO_SEAT),
            Err(discard) => {
                self.tell_end(discard, &frame, None);
                self.count_at_exit(frame.mark(), discard);
            }
        }
    }
}
