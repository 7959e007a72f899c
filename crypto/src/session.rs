//! One peer's keys over time: previous, current, next, and the handshakes that renew them. Sans I/O.
//!
//! ```text
//!             initiator                                      responder
//!  120 s old: Send(initiation) ───────────────────────────►  Open(next), Send(response)
//!  Open(new), Seal(new), Confirm ◄────────────────────────   still seals with current
//!  seals with new ── first packet under new keys ─────────►  Input::Opened(next): Seal(next), Confirm
//!  opens previous, current                                   opens previous, current, next
//! ```
//!
//! As in WireGuard, a side seals with new keys only when it knows that the other can open them: the
//! initiator when it has the response, the responder when the first packet under them was opened.
//! Until then the old keys go on, so whatever handshake message is lost, no data packet is refused.
//! Where both ends begin at once, the one whose static key is smaller goes on and the other answers; where
//! two handshakes come of it nevertheless, both ends stay with that one's.
//!
//! An initiation alone proves nothing of now: it may be a recorded one. It makes keys that wait for the
//! first packet under them, and neither ends nor defers what this side has begun.
//!
//! A [`Session`] decides; the data plane holds sealers and openers. What it decides comes back as
//! [`Output`]s, in the order in which they are to be carried out. It keeps no address: roaming is
//! not its business, and a handshake never moves a peer.

mod attempt;
mod generation;

use core::fmt;

use strowger_wire::link_header::SessionIndex;

use crate::aead::Provider;
use crate::entropy::{Entropy, EntropyFailed};
use crate::handshake::{
    Agreement, Cookie, Established, HandshakeError, Offer, Peer, TimestampGuard, ik,
};
use crate::identity::{Identity, LocalIdentity, StaticPublic};
use crate::limits::{
    CONFIRM_AFTER_MSG3, CONFIRMS_MAX, MSG3_SENDS_MAX, NEXT_MAX, REKEY_SPACING, RETRY_AFTER,
};
use crate::opener::Openers;
use crate::sealer::Sealer;
use crate::secret::Psk;
use crate::time::Nanos;

use self::attempt::Attempt;
pub use self::attempt::XxRole;
use self::generation::Generation;

/// What is fixed about a session with one peer.
#[derive(Debug)]
pub struct SessionConfig {
    /// The peer's static key; where it is not known, a handshake begins by XX, and finds it out.
    pub peer: Option<StaticPublic>,
    /// Who the peer must be; where nothing is said, whoever it is the first time.
    pub identity: Option<Identity>,
    /// The key both operators wrote, or [`Psk::NONE`].
    pub psk: Psk,
    /// What we offer.
    pub offer: Offer,
    /// Whose code seals and opens.
    pub provider: Provider,
    /// What the wall clock showed, in nanoseconds since 1970, when the monotonic clock showed zero.
    /// Timestamps only grow while the process lives, whatever the wall clock does; [`Session::advance_wall_clock`]
    /// lets them follow one that was set forward.
    pub wall_at_zero: u64,
}

