//! Tests of UDP ports bound to a wildcard address: the source of a reply is the address to which
//! the sender sent, and `[::]` also receives IPv4. They use loopback, where all of 127.0.0.0/8 is
//! local.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use strowger_frame::{Address, Burst, ChunkClass, Frame, Mark, Pool, PoolSpec, Port};
use strowger_io::udp::{
    BackendChoice, UdpOpenError, UdpPort, UdpSpec, open, open_steered, worker_of,
};
use strowger_testkit::{skip_case, unsupported};

const DEADLINE: Duration = Duration::from_secs(60);

fn pool() -> Pool {
    Pool::new(&PoolSpec { trains: 200, singles: 200, huge_pages: false }).unwrap()
}

fn spec(bind: &str, backend: BackendChoice) -> UdpSpec {
    UdpSpec { backend, neighbours_max: 8, ..UdpSpec::new(bind.parse().unwrap()) }
}

/// Runs `test` with each backend, at each address that this machine supports.
fn each(binds: &[&str], test: impl Fn(&UdpSpec)) {
    for bind in binds {
        for backend in [BackendChoice::Mmsg, BackendChoice::IoUring] {
            let spec = spec(bind, backend);
            match open(&spec, 0) {
                Ok(_) => test(&spec),
                Err(why @ (UdpOpenError::NoRing(_) | UdpOpenError::Call { .. })) => {
                    skip_case(&format!("{bind}, {backend:?}"), &why.to_string());
                }
                Err(why) => panic!("{why}"),
            }
        }
    }
}

fn client() -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
}

/// Receives the next datagram at the client, and returns its source address.
fn source_of(client: &UdpSocket) -> SocketAddr {
    client.recv_from(&mut [0; 2000]).unwrap().1
}

fn receive(port: &mut UdpPort, pool: &mut Pool) -> Burst {
    let deadline = Instant::now() + DEADLINE;
    let mut burst = Burst::new();
    while burst.is_empty() {
        assert!(Instant::now() < deadline, "nothing came: {:?}", port.tally());
        port.rx_burst(pool, &mut burst);
    }
    burst
}

fn frame(pool: &mut Pool, len: usize) -> Frame {
    pool.take(ChunkClass::Single).unwrap().into_frame(256, len)
}

/// Sends four frames of equal length, and returns the source address of each.
fn send(port: &mut UdpPort, pool: &mut Pool, client: &UdpSocket) -> Vec<SocketAddr> {
    let mut burst: Burst = (0..4).map(|_| frame(pool, 100)).collect();
    port.tx_burst(Mark(0), &mut burst);
    port.flush();
    (0..4).map(|_| source_of(client)).collect()
}

/// wire.md: W8-6, W8-7.
#[test]
fn replies_to_a_neighbour_leave_from_the_address_that_it_used() {
    each(&["0.0.0.0:0", "[::]:0"], |spec| {
        let mut pool = pool();
        let opened = open(spec, 0).unwrap();
        let at = opened.local_addr().port();
        let mut port = opened.port;
        let client = client();
        port.admit(Mark(0), Address::Udp(client.local_addr().unwrap())).unwrap();
        for contacted in ["127.0.0.3", "127.0.0.2", "127.0.0.1"] {
            let contacted: SocketAddr = format!("{contacted}:{at}").parse().unwrap();
            client.send_to(b"data", contacted).unwrap();
            let came = receive(&mut port, &mut pool);
            assert_eq!(came[0].mark(), Mark(0));
            assert_eq!(send(&mut port, &mut pool, &client), [contacted; 4]);
            // A frame that is sent to an address instead of a mark, as a probe is, also has this
            // source.
            let probe = frame(&mut pool, 10);
            port.send_to(Address::Udp(client.local_addr().unwrap()), probe);
            assert_eq!(source_of(&client), contacted);
        }
    });
}

