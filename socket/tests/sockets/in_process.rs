//! Sockets over a relay in the same process: connecting, errors, closing.

use strowger_socket::{
    CloseReason, ConnectError, Goodbye, GoodbyeCode, ListenError, Messages, NodeEvent, RecvError,
    SendError, TrySendError, connection,
};
use strowger_testkit::until;

use super::support::{LONG, builder, label, pair, recv, to};

#[test]
fn a_message_goes_to_the_peer_and_back() {
    let pair = pair();
    let (mut ours, mut theirs) = pair.sockets("/echo/1");
    assert_eq!((ours.peer(), theirs.peer()), (pair.b.peer_id(), pair.a.peer_id()));
    assert_eq!((ours.protocol_name(), theirs.protocol_name()), ("/echo/1", "/echo/1"));
    theirs.send_wait(b"hello yourself", LONG).expect("queued");
    let answer = ours.recv_timeout(LONG).expect("open").expect("arrived");
    assert_eq!((&*answer, answer.from()), (&b"hello yourself"[..], pair.b.peer_id()));
    assert!(!answer.is_early());
    let counters = pair.a.counters().wait(LONG).expect("in time").expect("the node runs");
    assert!(counters.are_balanced(), "{counters:?}");
    assert_eq!((counters.sealed(), counters.delivered()), (1, 1));
}

#[test]
fn the_first_name_that_the_peer_accepts_is_chosen() {
    let pair = pair();
    let _listener = pair.b.listen(["/echo/1", "/echo/0"]).expect("free names");
    let socket = pair.a.connect(pair.to_b(), ["/echo/2", "/echo/1"]).wait().expect("a socket");
    assert_eq!(socket.protocol_name(), "/echo/1");
    let again = pair.a.connect(pair.to_b(), "/echo/1").wait().expect_err("it is open");
    assert_eq!(again, ConnectError::Failed(connection::ConnectError::AlreadyOpen));
}

#[test]
fn each_failure_to_connect_has_its_error() {
    let pair = pair();
    let failed = |error| ConnectError::Failed(error);
    let _listener = pair.b.listen("/echo/1").expect("a free name");
    // When connecting by PeerId, one round trip does not show whether the peer refuses a single
    // name. With two names it does.
    assert_eq!(
        pair.a.connect(pair.to_b(), ["/other/2", "/other/1"]).wait().expect_err("not accepted"),
        failed(connection::ConnectError::Unsupported)
    );
    // The connection of the earlier attempt has a label and the peer's protocol table.
    assert_eq!(pair.a.connect(pair.b.peer_id(), "/echo/1").wait().err(), None);
    // The peer may have begun to accept the name a moment ago, so the message with it is sent, and
    // the peer refuses it.
    match pair.a.connect(pair.b.peer_id(), "/other/1").wait() {
        Err(error) => assert_eq!(error, failed(connection::ConnectError::Unsupported)),
        Ok(mut socket) => until("it is refused", || {
            matches!(
                socket.try_send(b"anybody there?"),
                Err(TrySendError::Unsupported | TrySendError::Closed(_))
            )
        }),
    }
    let stranger = super::support::key(9).public().peer_id();
    assert_eq!(
        pair.a.connect(stranger, "/echo/1").wait().expect_err("no label"),
        failed(connection::ConnectError::NoRoute)
    );
    assert!(matches!(
        pair.a.connect(pair.to_b(), "no name").wait().expect_err("no name"),
        ConnectError::BadName(_)
    ));
    assert_eq!(
        pair.a.connect(pair.a.peer_id(), "/echo/1").wait().expect_err("itself"),
        failed(connection::ConnectError::Ourselves)
    );
    assert_eq!(
        pair.b.listen("/echo/1").expect_err("it is taken"),
        ListenError::Failed(connection::ListenError::AlreadyTaken("/echo/1".into()))
    );
}

