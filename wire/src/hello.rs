//! The hello: the fields in which each end of a handshake describes itself (wire.md section 4,
//! W4-4).
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
//! timestamp                                     8
//! identity proof                                 104
//! length of the scheme, the scheme               1, up to 64
//! length of the protocol table, the table        2, up to 512
//! fields that follow the table                   the rest of the length
//! padding, all zero                              the rest of the payload
//! ```
//!
//! Integers are big-endian. The Noise transcript covers every byte. This module reads and writes
//! the fields; it neither checks the identity proof nor negotiates.
//!
//! ```
//! use strowger_wire::hello::{Hello, Lanes, Mtu, SealWish, Timestamp, Suites, Versions, Widths};
//! use strowger_wire::limits::{HELLO_BYTES_MAX, IDENTITY_PROOF_BYTES};
//! use strowger_wire::link_header::SessionIndex;
//!
//! let hello = Hello {
//!     versions: Versions::OURS,
//!     suites: Suites::CHACHA20_POLY1305,
//!     seal: SealWish::Full,
//!     widths: Widths::W64,
//!     same_scheme: false,
//!     lanes: Lanes::ONE,
//!     mtu: Mtu::new(1400).unwrap(),
//!     index: SessionIndex::new(7).unwrap(),
//!     timestamp: Timestamp(1),
//!     proof: &[0; IDENTITY_PROOF_BYTES],
//!     scheme: b"",
//!     protocols: b"",
//!     later: b"",
//! };
//! let mut payload = [0; HELLO_BYTES_MAX];
//! hello.emit(&mut payload).unwrap(); // the zeros after it are the padding
//! assert_eq!(Hello::parse(&payload), Ok(hello));
//! ```

use core::fmt;

use crate::fields::{Reader, Writer};
use crate::limits::{
    HELLO_BYTES_MAX, HELLO_PAYLOAD_BYTES_MAX, IDENTITY_PROOF_BYTES, LANES_MAX, LINK_MTU_MIN,
    PROTOCOLS_BYTES_MAX, SCHEME_BYTES_MAX,
};
use crate::link_header::SessionIndex;

/// The newest version of the link protocol that this crate describes.
pub const VERSION: u8 = 1;

/// Bytes from the oldest version to the timestamp.
const FIXED_BYTES: usize = 21;

const _: () = assert!(
    HELLO_BYTES_MAX
        == 2 + FIXED_BYTES + IDENTITY_PROOF_BYTES + 1 + SCHEME_BYTES_MAX + 2 + PROTOCOLS_BYTES_MAX
);
const _: () = assert!(SCHEME_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(HELLO_BYTES_MAX <= HELLO_PAYLOAD_BYTES_MAX);
const _: () = assert!(HELLO_PAYLOAD_BYTES_MAX <= u16::MAX as usize);

/// The versions of the link protocol that an end supports, from the oldest to the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    oldest: u8,
    newest: u8,
}

impl Versions {
    /// The versions that this crate describes.
    pub const OURS: Versions = Versions { oldest: VERSION, newest: VERSION };

    /// The versions from `oldest` to `newest`; `None` if `oldest` is above `newest`.
    #[must_use]
    pub const fn new(oldest: u8, newest: u8) -> Option<Versions> {
        if oldest <= newest { Some(Versions { oldest, newest }) } else { None }
    }

    /// The oldest version.
    #[must_use]
    pub const fn oldest(self) -> u8 {
        self.oldest
    }

    /// The newest version.
    #[must_use]
    pub const fn newest(self) -> u8 {
        self.newest
    }

    /// The newest version that both ends support, if there is one.
    #[must_use]
    pub fn newest_common(self, other: Versions) -> Option<u8> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

/// The AEAD suites that an end can use, one bit per suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suites(u8);

impl Suites {
    /// ChaCha20-Poly1305 (RFC 8439), the only suite that is defined.
    pub const CHACHA20_POLY1305: Suites = Suites(1);

