//! Session indices: the free ones, and those for which a handshake response is awaited.
//!
//! An index consists of a place in the workers' tables and of higher bits. The place is drawn at
//! random from the free places, and the higher bits are random. A node that has seen some indices
//! guesses another one with a probability of 2^-24.

use std::{collections::HashMap, sync::Arc};

use strowger_crypto::Entropy;
use strowger_frame::Mark;
use strowger_wire::link_header::SessionIndex;

use crate::{
    limits::{ANSWERS_READ_PER_ATTEMPT, SESSIONS_MAX},
    session::{AwaitedPlaces, place_of},
};

/// The free places, and the attempts whose responses are awaited.
pub(super) struct Indices {
    /// Free places, in any order.
    free: Vec<u16>,
    /// The position of each place in `free`; [`Indices::TAKEN`] if it is not free.
    positions: Box<[u32]>,
    /// Attempts at a handshake, by the session index in their responses. Data packets do not carry
    /// such an index, so a passive observer who sees only data does not learn it.
    awaited: HashMap<SessionIndex, Awaited>,
    /// The same table, in the form that the workers read.
    places: Arc<AwaitedPlaces>,
}

/// The originator of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// The encrypted link of this peer.
    Peer(Mark),
    /// A call to the sender of a beacon.
    Call,
}

/// A handshake attempt whose response is awaited.
pub(super) struct Awaited {
    pub(super) asker: Asker,
    /// The number of responses that may still be read: first those from addresses to which
    /// initiations were sent, then those from other addresses.
    left: [u8; 2],
}

impl Awaited {
    /// Whether one more response with a valid mac may be read. The limit applies to each attempt,
    /// so a node that can forge such responses delays only this attempt. Responses from addresses
    /// to which no initiation was sent have a separate limit.
    pub(super) fn may_read(&mut self, was_contacted: bool) -> bool {
        let left = &mut self.left[usize::from(!was_contacted)];
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    }
}

impl Indices {
    const TAKEN: u32 = u32::MAX;

    pub(super) fn new(places: Arc<AwaitedPlaces>) -> Self {
        let free: Vec<u16> = (0..=u16::MAX).take(SESSIONS_MAX).collect();
        let positions = (0..SESSIONS_MAX as u32).collect();
        Self { free, positions, awaited: HashMap::new(), places }
    }

    /// Frees all places. No responses are awaited any more.
    pub(super) fn reset(&mut self) {
        self.places.clear();
        *self = Self::new(self.places.clone());
    }

    /// Draws a free index. Returns `None` if no place is free, or if the random source fails.
    pub(super) fn draw(&mut self, entropy: &mut dyn Entropy) -> Option<SessionIndex> {
        let mut random = [0; 16];
        entropy.fill(&mut random).ok()?;
        let random = u128::from_be_bytes(random);
        let end = self.free.len() as u128;
        let place = *self.free.get((random >> 64).checked_rem(end)? as usize)?;
        self.take(usize::from(place));
        let turns = SessionIndex::END / SESSIONS_MAX as u32;
        // Index 0 is not used by sessions.
        let first = u32::from(place == 0);
        let turn = first + random as u32 % (turns - first);
        SessionIndex::new(turn * SESSIONS_MAX as u32 + u32::from(place))
    }

    /// Takes a place. Returns whether the place was free.
    pub(super) fn take(&mut self, place: usize) -> bool {
        let Some(position) = self.positions.get_mut(place) else { return false };
        let at = std::mem::replace(position, Self::TAKEN);
        if at == Self::TAKEN {
            return false;
        }
        self.free.swap_remove(at as usize);
        if let Some(&moved) = self.free.get(at as usize) {
            self.positions[usize::from(moved)] = at;
        }
        true
    }

    /// Takes the place of an index that `draw` did not return. Returns whether the place was free.
    pub(super) fn take_index(&mut self, index: SessionIndex) -> bool {
        self.take(place_of(index))
    }

    /// Frees an index that no session uses. Returns whether the index belonged to an attempt. If
    /// so, no worker has keys with this index.
    pub(super) fn give_back(&mut self, index: SessionIndex) -> bool {
        let place = place_of(index);
        if self.positions[place] == Self::TAKEN {
            self.positions[place] = self.free.len() as u32;
            self.free.push(place as u16);
        }
        self.settle(index)
    }

