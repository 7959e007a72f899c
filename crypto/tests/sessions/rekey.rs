//! Tests that no data packet is refused while keys are renewed under loss. Time is virtual and all
//! randomness is seeded.

use std::collections::HashSet;

use crate::sim::{Impairment, LOSSY, discovering, offer, sim, up};
use strowger_crypto::aead::Provider;
use strowger_crypto::handshake::{HandshakeError, Load};
use strowger_crypto::session::{Context, Input, Output, Session, SessionConfig, SessionTimes};
use strowger_crypto::{
    Entropy, EntropyFailed, Nanos, Psk, SEALED_OVERHEAD_BYTES, Sealed, SeededEntropy,
};
use strowger_wire::link_header::SessionIndex;

/// wire.md: W4-82, W4-91, W4-104, W4-105.
#[test]
fn rekeying_at_30_percent_loss_refuses_no_data_packet() {
    let second = Some(Nanos::from_secs(1));
    // For each shape: the ends that want the link, and the interval at which each end sends data.
    // In the last shape only the responder sends.
    let shapes = [
        ([true, true], [second, second]),
        ([true, false], [second, second]),
        ([true, false], [second, None]),
        ([true, false], [None, second]),
    ];
    let run = |shape: usize, (wants, sends): ([bool; 2], [Option<Nanos>; 2])| {
        let seed = 0x57 + shape as u64;
        let mut sim = sim(seed, LOSSY, Load::Normal);
        up(&mut sim, wants);
        let before = sim.nodes[0].rekeys;
        sim.run(sim.now.plus(Nanos::from_secs(120 * 270)), sends);
        sim.check(seed);
        let made = sim.nodes[0].rekeys - before;
        let attempts: u64 = sim.nodes.iter().map(|node| node.attempts).sum();
        assert!(sim.delivered > 10_000 && sim.doubled > 0, "seed {seed}: nothing was tested");
        assert!(attempts > made * 3 / 2, "seed {seed}: {attempts} attempts, nothing was lost");
        made
    };
    let rekeys: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = shapes
            .into_iter()
            .enumerate()
            .map(|(shape, who)| scope.spawn(move || run(shape, who)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("the seed is printed above")).sum()
    });
    assert!(rekeys >= 1000, "{rekeys} rekeys");
}

/// wire.md: W4-78.
#[test]
fn rekeying_works_under_load_with_cookies() {
    let second = Some(Nanos::from_secs(1));
    let mut sim = sim(5, LOSSY, Load::Heavy);
    up(&mut sim, [true, true]);
    sim.run(sim.now.plus(Nanos::from_secs(120 * 20)), [second, second]);
    sim.check(5);
    assert!(sim.nodes.iter().map(|node| node.cookies).sum::<u64>() > 0);
    assert!(sim.nodes[0].rekeys >= 18);
}

/// wire.md: W4-103, W4-106.
#[test]
fn an_idle_link_lets_its_keys_expire_and_comes_back() {
    let calm = Impairment { lost_per_mille: 0, doubled_per_mille: 0, delay_ms: (1, 20) };
    let mut sim = sim(6, calm, Load::Normal);
    up(&mut sim, [true, false]);
    let attempts = sim.nodes[0].attempts;
    sim.step(0, Input::Unwanted);
    sim.run(sim.now.plus(Nanos::from_secs(600)), [None, None]);
    assert_eq!(sim.nodes[0].attempts, attempts, "an idle link starts no handshake");
    assert!(sim.nodes.iter().all(|node| !node.session.is_up() && node.openers.is_empty()));
    assert!(sim.nodes.iter().all(|node| node.session.next_timeout().is_none()));
    sim.step(0, Input::Wanted);
    sim.run(sim.now.plus(Nanos::from_secs(2)), [None, None]);
    assert!(sim.nodes.iter().all(|node| node.session.is_up()));
}

