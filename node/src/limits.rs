//! The limits of the command. Assertions state the relations between limits.

use std::time::Duration;

use strowger_engine::limits::REQUESTS_MAX;

// The log and the journal.

/// The maximum number of log lines that wait to be written to standard error. If its reader is
/// slow, further lines are lost and counted.
pub(crate) const LOG_LINES_WAITING: usize = 256;
/// The number of log lines of one kind about one subject that may be written in a burst. Further
/// lines are suppressed. The burst is large enough to show that a link flaps.
pub(crate) const LOG_LINES_EACH: u32 = 5;
/// The interval at which the rate limit allows one more line of one kind about one subject.
pub(crate) const LOG_LINE_EACH_AFTER: Duration = Duration::from_secs(10);
/// The number of log lines of all kinds that may be written in a burst. A relay that loses
/// thousands of peers at the same time logs the first of them.
pub(crate) const LOG_LINES_ALL: u32 = 200;
/// The interval at which the rate limit of all lines together allows one more line. This allows at
/// most 864,000 lines a day, about 100 MB.
pub(crate) const LOG_LINE_ALL_AFTER: Duration = Duration::from_millis(100);
/// The maximum number of subjects with their own token bucket. Further subjects of a kind share one
/// bucket. A subject takes about 200 bytes.
pub(crate) const LOG_SUBJECTS_MAX: usize = 1_024;
/// The minimum time from the first suppressed line to the line that reports the number of
/// suppressed lines.
pub(crate) const LOG_SUPPRESSED_EVERY: Duration = Duration::from_secs(10);
/// The maximum length of a log line, in bytes. A longer line is cut. journald accepts 48 KiB, but
/// shorter lines are easier to read.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 1_024;
/// The interval at which a thread checks whether a report of suppressed or lost lines is due, while
/// there are such lines.
pub(crate) const LOG_TICK: Duration = Duration::from_secs(1);
/// The maximum number of the relay's events that wait for the thread that writes them. At start a
/// full switch has several events per slot. An event takes about 200 bytes.
pub(crate) const EVENTS_WAITING: usize = 1 << 15;
/// The maximum time that a relay waits at its end until all log lines are written.
pub(crate) const LOG_CLOSE_MAX: Duration = Duration::from_secs(1);
/// The maximum number of entries of each kind that the journal keeps. There are about thirty kinds,
/// and an entry takes a few hundred bytes, so the journal takes one or two megabytes. A reader that
/// falls behind gets the number of entries that it missed.
pub(crate) const JOURNAL_ENTRIES_EACH: usize = 128;
/// The maximum length of a name or detail of an entry, in bytes. A longer one is cut. The text of a
/// goodbye takes up to 128 bytes, and six times as many if every character is escaped.
pub(crate) const JOURNAL_TEXT_BYTES_MAX: usize = 1_024;

// One subject must not exhaust the token bucket of all lines.
const _: () = assert!(LOG_LINES_EACH < LOG_LINES_ALL);
// The queue must hold a whole burst.
const _: () = assert!(LOG_LINES_ALL as usize <= LOG_LINES_WAITING);

// The start.

/// The default time for which a start waits for missing addresses and interfaces. It is long enough
/// for a boot with a slow DHCP server.
pub(crate) const WAIT: Duration = Duration::from_secs(60);
/// The maximum configurable wait of a start: an hour. A longer wait looks like a start that hangs.
pub(crate) const WAIT_S_MAX: u64 = 3_600;
/// The interval at which a waiting start checks for addresses and interfaces.
pub(crate) const WAIT_LOOK_EVERY: Duration = Duration::from_millis(200);
/// The maximum number of messages from the signal thread that wait for the main thread. The main
/// thread blocks on this queue, so few messages wait.
pub(crate) const SIGNAL_MESSAGES_MAX: usize = 16;

// The configuration.

