//! Updates the facts about the switch that unix ports send in their greetings (wire.md 8.3).

use std::sync::Arc;

use strowger_engine::control::{Event as SwitchEvent, PortId, SlotState, Switch};
use strowger_io::unix::SwitchFacts;

/// The facts of each unix port. A worker reads them to build the greeting when a process requests
/// the second message form (wire.md 8.3).
#[derive(Debug, Default)]
pub(crate) struct UnixFacts {
    ports: Vec<(PortId, Arc<SwitchFacts>)>,
    /// The switch's count of allocations at the last update.
    generation: u64,
}

impl UnixFacts {
    pub(crate) fn add(&mut self, port: PortId, facts: Arc<SwitchFacts>) {
        self.ports.push((port, facts));
    }

    /// Sets the slot of each port, and the scheme.
    pub(crate) fn set(&mut self, switch: &Switch) {
        self.generation = switch.generation();
        if self.ports.is_empty() {
            return;
        }
        let slots = switch.slots();
        let scheme = switch.config().scheme().serialize();
        for (port, facts) in &self.ports {
            let of_port = || slots.iter().filter(|slot| slot.port == Some(*port));
            // After a change of the number, the former number still leads to the port for a while.
            let is_lasting = |state| {
                matches!(state, SlotState::Coming | SlotState::Attached | SlotState::Draining)
            };
            let slot = of_port().find(|slot| is_lasting(slot.state));
            facts.set_slot(slot.map_or(0, |slot| slot.slot.number()));
            facts.set_scheme(scheme.as_bytes());
        }
    }

    /// Sets slots and scheme if these events, or an allocation since the last update, can have
    /// changed them.
    pub(crate) fn follow(&mut self, switch: &Switch, events: &[SwitchEvent]) {
        let changes = |event: &SwitchEvent| {
            matches!(
                event,
                SwitchEvent::SlotMoved(..)
                    | SwitchEvent::SlotDetached(_)
                    | SwitchEvent::SchemeGrown
            )
        };
        if switch.generation() != self.generation || events.iter().any(changes) {
            self.set(switch);
        }
    }
}
