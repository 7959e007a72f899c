//! What came true in a relay, in order: the slow path writes, clients of the control socket read, each
//! at its own pace. It keeps a fixed number of entries of each kind, so that none displaces another, and never
//! makes the writer wait for a reader.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use strowger_io::DoorbellWaker;

use crate::limits::{JOURNAL_ENTRIES_EACH, JOURNAL_TEXT_BYTES_MAX};
use strowger_runtime::untrusted::Untrusted;

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Counted from 0.
    pub(crate) number: u64,
    /// When, since the relay began.
    pub(crate) at: Duration,
    /// Its name: `link_up`, `slot_attached`.
    pub(crate) event: &'static str,
    /// The slot that it is about.
    pub(crate) slot: Option<u32>,
    /// What people call the slot's user.
    pub(crate) name: String,
    /// What else is to be said: an address, a reason.
    pub(crate) detail: Option<String>,
}

/// What a reader gets.
#[derive(Debug)]
pub(crate) struct Read {
    /// In order of their numbers.
    pub(crate) entries: Vec<Entry>,
    /// How many entries between those asked for are kept no more.
    pub(crate) missed: u64,
    /// Where to read on.
    pub(crate) next: u64,
}

#[derive(Debug, Default)]
struct Kept {
    /// By number.
    entries: BTreeMap<u64, Entry>,
    /// By name: the numbers of those that are kept, oldest first. There are as many as the code has names.
    kinds: HashMap<&'static str, VecDeque<u64>>,
    /// The number of the next one.
    next: u64,
    waker: Option<DoorbellWaker>,
}

/// The journal, as either side holds it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Arc<Mutex<Kept>>);

impl Journal {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing here can be left half done, so a panic elsewhere is no reason to stop.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom to wake for a new entry.
    pub(crate) fn set_waker(&self, waker: DoorbellWaker) {
        self.kept().waker = Some(waker);
    }

    /// Writes an entry down; its number is given here. What others have said in it is escaped from here on.
    /// The oldest of its kind makes room.
    pub(crate) fn write(&self, entry: Entry) {
        let mut kept = self.kept();
        let number = kept.next;
        kept.next += 1;
        let kind = kept.kinds.entry(entry.event).or_default();
        let oldest = if kind.len() >= JOURNAL_ENTRIES_EACH { kind.pop_front() } else { None };
        kind.push_back(number);
        if let Some(oldest) = oldest {
            kept.entries.remove(&oldest);
        }
        let shown = |text: String| Untrusted(&text).up_to(JOURNAL_TEXT_BYTES_MAX);
        let (name, detail) = (shown(entry.name), entry.detail.map(shown));
        kept.entries.insert(number, Entry { number, name, detail, ..entry });
        if let Some(waker) = &kept.waker {
            waker.wake();
        }
    }

    /// Whether there is anything from this number on.
    pub(crate) fn has_more(&self, from: u64) -> bool {
        self.kept().next > from
    }

    /// Up to `max` entries from this number on.
    pub(crate) fn read(&self, from: u64, max: usize) -> Read {
        let kept = self.kept();
        let entries: Vec<Entry> =
            kept.entries.range(from..).take(max).map(|(_, entry)| entry.clone()).collect();
        // Up to the last that is given, or all that there ever were.
        let next = match entries.last() {
            Some(last) if entries.len() == max => last.number + 1,
            _ => kept.next.max(from),
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
        Entry { number: 0, at, event, slot: Some(2), name, detail: None }
    }

    #[test]
    fn a_slow_reader_misses_the_oldest_and_is_told_how_many() {
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
    fn what_others_say_is_escaped_and_cut_before_anybody_reads_it() {
        let journal = Journal::default();
        let detail = format!("\u{1b}[2J\r\nlink_up slot 9\u{202e}{}", "x".repeat(10_000));
        journal.write(Entry {
            detail: Some(detail),
            name: "\u{9b}".to_owned(),
            ..entry("goodbye")
        });
        let entry = journal.read(0, 1).entries.remove(0);
        assert_eq!(entry.name, "\\u{9b}");
        let detail = entry.detail.expect("it has one");
        assert!(detail.starts_with("\\u{1b}[2J\\u{d}\\u{a}link_up slot 9\\u{202e}xx"), "{detail}");
        assert!(detail.len() <= JOURNAL_TEXT_BYTES_MAX);
    }
}
