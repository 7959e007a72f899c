//! The invariants of architecture.md, section 8. The name of a test of an invariant starts with the
//! invariant's number. The switches have memory ports and run in virtual time. During each poll of
//! a worker, allocation is forbidden on the thread.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use strowger_engine::{
    Now,
    control::{Attach, Balance, Event, PortId, SlotState, Switch, SwitchConfig},
    discard::Discard,
    limits::{
        ATTACHED_MAX, COMMANDS_MAX, EGRESS_CONTROL_FRAMES_MAX, EGRESS_FRAMES_MAX, FRAME_BYTES_MAX,
        FRAME_BYTES_MIN, HANDOFF_FRAMES_MAX, PUNTS_MAX,
    },
    link::{Behind, plain_header},
    worker::Worker,
};
use strowger_frame::{
    Address, Burst, ChunkClass, Frame, Mark, Pool, PoolSpec, Port, Wake,
    alloc::{forbid, installed},
};
use strowger_io::{
    Endpoint, EndpointSpec, MemoryPort, endpoint,
    memory::{self, wire},
};
use strowger_testkit::Rng;
use strowger_wire::{
    Hop, Label, Slot,
    link_header::LINK_HEADER_BYTES,
    scheme::V3X5X8,
    switch_header::{AnyHeader, HEADER_64_BYTES, Header, HeaderRepr},
};

fn memory(trains: u32, singles: u32) -> Pool {
    Pool::new(&PoolSpec { trains, singles, huge_pages: false }).expect("memory")
}

/// A switch, its workers, and the far ends of its wires.
struct Rig {
    switch: Switch,
    workers: Vec<Worker>,
    /// The far ends by slot.
    far: BTreeMap<u32, MemoryPort>,
    ports: BTreeMap<u32, PortId>,
    /// The source of the frames that neighbours send.
    pool: Pool,
    now: Now,
    events: Vec<Event>,
}

impl Rig {
    fn with(workers: usize, config: SwitchConfig) -> Self {
        assert!(installed(), "the allocator that forbids is not installed");
        let pools = (0..workers).map(|_| memory(0, 0)).collect();
        let (switch, workers) = Switch::new(config, pools).expect("a valid configuration");
        Self {
            switch,
            workers,
            far: BTreeMap::new(),
            ports: BTreeMap::new(),
            pool: memory(2, 600),
            now: Now(1),
            events: Vec::new(),
        }
    }

    /// A rig with one worker, and with neighbours on these slots.
    fn new(slots: &[u32]) -> Self {
        let mut rig = Self::with(1, SwitchConfig::default());
        for &slot in slots {
            rig.neighbour(0, slot, 256);
        }
        rig.settle();
        rig
    }

    fn plug(&mut self, worker: usize, port: Box<dyn Port>, behind: Behind, slot: u32) -> PortId {
        let port = self.switch.plug_at(worker, port).expect("a place");
        let attach = Attach::plain(port, Address::Only, behind, format!("on {slot}"))
            .with_slot(Slot::new(slot));
        assert_eq!(self.switch.attach(attach), Ok(Slot::new(slot)));
        self.ports.insert(slot, port);
        port
    }

    /// Attaches a neighbour. The test holds the far end of the wire.
    fn neighbour(&mut self, worker: usize, slot: u32, depth: usize) {
        self.wired(worker, slot, depth, Behind::Neighbour);
    }

    fn wired(&mut self, worker: usize, slot: u32, depth: usize, behind: Behind) {
        let (near, mut far) = wire(depth).expect("descriptors");
        far.admit(Mark(0), Address::Only).expect("no other neighbour");
        self.plug(worker, Box::new(near), behind, slot);
        self.far.insert(slot, far);
    }

    fn endpoint(&mut self, worker: usize, slot: u32) -> Endpoint {
        let pool = PoolSpec { trains: 4, singles: 0, huge_pages: false };
        let spec = EndpointSpec { depth_frames: 256, pool };
        let (near, far) = endpoint::pair(&spec).expect("memory and descriptors");
        self.plug(worker, Box::new(near), Behind::Endpoint, slot);
        far
    }

    /// Polls one worker once. Allocation is forbidden meanwhile (R13).
    fn poll_one(&mut self, worker: usize) -> usize {
        self.now.0 += 1;
        let rule = forbid();
        let switched = self.workers[worker].poll(self.now);
        drop(rule);
        switched
    }

    fn poll_workers(&mut self) -> usize {
        (0..self.workers.len()).map(|worker| self.poll_one(worker)).sum()
    }

    fn poll(&mut self) {
        let events = self.switch.poll(self.now);
        self.events.extend(events);
    }

