//! Handshakes against the curve operations that they cannot do without, on one core: each side by
//! itself, as `strowger-crypto` does it, and the slow path's whole turn when an initiation comes to its door.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use strowger_crypto::{
    LocalIdentity, Nanos, OsEntropy, Psk,
    handshake::{Admission, CookieChecker, Load, LocalParams, Offer, TimestampGuard, ik},
};
use strowger_engine::{
    Now,
    control::{HandshakeSocket, Switch, SwitchConfig, peering::PeerSpec},
    worker::Worker,
};
use strowger_frame::{Address, Burst, ChunkClass, Frame, Mark, Pool, PoolSpec, Port as _};
use strowger_io::{MemoryPort, memory};
use strowger_wire::{hello::Timestamp, limits::INITIATION_BYTES, link_header::SessionIndex};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{
    Failure, Options, Row, What,
    machine::on_core,
    sealed_chain::{local, peering},
    spread::Spread,
};

/// Peers of the switch that is knocked at, in turn.
const PEERS: u8 = 64;

/// Of each kind before the clock is looked at.
const ROUNDS: u32 = 16;

/// What is measured beside the curves.
const SIDES: [&str; 5] =
    ["responder", "initiator", "responder_again", "initiator_again", "slow_path"];

/// Measures handshakes a second, with the curves between them.
pub(crate) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let pairs = on_core(options.cores.forwarder, || {
        let mut sides = Sides::new()?;
        (0..options.pairs).map(|_| sides.measure(options.window())).collect()
    });
    let pairs: Vec<[f64; 6]> = pairs?;
    for (place, name) in (1..).zip(SIDES) {
        let mut row = Row::new(What::Handshakes, INITIATION_BYTES, false, options.pairs);
        row.ours = name;
        row.peer = Some("curves");
        row.ours_rate = Spread::of(pairs.iter().map(|rates| rates[place]));
        row.peer_rate = Spread::of(pairs.iter().map(|rates| rates[0]));
        row.ratio = Spread::of(pairs.iter().map(|rates| rates[place] / rates[0]));
        each(row)?;
    }
    Ok(())
}

/// Handshakes of two that have not met, of two that know each other, and with a switch.
struct Sides {
    curves: Curves,
    unknown_peers: Ends,
    acquainted: Ends,
    knocked: Knocked,
}

impl Sides {
    fn new() -> Result<Self, Failure> {
        let (unknown_peers, acquainted) = (Ends::new(201, 202)?, Ends::new(203, 204)?);
        acquainted.a.add_peer(acquainted.b.static_public());
        acquainted.b.add_peer(acquainted.a.static_public());
        acquainted.time()?; // what is kept is worked out here
        Ok(Self { curves: Curves::new(), unknown_peers, acquainted, knocked: Knocked::new()? })
    }

    /// Rates of the curves and of each of [`SIDES`], one of each in turn until `window` has passed
    /// for all. Of each the one in the middle counts.
    fn measure(&mut self, window: Duration) -> Result<[f64; 6], Failure> {
        let mut took: [Vec<f64>; 6] = Default::default();
        let started = Instant::now();
        while started.elapsed() < window * 6 {
            for _ in 0..ROUNDS {
                let curves = self.curves.time();
                let [responder, initiator] = self.unknown_peers.time()?;
                let [responder_again, initiator_again] = self.acquainted.time()?;
                let slow_path = self.knocked.time()?;
                let each =
                    [curves, responder, initiator, responder_again, initiator_again, slow_path];
                for (took, time) in took.iter_mut().zip(each) {
                    took.push(time.as_secs_f64());
                }
            }
        }
        Ok(took.map(|took| 1.0 / Spread::of(took).map_or(f64::INFINITY, |spread| spread.median)))
    }
}

/// Both ends of handshakes.
struct Ends {
    a: LocalIdentity,
    b: LocalIdentity,
    offer: Offer,
    checker: CookieChecker,
}