    /// The suites with these bits. Bits that this version does not know are kept.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Suites {
        Suites(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The suite whose bit is the highest one that is set in both, if there is one. An offer of this
    /// version sets only bits of suites that it implements, so a bit that it does not know is never
    /// chosen.
    #[must_use]
    pub fn best_common(self, other: Suites) -> Option<Suites> {
        let common = self.0 & other.0;
        common.checked_ilog2().map(|bit| Suites(1 << bit))
    }
}

/// The seal mode that an end requests (wire.md section 3). There is no value for plain, because a
/// plain link has no handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SealWish {
    /// Full only.
    Full = 0,
    /// Header-only if the peer also requests it; otherwise full.
    MayHeaderOnly = 1,
    /// Header-only. If the peer does not agree, there is no link.
    MustHeaderOnly = 2,
}

impl SealWish {
    /// The wish with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<SealWish> {
        match number {
            0 => Some(SealWish::Full),
            1 => Some(SealWish::MayHeaderOnly),
            2 => Some(SealWish::MustHeaderOnly),
            _ => None,
        }
    }
}

/// The label widths that an end can switch, one bit per width (wire.md 1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths(u8);

impl Widths {
    /// Labels of 64 bits.
    pub const W64: Widths = Widths(1);
    /// Labels of 128 bits.
    pub const W128: Widths = Widths(2);
    /// Labels of 256 bits.
    pub const W256: Widths = Widths(4);
    /// All three widths.
    pub const ALL: Widths = Widths(7);

