//! Control messages (wire.md 5) between switches driven by hand, with virtual time: pings, traces,
//! errors, and that none of them costs more than it may. Nothing here sleeps or reads a clock.

use strowger_engine::{
    Now,
    control::{
        Attach, Event, Switch, SwitchConfig,
        messages::{Answer, HopReport, Question, QuestionId, format::Behind as Stands},
    },
    director::Slot,
    discard::Discard,
    header::{Flags, HeaderRepr},
    label::{Hop, Label},
    link::{Behind, Rights, plain_header},
    scheme::V3X5X8,
    worker::Worker,
};
use strowger_frame::{
    Address, Burst, ChunkClass, Mark, Pool, PoolSpec, Port,
    alloc::{GuardedAlloc, forbid},
};
use strowger_io::{Endpoint, EndpointSpec, MemoryPort, endpoint, memory};

#[global_allocator]
static ALLOC: GuardedAlloc = GuardedAlloc;

const MS: u64 = 1_000_000;

struct Node {
    switch: Switch,
    worker: Worker,
    events: Vec<Event>,
}

impl Node {
    fn new() -> Self {
        let pool =
            Pool::new(&PoolSpec { trains: 4, singles: 128, huge_pages: false }).expect("memory");
        let (switch, mut workers) = Switch::new(SwitchConfig::default(), vec![pool]).expect("sane");
        Self { switch, worker: workers.remove(0), events: Vec::new() }
    }

    fn attach(&mut self, port: impl Port + 'static, behind: Behind, slot: u32, rights: Rights) {
        let port = self.switch.plug_at(0, Box::new(port)).expect("room");
        let attach = Attach::plain(port, Address::Only, behind, format!("on {slot}"));
        let attach = Attach { rights, ..attach }.at_slot(slot);
        assert_eq!(self.switch.attach(attach), Ok(slot));
    }

    fn breathe(&mut self, now: Now) {
        let rule = forbid();
        self.worker.breathe(now);
        drop(rule);
    }

    fn turn(&mut self, now: Now) {
        self.breathe(now);
        self.events.extend(self.switch.poll(now));
    }

    fn count(&self, discard: Discard) -> u64 {
        self.switch.balance().discards[discard as usize]
    }

    fn answers(&mut self, of: QuestionId) -> Vec<Answer> {
        let mut answers = Vec::new();
        self.events.retain(|event| match event {
            Event::Answered(id, answer) if *id == of => {
                answers.push(answer.clone());
                false
            }
            _ => true,
        });
        answers
    }
}

/// Switches in a row: the left neighbour is on slot 2, the right one on slot 9 (which takes 7 bits), the endpoint
/// of the last one on slot 3.
struct Row {
    nodes: Vec<Node>,
    /// The left end of the first switch, on its slot 2.
    left: MemoryPort,
    endpoint: Endpoint,
    pool: Pool,
    now: Now,
}

impl Row {
    fn new(count: usize) -> Self {
        Self::with_rights(count, Rights::ALL)
    }

    fn with_rights(count: usize, rights: Rights) -> Self {
        let mut nodes: Vec<Node> = (0..count).map(|_| Node::new()).collect();
        let (mut left, first) = memory::wire(256).expect("descriptors");
        left.admit(Mark(0), Address::Only).expect("nobody else");
        nodes[0].attach(first, Behind::Neighbour, 2, rights);
        for at in 1..count {
            let (near, far) = memory::wire(256).expect("descriptors");
            nodes[at - 1].attach(near, Behind::Neighbour, 9, rights);
            nodes[at].attach(far, Behind::Neighbour, 2, rights);
        }
        let (port, endpoint) = endpoint::pair(&EndpointSpec::default()).expect("memory");
        nodes[count - 1].attach(port, Behind::Endpoint, 3, Rights::ALL);
        let pool = PoolSpec { trains: 0, singles: 512, huge_pages: false };
        let pool = Pool::new(&pool).expect("memory");
        let mut row = Self { nodes, left, endpoint, pool, now: Now(1) };
        row.pass(MS);
        for node in &mut row.nodes {
            assert!(node.switch.is_settled());
            node.events.clear();
        }
        row
    }

    /// Lets time pass, in steps so small that everything gets where it goes.
    fn pass(&mut self, ns: u64) {
        let steps = 40;
        for _ in 0..steps {
            self.now.0 += ns / steps;
            for node in &mut self.nodes {
                node.turn(self.now);
            }
        }
    }

    fn ask(&mut self, label: Label, question: Question) -> Vec<Answer> {
        let id = self.nodes[0].switch.ask(label, question, self.now).expect("room");
        for _ in 0..200 {
            self.pass(MS);
        }
        let answers = self.nodes[0].answers(id);
        self.assert_even();
        answers
    }

