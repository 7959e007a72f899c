//! Chunks and their pool: the memory of frames, its owner, and how it returns from other threads.
//!
//! A pool never grows. If no chunk is free, `Pool::take` returns `None` and counts the failure.
//!
//! Every worker owns one [`Pool`]. Any thread may drop frames of the pool: the last frame of a
//! chunk pushes the chunk onto the owner's return stack, and the owner takes the whole stack with
//! one swap. A push is a compare-exchange, so neither side waits for the other. No thread pops a
//! single element, so the ABA problem does not arise.
//!
//! ```
//! use strowger_frame::{ChunkClass, Pool, PoolSpec};
//!
//! let mut pool = Pool::new(&PoolSpec { trains: 1, singles: 0, huge_pages: false })?;
//! let chunk = pool.take(ChunkClass::Train).expect("the pool has one chunk");
//! assert!(pool.take(ChunkClass::Train).is_none());
//! let frame = chunk.into_frame(256, 64);
//! drop(frame);
//! assert!(pool.take(ChunkClass::Train).is_some());
//! # Ok::<(), std::io::Error>(())
//! ```

mod copy;
mod retired;

use std::{
    io,
    mem::{self, ManuallyDrop},
    ptr::{self, NonNull},
};

use crate::{
    frame::{Frame, Train},
    map::{Backing, Mapping},
    reserve::{Chunks, PoolUser, Reserve},
    sync::{AtomicU32, AtomicU64, Ordering, Watch, fence},
    tally::Counter,
};

/// The headroom of a chunk before cache colouring, in bytes.
pub const HEADROOM_BYTES: usize = 256;
/// The least number of bytes of a train chunk from [`Chunk::start`] on: enough for one train that
/// the kernel coalesced.
pub const TRAIN_DATA_BYTES: usize = 64 << 10;
/// The distance between train chunks, in bytes: the data and one page of headroom.
pub const TRAIN_STRIDE_BYTES: usize = TRAIN_DATA_BYTES + 4096;
/// The distance between single chunks, in bytes: one UMEM chunk of AF_XDP.
pub const SINGLE_STRIDE_BYTES: usize = 4096;

/// The step of cache colouring. The data of each chunk starts one cache line later than that of the
/// chunk before it, and the offset repeats after `TRAIN_COLOURS` or `SINGLE_COLOURS` chunks.
/// Otherwise frames would start at equal offsets of their chunks and compete for a few sets of the
/// first-level cache.
const COLOUR_BYTES: usize = 64;
const TRAIN_COLOURS: usize = 48;
const SINGLE_COLOURS: usize = 8;

const _: () = assert!(HEADROOM_BYTES + TRAIN_COLOURS * COLOUR_BYTES <= 4096);
const _: () = assert!(TRAIN_STRIDE_BYTES.is_multiple_of(SINGLE_STRIDE_BYTES));

/// The two sizes of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkClass {
    /// A chunk of 64 KiB and one page, which holds a train of frames.
    Train,
    /// A chunk of one page, which holds one frame.
    Single,
}

/// The size of a pool, as a number of chunks of each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// The number of [`ChunkClass::Train`] chunks.
    pub trains: u32,
    /// The number of [`ChunkClass::Single`] chunks.
    pub singles: u32,
    /// Whether to request huge pages.
    pub huge_pages: bool,
}

impl PoolSpec {
    /// The size of the pool's memory, in bytes.
    pub const fn bytes(&self) -> usize {
        self.trains as usize * TRAIN_STRIDE_BYTES + self.singles as usize * SINGLE_STRIDE_BYTES
    }
}

const EMPTY: u32 = 0;
const CLOSED: u32 = u32::MAX;

/// The state of a chunk. It is outside the memory that the kernel or a peer may write.
#[repr(align(64))]
pub(crate) struct ChunkHead {
    /// The number of references: one per live frame, and those that a train has not yet assigned to
    /// frames.
    refs: AtomicU32,
    /// The next chunk on the return stack: index + 1, or `EMPTY`.
    next: AtomicU32,
    index: u32,
    class: ChunkClass,
    base: NonNull<u8>,
    state: *const PoolState,
}

