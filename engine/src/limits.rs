//! The limits of the engine, the reasons for them, and how they relate. Configured values must stay
//! within them.

use core::time::Duration;

use strowger_frame::BURST_MAX;
use strowger_wire::{
    link_header::LINK_HEADER_BYTES,
    switch_header::{HEADER_64_BYTES, HEADER_BYTES_MAX},
};

/// The maximum number of links and endpoints of one switch. It determines the size of each worker's
/// tables, which are allocated at start (R13).
pub const ATTACHED_MAX: usize = 8_192;

/// The maximum number of sessions and unfinished handshakes of a worker. Each link can have its
/// previous keys, its current keys, keys that its peer may still begin to use, and handshake
/// attempts that wait for a response. The number is a power of two, because the low bits of a
/// session index are its place, and the higher bits are random.
pub(crate) const SESSIONS_MAX: usize = 8 * ATTACHED_MAX;

/// The maximum number of responses with a valid mac that the slow path reads per handshake attempt.
/// This number may come from addresses to which initiations were sent, and the same number from all
/// other addresses. An honest peer sends one response. A response that cannot be decrypted costs
/// 0.15 ms.
pub(crate) const ANSWERS_READ_PER_ATTEMPT: u8 = 32;

/// The maximum number of ports of one worker.
pub const PORTS_MAX: usize = 1_024;

/// The maximum number of workers of one switch. Each worker is one bit in a word.
pub const WORKERS_MAX: usize = 64;

/// The maximum number of bursts that a worker takes from one port in a poll. Each poll takes one
/// burst from every port, then further ones from the ports whose last burst was full.
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

/// The number of chunks for waiting frames that are reserved for queues that drain: the content of
/// two queues. A queue that does not drain must leave this number free.
pub(crate) const EGRESS_SETTLED_SPARED: u32 = 2 * EGRESS_FRAMES_MAX as u32;

/// The time, in nanoseconds as a power of two, over which the rate of an egress queue is measured:
/// 134 ms. A queue counts as draining if it sends at least its present content in this time. Frames
/// that wait longer are hardly useful.
pub(crate) const EGRESS_DRAIN_WINDOW_NS_LOG2: u32 = 27;

/// The maximum number of control frames in a row that are sent while data waits: the number of
/// control frames that the queue can hold. After them, [`EGRESS_DATA_FOR_CONTROL`] data frames are
/// sent for each control frame, so that control takes at most a quarter of a link (R23).
pub(crate) const EGRESS_CONTROL_RUN: u16 = EGRESS_CONTROL_FRAMES_MAX as u16;
/// The number of data frames for each control frame after a run: see [`EGRESS_CONTROL_RUN`].
pub(crate) const EGRESS_DATA_FOR_CONTROL: u16 = 3;

/// The number of bytes that count as much as one frame. In shares of an egress queue and in the
/// control rate, a frame has the weight one, plus one for each full 256 bytes. If a frame costs 300
/// ns, this corresponds to 7 Gbit/s.
pub(crate) const FRAME_WEIGHT_BYTES: usize = 256;

/// The rate limit, per ingress and worker, of control packets that are sent before data, as weight
/// per second: 500 packets of less than 256 bytes, or 83 of 1,400 bytes. Further control packets
/// count as data. A trace of the longest path sends 64 requests, and a switch replies to 100
/// requests per second and ingress.
pub(crate) const CONTROL_WEIGHT_PER_SECOND: u32 = 500;
/// The burst that goes with [`CONTROL_WEIGHT_PER_SECOND`].
pub(crate) const CONTROL_WEIGHT_AT_ONCE: u32 = 128;

/// If a port leaves at least this number of frames in an egress queue, the worker marks congestion
/// in the ECN field (RFC 3168, section 5).
pub(crate) const EGRESS_MARK_FRAMES: usize = EGRESS_FRAMES_MAX / 2;

/// The maximum number of frames per worker that wait for the keys of one idle link: a user's first
/// packet and a few later ones. Further ones are dropped, so that packets to a dead peer do not
/// exhaust the pool.
pub(crate) const LINK_FRAMES_WAITING_MAX: usize = 4;

/// The maximum number of frames per worker that wait for keys, over all links. Each may occupy a
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

/// The maximum number of notes that wait for the slow path. Notes hold no frames and have a
/// separate queue, so frames cannot take their places.
pub(crate) const NOTES_MAX: usize = 1_024;

/// The minimum time between two notes of the same kind about a session (keepalive, migrated,
/// roamed). Roamed notes may also come in bursts: [`ROAMED_NOTES_AT_ONCE`].
pub(crate) const SESSION_NOTE_INTERVAL: Duration = Duration::from_millis(100);

