//! Parses control messages.

use core::cmp::Ordering;

use super::{
    ANNOUNCE_BYTES, ANNOUNCED_BYTES, AnnounceVerdict, Announcement, Behind, FIND_BYTES, HopWord,
    Host, IDENTITY_BYTES, Message, MessageError, NO_SLOT, OBSERVED_BYTES, PREFIX_BYTES,
    RESOLVE_BYTES, Reason, Resolution, ResolveTarget, TRACE_BYTES, VERSION, kind,
    lookup::parse_observed,
};
use crate::fields::Reader;
use crate::limits::GOODBYE_TEXT_BYTES_MAX;
use crate::switch_header::header_bytes_of;

impl<'a> Message<'a> {
    /// Reads a message from `bytes`, which are all bytes after the switch header.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let mut fields = Fields(Reader(bytes));
        let [version, kind, code, _] = *fields.take::<PREFIX_BYTES>()?;
        if version != VERSION {
            return Err(MessageError::Version);
        }
        Ok(match kind {
            kind::PING => Self::Ping { id: fields.u32()?, payload: fields.0.0 },
            kind::PONG => Self::Pong { id: fields.u32()?, payload: fields.0.0 },
            kind::TRACE_REQUEST => {
                fields.check_length(TRACE_BYTES)?;
                Self::TraceRequest { id: fields.u32()? }
            }
            kind::TRACE_REPLY => {
                fields.check_length(TRACE_BYTES)?;
                Self::trace_reply(code, &mut fields)?
            }
            kind::IDENTITY_REQUEST => {
                fields.check_length(IDENTITY_BYTES)?;
                Self::IdentityRequest { id: fields.u32()? }
            }
            kind::IDENTITY_REPLY => {
                fields.check_length(IDENTITY_BYTES)?;
                Self::IdentityReply {
                    id: fields.u32()?,
                    identity: fields.take()?,
                    link_key: fields.take()?,
                }
            }
            kind::ERROR => Self::Error { why: Reason::new(code), offending: fields.header()? },
            kind::TOO_BIG => {
                let packet_bytes_max = fields.u16()?;
                Self::TooBig { packet_bytes_max, offending: fields.header()? }
            }
            kind::SLOT_MOVED => {
                let (from, to) = (fields.u32()?, fields.u32()?);
                Self::SlotMoved { from, to, offending: fields.header()? }
            }
            kind::SLOT_GONE => Self::SlotGone { slot: fields.u32()?, offending: fields.header()? },
            kind::CONGESTION => Self::Congestion { offending: fields.header()? },
            kind::GOODBYE => {
                let retry_after_s = fields.u32()?;
                if fields.0.0.len() > GOODBYE_TEXT_BYTES_MAX {
                    return Err(MessageError::TooLong);
                }
                let text = core::str::from_utf8(fields.0.0).map_err(|_| MessageError::Field)?;
                Self::Goodbye { code, retry_after_s, text }
            }
            kind::ANNOUNCE => {
                fields.check_length(ANNOUNCE_BYTES)?;
                let id = fields.u32()?;
                Self::Announce { id, announcement: Announcement::parse(&mut fields.0)? }
            }
            kind::ANNOUNCED => {
                fields.check_length(ANNOUNCED_BYTES)?;
                let (id, verdict) = (fields.u32()?, AnnounceVerdict::new(code));
                Self::Announced { id, verdict, seconds: fields.u32()? }
            }
            kind::FIND => {
                fields.check_length(FIND_BYTES)?;
                Self::Find { nonce: fields.take()?, tag: fields.take()? }
            }
            kind::FOUND => {
                fields.check_length(FIND_BYTES)?;
                Self::Found { nonce: fields.take()?, host: Host::parse(&mut fields.0)? }
            }
            kind::OBSERVED_REQUEST => {
                fields.check_length(OBSERVED_BYTES)?;
                Self::ObservedRequest { id: fields.u32()? }
            }
            kind::OBSERVED_REPLY => {
                fields.check_length(OBSERVED_BYTES)?;
                Self::ObservedReply { id: fields.u32()?, address: parse_observed(&mut fields.0)? }
            }
            kind::RESOLVE => {
                fields.check_length(RESOLVE_BYTES)?;
                Self::Resolve { id: fields.u32()?, target: ResolveTarget::parse(&mut fields.0)? }
            }
            kind::RESOLVED => {
                fields.check_length(RESOLVE_BYTES)?;
                let id = fields.u32()?;
                Self::Resolved { id, resolution: Resolution::parse(&mut fields.0)? }
            }
            _ => return Err(MessageError::Kind),
        })
    }

    fn trace_reply(code: u8, fields: &mut Fields<'_>) -> Result<Self, MessageError> {
        let id = fields.u32()?;
        let slot_in = fields.u32()?;
        // The high byte of this field holds the type of the egress. The low three bytes hold the
        // slot.
        let [behind, slot @ ..] = *fields.take::<4>()?;
        let [a, b, c] = slot;
        let slot_out = u32::from_be_bytes([0, a, b, c]);
        let behind = Behind::from_number(behind).ok_or(MessageError::Field)?;
        Ok(Self::TraceReply {
            id,
            hop: HopWord {
                slot_in,
                slot_out: (slot_out != NO_SLOT >> 8).then_some(slot_out),
                behind,
                discard: (code != 0).then_some(Reason::new(code)),
                held_ns: fields.u64()?,
                worker_ns: fields.u64()?,
                queue_frames: fields.u16()?,
                packet_bytes_max: fields.u16()?,
            },
        })
    }
}

/// The fields of a message that have not been read yet.
struct Fields<'a>(Reader<'a>);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], MessageError> {
        self.0.take().ok_or(MessageError::TooShort)
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        self.0.u16().ok_or(MessageError::TooShort)
    }

    fn u32(&mut self) -> Result<u32, MessageError> {
        self.0.u32().ok_or(MessageError::TooShort)
    }

    fn u64(&mut self) -> Result<u64, MessageError> {
        self.0.u64().ok_or(MessageError::TooShort)
    }

    /// Checks that the whole message has exactly `message_bytes` (W5-16). Call it after the prefix
    /// has been read.
    fn check_length(&self, message_bytes: usize) -> Result<(), MessageError> {
        match (PREFIX_BYTES + self.0.0.len()).cmp(&message_bytes) {
            Ordering::Less => Err(MessageError::TooShort),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(MessageError::TooLong),
        }
    }

    /// The remaining bytes, which must be exactly one switch header. Its first byte determines its
    /// length.
    fn header(&mut self) -> Result<&'a [u8], MessageError> {
        let rest = self.0.0;
        let first = rest.first().ok_or(MessageError::TooShort)?;
        let bytes = header_bytes_of(*first).ok_or(MessageError::Field)?;
        match rest.len().cmp(&bytes) {
            Ordering::Less => Err(MessageError::TooShort),
            Ordering::Equal => Ok(rest),
            Ordering::Greater => Err(MessageError::TooLong),
        }
    }
}
