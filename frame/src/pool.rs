//! Chunks: the memory that one or many frames lie in, who owns which, and how they come back. A
//! pool never grows; when it is empty, taking a chunk fails and the caller counts why.
//!
//! Every worker owns one [`Pool`]. Its frames may be dropped on any thread: the last frame of a
//! chunk pushes the chunk onto the owner's return stack, and the owner takes the whole stack at
//! once. Pushing is a compare-exchange, taking is one swap, so neither waits for the other and the
//! ABA problem does not arise (nobody pops a single element).
//!
//! ```
//! use strowger_frame::{ChunkClass, Pool, PoolSpec};
//!
//! let mut pool = Pool::new(&PoolSpec { trains: 1, singles: 0, huge_pages: false })?;
//! let chunk = pool.take(ChunkClass::Train).expect("one chunk was asked for");
//! assert!(pool.take(ChunkClass::Train).is_none());
//! let frame = chunk.into_frame(256, 64);
//! drop(frame);
//! assert!(pool.take(ChunkClass::Train).is_some());
//! # Ok::<(), std::io::Error>(())
//! ```

mod copy;

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

/// Bytes in front of every received frame that a hop may grow into, before colouring.
pub const HEADROOM_BYTES: usize = 256;
/// Bytes of a train chunk that data may fill from [`Chunk::start`] on: a whole coalesced datagram.
pub const TRAIN_DATA_BYTES: usize = 64 << 10;
/// From one train chunk to the next: the data, and a page of front room.
pub const TRAIN_STRIDE_BYTES: usize = TRAIN_DATA_BYTES + 4096;
/// From one single chunk to the next: the size that AF_XDP takes as a UMEM chunk.
pub const SINGLE_STRIDE_BYTES: usize = 4096;

/// Frames that begin at the same offset of equal chunks would all fall into the same few sets of
/// the first-level cache, so each chunk's data begins some cache lines later than its neighbour's.
const COLOUR_BYTES: usize = 64;
const TRAIN_COLOURS: usize = 48;
const SINGLE_COLOURS: usize = 8;

const _: () = assert!(HEADROOM_BYTES + TRAIN_COLOURS * COLOUR_BYTES <= 4096);
const _: () = assert!(TRAIN_STRIDE_BYTES.is_multiple_of(SINGLE_STRIDE_BYTES));

/// The two sizes of chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkClass {
    /// 64 KiB and a page: holds a whole train of frames.
    Train,
    /// One page: holds one frame.
    Single,
}

/// How large a pool is to be. Its memory is the sum of the two, and never grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// Chunks of [`ChunkClass::Train`].
    pub trains: u32,
    /// Chunks of [`ChunkClass::Single`].
    pub singles: u32,
    /// Whether to try for huge pages.
    pub huge_pages: bool,
}

impl PoolSpec {
    /// Bytes of memory that such a pool maps.
    pub const fn bytes(&self) -> usize {
        self.trains as usize * TRAIN_STRIDE_BYTES + self.singles as usize * SINGLE_STRIDE_BYTES
    }
}

const EMPTY: u32 = 0;
const CLOSED: u32 = u32::MAX;

/// What stands beside a chunk, outside the memory that the kernel or a peer may write.
#[repr(align(64))]
pub(crate) struct ChunkHead {
    /// Frames alive in this chunk.
    refs: AtomicU32,
    /// Next on the return stack: index + 1, or `EMPTY`.
    next: AtomicU32,
    index: u32,
    class: ChunkClass,
    base: NonNull<u8>,
    state: *const PoolState,
}

const _: () = assert!(cfg!(loom) || mem::size_of::<ChunkHead>() == 64);

/// The part of a pool that outlives its owner while frames of it are still abroad.
struct PoolState {
    heads: Box<[ChunkHead]>,
    /// Top of the return stack: index + 1, `EMPTY`, or `CLOSED` once the owner is gone.
    returned: AtomicU32,
    /// Chunks still abroad after the owner has gone; meaningless before.
    outstanding: AtomicU64,
    mapping: std::sync::Arc<Mapping>,
    watch: Watch,
}

