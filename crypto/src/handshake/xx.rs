//! XX: the handshake with a peer whose static key is unknown. It has three messages, and its
//! responder is stateless.
//!
//! A first message must not create state, because it does not prove who sent it (R8). The responder
//! derives its ephemeral key and its session index from a secret of its [`CookieChecker`], the
//! source, the first message and its own response. The third message repeats the initiator's
//! ephemeral key, and the responder recomputes its response from it. The same first message gets
//! the same response, byte for byte; a changed response has another ephemeral key, so no nonce
//! covers two plaintexts. Once a third message proves its sender, the checker records a mark of the
//! handshake until its secret is gone, so that no session keys are ever derived twice (R5).

use strowger_wire::{
    hello::Timestamp,
    limits::{INITIATION_BYTES, KEY_BYTES},
    link_header::{Kind, LINK_HEADER_BYTES, LinkHeader, SessionIndex, Step},
};

use super::cookie::{Admitted, Cookie, CookieChecker, MAC_BYTES, MacKeys, NO_KEY};
use super::hello::{Agreement, Hello, Offer, Peer};
use super::noise::{Noise, XX};
use super::{
    Established, HandshakeError, INITIATION_NOISE_BYTES, LocalParams, Refused, Rejected,
    TimestampGuard, check_response, prologue,
};
use crate::entropy::Entropy;
use crate::identity::{Identity, LocalIdentity, StaticPublic};
use crate::secret::{Secret, mac};

/// Payload of a first message: zeros. They make the first message at least as long as any response.
const MSG1_PADDING: [u8; INITIATION_NOISE_BYTES - KEY_BYTES] =
    [0; INITIATION_NOISE_BYTES - KEY_BYTES];

/// Starts a handshake with an unknown peer. Of `ours` the message reveals only the index.
pub fn initiate(
    ours: &LocalParams<'_>,
    cookie: Option<&Cookie>,
    entropy: &mut dyn Entropy,
) -> Result<(AwaitResponse, Vec<u8>), HandshakeError> {
    let local = ours.local;
    let ephemeral = Secret::random(entropy)?;
    let mut message = ours.header(Kind::Initiation, Step::Discover, SessionIndex::NONE);
    let noise = write_msg1(local, &ephemeral, &mut message)?;
    let mut first_key = [0; KEY_BYTES];
    first_key.copy_from_slice(&message[LINK_HEADER_BYTES..LINK_HEADER_BYTES + KEY_BYTES]);
    let keys = MacKeys::to(&NO_KEY, local.network());
    let mac1 = keys.append_mac1(&mut message);
    MacKeys::append_mac2(&mut message, cookie);
    debug_assert_eq!(message.len(), INITIATION_BYTES, "the payload is padded to make it so");
    let own = *local.static_public();
    let index = ours.index;
    Ok((AwaitResponse { noise, ephemeral, index, own, keys, mac1, first_key }, message))
}

/// Writes the first message. The result depends only on the ephemeral key.
fn write_msg1(
    local: &LocalIdentity,
    ephemeral: &Secret,
    message: &mut Vec<u8>,
) -> Result<Noise, Refused> {
    let prologue = prologue(local.network());
    let ephemeral = Secret::from_bytes(*ephemeral.expose());
    let mut noise = Noise::initiator(&XX, &prologue, local, None, ephemeral);
    noise.write(&MSG1_PADDING, message)?;
    Ok(noise)
}

/// An initiator that waits for the response.
pub struct AwaitResponse {
    noise: Noise,
    /// Key of the first message, for [`Discovered::resume_waiting`].
    ephemeral: Secret,
    index: SessionIndex,
    own: StaticPublic,
    keys: MacKeys,
    mac1: [u8; MAC_BYTES],
    first_key: [u8; KEY_BYTES],
}

impl AwaitResponse {
    /// Reads the response and verifies the peer's identity. On an error the waiting state is
    /// returned.
    pub fn read_response(mut self, message: &[u8]) -> Result<Discovered, Rejected<Self>> {
        match self.parse_response(message) {
            Ok((their, peer)) => {
                let AwaitResponse { noise, ephemeral, index, own, keys, mac1, first_key } = self;
                let noise = ResumeState { noise, ephemeral, own, mac1 };
                Ok(Discovered { noise, index, keys, first_key, their, peer })
            }
            Err(why) => Err(Rejected { state: Box::new(self), why }),
        }
    }

