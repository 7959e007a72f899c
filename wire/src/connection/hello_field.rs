//! The fields that the hello of a connection has behind the protocol table (wire.md 6.4).
//!
//! ```text
//! +--------+----------+------------------+
//! | type 1 | length 2 | value            |   repeated
//! +--------+----------+------------------+
//! ```
//!
//! ```
//! use strowger_wire::connection::{ConnectionId, HelloFields};
//!
//! let fields = HelloFields {
//!     id: Some(ConnectionId([1, 2, 3, 4, 5, 6, 7, 8])),
//!     idle_s: Some(300),
//!     ..HelloFields::default()
//! };
//! let mut room = [0; 32];
//! let left = fields.emit(&mut room)?.len();
//! let bytes = &room[..32 - left];
//! assert_eq!(bytes, b"\x01\0\x08\x01\x02\x03\x04\x05\x06\x07\x08\x05\0\x02\x01\x2c");
//! assert_eq!(HelloFields::parse(bytes), Ok(fields));
//! # Ok::<(), strowger_wire::connection::hello_field::HelloFieldsTooLong>(())
//! ```

use core::fmt;

use super::table::{EntryCount, ProtocolName};
use crate::fields::{Reader, Writer};
use crate::limits::{CONNECTION_ID_BYTES, TABLE_DIGEST_BYTES};

mod field {
    pub(super) const CONNECTION_ID: u8 = 1;
    pub(super) const TABLE_STATE: u8 = 2;
    pub(super) const EARLY_MESSAGE: u8 = 3;
    pub(super) const EARLY_RESULT: u8 = 4;
    pub(super) const IDLE_TIME: u8 = 5;
    pub(super) const LAST: u8 = IDLE_TIME;
}

/// Bytes of the type and the length of a field.
const PREFIX_BYTES: usize = 3;

/// The id of a connection, which the initiator chooses at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub [u8; CONNECTION_ID_BYTES]);

impl ConnectionId {
    /// The value that an end states if it does not know the connection's id.
    pub const UNKNOWN: ConnectionId = ConnectionId([0; CONNECTION_ID_BYTES]);
}

/// The state of an end's own protocol table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableState {
    /// The number of entries.
    pub count: EntryCount,
    /// The first bytes of the unkeyed BLAKE2s-256 hash of [all
    /// entries](super::TableEntries::as_bytes).
    pub digest: [u8; TABLE_DIGEST_BYTES],
}

/// A message in an initiation, before the keys are confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlyMessage<'a> {
    /// The protocol's name.
    pub name: ProtocolName<'a>,
    /// The message.
    pub message: &'a [u8],
}

/// The result of an early message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EarlyResult {
    /// The message was delivered.
    Delivered = 0,
    /// The responder does not know the protocol, or the initiator may not use it.
    UnknownProtocol = 1,
    /// The message was not delivered. The initiator sends it again as a sealed message.
    Refused = 2,
}

impl EarlyResult {
    /// The result with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<EarlyResult> {
        match number {
            0 => Some(EarlyResult::Delivered),
            1 => Some(EarlyResult::UnknownProtocol),
            2 => Some(EarlyResult::Refused),
            _ => None,
        }
    }
}

/// The fields of a connection's hello, borrowed from their bytes. An absent field
/// is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HelloFields<'a> {
    /// The id of the connection (type 1).
    pub id: Option<ConnectionId>,
    /// The state of the sender's protocol table (type 2).
    pub table: Option<TableState>,
    /// An early message (type 3).
    pub early: Option<EarlyMessage<'a>>,
    /// The result of the other end's early message (type 4).
    pub early_result: Option<EarlyResult>,
    /// The time in seconds after which the sender closes an idle connection (type 5).
    pub idle_s: Option<u16>,
}