/// wire.md: W4-82, W4-83.
#[test]
fn attempts_to_an_absent_peer_back_off_and_a_restarted_peer_is_found() {
    let dead = Impairment { lost_per_mille: 1000, doubled_per_mille: 0, delay_ms: (1, 20) };
    let mut sim = sim(8, dead, Load::Normal);
    sim.step(0, Input::Wanted);
    sim.run(Nanos::from_secs(3600), [None, None]);
    let attempts = sim.nodes[0].attempts;
    assert!((230..290).contains(&attempts), "{attempts} attempts in an hour");
    sim.impairment.lost_per_mille = 0;
    up(&mut sim, [true, false]);
    // Node 1 restarts: it has lost all state and initiates.
    let config = SessionConfig {
        peer: Some(*sim.nodes[0].local.static_public()),
        identity: Some(*sim.nodes[0].local.identity()),
        psk: Psk::from_bytes([4; 32]),
        offer: offer(),
        provider: Provider::DEFAULT,
        wall_at_zero: 1_700_000_000_000_000_000,
        times: &SessionTimes::LINK,
    };
    sim.nodes[1].session = Session::new(config);
    sim.nodes[1].openers.clear();
    sim.nodes[1].keys = None;
    sim.step(1, Input::Wanted);
    sim.run(sim.now.plus(Nanos::from_secs(10)), [None, None]);
    let delivered = sim.delivered;
    sim.data(0, b"hello");
    sim.data(1, b"hello");
    sim.run(sim.now.plus(Nanos::from_secs(1)), [None, None]);
    assert_eq!(sim.delivered, delivered + 2);
}

/// wire.md: W3-40, W4-104.
#[test]
fn keys_with_many_packets_are_renewed_early_but_not_at_once() {
    let calm = Impairment { lost_per_mille: 0, doubled_per_mille: 0, delay_ms: (1, 20) };
    let mut sim = sim(9, calm, Load::Normal);
    sim.step(0, Input::Wanted);
    sim.run(Nanos::from_secs(2), [None, None]);
    assert_eq!(sim.nodes[0].rekeys, 1);
    sim.step(0, Input::RekeyDue);
    assert_eq!(sim.nodes[0].attempts, 1, "two seconds after the last rekey");
    sim.run(Nanos::from_secs(10), [None, None]);
    assert_eq!((sim.nodes[0].rekeys, sim.nodes[1].rekeys), (2, 2));
    sim.run(Nanos::from_secs(60), [None, None]);
    assert_eq!(sim.nodes[0].rekeys, 2, "one rekey");
}

/// wire.md: W4-6, W4-8, W4-105.
#[test]
fn unknown_peers_meet_by_xx_at_30_percent_loss_and_rekey_by_ik() {
    let second = Some(Nanos::from_secs(1));
    for seed in 20..30 {
        for load in [Load::Normal, Load::Heavy] {
            let mut sim = sim(seed, LOSSY, load);
            sim.nodes[0].session = discovering(&sim, 0, None);
            up(&mut sim, [true, false]);
            assert_eq!(sim.nodes[0].session.peer(), Some(sim.nodes[1].local.static_public()));
            // A lost third message is repeated.
            sim.run(sim.now.plus(Nanos::from_secs(20)), [None, None]);
            assert!(sim.nodes.iter().all(|node| node.session.is_up()), "seed {seed}");
            let sent = sim.sent;
            sim.run(sim.now.plus(Nanos::from_secs(20)), [None, None]);
            assert_eq!(sim.sent, sent, "seed {seed}: messages after the handshake ended");
            sim.unknown_index = 0; // packets that arrived before their third message
            sim.run(sim.now.plus(Nanos::from_secs(400)), [second, second]);
            sim.check(seed);
            assert!(sim.nodes.iter().all(|node| node.rekeys >= 4), "seed {seed}");
        }
    }
}

/// wire.md: W4-7.
#[test]
fn two_nodes_that_discover_each_other_at_once_get_a_link() {
    let second = Some(Nanos::from_secs(1));
    for seed in 40..50 {
        let mut sim = sim(seed, LOSSY, Load::Normal);
        let identities = sim.nodes.each_ref().map(|node| *node.local.identity());
        for at in 0..2 {
            sim.nodes[at].session = discovering(&sim, at, Some(identities[1 - at]));
            sim.step(at, Input::Wanted);
        }
        up(&mut sim, [true, true]);
        sim.run(sim.now.plus(Nanos::from_secs(40)), [None, None]);
        sim.unknown_index = 0;
        sim.run(sim.now.plus(Nanos::from_secs(400)), [second, second]);
        sim.check(seed);
    }
}

