//! Runs relays as processes of the command `strowger`, each in its own folder, and sends requests
//! to them.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
};

use serde_json::Value;
use strowger_io::unix::Client;
use strowger_wire::scheme::V3X5X8;
use tempfile::TempDir;

use super::{
    HEADERS_BYTES, label,
    netns::{self, Namespace},
    packet,
};
use crate::{DEADLINE, eventually};

/// The path of the command `strowger`. Cargo builds it before the tests of its package.
pub fn binary() -> &'static str {
    static BINARY: OnceLock<String> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        // target/PROFILE/deps/TEST
        let binary = test.ancestors().nth(2).unwrap().join("strowger");
        assert!(binary.exists(), "{} is not built", binary.display());
        binary.to_str().unwrap().to_owned()
    })
}

/// Runs the command with these arguments until it ends.
pub fn strowger(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().expect("the command runs")
}

/// A loopback address that no other test uses.
///
/// The test must not bind the address itself before the relay does: a process that another test
/// starts in that time would briefly inherit the socket.
pub fn loopback_address() -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    const HOSTS: u16 = 250;
    let number = GIVEN.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let [.., high, low] = process.to_be_bytes();
    let ip = Ipv4Addr::new(127, high | 0x40, low, 1 + (number % HOSTS) as u8);
    // Process IDs have at most 22 bits.
    let port = 7_000 + (process >> 14) as u16 + 256 * (number / HOSTS);
    SocketAddr::from((ip, port))
}

/// The folder of one relay: key, configuration, sockets. It outlives the relay, which may start
/// again in the same folder.
#[derive(Debug)]
pub struct Home {
    directory: TempDir,
    /// The public key, as peers configure it. Empty if the folder has no key.
    pub key: String,
    /// The PeerId, as peers pin it. Empty if the folder has no key.
    pub peer_id: String,
    /// The address for the relay's UDP listener.
    pub at: SocketAddr,
}

impl Home {
    /// A folder with a key in the file `key`.
    pub fn new() -> Arc<Self> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let file = file.to_str().unwrap();
        assert!(strowger(&["key", "new", file]).status.success());
        let id = strowger(&["key", "id", "--json", file]);
        let id: Value = serde_json::from_slice(&id.stdout).unwrap();
        let word = |key: &str| id[key].as_str().unwrap().to_owned();
        let (key, peer_id) = (word("key"), word("peer_id"));
        Arc::new(Self { directory, key, peer_id, at: loopback_address() })
    }

    /// An empty folder.
    pub fn without_key() -> Arc<Self> {
        Self::of(tempfile::tempdir().unwrap())
    }

    /// A relay's folder in this directory.
    pub fn of(directory: TempDir) -> Arc<Self> {
        let (key, peer_id) = (String::new(), String::new());
        Arc::new(Self { directory, key, peer_id, at: loopback_address() })
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The path of a file in this folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Sends a request to the relay that runs in this folder. Returns the reply.
    pub fn ask(&self, request: &str) -> Value {
        let mut stream = UnixStream::connect(self.file("control")).expect("the relay runs");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        writeln!(stream, "{request}").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("the relay answers");
        serde_json::from_str(&line).unwrap()
    }

    /// Starts a relay with a unix endpoint at slot 4 and a peer with this key at slot 2.
    pub fn start(self: &Arc<Self>, key: &str, at: Option<SocketAddr>, more: &str) -> Relay {
        let address = at.map(|at| format!("address = \"{at}\"\n")).unwrap_or_default();
        self.start_with(&format!(
            "[[peer]]\nname = \"peer\"\nkey = \"{key}\"\nslot = 2\n{address}{more}\n"
        ))
    }

    /// Starts a relay with a unix endpoint at slot 4 and these sections.
    pub fn start_with(self: &Arc<Self>, sections: &str) -> Relay {
        self.start_in("test", sections)
    }

    /// Like `start_with`, in the network with this name.
    pub fn start_in(self: &Arc<Self>, network: &str, sections: &str) -> Relay {
        let config = format!(
            "[identity]\nkey = \"DIR/key\"\nnetwork = \"{network}\"\n\
             [liveness]\ninterval_ms = 500\nmultiplier = 3\nalways = true\n\
             [[udp]]\naddress = \"{}\"\n\
             [[unix]]\nname = \"local\"\npath = \"DIR/local\"\nslot = 4\n{sections}",
            self.at
        );
        Relay::start(binary(), self.clone(), &config)
    }
}

