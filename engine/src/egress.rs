//! The egress queue of one next hop: the order of its frames, and the choice of the frames that are
//! dropped when the queue is full.
//!
//! A queue is *contended* from the time at which its port leaves frames in it until the port has
//! taken all. Only a contended queue divides its places among the ingresses.
//!
//! A data frame that finds no free place may displace the newest data frame of the other ingress
//! that has the largest share. It does so only if the share of the new frame's ingress, including
//! the new frame, would be less than that largest share is before the exchange. So the largest
//! share shrinks. The new frame counts with at most the weight of the displaced frame. (This is
//! longest queue drop: B. Suter et al., "Buffer Management Schemes for Supporting TCP in Gigabit
//! Routers with Per-Flow Queueing", 1999.)
//!
//! The port takes data frames in the order of arrival, so ingresses with equal parts of the queue
//! get equal parts of the link. The result is max-min fairness without a queue for each ingress. A
//! queue that is not contended has room for a whole burst, so no shares are counted for it.

mod drain;
mod shares;

use arrayvec::ArrayVec;
use strowger_frame::{Burst, Frame, Pool, reserve::QueueShare};
use strowger_wire::Slot;

use self::shares::Shares;
pub(crate) use self::{drain::Drain, shares::weight};
use crate::{
    discard::Discard,
    limits::{
        EGRESS_CONTROL_FRAMES_MAX, EGRESS_CONTROL_RUN, EGRESS_DATA_FOR_CONTROL, EGRESS_FRAMES_MAX,
        EGRESS_LINK_FRAMES_MAX, EGRESS_MARK_FRAMES, EGRESS_SETTLED_SPARED,
    },
    mark::EgressMark,
};

/// Places for control frames and for the link's own messages.
const CONTROL_PLACES: usize = EGRESS_CONTROL_FRAMES_MAX + EGRESS_LINK_FRAMES_MAX;

/// From this value of [`Egress::ahead`] on, the data frames that are due are sent before control.
const AHEAD_MAX: u16 = EGRESS_CONTROL_RUN * EGRESS_DATA_FOR_CONTROL;

/// The egress queue of one next hop: bounded, shared fairly among ingresses, with reserved places
/// for control frames (R12, R23).
#[derive(Debug, Default)]
pub(crate) struct Egress {
    pub(crate) data: Burst,
    control: ArrayVec<Frame, CONTROL_PLACES>,
    /// Whether the port left frames in the queue when it was last offered the queue.
    contended: bool,
    /// The number of data frames that the port left in the queue.
    left_behind: u16,
    /// Places reserved for frames that have not been moved from their burst into the queue.
    data_reserved: u16,
    control_reserved: u16,
    /// The lead of control over waiting data. In an offer of control and data, each control frame
    /// that the port takes adds [`EGRESS_DATA_FOR_CONTROL`], and each data frame subtracts one.
    ahead: u16,
    /// The share of each ingress, while the queue is contended.
    shares: Shares,
}

/// A place in a contended queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    slot: u16,
    weight: u16,
    pub(crate) is_control: bool,
    /// The index of the displaced frame; `None` if no frame leaves the queue.
    displaced: Option<u16>,
}

impl Egress {
    /// Reserves a place for a data frame that [`put`](Self::put) will add, in a queue that is not
    /// contended.
    ///
    /// # Errors
    /// [`Discard::EgressFull`]: all places are taken or reserved.
    #[inline]
    pub(crate) fn reserve(&mut self) -> Result<(), Discard> {
        if !self.has_data_place() {
            return Err(Discard::EgressFull);
        }
        self.data_reserved += 1;
        Ok(())
    }

    /// Reserves a place for a control frame, if one is free. A control frame without such a place
    /// counts as data.
    #[cold]
    pub(crate) fn reserve_control(&mut self) -> bool {
        let has_place = self.has_control_place();
        self.control_reserved += u16::from(has_place);
        has_place
    }

    #[inline]
    fn has_data_place(&self) -> bool {
        self.data.len() + usize::from(self.data_reserved) < EGRESS_FRAMES_MAX
    }

    fn has_control_place(&self) -> bool {
        self.control.len() + usize::from(self.control_reserved) < EGRESS_CONTROL_FRAMES_MAX
    }

    /// Whether a frame would get a place without displacing another one.
    pub(crate) fn has_place(&self, is_control: bool) -> bool {
        is_control && self.has_control_place() || self.has_data_place()
    }