/// The burst, per session, of notes that frames arrive from an address other than the link's. A
/// keepalive is shorter than a path challenge, so its note alone allows no challenge. The frame
/// that follows it needs a note, too.
pub(crate) const ROAMED_NOTES_AT_ONCE: u32 = 4;

/// The rate limit, per session, of path challenges and path responses that a worker punts: four
/// times the number that two probes in each direction per 100 ms need.
pub(crate) const LINK_MESSAGES_PER_SECOND: u32 = 160;
/// The burst that goes with [`LINK_MESSAGES_PER_SECOND`].
pub(crate) const LINK_MESSAGES_AT_ONCE: u32 = 16;

/// The maximum number of handshake messages from addresses of links that wait for the slow path,
/// and also the maximum number of those from other addresses. The slow path handles some thousands
/// per second, so a longer queue would only add delay.
pub(crate) const HANDSHAKES_MAX: usize = 64;

/// The number of handshake messages that the slow path, under load, reads per second and host. It
/// applies to hosts at which no peer is known. This is enough for one handshake, with its third
/// message, of each of several hosts behind one address.
pub(crate) const READS_PER_SECOND_AND_HOST: u32 = 5;
/// The burst that goes with [`READS_PER_SECOND_AND_HOST`].
pub(crate) const HOST_READS_AT_ONCE: u32 = 10;

/// As [`READS_PER_SECOND_AND_HOST`], but per network: four times the rate per host. The floods of
/// fifty networks use up the rate at which the slow path reads from unknown senders.
pub(crate) const READS_PER_SECOND_AND_NETWORK: u32 = 20;
/// The burst that goes with [`READS_PER_SECOND_AND_NETWORK`].
pub(crate) const NETWORK_READS_AT_ONCE: u32 = 40;

/// The number of cookie replies that are sent per second and host: a tenth of the total rate. It is
/// not small, because a flood with the forged address of a host leaves only this rate to that host.
pub(crate) const COOKIES_PER_SECOND_AND_HOST: u32 = 200;

/// The rows and cells of the count-min sketch that separates sources: 16 KiB for each of three
/// rates. Of a thousand honest sources, one shares all its cells with a flood from a hundred
/// sources.
pub(crate) const SOURCE_ROWS: usize = 4;
/// See [`SOURCE_ROWS`].
pub(crate) const SOURCE_CELLS: usize = 512;

/// The maximum time between two polls in which the slow path reads the counters of sealed links
/// that carry frames. If an eighth of the shortest liveness interval is less, this eighth applies
/// instead, so that the slow path notices a dead link at most an eighth of an interval late.
pub(crate) const LOOK_EVERY_MAX_NS: u64 = 100_000_000;

/// The lifetime, in nanoseconds, of the hash key of the sketch that separates sources. Two sources
/// that share all cells share them for at most this time.
pub(crate) const SOURCES_TOLD_APART_NS: u64 = 120_000_000_000;

/// The maximum number of bursts that the slow path takes from one handshake socket in a poll. The
/// slow path is polled at most once per millisecond. At this limit it reads a quarter of a million
/// handshake messages per second. At one microsecond each, they use a quarter of its time, and the
/// socket keeps room for honest senders.
pub const HANDSHAKE_BURSTS_MAX: usize = 4;

/// Rows and cells of the count-min sketch that separates unknown senders in their queue: 768 bytes.
/// The probability that two hosts share all cells is 1 in 250,000.
pub(crate) const UNKNOWN_SENDER_ROWS: usize = 3;
/// See [`UNKNOWN_SENDER_ROWS`].
pub(crate) const UNKNOWN_SENDER_CELLS: usize = 64;
const _: () = assert!(UNKNOWN_SENDER_CELLS.pow(UNKNOWN_SENDER_ROWS as u32) <= u32::MAX as usize);

/// A beacon joins the queue of unknown senders only while fewer than this number of places are
/// used: a quarter, so that beacons do not take the places of handshake messages.
pub(crate) const BEACONS_WAITING_MAX: usize = HANDSHAKES_MAX / 4;

/// The number of beacon signatures that the slow path checks per second, over all ports. A check
/// takes about 70 us. A segment with a hundred unreachable nodes sends fewer beacons.
pub(crate) const BEACONS_PER_SECOND: u32 = 100;
/// The number of beacon signatures that the slow path checks per second and port.
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

/// The rate limit, per ingress, of packets addressed to this switch that a worker punts. The slow
/// path replies to [`REPLIES_PER_SECOND`] requests per second and ingress, and awaits replies to at
/// most [`REQUESTS_MAX`] of its own requests.
pub(crate) const PACKETS_UP_PER_SECOND: u32 = 400;
/// The burst that goes with [`PACKETS_UP_PER_SECOND`].
pub(crate) const PACKETS_UP_AT_ONCE: u32 = 2 * REPLIES_AT_ONCE;

