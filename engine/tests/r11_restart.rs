//! R11: after a restart, the same peers have the same slots, whatever comes first and whatever was
//! under way; and a number that was somebody's is not another's before it has rested.

use strowger_engine::{
    Now,
    control::{Attach, AttachError, Event, RestoreError, Snapshot, Switch, SwitchConfig},
    link::Behind,
    worker::Worker,
};
use strowger_frame::{Address, Pool, PoolSpec};
use strowger_io::memory::wire;

const QUARANTINE_NS: u64 = 1_000;

fn switch() -> (Switch, Worker) {
    let pool = Pool::new(&PoolSpec { trains: 0, singles: 0, huge_pages: false }).expect("memory");
    let config = SwitchConfig { quarantine_ns: QUARANTINE_NS, slot_max: 6, ..Default::default() };
    let (switch, mut workers) = Switch::new(config, vec![pool]).expect("a sane switch");
    (switch, workers.pop().expect("one"))
}

fn wish(switch: &mut Switch, name: &str) -> Attach {
    let (near, _far) = wire(4).expect("descriptors");
    let port = switch.plug_at(0, Box::new(near)).expect("a place");
    Attach::plain(port, Address::Only, Behind::Neighbour, name)
}

fn attach(switch: &mut Switch, name: &str) -> Result<u32, AttachError> {
    let attach = wish(switch, name);
    switch.attach(attach)
}

fn settle(switch: &mut Switch, worker: &mut Worker, now: u64) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..100 {
        events.extend(switch.poll(Now(now)));
        worker.breathe(Now(now));
    }
    assert!(switch.is_settled());
    events
}

/// A switch that has run for a while: `a` on 0, `b` on 2, `c` moved from 3 to 5, 4 at rest.
fn lived() -> Snapshot {
    let (mut switch, mut worker) = switch();
    for (name, slot) in [("a", 0), ("b", 2), ("c", 3), ("d", 4)] {
        assert_eq!(attach(&mut switch, name), Ok(slot));
    }
    settle(&mut switch, &mut worker, 1);
    switch.detach(4).expect("d");
    assert_eq!(switch.renumber(3, None), Ok(5));
    settle(&mut switch, &mut worker, 2);
    switch.snapshot(Now(2))
}

#[test]
fn r11_after_a_restart_the_same_peers_have_the_same_slots() {
    let snapshot = lived();
    let (mut switch, mut worker) = switch();
    switch.restore(&snapshot, Now(50)).expect("nothing is attached");
    // A newcomer first: it gets none of theirs, nor one that rests.
    assert_eq!(attach(&mut switch, "new"), Ok(6));
    for (name, slot) in [("c", 5), ("a", 0), ("b", 2)] {
        assert_eq!(attach(&mut switch, name), Ok(slot));
    }
    assert_eq!(attach(&mut switch, "late"), Err(AttachError::SlotsFull));
    let events = settle(&mut switch, &mut worker, 60);
    for slot in [0, 2, 5, 6] {
        assert!(events.contains(&Event::SlotAttached(slot)), "{events:?}");
    }
    // The alias and the one at rest come free, each in its time.
    let events = settle(&mut switch, &mut worker, 50 + QUARANTINE_NS);
    assert!(events.contains(&Event::SlotFree(4)) && !events.contains(&Event::SlotFree(3)));
    assert_eq!(switch.restore(&snapshot, Now(60)), Err(RestoreError::Late));
    let views = switch.slots();
    let least = views.iter().filter(|view| view.slot != 3).map(|view| view.generation).min();
    assert!(least > Some(snapshot.generation), "generations go on over a restart: {views:?}");
}

#[test]
fn a_number_pinned_to_another_opens_when_it_has_rested() {
    let snapshot = lived();
    let (mut switch, mut worker) = switch();
    switch.restore(&snapshot, Now(50)).expect("nothing is attached");
    let pinned = wish(&mut switch, "pinned").at_slot(2);
    assert_eq!(switch.attach(pinned), Ok(2));
    // Whose it was gets another.
    assert_eq!(attach(&mut switch, "b"), Ok(6));
    let events = settle(&mut switch, &mut worker, 60);
    assert!(!events.contains(&Event::SlotAttached(2)), "{events:?}");
    let events = settle(&mut switch, &mut worker, 50 + QUARANTINE_NS);
    assert!(events.contains(&Event::SlotAttached(2)), "{events:?}");
}

#[test]
fn no_number_leads_anywhere_before_it_is_written_down() {
    let (mut switch, mut worker) = switch();
    switch.wait_for_writing();
    assert_eq!(attach(&mut switch, "a"), Ok(0));
    for now in 1..50 {
        assert_eq!(switch.poll(Now(now)), []);
        worker.breathe(Now(now));
    }
    let generation = switch.snapshot(Now(50)).generation;
    switch.set_written(generation);
    assert_eq!(settle(&mut switch, &mut worker, 50), [Event::SlotAttached(0)]);
}

#[test]
fn a_snapshot_that_names_a_number_twice_is_refused() {
    let mut snapshot = lived();
    let first = snapshot.numbers[0].clone();
    snapshot.numbers.push(first);
    let (mut switch, _worker) = switch();
    assert_eq!(switch.restore(&snapshot, Now(1)), Err(RestoreError::Number(0)));
    assert_eq!(attach(&mut switch, "a"), Ok(0));
}
