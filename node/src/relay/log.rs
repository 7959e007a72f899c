//! The relay's log: one line on standard error for each event that matters to an operator. Logging
//! does not block if standard error is not read, and the rate of lines is limited.
//!
//! A line is `TIME LEVEL KIND: SUBJECT: TEXT`, for example
//!
//! ```text
//! 2026-03-01T12:00:00.123Z warning link_down: peer "alice", slot 2: no answer since 12 s
//! ```
//!
//! `TIME` is the wall-clock time in UTC (RFC 3339), `LEVEL` is `info`, `warning` or `error`, `KIND`
//! is [`Kind::name`]. Characters that could change a terminal's state or begin a line are escaped.
//!
//! # How to log
//! Any thread may call [`Log::write`] with a kind, a subject and a text. A subject must have the
//! same words each time (`peer "alice", slot 2`), because lines of one kind about one subject share
//! a token bucket: a burst of [`LOG_LINES_EACH`] lines, then one per [`LOG_LINE_EACH_AFTER`]. All
//! lines together share another bucket. Suppressed lines are counted, and [`Log::tick`] writes
//! their number.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    io::{self, Write as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel},
    },
    time::{Instant, SystemTime},
};

use strowger_engine::{
    Now,
    rate::{Rate, TokenBucket},
};
use strowger_runtime::untrusted::Untrusted;

use super::rfc3339::Rfc3339;
use crate::limits::{
    LOG_CLOSE_MAX, LOG_LINE_ALL_AFTER, LOG_LINE_BYTES_MAX, LOG_LINE_EACH_AFTER, LOG_LINES_ALL,
    LOG_LINES_EACH, LOG_LINES_WAITING, LOG_SUBJECTS_MAX, LOG_SUPPRESSED_EVERY,
};

/// The rate limit of lines of one kind about one subject.
const RATE_EACH: Rate = Rate::every(LOG_LINE_EACH_AFTER, LOG_LINES_EACH);
/// The rate limit of all lines together.
const RATE_ALL: Rate = Rate::every(LOG_LINE_ALL_AFTER, LOG_LINES_ALL);

/// The severity of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// A normal change.
    Info,
    /// A failure that may end without an action by the operator.
    Warning,
    /// A failure that lasts until the operator acts.
    Error,
}

/// The kind of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A link is up.
    LinkUp,
    /// A link is down. The text gives the reason.
    LinkDown,
    /// A peer sent a goodbye and ended the link.
    Goodbye,
    /// A peer has another address.
    AddressMoved,
    /// A node with a peer's key but another identity was refused.
    KeyRefused,
    /// Two nodes have the same key.
    KeyOnTwoNodes,
    /// An unknown peer was refused.
    UnknownPeerRefused,
    /// A neighbour or peer could not be attached.
    AttachRefused,
    /// A port fails: for example, its interface or its address has vanished.
    PortTrouble,
    /// A port works again.
    PortBack,
    /// The start waits for something that is configured.
    Waiting,
    /// A worker found no free chunk in its pool.
    PoolEmpty,
    /// A worker makes no progress.
    WorkerStalled,
    /// A stalled worker makes progress again.
    WorkerBack,
    /// The wall clock is wrong.
    ClockWrong,
    /// The wall clock was set.
    ClockSet,
    /// The slow path panicked and was restarted.
    SlowPathRestarted,
    /// The state file cannot be written.
    StateFileTrouble,
    /// The state file can be written again.
    StateFileBack,
    /// The address book has faults or cannot be read.
    AddressBookTrouble,
    /// The address book can be used again.
    AddressBookBack,
    /// A signal arrived.
    Signal,
    /// Log lines or events were lost.
    Log,
}