    /// Releases a reserved place.
    pub(crate) fn release(&mut self, is_control: bool) {
        let reserved =
            if is_control { &mut self.control_reserved } else { &mut self.data_reserved };
        *reserved = reserved.saturating_sub(1);
    }

    /// Appends frames, each of which has a reserved place.
    #[inline]
    pub(crate) fn put(&mut self, frames: impl ExactSizeIterator<Item = Frame>, is_control: bool) {
        let count = frames.len() as u16;
        if is_control {
            self.control_reserved = self.control_reserved.saturating_sub(count);
            self.control.extend(frames);
        } else {
            self.data_reserved = self.data_reserved.saturating_sub(count);
            self.data.extend(frames);
        }
    }

    /// Whether the port has left frames in the queue. In this state [`admit`](Self::admit) finds
    /// places.
    #[inline]
    pub(crate) fn is_contended(&self) -> bool {
        self.contended
    }

    /// Finds the place for one more frame in a contended queue, without changing the queue.
    #[cold]
    pub(crate) fn admit(
        &self,
        ingress_slot: Slot,
        frame_bytes: usize,
        is_control: bool,
    ) -> Result<Entry, Discard> {
        let (slot, weight) = (ingress_slot.number() as u16, weight(frame_bytes));
        let entry = |is_control, displaced| Entry { slot, weight, is_control, displaced };
        if is_control {
            if self.has_control_place() {
                return Ok(entry(true, None));
            }
            if let Some(at) = self.control_to_displace(slot) {
                return Ok(entry(true, Some(at)));
            }
        }
        if self.has_data_place() {
            return Ok(entry(false, None));
        }
        let at = self.data_to_displace(slot, weight).ok_or(Discard::EgressFull)?;
        Ok(entry(false, Some(at)))
    }

    /// The newest control frame of the ingress that has the most control frames of all ingresses
    /// except `slot`. `None` if that ingress does not have at least two more than `slot`.
    fn control_to_displace(&self, slot: u16) -> Option<u16> {
        let most = self.shares.most_control_but(slot)?;
        let newest = newest_of(&self.control, most.slot)?;
        (self.shares.of(slot).control + 1 < most.control).then_some(newest)
    }

    /// The newest data frame of the ingress that has the largest share of all ingresses except
    /// `slot`. `None` unless `slot`, with one more frame of at most the displaced frame's weight,
    /// would hold less than the other ingress holds now.
    fn data_to_displace(&self, slot: u16, weight_wanted: u16) -> Option<u16> {
        let heaviest = self.shares.heaviest_but(slot)?;
        let newest = newest_of(&self.data, heaviest.slot)?;
        let displaced = weight(self.data.get(usize::from(newest))?.len());
        // The new frame counts with at most the weight of the displaced frame, so an ingress
        // without a frame in the queue can enter a frame of any length.
        let entering = weight_wanted.min(displaced);
        self.shares.is_below(slot, entering, heaviest).then_some(newest)
    }

    /// Reserves the place. Returns the displaced frame, if it had to leave the queue.
    #[cold]
    pub(crate) fn enter(&mut self, entry: Entry) -> Option<Frame> {
        let Entry { slot, weight: entering, is_control, displaced } = entry;
        let displaced = match displaced {
            Some(at) if is_control => self.displace_control(usize::from(at)),
            Some(at) => self.data.pop_at(usize::from(at)).inspect(|frame| {
                self.shares.sub(slot_of(frame), weight(frame.len()), false);
            }),
            None => None,
        };
        self.shares.add(slot, entering, is_control);
        let reserved =
            if is_control { &mut self.control_reserved } else { &mut self.data_reserved };
        *reserved += 1;
        displaced
    }

    /// Moves a control frame to a free place for data; if there is none, removes the frame.
    fn displace_control(&mut self, at: usize) -> Option<Frame> {
        let frame = self.control.pop_at(at)?;
        let slot = slot_of(&frame);
        if self.has_data_place() {
            self.shares.demote(slot, weight(frame.len()));
            self.data.push(frame);
            return None;
        }
        self.shares.sub(slot, weight(frame.len()), true);
        Some(frame)
    }

    /// Reserves a place for one of the link's own messages. Some places are reserved for such
    /// messages.
    #[cold]
    pub(crate) fn reserve_link_message(&mut self) -> Result<(), Discard> {
        if self.control.len() + usize::from(self.control_reserved) >= CONTROL_PLACES {
            return Err(Discard::EgressFull);
        }
        self.control_reserved += 1;
        Ok(())
    }

