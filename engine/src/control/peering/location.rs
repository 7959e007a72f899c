//! The location of a peer: a port, and an address that is reached through it. The module also
//! tracks whether the peer has proved that it receives there, and how many bytes may be sent to an
//! address that is not validated. It decides where the link's messages are sent; other modules
//! decide when.
//!
//! An address is validated as in RFC 9000, section 8:
//!
//! | event | what it proves |
//! |---|---|
//! | a response to a path challenge, from the challenged address | the peer receives there |
//! | a response to an initiation, if initiations were sent to only one location | the peer receives there |
//! | the first packet with new keys | the peer receives at the destination of this node's response to that handshake |
//!
//! Before an address is validated, no data is sent to it. All other messages to it together have no
//! more bytes than were received from it. Initiations are an exception: retry intervals limit their
//! number, and a beacon causes at most one.

use arrayvec::ArrayVec;
use strowger_crypto::{
    Entropy, Nanos,
    limits::{ATTEMPT_LIFE, NEXT_MAX, RETRY_AFTER},
};
use strowger_frame::Address;
use strowger_wire::{
    limits::TAG_BYTES,
    link_header::{LINK_HEADER_BYTES, SessionIndex},
};

use super::{
    HandshakeOrigin, beacons::Suggested, conflict::Conflict, nanos, path_mtu::TOKEN_BYTES,
};
use crate::{Now, control::PortId};

/// The maximum number of destinations of the messages of one handshake: the peer's last location,
/// the configured one, the sender of a beacon, and one through an alternate port.
const CONTACTED_MAX: usize = 4;

/// The time, in nanoseconds (ten minutes), after which the learnt location of a peer whose link is
/// down is discarded. This applies only if another location is configured.
const LEARNT_KEPT_NS: u64 = 600_000_000_000;

/// The time for which the response to a path challenge is expected. During this time, a probe does
/// not replace a challenge to another location, and a challenge that is repeated to an unvalidated
/// address keeps its token.
const CHALLENGE_LIFE: Nanos = Nanos::from_secs(5);

/// The length in bytes of the shortest path challenge, and of a path response (wire.md W3-21).
const CHALLENGE_BYTES: usize = LINK_HEADER_BYTES + TOKEN_BYTES + TAG_BYTES;

/// The length in bytes of a probe to a validated address. If this node's address is new to the
/// peer, this length allows the peer to send both the response and its own challenge.
pub(super) const PROBE_BYTES: u16 = 2 * CHALLENGE_BYTES as u16;

/// The time after which a peer that has keys but no validated address is challenged again.
const CHALLENGED_AGAIN_AFTER: Nanos = RETRY_AFTER;

/// The time after which a new handshake begins with a peer that has keys but no validated address.
const VALIDATED_WITHIN: Nanos = ATTEMPT_LIFE;

/// A port, and an address that is reached through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The port.
    pub port: PortId,
    /// The address.
    pub at: Address,
}

/// The number of bytes received from one address that is not validated, minus the number of bytes
/// sent to it.
#[derive(Debug, Default)]
struct Credit {
    to: Option<Location>,
    bytes: usize,
}

impl Credit {
    /// Notes that an authentic message arrived from a location. Credit for another address is
    /// dropped, because bytes from one address must not permit sending to another.
    fn receive(&mut self, from: Location, bytes: usize) {
        if self.to.replace(from) != Some(from) {
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Whether this number of bytes may be sent to a location. If so, they are counted.
    fn spend(&mut self, to: Location, bytes: usize) -> bool {
        let left = if self.to == Some(to) { self.bytes.checked_sub(bytes) } else { None };
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }
}

/// A path challenge whose response is awaited.
#[derive(Debug)]
struct Challenge {
    token: [u8; TOKEN_BYTES],
    to: Location,
    since: Nanos,
}

impl Challenge {
    /// Whether the response is still expected.
    fn is_fresh(&self, now: Now) -> bool {
        nanos(now).since(self.since) < CHALLENGE_LIFE
    }
}

/// A path challenge to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendChallenge {
    pub(super) token: [u8; TOKEN_BYTES],
    pub(super) to: Location,
    /// Whether the address is validated, so that the challenge is a probe of [`PROBE_BYTES`].
    pub(super) is_validated: bool,
}

/// The action needed for a link that has keys but no validated address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validation {
    Wait,
    Challenge(Location),
    /// Begin a new handshake, at most once for these keys.
    Restart,
    /// A new handshake has already begun.
    Restarted,
}

/// The destinations of a handshake message. Each has the number of the worker that must send the
/// message. `None` selects the worker that sends the link's messages through the port.
pub(super) type Destinations = ArrayVec<(Location, Option<u8>), CONTACTED_MAX>;

