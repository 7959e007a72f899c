//! R23 in the data plane: whatever one neighbour does, every other neighbour keeps its traffic, up
//! to its fair share of scarce resources. Ports are memory wires. Each assertion is about counts,
//! not times.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use strowger_engine::{
    Now,
    control::{Attach, Event, Switch, SwitchConfig},
    discard::Discard,
    limits::{COMMANDS_MAX, FRAME_BYTES_MIN, REPLIES_WAITING_MAX},
    link::{Behind, plain_header},
    worker::Worker,
};
use strowger_frame::{
    Address, Burst, ChunkClass, Mark, Pool, PoolSpec, Port,
    alloc::forbid,
    port::{AdmitError, Arm, PortTally},
};
use strowger_io::{MemoryPort, memory::wire};
use strowger_wire::{
    Hop, Label, Slot, link_header::LINK_HEADER_BYTES, scheme::V3X5X8, switch_header::HeaderRepr,
};

/// The time from one poll to the next, in nanoseconds.
const POLL_NS: u64 = 1_000;

fn memory(singles: u32) -> Pool {
    Pool::new(&PoolSpec { trains: 0, singles, huge_pages: false }).expect("memory")
}

/// The frames that arrived at one egress from one ingress.
#[derive(Clone, Copy, Debug, Default)]
struct Arrived {
    frames: u32,
    bytes: u32,
    control: u32,
}

struct Rig {
    switch: Switch,
    workers: Vec<Worker>,
    far: BTreeMap<u32, MemoryPort>,
    pool: Pool,
    now: Now,
    poll_ns: u64,
    sent: u64,
}

impl Rig {
    fn new(workers: usize) -> Self {
        let pools = (0..workers).map(|_| memory(64)).collect();
        let (switch, workers) = Switch::new(SwitchConfig::default(), pools).expect("sane");
        let (far, pool) = (BTreeMap::new(), memory(8_192));
        Self { switch, workers, far, pool, now: Now(1), poll_ns: POLL_NS, sent: 0 }
    }

    fn neighbour(&mut self, worker: usize, slot: u32, depth: usize) {
        self.neighbour_by(worker, slot, depth, |near| Box::new(near));
    }

    fn neighbour_by(
        &mut self,
        worker: usize,
        slot: u32,
        depth: usize,
        wrap: impl FnOnce(MemoryPort) -> Box<dyn Port>,
    ) {
        let (near, mut far) = wire(depth).expect("descriptors");
        far.admit(Mark(0), Address::Only).expect("free");
        let port = self.switch.plug_at(worker, wrap(near)).expect("a place");
        let name = format!("on {slot}");
        let attach =
            Attach::plain(port, Address::Only, Behind::Neighbour, name).with_slot(Slot::new(slot));
        assert_eq!(self.switch.attach(attach), Ok(Slot::new(slot)));
        self.far.insert(slot, far);
        while !self.switch.is_settled() {
            self.poll_workers();
            self.switch.poll(self.now);
        }
    }

    /// Polls each worker once. Allocation is forbidden meanwhile (R13).
    fn poll_workers(&mut self) -> usize {
        self.now.0 += self.poll_ns;
        let _rule = forbid();
        self.workers.iter_mut().map(|worker| worker.poll(self.now)).sum()
    }

    /// Sends `n` packets from the neighbour on slot `from` to slot `to`, or as many as its wire
    /// takes.
    fn send(&mut self, n: usize, from: u32, to: u32, payload_bytes: usize, is_control: bool) {
        let hop = Hop { scheme: &V3X5X8, egress: Slot::new(to), ingress: Slot::new(from) };
        let label = Label::<u64>::build(&[hop]).expect("one hop").0;
        self.send_packets(n, from, label, payload_bytes, is_control);
    }

