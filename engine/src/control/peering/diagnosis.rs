//! The reason why a link is not up, as far as handshake attempts and the responses to them show it.
//! The reason is only for operators; no decision depends on it.

use std::fmt;

use strowger_crypto::{
    PeerId, StaticPublic,
    handshake::{Disagreement, Refused},
};
use strowger_frame::Address;

use crate::{Now, discard::Discard};

/// The age, in nanoseconds, above which evidence is ignored. The longest pause between two attempts
/// is 16 s (W4-11), and the messages of three attempts may be lost.
const EVIDENCE_KEPT_NS: u64 = 60_000_000_000;

/// The number of attempts after which an event reports silence as the reason: the first attempts
/// may have been lost.
const ATTEMPTS_BEFORE_REPORT: u32 = 3;

/// The minimum time, in nanoseconds (one minute), between two events about another node with the
/// peer's key.
const REFUSALS_REPORTED_EVERY_NS: u64 = 60_000_000_000;

/// The reason why a link is not up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownReason {
    /// No address of the peer is known. The peer must begin the handshake.
    NoAddress,
    /// A handshake is in progress.
    Connecting {
        /// The number of initiations sent since the link was last up.
        attempts: u32,
    },
    /// Initiations were sent, and no response arrived.
    NoAnswer {
        /// The destination of the last initiation.
        to: Address,
        /// The number of initiations sent since the link was last up.
        attempts: u32,
        /// The time at which the first of them was sent.
        since: Now,
    },
    /// The kernel refuses to send to the peer's address.
    Unreachable {
        /// The address.
        to: Address,
        /// The error number (`errno.h`).
        errno: i32,
    },
    /// A node at the peer's address has a static key that differs from the configured one.
    OtherKey {
        /// The static key of that node.
        key: StaticPublic,
    },
    /// Handshakes from the peer's address are for a static key other than this node's.
    NotForUs,
    /// Handshakes from the peer's address are for this node's key, but in a network with another
    /// name.
    OtherNetwork,
    /// The peer's response cannot be decrypted, because the peer has another psk.
    OtherPsk,
    /// The peer begins handshakes but uses none of their keys. Either it has another psk, or this
    /// node's responses do not reach it.
    NoConfirmation {
        /// The number of responses sent since the link was last up.
        answers: u32,
    },
    /// The timestamps of the peer's initiations are not later than the last accepted one: the
    /// peer's clock is behind, or the initiations are replayed.
    StampRefused,
    /// Both ends are authentic, but have no version, suite, label width or seal mode in common.
    Disagreement(Disagreement),
    /// A node with the peer's key has proved another identity than the expected one.
    OtherIdentity(PeerId),
    /// The peer's handshake was refused for another reason.
    Refused(Refused),
    /// The peer has ended the link with a goodbye.
    Goodbye {
        /// The time in seconds from the goodbye in which this node begins no handshake.
        pause_s: u32,
        /// This node begins no handshake before this time.
        until: Now,
    },
}

