//! Compares the results of each combinator with those of its sources.

use std::collections::{BTreeMap, BTreeSet};

use strowger_routing::{
    Candidate, Constraints, GivenLabels, LookupEnd, LookupResult, LookupTarget, NodeId, Outcome,
    Path, PathError, Paths, PeerRouting as _, Route, RouteFailure, Source, SwitchRouting,
    UnderlayRoute,
    address::UdpAddress,
    combine::{Both, Budget, Budgeted, Cached, Filtered, First, IpPrefix, Scoped},
    crypto::Nanos,
    limits::{CANDIDATES_MAX, NOT_FOUND_S},
    wire::{
        Label,
        control::{Message, Reason},
        label::AnyLabel,
        switch_header::HeaderRepr,
    },
};
use strowger_testkit::Rng;

use super::{
    Caller,
    source::{Log, Script, Scripted, peer},
};

/// Runs a law with two random scripts for each of 200 seeds.
fn for_scripts(first_seed: u64, law: impl Fn(&mut Rng, Script, Script)) {
    for seed in 0..200 {
        let mut rng = Rng::new(first_seed + seed);
        let (one, other) = (Script::random(&mut rng), Script::random(&mut rng));
        law(&mut rng, one, other);
    }
}

#[test]
fn first_asks_the_second_source_only_if_the_first_knows_nothing() {
    for_scripts(0x5709_2000, |_, one, other| {
        let log = Log::default();
        let routing =
            First::new(Scripted::new(&one, Log::default()), Scripted::new(&other, log.clone()));
        let mut caller = Caller::new(routing);
        let start = caller.now;
        Script::targets().into_iter().for_each(|target| caller.lookup(target));
        caller.finish();
        let mut asked = BTreeMap::new();
        for (at, target) in log.lock().unwrap().iter() {
            assert_eq!(asked.insert(*target, at.since(start)), None);
        }
        for target in Script::targets() {
            let (of_one, of_other) = (one.candidates(&target), other.candidates(&target));
            let is_known = !of_one.is_empty();
            assert_eq!(caller.candidates(&target), if is_known { of_one } else { of_other });
            let expected = (!is_known).then(|| one.end(&target));
            assert_eq!(asked.get(&target).copied(), expected, "asked at the end of the first");
            assert_eq!(caller.ends(&target), [LookupEnd::Complete]);
        }
    });
}

#[test]
fn both_is_the_union_without_duplicates_best_first() {
    for_scripts(0x5709_3000, |_, one, other| {
        let routing =
            Both::new(Scripted::new(&one, Log::default()), Scripted::new(&other, Log::default()));
        let mut caller = Caller::new(routing);
        Script::targets().into_iter().for_each(|target| caller.lookup(target));
        caller.finish();
        for target in Script::targets() {
            let found = caller.candidates(&target);
            let routes: BTreeSet<String> =
                found.iter().map(|one| format!("{:?}", one.route)).collect();
            assert_eq!(routes.len(), found.len(), "no duplicates");
            let all: Vec<_> =
                one.candidates(&target).into_iter().chain(other.candidates(&target)).collect();
            let expected: BTreeSet<String> =
                all.iter().map(|one| format!("{:?}", one.route)).collect();
            assert_eq!(routes, expected, "the union");
            // Candidates that are returned at the same time are sorted by cost, across all results
            // of that time.
            let mut by_time: BTreeMap<Nanos, Vec<u32>> = BTreeMap::new();
            for (at, result) in &caller.results {
                if result.target == target {
                    let costs = result.candidates.iter().map(|found| found.cost);
                    by_time.entry(*at).or_default().extend(costs);
                }
            }
            assert!(by_time.values().all(|costs| costs.is_sorted()), "{by_time:?}");
            // A route that both sources find immediately has the smaller cost.
            if one.end(&target) == Nanos::ZERO && other.end(&target) == Nanos::ZERO {
                for candidate in &found {
                    let same = all.iter().filter(|other| other.route == candidate.route);
                    let best = same.map(|other| other.cost).min();
                    assert_eq!(Some(candidate.cost), best);
                }
            }
            assert_eq!(caller.ends(&target), [LookupEnd::Complete]);
        }
    });
}

