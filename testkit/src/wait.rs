//! Waits for a condition. The deadline only ends a test that hangs.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Maximum time to wait for a condition, chosen for a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// A call that takes longer than this asks the kernel or another process.
const SHORT: Duration = Duration::from_micros(50);

/// Maximum time between two calls.
const PAUSE_MAX: Duration = Duration::from_millis(5);

/// Calls `ask` until it returns a value. Panics at the [`DEADLINE`].
///
/// After a long call, the thread sleeps for three times the duration of the call. So waiting uses
/// at most a quarter of a core, and leaves the rest to other tests and the awaited process. After a
/// short call, which may be a poll that itself makes progress, the thread only yields.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let began = Instant::now();
        if let Some(answer) = ask() {
            return answer;
        }
        let now = Instant::now();
        assert!(now < deadline, "did not happen within {DEADLINE:?}: {what}");
        let took = now - began;
        if took < SHORT {
            thread::yield_now();
        } else {
            thread::sleep((3 * took).min(PAUSE_MAX));
        }
    }
}

/// Checks the condition until it holds. Panics at the [`DEADLINE`].
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || holds().then_some(()));
}
