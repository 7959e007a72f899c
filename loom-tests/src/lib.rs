//! Models of Strowger's lock-free structures, run on the real code.
//!
//! Under `--cfg loom` each scenario runs in every order of its steps, and with every value that the
//! memory model lets a load see, within the bounds that `README.md` states. Without it each
//! scenario runs 2,000 times on plain threads. This is a stress test, **not a model**; standard
//! error says so.
//!
//! | file | subject |
//! |---|---|
//! | `ring.rs` | the SPSC ring; commands, completions and handoffs use such rings |
//! | `pool.rs` | chunks that return, trains shared by two threads, pools dropped before a chunk |
//! | `slots.rs` | a slot number that passes to another user while two workers forward |
//! | `sleep.rs` | the sleep flag, and the doorbell |
//! | `socket.rs` | ready bits, wakers and closing between a driver and its sockets |
//! | `wire.rs` | notifications of a wire: an end that waits for room, an end that is dropped |
//! | `xdp_ring.rs` | our side of the rings shared with the kernel, against a model of the kernel |

#![cfg(test)]

mod pool;
mod ring;
mod sleep;
mod slots;
mod socket;
mod wire;
mod xdp_ring;

/// The number of runs of a scenario on plain threads.
#[cfg(not(loom))]
const ROUNDS: usize = 2_000;

/// Runs a scenario in every order that loom explores. `LOOM_MAX_PREEMPTIONS` can bound the number
/// of preemptions.
fn check(scenario: impl Fn() + Send + Sync + 'static) {
    run(None, scenario);
}

/// As [`check`], with a bound on the number of preemptions, for scenarios of three threads.
fn check_bounded(preemptions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    run(Some(preemptions), scenario);
}

#[cfg(loom)]
fn run(preemptions: Option<usize>, scenario: impl Fn() + Send + Sync + 'static) {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    let runs = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(preemptions);
    let bound = model.preemption_bound;
    model.check(move || {
        counted.fetch_add(1, Relaxed);
        scenario();
    });
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    eprintln!("{name}: {} orders, preemptions at most {bound:?}", runs.load(Relaxed));
}

/// Runs the scenario many times on plain threads. This is not a model.
#[cfg(not(loom))]
fn run(_preemptions: Option<usize>, scenario: impl Fn()) {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    eprintln!("{name}: {ROUNDS} rounds on plain threads; this is NOT a model (see README.md)");
    (0..ROUNDS).for_each(|_| scenario());
}

#[cfg(loom)]
use loom::thread::{spawn, yield_now};
#[cfg(not(loom))]
use std::thread::{spawn, yield_now};

/// Represents memory that loom does not track. The model fails if two uses are not ordered and one
/// of them is a write.
///
/// Does nothing on plain threads, where the tests compare the bytes. Loom runs its threads one at a
/// time on one thread, hence `Rc`.
#[derive(Clone)]
struct Tracked(#[cfg(loom)] std::rc::Rc<strowger_frame::sync::UnsafeCell<()>>);

impl Tracked {
    fn new() -> Self {
        Self(
            #[cfg(loom)]
            std::rc::Rc::new(strowger_frame::sync::UnsafeCell::new(())),
        )
    }

    fn read(&self) {
        #[cfg(loom)]
        self.0.with(|_| ());
    }

    fn write(&self) {
        #[cfg(loom)]
        self.0.with_mut(|_| ());
    }
}
