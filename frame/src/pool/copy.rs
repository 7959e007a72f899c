//! Copies of frames, and the move of waiting frames out of chunks that other users need.
//! `frames_copied` counts all copies.

use super::{ChunkClass, HEADROOM_BYTES, Pool, SINGLE_STRIDE_BYTES};
use crate::{
    frame::Frame,
    reserve::{PoolUser, QueueShare},
};

impl Pool {
    /// Copies `frame` and its mark into a new chunk. Returns `None` if the pool has no free chunk.
    pub fn copy(&mut self, frame: &Frame) -> Option<Frame> {
        let mut copy = self.copy_bytes(frame.bytes())?;
        copy.set_mark(frame.mark());
        Some(copy)
    }

    /// As [`copy`](Self::copy), for bytes that are not in a frame. The copy has the mark 0.
    ///
    /// # Panics
    /// If the bytes are more than a frame can hold.
    pub fn copy_bytes(&mut self, bytes: &[u8]) -> Option<Frame> {
        let single = bytes.len() + HEADROOM_BYTES <= SINGLE_STRIDE_BYTES;
        let user = self.user;
        let copy = if single { self.copy_into(user, ChunkClass::Single, bytes) } else { None };
        copy.or_else(|| self.copy_into(user, ChunkClass::Train, bytes))
    }

    fn copy_into(&mut self, user: PoolUser, class: ChunkClass, bytes: &[u8]) -> Option<Frame> {
        let mut chunk = self.take_for(user, class)?;
        let start = HEADROOM_BYTES;
        chunk.bytes_mut()[start..start + bytes.len()].copy_from_slice(bytes);
        self.tally.frames_copied.add(1);
        Some(chunk.into_frame(start, bytes.len()))
    }

