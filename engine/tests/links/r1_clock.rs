//! R1 with jumps of the clock: no jump ends a quarantine early. The test runs in virtual time.

use strowger_engine::{Now, control::SlotState};
use strowger_testkit::sim::{Node, NodeSpec, SECOND};
use strowger_wire::Slot;

fn poll(node: &mut Node, now: u64) {
    (0..8).for_each(|_| node.poll(Now(now)));
}

fn rests(node: &Node, slot: u32) -> bool {
    let views = node.switch.slots();
    views.iter().any(|view| view.slot == Slot::new(slot) && view.state == SlotState::Quarantined)
}

#[test]
fn r1_a_clock_that_leaps_ends_no_quarantine_early() {
    let quarantine = NodeSpec::new(1).config.quarantine().as_nanos() as u64;
    assert!(quarantine >= 60 * SECOND);
    for leap in [10 * quarantine, 1 << 50, u64::MAX - 100 * quarantine] {
        let mut node = Node::without_port(&NodeSpec::new(1), Now(SECOND));
        let (slot, _endpoint) = node.add_endpoint();
        let mut now = 2 * SECOND;
        poll(&mut node, now);
        node.switch.detach(Slot::new(slot)).expect("the slot is there");
        poll(&mut node, now);
        // The clock jumps forward, back, and forward again. Each jump counts for at most five
        // seconds.
        for to in [now + leap, now, now + leap] {
            now = to;
            poll(&mut node, now);
            assert!(rests(&node, slot), "{leap}");
        }
        let kept = node.switch.snapshot(Now(now + quarantine));
        let left =
            kept.numbers.iter().find(|kept| kept.slot == Slot::new(slot)).expect("kept").rests_ns;
        assert!(left >= quarantine - 20 * SECOND, "the saved state has less time: {left}");
        // The quarantine ends.
        let mut seconds = 0;
        while rests(&node, slot) {
            (seconds, now) = (seconds + 1, now + SECOND);
            poll(&mut node, now);
            assert!(seconds <= quarantine / SECOND);
        }
        assert!(seconds >= quarantine / SECOND - 20, "{seconds} s");
    }
}
