//! The local API as a process, with programs in Python. The relay runs in the test.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use strowger_crypto::{IdentityKey, Secret};
use strowger_runtime::{Relay, RelayHandle, UnixSocket};
use strowger_testkit::{DEADLINE, eventually, harness::label};
use strowger_wire::scheme::V3X5X8;

use crate::GATEWAY;

/// The slots of the two nodes.
const SLOTS: [u32; 2] = [5, 6];

/// A process that is killed on drop.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Ends the process with a signal, as an operator does.
    fn terminate(&mut self) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        eventually("the process ends", || self.0.try_wait().unwrap());
    }

    /// Waits until the process has ended.
    fn output(mut self) -> Output {
        let status = eventually("the program ends", || self.0.try_wait().unwrap());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.0.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        self.0.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        Output { status, stdout, stderr }
    }
}

/// Sends numbers to the other node, and prints the echoes.
const COUNT: &str = r#"
import itertools, strowger
echo = strowger.connect("other", "/echo/1", timeout=60)
for number in itertools.count():
    try:
        echo.send(b"%d" % number)
        print(echo.recv(timeout=0.2).decode(), flush=True)
    except (strowger.Timeout, strowger.NoPath):
        pass
"#;

/// Waits for the end of a socket and of a listener, and prints their names.
const END: &str = r#"
import strowger
listener = strowger.listen("/end/1")
echo = strowger.connect("other", "/echo/1", timeout=60)
print("open", flush=True)
for peer in listener:
    pass
try:
    while True:
        echo.recv()
except strowger.Closed as closed:
    print("closed", flush=True)
"#;

/// A relay with two nodes, `a` and `b`, each served by a process of the local API.
struct Network {
    folder: tempfile::TempDir,
    relay: Option<RelayHandle>,
    services: Vec<Process>,
    peers: [String; 2],
}

fn identity(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&Secret::from_bytes([seed; 32]))
}

impl Network {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let peers = [1, 2].map(|seed| identity(seed).public().peer_id().to_string());
        let mut network = Self { folder, relay: None, services: Vec::new(), peers };
        network.start_relay();
        for (number, name) in ["a", "b"].into_iter().enumerate() {
            let key = identity(number as u8 + 1).to_key_file();
            strowger_runtime::files::create(&network.at(&format!("{name}.key")), key.as_bytes())
                .unwrap();
            let way = (SLOTS[number], SLOTS[1 - number]);
            let label = label(&V3X5X8, &[way]);
            // The label of `stranger` is that of the other node, so another identity answers there.
            let other = &network.peers[1 - number];
            let stranger = identity(9).public().peer_id();
            let book = format!(
                "[[name]]\nname = \"other\"\npeer_id = \"{other}\"\nlabels = [\"{label}\"]\n\
                 purposes = [\"connect\", \"accept\"]\n\
                 [[name]]\nname = \"stranger\"\npeer_id = \"{stranger}\"\nlabels = [\"{label}\"]\n"
            );
            fs::write(network.at(&format!("{name}.toml")), book).unwrap();
            let service = network.start(name);
            network.services.push(service);
        }
        network
    }

    fn start_relay(&mut self) {
        let socket = |name: &str, slot: u32| UnixSocket::new(name, self.at(name)).slot(slot);
        let builder = Relay::builder().workers(1);
        let builder = builder.unix_socket(socket("a.sock", SLOTS[0]));
        let builder = builder.unix_socket(socket("b.sock", SLOTS[1]));
        self.relay = Some(builder.start().unwrap());
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a service, and waits until programs can connect.
    fn start(&self, name: &str) -> Process {
        self.start_at(name, &self.at(&format!("{name}.sock")), &[])
    }

    /// Starts a service at this socket of the relay.
    fn start_at(&self, name: &str, socket: &Path, options: &[&str]) -> Process {
        let file = |suffix: &str| self.at(&format!("{name}.{suffix}"));
        let mut child = Command::new(GATEWAY)
            .args(["api", "--network", "test"])
            .args(options)
            .arg("--listen")
            .arg(file("api"))
            .arg("--socket")
            .arg(socket)
            .arg("--key")
            .arg(file("key"))
            .arg("--book")
            .arg(file("toml"))
            .env("HOME", self.folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("api: "), "{line}");
        Process(child)
    }

    /// Runs a Python program at a service.
    fn python(&self, service: &str, program: &Path, arguments: &[&str]) -> Process {
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
        let child = Command::new("python3")
            .arg(python.join(program))
            .args(arguments)
            .env("PYTHONPATH", &python)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("STROWGER_API", self.at(&format!("{service}.api")))
            .env("STROWGER_API_OTHER", self.at("b.api"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3");
        Process(child)
    }

    /// Runs this text as a Python program at a service. Its output comes line by line.
    fn lines(&self, service: &str, program: &str) -> (Process, Receiver<String>) {
        let file = self.at("program.py");
        fs::write(&file, program).unwrap();
        let mut process = self.python(service, &file, &[]);
        let output = BufReader::new(process.0.stdout.take().unwrap());
        let (lines_in, lines) = channel();
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| lines_in.send(line))
        });
        (process, lines)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.services.clear();
        if let Some(relay) = self.relay.take() {
            let _ = relay.shutdown();
        }
    }
}

