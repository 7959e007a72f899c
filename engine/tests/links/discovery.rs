//! Peers without a configured key. They are found by an XX handshake, and accepted because of the
//! pinned identity or of the policy for unknown peers. They vanish and are found again. The tests
//! run in virtual time.

use strowger_crypto::Psk;
use strowger_engine::{
    control::{
        Event,
        peering::{Liveness, PeerError, PeerSpec, PeerView, UnknownPeerPolicy},
    },
    discard::Discard,
    limits::FRAME_BYTES_MAX,
    link::Rights,
};
use strowger_testkit::sim::{MS, Node, NodeSpec, Pair, SECOND, identity, key};

/// The properties of the other end in the configuration of one end.
#[derive(Clone, Copy, Debug)]
struct Knows {
    key: bool,
    identity: bool,
    at: bool,
}

const KEY: Knows = Knows { key: true, identity: false, at: true };
const NAME: Knows = Knows { key: false, identity: true, at: true };
const NAME_ALONE: Knows = Knows { key: false, identity: true, at: false };
const PLACE: Knows = Knows { key: false, identity: false, at: true };

const FAST: Liveness = Liveness::new(std::time::Duration::from_nanos(100 * MS)).with_always(true);

fn knows(what: Knows, of: u8, spec: PeerSpec) -> PeerSpec {
    let mut spec = spec.with_liveness(FAST);
    if !what.key {
        spec = spec.with_key(None::<strowger_crypto::StaticPublic>);
    }
    if !what.at {
        spec = spec.with_address(None::<strowger_frame::Address>);
    }
    spec.with_identity(what.identity.then(|| *identity(of).identity()))
}

/// Makes nodes 1 and 2 with these configurations and policies.
fn pair(a: Knows, b: Knows, unknown_peers: [Option<UnknownPeerPolicy>; 2]) -> Pair {
    let [first, second] = unknown_peers;
    let births = [(1, first), (2, second)]
        .map(|(seed, unknown_peers)| NodeSpec { unknown_peers, ..NodeSpec::new(seed) });
    Pair::with(births[0], births[1], |own, spec| match own {
        1 => knows(a, 2, spec),
        _ => knows(b, 1, spec),
    })
}

fn downs(node: &Node) -> usize {
    node.events.iter().filter(|event| matches!(event, Event::LinkDown(_))).count()
}

/// wire.md: W4-9.
#[test]
fn a_peer_with_only_a_pinned_identity_gets_a_link_from_either_side() {
    for (a, b) in [(NAME, NAME_ALONE), (NAME, NAME), (KEY, NAME_ALONE), (KEY, NAME), (NAME, KEY)] {
        for (loss, seed) in [(0, 0), (300_000, 1), (300_000, 2)] {
            let mut pair = pair(a, b, [None, None]);
            pair.a.add_peer(9, false, pair.now); // an unrelated peer
            pair.net.set_loss(loss, seed);
            let up = (0..600).any(|_| {
                pair.advance(100 * MS);
                [(&pair.a, 2), (&pair.b, 1)].into_iter().all(|(node, of)| {
                    let peers = node.switch.peers();
                    peers.iter().any(|peer| peer.key == Some(key(of)) && peer.is_up())
                })
            });
            assert!(up, "{a:?} {b:?} {loss}");
            pair.net.set_loss(0, 0);
            pair.run_for(1);
            assert!(pair.carries_packets(), "{a:?} {b:?} {loss}");
            let (at_a, at_b) = (pair.a.peer_view(2), pair.b.peer_view(1));
            assert_eq!((at_a.key, at_b.key), (Some(key(2)), Some(key(1))));
            assert!(!at_a.is_unknown && at_a.rights == Rights { control: false, ..Rights::ALL });
            // From here on, IK is used, and the link does not go down.
            let before = (downs(&pair.a), downs(&pair.b));
            for second in 0..600 {
                assert!(pair.carries_packets(), "{a:?} {b:?} {loss} {seed}: after {second} s");
                pair.run_for(1);
            }
            assert_eq!((downs(&pair.a), downs(&pair.b)), before);
            assert!(pair.a.peer_view(2).handshakes >= 5);
            pair.assert_even();
        }
    }
}

/// After XX, both ends search for the path MTU within the same limit as configured peers: the first
/// handshake already agrees on it.
#[test]
fn a_discovered_peer_takes_packets_as_long_as_a_configured_one() {
    let policy = Some(UnknownPeerPolicy::default());
    let found = |a: Knows, b: Knows, unknown_peers| {
        let mut pair = pair(a, b, unknown_peers);
        pair.run_for(60);
        let views = [pair.a.peer_view(2), pair.b.peer_view(1)];
        // There are two handshakes if both ends started at the same time. No key has been renewed
        // yet.
        assert!(views.iter().all(|view| view.handshakes <= 2), "{views:?}");
        let agreed = |view: &PeerView| view.agreed.map(|agreed| agreed.frame_bytes_max);
        views.map(|view| (view.frame_bytes_max, agreed(&view)))
    };
    let known = found(KEY, KEY, [None, None]);
    assert_eq!(known.map(|(_, agreed)| agreed), [Some(FRAME_BYTES_MAX as u16); 2]);
    assert_eq!(found(NAME, NAME_ALONE, [None, None]), known);
    assert_eq!(found(NAME, KEY, [None, policy]), known);
    assert_eq!(found(PLACE, KEY, [policy, policy]), known);
}