/// What a step needs of its surroundings.
pub struct Context<'a> {
    /// Now.
    pub now: Nanos,
    /// Who we are.
    pub local: &'a LocalIdentity,
    /// Where random bytes come from.
    pub entropy: &'a mut dyn Entropy,
    /// Gives a session index that nobody uses and nobody can predict, if there is one left; it may draw on
    /// the source of randomness. Each is given back by one [`Output::Close`]; until then handshake
    /// messages addressed to it are for this session.
    pub indices: &'a mut dyn FnMut(&mut dyn Entropy) -> Option<SessionIndex>,
    /// Whether the key of a peer that was just discovered is nobody else's.
    pub is_free: &'a dyn Fn(&StaticPublic) -> bool,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("now", &self.now).finish_non_exhaustive()
    }
}

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// Time passed: [`Session::next_timeout`] is reached. Never wrong to say.
    Tick,
    /// A link is wanted, or traffic is about: begin if there are no keys, and keep keys fresh.
    Wanted,
    /// The link is quiet: let the keys grow old. What is in hand is finished.
    Unwanted,
    /// A sealer says [`wants_rekey`](Sealer::wants_rekey).
    RekeyDue,
    /// The peer is not heard any more: begin, and find out whether it is there, and still who it was.
    Lost,
    /// An initiation of this peer was read.
    Initiation(Box<ik::Initiation>),
    /// A response or cookie, addressed to an index of this session.
    Message(&'a [u8]),
    /// The first packet under this index was opened ([`Opened::first`](crate::Opened::first)), or an
    /// empty one: the peer's [`Output::Confirm`]. May be said of any other packet too.
    Opened(SessionIndex),
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Send this handshake message to the peer.
    Send(Vec<u8>),
    /// From now on packets addressed to this index are opened with these.
    Open {
        /// Our index.
        index: SessionIndex,
        /// Give them to the worker that owns the link's flow.
        openers: Openers,
    },
    /// From now on seal with these, and drop those before.
    Seal(Box<NewKeys>),
    /// Seal an empty packet under the newest keys and send it, so that the peer knows that we have them.
    Confirm,
    /// This index opens nothing any more. Give it to nobody else for a while.
    Close(SessionIndex),
    /// There are no keys to seal with any more: the link is down until the next [`Output::Seal`].
    Expired,
}

/// New keys to seal with, and what was agreed with them.
#[derive(Debug)]
pub struct NewKeys {
    /// One for each lane that we announced.
    pub sealers: Vec<Sealer>,
    /// What was agreed.
    pub agreement: Agreement,
    /// What the peer offered this time.
    pub their_offer: Offer,
    /// Who it is.
    pub peer: Peer,
    /// The index that the peer's packets under these keys are addressed to.
    pub index: SessionIndex,
    /// Whether the peer has shown that it has them, too. Where we began by XX it has not yet: it will by
    /// its first packet under them.
    pub confirmed: bool,
}

/// The session with one peer. See the module.
pub struct Session {
    config: SessionConfig,
    /// The peer's key, as far as it is known.
    peer: Option<StaticPublic>,
    guard: TimestampGuard,
    newest_timestamp: u64,
    /// The newest last; two for as long as two handshakes that crossed are told apart.
    previous: Vec<Generation>,
    current: Option<Generation>,
    /// Keys that the peer may have and has not used yet, and what seals with them once it has; the
    /// newest last. [`NEXT_MAX`] at most.
    next: Vec<(Generation, Box<NewKeys>)>,
    /// Those whose answers count, the newest last. [`ATTEMPTS_MAX`] at most.
    attempts: Vec<Attempt>,
    /// When the next attempt is due, once there was one.
    retry_at: Option<Nanos>,
    /// Attempts since the last success.
    tries: u32,
    /// How long the last handshake that we began was under way.
    round_trip: Nanos,
    cookie: Option<(Cookie, Nanos)>,
    /// The third message of XX, until the peer is heard under its keys.
    msg3: Option<Vec<u8>>,
    wanted: bool,
    rekey_due: bool,
    /// The peer seems to be gone, or somebody else by now.
    lost: bool,
    /// No new attempt before this: the last one failed for want of random bytes.
    back_off_until: Nanos,
    sealing: bool,
    confirms: u32,
    confirm_at: Nanos,
}

impl Session {
    /// A session without keys. It begins nothing before [`Input::Wanted`].
    pub fn new(config: SessionConfig) -> Session {
        Session {
            peer: config.peer,
            config,
            guard: TimestampGuard::default(),
            newest_timestamp: 0,
            previous: Vec::new(),
            current: None,
            next: Vec::new(),
            attempts: Vec::new(),
            retry_at: None,
            tries: 0,
            round_trip: Nanos::ZERO,
            cookie: None,
            msg3: None,
            wanted: false,
            rekey_due: false,
            lost: false,
            back_off_until: Nanos::ZERO,
            sealing: false,
            confirms: 0,
            confirm_at: Nanos::ZERO,
        }
    }

