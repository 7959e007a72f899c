//! Frames of a socket in the relay: trains stay trains, and congestion marks arrive.

use strowger_runtime::{LocalPortSpec, Peer, Relay};
use strowger_socket::wire::{Hop, Label, Scheme, Slot, switch_header::Ecn};
use strowger_testkit::{eventually, until};

use super::support::{LONG, builder, key, pair, recv, to};

#[test]
fn buffers_side_by_side_leave_the_relay_as_trains() {
    let (near, far) = (key(11), key(12));
    let (near_id, far_id) = (near.public().peer_id(), far.public().peer_id());
    let relay = |key, port: &str, slot| {
        let udp = "127.0.0.1:0".parse().expect("an address");
        let port = LocalPortSpec::new(port).slot(slot);
        Relay::builder().identity(key).network("links").workers(1).udp(udp).local_port_spec(port)
    };
    let far = relay(far, "b", 6).peer(Peer::new(near_id).slot(5)).start().expect("a relay");
    let at = far.ports().expect("runs")[0].local_address().expect("bound").to_string();
    let peer = Peer::new(far_id).name("far").at(at.as_str()).slot(3);
    let near = relay(near, "a", 4).peer(peer).start().expect("a relay");
    until("the link is up", || near.is_up("far").expect("runs"));
    let a = builder(1).attach(near.take_port("a").expect("unused")).start().expect("a node");
    let b = builder(2).attach(far.take_port("b").expect("unused")).start().expect("a node");
    let scheme = &Scheme::default();
    let hop = |from, to| Hop { scheme, ingress: Slot::new(from), egress: Slot::new(to) };
    let (label, _) = Label::<u64>::build(&[hop(4, 3), hop(5, 6)]).expect("two hops fit");
    let listener = b.listen("/trains/1").expect("a free name");
    let way = to(b.peer_id(), label.into());
    let mut ours = a.connect(way, "/trains/1").wait().expect("a socket");
    ours.send_wait(b"first", LONG).expect("queued");
    let mut theirs = listener.accept_timeout(LONG).expect("open").expect("accepted");
    assert_eq!(recv(&mut theirs), b"first");
    let udp_out = || {
        let stats = near.stats().expect("runs");
        let of_udp = stats.ports.iter().filter(|port| port.port.describe.contains("udp"));
        let queues = of_udp.flat_map(|port| &port.port.queues);
        queues.fold((0, 0), |(frames, trains), queue| {
            (frames + queue.frames_out, trains + queue.trains_out)
        })
    };
    let before = udp_out();
    for round in 0..20_u8 {
        let mut buffers = eventually("buffers", || ours.tx_buffers(1_000, 32));
        buffers.iter_mut().for_each(|buffer| buffer.fill(round));
        until("there is room", || ours.send_tx_buffers(&mut buffers).is_ok());
        for _ in 0..32 {
            assert_eq!(recv(&mut theirs), [round; 1_000]);
        }
    }
    let since = || {
        let after = udp_out();
        (after.0 - before.0, after.1 - before.1)
    };
    // The port counts a frame after the kernel has taken it, so a frame may arrive before that.
    until("all frames are counted", || since().0 >= 640);
    let (frames, trains) = since();
    eprintln!("{frames} frames left the relay in {trains} sends");
    assert!(trains * 8 <= frames, "{frames} frames in {trains} sends");
}

#[test]
fn a_congestion_mark_arrives_with_its_message() {
    let pair = pair();
    let (mut ours, mut theirs) = pair.sockets("/ecn/1");
    ours.set_ecn(Ecn::Capable0);
    ours.set_class(3);
    until("the mark arrives", || {
        ours.send_wait(b"marked", LONG).expect("queued");
        let message = theirs.recv_timeout(LONG).expect("open").expect("arrived");
        message.ecn() == Ecn::Capable0
    });
}
