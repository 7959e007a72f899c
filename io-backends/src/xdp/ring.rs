//! One side of a ring shared with the kernel: it puts descriptors (fill, transmit) or takes them
//! (receive, completion). It never blocks, never asserts what the kernel must do, and never looks
//! at the kernel's index more often than it has to.
//!
//! The indices run through all 32 bits and wrap; a place is an index under the mask. The layout and
//! the partners named at each ordering are those of Linux's `net/xdp/xsk_queue.h`.
//!
//! Public for the models in `loom-tests` alone, where the other side is played as that file has it.

use strowger_frame::sync::{Ordering, fence};

/// An index, or the flags, where both sides see them: an atomic of the standard library over the
/// kernel's mapping, or one of loom's.
pub trait Index {
    /// Reads it.
    fn load(&self, order: Ordering) -> u32;
    /// Writes it.
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

/// Where a ring lies: the kernel's mapping, or a test's memory.
pub trait Place {
    /// What the ring carries.
    type Item: Copy;
    /// What its indices are.
    type Index: Index;
    /// Items put so far, wrapping.
    fn producer(&self) -> &Self::Index;
    /// Items taken so far, wrapping.
    fn consumer(&self) -> &Self::Index;
    /// What the kernel says beside them.
    fn flags(&self) -> &Self::Index;
    /// How many items it has room for: a power of two.
    fn size(&self) -> u32;
    /// Writes the item at an index. Only for one that we own by the indices.
    fn write(&mut self, index: u32, item: Self::Item);
    /// Reads the item at an index. Only for one that we own by the indices.
    fn read(&self, index: u32) -> Self::Item;
}

/// The side that puts: we write, the kernel takes.
#[derive(Debug)]
pub struct Submit<P> {
    place: P,
    /// Put so far, published or not.
    next: u32,
    /// Published so far.
    published: u32,
    /// The kernel's index as we last saw it.
    taken: u32,
}

impl<P: Place> Submit<P> {
    /// Our side of a ring that nobody uses yet.
    pub fn new(place: P) -> Self {
        // Relaxed: the ring is new, and the kernel has not begun.
        let next = place.producer().load(Ordering::Relaxed);
        let taken = place.consumer().load(Ordering::Relaxed);
        Self { place, next, published: next, taken }
    }

    /// Places free, as far as the last look tells; looks again if they are fewer than `wanted`.
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
        // Acquire: pairs with `smp_store_release(&q->ring->consumer)` in `__xskq_cons_release`: the
        // kernel is done reading the places that it has freed.
        let taken = self.place.consumer().load(Ordering::Acquire);
        // An index that makes no sense would let us overwrite what is not yet taken: keep the old.
        if self.next.wrapping_sub(taken) <= self.next.wrapping_sub(self.taken) {
            self.taken = taken;
        }
    }

    /// Puts an item; `false`, and nothing done, without room. The kernel sees it once published.
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

    /// Shows the kernel all that was put.
    #[inline]
    pub fn publish(&mut self) {
        if self.published != self.next {
            self.published = self.next;
            // Release: pairs with `smp_load_acquire(&q->ring->producer)` in `__xskq_cons_peek`: the
            // items are written before the kernel reads them.
            self.place.producer().store(self.next, Ordering::Release);
        }
    }

    /// Items published that the kernel has not taken, as of now.
    #[inline]
    pub fn pending(&mut self) -> u32 {
        self.look();
        self.published.wrapping_sub(self.taken)
    }

    /// Whether the kernel must be told of what was published.
    #[inline]
    pub fn wants_wakeup(&self) -> bool {
        // SeqCst: the kernel sets its flag, then looks at the producer once more; we have published
        // and now look at the flag. Without it both could see the old.
        fence(Ordering::SeqCst);
        // Relaxed: the fence orders it; nothing is read behind it.
        self.place.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// The side that takes: the kernel writes, we read.
#[derive(Debug)]
pub struct Collect<P> {
    place: P,
    /// Taken so far.
    next: u32,
    /// Told the kernel so far.
    released: u32,
    /// The kernel's index as we last saw it.
    put: u32,
}

impl<P: Place> Collect<P> {
    /// Our side of a ring that nobody uses yet.
    pub fn new(place: P) -> Self {
        // Relaxed: the ring is new, and the kernel has not begun.
        let next = place.consumer().load(Ordering::Relaxed);
        Self { place, next, released: next, put: next }
    }

    #[inline]
    fn waiting(&mut self) -> u32 {
        if self.put == self.next {
            // Acquire: pairs with `smp_store_release(&q->ring->producer)` in `__xskq_prod_submit`:
            // the items are written before we read them.
            let put = self.place.producer().load(Ordering::Acquire);
            // An index that makes no sense would have us read what was never written.
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

    /// Gives the kernel the places of all that was taken.
    #[inline]
    pub fn release(&mut self) {
        if self.released != self.next {
            self.released = self.next;
            // Release: pairs with the control dependency on `READ_ONCE(q->ring->consumer)` in
            // `xskq_prod_nb_free`: we have read the items before the kernel writes over them.
            self.place.consumer().store(self.next, Ordering::Release);
        }
    }

    /// Whether nothing is waiting, as of now.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        self.waiting() == 0
    }
}

#[cfg(test)]
mod tests;
