//! Full queues, held messages, and memory.

use std::{
    future::Future as _,
    task::{Context, Poll, Waker},
};

use strowger_frame::alloc;
use strowger_socket::{Message, Socket, TrySendError};
use strowger_testkit::{eventually, until};

use super::support::{LONG, builder, label, pair, pair_with, recv, relay, to};

/// Sends until `count` messages are queued.
fn flood(socket: &mut Socket, count: usize, message: &[u8]) {
    for _ in 0..count {
        socket.send_wait(message, LONG).expect("queued");
    }
}

/// The number of messages to a socket that is not read: 16,000, or the value of the environment
/// variable `STROWGER_R21_MESSAGES`.
fn unread_messages() -> usize {
    let wanted = std::env::var("STROWGER_R21_MESSAGES").ok();
    wanted.map_or(16_000, |wanted| wanted.parse().expect("STROWGER_R21_MESSAGES is a number"))
}

#[test]
fn r21_a_socket_that_is_not_read_loses_only_its_own_messages() {
    const EACH: usize = 32;
    let rounds = (unread_messages() / EACH).max(3) as u32;
    let pair = pair();
    let (mut slow, slow_end) = pair.sockets("/slow/1");
    let (mut other, mut other_end) = pair.sockets("/other/1");
    // The other socket of the connection loses no message. Its round trips pace the flood, so that
    // the queues of the relay do not overflow.
    for number in 0..rounds {
        flood(&mut slow, EACH, &[1; 1_000]);
        other.send_wait(&number.to_be_bytes(), LONG).expect("queued");
        assert_eq!(recv(&mut other_end), number.to_be_bytes());
        other_end.send_wait(b"go on", LONG).expect("queued");
        assert_eq!(recv(&mut other), b"go on");
    }
    // The queue holds 64 messages, and all others are counted as dropped.
    let sent = u64::from(rounds) * EACH as u64;
    until("every message is in the queue or counted", || {
        slow_end.counters().rx_queue_full + 64 == sent
    });
    assert_eq!(other_end.counters().rx_queue_full, 0);
    assert_eq!(pair.b.queue_counters().rx_queue_full, sent - 64);
    let counters = pair.b.counters().wait(LONG).expect("in time").expect("runs");
    assert!(counters.are_balanced(), "{counters:?}");
}

#[test]
fn messages_that_a_program_holds_are_copied_and_then_dropped() {
    let pair = pair_with(|builder| builder.hold_max(100));
    let (mut ours, mut theirs) = pair.sockets("/hold/1");
    let mut held: Vec<Message> = Vec::new();
    // One at a time, so that no queue is full.
    let one = |ours: &mut Socket| ours.send_wait(&[3; 1_000], LONG).expect("queued");
    while held.len() < 100 + strowger_socket::limits::COPIES_MAX {
        one(&mut ours);
        held.push(theirs.recv_timeout(LONG).expect("open").expect("arrived"));
    }
    let counters = theirs.counters();
    assert_eq!((counters.messages_copied, counters.rx_hold_full), (256, 0));
    assert!(held.iter().all(|message| **message == [3; 1_000]));
    one(&mut ours);
    until("the next one is dropped", || theirs.counters().rx_hold_full == 1);
    held.clear();
    one(&mut ours);
    assert_eq!(recv(&mut theirs), [3; 1_000]);
    assert_eq!(theirs.counters().messages_copied, 256);
}

#[test]
fn transmit_buffers_that_a_program_holds_are_bounded() {
    let pair = pair();
    let (mut ours, mut theirs) = pair.sockets("/buffers/1");
    let mut held = Vec::new();
    let most = strowger_socket::limits::TX_BUFFERS_MAX;
    while held.len() < most {
        held.push(eventually("a buffer", || ours.tx_buffer(1_000)));
    }
    assert!(ours.tx_buffer(1_000).is_none());
    held.pop();
    let mut buffer = eventually("a buffer", || ours.tx_buffer(5));
    buffer.copy_from_slice(b"later");
    let mut buffer = Some(buffer);
    until("there is room", || match ours.send_tx_buffer(buffer.take().expect("returned")) {
        Ok(()) => true,
        Err((why, back)) => {
            assert_eq!(why, TrySendError::Full);
            buffer = Some(back);
            false
        }
    });
    assert_eq!(recv(&mut theirs), b"later");
}

