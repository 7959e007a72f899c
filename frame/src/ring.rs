//! A bounded, lock-free ring with a single producer and a single consumer. A push to a full ring
//! returns the item.
//!
//! The ring allocates only when it is made.
//!
//! Each side keeps its own cursor and a cached copy of the other side's cursor. It reads the shared
//! cursor only if the copy indicates that the ring is full or empty (as in the rings of DPDK and
//! Snabb). One store publishes a burst.
//!
//! ```
//! let (mut producer, mut consumer) = strowger_frame::ring::ring(2);
//! assert_eq!(producer.push(1), Ok(()));
//! assert_eq!(producer.push(2), Ok(()));
//! assert_eq!(producer.push(3), Err(3));
//! assert_eq!((consumer.pop(), consumer.pop(), consumer.pop()), (Some(1), Some(2), None));
//! ```

use std::mem::MaybeUninit;

use arrayvec::ArrayVec;

use crate::sync::{Arc, AtomicUsize, Ordering, UnsafeCell};

/// Keeps each cursor in its own pair of cache lines, because the hardware may prefetch the adjacent
/// line.
#[repr(align(128))]
struct Padded<T>(T);

struct Shared<T> {
    /// The number of items taken so far, wrapping. The consumer writes it.
    head: Padded<AtomicUsize>,
    /// The number of items pushed so far, wrapping. The producer writes it.
    tail: Padded<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: the cursors determine which side owns a slot, and only that side accesses it (see `push`
// and `pop`), so sharing requires only items that may move between threads.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}

/// The producer's side of a ring.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    head_seen: usize,
}

/// The consumer's side of a ring.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    tail_seen: usize,
}

impl<T> std::fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

/// Makes a ring for `capacity` items, rounded up to a power of two.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1).next_power_of_two();
    let shared = Arc::new(Shared {
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    let producer = Producer { shared: shared.clone(), tail: 0, head_seen: 0 };
    (producer, Consumer { shared, head: 0, tail_seen: 0 })
}

impl<T> Shared<T> {
    #[inline]
    fn slot(&self, cursor: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[cursor & (self.slots.len() - 1)]
    }
}

impl<T: Send> Producer<T> {
    /// A lower bound of the number of free places. It reads the consumer's cursor only if the
    /// cached copy shows fewer free places than `wanted`.
    #[inline]
    pub fn room(&mut self, wanted: usize) -> usize {
        let capacity = self.shared.slots.len();
        if capacity - self.tail.wrapping_sub(self.head_seen) < wanted {
            // Acquire: pairs with Release in `release`: the consumer is done with the slots it
            // freed.
            self.head_seen = self.shared.head.0.load(Ordering::Acquire);
        }
        capacity - self.tail.wrapping_sub(self.head_seen)
    }

    /// Pushes an item.
    ///
    /// # Errors
    /// Returns the item if the ring is full.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.room(1) == 0 {
            return Err(item);
        }
        self.put(item);
        self.publish();
        Ok(())
    }

    /// Pushes as many items from the front of `items` as the ring has room for. Returns the number
    /// of pushed items.
    ///
    /// One store publishes all of them.
    #[inline]
    pub fn push_burst<const N: usize>(&mut self, items: &mut ArrayVec<T, N>) -> usize {
        self.push_at_most(items, N)
    }

    /// As [`push_burst`](Self::push_burst), but at most `most` items.
    #[inline]
    pub fn push_at_most<const N: usize>(
        &mut self,
        items: &mut ArrayVec<T, N>,
        most: usize,
    ) -> usize {
        let wanted = items.len().min(most);
        let n = self.room(wanted).min(wanted);
        for item in items.drain(..n) {
            self.put(item);
        }
        self.publish();
        n
    }

    #[inline]
    fn put(&mut self, item: T) {
        self.shared.slot(self.tail).with_mut(|slot| {
            // SAFETY: `room` returned that the consumer freed this slot; the consumer cannot see it
            // again before `publish`.
            unsafe { (*slot).write(item) };
        });
        self.tail = self.tail.wrapping_add(1);
    }

    #[inline]
    fn publish(&mut self) {
        // Release: pairs with Acquire in `Consumer::waiting`: the items are written before the
        // consumer reads them.
        self.shared.tail.0.store(self.tail, Ordering::Release);
    }

    /// Whether there is room for `wanted` items, as far as this side sees.
    #[inline]
    pub fn has_room(&mut self, wanted: usize) -> bool {
        self.room(wanted) >= wanted
    }

    /// Whether the ring is full, as far as this side sees.
    #[inline]
    pub fn is_full(&mut self) -> bool {
        self.room(1) == 0
    }

    /// The number of items that the consumer has not taken, as far as this side sees.
    #[inline]
    pub fn waiting(&self) -> usize {
        // Relaxed: a hint; a push reads the cursor again with Acquire.
        self.tail.wrapping_sub(self.shared.head.0.load(Ordering::Relaxed))
    }

    /// As [`waiting`](Self::waiting), but from the cached cursor: an upper bound that needs no
    /// shared read.
    #[inline]
    pub fn waiting_seen(&self) -> usize {
        self.tail.wrapping_sub(self.head_seen)
    }

    /// The number of places.
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }

    /// Whether the consumer has been dropped.
    pub fn is_disconnected(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    /// Drops the items that a dropped consumer left, and returns their number. Returns `None` while
    /// the consumer exists.
    ///
    /// The ring's own memory is freed only when the producer is dropped, because a worker must not
    /// call the allocator.
    pub fn clear_disconnected(&mut self) -> Option<usize> {
        // `get_mut` comes after all accesses of the consumer, including its drop.
        let left = Arc::get_mut(&mut self.shared)?.clear();
        self.head_seen = self.tail;
        Some(left)
    }
}

