//! The protocol tables of the two ends of one connection (wire.md 6.5 and 6.6).
//!
//! [`OwnTable`] gives numbers to the protocols that this end accepts, and announces them until the
//! peer has acknowledged them. [`PeerTable`] stores what the peer has announced. A number for a
//! message to the peer comes from the peer's table only ([`PeerNumber`]), and a number in a
//! received message has a meaning only in the own table ([`OwnNumber`]): so no message reaches
//! another protocol than its sender meant, even after loss (R19).

use strowger_crypto::{Nanos, hash};
use strowger_wire::{
    connection::{
        ControlItem, EntryCount, EntryFlags, EntryNumber, ProtocolName, TableEntries, TableEntry,
        TableState, item::ITEM_PREFIX_BYTES,
    },
    limits::{TABLE_BYTES_MAX, TABLE_DIGEST_BYTES},
};

use crate::{
    limits::{TABLE_COPIES_MAX, TABLE_RETRY, TABLE_RETRY_MAX},
    names::ProtocolNames,
};

/// Bytes of a `table` item without entries.
const TABLE_ITEM_BYTES: usize = ITEM_PREFIX_BYTES + 1;

/// A number that this end has given to a protocol. Only [`OwnTable`] makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OwnNumber(EntryNumber);

impl OwnNumber {
    /// The number on the wire.
    pub(crate) const fn on_wire(self) -> EntryNumber {
        self.0
    }

    /// The position in the table, from 0.
    pub(crate) const fn index(self) -> usize {
        self.0.number() as usize - 1
    }
}

/// A number that the peer has given to a protocol. Only [`PeerTable`] makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerNumber(EntryNumber);

impl PeerNumber {
    /// The number on the wire.
    pub(crate) const fn on_wire(self) -> EntryNumber {
        self.0
    }
}

/// Entries as bytes, with their count. Entries are only added.
#[derive(Clone, Debug, Default)]
struct Entries {
    bytes: Vec<u8>,
}

impl Entries {
    fn all(&self) -> TableEntries<'_> {
        TableEntries::parse(&self.bytes).unwrap_or(TableEntries::EMPTY)
    }

    /// Adds an entry; `None` if the table is full, which is then unchanged.
    fn add(&mut self, entry: TableEntry<'_>) -> Option<EntryNumber> {
        let number = self.all().count().next()?;
        let (before, more) = (self.bytes.len(), entry.wire_bytes());
        if before + more > TABLE_BYTES_MAX {
            return None;
        }
        self.bytes.resize(before + more, 0);
        entry.emit(&mut self.bytes[before..])?;
        Some(number)
    }
}

/// The first bytes of the hash of entries (W6-71).
fn digest_of(entries: TableEntries<'_>) -> [u8; TABLE_DIGEST_BYTES] {
    let mut digest = [0; TABLE_DIGEST_BYTES];
    digest.copy_from_slice(&hash(entries.as_bytes())[..TABLE_DIGEST_BYTES]);
    digest
}

/// The protocols that this end accepts from one peer.
#[derive(Debug, Default)]
pub(crate) struct OwnTable {
    entries: Entries,
    count: EntryCount,
    /// The number of entries that the peer has; `None` until the peer has acknowledged a number,
    /// which may be 0.
    acknowledged: Option<EntryCount>,
    /// The number of entries that were sent.
    sent: EntryCount,
    announcement: Announcement,
}

/// The time at which the entries that the peer has not acknowledged are sent.
#[derive(Clone, Copy, Debug, Default)]
enum Announcement {
    /// Not now: all entries are acknowledged, or nothing may be sent yet.
    #[default]
    Off,
    /// At `at`, and then after `pause`. `copies`: the number of copies since the last packet of the
    /// peer.
    On { at: Nanos, pause: Nanos, copies: u8 },
}

/// The table has no room for another entry: 254 entries, or 8 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnTableFull;

/// A `table_ack` states more entries than were sent. The item is malformed (W6-156).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AckTooHigh;

/// The part of a table for one packet: one or two `table` items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TablePart<'a> {
    /// The number of the first entry; without entries, the number after the last entry that the
    /// peer has.
    pub(crate) first: EntryNumber,
    /// The entries; none if the peer has all of them, or the table is empty.
    pub(crate) entries: TableEntries<'a>,
    /// The number of the empty item that ends the table, if these are the last entries and the
    /// table has room for more (W6-155).
    pub(crate) end: Option<EntryNumber>,
}

