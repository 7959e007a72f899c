//! The limits of the Ethernet ports, each with its reason.

use std::time::Duration;

use strowger_frame::{BURST_MAX, pool::SINGLE_STRIDE_BYTES};

/// Default ethertype: the first of the two that IEEE 802 reserves for local experiments.
pub const ETHERTYPE: u16 = 0x88b5;

/// Size of a UMEM chunk, which is a chunk of class `Single`.
pub(super) const UMEM_CHUNK_BYTES: usize = SINGLE_STRIDE_BYTES;

/// Bytes that the kernel keeps free in front of a received frame (`XDP_PACKET_HEADROOM`).
pub(super) const UMEM_HEADROOM_BYTES: usize = 256;

/// Descriptors of the receive ring.
///
/// 2,048 frames arrive in 2 ms at a million per second. A worker polls each port more often than
/// that.
pub(super) const RX_RING: u32 = 2048;

/// Descriptors of the transmit ring. They are enough for some 340 frames of three descriptors each.
pub(super) const TX_RING: u32 = 1024;

/// Descriptors of the completion ring.
///
/// If this ring has no room, the kernel takes no descriptor from the transmit ring.
pub(super) const COMPLETION_RING: u32 = 1024;

/// Default number of chunks that a port has posted for receiving: 4 MiB.
pub const FILL_RING_FRAMES: u32 = 1024;

/// Maximum number of chunks that a port has posted for receiving.
///
/// The fill ring has twice as many entries, because the kernel reports with a delay how many it has
/// taken.
pub const FILL_RING_FRAMES_MAX: u32 = 16_384;

/// Number of Ethernet headers that are stored apart from their frame: at most one for every two
/// descriptors.
pub(super) const HEADERS: usize = TX_RING as usize / 2;

/// Distance between two such headers.
pub(super) const HEADER_STRIDE_BYTES: usize = 32;

/// Number of chunks for these headers.
pub(super) const HEADER_CHUNKS: usize = HEADERS * HEADER_STRIDE_BYTES / UMEM_CHUNK_BYTES;

/// Number of chunks for copies of frames that the kernel cannot access.
pub(super) const SPARE_CHUNKS: usize = BURST_MAX;

/// Number of chunks of class `Single` that a port keeps for its own use.
pub const OWN_CHUNKS: u32 = (HEADER_CHUNKS + SPARE_CHUNKS) as u32;

/// Maximum number of frames that wait in the transmit ring. It is the size of the ring.
pub const SENDS_WAITING: u32 = TX_RING;

/// Maximum number of train chunks that the waiting frames hold.
///
/// Frames received from Ethernet are in chunks of class `Single` and do not count. In other
/// traffic, a train chunk usually holds many frames.
pub const TRAINS_MAX: usize = 4 * BURST_MAX;

/// Maximum number of descriptors of one frame: one for its header, and two if the frame crosses the
/// end of a chunk.
pub(super) const DESCRIPTORS_PER_FRAME_MAX: u32 = 3;

/// Maximum number of system calls without progress in one flush.
pub(super) const IDLE_KICKS_MAX: u32 = 4;

/// Time without any frame sent by the device after which the port counts frames as lost.
pub(super) const STALL_MAX: Duration = Duration::from_millis(100);

/// Time for which opening waits for a queue or an interface that an earlier process has not yet
/// released.
///
/// The kernel closes a socket in the background, which took more than a second on a busy machine.
pub(super) const BUSY_MAX: Duration = Duration::from_secs(4);

/// Time for which opening waits for locked memory that an earlier process has not yet released.
///
/// It is shorter than `BUSY_MAX`, because waiting does not help if the limit is too low, and
/// AF_PACKET works in any case.
pub(super) const LOCKED_MAX: Duration = Duration::from_millis(1000);

/// Interval between two attempts during these waits.
pub(super) const BUSY_RETRY: Duration = Duration::from_millis(10);

/// Time for which a dropped port waits for frames that the kernel is still reading.
pub(super) const LINGER_MAX: Duration = Duration::from_millis(50);

/// Number of polls between two reads of the kernel's statistics, and of the interface's address.
pub(super) const BURSTS_PER_STATISTICS: u32 = 512;

/// Number of consecutive polls without a frame after which a port reads the statistics.
///
/// It is not 1, because a port that keeps up with its neighbours often finds no frame.
pub(super) const IDLE_POLLS: u32 = 32;

/// Send buffer of a socket: what the kernel charges for a full transmit ring.
pub(super) const SEND_BUFFER_BYTES: i32 = 8 << 20;

/// AF_PACKET: maximum number of frames in one call.
pub(super) const MESSAGES_MAX: usize = BURST_MAX;

/// AF_PACKET: maximum number of calls for one burst.
///
/// The limit leaves time for the worker's other ports during a flood from unknown senders.
pub(super) const CALLS_MAX: u32 = 2;

/// AF_XDP: maximum number of descriptors that one burst takes.
///
/// A burst thus becomes full even if three of four frames are dropped.
pub(super) const DESCRIPTORS_MAX: usize = 4 * BURST_MAX;

/// AF_PACKET: maximum number of frames that wait for one flush.
pub(super) const WAITING_MAX: usize = 4 * BURST_MAX;

const _: () = assert!(RX_RING.is_power_of_two() && TX_RING.is_power_of_two());
const _: () = assert!(COMPLETION_RING >= TX_RING && FILL_RING_FRAMES <= FILL_RING_FRAMES_MAX);
const _: () = assert!(super::ether::HEADER_BYTES_MAX <= HEADER_STRIDE_BYTES);
const _: () = assert!(UMEM_CHUNK_BYTES.is_multiple_of(HEADER_STRIDE_BYTES));
const _: () = assert!(HEADER_CHUNKS * UMEM_CHUNK_BYTES == HEADERS * HEADER_STRIDE_BYTES);
const _: () = assert!(BURST_MAX as u32 * DESCRIPTORS_PER_FRAME_MAX <= TX_RING);
