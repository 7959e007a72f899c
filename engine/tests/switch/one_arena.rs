//! A frame that one backend has received is sent by any other backend from the same chunk. The test
//! follows the address of the payload through a switch, and asserts that no port counts a copy. The
//! veth pairs for Ethernet are in a network namespace that ends with the test.

#![allow(clippy::unwrap_used)] // functions that only tests call count as tests

use std::{
    collections::HashSet,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use strowger_crypto::{IdentityKey, LocalIdentity, NetworkId, Secret, SeededEntropy};
use strowger_engine::{
    Now,
    control::{
        Attach, Switch, SwitchConfig,
        peering::{PeerSpec, PeeringConfig},
    },
    link::{Behind, plain_header},
    worker::Worker,
};
use strowger_frame::{Address, Burst, Frame, Mark, Pool, PoolSpec, Port, port::Arm};
use strowger_io::{
    UnixPort, memory,
    udp::{self, UdpSpec},
    unix::{Client, UnixSpec},
    xdp::{self, Arena, RxMode, XdpSpec},
};
use strowger_testkit::skip_case;
use strowger_wire::{
    Hop, Label, Slot, limits::TAG_BYTES, scheme::V3X5X8, switch_header::HeaderRepr,
};

const DEADLINE: Duration = Duration::from_secs(90);
/// The number of bytes before the payload, as an endpoint sees them.
const HEAD: usize = 24;
const PAYLOAD_BYTES: usize = 1000;
/// The environment variable that is set for the child process in the namespace.
const INSIDE: &str = "STROWGER_TEST_INSIDE";

/// The backend of a hop of the switch in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Memory,
    Mmsg,
    Uring,
    Packet,
    Xdp,
    /// The process of an endpoint. This hop is not sealed.
    Unix,
}

use Backend::{Memory, Mmsg, Packet, Unix, Uring, Xdp};

/// The end addresses of the payloads in a port's frames. Sealing changes the bytes before and after
/// the payload.
#[derive(Clone, Debug, Default)]
struct Ends {
    came: Arc<Mutex<HashSet<usize>>>,
    left: Arc<Mutex<HashSet<usize>>>,
}

/// A port that records the addresses of its frames.
struct Watched {
    inner: Box<dyn Port>,
    ends: Ends,
    tag_bytes: usize,
}

impl Watched {
    fn note(&self, ends: &Mutex<HashSet<usize>>, frames: &[Frame]) {
        let data = frames.iter().filter(|frame| frame.len() > PAYLOAD_BYTES);
        let ends_of = data.map(|frame| frame.bytes().as_ptr_range().end.addr() - self.tag_bytes);
        ends.lock().unwrap().extend(ends_of);
    }
}

impl Port for Watched {
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.inner.rx_burst(pool, burst);
        self.note(&self.ends.came, burst);
    }

    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        self.note(&self.ends.left, frames);
        self.inner.tx_burst(to, frames);
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn is_flushed(&self) -> bool {
        self.inner.is_flushed()
    }

    fn arm(&mut self) -> Arm {
        self.inner.arm()
    }

    strowger_frame::delegate_port!(self, self.inner);
}

/// One end of a hop, and the address under which it reaches the other end.
type End = (Box<dyn Port>, Address);

/// Both ends of a hop, with the pools of their switches. `pair` is the name of the hop's veth pair.
fn hop(backend: Backend, pair: char, arena: &mut Arena, pools: [&mut Pool; 2]) -> [End; 2] {
    let by_udp = |backend| {
        let spec = UdpSpec {
            backend,
            neighbours_max: 8,
            posted_buffers: 8,
            ..UdpSpec::new("127.0.0.1:0".parse().unwrap())
        };
        [0, 1].map(|_| {
            let opened = udp::open(&spec, 0).unwrap();
            let at = Address::Udp(opened.local_addr());
            (Box::new(opened.port) as Box<dyn Port>, at)
        })
    };
    let by_ethernet = |rung| {
        let [near, far] = pools;
        [(0, near), (1, far)].map(|(end, pool)| {
            let spec = XdpSpec {
                backend: xdp::ModeChoice::Only(rung),
                fill_ring_frames: 128,
                neighbours_max: 8,
                ..XdpSpec::new(&format!("{pair}{end}"), 0)
            };
            let opened = xdp::open(&spec, arena, pool, 0).unwrap();
            let at = Address::Ether(opened.report.mac);
            (Box::new(opened.port) as Box<dyn Port>, at)
        })
    };
    match backend {
        Memory => {
            let (near, far) = memory::wire(512).unwrap();
            [Box::new(near) as Box<dyn Port>, Box::new(far)].map(|port| (port, Address::Only))
        }
        Mmsg => by_udp(udp::BackendChoice::Mmsg),
        Uring => by_udp(udp::BackendChoice::IoUring),
        Packet => by_ethernet(RxMode::Packet),
        Xdp => by_ethernet(RxMode::Copy),
        Unix => unreachable!("an endpoint is not a switch"),
    }
}

