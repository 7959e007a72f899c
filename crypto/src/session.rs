//! The keys of one peer over time: previous, current and next, and the handshakes that renew them.
//!
//! ```text
//!             initiator                                      responder
//!  120 s old: Send(initiation) ───────────────────────────►  Open(next), Send(response)
//!  Open(new), Seal(new), Confirm ◄────────────────────────   still seals with current
//!  seals with new ── first packet under new keys ─────────►  Input::Opened(next): Seal(next), Confirm
//!  opens previous, current                                   opens previous, current, next
//! ```
//!
//! As in WireGuard, a side seals with new keys only when it knows that the other side has them: the
//! initiator after the response, the responder after the first packet under them. Until then both
//! use the old keys, so no data packet is refused if a handshake message is lost. If both ends
//! initiate at the same time, the end with the smaller static key continues and the other answers.
//! If both handshakes still complete, both ends keep the keys of the handshake that the end with
//! the smaller key initiated.
//!
//! An initiation can be a replay, so it does not prove that the peer is present. It creates keys
//! that wait for the first packet under them. It neither ends nor delays an attempt of this side.
//!
//! A [`Session`] makes the decisions, and the data plane holds sealers and openers. The session
//! returns its decisions as [`Output`]s, which the caller carries out in order. The session stores
//! no address, so a handshake never changes the address of a peer.

mod attempt;
mod generation;
mod idle;
mod times;

use core::fmt;

use strowger_wire::{hello::Timestamp, link_header::SessionIndex};

use crate::cipher::Provider;
use crate::domain::Domain;
use crate::entropy::{Entropy, EntropyFailed};
use crate::handshake::{
    Agreement, Cookie, Established, Exporter, FieldBytes, HandshakeError, Offer, Peer,
    ProtocolBytes, TimestampGuard, TooLong, Transport, ik,
};
use crate::identity::{Identity, LocalIdentity, StaticPublic};
use crate::limits::{CONFIRMS_MAX, MSG3_SENDS_MAX, NEXT_MAX};
use crate::opener::Openers;
use crate::sealer::Sealer;
use crate::secret::Psk;
use crate::time::Nanos;

use self::attempt::Attempt;
pub use self::attempt::XxRole;
use self::generation::Generation;
pub use self::idle::IdleSession;
pub use self::times::SessionTimes;

/// Fixed parameters of a session with one peer.
#[derive(Debug)]
pub struct SessionConfig {
    /// The peer's static key. If it is `None`, the session learns the key in an XX handshake.
    pub peer: Option<StaticPublic>,
    /// The expected identity. Without it, the session accepts the first identity that it receives,
    /// and then requires it.
    pub identity: Option<Identity>,
    /// The pre-shared key that both operators configured, or [`Psk::NONE`].
    pub psk: Psk,
    /// Our offer.
    pub offer: Offer,
    /// The AEAD provider that seals and opens.
    pub provider: Provider,
    /// Wall clock in nanoseconds since 1970 at the zero of the monotonic clock.
    ///
    /// Timestamps only increase while the process runs, even if the wall clock is set back.
    /// [`Session::advance_wall_clock`] makes them follow a clock that was set forward.
    pub wall_at_zero: u64,
    /// The times of links or of connections.
    pub times: &'static SessionTimes,
}

/// What a session needs from its caller for one step: time, identity, randomness and indices.
pub struct Context<'a> {
    /// Current time.
    pub now: Nanos,
    /// Our identity.
    pub local: &'a LocalIdentity,
    /// Source of random bytes.
    pub entropy: &'a mut dyn Entropy,
    /// Returns an unused, unpredictable session index, or `None` if all are in use.
    ///
    /// The session returns each index with one [`Output::Close`]. Until then handshake messages to
    /// this index belong to this session.
    pub indices: &'a mut dyn FnMut(&mut dyn Entropy) -> Option<SessionIndex>,
    /// Returns whether the static key of a discovered peer belongs to no other peer.
    pub is_free: &'a dyn Fn(&StaticPublic) -> bool,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("now", &self.now).finish_non_exhaustive()
    }
}

