//! IKpsk2: the handshake with a peer whose static key is known. It takes one round trip, and the
//! responder stores nothing before it accepts.

use core::cell::OnceCell;
use std::sync::Arc;

use strowger_wire::{
    hello::{Lanes, Timestamp},
    limits::{INITIATION_BYTES, KEY_BYTES, TAG_BYTES},
    link_header::{Kind, LINK_HEADER_BYTES, SessionIndex, Step},
};

use super::cookie::{Admitted, Cookie, MAC_BYTES, MacKeys, Way};
use super::hello::{Agreement, Hello, Offer, Peer};
use super::noise::{IK, Noise};
use super::{
    Established, HandshakeError, INITIATION_NOISE_BYTES, LocalParams, Refused, Rejected,
    TimestampGuard, check_response,
};
use crate::domain::Domain;
use crate::entropy::Entropy;
use crate::identity::{Identity, LocalIdentity, StaticPublic};
use crate::precomputed::PrecomputedPeers;
use crate::secret::{Psk, Secret};

/// Starts a handshake with the owner of this static key. Returns the state that waits, and the
/// message.
///
/// Fails if the key is our own, or if it is a point of small order, which cannot belong to a node.
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
    let mut noise = Noise::initiator(&IK, &local.prologue(), local, Some(peer), ephemeral);
    noise.set_psk(psk);
    let payload_bytes = INITIATION_NOISE_BYTES - 2 * KEY_BYTES - 2 * TAG_BYTES;
    let hello = ours.encode_hello(ours.timestamp, payload_bytes)?;
    let mut message = ours.header(Kind::Initiation, Step::Known, SessionIndex::NONE);
    noise.write(&hello, &mut message).map_err(Refused::from)?;
    let keys = MacKeys::from_us(local, &peer.0);
    // The hint can be written after Noise has written the message: mac1 covers the link header, but
    // the transcript does not.
    if let Some(hint) = keys.key_hint(&message) {
        let header = ours.header(Kind::Initiation, Step::Known, hint);
        message[..LINK_HEADER_BYTES].copy_from_slice(&header);
    }
    let mac1 = keys.append_mac1(&mut message);
    MacKeys::append_mac2(&mut message, cookie);
    debug_assert_eq!(message.len(), INITIATION_BYTES, "the payload is padded to make it so");
    let state = AwaitResponse {
        domain: local.domain(),
        noise,
        offer: ours.offer.clone(),
        index: ours.index,
        peer: *peer,
        keys,
        mac1,
        own_keys: MacKeys::to_us(local, Way::StaticKey),
        precomputed: Arc::clone(local.precomputed()),
    };
    Ok((state, message))
}

/// An initiator that waits for the response.
pub struct AwaitResponse {
    domain: Domain,
    noise: Noise,
    offer: Offer,
    index: SessionIndex,
    peer: StaticPublic,
    /// `keys` are for messages to the peer, `own_keys` for messages to us.
    keys: MacKeys,
    own_keys: MacKeys,
    precomputed: Arc<PrecomputedPeers>,
    mac1: [u8; MAC_BYTES],
}

impl AwaitResponse {
    /// Reads the response. On an error the waiting state is returned, so a forged response does not
    /// end the handshake.
    ///
    /// If the response is authentic and the offers are incompatible, the error is final: no other
    /// response can succeed.
    pub fn read_response(mut self, message: &[u8]) -> Result<Established, Rejected<Self>> {
        match self.parse_response(message) {
            Ok((their, agreement, identity)) => {
                let peer = Peer { static_key: self.peer, identity };
                let our = (self.index, self.offer.lanes);
                Ok(Established::new((self.domain, self.noise), true, agreement, our, their, peer))
            }
            Err(why) => Err(Rejected { state: Box::new(self), why }),
        }
    }

    fn parse_response(&mut self, message: &[u8]) -> Result<(Hello, Agreement, Identity), Refused> {
        let covered = self.check_covered(message)?;
        let noise = covered.get(LINK_HEADER_BYTES..).ok_or(Refused::Malformed)?;
        let their = Hello::parse(self.domain, &self.noise.read(noise)?)?;
        let identity = self.precomputed.identify(self.domain, &their.proof, &self.peer)?;
        let agreement = self.offer.agree_in(self.domain, &their.offer)?;
        Ok((their, agreement, identity))
    }

    /// Checks length, session index and mac of a response to this attempt. Costs one hash.
    ///
    /// Every host that knows our static key and the network's name can make a response that passes
    /// this check.
    pub fn check(&self, message: &[u8]) -> Result<(), Refused> {
        self.check_covered(message).map(|_| ())
    }

