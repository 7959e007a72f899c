//! Properties of the frame pool, against a model: a copy of the mapping, and a handle count for
//! each chunk.
//!
//! The model computes offsets itself and does not query the pool.
//!
//! The properties: no two live frames overlap, headroom and tailroom included; bytes do not change
//! until they are overwritten; lengths, headroom and tailroom equal the model's; a chunk is free
//! exactly when it has no handle.
//!
//! The input is a sequence of operations; see [`Pool::do_next`].

use bolero::check;
use strowger_frame::{
    Chunk, ChunkClass, Frame, HeldFrames, Mark, PoolSpec, Train,
    pool::{HEADROOM_BYTES, SINGLE_STRIDE_BYTES, TRAIN_STRIDE_BYTES},
};

const TRAINS: usize = 2;
const SINGLES: usize = 3;

/// Maximum number of live frames. If an operation exceeds it, one of the frames is dropped.
const FRAMES_MAX: usize = 24;

/// Reads big-endian numbers from the front of the input, and zeros once it is exhausted.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> usize {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        usize::from(*first)
    }

    fn word(&mut self) -> usize {
        self.byte() << 8 | self.byte()
    }

    /// A number below `end`, mostly small.
    fn below(&mut self, end: usize) -> usize {
        let number = match self.byte() {
            small @ 0..192 => small,
            _ => self.word(),
        };
        if end == 0 { 0 } else { number % end }
    }
}

/// The model of a frame: offsets into the mapping.
struct Live {
    frame: Frame,
    chunk: usize,
    at: usize,
    len: usize,
    headroom: usize,
    tailroom: usize,
    mark: u32,
}

impl Live {
    fn range(&self) -> (usize, usize) {
        (self.at - self.headroom, self.at + self.len + self.tailroom)
    }
}

/// The model of a train that is being cut.
struct Cutting {
    train: Train,
    chunk: usize,
    at: usize,
    left: usize,
    /// The length of a segment. It is 0 for a train that is carved.
    segment: usize,
    headroom: usize,
    tailroom: usize,
    mark: u32,
}

impl Cutting {
    /// Whether the train holds its chunk. A carved train holds it until the train is dropped.
    fn holds(&self) -> bool {
        self.segment == 0 || self.left > 0
    }
}

/// A pool and its model.
struct Pool {
    real: strowger_frame::Pool,
    base: usize,
    /// The expected bytes of the mapping.
    mirror: Vec<u8>,
    /// The number of live handles of each chunk.
    handles: [usize; TRAINS + SINGLES],
    frames: Vec<Live>,
    trains: Vec<Cutting>,
    held: Vec<(HeldFrames, Vec<usize>)>,
    exhausted: u64,
    copied: u64,
}

/// The headroom or tailroom that a frame reports: at most half of the 16-bit maximum.
fn reported(room: usize) -> usize {
    room.min(usize::from(u16::MAX) / 2)
}

fn stride(chunk: usize) -> (usize, usize) {
    match chunk.checked_sub(TRAINS) {
        None => (chunk * TRAIN_STRIDE_BYTES, TRAIN_STRIDE_BYTES),
        Some(single) => {
            (TRAINS * TRAIN_STRIDE_BYTES + single * SINGLE_STRIDE_BYTES, SINGLE_STRIDE_BYTES)
        }
    }
}

fn chunk_at(offset: usize) -> usize {
    (0..TRAINS + SINGLES)
        .find(|&chunk| {
            let (from, bytes) = stride(chunk);
            (from..from + bytes).contains(&offset)
        })
        .expect("within the mapping")
}

impl Pool {
    fn new() -> Self {
        let spec = PoolSpec { trains: TRAINS as u32, singles: SINGLES as u32, huge_pages: false };
        let real = strowger_frame::Pool::new(&spec).expect("memory");
        let base = real.mapping().at().as_ptr().addr();
        Self {
            real,
            base,
            mirror: vec![0; spec.bytes()],
            handles: [0; TRAINS + SINGLES],
            frames: vec![],
            trains: vec![],
            held: vec![],
            exhausted: 0,
            copied: 0,
        }
    }

    fn free(&self, class: ChunkClass) -> usize {
        let (from, to) = match class {
            ChunkClass::Train => (0, TRAINS),
            ChunkClass::Single => (TRAINS, TRAINS + SINGLES),
        };
        self.handles[from..to].iter().filter(|&&handles| handles == 0).count()
    }

