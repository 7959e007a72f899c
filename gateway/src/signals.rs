//! SIGINT and SIGTERM: the peers get a goodbye before the program ends.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use strowger_socket::Node;

use crate::{
    exit::{Exit, Failure},
    limits::ENDING_MAX,
    node,
};

/// Whether a signal is ending the process.
static IS_ENDING: AtomicBool = AtomicBool::new(false);
/// Whether the program has noticed the signal and has cleaned up.
static HAS_ENDED: AtomicBool = AtomicBool::new(false);
/// The interval at which the signal thread checks `HAS_ENDED`.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// If a signal is ending the process, blocks until the end, so that the program does not report the
/// closed node as an error.
pub(crate) fn wait_if_ending() {
    while IS_ENDING.load(Ordering::SeqCst) {
        HAS_ENDED.store(true, Ordering::SeqCst);
        std::thread::park();
    }
}

/// Closes the node at the first signal, and ends the process with the exit code 128 and the number
/// of the signal, as a shell does.
///
/// # Errors
/// One line: the kernel refuses a thread or a descriptor.
pub(crate) fn close_on_signal(node: &Node) -> Result<(), Failure> {
    close_on_signal_and(node, || {})
}

/// As [`close_on_signal`], and calls `and` first.
///
/// # Errors
/// As [`close_on_signal`].
pub(crate) fn close_on_signal_and(
    node: &Node,
    and: impl FnOnce() + Send + 'static,
) -> Result<(), Failure> {
    let refused = |error: std::io::Error| Failure::new(Exit::Refused, format!("signals: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(refused)?;
    let node = node.clone();
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            IS_ENDING.store(true, Ordering::SeqCst);
            and();
            node::close(node, "");
            // The program notices the end by its closed node, and may still remove a file.
            let began = Instant::now();
            while !HAS_ENDED.load(Ordering::SeqCst) && began.elapsed() < ENDING_MAX {
                std::thread::sleep(LOOK_EVERY);
            }
            std::process::exit(128 + signal);
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(refused)?;
    Ok(())
}