    fn parse_response(&mut self, message: &[u8]) -> Result<(Hello, Peer), Refused> {
        let covered = self.check_covered(message)?;
        let noise = covered.get(LINK_HEADER_BYTES..).ok_or(Refused::Malformed)?;
        let their = Hello::parse(&self.noise.read(noise)?)?;
        let static_key = self.noise.peer().ok_or(Refused::Unreadable)?;
        if static_key == self.own {
            return Err(Refused::Ourselves);
        }
        let identity = their.proof.verify(&static_key)?;
        Ok((their, Peer { static_key, identity }))
    }

    /// Checks form, address and mac of a response to this attempt. Costs one short hash.
    ///
    /// Every host that knows the network's name can make a response that passes this check.
    pub fn check(&self, message: &[u8]) -> Result<(), Refused> {
        self.check_covered(message).map(|_| ())
    }

    fn check_covered<'m>(&self, message: &'m [u8]) -> Result<&'m [u8], Refused> {
        check_response(message, Step::Discover, self.index, &self.keys)
    }

    /// Reads a cookie reply. Send the cookie with the next scheduled attempt, not at once.
    pub fn read_cookie(&self, message: &[u8]) -> Result<Cookie, Refused> {
        Cookie::read(&self.keys, Step::Discover, self.index, &self.mac1, message)
    }

    /// Our session index; the response is addressed to it.
    pub const fn index(&self) -> SessionIndex {
        self.index
    }
}

impl core::fmt::Debug for AwaitResponse {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("xx::AwaitResponse").field("index", &self.index).finish_non_exhaustive()
    }
}

/// The state after a response has been read, with the values that are needed to wait for another
/// response.
struct ResumeState {
    noise: Noise,
    ephemeral: Secret,
    own: StaticPublic,
    mac1: [u8; MAC_BYTES],
}

/// An initiator that has read the response and knows the peer. Drop it to abandon the handshake.
pub struct Discovered {
    noise: ResumeState,
    index: SessionIndex,
    keys: MacKeys,
    first_key: [u8; KEY_BYTES],
    their: Hello,
    peer: Peer,
}

impl Discovered {
    /// The peer; its identity is proved.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Our session index, as sent in the first message.
    pub const fn our_index(&self) -> SessionIndex {
        self.index
    }

    /// Checks that the two offers are compatible, as [`finish`](Self::finish) requires.
    pub fn check(&self, offer: &Offer) -> Result<(), Refused> {
        offer.agree(&self.their.offer)?;
        Ok(())
    }

    /// Waits for another response, because the peer is not the intended one. Costs one curve
    /// operation.
    ///
    /// The other peer has not learnt our identity. `local` must be the identity that started the
    /// handshake.
    pub fn resume_waiting(self, local: &LocalIdentity) -> Result<AwaitResponse, Refused> {
        let Discovered { noise, index, keys, first_key, .. } = self;
        let ResumeState { ephemeral, own, mac1, .. } = noise;
        let noise = write_msg1(local, &ephemeral, &mut Vec::new())?;
        Ok(AwaitResponse { noise, ephemeral, index, own, keys, mac1, first_key })
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
        if ours.index != self.index {
            return Err(Refused::OtherIndex);
        }
        let agreement = ours.offer.agree(&self.their.offer)?;
        let mut message = ours.header(Kind::Initiation, Step::Finish, self.their.index);
        message.extend_from_slice(&self.first_key);
        self.noise.noise.write(&ours.hello(ours.timestamp).encode(0), &mut message)?;
        self.keys.append_mac1(&mut message);
        MacKeys::append_mac2(&mut message, cookie);
        debug_assert!(message.len() <= INITIATION_BYTES, "limits.rs asserts the longest");
        let our = (self.index, ours.offer.lanes);
        let noise = self.noise.noise;
        Ok((Established::new(noise, true, agreement, our, self.their, self.peer), message))
    }
}

impl core::fmt::Debug for Discovered {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("xx::Discovered")
            .field("index", &self.index)
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
    let responder =
        StatelessResponder::new(epoch.number, &epoch.secret, local, offer, source, to, first_key);
    Ok(responder.respond(local)?.1)
}