/// The peer's location, and the state of other locations at which the peer may receive.
#[derive(Debug)]
pub(super) struct Reach {
    port: PortId,
    at: Option<Address>,
    /// The configured location; `None` if no address is configured.
    written: Option<Location>,
    /// Whether the peer has proved that it receives at its location.
    is_validated: bool,
    /// The destinations of initiations since the state of the link last changed.
    contacted: ArrayVec<Location, CONTACTED_MAX>,
    /// Whether there were more such destinations than fit into `contacted`.
    contacted_more: bool,
    /// The destinations of this node's responses to the handshakes that created these sessions.
    /// There is one entry for each response whose keys the peer may still use.
    answered: ArrayVec<(SessionIndex, Location), NEXT_MAX>,
    /// The source of the last handshake message that produced keys; `None` before the first one.
    counterpart: Option<Location>,
    credit: Credit,
    challenge: Option<Challenge>,
    /// Whether a new handshake has begun because no address was validated in time after keys
    /// arrived.
    has_restarted: bool,
    /// Whether the last initiation was sent through an alternate port.
    by_alternate: bool,
    pub(super) suggested: Suggested,
    conflict: Conflict,
}

impl Reach {
    /// Makes the state of a peer on `port` that has no address yet. `written` is the configured
    /// location.
    pub(super) fn new(port: PortId, written: Option<Location>) -> Self {
        Self {
            port,
            at: None,
            written,
            is_validated: false,
            contacted: ArrayVec::new(),
            contacted_more: false,
            answered: ArrayVec::new(),
            counterpart: None,
            credit: Credit::default(),
            challenge: None,
            has_restarted: false,
            by_alternate: false,
            suggested: Suggested::default(),
            conflict: Conflict::default(),
        }
    }

    /// The peer's port.
    pub(super) fn port(&self) -> PortId {
        self.port
    }

    /// The peer's location, if it is known.
    pub(super) fn location(&self) -> Option<Location> {
        self.at.map(|at| Location { port: self.port, at })
    }

    /// Sets the location. Without a location, the peer keeps its port and has no address.
    pub(super) fn set_location(&mut self, to: Option<Location>) {
        self.at = to.map(|to| to.at);
        self.port = to.map_or(self.port, |to| to.port);
    }

    /// The configured location.
    pub(super) fn written(&self) -> Option<Location> {
        self.written
    }

    /// Whether there is a location to which an initiation can be sent.
    pub(super) fn is_somewhere(&self) -> bool {
        self.at.is_some() || self.written.is_some()
    }

    /// Whether the peer has proved that it receives at its location.
    pub(super) fn is_validated(&self) -> bool {
        self.is_validated
    }

    /// Marks the location as validated.
    pub(super) fn validate(&mut self) {
        self.challenge = None;
        self.is_validated = true;
    }

    /// Marks the location as not validated.
    pub(super) fn invalidate(&mut self) {
        self.is_validated = false;
    }

    /// Notes that an initiation is sent to a location.
    pub(super) fn note_contacted(&mut self, to: Location) {
        if !self.contacted.contains(&to) && self.contacted.try_push(to).is_err() {
            self.contacted_more = true;
        }
    }

    /// Whether an initiation was sent to this location.
    pub(super) fn has_contacted(&self, at: Location) -> bool {
        self.contacted.contains(&at)
    }

    /// Whether initiations were sent to this location and to no other one. In this case, a response
    /// proves that the peer receives there.
    fn is_sole(&self, at: Location) -> bool {
        !self.contacted_more && self.contacted.as_slice() == [at]
    }

    /// Returns `true` in every other call: that initiation is sent through the alternate port.
    fn take_turn(&mut self) -> bool {
        self.by_alternate = !self.by_alternate;
        self.by_alternate
    }

    /// The destinations of an initiation, or of the third message of XX. `alternate` is the
    /// location that is reached through an alternate port, if that port is to be tried.
    pub(super) fn destinations(
        &mut self,
        is_msg3: bool,
        is_down: bool,
        alternate: Option<Location>,
    ) -> Destinations {
        let here = self.location();
        let counterpart = self.counterpart.filter(|at| is_msg3 && self.has_contacted(*at));
        // A peer that has moved and is down may have returned to its configured location.
        let written = self.written.filter(|written| is_down && !is_msg3 && here != Some(*written));
        let suggested = if is_msg3 { None } else { self.suggested.next.take() };
        if let Some(by) = suggested {
            self.suggested.tried = Some(by.from);
        }
        let mut to = Destinations::new();
        match alternate.filter(|_| self.take_turn()) {
            // Send to the alternate instead of, not in addition to, the known locations. The peer
            // would respond only to the first of two copies, and that response may be the one that
            // is lost.
            Some(alternate) => to.push((alternate, None)),
            None => {
                to.extend(counterpart.or(here).map(|at| (at, None)));
                to.extend(written.map(|at| (at, None)));
            }
        }
        to.extend(suggested.map(|by| (by.from, Some(by.worker))));
        for (at, _) in &to {
            self.note_contacted(*at);
        }
        to
    }

