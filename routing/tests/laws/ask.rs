//! Sources that ask switches, with model switches that answer, lose questions or stay silent.

use std::collections::{BTreeMap, BTreeSet};

use strowger_routing::{
    AskNeighbours, AskRelay, Candidate, ControlReply, LookupEnd, LookupTarget, Route, Source,
    crypto::{Certificate, IdentityKey, Nanos, NetworkId, PeerId, Secret, SeededEntropy, find_tag},
    limits::{
        ASK_NEIGHBOURS_S, ASK_REPLY_S, ASK_TRIES, LOOKUPS_ASKED_MAX, NEIGHBOURS_ASKED_MAX,
        NOT_HERE_S, QUESTIONS_MAX,
    },
    wire::{
        Hop, Label, Slot,
        certificate::KeyRole,
        control::{Host, Message, Reason, Resolution, ResolveTarget, ResolvedLabel},
        label::AnyLabel,
        scheme::V3X5X8,
        switch_header::HeaderRepr,
    },
};
use strowger_testkit::Rng;

use super::{
    Caller, rules_hold,
    source::{Script, peer},
};

/// The key of one of the peers of [`peer`].
fn key(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&Secret::from_bytes([seed; 32]))
}

fn network() -> NetworkId {
    NetworkId::new(b"home").unwrap()
}

fn certificate(seed: u8) -> Certificate {
    key(seed).certify_connection_key(1, &network())
}

fn relay(seed: u64) -> AskRelay {
    AskRelay::new(network(), Box::new(SeededEntropy::new(seed)))
}

const OWN_SLOT: u32 = 4;

fn neighbours(seed: u64, slots: impl IntoIterator<Item = u32>) -> AskNeighbours {
    let entropy = Box::new(SeededEntropy::new(seed));
    let mut routing = AskNeighbours::new(network(), V3X5X8, Slot::new(OWN_SLOT), entropy);
    routing.set_neighbours(slots.into_iter().map(Slot::new));
    routing
}

fn here() -> AnyLabel {
    AnyLabel::W64(Label::here())
}

fn is_of(target: &ResolveTarget<'_>, peer: &PeerId) -> bool {
    match target {
        ResolveTarget::Peer(key) => peer.as_bytes().ends_with(&key[..]),
        ResolveTarget::Address(address) => peer.ip6().octets() == **address,
    }
}

#[test]
fn sources_that_get_no_answer_keep_the_rules() {
    for seed in 0..100 {
        let mut rng = Rng::new(0x5709_a000 + seed);
        let targets = Script::targets();
        rules_hold(&mut rng, &targets, relay(seed));
        rules_hold(&mut rng, &targets, neighbours(seed, 2..40));
        rules_hold(&mut rng, &targets, neighbours(seed, []));
    }
}

/// A question or answer in flight.
struct Packet {
    at: Nanos,
    from: AnyLabel,
    message: Vec<u8>,
}

impl<P: strowger_routing::PeerRouting> Caller<P> {
    fn reply(&mut self, from: AnyLabel, message: &[u8]) {
        let reply = ControlReply::parse(from, message).unwrap();
        self.routing.handle_reply(self.now, &reply, &mut self.out);
        self.poll();
    }

    /// Passes questions to `answer`, and its answers back at their times, until `until`.
    fn converse(
        &mut self,
        until: Nanos,
        mut answer: impl FnMut(Nanos, AnyLabel, &[u8]) -> Option<Packet>,
    ) {
        let mut coming: Vec<Packet> = Vec::new();
        loop {
            while let Some(question) = self.out.pop() {
                coming.extend(answer(self.now, question.to, &question.message));
            }
            // The caller has made room for more questions.
            self.poll();
            if !self.out.is_empty() {
                continue;
            }
            coming.sort_by_key(|packet| packet.at);
            let timeout = self.routing.next_timeout().unwrap_or(until).min(until);
            match coming.first() {
                Some(first) if first.at <= timeout => {
                    let first = coming.remove(0);
                    self.now = self.now.max(first.at);
                    self.reply(first.from, &first.message);
                }
                _ if timeout >= until => return self.wait(until),
                _ => self.wait(timeout),
            }
        }
    }
}

