//! Encodes control messages as bytes.

use core::fmt;
use core::ops::Deref;

use super::{
    ANNOUNCE_BYTES, ANNOUNCED_BYTES, FIND_BYTES, HopWord, Host, IDENTITY_BYTES, Message, NO_SLOT,
    OBSERVED_BYTES, PREFIX_BYTES, RESOLVE_BYTES, Reason, TRACE_BYTES, VERSION, kind,
    lookup::write_observed,
};
use crate::fields::Writer;
use crate::limits::{CONTROL_BYTES_MAX, FIND_NONCE_BYTES, FIND_TAG_BYTES, GOODBYE_TEXT_BYTES_MAX};
use crate::switch_header::HEADER_BYTES_MAX;

/// A message does not fit into its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NoRoom;

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the control message does not fit")
    }
}

impl core::error::Error for NoRoom {}

impl Message<'_> {
    /// The length of this message in bytes.
    #[must_use]
    pub const fn wire_bytes(&self) -> usize {
        let rest = match self {
            Message::Ping { payload, .. } | Message::Pong { payload, .. } => 4 + payload.len(),
            Message::TraceRequest { .. } | Message::TraceReply { .. } => TRACE_BYTES - PREFIX_BYTES,
            Message::IdentityRequest { .. } | Message::IdentityReply { .. } => {
                IDENTITY_BYTES - PREFIX_BYTES
            }
            Message::Error { offending, .. } | Message::Congestion { offending } => offending.len(),
            Message::TooBig { offending, .. } => 2 + offending.len(),
            Message::SlotMoved { offending, .. } => 8 + offending.len(),
            Message::SlotGone { offending, .. } => 4 + offending.len(),
            Message::Goodbye { text, .. } => 4 + text.len(),
            Message::Announce { .. } => ANNOUNCE_BYTES - PREFIX_BYTES,
            Message::Announced { .. } => ANNOUNCED_BYTES - PREFIX_BYTES,
            Message::Find { .. } | Message::Found { .. } => FIND_BYTES - PREFIX_BYTES,
            Message::ObservedRequest { .. } | Message::ObservedReply { .. } => {
                OBSERVED_BYTES - PREFIX_BYTES
            }
            Message::Resolve { .. } | Message::Resolved { .. } => RESOLVE_BYTES - PREFIX_BYTES,
        };
        PREFIX_BYTES + rest
    }

    /// Writes the whole message to the front of `out`; returns the rest of `out`, unchanged.
    ///
    /// # Errors
    /// [`NoRoom`] if `out` is shorter than [`wire_bytes`](Message::wire_bytes). In this case
    /// nothing is written.
    pub fn emit<'o>(&self, out: &'o mut [u8]) -> Result<&'o mut [u8], NoRoom> {
        if out.len() < self.wire_bytes() {
            return Err(NoRoom);
        }
        self.write(Writer(out)).map(|left| left.0).ok_or(NoRoom)
    }

    fn write<'o>(&self, out: Writer<'o>) -> Option<Writer<'o>> {
        let prefix = |kind, code| [VERSION, kind, code, 0];
        match *self {
            Message::Ping { id, payload } => {
                out.put(&prefix(kind::PING, 0))?.put(&id.to_be_bytes())?.put(payload)
            }
            Message::Pong { id, payload } => {
                out.put(&prefix(kind::PONG, 0))?.put(&id.to_be_bytes())?.put(payload)
            }
            Message::TraceRequest { id } => out
                .put(&prefix(kind::TRACE_REQUEST, 0))?
                .put(&id.to_be_bytes())?
                .zeros(TRACE_BYTES - PREFIX_BYTES - 4),
            Message::TraceReply { id, hop } => {
                let code = hop.discard.map_or(0, Reason::number);
                out.put(&prefix(kind::TRACE_REPLY, code))?.put(&id.to_be_bytes())?.hop(&hop)
            }
            Message::IdentityRequest { id } => out
                .put(&prefix(kind::IDENTITY_REQUEST, 0))?
                .put(&id.to_be_bytes())?
                .zeros(IDENTITY_BYTES - PREFIX_BYTES - 4),
            Message::IdentityReply { id, identity, link_key } => out
                .put(&prefix(kind::IDENTITY_REPLY, 0))?
                .put(&id.to_be_bytes())?
                .put(identity)?
                .put(link_key),
            Message::Error { why, offending } => {
                out.put(&prefix(kind::ERROR, why.number()))?.put(offending)
            }
            Message::TooBig { packet_bytes_max, offending } => out
                .put(&prefix(kind::TOO_BIG, 0))?
                .put(&packet_bytes_max.to_be_bytes())?
                .put(offending),
            Message::SlotMoved { from, to, offending } => out
                .put(&prefix(kind::SLOT_MOVED, 0))?
                .put(&from.to_be_bytes())?
                .put(&to.to_be_bytes())?
                .put(offending),
            Message::SlotGone { slot, offending } => {
                out.put(&prefix(kind::SLOT_GONE, 0))?.put(&slot.to_be_bytes())?.put(offending)
            }
            Message::Congestion { offending } => {
                out.put(&prefix(kind::CONGESTION, 0))?.put(offending)
            }
            Message::Goodbye { code, retry_after_s, text } => out
                .put(&prefix(kind::GOODBYE, code))?
                .put(&retry_after_s.to_be_bytes())?
                .put(text.as_bytes()),
            Message::Announce { id, announcement } => {
                announcement.write(out.put(&prefix(kind::ANNOUNCE, 0))?.put(&id.to_be_bytes())?)
            }
            Message::Announced { id, verdict, seconds } => out
                .put(&prefix(kind::ANNOUNCED, verdict.number()))?
                .put(&id.to_be_bytes())?
                .put(&seconds.to_be_bytes()),
            Message::Find { nonce, tag } => out
                .put(&prefix(kind::FIND, 0))?
                .put(nonce)?
                .put(tag)?
                .zeros(FIND_BYTES - PREFIX_BYTES - FIND_NONCE_BYTES - FIND_TAG_BYTES),
            Message::Found { nonce, host } => {
                Host::write(host.as_ref(), out.put(&prefix(kind::FOUND, 0))?.put(nonce)?)
            }
            Message::ObservedRequest { id } => out
                .put(&prefix(kind::OBSERVED_REQUEST, 0))?
                .put(&id.to_be_bytes())?
                .zeros(OBSERVED_BYTES - PREFIX_BYTES - 4),
            Message::ObservedReply { id, address } => {
                let out = out.put(&prefix(kind::OBSERVED_REPLY, 0))?;
                write_observed(address, out.put(&id.to_be_bytes())?)
            }
            Message::Resolve { id, target } => {
                target.write(out.put(&prefix(kind::RESOLVE, 0))?.put(&id.to_be_bytes())?)
            }
            Message::Resolved { id, resolution } => {
                resolution.write(out.put(&prefix(kind::RESOLVED, 0))?.put(&id.to_be_bytes())?)
            }
        }
    }

    /// The message in an owned buffer. A payload, a goodbye text or an offending header that is too
    /// long is truncated to its maximum length.
    #[must_use]
    pub fn to_bytes(&self) -> MessageBytes {
        let mut bytes = [0; CONTROL_BYTES_MAX];
        // The asserts below check that every truncated message fits.
        let left = self.cut().emit(&mut bytes).map_or(CONTROL_BYTES_MAX, |left| left.len());
        MessageBytes { bytes, length: CONTROL_BYTES_MAX - left }
    }

    /// This message, with payload, text or offending header truncated so that the message has at
    /// most [`CONTROL_BYTES_MAX`] bytes.
    fn cut(&self) -> Message<'_> {
        let front = |bytes: &[u8], most: usize| bytes.len().min(most);
        let mut message = *self;
        match &mut message {
            Message::Ping { payload, .. } | Message::Pong { payload, .. } => {
                *payload = &payload[..front(payload, PAYLOAD_BYTES_MAX)];
            }
            Message::Goodbye { text, .. } => {
                let most = front(text.as_bytes(), GOODBYE_TEXT_BYTES_MAX);
                let end = (0..=most).rev().find(|&end| text.is_char_boundary(end));
                *text = &text[..end.unwrap_or(0)];
            }
            Message::Error { offending, .. }
            | Message::TooBig { offending, .. }
            | Message::SlotMoved { offending, .. }
            | Message::SlotGone { offending, .. }
            | Message::Congestion { offending } => {
                *offending = &offending[..front(offending, HEADER_BYTES_MAX)];
            }
            Message::TraceRequest { .. }
            | Message::TraceReply { .. }
            | Message::IdentityRequest { .. }
            | Message::IdentityReply { .. }
            | Message::Announce { .. }
            | Message::Announced { .. }
            | Message::Find { .. }
            | Message::Found { .. }
            | Message::ObservedRequest { .. }
            | Message::ObservedReply { .. }
            | Message::Resolve { .. }
            | Message::Resolved { .. } => {}
        }
        message
    }
}

