//! Handles signals. SIGINT, SIGTERM and the loss of the terminal end the relay in order, with
//! goodbyes. A second SIGINT or SIGTERM ends it immediately.
//!
//! | signal | effect |
//! |---|---|
//! | SIGINT, SIGTERM | the relay ends in order; a second one ends it immediately |
//! | SIGHUP, and the terminal is gone | the relay ends in order, however often the signal arrives |
//! | other SIGHUP, SIGUSR1, SIGUSR2 | a line in the log |
//! | SIGXFSZ | none: writing to the file returns an error |
//!
//! If SIGHUP was ignored when the relay started (`nohup`), it stays ignored.

use std::{
    fs::{self, File},
    io,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ},
    iterator,
};

use crate::limits::SIGNAL_MESSAGES_MAX;

/// A message to the main thread.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message {
    /// A signal without effect, with the text of its line in the log.
    Ignored(&'static str),
    /// A signal ends the relay: [`Signals::stop`] now returns its log line.
    Wake,
    /// The relay has ended without a signal.
    Ended,
}

/// The signal that ends the relay, and the queue of messages to the main thread.
#[derive(Debug)]
pub(super) struct Signals {
    /// The number of the signal that ends the relay; 0 if none has arrived.
    stop: Arc<AtomicI32>,
    sender: SyncSender<Message>,
    messages: Receiver<Message>,
}

impl Signals {
    /// Watches for signals on a separate thread.
    ///
    /// # Errors
    /// The kernel refuses a signal handler or cannot create the thread.
    pub(super) fn watch() -> io::Result<Self> {
        let (sender, messages) = sync_channel(SIGNAL_MESSAGES_MAX);
        let signals = Self { stop: Arc::default(), sender, messages };
        let is_hup_ours = !is_ignored(SIGHUP);
        let mut wanted = vec![SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ];
        wanted.extend(is_hup_ours.then_some(SIGHUP));
        let mut received = iterator::Signals::new(wanted)?;
        let had_terminal = has_terminal();
        let (stop, sender) = (signals.stop.clone(), signals.sender.clone());
        let watch = move || {
            for signal in &mut received {
                let is_hang_up = signal == SIGHUP && had_terminal && !has_terminal();
                let message = match signal {
                    SIGXFSZ => continue,
                    SIGINT | SIGTERM if stop.load(Ordering::Acquire) != 0 => {
                        let _ = signal_hook::low_level::emulate_default_handler(signal);
                        continue;
                    }
                    SIGINT | SIGTERM => {
                        stop.store(signal, Ordering::Release);
                        Message::Wake
                    }
                    // The shell and the kernel both send SIGHUP, so a second SIGHUP must not end
                    // the relay immediately.
                    _ if is_hang_up => {
                        let order = Ordering::Release;
                        let _ = stop.compare_exchange(0, signal, order, Ordering::Relaxed);
                        Message::Wake
                    }
                    SIGHUP => Message::Ignored(
                        "SIGHUP is ignored: the configuration is read at start only; restart the relay",
                    ),
                    SIGUSR1 => Message::Ignored("SIGUSR1 is ignored: it has no meaning"),
                    _ => Message::Ignored("SIGUSR2 is ignored: it has no meaning"),
                };
                // Ignore a full queue: its messages wake the main thread as well.
                let _ = sender.try_send(message);
            }
        };
        let named = std::thread::Builder::new().name("signals".to_owned());
        named.spawn(watch)?;
        Ok(signals)
    }

    /// The log line about the signal that ends the relay, if one has arrived.
    pub(super) fn stop(&self) -> Option<&'static str> {
        match self.stop.load(Ordering::Acquire) {
            0 => None,
            SIGHUP => Some("SIGHUP, and the terminal is gone: the relay stops"),
            SIGINT => Some("SIGINT: the relay stops"),
            _ => Some("SIGTERM: the relay stops"),
        }
    }

    /// A sender of messages to the main thread.
    pub(super) fn sender(&self) -> SyncSender<Message> {
        self.sender.clone()
    }

    /// Blocks until a message arrives.
    pub(super) fn recv(&self) -> Result<Message, RecvTimeoutError> {
        self.messages.recv().map_err(|_| RecvTimeoutError::Disconnected)
    }

    /// Blocks until a message arrives, but no longer than this time.
    pub(super) fn recv_timeout(&self, timeout: Duration) -> Result<Message, RecvTimeoutError> {
        self.messages.recv_timeout(timeout)
    }
}

/// Whether this process has a controlling terminal.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether this process ignores the signal. At start this is the setting of its parent process.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.unwrap_or(0) & 1 << (signal - 1) != 0
}
