//! The queues between sockets and their driver: rings, ready bits, the driver's sleep flag, the
//! wakers of tasks, and closing.
//!
//! A socket publishes a frame, sets its ready bit, and then wakes the driver if it sleeps. The
//! driver publishes a message, and then wakes the socket's task if it waits. As in `sleep.rs`, no
//! thread blocks: a thread that would block stops, and the end of the scenario checks whether it
//! was woken.

use std::{sync::Arc as StdArc, task::Wake};

use strowger_frame::{
    ready::ReadyBits,
    ring::{Consumer, Producer, ring},
    sleep::SleepFlag,
    sync::{Arc, AtomicBool, AtomicU32, Ordering},
    waker::TaskBell,
};

use crate::{check, check_bounded, spawn};

/// Publishes a frame as a socket does. Returns whether the socket must wake the driver.
fn hand_in(frames: &mut Producer<u32>, queue: usize, bits: &ReadyBits, flag: &SleepFlag) -> bool {
    frames.push(1).expect("one place");
    bits.set(queue);
    flag.must_wake()
}

/// Takes the frames of the queues whose ready bits are set. Returns their number.
fn collect(bits: &ReadyBits, queues: &mut [Consumer<u32>]) -> u32 {
    let ready = bits.take(0);
    let mut taken = 0;
    for (queue, frames) in queues.iter_mut().enumerate() {
        if ready & (1 << queue) != 0 {
            // The bit was set after the frame was published.
            let first = frames.pop();
            taken += first.into_iter().count() as u32;
        }
    }
    taken
}

#[test]
fn a_driver_is_woken_or_sees_the_ready_bit() {
    check(|| {
        let (bits, flag) = (Arc::new(ReadyBits::new(1)), Arc::new(SleepFlag::default()));
        let (mut frames, consumer) = ring(1);
        let theirs = (bits.clone(), flag.clone());
        let socket = spawn(move || hand_in(&mut frames, 0, &theirs.0, &theirs.1));
        let mut queues = [consumer];
        // The driver finds nothing, and goes to sleep.
        let first = collect(&bits, &mut queues);
        flag.fall_asleep();
        let blocked = !bits.any(1);
        let woken = socket.join().expect("no panic");
        if first == 0 {
            assert!(!blocked || woken, "asleep beside a ready socket, not woken");
            assert_eq!(collect(&bits, &mut queues), 1, "the bit says that there is a frame");
        }
    });
}

#[test]
fn no_ready_bit_of_a_word_is_lost() {
    check_bounded(3, || {
        let (bits, flag) = (Arc::new(ReadyBits::new(2)), Arc::new(SleepFlag::default()));
        let rings: [_; 2] = std::array::from_fn(|_| ring(1));
        let [(first, from_first), (second, from_second)] = rings;
        let sockets = [(0, first), (1, second)].map(|(queue, mut frames)| {
            let (bits, flag) = (bits.clone(), flag.clone());
            spawn(move || hand_in(&mut frames, queue, &bits, &flag))
        });
        let mut queues = [from_first, from_second];
        let mut taken = collect(&bits, &mut queues);
        for socket in sockets {
            socket.join().expect("no panic");
        }
        taken += collect(&bits, &mut queues);
        assert_eq!(taken, 2);
    });
}

/// Counts the calls of a waker.
struct Called(AtomicU32);

impl Wake for Called {
    fn wake(self: StdArc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn task() -> (StdArc<Called>, std::task::Waker) {
    let called = StdArc::new(Called(AtomicU32::new(0)));
    (called.clone(), called.into())
}

#[test]
fn a_task_is_woken_or_finds_the_item() {
    check(|| {
        let bell = Arc::new(TaskBell::default());
        let (mut producer, mut consumer) = ring(1);
        let theirs = bell.clone();
        let driver = spawn(move || {
            producer.push(1).expect("one place");
            theirs.ring();
        });
        let (called, waker) = task();
        let mut found = consumer.pop();
        if found.is_none() {
            bell.register(&waker);
            found = consumer.pop();
        }
        driver.join().expect("no panic");
        let calls = called.0.load(Ordering::Relaxed);
        assert!(found.is_some() || calls > 0, "waits beside an item, not woken");
    });
}

/// As in `poll_send`: a task that finds no empty buffer registers, and the driver refills.
#[test]
fn a_task_that_registers_again_is_woken_by_a_refill() {
    check_bounded(3, || {
        let bell = Arc::new(TaskBell::default());
        let (mut producer, mut consumer) = ring(2);
        let theirs = bell.clone();
        let driver = spawn(move || {
            for item in 0..2 {
                producer.push(item).expect("two places");
                theirs.ring();
            }
        });
        let (called, waker) = task();
        let mut found = 0;
        // The task registers with a clone of its waker, takes one item if there is one, and
        // registers again.
        for _ in 0..2 {
            bell.register(&waker.clone());
            found += u32::from(consumer.pop().is_some());
        }
        let calls = called.0.load(Ordering::Relaxed);
        driver.join().expect("no panic");
        let later = called.0.load(Ordering::Relaxed) > calls;
        assert!(found == 2 || calls > 0 || later, "waits beside an item, not woken");
    });
}

/// The driver closes a socket while the socket sends: each frame is either taken by the driver or
/// dropped with the ring, once, and a waiting sender is woken.
#[test]
fn closing_meets_sending() {
    check(|| {
        let (closed, bell) = (Arc::new(AtomicBool::new(false)), Arc::new(TaskBell::default()));
        let frame = StdArc::new(());
        let (mut frames, mut driver_side) = ring::<StdArc<()>>(1);
        let (theirs, sent) = ((closed.clone(), bell.clone()), frame.clone());
        let (called, waker) = task();
        let socket = spawn(move || {
            let (closed, bell) = theirs;
            if frames.push(sent.clone()).is_err() {
                return (false, true);
            }
            // The ring has one place, so the second frame waits, or the socket is closed.
            bell.register(&waker);
            let waits = frames.push(sent).is_err() && !closed.load(Ordering::Acquire);
            (waits, false)
        });
        let taken = driver_side.pop();
        closed.store(true, Ordering::Release);
        bell.ring();
        let (waits, _) = socket.join().expect("no panic");
        let woken = called.0.load(Ordering::Relaxed) > 0;
        assert!(!waits || woken, "waits at a closed socket, not woken");
        drop((taken, driver_side));
        assert_eq!(StdArc::strong_count(&frame), 1, "each frame is dropped once");
    });
}

/// A receiver that sees the end has received every message that came before it.
#[test]
fn no_message_is_lost_before_the_end() {
    check(|| {
        let closed = Arc::new(AtomicBool::new(false));
        let (mut messages, mut receiver) = ring(2);
        let theirs = closed.clone();
        let driver = spawn(move || {
            messages.push(1).expect("two places");
            theirs.store(true, Ordering::Release);
        });
        let mut received = 0;
        let mut ended = false;
        for _ in 0..2 {
            // Reads the flag before it takes messages.
            let is_closed = closed.load(Ordering::Acquire);
            match receiver.pop() {
                Some(_) => received += 1,
                None => ended |= is_closed,
            }
        }
        assert!(!ended || received == 1, "the end came before the last message");
        driver.join().expect("no panic");
    });
}
