//! Offers, and the agreement of two offers, in the format of [`strowger_wire::hello`].
//!
//! Two incompatible offers result in a [`Disagreement`].

use core::fmt;

use strowger_wire::connection::hello_field::HelloFieldError;
use strowger_wire::connection::{HelloFields as ConnectionFields, TableEntries};
use strowger_wire::hello as wire;
use strowger_wire::hello::{
    HelloMalformed, Lanes, Mtu, SealWish, Suites, Timestamp, Versions, Widths,
};
use strowger_wire::limits::{HELLO_PAYLOAD_BYTES_MAX, PROTOCOLS_BYTES_MAX, SCHEME_BYTES_MAX};
use strowger_wire::link_header::SessionIndex;

use crate::domain::Domain;
use crate::identity::{IdentityProof, StaticPublic};
use crate::limits::CONNECTION_LANES_MAX;
use crate::sealer::SealMode;

/// A list of bytes is too long for its field in a hello, or all lists together are too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too long for the handshake")]
pub struct TooLong;

/// A serialised scheme, opaque to this crate.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SchemeBytes(Vec<u8>);

impl SchemeBytes {
    /// Copies these bytes. Fails if there are more than [`SCHEME_BYTES_MAX`].
    pub fn new(bytes: &[u8]) -> Result<SchemeBytes, TooLong> {
        if bytes.len() > SCHEME_BYTES_MAX { Err(TooLong) } else { Ok(SchemeBytes(bytes.to_vec())) }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SchemeBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SchemeBytes({})", self.0.escape_ascii())
    }
}

/// A protocol table (wire.md section 6), opaque to this crate.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ProtocolBytes(Vec<u8>);

impl ProtocolBytes {
    /// Copies these bytes. Fails if there are more than [`PROTOCOLS_BYTES_MAX`].
    pub fn new(bytes: &[u8]) -> Result<ProtocolBytes, TooLong> {
        let fits = bytes.len() <= PROTOCOLS_BYTES_MAX;
        if fits { Ok(ProtocolBytes(bytes.to_vec())) } else { Err(TooLong) }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ProtocolBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProtocolBytes({})", self.0.escape_ascii())
    }
}

/// Bytes of a hello without scheme, protocol table and fields (W4-4).
const HELLO_BYTES_MIN: usize = 130;

/// Maximum length of scheme, protocol table and fields together, in bytes: what the shortest hello
/// leaves of a message.
pub const LISTS_BYTES_MAX: usize = HELLO_PAYLOAD_BYTES_MAX - HELLO_BYTES_MIN;

/// The fields behind the protocol table in the hello of a connection (wire.md W6-17), as
/// [`HelloFields`](ConnectionFields) writes and parses them. This crate does not act on them.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct FieldBytes(Vec<u8>);

impl FieldBytes {
    /// Copies these bytes. Fails if there are more than [`LISTS_BYTES_MAX`].
    pub fn new(bytes: &[u8]) -> Result<FieldBytes, TooLong> {
        if bytes.len() > LISTS_BYTES_MAX { Err(TooLong) } else { Ok(FieldBytes(bytes.to_vec())) }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Shows the length only, because a field may be an early message.
impl fmt::Debug for FieldBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FieldBytes({} bytes)", self.0.len())
    }
}

/// Capabilities and requirements of one end. Each field is valid by construction; only the total
/// length must be checked (`check_length`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Protocol versions.
    pub versions: Versions,
    /// AEAD suites.
    pub suites: Suites,
    /// The seal mode that this end requests. In a connection, the field has another meaning:
    /// [`accepts_pass_through`](Self::accepts_pass_through).
    pub seal: SealWish,
    /// Label widths that this end can switch.
    pub widths: Widths,
    /// Whether this end refuses the link if the schemes differ.
    pub same_scheme: bool,
    /// The number of lanes on which this end seals; see [`Lanes`].
    pub lanes: Lanes,
    /// Longest packet that this end accepts on the link, in bytes, link header and tag included.
    pub mtu: Mtu,
    /// The scheme that encodes this end's slot numbers.
    pub scheme: SchemeBytes,
    /// The protocol table of this end.
    pub protocols: ProtocolBytes,
    /// Fields behind the protocol table. Only connections have them.
    ///
    /// Scheme, protocols and fields must fit into one message together; otherwise the handshake
    /// fails with [`Refused::OwnHelloTooLong`](super::Refused::OwnHelloTooLong).
    pub fields: FieldBytes,
}

