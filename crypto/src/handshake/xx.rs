//! XX: the handshake with a peer whose static key is unknown. It has three messages, and its
//! responder is stateless.
//!
//! A first message must not create state, because it does not prove who sent it (R8). The responder
//! derives its session index from a secret of its [`CookieChecker`], the source and the first
//! message. It derives its ephemeral key from the same inputs and its own hello. The third message
//! repeats the initiator's ephemeral key, and the responder recomputes its response from it. Under
//! one secret, the same first message gets the same response, byte for byte; a changed response has
//! another ephemeral key, so no two plaintexts are sealed with the same key and nonce. Once a third
//! message is accepted, the checker keeps a mark of the handshake for as long as it keeps that
//! secret, so that no session keys are ever derived twice (R5).

use strowger_wire::{
    hello::{HelloMalformed, Timestamp},
    limits::{INITIATION_BYTES, KEY_BYTES},
    link_header::{Kind, LINK_HEADER_BYTES, LinkHeader, SessionIndex, Step},
};

use super::cookie::{
    Admitted, Cookie, CookieChecker, MAC_BYTES, MacKeys, NO_KEY, SecretEpoch, Way,
};
use super::hello::{Agreement, Hello, Offer, Peer, ProtocolBytes};
use super::noise::{Noise, XX};
use super::{
    Established, HandshakeError, INITIATION_NOISE_BYTES, LocalParams, Refused, Rejected,
    TimestampGuard, check_response,
};
use crate::domain::Domain;
use crate::entropy::Entropy;
use crate::identity::{Identity, LocalIdentity, StaticPublic};
use crate::secret::{Secret, mac};

/// Payload of a first message: zeros. They make the first message at least as long as any response.
const MSG1_PADDING: [u8; INITIATION_NOISE_BYTES - KEY_BYTES] =
    [0; INITIATION_NOISE_BYTES - KEY_BYTES];

/// Starts a handshake with an unknown peer: on a link, or in a connection by label alone. Of
/// `ours`, the message contains only the index.
pub fn initiate(
    ours: &LocalParams<'_>,
    cookie: Option<&Cookie>,
    entropy: &mut dyn Entropy,
) -> Result<(AwaitResponse, Vec<u8>), HandshakeError> {
    begin(ours, None, cookie, entropy)
}

/// Starts a handshake of a connection with this identity, whose static key is unknown.
///
/// Only an end that knows the identity can answer, and the response of another identity is refused.
/// A responder of links refuses the message.
pub fn initiate_by_peer_id(
    ours: &LocalParams<'_>,
    responder: &Identity,
    cookie: Option<&Cookie>,
    entropy: &mut dyn Entropy,
) -> Result<(AwaitResponse, Vec<u8>), HandshakeError> {
    if responder == ours.local.identity() {
        return Err(Refused::Ourselves.into());
    }
    begin(ours, Some(*responder), cookie, entropy)
}

fn begin(
    ours: &LocalParams<'_>,
    responder: Option<Identity>,
    cookie: Option<&Cookie>,
    entropy: &mut dyn Entropy,
) -> Result<(AwaitResponse, Vec<u8>), HandshakeError> {
    let local = ours.local;
    let ephemeral = Secret::random(entropy)?;
    let mut message = ours.header(Kind::Initiation, Step::Discover, SessionIndex::NONE);
    let noise = write_msg1(local, &ephemeral, &mut message)?;
    let mut first_key = [0; KEY_BYTES];
    first_key.copy_from_slice(&message[LINK_HEADER_BYTES..LINK_HEADER_BYTES + KEY_BYTES]);
    let receiver = responder.map_or(NO_KEY.0, |identity| identity.to_bytes());
    let keys = MacKeys::from_us(local, &receiver);
    let mac1 = keys.append_mac1(&mut message);
    MacKeys::append_mac2(&mut message, cookie);
    debug_assert_eq!(message.len(), INITIATION_BYTES, "the payload is padded to make it so");
    let attempt = Attempt {
        domain: local.domain(),
        responder,
        ephemeral,
        index: ours.index,
        own: *local.static_public(),
        keys,
        mac1,
        first_key,
    };
    Ok((AwaitResponse { noise, attempt }, message))
}