/// An event for a session.
#[derive(Debug)]
pub enum Input<'a> {
    /// The time of [`Session::next_timeout`] has come. This input is harmless at any other time.
    Tick,
    /// Traffic needs the link: start a handshake if there are no keys, and keep the keys fresh.
    Wanted,
    /// The link is idle: let the keys expire. Handshakes in progress still complete.
    Unwanted,
    /// A sealer reports [`wants_rekey`](Sealer::wants_rekey).
    RekeyDue,
    /// The peer does not answer. If keys are wanted, a handshake starts, which also checks that the
    /// peer's identity is the same.
    Lost,
    /// An initiation from this peer.
    Initiation(Box<ik::Initiation>),
    /// A response or cookie reply, addressed to an index of this session.
    Message(&'a [u8]),
    /// A packet to this index was opened. The caller must report the first packet
    /// ([`Opened::first`](crate::Opened::first)) and every empty one (the peer's
    /// [`Output::Confirm`]), and may report others.
    Opened(SessionIndex),
}

/// An action for the caller, to be carried out in order.
#[derive(Debug)]
pub enum Output {
    /// Send this handshake message to the peer.
    Send(Vec<u8>),
    /// Open packets to this index with these openers.
    Open {
        /// Our session index.
        index: SessionIndex,
        /// The openers, for the worker that receives the peer's packets.
        openers: Openers,
    },
    /// Seal with these keys and drop the earlier sealers.
    Seal(Box<NewKeys>),
    /// Seal an empty packet under the newest keys and send it. It shows the peer that we have the
    /// keys.
    Confirm,
    /// Close this index, and do not reuse it for some time.
    Close(SessionIndex),
    /// No keys to seal with are left until the next [`Output::Seal`].
    Expired,
}

/// New sealers and the agreement that comes with them.
#[derive(Debug)]
pub struct NewKeys {
    /// One sealer per lane that we announced.
    pub sealers: Vec<Sealer>,
    /// The agreed parameters.
    pub agreement: Agreement,
    /// The peer's current offer.
    pub their_offer: Offer,
    /// The peer's static key and identity.
    pub peer: Peer,
    /// Our session index: the peer addresses packets under these keys to it.
    pub index: SessionIndex,
    /// Whether the peer is known to have the keys. For an initiator of XX it is `false`: only the
    /// peer's first packet under the keys confirms them.
    pub confirmed: bool,
    /// Derives further secrets from the keys of a connection; `None` for a link.
    pub exporter: Option<Exporter>,
    /// The timestamp of the peer's hello; zero if the peer was the responder.
    pub their_timestamp: Timestamp,
}

/// The session with one peer; see the [module](self).
pub struct Session {
    config: SessionConfig,
    /// The peer's static key, once known.
    peer: Option<StaticPublic>,
    guard: TimestampGuard,
    newest_timestamp: u64,
    /// Previous generations, newest last. There are two only while two crossed handshakes are being
    /// resolved.
    previous: Vec<Generation>,
    current: Option<Generation>,
    /// Keys that the peer may have but has not used yet, with their sealers; newest last, at most
    /// [`NEXT_MAX`].
    next: Vec<(Generation, Box<NewKeys>)>,
    /// Attempts that still accept a response, newest last, at most [`ATTEMPTS_MAX`].
    attempts: Vec<Attempt>,
    /// Time of the next attempt; `None` if there was no attempt since the last success.
    retry_at: Option<Nanos>,
    /// The number of attempts since the last success.
    tries: u32,
    /// Duration of the last handshake that this side initiated.
    round_trip: Nanos,
    cookie: Option<(Cookie, Nanos)>,
    /// The third message of XX, until the peer confirms its keys.
    msg3: Option<Vec<u8>>,
    wanted: bool,
    rekey_due: bool,
    /// Whether the peer does not answer, or may have changed its identity.
    lost: bool,
    /// Whether every handshake begins with XX.
    hides_identity: bool,
    /// Whether no handshake with a known peer begins with XX.
    insists_on_key: bool,
    /// No new attempt starts before this time.
    back_off_until: Nanos,
    sealing: bool,
    confirms: u32,
    confirm_at: Nanos,
}

