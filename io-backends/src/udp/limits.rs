//! Every bound of the UDP ports and its reason. Nothing here is looked up at run time.

use strowger_frame::{
    BURST_MAX,
    pool::{HEADROOM_BYTES, TRAIN_DATA_BYTES},
};

/// The longest datagram: 65,535 bytes of IPv4 packet less 20 of its header and 8 of UDP's.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Frames in one send at most, tried from the largest down: kernels take 64, later ones 128, and
/// what a send costs hardly depends on how many segments it carries.
pub(super) const SEGMENTS_TRIED: [usize; 4] = [512, 256, 128, 64];

/// What a kernel that knows `UDP_SEGMENT` has taken since the day it had it.
pub(super) const SEGMENTS_SAFE: usize = 64;

/// Messages that wait for one flush at most: four bursts, each frame to a neighbour of its own.
/// More would keep so much memory from the pool that a worker's cache no longer holds it.
pub(super) const MESSAGES_MAX: usize = 4 * BURST_MAX;

/// Frames that wait for one flush at most: 16 bursts, which is what a worker may take in a round
/// that sends with 128 segments a message; a chunk each is 68 MiB, so the pool bounds it first.
pub(super) const FRAMES_WAITING_MAX: usize = 16 * BURST_MAX;

/// Pieces of memory in one message at most: a burst whose frames lie all apart rides as one train.
pub(super) const PIECES_MAX: usize = BURST_MAX;

/// Messages taken in by one call at most: a burst of datagrams that came alone. With trains 2, 8
/// and 64 were measured as equal, so the port need not tell one traffic from the other.
pub(super) const MESSAGES_IN_MAX: usize = BURST_MAX;

/// Messages that an idle port is ready for: few, since getting ready is work.
pub(super) const MESSAGES_IN_MIN: usize = 8;

/// Calls in which one burst is received at most: the second serves when the first asked for few.
/// A worker has other ports to serve, whatever strangers send to this one.
pub(super) const CALLS_MAX: u32 = 2;

/// Receive buffers that a ring has posted, unless the spec says otherwise. Measured over loopback
/// with 2 to 128 of them: with trains all within noise; without, 2 cost a fifth of the rate and 8
/// a twentieth, since the receive is armed anew whenever all are full, and above 32 nothing is won.
pub const POSTED_BUFFERS: u16 = 32;

/// Receive buffers that a ring can have posted at most: each is a chunk of 68 KiB.
pub const POSTED_BUFFERS_MAX: u16 = 4096;

const _: () = assert!(DATAGRAM_BYTES_MAX <= TRAIN_DATA_BYTES);
const _: () = assert!(super::control::LEAD_BYTES <= HEADROOM_BYTES);
const _: () = assert!(MESSAGES_MAX >= BURST_MAX && FRAMES_WAITING_MAX >= MESSAGES_MAX);
// The kernel takes at most 1,024 messages a call and 1,024 vectors a message.
const _: () = assert!(MESSAGES_MAX <= 1024 && MESSAGES_IN_MAX <= 1024 && PIECES_MAX <= 1024);
