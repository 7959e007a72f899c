//! Real switches send and receive the examples of docs/wire.md, sections 5 and 8.

use strowger_engine::{
    control::{
        Attach, Event,
        messages::{ControlReply, ControlRequest},
    },
    discard::Discard,
    link::{Behind, Rights, plain_header},
};
use strowger_frame::{Address, Burst, ChunkClass, Mark, Port};
use strowger_io::{
    MemoryPort, memory,
    unix::{Client, UnixPort, UnixSpec},
};
use strowger_testkit::{until, wire_md::example};
use strowger_wire::{
    Label, Slot, limits::CONTROL_BYTES_MAX, scheme::V3X5X8, switch_header::HeaderRepr,
};

use crate::control_messages::{MS, Row, way};

/// The far end of a wire at slot 9 of the first switch.
fn right_neighbour(row: &mut Row) -> MemoryPort {
    let (mut far, near) = memory::wire(256).expect("descriptors");
    far.admit(Mark(0), Address::Only).expect("no other neighbour");
    row.nodes[0].attach(near, Behind::Neighbour, 9, Rights::ALL);
    row.pass(MS);
    row.nodes[0].events.clear();
    far
}

/// Sends a packet, which is passed without a link header.
fn send(port: &mut MemoryPort, row_pool: &mut strowger_frame::Pool, packet: &[u8]) {
    let chunk = row_pool.take(ChunkClass::Single).expect("all frames are returned");
    let mut frame = chunk.into_frame(256, 8 + packet.len());
    frame.bytes_mut()[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, 0, 1]);
    frame.bytes_mut()[8..].copy_from_slice(packet);
    let mut burst: Burst = [frame].into_iter().collect();
    port.tx_burst(Mark(0), &mut burst);
    port.flush();
    assert!(burst.is_empty());
}

/// The packets that arrived, without their link headers.
fn received(port: &mut MemoryPort, row_pool: &mut strowger_frame::Pool) -> Vec<Vec<u8>> {
    let mut burst = Burst::new();
    port.rx_burst(row_pool, &mut burst);
    burst.iter().map(|frame| frame.bytes()[8..].to_vec()).collect()
}

/// The left neighbour, node P of the examples, sends a packet. Returns the packets that the left
/// and the right neighbour then receive.
fn exchange(row: &mut Row, right: &mut MemoryPort, packet: &[u8]) -> [Vec<Vec<u8>>; 2] {
    send(&mut row.left, &mut row.pool, packet);
    row.pass(MS);
    [received(&mut row.left, &mut row.pool), received(right, &mut row.pool)]
}

/// wire.md: W1.2-1, W1.2-2, W1.2-8, W1.2-9, W1.3-4, W1.3-5, W2-6, W5-3, W5-32, W5-33, W5-34, W5-35,
/// W5-36, W5-37.
#[test]
fn a_ping_through_a_switch_is_the_one_of_the_examples() {
    let mut a = Row::new(1);
    let mut right = right_neighbour(&mut a);
    let at_a = exchange(&mut a, &mut right, &example("ping-p-to-a"));
    assert_eq!(at_a, [vec![], vec![example("ping-a-to-b")]]);

    let mut b = Row::new(1);
    let mut none = right_neighbour(&mut b);
    let at_b = exchange(&mut b, &mut none, &example("ping-a-to-b"));
    assert_eq!(at_b, [vec![example("pong-b-to-a")], vec![]]);

    send(&mut right, &mut a.pool, &example("pong-b-to-a"));
    a.pass(MS);
    assert_eq!(received(&mut a.left, &mut a.pool), [example("pong-a-to-p")]);
    a.assert_even();
}

/// wire.md: W1.3-1, W1.3-14, W1.3-15, W5-3, W5-32.
#[test]
fn a_ping_of_the_neighbour_is_the_one_of_the_examples() {
    let mut a = Row::new(1);
    let mut right = right_neighbour(&mut a);
    let got = exchange(&mut a, &mut right, &example("ping-neighbour"));
    assert_eq!(got, [vec![example("pong-neighbour")], vec![]]);
    // One more end marker above the director of slot 1 is accepted, and nothing else.
    let mut marked = example("ping-neighbour");
    marked[15] = 0x11;
    let got = exchange(&mut a, &mut right, &marked);
    assert_eq!(got, [vec![example("pong-neighbour")], vec![]]);
}