    /// Polls until nothing changes.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.poll();
            if self.poll_workers() == 0 && self.switch.is_settled() {
                return;
            }
        }
        panic!("the switch does not come to rest");
    }

    fn frame(&mut self, bytes: &[u8]) -> Frame {
        let single = bytes.len() + 1_024 <= 4_096;
        let class = if single { ChunkClass::Single } else { ChunkClass::Train };
        let chunk = self.pool.take(class).expect("all frames are returned");
        let start = chunk.start();
        let mut frame = chunk.into_frame(start, bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        frame
    }

    /// Sends a frame from the neighbour on `slot`. Returns `false` if its wire is full.
    fn send(&mut self, slot: u32, bytes: &[u8]) -> bool {
        let frame = self.frame(bytes);
        let mut burst = Burst::new();
        burst.push(frame);
        let far = self.far.get_mut(&slot).expect("a wire there");
        far.tx_burst(Mark(0), &mut burst);
        far.flush();
        burst.is_empty()
    }

    /// The frames that have arrived at the neighbour on `slot`: at most one burst.
    fn taken(&mut self, slot: u32) -> Burst {
        let mut burst = Burst::new();
        self.far.get_mut(&slot).expect("a wire there").rx_burst(&mut self.pool, &mut burst);
        burst
    }

    fn take_all(&mut self) -> usize {
        let slots: Vec<u32> = self.far.keys().copied().collect();
        slots
            .into_iter()
            .map(|slot| {
                std::iter::repeat_with(|| self.taken(slot).len())
                    .take_while(|&n| n > 0)
                    .sum::<usize>()
            })
            .sum()
    }

    fn count(&self, discard: Discard) -> u64 {
        self.switch.balance().discards[discard as usize]
    }

    /// Discards counted at the port on `slot`.
    fn count_at(&self, slot: u32, discard: Discard) -> u64 {
        let ports = self.switch.ports();
        let port = ports.iter().find(|port| port.id == self.ports[&slot]).expect("plugged");
        let counts = port.queues.iter().flat_map(|queue| &queue.discards);
        counts.filter(|(reason, _)| *reason == discard).map(|(_, n)| n).sum()
    }

    fn assert_even(&self) {
        let balance = self.switch.balance();
        let counts: Vec<_> = balance.by_reason().collect();
        assert!(
            balance.is_even(),
            "R3: {} in flight; {balance:?} {counts:?}",
            balance.on_their_way()
        );
    }
}

/// A packet whose header has this label, with `payload`.
fn packet(label: Label, shift: u16, hops_left: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; FRAME_BYTES_MIN];
    bytes[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(0));
    HeaderRepr::new(label, shift, hops_left)
        .emit(&mut bytes[LINK_HEADER_BYTES..])
        .expect("room was made");
    bytes.extend_from_slice(payload);
    bytes
}

/// The label that leads from slot `from` to slot `to` of one switch.
fn through(from: u32, to: u32) -> Label {
    let hop = Hop { scheme: &V3X5X8, egress: Slot::new(to), ingress: Slot::new(from) };
    Label::build(&[hop]).expect("a path of one hop").0
}

/// A valid packet from one slot to another. Its payload is `number`.
fn numbered(from: u32, to: u32, number: u32) -> Vec<u8> {
    packet(through(from, to), 0, 64, &number.to_be_bytes())
}

fn number_of(frame: &Frame) -> u32 {
    let payload = &frame.bytes()[FRAME_BYTES_MIN..];
    u32::from_be_bytes(payload[..4].try_into().expect("four bytes"))
}

/// Bytes that a neighbour may send: valid packets, corrupted packets, and noise.
fn any_bytes(rng: &mut Rng, slots: &[u32]) -> Vec<u8> {
    let (from, to) = (slots[rng.below(slots.len())], slots[rng.below(slots.len())]);
    let payload = rng.below(1_400);
    let mut bytes = match rng.below(4) {
        0 => {
            let len = rng.below(200);
            return rng.bytes(len);
        }
        1 => {
            packet(Label::new(rng.next_u64()), rng.below(70) as u16 % 64, rng.next_u64() as u8, &[])
        }
        _ => packet(through(from, to), rng.below(2) as u16, 1 + rng.below(255) as u8, &[]),
    };
    bytes.resize(bytes.len() + payload, 0x5a);
    if rng.one_in(4) {
        let at = rng.below(FRAME_BYTES_MIN);
        bytes[at] ^= 1 << rng.below(8);
    }
    if rng.one_in(8) {
        bytes.truncate(rng.below(40));
    }
    bytes
}

#[test]
fn r2_no_byte_string_panics_the_data_plane() {
    let mut rig = Rig::new(&[0, 2, 3, 200]);
    rig.wired(0, 4, 256, Behind::Endpoint);
    rig.settle();
    let mut rng = Rng::new(0x02);
    let limits = [FRAME_BYTES_MAX - 1, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, 40_000, 65_535];
    let mut sent = 0;
    for len in (0..=2_048).chain(limits) {
        let noise = rng.bytes(len);
        let mut almost = noise.clone();
        if let Some(first) = almost.first_mut() {
            *first = plain_header(0)[0];
        }
        if let Some(version) = almost.get_mut(LINK_HEADER_BYTES) {
            *version = 0x10 | *version & 3;
        }
        for bytes in [noise, almost, vec![0; len], vec![0xff; len]] {
            assert!(rig.send([0, 2, 3, 200, 4][rng.below(5)], &bytes));
            sent += 1;
            rig.poll_workers();
            rig.take_all();
        }
    }
    rig.settle();
    rig.take_all();
    rig.assert_even();
    assert_eq!(rig.switch.balance().frames_in, sent);
}

