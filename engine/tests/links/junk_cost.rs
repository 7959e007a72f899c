//! Junk costs the slow path about the same number of instructions with 1,000 peers as with 10.
//! Callgrind counts the instructions. Without valgrind, the test is skipped.

use std::{env, fs, process::Command};

use strowger_crypto::StaticPublic;
use strowger_engine::{
    Now,
    control::{HandshakeSocket, SwitchConfig, peering::PeerSpec},
};
use strowger_frame::{Pool, PoolSpec};
use strowger_testkit::{
    Rng,
    sim::{Node, NodeSpec, SimNet, host},
};
use strowger_wire::{Scheme, scheme::Form};

/// The environment variable with the number of peers, for the child process under callgrind.
const PEERS: &str = "STROWGER_JUNK_PEERS";
/// The number of junk datagrams: as many as one poll takes from a handshake socket.
const JUNK: usize = 256;
/// The worker number under which the network steers datagrams to the handshake socket.
const HANDSHAKES: usize = 9;

fn node(peers: u32) -> (SimNet, Node) {
    let (net, now) = (SimNet::default(), Now(1));
    let scheme = Scheme::new(&[Form::new(13, 0, 0)]).expect("sane");
    let config = SwitchConfig::default().with_scheme(scheme).with_slot_max(8_000);
    let mut node = Node::new(&net, &NodeSpec { config, ..NodeSpec::new(2) }, now);
    let pool = PoolSpec { trains: 0, singles: 512, huge_pages: false };
    let (port, pool) = (net.port(node.at, HANDSHAKES), Pool::new(&pool).expect("memory"));
    let handshake_socket = HandshakeSocket { port: Box::new(port), pool, worker_of: |_, _| 0 };
    node.switch.open_handshake_socket(node.port, handshake_socket).expect("the port is there");
    node.switch.accept_unknown(node.port, true);
    net.steer(node.at, host(66), HANDSHAKES);
    for number in 0..peers {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let spec = PeerSpec::new("peer", StaticPublic(key), node.port);
        node.switch.add_peer(spec, now).expect("a slot");
    }
    (net, node)
}

/// The other test runs this test in a child process under callgrind, with the number of peers in
/// `PEERS`.
#[test]
fn a_poll_of_junk() {
    let peers = env::var(PEERS).ok().and_then(|peers| peers.parse().ok()).unwrap_or(10);
    let (net, mut node) = node(peers);
    let now = Now(2);
    for _ in 0..4 {
        node.poll(now);
    }
    let before = node.switch.balance().discards.iter().sum::<u64>();
    let mut rng = Rng::new(5);
    for number in 0..JUNK {
        let len = [8, 64, 896, 896][number % 4];
        let mut junk = rng.bytes(len);
        junk[0] = [0x30, 0x30, 0x20, 0x70][number % 4];
        net.inject(host(66), node.at, &junk);
    }
    poll_counted(&mut node, now);
    let ended = node.switch.balance().discards.iter().sum::<u64>() - before;
    assert_eq!(ended, JUNK as u64);
}

/// Reads the junk. Callgrind counts the instructions of this function and its callees, and finds it
/// by its name.
#[inline(never)]
fn poll_counted(node: &mut Node, now: Now) {
    node.switch.poll(now);
}

fn instructions(peers: u32) -> u64 {
    let name = format!("strowger-junk-{}-{peers}.out", std::process::id());
    let written = env::temp_dir().join(name);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*poll_counted*"])
        .arg(format!("--callgrind-out-file={}", written.display()))
        .arg(env::current_exe().expect("this program"))
        .args(["--exact", "junk_cost::a_poll_of_junk", "--nocapture"])
        .env(PEERS, peers.to_string())
        .output()
        .expect("valgrind was there");
    let counted = fs::read_to_string(&written).unwrap_or_default();
    let _ = fs::remove_file(&written);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let totals = counted.lines().find_map(|line| line.strip_prefix("totals: "));
    totals.and_then(|total| total.trim().parse().ok()).expect("callgrind has counted")
}

#[test]
fn r12_junk_costs_no_walk_over_the_peers() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return strowger_testkit::unsupported("valgrind is not installed");
    }
    let [few, many] = [10, 1_000].map(instructions);
    println!("{few} instructions with 10 peers, {many} with 1,000, for {JUNK} pieces of junk");
    assert!(few > 0 && many < few + few / 10, "{few} with 10 peers, {many} with 1,000");
}
