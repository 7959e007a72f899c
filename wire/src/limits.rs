//! The bounds of the formats, their reasons, and assertions of the relations between them.

/// Maximum number of forms in a scheme: a form has 1 to 31 data bits, and more than the form before
/// it.
pub const FORMS_MAX: usize = 31;

/// Maximum width of a form, in bits, prefix and data together: a director must leave room in a
/// 64-bit label for the end marker and the three zeros above it (wire.md 1.3; cjdns has the same
/// bound).
pub const FORM_WIDTH_MAX: u8 = 59;

/// Maximum number of index bits of a switch's decoding table. A scheme whose widest form has more
/// bits is decoded with two loads (wire.md 1.1). `v3x5x8` needs exactly this width.
pub const INDEX_BITS_MAX: u32 = 10;

/// Maximum number of index bits of the table of prefixes, for schemes whose forms are too wide for
/// one load. 256 entries of one byte take four cache lines.
pub const PREFIX_INDEX_BITS_MAX: u32 = 8;

/// Upper bound of the length of a serialised scheme, in bytes: 31 forms, each with 10 bits of
/// widths and a prefix of 31 bits.
pub const SERIALIZED_BYTES_MAX: usize = (FORMS_MAX * (10 + 31)).div_ceil(8);

/// Bytes of the authentication tag that ends every sealed packet (wire.md section 3).
pub const TAG_BYTES: usize = 16;

/// Bytes of a symmetric key, of an X25519 key and of an Ed25519 key.
pub const KEY_BYTES: usize = 32;

/// Bytes of an Ed25519 signature (RFC 8032).
pub const SIGNATURE_BYTES: usize = 64;

/// Length of a message authentication code, in bytes: mac1 and mac2 of a handshake message, and the
/// mac of a beacon.
pub const MAC_BYTES: usize = 16;

/// Maximum number of lanes of a link in one direction: the lane is four bits of the link header.
pub const LANES_MAX: usize = 16;

/// Bytes of the first message of every handshake. The length is fixed, so that no reply is longer
/// than its request, and so that the length reveals nothing. An initiation fits into an IPv6 packet
/// of 1280 bytes, with room for tunnel headers.
pub const INITIATION_BYTES: usize = 896;

/// Maximum length of a network's name, in bytes.
pub const NETWORK_ID_BYTES_MAX: usize = 32;

/// Maximum length of a serialised scheme in a handshake, in bytes.
pub const SCHEME_BYTES_MAX: usize = 64;

/// Maximum length of a protocol table in a handshake, in bytes.
pub const PROTOCOLS_BYTES_MAX: usize = 512;

/// Bytes of an encoded identity proof: the libp2p-noise payload with an Ed25519 key and signature.
pub const IDENTITY_PROOF_BYTES: usize = 104;

/// Bytes of a hello in which all fields of a link have their maximum length.
pub const HELLO_BYTES_MAX: usize =
    2 + 21 + IDENTITY_PROOF_BYTES + 1 + SCHEME_BYTES_MAX + 2 + PROTOCOLS_BYTES_MAX;

/// Maximum length of a hello, in bytes: the payload of an IK initiation, which is also that of the
/// longest third message of XX.
pub const HELLO_PAYLOAD_BYTES_MAX: usize =
    INITIATION_BYTES - LINK_HEADER - 2 * KEY_BYTES - 2 * TAG_BYTES - MACS;

/// The smallest MTU that a link may have, link header and tag included.
pub const LINK_MTU_MIN: u16 = 576;

/// The longest control message, in bytes. On a sealed link over IPv6 and UDP, with a 64-bit label,
/// it fits a path MTU of 1,500 bytes. Only a ping or pong can have this length.
pub const CONTROL_BYTES_MAX: usize = 1_400;

/// Maximum length of the text of a goodbye, in bytes.
pub const GOODBYE_TEXT_BYTES_MAX: usize = 128;

/// Bytes of the nonce of a find message. It keys the hash, so hashes of known peers cannot be
/// prepared, and two questions for one peer look unrelated.
pub const FIND_NONCE_BYTES: usize = 16;

/// Bytes of the keyed hash in a find message, as long as the macs of handshakes.
pub const FIND_TAG_BYTES: usize = 16;

/// Maximum number of labels in the answer to a resolve message: as many as a connection keeps as
/// active and standby paths, and one more.
pub const RESOLVED_LABELS_MAX: usize = 4;

/// Bytes that a connection adds to a message: header, protocol number, tag (wire.md 7).
pub const CONNECTION_OVERHEAD_BYTES: usize =
    crate::connection::header::CONNECTION_HEADER_BYTES + 1 + TAG_BYTES;

/// Bytes of the token of a path challenge (RFC 9000, section 8.2).
pub const PATH_TOKEN_BYTES: usize = 8;

/// Bytes of the packet that answers an unknown index: a header, and the header that was received.
pub const UNKNOWN_CONNECTION_BYTES: usize = 2 * crate::connection::header::CONNECTION_HEADER_BYTES;