/// The answer of a switch about a peer.
#[derive(Clone, Debug)]
struct Known {
    labels: Vec<ResolvedLabel>,
    certificate: bool,
}

/// wire.md: W5-3, W5-11, W5-108.
#[test]
fn a_relay_s_answers_become_candidates_whatever_is_lost() {
    for seed in 0..200 {
        let mut rng = Rng::new(0x5709_b000 + seed);
        let mut known: BTreeMap<PeerId, Known> = BTreeMap::new();
        for number in 0..3 {
            let labels = (0..rng.below(5)).map(|place| ResolvedLabel {
                label: AnyLabel::W64(Label::new(0x10 + (4 * number + place) as u64)),
                cost: rng.below(100) as u32,
                mtu: if rng.one_in(2) { 0 } else { 1_400 },
                seconds: if rng.one_in(2) { 0 } else { 1 + rng.below(9) as u32 },
            });
            let labels = labels.collect();
            known.insert(peer(number as u8), Known { labels, certificate: rng.one_in(2) });
        }
        let mut caller = Caller::new(relay(seed));
        let mut lost: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        let mut questions = 0;
        Script::targets().into_iter().for_each(|target| caller.lookup(target));
        let start = caller.now;
        caller.converse(start.plus(Nanos::from_secs(60)), |now, to, message| {
            assert_eq!(to, here());
            questions += 1;
            let lost = lost.entry(message[12..44].to_vec()).or_default();
            if *lost + 1 < u32::from(ASK_TRIES) && rng.one_in(2) {
                *lost += 1;
                return None;
            }
            let Ok(Message::Resolve { id, target }) = Message::parse(message) else { panic!() };
            let found = known.iter().find(|(peer, _)| is_of(&target, peer));
            let (number, labels, with) = match found {
                Some((of, known)) => {
                    let number = (0..5).find(|number| peer(*number) == *of).unwrap();
                    (Some(number), known.labels.clone(), known.certificate)
                }
                None => (None, Vec::new(), false),
            };
            let identity = number.map_or([0; 32], |number| key(number).public().to_bytes());
            let certificate = certificate(number.unwrap_or(0));
            let mut all = [None; 4];
            for (place, label) in all.iter_mut().zip(labels) {
                *place = Some(label);
            }
            let resolution = Resolution {
                identity: &identity,
                certificate: with.then_some(certificate.as_bytes()),
                labels: all,
            };
            let message = Message::Resolved { id, resolution }.to_bytes().to_vec();
            let at = now.plus(Nanos(rng.below(900_000_000) as u64));
            Some(Packet { at, from: here(), message })
        });
        assert!(caller.active.is_empty());
        let repeated: u32 = lost.values().sum();
        assert_eq!(questions, Script::targets().len() + repeated as usize);
        for target in Script::targets() {
            assert_eq!(caller.ends(&target), [LookupEnd::Complete]);
            let found = caller.candidates(&target);
            let expected = known.iter().find(|(peer, _)| target.is(peer));
            let expected = expected.map(|(_, known)| known.labels.clone()).unwrap_or_default();
            let costs = |label: &ResolvedLabel| (label.cost, label.label, label.mtu > 0);
            let mut expected: Vec<_> = expected.iter().map(costs).collect();
            expected.sort_by_key(|label| label.0);
            let costs = |one: &Candidate| match one.route {
                Route::Label(label) => (one.cost, label, one.mtu == Some(1_400)),
                Route::Underlay(_) => panic!("only labels"),
            };
            assert_eq!(found.iter().map(costs).collect::<Vec<_>>(), expected);
            for one in &found {
                assert!(target.is(&one.peer) && one.source == Source::Relay);
                assert_eq!(one.certificate.is_some(), known[&one.peer].certificate);
            }
        }
    }
}