/// The rate limit, per link and worker, of notes that every frame could cause. Only the first such
/// note contains new information.
pub(crate) const LINK_NOTES_PER_SECOND: u32 = 20;
/// The burst that goes with [`LINK_NOTES_PER_SECOND`].
pub(crate) const LINK_NOTES_AT_ONCE: u32 = 2;

/// The rate limit, per link, of drop notices, of handshake initiations, and of handshake responses
/// and cookie replies that a worker punts. Each of the three has a separate limit. The slow path
/// handles fewer.
pub(crate) const LINK_PUNTS_PER_SECOND: u32 = 1_000;
/// The burst that goes with [`LINK_PUNTS_PER_SECOND`].
pub(crate) const LINK_PUNTS_AT_ONCE: u32 = 8;

/// The number of bytes of a dropped packet that a drop notice holds: the longest switch header and
/// the first fields of a control message.
pub(crate) const HEAD_BYTES_MAX: usize = HEADER_BYTES_MAX + 8;

/// The minimum time, in seconds, for which a switch begins no handshake with a neighbour that sent
/// a goodbye. Until the neighbour has stopped, it still answers handshakes, and a useless link
/// would come up.
pub(crate) const GOODBYE_RETRY_S_MIN: u32 = 1;

/// The maximum time, in seconds, for which a goodbye can ask a switch to begin no handshake.
pub(crate) const GOODBYE_RETRY_S_MAX: u32 = 3_600;

/// The number of requests from one ingress to which a switch replies per second. A trace of the
/// longest path sends 64.
pub(crate) const REPLIES_PER_SECOND: u32 = 100;
/// The burst that goes with [`REPLIES_PER_SECOND`].
pub(crate) const REPLIES_AT_ONCE: u32 = 64;

/// The number of find messages from one ingress to which a switch replies per second. Each costs a
/// keyed hash for each announcement: about 0.3 ms with [`ANNOUNCEMENTS_MAX`] of them.
pub(crate) const FINDS_PER_SECOND: u32 = 16;
/// The burst that goes with [`FINDS_PER_SECOND`]. A node asks 16 switches at a time, each once for
/// each peer.
pub(crate) const FINDS_AT_ONCE: u32 = 32;

/// The number of announcements that a switch reads per second from one slot. Each costs the
/// verification of two signatures.
pub(crate) const ANNOUNCES_PER_SECOND: u32 = 1;
/// The burst that goes with [`ANNOUNCES_PER_SECOND`]: all identities of a slot, twice.
pub(crate) const ANNOUNCES_AT_ONCE: u32 = 16;

/// The number of identities that may be announced at one slot. A program usually has one.
pub(crate) const ANNOUNCEMENTS_PER_SLOT_MAX: usize = 8;

/// The number of announcements that a switch keeps. It bounds the cost of a find message, and the
/// memory to about 300 KiB.
pub(crate) const ANNOUNCEMENTS_MAX: usize = 1_024;

/// The maximum time, in seconds, for which an announcement is valid. An endpoint repeats it.
pub(crate) const ANNOUNCE_S_MAX: u32 = 3_600;

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
pub const REQUESTS_MAX: usize = 64;

/// The number of the switch's own request packets for which it accepts notices: all that wait for a
/// reply, and the same number of earlier ones.
pub(crate) const REQUESTS_REMEMBERED_MAX: usize = 2 * REQUESTS_MAX;

/// The maximum step of the caller's clock that counts in full, in nanoseconds. It is longer than
/// the lifetime of any key, so that a machine that slept begins new handshakes, and short enough
/// that a wrong clock cannot reach the end of the time range.
pub(crate) const CLOCK_STEP_MAX_NS: u64 = 3_600_000_000_000;

/// The maximum step of the caller's clock that counts in full for quarantines, in nanoseconds. A
/// jump of the clock must not end a quarantine. So this step is far shorter than a quarantine, and
/// far longer than the time between two polls of the slow path.
pub(crate) const QUARANTINE_STEP_MAX_NS: u64 = 5_000_000_000;

/// The factor of the dynamic threshold in a handoff ring: one ingress, or one source of unopened
/// frames, may hold at most this factor times the number of free places.
pub(crate) const HANDOFF_SHARE: usize = 4;

/// The maximum number of commands that wait for one worker, and of completions that wait for the
/// slow path. A worker takes a command only if there is room for its completion, so no completion
/// is lost.
pub const COMMANDS_MAX: usize = 64;

