//! Counts the train chunks that the frames of a queue pin. It does not hold the frames.

use std::{collections::VecDeque, num::NonZeroUsize};

use strowger_frame::Frame;

/// Counts the train chunks in a FIFO queue, whose frames have consecutive numbers.
///
/// A short queue cannot pin too many chunks, so its frames are not examined: each counts as one
/// chunk. In a longer queue, consecutive frames of one chunk count as one chunk.
#[derive(Debug)]
pub(crate) struct Pinned {
    /// For each counted chunk, the number of its last frame.
    last_frames: VecDeque<u64>,
    newest: Option<NonZeroUsize>,
    /// The frames with this number and above have been examined.
    counted_from: u64,
    max: usize,
}

impl Pinned {
    /// Makes the counter for a queue that may hold `max` train chunks.
    pub(crate) fn new(max: usize) -> Self {
        Self { last_frames: VecDeque::with_capacity(max), newest: None, counted_from: 0, max }
    }

    /// Whether a queue of this many frames is short: at most half of the maximum number of chunks.
    #[inline]
    pub(crate) fn are_few(&self, frames: u64) -> bool {
        frames <= self.max as u64 / 2
    }

    /// Records that the frames before this number were queued without examination.
    #[inline]
    pub(crate) fn pass(&mut self, number: u64) {
        self.counted_from = number;
        self.last_frames.clear();
    }

    /// Counts frames that are about to be queued. The first of them has number `put`. Frames before
    /// `left` have left the queue.
    ///
    /// Returns how many of `frames` may enter, and counts only those.
    #[cold]
    pub(crate) fn enter(&mut self, frames: &[Frame], put: u64, left: u64) -> usize {
        self.leave(left);
        for (number, frame) in (put..).zip(frames) {
            let chunk = frame.train_chunk();
            if chunk.is_none() {
                continue;
            }
            if chunk == self.newest
                && let Some(last) = self.last_frames.back_mut()
            {
                *last = number;
                continue;
            }
            if self.held(left) >= self.max {
                return (number - put) as usize;
            }
            self.last_frames.push_back(number);
            self.newest = chunk;
        }
        frames.len()
    }

    /// Whether the queue has no room for another chunk. Frames before `left` have left the queue.
    pub(crate) fn is_full(&self, left: u64) -> bool {
        let gone = self.last_frames.partition_point(|last| *last < left);
        self.held(left) - gone >= self.max
    }

    fn held(&self, left: u64) -> usize {
        self.last_frames.len() + self.counted_from.saturating_sub(left) as usize
    }

    fn leave(&mut self, left: u64) {
        while self.last_frames.front().is_some_and(|last| *last < left) {
            self.last_frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use strowger_frame::{ChunkClass, Pool, PoolSpec};

    use super::*;

    #[test]
    fn chunks_are_counted_once_each_and_until_their_last_frame_has_left() {
        let spec = PoolSpec { trains: 4, singles: 1, huge_pages: false };
        let mut pool = Pool::new(&spec).unwrap();
        let mut frames: Vec<Frame> = Vec::new();
        for _ in 0..2 {
            let mut train = pool.take(ChunkClass::Train).unwrap().into_train(256, 30, 10);
            frames.extend(std::iter::from_fn(|| train.next_frame()));
        }
        frames.push(pool.take(ChunkClass::Single).unwrap().into_frame(256, 10));
        frames.extend((0..2).map(|_| pool.take(ChunkClass::Train).unwrap().into_frame(256, 10)));
        let mut pinned = Pinned::new(2);
        assert_eq!(pinned.enter(&frames, 0, 0), 7, "two chunks, and a single one");
        for left in [0, 2] {
            assert!(pinned.is_full(left));
            assert_eq!(pinned.enter(&frames[7..], 7, left), 0);
        }
        assert!(!pinned.is_full(3));
        assert_eq!(pinned.enter(&frames[7..], 7, 3), 1);
        assert_eq!(pinned.enter(&frames[8..], 8, 3), 0);
        assert_eq!(pinned.enter(&frames[8..], 8, 8), 1);
    }

    #[test]
    fn frames_that_were_not_looked_at_count_for_a_chunk_each() {
        let spec = PoolSpec { trains: 5, singles: 0, huge_pages: false };
        let mut pool = Pool::new(&spec).unwrap();
        let frames: Vec<Frame> =
            (0..5).map(|_| pool.take(ChunkClass::Train).unwrap().into_frame(256, 10)).collect();
        let mut pinned = Pinned::new(4);
        assert!(pinned.are_few(2) && !pinned.are_few(3));
        pinned.pass(2);
        assert_eq!(pinned.enter(&frames[2..], 2, 0), 2);
        assert!(pinned.is_full(0) && !pinned.is_full(1));
        assert_eq!(pinned.enter(&frames[4..], 4, 1), 1);
    }
}