/// wire.md: W5-11, W5-39, W5-108.
#[test]
fn answers_that_are_not_the_relay_s_own_or_not_about_the_peer_are_ignored() {
    let target = LookupTarget::Peer(peer(1));
    let asked = |seed| {
        let mut caller = Caller::new(relay(seed));
        caller.lookup(target);
        let question = caller.out.pop().unwrap();
        assert_eq!(question.flow(), u16::from_be_bytes([question.message[6], question.message[7]]));
        let Ok(Message::Resolve { id, .. }) = Message::parse(&question.message) else { panic!() };
        (caller, id, question)
    };
    let label = ResolvedLabel { label: here(), cost: 0, mtu: 0, seconds: 0 };
    let labels = [Some(label), None, None, None];
    let identity = key(1).public().to_bytes();
    let resolved = |id, identity: &[u8; 32], certificate: Option<&Certificate>| {
        let certificate = certificate.map(Certificate::as_bytes);
        let resolution = Resolution { identity, certificate, labels };
        Message::Resolved { id, resolution }.to_bytes().to_vec()
    };
    let good = certificate(1);

    let (mut caller, id, _) = asked(1);
    caller.reply(here(), &resolved(id ^ 1, &identity, Some(&good)));
    let elsewhere = AnyLabel::W64(Label::new(0x15));
    caller.reply(elsewhere, &resolved(id, &identity, Some(&good)));
    assert!(caller.results.is_empty());
    caller.reply(here(), &resolved(id, &identity, Some(&good)));
    assert_eq!(caller.candidates(&target)[0].certificate, Some(good));
    caller.reply(here(), &resolved(id, &identity, Some(&good)));
    assert_eq!(caller.ends(&target).len(), 1, "a second answer belongs to no question");

    // The answer names another peer.
    let (mut caller, id, _) = asked(2);
    caller.reply(here(), &resolved(id, &key(2).public().to_bytes(), None));
    assert!(caller.candidates(&target).is_empty() && caller.ends(&target).len() == 1);

    // Certificates of another peer, role or network, and a broken one.
    let link = key(1).certify(KeyRole::Link, &[7; 32], 1, &network());
    let away = key(1).certify_connection_key(1, &NetworkId::new(b"away").unwrap());
    for bad in [certificate(2), link, away] {
        let (mut caller, id, _) = asked(3);
        caller.reply(here(), &resolved(id, &identity, Some(&bad)));
        let found = caller.candidates(&target);
        assert_eq!((found.len(), found[0].certificate), (1, None));
    }

    // The switch does not answer this slot: an error about the question ends the lookup.
    let (mut caller, _, question) = asked(4);
    let mut header = [0; 16];
    let (label, shift) = Label::<u64>::here().depart().unwrap();
    let mut repr = HeaderRepr { flow: question.flow() ^ 1, ..HeaderRepr::new(label, shift, 9) };
    let error = |header: &[u8; 16]| {
        let why = Reason::EMPTY_SLOT;
        Message::Error { why, offending: header }.to_bytes().to_vec()
    };
    repr.emit(&mut header).unwrap();
    caller.reply(here(), &error(&header));
    assert!(caller.results.is_empty(), "another flow");
    repr.flow = question.flow();
    let onward = HeaderRepr { label: Label::new(0x8000_0000_0000_0015), ..repr };
    onward.emit(&mut header).unwrap();
    caller.reply(here(), &error(&header));
    assert!(caller.results.is_empty(), "a packet to another node");
    repr.emit(&mut header).unwrap();
    caller.reply(here(), &error(&header));
    assert_eq!(caller.ends(&target), [LookupEnd::Complete]);
}

