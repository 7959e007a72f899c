//! A bitmap of the queues that have work for one thread.
//!
//! Any thread sets the bit of a queue; the thread that serves the queues takes 64 bits with one
//! swap. So a thread with thousands of queues checks only those with work.
//!
//! The bits alone do not wake the thread: see [`crate::sleep`]. A queue's owner publishes its work,
//! sets the bit, and then wakes the thread if it sleeps. The thread sets its sleep flag, and then
//! checks [`ReadyBits::any`] once more.
//!
//! ```
//! let bits = strowger_frame::ready::ReadyBits::new(100);
//! bits.set(70);
//! assert!(bits.any(2));
//! assert_eq!((bits.take(0), bits.take(1)), (0, 1 << 6));
//! assert!(!bits.any(2));
//! ```

use crate::sync::{AtomicU64, Ordering};

/// The number of bits in a word.
pub const WORD_BITS: usize = 64;

/// One bit for each queue.
#[derive(Debug)]
pub struct ReadyBits {
    words: Box<[AtomicU64]>,
}

impl ReadyBits {
    /// Makes room for this many queues, rounded up to a multiple of 64. All bits are clear.
    pub fn new(queues: usize) -> Self {
        let words = queues.div_ceil(WORD_BITS).max(1);
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The number of queues for which there is room.
    pub fn capacity(&self) -> usize {
        self.words.len() * WORD_BITS
    }

    /// Sets the bit of a queue. Call it after the queue's work has been published. Numbers outside
    /// the bitmap are ignored.
    #[inline]
    pub fn set(&self, queue: usize) {
        if let Some(word) = self.words.get(queue / WORD_BITS) {
            // Release: pairs with Acquire in `take`: the work is published before the bit is read.
            word.fetch_or(1 << (queue % WORD_BITS), Ordering::Release);
        }
    }

    /// Takes the bits of a word and clears them. Bit `n` of word `w` is that of queue `64 w + n`.
    #[inline]
    pub fn take(&self, word: usize) -> u64 {
        let Some(word) = self.words.get(word) else { return 0 };
        // Relaxed: a bit that is missed here is seen at the next call, or by `any`.
        if word.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        // Acquire: pairs with Release in `set`.
        word.swap(0, Ordering::Acquire)
    }

    /// Whether a bit of the first `words` words is set. A thread that is about to sleep calls it
    /// after it has set its sleep flag.
    #[inline]
    pub fn any(&self, words: usize) -> bool {
        // Relaxed: the fences of the sleep flag order it.
        self.words.iter().take(words).any(|word| word.load(Ordering::Relaxed) != 0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn bits_are_taken_once_and_by_word() {
        let bits = ReadyBits::new(65);
        assert_eq!(bits.capacity(), 128);
        for queue in [0, 63, 64, 127, 128, 1 << 40] {
            bits.set(queue);
        }
        assert_eq!(bits.take(0), 1 | 1 << 63);
        assert!(bits.any(2) && !bits.any(1));
        assert_eq!(bits.take(1), 1 | 1 << 63);
        assert_eq!((bits.take(0), bits.take(1), bits.take(2)), (0, 0, 0));
    }
}
