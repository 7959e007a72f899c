//! Who is behind an Ethernet port: mark to header for sends, source address to mark for receives.
//! It is sized once; admitting and forgetting never allocate.

use arrayvec::ArrayVec;
use strowger_frame::{BURST_MAX, Mark, port::AdmitError};

use super::ether::{Mac, Shape, Template, is_one_station};

#[derive(Clone, Copy, Debug)]
struct Neighbour {
    mark: Mark,
    mac: Mac,
    template: Template,
}

/// The table, in both directions.
#[derive(Debug)]
pub(super) struct Neighbours {
    shape: Shape,
    /// By the mark's index.
    entries: Box<[Option<Neighbour>]>,
    /// In order of address. No hash, so no unknown peer can choose addresses that make it slow.
    by_mac: Vec<(Mac, Mark)>,
    /// Frames mostly come from who sent the last one.
    last: Option<(Mac, Mark)>,
    /// Who sent frames of this burst without being a neighbour, by their marks' numbers; `None`
    /// where unknown senders are not welcome.
    unknown_senders: Option<ArrayVec<Mac, BURST_MAX>>,
}

impl Neighbours {
    pub(super) fn new(neighbours_max: u32, shape: Shape) -> Self {
        // A mark's index has 16 bits, so no table need be larger.
        let max = (neighbours_max as usize).clamp(1, 1 << 16);
        let entries = vec![None; max].into();
        Self { shape, entries, by_mac: Vec::with_capacity(max), last: None, unknown_senders: None }
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// This station has another address from now on: frames go out from it, and come in for it.
    pub(super) fn set_own(&mut self, own: Mac) {
        self.shape.own = own;
        for entry in self.entries.iter_mut().flatten() {
            entry.template = self.shape.template(entry.mac);
        }
    }

    /// Who has this address.
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

    /// A new burst begins: unknown senders of the last one are forgotten.
    #[inline]
    pub(super) fn begin(&mut self) {
        if let Some(unknown_senders) = &mut self.unknown_senders {
            unknown_senders.clear();
        }
    }

    pub(super) fn accept_unknown(&mut self, accept: bool) {
        self.unknown_senders = accept.then(ArrayVec::new);
    }

    /// Who has this address: a neighbour, or an unknown peer if such are welcome.
    #[inline]
    pub(super) fn whose(&mut self, mac: Mac) -> Option<Mark> {
        self.mark_of(mac).or_else(|| self.stranger_mark(mac))
    }

    #[cold]
    fn stranger_mark(&mut self, mac: Mac) -> Option<Mark> {
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

    /// The address behind a mark: a neighbour's, or an unknown peer's of this burst.
    pub(super) fn address_of(&self, mark: Mark) -> Option<Mac> {
        if mark.is_unknown() {
            return self.unknown_senders.as_ref()?.get(usize::from(mark.0 as u8)).copied();
        }
        self.entry(mark).map(|entry| entry.mac)
    }

    /// The header of frames to whoever stands under this mark.
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
        // There is room: it holds at most one place for each entry.
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
    fn a_neighbour_that_moves_is_known_by_its_new_address_alone() {
        let mut table = table(2);
        table.admit(Mark(1), mac(7)).unwrap();
        assert_eq!(table.mark_of(mac(7)), Some(Mark(1)));
        table.admit(Mark(1), mac(8)).unwrap();
        assert_eq!((table.mark_of(mac(7)), table.mark_of(mac(8))), (None, Some(Mark(1))));
    }

    #[test]
    fn strangers_have_a_mark_for_one_burst_and_only_where_they_are_welcome() {
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
        // Nobody can be answered at an address of many, or at our own.
        assert_eq!((table.whose([0xff; 6]), table.whose(mac(0))), (None, None));
        table.begin();
        assert_eq!(table.address_of(Mark::unknown(0)), None);
        for n in 0..BURST_MAX as u8 {
            assert!(table.whose([2, 1, 0, 0, 0, n]).is_some());
        }
        assert_eq!(table.whose(mac(9)), None, "no room for one more");
    }
}