impl DownReason {
    /// The name of the reason in JSON and logs: lower case, underscores.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoAddress => "no_address",
            Self::Connecting { .. } => "connecting",
            Self::NoAnswer { .. } => "no_answer",
            Self::Unreachable { .. } => "unreachable",
            Self::OtherKey { .. } => "other_key",
            Self::NotForUs => "not_for_us",
            Self::OtherNetwork => "other_network",
            Self::OtherPsk => "other_psk",
            Self::NoConfirmation { .. } => "no_confirmation",
            Self::StampRefused => "stamp_refused",
            Self::Disagreement(_) => "disagreement",
            Self::OtherIdentity(_) => "other_identity",
            Self::Refused(_) => "refused",
            Self::Goodbye { .. } => "goodbye",
        }
    }

    /// The time of the first unanswered handshake, if silence is the reason.
    pub const fn since(&self) -> Option<Now> {
        match self {
            Self::NoAnswer { since, .. } => Some(*since),
            _ => None,
        }
    }

    /// The reason why the sender's link is not up, if a refused handshake message shows one.
    pub(super) fn of_refusal(why: Refused) -> Option<Self> {
        Some(match why {
            Refused::WrongMac => Self::NotForUs,
            Refused::OtherNetwork => Self::OtherNetwork,
            Refused::Stale => Self::StampRefused,
            Refused::Disagreement(what) => Self::Disagreement(what),
            Refused::OtherIdentity(who) => Self::OtherIdentity(who),
            Refused::OtherPeer | Refused::Identity(_) | Refused::Hello(_) | Refused::Ourselves => {
                Self::Refused(why)
            }
            // Invalid messages, late responses and full tables prove nothing about the peer.
            Refused::Malformed
            | Refused::NotOurs
            | Refused::Unreadable
            | Refused::OtherIndex
            | Refused::Busy
            | Refused::XxMemoryFull
            | Refused::OwnHelloTooLong => return None,
        })
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress => {
                f.write_str("no address is known: the peer has to begin the handshake")
            }
            Self::Connecting { attempts: 0 } => f.write_str("no handshake has begun yet"),
            Self::Connecting { attempts } => write!(f, "handshake under way, attempt {attempts}"),
            Self::NoAnswer { to, attempts, .. } => {
                write!(f, "no answer from {to} to {attempts} handshakes")
            }
            Self::Unreachable { to, errno } => {
                let why = std::io::Error::from_raw_os_error(*errno);
                write!(f, "address {to} is not reachable: {why}")
            }
            Self::OtherKey { key } => {
                write!(f, "the node at the peer's address has another key: {key}")
            }
            Self::NotForUs => f.write_str(
                "handshakes from the peer's address are for another key than ours: \
                 check the key that the peer has for this node",
            ),
            Self::OtherNetwork => f.write_str(
                "handshakes from the peer's address are for a network of another name: \
                 check `network` at both ends",
            ),
            Self::OtherPsk => {
                f.write_str("the peer's answer cannot be decrypted: check `psk` at both ends")
            }
            Self::NoConfirmation { answers } => write!(
                f,
                "the peer has used none of {answers} answers to its handshakes: \
                 check `psk` at both ends, and whether packets reach the peer"
            ),
            Self::StampRefused => f.write_str(
                "the peer's handshakes are older than one that was accepted before: \
                 check the peer's clock",
            ),
            Self::Disagreement(what) => write!(f, "the two ends cannot agree: {what}"),
            Self::OtherIdentity(who) => {
                write!(f, "the node with the peer's key has another identity: {who}")
            }
            Self::Refused(why) => write!(f, "the peer's handshake was refused: {why}"),
            Self::Goodbye { pause_s, .. } => write!(
                f,
                "the peer has ended the link; this node begins the next handshake {pause_s} s after \
                 the goodbye at the earliest"
            ),
        }
    }
}

/// The drop reason for a handshake message that was refused for `why`.
pub(super) const fn discard_of(why: Refused) -> Discard {
    match why {
        Refused::Malformed | Refused::Hello(_) => Discard::HandshakeMalformed,
        Refused::NotOurs | Refused::OtherIndex => Discard::NoSession,
        Refused::WrongMac => Discard::HandshakeMac,
        Refused::OtherNetwork => Discard::HandshakeNetwork,
        Refused::Unreadable => Discard::HandshakeUnreadable,
        Refused::Stale => Discard::HandshakeStale,
        Refused::Identity(_) | Refused::OtherIdentity(_) | Refused::OtherPeer => {
            Discard::HandshakeIdentity
        }
        Refused::Disagreement(_) => Discard::HandshakeDisagreement,
        Refused::Ourselves => Discard::HandshakeOurselves,
        // The configuration limits this node's own hello, so the hello is never too long.
        Refused::Busy | Refused::XxMemoryFull | Refused::OwnHelloTooLong => Discard::OverBudget,
    }
}

