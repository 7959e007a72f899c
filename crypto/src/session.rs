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
//! Where both ends begin at once, the one whose static key is smaller goes on and the other answers.
//!
//! A [`Session`] decides; the data plane holds sealers and openers. What it decides comes back as
//! [`Output`]s, in the order in which they are to be carried out. It keeps no address: roaming is
//! not its business, and a handshake never moves a peer.

mod attempt;
mod generation;

use core::fmt;

use crate::aead::Provider;
use crate::entropy::{Entropy, EntropyFailed};
use crate::handshake::{
    Agreement, Cookie, Established, HandshakeError, Offer, Ours, Peer, Refused, Rejected, Stamp,
    StampGuard, ik, xx,
};
use crate::identity::{Identity, Local, StaticPublic};
use crate::limits::{
    CONFIRM_AFTER_THIRD, CONFIRMS_MAX, COOKIE_SECRET_LIFE, HURRIED_ATTEMPTS, REKEY_SPACING,
    RETRY_AFTER, RETRY_AFTER_MAX, THIRDS_MAX,
};
use crate::link_header::{Kind, LinkHeader, SessionIndex};
use crate::opener::Openers;
use crate::sealer::Sealer;
use crate::secret::Psk;
use crate::time::Nanos;

pub use self::attempt::Adopted;
use self::attempt::{Attempt, Begun};
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
    /// Stamps only grow while the process lives, whatever the wall clock does; [`Session::raise_wall`]
    /// lets them follow one that was set forward.
    pub wall_at_zero: u64,
}

/// What a step needs of its surroundings.
pub struct Context<'a> {
    /// Now.
    pub now: Nanos,
    /// Who we are.
    pub local: &'a Local,
    /// Where random bytes come from.
    pub entropy: &'a mut dyn Entropy,
    /// Gives a session index that nobody uses. Each is given back by one [`Output::Close`]; until
    /// then handshake messages addressed to it are for this session.
    pub indices: &'a mut dyn FnMut() -> SessionIndex,
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
    Worn,
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
    pub shown: bool,
}

