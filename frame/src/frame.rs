//! Frames, each of which owns the bytes of one packet, and trains of frames in one chunk.
//!
//! The frames of a train share a chunk, but no bytes.

use std::{mem, ptr::NonNull};

use crate::pool::ChunkRef;

/// The tag of a frame: the neighbour from which a port received the frame, or to which the frame is
/// sent.
///
/// The port's owner chooses the marks. The port sets the neighbour's mark on each frame that it
/// receives from that neighbour. The low 16 bits are a small index for tables. The high 16 bits are
/// a generation, so that a frame with an old mark is not attributed to a later neighbour with the
/// same index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark(pub u32);

impl Mark {
    /// Makes the mark with this index and generation.
    #[inline]
    pub const fn new(index: u16, generation: u16) -> Self {
        Self((generation as u32) << 16 | index as u32)
    }

    /// The index for tables.
    #[inline]
    pub const fn index(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    /// The mark of a frame from an address that belongs to no neighbour.
    ///
    /// A port uses this mark if [`Port::accept_unknown`](crate::Port::accept_unknown) is on.
    /// `number` distinguishes such senders within one burst.
    #[inline]
    pub const fn unknown(number: u8) -> Self {
        Self::new(Self::UNKNOWN_FROM | number as u16, 0)
    }

    /// Whether the mark is that of an unknown sender.
    #[inline]
    pub const fn is_unknown(self) -> bool {
        self.index() >= Self::UNKNOWN_FROM as usize
    }

    /// The first of the 256 indices of unknown senders. No neighbour has one of these indices.
    const UNKNOWN_FROM: u16 = 0xff00;

    /// The number of earlier uses of the index, modulo 2^16.
    #[inline]
    pub const fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// A handle of 32 bytes to one packet in a chunk. Dropping it releases the packet's bytes.
pub struct Frame {
    at: NonNull<u8>,
    chunk: ChunkRef,
    len: u16,
    headroom: u16,
    tailroom: u16,
    mark: Mark,
}

const _: () = assert!(mem::size_of::<Frame>() == 32);

// SAFETY: a frame owns the bytes it spans; frames of one chunk share only an atomic count.
unsafe impl Send for Frame {}
// SAFETY: `&Frame` reads bytes that no other thread can write meanwhile.
unsafe impl Sync for Frame {}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("chunk", &self.chunk.index())
            .field("len", &self.len)
            .field("mark", &self.mark)
            .finish_non_exhaustive()
    }
}

impl Frame {
    /// The length of the packet, in bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // `is_empty` follows below; the lint wants it adjacent
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the frame has no bytes. An empty datagram is a frame too.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The packet's bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes from `at` lie in the chunk, are initialised, and belong to this
        // frame.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len()) }
    }

    /// The packet's bytes, which the caller may rewrite in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len()) }
    }

    /// The number of bytes in front of the packet that belong to this frame.
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.headroom)
    }

    /// The number of bytes behind the packet that belong to this frame.
    #[inline]
    pub fn tailroom(&self) -> usize {
        usize::from(self.tailroom)
    }

    /// The neighbour from which the frame was received or to which it is sent.
    #[inline]
    pub fn mark(&self) -> Mark {
        self.mark
    }

    #[inline]
    pub(crate) fn chunk(&self) -> ChunkRef {
        self.chunk
    }

    /// Sets the neighbour from which the frame was received or to which it is sent.
    #[inline]
    pub fn set_mark(&mut self, mark: Mark) {
        self.mark = mark;
    }

    /// Removes up to `n` bytes at the front; they become headroom.
    #[inline]
    pub fn shrink_front(&mut self, n: usize) {
        let n = n.min(self.len());
        // SAFETY: `n` is at most `len`, so the result lies in, or one past, this frame's bytes.
        self.at = unsafe { self.at.add(n) };
        self.len -= n as u16;
        self.headroom = self.headroom.saturating_add(n as u16);
    }

    /// Adds `n` bytes with arbitrary contents at the front.
    ///
    /// Returns `false` and changes nothing if the headroom is too short or the packet would be
    /// longer than 65,535 bytes.
    #[inline]
    #[must_use]
    pub fn grow_front(&mut self, n: usize) -> bool {
        if n > self.headroom() || n > usize::from(u16::MAX) - self.len() {
            return false;
        }
        // SAFETY: `headroom` bytes in front of `at` lie in the chunk and belong to this frame.
        self.at = unsafe { self.at.sub(n) };
        self.len += n as u16;
        self.headroom -= n as u16;
        true
    }

    /// Shortens the packet to `len` bytes, if it is longer; the rest becomes tailroom.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.tailroom = self.tailroom.saturating_add(self.len - len as u16);
            self.len = len as u16;
        }
    }

    /// Adds `n` bytes with arbitrary contents at the end.
    ///
    /// Returns `false` and changes nothing if the tailroom is too short or the packet would be
    /// longer than 65,535 bytes.
    #[inline]
    #[must_use]
    pub fn grow_back(&mut self, n: usize) -> bool {
        if n > self.tailroom() || n > usize::from(u16::MAX) - self.len() {
            return false;
        }
        self.len += n as u16;
        self.tailroom -= n as u16;
        true
    }

    /// A number that identifies the frame's train chunk in this process. `None` for a single chunk.
    ///
    /// With this number, a queue can count the train chunks that its frames hold.
    #[inline]
    pub fn train_chunk(&self) -> Option<std::num::NonZeroUsize> {
        self.chunk.train()
    }

    /// Whether `next` starts where this frame ends, in the same chunk. If so, one I/O vector can
    /// span both.
    #[inline]
    pub fn adjoins(&self, next: &Self) -> bool {
        // This compares addresses and dereferences no pointer.
        self.chunk == next.chunk
            && self.at.as_ptr().wrapping_add(self.len()).addr() == next.at.as_ptr().addr()
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        self.chunk.release(1);
    }
}

