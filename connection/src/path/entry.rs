//! One label of a connection: its state, its challenge, and its byte credit.

use strowger_crypto::Nanos;
use strowger_wire::{
    connection::PathToken, label::AnyLabel, link_header::Lane, switch_header::FIXED_BYTES,
};

use super::{length::LengthSearch, rtt::Rtt};
use crate::{
    heap::Maybe,
    info::PathState,
    limits::{
        CHALLENGE_AFTER, CHALLENGE_COPIES, CHALLENGE_MARGIN, CHALLENGE_PADDING_BYTES,
        SHORT_CHALLENGE_AFTER, SHORT_CHALLENGE_BYTES, TOKEN_TIME,
    },
};

/// A label, with the other header fields of packets along it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Along {
    /// The label.
    pub(crate) label: AnyLabel,
    /// The lane on which packets along the label are sealed.
    pub(crate) lane: Lane,
    /// The value of the field `hops_left` of the switch header (W6-129).
    pub(crate) hops_left: u8,
}

/// Bytes of a switch header with this label.
pub(super) fn header_bytes(label: &AnyLabel) -> usize {
    FIXED_BYTES + label.width_bits() as usize / 8
}

/// A challenge, of which up to three copies with one token are sent (W6-176).
#[derive(Clone, Copy, Debug)]
pub(super) struct Challenge {
    token: PathToken,
    copies: u8,
    first: Nanos,
    last: Nanos,
    /// The time at which the next copy is due, or at which the last copy counts as unanswered.
    next: Nanos,
    is_over: bool,
}

/// The state of one label.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) along: Along,
    pub(super) state: PathState,
    /// Whether routing, an operator or the program gave the label; otherwise it was learnt.
    pub(super) is_chosen: bool,
    /// Rank of the last preference, by an operator or routing for a chosen label, by the peer for a
    /// learnt one. The label that was preferred last has the greatest rank; 0 if it never was.
    pub(super) order: u32,
    /// Whether the label was validated, so that `credit` sets no limit.
    pub(super) is_open: bool,
    /// The bytes received by the label, minus the bytes sent along it.
    credit: usize,
    /// The time at which a short challenge last went along the label beyond its credit.
    beyond_credit: Maybe,
    challenge: Option<Challenge>,
    pub(super) rtt: Rtt,
    pub(super) length: LengthSearch,
    /// The time at which a packet last went along the label.
    pub(super) sent: Maybe,
    /// The time at which the label was last used in either direction.
    pub(super) used: Nanos,
    /// The lane of the peer's last packet that came by the label.
    pub(super) peer_lane: Option<Lane>,
}

impl Entry {
    pub(super) fn new(now: Nanos, along: Along, is_chosen: bool, length: LengthSearch) -> Entry {
        Entry {
            along,
            state: PathState::Validating,
            is_chosen,
            order: 0,
            is_open: false,
            credit: 0,
            beyond_credit: Maybe::NONE,
            challenge: None,
            rtt: Rtt::default(),
            length,
            sent: Maybe::NONE,
            used: now,
            peer_lane: None,
        }
    }

    /// The rank of a validated label: messages go along the label with the greatest.
    pub(super) fn rank(&self) -> (bool, u32) {
        (self.is_chosen, self.order)
    }

    /// Notes an authentic packet that came by the label.
    #[inline]
    pub(super) fn receive(&mut self, now: Nanos, bytes: usize) {
        self.used = now;
        if !self.is_open {
            self.credit += bytes;
        }
    }

    /// Whether a packet of `bytes` bytes, switch header included, may go along the label now (R17).
    /// If it may, its bytes are subtracted from the credit.
    #[inline]
    pub(super) fn take(&mut self, now: Nanos, bytes: usize) -> bool {
        if !self.is_open {
            let Some(left) = self.credit.checked_sub(bytes) else { return false };
            self.credit = left;
        }
        self.sent = Maybe::some(now);
        self.used = now;
        true
    }

    /// Notes that the peer receives packets along the label, and ends the challenge.
    pub(super) fn open(&mut self) {
        (self.state, self.is_open, self.credit) = (PathState::Validated, true, 0);
        if let Some(challenge) = &mut self.challenge {
            challenge.is_over = true;
        }
    }