    /// Takes a chunk, which must succeed exactly when the model has a free one.
    fn take(&mut self, class: ChunkClass) -> Option<(Chunk, usize)> {
        let free = self.free(class);
        let taken = self.real.take(class);
        assert_eq!(taken.is_some(), free > 0, "{class:?}");
        let Some(chunk) = taken else {
            self.exhausted += 1;
            assert_eq!(self.real.tally().exhausted.read(), self.exhausted);
            return None;
        };
        let offset = chunk.at().as_ptr().addr() - self.base;
        let number = chunk_at(offset);
        assert_eq!((offset, chunk.room()), stride(number), "a chunk at a wrong offset");
        assert_eq!(self.handles[number], 0, "a chunk was taken twice");
        self.handles[number] += 1;
        Some((chunk, number))
    }

    /// Runs one operation. Its input is the operation (1 byte), the class of chunks (1 byte), and
    /// the numbers that the operation reads.
    fn do_next(&mut self, input: &mut Input<'_>) {
        let operation = input.byte() % 16;
        let class = match input.byte() & 1 {
            0 => ChunkClass::Train,
            _ => ChunkClass::Single,
        };
        match operation {
            0 => self.take_whole(class, input),
            1 | 2 => self.take_train(class, input),
            3 => self.take_carving(class),
            4..=6 => self.cut(input),
            7 => {
                if !self.trains.is_empty() {
                    let at = input.below(self.trains.len());
                    self.drop_train(at);
                }
            }
            8 => {
                if !self.frames.is_empty() {
                    let at = input.below(self.frames.len());
                    self.drop_frame(at, input.byte() >= 240);
                }
            }
            9 => {
                self.real.reclaim();
                if input.byte() & 1 == 1 {
                    self.count_free();
                }
            }
            10 => self.hold(input),
            11 => {
                if !self.held.is_empty() {
                    let at = input.below(self.held.len());
                    let (held, chunks) = self.held.swap_remove(at);
                    drop(held);
                    chunks.into_iter().for_each(|chunk| self.handles[chunk] -= 1);
                }
            }
            12 => self.copy(input),
            _ => self.reshape(input),
        }
        while self.frames.len() > FRAMES_MAX {
            self.drop_frame(0, false);
        }
    }

    fn take_whole(&mut self, class: ChunkClass, input: &mut Input<'_>) {
        let Some((chunk, number)) = self.take(class) else { return };
        let (from, room) = stride(number);
        let start = match input.byte() {
            0..16 => {
                drop(chunk); // unused
                self.handles[number] -= 1;
                return;
            }
            16..128 => chunk.start(),
            _ => input.below(room + 1),
        };
        let len = input.below((room - start + 1).min(usize::from(u16::MAX) + 1));
        let frame = chunk.into_frame(start, len);
        let (headroom, tailroom) = (reported(start), reported(room - start - len));
        self.frames.push(Live {
            frame,
            chunk: number,
            at: from + start,
            len,
            headroom,
            tailroom,
            mark: 0,
        });
    }

    fn take_train(&mut self, class: ChunkClass, input: &mut Input<'_>) {
        let Some((chunk, number)) = self.take(class) else { return };
        let (from, room) = stride(number);
        let start = chunk.start();
        let len = 1 + input.below(room - start);
        let segment = input.below(usize::from(u16::MAX).min(len) + 1);
        if segment == 0 && len > usize::from(u16::MAX) {
            self.handles[number] -= 1;
            return; // a frame cannot be that long
        }
        let mark = input.word() as u32;
        let train = chunk.into_train(start, len, segment).with_mark(Mark(mark));
        self.trains.push(Cutting {
            train,
            chunk: number,
            at: from + start,
            left: len,
            segment: if segment == 0 { len } else { segment },
            headroom: start,
            tailroom: room - start - len,
            mark,
        });
    }

    fn take_carving(&mut self, class: ChunkClass) {
        let Some((chunk, number)) = self.take(class) else { return };
        let (from, room) = stride(number);
        self.trains.push(Cutting {
            train: chunk.into_carving(),
            chunk: number,
            at: from,
            left: room,
            segment: 0,
            headroom: 0,
            tailroom: 0,
            mark: 0,
        });
    }