    /// The widths with these bits. Bits that this version does not know are kept.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Widths {
        Widths(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The union of two sets.
    #[must_use]
    pub const fn or(self, other: Widths) -> Widths {
        Widths(self.0 | other.0)
    }

    /// The widths that are in both sets; `None` if there is none.
    #[must_use]
    pub fn common(self, other: Widths) -> Option<Widths> {
        let common = self.0 & other.0;
        (common != 0).then_some(Widths(common))
    }

    /// Whether this set contains every width of `other`.
    #[must_use]
    pub const fn holds(self, other: Widths) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The number of lanes on which an end seals: 1 to [`LANES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes(u8);

impl Lanes {
    /// One lane.
    pub const ONE: Lanes = Lanes(1);

    /// This number of lanes; `None` for 0 and above [`LANES_MAX`].
    #[must_use]
    pub const fn new(number: u8) -> Option<Lanes> {
        if number == 0 || number as usize > LANES_MAX { None } else { Some(Lanes(number)) }
    }

    /// The number of lanes.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// The longest packet of a link in bytes, link header and tag included: at least [`LINK_MTU_MIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(u16);

impl Mtu {
    /// The MTU that every link must support.
    pub const MIN: Mtu = Mtu(LINK_MTU_MIN);

    /// The MTU of this many bytes; `None` below [`LINK_MTU_MIN`].
    #[must_use]
    pub const fn new(bytes: u16) -> Option<Mtu> {
        if bytes < LINK_MTU_MIN { None } else { Some(Mtu(bytes)) }
    }

    /// The MTU in bytes.
    #[must_use]
    pub const fn bytes(self) -> u16 {
        self.0
    }
}

/// The time of the sender's clock in nanoseconds, or any other number that the sender only
/// increases. It is used only to order the initiations of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

/// The fields of a hello, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The versions that the sender supports.
    pub versions: Versions,
    /// The AEAD suites that the sender supports.
    pub suites: Suites,
    /// The seal mode that the sender requests.
    pub seal: SealWish,
    /// The label widths that the sender can switch.
    pub widths: Widths,
    /// Whether the sender refuses the link if the schemes differ.
    pub same_scheme: bool,
    /// The number of lanes on which the sender seals.
    pub lanes: Lanes,
    /// The longest packet that the sender accepts on this link.
    pub mtu: Mtu,
    /// The session index that the other end must put into packets to this sender; not
    /// [`SessionIndex::NONE`].
    pub index: SessionIndex,
    /// The time of sending; zero in the hello of a responder.
    pub timestamp: Timestamp,
    /// The sender's Ed25519 key and its signature over the X25519 static key (W4-5). This module
    /// does not check them.
    pub proof: &'a [u8; IDENTITY_PROOF_BYTES],
    /// The sender's scheme for slot numbers, serialised
    /// ([`Scheme::parse`](crate::scheme::Scheme::parse)); at most [`SCHEME_BYTES_MAX`] bytes. This
    /// module does not parse it.
    pub scheme: &'a [u8],
    /// The protocols that the sender supports (wire.md section 6); at most [`PROTOCOLS_BYTES_MAX`]
    /// bytes. This module does not parse them.
    pub protocols: &'a [u8],
    /// The bytes after the protocol table: the fields of a connection (wire.md W6-17), or those of
    /// a later version. This module does not parse them.
    pub later: &'a [u8],
}

impl<'a> Hello<'a> {
    /// Reads the payload of a handshake message. Returns a hello or an error for any bytes. Each
    /// value of a field has exactly one encoding.
    ///
    /// # Errors
    /// [`HelloMalformed`].
    pub fn parse(payload: &'a [u8]) -> Result<Hello<'a>, HelloMalformed> {
        use HelloMalformed::{BadField, BadPadding, Cut};
        let mut outer = Reader(payload);
        let length = outer.u16().ok_or(Cut)?;
        let mut fields = Reader(outer.slice(usize::from(length)).ok_or(Cut)?);
        if outer.0.iter().any(|byte| *byte != 0) {
            return Err(BadPadding);
        }
        let [oldest, newest, suites, seal, widths, flags, lanes] = *fields.take().ok_or(Cut)?;
        let versions = Versions::new(oldest, newest).ok_or(BadField)?;
        let seal = SealWish::from_number(seal).ok_or(BadField)?;
        if flags > 1 {
            return Err(BadField);
        }
        let lanes = Lanes::new(lanes).ok_or(BadField)?;
        let mtu = Mtu::new(fields.u16().ok_or(Cut)?).ok_or(BadField)?;
        let index = SessionIndex::new(fields.u32().ok_or(Cut)?)
            .filter(|index| *index != SessionIndex::NONE)
            .ok_or(BadField)?;
        let timestamp = Timestamp(fields.u64().ok_or(Cut)?);
        let proof = fields.take().ok_or(Cut)?;
        let scheme_bytes = usize::from(fields.u8().ok_or(Cut)?);
        let scheme = fields.slice(scheme_bytes).ok_or(Cut)?;
        let protocols_bytes = usize::from(fields.u16().ok_or(Cut)?);
        let protocols = fields.slice(protocols_bytes).ok_or(Cut)?;
        if scheme.len() > SCHEME_BYTES_MAX || protocols.len() > PROTOCOLS_BYTES_MAX {
            return Err(BadField);
        }
        Ok(Hello {
            versions,
            suites: Suites(suites),
            seal,
            widths: Widths(widths),
            same_scheme: flags == 1,
            lanes,
            mtu,
            index,
            timestamp,
            proof,
            scheme,
            protocols,
            later: fields.0,
        })
    }

    /// The length of this hello without padding, in bytes.
    #[must_use]
    pub const fn wire_bytes(&self) -> usize {
        let fixed = 2 + FIXED_BYTES + IDENTITY_PROOF_BYTES + 1 + 2;
        fixed + self.scheme.len() + self.protocols.len() + self.later.len()
    }

    /// Writes this hello to the front of `out`; returns the rest of `out`, unchanged. For padding,
    /// the caller leaves zeros there.
    ///
    /// # Errors
    /// [`HelloTooLong`] if `out` is too short, if the scheme or the protocol table is too long, or
    /// if the hello is longer than [`HELLO_PAYLOAD_BYTES_MAX`]. In this case nothing is written.
    pub fn emit<'o>(&self, out: &'o mut [u8]) -> Result<&'o mut [u8], HelloTooLong> {
        let are_bounded = self.scheme.len() <= SCHEME_BYTES_MAX
            && self.protocols.len() <= PROTOCOLS_BYTES_MAX
            && self.wire_bytes() <= HELLO_PAYLOAD_BYTES_MAX;
        if !are_bounded || out.len() < self.wire_bytes() {
            return Err(HelloTooLong);
        }
        self.write(Writer(out)).map(|left| left.0).ok_or(HelloTooLong)
    }

    /// The caller has checked the lengths, so no cast truncates.
    fn write<'o>(&self, out: Writer<'o>) -> Option<Writer<'o>> {
        out.put(&((self.wire_bytes() - 2) as u16).to_be_bytes())?
            .put(&[self.versions.oldest, self.versions.newest])?
            .put(&[self.suites.0, self.seal as u8, self.widths.0])?
            .put(&[u8::from(self.same_scheme), self.lanes.0])?
            .put(&self.mtu.0.to_be_bytes())?
            .put(&self.index.number().to_be_bytes())?
            .put(&self.timestamp.0.to_be_bytes())?
            .put(self.proof)?
            .put(&[self.scheme.len() as u8])?
            .put(self.scheme)?
            .put(&(self.protocols.len() as u16).to_be_bytes())?
            .put(self.protocols)?
            .put(self.later)
    }
}

