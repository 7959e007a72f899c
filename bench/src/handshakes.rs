//! Compares handshakes with the curve operations that they need, on one core: each side alone,
//! using only `strowger-crypto`, and a whole poll of the slow path with an initiation at its
//! handshake socket.

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
    Bench, Failure, Options, Row,
    machine::on_core,
    sealed_chain::{local, peering},
    spread::Spread,
};

/// The number of peers of the responding switch, which are used in turn.
const PEERS: u8 = 64;

/// The number of handshakes of each kind between two checks of the elapsed time.
const ROUNDS: u32 = 16;

/// The measurements that are compared with the curve operations. In measurements with the suffix
/// `_again`, the peers know each other's key.
const SIDES: [&str; 5] =
    ["responder", "initiator", "responder_again", "initiator_again", "slow_path"];

/// Measures handshakes per second, alternating with the curve operations.
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
        let mut row = Row::new(Bench::Handshakes, INITIATION_BYTES, false, options.pairs);
        row.ours = name;
        row.peer = Some("curves");
        row.ours_rate = Spread::of(pairs.iter().map(|rates| rates[place]));
        row.peer_rate = Spread::of(pairs.iter().map(|rates| rates[0]));
        row.ratio = Spread::of(pairs.iter().map(|rates| rates[place] / rates[0]));
        each(row)?;
    }
    Ok(())
}

/// Handshakes between two ends without and with each other's key, and with a switch.
struct Sides {
    curves: Curves,
    unknown_peers: Ends,
    acquainted: Ends,
    responder: SlowPathResponder,
}

impl Sides {
    fn new() -> Result<Self, Failure> {
        let (unknown_peers, acquainted) = (Ends::new(201, 202)?, Ends::new(203, 204)?);
        acquainted.a.add_peer(acquainted.b.static_public());
        acquainted.b.add_peer(acquainted.a.static_public());
        acquainted.time()?; // computes the stored values
        Ok(Self {
            curves: Curves::new(),
            unknown_peers,
            acquainted,
            responder: SlowPathResponder::new()?,
        })
    }