impl<'a> HelloFields<'a> {
    /// Reads the fields behind the protocol table of a hello, up to the end of `bytes`. Returns
    /// fields or an error for any bytes. Types that this version does not know are skipped.
    ///
    /// # Errors
    /// [`HelloFieldError`].
    pub fn parse(bytes: &'a [u8]) -> Result<HelloFields<'a>, HelloFieldError> {
        let mut read = HelloFields::default();
        let mut seen = [false; field::LAST as usize];
        let mut rest = Reader(bytes);
        while let Some(number) = rest.u8() {
            let length = rest.u16().ok_or(HelloFieldError::Cut)?;
            let value = rest.slice(usize::from(length)).ok_or(HelloFieldError::Cut)?;
            if let Some(seen) = seen.get_mut(usize::from(number).wrapping_sub(1))
                && core::mem::replace(seen, true)
            {
                return Err(HelloFieldError::Twice);
            }
            read.read_field(number, value).ok_or(HelloFieldError::BadValue)?;
        }
        Ok(read)
    }

    /// Reads one field. `None` if the value is not valid for its type; an unknown type is skipped.
    fn read_field(&mut self, number: u8, value: &'a [u8]) -> Option<()> {
        match number {
            field::CONNECTION_ID => self.id = Some(ConnectionId(value.try_into().ok()?)),
            field::TABLE_STATE => {
                let (&count, digest) = value.split_first()?;
                let digest = digest.try_into().ok()?;
                self.table = Some(TableState { count: EntryCount::new(count)?, digest });
            }
            field::EARLY_MESSAGE => {
                let mut fields = Reader(value);
                let name = ProtocolName::read(&mut fields).ok()?;
                self.early = Some(EarlyMessage { name, message: fields.0 });
            }
            field::EARLY_RESULT => {
                let &[result] = value else { return None };
                self.early_result = Some(EarlyResult::from_number(result)?);
            }
            field::IDLE_TIME => self.idle_s = Some(u16::from_be_bytes(value.try_into().ok()?)),
            _ => {}
        }
        Some(())
    }

    /// The length of these fields in bytes.
    #[must_use]
    pub const fn wire_bytes(&self) -> usize {
        let mut bytes = 0;
        if self.id.is_some() {
            bytes += PREFIX_BYTES + CONNECTION_ID_BYTES;
        }
        if self.table.is_some() {
            bytes += PREFIX_BYTES + 1 + TABLE_DIGEST_BYTES;
        }
        if let Some(early) = self.early {
            bytes += PREFIX_BYTES + early.name.wire_bytes() + early.message.len();
        }
        if self.early_result.is_some() {
            bytes += PREFIX_BYTES + 1;
        }
        if self.idle_s.is_some() {
            bytes += PREFIX_BYTES + 2;
        }
        bytes
    }

    /// Writes these fields to the front of `out`, in the order of their types; returns the rest of
    /// `out`, unchanged.
    ///
    /// # Errors
    /// [`HelloFieldsTooLong`] if `out` is too short, or if the early message is too long for a
    /// length field of two bytes. In this case nothing is written.
    pub fn emit<'o>(&self, out: &'o mut [u8]) -> Result<&'o mut [u8], HelloFieldsTooLong> {
        let early = self.early.map_or(0, |early| early.name.wire_bytes() + early.message.len());
        if out.len() < self.wire_bytes() || early > usize::from(u16::MAX) {
            return Err(HelloFieldsTooLong);
        }
        self.write(Writer(out)).map(|left| left.0).ok_or(HelloFieldsTooLong)
    }

    /// The caller has checked the lengths, so no cast truncates.
    fn write<'o>(&self, mut out: Writer<'o>) -> Option<Writer<'o>> {
        fn prefix(out: Writer<'_>, number: u8, length: usize) -> Option<Writer<'_>> {
            out.put(&[number])?.put(&(length as u16).to_be_bytes())
        }
        if let Some(ConnectionId(id)) = self.id {
            out = prefix(out, field::CONNECTION_ID, id.len())?.put(&id)?;
        }
        if let Some(TableState { count, digest }) = self.table {
            out = prefix(out, field::TABLE_STATE, 1 + digest.len())?;
            out = out.put(&[count.number()])?.put(&digest)?;
        }
        if let Some(EarlyMessage { name, message }) = self.early {
            out = prefix(out, field::EARLY_MESSAGE, name.wire_bytes() + message.len())?;
            out = name.put(out)?.put(message)?;
        }
        if let Some(result) = self.early_result {
            out = prefix(out, field::EARLY_RESULT, 1)?.put(&[result as u8])?;
        }
        if let Some(seconds) = self.idle_s {
            out = prefix(out, field::IDLE_TIME, 2)?.put(&seconds.to_be_bytes())?;
        }
        Some(out)
    }
}

/// Why bytes are not the fields of a connection's hello. The handshake message is then malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HelloFieldError {
    /// The last field is incomplete.
    Cut,
    /// A type occurs twice.
    Twice,
    /// A value is not valid for its type.
    BadValue,
}

impl fmt::Display for HelloFieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HelloFieldError::Cut => "the last field of the hello is incomplete",
            HelloFieldError::Twice => "a field occurs twice in the hello",
            HelloFieldError::BadValue => "a field of the hello has a value that is not allowed",
        })
    }
}

impl core::error::Error for HelloFieldError {}

/// The fields do not fit the buffer, or the early message is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HelloFieldsTooLong;

