//! Every bound of the program, each with its reason.

use std::time::Duration;

/// The name of the network if no configuration has one: that of `strowger init`.
pub(crate) const NETWORK_DEFAULT: &str = "strowger";

/// The default time limit of connecting, in seconds (W6-133).
pub(crate) const CONNECT_S: f64 = 9.0;

// The file transfer.

/// Maximum number of bytes that wait at each end until a gap is filled: the bandwidth-delay product
/// of 300 Mbit/s and 100 ms. It bounds the memory of a transfer.
pub(crate) const TRANSFER_WINDOW_BYTES: u64 = 4 << 20;
/// Maximum number of pieces that a receiver holds behind a gap: the window in pieces of 512 bytes.
/// This bounds the memory if the pieces are smaller.
pub(crate) const TRANSFER_PIECES_MAX: usize = 8_192;
/// Maximum number of ranges in an ack. If there are more, later acks report the others. An ack has
/// at most 278 bytes, less than every path carries.
pub(crate) const TRANSFER_RANGES_MAX: usize = 16;
/// Number of received blocks after which an ack is sent (RFC 9000, section 13.2.2: after at
/// least two packets).
pub(crate) const TRANSFER_ACK_EVERY: u32 = 2;
/// The maximum time for which an ack waits for another block (`max_ack_delay` of RFC 9000).
pub(crate) const TRANSFER_ACK_DELAY: Duration = Duration::from_millis(25);
/// The initial congestion window in blocks (RFC 9002, section 7.2).
pub(crate) const TRANSFER_WINDOW_BLOCKS: u64 = 10;
/// The minimum congestion window in blocks. After the loss of a block, enough later blocks fit into
/// it to show the loss. RFC 9002 has a minimum of two, and other timers.
pub(crate) const TRANSFER_WINDOW_BLOCKS_MIN: u64 = 5;
/// A block counts as lost when a block that was sent this many blocks later is acknowledged
/// (`kPacketThreshold` of RFC 9002).
pub(crate) const TRANSFER_REORDERED: u64 = 3;
/// The minimum time after which unacknowledged blocks count as lost: longer than the ack delay.
pub(crate) const TRANSFER_RTO_MIN: Duration = Duration::from_millis(50);
/// The maximum time after which unacknowledged blocks count as lost.
pub(crate) const TRANSFER_RTO_MAX: Duration = Duration::from_secs(2);
/// The timeout before a round-trip time is known, for example until the second offer.
pub(crate) const TRANSFER_OFFER_EVERY: Duration = Duration::from_millis(250);
/// The longest time between two copies of an offer or end. Twenty copies fit in
/// [`TRANSFER_SILENCE`], so an answer arrives even if the path loses half of the messages.
pub(crate) const TRANSFER_CONTROL_EVERY_MAX: Duration = Duration::from_millis(500);
/// The interval at which a sender that waits for input repeats its offer, so that the receiver
/// knows that it is running: several times in [`TRANSFER_SILENCE`].
pub(crate) const TRANSFER_IDLE_EVERY: Duration = Duration::from_secs(2);
/// A transfer fails if an end expects a message and the peer sends none for this time.
pub(crate) const TRANSFER_SILENCE: Duration = Duration::from_secs(10);
/// A transfer fails if the path carries only shorter blocks than this. Every path that carries a
/// handshake carries longer ones.
pub(crate) const TRANSFER_BLOCK_BYTES_MIN: usize = 64;

// Sockets.

