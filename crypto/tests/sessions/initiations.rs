//! The initiations of a session, as the wire shows them: their kinds, timestamps, cookies and
//! third messages.

use crate::sim::{Impairment, Sim, discovering, offer, sim};
use strowger_crypto::Nanos;
use strowger_crypto::handshake::{
    Admission, Admitted, HandshakeError, Load, Refused, TimestampGuard, ik, xx,
};
use strowger_crypto::session::Input;
use strowger_wire::hello::Timestamp;

const CALM: Impairment = Impairment { lost_per_mille: 0, doubled_per_mille: 0, delay_ms: (10, 20) };
const DEAD: Impairment =
    Impairment { lost_per_mille: 1_000, doubled_per_mille: 0, delay_ms: (10, 20) };

/// The first byte of each kind of initiation.
const IK: u8 = 0x10;
const XX: u8 = 0x11;
const XX_THIRD: u8 = 0x12;

/// `wall_at_zero` of the sessions in the simulation.
const WALL_AT_ZERO: u64 = 1_700_000_000_000_000_000;

fn kinds(sim: &Sim, from: usize) -> Vec<u8> {
    sim.begun.iter().filter(|(_, by, _)| *by == from).map(|(.., message)| message[0]).collect()
}

fn admitted<'m>(sim: &Sim, at: usize, message: &'m [u8], load: Load) -> Option<Admitted<'m>> {
    match sim.nodes[at].checker.admit(b"source", message, load) {
        Ok(Admission::Admitted(admitted)) => Some(admitted),
        Ok(Admission::CookieReply(_)) => None,
        Err(why) => panic!("an honest initiation: {why}"),
    }
}

/// The answer of node 1 to a first message of XX.
fn answer(sim: &Sim, first: &[u8]) -> Vec<u8> {
    let node = &sim.nodes[1];
    let admitted = admitted(sim, 1, first, Load::Normal).expect("no load");
    xx::answer(&node.checker, &node.local, &offer(), b"source", &admitted).expect("honest")
}

/// wire.md: W4-1.
#[test]
fn a_session_begins_ik_with_a_known_key_and_xx_without() {
    let mut sim = sim(1, DEAD, Load::Normal);
    sim.step(0, Input::Wanted);
    assert_eq!(kinds(&sim, 0), [IK]);
    sim.nodes[1].session = discovering(&sim, 1, None);
    sim.step(1, Input::Wanted);
    assert_eq!(kinds(&sim, 1), [XX]);
}

/// wire.md: W4-8.
#[test]
fn a_discovered_peer_is_rekeyed_by_ik_and_sought_by_xx_and_ik_in_turn() {
    let mut sim = sim(2, CALM, Load::Normal);
    sim.nodes[0].session = discovering(&sim, 0, None);
    sim.step(0, Input::Wanted);
    sim.run(Nanos::from_secs(10), [None, None]);
    assert_eq!(kinds(&sim, 0), [XX, XX_THIRD]);
    sim.begun.clear();
    sim.run(Nanos::from_secs(125), [None, None]);
    assert!(kinds(&sim, 0).iter().all(|kind| *kind == IK) && !sim.begun.is_empty());
    sim.begun.clear();
    sim.impairment = DEAD;
    sim.step(0, Input::Lost);
    sim.run(sim.now.plus(Nanos::from_secs(60)), [None, None]);
    let sought = kinds(&sim, 0);
    assert!(sought.len() > 6 && sought.windows(2).all(|pair| pair[0] != pair[1]), "{sought:?}");
    assert!(sought.iter().all(|kind| [IK, XX].contains(kind)), "{sought:?}");
}

/// wire.md: W4-8, W4-70.
#[test]
fn a_peer_with_a_configured_key_is_never_sought_by_xx() {
    let mut sim = sim(8, CALM, Load::Normal);
    sim.step(0, Input::Wanted);
    sim.run(Nanos::from_secs(10), [None, None]);
    sim.impairment = DEAD;
    sim.step(0, Input::Lost);
    // Silence, then keys that seal no more, then no keys.
    sim.run(Nanos::from_secs(600), [None, None]);
    let kinds = kinds(&sim, 0);
    assert!(kinds.len() > 40 && kinds.iter().all(|kind| *kind == IK), "{kinds:?}");
}