    /// Notes that a response with this index is awaited.
    pub(super) fn await_answer(&mut self, index: SessionIndex, asker: Asker) {
        let left = [ANSWERS_READ_PER_ATTEMPT; 2];
        self.awaited.insert(index, Awaited { asker, left });
        self.places.set(index, true);
    }

    /// The attempt whose response carries this index. The lookup is one table access for any number
    /// of peers.
    pub(super) fn awaited(&mut self, index: SessionIndex) -> Option<&mut Awaited> {
        self.awaited.get_mut(&index)
    }

    /// Notes that no response with this index is awaited any more. Returns whether one was awaited.
    pub(super) fn settle(&mut self, index: SessionIndex) -> bool {
        let was_awaited = self.awaited.remove(&index).is_some();
        if was_awaited {
            self.places.set(index, false);
        }
        was_awaited
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use strowger_crypto::{EntropyFailed, SeededEntropy};

    use super::*;

    /// wire.md: W4-15.
    #[test]
    fn indices_are_unpredictable_in_all_their_bits() {
        let mut entropy = SeededEntropy::new(1);
        let mut ones = [0_u32; 24];
        let rounds = 4_000;
        let mut indices = Indices::new(Arc::new(AwaitedPlaces::new()));
        let mut seen = HashSet::new();
        for _ in 0..rounds {
            let index = indices.draw(&mut entropy).expect("free");
            seen.insert(index);
            for (bit, ones) in ones.iter_mut().enumerate() {
                *ones += index.number() >> bit & 1;
            }
            // Free the index immediately: the place that was freed last is as likely to be drawn as
            // any other.
            indices.give_back(index);
        }
        for (bit, ones) in ones.iter().enumerate() {
            // The bound is four standard deviations of the number of ones.
            assert!(ones.abs_diff(rounds / 2) < 127, "bit {bit}: {ones} of {rounds}");
        }
        assert!(seen.len() > 3_990, "{}", seen.len());
    }

    /// wire.md: W3-26, W3-28, W4-15.
    #[test]
    fn each_place_is_drawn_once_until_none_is_left() {
        let mut entropy = SeededEntropy::new(2);
        let mut indices = Indices::new(Arc::new(AwaitedPlaces::new()));
        let all: HashSet<usize> = (0..SESSIONS_MAX)
            .map(|_| {
                let index = indices.draw(&mut entropy).expect("free");
                assert_ne!(index, SessionIndex::NONE);
                place_of(index)
            })
            .collect();
        assert_eq!(all.len(), SESSIONS_MAX);
        assert_eq!(indices.draw(&mut entropy), None);
        let index = SessionIndex::new(7).expect("small");
        assert!(!indices.take_index(index));
        indices.give_back(index);
        indices.give_back(index); // a second call has no effect
        assert!(indices.take_index(index) && !indices.take_index(index));
        assert_eq!(indices.draw(&mut entropy), None);
    }

    #[test]
    fn without_random_bytes_there_is_no_index() {
        struct Dry;
        impl Entropy for Dry {
            fn fill(&mut self, _: &mut [u8]) -> Result<(), EntropyFailed> {
                Err(EntropyFailed)
            }
        }
        assert_eq!(Indices::new(Arc::new(AwaitedPlaces::new())).draw(&mut Dry), None);
    }

    /// wire.md: W4-87.
    #[test]
    fn answers_from_other_addresses_take_nothing_from_the_address_that_was_asked() {
        let mut indices = Indices::new(Arc::new(AwaitedPlaces::new()));
        let index = SessionIndex::new(7).expect("small");
        indices.await_answer(index, Asker::Call);
        let awaited = indices.awaited(index).expect("awaited");
        assert_eq!((0..1_000).filter(|_| awaited.may_read(false)).count(), 32);
        assert_eq!((0..1_000).filter(|_| awaited.may_read(true)).count(), 32);
        assert!(indices.places.has(index));
        assert!(indices.settle(index) && !indices.settle(index));
        assert!(!indices.places.has(index));
        assert!(indices.awaited(index).is_none());
    }
}
