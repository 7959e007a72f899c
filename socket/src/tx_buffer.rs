//! Buffers for messages to send.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use strowger_frame::{Burst, Frame, Train, ring::Consumer};

use crate::{
    limits::{FIRST_HEADROOM, TAILROOM},
    message::Hold,
};

/// Cuts frames from the chunks that the driver supplies.
///
/// Frames that are cut in succession stay adjacent after connection and link have sealed them: a
/// frame has exactly the headroom for its headers and the tailroom for its two tags. A port sends
/// adjacent frames of one length as one train.
pub(crate) struct Carver {
    chunks: Consumer<Train>,
    current: Option<Train>,
    /// Whether no frame was cut from `current` yet.
    is_fresh: bool,
}

impl Carver {
    pub(crate) fn new(chunks: Consumer<Train>) -> Self {
        Self { chunks, current: None, is_fresh: false }
    }

    fn next_chunk(&mut self) -> Option<()> {
        // Release the rest of the old chunk even if there is no new one, so that the driver gets
        // the chunk back.
        self.current = None;
        self.current = Some(self.chunks.pop()?);
        self.is_fresh = true;
        Some(())
    }

    fn cut(&mut self, headers: usize, len: usize) -> Option<Frame> {
        let headroom = if self.is_fresh { FIRST_HEADROOM } else { headers };
        let frame = self.current.as_mut()?.carve(headroom, len, TAILROOM)?;
        self.is_fresh = false;
        Some(frame)
    }

    /// Cuts a frame of `len` bytes. `headers` are the bytes of all headers of its packet.
    #[inline]
    pub(crate) fn frame(&mut self, headers: usize, len: usize) -> Option<Frame> {
        loop {
            match self.cut(headers, len) {
                Some(frame) => return Some(frame),
                None => self.next_chunk()?,
            }
        }
    }

    /// Cuts `n` adjacent frames of `len` bytes from one chunk.
    pub(crate) fn frames(&mut self, headers: usize, len: usize, n: usize) -> Option<Burst> {
        let first = |fresh: bool| if fresh { FIRST_HEADROOM } else { headers };
        loop {
            let left = self.current.as_ref().map_or(0, Train::remaining);
            let wanted = first(self.is_fresh) + n * (headers + len + TAILROOM);
            if wanted < left {
                return (0..n).map(|_| self.cut(headers, len)).collect();
            }
            self.next_chunk()?;
        }
    }
}

/// An empty frame that the program fills and sends without a copy. Its initial content is
/// arbitrary.
pub struct TxBuffer {
    pub(crate) frame: Frame,
    pub(crate) hold: Arc<Hold>,
}

impl Deref for TxBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.frame.bytes()
    }
}

impl DerefMut for TxBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.frame.bytes_mut()
    }
}

impl TxBuffer {
    /// Shortens the message to `len` bytes, if it is longer.
    pub fn truncate(&mut self, len: usize) {
        self.frame.truncate(len);
    }
}

impl std::fmt::Debug for TxBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TxBuffer").field("bytes", &self.len()).finish_non_exhaustive()
    }
}

/// Empty frames of one length, adjacent in memory. Sealed frames stay adjacent, so that a port
/// sends them as one train.
pub struct TxBuffers {
    pub(crate) frames: Burst,
    pub(crate) _hold: Arc<Hold>,
}

impl TxBuffers {
    /// The number of buffers.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is no buffer.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The buffers, in the order in which they are sent.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [u8]> {
        self.frames.iter_mut().map(Frame::bytes_mut)
    }

    /// Drops all buffers but the first `n`.
    pub fn truncate(&mut self, n: usize) {
        self.frames.truncate(n);
    }

    /// Shortens the message in the last buffer to `len` bytes, if it is longer. The last frame of a
    /// train may be shorter than the others.
    pub fn truncate_last(&mut self, len: usize) {
        if let Some(last) = self.frames.last_mut() {
            last.truncate(len);
        }
    }
}

impl std::fmt::Debug for TxBuffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TxBuffers").field("buffers", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use strowger_frame::{ChunkClass, Pool, PoolSpec, ring};

    use super::*;

    const HEADERS: usize = 41;

    fn carver(chunks: u32) -> (Pool, Carver) {
        let spec = PoolSpec { trains: chunks, singles: 0, huge_pages: false };
        let mut pool = Pool::new(&spec).expect("memory");
        let (mut producer, consumer) = ring::ring(4);
        while let Some(chunk) = pool.take(ChunkClass::Train) {
            producer.push(chunk.into_carving()).expect("room");
        }
        (pool, Carver::new(consumer))
    }

    /// Adds headers and tags to a frame, as connection and link do.
    fn seal(frame: &mut Frame) {
        assert!(frame.grow_front(HEADERS) && frame.grow_back(TAILROOM));
    }

    #[test]
    fn frames_are_contiguous_after_both_seals() {
        let (_pool, mut carver) = carver(2);
        let mut train = carver.frames(HEADERS, 1_000, 32).expect("a chunk");
        train.push(carver.frame(HEADERS, 1_000).expect("the same chunk"));
        train.iter_mut().for_each(seal);
        assert!(train.windows(2).all(|pair| pair[0].adjoins(&pair[1])));
    }

    #[test]
    fn a_train_that_does_not_fit_takes_the_next_chunk() {
        let (_pool, mut carver) = carver(2);
        let first = carver.frames(HEADERS, 1_400, 40).expect("a chunk");
        let second = carver.frames(HEADERS, 1_400, 40).expect("the next chunk");
        assert!(!first[39].adjoins(&second[0]));
        assert!(carver.frames(HEADERS, 1_400, 40).is_none(), "there are two chunks");
        drop((first, second));
    }
}