    /// Takes up a session that XX has made, as if its handshake had been an IK one. If it does, which
    /// [`owns`](Self::owns) tells, the index now belongs to this session, though no
    /// [`Context::indices`] gave it.
    ///
    /// The initiator passes the third message, which is sent now and again until the peer is heard;
    /// the responder passes the peer's guard as
    /// [`xx::Finish::accept`](crate::handshake::xx::Finish::accept) left it.
    pub fn adopt(
        &mut self,
        context: &mut Context<'_>,
        established: Established,
        role: XxRole,
        outputs: &mut Vec<Output>,
    ) -> Result<(), HandshakeError> {
        // Both began at once: the smaller key goes on, as long as its third message is on its way.
        let first = context.local.static_public() < &established.peer().static_key;
        if first && !established.is_initiator() && self.msg3.is_some() {
            return Ok(());
        }
        self.bind_peer(established.peer())?;
        self.drop_attempts(outputs);
        match role {
            XxRole::Initiator { msg3 } => self.send_msg3(context.now, established, msg3, outputs),
            XxRole::Responder { guard } => {
                self.install(context.now, established, false, outputs);
                self.guard.newest = self.guard.newest.max(guard.newest);
            }
        }
        Ok(self.tick(context, outputs)?)
    }

    /// We have the keys, and the peer will, once it has the third message.
    fn send_msg3(
        &mut self,
        now: Nanos,
        established: Established,
        msg3: Vec<u8>,
        outputs: &mut Vec<Output>,
    ) {
        self.install(now, established, false, outputs);
        outputs.push(Output::Send(msg3.clone()));
        self.msg3 = Some(msg3);
        // Not in one breath: the peer's workers get the keys from its slow path.
        self.confirm_at = now.plus(CONFIRM_AFTER_MSG3);
    }

    /// The peer's static key, once it is known.
    pub const fn peer(&self) -> Option<&StaticPublic> {
        self.peer.as_ref()
    }

    /// Whether there are keys to seal with.
    pub const fn is_up(&self) -> bool {
        self.sealing
    }

    /// The newest timestamp of the peer, to keep beyond this session.
    pub const fn guard(&self) -> TimestampGuard {
        self.guard
    }

    /// The index of the keys that we seal with, if there are any.
    pub fn current_index(&self) -> Option<SessionIndex> {
        self.current.as_ref().map(|current| current.index)
    }

    /// Whether packets to `index` are opened, or a response to it is awaited.
    pub fn owns(&self, index: SessionIndex) -> bool {
        self.generations().any(|generation| generation.index == index) || self.awaits(index)
    }

    fn generations(&self) -> impl Iterator<Item = &Generation> {
        self.previous.iter().chain(&self.current).chain(self.next.iter().map(|(next, _)| next))
    }

    /// Says what happened, and appends what is to be done to `outputs`. An error says why a message
    /// was not taken; whatever is in `outputs` is to be done nevertheless.
    pub fn handle(
        &mut self,
        context: &mut Context<'_>,
        input: Input<'_>,
        outputs: &mut Vec<Output>,
    ) -> Result<(), HandshakeError> {
        let taken = match input {
            Input::Tick => Ok(()),
            Input::Wanted => {
                self.wanted = true;
                Ok(())
            }
            Input::Unwanted => {
                self.wanted = false;
                Ok(())
            }
            Input::RekeyDue => {
                self.rekey_due = true;
                Ok(())
            }
            Input::Lost => {
                (self.rekey_due, self.lost) = (true, true);
                Ok(())
            }
            Input::Initiation(initiation) => self.initiation(context, *initiation, outputs),
            Input::Message(message) => self.message(context, message, outputs),
            Input::Opened(index) => {
                self.opened(context, index, outputs);
                Ok(())
            }
        };
        let timed = self.tick(context, outputs);
        taken.and(timed.map_err(HandshakeError::from))
    }

