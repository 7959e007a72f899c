//! The switch header: the header that every switch on a path reads (wire.md 2).
//!
//! ```text
//!  0               1               2               3
//! +-------+-------+-+-+-+---+-----+---------------+---------------+
//! |version| width |E|C|T|ecn|  0  |  hops left    |  class        |
//! +-------+-------+-+-+-+---+-----+---------------+---------------+
//! |  shift (bits used so far)     |  flow                         |
//! +-------------------------------+-------------------------------+
//! |  label, 8, 16 or 32 bytes                                     |
//! +---------------------------------------------------------------+
//! ```
//! Version is 1. Width is 0, 1 or 2 for labels of 64, 128 or 256 bits; other codes are refused. The
//! three bits drawn as 0 are sent as zero, ignored on receipt, and passed on unchanged. A later use
//! of these bits that switches must support needs another version.
//!
//! [`AnyHeader::parse`] checks all lengths once and returns a view of the packet's bytes.
//! [`HeaderRepr`] has the fields as values; [`HeaderRepr::emit`] writes them.
//!
//! ```
//! use strowger_wire::Label;
//! use strowger_wire::switch_header::{AnyHeader, HeaderError, HeaderRepr};
//!
//! let mut packet = [0; 20];
//! let header = HeaderRepr::new(Label::<u64>::new(0x15), 0, 9);
//! header.emit(&mut packet)?.copy_from_slice(b"data");
//!
//! let AnyHeader::W64(mut read) = AnyHeader::parse(&mut packet)? else { panic!("64 bits") };
//! assert_eq!((read.to_repr(), read.payload()), (header, &b"data"[..]));
//! read.advance(Label::new(0x8000_0000_0000_0001), 4, 8); // what a switch writes
//! assert_eq!(read.hops_left(), 8);
//! # Ok::<(), HeaderError>(())
//! ```

use core::fmt;

use crate::label::Label;
use crate::register::{Register, U256};

/// The version that this crate describes. Headers of other versions are refused.
pub const VERSION: u8 = 1;

/// Bytes before the label.
pub const FIXED_BYTES: usize = 8;

/// Bytes of a header with a 64-bit label.
pub const HEADER_64_BYTES: usize = header_bytes::<u64>();

/// Bytes of the longest header, the one with a 256-bit label.
pub const HEADER_BYTES_MAX: usize = header_bytes::<U256>();

/// Bytes of a header with a label in this register.
#[must_use]
pub const fn header_bytes<R: Register>() -> usize {
    FIXED_BYTES + R::BITS as usize / 8
}

/// Length of the header that begins with this byte, in bytes; `None` if the width code is not
/// defined. This function does not check the version.
#[must_use]
pub const fn header_bytes_of(first: u8) -> Option<usize> {
    match first & field::WIDTH_MASK {
        u64::WIDTH_CODE => Some(header_bytes::<u64>()),
        u128::WIDTH_CODE => Some(header_bytes::<u128>()),
        U256::WIDTH_CODE => Some(header_bytes::<U256>()),
        _ => None,
    }
}

/// The position of each field: byte offsets, and masks within a byte.
mod field {
    pub(super) const VERSION_WIDTH: usize = 0;
    pub(super) const VERSION_SHIFT: u32 = 4;
    pub(super) const WIDTH_MASK: u8 = 0x0f;
    pub(super) const FLAGS: usize = 1;
    pub(super) const NO_ERRORS: u8 = 0x80;
    pub(super) const CONTROL: u8 = 0x40;
    pub(super) const TELEMETRY: u8 = 0x20;
    pub(super) const ECN_SHIFT: u32 = 3;
    pub(super) const ECN_MASK: u8 = 0b11 << ECN_SHIFT;
    pub(super) const HOPS_LEFT: usize = 2;
    pub(super) const CLASS: usize = 3;
    pub(super) const SHIFT: (usize, usize) = (4, 5);
    pub(super) const FLOW: (usize, usize) = (6, 7);
}