/// The evidence collected since a link was last up.
#[derive(Debug, Default)]
pub(super) struct Diagnosis {
    attempts: u32,
    first_attempt: Now,
    last_to: Option<Address>,
    answers: u32,
    evidence: Option<(Now, DownReason)>,
    unreachable: Option<(Now, DownReason)>,
    /// The name of the reason in the last event since the link was up; `None` if there was none.
    reported: Option<&'static str>,
}

/// The time of the last event about another node with the peer's key. It limits the rate of such
/// events.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    reported: Option<Now>,
}

impl Refusals {
    /// Whether an event about another node with the peer's key may be reported now. If so, the time
    /// is recorded.
    pub(super) fn may_report(&mut self, now: Now) -> bool {
        let is_due = |last: Now| now.0.saturating_sub(last.0) >= REFUSALS_REPORTED_EVERY_NS;
        let may = self.reported.is_none_or(is_due);
        self.reported = if may { Some(now) } else { self.reported };
        may
    }
}

impl Diagnosis {
    /// Notes that an initiation is sent to an address.
    pub(super) fn note_attempt(&mut self, to: Address, now: Now) {
        if self.attempts == 0 {
            self.first_attempt = now;
        }
        self.attempts = self.attempts.saturating_add(1);
        self.last_to = Some(to);
    }

    /// Notes that a response to the peer's initiation is sent.
    pub(super) fn note_answer(&mut self) {
        self.answers = self.answers.saturating_add(1);
    }

    /// Notes evidence that explains why the link is down.
    pub(super) fn note(&mut self, reason: DownReason, now: Now) {
        match reason {
            DownReason::Unreachable { .. } => self.unreachable = Some((now, reason)),
            _ => self.evidence = Some((now, reason)),
        }
    }

    /// Removes the evidence, because the link is up.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The best explanation at this time. Evidence from received messages takes precedence over
    /// silence.
    pub(super) fn reason(&self, has_address: bool, now: Now) -> DownReason {
        let is_fresh = |(at, why): &(Now, DownReason)| match why {
            DownReason::Goodbye { until, .. } => now.0 < until.0,
            _ => now.0.saturating_sub(at.0) <= EVIDENCE_KEPT_NS,
        };
        let fresh = |seen: Option<(Now, DownReason)>| seen.filter(is_fresh).map(|(_, why)| why);
        let unconfirmed = (self.answers >= ATTEMPTS_BEFORE_REPORT)
            .then_some(DownReason::NoConfirmation { answers: self.answers });
        let unanswered =
            self.last_to.filter(|_| self.attempts >= ATTEMPTS_BEFORE_REPORT).map(|to| {
                DownReason::NoAnswer { to, attempts: self.attempts, since: self.first_attempt }
            });
        fresh(self.evidence).or(unconfirmed).or(fresh(self.unreachable)).or(unanswered).unwrap_or(
            match (has_address, self.attempts) {
                (false, 0) => DownReason::NoAddress,
                (_, attempts) => DownReason::Connecting { attempts },
            },
        )
    }

    /// The time at which [`news`](Self::news) may return a reason: now, or when evidence expires.
    pub(super) fn news_at(&self, has_address: bool, now: Now) -> Option<Now> {
        let reason = self.reason(has_address, now);
        if self.is_news(&reason) {
            return Some(now);
        }
        let ends = |(at, why): &(Now, DownReason)| match why {
            DownReason::Goodbye { until, .. } => until.0,
            _ => at.0.saturating_add(EVIDENCE_KEPT_NS + 1),
        };
        let seen = [&self.evidence, &self.unreachable].into_iter().flatten();
        seen.map(ends).filter(|end| *end > now.0).min().map(Now)
    }

    fn is_news(&self, reason: &DownReason) -> bool {
        let is_known = !matches!(reason, DownReason::NoAddress | DownReason::Connecting { .. });
        is_known && self.reported != Some(reason.name())
    }