const _: () = assert!(cfg!(loom) || mem::size_of::<ChunkHead>() == 64);

/// The part of a pool that outlives the `Pool` value while chunks are outstanding.
struct PoolState {
    heads: Box<[ChunkHead]>,
    /// The top of the return stack: index + 1, or `EMPTY`, or `CLOSED` after the owner was dropped.
    returned: AtomicU32,
    /// The number of chunks that were outstanding when the owner was dropped and have not come
    /// back. It is 0 while the owner exists.
    outstanding: AtomicU64,
    mapping: std::sync::Arc<Mapping>,
    /// The next state in the list of `retired`.
    next_retired: std::sync::atomic::AtomicPtr<PoolState>,
    watch: Watch,
}

/// A pool of chunks, for its owner. Only the owner takes chunks, so `Pool` is not `Clone`.
pub struct Pool {
    state: NonNull<PoolState>,
    free_trains: Vec<u32>,
    free_singles: Vec<u32>,
    trains: Reserve,
    singles: Reserve,
    /// For each chunk, by its index, the user to which it is charged.
    users: Box<[PoolUser]>,
    user: PoolUser,
    /// The number of pools of the mapping in which free chunks run low. All pools of the mapping
    /// share this counter.
    pools_low: std::sync::Arc<AtomicU32>,
    is_low: bool,
    /// Set when free chunks begin to run low. `take_ran_low` clears it.
    ran_low: bool,
    tally: std::sync::Arc<PoolTally>,
}

/// Counters of a pool.
#[derive(Debug, Default)]
pub struct PoolTally {
    /// The number of frames whose payload was copied. Frames are copied when chunks run low (see
    /// `Pool::park`), by the fault wrapper, and where a frame cannot stay in its chunk (no room for
    /// a tag, memory of another mapping).
    pub frames_copied: Counter,
    /// The number of failed requests for a chunk.
    pub exhausted: Counter,
}