/// wire.md: W4-55, W4-71, W4-80.
#[test]
fn timestamps_only_grow_even_if_the_clock_does_not() {
    let mut sim = sim(3, DEAD, Load::Normal);
    sim.step(0, Input::Wanted);
    sim.run(Nanos::from_secs(100), [None, None]);
    // The session starts again twice at one time, and then with a clock that was set back.
    for back in [0, 0, 50] {
        sim.now = Nanos(sim.now.0 - back * 1_000_000_000);
        sim.with_session(0, |session, context, outputs| {
            session.advance_wall_clock(0);
            session.reset();
            session.handle(context, Input::Tick, outputs).expect("begun");
        });
    }
    sim.run(sim.now.plus(Nanos::from_secs(20)), [None, None]);
    let mut last = None;
    let mut ephemeral = std::collections::HashSet::new();
    let mut indices = std::collections::HashSet::new();
    for (at, _, message) in &sim.begun {
        let admitted = admitted(&sim, 1, message, Load::Normal).expect("no load");
        let read = ik::read(&sim.nodes[1].local, &admitted).expect("honest");
        assert!(last < Some(read.timestamp()), "{last:?} {:?}", read.timestamp());
        if last.is_none() {
            assert_eq!(read.timestamp(), Timestamp(WALL_AT_ZERO + at.0));
        }
        last = Some(read.timestamp());
        assert!(ephemeral.insert(message[8..40].to_vec()));
        assert!(indices.insert(message[4..8].to_vec()));
    }
    assert!(sim.begun.len() > 15);
}

/// wire.md: W4-55, W4-16.
#[test]
fn a_third_message_has_a_new_timestamp() {
    let mut sim = sim(4, DEAD, Load::Normal);
    sim.nodes[0].session = discovering(&sim, 0, None);
    sim.step(0, Input::Wanted);
    sim.run(Nanos::from_secs(2), [None, None]);
    assert_eq!(kinds(&sim, 0), [XX, XX]);
    let late = answer(&sim, &sim.begun[0].2);
    sim.step(0, Input::Message(&late));
    assert_eq!(kinds(&sim, 0), [XX, XX, XX_THIRD]);
    let admitted = admitted(&sim, 1, &sim.begun[2].2, Load::Normal).expect("no load");
    let node = &sim.nodes[1];
    let finish = xx::read_finish(&node.checker, &node.local, &offer(), b"source", &admitted);
    // The peer may have accepted an initiation with the timestamp of any attempt.
    let second = Timestamp(WALL_AT_ZERO + sim.begun[1].0.0);
    let mut guard = TimestampGuard { newest: Some(second) };
    finish.expect("honest").accept(&mut sim.nodes[1].checker, &mut guard).expect("accepted");
    assert_eq!(guard.newest, Some(Timestamp(WALL_AT_ZERO + sim.now.0)));
}

/// wire.md: W4-16.
#[test]
fn a_refused_initiation_does_not_change_the_greatest_timestamp() {
    let mut sim = sim(7, DEAD, Load::Normal);
    let third = *sim.nodes[0].local.identity();
    // Node 1 expects an identity that node 0 does not have.
    let wrong = *sim.nodes[1].local.identity();
    assert_ne!(third, wrong);
    sim.nodes[1].session = discovering(&sim, 1, Some(wrong));
    sim.step(0, Input::Wanted);
    let message = sim.begun[0].2.clone();
    sim.receive(1, message);
    assert_eq!(sim.nodes[1].answers, 0, "refused");
    assert_eq!(sim.nodes[1].session.guard(), TimestampGuard::default());
}

