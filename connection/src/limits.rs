//! The bounds of this crate, their reasons, and the relations between them.

use crate::bucket::BucketRate;
use strowger_crypto::Nanos;
use strowger_wire::connection::header::CONNECTION_HEADER_BYTES;
use strowger_wire::limits::{INITIATION_BYTES, PATH_TOKEN_BYTES, TAG_BYTES};
use strowger_wire::link_header::LINK_HEADER_BYTES;
use strowger_wire::switch_header::HEADER_BYTES_MAX;

/// The time for which `connect` waits, unless the caller sets another one. Five initiations fit in
/// this time, and the caller gets the error within 10 s.
pub const CONNECT_TIMEOUT: Nanos = Nanos::from_secs(9);

/// Maximum number of accepted sockets that wait in a listener until the program takes them.
pub const BACKLOG: u16 = 128;

/// The time without traffic after which a connection without sockets is closed.
pub const IDLE_TIME_S: u16 = 300;

/// Hops left of a packet on a path of unknown length.
pub const HOPS_LEFT: u8 = 64;

/// Bytes of the longest packet of a port, with its switch header, unless the caller sets another
/// limit. Such a packet fits a sealed link over UDP and IPv6 in an Ethernet frame: 1,500 − 48 − 24.
pub const LONGEST_PACKET: u16 = 1_428;

/// The number of lanes on which this implementation seals: it uses one path at a time.
pub const SENDING_LANES: u8 = 1;

// Protocols.

/// Maximum number of names with which a program opens one socket: versions of one protocol, best
/// first.
pub const NAMES_MAX: usize = 8;

/// The time after which a `table` item without acknowledgement is sent again. The time doubles with
/// each copy, up to [`TABLE_RETRY_MAX`].
pub const TABLE_RETRY: Nanos = Nanos::from_millis(250);

/// The longest time between two copies of a `table` item.
pub const TABLE_RETRY_MAX: Nanos = Nanos::from_secs(8);

/// Number of copies of a `table` item that this end sends without a packet of the peer. After that
/// it waits for a packet, because the peer may be gone.
pub const TABLE_COPIES_MAX: u8 = 8;

// Messages that wait for keys.

/// Maximum number of messages of one connection that wait for keys.
pub const WAITING_MESSAGES_MAX: usize = 64;

/// Maximum number of bytes of all messages of one connection that wait for keys.
pub const WAITING_BYTES_MAX: usize = 64 << 10;

/// The time after which a message that waits for keys is dropped: longer than the default timeout
/// of `connect`.
pub const WAITING_TIME: Nanos = Nanos::from_secs(10);

// Paths.

/// Maximum number of labels of one connection: as many as one lookup gives.
pub const LABELS_MAX: usize = 8;

/// Maximum number of labels along which one initiation goes (RFC 8305 races addresses).
pub const RACED_LABELS_MAX: usize = 3;

/// Bytes of a challenge without padding, from the connection header to the tag. Along a label that
/// is not validated, no longer challenge is sent.
pub const SHORT_CHALLENGE_BYTES: usize = CONNECTION_HEADER_BYTES + PATH_TOKEN_BYTES + TAG_BYTES;

/// Bytes of padding of a challenge along a validated label: a peer to which this end's label is new
/// may then send both its response and its own challenge (as W3-52 for links).
pub const CHALLENGE_PADDING_BYTES: usize = SHORT_CHALLENGE_BYTES;

/// The interval between two short challenges along a label that is not validated and by which no
/// packet came.
pub const SHORT_CHALLENGE_AFTER: Nanos = Nanos::from_secs(1);

/// Number of copies of a challenge; all have the same token.
pub const CHALLENGE_COPIES: u8 = 3;

/// The time between two copies of a challenge is one round trip and this margin, for a slow peer.
pub const CHALLENGE_MARGIN: Nanos = Nanos::from_millis(50);

/// The interval between two copies of a challenge if no round trip is known.
pub const CHALLENGE_AFTER: Nanos = Nanos::from_secs(1);

/// The time after the last copy of a challenge for which a response has an effect.
pub const TOKEN_TIME: Nanos = Nanos::from_secs(5);

/// The shortest silence that makes a path suspect while an answer is due.
pub const SILENCE_MIN: Nanos = Nanos::from_millis(150);

/// As [`SILENCE_MIN`], for one-way traffic, where each silence costs challenges.
pub const SILENCE_ONE_WAY_MIN: Nanos = Nanos::from_secs(1);

/// The longest silence before a path is suspect, with traffic in one or both directions. A peer
/// that answers late raises the measured round trip, and this end must still detect a path failure.
pub const SILENCE_MAX: Nanos = Nanos::from_secs(4);

/// The time without a message or an item of the peer after which traffic is one-way.
pub const ONE_WAY_AFTER: Nanos = Nanos::from_secs(10);

/// The estimate of the round trip before the first measurement (RFC 9002, section 6.2.2).
pub const INITIAL_RTT: Nanos = Nanos::from_millis(333);

