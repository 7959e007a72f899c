//! Relays as processes, each in a home of its own with its key, its configuration and its sockets, and
//! what is asked of them. Nothing here sleeps.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
};

use serde_json::Value;
use strowger_io::unix::Client;
use strowger_wire::{
    Hop, Label, Slot, link_header::LINK_HEADER_BYTES, scheme::V3X5X8,
    switch_header::HEADER_64_BYTES,
};
use tempfile::TempDir;

use super::{DEADLINE, eventually, packet};

pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strowger")).args(arguments).output().expect("it runs")
}

/// An address of the loopback that no other test is given.
///
/// It is not bound before the relay binds it: a process that another test starts meanwhile would inherit the socket
/// for a moment.
pub(crate) fn loopback_address() -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    const HOSTS: u16 = 250;
    let number = GIVEN.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let [.., high, low] = process.to_be_bytes();
    let ip = Ipv4Addr::new(127, high | 0x40, low, 1 + (number % HOSTS) as u8);
    // Process numbers have 22 bits at most.
    let port = 7_000 + (process >> 14) as u16 + 256 * (number / HOSTS);
    SocketAddr::from((ip, port))
}

/// A folder for one node: its key, its configuration, its sockets.
pub(crate) struct Home {
    pub(crate) directory: TempDir,
    /// What others configure.
    pub(crate) key: String,
    /// Who it is: what others may pin.
    pub(crate) peer_id: String,
    /// Where it listens.
    pub(crate) at: SocketAddr,
}

impl Home {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let file = file.to_str().unwrap();
        assert!(run(&["key", "new", file]).status.success());
        let id = run(&["key", "id", "--json", file]);
        let id: Value = serde_json::from_slice(&id.stdout).unwrap();
        let at = loopback_address();
        let word = |key: &str| id[key].as_str().unwrap().to_owned();
        Self { key: word("key"), peer_id: word("peer_id"), directory, at }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Asks the relay that runs here.
    pub(crate) fn ask(&self, request: &str) -> Value {
        let mut stream = UnixStream::connect(self.path("control")).expect("it is up");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        writeln!(stream, "{request}").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer comes");
        serde_json::from_str(&line).unwrap()
    }

    /// A relay with an endpoint at slot 4 and a peer with this key at slot 2.
    pub(crate) fn start(&self, key: &str, at: Option<SocketAddr>, more: &str) -> Relay<'_> {
        let address = at.map(|at| format!("address = \"{at}\"\n")).unwrap_or_default();
        self.start_with(&format!(
            "[[peer]]\nname = \"peer\"\nkey = \"{key}\"\nslot = 2\n{address}{more}\n"
        ))
    }

    /// A relay with an endpoint at slot 4, and these sections.
    pub(crate) fn start_with(&self, sections: &str) -> Relay<'_> {
        self.start_in("test", sections)
    }

    /// The same in a network of this name.
    pub(crate) fn start_in(&self, network: &str, sections: &str) -> Relay<'_> {
        let dir = self.directory.path().to_str().unwrap();
        let config = format!(
            "control.socket = \"{dir}/control\"\n\
             [identity]\nkey = \"{dir}/key\"\nnetwork = \"{network}\"\n\
             [liveness]\ninterval_ms = 500\nmultiplier = 3\nalways = true\n\
             [[udp]]\naddress = \"{}\"\n\
             [[unix]]\nname = \"local\"\npath = \"{dir}/local\"\nslot = 4\n{sections}",
            self.at
        );
        let file = self.path("relay.toml");
        fs::write(&file, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_strowger"))
            .args(["relay", "--config", file.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command runs");
        let (lines_in, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| lines_in.send(line))
        });
        let mut relay = Relay { child, lines, said: Vec::new(), home: self };
        while relay.said.last().map(String::as_str) != Some("ready") {
            match relay.lines.recv_timeout(DEADLINE) {
                Ok(line) => relay.said.push(line),
                Err(_) => panic!("not ready after {:#?}", relay.said),
            }
        }
        relay
    }
}

/// A relay that runs, killed when dropped.
pub(crate) struct Relay<'h> {
    child: Child,
    lines: Receiver<String>,
    /// Until it was ready.
    pub(crate) said: Vec<String>,
    pub(crate) home: &'h Home,
}