impl<'a> TablePart<'a> {
    /// The items, in the order in which they are sent.
    pub(crate) fn items(self) -> impl Iterator<Item = ControlItem<'a>> {
        let has_entries = self.entries.count() != EntryCount::ZERO;
        let entries = ControlItem::Table { first: self.first, entries: self.entries };
        let end = |first| ControlItem::Table { first, entries: TableEntries::EMPTY };
        has_entries.then_some(entries).into_iter().chain(self.end.map(end))
    }
}

impl OwnTable {
    /// An empty table, which is not announced yet.
    pub(crate) fn new() -> OwnTable {
        OwnTable::default()
    }

    /// Adds a protocol, and returns its number. A name that is already in the table keeps its
    /// number and flags, because entries never change (W6-150).
    ///
    /// # Errors
    /// [`OwnTableFull`]; the table is unchanged.
    pub(crate) fn add(
        &mut self,
        now: Nanos,
        name: ProtocolName<'_>,
        flags: EntryFlags,
    ) -> Result<OwnNumber, OwnTableFull> {
        if let Some(number) = self.number_of(name) {
            return Ok(number);
        }
        let number = self.entries.add(TableEntry { flags, name }).ok_or(OwnTableFull)?;
        self.count = self.entries.all().count();
        if self.is_announced() {
            self.announce(now);
        }
        Ok(OwnNumber(number))
    }

    /// The number in a received message; `None` if the table has no such entry.
    #[inline]
    pub(crate) fn number(&self, received: EntryNumber) -> Option<OwnNumber> {
        (received.number() <= self.count.number()).then_some(OwnNumber(received))
    }

    /// The number of a name; `None` if the name is not in the table.
    pub(crate) fn number_of(&self, name: ProtocolName<'_>) -> Option<OwnNumber> {
        self.entries.all().find(name).map(|(number, _)| OwnNumber(number))
    }