    /// Cuts the next frame off a train, by its segment or by a length from the input.
    fn cut(&mut self, input: &mut Input<'_>) {
        if self.trains.is_empty() {
            return;
        }
        let number = input.below(self.trains.len());
        let cutting = &mut self.trains[number];
        assert_eq!(cutting.train.remaining(), cutting.left);
        let (frame, headroom, len, tailroom, step) = if cutting.segment == 0 {
            let (headroom, len, tailroom) =
                (input.below(700), input.below(70_000), input.below(200));
            let fits = headroom + len + tailroom <= cutting.left && len <= usize::from(u16::MAX);
            let frame = cutting.train.carve(headroom, len, tailroom);
            assert_eq!(frame.is_some(), fits);
            (frame, headroom, len, tailroom, headroom + len + tailroom)
        } else {
            let frame = cutting.train.next_frame();
            let len = cutting.segment.min(cutting.left);
            assert_eq!(frame.is_some(), len > 0);
            let tailroom = if len == cutting.left { reported(cutting.tailroom) } else { 0 };
            (frame, reported(cutting.headroom), len, tailroom, len)
        };
        let Some(frame) = frame else { return };
        let mut at = cutting.at;
        if cutting.segment == 0 {
            at += headroom;
        }
        cutting.at += step;
        cutting.left -= step;
        cutting.headroom = 0;
        let (chunk, mark) = (cutting.chunk, cutting.mark);
        // The last frame of a train takes over the train's handle.
        self.handles[chunk] += usize::from(cutting.holds());
        self.frames.push(Live { frame, chunk, at, len, headroom, tailroom, mark });
    }

    fn drop_train(&mut self, at: usize) {
        let cutting = self.trains.swap_remove(at);
        self.handles[cutting.chunk] -= usize::from(cutting.holds());
        drop(cutting.train);
    }

    fn drop_frame(&mut self, at: usize, elsewhere: bool) {
        let live = self.frames.swap_remove(at);
        if elsewhere {
            std::thread::spawn(move || drop(live.frame)).join().expect("no panic");
        } else {
            drop(live.frame);
        }
        self.handles[live.chunk] -= 1;
    }

    fn hold(&mut self, input: &mut Input<'_>) {
        if self.frames.len() < 2 {
            return;
        }
        let first = self.frames.swap_remove(input.below(self.frames.len()));
        let second = self.frames.swap_remove(input.below(self.frames.len()));
        let (chunk, other) = (first.chunk, second.chunk);
        let mut held = HeldFrames::new(first.frame);
        let mut chunks = vec![chunk];
        match held.join(second.frame) {
            Ok(()) => {
                assert_eq!(chunk, other, "frames of two chunks joined");
                chunks.push(other);
            }
            Err(frame) => {
                assert_ne!(chunk, other, "a frame of the same chunk refused");
                self.frames.push(Live { frame, ..second });
            }
        }
        self.held.push((held, chunks));
    }

    fn copy(&mut self, input: &mut Input<'_>) {
        if self.frames.is_empty() {
            return;
        }
        let source = &self.frames[input.below(self.frames.len())];
        let (from, len, mark) = (source.at, source.len, source.mark);
        let start = HEADROOM_BYTES;
        let single = len + start <= SINGLE_STRIDE_BYTES;
        let singles = self.free(ChunkClass::Single);
        let fits = single && singles > 0 || self.free(ChunkClass::Train) > 0;
        let copy = self.real.copy(&source.frame);
        assert_eq!(copy.is_some(), fits);
        // The pool counts each class in which it finds no free chunk.
        self.exhausted += u64::from(single && singles == 0) + u64::from(!fits);
        let Some(frame) = copy else { return };
        self.copied += 1;
        let at = frame.bytes().as_ptr().addr() - self.base;
        let chunk = chunk_at(at);
        assert_eq!(self.handles[chunk], 0, "a copy in memory in use");
        assert_eq!(chunk >= TRAINS, single && singles > 0);
        self.handles[chunk] += 1;
        let (chunk_from, room) = stride(chunk);
        assert_eq!(at, chunk_from + start);
        self.mirror.copy_within(from..from + len, at);
        let (headroom, tailroom) = (reported(start), reported(room - start - len));
        self.frames.push(Live { frame, chunk, at, len, headroom, tailroom, mark });
    }