    fn send_packets(
        &mut self,
        n: usize,
        from: u32,
        label: Label,
        payload_bytes: usize,
        is_control: bool,
    ) {
        let mut burst = Burst::new();
        for _ in 0..n {
            let Some(chunk) = self.pool.take(ChunkClass::Single) else { break };
            let start = chunk.start();
            let mut frame = chunk.into_frame(start, FRAME_BYTES_MIN + payload_bytes.max(4));
            let bytes = frame.bytes_mut();
            bytes[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(0));
            let mut header = HeaderRepr::new(label, 0, 64);
            header.flags.control = is_control;
            header.flags.no_errors = true;
            header.emit(&mut bytes[LINK_HEADER_BYTES..]).expect("there is room");
            bytes[FRAME_BYTES_MIN..][..4].copy_from_slice(&from.to_be_bytes());
            burst.push(frame);
            if burst.is_full() {
                self.put(from, &mut burst);
            }
        }
        self.put(from, &mut burst);
        self.pool.reclaim();
    }

    /// Sends one control packet with this message.
    fn send_bytes(&mut self, from: u32, label: Label, message: &[u8]) {
        let Some(chunk) = self.pool.take(ChunkClass::Single) else { return };
        let start = chunk.start();
        let mut frame = chunk.into_frame(start, FRAME_BYTES_MIN + message.len());
        let bytes = frame.bytes_mut();
        bytes[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(0));
        let mut header = HeaderRepr::new(label, 0, 64);
        header.flags.control = true;
        header.emit(&mut bytes[LINK_HEADER_BYTES..]).expect("there is room");
        bytes[FRAME_BYTES_MIN..].copy_from_slice(message);
        let mut burst = Burst::new();
        burst.push(frame);
        self.put(from, &mut burst);
        self.pool.reclaim();
    }

    fn put(&mut self, from: u32, burst: &mut Burst) {
        let far = self.far.get_mut(&from).expect("wired");
        let wanted = burst.len();
        far.tx_burst(Mark(0), burst);
        far.flush();
        self.sent += (wanted - burst.len()) as u64;
        burst.clear();
    }

    /// Takes up to `n` frames that arrived at slot `at`, and counts them by ingress.
    fn take(&mut self, n: usize, at: u32, arrived: &mut BTreeMap<u32, Arrived>) -> usize {
        let mut taken = 0;
        while taken < n {
            let mut burst = Burst::new();
            // A receive fills the free places of a burst, so the frames already in it limit the
            // number.
            let fill = burst.capacity() - (n - taken).min(burst.capacity());
            for _ in 0..fill {
                burst.push(self.pool.take(ChunkClass::Single).expect("memory").into_frame(256, 1));
            }
            self.far.get_mut(&at).expect("wired").rx_burst(&mut self.pool, &mut burst);
            if burst.len() == fill {
                break;
            }
            for frame in burst.drain(fill..) {
                taken += 1;
                let from = frame.bytes()[FRAME_BYTES_MIN..][..4].try_into().expect("four bytes");
                let sum = arrived.entry(u32::from_be_bytes(from)).or_default();
                sum.frames += 1;
                sum.bytes += frame.len() as u32;
                sum.control += u32::from(frame.bytes()[LINK_HEADER_BYTES + 1] & 0x40 != 0);
            }
        }
        self.pool.reclaim();
        taken
    }

    fn count(&self, discard: Discard) -> u64 {
        self.switch.balance().discards[discard as usize]
    }

    fn count_at(&self, slot: u32, discard: Discard) -> u64 {
        let ports = self.switch.ports();
        let view = self
            .switch
            .slots()
            .into_iter()
            .find(|view| view.slot == Slot::new(slot))
            .expect("there");
        let port =
            ports.iter().find(|port| port.id == view.port.expect("attached")).expect("there");
        let counts = port.queues.iter().flat_map(|queue| &queue.discards);
        counts.filter(|(reason, _)| *reason == discard).map(|(_, n)| n).sum()
    }

    fn assert_even(&mut self) {
        let mut arrived = BTreeMap::new();
        let slots: Vec<u32> = self.far.keys().copied().collect();
        for _ in 0..2_000 {
            let moved = self.poll_workers();
            self.switch.poll(self.now);
            let taken: usize = slots.iter().map(|&at| self.take(64, at, &mut arrived)).sum();
            let waiting: usize = self.workers.iter().map(Worker::frames_waiting).sum();
            if moved + taken + waiting == 0 && self.switch.is_settled() {
                let balance = self.switch.balance();
                let counts: Vec<_> = balance.by_reason().collect();
                assert!(balance.is_even(), "{balance:?} {counts:?}");
                return;
            }
        }
        panic!("it does not come to rest");
    }
}

