//! R18: floods of packets without authentication.

use strowger_connection::{
    ListenOptions, Policy,
    crypto::{
        LocalIdentity, PeerId, SeededEntropy,
        handshake::{LocalParams, Offer, ik, xx},
    },
    wire::{hello::Timestamp, link_header::SessionIndex},
};

use crate::{
    traffic::Traffic,
    world::{MS, SECOND, World, key, network, packet_from, peer, seeds},
};

const NAME: &str = "/test/1";

/// Everyone may connect; the identity with the seed 3 is known.
struct KnowsThree;

impl Policy for KnowsThree {
    fn may_connect(&self, _: &PeerId) -> bool {
        true
    }

    fn is_known(&self, peer: &PeerId) -> bool {
        *peer == crate::world::peer(3)
    }
}

/// A first message of XX for the identity with this seed, with a right mac1.
fn first_message(
    attacker: &LocalIdentity,
    to: u8,
    entropy: &mut SeededEntropy,
    index: u32,
) -> Vec<u8> {
    let offer = Offer::default();
    let index = SessionIndex::new(index).unwrap();
    let ours = LocalParams { local: attacker, offer: &offer, index, timestamp: Timestamp(1) };
    xx::initiate_by_peer_id(&ours, &key(to).public(), None, entropy).unwrap().1
}

/// A flood of first messages with right macs, and of random bytes, at 2,000 packets a second. The
/// endpoint keeps no state for them, answers each at most once with no longer packet, and delivers
/// every message of its connection. A known peer can connect.
#[test]
fn r18_a_flood_of_initiations_leaves_no_state_and_no_gap_in_a_connection() {
    for seed in seeds(1) {
        let mut world = World::new(seed);
        world.three_switches();
        world.end(1, (0, 2));
        let policy = std::sync::Arc::new(KnowsThree);
        world.end_with(2, (2, 3), policy, false);
        let mut traffic = Traffic::default();
        let sink = world.sink((1, 5));
        world.listen(1, NAME, ListenOptions::new());
        let label = world.label(0, &[3, 3, 3]);
        let socket = world.connect(0, 1, label, NAME);
        traffic.send(&mut world, (0, 1), socket, NAME).unwrap();
        world.run(SECOND);
        assert!(world.is_connected(0, socket));
        let memory = world.endpoint(1).memory();
        let attacker = LocalIdentity::for_connections(&key(9), network());
        let mut entropy = SeededEntropy::new(seed);
        let (mut sent, mut flood) = (Vec::new(), 0);
        for tick in 0..300 {
            for _ in 0..20 {
                flood += 1;
                let bytes = match flood % 4 {
                    0 => world.rng.bytes(896),
                    1 => [&[0x41, 1, 2, 3][..], &world.rng.bytes(60)].concat(),
                    _ => first_message(&attacker, 2, &mut entropy, flood),
                };
                let packet = packet_from(&world, (1, 5), &[3, 3], &bytes);
                world.inject(0, 1, 5, &packet);
            }
            if tick % 2 == 0 {
                sent.push(traffic.send(&mut world, (0, 1), socket, NAME).unwrap());
            }
            world.run(10 * MS);
        }
        world.run(SECOND);
        let answers = &world.sinks[sink];
        assert!(!answers.is_empty() && answers.len() <= flood as usize, "{}", answers.len());
        assert!(answers.iter().all(|answer| answer.packet.len() <= 16 + 896));
        // A quarter of the flood had unknown indices: at most 20 answers a second, and the burst.
        let unknown = answers.iter().filter(|answer| answer.packet[16] == 0x70).count();
        assert!((20..=100).contains(&unknown), "{unknown} answers of kind 7");
        let lost = sent.iter().filter(|m| !Traffic::has_arrived(&world, 1, m)).count();
        assert_eq!(lost, 0, "seed {seed}: of {} messages", sent.len());
        assert_eq!(world.endpoint(1).peers(), [peer(1)]);
        assert!(
            world.endpoint(1).memory() < memory + 1_024,
            "seed {seed}: the endpoint kept state"
        );
        traffic.check(&world);
        world.assert_balanced();
    }
}

/// During the flood, a peer that the policy knows connects by static key.
#[test]
fn r18_a_known_peer_connects_during_a_flood() {
    for seed in seeds(1) {
        let mut world = World::new(seed);
        world.three_switches();
        world.end(3, (0, 2));
        let policy = std::sync::Arc::new(KnowsThree);
        world.end_with(2, (2, 3), policy, false);
        world.sink((1, 5));
        world.listen(1, NAME, ListenOptions::new());
        let attacker = LocalIdentity::for_connections(&key(9), network());
        let mut entropy = SeededEntropy::new(seed);
        let mut flood = 0;
        let mut socket = None;
        for tick in 0..300 {
            for _ in 0..20 {
                flood += 1;
                let bytes = first_message(&attacker, 2, &mut entropy, flood);
                let packet = packet_from(&world, (1, 5), &[3, 3], &bytes);
                world.inject(0, 1, 5, &packet);
            }
            if tick == 100 {
                let label = world.label(0, &[3, 3, 3]);
                socket = Some(world.connect_by_key(0, 1, label, NAME, Default::default()));
            }
            world.run(10 * MS);
        }
        assert!(world.is_connected(0, socket.unwrap()), "seed {seed}: {:?}", world.ends[0].events);
        world.assert_balanced();
    }
}

