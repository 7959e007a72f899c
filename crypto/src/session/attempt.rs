//! How a session's keys come about: handshakes that it began and that have not been answered, and those
//! that it takes up. Nothing is sent here.

use strowger_wire::{
    hello::Timestamp,
    link_header::{Kind, LinkHeader, SessionIndex},
};

use crate::entropy::EntropyFailed;
use crate::handshake::{
    Cookie, HandshakeError, LocalParams, Peer, Refused, Rejected, TimestampGuard, ik, xx,
};
use crate::identity::StaticPublic;
use crate::limits::{
    ATTEMPT_LIFE, ATTEMPTS_MAX, ATTEMPTS_PER_PAUSE, COOKIE_SECRET_LIFE, DOUBLINGS_WHILE_SEALING,
    JITTER_PARTS, REKEY_SPACING, RETRY_AFTER, RETRY_AFTER_MAX, RETRY_AFTER_SLOW,
};
use crate::time::Nanos;

use super::{Context, Generation, Output, Session};

/// What waits for a response.
pub(super) enum Pending {
    Known(ik::AwaitResponse),
    Discover(xx::AwaitResponse),
}

impl Pending {
    pub(super) const fn index(&self) -> SessionIndex {
        match self {
            Pending::Known(state) => state.index(),
            Pending::Discover(state) => state.index(),
        }
    }

    fn read_cookie(&self, message: &[u8]) -> Result<Cookie, Refused> {
        match self {
            Pending::Known(state) => state.read_cookie(message),
            Pending::Discover(state) => state.read_cookie(message),
        }
    }

    fn check(&self, message: &[u8]) -> Result<(), Refused> {
        match self {
            Pending::Known(state) => state.check(message),
            Pending::Discover(state) => state.check(message),
        }
    }
}

/// A handshake that we began.
pub(super) struct Attempt {
    pub(super) state: Pending,
    pub(super) sent: Nanos,
}

impl Attempt {
    /// When its answer is not awaited any more.
    pub(super) fn ends_at(&self) -> Nanos {
        self.sent.plus(ATTEMPT_LIFE)
    }
}

/// Which side of an XX handshake a session comes from.
#[derive(Debug)]
pub enum XxRole {
    /// We began it.
    Initiator {
        /// The third message.
        msg3: Vec<u8>,
    },
    /// The peer began it.
    Responder {
        /// What is known of the peer's timestamps.
        guard: TimestampGuard,
    },
}

impl Session {
    /// Whether a response to this index is awaited: the index of an attempt, never one that packets are
    /// addressed to.
    pub fn awaits(&self, index: SessionIndex) -> bool {
        self.attempts.iter().any(|attempt| attempt.state.index() == index)
    }

    /// Judges a response or cookie before anything is spent on it: its length, that it is addressed to an
    /// attempt, and its mac. One short hash at most; nothing changes.
    ///
    /// # Errors
    /// Why it is not for this session.
    pub fn check_response(&self, message: &[u8]) -> Result<(), Refused> {
        let header = LinkHeader::parse(message).map_err(|_| Refused::Malformed)?;
        let is_it = |attempt: &&Attempt| attempt.state.index() == header.index;
        let attempt = self.attempts.iter().find(is_it).ok_or(Refused::NotOurs)?;
        match header.kind {
            Kind::Cookie => attempt.state.read_cookie(message).map(|_| ()),
            _ => attempt.state.check(message),
        }
    }

    /// Where both began at once: the smaller key goes on, unless its message seems to be lost, or asks
    /// who is there; and what the other has sent before it knew is worth nothing once there are keys.
    fn keeps_own_attempt(&self, context: &Context<'_>, theirs: &StaticPublic) -> bool {
        let is_new = |since| context.now.since(since) < RETRY_AFTER;
        let is_begun = |attempt: &Attempt| {
            matches!(attempt.state, Pending::Known(_))
                && is_new(attempt.sent)
                && (self.sealing || self.tries <= 1)
        };
        let is_answered = |current: Generation| {
            current.initiator && current.by_ik && is_new(current.born) && !self.lost
        };
        // Without keys, and after an attempt in vain, it is not the only one: the peer may be heard where
        // it is, and not be where it is asked, and both may ask at the same times again and again.
        context.local.static_public() < theirs
            && (self.attempts.last().is_some_and(is_begun) || self.current.is_some_and(is_answered))
    }

