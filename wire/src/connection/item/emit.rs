//! Writes control items into the caller's buffer.

use core::fmt;

use super::{ControlItem, ITEM_PREFIX_BYTES, ProtocolRef};
use crate::connection::table::EntryNumber;
use crate::fields::Writer;
use crate::limits::{
    AGENT_BYTES_MAX, CONNECTION_ID_BYTES, GOODBYE_TEXT_BYTES_MAX, IDENTIFY_BYTES,
    ITEM_BODY_BYTES_MAX,
};

/// An item does not fit its buffer, or a field exceeds its maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ItemTooLong;

impl fmt::Display for ItemTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the control item does not fit, or a field of it is too long")
    }
}

impl core::error::Error for ItemTooLong {}

impl ControlItem<'_> {
    /// The length of this item in bytes, op and length included.
    #[must_use]
    pub const fn wire_bytes(&self) -> usize {
        ITEM_PREFIX_BYTES + self.body_bytes()
    }

    const fn body_bytes(&self) -> usize {
        match self {
            ControlItem::Padding { bytes } => *bytes as usize,
            ControlItem::Table { entries, .. } => 1 + entries.as_bytes().len(),
            ControlItem::TableAck { .. } | ControlItem::Stay { .. } => 1,
            ControlItem::Named { name, message } => name.wire_bytes() + message.len(),
            ControlItem::Unsupported { protocol: ProtocolRef::Number(_), .. } => 2,
            ControlItem::Unsupported { protocol: ProtocolRef::Name(name), .. } => {
                1 + name.as_bytes().len()
            }
            ControlItem::Leaving { text, .. } => 3 + text.len(),
            ControlItem::Goodbye { text, .. } => 6 + text.len(),
            ControlItem::GoodbyeAck { .. } | ControlItem::Path { .. } => 2,
            ControlItem::Identify => IDENTIFY_BYTES,
            ControlItem::IdentifyAnswer { label, agent, .. } => {
                4 + label.as_bytes().len() + agent.len()
            }
            ControlItem::ReceiveReport { .. } => 1 + 3 * 8,
            ControlItem::ConnectionId(_) => CONNECTION_ID_BYTES,
        }
    }

    /// Whether every field is within its maximum.
    fn is_bounded(&self) -> bool {
        self.body_bytes() <= ITEM_BODY_BYTES_MAX
            && match self {
                ControlItem::Table { first, entries } => entries.fit_from(*first),
                ControlItem::Leaving { text, .. } | ControlItem::Goodbye { text, .. } => {
                    text.len() <= GOODBYE_TEXT_BYTES_MAX
                }
                ControlItem::IdentifyAnswer { agent, .. } => agent.len() <= AGENT_BYTES_MAX,
                _ => true,
            }
    }

    /// Writes this item to the front of `out`; returns the rest of `out`, unchanged.
    ///
    /// # Errors
    /// [`ItemTooLong`] if `out` is shorter than [`wire_bytes`](ControlItem::wire_bytes), or if a
    /// field exceeds its maximum. In this case nothing is written.
    pub fn emit<'o>(&self, out: &'o mut [u8]) -> Result<&'o mut [u8], ItemTooLong> {
        if !self.is_bounded() || out.len() < self.wire_bytes() {
            return Err(ItemTooLong);
        }
        self.write(Writer(out)).map(|left| left.0).ok_or(ItemTooLong)
    }

    /// The caller has checked the lengths, so no cast truncates.
    fn write<'o>(&self, out: Writer<'o>) -> Option<Writer<'o>> {
        fn number(protocol: Option<EntryNumber>) -> u8 {
            protocol.map_or(0, EntryNumber::number)
        }
        let out = out.put(&[self.op()])?.put(&(self.body_bytes() as u16).to_be_bytes())?;
        match *self {
            ControlItem::Padding { bytes } => out.zeros(usize::from(bytes)),
            ControlItem::Table { first, entries } => {
                out.put(&[first.number()])?.put(entries.as_bytes())
            }
            ControlItem::TableAck { count } => out.put(&[count.number()]),
            ControlItem::Named { name, message } => name.put(out)?.put(message),
            ControlItem::Unsupported { code, protocol } => match protocol {
                ProtocolRef::Number(number) => out.put(&[code.0, number.number()]),
                ProtocolRef::Name(name) => out.put(&[code.0])?.put(name.as_bytes()),
            },
            ControlItem::Leaving { seconds, code, text } => {
                out.put(&seconds.to_be_bytes())?.put(&[code])?.put(text.as_bytes())
            }
            ControlItem::Stay { weight } => out.put(&[weight]),
            ControlItem::Goodbye { retry_after_s, code, protocol, text } => out
                .put(&retry_after_s.to_be_bytes())?
                .put(&[code, number(protocol)])?
                .put(text.as_bytes()),
            ControlItem::GoodbyeAck { code, protocol } => out.put(&[code, number(protocol)]),
            ControlItem::Identify => out.zeros(IDENTIFY_BYTES),
            ControlItem::IdentifyAnswer { hops_left, mtu, label, agent } => out
                .put(&[hops_left, label.width_code()])?
                .put(&mtu.to_be_bytes())?
                .put(label.as_bytes())?
                .put(agent.as_bytes()),
            ControlItem::Path { lane, state } => out.put(&[lane.number(), state as u8]),
            ControlItem::ReceiveReport { lane, packets, marked_ce, newest } => out
                .put(&[lane.number()])?
                .put(&packets.to_be_bytes())?
                .put(&marked_ce.to_be_bytes())?
                .put(&newest.to_be_bytes()),
            ControlItem::ConnectionId(id) => out.put(&id.0),
        }
    }
}