/// wire.md: W1.3-8, W1.3-9.
#[test]
fn above_slot_1_nothing_but_an_end_marker_is_accepted() {
    let mut a = Row::new(1);
    let mut right = right_neighbour(&mut a);
    for (low, accepted) in [(0x01, true), (0x11, true), (0x21, false), (0x31, false), (0x81, false)]
    {
        a.pass(1_000 * MS);
        let mut ping = example("ping-neighbour");
        ping[15] = low;
        // The packet is long enough for an error about it.
        ping.extend([0; 40]);
        let before = a.nodes[0].count(Discard::BeyondEndpoint);
        let [replies, _] = exchange(&mut a, &mut right, &ping);
        assert_eq!(a.nodes[0].count(Discard::BeyondEndpoint) - before, u64::from(!accepted));
        let kind = if accepted { [1, 2, 0] } else { [1, 7, 7] };
        assert_eq!(replies[0][16..19], kind, "{low:#x}");
    }
}

/// wire.md: W5-4, W5-6, W5-23, W5-41, W5-43, W5-44, W5-45, W5-46.
#[test]
fn a_trace_is_answered_as_in_the_examples() {
    let mut a = Row::new(2);
    for (hops, label, shift, slot_in, behind, slot_out) in [
        (0, 0x8000_0000_0000_0001_u64, 4_u16, 2_u32, 1, 9_u8),
        (1, 0x4500_0000_0000_0001, 11, 2, 3, 1),
        (2, 0x4500_0000_0000_0001, 11, 2, 3, 1),
    ] {
        let mut request = example("trace-p-to-a");
        request[2] = hops;
        let spent = |a: &Row| a.nodes.iter().map(|n| n.count(Discard::HopsSpent)).sum::<u64>();
        let before = spent(&a);
        send(&mut a.left, &mut a.pool, &request);
        a.pass(MS);
        let replies = received(&mut a.left, &mut a.pool);
        let [reply] = &replies[..] else { panic!("{replies:?}") };
        assert_eq!(reply.len(), request.len());
        assert_eq!(reply[8..16], label.to_be_bytes(), "with {hops} hops");
        assert_eq!(reply[4..6], shift.to_be_bytes());
        let message = &reply[16..];
        assert_eq!(message[..8], [1, 4, 0, 0, 1, 2, 3, 4]);
        assert_eq!(message[8..12], slot_in.to_be_bytes());
        assert_eq!(message[12..16], [behind, 0, 0, slot_out]);
        // The egress on slot 9 is a wire, which takes packets up to the switch's limit. Slot 1 has
        // no egress.
        let longest = if behind == 1 { 9_216_u16 } else { 0 };
        assert_eq!(message[34..], longest.to_be_bytes());
        assert_eq!(spent(&a) - before, u64::from(hops < 2));
    }
}

/// wire.md: W5-7, W5-9, W5-26, W5-50, W5-51, W5-52.
#[test]
fn an_error_is_the_one_of_the_examples() {
    let mut a = Row::new(1);
    let mut right = right_neighbour(&mut a);
    let got = exchange(&mut a, &mut right, &example("error-cause"));
    assert_eq!(got, [vec![example("error-reply")], vec![]]);
    a.pass(1_000 * MS);
    let short = &example("error-cause")[..35];
    assert_eq!(exchange(&mut a, &mut right, short), [const { Vec::<Vec<u8>>::new() }; 2]);
    assert_eq!(a.nodes[0].count(Discard::EmptySlot), 2);
}

/// wire.md: W5-12, W5-31, W5-62, W5-64.
#[test]
fn a_goodbye_is_the_one_of_the_examples() {
    let mut a = Row::new(1);
    a.nodes[0].switch.goodbye(Slot::new(2), 1, 0, "the relay stops");
    a.pass(MS);
    let sent = received(&mut a.left, &mut a.pool);
    assert_eq!(sent, [example("goodbye-a-to-p")]);
    // The peer accepts the goodbye as it was sent.
    let mut p = Row::new(1);
    send(&mut p.left, &mut p.pool, &sent[0]);
    p.pass(MS);
    let text = "the relay stops".to_owned();
    let goodbye = Event::Goodbye { slot: Slot::new(2), code: 1, retry_after_s: 0, text };
    assert!(p.nodes[0].events.contains(&goodbye), "{:?}", p.nodes[0].events);
    // The goodbye has no other effect on a plain link.
    send(&mut p.left, &mut p.pool, &example("ping-neighbour"));
    p.pass(MS);
    assert_eq!(received(&mut p.left, &mut p.pool), [example("pong-neighbour")]);
}

