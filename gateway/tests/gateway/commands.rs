//! `send`, `receive`, `ping`, `probe` and `id` as processes, at a relay that runs in the test.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use strowger_crypto::{IdentityKey, Secret};
use strowger_runtime::{Relay, RelayHandle, UnixSocket};
use strowger_testkit::eventually;

use crate::GATEWAY;

/// A relay, and two users with a folder each: their keys and address books.
struct Network {
    folder: tempfile::TempDir,
    _relay: RelayHandle,
}

fn identity(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&Secret::from_bytes([seed; 32]))
}

fn peer(seed: u8) -> String {
    identity(seed).public().peer_id().to_string()
}

const ALICE: u8 = 1;
const BOB: u8 = 2;

impl Network {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = UnixSocket::new("programs", folder.path().join("programs")).clients(8);
        let builder = Relay::builder().workers(1).identity(identity(9)).network("test");
        let relay = builder.unix_socket(programs).start().unwrap();
        let users = [("alice", ALICE, "bob", BOB), ("bob", BOB, "alice", ALICE)];
        for (user, seed, other, other_seed) in users {
            let of = folder.path().join(user);
            fs::create_dir(&of).unwrap();
            let key = identity(seed).to_key_file();
            strowger_runtime::files::create(&of.join("key"), key.as_bytes()).unwrap();
            let book = format!(
                "[[name]]\nname = \"{other}\"\npeer_id = \"{}\"\npurposes = [\"connect\", \"accept\"]\n",
                peer(other_seed)
            );
            fs::write(of.join("peers.toml"), book).unwrap();
        }
        Self { folder, _relay: relay }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, user: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(GATEWAY);
        command.args(arguments).args(["--network", "test"]);
        command.arg("--folder").arg(self.at(user)).arg("--socket").arg(self.at("programs"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end, with this input.
    fn run(&self, user: &str, arguments: &[&str], input: &str) -> Output {
        let mut child = self.command(user, arguments).spawn().unwrap();
        // A program that has failed reads no input.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Starts a receiver, and waits until it accepts.
    fn receiver(&self, user: &str, arguments: &[&str]) -> Receiver {
        let mut child = self.command(user, &[&["receive"], arguments].concat()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        assert!(line.contains(" accepts /"), "{line}");
        Receiver { child, log }
    }
}

/// A `strowger receive`, which is killed on drop.
struct Receiver {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Receiver {
    /// Waits for the end. Returns the exit code, standard output and the rest of the log.
    fn end(mut self) -> (i32, String, String) {
        let status = eventually("the receiver ends", || self.child.try_wait().unwrap());
        let (mut out, mut log) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.log.read_to_string(&mut log).unwrap();
        (status.code().unwrap_or(-1), out, log)
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{error}{out}");
    text(&output.stdout)
}

#[test]
fn lines_go_both_ways_and_the_end_of_the_input_closes() {
    let network = Network::new();
    let mut receiver = network.receiver("bob", &["/chat/1"]);
    receiver.say("from bob");
    let mut sender = network.command("alice", &["send", "bob", "/chat/1"]).spawn().unwrap();
    let mut input = sender.stdin.take().unwrap();
    writeln!(input, "from alice").unwrap();
    // The peer's line arrives while the input is open.
    let mut line = String::new();
    BufReader::new(sender.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "from bob\n");
    write!(input, "\nlast").unwrap();
    drop(input);
    succeeded(&sender.wait_with_output().unwrap());
    let (code, out, log) = receiver.end();
    assert_eq!((code, out.as_str()), (0, "from alice\n\nlast\n"), "{log}");
    assert!(log.contains(&format!("{} has connected", peer(ALICE))), "{log}");
}

#[test]
fn a_file_arrives_whole_under_its_name() {
    let network = Network::new();
    let (source, target) = (network.at("source"), network.at("target"));
    let mut file = vec![0; 1_500_000];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut file).unwrap();
    fs::write(&source, &file).unwrap();
    let target_text = target.to_str().unwrap();
    let receiver = network.receiver("bob", &["/file/1", target_text, "--file"]);
    let send = ["send", "bob", "/file/1", source.to_str().unwrap(), "--file"];
    // A receiver of a file takes no lines, and waits for the file.
    let lines = network.run("alice", &["send", "bob", "/file/1"], "a line\n");
    assert_eq!(lines.status.code(), Some(2), "{}", text(&lines.stderr));
    assert!(text(&lines.stderr).contains("send one with --file"), "{}", text(&lines.stderr));
    let sent = network.run("alice", &send, "");
    succeeded(&sent);
    assert!(text(&sent.stderr).contains("sent 1500000 bytes"), "{}", text(&sent.stderr));
    let (code, _, log) = receiver.end();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("received 1500000 bytes"), "{log}");
    assert!(fs::read(&target).unwrap() == file);
    assert!(!network.at("target.part").exists());

    // An existing file is not overwritten, and a peer that prints lines accepts no file.
    let again = network.run("bob", &["receive", "/file/1", target_text, "--file"], "");
    assert_eq!(again.status.code(), Some(3));
    assert!(text(&again.stderr).contains("--force"), "{}", text(&again.stderr));
    let receiver = network.receiver("bob", &["/file/1"]);
    let sent = network.run("alice", &send, "");
    assert_eq!(sent.status.code(), Some(1), "{}", text(&sent.stderr));
    assert!(text(&sent.stderr).contains("strowger receive --file"), "{}", text(&sent.stderr));
    assert_eq!(receiver.end().0, 2);
}

#[test]
fn a_signal_ends_a_receiver_that_waits_and_leaves_no_file() {
    let network = Network::new();
    let (target, part) = (network.at("target"), network.at("target.part"));
    let receiver = network.receiver("bob", &["/file/1", target.to_str().unwrap(), "--file"]);
    assert!(part.exists());
    let killed = Command::new("kill").args(["-TERM", &receiver.child.id().to_string()]).status();
    assert!(killed.unwrap().success());
    let (code, _, log) = receiver.end();
    assert_eq!((code, log.as_str()), (128 + 15, ""));
    assert!(!part.exists());
}

#[test]
fn each_refusal_says_what_to_do() {
    let network = Network::new();
    let _receiver = network.receiver("bob", &["/chat/1", "--keep"]);
    let cases: [(&str, &[&str], i32, &str); 4] = [
        // The peer does not accept the protocol, or not from this node.
        ("alice", &["send", "bob", "/other/1"], 7, "does not accept"),
        ("bob", &["send", &peer(BOB), "/chat/1"], 7, "strowger key new FILE"),
        ("alice", &["send", &peer(5), "/chat/1"], 7, "no label leads to the peer"),
        ("alice", &["receive", "/x/1", "--from", "carol"], 2, "strowger peer add carol"),
    ];
    for (user, arguments, code, words) in cases {
        let ran = network.run(user, arguments, "hello\n");
        let error = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    let mut none = Command::new(GATEWAY);
    none.args(["send", "bob", "/chat/1"]).arg("--folder").arg(network.at("alice"));
    let ran = none.output().unwrap();
    assert_eq!(ran.status.code(), Some(4));
    assert!(text(&ran.stderr).contains("strowger relay"), "{}", text(&ran.stderr));
}

#[test]
fn a_peer_is_pinged_identified_and_probed() {
    let network = Network::new();
    let _receiver = network.receiver("bob", &["/chat/1", "--keep"]);
    let pinged = network.run("alice", &["ping", "bob", "-c", "3", "-i", "0", "--json"], "");
    let rows = succeeded(&pinged);
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert_eq!(row["pong"], true, "{row}");
        assert!(row["round_trip_us"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["label"].as_str().unwrap().starts_with("0000."), "{row}");
    }

    let id: Value =
        serde_json::from_str(&succeeded(&network.run("alice", &["id", "bob"], ""))).unwrap();
    assert_eq!(id["ID"], peer(BOB));
    assert!(id["AgentVersion"].as_str().unwrap().starts_with("strowger/"), "{id}");
    assert_eq!(id["Protocols"], serde_json::json!(["/chat/1"]));
    assert!(id["Addresses"].to_string().contains("/switch/"), "{id}");

    let probe = ["probe", "bob", "/chat/1", "--json"];
    let probed: Value =
        serde_json::from_str(&succeeded(&network.run("alice", &probe, ""))).unwrap();
    assert_eq!((&probed["ok"], &probed["failed"]), (&Value::Bool(true), &Value::Null), "{probed}");
    let stages = probed["stages"].as_array().unwrap();
    for wanted in [
        "address book",
        "relay",
        "resolution",
        "handshake",
        "round trip",
        "width",
        "identify",
        "protocol",
    ] {
        let stage = stages.iter().find(|stage| stage["stage"] == wanted);
        assert_eq!(stage.expect(wanted)["verdict"], "ok", "{probed}");
    }
    let of = |wanted: &str| stages.iter().find(|stage| stage["stage"] == wanted).unwrap();
    assert!(of("resolution")["text"].as_str().unwrap().contains("(the relay)"), "{probed}");
    let width = of("width")["text"].as_str().unwrap();
    assert!(width.contains("the longest that both ends handle"), "{width}");
    // The control socket of this relay cannot be asked.
    assert_eq!(
        (&of("label")["verdict"], &of("hop")["verdict"]),
        (&"not_checked".into(), &"not_checked".into())
    );
    let probed = network.run("alice", &["probe", "bob", "/other/1"], "");
    assert_eq!(probed.status.code(), Some(1));
    let report = text(&probed.stdout);
    assert!(report.contains("protocol      failed"), "{report}");
    assert!(report.ends_with(" is reached, but protocol failed\n"), "{report}");
    let probed = network.run("alice", &["probe", &peer(5)], "");
    assert_eq!(probed.status.code(), Some(7), "{}", text(&probed.stdout));
    let report = text(&probed.stdout);
    assert!(report.contains("resolution    failed"), "{report}");
    assert!(report.contains("no label leads to the peer"), "{report}");
    for stage in ["label", "hop", "handshake", "round trip", "width", "identify", "protocol"] {
        let line = report.lines().find(|line| line.starts_with(stage));
        assert!(line.is_some_and(|line| line.contains("not checked")), "{stage}: {report}");
    }
    assert!(report.ends_with(": resolution failed\n"), "{report}");
    let probed = network.run("alice", &["probe", &peer(ALICE), "--timeout", "100"], "");
    assert_eq!(probed.status.code(), Some(7), "{}", text(&probed.stdout));
    assert!(text(&probed.stdout).contains("strowger key new FILE"), "{}", text(&probed.stdout));
}