/// Rigs in a row, wired to each other.
struct Chain(Vec<Rig>);

impl Chain {
    /// Makes three switches in a row. At each switch, slot 2 leads to the previous switch and slot
    /// 3 to the next one, if there is one. Slot 9 leads to a neighbour whose end of the wire the
    /// test holds.
    fn of_three(depth: usize) -> Self {
        let mut rigs: Vec<Rig> = (0..3).map(|_| Rig::with(1, SwitchConfig::default())).collect();
        for at in 0..2 {
            let (left, right) = memory::wire(depth).expect("descriptors");
            rigs[at].plug(0, Box::new(left), Behind::Neighbour, 3);
            rigs[at + 1].plug(0, Box::new(right), Behind::Neighbour, 2);
        }
        for rig in &mut rigs {
            rig.neighbour(0, 9, 64);
        }
        let mut chain = Self(rigs);
        chain.settle();
        chain
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut moved = 0;
            for rig in &mut self.0 {
                rig.poll();
                moved += rig.poll_workers();
                moved += rig.workers.iter().map(Worker::frames_waiting).sum::<usize>();
                moved += rig.take_all() + usize::from(!rig.switch.is_settled());
            }
            if moved == 0 {
                return;
            }
        }
        panic!("the switches do not come to rest");
    }
}

#[test]
fn r3_counters_balance_at_rest() {
    for seed in 1..=8 {
        let mut rng = Rng::new(seed);
        let mut chain = Chain::of_three(8);
        for round in 0..120 {
            for rig in &mut chain.0 {
                for _ in 0..rng.below(80) {
                    let bytes = any_bytes(&mut rng, &[2, 3, 9]);
                    rig.send(9, &bytes); // if the wire is full, the frame is not sent
                }
                // Frames are taken rarely, so that queues fill.
                if rng.one_in(3) {
                    rig.take_all();
                }
                rig.poll_workers();
                if rng.one_in(5) {
                    rig.poll();
                }
            }
            // During traffic, a link with waiting frames is detached. Later its port is unplugged.
            if round == 60 {
                chain.0[1].switch.detach(Slot::new(3)).expect("attached");
            }
        }
        chain.settle();
        let port = chain.0[1].ports[&3];
        chain.0[1].switch.unplug(port).expect("the port has no slots");
        for rig in &mut chain.0 {
            let bytes = any_bytes(&mut rng, &[2, 3, 9]);
            rig.send(9, &bytes);
        }
        chain.settle();
        for rig in &chain.0 {
            rig.assert_even();
            assert!(rig.switch.balance().frames_in > 100);
        }
        assert!(chain.0[1].events.contains(&Event::PortUnplugged(port)));
    }
}

#[test]
fn r3_frames_that_wait_at_a_detached_link_are_counted() {
    let mut rig = Rig::with(1, SwitchConfig::default());
    rig.neighbour(0, 2, 64);
    rig.neighbour(0, 3, 4);
    rig.settle();
    for number in 0..50 {
        assert!(rig.send(2, &numbered(2, 3, number)));
    }
    rig.poll_workers();
    assert_eq!(rig.workers[0].frames_waiting(), 46);
    rig.switch.detach(Slot::new(3)).expect("attached");
    rig.settle();
    assert_eq!((rig.count(Discard::ExitGone), rig.count_at(3, Discard::ExitGone)), (46, 46));
    rig.assert_even();
}

#[test]
fn r4_one_frame_in_gives_at_most_one_out() {
    let mut rig = Rig::new(&[0, 2, 3, 9, 200]);
    rig.wired(0, 4, 256, Behind::Endpoint);
    rig.settle();
    let mut rng = Rng::new(0x04);
    let slots = [0, 2, 3, 4, 9, 200];
    let (mut through, mut ended) = (0, 0);
    for _ in 0..5_000 {
        let bytes = any_bytes(&mut rng, &slots);
        let before = rig.switch.balance();
        assert!(rig.send(slots[rng.below(slots.len())], &bytes));
        rig.poll_workers();
        rig.poll();
        let out = rig.take_all();
        let after = rig.switch.balance();
        assert!(out <= 1, "{out} frames result from {bytes:x?}");
        assert_eq!(after.frames_out - before.frames_out, out as u64);
        // The pool has no free chunk for errors, so they are not sent and are counted as
        // `pool_empty`.
        let discarded = |of: &Balance| of.discarded() - of.discards[Discard::PoolEmpty as usize];
        assert_eq!(discarded(&after) - discarded(&before), 1 - out as u64);
        through += out;
        ended += 1 - out;
    }
    assert!(through > 500 && ended > 500, "{through} forwarded, {ended} discarded");
}

/// Checks the numbers of the frames that arrived at `slot`: they must increase within a flow.
fn in_order(arrived: &[Frame], last: &mut BTreeMap<u16, u32>) {
    for frame in arrived {
        let mut bytes = frame.bytes()[LINK_HEADER_BYTES..].to_vec();
        let Ok(AnyHeader::W64(header)) = AnyHeader::parse(&mut bytes) else { panic!("a header") };
        let number = number_of(frame);
        if let Some(before) = last.insert(header.flow(), number) {
            assert!(before < number, "{number} after {before} of flow {}", header.flow());
        }
    }
}

