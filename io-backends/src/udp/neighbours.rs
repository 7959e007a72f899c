//! The neighbours of a socket. Sends look up the address by the mark; receives look up the mark by
//! the address.
//!
//! The tables have a fixed size; admitting and forgetting do not allocate.

use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
};

use strowger_frame::{
    Mark,
    port::{AdmitError, PortTally},
};

use super::{
    control::Source,
    name::{Key, Name, same_kind},
    send_sockets::SendState,
};

/// A neighbour's state for sending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbour {
    pub(super) name: Name,
    pub(super) mark: Mark,
    /// Number of bursts to send frame by frame before trains are tried again, because the path
    /// refused segmentation. It is 0 while the path accepts trains.
    pub(super) gso_retry_in: u16,
    /// The socket on which frames to the neighbour are sent.
    pub(super) send_state: SendState,
    /// The local address from which to send.
    ///
    /// It is the address to which the neighbour last sent. After its first authenticated datagram,
    /// it is the address to which the last authenticated one was sent. With `None` the route
    /// decides.
    pub(super) source: Option<Source>,
    is_authenticated: bool,
    /// The last send error, and the round in which it occurred.
    pub(super) refused: Option<(i32, u64)>,
    /// Index of the message that further frames to the neighbour may join. It is valid only if
    /// `round` is the current round.
    pub(super) open: u32,
    pub(super) round: u64,
    key: Key,
}

impl Neighbour {
    /// Returns the maximum number of frames in the neighbour's next message, at most `most`. Call
    /// this once for each burst.
    #[inline]
    pub(super) fn segments_max(&mut self, most: u32, tally: &PortTally) -> u32 {
        if self.gso_retry_in == 0 {
            return most;
        }
        self.gso_retry_in -= 1;
        if self.gso_retry_in == 0 {
            tally.trains_retried.add(1);
        }
        1
    }
}

/// The table of neighbours, for both lookups.
#[derive(Debug)]
pub(super) struct Neighbours {
    /// Neighbours by the index of their mark.
    entries: Box<[Option<Neighbour>]>,
    /// A hash table with open addressing and linear probing. A value is an index into `entries`
    /// plus 1, or `EMPTY`.
    ///
    /// It is at most half full, so probe sequences are short. A standard hash map is not used,
    /// because it would allocate when it grows.
    buckets: Box<[u32]>,
    /// The hash is keyed, because unknown senders choose the addresses that are looked up.
    hasher: RandomState,
    /// The socket's local address. Neighbours must have addresses of the same family.
    local: SocketAddr,
    /// The last lookup by address, cached because the next train usually comes from the same
    /// sender.
    last: Option<(Key, Mark)>,
}

const EMPTY: u32 = 0;

impl Neighbours {
    pub(super) fn new(neighbours_max: u32, local: SocketAddr) -> Self {
        // The index of a mark has 16 bits, so a larger table would not be used.
        let max = (neighbours_max as usize).clamp(1, 1 << 16);
        Self {
            entries: vec![None; max].into(),
            buckets: vec![EMPTY; (2 * max).next_power_of_two()].into(),
            hasher: RandomState::new(),
            local,
            last: None,
        }
    }

    #[inline]
    fn home(&self, key: &Key) -> usize {
        self.hasher.hash_one(key) as usize & (self.buckets.len() - 1)
    }

    /// The bucket that holds `key`, or the empty bucket where it belongs.
    #[inline]
    fn bucket(&self, key: &Key) -> usize {
        let mut at = self.home(key);
        // The loop ends because at least half of the buckets are empty.
        while let Some(index) = self.buckets[at].checked_sub(1) {
            if self.entries[index as usize].is_some_and(|entry| entry.key == *key) {
                break;
            }
            at = (at + 1) & (self.buckets.len() - 1);
        }
        at
    }

    /// The mark of the neighbour at this address.
    #[inline]
    pub(super) fn mark_of(&mut self, key: Key) -> Option<Mark> {
        if let Some((last, mark)) = self.last
            && last == key
        {
            return Some(mark);
        }
        let index = self.buckets[self.bucket(&key)].checked_sub(1)?;
        let mark = self.entries[index as usize]?.mark;
        self.last = Some((key, mark));
        Some(mark)
    }

    /// The neighbour with this mark.
    #[inline]
    pub(super) fn at_mut(&mut self, mark: Mark) -> Option<&mut Neighbour> {
        self.entries.get_mut(mark.index())?.as_mut().filter(|entry| entry.mark == mark)
    }

    /// Records the local address to which the neighbour sent a datagram.
    pub(super) fn heard_at(&mut self, mark: Mark, source: Source) {
        if let Some(neighbour) = self.at_mut(mark)
            && !neighbour.is_authenticated
        {
            neighbour.source = Some(source);
        }
    }

    /// Records the local address to which the neighbour sent an authenticated datagram. From then
    /// on only authenticated datagrams change it.
    pub(super) fn authenticated_at(&mut self, mark: Mark, source: Source) {
        if let Some(neighbour) = self.at_mut(mark) {
            neighbour.is_authenticated = true;
            neighbour.source = Some(source);
        }
    }

    /// Forgets a local address that no longer exists. The route decides until the neighbour sends
    /// again.
    pub(super) fn forget_source(&mut self, mark: Mark) {
        if let Some(neighbour) = self.at_mut(mark) {
            (neighbour.source, neighbour.is_authenticated) = (None, false);
        }
    }

