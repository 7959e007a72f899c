//! Ethernet ports of relays in network namespaces over their life: several queues, VLANs,
//! neighbours that are attached while the relay runs, other traffic on the interface, kills, and
//! changes of the interface.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
};

use crate::STROWGER;
use strowger_io::xdp::features::RX_VLAN_OFFLOADS;
use strowger_testkit::{
    DEADLINE, eventually,
    harness::{
        netns::{self, *},
        packet,
        relay::*,
    },
};

/// A configuration with a neighbour over a plain link at slot 2 and an endpoint at slot 4.
fn plain(mac: &str, more: &str) -> String {
    format!(
        "[[ethernet]]\nname = \"lan\"\ninterface = \"e0\"\nseal = \"plain\"\n{more}\n\
         [[neighbour]]\nname = \"n\"\naddress = \"{mac}\"\nslot = 2\n\
         [[unix]]\nname = \"local\"\npath = \"DIR/local\"\nslot = 4\n"
    )
}

/// Runs a `strowger` command with the relay's control socket.
fn ask(relay: &Relay, request: &str) -> Result<String, String> {
    netns::run(&format!("{STROWGER} {request} --socket {}", relay.path("control").display()))
}

fn has_program(Namespace(name): &Namespace) -> bool {
    netns::run(&format!("ip -n {name} link show dev e0")).unwrap().contains("xdp")
}

