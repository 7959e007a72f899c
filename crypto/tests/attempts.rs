//! Attempts at a handshake: long round trips, answers by others, recorded initiations. Virtual time and seeds.

mod world;

use std::cmp::Reverse;

use strowger_crypto::aead::Provider;
use strowger_crypto::handshake::{Admission, CookieChecker, Load, Refused, xx};
use strowger_crypto::session::{Input, Session, SessionConfig};
use strowger_crypto::{Identity, IdentityKey, LocalIdentity, Nanos, NetworkId, Psk, SeededEntropy};
use world::{Weather, World, discovering, offer, world};

const SECOND: Option<Nanos> = Some(Nanos::from_secs(1));

/// A path whose round trip takes this long, give or take 20 ms.
fn path(round_trip_ms: u64) -> Weather {
    let one_way = round_trip_ms / 2;
    Weather { lost_per_mille: 0, doubled_per_mille: 0, delay_ms: (one_way - 10, one_way + 10) }
}

const DEAD: Weather = Weather { lost_per_mille: 1_000, doubled_per_mille: 0, delay_ms: (1, 20) };

/// Runs until both ends have keys; when that was.
fn until_up(world: &mut World, within: Nanos) -> Option<Nanos> {
    while world.now < within {
        world.run(world.now.plus(Nanos::from_millis(100)), [None, None]);
        if world.nodes.iter().all(|node| node.session.is_up()) {
            return Some(world.now);
        }
    }
    None
}

#[test]
fn a_link_comes_up_and_stays_up_at_any_round_trip_up_to_eight_seconds() {
    for wants in [[true, false], [true, true]] {
        for round_trip_ms in [200, 1_000, 1_300, 1_600, 2_000, 3_000, 4_000, 6_000, 8_000] {
            for seed in 60..63 {
                let mut world = world(seed, path(round_trip_ms), Load::Normal);
                for (at, _) in wants.iter().enumerate().filter(|(_, wants)| **wants) {
                    world.step(at, Input::Wanted);
                }
                let name = format!("seed {seed}, {round_trip_ms} ms, {wants:?}");
                // One round trip for the keys, half of one for the confirmation, and some attempts
                // whose answers came too late.
                let within = Nanos::from_millis(5 * round_trip_ms / 2 + 1_000);
                assert!(until_up(&mut world, within).is_some(), "{name}: no link");
                world.run(world.now.plus(Nanos::from_secs(20)), [None, None]);
                let (rekeys, refused) = (world.nodes[0].rekeys, world.seal_refused);
                world.run(world.now.plus(Nanos::from_secs(1_000)), [SECOND, SECOND]);
                assert_eq!(world.seal_refused, refused, "{name}: the link fell");
                world.check(seed);
                assert!((6..=10).contains(&(world.nodes[0].rekeys - rekeys)), "{name}");
            }
        }
    }
}

