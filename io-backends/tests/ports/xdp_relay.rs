//! One arena for Ethernet and UDP: a frame received on one is sent on the other from the memory
//! into which it was received. The tests compare the addresses of the payload.

use std::collections::HashSet;

use strowger_frame::{Address, Burst, Frame, Mark, Pool, PoolSpec, Port};
use strowger_io::{
    udp::{self, UdpPort, UdpSpec},
    xdp::{Arena, EtherPort, RxMode, XdpSpec},
};

use crate::veth::*;

/// Acts as the switch, with one pool, an Ethernet port and a UDP port.
struct Relay {
    pool: Pool,
    ether: EtherPort,
    udp: UdpPort,
}

/// Moves received frames from `from` to `to`, and adds the addresses of the packets to `seen`.
fn forward(pool: &mut Pool, from: &mut dyn Port, to: &mut dyn Port, seen: &mut HashSet<usize>) {
    let mut burst = Burst::new();
    from.rx_burst(pool, &mut burst);
    for frame in &burst {
        seen.insert(frame.bytes().as_ptr().addr());
    }
    until("room to send", || {
        to.tx_burst(Mark(0), &mut burst);
        to.flush();
        burst.is_empty() && to.is_flushed()
    });
}

fn numbered(pool: &mut Pool, count: usize, len: usize) -> Vec<Frame> {
    let mut frames = train(pool, len, count);
    for (n, frame) in frames.iter_mut().enumerate() {
        frame.bytes_mut().fill(n as u8);
    }
    frames
}

fn pass(mode: RxMode, backend: udp::BackendChoice, len: usize) {
    const FRAMES: usize = 40;
    let veth = veth!();
    let mut far = Station::new(&veth.b, &spec("b0", RxMode::Copy)).unwrap();
    let mut pools =
        Pool::group(&PoolSpec { trains: 64, singles: 1500, huge_pages: false }, 2).unwrap();
    let mut pool = pools.swap_remove(1);
    let mut arena = Arena::of(&pool);
    let spec = XdpSpec { ..spec("a0", mode) };
    let ether = opened(&veth.a, &spec, &mut arena, &mut pool).unwrap();
    far.port.admit(Mark(0), Address::Ether(ether.report.mac)).unwrap();
    let mut ether = ether.port;
    ether.admit(Mark(0), far.at).unwrap();
    let loopback =
        || UdpSpec { backend, neighbours_max: 4, ..UdpSpec::new("127.0.0.1:0".parse().unwrap()) };
    let (near, user) = (udp::open(&loopback(), 0).unwrap(), udp::open(&loopback(), 0).unwrap());
    let (at_near, at_user) = (near.local_addr(), user.local_addr());
    let (mut near, mut user) = (near.port, user.port);
    near.admit(Mark(0), Address::Udp(at_user)).unwrap();
    user.admit(Mark(0), Address::Udp(at_near)).unwrap();
    let mut users = pool_of(64, 64);
    let mut relay = Relay { pool, ether, udp: near };

    // Forwards from UDP to Ethernet. The frames are sent as one train, so most of them have no
    // headroom.
    let mut seen = HashSet::new();
    send(&mut user, Mark(0), numbered(&mut users, FRAMES, len));
    until("all to pass", || {
        let Relay { pool, ether, udp } = &mut relay;
        forward(pool, udp, ether, &mut seen);
        seen.len() >= FRAMES
    });
    for (n, frame) in receive(&mut far.port, &mut far.pool, FRAMES).iter().enumerate() {
        assert_eq!(frame.bytes(), vec![n as u8; len]);
    }
    assert_eq!(seen.len(), FRAMES, "each lay at a place of its own");

    // Forwards from Ethernet to UDP.
    seen.clear();
    send(&mut far.port, Mark(0), numbered(&mut far.pool, FRAMES, len));
    until("all to pass", || {
        let Relay { pool, ether, udp } = &mut relay;
        forward(pool, ether, udp, &mut seen);
        seen.len() >= FRAMES
    });
    for (n, frame) in receive(&mut user, &mut users, FRAMES).iter().enumerate() {
        assert_eq!(frame.bytes(), vec![n as u8; len]);
    }
    let inside = |at: &usize| {
        relay.pool.mapping().offset_of(std::ptr::without_provenance(*at), len).is_some()
    };
    assert!(seen.iter().all(inside), "all lay in the arena");
    let copied = [
        relay.pool.tally().frames_copied.read(),
        relay.ether.tally().frames_copied.read(),
        relay.udp.tally().frames_copied.read(),
    ];
    assert_eq!(copied, [0; 3], "{mode:?} with {backend:?}");
    let lost = relay.ether.tally().total_lost() + relay.udp.tally().total_lost();
    assert_eq!(lost, 0);
}

#[test]
fn frames_pass_between_udp_and_ethernet_without_a_copy() {
    for mode in RX_MODES {
        for backend in [udp::BackendChoice::Mmsg, udp::BackendChoice::IoUring] {
            let spec = UdpSpec { backend, ..UdpSpec::new("127.0.0.1:0".parse().unwrap()) };
            if let Err(why) = udp::open(&spec, 0) {
                strowger_testkit::skip_case(&format!("{backend:?}"), &why.to_string());
                continue;
            }
            for len in [64, 512, 1400] {
                pass(mode, backend, len);
            }
        }
    }
}

/// A packet that is forwarded from one interface to another stays in the buffer in which it was
/// received. The new header overwrites the old one.
#[test]
fn frames_pass_from_nic_to_nic_in_place() {
    let (left, right) = (veth!(), veth!());
    // One relay can have ports in both `a` namespaces, because a socket stays in the namespace in
    // which it was made.
    let mut pool = pool();
    let mut arena = Arena::of(&pool);
    let mut near = opened(&left.a, &spec("a0", RxMode::Copy), &mut arena, &mut pool).unwrap();
    let mut far = opened(&right.a, &spec("a0", RxMode::Copy), &mut arena, &mut pool).unwrap();
    assert!(far.report.shared);
    let mut source = Station::new(&left.b, &spec("b0", RxMode::Copy)).unwrap();
    let mut sink = Station::new(&right.b, &spec("b0", RxMode::Copy)).unwrap();
    near.port.admit(Mark(0), source.at).unwrap();
    far.port.admit(Mark(0), sink.at).unwrap();
    source.port.admit(Mark(0), Address::Ether(near.report.mac)).unwrap();
    sink.port.admit(Mark(0), Address::Ether(far.report.mac)).unwrap();
    for _ in 0..100 {
        let frames: Vec<_> = (0..32).map(|n| frame(&mut source.pool, 700, n)).collect();
        send(&mut source.port, Mark(0), frames);
        let mut seen = HashSet::new();
        until("all to pass", || {
            forward(&mut pool, &mut near.port, &mut far.port, &mut seen);
            seen.len() == 32
        });
        // A frame received by AF_XDP begins 256 bytes into its chunk, and our header has 16 bytes.
        assert!(seen.iter().all(|at| at % 4096 == 256 + 16));
        let came = receive(&mut sink.port, &mut sink.pool, 32);
        assert!(came.iter().enumerate().all(|(n, frame)| frame.bytes() == [n as u8; 700]));
    }
    let copied = pool.tally().frames_copied.read() + far.port.tally().frames_copied.read();
    assert_eq!(copied, 0);
}
