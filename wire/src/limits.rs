//! Every length and bound of the formats, its reason, and the asserts between them.

/// Maximum number of forms in a scheme: each form has more data bits than the one before it, from 1
/// to 31.
pub const FORMS_MAX: usize = 31;

/// The widest form, in bits, prefix and data together: a director must leave room in a 64-bit label
/// for the end marker and the three zeros above it (wire.md 1.3; cjdns has the same bound).
pub const FORM_WIDTH_MAX: u8 = 59;

/// The widest decoding table of a switch, in index bits (wire.md 1.1: "the label's low ten bits at
/// most"). `v3x5x8` needs this width.
pub const INDEX_BITS_MAX: u32 = 10;

/// The widest table of prefixes, in index bits, for schemes whose forms are too wide for one load:
/// 256 entries, so that the table stays in four cache lines of bytes.
pub const PREFIX_INDEX_BITS_MAX: u32 = 8;

/// The longest serialisation of a scheme, in bytes: 31 forms of 10 bits and a prefix of 31.
pub const SERIALIZED_BYTES_MAX: usize = (FORMS_MAX * (10 + 31)).div_ceil(8);

/// Bytes of the authentication tag that ends every sealed packet (wire.md section 3).
pub const TAG_BYTES: usize = 16;

/// Bytes of a symmetric key, of an X25519 key and of an Ed25519 key.
pub const KEY_BYTES: usize = 32;

/// Bytes of an Ed25519 signature (RFC 8032).
pub const SIGNATURE_BYTES: usize = 64;

/// Bytes of each mac in a handshake message and of the one that ends a beacon.
pub const MAC_BYTES: usize = 16;

/// Lanes a link can have in one direction: the lane is four bits of the link header.
pub const LANES_MAX: usize = 16;

/// Bytes of every handshake initiation. The length is fixed, so that no reply can be longer than
/// its request, and so that the length reveals nothing. An initiation fits into an IPv6 packet of
/// 1280 bytes, with room for tunnel headers.
pub const INITIATION_BYTES: usize = 896;

/// Maximum length of a network's name, in bytes.
pub const NETWORK_ID_BYTES_MAX: usize = 32;

/// Maximum length of a serialised scheme in a handshake, in bytes.
pub const SCHEME_BYTES_MAX: usize = 64;

/// Maximum length of a protocol table in a handshake, in bytes.
pub const PROTOCOLS_BYTES_MAX: usize = 512;

/// Bytes of an encoded identity proof: the libp2p-noise payload with an Ed25519 key and signature.
pub const IDENTITY_PROOF_BYTES: usize = 104;

/// Bytes of a hello in which all fields have their maximum length.
pub const HELLO_BYTES_MAX: usize =
    2 + 21 + IDENTITY_PROOF_BYTES + 1 + SCHEME_BYTES_MAX + 2 + PROTOCOLS_BYTES_MAX;

/// The smallest MTU that a link may have, link header and tag included.
pub const LINK_MTU_MIN: u16 = 576;

/// The longest control message, in bytes. It fits a path MTU of 1,500 bytes. Only a ping or pong
/// can have this length.
pub const CONTROL_BYTES_MAX: usize = 1_400;

/// The longest text of a goodbye.
pub const GOODBYE_TEXT_BYTES_MAX: usize = 128;

const DH: usize = KEY_BYTES;
const LINK_HEADER: usize = crate::link_header::LINK_HEADER_BYTES;
const MACS: usize = 2 * MAC_BYTES;

// R8: the longest IK initiation fits, and no reply to an initiation is longer than it.
const IK_INITIATION: usize = LINK_HEADER + DH + DH + TAG_BYTES + HELLO_BYTES_MAX + TAG_BYTES + MACS;
const IK_RESPONSE: usize = LINK_HEADER + DH + HELLO_BYTES_MAX + TAG_BYTES + MACS;
const XX_RESPONSE: usize = LINK_HEADER + DH + DH + TAG_BYTES + HELLO_BYTES_MAX + TAG_BYTES + MACS;
const _: () = assert!(IK_INITIATION <= INITIATION_BYTES);
const _: () = assert!(IK_RESPONSE <= INITIATION_BYTES);
const _: () = assert!(XX_RESPONSE <= INITIATION_BYTES);