/// The owner's half of a pool: the only one who takes chunks. Not `Clone`, so each chunk has one
/// owner.
pub struct Pool {
    state: NonNull<PoolState>,
    free_trains: Vec<u32>,
    free_singles: Vec<u32>,
    trains: Reserve,
    singles: Reserve,
    /// By chunk: for whom it was taken.
    users: Box<[PoolUser]>,
    user: PoolUser,
    /// Pools of the mapping whose chunks run low, and whether this one is among them.
    pools_low: std::sync::Arc<AtomicU32>,
    is_low: bool,
    /// Chunks ran low since this was last asked.
    ran_low: bool,
    tally: std::sync::Arc<PoolTally>,
}

/// What a pool counts.
#[derive(Debug, Default)]
pub struct PoolTally {
    /// Frames whose payload was copied into fresh memory. 0 on every ordinary path.
    pub frames_copied: Counter,
    /// Times a chunk was asked for and none was free.
    pub exhausted: Counter,
}

// SAFETY: the owner's half may move to another thread as a whole; the state's shared parts are
// atomics, and its mapping is plain memory handed out chunk by chunk.
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
    /// A pool in a mapping of its own.
    ///
    /// # Errors
    /// The kernel's, when the memory is not to be had.
    pub fn new(spec: &PoolSpec) -> io::Result<Self> {
        let mut pools = Self::group(spec, 1)?;
        pools.pop().ok_or_else(|| io::Error::other("one pool was asked for"))
    }

    /// `owners` equal pools, each as `spec` says, side by side in one mapping, so that one
    /// registration with the kernel serves all workers.
    ///
    /// # Errors
    /// The kernel's, when the memory is not to be had.
    pub fn group(spec: &PoolSpec, owners: usize) -> io::Result<Vec<Self>> {
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
            watch: Watch::new(),
        }));
        // SAFETY: just made by `Box::into_raw`, and nobody else knows it yet.
        let heads = unsafe { &mut (*state).heads };
        for head in heads {
            head.state = state;
        }
        Self {
            // SAFETY: `Box::into_raw` never gives null.
            state: unsafe { NonNull::new_unchecked(state) },
            // Lowest chunks on top, so that a lightly used pool touches little memory.
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
        // SAFETY: the state lives until the owner is gone and the last chunk is back.
        unsafe { self.state.as_ref() }
    }

    /// Takes an empty chunk for the user that [`set_user`](Self::set_user) named; `None` when all
    /// are in use or kept for others, which is counted as `exhausted`.
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

    /// Takes back what was returned since the last time. Call it once a breath: chunks that were
    /// used last are still in the cache, and are taken again first.
    #[inline]
    pub fn reclaim(&mut self) {
        // Acquire: pairs with the Release in `give_back`, so that all use of the returned memory
        // by other threads comes before ours.
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
        // Relaxed: a hint, with no data behind it.
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

    /// From now on chunks are taken on behalf of this user.
    #[inline]
    pub fn set_user(&mut self, user: PoolUser) {
        self.user = user;
    }

    /// Charges a chunk of this pool, taken before, to the user that is acted for now.
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

    /// Keeps chunks for a user: it can have so many at any time, however many the others hold.
    /// Says what is kept: less than `floor` where the pool is too small for it.
    pub fn reserve(&mut self, user: PoolUser, floor: Chunks) -> Chunks {
        Chunks {
            trains: self.trains.set_floor(user, floor.trains),
            singles: self.singles.set_floor(user, floor.singles),
        }
    }

    /// Whether chunks run low in this pool, or in another one of its mapping, as of their last
    /// [`reclaim`](Self::reclaim): then frames that wait for long should be [settled](Self::park).
    #[inline]
    pub fn is_low(&self) -> bool {
        // Relaxed: a hint, with no data behind it.
        self.pools_low.load(Ordering::Relaxed) > 0
    }

    /// Whether this pool's chunks began to run low since this was last called. Then those who hold frames of
    /// it and may be asleep should be woken, to [settle](Self::park) them.
    #[inline]
    pub fn take_ran_low(&mut self) -> bool {
        mem::take(&mut self.ran_low)
    }

    /// Chunks of this class that are free, those that are kept for somebody among them.
    pub fn free(&mut self, class: ChunkClass) -> usize {
        self.reclaim();
        self.class(class).0.len()
    }

    /// The pool's counters, which may be read from any thread.
    pub fn tally(&self) -> &std::sync::Arc<PoolTally> {
        &self.tally
    }

    /// The mapping that this pool's chunks lie in: what is registered with the kernel. Who keeps a
    /// clone of it keeps the memory mapped.
    pub fn mapping(&self) -> &std::sync::Arc<Mapping> {
        &self.state().mapping
    }

    /// What the memory stands on.
    pub fn backing(&self) -> Backing {
        self.mapping().backing()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.reclaim();
        if self.is_low {
            self.set_low(false);
        }
        let mut home = self.free_trains.len() + self.free_singles.len();
        // Acquire as in `reclaim`. Who finds it closed needs nothing of ours: the state reached them
        // with their chunk, and who frees it is ordered by `abroad`.
        let mut top = self.state().returned.swap(CLOSED, Ordering::Acquire);
        while top != EMPTY {
            home += 1;
            top = self.state().heads[top as usize - 1].next.load(Ordering::Relaxed);
        }
        let outstanding = (self.state().heads.len() - home) as u64;
        self.state().watch.used();
        // Chunks that came back since the swap have already subtracted themselves, wrapping below
        // zero; so exactly one party sees the sum reach zero, and frees.
        // AcqRel: whoever frees must come after every other party's last use.
        let before = self.state().outstanding.fetch_add(outstanding, Ordering::AcqRel);
        if before.wrapping_add(outstanding) == 0 {
            // SAFETY: made by `Box::into_raw`; no chunk is abroad and the owner is ending.
            drop(unsafe { Box::from_raw(self.state.as_ptr()) });
        }
    }
}

