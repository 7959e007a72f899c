//! Handshakes: one type per state. Each step consumes the state and one message; the last step
//! yields keys.
//!
//! ```text
//! known peer (IKpsk2, one round trip)
//!   ik::initiate ──► AwaitResponse ── read_response ──► Established ──► Transport
//!   CookieChecker::admit ──► ik::read ──► Initiation ── accept ──► Established ──► Transport
//!
//! discovered peer (XX, one round trip and a half)
//!   xx::initiate, xx::initiate_by_peer_id
//!                ──► AwaitResponse ── read_response ──► Discovered ── finish ──► Established
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
//! Links and connections use the same handshakes; the [`Domain`] of the [`LocalIdentity`] keeps
//! them apart.
//!
//! The prologue holds the protocol's name, its version and the network's name. The Noise transcript
//! covers every byte of a message up to the macs, except the link header. The sender's index in the
//! link header is used only until the hello, which the transcript covers, repeats it.

mod blake2s;
pub(crate) mod cookie;
mod exporter;
mod hello;
pub mod ik;
mod noise;
#[cfg(any(test, feature = "vectors"))]
pub(crate) mod vectors;
pub mod xx;

use strowger_wire::hello::{HelloMalformed, Lanes, Timestamp};
use strowger_wire::limits::{INITIATION_BYTES, KEY_BYTES, MAC_BYTES, TAG_BYTES};
use strowger_wire::link_header::{Kind, LINK_HEADER_BYTES, Lane, LinkHeader, SessionIndex, Step};

use crate::cipher::Provider;
use crate::domain::Domain;
use crate::entropy::EntropyFailed;
use crate::identity::{IdentityRefused, LocalIdentity, PeerId};
use crate::opener::Openers;
use crate::sealer::{SealMode, Sealer};
use crate::secret::Secret;
use crate::time::Nanos;

pub use cookie::{Admission, Admitted, COOKIE_REPLY_BYTES, Cookie, CookieChecker, Load, Way};
pub use exporter::{DirectEnd, Exporter};
#[cfg(feature = "internals")]
pub use hello::Hello;
#[cfg(not(feature = "internals"))]
use hello::Hello;
pub use hello::{
    Agreement, Disagreement, FieldBytes, LISTS_BYTES_MAX, Offer, Peer, ProtocolBytes, SchemeBytes,
    TooLong,
};
use noise::{Noise, Unreadable};

/// Why the peer's message is refused. The cause is usually the peer, or the path if it altered the
/// message.
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
    /// A replay: the timestamp is not newer than the last one of this peer, or this XX handshake
    /// has already been completed.
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
    /// No session index is free.
    #[error("too many handshakes for now")]
    Busy,
    /// The list of completed XX handshakes is full. The peer is not at fault.
    #[error("too many completed handshakes with unknown peers for now")]
    XxMemoryFull,
    /// The scheme, the protocols and the fields of our own offer do not fit into a message. The
    /// caller is at fault, and no message is sent.
    #[error("our own hello is too long for the message")]
    OwnHelloTooLong,
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

/// The refusal of a message, with the state, which continues to wait: a forged message does not end
/// a handshake.
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
    /// A timestamp that is larger than every one sent to this peer before. Responders do not use
    /// it.
    pub timestamp: Timestamp,
}

impl LocalParams<'_> {
    fn hello(&self, timestamp: Timestamp) -> Hello {
        let proof = *self.local.proof();
        Hello { offer: self.offer.clone(), index: self.index, timestamp, proof }
    }

    fn encode_hello(&self, timestamp: Timestamp, padded: usize) -> Result<Vec<u8>, Refused> {
        self.hello(timestamp).encode(padded).map_err(|TooLong| Refused::OwnHelloTooLong)
    }

    fn header(&self, kind: Kind, step: Step, to: SessionIndex) -> Vec<u8> {
        let low = self.index.number();
        LinkHeader { kind, lane: step.lane(), index: to, low }.to_bytes().to_vec()
    }
}

/// The newest accepted timestamp of one peer, which detects replayed initiations.
///
/// The caller stores it with the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimestampGuard {
    /// Newest accepted timestamp, if any.
    pub newest: Option<Timestamp>,
}

impl TimestampGuard {
    /// Whether a message with this timestamp is newer than all accepted ones.
    ///
    /// # Errors
    /// [`Refused::Stale`] if it is not.
    pub fn check(&self, timestamp: Timestamp) -> Result<(), Refused> {
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
    domain: Domain,
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
    /// One sealer per lane that we announced, in order.
    pub sealers: Vec<Sealer>,
    /// Opens all lanes that the peer announced.
    pub openers: Openers,
    /// Derives further secrets from the keys of a connection; `None` for a link.
    pub exporter: Option<Exporter>,
}

impl Established {
    fn new(
        (domain, noise): (Domain, Noise),
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
        Established { domain, initiator, keys, transcript, agreement, ours, our_lanes, their, peer }
    }

    /// Turns the keys into sealers and openers, whose age counts from `now`. Consumes the keys.
    pub fn into_transport(self, now: Nanos, provider: Provider) -> Transport {
        let mode: SealMode = self.agreement.seal;
        let (domain, to) = (self.domain, self.their.index);
        let sealers = (0..self.our_lanes.number())
            .filter_map(Lane::new)
            .map(|lane| Sealer::new((domain, &self.keys.send), lane, to, mode, now, provider))
            .collect();
        let lanes = self.their.offer.lanes.number();
        let receive = (domain, &self.keys.receive);
        let openers = Openers::new(receive, lanes, mode, now, provider);
        let exporter = match domain {
            Domain::Link => None,
            Domain::Connection => Some(Exporter::new(self.direction_keys())),
        };
        Transport { sealers, openers, exporter }
    }

    /// The keys of the two directions: initiator to responder, responder to initiator.
    pub(crate) const fn direction_keys(&self) -> [&Secret; 2] {
        let (send, receive) = (&self.keys.send, &self.keys.receive);
        if self.initiator { [send, receive] } else { [receive, send] }
    }

    /// Whether this end initiated the handshake.
    pub(crate) const fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// The agreed parameters.
    pub const fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// The peer's offer, with its scheme, protocols and fields.
    pub const fn their_offer(&self) -> &Offer {
        &self.their.offer
    }

    /// The timestamp of the peer's hello; zero from a responder.
    pub const fn their_timestamp(&self) -> Timestamp {
        self.their.timestamp
    }

    /// The peer's static key and identity.
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

/// Checks length, session index and mac of a response, in this order. Returns the bytes that the
/// mac covers.
///
/// Costs no hash if the length or index is wrong, and one hash if both are right.
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
/// Workers drop other lengths before they queue the message.
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

/// Length of a response with an empty payload, in bytes: link header, key, tag and mac.
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
