//! The limits of the command, each with its reason. The file has no other code than assertions
//! about how the limits relate.

use std::time::Duration;

use strowger_engine::limits::QUESTIONS_MAX;

// The log and the journal.

/// The maximum number of log lines that wait to be written to standard error. If its reader is
/// slow, further lines are lost and counted.
pub(crate) const LOG_LINES_WAITING: usize = 256;
/// The maximum number of consecutive log lines of one kind about one subject. Further lines are
/// suppressed. The number is large enough to show that a link flaps.
pub(crate) const LOG_LINES_EACH: u32 = 5;
/// After this time, one more line of one kind about one subject is allowed.
pub(crate) const LOG_LINE_EACH_AFTER: Duration = Duration::from_secs(10);
/// The maximum number of consecutive log lines of all kinds. A relay that loses thousands of peers
/// at once logs the first of them.
pub(crate) const LOG_LINES_ALL: u32 = 200;
/// After this time, one more line of any kind is allowed. This gives at most 864,000 lines a day,
/// some 100 MB.
pub(crate) const LOG_LINE_ALL_AFTER: Duration = Duration::from_millis(100);
/// The maximum number of subjects with their own token bucket. Further subjects of a kind share one
/// bucket. A subject takes some 200 bytes.
pub(crate) const LOG_SUBJECTS_MAX: usize = 1_024;
/// The minimum time from the first suppressed line to the line that reports the number of
/// suppressed lines.
pub(crate) const LOG_SUPPRESSED_EVERY: Duration = Duration::from_secs(10);
/// The longest log line, in bytes. A longer line is cut. journald would accept 48 KiB, but shorter
/// lines are easier to read.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 1_024;
/// The interval at which a thread checks for suppressed or lost lines to report, while there are
/// any.
pub(crate) const LOG_TICK: Duration = Duration::from_secs(1);
/// The maximum number of events of the relay that wait for the thread that writes them. A full
/// switch has several events for each slot at start. An event takes some 200 bytes.
pub(crate) const EVENTS_WAITING: usize = 1 << 15;
/// The maximum time that the relay waits at its end for the reader of standard error.
pub(crate) const LOG_CLOSE_MAX: Duration = Duration::from_secs(1);
/// The number of entries of each kind that the journal keeps. There are some thirty kinds, and an
/// entry takes a few hundred bytes, so the journal takes one or two megabytes. A reader that misses
/// entries learns how many it missed.
pub(crate) const JOURNAL_ENTRIES_EACH: usize = 128;
/// The longest name or detail of an entry, in bytes. A longer one is cut. The text of a goodbye
/// takes 128 bytes, and six times as many if every character is escaped.
pub(crate) const JOURNAL_TEXT_BYTES_MAX: usize = 1_024;

// One subject must not use up the token bucket of all lines.
const _: () = assert!(LOG_LINES_EACH < LOG_LINES_ALL);
// The queue must hold a whole burst.
const _: () = assert!(LOG_LINES_ALL as usize <= LOG_LINES_WAITING);

// The start.

/// How long a start waits for addresses and interfaces by default. The value allows for a boot and
/// for a slow DHCP server.
pub(crate) const WAIT: Duration = Duration::from_secs(60);
/// The maximum that can be configured for `WAIT`: an hour. A start that waits longer looks like
/// one that hangs.
pub(crate) const WAIT_S_MAX: u64 = 3_600;
/// The interval at which a waiting start checks again.
pub(crate) const WAIT_LOOK_EVERY: Duration = Duration::from_millis(200);
/// The maximum number of messages from the signal thread that wait for the main thread. The main
/// thread is idle, so few ever wait.
pub(crate) const SIGNAL_MESSAGES_MAX: usize = 16;

// The configuration.

