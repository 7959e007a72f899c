//! IPv6 link-local neighbours in two network namespaces, with their interface by name or by number.

use std::fs;

use strowger_testkit::{
    eventually,
    harness::{
        netns::{self, *},
        relay::*,
    },
    skip,
};

/// Like `pair`, with IPv6. The address of each end is derived from its MAC address (EUI-64).
fn pair_v6() -> Option<[Namespace; 2]> {
    let pair = pair()?;
    for Namespace(name) in &pair {
        // Duplicate address detection is off, so that the address is usable immediately.
        let set = |what: &str| {
            netns::run(&format!("ip netns exec {name} sysctl -qw net.ipv6.conf.e0.{what}"))
        };
        let made = set("accept_dad=0").and_then(|_| set("disable_ipv6=0"));
        if let Err(why) = made {
            skip(&why);
            return None;
        }
    }
    for Namespace(name) in &pair {
        eventually("the interface has its address", || {
            let shown =
                netns::run(&format!("ip -n {name} -6 -o addr show dev e0 scope link")).unwrap();
            (shown.contains("fe80::") && !shown.contains("tentative")).then_some(())
        });
    }
    Some(pair)
}

const AT: [&str; 2] = ["fe80::ff:fe00:a", "fe80::ff:fe00:b"];

fn config(listen: &str, key: &str, at: Option<&str>) -> String {
    let address = at.map(|at| format!("address = \"{at}\"\n")).unwrap_or_default();
    format!(
        "[identity]\nkey = \"DIR/key\"\nnetwork = \"t\"\n\
         [liveness]\ninterval_ms = 500\nmultiplier = 3\nalways = true\n\
         [[udp]]\naddress = \"{listen}\"\n\
         [[unix]]\nname = \"local\"\npath = \"DIR/local\"\nslot = 4\n\
         [[peer]]\nname = \"peer\"\nkey = \"{key}\"\nslot = 2\n{address}"
    )
}

/// wire.md: W8-8.
#[test]
fn link_local_neighbours_are_found_by_the_name_and_the_number_of_the_interface() {
    let Some([near, far]) = pair_v6() else { return };
    let number =
        netns::run(&format!("ip netns exec {} cat /sys/class/net/e0/ifindex", near.0)).unwrap();
    let number = number.trim();
    for (listen, scope) in [
        ("[::]:7000".to_owned(), "%e0".to_owned()),
        ("[::]:7000".to_owned(), format!("%{number}")),
        (format!("[{}%e0]:7000", AT[0]), "%e0".to_owned()),
        // The peer's address has no interface, so that of the listener applies.
        (format!("[{}%e0]:7000", AT[0]), String::new()),
    ] {
        let (a, b) = (Home::new(), Home::new());
        let (key_a, key_b) = (a.key.clone(), b.key.clone());
        let at = format!("[{}{scope}]:7000", AT[1]);
        let first = Relay::within(&near, a, &config(&listen, &key_b, Some(&at)));
        let second = Relay::within(&far, b, &config("[::]:7000", &key_a, None));
        let peer = |relay: &Relay| relay.ask(r#"{"show":"peers"}"#)["peers"][0].clone();
        eventually(&format!("{listen} to {at}"), || {
            [&first, &second].iter().all(|relay| peer(relay)["up"] == true).then_some(())
        });
        // The address is shown in the usual notation, however it was configured.
        assert_eq!(peer(&first)["address"], format!("[{}%e0]:7000", AT[1]));
        assert_eq!(peer(&second)["address"], format!("[{}%e0]:7000", AT[0]));
        let attach = |at: &str| {
            first.ask(&format!(
                r#"{{"attach":{{"name":"n","address":"{at}","key":"{}"}}}}"#,
                "07".repeat(32)
            ))
        };
        let attached = attach("[fe80::99%e0]:7000");
        assert!(attached["attached"].is_u64(), "{attached}");
        let refused = attach("[fe80::99%none]:7000");
        assert!(refused["error"].as_str().unwrap().contains("no interface none"), "{refused}");
        first.stop();
        second.stop();
    }
}

#[test]
fn addresses_that_can_never_work_are_refused_by_config_check_all_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.toml");
    let peer = |n: u8, at: &str| {
        format!(
            "[[peer]]\nname = \"p{n}\"\nkey = \"{}\"\naddress = \"{at}\"\n",
            format!("{n:02x}").repeat(32)
        )
    };
    let wrong = [
        "0.0.0.0:7000",
        "192.0.2.9:0",
        "255.255.255.255:7000",
        "224.0.0.5:7000",
        "127.0.0.1:7000",
        "[2001:db8::1]:7000",
        "192.0.2.9:7000",
        "[fe80::1%lo]:7000",
    ];
    let mut text = "[identity]\nkey = \"k\"\n[[udp]]\naddress = \"127.0.0.1:7000\"\n".to_owned();
    text += &peer(1, "192.0.2.9:7000");
    for (n, at) in wrong.iter().enumerate() {
        text += &peer(n as u8 + 2, at);
    }
    fs::write(&file, text).unwrap();
    let output = strowger(&["config", "check", file.to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), wrong.len()), "{stderr}");
    for ((n, at), line) in wrong.iter().enumerate().zip(stderr.lines()) {
        let words = [
            format!("relay.toml:{}: ", 12 + 4 * n),
            format!("peer \"p{}\": address \"{at}\" ", n + 2),
        ];
        assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
    }
}
