//! Relays as processes in two network namespaces, joined by a veth pair.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use strowger_wire::{link_header::LINK_HEADER_BYTES, switch_header::HEADER_64_BYTES};

use crate::{STROWGER, copy_program};
use strowger_testkit::{
    DEADLINE, eventually,
    harness::{
        netns::{self, *},
        packet,
        relay::*,
    },
    skip,
};

const CAPABILITIES: &str = "+net_raw,+net_admin,+bpf,+ipc_lock";

#[test]
fn endpoints_of_two_relays_exchange_packets_over_a_sealed_ethernet() {
    let Some([near, far]) = pair() else { return };
    for backend in ["af_xdp", "af_packet"] {
        let (a, b) = (Home::new(), Home::new());
        let (key_a, key_b) = (a.key.clone(), b.key.clone());
        let first = Relay::within(&near, a, &by_ethernet(&key_b, Some(MACS[1]), backend, ""));
        // The second relay learns the first one's address from its handshake.
        let second = Relay::within(&far, b, &by_ethernet(&key_a, None, backend, ""));
        until_up([&first, &second]);
        assert_relays_exchange(&first, &second);

        // At start the relay reports the chosen mode and why others were refused. `show ports` has
        // the mode, too.
        let rung = if backend == "af_xdp" { "xdp_copy" } else { "af_packet" };
        let chosen = format!("lan: ether e0 queue 0 at {} by {rung}", MACS[0]);
        assert!(first.printed.contains(&chosen), "{}", first.printed);
        assert!(first.printed.contains("receive chunks of lan"), "{}", first.printed);
        assert!(first.printed.contains("links sealed"), "{}", first.printed);
        let refused =
            first.printed.contains("xdp_zero_copy") && first.printed.contains("EOPNOTSUPP");
        assert_eq!(refused, backend == "af_xdp", "{}", first.printed);
        let socket = first.path("control");
        let shown =
            netns::run(&format!("{STROWGER} show ports --socket {}", socket.display())).unwrap();
        let words = [&format!("ether e0 queue 0 ({rung})"), "kernel drops"];
        assert!(words.iter().all(|word| shown.contains(word)), "{shown}");
        let port = first.ask(r#"{"show":"ports"}"#)["ports"][0].take();
        assert_eq!(port["backend"], rung);
        assert!(port["kernel_drops_by_reason"].is_object(), "{port}");
        let peers = second.ask(r#"{"show":"peers"}"#);
        assert_eq!(peers["peers"][0]["address"], MACS[0]);
        assert_eq!(first.ask(r#"{"show":"status"}"#)["sealed"], true);

        // One relay ends and restarts. The queue must be free again, and the link must come up
        // again.
        let key = fs::read(first.path("key")).unwrap();
        first.stop();
        let again = Home::without_key();
        fs::write(again.path().join("key"), key).unwrap();
        private(&again.path().join("key"));
        let first = Relay::within(&near, again, &by_ethernet(&key_b, Some(MACS[1]), backend, ""));
        until_up([&first]);
        eventually("packets pass again", || second.is_up().then_some(()));
        assert_relays_exchange(&first, &second);
        first.stop();
        second.stop();
    }
}

fn private(file: &Path) {
    netns::run(&format!("chmod 600 {}", file.display())).unwrap();
}

/// The relay in the middle has links to one relay over Ethernet and to another over UDP, and
/// forwards frames between them.
#[test]
fn frames_pass_between_udp_and_ethernet_without_a_copy_of_ours() {
    let Some([near, far]) = pair() else { return };
    for (backend, multi_buffer) in [("af_xdp", true), ("af_packet", true), ("af_xdp", false)] {
        let homes = [Home::new(), Home::new(), Home::new()];
        let keys = homes.each_ref().map(|home| home.key.clone());
        let [a, b, c] = homes;
        let udp = |at: u32, key: &str, to: Option<u32>, more: &str| {
            let to = to.map(|to| format!("address = \"127.0.0.1:{to}\"\n")).unwrap_or_default();
            format!(
                "[[udp]]\nname = \"wan\"\naddress = \"127.0.0.1:{at}\"\n\
                 [[peer]]\nname = \"by-udp\"\nkey = \"{key}\"\nlistener = \"wan\"\n{to}{more}"
            )
        };
        let ends = by_ethernet(&keys[1], Some(MACS[1]), "auto", "");
        let first = Relay::within(&near, a, &ends);
        let middle = by_ethernet(&keys[0], None, backend, &udp(7000, &keys[2], None, "slot = 3\n"));
        let middle =
            middle.replace("[[unix]]", &format!("multi_buffer = {multi_buffer}\n[[unix]]"));
        let middle = Relay::within(&far, b, &middle);
        let third = format!(
            "[identity]\nkey = \"DIR/key\"\nnetwork = \"test\"\n\
             [[unix]]\nname = \"local\"\npath = \"DIR/local\"\nslot = 4\n{}",
            udp(7001, &keys[1], Some(7000), "slot = 2\n")
        );
        let third = Relay::within(&far, c, &third);
        until_up([&first, &third]);
        eventually("both links of the middle are up", || {
            let peers = middle.ask(r#"{"show":"peers"}"#);
            peers["peers"].as_array().unwrap().iter().all(|peer| peer["up"] == true).then_some(())
        });
        let (mut at_first, mut at_third) = (first.client(), third.client());
        let before = middle.copied();
        for n in 0..20 {
            let text = vec![n; 1 + 60 * usize::from(n)];
            assert_passes_along(&[(4, 2), (2, 3), (2, 4)], &mut at_first, &mut at_third, &text);
            assert_passes_along(&[(4, 2), (3, 2), (2, 4)], &mut at_third, &mut at_first, &text);
        }
        // Send bursts, because in a train only the first frame has headroom.
        let mut bursts = 0;
        eventually("frames in trains", || {
            for n in 0..40 {
                let way = [(4, 2), (3, 2), (2, 4)];
                assert!(at_third.send(&packet(&way, &[n; 500]), DEADLINE).unwrap());
            }
            let mut bytes = [0; 2048];
            for n in 0..40 {
                let received = at_first.receive(&mut bytes, DEADLINE).unwrap().expect("it arrives");
                assert_eq!(bytes[LINK_HEADER_BYTES + HEADER_64_BYTES..received.len], [n; 500]);
            }
            bursts += 1;
            let copied = middle.copied() - before;
            assert!(!multi_buffer || copied == 0, "{backend}: {copied} copied");
            let enough = if multi_buffer { bursts >= 20 } else { copied > 0 };
            enough.then_some(())
        });
        for relay in [first, middle, third] {
            relay.stop();
        }
    }
}

/// The relay runs as an unprivileged user with only the capabilities that docs/relay/systemd.md
/// names.
#[test]
fn a_relay_of_an_ordinary_user_opens_an_ethernet_port() {
    let Some([near, _far]) = pair() else { return };
    let directory = Home::without_key();
    let made = netns::run(&format!("chown 65534:65534 {}", directory.path().display()));
    // Copy the command, because the user may lack access to its folder.
    let command = directory.path().join("strowger");
    copy_program(Path::new(STROWGER), &command);
    if let Err(why) = made.and(netns::run("setpriv --version")) {
        return skip(&why);
    }
    let config = "[[ethernet]]\ninterface = \"e0\"\nbackend = \"af_xdp\"\nseal = \"plain\"\n\
                  [[neighbour]]\nname = \"b\"\naddress = \"02:00:00:00:00:0b\"\nslot = 2\n";
    let before = format!(
        "ip netns exec {} setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set \
         -all,{CAPABILITIES} --inh-caps -all,{CAPABILITIES} --ambient-caps -all,{CAPABILITIES} {}",
        near.0,
        command.display()
    );
    let relay = Relay::start(&before, directory, config);
    assert!(relay.printed.contains("by xdp_copy"), "{}", relay.printed);
    relay.stop();
}

/// Asserts, from the kernel's reports, that no thread of a relay has kept privileges.
fn assert_is_nobody(relay: &Relay) {
    let tasks = format!("/proc/{}/task", relay.child.id());
    let tasks: Vec<_> = fs::read_dir(tasks).unwrap().map(|task| task.unwrap().path()).collect();
    assert!(tasks.len() >= 4, "slow path, signals, control socket, worker: {tasks:?}");
    for task in tasks {
        let status = fs::read_to_string(task.join("status")).unwrap();
        let of = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_whitespace().skip(1).collect::<Vec<_>>()
        };
        assert_eq!((of("Uid:"), of("Gid:")), (vec!["65534"; 4], vec!["65534"; 4]), "{status}");
        assert!(of("Groups:").is_empty() && of("NoNewPrivs:") == ["1"], "{status}");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(of(set), ["0000000000000000"], "{set} {status}");
        }
        // The process is not dumpable, so only root may read its memory.
        assert_eq!(fs::metadata(task.join("mem")).unwrap().uid(), 0);
    }
}

/// The relay starts as root and runs as `nobody`. Sockets that root opened keep working, and new
/// files belong to `nobody`. At the end the XDP program is detached from the interface.
#[test]
fn a_relay_that_has_given_its_rights_up_forwards_and_ends_in_order() {
    let Some([near, far]) = pair() else { return };
    for (backend, udp) in [("af_xdp", "auto"), ("af_packet", "mmsg")] {
        let (a, b) = (Home::new(), Home::new());
        let (key_a, key_b) = (a.key.clone(), b.key.clone());
        netns::run(&format!("chown nobody {}", a.path().display())).unwrap();
        netns::run(&format!("chmod 711 {}", a.path().display())).unwrap();
        let more = format!(
            "[[udp]]\nname = \"wan\"\naddress = \"127.0.0.1:7000\"\nseal = \"plain\"\nbackend = \
             \"{udp}\"\ncapture = \"DIR/wan.pcapng\"\n[[neighbour]]\nname = \"n\"\naddress = \"127.0.0.1:7001\"\nslot = 3\n\
             listener = \"wan\"\n[switch]\nstate = \"DIR/state\"\n[process]\nuser = \"nobody\"\n"
        );
        let first = Relay::within(&near, a, &by_ethernet(&key_b, Some(MACS[1]), backend, &more));
        let second = Relay::within(&far, b, &by_ethernet(&key_a, None, backend, ""));
        let line = "user: nobody (65534:65534); all other privileges are given up";
        assert!(first.printed.contains(line), "{}", first.printed);
        assert_is_nobody(&first);
        until_up([&first, &second]);
        assert_relays_exchange(&first, &second);
        // The first relay also forwards to a third relay over UDP.
        let third = "[[udp]]\naddress = \"127.0.0.1:7001\"\nseal = \"plain\"\n[[neighbour]]\nname = \
                     \"n\"\naddress = \"127.0.0.1:7000\"\nslot = 2\n[[unix]]\nname = \"local\"\npath = \
                     \"DIR/local\"\nslot = 4\n";
        let third = Relay::within(&near, Home::without_key(), third);
        let (mut at_second, mut at_third) = (second.client(), third.client());
        for n in 0..20 {
            let text = [n; 300];
            assert_passes_along(&[(4, 2), (2, 3), (2, 4)], &mut at_second, &mut at_third, &text);
            assert_passes_along(&[(4, 2), (3, 2), (2, 4)], &mut at_third, &mut at_second, &text);
        }
        third.stop();

        // Files that the running relay makes belong to the user.
        let state = first.path("state");
        assert_eq!(fs::metadata(&state).unwrap().uid(), 65534);
        let attached = first.ask(
            r#"{"attach":{"name":"later","address":"127.0.0.1:7002","listener":"wan","slot":77}}"#,
        );
        assert_eq!(attached["attached"], 77);
        eventually("the state file is written", || {
            fs::read_to_string(&state).unwrap().contains("later").then_some(())
        });
        let (_, keys) =
            (first.ask(r#"{"show":"status"}"#), fs::metadata(first.path("key")).unwrap());
        assert_eq!(keys.uid(), 0, "the key was read before, and stays owned by root");

        let files = ["control", "local"].map(|file| first.path(file));
        assert!(files.iter().all(|file| fs::metadata(file).unwrap().uid() == 65534));
        let xdp = |at: &Namespace| netns::run(&format!("ip -n {} link show dev e0", at.0)).unwrap();
        assert_eq!(xdp(&near).contains("xdp"), backend == "af_xdp");
        let directory = first.stop();
        assert!(files.iter().all(|file| !file.exists()), "the sockets are removed");
        eventually("the program is detached", || (!xdp(&near).contains("xdp")).then_some(()));
        let captured = fs::metadata(directory.path().join("wan.pcapng")).unwrap();
        assert!(captured.len() > 20 * 300, "a file that was opened before is written to the end");
        second.stop();
    }
}

/// Runs the relay, which must fail to start. Returns its error messages.
fn refused(before: &str, directory: &Path, config: &str) -> String {
    let file = directory.join("relay.toml");
    let config = config.replace("DIR", directory.to_str().unwrap());
    fs::write(&file, config).unwrap();
    let line = format!("{before} relay --config {}", file.display());
    netns::run(&line).expect_err("the relay refuses to start")
}

#[test]
fn rights_that_cannot_be_given_up_are_refused_with_the_reason() {
    if !netns::run("id -u").unwrap().starts_with("0\n") {
        return skip("only root has rights to give up");
    }
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let relay = |more: &str| format!("control.socket = \"DIR/control\"\n{more}");
    let as_nobody = "[process]\nuser = \"nobody\"\n";
    let cases = [
        ("[process]\nuser = \"no-such-user\"\n", "there is no user \"no-such-user\""),
        ("[process]\nuser = \"nobody\"\ngroup = \"no-such\"\n", "there is no group \"no-such\""),
        ("[process]\nuser = \"root\"\n", "name an ordinary user"),
    ];
    for (more, why) in cases {
        let message = refused(STROWGER, dir, &relay(more));
        assert!(message.contains(why) && !dir.join("control").exists(), "{message}");
    }
    // The folder belongs to root, so `nobody` could not write there. The start reports that.
    let message =
        refused(STROWGER, dir, &relay(&format!("switch.state = \"DIR/state\"\n{as_nobody}")));
    let folder = dir.display();
    let why = format!("state file {folder}/state: nobody cannot write in {folder}");
    assert!(message.contains(&why) && message.contains("chown nobody"), "{message}");
    // A process without privileges cannot switch to another user, but the configuration may name
    // its own user.
    if let Err(why) = netns::run("setpriv --version") {
        return skip(&why);
    }
    let home = Home::without_key();
    netns::run(&format!("chmod 777 {}", home.path().display())).unwrap();
    let command = home.path().join("strowger");
    copy_program(Path::new(STROWGER), &command);
    let daemon = format!("setpriv --reuid 1 --regid 1 --clear-groups {}", command.display());
    let message = refused(&daemon, home.path(), &relay(as_nobody));
    assert!(message.contains("this process cannot become another user"), "{message}");
    let relay = Relay::start(&daemon, home.clone(), "[process]\nuser = \"daemon\"\n");
    assert!(relay.printed.contains("user: daemon (1:1)"), "{}", relay.printed);
    relay.stop();
}

/// While the relay is stopped by SIGSTOP, the kernel drops frames. After SIGCONT the relay shows
/// the drops by reason and, for Ethernet, accounts for all frames sent to it.
#[test]
fn what_the_kernel_drops_is_shown_by_reason() {
    let Some([near, far]) = pair() else { return };
    let lan = |backend: &str, lent: u32, mac: &str| {
        format!(
            "[[ethernet]]\nname = \"in\"\ninterface = \"e0\"\nseal = \"plain\"\nbackend = \
             \"{backend}\"\nfill_ring_frames = {lent}\n[[neighbour]]\nname = \"n\"\naddress = \"{mac}\"\n\
             slot = 2\n"
        )
    };
    let wan = |at: u32, to: u32| {
        format!(
            "[[udp]]\nname = \"in\"\naddress = \"127.0.0.1:{at}\"\nseal = \"plain\"\n\
             socket_buffer_bytes = 8192\n[[neighbour]]\nname = \"n\"\naddress = \
             \"127.0.0.1:{to}\"\nslot = 2\n"
        )
    };
    let endpoint = "[[unix]]\nname = \"local\"\npath = \"DIR/local\"\nslot = 4\n";
    for (config, reasons) in [
        (lan("af_xdp", 4096, MACS[1]), &["kernel_rx_ring_full"][..]),
        (lan("af_xdp", 64, MACS[1]), &["kernel_fill_ring_empty", "kernel_rx_dropped"]),
        (lan("af_packet", 64, MACS[1]), &["kernel_socket_full"]),
        (wan(7000, 7001), &["kernel_socket_full"]),
    ] {
        let by_udp = config.contains("[[udp]]");
        let relay = Relay::within(&near, Home::without_key(), &config);
        let (place, other) =
            if by_udp { (&near, wan(7001, 7000)) } else { (&far, lan("af_xdp", 64, MACS[0])) };
        let other = Relay::within(place, Home::without_key(), &(other + endpoint));
        let mut client = other.client();
        // Slot 9 of the relay is empty, so the relay drops and counts each packet.
        let packet = packet(&[(4, 2), (2, 9)], &[7; 1000]);
        let out = || {
            let ports = other.ask(r#"{"show":"ports"}"#);
            ports["ports"][0]["frames_out"].as_u64().unwrap()
        };
        let before = out();
        netns::run(&format!("kill -STOP {}", relay.child.id())).unwrap();
        // Repeat until enough frames are sent: on a busy machine the other relay may drop some
        // itself.
        eventually("the kernel's queue overflows", || {
            for _ in 0..500 {
                assert!(client.send(&packet, DEADLINE).unwrap());
            }
            (out() >= before + 10_000).then_some(())
        });
        netns::run(&format!("kill -CONT {}", relay.child.id())).unwrap();
        let reply = eventually("the relay reports the drops", || {
            // A UDP socket reports the kernel's drops only with the next datagram.
            assert!(client.send(&packet, DEADLINE).unwrap());
            let reply = relay.ask(r#"{"show":"discards"}"#);
            let of_port = reply["ports"][0]["kernel_drops_by_reason"].clone();
            reasons.iter().all(|reason| of_port[reason].as_u64() > Some(0)).then_some(reply)
        });
        assert_eq!(reply["kernel_drops_by_reason"], reply["ports"][0]["kernel_drops_by_reason"]);
        assert!(reply["balance"]["kernel_drops"].as_u64() > Some(0), "{reply}");
        let names = reply["kernel_drops_by_reason"].as_object().unwrap().keys();
        assert!(names.map(String::as_str).eq(reasons.iter().copied()), "{reply}");
        // With UDP the kernel counts one drop per train, not per frame.
        if !by_udp {
            eventually("all sent packets are accounted for", || {
                let balance = relay.ask(r#"{"show":"discards"}"#)["balance"].take();
                let came = balance["frames_in"].as_u64()? + balance["kernel_drops"].as_u64()?;
                (came == out()).then_some(())
            });
        }
        let socket = relay.path("control");
        eventually("show reports balanced counters", || {
            let shown =
                netns::run(&format!("{STROWGER} show discards --socket {}", socket.display()));
            let shown = shown.unwrap();
            assert!(reasons.iter().all(|reason| shown.contains(reason)), "{shown}");
            (shown.contains("(balanced)") && shown.contains("empty_slot")).then_some(())
        });
        relay.stop();
        other.stop();
    }
}