/// Why bytes are not a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HelloMalformed {
    /// The hello ends before its last field, or its length field exceeds the input.
    Cut,
    /// A field has a value that is not defined.
    BadField,
    /// The padding is not all zero.
    BadPadding,
}

impl fmt::Display for HelloMalformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HelloMalformed::Cut => "the hello is cut short",
            HelloMalformed::BadField => "a field of the hello has a value that means nothing",
            HelloMalformed::BadPadding => "the padding of the hello is not zero",
        })
    }
}

impl core::error::Error for HelloMalformed {}

/// A hello does not fit the buffer, or the hello or one of its fields exceeds its maximum length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HelloTooLong;

impl fmt::Display for HelloTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the hello, its scheme or its protocol table is too long")
    }
}

impl core::error::Error for HelloTooLong {}

#[cfg(test)]
mod tests {
    use strowger_testkit::wire_md::example;

    use super::*;

    /// wire.md: W4-62.
    #[test]
    fn the_suite_is_the_highest_common_one() {
        let best = |ours, theirs| Suites(ours).best_common(Suites(theirs)).map(Suites::bits);
        assert_eq!(best(0b001, 0b111), Some(0b001));
        assert_eq!(best(0b011, 0b111), Some(0b010));
        assert_eq!(best(0b1000_0001, 0b1000_0001), Some(0b1000_0000));
        assert_eq!(best(0b010, 0b101), None);
    }

    const ROOM: [u8; 2 * HELLO_BYTES_MAX] = [0; 2 * HELLO_BYTES_MAX];

    fn hello<'a>(scheme: &'a [u8], protocols: &'a [u8]) -> Hello<'a> {
        Hello {
            versions: Versions::OURS,
            suites: Suites::CHACHA20_POLY1305,
            seal: SealWish::MayHeaderOnly,
            widths: Widths::W64.or(Widths::W256),
            same_scheme: true,
            lanes: Lanes::new(5).expect("1 to 16"),
            mtu: Mtu::new(1400).expect("large enough"),
            index: SessionIndex::new(0x010203).expect("24 bits"),
            timestamp: Timestamp(0x0405_0607_0809_0a0b),
            proof: &[9; IDENTITY_PROOF_BYTES],
            scheme,
            protocols,
            later: b"",
        }
    }

