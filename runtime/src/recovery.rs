//! Recovery from panics of the slow path. A panic is caught and reported in one line, and the slow
//! path restarts while the workers forward. Repeated panics end the relay. Panics of other threads
//! are not caught.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::VecDeque,
    panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind},
    time::{Duration, Instant},
};

/// The maximum number of restarts within [`WINDOW`]. The relay must survive a panic that a rare
/// packet causes, but must not hide a bug that causes a panic in every turn.
const RESTARTS_MAX: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);

thread_local! {
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Silences the panic hook for panics that `caught` catches. If `RUST_BACKTRACE` is set, the hook
/// still prints them.
pub fn silence_caught_panics() {
    let default_hook = panic::take_hook();
    let wants_all = std::env::var_os("RUST_BACKTRACE").is_some();
    panic::set_hook(Box::new(move |info| {
        if IS_CAUGHT.get() {
            MESSAGE.set(Some(message_of(info)));
        }
        if wants_all || !IS_CAUGHT.get() {
            default_hook(info);
        }
    }));
}

fn message_of(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line()));
    format!("{}{}", text_of(info.payload()), place.unwrap_or_default())
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    owned.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Runs code that may panic. After a panic the caller must repair what the code left incomplete.
///
/// # Errors
/// The message of the panic, with the source location if [`silence_caught_panics`] was called.
pub(crate) fn caught<T>(what: impl FnOnce() -> T) -> Result<T, String> {
    IS_CAUGHT.set(true);
    let done = catch_unwind(AssertUnwindSafe(what));
    IS_CAUGHT.set(false);
    let message = MESSAGE.take();
    done.map_err(|payload| message.unwrap_or_else(|| text_of(&*payload).to_owned()))
}

/// Counts the restarts of the slow path, in total and within [`WINDOW`].
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    recent: VecDeque<Instant>,
    count: u64,
}

impl Restarts {
    /// The number of restarts since the start of the relay.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Counts a restart. Returns `false`, and counts nothing, after too many restarts.
    pub(crate) fn may_restart(&mut self, now: Instant) -> bool {
        self.recent.retain(|&at| now.duration_since(at) < WINDOW);
        if self.recent.len() >= RESTARTS_MAX {
            return false;
        }
        self.recent.push_back(now);
        self.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_panic_is_returned_and_the_thread_continues() {
        assert_eq!(caught(|| 7), Ok(7));
        let message = caught(|| panic::resume_unwind(Box::new("seven".to_owned())));
        assert_eq!(message, Err::<(), _>("seven".to_owned()));
        assert!(!IS_CAUGHT.get(), "later panics use the default hook");
    }

    #[test]
    fn restarts_within_a_minute_are_bounded() {
        let mut restarts = Restarts::default();
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        assert!((0..RESTARTS_MAX as u64).all(|second| restarts.may_restart(at(second))));
        assert!(!restarts.may_restart(at(59)));
        assert!(restarts.may_restart(at(60)), "the first is a minute ago");
        assert!(!restarts.may_restart(at(60)));
        assert_eq!(restarts.count(), RESTARTS_MAX as u64 + 1);
    }
}
