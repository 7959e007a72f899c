//! Handshakes: one type per state, each consumes itself and one message, the last one yields keys.
//!
//! ```text
//! known peer (IKpsk2, one round trip)
//!   ik::initiate ──► AwaitResponse ── read_response ──► Established ──► Transport
//!   CookieChecker::admit ──► ik::read ──► Initiation ── accept ──► Established ──► Transport
//!
//! discovered peer (XX, one round trip and a half)
//!   xx::initiate ──► AwaitResponse ── read_response ──► Discovered ── finish ──► Established
//!   CookieChecker::admit ──► xx::answer                  (no state is kept)
//!   CookieChecker::admit ──► xx::read_finish ──► Finish ── accept ──► Established
//! ```
//!
//! The bytes, each message behind a link header whose low word is the sender's session index:
//!
//! ```text
//! IK initiation   e 32 | static key 32+16 | hello, padded, +16 | mac1 16 | mac2 16     = 896
//! IK response     e 32 | hello +16 | mac1 16
//! XX initiation   e 32 | zeros 824 | mac1 16 | mac2 16                                 = 896
//! XX response     e 32 | static key 32+16 | hello +16 | mac1 16
//! XX finish       initiator's e 32 | static key 32+16 | hello +16 | mac1 16 | mac2 16
//! ```
//!
//! The prologue is the protocol's name, its version and the network's name. All of every message
//! before the macs but the link header is in the Noise transcript. The sender's index in the link
//! header only serves to address a cookie; the one that counts is said again in the hello.

mod blake2s;
mod cookie;
mod hello;
pub mod ik;
mod noise;
pub mod xx;

use strowger_wire::limits::{INITIATION_BYTES, KEY_BYTES, MAC_BYTES, TAG_BYTES};
use strowger_wire::link_header::{Kind, LINK_HEADER_BYTES, Lane, LinkHeader, SessionIndex, Step};

use crate::aead::Provider;
use crate::entropy::EntropyFailed;
use crate::identity::{IdentityRefused, LocalIdentity, NetworkId, PeerId};
use crate::opener::Openers;
use crate::sealer::{SealMode, Sealer};
use crate::secret::Secret;
use crate::time::Nanos;

pub use cookie::{Admission, Admitted, COOKIE_REPLY_BYTES, Cookie, CookieChecker, Load};
pub use hello::{
    Agreement, Disagreement, Hello, HelloMalformed, Lanes, Mtu, Offer, Peer, ProtocolBytes,
    SchemeBytes, SealWish, Suites, Timestamp, TooLong, VERSION, Versions, Widths,
};
use noise::{Noise, Unreadable};

/// Why a peer's message was refused: its fault, or that of whoever altered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// Not the length or form of such a message.
    #[error("not the form of such a message")]
    Malformed,
    /// Addressed to another session or another step.
    #[error("addressed to another handshake")]
    NotOurs,
    /// mac1 is wrong: its sender does not know our key or our network.
    #[error("the first mac is wrong")]
    WrongMac,
    /// mac1 is wrong, and the key hint is ours: its sender means us, in a network of another name.
    #[error("it is for our key in another network")]
    OtherNetwork,
    /// It cannot be decrypted: altered, of another network, under another psk, or forged.
    #[error("it cannot be decrypted")]
    Unreadable,
    /// Its payload is no hello.
    #[error(transparent)]
    Hello(#[from] HelloMalformed),
    /// A third message whose index is not the one that the handshake began with.
    #[error("not the session index that the handshake began with")]
    OtherIndex,
    /// Not newer than what this peer sent before: a replay.
    #[error("not newer than what this peer sent before")]
    Stale,
    /// Its identity was not believed.
    #[error(transparent)]
    Identity(#[from] IdentityRefused),
    /// A good proof, of another identity than the one expected: this one.
    #[error("it has proved to be {0}, who was not expected")]
    OtherIdentity(PeerId),
    /// A good proof, of a key that is another peer's.
    #[error("its key is another peer's")]
    OtherPeer,
    /// It is honest, but we do not go together.
    #[error(transparent)]
    Disagreement(#[from] Disagreement),
    /// It is our own message come back, or a peer with our own key.
    #[error("it comes from ourselves")]
    Ourselves,
    /// No room to remember another stranger until the next turn of the checker.
    #[error("too many strangers for now")]
    Busy,
}

/// Why a handshake did not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer's fault, or the way's.
    #[error("the peer's message was refused: {0}")]
    Peer(#[from] Refused),
    /// Ours.
    #[error("our own end failed: {0}")]
    Local(#[from] EntropyFailed),
}

/// A message was refused, and the state waits on: whoever forges a message ends no handshake.
#[derive(Debug)]
pub struct Rejected<S> {
    /// The state as it was.
    pub state: Box<S>,
    /// What was wrong with the message.
    pub why: Refused,
}

/// What our end brings to a handshake.
#[derive(Clone, Copy, Debug)]
pub struct LocalParams<'a> {
    /// Who we are.
    pub local: &'a LocalIdentity,
    /// What we offer and ask for.
    pub offer: &'a Offer,
    /// Under which index we want to be addressed. Not [`SessionIndex::NONE`], and not in use.
    pub index: SessionIndex,
    /// Larger than every timestamp we sent this peer before. Responders need none.
    pub timestamp: Timestamp,
}

impl LocalParams<'_> {
    fn hello(&self, timestamp: Timestamp) -> Hello {
        let proof = *self.local.proof();
        Hello { offer: self.offer.clone(), index: self.index, timestamp, proof }
    }

    fn header(&self, kind: Kind, step: Step, to: SessionIndex) -> Vec<u8> {
        let low = self.index.number();
        LinkHeader { kind, lane: step.lane(), index: to, low }.to_bytes().to_vec()
    }
}

/// The newest timestamp of one peer, kept by the caller with what else it knows of that peer, so that
/// a recorded initiation cannot be used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimestampGuard {
    /// The newest timestamp accepted, if any was.
    pub newest: Option<Timestamp>,
}

