//! Signals: which of them end a relay in order, and which are only logged. None but a second SIGINT or SIGTERM ends it
//! without a goodbye.
//!
//! | signal | what comes of it |
//! |---|---|
//! | SIGINT, SIGTERM | the relay ends in order; a second one ends it at once |
//! | SIGHUP, its terminal is gone | the relay ends in order; as often as it comes |
//! | SIGHUP otherwise, SIGUSR1, SIGUSR2 | a line in the log |
//! | SIGXFSZ | nothing: the file that grew too long reports its error |
//!
//! A SIGHUP that was ignored when the relay was started (`nohup`) stays so.

use std::{
    fs::{self, File},
    io,
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicU32, Ordering},
    },
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ},
    iterator::Signals,
};
use strowger_io::Ringer;

/// What has come, for the slow path.
#[derive(Clone, Debug, Default)]
pub(super) struct Signalled(Arc<Came>);

#[derive(Debug, Default)]
struct Came {
    /// The signal that ends the relay; 0 as long as none came.
    stop: AtomicI32,
    /// Signals to be logged, by bits.
    noted: AtomicU32,
}

impl Signalled {
    /// Watches from now on, on a thread of its own that rings after each signal.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn watch(ringer: Ringer) -> io::Result<Self> {
        let signalled = Self::default();
        let is_hup_ours = !is_ignored(SIGHUP);
        let mut wanted = vec![SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ];
        wanted.extend(is_hup_ours.then_some(SIGHUP));
        let mut signals = Signals::new(wanted)?;
        let had_terminal = has_terminal();
        let theirs = signalled.clone();
        let watch = move || {
            for signal in &mut signals {
                let is_hang_up = signal == SIGHUP && had_terminal && !has_terminal();
                match signal {
                    SIGXFSZ => continue,
                    SIGINT | SIGTERM if theirs.stop().is_some() => {
                        let _ = signal_hook::low_level::emulate_default_handler(signal);
                    }
                    SIGINT | SIGTERM => theirs.0.stop.store(signal, Ordering::Release),
                    // A shell says it as well as the kernel, so a second one kills nothing.
                    _ if is_hang_up => {
                        let (was, order) = (0, Ordering::Release);
                        let stop = &theirs.0.stop;
                        let _ = stop.compare_exchange(was, signal, order, Ordering::Relaxed);
                    }
                    _ => {
                        theirs.0.noted.fetch_or(1 << signal, Ordering::Release);
                    }
                }
                ringer.ring();
            }
        };
        let named = std::thread::Builder::new().name("signals".to_owned());
        named.spawn(watch)?;
        Ok(signalled)
    }

    /// The line of the signal that ends the relay, if one came.
    pub(super) fn stop(&self) -> Option<&'static str> {
        match self.0.stop.load(Ordering::Acquire) {
            0 => None,
            SIGHUP => Some("SIGHUP, and the terminal is gone: the relay stops"),
            SIGINT => Some("SIGINT: the relay stops"),
            _ => Some("SIGTERM: the relay stops"),
        }
    }

    /// Lines about signals that came since this was last asked, and end nothing.
    pub(super) fn noted(&self) -> impl Iterator<Item = &'static str> {
        let noted = match self.0.noted.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.0.noted.swap(0, Ordering::Acquire),
        };
        let lines = [
            (
                SIGHUP,
                "SIGHUP is ignored: the configuration is read at start only; restart the relay",
            ),
            (SIGUSR1, "SIGUSR1 is ignored: it has no meaning"),
            (SIGUSR2, "SIGUSR2 is ignored: it has no meaning"),
        ];
        lines.into_iter().filter(move |(signal, _)| noted & 1 << signal != 0).map(|(_, line)| line)
    }
}

/// Whether this process has a terminal that it is controlled by.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether a signal was ignored by who started this process.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.unwrap_or(0) & 1 << (signal - 1) != 0
}
