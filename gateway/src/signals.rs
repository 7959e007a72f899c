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
/// Whether the program has seen that, and has removed what it leaves behind.
static HAS_ENDED: AtomicBool = AtomicBool::new(false);
/// How often the thread of signals looks.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// If a signal is ending the process, waits for the end: the error of a closed node is then none of
/// the program.
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
            // The program learns of the end by its closed node, and may have a file to remove.
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
