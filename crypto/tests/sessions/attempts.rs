//! Handshake attempts under long round trips, foreign responses and replayed initiations.

use std::cmp::Reverse;

use crate::sim::{Impairment, Sim, discovering, offer, sim};
use strowger_crypto::aead::Provider;
use strowger_crypto::handshake::{Admission, CookieChecker, Load, Refused, xx};
use strowger_crypto::session::{Input, Session, SessionConfig, SessionTimes};
use strowger_crypto::{Identity, IdentityKey, LocalIdentity, Nanos, NetworkId, Psk, SeededEntropy};

const SECOND: Option<Nanos> = Some(Nanos::from_secs(1));

/// A path with this round trip, plus or minus 20 ms.
fn path(round_trip_ms: u64) -> Impairment {
    let one_way = round_trip_ms / 2;
    Impairment { lost_per_mille: 0, doubled_per_mille: 0, delay_ms: (one_way - 10, one_way + 10) }
}

const DEAD: Impairment =
    Impairment { lost_per_mille: 1_000, doubled_per_mille: 0, delay_ms: (1, 20) };

/// Runs until both ends have keys; returns the time.
fn until_up(sim: &mut Sim, within: Nanos) -> Option<Nanos> {
    while sim.now < within {
        sim.run(sim.now.plus(Nanos::from_millis(100)), [None, None]);
        if sim.nodes.iter().all(|node| node.session.is_up()) {
            return Some(sim.now);
        }
    }
    None
}

/// wire.md: W4-10, W4-11, W4-104.
#[test]
fn a_link_comes_and_stays_up_at_round_trips_up_to_eight_seconds() {
    for wants in [[true, false], [true, true]] {
        for round_trip_ms in [200, 1_000, 1_300, 1_600, 2_000, 3_000, 4_000, 6_000, 8_000] {
            for seed in 60..63 {
                let mut sim = sim(seed, path(round_trip_ms), Load::Normal);
                for (at, _) in wants.iter().enumerate().filter(|(_, wants)| **wants) {
                    sim.step(at, Input::Wanted);
                }
                let name = format!("seed {seed}, {round_trip_ms} ms, {wants:?}");
                // One round trip for the keys, half of one for the confirmation, and some attempts
                // whose responses came too late.
                let within = Nanos::from_millis(5 * round_trip_ms / 2 + 1_000);
                assert!(until_up(&mut sim, within).is_some(), "{name}: no link");
                sim.run(sim.now.plus(Nanos::from_secs(20)), [None, None]);
                let (rekeys, refused) = (sim.nodes[0].rekeys, sim.seal_refused);
                sim.run(sim.now.plus(Nanos::from_secs(1_000)), [SECOND, SECOND]);
                assert_eq!(sim.seal_refused, refused, "{name}: the link went down");
                sim.check(seed);
                assert!((6..=10).contains(&(sim.nodes[0].rekeys - rekeys)), "{name}");
            }
        }
    }
}

/// wire.md: W4-11, W4-82, W4-83.
#[test]
fn retries_back_off_with_jitter() {
    let mut times = Vec::new();
    for seed in [70, 71] {
        let mut sim = sim(seed, DEAD, Load::Normal);
        sim.step(0, Input::Wanted);
        sim.run(Nanos::from_secs(3_600), [None, None]);
        let at: Vec<u64> = sim.begun.iter().map(|(at, ..)| at.0).collect();
        let gaps: Vec<u64> = at.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).collect();
        assert!(gaps[..3].iter().all(|gap| (1_000..1_334).contains(gap)), "{gaps:?}");
        assert!(gaps[3..6].iter().all(|gap| (2_000..2_667).contains(gap)), "{gaps:?}");
        assert!(gaps[6..9].iter().all(|gap| (4_000..5_334).contains(gap)), "{gaps:?}");
        assert!(gaps[12..].iter().all(|gap| (12_000..16_000).contains(gap)), "{gaps:?}");
        times.push(at);
    }
    let [one, other] = times.try_into().expect("two");
    let is_near = |at: &u64| other.iter().any(|other| at.abs_diff(*other) < 100_000_000);
    let near = one[20..].iter().filter(|at| is_near(at)).count();
    assert!(near < one.len() / 10, "{near} of {} in step", one.len());
}

/// A third node, which answers every message that reaches it.
fn third_party() -> (LocalIdentity, CookieChecker) {
    let mut entropy = SeededEntropy::new(0x1d);
    let network = NetworkId::new(b"rekey").expect("short");
    let local = LocalIdentity::new(&IdentityKey::generate(&mut entropy).expect("seeded"), network);
    let checker = CookieChecker::new(&local, Nanos::ZERO, &mut entropy).expect("seeded");
    (local, checker)
}