// SAFETY: a pool may move to another thread as a whole; the shared parts of its state are atomics,
// and its mapping is plain memory handed out chunk by chunk.
unsafe impl Send for Pool {}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("free_trains", &self.free_trains.len())
            .field("free_singles", &self.free_singles.len())
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// Makes a pool in a separate mapping.
    ///
    /// # Errors
    /// Returns the kernel's error if it refuses the memory.
    pub fn new(spec: &PoolSpec) -> io::Result<Self> {
        let mut pools = Self::group(spec, 1)?;
        pools.pop().ok_or_else(|| io::Error::other("one pool was asked for"))
    }

    /// Makes `owners` equal pools side by side in one mapping.
    ///
    /// One registration with the kernel then covers the memory of all workers. `spec` is the size
    /// of each pool.
    ///
    /// # Errors
    /// Returns the kernel's error if it refuses the memory.
    pub fn group(spec: &PoolSpec, owners: usize) -> io::Result<Vec<Self>> {
        retired::collect();
        let mapping = std::sync::Arc::new(Mapping::new(spec.bytes() * owners, spec.huge_pages)?);
        let low = std::sync::Arc::new(AtomicU32::new(0));
        Ok((0..owners).map(|owner| Self::in_mapping(spec, &mapping, owner, &low)).collect())
    }

    fn in_mapping(
        spec: &PoolSpec,
        mapping: &std::sync::Arc<Mapping>,
        owner: usize,
        low: &std::sync::Arc<AtomicU32>,
    ) -> Self {
        let trains = spec.trains as usize;
        let chunks = trains + spec.singles as usize;
        let at = |index: usize| {
            let offset = match index.checked_sub(trains) {
                None => index * TRAIN_STRIDE_BYTES,
                Some(single) => trains * TRAIN_STRIDE_BYTES + single * SINGLE_STRIDE_BYTES,
            };
            owner * spec.bytes() + offset
        };
        let heads = (0..chunks)
            .map(|index| ChunkHead {
                refs: AtomicU32::new(0),
                next: AtomicU32::new(EMPTY),
                index: index as u32,
                class: if index < trains { ChunkClass::Train } else { ChunkClass::Single },
                // SAFETY: `at` stays below `spec.bytes() * owners`, which the mapping spans.
                base: unsafe { mapping.at().add(at(index)) },
                state: ptr::null(),
            })
            .collect();
        let state = Box::into_raw(Box::new(PoolState {
            heads,
            returned: AtomicU32::new(EMPTY),
            outstanding: AtomicU64::new(0),
            mapping: mapping.clone(),
            next_retired: std::sync::atomic::AtomicPtr::new(ptr::null_mut()),
            watch: Watch::new(),
        }));
        // SAFETY: `Box::into_raw` just made it, and no other reference exists.
        let heads = unsafe { &mut (*state).heads };
        for head in heads {
            head.state = state;
        }
        Self {
            // SAFETY: `Box::into_raw` never returns null.
            state: unsafe { NonNull::new_unchecked(state) },
            // The lowest chunks are on top, so that a lightly used pool touches little memory.
            free_trains: (0..trains as u32).rev().collect(),
            free_singles: (trains as u32..chunks as u32).rev().collect(),
            trains: Reserve::new(spec.trains),
            singles: Reserve::new(spec.singles),
            users: vec![PoolUser::COMMON; chunks].into_boxed_slice(),
            user: PoolUser::COMMON,
            pools_low: low.clone(),
            is_low: false,
            ran_low: false,
            tally: std::sync::Arc::default(),
        }
    }

    #[inline]
    fn state(&self) -> &PoolState {
        // SAFETY: the state lives until the owner was dropped and the last chunk is back.
        unsafe { self.state.as_ref() }
    }

    /// Takes an empty chunk for the user that [`set_user`](Self::set_user) set.
    ///
    /// If all chunks are in use or reserved for others, it returns `None` and counts `exhausted`.
    #[inline]
    pub fn take(&mut self, class: ChunkClass) -> Option<Chunk> {
        self.take_for(self.user, class)
    }

    #[inline]
    fn take_for(&mut self, user: PoolUser, class: ChunkClass) -> Option<Chunk> {
        let (free, reserve) = self.class(class);
        if !reserve.admits(user, free.len()) {
            self.reclaim();
        }
        let (free, reserve) = self.class(class);
        let admitted = reserve.admits(user, free.len());
        let Some(index) = admitted.then(|| free.pop()).flatten() else {
            self.tally.exhausted.add(1);
            return None;
        };
        reserve.take(user);
        self.users[index as usize] = user;
        Some(Chunk { head: NonNull::from(&self.state().heads[index as usize]) })
    }

    /// Takes back the chunks that were returned since the last call. Call it once per poll.
    ///
    /// Later calls of `take` use these chunks first, because they may still be in the cache.
    #[inline]
    pub fn reclaim(&mut self) {
        // Acquire: pairs with the Release in `give_back`: other threads' use of the returned memory
        // comes before this thread's.
        if self.state().returned.load(Ordering::Relaxed) != EMPTY {
            let mut top = self.state().returned.swap(EMPTY, Ordering::Acquire);
            while top != EMPTY {
                let index = top - 1;
                let head = &self.state().heads[index as usize];
                // Relaxed: the swap above already made the pusher's writes visible.
                top = head.next.load(Ordering::Relaxed);
                let class = head.class;
                let user = self.users[index as usize];
                let (free, reserve) = self.class(class);
                reserve.give_back(user);
                free.push(index);
            }
        }
        let low = self.trains.update_low(self.free_trains.len())
            | self.singles.update_low(self.free_singles.len());
        if low != self.is_low {
            self.set_low(low);
        }
    }

    #[cold]
    fn set_low(&mut self, low: bool) {
        self.is_low = low;
        self.ran_low |= low;
        // Relaxed: a hint, which publishes no other data.
        match low {
            true => self.pools_low.fetch_add(1, Ordering::Relaxed),
            false => self.pools_low.fetch_sub(1, Ordering::Relaxed),
        };
    }

    #[inline]
    fn class(&mut self, class: ChunkClass) -> (&mut Vec<u32>, &mut Reserve) {
        match class {
            ChunkClass::Train => (&mut self.free_trains, &mut self.trains),
            ChunkClass::Single => (&mut self.free_singles, &mut self.singles),
        }
    }

    /// Sets the current user, to which `take` charges chunks.
    #[inline]
    pub fn set_user(&mut self, user: PoolUser) {
        self.user = user;
    }

    /// Charges a chunk that was taken earlier to the current user. A chunk of another pool is
    /// ignored.
    pub fn charge(&mut self, chunk: &Chunk) {
        let (head, user) = (chunk.head(), self.user);
        if !ptr::eq(head.state, self.state.as_ptr()) {
            return;
        }
        let (index, class) = (head.index as usize, head.class);
        self.recharge(index, class, user);
    }

    fn recharge(&mut self, index: usize, class: ChunkClass, user: PoolUser) {
        let before = mem::replace(&mut self.users[index], user);
        let (_, reserve) = self.class(class);
        reserve.give_back(before);
        reserve.take(user);
    }

    /// Reserves chunks for a user, regardless of the number that other users hold.
    ///
    /// Returns the number of reserved chunks, which is less than `floor` if the pool is too small.
    pub fn reserve(&mut self, user: PoolUser, floor: Chunks) -> Chunks {
        Chunks {
            trains: self.trains.set_floor(user, floor.trains),
            singles: self.singles.set_floor(user, floor.singles),
        }
    }

    /// Whether free chunks run low in this pool or in another pool of its mapping. Each pool
    /// updates its state in [`reclaim`](Self::reclaim).
    ///
    /// If so, the caller should [park](Self::park) frames that may wait for long.
    #[inline]
    pub fn is_low(&self) -> bool {
        // Relaxed: a hint, which publishes no other data.
        self.pools_low.load(Ordering::Relaxed) > 0
    }

    /// Whether free chunks began to run low since the last call.
    ///
    /// If so, the caller should wake sleeping holders of frames, so that they [park](Self::park)
    /// them.
    #[inline]
    pub fn take_ran_low(&mut self) -> bool {
        mem::take(&mut self.ran_low)
    }

    /// The number of free chunks of this class, reserved ones included.
    pub fn free(&mut self, class: ChunkClass) -> usize {
        self.reclaim();
        self.class(class).0.len()
    }

    /// The pool's counters; any thread may read them.
    pub fn tally(&self) -> &std::sync::Arc<PoolTally> {
        &self.tally
    }

    /// The mapping that contains this pool's chunks, for registration with the kernel. Each clone
    /// keeps the memory mapped.
    pub fn mapping(&self) -> &std::sync::Arc<Mapping> {
        &self.state().mapping
    }

    /// The kind of pages in the mapping.
    pub fn backing(&self) -> Backing {
        self.mapping().backing()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        retired::collect();
        self.reclaim();
        if self.is_low {
            self.set_low(false);
        }
        let mut returned = self.free_trains.len() + self.free_singles.len();
        // Acquire as in `reclaim`. A thread that finds the stack closed needs no ordering from
        // here: it reached the state through its chunk, and `outstanding` orders the freeing.
        let mut top = self.state().returned.swap(CLOSED, Ordering::Acquire);
        while top != EMPTY {
            returned += 1;
            top = self.state().heads[top as usize - 1].next.load(Ordering::Relaxed);
        }
        let outstanding = (self.state().heads.len() - returned) as u64;
        self.state().watch.used();
        // Each chunk that was returned since the swap has already decremented the counter, which
        // may have wrapped below zero. So exactly one thread sees the sum reach zero and frees the
        // state. AcqRel: the freeing must come after every other thread's last use.
        let before = self.state().outstanding.fetch_add(outstanding, Ordering::AcqRel);
        if before.wrapping_add(outstanding) == 0 {
            // SAFETY: `Box::into_raw` made it; no chunk is outstanding and the owner is being
            // dropped.
            unsafe { retired::free(self.state.as_ptr()) };
        }
    }
}