/// A sender of packets to the congested egress.
#[derive(Clone, Copy)]
struct Sender {
    slot: u32,
    worker: usize,
    per_poll: usize,
    payload_bytes: usize,
    is_control: bool,
}

const EXIT: u32 = 200;

fn data(slot: u32, per_poll: usize) -> Sender {
    Sender { slot, worker: 0, per_poll, payload_bytes: 40, is_control: false }
}

/// Runs `polls` polls. In each poll, each sender sends, and the far end of the egress takes `drain`
/// frames. The egress belongs to the last worker. After the port of each sender, `idle` unused
/// ports are plugged in.
fn contend(
    workers: usize,
    senders: &[Sender],
    idle: u32,
    drain: usize,
    depth: usize,
    polls: usize,
) -> (Rig, BTreeMap<u32, Arrived>) {
    let mut rig = Rig::new(workers);
    rig.neighbour(workers - 1, EXIT, depth);
    let mut unused = 100;
    for sender in senders {
        rig.neighbour(sender.worker, sender.slot, 512);
        for _ in 0..idle {
            rig.neighbour(sender.worker, unused, 4);
            unused += 1;
        }
    }
    let mut arrived = BTreeMap::new();
    for _ in 0..polls {
        for sender in senders {
            let Sender { slot, per_poll, payload_bytes, is_control, .. } = *sender;
            rig.send(per_poll, slot, EXIT, payload_bytes, is_control);
        }
        rig.poll_workers();
        rig.take(drain, EXIT, &mut arrived);
    }
    (rig, arrived)
}

/// Asserts that each sender got at least this part of an equal share.
#[track_caller]
fn assert_shares(arrived: &BTreeMap<u32, Arrived>, senders: &[Sender], part: f64, what: &str) {
    let total: u32 = arrived.values().map(|sum| sum.frames).sum();
    let share = f64::from(total) / senders.len() as f64;
    for sender in senders {
        let got = arrived.get(&sender.slot).map_or(0, |sum| sum.frames);
        // A few frames may still be queued.
        assert!(f64::from(got + 8) >= part * share, "{what}: slot {} of {arrived:?}", sender.slot);
    }
}

#[test]
fn r23_a_congested_egress_is_shared_equally_in_any_order_of_polling() {
    for (drain, depth) in [(1, 4), (7, 16), (64, 64), (64, 256)] {
        for idle in [0, 5] {
            for count in [2, 7] {
                let senders: Vec<Sender> = (2..).take(count).map(|slot| data(slot, 64)).collect();
                let polls = 16 * 64 / drain.min(5);
                let (mut rig, arrived) = contend(1, &senders, idle, drain, depth, polls);
                let what = format!("{drain} of {depth} taken, {idle} idle, {count} senders");
                let total: u32 = arrived.values().map(|sum| sum.frames).sum();
                assert!(
                    total as usize + 64 >= polls * drain,
                    "{what}: the egress is used: {total}"
                );
                assert_shares(&arrived, &senders, 0.97, &what);
                rig.assert_even();
            }
        }
    }
}

#[test]
fn r23_an_ingress_that_sends_several_bursts_at_once_gets_no_more_of_a_fast_egress() {
    // The far end empties its wire between two polls, so the port that is polled first can fill the
    // wire.
    for count in [2, 3, 5] {
        let senders: Vec<Sender> = (2..).take(count).map(|slot| data(slot, 256)).collect();
        let (mut rig, arrived) = contend(1, &senders, 2, 256, 256, 640);
        assert_shares(&arrived, &senders, 0.92, &format!("{count} senders"));
        rig.assert_even();
    }
}

