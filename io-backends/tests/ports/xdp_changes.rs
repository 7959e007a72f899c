//! Tests with properties of an interface that change or that frames do not show: VLAN tags passed
//! as metadata, and the MAC address. No test sleeps.

use strowger_frame::{Address, Loss, Mark, Port};
use strowger_io::xdp::{
    Arena, EtherOpenError, ModeChoice, RxMode, XdpSpec,
    features::{RX_VLAN_OFFLOADS, set_features},
};

use crate::{tagging::Tagging, veth::*};

const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Makes a frame from `from` to `to` with a packet of one byte.
fn bytes(to: Address, from: [u8; 6], byte: u8) -> Vec<u8> {
    let Address::Ether(to) = to else { panic!("a MAC address") };
    [&to[..], &from, &ETHERTYPE, &[0, 1, byte]].concat()
}

/// Kinds of tags: 802.1Q and 802.1ad.
const Q: u16 = 0x8100;
const AD: u16 = 0x88a8;

const FROM: [u8; 6] = [2, 0, 0, 0, 0, 7];

/// Sends ten frames to `b`, with the tag in the frame or as metadata, and returns how many arrived.
/// Returns `None` if such a tag cannot be made.
fn tagged(veth: &Veth, b: &mut Station, kind: u16, tag: u16) -> Option<usize> {
    b.port.admit(Mark(0), Address::Ether(FROM)).unwrap();
    let raw = veth.a.within(|| Raw::new("a0"));
    let tagging = veth.a.within(|| Tagging::new("a0", kind, tag));
    let tagging = tagging.inspect_err(|why| skip(&format!("no program on egress: {why}"))).ok()?;
    (0..10).for_each(|n| raw.send(&bytes(b.at, FROM, n)));
    drop(tagging);
    Some(drain(&mut b.port, &mut b.pool).len())
}

/// wire.md: W8-23, W8-24.
#[test]
fn r23_a_port_takes_the_frames_of_its_vlan_where_the_tag_stands_beside_them() {
    for (vlan, kind, tag, is_ours) in [
        (None, Q, 7, false),
        (None, AD, 7, false),
        (None, Q, 0xe000, true), // a priority without a VLAN
        (Some(7), Q, 7, true),
        (Some(7), Q, 0xe007, true),
        (Some(7), AD, 7, false), // an 802.1ad VLAN with the same number
        (Some(7), Q, 8, false),
        (Some(7), Q, 0xe000, false),
    ] {
        let veth = veth!();
        veth.a.within(|| offload_tags("a0", true)).unwrap();
        veth.b.within(|| offload_tags("b0", true)).unwrap();
        let mut b = Station::new(&veth.b, &XdpSpec { vlan, ..spec("b0", RxMode::Packet) }).unwrap();
        let Some(came) = tagged(&veth, &mut b, kind, tag) else { return };
        let tally = b.tally();
        assert_eq!(came, if is_ours { 10 } else { 0 }, "{vlan:?} of {kind:#x} {tag:#x}: {tally:?}");
    }
}

/// wire.md: W8-24.
#[test]
fn r23_frames_of_a_vlan_reach_no_port_without_one_by_any_backend() {
    let choices =
        [ModeChoice::Auto, ModeChoice::Xdp].into_iter().chain(RxMode::ALL.map(ModeChoice::Only));
    for (backend, are_beside) in choices.flat_map(|backend| [(backend, false), (backend, true)]) {
        let veth = veth!();
        veth.a.within(|| offload_tags("a0", are_beside)).unwrap();
        veth.b.within(|| offload_tags("b0", are_beside)).unwrap();
        let spec = XdpSpec { backend, ..spec("b0", RxMode::Packet) };
        let mut b = match Station::new(&veth.b, &spec) {
            Ok(b) => b,
            // A veth does not support zero-copy, and AF_XDP does not see tags that are passed as
            // metadata.
            Err(EtherOpenError::NothingWorks { refused, .. }) => {
                let is_said = refused.iter().all(|one| one.refusal.remedy().contains("rx-vlan"));
                let zero_copy = backend == ModeChoice::Only(RxMode::ZeroCopy);
                assert!(zero_copy || are_beside && is_said, "{backend:?}: {refused:?}");
                continue;
            }
            Err(other) => panic!("{backend:?}: {other}"),
        };
        for kind in [Q, AD] {
            let Some(came) = tagged(&veth, &mut b, kind, 7) else { return };
            assert_eq!(came, 0, "{backend:?}, tags beside frames: {are_beside}");
        }
        let raw = veth.a.within(|| Raw::new("a0"));
        raw.send(&bytes(b.at, FROM, 1));
        assert_eq!(receive(&mut b.port, &mut b.pool, 1).len(), 1, "{backend:?}");
    }
}

