//! What two ends tell each other in a handshake, its bytes, and what follows from two of them. Moves no bytes.
//!
//! ```text
//! length of what follows                         2
//! oldest version, newest version                 1, 1
//! suites (bit 0: ChaCha20-Poly1305)              1
//! seal wish (0 full, 1 may, 2 must)              1
//! label widths (bit 0: 64, 1: 128, 2: 256)       1
//! flags (bit 0: the schemes must be the same)    1
//! sending lanes, 1 to 16                         1
//! MTU                                            2
//! sender's session index                         4
//! stamp                                          8
//! identity proof                                 104
//! length of the scheme, the scheme               1, up to 64
//! length of the protocol table, the table        2, up to 512
//! fields of later versions, skipped              the rest of the length
//! padding, all zero                              the rest of the payload
//! ```
//!
//! Integers are big-endian. The parser is total and takes one form only of everything it knows.
//! The Noise transcript covers every byte, so what is altered on the way makes the handshake fail;
//! what two honest ends cannot agree on is a [`Disagreement`].

use core::fmt;

use crate::identity::{IdentityProof, StaticPublic};
use crate::limits::{
    HELLO_BYTES_MAX, IDENTITY_PROOF_BYTES, LANES_MAX, LINK_MTU_MIN, PROTOCOLS_BYTES_MAX,
    SCHEME_BYTES_MAX,
};
use crate::link_header::SessionIndex;
use crate::sealer::SealMode;

/// The newest version of the link protocol that this crate speaks.
pub const VERSION: u8 = 1;

/// The versions an end speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    oldest: u8,
    newest: u8,
}

impl Versions {
    /// What this crate speaks.
    pub const OURS: Versions = Versions { oldest: VERSION, newest: VERSION };

    /// From `oldest` to `newest`; none if that is no range.
    pub const fn new(oldest: u8, newest: u8) -> Option<Versions> {
        if oldest <= newest { Some(Versions { oldest, newest }) } else { None }
    }
}

/// The AEAD suites an end can use, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suites(u8);

impl Suites {
    /// ChaCha20-Poly1305, the one there is today. Others get bits of their own.
    pub const CHACHA20_POLY1305: Suites = Suites(1);
}

/// What an end wants of the seal mode. Plain is not among them: no handshake leads to a plain link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SealWish {
    /// Full, and nothing else.
    Full = 0,
    /// Header-only if the peer asks for it too, else full.
    MayHeaderOnly = 1,
    /// Header-only, or no link.
    MustHeaderOnly = 2,
}

/// The label widths an end can switch, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths(u8);

impl Widths {
    /// Labels of 64 bits.
    pub const W64: Widths = Widths(1);
    /// Labels of 128 bits.
    pub const W128: Widths = Widths(2);
    /// Labels of 256 bits.
    pub const W256: Widths = Widths(4);
    /// All of them.
    pub const ALL: Widths = Widths(7);

    /// Either of two sets.
    #[must_use]
    pub const fn or(self, other: Widths) -> Widths {
        Widths(self.0 | other.0)
    }

    /// Whether this set holds all of `other`.
    pub const fn holds(self, other: Widths) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A list of bytes that is too long for its place in a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too long for the handshake")]
pub struct TooLong;

/// A serialised scheme, opaque here.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SchemeBytes(Vec<u8>);

impl SchemeBytes {
    /// At most [`SCHEME_BYTES_MAX`] bytes.
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

/// A protocol table (wire.md section 6), opaque here.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ProtocolBytes(Vec<u8>);

impl ProtocolBytes {
    /// At most [`PROTOCOLS_BYTES_MAX`] bytes.
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

/// What an end offers and asks for. Valid by construction, so that encoding it cannot fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The versions it speaks.
    pub versions: Versions,
    /// The AEAD suites it has.
    pub suites: Suites,
    /// What it wants of the seal mode.
    pub seal: SealWish,
    /// The label widths it can switch.
    pub widths: Widths,
    /// Whether the link is refused if the schemes differ.
    pub same_scheme: bool,
    /// Lanes that it seals on; see [`Lanes`].
    pub lanes: Lanes,
    /// The longest packet it takes on this link, link header and tag included.
    pub mtu: Mtu,
    /// How it writes slot numbers.
    pub scheme: SchemeBytes,
    /// The protocols it speaks.
    pub protocols: ProtocolBytes,
}

/// A number of lanes, 1 to [`LANES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes(u8);

impl Lanes {
    /// One lane.
    pub const ONE: Lanes = Lanes(1);

