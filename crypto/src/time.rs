//! Time, as read from the caller's clock. This crate never reads a clock.

use core::fmt;

/// Nanoseconds of a monotonic clock, whose zero is arbitrary. The type also holds spans between two
/// readings.
///
/// The caller reads its clock once per burst and passes the reading as an argument. If the clock
/// jumps back, ages become shorter but never negative; keys still expire by their packet count.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The zero of the clock.
    pub const ZERO: Nanos = Nanos(0);

    /// A span of this number of seconds.
    pub const fn from_secs(seconds: u64) -> Nanos {
        Nanos(seconds.saturating_mul(1_000_000_000))
    }

    /// A span of this number of milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Nanos {
        Nanos(milliseconds.saturating_mul(1_000_000))
    }

    /// The span since `earlier`; zero if the clock went back.
    #[inline]
    pub const fn since(self, earlier: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time `span` later, or the last possible time if that overflows.
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