/// wire.md: W4-6.
#[test]
fn a_third_message_is_repeated_with_each_confirmation_until_the_responder_answers() {
    for is_answered in [false, true] {
        let mut sim = sim(5, DEAD, Load::Normal);
        sim.nodes[0].session = discovering(&sim, 0, None);
        sim.step(0, Input::Wanted);
        let response = answer(&sim, &sim.begun[0].2);
        sim.step(0, Input::Message(&response));
        let keys = sim.nodes[0].keys.as_ref().expect("the initiator has the keys");
        assert!(!keys.confirmed, "the link is not up yet");
        let index = keys.index;
        sim.run(Nanos::from_millis(2_500), [None, None]);
        let thirds = |sim: &Sim| {
            let all: Vec<_> = sim.begun.iter().filter(|(.., m)| m[0] == XX_THIRD).collect();
            assert!(all.iter().all(|(.., message)| *message == all[0].2), "other bytes");
            all.len()
        };
        assert_eq!(thirds(&sim), 3, "at once, and after 1.2 s and 2.2 s");
        if is_answered {
            sim.step(0, Input::Opened(index));
        }
        sim.run(Nanos::from_millis(4_500), [None, None]);
        assert_eq!(thirds(&sim), if is_answered { 3 } else { 5 });
    }
}

/// wire.md: W4-77, W4-78.
#[test]
fn a_cookie_is_used_from_the_next_initiation_on_for_two_minutes() {
    let mut sim = sim(6, DEAD, Load::Normal);
    sim.step(0, Input::Wanted);
    let first = sim.begun[0].2.clone();
    let Ok(Admission::CookieReply(reply)) =
        sim.nodes[1].checker.admit(b"source", &first, Load::Heavy)
    else {
        panic!("no cookie under load");
    };
    let take = |sim: &mut Sim, reply: &[u8]| {
        let mut taken = Ok(());
        sim.with_session(0, |session, context, outputs| {
            taken = session.handle(context, Input::Message(reply), outputs);
            assert!(outputs.is_empty(), "nothing is sent at once");
        });
        taken
    };
    let due = sim.nodes[0].session.next_timeout();
    let refused = |why| Err(HandshakeError::Peer(why));
    for (place, why) in [(0, Refused::NotOurs), (3, Refused::NotOurs), (63, Refused::Unreadable)] {
        let mut forged = reply;
        forged[place] ^= 1;
        assert_eq!(take(&mut sim, &forged), refused(why), "byte {place}");
    }
    assert_eq!(take(&mut sim, &reply), Ok(()));
    assert_eq!(take(&mut sim, &reply), Ok(()), "the attempt is still pending");
    assert_eq!(sim.nodes[0].session.next_timeout(), due);
    sim.run(Nanos::from_secs(300), [None, None]);
    let end = Nanos::from_secs(120);
    let (with, without): (Vec<_>, Vec<_>) = sim.begun[1..].iter().partition(|(at, ..)| *at < end);
    assert!(with.len() > 6 && without.len() > 6);
    for (at, _, message) in with {
        assert!(admitted(&sim, 1, message, Load::Heavy).is_some(), "at {at:?}");
    }
    for (at, _, message) in without {
        assert_eq!(message[880..], [0; 16], "at {at:?}");
    }
    assert_eq!(take(&mut sim, &reply), refused(Refused::NotOurs), "its attempt is over");
}

/// wire.md: W4-7.
#[test]
fn of_two_handshakes_of_xx_that_of_the_smaller_static_key_goes_on() {
    for seed in 30..40 {
        let mut sim = sim(seed, CALM, Load::Normal);
        for at in 0..2 {
            let other = *sim.nodes[1 - at].local.identity();
            sim.nodes[at].session = discovering(&sim, at, Some(other));
        }
        sim.step(0, Input::Wanted);
        sim.step(1, Input::Wanted);
        sim.run(Nanos::from_secs(10), [None, None]);
        let [one, other] = sim.nodes.each_ref().map(|node| *node.local.static_public());
        let smaller = usize::from(one > other);
        for at in 0..2 {
            assert_eq!(kinds(&sim, at)[..2], [XX, XX_THIRD], "seed {seed}: both have begun");
            let mut own = sim.begun.iter().filter(|(_, by, _)| *by == at);
            let first = &own.next().expect("begun").2;
            let index = sim.nodes[at].keys.as_ref().expect("a link").index.number();
            let is_own = first[4..8] == index.to_be_bytes();
            assert_eq!(is_own, at == smaller, "seed {seed}: node {at}");
        }
    }
}
