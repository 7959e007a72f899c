//! The path MTU is found, shown, checked and respected. The simulated network drops long datagrams.
//! The tests run in virtual time.

use strowger_engine::{
    Now,
    control::{
        Event,
        messages::{ControlReply, ControlRequest},
    },
    discard::Discard,
};
use strowger_frame::Address;
use strowger_testkit::sim::{
    MS, Node, NodeSpec, Pair, SECOND, SimNet, hop, host, path, receive, send,
};
use strowger_wire::switch_header::AnyHeader;

/// The length in bytes of a packet without its payload: link header, switch header, tag.
const AROUND: usize = 8 + 16 + 16;

/// The path MTU that each end shows, if its search is complete.
fn found(pair: &Pair) -> [Option<u16>; 2] {
    [pair.a.peer_view(2), pair.b.peer_view(1)]
        .map(|view| view.frame_bytes_max.filter(|_| view.is_path_found))
}

fn until_found(pair: &mut Pair, bytes: u16) -> u64 {
    let began = pair.now.0;
    while found(pair) != [Some(bytes); 2] {
        pair.run_with_traffic(1);
        assert!(pair.now.0 - began < 90 * SECOND, "{:?}", pair.a.switch.peers());
    }
    pair.now.0 - began
}

fn drain(pair: &mut Pair) {
    while receive(&mut pair.at_a).is_some() || receive(&mut pair.at_b).is_some() {}
}

fn pair_with(frame_bytes_max: u16, narrow: usize) -> Pair {
    let mut pair = Pair::with(NodeSpec::new(1), NodeSpec::new(2), |_, spec| {
        spec.with_frame_bytes_max(frame_bytes_max)
    });
    pair.net.set_mtu(narrow);
    pair.until_up();
    pair
}

