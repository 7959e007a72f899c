//! Our side of the AF_XDP rings, against a model of Linux's `net/xdp/xsk_queue.h`.
//!
//! The indices start just below their wrap.

use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use strowger_frame::sync::{AtomicUsize, Ordering, fence};
use strowger_io::xdp::ring::{Collect, Index, Place, Submit};

use crate::{Tracked, check, spawn};

/// Two places, so that three items overfill the ring.
const SIZE: u32 = 2;
/// `XDP_RING_NEED_WAKEUP`.
const NEED_WAKEUP: u32 = 1;

/// A 32-bit index. The side that stores it never loads it, so it needs no gate (README.md).
struct Cursor(AtomicUsize);

impl Index for Cursor {
    fn load(&self, order: Ordering) -> u32 {
        self.0.load(order) as u32
    }

    fn store(&self, value: u32, order: Ordering) {
        self.0.store(value as usize, order);
    }
}

/// Memory that both sides map. A place holds ordinary memory, accompanied by a cell that loom
/// tracks.
#[derive(Clone)]
struct Mapping(Arc<Inside>);

struct Inside {
    producer: Cursor,
    consumer: Cursor,
    flags: Cursor,
    items: [(AtomicU64, Tracked); SIZE as usize],
}

impl Mapping {
    /// The indices start at 2^32 - 1, so the second item has index 0.
    fn new() -> Self {
        let start = || Cursor(AtomicUsize::new(u32::MAX as usize));
        Self(Arc::new(Inside {
            producer: start(),
            consumer: start(),
            flags: Cursor(AtomicUsize::new(0)),
            items: array::from_fn(|_| (AtomicU64::new(u64::MAX), Tracked::new())),
        }))
    }

    fn item(&self, index: u32) -> &(AtomicU64, Tracked) {
        &self.0.items[(index % SIZE) as usize]
    }
}

impl Place for Mapping {
    type Item = u64;
    type Index = Cursor;

    fn producer(&self) -> &Cursor {
        &self.0.producer
    }

    fn consumer(&self) -> &Cursor {
        &self.0.consumer
    }

    fn flags(&self) -> &Cursor {
        &self.0.flags
    }

    fn size(&self) -> u32 {
        SIZE
    }

    fn write(&mut self, index: u32, item: u64) {
        let (bits, memory) = self.item(index);
        memory.write();
        bits.store(item, Relaxed);
    }

    fn read(&self, index: u32) -> u64 {
        let (bits, memory) = self.item(index);
        memory.read();
        bits.load(Relaxed)
    }
}

/// The kernel as consumer: `xskq_cons_peek_desc`, `xskq_cons_release`, `__xskq_cons_release`.
///
/// It reads our index again only after it has consumed all known items. Before that read, it
/// publishes its own index.
struct Taker {
    ring: Mapping,
    cached_producer: u32,
    cached_consumer: u32,
}

impl Taker {
    fn new(ring: &Mapping) -> Self {
        let start = u32::MAX;
        Self { ring: ring.clone(), cached_producer: start, cached_consumer: start }
    }

    fn take(&mut self) -> Option<u64> {
        if self.cached_producer == self.cached_consumer {
            // `xskq_cons_get_entries`: smp_store_release, then smp_load_acquire.
            self.ring.consumer().store(self.cached_consumer, Ordering::Release);
            self.cached_producer = self.ring.producer().load(Ordering::Acquire);
        }
        if self.cached_producer == self.cached_consumer {
            return None;
        }
        let item = self.ring.read(self.cached_consumer);
        self.cached_consumer = self.cached_consumer.wrapping_add(1);
        Some(item)
    }
}

/// The kernel as producer: `xskq_prod_nb_free`, `xskq_prod_reserve_desc`, `xskq_prod_submit`.
struct Putter {
    ring: Mapping,
    cached_producer: u32,
    cached_consumer: u32,
}

impl Putter {
    fn new(ring: &Mapping) -> Self {
        let start = u32::MAX;
        Self { ring: ring.clone(), cached_producer: start, cached_consumer: start }
    }

    fn put(&mut self, item: u64) -> bool {
        let free =
            |putter: &Self| SIZE - putter.cached_producer.wrapping_sub(putter.cached_consumer);
        if free(self) == 0 {
            // The kernel uses READ_ONCE and a control dependency to the write. Loom does not know
            // control dependencies, so the model uses Acquire, which is no weaker.
            self.cached_consumer = self.ring.consumer().load(Ordering::Acquire);
        }
        if free(self) == 0 {
            return false;
        }
        self.ring.write(self.cached_producer, item);
        self.cached_producer = self.cached_producer.wrapping_add(1);
        true
    }

    fn submit(&self) {
        self.ring.producer().store(self.cached_producer, Ordering::Release);
    }
}

/// Checks that the items are 0, 1, 2 and so on.
fn in_order(taken: &[u64]) {
    assert!(taken.iter().copied().eq(0..taken.len() as u64), "{taken:?}");
}

#[test]
fn the_kernel_takes_our_items_once_and_in_order() {
    check(|| {
        let ring = Mapping::new();
        let mut kernel = Taker::new(&ring);
        let mut submit = Submit::new(ring);
        let ours = spawn(move || {
            let mut put = 0;
            for _ in 0..3 {
                if submit.put(put) {
                    put += 1;
                }
                submit.publish();
            }
            (submit, put)
        });
        let mut taken: Vec<u64> = (0..3).filter_map(|_| kernel.take()).collect();
        let (mut submit, put) = ours.join().expect("no panic");
        taken.extend(std::iter::from_fn(|| kernel.take()));
        assert_eq!(taken.len() as u64, put);
        in_order(&taken);
        // By now the kernel has published that it consumed all items, across the wrap.
        assert_eq!((submit.pending(), submit.room(SIZE)), (0, SIZE));
    });
}

#[test]
fn we_take_the_kernels_items_once_and_in_order() {
    check(|| {
        let ring = Mapping::new();
        let mut kernel = Putter::new(&ring);
        let mut collect = Collect::new(ring);
        let kernel = spawn(move || {
            let mut put = 0;
            for _ in 0..3 {
                if kernel.put(put) {
                    put += 1;
                }
                kernel.submit();
            }
            (kernel, put)
        });
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.extend(collect.take());
            collect.release();
        }
        let (mut kernel, put) = kernel.join().expect("no panic");
        taken.extend(std::iter::from_fn(|| collect.take()));
        assert_eq!(taken.len() as u64, put);
        in_order(&taken);
        collect.release();
        assert!(collect.is_empty() && kernel.put(9) && kernel.put(9) && !kernel.put(9));
    });
}

/// The kernel sets its flag before it sleeps and checks once more. We publish and then read the
/// flag.
#[test]
fn the_kernel_sees_an_item_or_is_woken() {
    check(|| {
        let ring = Mapping::new();
        let mut kernel = Taker::new(&ring);
        let mut submit = Submit::new(ring.clone());
        let ours = spawn(move || {
            assert!(submit.put(0));
            submit.publish();
            submit.wants_wakeup()
        });
        // As in `xsk_set_tx_need_wakeup`. The fence represents the kernel's ordering of the flag
        // before its check.
        ring.flags().store(NEED_WAKEUP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let seen = kernel.take().is_some();
        let woken = ours.join().expect("no panic");
        assert!(seen || woken, "the kernel sleeps beside an item");
    });
}
