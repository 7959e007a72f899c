//! Handshakes: one type per state. Each state consumes itself and one message; the last one yields
//! keys.
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
//! The bytes of each message follow a link header whose low word is the sender's session index:
//!
//! ```text
//! IK initiation   e 32 | static key 32+16 | hello, padded, +16 | mac1 16 | mac2 16     = 896
//! IK response     e 32 | hello +16 | mac1 16
//! XX initiation   e 32 | zeros 824 | mac1 16 | mac2 16                                 = 896
//! XX response     e 32 | static key 32+16 | hello +16 | mac1 16
//! XX finish       initiator's e 32 | static key 32+16 | hello +16 | mac1 16 | mac2 16
//! ```
//!
//! The prologue holds the protocol's name, its version and the network's name. The Noise transcript
//! covers every byte of a message up to the macs, except the link header. The sender's index in the
//! link header is used only to address a cookie reply. The hello repeats it, covered by the
//! transcript.

mod blake2s;
mod cookie;
mod hello;
pub mod ik;
mod noise;
pub mod xx;

use strowger_wire::hello::{HelloMalformed, Lanes, Timestamp, VERSION};
use strowger_wire::limits::{INITIATION_BYTES, KEY_BYTES, MAC_BYTES, TAG_BYTES};
use strowger_wire::link_header::{Kind, LINK_HEADER_BYTES, Lane, LinkHeader, SessionIndex, Step};

use crate::cipher::Provider;
use crate::entropy::EntropyFailed;
use crate::identity::{IdentityRefused, LocalIdentity, NetworkId, PeerId};
use crate::opener::Openers;
use crate::sealer::{SealMode, Sealer};
use crate::secret::Secret;
use crate::time::Nanos;

pub use cookie::{Admission, Admitted, COOKIE_REPLY_BYTES, Cookie, CookieChecker, Load};
#[cfg(feature = "internals")]
pub use hello::Hello;
#[cfg(not(feature = "internals"))]
use hello::Hello;
pub use hello::{Agreement, Disagreement, Offer, Peer, ProtocolBytes, SchemeBytes, TooLong};
use noise::{Noise, Unreadable};

/// Why the peer's message is refused. The cause is the peer, or the path if it altered the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// Wrong length or form.
    #[error("the handshake message is malformed")]
    Malformed,
    /// Addressed to another session or another step.
    #[error("the message is addressed to another handshake")]
    NotOurs,
    /// mac1 is wrong: the sender does not know our key or our network.
    #[error("mac1 is wrong: the sender does not know our key or network")]
    WrongMac,
    /// mac1 is wrong and the key hint is ours: the sender addresses us under another network name.
    #[error("the message is for our key in another network")]
    OtherNetwork,
    /// Decryption failed: the message is altered, forged, for another network, or made with another
    /// psk.
    #[error("the message cannot be decrypted")]
    Unreadable,
    /// The payload is not a hello.
    #[error(transparent)]
    Hello(#[from] HelloMalformed),
    /// The third message has another session index than the first message of the handshake.
    #[error("the session index differs from that of the first message")]
    OtherIndex,
    /// A replay: the timestamp is not newer than the last one of this peer.
    #[error("the timestamp is not newer than the last one of this peer")]
    Stale,
    /// The identity proof is invalid.
    #[error(transparent)]
    Identity(#[from] IdentityRefused),
    /// The proof of this identity is valid, but another identity is expected.
    #[error("the peer is {0}, which is not the expected identity")]
    OtherIdentity(PeerId),
    /// The proof is valid, but the static key belongs to another peer.
    #[error("the static key belongs to another peer")]
    OtherPeer,
    /// The two offers are incompatible.
    #[error(transparent)]
    Disagreement(#[from] Disagreement),
    /// The message is our own, reflected, or the peer uses our key.
    #[error("the message comes from this node itself")]
    Ourselves,
    /// The list of completed handshakes is full, or no session index is free.
    #[error("too many handshakes for now")]
    Busy,
}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer or the path is at fault.
    #[error("the peer's message was refused: {0}")]
    Peer(#[from] Refused),
    /// This end is at fault.
    #[error("this end failed: {0}")]
    Local(#[from] EntropyFailed),
}

/// A refused message and the state, which continues to wait: a forged message does not end a
/// handshake.
#[derive(Debug)]
pub struct Rejected<S> {
    /// The unchanged state.
    pub state: Box<S>,
    /// Why the message is refused.
    pub why: Refused,
}

/// The input of this end to a handshake.
#[derive(Clone, Copy, Debug)]
pub struct LocalParams<'a> {
    /// Our keys and network.
    pub local: &'a LocalIdentity,
    /// Our offer.
    pub offer: &'a Offer,
    /// The session index that the peer must put into packets to us. It is not
    /// [`SessionIndex::NONE`] and not in use.
    pub index: SessionIndex,
    /// Must be larger than every timestamp sent to this peer before. Responders do not use it.
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

/// The newest timestamp of one peer. Detects replayed initiations.
///
/// The caller stores it with the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimestampGuard {
    /// Newest accepted timestamp, if any.
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

/// A finished handshake: both ends share keys, transcript and agreement.
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

/// The direction keys. [`Established::into_transport`] consumes both.
#[derive(Debug)]
struct Keys {
    send: Secret,
    receive: Secret,
}

/// The data plane's part of a session.
#[derive(Debug)]
pub struct Transport {
    /// One sealer for each lane that we announced, in order.
    pub sealers: Vec<Sealer>,
    /// Opens all lanes that the peer announced.
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

    /// Turns the keys into sealers and openers created at `now`. Consumes the keys.
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

    /// Whether this end initiated the handshake.
    pub(crate) const fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// The agreed parameters.
    pub const fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// The peer's offer, with its scheme and protocols.
    pub(crate) const fn their_offer(&self) -> &Offer {
        &self.their.offer
    }

    /// The peer's keys.
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Our session index: the peer addresses packets for [`Transport::openers`] to it.
    pub const fn our_index(&self) -> SessionIndex {
        self.ours
    }

    /// The peer's session index.
    #[cfg(test)]
    pub(crate) const fn their_index(&self) -> SessionIndex {
        self.their.index
    }

    /// The handshake hash: equal at both ends, and unique to this handshake.
    pub const fn transcript(&self) -> &[u8; KEY_BYTES] {
        &self.transcript
    }
}

/// Protocol name, version and network (wire.md section 4).
fn prologue(network: &NetworkId) -> Vec<u8> {
    let mut bytes = b"strowger link".to_vec();
    bytes.push(VERSION);
    bytes.push(network.as_bytes().len() as u8); // `NetworkId::new` bounds the length
    bytes.extend_from_slice(network.as_bytes());
    bytes
}

/// Checks length, session index and mac of a response, in this order. Returns the bytes that the
/// mac covers.
///
/// Costs one comparison if the length or index is wrong, and one short hash if both are right.
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

/// Whether a handshake message with this link header can have this length.
///
/// Forwarding code drops other lengths before it queues or hashes the message.
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

/// Length of a response with an empty hello: a key, a tag and a mac, in bytes.
const RESPONSE_BYTES_MIN: usize = LINK_HEADER_BYTES + KEY_BYTES + TAG_BYTES + MAC_BYTES;

/// Length between link header and macs of an initiation, in bytes.
const INITIATION_NOISE_BYTES: usize =
    INITIATION_BYTES - LINK_HEADER_BYTES - crate::limits::MACS_BYTES;

impl From<Unreadable> for Refused {
    fn from(_: Unreadable) -> Refused {
        Refused::Unreadable
    }
}

#[cfg(test)]
mod tests;
