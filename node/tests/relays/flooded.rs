//! Relays under a flood of handshakes from unknown peers at several addresses: sealed traffic
//! continues, known peers get their links, and the counters balance.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::Value;
use strowger_crypto::{
    IdentityKey, LocalIdentity, NetworkId, OsEntropy, Psk, StaticPublic,
    handshake::{LocalParams, Offer, ik, xx},
};
use strowger_wire::{hello::Timestamp, link_header::SessionIndex};

use strowger_testkit::{eventually, harness::relay::*};

/// The number of unknown senders. Each has its own address.
const SENDERS: u8 = 8;
/// The number of handshakes that each sender sends between two readings of the relay's counters.
/// The handshakes of all senders together fit into a socket's queue.
const AT_ONCE: u64 = 32;

/// A sender that is not configured. Every second sender uses IK. The others use XX, and never send
/// its third message.
struct UnknownSender {
    socket: UdpSocket,
    message: Vec<u8>,
}

impl UnknownSender {
    fn new(number: u8, home: &Home) -> Self {
        let network = NetworkId::new(b"test").unwrap();
        let local = LocalIdentity::new(&IdentityKey::generate(&mut OsEntropy).unwrap(), network);
        let (offer, index) = (Offer::default(), SessionIndex::new(1).unwrap());
        let ours = LocalParams { local: &local, offer: &offer, index, timestamp: Timestamp(1) };
        let key: StaticPublic = home.key.parse().unwrap();
        let message = if number.is_multiple_of(2) {
            ik::initiate(&ours, &key, &Psk::NONE, None, &mut OsEntropy).unwrap().1
        } else {
            xx::initiate(&ours, None, &mut OsEntropy).unwrap().1
        };
        let IpAddr::V4(ip) = home.at.ip() else { panic!("homes have addresses of 127/8") };
        let [a, b, c, d] = ip.octets();
        let socket = UdpSocket::bind((Ipv4Addr::new(a, b ^ 0x20, c, d.wrapping_add(number)), 0));
        let socket = socket.unwrap();
        socket.connect(home.at).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, message }
    }

    /// Receives the waiting replies and returns their number. Asserts that no reply is longer than
    /// its request (R8).
    fn replies(&self) -> u64 {
        let mut bytes = [0; 2_048];
        let each = std::iter::from_fn(|| self.socket.recv(&mut bytes).ok());
        each.inspect(|&length| assert!(length <= self.message.len())).count() as u64
    }
}

/// Sends handshakes until `done`, and returns the numbers of handshakes and of replies. It sends no
/// faster than the relay's sockets receive, because drops at the sockets would not test the relay.
fn knock(home: &Home, senders: &[UnknownSender], done: &AtomicBool) -> (u64, u64) {
    let counted = || {
        let port = wan(home);
        port["frames_in"].as_u64().unwrap() + port["kernel_drops"].as_u64().unwrap()
    };
    let (mut knocks, mut replies) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let before = counted();
        for sender in senders {
            for _ in 0..AT_ONCE {
                // A send fails only if the relay has ended, which another assertion detects.
                knocks += u64::from(sender.socket.send(&sender.message).is_ok());
            }
            replies += sender.replies();
        }
        let all = before + AT_ONCE * senders.len() as u64;
        eventually("the handshakes are counted", || {
            (counted() >= all || done.load(Ordering::Relaxed)).then_some(())
        });
    }
    (knocks, replies)
}