impl TimestampGuard {
    pub(crate) fn check(&self, timestamp: Timestamp) -> Result<(), Refused> {
        if self.newest.is_some_and(|newest| timestamp <= newest) {
            Err(Refused::Stale)
        } else {
            Ok(())
        }
    }
}

/// A handshake that is finished on this side: both ends have the same keys, transcript and agreement.
#[derive(Debug)]
pub struct Established {
    initiator: bool,
    keys: Keys,
    transcript: [u8; KEY_BYTES],
    agreement: Agreement,
    ours: SessionIndex,
    our_lanes: Lanes,
    their: Hello,
    peer: Peer,
}

/// The direction keys. Consumed whole by [`Established::into_transport`].
#[derive(Debug)]
struct Keys {
    send: Secret,
    receive: Secret,
}

/// The data plane's half of a session.
#[derive(Debug)]
pub struct Transport {
    /// One for each lane that we announced, in their order.
    pub sealers: Vec<Sealer>,
    /// For all lanes that the peer announced.
    pub openers: Openers,
}

impl Established {
    fn new(
        noise: Noise,
        initiator: bool,
        agreement: Agreement,
        (ours, our_lanes): (SessionIndex, Lanes),
        their: Hello,
        peer: Peer,
    ) -> Established {
        let transcript = noise.transcript();
        let (out, back) = noise.split();
        let keys = if initiator {
            Keys { send: out, receive: back }
        } else {
            Keys { send: back, receive: out }
        };
        Established { initiator, keys, transcript, agreement, ours, our_lanes, their, peer }
    }

    /// Turns the keys into sealers and openers, born `now`. Consumes them: there is no second set.
    pub fn into_transport(self, now: Nanos, provider: Provider) -> Transport {
        let mode: SealMode = self.agreement.seal;
        let to = self.their.index;
        let sealers = (0..self.our_lanes.number())
            .filter_map(Lane::new)
            .map(|lane| Sealer::new(&self.keys.send, lane, to, mode, now, provider))
            .collect();
        let lanes = self.their.offer.lanes.number();
        let openers = Openers::new(&self.keys.receive, lanes, mode, now, provider);
        Transport { sealers, openers }
    }

    /// Whether we began it.
    pub const fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// What was agreed.
    pub const fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// What the peer offered, with its scheme and protocols.
    pub const fn their_offer(&self) -> &Offer {
        &self.their.offer
    }

    /// Who the peer is.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Our index of the session: packets addressed to it are for [`Transport::openers`].
    pub const fn our_index(&self) -> SessionIndex {
        self.ours
    }

    /// The peer's index.
    pub const fn their_index(&self) -> SessionIndex {
        self.their.index
    }

    /// The hash of everything said: the same at both ends, and never the same for two handshakes.
    pub const fn transcript(&self) -> &[u8; KEY_BYTES] {
        &self.transcript
    }
}

/// Protocol name, version, network (wire.md section 4).
fn prologue(network: &NetworkId) -> Vec<u8> {
    let mut bytes = b"strowger link".to_vec();
    bytes.push(VERSION);
    bytes.push(network.as_bytes().len() as u8); // bounded by NetworkId::new
    bytes.extend_from_slice(network.as_bytes());
    bytes
}

/// Judges a response by its length, its address and its mac, in this order, and gives back what the mac
/// covers. Costs a comparison for what is junk, and one short hash else.
fn check_response<'m>(
    message: &'m [u8],
    step: Step,
    index: SessionIndex,
    keys: &cookie::MacKeys,
) -> Result<&'m [u8], Refused> {
    let header = LinkHeader::parse(message).map_err(|_| Refused::Malformed)?;
    if header.kind != Kind::Response || !could_be_handshake(&header, message.len()) {
        return Err(Refused::Malformed);
    }
    if header.index != index || header.lane != step.lane() {
        return Err(Refused::NotOurs);
    }
    keys.check_mac1(message)
}

/// Whether a handshake message with this link header can be so long. For whoever passes messages on: what
/// cannot be one needs no room in any queue, and no hash.
pub const fn could_be_handshake(header: &LinkHeader, len: usize) -> bool {
    let Some(step) = Step::from_lane(header.lane) else { return false };
    match (header.kind, step) {
        (Kind::Initiation, Step::Known | Step::Discover) => len == INITIATION_BYTES,
        (Kind::Initiation, Step::Finish) => {
            len >= cookie::FINISH_BYTES_MIN && len <= INITIATION_BYTES
        }
        (Kind::Response, Step::Known | Step::Discover) => {
            len >= RESPONSE_BYTES_MIN && len <= INITIATION_BYTES
        }
        (Kind::Cookie, _) => len == COOKIE_REPLY_BYTES,
        _ => false,
    }
}

/// Bytes of a response whose hello is empty: a key, a tag and a mac.
const RESPONSE_BYTES_MIN: usize = LINK_HEADER_BYTES + KEY_BYTES + TAG_BYTES + MAC_BYTES;

/// Bytes between link header and macs of an initiation.
const INITIATION_NOISE_BYTES: usize =
    INITIATION_BYTES - LINK_HEADER_BYTES - crate::limits::MACS_BYTES;

impl From<Unreadable> for Refused {
    fn from(_: Unreadable) -> Refused {
        Refused::Unreadable
    }
}

#[cfg(test)]
mod tests;