    /// The destination of a confirmation of new keys: a port, and an address if the peer's location
    /// is not validated. Returns `None` if no address is known, or if the credit of the address
    /// does not suffice.
    pub(super) fn confirmation(&mut self) -> Option<(PortId, Option<Location>)> {
        if self.is_validated {
            return Some((self.port, None));
        }
        let at = self.counterpart?;
        let may_send = self.credit.spend(at, LINK_HEADER_BYTES + TAG_BYTES);
        may_send.then_some((at.port, Some(at)))
    }

    /// Notes that a valid handshake message has produced keys, and what the message proves about
    /// the peer's location.
    pub(super) fn note_handshake(
        &mut self,
        index: SessionIndex,
        by: HandshakeOrigin,
        is_down: bool,
    ) {
        self.credit.receive(by.from, by.bytes);
        self.counterpart = Some(by.from);
        let here = self.location();
        if !by.is_response {
            self.note_answered(index, by.from);
        } else if here.is_some_and(|here| self.is_sole(here)) {
            self.is_validated = true;
        } else if is_down && here != Some(by.from) {
            // The response came from another location than the known one.
            self.is_validated = false;
        }
    }

    /// Notes that the peer receives at `to` if it uses the keys of this session.
    fn note_answered(&mut self, index: SessionIndex, to: Location) {
        if self.answered.is_full() {
            self.answered.remove(0);
        }
        self.answered.push((index, to));
    }

    /// Returns the destination of the response that created this session. The peer has used the
    /// session's keys.
    pub(super) fn take_answered(&mut self, index: SessionIndex) -> Option<Location> {
        let place = self.answered.iter().position(|(of, _)| *of == index)?;
        Some(self.answered.remove(place).1)
    }

    /// Notes that new keys came from `at`, and that the previous keys had this age. Returns the two
    /// locations if this shows, for the first time, that two nodes have the peer's key.
    pub(super) fn note_keys_from(
        &mut self,
        at: Location,
        age_ns: u64,
        now: Now,
    ) -> Option<[Location; 2]> {
        let is_found_out = self.conflict.note(at, age_ns, now);
        self.conflict.locations(now).filter(|_| is_found_out)
    }

    /// The locations of two nodes that have the peer's key, if there are two.
    pub(super) fn conflict(&self, now: Now) -> Option<[Location; 2]> {
        self.conflict.locations(now)
    }

    /// Notes that a response to a handshake came from a location. Returns whether an initiation was
    /// sent there.
    pub(super) fn take_contacted(&mut self, from: Location) -> bool {
        let is_suggested = self.suggested.tried.take() == Some(from);
        is_suggested || self.has_contacted(from)
    }

    /// Notes that an authentic frame of this length came from a location.
    pub(super) fn receive(&mut self, from: Location, bytes: usize) {
        self.credit.receive(from, bytes);
    }

    /// Notes a path challenge from a location and the response to it, which is no longer than the
    /// challenge.
    pub(super) fn respond(&mut self, to: Location, received_bytes: usize) {
        self.credit.receive(to, received_bytes);
        self.credit.spend(to, CHALLENGE_BYTES);
    }

    /// Whether the response to a challenge to this location is still expected.
    pub(super) fn has_challenged(&self, at: Location, now: Now) -> bool {
        self.challenge.as_ref().is_some_and(|c| c.to == at && c.is_fresh(now))
    }

