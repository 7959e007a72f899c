//! Tests of endpoints, with each way of sending and receiving. No test sleeps; every wait has a
//! deadline.

use std::time::Duration;

use strowger_frame::{Address, Burst, ChunkClass, Loss, Mark, Pool, PoolSpec, Port};
use strowger_io::{
    Endpoint, EndpointPort, EndpointSpec, Waited, Waiter,
    endpoint::{self, Gone, HEADROOM_BYTES, SendError, TAILROOM_BYTES},
};

const SLOT: Mark = Mark(5);
const LONG: Duration = Duration::from_secs(90);

fn pair(depth_frames: usize) -> (EndpointPort, Endpoint) {
    let pool = PoolSpec { trains: 2, singles: 0, huge_pages: false };
    let (mut port, endpoint) =
        endpoint::pair(&EndpointSpec { depth_frames, pool }).expect("memory");
    port.admit(SLOT, Address::Only).expect("free");
    (port, endpoint)
}

fn no_pool() -> Pool {
    Pool::new(&PoolSpec { trains: 0, singles: 0, huge_pages: false }).expect("memory")
}

/// Acts as the switch: sends every received frame back.
fn echo(port: &mut EndpointPort) -> usize {
    echo_with(port, &mut no_pool())
}

/// Like `echo`, with the pool as an argument, because making a pool in a loop costs system calls.
fn echo_with(port: &mut EndpointPort, pool: &mut Pool) -> usize {
    let mut burst = Burst::new();
    port.rx_burst(pool, &mut burst);
    let n = burst.len();
    port.tx_burst(SLOT, &mut burst);
    port.flush();
    n
}

#[test]
fn a_frame_has_room_for_a_link_around_it_and_shares_its_chunk() {
    let (_port, mut endpoint) = pair(64);
    let mut ends = 0;
    for len in [0, 1, 64, 1400] {
        let frame = endpoint.frame(len).expect("room");
        assert_eq!((frame.len(), frame.headroom()), (len, HEADROOM_BYTES));
        assert!(frame.tailroom() >= TAILROOM_BYTES);
        let begins = frame.bytes().as_ptr().addr() - HEADROOM_BYTES;
        assert!(ends == 0 || begins == ends, "one behind another");
        ends = frame.bytes().as_ptr().addr() + len + frame.tailroom();
    }
    assert_eq!(endpoint.frame(usize::from(u16::MAX)).map(|f| f.len()), Some(65_535));
    assert!(endpoint.frame(65_536).is_none());
}

#[test]
fn memory_that_is_all_on_its_way_is_refused_and_comes_back() {
    let (mut port, mut endpoint) = pair(64);
    let mut sent = 0;
    while let Some(frame) = endpoint.frame(30_000) {
        endpoint.send(frame).expect("room");
        sent += 1;
    }
    assert_eq!((sent, endpoint.pool_tally().exhausted.read()), (4, 1));
    assert!(endpoint.train(1000, 2).is_none());
    assert_eq!(echo(&mut port), 4);
    let mut back = Burst::new();
    assert_eq!(endpoint.receive_burst(&mut back), Ok(4));
    assert!(endpoint.frame(30_000).is_none());
    drop(back);
    assert!(endpoint.frame(30_000).is_some());
}

#[test]
fn the_frames_of_a_train_lie_side_by_side() {
    let (_port, mut endpoint) = pair(64);
    let mut train = endpoint.train(1300, 50).expect("65,000 bytes fit");
    let frames: Vec<_> = std::iter::from_fn(|| train.next_frame()).collect();
    assert_eq!(frames.len(), 50);
    assert!(frames.windows(2).all(|two| two[0].adjoins(&two[1]) && two[0].len() == 1300));
    for (segment, frames) in [(1300, 51), (0, 3), (3, 0), (65_536, 1), (usize::MAX, 2)] {
        assert!(endpoint.train(segment, frames).is_none());
    }
}