/// wire.md: W5-37, W5-77.
#[test]
fn a_pong_has_at_most_1392_bytes_of_payload() {
    let mut a = Row::new(1);
    let mut right = right_neighbour(&mut a);
    let payload: Vec<u8> = (0..2_000).map(|n| n as u8).collect();
    let ping = [&example("ping-neighbour")[..24], &payload].concat();
    let [pongs, _] = exchange(&mut a, &mut right, &ping);
    assert_eq!(pongs[0].len(), 16 + CONTROL_BYTES_MAX);
    assert_eq!(pongs[0][24..], payload[..1_392]);
}

/// wire.md: W1.3-6, W1.3-12, W8-1, W8-2, W8-29, W8-30, W8-31, W8-37.
#[test]
fn a_process_sends_and_receives_the_packets_of_the_examples() {
    let mut a = Row::new(1);
    let path = std::env::temp_dir().join(format!("strowger-document-{}", std::process::id()));
    let port = UnixPort::listen(&path, &UnixSpec::default()).expect("no other listener");
    let port = a.nodes[0].switch.plug_at(0, Box::new(port)).expect("room");
    let attach = Attach::plain(port, Address::Only, Behind::Endpoint, "process");
    a.nodes[0].switch.attach(attach.with_slot(Slot::new(4))).expect("free");
    a.pass(MS);

    let mut process = Client::connect(&path).expect("it listens");
    assert!(process.try_send(&example("unix-to-switch")[4..]).expect("it is served"));
    let mut packets = Vec::new();
    until("the packet of the process", || {
        a.pass(MS);
        packets.extend(received(&mut a.left, &mut a.pool));
        !packets.is_empty()
    });
    // Behind slot 2 the label ends at slot 1. The five bits of the return path, reversed, are an
    // end marker and the director 1001 of slot 4.
    let hello = [0x10, 0, 63, 0, 0, 5, 0, 0, 0x98, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(packets, [[&hello[..], b"hello"].concat()]);

    let to_process = example("unix-to-process");
    send(&mut a.left, &mut a.pool, &to_process[12..]);
    let mut buffer = [0; 64];
    until("the packet for the process", || {
        a.pass(MS);
        match process.try_receive(&mut buffer).expect("it is served") {
            None => false,
            Some(got) => {
                assert_eq!(got.ingress.to_be_bytes(), to_process[..4]);
                assert_eq!(buffer[..got.len], to_process[4..]);
                true
            }
        }
    });

    // The process answers along the return label, which it computes with the ingress slot.
    let arrived = Label::<u64>::new(u64::from_be_bytes(to_process[20..28].try_into().unwrap()));
    let ingress = V3X5X8.encode_least(Slot::new(2)).expect("it fits");
    let (back, shift) = arrived.reverse(4, Some(ingress)).unwrap().depart().unwrap();
    let mut answer = vec![0; 24];
    answer[..8].copy_from_slice(&plain_header(0));
    HeaderRepr::new(back, shift, 64).emit(&mut answer[8..]).expect("room");
    assert!(process.try_send(&answer).expect("it is served"));
    let mut packets = Vec::new();
    until("the answer of the process", || {
        a.pass(MS);
        packets.extend(received(&mut a.left, &mut a.pool));
        !packets.is_empty()
    });
    // At the neighbour the label ends at slot 1.
    assert_eq!(packets[0][8..16], [0x98, 0, 0, 0, 0, 0, 0, 1]);
}

/// wire.md: W5-1, W5-15, W5-16, W5-17, W5-18, W5-38, W5-75, W5-76.
#[test]
fn what_is_no_message_for_slot_1_gets_no_answer() {
    let mut a = Row::new(1);
    let mut right = right_neighbour(&mut a);
    let ping = example("ping-neighbour");
    let with = |at: usize, byte: u8| {
        let mut bytes = ping.clone();
        bytes[at] = byte;
        bytes
    };
    let message = |name: &str| [&ping[..16], &example(name)[..]].concat();
    let bent = |name: &str, at: usize, byte: u8| {
        let mut bytes = message(name);
        bytes[16 + at] = byte;
        bytes
    };
    let cut = |name: &str| {
        let mut bytes = message(name);
        bytes.pop();
        bytes
    };
    let long = |name: &str| [&message(name)[..], &[0]].concat();
    for packet in [
        with(1, 0),  // C is not set
        with(16, 2), // the version
        with(17, 13),
        with(17, 0),
        ping[..16].to_vec(),
        ping[..23].to_vec(),
        cut("control-trace-request"),
        long("control-trace-request"),
        cut("control-identity-request"),
        long("control-identity-request"),
        cut("control-error"),
        long("control-error"),
        long("control-too-big"),
        cut("control-slot-moved"),
        bent("control-error", 4, 0x13),
        bent("control-goodbye", 8, 0xff),
        bent("control-trace-reply", 12, 4),
    ] {
        a.pass(100 * MS);
        let before = a.nodes[0].count(Discard::Unhandled);
        let got = exchange(&mut a, &mut right, &packet);
        assert_eq!(got, [const { Vec::<Vec<u8>>::new() }; 2], "{packet:02x?}");
        assert_eq!(a.nodes[0].count(Discard::Unhandled) - before, 1, "{packet:02x?}");
    }
    // A switch without an identity handles the request and sends no answer.
    let got = exchange(&mut a, &mut right, &message("control-identity-request"));
    assert_eq!(got, [const { Vec::<Vec<u8>>::new() }; 2]);
    a.assert_even();
}

/// wire.md: W5-48, W5-73.
#[test]
fn a_trace_request_at_its_last_hop_needs_no_padding_and_must_allow_errors() {
    let mut a = Row::new(1);
    let mut right = right_neighbour(&mut a);
    let mut asked = |packet: &[u8]| {
        a.pass(100 * MS);
        let [replies, _] = exchange(&mut a, &mut right, packet);
        replies.first().map(|reply| reply[16..18].to_vec())
    };
    let trace = example("trace-p-to-a");
    assert_eq!(asked(&trace), Some(vec![1, 4]));
    let mut long = [&trace[..], &[0; 9]].concat();
    assert_eq!(asked(&long), Some(vec![1, 4]));
    long[8..16].copy_from_slice(&example("ping-neighbour")[8..16]);
    assert_eq!(asked(&long), Some(vec![1, 4]), "it ends here, and no hops are left");
    let mut silent = trace.clone();
    silent[1] |= 0x80;
    assert_eq!(asked(&silent), None);
    silent[2] = 9;
    silent[8..16].copy_from_slice(&example("ping-neighbour")[8..16]);
    assert_eq!(asked(&silent), Some(vec![1, 4]), "at slot 1");
}

/// wire.md: W5-49.
#[test]
fn an_offending_header_has_no_reserved_bits_and_no_more_hops_than_the_limit() {
    let mut a = Row::new(1);
    let (_far, near) = memory::wire(16).expect("descriptors");
    let port = a.nodes[0].switch.plug_at(0, Box::new(near)).expect("room");
    let narrow = Attach::plain(port, Address::Only, Behind::Neighbour, "narrow");
    let narrow = narrow.with_frame_bytes_max(100).with_slot(Slot::new(9));
    a.nodes[0].switch.attach(narrow).expect("free");
    a.pass(MS);
    // Both packets are sent with 200 hops left and all reserved bits set.
    let mut astray = example("error-cause");
    (astray[1], astray[2]) = (0b111, 200);
    let mut too_big = [&example("ping-p-to-a")[..16], &[0; 100]].concat();
    (too_big[1], too_big[2]) = (0b111, 200);
    for (packet, kind, header_at, hops) in [(astray, 7, 20, 200), (too_big, 8, 22, 64)] {
        send(&mut a.left, &mut a.pool, &packet);
        a.pass(MS);
        let errors = received(&mut a.left, &mut a.pool);
        let [error] = &errors[..] else { panic!("{errors:?}") };
        assert_eq!(error[17], kind);
        let mut wanted = packet[..16].to_vec();
        (wanted[1], wanted[2]) = (0, hops);
        assert_eq!(error[header_at..], wanted);
    }
}

/// wire.md: W5-9, W5-57.
#[test]
fn a_sender_without_both_rights_learns_nothing_about_slots() {
    let none = Rights::NONE;
    let slot = |number: u64, above: u64| 1 << 63 | above << 4 | number << 1 | 1;
    // Slot 3 is an endpoint, slot 5 was detached, slot 2 is the sender itself.
    let labels = [slot(5, 1), slot(2, 1), slot(3, 3)];
    for (rights, codes) in [
        (Rights::ALL, [(10, 0), (7, 6), (7, 7)]),
        (Rights { endpoints: true, ..none }, [(7, 4); 3]),
        (Rights { transit: true, ..none }, [(7, 4); 3]),
        (none, [(7, 4); 3]),
    ] {
        let mut a = Row::with_rights(1, rights);
        let (_far, near) = memory::wire(16).expect("descriptors");
        a.nodes[0].attach(near, Behind::Neighbour, 5, Rights::ALL);
        a.pass(MS);
        a.nodes[0].switch.detach(Slot::new(5)).expect("attached");
        a.pass(10 * MS);
        for (label, (kind, code)) in labels.into_iter().zip(codes) {
            let mut packet = example("error-cause");
            packet[8..16].copy_from_slice(&label.to_be_bytes());
            packet.resize(60, 0);
            send(&mut a.left, &mut a.pool, &packet);
            a.pass(MS);
            let errors = received(&mut a.left, &mut a.pool);
            assert_eq!(errors[0][17..19], [kind, code], "{label:x} with {rights:?}");
        }
    }
}

/// wire.md: W5-11, W5-39, W5-40, W5-60, W5-68, W5-69, W5-70.
#[test]
fn only_what_belongs_to_a_request_answers_it() {
    // The left neighbour has no rights, because its replies and errors need none.
    let mut a = Row::with_rights(1, Rights::NONE);
    let mut right = right_neighbour(&mut a);
    let label = way(&[(1, 2), (2, 7), (2, 1)]);
    let request = ControlRequest::Ping { payload_bytes: 0 };
    let id = a.nodes[0].switch.send_request(label, request, a.now).expect("room");
    a.pass(MS);
    let [sent, at_right] = [received(&mut a.left, &mut a.pool), received(&mut right, &mut a.pool)];
    assert!(at_right.is_empty() && sent.len() == 1);
    let sent = &sent[0];
    // Only the flag C is set. This switch has used one of 64 hops. The class is 0, and the flow is
    // the low half of the request's identifier.
    assert_eq!(sent[..4], [0x10, 0x40, 63, 0]);
    assert_eq!(sent[6..8], sent[22..24]);
    assert_eq!((&sent[16..20], sent.len()), (&[1, 1, 0, 0][..], 16 + 8 + 48));

    let to_here = &example("pong-neighbour")[..16];
    let pong = [to_here, &[1, 2, 0, 0], &sent[20..]].concat();
    let with = |at: usize, bit: u8| {
        let mut bytes = pong.clone();
        bytes[at] ^= bit;
        bytes
    };
    let error = [to_here, &[1, 7, 4, 0], &sent[..16]].concat();
    let mut of_another_width = [to_here, &[1, 7, 4, 0, 0x11], &sent[1..8], &[0; 8]].concat();
    of_another_width.extend(&sent[8..16]);
    let identity = [to_here, &[1, 6, 0, 0], &sent[20..24], &[0; 64]].concat();
    let mut unsolicited = 0;
    for (from_right, packet) in [
        (true, pong.clone()),
        (true, error),
        (false, with(23, 1)),
        (false, with(20, 1)),
        (false, of_another_width),
        (false, identity),
    ] {
        let from = if from_right { &mut right } else { &mut a.left };
        send(from, &mut a.pool, &packet);
        a.pass(MS);
        unsolicited += 1;
        assert_eq!(a.nodes[0].count(Discard::Unsolicited), unsolicited, "{packet:02x?}");
        assert_eq!(a.nodes[0].replies(id), []);
    }
    send(&mut a.left, &mut a.pool, &pong);
    a.pass(MS);
    assert!(matches!(a.nodes[0].replies(id)[..], [ControlReply::Pong { payload_bytes: 48, .. }]));
    assert_eq!(a.nodes[0].count(Discard::Unsolicited), unsolicited);
}

/// wire.md: W2-5, W2-14, W2-19.
#[test]
fn a_long_queue_marks_congestion_of_packets_that_are_capable_of_it() {
    for ecn in 0..4_u8 {
        let mut a = Row::new(1);
        // The wire to the right neighbour holds 4 frames, and is not read at first.
        let (mut right, near) = memory::wire(4).expect("descriptors");
        right.admit(Mark(0), Address::Only).expect("no other neighbour");
        a.nodes[0].attach(near, Behind::Neighbour, 9, Rights::ALL);
        a.pass(MS);
        // The packet has no flags, so it is data.
        let mut packet = [&example("ping-p-to-a")[..16], &[0; 8]].concat();
        packet[1] = ecn << 3;
        let mut marks = Vec::new();
        let mut read = |a: &mut Row| {
            let packets = received(&mut right, &mut a.pool);
            marks.extend(packets.iter().map(|packet| packet[1] >> 3));
            marks.len()
        };
        // 4 frames are on the wire and 36 wait. The port takes 4 more, and leaves 32 behind.
        for sent in 0..50 {
            if sent == 40 {
                assert_eq!(read(&mut a), 4);
                a.pass(MS);
            }
            send(&mut a.left, &mut a.pool, &packet);
            a.pass(MS);
        }
        while read(&mut a) < 50 {
            a.pass(MS);
        }
        assert!(marks[..40].iter().all(|mark| *mark == ecn), "{ecn}: {marks:?}");
        let wanted = if ecn == 0 { 0 } else { 0b11 };
        assert!(marks[40..].iter().all(|mark| *mark == wanted), "{ecn}: {marks:?}");
    }
}
