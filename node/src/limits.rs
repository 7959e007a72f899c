//! The bounds of the command, each with its reason. It holds no code but assertions about how they relate.

use std::time::Duration;

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