/// wire.md: W8-7.
#[test]
fn only_authenticated_datagrams_change_the_source_address_of_an_authenticated_neighbour() {
    each(&["0.0.0.0:0", "[::]:0"], |spec| {
        let mut pool = pool();
        let opened = open(spec, 0).unwrap();
        let at = |ip: &str| format!("{ip}:{}", opened.local_addr().port()).parse().unwrap();
        let (first, second): (SocketAddr, SocketAddr) = (at("127.0.0.2"), at("127.0.0.3"));
        let mut port = opened.port;
        let client = client();
        port.admit(Mark(0), Address::Udp(client.local_addr().unwrap())).unwrap();
        client.send_to(b"data", first).unwrap();
        let came = receive(&mut port, &mut pool);
        port.authenticated(&came[0]);
        // Anyone can forge the source address of a datagram, so unauthenticated datagrams must
        // change nothing.
        for _ in 0..3 {
            client.send_to(b"forged", second).unwrap();
            receive(&mut port, &mut pool);
            assert_eq!(send(&mut port, &mut pool, &client), [first; 4]);
        }
        client.send_to(b"data", second).unwrap();
        let mut came = receive(&mut port, &mut pool);
        came[0].shrink_front(2); // as a decrypted frame
        port.authenticated(&came[0]);
        assert_eq!(send(&mut port, &mut pool, &client), [second; 4]);
    });
}

/// wire.md: W8-6, W8-7.
#[test]
fn a_handshake_is_answered_from_the_address_that_it_was_sent_to() {
    for bind in ["0.0.0.0:0", "[::]:0"] {
        let mut pool = pool();
        let steered = match open_steered(&spec(bind, BackendChoice::Mmsg), 2) {
            Ok(steered) => steered,
            Err(why) => {
                skip_case(bind, &why.to_string());
                continue;
            }
        };
        let Ok(mut slow) = steered.slow else {
            skip_case(bind, "the kernel does not steer");
            continue;
        };
        let client = client();
        for contacted in ["127.0.0.2", "127.0.0.3"] {
            let contacted: SocketAddr =
                format!("{contacted}:{}", slow.local_addr().port()).parse().unwrap();
            client.send_to(&[0x10; 40], contacted).unwrap();
            let came = receive(&mut slow.port, &mut pool);
            let from = slow.port.address_of(came[0].mark()).unwrap();
            assert_eq!(from, Address::Udp(client.local_addr().unwrap()), "plain IPv4");
            let answer = frame(&mut pool, 30);
            slow.port.send_to(from, answer);
            assert_eq!(source_of(&client), contacted);
        }
    }
}

/// wire.md: W8-9.
#[test]
fn data_over_ipv4_comes_in_by_its_worker_at_a_wildcard_for_both() {
    const WORKERS: usize = 3;
    let mut pool = pool();
    let steered = match open_steered(&spec("[::]:0", BackendChoice::Mmsg), WORKERS) {
        Ok(steered) => steered,
        Err(why) => return unsupported(&why.to_string()),
    };
    if steered.slow.is_err() {
        return unsupported("the kernel does not steer");
    }
    let mut workers = steered.workers;
    let mut met = [0; WORKERS];
    for _ in 0..24 {
        for to in ["127.0.0.1", "[::1]"] {
            let sender = UdpSocket::bind(format!("{to}:0")).unwrap();
            let at: SocketAddr =
                format!("{to}:{}", workers[0].local_addr().port()).parse().unwrap();
            sender.send_to(&[0x60; 40], at).unwrap();
            let worker = worker_of(sender.local_addr().unwrap(), WORKERS);
            workers[worker].port.accept_unknown(true);
            let came = receive(&mut workers[worker].port, &mut pool);
            let from = workers[worker].port.address_of(came[0].mark());
            assert_eq!(from, Some(Address::Udp(sender.local_addr().unwrap())));
            met[worker] += 1;
        }
    }
    assert!(met.iter().all(|&met| met > 0), "{met:?}");
}

#[test]
fn a_wildcard_for_ipv6_alone_leaves_ipv4_to_another_socket() {
    let alone = UdpSpec { dual_stack: false, ..spec("[::]:0", BackendChoice::Mmsg) };
    let six = match open(&alone, 0) {
        Ok(six) => six,
        Err(why) => return unsupported(&why.to_string()),
    };
    assert!(!six.report.dual_stack);
    let four = format!("0.0.0.0:{}", six.local_addr().port());
    open(&spec(&four, BackendChoice::Mmsg), 0).unwrap();
}