/// Writes the first message. Its bytes depend only on the ephemeral key.
fn write_msg1(
    local: &LocalIdentity,
    ephemeral: &Secret,
    message: &mut Vec<u8>,
) -> Result<Noise, Refused> {
    let ephemeral = Secret::from_bytes(*ephemeral.expose());
    let mut noise = Noise::initiator(&XX, &local.prologue(), local, None, ephemeral);
    noise.write(&MSG1_PADDING, message)?;
    Ok(noise)
}

/// An initiator that waits for the response.
pub struct AwaitResponse {
    noise: Noise,
    attempt: Attempt,
}

/// The state that an initiator keeps of its first message.
struct Attempt {
    domain: Domain,
    /// The identity that must answer, if the initiator asked for one.
    responder: Option<Identity>,
    /// The ephemeral key of the first message, for [`Discovered::resume_waiting`].
    ephemeral: Secret,
    index: SessionIndex,
    own: StaticPublic,
    keys: MacKeys,
    mac1: [u8; MAC_BYTES],
    first_key: [u8; KEY_BYTES],
}

impl AwaitResponse {
    /// Reads the response and verifies the peer's identity. On an error the waiting state is
    /// returned, and can still read the response of the peer: every node that receives the first
    /// message can answer it.
    ///
    /// `local` must be the identity that started the handshake. A response that decrypts and is
    /// refused costs one more curve operation.
    pub fn read_response(
        mut self,
        local: &LocalIdentity,
        message: &[u8],
    ) -> Result<Discovered, Rejected<Self>> {
        let payload = match self.decrypt(message) {
            Ok(payload) => payload,
            Err(why) => return Err(Rejected { state: Box::new(self), why }),
        };
        match self.identify(&payload) {
            Ok((their, peer)) => {
                let AwaitResponse { noise, attempt } = self;
                Ok(Discovered { noise, attempt, their, peer })
            }
            Err(why) => {
                // The transcript contains the refused response, so it starts again with the first
                // message.
                let noise = write_msg1(local, &self.attempt.ephemeral, &mut Vec::new());
                let noise = noise.expect("no key of a peer takes part in the first message");
                Err(Rejected { state: Box::new(AwaitResponse { noise, ..self }), why })
            }
        }
    }

    /// Decrypts a response. An error leaves the state unchanged.
    fn decrypt(&mut self, message: &[u8]) -> Result<Vec<u8>, Refused> {
        let covered = self.check_covered(message)?;
        let noise = covered.get(LINK_HEADER_BYTES..).ok_or(Refused::Malformed)?;
        Ok(self.noise.read(noise)?)
    }

    fn identify(&self, payload: &[u8]) -> Result<(Hello, Peer), Refused> {
        let domain = self.attempt.domain;
        let their = Hello::parse(domain, payload)?;
        if domain == Domain::Connection && their.offer.protocols != ProtocolBytes::default() {
            return Err(HelloMalformed::BadField.into());
        }
        let static_key = self.noise.peer().ok_or(Refused::Unreadable)?;
        if static_key == self.attempt.own {
            return Err(Refused::Ourselves);
        }
        let identity = their.proof.verify_in(domain, &static_key)?;
        if self.attempt.responder.is_some_and(|wanted| wanted != identity) {
            return Err(Refused::OtherIdentity(identity.peer_id()));
        }
        Ok((their, Peer { static_key, identity }))
    }

    /// Checks length, session index and mac of a response to this attempt. Costs one hash.
    ///
    /// Every host that knows the network's name can make a response that passes this check. In a
    /// handshake by PeerId, it must also know the PeerId.
    pub fn check(&self, message: &[u8]) -> Result<(), Refused> {
        self.check_covered(message).map(|_| ())
    }