fn succeeded(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_example_echoes_in_both_directions() {
    let network = Network::new();
    for (server, client, peer) in [("b", "a", 1), ("a", "b", 0)] {
        let _server = network.python(server, Path::new("echo_server.py"), &[]);
        // The server may not listen yet.
        eventually("an echo", || {
            let echo = network.python(client, Path::new("echo.py"), &[&network.peers[peer]]);
            let output = echo.output();
            output.status.success().then(|| assert_eq!(succeeded(&output), "hello\n"))
        });
    }
}

#[test]
fn the_python_tests_of_the_api_pass() {
    let network = Network::new();
    let [a, b] = &network.peers;
    let tests = network.python("a", Path::new("tests/test_api.py"), &[a, b]);
    succeeded(&tests.output());
}

/// A program keeps its socket when its relay restarts. Messages are lost meanwhile, and later ones
/// arrive.
#[test]
fn a_relay_that_restarts_closes_no_socket_of_a_program() {
    let mut network = Network::new();
    let _server = network.python("b", Path::new("echo_server.py"), &[]);
    let (mut counter, lines) = eventually("a program that is connected", || {
        let (process, lines) = network.lines("a", COUNT);
        // The program ends if the server does not listen yet.
        lines.recv_timeout(DEADLINE).ok().map(|_| (process, lines))
    });
    for _ in 0..2 {
        network.relay.take().unwrap().shutdown().unwrap();
        network.start_relay();
        // Drop lines that arrived before.
        while lines.try_recv().is_ok() {}
        for _ in 0..3 {
            lines.recv_timeout(DEADLINE).expect("messages arrive again");
        }
    }
    assert!(counter.0.try_wait().unwrap().is_none(), "the program runs");
}

#[test]
fn a_service_that_is_killed_ends_the_sockets_of_its_programs_and_starts_again() {
    let mut network = Network::new();
    let _server = network.python("b", Path::new("echo_server.py"), &[]);
    let (_program, lines) = eventually("a program that is connected", || {
        let (process, lines) = network.lines("a", END);
        lines.recv_timeout(DEADLINE).ok().map(|_| (process, lines))
    });
    network.services.remove(0); // kills it
    assert_eq!(lines.recv_timeout(Duration::from_secs(60)).as_deref(), Ok("closed"));
    // The killed service leaves its socket file, which does not prevent the next start.
    let again = network.start("a");
    network.services.push(again);
    let (_program, lines) =
        network.lines("a", "import strowger; print(strowger.identity()['peer_id'])");
    assert_eq!(lines.recv_timeout(DEADLINE).as_ref(), Ok(&network.peers[0]));

    // A service that is stopped removes its socket.
    network.services[1].terminate();
    assert!(!network.at("a.api").exists());
}

#[test]
fn a_peer_that_is_added_to_the_book_is_found_without_a_restart() {
    let mut network = Network::new();
    let _server = network.python("b", Path::new("echo_server.py"), &[]);
    let book = fs::read_to_string(network.at("a.toml")).unwrap();
    network.services[0].terminate();
    fs::write(network.at("a.toml"), "").unwrap();
    network.services[0] = network.start("a");
    let unknown = network.python("a", Path::new("echo.py"), &["other"]).output();
    let text = String::from_utf8(unknown.stderr).unwrap();
    assert!(text.contains("UnknownPeer") && text.contains("strowger peer add"), "{text}");
    fs::write(network.at("a.toml"), book).unwrap();
    eventually("an echo", || {
        let output = network.python("a", Path::new("echo.py"), &["other"]).output();
        output.status.success().then(|| assert_eq!(succeeded(&output), "hello\n"))
    });
}

/// Two services on one socket of a relay, with empty address books: the relay assigns the slots and
/// answers lookups for both.
#[test]
fn services_on_one_relay_find_each_other_by_peer_id() {
    let mut network = Network::new();
    network.services.clear();
    network.relay.take().unwrap().shutdown().unwrap();
    let programs = UnixSocket::new("programs", network.at("programs")).clients(4);
    let builder = Relay::builder().workers(1).identity(identity(7)).network("test");
    network.relay = Some(builder.unix_socket(programs).start().unwrap());
    for name in ["a", "b"] {
        fs::write(network.at(&format!("{name}.toml")), "").unwrap();
        let service = network.start_at(name, &network.at("programs"), &["--anyone"]);
        network.services.push(service);
    }
    let _server = network.python("b", Path::new("echo_server.py"), &[]);
    eventually("an echo", || {
        let echo = network.python("a", Path::new("echo.py"), &[&network.peers[1]]);
        let output = echo.output();
        output.status.success().then(|| assert_eq!(succeeded(&output), "hello\n"))
    });
}
