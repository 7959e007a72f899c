//! The limits of the UDP ports, each with its reason.

use strowger_frame::{
    BURST_MAX,
    pool::{HEADROOM_BYTES, TRAIN_DATA_BYTES},
};

/// The largest UDP payload: an IPv4 packet of 65,535 bytes less 20 of IP header and 8 of UDP header.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Maximum numbers of frames in one send that are tried, from the largest down.
///
/// Kernels accept 64 or 128 segments, and the cost of a send hardly depends on their number.
pub(super) const SEGMENTS_TRIED: [usize; 4] = [512, 256, 128, 64];

/// Number of segments that every kernel with `UDP_SEGMENT` accepts.
pub(super) const SEGMENTS_SAFE: usize = 64;

/// Maximum number of messages that wait for one flush: four bursts in which each frame goes to a
/// different neighbour.
///
/// More messages would hold so many chunks of the pool that these no longer fit into a worker's
/// cache.
pub(super) const MESSAGES_MAX: usize = 4 * BURST_MAX;

/// Maximum number of frames that wait for one flush: as many as a worker takes from a port between
/// two flushes.
///
/// If the kernel accepts none of them, they pin this many chunks, which a pool can spare.
pub(super) const FRAMES_WAITING_MAX: usize = 4 * BURST_MAX;

/// Number of consecutive flushes without an accepted frame, after which waiting frames are dropped.
///
/// This is some milliseconds of an otherwise idle worker. After this time no socket of the port has
/// room, and the waiting frames would only keep chunks that other traffic needs.
pub(super) const STALLED_FLUSHES: u32 = 4096;

/// Send sockets of a worker's port.
///
/// One is shared, one sends to addresses, and 14 are for trials (see `send_sockets`), or replace
/// the shared one. With fewer sockets, a healthy neighbour waits longer for its trial when many
/// next hops fail at once. Each socket is a file descriptor.
pub(super) const SEND_SOCKETS: usize = 16;

/// Send sockets of the port that receives handshakes.
///
/// It sends only to addresses, and uses the next socket when one is full.
pub(super) const SEND_SOCKETS_HANDSHAKES: usize = 4;

/// Fraction of the shared socket's buffer. After each time that so much was sent, the port reads
/// the bytes in flight; if no more than this is in flight, there is no congestion. Up to half of
/// the buffer can thus be in flight before the rules apply, and the check costs one system call for
/// each quarter of a buffer sent.
pub(super) const CHECK_PART: usize = 4;

/// Congestion ends when less than this fraction of the buffer is in flight.
pub(super) const DRAINED_PART: usize = 8;

/// Fraction of the buffer that a neighbour may send on the shared socket under congestion before
/// its trial: with the default buffer of 416 KiB, about three full packets. The other half of the
/// buffer has room for 32 neighbours whose frames are stuck.
pub(super) const ALLOWANCE_PART: usize = 64;

/// Maximum number of times that this allowance is doubled: up to an eighth of the buffer.
pub(super) const TRUST_MAX: u8 = 3;

/// A spare socket accepts another trial while less than this fraction of its buffer is in flight.
pub(super) const USABLE_PART: usize = 2;

/// Consecutive rounds without progress after which frames to a neighbour on trial are dropped.
/// Before that they stay with the engine, whose queue pins a chunk for each frame.
pub(super) const STALLED_ROUNDS: u32 = 64;

/// Consecutive rounds without progress after which a trial can be ended for another neighbour.
///
/// A device reports in some tens of microseconds what it has sent.
pub(super) const PREEMPT_ROUNDS: u32 = 4;

/// Number of failed trials that a neighbour may have without being parked.
pub(super) const FAILED_TRIALS_FREE: u8 = 1;

/// Number of bursts to a parked neighbour that are dropped before its next trial. Each failed trial
/// doubles it.
pub(super) const PARKED_BURSTS: u16 = 16;

/// Maximum number of failed trials that count. A parked neighbour thus loses up to 1,024 bursts in
/// a row.
pub(super) const FAILED_TRIALS_MAX: u8 = FAILED_TRIALS_FREE + 6;

/// Number of senders, apart from neighbours, for which the port remembers the local address to
/// which they sent.
///
/// This is more than the number of handshakes answered in a second. It takes 64 KiB for each port
/// bound to a wildcard address.
pub(super) const SOURCES_KEPT: usize = 1024;

/// Maximum number of addresses, apart from those of neighbours, for which the last send error is
/// kept.
///
/// An operator reads no more than this many. A new one replaces the oldest.
pub(super) const DIRECT_ERRORS_MAX: usize = 32;

/// Number of bursts to a neighbour that are sent frame by frame after segmentation was refused.
/// Then trains are tried again. A failed attempt costs one system call.
pub(super) const TRAINS_AGAIN_BURSTS: u16 = 1024;

/// Maximum number of discontiguous buffers in one message.
///
/// A burst of scattered frames thus still forms one train.
pub(super) const PIECES_MAX: usize = BURST_MAX;

/// Maximum number of messages that one call receives: a burst of single datagrams.
///
/// With trains, 2, 8 and 64 were measured as equal, so the port need not distinguish the two kinds of
/// traffic.
pub(super) const MESSAGES_IN_MAX: usize = BURST_MAX;

/// Number of messages for which an idle port prepares. It is small, because preparing costs time.
pub(super) const MESSAGES_IN_MIN: usize = 8;

/// Maximum number of receive calls for one burst. The second call is needed if the first one asked
/// for few messages.
///
/// A flood from unknown senders thus leaves time for the worker's other ports.
pub(super) const CALLS_MAX: u32 = 2;

/// Maximum number of completions that one burst takes from a ring.
///
/// These are as many datagrams as a burst has frames, and as many again that are dropped.
pub(super) const COMPLETIONS_MAX: usize = 2 * BURST_MAX;

/// Default number of receive buffers that a ring has posted.
///
/// Measured over loopback with 2 to 128 buffers. With trains there was no difference. Without
/// trains, 2 buffers cost a fifth of the rate and 8 a twentieth, because the receive must be armed
/// again whenever all buffers are full; more than 32 brought no gain.
pub const POSTED_BUFFERS: u16 = 32;

/// Maximum number of receive buffers that a ring can have posted: each is a chunk of 68 KiB.
pub const POSTED_BUFFERS_MAX: u16 = 4096;

const _: () = assert!(DATAGRAM_BYTES_MAX <= TRAIN_DATA_BYTES);
const _: () = assert!(super::control::LEAD_BYTES <= HEADROOM_BYTES);
const _: () = assert!(MESSAGES_MAX >= BURST_MAX && FRAMES_WAITING_MAX >= MESSAGES_MAX);
// The kernel accepts at most 1,024 messages in a call and 1,024 vectors in a message.
const _: () = assert!(MESSAGES_MAX <= 1024 && MESSAGES_IN_MAX <= 1024 && PIECES_MAX <= 1024);
