//! Frames between workers: a ring from each to each other, for those whose exit or session another one
//! has. Data leaves places free for control (R12).

use std::{collections::VecDeque, mem, sync::Arc};

use arrayvec::ArrayVec;
use strowger_frame::{
    Address, BURST_MAX, Frame, Mark, Wake,
    ring::{Consumer, Producer, ring},
};

use super::{HANDED_OFF, NO_QUEUE, Worker, verdict::Outcome};
use crate::{
    Now,
    command::{Handoff, hash_of_host},
    discard::Discard,
    limits::{HANDOFF_CONTROL_FRAMES_MAX, HANDOFF_FRAMES_MAX, HANDOFF_SHARE},
    link::{LinkProtection, PendingFrame},
};

/// Whose frame a place of a ring holds: an ingress' data, its control, or what is not opened yet, by where
/// it comes from.
type Holder = u32;

const CONTROL: Holder = 1 << 16;
const UNOPENED: Holder = 2 << 16;
const UNOPENED_UNKNOWN: Holder = 3 << 16;

/// One worker's ring to another, and who holds how much of it.
struct Outgoing {
    ring: Producer<Handoff>,
    /// By place, oldest first: the ring's own items cannot be looked at from here.
    holders: VecDeque<Holder>,
    held: ArrayVec<(Holder, u16), HANDOFF_FRAMES_MAX>,
}

impl Outgoing {
    fn new(ring: Producer<Handoff>) -> Self {
        let holders = VecDeque::with_capacity(ring.capacity());
        Self { ring, holders, held: ArrayVec::new() }
    }

    /// Takes note of what the other worker has taken.
    fn catch_up(&mut self) {
        while self.holders.len() > self.ring.waiting() {
            let Some(holder) = self.holders.pop_front() else { return };
            if let Some(at) = self.held.iter().position(|(of, _)| *of == holder) {
                self.held[at].1 -= 1;
                if self.held[at].1 == 0 {
                    self.held.swap_remove(at);
                }
            }
        }
    }

    /// Hands a frame over, unless its holder has its share: four times what is left free. One alone has
    /// four fifths of the ring, and every other one finds a place (a dynamic threshold, as at punts).
    fn send(&mut self, handoff: Handoff, holder: Holder) -> Result<(), (Discard, Frame)> {
        self.catch_up();
        // Data leaves places free for control (R12).
        let kept = if handoff.is_control() { 0 } else { HANDOFF_CONTROL_FRAMES_MAX };
        let free = HANDOFF_FRAMES_MAX.saturating_sub(self.holders.len() + kept);
        let at = self.held.iter().position(|(of, _)| *of == holder);
        let held = at.map_or(0, |at| usize::from(self.held[at].1));
        if held >= HANDOFF_SHARE * free {
            return Err((Discard::HandoffFull, handoff.into_frame()));
        }
        self.ring.push(handoff).map_err(|full| (Discard::HandoffFull, full.into_frame()))?;
        self.holders.push_back(holder);
        match at {
            Some(at) => self.held[at].1 += 1,
            None => self.held.push((holder, 1)),
        }
        Ok(())
    }
}

/// One worker's rings to and from every other.
#[derive(Default)]
pub(crate) struct HandoffRings {
    /// By worker; `None` for oneself.
    to: Vec<Option<Outgoing>>,
    from: Vec<Consumer<Handoff>>,
    /// By ring: what was taken from it and has not had its turn. Empty between polls.
    staged: Vec<ArrayVec<Handoff, BURST_MAX>>,
    wakers: Vec<Option<Arc<dyn Wake>>>,
    /// Bit `w`: worker `w` was handed frames since its waker was last called.
    given: u64,
}

impl HandoffRings {
    /// The rings between `count` workers (64 at most), by worker.
    pub(crate) fn between(count: usize, frames_max: usize) -> Vec<Self> {
        let mut all: Vec<Self> =
            (0..count).map(|_| Self { wakers: vec![None; count], ..Self::default() }).collect();
        for from in 0..count {
            for to in 0..count {
                if from == to {
                    all[from].to.push(None);
                    continue;
                }
                let (producer, consumer) = ring(frames_max);
                all[from].to.push(Some(Outgoing::new(producer)));
                all[to].from.push(consumer);
                all[to].staged.push(ArrayVec::new());
            }
        }
        all
    }

    /// Hands a frame to another worker.
    fn send(&mut self, home: u8, handoff: Handoff, holder: Holder) -> Result<(), (Discard, Frame)> {
        let Some(Some(to)) = self.to.get_mut(usize::from(home)) else {
            return Err((Discard::ExitGone, handoff.into_frame()));
        };
        self.given |= 1 << home;
        to.send(handoff, holder)
    }

    /// Has all other workers woken with the next [`wake_others`](Self::wake_others).
    #[cold]
    pub(super) fn wake_all(&mut self) {
        for (worker, _) in self.to.iter().enumerate().filter(|(_, to)| to.is_some()) {
            self.given |= 1 << worker;
        }
    }

