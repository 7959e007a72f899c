//! The times of a session.

use crate::limits::{
    ATTEMPT_LIFE, ATTEMPTS_PER_PAUSE, CONFIRM_AFTER_MSG3, DOUBLINGS_WHILE_SEALING, JITTER_PARTS,
    OPEN_REFUSED_AFTER, REKEY_AFTER, REKEY_AFTER_AS_RESPONDER, REKEY_SPACING, RETRY_AFTER,
    RETRY_AFTER_MAX, RETRY_AFTER_SLOW, SEAL_REFUSED_AFTER,
};
use crate::time::Nanos;

/// The times that a session uses. The ages at which sealers and openers refuse packets are not
/// among them: they are the same everywhere ([`SEAL_REFUSED_AFTER`], [`OPEN_REFUSED_AFTER`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimes {
    /// Age of keys at which their initiator starts a new handshake.
    pub rekey_after: Nanos,
    /// Age of keys at which their responder starts a new handshake.
    pub rekey_after_as_responder: Nanos,
    /// Shortest time between two generations of keys.
    pub rekey_spacing: Nanos,
    /// First pause between two attempts.
    pub retry_after: Nanos,
    /// Longest first pause on a path with a long measured round trip.
    pub retry_after_slow: Nanos,
    /// Longest pause between two attempts without keys, jitter included.
    pub retry_after_max: Nanos,
    /// The number of attempts after which the pause doubles.
    pub attempts_per_pause: u32,
    /// The number of times that the pause doubles while there are valid keys.
    pub doublings_while_sealing: u32,
    /// Each pause grows by a random part of up to one in this number: 3 for a third.
    pub jitter_parts: u64,
    /// The time for which one attempt waits for a response.
    pub attempt_life: Nanos,
    /// The time for which an unanswered own attempt wins against an initiation of the peer.
    pub crossing: Nanos,
    /// Delay of the first confirmation after the third message of XX.
    pub confirm_after_msg3: Nanos,
    /// Time between two confirmations.
    pub confirm_every: Nanos,
}

impl SessionTimes {
    /// The times of links (wire.md W4-97).
    pub const LINK: SessionTimes = SessionTimes {
        rekey_after: REKEY_AFTER,
        rekey_after_as_responder: REKEY_AFTER_AS_RESPONDER,
        rekey_spacing: REKEY_SPACING,
        retry_after: RETRY_AFTER,
        retry_after_slow: RETRY_AFTER_SLOW,
        retry_after_max: RETRY_AFTER_MAX,
        attempts_per_pause: ATTEMPTS_PER_PAUSE,
        doublings_while_sealing: DOUBLINGS_WHILE_SEALING,
        jitter_parts: JITTER_PARTS,
        attempt_life: ATTEMPT_LIFE,
        crossing: RETRY_AFTER,
        confirm_after_msg3: CONFIRM_AFTER_MSG3,
        confirm_every: RETRY_AFTER,
    };

    /// The times of connections: those of links, except that attempts follow each other faster
    /// (wire.md W6-15). A user waits for a connection.
    ///
    /// The longest pause is 6.4 s, or 8 s with its jitter of a quarter.
    pub const CONNECTION: SessionTimes = SessionTimes {
        retry_after: Nanos(400_000_000),
        retry_after_max: Nanos::from_secs(8),
        retry_after_slow: Nanos::from_secs(3),
        attempts_per_pause: 1,
        jitter_parts: 4,
        ..SessionTimes::LINK
    };

    /// Whether the times fit each other and the ages of keys: a session whose times do not fit
    /// would let keys expire while a new handshake runs, or divide by zero.
    pub const fn are_consistent(&self) -> bool {
        self.rekey_after.0 < self.rekey_after_as_responder.0
            && self.rekey_after_as_responder.0 + 30 * self.retry_after.0 < SEAL_REFUSED_AFTER.0
            && SEAL_REFUSED_AFTER.0 + self.attempt_life.0 <= OPEN_REFUSED_AFTER.0
            && self.rekey_spacing.0 < self.rekey_after.0
            && self.retry_after.0 <= self.retry_after_slow.0
            && self.retry_after_slow.0 * 2 < self.retry_after_max.0
            && self.attempts_per_pause > 0
            && self.jitter_parts > 0
            && self.retry_after.0 >= self.jitter_parts
            && self.confirm_every.0 > 0
    }

    /// The longest pause without its jitter.
    pub(super) const fn longest_pause(&self) -> u64 {
        self.retry_after_max.0 / (self.jitter_parts + 1) * self.jitter_parts
    }
}

impl Default for SessionTimes {
    /// The times of links.
    fn default() -> SessionTimes {
        SessionTimes::LINK
    }
}

const _: () = assert!(SessionTimes::LINK.are_consistent());
const _: () = assert!(SessionTimes::CONNECTION.are_consistent());

#[cfg(test)]
mod tests {
    use super::*;

    /// wire.md: W4-97.
    #[test]
    fn the_default_is_that_of_links() {
        let times = SessionTimes::default();
        assert_eq!(times, SessionTimes::LINK);
        assert_eq!(times.retry_after, Nanos::from_secs(1));
        assert_eq!(times.longest_pause(), Nanos::from_secs(12).0);
    }

    /// wire.md: W6-123.
    #[test]
    fn pauses_of_connections_double_from_two_fifths_of_a_second_to_eight_seconds() {
        let times = SessionTimes::CONNECTION;
        assert_eq!(times.longest_pause(), times.retry_after.0 * 16);
        let with_jitter = times.longest_pause() + times.longest_pause() / times.jitter_parts;
        assert_eq!(Nanos(with_jitter), Nanos::from_secs(8));
    }

    /// wire.md: W6-124.
    #[test]
    fn a_connection_has_the_times_of_a_link_except_for_the_intervals() {
        let link = SessionTimes::LINK;
        let with_the_intervals_of_links = SessionTimes {
            retry_after: link.retry_after,
            retry_after_slow: link.retry_after_slow,
            retry_after_max: link.retry_after_max,
            attempts_per_pause: link.attempts_per_pause,
            jitter_parts: link.jitter_parts,
            ..SessionTimes::CONNECTION
        };
        assert_eq!(with_the_intervals_of_links, link);
    }

    #[test]
    fn inconsistent_times_are_detected() {
        let changed = |change: fn(&mut SessionTimes)| {
            let mut times = SessionTimes::LINK;
            change(&mut times);
            times.are_consistent()
        };
        assert!(changed(|_| ()));
        assert!(!changed(|times| times.rekey_after = times.rekey_after_as_responder));
        assert!(!changed(|times| times.rekey_after_as_responder = SEAL_REFUSED_AFTER));
        assert!(!changed(|times| times.attempt_life = Nanos(ATTEMPT_LIFE.0 + 1)));
        assert!(!changed(|times| times.rekey_spacing = times.rekey_after));
        assert!(!changed(|times| times.retry_after_slow = Nanos(times.retry_after.0 - 1)));
        assert!(!changed(|times| times.retry_after_max = Nanos(2 * times.retry_after_slow.0)));
        assert!(!changed(|times| times.attempts_per_pause = 0));
        assert!(!changed(|times| times.jitter_parts = 0));
        assert!(!changed(|times| times.retry_after = Nanos(times.jitter_parts - 1)));
        assert!(!changed(|times| times.confirm_every = Nanos(0)));
    }
}
