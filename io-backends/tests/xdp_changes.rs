//! What an interface is told apart from the frames, or changes while a port is open: VLAN tags that stand
//! beside a frame, and its own MAC address. The tests never sleep.

#![allow(clippy::unwrap_used)] // the helpers of a test are a test

#[path = "veth/tagging.rs"]
mod tagging;
mod veth;

use strowger_frame::{Address, Loss, Mark, Port};
use strowger_io::xdp::{Arena, Choice, Rung, XdpSpec};

use crate::{tagging::Tagging, veth::*};

const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// A frame from `from` to `to` with a packet of one byte.
fn bytes(to: Address, from: [u8; 6], byte: u8) -> Vec<u8> {
    let Address::Ether(to) = to else { panic!("a MAC address") };
    [&to[..], &from, &ETHERTYPE, &[0, 1, byte]].concat()
}

const FROM: [u8; 6] = [2, 0, 0, 0, 0, 7];

#[test]
fn r23_a_port_takes_the_frames_of_its_vlan_where_the_tag_stands_beside_them() {
    for (vlan, tag, is_ours) in [
        (None, 7, false),
        (None, 0xe000, true), // a priority, and no VLAN
        (Some(7), 7, true),
        (Some(7), 0xe007, true),
        (Some(7), 8, false),
        (Some(7), 0xe000, false),
    ] {
        let veth = veth!();
        let mut b = Station::new(&veth.b, &XdpSpec { vlan, ..spec("b0", Rung::Packet) }).unwrap();
        b.port.admit(Mark(0), Address::Ether(FROM)).unwrap();
        let raw = veth.a.within(|| Raw::new("a0"));
        let tagging = match veth.a.within(|| Tagging::new("a0", tag)) {
            Ok(tagging) => tagging,
            Err(why) => return skip(&format!("no program on egress: {why}")),
        };
        (0..10).for_each(|n| raw.send(&bytes(b.at, FROM, n)));
        drop(tagging);
        let came = drain(&mut b.port, &mut b.pool).len();
        assert_eq!(came, if is_ours { 10 } else { 0 }, "{vlan:?} of {tag:#x}: {:?}", b.tally());
    }
}

#[test]
fn where_tags_are_hidden_from_af_xdp_it_is_said_and_a_port_with_a_vlan_does_not_use_it() {
    let veth = veth!();
    let open = |spec: &XdpSpec| {
        let mut pool = pool();
        let opened = opened(&veth.b, spec, &mut Arena::of(&pool), &mut pool).unwrap();
        (opened.report.rung, opened.report.to_string())
    };
    let (rung, said) = open(&spec("b0", Rung::Copy));
    assert!(rung == Rung::Copy && said.contains("untagged"), "{said}");
    let auto = XdpSpec { backend: Choice::Auto, vlan: Some(7), ..spec("b0", Rung::Copy) };
    let (rung, said) = open(&auto);
    assert!(rung == Rung::Packet && said.contains("rxvlan off"), "{said}");
    let (rung, said) = open(&XdpSpec { vlan: None, ..auto });
    assert!(rung != Rung::Packet && said.contains("untagged"), "{said}");
}

#[test]
fn the_own_address_is_followed_when_it_changes() {
    const NEW: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
    for rung in RUNGS {
        for goes_down in [false, true] {
            let veth = veth!();
            let (mut a, mut b) = stations(&veth, &spec("a0", rung), &spec("b0", Rung::Packet));
            if goes_down {
                veth.a.ip("link set dev a0 down");
            }
            veth.a.ip("link set dev a0 address 02:00:00:00:00:77");
            if goes_down {
                veth.a.ip("link set dev a0 up");
            }
            b.port.admit(Mark(1), Address::Ether(NEW)).unwrap();
            // The worker sleeps and wakes at least ten times a second.
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
fn a_port_that_never_sleeps_follows_its_own_address_too() {
    let veth = veth!();
    let (mut a, mut b) = stations(&veth, &spec("a0", Rung::Packet), &spec("b0", Rung::Packet));
    veth.a.ip("link set dev a0 address 02:00:00:00:00:77");
    for _ in 0..1000 {
        a.port.rx_burst(&mut a.pool, &mut strowger_frame::Burst::new());
    }
    send(&mut a.port, Mark(0), [frame(&mut a.pool, 60, 1)]);
    until("a frame from the new address", || {
        b.port.rx_burst(&mut b.pool, &mut strowger_frame::Burst::new());
        b.tally().lost(Loss::Stranger) == 1
    });
}
