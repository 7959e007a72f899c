//! The laws of null routing, with a switch whose links come up, fail and go down at random.

use std::collections::BTreeMap;

use strowger_routing::{
    Candidate, Constraints, LinkRequest, NodeId, NullConfig, NullRouting, OffendingHeader,
    PathError, PathErrorKind, Route, Source, SwitchRouting as _, UnderlayRoute,
    address::UdpAddress,
    crypto::Nanos,
    limits::{LINK_OPEN_S, LINK_RETRY_S},
    wire::{
        Label, Scheme, Slot,
        label::{AnyLabel, Step, step},
        scheme::{F8, V3X5X8},
        with_label,
    },
};
use strowger_testkit::Rng;

use super::source::peer;

/// A candidate that is reached through one of five nodes.
fn candidate(node: u8, label: Option<AnyLabel>) -> Candidate {
    let address = UdpAddress { ip: "192.0.2.1".parse().unwrap(), port: u16::from(node) + 1 };
    let route = UnderlayRoute { address, node: NodeId::PeerId(peer(node)), label };
    Candidate::new(peer(node), Route::Underlay(route), Source::Program)
}

/// Makes the first step of a label, at this node's own switch. Returns the egress slot, the rest of
/// the label, and the slot to which a reply leads.
fn one_step(scheme: &Scheme, label: AnyLabel, own: Slot) -> (Slot, AnyLabel, Slot) {
    with_label!(label, label => {
        let first = step(scheme, label, 0, own, |_| true, false).expect("a valid first hop");
        let Step::Forward { to, label: next, shift } = first else { panic!("a link is not slot 1") };
        // At this node's own switch, the first director of the return path names the ingress slot.
        let back = next.reverse(shift, None).unwrap();
        let back = back.decode(scheme).unwrap().slot();
        (to, AnyLabel::from(next.forward(shift)), back)
    })
}

/// P1 and P9 for paths of one hop: the label leads over the link to that node, and its return path
/// leads back to `own_slot`. There is no path before the link is up, there are never more links
/// than the maximum, and idle links are closed.
#[test]
fn p1_null_routing_gives_one_hop_over_links_that_are_up() {
    let (mut given, mut refused, mut closed) = (0, 0, 0);
    for seed in 0..100 {
        let mut rng = Rng::new(0x5709_8000 + seed);
        let scheme = if rng.one_in(2) { V3X5X8 } else { F8 };
        let own_slot = Slot::new([1, 4, 100][rng.below(3)]);
        let links_max = 1 + rng.below(4);
        let idle = Nanos::from_secs(60);
        let mut routing = NullRouting::new(scheme, NullConfig { links_max, idle, own_slot });
        let mut now = Nanos::from_secs(9);
        // The state of the switch: requested links, and links that are up, with their slots and
        // times of last use.
        let mut opening: Vec<NodeId> = Vec::new();
        let mut up: BTreeMap<NodeId, (Slot, Nanos)> = BTreeMap::new();
        for _ in 0..200 {
            let node = rng.below(5) as u8;
            let id = NodeId::PeerId(peer(node));
            match rng.below(8) {
                0..=2 => {
                    let behind = match rng.below(3) {
                        0 => None,
                        1 => Some(AnyLabel::from(Label::<u64>::new(0x153))),
                        _ => Some(AnyLabel::from(Label::<u128>::new(0x153))),
                    };
                    let to = candidate(node, behind);
                    let paths = routing.paths(now, &to, &Constraints::default());
                    let slot = up.get(&id).map(|(slot, _)| *slot);
                    let is_idle = up.get(&id).is_some_and(|(_, used)| used.plus(idle) <= now);
                    match (slot, is_idle) {
                        (Some(slot), false) => {
                            let [path] = &paths.paths[..] else { panic!("one path") };
                            let (left_by, rest, back) = one_step(&scheme, path.label, own_slot);
                            assert_eq!((left_by, back), (slot, own_slot));
                            let here = AnyLabel::from(Label::<u64>::here());
                            assert_eq!(rest, behind.unwrap_or(here));
                            up.insert(id, (slot, now));
                            given += 1;
                        }
                        _ => assert!(paths.paths.is_empty(), "no path without a link"),
                    }
                    refused += usize::from(paths.paths.is_empty() && !paths.is_pending);
                }
                3 if opening.contains(&id) => {
                    opening.retain(|other| *other != id);
                    let slot = Slot::new(2 + u32::from(node) + 40 * rng.below(3) as u32);
                    let slot = if slot == own_slot { Slot::new(99) } else { slot };
                    routing.link_up(now, id, slot);
                    up.insert(id, (slot, now));
                }
                4 if opening.contains(&id) => {
                    opening.retain(|other| *other != id);
                    routing.link_failed(now, id);
                    // A failed link is not requested again immediately.
                    let paths = routing.paths(now, &candidate(node, None), &Constraints::default());
                    assert!(paths.paths.is_empty() && !paths.is_pending);
                }
                5 if up.remove(&id).is_some() => routing.link_failed(now, id),
                6 => now = now.plus(Nanos::from_secs(rng.below(30) as u64)),
                _ => routing.poll(now),
            }
            while let Some(request) = routing.next_request() {
                match request {
                    LinkRequest::Open { node, address } => {
                        assert!(!up.contains_key(&node) && !opening.contains(&node));
                        assert_eq!(
                            address.port,
                            1 + (0..5).position(|seed| NodeId::PeerId(peer(seed)) == node).unwrap()
                                as u16
                        );
                        opening.push(node);
                    }
                    LinkRequest::Close { node } => {
                        let was_up = up.remove(&node);
                        assert!(was_up.is_none_or(|(_, used)| used.plus(idle) <= now), "in use");
                        assert!(was_up.is_some() || opening.contains(&node));
                        opening.retain(|other| *other != node);
                        closed += 1;
                    }
                }
                assert!(opening.len() + up.len() <= links_max, "at most {links_max} links");
            }
        }
        // After all timeouts, no link is left.
        while let Some(next) = routing.next_timeout() {
            now = now.max(next);
            routing.poll(now);
        }
        while let Some(request) = routing.next_request() {
            let LinkRequest::Close { node } = request else { panic!("an attempt at rest") };
            up.remove(&node);
            opening.retain(|other| *other != node);
        }
        assert!(up.is_empty() && opening.is_empty());
    }
    assert!(given > 500 && refused > 100 && closed > 100, "{given} {refused} {closed}");
}