#[test]
fn r23_an_ingress_below_its_share_loses_nothing_to_a_flood_at_its_egress() {
    for first in [false, true] {
        let (modest, flood) = if first { (2, 3) } else { (3, 2) };
        let mut senders = [data(modest, 3), data(flood, 256)];
        senders.sort_by_key(|sender| sender.slot);
        let polls = 500;
        let (mut rig, arrived) = contend(1, &senders, 0, 8, 8, polls);
        let got = arrived[&modest].frames as usize;
        assert!(got * 100 >= polls * 3 * 99 - 64 * 100, "{arrived:?}");
        rig.assert_even();
        assert_eq!(
            rig.count_at(modest, Discard::EgressFull),
            0,
            "the modest sender's port has no drops"
        );
        let refused = rig.count(Discard::EgressFull);
        assert_eq!(
            rig.count_at(flood, Discard::EgressFull),
            refused,
            "displaced frames count at the flood's port"
        );
        assert!(refused > 10_000);
    }
}

#[test]
fn r23_frames_from_another_worker_have_the_share_of_those_from_here() {
    for (drain, depth) in [(8, 16), (64, 64), (256, 256)] {
        let senders = [
            Sender { worker: 0, ..data(2, 256) },
            Sender { worker: 1, ..data(3, 256) },
            Sender { worker: 1, ..data(4, 256) },
        ];
        let (mut rig, arrived) = contend(2, &senders, 1, drain, depth, 600);
        assert_shares(&arrived, &senders, 0.95, &format!("{drain} of {depth} taken"));
        rig.assert_even();
    }
}

#[test]
fn r23_long_frames_do_not_displace_short_ones() {
    let senders = [Sender { payload_bytes: 1_400, ..data(2, 64) }, data(3, 64)];
    let (mut rig, arrived) = contend(1, &senders, 0, 8, 16, 800);
    let (long, short) = (arrived[&2], arrived[&3]);
    // A frame weighs one, plus one for each full 256 bytes. Here, a long frame weighs six and a
    // short one weighs one.
    assert!(short.frames > 4 * long.frames, "{arrived:?}");
    assert!(long.bytes > short.bytes / 2, "short frames do not displace long ones: {arrived:?}");
    rig.assert_even();
}

/// wire.md: W2-12.
#[test]
fn r23_the_control_flag_on_a_flood_takes_nothing_from_data() {
    for (drain, depth) in [(4, 8), (16, 16), (64, 64)] {
        let hostile = Sender { is_control: true, ..data(2, 64) };
        let senders = [hostile, data(3, 64)];
        let (mut rig, arrived) = contend(1, &senders, 0, drain, depth, 1_000);
        assert_shares(&arrived, &senders[1..], 0.97 / 2.0, &format!("{drain} of {depth} taken"));
        rig.assert_even();
    }
}

#[test]
fn r12_r23_control_of_an_innocent_survives_a_flood_with_the_control_flag() {
    for hostile_ports in [1, 4] {
        let innocent = Sender { is_control: true, ..data(2, 0) };
        let mut senders: Vec<Sender> = (3..)
            .take(hostile_ports)
            .map(|slot| Sender { is_control: true, ..data(slot, 64) })
            .collect();
        senders.push(innocent);
        let mut rig = Rig::new(1);
        rig.neighbour(0, EXIT, 8);
        senders.iter().for_each(|sender| rig.neighbour(0, sender.slot, 512));
        let mut arrived = BTreeMap::new();
        for poll in 0..4_000_u64 {
            for sender in &senders {
                rig.send(sender.per_poll, sender.slot, EXIT, 40, true);
            }
            if poll % 8 == 0 {
                rig.send(1, innocent.slot, EXIT, 40, true);
            }
            rig.poll_workers();
            rig.take(4, EXIT, &mut arrived);
        }
        let got = arrived[&innocent.slot].frames;
        assert!(got >= 495, "{got} of 500 beside {hostile_ports}: {arrived:?}");
        rig.assert_even();
        assert_eq!(rig.count_at(innocent.slot, Discard::EgressFull), 0);
    }
}

