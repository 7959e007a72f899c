//! Session indices, and the openers for each index.

use strowger_crypto::{Entropy, Openers};
use strowger_wire::link_header::SessionIndex;

use crate::heap::{push_tight, vec_bytes};
use crate::limits::{INDEX_DRAWS_MAX, INDEX_PLACES_MAX, INDEX_PLACES_MIN};
use crate::packet::Source;

/// The meaning of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// A handshake attempt of this connection waits for a response.
    Attempt(u32),
    /// The receiver with this number opens packets to this index.
    Receiver(u32),
}

/// The state of one lane of the peer, under one generation of keys.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LaneSeen {
    /// The greatest counter plus 1; 0 before the first packet.
    pub(crate) next: u64,
    /// The number of received packets, for `receive_report`.
    pub(crate) packets: u64,
    /// Whether a message was opened since the last report.
    pub(crate) is_news: bool,
    /// The number of received packets with a congestion mark.
    pub(crate) marked_ce: u64,
    /// The source of the packet with the greatest counter.
    pub(crate) source: Option<Source>,
}

/// The lanes that a peer may announce in a connection.
pub(crate) const LANES_SEEN: usize = strowger_crypto::limits::CONNECTION_LANES_MAX as usize;

/// The receiving side of one generation of keys.
pub(crate) struct Receiver {
    pub(crate) openers: Openers,
    pub(crate) connection: u32,
    pub(crate) index: SessionIndex,
    /// A number greater than that of all earlier keys.
    pub(crate) generation: u32,
    pub(crate) lanes: [LaneSeen; LANES_SEEN],
}

/// A place of the table. `owner` is the number of a receiver, or of a connection with `ATTEMPT`.
#[derive(Clone, Copy)]
struct Place {
    index: u32,
    owner: u32,
}

impl Place {
    const VACANT: Place = Place { index: u32::MAX, owner: 0 };
    const ATTEMPT: u32 = 1 << 31;
    /// The index is drawn and not used yet.
    const RESERVED: u32 = u32::MAX;
}

/// The places of one cache line.
type Bucket = [Place; BUCKET_PLACES];
const BUCKET_PLACES: usize = 8;
const _: () = assert!(size_of::<Bucket>() == 64);

/// All session indices of an endpoint. The low bits of an index select a bucket of a table. The
/// table grows if a bucket is full or half of all places are used. An index that another rule chose
/// (XX, wire.md W4-6) nearly always finds a place, however many indices are in use.
pub(crate) struct Sessions {
    buckets: Vec<Bucket>,
    used: usize,
    receivers: Vec<Option<Box<Receiver>>>,
    free: Vec<u32>,
    generation: u32,
}

impl Sessions {
    pub(crate) fn new() -> Sessions {
        Sessions {
            buckets: vec![[Place::VACANT; BUCKET_PLACES]; INDEX_PLACES_MIN / BUCKET_PLACES],
            used: 0,
            receivers: Vec::new(),
            free: Vec::new(),
            generation: 0,
        }
    }

    #[inline]
    fn bucket(&self, index: SessionIndex) -> &Bucket {
        &self.buckets[index.number() as usize & (self.buckets.len() - 1)]
    }

    /// The place with the number `holds` in the bucket of `index`: that of the index, or a vacant
    /// place.
    #[inline]
    fn place_mut(&mut self, index: SessionIndex, holds: u32) -> Option<&mut Place> {
        let bucket = index.number() as usize & (self.buckets.len() - 1);
        self.buckets[bucket].iter_mut().find(|place| place.index == holds)
    }

    /// The meaning of an index. Compares the places of one cache line.
    #[inline]
    pub(crate) fn find(&self, index: SessionIndex) -> Found {
        let place = self.bucket(index).iter().find(|place| place.index == index.number());
        match place {
            None => Found::Nothing,
            Some(place) if place.owner == Place::RESERVED => Found::Nothing,
            Some(place) if place.owner & Place::ATTEMPT != 0 => {
                Found::Attempt(place.owner & !Place::ATTEMPT)
            }
            Some(place) => Found::Receiver(place.owner),
        }
    }

    /// Draws an unused index and reserves it; `None` if too many are used, or if the random source
    /// fails.
    pub(crate) fn draw(&mut self, entropy: &mut dyn Entropy) -> Option<SessionIndex> {
        for _ in 0..INDEX_DRAWS_MAX {
            let mut random = [0; 3];
            entropy.fill(&mut random).ok()?;
            let [a, b, c] = random;
            let index = SessionIndex::new(u32::from_be_bytes([0, a, b, c]))?;
            if index != SessionIndex::NONE && self.take(index) {
                return Some(index);
            }
        }
        None
    }

    /// Reserves an index that `draw` did not return. Returns whether it was unused, and found a
    /// place.
    pub(crate) fn take(&mut self, index: SessionIndex) -> bool {
        if self.place_mut(index, index.number()).is_some() {
            return false;
        }
        if self.used * 2 >= self.places() {
            self.grow();
        }
        loop {
            if let Some(vacant) = self.place_mut(index, Place::VACANT.index) {
                *vacant = Place { index: index.number(), owner: Place::RESERVED };
                self.used += 1;
                return true;
            }
            if !self.grow() {
                return false;
            }
        }
    }

