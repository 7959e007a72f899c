//! Counters with one writer and any number of readers. They need no locks and no read-modify-write
//! instructions.

use crate::sync::{AtomicU64, Ordering};

/// A count with one writing thread; any thread may read it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only one thread may call this. A second writer would lose counts, but would not
    /// violate memory safety.
    #[inline]
    pub fn add(&self, n: u64) {
        // Relaxed: a statistic, which publishes no other data.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Sets the count, for gauges such as a time of last use. It has the same single writer as
    /// [`add`](Self::add).
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The count as last written.
    #[inline]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_counter_adds_sets_and_reads() {
        let counter = Counter::default();
        counter.add(3);
        counter.add(4);
        assert_eq!(counter.read(), 7);
        counter.set(1);
        assert_eq!(counter.read(), 1);
    }
}