    /// Drops everything: one [`Output::Close`] for each index held.
    pub fn close(&mut self, outputs: &mut Vec<Output>) {
        outputs.extend(self.generations().map(|generation| Output::Close(generation.index)));
        self.drop_generations();
        self.drop_attempts(outputs);
        self.msg3 = None;
        self.wanted = false;
        if core::mem::take(&mut self.sealing) {
            outputs.push(Output::Expired);
        }
    }

    /// Forgets all keys and handshakes, and keeps who the peer is and which timestamps were used: for a
    /// caller who does not know what has become of [`Output`]s. If keys are wanted, a handshake begins
    /// at once. Openers and sealers that were given out before go on until they are too old; they, and
    /// their indices, are the caller's to end.
    pub fn reset(&mut self) {
        self.drop_generations();
        self.attempts.clear();
        (self.cookie, self.msg3, self.retry_at) = (None, None, None);
        (self.tries, self.confirms) = (0, 0);
        (self.back_off_until, self.confirm_at) = (Nanos::ZERO, Nanos::ZERO);
        (self.rekey_due, self.lost, self.sealing) = (false, false, false);
    }

    fn drop_generations(&mut self) {
        self.previous.clear();
        self.next.clear();
        self.current = None;
    }

    /// When [`Input::Tick`] is due, if ever.
    pub fn next_timeout(&self) -> Option<Nanos> {
        let mut due: Option<Nanos> = None;
        let mut at = |time: Nanos| due = Some(due.map_or(time, |due| due.min(time)));
        if self.wanted {
            at(self.begins_at());
        }
        if let Some(oldest) = self.attempts.first() {
            at(oldest.ends_at());
        }
        if let Some(current) = &self.current {
            if self.sealing {
                at(current.seals_until());
            }
            if self.confirming() {
                at(self.confirm_at);
            }
        }
        self.generations().for_each(|generation| at(generation.opens_until()));
        due
    }

    /// When the next attempt at a handshake is due, if one is wanted.
    fn begins_at(&self) -> Nanos {
        let due = match (&self.current, self.retry_at) {
            (_, Some(again)) => again,
            (None, None) => Nanos::ZERO,
            (Some(current), None) if self.rekey_due => current.born.plus(REKEY_SPACING),
            (Some(current), None) => current.rekey_at(),
        };
        due.max(self.back_off_until)
    }

    fn confirming(&self) -> bool {
        self.confirms < CONFIRMS_MAX
            && self.current.is_some_and(|current| current.initiator && !current.confirmed)
    }

    fn tick(
        &mut self,
        context: &mut Context<'_>,
        outputs: &mut Vec<Output>,
    ) -> Result<(), EntropyFailed> {
        let now = context.now;
        if self.sealing && self.current.is_none_or(|current| now >= current.seals_until()) {
            self.sealing = false;
            outputs.push(Output::Expired);
        }
        let is_dead = |generation: &Generation| now >= generation.opens_until();
        let dead = self.generations().filter(|generation| is_dead(generation));
        outputs.extend(dead.map(|generation| Output::Close(generation.index)));
        self.previous.retain(|generation| !is_dead(generation));
        self.current.take_if(|generation| is_dead(generation));
        self.next.retain(|(generation, _)| !is_dead(generation));
        while self.attempts.first().is_some_and(|oldest| now >= oldest.ends_at()) {
            self.drop_oldest_attempt(outputs);
        }
        if self.confirming() && now >= self.confirm_at {
            if self.confirms >= MSG3_SENDS_MAX && self.msg3.take().is_some() {
                // The peer would not have our third message, or is gone: begin anew.
                (self.rekey_due, self.lost) = (true, true);
            }
            self.confirms += 1;
            self.confirm_at = now.plus(RETRY_AFTER);
            if self.confirms > 1 {
                outputs.extend(self.msg3.clone().map(Output::Send)); // the first one may be lost
            }
            outputs.push(Output::Confirm);
        }
        if self.wanted && now >= self.begins_at() {
            let begun = self.begin(context, outputs);
            begun.inspect_err(|_| self.back_off_until = now.plus(RETRY_AFTER))?;
        }
        Ok(())
    }

