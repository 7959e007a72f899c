//! Datagram sockets.

use std::{collections::BTreeSet, thread};

use strowger_socket::{ListenError, TrySendError, connection};
use strowger_testkit::until;

use super::support::{LONG, pair, pair_with};

/// An address book whose only entry is the node with this seed, which may connect.
fn book(of: u64, label: &str) -> strowger_socket::routing::StaticTable {
    let peer = super::support::key(of).public().peer_id();
    let text = format!(
        "[[name]]\nname = \"other\"\npeer_id = \"{peer}\"\nlabels = [\"{label}\"]\n\
         purposes = [\"connect\", \"accept\"]\n"
    );
    strowger_socket::routing::StaticTable::parse(&text).expect("a book")
}

#[test]
fn a_datagram_socket_sends_to_a_peer_of_the_address_book_and_answers() {
    let (relay, [at_a, at_b, spare]) = super::support::relay();
    let to_b = super::support::label(2, 3).to_string();
    let to_a = super::support::label(3, 2).to_string();
    let a = strowger_socket::Node::builder()
        .identity(super::support::key(1))
        .address_book(book(2, &to_b))
        .attach(at_a)
        .start()
        .expect("a node");
    let b = strowger_socket::Node::builder()
        .identity(super::support::key(2))
        .address_book(book(1, &to_a))
        .attach(at_b)
        .start()
        .expect("a node");
    let ours = a.datagram_socket("/gossip/1").expect("a free name");
    let theirs = b.datagram_socket("/gossip/1").expect("a free name");
    ours.send_to_wait(&b.peer_id(), b"rumour", LONG).expect("queued");
    let message = theirs.recv_timeout(LONG).expect("open").expect("arrived");
    assert_eq!((&*message, message.from()), (&b"rumour"[..], a.peer_id()));
    theirs.send_to_wait(&message.from(), b"heard", LONG).expect("queued");
    let answer = ours.recv_timeout(LONG).expect("open").expect("arrived");
    assert_eq!((&*answer, answer.from()), (&b"heard"[..], b.peer_id()));
    drop((relay, spare));
}

#[test]
fn several_threads_send_and_receive_on_one_datagram_socket() {
    const THREADS: u32 = 3;
    const EACH: u32 = 200;
    let pair = pair();
    // The connection exists before, so that no message waits for keys.
    let (_ours, _theirs) = pair.sockets("/first/1");
    let ours = pair.a.datagram_socket("/many/1").expect("a free name");
    let theirs = pair.b.datagram_socket("/many/1").expect("a free name");
    let b = pair.b.peer_id();
    let (gone, taken) = std::sync::mpsc::channel();
    let receivers: Vec<_> = (0..2)
        .map(|_| {
            let (theirs, gone) = (theirs.clone(), gone.clone());
            thread::spawn(move || {
                while let Some(message) = theirs.recv_timeout(LONG).expect("open") {
                    if message.is_empty() {
                        return;
                    }
                    gone.send(message.to_vec()).expect("somebody counts");
                }
            })
        })
        .collect();
    let senders: Vec<_> = (0..THREADS)
        .map(|thread| {
            let ours = ours.clone();
            thread::spawn(move || {
                for number in 0..EACH {
                    let message = (thread * EACH + number).to_be_bytes();
                    ours.send_to_wait(&b, &message, LONG).expect("queued");
                    // The receivers pace the sender, so that no queue is full.
                    if number % 8 == 0 {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.join().expect("no panic");
    }
    let mut seen = BTreeSet::new();
    until("every message was received or counted", || {
        seen.extend(taken.try_iter());
        let lost = theirs.counters().rx_queue_full + ours.counters().tx_refused;
        seen.len() as u64 + lost >= u64::from(THREADS * EACH)
    });
    assert!(seen.len() > (THREADS * EACH / 2) as usize, "{} arrived", seen.len());
    until("the receivers have ended", || {
        let _ = ours.try_send_to(&b, b"");
        receivers.iter().all(|receiver| receiver.is_finished())
    });
}

#[test]
fn a_name_belongs_to_one_socket_and_is_free_after_it() {
    let pair = pair_with(|builder| builder);
    let first = pair.a.datagram_socket("/one/1").expect("a free name");
    let taken = pair.a.listen("/one/1").expect_err("it is taken");
    assert!(
        matches!(taken, ListenError::Failed(connection::ListenError::AlreadyTaken(_))),
        "{taken:?}"
    );
    let max = first.message_max();
    let error = first.try_send_to(&pair.b.peer_id(), &vec![0; max + 1]).expect_err("too long");
    assert_eq!(error, TrySendError::TooLong { max });
    drop(first);
    until("the name is free", || pair.a.listen("/one/1").is_ok());
}