    fn check_covered<'m>(&self, message: &'m [u8]) -> Result<&'m [u8], Refused> {
        check_response(message, Step::Discover, self.attempt.index, &self.attempt.keys)
    }

    /// Reads a cookie reply. Send the cookie with the next scheduled attempt, not immediately.
    pub fn read_cookie(&self, message: &[u8]) -> Result<Cookie, Refused> {
        let Attempt { keys, index, mac1, .. } = &self.attempt;
        Cookie::read(keys, Step::Discover, *index, mac1, message)
    }

    /// Our session index; the response is addressed to it.
    pub const fn index(&self) -> SessionIndex {
        self.attempt.index
    }
}

impl core::fmt::Debug for AwaitResponse {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("xx::AwaitResponse")
            .field("index", &self.attempt.index)
            .field("responder", &self.attempt.responder)
            .finish_non_exhaustive()
    }
}

/// An initiator that has read the response and knows the peer. Drop it to abandon the handshake.
pub struct Discovered {
    noise: Noise,
    attempt: Attempt,
    their: Hello,
    peer: Peer,
}

impl Discovered {
    /// The peer, whose static key and identity are authenticated.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Our session index, as sent in the first message.
    pub const fn our_index(&self) -> SessionIndex {
        self.attempt.index
    }

    /// The peer's offer, with the fields of its hello.
    pub const fn their_offer(&self) -> &Offer {
        &self.their.offer
    }

    /// Checks that the two offers are compatible, as [`finish`](Self::finish) requires.
    pub fn check(&self, offer: &Offer) -> Result<(), Refused> {
        offer.agree_in(self.attempt.domain, &self.their.offer)?;
        Ok(())
    }

    /// Waits for another response, because the peer is not the intended one. Costs one curve
    /// operation.
    ///
    /// The peer that answered has not learnt our identity. `local` must be the identity that
    /// started the handshake.
    pub fn resume_waiting(self, local: &LocalIdentity) -> Result<AwaitResponse, Refused> {
        let attempt = self.attempt;
        let noise = write_msg1(local, &attempt.ephemeral, &mut Vec::new())?;
        Ok(AwaitResponse { noise, attempt })
    }

    /// Returns the session and the third message.
    ///
    /// Repeat the same third message until the peer confirms the new keys. `ours.index` must be the
    /// index of the first message.
    pub fn finish(
        mut self,
        ours: &LocalParams<'_>,
        cookie: Option<&Cookie>,
    ) -> Result<(Established, Vec<u8>), Refused> {
        let Attempt { domain, index, keys, first_key, .. } = &self.attempt;
        if ours.index != *index {
            return Err(Refused::OtherIndex);
        }
        let agreement = ours.offer.agree_in(*domain, &self.their.offer)?;
        let hello = ours.encode_hello(ours.timestamp, 0)?;
        let mut message = ours.header(Kind::Initiation, Step::Finish, self.their.index);
        message.extend_from_slice(first_key);
        self.noise.write(&hello, &mut message)?;
        keys.append_mac1(&mut message);
        MacKeys::append_mac2(&mut message, cookie);
        debug_assert!(message.len() <= INITIATION_BYTES, "limits.rs asserts the longest");
        let our = (*index, ours.offer.lanes);
        let noise = (*domain, self.noise);
        Ok((Established::new(noise, true, agreement, our, self.their, self.peer), message))
    }
}