/// wire.md: W4-8.
#[test]
fn a_discovered_peer_that_restarts_is_found_again() {
    let calm = Impairment { lost_per_mille: 0, doubled_per_mille: 0, delay_ms: (1, 20) };
    let mut sim = sim(9, calm, Load::Normal);
    sim.nodes[0].session = discovering(&sim, 0, None);
    up(&mut sim, [true, false]);
    sim.run(sim.now.plus(Nanos::from_secs(10)), [None, None]);
    // Node 1 has lost its peer and all keys.
    sim.nodes[1].session = discovering(&sim, 1, None);
    sim.nodes[1].openers.clear();
    sim.nodes[1].keys = None;
    sim.step(0, Input::Lost);
    sim.run(sim.now.plus(Nanos::from_secs(3)), [None, None]);
    assert!(sim.nodes.iter().all(|node| node.session.is_up()));
    let delivered = sim.delivered;
    sim.data(0, b"hello");
    sim.data(1, b"hello");
    sim.run(sim.now.plus(Nanos::from_secs(1)), [None, None]);
    assert_eq!(sim.delivered, delivered + 2);
}

/// wire.md: W4-60.
#[test]
fn a_discovered_peer_must_have_the_pinned_identity_and_a_free_key() {
    let calm = Impairment { lost_per_mille: 0, doubled_per_mille: 0, delay_ms: (1, 20) };
    let mut sim = sim(9, calm, Load::Normal);
    let own = *sim.nodes[0].local.identity();
    sim.nodes[0].session = discovering(&sim, 0, Some(own)); // not the peer's
    sim.step(0, Input::Wanted);
    sim.run(Nanos::from_secs(60), [None, None]);
    assert!(sim.nodes.iter().all(|node| !node.session.is_up() && node.openers.is_empty()));
    assert!(sim.nodes[0].attempts < 16, "the attempts do not back off");

    sim.taken = true;
    sim.nodes[0].session = discovering(&sim, 0, None);
    sim.step(0, Input::Wanted);
    sim.run(Nanos::from_secs(120), [None, None]);
    assert!(sim.nodes.iter().all(|node| !node.session.is_up() && node.openers.is_empty()));
    sim.taken = false;
    sim.run(Nanos::from_secs(180), [None, None]);
    assert!(sim.nodes.iter().all(|node| node.session.is_up()));
}

/// wire.md: W4-81, W4-99.
#[test]
fn one_handshake_completes_when_both_ends_initiate_at_once() {
    for seed in 0..10 {
        let calm = Impairment { lost_per_mille: 0, doubled_per_mille: 0, delay_ms: (10, 200) };
        let mut sim = sim(seed, calm, Load::Normal);
        sim.step(0, Input::Wanted);
        sim.step(1, Input::Wanted);
        sim.run(Nanos::from_secs(10), [None, None]);
        assert_eq!(sim.nodes.each_ref().map(|node| node.rekeys), [1, 1], "seed {seed}");
        // The handshake of the end with the smaller key completes. That end does not answer the
        // initiation of the other end.
        let [one, other] = sim.nodes.each_ref().map(|node| *node.local.static_public());
        assert_eq!(sim.nodes[usize::from(one > other)].answers, 0, "seed {seed}");
        let second = Some(Nanos::from_millis(50));
        for round in 1..5 {
            sim.step(0, Input::RekeyDue);
            sim.step(1, Input::RekeyDue);
            sim.run(Nanos::from_secs(10 + 10 * round), [second, second]);
            let rekeys = sim.nodes.each_ref().map(|node| node.rekeys);
            assert_eq!(rekeys, [round + 1, round + 1], "seed {seed}");
            assert!(sim.nodes.iter().all(|node| node.attempts == round + 1), "seed {seed}");
        }
        sim.check(seed);
    }
}

