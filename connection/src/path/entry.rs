//! One label of a connection: its state, its challenge, and the bytes that may go along it.

use strowger_crypto::Nanos;
use strowger_wire::{
    connection::PathToken, label::AnyLabel, link_header::Lane, switch_header::FIXED_BYTES,
};

use super::{length::LengthSearch, rtt::Rtt};
use crate::{
    info::PathState,
    limits::{
        CHALLENGE_AFTER, CHALLENGE_COPIES, CHALLENGE_MARGIN, CHALLENGE_PADDING_BYTES,
        SHORT_CHALLENGE_AFTER, SHORT_CHALLENGE_BYTES, TOKEN_TIME,
    },
};

/// How a packet goes: what its headers need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Along {
    /// The label.
    pub(crate) label: AnyLabel,
    /// The lane on which it is sealed.
    pub(crate) lane: Lane,
    /// The field of the switch header (W6-129).
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
    /// When the next copy is due, or the last one counts as unanswered.
    next: Nanos,
    is_over: bool,
}

/// A label with a lane.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) along: Along,
    pub(super) state: PathState,
    /// Whether routing, an operator or the program gave the label; otherwise it was learnt.
    pub(super) is_chosen: bool,
    /// The greatest one was preferred last: by an operator or routing for chosen labels, by the
    /// peer for learnt ones. 0 if neither did.
    pub(super) order: u32,
    /// Whether the label was validated, so that the ledger sets no limit.
    pub(super) is_open: bool,
    /// The bytes that came by the label, less those that went along it.
    credit: usize,
    /// When a short challenge last went along it beyond its credit.
    beyond_credit: Option<Nanos>,
    challenge: Option<Challenge>,
    pub(super) rtt: Rtt,
    pub(super) length: LengthSearch,
    /// When a packet last went along the label.
    pub(super) sent: Option<Nanos>,
    /// When the label was last used in either direction.
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
            beyond_credit: None,
            challenge: None,
            rtt: Rtt::default(),
            length,
            sent: None,
            used: now,
            peer_lane: None,
        }
    }

    /// Which of two validated labels carries messages: the greater one.
    pub(super) fn rank(&self) -> (bool, u32) {
        (self.is_chosen, self.order)
    }

    /// An authentic packet came by the label.
    #[inline]
    pub(super) fn receive(&mut self, now: Nanos, bytes: usize) {
        self.used = now;
        if !self.is_open {
            self.credit += bytes;
        }
    }

    /// Whether a packet of `bytes` bytes, switch header included, may go along the label now (R17).
    /// If it may, it counts.
    #[inline]
    pub(super) fn take(&mut self, now: Nanos, bytes: usize) -> bool {
        if !self.is_open {
            let Some(left) = self.credit.checked_sub(bytes) else { return false };
            self.credit = left;
        }
        self.sent = Some(now);
        self.used = now;
        true
    }

    /// The peer has shown that it receives along the label. A challenge is not needed any more.
    pub(super) fn open(&mut self) {
        (self.state, self.is_open, self.credit) = (PathState::Validated, true, 0);
        if let Some(challenge) = &mut self.challenge {
            challenge.is_over = true;
        }
    }

    /// The label takes the place of another one, which may return at once: so that it gets no more
    /// challenges for that, a challenge of this label waits as long as after a challenge (R17).
    pub(super) fn replace_another(&mut self, now: Nanos) {
        self.beyond_credit = Some(now);
    }

    /// Nothing is known of the label any more (W6-140).
    pub(super) fn close(&mut self) {
        (self.state, self.is_open, self.credit) = (PathState::Validating, false, 0);
    }

    /// A challenge is sent as soon as possible, unless one is.
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

    /// Whether a response is awaited, or a copy is due.
    pub(super) fn is_challenged(&self) -> bool {
        self.challenge.is_some_and(|challenge| !challenge.is_over)
    }

    /// When [`poll_challenge`](Entry::poll_challenge) has something to do.
    pub(super) fn challenge_timeout(&self) -> Option<Nanos> {
        self.challenge.filter(|challenge| !challenge.is_over).map(|challenge| challenge.next)
    }

    /// What is due of the challenge. `fallback`: the round trip of the connection's last handshake.
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
                let free_at = self.beyond_credit.map(|at| at.plus(SHORT_CHALLENGE_AFTER));
                if let Some(free_at) = free_at.filter(|free_at| now < *free_at) {
                    challenge.next = free_at;
                    return Due::Nothing;
                }
                self.beyond_credit = Some(now);
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
        self.sent = Some(now);
        Due::Copy { token: challenge.token, packet_bytes }
    }

    /// Handles a response. If it answers the challenge of this label, the challenge ends and its
    /// time is measured.
    pub(super) fn handle_response(&mut self, now: Nanos, token: PathToken) -> bool {
        let answered = self.challenge.take_if(|challenge| {
            challenge.copies > 0
                && challenge.token == token
                && now.since(challenge.last) <= TOKEN_TIME
        });
        let Some(challenge) = answered else { return false };
        // Which of several copies was answered is not known (RFC 6298, section 3).
        if challenge.copies == 1 || self.rtt.smoothed().is_none() {
            self.rtt.measure(now.since(challenge.first));
        }
        true
    }
}

/// What is due of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing now.
    Nothing,
    /// A copy is to be sent, as a connection packet of this length.
    Copy { token: PathToken, packet_bytes: usize },
    /// All copies are unanswered. This is said once.
    Unanswered,
}