impl Kind {
    /// The name of the kind in a line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LinkUp => "link_up",
            Self::LinkDown => "link_down",
            Self::Goodbye => "goodbye",
            Self::AddressMoved => "address_moved",
            Self::KeyRefused => "key_refused",
            Self::KeyOnTwoNodes => "key_on_two_nodes",
            Self::UnknownPeerRefused => "unknown_peer_refused",
            Self::AttachRefused => "attach_refused",
            Self::PortTrouble => "port_trouble",
            Self::PortBack => "port_back",
            Self::Waiting => "waiting",
            Self::PoolEmpty => "pool_empty",
            Self::WorkerStalled => "worker_stalled",
            Self::WorkerBack => "worker_back",
            Self::ClockWrong => "clock_wrong",
            Self::ClockSet => "clock_set",
            Self::SlowPathRestarted => "slow_path_restarted",
            Self::StateFileTrouble => "state_file_trouble",
            Self::StateFileBack => "state_file_back",
            Self::AddressBookTrouble => "address_book_trouble",
            Self::AddressBookBack => "address_book_back",
            Self::Signal => "signal",
            Self::Log => "log",
        }
    }

    fn level(self) -> Level {
        match self {
            Self::LinkUp
            | Self::AddressMoved
            | Self::PortBack
            | Self::ClockSet
            | Self::WorkerBack
            | Self::StateFileBack
            | Self::AddressBookBack
            | Self::Signal => Level::Info,
            Self::LinkDown
            | Self::Goodbye
            | Self::KeyRefused
            | Self::UnknownPeerRefused
            | Self::Waiting
            | Self::PoolEmpty
            | Self::StateFileTrouble
            | Self::AddressBookTrouble
            | Self::Log => Level::Warning,
            Self::AttachRefused
            | Self::KeyOnTwoNodes
            | Self::PortTrouble
            | Self::WorkerStalled
            | Self::ClockWrong
            | Self::SlowPathRestarted => Level::Error,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// The log. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Log(Arc<Mutex<State>>);

impl Log {
    /// A log on standard error, with its own writing thread.
    ///
    /// # Errors
    /// The kernel cannot create the thread.
    pub(crate) fn start() -> io::Result<Self> {
        Self::start_on(io::stderr())
    }

    /// A log on this output.
    pub(crate) fn start_on(out: impl io::Write + Send + 'static) -> io::Result<Self> {
        let (lines, written) = sync_channel(LOG_LINES_WAITING);
        let (done, closed) = channel();
        let named = std::thread::Builder::new().name("log".to_owned());
        named.spawn(move || write_lines(&written, &done, out))?;
        Ok(Self(Arc::new(Mutex::new(State {
            lines: Some(lines),
            closed,
            lost: 0,
            started: Instant::now(),
            all: TokenBucket::default(),
            subjects: HashMap::new(),
            suppressed: HashMap::new(),
        }))))
    }

    /// Logs an event, if the rate limits of its kind and subject allow it.
    pub(crate) fn write(&self, kind: Kind, subject: &str, text: impl fmt::Display) {
        self.write_at(Instant::now(), SystemTime::now(), kind, subject, text);
    }

    fn write_at(
        &self,
        now: Instant,
        wall: SystemTime,
        kind: Kind,
        subject: &str,
        text: impl fmt::Display,
    ) {
        let mut state = self.state();
        if state.may_write(now, kind, subject) {
            state.put(line(wall, kind, subject, text));
        }
    }

    /// Whether [`tick`](Self::tick) has suppressed or lost lines to report.
    pub(crate) fn has_pending(&self) -> bool {
        let state = self.state();
        state.lost > 0 || !state.suppressed.is_empty()
    }

    /// Writes the lines that report suppressed and lost lines, if they are due.
    pub(crate) fn tick(&self) {
        self.tick_at(Instant::now(), SystemTime::now());
    }

    fn tick_at(&self, now: Instant, wall: SystemTime) {
        self.state().tick(now, wall);
    }

    /// Ends the log. Blocks until all lines are written, but no longer than [`LOG_CLOSE_MAX`].
    pub(crate) fn close(self) {
        let mut state = self.state();
        for (kind, subject, count) in state.take_suppressed(|_| true) {
            state.put(line(SystemTime::now(), kind, &subject, Suppressed(count)));
        }
        state.lines = None;
        let _ = state.closed.recv_timeout(LOG_CLOSE_MAX);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Ignore poisoning: no code leaves the state incomplete.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a line directly to standard error. A relay uses this at start, before the log runs.
pub(crate) fn write_early(kind: Kind, subject: &str, text: impl fmt::Display) {
    let _ = io::stderr().write_all(line(SystemTime::now(), kind, subject, text).as_bytes());
}

/// Runs the writing thread. If a write fails, its line is lost.
fn write_lines(lines: &Receiver<String>, done: &Sender<()>, mut out: impl io::Write) {
    for line in lines {
        // Write each line with one call, so that lines of several processes do not mix.
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
    let _ = done.send(());
}

#[derive(Debug)]
struct State {
    /// The queue of the writing thread; `None` after the log is closed.
    lines: Option<SyncSender<String>>,
    closed: Receiver<()>,
    /// The number of lines that were lost because the queue of the writing thread was full.
    lost: u64,
    /// Time 0 of the token buckets.
    started: Instant,
    all: TokenBucket,
    subjects: HashMap<(Kind, String), TokenBucket>,
    /// For each kind and subject: the number of suppressed lines that were not reported yet, and
    /// the time of the first of them.
    suppressed: HashMap<(Kind, String), (u64, Instant)>,
}

/// The text that reports the number of suppressed lines.
struct Suppressed(u64);

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = if self.0 == 1 { "line was" } else { "lines were" };
        write!(f, "{} more such {lines} suppressed", self.0)
    }
}

impl State {
    fn engine_time(&self, now: Instant) -> Now {
        Now(now.saturating_duration_since(self.started).as_nanos() as u64)
    }

    fn may_write(&mut self, now: Instant, kind: Kind, subject: &str) -> bool {
        let subject = self.subject(now, kind, subject);
        let engine_now = self.engine_time(now);
        let each = self.subjects.entry((kind, subject.clone())).or_default();
        if each.take(RATE_EACH, engine_now) {
            if self.all.take(RATE_ALL, engine_now) {
                return true;
            }
            // Keep only one count per kind, because there may be thousands of subjects.
            self.suppress(now, kind, String::new());
        } else {
            self.suppress(now, kind, subject);
        }
        false
    }

    fn suppress(&mut self, now: Instant, kind: Kind, subject: String) {
        self.suppressed.entry((kind, subject)).or_insert((0, now)).0 += 1;
    }

    /// The subject whose token bucket applies: the given subject, or the empty subject if there are
    /// too many subjects.
    fn subject(&mut self, now: Instant, kind: Kind, subject: &str) -> String {
        let key = (kind, subject.to_owned());
        if self.subjects.len() >= LOG_SUBJECTS_MAX && !self.subjects.contains_key(&key) {
            // A full bucket equals a new one, so it can be removed.
            let now = self.engine_time(now);
            self.subjects.retain(|_, bucket| !bucket.is_full(RATE_EACH, now));
            if self.subjects.len() >= LOG_SUBJECTS_MAX {
                return String::new();
            }
        }
        key.1
    }

    fn tick(&mut self, now: Instant, wall: SystemTime) {
        if self.lost > 0 {
            let text =
                format_args!("{} lines were lost, since standard error was not read", self.lost);
            let line = line(wall, Kind::Log, "standard error", text);
            if self.lines.as_ref().is_some_and(|lines| lines.try_send(line).is_ok()) {
                self.lost = 0;
            }
        }
        if self.suppressed.is_empty() {
            return;
        }
        let is_due = |first: Instant| now.saturating_duration_since(first) >= LOG_SUPPRESSED_EVERY;
        for (kind, subject, count) in self.take_suppressed(is_due) {
            self.put(line(wall, kind, &subject, Suppressed(count)));
        }
    }

    /// Removes and returns the counts for which the time of the first suppressed line satisfies
    /// `fits`, in a fixed order.
    fn take_suppressed(&mut self, fits: impl Fn(Instant) -> bool) -> Vec<(Kind, String, u64)> {
        let mut taken = Vec::new();
        self.suppressed.retain(|(kind, subject), (count, first)| {
            let fits = fits(*first);
            if fits {
                taken.push((*kind, subject.clone(), *count));
            }
            !fits
        });
        taken.sort_by(|a, b| (a.0.name(), &a.1).cmp(&(b.0.name(), &b.1)));
        taken
    }

    fn put(&mut self, line: String) {
        match self.lines.as_ref().map(|lines| lines.try_send(line)) {
            Some(Err(TrySendError::Full(_))) => self.lost += 1,
            Some(Ok(()) | Err(TrySendError::Disconnected(_))) | None => {}
        }
    }
}

fn line(wall: SystemTime, kind: Kind, subject: &str, text: impl fmt::Display) -> String {
    let mut line = String::new();
    let _ = write!(line, "{} {} {}: ", Rfc3339(wall), kind.level(), kind.name());
    let about = if subject.is_empty() { String::new() } else { format!("{subject}: ") };
    let text = Untrusted(&format!("{about}{text}")).to_string();
    let free = LOG_LINE_BYTES_MAX - line.len();
    if text.len() <= free {
        line.push_str(&text);
    } else {
        // The text is already escaped, and `Untrusted` does not change escaped text.
        line.push_str(&Untrusted(&text).up_to(free));
        line.push_str("...");
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use strowger_runtime::untrusted;

    /// Collects the output of a log.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn lines(&self) -> Vec<String> {
            let bytes = self.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_flapping_link_is_suppressed_and_counted_and_no_other_line_is() {
        let sink = Sink::default();
        let log = Log::start_on(sink.clone()).unwrap();
        let began = Instant::now();
        for n in 0..u64::from(LOG_LINES_EACH) + 7 {
            log.write_at(began, at(n), Kind::LinkDown, "peer \"a\"", "no answer");
        }
        log.write_at(began, at(50), Kind::LinkDown, "peer \"b\"", "no answer");
        log.write_at(began, at(50), Kind::LinkUp, "peer \"a\"", "up");
        log.tick_at(began, at(51));
        let later = began + LOG_LINE_EACH_AFTER;
        log.write_at(later, at(60), Kind::LinkDown, "peer \"a\"", "no answer");
        log.tick_at(later, at(60));
        log.close();
        let lines = sink.lines();
        let each = LOG_LINES_EACH as usize;
        assert_eq!(lines.len(), each + 2 + 2, "{lines:#?}");
        assert_eq!(lines[0], "1970-01-01T00:00:00.000Z warning link_down: peer \"a\": no answer");
        assert_eq!(
            lines[each],
            "1970-01-01T00:00:50.000Z warning link_down: peer \"b\": no answer"
        );
        assert_eq!(lines[each + 1], "1970-01-01T00:00:50.000Z info link_up: peer \"a\": up");
        let suppressed = "warning link_down: peer \"a\": 7 more such lines were suppressed";
        assert!(lines[each + 3].ends_with(suppressed), "{lines:#?}");
    }

    #[test]
    fn all_kinds_and_subjects_together_have_a_budget_and_a_bound() {
        let sink = Sink::default();
        let log = Log::start_on(sink.clone()).unwrap();
        let began = Instant::now();
        let count = 3 * LOG_SUBJECTS_MAX;
        for n in 0..count {
            log.write_at(began, at(0), Kind::LinkDown, &format!("peer {n}"), "no answer");
        }
        assert!(log.state().subjects.len() <= LOG_SUBJECTS_MAX + 1);
        assert!(log.state().suppressed.len() <= 2, "counted by kind");
        let lost = log.state().lost;
        log.close();
        let lines = sink.lines();
        let suppressed: u64 = lines
            .iter()
            .filter_map(|line| {
                let number = line.split_once(" more such line")?.0.rsplit(' ').next()?;
                number.parse::<u64>().ok()
            })
            .sum();
        let written = lines.iter().filter(|line| line.ends_with("no answer")).count() as u64;
        assert!(written + lost <= u64::from(LOG_LINES_ALL), "{written} + {lost}");
        assert_eq!(written + lost + suppressed, count as u64);
    }

    #[test]
    fn text_of_others_begins_no_line_and_moves_no_cursor() {
        let text = "\u{1b}[2Jgone\r\n2026-01-01T00:00:00Z info link_up: \u{202e}b\u{9b}31m";
        let line = line(at(0), Kind::Goodbye, "peer \"\u{7}\"", text);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.trim_end().chars().all(untrusted::is_harmless), "{line:?}");
        assert!(line.contains("\\u{1b}[2Jgone\\u{d}\\u{a}2026"), "{line:?}");
        let long = super::line(at(0), Kind::Goodbye, "", "\u{1b}".repeat(5_000));
        assert!(long.len() < LOG_LINE_BYTES_MAX + 16);
    }

    /// A standard error that is not read: a write blocks until the test releases it.
    struct Stuck(Receiver<()>);

    impl io::Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_standard_error_without_reader_delays_no_thread_and_lost_lines_are_counted() {
        let (release, stuck) = channel();
        let log = Log::start_on(Stuck(stuck)).unwrap();
        // Bypass the rate limits, which would suppress some of these lines.
        let count = 2 * LOG_LINES_WAITING;
        for _ in 0..count {
            let mut state = log.state();
            state.put("a line\n".to_owned());
        }
        let lost = log.state().lost as usize;
        assert!(lost >= count - LOG_LINES_WAITING - 1, "{lost}");
        drop(release);
        log.close();
    }

    #[test]
    fn a_standard_error_that_is_closed_loses_lines_and_ends_nothing() {
        struct Closed;
        impl io::Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let log = Log::start_on(Closed).unwrap();
        for _ in 0..3 {
            log.write(Kind::LinkUp, "peer \"a\"", "up");
        }
        log.close();
    }
}