    /// Inserts one of the link's own messages before all packets, and after earlier messages.
    #[cold]
    pub(crate) fn put_link_message(&mut self, mut frame: Frame) {
        frame.set_link_message();
        self.release(true);
        let link_messages = self.control.iter().take_while(|frame| frame.is_link_message()).count();
        self.control.insert(link_messages, frame);
    }

    /// Whether the worker marks congestion in the frames (ECN).
    #[inline]
    pub(crate) fn is_congested(&self) -> bool {
        usize::from(self.left_behind) >= EGRESS_MARK_FRAMES
    }

    /// Offers the frames to `take`, usually control first. Returns the number of frames and bytes
    /// that `take` removed.
    ///
    /// `take` removes frames from the front and leaves those that the port does not take now.
    #[inline]
    pub(crate) fn offer(&mut self, mut take: impl FnMut(&mut Burst)) -> Sent {
        let mut sent = Sent::default();
        if !self.control.is_empty() {
            self.offer_control(&mut sent, &mut take);
        } else if !self.data.is_empty() {
            sent.take_from(&mut self.data, &mut take);
        }
        if self.waiting() > 0 || self.contended {
            self.note_left(sent.frames);
        }
        sent
    }

    /// Offers control first. If control is far ahead of waiting data, the data frames that are due
    /// are offered before it, so that three of four frames are data. The link's own messages are
    /// always offered first.
    #[cold]
    fn offer_control(&mut self, sent: &mut Sent, take: &mut impl FnMut(&mut Burst)) {
        let is_own = self.control.first().is_some_and(|frame| frame.is_link_message());
        if self.ahead >= AHEAD_MAX && !is_own {
            let due = self.ahead - AHEAD_MAX + EGRESS_DATA_FOR_CONTROL;
            let mut first: Burst =
                self.data.drain(..self.data.len().min(usize::from(due))).collect();
            let before = first.len();
            sent.take_from(&mut first, take);
            self.ahead -= (before - first.len()) as u16;
            if !first.is_empty() {
                first.extend(self.data.drain(..));
                self.data = first;
                return;
            }
        }
        let mut control: Burst = self.control.drain(..).collect();
        let before = control.len();
        sent.take_from(&mut control, take);
        if !self.data.is_empty() {
            let gone = (before - control.len()) as u16;
            self.ahead = self.ahead.saturating_add(gone * EGRESS_DATA_FOR_CONTROL);
        }
        self.control.extend(control);
        // Data is not offered until the port has taken all control. Otherwise data would occupy the
        // places in the port that control needs.
        if self.control.is_empty() && !self.data.is_empty() {
            let before = self.data.len();
            sent.take_from(&mut self.data, take);
            self.ahead = self.ahead.saturating_sub((before - self.data.len()) as u16);
        }
    }

    /// Computes each ingress' share of the queue. [`offer`](Self::offer) calls it when the port did
    /// not accept all frames, and once more when the queue is empty again.
    #[cold]
    fn note_left(&mut self, gone: u64) {
        let was_contended = self.contended;
        self.left_behind = self.data.len() as u16;
        self.contended = self.waiting() > 0;
        if self.data.is_empty() {
            self.ahead = 0;
        }
        if was_contended && gone == 0 {
            return; // unchanged
        }
        debug_assert!(self.data_reserved == 0, "bursts are put whole before they are offered");
        self.shares.clear();
        for (frames, is_control) in [(&self.data[..], false), (&self.control[..], true)] {
            for frame in frames.iter().filter(|frame| !frame.is_link_message()) {
                self.shares.add(slot_of(frame), weight(frame.len()), is_control);
            }
        }
    }

    /// Moves the waiting frames out of the chunks into which ports receive. Drops frames for which
    /// no other chunk is free, and returns the number of dropped frames.
    ///
    /// `drains` is the number of frames that were sent from the queue recently.
    #[cold]
    pub(crate) fn settle(&mut self, pool: &mut Pool, drains: usize) -> usize {
        let Self { data, control, shares, .. } = self;
        let before = data.len() + control.len();
        let mut share = QueueShare::new(drains, EGRESS_SETTLED_SPARED);
        let mut settle = |frame: &mut Frame, is_control| {
            let (slot, weight) = (slot_of(frame), weight(frame.len()));
            let is_link_message = frame.is_link_message();
            let is_settled = pool.park(frame, &mut share);
            if !is_settled && !is_link_message {
                shares.sub(slot, weight, is_control);
            }
            is_settled
        };
        // Control first: it has priority for the chunks that are left.
        control.retain(|frame| settle(frame, true));
        data.retain(|frame| settle(frame, false));
        before - data.len() - control.len()
    }