/// Returns a chunk to its owner, from any thread.
fn give_back(head: NonNull<ChunkHead>) {
    // SAFETY: heads live in the state, which outlives every outstanding chunk; this chunk is
    // outstanding.
    let head = unsafe { head.as_ref() };
    // SAFETY: as above; the pointer was set before the first chunk was taken.
    let state = unsafe { &*head.state };
    state.watch.used();
    let mut top = state.returned.load(Ordering::Relaxed);
    loop {
        if top == CLOSED {
            // AcqRel: see `Pool::drop`.
            if state.outstanding.fetch_sub(1, Ordering::AcqRel) == 1 {
                // SAFETY: the owner was dropped and this was the last outstanding chunk.
                unsafe { retired::free(head.state.cast_mut()) };
            }
            return;
        }
        // Relaxed: the Release below publishes it.
        head.next.store(top, Ordering::Relaxed);
        // Release: pairs with Acquire in `reclaim`: this thread's use of the memory comes before
        // the owner's.
        match state.returned.compare_exchange_weak(
            top,
            head.index + 1,
            Ordering::Release,
            Ordering::Relaxed,
        ) {
            Ok(_) => return,
            Err(now) => top = now,
        }
    }
}

/// An empty chunk with one owner. The owner fills it or posts it to the kernel, and then makes
/// frames of it.
///
/// Dropping it returns it to its pool.
pub struct Chunk {
    head: NonNull<ChunkHead>,
}

