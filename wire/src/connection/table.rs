//! Protocol names, and the table that gives numbers to the protocols that one end accepts
//! (wire.md 6.5).
//!
//! A table is a sequence of entries. The position of an entry, from 1, is the protocol's number.
//!
//! ```text
//! +---------+---------+------------------+
//! | flags 1 | n 1     | name, n bytes    |
//! +---------+---------+------------------+
//! ```
//!
//! ```
//! use strowger_wire::connection::{EntryFlags, ProtocolName, TableEntries, TableEntry};
//!
//! let entry = TableEntry {
//!     flags: EntryFlags::EARLY,
//!     name: ProtocolName::new(b"/echo/1").unwrap(),
//! };
//! let mut room = [0; 64];
//! let left = entry.emit(&mut room).unwrap().len();
//! let bytes = &room[..64 - left];
//! assert_eq!(bytes, b"\x02\x07/echo/1");
//!
//! let table = TableEntries::parse(bytes)?;
//! assert_eq!(table.iter().next(), Some(entry));
//! let (number, _) = table.find(entry.name).unwrap();
//! assert_eq!(number.number(), 1);
//! # Ok::<(), strowger_wire::connection::table::TableError>(())
//! ```

use core::fmt;

use crate::fields::{Reader, Writer};
use crate::limits::{
    PROTOCOL_NAME_BYTES_MAX, PROTOCOL_NAME_BYTES_MIN, TABLE_BYTES_MAX, TABLE_ENTRIES_MAX,
};

/// The number of an entry in a protocol table: 1 to [`TABLE_ENTRIES_MAX`].
///
/// The table need not have an entry with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryNumber(u8);

impl EntryNumber {
    /// The number of the first entry.
    pub const FIRST: EntryNumber = EntryNumber(1);

    /// This number; `None` for 0 and above [`TABLE_ENTRIES_MAX`].
    #[inline]
    #[must_use]
    pub const fn new(number: u8) -> Option<EntryNumber> {
        if number == 0 || number as usize > TABLE_ENTRIES_MAX {
            None
        } else {
            Some(EntryNumber(number))
        }
    }

    /// The number as an integer.
    #[inline]
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// A number of entries: 0 to [`TABLE_ENTRIES_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryCount(u8);

impl EntryCount {
    /// No entry.
    pub const ZERO: EntryCount = EntryCount(0);

    /// This number of entries; `None` above [`TABLE_ENTRIES_MAX`].
    #[must_use]
    pub const fn new(number: u8) -> Option<EntryCount> {
        if number as usize > TABLE_ENTRIES_MAX { None } else { Some(EntryCount(number)) }
    }

    /// The number as an integer.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The number of the entry after these entries; `None` if the table is full.
    #[must_use]
    pub const fn next(self) -> Option<EntryNumber> {
        EntryNumber::new(self.0 + 1)
    }
}

/// The flags of an entry. Bits that this version does not know are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryFlags(u8);

impl EntryFlags {
    /// No flag.
    pub const NONE: EntryFlags = EntryFlags(0);
    /// Pass-through messages are accepted.
    pub const PASS_THROUGH: EntryFlags = EntryFlags(1);
    /// An early message is accepted.
    pub const EARLY: EntryFlags = EntryFlags(2);