/// The third node's response to the last initiation of node 0.
fn foreign_answer(sim: &Sim, third: &(LocalIdentity, CookieChecker)) -> Vec<u8> {
    let (local, checker) = third;
    let (_, _, first) = sim.begun.last().expect("an initiation");
    let Ok(Admission::Admitted(admitted)) = checker.admit(b"source", first, Load::Normal) else {
        panic!("an honest first message");
    };
    xx::answer(checker, local, &offer(), b"source", &admitted).expect("an honest first message")
}

/// wire.md: W4-88, W4-95.
#[test]
fn a_foreign_xx_response_leaves_the_attempt_waiting() {
    let third = third_party();
    for taken in [false, true] {
        let mut sim = sim(80, path(600), Load::Normal);
        let right: Identity = *sim.nodes[1].local.identity();
        // Either another identity is configured, or the answering key belongs to another peer.
        sim.nodes[0].session = discovering(&sim, 0, (!taken).then_some(right));
        sim.step(0, Input::Wanted);
        for _ in 0..3 {
            let answer = foreign_answer(&sim, &third);
            sim.taken = taken;
            let mut why = None;
            sim.with_session(0, |session, context, outputs| {
                why = session.handle(context, Input::Message(&answer), outputs).err();
            });
            let why = why.expect("refused").to_string();
            let who = Refused::OtherIdentity(third.0.identity().peer_id()).to_string();
            let expected = if taken { Refused::OtherPeer.to_string() } else { who };
            assert!(why.contains(&expected), "{why}");
        }
        sim.taken = false;
        assert!(until_up(&mut sim, Nanos::from_secs(2)).is_some(), "the right response was lost");
        assert_eq!(sim.nodes[0].session.peer(), Some(sim.nodes[1].local.static_public()));
        // Node 0 sends the first message and the third.
        let messages = sim.nodes[0].attempts;
        assert!(messages <= 3, "{messages} messages: a second attempt started");
    }
}

/// wire.md: W4-88.
#[test]
fn a_foreign_xx_response_pins_no_identity_and_delays_nothing() {
    let third = third_party();
    let mut sim = sim(81, DEAD, Load::Normal);
    let right: Identity = *sim.nodes[1].local.identity();
    sim.nodes[0].session = discovering(&sim, 0, Some(right));
    sim.step(0, Input::Wanted);
    // The third node answers every attempt immediately, and the right peer does not answer.
    let end = Nanos::from_secs(60);
    while sim.now < end {
        let answer = foreign_answer(&sim, &third);
        sim.step(0, Input::Message(&answer));
        sim.run(sim.now.plus(Nanos::from_millis(500)), [None, None]);
    }
    let attempts = sim.nodes[0].attempts;
    assert!((11..=14).contains(&attempts), "{attempts} attempts");
    sim.impairment = path(20);
    let within = sim.now.plus(Nanos::from_secs(17));
    assert!(until_up(&mut sim, within).is_some());
}

/// wire.md: W4-84.
#[test]
fn replayed_initiations_neither_delay_nor_end_attempts_of_a_restarted_node() {
    let mut sim = sim(90, DEAD, Load::Normal);
    sim.step(0, Input::Wanted);
    sim.run(Nanos::from_secs(600), [None, None]);
    let recorded: Vec<Vec<u8>> = sim.begun.drain(..).map(|(.., message)| message).collect();
    assert!(recorded.len() > 40);
    // From now on node 0 is idle, so node 1 has to initiate. Node 1 has lost all state.
    sim.step(0, Input::Unwanted);
    sim.nodes[1].session = Session::new(SessionConfig {
        peer: Some(*sim.nodes[0].local.static_public()),
        identity: None,
        psk: Psk::from_bytes([4; 32]),
        offer: offer(),
        provider: Provider::DEFAULT,
        wall_at_zero: 1_700_000_000_000_000_000,
        times: &SessionTimes::LINK,
    });
    sim.impairment = path(600);
    let began = sim.now;
    // Node 1 has not seen these timestamps, so it accepts each message. One arrives every 250 ms,
    // before and after node 1 initiates.
    for (number, message) in (0..).zip(&recorded) {
        let at = began.plus(Nanos::from_millis(250 * number));
        sim.queue.push(Reverse((at, u64::MAX - 1_000 + number, 1, message.clone())));
    }
    sim.run(began.plus(Nanos::from_millis(1_100)), [None, None]);
    sim.step(1, Input::Wanted);
    let up = until_up(&mut sim, began.plus(Nanos::from_secs(9)));
    let attempts = sim.nodes[1].attempts;
    let within = began.plus(Nanos::from_millis(1_100 + 900 + 200));
    assert!(up.is_some_and(|up| up <= within), "up at {up:?} of {within:?}, {attempts} attempts");
    assert_eq!(attempts, 1, "the first attempt was answered");
    sim.run(sim.now.plus(Nanos::from_secs(400)), [SECOND, SECOND]);
    assert_eq!(sim.seal_refused, 0);
    assert!(sim.nodes.iter().all(|node| node.expired == 0), "the link went down");
}

