//! Control messages, as in cmsg(3). The messages of a received datagram contain its segment size,
//! its destination and the socket's drop counter. The messages of a send set its segment size and
//! source address. The parser accepts any bytes without a panic.

use std::mem;

use super::name::{Key, Name};

/// Room for one `UDP_GRO`, one `SO_RXQ_OVFL` and one `IP_PKTINFO` or `IPV6_PKTINFO` message.
pub(super) const CONTROL_IN_BYTES: usize = 2 * CONTROL_MESSAGE_BYTES + SOURCE_MESSAGE_BYTES;
/// Room for the control messages of a send: segment size and source address.
pub(super) const CONTROL_OUT_BYTES: usize = CONTROL_MESSAGE_BYTES + SOURCE_MESSAGE_BYTES;
/// Room for one `IPV6_PKTINFO` message, or a shorter `IP_PKTINFO`.
const SOURCE_MESSAGE_BYTES: usize = (HEAD_BYTES + 20).next_multiple_of(8);
/// Room for one message with up to 8 bytes of data.
pub(super) const CONTROL_MESSAGE_BYTES: usize = HEAD_BYTES + 8;
/// The data that io_uring writes in front of a datagram: a header, the source address and the
/// control messages.
pub(super) const LEAD_BYTES: usize = URING_HEAD_BYTES + Name::ROOM + CONTROL_IN_BYTES;

const HEAD_BYTES: usize = mem::size_of::<libc::cmsghdr>();
const URING_HEAD_BYTES: usize = 16;

const _: () = assert!(HEAD_BYTES == 16, "64-bit systems only: see `messages`");
const _: () = assert!(mem::offset_of!(libc::cmsghdr, cmsg_level) == 8);
const _: () = assert!(mem::offset_of!(libc::cmsghdr, cmsg_type) == 12);
// Aligns the lead to 8 bytes. The datagram after it begins at a multiple of 64.
const _: () = assert!(LEAD_BYTES.is_multiple_of(8));

/// A received datagram, or a train of them, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DatagramInfo {
    pub(super) from: Option<Key>,
    /// The local address to which it was sent, if the socket reports that.
    pub(super) to: Option<Source>,
    pub(super) bytes: usize,
    /// Length of every datagram of a train except the last one. It is 0 for a single datagram.
    pub(super) segment: usize,
    /// The drop counter of the socket, if the kernel reported it.
    pub(super) drops: Option<u32>,
    pub(super) fault: Option<Fault>,
}

/// A local address from which to send.
///
/// An IPv4 address is in the low 32 bits. On a dual-stack socket it is an IPv4-mapped address (RFC
/// 4291, section 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source(pub(super) u128);

/// The reason why a datagram is unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It was longer than its buffer.
    Truncated,
    /// The kernel's report about it is inconsistent.
    Malformed,
}

/// Room for control messages, aligned as the kernel requires.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct ControlRoom<const BYTES: usize>(pub(super) [u8; BYTES]);

impl<const BYTES: usize> ControlRoom<BYTES> {
    pub(super) const EMPTY: Self = Self([0; BYTES]);
}

