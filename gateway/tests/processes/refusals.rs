//! Connections that are refused or impossible: each has its exit code, and a line with the reason.

use std::{io::Write as _, time::Instant};

use crate::line::{FIRST, Line, Links, Program, Ran, User};

/// The exit code for "no connection to the peer".
const NO_PEER: i32 = 7;

/// Runs `send` with its default timeout of 9 s. Prints how long it took.
fn refused(line: &Line, user: &User, peer: &str, protocol: &str) -> Ran {
    let began = Instant::now();
    let mut program = Program::start(&mut line.gateway(FIRST, user, &["send", peer, protocol]));
    // Standard input stays open: the program ends because of the refusal.
    writeln!(program.child.stdin.as_mut().unwrap(), "a line").unwrap();
    let ran = program.wait();
    eprintln!("{peer} {protocol}: {:.1} s: {}", began.elapsed().as_secs_f64(), ran.error);
    ran
}

#[track_caller]
fn assert_refused(ran: &Ran, words: &str) {
    assert_eq!((ran.status.code(), ran.out.as_str()), (Some(NO_PEER), ""), "{}", ran.error);
    assert_eq!(ran.error.lines().count(), 1, "{}", ran.error);
    assert!(ran.error.contains(words), "{words:?} is not in {:?}", ran.error);
}

#[test]
fn a_refused_connection_says_why() {
    let Some(line) = Line::new(Links::default()) else { return };
    let (alice, bob, mallory) = (User::new(1), User::new(2), User::new(3));
    let (mut receiver, slot) = line.receive(&bob, &["/chat/1", "--from", &alice.peer_id, "--keep"]);
    let way = line.label_to(slot);
    alice.knows("bob", &bob.peer_id, std::slice::from_ref(&way));
    // At the label of `mallory` bob answers.
    alice.knows("mallory", &mallory.peer_id, std::slice::from_ref(&way));
    alice.knows("carol", &User::new(4).peer_id, &[]);
    // No program has this slot.
    alice.knows("dave", &User::new(5).peer_id, &[line.label_to(6)]);
    mallory.knows("bob", &bob.peer_id, &[way]);

    let unknown = refused(&line, &alice, "bob", "/nothing/1");
    let stranger = refused(&line, &mallory, "bob", "/chat/1");
    let wrong_peer = refused(&line, &alice, "mallory", "/chat/1");
    let no_label = refused(&line, &alice, "carol", "/chat/1");
    let empty_slot = refused(&line, &alice, "dave", "/chat/1");
    assert_refused(&unknown, "does not accept /nothing/1");
    assert_refused(&stranger, "not from this PeerId");
    // A node answers only initiators that know its PeerId, so the wrong node is silent.
    assert_refused(&wrong_peer, "its label is wrong");
    assert_refused(&no_label, "no label leads to the peer");
    assert_refused(&empty_slot, "label");
    assert!(receiver.is_running());

    // The allowed peer can still connect.
    let sent = line.send(&alice, &["bob", "/chat/1"]);
    assert!(sent.status.success(), "{}", sent.error);
    drop(receiver);
    line.stop();
}

#[test]
fn a_path_that_is_too_narrow_for_a_handshake_is_an_error_with_its_width() {
    // The first message of XX has 896 bytes, plus headers of links and relays.
    let Some(line) = Line::new(Links { more: "mtu = 900\n", ..Links::default() }) else { return };
    let (alice, bob) = (User::new(1), User::new(2));
    let (receiver, slot) = line.receive(&bob, &["/chat/1", "--anyone"]);
    alice.knows("bob", &bob.peer_id, &[line.label_to(slot)]);
    let ran = refused(&line, &alice, "bob", "/chat/1");
    assert_refused(&ran, "the path takes packets of");
    assert_refused(&ran, "raise the MTU");
    drop(receiver);
    line.stop();
}
