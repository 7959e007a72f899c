//! Captures at relays show no part of a message, a PeerId or a protocol name of a connection.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use strowger_crypto::{NetworkId, PeerId};
use strowger_io::unix::TrainClient;
use strowger_socket::{Anyone, Destination, Goodbye, GoodbyeCode, Node, Unix};
use strowger_testkit::{
    DEADLINE, Rng, eventually,
    harness::{netns::Namespace, packet},
};

use crate::line::{EAST, FIRST, INTERFACES, LAST, Line, Links, MIDDLE, User, WEST};

/// Bytes that show a plaintext. Sealed bytes contain a given window with a probability of 2^-64.
const WINDOW: usize = 8;
const PROTOCOL: &str = "/a-name-that-no-relay-reads/1";

/// Writes every frame of an interface to a file: its length in 4 bytes, and its bytes.
const CAPTURE: &str = r#"
import signal, socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
raw.setsockopt(socket.SOL_SOCKET, 33, 1 << 25)  # SO_RCVBUFFORCE
raw.bind((sys.argv[1], 0))
raw.settimeout(0.1)
ends = []
signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
with open(sys.argv[2], "wb") as file:
    print("ready", flush=True)
    while True:
        try:
            frame = raw.recv(1 << 16)
        except TimeoutError:
            if ends:
                break
            continue
        file.write(len(frame).to_bytes(4, "big") + frame)
"#;

/// Texts that no captured byte may show, by their windows.
struct Secrets(HashMap<[u8; WINDOW], String>);

impl Secrets {
    fn new() -> Secrets {
        Secrets(HashMap::new())
    }

    fn add(&mut self, name: &str, bytes: &[u8]) {
        for window in bytes.windows(WINDOW) {
            self.0.insert(window.try_into().unwrap(), name.to_owned());
        }
    }

    fn add_peer(&mut self, user: &User) {
        let identity = user.key().public();
        self.add("PeerId", &identity.to_protobuf());
        self.add("PeerId as text", user.peer_id.as_bytes());
        self.add("connection key", &user.key().connection_key().public().0);
    }

    fn seen_in(&self, bytes: &[u8]) -> Option<&str> {
        bytes.windows(WINDOW).find_map(|window| self.0.get(window).map(String::as_str))
    }
}

/// The packets in a capture of a port.
fn of_port(file: &Path) -> Vec<Vec<u8>> {
    const ENHANCED_PACKET: u32 = 6;
    let bytes = fs::read(file).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut at, mut packets) = (0, Vec::new());
    while at < bytes.len() {
        let (kind, length) = (word(at), word(at + 4) as usize);
        if kind == ENHANCED_PACKET {
            let captured = word(at + 20) as usize;
            packets.push(bytes[at + 28..at + 28 + captured].to_vec());
        }
        at += length;
    }
    packets
}

/// The frames in a file of `CAPTURE`.
fn of_interface(file: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(file).unwrap();
    let (mut rest, mut frames) = (&bytes[..], Vec::new());
    while let Some((length, after)) = rest.split_at_checked(4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        frames.push(after[..length].to_vec());
        rest = &after[length..];
    }
    frames
}

/// A capture of an interface.
struct Capture {
    child: Child,
    name: String,
    file: std::path::PathBuf,
}

impl Capture {
    fn start(Namespace(space): &Namespace, interface: &str, folder: &Path) -> Capture {
        let file = folder.join(interface);
        let mut child = Command::new("ip")
            .args(["netns", "exec", space, "python3", "-c", CAPTURE, interface])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut ready = [0; 6];
        let output = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(output, &mut ready).expect("the capture begins");
        Capture { child, name: format!("interface {interface}"), file }
    }