#[test]
fn frames_with_room_behind_them_lie_side_by_side_once_it_is_used() {
    let (_port, mut endpoint) = pair(64);
    let mut train = endpoint.train_with_room(1384, 46, 16).expect("64,400 bytes fit");
    let mut frames: Vec<_> = std::iter::from_fn(|| train.next_frame()).collect();
    assert_eq!(frames.len(), 46);
    drop(train);
    assert!(!frames[0].adjoins(&frames[1]) && frames[0].headroom() > 0);
    for (number, frame) in frames.iter_mut().enumerate() {
        frame.bytes_mut().fill(number as u8);
        assert!(frame.grow_back(16), "there is room");
        frame.bytes_mut()[1384..].fill(0xff);
        assert!(!frame.grow_back(1), "only that much");
    }
    assert!(frames.windows(2).all(|two| two[0].adjoins(&two[1])));
    for (number, frame) in frames.iter().enumerate() {
        assert!(frame.bytes()[..1384].iter().all(|byte| *byte == number as u8));
    }
    drop(frames);
    for (segment, frames, room) in
        [(1384, 47, 16), (0, 3, 16), (3, 0, 16), (65_536, 1, 0), (1, 2, usize::MAX)]
    {
        assert!(endpoint.train_with_room(segment, frames, room).is_none());
    }
    let mut train = endpoint.train_with_room(1000, 2, 0).expect("without room, as `train`");
    let (one, two) = (train.next_frame().expect("one"), train.next_frame().expect("two"));
    assert!(one.adjoins(&two) && train.next_frame().is_none());
}

#[test]
fn a_full_wire_gives_the_frame_back_and_a_sender_can_wait_for_room() {
    let (mut port, mut endpoint) = pair(2);
    for _ in 0..2 {
        let frame = endpoint.frame(10).expect("room");
        endpoint.send(frame).expect("room");
    }
    let frame = endpoint.frame(10).expect("room");
    let Err(SendError::Full(frame)) = endpoint.send(frame) else { panic!("it is full") };
    let Err(SendError::Full(frame)) = endpoint.send_wait(frame, Duration::from_millis(1)) else {
        panic!("the port is never polled")
    };
    let switch = std::thread::spawn(move || {
        while port.tally().frames_in.read() < 3 {
            port.rx_burst(&mut no_pool(), &mut Burst::new());
            std::thread::yield_now();
        }
    });
    endpoint.send_wait(frame, LONG).expect("the switch takes them");
    switch.join().expect("no panic");
}

#[test]
fn a_receiver_waits_no_longer_than_its_timeout() {
    let (_port, mut endpoint) = pair(4);
    assert_eq!(endpoint.receive_wait(Duration::ZERO).expect("there").map(|f| f.len()), None);
    let tick = Duration::from_millis(2);
    assert_eq!(endpoint.receive_wait(tick).expect("there").map(|f| f.len()), None);
}

#[test]
fn its_descriptor_can_be_polled_with_others() {
    let (mut port, mut endpoint) = pair(4);
    let mut waiter = Waiter::with_capacity(1);
    for _ in 0..3 {
        waiter.begin();
        waiter.add(endpoint.arm());
        assert_eq!(waiter.wait(Some(Duration::ZERO)), Waited::TimedOut);
        let frame = endpoint.frame(10).expect("room");
        endpoint.send(frame).expect("room");
        echo(&mut port);
        assert_eq!(waiter.wait(Some(LONG)), Waited::Ready);
        assert!(endpoint.receive().expect("there").is_some());
        assert!(endpoint.receive().expect("there").is_none());
    }
    endpoint.arm();
    drop(port);
    assert_eq!(waiter.wait(Some(LONG)), Waited::Ready, "the end wakes, too");
}

#[test]
fn r10_a_dropped_endpoint_leaves_the_port_up_and_its_frames_counted() {
    let (mut port, mut endpoint) = pair(64);
    let mut keep = Burst::new();
    for _ in 0..3 {
        let frame = endpoint.frame(10).expect("room");
        endpoint.send(frame).expect("room");
    }
    assert_eq!(echo(&mut port), 3);
    endpoint.receive_burst(&mut keep).expect("there");
    let late = endpoint.frame(11).expect("room");
    endpoint.send(late).expect("room");
    assert_eq!(keep.len(), 3);
    drop(endpoint);
    assert!(port.is_gone());
    // Frames that the endpoint sent before still arrive. Frames sent to it count as lost.
    let mut burst = Burst::new();
    port.rx_burst(&mut no_pool(), &mut burst);
    assert_eq!(burst.len(), 1);
    port.tx_burst(SLOT, &mut burst);
    port.tx_burst(SLOT, &mut keep);
    let tally = port.tally();
    assert_eq!((tally.frames_out.read(), tally.lost(Loss::PeerGone)), (3, 4));
}

