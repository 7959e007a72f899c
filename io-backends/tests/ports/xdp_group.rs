//! Tests that frames to a group arrive at the ports that joined it, in each mode, and at no others.
//! They use network namespaces and veth pairs that the tests make and remove.

use strowger_frame::{Address, Loss, Mark, Port as _};
use strowger_io::xdp::{EtherOpenError, Group, XdpSpec};

use crate::veth::{RX_MODES, Station, frame, receive, spec, until};

const GROUP: [u8; 6] = [3, 0, 0, 0, 0, 9];

fn in_group(spec: XdpSpec) -> XdpSpec {
    XdpSpec { group: Some(Group { address: GROUP, first_byte: 0x70 }), ..spec }
}

/// wire.md: W8-20, W10-11.
#[test]
fn only_members_receive_frames_to_a_group_and_only_with_the_agreed_first_byte() {
    for mode in RX_MODES {
        for vlan in [None, Some(7)] {
            let veth = veth!();
            let tagged = |interface| XdpSpec { vlan, ..in_group(spec(interface, mode)) };
            let mut a = Station::new(&veth.a, &tagged("a0")).unwrap();
            let mut b = Station::new(&veth.b, &tagged("b0")).unwrap();
            b.port.accept_unknown(true);
            // Frames with another first byte are counted and dropped.
            for first in [0x10, 0x70] {
                let sent = frame(&mut a.pool, 896, first);
                a.port.send_to(Address::Ether(GROUP), sent);
            }
            let came = receive(&mut b.port, &mut b.pool, 1);
            assert!(came[0].mark().is_unknown() && came[0].bytes() == [0x70; 896], "{mode:?}");
            assert_eq!(b.port.address_of(came[0].mark()), Some(a.at));
            assert_eq!(b.tally().lost(Loss::UnknownSender), 1, "{mode:?}");
            // Frames from a neighbour have the neighbour's mark.
            b.port.admit(Mark(3), a.at).unwrap();
            let sent = frame(&mut a.pool, 100, 0x70);
            a.port.send_to(Address::Ether(GROUP), sent);
            assert_eq!(receive(&mut b.port, &mut b.pool, 1)[0].mark(), Mark(3));
            // Frames to one station arrive as before. A port does not receive the frames that it
            // has sent.
            a.port.admit(Mark(0), b.at).unwrap();
            let sent = frame(&mut b.pool, 80, 9);
            b.port.send_to(a.at, sent);
            let came = receive(&mut a.port, &mut a.pool, 1);
            assert_eq!((came[0].mark(), came[0].bytes()), (Mark(0), &[9; 80][..]));
            assert_eq!(a.tally().frames_in.read(), 1, "{mode:?}");
        }
    }
}

/// wire.md: W8-19.
#[test]
fn a_port_outside_a_group_does_not_receive_or_send_to_it() {
    for mode in RX_MODES {
        let veth = veth!();
        let mut a = Station::new(&veth.a, &in_group(spec("a0", mode))).unwrap();
        let mut b = Station::new(&veth.b, &spec("b0", mode)).unwrap();
        b.port.accept_unknown(true);
        let sent = frame(&mut a.pool, 100, 0x70);
        a.port.send_to(Address::Ether(GROUP), sent);
        let sent = frame(&mut a.pool, 100, 0x11);
        a.port.send_to(b.at, sent);
        assert_eq!(receive(&mut b.port, &mut b.pool, 1)[0].bytes(), [0x11; 100], "{mode:?}");
        let sent = frame(&mut b.pool, 100, 0x70);
        b.port.send_to(Address::Ether(GROUP), sent);
        assert_eq!(b.tally().lost(Loss::NoNeighbour), 1);
    }
}

#[test]
fn the_interface_is_a_member_of_the_group_while_the_port_exists() {
    let shown = "03:00:00:00:00:09";
    for mode in RX_MODES {
        let veth = veth!();
        assert!(!veth.a.ip("maddr show dev a0").contains(shown));
        let a = Station::new(&veth.a, &in_group(spec("a0", mode))).unwrap();
        assert!(veth.a.ip("maddr show dev a0").contains(shown), "{mode:?}");
        drop(a);
        until("it is forgotten", || !veth.a.ip("maddr show dev a0").contains(shown));
    }
}

#[test]
fn an_address_that_is_not_multicast_is_refused() {
    let veth = veth!();
    for address in [[2, 0, 0, 0, 0, 9], [0; 6], [0xff; 6]] {
        let group = Some(Group { address, first_byte: 0x70 });
        let spec = XdpSpec { group, ..spec("a0", RX_MODES[0]) };
        let error = Station::new(&veth.a, &spec).err().unwrap();
        assert_eq!(error, EtherOpenError::NoGroup { address });
        assert!(error.to_string().contains("not a multicast address"));
    }
}