impl Default for Offer {
    /// Full seal, 64-bit labels, one lane, the smallest MTU, no scheme, no protocols.
    fn default() -> Offer {
        Offer {
            versions: Versions::OURS,
            suites: Suites::CHACHA20_POLY1305,
            seal: SealWish::Full,
            widths: Widths::W64,
            same_scheme: false,
            lanes: Lanes::ONE,
            mtu: Mtu::MIN,
            scheme: SchemeBytes::default(),
            protocols: ProtocolBytes::default(),
            fields: FieldBytes::default(),
        }
    }
}

/// The parameters that result from two offers; equal at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Newest common version.
    pub version: u8,
    /// Common suite.
    pub suite: Suites,
    /// Seal mode of data packets.
    pub seal: SealMode,
    /// Common label widths.
    pub widths: Widths,
    /// The smaller of the two MTUs.
    pub mtu: Mtu,
}

/// Why two offers are incompatible. Both ends get the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Disagreement {
    /// No common version.
    #[error("the ends have no protocol version in common")]
    Version,
    /// No common suite.
    #[error("the ends have no cipher suite in common")]
    Suite,
    /// One end requires header-only and the other does not offer it.
    #[error("one end demands header-only seals and the other does not offer them")]
    SealMode,
    /// No common label width.
    #[error("the ends have no label width in common")]
    Width,
    /// One end requires equal schemes, and they differ.
    #[error("the ends have different schemes and one of them demands equal ones")]
    Scheme,
}

impl Offer {
    /// Checks that scheme, protocols and fields fit into one message.
    pub fn check_length(&self) -> Result<(), TooLong> {
        let Offer { scheme, protocols, fields, .. } = self;
        let lists = scheme.0.len() + protocols.0.len() + fields.as_bytes().len();
        if lists > LISTS_BYTES_MAX { Err(TooLong) } else { Ok(()) }
    }

    /// Bytes of memory behind this value.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.scheme.0.capacity() + self.protocols.0.capacity() + self.fields.0.capacity()
    }

    /// Whether this end of a connection accepts pass-through messages: the meaning of the seal wish
    /// in the hello of a connection (wire.md W6-17). Each end decides for its own direction.
    pub fn accepts_pass_through(&self) -> bool {
        self.seal == SealWish::MayHeaderOnly
    }

    /// Combines two offers for a handshake of this domain. Connections have no header-only mode.
    pub(crate) fn agree_in(
        &self,
        domain: Domain,
        their: &Offer,
    ) -> Result<Agreement, Disagreement> {
        let agreed = self.agree(their)?;
        Ok(match domain {
            Domain::Link => agreed,
            Domain::Connection => Agreement { seal: SealMode::Full, ..agreed },
        })
    }

    /// Combines this offer with the offer of the peer, for a link. The order does not matter:
    /// `a.agree(b) == b.agree(a)`.
    pub fn agree(&self, their: &Offer) -> Result<Agreement, Disagreement> {
        let version = self.versions.newest_common(their.versions).ok_or(Disagreement::Version)?;
        let suite = self.suites.best_common(their.suites).ok_or(Disagreement::Suite)?;
        use SealWish::{Full, MayHeaderOnly, MustHeaderOnly};
        let seal = match (self.seal, their.seal) {
            (Full, MustHeaderOnly) | (MustHeaderOnly, Full) => return Err(Disagreement::SealMode),
            (Full, _) | (_, Full) => SealMode::Full,
            (MayHeaderOnly | MustHeaderOnly, MayHeaderOnly | MustHeaderOnly) => {
                SealMode::HeaderOnly
            }
        };
        let widths = self.widths.common(their.widths).ok_or(Disagreement::Width)?;
        if (self.same_scheme || their.same_scheme) && self.scheme != their.scheme {
            return Err(Disagreement::Scheme);
        }
        let mtu = self.mtu.min(their.mtu);
        Ok(Agreement { version, suite, seal, widths, mtu })
    }
}

/// One end's part of the negotiation, as encoded in a handshake message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's offer.
    pub offer: Offer,
    /// The session index that the peer must put into packets to the sender.
    pub index: SessionIndex,
    /// Time of sending; zero from a responder.
    pub timestamp: Timestamp,
    /// The sender's identity, and its signature over the static key.
    pub proof: IdentityProof,
}

