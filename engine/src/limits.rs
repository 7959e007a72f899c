//! Every bound of the data plane, its reason, and how they relate. Nothing here is read from a
//! configuration; what an operator may set is bounded by these.

use core::time::Duration;

use strowger_frame::BURST_MAX;
use strowger_wire::{
    link_header::LINK_HEADER_BYTES,
    switch_header::{HEADER_64_BYTES, HEADER_BYTES_MAX},
};

/// Links and endpoints that one switch can have attached. Bounds every table that a worker holds,
/// all of which are sized at start (R13).
pub const ATTACHED_MAX: usize = 8_192;

/// Sessions that a worker can open frames of, and handshakes that may become some: of every link its
/// previous and its current keys, those that its peer may still take into use, and the attempts whose
/// answers count. It is a power of two, for the bits above it in an index are random.
pub(crate) const SESSIONS_MAX: usize = 8 * ATTACHED_MAX;

/// Answers with a right mac that are read for each attempt at a handshake, from the address that was asked,
/// and as many from elsewhere: honest ends send one, and each that cannot be read costs some 0.15 ms.
pub(crate) const ANSWERS_READ_PER_ATTEMPT: u8 = 32;

/// Ports of one worker.
pub const PORTS_MAX: usize = 1_024;

/// Workers of one switch: one bit each in a word.
pub const WORKERS_MAX: usize = 64;

/// Bursts that are taken from one port in a poll, if it has as many. Each poll takes one from every port,
/// then another from those that filled theirs.
pub(crate) const BURSTS_PER_POLL: usize = 4;

/// Full bursts that are taken in before what they led to is let go: frames of several bursts to one
/// neighbour ride in one send, which was measured to nearly double the rate of short frames over UDP;
/// more would only add delay.
pub(crate) const BURSTS_PER_FLUSH: usize = 4;

/// Frames that wait at one exit: one whole burst may leave by one exit, so a burst that meets an
/// idle exit is never refused.
pub const EGRESS_FRAMES_MAX: usize = BURST_MAX;

/// Places at one exit that only control frames (flag C) may take, so that control survives a data
/// overload (R12).
pub const EGRESS_CONTROL_FRAMES_MAX: usize = 16;

/// Places at one exit for what the link itself sends (keepalives, path challenges and answers): a few,
/// which no packet takes, so that a link is never down for the traffic at its exit.
pub(crate) const EGRESS_LINK_FRAMES_MAX: usize = 4;

/// Chunks of the memory for waiting frames that exits which do not drain leave to those that do: two exits' queues.
pub(crate) const EGRESS_SETTLED_SPARED: u32 = 2 * EGRESS_FRAMES_MAX as u32;

/// The time, in nanoseconds as a power of two, in which an exit has to let go as many frames as it keeps
/// waiting, to count as one that drains: 134 ms. A queue that takes longer to leave is of little use.
pub(crate) const EGRESS_DRAIN_WINDOW_NS_LOG2: u32 = 27;

/// Control frames that go ahead of waiting data at once: all that have places. Behind them data has
/// [`EGRESS_DATA_FOR_CONTROL`] frames for each control frame, so that control, however much of it there
/// is and from however many, takes a quarter of an exit at most (R23).
pub(crate) const EGRESS_CONTROL_RUN: u16 = EGRESS_CONTROL_FRAMES_MAX as u16;
/// See [`EGRESS_CONTROL_RUN`].
pub(crate) const EGRESS_DATA_FOR_CONTROL: u16 = 3;

/// Bytes of a frame that weigh as much as the work for any frame. A share of an exit, and a control
/// budget, count one for each frame and one more for each of these: some 7 Gbit/s where a frame costs
/// 300 ns.
pub(crate) const FRAME_WEIGHT_BYTES: usize = 256;

/// Control packets of one ingress that go ahead of data on one worker: so much weight a second, which is
/// 500 short packets or 80 of 1,400 bytes, and so much at once. A trace of the longest path asks 64
/// times, and a switch answers 100 questions a second by one ingress. Beyond it control packets are data.
pub(crate) const CONTROL_WEIGHT_PER_SECOND: u32 = 500;
/// See [`CONTROL_WEIGHT_PER_SECOND`].
pub(crate) const CONTROL_WEIGHT_AT_ONCE: u32 = 128;

