//! Control messages (wire.md 5) between switches: pings, traces, errors, and the limits on their
//! cost. The tests run in virtual time.

use strowger_engine::{
    Now,
    control::{
        Attach, Event, Switch, SwitchConfig,
        messages::{ControlReply, ControlRequest, HopReport, RequestId},
    },
    discard::Discard,
    link::{Behind, Rights, plain_header},
    worker::Worker,
};
use strowger_frame::{Address, Burst, ChunkClass, Mark, Pool, PoolSpec, Port, alloc::forbid};
use strowger_io::{Endpoint, EndpointSpec, MemoryPort, endpoint, memory};
use strowger_wire::{
    Hop, Label, Slot,
    control::{Behind as Stands, Reason},
    scheme::V3X5X8,
    switch_header::{Flags, HeaderRepr},
};

pub(crate) const MS: u64 = 1_000_000;

pub(crate) struct Node {
    pub(crate) switch: Switch,
    worker: Worker,
    pub(crate) events: Vec<Event>,
}

impl Node {
    fn new() -> Self {
        let pool =
            Pool::new(&PoolSpec { trains: 4, singles: 128, huge_pages: false }).expect("memory");
        let (switch, mut workers) = Switch::new(SwitchConfig::default(), vec![pool]).expect("sane");
        Self { switch, worker: workers.remove(0), events: Vec::new() }
    }

    pub(crate) fn attach(
        &mut self,
        port: impl Port + 'static,
        behind: Behind,
        slot: u32,
        rights: Rights,
    ) {
        let port = self.switch.plug_at(0, Box::new(port)).expect("room");
        let attach = Attach::plain(port, Address::Only, behind, format!("on {slot}"));
        let attach = attach.with_rights(rights).with_slot(Slot::new(slot));
        assert_eq!(self.switch.attach(attach), Ok(Slot::new(slot)));
    }

    fn poll(&mut self, now: Now) {
        let rule = forbid();
        self.worker.poll(now);
        drop(rule);
    }

    fn turn(&mut self, now: Now) {
        self.poll(now);
        self.events.extend(self.switch.poll(now));
    }

    pub(crate) fn count(&self, discard: Discard) -> u64 {
        self.switch.balance().discards[discard as usize]
    }

    pub(crate) fn replies(&mut self, of: RequestId) -> Vec<ControlReply> {
        let mut replies = Vec::new();
        self.events.retain(|event| match event {
            Event::Replied(id, reply) if *id == of => {
                replies.push(reply.clone());
                false
            }
            _ => true,
        });
        replies
    }
}

/// Switches in a row. At each switch, the left neighbour is on slot 2 and the right one on slot 9
/// (7 bits). The last switch has an endpoint on slot 3.
pub(crate) struct Row {
    pub(crate) nodes: Vec<Node>,
    /// The far end of the wire at slot 2 of the first switch.
    pub(crate) left: MemoryPort,
    endpoint: Endpoint,
    pub(crate) pool: Pool,
    pub(crate) now: Now,
}

impl Row {
    pub(crate) fn new(count: usize) -> Self {
        Self::with_rights(count, Rights::ALL)
    }

