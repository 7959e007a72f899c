//! Tests the index logic against a model of the kernel, which acts in any order that the ring
//! permits and reports its progress with a delay. In half of the runs, the indices wrap soon.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64},
    },
};

use strowger_testkit::Rng;

use super::*;

/// A ring in ordinary memory that a simulated kernel on another thread can share.
#[derive(Clone)]
struct Heap(Arc<Shared>);

struct Shared {
    producer: AtomicU32,
    consumer: AtomicU32,
    flags: AtomicU32,
    items: Box<[AtomicU64]>,
}

impl Heap {
    fn new(size: usize, start: u32) -> Self {
        Self(Arc::new(Shared {
            producer: AtomicU32::new(start),
            consumer: AtomicU32::new(start),
            flags: AtomicU32::new(0),
            items: (0..size).map(|_| AtomicU64::new(u64::MAX)).collect(),
        }))
    }

    fn item(&self, index: u32) -> &AtomicU64 {
        &self.0.items[index as usize & (self.0.items.len() - 1)]
    }
}

impl Place for Heap {
    type Item = u64;
    type Index = AtomicU32;

    fn producer(&self) -> &AtomicU32 {
        &self.0.producer
    }
    fn consumer(&self) -> &AtomicU32 {
        &self.0.consumer
    }
    fn flags(&self) -> &AtomicU32 {
        &self.0.flags
    }
    fn size(&self) -> u32 {
        self.0.items.len() as u32
    }
    fn write(&mut self, index: u32, item: u64) {
        self.item(index).store(item, Ordering::Relaxed);
    }
    fn read(&self, index: u32) -> u64 {
        self.item(index).load(Ordering::Relaxed)
    }
}

#[test]
fn what_is_put_is_taken_once_and_in_order_by_a_lazy_kernel() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut below = |n: u32| rng.below(n as usize) as u32;
        let start = if seed % 2 == 0 { u32::MAX - below(40) } else { below(1 << 20) };
        let heap = Heap::new(1 << (1 + seed % 5), start);
        let (mut ring, size) = (Submit::new(heap.clone()), heap.size());
        // The model's state: items that are published and not taken, items that are appended and
        // not published, and items that the kernel has read but not yet reported.
        let (mut shown, mut hidden) = (VecDeque::new(), VecDeque::new());
        let (mut next, mut unreported) = (0_u64, 0_u32);
        for _ in 0..2000 {
            match below(4) {
                0 | 1 => {
                    let full = (shown.len() + hidden.len()) as u32 + unreported == size;
                    assert_eq!(ring.put(next), !full, "seed {seed}");
                    if !full {
                        hidden.push_back(next);
                        next += 1;
                    }
                    // The test rarely makes this call: it reads the kernel's index, and stale
                    // indices must be tested too.
                    if below(8) == 0 {
                        assert_eq!(ring.pending(), shown.len() as u32 + unreported, "seed {seed}");
                    }
                }
                2 => {
                    ring.publish();
                    shown.append(&mut hidden);
                    assert_eq!(ring.pending(), shown.len() as u32 + unreported, "seed {seed}");
                }
                _ => {
                    let producer = heap.producer().load(Ordering::Acquire);
                    let reported = heap.consumer().load(Ordering::Relaxed);
                    assert_eq!(producer.wrapping_sub(reported), shown.len() as u32 + unreported);
                    for _ in 0..below(1 + shown.len() as u32) {
                        assert_eq!(
                            Some(heap.read(reported.wrapping_add(unreported))),
                            shown.pop_front()
                        );
                        unreported += 1;
                    }
                    if below(3) == 0 {
                        heap.consumer().store(reported.wrapping_add(unreported), Ordering::Release);
                        unreported = 0;
                    }
                }
            }
        }
    }
}

#[test]
fn what_the_kernel_puts_is_taken_once_and_in_order() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let mut below = |n: u32| rng.below(n as usize) as u32;
        let start = if seed % 2 == 0 { u32::MAX - below(40) } else { below(1 << 20) };
        let mut heap = Heap::new(1 << (1 + seed % 5), start);
        let (mut ring, size) = (Collect::new(heap.clone()), heap.size());
        let (mut expected, mut next) = (VecDeque::new(), 0_u64);
        for _ in 0..2000 {
            match below(3) {
                0 => {
                    let producer = heap.producer().load(Ordering::Relaxed);
                    let consumer = heap.consumer().load(Ordering::Acquire);
                    if producer.wrapping_sub(consumer) < size {
                        heap.write(producer, next);
                        heap.producer().store(producer.wrapping_add(1), Ordering::Release);
                        expected.push_back(next);
                        next += 1;
                    }
                }
                1 => assert_eq!(ring.take(), expected.pop_front(), "seed {seed}"),
                _ => {
                    ring.release();
                    assert_eq!(ring.is_empty(), expected.is_empty(), "seed {seed}");
                }
            }
        }
    }
}

#[test]
fn an_index_that_makes_no_sense_is_not_believed() {
    let heap = Heap::new(4, 100);
    let mut ring = Submit::new(heap.clone());
    for n in 0..4 {
        assert!(ring.put(n));
    }
    ring.publish();
    for nonsense in [99, 105, 0, u32::MAX, 100 + (1 << 31)] {
        heap.consumer().store(nonsense, Ordering::Release);
        assert_eq!((ring.put(9), ring.pending()), (false, 4), "{nonsense}");
    }
    heap.consumer().store(103, Ordering::Release);
    assert_eq!((ring.room(4), ring.pending()), (3, 1));

    let heap = Heap::new(4, 100);
    let mut ring = Collect::new(heap.clone());
    for nonsense in [99, 105, 0] {
        heap.producer().store(nonsense, Ordering::Release);
        assert_eq!(ring.take(), None, "{nonsense}");
    }
}

#[test]
fn a_wakeup_is_wanted_when_the_kernel_says_so() {
    let heap = Heap::new(4, 0);
    let ring = Submit::new(heap.clone());
    assert!(!ring.wants_wakeup());
    heap.flags().store(libc::XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
    assert!(ring.wants_wakeup());
}

#[test]
fn two_threads_pass_items_through_both_sides() {
    const N: u64 = 300_000;
    let heap = Heap::new(64, u32::MAX - 1000);
    let (mut submit, mut collect) = (Submit::new(heap.clone()), Collect::new(heap));
    let taker = std::thread::spawn(move || {
        let mut expected = 0;
        while expected < N {
            while let Some(item) = collect.take() {
                assert_eq!(item, expected);
                expected += 1;
            }
            collect.release();
            std::thread::yield_now();
        }
    });
    let mut next = 0;
    while next < N {
        while next < N && submit.put(next) {
            next += 1;
        }
        submit.publish();
        std::thread::yield_now();
    }
    taker.join().unwrap();
}