fn of_flow(mut bytes: Vec<u8>, flow: u16) -> Vec<u8> {
    bytes[LINK_HEADER_BYTES + 6..][..2].copy_from_slice(&flow.to_be_bytes());
    bytes
}

/// wire.md: W2-16, W2-20.
#[test]
fn r7_order_within_a_flow_is_kept() {
    // Slots 2 and 3 are on the first worker, 5 and 6 on the second: half of the paths cross
    // workers.
    for seed in 1..=6 {
        let mut rng = Rng::new(seed);
        let mut rig = Rig::with(2, SwitchConfig::default());
        for (worker, slot) in [(0, 2), (0, 3), (1, 5), (1, 6)] {
            rig.neighbour(worker, slot, 16);
        }
        rig.settle();
        let mut last: BTreeMap<u32, BTreeMap<u16, u32>> = BTreeMap::new();
        let mut arrived = 0;
        for number in 0..8_000 {
            let (from, to) = ([2, 6][rng.below(2)], [3, 5][rng.below(2)]);
            let bytes = of_flow(numbered(from, to, number), from as u16 * 8 + rng.below(4) as u16);
            rig.send(from, &bytes);
            if rng.one_in(20) {
                let worker = rng.below(2);
                rig.poll_one(worker);
            }
            if rng.one_in(30) {
                let to = [3, 5][rng.below(2)];
                let burst = rig.taken(to);
                arrived += burst.len();
                in_order(&burst, last.entry(to).or_default());
            }
        }
        rig.settle();
        for _ in 0..100 {
            for to in [3, 5] {
                let burst = rig.taken(to);
                arrived += burst.len();
                in_order(&burst, last.entry(to).or_default());
            }
            rig.poll_workers();
        }
        assert!(arrived > 1_000, "{arrived}");
        rig.settle();
        rig.assert_even();
    }
}

/// A waker that counts its calls.
#[derive(Default)]
struct WakeCount(AtomicUsize);

impl Wake for WakeCount {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_worker_is_woken_when_all_frames_leave_by_its_ports() {
    let mut rig = Rig::with(2, SwitchConfig::default());
    rig.neighbour(0, 2, 64);
    rig.neighbour(1, 5, 64);
    rig.settle();
    let woken = Arc::new(WakeCount::default());
    rig.workers[0].set_waker(1, woken.clone());
    for number in 0..10 {
        assert!(rig.send(2, &numbered(2, 5, number)));
    }
    assert_eq!(rig.poll_one(0), 10);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "the waker is called once per poll");
    rig.poll_one(1);
    assert_eq!(rig.taken(5).len(), 10);
    rig.poll_one(0);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "no handoff since then");
}

#[test]
fn r10_the_death_of_an_endpoint_leaves_forwarding_up() {
    let mut rig = Rig::new(&[2, 3]);
    let mut endpoint = rig.endpoint(0, 4);
    rig.settle();
    assert!(rig.send(2, &numbered(2, 4, 0)));
    rig.settle();
    assert!(endpoint.receive().expect("the port is there").is_some());

    // The endpoint ends while frames are queued for it.
    for number in 1..=20 {
        assert!(rig.send(2, &numbered(2, 4, number)));
    }
    rig.poll_workers();
    drop(endpoint);
    for number in 21..=30 {
        assert!(rig.send(2, &numbered(2, 4, number)));
        assert!(rig.send(2, &numbered(2, 3, number)));
    }
    rig.settle();
    assert_eq!(rig.taken(3).len(), 10, "other frames are forwarded");
    assert_eq!(rig.count(Discard::PeerGone), 30, "lost frames are counted");
    rig.assert_even();
}

#[test]
fn r10_the_death_of_the_slow_path_leaves_forwarding_up() {
    let mut rig = Rig::new(&[2, 3]);
    // The slow path is not polled: its queue fills, and further punts are dropped and counted.
    let for_the_switch = packet(Label::here(), 0, 64, &[]);
    for _ in 0..PUNTS_MAX + 10 {
        assert!(rig.send(2, &for_the_switch));
        rig.poll_workers();
    }
    // One ingress may take at most half of the places.
    let refused = (PUNTS_MAX + 10 - PUNTS_MAX / 2) as u64;
    let counted = [Discard::OverBudget, Discard::PuntFull].map(|why| rig.count_at(2, why));
    assert_eq!(counted.iter().sum::<u64>(), refused, "{counted:?}");
    assert!(rig.send(2, &numbered(2, 3, 1)));
    rig.poll_workers();
    assert_eq!(rig.taken(3).len(), 1);
    rig.settle();
    rig.assert_even();

    // The slow path ends, and its ends of the rings are dropped.
    let Rig { switch, mut workers, mut far, mut pool, now, .. } = rig;
    drop(switch);
    let mut burst = Burst::new();
    let mut frame =
        pool.take(ChunkClass::Single).expect("free").into_frame(256, FRAME_BYTES_MIN + 4);
    frame.bytes_mut().copy_from_slice(&numbered(2, 3, 2));
    burst.push(frame);
    far.get_mut(&2).expect("wired").tx_burst(Mark(0), &mut burst);
    let rule = forbid();
    assert_eq!(workers[0].poll(now), 1);
    drop(rule);
    far.get_mut(&3).expect("wired").rx_burst(&mut pool, &mut burst);
    assert_eq!(burst.len(), 1);
}