    fn trace(&mut self, label: Label) -> Vec<HopReport> {
        let mut answers = self.ask(label, Question::Trace);
        assert_eq!(answers.pop(), Some(Answer::TraceEnd));
        let hops = answers.into_iter().map(|answer| match answer {
            Answer::Hop(hop) => hop,
            other => panic!("{other:?}"),
        });
        hops.collect()
    }

    fn assert_even(&self) {
        for node in &self.nodes {
            let balance = node.switch.balance();
            assert!(balance.is_even(), "R3: {balance:?}");
        }
    }

    /// The left neighbour sends a packet.
    fn send(&mut self, header: HeaderRepr, payload: &[u8]) {
        let mut frame = self
            .pool
            .take(ChunkClass::Single)
            .expect("frames come home")
            .into_frame(256, 24 + payload.len());
        let bytes = frame.bytes_mut();
        bytes[..8].copy_from_slice(&plain_header(0));
        header.emit(&mut bytes[8..]).expect("room").copy_from_slice(payload);
        let mut burst = Burst::new();
        burst.push(frame);
        self.left.tx_burst(Mark(0), &mut burst);
        self.left.flush();
    }

    /// What has come to the left neighbour.
    fn received(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let mut burst = Burst::new();
            self.left.rx_burst(&mut self.pool, &mut burst);
            if burst.is_empty() {
                return all;
            }
            all.extend(burst.iter().map(|frame| frame.bytes().to_vec()));
        }
    }
}

fn way(hops: &[(u32, u32)]) -> Label {
    let hops: Vec<Hop<'_>> = hops
        .iter()
        .map(|&(ingress, egress)| Hop {
            scheme: &V3X5X8,
            ingress: Slot::new(ingress),
            egress: Slot::new(egress),
        })
        .collect();
    Label::build(&hops).expect("a path").0
}

#[test]
fn w5_3_a_ping_is_answered_from_slot_1_of_every_switch_on_the_way() {
    let mut row = Row::new(3);
    for label in [Label::here(), way(&[(1, 9), (2, 1)]), way(&[(1, 9), (2, 9), (2, 1)])] {
        let answers = row.ask(label, Question::Ping { payload_bytes: 500 });
        assert!(
            matches!(answers[..], [Answer::Pong { payload_bytes: 500, .. }]),
            "{label}: {answers:?}"
        );
    }
}

#[test]
fn w5_3_nobody_at_the_end_is_silence() {
    let mut row = Row::new(2);
    // An endpoint that answers nothing.
    let id = row.nodes[0].switch.ask(
        way(&[(1, 9), (2, 3)]),
        Question::Ping { payload_bytes: 0 },
        row.now,
    );
    let id = id.expect("room");
    row.pass(2_000 * MS);
    assert_eq!(row.nodes[0].answers(id), [Answer::Silence]);
    assert!(row.endpoint.receive().expect("it is there").is_some());
}

#[test]
fn w5_4_a_trace_says_what_each_hop_does_and_delivers_nothing() {
    let mut row = Row::new(3);
    let hops = row.trace(way(&[(1, 9), (2, 9), (2, 3)]));
    let seen: Vec<_> = hops
        .iter()
        .map(|hop| {
            let word = hop.word.expect("each answers");
            (hop.hop, word.slot_in, word.slot_out, word.behind, word.discard)
        })
        .collect();
    let expected = [
        (0, 1, Some(9), Stands::Neighbour, None),
        (1, 2, Some(9), Stands::Neighbour, None),
        (2, 2, Some(3), Stands::Endpoint, None),
    ];
    assert_eq!(seen, expected);
    assert!(hops.iter().all(|hop| hop.word.is_some_and(|w| w.packet_bytes_max == 9_216)));
    assert!(row.endpoint.receive().expect("it is there").is_none(), "nothing is delivered");
}

#[test]
fn w5_4_a_trace_names_the_hop_and_the_reason_in_the_counters_words() {
    let mut row = Row::new(3);
    // Slot 20 of the second switch is empty.
    let hops = row.trace(way(&[(1, 9), (2, 20), (2, 3)]));
    assert_eq!(hops.len(), 2);
    let word = hops[1].word.expect("it answers");
    assert_eq!((word.slot_out, word.behind), (Some(20), Stands::Nothing));
    assert_eq!(word.discard.map(|why| why.name()), Some(Discard::EmptySlot.name()));
}

#[test]
fn w5_4_a_trace_to_a_switch_ends_at_its_slot_1() {
    let mut row = Row::new(2);
    let hops = row.trace(way(&[(1, 9), (2, 1)]));
    let last = hops.last().and_then(|hop| hop.word).expect("it answers");
    assert_eq!((last.slot_in, last.slot_out, last.behind), (2, Some(1), Stands::Switch));
}
