//! Control items, by which the two ends manage the connection itself (wire.md 6.6).
//!
//! A message to protocol number 0 is a sequence of items:
//!
//! ```text
//! +------+----------+------------------+
//! | op 1 | length 2 | body             |   repeated
//! +------+----------+------------------+
//! ```
//!
//! Items are read in place. Items with an op that this version does not know are skipped. A
//! malformed item is reported with its reason, and the items after it are read, unless the message
//! ends inside the malformed item.
//!
//! ```
//! use strowger_wire::connection::item::{ControlItem, ControlItems, ItemFault, BadItem};
//!
//! let mut room = [0; 64];
//! let left = ControlItem::Stay { weight: 3 }.emit(&mut room)?.len();
//! let length = 64 - left;
//! assert_eq!(&room[..length], b"\x06\0\x01\x03");
//!
//! // An item that this version does not know, a malformed one, and a good one.
//! let mut items = ControlItems::new(b"\xf0\0\x01?\x06\0\0\x06\0\x01\x03").iter();
//! assert_eq!(items.next(), Some(Err(BadItem { op: 6, fault: ItemFault::TooShort })));
//! assert_eq!(items.next(), Some(Ok(ControlItem::Stay { weight: 3 })));
//! assert_eq!(items.next(), None);
//! # Ok::<(), strowger_wire::connection::item::ItemTooLong>(())
//! ```

mod emit;
mod parse;

use core::fmt;

use super::hello_field::ConnectionId;
use super::table::{EntryCount, EntryNumber, ProtocolName, TableEntries};
use crate::link_header::Lane;

pub use emit::ItemTooLong;
pub use parse::{BadItem, ControlItems, ItemFault, ItemIter};

/// Bytes of the op and the length of an item.
pub const ITEM_PREFIX_BYTES: usize = 3;

mod op {
    pub(super) const PADDING: u8 = 0;
    pub(super) const TABLE: u8 = 1;
    pub(super) const TABLE_ACK: u8 = 2;
    pub(super) const NAMED: u8 = 3;
    pub(super) const UNSUPPORTED: u8 = 4;
    pub(super) const LEAVING: u8 = 5;
    pub(super) const STAY: u8 = 6;
    pub(super) const GOODBYE: u8 = 7;
    pub(super) const GOODBYE_ACK: u8 = 8;
    pub(super) const IDENTIFY: u8 = 9;
    pub(super) const IDENTIFY_ANSWER: u8 = 10;
    // 11 and 12 are reserved for direct links, and skipped like unknown ops.
    pub(super) const PATH: u8 = 13;
    pub(super) const RECEIVE_REPORT: u8 = 14;
    pub(super) const CONNECTION_ID: u8 = 15;
}

/// A control item. Borrowed parts point into the parsed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlItem<'a> {
    /// Bytes without a meaning (op 0).
    Padding {
        /// The number of bytes; at most
        /// [`ITEM_BODY_BYTES_MAX`](crate::limits::ITEM_BODY_BYTES_MAX). They are sent as zeros and
        /// ignored.
        bytes: u16,
    },
    /// Entries of the sender's protocol table (op 1).
    Table {
        /// The number of the first of these entries. If there is no entry, the table ends before
        /// this number.
        first: EntryNumber,
        /// The entries, in the order of their numbers.
        entries: TableEntries<'a>,
    },
    /// The entries of the receiver's protocol table that the sender has, from the first one (op 2).
    TableAck {
        /// Their number.
        count: EntryCount,
    },
    /// A message to a protocol whose number the sender does not know (op 3). It is the last item of
    /// its packet.
    Named {
        /// The protocol's name.
        name: ProtocolName<'a>,
        /// The message.
        message: &'a [u8],
    },
    /// A message was not delivered (op 4).
    Unsupported {
        /// Why.
        code: UnsupportedCode,
        /// The protocol, as the message named it.
        protocol: ProtocolRef<'a>,
    },
    /// The sender will close the connection (op 5).
    Leaving {
        /// Seconds until the sender closes it.
        seconds: u16,
        /// The reason, as in a goodbye.
        code: u8,
        /// A text for human readers; at most
        /// [`GOODBYE_TEXT_BYTES_MAX`](crate::limits::GOODBYE_TEXT_BYTES_MAX) bytes.
        text: &'a str,
    },
    /// The answer to `Leaving`: how much the sender wants the connection to stay open (op 6).
    Stay {
        /// From 0 (not at all) to 255.
        weight: u8,
    },
    /// The sender closes the connection or one protocol of it (op 7).
    Goodbye {
        /// Seconds that the receiver waits before it connects again; 0 lets the receiver choose.
        retry_after_s: u32,
        /// The reason: a code of a control message's goodbye (W5-31), or 5 not wanted, 6 moved.
        code: u8,
        /// The protocol's number in the receiver's table; `None` for the whole connection.
        protocol: Option<EntryNumber>,
        /// A text for human readers; at most
        /// [`GOODBYE_TEXT_BYTES_MAX`](crate::limits::GOODBYE_TEXT_BYTES_MAX) bytes.
        text: &'a str,
    },
    /// The answer to a goodbye, with two values from the goodbye (op 8).
    GoodbyeAck {
        /// The goodbye's code.
        code: u8,
        /// The goodbye's protocol; `None` if the goodbye was for the whole connection.
        protocol: Option<EntryNumber>,
    },
    /// Requests an identify answer (op 9). This item is as long as the longest answer.
    Identify,
    /// The answer to `Identify`: facts about the node, and about the packet that contained
    /// `Identify` (op 10).
    IdentifyAnswer {
        /// The `hops_left` of the packet when it arrived.
        hops_left: u8,
        /// The longest connection packet that the sender accepts, in bytes.
        mtu: u16,
        /// The label of the packet's return path.
        label: LabelBytes<'a>,
        /// The name and version of the program; at most
        /// [`AGENT_BYTES_MAX`](crate::limits::AGENT_BYTES_MAX) bytes.
        agent: &'a str,
    },
    /// The state of a path of the sender (op 13).
    Path {
        /// The path's lane.
        lane: Lane,
        /// Its state.
        state: PathUse,
    },
    /// A report of packets that the sender has received on a lane (op 14).
    ReceiveReport {
        /// The lane.
        lane: Lane,
        /// The number of packets.
        packets: u64,
        /// The number of packets that were marked CE (RFC 3168).
        marked_ce: u64,
        /// The greatest counter.
        newest: u64,
    },
    /// The id of the connection, sent if the hello of a responder could not state it (op 15).
    ConnectionId(ConnectionId),
}