/// The longest payload of a ping.
const PAYLOAD_BYTES_MAX: usize = CONTROL_BYTES_MAX - PREFIX_BYTES - 4;

const _: () = assert!(PREFIX_BYTES + 8 + HEADER_BYTES_MAX <= CONTROL_BYTES_MAX);
const _: () = assert!(PREFIX_BYTES + 4 + GOODBYE_TEXT_BYTES_MAX <= CONTROL_BYTES_MAX);
const _: () = assert!(TRACE_BYTES <= CONTROL_BYTES_MAX && IDENTITY_BYTES <= CONTROL_BYTES_MAX);
const _: () = assert!(ANNOUNCE_BYTES <= CONTROL_BYTES_MAX && RESOLVE_BYTES <= CONTROL_BYTES_MAX);
const _: () = assert!(FIND_BYTES <= CONTROL_BYTES_MAX && OBSERVED_BYTES <= CONTROL_BYTES_MAX);

impl<'a> Writer<'a> {
    fn hop(self, hop: &HopWord) -> Option<Writer<'a>> {
        let [_, slot @ ..] = hop.slot_out.unwrap_or(NO_SLOT).to_be_bytes();
        self.put(&hop.slot_in.to_be_bytes())?
            .put(&[hop.behind as u8])?
            .put(&slot)?
            .put(&hop.held_ns.to_be_bytes())?
            .put(&hop.worker_ns.to_be_bytes())?
            .put(&hop.queue_frames.to_be_bytes())?
            .put(&hop.packet_bytes_max.to_be_bytes())
    }
}

/// The bytes of one message: at most [`CONTROL_BYTES_MAX`].
#[derive(Clone)]
pub struct MessageBytes {
    bytes: [u8; CONTROL_BYTES_MAX],
    length: usize,
}

impl Deref for MessageBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl AsRef<[u8]> for MessageBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for MessageBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageBytes({})", self.escape_ascii())
    }
}
