//! The clock of a relay, based on `CLOCK_BOOTTIME`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use strowger_engine::Now;
use strowger_io::sys::clock::boottime;

/// The engine's time: nanoseconds since the clock was started. It must include the time in which
/// the machine is suspended, because keys also expire during that time.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Duration);

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self(boottime())
    }

    /// A clock whose current time is `now`.
    pub fn starting_at(now: Now) -> Self {
        Self(boottime().saturating_sub(std::time::Duration::from_nanos(now.0)))
    }

    /// The current time. It is never 0, because 0 means "never".
    pub fn now(&self) -> Now {
        Now(boottime().saturating_sub(self.0).as_nanos() as u64 + 1)
    }

    /// The wall-clock time at time 0 of this clock, in nanoseconds since 1970. `wall` is the
    /// current wall-clock time.
    pub fn wall_at_zero(&self, wall: SystemTime) -> u64 {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        since.saturating_sub(boottime().saturating_sub(self.0)).as_nanos() as u64
    }
}