#[test]
fn a_silent_relay_is_asked_three_times_and_lookups_are_limited() {
    let target = LookupTarget::Peer(peer(1));
    let mut caller = Caller::new(relay(1));
    caller.lookup(target);
    let start = caller.now;
    let mut asked = Vec::new();
    caller.converse(start.plus(Nanos::from_secs(10)), |now, _, message| {
        asked.push((now.since(start), message.to_vec()));
        None
    });
    let times: Vec<_> = asked.iter().map(|(at, _)| at.0 / 1_000_000_000).collect();
    assert_eq!(times, [0, ASK_REPLY_S, 2 * ASK_REPLY_S]);
    assert!(asked.iter().all(|(_, message)| *message == asked[0].1));
    assert_eq!(caller.results[0].0.since(start), Nanos::from_secs(3 * ASK_REPLY_S));

    let address =
        |number: usize| LookupTarget::Address(format!("fd53::{number:x}").parse().unwrap());
    let mut caller = Caller::new(relay(1));
    (0..=LOOKUPS_ASKED_MAX).for_each(|number| caller.lookup(address(number)));
    assert_eq!(caller.out.len(), QUESTIONS_MAX);
    assert_eq!(caller.ends(&address(LOOKUPS_ASKED_MAX)), [LookupEnd::TooMany]);
    caller.finish();
}

/// The behaviour of a model neighbour.
#[derive(Clone, Debug, Default)]
struct Neighbour {
    hosts: BTreeMap<u8, u32>,
    silent: bool,
}

/// wire.md: W5-3, W5-11, W5-108.
#[test]
fn neighbours_are_asked_sixteen_at_a_time_and_not_again_for_thirty_seconds() {
    for seed in 0..100 {
        let mut rng = Rng::new(0x5709_c000 + seed);
        let mut switches: BTreeMap<u32, Neighbour> = BTreeMap::new();
        for _ in 0..rng.below(60) {
            let mut neighbour = Neighbour { silent: rng.one_in(4), ..Neighbour::default() };
            for number in 0..3 {
                if rng.one_in(20) {
                    neighbour.hosts.insert(number, 2 + rng.below(200) as u32);
                }
            }
            switches.insert(2 + rng.below(250) as u32, neighbour);
        }
        switches.remove(&OWN_SLOT);
        let mut caller = Caller::new(neighbours(seed, switches.keys().copied()));
        let mut asked: BTreeMap<(u32, [u8; 16]), Nanos> = BTreeMap::new();
        let mut waiting: Vec<Nanos> = Vec::new();
        for round in 0..3 {
            caller.results.clear();
            let start = caller.now;
            Script::targets().into_iter().for_each(|target| caller.lookup(target));
            caller.converse(start.plus(Nanos::from_secs(ASK_NEIGHBOURS_S)), |now, to, message| {
                let Ok(Message::Find { nonce, tag }) = Message::parse(message) else { panic!() };
                let AnyLabel::W64(label) = to else { panic!("64 bits") };
                let slot = label.decode(&V3X5X8).unwrap().slot().number();
                let hop =
                    Hop { scheme: &V3X5X8, ingress: Slot::new(OWN_SLOT), egress: Slot::new(slot) };
                assert_eq!(label, Label::build(&[hop]).unwrap().0, "slot 1 behind the slot");
                let of = (0..5).find(|of| find_tag(nonce, &peer(*of).ip6()) == *tag).unwrap();
                // A question of this or an earlier round.
                let before = asked.insert((slot, peer(of).ip6().octets()), now);
                // Answers after the peer was found are not read.
                let has = switches.values().any(|one| !one.silent && one.hosts.contains_key(&of));
                let again = before.is_some_and(|at| now.since(at) < Nanos::from_secs(NOT_HERE_S));
                // A peer is looked up by its PeerId and its address at the same time.
                assert!(!again || has || of == 1, "asked again: {slot} {of}");
                waiting.retain(|until| now < *until);
                assert!(waiting.len() < NEIGHBOURS_ASKED_MAX, "16 at a time");
                let delay = Nanos(rng.below(900_000_000) as u64);
                let silence = Nanos::from_secs(ASK_REPLY_S);
                let neighbour = &switches[&slot];
                waiting.push(now.plus(if neighbour.silent { silence } else { delay }));
                if neighbour.silent {
                    return None;
                }
                let certificate = certificate(of);
                let host = neighbour.hosts.get(&of).map(|egress| {
                    let director = V3X5X8.encode_least(Slot::new(*egress)).unwrap();
                    Host {
                        width: director.width(),
                        director: director.bits(),
                        seconds: 300,
                        mtu: 0,
                        certificate: certificate.as_bytes(),
                    }
                });
                let message = Message::Found { nonce, host }.to_bytes().to_vec();
                Some(Packet { at: now.plus(delay), from: to, message })
            });
            for target in Script::targets() {
                assert_eq!(caller.ends(&target), [LookupEnd::Complete]);
                let number = (0..5).find(|number| target.is(&peer(*number))).unwrap();
                let may_find: BTreeSet<(u32, u32)> = switches
                    .iter()
                    .filter(|(_, neighbour)| !neighbour.silent)
                    .filter_map(|(slot, neighbour)| Some((*slot, *neighbour.hosts.get(&number)?)))
                    .collect();
                let found = caller.candidates(&target);
                assert_eq!(found.len(), usize::from(!may_find.is_empty()), "round {round}");
                for one in found {
                    let Route::Label(AnyLabel::W64(label)) = one.route else { panic!("64 bits") };
                    let first = label.decode(&V3X5X8).unwrap();
                    let rest = Label::<u64>::new(label.register() >> first.width());
                    let second = rest.decode(&V3X5X8).unwrap();
                    assert_eq!(rest.register() >> second.width(), 1, "the end marker");
                    let path = (first.slot().number(), second.slot().number());
                    assert!(may_find.contains(&path), "{path:?}");
                    assert_eq!((one.peer, one.source), (peer(number), Source::Neighbour));
                    assert_eq!(one.certificate, Some(certificate(number)));
                    assert!(one.cost < 900_000, "microseconds");
                }
            }
        }
    }
}