impl Session {
    /// Makes a session without keys. It starts no handshake before [`Input::Wanted`].
    ///
    /// # Panics
    /// If the times are not [consistent](SessionTimes::are_consistent).
    pub fn new(config: SessionConfig) -> Session {
        assert!(config.times.are_consistent(), "keys would expire while a handshake runs");
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
            hides_identity: false,
            insists_on_key: false,
            back_off_until: Nanos::ZERO,
            sealing: false,
            confirms: 0,
            confirm_at: Nanos::ZERO,
        }
    }

    /// Continues a session that XX established, as if an IK handshake had established it.
    ///
    /// [`owns`](Self::owns) reports afterwards whether this session took it over. If it did, the
    /// index belongs to this session, although [`Context::indices`] did not return it. The
    /// initiator passes the third message, which is sent now and repeated until the peer confirms
    /// or a new handshake starts. The responder passes the peer's guard as
    /// [`xx::Finish::accept`](crate::handshake::xx::Finish::accept) left it.
    pub fn adopt(
        &mut self,
        context: &mut Context<'_>,
        established: Established,
        role: XxRole,
        outputs: &mut Vec<Output>,
    ) -> Result<(), HandshakeError> {
        // Both ends initiated. The end with the smaller key keeps its own handshake while its third
        // message is unconfirmed.
        let first = context.local.static_public() < &established.peer().static_key;
        if first
            && self.msg3.is_some()
            && let XxRole::Responder { guard } = &role
        {
            // Data follows the third message of a connection at once (wire.md W6-29).
            if context.local.domain() == Domain::Connection {
                self.bind_peer(established.peer())?;
                self.install(context.now, established, false, outputs);
                self.next.iter_mut().next_back().expect("just added").0.crossed = true;
                self.guard.newest = self.guard.newest.max(guard.newest);
            }
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
        let timed = self.tick(context, outputs);
        self.shrink();
        Ok(timed?)
    }

    /// Installs the keys and sends the third message, from which the peer derives the same keys.
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
        // The confirmation is delayed, because the peer's slow path needs time to pass the keys to
        // its workers.
        self.confirm_at = now.plus(self.config.times.confirm_after_msg3);
    }

    /// Sets the protocol table and the fields of the hellos that this session sends from now on.
    ///
    /// For fields that answer an initiation, call it before [`Input::Initiation`]. An initiation
    /// was accepted exactly if it caused [`Output::Open`]; otherwise it was stale, refused, or lost
    /// against an attempt of our own.
    ///
    /// # Errors
    /// `TooLong` if both together do not fit into a message. In this case nothing changes.
    pub fn set_hello(
        &mut self,
        protocols: ProtocolBytes,
        fields: FieldBytes,
    ) -> Result<(), TooLong> {
        let offer = Offer { protocols, fields, ..self.config.offer.clone() };
        offer.check_length()?;
        self.config.offer = offer;
        Ok(())
    }

    /// The peer's static key, once known.
    pub const fn peer(&self) -> Option<&StaticPublic> {
        self.peer.as_ref()
    }

    /// Whether there are keys to seal with.
    pub const fn is_up(&self) -> bool {
        self.sealing
    }

    /// The peer's newest timestamp, to be kept beyond this session.
    pub const fn guard(&self) -> TimestampGuard {
        self.guard
    }

    /// Our session index of the current keys, if any.
    pub fn current_index(&self) -> Option<SessionIndex> {
        self.current.as_ref().map(|current| current.index)
    }

    /// Whether this session opens packets to `index` or waits for a response to it.
    pub fn owns(&self, index: SessionIndex) -> bool {
        self.generations().any(|generation| generation.index == index) || self.awaits(index)
    }

    /// Whether packets to this index are only opened, because its keys are those of a handshake of
    /// the peer that crossed an own one (wire.md W6-213).
    pub fn only_opens(&self, index: SessionIndex) -> bool {
        self.next.iter().any(|(next, _)| next.index == index && next.crossed)
    }

    fn generations(&self) -> impl Iterator<Item = &Generation> {
        self.previous.iter().chain(&self.current).chain(self.next.iter().map(|(next, _)| next))
    }

    /// Processes an event and appends the resulting actions to `outputs`.
    ///
    /// # Errors
    /// The reason why a message was refused, or the failure of the source of randomness. The
    /// actions in `outputs` are valid in this case as well.
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
        self.shrink();
        taken.and(timed.map_err(HandshakeError::from))
    }

    /// Ends the session, with one [`Output::Close`] for each index that it holds.
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

    /// Drops the previous keys, which belong to an earlier process of the peer. Each index is
    /// returned with one [`Output::Close`].
    pub fn drop_former(&mut self, outputs: &mut Vec<Output>) {
        let former = self.previous.drain(..);
        outputs.extend(former.map(|generation| Output::Close(generation.index)));
    }

    /// Drops all keys and handshakes; keeps the peer's identity and the used timestamps.
    ///
    /// A caller uses it after it has lost [`Output`]s. If keys are wanted, the next input starts a
    /// handshake. Openers and sealers from earlier outputs work until they expire. The caller must
    /// drop them and close their indices.
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

    /// Time of the next [`Input::Tick`], if any is due.
    pub fn next_timeout(&self) -> Option<Nanos> {
        let mut due: Option<Nanos> = None;
        let mut at = |time: Nanos| due = Some(due.map_or(time, |due| due.min(time)));
        if self.wanted {
            at(self.begins_at());
        }
        if let Some(oldest) = self.attempts.first() {
            at(self.ends_at(oldest));
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

    /// Time of the next handshake attempt, if one is wanted.
    fn begins_at(&self) -> Nanos {
        let times = self.config.times;
        let due = match (&self.current, self.retry_at) {
            (_, Some(again)) => again,
            (None, None) => Nanos::ZERO,
            (Some(current), None) if self.rekey_due => current.born.plus(times.rekey_spacing),
            (Some(current), None) => current.rekey_at(times),
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
        while self.attempts.first().is_some_and(|oldest| now >= self.ends_at(oldest)) {
            self.drop_oldest_attempt(outputs);
        }
        if self.confirming() && now >= self.confirm_at {
            if self.confirms >= MSG3_SENDS_MAX && self.msg3.take().is_some() {
                // The peer refuses our third message or no longer exists: start again.
                (self.rekey_due, self.lost) = (true, true);
            }
            self.confirms += 1;
            self.confirm_at = now.plus(self.config.times.confirm_every);
            if self.confirms > 1 {
                outputs.extend(self.msg3.clone().map(Output::Send)); // the first one may be lost
            }
            outputs.push(Output::Confirm);
        }
        if self.wanted && now >= self.begins_at() {
            let begun = self.begin(context, outputs);
            let again = now.plus(self.config.times.retry_after);
            begun.inspect_err(|_| self.back_off_until = again)?;
        }
        Ok(())
    }

    /// Installs new keys. They become the current ones if this side initiated, and the next ones if
    /// the peer did.
    ///
    /// `confirmed` is true for keys from IK, whose response proves that the responder has the keys.
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
            crossed: false,
        };
        let agreement = *established.agreement();
        let their_offer = established.their_offer().clone();
        let peer = *established.peer();
        let index = generation.index;
        let their_timestamp = established.their_timestamp();
        let Transport { sealers, openers, exporter } =
            established.into_transport(now, self.config.provider);
        let keys = Box::new(NewKeys {
            sealers,
            agreement,
            their_offer,
            peer,
            index,
            confirmed: confirmed || !generation.initiator,
            exporter,
            their_timestamp,
        });
        outputs.push(Output::Open { index, openers });
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
            // The peer has used this response, so it no longer waits for an earlier one.
            let mut taken = self.next.drain(..=place).rev();
            let (next, keys) = taken.next().expect("the place is in range");
            outputs.extend(taken.map(|(unused, _)| Output::Close(unused.index)));
            self.drop_attempts(outputs);
            self.promote(now, Generation { confirmed: true, ..next }, keys, outputs);
        }
        // The responder answers a confirmation with a confirmation. The initiator does not answer,
        // so the exchange ends.
        let answers = |current: Generation| current.index == index && !current.initiator;
        if self.current.is_some_and(answers) && now >= self.confirm_at {
            self.confirm_at = now.plus(Nanos(self.config.times.confirm_every.0 / 2));
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
        // After a crossing, packets sealed under either set of keys may still be in flight.
        let has_crossed = former.is_some_and(|former| self.may_have_crossed(&former, now));
        let kept = usize::from(has_crossed && self.previous.len() < 2);
        while self.previous.len() > kept {
            outputs.push(Output::Close(self.previous.remove(0).index));
        }
        self.previous.extend(former);
        (self.tries, self.retry_at) = (0, None);
        (self.rekey_due, self.lost) = (false, false);
        self.back_off_until = Nanos::ZERO; // the peer is present: no back-off is needed
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
