//! Two nodes, each with a session and a cookie checker, and the link between them. Time is virtual
//! and all randomness is seeded.

// Each test file uses only a part of this module.
#![allow(dead_code)]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use strowger_crypto::aead::Provider;
use strowger_crypto::handshake::{Admission, CookieChecker, Load, Offer, TimestampGuard, ik, xx};
use strowger_crypto::session::{
    Context, Input, NewKeys, Output, Session, SessionConfig, SessionTimes, XxRole,
};
use strowger_crypto::{
    Entropy, Identity, IdentityKey, LocalIdentity, Nanos, NetworkId, OpenRefused, Openers, Psk,
    SEALED_OVERHEAD_BYTES, Sealed, SeededEntropy,
};
use strowger_wire::{
    hello::Lanes,
    link_header::{Kind, LinkHeader, SessionIndex, Step},
};

/// The effects of the link on packets.
#[derive(Clone, Copy)]
pub(crate) struct Impairment {
    pub(crate) lost_per_mille: u64,
    pub(crate) doubled_per_mille: u64,
    pub(crate) delay_ms: (u64, u64),
}

/// One node: a slow path (session, cookie checker) and a data plane (sealers, openers).
pub(crate) struct Node {
    pub(crate) local: LocalIdentity,
    pub(crate) checker: CookieChecker,
    pub(crate) session: Session,
    pub(crate) load: Load,
    pub(crate) indices: u32,
    pub(crate) openers: HashMap<SessionIndex, Openers>,
    pub(crate) keys: Option<Box<NewKeys>>,
    /// The largest number of openers at the same time.
    pub(crate) openers_most: usize,
    /// The number of `Output::Seal` outputs.
    pub(crate) rekeys: u64,
    /// The number of `Output::Expired` outputs.
    pub(crate) expired: u64,
    pub(crate) cookies: u64,
    pub(crate) attempts: u64,
    /// Responses that the node sent.
    pub(crate) answers: u64,
}

/// A packet in flight: time of arrival, sequence number, receiver, bytes.
pub(crate) type Flight = (Nanos, u64, usize, Vec<u8>);

pub(crate) struct Sim {
    pub(crate) nodes: [Node; 2],
    pub(crate) impairment: Impairment,
    pub(crate) random: SeededEntropy,
    /// One source of randomness per node.
    pub(crate) entropy: [SeededEntropy; 2],
    pub(crate) now: Nanos,
    pub(crate) queue: BinaryHeap<Reverse<Flight>>,
    pub(crate) sent: u64,
    pub(crate) seal_refused: u64,
    pub(crate) open_refused: HashMap<OpenRefused, u64>,
    pub(crate) unknown_index: u64,
    pub(crate) delivered: u64,
    pub(crate) doubled: u64,
    /// Whether every static key is treated as belonging to another peer.
    pub(crate) taken: bool,
    /// Every initiation sent: time, sender and message.
    pub(crate) begun: Vec<(Nanos, usize, Vec<u8>)>,
}

pub(crate) fn offer() -> Offer {
    Offer { lanes: Lanes::new(3).expect("1 to 16"), ..Offer::default() }
}

pub(crate) fn sim(seed: u64, impairment: Impairment, load: Load) -> Sim {
    let mut entropy = SeededEntropy::new(seed);
    let network = NetworkId::new(b"rekey").expect("short");
    let locals: Vec<LocalIdentity> = (0..2)
        .map(|_| LocalIdentity::new(&IdentityKey::generate(&mut entropy).expect("seeded"), network))
        .collect();
    let publics = [*locals[0].static_public(), *locals[1].static_public()];
    let mut nodes = Vec::new();
    for (number, local) in locals.into_iter().enumerate() {
        let checker = CookieChecker::new(&local, Nanos::ZERO, &mut entropy).expect("seeded");
        let session = Session::new(SessionConfig {
            peer: Some(publics[1 - number]),
            identity: None,
            psk: Psk::from_bytes([4; 32]),
            offer: offer(),
            provider: Provider::DEFAULT,
            wall_at_zero: 1_700_000_000_000_000_000,
            times: &SessionTimes::LINK,
        });
        nodes.push(Node {
            local,
            checker,
            session,
            load,
            indices: 0,
            openers: HashMap::new(),
            keys: None,
            openers_most: 0,
            rekeys: 0,
            expired: 0,
            cookies: 0,
            attempts: 0,
            answers: 0,
        });
    }
    Sim {
        nodes: nodes.try_into().ok().expect("two nodes"),
        impairment,
        random: SeededEntropy::new(seed ^ 0x5eed),
        entropy: [SeededEntropy::new(seed ^ 0xa), SeededEntropy::new(seed ^ 0xb)],
        now: Nanos::ZERO,
        queue: BinaryHeap::new(),
        sent: 0,
        seal_refused: 0,
        open_refused: HashMap::new(),
        unknown_index: 0,
        delivered: 0,
        doubled: 0,
        taken: false,
        begun: Vec::new(),
    }
}