/// Reads a third message and verifies the peer's identity. Keeps no state.
///
/// `offer` and `source` must be the same as in [`answer`]; otherwise this fails and the initiator
/// has to start a new handshake.
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
    let responder =
        StatelessResponder::new(epoch.number, &epoch.secret, local, offer, source, to, first_key);
    if responder.index != admitted.header.index {
        return Err(Refused::NotOurs); // one hash tells, before any curve operation
    }
    let (index, epoch, mark) = (responder.index, responder.epoch, responder.mark);
    let (mut noise, _) = responder.respond(local)?;
    let their = Hello::parse(&noise.read(rest)?)?;
    if their.index != to {
        return Err(Refused::OtherIndex);
    }
    let static_key = noise.peer().ok_or(Refused::Unreadable)?;
    if static_key == *local.static_public() {
        return Err(Refused::Ourselves);
    }
    let identity = their.proof.verify(&static_key)?;
    let peer = Peer { static_key, identity };
    Ok(Finish { noise, offer: offer.clone(), index, epoch, mark, their, peer })
}

/// The responder's side of XX up to its response, recomputable at any time.
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
        epoch: u32,
        secret: &Secret,
        local: &LocalIdentity,
        offer: &Offer,
        source: &[u8],
        to: SessionIndex,
        first_key: &[u8; KEY_BYTES],
    ) -> StatelessResponder {
        let to_bytes = to.number().to_be_bytes();
        let chosen = mac(secret.expose(), "strowger xx index", &[source, first_key, &to_bytes]);
        // The lowest bit holds the epoch, the others are unpredictable, and the index is not zero.
        let number = u32::from_be_bytes([0, chosen[0], chosen[1], chosen[2]]) & !1;
        let nonzero = if number == 0 { 2 } else { number };
        let index = SessionIndex::new(nonzero | (epoch & 1)).unwrap_or_default();
        let ours = LocalParams { local, offer, index, timestamp: Timestamp::default() };
        let hello = ours.hello(Timestamp::default()).encode(0);
        let parts: [&[u8]; 4] = [source, first_key, &to_bytes, &hello];
        let ephemeral = secret.derive("strowger xx ephemeral", &parts);
        let full = mac(secret.expose(), "strowger xx mark", &parts);
        let mark = core::array::from_fn(|place| full[place]);
        StatelessResponder { epoch, index, to, hello, ephemeral, first_key: *first_key, mark }
    }

    /// Reads the first message and writes the response.
    fn respond(self, local: &LocalIdentity) -> Result<(Noise, Vec<u8>), Refused> {
        let prologue = prologue(local.network());
        let mut noise = Noise::responder(&XX, &prologue, local);
        noise.set_ephemeral(self.ephemeral);
        let mut first = self.first_key.to_vec();
        first.extend_from_slice(&MSG1_PADDING);
        noise.read(&first)?;
        let low = self.index.number();
        let lane = Step::Discover.lane();
        let header = LinkHeader { kind: Kind::Response, lane, index: self.to, low };
        let mut message = header.to_bytes().to_vec();
        noise.write(&self.hello, &mut message)?;
        MacKeys::to(&NO_KEY, local.network()).append_mac1(&mut message);
        debug_assert!(message.len() <= INITIATION_BYTES, "limits.rs asserts the longest");
        Ok((noise, message))
    }
}

/// A third message that has been read. Its sender has proved its static key and identity.
///
/// Before [`accept`](Self::accept), the caller checks its policy and the peer's timestamp, and that
/// the index is free.
pub struct Finish {
    noise: Noise,
    offer: Offer,
    index: SessionIndex,
    epoch: u32,
    mark: [u8; MAC_BYTES],
    their: Hello,
    peer: Peer,
}

impl Finish {
    /// The peer; static key and identity are proved.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Our session index. It was chosen without a check whether it is in use.
    ///
    /// If it is in use, drop this value: the initiator starts again and gets another index.
    pub const fn our_index(&self) -> SessionIndex {
        self.index
    }

    /// The peer's identity.
    pub const fn identity(&self) -> &Identity {
        &self.peer.identity
    }

    /// Returns the session. Records the handshake in `checker` and its timestamp in `guard`.
    pub fn accept(
        self,
        checker: &mut CookieChecker,
        guard: &mut TimestampGuard,
    ) -> Result<Established, Refused> {
        guard.check(self.their.timestamp)?;
        let agreement: Agreement = self.offer.agree(&self.their.offer)?;
        checker.complete(self.epoch, &self.mark)?;
        guard.newest = Some(self.their.timestamp);
        let our = (self.index, self.offer.lanes);
        Ok(Established::new(self.noise, false, agreement, our, self.their, self.peer))
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