    /// Wakes those who were handed frames since this was last called.
    pub(super) fn wake_others(&mut self) {
        let mut given = mem::take(&mut self.given);
        while given != 0 {
            let worker = given.trailing_zeros() as usize;
            given &= given - 1;
            if let Some(Some(waker)) = self.wakers.get(worker) {
                waker.wake();
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
    pub(super) fn set_waker(&mut self, number: usize, waker: Arc<dyn Wake>) {
        if let Some(place) = self.wakers.get_mut(number) {
            *place = Some(waker);
        }
    }
}

impl Worker {
    /// Hands a frame to the worker that has its exit.
    #[cold]
    pub(super) fn handoff_to_egress(
        &mut self,
        home: u8,
        to: Mark,
        is_control: bool,
        frame: Frame,
    ) -> Result<(), (Discard, Frame)> {
        let ingress_slot = self.links.ingress_slot(frame.mark());
        let holder = (ingress_slot & 0xffff) | if is_control { CONTROL } else { 0 };
        self.handoff_rings.send(
            home,
            Handoff::Egress { to, ingress_slot, is_control, frame },
            holder,
        )
    }

    /// Hands a frame to the worker that opens its session. Nothing in it has been proved, so it counts for
    /// the address that it comes from, even if that is forged.
    #[cold]
    pub(super) fn handoff_to_session(
        &mut self,
        worker: u8,
        frame: Frame,
        queue: usize,
    ) -> Result<(), (Discard, Frame)> {
        let mark = frame.mark();
        let holder = if mark.is_unknown() {
            let from = self.ports.address_of(queue, mark);
            let port = self.ports.at(queue).map_or(0, |queue| Holder::from(queue.number) & 0xfff);
            UNOPENED_UNKNOWN | port << 4 | sources_of(from.map(|(_, from)| from))
        } else {
            UNOPENED | mark.index() as Holder
        };
        self.handoff_rings.send(worker, Handoff::WrongWorker { by: self.number, frame }, holder)
    }

    /// Takes the rings' frames that have to come before what the ports have (R7): of flows that may come
    /// in by this worker's own ports now, since the kernel steers them or their session has moved. Says how
    /// many there were; rings that had any have had their turn in this round: bit `r` for ring `r`.
    pub(super) fn take_first(&mut self, now: Now) -> (usize, u64) {
        let (mut taken, mut had) = (0, 0);
        let bursts =
            if self.schedule.rings_first { HANDOFF_FRAMES_MAX.div_ceil(BURST_MAX) } else { 1 };
        for ring in 0..self.handoff_rings.workers() {
            for _ in 0..bursts {
                self.handoff_rings.stage(ring);
                let staged = &self.handoff_rings.staged[ring];
                if !self.schedule.rings_first
                    && !staged.iter().any(|handoff| self.may_overtake(handoff))
                {
                    break;
                }
                taken += self.take_handoffs(ring, now);
                had |= 1 << ring;
            }
        }
        self.schedule.rings_first = false;
        (taken, had)
    }

    /// Whether frames behind this one in its flow may come in by a port of this worker.
    fn may_overtake(&self, handoff: &Handoff) -> bool {
        match handoff {
            Handoff::WrongWorker { .. } => true,
            // A session's frames are opened where the session is, whatever port they come in by.
            Handoff::Egress { ingress_slot, .. } => {
                let by = self.links.mark_at(*ingress_slot);
                self.links.get(by).is_some_and(|link| {
                    matches!(link.protection, LinkProtection::Plain { .. })
                        && self.ports.of_port(link.port).is_some()
                })
            }
        }
    }

    /// Takes a burst of frames that came in by another worker and leave, or are opened, by this one.
    pub(super) fn take_handoffs(&mut self, ring: usize, now: Now) -> usize {
        self.handoff_rings.stage(ring);
        let handoffs = mem::take(&mut self.handoff_rings.staged[ring]);
        let taken = handoffs.len();
        for handoff in handoffs {
            self.take_handoff(handoff, now);
        }
        self.transmit();
        self.flush_after(taken);
        taken
    }

    #[inline(never)]
    fn take_handoff(&mut self, handoff: Handoff, now: Now) {
        let (by, mut frame) = match handoff {
            Handoff::Egress { to, ingress_slot, is_control, frame } => {
                return self
                    .send_from_pending(to, PendingFrame { frame, ingress_slot, is_control });
            }
            Handoff::WrongWorker { by, frame } => (by, frame),
        };
        frame.set_mark(HANDED_OFF);
        self.handed_off_by = by;
        let verdict = self.decide(&mut frame, NO_QUEUE, now);
        let discard = match verdict.outcome() {
            // Handed over once already: its session is just moving.
            Outcome::WrongWorker { .. } => Discard::NoSession,
            Outcome::Drop { discard, next_hop: None, .. } => discard,
            _ => return self.dispatch(Some(frame).into_iter(), &[verdict], NO_QUEUE),
        };
        self.notify_drop(discard, &frame, None);
        self.count_at_egress(frame.mark(), discard);
    }
}

/// Hosts that no neighbour is at fall into eight groups, each with a share of its own. A sender that forges
/// many addresses has eight shares at most.
fn sources_of(from: Option<Address>) -> Holder {
    from.map_or(0, hash_of_host) & 7
}