#[test]
fn an_interface_that_removes_tags_is_served_by_af_packet_with_a_reason() {
    let both: Vec<&[&str]> =
        vec![&RX_VLAN_OFFLOADS[..1], &RX_VLAN_OFFLOADS[1..], &RX_VLAN_OFFLOADS];
    for (vlan, on) in
        [None, Some(7)].into_iter().flat_map(|vlan| both.iter().map(move |on| (vlan, *on)))
    {
        let veth = veth!();
        let open = |backend| {
            let mut pool = pool();
            let spec = XdpSpec { backend, vlan, ..spec("b0", RxMode::Packet) };
            opened(&veth.b, &spec, &mut Arena::of(&pool), &mut pool)
        };
        assert_ne!(open(ModeChoice::Auto).unwrap().report.mode, RxMode::Packet);
        veth.b.within(|| set_features("b0", on, true)).unwrap();
        let report = open(ModeChoice::Auto).unwrap().report;
        let text = report.to_string();
        assert_eq!(report.mode, RxMode::Packet, "{text}");
        for feature in on {
            assert!(text.contains(&format!("{feature} off")), "{text}");
        }
        assert_eq!(text.matches("refused").count(), 1, "three modes, and one reason: {text}");
        let why = open(ModeChoice::Xdp).expect_err("it would not see the tags").to_string();
        assert!(why.contains(&format!("ethtool -K b0 {}", on[0])), "{why}");
    }
}

#[test]
fn a_change_of_the_own_address_is_followed() {
    const NEW: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
    for mode in RX_MODES {
        for goes_down in [false, true] {
            let veth = veth!();
            let (mut a, mut b) = stations(&veth, &spec("a0", mode), &spec("b0", RxMode::Packet));
            if goes_down {
                veth.a.ip("link set dev a0 down");
            }
            veth.a.ip("link set dev a0 address 02:00:00:00:00:77");
            if goes_down {
                veth.a.ip("link set dev a0 up");
            }
            b.port.admit(Mark(1), Address::Ether(NEW)).unwrap();
            // A worker arms and disarms its ports at least ten times a second.
            a.port.arm();
            a.port.disarm();
            until("frames leave from the new address and come in for it", || {
                let (mut to_b, mut to_a) = (
                    [frame(&mut a.pool, 60, 1)].into_iter().collect(),
                    strowger_frame::Burst::new(),
                );
                a.port.tx_burst(Mark(0), &mut to_b);
                a.port.flush();
                a.port.arm();
                a.port.disarm();
                let at_b = drain(&mut b.port, &mut b.pool);
                assert!(at_b.iter().all(|frame| frame.mark() == Mark(1)), "none from the old one");
                to_a.push(frame(&mut b.pool, 60, 2));
                b.port.tx_burst(Mark(1), &mut to_a);
                b.port.flush();
                let at_a = drain(&mut a.port, &mut a.pool);
                !at_b.is_empty() && !at_a.is_empty()
            });
        }
    }
}

#[test]
fn a_port_that_does_not_sleep_follows_a_change_of_its_address() {
    let veth = veth!();
    let (mut a, mut b) = stations(&veth, &spec("a0", RxMode::Packet), &spec("b0", RxMode::Packet));
    veth.a.ip("link set dev a0 address 02:00:00:00:00:77");
    for _ in 0..1000 {
        a.port.rx_burst(&mut a.pool, &mut strowger_frame::Burst::new());
    }
    send(&mut a.port, Mark(0), [frame(&mut a.pool, 60, 1)]);
    until("a frame from the new address", || {
        b.port.rx_burst(&mut b.pool, &mut strowger_frame::Burst::new());
        b.tally().lost(Loss::UnknownSender) == 1
    });
}