    /// The number of waiting frames.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.data.len() + self.control.len()
    }
}

/// The ingress slot as the key of a share. Slot numbers are below 2^16.
fn slot_of(frame: &Frame) -> u16 {
    frame.ingress_slot().number() as u16
}

/// The index of the newest frame of this ingress.
fn newest_of(frames: &[Frame], slot: u16) -> Option<u16> {
    let at = frames.iter().rposition(|frame| frame.ingress_slot() == Slot::new(u32::from(slot)))?;
    Some(at as u16)
}

/// The number of frames and bytes that a port took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

impl Sent {
    #[inline]
    fn take_from(&mut self, queue: &mut Burst, take: &mut impl FnMut(&mut Burst)) {
        let frames = queue.len();
        let bytes: usize = queue.iter().map(Frame::len).sum();
        take(queue);
        let bytes_left: usize = queue.iter().map(Frame::len).sum();
        self.frames += (frames - queue.len()) as u64;
        self.bytes += (bytes - bytes_left) as u64;
    }
}

#[cfg(test)]
mod tests {
    use strowger_frame::{ChunkClass, Pool, PoolSpec};

    use super::*;

    fn frames(n: usize) -> (Pool, Vec<Frame>) {
        let mut pool = Pool::new(&PoolSpec { trains: 0, singles: n as u32, huge_pages: false })
            .expect("memory");
        let frames = (0..n)
            .map(|_| {
                pool.take(ChunkClass::Single).expect("the pool has n chunks").into_frame(256, 100)
            })
            .collect();
        (pool, frames)
    }

    fn push(egress: &mut Egress, frame: Option<Frame>, is_control: bool) -> Result<(), Discard> {
        let is_control = is_control && egress.reserve_control();
        if !is_control {
            egress.reserve()?;
        }
        egress.put(frame.into_iter(), is_control);
        Ok(())
    }

    #[test]
    fn a_full_queue_refuses_data_and_still_takes_control() {
        let (_pool, mut frames) = frames(70);
        let mut egress = Egress::default();
        for _ in 0..64 {
            push(&mut egress, frames.pop(), false).expect("64 places");
        }
        assert_eq!(push(&mut egress, frames.pop(), false), Err(Discard::EgressFull));
        push(&mut egress, frames.pop(), true).expect("control has separate places");
        assert_eq!(egress.waiting(), 65);
    }

    #[test]
    fn a_reserved_place_is_not_given_twice() {
        let mut egress = Egress::default();
        for _ in 0..64 {
            egress.reserve().expect("64 places");
        }
        assert_eq!(egress.reserve(), Err(Discard::EgressFull));
        egress.release(false);
        assert_eq!(egress.reserve(), Ok(()));
    }

    #[test]
    fn control_goes_first_and_data_waits_for_it() {
        let (_pool, mut frames) = frames(4);
        let mut egress = Egress::default();
        let mut control = frames.pop().expect("4");
        control.bytes_mut()[0] = 0xcc;
        push(&mut egress, frames.pop(), false).expect("room");
        push(&mut egress, Some(control), true).expect("room");
        assert_eq!(egress.offer(|_| ()), Sent::default());
        let mut first = None;
        egress.offer(|queue| {
            let frame = queue.pop_at(0);
            first = first.or(frame.map(|frame| frame.bytes()[0]));
        });
        assert_eq!(first, Some(0xcc));
        assert_eq!(egress.waiting(), 0);
    }

    #[test]
    fn a_queue_that_does_not_drain_is_congested() {
        let (_pool, frames) = frames(40);
        let mut egress = Egress::default();
        for frame in frames {
            push(&mut egress, Some(frame), false).expect("room");
        }
        assert!(!egress.is_congested());
        egress.offer(|queue| drop(queue.drain(..2)));
        assert!(egress.is_congested() && egress.is_contended());
        let sent = egress.offer(|queue| queue.clear());
        assert_eq!(sent, Sent { frames: 38, bytes: 3_800 });
        assert!(!egress.is_congested() && !egress.is_contended());
    }
    /// Puts frames of this ingress into the queue, each in a separate place.
    fn fill(egress: &mut Egress, frames: &mut Vec<Frame>, n: usize, slot: Slot, is_control: bool) {
        for _ in 0..n {
            let mut frame = frames.pop().expect("enough");
            frame.set_ingress_slot(slot);
            push(egress, Some(frame), is_control).expect("a place is free");
        }
    }

