//! Tests of the second form of unix ports: greetings and trains, with clients of both forms. No test
//! sleeps; every wait has a deadline.

use std::{
    os::fd::AsRawFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use strowger_frame::{
    Address, Burst, ChunkClass, Loss, Mark, Pool, PoolSpec, Port, alloc, port::Arm,
};
use strowger_io::unix::{
    Client, ClientError, Greeting, SwitchFacts, TrainClient, UnixPort, UnixSpec,
    limits::TRAIN_BYTES_MAX,
};
use strowger_testkit::{until, wire_md::example};

use crate::unix::{LONG, Place, frame, raw_message, served, start, take};

fn pool() -> Pool {
    Pool::new(&PoolSpec { trains: 16, singles: 512, huge_pages: false }).expect("memory")
}

/// The facts of the greeting in wire.md.
fn facts() -> Arc<SwitchFacts> {
    let greeting = Greeting::parse(&example("unix-greeting")).expect("valid");
    let facts = SwitchFacts::new(greeting.identity);
    facts.set_slot(greeting.slot);
    facts.set_scheme(&greeting.scheme);
    Arc::new(facts)
}

fn listen(at: &Path) -> UnixPort {
    let mut port = UnixPort::listen(at, &UnixSpec::default()).expect("no other listener");
    port.admit(Mark(7), Address::Only).expect("free");
    port.set_facts(facts());
    port
}

fn raw(client: &impl AsRawFd, bytes: &[u8]) {
    // SAFETY: the pointer is to that many readable bytes.
    let sent = unsafe { libc::send(client.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
    assert_eq!(sent, bytes.len() as isize, "{:?}", std::io::Error::last_os_error());
}

/// Connects a client that knows the second form, and lets the port greet it.
fn greeted(port: &mut UnixPort, pool: &mut Pool, at: &Path) -> TrainClient {
    let mut client = TrainClient::connect(at, Duration::ZERO).expect("it listens");
    assert!(client.greeting().is_none(), "the port has not run yet");
    until("the greeting", || {
        port.rx_burst(pool, &mut Burst::new());
        assert_eq!(client.try_receive(&mut []).expect("served"), None);
        client.greeting().is_some()
    });
    client
}

/// wire.md: W8-39, W8-41, W8-45, W8-46, W8-49.
#[test]
fn the_messages_of_the_second_form_are_those_of_the_examples() {
    let place = Place::new("second-examples");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let client = Client::connect(&place.0).expect("it listens");
    raw(&client, &example("unix-request"));
    let mut answer = None;
    until("the greeting", || {
        port.rx_burst(&mut pool, &mut Burst::new());
        answer = raw_message(&client);
        answer.is_some()
    });
    assert_eq!(answer, Some(example("unix-greeting")));
    assert_eq!(port.tally().frames_in.read(), 0, "a request is no packet");

    let train = example("unix-train-to-switch");
    raw(&client, &train);
    // A packet of the first form, behind the train.
    raw(&client, &example("unix-to-switch"));
    let packets = [&train[8..37], &train[37..], &example("unix-to-switch")[4..]];
    assert_eq!(take(&mut port, &mut pool, 3), packets);
    assert_eq!((port.tally().frames_in.read(), port.tally().total_lost()), (3, 0));
    assert_eq!(port.tally().trains_in.read(), 2);

    let train = example("unix-train-to-process");
    let mut burst: Burst = [&train[8..37], &train[37..]]
        .into_iter()
        .map(|packet| frame(&mut pool, 2, packet))
        .collect();
    port.tx_burst(Mark(7), &mut burst);
    port.flush();
    assert_eq!(raw_message(&client), Some(train));
    assert_eq!((port.tally().frames_out.read(), port.tally().trains_out.read()), (2, 1));
}

/// wire.md: W8-39, W8-41, W8-42.
#[test]
fn a_greeting_is_read_as_it_was_written_and_no_other_bytes_are_one() {
    let bytes = example("unix-greeting");
    let greeting = Greeting::parse(&bytes).expect("valid");
    assert_eq!((greeting.version, greeting.packet_bytes_max, greeting.slot), (2, 2048, 4));
    assert_eq!(greeting.scheme[..], example("scheme-v3x5x8"));
    assert_eq!(greeting.identity[..], bytes[17..]);
    assert_eq!(greeting.emit()[..], bytes);
    for len in 0..bytes.len() {
        assert_eq!(Greeting::parse(&bytes[..len]), None, "{len} bytes");
    }
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        Greeting::parse(&bytes)
    };
    assert_eq!(Greeting::parse(&[&bytes[..], &[0]].concat()), None, "a byte too many");
    assert_eq!(with(4, 1), None, "version 1");
    assert_eq!(with(4, 3), None, "version 3");
    assert_eq!(with(11, 4), None, "a scheme that is too short");
    assert_eq!(with(5, 0), None, "a longest packet of 0 bytes");
    assert!(with(7, 9).is_some());
}

/// wire.md: W8-46, W8-47, W8-48, W8-49.
#[test]
fn trains_with_a_shorter_last_packet_pass_both_ways() {
    let place = Place::new("trains");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut client = greeted(&mut port, &mut pool, &place.0);
    assert_eq!(client.greeting().expect("greeted").slot, 4);

    // 149 packets of 1,400 bytes and a short one: four messages.
    let sent: Vec<u8> = (0..149 * 1400 + 33).map(|n| (n / 700) as u8).collect();
    let mut left = &sent[..];
    let mut taken = Vec::new();
    until("all packets", || {
        let n = client.try_send(left, 1400).expect("served");
        left = &left[n..];
        let mut burst = Burst::new();
        port.rx_burst(&mut pool, &mut burst);
        taken.extend(burst.iter().map(|frame| frame.bytes().to_vec()));
        taken.len() == 150
    });
    assert!(taken.iter().map(Vec::as_slice).eq(sent.chunks(1400)));
    let tally = port.tally();
    assert_eq!((tally.frames_in.read(), tally.trains_in.read()), (150, 4));
    assert_eq!(tally.bytes_in.read(), sent.len() as u64);

    // A train ends behind a shorter packet, and where the ingress slot changes.
    let lengths = [(2, 1400), (2, 1400), (2, 600), (2, 1400), (3, 1400), (3, 1400), (3, 1401)];
    let frames = lengths.map(|(ingress, len)| frame(&mut pool, ingress, &vec![len as u8; len]));
    port.tx_burst(Mark(7), &mut frames.into_iter().collect());
    port.flush();
    let mut buffer = vec![0; TRAIN_BYTES_MAX];
    for (ingress, segment, len) in
        [(2, 1400, 3400), (2, 1400, 1400), (3, 1400, 2800), (3, 1401, 1401)]
    {
        let train = client.receive(&mut buffer, LONG).expect("served").expect("in time");
        assert_eq!((train.ingress, train.segment, train.len), (ingress, segment, len));
        for packet in train.packets(&buffer) {
            assert!(packet.iter().all(|byte| *byte == packet.len() as u8));
        }
    }
    assert_eq!(client.try_receive(&mut buffer).expect("served"), None);
    assert_eq!((port.tally().frames_out.read(), port.tally().trains_out.read()), (7, 4));
}

/// Frames of one received train that are sent on need one part of a message, and no copy.
#[test]
fn a_train_of_the_client_goes_back_as_one_message() {
    let place = Place::new("train-back");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut client = greeted(&mut port, &mut pool, &place.0);
    let sent: Vec<u8> = (0..45 * 1400 + 7).map(|n| (n % 251) as u8).collect();
    assert_eq!(client.send(&sent, 1400, LONG).expect("served"), sent.len());
    let mut burst = Burst::new();
    until("the train", || {
        port.rx_burst(&mut pool, &mut burst);
        !burst.is_empty()
    });
    assert_eq!(burst.len(), 46);
    assert!(burst.windows(2).all(|pair| pair[0].adjoins(&pair[1])));
    port.tx_burst(Mark(7), &mut burst);
    let mut buffer = vec![0; TRAIN_BYTES_MAX];
    let train = client.receive(&mut buffer, LONG).expect("served").expect("in time");
    assert_eq!((train.ingress, train.segment, train.len), (7, 1400, sent.len()));
    assert_eq!(buffer[..train.len], sent);
}

/// wire.md: W8-27, W8-40, W8-50, W8-51, W8-52.
#[test]
fn malformed_messages_of_the_second_form_are_counted_once_and_the_next_train_arrives() {
    let place = Place::new("second-malformed");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let train = |segment: u16, zero: u16, len: usize| {
        let mut message = vec![0xff, 0xff, 0xff, 0xfe];
        message.extend(segment.to_be_bytes());
        message.extend(zero.to_be_bytes());
        message.resize(8 + len, 9);
        message
    };
    let lost =
        |port: &UnixPort| (port.tally().lost(Loss::Malformed), port.tally().lost(Loss::Truncated));
    let arrives = |port: &mut UnixPort, pool: &mut Pool, what: &str, count: (u64, u64)| {
        let before = lost(port);
        until(what, || {
            let mut burst = Burst::new();
            port.rx_burst(pool, &mut burst);
            assert!(burst.is_empty(), "{what}");
            lost(port) != before
        });
        assert_eq!(lost(port), (before.0 + count.0, before.1 + count.1), "{what}");
        assert_eq!(port.tally().frames_in.read(), port.tally().total_lost());
    };
    let client = Client::connect(&place.0).expect("it listens");
    served(&mut port, &mut pool, true);
    let request = example("unix-request");
    let mut longer = request.clone();
    longer.push(0);
    let mut version_1 = request.clone();
    version_1[8] = 1;
    let mut other = request.clone();
    other[7] = b'W';
    let (malformed, truncated) = ((1, 0), (0, 1));
    for is_greeted in [false, true] {
        if is_greeted {
            raw(&client, &request);
            until("the greeting", || {
                port.rx_burst(&mut pool, &mut Burst::new());
                raw_message(&client).is_some()
            });
        } else {
            raw(&client, &train(100, 0, 200));
            arrives(&mut port, &mut pool, "a train before the greeting", malformed);
        }
        for (what, message) in [
            ("a longer request", &longer),
            ("a request for version 1", &version_1),
            ("another word", &other),
            ("a part of a request", &request[..8].to_vec()),
            ("ffffffff alone", &request[..4].to_vec()),
            ("three bytes", &vec![0; 3]),
            ("a slot number", &vec![0, 0, 0, 1, 9]),
        ] {
            raw(&client, message);
            arrives(&mut port, &mut pool, what, malformed);
        }
    }
    for (what, message, count) in [
        ("four bytes of a train", train(1, 0, 0)[..4].to_vec(), malformed),
        ("seven bytes of a train", train(1, 0, 0)[..7].to_vec(), malformed),
        ("no packet", train(100, 0, 0), malformed),
        ("a segment of 0", train(0, 0, 100), malformed),
        ("bytes 6 and 7", train(100, 1, 100), malformed),
        ("byte 6", train(100, 0x100, 100), malformed),
        ("65 packets", train(10, 0, 641), malformed),
        ("no packet in the first form", vec![0; 4], malformed),
        ("a long segment", train(2049, 0, 2049), truncated),
        ("a long segment and a short packet", train(2049, 0, 100), truncated),
        ("65,536 bytes", train(2048, 0, 65_536), truncated),
        ("a long packet in the first form", vec![0; 4 + 2049], truncated),
    ] {
        raw(&client, &message);
        arrives(&mut port, &mut pool, what, count);
    }
    raw(&client, &train(10, 0, 640));
    assert_eq!(take(&mut port, &mut pool, 64), vec![vec![9; 10]; 64]);
    raw(&client, &train(2048, 0, 65_535));
    assert_eq!(take(&mut port, &mut pool, 32)[31].len(), 2047);
    assert!(port.is_serving());
}

/// wire.md: W8-39, W8-44.
#[test]
fn a_client_of_an_older_switch_uses_the_first_form() {
    let place = Place::new("older-switch");
    let (mut port, mut pool) =
        (UnixPort::listen(&place.0, &UnixSpec::default()).expect("no other listener"), pool());
    port.admit(Mark(7), Address::Only).expect("free");
    let mut client = TrainClient::connect(&place.0, Duration::ZERO).expect("it listens");
    assert_eq!(client.send(b"firstsecondend", 6, LONG).expect("served"), 14);
    let packets = [b"firsts".to_vec(), b"econde".to_vec(), b"nd".to_vec()];
    assert_eq!(take(&mut port, &mut pool, 3), packets);
    assert_eq!(port.tally().lost(Loss::Malformed), 1, "the request");
    port.tx_burst(Mark(7), &mut [frame(&mut pool, 3, b"back")].into_iter().collect());
    let mut buffer = [0; 16];
    let train = client.receive(&mut buffer, LONG).expect("served").expect("in time");
    assert_eq!((train.ingress, train.segment, train.len), (3, 4, 4));
    assert!(client.greeting().is_none());
}

/// wire.md: W8-44, W8-49.
#[test]
fn a_late_greeting_counts_and_packets_before_it_are_of_the_first_form() {
    let place = Place::new("late");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut client = TrainClient::connect(&place.0, Duration::ZERO).expect("it listens");
    assert_eq!(client.send(&[1; 25], 10, LONG).expect("served"), 25);
    // The packet arrives before the greeting, because the port has not read the request.
    until("the port to accept the client", || {
        port.tx_burst(Mark(7), &mut [frame(&mut pool, 5, &[8; 20])].into_iter().collect());
        let accepted = port.tally().frames_out.read() == 1;
        if !accepted {
            port.on_readable();
            let mut none =
                Pool::new(&PoolSpec { trains: 0, singles: 0, huge_pages: false }).unwrap();
            port.rx_burst(&mut none, &mut Burst::new());
        }
        accepted
    });
    assert_eq!(take(&mut port, &mut pool, 3).concat(), [1; 25]);
    port.tx_burst(Mark(7), &mut (0..2).map(|_| frame(&mut pool, 6, &[9; 20])).collect());
    let mut buffer = [0; 64];
    let train = client.receive(&mut buffer, LONG).expect("served").expect("in time");
    assert_eq!((train.ingress, train.segment, train.len), (5, 20, 20));
    assert!(client.greeting().is_none());
    let train = client.receive(&mut buffer, LONG).expect("served").expect("in time");
    assert_eq!((train.ingress, train.segment, train.len), (6, 20, 40));
    assert!(client.greeting().is_some());
}

/// wire.md: W8-43.
#[test]
fn a_repeated_request_gets_the_values_of_the_moment() {
    let place = Place::new("again");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let facts = facts();
    port.set_facts(facts.clone());
    let mut client = greeted(&mut port, &mut pool, &place.0);
    facts.set_slot(99);
    facts.set_scheme(&[1, 2, 3]);
    assert!(client.ask_greeting().expect("served"));
    until("the second greeting", || {
        port.rx_burst(&mut pool, &mut Burst::new());
        assert_eq!(client.try_receive(&mut [0; 3]).expect("served"), None);
        client.greeting().is_some_and(|greeting| greeting.slot == 99)
    });
    assert_eq!(client.greeting().expect("greeted").scheme[..], [1, 2, 3]);
    assert_eq!(port.tally().total_lost(), 0);
}

/// wire.md: W8-34, W8-48.
#[test]
fn a_client_of_trains_that_does_not_read_loses_nothing_and_blocks_only_itself() {
    let place = Place::new("second-full");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut client = greeted(&mut port, &mut pool, &place.0);
    let mut sent = 0_u32;
    let mut queue = Burst::new();
    while queue.is_empty() {
        queue.extend(
            (sent..sent + 64).map(|n| frame(&mut pool, 3, &[n.to_be_bytes(); 250].concat())),
        );
        port.tx_burst(Mark(7), &mut queue);
        sent += 64;
        assert!(sent < 1_000_000, "the socket has an end");
    }
    assert!(port.is_blocked(Mark(7)));
    for _ in 0..1000 {
        port.rx_burst(&mut pool, &mut Burst::new());
        assert!(port.is_blocked(Mark(7)), "the client has not read");
    }
    let mut buffer = vec![0; TRAIN_BYTES_MAX];
    let mut next = 0_u32;
    until("all packets", || {
        while let Some(train) = client.try_receive(&mut buffer).expect("served") {
            for packet in train.packets(&buffer) {
                assert_eq!(packet, [next.to_be_bytes(); 250].concat());
                next += 1;
            }
        }
        port.rx_burst(&mut pool, &mut Burst::new());
        port.tx_burst(Mark(7), &mut queue);
        next == sent
    });
    assert_eq!(port.tally().total_lost(), 0);
    assert_eq!(port.tally().frames_out.read(), u64::from(sent));
}

/// wire.md: W8-32, W8-35.
#[test]
fn the_trains_of_a_client_that_left_arrive_and_the_next_client_begins_in_the_first_form() {
    let place = Place::new("second-left");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut client = greeted(&mut port, &mut pool, &place.0);
    assert_eq!(client.send(&[5; 640], 10, LONG).expect("served"), 640);
    assert_eq!(client.send(&[6; 320], 10, LONG).expect("served"), 320);
    drop(client);
    assert_eq!(take(&mut port, &mut pool, 96).len(), 96);
    served(&mut port, &mut pool, false);

    let mut client = Client::connect(&place.0).expect("it listens");
    assert!(client.send(b"first form", LONG).expect("served"));
    assert_eq!(take(&mut port, &mut pool, 1), [b"first form"]);
    port.tx_burst(Mark(7), &mut [frame(&mut pool, 3, b"back")].into_iter().collect());
    let mut buffer = [0; 16];
    let got = client.receive(&mut buffer, LONG).expect("served").expect("in time");
    assert_eq!((got.len, got.ingress), (4, 3));
}

/// wire.md: W8-26.
#[test]
fn a_second_client_of_the_second_form_gets_busy() {
    let place = Place::new("second-busy");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let _first = greeted(&mut port, &mut pool, &place.0);
    let mut second = TrainClient::connect(&place.0, Duration::ZERO).expect("it listens");
    until("the second client to be turned away", || {
        port.rx_burst(&mut pool, &mut Burst::new());
        matches!(second.try_receive(&mut [0; 8]), Err(ClientError::Busy))
    });
}

/// wire.md: W8-32, W8-33.
#[test]
fn r10_killing_a_client_of_trains_leaves_the_switch_up() {
    let place = Place::new("kill-trains");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut process = start("trains", &place.0);
    assert_eq!(take(&mut port, &mut pool, 40).len(), 40);
    process.kill();
    served(&mut port, &mut pool, false);
    let mut burst: Burst = (0..3).map(|n| frame(&mut pool, n, b"to no client")).collect();
    port.tx_burst(Mark(7), &mut burst);
    assert_eq!((burst.len(), port.tally().lost(Loss::PeerGone)), (0, 3));
    let mut client = greeted(&mut port, &mut pool, &place.0);
    assert_eq!(client.send(b"next", 4, LONG).expect("served"), 4);
    assert_eq!(take(&mut port, &mut pool, 1), [b"next"]);
}

#[test]
fn a_train_that_does_not_fit_the_burst_waits_and_is_counted_if_its_mark_is_forgotten() {
    let place = Place::new("waits");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut client = greeted(&mut port, &mut pool, &place.0);
    assert_eq!(client.send(&[5; 640], 10, LONG).expect("served"), 640);
    let full = |pool: &mut Pool| -> Burst { (0..60).map(|_| frame(pool, 7, b"x")).collect() };
    let mut burst = full(&mut pool);
    until("the burst to be full", || {
        port.rx_burst(&mut pool, &mut burst);
        burst.is_full()
    });
    assert!(matches!(port.arm(), Arm::Poll), "packets wait");
    port.disarm();
    let mut burst = full(&mut pool);
    port.rx_burst(&mut pool, &mut burst);
    assert!(burst.is_full());
    port.forget(Mark(7));
    assert_eq!(port.tally().lost(Loss::UnknownSender), 56);
    assert_eq!(port.tally().frames_in.read(), 64);
    assert!(matches!(port.arm(), Arm::Wait(_)));
}

#[test]
fn r13_a_unix_port_with_trains_allocates_nothing() {
    assert!(alloc::installed());
    let place = Place::new("no-allocation");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut client = greeted(&mut port, &mut pool, &place.0);
    let packets = vec![3; 45 * 1400];
    let mut buffer = vec![0; TRAIN_BYTES_MAX];
    let deadline = Instant::now() + LONG;
    let guard = alloc::forbid();
    let (mut back, mut burst) = (0, Burst::new());
    while back < 100 * packets.len() && Instant::now() < deadline {
        client.ask_greeting().expect("served");
        client.try_send(&packets, 1400).expect("served");
        port.rx_burst(&mut pool, &mut burst);
        port.tx_burst(Mark(7), &mut burst);
        burst.clear();
        while let Some(train) = client.try_receive(&mut buffer).expect("served") {
            back += train.len;
        }
        pool.reclaim();
    }
    assert_eq!(guard.calls(), 0);
    drop(guard);
    assert!(back >= 100 * packets.len());
    drop(port);
    assert_eq!(pool.free(ChunkClass::Train), 16);
}