/// wire.md: W4-84, W4-104.
#[test]
fn replayed_initiations_do_not_delay_a_rekey() {
    let mut sim = sim(91, DEAD, Load::Normal);
    sim.step(0, Input::Wanted);
    sim.run(Nanos::from_secs(600), [None, None]);
    let recorded: Vec<Vec<u8>> = sim.begun.drain(..).map(|(.., message)| message).collect();
    sim.step(0, Input::Unwanted);
    sim.run(sim.now.plus(Nanos::from_secs(30)), [None, None]);
    // Node 1 initiates, so when the link comes up it has seen no timestamp of node 0.
    sim.impairment = path(400);
    sim.step(1, Input::Wanted);
    let within = sim.now.plus(Nanos::from_secs(5));
    let up = until_up(&mut sim, within).expect("a link");
    let until_renewed = up.plus(Nanos::from_secs(118));
    for (number, message) in (0..).zip(&recorded) {
        let at = until_renewed.plus(Nanos::from_millis(1_500 * number));
        sim.queue.push(Reverse((at, u64::MAX - 1_000 + number, 1, message.clone())));
    }
    let before = sim.nodes[1].rekeys;
    sim.run(up.plus(Nanos::from_secs(123)), [SECOND, SECOND]);
    assert_eq!(sim.nodes[1].rekeys, before + 1, "rekeyed on time");
    sim.run(up.plus(Nanos::from_secs(300)), [SECOND, SECOND]);
    sim.check(91);
}

/// wire.md: W4-13, W4-86, W4-100.
#[test]
fn both_ends_keep_the_ik_keys_when_xx_and_ik_cross() {
    for round_trip_ms in [200, 800, 2_000] {
        for seed in 100..104 {
            let mut sim = sim(seed, path(round_trip_ms), Load::Normal);
            let right: Identity = *sim.nodes[1].local.identity();
            sim.nodes[0].session = discovering(&sim, 0, Some(right));
            sim.step(0, Input::Wanted);
            sim.step(1, Input::Wanted);
            let within = Nanos::from_millis(3 * round_trip_ms + 2_000);
            assert!(until_up(&mut sim, within).is_some(), "seed {seed}, {round_trip_ms} ms");
            sim.run(sim.now.plus(Nanos::from_secs(30)), [None, None]);
            sim.unknown_index = 0; // packets that arrived before their third message
            sim.run(sim.now.plus(Nanos::from_secs(600)), [SECOND, SECOND]);
            sim.check(seed);
        }
    }
}

/// wire.md: W4-13, W4-86, W4-100.
#[test]
fn both_ends_keep_the_ik_handshake_of_the_smaller_key_when_two_cross() {
    let mut both_answered = 0;
    for round_trip_ms in [4_000, 6_000, 8_000] {
        for seed in 110..116 {
            let mut sim = sim(seed, path(round_trip_ms), Load::Normal);
            sim.step(0, Input::Wanted);
            sim.step(1, Input::Wanted);
            let within = Nanos::from_millis(4 * round_trip_ms);
            assert!(until_up(&mut sim, within).is_some(), "seed {seed}, {round_trip_ms} ms");
            sim.run(sim.now.plus(Nanos::from_secs(30)), [None, None]);
            both_answered += u32::from(sim.nodes.iter().all(|node| node.answers > 0));
            let [one, other] = sim.nodes.each_ref().map(|node| *node.local.static_public());
            let smaller = usize::from(one > other);
            let began = [smaller, 1 - smaller].map(|at| {
                let own = sim.nodes[at].keys.as_ref().expect("a link").index;
                sim.begun.iter().any(|(_, by, message)| {
                    *by == at && message[5..8] == own.number().to_be_bytes()[1..]
                })
            });
            assert_eq!(began, [true, false], "seed {seed}, {round_trip_ms} ms");
        }
    }
    assert!(both_answered > 5, "{both_answered} of 18 crossed");
}