/// A running relay. Dropping it kills the process.
#[derive(Debug)]
pub struct Relay {
    /// The process.
    pub child: Child,
    lines: Receiver<String>,
    /// The relay's standard output until it was ready.
    pub printed: String,
    /// Its folder.
    pub home: Arc<Home>,
}

impl Relay {
    /// Starts a relay with this configuration, in which `DIR` is its folder, and waits until it is
    /// ready. `command` is the path of `strowger`, or a command line that ends with it (`ip netns
    /// exec ...`).
    pub fn start(command: &str, home: Arc<Home>, config: &str) -> Self {
        let dir = home.path().to_str().unwrap();
        let config = format!("control.socket = \"{dir}/control\"\n{}", config.replace("DIR", dir));
        let file = home.file("relay.toml");
        fs::write(&file, config).unwrap();
        let mut command = command.split_whitespace();
        let mut child = Command::new(command.next().unwrap())
            .args(command)
            .args(["relay", "--config", file.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command runs");
        let (lines_in, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| lines_in.send(line))
        });
        let mut relay = Self { child, lines, printed: String::new(), home };
        while !relay.printed.ends_with("ready\n") {
            match relay.lines.recv_timeout(DEADLINE) {
                Ok(line) => relay.printed += &(line + "\n"),
                Err(_) => panic!("not ready after {}", relay.printed),
            }
        }
        relay
    }

    /// Starts a relay in a network namespace.
    pub fn within(Namespace(name): &Namespace, home: Arc<Home>, config: &str) -> Self {
        Self::start(&format!("ip netns exec {name} {}", binary()), home, config)
    }