    /// Delays the first challenge of a label that replaces another one. Otherwise labels that
    /// displace each other in turn would get more short challenges than R17 allows.
    pub(super) fn replace_another(&mut self, now: Nanos) {
        self.beyond_credit = Maybe::some(now);
    }

    /// Resets the label to its state before validation (W6-140).
    pub(super) fn close(&mut self) {
        (self.state, self.is_open, self.credit) = (PathState::Validating, false, 0);
    }

    /// Starts a challenge, unless one is in progress.
    pub(super) fn begin_challenge(&mut self, now: Nanos) {
        if !self.is_challenged() {
            let token = PathToken([0; 8]);
            self.challenge = Some(Challenge {
                token,
                copies: 0,
                first: now,
                last: now,
                next: now,
                is_over: false,
            });
        }
    }

    /// Whether the label waits for a response, or a copy is due.
    pub(super) fn is_challenged(&self) -> bool {
        self.challenge.is_some_and(|challenge| !challenge.is_over)
    }

    /// The time at which [`poll_challenge`](Entry::poll_challenge) has something to do; `None`
    /// without a challenge.
    pub(super) fn challenge_timeout(&self) -> Option<Nanos> {
        self.challenge.filter(|challenge| !challenge.is_over).map(|challenge| challenge.next)
    }

    /// The next step of the challenge. `fallback`: the round trip of the connection's last
    /// handshake.
    pub(super) fn poll_challenge(
        &mut self,
        now: Nanos,
        fallback: Option<Nanos>,
        draw: impl FnOnce() -> Option<PathToken>,
    ) -> Due {
        let rtt = self.rtt.smoothed().or(fallback);
        let Some(challenge) = self.challenge.as_mut() else { return Due::Nothing };
        if challenge.is_over || now < challenge.next {
            return Due::Nothing;
        }
        if challenge.copies >= CHALLENGE_COPIES {
            challenge.is_over = true;
            return Due::Unanswered;
        }
        let padding = if self.is_open { CHALLENGE_PADDING_BYTES } else { 0 };
        let packet_bytes = SHORT_CHALLENGE_BYTES + padding;
        let bytes = header_bytes(&self.along.label) + packet_bytes;
        if !self.is_open {
            if let Some(left) = self.credit.checked_sub(bytes) {
                self.credit = left;
            } else {
                let free_at = self.beyond_credit.get().map(|at| at.plus(SHORT_CHALLENGE_AFTER));
                if let Some(free_at) = free_at.filter(|free_at| now < *free_at) {
                    challenge.next = free_at;
                    return Due::Nothing;
                }
                self.beyond_credit = Maybe::some(now);
            }
        }
        if challenge.copies == 0 {
            let Some(token) = draw() else {
                challenge.next = now.plus(CHALLENGE_AFTER);
                return Due::Nothing;
            };
            (challenge.token, challenge.first) = (token, now);
        }
        challenge.copies += 1;
        challenge.last = now;
        challenge.next = now.plus(rtt.map_or(CHALLENGE_AFTER, |rtt| rtt.plus(CHALLENGE_MARGIN)));
        self.sent = Maybe::some(now);
        Due::Copy { token: challenge.token, packet_bytes }
    }

    /// Handles a response. If the response answers this label's challenge, the challenge ends and
    /// gives a round-trip sample.
    pub(super) fn handle_response(&mut self, now: Nanos, token: PathToken) -> bool {
        let answered = self.challenge.take_if(|challenge| {
            challenge.copies > 0
                && challenge.token == token
                && now.since(challenge.last) <= TOKEN_TIME
        });
        let Some(challenge) = answered else { return false };
        // After several copies, this end cannot tell which one was answered (RFC 6298, section 3).
        if challenge.copies == 1 || self.rtt.smoothed().is_none() {
            self.rtt.measure(now.since(challenge.first));
        }
        true
    }
}

/// The next step of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing now.
    Nothing,
    /// Send a copy, as a connection packet of this length.
    Copy { token: PathToken, packet_bytes: usize },
    /// All copies are unanswered. This is returned once.
    Unanswered,
}
