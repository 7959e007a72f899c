//! What came true in a relay, in order: the slow path writes, clients of the control socket read, each
//! at its own pace. It keeps a fixed number of entries and never makes the writer wait for a reader.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use strowger_io::Ringer;

/// Entries that are kept: a client that is further behind is told how many it missed.
const ENTRIES_MAX: usize = 1_024;

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Counted from 0.
    pub(crate) number: u64,
    /// When, since the relay began.
    pub(crate) at: Duration,
    /// Its name: `link_up`, `slot_attached`.
    pub(crate) what: &'static str,
    /// The slot that it is about.
    pub(crate) slot: Option<u32>,
    /// What people call the slot's user.
    pub(crate) name: String,
    /// What else is to be said: an address, a reason.
    pub(crate) detail: Option<String>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<Entry>,
    /// The number of the next one.
    next: u64,
    ringer: Option<Ringer>,
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
    pub(crate) fn set_ringer(&self, ringer: Ringer) {
        self.kept().ringer = Some(ringer);
    }

    /// Writes an entry down; its number is given here.
    pub(crate) fn write(&self, entry: Entry) {
        let mut kept = self.kept();
        if kept.entries.len() == ENTRIES_MAX {
            kept.entries.pop_front();
        }
        let number = kept.next;
        kept.next += 1;
        kept.entries.push_back(Entry { number, ..entry });
        if let Some(ringer) = &kept.ringer {
            ringer.ring();
        }
    }

    /// Whether there is anything from this number on.
    pub(crate) fn has_more(&self, from: u64) -> bool {
        self.kept().next > from
    }

    /// Up to `max` entries from this number on, and how many of those asked for are kept no more.
    pub(crate) fn read(&self, from: u64, max: usize) -> (u64, Vec<Entry>) {
        let kept = self.kept();
        let oldest = kept.next - kept.entries.len() as u64;
        let missed = oldest.saturating_sub(from);
        let skip = from.saturating_sub(oldest) as usize;
        (missed, kept.entries.iter().skip(skip).take(max).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let (at, what, name) = (Duration::ZERO, "link_up", String::new());
        Entry { number: 0, at, what, slot: Some(2), name, detail: None }
    }

    #[test]
    fn a_slow_reader_misses_the_oldest_and_is_told_how_many() {
        let journal = Journal::default();
        assert!(!journal.has_more(0));
        for _ in 0..ENTRIES_MAX + 10 {
            journal.write(entry());
        }
        let (missed, entries) = journal.read(3, 5);
        assert_eq!(missed, 7);
        let numbers: Vec<u64> = entries.iter().map(|entry| entry.number).collect();
        assert_eq!(numbers, [10, 11, 12, 13, 14]);
        let (missed, entries) = journal.read(ENTRIES_MAX as u64 + 9, 5);
        assert_eq!((missed, entries.len()), (0, 1));
        assert!(!journal.has_more(ENTRIES_MAX as u64 + 10));
    }
}