    /// The entry with a number.
    pub(crate) fn entry(&self, number: OwnNumber) -> TableEntry<'_> {
        let entry = self.entries.all().iter().nth(number.index());
        entry.expect("only this table makes its numbers, and entries are never removed")
    }

    /// The number of entries.
    #[cfg(test)]
    pub(crate) const fn count(&self) -> EntryCount {
        self.count
    }

    /// All entries.
    pub(crate) fn entries(&self) -> TableEntries<'_> {
        self.entries.all()
    }

    /// The first entries, as far as they fit into `bytes_max` bytes of a hello (W6-72). Notes that
    /// they are sent.
    pub(crate) fn hello_entries(&mut self, bytes_max: usize) -> TableEntries<'_> {
        let (entries, _) = self.entries.all().split_at_bytes(bytes_max);
        self.sent = self.sent.max(entries.count());
        entries
    }

    /// The state of the table that a hello contains (W6-63).
    pub(crate) fn state(&self) -> TableState {
        TableState { count: self.count, digest: digest_of(self.entries.all()) }
    }

    /// Starts sending the entries that the peer does not have, until the peer acknowledges them;
    /// also an empty table, if the peer has acknowledged nothing. The caller does this when a
    /// handshake has given keys that seal, after [`handle_ack`](OwnTable::handle_ack) for the
    /// entries that its hello stated (W6-153).
    pub(crate) fn announce(&mut self, now: Nanos) {
        self.announcement = if self.is_acknowledged() {
            Announcement::Off
        } else {
            Announcement::On { at: now, pause: TABLE_RETRY, copies: 0 }
        };
    }

    /// The part that is due, for one packet with `bytes_max` bytes of items; `None` if nothing is
    /// due, or if no entry fits. The caller sends it.
    pub(crate) fn poll_part(&mut self, now: Nanos, bytes_max: usize) -> Option<TablePart<'_>> {
        let Announcement::On { at, pause, copies } = self.announcement else { return None };
        if now < at || copies >= TABLE_COPIES_MAX {
            return None;
        }
        let has = self.acknowledged.unwrap_or_default();
        let left = self.entries.all().skip(has);
        // Leave room for the item that ends the table.
        let (entries, rest) = left.split_at_bytes(bytes_max.checked_sub(2 * TABLE_ITEM_BYTES)?);
        if entries.count() == EntryCount::ZERO && rest.count() != EntryCount::ZERO {
            return None;
        }
        let is_last = rest.count() == EntryCount::ZERO;
        let end = if is_last { self.count.next() } else { None };
        // A full table that is acknowledged is not announced, so there is a number.
        let first = has.next()?;
        let sent = EntryCount::new(has.number() + entries.count().number())?;
        self.sent = self.sent.max(sent);
        let next_pause = Nanos(2 * pause.0).min(TABLE_RETRY_MAX);
        self.announcement =
            Announcement::On { at: now.plus(pause), pause: next_pause, copies: copies + 1 };
        Some(TablePart { first, entries, end })
    }

    /// Handles a `table_ack`, or other evidence that the peer has this number of entries. A count
    /// that is not higher than an earlier one has no effect.
    ///
    /// # Errors
    /// [`AckTooHigh`]; it has no effect.
    pub(crate) fn handle_ack(&mut self, now: Nanos, count: EntryCount) -> Result<(), AckTooHigh> {
        if count > self.sent {
            return Err(AckTooHigh);
        }
        if self.acknowledged.is_some_and(|before| count <= before) {
            return Ok(());
        }
        self.acknowledged = Some(count);
        if self.is_announced() {
            self.announce(now);
        }
        Ok(())
    }

    /// Notes an opened packet of the peer, so that copies continue.
    #[inline]
    pub(crate) fn note_opened(&mut self) {
        if let Announcement::On { copies, .. } = &mut self.announcement {
            *copies = 0;
        }
    }

    /// The number of entries that the peer has, as far as this end knows.
    #[cfg(test)]
    pub(crate) fn acknowledged(&self) -> EntryCount {
        self.acknowledged.unwrap_or_default()
    }

    /// Whether the peer has acknowledged the whole table.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.acknowledged == Some(self.count)
    }

    /// Notes that the peer has restarted and has no entry (W6-140). Numbers stay, because sockets
    /// use them; the caller announces them again.
    pub(crate) fn forget_acknowledgement(&mut self) {
        (self.acknowledged, self.sent) = (None, EntryCount::ZERO);
        self.announcement = Announcement::Off;
    }

    /// The time at which [`poll_part`](OwnTable::poll_part) has something to do; `None` if it has
    /// nothing to do.
    pub(crate) fn next_timeout(&self) -> Option<Nanos> {
        match self.announcement {
            Announcement::On { at, copies, .. } if copies < TABLE_COPIES_MAX => Some(at),
            _ => None,
        }
    }

    /// Bytes of memory behind this table.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.bytes.capacity()
    }

    /// Whether entries that are added are announced.
    fn is_announced(&self) -> bool {
        self.acknowledged.is_some() || matches!(self.announcement, Announcement::On { .. })
    }
}

/// The protocols that the peer accepts from this end, as far as it has announced them.
#[derive(Debug, Default)]
pub(crate) struct PeerTable {
    entries: Entries,
    count: EntryCount,
    /// Whether the peer has announced the end of its table.
    is_complete: bool,
    /// The state of the peer's table that the newest hello states; `None` once this table has the
    /// stated number of entries.
    stated: Option<TableState>,
}

/// Why entries were not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeerTableRefused {
    /// An entry is repeated with other bytes (W6-36). The connection ends.
    #[error("the peer announced a protocol number again with another name or other flags")]
    Conflict,
    /// The table would have too many bytes (W6-70). The entries have no effect.
    #[error("the peer's protocol table is longer than 8192 bytes")]
    TooLong,
}

/// The effect of an item or hello on the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerTableNews {
    /// Nothing.
    None,
    /// There are new entries, or the table is now complete: waiting sockets may choose a name.
    Grown,
    /// Entries before these are missing. Nothing was stored.
    Gap,
}

impl PeerTable {
    /// Makes the table of a peer that has announced nothing yet.
    pub(crate) fn new() -> PeerTable {
        PeerTable::default()
    }