#[test]
fn another_peer_at_the_label_is_named() {
    let mut pair = pair();
    let c = builder(3).attach(pair.spare.take().expect("unused")).start().expect("a node");
    let wrong = to(pair.b.peer_id(), label(2, 4));
    let attempt = pair.a.connect(wrong, "/echo/1").timeout(std::time::Duration::from_secs(1));
    let error = attempt.wait().expect_err("c is there");
    // When connecting by PeerId, c does not answer, because the mac is keyed with the PeerId of b.
    assert!(
        matches!(
            error,
            ConnectError::Failed(
                connection::ConnectError::WrongPeer { .. }
                    | connection::ConnectError::Timeout {
                        stage: connection::ConnectStage::Handshake
                    }
            )
        ),
        "{error:?}"
    );
    drop(c);
}

#[test]
fn a_peer_that_the_policy_does_not_allow_gets_no_answer() {
    let (_relay, [at_a, at_b, _]) = super::support::relay();
    let a = builder(1).attach(at_a).start().expect("a node");
    let nobody = connection::Only::default();
    let b = builder(2).policy(nobody).attach(at_b).start().expect("a node");
    let listener = b.listen("/echo/1").expect("a free name");
    // When connecting by PeerId, the peer learns the initiator's identity from the third message,
    // after `connect` has returned.
    let mut socket = a.connect(to(b.peer_id(), label(2, 3)), "/echo/1").wait().expect("a socket");
    socket.try_send(b"may I?").expect("queued");
    let not_allowed = || {
        let counters = b.counters().wait(LONG).expect("in time").expect("runs");
        assert!(counters.are_balanced() && counters.delivered() == 0, "{counters:?}");
        counters.discarded(connection::Discard::NotAllowed)
    };
    until("the peer is refused", || not_allowed() > 0);
    assert!(listener.try_accept().expect("open").is_none());
}

#[test]
fn a_dropped_socket_ends_the_peers_one() {
    let pair = pair();
    let (mut ours, mut theirs) = pair.sockets("/echo/1");
    // Messages that were queued before are sent.
    ours.send_wait(b"the last one", LONG).expect("queued");
    drop(ours);
    assert_eq!(recv(&mut theirs), b"the last one");
    let end = theirs.recv_timeout(LONG).expect_err("the peer closed it");
    assert!(matches!(end, RecvError::Closed(CloseReason::ByPeer(_))), "{end:?}");
    assert!(theirs.is_closed());
    let refused = theirs.try_send(b"too late").expect_err("closed");
    assert!(matches!(refused, TrySendError::Closed(_)), "{refused:?}");
}

#[test]
fn closing_a_node_says_goodbye_to_its_peers() {
    let pair = pair();
    let mut events = pair.b.events();
    let (mut ours, mut theirs) = pair.sockets("/echo/1");
    let goodbye = Goodbye::new(GoodbyeCode::RESTARTING).text("back soon");
    let reply = pair.a.close(goodbye.clone());
    reply.wait(LONG).expect("in time").expect("closed");
    let end = theirs.recv_timeout(LONG).expect_err("closed");
    assert_eq!(end, RecvError::Closed(CloseReason::ByPeer(goodbye.clone())));
    assert!(matches!(ours.recv_timeout(LONG), Err(RecvError::Closed(CloseReason::ByUs))));
    assert!(matches!(ours.send_wait(b"no", LONG), Err(SendError::Closed(CloseReason::ByUs))));
    let closed = std::iter::from_fn(|| events.next_timeout(LONG))
        .find(|event| matches!(event, NodeEvent::PeerClosed { .. }));
    let reason = CloseReason::ByPeer(goodbye);
    assert_eq!(closed, Some(NodeEvent::PeerClosed { peer: theirs.peer(), reason }));
}

