//! A source with given or random answers.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, LazyLock, Mutex},
};

use strowger_routing::{
    Candidate, ControlReply, LookupEnd, LookupResult, LookupTarget, NodeId, Outcome, PeerRouting,
    QuestionQueue, Route, Source, UnderlayRoute,
    address::UdpAddress,
    crypto::{IdentityKey, Nanos, PeerId, Secret},
    wire::Label,
};
use strowger_testkit::Rng;

/// The lookups that a source got, with their times.
pub(crate) type Log = Arc<Mutex<Vec<(Nanos, LookupTarget)>>>;

/// The parts of an answer, with their times after the lookup. The last part has the end.
type Answer = Vec<(Nanos, Vec<Candidate>)>;

/// The answers of a source for each target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    answers: BTreeMap<LookupTarget, Answer>,
}

/// One of five peers.
pub(crate) fn peer(seed: u8) -> PeerId {
    static PEERS: LazyLock<[PeerId; 5]> = LazyLock::new(|| {
        [0, 1, 2, 3, 4]
            .map(|seed| IdentityKey::from_seed(&Secret::from_bytes([seed; 32])).public().peer_id())
    });
    PEERS[usize::from(seed)]
}

/// An address book with three of the peers.
pub(crate) fn book() -> String {
    let entry = |seed: u8| {
        let peer = peer(seed);
        format!(
            "[[name]]\nname = \"n{seed}\"\npeer_id = \"{peer}\"\nlabels = [\"1{seed}\", \"15\"]\n\
             addresses = [\"/ip4/192.0.2.1/udp/{}/strowger\"]\n",
            seed + 1
        )
    };
    (0..3).map(entry).collect()
}

impl Script {
    /// Five peers, and the address of one of them.
    pub(crate) fn targets() -> Vec<LookupTarget> {
        let peers = (0..5).map(|seed| LookupTarget::Peer(peer(seed)));
        peers.chain([LookupTarget::Address(peer(1).ip6())]).collect()
    }

    /// An answer of one immediate part for one target.
    pub(crate) fn of(target: LookupTarget, candidates: Vec<Candidate>) -> Script {
        let mut script = Script::default();
        script.answers.insert(target, vec![(Nanos::ZERO, candidates)]);
        script
    }

    /// Random answers: up to three parts, less than 6 s after the lookup, with few different
    /// routes.
    pub(crate) fn random(rng: &mut Rng) -> Script {
        let mut script = Script::default();
        for target in Script::targets() {
            let mut parts = Answer::new();
            let mut after = 0;
            for _ in 0..=rng.below(3) {
                after += if rng.one_in(3) { rng.below(2_000_000_000) as u64 } else { 0 };
                let count = if rng.one_in(2) { 0 } else { rng.below(9) };
                let mut found: Vec<Candidate> = Vec::new();
                for _ in 0..count {
                    let candidate = random_candidate(rng, &target);
                    let is_new = |known: &Candidate| known.route != candidate.route;
                    let earlier = parts.iter().flat_map(|(_, part): &(_, Vec<Candidate>)| part);
                    if earlier.chain(&found).all(is_new) {
                        found.push(candidate);
                    }
                }
                found.sort_by_key(|candidate| candidate.cost);
                parts.push((Nanos(after), found));
            }
            script.answers.insert(target, parts);
        }
        script
    }

    /// All candidates for a target, in order.
    pub(crate) fn candidates(&self, target: &LookupTarget) -> Vec<Candidate> {
        self.answers[target].iter().flat_map(|(_, part)| part.clone()).collect()
    }

    /// The time from a lookup to its end.
    pub(crate) fn end(&self, target: &LookupTarget) -> Nanos {
        self.answers[target].last().expect("at least one part").0
    }

    /// The parts of an answer.
    pub(crate) fn parts(&self, target: &LookupTarget) -> &Answer {
        &self.answers[target]
    }
}

fn random_candidate(rng: &mut Rng, target: &LookupTarget) -> Candidate {
    let found = (0..5).map(peer).find(|peer| target.is(peer)).expect("a target is a peer");
    let route = if rng.one_in(2) {
        Route::Label(Label::<u64>::new(0x10 + rng.below(12) as u64).into())
    } else {
        let ips = ["192.0.2.1", "10.1.2.3", "192.168.7.7", "127.0.0.1", "fe80::1", "2001:db8::1"];
        let ip = ips[rng.below(ips.len())].parse().unwrap();
        let address = UdpAddress { ip, port: 1 + rng.below(3) as u16 };
        Route::Underlay(UnderlayRoute { address, node: NodeId::PeerId(found), label: None })
    };
    let mut candidate = Candidate::new(found, route, Source::Program);
    candidate.cost = rng.below(10) as u32;
    candidate
}

/// A source that answers according to its script.
pub(crate) struct Scripted {
    script: Script,
    log: Log,
    /// Results to come, in the order of their times.
    due: Vec<(Nanos, LookupResult)>,
    ready: VecDeque<LookupResult>,
}

impl Scripted {
    pub(crate) fn new(script: &Script, log: Log) -> Scripted {
        Scripted { script: script.clone(), log, due: Vec::new(), ready: VecDeque::new() }
    }

    fn has(&self, target: &LookupTarget) -> bool {
        let mut all = self.due.iter().map(|(_, result)| result).chain(&self.ready);
        all.any(|result| result.target == *target)
    }
}

impl PeerRouting for Scripted {
    fn lookup(&mut self, now: Nanos, target: LookupTarget, _: &mut QuestionQueue) {
        if self.has(&target) {
            return;
        }
        self.log.lock().unwrap().push((now, target));
        let parts = self.script.parts(&target);
        for (place, (after, candidates)) in parts.iter().enumerate() {
            let end = (place + 1 == parts.len()).then_some(LookupEnd::Complete);
            let candidates = candidates.iter().cloned().collect();
            self.due.push((now.plus(*after), LookupResult { target, candidates, end }));
        }
        self.due.sort_by_key(|(at, _)| *at);
    }

    fn cancel(&mut self, target: &LookupTarget) {
        self.due.retain(|(_, result)| result.target != *target);
        self.ready.retain(|result| result.target != *target);
    }

    fn handle_reply(&mut self, _: Nanos, _: &ControlReply<'_>, _: &mut QuestionQueue) {}

    fn poll(&mut self, now: Nanos, _: &mut QuestionQueue) -> Option<LookupResult> {
        let count = self.due.partition_point(|(at, _)| *at <= now);
        self.ready.extend(self.due.drain(..count).map(|(_, result)| result));
        self.ready.pop_front()
    }

    fn feedback(&mut self, _: Nanos, _: &Route, _: &Outcome) {}

    fn next_timeout(&self) -> Option<Nanos> {
        self.due.first().map(|(at, _)| *at)
    }
}