    /// Moves a frame that may wait for long out of the chunks into which ports receive.
    ///
    /// The right chunk is a single chunk of this pool or, if the frame is too long for one, a train
    /// chunk. A frame in the right chunk stays in place; any other frame is copied into one. The
    /// chunk is charged to [`PoolUser::WAITING`] from now on. Returns `false` if no chunk is left
    /// for the frame; the caller then drops it.
    ///
    /// `share` counts the parked frames of the queue. A queue gets at most half of the chunks that
    /// are left. If a queue does not drain, it gives up chunks for queues that drain: this function
    /// then returns `false` for its parked frames also.
    #[cold]
    pub fn park(&mut self, frame: &mut Frame, share: &mut QueueShare) -> bool {
        let chunk = frame.chunk();
        let ours = chunk.is_of(self.state.as_ptr());
        let index = chunk.index() as usize;
        if ours && self.users[index] == PoolUser::WAITING {
            let reserve = self.class(chunk.class()).1;
            let left = reserve.unused(PoolUser::WAITING) as usize + share.dropped;
            let is_kept = left >= share.leaves(reserve);
            share.held += usize::from(is_kept);
            share.dropped += usize::from(!is_kept);
            return is_kept;
        }
        let fits = frame.len() + HEADROOM_BYTES <= SINGLE_STRIDE_BYTES;
        let into = if fits { ChunkClass::Single } else { ChunkClass::Train };
        let reserve = self.class(into).1;
        let left = reserve.unused(PoolUser::WAITING) as usize;
        if left <= share.held + share.leaves(reserve) {
            return false;
        }
        if ours && chunk.class() == into {
            // A train chunk may hold other frames. It is charged once, to the waiting frames.
            self.recharge(index, into, PoolUser::WAITING);
        } else {
            let Some(mut copy) = self.copy_into(PoolUser::WAITING, into, frame.bytes()) else {
                return false;
            };
            copy.set_mark(frame.mark());
            *frame = copy;
        }
        share.held += 1;
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{Chunks, PoolSpec};
    use super::*;

    fn pool(trains: u32, singles: u32) -> Pool {
        Pool::new(&PoolSpec { trains, singles, huge_pages: false }).expect("memory")
    }

    #[test]
    fn a_copy_equals_its_frame_and_is_counted() {
        let mut pool = pool(1, 1);
        let mut frame = pool.take(ChunkClass::Train).expect("free").into_frame(256, 5);
        frame.bytes_mut().copy_from_slice(b"label");
        frame.set_mark(crate::Mark(9));
        let copy = pool.copy(&frame).expect("room");
        assert_eq!((copy.bytes(), copy.mark()), (&b"label"[..], crate::Mark(9)));
        assert_ne!(copy.bytes().as_ptr(), frame.bytes().as_ptr());
        assert_eq!(pool.tally().frames_copied.read(), 1);
    }

    fn waiting(pool: &mut Pool, trains: u32, singles: u32) {
        let floor = Chunks { trains, singles };
        assert_eq!(pool.reserve(PoolUser::WAITING, floor), floor);
    }

    /// Makes the share of a queue that will be empty soon.
    fn draining() -> QueueShare {
        QueueShare::new(usize::MAX, 0)
    }

    fn frame(pool: &mut Pool, class: ChunkClass, len: usize, byte: u8) -> Frame {
        let mut frame = pool.take(class).expect("free").into_frame(300, len);
        frame.bytes_mut().fill(byte);
        frame.set_mark(crate::Mark(u32::from(byte)));
        frame
    }

    #[test]
    fn parking_copies_a_frame_and_returns_its_train_chunk() {
        let mut pool = pool(4, 68);
        waiting(&mut pool, 0, 2);
        let mut share = draining();
        let mut parked = frame(&mut pool, ChunkClass::Train, 1400, 9);
        assert!(pool.park(&mut parked, &mut share));
        assert_eq!((parked.bytes(), parked.mark()), (&[9; 1400][..], crate::Mark(9)));
        assert_eq!((pool.free(ChunkClass::Train), pool.free(ChunkClass::Single)), (4, 67));
        assert!(parked.headroom() >= 64, "a port may write its header in front");
        // Parked frames are not copied again.
        share = draining();
        let at = parked.bytes().as_ptr();
        assert!(pool.park(&mut parked, &mut share));
        assert_eq!(
            (share.held, parked.bytes().as_ptr(), pool.tally().frames_copied.read()),
            (1, at, 1)
        );
        drop(parked);
        assert_eq!(
            (pool.free(ChunkClass::Single), pool.singles.unused(PoolUser::WAITING)),
            (68, 2)
        );
    }

    #[test]
    fn parking_recharges_a_single_chunk_without_a_copy() {
        let mut pool = pool(0, 72);
        waiting(&mut pool, 0, 4);
        pool.reserve(PoolUser::port(3), Chunks { trains: 0, singles: 2 });
        pool.set_user(PoolUser::port(3));
        let mut kept = Vec::new();
        // The port takes all the chunks that it can: those of its floor, and the unreserved ones.
        while let Some(chunk) = pool.take(ChunkClass::Single) {
            kept.push(chunk.into_frame(256, 100));
        }
        assert_eq!(kept.len(), 68);
        for frame in &mut kept[..2] {
            let at = frame.bytes().as_ptr();
            assert!(pool.park(frame, &mut draining()));
            assert_eq!(frame.bytes().as_ptr(), at);
        }
        assert_eq!(pool.tally().frames_copied.read(), 0);
        assert!(pool.take(ChunkClass::Single).is_some(), "the port has two fewer");
    }

    #[test]
    fn a_queue_gets_at_most_half_of_what_is_left() {
        let mut pool = pool(40, 76);
        waiting(&mut pool, 0, 12);
        let mut parked = Vec::new();
        let mut queue = |pool: &mut Pool| {
            let mut share = draining();
            loop {
                let mut one = frame(pool, ChunkClass::Train, 100, 1);
                if !pool.park(&mut one, &mut share) {
                    return share.held;
                }
                parked.push(one);
            }
        };
        assert_eq!([(); 4].map(|()| queue(&mut pool)), [6, 3, 2, 1]);
        assert_eq!(queue(&mut pool), 0, "nothing is left");
        assert_eq!(pool.free(ChunkClass::Train), 40);
    }

    #[test]
    fn a_queue_that_does_not_drain_gives_way_to_one_that_does() {
        let mut pool = pool(80, 80);
        waiting(&mut pool, 0, 16);
        let park = |pool: &mut Pool, queue: &mut Vec<Frame>, drains: usize, more: usize| {
            queue.extend((0..more).map(|_| frame(pool, ChunkClass::Train, 100, 1)));
            let mut share = QueueShare::new(drains, 6);
            queue.retain_mut(|one| pool.park(one, &mut share));
            pool.reclaim();
            queue.len()
        };
        let (mut stuck, mut other, mut drains) = (Vec::new(), Vec::new(), Vec::new());
        // Ten of the 16 chunks are not spared. The first queue gets half of the ten, the next queue
        // half of the rest, rounded up.
        assert_eq!(park(&mut pool, &mut stuck, 0, 20), 5);
        assert_eq!(park(&mut pool, &mut other, 0, 20), 3);
        // A queue that drains gets up to the number of frames that it drains, and leaves at least
        // as many chunks to others as it holds.
        assert_eq!(park(&mut pool, &mut drains, 3, 20), 3);
        assert_eq!(park(&mut pool, &mut drains, 20, 20), 4);
        // Four chunks are free, so a stuck queue gives up chunks until six are free.
        assert_eq!(pool.singles.unused(PoolUser::WAITING), 4);
        assert_eq!(park(&mut pool, &mut stuck, 0, 0), 3);
        assert_eq!(park(&mut pool, &mut other, 0, 0), 3);
        assert_eq!(park(&mut pool, &mut drains, 20, 0), 4);
        // A queue that has stopped draining gets no more chunks until others return some.
        assert_eq!(park(&mut pool, &mut drains, 0, 5), 4);
        drop((stuck, other));
        pool.reclaim();
        assert_eq!(park(&mut pool, &mut drains, 0, 5), 5);
        assert_eq!(pool.singles.unused(PoolUser::WAITING), 11);
    }

    #[test]
    fn half_of_a_small_reserve_is_spared() {
        let mut pool = pool(80, 80);
        waiting(&mut pool, 0, 8);
        let mut share = QueueShare::new(0, 128);
        let mut all: Vec<_> = (0..8).map(|_| frame(&mut pool, ChunkClass::Train, 100, 1)).collect();
        all.retain_mut(|one| pool.park(one, &mut share));
        assert_eq!(all.len(), 2, "four of eight, and as many left as it has");
    }

    #[test]
    fn a_long_frame_is_parked_in_a_train_chunk() {
        let mut pools = Pool::group(&PoolSpec { trains: 66, singles: 65, huge_pages: false }, 2)
            .expect("memory");
        let (mut theirs, mut ours) = (pools.remove(0), pools.remove(0));
        waiting(&mut ours, 2, 1);
        let mut long = frame(&mut ours, ChunkClass::Train, 9000, 1);
        let at = long.bytes().as_ptr();
        assert!(ours.park(&mut long, &mut draining()));
        assert_eq!((long.bytes().as_ptr(), ours.tally().frames_copied.read()), (at, 0));
        // A frame of another pool is copied, whatever its length.
        for len in [9000, 100] {
            let mut other = frame(&mut theirs, ChunkClass::Train, len, 2);
            assert!(ours.park(&mut other, &mut draining()));
            assert_eq!((other.bytes(), theirs.free(ChunkClass::Train)), (&vec![2; len][..], 66));
            assert!(
                !ours.park(&mut frame(&mut theirs, ChunkClass::Train, len, 2), &mut draining())
            );
            drop(other);
        }
    }

    #[test]
    fn all_pools_of_a_mapping_see_that_one_runs_low() {
        let mut pools = Pool::group(&PoolSpec { trains: 16, singles: 0, huge_pages: false }, 2)
            .expect("memory");
        let (mut one, mut other) = (pools.remove(0), pools.remove(0));
        let mut taken: Vec<_> =
            (0..14).map(|_| one.take(ChunkClass::Train).expect("of 16")).collect();
        one.reclaim();
        other.reclaim();
        assert!(one.is_low() && other.is_low());
        assert!(one.take_ran_low() && !one.take_ran_low() && !other.take_ran_low());
        taken.truncate(8);
        one.reclaim();
        assert!(!one.is_low() && !other.is_low() && !one.take_ran_low());
        taken.extend(std::iter::from_fn(|| one.take(ChunkClass::Train)));
        one.reclaim();
        assert!(other.is_low());
        drop(one);
        assert!(!other.is_low(), "a dropped pool is not low");
    }
}
