//! The bounds of the command, each with its reason. It holds no code but assertions about how they relate.

use std::time::Duration;

use strowger_engine::limits::QUESTIONS_MAX;

/// Log lines that wait for standard error. Whoever reads it may be slow: lines beyond these are lost and counted.
pub(crate) const LOG_LINES_WAITING: usize = 256;
/// Log lines of one kind about one subject in a row; more are suppressed. A link that flaps shows itself in these.
pub(crate) const LOG_LINES_EACH: u32 = 5;
/// One more line of one kind about one subject is allowed after this time.
pub(crate) const LOG_LINE_EACH_AFTER: Duration = Duration::from_secs(10);
/// Log lines of all kinds in a row. A hub that loses all peers says so for the first of them.
pub(crate) const LOG_LINES_ALL: u32 = 200;
/// One more line of any kind is allowed after this time: 864,000 lines a day at most, some 100 MB.
pub(crate) const LOG_LINE_ALL_AFTER: Duration = Duration::from_millis(100);
/// Subjects whose lines are counted apart; further ones of a kind share one count. Some 200 bytes each.
pub(crate) const LOG_SUBJECTS_MAX: usize = 1_024;
/// The number of suppressed lines is logged at least this long after the last line about them.
pub(crate) const LOG_SUPPRESSED_EVERY: Duration = Duration::from_secs(10);
/// The longest log line, in bytes; what is longer is cut. A journal splits lines at 48 KiB, people much earlier.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 1_024;
/// While suppressed or lost lines are to be reported, the log is looked at this often.
pub(crate) const LOG_TICK: Duration = Duration::from_secs(1);
/// Events of the relay that wait to be written down: each slot of a full switch has several at start. Some 200 bytes
/// each.
pub(crate) const EVENTS_WAITING: usize = 1 << 15;
/// How long the end of the relay waits for the reader of standard error.
pub(crate) const LOG_CLOSE_MAX: Duration = Duration::from_secs(1);

/// Changes asked for on the control socket that are not true yet: its thread asks one at a time and waits a few
/// seconds, so more are of clients that have gone.
pub(crate) const CHANGES_MAX: usize = 64;
/// Entries of each kind that the journal keeps: there are some thirty kinds, and an entry takes a few hundred
/// bytes, so a megabyte or two in all. A client that is further behind is told how many it missed.
pub(crate) const JOURNAL_ENTRIES_EACH: usize = 128;
/// The longest name or detail of an entry, in bytes; what is longer is cut. A goodbye's text takes 128, and six
/// times as much where every character of it is escaped.
pub(crate) const JOURNAL_TEXT_BYTES_MAX: usize = 1_024;

// A single subject never uses up what all share.
const _: () = assert!(LOG_LINES_EACH < LOG_LINES_ALL);
// The writing thread can hold a whole burst.
const _: () = assert!(LOG_LINES_ALL as usize <= LOG_LINES_WAITING);

/// A start waits so long for addresses and interfaces unless the configuration says otherwise: a boot, or a slow DHCP.
pub(crate) const WAIT: Duration = Duration::from_secs(60);
/// An hour: a start that waits for longer looks like one that hangs.
pub(crate) const WAIT_S_MAX: u64 = 3_600;
/// What a start waits for is looked at this often.
pub(crate) const WAIT_LOOK_EVERY: Duration = Duration::from_millis(200);

// The configuration.

/// The highest slot number that is given out unless the configuration says otherwise.
pub(crate) const SLOT_MAX_DEFAULT: u32 = 256;
/// A day: no packet is longer on its way.
pub(crate) const QUARANTINE_S_MAX: u64 = 86_400;
/// A month: whoever names a slot by a former number is told the new one with every packet but few.
pub(crate) const ALIAS_S_MAX: u64 = 30 * 86_400;
/// Chunks a worker at most: 68 GiB of train chunks, so a typing error is refused, not mapped.
pub(crate) const CHUNKS_MAX: u64 = 1 << 20;
/// Train chunks that a worker needs to forward anything at all.
pub(crate) const TRAINS_MIN: u64 = 64;
/// The largest socket buffer that can be asked of Linux: half of what an `int` holds.
pub(crate) const SOCKET_BUFFER_BYTES_MAX: u64 = (i32::MAX / 2) as u64;
/// What is asked of the kernel for each socket buffer unless the configuration says otherwise.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// The longest packet of a unix endpoint.
pub(crate) const UNIX_FRAME_BYTES: usize = 2_048;
/// The longest path of a unix socket that the kernel takes.
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The longest name of an interface that the kernel takes.
pub(crate) const INTERFACE_BYTES_MAX: usize = 15;
/// Seconds between two beacons unless the configuration says otherwise.
pub(crate) const BEACON_S: u32 = 10;
/// An hour: who is heard less often is found by other means.
pub(crate) const BEACON_S_MAX: u64 = 3_600;
/// More than any NIC has.
pub(crate) const QUEUES_MAX: u64 = 4_096;
/// Below this the field is a frame's length.
pub(crate) const ETHERTYPE_MIN: u64 = 0x0600;
/// A day: no link that is silent for longer is worth asking about.
pub(crate) const INTERVAL_MS_MAX: u64 = 86_400_000;
/// Probes cost both ends; below this they would be most of what a link carries.
pub(crate) const INTERVAL_MS_MIN: u64 = 10;

// The control socket.

/// Clients at a time. One more takes the place of the one that was silent longest.
pub(crate) const CLIENTS_MAX: usize = 16;
/// The longest request, in bytes: far above any real one.
pub(crate) const LINE_BYTES_MAX: usize = 4_096;
/// A client that asks nothing for so long is told so and sent away.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(60);
/// A client that does not take its answer for so long is sent away.
pub(crate) const STUCK_MAX: Duration = Duration::from_secs(5);
/// While an answer is not taken, its client is tried again this often.
pub(crate) const RETRY: Duration = Duration::from_millis(5);
/// How often a watched balance is told.
pub(crate) const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Events that a watcher is told in one go: what one answer may hold.
pub(crate) const EVENTS_AT_ONCE: usize = 64;
/// How long the slow path may take for an answer. It takes a worker's poll or two.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// With no descriptor left, clients are accepted again after so long.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a slot is drained if nobody says: labels that name it are seldom used for longer.
pub(crate) const DRAIN_S: u64 = 60;
/// A day.
pub(crate) const DRAIN_S_MAX: u64 = 86_400;
/// What a ping carries if nobody says how much.
pub(crate) const PING_BYTES: u16 = 56;
/// Questions that are kept; the oldest makes room.
pub(crate) const KEPT_MAX: usize = 2 * QUESTIONS_MAX;
/// Messages that wait for the main thread, which is idle.
pub(crate) const MESSAGES_MAX: usize = 16;

// The subcommands.

/// How long a relay may take for an answer: longer than it gives its own slow path.
pub(crate) const CLIENT_ANSWER_MAX: Duration = Duration::from_secs(10);
/// The longest answer that a client reads: above that of a relay with every slot taken.
pub(crate) const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How often a relay is asked whether something has come.
pub(crate) const FETCH_EVERY: Duration = Duration::from_millis(2);