#[test]
fn a_peer_configured_by_address_alone_has_the_rights_of_an_unknown_peer() {
    let rights = Rights { endpoints: true, ..Rights::NONE };
    let policy = UnknownPeerPolicy::default().with_rights(rights);
    // Each end has only the address of the other end, and treats that end as an unknown peer.
    let mut pair = pair(PLACE, PLACE, [Some(policy), Some(policy)]);
    pair.until_up();
    assert_eq!((pair.a.peer_view(2).rights, pair.b.peer_view(1).rights), (rights, rights));
    assert_eq!((pair.a.switch.peers().len(), pair.b.switch.peers().len()), (1, 1), "one link");
    pair.run_for(300);
    assert!(pair.carries_packets());
    pair.assert_even();
}

/// wire.md: W4-60.
#[test]
fn another_identity_than_the_pinned_one_is_refused_with_a_reason() {
    for (a, b) in [(NAME, PLACE), (NAME_ALONE, PLACE)] {
        let policy = Some(UnknownPeerPolicy::default());
        let births = [(1, None), (2, policy)]
            .map(|(seed, unknown_peers)| NodeSpec { unknown_peers, ..NodeSpec::new(seed) });
        let mut pair = Pair::with(births[0], births[1], |own, spec| match own {
            1 => knows(a, 7, spec),
            _ => knows(b, 1, spec),
        });
        pair.run_for(60);
        let peers = pair.a.switch.peers();
        assert!(peers.len() == 1 && !peers[0].is_up() && peers[0].handshakes == 0);
        let refused = [Discard::HandshakeIdentity, Discard::NotAllowed, Discard::UnknownPeer];
        assert!(refused.iter().any(|&reason| pair.a.count(reason) > 0));
        let ups = |node: &Node| node.events.iter().any(|e| matches!(e, Event::LinkUp(_)));
        assert!(!ups(&pair.a) && !ups(&pair.b), "no datagram arrived");
        let who = identity(2).identity().peer_id();
        let refusal = Event::PeerRefused(peers[0].slot, who);
        assert_eq!(
            pair.a.events.contains(&refusal),
            a.at,
            "a peer without an address gets no such event"
        );
        pair.assert_even();
    }
}

/// wire.md: W4-6, W4-70, W4-116.
#[test]
fn without_a_policy_an_unknown_peer_s_search_is_not_answered() {
    let policy = Some(UnknownPeerPolicy::default());
    let mut pair = pair(PLACE, KEY, [policy, None]);
    let slots = pair.b.switch.slots().len();
    pair.run_for(10);
    assert!(pair.b.count(Discard::UnknownPeer) > 0 && !pair.a.switch.peers()[0].is_up());
    assert_eq!(pair.b.switch.slots().len(), slots);

    // Unknown peers are allowed, but their maximum number is 0. The link of the searching node does
    // not come up.
    let full = UnknownPeerPolicy::default().with_links_max(0);
    let births = [(1, policy), (2, Some(full))]
        .map(|(seed, unknown_peers)| NodeSpec { unknown_peers, ..NodeSpec::new(seed) });
    let mut pair = Pair::with(births[0], births[1], |own, spec| match own {
        1 => knows(PLACE, 2, spec),
        _ => knows(NAME_ALONE, 7, spec),
    });
    pair.run_for(120);
    assert!(!pair.a.switch.peers()[0].is_up());
    assert!(!pair.a.events.iter().any(|event| matches!(event, Event::LinkUp(_))));
    assert!(pair.b.count(Discard::OverBudget) > 0);
    pair.assert_even();
}

#[test]
fn a_discovered_peer_that_restarts_is_found_again() {
    let policy = Some(UnknownPeerPolicy::default().with_rights(Rights::ALL));
    for (a, b, unknown_peers) in [(NAME, NAME_ALONE, None), (PLACE, PLACE, policy)] {
        let mut pair = pair(a, b, [unknown_peers, unknown_peers]);
        pair.until_up();
        // The second node restarts without its state.
        let birth = NodeSpec { unknown_peers, restarts_before: 1 + pair.now.0, ..NodeSpec::new(2) };
        pair.b = Node::new(&pair.net, &birth, pair.now);
        let spec = knows(b, 1, pair.b.peer_spec(1, true));
        pair.b.switch.add_peer(spec, pair.now).expect("a slot");
        pair.at_b = pair.b.add_endpoint().1;
        let took = pair.until_up();
        assert!(took < 10 * SECOND, "{took} ns");
        pair.assert_even();
    }
}

#[test]
fn contradictory_peer_specs_are_refused_with_a_reason() {
    let mut pair = Pair::new();
    let now = pair.now;
    let mut add = |tune: &dyn Fn(PeerSpec) -> PeerSpec| {
        let spec = pair.a.peer_spec(9, true).with_key(None::<strowger_crypto::StaticPublic>);
        pair.a.switch.add_peer(tune(spec), now)
    };
    let nine = Some(*identity(9).identity());
    assert_eq!(add(&|spec| spec), Err(PeerError::UnknownPeer), "no policy");
    assert_eq!(add(&|spec| spec.with_psk(Psk::from_bytes([1; 32]))), Err(PeerError::PskWithoutKey));
    let ourselves = Some(*identity(1).identity());
    assert_eq!(add(&|spec| spec.with_identity(ourselves)), Err(PeerError::Ourselves));
    assert!(add(&|spec| spec.with_identity(nine)).is_ok());
    assert_eq!(add(&|spec| spec.with_identity(nine)), Err(PeerError::IdentityTaken));

    let unknown_peers = Some(UnknownPeerPolicy::default());
    let mut node = Node::without_port(&NodeSpec { unknown_peers, ..NodeSpec::new(1) }, now);
    let spec = PeerSpec::discovered("anybody", None, node.port);
    assert_eq!(node.switch.add_peer(spec, now), Err(PeerError::Unspecified));
}