    #[test]
    fn a_reserved_or_taken_place_is_not_free() {
        let (_pool, mut frames) = frames(80);
        let mut egress = Egress::default();
        let places = |egress: &Egress| [false, true].map(|is_control| egress.has_place(is_control));
        assert_eq!(places(&egress), [true, true]);
        fill(&mut egress, &mut frames, 62, Slot::new(2), false);
        egress.reserve().expect("62 of 64");
        assert_eq!(places(&egress), [true, true]);
        egress.reserve().expect("63 of 64");
        assert_eq!(places(&egress), [false, true], "control has separate places");
        assert_eq!(egress.reserve(), Err(Discard::EgressFull));
        fill(&mut egress, &mut frames, 14, Slot::new(2), true);
        assert!(egress.reserve_control());
        assert_eq!(places(&egress), [false, true]);
        assert!(egress.reserve_control());
        assert_eq!(places(&egress), [false, false]);
        assert!(!egress.reserve_control());
        // When no place for control is left, a free place for data counts for a control frame too.
        egress.release(false);
        assert_eq!(places(&egress), [true, true]);
        egress.reserve().expect("63 of 64");
        egress.release(true);
        assert_eq!(places(&egress), [false, true]);
    }

    #[test]
    fn four_places_take_only_messages_of_the_link() {
        let (_pool, mut frames) = frames(20);
        let mut egress = Egress::default();
        fill(&mut egress, &mut frames, 10, Slot::new(2), true);
        for taken in 10..20 {
            assert_eq!(egress.reserve_link_message(), Ok(()), "{taken} of 20");
        }
        assert_eq!(egress.reserve_link_message(), Err(Discard::EgressFull));
        // Each message follows earlier ones and precedes all control.
        for byte in [1, 2] {
            let mut frame = frames.pop().expect("enough");
            frame.bytes_mut()[0] = byte;
            egress.put_link_message(frame);
        }
        let first: Vec<u8> = egress.control.iter().take(2).map(|frame| frame.bytes()[0]).collect();
        assert_eq!((first, egress.waiting()), (vec![1, 2], 12));
        assert_eq!(
            egress.reserve_link_message(),
            Err(Discard::EgressFull),
            "two took their places"
        );
    }

    /// A contended queue with this many control and data frames of each ingress.
    fn contended(held: &[(u32, usize, usize)]) -> (Pool, Vec<Frame>, Egress) {
        let (pool, mut frames) = frames(120);
        let mut egress = Egress::default();
        for &(slot, control, data) in held {
            fill(&mut egress, &mut frames, control, Slot::new(slot), true);
            fill(&mut egress, &mut frames, data, Slot::new(slot), false);
        }
        egress.offer(|_| ());
        assert!(egress.is_contended());
        (pool, frames, egress)
    }

    #[test]
    fn control_displaces_the_newest_of_the_ingress_that_has_two_more() {
        for (held, slot, displaced) in [
            (&[(2, 16, 64)][..], 3, Some(15)),
            (&[(2, 9, 32), (3, 7, 32)], 3, Some(8)),
            (&[(2, 8, 32), (3, 8, 32)], 3, None),
            (&[(2, 6, 22), (3, 5, 21), (4, 5, 21)], 3, None),
            (&[(2, 7, 22), (3, 5, 21), (4, 4, 21)], 3, Some(6)),
            (&[(2, 7, 22), (3, 5, 21), (4, 4, 21)], 2, None),
        ] {
            let (_pool, _frames, mut egress) = contended(held);
            assert_eq!(egress.control_to_displace(slot as u16), displaced, "{slot} of {held:?}");
            let Some(at) = displaced else { continue };
            let entry = egress.admit(Slot::new(slot), 100, true).expect("a place is free");
            assert_eq!((entry.is_control, entry.displaced), (true, Some(at)));
            let lost = egress.enter(entry).expect("no place for data is free either");
            assert_eq!(lost.ingress_slot(), Slot::new(2));
            // The new frame has the reserved place, and the other ingress has one frame less.
            assert!(!egress.reserve_control());
            assert_eq!(usize::from(egress.shares.of(2).control) + 1, held[0].1);
        }
    }