impl ControlItem<'_> {
    /// The number of this item on the wire.
    #[must_use]
    pub const fn op(&self) -> u8 {
        match self {
            ControlItem::Padding { .. } => op::PADDING,
            ControlItem::Table { .. } => op::TABLE,
            ControlItem::TableAck { .. } => op::TABLE_ACK,
            ControlItem::Named { .. } => op::NAMED,
            ControlItem::Unsupported { .. } => op::UNSUPPORTED,
            ControlItem::Leaving { .. } => op::LEAVING,
            ControlItem::Stay { .. } => op::STAY,
            ControlItem::Goodbye { .. } => op::GOODBYE,
            ControlItem::GoodbyeAck { .. } => op::GOODBYE_ACK,
            ControlItem::Identify => op::IDENTIFY,
            ControlItem::IdentifyAnswer { .. } => op::IDENTIFY_ANSWER,
            ControlItem::Path { .. } => op::PATH,
            ControlItem::ReceiveReport { .. } => op::RECEIVE_REPORT,
            ControlItem::ConnectionId(_) => op::CONNECTION_ID,
        }
    }
}

/// The reason why a message was not delivered. Parsing accepts codes that this version does not
/// know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnsupportedCode(pub u8);

impl UnsupportedCode {
    /// The receiver does not know the protocol, or the sender may not use it.
    pub const UNKNOWN_PROTOCOL: UnsupportedCode = UnsupportedCode(1);
    /// The receiver accepts no early message for the protocol.
    pub const EARLY_REFUSED: UnsupportedCode = UnsupportedCode(2);
}

/// A protocol, by number or by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolRef<'a> {
    /// The number in the table of the end that refused the message.
    Number(EntryNumber),
    /// The name.
    Name(ProtocolName<'a>),
}

/// How the sender uses one of its paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PathUse {
    /// Messages are sent along this path.
    Active = 1,
    /// Messages are sent along this path if the active path fails.
    Standby = 2,
    /// Nothing is sent along this path any more.
    Abandoned = 3,
}

impl PathUse {
    /// The use with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<PathUse> {
        match number {
            1 => Some(PathUse::Active),
            2 => Some(PathUse::Standby),
            3 => Some(PathUse::Abandoned),
            _ => None,
        }
    }
}

/// The bytes of a label, in any of the three widths.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LabelBytes<'a> {
    /// 64 bits.
    W64(&'a [u8; 8]),
    /// 128 bits.
    W128(&'a [u8; 16]),
    /// 256 bits.
    W256(&'a [u8; 32]),
}

impl<'a> LabelBytes<'a> {
    /// The label with these bytes; `None` if no label has this number of bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<LabelBytes<'a>> {
        match bytes.len() {
            8 => bytes.try_into().ok().map(LabelBytes::W64),
            16 => bytes.try_into().ok().map(LabelBytes::W128),
            32 => bytes.try_into().ok().map(LabelBytes::W256),
            _ => None,
        }
    }

    /// The bytes, the most significant one first.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        match self {
            LabelBytes::W64(bytes) => bytes.as_slice(),
            LabelBytes::W128(bytes) => bytes.as_slice(),
            LabelBytes::W256(bytes) => bytes.as_slice(),
        }
    }

    /// The width code of a switch header (W2-3).
    #[must_use]
    pub const fn width_code(&self) -> u8 {
        match self {
            LabelBytes::W64(_) => 0,
            LabelBytes::W128(_) => 1,
            LabelBytes::W256(_) => 2,
        }
    }
}

impl fmt::Debug for LabelBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::hex::Hex(self.as_bytes()).fmt(f)
    }
}