/// Makes the control message with which the kernel splits a send into segments of this many bytes.
pub(super) fn segment_message(bytes: u16) -> ControlRoom<CONTROL_MESSAGE_BYTES> {
    let mut room = ControlRoom::EMPTY;
    room.0[..8].copy_from_slice(&(HEAD_BYTES + 2).to_ne_bytes());
    room.0[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    room.0[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
    room.0[16..18].copy_from_slice(&bytes.to_ne_bytes());
    room
}

/// Writes the control message with the source address of a send; returns its length.
pub(super) fn write_source(room: &mut [u8], source: Source, is_v4: bool) -> usize {
    let (level, kind, bytes) = match is_v4 {
        true => (libc::IPPROTO_IP, libc::IP_PKTINFO, 12),
        false => (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 20),
    };
    room.fill(0);
    room[..8].copy_from_slice(&(HEAD_BYTES + bytes).to_ne_bytes());
    room[8..12].copy_from_slice(&level.to_ne_bytes());
    room[12..16].copy_from_slice(&kind.to_ne_bytes());
    // Interface index 0 means that the route decides.
    match is_v4 {
        true => room[20..24].copy_from_slice(&(source.0 as u32).to_be_bytes()),
        false => room[16..32].copy_from_slice(&source.0.to_be_bytes()),
    }
    (HEAD_BYTES + bytes).next_multiple_of(8)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl DatagramInfo {
    /// Combines the results of `recvmsg`: the message's `flags`, and the bytes written to `name`
    /// and `control`.
    #[inline]
    pub(super) fn read(bytes: usize, flags: i32, name: &[u8], mut control: &[u8]) -> Self {
        let mut info =
            Self { from: Key::read(name), to: None, bytes, segment: 0, drops: None, fault: None };
        if flags & libc::MSG_CTRUNC != 0 || info.from.is_none() {
            info.fault = Some(Fault::Malformed);
        }
        while control.len() > HEAD_BYTES {
            let Some(message) = info.read_control(control) else {
                info.fault = Some(Fault::Malformed);
                break;
            };
            control = control.get(message.next_multiple_of(8)..).unwrap_or_default();
        }
        if info.segment > usize::from(u16::MAX)
            || (info.segment == 0 && bytes > usize::from(u16::MAX))
        {
            info.fault = Some(Fault::Malformed);
        }
        if flags & libc::MSG_TRUNC != 0 {
            info.fault = Some(Fault::Truncated);
        }
        info
    }

    /// Reads the first message in `control`; returns its length field.
    #[inline]
    fn read_control(&mut self, control: &[u8]) -> Option<usize> {
        let len = usize::from_ne_bytes(*control.first_chunk()?);
        if len < HEAD_BYTES || len > control.len() {
            return None;
        }
        match (word(control, 8)? as i32, word(control, 12)? as i32) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // A negative size becomes larger than every limit, and the check of the limit
                // rejects it.
                self.segment = word(&control[..len], HEAD_BYTES)? as usize;
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                self.drops = Some(word(&control[..len], HEAD_BYTES)?);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // The local address follows the interface index. It differs from the destination
                // address in the header if that is a multicast group.
                let own: [u8; 4] = *control[..len].get(HEAD_BYTES + 4..)?.first_chunk()?;
                self.to = Some(Source(u32::from_be_bytes(own).into()));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let own: [u8; 16] = *control[..len].get(HEAD_BYTES..)?.first_chunk()?;
                // A multicast group cannot be the source of a reply.
                self.to = (own[0] != 0xff).then_some(Source(u128::from_be_bytes(own)));
            }
            _ => {}
        }
        Some(len)
    }

    /// As [`read`](Self::read), with the data that io_uring wrote in front of the datagram.
    ///
    /// `result` is the result of the completion. It includes the length of that data.
    #[inline]
    pub(super) fn read_lead(result: usize, lead: &[u8; LEAD_BYTES]) -> Self {
        let word = |at| word(lead, at).unwrap_or_default();
        let (name_bytes, control_bytes, flags) = (word(0) as usize, word(4) as usize, word(12));
        let name = &lead[URING_HEAD_BYTES..][..name_bytes.min(Name::ROOM)];
        let control = &lead[URING_HEAD_BYTES + Name::ROOM..][..control_bytes.min(CONTROL_IN_BYTES)];
        let bytes = result.checked_sub(LEAD_BYTES);
        let mut info = Self::read(bytes.unwrap_or_default(), flags as i32, name, control);
        if bytes.is_none() {
            info.fault = Some(Fault::Malformed);
        }
        info
    }

    /// Number of datagrams in the train.
    #[inline]
    pub(super) fn frames(&self) -> u64 {
        if self.segment == 0 || self.bytes <= self.segment {
            return 1;
        }
        self.bytes.div_ceil(self.segment) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: i32, kind: i32, value: u32) -> [u8; CONTROL_MESSAGE_BYTES] {
        let mut bytes = [0; CONTROL_MESSAGE_BYTES];
        bytes[..8].copy_from_slice(&(HEAD_BYTES + 4).to_ne_bytes());
        bytes[8..12].copy_from_slice(&level.to_ne_bytes());
        bytes[12..16].copy_from_slice(&kind.to_ne_bytes());
        bytes[16..20].copy_from_slice(&value.to_ne_bytes());
        bytes
    }

    fn name() -> Name {
        Name::of("127.0.0.1:9".parse().unwrap())
    }

    #[test]
    fn a_train_has_its_segment_size_and_the_drop_counter() {
        let gro = message(libc::SOL_UDP, libc::UDP_GRO, 100);
        let drops = message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 7);
        for control in [[gro, drops].concat(), [drops, gro].concat()] {
            let info = DatagramInfo::read(250, 0, name().bytes(16), &control);
            assert_eq!((info.segment, info.drops, info.fault), (100, Some(7), None));
            assert_eq!(info.frames(), 3);
        }
    }

    #[test]
    fn a_datagram_alone_is_one_frame_even_without_bytes() {
        for bytes in [0, 1, 65_507] {
            assert_eq!(DatagramInfo::read(bytes, 0, name().bytes(16), &[]).frames(), 1);
        }
    }

    #[test]
    fn truncated_and_malformed_datagrams_are_marked() {
        let fault = |bytes, flags, control: &[u8]| {
            DatagramInfo::read(bytes, flags, name().bytes(16), control).fault
        };
        assert_eq!(fault(10, libc::MSG_TRUNC, &[]), Some(Fault::Truncated));
        assert_eq!(fault(10, libc::MSG_CTRUNC, &[]), Some(Fault::Malformed));
        assert_eq!(fault(65_536, 0, &[]), Some(Fault::Malformed));
        let negative = message(libc::SOL_UDP, libc::UDP_GRO, -5_i32 as u32);
        assert_eq!(fault(10, 0, &negative), Some(Fault::Malformed));
        assert_eq!(fault(10, 0, &[0xff; 40]), Some(Fault::Malformed));
        assert_eq!(fault(10, 0, &[0; 40]), Some(Fault::Malformed));
        assert_eq!(DatagramInfo::read(10, 0, &[], &[]).fault, Some(Fault::Malformed));
    }

    #[test]
    fn r2_no_lead_panics() {
        // A simple generator, because the test needs many bytes but not good randomness.
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut lead = [0_u8; LEAD_BYTES];
            for byte in &mut lead {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = if state >> 63 == 0 { 0 } else { (state >> 40) as u8 };
            }
            let info = DatagramInfo::read_lead((state >> 50) as usize, &lead);
            assert!(info.frames() >= 1);
        }
        assert_eq!(DatagramInfo::read_lead(5, &[0; LEAD_BYTES]).fault, Some(Fault::Malformed));
    }
}