#[test]
fn a_dropped_port_is_a_clear_error_after_what_had_arrived() {
    let (mut port, mut endpoint) = pair(64);
    for _ in 0..3 {
        let frame = endpoint.frame(10).expect("room");
        endpoint.send(frame).expect("room");
    }
    echo(&mut port);
    let frame = endpoint.frame(10).expect("room");
    endpoint.send(frame).expect("room");
    drop(port);
    let frame = endpoint.frame(10).expect("room");
    assert!(matches!(endpoint.send(frame), Err(SendError::Gone(_))));
    let mut burst = Burst::from_iter(endpoint.frame(10));
    assert_eq!(endpoint.send_burst(&mut burst), Err(Gone));
    assert_eq!(burst.len(), 1);
    for _ in 0..3 {
        assert!(endpoint.receive_wait(LONG).expect("it had arrived").is_some());
    }
    assert_eq!(endpoint.receive().map(|_| ()), Err(Gone));
    assert_eq!(endpoint.receive_wait(LONG).map(|_| ()), Err(Gone));
    assert!(endpoint.is_gone());
    // Three frames were taken, and one was waiting when the port was dropped.
    let tally = endpoint.tally();
    assert_eq!((tally.frames_out.read(), tally.lost(Loss::PeerGone)), (3, 1));
}

#[test]
fn a_pool_without_chunks_is_an_error() {
    let pool = PoolSpec { trains: 0, singles: 1, huge_pages: false };
    let (_port, mut endpoint) =
        endpoint::pair(&EndpointSpec { depth_frames: 1, pool }).expect("memory");
    assert!(endpoint.frame(1).is_none());
    let mut other = Pool::new(&pool).expect("memory");
    let frame = other.take(ChunkClass::Single).expect("one").into_frame(0, 9);
    endpoint.send(frame).expect("frames of any pool can be sent");
}

#[cfg(feature = "async")]
mod asynchronous {
    use std::{
        future::Future,
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        task::{Context, Poll, Wake, Waker},
        thread::Thread,
    };

    use super::*;

    /// A waker that unparks its thread and counts its calls.
    struct Parked(Thread, AtomicU32);

    impl Wake for Parked {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.unpark();
        }
    }

    fn parked() -> Arc<Parked> {
        Arc::new(Parked(std::thread::current(), AtomicU32::new(0)))
    }

    /// A minimal async runtime.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = Waker::from(parked());
        loop {
            if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return done;
            }
            let started = std::time::Instant::now();
            std::thread::park_timeout(LONG);
            assert!(started.elapsed() < LONG, "a wake-up was lost");
        }
    }

    #[test]
    fn a_task_is_woken_for_every_frame() {
        const FRAMES: u32 = 20_000;
        let (mut port, mut endpoint) = pair(8);
        let switch = std::thread::spawn(move || {
            let (mut echoed, mut pool) = (0, no_pool());
            while echoed < FRAMES {
                match echo_with(&mut port, &mut pool) as u32 {
                    // The task may need this core.
                    0 => std::thread::yield_now(),
                    frames => echoed += frames,
                }
            }
            port
        });
        for n in 0..FRAMES {
            let mut frame = endpoint.frame(4).expect("one is on its way at most");
            frame.bytes_mut().copy_from_slice(&n.to_be_bytes());
            endpoint.send(frame).expect("room");
            let back = block_on(endpoint.receive_async()).expect("the port is there");
            assert_eq!(back.bytes(), n.to_be_bytes());
        }
        drop(switch.join().expect("no panic"));
        assert_eq!(block_on(endpoint.receive_async()).map(|_| ()), Err(Gone));
    }

    #[test]
    fn the_task_that_registered_last_is_woken() {
        let (mut port, mut endpoint) = pair(8);
        let (first, second) = (parked(), parked());
        for task in [&first, &second] {
            let waker = Waker::from(task.clone());
            let polled = endpoint.poll_receive(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        let frame = endpoint.frame(4).expect("room");
        endpoint.send(frame).expect("room");
        echo(&mut port);
        let woken = [&first, &second].map(|task| task.1.load(Ordering::Relaxed));
        assert_eq!(woken, [0, 1]);
    }
}
