//! What a panic of the slow path comes to: it is caught, said in one line, and the slow path begins
//! anew while the workers forward. One that panics again and again ends the relay. It never hides a
//! panic of any other thread.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::VecDeque,
    panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind},
    time::{Duration, Instant},
};

/// So many restarts within [`WINDOW`] are survived: what comes of a rare packet or moment is, and
/// a bug that every turn meets is not hidden for long.
const RESTARTS_MAX: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);

thread_local! {
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on a panic that [`caught`] catches says nothing by itself, unless the environment asks for
/// backtraces.
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

/// Does something that may panic. What it was doing is to be looked at again then.
///
/// # Errors
/// What the panic said, and where.
pub fn caught<T>(what: impl FnOnce() -> T) -> Result<T, String> {
    IS_CAUGHT.set(true);
    let done = catch_unwind(AssertUnwindSafe(what));
    IS_CAUGHT.set(false);
    let said = MESSAGE.take();
    done.map_err(|payload| said.unwrap_or_else(|| text_of(&*payload).to_owned()))
}

/// How often the slow path has begun anew, and when recent.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    recent: VecDeque<Instant>,
    count: u64,
}

impl Restarts {
    /// How often since the relay began.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// It has panicked; `false` if it has too often to begin anew.
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
    fn a_panic_s_words_are_told_and_the_thread_goes_on() {
        assert_eq!(caught(|| 7), Ok(7));
        let said = caught(|| panic::resume_unwind(Box::new("seven".to_owned())));
        assert_eq!(said, Err::<(), _>("seven".to_owned()));
        assert!(!IS_CAUGHT.get(), "what comes later is told by whoever did before");
    }

    #[test]
    fn so_many_restarts_in_a_minute_and_no_more() {
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