impl Relay<'_> {
    pub(crate) fn ask(&self, request: &str) -> Value {
        self.home.ask(request)
    }

    /// The command with these arguments, asking this relay.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        let socket = self.home.path("control");
        run(&[arguments, &["--socket", socket.to_str().unwrap()]].concat())
    }

    /// The same with JSON as its answer.
    pub(crate) fn command_json(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// All events of this name.
    pub(crate) fn events(&self, name: &str) -> Vec<Value> {
        let mut events = self.ask(r#"{"show":"events"}"#);
        let mut events: Vec<Value> = serde_json::from_value(events["events"].take()).unwrap();
        events.retain(|event| event["event"] == name);
        events
    }

    pub(crate) fn show(&self, topic: &str, words: &[&str]) {
        let socket = self.home.path("control");
        let socket = socket.to_str().unwrap();
        let output = run(&["show", topic, "--socket", socket]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(words.iter().all(|word| text.contains(word)), "{topic}: {text}");
        let output = run(&["show", topic, "--json", "--socket", socket]);
        assert!(serde_json::from_slice::<Value>(&output.stdout).unwrap()[topic].is_array());
    }

    pub(crate) fn is_up(&self) -> bool {
        self.ask(r#"{"show":"peers"}"#)["peers"][0]["up"] == true
    }

    pub(crate) fn discards(&self, reason: &str) -> u64 {
        self.ask(r#"{"show":"discards"}"#)["discards"][reason].as_u64().unwrap_or_default()
    }

    /// The endpoint's process, once the relay has taken its first packet: what comes for it before
    /// that is nobody's.
    pub(crate) fn client(&self) -> Client {
        self.client_of("local", 4)
    }

    /// That of the endpoint with this name at this slot.
    pub(crate) fn client_of(&self, name: &str, slot: u32) -> Client {
        let taken = || {
            let slots = self.ask(r#"{"show":"slots"}"#);
            let slots = slots["slots"].as_array().unwrap();
            slots.iter().find(|row| row["slot"] == slot).unwrap()["frames_in"].as_u64()
        };
        let before = taken();
        let mut client = Client::connect(self.home.path(name)).expect("the relay listens");
        assert!(client.send(&packet(&[(slot, 1)], b"nobody is there"), DEADLINE).unwrap());
        eventually("the first packet is taken", || (taken() > before).then_some(()));
        client
    }

    /// Ends it in order, with all that it had counted in balance.
    pub(crate) fn stop(mut self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let status = eventually("the relay ends", || self.child.try_wait().unwrap());
        let last = self.lines.iter().collect::<Vec<_>>().join("\n");
        assert!(status.success() && last.contains("(balanced)"), "{status}: {last}");
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// That a packet passes from one end to the other.
pub(crate) fn assert_passes(from: &mut Client, to: &mut Client, text: &[u8]) {
    assert!(from.send(&packet(&[(4, 2), (2, 4)], text), DEADLINE).unwrap());
    let mut bytes = [0; 2048];
    let received = to.receive(&mut bytes, DEADLINE).unwrap().expect("a packet arrives");
    assert_eq!(received.ingress, 2);
    assert_eq!(&bytes[LINK_HEADER_BYTES + HEADER_64_BYTES..received.len], text);
}

/// The same there and back.
pub(crate) fn assert_exchange(a: &mut Client, b: &mut Client) {
    assert_passes(a, b, b"there");
    assert_passes(b, a, b"and back");
}

pub(crate) fn until_up(relays: [&Relay<'_>; 2]) {
    eventually("the link is up", || relays.iter().all(|relay| relay.is_up()).then_some(()));
}

/// `strowger ping` or `trace` of a label from this relay, with JSON: what it said, line by line, and its
/// exit code.
pub(crate) fn asked(
    relay: &Relay<'_>,
    verb: &[&str],
    way: &[(u32, u32)],
) -> (Vec<Value>, Option<i32>) {
    let hop = |&(ingress, egress)| Hop {
        scheme: &V3X5X8,
        ingress: Slot::new(ingress),
        egress: Slot::new(egress),
    };
    let way: Vec<Hop<'_>> = way.iter().map(hop).collect();
    let label = Label::<u64>::build(&way).expect("it fits").0.to_string();
    let socket = relay.home.path("control");
    let mut arguments = verb.to_vec();
    arguments.extend([&label, "--json", "--socket", socket.to_str().unwrap()]);
    let output = run(&arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), output.status.code())
}