impl fmt::Display for HelloFieldsTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields do not fit the hello")
    }
}

impl core::error::Error for HelloFieldsTooLong {}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    fn all(message: &[u8]) -> HelloFields<'_> {
        HelloFields {
            id: Some(ConnectionId([1, 2, 3, 4, 5, 6, 7, 8])),
            table: Some(TableState {
                count: EntryCount::new(3).expect("at most 254"),
                digest: [9; 8],
            }),
            early: Some(EarlyMessage {
                name: ProtocolName::new(b"/echo/1").expect("a name"),
                message,
            }),
            early_result: Some(EarlyResult::Refused),
            idle_s: Some(0x0102),
        }
    }

    fn written<'r>(fields: &HelloFields<'_>, room: &'r mut [u8]) -> &'r [u8] {
        let most = room.len();
        let left = fields.emit(room).expect("room").len();
        &room[..most - left]
    }

    #[test]
    fn every_set_of_fields_is_read_back_and_written_whole_or_not_at_all() {
        for set in 0..32 {
            let all = all(b"hello");
            let fields = HelloFields {
                id: all.id.filter(|_| set & 1 != 0),
                table: all.table.filter(|_| set & 2 != 0),
                early: all.early.filter(|_| set & 4 != 0),
                early_result: all.early_result.filter(|_| set & 8 != 0),
                idle_s: all.idle_s.filter(|_| set & 16 != 0),
            };
            let mut room = [0; 128];
            let bytes = written(&fields, &mut room);
            assert_eq!(bytes.len(), fields.wire_bytes());
            assert_eq!(HelloFields::parse(bytes), Ok(fields));
            let mut short = [0xee; 128];
            for length in 0..bytes.len() {
                assert_eq!(fields.emit(&mut short[..length]), Err(HelloFieldsTooLong));
            }
            assert_eq!(short, [0xee; 128]);
        }
    }

    #[test]
    fn every_cut_is_an_error_or_ends_between_two_fields() {
        let mut room = [0; 128];
        let bytes = written(&all(b""), &mut room);
        let ends = [0, 11, 23, 34, 38, 43];
        assert_eq!(bytes.len(), 43);
        for length in 0..bytes.len() {
            let read = HelloFields::parse(&bytes[..length]);
            assert_eq!(read.is_ok(), ends.contains(&length), "{length} bytes");
            assert!(read.is_ok() || read == Err(HelloFieldError::Cut));
        }
    }

    #[test]
    fn unknown_types_are_skipped_and_known_ones_stand_once() {
        let id = b"\x01\0\x08abcdefgh";
        for number in 0..=255 {
            let twice = [&[number, 0, 2, 0, 0][..], &[number, 0, 2, 0, 0], id].concat();
            let read = HelloFields::parse(&twice);
            match number {
                1..=4 => assert!(read.is_err(), "type {number}"),
                5 => assert_eq!(read, Err(HelloFieldError::Twice)),
                _ => {
                    let wanted = ConnectionId(*b"abcdefgh");
                    assert_eq!(read.map(|fields| fields.id), Ok(Some(wanted)), "type {number}");
                }
            }
        }
    }

    #[test]
    fn values_outside_of_their_types_are_refused() {
        let refused = |bytes: &[u8]| {
            assert_eq!(HelloFields::parse(bytes), Err(HelloFieldError::BadValue), "{bytes:?}");
        };
        refused(b"\x01\0\x07abcdefg");
        refused(b"\x01\0\x09abcdefghi");
        refused(b"\x02\0\0");
        refused(b"\x02\0\x08\0abcdefg");
        refused(b"\x02\0\x09\xffabcdefgh");
        refused(b"\x03\0\0");
        refused(b"\x03\0\x02\x01/");
        refused(b"\x03\0\x03\x03/a");
        refused(b"\x03\0\x03\x02ab");
        refused(b"\x04\0\0");
        refused(b"\x04\0\x01\x03");
        refused(b"\x04\0\x02\0\0");
        refused(b"\x05\0\x01\0");
        refused(b"\x05\0\x03\0\0\0");
        let empty = HelloFields::parse(b"\x03\0\x03\x02/a").expect("an empty early message");
        assert!(empty.early.is_some_and(|early| early.message.is_empty()));
    }

    #[test]
    fn an_early_message_longer_than_its_length_field_is_not_written() {
        let mut room = [0; 70_000];
        let most = [0; 65_535 - 8];
        assert_eq!(written(&all(&most), &mut room).len(), all(&most).wire_bytes());
        assert_eq!(all(&[0; 65_535 - 7]).emit(&mut room), Err(HelloFieldsTooLong));
    }
}
