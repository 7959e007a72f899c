//! The packets of an end-to-end connection between two nodes (wire.md section 6).
//!
//! A connection packet is the payload of a switch packet without the control flag that an endpoint
//! sends or receives. Its header has the format of a link header:
//!
//! ```text
//! +-------------------+-----------------+--------------------------+-----------+
//! | connection header | protocol number | message                  | tag       |
//! | 8 bytes           | 1 byte          |                          | 16 bytes  |
//! +-------------------+-----------------+--------------------------+-----------+
//! ```
//!
//! | module | format |
//! |---|---|
//! | [`header`] | the header: kind, lane, index, counter |
//! | [`message`] | what follows the header: sealed and pass-through messages, path challenges, "unknown connection" |
//! | [`item`] | control items: what the two ends say about the connection itself |
//! | [`table`] | protocol names, and the table that gives them numbers |
//! | [`hello_field`] | the fields that a connection's hello has behind the protocol table |
//!
//! This module reads and writes bytes. It neither seals packets nor decides how to answer them.

pub mod header;
pub mod hello_field;
pub mod item;
pub mod message;
pub mod table;

pub use header::{ConnectionHeader, ConnectionHeaderError, ConnectionKind};
pub use hello_field::{ConnectionId, EarlyMessage, EarlyResult, HelloFields, TableState};
pub use item::{ControlItem, ControlItems};
pub use message::{PassThrough, PathToken, SealedBody, UnknownConnection};
pub use table::{EntryCount, EntryFlags, EntryNumber, ProtocolName, TableEntries, TableEntry};
