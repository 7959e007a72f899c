//! The limits of the engine, the reasons for them, and how they relate. Configured values must stay
//! within them.

use core::time::Duration;

use strowger_frame::BURST_MAX;
use strowger_wire::{
    link_header::LINK_HEADER_BYTES,
    switch_header::{HEADER_64_BYTES, HEADER_BYTES_MAX},
};

/// The number of links and endpoints that one switch can have. It limits every table of a worker;
/// all tables are allocated at start (R13).
pub const ATTACHED_MAX: usize = 8_192;

/// The number of sessions and unfinished handshakes of a worker. Each link can have its previous
/// keys, its current keys, keys that its peer may still begin to use, and handshake attempts that
/// wait for an answer. The number is a power of two, because the higher bits of an index are
/// random.
pub(crate) const SESSIONS_MAX: usize = 8 * ATTACHED_MAX;

/// For each handshake attempt, the maximum number of answers with a valid mac that the slow path
/// reads: this number from the address to which it sent the initiation, and the same number from
/// all other addresses. An honest peer sends one answer. An answer that cannot be decrypted costs
/// 0.15 ms.
pub(crate) const ANSWERS_READ_PER_ATTEMPT: u8 = 32;

/// The maximum number of ports of one worker.
pub const PORTS_MAX: usize = 1_024;

/// The maximum number of workers of one switch. Each worker is one bit in a word.
pub const WORKERS_MAX: usize = 64;

/// The number of bursts that a worker takes from one port in a poll. Each poll takes one burst from
/// every port, then another one from the ports whose burst was full.
pub(crate) const BURSTS_PER_POLL: usize = 4;

/// The maximum number of full bursts that a worker receives before it flushes its ports. Frames of
/// several bursts to one neighbour are sent in one operation, which nearly doubled the rate of
/// short frames over UDP. More bursts would only add delay.
pub(crate) const BURSTS_PER_FLUSH: usize = 4;

/// The maximum number of data frames in one egress queue: a whole burst, so that a burst to an idle
/// next hop is never refused.
pub const EGRESS_FRAMES_MAX: usize = BURST_MAX;

/// Places in one egress queue that only control frames (flag C) may take, so that an overload of
/// data does not displace control (R12).
pub const EGRESS_CONTROL_FRAMES_MAX: usize = 16;

/// Places in one egress queue that only the link's own messages may take (keepalives, path
/// challenges and path responses), so that other traffic never brings a link down.
pub(crate) const EGRESS_LINK_FRAMES_MAX: usize = 4;

/// The number of chunks for waiting frames that queues which do not drain leave free for queues
/// that drain: the content of two queues.
pub(crate) const EGRESS_SETTLED_SPARED: u32 = 2 * EGRESS_FRAMES_MAX as u32;

/// The time, in nanoseconds as a power of two, over which the rate of an egress queue is measured:
/// 134 ms. A queue counts as draining if it sends at least its present content in this time; a
/// queue that takes longer is hardly useful.
pub(crate) const EGRESS_DRAIN_WINDOW_NS_LOG2: u32 = 27;

/// The maximum number of control frames in a row that are sent while data waits: as many as have
/// places. After them, [`EGRESS_DATA_FOR_CONTROL`] data frames are sent for each control frame, so
/// that control takes at most a quarter of a link (R23).
pub(crate) const EGRESS_CONTROL_RUN: u16 = EGRESS_CONTROL_FRAMES_MAX as u16;
/// See [`EGRESS_CONTROL_RUN`].
pub(crate) const EGRESS_DATA_FOR_CONTROL: u16 = 3;

/// The number of bytes that weigh as much as the work for one frame. Shares of an egress queue and
/// the control rate count one for each frame and one for each 256 bytes. If a frame costs 300 ns,
/// this corresponds to 7 Gbit/s.
pub(crate) const FRAME_WEIGHT_BYTES: usize = 256;

/// The rate of control packets that are sent before data, for one ingress on one worker, as weight
/// per second: 500 short packets, or 80 of 1,400 bytes. Further control packets count as data. A
/// trace of the longest path sends 64 requests, and a switch answers 100 requests per second of one
/// ingress.
pub(crate) const CONTROL_WEIGHT_PER_SECOND: u32 = 500;
/// The burst that goes with [`CONTROL_WEIGHT_PER_SECOND`].
pub(crate) const CONTROL_WEIGHT_AT_ONCE: u32 = 128;

/// If a port leaves at least this number of frames in an egress queue, the worker marks congestion
/// in the ECN field (RFC 3168, section 5).
pub(crate) const EGRESS_MARK_FRAMES: usize = EGRESS_FRAMES_MAX / 2;

