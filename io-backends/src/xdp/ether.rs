//! The Ethernet header in front of a packet. It is written from a template, and its parser accepts
//! any bytes.
//!
//! ```text
//!  0               6               12          (12: 802.1Q, if the port has a VLAN)
//! +---------------+---------------+- - - - - -+-----------+-----------+
//! | destination   | source        | 8100  tag | ethertype | length    | packet ...
//! +---------------+---------------+- - - - - -+-----------+-----------+
//! ```
//! The length field is the length of the packet. Ethernet pads short frames to 60 bytes; without
//! this field, a short packet would arrive with the padding, and a sealed one could not be
//! decrypted.

use strowger_frame::Loss;

use super::group::Group;

/// Length of the header without a VLAN tag, and the maximum with one.
pub(super) const HEADER_BYTES: usize = 16;
pub(super) const HEADER_BYTES_MAX: usize = HEADER_BYTES + TAG_BYTES;
/// The part of the header that an interface's MTU does not include.
pub(super) const ETHERNET_BYTES: usize = 14;

const TAG_BYTES: usize = 4;
pub(super) const TAG_TYPE: u16 = 0x8100;
const VLAN_MASK: u16 = 0x0fff;

/// A MAC address.
pub(super) type Mac = [u8; 6];

/// A header without its length field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Template {
    bytes: [u8; HEADER_BYTES_MAX],
    len: u8,
}

/// The fields that all frames of a port share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) own: Mac,
    pub(super) ethertype: u16,
    pub(super) vlan: Option<u16>,
    /// The group whose frames the port also receives.
    pub(super) group: Option<Group>,
}

/// Whether the address is that of one station, so that it can belong to a neighbour.
pub(super) fn is_one_station(mac: Mac) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

impl Template {
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Writes the header of a packet of `packet_bytes` to the start of `to`.
    #[inline]
    pub(super) fn write(&self, packet_bytes: usize, to: &mut [u8]) {
        let len = self.len();
        to[..len].copy_from_slice(&self.bytes[..len]);
        to[len - 2..len].copy_from_slice(&(packet_bytes as u16).to_be_bytes());
    }
}

impl Shape {
    pub(super) fn header_bytes(&self) -> usize {
        HEADER_BYTES + if self.vlan.is_some() { TAG_BYTES } else { 0 }
    }

    /// Whether the port can send to this address without a mark: it is that of one station or of
    /// the group.
    pub(super) fn reaches(&self, to: Mac) -> bool {
        is_one_station(to) || self.group.is_some_and(|group| group.address == to)
    }

    /// Whether the frame is addressed to the group and its packet begins with the agreed byte.
    #[cold]
    fn is_for_group(&self, frame: &[u8]) -> bool {
        let (begin, group) = (self.header_bytes(), self.group);
        group.is_some_and(|group| {
            frame[..6] == group.address && frame.get(begin) == Some(&group.first_byte)
        })
    }

    /// Returns the header for frames to `to`.
    pub(super) fn template(&self, to: Mac) -> Template {
        let mut bytes = [0; HEADER_BYTES_MAX];
        bytes[..6].copy_from_slice(&to);
        bytes[6..12].copy_from_slice(&self.own);
        let mut at = 12;
        if let Some(vlan) = self.vlan {
            bytes[12..14].copy_from_slice(&TAG_TYPE.to_be_bytes());
            bytes[14..16].copy_from_slice(&(vlan & VLAN_MASK).to_be_bytes());
            at = 16;
        }
        bytes[at..at + 2].copy_from_slice(&self.ethertype.to_be_bytes());
        Template { bytes, len: self.header_bytes() as u8 }
    }