impl core::fmt::Debug for Discovered {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("xx::Discovered")
            .field("index", &self.attempt.index)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Answers a first message. Keeps no state (R8).
///
/// The result depends only on the arguments and is never longer than the first message.
pub fn answer(
    checker: &CookieChecker,
    local: &LocalIdentity,
    offer: &Offer,
    source: &[u8],
    admitted: &Admitted<'_>,
) -> Result<Vec<u8>, Refused> {
    if admitted.step != Step::Discover {
        return Err(Refused::NotOurs);
    }
    let (first_key, padding) =
        admitted.noise.split_first_chunk::<KEY_BYTES>().ok_or(Refused::Malformed)?;
    let to = SessionIndex::new(admitted.header.low).ok_or(Refused::Malformed)?;
    if *padding != MSG1_PADDING[..] || to == SessionIndex::NONE {
        return Err(Refused::Malformed);
    }
    let epoch = checker.current_epoch();
    let responder = StatelessResponder::new(epoch, local, offer, source, to, first_key)?;
    let (_, mut message) = responder.respond(local)?;
    // The responder knows no key of the initiator, so mac1 is keyed as in messages to the responder.
    checker.keys_to_us(admitted.way).ok_or(Refused::NotOurs)?.append_mac1(&mut message);
    Ok(message)
}

/// The session index and the ephemeral private key of the [`answer`] to a first message.
#[cfg(test)]
pub(super) fn responder_of(
    checker: &CookieChecker,
    local: &LocalIdentity,
    offer: &Offer,
    source: &[u8],
    admitted: &Admitted<'_>,
) -> Vec<u8> {
    let first_key = admitted.noise.first_chunk::<KEY_BYTES>().expect("a first message");
    let to = SessionIndex::new(admitted.header.low).expect("24 bits");
    let epoch = checker.current_epoch();
    let responder = StatelessResponder::new(epoch, local, offer, source, to, first_key);
    let responder = responder.expect("a short hello");
    [&responder.index.number().to_be_bytes()[1..], &responder.ephemeral.expose()[..]].concat()
}

/// The response of a faulty responder, whose hello states the protocols of its offer.
#[cfg(test)]
pub(super) fn answer_with_table(
    checker: &CookieChecker,
    local: &LocalIdentity,
    offer: &Offer,
    source: &[u8],
    admitted: &Admitted<'_>,
) -> Vec<u8> {
    let first_key = admitted.noise.first_chunk::<KEY_BYTES>().expect("a first message");
    let to = SessionIndex::new(admitted.header.low).expect("24 bits");
    let epoch = checker.current_epoch();
    let responder = StatelessResponder::new(epoch, local, offer, source, to, first_key);
    let mut responder = responder.expect("a short hello");
    let ours =
        LocalParams { local, offer, index: responder.index, timestamp: Timestamp::default() };
    responder.hello = ours.encode_hello(Timestamp::default(), 0).expect("a short hello");
    let (_, mut message) = responder.respond(local).expect("a right key");
    MacKeys::to_us(local, admitted.way).append_mac1(&mut message);
    message
}

/// Reads a third message and verifies the peer's identity. Keeps no state.
///
/// `offer` and `source` must be the same as in [`answer`]; otherwise this function fails, and the
/// initiator has to start a new handshake.
pub fn read_finish(
    checker: &CookieChecker,
    local: &LocalIdentity,
    offer: &Offer,
    source: &[u8],
    admitted: &Admitted<'_>,
) -> Result<Finish, Refused> {
    if admitted.step != Step::Finish {
        return Err(Refused::NotOurs);
    }
    let (first_key, rest) =
        admitted.noise.split_first_chunk::<KEY_BYTES>().ok_or(Refused::Malformed)?;
    let to = SessionIndex::new(admitted.header.low).ok_or(Refused::Malformed)?;
    let epoch = checker.epoch_of(admitted.header.index);
    let responder = StatelessResponder::new(epoch, local, offer, source, to, first_key)?;
    if responder.index != admitted.header.index {
        return Err(Refused::NotOurs); // decided by hashes, before any curve operation
    }
    responder.read_finish(local, offer, admitted.way, rest)
}

/// The response of a responder whose ephemeral key and index (`ours.index`) are given.
#[cfg(feature = "vectors")]
pub(crate) fn answer_with(
    ours: &LocalParams<'_>,
    ephemeral: Secret,
    first: &Admitted<'_>,
) -> Result<Vec<u8>, Refused> {
    let (_, mut message) =
        StatelessResponder::given(ours, ephemeral, first)?.respond(ours.local)?;
    MacKeys::to_us(ours.local, first.way).append_mac1(&mut message);
    Ok(message)
}

/// The session, after the third message, of a responder whose ephemeral key and index are given.
#[cfg(feature = "vectors")]
pub(crate) fn establish_with(
    ours: &LocalParams<'_>,
    ephemeral: Secret,
    third: &Admitted<'_>,
) -> Result<Established, Refused> {
    let rest = third.noise.get(KEY_BYTES..).ok_or(Refused::Malformed)?;
    let responder = StatelessResponder::given(ours, ephemeral, third)?;
    responder.read_finish(ours.local, ours.offer, third.way, rest)?.establish()
}

/// The responder's session index (wire.md W4-66).
///
/// The lowest bit holds the epoch, the others are unpredictable, and the index is not zero.
fn responder_index(
    epoch: &SecretEpoch,
    source: &[u8],
    first_key: &[u8; KEY_BYTES],
    to: SessionIndex,
) -> SessionIndex {
    let parts: [&[u8]; 3] = [source, first_key, &to.number().to_be_bytes()];
    let chosen = mac(epoch.secret.expose(), "strowger xx index", &parts);
    let number = u32::from_be_bytes([0, chosen[0], chosen[1], chosen[2]]) & !1;
    let nonzero = if number == 0 { 2 } else { number };
    SessionIndex::new(nonzero | (epoch.number & 1)).unwrap_or_default()
}

/// Whether a third message has the index of the [`answer`] to a first message from this source.
/// The index was sent only to this source, so the message proves as a cookie does that its sender
/// receives there.
///
/// `noise` are the bytes between link header and macs. Costs one hash.
pub(super) fn has_our_index(
    epoch: &SecretEpoch,
    source: &[u8],
    header: &LinkHeader,
    noise: &[u8],
) -> bool {
    let first_key = noise.first_chunk::<KEY_BYTES>();
    first_key.zip(SessionIndex::new(header.low)).is_some_and(|(first_key, to)| {
        responder_index(epoch, source, first_key, to) == header.index
    })
}

/// The hello of a response. In a connection it states no protocols, because the initiator has not
/// yet proved who it is (wire.md W6-17).
fn answering_hello(ours: &LocalParams<'_>) -> Result<Vec<u8>, Refused> {
    let LocalParams { local, offer, index, timestamp } = *ours;
    if local.domain() == Domain::Link {
        return ours.encode_hello(Timestamp::default(), 0);
    }
    let offer = &Offer { protocols: ProtocolBytes::default(), ..offer.clone() };
    LocalParams { local, offer, index, timestamp }.encode_hello(Timestamp::default(), 0)
}

/// The responder's side of XX up to its response, which can be recomputed while its secret is kept.
struct StatelessResponder {
    epoch: u32,
    index: SessionIndex,
    to: SessionIndex,
    hello: Vec<u8>,
    ephemeral: Secret,
    first_key: [u8; KEY_BYTES],
    mark: [u8; MAC_BYTES],
}

impl StatelessResponder {
    fn new(
        epoch: &SecretEpoch,
        local: &LocalIdentity,
        offer: &Offer,
        source: &[u8],
        to: SessionIndex,
        first_key: &[u8; KEY_BYTES],
    ) -> Result<StatelessResponder, Refused> {
        let index = responder_index(epoch, source, first_key, to);
        let SecretEpoch { number: epoch, secret, .. } = epoch;
        let to_bytes = to.number().to_be_bytes();
        let ours = LocalParams { local, offer, index, timestamp: Timestamp::default() };
        let hello = answering_hello(&ours)?;
        let parts: [&[u8]; 4] = [source, first_key, &to_bytes, &hello];
        let ephemeral = secret.derive("strowger xx ephemeral", &parts);
        let full = mac(secret.expose(), "strowger xx mark", &parts);
        let mark = core::array::from_fn(|place| full[place]);
        let (epoch, first_key) = (*epoch, *first_key);
        Ok(StatelessResponder { epoch, index, to, hello, ephemeral, first_key, mark })
    }