#[test]
fn retries_back_off_and_two_nodes_do_not_retry_in_step() {
    let mut times = Vec::new();
    for seed in [70, 71] {
        let mut world = world(seed, DEAD, Load::Normal);
        world.step(0, Input::Wanted);
        world.run(Nanos::from_secs(3_600), [None, None]);
        let at: Vec<u64> = world.begun.iter().map(|(at, ..)| at.0).collect();
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

/// A third node, which answers whatever reaches it.
fn third_party() -> (LocalIdentity, CookieChecker) {
    let mut entropy = SeededEntropy::new(0x1d);
    let network = NetworkId::new(b"rekey").expect("short");
    let local = LocalIdentity::new(&IdentityKey::generate(&mut entropy).expect("seeded"), network);
    let checker = CookieChecker::new(&local, Nanos::ZERO, &mut entropy).expect("seeded");
    (local, checker)
}

/// What the third party says to the last initiation of node 0.
fn foreign_answer(world: &World, third: &(LocalIdentity, CookieChecker)) -> Vec<u8> {
    let (local, checker) = third;
    let (_, _, first) = world.begun.last().expect("an initiation");
    let Ok(Admission::Admitted(admitted)) = checker.admit(b"source", first, Load::Normal) else {
        panic!("an honest first message");
    };
    xx::answer(checker, local, &offer(), b"source", &admitted).expect("an honest first message")
}

#[test]
fn a_foreign_xx_answer_leaves_the_attempt_waiting_for_the_right_one() {
    let third = third_party();
    for taken in [false, true] {
        let mut world = world(80, path(600), Load::Normal);
        let right: Identity = *world.nodes[1].local.identity();
        // Either the identity is pinned, or the key that answers is another peer's.
        world.nodes[0].session = discovering(&world, 0, (!taken).then_some(right));
        world.step(0, Input::Wanted);
        for _ in 0..3 {
            let answer = foreign_answer(&world, &third);
            world.taken = taken;
            let mut why = None;
            world.with_session(0, |session, context, outputs| {
                why = session.handle(context, Input::Message(&answer), outputs).err();
            });
            let why = why.expect("refused").to_string();
            let who = Refused::OtherIdentity(third.0.identity().peer_id()).to_string();
            let expected = if taken { Refused::OtherPeer.to_string() } else { who };
            assert!(why.contains(&expected), "{why}");
        }
        world.taken = false;
        assert!(until_up(&mut world, Nanos::from_secs(2)).is_some(), "the right answer was lost");
        assert_eq!(world.nodes[0].session.peer(), Some(world.nodes[1].local.static_public()));
        // The first message, and the third.
        let messages = world.nodes[0].attempts;
        assert!(messages <= 3, "{messages} messages: the attempt was begun again");
    }
}

#[test]
fn a_foreign_xx_answer_pins_nobody_and_delays_nothing() {
    let third = third_party();
    let mut world = world(81, DEAD, Load::Normal);
    let right: Identity = *world.nodes[1].local.identity();
    world.nodes[0].session = discovering(&world, 0, Some(right));
    world.step(0, Input::Wanted);
    // The third party answers every attempt, at once, for as long as the right peer is away.
    let end = Nanos::from_secs(60);
    while world.now < end {
        let answer = foreign_answer(&world, &third);
        world.step(0, Input::Message(&answer));
        world.run(world.now.plus(Nanos::from_millis(500)), [None, None]);
    }
    let attempts = world.nodes[0].attempts;
    assert!((11..=14).contains(&attempts), "{attempts} attempts: the pace is that of any absence");
    world.weather = path(20);
    let within = world.now.plus(Nanos::from_secs(17));
    assert!(until_up(&mut world, within).is_some());
}

#[test]
fn recorded_initiations_defer_nothing_and_end_no_attempt_of_a_restarted_node() {
    let mut world = world(90, DEAD, Load::Normal);
    world.step(0, Input::Wanted);
    world.run(Nanos::from_secs(600), [None, None]);
    let recorded: Vec<Vec<u8>> = world.begun.drain(..).map(|(.., message)| message).collect();
    assert!(recorded.len() > 40);
    // Node 0 is quiet from now on, so that node 1 has to begin; node 1 has forgotten everything.
    world.step(0, Input::Unwanted);
    world.nodes[1].session = Session::new(SessionConfig {
        peer: Some(*world.nodes[0].local.static_public()),
        identity: None,
        psk: Psk::from_bytes([4; 32]),
        offer: offer(),
        provider: Provider::DEFAULT,
        wall_at_zero: 1_700_000_000_000_000_000,
    });
    world.weather = path(600);
    let began = world.now;
    // Each of them is new to it, so each is accepted: one every 250 ms, before and after it begins.
    for (number, message) in (0..).zip(&recorded) {
        let at = began.plus(Nanos::from_millis(250 * number));
        world.queue.push(Reverse((at, u64::MAX - 1_000 + number, 1, message.clone())));
    }
    world.run(began.plus(Nanos::from_millis(1_100)), [None, None]);
    world.step(1, Input::Wanted);
    let up = until_up(&mut world, began.plus(Nanos::from_secs(9)));
    let attempts = world.nodes[1].attempts;
    let within = began.plus(Nanos::from_millis(1_100 + 900 + 200));
    assert!(up.is_some_and(|up| up <= within), "up at {up:?} of {within:?}, {attempts} attempts");
    assert_eq!(attempts, 1, "answered at once");
    world.run(world.now.plus(Nanos::from_secs(400)), [SECOND, SECOND]);
    assert_eq!(world.seal_refused, 0);
    assert!(world.nodes.iter().all(|node| node.expired == 0), "the link went down");
}

#[test]
fn recorded_initiations_do_not_keep_running_keys_from_being_renewed() {
    let mut world = world(91, DEAD, Load::Normal);
    world.step(0, Input::Wanted);
    world.run(Nanos::from_secs(600), [None, None]);
    let recorded: Vec<Vec<u8>> = world.begun.drain(..).map(|(.., message)| message).collect();
    world.step(0, Input::Unwanted);
    world.run(world.now.plus(Nanos::from_secs(30)), [None, None]);
    // Node 1 begins, so it has seen no timestamp of node 0 yet when its keys are there.
    world.weather = path(400);
    world.step(1, Input::Wanted);
    let within = world.now.plus(Nanos::from_secs(5));
    let up = until_up(&mut world, within).expect("a link");
    let until_renewed = up.plus(Nanos::from_secs(118));
    for (number, message) in (0..).zip(&recorded) {
        let at = until_renewed.plus(Nanos::from_millis(1_500 * number));
        world.queue.push(Reverse((at, u64::MAX - 1_000 + number, 1, message.clone())));
    }
    let before = world.nodes[1].rekeys;
    world.run(up.plus(Nanos::from_secs(123)), [SECOND, SECOND]);
    assert_eq!(world.nodes[1].rekeys, before + 1, "renewed when it was due");
    world.run(up.plus(Nanos::from_secs(300)), [SECOND, SECOND]);
    world.check(91);
}

#[test]
fn where_xx_and_ik_cross_both_ends_stay_with_the_keys_of_ik() {
    for round_trip_ms in [200, 800, 2_000] {
        for seed in 100..104 {
            let mut world = world(seed, path(round_trip_ms), Load::Normal);
            let right: Identity = *world.nodes[1].local.identity();
            world.nodes[0].session = discovering(&world, 0, Some(right));
            world.step(0, Input::Wanted);
            world.step(1, Input::Wanted);
            let within = Nanos::from_millis(3 * round_trip_ms + 2_000);
            assert!(until_up(&mut world, within).is_some(), "seed {seed}, {round_trip_ms} ms");
            world.run(world.now.plus(Nanos::from_secs(30)), [None, None]);
            world.unknown_index = 0; // packets that came before their third message
            world.run(world.now.plus(Nanos::from_secs(600)), [SECOND, SECOND]);
            world.check(seed);
        }
    }
}