    /// New keys: current at once where we began, next where the peer did.
    /// `confirmed`: where we began, the peer's answer has shown that it has them, too.
    fn install(
        &mut self,
        now: Nanos,
        established: Established,
        confirmed: bool,
        outputs: &mut Vec<Output>,
    ) {
        let generation = Generation {
            index: established.our_index(),
            born: now,
            initiator: established.is_initiator(),
            confirmed: false,
            by_ik: confirmed,
        };
        let agreement = *established.agreement();
        let their_offer = established.their_offer().clone();
        let peer = *established.peer();
        let index = generation.index;
        let transport = established.into_transport(now, self.config.provider);
        let sealers = transport.sealers;
        let confirmed = confirmed || !generation.initiator;
        let keys = Box::new(NewKeys { sealers, agreement, their_offer, peer, index, confirmed });
        outputs.push(Output::Open { index, openers: transport.openers });
        if generation.initiator {
            self.drop_attempts(outputs);
            self.promote(now, generation, keys, outputs);
        } else {
            if self.next.len() >= NEXT_MAX {
                let (unused, _) = self.next.remove(0);
                outputs.push(Output::Close(unused.index));
            }
            self.next.push((generation, keys));
        }
    }

    fn opened(&mut self, context: &Context<'_>, index: SessionIndex, outputs: &mut Vec<Output>) {
        let now = context.now;
        if let Some(current) = self.current.as_mut().filter(|current| current.index == index) {
            current.confirmed = true;
            self.msg3 = None;
        }
        let place = self.next.iter().position(|(next, _)| next.index == index);
        if let Some(place) = place.filter(|place| !self.keeps_own_keys(context, *place)) {
            // The peer took this answer, and waits for none of those before it.
            let mut taken = self.next.drain(..=place).rev();
            let (next, keys) = taken.next().expect("the place is within");
            outputs.extend(taken.map(|(unused, _)| Output::Close(unused.index)));
            self.drop_attempts(outputs);
            self.promote(now, Generation { confirmed: true, ..next }, keys, outputs);
        }
        // The responder answers a confirmation with one; the initiator answers none, so it ends there.
        let answers = |current: Generation| current.index == index && !current.initiator;
        if self.current.is_some_and(answers) && now >= self.confirm_at {
            self.confirm_at = now.plus(Nanos(RETRY_AFTER.0 / 2));
            outputs.push(Output::Confirm);
        }
    }

    fn promote(
        &mut self,
        now: Nanos,
        generation: Generation,
        keys: Box<NewKeys>,
        outputs: &mut Vec<Output>,
    ) {
        let former = self.current.replace(generation);
        // Where two handshakes crossed, what was sealed before both may still be on its way.
        let has_crossed = former.is_some_and(|former| self.may_have_crossed(&former, now));
        let kept = usize::from(has_crossed && self.previous.len() < 2);
        while self.previous.len() > kept {
            outputs.push(Output::Close(self.previous.remove(0).index));
        }
        self.previous.extend(former);
        (self.tries, self.retry_at) = (0, None);
        (self.rekey_due, self.lost) = (false, false);
        self.back_off_until = Nanos::ZERO; // whatever was the reason, the peer is there
        self.sealing = true;
        self.confirms = 0;
        self.confirm_at = now;
        self.msg3 = None;
        outputs.push(Output::Seal(keys));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("previous", &self.previous)
            .field("current", &self.current)
            .field("next", &self.next.iter().map(|(next, _)| next).collect::<Vec<_>>())
            .field("attempts", &self.attempts.len())
            .field("tries", &self.tries)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}