    fn check_covered<'m>(&self, message: &'m [u8]) -> Result<&'m [u8], Refused> {
        check_response(message, Step::Known, self.index, &self.own_keys)
    }

    /// Reads a cookie reply. Send the cookie with the next scheduled attempt, not immediately: an
    /// immediate retry would double the number of messages.
    pub fn read_cookie(&self, message: &[u8]) -> Result<Cookie, Refused> {
        Cookie::read(&self.keys, Step::Known, self.index, &self.mac1, message)
    }

    /// Our session index; the response is addressed to it.
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

/// Reads an initiation. The result depends only on the message, our static key and our network
/// (R8).
pub fn read(local: &LocalIdentity, admitted: &Admitted<'_>) -> Result<Initiation, Refused> {
    if admitted.step != Step::Known {
        return Err(Refused::NotOurs);
    }
    let mut noise = Noise::responder(&IK, &local.prologue(), local);
    let their = Hello::parse(local.domain(), &noise.read(admitted.noise)?)?;
    let peer = noise.peer().ok_or(Refused::Unreadable)?;
    if peer == *local.static_public() {
        return Err(Refused::Ourselves);
    }
    let (domain, precomputed) = (local.domain(), Arc::clone(local.precomputed()));
    Ok(Initiation { domain, noise, their, peer, precomputed, verified: OnceCell::new() })
}

/// An initiation that has been read. Its author owns the static key in it, but may have sent it
/// long ago.
///
/// No state is stored before [`Initiation::accept`]. Before that call, the caller looks up the
/// policy, psk and timestamp of the peer.
pub struct Initiation {
    domain: Domain,
    noise: Noise,
    their: Hello,
    peer: StaticPublic,
    precomputed: Arc<PrecomputedPeers>,
    /// The initiator's identity; empty until its proof was verified.
    verified: OnceCell<Identity>,
}

impl Initiation {
    /// The initiator's static key.
    pub const fn static_key(&self) -> &StaticPublic {
        &self.peer
    }

    /// Time of sending, as read from the initiator's clock.
    pub const fn timestamp(&self) -> Timestamp {
        self.their.timestamp
    }

    /// Whether this initiation is newer than all that `guard` has accepted. A replay is not newer.
    pub fn is_newer_than(&self, guard: &TimestampGuard) -> bool {
        guard.check(self.their.timestamp).is_ok()
    }

    /// The initiator's offer, with the fields of its hello. The initiation may be a replay: see
    /// [`is_newer_than`](Self::is_newer_than).
    pub const fn offer(&self) -> &Offer {
        &self.their.offer
    }

    /// The initiator's identity, if its proof is valid.
    ///
    /// Costs the verification of a signature, unless the peer was added and this proof was verified
    /// before. The signature is verified once.
    pub fn identity(&self) -> Result<Identity, Refused> {
        if let Some(identity) = self.verified.get() {
            return Ok(*identity);
        }
        let identity = self.precomputed.identify(self.domain, &self.their.proof, &self.peer)?;
        Ok(*self.verified.get_or_init(|| identity))
    }

    /// Returns the session and the response.
    ///
    /// `guard` belongs to this peer. It is updated only if everything else is valid. Do not seal
    /// with the new keys before a packet that the peer sealed with them has been opened.
    pub fn accept(
        mut self,
        ours: &LocalParams<'_>,
        psk: &Psk,
        guard: &mut TimestampGuard,
        entropy: &mut dyn Entropy,
    ) -> Result<(Established, Vec<u8>), HandshakeError> {
        guard.check(self.their.timestamp)?;
        let agreement =
            ours.offer.agree_in(self.domain, &self.their.offer).map_err(Refused::from)?;
        let identity = self.identity()?;
        self.noise.set_ephemeral(Secret::random(entropy)?);
        self.noise.set_psk(psk);
        let mut message = ours.header(Kind::Response, Step::Known, self.their.index);
        let hello = ours.encode_hello(Timestamp::default(), 0)?;
        self.noise.write(&hello, &mut message).map_err(Refused::from)?;
        MacKeys::append_mac1_from_us(ours.local, &self.peer.0, &mut message);
        debug_assert!(message.len() <= INITIATION_BYTES, "limits.rs asserts the longest");
        guard.newest = Some(self.their.timestamp);
        let peer = Peer { static_key: self.peer, identity };
        let our: (SessionIndex, Lanes) = (ours.index, ours.offer.lanes);
        Ok((
            Established::new((self.domain, self.noise), false, agreement, our, self.their, peer),
            message,
        ))
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
