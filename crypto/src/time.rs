//! A point in time as the caller's clock counts it, and how far two lie apart. Never reads a clock.

use core::fmt;

/// Nanoseconds of a monotonic clock, from any beginning. Also a span between two of them.
///
/// Whoever drives this crate reads a clock once a burst and passes the reading in. A clock that
/// jumps back makes ages shorter, never negative; keys still end by their packet count.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The beginning.
    pub const ZERO: Nanos = Nanos(0);

    /// A whole number of seconds.
    pub const fn from_secs(seconds: u64) -> Nanos {
        Nanos(seconds.saturating_mul(1_000_000_000))
    }

    /// A whole number of milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Nanos {
        Nanos(milliseconds.saturating_mul(1_000_000))
    }

    /// The span from `earlier` to this point; zero if the clock has gone back.
    #[inline]
    pub const fn since(self, earlier: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point that lies `span` later; the end of time if there is none.
    #[inline]
    pub const fn plus(self, span: Nanos) -> Nanos {
        Nanos(self.0.saturating_add(span.0))
    }
}

impl fmt::Debug for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