struct Node {
    switch: Switch,
    worker: Worker,
    began: Instant,
}

fn identity(seed: u8) -> LocalIdentity {
    let key = IdentityKey::from_seed(&Secret::from_bytes([seed; 32]));
    LocalIdentity::new(&key, NetworkId::new(b"test").unwrap())
}

impl Node {
    fn new(seed: u8, pool: Pool) -> Self {
        let (mut switch, mut workers) = Switch::new(SwitchConfig::default(), vec![pool]).unwrap();
        let config =
            PeeringConfig::new(identity(seed), Box::new(SeededEntropy::new(u64::from(seed))))
                .with_wall_at_zero(1);
        switch.set_identity(config, Now(1)).unwrap();
        Self { switch, worker: workers.remove(0), began: Instant::now() }
    }

    fn turn(&mut self) {
        let now = Now(1 + self.began.elapsed().as_nanos() as u64);
        self.worker.poll(now);
        let _ = self.switch.poll(now);
    }

    fn peer(&mut self, port: Box<dyn Port>, of: u8, at: Address) -> u32 {
        let port = self.switch.plug_at(0, port).unwrap();
        let mut spec = PeerSpec::new(format!("peer {of}"), *identity(of).static_public(), port);
        spec = spec.with_address(at);
        self.switch.accept_unknown(port, true);
        (self.switch.add_peer(spec, Now(1)).unwrap()).number()
    }

