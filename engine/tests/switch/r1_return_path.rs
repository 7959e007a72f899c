//! Return paths while slot numbers change. A reply along the return path that a switch has written
//! reaches the sender as long as the sender's former numbers lead to it, even if its present number
//! needs more bits. The tests run in virtual time.

use strowger_engine::{
    Now,
    control::{Attach, Snapshot, Switch, SwitchConfig},
    discard::Discard,
    link::{Behind, plain_header},
    worker::Worker,
};
use strowger_frame::{Address, Burst, ChunkClass, Mark, Pool, PoolSpec, Port as _};
use strowger_io::{MemoryPort, memory::wire};
use strowger_wire::{
    Label, Slot,
    link_header::LINK_HEADER_BYTES,
    scheme::V3X5X8,
    switch_header::{AnyHeader, HeaderRepr},
};

const SECOND: u64 = 1_000_000_000;

/// A switch between a left and a right neighbour.
struct Between {
    switch: Switch,
    worker: Worker,
    pool: Pool,
    far: [MemoryPort; 2],
    now: u64,
}

const LEFT: usize = 0;
const RIGHT: usize = 1;

impl Between {
    fn new(before: Option<&Snapshot>) -> Self {
        let pool = |singles| {
            Pool::new(&PoolSpec { trains: 0, singles, huge_pages: false }).expect("memory")
        };
        let config = SwitchConfig::default();
        let (mut switch, mut workers) =
            Switch::new(config, vec![pool(0)]).expect("a valid configuration");
        if let Some(before) = before {
            switch.restore(before, Now(1)).expect("nothing is attached");
        }
        let far = [("left", 2), ("right", 3)].map(|(name, slot)| {
            let (near, mut far) = wire(64).expect("descriptors");
            far.admit(Mark(0), Address::Only).expect("no other neighbour");
            let port = switch.plug_at(0, Box::new(near)).expect("a place");
            let attach = Attach::plain(port, Address::Only, Behind::Neighbour, name);
            let attach = if before.is_some() { attach } else { attach.with_slot(Slot::new(slot)) };
            switch.attach(attach).expect("free");
            far
        });
        let worker = workers.remove(0);
        let mut between = Self { switch, worker, pool: pool(64), far, now: 1 };
        between.settle();
        between
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            self.worker.poll(Now(self.now));
            self.switch.poll(Now(self.now));
        }
        assert!(self.switch.is_settled());
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += SECOND;
            self.settle();
        }
    }

    fn renumber(&mut self, from: u32, to: u32) {
        assert_eq!(self.switch.renumber(Slot::new(from), Some(Slot::new(to))), Ok(Slot::new(to)));
        self.settle();
    }

    /// Sends a packet from one side along this label. If the packet arrives, returns the label of a
    /// reply to it.
    fn send(&mut self, from: usize, label: Label) -> Option<Label> {
        let bytes = LINK_HEADER_BYTES + 16 + 8;
        let mut frame = self.pool.take(ChunkClass::Single).expect("memory").into_frame(256, bytes);
        let bytes = frame.bytes_mut();
        bytes[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(0));
        // The packet has an empty return path. The end marker of the reply's label is added below.
        HeaderRepr::new(label, 0, 9).emit(&mut bytes[LINK_HEADER_BYTES..]).expect("room");
        let mut burst = Burst::new();
        burst.push(frame);
        self.far[from].tx_burst(Mark(0), &mut burst);
        self.far[from].flush();
        self.worker.poll(Now(self.now));
        let mut arrived = Burst::new();
        self.far[1 - from].rx_burst(&mut self.pool, &mut arrived);
        let mut frame = arrived.into_iter().next()?;
        let packet = &mut frame.bytes_mut()[LINK_HEADER_BYTES..];
        let Ok(AnyHeader::W64(header)) = AnyHeader::parse(packet) else {
            panic!("the switch moved the label")
        };
        let shift = header.shift();
        let back = header.label().register().reverse_bits() & ((1 << shift) - 1);
        Some(Label::new(back | 1 << shift))
    }

    fn return_path_discards(&self) -> u64 {
        self.switch.balance().discards[Discard::ReturnPath as usize]
    }
}

/// The shortest label that names a slot.
fn to(slot: u32) -> Label {
    let director = V3X5X8.encode_least(Slot::new(slot)).expect("a slot of the scheme");
    Label::new(director.bits() | 1 << director.width())
}

/// wire.md: W1.2-7, W1.2-10.
#[test]
fn r1_two_way_traffic_survives_two_changes_to_a_number_with_more_bits() {
    let mut between = Between::new(None);
    let to_right = to(3);
    let to_left = between.send(LEFT, to_right).expect("it arrives");
    assert_eq!(to_left, to(2));
    between.renumber(2, 7);
    between.pass(100);
    between.renumber(7, 9);
    between.pass(100);
    // Packets with old labels, which have directors of four bits, are sent in both directions.
    for _ in 0..10 {
        let answer = between.send(RIGHT, to_left).expect("the former number is valid");
        assert_eq!(answer, to_right);
        let back =
            between.send(LEFT, answer).expect("a former number is written into its return path");
        assert_eq!(back, to(7), "the latest number that fits");
        assert!(between.send(RIGHT, back).is_some());
    }
    assert_eq!(between.return_path_discards(), 0);
    let views = between.switch.slots();
    let left = views.iter().find(|view| view.slot == Slot::new(9)).expect("it is attached");
    assert_eq!(left.by_former, 10, "the use is counted");
    // If the director is wider, the present number is written into the return path.
    let wide = V3X5X8.encode(Slot::new(3), 7).expect("it fits");
    let back = between.send(LEFT, Label::new(wide.bits() | 1 << wide.width()));
    assert_eq!(back, Some(to(9)));
}

/// wire.md: W1.2-10.
#[test]
fn r1_no_return_path_bears_a_former_number_that_leads_nowhere_any_more() {
    let mut between = Between::new(None);
    let alias_s = between.switch.config().alias().as_secs();
    between.renumber(2, 7);
    between.pass(100);
    between.renumber(7, 9);
    assert_eq!(between.send(LEFT, to(3)), Some(to(7)));
    // The first former number expires earlier. It was not written into return paths.
    between.pass(alias_s - 100 + 1);
    assert_eq!(between.send(RIGHT, to(2)), None);
    assert_eq!(between.send(LEFT, to(3)), Some(to(7)));
    between.pass(100);
    assert_eq!(between.send(RIGHT, to(7)), None);
    assert_eq!(between.send(LEFT, to(3)), None);
    assert_eq!(between.return_path_discards(), 1);
    assert!(between.send(RIGHT, to(9)).is_some());
}

#[test]
fn r1_former_numbers_are_written_into_return_paths_after_a_restart_too() {
    let mut between = Between::new(None);
    between.renumber(2, 7);
    between.renumber(7, 9);
    let snapshot = between.switch.snapshot(Now(between.now));
    let mut between = Between::new(Some(&snapshot));
    assert_eq!(between.send(RIGHT, to(2)), Some(to(3)));
    let back = between.send(LEFT, to(3)).expect("a former number is written");
    assert!([to(2), to(7)].contains(&back), "{back}");
    assert!(between.send(RIGHT, back).is_some());
    assert_eq!(between.return_path_discards(), 0);
}