/// The maximum number of polls for which the slow path delays the publication of a new slot number,
/// so that later ones can be published together with it. A start with thousands of peers then needs
/// one table for each 16 rounds of commands, not one for each peer. While commands are in progress,
/// a poll takes a fraction of a millisecond. A single number is not delayed.
pub(crate) const PUBLISH_POLLS_MAX: u32 = 16;

/// An outgoing message is dropped if this number of commands and messages already waits for its
/// worker. Datagrams may be lost anyway, and a slow worker must not make the queue grow.
pub(crate) const MESSAGES_WAITING_MAX: usize = 4 * COMMANDS_MAX;

/// The maximum number of replies and errors that wait for a worker, behind all its commands: twice
/// a trace of the longest path. Each ingress has a share. Further ones are dropped and counted.
pub const REPLIES_WAITING_MAX: usize = 2 * REPLIES_AT_ONCE as usize;

/// The maximum number of commands that a worker applies in one poll. It bounds the time that
/// commands take from forwarding.
pub(crate) const COMMANDS_PER_POLL: usize = 4;

/// The number of slot numbers, including quarantined and kept ones, that unknown peers may have for
/// each permitted link: one in use and three that earlier peers left. So peers can come and go, but
/// a flood of them takes no further numbers. The total is at most half of all numbers.
pub const UNKNOWN_NUMBERS_PER_LINK: usize = 4;

/// An eighth of all slot numbers, and at least one number, is reserved for configured peers.
pub(crate) const NUMBERS_RESERVED_DIVISOR: usize = 8;
/// See [`NUMBERS_RESERVED_DIVISOR`].
pub(crate) const NUMBERS_RESERVED_MIN: usize = 1;

/// The maximum number of hops that a frame may have left: 256 label bits hold 64 directors of 4
/// bits, the narrowest common form.
pub const HOPS_MAX: u8 = 64;

/// The length of the shortest frame that contains a packet: link header and switch header with a
/// 64-bit label.
pub const FRAME_BYTES_MIN: usize = LINK_HEADER_BYTES + HEADER_64_BYTES;

/// The length of the longest frame that is forwarded: the payload of a jumbo Ethernet frame (9,000)
/// and the overhead, rounded up. Longer frames are dropped as `too_long`.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that docs/wire.md states. Other tests use the constants by name, so they would
    /// not notice a changed value.
    ///
    /// wire.md: W2-6, W2-9, W2-11, W2-17, W2-19, W3-47, W4-79, W4-87, W4-106, W5-10, W5-61, W5-71,
    /// W5-72, W5-74, W5-94, W5-96, W5-106, W10-22, W10-23.
    #[test]
    fn the_limits_are_those_of_the_specification() {
        assert_eq!((HOPS_MAX, FRAME_BYTES_MIN, FRAME_BYTES_MAX), (64, 24, 9_216));
        assert_eq!((CONTROL_WEIGHT_PER_SECOND, CONTROL_WEIGHT_AT_ONCE), (500, 128));
        assert_eq!((FRAME_WEIGHT_BYTES, EGRESS_MARK_FRAMES), (256, 32));
        assert_eq!((LINK_MESSAGES_PER_SECOND, LINK_MESSAGES_AT_ONCE), (160, 16));
        assert_eq!((READS_PER_SECOND_AND_HOST, READS_PER_SECOND_AND_NETWORK), (5, 20));
        assert_eq!((COOKIES_PER_SECOND_AND_HOST, ANSWERS_READ_PER_ATTEMPT), (200, 32));
        assert_eq!(LINK_FRAMES_WAITING_MAX, 4);
        assert_eq!((REPLIES_PER_SECOND, REPLIES_AT_ONCE), (100, 64));
        assert_eq!((ERRORS_PER_SECOND, ERRORS_AT_ONCE), (20, 10));
        assert_eq!((NOTICES_PER_SECOND, NOTICES_AT_ONCE), (4, 16));
        assert_eq!((GOODBYES_PER_SECOND, GOODBYES_AT_ONCE), (1, 4));
        assert_eq!((GOODBYE_RETRY_S_MIN, GOODBYE_RETRY_S_MAX), (1, 3_600));
        assert_eq!((FINDS_PER_SECOND, FINDS_AT_ONCE), (16, 32));
        assert_eq!((ANNOUNCES_PER_SECOND, ANNOUNCES_AT_ONCE), (1, 16));
        assert_eq!((ANNOUNCEMENTS_PER_SLOT_MAX, ANNOUNCEMENTS_MAX), (8, 1_024));
        assert_eq!(ANNOUNCE_S_MAX, 3_600);
        assert_eq!(BEACON_CALLS_MAX, 8);
        assert_eq!((BEACONS_PER_SECOND_AND_PORT, BEACONS_PER_SECOND), (25, 100));
    }
}