/// The shortest interval between two lookups for one connection.
pub const ASK_ROUTING_AFTER: Nanos = Nanos::from_secs(2);

/// Challenges and responses that one connection handles per second (W3-47).
pub const CHALLENGES_HANDLED: u32 = 160;

/// Challenges and responses that one connection handles in one burst.
pub const CHALLENGES_AT_ONCE: u32 = 16;

/// New labels that one connection learns per second.
pub const LABELS_LEARNT: u32 = 1;

/// Hints that one connection handles per second.
pub const HINTS: u32 = 20;

/// The time after a packet went along a label for which an error about it is a hint.
pub const HINT_TIME: Nanos = Nanos::from_secs(5);

/// The times of the copies of a `path` item after the change that it states.
pub const PATH_ITEM_AT: [Nanos; 3] =
    [Nanos::ZERO, Nanos::from_millis(250), Nanos::from_millis(750)];

/// Maximum number of pings of a program without an answer.
pub const PINGS_MAX: usize = 8;

// Lengths of connection packets, from the connection header to the tag.

/// The longest packet before a search, with its switch header. It fits an underlay of 1,280 bytes,
/// the minimum of IPv6 (RFC 8200, section 5), after subtraction of IPv6, UDP, link header and tag.
pub const LENGTH_START_WITH_HEADER: u16 =
    (1_280 - UDP_OVER_IPV6_BYTES - LINK_HEADER_BYTES - TAG_BYTES) as u16;

/// The shortest limit that a search or an error can set: the handshake has shown that its length
/// arrives.
pub const LENGTH_MIN: u16 = INITIATION_BYTES as u16;

/// Number of copies of a challenge of one length (MAX_PROBES of RFC 8899).
pub const LENGTH_TRIES_MAX: u8 = 3;

/// The time between two copies of a challenge of one length (PROBE_TIMER of RFC 8899: at least one
/// second).
pub const LENGTH_TRY_AFTER: Nanos = Nanos::from_secs(1);

/// The time after which the length in use is tried again, while long messages are sent
/// (CONFIRMATION_TIMER).
pub const LENGTH_CONFIRM_AFTER: Nanos = Nanos::from_secs(15);

/// The time after which a longer packet is tried, while messages are sent (PMTU_RAISE_TIMER).
pub const LENGTH_RAISE_AFTER: Nanos = Nanos::from_secs(600);

/// The time for which a search for the length continues after a message.
pub const LENGTH_IN_USE: Nanos = Nanos::from_secs(5);

/// The shortest interval between two reports about one lane.
pub const REPORT_AFTER: Nanos = Nanos::from_secs(1);

// Admission.

/// Initiations that are evaluated in a second if the control part shares the thread of the data
/// path: about a tenth of the thread's time.
pub const INITIATIONS_SHARED: u32 = 200;

/// Initiations that are evaluated in a second if the control part has its own thread.
pub const INITIATIONS_OWN_THREAD: u32 = 2_000;

/// Maximum number of connections of one endpoint.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Maximum number of connections with unknown peers: those not in the address book, to which no
/// program has connected.
pub const UNKNOWN_CONNECTIONS_MAX: usize = 1_024;

/// Answers of kind 7 a second for one ingress slot.
pub const UNKNOWN_ANSWERS: u32 = 20;

const UDP_OVER_IPV6_BYTES: usize = 40 + 8;

const _: () = assert!(SHORT_CHALLENGE_BYTES == 32);
const _: () = assert!(LENGTH_START_WITH_HEADER == 1_208);
// With a label of 256 bits, the start length still fits a handshake.
const _: () = assert!(LENGTH_MIN as usize + HEADER_BYTES_MAX < LENGTH_START_WITH_HEADER as usize);
const _: () = assert!(LONGEST_PACKET > LENGTH_START_WITH_HEADER);
const _: () = assert!(CONNECT_TIMEOUT.0 < WAITING_TIME.0);
const _: () = assert!(RACED_LABELS_MAX < LABELS_MAX && UNKNOWN_CONNECTIONS_MAX < CONNECTIONS_MAX);

// Session indices.

/// Places of the table of session indices at the start.
pub(crate) const INDEX_PLACES_MIN: usize = 1 << 8;

/// Maximum number of places of the table of session indices: four for each connection at the limit,
/// and as many free ones.
pub(crate) const INDEX_PLACES_MAX: usize = 1 << 17;

/// The number of random indices that are tried. If half of the places are used, all tries fail with
/// probability 2^-64.
pub(crate) const INDEX_DRAWS_MAX: usize = 64;

// The control part.

/// Handshake attempts of one connection that are remembered: three wait for responses, and one has
/// just been answered.
pub(crate) const ATTEMPTS_NOTED: usize = strowger_crypto::limits::ATTEMPTS_MAX + 1;