#[test]
fn cached_repeats_an_answer_for_its_life_and_keeps_no_more_than_its_entries() {
    let life = Nanos::from_secs(30);
    for_scripts(0x5709_4000, |rng, script, _| {
        let (log, entries_max) = (Log::default(), 1 + rng.below(6));
        let routing = Cached::new(Scripted::new(&script, log.clone()), entries_max, life);
        let mut caller = Caller::new(routing);
        // The time at which each answer was complete, in the order of use.
        let mut model: Vec<(LookupTarget, Nanos)> = Vec::new();
        for _ in 0..40 {
            let targets = Script::targets();
            let target = targets[rng.below(targets.len())];
            caller.results.clear();
            log.lock().unwrap().clear();
            let start = caller.now;
            caller.lookup(target);
            caller.wait(start.plus(script.end(&target)));
            let was_asked = !log.lock().unwrap().is_empty();

            let known = model.iter().position(|(known, _)| *known == target);
            let of_script = script.candidates(&target);
            let limit = match of_script.is_empty() {
                true => Nanos::from_secs(NOT_FOUND_S),
                false => life,
            };
            let is_fresh = known.is_some_and(|place| start < model[place].1.plus(limit));
            assert_eq!(was_asked, !is_fresh, "{model:?} {target:?} {start:?}");
            let since = known.map(|place| model.remove(place).1).filter(|_| is_fresh);
            let since = since.unwrap_or(caller.now);
            if model.len() == entries_max {
                model.remove(0);
            }
            model.push((target, since));

            let found = caller.candidates(&target);
            if was_asked {
                assert_eq!(found, of_script);
            } else {
                let mut best = of_script;
                best.sort_by_key(|one| (one.cost, matches!(one.route, Route::Underlay(_))));
                best.truncate(CANDIDATES_MAX);
                let costs = |all: &[Candidate]| all.iter().map(|one| one.cost).collect::<Vec<_>>();
                assert_eq!(costs(&found), costs(&best));
            }
            caller.wait(caller.now.plus(Nanos::from_millis(500 * rng.below(17) as u64)));
        }
    });
}

#[test]
fn cached_forgets_failed_and_expired_routes() {
    let table = |expires: Option<Nanos>| {
        let mut script = Vec::new();
        for label in [0x15_u64, 0x17] {
            let route = Route::Label(Label::<u64>::new(label).into());
            let mut one = Candidate::new(peer(0), route, Source::Program);
            one.expires = expires;
            script.push(one);
        }
        script
    };
    let target = peer(0).into();
    let life = Nanos::from_secs(3_600);

    let log = Log::default();
    let scripted = Scripted::new(&Script::of(target, table(None)), log.clone());
    let mut caller = Caller::new(Cached::new(scripted, 4, life));
    caller.lookup(target);
    let failed = Outcome::Failed(RouteFailure::Silence);
    let route = |label: u64| Route::Label(Label::<u64>::new(label).into());
    let now = caller.now;
    caller.routing.feedback(now, &route(0x15), &failed);
    caller.results.clear();
    caller.lookup(target);
    assert_eq!(caller.candidates(&target).len(), 1);
    assert_eq!(log.lock().unwrap().len(), 1);
    caller.routing.feedback(now, &route(0x17), &failed);
    caller.lookup(target);
    assert_eq!(log.lock().unwrap().len(), 2, "with the last route the answer is forgotten");

    let log = Log::default();
    let expires = Some(caller.now.plus(Nanos::from_secs(5)));
    let scripted = Scripted::new(&Script::of(target, table(expires)), log.clone());
    let mut caller = Caller::new(Cached::new(scripted, 4, life));
    caller.lookup(target);
    caller.wait(caller.now.plus(Nanos::from_millis(4_999)));
    caller.lookup(target);
    assert_eq!(log.lock().unwrap().len(), 1);
    // The routes expire between the lookup and the poll.
    let now = caller.now;
    caller.routing.lookup(now, target, &mut caller.out);
    caller.active.insert(target, ());
    caller.results.clear();
    caller.wait(caller.now.plus(Nanos::from_millis(1)));
    assert!(caller.candidates(&target).is_empty());
    assert_eq!(caller.ends(&target), [LookupEnd::Complete]);
}

