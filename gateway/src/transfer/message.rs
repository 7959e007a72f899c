//! The messages of a transfer. Numbers have their most significant byte first.
//!
//! | message | bytes |
//! |---|---|
//! | offer | `00 01`, `strowger-file-1`, id (4), length (8; all bits set: not known yet) |
//! | data | `00 02`, id (4), offset (8), bytes |
//! | ack | `00 03`, id (4), received below (8), window end (8), up to 16 times: start (8), end (8) |
//! | end | `00 04`, id (4), length (8), BLAKE2s-256 of all bytes (32) |
//! | result | `00 05`, id (4), code (1) |

use super::Verdict;
use crate::limits::TRANSFER_RANGES_MAX;

/// The text of an offer: name and version of the protocol.
const OFFER: &[u8] = b"strowger-file-1";
/// Bytes of a data message in front of the file's bytes.
pub(super) const DATA_HEADER_BYTES: usize = 14;
/// Bytes of the hash.
pub(super) const HASH_BYTES: usize = 32;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message<'m> {
    /// The sender offers a file.
    Offer { id: u32, length: Option<u64> },
    /// Bytes of the file.
    Data { id: u32, offset: u64, bytes: &'m [u8] },
    /// The receiver has all bytes below `received`, and those of the ranges. It accepts bytes below
    /// `window_end`.
    Ack { id: u32, received: u64, window_end: u64, ranges: Vec<(u64, u64)> },
    /// The length and the hash of the file.
    End { id: u32, length: u64, hash: [u8; HASH_BYTES] },
    /// The verdict of the receiver.
    Result { id: u32, verdict: Verdict },
}

/// The refusal with which a program that accepts no file answers an offer; `None` for any other
/// message.
pub(crate) fn refusal_of(message: &[u8]) -> Option<Vec<u8>> {
    let Some(Message::Offer { id, .. }) = Message::parse(message) else { return None };
    let mut refusal = Vec::new();
    Message::Result { id, verdict: Verdict::NoFile }.write(&mut refusal);
    Some(refusal)
}

impl<'m> Message<'m> {
    /// Reads a message; `None` if the bytes are not one.
    pub(super) fn parse(bytes: &'m [u8]) -> Option<Message<'m>> {
        let (kind, rest) = bytes.split_first_chunk::<2>()?;
        if *kind == [0, 1] {
            let (id, length) = number32(rest.strip_prefix(OFFER)?)?;
            let (length, rest) = number(length)?;
            let length = (length != u64::MAX).then_some(length);
            return rest.is_empty().then_some(Message::Offer { id, length });
        }
        let (id, rest) = number32(rest)?;
        match *kind {
            [0, 2] => {
                let (offset, bytes) = number(rest)?;
                offset.checked_add(bytes.len() as u64)?;
                Some(Message::Data { id, offset, bytes })
            }
            [0, 3] => {
                let (received, rest) = number(rest)?;
                let (window_end, mut rest) = number(rest)?;
                let mut ranges = Vec::new();
                while !rest.is_empty() && ranges.len() < TRANSFER_RANGES_MAX {
                    let (start, after) = number(rest)?;
                    let (end, after) = number(after)?;
                    if start >= end {
                        return None;
                    }
                    ranges.push((start, end));
                    rest = after;
                }
                rest.is_empty().then_some(Message::Ack { id, received, window_end, ranges })
            }
            [0, 4] => {
                let (length, hash) = number(rest)?;
                Some(Message::End { id, length, hash: hash.try_into().ok()? })
            }
            [0, 5] => {
                let [code] = rest else { return None };
                Some(Message::Result { id, verdict: Verdict::of_code(*code)? })
            }
            _ => None,
        }
    }

    /// Replaces the content of the buffer with the message.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        to.clear();
        match self {
            Message::Offer { id, length } => {
                to.extend([0, 1]);
                to.extend(OFFER);
                to.extend(id.to_be_bytes());
                to.extend(length.unwrap_or(u64::MAX).to_be_bytes());
            }
            Message::Data { id, offset, bytes } => {
                to.extend([0, 2]);
                to.extend(id.to_be_bytes());
                to.extend(offset.to_be_bytes());
                to.extend(*bytes);
            }
            Message::Ack { id, received, window_end, ranges } => {
                to.extend([0, 3]);
                to.extend(id.to_be_bytes());
                to.extend(received.to_be_bytes());
                to.extend(window_end.to_be_bytes());
                for (start, end) in ranges {
                    to.extend(start.to_be_bytes());
                    to.extend(end.to_be_bytes());
                }
            }
            Message::End { id, length, hash } => {
                to.extend([0, 4]);
                to.extend(id.to_be_bytes());
                to.extend(length.to_be_bytes());
                to.extend(hash);
            }
            Message::Result { id, verdict } => {
                to.extend([0, 5]);
                to.extend(id.to_be_bytes());
                to.push(*verdict as u8);
            }
        }
    }
}

fn number32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}
