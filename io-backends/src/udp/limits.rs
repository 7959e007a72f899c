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

/// Frames that wait for one flush at most: what a worker takes from a port between two flushes. When
/// the kernel takes none of them, they pin so many chunks, which is what a pool has room for.
pub(super) const FRAMES_WAITING_MAX: usize = 4 * BURST_MAX;

/// Flushes in a row at which the kernel took nothing, after which what waits is lost: some
/// milliseconds of a worker that does nothing else. No socket of the port has room then, so holding
/// the frames longer would only keep memory from others.
pub(super) const STALLED_FLUSHES: u32 = 4096;

/// Sockets that a worker's port sends by: the shared one, the one for addresses, and 14 to try as many
/// neighbours at a time, or to take the shared one's place. Fewer, and a neighbour that is well waits
/// longer for its trial when many next hops die at once; each is a descriptor.
pub(super) const SEND_SOCKETS: usize = 16;

/// The same for the socket that takes handshakes: it sends to addresses only, and takes the next
/// socket when one is full.
pub(super) const SEND_SOCKETS_HANDSHAKES: usize = 4;

/// The part of the shared socket's buffer after which it is looked at, and that may be in flight then
/// without suspicion. So up to half of the buffer can be in flight before the rules bind, and a look
/// costs one system call for each quarter of a buffer sent.
pub(super) const LOOK_PART: usize = 4;

/// The part of the buffer below which suspicion ends.
pub(super) const CALM_PART: usize = 8;

/// The part of the buffer that a neighbour in no good standing may send by the shared socket before its
/// trial: with a stock buffer of 416 KiB some three full packets. The half of the buffer that is left
/// has room for 32 neighbours that never drain, all at once.
pub(super) const ALLOWANCE_PART: usize = 64;

/// Doublings of that allowance at most: an eighth of the buffer.
pub(super) const TRUST_MAX: u8 = 3;

/// A spare socket is used for another trial while less than this part of its buffer is in flight.
pub(super) const USABLE_PART: usize = 2;

/// Rounds in a row in which nothing had left, after which frames to a neighbour on trial are lost and
/// no longer left to the engine, whose queue pins a chunk for each.
pub(super) const STALLED_ROUNDS: u32 = 64;

/// Rounds in a row in which nothing had left, after which a trial can be ended for another neighbour:
/// a device says in some tens of microseconds what it has sent.
pub(super) const PREEMPT_ROUNDS: u32 = 4;

/// Trials that a neighbour may lose to others before it is parked.
pub(super) const STRIKES_FREE: u8 = 1;

/// Bursts that a parked neighbour loses before its next trial; doubled with each lost one.
pub(super) const PARKED_BURSTS: u16 = 16;

/// Lost trials that are remembered at most: a parked neighbour loses up to 1,024 bursts in a row.
pub(super) const STRIKES_MAX: u8 = STRIKES_FREE + 6;

/// Senders for which the address of ours that they asked is kept, beside neighbours: more handshakes
/// than are answered in a second. 64 KiB for each port at a wildcard address.
pub(super) const SOURCES_KEPT: usize = 1024;

/// Addresses at most for which the last error of a send is kept, beside those of neighbours: as many as
/// an operator looks at. The oldest makes room.
pub(super) const DIRECT_ERRORS_MAX: usize = 32;

/// Bursts to a neighbour, after segmentation was refused on the way to it, that are sent frame by frame
/// before trains are tried again. A try that fails costs one system call.
pub(super) const TRAINS_AGAIN_BURSTS: u16 = 1024;

/// Pieces of memory in one message at most: a burst whose frames lie all apart rides as one train.
pub(super) const PIECES_MAX: usize = BURST_MAX;

/// Messages taken in by one call at most: a burst of datagrams that came alone. With trains 2, 8
/// and 64 were measured as equal, so the port need not tell one traffic from the other.
pub(super) const MESSAGES_IN_MAX: usize = BURST_MAX;

/// Messages that an idle port is ready for: few, since getting ready is work.
pub(super) const MESSAGES_IN_MIN: usize = 8;

/// Calls in which one burst is received at most: the second serves when the first asked for few.
/// A worker has other ports to serve, whatever unknown senders send to this one.
pub(super) const CALLS_MAX: u32 = 2;

/// Completions that one burst takes from a ring at most: as many datagrams as a burst has frames, and
/// as many again that are lost.
pub(super) const COMPLETIONS_MAX: usize = 2 * BURST_MAX;

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