/// The chunk references of frames in transmission, whose bytes the kernel still reads. Dropping
/// this value releases the references.
///
/// All its references are to one chunk, so that one atomic operation releases them.
pub struct HeldFrames {
    chunk: ChunkRef,
    refs: u32,
}

// SAFETY: it owns references to a chunk, which an atomic counts, and it reads no byte.
unsafe impl Send for HeldFrames {}

impl std::fmt::Debug for HeldFrames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldFrames").field("frames", &self.refs).finish_non_exhaustive()
    }
}

impl HeldFrames {
    /// Takes over a frame's reference to its chunk.
    #[inline]
    pub fn new(frame: Frame) -> Self {
        Self { chunk: mem::ManuallyDrop::new(frame).chunk, refs: 1 }
    }

    /// Takes over the reference of another frame in the same chunk.
    ///
    /// # Errors
    /// Returns the frame if it lies in another chunk.
    #[inline]
    pub fn join(&mut self, frame: Frame) -> Result<(), Frame> {
        if frame.chunk != self.chunk {
            return Err(frame);
        }
        // This value takes over the reference; a chunk has fewer than 2^32 of them.
        mem::forget(frame);
        self.refs += 1;
        Ok(())
    }
}

impl Drop for HeldFrames {
    #[inline]
    fn drop(&mut self) {
        self.chunk.release(self.refs);
    }
}

/// The part of a chunk that is not yet cut into frames. Dropping it releases that part.
pub struct Train {
    chunk: ChunkRef,
    at: NonNull<u8>,
    headroom: u32,
    left: u32,
    segment: u32,
    tailroom: u32,
    /// The number of references to the chunk that are not yet assigned to a frame.
    refs: u32,
    mark: Mark,
}

// SAFETY: as for `Frame`: it owns the bytes not yet cut off.
unsafe impl Send for Train {}

impl std::fmt::Debug for Train {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Train").field("left", &self.left).finish_non_exhaustive()
    }
}

fn room16(bytes: u32) -> u16 {
    bytes.min(u32::from(u16::MAX) / 2) as u16
}

impl Train {
    #[inline]
    #[allow(clippy::too_many_arguments)] // one private caller, seven different numbers
    pub(crate) fn new(
        chunk: ChunkRef,
        at: NonNull<u8>,
        headroom: usize,
        left: usize,
        segment: usize,
        tailroom: usize,
        refs: u32,
    ) -> Self {
        // A chunk and each of its parts are shorter than 2^32 bytes.
        Self {
            chunk,
            at,
            headroom: headroom as u32,
            left: left as u32,
            segment: segment as u32,
            tailroom: tailroom as u32,
            refs,
            mark: Mark::default(),
        }
    }

