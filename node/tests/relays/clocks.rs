//! Relays whose wall clock is wrong or is set, and relays on a machine that was suspended. A
//! preloaded library changes the clocks.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::STROWGER;
use serde_json::Value;
use strowger_testkit::{
    eventually,
    harness::{netns, relay::*},
    skip,
};
use tempfile::TempDir;

/// The preloaded library, and the files with the offsets of the clocks.
pub(crate) struct Shim {
    directory: TempDir,
}

impl Shim {
    /// Builds the library with the machine's C compiler. Returns `None` and skips the test if there
    /// is no compiler.
    pub(crate) fn build() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("clock.c");
        fs::write(&source, include_str!("clock.c")).unwrap();
        let library = directory.path().join("clock.so");
        let (source, library) = (source.display(), library.display());
        let built = netns::run(&format!("cc -shared -fPIC -O1 -o {library} {source}"));
        built.inspect_err(|why| skip(why)).ok()?;
        let shim = Self { directory };
        for clock in ["real", "boot", "mono"] {
            shim.set(clock, 0);
        }
        Some(shim)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Sets the offset of this clock (`real`, `boot` or `mono`), in seconds.
    pub(crate) fn set(&self, clock: &str, seconds: i64) {
        // Replace the file atomically, so that a relay does not read a part of it.
        let new = self.file("new");
        fs::write(&new, seconds.to_string()).unwrap();
        fs::rename(new, self.file(clock)).unwrap();
    }

    /// The command line that runs `command` with the library.
    pub(crate) fn before(&self, command: &str) -> String {
        let file = |name: &str| self.file(name).display().to_string();
        format!(
            "env LD_PRELOAD={} CLOCK_OFF_REAL={} CLOCK_OFF_BOOT={} CLOCK_OFF_MONO={} {command}",
            file("clock.so"),
            file("real"),
            file("boot"),
            file("mono")
        )
    }
}

/// A configuration with an endpoint at slot 4 and a peer at slot 2.
fn config(at: SocketAddr, key: &str, peer: Option<SocketAddr>) -> String {
    let address = peer.map(|peer| format!("address = \"{peer}\"\n")).unwrap_or_default();
    format!(
        "[identity]\nkey = \"DIR/key\"\nnetwork = \"test\"\n\
         [liveness]\ninterval_ms = 500\nmultiplier = 3\nalways = true\n\
         [[udp]]\naddress = \"{at}\"\n\
         [[unix]]\nname = \"local\"\npath = \"DIR/local\"\nslot = 4\n\
         [[peer]]\nname = \"peer\"\nkey = \"{key}\"\nslot = 2\n{address}"
    )
}

fn events(relay: &Relay, name: &str) -> Vec<Value> {
    let mut events = relay.ask(r#"{"show":"events"}"#);
    let mut events: Vec<Value> = serde_json::from_value(events["events"].take()).unwrap();
    events.retain(|event| event["event"] == name);
    events
}

fn handshakes(relay: &Relay) -> u64 {
    relay.ask(r#"{"show":"peers"}"#)["peers"][0]["handshakes"].as_u64().unwrap()
}

/// Moves the key of this folder to a new folder.
fn moved(home: &Home) -> Arc<Home> {
    let new = Home::without_key();
    fs::rename(home.file("key"), new.file("key")).unwrap();
    new
}

#[test]
fn a_relay_that_starts_in_1970_reports_it_and_gets_its_link_once_the_clock_is_set() {
    let Some(shim) = Shim::build() else { return };
    let (dir_a, dir_b) = (Home::new(), Home::new());
    let (key_a, key_b) = (dir_a.key.clone(), dir_b.key.clone());
    let a_at = [loopback_address(), loopback_address()];
    let b_at = loopback_address();
    let before = shim.before(STROWGER);
    let b = Relay::start(STROWGER, dir_b, &config(b_at, &key_a, None));
    let a = Relay::start(&before, dir_a, &config(a_at[0], &key_b, Some(b_at)));
    until_up([&a, &b]);
    let made = handshakes(&b);

    // A restarts at another address, so B does not reach it. A's wall clock now shows 1970.
    let dir_a = moved(&a.kill());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    shim.set("real", 100 - now);
    let a = Relay::start(&before, dir_a, &config(a_at[1], &key_b, Some(b_at)));
    let event = eventually("the relay reports the wrong clock", || events(&a, "clock_wrong").pop());
    assert!(event["detail"].as_str().unwrap().contains("1970-01-01"), "{event}");
    eventually("B has lost the link", || (!b.is_up()).then_some(()));
    eventually("B refuses A's handshakes", || {
        let all = b.ask(r#"{"show":"discards"}"#)["discards"].clone();
        let counts: Vec<(String, u64)> = serde_json::from_value::<serde_json::Map<_, _>>(all)
            .unwrap()
            .into_iter()
            .filter_map(|(name, count)| Some((name, count.as_u64()?)))
            .collect();
        counts.iter().any(|(name, count)| name != "handled" && *count > 0).then_some(())
    });
    assert_eq!((a.is_up(), handshakes(&b)), (false, made));

    shim.set("real", 0);
    until_up([&a, &b]);
    assert_relays_exchange(&a, &b);
    let event = eventually("the relay reports the set clock", || events(&a, "clock_set").pop());
    assert!(event["detail"].as_str().unwrap().contains("forward"), "{event}");
    a.stop();
    b.stop();
}

#[test]
fn a_wall_clock_that_is_set_back_costs_no_link() {
    let Some(shim) = Shim::build() else { return };
    let (dir_a, dir_b) = (Home::new(), Home::new());
    let (key_a, key_b) = (dir_a.key.clone(), dir_b.key.clone());
    let (a_at, b_at) = (loopback_address(), loopback_address());
    let mut b = Relay::start(STROWGER, dir_b, &config(b_at, &key_a, None));
    let a = Relay::start(&shim.before(STROWGER), dir_a, &config(a_at, &key_b, Some(b_at)));
    until_up([&a, &b]);
    shim.set("real", -1_000_000);
    eventually("the relay reports the set clock", || events(&a, "clock_set").pop());
    // B restarts twice without its session keys and its other state. Each time a handshake with A
    // must succeed.
    for _ in 0..2 {
        let dir_b = moved(&b.kill());
        b = Relay::start(STROWGER, dir_b, &config(b_at, &key_a, None));
        eventually("the link is up", || {
            (handshakes(&b) > 0 && a.is_up() && b.is_up()).then_some(())
        });
        assert_relays_exchange(&a, &b);
    }
    a.stop();
    b.stop();
}

#[test]
fn while_the_machine_sleeps_keys_grow_old() {
    let Some(shim) = Shim::build() else { return };
    let (dir_a, dir_b) = (Home::new(), Home::new());
    let (key_a, key_b) = (dir_a.key.clone(), dir_b.key.clone());
    let (a_at, b_at) = (loopback_address(), loopback_address());
    let b = Relay::start(STROWGER, dir_b, &config(b_at, &key_a, None));
    let a = Relay::start(&shim.before(STROWGER), dir_a, &config(a_at, &key_b, Some(b_at)));
    until_up([&a, &b]);
    assert_relays_exchange(&a, &b);
    let made = handshakes(&a);
    // After this suspend the former keys are too old to seal with.
    shim.set("boot", 400);
    eventually("new keys are made", || (handshakes(&a) > made).then_some(()));
    until_up([&a, &b]);
    assert_relays_exchange(&a, &b);
    a.stop();
    b.stop();
}