// The budget of wire.md 7: with an underlay MTU of 1400 bytes and IPv6 and UDP headers, an IPv6
// packet of the minimum MTU of 1280 bytes fits.
const _: () = {
    const LINK_BYTES: usize = 8 + 16;
    const ENDPOINT_BYTES: usize = 4 + 4 + 1 + 16;
    const OVERHEAD_BYTES_MAX: usize = 1400 - (40 + 8) - 1280;
    assert!(HEADER_64_BYTES == 16 && HEADER_BYTES_MAX == 40);
    assert!(OVERHEAD_BYTES_MAX == 72);
    assert!(LINK_BYTES + HEADER_64_BYTES + ENDPOINT_BYTES == 65);
    assert!(LINK_BYTES + HEADER_64_BYTES + ENDPOINT_BYTES <= OVERHEAD_BYTES_MAX);
};

/// Explicit congestion notification, with the values of RFC 3168.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Ecn {
    /// Not-ECT: the ends do not use ECN.
    #[default]
    NotCapable = 0b00,
    /// ECT(1): the ends use ECN.
    Capable1 = 0b01,
    /// ECT(0): the ends use ECN.
    Capable0 = 0b10,
    /// CE: a switch on the path had a long egress queue.
    Congested = 0b11,
}

impl Ecn {
    /// The value of the two low bits of a byte. Higher bits are ignored.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Ecn {
        match bits & 0b11 {
            0b00 => Ecn::NotCapable,
            0b01 => Ecn::Capable1,
            0b10 => Ecn::Capable0,
            _ => Ecn::Congested,
        }
    }
}

/// The one-bit flags of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Flags {
    /// E: send no error about this packet.
    pub no_errors: bool,
    /// C: the payload is a control message.
    pub control: bool,
    /// T: request telemetry.
    pub telemetry: bool,
}

/// A view of a packet in its buffer: the header and the payload after it.
///
/// Only [`AnyHeader::parse`] makes a view, and it checks all lengths. So accessors do not check
/// lengths and cannot fail.
#[derive(Debug)]
pub struct Header<'a, R: Register = u64> {
    fixed: &'a mut [u8; FIXED_BYTES],
    label: &'a mut R::Bytes,
    payload: &'a mut [u8],
}

