//! Copies to the paths what the data path has noted about packets.
//!
//! If the active label is validated, the data path handles packets without calling the paths. When
//! the paths are polled, they copy what the data path noted.

use strowger_crypto::Nanos;
use strowger_wire::label::AnyLabel;

use super::{Along, PathSet};
use crate::heap::Maybe;
use crate::limits::LENGTH_IN_USE;

/// The times that the data path has noted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted {
    /// The time of the first packet to which an answer is due; `None` if no answer is due.
    pub(crate) due: Option<Nanos>,
    /// The time at which a message was last delivered.
    pub(crate) heard: Nanos,
    /// The time at which a message was last sent; `None` if never.
    pub(crate) message_sent: Option<Nanos>,
    /// The time at which a long message was last sent; `None` if never.
    pub(crate) long_sent: Option<Nanos>,
}

impl PathSet {
    /// Copies what the data path has noted.
    pub(crate) fn sync(&mut self, now: Nanos, noted: &Noted) {
        self.due = noted.due.filter(|_| !self.is_gone).into();
        self.heard = self.heard.max(noted.heard);
        // A message that was sent long ago starts no search for the length.
        let is_recent = |at: &Nanos| now.since(*at) <= LENGTH_IN_USE;
        let sent = self.message_sent.get().max(noted.message_sent).filter(is_recent);
        self.message_sent = sent.into();
        self.long_sent = self.long_sent.get().max(noted.long_sent).into();
        if let Some(index) = self.active {
            let entry = &mut self.entries[index];
            entry.sent = entry.sent.get().max(sent).into();
        }
    }

    /// Whether packets may go along the active path without a count of their bytes.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_gone && self.active_entry().is_some_and(|entry| entry.is_open)
    }

    /// Whether [`note_opened`](PathSet::note_opened) must be called for every packet: bytes of a
    /// label are counted, or the peer is gone.
    pub(crate) fn needs_packets(&self) -> bool {
        self.is_gone || self.entries.iter().any(|entry| !entry.is_open)
    }

    /// Notes that a handshake message went along a label, so that errors about the message count.
    pub(crate) fn note_handshake_sent(&mut self, now: Nanos, label: &AnyLabel) {
        if let Some(index) = self.find(label) {
            self.entries[index].sent = Maybe::some(now);
        }
    }

    /// The header fields of packets along a label, if the label is known.
    pub(crate) fn along(&self, label: &AnyLabel) -> Option<&Along> {
        self.find(label).map(|index| &self.entries[index].along)
    }

    /// Frees memory of actions that were taken.
    pub(crate) fn shrink(&mut self) {
        self.pings.shrink();
        if self.actions.is_empty() {
            self.actions = std::collections::VecDeque::new();
        }
    }
}
