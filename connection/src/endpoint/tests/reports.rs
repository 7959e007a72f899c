//! Reports about what arrived.

use strowger_wire::switch_header::Ecn;

use super::*;

/// The reports that a node has received: lane, packets, packets with a mark, greatest counter.
fn reports(net: &mut Net, node: usize) -> Vec<(u8, u64, u64, u64)> {
    let report = |event: &Event| match event {
        Event::Report { lane, packets, marked_ce, newest, .. } => {
            Some((lane.number(), *packets, *marked_ce, *newest))
        }
        _ => None,
    };
    let found = net.nodes[node].events.iter().filter_map(report).collect();
    net.nodes[node].events.clear();
    found
}

fn report(net: &mut Net, from: usize, to: usize) {
    let peer = net.peer(to);
    net.nodes[from].endpoint.report(net.now, &peer).expect("a connection");
    net.drive(from);
    net.run(10);
}

/// wire.md: W6-193, W6-194.
#[test]
fn a_report_counts_the_packets_under_the_newest_keys_once_a_second() {
    let mut net = Net::new(2, 10);
    let nobody = net.peer(1);
    assert_eq!(net.nodes[0].endpoint.report(net.now, &nobody), Err(NoConnection));
    net.listen(1, "/echo/1");
    let socket = net.connect(0, 1, "/echo/1");
    net.run(2_000);
    report(&mut net, 1, 0);
    assert_eq!(reports(&mut net, 0), [], "no message was opened");
    net.send(0, socket, b"unmarked");
    net.nodes[0].endpoint.set_ecn(socket, Ecn::Congested);
    for _ in 0..4 {
        net.send(0, socket, b"marked");
    }
    net.run(10);
    report(&mut net, 1, 0);
    let first = reports(&mut net, 0);
    let [(0, packets, 4, newest)] = first[..] else { panic!("{first:?}") };
    // Items and confirmations count, too. All counters from 0 on have arrived.
    assert!(packets >= 5 && newest + 1 == packets, "{first:?}");
    // Another report is due after a second, and only if a message was opened.
    net.send(0, socket, b"marked");
    net.run(10);
    report(&mut net, 1, 0);
    assert_eq!(reports(&mut net, 0), []);
    net.run(1_000);
    report(&mut net, 1, 0);
    let second = reports(&mut net, 0);
    assert!(second.len() == 1 && second[0].1 > packets && second[0].2 == 5, "{second:?}");
    net.run(2_000);
    report(&mut net, 1, 0);
    assert_eq!(reports(&mut net, 0), []);
    // After a rekey the counts start from zero.
    net.nodes[0].endpoint.set_ecn(socket, Ecn::NotCapable);
    for _ in 0..140 {
        net.send(0, socket, b"renewal");
        net.run(1_000);
    }
    let peer = net.peer(0);
    let info = net.nodes[1].endpoint.connection(&peer).expect("a connection");
    assert!(info.handshakes > 1, "{info:?}");
    net.nodes[0].events.clear();
    report(&mut net, 1, 0);
    let third = reports(&mut net, 0);
    let [(0, packets, 0, newest)] = third[..] else { panic!("{third:?}") };
    assert!(newest + 1 == packets && packets < 100, "{third:?}");
}