    /// The bytes of this hello at the front of a larger buffer, and their number.
    fn written(hello: &Hello<'_>) -> ([u8; 2 * HELLO_BYTES_MAX], usize) {
        let mut room = ROOM;
        let left = hello.emit(&mut room).expect("room").len();
        (room, ROOM.len() - left)
    }

    /// wire.md: W4-46.
    #[test]
    fn what_is_emitted_is_read_back_at_every_length() {
        for scheme in [0, 1, SCHEME_BYTES_MAX] {
            for protocols in [0, 1, PROTOCOLS_BYTES_MAX] {
                let hello = hello(&[3; SCHEME_BYTES_MAX][..scheme], &[4; 512][..protocols]);
                let (bytes, length) = written(&hello);
                assert_eq!(length, hello.wire_bytes());
                for padded in [length, length + 1, bytes.len()] {
                    assert_eq!(Hello::parse(&bytes[..padded]), Ok(hello));
                }
                let mut short = ROOM;
                assert_eq!(hello.emit(&mut short[..length - 1]), Err(HelloTooLong));
            }
        }
        let longest = hello(&[3; SCHEME_BYTES_MAX], &[4; PROTOCOLS_BYTES_MAX]);
        assert_eq!(longest.wire_bytes(), HELLO_BYTES_MAX);
    }

    /// wire.md: W4-45.
    #[test]
    fn fields_that_are_too_long_are_neither_written_nor_read() {
        let mut room = ROOM;
        assert_eq!(hello(&[0; SCHEME_BYTES_MAX + 1], b"").emit(&mut room), Err(HelloTooLong));
        assert_eq!(hello(b"", &[0; PROTOCOLS_BYTES_MAX + 1]).emit(&mut room), Err(HelloTooLong));
        let (mut bytes, _) = written(&hello(b"", b""));
        bytes[..2].copy_from_slice(&1000u16.to_be_bytes());
        bytes[2 + FIXED_BYTES + IDENTITY_PROOF_BYTES] = SCHEME_BYTES_MAX as u8 + 1;
        assert_eq!(Hello::parse(&bytes), Err(HelloMalformed::BadField));
    }

    /// wire.md: W4-45, W4-47, W4-49, W4-51, W4-52, W4-53, W4-54, W13-13.
    #[test]
    fn every_cut_and_every_bad_field_is_refused() {
        let (room, length) = written(&hello(&[3; 10], &[4; 20]));
        let bytes = &room[..length];
        for length in 0..bytes.len() {
            assert_eq!(Hello::parse(&bytes[..length]), Err(HelloMalformed::Cut));
        }
        // The length field is adjusted to the shorter input, so the hello now ends inside a field.
        for length in 0..bytes.len() - 2 {
            let mut cut = room;
            cut[..2].copy_from_slice(&(length as u16).to_be_bytes());
            assert!(Hello::parse(&cut[..2 + length]).is_err(), "{length}");
        }
        let refused = |place: usize, value: u8| {
            let mut room = room;
            room[place] = value;
            let read = Hello::parse(&room[..length]);
            assert_eq!(read, Err(HelloMalformed::BadField), "{place}: {value}");
        };
        refused(2, 2); // oldest above newest
        refused(5, 3); // seal wish
        refused(7, 2); // flags
        refused(8, 0); // lanes
        refused(8, 17);
        refused(9, 0); // MTU
        refused(11, 1); // index beyond 24 bits
        let mut padded = room;
        padded[length] = 1;
        assert_eq!(Hello::parse(&padded[..=length]), Err(HelloMalformed::BadPadding));
        let no_index = Hello { index: SessionIndex::NONE, ..hello(b"", b"") };
        assert_eq!(Hello::parse(&written(&no_index).0), Err(HelloMalformed::BadField));
    }

