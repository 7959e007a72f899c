//! Every bound of the Ethernet ports and its reason. Nothing here is looked up at run time.

use std::time::Duration;

use strowger_frame::{BURST_MAX, pool::SINGLE_STRIDE_BYTES};

/// Our ethertype unless the spec says otherwise: the first of the two that IEEE 802 keeps for local
/// experiments.
pub const ETHERTYPE: u16 = 0x88b5;

/// What the kernel takes as one UMEM chunk: a single chunk of the pool.
pub(super) const UMEM_CHUNK_BYTES: usize = SINGLE_STRIDE_BYTES;

/// Bytes that the kernel keeps free in front of a received frame (`XDP_PACKET_HEADROOM`).
pub(super) const UMEM_HEADROOM_BYTES: usize = 256;

/// Descriptors of the receive ring: two thousand frames are 2 ms at a million a second, longer than
/// a worker ever stays away.
pub(super) const RX_RING: u32 = 2048;

/// Descriptors of the transmit ring: some 340 frames even if each takes three.
pub(super) const TX_RING: u32 = 1024;

/// Descriptors that the kernel has sent and not yet told of: it takes none from the transmit ring
/// for which there is no room here.
pub(super) const COMPLETION_RING: u32 = 1024;

/// Chunks that a port has lent to the kernel for receiving, unless the spec says otherwise: 4 MiB.
pub const FILL_RING_FRAMES: u32 = 1024;

/// And at most. The fill ring has twice as many places, since the kernel publishes late how many
/// it has taken.
pub const FILL_RING_FRAMES_MAX: u32 = 16_384;

/// Ethernet headers that wait apart from their frame: one for every two descriptors at most.
pub(super) const HEADERS: usize = TX_RING as usize / 2;

/// From one such header to the next.
pub(super) const HEADER_STRIDE_BYTES: usize = 32;

/// Chunks that hold those headers.
pub(super) const HEADER_CHUNKS: usize = HEADERS * HEADER_STRIDE_BYTES / UMEM_CHUNK_BYTES;

/// Chunks kept for frames that lie where the kernel cannot reach them, and must be copied.
pub(super) const SPARE_CHUNKS: usize = BURST_MAX;

/// Single chunks that a port keeps for itself.
pub const OWN_CHUNKS: u32 = (HEADER_CHUNKS + SPARE_CHUNKS) as u32;

/// Frames that wait for the device at most: a ring of them.
pub const SENDS_WAITING: u32 = TX_RING;

/// Train chunks that these hold at most: what came by Ethernet lies in single chunks, and what came
/// otherwise in trains of many.
pub const TRAINS_MAX: usize = 4 * BURST_MAX;

/// Descriptors that one frame takes at most: its header, and two where it crosses a chunk's end.
pub(super) const PIECES_MAX: u32 = 3;

/// System calls of one flush that may move nothing before it gives up until the next.
pub(super) const KICKS_IN_VAIN_MAX: u32 = 4;

/// How long nothing may leave before the port counts frames as lost and no longer keeps them.
pub(super) const STALL_MAX: Duration = Duration::from_millis(100);

/// How long opening waits for a queue, or an interface, that the process before us has not quite
/// let go: the kernel takes a socket apart in the background, and on a busy machine that has been
/// seen to take more than a second.
pub(super) const BUSY_MAX: Duration = Duration::from_secs(4);

/// The same for memory that the process before us had locked: shorter, since where the limit is merely
/// low it is waited for in vain, and there is a mode below.
pub(super) const LOCKED_MAX: Duration = Duration::from_millis(1000);

/// And how often it looks.
pub(super) const BUSY_LOOK: Duration = Duration::from_millis(10);

/// How long a port that ends waits for frames that the kernel is still reading.
pub(super) const LINGER_MAX: Duration = Duration::from_millis(50);

/// Bursts between two looks at the kernel's statistics while frames keep coming.
pub(super) const BURSTS_PER_LOOK: u32 = 512;

/// Looks in vain after which a port that has had frames asks for the statistics: not at the first,
/// since a port that keeps up with its neighbours finds nothing every other time.
pub(super) const IDLE_LOOKS: u32 = 32;

/// Bytes of a socket's send buffer: what the kernel accounts for a full transmit ring.
pub(super) const SEND_BUFFER_BYTES: i32 = 8 << 20;

/// AF_PACKET: frames that one call takes in, or lets out.
pub(super) const MESSAGES_MAX: usize = BURST_MAX;

/// AF_PACKET: calls in which one burst is received at most. A worker has other ports to serve, whatever
/// unknown senders send to this one.
pub(super) const CALLS_MAX: u32 = 2;

/// AF_XDP: descriptors that one burst takes in at most: as many frames as a burst has, and three times
/// as many that are lost.
pub(super) const DESCRIPTORS_MAX: usize = 4 * BURST_MAX;

/// AF_PACKET: frames that wait for one flush at most.
pub(super) const WAITING_MAX: usize = 4 * BURST_MAX;

const _: () = assert!(RX_RING.is_power_of_two() && TX_RING.is_power_of_two());
const _: () = assert!(COMPLETION_RING >= TX_RING && FILL_RING_FRAMES <= FILL_RING_FRAMES_MAX);
const _: () = assert!(super::ether::HEADER_BYTES_MAX <= HEADER_STRIDE_BYTES);
const _: () = assert!(UMEM_CHUNK_BYTES.is_multiple_of(HEADER_STRIDE_BYTES));
const _: () = assert!(HEADER_CHUNKS * UMEM_CHUNK_BYTES == HEADERS * HEADER_STRIDE_BYTES);
const _: () = assert!(BURST_MAX as u32 * PIECES_MAX <= TX_RING);
