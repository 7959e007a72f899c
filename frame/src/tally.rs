//! Counters with one writer and any number of readers. They never lock and never need a
//! read-modify-write instruction, since only one thread adds to each.

use crate::sync::{AtomicU64, Ordering};

/// A count that one thread raises and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises the count by `n`. Only the one writer may call this; a second writer would lose
    /// counts (never memory safety).
    #[inline]
    pub fn add(&self, n: u64) {
        // Relaxed: a statistic, read by others with no data behind it.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Sets the count; for gauges such as a time of last use. Same single writer as [`add`](Self::add).
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
