//! To which address of ours each sender sent last: kept where a socket is bound to all of them, so that
//! an answer goes out from the address that was asked. It is bounded, and forgets under a flood: an
//! answer then goes out from the address that the route names.

use std::hash::{BuildHasher, RandomState};

use arrayvec::ArrayVec;
use strowger_frame::{BURST_MAX, Frame};

use super::{control::Source, limits::SOURCES_KEPT, name::Key};

/// What was heard where.
#[derive(Debug)]
pub(super) struct Sources {
    /// By a keyed hash of the sender, since senders are anybody: a newer one displaces.
    of_senders: Box<[Option<(Key, Source)>]>,
    hasher: RandomState,
    /// The memory of this burst's datagrams: first byte, bytes, and where they were sent to.
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

    /// A new burst begins; the datagram that was being cut, if any, goes on.
    pub(super) fn begin(&mut self, is_cutting: bool) {
        let last = self.of_burst.pop().filter(|_| is_cutting);
        self.of_burst.clear();
        self.of_burst.extend(last);
    }

    fn slot(&self, key: &Key) -> usize {
        self.hasher.hash_one(key) as usize & (SOURCES_KEPT - 1)
    }

    /// A datagram came from `from`, and its bytes lie at `at`.
    pub(super) fn note(&mut self, from: Key, source: Source, at: usize, bytes: usize) {
        let slot = self.slot(&from);
        self.of_senders[slot] = Some((from, source));
        if self.of_burst.is_full() {
            self.of_burst.remove(0);
        }
        self.of_burst.push((at, bytes, source));
    }

    /// Where the last datagram from this address was sent to.
    pub(super) fn of(&self, from: &Key) -> Option<Source> {
        let (known, source) = self.of_senders[self.slot(from)]?;
        (known == *from).then_some(source)
    }

    /// Where this frame of the burst was sent to.
    pub(super) fn of_frame(&self, frame: &Frame) -> Option<Source> {
        // What is opened in place begins behind where it came in, never before.
        let begin = frame.bytes().as_ptr().addr();
        let found = self.of_burst.iter().find(|(at, bytes, _)| (*at..at + bytes).contains(&begin));
        found.map(|(_, _, source)| *source)
    }
}