    /// A responder whose ephemeral key and index are given. `admitted` may be the first or the
    /// third message, because both begin with the initiator's ephemeral key.
    #[cfg(feature = "vectors")]
    fn given(
        ours: &LocalParams<'_>,
        ephemeral: Secret,
        admitted: &Admitted<'_>,
    ) -> Result<StatelessResponder, Refused> {
        let first_key = *admitted.noise.first_chunk().ok_or(Refused::Malformed)?;
        let to = SessionIndex::new(admitted.header.low).ok_or(Refused::Malformed)?;
        let (epoch, index, mark) = (0, ours.index, [0; MAC_BYTES]);
        let hello = answering_hello(ours)?;
        Ok(StatelessResponder { epoch, index, to, hello, ephemeral, first_key, mark })
    }

    /// Reads the part of a third message after the ephemeral key.
    fn read_finish(
        self,
        local: &LocalIdentity,
        offer: &Offer,
        way: Way,
        rest: &[u8],
    ) -> Result<Finish, Refused> {
        let (index, epoch, mark, to) = (self.index, self.epoch, self.mark, self.to);
        let (mut noise, _) = self.respond(local)?;
        let domain = local.domain();
        let their = Hello::parse(domain, &noise.read(rest)?)?;
        if their.index != to {
            return Err(Refused::OtherIndex);
        }
        let static_key = noise.peer().ok_or(Refused::Unreadable)?;
        if static_key == *local.static_public() {
            return Err(Refused::Ourselves);
        }
        let identity = their.proof.verify_in(domain, &static_key)?;
        let peer = Peer { static_key, identity };
        Ok(Finish { domain, way, noise, offer: offer.clone(), index, epoch, mark, their, peer })
    }