/// A header with a label of one of the three widths. [`with_header!`](crate::with_header) runs code
/// that is generic over the width.
#[derive(Debug)]
pub enum AnyHeader<'a> {
    /// A 64-bit label.
    W64(Header<'a, u64>),
    /// A 128-bit label.
    W128(Header<'a, u128>),
    /// A 256-bit label.
    W256(Header<'a, U256>),
}

/// Evaluates an expression with the [`Header`](crate::switch_header::Header) inside an
/// [`AnyHeader`](crate::switch_header::AnyHeader), for any width. The expression is compiled once
/// per width.
///
/// ```
/// use strowger_wire::{switch_header::AnyHeader, with_header};
///
/// let mut packet = [0; 16];
/// packet[0] = 0x10; // version 1, a label of 64 bits
/// packet[2] = 9;
/// let header = AnyHeader::parse(&mut packet)?;
/// assert_eq!(with_header!(header, header => header.hops_left()), 9);
/// # Ok::<(), strowger_wire::switch_header::HeaderError>(())
/// ```
#[macro_export]
macro_rules! with_header {
    ($any:expr, $header:ident => $body:expr) => {
        match $any {
            $crate::switch_header::AnyHeader::W64($header) => $body,
            $crate::switch_header::AnyHeader::W128($header) => $body,
            $crate::switch_header::AnyHeader::W256($header) => $body,
        }
    };
}

impl<'a> AnyHeader<'a> {
    /// Reads the header at the front of a packet. The bytes are not changed.
    ///
    /// # Errors
    /// [`HeaderError`], in this order: too short for the first eight bytes, another version, an
    /// undefined width code, too short for the label, a shift that is not below the label's width.
    #[inline(always)]
    pub fn parse(packet: &'a mut [u8]) -> Result<AnyHeader<'a>, HeaderError> {
        let (fixed, rest) = packet.split_first_chunk_mut().ok_or(HeaderError::TooShort)?;
        let first = fixed[field::VERSION_WIDTH];
        if first >> field::VERSION_SHIFT != VERSION {
            return Err(HeaderError::Version);
        }
        match first & field::WIDTH_MASK {
            u64::WIDTH_CODE => Ok(AnyHeader::W64(Header::over(fixed, rest)?)),
            u128::WIDTH_CODE => Ok(AnyHeader::W128(Header::over(fixed, rest)?)),
            U256::WIDTH_CODE => Ok(AnyHeader::W256(Header::over(fixed, rest)?)),
            _ => Err(HeaderError::Width),
        }
    }
}

impl<'a, R: Register> Header<'a, R> {
    #[inline]
    fn over(fixed: &'a mut [u8; FIXED_BYTES], rest: &'a mut [u8]) -> Result<Self, HeaderError> {
        let (label, payload) = R::split_first(rest).ok_or(HeaderError::TooShort)?;
        let header = Header { fixed, label, payload };
        if u32::from(header.shift()) >= R::BITS {
            return Err(HeaderError::Shift);
        }
        Ok(header)
    }

    /// The label.
    #[inline]
    #[must_use]
    pub fn label(&self) -> Label<R> {
        Label::new(R::from_be_bytes(*self.label))
    }

    /// Bits of the label that have been used; below the label's width.
    #[inline]
    #[must_use]
    pub fn shift(&self) -> u16 {
        let (high, low) = field::SHIFT;
        u16::from_be_bytes([self.fixed[high], self.fixed[low]])
    }

    /// The number of further switches that may process the packet (W2-6).
    #[inline]
    #[must_use]
    pub fn hops_left(&self) -> u8 {
        self.fixed[field::HOPS_LEFT]
    }

    /// The sender's traffic class; switches pass it on.
    #[inline]
    #[must_use]
    pub fn class(&self) -> u8 {
        self.fixed[field::CLASS]
    }

    /// The number of the packet's flow. The sender chooses it and writes it in all packets of the
    /// flow (as in RFC 6437).
    #[inline]
    #[must_use]
    pub fn flow(&self) -> u16 {
        let (high, low) = field::FLOW;
        u16::from_be_bytes([self.fixed[high], self.fixed[low]])
    }

    /// The flags of the header.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags {
            no_errors: self.no_errors(),
            control: self.is_control(),
            telemetry: self.wants_telemetry(),
        }
    }

    /// E: whether no error may be sent about this packet.
    #[inline]
    #[must_use]
    pub fn no_errors(&self) -> bool {
        self.fixed[field::FLAGS] & field::NO_ERRORS != 0
    }

    /// C: whether this is a control message.
    #[inline]
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.fixed[field::FLAGS] & field::CONTROL != 0
    }

    /// T: whether the packet requests telemetry. Trace requests have this flag (W5-41).
    #[inline]
    #[must_use]
    pub fn wants_telemetry(&self) -> bool {
        self.fixed[field::FLAGS] & field::TELEMETRY != 0
    }

    /// The explicit congestion notification.
    #[inline]
    #[must_use]
    pub fn ecn(&self) -> Ecn {
        Ecn::from_bits(self.fixed[field::FLAGS] >> field::ECN_SHIFT)
    }

    /// The payload: the bytes after the header.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.payload
    }

    /// The payload, mutable.
    #[inline]
    #[must_use]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        self.payload
    }

    /// Writes the fields that a switch changes: label, shift and hops left.
    #[inline]
    pub fn advance(&mut self, label: Label<R>, shift: u16, hops_left: u8) {
        self.set_label(label);
        self.set_shift(shift);
        self.set_hops_left(hops_left);
    }

    /// Writes the label.
    #[inline]
    pub fn set_label(&mut self, label: Label<R>) {
        *self.label = label.register().to_be_bytes();
    }

    /// Writes the shift.
    #[inline]
    pub fn set_shift(&mut self, shift: u16) {
        let (high, low) = field::SHIFT;
        [self.fixed[high], self.fixed[low]] = shift.to_be_bytes();
    }

    /// Writes the hops left.
    #[inline]
    pub fn set_hops_left(&mut self, hops_left: u8) {
        self.fixed[field::HOPS_LEFT] = hops_left;
    }

    /// Writes the explicit congestion notification. A switch with a long egress queue writes
    /// [`Ecn::Congested`] if the ends use ECN (W2-19).
    #[inline]
    pub fn set_ecn(&mut self, ecn: Ecn) {
        let flags = &mut self.fixed[field::FLAGS];
        *flags = *flags & !field::ECN_MASK | (ecn as u8) << field::ECN_SHIFT;
    }

    /// The fields as values, copied from the packet.
    #[inline(always)] // a call would force the header into memory on all paths
    #[must_use]
    pub fn to_repr(&self) -> HeaderRepr<R> {
        HeaderRepr {
            flags: self.flags(),
            ecn: self.ecn(),
            hops_left: self.hops_left(),
            class: self.class(),
            shift: self.shift(),
            flow: self.flow(),
            label: self.label(),
        }
    }
}

