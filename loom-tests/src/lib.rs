//! Models of every lock-free structure of Strowger, run on its real code. They never re-implement
//! what they check.
//!
//! Under `--cfg loom` each scenario is run in every order of its steps, and with every value that
//! the memory model lets a load see, within what `README.md` says. Without it the very
//! same scenarios run some thousand times on plain threads: a stress test, **not a model**, which
//! says so on standard error.
//!
//! | file | what it models |
//! |---|---|
//! | `ring.rs` | the ring of one producer and one consumer; orders, reports and exchanges are such rings |
//! | `pool.rs` | chunks on their way home, trains in two threads, pools that end first |
//! | `slots.rs` | a number that goes from one user to the next while two workers forward |
//! | `sleep.rs` | the flag beside a doorbell, and the doorbell |
//! | `wire.rs` | a wire's notes: an end that waits for room, an end that is gone |
//! | `xdp_ring.rs` | our side of the rings shared with the kernel, against the kernel's |

#![cfg(test)]

mod pool;
mod ring;
mod sleep;
mod slots;
mod wire;
mod xdp_ring;

/// How often a scenario is run on plain threads.
#[cfg(not(loom))]
const ROUNDS: usize = 2_000;

/// Runs a scenario in every order that loom finds (unless `LOOM_MAX_PREEMPTIONS` bounds it).
fn check(scenario: impl Fn() + Send + Sync + 'static) {
    run(None, scenario);
}

/// The same with so many preemptions at most, for scenarios of three threads.
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

/// No model: the scenario, often, on plain threads.
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

/// Stands for memory that loom does not track: it complains when two uses, one of them a write,
/// are not ordered. On plain threads it is nothing; there the bytes themselves are compared.
/// (Loom runs its threads one at a time on one, hence `Rc`.)
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