    /// Sets the mark of all frames that are cut after this call.
    #[inline]
    #[must_use]
    pub fn with_mark(mut self, mark: Mark) -> Self {
        self.mark = mark;
        self
    }

    /// The number of bytes that are not yet cut off.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.left as usize
    }

    /// Cuts off the next frame: `segment` bytes, or all remaining bytes if there are fewer. Returns
    /// `None` if no bytes remain, or if the train is to be cut with `carve`.
    #[inline]
    pub fn next_frame(&mut self) -> Option<Frame> {
        if self.left == 0 || self.refs == 0 || self.segment == 0 {
            return None;
        }
        let len = self.segment.min(self.left);
        let frame = Frame {
            at: self.at,
            chunk: self.chunk,
            len: len as u16,
            headroom: room16(self.headroom),
            tailroom: if len == self.left { room16(self.tailroom) } else { 0 },
            mark: self.mark,
        };
        self.refs -= 1;
        self.left -= len;
        self.headroom = 0;
        // SAFETY: `len` is at most `left`, so the result lies in, or one past, the train's bytes.
        self.at = unsafe { self.at.add(len as usize) };
        Some(frame)
    }

    /// Cuts off a frame of `len` bytes with `headroom` bytes in front of it and `tailroom` behind
    /// it.
    ///
    /// Returns `None` if fewer bytes remain or if one of the numbers is above 65,535. Use it for a
    /// train from [`crate::Chunk::into_carving`].
    #[inline]
    pub fn carve(&mut self, headroom: usize, len: usize, tailroom: usize) -> Option<Frame> {
        let rooms_fit = headroom <= usize::from(u16::MAX) && tailroom <= usize::from(u16::MAX);
        let total = headroom.checked_add(len)?.checked_add(tailroom)?;
        if !rooms_fit || len > usize::from(u16::MAX) || total > self.remaining() || self.refs <= 1 {
            return None;
        }
        // SAFETY: `headroom + len + tailroom` bytes remain from `at` on.
        let at = unsafe { self.at.add(headroom) };
        // SAFETY: as above: at most one past the train's bytes.
        self.at = unsafe { self.at.add(total) };
        self.left -= total as u32;
        self.refs -= 1;
        let (headroom, tailroom) = (headroom as u16, tailroom as u16);
        Some(Frame { at, chunk: self.chunk, len: len as u16, headroom, tailroom, mark: self.mark })
    }

    /// Splits off the next `bytes` bytes as another train, which another owner cuts with `carve`.
    /// The chunk returns to its pool after both trains and all their frames were dropped.
    ///
    /// Returns `None` if not more than `bytes` bytes remain. Use it for a train from
    /// [`crate::Chunk::into_carving`].
    pub fn split(&mut self, bytes: usize) -> Option<Self> {
        let part = u32::try_from(bytes).ok().filter(|part| *part > 0 && *part < self.left)?;
        // A train of `into_carving` has one reference for each byte, and a frame takes one only.
        if part >= self.refs {
            return None;
        }
        let at = self.at;
        // SAFETY: `part` is below `left`, so the result lies in the train's bytes.
        self.at = unsafe { at.add(bytes) };
        self.left -= part;
        self.refs -= part;
        let rest = Self::new(self.chunk, at, 0, bytes, 0, 0, part);
        Some(rest.with_mark(self.mark))
    }

    /// Returns the only frame of a train of 0 bytes: an empty frame.
    pub(crate) fn take_empty(&mut self) -> Frame {
        debug_assert_eq!((self.left, self.refs), (0, 1), "an empty train has one reference");
        self.refs = 0;
        Frame {
            at: self.at,
            chunk: self.chunk,
            len: 0,
            headroom: room16(self.headroom),
            tailroom: room16(self.tailroom),
            mark: self.mark,
        }
    }
}

