//! Tests of unix sockets for several clients, each with its own port. The test is the owner that
//! accepts clients and assigns them to ports. No test sleeps; every wait has a deadline.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use strowger_frame::{Address, Burst, Mark, Pool, PoolSpec, Port, port::Arm, sleep::Wake};
use strowger_io::{
    Waited, Waiter,
    unix::{
        Client, ClientError, ClientRefusal, Clients, TrainClient, UnixPort, UnixSpec, WaitingClient,
    },
};
use strowger_testkit::{Rng, until, wire_md::example};

use crate::unix::{LONG, Place, frame, raw_message};

#[derive(Default)]
struct Owner(AtomicUsize);

impl Wake for Owner {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn pool() -> Pool {
    Pool::new(&PoolSpec { trains: 32, singles: 512, huge_pages: false }).expect("memory")
}

fn listen(at: &Path, count: usize) -> (Clients, Vec<UnixPort>, Arc<Owner>) {
    let owner = Arc::new(Owner::default());
    let wake: Arc<dyn Wake> = owner.clone();
    let (clients, ports) =
        Clients::listen(at, &UnixSpec::default(), count, &wake).expect("no other listener");
    (clients, ports, owner)
}

fn waiting(clients: &Clients) -> WaitingClient {
    clients.accept().expect("descriptors are left").expect("a client has connected")
}

fn refusal() -> ClientRefusal {
    ClientRefusal::parse(&example("unix-refusal")).expect("valid")
}

/// Receives what the port has into `taken`.
fn receive(port: &mut UnixPort, pool: &mut Pool, taken: &mut Vec<Vec<u8>>) {
    let mut burst = Burst::new();
    port.rx_burst(pool, &mut burst);
    taken.extend(burst.iter().map(|frame| frame.bytes().to_vec()));
}

/// wire.md: W8-53.
#[test]
fn each_client_has_a_port_of_its_own_and_one_that_does_not_read_or_leaves_harms_no_other() {
    let place = Place::new("clients");
    let (clients, mut ports, owner) = listen(&place.0, 2);
    let mut pool = pool();
    let mut first = Client::connect(&place.0).expect("it listens");
    let mut second = Client::connect(&place.0).expect("it listens");
    for (number, port) in ports.iter_mut().enumerate() {
        // One port gets its client before its mark, the other one afterwards.
        if number == 0 {
            clients.give(number, waiting(&clients));
            port.admit(Mark(7), Address::Only).expect("free");
        } else {
            port.admit(Mark(8), Address::Only).expect("free");
            clients.give(number, waiting(&clients));
        }
    }
    assert!(
        first.send(b"one", LONG).expect("served") && second.send(b"two", LONG).expect("served")
    );
    let mut taken = [Vec::new(), Vec::new()];
    until("both packets", || {
        ports.iter_mut().zip(&mut taken).for_each(|(port, it)| receive(port, &mut pool, it));
        taken.iter().all(|taken| taken.len() == 1)
    });
    assert_eq!(taken, [[b"one".to_vec()], [b"two".to_vec()]]);

    // The first client does not read until its socket is full. The second one gets every packet.
    let mut stuck = Burst::new();
    while stuck.is_empty() {
        stuck.extend((0..32).map(|n| frame(&mut pool, n, &[0; 1000])));
        ports[0].tx_burst(Mark(7), &mut stuck);
    }
    assert!(ports[0].is_blocked(Mark(7)) && !ports[1].is_blocked(Mark(8)));
    let mut buffer = [0; 8];
    for n in 0..200 {
        let mut burst: Burst = [frame(&mut pool, n, b"packet")].into_iter().collect();
        ports[1].tx_burst(Mark(8), &mut burst);
        assert!(burst.is_empty());
        let got = second.receive(&mut buffer, LONG).expect("served").expect("in time");
        assert_eq!((got.len, got.ingress), (6, n));
    }

    // The first client leaves. The port reports this, and accepts the next client only with a mark.
    assert_eq!((owner.0.load(Ordering::Relaxed), clients.is_gone(0)), (0, false));
    drop(first);
    until("the port to find that its client is gone", || {
        receive(&mut ports[0], &mut pool, &mut taken[0]);
        clients.is_gone(0)
    });
    assert_eq!((owner.0.load(Ordering::Relaxed), clients.is_gone(1)), (1, false));
    ports[0].forget(Mark(7));
    let mut third = Client::connect(&place.0).expect("it listens");
    clients.give(0, waiting(&clients));
    assert!(!clients.is_gone(0), "a new client");
    assert!(third.send(b"three", LONG).expect("it waits"));
    for _ in 0..200 {
        receive(&mut ports[0], &mut pool, &mut taken[0]);
    }
    assert_eq!(taken[0].len(), 1, "the port has no slot");
    ports[0].admit(Mark(9), Address::Only).expect("free");
    until("the packet of the third client", || {
        receive(&mut ports[0], &mut pool, &mut taken[0]);
        taken[0].len() == 2
    });
    // A port that is detached ends the connection of its client.
    ports[0].forget(Mark(9));
    until("the third client to learn it", || {
        matches!(third.try_receive(&mut buffer), Err(ClientError::Gone))
    });
    assert!(second.try_send(b"still there").expect("served"));
}

#[test]
fn a_given_client_wakes_its_port() {
    let place = Place::new("clients-wake");
    let (clients, mut ports, _owner) = listen(&place.0, 1);
    let (port, mut pool) = (&mut ports[0], pool());
    port.admit(Mark(7), Address::Only).expect("free");
    port.rx_burst(&mut pool, &mut Burst::new());
    let _client = Client::connect(&place.0).expect("it listens");
    let armed = port.arm();
    assert!(matches!(armed, Arm::Wait(_)), "there is no client yet");
    clients.give(0, waiting(&clients));
    let mut waiter = Waiter::with_capacity(1);
    waiter.begin();
    waiter.add(armed);
    assert_eq!(waiter.wait(Some(LONG)), Waited::Ready);
    port.on_readable();
    port.rx_burst(&mut pool, &mut Burst::new());
    assert!(port.is_serving());
}

/// wire.md: W8-26, W8-54, W8-55.
#[test]
fn a_client_that_is_refused_reads_the_reason() {
    let place = Place::new("clients-refused");
    let (clients, _ports, _owner) = listen(&place.0, 1);
    let raw = Client::connect(&place.0).expect("it listens");
    waiting(&clients).refuse(&refusal());
    assert_eq!(raw_message(&raw), Some(example("unix-busy")));
    assert_eq!(raw_message(&raw), Some(example("unix-refusal")));
    assert_eq!(raw_message(&raw), Some(vec![]), "the connection ends");

    let mut client = Client::connect(&place.0).expect("it listens");
    waiting(&clients).refuse(&refusal());
    match client.receive(&mut [0; 8], LONG) {
        Err(ClientError::Refused(why)) => assert_eq!(why, refusal()),
        other => panic!("{other:?}"),
    }
    let mut sender = Client::connect(&place.0).expect("it listens");
    waiting(&clients).refuse(&refusal());
    assert!(matches!(sender.try_send(b"?"), Err(ClientError::Refused(why)) if why == refusal()));

    let mut trains = TrainClient::connect(&place.0, Duration::ZERO).expect("it listens");
    waiting(&clients).refuse(&refusal());
    match trains.receive(&mut [0; 8], LONG) {
        Err(ClientError::Refused(why)) => assert_eq!(why, refusal()),
        other => panic!("{other:?}"),
    }
}

/// wire.md: W8-55.
#[test]
fn a_reason_is_read_as_it_was_written_and_no_message_panics_the_reader() {
    let why = ClientRefusal {
        code: ClientRefusal::QUARANTINE,
        retry_after: Duration::from_millis(1_500),
        text: "ä".repeat(150),
    };
    let read = ClientRefusal::parse(&why.emit()).expect("valid");
    assert_eq!((read.code, read.retry_after), (why.code, Duration::from_secs(2)));
    assert_eq!(read.text, "ä".repeat(100), "cut at a character");
    assert_eq!(read.emit(), ClientRefusal::parse(&read.emit()).expect("valid").emit());
    assert!(refusal().to_string().contains("try again in 12 s"), "{}", refusal());

    let mut rng = Rng::new(1);
    for _ in 0..10_000 {
        let mut message: Vec<u8> = (0..rng.below(300)).map(|_| rng.below(256) as u8).collect();
        let header = [0xff, 0xff, 0xff, 0xfd];
        message.iter_mut().zip(header).for_each(|(byte, of_header)| *byte = of_header);
        if let Some(why) = ClientRefusal::parse(&message) {
            assert!(message.len() <= 209 && !why.text.contains(char::is_control));
        } else {
            assert!(message.len() < 9 || message.len() > 209);
        }
    }
}