/// The maximum packet size in the error that A's endpoint received.
fn right_size(pair: &mut Pair) -> Option<u16> {
    let mut bytes = pair.at_a.receive().expect("the switch is there")?.bytes()[8..].to_vec();
    let Ok(AnyHeader::W64(header)) = AnyHeader::parse(&mut bytes) else { return None };
    match *header.payload() {
        [1, 8, _, _, high, low, ..] => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

/// The maximum packet size of A's egress, as a trace reports it.
fn traced(pair: &mut Pair) -> Option<u16> {
    let label = path(&[
        hop(1, pair.a.peer_view(2).slot.number()),
        hop(pair.b.peer_view(1).slot.number(), 1),
    ]);
    let request = pair.a.switch.send_request(label, ControlRequest::Trace, pair.now).expect("room");
    pair.run_for(1);
    pair.a.events.iter().find_map(|event| match event {
        Event::Replied(id, ControlReply::Hop(hop)) if *id == request => {
            hop.word.map(|word| word.packet_bytes_max)
        }
        _ => None,
    })
}

/// wire.md: W3-22, W3-60.
#[test]
fn the_path_mtu_is_found_and_just_that_size_passes() {
    let widths = [896, 1_231, 1_232, 1_300, 1_372, 1_399, 1_452, 1_471, 1_472, 1_500, 4_000, 8_952];
    for (narrow, most) in widths.map(|width| (width, 9_216)).into_iter().chain([(9_216, 1_400)]) {
        let mut pair = pair_with(most, narrow);
        let bytes = (narrow as u16).min(most);
        pair.net.start_log();
        until_found(&mut pair, bytes);
        let long = pair.net.take_log().iter().filter(|d| d.bytes.len() >= 576).count();
        assert!(long <= 2 * 60, "{long} challenges");
        let wanted = Event::PathMtu(pair.a.peer_view(2).slot, bytes);
        assert_eq!(pair.a.events.iter().filter(|event| **event == wanted).count(), 1);

        drain(&mut pair);
        let fits = vec![7; usize::from(bytes) - AROUND];
        send(&mut pair.at_a, pair.to_b, &fits);
        pair.advance(MS);
        assert_eq!(receive(&mut pair.at_b), Some(fits), "{bytes}");
        send(&mut pair.at_a, pair.to_b, &vec![7; usize::from(bytes) - AROUND + 1]);
        pair.advance(MS);
        assert_eq!(receive(&mut pair.at_b), None);
        assert_eq!(pair.a.count(Discard::TooBig), 1);
        // The size includes the link header but not the tag.
        assert_eq!(right_size(&mut pair), Some(bytes - 16));
        assert_eq!(traced(&mut pair), Some(bytes - 16));
        pair.assert_even();
    }
}

#[test]
fn packets_of_1400_bytes_right_after_link_up_are_not_lost_on_a_path_of_1500() {
    // The path is IPv6, IPv4, or Ethernet without IP.
    for narrow in [1_452, 1_472, 1_498] {
        let mut pair = Pair::new();
        pair.net.set_mtu(narrow);
        while !pair.a.is_up() {
            pair.advance(MS);
        }
        for number in 0..20_000_u32 {
            let mut payload = vec![0; 1_400];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            send(&mut pair.at_a, pair.to_b, &payload);
            pair.advance(MS);
            assert_eq!(receive(&mut pair.at_b), Some(payload), "{number}");
        }
        assert_eq!(found(&pair)[0], Some(narrow as u16));
        pair.assert_even();
    }
}

/// wire.md: W3-22, W3-59.
#[test]
fn a_path_that_changes_is_followed_down_soon_and_up_seldom() {
    let mut pair = pair_with(9_216, 1_472);
    until_found(&mut pair, 1_472);
    for narrow in [1_372, 1_280, 1_100, 600] {
        pair.net.set_mtu(usize::from(narrow));
        // The path MTU is probed every 15 seconds. The search starts after three lost probes.
        let took = until_found(&mut pair, narrow);
        assert!(took < 70 * SECOND, "{took} ns");
        drain(&mut pair);
        let fits = vec![1; usize::from(narrow) - AROUND];
        send(&mut pair.at_a, pair.to_b, &fits);
        pair.advance(MS);
        assert_eq!(receive(&mut pair.at_b), Some(fits));
    }
    pair.net.set_mtu(8_952);
    pair.run_with_traffic(500);
    assert_eq!(found(&pair), [Some(600); 2]);
    pair.run_with_traffic(150);
    assert_eq!(found(&pair), [Some(8_952); 2]);
    assert!(!pair.a.events.iter().any(|event| matches!(event, Event::LinkDown(_))));
    pair.assert_even();
}

#[test]
fn the_path_mtu_survives_new_keys_and_idle_time_but_not_another_address() {
    let mut pair = pair_with(9_216, 1_300);
    until_found(&mut pair, 1_300);
    pair.run_with_traffic(300);
    assert!(pair.a.peer_view(2).handshakes >= 2);
    assert_eq!(found(&pair), [Some(1_300); 2]);
    pair.run_for(400);
    assert!(!pair.a.is_up() && !pair.b.is_up());
    drain(&mut pair);
    let fits = vec![1; 1_300 - AROUND];
    send(&mut pair.at_a, pair.to_b, &fits);
    pair.advance(MS);
    pair.run_for(1);
    assert_eq!(receive(&mut pair.at_b), Some(fits), "the MTU is known before the first packet");
    assert_eq!(found(&pair), [Some(1_300); 2]);

    pair.net.set_mtu(1_472);
    pair.net.move_socket(host(1), host(11));
    send(&mut pair.at_a, pair.to_b, b"from elsewhere");
    pair.run_for(1);
    assert_eq!(pair.b.peer_view(1).at, Some(Address::Udp(host(11))));
    assert!(!pair.b.peer_view(1).is_path_found, "B uses another path now");
    pair.run_with_traffic(30);
    assert_eq!(found(&pair)[1], Some(1_472));
    pair.assert_even();
}

/// wire.md: W3-52, W3-58.
#[test]
fn r8_no_long_packet_is_sent_to_an_unanswered_address() {
    let net = SimNet::default();
    let mut now = Now(1);
    let mut a = Node::new(&net, &NodeSpec::new(1), now);
    let mut b = Node::new(&net, &NodeSpec::new(2), now);
    a.add_peer(2, true, now);
    b.add_peer(1, false, now);
    // All packets of A appear to come from the address of a victim.
    net.move_socket(host(1), host(66));
    let mut to_victim = Vec::new();
    let mut first = true;
    for _ in 0..1_200 {
        now.0 += 100 * MS;
        a.poll(now);
        b.poll(now);
        if b.is_up() && first {
            // From now on all of B's datagrams are lost.
            net.start_log();
            net.set_loss(1_000_000, 0);
            first = false;
        }
        to_victim.extend(net.take_log().into_iter().filter(|d| d.to == host(66)));
    }
    assert!(!first);
    let longest = to_victim.iter().filter(|d| d.bytes[0] >> 4 == 8).map(|d| d.bytes.len()).max();
    assert_eq!(longest, Some(2 * (8 + 8 + 16)), "only short challenges");
    let request = to_victim.iter().filter(|d| d.bytes[0] >> 4 == 8).count();
    assert!(request <= 12, "{request}");
    b.assert_even();
}

#[test]
fn a_lossy_path_is_found_at_last() {
    for seed in 1..=8 {
        let mut pair = pair_with(9_216, 1_472);
        pair.net.set_loss(50_000, seed);
        let mut works = 0;
        for _ in 0..12 {
            pair.run_with_traffic(60);
            let limit = pair.a.peer_view(2).frame_bytes_max.expect("up");
            assert!(limit <= 1_472 || works == 0, "{limit}");
            works = limit;
        }
        assert_eq!(works, 1_472, "seed {seed}");
        pair.net.set_loss(0, 0);
        pair.run_for(5);
        pair.assert_even();
    }
}