// SAFETY: a chunk is the only owner of its memory; the shared parts of its head are atomics.
unsafe impl Send for Chunk {}
// SAFETY: `&Chunk` gives only numbers and an address.
unsafe impl Sync for Chunk {}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunk").field("index", &self.head().index).finish_non_exhaustive()
    }
}

impl Chunk {
    #[inline]
    fn head(&self) -> &ChunkHead {
        // SAFETY: heads live in the state, which outlives every outstanding chunk.
        unsafe { self.head.as_ref() }
    }

    /// The length of the whole chunk in bytes, headroom included.
    #[inline]
    pub fn room(&self) -> usize {
        match self.head().class {
            ChunkClass::Train => TRAIN_STRIDE_BYTES,
            ChunkClass::Single => SINGLE_STRIDE_BYTES,
        }
    }

    /// The offset at which data should start: after the headroom, plus an offset for cache
    /// colouring (see `COLOUR_BYTES`).
    ///
    /// From this offset on, a train chunk has at least [`TRAIN_DATA_BYTES`].
    #[inline]
    pub fn start(&self) -> usize {
        let colours = match self.head().class {
            ChunkClass::Train => TRAIN_COLOURS,
            ChunkClass::Single => SINGLE_COLOURS,
        };
        HEADROOM_BYTES + self.head().index as usize % colours * COLOUR_BYTES
    }

    /// The address of the chunk, for a caller that posts the chunk to the kernel.
    #[inline]
    pub fn at(&self) -> NonNull<u8> {
        self.head().base
    }