/// The maximum number of frames that wait on one worker for the keys of one idle link: a user's
/// first packet and a few later ones. Further ones are dropped, so that packets to a dead peer do
/// not exhaust the pool.
pub(crate) const LINK_FRAMES_WAITING_MAX: usize = 4;

/// The maximum number of frames that wait for keys on one worker, over all links. Each may occupy a
/// whole chunk.
pub const FRAMES_WAITING_MAX: usize = 32;

/// The maximum number of frames in one handoff ring: a few bursts, so that the other worker can
/// finish its present work.
pub const HANDOFF_FRAMES_MAX: usize = 4 * BURST_MAX;

/// Places in a handoff ring that only control frames may take, as in an egress queue.
pub(crate) const HANDOFF_CONTROL_FRAMES_MAX: usize = EGRESS_CONTROL_FRAMES_MAX;

/// The maximum number of packets addressed to this switch that wait for the slow path, which is one
/// thread. Further ones are dropped and counted, and forwarding continues.
pub const PUNTS_MAX: usize = 256;

/// The maximum number of notes that wait for the slow path. They hold no frames, and frames cannot
/// take their places.
pub(crate) const NOTES_MAX: usize = 1_024;

/// A worker makes each kind of note about a session (first frame, roamed, migrated) at most once in
/// this interval. The slow path acts on the first note.
pub(crate) const SESSION_NOTE_INTERVAL: Duration = Duration::from_millis(100);

/// The number of path challenges and responses of one session that a worker punts per second: four
/// times the number that two probes in each direction in 100 ms need.
pub(crate) const LINK_MESSAGES_PER_SECOND: u32 = 160;
/// The burst that goes with [`LINK_MESSAGES_PER_SECOND`].
pub(crate) const LINK_MESSAGES_AT_ONCE: u32 = 16;

/// The maximum number of handshake messages from addresses of links that wait for the slow path,
/// and also the maximum number of those from other addresses. The slow path answers some thousands
/// per second, so a longer queue would only add delay.
pub(crate) const HANDSHAKES_MAX: usize = 64;

/// The number of handshake messages that the slow path, under load, reads per second from one host
/// without a configured address. This is enough for one attempt, several hosts behind one address,
/// and their third messages.
pub(crate) const READS_PER_SECOND_AND_HOST: u32 = 5;
/// The burst that goes with [`READS_PER_SECOND_AND_HOST`].
pub(crate) const HOST_READS_AT_ONCE: u32 = 10;

/// As [`READS_PER_SECOND_AND_HOST`], but for one network: four times the rate of one host. Only
/// fifty flooding networks together use up the rate at which the slow path reads from unknown
/// senders.
pub(crate) const READS_PER_SECOND_AND_NETWORK: u32 = 20;
/// The burst that goes with [`READS_PER_SECOND_AND_NETWORK`].
pub(crate) const NETWORK_READS_AT_ONCE: u32 = 40;

/// The number of cookies sent per second to one host: a tenth of the total rate. It is not small,
/// because a flood with the forged address of a host leaves only this rate to that host.
pub(crate) const COOKIES_PER_SECOND_AND_HOST: u32 = 200;

/// The rows and cells of the sketch that separates sources: 16 KiB for each of three rates. Of a
/// thousand honest sources, one shares all its cells with a flood from a hundred sources.
pub(crate) const SOURCE_ROWS: usize = 4;
/// See [`SOURCE_ROWS`].
pub(crate) const SOURCE_CELLS: usize = 512;

/// The maximum time between two polls in which the slow path reads the counters of sealed links
/// that carry frames. If an eighth of the shortest liveness interval is less, the slow path polls
/// at that interval, so that it notices a dead link at most an eighth late.
pub(crate) const LOOK_EVERY_MAX_NS: u64 = 100_000_000;

/// The lifetime of the sketch's key, in nanoseconds. Two sources that share all cells share them
/// for at most this time.
pub(crate) const SOURCES_TOLD_APART_NS: u64 = 120_000_000_000;

/// The number of bursts that the slow path takes from one handshake socket in a poll, at most once
/// per millisecond. At this limit it reads a quarter of a million handshake messages per second. At
/// one microsecond each, they use a quarter of its time, and the socket keeps room for honest
/// senders.
pub const HANDSHAKE_BURSTS_MAX: usize = 4;

/// Rows and cells of the sketch that separates unknown senders in their queue: 768 bytes. The
/// probability that two hosts share all cells is 1 in 250,000.
pub(crate) const UNKNOWN_SENDER_ROWS: usize = 3;
/// See [`UNKNOWN_SENDER_ROWS`].
pub(crate) const UNKNOWN_SENDER_CELLS: usize = 64;
const _: () = assert!(UNKNOWN_SENDER_CELLS.pow(UNKNOWN_SENDER_ROWS as u32) <= u32::MAX as usize);