fn wan(home: &Home) -> Value {
    home.ask(r#"{"show":"ports"}"#)["ports"][0].take()
}

/// The counters of the port's handshake socket, if it has one.
fn door(home: &Home) -> Option<Value> {
    let mut port = wan(home);
    let queues = port["queues"].as_array_mut().unwrap();
    queues.iter_mut().find(|queue| queue["worker"].is_null()).map(Value::take)
}

/// Asserts that a relay with this number of workers, with or without its peer's address, keeps
/// forwarding while unknown peers send handshakes.
fn goes_on(workers: usize, peer_is_expected: bool, has_door: bool) {
    let (a, b) = (Home::new(), Home::new());
    let more = format!("[unknown_peers]\nallow = true\n[switch]\nworkers = {workers}");
    let first = a.start(&b.key, peer_is_expected.then_some(b.at), &more);
    let second = b.start(&a.key, Some(a.at), "");
    until_up([&first, &second]);
    let (mut at_a, mut at_b) = (first.client(), second.client());
    let senders: Vec<_> = (1..=SENDERS).map(|number| UnknownSender::new(number, &a)).collect();
    let done = AtomicBool::new(false);
    let (knocks, replies) = thread::scope(|scope| {
        let end = End(&done);
        let knocking = scope.spawn(|| knock(&a, &senders, &done));
        let many = AT_ONCE * u64::from(SENDERS) * 8;
        eventually("many handshakes were sent", || {
            (wan(&a)["frames_in"].as_u64().unwrap() >= many).then_some(())
        });
        for _ in 0..20 {
            assert_exchange(&mut at_a, &mut at_b);
        }
        // The peer restarts. Its handshake must succeed among thousands of others.
        drop(second);
        eventually("its death is detected", || (!first.is_up()).then_some(()));
        let _ = fs::remove_file(b.file("local"));
        let second = b.start(&a.key, Some(a.at), "");
        until_up([&first, &second]);
        let mut at_b = second.client();
        for _ in 0..20 {
            assert_exchange(&mut at_a, &mut at_b);
        }
        drop(end);
        second.stop();
        knocking.join().unwrap()
    });
    eventually("the counters are even", || {
        let balance = first.ask(r#"{"show":"discards"}"#)["balance"].take();
        (balance["balanced"] == true).then_some(())
    });
    let replies = replies + senders.iter().map(UnknownSender::replies).sum::<u64>();
    assert!(replies > 0 && replies <= knocks, "{replies} replies to {knocks} handshakes");
    assert_eq!(door(&a).is_some(), has_door);
    if let Some(door) = door(&a) {
        let count = |name: &str| door[name].as_u64().unwrap();
        assert!(
            count("frames_in") + count("kernel_drops") >= knocks,
            "all arrived at the handshake socket"
        );
        assert!(count("frames_made") >= replies, "all replies were sent there");
    }
    first.stop();
}

/// Stops the senders when it is dropped, also if the test panics.
struct End<'d>(&'d AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn r9_a_relay_forwards_while_unknown_peers_flood_its_handshake_socket() {
    let home = Home::new();
    let relay = home.start_with("");
    let printed = relay.printed.clone();
    assert!(
        printed.contains("handshakes at a socket of their own")
            && printed.contains("listener's handshakes"),
        "{printed}"
    );
    let status = relay.ask(r#"{"show":"status"}"#);
    assert_eq!(status["ports"][0]["handshake_socket"], true);
    relay.stop();
    for (workers, peer_is_expected) in [(1, true), (1, false), (3, true), (2, false)] {
        goes_on(workers, peer_is_expected, true);
    }
}

/// An environment variable that is set in the child process, where the kernel refuses to attach
/// programs to sockets.
const INSIDE: &str = "STROWGER_TEST_NO_STEERING";

/// This test runs itself again in a network namespace in which the kernel refuses to attach
/// programs to sockets.
#[test]
fn r9_without_steering_workers_punt_handshakes_and_keep_forwarding() {
    if env::var_os(INSIDE).is_none() {
        let name = "flooded::r9_without_steering_workers_punt_handshakes_and_keep_forwarding";
        let inside = "ip link set lo up && sysctl -qw net.core.optmem_max=0";
        let made = Command::new("unshare").args(["--net", "sh", "-c", inside]).output();
        if !made.as_ref().is_ok_and(|made| made.status.success()) {
            return strowger_testkit::skip(&format!(
                "no network namespace without steering: {made:?}"
            ));
        }
        let again = format!("{inside} && exec \"$0\" --exact {name} --nocapture");
        let exe = env::current_exe().unwrap();
        let run = Command::new("unshare")
            .args(["--net", "sh", "-c", &again])
            .arg(exe)
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&run.stdout);
        let failed = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success() && stdout.contains("1 passed"), "{stdout}\n{failed}");
        return;
    }
    let home = Home::new();
    let relay = home.start_with("");
    let printed = relay.printed.clone();
    let why = "workers receive handshakes: SO_ATTACH_REUSEPORT_CBPF: ENOMEM (os error 12); raise it \
               with: sysctl -w net.core.optmem_max=";
    assert!(
        printed.contains(why) && !printed.contains("handshakes at a socket of their own"),
        "{printed}"
    );
    let status = relay.ask(r#"{"show":"status"}"#);
    assert_eq!(status["ports"][0]["handshake_socket"], false);
    relay.stop();
    for (workers, peer_is_expected) in [(1, true), (3, false)] {
        goes_on(workers, peer_is_expected, false);
    }
}