/// Returns the `hops_left` that a switch writes: one less than the minimum of the packet's
/// `hops_left` and the switch's own maximum (W2-6). Returns `None` if that minimum is zero; then
/// the switch discards the packet (`hops_spent`).
#[inline]
#[must_use]
pub fn hops_behind(hops_left: u8, hops_max: u8) -> Option<u8> {
    hops_left.min(hops_max).checked_sub(1)
}

/// The fields of a header as values, which a sender fills in and [`emit`](HeaderRepr::emit)s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderRepr<R: Register = u64> {
    /// E, C, T.
    pub flags: Flags,
    /// Explicit congestion notification.
    pub ecn: Ecn,
    /// The number of switches that may process the packet, including the last one.
    pub hops_left: u8,
    /// The traffic class.
    pub class: u8,
    /// Bits of the label that have been used.
    pub shift: u16,
    /// The number of the flow, chosen by the sender.
    pub flow: u16,
    /// The label.
    pub label: Label<R>,
}

impl<R: Register> HeaderRepr<R> {
    /// Makes a header with this label, shift and hops left. All other fields are zero.
    #[must_use]
    pub fn new(label: Label<R>, shift: u16, hops_left: u8) -> HeaderRepr<R> {
        HeaderRepr {
            flags: Flags::default(),
            ecn: Ecn::default(),
            hops_left,
            class: 0,
            shift,
            flow: 0,
            label,
        }
    }

    /// The length of the header in bytes: 16, 24 or 40.
    #[inline]
    #[must_use]
    pub const fn wire_bytes(&self) -> usize {
        header_bytes::<R>()
    }