#[test]
fn budgeted_gives_its_source_no_more_lookups_than_the_budget() {
    for_scripts(0x5709_5000, |rng, script, _| {
        let log = Log::default();
        let burst = 1 + rng.below(4) as u32;
        let budget = Budget { per_second: 1 + rng.below(3) as u32, burst, in_progress: 3 };
        let routing = Budgeted::new(Scripted::new(&script, log.clone()), budget);
        let mut caller = Caller::new(routing);
        let mut refused = 0;
        for _ in 0..200 {
            let targets = Script::targets();
            let target = targets[rng.below(targets.len())];
            let (asked, active) = (log.lock().unwrap().len(), caller.active.len());
            let was_active = caller.active.contains_key(&target);
            caller.results.clear();
            caller.lookup(target);
            let was_asked = log.lock().unwrap().len() > asked;
            assert!(!was_asked || active < budget.in_progress);
            if !was_asked && !was_active {
                let [end] = caller.ends(&target)[..] else { panic!("one end") };
                let expected = match active < budget.in_progress {
                    true => LookupEnd::TooOften,
                    false => LookupEnd::TooMany,
                };
                assert_eq!(end, expected);
                assert!(caller.candidates(&target).is_empty());
                refused += 1;
            }
            caller.wait(caller.now.plus(Nanos::from_millis(rng.below(400) as u64)));
        }
        caller.finish();
        // Each interval between two lookups contains at most `burst + rate * time` lookups.
        let asked: Vec<Nanos> = log.lock().unwrap().iter().map(|(at, _)| *at).collect();
        for (from, start) in asked.iter().enumerate() {
            for (to, end) in asked.iter().enumerate().skip(from) {
                let count = (to - from + 1) as u128;
                let time = u128::from(end.since(*start).0) * u128::from(budget.per_second);
                let allowed = u128::from(burst) + time / 1_000_000_000;
                assert!(count <= allowed, "{count} lookups, {allowed} allowed");
            }
        }
        assert!(refused > 0 && asked.len() >= burst as usize);
    });
}

#[test]
fn filtered_is_what_the_predicate_allows() {
    for_scripts(0x5709_6000, |rng, script, _| {
        let odd = rng.below(3) as u32;
        let allows = move |found: &Candidate| found.cost % 3 == odd;
        let routing = Filtered::new(Scripted::new(&script, Log::default()), allows);
        let mut caller = Caller::new(routing);
        Script::targets().into_iter().for_each(|target| caller.lookup(target));
        caller.finish();
        for target in Script::targets() {
            let mut expected = script.candidates(&target);
            expected.retain(allows);
            assert_eq!(caller.candidates(&target), expected);
        }
        let empty =
            |(_, result): &(_, LookupResult)| result.candidates.is_empty() && result.end.is_none();
        assert!(!caller.results.iter().any(empty), "a result says something");
    });
}

#[test]
fn scoped_lets_private_addresses_pass_on_own_segments_alone() {
    let segments: Vec<IpPrefix> =
        ["10.1.0.0/16", "fe80::/64"].map(|text| text.parse().unwrap()).into();
    for_scripts(0x5709_7000, |_, script, _| {
        let routing = Scoped::new(Scripted::new(&script, Log::default()), segments.clone());
        let mut caller = Caller::new(routing);
        Script::targets().into_iter().for_each(|target| caller.lookup(target));
        caller.finish();
        for target in Script::targets() {
            let mut expected = script.candidates(&target);
            // The addresses of the scripts that are neither global nor on these segments.
            expected.retain(|one| {
                !one.route.ip().is_some_and(|ip| {
                    ["192.168.7.7", "127.0.0.1"].contains(&ip.to_string().as_str())
                })
            });
            assert_eq!(caller.candidates(&target), expected);
        }
    });
}

#[test]
fn each_private_range_is_refused_from_its_first_to_its_last_address() {
    let passes = |ip: &str, segments: &[&str]| {
        let segments = segments.iter().map(|text| text.parse::<IpPrefix>().unwrap());
        let address = UdpAddress { ip: ip.parse().unwrap(), port: 1 };
        let node = NodeId::PeerId(peer(0));
        let route = UnderlayRoute { address, node, label: None };
        let one = Candidate::new(peer(0), Route::Underlay(route), Source::Program);
        let target = peer(0).into();
        let source = Scripted::new(&Script::of(target, vec![one]), Log::default());
        let mut caller = Caller::new(Scoped::new(source, segments));
        caller.lookup(target);
        caller.finish();
        !caller.candidates(&target).is_empty()
    };
    for (outside, first, last, beyond) in [
        ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"),
        ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"),
        ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"),
        ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"),
        ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"),
        ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"),
        ("fbff::1", "fc00::", "fdff:ffff::ffff", "fe00::"),
        ("fe7f::1", "fe80::", "febf::1", "fec0::"),
        ("::ffff:9.0.0.1", "::ffff:10.0.0.0", "::ffff:10.255.255.255", "::ffff:11.0.0.1"),
        ("64:ff9b::9.0.0.1", "64:ff9b::10.0.0.0", "64:ff9b::127.0.0.1", "64:ff9b::b00:1"),
        ("2002:900:1::", "2002:a00::1", "2002:7f00:1::", "2002:8000::1"),
    ] {
        assert!(passes(outside, &[]) && passes(beyond, &[]), "{outside}, {beyond}");
        assert!(!passes(first, &[]) && !passes(last, &[]), "{first}, {last}");
        assert!(!passes(first, &["192.0.2.0/24", "2001:db8::/32"]), "{first}");
        assert!(passes(
            first,
            &[&format!("{first}/{}", if first.contains(':') { 128 } else { 32 })]
        ));
    }
    for never in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1", "::"] {
        let all = ["0.0.0.0/0", "::/0"];
        assert!(!passes(never, &all), "{never} is not one node");
    }
    for reserved in ["0.0.0.1", "240.0.0.1"] {
        assert!(!passes(reserved, &[]) && passes(reserved, &["0.0.0.0/0"]), "{reserved}");
    }
    assert!(!passes("::1", &[]) && passes("::1", &["::1/128"]));
    for wrong in ["10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/-1", "10.0.0.0/"] {
        assert!(wrong.parse::<IpPrefix>().is_err(), "{wrong}");
    }
}

