//! Changes that clients of the control socket requested. Each client gets a response when an event
//! completes its change or makes it impossible.

use std::sync::mpsc::SyncSender;

use strowger_engine::control::Event;
use strowger_wire::{Scheme, Slot};

use crate::{limits::CHANGES_MAX, relay::control::Response};

/// A change that is not complete yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The change is complete when every worker's table has the slot.
    Attach(Slot),
    /// The change is complete when no worker's table has the slot.
    Detach(Slot),
    /// The change is complete when every worker writes `to` into return paths. From then on, `from`
    /// is an alias.
    Renumber { from: Slot, to: Slot, alias_s: u64, narrow_bits: Vec<u8> },
    /// The change is complete when every worker uses this scheme.
    Grow { scheme: Box<Scheme>, slot_max: u32 },
}

impl Change {
    /// The response to the client, if this event ends the change.
    fn response_to(&self, event: &Event) -> Option<Response> {
        let is_gone = |slot| match *event {
            Event::SlotDetached(it) | Event::AttachRefused(it, _) => it == slot,
            _ => false,
        };
        match (self, event) {
            (&Self::Attach(slot), &Event::SlotAttached(it)) if it == slot => {
                Some(Response::Attached(slot, None))
            }
            (&Self::Attach(slot), Event::AttachRefused(it, why)) if *it == slot => {
                Some(Response::Declined(why.to_string()))
            }
            (&Self::Detach(slot), _) if is_gone(slot) => Some(Response::Detached(slot)),
            (Self::Renumber { from, to, alias_s, narrow_bits }, &Event::SlotMoved(was, is))
                if (was, is) == (*from, *to) =>
            {
                let (from, to, alias_s) = (*from, *to, *alias_s);
                Some(Response::Renumbered { from, to, alias_s, narrow_bits: narrow_bits.clone() })
            }
            (&(Self::Attach(slot) | Self::Renumber { to: slot, .. }), _) if is_gone(slot) => {
                Some(gone(slot))
            }
            (&Self::Renumber { from, .. }, _) if is_gone(from) => Some(gone(from)),
            (Self::Grow { scheme, slot_max }, Event::SchemeGrown) => {
                Some(Response::Grown(scheme.clone(), *slot_max))
            }
            _ => None,
        }
    }
}

/// The widths, in bits, of the forms that can encode `from` but not `to`.
pub(super) fn narrow_bits(scheme: &Scheme, from: Slot, to: Slot) -> Vec<u8> {
    let fits = |slot: Slot, form: u8| scheme.encode_in(slot, form).is_ok();
    let forms = (0_u8..).zip(scheme.forms());
    forms.filter(|&(form, _)| fits(from, form) && !fits(to, form)).map(|(_, f)| f.width()).collect()
}

fn gone(slot: Slot) -> Response {
    Response::Declined(format!("slot {slot} was detached meanwhile"))
}

/// The pending changes with their clients, in the order of the requests.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<(Change, SyncSender<Response>)>);

impl Changes {
    /// Adds a change. The client gets its response when the change is complete. If there are too
    /// many changes, the oldest is removed and its client gets a refusal.
    pub(super) fn add(&mut self, change: Change, client: SyncSender<Response>) {
        if self.0.len() >= CHANGES_MAX {
            let (_, first) = self.0.remove(0);
            let why = "too many changes are pending; `strowger show slots` shows the result";
            let _ = first.try_send(Response::Declined(why.to_owned()));
        }
        self.0.push((change, client));
    }

    /// Responds to all waiting clients. The response states that the result is unknown.
    pub(super) fn give_up(&mut self) {
        for (_, client) in self.0.drain(..) {
            let why = "the slow path restarted meanwhile; `strowger show slots` shows the result";
            let _ = client.try_send(Response::Declined(why.to_owned()));
        }
    }

