//! Models of the pool. A chunk returns only after its last use in any thread. The last holder of a
//! chunk frees a dropped pool, exactly once.
//!
//! Chunks are real memory, which loom does not track, so a tracked cell accompanies each frame.

use strowger_frame::{
    Chunk, ChunkClass, Frame, HeldFrames, Pool, PoolSpec, pool::SINGLE_STRIDE_BYTES,
};

use crate::{Tracked, check, check_bounded, spawn};

fn pool(trains: u32, singles: u32) -> Pool {
    Pool::new(&PoolSpec { trains, singles, huge_pages: false }).expect("memory")
}

/// The index of this chunk among the single chunks of its pool.
fn number(pool: &Pool, chunk: &Chunk) -> usize {
    let offset = chunk.at().as_ptr().addr() - pool.mapping().at().as_ptr().addr();
    offset / SINGLE_STRIDE_BYTES
}

/// Makes a frame of an empty chunk and writes its bytes.
fn frame(chunk: Chunk, cell: &Tracked, byte: u8) -> Frame {
    let start = chunk.start();
    let mut frame = chunk.into_frame(start, 8);
    cell.write();
    frame.bytes_mut().fill(byte);
    frame
}

/// Reads, writes and drops a frame.
fn use_up(mut frame: Frame, cell: &Tracked, byte: u8) {
    cell.read();
    assert_eq!(frame.bytes(), [byte; 8]);
    cell.write();
    frame.bytes_mut().fill(0);
    drop(frame);
}

#[test]
fn a_chunk_returns_after_every_use_of_it() {
    check(|| {
        let mut pool = pool(0, 1);
        let cell = Tracked::new();
        let first = pool.take(ChunkClass::Single).expect("one");
        let first = frame(first, &cell, 7);
        let theirs = cell.clone();
        let user = spawn(move || use_up(first, &theirs, 7));
        // Meanwhile the owner tries to take the chunk, which may have returned.
        pool.reclaim();
        if let Some(chunk) = pool.take(ChunkClass::Single) {
            use_up(frame(chunk, &cell, 8), &cell, 8);
        }
        user.join().expect("no panic");
        assert_eq!(pool.free(ChunkClass::Single), 1);
    });
}

#[test]
fn chunks_returned_by_two_threads_and_the_owner_are_each_taken_once() {
    check_bounded(6, || {
        let mut pool = pool(0, 2);
        let cells = [Tracked::new(), Tracked::new()];
        let users: Vec<_> = (0..2)
            .map(|byte| {
                let chunk = pool.take(ChunkClass::Single).expect("two");
                let cell = cells[number(&pool, &chunk)].clone();
                let frame = frame(chunk, &cell, byte);
                spawn(move || use_up(frame, &cell, byte))
            })
            .collect();
        let taken = pool.take(ChunkClass::Single).map(|chunk| {
            let cell = &cells[number(&pool, &chunk)];
            let frame = frame(chunk, cell, 9);
            // The owner and the other thread may return frames to the stack at the same time.
            use_up(frame, cell, 9);
        });
        for user in users {
            user.join().expect("no panic");
        }
        let (one, two) = (pool.take(ChunkClass::Single), pool.take(ChunkClass::Single));
        let (one, two) = (one.expect("both are back"), two.expect("both are back"));
        assert_ne!(number(&pool, &one), number(&pool, &two));
        assert!(pool.take(ChunkClass::Single).is_none(), "{taken:?}");
    });
}

/// Makes a train of two frames, each with its own cell.
fn train(pool: &mut Pool) -> [(Frame, Tracked); 2] {
    let chunk = pool.take(ChunkClass::Train).expect("one");
    let start = chunk.start();
    let mut train = chunk.into_train(start, 16, 8);
    [0, 1].map(|byte| {
        let mut frame = train.next_frame().expect("two frames");
        let cell = Tracked::new();
        cell.write();
        frame.bytes_mut().fill(byte);
        (frame, cell)
    })
}

#[test]
fn a_train_in_two_threads_returns_when_both_are_done() {
    check(|| {
        let mut pool = pool(1, 0);
        let frames = train(&mut pool);
        let cells = [frames[0].1.clone(), frames[1].1.clone()];
        let [(first, first_cell), (second, second_cell)] = frames;
        let users = [
            spawn(move || use_up(first, &first_cell, 0)),
            spawn(move || use_up(second, &second_cell, 1)),
        ];
        if let Some(_again) = pool.take(ChunkClass::Train) {
            cells.iter().for_each(Tracked::write);
        }
        for user in users {
            user.join().expect("no panic");
        }
        assert_eq!(pool.free(ChunkClass::Train), 1);
    });
}

#[test]
fn a_train_shared_with_its_owner_returns() {
    check(|| {
        let mut pool = pool(1, 0);
        let [(first, first_cell), (second, second_cell)] = train(&mut pool);
        let (theirs, mine) = (first_cell.clone(), second_cell.clone());
        let user = spawn(move || use_up(first, &theirs, 0));
        use_up(second, &mine, 1);
        if let Some(_again) = pool.take(ChunkClass::Train) {
            first_cell.write();
            second_cell.write();
        }
        user.join().expect("no panic");
        assert_eq!(pool.free(ChunkClass::Train), 1);
    });
}

#[test]
fn frames_held_together_are_released_together() {
    check(|| {
        let mut pool = pool(1, 0);
        let chunk = pool.take(ChunkClass::Train).expect("one");
        let start = chunk.start();
        let mut train = chunk.into_train(start, 24, 8);
        let mut next = || train.next_frame().expect("three frames");
        let (mut held, second, mut third) = (HeldFrames::new(next()), next(), next());
        held.join(second).expect("of one chunk");
        let cells = [Tracked::new(), Tracked::new()];
        let theirs = cells[0].clone();
        let holder = spawn(move || {
            theirs.read();
            drop(held);
        });
        cells[1].write();
        third.bytes_mut().fill(3);
        drop(third);
        if let Some(_again) = pool.take(ChunkClass::Train) {
            cells.iter().for_each(Tracked::write);
        }
        holder.join().expect("no panic");
        assert_eq!(pool.free(ChunkClass::Train), 1);
    });
}

#[test]
fn a_pool_that_ends_first_is_freed_once_by_the_last_frame() {
    check(|| {
        let mut pool = pool(0, 2);
        let chunk = pool.take(ChunkClass::Single).expect("two");
        let cell = Tracked::new();
        let frame = frame(chunk, &cell, 5);
        let user = spawn(move || use_up(frame, &cell, 5));
        drop(pool);
        user.join().expect("no panic");
    });
}

#[test]
fn a_pool_that_ends_between_two_users_is_freed_once() {
    check_bounded(5, || {
        let mut pool = pool(0, 2);
        let users: Vec<_> = (0..2)
            .map(|byte| {
                let cell = Tracked::new();
                let frame = frame(pool.take(ChunkClass::Single).expect("two"), &cell, byte);
                spawn(move || use_up(frame, &cell, byte))
            })
            .collect();
        drop(pool);
        for user in users {
            user.join().expect("no panic");
        }
    });
}

#[test]
fn a_pool_that_ended_is_freed_by_the_last_of_two_users() {
    check(|| {
        let mut pool = pool(0, 2);
        let mut give = |byte| {
            let cell = Tracked::new();
            (frame(pool.take(ChunkClass::Single).expect("two"), &cell, byte), cell)
        };
        let [(first, first_cell), (second, second_cell)] = [give(0), give(1)];
        drop(pool);
        let user = spawn(move || use_up(first, &first_cell, 0));
        use_up(second, &second_cell, 1);
        user.join().expect("no panic");
    });
}
