//! Offers, and the agreement of two offers, in the format of [`strowger_wire::hello`].
//!
//! Two incompatible offers result in a [`Disagreement`].

use core::fmt;

use strowger_wire::hello as wire;
use strowger_wire::hello::{
    HelloMalformed, Lanes, Mtu, SealWish, Suites, Timestamp, Versions, Widths,
};
use strowger_wire::limits::{PROTOCOLS_BYTES_MAX, SCHEME_BYTES_MAX};
use strowger_wire::link_header::SessionIndex;

use crate::identity::{IdentityProof, StaticPublic};
use crate::sealer::SealMode;

/// A list of bytes is too long for its field in a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too long for the handshake")]
pub struct TooLong;

/// A serialised scheme, opaque to this crate.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SchemeBytes(Vec<u8>);

impl SchemeBytes {
    /// Copies at most [`SCHEME_BYTES_MAX`] bytes.
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
    /// Copies at most [`PROTOCOLS_BYTES_MAX`] bytes.
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

/// Capabilities and requirements of one end. Valid by construction, so encoding it cannot fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Protocol versions.
    pub versions: Versions,
    /// AEAD suites.
    pub suites: Suites,
    /// The seal mode that this end asks for.
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
    /// Protocols of this end.
    pub protocols: ProtocolBytes,
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
    /// Combines this offer with the offer of the peer. Symmetric: `a.agree(b) == b.agree(a)`.
    pub fn agree(&self, their: &Offer) -> Result<Agreement, Disagreement> {
        let version = self.versions.newest_common(their.versions).ok_or(Disagreement::Version)?;
        let suite = self.suites.first_common(their.suites).ok_or(Disagreement::Suite)?;
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
    pub fn encode(&self, padded_bytes: usize) -> Vec<u8> {
        let Offer { versions, suites, seal, widths, same_scheme, lanes, mtu, scheme, protocols } =
            &self.offer;
        let fields = wire::Hello {
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
        };
        let mut bytes = vec![0; fields.wire_bytes().max(padded_bytes)];
        fields.emit(&mut bytes).expect("the buffer is large enough, and `new` bounds both lists");
        bytes
    }

    /// Parses a payload. Total: any bytes give a hello or an error.
    pub fn parse(payload: &[u8]) -> Result<Hello, HelloMalformed> {
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
        } = wire::Hello::parse(payload)?;
        let (scheme, protocols) = (SchemeBytes(scheme.to_vec()), ProtocolBytes(protocols.to_vec()));
        let offer =
            Offer { versions, suites, seal, widths, same_scheme, lanes, mtu, scheme, protocols };
        Ok(Hello { offer, index, timestamp, proof: IdentityProof(*proof) })
    }
}

/// The peer of a finished handshake: two public keys, both proved.
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

    #[test]
    fn a_hello_survives_encoding_at_every_length() {
        for scheme in [0, 1, SCHEME_BYTES_MAX] {
            for protocols in [0, 1, PROTOCOLS_BYTES_MAX] {
                for padded in [0, 200, 760] {
                    let hello = hello(scheme, protocols);
                    let bytes = hello.encode(padded);
                    assert!(bytes.len() >= padded);
                    assert_eq!(Hello::parse(&bytes), Ok(hello));
                }
            }
        }
        let longest = hello(SCHEME_BYTES_MAX, PROTOCOLS_BYTES_MAX).encode(0);
        assert_eq!(longest.len(), HELLO_BYTES_MAX);
    }

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
                    let asked = |offer: &Offer| offer.seal != SealWish::Full;
                    let both = asked(one) && asked(other);
                    assert_eq!(agreed.seal == SealMode::HeaderOnly, both);
                    assert!(one.widths.holds(agreed.widths) && other.widths.holds(agreed.widths));
                    assert_eq!(agreed.mtu, one.mtu.min(other.mtu));
                }
            }
        }
    }

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