fn as_control(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[LINK_HEADER_BYTES + 1] |= 0x40;
    bytes
}

/// wire.md: W2-11.
#[test]
fn r12_every_queue_is_bounded_and_control_survives_a_data_overload() {
    let mut rig = Rig::with(1, SwitchConfig::default());
    rig.neighbour(0, 2, 64);
    rig.neighbour(0, 3, 4); // its far end is not read for now
    rig.neighbour(0, 5, 64);
    rig.settle();
    let data = 500;
    for number in 0..data {
        assert!(rig.send(2, &numbered(2, 3, number)));
        rig.poll_workers();
    }
    assert_eq!(rig.workers[0].frames_waiting(), EGRESS_FRAMES_MAX);
    let refused = u64::from(data) - 4 - EGRESS_FRAMES_MAX as u64;
    assert_eq!(rig.count_at(2, Discard::EgressFull), refused);

    // Control packets still find places, and are sent first. Traffic through another egress is not
    // delayed.
    for number in 0..EGRESS_CONTROL_FRAMES_MAX as u32 {
        assert!(rig.send(2, &as_control(numbered(2, 3, 1_000 + number))));
    }
    assert!(rig.send(2, &numbered(2, 5, 0)));
    rig.poll_workers();
    assert_eq!(rig.count(Discard::EgressFull), refused);
    assert_eq!(rig.taken(5).len(), 1);
    let mut arrived = Vec::new();
    for _ in 0..200 {
        arrived.extend(rig.taken(3).iter().map(number_of));
        rig.poll_workers();
    }
    let control: Vec<u32> = (0..EGRESS_CONTROL_FRAMES_MAX as u32).map(|n| 1_000 + n).collect();
    assert_eq!(arrived[..4], [0, 1, 2, 3], "first the frames on the wire");
    assert_eq!(arrived[4..4 + control.len()], control, "then control, in order");
    assert_eq!(arrived.len(), 4 + control.len() + EGRESS_FRAMES_MAX);
    rig.settle();
    rig.assert_even();
}

#[test]
fn r12_control_survives_a_data_overload_between_workers() {
    let mut rig = Rig::with(2, SwitchConfig::default());
    rig.neighbour(0, 2, 64);
    rig.neighbour(1, 5, 1_024);
    rig.settle();
    // The other worker is not polled, so it takes no frames from the ring.
    for number in 0..2 * HANDOFF_FRAMES_MAX as u32 {
        assert!(rig.send(2, &numbered(2, 5, number)));
        rig.poll_one(0);
    }
    assert!(rig.count_at(2, Discard::HandoffFull) >= HANDOFF_FRAMES_MAX as u64);
    let refused = rig.count(Discard::HandoffFull);
    for number in 0..EGRESS_CONTROL_FRAMES_MAX as u32 {
        assert!(rig.send(2, &as_control(numbered(2, 5, 1_000 + number))));
        rig.poll_one(0);
    }
    assert_eq!(rig.count(Discard::HandoffFull), refused, "control was refused");
    rig.settle();
    let mut control = 0;
    loop {
        let burst = rig.taken(5);
        if burst.is_empty() {
            break;
        }
        control += burst.iter().filter(|frame| number_of(frame) >= 1_000).count();
    }
    assert_eq!(control, EGRESS_CONTROL_FRAMES_MAX);
    rig.assert_even();
}

#[test]
fn r12_orders_that_a_worker_is_slow_to_obey_wait_and_none_is_lost() {
    let mut rig = Rig::with(1, SwitchConfig::default());
    let slots: Vec<u32> = (2..).take(2 * COMMANDS_MAX).collect();
    for &slot in &slots {
        rig.neighbour(0, slot, 1);
        rig.poll_workers(); // the slow path is not polled, so its commands wait
    }
    assert!(!rig.switch.is_settled());
    rig.settle();
    let attached = rig.events.iter().filter(|event| matches!(event, Event::SlotAttached(_)));
    assert_eq!(attached.count(), slots.len());
    const { assert!(2 * COMMANDS_MAX < ATTACHED_MAX) };
}