    /// Responds to the clients whose change this event ends.
    pub(super) fn take(&mut self, event: &Event) {
        let waits = |(change, _): &(Change, _)| change.response_to(event).is_some();
        // Scheme changes are made one after the other, so the event belongs to the oldest request.
        while let Some(at) = self.0.iter().position(waits) {
            let (change, client) = self.0.remove(at);
            if let Some(answer) = change.response_to(event) {
                // The send fails if the client no longer waits and has dropped its receiver.
                let _ = client.try_send(answer);
            }
            if matches!(event, Event::SchemeGrown) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use strowger_wire::scheme::{F4, F8, V3X5X8};

    use super::*;

    fn waiting(changes: &mut Changes, change: Change) -> Receiver<Response> {
        let (client, answers) = sync_channel(1);
        changes.add(change, client);
        answers
    }

    #[test]
    fn the_number_of_waiting_clients_is_bounded() {
        let mut changes = Changes::default();
        let mut first = Some(waiting(&mut changes, Change::Detach(Slot::new(0))));
        for slot in 1..10 * CHANGES_MAX as u32 {
            let _ = waiting(&mut changes, Change::Detach(Slot::new(slot)));
            if slot as usize >= CHANGES_MAX
                && let Some(first) = first.take()
            {
                assert!(matches!(first.try_recv(), Ok(Response::Declined(_))));
            }
        }
        assert!(first.is_none() && changes.0.len() == CHANGES_MAX);
    }

    #[test]
    fn widths_that_only_the_former_number_fits_are_found() {
        assert!(narrow_bits(&V3X5X8, Slot::new(2), Slot::new(7)).is_empty());
        assert_eq!(narrow_bits(&V3X5X8, Slot::new(7), Slot::new(9)), [4]);
        assert_eq!(narrow_bits(&V3X5X8, Slot::new(7), Slot::new(99)), [4, 7]);
        assert!(narrow_bits(&V3X5X8, Slot::new(99), Slot::new(7)).is_empty());
    }

    #[test]
    fn each_client_is_answered_for_its_own_change() {
        let mut changes = Changes::default();
        let attached = waiting(&mut changes, Change::Attach(Slot::new(5)));
        let detached = waiting(&mut changes, Change::Detach(Slot::new(6)));
        let renumber = |from, to| Change::Renumber { from, to, alias_s: 1, narrow_bits: vec![4] };
        let moved = waiting(&mut changes, renumber(Slot::new(7), Slot::new(9)));
        let never = waiting(&mut changes, renumber(Slot::new(8), Slot::new(10)));
        let grown = [(Box::new(F4), 15), (Box::new(F8), 255)]
            .map(|(scheme, slot_max)| waiting(&mut changes, Change::Grow { scheme, slot_max }));
        changes.take(&Event::SlotDetached(Slot::new(6)));
        changes.take(&Event::SlotMoved(Slot::new(7), Slot::new(11)));
        assert!(moved.try_recv().is_err(), "not that number");
        for event in [
            Event::SlotAttached(Slot::new(5)),
            Event::SlotMoved(Slot::new(7), Slot::new(9)),
            Event::SlotDetached(Slot::new(10)),
        ] {
            changes.take(&event);
        }
        assert!(
            matches!(attached.try_recv(), Ok(Response::Attached(slot, None)) if slot.number() == 5)
        );
        assert!(matches!(detached.try_recv(), Ok(Response::Detached(slot)) if slot.number() == 6));
        assert!(
            matches!(moved.try_recv(), Ok(Response::Renumbered { to, .. }) if to.number() == 9)
        );
        assert!(matches!(never.try_recv(), Ok(Response::Declined(_))));
        changes.take(&Event::SchemeGrown);
        assert!(
            matches!(grown[0].try_recv(), Ok(Response::Grown(_, 15)))
                && grown[1].try_recv().is_err()
        );
        changes.take(&Event::SchemeGrown);
        assert!(matches!(grown[1].try_recv(), Ok(Response::Grown(_, 255))));
        assert!(changes.0.is_empty());
        let left = waiting(&mut changes, Change::Attach(Slot::new(5)));
        changes.give_up();
        assert!(matches!(left.try_recv(), Ok(Response::Declined(_))) && changes.0.is_empty());
    }
}