/// 1,100 identities send initiations by static key, with return paths to others, and never
/// continue. They do not displace a working connection with an unknown peer.
///
/// wire.md: W6-191.
#[test]
fn r18_identities_that_prove_nothing_push_out_no_connection() {
    let mut world = World::two_paths(1);
    let mut traffic = Traffic::default();
    world.sink((1, 5));
    world.listen(1, NAME, ListenOptions::new());
    let label = world.ahead(1);
    let socket = world.connect(0, 1, label, NAME);
    traffic.send(&mut world, (0, 1), socket, NAME).unwrap();
    world.run(SECOND);
    let secret = key(2).connection_key();
    let responder = *secret.public();
    let mut entropy = SeededEntropy::new(1);
    for number in 0..1_100_u32 {
        let seed = [&number.to_be_bytes()[..], &[7; 28]].concat();
        let secret = strowger_connection::crypto::Secret::from_bytes(seed.try_into().unwrap());
        let attacker = strowger_connection::crypto::IdentityKey::from_seed(&secret);
        let attacker = LocalIdentity::for_connections(&attacker, network());
        let mut fields = vec![1, 0, 8];
        fields.extend(u64::from(number + 1).to_be_bytes());
        let fields = strowger_connection::crypto::handshake::FieldBytes::new(&fields).unwrap();
        let offer = Offer { fields, ..Offer::default() };
        let index = SessionIndex::new(number + 1).unwrap();
        let timestamp = Timestamp(1_700_000_000_000_000_000);
        let ours = LocalParams { local: &attacker, offer: &offer, index, timestamp };
        let psk = strowger_connection::crypto::Psk::NONE;
        let initiation = ik::initiate(&ours, &responder, &psk, None, &mut entropy).unwrap().1;
        let packet = packet_from(&world, (1, 5), &[3, 3], &initiation);
        world.inject(0, 1, 5, &packet);
        world.run(40 * MS); // within the budget of one director
    }
    let evaluated = world.ends[1].sent.iter().filter(|seen| seen.packet[16] == 0x20).count();
    assert!(evaluated > 1_050, "{evaluated} initiations were answered");
    let last = traffic.send(&mut world, (0, 1), socket, NAME).unwrap();
    world.run(SECOND);
    assert!(Traffic::has_arrived(&world, 1, &last));
    assert!(
        !world.has(1, |event| { matches!(event, strowger_connection::Event::PeerClosed { .. }) })
    );
    world.assert_balanced();
}

/// Initiations by static key without a connection id, or with zeros as the id, are discarded.
///
/// wire.md: W6-200.
#[test]
fn an_initiation_without_a_connection_id_is_discarded() {
    let responder = *key(2).connection_key().public();
    for (stated, is_answered) in [(None, false), (Some(0), false), (Some(1_u64), true)] {
        let mut world = World::two_paths(1);
        world.sink((1, 5));
        let mut entropy = SeededEntropy::new(1);
        let attacker = LocalIdentity::for_connections(&key(9), network());
        let fields = stated.map_or(Vec::new(), |id| [&[1, 0, 8], &id.to_be_bytes()[..]].concat());
        let fields = strowger_connection::crypto::handshake::FieldBytes::new(&fields).unwrap();
        let offer = Offer { fields, ..Offer::default() };
        let index = SessionIndex::new(1).unwrap();
        let timestamp = Timestamp(1_700_000_000_000_000_000);
        let ours = LocalParams { local: &attacker, offer: &offer, index, timestamp };
        let psk = strowger_connection::crypto::Psk::NONE;
        let initiation = ik::initiate(&ours, &responder, &psk, None, &mut entropy).unwrap().1;
        let packet = packet_from(&world, (1, 5), &[3, 3], &initiation);
        world.inject(0, 1, 5, &packet);
        world.run(SECOND);
        assert_eq!(world.ends[1].sent.len(), usize::from(is_answered), "{stated:?}");
        let discard = strowger_connection::Discard::HandshakeMalformed;
        let count = world.endpoint(1).counters().discarded(discard);
        assert_eq!(count, u64::from(!is_answered), "{stated:?}");
        world.assert_balanced();
    }
}