/// Frames that a port left behind when it was last asked: from here on congestion is marked in the
/// frames' ECN field (RFC 3168, section 5).
pub(crate) const EGRESS_MARK_FRAMES: usize = EGRESS_FRAMES_MAX / 2;

/// Frames that wait on one worker for the keys of one quiet link: a user's first packet and what a
/// hasty one sends after it. What comes then is refused, so that nobody fills memory by asking for
/// whom nobody answers.
pub(crate) const LINK_FRAMES_WAITING_MAX: usize = 4;

/// Frames that wait so on one worker, whatever their links. Each may hold a whole chunk.
pub const FRAMES_WAITING_MAX: usize = 32;

/// Frames from one worker to another that wait on their handoff ring: a few bursts, enough that
/// the other may finish what it is doing.
pub const HANDOFF_FRAMES_MAX: usize = 4 * BURST_MAX;

/// Places of those that only control frames may take, as at an exit.
pub(crate) const HANDOFF_CONTROL_FRAMES_MAX: usize = EGRESS_CONTROL_FRAMES_MAX;

/// Packets for the switch itself that wait for the slow path. It is one thread and may be busy; what it cannot keep up
/// with is refused and counted, and forwarding goes on.
pub const PUNTS_MAX: usize = 256;

/// What workers have noticed and the slow path should know: no frames, so that frames cannot crowd it
/// out.
pub(crate) const NOTES_MAX: usize = 1_024;

/// A session's worker notes each kind of news about the session (heard, roamed, migrated) at most once in this
/// time: the slow path acts on the first note, and the data path must not fill its queue.
pub(crate) const SESSION_NOTE_INTERVAL: Duration = Duration::from_millis(100);

/// Path challenges and answers of one session that a worker punts per second: two probes each way within
/// 100 ms, four times over.
pub(crate) const LINK_MESSAGES_PER_SECOND: u32 = 160;
/// See [`LINK_MESSAGES_PER_SECOND`]: those that it punts in a row.
pub(crate) const LINK_MESSAGES_AT_ONCE: u32 = 16;

/// Handshake messages that wait for the slow path, from known addresses, and as many from others: it
/// answers some thousands a second, so more would only grow old in the queue.
pub(crate) const HANDSHAKES_MAX: usize = 64;

/// Handshake messages a second that are read under load of one host that no address is written for, and
/// how many at once: one attempt a second, some hosts behind one address, and their third messages.
pub(crate) const READS_PER_SECOND_AND_HOST: u32 = 5;
/// See [`READS_PER_SECOND_AND_HOST`].
pub(crate) const HOST_READS_AT_ONCE: u32 = 10;

/// The same of one network: four hosts' share, so that fifty networks that flood at once take what can be read
/// of such senders, and fewer do not.
pub(crate) const READS_PER_SECOND_AND_NETWORK: u32 = 20;
/// See [`READS_PER_SECOND_AND_NETWORK`].
pub(crate) const NETWORK_READS_AT_ONCE: u32 = 40;

/// Cookies a second for one host: a tenth of all. Where a source can be forged it is the bound of what
/// a flood in its name leaves to it, so it is not small.
pub(crate) const COOKIES_PER_SECOND_AND_HOST: u32 = 200;

/// Rows and cells that distinguish sources: 16 KiB for each of three rates. A hundred that flood at
/// once take all cells of one honest source in a thousand.
pub(crate) const SOURCE_ROWS: usize = 4;
/// See [`SOURCE_ROWS`].
pub(crate) const SOURCE_CELLS: usize = 512;

/// While frames of sealed links move, the slow path looks at their counters this often, or eight times in the
/// shortest interval of liveness, if that is more often: a link that dies is noticed an eighth late at most.
pub(crate) const LOOK_EVERY_MAX_NS: u64 = 100_000_000;

/// How long two sources that share their cells do so.
pub(crate) const SOURCES_TOLD_APART_NS: u64 = 120_000_000_000;

/// Bursts that the slow path takes in by one handshake socket in a turn, of which it makes at most one a millisecond:
/// a quarter of a million handshakes a second at a microsecond each, so that a flood keeps it busy for a
/// quarter of its time, and whoever is honest finds room in the socket.
pub const HANDSHAKE_BURSTS_MAX: usize = 4;

