//! R13 for Ethernet ports: after they have been opened, forwarding does not allocate, even if
//! frames are lost.

use std::time::{Duration, Instant};

use strowger_frame::{Address, Burst, ChunkClass, Mark, Pool, Port, alloc};

use crate::veth::*;

const FRAMES: u64 = 50_000;

/// Fills a burst with the frames of a train, an empty frame, a frame of another pool and frames
/// that are too long.
fn fill(pool: &mut Pool, foreign: &mut Pool, burst: &mut Burst) {
    if let Some(chunk) = pool.take(ChunkClass::Train) {
        let start = chunk.start();
        let mut train = chunk.into_train(start, 3000, 100);
        burst.extend(std::iter::from_fn(|| train.next_frame()));
    }
    for (pool, len) in [(pool, 0), (foreign, 700)] {
        if let Some(chunk) = pool.take(ChunkClass::Single) {
            burst.push(chunk.into_frame(256, len));
        }
        if let Some(chunk) = pool.take(ChunkClass::Single) {
            burst.push(chunk.into_frame(256, 2000));
        }
    }
}

#[test]
fn r13_an_ethernet_port_allocates_nothing_after_it_is_open() {
    assert!(alloc::installed());
    for mode in RX_MODES {
        let veth = veth!();
        let (mut a, mut b) = stations(&veth, &spec("a0", mode), &spec("b0", mode));
        let mut foreign = pool_of(0, 64);
        let others: Vec<Address> = (0..60).map(|n| Address::Ether([2, 9, 9, 9, 9, n])).collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        let guard = alloc::forbid();
        let mut burst = Burst::new();
        let mut generation = 0_u16;
        while b.tally().frames_out.read() < FRAMES && Instant::now() < deadline {
            // In the meantime, neighbours are admitted and forgotten.
            let mark = Mark::new(1 + generation % 63, generation);
            let _ = a.port.admit(mark, others[usize::from(generation) % others.len()]);
            a.port.forget(mark);
            generation = generation.wrapping_add(1);

            fill(&mut a.pool, &mut foreign, &mut burst);
            a.port.tx_burst(Mark(0), &mut burst);
            burst.clear();
            a.port.flush();
            b.port.rx_burst(&mut b.pool, &mut burst);
            b.port.tx_burst(Mark(0), &mut burst);
            burst.clear();
            b.port.flush();
            a.port.rx_burst(&mut a.pool, &mut burst);
            burst.clear();
            if generation.is_multiple_of(64) {
                wait(&mut b.port, Duration::from_millis(1));
            }
        }
        assert_eq!(guard.calls(), 0);
        drop(guard);
        assert!(b.tally().frames_out.read() >= FRAMES, "{:?}", b.tally());
    }
}