    fn end(mut self) -> (String, Vec<Vec<u8>>) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        eventually("the capture ends", || self.child.try_wait().unwrap());
        (std::mem::take(&mut self.name), of_interface(&self.file))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first byte of the connection packet in a packet at a unix port. A control message has none.
fn first_byte(packet: &[u8]) -> Option<u8> {
    let is_control = packet[9] & 0x40 != 0;
    let label_bytes = 8 << (packet[8] & 0x0f);
    let first = packet.get(16 + label_bytes)?;
    (!is_control).then_some(*first)
}

fn node(line: &Line, relay: usize, user: &User) -> Node {
    let node = Node::builder()
        .identity(user.key())
        .network("test")
        .attach(Unix::at(line.relay(relay).path("programs")))
        .policy(Anyone);
    node.start().unwrap()
}

/// Connects, exchanges messages in both directions, and closes the connection.
fn talk(to: &Destination, from: &Node, at: &Node, messages: &[Vec<u8>]) {
    let listener = at.listen(PROTOCOL).unwrap();
    let mut socket = from.connect(to.clone(), PROTOCOL).timeout(DEADLINE).wait().unwrap();
    let mut accepted = None;
    for message in messages {
        eventually("a message and its echo", || {
            socket.send_wait(message, DEADLINE).unwrap();
            let other = accepted.get_or_insert_with(|| listener.accept_wait().unwrap());
            let got = other.recv_wait().unwrap();
            assert_eq!(&got[..], message);
            other.send_wait(message, DEADLINE).unwrap();
            let echo = socket.recv_timeout(DEADLINE).unwrap()?;
            assert_eq!(&echo[..], message);
            Some(())
        });
    }
    let goodbye = Goodbye::new(GoodbyeCode::STOPPING);
    let _ = from.connection(&at.peer_id()).close(goodbye).wait(DEADLINE);
}

fn captured(seal: &'static str) {
    let links = Links { seal, captures: true, ..Links::default() };
    let Some(line) = Line::new(links) else { return };
    let folder = tempfile::tempdir().unwrap();
    let interfaces = INTERFACES.into_iter().flatten();
    let captures: Vec<Capture> = interfaces
        .map(|(space, name)| Capture::start(&line.spaces[space], name, folder.path()))
        .collect();
    let (alice, bob) = (User::new(1), User::new(2));
    let mut random = Rng::new(6);
    let messages: Vec<Vec<u8>> = (0..40).map(|n| random.bytes(20 + 25 * n)).collect();
    let mut secrets = Secrets::new();
    secrets.add("protocol name", PROTOCOL.as_bytes());
    secrets.add_peer(&alice);
    secrets.add_peer(&bob);
    for message in &messages {
        secrets.add("message", message);
    }

    let at = node(&line, LAST, &bob);
    let slots = eventually("a slot", || Some(line.program_slots(LAST)).filter(|s| !s.is_empty()));
    let label = line.label_to(slots[0].0).parse().unwrap();
    let peer: PeerId = bob.peer_id.parse().unwrap();
    // One connection by PeerId, and one from another node by static key.
    let from = node(&line, FIRST, &alice);
    talk(&Destination::from(peer).label(label), &from, &at, &messages);
    let _ = from.close(Goodbye::new(GoodbyeCode::STOPPING)).wait(DEADLINE);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let network = NetworkId::new(b"test").unwrap();
    let certificate = bob.key().certify_connection_key(now, &network);
    let carol = User::new(3);
    secrets.add_peer(&carol);
    let from = node(&line, FIRST, &carol);
    talk(&Destination::from(peer).label_with_key(label, certificate), &from, &at, &messages);
    let _ = from.close(Goodbye::new(GoodbyeCode::STOPPING)).wait(DEADLINE);
    let _ = at.close(Goodbye::new(GoodbyeCode::STOPPING)).wait(DEADLINE);

    // A packet without a connection, by which the captures are tested.
    // A seal of the headers covers the first bytes of the payload, too.
    let mark = b"a text that every relay of the path can read";
    let payload = mark.repeat(20);
    let mut client = TrainClient::connect(line.relay(FIRST).path("programs"), DEADLINE).unwrap();
    while client.greeting().is_none() {
        client.try_receive(&mut [0; 2048]).unwrap();
    }
    let own = client.greeting().unwrap().slot;
    let mut raw = line.relay(LAST).client_of("raw", 20);
    let marked = packet(&[(own, WEST), (WEST, EAST), (WEST, 20)], &payload);
    client.send(&marked, marked.len(), DEADLINE).unwrap();
    assert!(raw.receive(&mut [0; 2048], DEADLINE).unwrap().is_some());
    drop((client, raw));

    let mut all: Vec<(String, Vec<Vec<u8>>)> = captures.into_iter().map(Capture::end).collect();
    let homes = [FIRST, MIDDLE, LAST].map(|number| line.relay(number).home.clone());
    line.stop();
    for (number, home) in homes.iter().enumerate() {
        for port in ["udp2", "udp3"] {
            let file = home.file(&format!("{port}.pcapng"));
            if file.exists() {
                all.push((format!("port {port} of relay {number}"), of_port(&file)));
            }
        }
    }
    assert_eq!(all.len(), 8, "four interfaces and four ports");
    let shows = |packets: &[Vec<u8>], text: &[u8]| {
        packets.iter().any(|packet| packet.windows(text.len()).any(|window| window == text))
    };
    let bytes_of_messages: usize = messages.iter().map(Vec::len).sum();
    for (name, packets) in &all {
        // Both connections, in both directions.
        let bytes: usize = packets.iter().map(Vec::len).sum();
        assert!(bytes > 4 * bytes_of_messages, "{name}: {bytes} bytes");
        for packet in packets {
            assert_eq!(secrets.seen_in(packet), None, "{name}: {packet:02x?}");
        }
        // With a full seal the mark is hidden, too, which shows that the link is sealed.
        assert_eq!(shows(packets, mark), seal != "full", "{name}");
    }

    // The captures at the unix ports of the first and last relay, where packets have no link seal.
    // The first file has the mark as well.
    let mut kinds: BTreeMap<u8, usize> = BTreeMap::new();
    for number in [FIRST, LAST] {
        let files = (1..).map(|port| homes[number].file(&format!("programs.{port}.pcapng")));
        let files = files.take_while(|file| file.exists());
        let packets: Vec<Vec<u8>> = files.flat_map(|file| of_port(&file)).collect();
        for packet in &packets {
            let Some(kind) = first_byte(packet) else { continue };
            *kinds.entry(kind).or_default() += 1;
            assert_eq!(secrets.seen_in(packet), None, "relay {number}: {packet:02x?}");
        }
        assert_eq!(shows(&packets, mark), number == FIRST);
    }
    // Handshakes by static key (IKpsk2) and by PeerId (XX), which has a third message.
    for first in [0x10, 0x11, 0x12, 0x20, 0x21, 0x40] {
        let has_one =
            kinds.iter().any(|(kind, _)| *kind == first || first == 0x40 && kind >> 4 == 4);
        assert!(has_one, "{first:02x}: {kinds:02x?}");
    }
    let frames: usize = all.iter().map(|(_, packets)| packets.len()).sum();
    eprintln!("{seal}: {frames} frames at links; by kind at the programs: {kinds:02x?}");
}

#[test]
fn no_relay_of_plain_links_reads_a_connection() {
    captured("plain");
}

#[test]
fn no_relay_of_links_with_sealed_headers_reads_a_connection() {
    captured("header-only");
}

#[test]
fn no_relay_of_sealed_links_reads_a_connection() {
    captured("full");
}