impl Drop for Train {
    #[inline]
    fn drop(&mut self) {
        if self.refs > 0 {
            self.chunk.release(self.refs);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::{ChunkClass, Pool, PoolSpec};

    fn pool() -> Pool {
        Pool::new(&PoolSpec { trains: 2, singles: 1, huge_pages: false }).expect("memory")
    }

    #[test]
    fn a_train_yields_equal_frames_and_a_short_last_one() {
        let mut pool = pool();
        let mut train = pool.take(ChunkClass::Train).expect("free").into_train(300, 250, 100);
        let frames: Vec<_> = std::iter::from_fn(|| train.next_frame()).collect();
        assert_eq!(frames.iter().map(|f| f.len()).collect::<Vec<_>>(), [100, 100, 50]);
        assert!(frames[0].adjoins(&frames[1]) && frames[1].adjoins(&frames[2]));
        assert!(!frames[0].adjoins(&frames[2]));
        assert_eq!((frames[0].headroom(), frames[1].headroom()), (300, 0));
        assert_eq!(frames[0].tailroom(), 0);
        assert!(frames[2].tailroom() > 0);
    }

    #[test]
    fn a_frame_grows_only_into_its_headroom_and_tailroom() {
        let mut pool = pool();
        let mut frame = pool.take(ChunkClass::Single).expect("free").into_frame(16, 100);
        frame.bytes_mut()[0] = 0xab;
        assert!(!frame.grow_front(17));
        assert!(frame.grow_front(8));
        assert_eq!((frame.len(), frame.headroom()), (108, 8));
        frame.shrink_front(8);
        assert_eq!((frame.len(), frame.bytes()[0]), (100, 0xab));
        frame.truncate(60);
        assert!(frame.grow_back(40));
        assert!(!frame.grow_back(4096));
        assert_eq!(frame.len(), 100);
    }

    #[test]
    fn an_empty_datagram_is_a_frame() {
        let mut pool = pool();
        let frame = pool.take(ChunkClass::Single).expect("free").into_frame(256, 0);
        assert!(frame.is_empty());
        drop(frame);
        assert_eq!(pool.free(ChunkClass::Single), 1);
    }

    #[test]
    fn a_train_splits_into_parts_for_several_owners() {
        let mut pool = pool();
        let mut train = pool.take(ChunkClass::Train).expect("free").into_carving();
        let bytes = train.remaining();
        assert!(train.split(bytes).is_none() && train.split(0).is_none());
        let mut part = train.split(4096).expect("room");
        assert_eq!((part.remaining(), train.remaining()), (4096, bytes - 4096));
        let one = part.carve(64, 1000, 32).expect("room");
        assert!(part.carve(64, 4000, 32).is_none());
        let other = train.carve(0, 100, 0).expect("room");
        drop((part, train, one));
        assert_eq!(pool.free(ChunkClass::Train), 1);
        drop(other);
        assert_eq!(pool.free(ChunkClass::Train), 2);
    }

    #[test]
    fn carved_frames_share_a_chunk_and_return_it() {
        let mut pool = pool();
        let mut train = pool.take(ChunkClass::Train).expect("free").into_carving();
        let frames: Vec<_> = std::iter::from_fn(|| train.carve(64, 1000, 16)).collect();
        assert_eq!(frames.len(), crate::pool::TRAIN_STRIDE_BYTES / 1080);
        drop(train);
        assert_eq!(pool.free(ChunkClass::Train), 1);
        drop(frames);
        assert_eq!(pool.free(ChunkClass::Train), 2);
    }

    #[test]
    fn held_frames_return_their_chunk_together() {
        let mut pool = pool();
        let mut train = pool.take(ChunkClass::Train).expect("free").into_train(256, 300, 100);
        let frames: Vec<_> = std::iter::from_fn(|| train.next_frame()).collect();
        drop(train);
        let other = pool.take(ChunkClass::Single).expect("free").into_frame(256, 9);
        let mut frames = frames.into_iter();
        let mut held = super::HeldFrames::new(frames.next().expect("three"));
        assert!(held.join(frames.next().expect("three")).is_ok());
        assert_eq!(held.join(other).map_err(|frame| frame.len()), Err(9));
        let last = frames.next();
        drop(held);
        assert_eq!(pool.free(ChunkClass::Train), 1);
        drop(last);
        assert_eq!((pool.free(ChunkClass::Train), pool.free(ChunkClass::Single)), (2, 1));
    }

    #[test]
    fn frames_of_a_train_carry_its_mark() {
        let mut pool = pool();
        let train = pool.take(ChunkClass::Train).expect("free").into_train(256, 20, 10);
        let mut train = train.with_mark(crate::Mark(5));
        assert_eq!(train.next_frame().map(|f| f.mark()), Some(crate::Mark(5)));
    }
}
