//! Tests of split endpoints: sender and receiver on different threads, and what happens when either
//! is dropped.

use std::{thread, time::Duration};

use strowger_frame::{Address, Burst, Mark, Pool, PoolSpec, Port as _};
use strowger_io::endpoint::{self, EndpointPort, EndpointSpec, Gone, SendError};

fn spec(depth_frames: usize) -> EndpointSpec {
    EndpointSpec { depth_frames, ..EndpointSpec::default() }
}

fn pool() -> Pool {
    Pool::new(&PoolSpec { trains: 0, singles: 0, huge_pages: false }).expect("memory")
}

/// Sends received frames back until `count` frames were sent.
fn echo(mut port: EndpointPort, count: usize) -> EndpointPort {
    let (mut pool, mut burst, mut returned) = (pool(), Burst::new(), 0);
    while returned < count {
        if burst.is_empty() {
            port.rx_burst(&mut pool, &mut burst);
        }
        let before = burst.len();
        port.tx_burst(Mark(7), &mut burst);
        port.flush();
        returned += before - burst.len();
        thread::yield_now();
    }
    port
}

#[test]
fn two_threads_send_and_receive_and_no_wake_up_is_lost() {
    const FRAMES: usize = 20_000;
    let (mut port, mut sender, mut receiver) = endpoint::split_pair(&spec(4)).expect("memory");
    port.admit(Mark(7), Address::Only).expect("free");
    let port = thread::spawn(move || echo(port, FRAMES));
    let receiver = thread::spawn(move || {
        for number in 0..FRAMES as u64 {
            let frame = receiver.receive_wait(Some(Duration::from_secs(60)));
            let frame = frame.expect("the port is there").expect("no wake-up was lost");
            assert_eq!(frame.bytes(), number.to_be_bytes());
        }
        receiver
    });
    for number in 0..FRAMES as u64 {
        let mut frame = loop {
            match sender.frame(8) {
                Some(frame) => break frame,
                None => thread::yield_now(),
            }
        };
        frame.bytes_mut().copy_from_slice(&number.to_be_bytes());
        sender.send_wait(frame, Some(Duration::from_secs(60))).expect("no wake-up was lost");
    }
    let port = port.join().expect("no panic");
    let mut receiver = receiver.join().expect("no panic");
    assert_eq!(receiver.receive_wait(Some(Duration::ZERO)).map(|frame| frame.is_none()), Ok(true));
    assert_eq!(sender.tally().frames_out.read(), FRAMES as u64);
    assert_eq!(receiver.tally().frames_in.read(), FRAMES as u64);
    drop(port);
    assert_eq!(receiver.receive().err(), Some(Gone));
    let frame = sender.frame(8).expect("all frames came back");
    assert!(matches!(sender.send(frame), Err(SendError::Gone(_))));
}

#[test]
fn a_dropped_port_wakes_both_halves() {
    let (port, mut sender, mut receiver) = endpoint::split_pair(&spec(2)).expect("memory");
    let waits = thread::spawn(move || receiver.receive_wait(None).err());
    for _ in 0..2 {
        let frame = sender.frame(8).expect("memory");
        sender.send(frame).expect("room");
    }
    let frame = sender.frame(8).expect("memory");
    let sends =
        thread::spawn(move || matches!(sender.send_wait(frame, None), Err(SendError::Gone(_))));
    drop(port);
    assert_eq!(waits.join().expect("no panic"), Some(Gone));
    assert!(sends.join().expect("no panic"));
}

#[test]
fn the_port_is_gone_when_both_halves_are() {
    for sender_first in [true, false] {
        let (port, sender, receiver) = endpoint::split_pair(&spec(2)).expect("memory");
        if sender_first {
            drop(sender);
            assert!(!port.is_gone());
            drop(receiver);
        } else {
            drop(receiver);
            assert!(!port.is_gone());
            drop(sender);
        }
        assert!(port.is_gone());
    }
}

#[cfg(feature = "async")]
#[test]
fn a_task_waits_for_frames_and_for_room() {
    use std::{
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Poll, Wake, Waker},
    };

    #[derive(Default)]
    struct Woken(AtomicUsize);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);

    let (mut port, mut sender, mut receiver) = endpoint::split_pair(&spec(2)).expect("memory");
    port.admit(Mark(7), Address::Only).expect("free");
    {
        let mut receives = pin!(receiver.receive_async());
        assert!(receives.as_mut().poll(&mut cx).is_pending());
        for _ in 0..2 {
            let frame = sender.frame(8).expect("memory");
            sender.send(frame).expect("room");
        }
        let frame = sender.frame(8).expect("memory");
        let mut sends = pin!(sender.send_async(frame));
        assert!(sends.as_mut().poll(&mut cx).is_pending());
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        let port = echo(port, 2);
        assert!(woken.0.load(Ordering::SeqCst) >= 2, "one for the frames, one for the room");
        assert!(matches!(receives.as_mut().poll(&mut cx), Poll::Ready(Ok(_))));
        assert!(matches!(sends.as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
        drop(port);
    }
    assert!(matches!(receiver.poll_receive(&mut cx), Poll::Ready(Ok(_))), "the second frame");
    assert_eq!(receiver.poll_receive(&mut cx).map(|frame| frame.err()), Poll::Ready(Some(Gone)));
    assert_eq!(sender.poll_ready(&mut cx), Poll::Ready(Err(Gone)));
}
