//! The handshake with a peer whose static key is known: IKpsk2, one round trip. Keeps no table of anything.

use std::sync::Arc;

use strowger_wire::{
    limits::{INITIATION_BYTES, KEY_BYTES, TAG_BYTES},
    link_header::{Kind, LINK_HEADER_BYTES, SessionIndex, Step},
};

use super::cookie::{Admitted, Cookie, MAC_BYTES, MacKeys};
use super::hello::{Agreement, Hello, Lanes, Offer, Peer, Timestamp};
use super::noise::{IK, Noise};
use super::{
    Established, HandshakeError, INITIATION_NOISE_BYTES, LocalParams, Refused, Rejected,
    TimestampGuard, check_response, prologue,
};
use crate::entropy::Entropy;
use crate::identity::{Identity, LocalIdentity, StaticPublic};
use crate::precomputed::PrecomputedPeers;
use crate::secret::{Psk, Secret};

/// Begins a handshake with the peer that has this static key. Returns the state that waits for the
/// response, and the message to send.
///
/// A peer whose key is a point of small order is refused: no such key is anybody's.
pub fn initiate(
    ours: &LocalParams<'_>,
    peer: &StaticPublic,
    psk: &Psk,
    cookie: Option<&Cookie>,
    entropy: &mut dyn Entropy,
) -> Result<(AwaitResponse, Vec<u8>), HandshakeError> {
    let local = ours.local;
    if peer == local.static_public() {
        return Err(Refused::Ourselves.into());
    }
    let ephemeral = Secret::random(entropy)?;
    let prologue = prologue(local.network());
    let mut noise = Noise::initiator(&IK, &prologue, local, Some(peer), ephemeral);
    noise.set_psk(psk);
    let payload_bytes = INITIATION_NOISE_BYTES - 2 * KEY_BYTES - 2 * TAG_BYTES;
    let hello = ours.hello(ours.timestamp).encode(payload_bytes);
    let mut message = ours.header(Kind::Initiation, Step::Known, SessionIndex::NONE);
    noise.write(&hello, &mut message).map_err(Refused::from)?;
    let keys = MacKeys::to(peer, local.network());
    // The link header is not in the transcript, and mac1 covers it.
    if let Some(hint) = keys.key_hint(&message) {
        let header = ours.header(Kind::Initiation, Step::Known, hint);
        message[..LINK_HEADER_BYTES].copy_from_slice(&header);
    }
    let mac1 = keys.append_mac1(&mut message);
    MacKeys::append_mac2(&mut message, cookie);
    debug_assert_eq!(message.len(), INITIATION_BYTES, "the payload is padded to make it so");
    let state = AwaitResponse {
        noise,
        offer: ours.offer.clone(),
        index: ours.index,
        peer: *peer,
        keys,
        mac1,
        own_keys: MacKeys::to(local.static_public(), local.network()),
        precomputed: Arc::clone(local.precomputed()),
    };
    Ok((state, message))
}

/// The initiator, waiting for the response.
pub struct AwaitResponse {
    noise: Noise,
    offer: Offer,
    index: SessionIndex,
    peer: StaticPublic,
    /// Of messages to the peer, and of messages to us.
    keys: MacKeys,
    own_keys: MacKeys,
    precomputed: Arc<PrecomputedPeers>,
    mac1: [u8; MAC_BYTES],
}

impl AwaitResponse {
    /// Reads the response. If it is not the peer's, the state is given back and waits on: a forged
    /// response ends no handshake. (If it is, but cannot be agreed to, waiting on leads to nothing.)
    pub fn read_response(mut self, message: &[u8]) -> Result<Established, Rejected<Self>> {
        match self.parse_response(message) {
            Ok((their, agreement, identity)) => {
                let peer = Peer { static_key: self.peer, identity };
                let our = (self.index, self.offer.lanes);
                Ok(Established::new(self.noise, true, agreement, our, their, peer))
            }
            Err(why) => Err(Rejected { state: Box::new(self), why }),
        }
    }

    fn parse_response(&mut self, message: &[u8]) -> Result<(Hello, Agreement, Identity), Refused> {
        let covered = self.check_covered(message)?;
        let noise = covered.get(LINK_HEADER_BYTES..).ok_or(Refused::Malformed)?;
        let their = Hello::parse(&self.noise.read(noise)?)?;
        let identity = self.precomputed.identify(&their.proof, &self.peer)?;
        let agreement = self.offer.agree(&their.offer)?;
        Ok((their, agreement, identity))
    }