    /// Writes this header to the front of a packet; returns the bytes after it, unchanged.
    ///
    /// # Errors
    /// [`HeaderError::TooShort`] if the packet is too short; [`HeaderError::Shift`] if the shift is
    /// not below the label's width. In both cases nothing is written.
    pub fn emit<'a>(&self, packet: &'a mut [u8]) -> Result<&'a mut [u8], HeaderError> {
        if u32::from(self.shift) >= R::BITS {
            return Err(HeaderError::Shift);
        }
        let (fixed, rest) =
            packet.split_first_chunk_mut::<FIXED_BYTES>().ok_or(HeaderError::TooShort)?;
        let (label, payload) = R::split_first(rest).ok_or(HeaderError::TooShort)?;
        let flag = |set, bit| if set { bit } else { 0 };
        *fixed = [0; FIXED_BYTES];
        fixed[field::VERSION_WIDTH] = VERSION << field::VERSION_SHIFT | R::WIDTH_CODE;
        fixed[field::FLAGS] = flag(self.flags.no_errors, field::NO_ERRORS)
            | flag(self.flags.control, field::CONTROL)
            | flag(self.flags.telemetry, field::TELEMETRY)
            | (self.ecn as u8) << field::ECN_SHIFT;
        fixed[field::HOPS_LEFT] = self.hops_left;
        fixed[field::CLASS] = self.class;
        [fixed[field::SHIFT.0], fixed[field::SHIFT.1]] = self.shift.to_be_bytes();
        [fixed[field::FLOW.0], fixed[field::FLOW.1]] = self.flow.to_be_bytes();
        *label = self.label.register().to_be_bytes();
        Ok(payload)
    }
}

/// Why bytes are not a switch header, or a header cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderError {
    /// There are fewer bytes than the header needs.
    TooShort,
    /// A version other than [`VERSION`].
    Version,
    /// A width code other than 0, 1, 2.
    Width,
    /// A shift that is not less than the label's width.
    Shift,
}

impl HeaderError {
    /// A stable name in snake_case.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            HeaderError::TooShort => "too_short",
            HeaderError::Version => "version",
            HeaderError::Width => "width",
            HeaderError::Shift => "shift",
        }
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeaderError::TooShort => "the packet is shorter than its header",
            HeaderError::Version => "the header has another version",
            HeaderError::Width => "the header names a label width that does not exist",
            HeaderError::Shift => "the shift is as wide as the label",
        })
    }
}