/// The session with one peer. See the module.
pub struct Session {
    config: SessionConfig,
    /// The peer's key, as far as it is known.
    peer: Option<StaticPublic>,
    guard: StampGuard,
    newest_stamp: u64,
    previous: Option<Generation>,
    current: Option<Generation>,
    /// Keys that the peer may have and has not used yet, and what seals with them once it has.
    next: Option<(Generation, Box<NewKeys>)>,
    attempt: Option<Attempt>,
    /// Attempts since the last success.
    tries: u32,
    cookie: Option<(Cookie, Nanos)>,
    /// The third message of XX, until the peer is heard under its keys.
    third: Option<Vec<u8>>,
    wanted: bool,
    worn: bool,
    /// The peer seems to be gone, or somebody else by now.
    lost: bool,
    /// No new attempt before this: the last one failed for want of random bytes.
    rest_until: Nanos,
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
            guard: StampGuard::default(),
            newest_stamp: 0,
            previous: None,
            current: None,
            next: None,
            attempt: None,
            tries: 0,
            cookie: None,
            third: None,
            wanted: false,
            worn: false,
            lost: false,
            rest_until: Nanos::ZERO,
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
        role: Adopted,
        outputs: &mut Vec<Output>,
    ) -> Result<(), HandshakeError> {
        // Both began at once: the smaller key goes on, as long as its third message is on its way.
        let first = context.local.static_public() < &established.peer().static_key;
        if first && !established.is_initiator() && self.third.is_some() {
            return Ok(());
        }
        self.recognise(established.peer())?;
        self.drop_attempt(outputs);
        match role {
            Adopted::Initiator { third } => self.go_on(context.now, established, third, outputs),
            Adopted::Responder { guard } => {
                self.take(context.now, established, false, outputs);
                self.guard.newest = self.guard.newest.max(guard.newest);
            }
        }
        Ok(self.tick(context, outputs)?)
    }

    /// We have the keys, and the peer will, once it has the third message.
    fn go_on(
        &mut self,
        now: Nanos,
        established: Established,
        third: Vec<u8>,
        outputs: &mut Vec<Output>,
    ) {
        self.take(now, established, false, outputs);
        outputs.push(Output::Send(third.clone()));
        self.third = Some(third);
        // Not in one breath: the peer's workers get the keys from its slow path.
        self.confirm_at = now.plus(CONFIRM_AFTER_THIRD);
    }

    /// The peer's static key, once it is known.
    pub const fn peer(&self) -> Option<&StaticPublic> {
        self.peer.as_ref()
    }

    /// Whether there are keys to seal with.
    pub const fn is_up(&self) -> bool {
        self.sealing
    }

    /// The newest stamp of the peer, to keep beyond this session.
    pub const fn guard(&self) -> StampGuard {
        self.guard
    }

    /// The index of the keys that we seal with, if there are any.
    pub fn current_index(&self) -> Option<SessionIndex> {
        self.current.as_ref().map(|current| current.index)
    }

    /// Whether packets to `index` are opened, or a response to it is awaited.
    pub fn owns(&self, index: SessionIndex) -> bool {
        let is = |generation: &Generation| generation.index == index;
        self.previous.as_ref().is_some_and(is)
            || self.current.as_ref().is_some_and(is)
            || self.next.as_ref().is_some_and(|(next, _)| is(next))
            || self.attempt.as_ref().is_some_and(|attempt| attempt.state.index() == index)
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
            Input::Worn => {
                self.worn = true;
                Ok(())
            }
            Input::Lost => {
                (self.worn, self.lost) = (true, true);
                Ok(())
            }
            Input::Initiation(initiation) => self.initiation(context, *initiation, outputs),
            Input::Message(message) => self.message(context, message, outputs),
            Input::Opened(index) => {
                self.opened(context.now, index, outputs);
                Ok(())
            }
        };
        let timed = self.tick(context, outputs);
        taken.and(timed.map_err(HandshakeError::from))
    }

    /// Drops everything: one [`Output::Close`] for each index held.
    pub fn close(&mut self, outputs: &mut Vec<Output>) {
        let generations =
            [self.previous.take(), self.current.take(), self.next.take().map(|(next, _)| next)];
        for generation in generations.into_iter().flatten() {
            outputs.push(Output::Close(generation.index));
        }
        self.drop_attempt(outputs);
        self.third = None;
        self.wanted = false;
        if core::mem::take(&mut self.sealing) {
            outputs.push(Output::Expired);
        }
    }

    /// Forgets all keys and handshakes, and keeps who the peer is and which stamps were used: for a
    /// caller who does not know what has become of [`Output`]s. If keys are wanted, a handshake begins
    /// at once. Openers and sealers that were given out before go on until they are too old; they, and
    /// their indices, are the caller's to end.
    pub fn begin_anew(&mut self) {
        (self.previous, self.current, self.next, self.attempt) = (None, None, None, None);
        (self.cookie, self.third) = (None, None);
        (self.tries, self.confirms) = (0, 0);
        (self.rest_until, self.confirm_at) = (Nanos::ZERO, Nanos::ZERO);
        (self.worn, self.lost, self.sealing) = (false, false, false);
    }

    /// When [`Input::Tick`] is due, if ever.
    pub fn next_timeout(&self) -> Option<Nanos> {
        let mut due: Option<Nanos> = None;
        let mut at = |time: Nanos| due = Some(due.map_or(time, |due| due.min(time)));
        if let Some(attempt) = &self.attempt {
            at(attempt.again_at);
        } else if self.wanted {
            at(self.begins_at());
        }
        if let Some(current) = &self.current {
            if self.sealing {
                at(current.seals_until());
            }
            if self.confirming() {
                at(self.confirm_at);
            }
        }
        let next = self.next.as_ref().map(|(next, _)| next);
        for generation in
            [self.previous.as_ref(), self.current.as_ref(), next].into_iter().flatten()
        {
            at(generation.opens_until());
        }
        due
    }

    /// When a handshake is to be begun, if one is wanted and none is in hand.
    fn begins_at(&self) -> Nanos {
        let due = match &self.current {
            None => Nanos::ZERO,
            Some(current) if self.worn => current.born.plus(REKEY_SPACING),
            Some(current) => current.rekey_at(),
        };
        // Keys that the peer has just been given are worth a moment's waiting.
        match &self.next {
            None => due,
            Some((next, _)) => due.max(next.born.plus(REKEY_SPACING)),
        }
        .max(self.rest_until)
    }

    fn confirming(&self) -> bool {
        self.confirms < CONFIRMS_MAX
            && self.current.is_some_and(|current| current.initiator && !current.heard)
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
        let dead = |generation: &mut Generation| now >= generation.opens_until();
        for dead in [self.previous.take_if(dead), self.current.take_if(dead)].into_iter().flatten()
        {
            outputs.push(Output::Close(dead.index));
        }
        if let Some((dead, _)) = self.next.take_if(|(next, _)| now >= next.opens_until()) {
            outputs.push(Output::Close(dead.index));
        }
        if self.confirming() && now >= self.confirm_at {
            if self.confirms >= THIRDS_MAX && self.third.take().is_some() {
                // The peer would not have our third message, or is gone: begin anew.
                (self.worn, self.lost) = (true, true);
            }
            self.confirms += 1;
            self.confirm_at = now.plus(RETRY_AFTER);
            if self.confirms > 1 {
                outputs.extend(self.third.clone().map(Output::Send)); // the first one may be lost
            }
            outputs.push(Output::Confirm);
        }
        let due = match &self.attempt {
            Some(attempt) => now >= attempt.again_at,
            None => self.wanted && now >= self.begins_at(),
        };
        if due {
            self.drop_attempt(outputs);
            if self.wanted {
                let begun = self.begin(context, outputs);
                begun.inspect_err(|_| self.rest_until = now.plus(RETRY_AFTER))?;
            }
        }
        Ok(())
    }

    fn begin(
        &mut self,
        context: &mut Context<'_>,
        outputs: &mut Vec<Output>,
    ) -> Result<(), EntropyFailed> {
        let now = context.now;
        let mut jitter = [0; 4];
        context.entropy.fill(&mut jitter)?;
        let wall = self.config.wall_at_zero.saturating_add(now.0);
        self.newest_stamp = wall.max(self.newest_stamp.saturating_add(1));
        self.cookie.take_if(|(_, since)| now.since(*since) >= COOKIE_SECRET_LIFE);
        let index = (context.indices)();
        let offer = &self.config.offer;
        let stamp = Stamp(self.newest_stamp);
        let ours = Ours { local: context.local, offer, index, stamp };
        let cookie = self.cookie.as_ref().map(|(cookie, _)| cookie);
        let begun = match self.believed() {
            Some(peer) => ik::initiate(&ours, &peer, &self.config.psk, cookie, context.entropy)
                .map(|(state, message)| (Begun::Known(state), message)),
            None => xx::initiate(&ours, cookie, context.entropy)
                .map(|(state, message)| (Begun::Discover(state), message)),
        };
        let (state, message) = match begun {
            Ok(begun) => begun,
            Err(HandshakeError::Ours(failed)) => {
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
        let pause = if self.sealing {
            RETRY_AFTER // keys are running out: hurry
        } else {
            let doublings = self.tries.saturating_sub(HURRIED_ATTEMPTS - 1).min(10);
            Nanos((RETRY_AFTER.0 << doublings).min(RETRY_AFTER_MAX.0))
        };
        let jitter = Nanos(u64::from(u32::from_be_bytes(jitter)) % (RETRY_AFTER.0 / 3));
        self.tries = self.tries.saturating_add(1);
        let again_at = now.plus(pause).plus(jitter);
        self.attempt = Some(Attempt { state, sent: now, again_at });
        outputs.push(Output::Send(message));
        Ok(())
    }

    /// The key with which the next handshake begins; without one it begins by XX. A peer that had to be
    /// discovered and seems to be gone may have forgotten us, or have another key by now: every other
    /// attempt finds out. Keys that are good are renewed by IK alone, which costs no packet.
    fn believed(&self) -> Option<StaticPublic> {
        let is_there = self.current.is_some() && !self.lost;
        let keeps = self.config.peer.is_some() || is_there || !self.tries.is_multiple_of(2);
        self.peer.filter(|_| keeps)
    }

    fn drop_attempt(&mut self, outputs: &mut Vec<Output>) {
        if let Some(attempt) = self.attempt.take() {
            outputs.push(Output::Close(attempt.state.index()));
        }
    }

    fn initiation(
        &mut self,
        context: &mut Context<'_>,
        initiation: ik::Initiation,
        outputs: &mut Vec<Output>,
    ) -> Result<(), HandshakeError> {
        if self.config.peer.is_some_and(|peer| *initiation.static_key() != peer) {
            return Err(Refused::NotOurs.into());
        }
        let goes_on = self.goes_on(context, initiation.static_key());
        // Without keys, and after an attempt in vain, it is not the only one: the peer may be heard where
        // it is, and not be where it is asked, and both may ask at the same times again and again.
        if goes_on && (self.sealing || self.tries <= 1) {
            return Ok(());
        }
        self.guard.check(initiation.stamp())?; // before an index is drawn for a replay
        let index = (context.indices)();
        let offer = &self.config.offer;
        let ours = Ours { local: context.local, offer, index, stamp: Stamp::default() };
        let accepted = initiation
            .accept(&ours, &self.config.psk, &mut self.guard, context.entropy)
            .and_then(|accepted| {
                self.recognise(accepted.0.peer())?;
                Ok(accepted)
            });
        let (established, response) = match accepted {
            Ok(accepted) => accepted,
            Err(why) => {
                outputs.push(Output::Close(index));
                return Err(why);
            }
        };
        if !goes_on {
            self.drop_attempt(outputs);
        }
        self.take(context.now, established, true, outputs);
        outputs.push(Output::Send(response));
        Ok(())
    }

    fn message(
        &mut self,
        context: &Context<'_>,
        message: &[u8],
        outputs: &mut Vec<Output>,
    ) -> Result<(), HandshakeError> {
        let now = context.now;
        let Some(Attempt { state, sent, again_at }) = self.attempt.take() else {
            return Err(Refused::NotOurs.into());
        };
        let kind = LinkHeader::parse(message).map(|header| header.kind);
        if kind == Ok(Kind::Cookie) {
            let cookie = state.read_cookie(message);
            self.attempt = Some(Attempt { state, sent, again_at });
            self.cookie = Some((cookie?, now)); // for the next attempt, when its time comes
            return Ok(());
        }
        let index = state.index();
        // A response that cannot be read leaves the attempt as it was; one that can ends it.
        let taken = match state {
            Begun::Known(state) => match state.read_response(message) {
                Ok(established) => self.recognise(established.peer()).map(|()| {
                    self.take(now, established, true, outputs);
                }),
                Err(Rejected { state, why }) => {
                    self.attempt = Some(Attempt { state: Begun::Known(*state), sent, again_at });
                    return Err(why.into());
                }
            },
            Begun::Discover(state) => match state.read_response(message) {
                Ok(offered) => self.meet(context, offered, outputs),
                Err(Rejected { state, why }) => {
                    self.attempt = Some(Attempt { state: Begun::Discover(*state), sent, again_at });
                    return Err(why.into());
                }
            },
        };
        taken.map_err(|why| {
            outputs.push(Output::Close(index));
            self.rest_until = now.plus(RETRY_AFTER_MAX);
            why.into()
        })
    }

    /// Somebody was discovered: goes on if it may be this session's peer.
    fn meet(
        &mut self,
        context: &Context<'_>,
        offered: xx::Offered,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Refused> {
        let peer = *offered.peer();
        if self.peer != Some(peer.static_key) && !(context.is_free)(&peer.static_key) {
            return Err(Refused::OtherPeer);
        }
        self.recognise(&peer)?;
        let (index, stamp) = (offered.our_index(), Stamp(self.newest_stamp));
        let ours = Ours { local: context.local, offer: &self.config.offer, index, stamp };
        let cookie = self.cookie.as_ref().map(|(cookie, _)| cookie);
        let (established, third) = offered.finish(&ours, cookie)?;
        self.go_on(context.now, established, third, outputs);
        Ok(())
    }

    /// Two identities may have signed one static key, and one identity may come with another key; a
    /// session is with one identity, and, where the operator wrote it, with one key.
    fn recognise(&mut self, peer: &Peer) -> Result<(), Refused> {
        if self.config.peer.is_some_and(|key| key != peer.static_key) {
            return Err(Refused::NotOurs);
        }
        if *self.config.identity.get_or_insert(peer.identity) != peer.identity {
            return Err(Refused::OtherIdentity(peer.identity.peer_id()));
        }
        self.peer = Some(peer.static_key);
        Ok(())
    }

    /// New keys: current at once where we began, next where the peer did.
    /// `is_heard`: where we began, the peer's answer has shown that it has them, too.
    fn take(
        &mut self,
        now: Nanos,
        established: Established,
        is_heard: bool,
        outputs: &mut Vec<Output>,
    ) {
        let generation = Generation {
            index: established.our_index(),
            born: now,
            initiator: established.is_initiator(),
            heard: false,
        };
        let agreement = *established.agreement();
        let their_offer = established.their_offer().clone();
        let peer = *established.peer();
        let index = generation.index;
        let transport = established.into_transport(now, self.config.provider);
        let sealers = transport.sealers;
        let shown = is_heard || !generation.initiator;
        let keys = Box::new(NewKeys { sealers, agreement, their_offer, peer, index, shown });
        outputs.push(Output::Open { index, openers: transport.openers });
        if let Some((unused, _)) = self.next.take() {
            outputs.push(Output::Close(unused.index));
        }
        if generation.initiator {
            self.promote(now, generation, keys, outputs);
        } else {
            self.next = Some((generation, keys));
        }
    }

    fn opened(&mut self, now: Nanos, index: SessionIndex, outputs: &mut Vec<Output>) {
        if let Some(current) = self.current.as_mut().filter(|current| current.index == index) {
            current.heard = true;
            self.third = None;
        }
        if let Some((next, keys)) = self.next.take_if(|(next, _)| next.index == index) {
            self.drop_attempt(outputs);
            self.promote(now, Generation { heard: true, ..next }, keys, outputs);
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
        if let Some(oldest) = core::mem::replace(&mut self.previous, self.current.take()) {
            outputs.push(Output::Close(oldest.index));
        }
        self.current = Some(generation);
        self.tries = 0;
        (self.worn, self.lost) = (false, false);
        self.rest_until = Nanos::ZERO; // whatever was the reason, the peer is there
        self.sealing = true;
        self.confirms = 0;
        self.confirm_at = now;
        self.third = None;
        outputs.push(Output::Seal(keys));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("previous", &self.previous)
            .field("current", &self.current)
            .field("next", &self.next.as_ref().map(|(next, _)| next))
            .field("attempting", &self.attempt.is_some())
            .field("tries", &self.tries)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}
