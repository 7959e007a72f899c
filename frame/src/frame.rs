//! One packet in memory that we own, and trains of them in one chunk. A frame never copies its
//! bytes and never shares them: it shares only the chunk they lie in.

use std::{mem, ptr::NonNull};

use crate::pool::ChunkRef;

/// What a port's owner calls a neighbour behind that port: opaque to the port, which puts it on
/// every frame that it receives from that neighbour.
///
/// The low 16 bits are an index that the owner keeps small, for tables; the high 16 bits tell one
/// user of an index from the next, so that a frame still on its way under an old mark is never
/// taken for one of the new neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark(pub u32);

impl Mark {
    /// The mark with this index and this generation.
    #[inline]
    pub const fn new(index: u16, generation: u16) -> Self {
        Self((generation as u32) << 16 | index as u32)
    }

    /// Where a table keeps what belongs to this mark.
    #[inline]
    pub const fn index(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    /// The mark of a frame from an address that no neighbour has, where a port was told to hand
    /// those up ([`Port::accept_unknown`](crate::Port::accept_unknown)). `number` tells those
    /// of one burst apart.
    #[inline]
    pub const fn unknown(number: u8) -> Self {
        Self::new(Self::UNKNOWN_FROM | number as u16, 0)
    }

    /// Whether it is a stranger's.
    #[inline]
    pub const fn is_unknown(self) -> bool {
        self.index() >= Self::UNKNOWN_FROM as usize
    }

    /// Indices from here on are strangers': 256 of them, which no neighbour ever has.
    const UNKNOWN_FROM: u16 = 0xff00;

    /// How often the index had been used before.
    #[inline]
    pub const fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// One packet in memory: a handle of 32 bytes. Dropping it gives its memory back.
pub struct Frame {
    at: NonNull<u8>,
    chunk: ChunkRef,
    len: u16,
    headroom: u16,
    tailroom: u16,
    mark: Mark,
}

const _: () = assert!(mem::size_of::<Frame>() == 32);

// SAFETY: a frame is sole owner of the bytes it spans; what it shares with others of its chunk is
// an atomic count.
unsafe impl Send for Frame {}
// SAFETY: `&Frame` only reads bytes that nobody can write meanwhile.
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
    /// Length in bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // `is_empty` stands below; the lint wants it adjacent
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether it has no bytes: an empty datagram is a frame all the same.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The packet.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes from `at` lie in the chunk, are initialised, and belong to us.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len()) }
    }

    /// The packet, to be rewritten in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len()) }
    }

    /// Bytes in front that the frame may grow into: 0 inside a train.
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.headroom)
    }

    /// Bytes behind that the frame may grow into: 0 inside a train.
    #[inline]
    pub fn tailroom(&self) -> usize {
        usize::from(self.tailroom)
    }

    /// The neighbour it came from, or goes to.
    #[inline]
    pub fn mark(&self) -> Mark {
        self.mark
    }

    #[inline]
    pub(crate) fn chunk(&self) -> ChunkRef {
        self.chunk
    }

    /// Says which neighbour it came from, or goes to.
    #[inline]
    pub fn set_mark(&mut self, mark: Mark) {
        self.mark = mark;
    }

    /// Drops up to `n` bytes from the front into the headroom.
    #[inline]
    pub fn shrink_front(&mut self, n: usize) {
        let n = n.min(self.len());
        // SAFETY: `n` is at most `len`, so the result lies in, or one past, our bytes.
        self.at = unsafe { self.at.add(n) };
        self.len -= n as u16;
        self.headroom = self.headroom.saturating_add(n as u16);
    }

    /// Grows by `n` bytes in front, whose contents are whatever lay there; `false`, and nothing
    /// done, without the headroom.
    #[inline]
    #[must_use]
    pub fn grow_front(&mut self, n: usize) -> bool {
        if n > self.headroom() || n > usize::from(u16::MAX) - self.len() {
            return false;
        }
        // SAFETY: `headroom` bytes in front of `at` lie in the chunk and belong to us.
        self.at = unsafe { self.at.sub(n) };
        self.len += n as u16;
        self.headroom -= n as u16;
        true
    }

    /// Shortens to `len` bytes; what falls away becomes tailroom.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.tailroom = self.tailroom.saturating_add(self.len - len as u16);
            self.len = len as u16;
        }
    }

    /// Grows by `n` bytes behind, whose contents are whatever lay there; `false`, and nothing done,
    /// without the tailroom.
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

    /// A train chunk's number, unlike that of any other in the process; `None` for a single chunk.
    /// For counting how many train chunks a queue of frames holds: those of one chunk come together.
    #[inline]
    pub fn train_chunk(&self) -> Option<std::num::NonZeroUsize> {
        self.chunk.train()
    }

    /// Whether `next` begins where this one ends, in the same chunk: then one vector spans both.
    #[inline]
    pub fn adjoins(&self, next: &Self) -> bool {
        // Compared as addresses: neither is read through the other.
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

/// Memory of frames that are on their way out: the kernel still reads it, and nobody else asks for
/// the frames again. Frames of one chunk that leave together are held together, so that giving
/// them up costs one atomic operation and not one each. Dropping it gives the memory back.
pub struct HeldFrames {
    chunk: ChunkRef,
    refs: u32,
}

// SAFETY: it owns references of a chunk, which is all that frames share, and reads no byte.
unsafe impl Send for HeldFrames {}

impl std::fmt::Debug for HeldFrames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldFrames").field("frames", &self.refs).finish_non_exhaustive()
    }
}