impl core::error::Error for HeaderError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TAG_BYTES;
    use crate::link_header::LINK_HEADER_BYTES;

    fn packet() -> [u8; 20] {
        let mut bytes = [0xee; 20];
        let repr = HeaderRepr::<u64> {
            flags: Flags { no_errors: true, control: false, telemetry: true },
            ecn: Ecn::Capable0,
            hops_left: 30,
            class: 7,
            shift: 0x0021,
            flow: 0xbeef,
            label: Label::new(0x8000_0000_0000_0015),
        };
        assert_eq!(repr.emit(&mut bytes), Ok(&mut [0xee; 4][..]));
        bytes
    }

    fn narrow(bytes: &mut [u8]) -> Header<'_> {
        match AnyHeader::parse(bytes) {
            Ok(AnyHeader::W64(header)) => header,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_bytes_lie_as_they_are_drawn() {
        let drawn = [
            0x10, 0xb0, 30, 7, 0x00, 0x21, 0xbe, 0xef, 0x80, 0, 0, 0, 0, 0, 0, 0x15, 0xee, 0xee,
            0xee, 0xee,
        ];
        assert_eq!(packet(), drawn);
    }

    #[test]
    fn what_is_emitted_is_read_back() {
        let mut bytes = packet();
        let header = narrow(&mut bytes);
        let repr = header.to_repr();
        assert_eq!(header.payload(), [0xee; 4]);
        assert_eq!((repr.shift, repr.flow, repr.hops_left, repr.class), (0x21, 0xbeef, 30, 7));
        let mut again = [0xee; 20];
        assert!(repr.emit(&mut again).is_ok());
        assert_eq!(again, packet());
    }

    /// wire.md: W2-10, W13-11.
    #[test]
    fn a_step_rewrites_label_shift_and_hops_and_nothing_else() {
        let (mut bytes, before) = (packet(), packet());
        bytes[1] |= 0b101;
        narrow(&mut bytes).advance(Label::new(1), 37, 29);
        assert_eq!((bytes[0], bytes[3]), (before[0], before[3]));
        assert_eq!(bytes[1], before[1] | 0b101, "reserved bits pass unchanged");
        assert_eq!((bytes[2], &bytes[4..6]), (29, &[0, 37][..]));
        assert_eq!((&bytes[6..8], &bytes[16..]), (&before[6..8], &before[16..]));
        assert_eq!(bytes[8..16], [0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn congestion_is_marked_beside_the_flags() {
        let mut bytes = packet();
        let mut header = narrow(&mut bytes);
        let flags = header.flags();
        for ecn in [Ecn::Congested, Ecn::NotCapable, Ecn::Capable1, Ecn::Capable0] {
            header.set_ecn(ecn);
            assert_eq!((header.ecn(), header.flags()), (ecn, flags));
        }
    }

    /// wire.md: W2-18.
    #[test]
    fn each_width_has_its_length() {
        for (code, bytes) in [(0, 16), (1, 24), (2, 40)] {
            let mut packet = [0; HEADER_BYTES_MAX];
            packet[0] = VERSION << 4 | code;
            let parsed = |packet: &mut [u8]| AnyHeader::parse(packet).map(|_| ());
            assert_eq!(parsed(&mut packet[..bytes]), Ok(()));
            for short in 0..bytes {
                let wanted = Err(HeaderError::TooShort);
                assert_eq!(parsed(&mut packet[..short]), wanted);
            }
        }
    }

    /// wire.md: W2-1, W2-3.
    #[test]
    fn other_versions_and_widths_are_refused() {
        for first in 0..=u8::MAX {
            let mut bytes = packet();
            bytes[0] = first;
            let wanted = match (first >> 4, first & 0x0f) {
                (1, 0) => Ok(()),
                // The packet is long enough for a header with a 64-bit label only.
                (1, 1 | 2) => Err(HeaderError::TooShort),
                (1, _) => Err(HeaderError::Width),
                _ => Err(HeaderError::Version),
            };
            assert_eq!(AnyHeader::parse(&mut bytes).map(|_| ()), wanted, "{first:#x}");
        }
    }

    /// wire.md: W2-8.
    #[test]
    fn a_shift_past_the_label_is_refused() {
        for (shift, wanted) in [(63, Ok(())), (64, Err(HeaderError::Shift))] {
            let mut bytes = packet();
            bytes[5] = shift;
            assert_eq!(AnyHeader::parse(&mut bytes).map(|_| ()), wanted);
            let repr = HeaderRepr::new(Label::<u64>::here(), u16::from(shift), 1);
            assert_eq!(repr.emit(&mut bytes).map(|_| ()), wanted);
        }
    }

    #[test]
    fn nothing_is_emitted_where_it_does_not_fit() {
        let mut bytes = [0xee; 39];
        let repr = HeaderRepr::new(Label::<U256>::here(), 0, 1);
        assert_eq!(repr.emit(&mut bytes), Err(HeaderError::TooShort));
        assert_eq!(bytes, [0xee; 39]);
    }

    /// wire.md: W2-6, W2-15.
    #[test]
    fn hops_are_capped_and_run_out() {
        assert_eq!(hops_behind(255, 32), Some(31));
        assert_eq!(hops_behind(2, 32), Some(1));
        assert_eq!(hops_behind(1, 32), Some(0));
        assert_eq!(hops_behind(0, 32), None);
        assert_eq!(hops_behind(255, 0), None);
    }

    #[test]
    fn a_minimal_ipv6_packet_fits_an_underlay_of_1400_bytes() {
        // The endpoint session: index, counter, protocol number, tag.
        let endpoint_bytes = 4 + 4 + 1 + TAG_BYTES;
        let overhead_bytes = LINK_HEADER_BYTES + TAG_BYTES + header_bytes::<u64>() + endpoint_bytes;
        assert_eq!(overhead_bytes, 65);
        let (ipv6_bytes, udp_bytes, ipv6_mtu_min) = (40, 8, 1_280);
        assert!(ipv6_bytes + udp_bytes + overhead_bytes + ipv6_mtu_min <= 1_400);
    }
}