/// The shortest packet that is answered because its index is unknown. The answer has half its
/// length, so a forged source gains nothing.
pub const UNKNOWN_CONNECTION_CAUSE_BYTES: usize = 32;

/// Minimum length of a protocol name, in bytes: `/` alone is not a name. It is one byte more than a
/// protocol number has, so that one field can hold either.
pub const PROTOCOL_NAME_BYTES_MIN: usize = 2;

/// Maximum length of a protocol name, in bytes. The longest names of libp2p have about 60 bytes.
pub const PROTOCOL_NAME_BYTES_MAX: usize = 128;

/// Maximum number of entries of a protocol table. They have the numbers 1 to 254: protocol number 0
/// denotes control items, and 255 is reserved.
pub const TABLE_ENTRIES_MAX: usize = 254;

/// Maximum length of a protocol table, in bytes. An end stores one table for each peer. A table has
/// room for 254 names of 30 bytes, or for 63 names of 128 bytes.
pub const TABLE_BYTES_MAX: usize = 8_192;

/// Bytes of the id of a connection. The id is random, so that no two connections of a node have the
/// same id.
pub const CONNECTION_ID_BYTES: usize = 8;

/// Bytes of a hash of a protocol table. It detects a difference between what one end sent and the
/// other end stored. Only the two authenticated ends choose the table, so a collision
/// helps no third party.
pub const TABLE_DIGEST_BYTES: usize = 8;

/// Maximum length of the body of a control item, in bytes: the longest frame (9,216 bytes, W2-17)
/// without the headers and tags of link and connection, the switch header, protocol number 0, and
/// the item's op and length.
pub const ITEM_BODY_BYTES_MAX: usize = 9_216
    - LINK_OVERHEAD_BYTES
    - crate::switch_header::HEADER_64_BYTES
    - CONNECTION_OVERHEAD_BYTES
    - crate::connection::item::ITEM_PREFIX_BYTES;

/// Maximum length of the name and version of a program, in bytes.
pub const AGENT_BYTES_MAX: usize = 32;

/// Bytes of the body of an identify item. It is as long as the body of the longest answer, with a
/// label of 256 bits, so that no answer is longer than its question.
pub const IDENTIFY_BYTES: usize = 4 + 32 + AGENT_BYTES_MAX;

const LINK_OVERHEAD_BYTES: usize = LINK_HEADER + TAG_BYTES;
const OVERHEAD_BYTES: usize =
    LINK_OVERHEAD_BYTES + crate::switch_header::HEADER_64_BYTES + CONNECTION_OVERHEAD_BYTES;
const UDP_OVER_IPV4: usize = 20 + 8;
const UDP_OVER_IPV6: usize = 40 + 8;

// The budget of headers (wire.md section 7), and the messages that fit common underlays.
const _: () = assert!(CONNECTION_OVERHEAD_BYTES == 25 && OVERHEAD_BYTES == 65);
const _: () = assert!(1_400 - UDP_OVER_IPV6 - OVERHEAD_BYTES >= 1_280);
const _: () = assert!(1_500 - UDP_OVER_IPV4 - OVERHEAD_BYTES == 1_407);
const _: () = assert!(1_500 - UDP_OVER_IPV6 - OVERHEAD_BYTES == 1_387);
const _: () = assert!(1_400 - UDP_OVER_IPV6 - OVERHEAD_BYTES == 1_287);

// R8: the answer to an unknown index is shorter than its cause.
const _: () = assert!(UNKNOWN_CONNECTION_BYTES < UNKNOWN_CONNECTION_CAUSE_BYTES);
// Every item's length fits its field, and a whole table fits one item.
const _: () = assert!(ITEM_BODY_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(TABLE_BYTES_MAX < ITEM_BODY_BYTES_MAX);
const _: () = assert!(PROTOCOL_NAME_BYTES_MAX <= u8::MAX as usize);

const DH: usize = KEY_BYTES;
const LINK_HEADER: usize = crate::link_header::LINK_HEADER_BYTES;
const MACS: usize = 2 * MAC_BYTES;

// R8: the longest IK initiation fits, and no reply to an initiation is longer than it.
const HELLO: usize = HELLO_PAYLOAD_BYTES_MAX;
const IK_INITIATION: usize = LINK_HEADER + DH + DH + TAG_BYTES + HELLO + TAG_BYTES + MACS;
const IK_RESPONSE: usize = LINK_HEADER + DH + HELLO + TAG_BYTES + MACS;
const XX_RESPONSE: usize = LINK_HEADER + DH + DH + TAG_BYTES + HELLO + TAG_BYTES + MACS;
const XX_FINISH: usize = LINK_HEADER + DH + DH + TAG_BYTES + HELLO + TAG_BYTES + MACS;
const _: () = assert!(IK_INITIATION <= INITIATION_BYTES);
const _: () = assert!(IK_RESPONSE <= INITIATION_BYTES);
const _: () = assert!(XX_RESPONSE <= INITIATION_BYTES);
const _: () = assert!(XX_FINISH <= INITIATION_BYTES);
