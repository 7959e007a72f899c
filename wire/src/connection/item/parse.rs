//! Reads control items in place.

use core::fmt;

use super::{
    ControlItem, ITEM_PREFIX_BYTES, LabelBytes, PathUse, ProtocolRef, UnsupportedCode, op,
};
use crate::connection::hello_field::ConnectionId;
use crate::connection::table::{EntryCount, EntryNumber, ProtocolName, TableEntries, TableError};
use crate::fields::Reader;
use crate::limits::{
    AGENT_BYTES_MAX, GOODBYE_TEXT_BYTES_MAX, IDENTIFY_BYTES, ITEM_BODY_BYTES_MAX, TABLE_BYTES_MAX,
};
use crate::link_header::Lane;

/// The items of one message to protocol number 0, not yet parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlItems<'a>(&'a [u8]);

impl<'a> ControlItems<'a> {
    /// The items in these bytes, which are all bytes behind the protocol number.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> ControlItems<'a> {
        ControlItems(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Reads the items in their order. For any bytes, the sequence of items and errors is finite.
    #[must_use]
    pub const fn iter(&self) -> ItemIter<'a> {
        ItemIter { rest: Reader(self.0) }
    }
}

impl<'a> IntoIterator for ControlItems<'a> {
    type Item = Result<ControlItem<'a>, BadItem>;
    type IntoIter = ItemIter<'a>;

    fn into_iter(self) -> ItemIter<'a> {
        self.iter()
    }
}

/// The items of one message. Items with an unknown op are skipped.
#[derive(Clone)]
pub struct ItemIter<'a> {
    rest: Reader<'a>,
}

impl<'a> Iterator for ItemIter<'a> {
    type Item = Result<ControlItem<'a>, BadItem>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let op = *self.rest.0.first()?;
            let Some(body) = self.body() else {
                // Stop: the start of the next item is unknown.
                self.rest.0 = &[];
                return Some(Err(BadItem { op, fault: ItemFault::Cut }));
            };
            let is_last = self.rest.0.is_empty();
            match ControlItem::read(op, body, is_last) {
                Ok(Some(item)) => return Some(Ok(item)),
                Ok(None) => {}
                Err(fault) => return Some(Err(BadItem { op, fault })),
            }
        }
    }
}

impl<'a> ItemIter<'a> {
    /// Takes the next item, and returns its body. `None` if the item is incomplete.
    fn body(&mut self) -> Option<&'a [u8]> {
        let [_, length @ ..] = *self.rest.take::<ITEM_PREFIX_BYTES>()?;
        self.rest.slice(usize::from(u16::from_be_bytes(length)))
    }
}

impl fmt::Debug for ItemIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl<'a> ControlItem<'a> {
    /// Reads the item with this op; `None` if this version does not know the op.
    fn read(op: u8, body: &'a [u8], is_last: bool) -> Result<Option<Self>, ItemFault> {
        let mut fields = Fields(Reader(body));
        let item = match op {
            op::PADDING => {
                // The longest body has fewer than 2^16 bytes.
                let bytes = fields.rest(ITEM_BODY_BYTES_MAX)?.len() as u16;
                Self::Padding { bytes }
            }
            op::TABLE => Self::table(&mut fields)?,
            op::TABLE_ACK => {
                let count = EntryCount::new(fields.u8()?).ok_or(ItemFault::BadField)?;
                Self::TableAck { count }
            }
            op::NAMED if !is_last => return Err(ItemFault::NotLast),
            op::NAMED => {
                if body.len() > ITEM_BODY_BYTES_MAX {
                    return Err(ItemFault::TooLong);
                }
                let name = ProtocolName::read(&mut fields.0).map_err(ItemFault::of_table)?;
                Self::Named { name, message: fields.rest(ITEM_BODY_BYTES_MAX)? }
            }
            op::UNSUPPORTED => {
                let code = UnsupportedCode(fields.u8()?);
                Self::Unsupported { code, protocol: fields.protocol_ref()? }
            }
            op::LEAVING => Self::Leaving {
                seconds: fields.u16()?,
                code: fields.u8()?,
                text: fields.text(GOODBYE_TEXT_BYTES_MAX)?,
            },
            op::STAY => Self::Stay { weight: fields.u8()? },
            op::GOODBYE => Self::Goodbye {
                retry_after_s: fields.0.u32().ok_or(ItemFault::TooShort)?,
                code: fields.u8()?,
                protocol: fields.protocol()?,
                text: fields.text(GOODBYE_TEXT_BYTES_MAX)?,
            },
            op::GOODBYE_ACK => {
                Self::GoodbyeAck { code: fields.u8()?, protocol: fields.protocol()? }
            }
            op::IDENTIFY => {
                fields.0.slice(IDENTIFY_BYTES).ok_or(ItemFault::TooShort)?;
                Self::Identify
            }
            op::IDENTIFY_ANSWER => {
                let (hops_left, width, mtu) = (fields.u8()?, fields.u8()?, fields.u16()?);
                let label = fields.label(width)?;
                let agent = fields.text(AGENT_BYTES_MAX)?;
                Self::IdentifyAnswer { hops_left, mtu, label, agent }
            }
            op::PATH => {
                let lane = fields.lane()?;
                let state = PathUse::from_number(fields.u8()?).ok_or(ItemFault::BadField)?;
                Self::Path { lane, state }
            }
            op::RECEIVE_REPORT => Self::ReceiveReport {
                lane: fields.lane()?,
                packets: fields.u64()?,
                marked_ce: fields.u64()?,
                newest: fields.u64()?,
            },
            op::CONNECTION_ID => {
                Self::ConnectionId(ConnectionId(*fields.0.take().ok_or(ItemFault::TooShort)?))
            }
            _ => return Ok(None),
        };
        if fields.0.0.is_empty() { Ok(Some(item)) } else { Err(ItemFault::TooLong) }
    }

