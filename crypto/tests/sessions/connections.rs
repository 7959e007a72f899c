//! Sessions of connections: handshakes by PeerId, and the times and hellos of connections.

use crate::sim::{Impairment, LOSSY, Sim, offer, sim, up};
use strowger_crypto::aead::Provider;
use strowger_crypto::handshake::{
    CookieChecker, FieldBytes, LISTS_BYTES_MAX, Load, ProtocolBytes, TooLong,
};
use strowger_crypto::session::{Input, Session, SessionConfig, SessionTimes};
use strowger_crypto::{
    Domain, Identity, IdentityKey, LocalIdentity, Nanos, NetworkId, Psk, SeededEntropy,
    StaticPublic,
};
use strowger_wire::link_header::{LinkHeader, Step};

const CALM: Impairment = Impairment { lost_per_mille: 0, doubled_per_mille: 0, delay_ms: (10, 20) };
const DEAD: Impairment =
    Impairment { lost_per_mille: 1000, doubled_per_mille: 0, delay_ms: (1, 20) };

fn session(peer: Option<StaticPublic>, identity: Option<Identity>) -> Session {
    Session::new(SessionConfig {
        peer,
        identity,
        psk: Psk::NONE,
        offer: offer(),
        provider: Provider::DEFAULT,
        wall_at_zero: 1_700_000_000_000_000_000,
        times: &SessionTimes::CONNECTION,
    })
}

/// Two ends of a connection that know only each other's identity.
fn connection(seed: u64, impairment: Impairment, load: Load) -> Sim {
    let mut sim = sim(seed, impairment, load);
    let mut entropy = SeededEntropy::new(seed ^ 0xc0);
    let network = NetworkId::new(b"connections").expect("short");
    for node in &mut sim.nodes {
        let key = IdentityKey::generate(&mut entropy).expect("seeded");
        node.local = LocalIdentity::for_connections(&key, network);
        node.checker = CookieChecker::new(&node.local, Nanos::ZERO, &mut entropy).expect("seeded");
    }
    let identities = [0, 1].map(|at: usize| *sim.nodes[1 - at].local.identity());
    for (node, identity) in sim.nodes.iter_mut().zip(identities) {
        node.session = session(None, Some(identity));
    }
    sim
}

fn step_of(message: &[u8]) -> Option<Step> {
    Step::from_lane(LinkHeader::parse(message).expect("a message").lane)
}

/// wire.md: W6-10, W6-24, W6-122.
#[test]
fn sessions_connect_by_peer_id_and_renew_their_keys_by_static_key() {
    for load in [Load::Normal, Load::Heavy] {
        let mut sim = connection(1, CALM, load);
        up(&mut sim, [true, false]);
        assert!(sim.begun.iter().any(|(_, _, message)| step_of(message) == Some(Step::Discover)));
        assert_eq!(sim.nodes[1].cookies > 0, load == Load::Heavy);
        sim.begun.clear();
        let second = Some(Nanos::from_secs(1));
        sim.run(sim.now.plus(Nanos::from_secs(600)), [second, second]);
        assert!(sim.nodes[0].rekeys > 3);
        let known =
            |(_, _, message): &(Nanos, usize, Vec<u8>)| step_of(message) == Some(Step::Known);
        assert!(sim.begun.iter().all(known), "an initiation by another way");
        sim.check(1);
        for at in 0..2 {
            let keys = sim.nodes[at].keys.as_ref().expect("up");
            assert_eq!(keys.peer.identity, *sim.nodes[1 - at].local.identity());
            assert!(keys.exporter.is_some());
        }
    }
}

/// wire.md: W6-10.
#[test]
fn both_ends_may_connect_at_once_over_a_lossy_path() {
    for seed in 0..20 {
        let mut sim = connection(seed, LOSSY, Load::Normal);
        up(&mut sim, [true, true]);
        let (delivered, second) = (sim.delivered, Nanos::from_secs(1));
        sim.run(sim.now.plus(Nanos::from_secs(30)), [Some(second), Some(second)]);
        assert!(sim.delivered > delivered + 20, "seed {seed}");
    }
}

/// wire.md: W6-15.
#[test]
fn the_first_interval_depends_on_the_duration_of_the_last_handshake() {
    for (one_way_ms, bounds_ms) in [(50, 400..=500), (500, 1_450..=1_950), (2_000, 3_000..=3_750)] {
        let delay = Impairment { delay_ms: (one_way_ms - 5, one_way_ms + 5), ..CALM };
        let mut sim = connection(7, delay, Load::Normal);
        sim.step(0, Input::Wanted);
        sim.run(Nanos::from_secs(30), [None, None]);
        assert!(sim.nodes[0].session.is_up());
        sim.begun.clear();
        sim.impairment = DEAD;
        sim.step(0, Input::Lost);
        sim.run(sim.now.plus(Nanos::from_secs(20)), [None, None]);
        let at: Vec<u64> = sim.begun.iter().map(|(at, ..)| at.0 / 1_000_000).collect();
        assert!(bounds_ms.contains(&(at[1] - at[0])), "{one_way_ms}: {at:?}");
    }
}

/// wire.md: W6-15, W6-123.
#[test]
fn attempts_of_a_connection_double_from_two_fifths_of_a_second_to_eight_seconds() {
    for seed in 0..20 {
        let mut sim = connection(seed, DEAD, Load::Normal);
        sim.step(0, Input::Wanted);
        sim.run(Nanos::from_secs(120), [None, None]);
        let at: Vec<u64> = sim.begun.iter().map(|(at, ..)| at.0 / 1_000_000).collect();
        let pauses: Vec<u64> = at.windows(2).map(|two| two[1] - two[0]).collect();
        let bases = [400, 800, 1_600, 3_200].into_iter().chain(core::iter::repeat(6_400));
        for (pause, base) in pauses.iter().zip(bases) {
            assert!((base..=base + base / 4).contains(pause), "{pause} ms in place of {base}");
        }
        assert!(pauses.len() > 15);
    }
}