/// Responses with a right mac that are read for one attempt. Any sender that knows the PeerId and
/// the index can make such a response, and each costs some curve operations.
pub(crate) const RESPONSES_READ_PER_ATTEMPT: u8 = 32;

/// Packets of the control part that wait for the driver. Each received packet causes only a few, so
/// a driver that takes them after each call stays far below this limit.
pub(crate) const OUTBOX_MAX: usize = 8_192;

/// Maximum number of events that wait for the program. If there are more, the oldest is dropped.
pub(crate) const EVENTS_MAX: usize = 65_536;

/// The rate of lookups after *slot moved* notices, which are not authenticated and which a switch
/// repeats while the former number is in use.
pub(crate) const SLOT_MOVED_QUESTIONS: BucketRate = BucketRate { per_second: 1, at_once: 1 };
/// The rate of answers to `identify`, for each connection.
pub(crate) const IDENTIFY_ANSWERS: BucketRate = BucketRate { per_second: 4, at_once: 4 };

/// The rate of `unsupported` items, for each connection.
pub(crate) const UNSUPPORTED_ANSWERS: BucketRate = BucketRate { per_second: 8, at_once: 8 };

/// The times of the three transmissions of a goodbye, from its first one on.
pub(crate) const GOODBYE_AFTER: [Nanos; 3] =
    [Nanos::ZERO, Nanos::from_millis(250), Nanos::from_millis(750)];

/// The time after which a closing connection is forgotten.
pub(crate) const GOODBYE_TIME: Nanos = Nanos::from_secs(1);

/// Longest time for which a goodbye keeps its receiver from connecting again.
pub(crate) const RETRY_AFTER_GOODBYE_S_MAX: u32 = 3_600;

/// The time after the last message for which keys are kept fresh.
pub(crate) const IN_USE: Nanos = Nanos::from_secs(60);

/// The time for which a connection that an initiation created waits for its first packet.
pub(crate) const UNPROVEN_TIME: Nanos = Nanos::from_secs(10);

/// The time after which an initiation is sent along the next label (RFC 8305, section 5: 100 ms to
/// 2 s; wire.md W6-14).
pub(crate) const RACE_STAGGER: Nanos = Nanos::from_millis(150);

/// Responses that are kept for copies of their initiations.
pub(crate) const COPIES_KEPT_MAX: usize = 256;

/// The time for which copies of an initiation get the same response (wire.md W6-136).
pub(crate) const COPY_TIME: Nanos = Nanos::from_secs(2);

/// Names of closed sockets for which a goodbye waits until the peer's table has their number. The
/// table arrives about one round trip after the keys, so few names wait.
pub(crate) const CLOSED_NAMES_MAX: usize = 32;

/// Maximum number of goodbyes that are remembered.
pub(crate) const GOODBYES_KEPT_MAX: usize = 1_024;

/// The greatest distance of a counter behind the newest of its lane at which kind 7 has an effect
/// (wire.md W6-143).
pub(crate) const COUNTERS_RECENT: u32 = 4_096;

/// The time after which packets of kind 7 about packets under former keys have no effect (wire.md
/// W6-143).
pub(crate) const SEALED_KNOWN: Nanos = Nanos::from_secs(10);

/// The shortest interval between two handshakes of one connection that kind 7 starts.
pub(crate) const UNKNOWN_HEEDED_AFTER: Nanos = Nanos::from_secs(5);

/// Maximum number of calls of `connect` that wait for the PeerId of an address.
pub(crate) const UNRESOLVED_MAX: usize = 1_024;

/// Maximum number of connections that are compared with an error about one flow. Flows are random
/// numbers of 16 bits, so few connections share one.
pub(crate) const FLOW_USERS_MAX: usize = 8;

/// The time after a connection's packet for which initiations by its return label use the budget of
/// known peers (wire.md W6-188): the lifetime of keys.
pub(crate) const KNOWN_LABEL_TIME: Nanos = Nanos::from_secs(180);

/// Maximum number of labels that stay known after their connections have stopped using them.
pub(crate) const KNOWN_LABELS_KEPT_MAX: usize = 1_024;

/// Maximum number of peers without a connection whose key and table are remembered.
pub(crate) const PEERS_REMEMBERED_MAX: usize = 1_024;

/// Maximum number of identities whose newest timestamp is kept.
pub(crate) const STAMPS_KEPT_MAX: usize = 16_384;

/// Maximum number of results of early messages that are kept.
pub(crate) const EARLY_RESULTS_MAX: usize = 1_024;

/// The time for which results of early messages are kept: twice the allowed difference of clocks.
pub(crate) const EARLY_KEPT: Nanos = Nanos::from_secs(20);

/// The time by which the clocks of two ends may differ, in nanoseconds.
pub(crate) const EARLY_CLOCK_NS: u64 = 10_000_000_000;

/// Maximum number of connections with unknown peers that only an initiation created.
pub(crate) const UNPROVEN_MAX: usize = 1_024;
