//! R11: after a restart the same peers have the same slots, in whatever order they are attached and
//! whatever change was in progress. A number passes to another user only after its quarantine.

use std::time::Duration;

use strowger_engine::{
    Now,
    control::{
        Attach, AttachError, Event, Kept, NotFree, RenumberError, RestoreError, SlotState,
        Snapshot, Switch, SwitchConfig, Who,
    },
    link::Behind,
    worker::Worker,
};
use strowger_frame::{Address, Pool, PoolSpec};
use strowger_io::memory::wire;
use strowger_wire::Slot;

const QUARANTINE_NS: u64 = 1_000;

fn switch() -> (Switch, Worker) {
    let pool = Pool::new(&PoolSpec { trains: 0, singles: 0, huge_pages: false }).expect("memory");
    let config = SwitchConfig::default()
        .with_quarantine(std::time::Duration::from_nanos(QUARANTINE_NS))
        .with_slot_max(6);
    let (switch, mut workers) = Switch::new(config, vec![pool]).expect("a valid configuration");
    (switch, workers.pop().expect("one"))
}

fn wish(switch: &mut Switch, name: &str) -> Attach {
    let (near, _far) = wire(4).expect("descriptors");
    let port = switch.plug_at(0, Box::new(near)).expect("a place");
    Attach::plain(port, Address::Only, Behind::Neighbour, name)
}

fn attach(switch: &mut Switch, name: &str) -> Result<Slot, AttachError> {
    let attach = wish(switch, name);
    switch.attach(attach)
}

fn settle(switch: &mut Switch, worker: &mut Worker, now: u64) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..100 {
        events.extend(switch.poll(Now(now)));
        worker.poll(Now(now));
    }
    assert!(switch.is_settled());
    events
}

/// The snapshot of a switch in use: `a` is on slot 0 and `b` on slot 2, `c` has moved from slot 3
/// to slot 5, and number 4 is in quarantine.
fn lived() -> Snapshot {
    let (mut switch, mut worker) = switch();
    for (name, slot) in [("a", 0), ("b", 2), ("c", 3), ("d", 4)] {
        assert_eq!(attach(&mut switch, name), Ok(Slot::new(slot)));
    }
    settle(&mut switch, &mut worker, 1);
    switch.detach(Slot::new(4)).expect("d");
    assert_eq!(switch.renumber(Slot::new(3), None), Ok(Slot::new(5)));
    settle(&mut switch, &mut worker, 2);
    switch.snapshot(Now(2))
}

#[test]
fn r11_after_a_restart_the_same_peers_have_the_same_slots() {
    let snapshot = lived();
    let (mut switch, mut worker) = switch();
    switch.restore(&snapshot, Now(50)).expect("nothing is attached");
    // A new user is attached first. It gets neither a kept number nor one in quarantine.
    assert_eq!(attach(&mut switch, "new"), Ok(Slot::new(6)));
    for (name, slot) in [("c", 5), ("a", 0), ("b", 2)] {
        assert_eq!(attach(&mut switch, name), Ok(Slot::new(slot)));
    }
    // No number is free. The user gets the number that becomes free first, and must wait for it.
    assert_eq!(attach(&mut switch, "late"), Ok(Slot::new(4)));
    assert_eq!(switch.opens_in(Slot::new(4)), Some(Duration::from_nanos(QUARANTINE_NS)));
    assert_eq!(attach(&mut switch, "too late"), Err(AttachError::SlotsFull));
    let events = settle(&mut switch, &mut worker, 60);
    for slot in [0, 2, 5, 6] {
        assert!(events.contains(&Event::SlotAttached(Slot::new(slot))), "{events:?}");
    }
    let events = settle(&mut switch, &mut worker, 50 + QUARANTINE_NS);
    assert!(
        events.contains(&Event::SlotAttached(Slot::new(4)))
            && switch.opens_in(Slot::new(4)).is_none()
    );
    assert!(
        !events.contains(&Event::SlotFree(Slot::new(3))),
        "the number belongs to its user: {events:?}"
    );
    assert_eq!(switch.restore(&snapshot, Now(60)), Err(RestoreError::Late));
    let views = switch.slots();
    let least =
        views.iter().filter(|view| view.slot != Slot::new(3)).map(|view| view.generation).min();
    assert!(least > Some(snapshot.generation), "generations continue after a restart: {views:?}");
}

#[test]
fn a_number_pinned_to_another_opens_when_it_has_rested() {
    let snapshot = lived();
    let (mut switch, mut worker) = switch();
    switch.restore(&snapshot, Now(50)).expect("nothing is attached");
    let pinned = wish(&mut switch, "pinned").with_slot(Slot::new(2));
    assert_eq!(switch.attach(pinned), Ok(Slot::new(2)));
    // The former user gets another number.
    assert_eq!(attach(&mut switch, "b"), Ok(Slot::new(6)));
    let events = settle(&mut switch, &mut worker, 60);
    assert!(!events.contains(&Event::SlotAttached(Slot::new(2))), "{events:?}");
    let events = settle(&mut switch, &mut worker, 50 + QUARANTINE_NS);
    assert!(events.contains(&Event::SlotAttached(Slot::new(2))), "{events:?}");
}

