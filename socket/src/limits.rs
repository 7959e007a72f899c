//! The bounds of this crate, and their reasons.

use std::time::Duration;

use strowger_crypto::Nanos;
use strowger_frame::BURST_MAX;

/// Frames in each ring between a socket and its driver, unless the builder sets another number.
///
/// One burst: the driver empties a ring in one call, and a train of 64 frames fits.
pub const RING_DEPTH: usize = BURST_MAX;

/// Maximum number of frames in a ring between a socket and its driver. 4,096 messages of 1,400
/// bytes last for 5 ms at 10 Gbit/s.
pub const RING_DEPTH_MAX: usize = 4_096;

/// Maximum number of sockets of a node: four for each connection that an endpoint may have. Their
/// ready bits are 8 KiB.
pub const SOCKETS_MAX: usize = 65_536;

/// Maximum number of datagram sockets of a node: more than a protocol table has numbers.
pub const DATAGRAM_SOCKETS_MAX: usize = 256;

/// Maximum number of messages that a socket holds in the frames in which they arrived, unless the
/// builder sets another number. Each message may pin a chunk of 68 KiB of a worker's pool.
pub const HOLD_MAX: usize = 256;

/// Maximum number of further messages that a socket holds, as copies in the driver's memory. This
/// is a quarter of [`COPY_CHUNKS`], so that one socket cannot take all.
pub const COPIES_MAX: usize = 256;

/// Chunks of 4 KiB for copies of messages and for packets of the control part: 4 MiB.
pub const COPY_CHUNKS: u32 = 1_024;

/// Chunks of 68 KiB for messages to send, and, with a unix port, for packets that arrive: 17 MiB of
/// address space; only used chunks take memory.
pub const TRAIN_CHUNKS: u32 = 256;

/// Train chunks that only packets from a unix port use, so that messages to send never prevent
/// receiving.
pub const RECEIVE_CHUNKS: u32 = 32;

/// Train chunks that wait in the ring of a socket that sends: while the socket fills one, the
/// driver adds the next one.
pub const CHUNKS_READY: usize = 2;

/// Bytes of the part of a chunk that a new socket gets. A socket that does not send needs no more,
/// and eight of them share a chunk.
pub const FIRST_PART_BYTES: usize = 8_192;

/// Maximum number of transmit buffers of a socket that the program holds. Each may pin a chunk.
pub const TX_BUFFERS_MAX: usize = 2 * BURST_MAX;

/// Bytes of the longest message of a datagram socket. The driver makes its buffers in advance, all
/// of this length, which suffices for packets of up to 2 KiB.
pub const DATAGRAM_BYTES_MAX: usize = 2_048;

/// Requests to the driver that wait. A program that opens thousands of sockets at once fills the
/// queue, and then gets `Busy`.
pub const REQUESTS_MAX: usize = 1_024;

/// Accepted sockets that wait at a listener until the program takes them.
pub const BACKLOG: usize = strowger_connection::limits::BACKLOG as usize;

/// Events that wait for a subscriber. A subscriber that is slower loses the oldest ones.
pub const EVENTS_WAITING: usize = 1_024;

/// Idle polls of the driver before it blocks, as for a worker (`IdlePolicy::ADAPTIVE`): about 20
/// µs.
pub const IDLE_POLLS: u32 = 200;

/// The time after which the driver retries if no descriptor would wake it: when no chunk is free,
/// or when the socket of a unix port is full.
pub const RETRY: Duration = Duration::from_micros(200);

/// The time between attempts to connect to the socket of a unix port whose switch has ended.
pub const RECONNECT: Duration = Duration::from_millis(100);

/// Headroom of the first frame of a chunk. The headroom of each further frame is the tailroom of
/// the frame before it.
pub(crate) const FIRST_HEADROOM: usize = strowger_io::endpoint::HEADROOM_BYTES;

/// Bytes behind a message: the tag of the connection, and the tag of a link.
pub(crate) const TAILROOM: usize = 2 * strowger_wire::limits::TAG_BYTES;

const _: () = assert!(FIRST_HEADROOM >= strowger_connection::HEADROOM_BYTES + 8);
const _: () = assert!(TAILROOM >= strowger_connection::TAILROOM_BYTES + 16);

// Announcements.

/// Seconds for which an announcement is valid. A switch drops an announcement together with its
/// slot, so the time matters only for one that was not withdrawn.
pub const ANNOUNCE_S: u32 = 300;

/// The time after which an accepted announcement is sent again: a third of its validity, so that
/// two may be lost.
pub const ANNOUNCE_AGAIN: Nanos = Nanos::from_secs(ANNOUNCE_S as u64 / 3);

/// The time after which an announcement without an answer is sent again.
pub const ANNOUNCE_RETRY: Nanos = Nanos::from_secs(2);