    /// This many lanes.
    pub const fn new(number: u8) -> Option<Lanes> {
        if number == 0 || number as usize > LANES_MAX { None } else { Some(Lanes(number)) }
    }

    /// How many.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// The longest packet of a link, at least [`LINK_MTU_MIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(u16);

impl Mtu {
    /// The least that every link carries.
    pub const MIN: Mtu = Mtu(LINK_MTU_MIN);

    /// This many bytes.
    pub const fn new(bytes: u16) -> Option<Mtu> {
        if bytes < LINK_MTU_MIN { None } else { Some(Mtu(bytes)) }
    }

    /// How many bytes.
    pub const fn bytes(self) -> u16 {
        self.0
    }
}

impl Default for Offer {
    /// Full seal, labels of 64 bits, one lane, the smallest MTU, no scheme, no protocols.
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

/// What follows from two offers: the same at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The newest version that both speak.
    pub version: u8,
    /// The suite that both have.
    pub suite: Suites,
    /// How data is sealed.
    pub seal: SealMode,
    /// The label widths that both can switch.
    pub widths: Widths,
    /// The smaller of the two MTUs.
    pub mtu: Mtu,
}

/// Why two offers do not go together. Both ends come to the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Disagreement {
    /// No version that both speak.
    #[error("no version of the protocol that both ends speak")]
    Version,
    /// No suite that both have.
    #[error("no cipher suite that both ends have")]
    Suite,
    /// One wants header-only and the other does not ask for it.
    #[error("one end wants header-only seals and the other does not")]
    SealMode,
    /// No label width that both can switch.
    #[error("no label width that both ends can switch")]
    Width,
    /// One wants the same scheme at both ends, and they differ.
    #[error("the ends have different schemes and one wants them to be the same")]
    Scheme,
}

impl Offer {
    /// What this offer and the peer's lead to. `a.agree(b) == b.agree(a)`.
    pub fn agree(&self, their: &Offer) -> Result<Agreement, Disagreement> {
        let version = self.versions.newest.min(their.versions.newest);
        if version < self.versions.oldest.max(their.versions.oldest) {
            return Err(Disagreement::Version);
        }
        let suites = self.suites.0 & their.suites.0;
        if suites == 0 {
            return Err(Disagreement::Suite);
        }
        let suite = Suites(1 << suites.trailing_zeros());
        use SealWish::{Full, MayHeaderOnly, MustHeaderOnly};
        let seal = match (self.seal, their.seal) {
            (Full, MustHeaderOnly) | (MustHeaderOnly, Full) => return Err(Disagreement::SealMode),
            (Full, _) | (_, Full) => SealMode::Full,
            (MayHeaderOnly | MustHeaderOnly, MayHeaderOnly | MustHeaderOnly) => {
                SealMode::HeaderOnly
            }
        };
        let widths = self.widths.0 & their.widths.0;
        if widths == 0 {
            return Err(Disagreement::Width);
        }
        if (self.same_scheme || their.same_scheme) && self.scheme != their.scheme {
            return Err(Disagreement::Scheme);
        }
        let mtu = self.mtu.min(their.mtu);
        Ok(Agreement { version, suite, seal, widths: Widths(widths), mtu })
    }
}

/// A moment of the sender's clock in nanoseconds, or any number of its that only grows. Orders the
/// initiations of one peer, and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub u64);

/// Why bytes are not a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HelloMalformed {
    /// It ends before its last field, or its length says more than there is.
    #[error("the hello is cut short")]
    Cut,
    /// A field has a value that means nothing.
    #[error("a field of the hello has a value that means nothing")]
    BadField,
    /// The padding is not all zero.
    #[error("the padding of the hello is not zero")]
    BadPadding,
}

/// One end's half of the negotiation, as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What it offers.
    pub offer: Offer,
    /// Under which index it wants to be addressed.
    pub index: SessionIndex,
    /// When it was said; zero from a responder.
    pub stamp: Stamp,
    /// Who it says it is, and that the static key is its own.
    pub proof: IdentityProof,
}