#[test]
fn no_number_leads_anywhere_before_it_is_written_down() {
    let (mut switch, mut worker) = switch();
    switch.wait_for_writing();
    assert_eq!(attach(&mut switch, "a"), Ok(Slot::new(0)));
    for now in 1..50 {
        assert_eq!(switch.poll(Now(now)), []);
        worker.poll(Now(now));
    }
    let generation = switch.snapshot(Now(50)).generation;
    switch.set_written(generation);
    assert_eq!(settle(&mut switch, &mut worker, 50), [Event::SlotAttached(Slot::new(0))]);
}

#[test]
fn a_snapshot_that_names_a_number_twice_is_refused() {
    let mut snapshot = lived();
    let first = snapshot.numbers[0].clone();
    snapshot.numbers.push(first);
    let (mut switch, _worker) = switch();
    assert_eq!(switch.restore(&snapshot, Now(1)), Err(RestoreError::Number(Slot::new(0))));
    assert_eq!(attach(&mut switch, "a"), Ok(Slot::new(0)));
}

/// Advances the time in steps, because the clock of quarantines ignores jumps.
fn pass(switch: &mut Switch, worker: &mut Worker, from: u64, to: u64) {
    for now in (from..to).step_by(1_000_000_000).chain([to]) {
        settle(switch, worker, now);
    }
}

/// The state of a slot, and the name of its user.
fn state(switch: &Switch, slot: u32) -> Option<(SlotState, String)> {
    let views = switch.slots();
    views.into_iter().find(|view| view.slot == Slot::new(slot)).map(|view| (view.state, view.name))
}

#[test]
fn r11_a_former_number_leads_to_its_user_after_a_restart_as_long_as_it_would_have() {
    let (mut switch, mut worker) = switch();
    let alias_ns = switch.config().alias().as_nanos() as u64;
    switch.restore(&lived(), Now(50)).expect("nothing is attached");
    assert_eq!(state(&switch, 3), Some((SlotState::Kept, String::new())));
    assert_eq!(attach(&mut switch, "c"), Ok(Slot::new(5)));
    let why = switch.renumber(Slot::new(5), Some(Slot::new(3)));
    assert_eq!(why, Err(RenumberError::EmptySlot(Slot::new(5))), "it is not there yet");
    settle(&mut switch, &mut worker, 51);
    assert_eq!(state(&switch, 3), Some((SlotState::Retiring, "c".to_owned())));
    // After a restart, the former number keeps its remaining time.
    pass(&mut switch, &mut worker, 51, 50 + alias_ns / 2);
    let snapshot = switch.snapshot(Now(50 + alias_ns / 2));
    let (mut switch, mut worker) = self::switch();
    switch.restore(&snapshot, Now(7)).expect("nothing is attached");
    assert_eq!(attach(&mut switch, "c"), Ok(Slot::new(5)));
    settle(&mut switch, &mut worker, 8);
    pass(&mut switch, &mut worker, 8, 6 + alias_ns / 2);
    assert_eq!(state(&switch, 3), Some((SlotState::Retiring, "c".to_owned())));
    settle(&mut switch, &mut worker, 8 + alias_ns / 2);
    assert_eq!(state(&switch, 3), Some((SlotState::Quarantined, String::new())));
    settle(&mut switch, &mut worker, 9 + alias_ns / 2 + QUARANTINE_NS);
    assert_eq!(state(&switch, 3), None);
    // No other user gets the number of an absent peer before the number's remaining time ends.
    let (mut switch, mut worker) = self::switch();
    switch.restore(&snapshot, Now(7)).expect("nothing is attached");
    let pinned = wish(&mut switch, "d").with_slot(Slot::new(3));
    assert_eq!(switch.attach(pinned), Ok(Slot::new(3)));
    settle(&mut switch, &mut worker, 8);
    let left = switch.opens_in(Slot::new(3)).expect("the slot waits").as_nanos() as u64;
    assert!(left >= alias_ns / 2 - 10 && left <= alias_ns / 2 + QUARANTINE_NS, "{left}");
}

#[test]
fn r11_a_number_that_its_user_is_pinned_away_from_leads_to_it_for_a_while() {
    let (mut switch, mut worker) = switch();
    switch.restore(&lived(), Now(50)).expect("nothing is attached");
    let pinned = wish(&mut switch, "b").with_slot(Slot::new(6));
    assert_eq!(switch.attach(pinned), Ok(Slot::new(6)));
    settle(&mut switch, &mut worker, 51);
    assert_eq!(state(&switch, 6), Some((SlotState::Attached, "b".to_owned())));
    assert_eq!(state(&switch, 2), Some((SlotState::Retiring, "b".to_owned())));
    // `c` returns to its former number. It had this number before, so it need not wait.
    let (mut switch, mut worker) = self::switch();
    switch.restore(&lived(), Now(50)).expect("nothing is attached");
    let pinned = wish(&mut switch, "c").with_slot(Slot::new(3));
    assert_eq!(switch.attach(pinned), Ok(Slot::new(3)));
    let events = settle(&mut switch, &mut worker, 51);
    assert!(events.contains(&Event::SlotAttached(Slot::new(3))), "{events:?}");
    assert_eq!(state(&switch, 5), Some((SlotState::Retiring, "c".to_owned())));
}

