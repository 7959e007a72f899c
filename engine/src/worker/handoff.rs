//! Handoff rings: one from each worker to each other worker, for frames whose next hop or session
//! belongs to the receiving worker.

use std::{collections::VecDeque, mem, sync::Arc};

use arrayvec::ArrayVec;
use strowger_frame::{
    Address, BURST_MAX, Frame, Mark, Wake,
    ring::{Consumer, Producer, ring},
};

use super::{NO_QUEUE, Worker, verdict::Outcome};
use crate::{
    Now,
    command::{Handoff, hash_of_host},
    discard::Discard,
    limits::{HANDOFF_CONTROL_FRAMES_MAX, HANDOFF_FRAMES_MAX, HANDOFF_SHARE},
    link::{LinkProtection, PendingFrame},
    mark::HANDED_OFF,
};

/// What a place in a ring is charged to: the data frames of one ingress, the control frames of one
/// ingress, or one source of unopened frames.
type Holder = u32;

const CONTROL: Holder = 1 << 16;
const UNOPENED: Holder = 2 << 16;
const UNOPENED_UNKNOWN: Holder = 3 << 16;

/// One worker's ring to another, and the number of places that each holder has.
struct Outgoing {
    ring: Producer<Handoff>,
    /// The holder of each place, oldest first. The list is needed because the sender cannot read
    /// the ring's items.
    holders: VecDeque<Holder>,
    held: ArrayVec<(Holder, u16), HANDOFF_FRAMES_MAX>,
}

impl Outgoing {
    fn new(ring: Producer<Handoff>) -> Self {
        let holders = VecDeque::with_capacity(ring.capacity());
        Self { ring, holders, held: ArrayVec::new() }
    }

    /// Frees the places of frames that the other worker has taken.
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

    /// Sends a frame. If the holder of the frame already occupies its share of the ring, which is
    /// four times the number of free places, the frame is returned.
    ///
    /// A single holder gets at most four fifths of the ring, so it cannot fill the ring (a dynamic
    /// threshold, as for punts).
    fn send(&mut self, handoff: Handoff, holder: Holder) -> Result<(), (Discard, Frame)> {
        self.catch_up();
        // Data frames do not take the last places, which are for control (R12).
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

/// One worker's rings to and from all others.
#[derive(Default)]
pub(crate) struct HandoffRings {
    /// The rings to other workers, by worker; `None` for this worker.
    to: Vec<Option<Outgoing>>,
    from: Vec<Consumer<Handoff>>,
    /// By ring: the frames taken from it that are not yet processed. Empty between polls.
    staged: Vec<ArrayVec<Handoff, BURST_MAX>>,
    wakers: Vec<Option<Arc<dyn Wake>>>,
    /// Bit `w` is set if worker `w` is to be woken at the next flush.
    given: u64,
}

impl HandoffRings {
    /// Makes the rings between `count` workers (at most 64). Returns the ends of each worker's
    /// rings, by worker number.
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

    /// Sends a frame to another worker.
    fn send(&mut self, home: u8, handoff: Handoff, holder: Holder) -> Result<(), (Discard, Frame)> {
        let Some(Some(to)) = self.to.get_mut(usize::from(home)) else {
            return Err((Discard::ExitGone, handoff.into_frame()));
        };
        self.given |= 1 << home;
        to.send(handoff, holder)
    }

    /// Marks all other workers for the next [`wake_others`](Self::wake_others).
    #[cold]
    pub(super) fn wake_all(&mut self) {
        for (worker, _) in self.to.iter().enumerate().filter(|(_, to)| to.is_some()) {
            self.given |= 1 << worker;
        }
    }

    /// Wakes the workers that were marked since the last call.
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

    /// The number of rings from other workers.
    pub(super) fn workers(&self) -> usize {
        self.from.len()
    }

    /// Takes a burst from a ring into `staged`.
    #[inline]
    fn stage(&mut self, ring: usize) {
        let staged = &mut self.staged[ring];
        if staged.is_empty() {
            self.from[ring].pop_burst(staged);
        }
    }

    /// Whether all rings to this worker are empty.
    pub(super) fn is_empty(&mut self) -> bool {
        self.from.iter_mut().all(Consumer::is_empty)
    }

    /// Sets the waker of a worker.
    pub(super) fn set_waker(&mut self, number: usize, waker: Arc<dyn Wake>) {
        if let Some(place) = self.wakers.get_mut(number) {
            *place = Some(waker);
        }
    }
}

impl Worker {
    /// Hands a frame to the worker that owns the next hop's port.
    #[cold]
    pub(super) fn handoff_to_egress(
        &mut self,
        home: u8,
        to: Mark,
        is_control: bool,
        frame: Frame,
    ) -> Result<(), (Discard, Frame)> {
        let ingress_slot = self.links.ingress_slot(frame.mark());
        let holder = (ingress_slot.number() & 0xffff) | if is_control { CONTROL } else { 0 };
        self.handoff_rings.send(
            home,
            Handoff::Egress { to, ingress_slot, is_control, frame },
            holder,
        )
    }

    /// Hands a frame to the worker that opens its session. The frame is not authenticated, so its
    /// place is charged to its source address, which may be forged.
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

    /// Processes handoffs that must precede the frames of this worker's ports (R7): later frames of
    /// the flow may arrive on these ports, because the kernel steers them here or the session has
    /// moved.
    ///
    /// Returns the number of frames, and a word in which bit `r` is set for each ring `r` that this
    /// call has processed.
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

    /// Whether later frames of the same flow may arrive on a port of this worker.
    fn may_overtake(&self, handoff: &Handoff) -> bool {
        match handoff {
            Handoff::WrongWorker { .. } => true,
            // Only frames of a plain link can be overtaken. Frames of a session are opened by the
            // worker that has the session, whichever port they arrive on.
            Handoff::Egress { ingress_slot, .. } => {
                let by = self.links.mark_at(*ingress_slot);
                self.links.get(by).is_some_and(|link| {
                    matches!(link.protection, LinkProtection::Plain { .. })
                        && self.ports.of_port(link.port).is_some()
                })
            }
        }
    }

    /// Processes a burst of frames that another worker received.
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
            // The frame has already been handed off once, so its session is being moved.
            Outcome::WrongWorker { .. } => Discard::NoSession,
            Outcome::Drop { discard, next_hop: None, .. } => discard,
            _ => return self.dispatch(Some(frame).into_iter(), &[verdict], NO_QUEUE),
        };
        self.notify_drop(discard, &frame, None);
        self.count_at_egress(frame.mark(), discard);
    }
}

/// The holder of frames from an unknown host: one of eight groups per port. A sender that forges
/// many addresses gets at most eight shares per port.
fn sources_of(from: Option<Address>) -> Holder {
    from.map_or(0, hash_of_host) & 7
}