/// Gives a chunk back to its owner, from any thread.
fn give_back(head: NonNull<ChunkHead>) {
    // SAFETY: heads live in the state, which outlives every chunk that is abroad, as this one is.
    let head = unsafe { head.as_ref() };
    // SAFETY: as above; the pointer was set before the first chunk was handed out.
    let state = unsafe { &*head.state };
    state.watch.used();
    let mut top = state.returned.load(Ordering::Relaxed);
    loop {
        if top == CLOSED {
            // AcqRel: see `Pool::drop`.
            if state.outstanding.fetch_sub(1, Ordering::AcqRel) == 1 {
                // SAFETY: the owner is gone and this was the last chunk abroad.
                drop(unsafe { Box::from_raw(head.state.cast_mut()) });
            }
            return;
        }
        // Relaxed: published by the Release below.
        head.next.store(top, Ordering::Relaxed);
        // Release: pairs with Acquire in `reclaim`: our use of the memory comes before the owner's.
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

/// An empty chunk, owned alone: to be filled by us or lent to the kernel, then made into frames.
/// Dropping it gives it back.
pub struct Chunk {
    head: NonNull<ChunkHead>,
}

// SAFETY: a chunk is sole owner of its memory; its head's shared parts are atomics.
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
        // SAFETY: heads live in the state, which outlives every chunk that is abroad.
        unsafe { self.head.as_ref() }
    }

    /// Bytes of the whole chunk, front room included.
    #[inline]
    pub fn room(&self) -> usize {
        match self.head().class {
            ChunkClass::Train => TRAIN_STRIDE_BYTES,
            ChunkClass::Single => SINGLE_STRIDE_BYTES,
        }
    }

    /// Where data should begin: behind the headroom, coloured (see `COLOUR_BYTES`). From there a
    /// train chunk has at least [`TRAIN_DATA_BYTES`].
    #[inline]
    pub fn start(&self) -> usize {
        let colours = match self.head().class {
            ChunkClass::Train => TRAIN_COLOURS,
            ChunkClass::Single => SINGLE_COLOURS,
        };
        HEADROOM_BYTES + self.head().index as usize % colours * COLOUR_BYTES
    }

    /// Where the chunk begins in memory, for handing to the kernel while the chunk is kept.
    #[inline]
    pub fn at(&self) -> NonNull<u8> {
        self.head().base
    }

    /// The chunk's bytes. Never uninitialised: the mapping came zeroed.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `room` bytes from `base` lie in the mapping and belong to this chunk alone.
        unsafe { std::slice::from_raw_parts_mut(self.head().base.as_ptr(), self.room()) }
    }

    /// One frame of `len` bytes from `start` on; headroom and tailroom are what is left around it.
    ///
    /// # Panics
    /// If the range does not lie in the chunk, or is longer than 65,535 bytes: a bug of the caller.
    #[inline]
    pub fn into_frame(self, start: usize, len: usize) -> Frame {
        let mut train = self.into_train(start, len, len);
        // `None` only for an empty datagram, which is a frame all the same.
        train.next_frame().unwrap_or_else(|| train.take_empty())
    }

    /// A train: frames of `segment` bytes, one behind another, from `start` on; the last may be
    /// shorter. A `segment` of 0 counts as `len`.
    ///
    /// # Panics
    /// As [`into_frame`](Self::into_frame).
    #[inline]
    pub fn into_train(self, start: usize, len: usize, segment: usize) -> Train {
        let chunk = ManuallyDrop::new(self);
        let room = chunk.room();
        assert!(start <= room && len <= room - start, "the range lies in the chunk");
        let segment = if segment == 0 { len } else { segment.min(len) };
        assert!(segment <= usize::from(u16::MAX), "a frame's length fits 16 bits");
        let frames = if len == 0 { 1 } else { len.div_ceil(segment) };
        // Relaxed: the chunk is ours alone until the frames leave this thread, which synchronises.
        chunk.head().refs.store(frames as u32, Ordering::Relaxed);
        // SAFETY: `start` was checked to lie in the chunk.
        let at = unsafe { chunk.head().base.add(start) };
        Train::new(ChunkRef(chunk.head), at, start, len, segment, room - start - len, frames as u32)
    }

    /// A train to be carved by hand into frames of any sizes with [`Train::carve`].
    #[inline]
    pub fn into_carving(self) -> Train {
        let chunk = ManuallyDrop::new(self);
        let room = chunk.room();
        // One reference a byte is more than carving can use; what is over is given back at once
        // when the train is dropped.
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

/// A frame's tie to its chunk. Not counted by itself: whoever holds references says how many.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkRef(NonNull<ChunkHead>);

impl ChunkRef {
    /// Gives up `n` references; the last one gives the chunk back.
    #[inline]
    pub(crate) fn release(self, n: u32) {
        // SAFETY: the head lives as long as any reference does, and the caller holds `n`.
        let refs = unsafe { &self.0.as_ref().refs };
        // Acquire: pairs with the Release below. If only ours are left nobody else can add to
        // them, so the read-modify-write can be spared.
        if refs.load(Ordering::Acquire) == n {
            return give_back(self.0);
        }
        // Release: our use of the memory comes before the last holder's giving it back.
        if refs.fetch_sub(n, Ordering::Release) == n {
            // Acquire: and that of all others, too.
            fence(Ordering::Acquire);
            give_back(self.0);
        }
    }

    /// The chunk's number within its pool.
    #[inline]
    pub(crate) fn index(self) -> u32 {
        // SAFETY: the head lives as long as any reference does.
        unsafe { self.0.as_ref().index }
    }

    fn class(self) -> ChunkClass {
        // SAFETY: the head lives as long as any reference does.
        unsafe { self.0.as_ref().class }
    }

    /// Where the chunk's head lies, for a train chunk.
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
    fn a_chunk_comes_back_when_its_last_frame_is_gone() {
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
    fn a_train_dropped_half_way_gives_up_the_rest() {
        let mut pool = pool(1, 0);
        let mut train = pool.take(ChunkClass::Train).expect("free").into_train(256, 250, 100);
        let first = train.next_frame().expect("three frames");
        drop(train);
        assert_eq!(pool.free(ChunkClass::Train), 0);
        drop(first);
        assert_eq!(pool.free(ChunkClass::Train), 1);
    }

    #[test]
    fn an_empty_pool_refuses_and_counts() {
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
