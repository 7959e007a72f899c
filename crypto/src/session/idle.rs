//! A session without keys and handshakes, in few bytes.

use crate::handshake::{Cookie, TimestampGuard};
use crate::identity::StaticPublic;
use crate::time::Nanos;

use super::{Session, SessionConfig};

const NEVER: Nanos = Nanos(u64::MAX);

/// What a [`Session`] knows while it has no keys and no handshake runs. Peers with many idle
/// connections keep this instead.
pub struct IdleSession {
    peer: Option<StaticPublic>,
    guard: TimestampGuard,
    newest_timestamp: u64,
    /// The time of the next attempt; the greatest time if there was no attempt since the last
    /// success.
    retry_at: Nanos,
    back_off_until: Nanos,
    round_trip: Nanos,
    cookie: Option<Box<(Cookie, Nanos)>>,
    tries: u32,
    rekey_due: bool,
    lost: bool,
    hides_identity: bool,
    insists_on_key: bool,
}

impl IdleSession {
    /// The peer's static key, once known.
    pub const fn peer(&self) -> Option<&StaticPublic> {
        self.peer.as_ref()
    }

    /// The peer's newest timestamp.
    pub const fn guard(&self) -> TimestampGuard {
        self.guard
    }

    /// As [`Session::suggest_key`].
    pub fn suggest_key(&mut self, key: &StaticPublic) {
        self.peer.get_or_insert(*key);
    }

    /// As [`Session::reset`].
    pub fn reset(&mut self) {
        (self.cookie, self.retry_at, self.tries) = (None, NEVER, 0);
        self.back_off_until = Nanos::ZERO;
        (self.rekey_due, self.lost) = (false, false);
    }

    /// Bytes of memory behind this value.
    pub fn memory_bytes(&self) -> usize {
        self.cookie.as_ref().map_or(0, |_| size_of::<(Cookie, Nanos)>())
    }
}

impl core::fmt::Debug for IdleSession {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("IdleSession").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Session {
    /// Takes what must be kept out of a session that has no keys and no handshake, and wants none.
    /// Such a session has no timeout. Returns `None` for all others.
    pub fn reduce(&mut self) -> Option<IdleSession> {
        let is_idle = !self.wanted
            && self.generations().next().is_none()
            && self.attempts.is_empty()
            && self.msg3.is_none();
        is_idle.then(|| IdleSession {
            peer: self.peer,
            guard: self.guard,
            newest_timestamp: self.newest_timestamp,
            retry_at: self.retry_at.unwrap_or(NEVER),
            back_off_until: self.back_off_until,
            round_trip: self.round_trip,
            cookie: self.cookie.take().map(Box::new),
            tries: self.tries,
            rekey_due: self.rekey_due,
            lost: self.lost,
            hides_identity: self.hides_identity,
            insists_on_key: self.insists_on_key,
        })
    }

    /// Makes the session again. `config` is that of the former session, except for the hello, which
    /// the caller sets again.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn restore(config: SessionConfig, idle: IdleSession) -> Session {
        let mut session = Session::new(config);
        session.peer = idle.peer;
        session.guard = idle.guard;
        session.newest_timestamp = idle.newest_timestamp;
        session.retry_at = Some(idle.retry_at).filter(|at| *at != NEVER);
        session.back_off_until = idle.back_off_until;
        session.round_trip = idle.round_trip;
        session.cookie = idle.cookie.map(|cookie| *cookie);
        session.tries = idle.tries;
        (session.rekey_due, session.lost) = (idle.rekey_due, idle.lost);
        session.hides_identity = idle.hides_identity;
        session.insists_on_key = idle.insists_on_key;
        session
    }

    /// Bytes of memory behind this value: with keys that are not used yet, and without the states
    /// of handshakes that wait for a response.
    pub fn memory_bytes(&self) -> usize {
        let offer = |offer: &crate::handshake::Offer| offer.memory_bytes();
        let next = self.next.iter().map(|(_, keys)| {
            size_of_val(&**keys)
                + keys.sealers.capacity() * size_of::<crate::Sealer>()
                + offer(&keys.their_offer)
        });
        offer(&self.config.offer)
            + self.previous.capacity() * size_of::<super::Generation>()
            + self.next.capacity() * size_of::<(super::Generation, Box<super::NewKeys>)>()
            + next.sum::<usize>()
            + self.attempts.capacity() * size_of::<super::attempt::Attempt>()
            + self.msg3.as_ref().map_or(0, Vec::capacity)
    }

    /// Frees the memory of lists that are empty.
    pub(super) fn shrink(&mut self) {
        if self.attempts.is_empty() {
            self.attempts = Vec::new();
        }
        if self.next.is_empty() {
            self.next = Vec::new();
        }
        if self.previous.is_empty() {
            self.previous = Vec::new();
        }
    }
}
