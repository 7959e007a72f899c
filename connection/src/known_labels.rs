//! The return labels of packets that connections opened recently (wire.md W6-188).

use std::collections::{HashMap, VecDeque};

use strowger_crypto::Nanos;
use strowger_wire::label::AnyLabel;

use crate::heap::{deque_bytes, map_bytes};
use crate::limits::{KNOWN_LABEL_TIME, KNOWN_LABELS_KEPT_MAX};

/// Labels that connections use now, or used recently.
#[derive(Debug, Default)]
pub(crate) struct KnownLabels {
    /// For each label: how many connections use it now, and when it expires if no connection uses
    /// it.
    labels: HashMap<AnyLabel, Known>,
    /// Labels that connections have stopped using, oldest first.
    left: VecDeque<(Nanos, AnyLabel)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    users: u32,
    until: Nanos,
}

impl KnownLabels {
    /// Notes that a connection uses this label.
    pub(crate) fn enter(&mut self, label: AnyLabel) {
        self.labels.entry(label).or_default().users += 1;
    }

    /// Notes that a connection has stopped using this label, which stays known for a time.
    pub(crate) fn leave(&mut self, now: Nanos, label: &AnyLabel) {
        let Some(known) = self.labels.get_mut(label) else { return };
        known.users = known.users.saturating_sub(1);
        known.until = now.plus(KNOWN_LABEL_TIME);
        self.left.push_back((known.until, *label));
        while self.left.len() > KNOWN_LABELS_KEPT_MAX
            || self.left.front().is_some_and(|(until, _)| *until <= now)
        {
            let Some((until, label)) = self.left.pop_front() else { break };
            // The label may be in use again, or may have a later expiry.
            if self.labels.get(&label).is_some_and(|k| k.users == 0 && k.until == until) {
                self.labels.remove(&label);
            }
        }
    }

    /// Whether a connection recently received a packet by this label.
    pub(crate) fn contains(&self, now: Nanos, label: &AnyLabel) -> bool {
        self.labels.get(label).is_some_and(|known| known.users > 0 || now < known.until)
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        map_bytes(&self.labels) + deque_bytes(&self.left)
    }
}

#[cfg(test)]
mod tests {
    use strowger_wire::Label;

    use super::*;

    fn label(number: u64) -> AnyLabel {
        AnyLabel::W64(Label::new(number))
    }

    /// wire.md: W6-188.
    #[test]
    fn a_label_is_known_for_180_seconds_after_its_last_connection() {
        let mut known = KnownLabels::default();
        let (one, second) = (label(1), Nanos::from_secs);
        assert!(!known.contains(second(1), &one));
        known.enter(one);
        known.enter(one);
        known.leave(second(10), &one);
        assert!(known.contains(second(1_000), &one), "another connection uses it");
        known.leave(second(1_000), &one);
        assert!(known.contains(second(1_179), &one) && !known.contains(second(1_180), &one));
        known.enter(one);
        assert!(known.contains(second(2_000), &one));
    }

    #[test]
    fn the_memory_for_former_labels_is_bounded() {
        let mut known = KnownLabels::default();
        for number in 0..10_000 {
            known.enter(label(number));
            known.leave(Nanos(number), &label(number));
        }
        assert_eq!(
            (known.labels.len(), known.left.len()),
            (KNOWN_LABELS_KEPT_MAX, KNOWN_LABELS_KEPT_MAX)
        );
        assert!(known.contains(Nanos(10_000), &label(9_999)));
        assert!(!known.contains(Nanos(10_000), &label(0)));
        known.enter(label(7));
        known.leave(Nanos::from_secs(200), &label(7));
        assert_eq!((known.labels.len(), known.left.len()), (1, 1), "the others are forgotten");
        // A label that is used and left repeatedly has one entry in the map.
        for turn in 0..10_000 {
            known.enter(label(7));
            known.leave(Nanos::from_secs(200).plus(Nanos(turn)), &label(7));
        }
        assert_eq!(known.labels.len(), 1);
        assert!(known.contains(Nanos::from_secs(300), &label(7)));
    }
}