/// Rows and cells by which senders that are not known are told apart in their queue: 768 bytes. Two hosts share
/// all their cells once in a quarter of a million.
pub(crate) const UNKNOWN_SENDER_ROWS: usize = 3;
/// See [`UNKNOWN_SENDER_ROWS`].
pub(crate) const UNKNOWN_SENDER_CELLS: usize = 64;
const _: () = assert!(UNKNOWN_SENDER_CELLS.pow(UNKNOWN_SENDER_ROWS as u32) <= u32::MAX as usize);

/// Beacons that wait among them: a quarter of what may come from unknown peers, so that whoever says that it
/// is there does not keep out who handshakes.
pub(crate) const BEACONS_WAITING_MAX: usize = HANDSHAKES_MAX / 4;

/// Signatures of beacons that are looked at in a second, at all ports together and at each: some 70 us
/// of the slow path each. A hundred nodes of one segment that cannot be reached say less.
pub(crate) const BEACONS_PER_SECOND: u32 = 100;
/// See [`BEACONS_PER_SECOND`].
pub const BEACONS_PER_SECOND_AND_PORT: u32 = 25;

/// Unknown peers of whom a beacon was heard, and who are just being asked who they are.
pub const BEACON_CALLS_MAX: usize = 8;

/// Reports of discarded packets that wait for the slow path, apart from packets and from links' own messages.
pub(crate) const DROP_NOTICES_MAX: usize = PUNTS_MAX / 2;

/// Messages of links themselves (path challenges and answers) that wait for the slow path, apart from
/// all else, so that no link goes down for questions. So many sessions say all that they may at once.
pub(crate) const LINK_MESSAGES_MAX: usize = 8 * LINK_MESSAGES_AT_ONCE as usize;

/// Packets for the switch itself by one ingress and worker that are punted: so many a second, and so
/// many at once. The slow path answers [`ANSWERS_PER_SECOND`] questions, and asks [`QUESTIONS_MAX`].
pub(crate) const PACKETS_UP_PER_SECOND: u32 = 400;
/// See [`PACKETS_UP_PER_SECOND`].
pub(crate) const PACKETS_UP_AT_ONCE: u32 = 2 * ANSWERS_AT_ONCE;

/// Notes about one link on one worker of what each of its frames would say: so many a second, and so many
/// at once. They are news once.
pub(crate) const LINK_NOTES_PER_SECOND: u32 = 20;
/// See [`LINK_NOTES_PER_SECOND`].
pub(crate) const LINK_NOTES_AT_ONCE: u32 = 2;

/// Drop notices, handshake initiations and handshake answers of one link that a worker punts per second, each
/// kind by itself: the slow path answers fewer, so more would only cost.
pub(crate) const LINK_PUNTS_PER_SECOND: u32 = 1_000;
/// See [`LINK_PUNTS_PER_SECOND`]: those that it punts in a row.
pub(crate) const LINK_PUNTS_AT_ONCE: u32 = 8;

/// What is kept of a packet that went no further: the longest switch header, and the first fields
/// of a control message.
pub(crate) const HEAD_BYTES_MAX: usize = HEADER_BYTES_MAX + 8;

/// However soon a neighbour may be asked again by its goodbye, in seconds: while it stops it would still
/// answer, and a link to nobody would come up.
pub(crate) const GOODBYE_RETRY_S_MIN: u32 = 1;

/// However long a neighbour asks by its goodbye to be left alone, in seconds: after this it is not.
pub(crate) const GOODBYE_RETRY_S_MAX: u32 = 3_600;

/// Questions to one switch by one ingress that are answered: so many a second, and this many at once.
/// A trace of the longest path asks 64.
pub(crate) const ANSWERS_PER_SECOND: u32 = 100;
/// See [`ANSWERS_PER_SECOND`].
pub(crate) const ANSWERS_AT_ONCE: u32 = 64;

/// Errors about packets by one ingress: so many a second, and this many at once (RFC 4443,
/// section 2.4 (f)).
pub(crate) const ERRORS_PER_SECOND: u32 = 20;
/// See [`ERRORS_PER_SECOND`].
pub(crate) const ERRORS_AT_ONCE: u32 = 10;