    /// The chunk's bytes. They are always initialised, because a mapping starts zeroed.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `room` bytes from `base` lie in the mapping and belong to this chunk alone.
        unsafe { std::slice::from_raw_parts_mut(self.head().base.as_ptr(), self.room()) }
    }

    /// Makes one frame of `len` bytes that starts at offset `start`. The rest of the chunk becomes
    /// headroom and tailroom.
    ///
    /// # Panics
    /// If the range does not lie in the chunk, or is longer than 65,535 bytes.
    #[inline]
    pub fn into_frame(self, start: usize, len: usize) -> Frame {
        let mut train = self.into_train(start, len, len);
        // The train returns `None` only for an empty datagram, which is also a frame.
        train.next_frame().unwrap_or_else(|| train.take_empty())
    }

    /// Makes a train of `len` bytes from offset `start` on, for frames of `segment` bytes each. The
    /// last frame may be shorter.
    ///
    /// A `segment` of 0 counts as `len`.
    ///
    /// # Panics
    /// If the range does not lie in the chunk, or if a frame would be longer than 65,535 bytes.
    #[inline]
    pub fn into_train(self, start: usize, len: usize, segment: usize) -> Train {
        let chunk = ManuallyDrop::new(self);
        let room = chunk.room();
        assert!(start <= room && len <= room - start, "the range lies in the chunk");
        let segment = if segment == 0 { len } else { segment.min(len) };
        assert!(segment <= usize::from(u16::MAX), "a frame's length fits 16 bits");
        let frames = if len == 0 { 1 } else { len.div_ceil(segment) };
        // Relaxed: this thread owns the chunk until frames move to other threads, which
        // synchronises.
        chunk.head().refs.store(frames as u32, Ordering::Relaxed);
        // SAFETY: `start` lies in the chunk, as checked above.
        let at = unsafe { chunk.head().base.add(start) };
        Train::new(ChunkRef(chunk.head), at, start, len, segment, room - start - len, frames as u32)
    }

    /// Makes a train that the caller cuts into frames of any size with [`Train::carve`].
    #[inline]
    pub fn into_carving(self) -> Train {
        let chunk = ManuallyDrop::new(self);
        let room = chunk.room();
        // The number of frames is not known yet, so the train gets one reference per byte. Dropping
        // the train releases the unused references in one operation.
        chunk.head().refs.store(room as u32, Ordering::Relaxed);
        let at = chunk.head().base;
        Train::new(ChunkRef(chunk.head), at, 0, room, 0, 0, room as u32)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        give_back(self.head);
    }
}

/// A frame's reference to its chunk. The type does not count references: each holder knows how many
/// it has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkRef(NonNull<ChunkHead>);

impl ChunkRef {
    /// Releases `n` references; the last one returns the chunk.
    #[inline]
    pub(crate) fn release(self, n: u32) {
        // SAFETY: the head lives as long as any reference does, and the caller holds `n`.
        let refs = unsafe { &self.0.as_ref().refs };
        // Acquire: pairs with the Release below. If only these references are left, no other thread
        // can add to them, and the read-modify-write is not needed.
        if refs.load(Ordering::Acquire) == n {
            return give_back(self.0);
        }
        // Release: this thread's use of the memory comes before the last holder's release.
        if refs.fetch_sub(n, Ordering::Release) == n {
            // Acquire: the use of the memory by all other holders comes before this point.
            fence(Ordering::Acquire);
            give_back(self.0);
        }
    }

    /// The number of the chunk within its pool.
    #[inline]
    pub(crate) fn index(self) -> u32 {
        // SAFETY: the head lives as long as any reference does.
        unsafe { self.0.as_ref().index }
    }

    fn class(self) -> ChunkClass {
        // SAFETY: the head lives as long as any reference does.
        unsafe { self.0.as_ref().class }
    }

    /// The address of the chunk's head if it is a train chunk, `None` otherwise.
    #[inline]
    pub(crate) fn train(self) -> Option<std::num::NonZeroUsize> {
        // SAFETY: the head lives as long as any reference does.
        let is_train = unsafe { self.0.as_ref().class } == ChunkClass::Train;
        is_train.then(|| self.0.addr())
    }

