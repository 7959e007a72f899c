//! The limits of the UDP ports, each with its reason.

use strowger_frame::{
    BURST_MAX,
    pool::{HEADROOM_BYTES, TRAIN_DATA_BYTES},
};

/// The largest UDP payload over IPv4: 65,535 bytes less 20 of IP header and 8 of UDP header.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Numbers of segments per send to try, from the largest to the smallest.
///
/// The cost of a send hardly depends on the number of segments, so more are better. Kernels accept
/// 64 or 128.
pub(super) const SEGMENTS_TRIED: [usize; 4] = [512, 256, 128, 64];

/// Number of segments that every kernel with `UDP_SEGMENT` accepts.
pub(super) const SEGMENTS_SAFE: usize = 64;

/// Maximum number of messages that wait for one flush: four bursts in which each frame goes to a
/// different neighbour.
///
/// More messages would hold so many chunks of the pool that these no longer fit into a worker's
/// cache.
pub(super) const MESSAGES_MAX: usize = 4 * BURST_MAX;

/// Maximum number of frames that wait for one flush: as many as a worker takes from one port in a
/// poll.
///
/// If the kernel accepts none of them, they pin at most this many chunks, which a pool can spare.
pub(super) const FRAMES_WAITING_MAX: usize = 4 * BURST_MAX;

/// Number of consecutive flushes without an accepted frame, after which waiting frames are dropped.
///
/// This many flushes take some milliseconds on an otherwise idle worker. By then no socket of the
/// port has had room for a long time, and the waiting frames hold chunks that other traffic needs.
pub(super) const STALLED_FLUSHES: u32 = 4096;

/// Number of send sockets of a worker's port.
///
/// One is shared, one sends to addresses, and 14 are spare sockets (see `send_sockets`). With fewer
/// sockets, a healthy neighbour waits longer for its probe on a spare socket when many next hops
/// fail at once. Each socket needs a file descriptor.
pub(super) const SEND_SOCKETS: usize = 16;

/// Number of send sockets of the port that receives handshakes.
///
/// This port sends only to addresses. When one socket is full, it uses the next one.
pub(super) const SEND_SOCKETS_HANDSHAKES: usize = 4;

/// A fraction, as a divisor: 4 means a quarter. The port reads the bytes in flight each time that
/// it has sent this fraction of the shared socket's buffer. If at least this fraction is in flight,
/// the socket is congested. Up to half of the buffer can thus be in flight before congestion is
/// detected. The check costs one system call for each quarter of a buffer sent.
pub(super) const CHECK_PART: usize = 4;

/// Congestion ends when less than this fraction of the buffer is in flight.
pub(super) const DRAINED_PART: usize = 8;

/// Fraction of the buffer that a neighbour may send on the shared socket under congestion before
/// its probe. With the default limit before Linux 6.18, a buffer has 416 KiB, and this is about
/// three full packets. Half of the buffer has room for 32 neighbours whose frames are stuck.
pub(super) const ALLOWANCE_PART: usize = 64;

/// Maximum number of times that this allowance is doubled: up to an eighth of the buffer.
pub(super) const TRUST_MAX: u8 = 3;

/// A spare socket can be used for another probe while less than this fraction of its buffer is in
/// flight.
pub(super) const USABLE_PART: usize = 2;

/// Number of consecutive rounds without progress after which frames to a probed neighbour are
/// dropped. Until then they stay in the engine's egress queue, where each can pin a chunk.
pub(super) const STALLED_ROUNDS: u32 = 64;

/// Number of consecutive rounds without progress after which a probe can be ended for another
/// neighbour.
///
/// A device reports a transmission only after some tens of microseconds, so fewer rounds would end
/// probes of healthy neighbours.
pub(super) const PREEMPT_ROUNDS: u32 = 4;

/// Number of failed probes that a neighbour may have without being parked.
pub(super) const FAILED_PROBES_FREE: u8 = 1;

/// Number of bursts to a parked neighbour until its next probe. All but the last one are dropped.
/// Each further failed probe doubles the number.
pub(super) const PARKED_BURSTS: u16 = 16;

/// Maximum number of failed probes that count. A parked neighbour is thus probed at least with
/// every 1,024th burst, if a spare socket is available.
pub(super) const FAILED_PROBES_MAX: u8 = FAILED_PROBES_FREE + 6;

/// Number of senders for which the port remembers the local address to which they last sent.
///
/// This is many times the number of handshake messages that wait for a reply at the same time. The
/// table takes 64 KiB per port that is bound to a wildcard address.
pub(super) const SOURCES_KEPT: usize = 1024;

/// Maximum number of addresses, apart from those of neighbours, for which the last send error is
/// kept.
///
/// More would be too many for an operator to read. A new error replaces the oldest.
pub(super) const DIRECT_ERRORS_MAX: usize = 32;

/// Number of bursts to a neighbour that are sent frame by frame after the kernel has refused
/// segmentation. Then the port tries a train again. A failed attempt costs one system call.
pub(super) const TRAINS_AGAIN_BURSTS: u16 = 1024;

/// Maximum number of discontiguous buffers in one message.
///
/// A burst of scattered frames thus still forms one train.
pub(super) const PIECES_MAX: usize = BURST_MAX;

/// Maximum number of messages that one call receives: a burst of single datagrams.
///
/// In measurements with trains, 2, 8 and 64 were equally fast, so one value serves both kinds of
/// traffic.
pub(super) const MESSAGES_IN_MAX: usize = BURST_MAX;

/// Number of messages that an idle port requests in one call. It is small, because preparing each
/// message costs time.
pub(super) const MESSAGES_IN_MIN: usize = 8;

/// Maximum number of receive calls for one burst. The second call is needed if the first one
/// requested few messages.
///
/// The limit leaves time for the worker's other ports during a flood from unknown senders.
pub(super) const CALLS_MAX: u32 = 2;

/// Maximum number of completions that one burst takes from a ring.
///
/// A burst thus becomes full even if half of the datagrams are dropped.
pub(super) const COMPLETIONS_MAX: usize = 2 * BURST_MAX;

/// Default number of receive buffers that a ring has posted.
///
/// The value was measured over loopback with 2 to 128 buffers. With trains there was no difference.
/// Without trains, 2 buffers cost a fifth of the rate and 8 a twentieth, because the receive must
/// be armed again whenever all buffers are full; more than 32 brought no gain.
pub const POSTED_BUFFERS: u16 = 32;

/// Maximum number of receive buffers that a ring can have posted: each is a chunk of 68 KiB.
pub const POSTED_BUFFERS_MAX: u16 = 4096;

const _: () = assert!(DATAGRAM_BYTES_MAX <= TRAIN_DATA_BYTES);
const _: () = assert!(super::control::LEAD_BYTES <= HEADROOM_BYTES);
const _: () = assert!(MESSAGES_MAX >= BURST_MAX && FRAMES_WAITING_MAX >= MESSAGES_MAX);
// The kernel accepts at most 1,024 messages in a call and 1,024 vectors in a message.
const _: () = assert!(MESSAGES_MAX <= 1024 && MESSAGES_IN_MAX <= 1024 && PIECES_MAX <= 1024);