    /// The local address from which to send to the neighbour at this address.
    pub(super) fn source_for(&self, key: &Key) -> Option<Source> {
        let index = self.buckets[self.bucket(key)].checked_sub(1)?;
        self.entries[index as usize].as_ref()?.source
    }

    /// The errno of the last refused send to the neighbour at this address. It is `None` if newer
    /// frames to the neighbour have been queued since.
    pub(super) fn last_send_error(&self, key: &Key) -> Option<i32> {
        let index = self.buckets[self.bucket(key)].checked_sub(1)?;
        let entry = self.entries[index as usize].as_ref()?;
        let (errno, round) = entry.refused?;
        (entry.round < round).then_some(errno)
    }

    /// The socket's local address.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// The address of the neighbour with this mark.
    pub(super) fn address_of(&self, mark: Mark) -> Option<SocketAddr> {
        let entry = self.entries.get(mark.index())?.as_ref()?;
        if entry.mark == mark { entry.name.address() } else { None }
    }

    pub(super) fn admit(&mut self, mark: Mark, at: SocketAddr) -> Result<(), AdmitError> {
        if !same_kind(at.ip(), self.local.ip()) || at.port() == 0 || at.ip().is_unspecified() {
            return Err(AdmitError::WrongKind);
        }
        let before = *self.entries.get(mark.index()).ok_or(AdmitError::Full)?;
        if before.is_some_and(|before| before.mark != mark) {
            return Err(AdmitError::Taken);
        }
        let key = Key::of(at);
        let holder = self.buckets[self.bucket(&key)].checked_sub(1);
        if let Some(holder) = holder {
            let same = holder as usize == mark.index();
            return if same { Ok(()) } else { Err(AdmitError::Taken) };
        }
        self.forget(mark);
        self.entries[mark.index()] = Some(Neighbour {
            name: Name::of(at),
            mark,
            gso_retry_in: 0,
            send_state: SendState::default(),
            source: None,
            is_authenticated: false,
            refused: None,
            open: 0,
            // The current round never reaches this number.
            round: u64::MAX,
            key,
        });
        let bucket = self.bucket(&key);
        self.buckets[bucket] = mark.index() as u32 + 1;
        Ok(())
    }

    pub(super) fn forget(&mut self, mark: Mark) {
        let Some(key) = self.at_mut(mark).map(|entry| entry.key) else { return };
        self.last = None;
        let mut hole = self.bucket(&key);
        self.entries[mark.index()] = None;
        // Closes the gap: moves entries that probing had placed after it. Later lookups then do not
        // stop too early, and no tombstones are needed.
        let mask = self.buckets.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(index) = self.buckets[at].checked_sub(1) else { break };
            let Some(entry) = self.entries[index as usize] else { break };
            let distance = at.wrapping_sub(self.home(&entry.key)) & mask;
            if distance >= at.wrapping_sub(hole) & mask {
                self.buckets[hole] = self.buckets[at];
                hole = at;
            }
        }
        self.buckets[hole] = EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn at(n: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], n))
    }

    #[test]
    fn a_table_agrees_with_a_map_under_any_order_of_admitting_and_forgetting() {
        let mut table = Neighbours::new(50, at(1));
        let mut model = HashMap::<u16, Mark>::new();
        let mut state = 7_u64;
        for step in 0..20_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let port = 1 + (state >> 33) as u16 % 80;
            let mark = Mark::new((state >> 50) as u16 % 50, 0);
            if step % 3 == 0 {
                table.forget(mark);
                model.retain(|_, held| *held != mark);
            } else {
                let expected = match model.get(&port) {
                    Some(held) if *held != mark => Err(AdmitError::Taken),
                    _ => Ok(()),
                };
                assert_eq!(table.admit(mark, at(port)), expected);
                if expected.is_ok() {
                    model.retain(|_, held| *held != mark);
                    model.insert(port, mark);
                }
            }
            for port in 1..=80 {
                let found = table.mark_of(Key::of(at(port)));
                assert_eq!(found, model.get(&port).copied(), "step {step}, port {port}");
            }
        }
    }

    #[test]
    fn a_wrong_address_or_mark_is_refused() {
        let mut table = Neighbours::new(2, at(1));
        let v6 = "[::1]:7".parse().unwrap();
        assert_eq!(table.admit(Mark(0), v6), Err(AdmitError::WrongKind));
        assert_eq!(table.admit(Mark(0), at(0)), Err(AdmitError::WrongKind));
        assert_eq!(table.admit(Mark(2), at(7)), Err(AdmitError::Full));
        assert_eq!(table.admit(Mark::new(1, 3), at(7)), Ok(()));
        assert_eq!(table.admit(Mark::new(1, 4), at(8)), Err(AdmitError::Taken));
        assert_eq!(table.admit(Mark(0), at(7)), Err(AdmitError::Taken));
        assert!(table.at_mut(Mark::new(1, 4)).is_none());
        table.forget(Mark::new(1, 2));
        assert!(table.at_mut(Mark::new(1, 3)).is_some());
    }

    #[test]
    fn a_neighbour_that_moves_has_only_its_new_address() {
        let mut table = Neighbours::new(2, at(1));
        table.admit(Mark(1), at(7)).unwrap();
        assert_eq!(table.mark_of(Key::of(at(7))), Some(Mark(1)));
        table.admit(Mark(1), at(8)).unwrap();
        assert_eq!(table.mark_of(Key::of(at(7))), None);
        assert_eq!(table.mark_of(Key::of(at(8))), Some(Mark(1)));
    }
}