    fn is_of(self, state: *const PoolState) -> bool {
        // SAFETY: the head lives as long as any reference does. The pointers are only compared.
        ptr::eq(unsafe { self.0.as_ref().state }, state)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn pool(trains: u32, singles: u32) -> Pool {
        Pool::new(&PoolSpec { trains, singles, huge_pages: false }).expect("memory")
    }

    #[test]
    fn a_chunk_returns_with_its_last_frame() {
        let mut pool = pool(1, 0);
        let chunk = pool.take(ChunkClass::Train).expect("free");
        let mut train = chunk.into_train(256, 300, 100);
        let frames: Vec<_> = std::iter::from_fn(|| train.next_frame()).collect();
        drop(train);
        assert_eq!(frames.len(), 3);
        for frame in frames {
            assert_eq!(pool.free(ChunkClass::Train), 0);
            drop(frame);
        }
        assert_eq!(pool.free(ChunkClass::Train), 1);
    }

    #[test]
    fn a_partly_cut_train_releases_the_rest_on_drop() {
        let mut pool = pool(1, 0);
        let mut train = pool.take(ChunkClass::Train).expect("free").into_train(256, 250, 100);
        let first = train.next_frame().expect("three frames");
        drop(train);
        assert_eq!(pool.free(ChunkClass::Train), 0);
        drop(first);
        assert_eq!(pool.free(ChunkClass::Train), 1);
    }

    #[test]
    fn taking_from_an_empty_pool_fails_and_is_counted() {
        let mut pool = pool(0, 2);
        let held: Vec<_> = (0..2).map(|_| pool.take(ChunkClass::Single).expect("two")).collect();
        assert!(pool.take(ChunkClass::Single).is_none());
        assert_eq!(pool.tally().exhausted.read(), 1);
        drop(held);
        assert!(pool.take(ChunkClass::Single).is_some());
    }

    #[test]
    fn chunks_return_from_other_threads() {
        let mut pool = pool(8, 8);
        for _ in 0..200 {
            let frames: Vec<_> = (0..8)
                .map(|_| pool.take(ChunkClass::Train).expect("all are back").into_frame(256, 10))
                .collect();
            std::thread::scope(|scope| {
                for frame in frames {
                    scope.spawn(move || drop(frame));
                }
            });
        }
        assert_eq!(pool.free(ChunkClass::Train), 8);
    }

    #[test]
    fn frames_outlive_their_pool() {
        let mut pool = pool(2, 0);
        let mut frames: Vec<_> = (0..2)
            .map(|_| pool.take(ChunkClass::Train).expect("two").into_frame(256, 10))
            .collect();
        frames[0].bytes_mut().fill(7);
        drop(pool);
        assert_eq!(frames[0].bytes(), [7; 10]);
        let last = frames.pop();
        std::thread::spawn(move || drop(last)).join().expect("no panic");
        drop(frames);
    }

    #[test]
    fn a_worker_that_releases_the_last_frame_of_a_dropped_pool_frees_nothing() {
        let mut pool = pool(1, 0);
        let frame = pool.take(ChunkClass::Train).expect("free").into_frame(256, 10);
        let mapping = std::sync::Arc::downgrade(pool.mapping());
        drop(pool);
        std::thread::spawn(move || {
            let _guard = crate::alloc::forbid();
            drop(frame);
        })
        .join()
        .expect("no panic");
        // The worker has left the state to the next thread that makes a pool. Other tests of this
        // process make some, too.
        drop(self::pool(1, 0));
        assert_eq!(mapping.strong_count(), 0);
    }

    #[test]
    fn pools_of_one_mapping_do_not_overlap() {
        let spec = PoolSpec { trains: 2, singles: 3, huge_pages: false };
        let mut pools = Pool::group(&spec, 3).expect("memory");
        let mut spans = Vec::new();
        for pool in &mut pools {
            for class in [ChunkClass::Train, ChunkClass::Single] {
                while let Some(chunk) = pool.take(class) {
                    let at = chunk.at().as_ptr() as usize;
                    spans.push((at, at + chunk.room()));
                    mem::forget(chunk);
                }
            }
        }
        spans.sort_unstable();
        assert_eq!(spans.len(), 15);
        assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        assert!(spans[14].1 - spans[0].0 <= pools[0].mapping().bytes());
    }
}