/// Drives two nodes in this thread, so that the allocator's calls of drivers and sockets are counted.
#[test]
fn an_established_connection_allocates_nothing_for_a_message() {
    const MESSAGES: u32 = 100_000;
    const ROUNDS: u32 = 1_000;
    assert!(alloc::installed());
    let (_relay, [at_a, at_b, _]) = relay();
    let (a, mut drive_a) = builder(1).attach(at_a).start_manual().expect("a node");
    let (b, mut drive_b) = builder(2).attach(at_b).start_manual().expect("a node");
    let listener = b.listen("/steady/1").expect("a free name");
    let mut cx = Context::from_waker(Waker::noop());
    let mut attempt = std::pin::pin!(a.connect(to(b.peer_id(), label(2, 3)), "/steady/1"));
    let (mut ours, mut theirs) = (None, None);
    until("both ends are open", || {
        drive_a.poll();
        drive_b.poll();
        if ours.is_none()
            && let Poll::Ready(socket) = attempt.as_mut().poll(&mut cx)
        {
            let mut socket: Socket = socket.expect("connected");
            socket.try_send(b"first").expect("queued");
            ours = Some(socket);
        }
        theirs = theirs.take().or_else(|| listener.try_accept().expect("open"));
        ours.is_some() && theirs.is_some()
    });
    let (mut ours, mut theirs) = (ours.expect("open"), theirs.expect("open"));
    until("the first message arrives", || {
        drive_a.poll();
        drive_b.poll();
        theirs.try_recv().expect("open").is_some()
    });
    let mut run = |messages: u32,
                   drive_a: &mut strowger_socket::Driver,
                   drive_b: &mut strowger_socket::Driver| {
        let (mut sent, mut received, mut bytes) = (0, 0, 0_u64);
        until("all messages have arrived", || {
            // At most 32 messages are in flight, so that no queue is full.
            while sent < messages && sent - received < 32 {
                let size = 64 + (sent % 16) as usize * 64;
                let Some(mut buffer) = ours.tx_buffer(size) else { break };
                buffer.fill(5);
                if ours.send_tx_buffer(buffer).is_err() {
                    break;
                }
                sent += 1;
            }
            drive_a.poll();
            drive_b.poll();
            while let Some(message) = theirs.try_recv().expect("open") {
                received += 1;
                bytes += message.len() as u64;
            }
            received >= messages
        });
        bytes
    };
    // All buffers have grown after the first round.
    assert!(run(1_000, &mut drive_a, &mut drive_b) > 0);
    // Path challenges allocate, about once a second. Messages do not: nearly every round is free.
    let mut with_calls = 0;
    for _ in 0..ROUNDS {
        let guard = alloc::count();
        run(MESSAGES / ROUNDS, &mut drive_a, &mut drive_b);
        with_calls += u32::from(guard.calls() > 0);
    }
    assert!(with_calls < ROUNDS / 10, "{with_calls} of {ROUNDS} rounds called the allocator");
}

#[test]
fn a_program_that_is_killed_leaves_the_slot_to_another_node() {
    let mut pair = pair();
    let (_ours, _theirs) = pair.sockets("/echo/1");
    // Drop the driver of c with its port, without closing the node.
    let (c, driver) =
        builder(3).attach(pair.spare.take().expect("unused")).start_manual().expect("a node");
    drop(driver);
    let listening = c.listen("/z/1").map(|_| ());
    assert!(listening.is_err(), "nobody drives it");
    // The other nodes still work.
    let (mut ours, mut theirs) = pair.sockets("/other/1");
    ours.send_wait(b"fine", LONG).expect("queued");
    assert_eq!(recv(&mut theirs), b"fine");
}
