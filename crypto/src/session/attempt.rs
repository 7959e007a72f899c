//! Handshake attempts of a session: those it started, and those of the peer that it accepts.

use strowger_wire::{
    hello::Timestamp,
    link_header::{Kind, LinkHeader, SessionIndex},
};

use crate::domain::Domain;
use crate::entropy::EntropyFailed;
use crate::handshake::{
    Cookie, HandshakeError, LocalParams, Peer, Refused, Rejected, TimestampGuard, ik, xx,
};
use crate::identity::StaticPublic;
use crate::limits::{ATTEMPTS_MAX, COOKIE_SECRET_LIFE};
use crate::time::Nanos;

use super::{Context, Generation, Output, Session};

/// The state of a handshake that waits for a response.
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

/// A handshake that this side started.
pub(super) struct Attempt {
    pub(super) state: Pending,
    pub(super) sent: Nanos,
}

/// This side's role in the XX handshake that gave a session its keys.
#[derive(Debug)]
pub enum XxRole {
    /// This side initiated it.
    Initiator {
        /// The third message.
        msg3: Vec<u8>,
    },
    /// The peer initiated it.
    Responder {
        /// The newest timestamp of the peer.
        guard: TimestampGuard,
    },
}

impl Session {
    /// Time after which a response to this attempt is no longer accepted.
    pub(super) fn ends_at(&self, attempt: &Attempt) -> Nanos {
        attempt.sent.plus(self.config.times.attempt_life)
    }

    /// Whether an attempt with this index waits for a response. Data packets do not use it before
    /// the handshake is complete.
    pub fn awaits(&self, index: SessionIndex) -> bool {
        self.attempts.iter().any(|attempt| attempt.state.index() == index)
    }

    /// Checks length, session index and mac of a response or cookie reply. Costs at most one hash
    /// or one decryption.
    ///
    /// # Errors
    /// The reason why the message is not for this session. The session does not change.
    pub fn check_response(&self, message: &[u8]) -> Result<(), Refused> {
        let header = LinkHeader::parse(message).map_err(|_| Refused::Malformed)?;
        let is_it = |attempt: &&Attempt| attempt.state.index() == header.index;
        let attempt = self.attempts.iter().find(is_it).ok_or(Refused::NotOurs)?;
        match header.kind {
            Kind::Cookie => attempt.state.read_cookie(message).map(|_| ()),
            _ => attempt.state.check(message),
        }
    }

    /// Whether our own attempt wins against an initiation of the peer.
    ///
    /// The attempt of the end with the smaller static key wins. There are two exceptions: the
    /// initiation of our attempt seems lost, or our attempt uses XX. Once there are keys, an
    /// initiation that the peer sent before it had them loses as well.
    fn keeps_own_attempt(&self, context: &Context<'_>, theirs: &StaticPublic) -> bool {
        let is_new = |since| context.now.since(since) < self.config.times.crossing;
        let is_begun = |attempt: &Attempt| {
            matches!(attempt.state, Pending::Known(_))
                && is_new(attempt.sent)
                && (self.sealing || self.tries <= 1)
        };
        let is_answered = |current: Generation| {
            current.initiator && current.by_ik && is_new(current.born) && !self.lost
        };
        // Without keys and after a failed attempt, the peer's initiation is accepted: the peer may
        // be reachable only if it initiates, and the two ends may initiate at the same times again
        // and again.
        context.local.static_public() < theirs
            && (self.attempts.last().is_some_and(is_begun) || self.current.is_some_and(is_answered))
    }

    /// Whether to keep the current keys, although the peer uses the keys of the other handshake.
    ///
    /// After two handshakes have crossed, both ends have both sets of keys. They keep the set from
    /// IK, and of two such sets the one that the end with the smaller key initiated. The end with
    /// the smaller key keeps its own set while the other end may not know it. The other end repeats
    /// its confirmation, so if it has only the keys of its own handshake, these are accepted later.
    pub(super) fn keeps_own_keys(&self, context: &Context<'_>, next: usize) -> bool {
        // This end repeats its third message until the peer confirms it or the handshake is lost.
        if self.next.get(next).is_some_and(|(next, _)| next.crossed)
            && self.current.is_some_and(|keys| keys.initiator && (keys.confirmed || !self.lost))
        {
            return true;
        }
        let is_smaller = self.peer.is_some_and(|peer| *context.local.static_public() < peer);
        let is_better = is_smaller || self.next.get(next).is_some_and(|(next, _)| !next.by_ik);
        // If the peer has stopped answering since, it may have restarted, and its keys then do not
        // come from a crossing.
        is_better
            && !self.lost
            && self.current.is_some_and(|current| {
                current.initiator && current.by_ik && self.may_have_crossed(&current, context.now)
            })
    }