/// The maximum number of beacons in the queue of unknown senders: a quarter of its places, so that
/// beacons do not take the places of handshake messages.
pub(crate) const BEACONS_WAITING_MAX: usize = HANDSHAKES_MAX / 4;

/// The number of beacon signatures that the slow path checks per second for all ports together, at
/// some 70 us each. A segment with a hundred unreachable nodes sends fewer beacons.
pub(crate) const BEACONS_PER_SECOND: u32 = 100;
/// The number of beacon signatures that the slow path checks per second for one port.
pub const BEACONS_PER_SECOND_AND_PORT: u32 = 25;

/// The maximum number of handshakes that the switch runs at one time with unknown peers whose
/// beacons it has received.
pub const BEACON_CALLS_MAX: usize = 8;

/// The maximum number of drop notices that wait for the slow path. Packets and links' own messages
/// have separate queues.
pub(crate) const DROP_NOTICES_MAX: usize = PUNTS_MAX / 2;

/// The maximum number of path challenges and responses that wait for the slow path. They have a
/// separate queue, so that a flood of requests brings no link down. The queue has room for the
/// bursts of eight sessions.
pub(crate) const LINK_MESSAGES_MAX: usize = 8 * LINK_MESSAGES_AT_ONCE as usize;

/// The number of packets addressed to this switch that a worker punts per second for one ingress.
/// The slow path answers [`ANSWERS_PER_SECOND`] requests and sends [`QUESTIONS_MAX`].
pub(crate) const PACKETS_UP_PER_SECOND: u32 = 400;
/// The burst that goes with [`PACKETS_UP_PER_SECOND`].
pub(crate) const PACKETS_UP_AT_ONCE: u32 = 2 * ANSWERS_AT_ONCE;

/// The rate limit, for one link on one worker, of notes that every frame could cause. Only the
/// first such note contains new information.
pub(crate) const LINK_NOTES_PER_SECOND: u32 = 20;
/// The burst that goes with [`LINK_NOTES_PER_SECOND`].
pub(crate) const LINK_NOTES_AT_ONCE: u32 = 2;

/// The number of drop notices, of handshake initiations and of handshake answers that a worker
/// punts per second for one link. Each kind has a separate limit. The slow path answers fewer.
pub(crate) const LINK_PUNTS_PER_SECOND: u32 = 1_000;
/// The burst that goes with [`LINK_PUNTS_PER_SECOND`].
pub(crate) const LINK_PUNTS_AT_ONCE: u32 = 8;

/// The number of bytes of a dropped packet that a drop notice holds: the longest switch header and
/// the first fields of a control message.
pub(crate) const HEAD_BYTES_MAX: usize = HEADER_BYTES_MAX + 8;

/// The minimum time, in seconds, for which a switch begins no handshake with a neighbour that sent
/// a goodbye. Until the neighbour has stopped, it still answers, and a useless link would come up.
pub(crate) const GOODBYE_RETRY_S_MIN: u32 = 1;

/// The maximum time, in seconds, for which a goodbye can ask a switch to begin no handshake.
pub(crate) const GOODBYE_RETRY_S_MAX: u32 = 3_600;

/// The number of requests from one ingress that a switch answers per second. A trace of the longest
/// path sends 64.
pub(crate) const ANSWERS_PER_SECOND: u32 = 100;
/// The burst that goes with [`ANSWERS_PER_SECOND`].
pub(crate) const ANSWERS_AT_ONCE: u32 = 64;

/// The number of errors that a switch sends per second about packets of one ingress (RFC 4443,
/// section 2.4 (f)).
pub(crate) const ERRORS_PER_SECOND: u32 = 20;
/// The burst that goes with [`ERRORS_PER_SECOND`].
pub(crate) const ERRORS_AT_ONCE: u32 = 10;

/// The number of notices about its own packets that a switch accepts per second from one ingress.
/// Each notice becomes an event, and every switch on a path may send one.
pub(crate) const NOTICES_PER_SECOND: u32 = 4;
/// The burst that goes with [`NOTICES_PER_SECOND`].
pub(crate) const NOTICES_AT_ONCE: u32 = 16;

/// The number of goodbyes that a switch accepts from one neighbour per second.
pub(crate) const GOODBYES_PER_SECOND: u32 = 1;
/// The burst that goes with [`GOODBYES_PER_SECOND`].
pub(crate) const GOODBYES_AT_ONCE: u32 = 4;