/// Maximum number of messages that wait in each direction of a socket: several trains, so that a
/// program that writes to a slow terminal loses few messages.
pub(crate) const RING_DEPTH: usize = 1_024;
/// The protocol of a program that connects only to ask about the peer. No peer needs to accept it,
/// and no message is sent in it.
pub(crate) const PROBE_PROTOCOL: &str = "/strowger/probe/1";
/// A protocol name that a receiver of files accepts in addition to its own protocol. A sender of
/// lines finds it in the peer's protocol table, and fails before it sends a line.
pub(crate) const FILE_PROTOCOL: &str = "/strowger/file/1";
/// The maximum time to wait for a pong, or for the node's answer to a call.
pub(crate) const PONG_MAX: Duration = Duration::from_secs(2);
/// The slot number of this program that is assumed, to compute the width of labels, if the relay
/// does not state it. Its director is as wide as those of most numbers, or wider.
pub(crate) const SLOT_UNKNOWN: u32 = 255;
/// The timeout of a read or write at the relay's control socket.
pub(crate) const RELAY_REPLY_MAX: Duration = Duration::from_secs(1);
/// Maximum number of bytes that are read of a reply of the relay: more than the list of a relay
/// with every slot in use has.
pub(crate) const RELAY_REPLY_BYTES_MAX: u64 = 64 << 20;
/// The maximum time to wait for the peer's protocol table. In this time a peer repeats a lost table
/// several times.
pub(crate) const TABLE_MAX: Duration = Duration::from_secs(4);
/// The interval at which a program checks whether the table has arrived: shorter than a round trip
/// over the internet.
pub(crate) const TABLE_EVERY: Duration = Duration::from_millis(2);
/// The maximum time to wait until a node is closed: the endpoint sends goodbyes for up to a second.
pub(crate) const CLOSE_MAX: Duration = Duration::from_millis(1_500);
/// The maximum time between the close of the node by a signal and the end of the process, in which
/// the program may remove an unfinished file. A program that waits for input does not notice the
/// close and uses the whole time.
pub(crate) const ENDING_MAX: Duration = Duration::from_millis(250);
/// The maximum time for which a line waits for a free place in the queue to the relay. After that,
/// the line is not sent and the send fails.
pub(crate) const SEND_MAX: Duration = Duration::from_secs(10);
/// The longest line that is read: longer than any path takes. A longer line is an error, not a
/// reason to fill the memory.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 10;
/// Bytes that are read at once from a file.
pub(crate) const READ_BYTES: usize = 64 << 10;
/// Maximum number of chunks of [`READ_BYTES`] that are read ahead of the transfer.
pub(crate) const READS_AHEAD: usize = 8;
/// The time after the result for which the receiver of a file still answers the sender, in case the
/// result was lost.
pub(crate) const LINGER: Duration = Duration::from_secs(3);

// Probes.

/// The default time limit of a probe for lookup and handshake together, in seconds. If nothing
/// answers, the probe ends within 10 s.
pub(crate) const PROBE_CONNECT_S: f64 = 6.0;
/// The maximum time of the search for the longest packet. A connection has at most eight unanswered
/// pings, and forgets each after 5 s, so a search with many losses must wait.
pub(crate) const WIDTH_MAX: Duration = Duration::from_secs(6);
/// The minimum time for which the search waits for the answer to a ping. It waits for three
/// round-trip times if they are longer.
pub(crate) const WIDTH_WAIT_MIN: Duration = Duration::from_millis(100);
/// The number of pings of one length that must stay unanswered before the length counts as too
/// long.
pub(crate) const WIDTH_TRIES: u32 = 2;
/// The pause of the search while too many pings are unanswered.
pub(crate) const WIDTH_PAUSE: Duration = Duration::from_millis(20);
/// The maximum time to wait for the trace of a label.
pub(crate) const TRACE_MAX: Duration = Duration::from_secs(1);
/// Maximum number of labels of the address book that a probe traces.
pub(crate) const PROBE_LABELS_MAX: usize = 3;

// The local API.

/// Maximum number of programs that are connected to the local API. Each takes two threads.
pub(crate) const API_PROGRAMS_MAX: usize = 64;
/// Maximum number of sockets of all these programs: those that they opened, and those that a peer
/// opened and a program got. Each takes two threads and two descriptors.
pub(crate) const API_SOCKETS_MAX: usize = 256;
/// Length of the buffer for a datagram of a program: more than the longest message of any path and
/// than the longest JSON object, so a datagram that fills it is too long.
pub(crate) const API_DATAGRAM_BYTES_MAX: usize = 16 << 10;
/// The maximum time for which the local API waits for the next request of a program that neither
/// has a socket nor listens. Without this limit, programs that hang would occupy all places.
pub(crate) const API_FIRST_MAX: Duration = Duration::from_secs(60);
/// The time after which a thread that waits for room in a socket's queue checks whether the socket
/// is closed.
pub(crate) const API_SEND_TURN: Duration = Duration::from_secs(1);
/// The time for which the local API accepts no program after it failed to accept one, usually
/// because no descriptor is left.
pub(crate) const DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);