    /// The path of a file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.file(name)
    }

    /// Sends a request to the control socket. Returns the reply.
    pub fn ask(&self, request: &str) -> Value {
        self.home.ask(request)
    }

    /// Runs the command with these arguments and this relay's control socket.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let socket = self.path("control");
        strowger(&[arguments, &["--socket", socket.to_str().unwrap()]].concat())
    }

    /// Like `command`, with `--json`. Returns the reply.
    pub fn command_json(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The events with this name in the relay's journal.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let mut events = self.ask(r#"{"show":"events"}"#);
        let mut events: Vec<Value> = serde_json::from_value(events["events"].take()).unwrap();
        events.retain(|event| event["event"] == name);
        events
    }

    /// Asserts that the output of `strowger show` for this topic contains these words, and that the
    /// JSON output has a list with the name of the topic.
    pub fn show(&self, topic: &str, words: &[&str]) {
        let output = self.command(&["show", topic]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(words.iter().all(|word| text.contains(word)), "{topic}: {text}");
        assert!(self.command_json(&["show", topic])[topic].is_array());
    }

    /// Whether the link to the first peer is up.
    pub fn is_up(&self) -> bool {
        self.ask(r#"{"show":"peers"}"#)["peers"][0]["up"] == true
    }

    /// The number of frames that the relay has copied.
    pub fn copied(&self) -> u64 {
        self.ask(r#"{"show":"status"}"#)["frames_copied"].as_u64().unwrap()
    }

    /// The number of frames that the relay has dropped for this reason.
    pub fn discards(&self, reason: &str) -> u64 {
        self.ask(r#"{"show":"discards"}"#)["discards"][reason].as_u64().unwrap_or_default()
    }

    /// A client of the unix endpoint `local` at slot 4.
    pub fn client(&self) -> Client {
        self.client_of("local", 4)
    }

    /// A client of the unix endpoint with this socket at this slot. The relay drops packets to the
    /// client until it has received a packet from the client, so this function sends a packet and
    /// waits until the relay has received it.
    pub fn client_of(&self, socket: &str, slot: u32) -> Client {
        let taken = || {
            let slots = self.ask(r#"{"show":"slots"}"#);
            let slots = slots["slots"].as_array().unwrap();
            slots.iter().find(|row| row["slot"] == slot).unwrap()["frames_in"].as_u64()
        };
        let before = taken();
        let mut client = Client::connect(self.path(socket)).expect("the relay listens");
        assert!(client.send(&packet(&[(slot, 1)], b"to the switch itself"), DEADLINE).unwrap());
        eventually("the relay takes the first packet", || (taken() > before).then_some(()));
        client
    }

    /// Kills the relay without cleanup. Returns its folder.
    pub fn kill(mut self) -> Arc<Home> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.home.clone()
    }

    /// Stops the relay with SIGTERM, and asserts that its counters balance. Returns its folder.
    pub fn stop(mut self) -> Arc<Home> {
        netns::run(&format!("kill -TERM {}", self.child.id())).unwrap();
        let status = eventually("the relay ends", || self.child.try_wait().unwrap());
        let last = self.lines.iter().collect::<Vec<_>>().join("\n");
        assert!(status.success() && last.contains("(balanced)"), "{status}: {last}");
        self.home.clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that is killed and waited for when the guard is dropped.
#[derive(Debug)]
pub struct KillOnDrop(pub Child);

impl KillOnDrop {
    /// Waits until the process ends. Returns its status, and the rest of its output if that was
    /// piped.
    pub fn output(&mut self) -> Output {
        let status = self.0.wait().expect("the process is a child of this one");
        let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
        if let Some(pipe) = &mut self.0.stdout {
            let _ = pipe.read_to_end(&mut output.stdout);
        }
        if let Some(pipe) = &mut self.0.stderr {
            let _ = pipe.read_to_end(&mut output.stderr);
        }
        output
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A configuration with a unix endpoint at slot 4, and at slot 2 a peer that is reached through the
/// interface `e0`.
pub fn by_ethernet(key: &str, mac: Option<&str>, backend: &str, more: &str) -> String {
    let address = mac.map(|mac| format!("address = \"{mac}\"\n")).unwrap_or_default();
    format!(
        "[identity]\nkey = \"DIR/key\"\nnetwork = \"test\"\n\
         [[ethernet]]\nname = \"lan\"\ninterface = \"e0\"\nbackend = \"{backend}\"\n\
         [[unix]]\nname = \"local\"\npath = \"DIR/local\"\nslot = 4\n\
         [[peer]]\nname = \"peer\"\nkey = \"{key}\"\nslot = 2\nlistener = \"lan\"\n{address}{more}"
    )
}

/// Waits until the links of all relays are up.
pub fn until_up<'a>(relays: impl AsRef<[&'a Relay]>) {
    let are_up = || relays.as_ref().iter().all(|relay| relay.is_up()).then_some(());
    eventually("the link is up", are_up);
}

/// Asserts that a packet passes from slot 4 of one relay through slot 2 to slot 4 of the next.
pub fn assert_passes(from: &mut Client, to: &mut Client, payload: &[u8]) {
    assert_passes_along(&[(4, 2), (2, 4)], from, to, payload);
}

/// Asserts that a packet passes along this path: the ingress and egress slot of each switch.
pub fn assert_passes_along(
    path: &[(u32, u32)],
    from: &mut Client,
    to: &mut Client,
    payload: &[u8],
) {
    assert!(from.send(&packet(path, payload), DEADLINE).unwrap());
    let mut bytes = [0; 2048];
    let received = to.receive(&mut bytes, DEADLINE).unwrap().expect("a packet arrives");
    assert_eq!(path.last().map(|(ingress, _)| *ingress), Some(received.ingress));
    assert_eq!(&bytes[HEADERS_BYTES..received.len], payload);
}

/// Asserts that a packet passes in each direction.
pub fn assert_exchange(a: &mut Client, b: &mut Client) {
    assert_passes(a, b, b"to b");
    assert_passes(b, a, b"to a");
}

/// Asserts that packets of many sizes pass in each direction between the endpoints of two relays.
pub fn assert_relays_exchange(a: &Relay, b: &Relay) {
    let (mut at_a, mut at_b) = (a.client(), b.client());
    for n in 0..20 {
        let payload = vec![n; 1 + 60 * usize::from(n)];
        assert_passes(&mut at_a, &mut at_b, &payload);
        assert_passes(&mut at_b, &mut at_a, &payload);
    }
}

/// Runs `strowger ping` or `trace` along this path with `--json`. Returns its output, one value per
/// line, and its exit code.
pub fn probe(relay: &Relay, verb: &[&str], path: &[(u32, u32)]) -> (Vec<Value>, Option<i32>) {
    let label = label(&V3X5X8, path).to_string();
    let output = relay.command(&[verb, &[label.as_str(), "--json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), output.status.code())
}