/// The maximum number of the switch's own requests that wait for replies.
pub const QUESTIONS_MAX: usize = 64;

/// The number of the switch's own request packets for which it accepts notices: all that wait for a
/// reply, and the same number of answered ones.
pub(crate) const QUESTIONS_REMEMBERED_MAX: usize = 2 * QUESTIONS_MAX;

/// The maximum step of the caller's clock that counts in full, in nanoseconds. It is longer than
/// the lifetime of any key, so that a machine that slept begins new handshakes, and short enough
/// that a wrong clock cannot reach the end of the time range.
pub(crate) const CLOCK_STEP_MAX_NS: u64 = 3_600_000_000_000;

/// The maximum step of the caller's clock that counts in full for quarantines, in nanoseconds. A
/// jump of the clock must not end a quarantine. So this step is far shorter than a quarantine, and
/// far longer than the time between two polls of the slow path.
pub(crate) const QUARANTINE_STEP_MAX_NS: u64 = 5_000_000_000;

/// The number of places in a handoff ring that one ingress, or one source of unopened frames, may
/// hold for each free place.
pub(crate) const HANDOFF_SHARE: usize = 4;

/// The maximum number of commands that wait for one worker, and of completions that wait for the
/// slow path. A worker takes a command only if there is room for its completion, so no completion
/// is lost.
pub const COMMANDS_MAX: usize = 64;

/// The number of polls for which the slow path delays the publication of a new slot number, so that
/// later ones can be published together with it. A start with thousands of peers then needs one
/// table for each 16 rounds of commands, not one for each peer. A poll takes a fraction of a
/// millisecond while commands are under way, and a single number is not delayed.
pub(crate) const PUBLISH_POLLS_MAX: u32 = 16;

/// The maximum number of outgoing messages that wait for one worker after its commands. Further
/// ones are dropped, as any datagram may be, so that a slow worker does not make the queue grow.
pub(crate) const MESSAGES_WAITING_MAX: usize = 4 * COMMANDS_MAX;

/// The maximum number of answers and errors that wait for a worker after all its commands: twice a
/// trace of the longest path. Each ingress has a share. Further ones are dropped and counted.
pub const ANSWERS_WAITING_MAX: usize = 2 * ANSWERS_AT_ONCE as usize;

/// The maximum number of commands that a worker applies in one poll. It bounds the time that
/// commands take from forwarding.
pub(crate) const COMMANDS_PER_POLL: usize = 4;

/// The number of slot numbers, including quarantined and kept ones, that unknown peers may have for
/// each permitted link: one in use and three that earlier peers left. So peers can come and go, but
/// a flood of them takes no further numbers. The total is at most half of all numbers.
pub const UNKNOWN_NUMBERS_PER_LINK: usize = 4;

/// The divisor for the number of slot numbers that are reserved for configured peers: an eighth of
/// all numbers, and at least one.
pub(crate) const NUMBERS_RESERVED_DIVISOR: usize = 8;
/// See [`NUMBERS_RESERVED_DIVISOR`].
pub(crate) const NUMBERS_RESERVED_MIN: usize = 1;

/// The maximum number of hops that a frame may have left: 256 label bits hold 64 directors of 4
/// bits, the narrowest common form.
pub const HOPS_MAX: u8 = 64;

/// The length of the shortest packet: link header and switch header with a 64-bit label.
pub const FRAME_BYTES_MIN: usize = LINK_HEADER_BYTES + HEADER_64_BYTES;

/// The length of the longest frame that is forwarded: the payload of a jumbo Ethernet frame (9,000)
/// and the overhead, rounded up. No path accepts longer datagrams.
pub const FRAME_BYTES_MAX: usize = 9_216;

const _: () = assert!(SESSIONS_MAX.is_power_of_two() && SESSIONS_MAX == u16::MAX as usize + 1);
const _: () = assert!(
    SESSIONS_MAX / ATTACHED_MAX
        >= 2 + strowger_crypto::limits::NEXT_MAX + strowger_crypto::limits::ATTEMPTS_MAX
);
const _: () = assert!(SOURCE_ROWS * 16 <= 64 && SOURCE_CELLS <= 1 << 16);
const _: () = assert!(EGRESS_FRAMES_MAX >= BURST_MAX);
const _: () = assert!(EGRESS_MARK_FRAMES < EGRESS_FRAMES_MAX);
const _: () = assert!(HANDOFF_CONTROL_FRAMES_MAX < HANDOFF_FRAMES_MAX);
const _: () = assert!(LINK_FRAMES_WAITING_MAX < FRAMES_WAITING_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(FRAME_BYTES_MIN < FRAME_BYTES_MAX);