    /// Where two handshakes crossed, both ends have the keys of both: they stay with those that came of IK,
    /// and of two such with those that the smaller key began. That end does so for as long as the other may
    /// not have heard of them; the other says again and again that it has its own, so that one who has lost
    /// the first keys is heard after that.
    pub(super) fn keeps_own_keys(&self, context: &Context<'_>, next: usize) -> bool {
        let is_smaller = self.peer.is_some_and(|peer| *context.local.static_public() < peer);
        let is_better = is_smaller || self.next.get(next).is_some_and(|(next, _)| !next.by_ik);
        // Keys of a peer that has fallen silent since are those of its former life, not of a crossing.
        is_better
            && !self.lost
            && self.current.is_some_and(|current| {
                current.initiator && current.by_ik && self.may_have_crossed(&current, context.now)
            })
    }

    /// The wall clock was set forward: timestamps go on from there. `wall_at_zero` is that of
    /// [`SessionConfig`](super::SessionConfig); a lower one changes nothing.
    pub fn advance_wall_clock(&mut self, wall_at_zero: u64) {
        self.config.wall_at_zero = self.config.wall_at_zero.max(wall_at_zero);
    }

    /// Whether these keys are so new that others, made at the same time, may not be known at both ends yet.
    pub(super) fn may_have_crossed(&self, keys: &Generation, now: Nanos) -> bool {
        let both_ways = Nanos(self.round_trip.0.saturating_mul(2));
        now.since(keys.born) < REKEY_SPACING.max(both_ways)
    }

    /// Begins nothing before this, and gives up what it had begun. What the peer begins is answered.
    pub fn back_off_until(&mut self, until: Nanos, outputs: &mut Vec<Output>) {
        self.drop_attempts(outputs);
        self.back_off_until = self.back_off_until.max(until);
    }

    pub(super) fn drop_attempts(&mut self, outputs: &mut Vec<Output>) {
        let attempts = self.attempts.drain(..);
        outputs.extend(attempts.map(|attempt| Output::Close(attempt.state.index())));
        self.retry_at = None;
    }

    pub(super) fn drop_oldest_attempt(&mut self, outputs: &mut Vec<Output>) {
        outputs.push(Output::Close(self.attempts.remove(0).state.index()));
    }

    /// How long to wait for an answer before the next attempt.
    fn pause(&self) -> Nanos {
        let round_trip = Nanos(self.round_trip.0.saturating_add(self.round_trip.0 / 2));
        let first = round_trip.clamp(RETRY_AFTER, RETRY_AFTER_SLOW);
        let doublings = self.tries / ATTEMPTS_PER_PAUSE;
        let most = if self.sealing { DOUBLINGS_WHILE_SEALING } else { 8 };
        // With its jitter the longest is RETRY_AFTER_MAX.
        let longest = RETRY_AFTER_MAX.0 / (JITTER_PARTS + 1) * JITTER_PARTS;
        Nanos((first.0 << doublings.min(most)).min(longest))
    }

