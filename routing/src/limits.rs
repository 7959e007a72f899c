//! The bounds of this crate, their reasons, and the relations between them.

use strowger_wire::limits::PROTOCOL_NAME_BYTES_MAX;

// Addresses.

/// Maximum length of an address as text, in bytes. The longest one that can be printed has
/// [`ADDRESS_PRINTED_BYTES_MAX`]; the rest is room for legacy spellings.
pub const ADDRESS_TEXT_BYTES_MAX: usize = 512;

/// Bytes of the longest address that is printed: an IPv6 address with an embedded IPv4 address (45
/// bytes), two PeerIds (52 bytes each), a label of 256 bits (79 bytes) and a protocol.
pub const ADDRESS_PRINTED_BYTES_MAX: usize = "/ip6/".len()
    + 45
    + "/udp/65535/strowger".len()
    + 2 * ("/p2p/".len() + 52)
    + "/switch/".len()
    + 79
    + PROTOCOL_NAME_BYTES_MAX;

/// Bytes of the longest binary address: IPv6 address, port, two PeerIds, a label of 256 bits and a
/// protocol, each with its code.
pub const ADDRESS_BYTES_MAX: usize =
    (1 + 16) + (2 + 2) + 4 + 2 * (2 + 1 + 38) + (4 + 1 + 32) + (4 + 2 + PROTOCOL_NAME_BYTES_MAX);

/// Bytes of the longest varint that is read. The largest code has four; larger codes do not exist
/// in addresses.
pub(crate) const VARINT_BYTES_MAX: usize = 4;

const _: () = assert!(ADDRESS_PRINTED_BYTES_MAX <= ADDRESS_TEXT_BYTES_MAX);
// Lookups.

/// Maximum number of candidates in one result. A connection keeps at most eight labels.
pub const CANDIDATES_MAX: usize = 8;

/// Maximum number of paths to one candidate: three that are held, and one more to choose from.
pub const PATHS_MAX: usize = 4;

/// Maximum number of questions that wait to be sent. A lookup asks at most 16 neighbours at a time.
pub const QUESTIONS_MAX: usize = 64;

// The address book.

/// Maximum length of an address book, in bytes. Files that people write are shorter.
pub const BOOK_BYTES_MAX: usize = 4 << 20;

/// Maximum number of entries of an address book: the maximum number of configured peers of a relay.
pub const BOOK_ENTRIES_MAX: usize = 8_192;

/// Maximum length of a name in an address book, in bytes: one label of a host name has at most 63,
/// and a name of a peer in a relay's configuration has at most 64.
pub const BOOK_NAME_BYTES_MAX: usize = 63;

/// Seconds for which a route of the address book that has failed comes after the others.
pub const FAILED_ROUTE_S: u64 = 30;

/// The cost that a failure adds to a route: more than the highest cost of a route of an entry.
pub(crate) const FAILED_ROUTE_LAST: u32 = 1_000;

const _: () = assert!(FAILED_ROUTE_LAST as usize > CANDIDATES_MAX);

// Combinators.

/// Maximum number of routes that [`Both`](crate::combine::Both) gives for one lookup; it remembers
/// each route, so that it returns none twice.
pub const UNION_ROUTES_MAX: usize = 64;

/// Maximum time in seconds for which [`Cached`](crate::combine::Cached) remembers that nothing was
/// found. The time is short, so that a new peer is found soon.
pub const NOT_FOUND_S: u64 = 10;

/// Maximum number of prefixes of this node's segments: more than the addresses of a host's
/// interfaces.
pub const SEGMENTS_MAX: usize = 64;

// Questions to switches.

/// Seconds to wait for the answer to a question: longer than any round trip to a neighbour.
pub const ASK_REPLY_S: u64 = 1;

/// The number of times that a question is sent to the own switch, which is one hop away, so that
/// loss is rare.
pub const ASK_TRIES: u8 = 3;

/// Maximum number of lookups in progress at a source that asks switches. Each has at least one
/// question, and the queue of questions has as many places.
pub const LOOKUPS_ASKED_MAX: usize = QUESTIONS_MAX;

/// Maximum number of neighbours that are asked at a time. A switch answers 32 questions at once
/// from one link.
pub const NEIGHBOURS_ASKED_MAX: usize = 16;

/// Seconds after which a lookup at neighbours ends, even if not all were asked. At 16 neighbours a
/// second it has asked 480 silent ones.
pub const ASK_NEIGHBOURS_S: u64 = 30;

/// Seconds for which a neighbour that does not have a peer is not asked for it again.
pub const NOT_HERE_S: u64 = 30;

/// Maximum number of pairs of peer and neighbour that are remembered as "not here": about 200 KiB.
pub const NOT_HERE_MAX: usize = 4_096;

const _: () = assert!(NEIGHBOURS_ASKED_MAX <= QUESTIONS_MAX);

// Null routing.

/// Seconds for which null routing waits for a link that it has requested: as long as one attempt of
/// a handshake waits for its response.
pub const LINK_OPEN_S: u64 = 10;

/// Seconds after a failure for which null routing does not request the link again.
pub const LINK_RETRY_S: u64 = 30;
