//! The switch's own time, made of what callers say the time is: it never goes back, and never leaps.

use std::sync::Arc;

use strowger_frame::tally::Counter;

use crate::{
    Now,
    limits::{CLOCK_STEP_MAX_NS, QUARANTINE_STEP_MAX_NS},
};

/// Time as timers, keys and addresses are judged by. A clock that was set back stands still for the
/// moment of the jump; one that was set far forward has gone by [`CLOCK_STEP_MAX_NS`].
#[derive(Debug, Default)]
pub(super) struct Clock {
    said: Option<u64>,
    now: u64,
    quarantine: u64,
    /// What workers add to the time that they are told, wrapping.
    skew: Arc<Counter>,
}

impl Clock {
    /// The caller says that it is `said` now.
    pub(super) fn advance(&mut self, said: Now) -> Now {
        let step = match self.said.replace(said.0) {
            Some(before) => said.0.saturating_sub(before).min(CLOCK_STEP_MAX_NS),
            None => said.0.min(u64::MAX / 2),
        };
        self.now = self.now.saturating_add(step);
        self.quarantine = self.quarantine.saturating_add(step.min(QUARANTINE_STEP_MAX_NS));
        self.skew.set(self.now.wrapping_sub(said.0));
        Now(self.now)
    }

    /// The time of the last turn.
    pub(super) fn now(&self) -> Now {
        Now(self.now)
    }

    /// When the caller's clock shows that this time has come, if it goes on from the last turn.
    pub(super) fn caller_time(&self, due: Now) -> Now {
        Now(self.said.unwrap_or(0).saturating_add(due.0.saturating_sub(self.now)))
    }

    /// The same of time as numbers rest by, of which one step counts for [`QUARANTINE_STEP_MAX_NS`] at most.
    pub(super) fn caller_quarantine_time(&self, due: Now) -> Now {
        let ahead = due.0.saturating_sub(self.quarantine).min(QUARANTINE_STEP_MAX_NS);
        Now(self.said.unwrap_or(0).saturating_add(ahead))
    }

    /// Time as numbers rest by: where the clock leapt, it has hardly gone on. So a leap lengthens a
    /// quarantine, and never ends one early (R1).
    pub(super) fn quarantine_now(&self) -> Now {
        Now(self.quarantine)
    }

    /// The same when it is `said`, without a turn.
    pub(super) fn quarantine_at(&self, said: Now) -> Now {
        let step = self.said.map_or(0, |before| said.0.saturating_sub(before));
        Now(self.quarantine.saturating_add(step.min(QUARANTINE_STEP_MAX_NS)))
    }

    /// For the workers.
    pub(super) fn skew(&self) -> Arc<Counter> {
        Arc::clone(&self.skew)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_where_it_is_whatever_is_said() {
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
    fn numbers_rest_by_a_time_that_hardly_goes_on_where_the_clock_leaps() {
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