impl Sim {
    pub(crate) fn send(&mut self, from: usize, packet: Vec<u8>) {
        if self.random.next_u64() % 1000 < self.impairment.lost_per_mille {
            return;
        }
        let doubled = self.random.next_u64() % 1000 < self.impairment.doubled_per_mille;
        for _ in 0..1 + usize::from(doubled) {
            let (least, most) = self.impairment.delay_ms;
            let delay = least * 1_000_000 + self.random.next_u64() % ((most - least) * 1_000_000);
            self.sent += 1;
            let arrival = self.now.plus(Nanos(delay));
            self.queue.push(Reverse((arrival, self.sent, 1 - from, packet.clone())));
        }
    }

    pub(crate) fn step(&mut self, at: usize, input: Input<'_>) {
        // A refusal (a late response, an old initiation) is expected here.
        self.with_session(at, |session, context, outputs| {
            let _ = session.handle(context, input, outputs);
        });
    }

    pub(crate) fn with_session(
        &mut self,
        at: usize,
        work: impl FnOnce(&mut Session, &mut Context<'_>, &mut Vec<Output>),
    ) {
        let mut outputs = Vec::new();
        let node = &mut self.nodes[at];
        let mut indices = |_: &mut dyn Entropy| {
            node.indices += 1;
            SessionIndex::new(node.indices * 2 + at as u32)
        };
        let mut context = Context {
            now: self.now,
            local: &node.local,
            entropy: &mut self.entropy[at],
            indices: &mut indices,
            is_free: &|_| !self.taken,
        };
        work(&mut node.session, &mut context, &mut outputs);
        for output in outputs {
            let node = &mut self.nodes[at];
            match output {
                Output::Send(message) => {
                    let kind = LinkHeader::parse(&message).expect("our own message").kind;
                    node.answers += u64::from(kind == Kind::Response);
                    if kind == Kind::Initiation {
                        node.attempts += 1;
                        self.begun.push((self.now, at, message.clone()));
                    }
                    self.send(at, message);
                }
                Output::Open { index, openers } => {
                    assert!(node.openers.insert(index, openers).is_none(), "an index used twice");
                    node.openers_most = node.openers_most.max(node.openers.len());
                }
                Output::Close(index) => drop(node.openers.remove(&index)),
                Output::Seal(keys) => {
                    node.rekeys += 1;
                    node.keys = Some(keys);
                }
                Output::Confirm => self.data(at, &[]),
                Output::Expired => {
                    node.expired += 1;
                    node.keys = None;
                }
            }
        }
    }

    pub(crate) fn data(&mut self, at: usize, body: &[u8]) {
        let mut packet = vec![0; body.len() + SEALED_OVERHEAD_BYTES];
        packet[8..8 + body.len()].copy_from_slice(body);
        let Some(keys) = &mut self.nodes[at].keys else {
            self.seal_refused += 1;
            return;
        };
        match keys.sealers[0].seal(self.now, Sealed::Data, &mut packet) {
            Ok(_) => self.send(at, packet),
            Err(_) => self.seal_refused += 1,
        }
    }

    pub(crate) fn receive(&mut self, at: usize, mut packet: Vec<u8>) {
        let header = LinkHeader::parse(&packet).expect("sent by one of us");
        let node = &mut self.nodes[at];
        match header.kind {
            Kind::Initiation => {
                node.checker.rotate(self.now, &mut self.entropy[at]).expect("seeded");
                let admitted = match node.checker.admit(b"source", &packet, node.load) {
                    Ok(Admission::Admitted(admitted)) => admitted,
                    Ok(Admission::CookieReply(cookie)) => {
                        node.cookies += 1;
                        return self.send(at, cookie.to_vec());
                    }
                    Err(why) => panic!("an honest initiation was not admitted: {why}"),
                };
                match admitted.step() {
                    Step::Known => {
                        let read = ik::read(&node.local, &admitted).expect("an honest initiation");
                        self.step(at, Input::Initiation(Box::new(read)));
                    }
                    Step::Discover => {
                        let answer =
                            xx::answer(&node.checker, &node.local, &offer(), b"source", &admitted);
                        self.send(at, answer.expect("an honest peer"));
                    }
                    Step::Finish => {
                        let Ok(finish) = xx::read_finish(
                            &node.checker,
                            &node.local,
                            &offer(),
                            b"source",
                            &admitted,
                        ) else {
                            return; // the checker's secret was replaced twice
                        };
                        let mut guard = TimestampGuard::default();
                        let Ok(established) = finish.accept(&mut node.checker, &mut guard) else {
                            return; // a repeated third message
                        };
                        let role = XxRole::Responder { guard };
                        self.with_session(at, |session, context, outputs| {
                            let taken = session.adopt(context, established, role, outputs);
                            taken.expect("the peer of this session");
                        });
                    }
                }
            }
            Kind::Response | Kind::Cookie => self.step(at, Input::Message(&packet)),
            _ => {
                let Some(openers) = node.openers.get_mut(&header.index) else {
                    self.unknown_index += 1;
                    return;
                };
                match openers.open(self.now, &mut packet) {
                    Ok(opened) => {
                        self.delivered += 1;
                        if opened.first() || opened.body().is_empty() {
                            self.step(at, Input::Opened(header.index));
                        }
                    }
                    Err(OpenRefused::Replayed) => self.doubled += 1,
                    Err(why) => *self.open_refused.entry(why).or_default() += 1,
                }
            }
        }
    }

    /// Runs until `end`. Each node that has an interval sends one data packet per interval.
    pub(crate) fn run(&mut self, end: Nanos, intervals: [Option<Nanos>; 2]) {
        let mut due = intervals.map(|interval| interval.map(|interval| self.now.plus(interval)));
        while self.now < end {
            let mut next = end;
            for time in due.into_iter().flatten() {
                next = next.min(time);
            }
            for node in &self.nodes {
                next = next.min(node.session.next_timeout().unwrap_or(end));
            }
            if let Some(Reverse((arrival, ..))) = self.queue.peek() {
                next = next.min(*arrival);
            }
            self.now = self.now.max(next);
            while let Some(Reverse((arrival, ..))) = self.queue.peek()
                && *arrival <= self.now
            {
                let Reverse((_, _, to, packet)) = self.queue.pop().expect("peeked");
                self.receive(to, packet);
            }
            for at in 0..2 {
                if self.nodes[at].session.next_timeout().is_some_and(|due| due <= self.now) {
                    self.step(at, Input::Tick);
                    let again = self.nodes[at].session.next_timeout();
                    assert!(
                        again.is_none_or(|due| due > self.now),
                        "a timer that does not advance"
                    );
                }
                if due[at].is_some_and(|due| due <= self.now) {
                    self.data(at, b"data");
                    due[at] = intervals[at].map(|interval| self.now.plus(interval));
                }
            }
        }
    }

    pub(crate) fn check(&self, seed: u64) {
        assert_eq!(self.seal_refused, 0, "seed {seed}: a packet could not be sealed");
        assert_eq!(self.unknown_index, 0, "seed {seed}: a packet for keys that are gone");
        assert!(self.open_refused.is_empty(), "seed {seed}: {:?}", self.open_refused);
        for node in &self.nodes {
            assert_eq!(node.expired, 0, "seed {seed}: the link went down");
            assert!(node.openers_most <= 6, "seed {seed}: {} openers", node.openers_most);
        }
    }
}

pub(crate) const LOSSY: Impairment =
    Impairment { lost_per_mille: 300, doubled_per_mille: 20, delay_ms: (1, 300) };

pub(crate) fn up(sim: &mut Sim, wants: [bool; 2]) {
    for (at, wants) in wants.into_iter().enumerate() {
        if wants {
            sim.step(at, Input::Wanted);
        }
    }
    let end = sim.now.plus(Nanos::from_secs(60));
    sim.run(end, [None, None]);
    assert!(sim.nodes.iter().all(|node| node.session.is_up()));
}

/// Makes a session with the other node, whose key is not known.
pub(crate) fn discovering(sim: &Sim, at: usize, identity: Option<Identity>) -> Session {
    Session::new(SessionConfig {
        peer: None,
        identity,
        psk: Psk::from_bytes([4; 32]),
        offer: offer(),
        provider: Provider::DEFAULT,
        wall_at_zero: 1_700_000_000_000_000_000 + sim.now.0 + at as u64,
        times: &SessionTimes::LINK,
    })
}