    /// The flags with these bits.
    #[must_use]
    pub const fn from_bits(bits: u8) -> EntryFlags {
        EntryFlags(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The union of two sets.
    #[must_use]
    pub const fn or(self, other: EntryFlags) -> EntryFlags {
        EntryFlags(self.0 | other.0)
    }

    /// Whether this set contains every flag of `other`.
    #[must_use]
    pub const fn holds(self, other: EntryFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The name of a protocol: 2 to 128 bytes from `!` to `~`, of which the first is `/`. Names are
/// equal if all bytes are equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolName<'a>(&'a str);

impl<'a> ProtocolName<'a> {
    /// The name with these bytes; `None` if they are not a name.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<ProtocolName<'a>> {
        let is_name = (PROTOCOL_NAME_BYTES_MIN..=PROTOCOL_NAME_BYTES_MAX).contains(&bytes.len())
            && bytes[0] == b'/'
            && bytes.iter().all(u8::is_ascii_graphic);
        if is_name { core::str::from_utf8(bytes).ok().map(ProtocolName) } else { None }
    }

    /// The name as text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The name as bytes.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0.as_bytes()
    }

    /// Reads the length of a name (1 byte), and the name.
    pub(super) fn read(fields: &mut Reader<'a>) -> Result<ProtocolName<'a>, TableError> {
        let bytes = fields.u8().ok_or(TableError::Cut)?;
        let name = fields.slice(usize::from(bytes)).ok_or(TableError::Cut)?;
        ProtocolName::new(name).ok_or(TableError::BadName)
    }

    /// Writes the length of the name (1 byte), and the name.
    pub(super) fn put<'o>(self, out: Writer<'o>) -> Option<Writer<'o>> {
        // A name has at most 128 bytes.
        out.put(&[self.0.len() as u8])?.put(self.as_bytes())
    }

    /// Bytes of the name with its length.
    pub(super) const fn wire_bytes(self) -> usize {
        1 + self.0.len()
    }
}

impl fmt::Debug for ProtocolName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

impl fmt::Display for ProtocolName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// One entry of a protocol table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableEntry<'a> {
    /// The kinds of messages that the protocol's listener accepts besides sealed ones.
    pub flags: EntryFlags,
    /// The protocol's name.
    pub name: ProtocolName<'a>,
}

impl<'a> TableEntry<'a> {
    /// The length of this entry in bytes.
    #[must_use]
    pub const fn wire_bytes(&self) -> usize {
        1 + self.name.wire_bytes()
    }

    /// Writes this entry to the front of `out`; returns the rest of `out`, unchanged. `None` if it
    /// does not fit; then nothing is written.
    pub fn emit<'o>(&self, out: &'o mut [u8]) -> Option<&'o mut [u8]> {
        if out.len() < self.wire_bytes() {
            return None;
        }
        self.name.put(Writer(out).put(&[self.flags.0])?).map(|left| left.0)
    }

    fn read(fields: &mut Reader<'a>) -> Result<TableEntry<'a>, TableError> {
        let flags = EntryFlags(fields.u8().ok_or(TableError::Cut)?);
        Ok(TableEntry { flags, name: ProtocolName::read(fields)? })
    }
}

/// Consecutive entries, borrowed from their bytes: a whole table or a part of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableEntries<'a> {
    /// Complete and well-formed entries.
    bytes: &'a [u8],
    count: EntryCount,
}

impl<'a> TableEntries<'a> {
    /// No entry.
    pub const EMPTY: TableEntries<'static> = TableEntries { bytes: &[], count: EntryCount::ZERO };

    /// Reads entries up to the end of `bytes`. Returns entries or an error for any bytes.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn parse(bytes: &'a [u8]) -> Result<TableEntries<'a>, TableError> {
        if bytes.len() > TABLE_BYTES_MAX {
            return Err(TableError::TooLong);
        }
        let mut fields = Reader(bytes);
        let mut count = EntryCount::ZERO;
        while !fields.0.is_empty() {
            count = EntryCount(count.next().ok_or(TableError::TooMany)?.0);
            TableEntry::read(&mut fields)?;
        }
        Ok(TableEntries { bytes, count })
    }

    /// The bytes of all entries. The state of a table is computed over them.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The number of entries.
    #[must_use]
    pub const fn count(&self) -> EntryCount {
        self.count
    }

    /// The entries, in their order.
    #[must_use]
    pub const fn iter(&self) -> TableIter<'a> {
        TableIter { fields: Reader(self.bytes) }
    }

    /// The entry with this name, and its number. The number is right only if these entries are a
    /// whole table. If two entries have this name, the result is the first one.
    #[must_use]
    pub fn find(&self, name: ProtocolName<'_>) -> Option<(EntryNumber, TableEntry<'a>)> {
        // `zip` asks for a number only after it has an entry, so no number after the last entry is
        // computed.
        let mut numbered = self.iter().zip(1..).map(|(entry, number)| (EntryNumber(number), entry));
        numbered.find(|(_, entry)| entry.name == name)
    }

    /// Whether a table can hold these entries if the first one has this number.
    pub(super) const fn fit_from(&self, first: EntryNumber) -> bool {
        (first.0 - 1) as usize + self.count.0 as usize <= TABLE_ENTRIES_MAX
    }

    /// Splits these entries into as many of the first ones as fit `bytes_max` bytes, and the
    /// others.
    #[must_use]
    pub fn split_at_bytes(&self, bytes_max: usize) -> (TableEntries<'a>, TableEntries<'a>) {
        let (mut length, mut count) = (0, 0);
        for entry in *self {
            if length + entry.wire_bytes() > bytes_max {
                break;
            }
            length += entry.wire_bytes();
            count += 1;
        }
        self.split(length, count)
    }

    /// The entries after the first `count` entries; no entry if there are no more.
    #[must_use]
    pub fn skip(&self, count: EntryCount) -> TableEntries<'a> {
        let first = usize::from(count.0.min(self.count.0));
        let length = self.iter().take(first).map(|entry| entry.wire_bytes()).sum();
        self.split(length, first as u8).1
    }

    /// Splits these entries after the first `count`, which have `length` bytes.
    fn split(&self, length: usize, count: u8) -> (TableEntries<'a>, TableEntries<'a>) {
        let (front, rest) = self.bytes.split_at(length);
        (
            TableEntries { bytes: front, count: EntryCount(count) },
            TableEntries { bytes: rest, count: EntryCount(self.count.0 - count) },
        )
    }
}

