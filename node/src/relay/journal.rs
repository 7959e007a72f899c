//! The recent events of a relay, in order. Clients of the control socket read them, each at its own
//! pace. A slow reader does not delay the writer. The journal keeps up to a fixed number of entries
//! of each kind, so no kind displaces another.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use strowger_io::DoorbellWaker;

use crate::limits::{JOURNAL_ENTRIES_EACH, JOURNAL_TEXT_BYTES_MAX};
use strowger_runtime::untrusted::Untrusted;
use strowger_wire::Slot;

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The number of the event, counted from 0.
    pub(crate) number: u64,
    /// The time from the start of the relay to the event.
    pub(crate) at: Duration,
    /// The name of the event, for example `link_up` or `slot_attached`.
    pub(crate) event: &'static str,
    /// The slot that the event is about; `None` if it is about no slot.
    pub(crate) slot: Option<Slot>,
    /// The name of the slot's user, or of its former user. Empty if the event is about no slot.
    pub(crate) name: String,
    /// The details of the event, for example an address or a reason; `None` if there are none.
    pub(crate) detail: Option<String>,
}

/// The result of [`Journal::read`].
#[derive(Debug)]
pub(crate) struct Read {
    /// The entries, in the order of their numbers.
    pub(crate) entries: Vec<Entry>,
    /// The number of entries in the requested range that the journal no longer has.
    pub(crate) missed: u64,
    /// The number from which the next read continues.
    pub(crate) next: u64,
}

#[derive(Debug, Default)]
struct State {
    /// The entries by number.
    entries: BTreeMap<u64, Entry>,
    /// The numbers of the entries by the name of their event, oldest first. The set of names is
    /// fixed, so the map is bounded.
    kinds: HashMap<&'static str, VecDeque<u64>>,
    /// The number of the next entry.
    next: u64,
    waker: Option<DoorbellWaker>,
}

/// The journal. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Arc<Mutex<State>>);

impl Journal {
    fn state(&self) -> MutexGuard<'_, State> {
        // Ignore poisoning: no code leaves the state incomplete.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the waker that new entries wake.
    pub(crate) fn set_waker(&self, waker: DoorbellWaker) {
        self.state().waker = Some(waker);
    }

    /// Adds an entry and assigns its number. Untrusted text in the entry is escaped. If there are
    /// too many entries of its kind, the oldest of them is removed.
    pub(crate) fn write(&self, entry: Entry) {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let kind = state.kinds.entry(entry.event).or_default();
        let oldest = if kind.len() >= JOURNAL_ENTRIES_EACH { kind.pop_front() } else { None };
        kind.push_back(number);
        if let Some(oldest) = oldest {
            state.entries.remove(&oldest);
        }
        let shown = |text: String| Untrusted(&text).up_to(JOURNAL_TEXT_BYTES_MAX);
        let (name, detail) = (shown(entry.name), entry.detail.map(shown));
        state.entries.insert(number, Entry { number, name, detail, ..entry });
        if let Some(waker) = &state.waker {
            waker.wake();
        }
    }

    /// Whether an entry with this number or a higher one was written.
    pub(crate) fn has_more(&self, from: u64) -> bool {
        self.state().next > from
    }

    /// Returns up to `max` entries, from this number on.
    pub(crate) fn read(&self, from: u64, max: usize) -> Read {
        let state = self.state();
        let entries: Vec<Entry> =
            state.entries.range(from..).take(max).map(|(_, entry)| entry.clone()).collect();
        // If the result is full, the next read continues after its last entry, otherwise after all
        // entries.
        let next = match entries.last() {
            Some(last) if entries.len() == max => last.number + 1,
            _ => state.next.max(from),
        };
        let missed = (next - from).saturating_sub(entries.len() as u64);
        Read { entries, missed, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(event: &'static str) -> Entry {
        let (at, name) = (Duration::ZERO, String::new());
        Entry { number: 0, at, event, slot: Some(Slot::new(2)), name, detail: None }
    }

    #[test]
    fn a_slow_reader_misses_the_oldest_and_learns_how_many() {
        let journal = Journal::default();
        assert!(!journal.has_more(0));
        let all = JOURNAL_ENTRIES_EACH as u64 + 10;
        (0..all).for_each(|_| journal.write(entry("link_up")));
        let Read { entries, missed, next } = journal.read(3, 5);
        let numbers: Vec<u64> = entries.iter().map(|entry| entry.number).collect();
        assert_eq!((missed, numbers, next), (7, vec![10, 11, 12, 13, 14], 15));
        let Read { entries, missed, next } = journal.read(all - 1, 5);
        assert_eq!((entries.len(), missed, next), (1, 0, all));
        assert!(!journal.has_more(all) && journal.read(all, 5).entries.is_empty());
    }

    #[test]
    fn no_kind_of_event_displaces_another() {
        let journal = Journal::default();
        journal.write(entry("link_down"));
        for kind in ["slot_moved_away", "alias_used", "goodbye"] {
            (0..100_000).for_each(|_| journal.write(entry(kind)));
        }
        journal.write(entry("link_up"));
        let Read { entries, missed, next } = journal.read(0, usize::MAX);
        assert_eq!(entries.len(), 2 + 3 * JOURNAL_ENTRIES_EACH);
        assert_eq!((entries[0].event, entries[0].number), ("link_down", 0));
        assert_eq!(entries.last().map(|last| last.event), Some("link_up"));
        assert_eq!((missed + entries.len() as u64, next), (300_002, 300_002));
        assert!(entries.is_sorted_by_key(|entry| entry.number));
    }

    #[test]
    fn text_of_others_is_escaped_and_cut() {
        let journal = Journal::default();
        let detail = format!("\u{1b}[2J\r\nlink_up slot 9\u{202e}{}", "x".repeat(10_000));
        journal.write(Entry {
            detail: Some(detail),
            name: "\u{9b}".to_owned(),
            ..entry("goodbye")
        });
        let entry = journal.read(0, 1).entries.remove(0);
        assert_eq!(entry.name, "\\u{9b}");
        let detail = entry.detail.expect("an entry with a detail");
        assert!(detail.starts_with("\\u{1b}[2J\\u{d}\\u{a}link_up slot 9\\u{202e}xx"), "{detail}");
        assert!(detail.len() <= JOURNAL_TEXT_BYTES_MAX);
    }
}