#[test]
fn a_session_of_a_link_is_not_changed_by_the_times_of_connections() {
    let mut link = sim(3, DEAD, Load::Normal);
    link.step(0, Input::Wanted);
    link.run(Nanos::from_secs(20), [None, None]);
    let first = link.begun[1].0.0 - link.begun[0].0.0;
    assert!((1_000_000_000..=1_333_333_334).contains(&first));
    assert_eq!(link.nodes[0].local.domain(), Domain::Link);
    link.impairment = CALM;
    up(&mut link, [true, false]);
    assert!(link.nodes[0].keys.as_ref().expect("up").exporter.is_none());
}

/// wire.md: W6-11.
#[test]
fn a_wrong_identity_does_not_end_an_attempt_by_peer_id() {
    let mut sim = connection(4, CALM, Load::Normal);
    let mut entropy = SeededEntropy::new(99);
    let other = IdentityKey::generate(&mut entropy).expect("seeded").public();
    sim.nodes[0].session = session(None, Some(other));
    sim.step(0, Input::Wanted);
    // Node 1 has another PeerId, so it does not answer.
    let message = sim.begun[0].2.clone();
    let admission = sim.nodes[1].checker.admit(b"source", &message, Load::Normal);
    assert!(admission.is_err());
    assert!(!sim.nodes[0].session.is_up());
}

/// wire.md: W6-10, W6-122.
#[test]
fn a_session_by_label_alone_asks_for_the_identity_that_it_found() {
    let mut sim = connection(5, CALM, Load::Normal);
    let node = &mut sim.nodes[1];
    node.checker.accept_without_peer_id(&node.local);
    sim.nodes[0].session = session(None, None);
    up(&mut sim, [true, false]);
    let first = sim.begun[0].2.clone();
    let checker = CookieChecker::new(&sim.nodes[1].local, Nanos::ZERO, &mut SeededEntropy::new(1));
    let strict = checker.expect("seeded");
    assert!(strict.admit(b"source", &first, Load::Normal).is_err(), "by label alone");
    // The peer loses its state: half of the attempts use XX, now by PeerId.
    sim.begun.clear();
    sim.impairment = DEAD;
    sim.step(0, Input::Lost);
    sim.run(sim.now.plus(Nanos::from_secs(60)), [None, None]);
    let discover =
        |(_, _, message): &&(Nanos, usize, Vec<u8>)| step_of(message) == Some(Step::Discover);
    let by_xx: Vec<_> = sim.begun.iter().filter(discover).collect();
    assert!(by_xx.len() > 2);
    for (_, _, message) in by_xx {
        assert!(strict.admit(b"source", message, Load::Normal).is_ok());
    }
}

/// wire.md: W6-17.
#[test]
fn table_and_fields_of_a_hello_reach_the_peer_and_can_change() {
    let mut sim = connection(6, CALM, Load::Normal);
    let lists = |table: &[u8], idle: u8| {
        let fields = FieldBytes::new(&[5, 0, 2, 0, idle]).expect("short");
        (ProtocolBytes::new(table).expect("short"), fields)
    };
    let (table, fields) = lists(b"\0\x02/a", 30);
    let initiator = &mut sim.nodes[0].session;
    initiator.set_hello(table.clone(), fields.clone()).expect("fits");
    let most = FieldBytes::new(&[0; LISTS_BYTES_MAX]).expect("short");
    assert_eq!(initiator.set_hello(table.clone(), most), Err(TooLong));
    up(&mut sim, [true, false]);
    let keys = sim.nodes[1].keys.as_ref().expect("up");
    assert_eq!((&keys.their_offer.protocols, &keys.their_offer.fields), (&table, &fields));
    assert!(keys.their_timestamp.0 >= 1_700_000_000_000_000_000);
    // The next handshake carries the new ones, in both directions.
    let (table_0, fields_0) = lists(b"\0\x02/a\0\x02/b", 40);
    let (table_1, fields_1) = lists(b"\0\x02/c", 50);
    sim.nodes[0].session.set_hello(table_0.clone(), fields_0.clone()).expect("fits");
    sim.nodes[1].session.set_hello(table_1.clone(), fields_1.clone()).expect("fits");
    sim.step(0, Input::RekeyDue);
    sim.run(sim.now.plus(Nanos::from_secs(10)), [None, None]);
    for (at, table, fields) in [(1, table_0, fields_0), (0, table_1, fields_1)] {
        let their = &sim.nodes[at].keys.as_ref().expect("up").their_offer;
        assert_eq!((&their.protocols, &their.fields), (&table, &fields));
    }
    let responder = sim.nodes[0].keys.as_ref().expect("up").their_timestamp;
    assert_eq!(responder.0, 0, "a responder states no time");
}

#[test]
#[should_panic(expected = "keys would expire")]
fn times_that_let_keys_expire_during_a_handshake_are_refused() {
    static WRONG: SessionTimes =
        SessionTimes { rekey_after_as_responder: Nanos::from_secs(175), ..SessionTimes::LINK };
    let mut config = SessionConfig {
        peer: None,
        identity: None,
        psk: Psk::NONE,
        offer: offer(),
        provider: Provider::DEFAULT,
        wall_at_zero: 0,
        times: &SessionTimes::LINK,
    };
    config.times = &WRONG;
    let _ = Session::new(config);
}