    /// Takes a static key from a certificate of the peer's identity, for handshakes of IK. It has no
    /// effect if the peer's key is known.
    pub fn suggest_key(&mut self, key: &StaticPublic) {
        self.peer.get_or_insert(*key);
    }

    /// Begins all handshakes with XX from now on, so that an attacker who later gets the peer's
    /// static key does not learn our identity from them (wire.md W6-199).
    pub fn hide_identity(&mut self) {
        self.hides_identity = true;
    }

    /// Sets whether all handshakes begin with IK while the peer's key is known. Callers set this
    /// while the hello contains an early message.
    pub fn insist_on_key(&mut self, insists: bool) {
        self.insists_on_key = insists;
    }

    /// Refuses initiations that are not newer than `guard`, which an earlier session with this peer
    /// left.
    pub fn raise_guard(&mut self, guard: TimestampGuard) {
        self.guard.newest = self.guard.newest.max(guard.newest);
    }

    /// Whether the third message of XX is repeated until the peer confirms the keys.
    pub const fn repeats_msg3(&self) -> bool {
        self.msg3.is_some()
    }

    /// Whether the newest keys are those of XX of which this side was the initiator, and no packet
    /// under them was opened: the peer may refuse the third message.
    pub fn awaits_confirmation(&self) -> bool {
        self.current.is_some_and(|keys| keys.initiator && !keys.by_ik && !keys.confirmed)
    }