    /// Parses a frame. Returns `(source, begin, length)`: the offset at which the packet begins,
    /// and its length.
    #[inline]
    pub(super) fn read(&self, frame: &[u8]) -> Result<(Mac, usize, usize), Loss> {
        let begin = self.header_bytes();
        let header = frame.get(..begin).ok_or(Loss::Malformed)?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        if let Some(vlan) = self.vlan
            && (word(12) != TAG_TYPE || word(14) & VLAN_MASK != vlan)
        {
            return Err(Loss::UnknownSender);
        }
        if word(begin - 4) != self.ethertype {
            return Err(Loss::Malformed);
        }
        // Ethernet may deliver frames for other stations. If the switch forwarded them, they would
        // arrive twice.
        if header[..6] != self.own && !self.is_for_group(frame) {
            return Err(Loss::UnknownSender);
        }
        let len = usize::from(word(begin - 2));
        if len > frame.len() - begin {
            return Err(Loss::Malformed);
        }
        let mut source = [0; 6];
        source.copy_from_slice(&header[6..12]);
        Ok((source, begin, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger_testkit::wire_md::{assert_example, example};

    const US: Mac = [2, 0, 0, 0, 0, 1];
    const THEM: Mac = [2, 0, 0, 0, 0, 2];

    fn shapes(own: Mac) -> [Shape; 2] {
        [None, Some(7)].map(|vlan| Shape { own, ethertype: 0x88b5, vlan, group: None })
    }

    /// wire.md: W8-15, W8-16.
    #[test]
    fn headers_are_read_as_written_and_padding_is_removed() {
        for (us, them) in shapes(US).into_iter().zip(shapes(THEM)) {
            for (len, padding) in [(0, 60), (1, 45), (46, 0), (1400, 0), (100, 3)] {
                let begin = them.header_bytes();
                let mut frame = vec![0xaa; begin + len + padding];
                them.template(US).write(len, &mut frame);
                assert_eq!(us.read(&frame), Ok((THEM, begin, len)));
            }
        }
    }

    /// wire.md: W8-14, W8-15, W8-16, W8-18, W8-23.
    #[test]
    fn frames_are_those_of_the_examples() {
        let us =
            shapes(US).map(|shape| Shape { ethertype: super::super::limits::ETHERTYPE, ..shape });
        for (us, name) in us.into_iter().zip(["ethernet-frame", "ethernet-frame-vlan"]) {
            let frame = example(name);
            assert_eq!(frame.len(), 60, "the shortest frame");
            let begin = us.header_bytes();
            assert_eq!(us.read(&frame), Ok((THEM, begin, 24)));
            let them = Shape { own: THEM, ..us };
            let mut written = vec![0; frame.len()];
            written[begin..begin + 24].copy_from_slice(&frame[begin..begin + 24]);
            them.template(US).write(24, &mut written);
            assert_example(name, &written);
        }
    }

    /// wire.md: W8-17, W8-18, W8-19, W8-23.
    #[test]
    fn frames_for_others_and_malformed_frames_are_refused() {
        let [us, tagged] = shapes(US);
        let [them, _] = shapes(THEM);
        let mut frame = [0; 80];
        them.template(US).write(64, &mut frame);
        assert!(us.read(&frame).is_ok());
        assert_eq!(us.read(&frame[..79]), Err(Loss::Malformed));
        assert_eq!(tagged.read(&frame), Err(Loss::UnknownSender));
        for len in 0..HEADER_BYTES {
            assert_eq!(us.read(&frame[..len]), Err(Loss::Malformed));
        }
        frame[5] ^= 1;
        assert_eq!(us.read(&frame), Err(Loss::UnknownSender));
        frame[5] ^= 1;
        frame[13] ^= 1;
        assert_eq!(us.read(&frame), Err(Loss::Malformed));
    }

    /// wire.md: W8-20, W10-11.
    #[test]
    fn frames_to_the_group_are_received_only_with_the_agreed_first_byte() {
        let address = [3, 0, 0, 0, 0, 9];
        let group = Some(Group { address, first_byte: 0x70 });
        for (us, them) in shapes(US).into_iter().zip(shapes(THEM)) {
            let begin = them.header_bytes();
            let mut frame = vec![0; begin + 64];
            them.template(address).write(64, &mut frame);
            frame[begin] = 0x70;
            assert_eq!(
                us.read(&frame),
                Err(Loss::UnknownSender),
                "the port did not join the group"
            );
            assert!(!us.reaches(address));
            let us = Shape { group, ..us };
            assert_eq!(us.read(&frame), Ok((THEM, begin, 64)));
            assert!(us.reaches(address) && us.reaches(THEM) && !us.reaches([0xff; 6]));
            for first in (0..=255).filter(|first| *first != 0x70) {
                frame[begin] = first;
                assert_eq!(us.read(&frame), Err(Loss::UnknownSender));
            }
            // Frames to another group, to the broadcast address or without a packet are refused.
            frame[begin] = 0x70;
            for other in [[3, 0, 0, 0, 0, 8], [0xff; 6]] {
                frame[..6].copy_from_slice(&other);
                assert_eq!(us.read(&frame), Err(Loss::UnknownSender));
            }
            them.template(address).write(0, &mut frame);
            assert_eq!(us.read(&frame[..begin]), Err(Loss::UnknownSender));
        }
    }

    #[test]
    fn only_one_station_can_be_a_neighbour() {
        assert!(is_one_station(US));
        for other in [[0xff; 6], [0; 6], [1, 0, 0x5e, 0, 0, 1]] {
            assert!(!is_one_station(other));
        }
    }
}