impl HeldFrames {
    /// Holds a frame's memory.
    #[inline]
    pub fn new(frame: Frame) -> Self {
        Self { chunk: mem::ManuallyDrop::new(frame).chunk, refs: 1 }
    }

    /// Holds one more frame of the same chunk.
    ///
    /// # Errors
    /// The frame itself, when it lies in another chunk.
    #[inline]
    pub fn join(&mut self, frame: Frame) -> Result<(), Frame> {
        if frame.chunk != self.chunk {
            return Err(frame);
        }
        // Its reference is ours from here on: a chunk has fewer than 2^32 of them.
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

/// What is left of a chunk that is being cut into frames. Dropping it gives up the rest.
pub struct Train {
    chunk: ChunkRef,
    at: NonNull<u8>,
    headroom: u32,
    left: u32,
    segment: u32,
    tailroom: u32,
    /// References of the chunk that no frame has been given yet.
    refs: u32,
    mark: Mark,
}

// SAFETY: as for `Frame`: sole owner of the bytes not yet cut off.
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
    #[allow(clippy::too_many_arguments)] // one private caller, each a different number
    pub(crate) fn new(
        chunk: ChunkRef,
        at: NonNull<u8>,
        headroom: usize,
        left: usize,
        segment: usize,
        tailroom: usize,
        refs: u32,
    ) -> Self {
        // A chunk is under 2^32 bytes, and so is every part of it.
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

    /// Marks every frame that is cut from now on.
    #[inline]
    #[must_use]
    pub fn with_mark(mut self, mark: Mark) -> Self {
        self.mark = mark;
        self
    }

    /// Bytes not yet cut off.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.left as usize
    }

    /// The next frame of the train, `segment` bytes or what is left; `None` at the end.
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

    /// Cuts off a frame of `len` bytes with `headroom` bytes in front and `tailroom` behind it;
    /// `None` when that much is not left. For chunks from [`crate::Chunk::into_carving`].
    #[inline]
    pub fn carve(&mut self, headroom: usize, len: usize, tailroom: usize) -> Option<Frame> {
        let rooms_fit = headroom <= usize::from(u16::MAX) && tailroom <= usize::from(u16::MAX);
        let total = headroom.checked_add(len)?.checked_add(tailroom)?;
        if !rooms_fit || len > usize::from(u16::MAX) || total > self.remaining() || self.refs <= 1 {
            return None;
        }
        // SAFETY: `headroom + len + tailroom` bytes are left from `at` on.
        let at = unsafe { self.at.add(headroom) };
        // SAFETY: as above: at most one past the train's bytes.
        self.at = unsafe { self.at.add(total) };
        self.left -= total as u32;
        self.refs -= 1;
        let (headroom, tailroom) = (headroom as u16, tailroom as u16);
        Some(Frame { at, chunk: self.chunk, len: len as u16, headroom, tailroom, mark: self.mark })
    }

    /// The one frame of a train without bytes.
    pub(crate) fn take_empty(&mut self) -> Frame {
        debug_assert_eq!((self.left, self.refs), (0, 1), "only an empty datagram comes here");
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
    fn a_train_falls_into_equal_frames_and_a_short_last_one() {
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
    fn a_frame_grows_only_into_its_own_room() {
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
    fn carved_frames_share_a_chunk_and_give_it_back() {
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
    fn held_frames_give_their_chunk_back_together() {
        let mut pool = pool();
        let mut train = pool.take(ChunkClass::Train).expect("free").into_train(256, 300, 100);
        let frames: Vec<_> = std::iter::from_fn(|| train.next_frame()).collect();
        drop(train);
        let stranger = pool.take(ChunkClass::Single).expect("free").into_frame(256, 9);
        let mut frames = frames.into_iter();
        let mut held = super::HeldFrames::new(frames.next().expect("three"));
        assert!(held.join(frames.next().expect("three")).is_ok());
        assert_eq!(held.join(stranger).map_err(|frame| frame.len()), Err(9));
        let last = frames.next();
        drop(held);
        assert_eq!(pool.free(ChunkClass::Train), 1);
        drop(last);
        assert_eq!((pool.free(ChunkClass::Train), pool.free(ChunkClass::Single)), (2, 1));
    }

    #[test]
    fn a_frame_carries_its_mark_through_a_train() {
        let mut pool = pool();
        let train = pool.take(ChunkClass::Train).expect("free").into_train(256, 20, 10);
        let mut train = train.with_mark(crate::Mark(5));
        assert_eq!(train.next_frame().map(|f| f.mark()), Some(crate::Mark(5)));
    }
}