/// The highest slot number that the relay assigns by default.
pub(crate) const SLOT_MAX_DEFAULT: u32 = 256;
/// The maximum quarantine: a day. No packet is in flight for longer.
pub(crate) const QUARANTINE_S_MAX: u64 = 86_400;
/// The maximum lifetime of an alias: a month. During this time senders that use the former number
/// are notified of the new one.
pub(crate) const ALIAS_S_MAX: u64 = 30 * 86_400;
/// The maximum number of chunks of a worker: 68 GiB of train chunks. The limit detects a typing
/// error before memory is mapped.
pub(crate) const CHUNKS_MAX: u64 = 1 << 20;
/// The minimum number of train chunks with which a worker can forward.
pub(crate) const TRAINS_MIN: u64 = 64;
/// The largest socket buffer that a program can request from Linux, in bytes: half of the maximum
/// `int`.
pub(crate) const SOCKET_BUFFER_BYTES_MAX: u64 = (i32::MAX / 2) as u64;
/// The default size of each socket buffer, in bytes.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// The default maximum packet length of a unix endpoint, in bytes.
pub(crate) const UNIX_FRAME_BYTES: usize = 2_048;
/// The maximum length of a unix socket's path in Linux, in bytes (`sun_path`).
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The maximum length of an interface name in Linux, in bytes (`IFNAMSIZ`).
pub(crate) const INTERFACE_BYTES_MAX: usize = 15;
/// The default number of seconds between two beacons.
pub(crate) const BEACON_S: u32 = 10;
/// The maximum interval of beacons: an hour. With a longer interval, peers would be found too late.
pub(crate) const BEACON_S_MAX: u64 = 3_600;
/// The maximum number of queues of an interface, more than known NICs have.
pub(crate) const QUEUES_MAX: u64 = 4_096;
/// The smallest EtherType. A smaller number in this field is the length of a frame (IEEE 802.3).
pub(crate) const ETHERTYPE_MIN: u64 = 0x0600;
/// The maximum interval of liveness probes: a day. With longer intervals, failures would be
/// detected too late.
pub(crate) const INTERVAL_MS_MAX: u64 = 86_400_000;
/// The minimum interval of liveness probes. With a shorter one, probes could become most of a
/// link's traffic, and they cost CPU time at both ends.
pub(crate) const INTERVAL_MS_MIN: u64 = 10;

// The control socket.

/// The maximum number of connected clients. A new client replaces the one that has been inactive
/// longest.
pub(crate) const CLIENTS_MAX: usize = 16;
/// The maximum length of a request, in bytes: far more than a real request has.
pub(crate) const LINE_BYTES_MAX: usize = 4_096;
/// The server closes a connection, with an error, after this time without a request. Clients that
/// watch are exempt.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(60);
/// The server closes the connection of a client that does not read its reply for this time.
pub(crate) const STUCK_MAX: Duration = Duration::from_secs(5);
/// The interval at which the server retries to write to a client that does not read its reply.
pub(crate) const RETRY: Duration = Duration::from_millis(5);
/// The interval at which the server sends the balance to a client that watches it.
pub(crate) const WATCH_EVERY: Duration = Duration::from_secs(1);
/// The maximum number of events that the server sends to a watching client before it serves the
/// next client.
pub(crate) const EVENTS_AT_ONCE: usize = 64;
/// The maximum time for a response of the slow path. Normally a response takes one or two polls of
/// a worker.
pub(crate) const REPLY_MAX: Duration = Duration::from_secs(5);
/// The server pauses for this time after it failed to accept a client, usually because no
/// descriptor was free.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The maximum number of requested changes that are not complete yet. The server's thread waits
/// only a few seconds for each, so if there are more, no client waits for the oldest.
pub(crate) const CHANGES_MAX: usize = 64;
/// The maximum number of pings and traces whose replies are kept for clients. A further one
/// replaces the oldest.
pub(crate) const REQUESTS_KEPT_MAX: usize = 2 * REQUESTS_MAX;
/// The default time for which a slot drains. In this time most senders replace their labels.
pub(crate) const DRAIN_S: u64 = 60;
/// The maximum time to drain a slot: a day.
pub(crate) const DRAIN_S_MAX: u64 = 86_400;
/// The maximum number of programs that a relay with the configuration of `strowger init` serves at
/// a time. Their ports take 9 MiB. Up to four times this number may start within a minute, the
/// quarantine of a slot number.
pub(crate) const PROGRAMS_MAX: u16 = 16;
/// The default payload of a ping in bytes, as in `ping` (iputils).
pub(crate) const PING_BYTES: u16 = 56;

// The subcommands.

/// The maximum time that a client waits for a relay's reply: longer than the relay waits for its
/// slow path.
pub(crate) const CLIENT_REPLY_MAX: Duration = Duration::from_secs(10);
/// The maximum length of a reply that a client reads, in bytes: more than a relay with every slot
/// in use sends.
pub(crate) const REPLY_BYTES_MAX: u64 = 64 << 20;
/// The interval at which `ping` and `trace` request replies from the relay.
pub(crate) const FETCH_EVERY: Duration = Duration::from_millis(2);
