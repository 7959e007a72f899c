//! The sleep flag: no wake-up is lost between a sleeper that checks once more and a waker that
//! reads the flag.
//!
//! No thread blocks here: a sleeper that would block stops, and the end of the scenario checks
//! whether it would have been woken.

use std::time::Duration;

use strowger_frame::{
    port::Arm,
    ring::{Consumer, Producer, ring},
    sleep::SleepFlag,
    sync::Arc,
};
use strowger_io::{Doorbell, DoorbellWaker, Waited, Waiter};

use crate::{check, spawn};

/// Publishes work. Returns whether the caller must make the system call.
fn publish(mut work: Producer<u32>, flag: &SleepFlag) -> bool {
    work.push(1).expect("one place");
    flag.must_wake()
}

/// Sets the flag and checks once more. Returns whether the caller would block.
fn blocks(work: &mut Consumer<u32>, flag: &SleepFlag) -> bool {
    flag.fall_asleep();
    work.is_empty()
}

#[test]
fn a_sleeper_is_woken_or_finds_the_work() {
    check(|| {
        let flag = Arc::new(SleepFlag::default());
        let (producer, mut consumer) = ring(1);
        let theirs = flag.clone();
        let waker = spawn(move || publish(producer, &theirs));
        let blocked = blocks(&mut consumer, &flag);
        let woken = waker.join().expect("no panic");
        assert!(!blocked || woken, "asleep beside work, not woken");
    });
}

#[test]
fn of_two_wakers_one_at_most_makes_the_call() {
    check(|| {
        let flag = Arc::new(SleepFlag::default());
        let work: [_; 2] = std::array::from_fn(|_| ring(1));
        let [(first, mut from_first), (second, mut from_second)] = work;
        let wakers = [first, second].map(|producer| {
            let flag = flag.clone();
            spawn(move || publish(producer, &flag))
        });
        flag.fall_asleep();
        let blocked = from_first.is_empty() && from_second.is_empty();
        let calls: usize =
            wakers.map(|waker| usize::from(waker.join().expect("no panic"))).iter().sum();
        assert!(calls <= 1, "more than one call for one sleep");
        assert!(!blocked || calls == 1, "asleep beside work, not woken");
    });
}

/// Publishes work, then wakes the sleeper with a waker of `strowger-io`.
fn give(work: &mut Producer<u32>, waker: &DoorbellWaker) {
    work.push(1).expect("a place each");
    waker.wake();
}

fn is_rung(bell: &Doorbell) -> bool {
    let mut waiter = Waiter::with_capacity(1);
    waiter.add(Arm::Wait(std::os::fd::AsRawFd::as_raw_fd(bell)));
    waiter.wait(Some(Duration::ZERO)) == Waited::Ready
}

#[test]
fn a_doorbell_is_rung_or_the_work_was_seen() {
    // Two sleeps in a row cause a false alarm in loom (see README.md), so only plain threads sleep
    // twice.
    let requested = std::env::var("LOOM_SLEEPS").ok().and_then(|sleeps| sleeps.parse().ok());
    let sleeps = requested.unwrap_or(if cfg!(loom) { 1 } else { 2 });
    check(move || {
        let mut bell = Doorbell::new().expect("a descriptor");
        let waker = bell.waker();
        let (mut producer, mut consumer) = ring(2);
        let waker = spawn(move || {
            give(&mut producer, &waker);
            give(&mut producer, &waker);
        });
        for _ in 1..sleeps {
            bell.arm();
            consumer.pop();
            bell.disarm();
        }
        bell.arm();
        let blocked = consumer.is_empty();
        waker.join().expect("no panic");
        assert!(!blocked || consumer.is_empty() || is_rung(&bell), "asleep beside work, not woken");
    });
}
