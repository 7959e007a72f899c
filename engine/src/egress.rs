//! Where frames wait at an exit, and what is refused when there is no room. It never sends: the
//! port does.

use arrayvec::ArrayVec;
use strowger_frame::{Burst, Frame, Mark};

use crate::{
    discard::Discard,
    limits::{EGRESS_CONTROL_FRAMES_MAX, EGRESS_MARK_FRAMES},
};

/// The queue of one exit: bounded, newest arrival refused, control apart from data (R12).
#[derive(Debug, Default)]
pub struct Egress {
    pub(crate) data: Burst,
    control: ArrayVec<Frame, EGRESS_CONTROL_FRAMES_MAX>,
    /// Frames that the port left here when it was last asked.
    left_behind: u16,
}

impl Egress {
    /// Whether there is a place for one more frame.
    #[inline]
    pub(crate) fn has_room(&self, is_control: bool) -> bool {
        if is_control { !self.control.is_full() } else { !self.data.is_full() }
    }

    /// Puts a frame at the end, under another mark.
    ///
    /// The mark is written where the frame has come to lie: writing it just before the move would
    /// stall the move on the write.
    #[inline]
    pub(crate) fn push(
        &mut self,
        frame: Frame,
        mark: Mark,
        is_control: bool,
    ) -> Result<(), (Discard, Frame)> {
        fn at_end<const N: usize>(
            queue: &mut ArrayVec<Frame, N>,
            frame: Frame,
            mark: Mark,
        ) -> Result<(), (Discard, Frame)> {
            let placed = queue.try_push(frame);
            if let (Ok(()), Some(last)) = (&placed, queue.last_mut()) {
                last.set_mark(mark);
            }
            placed.map_err(|full| (Discard::EgressFull, full.element()))
        }
        if is_control {
            at_end(&mut self.control, frame, mark)
        } else {
            at_end(&mut self.data, frame, mark)
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

    #[test]
    fn a_full_exit_refuses_the_newest_and_still_takes_control() {
        let (_pool, mut frames) = frames(70);
        let mut egress = Egress::default();
        for _ in 0..64 {
            egress.push(frames.pop().expect("70"), Mark(0), false).expect("64 places");
        }
        let refused = egress.push(frames.pop().expect("70"), Mark(0), false);
        assert_eq!(refused.map_err(|(why, _)| why), Err(Discard::EgressFull));
        assert!(!egress.has_room(false));
        egress
            .push(frames.pop().expect("70"), Mark(0), true)
            .expect("control has places of its own");
        assert_eq!(egress.waiting(), 65);
    }

    #[test]
    fn control_goes_first_and_data_waits_for_it() {
        let (_pool, mut frames) = frames(4);
        let mut egress = Egress::default();
        let mut control = frames.pop().expect("4");
        control.bytes_mut()[0] = 0xcc;
        egress.push(frames.pop().expect("4"), Mark(0), false).expect("room");
        egress.push(control, Mark(0), true).expect("room");
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
            egress.push(frame, Mark(0), false).expect("room");
        }
        assert!(!egress.is_congested());
        egress.offer(|queue| drop(queue.drain(..2)));
        assert!(egress.is_congested());
        let sent = egress.offer(|queue| queue.clear());
        assert_eq!(sent, Sent { frames: 38, bytes: 3_800 });
        assert!(!egress.is_congested());
    }
}