/// Each worker has its own queue and sends on it. The frames arrive on the same queue of the other
/// end. The links are plain, so each worker switches the frames of its queue. With a sealed link,
/// the worker that owns the session would open them all.
#[test]
fn all_queues_of_an_interface_carry_traffic() {
    let Some([near, far]) = pair_with("numrxqueues 2 numtxqueues 2") else { return };
    let two = "[switch]\nworkers = 2\n[[unix]]\nname = \"other\"\npath = \"DIR/other\"\nslot = 5\n\
               worker = 1\n";
    let all = "backend = \"af_xdp\"\nqueues = \"all\"\ncapture = \"DIR/lan.pcapng\"";
    let first = Relay::within(&near, Home::without_key(), &(plain(MACS[1], all) + two));
    let second = Relay::within(&far, Home::without_key(), &(plain(MACS[0], all) + two));
    for queue in ["queue 0", "queue 1"] {
        assert!(first.printed.contains(&format!("ether e0 {queue} at")), "{}", first.printed);
    }
    let mut both = [first.client(), second.client()];
    let mut others = [first.client_of("other", 5), second.client_of("other", 5)];
    let queues = |relay: &Relay, count: &str| -> Vec<u64> {
        let port = relay.ask(r#"{"show":"ports"}"#)["ports"][0].take();
        let queues = port["queues"].as_array().unwrap();
        queues.iter().map(|queue| queue[count].as_u64().unwrap()).collect()
    };
    let before = queues(&second, "frames_in");
    for n in 0..50 {
        let ([at_first, at_second], [at_a, at_b]) = (&mut both, &mut others);
        assert_passes_along(&[(4, 2), (2, 4)], at_first, at_second, &[n; 700]);
        assert_passes_along(&[(5, 2), (2, 5)], at_a, at_b, &[n; 700]);
        assert_passes_along(&[(5, 2), (2, 4)], at_b, at_first, &[n; 700]);
    }
    let after = queues(&second, "frames_in");
    let came: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    assert!(came.len() == 2 && came.iter().all(|&frames| frames >= 50), "{came:?}");
    assert!(queues(&first, "frames_out").iter().all(|&frames| frames >= 50));
    second.stop();
    let directory = first.stop();
    for worker in 0..2 {
        let file = directory.path().join(format!("lan.{worker}.pcapng"));
        assert!(fs::metadata(file).unwrap().len() > 50 * 700, "each has its own capture");
    }
}

/// A port receives only the frames of its own VLAN.
#[test]
fn a_vlan_is_a_wire_of_its_own() {
    let Some([near, far]) = pair() else { return };
    for backend in ["af_xdp", "af_packet"] {
        let (a, b) = (Home::new(), Home::new());
        let (key_a, key_b) = (a.key.clone(), b.key.clone());
        let config = |key: &str, mac: Option<&str>, vlan: u16| {
            let section = format!("vlan = {vlan}\n[[unix]]");
            by_ethernet(key, mac, backend, "").replacen("[[unix]]", &section, 1)
        };
        let first = Relay::within(&near, a, &config(&key_b, Some(MACS[1]), 7));
        let second = Relay::within(&far, b, &config(&key_a, None, 7));
        until_up([&first, &second]);
        assert_relays_exchange(&first, &second);
        second.stop();
        first.stop();
        // A port with another VLAN, or with none, receives nothing.
        let vlan = |vlan: &str| format!("backend = \"{backend}\"\n{vlan}");
        for deaf in ["vlan = 8", ""] {
            let first =
                Relay::within(&near, Home::without_key(), &plain(MACS[1], &vlan("vlan = 7")));
            let third = Relay::within(&far, Home::without_key(), &plain(MACS[0], &vlan(deaf)));
            let mut client = first.client();
            for _ in 0..20 {
                assert!(client.send(&packet(&[(4, 2)], b"7"), DEADLINE).unwrap());
            }
            let count = |relay: &Relay, what: &str| {
                relay.ask(r#"{"show":"ports"}"#)["ports"][0][what].as_u64().unwrap()
            };
            eventually("all packets leave", || (count(&first, "frames_out") == 20).then_some(()));
            // `client()` waits until the third relay's worker has received a packet from the
            // endpoint. By then the worker has also polled its Ethernet port.
            drop(third.client());
            assert_eq!((count(&third, "frames_in"), count(&third, "kernel_drops")), (0, 0));
            first.stop();
            third.stop();
        }
    }
}

/// A neighbour is attached with `strowger slot attach` and detached with `slot detach`. The capture
/// contains the frames as they were on the wire.
#[test]
fn a_neighbour_by_mac_address_is_attached_captured_and_detached() {
    let Some([near, far]) = pair() else { return };
    for backend in ["af_xdp", "af_packet"] {
        let more = format!("backend = \"{backend}\"\ncapture = \"DIR/lan.pcapng\"");
        let config = plain(MACS[1], &more);
        let start = config.find("[[neighbour]]").unwrap();
        let end = config.find("[[unix]]").unwrap();
        let first = [&config[..start], &config[end..]].concat();
        let first = Relay::within(&near, Home::without_key(), &first);
        let second = Relay::within(&far, Home::without_key(), &plain(MACS[0], &more));
        let (mut at_first, mut at_second) = (first.client(), second.client());
        let refused = ask(&first, "slot attach far 01:00:00:00:00:01 --slot 2").unwrap_err();
        assert!(refused.contains("not the address of one station"), "{refused}");
        let output = ask(&first, &format!("slot attach far {} --slot 2", MACS[1])).unwrap();
        assert!(output.contains('2'), "{output}");
        let shown = ask(&first, "show slots").unwrap();
        assert!(shown.contains(MACS[1]), "{shown}");
        let text = [b"captured on its way ".repeat(9), backend.into()].concat();
        for _ in 0..20 {
            assert_passes_along(&[(4, 2), (2, 4)], &mut at_first, &mut at_second, &text);
            assert_passes_along(&[(4, 2), (2, 4)], &mut at_second, &mut at_first, &text);
        }
        ask(&first, "slot detach 2").unwrap();
        assert!(!ask(&first, "show slots").unwrap().contains(MACS[1]));
        let packet = packet(&[(4, 2), (2, 4)], &text);
        assert!(at_second.send(&packet, DEADLINE).unwrap());
        eventually("packets count as from an unknown sender", || {
            let reply = first.ask(r#"{"show":"discards"}"#);
            (reply["discards"]["unknown_sender"].as_u64() > Some(0)).then_some(())
        });
        for relay in [first, second] {
            let folder = relay.stop();
            let bytes = fs::read(folder.path().join("lan.pcapng")).unwrap();
            assert_eq!(bytes[..4], [0x0a, 0x0d, 0x0d, 0x0a], "a section header");
            let found = bytes.windows(text.len()).filter(|window| *window == text).count();
            assert!(found >= 40, "{found} of both ways");
        }
    }
}

/// Slots without a configured number are the same after a kill -9, even if the neighbours have
/// another order in the configuration.
#[test]
fn r11_neighbours_by_mac_address_have_their_slots_again() {
    let Some([near, _far]) = pair() else { return };
    let directory = Home::without_key();
    let config = |order: &[(&str, &str)]| {
        let mut config = "[switch]\nstate = \"DIR/state\"\n[[ethernet]]\ninterface = \"e0\"\n\
                          seal = \"plain\"\nbackend = \"af_xdp\"\n"
            .to_owned();
        for (name, mac) in order {
            config += &format!("[[neighbour]]\nname = \"{name}\"\naddress = \"{mac}\"\n");
        }
        config
    };
    let (a, b, c) =
        (("a", "02:00:00:00:01:01"), ("b", "02:00:00:00:01:02"), ("c", "02:00:00:00:01:03"));
    let slots = |relay: &Relay| -> BTreeSet<(String, u64)> {
        let shown = relay.ask(r#"{"show":"slots"}"#);
        let rows = shown["slots"].as_array().unwrap().iter();
        let rows = rows.filter(|row| row["address"].is_string());
        rows.map(|row| (row["address"].as_str().unwrap().to_owned(), row["slot"].as_u64().unwrap()))
            .collect()
    };
    let relay = Relay::within(&near, directory, &config(&[a, b, c]));
    let before = slots(&relay);
    assert_eq!(before.len(), 3);
    assert!(has_program(&near));
    let directory = relay.kill();
    let relay = Relay::within(&near, directory, &config(&[c, b, a]));
    assert!(relay.printed.contains("state: 3 slots as before"), "{}", relay.printed);
    assert_eq!(slots(&relay), before);
    relay.stop();
}

const ROLE: &str = "STROWGER_TEST_TCP";
const TCP: &str = "10.9.0.1:5555";
const BYTES: usize = 1 << 20;

/// Runs this test binary in a namespace, as server or client of a TCP connection.
fn in_role(Namespace(name): &Namespace, role: &str) -> std::process::Child {
    let itself = std::env::current_exe().unwrap();
    Command::new("ip")
        .args(["netns", "exec", name])
        .arg(itself)
        .args(["ethernet_life::child_of_tcp", "--exact", "--nocapture"])
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// This function is no test of its own: as a child process, it is either end of the TCP connection
/// of the next test.
#[test]
fn child_of_tcp() {
    match std::env::var(ROLE).as_deref() {
        Ok("server") => {
            let listener = TcpListener::bind(TCP).unwrap();
            println!("listening");
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut answer = stream.try_clone().unwrap();
                thread::spawn(move || std::io::copy(&mut stream, &mut answer));
            }
        }
        Ok(_) => {
            let mut stream = TcpStream::connect(TCP).unwrap();
            let bytes: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
            let mut writing = stream.try_clone().unwrap();
            let sent = bytes.clone();
            let writer = thread::spawn(move || {
                writing.write_all(&sent).unwrap();
                writing.shutdown(Shutdown::Write).unwrap();
            });
            let mut came = Vec::new();
            stream.read_to_end(&mut came).unwrap();
            writer.join().unwrap();
            assert!(came == bytes, "{} bytes came back", came.len());
        }
        Err(_) => {}
    }
}

/// The kernel's connections over the same interface, such as ssh, continue while the relay's XDP
/// program is attached, after a kill -9 of the relay, and after its immediate restart.
#[test]
fn other_traffic_passes_beside_a_relay_and_after_its_end() {
    let Some([near, far]) = pair() else { return };
    for (namespace, address) in [(&near, "10.9.0.1/24"), (&far, "10.9.0.2/24")] {
        netns::run(&format!("ip -n {} addr add {address} dev e0", namespace.0)).unwrap();
    }
    let mut server = in_role(&near, "server");
    let lines = BufReader::new(server.stdout.take().unwrap());
    assert!(lines.lines().map_while(Result::ok).any(|line| line.contains("listening")));
    let echo = || {
        let status = in_role(&far, "client").wait().unwrap();
        assert!(status.success(), "a mebibyte each way by TCP: {status}");
    };
    let exchange = |first: &Relay, second: &Relay| {
        let (mut at_first, mut at_second) = (first.client(), second.client());
        for n in 0..100 {
            assert_passes_along(&[(4, 2), (2, 4)], &mut at_first, &mut at_second, &[n; 1000]);
            assert_passes_along(&[(4, 2), (2, 4)], &mut at_second, &mut at_first, &[n; 1000]);
        }
    };
    // The relay drops its privileges. Nevertheless everything must be released when it ends.
    let config = |mac: &str| plain(mac, "backend = \"af_xdp\"") + "[process]\nuser = \"nobody\"\n";
    let mut first = Relay::within(&near, Home::without_key(), &config(MACS[1]));
    let second = Relay::within(&far, Home::without_key(), &config(MACS[0]));
    for _ in 0..3 {
        assert!(has_program(&near) && has_program(&far));
        thread::scope(|scope| {
            scope.spawn(echo);
            exchange(&first, &second);
        });
        let directory = first.kill();
        // The kernel may not yet have released the former process's queue, so the start waits for
        // it.
        first = Relay::within(&near, directory, &config(MACS[1]));
        assert!(first.printed.contains("by xdp_copy"), "{}", first.printed);
    }
    drop(first.kill());
    eventually("the XDP program is gone", || (!has_program(&near)).then_some(()));
    echo();
    second.stop();
    server.kill().unwrap();
    server.wait().unwrap();
}

/// After an interface goes down and up, packets pass again without privileges. A relay reports a
/// removed interface, continues with its other ports, and stops in order.
#[test]
fn a_link_comes_back_and_a_removed_interface_is_reported() {
    for backend in ["af_xdp", "af_packet"] {
        let Some([near, far]) = pair() else { return };
        let nobody = "[process]\nuser = \"nobody\"\n";
        let config = |mac: &str| plain(mac, &format!("backend = \"{backend}\"")) + nobody;
        let first = Relay::within(&near, Home::without_key(), &config(MACS[1]));
        let second = Relay::within(&far, Home::without_key(), &config(MACS[0]));
        let (mut at_first, mut at_second) = (first.client(), second.client());
        let way = [(4, 2), (2, 4)];
        assert_passes_along(&way, &mut at_first, &mut at_second, b"before");
        for namespace in [&near, &far] {
            let set = |to: &str| netns::run(&format!("ip -n {} link set dev e0 {to}", namespace.0));
            set("down").unwrap();
            let meanwhile = packet(&way, b"meanwhile");
            assert!(at_first.send(&meanwhile, DEADLINE).unwrap());
            eventually("the packet is lost and counted", || {
                let reply = first.ask(r#"{"show":"discards"}"#);
                if reply["discards"]["send_refused"].as_u64() > Some(0) {
                    return Some(());
                }
                let _ = at_first.try_send(&meanwhile).unwrap();
                None
            });
            set("up").unwrap();
            let mut room = [0; 2048];
            eventually("packets pass again", || {
                let _ = at_first.try_send(&packet(&way, b"after")).unwrap();
                at_second.try_receive(&mut room).unwrap()
            });
            // Packets that were sent earlier may still be in flight.
            while at_second.try_receive(&mut room).unwrap().is_some() {}
        }
        let gone = |relay: &Relay| relay.ask(r#"{"show":"ports"}"#)["ports"][0]["gone"] == true;
        assert!(!gone(&first) && !gone(&second));
        netns::run(&format!("ip -n {} link del dev e0", near.0)).unwrap();
        eventually("the relays report the missing interface", || {
            (gone(&first) && gone(&second)).then_some(())
        });
        let events = eventually("the relay records an event", || {
            let events = first.ask(r#"{"show":"events"}"#).to_string();
            events.contains("interface_gone").then_some(events)
        });
        assert_eq!(events.matches("interface_gone").count(), 1, "once: {events}");
        assert!(ask(&first, "show ports").unwrap().contains("gone"));
        // The endpoint is still served.
        let to_itself = packet(&[(4, 2)], b"nowhere");
        assert!(at_first.send(&to_itself, DEADLINE).unwrap());
        eventually("packets for it count as peer_gone", || {
            let reply = first.ask(r#"{"show":"discards"}"#);
            (reply["discards"]["peer_gone"].as_u64() > Some(0)).then_some(())
        });
        first.stop();
        second.stop();
    }
}

/// The interface's MAC address changes, as when a bond changes its active member. Packets pass
/// again in both directions over the sealed link, without a restart.
#[test]
fn an_own_mac_address_that_changes_is_followed() {
    for backend in ["af_packet", "af_xdp"] {
        let Some([near, far]) = pair() else { return };
        let (near_home, far_home) = (Home::new(), Home::new());
        let (near_key, far_key) = (near_home.key.clone(), far_home.key.clone());
        let near_config = by_ethernet(&far_key, Some(MACS[1]), backend, "");
        let far_config = by_ethernet(&near_key, Some(MACS[0]), backend, "");
        let first = Relay::within(&near, near_home, &near_config);
        let second = Relay::within(&far, far_home, &far_config);
        until_up([&first, &second]);
        assert_relays_exchange(&first, &second);
        for change in ["down", "address 02:00:00:00:00:77", "up"] {
            netns::run(&format!("ip -n {} link set dev e0 {change}", near.0)).unwrap();
        }
        let (mut at_first, mut at_second) = (first.client(), second.client());
        let mut passes = |from_first: bool| {
            let (from, to) = match from_first {
                true => (&mut at_first, &mut at_second),
                false => (&mut at_second, &mut at_first),
            };
            eventually("a packet passes after the change", || {
                from.send(&packet(&[(4, 2), (2, 4)], b"changed"), DEADLINE).unwrap();
                to.receive(&mut [0; 2048], std::time::Duration::from_millis(50)).unwrap().map(drop)
            });
        };
        passes(true);
        passes(false);
        passes(true);
        eventually("the far end knows the new address", || {
            let peers = second.ask(r#"{"show":"peers"}"#);
            peers["peers"][0]["address"].as_str()?.contains("00:00:77").then_some(())
        });
        first.stop();
        second.stop();
    }
}

/// If the interface strips VLAN tags, AF_XDP cannot distinguish frames of other VLANs. A running
/// relay reports that the offload was switched on. A relay that starts while it is on uses
/// AF_PACKET.
#[test]
fn an_interface_that_starts_and_stops_to_strip_tags_is_reported() {
    let Some([near, _far]) = pair() else { return };
    let take_off = |on| offload(&near.0, "e0", &RX_VLAN_OFFLOADS[..1], on).unwrap();
    let doctor = || {
        let output =
            Command::new("ip").args(["netns", "exec", &near.0, STROWGER, "doctor"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert!(doctor().contains("no interface strips VLAN tags"));
    let relay = Relay::within(&near, Home::without_key(), &plain(MACS[1], "backend = \"af_xdp\""));
    let details = |what: &str| {
        let events = relay.ask(r#"{"show":"events"}"#)["events"].take();
        let of = |event: &&serde_json::Value| event["event"] == what;
        events.as_array().unwrap().iter().filter(of).map(ToString::to_string).collect::<Vec<_>>()
    };
    take_off(true);
    let trouble = eventually("the relay records an event", || details("port_trouble").pop());
    assert!(trouble.contains("ethtool -K e0 rx-vlan-hw-parse off"), "{trouble}");
    assert!(doctor().contains("e0: [[ethernet]] uses AF_PACKET there"), "{}", doctor());
    take_off(false);
    eventually("the end of the offload is reported", || details("port_back").pop());
    assert_eq!(details("port_trouble").len(), 1);
    relay.stop();
    take_off(true);
    let relay = Relay::within(&near, Home::without_key(), &plain(MACS[1], ""));
    assert!(relay.printed.contains("by af_packet"), "{}", relay.printed);
    assert!(relay.printed.contains("takes VLAN tags off frames"), "{}", relay.printed);
    relay.stop();
}