    #[test]
    fn displaced_control_takes_a_free_place_for_data() {
        let (_pool, _frames, mut egress) = contended(&[(2, 16, 63)]);
        let entry = egress.admit(Slot::new(3), 100, true).expect("a place is free");
        assert!(egress.enter(entry).is_none(), "it is data now");
        assert_eq!((egress.control.len(), egress.data.len()), (15, 64));
        assert_eq!((egress.shares.of(2).control, egress.shares.of(3).control), (15, 1));
        // 15 control frames count four each, and 64 data frames three.
        assert_eq!(egress.shares.of(2).held, 15 * 4 + 64 * 3);
    }

    #[test]
    fn data_displaces_the_newest_of_the_ingress_that_holds_most() {
        for (held, slot, displaced) in [
            (&[(2, 0, 64)][..], 3, Some(63)),
            (&[(2, 0, 33), (3, 0, 31)], 3, Some(32)),
            (&[(2, 0, 32), (3, 0, 32)], 3, None),
            (&[(3, 0, 31), (2, 0, 33)], 2, None),
        ] {
            let (_pool, _frames, mut egress) = contended(held);
            let entry = egress.admit(Slot::new(slot), 100, false);
            assert_eq!(entry.ok().map(|entry| entry.displaced), displaced.map(Some), "{held:?}");
            let Ok(entry) = entry else { continue };
            let held_before = egress.shares.of(2).held;
            assert_eq!(egress.enter(entry).map(|frame| frame.ingress_slot()), Some(Slot::new(2)));
            assert_eq!(egress.shares.of(2).held, held_before - 3);
            assert_eq!(egress.reserve(), Err(Discard::EgressFull), "its place is reserved");
        }
    }

    #[test]
    fn after_a_run_of_control_data_gets_three_frames_of_four() {
        let (_pool, mut frames, mut egress) = contended(&[(2, 16, 0), (3, 0, 64)]);
        let (mut order, mut offers) = (Vec::new(), 0);
        while order.len() < 40 {
            offers += 1;
            egress
                .offer(|queue| order.extend(queue.drain(..1.min(queue.len())).map(|f| f.mark().0)));
            let free = EGRESS_CONTROL_FRAMES_MAX - egress.control.len();
            fill(&mut egress, &mut frames, free, Slot::new(2), true);
        }
        assert_eq!(order[..16], [2; 16], "all places for control go first");
        // From then on three of four frames are data, in any order.
        let data = order[16..].iter().filter(|slot| **slot == 3).count();
        assert_eq!((order.len(), data), (40, 18), "{order:?} in {offers}");
    }
    #[test]
    fn shares_follow_the_frames_that_leave_a_contended_queue() {
        let (_pool, _frames, mut egress) = contended(&[(2, 0, 40), (3, 0, 20)]);
        assert_eq!([2, 3].map(|slot| egress.shares.of(slot).held), [120, 60]);
        egress.offer(|queue| drop(queue.drain(..50)));
        assert_eq!([2, 3].map(|slot| egress.shares.of(slot).held), [0, 30]);
    }

    #[test]
    fn only_the_data_that_is_due_goes_before_control() {
        let (_pool, mut frames, mut egress) = contended(&[(2, 16, 0), (3, 0, 64)]);
        let control_alone = |queue: &mut Burst| {
            if queue[0].ingress_slot() == Slot::new(2) {
                queue.clear();
            }
        };
        egress.offer(control_alone);
        assert_eq!(egress.ahead, AHEAD_MAX);
        fill(&mut egress, &mut frames, 2, Slot::new(2), true);
        let mut offered = Vec::new();
        egress.offer(|queue| {
            offered.push((queue[0].mark().0, queue.len()));
            queue.clear();
        });
        // Three data frames, then all control, then all other data.
        assert_eq!(offered, [(3, 3), (2, 2), (3, 61)]);
    }

    #[test]
    fn data_that_follows_control_reduces_its_lead() {
        let (_pool, _frames, mut egress) = contended(&[(2, 4, 0), (3, 0, 64)]);
        egress.offer(|queue| match queue[0].ingress_slot().number() {
            2 => queue.clear(),
            _ => drop(queue.drain(..10)),
        });
        assert_eq!((egress.waiting(), egress.ahead), (54, 4 * EGRESS_DATA_FOR_CONTROL - 10));
    }
}
