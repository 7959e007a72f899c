//! One side of a ring shared with the kernel.
//!
//! This side either appends items (fill, transmit) or takes them (receive, completion). It does not
//! block, does not trust the kernel's index, and reads that index only if necessary.
//!
//! The indices use all 32 bits and wrap. The position of an index is `index & mask`. The layout,
//! and the functions named in comments on memory ordering, are those of Linux's
//! `net/xdp/xsk_queue.h`.
//!
//! The module is public only for the models in `loom-tests`, which implement the kernel's side as
//! `xsk_queue.h` does.

use strowger_frame::sync::{Ordering, fence};

/// An index or the flags of a ring, shared with the kernel: a standard atomic in the kernel's
/// mapping, or one of loom's.
pub trait Index {
    /// Loads the value.
    fn load(&self, order: Ordering) -> u32;
    /// Stores a value.
    fn store(&self, value: u32, order: Ordering);
}

impl Index for std::sync::atomic::AtomicU32 {
    #[inline]
    fn load(&self, order: Ordering) -> u32 {
        Self::load(self, order)
    }

    #[inline]
    fn store(&self, value: u32, order: Ordering) {
        Self::store(self, value, order);
    }
}

/// The memory of a ring: the kernel's mapping, or a test's memory.
pub trait Place {
    /// The items of the ring.
    type Item: Copy;
    /// The type of its indices.
    type Index: Index;
    /// Number of items appended so far, wrapping.
    fn producer(&self) -> &Self::Index;
    /// Number of items taken so far, wrapping.
    fn consumer(&self) -> &Self::Index;
    /// Flags that the kernel sets.
    fn flags(&self) -> &Self::Index;
    /// Maximum number of items that the ring holds. It is a power of two.
    fn size(&self) -> u32;
    /// Writes the item at an index, which must belong to this side.
    fn write(&mut self, index: u32, item: Self::Item);
    /// Reads the item at an index, which must belong to this side.
    fn read(&self, index: u32) -> Self::Item;
}

/// The appending side: this side writes, and the kernel takes.
#[derive(Debug)]
pub struct Submit<P> {
    place: P,
    /// Number of items appended so far, whether published or not.
    next: u32,
    /// Number of items published so far.
    published: u32,
    /// The kernel's index when it was last read.
    taken: u32,
}

impl<P: Place> Submit<P> {
    /// Begins to use this side of a new ring.
    pub fn new(place: P) -> Self {
        // Relaxed: the ring is new, and the kernel does not use it yet.
        let next = place.producer().load(Ordering::Relaxed);
        let taken = place.consumer().load(Ordering::Relaxed);
        Self { place, next, published: next, taken }
    }

    /// Number of free positions. Reads the kernel's index again if there seem to be fewer than
    /// `wanted`.
    #[inline]
    pub fn room(&mut self, wanted: u32) -> u32 {
        if self.free() < wanted {
            self.look();
        }
        self.free()
    }

    #[inline]
    fn free(&self) -> u32 {
        self.place.size() - self.next.wrapping_sub(self.taken)
    }

    #[inline]
    fn look(&mut self) {
        // Acquire: pairs with `smp_store_release(&q->ring->consumer)` in `__xskq_cons_release`, so
        // the kernel has finished reading the positions that it freed.
        let taken = self.place.consumer().load(Ordering::Acquire);
        // Ignore an impossible index, which would let us overwrite items that are not yet taken.
        if self.next.wrapping_sub(taken) <= self.next.wrapping_sub(self.taken) {
            self.taken = taken;
        }
    }

    /// Appends an item. Returns `false` if there is no room. The kernel sees the item only after
    /// `publish`.
    #[inline]
    #[must_use]
    pub fn put(&mut self, item: P::Item) -> bool {
        if self.room(1) == 0 {
            return false;
        }
        self.place.write(self.next, item);
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Makes all appended items visible to the kernel.
    #[inline]
    pub fn publish(&mut self) {
        if self.published != self.next {
            self.published = self.next;
            // Release: pairs with `smp_load_acquire(&q->ring->producer)` in `__xskq_cons_peek`, so
            // the items are written before the kernel reads them.
            self.place.producer().store(self.next, Ordering::Release);
        }
    }

    /// Number of published items that the kernel has not yet taken.
    #[inline]
    pub fn pending(&mut self) -> u32 {
        self.look();
        self.published.wrapping_sub(self.taken)
    }

    /// Whether a system call is needed to make the kernel process the published items.
    #[inline]
    pub fn wants_wakeup(&self) -> bool {
        // SeqCst: the kernel sets its flag and then reads the producer again; we publish and then
        // read the flag. Without the fence both could miss the other's write.
        fence(Ordering::SeqCst);
        // Relaxed: the fence orders this load, and no other data depends on the flag.
        self.place.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// The taking side: the kernel writes, and this side reads.
#[derive(Debug)]
pub struct Collect<P> {
    place: P,
    /// Number of items taken so far.
    next: u32,
    /// Number of items whose positions were returned to the kernel.
    released: u32,
    /// The kernel's index when it was last read.
    put: u32,
}

impl<P: Place> Collect<P> {
    /// Begins to use this side of a new ring.
    pub fn new(place: P) -> Self {
        // Relaxed: the ring is new, and the kernel does not use it yet.
        let next = place.consumer().load(Ordering::Relaxed);
        Self { place, next, released: next, put: next }
    }

    #[inline]
    fn waiting(&mut self) -> u32 {
        if self.put == self.next {
            // Acquire: pairs with `smp_store_release(&q->ring->producer)` in `__xskq_prod_submit`,
            // so the items are written before we read them.
            let put = self.place.producer().load(Ordering::Acquire);
            // Ignore an impossible index, which would let us read items that were not written.
            if put.wrapping_sub(self.next) <= self.place.size() {
                self.put = put;
            }
        }
        self.put.wrapping_sub(self.next)
    }

    /// Takes the oldest item.
    #[inline]
    pub fn take(&mut self) -> Option<P::Item> {
        if self.waiting() == 0 {
            return None;
        }
        let item = self.place.read(self.next);
        self.next = self.next.wrapping_add(1);
        Some(item)
    }

    /// Returns the positions of all taken items to the kernel.
    #[inline]
    pub fn release(&mut self) {
        if self.released != self.next {
            self.released = self.next;
            // Release: pairs with the control dependency on `READ_ONCE(q->ring->consumer)` in
            // `xskq_prod_nb_free`, so we have read the items before the kernel overwrites them.
            self.place.consumer().store(self.next, Ordering::Release);
        }
    }

    /// Whether no item is waiting.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        self.waiting() == 0
    }
}

#[cfg(test)]
mod tests;