const FIXED_BYTES: usize = 21;
const _: () = assert!(
    HELLO_BYTES_MAX
        == 2 + FIXED_BYTES + IDENTITY_PROOF_BYTES + 1 + SCHEME_BYTES_MAX + 2 + PROTOCOLS_BYTES_MAX
);

impl Hello {
    /// Its bytes, padded with zeros to `padded_bytes` if they are fewer.
    pub fn encode(&self, padded_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0, 0];
        let offer = &self.offer;
        bytes.extend_from_slice(&[
            offer.versions.oldest,
            offer.versions.newest,
            offer.suites.0,
            offer.seal as u8,
            offer.widths.0,
            u8::from(offer.same_scheme),
            offer.lanes.0,
        ]);
        bytes.extend_from_slice(&offer.mtu.0.to_be_bytes());
        bytes.extend_from_slice(&self.index.number().to_be_bytes());
        bytes.extend_from_slice(&self.stamp.0.to_be_bytes());
        bytes.extend_from_slice(&self.proof.0);
        bytes.push(offer.scheme.0.len() as u8); // bounded by SchemeBytes::new
        bytes.extend_from_slice(&offer.scheme.0);
        bytes.extend_from_slice(&(offer.protocols.0.len() as u16).to_be_bytes()); // likewise
        bytes.extend_from_slice(&offer.protocols.0);
        let length = (bytes.len() - 2) as u16;
        bytes[..2].copy_from_slice(&length.to_be_bytes());
        bytes.resize(bytes.len().max(padded_bytes), 0);
        bytes
    }

    /// Reads a payload. Total: any bytes give a hello or an error.
    pub fn parse(payload: &[u8]) -> Result<Hello, HelloMalformed> {
        let mut outer = Reader(payload);
        let length = usize::from(u16::from_be_bytes(outer.take()?));
        let mut fields = Reader(outer.slice(length)?);
        if outer.0.iter().any(|byte| *byte != 0) {
            return Err(HelloMalformed::BadPadding);
        }
        let [oldest, newest, suites, seal, widths, flags, lanes] = fields.take()?;
        let versions = Versions::new(oldest, newest).ok_or(HelloMalformed::BadField)?;
        let seal = match seal {
            0 => SealWish::Full,
            1 => SealWish::MayHeaderOnly,
            2 => SealWish::MustHeaderOnly,
            _ => return Err(HelloMalformed::BadField),
        };
        if flags > 1 {
            return Err(HelloMalformed::BadField);
        }
        let lanes = Lanes::new(lanes).ok_or(HelloMalformed::BadField)?;
        let mtu = Mtu::new(u16::from_be_bytes(fields.take()?)).ok_or(HelloMalformed::BadField)?;
        let index = SessionIndex::new(u32::from_be_bytes(fields.take()?))
            .filter(|index| *index != SessionIndex::NONE)
            .ok_or(HelloMalformed::BadField)?;
        let stamp = Stamp(u64::from_be_bytes(fields.take()?));
        let proof = IdentityProof(fields.take()?);
        let [scheme_length] = fields.take()?;
        let scheme = SchemeBytes::new(fields.slice(usize::from(scheme_length))?);
        let protocols_length = usize::from(u16::from_be_bytes(fields.take()?));
        let protocols = ProtocolBytes::new(fields.slice(protocols_length)?);
        let offer = Offer {
            versions,
            // Bits that this version does not know are the peer's to offer; they are never agreed on.
            suites: Suites(suites),
            widths: Widths(widths),
            seal,
            same_scheme: flags == 1,
            lanes,
            mtu,
            scheme: scheme.map_err(|TooLong| HelloMalformed::BadField)?,
            protocols: protocols.map_err(|TooLong| HelloMalformed::BadField)?,
        };
        Ok(Hello { offer, index, stamp, proof })
    }
}

