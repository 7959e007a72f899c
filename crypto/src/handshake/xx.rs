//! The handshake with a peer that is to be discovered: XX, three messages. The responder keeps nothing between them.
//!
//! A first message of XX proves nothing, so it may create no state (R8). The responder's ephemeral
//! key and session index are therefore functions of a secret of its [`CookieChecker`], the source, the first
//! message and its own answer; the third message brings the first along, and the responder makes its
//! answer anew. The same first message gets the same answer, byte for byte, and a changed answer has
//! another key, so no nonce is used for two plaintexts. Once a third message has proved who sent it,
//! the checker remembers a mark of that handshake until its secret is gone, so that no session's keys
//! are ever made twice (R5).

use strowger_wire::{
    limits::{INITIATION_BYTES, KEY_BYTES},
    link_header::{Kind, LINK_HEADER_BYTES, LinkHeader, SessionIndex, Step},
};

use super::cookie::{Admitted, Cookie, CookieChecker, MAC_BYTES, MacKeys, NO_KEY};
use super::hello::{Agreement, Hello, Offer, Peer, Timestamp};
use super::noise::{Noise, XX};
use super::{
    Established, HandshakeError, INITIATION_NOISE_BYTES, LocalParams, Refused, Rejected,
    TimestampGuard, check_response, prologue,
};
use crate::entropy::Entropy;
use crate::identity::{Identity, LocalIdentity, StaticPublic};
use crate::secret::{Secret, mac};

/// The payload of a first message: nothing, at such a length that no answer is longer.
const MSG1_PADDING: [u8; INITIATION_NOISE_BYTES - KEY_BYTES] =
    [0; INITIATION_NOISE_BYTES - KEY_BYTES];

/// Begins a handshake with whoever answers. Nothing of `ours` is told yet but the index.
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

/// The initiator's half up to its first message, the same for the same key.
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

/// The initiator, waiting for the response.
pub struct AwaitResponse {
    noise: Noise,
    /// The key of the first message, for [`Discovered::resume_waiting`].
    ephemeral: Secret,
    index: SessionIndex,
    own: StaticPublic,
    keys: MacKeys,
    mac1: [u8; MAC_BYTES],
    first_key: [u8; KEY_BYTES],
}

impl AwaitResponse {
    /// Reads the response: who is it? If it cannot be read, the state is given back and waits on.
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

    /// Whether a response has the form of one to this attempt and its mac is right, which costs one short
    /// hash. Whoever knows the network's name can make such a one.
    pub fn check(&self, message: &[u8]) -> Result<(), Refused> {
        self.check_covered(message).map(|_| ())
    }

    fn check_covered<'m>(&self, message: &'m [u8]) -> Result<&'m [u8], Refused> {
        check_response(message, Step::Discover, self.index, &self.keys)
    }

    /// Reads a cookie reply: begin anew with the cookie, at the next attempt's time and not before.
    pub fn read_cookie(&self, message: &[u8]) -> Result<Cookie, Refused> {
        Cookie::read(&self.keys, Step::Discover, self.index, &self.mac1, message)
    }

    /// Our index, to which the response will be addressed.
    pub const fn index(&self) -> SessionIndex {
        self.index
    }
}

impl core::fmt::Debug for AwaitResponse {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("xx::AwaitResponse").field("index", &self.index).finish_non_exhaustive()
    }
}

/// What was read of a response, and what it takes to wait for another one.
struct ResumeState {
    noise: Noise,
    ephemeral: Secret,
    own: StaticPublic,
    mac1: [u8; MAC_BYTES],
}

/// The initiator knows who answered, and what it offers. Dropping this ends the matter.
pub struct Discovered {
    noise: ResumeState,
    index: SessionIndex,
    keys: MacKeys,
    first_key: [u8; KEY_BYTES],
    their: Hello,
    peer: Peer,
}

impl Discovered {
    /// Who answered: its identity is proved.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What it offers.
    pub const fn their_offer(&self) -> &Offer {
        &self.their.offer
    }

    /// Our index, which the first message said.
    pub const fn our_index(&self) -> SessionIndex {
        self.index
    }

    /// Whether the two offers go together, which [`finish`](Self::finish) demands.
    pub fn check(&self, offer: &Offer) -> Result<(), Refused> {
        offer.agree(&self.their.offer)?;
        Ok(())
    }

    /// Goes back to waiting for a response: whoever answered is not the peer that was meant, and nothing was
    /// said to it yet. `local` must be who began. Costs one curve operation.
    pub fn resume_waiting(self, local: &LocalIdentity) -> Result<AwaitResponse, Refused> {
        let Discovered { noise, index, keys, first_key, .. } = self;
        let ResumeState { ephemeral, own, mac1, .. } = noise;
        let noise = write_msg1(local, &ephemeral, &mut Vec::new())?;
        Ok(AwaitResponse { noise, ephemeral, index, own, keys, mac1, first_key })
    }

    /// Goes on: returns the session and the third message, which is to be sent again, the same
    /// bytes, until the peer is heard under the new keys. `ours.index` must be that of the first message.
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

/// Answers a first message. A pure function of its arguments: nothing is kept (R8), and the answer
/// is never longer than what asked for it.
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

/// Reads a third message: who is it? A pure function of its arguments. `offer` and `source` must be
/// those that the first message was answered with; if either has changed, this fails and the initiator begins anew.
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
        return Err(Refused::NotOurs); // found out by a hash, before any curve operation
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

/// The responder's half of XX up to its answer, as often as it is asked for.
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
        // The lowest bit says which epoch; all others are unpredictable, and some bit is set.
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

    /// Reads the first message and makes the answer.
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

/// A third message that was read: its sender has proved static key and identity. The caller looks up
/// its policy and what it knows of this peer, and whether the index is free, before it goes on.
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
    /// Who it is: static key and identity are proved.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What it offers.
    pub const fn their_offer(&self) -> &Offer {
        &self.their.offer
    }

    /// Our index of the session to be, which was chosen without looking. If it is in use, drop
    /// this: the initiator begins anew and gets another.
    pub const fn our_index(&self) -> SessionIndex {
        self.index
    }

    /// The identity again, by itself.
    pub const fn identity(&self) -> &Identity {
        &self.peer.identity
    }

    /// Accepts it: returns the session. The checker remembers the handshake, the guard its timestamp.
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
