//! Sockets over the unix port of a relay.

use std::time::Duration;

use strowger_runtime::{Relay, RelayHandle, UnixSocket};
use strowger_socket::{Node, NodeEvent, StartError, Unix};
use strowger_testkit::until;
use tempfile::TempDir;

use super::support::{LONG, builder, label, recv, to};

/// A relay with unix ports on slots 2 and 3.
fn relay(folder: &TempDir) -> RelayHandle {
    let at = |name: &str| folder.path().join(name);
    Relay::builder()
        .workers(1)
        .unix_socket(UnixSocket::new("a", at("a.sock")).slot(2))
        .unix_socket(UnixSocket::new("b", at("b.sock")).slot(3))
        .start()
        .expect("a relay")
}

fn node(folder: &TempDir, seed: u64, name: &str) -> Node {
    builder(seed).attach(Unix::at(folder.path().join(name))).start().expect("a node")
}

#[test]
fn sockets_work_over_unix_ports_and_survive_the_relay() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = relay(&folder);
    let (a, b) = (node(&folder, 1, "a.sock"), node(&folder, 2, "b.sock"));
    let mut events = a.events();
    let listener = b.listen("/echo/1").expect("a free name");
    let way = to(b.peer_id(), label(2, 3));
    let mut ours = a.connect(way, "/echo/1").wait().expect("a socket");
    ours.send_wait(b"hello", LONG).expect("queued");
    let mut theirs = listener.accept_timeout(LONG).expect("open").expect("accepted");
    assert_eq!(recv(&mut theirs), b"hello");
    // A train there and back.
    for (from, into) in [(&mut ours, &mut theirs)] {
        let mut buffers = strowger_testkit::eventually("buffers", || from.tx_buffers(1_000, 32));
        for (number, buffer) in buffers.iter_mut().enumerate() {
            buffer.fill(number as u8);
        }
        from.send_tx_buffers(&mut buffers).expect("room");
        for number in 0..32 {
            assert_eq!(recv(into), vec![number; 1_000]);
        }
    }
    // The relay restarts. The connection stays.
    running.shutdown().expect("it runs");
    let gone = std::iter::from_fn(|| events.next_timeout(LONG))
        .any(|event| event == NodeEvent::SwitchGone);
    assert!(gone);
    let running = relay(&folder);
    until("messages arrive again", || {
        ours.try_send(b"again").is_ok()
            && theirs.recv_timeout(Duration::from_millis(50)).expect("open").is_some()
    });
    assert!(!ours.is_closed() && !theirs.is_closed());
    drop(running);
}

#[test]
fn a_socket_that_nobody_serves_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let attached = builder(1).attach(Unix::at(folder.path().join("none.sock"))).start();
    let error = attached.expect_err("there is no relay");
    assert!(matches!(error, StartError::Unix { .. }), "{error:?}");
    assert!(error.to_string().contains("none.sock"), "{error}");
    let no_identity = Node::builder().attach(Unix::at("x")).start().expect_err("no identity");
    assert!(matches!(no_identity, StartError::NoIdentity));
    let no_slot = builder(1).start().expect_err("no slot");
    assert!(matches!(no_slot, StartError::NoAttachment));
}
