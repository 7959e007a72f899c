//! The headers of messages between a switch and a process (wire.md 8.3): parses them, and writes
//! those of the second form.

use strowger_frame::Loss;

use super::limits::{TRAIN_BYTES_MAX, TRAIN_PACKETS_MAX};

/// Length of the header of each packet in the first form: a slot number in network byte order.
pub(super) const HEADER_BYTES: usize = 4;
/// Header of a packet from the client to the switch.
pub(super) const HEADER_DOWN: [u8; HEADER_BYTES] = [0; HEADER_BYTES];
/// Header from the switch, without a packet: the switch serves another client, and the connection
/// ends. From the client it begins the request for the second form.
pub(super) const HEADER_BUSY: [u8; HEADER_BYTES] = [0xff; HEADER_BYTES];
/// Header of the switch's greeting, and of a train to the switch.
pub(super) const HEADER_SECOND: [u8; HEADER_BYTES] = [0xff, 0xff, 0xff, 0xfe];
/// Header of the reason why the switch refuses a client. It follows [`HEADER_BUSY`] in a separate
/// message.
pub(super) const HEADER_REFUSAL: [u8; HEADER_BYTES] = [0xff, 0xff, 0xff, 0xfd];
/// Length of the header of a train: slot number or [`HEADER_SECOND`], segment, zero.
pub(super) const TRAIN_HEADER_BYTES: usize = 8;
/// Version of the second form.
pub(super) const VERSION: u8 = 2;
/// The request for the second form: `ffffffff`, "strw", and the highest version that the client
/// knows.
pub(super) const HELLO: [u8; 9] = *b"\xff\xff\xff\xffstrw\x02";

/// A message from a process to its switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToSwitch {
    /// A packet in the first form. It begins behind 4 bytes.
    Packet {
        /// Length of the packet in bytes.
        len: usize,
    },
    /// The request for the second form. The switch answers with a greeting.
    Hello,
    /// A train. It begins behind 8 bytes.
    Train {
        /// Length of each packet except the last one, which may be shorter.
        segment: usize,
        /// Length of all packets together.
        len: usize,
    },
}

impl ToSwitch {
    /// Parses a message of `len` bytes. `start` has its first 9 bytes, or all if it is shorter.
    ///
    /// `is_greeted`: whether the switch has sent a greeting on this connection. Packets have up to
    /// `packet_bytes_max` bytes.
    ///
    /// # Errors
    /// The loss to count: `Malformed`, or `Truncated` if a packet is too long or the train has too
    /// many bytes.
    pub fn parse(
        start: &[u8],
        len: usize,
        is_greeted: bool,
        packet_bytes_max: usize,
    ) -> Result<Self, Loss> {
        let (&header, rest) = start.split_first_chunk::<HEADER_BYTES>().ok_or(Loss::Malformed)?;
        match header {
            HEADER_DOWN => {
                let len = len.saturating_sub(HEADER_BYTES);
                if len > packet_bytes_max {
                    return Err(Loss::Truncated);
                }
                Ok(Self::Packet { len })
            }
            HEADER_BUSY => {
                let is_hello = len == HELLO.len() && start.get(..8) == HELLO.get(..8);
                let version = start.get(8).copied().unwrap_or_default();
                if is_hello && version >= VERSION { Ok(Self::Hello) } else { Err(Loss::Malformed) }
            }
            HEADER_SECOND if is_greeted => {
                let &[a, b, 0, 0] = rest.first_chunk().ok_or(Loss::Malformed)? else {
                    return Err(Loss::Malformed);
                };
                let segment = usize::from(u16::from_be_bytes([a, b]));
                let len = len.saturating_sub(TRAIN_HEADER_BYTES);
                if segment == 0 || len == 0 {
                    return Err(Loss::Malformed);
                }
                if segment > packet_bytes_max || len > TRAIN_BYTES_MAX {
                    return Err(Loss::Truncated);
                }
                if len.div_ceil(segment) > TRAIN_PACKETS_MAX {
                    return Err(Loss::Malformed);
                }
                Ok(Self::Train { segment, len })
            }
            _ => Err(Loss::Malformed),
        }
    }
}

/// Writes the header of a train: `first` is the ingress slot, or [`HEADER_SECOND`].
pub(super) fn train_header(first: [u8; HEADER_BYTES], segment: usize) -> [u8; TRAIN_HEADER_BYTES] {
    let [a, b, c, d] = first;
    let [e, f] = (segment as u16).to_be_bytes();
    [a, b, c, d, e, f, 0, 0]
}