/// wire.md: W2-11.
#[test]
fn r12_r23_control_within_its_budget_goes_first_and_leaves_data_its_share() {
    // All control packets are within their rate limit, and they fill the egress.
    let mut rig = Rig::new(1);
    rig.poll_ns = 8_000_000;
    rig.neighbour(0, EXIT, 4);
    rig.neighbour(0, 2, 64);
    rig.neighbour(0, 3, 64);
    let mut arrived = BTreeMap::new();
    for _ in 0..2_000 {
        rig.send(4, 2, EXIT, 40, false);
        rig.send(4, 3, EXIT, 40, true);
        rig.poll_workers();
        rig.take(4, EXIT, &mut arrived);
    }
    let (data, control) = (arrived[&2].frames, arrived[&3].control);
    assert!(data >= 3_880 && control >= 3_880, "{data} data frames, {control} control frames");
    rig.assert_even();
}

/// A port that counts how often the worker offers it frames.
struct Offered {
    inner: MemoryPort,
    offers: Arc<AtomicUsize>,
    says_blocked: bool,
}

impl Port for Offered {
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.inner.rx_burst(pool, burst);
    }

    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        self.offers.fetch_add(1, Ordering::Relaxed);
        self.inner.tx_burst(to, frames);
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn is_flushed(&self) -> bool {
        self.inner.is_flushed()
    }

    fn arm(&mut self) -> Arm {
        self.inner.arm()
    }

    fn admit(&mut self, mark: Mark, at: Address) -> Result<(), AdmitError> {
        self.inner.admit(mark, at)
    }

    fn forget(&mut self, mark: Mark) {
        self.inner.forget(mark);
    }

    fn is_blocked(&self, to: Mark) -> bool {
        self.says_blocked && self.inner.is_blocked(to)
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn frame_bytes_max(&self) -> usize {
        self.inner.frame_bytes_max()
    }

    fn tally(&self) -> &Arc<PortTally> {
        self.inner.tally()
    }

    fn describe(&self) -> &str {
        self.inner.describe()
    }
}

#[test]
fn r23_exits_that_are_stuck_are_not_offered_again_and_do_not_keep_the_worker_awake() {
    for says_blocked in [true, false] {
        let mut rig = Rig::new(1);
        let offers = Arc::new(AtomicUsize::new(0));
        let stuck: Vec<u32> = (20..40).collect();
        for &slot in &stuck {
            let offers = offers.clone();
            rig.neighbour_by(0, slot, 4, |inner| Box::new(Offered { inner, offers, says_blocked }));
        }
        rig.neighbour(0, 2, 512);
        rig.neighbour(0, 3, 512);
        for &slot in &stuck {
            rig.send(8, 2, slot, 40, false);
        }
        rig.poll_workers();
        assert_eq!(rig.workers[0].frames_waiting(), 4 * stuck.len());

        // Other traffic continues.
        offers.store(0, Ordering::Relaxed);
        let mut arrived = BTreeMap::new();
        for _ in 0..50 {
            rig.send(4, 2, 3, 40, false);
            rig.poll_workers();
            rig.take(64, 3, &mut arrived);
        }
        assert_eq!(arrived[&2].frames, 200);
        let polls = if says_blocked { 0 } else { 50 };
        assert_eq!(
            offers.load(Ordering::Relaxed),
            polls * stuck.len(),
            "at most one offer per poll"
        );
        assert_eq!(rig.workers[0].arm(|_| ()), says_blocked, "may block");
        rig.workers[0].disarm(|_| false);

        // One of the far ends reads again.
        rig.take(4, stuck[7], &mut arrived);
        let before = offers.load(Ordering::Relaxed);
        assert!(!rig.workers[0].arm(|_| ()) || says_blocked, "there is room now");
        rig.workers[0].disarm(|_| true);
        rig.poll_workers();
        assert!(offers.load(Ordering::Relaxed) > before);
        assert_eq!(rig.take(64, stuck[7], &mut arrived), 4);
        rig.assert_even();
    }
}

/// The label that leads to the switch itself.
fn here() -> Label {
    Label::here()
}

