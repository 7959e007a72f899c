//! A path that loses 30 % of all datagrams in each direction.

use std::{
    fs,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;
use strowger_testkit::{Rng, eventually, harness::netns::Namespace};

use crate::line::{FIRST, LAST, Line, Links, MIDDLE, User};

/// Copies datagrams between two namespaces, and drops some.
struct Forwarder {
    ends: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

/// The forwarder's address in each of the two namespaces.
const FORWARDER: &str = "127.0.0.1:7100";

impl Forwarder {
    fn between(spaces: [&Namespace; 2], seed: u64) -> Forwarder {
        let sockets = spaces.map(|space| {
            space.within(|| {
                let socket = UdpSocket::bind(FORWARDER).unwrap();
                socket.connect("127.0.0.1:7000").unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                socket
            })
        });
        let (ends, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = [(0, 1), (1, 0)].map(|(from, to): (usize, usize)| {
            let from_socket = sockets[from].try_clone().unwrap();
            let to_socket = sockets[to].try_clone().unwrap();
            let (ends, lost) = (ends.clone(), lost.clone());
            let mut random = Rng::new(seed + from as u64);
            thread::spawn(move || {
                let mut bytes = vec![0; 1 << 16];
                while !ends.load(Ordering::Relaxed) {
                    // An ICMP error comes from a relay that does not listen yet.
                    let Ok(length) = from_socket.recv(&mut bytes) else { continue };
                    if random.below(100) < 30 {
                        lost.fetch_add(1, Ordering::Relaxed);
                    } else {
                        let _ = to_socket.send(&bytes[..length]);
                    }
                }
            })
        });
        Forwarder { ends, lost, threads: threads.into() }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_path_that_loses_30_percent_carries_a_file() {
    const SEED: u64 = 11;
    const BYTES: usize = 100_000;
    let links = Links { detour: Some(FORWARDER), ..Links::default() };
    let start = |spaces: &[Namespace]| Forwarder::between([&spaces[MIDDLE], &spaces[LAST]], SEED);
    let Some((line, forwarder)) = Line::new_with(links, start) else { return };
    let (alice, bob) = (User::new(1), User::new(2));
    let (sent, received) = (alice.file("sent"), bob.file("received"));
    fs::write(&sent, Rng::new(SEED).bytes(BYTES)).unwrap();
    let arguments = ["/file/1", received.to_str().unwrap(), "--file", "--from", &alice.peer_id];
    let (receiver, slot) = line.receive(&bob, &arguments);
    alice.knows("bob", &bob.peer_id, &[line.label_to(slot)]);

    let answered = |answered: bool| {
        let pings = line.run(
            &alice,
            &["ping", "bob", "--count", "4", "--interval", "0", "--timeout", "60", "--json"],
        );
        let rows = pings.out.lines().map(|row| serde_json::from_str::<Value>(row).unwrap());
        let rows: Vec<Value> = rows.collect();
        assert_eq!(rows.len(), 4, "{pings:?}");
        assert_eq!(pings.status.success(), rows.iter().any(|row| row["pong"] == true));
        let count = rows.iter().filter(|row| row["pong"] == answered).count();
        eprintln!("{count} of 4 pings have pong = {answered}");
        (count > 0).then_some(())
    };
    eventually("a ping is answered", || answered(true));
    eventually("a ping is lost", || answered(false));

    let file =
        line.send(&alice, &["bob", "/file/1", sent.to_str().unwrap(), "--file", "--timeout", "60"]);
    assert!(file.status.success(), "{}", file.error);
    let arrived = receiver.wait();
    assert!(arrived.status.success(), "{}", arrived.error);
    assert!(fs::read(&sent).unwrap() == fs::read(&received).unwrap(), "the files differ");
    let lost = forwarder.lost.load(Ordering::Relaxed);
    eprintln!("{BYTES} bytes arrived; the path lost {lost} datagrams. {}", file.error);
    assert!(lost > 30, "{lost}");
    for end in [FIRST, LAST] {
        eventually("no program has a slot", || line.program_slots(end).is_empty().then_some(()));
    }
    line.stop();
}