    /// Reads the first message and writes the response, without its mac1.
    fn respond(self, local: &LocalIdentity) -> Result<(Noise, Vec<u8>), Refused> {
        let mut noise = Noise::responder(&XX, &local.prologue(), local);
        noise.set_ephemeral(self.ephemeral);
        let mut first = self.first_key.to_vec();
        first.extend_from_slice(&MSG1_PADDING);
        noise.read(&first)?;
        let low = self.index.number();
        let lane = Step::Discover.lane();
        let header = LinkHeader { kind: Kind::Response, lane, index: self.to, low };
        let mut message = header.to_bytes().to_vec();
        noise.write(&self.hello, &mut message)?;
        debug_assert!(
            message.len() + MAC_BYTES <= INITIATION_BYTES,
            "limits.rs asserts the longest"
        );
        Ok((noise, message))
    }
}

/// A third message that has been read. Its sender's static key and identity are authenticated.
///
/// Before [`accept`](Self::accept), the caller checks its policy and that the index is free, and
/// looks up the peer's newest timestamp.
pub struct Finish {
    domain: Domain,
    way: Way,
    noise: Noise,
    offer: Offer,
    index: SessionIndex,
    epoch: u32,
    mark: [u8; MAC_BYTES],
    their: Hello,
    peer: Peer,
}

impl Finish {
    /// The peer, whose static key and identity are authenticated.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Our session index. It is derived, so it may already be in use.
    ///
    /// In that case, drop this value: the initiator starts again and gets another index.
    pub const fn our_index(&self) -> SessionIndex {
        self.index
    }

    /// The peer's identity.
    pub const fn identity(&self) -> &Identity {
        &self.peer.identity
    }

    /// The way in which the peer addressed us.
    pub const fn way(&self) -> Way {
        self.way
    }

    /// The time of sending, as read from the peer's clock.
    pub const fn timestamp(&self) -> Timestamp {
        self.their.timestamp
    }

    /// The peer's offer, with the fields of its hello.
    pub const fn offer(&self) -> &Offer {
        &self.their.offer
    }

    /// Returns the session. Records the handshake in `checker` and its timestamp in `guard`.
    pub fn accept(
        self,
        checker: &mut CookieChecker,
        guard: &mut TimestampGuard,
    ) -> Result<Established, Refused> {
        guard.check(self.their.timestamp)?;
        self.offer.agree_in(self.domain, &self.their.offer)?;
        checker.complete(self.epoch, &self.mark)?;
        guard.newest = Some(self.their.timestamp);
        self.establish()
    }

    fn establish(self) -> Result<Established, Refused> {
        let agreement: Agreement = self.offer.agree_in(self.domain, &self.their.offer)?;
        let our = (self.index, self.offer.lanes);
        Ok(Established::new(
            (self.domain, self.noise),
            false,
            agreement,
            our,
            self.their,
            self.peer,
        ))
    }
}

impl core::fmt::Debug for Finish {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("xx::Finish")
            .field("index", &self.index)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
