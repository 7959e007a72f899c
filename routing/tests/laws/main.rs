//! The laws of the combinators, on random sources in virtual time. Seeds are printed on failure.

#![allow(clippy::unwrap_used)] // functions that only tests call count as tests

mod ask;
mod combinators;
mod null;
mod source;

use std::collections::BTreeMap;

use source::{Log, Script, Scripted};
use strowger_routing::{
    Candidate, LookupEnd, LookupResult, LookupTarget, NoRouting, PeerRouting, QuestionQueue,
    StaticTable, combine::*, crypto::Nanos,
};
use strowger_testkit::Rng;

/// Calls a source as its users do, and checks the rules of [`PeerRouting`] at each call.
struct Caller<P> {
    routing: P,
    now: Nanos,
    out: QuestionQueue,
    /// Lookups that have not ended.
    active: BTreeMap<LookupTarget, ()>,
    results: Vec<(Nanos, LookupResult)>,
}

impl<P: PeerRouting> Caller<P> {
    fn new(routing: P) -> Self {
        let (out, active) = (QuestionQueue::new(), BTreeMap::new());
        Self { routing, now: Nanos::from_secs(1_000), out, active, results: Vec::new() }
    }

    fn lookup(&mut self, target: LookupTarget) {
        self.routing.lookup(self.now, target, &mut self.out);
        self.active.insert(target, ());
        self.poll();
    }

    fn cancel(&mut self, target: &LookupTarget) {
        self.routing.cancel(target);
        self.active.remove(target);
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(result) = self.routing.poll(self.now, &mut self.out) {
            let target = result.target;
            assert!(self.active.contains_key(&target), "rule 2: {target:?} is not looked up");
            let rank = |one: &Candidate| one.cost;
            assert!(result.candidates.is_sorted_by_key(rank), "rule 5: {result:?}");
            let now = self.now;
            assert!(result.candidates.iter().all(|one| !one.is_expired(now)), "rule 5");
            if result.end.is_some() {
                self.active.remove(&target);
            }
            self.results.push((self.now, result));
        }
        assert_eq!(self.routing.poll(self.now, &mut self.out), None, "rule 4");
    }

    /// Lets time pass, with a poll at each timeout.
    fn wait(&mut self, until: Nanos) {
        while let Some(next) = self.routing.next_timeout().filter(|next| *next <= until) {
            // Just before the timeout there is no result.
            if let Some(before) = next.0.checked_sub(1).map(Nanos).filter(|at| *at > self.now) {
                let polled = self.routing.poll(before, &mut self.out);
                assert_eq!(polled, None, "rule 4: before the timeout");
            }
            assert!(next > self.now, "rule 4: a timeout that is over was not served");
            self.now = next;
            self.poll();
        }
        self.now = until;
        self.poll();
    }

    fn finish(&mut self) {
        self.wait(self.now.plus(Nanos::from_secs(3_600)));
        assert!(self.active.is_empty(), "rule 1: no end of {:?}", self.active);
        assert_eq!(self.routing.next_timeout(), None, "rule 1: a timeout without a lookup");
    }

    /// All candidates for a target, in order.
    fn candidates(&self, target: &LookupTarget) -> Vec<Candidate> {
        let results = self.results.iter().filter(|(_, result)| result.target == *target);
        results.flat_map(|(_, result)| result.candidates.clone()).collect()
    }

    fn ends(&self, target: &LookupTarget) -> Vec<LookupEnd> {
        let results = self.results.iter().filter(|(_, result)| result.target == *target);
        results.filter_map(|(_, result)| result.end).collect()
    }
}

/// Checks the rules of [`PeerRouting`] under random calls: lookups, repeated and cancelled lookups,
/// and pauses.
fn rules_hold<P: PeerRouting>(rng: &mut Rng, targets: &[LookupTarget], routing: P) {
    let mut caller = Caller::new(routing);
    let (mut lookups, mut cancelled) = (0, 0);
    for _ in 0..60 {
        let target = targets[rng.below(targets.len())];
        match rng.below(6) {
            0..=2 => {
                let was_active = caller.active.contains_key(&target);
                caller.lookup(target);
                lookups += usize::from(!was_active);
            }
            3 if caller.active.contains_key(&target) => {
                caller.cancel(&target);
                cancelled += 1;
            }
            3 => caller.cancel(&target),
            _ => caller.wait(caller.now.plus(Nanos(rng.below(3_000_000_000) as u64))),
        }
    }
    caller.finish();
    let ends = caller.results.iter().filter(|(_, result)| result.end.is_some()).count();
    assert_eq!(ends + cancelled, lookups, "rule 1: one end for each lookup");
}

#[test]
fn every_source_keeps_the_rules() {
    for seed in 0..200 {
        let mut rng = Rng::new(0x5709_1000 + seed);
        let script = |rng: &mut Rng| Script::random(rng);
        let targets = Script::targets();
        let budget = Budget { per_second: 1, burst: 3, in_progress: 2 };
        let (a, b) = (script(&mut rng), script(&mut rng));
        let one = || Scripted::new(&a, Log::default());
        let other = || Scripted::new(&b, Log::default());
        let life = Nanos::from_secs(2);
        rules_hold(&mut rng, &targets, one());
        rules_hold(&mut rng, &targets, NoRouting::default());
        rules_hold(&mut rng, &targets, StaticTable::parse(&source::book()).unwrap());
        rules_hold(&mut rng, &targets, First::new(one(), other()));
        rules_hold(&mut rng, &targets, Both::new(one(), other()));
        rules_hold(&mut rng, &targets, Cached::new(one(), 2, life));
        rules_hold(&mut rng, &targets, Budgeted::new(one(), budget));
        rules_hold(
            &mut rng,
            &targets,
            Filtered::new(one(), |found: &Candidate| found.cost.is_multiple_of(2)),
        );
        rules_hold(&mut rng, &targets, Scoped::new(one(), []));
        // A composition as in a node.
        let table = StaticTable::parse(&source::book()).unwrap();
        let distant = Budgeted::new(Scoped::new(other(), []), budget);
        let all = First::new(table, Cached::new(Both::new(one(), distant), 3, life));
        rules_hold(&mut rng, &targets, Box::new(all) as Box<dyn PeerRouting>);
    }
}
