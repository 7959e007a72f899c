//! The neighbours of an Ethernet port. Sends look up the header by the mark; receives look up the
//! mark by the source address.
//!
//! The tables have a fixed size; admitting and forgetting do not allocate.

use arrayvec::ArrayVec;
use strowger_frame::{BURST_MAX, Mark, port::AdmitError};

use super::ether::{Mac, Shape, Template, is_one_station};

#[derive(Clone, Copy, Debug)]
struct Neighbour {
    mark: Mark,
    mac: Mac,
    template: Template,
}

/// The table of neighbours, for both lookups.
#[derive(Debug)]
pub(super) struct Neighbours {
    shape: Shape,
    /// Neighbours by the index of their mark.
    entries: Box<[Option<Neighbour>]>,
    /// Marks sorted by address. It is not a hash table, so senders cannot slow it down by their
    /// choice of addresses.
    by_mac: Vec<(Mac, Mark)>,
    /// The last lookup by address, cached because the next frame usually comes from the same
    /// sender.
    last: Option<(Mac, Mark)>,
    /// The unknown senders of this burst, indexed by the numbers of their marks. It is `None` if
    /// frames from unknown senders are not accepted.
    unknown_senders: Option<ArrayVec<Mac, BURST_MAX>>,
}

impl Neighbours {
    pub(super) fn new(neighbours_max: u32, shape: Shape) -> Self {
        // The index of a mark has 16 bits, so a larger table would not be used.
        let max = (neighbours_max as usize).clamp(1, 1 << 16);
        let entries = vec![None; max].into();
        Self { shape, entries, by_mac: Vec::with_capacity(max), last: None, unknown_senders: None }
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Changes this station's address, from which frames are sent and for which they are received.
    pub(super) fn set_own(&mut self, own: Mac) {
        self.shape.own = own;
        for entry in self.entries.iter_mut().flatten() {
            entry.template = self.shape.template(entry.mac);
        }
    }

    /// The mark of the neighbour at this address.
    #[inline]
    pub(super) fn mark_of(&mut self, mac: Mac) -> Option<Mark> {
        if let Some((last, mark)) = self.last
            && last == mac
        {
            return Some(mark);
        }
        let at = self.place_of(mac).ok()?;
        self.last = Some(self.by_mac[at]);
        Some(self.by_mac[at].1)
    }

    /// Begins a new burst, and forgets the unknown senders of the last one.
    #[inline]
    pub(super) fn begin(&mut self) {
        if let Some(unknown_senders) = &mut self.unknown_senders {
            unknown_senders.clear();
        }
    }

    pub(super) fn accept_unknown(&mut self, accept: bool) {
        self.unknown_senders = accept.then(ArrayVec::new);
    }

    /// The mark of a sender: a neighbour or, if frames from unknown senders are accepted, an
    /// unknown sender.
    #[inline]
    pub(super) fn whose(&mut self, mac: Mac) -> Option<Mark> {
        self.mark_of(mac).or_else(|| self.unknown_mark(mac))
    }

    #[cold]
    fn unknown_mark(&mut self, mac: Mac) -> Option<Mark> {
        let unknown_senders = self.unknown_senders.as_mut()?;
        if !is_one_station(mac) || mac == self.shape.own {
            return None;
        }
        let known = unknown_senders.iter().position(|known| *known == mac);
        let number = known.unwrap_or(unknown_senders.len());
        if known.is_none() {
            unknown_senders.try_push(mac).ok()?;
        }
        Some(Mark::unknown(number as u8))
    }

    /// The address of a mark, which belongs to a neighbour or to an unknown sender of this burst.
    pub(super) fn address_of(&self, mark: Mark) -> Option<Mac> {
        if mark.is_unknown() {
            return self.unknown_senders.as_ref()?.get(usize::from(mark.0 as u8)).copied();
        }
        self.entry(mark).map(|entry| entry.mac)
    }

    /// The header for frames to the neighbour with this mark.
    #[inline]
    pub(super) fn template_of(&self, mark: Mark) -> Option<&Template> {
        self.entry(mark).map(|entry| &entry.template)
    }

    #[inline]
    fn entry(&self, mark: Mark) -> Option<&Neighbour> {
        self.entries.get(mark.index())?.as_ref().filter(|entry| entry.mark == mark)
    }

    fn place_of(&self, mac: Mac) -> Result<usize, usize> {
        self.by_mac.binary_search_by_key(&mac, |(mac, _)| *mac)
    }

    pub(super) fn admit(&mut self, mark: Mark, mac: Mac) -> Result<(), AdmitError> {
        if !is_one_station(mac) || mac == self.shape.own {
            return Err(AdmitError::WrongKind);
        }
        let before = *self.entries.get(mark.index()).ok_or(AdmitError::Full)?;
        if before.is_some_and(|before| before.mark != mark) {
            return Err(AdmitError::Taken);
        }
        if let Ok(at) = self.place_of(mac) {
            let same = self.by_mac[at].1 == mark;
            return if same { Ok(()) } else { Err(AdmitError::Taken) };
        }
        self.forget(mark);
        let template = self.shape.template(mac);
        self.entries[mark.index()] = Some(Neighbour { mark, mac, template });
        // There is room, because the table holds at most one address for each entry.
        let at = self.place_of(mac).unwrap_or_else(|at| at);
        self.by_mac.insert(at, (mac, mark));
        Ok(())
    }

    pub(super) fn forget(&mut self, mark: Mark) {
        let Some(mac) = self.entry(mark).map(|entry| entry.mac) else { return };
        self.last = None;
        self.entries[mark.index()] = None;
        if let Ok(at) = self.place_of(mac) {
            self.by_mac.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(n: u8) -> Mac {
        [2, 0, 0, 0, n, 7]
    }

    fn table(max: u32) -> Neighbours {
        Neighbours::new(max, Shape { own: mac(0), ethertype: 0x88b5, vlan: None, group: None })
    }

    #[test]
    fn neighbours_come_and_go_without_the_table_growing() {
        let mut table = table(64);
        let room = table.by_mac.capacity();
        for round in 0..200_u16 {
            for n in 0..64_u16 {
                let at = mac(1 + (n * 37 + round) as u8 % 200);
                let mark = Mark::new(n, round);
                if table.mark_of(at).is_none() {
                    assert_eq!(table.admit(mark, at), Ok(()));
                    assert_eq!(table.mark_of(at), Some(mark));
                    assert!(table.template_of(mark).is_some());
                }
            }
            for n in 0..64 {
                table.forget(Mark::new(n, round));
            }
            assert!(table.by_mac.is_empty());
        }
        assert_eq!(table.by_mac.capacity(), room);
    }

    #[test]
    fn a_wrong_address_or_mark_is_refused() {
        let mut table = table(2);
        for wrong in [mac(0), [0xff; 6], [0; 6]] {
            assert_eq!(table.admit(Mark(0), wrong), Err(AdmitError::WrongKind));
        }
        assert_eq!(table.admit(Mark(2), mac(7)), Err(AdmitError::Full));
        assert_eq!(table.admit(Mark::new(1, 3), mac(7)), Ok(()));
        assert_eq!(table.admit(Mark::new(1, 4), mac(8)), Err(AdmitError::Taken));
        assert_eq!(table.admit(Mark(0), mac(7)), Err(AdmitError::Taken));
        assert!(table.template_of(Mark::new(1, 4)).is_none());
        table.forget(Mark::new(1, 2));
        assert!(table.template_of(Mark::new(1, 3)).is_some());
    }

    #[test]
    fn a_neighbour_that_moves_has_only_its_new_address() {
        let mut table = table(2);
        table.admit(Mark(1), mac(7)).unwrap();
        assert_eq!(table.mark_of(mac(7)), Some(Mark(1)));
        table.admit(Mark(1), mac(8)).unwrap();
        assert_eq!((table.mark_of(mac(7)), table.mark_of(mac(8))), (None, Some(Mark(1))));
    }

    /// wire.md: W8-21, W8-22.
    #[test]
    fn unknown_senders_have_a_mark_for_one_burst_and_only_if_accepted() {
        let mut table = table(2);
        table.admit(Mark(1), mac(1)).unwrap();
        assert_eq!(table.whose(mac(7)), None);
        table.accept_unknown(true);
        table.begin();
        assert_eq!(table.whose(mac(1)), Some(Mark(1)), "neighbours stay neighbours");
        assert_eq!(table.whose(mac(7)), Some(Mark::unknown(0)));
        assert_eq!(table.whose(mac(8)), Some(Mark::unknown(1)));
        assert_eq!(table.whose(mac(7)), Some(Mark::unknown(0)));
        assert_eq!(table.address_of(Mark::unknown(1)), Some(mac(8)));
        assert_eq!(table.address_of(Mark(1)), Some(mac(1)));
        // The port cannot reply to a multicast address or to its own.
        assert_eq!((table.whose([0xff; 6]), table.whose(mac(0))), (None, None));
        table.begin();
        assert_eq!(table.address_of(Mark::unknown(0)), None);
        for n in 0..BURST_MAX as u8 {
            assert!(table.whose([2, 1, 0, 0, 0, n]).is_some());
        }
        assert_eq!(table.whose(mac(9)), None, "no room for one more");
    }
}