    /// Grows, shrinks, writes or marks a frame.
    fn reshape(&mut self, input: &mut Input<'_>) {
        if self.frames.is_empty() {
            return;
        }
        let number = input.below(self.frames.len());
        let live = &mut self.frames[number];
        let most = usize::from(u16::MAX);
        match input.byte() % 6 {
            0 => {
                let n = input.below(70_000);
                live.frame.shrink_front(n);
                let n = n.min(live.len);
                live.at += n;
                live.len -= n;
                live.headroom = (live.headroom + n).min(most);
            }
            1 => {
                let n = input.below(live.headroom + 2);
                let fits = n <= live.headroom && live.len + n <= most;
                assert_eq!(live.frame.grow_front(n), fits);
                if fits {
                    live.at -= n;
                    live.len += n;
                    live.headroom -= n;
                }
            }
            2 => {
                let len = input.below(live.len + 2);
                live.frame.truncate(len);
                if len < live.len {
                    live.tailroom = (live.tailroom + live.len - len).min(most);
                    live.len = len;
                }
            }
            3 => {
                let n = input.below(live.tailroom + 2);
                let fits = n <= live.tailroom && live.len + n <= most;
                assert_eq!(live.frame.grow_back(n), fits);
                if fits {
                    live.len += n;
                    live.tailroom -= n;
                }
            }
            4 => {
                live.mark = input.word() as u32;
                live.frame.set_mark(Mark(live.mark));
            }
            _ => {
                let seed = input.byte();
                let mirror = &mut self.mirror[live.at..live.at + live.len];
                for (at, (byte, mirror)) in
                    live.frame.bytes_mut().iter_mut().zip(mirror).enumerate()
                {
                    *byte = (seed + at) as u8;
                    *mirror = (seed + at) as u8;
                }
            }
        }
    }

    fn count_free(&mut self) {
        for class in [ChunkClass::Train, ChunkClass::Single] {
            assert_eq!(self.real.free(class), self.free(class), "{class:?}");
        }
    }

    /// Checks that all frames equal the model and share no byte.
    fn check(&self) {
        for live in &self.frames {
            let Live { frame, at, len, headroom, tailroom, mark, .. } = live;
            assert_eq!(frame.bytes().as_ptr().addr() - self.base, *at);
            assert_eq!((frame.len(), frame.is_empty()), (*len, *len == 0));
            assert_eq!((frame.headroom(), frame.tailroom()), (*headroom, *tailroom));
            assert_eq!(frame.mark(), Mark(*mark));
            assert!(frame.bytes() == &self.mirror[*at..at + len], "bytes changed under a frame");
        }
        let mut ranges: Vec<_> = self.frames.iter().map(Live::range).collect();
        ranges.extend(self.trains.iter().map(|cutting| (cutting.at, cutting.at + cutting.left)));
        ranges.retain(|(from, to)| from < to);
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "overlap: {ranges:?}");
        for (one, other) in self.frames.iter().zip(self.frames.iter().skip(1)) {
            let side_by_side = one.at + one.len == other.at && one.chunk == other.chunk;
            assert_eq!(one.frame.adjoins(&other.frame), side_by_side);
        }
    }
}

fn run(input: &[u8]) {
    let mut input = Input(input);
    let pool_ends_first = input.byte() & 1 == 1;
    let mut pool = Pool::new();
    while !input.0.is_empty() {
        pool.do_next(&mut input);
        pool.check();
    }
    assert_eq!(pool.real.tally().frames_copied.read(), pool.copied);
    if pool_ends_first {
        // Frames outlive their pool. An empty pool replaces it here.
        let none = PoolSpec { trains: 0, singles: 0, huge_pages: false };
        let none = strowger_frame::Pool::new(&none).expect("memory");
        drop(std::mem::replace(&mut pool.real, none));
        pool.check();
        return;
    }
    while !pool.trains.is_empty() {
        pool.drop_train(0);
    }
    while !pool.frames.is_empty() {
        pool.drop_frame(0, false);
    }
    while let Some((held, chunks)) = pool.held.pop() {
        drop(held);
        chunks.into_iter().for_each(|chunk| pool.handles[chunk] -= 1);
    }
    pool.count_free();
    assert_eq!(pool.handles, [0; TRAINS + SINGLES]);
}

#[test]
fn frames_never_overlap_keep_their_bytes_and_return_to_the_pool() {
    check!().for_each(run);
}
