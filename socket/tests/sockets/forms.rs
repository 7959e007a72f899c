//! The forms of calls: futures that are dropped, halves in two tasks, polls.

use std::{
    future::Future as _,
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use strowger_socket::{ReadMsg as _, SendError, TrySendError, WriteMsg as _};
use strowger_testkit::until;

use super::support::{LONG, label, pair, recv, to};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

#[test]
fn futures_work_in_an_async_runtime() {
    let pair = pair();
    let answer = runtime().block_on(async {
        let listener = pair.b.listen("/echo/1").expect("a free name");
        let serve = async {
            let mut socket = listener.accept().await.expect("open");
            while let Ok(message) = socket.recv().await {
                socket.send(&message).await.expect("queued");
            }
        };
        let ask = async {
            let mut socket = pair.a.connect(pair.to_b(), "/echo/1").await.expect("a socket");
            let (mut sender, mut receiver) = {
                socket.send(b"one").await.expect("queued");
                assert_eq!(&*socket.recv().await.expect("open"), b"one");
                socket.split()
            };
            for number in 0..100_u8 {
                sender.write_msg(&[number]).await.expect("queued");
                assert_eq!(&*receiver.read_msg().await.expect("open"), [number]);
            }
            b"all".to_vec()
        };
        tokio::select! {
            answer = ask => answer,
            () = serve => Vec::new(),
        }
    });
    assert_eq!(answer, b"all");
}

#[test]
fn two_threads_use_the_halves_of_a_socket() {
    const MESSAGES: u32 = 5_000;
    let pair = pair();
    let (ours, theirs) = pair.sockets("/halves/1");
    let (mut sender, mut receiver) = ours.split();
    let (mut back, mut there) = theirs.split();
    let echo = thread::spawn(move || {
        while let Ok(message) = there.recv_wait() {
            if back.send_wait(&message, LONG).is_err() {
                return; // the other side has all it wants
            }
        }
    });
    let counted = thread::spawn(move || {
        let mut next = 0_u32;
        while next < MESSAGES {
            let message = receiver.recv_timeout(LONG).expect("open").expect("arrived");
            let number = u32::from_be_bytes(message[..4].try_into().expect("four bytes"));
            assert!(number >= next, "{number} after {next}: a relay keeps the order of a flow");
            next = number + 1;
        }
        receiver
    });
    let mut window = 0;
    for number in 0..MESSAGES {
        sender.send_wait(&number.to_be_bytes(), LONG).expect("queued");
        window += 1;
        if window == 32 {
            window = 0;
            thread::yield_now();
        }
    }
    // A full queue may lose the last number, so send it until the receiver ends.
    until("the receiver has all", || {
        let _ = sender.try_send(&(MESSAGES - 1).to_be_bytes());
        counted.is_finished()
    });
    drop((counted.join().expect("no panic"), sender));
    echo.join().expect("no panic");
}

#[test]
fn a_dropped_attempt_is_given_up() {
    let pair = pair();
    let stranger = super::support::key(9).public().peer_id();
    // The label leads to a port that no program reads, so the handshake gets no answer.
    let nowhere = to(stranger, label(2, 4));
    {
        let mut attempt = pin!(pair.a.connect(nowhere.clone(), "/echo/1"));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(attempt.as_mut().poll(&mut cx).is_pending());
    }
    // The dropped attempt does not block the next one.
    let attempt = pair.a.connect(nowhere, "/echo/1").timeout(Duration::from_millis(50));
    let error = attempt.wait().expect_err("no answer");
    assert!(error.to_string().contains("in time"), "{error}");
}

#[test]
fn a_dropped_receive_takes_nothing_and_a_dropped_send_sends_nothing() {
    let pair = pair();
    let (mut ours, mut theirs) = pair.sockets("/drop/1");
    let mut cx = Context::from_waker(Waker::noop());
    {
        let mut receive = pin!(theirs.recv());
        assert!(receive.as_mut().poll(&mut cx).is_pending());
    }
    ours.send_wait(b"one", LONG).expect("queued");
    assert_eq!(recv(&mut theirs), b"one");
    // A future that was never polled has sent nothing.
    drop(ours.send(b"never"));
    // A future that is pending has sent nothing, either: the queue is full.
    let mut sent = 0;
    let mut is_pending = false;
    for _ in 0..100_000 {
        let mut send = pin!(ours.send(b"again"));
        match send.as_mut().poll(&mut cx) {
            Poll::Ready(outcome) => {
                outcome.expect("open");
                sent += 1;
            }
            Poll::Pending => {
                is_pending = true;
                break;
            }
        }
    }
    let counters = || pair.a.counters().wait(LONG).expect("in time").expect("runs");
    until("all that was queued is sealed", || counters().sealed() == sent + 2);
    assert!(counters().are_balanced());
    if !is_pending {
        eprintln!("the driver was faster than the sender, so no send was pending");
    }
}

#[test]
fn a_full_queue_ends_a_send_that_waits() {
    let (_relay, [at_a, at_b, _]) = super::support::relay();
    // No thread runs the driver of node a, so its queue fills.
    let (a, mut driver) = super::support::builder(1).attach(at_a).start_manual().expect("a node");
    let b = super::support::builder(2).attach(at_b).start().expect("a node");
    let _listener = b.listen("/full/1").expect("a free name");
    let mut attempt = Box::pin(a.connect(to(b.peer_id(), label(2, 3)), "/full/1"));
    let mut cx = Context::from_waker(Waker::noop());
    let mut socket = strowger_testkit::eventually("a socket", || {
        driver.poll();
        match attempt.as_mut().poll(&mut cx) {
            Poll::Ready(socket) => Some(socket.expect("connected")),
            Poll::Pending => None,
        }
    });
    let mut queued = 0;
    while socket.try_send(b"x").is_ok() {
        queued += 1;
    }
    assert_eq!((queued, socket.try_send(b"x")), (64, Err(TrySendError::Full)));
    assert_eq!(socket.send_wait(b"x", Duration::from_millis(1)), Err(SendError::Timeout));
    driver.poll();
    socket.try_send(b"x").expect("there is room again");
    // The driver may sleep, and the socket wakes it.
    driver.sleep(Some(Duration::from_millis(1)));
    driver.poll();
    // The last handle ends the node.
    drop((socket, attempt, a));
    until("the node ends", || {
        driver.poll();
        driver.is_over()
    });
}