impl<'a> IntoIterator for TableEntries<'a> {
    type Item = TableEntry<'a>;
    type IntoIter = TableIter<'a>;

    fn into_iter(self) -> TableIter<'a> {
        self.iter()
    }
}

/// The entries of a table, in their order.
#[derive(Clone)]
pub struct TableIter<'a> {
    fields: Reader<'a>,
}

impl<'a> Iterator for TableIter<'a> {
    type Item = TableEntry<'a>;

    fn next(&mut self) -> Option<TableEntry<'a>> {
        // `TableEntries::parse` has read all of them, so an error means the end.
        TableEntry::read(&mut self.fields).ok()
    }
}

impl fmt::Debug for TableIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// Why bytes are not entries of a protocol table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableError {
    /// The last entry is incomplete.
    Cut,
    /// A name is too short, too long, or has a byte that names do not have.
    BadName,
    /// More than [`TABLE_ENTRIES_MAX`] entries.
    TooMany,
    /// More than [`TABLE_BYTES_MAX`] bytes.
    TooLong,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TableError::Cut => "the last entry of the protocol table is incomplete",
            TableError::BadName => {
                "a protocol name must have 2 to 128 printable ASCII characters and begin with /"
            }
            TableError::TooMany => "the protocol table has more than 254 entries",
            TableError::TooLong => "the protocol table has more than 8192 bytes",
        })
    }
}