#[test]
fn an_attempt_has_a_time_and_a_failure_a_pause() {
    let config = NullConfig { links_max: 1, idle: Nanos::from_secs(60), own_slot: Slot::SWITCH };
    let mut routing = NullRouting::new(V3X5X8, config);
    let (start, any) = (Nanos::from_secs(1), Constraints::default());
    let (node, to, other) = (NodeId::PeerId(peer(0)), candidate(0, None), candidate(1, None));
    assert!(routing.paths(start, &to, &any).is_pending);
    assert!(matches!(routing.next_request(), Some(LinkRequest::Open { .. })));
    assert!(!routing.paths(start, &other, &any).is_pending, "there is no room");
    let given_up = start.plus(Nanos::from_secs(LINK_OPEN_S));
    assert_eq!(routing.next_timeout(), Some(given_up));
    routing.poll(given_up);
    assert_eq!(routing.next_request(), Some(LinkRequest::Close { node }));
    // A link that comes up now is ignored, because its close was requested.
    routing.link_up(given_up, node, Slot::new(2));
    assert!(routing.paths(given_up, &to, &any).paths.is_empty());
    assert_eq!(routing.next_request(), None);
    let again = given_up.plus(Nanos::from_secs(LINK_RETRY_S));
    assert!(routing.paths(again, &to, &any).is_pending);
    // The record of a failure does not prevent another link.
    routing.link_failed(again, node);
    assert!(routing.paths(again, &other, &any).is_pending);
}

#[test]
fn a_moved_slot_is_repaired_only_to_a_link_that_is_up() {
    let config = NullConfig { links_max: 2, idle: Nanos::from_secs(60), own_slot: Slot::new(4) };
    let mut routing = NullRouting::new(V3X5X8, config);
    let (now, any) = (Nanos::from_secs(1), Constraints::default());
    let to = candidate(0, Some(AnyLabel::from(Label::<u64>::new(0x153))));
    routing.paths(now, &to, &any);
    routing.link_up(now, NodeId::PeerId(peer(0)), Slot::new(2));
    let label = routing.paths(now, &to, &any).paths[0].label;
    // A program on a slot sends with shift 1, and a bit that marks the end of the return path.
    let AnyLabel::W64(sent) = label else { panic!("64 bits") };
    let departed = AnyLabel::W64(sent.depart().unwrap().0);
    let error = |used: u16, to| PathError {
        kind: PathErrorKind::SlotMoved { from: 2, to },
        offending: OffendingHeader { label: departed, shift: 1 + used, flow: 0 },
    };
    let unmarked = OffendingHeader { label, shift: 0, flow: 0 };
    assert_eq!(routing.repair(now, &label, &error(0, 40)), None, "a forged error");
    routing.link_up(now, NodeId::PeerId(peer(0)), Slot::new(40));
    let repaired = routing.repair(now, &label, &error(0, 40)).unwrap();
    assert_eq!(Some(repaired), routing.paths(now, &to, &any).paths.first().map(|path| path.label));
    assert_eq!(routing.repair(now, &label, &error(4, 40)), None, "about another switch");
    let foreign = PathError { offending: unmarked, ..error(0, 40) };
    assert_eq!(routing.repair(now, &label, &foreign), None, "not sent from this slot");
    assert_eq!(routing.repair(now, &repaired, &error(0, 40)), None, "about another label");
    let other = PathError { kind: PathErrorKind::SlotGone(2), ..error(0, 40) };
    assert_eq!(routing.repair(now, &label, &other), None);
}
