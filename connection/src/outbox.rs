//! Packets that the control part has made and that wait for the driver.

use std::collections::VecDeque;

use crate::heap::deque_bytes;
use crate::limits::OUTBOX_MAX;
use crate::packet::{PacketMark, Route};

/// Packets for the port, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    packets: VecDeque<Vec<u8>>,
    /// The packet that the driver copies now.
    current: Vec<u8>,
    dropped: u64,
}

impl Outbox {
    /// Adds a packet: a switch header and its payload. If too many packets wait, the new packet is
    /// dropped and counted. Its sender repeats everything that must arrive.
    pub(crate) fn push(&mut self, route: &Route, mark: PacketMark, payload: &[u8]) {
        let mut packet = vec![0; route.header_bytes() + payload.len()];
        route.write(&mut packet, mark);
        packet[route.header_bytes()..].copy_from_slice(payload);
        self.push_packet(packet);
    }

    /// Adds a complete packet.
    pub(crate) fn push_packet(&mut self, packet: Vec<u8>) {
        if self.packets.len() >= OUTBOX_MAX {
            self.dropped += 1;
        } else {
            self.packets.push_back(packet);
        }
    }

    /// The next packet.
    pub(crate) fn pop(&mut self) -> Option<&[u8]> {
        self.current = self.packets.pop_front()?;
        Some(&self.current)
    }

    /// Bytes of memory behind this value.
    pub(crate) fn memory_bytes(&self) -> usize {
        let packets = self.packets.iter().map(Vec::capacity);
        deque_bytes(&self.packets) + self.current.capacity() + packets.sum::<usize>()
    }

    /// Packets that were dropped because too many waited.
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }
}
