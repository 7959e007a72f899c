//! Local clients of a relay stop reading. Other traffic loses no packet. The result does not depend
//! on timing.

use std::{fmt::Write as _, net::UdpSocket, time::Duration};

use strowger_io::unix::Client;
use strowger_wire::link_header::LINK_HEADER_BYTES;

use crate::STROWGER;
use strowger_testkit::{
    eventually,
    harness::{packet, relay::*},
};

/// The control flag, in the second byte of the switch header.
const CONTROL: u8 = 0x40;
/// The number of clients. Their full queues could hold more chunks than a worker has.
const CLIENTS: usize = 14;

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // The timeout only detects losses: on one machine a packet arrives immediately unless it is
    // lost.
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

#[test]
fn r23_clients_that_do_not_read_cost_others_nothing() {
    let (a, b) = (socket(), socket());
    let mut config = format!(
        "[switch]\nworkers = 1\n[[udp]]\nname = \"lan\"\naddress = \"127.0.0.1:0\"\nseal = \"plain\"\n\
         [[neighbour]]\nname = \"a\"\naddress = \"{}\"\nlistener = \"lan\"\nslot = 2\n\
         [[neighbour]]\nname = \"b\"\naddress = \"{}\"\nlistener = \"lan\"\nslot = 3\n",
        a.local_addr().unwrap(),
        b.local_addr().unwrap()
    );
    for n in 0..CLIENTS {
        let slot = 10 + n;
        write!(config, "[[unix]]\nname = \"u{n}\"\npath = \"DIR/u{n}\"\nslot = {slot}\n").unwrap();
    }
    let relay = Relay::start(STROWGER, Home::without_key(), &config);
    let ports = relay.ask(r#"{"show":"ports"}"#);
    let what = ports["ports"][0]["what"].as_str().unwrap();
    let at = what.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap();
    let at = at.to_owned();

    // Packets are sent one at a time, so that each loss is detected and no burst causes a loss.
    let passes = |n: usize| {
        let to_b = packet(&[(2, 3)], b"from one to the other");
        let mut bytes = [0; 2048];
        for nth in 0..n {
            a.send_to(&to_b, &at).unwrap();
            b.recv(&mut bytes).unwrap_or_else(|why| panic!("packet {nth} of {n}: {why}"));
        }
    };
    passes(100);

    let discards = || relay.ask(r#"{"show":"discards"}"#)["discards"]["egress_full"].as_u64();
    for with_control in [false, true] {
        let clients: Vec<Client> = (0..CLIENTS)
            .map(|n| {
                let served = Client::connect(relay.path(&format!("u{n}"))).unwrap();
                let slot = 10 + n as u32;
                // The lengths alternate, so that the kernel does not join packets and each takes a
                // chunk.
                let data = packet(&[(2, slot)], &[7; 60]);
                let mut control = packet(&[(2, slot)], &[7; 90]);
                control[LINK_HEADER_BYTES + 1] |= if with_control { CONTROL } else { 0 };
                // Send until the client's queue is full and drops packets.
                let before = discards().unwrap_or_default();
                eventually("the client's queue is full", || {
                    for _ in 0..32 {
                        a.send_to(&data, &at).unwrap();
                        a.send_to(&control, &at).unwrap();
                    }
                    (discards().unwrap_or_default() > before + 64).then_some(())
                });
                served
            })
            .collect();
        passes(500);
        drop(clients);
        eventually("the packets waiting for them are counted", || {
            let reply = relay.ask(r#"{"show":"discards"}"#);
            passes(1);
            (reply["balance"]["balanced"] == true
                && reply["discards"]["peer_gone"].as_u64() > Some(0))
            .then_some(())
        });
        passes(100);
    }
    let ports = relay.ask(r#"{"show":"ports"}"#);
    let lan = &ports["ports"][0];
    assert!(lan["kernel_drops_by_reason"]["receive_pool_empty"].is_null(), "{lan}");
    let status = relay.ask(r#"{"show":"status"}"#);
    assert!(
        status["frames_copied"].as_u64() > Some(0),
        "memory ran low, and frames were copied: {status}"
    );
    relay.stop();
}