/// wire.md: W5-11, W5-108.
#[test]
fn found_messages_of_others_and_of_other_peers_are_not_here() {
    let target = LookupTarget::Peer(peer(1));
    let found = |nonce: &[u8; 16], certificate: &Certificate, width| {
        let director = V3X5X8.encode(Slot::new(3), 4).unwrap().bits();
        let (seconds, mtu) = (300, 1_400);
        let certificate = certificate.as_bytes();
        let host = Some(Host { width, director, seconds, mtu, certificate });
        Message::Found { nonce, host }.to_bytes().to_vec()
    };
    let asked = || {
        let mut caller = Caller::new(neighbours(1, [9]));
        caller.lookup(target);
        let question = caller.out.pop().unwrap();
        let Ok(Message::Find { nonce, .. }) = Message::parse(&question.message) else { panic!() };
        assert_eq!(question.flow(), u16::from_be_bytes([nonce[2], nonce[3]]));
        (caller, question.to, *nonce)
    };
    let (mut caller, from, nonce) = asked();
    let mut other = nonce;
    other[15] ^= 1;
    caller.reply(from, &found(&other, &certificate(1), 4));
    caller.reply(here(), &found(&nonce, &certificate(1), 4));
    assert!(caller.results.is_empty(), "another nonce, another slot");
    caller.reply(from, &found(&nonce, &certificate(1), 4));
    let candidates = caller.candidates(&target);
    assert_eq!(candidates[0].mtu, Some(1_400));
    assert_eq!(candidates[0].expires, Some(caller.now.plus(Nanos::from_secs(300))));

    let away = key(1).certify_connection_key(1, &NetworkId::new(b"away").unwrap());
    for bad in [certificate(2), away] {
        let (mut caller, from, nonce) = asked();
        caller.reply(from, &found(&nonce, &bad, 4));
        assert!(caller.candidates(&target).is_empty());
        assert_eq!(caller.ends(&target), [LookupEnd::Complete]);
        // The neighbour is not asked again before its time.
        caller.lookup(target);
        assert!(caller.out.is_empty());
        assert_eq!(caller.ends(&target).len(), 2);
        caller.wait(caller.now.plus(Nanos::from_secs(NOT_HERE_S)));
        caller.lookup(target);
        assert_eq!(caller.out.len(), 1);
    }
    // A width that fits no label.
    let (mut caller, from, nonce) = asked();
    caller.reply(from, &found(&nonce, &certificate(1), 59));
    assert!(caller.candidates(&target).is_empty());
}
