//! Relays in network namespaces, joined by a veth pair that the test makes and removes. Nothing here
//! touches an interface of the machine, or sleeps.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
};

use serde_json::Value;
use strowger_io::{
    unix::Client,
    xdp::features::{RX_VLAN_OFFLOADS, TX_VLAN_OFFLOADS, set_features_in},
};
use strowger_wire::{link_header::LINK_HEADER_BYTES, switch_header::HEADER_64_BYTES};
use tempfile::TempDir;

use super::{DEADLINE, eventually, packet};

pub(crate) const STROWGER: &str = env!("CARGO_BIN_EXE_strowger");
/// Of the two ends of the pair.
pub(crate) const MACS: [&str; 2] = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"];

pub(crate) fn words(line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    let output = output.map_err(|error| format!("{line}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{line}: {}", said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) use strowger_testkit::skip;

/// A network namespace, until it is dropped.
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    pub(crate) fn new() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("strowger-node-{}-{n}", std::process::id());
        words(&format!("ip netns add {name}"))?;
        Ok(Self(name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(why) = words(&format!("ip netns del {}", self.0)) {
            eprintln!("a namespace is left behind: {why}");
        }
    }
}

/// Two namespaces with `e0` in each, or a word of why not; in CI the latter is a failure.
pub(crate) fn pair() -> Option<[Namespace; 2]> {
    pair_with("")
}

/// The same, with these words for each end.
pub(crate) fn pair_with(more: &str) -> Option<[Namespace; 2]> {
    let make = || -> Result<[Namespace; 2], String> {
        let pair = [Namespace::new()?, Namespace::new()?];
        join(&pair, more)?;
        for Namespace(name) in &pair {
            words(&format!("ip -n {name} link set dev lo up"))?;
        }
        Ok(pair)
    };
    make().inspect_err(|why| skip(why)).ok()
}

/// Puts `e0` into each, with these words for each end, and up.
pub(crate) fn join([near, far]: &[Namespace; 2], more: &str) -> Result<(), String> {
    words(&format!(
        "ip link add e0 netns {} address {} {more} type veth peer name e0 netns {} address {} {more}",
        near.0, MACS[0], far.0, MACS[1]
    ))?;
    for Namespace(name) in [near, far] {
        // Without IPv6 nothing is on the wire but what we send.
        let _ = words(&format!("ip netns exec {name} sysctl -qw net.ipv6.conf.e0.disable_ipv6=1"));
        words(&format!("ip -n {name} link set dev e0 up"))?;
        // Tags lie in the frames, where an XDP program sees them.
        for features in [RX_VLAN_OFFLOADS, TX_VLAN_OFFLOADS] {
            offload(name, &features, false)?;
        }
    }
    Ok(())
}

/// Switches features of `e0` in this namespace.
pub(crate) fn offload(namespace: &str, features: &[&str], on: bool) -> Result<(), String> {
    let file = format!("/run/netns/{namespace}");
    set_features_in(file.as_ref(), "e0", features, on).map_err(|why| format!("{features:?}: {why}"))
}

/// A relay that runs, killed when dropped.
pub(crate) struct Relay {
    pub(crate) child: Child,
    pub(crate) lines: Receiver<String>,
    pub(crate) said: String,
    pub(crate) directory: TempDir,
}

impl Relay {
    /// Runs behind these words (`ip netns exec`, the command); `DIR` stands for its directory.
    pub(crate) fn start(before: &str, directory: TempDir, config: &str) -> Self {
        let dir = directory.path().to_str().unwrap();
        let config = format!("control.socket = \"{dir}/control\"\n{}", config.replace("DIR", dir));
        let file = directory.path().join("relay.toml");
        fs::write(&file, config).unwrap();
        let mut before = before.split_whitespace();
        let mut child = Command::new(before.next().unwrap())
            .args(before)
            .args(["relay", "--config", file.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command runs");
        let (lines_in, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| lines_in.send(line))
        });
        let mut relay = Self { child, lines, said: String::new(), directory };
        while !relay.said.ends_with("ready\n") {
            match relay.lines.recv_timeout(DEADLINE) {
                Ok(line) => relay.said += &(line + "\n"),
                Err(_) => panic!("not ready after {}", relay.said),
            }
        }
        relay
    }

    pub(crate) fn within(Namespace(name): &Namespace, directory: TempDir, config: &str) -> Self {
        Self::start(&format!("ip netns exec {name} {STROWGER}"), directory, config)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn ask(&self, request: &str) -> Value {
        let mut stream = UnixStream::connect(self.path("control")).expect("it is up");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        writeln!(stream, "{request}").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer comes");
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.ask(r#"{"show":"peers"}"#)["peers"][0]["up"] == true
    }

    pub(crate) fn copied(&self) -> u64 {
        self.ask(r#"{"show":"status"}"#)["frames_copied"].as_u64().unwrap()
    }

    /// The endpoint's process, once the relay has taken its first packet: what comes for it before
    /// that is nobody's.
    pub(crate) fn client(&self) -> Client {
        self.client_at("local", 4)
    }

    /// The same of another endpoint than the one that most have.
    pub(crate) fn client_at(&self, file: &str, slot: u32) -> Client {
        let taken = || {
            let slots = self.ask(r#"{"show":"slots"}"#);
            let slots = slots["slots"].as_array().unwrap();
            slots.iter().find(|row| row["slot"] == slot).unwrap()["frames_in"].as_u64()
        };
        let before = taken();
        let mut client = Client::connect(self.path(file)).expect("the relay listens");
        assert!(client.send(&packet(&[(slot, 200)], b"nobody is there"), DEADLINE).unwrap());
        eventually("the first packet is taken", || (taken() > before).then_some(()));
        client
    }

    /// The kernel's SIGKILL: nothing is said, and nothing put away. It may not be quite gone.
    pub(crate) fn kill(&mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap())
    }

    /// Ends it in order, with all that it had counted in balance.
    pub(crate) fn stop(mut self) -> TempDir {
        words(&format!("kill -TERM {}", self.child.id())).unwrap();
        let status = eventually("the relay ends", || self.child.try_wait().unwrap());
        let last = self.lines.iter().collect::<Vec<_>>().join("\n");
        assert!(status.success() && last.contains("(balanced)"), "{status}: {last}");
        std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn assert_passes(from: &mut Client, to: &mut Client, way: &[(u32, u32)], text: &[u8]) {
    assert!(from.send(&packet(way, text), DEADLINE).unwrap());
    let mut bytes = [0; 2048];
    let received = to.receive(&mut bytes, DEADLINE).unwrap().expect("a packet arrives");
    assert_eq!(&bytes[LINK_HEADER_BYTES + HEADER_64_BYTES..received.len], text);
}

/// A directory with a key in it, and that key.
pub(crate) fn home() -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    words(&format!("{STROWGER} key new {}", file.display())).unwrap();
    let id = words(&format!("{STROWGER} key id --json {}", file.display())).unwrap();
    let id: Value = serde_json::from_str(&id).unwrap();
    (directory, id["key"].as_str().unwrap().to_owned())
}

/// An endpoint at slot 4 and a peer behind `e0` at slot 2.
pub(crate) fn by_ethernet(key: &str, mac: Option<&str>, backend: &str, more: &str) -> String {
    let address = mac.map(|mac| format!("address = \"{mac}\"\n")).unwrap_or_default();
    format!(
        "[identity]\nkey = \"DIR/key\"\nnetwork = \"test\"\n\
         [[ethernet]]\nname = \"lan\"\ninterface = \"e0\"\nbackend = \"{backend}\"\n\
         [[unix]]\nname = \"local\"\npath = \"DIR/local\"\nslot = 4\n\
         [[peer]]\nname = \"peer\"\nkey = \"{key}\"\nslot = 2\nlistener = \"lan\"\n{address}{more}"
    )
}

pub(crate) fn until_up(relays: &[&Relay]) {
    eventually("the link is up", || relays.iter().all(|relay| relay.is_up()).then_some(()));
}

pub(crate) fn assert_exchange(a: &Relay, b: &Relay) {
    let (mut at_a, mut at_b) = (a.client(), b.client());
    for n in 0..20 {
        let text = vec![n; 1 + 60 * usize::from(n)];
        assert_passes(&mut at_a, &mut at_b, &[(4, 2), (2, 4)], &text);
        assert_passes(&mut at_b, &mut at_a, &[(4, 2), (2, 4)], &text);
    }
}