    pub(super) fn begin(
        &mut self,
        context: &mut Context<'_>,
        outputs: &mut Vec<Output>,
    ) -> Result<(), EntropyFailed> {
        let now = context.now;
        let mut jitter = [0; 8];
        context.entropy.fill(&mut jitter)?;
        let wall = self.config.wall_at_zero.saturating_add(now.0);
        self.newest_timestamp = wall.max(self.newest_timestamp.saturating_add(1));
        self.cookie.take_if(|(_, since)| now.since(*since) >= COOKIE_SECRET_LIFE);
        let Some(index) = (context.indices)(context.entropy) else {
            // None is left: what has one may give it up by then.
            self.back_off_until = now.plus(RETRY_AFTER_MAX);
            return Ok(());
        };
        let offer = &self.config.offer;
        let timestamp = Timestamp(self.newest_timestamp);
        let ours = LocalParams { local: context.local, offer, index, timestamp };
        let cookie = self.cookie.as_ref().map(|(cookie, _)| cookie);
        let begun = match self.initiation_key() {
            Some(peer) => ik::initiate(&ours, &peer, &self.config.psk, cookie, context.entropy)
                .map(|(state, message)| (Pending::Known(state), message)),
            None => xx::initiate(&ours, cookie, context.entropy)
                .map(|(state, message)| (Pending::Discover(state), message)),
        };
        let (state, message) = match begun {
            Ok(begun) => begun,
            Err(HandshakeError::Local(failed)) => {
                outputs.push(Output::Close(index));
                return Err(failed);
            }
            Err(HandshakeError::Peer(_)) => {
                // A key that nobody can have, or our own: there is nobody to reach.
                outputs.push(Output::Close(index));
                self.wanted = false;
                return Ok(());
            }
        };
        let pause = self.pause();
        let jitter = Nanos(u64::from_be_bytes(jitter) % (pause.0 / JITTER_PARTS));
        self.tries = self.tries.saturating_add(1);
        self.retry_at = Some(now.plus(pause).plus(jitter));
        if self.attempts.len() >= ATTEMPTS_MAX {
            self.drop_oldest_attempt(outputs);
        }
        self.attempts.push(Attempt { state, sent: now });
        outputs.push(Output::Send(message));
        Ok(())
    }

    /// The key with which the next handshake begins; without one it begins by XX. A peer that had to be
    /// discovered and seems to be gone may have forgotten us, or have another key by now: every other
    /// attempt finds out. Keys that are good are renewed by IK alone, which costs no packet.
    fn initiation_key(&self) -> Option<StaticPublic> {
        let is_there = self.current.is_some() && !self.lost;
        let keeps = self.config.peer.is_some() || is_there || !self.tries.is_multiple_of(2);
        self.peer.filter(|_| keeps)
    }

    pub(super) fn initiation(
        &mut self,
        context: &mut Context<'_>,
        initiation: ik::Initiation,
        outputs: &mut Vec<Output>,
    ) -> Result<(), HandshakeError> {
        if self.config.peer.is_some_and(|peer| *initiation.static_key() != peer) {
            return Err(Refused::NotOurs.into());
        }
        if self.keeps_own_attempt(context, initiation.static_key()) {
            return Ok(());
        }
        self.guard.check(initiation.timestamp())?; // before an index is drawn for a replay
        let index = (context.indices)(context.entropy).ok_or(Refused::Busy)?;
        let offer = &self.config.offer;
        let ours =
            LocalParams { local: context.local, offer, index, timestamp: Timestamp::default() };
        let accepted = initiation
            .accept(&ours, &self.config.psk, &mut self.guard, context.entropy)
            .and_then(|accepted| {
                self.bind_peer(accepted.0.peer())?;
                Ok(accepted)
            });
        let (established, response) = match accepted {
            Ok(accepted) => accepted,
            Err(why) => {
                outputs.push(Output::Close(index));
                return Err(why);
            }
        };
        // What we have begun goes on until a packet under these keys shows that the peer is there now.
        self.install(context.now, established, true, outputs);
        outputs.push(Output::Send(response));
        Ok(())
    }

