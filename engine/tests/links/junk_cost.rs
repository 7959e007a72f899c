//! What junk costs the slow path, counted in instructions by callgrind: as much with 1,000 peers as with ten.
//! Without valgrind the test is skipped.

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

/// Peers of the child process that is counted.
const PEERS: &str = "STROWGER_JUNK_PEERS";
/// Junk that it takes in: a turn's worth of the handshake socket.
const JUNK: usize = 256;
/// The queue of the node's address that its handshake socket reads.
const DOOR: usize = 9;

fn node(peers: u32) -> (SimNet, Node) {
    let (net, now) = (SimNet::default(), Now(1));
    let scheme = Scheme::new(&[Form::new(13, 0, 0)]).expect("sane");
    let config = SwitchConfig::default().with_scheme(scheme).with_slot_max(8_000);
    let mut node = Node::new(&net, &NodeSpec { config, ..NodeSpec::new(2) }, now);
    let pool = PoolSpec { trains: 0, singles: 512, huge_pages: false };
    let (port, pool) = (net.port(node.at, DOOR), Pool::new(&pool).expect("memory"));
    let handshake_socket = HandshakeSocket { port: Box::new(port), pool, worker_of: |_, _| 0 };
    node.switch.open_handshake_socket(node.port, handshake_socket).expect("the port is there");
    node.switch.accept_unknown(node.port, true);
    net.steer(node.at, host(66), DOOR);
    for number in 0..peers {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let spec = PeerSpec::new("peer", StaticPublic(key), node.port);
        node.switch.add_peer(spec, now).expect("a slot");
    }
    (net, node)
}

/// The other test runs it once more, below callgrind, with as many peers as it says.
#[test]
fn a_turn_of_junk() {
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
    node.switch.poll(now);
    let ended = node.switch.balance().discards.iter().sum::<u64>() - before;
    assert_eq!(ended, JUNK as u64);
}

fn instructions(peers: u32) -> u64 {
    let name = format!("strowger-junk-{}-{peers}.out", std::process::id());
    let written = env::temp_dir().join(name);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*read_handshake_sockets*"])
        .arg(format!("--callgrind-out-file={}", written.display()))
        .arg(env::current_exe().expect("this program"))
        .args(["--exact", "junk_cost::a_turn_of_junk", "--nocapture"])
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