    /// Returns the reason if an event should report it. The reason must differ from the one that
    /// was last reported since the link was up, and must be neither `NoAddress` nor `Connecting`.
    pub(super) fn news(&mut self, has_address: bool, now: Now) -> Option<DownReason> {
        let reason = self.reason(has_address, now);
        self.is_news(&reason).then(|| {
            self.reported = Some(reason.name());
            reason
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn silence_is_reported_after_three_attempts_and_once() {
        let mut diagnosis = Diagnosis::default();
        assert_eq!(diagnosis.reason(false, Now(0)), DownReason::NoAddress);
        assert_eq!(diagnosis.reason(true, Now(0)), DownReason::Connecting { attempts: 0 });
        for n in 1..=3 {
            assert_eq!(diagnosis.news(true, Now(n * SECOND)), None);
            diagnosis.note_attempt(Address::Only, Now(n * SECOND));
        }
        let silent = DownReason::NoAnswer { to: Address::Only, attempts: 3, since: Now(SECOND) };
        assert_eq!(diagnosis.news(true, Now(4 * SECOND)), Some(silent));
        diagnosis.note_attempt(Address::Only, Now(5 * SECOND));
        assert_eq!(diagnosis.news(true, Now(6 * SECOND)), None, "reported before");
    }

    #[test]
    fn an_answer_says_more_than_silence_and_becomes_too_old() {
        let mut diagnosis = Diagnosis::default();
        for _ in 0..5 {
            diagnosis.note_attempt(Address::Only, Now(SECOND));
        }
        diagnosis.note(DownReason::OtherPsk, Now(2 * SECOND));
        assert_eq!(diagnosis.news(true, Now(3 * SECOND)), Some(DownReason::OtherPsk));
        diagnosis.note(DownReason::Unreachable { to: Address::Only, errno: 113 }, Now(3 * SECOND));
        assert_eq!(diagnosis.reason(true, Now(4 * SECOND)).name(), "other_psk");
        assert_eq!(diagnosis.reason(true, Now(62_500_000_000)).name(), "unreachable");
        assert_eq!(diagnosis.reason(true, Now(100 * SECOND)).name(), "no_answer");
        let until = Now(900 * SECOND);
        let goodbye = DownReason::Goodbye { until, pause_s: 800 };
        diagnosis.note(goodbye, Now(100 * SECOND));
        assert_eq!(diagnosis.reason(true, Now(899 * SECOND)), goodbye);
        assert!(goodbye.to_string().contains("next handshake 800 s after the goodbye"));
        assert_eq!(diagnosis.reason(true, until).name(), "no_answer");
        diagnosis.clear();
        assert_eq!(diagnosis.reason(true, Now(100 * SECOND)).name(), "connecting");
    }

    #[test]
    fn an_initiator_that_uses_no_answer_is_reported() {
        let mut diagnosis = Diagnosis::default();
        for _ in 0..3 {
            diagnosis.note_answer();
        }
        let reason = diagnosis.reason(false, Now(SECOND));
        assert_eq!(reason, DownReason::NoConfirmation { answers: 3 });
    }

    #[test]
    fn every_reason_has_a_name_and_a_sentence() {
        let errno = DownReason::Unreachable { to: Address::Only, errno: 113 };
        assert!(errno.to_string().contains("No route to host"), "{errno}");
        for (refused, name, words) in [
            (Refused::WrongMac, "not_for_us", "another key than ours"),
            (Refused::OtherNetwork, "other_network", "network of another name"),
            (Refused::Stale, "stamp_refused", "clock"),
            (Refused::Disagreement(Disagreement::Width), "disagreement", "label width"),
            (Refused::Disagreement(Disagreement::Suite), "disagreement", "cipher suite"),
        ] {
            let reason = DownReason::of_refusal(refused).expect("the refusal gives a reason");
            assert_eq!(reason.name(), name);
            assert!(reason.to_string().contains(words), "{reason}");
        }
        assert_eq!(
            DownReason::of_refusal(Refused::Malformed),
            None,
            "an invalid message gives no reason"
        );
    }

    #[test]
    fn a_full_list_of_handshakes_is_the_fault_of_no_peer() {
        for why in [Refused::Busy, Refused::XxMemoryFull] {
            assert_eq!(discard_of(why), Discard::OverBudget);
            assert_eq!(DownReason::of_refusal(why), None);
        }
    }
}
