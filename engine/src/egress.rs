//! Where frames wait at an exit, and what is refused when there is no room. It never sends: the
//! port does.

use arrayvec::ArrayVec;
use strowger_frame::{Burst, Frame};

use crate::{
    discard::Discard,
    limits::{EGRESS_CONTROL_FRAMES_MAX, EGRESS_FRAMES_MAX, EGRESS_MARK_FRAMES},
};

/// The queue of one exit: bounded, newest arrival refused, control apart from data (R12).
#[derive(Debug, Default)]
pub struct Egress {
    pub(crate) data: Burst,
    control: ArrayVec<Frame, EGRESS_CONTROL_FRAMES_MAX>,
    /// Frames that the port left here when it was last asked.
    left_behind: u16,
    /// Places promised to frames that are still in their burst.
    data_promised: u16,
    control_promised: u16,
}

impl Egress {
    /// Promises a place to one more frame, which [`put`](Self::put) then takes; refused when all
    /// places are taken or promised.
    #[inline]
    pub(crate) fn promise(&mut self, is_control: bool) -> Result<(), Discard> {
        let (taken, promised, places) = if is_control {
            (self.control.len(), &mut self.control_promised, EGRESS_CONTROL_FRAMES_MAX)
        } else {
            (self.data.len(), &mut self.data_promised, EGRESS_FRAMES_MAX)
        };
        if taken + usize::from(*promised) >= places {
            return Err(Discard::EgressFull);
        }
        *promised += 1;
        Ok(())
    }

    /// Whether [`promise`](Self::promise) would find a place.
    pub(crate) fn has_place(&self, is_control: bool) -> bool {
        let (taken, promised, places) = if is_control {
            (self.control.len(), self.control_promised, EGRESS_CONTROL_FRAMES_MAX)
        } else {
            (self.data.len(), self.data_promised, EGRESS_FRAMES_MAX)
        };
        taken + usize::from(promised) < places
    }

    /// Takes a promise back.
    pub(crate) fn release(&mut self, is_control: bool) {
        let promised =
            if is_control { &mut self.control_promised } else { &mut self.data_promised };
        *promised = promised.saturating_sub(1);
    }

    /// Puts frames at the end, each in a place that was promised to it.
    #[inline]
    pub(crate) fn put(&mut self, frames: impl ExactSizeIterator<Item = Frame>, is_control: bool) {
        let count = frames.len() as u16;
        if is_control {
            self.control_promised = self.control_promised.saturating_sub(count);
            self.control.extend(frames);
        } else {
            self.data_promised = self.data_promised.saturating_sub(count);
            self.data.extend(frames);
        }
    }

    /// Whether frames should carry the news of congestion.
    #[inline]
    pub(crate) fn is_congested(&self) -> bool {
        usize::from(self.left_behind) >= EGRESS_MARK_FRAMES
    }

    /// Offers what waits to `take`, control first, each queue in order; says how many frames and
    /// bytes went. `take` takes from the front and leaves what it cannot take now.
    #[inline]
    pub(crate) fn offer(&mut self, mut take: impl FnMut(&mut Burst)) -> Sent {
        let mut sent = Sent::default();
        if !self.control.is_empty() {
            let mut control: Burst = self.control.drain(..).collect();
            sent.take_from(&mut control, &mut take);
            self.control.extend(control);
        }
        // Data waits behind control that could not go, lest it take its place for good.
        if self.control.is_empty() && !self.data.is_empty() {
            sent.take_from(&mut self.data, &mut take);
        }
        self.left_behind = self.data.len() as u16;
        sent
    }

    /// Frames that wait.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.data.len() + self.control.len()
    }
}

/// What an exit let go.
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
            .map(|_| pool.take(ChunkClass::Single).expect("n of them").into_frame(256, 100))
            .collect();
        (pool, frames)
    }

    fn push(egress: &mut Egress, frame: Option<Frame>, is_control: bool) -> Result<(), Discard> {
        egress.promise(is_control)?;
        egress.put(frame.into_iter(), is_control);
        Ok(())
    }

    #[test]
    fn a_full_exit_refuses_the_newest_and_still_takes_control() {
        let (_pool, mut frames) = frames(70);
        let mut egress = Egress::default();
        for _ in 0..64 {
            push(&mut egress, frames.pop(), false).expect("64 places");
        }
        assert_eq!(push(&mut egress, frames.pop(), false), Err(Discard::EgressFull));
        push(&mut egress, frames.pop(), true).expect("control has places of its own");
        assert_eq!(egress.waiting(), 65);
    }

    #[test]
    fn a_promised_place_is_not_given_twice() {
        let mut egress = Egress::default();
        for _ in 0..64 {
            egress.promise(false).expect("64 places");
        }
        assert_eq!(egress.promise(false), Err(Discard::EgressFull));
        egress.release(false);
        assert_eq!(egress.promise(false), Ok(()));
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
    fn an_exit_that_cannot_empty_itself_is_congested() {
        let (_pool, frames) = frames(40);
        let mut egress = Egress::default();
        for frame in frames {
            push(&mut egress, Some(frame), false).expect("room");
        }
        assert!(!egress.is_congested());
        egress.offer(|queue| drop(queue.drain(..2)));
        assert!(egress.is_congested());
        let sent = egress.offer(|queue| queue.clear());
        assert_eq!(sent, Sent { frames: 38, bytes: 3_800 });
        assert!(!egress.is_congested());
    }
}