impl Hello {
    /// Encodes the hello, padded with zeros to `padded_bytes`.
    ///
    /// # Errors
    /// The scheme, the protocols and the fields together do not fit into a message.
    pub fn encode(&self, padded_bytes: usize) -> Result<Vec<u8>, TooLong> {
        let Offer {
            versions,
            suites,
            seal,
            widths,
            same_scheme,
            lanes,
            mtu,
            scheme,
            protocols,
            fields,
        } = &self.offer;
        let hello = wire::Hello {
            versions: *versions,
            suites: *suites,
            seal: *seal,
            widths: *widths,
            same_scheme: *same_scheme,
            lanes: *lanes,
            mtu: *mtu,
            index: self.index,
            timestamp: self.timestamp,
            proof: &self.proof.0,
            scheme: &scheme.0,
            protocols: &protocols.0,
            later: fields.as_bytes(),
        };
        self.offer.check_length()?;
        let mut bytes = vec![0; hello.wire_bytes().max(padded_bytes)];
        hello.emit(&mut bytes).expect("the buffer is large enough, and the lists are bounded");
        Ok(bytes)
    }

    /// Parses a payload. Returns a hello or an error for any bytes.
    ///
    /// In the hello of a link, what follows the protocol table is skipped (W4-46). In the hello of
    /// a connection it is kept, and some values are refused (W6-17).
    pub fn parse(domain: Domain, payload: &[u8]) -> Result<Hello, HelloMalformed> {
        let hello = wire::Hello::parse(payload)?;
        let fields = match domain {
            Domain::Link => FieldBytes::default(),
            Domain::Connection => {
                let is_allowed = hello.seal != SealWish::MustHeaderOnly
                    && !hello.same_scheme
                    && hello.scheme.is_empty()
                    && hello.lanes.number() <= CONNECTION_LANES_MAX
                    && hello.wire_bytes() <= HELLO_PAYLOAD_BYTES_MAX;
                if !is_allowed {
                    return Err(HelloMalformed::BadField);
                }
                // The table itself is for the caller (W6-70).
                TableEntries::parse(hello.protocols).map_err(|_| HelloMalformed::BadField)?;
                ConnectionFields::parse(hello.later).map_err(|why| match why {
                    HelloFieldError::Cut => HelloMalformed::Cut,
                    HelloFieldError::Twice | HelloFieldError::BadValue => HelloMalformed::BadField,
                })?;
                FieldBytes(hello.later.to_vec())
            }
        };
        let wire::Hello {
            versions,
            suites,
            seal,
            widths,
            same_scheme,
            lanes,
            mtu,
            index,
            timestamp,
            proof,
            scheme,
            protocols,
            later: _,
        } = hello;
        let (scheme, protocols) = (SchemeBytes(scheme.to_vec()), ProtocolBytes(protocols.to_vec()));
        let offer = Offer {
            versions,
            suites,
            seal,
            widths,
            same_scheme,
            lanes,
            mtu,
            scheme,
            protocols,
            fields,
        };
        Ok(Hello { offer, index, timestamp, proof: IdentityProof(*proof) })
    }
}