    /// Whether a response has the form of one to this attempt and its mac is right, which costs one short
    /// hash. Whoever knows our key and the network's name can make such a one.
    pub fn check(&self, message: &[u8]) -> Result<(), Refused> {
        self.check_covered(message).map(|_| ())
    }

    fn check_covered<'m>(&self, message: &'m [u8]) -> Result<&'m [u8], Refused> {
        check_response(message, Step::Known, self.index, &self.own_keys)
    }

    /// Reads a cookie reply: begin anew with the cookie, at the next attempt's time and not before
    /// (a reply that is answered at once makes two messages of one).
    pub fn read_cookie(&self, message: &[u8]) -> Result<Cookie, Refused> {
        Cookie::read(&self.keys, Step::Known, self.index, &self.mac1, message)
    }

    /// Our index, to which the response will be addressed.
    pub const fn index(&self) -> SessionIndex {
        self.index
    }
}

impl core::fmt::Debug for AwaitResponse {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ik::AwaitResponse")
            .field("index", &self.index)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Reads an initiation: who is it? A pure function of the message and our long-term key (R8).
pub fn read(local: &LocalIdentity, admitted: &Admitted<'_>) -> Result<Initiation, Refused> {
    if admitted.step != Step::Known {
        return Err(Refused::NotOurs);
    }
    let prologue = prologue(local.network());
    let mut noise = Noise::responder(&IK, &prologue, local);
    let their = Hello::parse(&noise.read(admitted.noise)?)?;
    let peer = noise.peer().ok_or(Refused::Unreadable)?;
    if peer == *local.static_public() {
        return Err(Refused::Ourselves);
    }
    Ok(Initiation { noise, their, peer, precomputed: Arc::clone(local.precomputed()) })
}

/// An initiation that was read: whoever sent it, or first sent it, has the static key it names.
///
/// Nothing is kept until [`Initiation::accept`]: the caller looks up policy, psk and timestamp of this
/// peer first.
pub struct Initiation {
    noise: Noise,
    their: Hello,
    peer: StaticPublic,
    precomputed: Arc<PrecomputedPeers>,
}

impl Initiation {
    /// The initiator's static key.
    pub const fn static_key(&self) -> &StaticPublic {
        &self.peer
    }

    /// When it was sent, by the initiator's clock.
    pub const fn timestamp(&self) -> Timestamp {
        self.their.timestamp
    }

    /// What the initiator offers.
    pub const fn their_offer(&self) -> &Offer {
        &self.their.offer
    }

    /// The initiator's identity, if its proof holds. Costs a signature's verification, unless this
    /// peer is known and the proof was verified before.
    pub fn identity(&self) -> Result<Identity, Refused> {
        Ok(self.precomputed.identify(&self.their.proof, &self.peer)?)
    }

    /// Accepts it: returns the session and the response to send. `guard` is the peer's; it is moved
    /// on only if all else was right. The keys are not to be used for sealing before the first packet
    /// under them was opened.
    pub fn accept(
        mut self,
        ours: &LocalParams<'_>,
        psk: &Psk,
        guard: &mut TimestampGuard,
        entropy: &mut dyn Entropy,
    ) -> Result<(Established, Vec<u8>), HandshakeError> {
        guard.check(self.their.timestamp)?;
        let agreement = ours.offer.agree(&self.their.offer).map_err(Refused::from)?;
        let identity = self.identity()?;
        self.noise.set_ephemeral(Secret::random(entropy)?);
        self.noise.set_psk(psk);
        let mut message = ours.header(Kind::Response, Step::Known, self.their.index);
        let hello = ours.hello(Timestamp::default()).encode(0);
        self.noise.write(&hello, &mut message).map_err(Refused::from)?;
        MacKeys::to(&self.peer, ours.local.network()).append_mac1(&mut message);
        debug_assert!(message.len() <= INITIATION_BYTES, "limits.rs asserts the longest");
        guard.newest = Some(self.their.timestamp);
        let peer = Peer { static_key: self.peer, identity };
        let our: (SessionIndex, Lanes) = (ours.index, ours.offer.lanes);
        Ok((Established::new(self.noise, false, agreement, our, self.their, peer), message))
    }
}

impl core::fmt::Debug for Initiation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ik::Initiation")
            .field("their", &self.their)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