    /// Attaches a process of this machine to a slot.
    fn endpoint(&mut self, name: &str, ends: Option<&Ends>) -> (u32, Client) {
        let name = format!("strowger-arena-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let port = Box::new(UnixPort::listen(&path, &UnixSpec::default()).unwrap());
        let client = Client::connect(&path).unwrap();
        let port: Box<dyn Port> = match ends {
            Some(ends) => Box::new(Watched { inner: port, ends: ends.clone(), tag_bytes: 0 }),
            None => port,
        };
        let port = self.switch.plug_at(0, port).unwrap();
        let attach = Attach::plain(port, Address::Only, Behind::Endpoint, "endpoint");
        (self.switch.attach(attach).unwrap().number(), client)
    }

    fn is_up(&self) -> bool {
        self.switch.is_settled() && self.switch.peers().iter().all(|peer| peer.is_up())
    }
}

fn turn_until(nodes: &mut [Node], what: &str, mut happened: impl FnMut(&[Node]) -> bool) {
    let started = Instant::now();
    while !happened(nodes) {
        nodes.iter_mut().for_each(Node::turn);
        assert!(started.elapsed() < DEADLINE, "timed out: {what}");
    }
}

/// Sends packets from one client to another through the switch in the middle, which receives them
/// over `from` and sends them over `to`. The payloads must keep their addresses, and no frame may
/// be copied.
fn pass(from: Backend, to: Backend) {
    let spec = PoolSpec { trains: 96, singles: 1024, huge_pages: false };
    let mut pools = Pool::group(&spec, 3).unwrap();
    let mut arena = Arena::of(&pools[0]);
    let tally = pools[1].tally().clone();
    let [left, middle, right] = &mut pools[..] else { unreachable!("three") };
    let first = (from != Unix).then(|| hop(from, 'x', &mut arena, [left, middle]));
    let second = (to != Unix).then(|| hop(to, 'y', &mut arena, [middle, right]));
    let mut nodes = Vec::new();
    for (seed, pool) in (1..).zip(pools) {
        nodes.push(Node::new(seed, pool));
    }
    let ends = [Ends::default(), Ends::default()];
    let mut tallies = Vec::new();
    let mut watched = |port: Box<dyn Port>, ends: &Ends| -> Box<dyn Port> {
        tallies.push(port.tally().clone());
        Box::new(Watched { inner: port, ends: ends.clone(), tag_bytes: TAG_BYTES })
    };
    let mut way = Vec::new();
    let (into, mut sender) = match first {
        Some([(near, at_near), (far, at_far)]) => {
            let (slot, client) = nodes[0].endpoint("left", None);
            way.push((slot, nodes[0].peer(near, 2, at_far)));
            (nodes[1].peer(watched(far, &ends[0]), 1, at_near), client)
        }
        None => nodes[1].endpoint("in", Some(&ends[0])),
    };
    let mut receiver = match second {
        Some([(near, at_near), (far, at_far)]) => {
            way.push((into, nodes[1].peer(watched(near, &ends[1]), 3, at_far)));
            let ingress = nodes[2].peer(far, 2, at_near);
            let (slot, client) = nodes[2].endpoint("right", None);
            way.push((ingress, slot));
            client
        }
        None => {
            let (slot, client) = nodes[1].endpoint("out", Some(&ends[1]));
            way.push((into, slot));
            client
        }
    };
    turn_until(&mut nodes, "links", |nodes| nodes.iter().all(Node::is_up));
    let hops: Vec<Hop<'_>> = way
        .iter()
        .map(|&(ingress, egress)| Hop {
            scheme: &V3X5X8,
            ingress: Slot::new(ingress),
            egress: Slot::new(egress),
        })
        .collect();
    let (label, shift) = Label::<u64>::build(&hops).unwrap().0.depart().unwrap();
    let mut packet = vec![0; HEAD];
    packet[..8].copy_from_slice(&plain_header(0));
    HeaderRepr::new(label, shift, 9).emit(&mut packet[8..]).unwrap();
    packet.resize(HEAD + PAYLOAD_BYTES, 0);
    let (mut sent, mut received, mut room) = (0_u8, 0_u8, vec![0; 4096]);
    // Up to 24 packets are in flight, so that UDP combines them into trains, whose frames have no
    // headroom.
    const PACKETS: u8 = 200;
    turn_until(&mut nodes, "packets", |_| {
        while sent < PACKETS && sent - received < 24 {
            packet[HEAD..].fill(sent);
            if !sender.try_send(&packet).unwrap() {
                break;
            }
            sent += 1;
        }
        while let Some(came) = receiver.try_receive(&mut room).unwrap() {
            assert_eq!(room[HEAD..came.len], [received; PAYLOAD_BYTES], "{from:?} to {to:?}");
            received += 1;
        }
        received == PACKETS
    });
    let copied: u64 = tallies.iter().map(|tally| tally.frames_copied.read()).sum();
    assert_eq!((tally.frames_copied.read(), copied), (0, 0), "{from:?} to {to:?}");
    let came = ends[0].came.lock().unwrap();
    let left = ends[1].left.lock().unwrap();
    assert!(!left.is_empty() && left.is_subset(&came), "{from:?} to {to:?}: payload was moved");
}

fn every_pair_of(backends: &[Backend]) {
    let mut backends = backends.to_vec();
    let by_ring = UdpSpec {
        backend: udp::BackendChoice::IoUring,
        ..UdpSpec::new("127.0.0.1:0".parse().unwrap())
    };
    if let Err(why) = udp::open(&by_ring, 0) {
        skip_case("pairs with io_uring", &why.to_string());
        backends.retain(|backend| *backend != Uring);
    }
    for &from in &backends {
        for &to in &backends {
            if (from, to) != (Unix, Unix) {
                eprintln!("from {from:?} to {to:?}");
                pass(from, to);
            }
        }
    }
}

#[test]
fn no_pair_of_backends_copies_the_payload_of_a_sealed_frame() {
    let test = "one_arena::no_pair_of_backends_copies_the_payload_of_a_sealed_frame";
    let ip = |line: &str| {
        let done = Command::new("ip").args(line.split(' ')).output().unwrap();
        assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
    };
    if std::env::var_os(INSIDE).is_some() {
        ip("link set dev lo up");
        for pair in ['x', 'y'] {
            ip(&format!("link add {pair}0 type veth peer name {pair}1"));
            for end in [0, 1] {
                let name = format!("{pair}{end}");
                ip(&format!("link set dev {name} up"));
                // AF_XDP needs interfaces that leave VLAN tags in frames.
                xdp::features::set_features(&name, &xdp::features::RX_VLAN_OFFLOADS, false)
                    .unwrap();
            }
        }
        return every_pair_of(&[Memory, Mmsg, Uring, Packet, Xdp, Unix]);
    }
    let itself = std::env::current_exe().unwrap();
    let tried = Command::new("unshare").args(["-n", "ip", "link"]).output();
    if !tried.is_ok_and(|done| done.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "with CI set no case may be skipped");
        skip_case("pairs with Ethernet", "no network namespace can be made (CAP_SYS_ADMIN)");
        return every_pair_of(&[Memory, Mmsg, Uring, Unix]);
    }
    let inside = Command::new("unshare")
        .arg("-n")
        .arg(itself)
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&inside.stdout) + String::from_utf8_lossy(&inside.stderr);
    assert!(inside.status.success() && output.contains("1 passed"), "{output}");
}