/// wire.md: W4-60.
#[test]
fn a_peer_of_an_unexpected_identity_gets_no_link() {
    let calm = Impairment { lost_per_mille: 0, doubled_per_mille: 0, delay_ms: (1, 20) };
    for expects in 0..2 {
        for begins in 0..2 {
            let mut sim = sim(13, calm, Load::Normal);
            sim.nodes[expects].session = Session::new(SessionConfig {
                peer: Some(*sim.nodes[1 - expects].local.static_public()),
                identity: Some(*sim.nodes[expects].local.identity()), // not the peer's
                psk: Psk::from_bytes([4; 32]),
                offer: offer(),
                provider: Provider::DEFAULT,
                wall_at_zero: 0,
                times: &SessionTimes::LINK,
            });
            sim.step(begins, Input::Wanted);
            sim.run(Nanos::from_secs(60), [None, None]);
            assert!(!sim.nodes[expects].session.is_up());
            assert!(sim.nodes[expects].openers.is_empty());
            let hurried = sim.nodes[begins].attempts;
            assert!(hurried <= 16, "{hurried}");
            sim.run(Nanos::from_secs(120), [None, None]);
            let later = sim.nodes[begins].attempts - hurried;
            assert!(later <= 9, "the attempts do not back off: {later}");
        }
    }
}

#[test]
fn attempts_without_random_bytes_fail_and_back_off() {
    struct Dry;
    impl Entropy for Dry {
        fn fill(&mut self, _: &mut [u8]) -> Result<(), EntropyFailed> {
            Err(EntropyFailed)
        }
    }
    let mut sim = sim(12, LOSSY, Load::Normal);
    let node = &mut sim.nodes[0];
    let mut indices = |_: &mut dyn Entropy| SessionIndex::new(1);
    let now = Nanos::from_secs(1);
    let mut context = Context {
        now,
        local: &node.local,
        entropy: &mut Dry,
        indices: &mut indices,
        is_free: &|_| true,
    };
    let mut outputs = Vec::new();
    let failed = node.session.handle(&mut context, Input::Wanted, &mut outputs);
    assert_eq!(failed, Err(HandshakeError::Local(EntropyFailed)));
    assert!(node.session.next_timeout().is_some_and(|due| due > now));
    assert!(!outputs.iter().any(|output| matches!(output, Output::Send(_))));
    sim.now = sim.nodes[0].session.next_timeout().expect("a further attempt");
    sim.step(0, Input::Tick);
    assert_eq!(sim.nodes[0].attempts, 1);
}

/// wire.md: W3-35.
#[test]
fn r5_a_nonce_is_used_once_across_lanes_rekeys_restarts_and_forks() {
    // Equal counters under one key give equal key streams, so the test seals zeros and searches for
    // a repeated stream. A fork cannot copy a sealer (it is not Clone); it can copy a node's
    // long-term key and its randomness. The nodes have the same long-term keys in every round, as
    // after a restart. In each round after the first, one end in turn also has the same randomness
    // as before, as after a fork; the fresh randomness of the other end suffices.
    let calm = Impairment { lost_per_mille: 0, doubled_per_mille: 0, delay_ms: (1, 20) };
    let mut streams: HashSet<Vec<u8>> = HashSet::new();
    let mut sealed = 0;
    for round in 0..8u64 {
        for begins in 0..2 {
            let mut sim = sim(11, calm, Load::Normal);
            let forked = (round % 2) as usize;
            sim.entropy[1 - forked] = SeededEntropy::new(1_000 * (begins as u64 + 1) + round);
            sim.step(begins, Input::Wanted);
            for rekey in 1..4 {
                sim.run(Nanos::from_secs(121 * rekey), [None, None]);
                for node in &mut sim.nodes {
                    let keys = node.keys.as_mut().expect("up");
                    assert_eq!(keys.sealers.len(), 3);
                    for sealer in &mut keys.sealers {
                        for _ in 0..50 {
                            let mut packet = [0; 32 + SEALED_OVERHEAD_BYTES];
                            sealer.seal(sim.now, Sealed::Data, &mut packet).expect("sealed");
                            streams.insert(packet[8..40].to_vec());
                            sealed += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(streams.len(), sealed);
}
