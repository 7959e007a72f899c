//! Junk against handshakes. An observer of the path can read session indices, and send forged
//! responses and cookie replies with these indices. Such messages keep no link down, at whatever
//! rate they arrive. The tests run in virtual time.

use strowger_crypto::{
    Nanos, Psk, SeededEntropy,
    handshake::{Admission, CookieChecker, Load, LocalParams, Offer, TimestampGuard, ik},
};
use strowger_engine::{
    control::{Event, peering::Liveness},
    discard::Discard,
};
use strowger_testkit::{
    Rng,
    sim::{Datagram, MS, NodeSpec, Pair, host, identity, key, receive, send},
};
use strowger_wire::{hello::Timestamp, link_header::SessionIndex};

fn kind(bytes: &[u8]) -> u8 {
    bytes[0] >> 4
}

/// What a passive observer sees: the source and destination of each packet, and the session indices
/// in the clear.
#[derive(Default)]
struct Observer {
    /// A host, and a session index from a packet to the host or from an initiation of the host.
    /// Only the newest twelve are kept.
    visible: Vec<(u8, [u8; 3])>,
}

impl Observer {
    fn look(&mut self, flown: &[Datagram]) {
        for d in flown {
            let [one, other] = if d.from == host(1) { [1, 2] } else { [2, 1] };
            let seen = match kind(&d.bytes) {
                1 => (one, [d.bytes[5], d.bytes[6], d.bytes[7]]),
                _ => (other, [d.bytes[1], d.bytes[2], d.bytes[3]]),
            };
            if !self.visible.contains(&seen) {
                self.visible.push(seen);
            }
            let old = self.visible.len().saturating_sub(12);
            self.visible.drain(..old);
        }
    }

    /// Sends responses and cookie replies of these lengths to each session index, with the peer's
    /// address as their source.
    fn inject(&self, pair: &Pair, rng: &mut Rng, lengths: &[usize]) -> u64 {
        for (to, number) in &self.visible {
            for (first, &len) in [0x20, 0x30, 0x21].into_iter().zip(lengths) {
                let mut junk = rng.bytes(len);
                junk[..4].copy_from_slice(&[first, number[0], number[1], number[2]]);
                pair.net.inject(host(3 - to), host(*to), &junk);
            }
        }
        (self.visible.len() * lengths.len()) as u64
    }
}

/// wire.md: W4-14, W4-87.
#[test]
fn r12_junk_to_numbers_that_all_can_see_keeps_no_new_link_down() {
    // Each end gets one datagram every 10 ms, with the newest of its session indices that the
    // observer has seen: a response or a cookie reply of 8 bytes, or one of the right length.
    for (first, len) in [(0x20, 8), (0x30, 8), (0x30, 64), (0x20, 896)] {
        let mut pair = Pair::new();
        let (mut observer, mut rng) = (Observer::default(), Rng::new(0x12));
        pair.net.start_log();
        // In the first second, all handshake messages are lost, as if the other end started later.
        // In that time, the junk could use up the budget of that peer.
        pair.net.set_handshake_loss(1_000_000, 0);
        let (mut injected, mut up) = (0, None);
        for round in 0..3_000 {
            if round == 100 {
                pair.net.set_handshake_loss(0, 0);
            }
            pair.now.0 += 10 * MS;
            for end in [1, 2] {
                // The observer sees each packet, and its junk arrives before the peer's response.
                if end == 1 { &mut pair.a } else { &mut pair.b }.poll(pair.now);
                observer.look(&pair.net.take_log());
                let newest = observer.visible.iter().rfind(|(to, _)| *to == end);
                if let Some((_, number)) = newest {
                    let mut junk = rng.bytes(len);
                    junk[..4].copy_from_slice(&[first, number[0], number[1], number[2]]);
                    pair.net.inject(host(3 - end), host(end), &junk);
                    injected += 1;
                }
            }
            if pair.a.is_up() && pair.b.is_up() {
                up = Some(round);
                break;
            }
        }
        assert!(injected > 100, "{injected}");
        assert!(
            up.is_some_and(|up| up < 1_000),
            "type {first:#x}: up after {up:?} rounds of 10 ms"
        );
        assert!(pair.carries_packets());
        pair.assert_even();
    }
}