#[test]
fn r13_the_data_plane_allocates_nothing() {
    // Each `poll` of a worker runs under `forbid()`. Slots and ports change during traffic.
    let config = SwitchConfig::default().with_quarantine(std::time::Duration::from_nanos(50));
    let mut rig = Rig::with(2, config);
    let mut rng = Rng::new(0x13);
    rig.neighbour(0, 2, 64);
    rig.neighbour(1, 3, 64);
    rig.settle();
    let mut changes = 0;
    for _ in 0..3_000 {
        let known: Vec<u32> = rig.far.keys().copied().collect();
        let from = known[rng.below(known.len())];
        let bytes = any_bytes(&mut rng, &known);
        rig.send(from, &bytes);
        if rng.one_in(3) {
            rig.poll_workers();
        }
        if rng.one_in(4) {
            rig.take_all();
        }
        if rng.one_in(10) {
            rig.poll();
        }
        let slot = 4 + rng.below(8) as u32;
        let free = rig.switch.slots().iter().all(|view| view.slot != Slot::new(slot));
        if rng.one_in(20) && free {
            let worker = rng.below(2);
            // The slot gets another wire. Its old port was unplugged.
            rig.neighbour(worker, slot, 16);
            changes += 1;
        } else if rng.one_in(20) && rig.switch.detach(Slot::new(slot)).is_ok() {
            rig.settle();
            let port = rig.ports[&slot];
            rig.switch.unplug(port).expect("the port has no slots");
            rig.settle();
            rig.far.remove(&slot);
            changes += 1;
        }
    }
    rig.settle();
    rig.take_all();
    rig.settle();
    rig.assert_even();
    assert!(changes > 50, "{changes}");
    assert!(rig.switch.balance().frames_out > 200);
}

#[test]
fn a_packet_keeps_its_address_from_receive_to_send() {
    let mut rig = Rig::with(2, SwitchConfig::default());
    rig.neighbour(0, 2, 64);
    rig.neighbour(0, 3, 64);
    rig.neighbour(1, 5, 64);
    let mut endpoint = rig.endpoint(1, 6);
    rig.settle();
    for to in [3, 5, 6] {
        let frame = rig.frame(&numbered(2, to, 77));
        let at = frame.bytes().as_ptr();
        let mut burst = Burst::new();
        burst.push(frame);
        rig.far.get_mut(&2).expect("wired").tx_burst(Mark(0), &mut burst);
        rig.settle();
        let out = match to {
            6 => endpoint.receive().expect("the port is there"),
            _ => rig.taken(to).pop(),
        };
        let out = out.expect("it arrived");
        assert_eq!(out.bytes().as_ptr(), at, "to slot {to}");
        assert_eq!((out.len(), number_of(&out)), (FRAME_BYTES_MIN + 4, 77));
    }
    assert_eq!(rig.pool.tally().frames_copied.read(), 0);
    for worker in &mut rig.workers {
        assert_eq!(worker.pool_mut().tally().frames_copied.read(), 0);
    }
}

