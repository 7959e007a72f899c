//! The time of a relay: nanoseconds since it started. Time in which the machine was suspended
//! counts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use strowger_engine::Now;
use strowger_io::sys::clock::boottime;

/// The engine's time: nanoseconds since the clock was made. It must include the time in which the
/// machine was suspended, because keys and peers age during that time, too.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Duration);

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self(boottime())
    }

    /// A clock that shows `now` at this moment.
    pub fn starting_at(now: Now) -> Self {
        Self(boottime().saturating_sub(std::time::Duration::from_nanos(now.0)))
    }

    /// The current time. It is never 0, so that 0 can mean "never".
    pub fn now(&self) -> Now {
        Now(boottime().saturating_sub(self.0).as_nanos() as u64 + 1)
    }

    /// The wall-clock time, in nanoseconds since 1970, at which this clock was 0, if the wall clock
    /// shows `wall` now.
    pub fn wall_at_zero(&self, wall: SystemTime) -> u64 {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        since.saturating_sub(boottime().saturating_sub(self.0)).as_nanos() as u64
    }
}