/// wire.md: W4-87.
#[test]
fn r12_junk_to_numbers_that_all_can_see_keeps_no_link_from_its_new_keys() {
    let mut pair = Pair::new();
    pair.until_up();
    let (mut observer, mut rng) = (Observer::default(), Rng::new(0x13));
    pair.net.start_log();
    let before = pair.a.peer_view(2).handshakes;
    let (mut injected, mut sent, mut got) = (0, 0, 0);
    for round in 0..400 * 20 {
        // Up to 1,200 junk datagrams per second arrive before the datagrams of the peers.
        injected += observer.inject(&pair, &mut rng, &[8, 8]);
        injected += observer.inject(&pair, &mut rng, &[896, 64, 896]);
        if round % 20 == 0 {
            sent += 1;
            send(&mut pair.at_a, pair.to_b, b"as ever");
        }
        pair.advance(50 * MS);
        observer.look(&pair.net.take_log());
        got += u32::from(receive(&mut pair.at_b).is_some());
    }
    assert!(injected > 150_000, "{injected}");
    assert!(pair.a.peer_view(2).handshakes >= before + 3, "{}", pair.a.peer_view(2).handshakes);
    assert_eq!(sent, got, "no packet was lost");
    let is_down = |event: &Event| matches!(event, Event::LinkDown(_));
    assert!(!pair.a.events.iter().chain(&pair.b.events).any(is_down));
    pair.assert_even();
}

/// A response to this initiation in which only the mac is valid. The test makes it with B's key and
/// another psk.
fn with_a_right_mac(initiation: &[u8], offer: &Offer) -> Vec<u8> {
    let b = identity(2);
    let mut entropy = SeededEntropy::new(7);
    let checker = CookieChecker::new(&b, Nanos::ZERO, &mut entropy).expect("seeded");
    let Ok(Admission::Admitted(admitted)) = checker.admit(b"", initiation, Load::Normal) else {
        panic!("an honest initiation");
    };
    let read = ik::read(&b, &admitted).expect("an honest initiation");
    let index = SessionIndex::new(9).expect("small");
    let ours = LocalParams { local: &b, offer, index, timestamp: Timestamp::default() };
    let (psk, mut guard) = (Psk::from_bytes([9; 32]), TimestampGuard::default());
    read.accept(&ours, &psk, &mut guard, &mut entropy).expect("well-formed").1
}

/// wire.md: W4-87.
#[test]
fn r12_answers_with_a_valid_mac_from_elsewhere_use_none_of_the_peer_s_budget() {
    let mut pair = Pair::new();
    let offer = Offer::default();
    pair.net.start_log();
    let mut forged: Option<Vec<u8>> = None;
    pair.net.set_handshake_loss(1_000_000, 0);
    let mut up = None;
    for round in 0..120 {
        if round == 60 {
            pair.net.set_handshake_loss(0, 0);
        }
        pair.now.0 += 50 * MS;
        pair.a.poll(pair.now);
        let flown = pair.net.take_log();
        let first = flown.iter().find(|d| d.from == host(1) && kind(&d.bytes) == 1);
        forged = first.map(|d| with_a_right_mac(&d.bytes, &offer)).or(forged);
        // More junk than the slow path reads in one poll arrives before the real response.
        for _ in 0..200 {
            if let Some(forged) = &forged {
                pair.net.inject(host(66), host(1), forged);
            }
        }
        pair.b.poll(pair.now);
        pair.b.poll(pair.now);
        if pair.a.is_up() && pair.b.is_up() {
            up = Some(round);
            break;
        }
    }
    assert!(up.is_some_and(|up| (60..110).contains(&up)), "up after {up:?} rounds of 50 ms");
    assert!(
        pair.a.count(Discard::OverBudget) > 1_000,
        "responses from other addresses are within the budget"
    );
    let unreadable = pair.a.count(Discard::HandshakeUnreadable);
    assert!(unreadable <= 6 * 32, "{unreadable}");
    pair.assert_even();
}

