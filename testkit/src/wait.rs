//! Waits for a condition without sleeping. The deadline only ends a test that hangs.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Maximum time to wait for a condition, chosen for a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Calls `ask` until it returns a value. Panics at the [`DEADLINE`].
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "did not happen within {DEADLINE:?}: {what}");
        thread::yield_now();
    }
}

/// Checks the condition until it holds. Panics at the [`DEADLINE`].
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || holds().then_some(()));
}