/// The peer of a finished handshake: two public keys, both authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer's X25519 static key.
    pub static_key: StaticPublic,
    /// Ed25519 identity of the peer.
    pub identity: crate::identity::Identity,
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger_wire::limits::{HELLO_BYTES_MAX, IDENTITY_PROOF_BYTES};

    pub(crate) fn hello(scheme: usize, protocols: usize) -> Hello {
        Hello {
            offer: Offer {
                seal: SealWish::MayHeaderOnly,
                widths: Widths::W64.or(Widths::W256),
                same_scheme: true,
                lanes: Lanes::new(5).expect("1 to 16"),
                mtu: Mtu::new(1400).expect("large enough"),
                scheme: SchemeBytes::new(&vec![3; scheme]).expect("short"),
                protocols: ProtocolBytes::new(&vec![4; protocols]).expect("short"),
                ..Offer::default()
            },
            index: SessionIndex::new(0x010203).expect("24 bits"),
            timestamp: Timestamp(0x0405_0607_0809_0a0b),
            proof: IdentityProof([9; IDENTITY_PROOF_BYTES]),
        }
    }

    /// wire.md: W6-28.
    #[test]
    fn a_hello_of_a_connection_has_at_most_760_bytes() {
        // A field of an unknown type, which a receiver skips, makes the hello this long.
        let with = |bytes: usize| {
            let offer = Offer { lanes: Lanes::ONE, ..Offer::default() };
            let mut encoded = Hello { offer, ..hello(0, 0) }.encode(0).expect("short");
            let length = bytes - encoded.len() - 3;
            encoded.push(0xee);
            encoded.extend_from_slice(&(length as u16).to_be_bytes());
            encoded.resize(bytes, 7);
            encoded[..2].copy_from_slice(&((bytes - 2) as u16).to_be_bytes());
            Hello::parse(Domain::Connection, &encoded).map(|_| ())
        };
        assert_eq!(with(759), Ok(()));
        assert_eq!(with(760), Ok(()));
        assert_eq!(with(761), Err(HelloMalformed::BadField));
    }

    /// wire.md: W4-46.
    #[test]
    fn a_hello_survives_encoding_at_every_length() {
        for scheme in [0, 1, SCHEME_BYTES_MAX] {
            for protocols in [0, 1, PROTOCOLS_BYTES_MAX] {
                for padded in [0, 200, 760] {
                    let hello = hello(scheme, protocols);
                    let bytes = hello.encode(padded).expect("fits");
                    assert!(bytes.len() >= padded);
                    assert_eq!(Hello::parse(Domain::Link, &bytes), Ok(hello));
                }
            }
        }
        let longest = hello(SCHEME_BYTES_MAX, PROTOCOLS_BYTES_MAX).encode(0).expect("fits");
        assert_eq!(longest.len(), HELLO_BYTES_MAX);
    }

    /// wire.md: W4-62, W13-3.
    #[test]
    fn both_ends_reach_the_same_agreement() {
        let wishes = [SealWish::Full, SealWish::MayHeaderOnly, SealWish::MustHeaderOnly];
        let mut offers = Vec::new();
        for seal in wishes {
            for widths in [1, 2, 5, 7, 8] {
                for versions in [(1, 1), (1, 3), (2, 3), (4, 4)] {
                    for scheme in [&b"a"[..], b"b"] {
                        for same_scheme in [false, true] {
                            offers.push(Offer {
                                seal,
                                widths: Widths::from_bits(widths),
                                versions: Versions::new(versions.0, versions.1).expect("a range"),
                                scheme: SchemeBytes::new(scheme).expect("short"),
                                same_scheme,
                                mtu: Mtu::new(1000 + u16::from(widths)).expect("large enough"),
                                ..Offer::default()
                            });
                        }
                    }
                }
            }
        }
        for one in &offers {
            for other in &offers {
                let agreed = one.agree(other);
                assert_eq!(agreed, other.agree(one));
                if let Ok(agreed) = agreed {
                    let allows_less = |offer: &Offer| offer.seal != SealWish::Full;
                    let both = allows_less(one) && allows_less(other);
                    assert_eq!(agreed.seal == SealMode::HeaderOnly, both);
                    assert!(one.widths.holds(agreed.widths) && other.widths.holds(agreed.widths));
                    assert_eq!(agreed.mtu, one.mtu.min(other.mtu));
                }
            }
        }
    }

    /// wire.md: W4-51, W4-62.
    #[test]
    fn each_disagreement_has_its_reason() {
        let ours = Offer::default();
        let their = |change: fn(&mut Offer)| {
            let mut offer = Offer::default();
            change(&mut offer);
            ours.agree(&offer).expect_err("not agreed")
        };
        assert_eq!(
            their(|o| o.versions = Versions::new(2, 9).expect("a range")),
            Disagreement::Version
        );
        assert_eq!(their(|o| o.suites = Suites::from_bits(2)), Disagreement::Suite);
        assert_eq!(their(|o| o.seal = SealWish::MustHeaderOnly), Disagreement::SealMode);
        assert_eq!(their(|o| o.widths = Widths::W128), Disagreement::Width);
        let scheme = their(|o| {
            o.same_scheme = true;
            o.scheme = SchemeBytes(vec![1]);
        });
        assert_eq!(scheme, Disagreement::Scheme);
    }
}