impl Ends {
    fn new(a: u8, b: u8) -> Result<Self, Failure> {
        let (a, b) = (local(a)?, local(b)?);
        let checker = CookieChecker::new(&b, Nanos::ZERO, &mut OsEntropy);
        let checker = checker.map_err(|_| Failure::Bug("the system has randomness"))?;
        Ok(Self { a, b, offer: Offer::default(), checker })
    }

    /// One handshake: what the responder's side took, and the initiator's.
    fn time(&self) -> Result<[Duration; 2], Failure> {
        let Self { a, b, offer, checker, .. } = self;
        let wrong = |_| Failure::Bug("an honest handshake is finished");
        let index = SessionIndex::new(1).ok_or(Failure::Bug("24 bits"))?;
        let ours = |local| LocalParams { local, offer, index, timestamp: Timestamp(1) };

        let began = Instant::now();
        let begun = ik::initiate(&ours(a), b.static_public(), &Psk::NONE, None, &mut OsEntropy);
        let began = began.elapsed();
        let (state, message) = begun.map_err(|_| Failure::Bug("the system has randomness"))?;

        let responding = Instant::now();
        let Ok(Admission::Admitted(admitted)) = checker.admit(b"", &message, Load::Normal) else {
            return Err(Failure::Bug("an honest initiation is admitted while all is calm"));
        };
        let initiation = ik::read(b, &admitted).map_err(wrong)?;
        let guard = &mut TimestampGuard::default();
        let accepted = initiation.accept(&ours(b), &Psk::NONE, guard, &mut OsEntropy);
        let responder = responding.elapsed();
        let (_, response) = accepted.map_err(|_| Failure::Bug("an honest initiation"))?;

        let reading = Instant::now();
        let read = state.read_response(&response);
        let read_in = reading.elapsed();
        read.map_err(|_| Failure::Bug("an honest response"))?;
        Ok([responder, began + read_in])
    }
}

/// The curve operations of a side of IK, all of them: four Diffie-Hellman operations, one public
/// key, one signature verified under a key that comes as bytes. Who knows its peer saves one of the
/// four and the signature, and is measured against all of them nonetheless.
struct Curves {
    secret: StaticSecret,
    public: PublicKey,
    verifying: [u8; 32],
    signature: ed25519_dalek::Signature,
}

impl Curves {
    fn new() -> Self {
        let signing = SigningKey::from_bytes(&[3; 32]);
        Self {
            secret: StaticSecret::from([7; 32]),
            public: PublicKey::from(&StaticSecret::from([9; 32])),
            verifying: signing.verifying_key().to_bytes(),
            signature: signing.sign(b"strowger"),
        }
    }

    fn time(&self) -> Duration {
        let Self { secret, public, verifying, signature } = self;
        let started = Instant::now();
        black_box(PublicKey::from(black_box(secret)));
        for _ in 0..4 {
            black_box(black_box(secret).diffie_hellman(black_box(public)));
        }
        let verified = VerifyingKey::from_bytes(black_box(verifying))
            .and_then(|key| key.verify_strict(black_box(b"strowger"), signature));
        let took = started.elapsed();
        assert!(verified.is_ok(), "what was signed with this key");
        took
    }
}

/// A switch at whose slow path known peers knock, in turn and over and over.
struct Knocked {
    switch: Switch,
    worker: Worker,
    /// The far end of the port.
    far: MemoryPort,
    /// The far end of the handshake socket: initiations go in here, and responses come out.
    street: MemoryPort,
    pool: Pool,
    us: LocalIdentity,
    peers: Vec<LocalIdentity>,
    knocks: u64,
}