#[test]
fn r11_a_former_number_of_an_attach_that_is_refused_leads_nowhere_and_rests() {
    let (mut switch, mut worker) = switch();
    switch.restore(&lived(), Now(50)).expect("nothing is attached");
    // A memory wire has no such address.
    let at = Address::Udp(([127, 0, 0, 1], 1).into());
    let refused = wish(&mut switch, "c").with_address(at);
    assert_eq!(switch.attach(refused), Ok(Slot::new(5)));
    settle(&mut switch, &mut worker, 51);
    for slot in [3, 5] {
        assert_eq!(state(&switch, slot), Some((SlotState::Quarantined, String::new())));
    }
}

#[test]
fn a_number_in_quarantine_is_refused_with_the_time_when_it_is_free() {
    let (mut switch, mut worker) = switch();
    switch.restore(&lived(), Now(50)).expect("nothing is attached");
    assert_eq!(attach(&mut switch, "a"), Ok(Slot::new(0)));
    settle(&mut switch, &mut worker, 51);
    let why = NotFree::Kept;
    for slot in [2, 4] {
        let opens_in = Some(Duration::from_nanos(QUARANTINE_NS - 1));
        let refused = AttachError::SlotNotFree { slot: Slot::new(slot), why, opens_in };
        assert_eq!(
            switch.renumber(Slot::new(0), Some(Slot::new(slot))),
            Err(RenumberError::Number(refused))
        );
    }
    let events = settle(&mut switch, &mut worker, 50 + QUARANTINE_NS);
    assert_eq!(events, [Event::SlotFree(Slot::new(4))], "no renumbering completes later");
    // The user of number 2 has not returned, and the number's quarantine has ended.
    assert_eq!(switch.renumber(Slot::new(0), Some(Slot::new(2))), Ok(Slot::new(2)));
    let events = settle(&mut switch, &mut worker, 51 + QUARANTINE_NS);
    assert_eq!(events, [Event::SlotMoved(Slot::new(0), Slot::new(2))]);
    // The former number 0 still leads to the user. A request for that number is refused as former.
    let refused = switch.renumber(Slot::new(2), Some(Slot::new(0)));
    let why = NotFree::Former;
    let Err(RenumberError::Number(AttachError::SlotNotFree { why: reason, opens_in, .. })) =
        refused
    else {
        panic!("{refused:?}")
    };
    assert!(
        reason == why && opens_in.is_some_and(|time| time <= switch.config().alias()),
        "{opens_in:?}"
    );
}

/// A snapshot in which all numbers are kept for peers that are not configured. Older state files do
/// not mark unknown peers (`unknown` is `false`).
fn crowded(unknown: bool) -> Snapshot {
    let numbers = [0, 2, 3, 4, 5, 6].map(|slot| Kept {
        slot: Slot::new(slot),
        who: Some(Who::Key([slot as u8; 32])),
        rests_ns: QUARANTINE_NS,
        unknown,
    });
    Snapshot {
        scheme: *SwitchConfig::default().scheme(),
        generation: 99,
        numbers: numbers.into(),
        former: Vec::new(),
        stamps_until: 0,
    }
}

#[test]
fn a_start_succeeds_although_numbers_are_kept_for_others() {
    for unknown in [false, true] {
        let (mut switch, mut worker) = switch();
        switch.restore(&crowded(unknown), Now(50)).expect("nothing is attached");
        let known = wish(&mut switch, "known").with_key([3; 32]);
        assert_eq!(switch.attach(known), Ok(Slot::new(3)), "the user's own number");
        // There are more peers than before. Each gets a number, and waits until labels that name
        // the number's last user have expired.
        let slots: Vec<Slot> =
            (0..5).map(|n| attach(&mut switch, &format!("new {n}")).expect("a number")).collect();
        assert_eq!(slots, [0, 2, 4, 5, 6].map(Slot::new));
        let events = settle(&mut switch, &mut worker, 51);
        assert_eq!(events, [Event::SlotAttached(Slot::new(3))]);
        assert_eq!(switch.opens_in(Slot::new(0)), Some(Duration::from_nanos(QUARANTINE_NS - 1)));
        let events = settle(&mut switch, &mut worker, 50 + QUARANTINE_NS);
        let attached: Vec<Event> = slots.into_iter().map(Event::SlotAttached).collect();
        assert_eq!(events, attached);
    }
}
