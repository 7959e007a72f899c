//! Early messages, and labels of 128 bits.

use strowger_socket::{
    Destination, Goodbye, GoodbyeCode, ListenOptions, Socket,
    crypto::NetworkId,
    wire::{Hop, Label, Scheme, Slot},
};
use strowger_testkit::{eventually, until};

use super::support::{LONG, Pair, key, label, pair, recv, to};

/// The label from `a` to `b`, with the certificate of the connection key of `b`.
fn to_b_with_key(pair: &Pair) -> Destination {
    let network = NetworkId::new(b"test").expect("a short name");
    let certificate = key(2).certify_connection_key(1, &network);
    assert_eq!(certificate.identity().peer_id(), pair.b.peer_id());
    Destination::from(pair.b.peer_id()).label_with_key(label(2, 3), certificate)
}

/// An early message needs the static key of the peer and its last protocol table, so the first
/// connection has none. A node accepts early messages only after it has run for 10 s, because its
/// former process may have accepted later ones (wire.md section 6). So this test takes at least 10
/// s.
#[test]
fn an_early_message_says_so_where_the_listener_allows_it() {
    let pair = pair();
    let options = ListenOptions::new().idempotent(true);
    let listener = pair.b.listen_with("/early/1", options).expect("a free name");
    let connection = pair.a.connection(&pair.b.peer_id());
    let info = || connection.info().wait(LONG).expect("in time").expect("runs");
    let mut attempts = 0;
    let (mut ours, mut theirs) = eventually("an early message", || {
        attempts += 1;
        let attempt = pair.a.connect(to_b_with_key(&pair), "/early/1").early(b"at once");
        let ours = attempt.wait().expect("a socket");
        let mut theirs = listener.accept_timeout(LONG).expect("open").expect("accepted");
        let first = theirs.recv_timeout(LONG).expect("open").expect("arrived");
        assert_eq!(&*first, b"at once");
        if first.is_early() {
            return Some((ours, theirs));
        }
        until("the table of the peer arrives", || {
            info().is_some_and(|info| !info.their_protocols.is_empty())
        });
        let closed = connection.close(Goodbye::new(GoodbyeCode::STOPPING));
        closed.wait(LONG).expect("in time").expect("runs");
        assert!(theirs.recv_timeout(LONG).is_err(), "the connection is closed");
        until("the connection is forgotten", || info().is_none());
        None
    });
    assert!(attempts > 1, "the first connection cannot know that the peer takes early messages");
    // The socket then works as any other.
    ours.send_wait(b"later", LONG).expect("queued");
    let second = theirs.recv_timeout(LONG).expect("open").expect("arrived");
    assert_eq!((&*second, second.is_early()), (&b"later"[..], false));
    theirs.send_wait(b"answer", LONG).expect("queued");
    assert_eq!(recv(&mut ours), b"answer");
}

#[test]
fn an_early_message_is_sent_with_the_keys_if_the_listener_does_not_allow_it() {
    let pair = pair();
    let listener = pair.b.listen("/late/1").expect("a free name");
    let attempt = pair.a.connect(to_b_with_key(&pair), "/late/1").early(b"not at once");
    let mut ours = attempt.wait().expect("a socket");
    ours.send_wait(b"second", LONG).expect("queued");
    let mut theirs = listener.accept_timeout(LONG).expect("open").expect("accepted");
    // Messages have no order.
    let mut arrived = [(); 2].map(|()| {
        let message = theirs.recv_timeout(LONG).expect("open").expect("arrived");
        assert!(!message.is_early());
        message.to_vec()
    });
    arrived.sort();
    assert_eq!(arrived, [b"not at once".to_vec(), b"second".to_vec()]);
}

#[test]
fn an_early_message_without_a_known_key_is_the_first_message() {
    let pair = pair();
    let options = ListenOptions::new().idempotent(true);
    let listener = pair.b.listen_with("/early/1", options).expect("a free name");
    let attempt = pair.a.connect(pair.to_b(), "/early/1").early(b"with the keys");
    let _ours = attempt.wait().expect("a socket");
    let mut theirs = listener.accept_timeout(LONG).expect("open").expect("accepted");
    let first = theirs.recv_timeout(LONG).expect("open").expect("arrived");
    assert_eq!((&*first, first.is_early()), (&b"with the keys"[..], false));
}

/// Switch headers with labels of 128 bits are longer, and transmit buffers have room for them.
#[test]
fn transmit_buffers_have_room_for_labels_of_128_bits() {
    let pair = pair();
    let scheme = &Scheme::default();
    let hop = Hop { scheme, ingress: Slot::new(2), egress: Slot::new(3) };
    let (wide, _) = Label::<u128>::build(&[hop]).expect("one hop fits");
    let listener = pair.b.listen("/wide/1").expect("a free name");
    let way = to(pair.b.peer_id(), wide.into());
    let mut ours = pair.a.connect(way, "/wide/1").wait().expect("a socket");
    ours.send_wait(b"first", LONG).expect("queued");
    let mut theirs = listener.accept_timeout(LONG).expect("open").expect("accepted");
    assert_eq!(recv(&mut theirs), b"first");
    let connection = pair.a.connection(&pair.b.peer_id());
    let info = connection.info().wait(LONG).expect("in time").expect("runs").expect("exists");
    assert!(info.paths.iter().all(|path| path.label == wide.into()), "{info:?}");
    let bursts = |from: &mut Socket, at: &mut Socket| {
        for round in 0..20_u8 {
            let mut buffers = eventually("buffers", || from.tx_buffers(700, 16));
            buffers.iter_mut().for_each(|buffer| buffer.fill(round));
            until("there is room", || from.send_tx_buffers(&mut buffers).is_ok());
            for _ in 0..16 {
                assert_eq!(recv(at), [round; 700]);
            }
            let mut buffer = eventually("a buffer", || from.tx_buffer(3));
            buffer.copy_from_slice(b"end");
            from.send_tx_buffer(buffer).expect("the queue is empty");
            assert_eq!(recv(at), b"end");
        }
    };
    bursts(&mut ours, &mut theirs);
    // The return label has the same width.
    bursts(&mut theirs, &mut ours);
    // The longest message fits a packet.
    let max = ours.message_max();
    ours.send_wait(&vec![9; max], LONG).expect("it fits");
    assert_eq!(recv(&mut theirs), vec![9; max]);
}