#[test]
fn r23_packets_for_the_switch_by_many_leave_an_innocent_its_places() {
    // The slow path is polled rarely, and four ingresses send more packets to it than its queue has
    // places.
    let mut rig = Rig::new(1);
    rig.neighbour(0, 2, 64);
    let hostile: Vec<u32> = (3..7).collect();
    hostile.iter().for_each(|&slot| rig.neighbour(0, slot, 512));
    rig.poll_ns = 1_000_000;
    for _ in 0..200 {
        for _ in 0..10 {
            for &slot in &hostile {
                rig.send_packets(64, slot, here(), 40, true);
            }
            rig.poll_workers();
        }
        rig.send_packets(2, 2, here(), 40, true);
        rig.poll_workers();
        rig.switch.poll(rig.now);
    }
    let refused = [Discard::PuntFull, Discard::OverBudget].map(|why| rig.count_at(2, why));
    assert_eq!(refused, [0, 0], "of 400 packets of a well-behaved sender");
    let refused = [Discard::PuntFull, Discard::OverBudget].map(|why| rig.count(why));
    assert!(refused.iter().sum::<u64>() > 100_000, "{refused:?}");
    rig.assert_even();
}

#[test]
fn r23_a_ring_between_workers_is_shared_equally_by_its_ingresses() {
    for floods in [1, 3] {
        let mut rig = Rig::new(2);
        rig.neighbour(1, EXIT, 512);
        rig.neighbour(1, 199, 512);
        rig.neighbour(0, 2, 512);
        let hostile: Vec<u32> = (3..3 + floods).collect();
        hostile.iter().for_each(|&slot| rig.neighbour(0, slot, 512));
        let mut arrived = BTreeMap::new();
        for _ in 0..100 {
            // Worker 1 is slow: it is polled once for nine polls of worker 0.
            for _ in 0..8 {
                for &slot in &hostile {
                    rig.send(64, slot, 199, 40, false);
                }
                rig.now.0 += POLL_NS;
                rig.workers[0].poll(rig.now);
            }
            rig.send(4, 2, EXIT, 40, false);
            rig.workers[0].poll(rig.now);
            rig.workers[1].poll(rig.now);
            rig.take(64, EXIT, &mut arrived);
            rig.take(512, 199, &mut BTreeMap::new());
        }
        assert!(rig.count(Discard::HandoffFull) > 5_000);
        assert_eq!(rig.count_at(2, Discard::HandoffFull), 0);
        assert!(arrived[&2].frames >= 396, "{arrived:?} of 400 beside {floods}");
        rig.assert_even();
    }
}

#[test]
fn r23_replies_for_a_slow_worker_are_bounded_and_counted_and_changes_are_not_lost() {
    let mut rig = Rig::new(2);
    let senders: Vec<u32> = (2..12).collect();
    senders.iter().for_each(|&slot| rig.neighbour(1, slot, 512));
    rig.poll_ns = 1_000_000;
    // Worker 0, which sends the replies, is not polled for ten seconds.
    let ping = [&[1_u8, 1, 0, 0][..], &[7; 60]].concat();
    for round in 0..10_000 {
        if round % 100 == 0 {
            for &slot in &senders {
                for _ in 0..64 {
                    rig.send_bytes(slot, here(), &ping);
                }
            }
        }
        rig.now.0 += rig.poll_ns;
        rig.workers[1].poll(rig.now);
        rig.switch.poll(rig.now);
    }
    let dropped = rig.count(Discard::CommandsFull);
    assert!(dropped > 5_000, "{dropped} answers were made for no one");
    rig.switch.detach(Slot::new(2)).expect("attached");
    let mut events = Vec::new();
    for _ in 0..200 {
        rig.poll_workers();
        events.extend(rig.switch.poll(rig.now));
    }
    assert!(events.contains(&Event::SlotDetached(Slot::new(2))), "{events:?}");
    let mut arrived = 0;
    for &slot in &senders[1..] {
        arrived += rig.take(512, slot, &mut BTreeMap::new());
    }
    let counts: Vec<_> = rig.switch.balance().by_reason().collect();
    assert!(
        arrived > 0 && arrived <= REPLIES_WAITING_MAX + COMMANDS_MAX,
        "{arrived} {counts:?} {:?}",
        rig.switch.balance()
    );
    rig.assert_even();
}