    /// Notes that a connection waits for a response to this index.
    pub(crate) fn await_answer(&mut self, index: SessionIndex, connection: u32) {
        self.set_owner(index, connection | Place::ATTEMPT);
    }

    /// Opens packets to this index with these openers.
    pub(crate) fn open(&mut self, index: SessionIndex, connection: u32, openers: Openers) {
        let lanes = [LaneSeen::default(); LANES_SEEN];
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let receiver = Some(Box::new(Receiver { openers, connection, index, generation, lanes }));
        let number = match self.free.pop() {
            Some(number) => {
                self.receivers[number as usize] = receiver;
                number
            }
            None => {
                push_tight(&mut self.receivers, receiver);
                self.receivers.len() as u32 - 1
            }
        };
        self.set_owner(index, number);
    }

    fn set_owner(&mut self, index: SessionIndex, owner: u32) {
        let place = self.place_mut(index, index.number());
        debug_assert!(place.is_some(), "the index was drawn or taken");
        if let Some(place) = place {
            place.owner = owner;
        }
    }

    /// Frees an index, and drops its openers.
    pub(crate) fn close(&mut self, index: SessionIndex) {
        if let Found::Receiver(number) = self.find(index) {
            self.receivers[number as usize] = None;
            self.free.push(number);
        }
        if let Some(place) = self.place_mut(index, index.number()) {
            *place = Place::VACANT;
            self.used -= 1;
        }
    }

    /// The receiver with this number.
    #[inline]
    pub(crate) fn receiver_mut(&mut self, number: u32) -> Option<&mut Receiver> {
        self.receivers.get_mut(number as usize)?.as_deref_mut()
    }

    /// The receiver of an index.
    pub(crate) fn receiver_of(&mut self, index: SessionIndex) -> Option<&mut Receiver> {
        match self.find(index) {
            Found::Receiver(number) => self.receiver_mut(number),
            _ => None,
        }
    }

    fn places(&self) -> usize {
        self.buckets.len() * BUCKET_PLACES
    }

    /// Doubles the table; returns `false` at the limit. The places of one bucket move to two
    /// buckets, so all of them fit.
    fn grow(&mut self) -> bool {
        if self.places() >= INDEX_PLACES_MAX {
            return false;
        }
        let buckets = vec![[Place::VACANT; BUCKET_PLACES]; self.buckets.len() * 2];
        let former = std::mem::replace(&mut self.buckets, buckets);
        for place in former.iter().flatten().filter(|place| place.index != Place::VACANT.index) {
            let bucket = place.index as usize & (self.buckets.len() - 1);
            let vacant = self.buckets[bucket].iter_mut();
            let mut vacant = vacant.filter(|place| place.index == Place::VACANT.index);
            if let Some(vacant) = vacant.next() {
                *vacant = *place;
            }
        }
        true
    }

    /// The number of indices in use.
    #[cfg(test)]
    pub(crate) const fn used(&self) -> usize {
        self.used
    }

    /// Bytes of memory, keys included.
    pub(crate) fn memory(&self) -> usize {
        let receivers = self.receivers.iter().flatten();
        let receivers = receivers.map(|one| size_of::<Receiver>() + one.openers.memory_bytes());
        vec_bytes(&self.buckets)
            + vec_bytes(&self.receivers)
            + vec_bytes(&self.free)
            + receivers.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use strowger_crypto::SeededEntropy;

    use crate::limits::CONNECTIONS_MAX;

    use super::*;

    #[test]
    fn indices_stay_findable_while_the_table_grows() {
        let (mut sessions, mut entropy) = (Sessions::new(), SeededEntropy::new(3));
        let drawn: Vec<SessionIndex> = (0..20_000)
            .map(|connection| {
                let index = sessions.draw(&mut entropy).expect("room");
                sessions.await_answer(index, connection);
                index
            })
            .collect();
        assert!(sessions.places() >= 2 * drawn.len());
        for (connection, index) in drawn.iter().enumerate() {
            assert_eq!(sessions.find(*index), Found::Attempt(connection as u32));
            assert!(!sessions.take(*index), "it is used");
        }
        drawn.iter().for_each(|index| sessions.close(*index));
        assert_eq!(sessions.used(), 0);
        assert_eq!(sessions.find(drawn[0]), Found::Nothing);
        assert!(sessions.take(drawn[0]));
        assert_eq!(sessions.find(drawn[0]), Found::Nothing, "it leads nowhere yet");
        sessions.close(drawn[0]);
        sessions.close(drawn[0]);
        assert_eq!(sessions.used(), 0);
    }

    /// The responder of XX cannot choose another index. With one place for each index, up to half
    /// of the first handshakes would be refused.
    #[test]
    fn an_index_of_xx_finds_a_place_beside_many_others() {
        let (mut sessions, mut entropy) = (Sessions::new(), SeededEntropy::new(7));
        for _ in 0..CONNECTIONS_MAX {
            sessions.draw(&mut entropy).expect("room");
        }
        let refused = (0..1_000).filter(|_| {
            let index = entropy.next_u64() as u32 & 0xff_ffff;
            let index = SessionIndex::new(index).expect("24 bits");
            matches!(sessions.find(index), Found::Nothing) && !sessions.take(index)
        });
        // About one of a thousand random indices is already in use.
        assert!(refused.count() <= 10);
    }
}