    /// Whether an attempt of our own waits for a response.
    pub fn has_attempt(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// The number of attempts since the last success.
    pub const fn tries(&self) -> u32 {
        self.tries
    }

    /// Makes timestamps follow a wall clock that was set forward.
    ///
    /// `wall_at_zero` is that of [`SessionConfig`](super::SessionConfig); a lower value has no
    /// effect.
    pub fn advance_wall_clock(&mut self, wall_at_zero: u64) {
        self.config.wall_at_zero = self.config.wall_at_zero.max(wall_at_zero);
    }

    /// Whether other keys, made at the same time as these, may still be unknown to one end.
    pub(super) fn may_have_crossed(&self, keys: &Generation, now: Nanos) -> bool {
        let both_ways = Nanos(self.round_trip.0.saturating_mul(2));
        now.since(keys.born) < self.config.times.rekey_spacing.max(both_ways)
    }

    /// Drops all attempts and starts none before `until`. The session still answers attempts of the
    /// peer.
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

    /// Pause before the next attempt, without jitter.
    fn pause(&self) -> Nanos {
        let round_trip = Nanos(self.round_trip.0.saturating_add(self.round_trip.0 / 2));
        let times = self.config.times;
        let first = round_trip.clamp(times.retry_after, times.retry_after_slow);
        let doublings = self.tries / times.attempts_per_pause;
        let most = if self.sealing { times.doublings_while_sealing } else { 8 };
        Nanos((first.0 << doublings.min(most)).min(times.longest_pause()))
    }

    /// The next timestamp: the time, or one more than the last timestamp if that is not smaller.
    fn draw_timestamp(&mut self, now: Nanos) -> Timestamp {
        let wall = self.config.wall_at_zero.saturating_add(now.0);
        self.newest_timestamp = wall.max(self.newest_timestamp.saturating_add(1));
        Timestamp(self.newest_timestamp)
    }

    pub(super) fn begin(
        &mut self,
        context: &mut Context<'_>,
        outputs: &mut Vec<Output>,
    ) -> Result<(), EntropyFailed> {
        let now = context.now;
        let mut jitter = [0; 8];
        context.entropy.fill(&mut jitter)?;
        let timestamp = self.draw_timestamp(now);
        self.cookie.take_if(|(_, since)| now.since(*since) >= COOKIE_SECRET_LIFE);
        let Some(index) = (context.indices)(context.entropy) else {
            // No index is free: wait until another session may have returned one.
            self.back_off_until = now.plus(self.config.times.retry_after_max);
            return Ok(());
        };
        let offer = &self.config.offer;
        let ours = LocalParams { local: context.local, offer, index, timestamp };
        let cookie = self.cookie.as_ref().map(|(cookie, _)| cookie);
        let begun = match self.initiation_key(context.local.domain()) {
            Some(peer) => ik::initiate(&ours, &peer, &self.config.psk, cookie, context.entropy)
                .map(|(state, message)| (Pending::Known(state), message)),
            None => match (context.local.domain(), &self.config.identity) {
                (Domain::Connection, Some(identity)) => {
                    xx::initiate_by_peer_id(&ours, identity, cookie, context.entropy)
                }
                _ => xx::initiate(&ours, cookie, context.entropy),
            }
            .map(|(state, message)| (Pending::Discover(state), message)),
        };
        let (state, message) = match begun {
            Ok(begun) => begun,
            Err(HandshakeError::Local(failed)) => {
                outputs.push(Output::Close(index));
                return Err(failed);
            }
            Err(HandshakeError::Peer(_)) => {
                // The key is our own or of small order, so no peer can have it.
                outputs.push(Output::Close(index));
                self.wanted = false;
                return Ok(());
            }
        };
        let pause = self.pause();
        let jitter = Nanos(u64::from_be_bytes(jitter) % (pause.0 / self.config.times.jitter_parts));
        self.tries = self.tries.saturating_add(1);
        self.retry_at = Some(now.plus(pause).plus(jitter));
        if self.attempts.len() >= ATTEMPTS_MAX {
            self.drop_oldest_attempt(outputs);
        }
        self.attempts.push(Attempt { state, sent: now });
        outputs.push(Output::Send(message));
        Ok(())
    }

    /// The static key for the next IK initiation; `None` for an initiation of XX.
    ///
    /// Every second attempt to a silent discovered peer uses XX, because the peer may have lost its
    /// state or changed its key. Valid keys are renewed only with IK, which loses no packet. A link
    /// begins with XX; a connection begins with IK, which also shows whether the peer has restarted
    /// (wire.md W6-122, W6-140).
    fn initiation_key(&self, domain: Domain) -> Option<StaticPublic> {
        let is_there = self.current.is_some() && !self.lost;
        let is_turn = self.tries.is_multiple_of(2) == (domain == Domain::Connection);
        let keeps = self.config.peer.is_some() || is_there || is_turn || self.insists_on_key;
        self.peer.filter(|_| keeps && !self.hides_identity)
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
        self.guard.check(initiation.timestamp())?; // checked first, so that a replay costs no index
        let index = (context.indices)(context.entropy).ok_or(Refused::Busy)?;
        let offer = &self.config.offer;
        let ours =
            LocalParams { local: context.local, offer, index, timestamp: Timestamp::default() };
        // An initiation that is refused must not change the newest timestamp.
        let mut guard = self.guard;
        let accepted = initiation
            .accept(&ours, &self.config.psk, &mut guard, context.entropy)
            .and_then(|accepted| {
                self.bind_peer(accepted.0.peer())?;
                self.guard = guard;
                Ok(accepted)
            });
        let (established, response) = match accepted {
            Ok(accepted) => accepted,
            Err(why) => {
                outputs.push(Output::Close(index));
                return Err(why);
            }
        };
        // Our own attempts continue until a packet under these keys proves that the peer is
        // present.
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
            self.cookie = Some((cookie, now)); // for the next attempt, at its scheduled time
            return Ok(());
        }
        let Attempt { state, sent } = self.attempts.remove(place);
        let index = state.index();
        // A response that cannot be read leaves the attempt unchanged. So does a response of XX
        // from another peer.
        let waits = |state| Attempt { state, sent };
        let (taken, is_final) = match state {
            Pending::Known(state) => match state.read_response(message) {
                Ok(established) => match self.bind_peer(established.peer()) {
                    Ok(()) => {
                        self.round_trip = now.since(sent);
                        self.install(now, established, true, outputs);
                        (Ok(()), false)
                    }
                    Err(why) => (Err(why), true), // the key's owner has another identity
                },
                Err(Rejected { state, why }) => {
                    self.attempts.insert(place, waits(Pending::Known(*state)));
                    (Err(why), false)
                }
            },
            Pending::Discover(state) => match state.read_response(context.local, message) {
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
            self.back_off_until = now.plus(self.config.times.retry_after_max);
        }
        taken.map_err(HandshakeError::from)
    }

    /// Checks that a discovered node may be this session's peer.
    ///
    /// Every node that receives our first message can answer it, so a response of a wrong node must
    /// not change the session.
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

    /// Completes XX with the discovered peer.
    fn finish_xx(
        &mut self,
        context: &Context<'_>,
        discovered: xx::Discovered,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refused> {
        self.bind_peer(discovered.peer())?;
        // The peer may have accepted a later initiation of IK than the first message of this
        // handshake, so that the newest timestamp of an initiation would be stale.
        let (index, timestamp) = (discovered.our_index(), self.draw_timestamp(context.now));
        let ours =
            LocalParams { local: context.local, offer: &self.config.offer, index, timestamp };
        let cookie = self.cookie.as_ref().map(|(cookie, _)| cookie);
        let (established, msg3) = discovered.finish(&ours, cookie)?;
        self.send_msg3(context.now, established, msg3, outputs);
        Ok(())
    }

    /// Checks key and identity against the configuration.
    ///
    /// A session has one identity and, if the operator configured it, one key. Both must be
    /// checked: two identities may sign one static key, and one identity may sign several keys.
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

    /// Binds the session to this peer.
    pub(super) fn bind_peer(&mut self, peer: &Peer) -> Result<(), Refused> {
        self.check_peer(peer)?;
        self.config.identity = Some(peer.identity);
        self.peer = Some(peer.static_key);
        Ok(())
    }
}
