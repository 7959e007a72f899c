//! A session without keys and handshakes, in few bytes.

use crate::handshake::{Cookie, TimestampGuard};
use crate::identity::StaticPublic;
use crate::time::Nanos;

use super::{Session, SessionConfig};

const NEVER: Nanos = Nanos(u64::MAX);

/// What a [`Session`] knows while it has no keys and no handshake runs. Peers with many idle
/// connections keep this instead.
pub struct RestingSession {
    peer: Option<StaticPublic>,
    guard: TimestampGuard,
    newest_timestamp: u64,
    /// The greatest time for none.
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

impl RestingSession {
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

    /// Bytes of memory behind this value.
    pub fn memory_bytes(&self) -> usize {
        self.cookie.as_ref().map_or(0, |_| size_of::<(Cookie, Nanos)>())
    }
}

impl core::fmt::Debug for RestingSession {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RestingSession").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Session {
    /// What is to be kept of a session that has no keys and no handshake, and wants none; `None`
    /// for all others. The session has no timeout then.
    pub fn rest(&mut self) -> Option<RestingSession> {
        let is_idle = !self.wanted
            && self.generations().next().is_none()
            && self.attempts.is_empty()
            && self.msg3.is_none();
        is_idle.then(|| RestingSession {
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

    /// Makes the session again. `config` is that of the session that [`rest`](Self::rest)ed, except
    /// for the hello, which the caller sets again.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn wake(config: SessionConfig, resting: RestingSession) -> Session {
        let mut session = Session::new(config);
        session.peer = resting.peer;
        session.guard = resting.guard;
        session.newest_timestamp = resting.newest_timestamp;
        session.retry_at = Some(resting.retry_at).filter(|at| *at != NEVER);
        session.back_off_until = resting.back_off_until;
        session.round_trip = resting.round_trip;
        session.cookie = resting.cookie.map(|cookie| *cookie);
        session.tries = resting.tries;
        (session.rekey_due, session.lost) = (resting.rekey_due, resting.lost);
        session.hides_identity = resting.hides_identity;
        session.insists_on_key = resting.insists_on_key;
        session
    }

    /// Bytes of memory behind this value, keys that are not used yet included, but without what
    /// handshakes that wait for a response keep.
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

    /// Returns the memory of lists that are empty.
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