    fn table(fields: &mut Fields<'a>) -> Result<Self, ItemFault> {
        let first = EntryNumber::new(fields.u8()?).ok_or(ItemFault::BadField)?;
        let entries = TableEntries::parse(fields.rest(TABLE_BYTES_MAX)?);
        let entries = entries.map_err(ItemFault::of_table)?;
        if !entries.fit_from(first) {
            return Err(ItemFault::BadField);
        }
        Ok(Self::Table { first, entries })
    }
}

/// The fields of an item that have not been read yet.
struct Fields<'a>(Reader<'a>);

impl<'a> Fields<'a> {
    fn u8(&mut self) -> Result<u8, ItemFault> {
        self.0.u8().ok_or(ItemFault::TooShort)
    }

    fn u16(&mut self) -> Result<u16, ItemFault> {
        self.0.u16().ok_or(ItemFault::TooShort)
    }

    fn u64(&mut self) -> Result<u64, ItemFault> {
        self.0.u64().ok_or(ItemFault::TooShort)
    }

    /// Takes all remaining bytes. Fails if there are more than `bytes_max`.
    fn rest(&mut self, bytes_max: usize) -> Result<&'a [u8], ItemFault> {
        let rest = self.0.0;
        if rest.len() > bytes_max {
            return Err(ItemFault::TooLong);
        }
        self.0.0 = &[];
        Ok(rest)
    }

    fn text(&mut self, bytes_max: usize) -> Result<&'a str, ItemFault> {
        core::str::from_utf8(self.rest(bytes_max)?).map_err(|_| ItemFault::BadField)
    }

    fn lane(&mut self) -> Result<Lane, ItemFault> {
        Lane::new(self.u8()?).ok_or(ItemFault::BadField)
    }

    /// The number of a protocol, or 0 for the connection.
    fn protocol(&mut self) -> Result<Option<EntryNumber>, ItemFault> {
        match self.u8()? {
            0 => Ok(None),
            number => EntryNumber::new(number).map(Some).ok_or(ItemFault::BadField),
        }
    }

    /// One byte is a number. A name has at least two bytes.
    fn protocol_ref(&mut self) -> Result<ProtocolRef<'a>, ItemFault> {
        let rest = self.rest(crate::limits::PROTOCOL_NAME_BYTES_MAX)?;
        let protocol = match rest {
            [] => return Err(ItemFault::TooShort),
            [number] => EntryNumber::new(*number).map(ProtocolRef::Number),
            name => ProtocolName::new(name).map(ProtocolRef::Name),
        };
        protocol.ok_or(ItemFault::BadField)
    }

    /// The label of this width code (W2-3).
    fn label(&mut self, width: u8) -> Result<LabelBytes<'a>, ItemFault> {
        let bytes = match width {
            0 => 8,
            1 => 16,
            2 => 32,
            _ => return Err(ItemFault::BadField),
        };
        self.0.slice(bytes).and_then(LabelBytes::new).ok_or(ItemFault::TooShort)
    }
}

/// A control item that is not well-formed. It has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BadItem {
    /// The item's op.
    pub op: u8,
    /// The fault of the item.
    pub fault: ItemFault,
}

impl fmt::Display for BadItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "control item with op {}: {}", self.op, self.fault)
    }
}

impl core::error::Error for BadItem {}

/// The fault of a control item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemFault {
    /// The message ends inside the item. Nothing behind it can be read.
    Cut,
    /// The body is shorter than the op requires.
    TooShort,
    /// The body is longer than the op allows.
    TooLong,
    /// A field has a value that is not allowed.
    BadField,
    /// The item must be the last one of its message, but another item follows.
    NotLast,
}

impl ItemFault {
    fn of_table(error: TableError) -> ItemFault {
        match error {
            TableError::Cut => ItemFault::TooShort,
            TableError::TooLong => ItemFault::TooLong,
            TableError::BadName | TableError::TooMany => ItemFault::BadField,
        }
    }
}

impl fmt::Display for ItemFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ItemFault::Cut => "the message ends inside the item",
            ItemFault::TooShort => "the body is shorter than the op requires",
            ItemFault::TooLong => "the body is longer than the op allows",
            ItemFault::BadField => "a field has a value that is not allowed",
            ItemFault::NotLast => "another item follows one that must be the last",
        })
    }
}

impl core::error::Error for ItemFault {}
