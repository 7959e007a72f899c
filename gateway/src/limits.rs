//! Every bound of the program, each with its reason.

use std::time::Duration;

/// The name of the network if no configuration has one: that of `strowger init`.
pub(crate) const NETWORK_DEFAULT: &str = "strowger";

/// How long connecting may take by default, in seconds: the time limit of W6-133.
pub(crate) const CONNECT_S: f64 = 9.0;

// The file transfer.

/// Bytes that may wait at each end for a gap to be filled: the bandwidth-delay product of 300 Mbit/s
/// and 100 ms. It bounds the memory of a transfer.
pub(crate) const TRANSFER_WINDOW_BYTES: u64 = 4 << 20;
/// Pieces above a gap that a receiver holds: a window of pieces of 512 bytes. It bounds the memory
/// for tiny pieces.
pub(crate) const TRANSFER_PIECES_MAX: usize = 8_192;
/// Ranges in an ack: with more gaps, later acks say the rest. An ack then has at most 278 bytes, less
/// than every path takes.
pub(crate) const TRANSFER_RANGES_MAX: usize = 16;
/// Number of received blocks after which an ack is sent (RFC 9000, section 13.2.2: after at
/// least two packets).
pub(crate) const TRANSFER_ACK_EVERY: u32 = 2;
/// How long an ack waits for another block: `max_ack_delay` of RFC 9000.
pub(crate) const TRANSFER_ACK_DELAY: Duration = Duration::from_millis(25);
/// The initial congestion window in blocks (RFC 9002, section 7.2).
pub(crate) const TRANSFER_WINDOW_BLOCKS: u64 = 10;
/// The least congestion window in blocks: so many that three later blocks can show a loss (RFC 9002
/// has two, and other timers).
pub(crate) const TRANSFER_WINDOW_BLOCKS_MIN: u64 = 5;
/// Later blocks that must arrive before a block counts as lost (`kPacketThreshold` of RFC 9002).
pub(crate) const TRANSFER_REORDERED: u64 = 3;
/// The least time after which unanswered blocks count as lost: longer than the ack delay.
pub(crate) const TRANSFER_RTO_MIN: Duration = Duration::from_millis(50);
/// The longest such time.
pub(crate) const TRANSFER_RTO_MAX: Duration = Duration::from_secs(2);
/// The time to the second offer, before a round trip is known.
pub(crate) const TRANSFER_OFFER_EVERY: Duration = Duration::from_millis(250);
/// The longest time between two copies of an offer or end. Twenty copies fit in the time of
/// silence, so an answer arrives even if the path loses half of the messages.
pub(crate) const TRANSFER_CONTROL_EVERY_MAX: Duration = Duration::from_millis(500);
/// How often a sender that waits for input says that it is there: several times in the time of
/// silence.
pub(crate) const TRANSFER_IDLE_EVERY: Duration = Duration::from_secs(2);
/// A transfer fails if the peer sends nothing for this time.
pub(crate) const TRANSFER_SILENCE: Duration = Duration::from_secs(10);
/// The smallest block: below it a path is not usable. Every path that takes a handshake takes more.
pub(crate) const TRANSFER_BLOCK_BYTES_MIN: usize = 64;

// Sockets.

/// Messages that wait in each direction of a socket: some rounds of trains, so that a program that
/// writes to a slow terminal loses little.
pub(crate) const RING_DEPTH: usize = 1_024;
/// The protocol with which a program connects that only asks about the peer. No peer needs to accept
/// it, and no message is sent in it.
pub(crate) const PROBE_PROTOCOL: &str = "/strowger/probe/1";
/// A name that a receiver of files states beside its protocol, so that a sender of lines sees before
/// its first line that none would be taken.
pub(crate) const FILE_PROTOCOL: &str = "/strowger/file/1";
/// How long the answer to a ping or a question may take.
pub(crate) const PONG_MAX: Duration = Duration::from_secs(2);
/// The slot number that is assumed for the width of labels if the relay does not state it: wider
/// than most numbers.
pub(crate) const SLOT_UNKNOWN: u32 = 255;
/// How long the relay may take to list its slots at the control socket.
pub(crate) const RELAY_REPLY_MAX: Duration = Duration::from_secs(1);
/// Bytes of the longest list that is read: more than a relay with every slot in use sends.
pub(crate) const RELAY_REPLY_BYTES_MAX: u64 = 64 << 20;
/// How long the peer's protocol table may take: several of its repetitions on a lossy path.
pub(crate) const TABLE_MAX: Duration = Duration::from_secs(4);
/// How often a program looks whether the table has arrived: shorter than a round trip over the
/// internet.
pub(crate) const TABLE_EVERY: Duration = Duration::from_millis(2);
/// How long saying goodbye may take: a second at the endpoint, and a margin.
pub(crate) const CLOSE_MAX: Duration = Duration::from_millis(1_500);
/// How long a program has, after a signal has closed its node, to remove an unfinished file. A program
/// that waits for input does not notice the end, and ends after this time.
pub(crate) const ENDING_MAX: Duration = Duration::from_millis(250);
/// How long a line waits for room in the queue to the relay, before the program gives up.
pub(crate) const SEND_MAX: Duration = Duration::from_secs(10);
/// The longest line that is read: longer than any path takes. A longer line is an error, not a
/// reason to fill the memory.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 10;
/// Bytes that are read at once from a file.
pub(crate) const READ_BYTES: usize = 64 << 10;
/// Reads of a file that may be ahead of the transfer.
pub(crate) const READS_AHEAD: usize = 8;
/// How long the receiver of a file answers a sender that has not received the result.
pub(crate) const LINGER: Duration = Duration::from_secs(3);

// Probes.

/// How long finding a label and the handshake of a probe may take by default, in seconds: the probe
/// ends within 10 s if nothing answers.
pub(crate) const PROBE_CONNECT_S: f64 = 6.0;
/// How long a probe searches for the longest packet: eight pings may be unanswered, and each makes
/// room for another one after 5 s.
pub(crate) const WIDTH_MAX: Duration = Duration::from_secs(6);
/// How long a packet of the search is waited for at least. Three round trips are waited for at least.
pub(crate) const WIDTH_WAIT_MIN: Duration = Duration::from_millis(100);
/// Packets of one length that must be lost before the length counts as too long.
pub(crate) const WIDTH_TRIES: u32 = 2;
/// The pause of the search while too many pings are unanswered.
pub(crate) const WIDTH_PAUSE: Duration = Duration::from_millis(20);
/// How long the trace of a label may take.
pub(crate) const TRACE_MAX: Duration = Duration::from_secs(1);
/// Labels of the address book that a probe traces.
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
/// How long a program may stay connected without a request that succeeds. Without this limit,
/// programs that hang would take all places.
pub(crate) const API_FIRST_MAX: Duration = Duration::from_secs(60);
/// The time after which a thread that waits for room in a socket's queue checks whether the socket
/// is closed.
pub(crate) const API_SEND_TURN: Duration = Duration::from_secs(1);
/// How long the local API accepts no program when no descriptor is left.
pub(crate) const DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);