impl core::error::Error for TableError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_bytes_and_lengths_that_are_allowed() {
        let long = [b'/'; PROTOCOL_NAME_BYTES_MAX + 1];
        for length in 0..=long.len() {
            let is_name = ProtocolName::new(&long[..length]).is_some();
            assert_eq!(is_name, (2..=128).contains(&length), "{length} bytes");
        }
        for byte in 0..=255 {
            let is_first = ProtocolName::new(&[byte, b'a']).is_some();
            assert_eq!(is_first, byte == b'/', "{byte:#x}");
            let is_second = ProtocolName::new(&[b'/', byte]).is_some();
            assert_eq!(is_second, (b'!'..=b'~').contains(&byte), "{byte:#x}");
        }
        assert_ne!(ProtocolName::new(b"/a"), ProtocolName::new(b"/A"));
    }

    #[test]
    fn numbers_and_counts_have_their_bounds() {
        for number in 0..=255 {
            assert_eq!(EntryNumber::new(number).is_some(), (1..=254).contains(&number));
            let count = EntryCount::new(number);
            assert_eq!(count.is_some(), number <= 254);
            let next = count.and_then(EntryCount::next).map(EntryNumber::number);
            assert_eq!(next, (number < 254).then_some(number.wrapping_add(1)));
        }
    }

    /// The bytes of entries with names of these lengths, and their number of bytes.
    fn table(lengths: impl IntoIterator<Item = usize>) -> ([u8; 2 * TABLE_BYTES_MAX], usize) {
        let mut room = [0; 2 * TABLE_BYTES_MAX];
        let mut left = &mut room[..];
        for (flags, length) in (0..=255).cycle().zip(lengths) {
            let name = ProtocolName::new(&[b'/'; 128][..length]).expect("a name");
            let entry = TableEntry { flags: EntryFlags(flags), name };
            let before = left.len();
            left = entry.emit(left).expect("room");
            assert_eq!(before - left.len(), entry.wire_bytes());
        }
        let length = 2 * TABLE_BYTES_MAX - left.len();
        (room, length)
    }

    #[test]
    fn entries_are_read_back_and_every_cut_is_refused() {
        let lengths = [2, 128, 17, 3];
        let (room, length) = table(lengths);
        let entries = TableEntries::parse(&room[..length]).expect("well-formed");
        assert_eq!((entries.count().number(), entries.as_bytes()), (4, &room[..length]));
        assert!(entries.iter().map(|entry| entry.name.as_bytes().len()).eq(lengths));
        assert!(entries.iter().map(|entry| entry.flags.bits()).eq(0..4));
        let ends = lengths.map(|length| 2 + length);
        let ends = [0, ends[0], ends[0] + ends[1], ends[0] + ends[1] + ends[2], length];
        for cut in 0..=length {
            let read = TableEntries::parse(&room[..cut]);
            match ends.iter().position(|end| *end == cut) {
                Some(count) => {
                    assert_eq!(read.map(|read| usize::from(read.count().number())), Ok(count));
                }
                None => assert_eq!(read, Err(TableError::Cut), "{cut} bytes"),
            }
            let (front, rest) = entries.split_at_bytes(cut);
            let end = ends.iter().rfind(|end| **end <= cut).expect("0 is one");
            assert_eq!((front.as_bytes(), rest.as_bytes()), room[..length].split_at(*end));
            assert_eq!(TableEntries::parse(front.as_bytes()), Ok(front));
            assert_eq!(TableEntries::parse(rest.as_bytes()), Ok(rest));
            assert_eq!(entries.skip(front.count()), rest);
        }
        assert_eq!(entries.skip(EntryCount(200)), TableEntries::default());
    }

    #[test]
    fn a_table_has_at_most_254_entries_and_8_kib() {
        let (room, length) = table((0..254).map(|_| 2));
        assert_eq!(TableEntries::parse(&room[..length]).map(|all| all.count().0), Ok(254));
        let (room, length) = table((0..255).map(|_| 2));
        assert_eq!(TableEntries::parse(&room[..length]), Err(TableError::TooMany));
        // 63 entries of 130 bytes.
        let (room, length) =
            table((0..64).map(|at| if at < 63 { 128 } else { 0 }).filter(|l| *l > 0));
        assert_eq!(length, 63 * 130);
        assert!(TableEntries::parse(&room[..length]).is_ok());
        let (room, length) = table((0..64).map(|_| 126));
        assert_eq!(length, TABLE_BYTES_MAX);
        assert!(TableEntries::parse(&room[..length]).is_ok());
        let (room, length) = table((0..64).map(|at| if at == 0 { 127 } else { 126 }));
        assert_eq!(TableEntries::parse(&room[..length]), Err(TableError::TooLong));
    }

    /// Fuzzing found this: the number behind the last entry of a full table overflowed.
    #[test]
    fn a_name_that_a_full_table_does_not_have_is_not_found() {
        let (room, length) = table((0..254).map(|_| 2));
        let entries = TableEntries::parse(&room[..length]).expect("well-formed");
        let name = ProtocolName::new(b"/a").expect("a name");
        assert_eq!(entries.find(name), None);
    }

    #[test]
    fn the_first_entry_of_a_name_is_found() {
        let bytes = b"\x00\x02/a\x01\x02/b\x02\x02/a";
        let entries = TableEntries::parse(bytes).expect("well-formed");
        let name = |bytes| ProtocolName::new(bytes).expect("a name");
        let found = |bytes| {
            entries.find(name(bytes)).map(|(number, found)| {
                assert_eq!(found.name, name(bytes));
                (number.number(), found.flags.bits())
            })
        };
        assert_eq!((found(b"/a"), found(b"/b"), found(b"/c")), (Some((1, 0)), Some((2, 1)), None));
    }

    #[test]
    fn an_entry_is_written_whole_or_not_at_all() {
        let entry = TableEntry {
            flags: EntryFlags::PASS_THROUGH.or(EntryFlags::EARLY),
            name: ProtocolName::new(b"/quic").expect("a name"),
        };
        let mut room = [0xee; 7];
        assert_eq!(entry.emit(&mut room[..6]), None);
        assert_eq!(room, [0xee; 7]);
        assert!(entry.emit(&mut room).is_some_and(|left| left.is_empty()));
        assert_eq!(room, *b"\x03\x05/quic");
        assert!(entry.flags.holds(EntryFlags::EARLY) && !EntryFlags::EARLY.holds(entry.flags));
    }
}