/// Takes bytes off the front, or says that there are not enough.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], HelloMalformed> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(HelloMalformed::Cut)?;
        self.0 = rest;
        Ok(*first)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], HelloMalformed> {
        let (first, rest) = self.0.split_at_checked(length).ok_or(HelloMalformed::Cut)?;
        self.0 = rest;
        Ok(first)
    }
}

/// The peer of a finished handshake: its two public keys, each proved to be its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The key that its links are made with.
    pub static_key: StaticPublic,
    /// Who it is.
    pub identity: crate::identity::Identity,
}

#[cfg(test)]
mod tests {
    use super::*;

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
            stamp: Stamp(0x0405_0607_0809_0a0b),
            proof: IdentityProof([9; IDENTITY_PROOF_BYTES]),
        }
    }

    #[test]
    fn what_is_encoded_comes_back_at_every_length() {
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
    fn every_cut_and_every_bad_field_is_refused() {
        let bytes = hello(10, 20).encode(0);
        for length in 0..bytes.len() {
            assert_eq!(Hello::parse(&bytes[..length]), Err(HelloMalformed::Cut));
        }
        // The length field made to fit the cut: still cut, inside.
        for length in 0..bytes.len() - 2 {
            let mut cut = bytes[..2 + length].to_vec();
            cut[..2].copy_from_slice(&(length as u16).to_be_bytes());
            assert!(Hello::parse(&cut).is_err(), "{length}");
        }
        let refused = |place: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[place] = value;
            assert_eq!(Hello::parse(&bytes), Err(HelloMalformed::BadField), "{place}: {value}");
        };
        refused(2, 2); // oldest above newest
        refused(5, 3); // seal wish
        refused(7, 2); // flags
        refused(8, 0); // lanes
        refused(8, 17);
        refused(9, 0); // MTU
        refused(11, 1); // index beyond 24 bits
        let mut padded = bytes.clone();
        padded.push(1);
        assert_eq!(Hello::parse(&padded), Err(HelloMalformed::BadPadding));
        let mut nobody = hello(0, 0);
        nobody.index = SessionIndex::NONE;
        assert_eq!(Hello::parse(&nobody.encode(0)), Err(HelloMalformed::BadField));
    }

    #[test]
    fn fields_of_later_versions_are_skipped() {
        let mut bytes = hello(10, 20).encode(0);
        bytes.extend_from_slice(b"later");
        let length = (bytes.len() - 2) as u16;
        bytes[..2].copy_from_slice(&length.to_be_bytes());
        assert_eq!(Hello::parse(&bytes), Ok(hello(10, 20)));
    }

    #[test]
    fn both_ends_come_to_the_same_agreement() {
        let wishes = [SealWish::Full, SealWish::MayHeaderOnly, SealWish::MustHeaderOnly];
        let mut offers = Vec::new();
        for seal in wishes {
            for widths in [1, 2, 5, 7, 8] {
                for versions in [(1, 1), (1, 3), (2, 3), (4, 4)] {
                    for scheme in [&b"a"[..], b"b"] {
                        for same_scheme in [false, true] {
                            offers.push(Offer {
                                seal,
                                widths: Widths(widths),
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
    fn each_disagreement_has_its_name() {
        let ours = Offer::default();
        let their = |change: fn(&mut Offer)| {
            let mut offer = Offer::default();
            change(&mut offer);
            ours.agree(&offer).expect_err("not agreed")
        };
        assert_eq!(
            their(|o| o.versions = Versions { oldest: 2, newest: 9 }),
            Disagreement::Version
        );
        assert_eq!(their(|o| o.suites = Suites(2)), Disagreement::Suite);
        assert_eq!(their(|o| o.seal = SealWish::MustHeaderOnly), Disagreement::SealMode);
        assert_eq!(their(|o| o.widths = Widths::W128), Disagreement::Width);
        let scheme = their(|o| {
            o.same_scheme = true;
            o.scheme = SchemeBytes(vec![1]);
        });
        assert_eq!(scheme, Disagreement::Scheme);
    }
}