/// wire.md: W1.2-4, W2-1, W2-3, W2-8, W2-9, W2-15, W2-17, W2-18, W8-13.
#[test]
fn each_way_to_go_no_further_is_counted_by_its_name_at_the_port_it_came_in_by() {
    use Discard as D;
    let mut rig = Rig::new(&[2, 3, 40, 9]);
    rig.wired(0, 4, 64, Behind::Endpoint);
    rig.settle();
    rig.switch.detach(Slot::new(9)).expect("attached");
    rig.settle();
    let good = packet(through(2, 3), 0, 64, &[]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let header = LINK_HEADER_BYTES;
    let mut long = good.clone();
    long.resize(FRAME_BYTES_MAX + 1, 0);
    let beyond = Label::new((through(2, 4).register() ^ 0b1_0000) | 0b11_0011_0000);
    let narrow = V3X5X8.encode(Slot::new(3), 4).expect("in four bits").bits();
    let cases = [
        ("too short", 2, good[..FRAME_BYTES_MIN - 1].to_vec(), D::TooShort),
        ("empty", 2, vec![], D::TooShort),
        ("too long", 2, long, D::TooLong),
        ("another kind of link frame", 2, with(0, 0xf0), D::BadLinkKind),
        ("another version", 2, with(header, 0x20), D::BadVersion),
        ("a width that does not exist", 2, with(header, 0x13), D::BadWidth),
        ("a truncated label", 2, with(header, 0x11), D::TooShort),
        ("more bits used than there are", 2, with(header + 5, 64), D::BadHeader),
        ("no hops left", 2, packet(through(2, 3), 0, 0, &[]), D::HopsSpent),
        ("a spent label", 2, packet(Label::new(0), 0, 64, &[]), D::LabelSpent),
        ("spent, with a return path", 2, packet(Label::new(1 << 63), 1, 64, &[]), D::LabelSpent),
        ("an empty slot", 2, packet(through(2, 7), 0, 64, &[]), D::EmptySlot),
        ("a slot in quarantine", 2, packet(through(2, 9), 0, 64, &[]), D::SlotGone),
        ("a U-turn", 2, packet(through(2, 2), 0, 64, &[]), D::UTurn),
        (
            "a return path too wide",
            40,
            packet(Label::new(narrow | 0x10), 0, 64, &[]),
            D::ReturnPath,
        ),
        ("no bits left", 2, packet(through(2, 3), 60, 64, &[]), D::LabelFull),
        ("on behind an endpoint", 2, packet(beyond, 0, 64, &[]), D::BeyondEndpoint),
    ];
    for (what, from, bytes, reason) in cases {
        let (before, at_port) = (rig.switch.balance(), rig.count_at(from, reason));
        assert!(rig.send(from, &bytes));
        rig.settle();
        assert_eq!(rig.take_all(), 0, "{what}");
        let after = rig.switch.balance();
        assert_eq!(rig.count_at(from, reason), at_port + 1, "{what}");
        assert_eq!(after.discarded(), before.discarded() + 1, "{what}");
        rig.assert_even();
    }
    assert!(rig.send(2, &good));
    rig.settle();
    assert_eq!(rig.taken(3).len(), 1, "a valid packet still passes");
}

/// wire.md: W2-13, W3-2, W3-29, W13-12.
#[test]
fn plain_frames_are_counted_from_one_and_the_flags_e_and_t_change_nothing_for_data() {
    let mut rig = Rig::new(&[2, 3]);
    let mut first = None;
    for (count, flags) in (1_u8..).zip([0x00, 0x80, 0x20, 0xa0]) {
        let mut bytes = numbered(2, 3, 77);
        // The receiver ignores lane, index and counter.
        bytes[..LINK_HEADER_BYTES].copy_from_slice(&[0x6f, 0xff, 0xff, 0xff, 9, 8, 7, 6]);
        bytes[LINK_HEADER_BYTES + 1] = flags;
        assert!(rig.send(2, &bytes));
        rig.settle();
        let mut out = rig.taken(3).pop().expect("forwarded").bytes().to_vec();
        assert_eq!(out[..LINK_HEADER_BYTES], [0x60, 0, 0, 0, 0, 0, 0, count]);
        assert_eq!(out[LINK_HEADER_BYTES + 1], flags);
        out[LINK_HEADER_BYTES - 1] = 0;
        out[LINK_HEADER_BYTES + 1] = 0;
        assert_eq!(*first.get_or_insert_with(|| out.clone()), out, "{flags:02x}");
    }
    assert_eq!(rig.take_all(), 0, "nothing is sent to the sender");
    rig.assert_even();
}

/// wire.md: W2-6, W2-15.
#[test]
fn the_hop_limit_bounds_a_loop_that_the_width_does_not() {
    let config = SwitchConfig::default().with_hops_max(3).with_u_turns(true);
    let mut rig = Rig::with(1, config);
    rig.neighbour(0, 2, 4);
    rig.settle();
    // The label leads back to slot 2 ten times, and its sender allows 255 hops.
    let (label, _) = Label::<u64>::build(
        &[Hop { scheme: &V3X5X8, egress: Slot::new(2), ingress: Slot::new(2) }; 10],
    )
    .expect("ten narrow hops");
    let mut bytes = packet(label, 0, 255, &[]);
    for hop in 1.. {
        assert!(rig.send(2, &bytes));
        rig.settle();
        let Some(frame) = rig.taken(2).pop() else {
            assert_eq!((hop, rig.count_at(2, Discard::HopsSpent)), (4, 1));
            return;
        };
        bytes = frame.bytes().to_vec();
        assert_eq!(bytes[LINK_HEADER_BYTES + 2], 3 - hop);
    }
}

#[test]
fn slots_are_attached_detached_and_listed_while_traffic_flows() {
    let config =
        SwitchConfig::default().with_quarantine(std::time::Duration::from_nanos(1_000_000));
    let mut rig = Rig::with(1, config);
    rig.neighbour(0, 2, 256);
    rig.neighbour(0, 3, 256);
    rig.settle();
    let mut sent = 0;
    let mut arrived = 0;
    let mut flow = |rig: &mut Rig| {
        for _ in 0..7 {
            assert!(rig.send(2, &numbered(2, 3, sent)));
            sent += 1;
        }
        rig.poll_workers();
        rig.poll();
        arrived += rig.taken(3).len() as u32;
        (sent, arrived)
    };
    let state = |rig: &Rig, slot: u32| {
        let views = rig.switch.slots();
        views
            .iter()
            .find(|view| view.slot == Slot::new(slot))
            .map(|view| (view.state, view.name.clone()))
    };

    flow(&mut rig);
    rig.neighbour(0, 5, 256);
    assert_eq!(state(&rig, 5), Some((SlotState::Coming, "on 5".to_owned())));
    while state(&rig, 5).expect("listed").0 == SlotState::Coming {
        flow(&mut rig);
    }
    while !rig.switch.is_settled() {
        flow(&mut rig);
    }
    assert_eq!(rig.events.last(), Some(&Event::SlotAttached(Slot::new(5))));
    assert!(rig.send(2, &numbered(2, 5, 0)));
    flow(&mut rig);
    assert_eq!(rig.taken(5).len(), 1);

    rig.switch.detach(Slot::new(5)).expect("attached");
    assert_eq!(state(&rig, 5), Some((SlotState::Leaving, "on 5".to_owned())));
    while !rig.switch.is_settled() {
        flow(&mut rig);
    }
    assert_eq!(state(&rig, 5), Some((SlotState::Quarantined, String::new())));
    assert_eq!(rig.events.last(), Some(&Event::SlotDetached(Slot::new(5))));
    assert!(rig.send(2, &numbered(2, 5, 0)));
    flow(&mut rig);
    assert_eq!(rig.count_at(2, Discard::SlotGone), 1);

    rig.now.0 += 1_000_000;
    flow(&mut rig);
    assert_eq!((state(&rig, 5), rig.events.last()), (None, Some(&Event::SlotFree(Slot::new(5)))));
    while !rig.switch.is_settled() {
        flow(&mut rig);
    }
    assert!(rig.send(2, &numbered(2, 5, 0)));
    let (sent, arrived) = flow(&mut rig);
    assert_eq!(rig.count_at(2, Discard::EmptySlot), 1);
    assert_eq!(sent, arrived, "no packet of the flow was lost");
    let view =
        rig.switch.slots().into_iter().find(|view| view.slot == Slot::new(3)).expect("listed");
    assert_eq!(view.frames_out, u64::from(arrived));
    rig.assert_even();
}

#[test]
fn many_slots_are_detached_at_once_and_no_other_is() {
    let mut rig = Rig::with(1, SwitchConfig::default());
    for slot in [2, 3, 5, 6] {
        rig.neighbour(0, slot, 256);
    }
    rig.settle();
    rig.events.clear();
    // An empty slot is ignored, and a slot that is listed twice is detached once.
    rig.switch.detach_all([5, 3, 4, 5].map(Slot::new));
    assert_eq!(
        (rig.switch.name_at(Slot::new(3)), rig.switch.name_at(Slot::new(2))),
        (Some("on 3"), Some("on 2"))
    );
    rig.settle();
    let detached = [Event::SlotDetached(Slot::new(3)), Event::SlotDetached(Slot::new(5))];
    assert_eq!(rig.events, detached);
    assert_eq!((rig.switch.name_at(Slot::new(3)), rig.switch.name_at(Slot::new(4))), (None, None));
    for (slot, arrives) in [(3, 0), (5, 0), (6, 1)] {
        assert!(rig.send(2, &numbered(2, slot, 0)));
        rig.poll_workers();
        assert_eq!(rig.taken(slot).len(), arrives, "{slot}");
    }
    assert_eq!(rig.count_at(2, Discard::SlotGone), 2);
    rig.assert_even();
}

#[test]
fn three_switches_in_a_row_there_and_back() {
    let mut chain = Chain::of_three(64);
    // The slot numbers need directors of different widths, so that the return path needs wider
    // directors than the label.
    let (a_slot, b_slot) = (200, 12);
    let mut a = chain.0[0].endpoint(0, a_slot);
    let mut b = chain.0[2].endpoint(0, b_slot);
    chain.settle();
    let hop = |ingress, egress| Hop {
        scheme: &V3X5X8,
        egress: Slot::new(egress),
        ingress: Slot::new(ingress),
    };
    let path = [hop(a_slot, 3), hop(2, 3), hop(2, b_slot)];
    let (there, back) = Label::<u64>::build(&path).expect("it fits");

    let send = |from: &mut Endpoint, label: Label, payload: &[u8]| {
        let (label, shift) = label.depart().expect("it fits");
        let bytes = packet(label, shift, 64, payload);
        let mut frame = from.frame(bytes.len()).expect("memory");
        frame.bytes_mut().copy_from_slice(&bytes);
        from.send(frame).expect("room");
    };
    // The test computes the return label as an endpoint does (wire.md 1.3).
    let return_path = |frame: &mut Frame, own_slot: u32| {
        let ingress = Slot::new(frame.mark().0);
        let packet = &mut frame.bytes_mut()[LINK_HEADER_BYTES..];
        let Ok(AnyHeader::W64(header)) = AnyHeader::parse(packet) else { panic!("a header") };
        let hops_left = Header::hops_left(&header);
        let beside = V3X5X8.encode_least(ingress).expect("a slot of the scheme");
        let back = header.label().reverse(header.shift(), Some(beside)).expect("it fits");
        (back.widen(&V3X5X8, Slot::new(own_slot)).expect("it fits"), ingress, hops_left)
    };

    for round in 0..50_u8 {
        send(&mut a, there, &[round; 100]);
        chain.settle();
        let mut frame = b.receive().expect("the port is there").expect("it arrived");
        assert_eq!(frame.bytes()[FRAME_BYTES_MIN..], [round; 100]);
        let (reply, ingress, hops_left) = return_path(&mut frame, b_slot);
        assert_eq!((ingress, hops_left), (Slot::new(2), 62), "two switches, then the endpoint's");
        assert_eq!(reply, back, "as the path was built");

        send(&mut b, reply, &[!round; 60]);
        chain.settle();
        let mut frame = a.receive().expect("the port is there").expect("the packet came back");
        assert_eq!(frame.bytes()[FRAME_BYTES_MIN..], [!round; 60]);
        let (again, ingress, _) = return_path(&mut frame, a_slot);
        assert_eq!(ingress, Slot::new(3));
        assert_eq!(again, there, "the reverse of the reverse");
    }
    for rig in &chain.0 {
        rig.assert_even();
        assert_eq!(rig.switch.balance().discarded(), 0);
    }
    assert_eq!(HEADER_64_BYTES + LINK_HEADER_BYTES, FRAME_BYTES_MIN);
}