    /// wire.md: W4-4, W4-5.
    #[test]
    fn the_example_has_its_fields_at_their_offsets() {
        let bytes = example("hello-a");
        let proof: [u8; IDENTITY_PROOF_BYTES] =
            example("identity-proof-a").try_into().expect("104");
        let wanted = Hello {
            versions: Versions { oldest: 1, newest: 1 },
            suites: Suites(1),
            seal: SealWish::Full,
            widths: Widths(7),
            same_scheme: false,
            lanes: Lanes(2),
            mtu: Mtu(9_216),
            index: SessionIndex::new(0x0a_0b0c).expect("24 bits"),
            timestamp: Timestamp(1_700_000_000_000_000_000),
            proof: &proof,
            scheme: &[0x61, 0x14, 0x45, 0x81, 0x00],
            protocols: b"",
            later: b"",
        };
        assert_eq!(Hello::parse(&bytes), Ok(wanted));
        let (room, length) = written(&wanted);
        assert_eq!(room[..length], bytes);
    }

    /// wire.md: W4-47, W4-48, W4-49, W4-50, W4-51, W4-52, W4-53, W4-54, W13-13.
    #[test]
    fn each_field_is_refused_just_outside_of_its_values() {
        let (room, length) = written(&hello(b"", b""));
        let is_read = |at: usize, value: &[u8]| {
            let mut room = room;
            room[at..at + value.len()].copy_from_slice(value);
            match Hello::parse(&room[..length]) {
                Ok(_) => true,
                Err(why) => {
                    assert_eq!(why, HelloMalformed::BadField, "{at}: {value:?}");
                    false
                }
            }
        };
        let bytes = |at: usize| (0..=255_u8).filter(|value| is_read(at, &[*value])).count();
        assert!(is_read(2, &[7, 7]) && is_read(2, &[0, 255]) && !is_read(2, &[8, 7]));
        assert_eq!(bytes(4), 256, "suites: bits without a meaning are accepted");
        assert_eq!((bytes(5), is_read(5, &[2])), (3, true), "seal wish");
        assert_eq!(bytes(6), 256, "widths: bits without a meaning are accepted");
        assert_eq!((bytes(7), is_read(7, &[1])), (2, true), "flags");
        assert_eq!((bytes(8), is_read(8, &[0]), is_read(8, &[16])), (16, false, true), "lanes");
        for (mtu, is_right) in [(0, false), (575, false), (576, true), (u16::MAX, true)] {
            assert_eq!(is_read(9, &mtu.to_be_bytes()), is_right, "MTU {mtu}");
        }
        for (index, is_right) in [(0, false), (1, true), (0xff_ffff, true), (1_u32 << 24, false)] {
            assert_eq!(is_read(11, &index.to_be_bytes()), is_right, "index {index}");
        }
    }

    /// wire.md: W4-46, W13-9.
    #[test]
    fn fields_after_the_protocol_table_are_kept_as_bytes() {
        let hello = hello(&[3; 10], &[4; 20]);
        let (mut bytes, length) = written(&hello);
        bytes[length..length + 5].copy_from_slice(b"later");
        bytes[..2].copy_from_slice(&((length + 5 - 2) as u16).to_be_bytes());
        let later = Hello { later: b"later", ..hello };
        assert_eq!(Hello::parse(&bytes), Ok(later));
        assert_eq!(written(&later), (bytes, length + 5));
    }

    #[test]
    fn a_hello_longer_than_the_payload_of_an_initiation_is_not_written() {
        let most = HELLO_PAYLOAD_BYTES_MAX - hello(b"", b"").wire_bytes();
        let later = [7; HELLO_PAYLOAD_BYTES_MAX];
        let with = |bytes: usize| Hello { later: &later[..bytes], ..hello(b"", b"") };
        let mut room = ROOM;
        assert_eq!(with(most).wire_bytes(), HELLO_PAYLOAD_BYTES_MAX);
        assert!(with(most).emit(&mut room).is_ok());
        assert_eq!(with(most + 1).emit(&mut room), Err(HelloTooLong));
    }
}