    pub(crate) fn with_rights(count: usize, rights: Rights) -> Self {
        let mut nodes: Vec<Node> = (0..count).map(|_| Node::new()).collect();
        let (mut left, first) = memory::wire(256).expect("descriptors");
        left.admit(Mark(0), Address::Only).expect("no other neighbour");
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

    /// Advances the time in small steps, so that all messages arrive.
    pub(crate) fn pass(&mut self, ns: u64) {
        let steps = 40;
        for _ in 0..steps {
            self.now.0 += ns / steps;
            for node in &mut self.nodes {
                node.turn(self.now);
            }
        }
    }

    fn ask(&mut self, label: Label, request: ControlRequest) -> Vec<ControlReply> {
        let id = self.nodes[0].switch.send_request(label, request, self.now).expect("room");
        let mut replies = Vec::new();
        for _ in 0..1_000 {
            self.pass(10 * MS);
            replies.extend(self.nodes[0].replies(id));
            if replies.last().is_some_and(|last| !matches!(last, ControlReply::Hop(_))) {
                break;
            }
        }
        self.assert_even();
        replies
    }

    fn trace(&mut self, label: Label) -> Vec<HopReport> {
        let mut replies = self.ask(label, ControlRequest::Trace);
        assert_eq!(replies.pop(), Some(ControlReply::TraceEnd));
        let hops = replies.into_iter().map(|reply| match reply {
            ControlReply::Hop(hop) => hop,
            other => panic!("{other:?}"),
        });
        hops.collect()
    }

    pub(crate) fn assert_even(&self) {
        for node in &self.nodes {
            let balance = node.switch.balance();
            assert!(balance.is_even(), "R3: {balance:?}");
        }
    }

    /// Sends a packet from the left neighbour.
    fn send(&mut self, header: HeaderRepr, payload: &[u8]) {
        let mut frame = self
            .pool
            .take(ChunkClass::Single)
            .expect("all frames are returned")
            .into_frame(256, 24 + payload.len());
        let bytes = frame.bytes_mut();
        bytes[..8].copy_from_slice(&plain_header(0));
        header.emit(&mut bytes[8..]).expect("room").copy_from_slice(payload);
        let mut burst = Burst::new();
        burst.push(frame);
        self.left.tx_burst(Mark(0), &mut burst);
        self.left.flush();
    }

    /// The packets that arrived at the left neighbour.
    pub(crate) fn received(&mut self) -> Vec<Vec<u8>> {
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

pub(crate) fn way(hops: &[(u32, u32)]) -> Label {
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

/// wire.md: W5-3, W5-37.
#[test]
fn w5_3_a_ping_is_answered_from_slot_1_of_every_switch_on_the_way() {
    let mut row = Row::new(3);
    for label in [Label::here(), way(&[(1, 9), (2, 1)]), way(&[(1, 9), (2, 9), (2, 1)])] {
        let replies = row.ask(label, ControlRequest::Ping { payload_bytes: 500 });
        assert!(
            matches!(replies[..], [ControlReply::Pong { payload_bytes: 500, .. }]),
            "{label}: {replies:?}"
        );
    }
}

#[test]
fn w5_3_a_ping_to_an_empty_slot_is_not_answered() {
    let mut row = Row::new(2);
    // The destination is an endpoint that sends no replies.
    let request = ControlRequest::Ping { payload_bytes: 0 };
    assert_eq!(row.ask(way(&[(1, 9), (2, 3)]), request), [ControlReply::Silence]);
    assert!(row.endpoint.receive().expect("the switch is there").is_some());
}

/// wire.md: W5-4, W5-43, W5-44, W5-47.
#[test]
fn w5_4_a_trace_reports_each_hop_and_delivers_nothing() {
    let mut row = Row::new(3);
    let hops = row.trace(way(&[(1, 9), (2, 9), (2, 3)]));
    let seen: Vec<_> = hops
        .iter()
        .map(|hop| {
            let word = hop.word.expect("each replies");
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
    assert!(row.endpoint.receive().expect("the switch is there").is_none(), "nothing is delivered");
}

/// wire.md: W5-44, W5-45.
#[test]
fn w5_4_a_trace_names_the_hop_and_the_reason_in_the_counters_words() {
    let mut row = Row::new(3);
    // Slot 20 of the second switch is empty.
    let hops = row.trace(way(&[(1, 9), (2, 20), (2, 3)]));
    assert_eq!(hops.len(), 2);
    let word = hops[1].word.expect("it replies");
    assert_eq!((word.slot_out, word.behind), (Some(20), Stands::Nothing));
    assert_eq!(word.discard.map(|why| why.name()), Some(Discard::EmptySlot.name()));
}

/// wire.md: W5-46.
#[test]
fn w5_4_a_trace_to_a_switch_ends_at_its_slot_1() {
    let mut row = Row::new(2);
    let hops = row.trace(way(&[(1, 9), (2, 1)]));
    let last = hops.last().and_then(|hop| hop.word).expect("it replies");
    assert_eq!((last.slot_in, last.slot_out, last.behind), (2, Some(1), Stands::Switch));
}

/// Sends a packet from the left neighbour to an empty slot of the first switch. Returns the packets
/// that the left neighbour then receives: the error, if one is sent.
fn send_astray(row: &mut Row, slot: u32, flags: Flags, payload: &[u8]) -> Vec<Vec<u8>> {
    let (label, shift) = way(&[(2, slot), (2, 3)]).depart().expect("short");
    row.send(HeaderRepr { flags, flow: 0xbeef, ..HeaderRepr::new(label, shift, 30) }, payload);
    row.pass(MS);
    row.received()
}

/// wire.md: W5-7, W5-33, W5-50.
#[test]
fn w5_7_an_error_bears_its_cause_s_header_and_no_more() {
    let mut row = Row::new(1);
    let back = send_astray(&mut row, 20, Flags::default(), &[0xaa; 100]);
    assert_eq!(back.len(), 1);
    let (header, message) = back[0][8..].split_at(16);
    // The packet has the flags E and C, and the flow of the packet that caused the error.
    assert_eq!((header[1], &header[6..8]), (0xc0, &[0xbe, 0xef][..]));
    let (label, shift) = way(&[(2, 20), (2, 3)]).depart().expect("short");
    let mut cause = [0; 16];
    HeaderRepr { flow: 0xbeef, ..HeaderRepr::new(label, shift, 30) }
        .emit(&mut cause)
        .expect("room");
    assert_eq!(message[..4], [1, 7, 4, 0], "an empty_slot error");
    assert_eq!(message[4..], cause);
    let node = &row.nodes[0];
    assert_eq!(node.count(Discard::EmptySlot), 1, "the offending packet is counted as a discard");
    assert_eq!(node.switch.balance().frames_made, 1, "the switch made the error");
    row.assert_even();
}

/// wire.md: W5-51.
#[test]
fn r4_an_error_replaces_its_cause_and_is_never_larger_than_it() {
    let mut row = Row::new(1);
    for payload in 0..64 {
        row.pass(1_000 * MS);
        let back = send_astray(&mut row, 20, Flags::default(), &vec![0; payload]);
        // An error has 16 bytes of header and 4 more before the offending header of 16 bytes.
        assert_eq!(back.len(), usize::from(payload >= 20), "{payload}");
        assert!(back.iter().all(|error| error.len() <= 24 + payload));
    }
    row.assert_even();
}

/// wire.md: W5-8, W5-56.
#[test]
fn r4_no_error_is_sent_about_an_error_nor_where_none_is_wanted() {
    let mut row = Row::new(1);
    let unwanted = Flags { no_errors: true, ..Flags::default() };
    assert!(send_astray(&mut row, 20, unwanted, &[0; 100]).is_empty());
    // The packet is an error message whose sender did not set the flag E.
    let control = Flags { control: true, ..Flags::default() };
    let mut error = [0; 100];
    error[..4].copy_from_slice(&[1, 7, 4, 0]);
    assert!(send_astray(&mut row, 20, control, &error).is_empty());
    // A ping is a request, so its sender gets the error.
    error[1] = 1;
    assert_eq!(send_astray(&mut row, 20, control, &error).len(), 1);
}

/// wire.md: W5-10, W5-61.
#[test]
fn w5_10_errors_and_replies_keep_to_their_rates() {
    let mut row = Row::new(1);
    let mut errors = 0;
    for _ in 0..2_000 {
        errors += send_astray(&mut row, 20, Flags::default(), &[0; 60]).len();
    }
    // In two seconds the switch sends a burst of ten errors, then twenty errors per second.
    assert!((45..=52).contains(&errors), "{errors}");
    let mut pongs = 0;
    let (label, shift) = (Label::here(), 0);
    let control = Flags { control: true, ..Flags::default() };
    for _ in 0..500 {
        for _ in 0..4 {
            let header = HeaderRepr { flags: control, ..HeaderRepr::new(label, shift, 3) };
            row.send(header, &[1, 1, 0, 0, 0, 0, 0, 9, 1, 2, 3]);
        }
        row.pass(MS);
        pongs += row.received().len();
    }
    assert!((110..=116).contains(&pongs), "{pongs}");
    assert!(row.nodes[0].count(Discard::OverBudget) > 1_800);
    row.assert_even();
}

/// wire.md: W5-9, W5-55.
#[test]
fn w5_9_a_slot_without_the_right_to_ask_learns_as_much_as_of_an_empty_slot() {
    let row = &mut Row::with_rights(1, Rights::NONE);
    let about = |row: &mut Row, slot| {
        row.pass(1_000 * MS);
        let back = send_astray(row, slot, Flags::default(), &[0; 60]);
        back.first().map(|error| error[24..28].to_vec())
    };
    let empty = about(row, 20);
    assert_eq!(empty.as_deref(), Some(&[1, 7, 4, 0][..]));
    // The endpoint's slot exists, but this sender has no right to it.
    let (label, shift) = way(&[(2, 3)]).depart().expect("short");
    row.send(HeaderRepr::new(label, shift, 9), &[0; 60]);
    row.pass(MS);
    assert_eq!(row.received().first().map(|error| error[24..28].to_vec()), empty);
    assert_eq!(row.nodes[0].count(Discard::NotAllowed), 1);
    // A ping from this sender, which has no right to send requests, gets the same error.
    let control = Flags { control: true, ..Flags::default() };
    let header = HeaderRepr { flags: control, ..HeaderRepr::new(Label::here(), 0, 9) };
    row.send(header, &[1, 1, 0, 0, 0, 0, 0, 9].repeat(5));
    row.pass(MS);
    assert_eq!(row.received().first().map(|error| error[24..28].to_vec()), empty);
    row.assert_even();
}

/// A former number still leads to its user for senders with the right to it. Other senders get the
/// error for an empty slot, and do not learn the present number.
///
/// wire.md: W5-58.
#[test]
fn w5_9_a_former_number_without_the_right_to_it_looks_like_an_empty_slot() {
    for behind in [Behind::Neighbour, Behind::Endpoint] {
        let mut row = Row::with_rights(1, Rights::NONE);
        let slot = match behind {
            Behind::Endpoint => 3,
            Behind::Neighbour => {
                let (near, _far) = memory::wire(16).expect("descriptors");
                row.nodes[0].attach(near, Behind::Neighbour, 4, Rights::ALL);
                row.pass(MS);
                4
            }
        };
        row.nodes[0]
            .switch
            .renumber(Slot::new(slot), Some(Slot::new(6)))
            .expect("the slot is attached");
        row.pass(10 * MS);
        row.nodes[0].events.clear();
        let (label, shift) = way(&[(2, slot), (2, 3)]).depart().expect("short");
        let label = match behind {
            Behind::Neighbour => (label, shift),
            Behind::Endpoint => way(&[(2, slot)]).depart().expect("short"),
        };
        let mut errors = Vec::new();
        for _ in 0..5 {
            row.pass(1_000 * MS);
            row.send(HeaderRepr::new(label.0, label.1, 9), &[0; 60]);
            row.pass(MS);
            errors.extend(row.received());
        }
        let kinds: Vec<_> = errors.iter().map(|error| error[24..28].to_vec()).collect();
        assert_eq!(kinds, [[1, 7, 4, 0]; 5], "an error each, empty_slot: {behind:?}");
        assert_eq!(row.nodes[0].count(Discard::NotAllowed), 5);
        assert_eq!(row.nodes[0].events, [], "no use of the number is reported");
        row.assert_even();
    }
}

/// A packet that is dropped because no number of its ingress slot fits the width of the director
/// does not count as a use of a former number. Its sender gets only the error.
#[test]
fn r4_a_dropped_packet_with_a_former_number_gets_one_error() {
    let mut row = Row::new(1);
    let (near, _far) = memory::wire(16).expect("descriptors");
    row.nodes[0].attach(near, Behind::Neighbour, 4, Rights::ALL);
    // The left neighbour's new number, 9, does not fit into four bits.
    row.pass(MS);
    row.nodes[0].switch.renumber(Slot::new(4), Some(Slot::new(6))).expect("the slot is attached");
    row.nodes[0].switch.renumber(Slot::new(2), Some(Slot::new(9))).expect("the slot is attached");
    for _ in 0..700 {
        row.now.0 += 1_000 * MS;
        row.pass(MS);
        row.received();
    }
    // Both former numbers have expired. The user of slot 6 gets a new number, so that 6 is a former
    // number.
    row.nodes[0].switch.renumber(Slot::new(6), Some(Slot::new(7))).expect("the slot is attached");
    row.pass(10 * MS);
    row.now.0 += 1_000 * MS;
    row.pass(MS);
    let director = V3X5X8.encode_least(Slot::new(6)).expect("a slot");
    let label = Label::new(director.bits() | 0b10001 << director.width());
    row.send(HeaderRepr::new(label, 0, 9), &[0; 60]);
    row.pass(MS);
    let errors = row.received();
    assert_eq!(row.nodes[0].count(Discard::ReturnPath), 1);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0][24..28], [1, 7, 8, 0], "a return_path error");
    row.assert_even();
}

#[test]
fn w5_4_a_trace_along_a_former_number_is_answered_once_and_is_no_use_of_it() {
    let mut row = Row::new(2);
    row.nodes[1].switch.renumber(Slot::new(3), Some(Slot::new(6))).expect("the slot is attached");
    row.pass(10 * MS);
    row.nodes[1].events.clear();
    row.pass(1_000 * MS);
    let hops = row.trace(way(&[(1, 9), (2, 3)]));
    let last = hops.last().and_then(|hop| hop.word).expect("it replies");
    assert_eq!((last.slot_out, last.behind), (Some(3), Stands::Endpoint));
    assert_eq!(row.nodes[1].events, []);
    assert!(!row.nodes[0].events.iter().any(|e| matches!(e, Event::SlotMovedAway { .. })));
}

/// wire.md: W5-59, W5-60.
#[test]
fn w5_9_switches_that_may_not_be_asked_still_answer_our_trace_by_an_error() {
    let mut row = Row::with_rights(2, Rights { control: false, ..Rights::ALL });
    let hops = row.trace(way(&[(1, 9), (2, 3)]));
    let seen: Vec<_> = hops.iter().map(|h| (h.hop, h.complaint.map(|why| why.name()))).collect();
    // The endpoint behind the second switch does not reply, and the error of that switch does not
    // say that the label ends at an endpoint.
    assert_eq!(seen, [(0, None), (1, Some("hops_spent")), (2, None)]);
    assert_eq!(hops[1].word, None);
}

/// wire.md: W5-7, W5-27, W5-52.
#[test]
fn w5_7_too_big_carries_the_largest_size() {
    let mut row = Row::new(2);
    let (near, far) = memory::wire(16).expect("descriptors");
    let port = row.nodes[1].switch.plug_at(0, Box::new(far)).expect("room");
    let narrow = Attach::plain(port, Address::Only, Behind::Neighbour, "narrow");
    let narrow = narrow.with_frame_bytes_max(400).with_slot(Slot::new(10));
    row.nodes[1].switch.attach(narrow).expect("free");
    row.pass(MS);
    // The packet is too big for an egress of the second switch. The worker has already rewritten
    // the header for the next hop.
    let replies =
        row.ask(way(&[(1, 9), (2, 10), (2, 1)]), ControlRequest::Ping { payload_bytes: 500 });
    let [ControlReply::Complaint(complaint)] = replies[..] else { panic!("{replies:?}") };
    assert_eq!(complaint.why, Reason::TOO_BIG);
    assert_eq!((complaint.hops, complaint.packet_bytes_max), (1, Some(400)));
    drop(near);
}

#[test]
fn r4_an_error_storm_makes_no_storm() {
    // Packets to an empty slot of the second switch, sent at a high rate, cause errors. Errors must
    // not cause further errors: they end when no new packets arrive.
    let mut row = Row::new(2);
    let (label, shift) = way(&[(2, 9), (2, 20), (2, 3)]).depart().expect("short");
    for _ in 0..100 {
        for _ in 0..8 {
            row.send(HeaderRepr::new(label, shift, 30), &[0; 200]);
        }
        row.pass(MS);
    }
    let made: Vec<u64> = row.nodes.iter().map(|n| n.switch.balance().frames_made).collect();
    row.pass(1_000 * MS);
    let later: Vec<u64> = row.nodes.iter().map(|n| n.switch.balance().frames_made).collect();
    assert_eq!(made, later, "nothing continues by itself");
    assert!(made[0] == 0 && made[1] <= 13, "{made:?}");
    row.assert_even();
}

#[test]
fn r12_a_flood_of_pings_leaves_data_alone() {
    let mut row = Row::new(1);
    let control = Flags { control: true, ..Flags::default() };
    let (label, shift) = way(&[(2, 3)]).depart().expect("short");
    let mut delivered = 0;
    for _ in 0..200 {
        for _ in 0..60 {
            let ping = HeaderRepr { flags: control, ..HeaderRepr::new(Label::here(), 0, 9) };
            row.send(ping, &[1, 1, 0, 0, 0, 0, 0, 9].repeat(5));
        }
        row.send(HeaderRepr::new(label, shift, 9), &[0; 60]);
        row.pass(MS);
        while row.endpoint.receive().expect("the switch is there").is_some() {
            delivered += 1;
        }
        row.received();
    }
    assert_eq!(delivered, 200);
    row.assert_even();
}

#[test]
fn r10_a_slow_path_that_hangs_stops_no_data_and_holds_no_memory() {
    let mut row = Row::new(1);
    let (label, shift) = way(&[(2, 3)]).depart().expect("short");
    let (astray, astray_shift) = way(&[(2, 20), (2, 3)]).depart().expect("short");
    // The slow path is not polled, so drop notices fill their queue. They must not hold frames.
    for _ in 0..400 {
        row.send(HeaderRepr::new(astray, astray_shift, 9), &[0; 60]);
        row.send(HeaderRepr::new(label, shift, 9), &[0; 60]);
        row.now.0 += 10 * MS;
        row.nodes[0].poll(row.now);
        assert!(row.endpoint.receive().expect("the switch is there").is_some());
    }
    row.assert_even();
}

#[test]
fn a_goodbye_carries_a_reason_and_a_retry_time() {
    let mut row = Row::new(2);
    row.nodes[0].switch.goodbye(Slot::new(9), 2, 30, "a new version");
    row.pass(MS);
    let text = "a new version".to_owned();
    let goodbye = Event::Goodbye { slot: Slot::new(2), code: 2, retry_after_s: 30, text };
    assert!(row.nodes[1].events.contains(&goodbye), "{:?}", row.nodes[1].events);
}

/// wire.md: W5-12.
#[test]
fn w5_12_a_goodbye_from_beyond_the_neighbour_is_refused() {
    let mut row = Row::new(2);
    let flags = Flags { control: true, no_errors: true, ..Flags::default() };
    let header = HeaderRepr { flags, ..HeaderRepr::new(way(&[(2, 9), (2, 1)]), 0, 9) };
    row.send(header, b"\x01\x0c\x01\0\0\0\0\0I am not your neighbour");
    row.pass(MS);
    assert_eq!(row.nodes[1].count(Discard::Unhandled), 1);
    assert!(!row.nodes[1].events.iter().any(|event| matches!(event, Event::Goodbye { .. })));
    row.assert_even();
}

/// An endpoint can write any return path. An answer still takes its first step at the endpoint's
/// own slot.
///
/// wire.md: W1.3-4, W1.3-11.
#[test]
fn an_answer_to_a_forged_return_path_leaves_by_the_slot_of_its_sender() {
    // Without an end marker; with another bit as the end marker; with the label to the left
    // neighbour, at slot 2.
    let to_the_left = way(&[(3, 2)]).register().reverse_bits();
    for (top, shift, arrives) in
        [(1 << 63, 1, true), (0, 0, true), (1 << 62, 2, false), (to_the_left, 20, false)]
    {
        let mut row = Row::new(1);
        // Slot 20 is empty, so the packet causes an error.
        let label = Label::<u64>::new(way(&[(3, 20)]).register() | top);
        let mut frame = row.endpoint.frame(24 + 100).expect("free");
        let bytes = frame.bytes_mut();
        bytes[..8].copy_from_slice(&plain_header(0));
        HeaderRepr::new(label, shift, 9).emit(&mut bytes[8..]).expect("room").fill(0);
        row.endpoint.send(frame).expect("room");
        row.pass(MS);
        assert_eq!(row.nodes[0].count(Discard::EmptySlot), 1);
        let error = row.endpoint.receive().expect("the switch is there");
        assert_eq!(error.is_some(), arrives, "{top:#x}, shift {shift}");
        assert_eq!(row.nodes[0].count(Discard::BeyondEndpoint), u64::from(!arrives));
        assert_eq!(row.received(), Vec::<Vec<u8>>::new(), "nothing leaves by another slot");
        row.assert_even();
    }
}

/// wire.md: W5-28, W5-53.
#[test]
fn w5_7_a_sender_with_a_former_number_gets_the_new_one() {
    let mut row = Row::new(1);
    row.nodes[0].switch.renumber(Slot::new(3), Some(Slot::new(6))).expect("the slot is attached");
    row.pass(10 * MS);
    let (label, shift) = way(&[(2, 3)]).depart().expect("short");
    row.now.0 += 1_000 * MS;
    row.send(HeaderRepr::new(label, shift, 9), &[0; 60]);
    row.pass(MS);
    assert!(
        row.endpoint.receive().expect("the switch is there").is_some(),
        "the packet is delivered"
    );
    let notices = row.received();
    // The sender received the notice "slot moved" from 3 to 6, with the packet's header.
    assert_eq!(notices[0][24..36], [1, 9, 0, 0, 0, 0, 0, 3, 0, 0, 0, 6]);
    assert_eq!((notices.len(), notices[0].len()), (1, 24 + 12 + 16));
    row.assert_even();
}

/// wire.md: W5-29, W5-52.
#[test]
fn w5_7_a_sender_with_the_number_of_a_detached_slot_gets_slot_gone() {
    let mut row = Row::new(1);
    row.nodes[0].switch.detach(Slot::new(3)).expect("the slot is attached");
    row.pass(10 * MS);
    let (label, shift) = way(&[(2, 3)]).depart().expect("short");
    row.send(HeaderRepr::new(label, shift, 9), &[0; 60]);
    row.pass(MS);
    assert_eq!(row.nodes[0].count(Discard::SlotGone), 1);
    let notices = row.received();
    // The sender received the error "slot gone" for slot 3, with the packet's header.
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0][24..32], [1, 10, 0, 0, 0, 0, 0, 3]);
    assert_eq!(notices[0].len(), 24 + 8 + 16);
    row.assert_even();
}

/// wire.md: W5-7, W5-30, W5-52, W5-61.
#[test]
fn w5_7_a_sender_that_fills_an_egress_gets_few_congestion_errors() {
    let mut row = Row::new(1);
    // The far end of this wire is not read. The wire holds 16 frames, and the egress queue is
    // bounded.
    let (near, far) = memory::wire(16).expect("descriptors");
    let port = row.nodes[0].switch.plug_at(0, Box::new(far)).expect("room");
    let stuck =
        Attach::plain(port, Address::Only, Behind::Neighbour, "stuck").with_slot(Slot::new(10));
    row.nodes[0].switch.attach(stuck).expect("free");
    row.pass(MS);
    let (label, shift) = way(&[(2, 10), (2, 3)]).depart().expect("short");
    let mut sent = 0;
    let mut errors = Vec::new();
    while row.nodes[0].count(Discard::EgressFull) < 50 && sent < 2_000 {
        row.send(HeaderRepr::new(label, shift, 9), &[0; 60]);
        sent += 1;
        row.now.0 += 1_000;
        row.nodes[0].turn(row.now);
        errors.extend(row.received());
    }
    let full = row.nodes[0].count(Discard::EgressFull);
    assert_eq!(full, 50, "of {sent} frames");
    assert!((1..=13).contains(&errors.len()), "{} of {full} were reported", errors.len());
    // The sender received the error "congestion" with the packet's header as it had arrived,
    // although the worker had already rewritten it for the next hop.
    let mut cause = [0; 16];
    HeaderRepr::new(label, shift, 9).emit(&mut cause).expect("room");
    for error in errors {
        assert_eq!((&error[24..28], &error[28..]), (&[1, 11, 0, 0][..], &cause[..]));
    }
    drop(near);
}

/// Sends a notice by the left neighbour that its slot 5 is now slot 6, about a packet with this
/// header.
fn moved(row: &mut Row, offending: &[u8]) {
    let flags = Flags { control: true, no_errors: true, ..Flags::default() };
    let header = HeaderRepr { flags, ..HeaderRepr::new(Label::here(), 0, 9) };
    let notice = [&[1, 9, 0, 0, 0, 0, 0, 5, 0, 0, 0, 6], offending].concat();
    row.send(header, &notice);
    row.pass(MS);
}

fn notices(row: &mut Row) -> usize {
    let events = std::mem::take(&mut row.nodes[0].events);
    events.iter().filter(|event| matches!(event, Event::SlotMovedAway { .. })).count()
}

/// wire.md: W5-14, W5-65, W5-66, W5-67, W5-71.
#[test]
fn w5_14_a_notice_is_accepted_only_about_recent_packets_and_at_a_limited_rate() {
    let mut row = Row::new(1);
    let label = way(&[(1, 2), (2, 7), (2, 1)]);
    // The switch has sent nothing, so this header belongs to none of its packets.
    let mut foreign = [0; 16];
    let control = Flags { control: true, ..Flags::default() };
    HeaderRepr { flags: control, flow: 7, ..HeaderRepr::new(label, 0, 9) }
        .emit(&mut foreign)
        .expect("room");
    for _ in 0..2_000 {
        moved(&mut row, &foreign);
        row.pass(4 * MS); // within the rate limit of packets to the switch itself
    }
    assert_eq!(notices(&mut row), 0);
    assert_eq!(row.nodes[0].count(Discard::Unsolicited), 2_000);

    let request = ControlRequest::Ping { payload_bytes: 0 };
    row.nodes[0].switch.send_request(label, request, row.now).expect("room");
    row.pass(MS);
    let sent = row.received().remove(0);
    let header = &sent[8..24];
    moved(&mut row, header);
    assert_eq!(notices(&mut row), 1);
    assert_eq!(row.nodes[0].count(Discard::Unsolicited), 2_000);
    // A notice is unsolicited if its header has another flow, another path, another kind of packet,
    // or more hops left than were sent.
    for (at, bit) in [(6, 1), (7, 1), (15, 1), (14, 0x80), (1, 0x20), (1, 0x80), (2, 0x40)] {
        let mut bent = header.to_vec();
        bent[at] ^= bit;
        moved(&mut row, &bent);
    }
    assert_eq!(notices(&mut row), 0);
    assert_eq!(row.nodes[0].count(Discard::Unsolicited), 2_007);
    // Repeated notices are limited to the budget of their ingress.
    for _ in 0..500 {
        moved(&mut row, header);
    }
    let taken = notices(&mut row);
    assert!((15..=18).contains(&taken), "{taken} in half a second");
    assert!(row.nodes[0].count(Discard::OverBudget) > 480);
    // More than five seconds after the request, a notice is unsolicited.
    row.pass(5_000 * MS);
    row.nodes[0].events.clear();
    moved(&mut row, header);
    assert_eq!(notices(&mut row), 0);
    row.assert_even();
}

/// wire.md: W5-14, W5-67.
#[test]
fn w5_14_an_error_about_a_foreign_header_ends_no_request() {
    let mut row = Row::new(1);
    let label = way(&[(1, 2), (2, 7), (2, 1)]);
    let request = ControlRequest::Ping { payload_bytes: 0 };
    let id = row.nodes[0].switch.send_request(label, request, row.now).expect("room");
    row.pass(MS);
    let sent = row.received().remove(0);
    let flags = Flags { control: true, no_errors: true, ..Flags::default() };
    let header = HeaderRepr { flags, ..HeaderRepr::new(Label::here(), 0, 9) };
    // The messages "error", "too big", "slot gone" and "congestion" name the flow of the request,
    // but another label.
    let mut bent = sent[8..24].to_vec();
    bent[15] ^= 1;
    for kind in [&[1, 7, 4, 0][..], &[1, 8, 0, 0, 2, 0], &[1, 10, 0, 0, 0, 0, 0, 7], &[1, 11, 0, 0]]
    {
        row.send(header, &[kind, &bent].concat());
        row.pass(MS);
    }
    assert_eq!(row.nodes[0].replies(id), []);
    assert_eq!(row.nodes[0].count(Discard::Unsolicited), 4);
    row.send(header, &[&[1, 7, 4, 0], &sent[8..24]].concat());
    row.pass(MS);
    assert!(matches!(row.nodes[0].replies(id)[..], [ControlReply::Complaint(_)]));
    row.assert_even();
}

#[test]
fn w5_14_a_request_along_a_former_number_gets_a_notice_and_a_reply() {
    let mut row = Row::new(2);
    row.nodes[1].switch.renumber(Slot::new(2), Some(Slot::new(7))).expect("the slot is attached");
    let (near, _far) = memory::wire(16).expect("descriptors");
    row.nodes[1].attach(near, Behind::Neighbour, 4, Rights::ALL);
    row.pass(10 * MS);
    row.nodes[1].switch.renumber(Slot::new(4), Some(Slot::new(6))).expect("the slot is attached");
    row.pass(1_000 * MS);
    row.nodes[0].events.clear();
    // The neighbour behind slot 4 does not reply, but the switch sends a notice that slot 4 is now
    // slot 6.
    let replies =
        row.ask(way(&[(1, 9), (2, 4), (2, 1)]), ControlRequest::Ping { payload_bytes: 0 });
    assert_eq!(replies, [ControlReply::Silence]);
    let wanted = Event::SlotMovedAway { by: Slot::new(9), from: Slot::new(4), to: Slot::new(6) };
    assert_eq!(row.nodes[0].events.iter().filter(|event| **event == wanted).count(), 1);
    assert_eq!(row.nodes[0].count(Discard::Unsolicited), 0);
}

/// wire.md: W5-72.
#[test]
fn goodbyes_of_a_neighbour_are_limited_in_rate() {
    let mut row = Row::new(1);
    let flags = Flags { control: true, no_errors: true, ..Flags::default() };
    // The label is as it arrives from a neighbour's slot 1: the return path names only that slot.
    let label = Label::new(Label::<u64>::here().register() | 0b1000 << 60);
    let departing = HeaderRepr { flags, ..HeaderRepr::new(label, 4, 9) };
    let goodbye = [&[1, 12, 1, 0, 0, 0, 0, 0][..], b"again"].concat();
    for _ in 0..1_000 {
        row.send(departing, &goodbye);
        row.pass(MS);
    }
    let events = std::mem::take(&mut row.nodes[0].events);
    let accepted = events.iter().filter(|event| matches!(event, Event::Goodbye { .. })).count();
    let refused = row.nodes[0].count(Discard::OverBudget);
    assert!(
        (4..=6).contains(&accepted) && refused >= 990,
        "{accepted} accepted, {refused} refused"
    );
    row.assert_even();
}

/// wire.md: W5-7.
#[test]
fn w5_7_each_use_of_a_former_number_by_the_switch_itself_is_noticed() {
    let mut row = Row::new(2);
    row.nodes[0].switch.renumber(Slot::new(9), Some(Slot::new(12))).expect("the slot is attached");
    row.pass(10 * MS);
    row.nodes[0].events.clear();
    for uses in 1..=3 {
        row.pass(1_000 * MS);
        row.ask(way(&[(1, 9), (2, 1)]), ControlRequest::Ping { payload_bytes: 0 });
        let wanted =
            Event::SlotMovedAway { by: Slot::SWITCH, from: Slot::new(9), to: Slot::new(12) };
        let seen = row.nodes[0].events.iter().filter(|event| **event == wanted).count();
        assert_eq!(seen, uses, "{:?}", row.nodes[0].events);
    }
}
