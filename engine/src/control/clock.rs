//! The switch's own time, derived from the times that callers pass. It never goes back. After the
//! first call, one call advances it by at most one hour.

use std::sync::Arc;

use strowger_frame::tally::Counter;

use crate::{
    Now,
    limits::{CLOCK_STEP_MAX_NS, QUARANTINE_STEP_MAX_NS},
};

/// The time that timers, the age of keys and the validation of addresses are based on. If the
/// caller's clock is set back, this time stands still for one call. If it is set far forward, this
/// time advances by [`CLOCK_STEP_MAX_NS`].
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The last time that the caller passed.
    caller: Option<u64>,
    now: u64,
    quarantine: u64,
    /// The difference that workers add to the time of their caller, with wrapping addition.
    skew: Arc<Counter>,
}

impl Clock {
    /// Advances to the caller's time. Returns the switch's time.
    pub(super) fn advance(&mut self, caller: Now) -> Now {
        let step = match self.caller.replace(caller.0) {
            Some(before) => caller.0.saturating_sub(before).min(CLOCK_STEP_MAX_NS),
            None => caller.0.min(u64::MAX / 2),
        };
        self.now = self.now.saturating_add(step);
        self.quarantine = self.quarantine.saturating_add(step.min(QUARANTINE_STEP_MAX_NS));
        self.skew.set(self.now.wrapping_sub(caller.0));
        Now(self.now)
    }

    /// The time of the last call of [`advance`](Self::advance).
    pub(super) fn now(&self) -> Now {
        Now(self.now)
    }

    /// The caller's time at which this clock reaches `due`, provided that the caller's clock runs
    /// steadily.
    pub(super) fn caller_time(&self, due: Now) -> Now {
        Now(self.caller.unwrap_or(0).saturating_add(due.0.saturating_sub(self.now)))
    }

    /// Like [`caller_time`](Self::caller_time), but `due` is a time of the quarantine clock. The
    /// result is at most [`QUARANTINE_STEP_MAX_NS`] ahead, because one call advances that clock by no
    /// more.
    pub(super) fn caller_quarantine_time(&self, due: Now) -> Now {
        let ahead = due.0.saturating_sub(self.quarantine).min(QUARANTINE_STEP_MAX_NS);
        Now(self.caller.unwrap_or(0).saturating_add(ahead))
    }

    /// The time for quarantines. A jump of the caller's clock advances it by at most
    /// [`QUARANTINE_STEP_MAX_NS`], so a jump may lengthen a quarantine but hardly shortens one
    /// (R1).
    pub(super) fn quarantine_now(&self) -> Now {
        Now(self.quarantine)
    }

    /// The value of [`quarantine_now`](Self::quarantine_now) if the clock were advanced to this
    /// time of the caller. The clock itself is not advanced.
    pub(super) fn quarantine_at(&self, caller: Now) -> Now {
        let step = self.caller.map_or(0, |before| caller.0.saturating_sub(before));
        Now(self.quarantine.saturating_add(step.min(QUARANTINE_STEP_MAX_NS)))
    }

    /// The difference that workers add to the time of their caller.
    pub(super) fn skew(&self) -> Arc<Counter> {
        Arc::clone(&self.skew)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back_and_never_leaps() {
        let mut clock = Clock::default();
        assert_eq!(clock.advance(Now(1_000)), Now(1_000));
        assert_eq!(clock.advance(Now(1_010)), Now(1_010));
        assert_eq!(clock.advance(Now(5)), Now(1_010), "set back");
        assert_eq!(clock.advance(Now(25)), Now(1_030));
        assert_eq!(25_u64.wrapping_add(clock.skew().read()), 1_030);
        assert_eq!(clock.advance(Now(u64::MAX)), Now(1_030 + CLOCK_STEP_MAX_NS), "set far forward");
        assert_eq!(clock.advance(Now(7)), Now(1_030 + CLOCK_STEP_MAX_NS));
        assert_eq!(clock.advance(Now(8)), Now(1_031 + CLOCK_STEP_MAX_NS));
    }

    #[test]
    fn a_leap_of_the_clock_hardly_advances_the_time_of_quarantines() {
        let mut clock = Clock::default();
        clock.advance(Now(u64::MAX / 2));
        let begun = clock.quarantine_now();
        assert_eq!(clock.advance(Now(u64::MAX / 2 + 7)), clock.now());
        assert_eq!(clock.quarantine_now(), Now(begun.0 + 7));
        clock.advance(Now(3));
        assert_eq!(clock.quarantine_now(), Now(begun.0 + 7), "set back");
        assert_eq!(clock.quarantine_at(Now(1 << 60)), Now(begun.0 + 7 + QUARANTINE_STEP_MAX_NS));
        clock.advance(Now(1 << 60));
        assert_eq!(
            clock.quarantine_now(),
            Now(begun.0 + 7 + QUARANTINE_STEP_MAX_NS),
            "set far forward"
        );
    }
}