impl Knocked {
    fn new() -> Result<Self, Failure> {
        let pool = |singles| {
            let spec = PoolSpec { trains: 0, singles, huge_pages: false };
            Pool::new(&spec).map_err(Failure::kernel("memory"))
        };
        let (mut switch, mut workers) = Switch::new(SwitchConfig::default(), vec![pool(64)?])?;
        let worker = workers.pop().ok_or(Failure::Bug("one pool, one worker"))?;
        switch.set_identity(peering(200)?, Now(1))?;
        let (near, mut far) = memory::wire(64).map_err(Failure::kernel("memory wire"))?;
        let port = switch.plug_at(0, Box::new(near));
        let port = port.map_err(|_| Failure::Bug("the first port of many"))?;
        let (mut indoors, mut street) = memory::wire(8).map_err(Failure::kernel("memory wire"))?;
        for end in [&mut far, &mut indoors, &mut street] {
            let admitted = end.admit(Mark(0), Address::Only);
            admitted.map_err(|_| Failure::Bug("nobody else is there"))?;
        }
        let door = HandshakeSocket { port: Box::new(indoors), pool: pool(4)?, worker_of: |_, _| 0 };
        switch
            .open_handshake_socket(port, door)
            .map_err(|_| Failure::Bug("the port is plugged in"))?;
        let peers = (1..=PEERS).map(local).collect::<Result<Vec<_>, _>>()?;
        for peer in &peers {
            let spec = PeerSpec::new("peer", *peer.static_public(), port);
            switch.add_peer(spec, Now(1))?;
        }
        let us = local(200)?;
        let mut knocked =
            Self { switch, worker, far, street, pool: pool(4)?, us, peers, knocks: 0 };
        knocked.settle(Now(1));
        Ok(knocked)
    }

    fn settle(&mut self, now: Now) {
        loop {
            self.switch.poll(now);
            if self.switch.is_settled() {
                break;
            }
            self.worker.poll(now);
        }
    }

    /// From an initiation that came in to the answer on its way to a worker, session and keys made.
    fn time(&mut self) -> Result<Duration, Failure> {
        let number = self.knocks;
        self.knocks += 1;
        // Ten virtual milliseconds between any two: the budget for known peers is not what is
        // measured, and a peer starts again twice in a second.
        let now = Now(1_000_000_000 + number * 10_000_000);
        let peer = &self.peers[(number % u64::from(PEERS)) as usize];
        self.pool.reclaim();
        let frame = initiation(peer, &self.us, number, &mut self.pool)?;
        // What else is due by then is no part of it.
        self.settle(now);
        let answers = self.answers();
        let mut burst = Burst::new();
        burst.push(frame);
        self.street.tx_burst(Mark(0), &mut burst);

        let started = Instant::now();
        self.switch.poll(now);
        let took = started.elapsed();

        self.settle(now);
        // The answer leaves by the handshake socket; keepalives leave by the worker.
        burst.clear();
        self.street.rx_burst(&mut self.pool, &mut burst);
        burst.clear();
        self.far.rx_burst(&mut self.pool, &mut burst);
        if self.answers() != answers + 1 {
            let balance = self.switch.balance();
            return Err(Failure::Wrong(format!("a handshake was not answered: {balance:?}")));
        }
        Ok(took)
    }

    /// Messages that the switch has made.
    fn answers(&self) -> u64 {
        self.switch.balance().frames_made
    }
}

/// A message that begins a handshake, in a frame.
pub(crate) fn initiation(
    from: &LocalIdentity,
    to: &LocalIdentity,
    number: u64,
    pool: &mut Pool,
) -> Result<Frame, Failure> {
    let message = initiation_bytes(from, to, number)?;
    let chunk = pool.take(ChunkClass::Single).ok_or(Failure::Bug("a chunk is free"))?;
    let start = chunk.start();
    let mut frame = chunk.into_frame(start, message.len());
    frame.bytes_mut().copy_from_slice(&message);
    Ok(frame)
}

/// A message that begins a handshake. A later one has a larger number.
pub(crate) fn initiation_bytes(
    from: &LocalIdentity,
    to: &LocalIdentity,
    number: u64,
) -> Result<Vec<u8>, Failure> {
    let offer = Offer::default();
    let index = SessionIndex::new(1 + number as u32 % 1_000).ok_or(Failure::Bug("24 bits"))?;
    let ours = LocalParams { local: from, offer: &offer, index, timestamp: Timestamp(1 + number) };
    let begun = ik::initiate(&ours, to.static_public(), &Psk::NONE, None, &mut OsEntropy);
    let (_, message) = begun.map_err(|_| Failure::Bug("the system has randomness"))?;
    Ok(message)
}
