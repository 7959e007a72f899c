//! The limits of the command, each with its reason. It holds no code but assertions about how they relate.

use std::time::Duration;

use strowger_engine::limits::QUESTIONS_MAX;

// The log and the journal.

/// Log lines that wait for standard error. If its reader is slow, further lines are lost and
/// counted.
pub(crate) const LOG_LINES_WAITING: usize = 256;
/// Log lines of one kind about one subject in a row; more are suppressed. A flapping link is visible in these.
pub(crate) const LOG_LINES_EACH: u32 = 5;
/// One more line of one kind about one subject is allowed after this time.
pub(crate) const LOG_LINE_EACH_AFTER: Duration = Duration::from_secs(10);
/// Log lines of all kinds in a row. A relay that loses thousands of peers at once logs the first of them.
pub(crate) const LOG_LINES_ALL: u32 = 200;
/// One more line of any kind is allowed after this time: 864,000 lines a day at most, some 100 MB.
pub(crate) const LOG_LINE_ALL_AFTER: Duration = Duration::from_millis(100);
/// Subjects with a token bucket of their own; further subjects of a kind share one. Some 200 bytes each.
pub(crate) const LOG_SUBJECTS_MAX: usize = 1_024;
/// The time from the first suppressed line to the line that reports their number, at least.
pub(crate) const LOG_SUPPRESSED_EVERY: Duration = Duration::from_secs(10);
/// The longest log line, in bytes; a longer one is cut. journald splits lines at 48 KiB, and
/// shorter ones are readable.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 1_024;
/// How often a thread checks for suppressed or lost lines to report, while there are any.
pub(crate) const LOG_TICK: Duration = Duration::from_secs(1);
/// Events of the relay that wait for the thread that writes them: a full switch has several for each slot at start.
/// Some 200 bytes each.
pub(crate) const EVENTS_WAITING: usize = 1 << 15;
/// How long the end of the relay waits for the reader of standard error.
pub(crate) const LOG_CLOSE_MAX: Duration = Duration::from_secs(1);
/// Entries of each kind that the journal keeps: there are some thirty kinds, and an entry takes a few hundred
/// bytes, so one or two megabytes together. A reader that is further behind learns how many entries it missed.
pub(crate) const JOURNAL_ENTRIES_EACH: usize = 128;
/// The longest name or detail of an entry, in bytes; a longer one is cut. The text of a goodbye takes 128 bytes, and
/// six times as many if every character is escaped.
pub(crate) const JOURNAL_TEXT_BYTES_MAX: usize = 1_024;

// One subject cannot use up the budget of all lines.
const _: () = assert!(LOG_LINES_EACH < LOG_LINES_ALL);
// The queue holds a whole burst.
const _: () = assert!(LOG_LINES_ALL as usize <= LOG_LINES_WAITING);

// The start.

/// How long a start waits for addresses and interfaces by default: a boot, or a slow DHCP server.
pub(crate) const WAIT: Duration = Duration::from_secs(60);
/// An hour: a start that waits longer looks like one that hangs.
pub(crate) const WAIT_S_MAX: u64 = 3_600;
/// How often a waiting start looks again.
pub(crate) const WAIT_LOOK_EVERY: Duration = Duration::from_millis(200);
/// Messages of the signal thread that wait for the main thread. The main thread is idle, so few ever wait.
pub(crate) const SIGNAL_MESSAGES_MAX: usize = 16;

// The configuration.

/// The highest slot number that the relay assigns by default.
pub(crate) const SLOT_MAX_DEFAULT: u32 = 256;
/// A day: no packet is in flight for longer.
pub(crate) const QUARANTINE_S_MAX: u64 = 86_400;
/// A month: a sender that uses a former number is notified of the new one all the time.
pub(crate) const ALIAS_S_MAX: u64 = 30 * 86_400;
/// Chunks a worker at most: 68 GiB of train chunks. A typing error is refused and not mapped.
pub(crate) const CHUNKS_MAX: u64 = 1 << 20;
/// Train chunks that a worker needs to forward at all.
pub(crate) const TRAINS_MIN: u64 = 64;
/// The largest socket buffer that a program can ask of Linux: half of what an `int` holds.
pub(crate) const SOCKET_BUFFER_BYTES_MAX: u64 = (i32::MAX / 2) as u64;
/// The size of each socket buffer by default.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// The longest packet of a unix endpoint by default.
pub(crate) const UNIX_FRAME_BYTES: usize = 2_048;
/// The longest path of a unix socket in Linux (`sun_path`).
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The longest name of an interface in Linux (`IFNAMSIZ`).
pub(crate) const INTERFACE_BYTES_MAX: usize = 15;
/// Seconds between two beacons by default.
pub(crate) const BEACON_S: u32 = 10;
/// An hour: with rarer beacons, other means find peers earlier.
pub(crate) const BEACON_S_MAX: u64 = 3_600;
/// Queues of an interface: more than any NIC has.
pub(crate) const QUEUES_MAX: u64 = 4_096;
/// Below this number the field is the length of a frame (IEEE 802.3).
pub(crate) const ETHERTYPE_MIN: u64 = 0x0600;
/// A day: a link that is silent for longer needs no probes.
pub(crate) const INTERVAL_MS_MAX: u64 = 86_400_000;
/// Probes cost both ends; at a higher rate they would be most of the link's traffic.
pub(crate) const INTERVAL_MS_MIN: u64 = 10;

// The control socket.

/// Clients at a time. A new one replaces the one that has been silent longest.
pub(crate) const CLIENTS_MAX: usize = 16;
/// The longest request, in bytes: far above any real one.
pub(crate) const LINE_BYTES_MAX: usize = 4_096;
/// The server closes a connection without a request for this time, with an error.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(60);
/// The server closes the connection of a client that reads nothing of its reply for this time.
pub(crate) const STUCK_MAX: Duration = Duration::from_secs(5);
/// How often the server tries to write to a client that does not read its reply.
pub(crate) const RETRY: Duration = Duration::from_millis(5);
/// How often a client that watches the balance receives it.
pub(crate) const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Events that a watching client receives at once: as many as one reply holds.
pub(crate) const EVENTS_AT_ONCE: usize = 64;
/// How long the slow path may take for a response. It needs one or two polls of a worker.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The server accepts no client for this time after an accept failed, usually because no descriptor was free.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Requested changes that are not complete yet. The server's thread waits a few seconds for each,
/// so further changes belong to clients that have gone.
pub(crate) const CHANGES_MAX: usize = 64;
/// Pings and traces whose replies are kept for clients. A further one replaces the oldest.
pub(crate) const QUESTIONS_KEPT_MAX: usize = 2 * QUESTIONS_MAX;
/// How long a slot drains by default: most labels that name it are replaced by then.
pub(crate) const DRAIN_S: u64 = 60;
/// A day.
pub(crate) const DRAIN_S_MAX: u64 = 86_400;
/// Bytes of payload of a ping by default, as those of `ping` (iputils).
pub(crate) const PING_BYTES: u16 = 56;

// The subcommands.

/// How long a relay may take to reply: longer than it gives its own slow path.
pub(crate) const CLIENT_ANSWER_MAX: Duration = Duration::from_secs(10);
/// The longest reply that a client reads: above that of a relay with every slot in use.
pub(crate) const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How often `ping` and `trace` ask the relay for replies.
pub(crate) const FETCH_EVERY: Duration = Duration::from_millis(2);