    /// Measures the curve operations and each of [`SIDES`] in turn, for six times `window` in
    /// total. Returns the rate of each, computed from its median time.
    fn measure(&mut self, window: Duration) -> Result<[f64; 6], Failure> {
        let mut took: [Vec<f64>; 6] = Default::default();
        let started = Instant::now();
        while started.elapsed() < window * 6 {
            for _ in 0..ROUNDS {
                let curves = self.curves.time();
                let [responder, initiator] = self.unknown_peers.time()?;
                let [responder_again, initiator_again] = self.acquainted.time()?;
                let slow_path = self.responder.time()?;
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

/// The two ends of a handshake.
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

    /// Runs one handshake. Returns the times of the responder and of the initiator.
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

/// All curve operations of one side of IK: four Diffie-Hellman operations, the computation of one
/// public key, and the verification of one signature under a key in byte form. An end that knows
/// its peer needs neither the signature nor one of the Diffie-Hellman operations, but is compared
/// with all of them as well.
pub(crate) struct Curves {
    secret: StaticSecret,
    public: PublicKey,
    verifying: [u8; 32],
    signature: ed25519_dalek::Signature,
}

impl Curves {
    pub(crate) fn new() -> Self {
        let signing = SigningKey::from_bytes(&[3; 32]);
        Self {
            secret: StaticSecret::from([7; 32]),
            public: PublicKey::from(&StaticSecret::from([9; 32])),
            verifying: signing.verifying_key().to_bytes(),
            signature: signing.sign(b"strowger"),
        }
    }

    /// The time of one side of IK.
    pub(crate) fn time(&self) -> Duration {
        self.time_of(1, 4)
    }

    /// The time of a responder of XX that keeps no state before the third message (wire.md W4-66):
    /// it computes its ephemeral public key and two of the Diffie-Hellman operations for XX 2 and
    /// again for XX 3, and then the third operation and the verification.
    pub(crate) fn time_xx(&self) -> Duration {
        self.time_of(2, 5)
    }

    fn time_of(&self, public_keys: u32, diffie_hellmans: u32) -> Duration {
        let Self { secret, public, verifying, signature } = self;
        let started = Instant::now();
        for _ in 0..public_keys {
            black_box(PublicKey::from(black_box(secret)));
        }
        for _ in 0..diffie_hellmans {
            black_box(black_box(secret).diffie_hellman(black_box(public)));
        }
        let verified = VerifyingKey::from_bytes(black_box(verifying))
            .and_then(|key| key.verify_strict(black_box(b"strowger"), signature));
        let took = started.elapsed();
        assert!(verified.is_ok(), "what was signed with this key");
        took
    }
}

/// A switch whose slow path answers initiations of known peers. The peers take turns.
struct SlowPathResponder {
    switch: Switch,
    worker: Worker,
    /// The far end of the port.
    far: MemoryPort,
    /// The far end of the handshake socket: initiations are sent here, and responses are received
    /// here.
    handshake_far: MemoryPort,
    pool: Pool,
    us: LocalIdentity,
    peers: Vec<LocalIdentity>,
    initiations: u64,
}

impl SlowPathResponder {
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
        let (mut handshake_near, mut handshake_far) =
            memory::wire(8).map_err(Failure::kernel("memory wire"))?;
        for end in [&mut far, &mut handshake_near, &mut handshake_far] {
            let admitted = end.admit(Mark(0), Address::Only);
            admitted.map_err(|_| Failure::Bug("the wire has no other user"))?;
        }
        let handshake_socket =
            HandshakeSocket { port: Box::new(handshake_near), pool: pool(4)?, worker_of: |_, _| 0 };
        switch
            .open_handshake_socket(port, handshake_socket)
            .map_err(|_| Failure::Bug("the port is plugged in"))?;
        let peers = (1..=PEERS).map(local).collect::<Result<Vec<_>, _>>()?;
        for peer in &peers {
            let spec = PeerSpec::new("peer", *peer.static_public(), port);
            switch.add_peer(spec, Now(1))?;
        }
        let us = local(200)?;
        let mut responder =
            Self { switch, worker, far, handshake_far, pool: pool(4)?, us, peers, initiations: 0 };
        responder.settle(Now(1));
        Ok(responder)
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

    /// Returns the duration of the poll that receives an initiation and sends the response. In this
    /// poll the session and its keys are made.
    fn time(&mut self) -> Result<Duration, Failure> {
        let number = self.initiations;
        self.initiations += 1;
        // Initiations are ten virtual milliseconds apart, so the rate limit of known peers does not
        // apply, and each peer begins a handshake at most twice per second.
        let now = Now(1_000_000_000 + number * 10_000_000);
        let peer = &self.peers[(number % u64::from(PEERS)) as usize];
        self.pool.reclaim();
        let frame = initiation(peer, &self.us, number, &mut self.pool)?;
        // Other work that is due at this time is done here, before the timed part.
        self.settle(now);
        let answers = self.answers();
        let mut burst = Burst::new();
        burst.push(frame);
        self.handshake_far.tx_burst(Mark(0), &mut burst);

        let started = Instant::now();
        self.switch.poll(now);
        let took = started.elapsed();

        self.settle(now);
        // Empty both wires: the response arrives on the wire of the handshake socket, and frames of
        // the worker arrive on the wire of the port.
        burst.clear();
        self.handshake_far.rx_burst(&mut self.pool, &mut burst);
        burst.clear();
        self.far.rx_burst(&mut self.pool, &mut burst);
        if self.answers() != answers + 1 {
            let balance = self.switch.balance();
            return Err(Failure::Wrong(format!("a handshake was not answered: {balance:?}")));
        }
        Ok(took)
    }

    /// The number of frames that the switch has made; here these are its responses.
    fn answers(&self) -> u64 {
        self.switch.balance().frames_made
    }
}

/// An initiation in a frame.
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

/// An initiation. `number` determines its timestamp, so the caller passes a larger number for each
/// later one.
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
