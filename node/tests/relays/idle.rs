//! In an idle relay the slow path, the workers and the thread of the control socket block. The test
//! counts wake-ups for some seconds. The bounds are far below the counts of a relay with a fixed
//! tick, and far above the observed counts.

use std::{collections::BTreeMap, fs, net::SocketAddr, thread, time::Duration};

use crate::STROWGER;
use strowger_testkit::{eventually, harness::relay::*};

/// The time for which wake-ups are counted.
const FOR: Duration = Duration::from_secs(6);

/// The number of wake-ups that a fixed tick of 50 ms would cause in that time.
const TICKS: u64 = 120;

fn slow_path_wakeups(relay: &Relay) -> u64 {
    relay.ask(r#"{"show":"status"}"#)["slow_path_wakeups"].as_u64().unwrap()
}

/// The number of voluntary context switches of a process's threads, by thread name.
fn waits(pid: u32) -> BTreeMap<String, u64> {
    let mut waits = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let status = read("status");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let count: u64 = line.and_then(|count| count.trim().parse().ok()).unwrap_or_default();
        *waits.entry(read("comm").trim().to_owned()).or_default() += count;
    }
    waits
}

/// Asserts that the slow path and the threads of an idle relay hardly wake up.
#[track_caller]
fn assert_asleep(relay: &Relay) {
    let woken = slow_path_wakeups(relay);
    let before = waits(relay.child.id());
    thread::sleep(FOR);
    let after = waits(relay.child.id());
    // The count includes the previous request and this one.
    let woken = slow_path_wakeups(relay) - woken;
    let of = |name: &String| before.get(name).copied().unwrap_or_default();
    let more: Vec<_> =
        after.iter().map(|(name, count)| (name, count.saturating_sub(of(name)))).collect();
    println!("{woken} wake-ups of the slow path; waits: {more:?}");
    assert!(woken <= TICKS / 6, "the slow path was woken {woken} times: {more:?}");
    assert!(more.iter().map(|(_, count)| count).sum::<u64>() <= TICKS / 2, "{more:?}");
}

#[test]
fn a_relay_without_links_sleeps_and_so_do_two_with_an_idle_sealed_link() {
    let directory = Home::new();
    let config = |at: SocketAddr, more: &str| {
        format!(
            "[identity]\nkey = \"DIR/key\"\nnetwork = \"test\"\n\
             [[udp]]\naddress = \"{at}\"\n\
             [[unix]]\nname = \"local\"\npath = \"DIR/local\"\nslot = 4\n{more}"
        )
    };
    let at = [0; 3].map(|_| loopback_address());
    let alone = Relay::start(STROWGER, directory, &config(at[0], ""));
    assert_asleep(&alone);
    alone.stop();

    let (first, second) = (Home::new(), Home::new());
    let (first_key, second_key) = (first.key.clone(), second.key.clone());
    let peer = |key: &str, at: SocketAddr| {
        format!("[[peer]]\nname = \"peer\"\nkey = \"{key}\"\nslot = 2\naddress = \"{at}\"\n")
    };
    let first = Relay::start(STROWGER, first, &config(at[1], &peer(&second_key, at[2])));
    let second = Relay::start(STROWGER, second, &config(at[2], &peer(&first_key, at[1])));
    until_up([&first, &second]);
    // Path MTU discovery runs once. After it, the link has keys and sends nothing.
    eventually("the path MTU is known", || {
        let is_found =
            |relay: &Relay| relay.ask(r#"{"show":"peers"}"#)["peers"][0]["mtu_found"] == true;
        (is_found(&first) && is_found(&second)).then_some(())
    });
    assert_asleep(&first);
    first.stop();
    second.stop();
}