    /// Stores the entries of a `table` item (W6-79, W6-80). The caller answers with a `table_ack`
    /// of [`count`](PeerTable::count), even after an error.
    ///
    /// # Errors
    /// [`PeerTableRefused`]; nothing was stored.
    pub(crate) fn handle_item(
        &mut self,
        first: EntryNumber,
        entries: TableEntries<'_>,
    ) -> Result<PeerTableNews, PeerTableRefused> {
        let known = self.count.number();
        let before = first.number() - 1;
        if before > known {
            return Ok(PeerTableNews::Gap);
        }
        if entries.count() == EntryCount::ZERO {
            // An item from before the table grew may arrive late.
            let is_news = before == known && !self.is_complete;
            self.is_complete |= is_news;
            return Ok(if is_news { PeerTableNews::Grown } else { PeerTableNews::None });
        }
        let same = usize::from((known - before).min(entries.count().number()));
        let stored = self.entries.all();
        let stored = stored.iter().skip(usize::from(before)).take(same);
        if !stored.eq(entries.iter().take(same)) {
            return Err(PeerTableRefused::Conflict);
        }
        let Some(same) = EntryCount::new(same as u8) else { return Ok(PeerTableNews::None) };
        let new = entries.skip(same);
        if new.count() == EntryCount::ZERO {
            return Ok(PeerTableNews::None);
        }
        if self.entries.bytes.len() + new.as_bytes().len() > TABLE_BYTES_MAX {
            return Err(PeerTableRefused::TooLong);
        }
        self.entries.bytes.extend_from_slice(new.as_bytes());
        self.count = self.entries.all().count();
        self.is_complete = false;
        self.compare_stated()?;
        Ok(PeerTableNews::Grown)
    }

    /// Stores the table of a hello, and compares the state that the hello states (W6-63) with the
    /// stored entries.
    ///
    /// # Errors
    /// [`PeerTableRefused`].
    pub(crate) fn handle_hello(
        &mut self,
        entries: TableEntries<'_>,
        state: Option<TableState>,
    ) -> Result<PeerTableNews, PeerTableRefused> {
        let before = (self.count, self.is_complete);
        if entries.count() != EntryCount::ZERO {
            self.handle_item(EntryNumber::FIRST, entries)?;
        }
        // A hello from before the table grew says nothing about the end of the table.
        self.stated = state.filter(|state| state.count >= self.count);
        self.compare_stated()?;
        let has_news = before != (self.count, self.is_complete);
        Ok(if has_news { PeerTableNews::Grown } else { PeerTableNews::None })
    }

    /// Compares the table with the state that a hello stated, once the table has the stated number
    /// of entries: marks the table as complete, or fails if the digests differ (W6-36).
    fn compare_stated(&mut self) -> Result<(), PeerTableRefused> {
        let Some(stated) = self.stated.take_if(|stated| stated.count <= self.count) else {
            return Ok(());
        };
        if stated.count == self.count && stated.digest != digest_of(self.entries.all()) {
            return Err(PeerTableRefused::Conflict);
        }
        self.is_complete = true;
        Ok(())
    }

    /// The number of a name; `None` if the peer has not announced it.
    pub(crate) fn number_of(&self, name: ProtocolName<'_>) -> Option<PeerNumber> {
        self.entries.all().find(name).map(|(number, _)| PeerNumber(number))
    }

    /// The first of these names that the peer accepts: the index in `names` and the number.
    pub(crate) fn choose(&self, names: &ProtocolNames) -> Option<(usize, PeerNumber)> {
        let mut found = names.owned().iter().enumerate().filter_map(|(index, name)| {
            self.number_of(name.as_name()).map(|number| (index, number))
        });
        found.next()
    }

    /// All entries.
    pub(crate) fn entries(&self) -> TableEntries<'_> {
        self.entries.all()
    }

    /// The flags of an entry.
    #[cfg(test)]
    pub(crate) fn flags(&self, number: PeerNumber) -> EntryFlags {
        let index = usize::from(number.0.number() - 1);
        self.entries.all().iter().nth(index).map_or(EntryFlags::NONE, |entry| entry.flags)
    }

    /// The number of entries without a gap from the first one: what a `table_ack` states.
    pub(crate) const fn count(&self) -> EntryCount {
        self.count
    }

    /// Whether the peer has announced the end of its table. A name that is not in the table is then
    /// not accepted.
    pub(crate) const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Forgets the table of a peer that has restarted.
    pub(crate) fn reset(&mut self) {
        *self = PeerTable::default();
    }

    /// Bytes of memory behind this table.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.bytes.capacity()
    }
}

#[cfg(test)]
mod tests;