    /// Creates a challenge to `to` or, with `None`, to the peer's location. Until an address is
    /// validated, no more bytes are sent there than were received from there. RFC 9000, section
    /// 8.1, allows three times this number.
    pub(super) fn challenge(
        &mut self,
        to: Option<Location>,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Option<SendChallenge> {
        let at = to.or(self.location())?;
        // The location stays validated even if the ports admit another peer there.
        let is_validated = self.is_validated && self.location() == Some(at);
        // A probe must not replace a fresh challenge to another location, because the peer may have
        // moved there.
        let is_elsewhere = |challenge: &Challenge| challenge.to != at && challenge.is_fresh(now);
        if to.is_none() && self.challenge.as_ref().is_some_and(is_elsewhere) {
            return None;
        }
        let mut token = [0; TOKEN_BYTES];
        if entropy.fill(&mut token).is_err() {
            return None;
        }
        if !is_validated && !self.credit.spend(at, CHALLENGE_BYTES) {
            return None;
        }
        // Repeat a fresh challenge to an unvalidated address with the same token, because the
        // response to the first copy may still arrive.
        let again = self.challenge.as_ref().filter(|c| !is_validated && c.to == at);
        let token = again.filter(|c| c.is_fresh(now)).map_or(token, |c| c.token);
        self.challenge = Some(Challenge { token, to: at, since: nanos(now) });
        Some(SendChallenge { token, to: at, is_validated })
    }

    /// Notes that a response to a path challenge came from a location. Returns the location if it
    /// was challenged with this token.
    pub(super) fn take_response(
        &mut self,
        token: &[u8],
        from: Option<Location>,
    ) -> Option<Location> {
        let challenge = self.challenge.take_if(|c| c.token == token && from == Some(c.to));
        challenge.map(|challenge| challenge.to)
    }

    /// Notes new keys: the time limit for validation starts again.
    pub(super) fn note_keys(&mut self) {
        self.has_restarted = false;
    }

    /// Returns the action needed to validate an address of a link whose keys have this age.
    pub(super) fn poll_validation(&mut self, age_ns: u64, now: Now) -> Validation {
        if age_ns >= VALIDATED_WITHIN.0 {
            let again = std::mem::replace(&mut self.has_restarted, true);
            return if again { Validation::Restarted } else { Validation::Restart };
        }
        let (to, since) = match &self.challenge {
            Some(challenge) => (Some(challenge.to), challenge.since),
            None => (self.counterpart.or(self.location()), Nanos::ZERO),
        };
        let is_due = nanos(now).since(since) >= CHALLENGED_AGAIN_AFTER;
        to.filter(|_| is_due).map_or(Validation::Wait, Validation::Challenge)
    }

    /// The time at which [`poll_validation`](Self::poll_validation) has work.
    pub(super) fn validation_due(&self, keys_since: Option<Now>) -> Option<Nanos> {
        if self.has_restarted {
            return None;
        }
        let restart = keys_since.map(|since| nanos(since).plus(VALIDATED_WITHIN));
        let last = self.challenge.as_ref().map(|challenge| challenge.since);
        let may_challenge = last.is_some() || self.counterpart.or(self.location()).is_some();
        let again = last.map_or(Nanos::ZERO, |since| since.plus(CHALLENGED_AGAIN_AFTER));
        restart.into_iter().chain(may_challenge.then_some(again)).min()
    }

    /// The time at which the peer of a link that went down at `down_since` returns to its
    /// configured location. `None` if none is configured, or if the peer is already there.
    pub(super) fn return_due(&self, down_since: Now) -> Option<Nanos> {
        let is_elsewhere = self.written.is_some() && self.location() != self.written;
        is_elsewhere.then(|| nanos(down_since).plus(Nanos(LEARNT_KEPT_NS)))
    }

    /// Removes the records of the destinations of initiations.
    pub(super) fn forget_attempts(&mut self) {
        self.contacted.clear();
        self.contacted_more = false;
    }

    /// Removes the records of handshakes and challenges, after the slow path has recovered from a
    /// panic.
    pub(super) fn reset(&mut self) {
        self.forget_attempts();
        self.answered.clear();
        self.credit = Credit::default();
        self.challenge = None;
        self.suggested = Suggested::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Location {
        Location { port: PortId(port), at: Address::Only }
    }

    /// wire.md: W3-51.
    #[test]
    fn credit_of_one_address_is_not_spent_at_another() {
        let mut credit = Credit::default();
        assert!(!credit.spend(at(1), 1));
        credit.receive(at(1), 40);
        assert!(!credit.spend(at(2), 1));
        assert!(credit.spend(at(1), 32) && !credit.spend(at(1), 32));
        credit.receive(at(1), 24);
        assert!(credit.spend(at(1), 32), "8 were left");
        credit.receive(at(1), 1_000);
        credit.receive(at(2), 10);
        assert!(!credit.spend(at(1), 10) && !credit.spend(at(2), 11));
    }

    /// wire.md: W3-23.
    #[test]
    fn a_response_validates_a_location_only_if_no_other_was_contacted() {
        let mut reach = Reach::new(PortId(0), None);
        assert!(!reach.is_sole(at(1)));
        reach.note_contacted(at(1));
        reach.note_contacted(at(1));
        assert!(reach.is_sole(at(1)) && !reach.is_sole(at(2)));
        reach.note_contacted(at(2));
        assert!(!reach.is_sole(at(1)) && reach.has_contacted(at(2)));
        reach.forget_attempts();
        for port in 0..=CONTACTED_MAX as u16 {
            reach.note_contacted(at(port));
        }
        assert!(!reach.is_sole(at(0)) && reach.contacted_more);
    }
}
