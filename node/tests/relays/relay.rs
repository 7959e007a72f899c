//! `strowger relay` as a process with UDP sockets of this machine: it forwards, replies to
//! requests, survives invalid input, and stops. A deadline ends each command that hangs.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, UdpSocket},
    os::unix::{fs::PermissionsExt as _, net::UnixListener, net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
};

use serde_json::Value;
use strowger_engine::link::plain_header;
use strowger_io::unix::Client;
use strowger_wire::{
    Hop, Label, Slot,
    link_header::LINK_HEADER_BYTES,
    scheme::V3X5X8,
    switch_header::{AnyHeader, HEADER_64_BYTES, HeaderRepr},
};
use tempfile::TempDir;

use strowger_testkit::{DEADLINE, eventually};

fn strowger(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strowger"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    strowger(arguments).output().expect("the command runs")
}

/// Returns the command's standard error, and asserts that it is one line.
fn complaint(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    assert!(stderr.starts_with("strowger: "), "{stderr}");
    stderr
}

/// A running relay. Dropping it kills the process.
struct Relay {
    child: Child,
    lines: Receiver<String>,
    printed: Vec<String>,
    directory: TempDir,
}

impl Relay {
    /// Starts a relay with this configuration, after replacing `DIR` with a new folder. The control
    /// socket is `control` in this folder. Waits until the relay is ready.
    fn start(config: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config)
    }

    fn start_in(directory: TempDir, config: &str) -> Self {
        let file = write_config(&directory, config);
        let mut child = strowger(&["relay", "--config", file.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command runs");
        let (lines_in, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| lines_in.send(line))
        });
        let mut relay = Self { child, lines, printed: Vec::new(), directory };
        relay.read_until("ready");
        relay
    }

    fn read_until(&mut self, wanted: &str) {
        loop {
            let line = self.lines.recv_timeout(DEADLINE);
            let line = line.unwrap_or_else(|_| panic!("no `{wanted}` after {:#?}", self.printed));
            let found = line == wanted;
            self.printed.push(line);
            if found {
                return;
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn socket(&self) -> String {
        self.path("control").to_str().unwrap().to_owned()
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path("control")).expect("the relay is up");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    fn ask(&self, request: &str) -> Value {
        let mut stream = self.connect();
        writeln!(stream, "{request}").unwrap();
        answer_on(&stream)
    }

    fn balance(&self) -> Value {
        self.ask(r#"{"show":"discards"}"#)["balance"].take()
    }

    fn frames_in(&self) -> u64 {
        self.balance()["frames_in"].as_u64().unwrap()
    }

    fn address(&self) -> SocketAddr {
        let status = self.ask(r#"{"show":"status"}"#);
        status["ports"][0]["address"].as_str().unwrap().parse().unwrap()
    }

    fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Stops the relay with this signal. Returns its last output.
    fn stop(mut self, signal: &str) -> String {
        self.signal(signal);
        let status = eventually("the relay ends", || self.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{status}");
        let last: Vec<String> = self.lines.iter().collect();
        let last = last.join("\n");
        assert!(last.contains("(balanced)"), "{last}");
        assert!(!self.path("control").exists(), "the socket's file is gone");
        last
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_config(directory: &TempDir, config: &str) -> PathBuf {
    let dir = directory.path().to_str().unwrap();
    let config = format!("control.socket = \"{dir}/control\"\n{}", config.replace("DIR", dir));
    let file = directory.path().join("relay.toml");
    fs::write(&file, config).unwrap();
    file
}

fn answer_on(stream: &UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a reply arrives");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// A configuration with one listener on a port that the kernel chooses, and neighbours a and b at
/// slots 2 and 3.
fn two_neighbours(a: &UdpSocket, b: &UdpSocket, more: &str) -> String {
    let (a, b) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    format!(
        "{more}\n[[udp]]\naddress = \"127.0.0.1:0\"\nseal = \"plain\"\n\
         [[neighbour]]\nname = \"a\"\naddress = \"{a}\"\nslot = 2\n\
         [[neighbour]]\nname = \"b\"\naddress = \"{b}\"\nslot = 3\n"
    )
}

/// A packet that arrives on slot `ingress` and leaves on slot `egress`.
fn packet(ingress: u32, egress: u32, payload: &[u8]) -> Vec<u8> {
    let hop = Hop { scheme: &V3X5X8, egress: Slot::new(egress), ingress: Slot::new(ingress) };
    let (label, _) = Label::<u64>::build(&[hop]).expect("one hop fits");
    let mut bytes = vec![0; LINK_HEADER_BYTES + HEADER_64_BYTES];
    bytes[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(1));
    HeaderRepr::new(label, 0, 8).emit(&mut bytes[LINK_HEADER_BYTES..]).expect("there is room");
    bytes.extend_from_slice(payload);
    bytes
}

/// Receives the next packet and returns its payload. Asserts that the packet has passed one hop.
fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = [0; 2048];
    let (len, _) = socket.recv_from(&mut bytes).expect("a packet arrives");
    match AnyHeader::parse(&mut bytes[LINK_HEADER_BYTES..len]).expect("it has a header") {
        AnyHeader::W64(header) => {
            assert_eq!((header.shift(), header.hops_left()), (4, 7));
            header.payload().to_vec()
        }
        other => panic!("another width: {other:?}"),
    }
}

/// Asserts that packets pass in both directions.
fn assert_forwards(relay: SocketAddr, a: &UdpSocket, b: &UdpSocket) {
    a.send_to(&packet(2, 3, b"there"), relay).unwrap();
    assert_eq!(receive(b), b"there");
    b.send_to(&packet(3, 2, b"and back"), relay).unwrap();
    assert_eq!(receive(a), b"and back");
}

/// Lines that are added to a configuration: none for one worker, one for two workers.
const VARIANTS: [&str; 2] = ["", "switch.workers = 2"];

/// wire.md: W8-3, W8-5.
#[test]
fn a_relay_forwards_between_two_sockets_and_stops_cleanly() {
    for (variant, signal) in VARIANTS.iter().zip(["TERM", "INT"]) {
        let (a, b) = (socket(), socket());
        let relay = Relay::start(&two_neighbours(&a, &b, variant));
        let address = relay.address();
        for _ in 0..20 {
            assert_forwards(address, &a, &b);
        }
        let slots = relay.ask(r#"{"show":"slots"}"#);
        let row = &slots["slots"][0];
        assert_eq!((row["slot"].as_u64(), row["name"].as_str()), (Some(2), Some("a")));
        assert_eq!((row["frames_in"].as_u64(), row["frames_out"].as_u64()), (Some(20), Some(20)));
        let status = relay.ask(r#"{"show":"status"}"#);
        assert_eq!(status["worker_allocations"], 0);
        assert_eq!(status["frames_copied"], 0);
        assert_eq!(status["sealed"], false);
        let last = relay.stop(signal);
        assert!(last.contains("balance: 40 frames in + 0 made = 40 out"), "{last}");
    }
}

#[test]
fn both_ways_of_receiving_forward() {
    let (a, b) = (socket(), socket());
    let config = two_neighbours(&a, &b, "");
    let config = config.replace("seal =", "backend = \"mmsg\"\nseal =");
    let relay = Relay::start(&config);
    assert_forwards(relay.address(), &a, &b);
    assert_eq!(relay.ask(r#"{"show":"ports"}"#)["ports"][0]["backend"], "mmsg");
    relay.stop("TERM");
}

#[test]
fn a_start_prints_what_runs() {
    let (a, b) = (socket(), socket());
    let relay = Relay::start(&two_neighbours(&a, &b, ""));
    let printed = relay.printed.join("\n");
    for wanted in ["memory: ", " by ", "links plain", "slot 2: a at ", "slot 3: b at ", "control"] {
        assert!(printed.contains(wanted), "{wanted}: {printed}");
    }
    let mode = fs::metadata(relay.path("control")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn show_answers_people_and_programs() {
    let (a, b) = (socket(), socket());
    let relay = Relay::start(&two_neighbours(&a, &b, ""));
    assert_forwards(relay.address(), &a, &b);
    a.send_to(b"rubbish", relay.address()).unwrap();
    eventually("the invalid packet is counted", || {
        (relay.balance()["discarded"] == 1).then_some(())
    });
    let socket = relay.socket();
    for (topic, words) in [
        ("slots", vec!["slot", "attached", "bytes in", "127.0.0.1:"]),
        ("ports", vec!["trains in", "kernel drops", "udp 127.0.0.1:"]),
        ("discards", vec!["too_short", "balance: 3 frames in", "(balanced)"]),
        ("status", vec!["plain behind ports", "MiB", "workers"]),
    ] {
        let output = run(&["show", topic, "--socket", &socket]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for word in words {
            assert!(text.contains(word), "{topic}: {word}: {text}");
        }
        let output = run(&["show", topic, "--json", "--socket", &socket]);
        let object: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert!(object.is_object());
    }
    let discards = relay.ask(r#"{"show":"discards"}"#);
    assert_eq!(discards["discards"]["too_short"], 1);
    assert_eq!(discards["ports"][0]["discards"]["too_short"], 1);
    assert_eq!(discards["balance"]["balanced"], true);
    relay.stop("TERM");
}

#[test]
fn a_watcher_gets_a_line_every_second() {
    let (a, b) = (socket(), socket());
    let relay = Relay::start(&two_neighbours(&a, &b, ""));
    let mut stream = relay.connect();
    writeln!(stream, r#"{{"watch":"balance"}}"#).unwrap();
    // A client that has closed its sending half still gets the lines.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let uptimes: Vec<f64> = (0..3)
        .map(|_| {
            let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(line["balance"]["balanced"], true);
            line["uptime_s"].as_f64().unwrap()
        })
        .collect();
    assert!(uptimes[2] - uptimes[0] > 1.0, "{uptimes:?}");
    relay.stop("TERM");
}

#[test]
fn slots_come_and_go_while_traffic_flows() {
    for variant in VARIANTS {
        let (a, b, c) = (socket(), socket(), socket());
        let relay = Relay::start(&two_neighbours(&a, &b, variant));
        let (address, control) = (relay.address(), relay.socket());
        let (done, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    a.send_to(&packet(2, 3, b"flow"), address).unwrap();
                    assert_eq!(receive(&b), b"flow", "packets sent one at a time are not lost");
                    arrived.fetch_add(1, Ordering::Relaxed);
                }
            });
            let c_at = c.local_addr().unwrap().to_string();
            for slot in ["5", "6", "7"] {
                let before = arrived.load(Ordering::Relaxed);
                let output =
                    run(&["slot", "attach", "c", &c_at, "--slot", slot, "--socket", &control]);
                assert!(output.status.success(), "{output:?}");
                let number: u32 = slot.parse().unwrap();
                a.send_to(&packet(2, number, b"to c"), address).unwrap();
                assert_eq!(receive(&c), b"to c");
                let output = run(&["slot", "detach", slot, "--socket", &control]);
                assert!(output.status.success(), "{output:?}");
                eventually("traffic continues", || {
                    (arrived.load(Ordering::Relaxed) > before + 10).then_some(())
                });
            }
            done.store(true, Ordering::Relaxed);
        });
        // Slot 5 is in quarantine. Its drop reason differs from that of slot 4, which was never
        // used.
        a.send_to(&packet(2, 5, b"late"), address).unwrap();
        a.send_to(&packet(2, 4, b"never"), address).unwrap();
        let reasons = eventually("both are counted", || {
            let mut discards = relay.ask(r#"{"show":"discards"}"#);
            (discards["balance"]["discarded"] == 2).then(|| discards["discards"].take())
        });
        assert_eq!((&reasons["slot_gone"], &reasons["empty_slot"]), (&1.into(), &1.into()));
        for (arguments, word) in [
            (vec!["slot", "attach", "d", "127.0.0.1:9", "--slot", "5"], "short while ago"),
            (vec!["slot", "attach", "d", "127.0.0.1:9", "--slot", "1"], "switch itself"),
            (vec!["slot", "attach", "a", "127.0.0.1:9"], "name"),
            (vec!["slot", "attach", "d", "[::1]:9"], "kind"),
            (vec!["slot", "attach", "d", "127.0.0.1:9", "--listener", "upd"], "upd"),
            (vec!["slot", "detach", "200"], "200"),
        ] {
            let output = run(&[&arguments[..], &["--socket", &control]].concat());
            assert_eq!(output.status.code(), Some(5), "{arguments:?}");
            assert!(complaint(&output).contains(word), "{output:?}");
        }
        relay.stop("TERM");
    }
}

#[test]
fn control_clients_that_send_junk_or_hang_disturb_no_other() {
    let (a, b) = (socket(), socket());
    let relay = Relay::start(&two_neighbours(&a, &b, ""));
    let address = relay.address();

    for rubbish in ["", "{}", "nonsense", "[1,2", "{\"show\":\"all\"}", "\u{0}\u{7f}", "{\"a\":{"] {
        assert!(relay.ask(rubbish)["error"].is_string(), "{rubbish}");
    }
    // These bytes are not UTF-8 and contain no line break.
    relay.connect().write_all(&[0xff; 100]).unwrap();
    // The relay refuses a line that is too long before the line ends, and closes the connection.
    let mut endless = relay.connect();
    endless.write_all(&[b'x'; 5000]).unwrap();
    assert_eq!(answer_on(&endless)["kind"], "line_too_long");
    assert_eq!(endless.read(&mut [0; 64]).unwrap_or(0), 0, "the connection has ended");

    // More clients than the relay accepts send half a line and then nothing.
    let hanging: Vec<UnixStream> = (0..40)
        .map(|_| {
            let mut stream = relay.connect();
            stream.write_all(b"{\"show\":").unwrap();
            stream
        })
        .collect();
    assert!(relay.ask(r#"{"show":"slots"}"#)["slots"].is_array());

    // This client sends requests and does not read the replies.
    let mut deaf = relay.connect();
    deaf.set_nonblocking(true).unwrap();
    let request = "{\"show\":\"status\"}\n".repeat(100);
    while deaf.write(request.as_bytes()).is_ok() {}
    assert!(relay.ask(r#"{"show":"slots"}"#)["slots"].is_array());

    // Requests that are sent together get their replies in order, also if the client then closes
    // its sending half.
    let mut hasty = relay.connect();
    hasty.write_all(b"{\"show\":\"slots\"}\n{\"show\":\"ports\"}\nrubbish\n").unwrap();
    hasty.shutdown(std::net::Shutdown::Write).unwrap();
    let answers: Vec<String> = BufReader::new(hasty).lines().map(Result::unwrap).collect();
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert!(answers[0].starts_with("{\"slots\"") && answers[1].starts_with("{\"ports\""));

    assert_forwards(address, &a, &b);
    drop((hanging, deaf));
    relay.stop("TERM");
}

/// The datagrams have each size up to 2,000 bytes, and the maximum size of UDP.
#[test]
fn r2_r3_no_datagram_stops_a_relay_and_each_is_counted() {
    for variant in ["", "switch.workers = 2"] {
        let (a, b, unknown) = (socket(), socket(), socket());
        let relay = Relay::start(&two_neighbours(&a, &b, variant));
        let address = relay.address();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut sent = 0;
        for size in (0..=2000).chain([65_507]) {
            let mut bytes: Vec<u8> = (0..size).map(|_| random() as u8).collect();
            if size % 3 == 0 && size >= LINK_HEADER_BYTES {
                // Set bytes that pass the first checks, so that the later checks are reached, too.
                bytes[0] = 0x50;
                bytes.iter_mut().skip(LINK_HEADER_BYTES).take(2).for_each(|byte| *byte &= 0x13);
            }
            let from = if size % 7 == 0 { &unknown } else { &a };
            // The test's own socket may refuse to send the longest datagram.
            sent += u64::from(from.send_to(&bytes, address).is_ok());
            if size % 50 == 0 {
                eventually("all datagrams are received", || {
                    (relay.frames_in() == sent).then_some(())
                });
            }
        }
        let balance = eventually("the counters stop changing", || {
            let balance = relay.balance();
            (balance["frames_in"] == sent && balance["balanced"] == true).then_some(balance)
        });
        assert_eq!(balance["frames_made"], 0);
        // Random bytes may have been valid packets to a or b. Remove them from the queues.
        b.set_nonblocking(true).unwrap();
        while b.recv_from(&mut [0; 4096]).is_ok() {}
        b.set_nonblocking(false).unwrap();
        while {
            a.set_nonblocking(true).unwrap();
            a.recv_from(&mut [0; 4096]).is_ok()
        } {}
        a.set_nonblocking(false).unwrap();
        assert_forwards(address, &a, &b);
        relay.stop("TERM");
    }
}

/// wire.md: W8-29, W8-30.
#[test]
fn a_local_process_has_a_slot() {
    let (a, b) = (socket(), socket());
    let unix =
        "[[unix]]\nname = \"local\"\npath = \"DIR/local\"\nslot = 4\ncapture = \"DIR/cap\"\n";
    let config = two_neighbours(&a, &b, "switch.workers = 2") + unix;
    let relay = Relay::start(&config);
    let mut client = Client::connect(relay.path("local")).expect("the relay listens");
    assert!(client.send(&packet(4, 2, b"from here"), DEADLINE).unwrap());
    assert_eq!(receive(&a), b"from here");
    a.send_to(&packet(2, 4, b"to here"), relay.address()).unwrap();
    let mut bytes = [0; 2048];
    let received = client.receive(&mut bytes, DEADLINE).unwrap().expect("a packet arrives");
    assert_eq!(received.ingress, 2);
    assert!(bytes[..received.len].ends_with(b"to here"));
    let capture = relay.path("cap");
    let slots = relay.ask(r#"{"show":"slots"}"#);
    let row = slots["slots"].as_array().unwrap().iter().find(|row| row["slot"] == 4).unwrap();
    assert_eq!((&row["kind"], &row["behind"]), (&"endpoint".into(), &"local".into()));
    // The endpoint may be detached and attached again.
    let socket = relay.socket();
    assert!(run(&["slot", "detach", "4", "--socket", &socket]).status.success());
    let again = run(&["slot", "attach", "again", "--listener", "local", "--socket", &socket]);
    assert!(again.status.success(), "{again:?}");
    relay.signal("TERM");
    eventually("the file is written", || {
        let written = fs::read(&capture).unwrap();
        written.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]).then_some(())
    });
}

#[test]
fn a_busy_port_is_one_clear_line() {
    for variant in ["", "switch.workers = 2\n"] {
        let taken = socket();
        let at = taken.local_addr().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config =
            format!("{variant}[[udp]]\nname = \"wan\"\naddress = \"{at}\"\nseal = \"plain\"");
        let file = write_config(&directory, &config);
        let output = run(&["relay", "--config", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let message = complaint(&output);
        assert!(message.contains(&at.to_string()) && message.contains("in use"), "{message}");
        assert!(message.contains("choose another port"), "the message names a remedy: {message}");
        assert!(!directory.path().join("control").exists(), "nothing is left behind");
    }
}

#[test]
fn a_relay_does_not_share_its_port_with_a_second_one() {
    // The workers' sockets share a port (`SO_REUSEPORT`). Another process must not join them.
    let (a, b) = (socket(), socket());
    let relay = Relay::start(&two_neighbours(&a, &b, "switch.workers = 2"));
    let config =
        format!("switch.workers = 2\n[[udp]]\naddress = \"{}\"\nseal = \"plain\"", relay.address());
    let directory = tempfile::tempdir().unwrap();
    let file = write_config(&directory, &config);
    let output = run(&["relay", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(complaint(&output).contains("in use"));
    relay.stop("TERM");
}

#[test]
fn a_control_socket_is_taken_over_only_from_the_dead() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    // A dropped listener leaves its file, as a killed process does.
    drop(UnixListener::bind(&path).unwrap());
    // A child that another test forks has a copy of the socket until its exec.
    eventually("no process listens", || UnixStream::connect(&path).is_err().then_some(()));
    let config = "[[udp]]\naddress = \"127.0.0.1:0\"\nseal = \"plain\"\n";
    let relay = Relay::start_in(directory, config);
    let file = relay.path("relay.toml");
    let second = run(&["relay", "--config", file.to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(3));
    assert!(complaint(&second).contains("a relay runs there already"), "{second:?}");
    assert!(relay.ask(r#"{"show":"status"}"#)["version"].is_string(), "the first one is unharmed");
    relay.stop("TERM");

    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("control"), "precious").unwrap();
    let file = write_config(&directory, config);
    let output = run(&["relay", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(complaint(&output).contains("no socket"));
    assert_eq!(fs::read_to_string(directory.path().join("control")).unwrap(), "precious");
}

#[test]
fn show_reports_that_no_relay_runs() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nobody");
    let output = run(&["show", "slots", "--socket", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4));
    assert!(complaint(&output).contains("no relay answers"));
}

#[test]
fn errors_of_a_configuration_name_the_file_and_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.toml");
    let text = "[[udp]]\naddress = \"127.0.0.1:0\"\nseal = \"plain\"\n\n[[neighbour]]\n\
                name = \"a\"\nadress = \"127.0.0.1:9\"\n";
    fs::write(&file, text).unwrap();
    let shown = file.to_str().unwrap();
    let expected = format!(
        "strowger: {shown}:7: unknown key `adress` in [[neighbour]]; did you mean `address`?\n"
    );
    for arguments in [["config", "check", shown], ["relay", "--config", shown]] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(complaint(&output), expected);
    }
    fs::write(&file, b"[switch]\n\xff\xfe").unwrap();
    assert!(complaint(&run(&["config", "check", shown])).contains("relay.toml:2: not UTF-8"));
    fs::remove_file(&file).unwrap();
    let output = run(&["relay", "--config", shown]);
    assert_eq!(output.status.code(), Some(3));
    assert!(complaint(&output).contains("cannot be read"));
}

#[test]
fn the_sample_passes_the_check_as_it_is_and_with_every_key() {
    let sample = run(&["config", "sample"]);
    let sample = String::from_utf8(sample.stdout).unwrap();
    let all: String = sample
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => {
                format!("{key}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(all.matches(" = ").count() > sample.matches("\n#").count(), "keys were uncommented");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sample.toml");
    for text in [sample, all] {
        fs::write(&file, &text).unwrap();
        // Check only the text, because this machine has neither the key nor interfaces with these
        // names.
        let output = run(&["config", "check", "--text-only", file.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}\n{text}");
    }
}

#[test]
fn an_unusable_core_is_reported_before_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let config = "switch.cores = [4095]\n[[udp]]\naddress = \"127.0.0.1:0\"\nseal = \"plain\"\n";
    let file = write_config(&directory, config);
    let output = run(&["relay", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(complaint(&output).contains("core 4095"));
}

#[test]
fn a_reader_that_closes_causes_no_panic() {
    for arguments in [&["config", "sample"][..], &["doctor"], &["--help"], &["label", "--help"]] {
        let mut child = strowger(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!stderr.contains("panic"), "{arguments:?}: {stderr}");
        assert!(output.status.code().is_some(), "{arguments:?}: killed");
    }
}

#[test]
fn wrong_usage_has_its_exit_code_and_help_lists_the_codes() {
    for arguments in [&["nonsense"][..], &["relay", "more"], &["show", "everything"], &["label"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let help = run(&["--help"]);
    assert!(String::from_utf8(help.stdout).unwrap().contains("Exit codes:"));
    let version = run(&["--version"]);
    assert!(String::from_utf8(version.stdout).unwrap().starts_with("strowger "));
}