/// Notices by one ingress about packets of this switch's own that are taken: so many a second, and this many
/// at once. Each becomes an event; every switch on a path of our questions may have one to give.
pub(crate) const NOTICES_PER_SECOND: u32 = 4;
/// See [`NOTICES_PER_SECOND`].
pub(crate) const NOTICES_AT_ONCE: u32 = 16;

/// Goodbyes of one neighbour that are taken: one a second, and a few at once for who changes its mind.
pub(crate) const GOODBYES_PER_SECOND: u32 = 1;
/// See [`GOODBYES_PER_SECOND`].
pub(crate) const GOODBYES_AT_ONCE: u32 = 4;

/// Questions of this switch's own that wait for their answers.
pub const QUESTIONS_MAX: usize = 64;

/// Packets of questions of which notices are taken: as many as can wait, and as many again whose answer has
/// come.
pub(crate) const QUESTIONS_REMEMBERED_MAX: usize = 2 * QUESTIONS_MAX;

/// What one step of the clock counts for at most: longer than any key lives, so that a machine that slept
/// starts again, and short enough that a clock gone mad never brings the end of time.
pub(crate) const CLOCK_STEP_MAX_NS: u64 = 3_600_000_000_000;

/// What one step of the clock counts for at most where a slot number rests: far more than the slow path
/// takes between two turns, and far less than a quarantine, which a clock that leaps must not end.
pub(crate) const QUARANTINE_STEP_MAX_NS: u64 = 5_000_000_000;

/// Places of a handoff ring that one ingress, or one source of frames that are not opened yet, may hold
/// for each that is free.
pub(crate) const HANDOFF_SHARE: usize = 4;

/// Orders that wait for one worker, and reports that wait for the slow path. A worker takes an
/// order only when its report has a place, so no report is ever lost.
pub const COMMANDS_MAX: usize = 64;

/// Polls that a number waits to be published together with those that follow it. A start with thousands of peers
/// takes one table for each 16 rounds of commands then, and not one for each peer; a poll is a fraction of a millisecond
/// while commands are under way, and a number that comes alone waits for none.
pub(crate) const PUBLISH_POLLS_MAX: u32 = 16;

/// Messages for one worker to send that wait behind other commands at most. More are lost, as any message
/// on a wire can be, so that a worker that is slow to apply_commands makes nothing grow.
pub(crate) const MESSAGES_WAITING_MAX: usize = 4 * COMMANDS_MAX;

/// Answers and errors that wait for a worker to send them, behind all other commands: a trace of the longest
/// path and as much again. Each ingress has a share of them. More are not sent, and counted.
pub const ANSWERS_WAITING_MAX: usize = 2 * ANSWERS_AT_ONCE as usize;

/// Orders that a worker obeys in one poll: bounds what the slow path may cost the data plane.
pub(crate) const COMMANDS_PER_POLL: usize = 4;

/// SlotAllocator that unknown peers may have together, in quarantine and kept over a restart included, for each
/// of them that may have a link at once: one in use and three that others have left, so that peers that
/// come and go are served, and a flood of them takes no more. Never more than half of all numbers.
pub const UNKNOWN_NUMBERS_PER_LINK: usize = 4;

/// The part of all slot numbers that unknown peers leave free for configured ones: an eighth, and one at
/// least.
pub(crate) const NUMBERS_RESERVED_DIVISOR: usize = 8;
/// See [`NUMBERS_RESERVED_DIVISOR`].
pub(crate) const NUMBERS_RESERVED_MIN: usize = 1;

/// Hops that a frame may have left at most, whatever its sender wrote: the longest path that 256
/// label bits can spell in the narrowest common form, 4 bits, is 64 hops.
pub const HOPS_MAX: u8 = 64;

/// The shortest packet: link header, switch header with its narrowest label, and nothing else.
pub const FRAME_BYTES_MIN: usize = LINK_HEADER_BYTES + HEADER_64_BYTES;

/// The longest frame that is forwarded: a jumbo Ethernet frame's payload (9,000) and our
/// overhead, rounded up. Longer datagrams exist, but no path for them does.
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