    pub(super) fn message(
        &mut self,
        context: &Context<'_>,
        message: &[u8],
        outputs: &mut Vec<Output>,
    ) -> Result<(), HandshakeError> {
        let now = context.now;
        let header = LinkHeader::parse(message).map_err(|_| Refused::Malformed)?;
        let mut attempts = self.attempts.iter();
        let place = attempts.position(|attempt| attempt.state.index() == header.index);
        let place = place.ok_or(Refused::NotOurs)?;
        if header.kind == Kind::Cookie {
            let cookie = self.attempts[place].state.read_cookie(message)?;
            self.cookie = Some((cookie, now)); // for the next attempt, when its time comes
            return Ok(());
        }
        let Attempt { state, sent } = self.attempts.remove(place);
        let index = state.index();
        // A response that cannot be read, or is somebody else's, leaves the attempt as it was.
        let waits = |state| Attempt { state, sent };
        let (taken, is_final) = match state {
            Pending::Known(state) => match state.read_response(message) {
                Ok(established) => match self.bind_peer(established.peer()) {
                    Ok(()) => {
                        self.round_trip = now.since(sent);
                        self.install(now, established, true, outputs);
                        (Ok(()), false)
                    }
                    Err(why) => (Err(why), true), // who has the peer's key has another identity
                },
                Err(Rejected { state, why }) => {
                    self.attempts.insert(place, waits(Pending::Known(*state)));
                    (Err(why), false)
                }
            },
            Pending::Discover(state) => match state.read_response(message) {
                Ok(discovered) => match self.check_discovered(context, &discovered) {
                    Ok(()) => {
                        self.round_trip = now.since(sent);
                        (self.finish_xx(context, discovered, outputs), true)
                    }
                    Err(why) => {
                        let state = Pending::Discover(discovered.resume_waiting(context.local)?);
                        self.attempts.insert(place, waits(state));
                        (Err(why), false)
                    }
                },
                Err(Rejected { state, why }) => {
                    self.attempts.insert(place, waits(Pending::Discover(*state)));
                    (Err(why), false)
                }
            },
        };
        if taken.is_err() && is_final {
            outputs.push(Output::Close(index));
            self.back_off_until = now.plus(RETRY_AFTER_MAX);
        }
        taken.map_err(HandshakeError::from)
    }

    /// Whether the one who answered may be this session's peer. Whoever hears our first message can answer
    /// it, so one who may not be changes nothing.
    fn check_discovered(
        &self,
        context: &Context<'_>,
        discovered: &xx::Discovered,
    ) -> Result<(), Refused> {
        let peer = discovered.peer();
        if self.peer != Some(peer.static_key) && !(context.is_free)(&peer.static_key) {
            return Err(Refused::OtherPeer);
        }
        self.check_peer(peer)?;
        discovered.check(&self.config.offer)
    }

    /// Goes on with the one who was discovered.
    fn finish_xx(
        &mut self,
        context: &Context<'_>,
        discovered: xx::Discovered,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refused> {
        self.bind_peer(discovered.peer())?;
        let (index, timestamp) = (discovered.our_index(), Timestamp(self.newest_timestamp));
        let ours =
            LocalParams { local: context.local, offer: &self.config.offer, index, timestamp };
        let cookie = self.cookie.as_ref().map(|(cookie, _)| cookie);
        let (established, msg3) = discovered.finish(&ours, cookie)?;
        self.send_msg3(context.now, established, msg3, outputs);
        Ok(())
    }

    /// Two identities may have signed one static key, and one identity may come with another key; a
    /// session is with one identity, and, where the operator wrote it, with one key.
    fn check_peer(&self, peer: &Peer) -> Result<(), Refused> {
        if self.config.peer.is_some_and(|key| key != peer.static_key) {
            return Err(Refused::NotOurs);
        }
        match self.config.identity {
            Some(identity) if identity != peer.identity => {
                Err(Refused::OtherIdentity(peer.identity.peer_id()))
            }
            _ => Ok(()),
        }
    }

    /// From now on the session is with this peer.
    pub(super) fn bind_peer(&mut self, peer: &Peer) -> Result<(), Refused> {
        self.check_peer(peer)?;
        self.config.identity = Some(peer.identity);
        self.peer = Some(peer.static_key);
        Ok(())
    }
}