impl<T: Send> Consumer<T> {
    #[inline]
    fn waiting(&mut self, wanted: usize) -> usize {
        if self.tail_seen.wrapping_sub(self.head) < wanted {
            // Acquire: pairs with Release in `publish`: the items are written before they are read
            // here.
            self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
        }
        self.tail_seen.wrapping_sub(self.head)
    }

    /// Pops the oldest item.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.waiting(1) == 0 {
            return None;
        }
        let item = self.take();
        self.release();
        Some(item)
    }

    /// Pops items until `items` is full or the ring is empty. Returns the number of popped items.
    #[inline]
    pub fn pop_burst<const N: usize>(&mut self, items: &mut ArrayVec<T, N>) -> usize {
        let n = self.waiting(items.remaining_capacity()).min(items.remaining_capacity());
        for _ in 0..n {
            let item = self.take();
            items.push(item);
        }
        self.release();
        n
    }

    #[inline]
    fn take(&mut self) -> T {
        let item = self.shared.slot(self.head).with(|slot| {
            // SAFETY: `waiting` returned that the producer wrote this slot; the producer does not
            // write it again before `release`, and this side reads it once.
            unsafe { slot.cast::<T>().read() }
        });
        self.head = self.head.wrapping_add(1);
        item
    }

    #[inline]
    fn release(&mut self) {
        // Release: pairs with Acquire in `room`: this side is done with the slots it freed.
        self.shared.head.0.store(self.head, Ordering::Release);
    }

    /// Whether no item is waiting, as far as this side sees.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        self.waiting(1) == 0
    }

    /// Whether the producer has been dropped. Items may still be waiting.
    pub fn is_disconnected(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }
}

impl<T> Shared<T> {
    /// Drops all items and returns their number.
    fn clear(&mut self) -> usize {
        // Acquire: the last use of each side comes before this; Arc's count ensures that too.
        let head = self.head.0.load(Ordering::Acquire);
        let tail = self.tail.0.load(Ordering::Acquire);
        // Relaxed: `&mut self` excludes other threads. The head is stored before the items are
        // dropped, so that a panic in a drop does not drop an item twice.
        self.head.0.store(tail, Ordering::Relaxed);
        let left = tail.wrapping_sub(head);
        for n in 0..left {
            self.slot(head.wrapping_add(n)).with_mut(|slot| {
                // SAFETY: every slot between head and tail holds an item, and `&mut self` excludes
                // other accesses.
                unsafe { std::ptr::drop_in_place(slot.cast::<T>()) };
            });
        }
        left
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn items_left_by_a_consumer_are_cleared_and_the_ring_is_reusable() {
        let item = std::sync::Arc::new(());
        let (mut producer, mut consumer) = ring(4);
        for _ in 0..3 {
            producer.push(item.clone()).expect("four places");
        }
        assert!(!producer.has_room(2));
        assert!(consumer.pop().is_some());
        assert!(producer.has_room(2));
        assert_eq!(producer.clear_disconnected(), None);
        drop(consumer);
        assert_eq!(producer.clear_disconnected(), Some(2));
        assert_eq!(
            (producer.clear_disconnected(), std::sync::Arc::strong_count(&item)),
            (Some(0), 1)
        );
        for _ in 0..4 {
            producer.push(item.clone()).expect("four places");
        }
        assert!(producer.is_full());
        drop(producer);
        assert_eq!(std::sync::Arc::strong_count(&item), 1);
    }

    #[test]
    fn items_arrive_in_order_across_threads() {
        let (mut producer, mut consumer) = ring::<u32>(64);
        const N: u32 = 200_000;
        let taker = std::thread::spawn(move || {
            let mut expected = 0;
            while expected < N {
                let mut burst = ArrayVec::<u32, 16>::new();
                consumer.pop_burst(&mut burst);
                for item in burst {
                    assert_eq!(item, expected);
                    expected += 1;
                }
            }
        });
        let mut next = 0;
        let mut burst = ArrayVec::<u32, 24>::new();
        while next < N || !burst.is_empty() {
            while next < N && !burst.is_full() {
                burst.push(next);
                next += 1;
            }
            producer.push_burst(&mut burst);
        }
        taker.join().expect("in order");
    }

    #[test]
    fn items_left_in_the_ring_are_dropped_once() {
        let item = std::sync::Arc::new(());
        let (mut producer, mut consumer) = ring(4);
        for _ in 0..4 {
            producer.push(item.clone()).expect("room for four");
        }
        assert!(producer.push(item.clone()).is_err());
        drop(consumer.pop());
        drop(producer);
        assert!(consumer.is_disconnected());
        drop(consumer);
        assert_eq!(std::sync::Arc::strong_count(&item), 1);
    }

    #[test]
    fn a_burst_beyond_the_capacity_is_pushed_in_part_and_in_order() {
        let (mut producer, mut consumer) = ring(2);
        let mut items: ArrayVec<u8, 4> = [1, 2, 3].into_iter().collect();
        assert_eq!(producer.push_burst(&mut items), 2);
        assert_eq!(items.as_slice(), [3]);
        assert!(producer.is_full());
        assert_eq!(consumer.pop(), Some(1));
        assert!(!producer.is_full());
        assert_eq!(producer.push_burst(&mut items), 1);
        assert_eq!((consumer.pop(), consumer.pop(), consumer.pop()), (Some(2), Some(3), None));
    }
}