/// Paths from a list, and one repaired label.
struct Fixed {
    paths: Vec<(u64, u32)>,
    is_pending: bool,
    repaired: Option<u64>,
    timeout: Option<Nanos>,
}

impl SwitchRouting for Fixed {
    fn paths(&mut self, _: Nanos, to: &Candidate, _: &Constraints) -> Paths {
        let mut paths = Paths { is_pending: self.is_pending, ..Paths::default() };
        for (label, cost) in &self.paths {
            let mut path = Path::to(to, Label::<u64>::new(*label).into());
            path.cost = *cost;
            paths.paths.push(path);
        }
        paths
    }

    fn repair(&mut self, _: Nanos, _: &AnyLabel, _: &PathError) -> Option<AnyLabel> {
        self.repaired.map(|label| Label::<u64>::new(label).into())
    }

    fn next_timeout(&self) -> Option<Nanos> {
        self.timeout
    }
}

#[test]
fn combinators_of_paths_keep_the_same_laws() {
    let route = Route::Label(Label::<u64>::new(0x15).into());
    let to = Candidate::new(peer(0), route, Source::Program);
    let fixed = |paths: &[(u64, u32)], is_pending, repaired| Fixed {
        paths: paths.to_vec(),
        is_pending,
        repaired,
        timeout: repaired.map(Nanos),
    };
    let labels = |paths: &Paths| {
        let label = |path: &Path| match path.label {
            AnyLabel::W64(label) => (label.register(), path.cost),
            _ => panic!("64 bits"),
        };
        paths.paths.iter().map(label).collect::<Vec<_>>()
    };
    let (now, any) = (Nanos::ZERO, Constraints::default());
    let mut header = [0; 16];
    HeaderRepr::new(Label::<u64>::new(0x15), 0, 9).emit(&mut header).unwrap();
    let message = Message::Error { why: Reason::SLOT_GONE, offending: &header };
    let error = PathError::of(&message).unwrap();

    let known = || fixed(&[(2, 5), (3, 6)], false, None);
    let other = || fixed(&[(3, 1), (4, 5), (5, 7), (6, 8)], false, Some(9));
    let mut first = First::new(known(), other());
    assert_eq!(labels(&first.paths(now, &to, &any)), [(2, 5), (3, 6)]);
    assert_eq!(first.repair(now, &AnyLabel::W64(Label::new(1)), &error).unwrap().bits(), 4);
    let mut first = First::new(fixed(&[], true, None), other());
    assert!(first.paths(now, &to, &any).is_pending, "the first may know something soon");
    let mut first = First::new(fixed(&[], false, None), other());
    assert_eq!(labels(&first.paths(now, &to, &any)).len(), 4);
    assert_eq!(SwitchRouting::next_timeout(&first), Some(Nanos(9)));

    let mut both = Both::new(known(), other());
    assert_eq!(labels(&both.paths(now, &to, &any)), [(3, 1), (2, 5), (4, 5), (5, 7)]);
    let mut odd = Filtered::new(other(), |path: &Path| path.cost % 2 == 1);
    assert_eq!(labels(&odd.paths(now, &to, &any)), [(3, 1), (4, 5), (5, 7)]);

    let mut given = GivenLabels;
    assert_eq!(labels(&given.paths(now, &to, &any)), [(0x15, 0)]);
    let mut narrow = any;
    narrow.width_bits_max = 32;
    assert!(given.paths(now, &to, &narrow).paths.is_empty());
    let mut short = to.clone();
    short.mtu = Some(1_000);
    let mut long = any;
    long.packet_bytes_min = 1_001;
    assert!(given.paths(now, &short, &long).paths.is_empty());
    long.packet_bytes_min = 1_000;
    assert_eq!(given.paths(now, &short, &long).paths.len(), 1);
}