/// wire.md: W4-14.
#[test]
fn junk_is_counted_by_its_fault() {
    let mut pair = Pair::new();
    pair.net.start_log();
    pair.net.set_loss(1_000_000, 0);
    pair.advance(MS);
    pair.advance(MS);
    let flown = pair.net.take_log();
    let first = flown.iter().find(|d| d.from == host(1)).expect("an initiation");
    let number: [u8; 3] = first.bytes[5..8].try_into().expect("an initiation");
    let counts = |pair: &Pair| {
        let of = |discard| pair.a.count(discard);
        let unproved = of(Discard::HandshakeMac) + of(Discard::HandshakeUnreadable);
        [of(Discard::Malformed), of(Discard::NoSession), unproved]
    };
    let inject = |pair: &mut Pair, first: u8, number: [u8; 3], len: usize| {
        let mut junk = vec![0; len];
        junk[..4].copy_from_slice(&[first, number[0], number[1], number[2]]);
        let before = counts(pair);
        pair.now.0 += 10 * MS; // each address has a budget for this time
        pair.net.inject(host(2), host(1), &junk);
        pair.a.poll(pair.now);
        pair.a.poll(pair.now);
        let after = counts(pair);
        [0, 1, 2].map(|n| after[n] - before[n])
    };
    let other = [number[0] ^ 1, number[1], number[2]];
    for (first, len, number, counted) in [
        (0x20, 8, number, [1, 0, 0]),
        (0x30, 8, number, [1, 0, 0]),
        (0x30, 63, number, [1, 0, 0]),
        (0x30, 65, number, [1, 0, 0]),
        (0x20, 71, number, [1, 0, 0]),
        (0x20, 897, number, [1, 0, 0]),
        (0x22, 400, number, [1, 0, 0]), // no response has this lane
        (0x10, 895, number, [1, 0, 0]),
        (0x20, 400, other, [0, 1, 0]),
        (0x30, 64, other, [0, 1, 0]),
        (0x20, 72, number, [0, 0, 1]),
        (0x20, 896, number, [0, 0, 1]),
        (0x21, 400, number, [0, 1, 0]), // the response to another handshake
        (0x30, 64, number, [0, 0, 1]),
    ] {
        let got = inject(&mut pair, first, number, len);
        assert_eq!(got, counted, "{first:#x} of {len} bytes: malformed, no session, wrong mac");
    }
    pair.assert_even();
}

/// wire.md: W4-10, W4-11.
#[test]
fn a_link_comes_up_and_keeps_its_keys_fresh_over_a_round_trip_of_three_seconds() {
    let mut pair = Pair::with(NodeSpec::new(1), NodeSpec::new(2), |_, spec| {
        spec.with_liveness(Liveness::new(std::time::Duration::from_secs(10)))
    });
    pair.net.set_delay(1_500 * MS);
    let (mut up, mut got) = (None, 0);
    for second in 0..500_u32 {
        send(&mut pair.at_a, pair.to_b, b"as ever");
        for _ in 0..10 {
            pair.net.deliver_until(pair.now.0 + 100 * MS);
            pair.advance(100 * MS);
        }
        got += u32::from(receive(&mut pair.at_b).is_some());
        if up.is_none() && pair.a.is_up() && pair.b.is_up() {
            up = Some(second);
        }
    }
    assert!(up.is_some_and(|up| up <= 6), "the link is up after {up:?} s");
    assert!(got >= 490, "{got} of 500 packets arrived");
    let is_down = |event: &&Event| matches!(event, Event::LinkDown(_) | Event::LinkIdle(_));
    let events: Vec<_> = pair.a.events.iter().chain(&pair.b.events).filter(is_down).collect();
    assert!(events.is_empty(), "{events:?}");
    assert!(pair.a.peer_view(2).handshakes >= 4);
    assert_eq!(pair.a.peer_view(2).key, Some(key(2)));
}
