//! Records, on a wildcard socket, the local address to which each sender last sent, so that a reply
//! has that address as its source. The table has a fixed size. During a flood, entries are
//! overwritten. A reply without an entry has the source address that the route selects.

use std::hash::{BuildHasher, RandomState};

use arrayvec::ArrayVec;
use strowger_frame::{BURST_MAX, Frame};

use super::{control::Source, limits::SOURCES_KEPT, name::Key};

/// The local addresses, by sender and by frame.
#[derive(Debug)]
pub(super) struct Sources {
    /// Entries by a hash of the sender. The hash is keyed, because unknown senders fill the table.
    /// A newer entry replaces an older one.
    of_senders: Box<[Option<(Key, Source)>]>,
    hasher: RandomState,
    /// The datagrams of this burst: start address, length, and the local address to which each was
    /// sent.
    of_burst: ArrayVec<(usize, usize, Source), { BURST_MAX + 1 }>,
}

const _: () = assert!(SOURCES_KEPT.is_power_of_two());

impl Sources {
    pub(super) fn new() -> Self {
        Self {
            of_senders: vec![None; SOURCES_KEPT].into(),
            hasher: RandomState::new(),
            of_burst: ArrayVec::new(),
        }
    }

    /// Begins a new burst. The entry of a datagram that is still being cut is kept.
    pub(super) fn begin(&mut self, is_cutting: bool) {
        let last = self.of_burst.pop().filter(|_| is_cutting);
        self.of_burst.clear();
        self.of_burst.extend(last);
    }

    fn slot(&self, key: &Key) -> usize {
        self.hasher.hash_one(key) as usize & (SOURCES_KEPT - 1)
    }

    /// Records the local address to which a datagram from `from` was sent. The bytes of the
    /// datagram are at `at`.
    pub(super) fn note(&mut self, from: Key, source: Source, at: usize, bytes: usize) {
        let slot = self.slot(&from);
        self.of_senders[slot] = Some((from, source));
        if self.of_burst.is_full() {
            self.of_burst.remove(0);
        }
        self.of_burst.push((at, bytes, source));
    }

    /// The local address to which the last datagram from this address was sent.
    pub(super) fn of(&self, from: &Key) -> Option<Source> {
        let (known, source) = self.of_senders[self.slot(from)]?;
        (known == *from).then_some(source)
    }

    /// The local address to which this frame of the burst was sent.
    pub(super) fn of_frame(&self, frame: &Frame) -> Option<Source> {
        // A frame that was decrypted in place begins after the start of its datagram.
        let begin = frame.bytes().as_ptr().addr();
        let found = self.of_burst.iter().find(|(at, bytes, _)| (*at..at + bytes).contains(&begin));
        found.map(|(_, _, source)| *source)
    }
}