#[test]
fn the_last_handle_ends_the_node() {
    let pair = pair();
    let (ours, mut theirs) = pair.sockets("/echo/1");
    drop(pair.a);
    // The socket keeps the node running.
    theirs.send_wait(b"still there", LONG).expect("queued");
    let mut ours = ours;
    assert_eq!(recv(&mut ours), b"still there");
    drop(ours);
    let end = theirs.recv_timeout(LONG).expect_err("closed");
    assert!(matches!(end, RecvError::Closed(CloseReason::ByPeer(_))), "{end:?}");
}

#[test]
fn the_end_of_the_relay_ends_the_node() {
    let pair = pair();
    let (mut ours, _theirs) = pair.sockets("/echo/1");
    pair.relay.shutdown().expect("it runs");
    assert!(matches!(ours.recv_timeout(LONG), Err(RecvError::Closed(_))));
    until("the node is closed", || {
        matches!(pair.a.connect(pair.to_b(), "/x").wait(), Err(ConnectError::NodeClosed(_)))
    });
    assert!(matches!(pair.a.listen("/y"), Err(ListenError::NodeClosed(_))));
}

#[test]
fn a_connection_tells_its_paths_and_measures_round_trips() {
    let pair = pair();
    let mut events = pair.a.events();
    let (_ours, theirs) = pair.sockets("/echo/1");
    let connection = pair.a.connection(&theirs.peer());
    assert_eq!(connection.info().wait(LONG).expect("in time"), Ok(None), "that is a itself");
    let connection = pair.a.connection(&pair.b.peer_id());
    let info = connection.info().wait(LONG).expect("in time").expect("runs").expect("exists");
    assert_eq!(info.peer, pair.b.peer_id());
    assert!(info.paths.iter().any(|path| path.label == label(2, 3)), "{info:?}");
    let id = connection.ping(200).wait(LONG).expect("in time").expect("runs").expect("keys");
    let pong = std::iter::from_fn(|| events.next_timeout(LONG))
        .find(|event| matches!(event, NodeEvent::Pong { .. }));
    let Some(NodeEvent::Pong { peer, id: answered, rtt }) = pong else { panic!("{pong:?}") };
    assert_eq!((peer, answered), (pair.b.peer_id(), id));
    assert!(!rtt.is_zero());
    connection.identify().wait(LONG).expect("in time").expect("runs").expect("keys");
    let identified = std::iter::from_fn(|| events.next_timeout(LONG))
        .find(|event| matches!(event, NodeEvent::Identified { .. }));
    assert!(identified.is_some());
}

#[test]
fn messages_come_in_bursts_and_into_buffers() {
    let pair = pair();
    let (mut ours, mut theirs) = pair.sockets("/burst/1");
    let max = ours.message_max();
    assert_eq!(ours.try_send(&vec![0; max + 1]), Err(TrySendError::TooLong { max }));
    ours.send_wait(&vec![7; max], LONG).expect("it fits");
    assert_eq!(recv(&mut theirs), vec![7; max]);
    let mut buffers = ours.tx_buffers(100, 16).expect("free");
    for (number, buffer) in buffers.iter_mut().enumerate() {
        buffer.fill(number as u8);
    }
    ours.send_tx_buffers(&mut buffers).expect("room for 16");
    let mut buffer = ours.tx_buffer(3).expect("free");
    buffer.copy_from_slice(b"end");
    ours.send_tx_buffer(buffer).expect("room");
    let mut all = Vec::new();
    let mut burst = Messages::new();
    until("all have arrived", || {
        theirs.recv_burst(&mut burst).expect("open");
        all.extend(burst.drain(..).map(|message| message.to_vec()));
        all.len() >= 17
    });
    let wanted = (0..16).map(|number| vec![number; 100]).chain([b"end".to_vec()]);
    assert_eq!(all, wanted.collect::<Vec<_>>());
    ours.send_wait(b"four", LONG).expect("queued");
    let mut room = [0; 2];
    until("it arrives", || {
        theirs.recv_into(&mut room) == Err(RecvError::BufferTooShort { bytes: 4 })
    });
    assert_eq!(theirs.recv_into(&mut [0; 8]), Ok(Some(4)), "it stayed");
}