/// The highest slot number that the relay assigns by default.
pub(crate) const SLOT_MAX_DEFAULT: u32 = 256;
/// The maximum quarantine: a day. No packet is in flight for longer.
pub(crate) const QUARANTINE_S_MAX: u64 = 86_400;
/// The maximum lifetime of an alias: a month. In all that time, senders that use the former number
/// are notified of the new one.
pub(crate) const ALIAS_S_MAX: u64 = 30 * 86_400;
/// The maximum number of chunks of a worker: 68 GiB of train chunks. A typing error is refused
/// before memory is mapped.
pub(crate) const CHUNKS_MAX: u64 = 1 << 20;
/// The minimum number of train chunks that a worker needs to forward at all.
pub(crate) const TRAINS_MIN: u64 = 64;
/// The largest socket buffer that a program can request from Linux: half of what an `int` holds.
pub(crate) const SOCKET_BUFFER_BYTES_MAX: u64 = (i32::MAX / 2) as u64;
/// The size of each socket buffer by default.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// The longest packet of a unix endpoint by default.
pub(crate) const UNIX_FRAME_BYTES: usize = 2_048;
/// The longest path of a unix socket in Linux (`sun_path`).
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The longest name of an interface in Linux (`IFNAMSIZ`).
pub(crate) const INTERFACE_BYTES_MAX: usize = 15;
/// The default number of seconds between two beacons.
pub(crate) const BEACON_S: u32 = 10;
/// The maximum interval of beacons: an hour. With rarer beacons, other means find peers earlier.
pub(crate) const BEACON_S_MAX: u64 = 3_600;
/// The maximum number of queues of an interface. No NIC has more.
pub(crate) const QUEUES_MAX: u64 = 4_096;
/// The smallest ethertype. A smaller number in this field is the length of a frame (IEEE 802.3).
pub(crate) const ETHERTYPE_MIN: u64 = 0x0600;
/// The maximum interval of probes: a day. A link that is silent for longer needs no probes.
pub(crate) const INTERVAL_MS_MAX: u64 = 86_400_000;
/// The minimum interval of probes. Probes take resources at both ends, and with a shorter interval
/// they would be most of the link's traffic.
pub(crate) const INTERVAL_MS_MIN: u64 = 10;

// The control socket.

/// The maximum number of clients at a time. A new one replaces the one that has been silent
/// longest.
pub(crate) const CLIENTS_MAX: usize = 16;
/// The longest request, in bytes: far longer than any real request.
pub(crate) const LINE_BYTES_MAX: usize = 4_096;
/// The server closes a connection, with an error, after this time without a request.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(60);
/// The server closes the connection of a client that does not read its reply for this time.
pub(crate) const STUCK_MAX: Duration = Duration::from_secs(5);
/// The interval at which the server tries to write to a client that does not read its reply.
pub(crate) const RETRY: Duration = Duration::from_millis(5);
/// The interval at which a client that watches the balance receives it.
pub(crate) const WATCH_EVERY: Duration = Duration::from_secs(1);
/// The maximum number of events that a watching client receives at once: as many as one reply
/// holds.
pub(crate) const EVENTS_AT_ONCE: usize = 64;
/// The maximum time for a response of the slow path. A response needs one or two polls of a worker.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The server pauses for this time after it failed to accept a client, usually because no
/// descriptor was free.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The maximum number of requested changes that are not complete yet. The server's thread waits a
/// few seconds for each, so if there are more, their clients have gone.
pub(crate) const CHANGES_MAX: usize = 64;
/// The maximum number of pings and traces whose replies are kept for clients. A further one
/// replaces the oldest.
pub(crate) const QUESTIONS_KEPT_MAX: usize = 2 * QUESTIONS_MAX;
/// How long a slot drains by default. Most labels that name it are replaced by then.
pub(crate) const DRAIN_S: u64 = 60;
/// The maximum time to drain a slot: a day.
pub(crate) const DRAIN_S_MAX: u64 = 86_400;
/// The default payload of a ping in bytes, as in `ping` (iputils).
pub(crate) const PING_BYTES: u16 = 56;

// The subcommands.

/// The maximum time for a relay's reply: longer than the time that the relay gives its own slow
/// path.
pub(crate) const CLIENT_ANSWER_MAX: Duration = Duration::from_secs(10);
/// The longest reply that a client reads: longer than that of a relay with every slot in use.
pub(crate) const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// The interval at which `ping` and `trace` request replies from the relay.
pub(crate) const FETCH_EVERY: Duration = Duration::from_millis(2);
