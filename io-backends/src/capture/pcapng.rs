//! Writes those blocks of a pcapng file that captures use (draft-ietf-opsawg-pcapng),
//! little-endian.

use std::io::{self, Write};

/// `LINKTYPE_USER0`: the first of sixteen private link types.
///
/// The public list has no link type for Strowger's packets.
const LINKTYPE_USER0: u16 = 147;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

const COMMENT: u16 = 1;
const SECTION_USER_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_TIME_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;
const STATISTICS_RECEIVED: u16 = 4;
const STATISTICS_DROPPED: u16 = 5;

/// Resolution of timestamps: 10 to the power of minus this, in seconds.
const NANOSECONDS: u8 = 9;

/// Direction in which a packet passed the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Direction {
    #[default]
    Inbound,
    Outbound,
}

/// A packet that is to be written.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) at_ns: u64,
    pub(super) direction: Direction,
    /// The captured bytes.
    pub(super) bytes: &'a [u8],
    /// Length of the whole packet, in bytes.
    pub(super) len: usize,
    pub(super) discard: Option<&'static str>,
}

/// Writes one section with one interface.
#[derive(Debug)]
pub(super) struct Writer<W> {
    out: W,
    /// The body of the current block. It is collected because the block's length precedes it in the
    /// file.
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes the section header and the interface description.
    pub(super) fn new(out: W, interface: &str, snap_bytes: usize) -> io::Result<Self> {
        let mut writer = Self { out, block: Vec::with_capacity(snap_bytes + 256) };
        writer.put(&0x1a2b_3c4d_u32.to_le_bytes()); // byte-order magic
        writer.put(&1_u16.to_le_bytes()); // version 1.0
        writer.put(&0_u16.to_le_bytes());
        writer.put(&(-1_i64).to_le_bytes()); // section length unknown
        writer.option(SECTION_USER_APPLICATION, &[b"strowger"]);
        writer.end_options();
        writer.finish_block(SECTION_HEADER)?;

        writer.put(&LINKTYPE_USER0.to_le_bytes());
        writer.put(&0_u16.to_le_bytes());
        writer.put(&(snap_bytes as u32).to_le_bytes());
        writer.option(INTERFACE_NAME, &[interface.as_bytes()]);
        writer.option(INTERFACE_TIME_RESOLUTION, &[&[NANOSECONDS]]);
        writer.end_options();
        writer.finish_block(INTERFACE_DESCRIPTION)?;
        Ok(writer)
    }

    pub(super) fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        self.put(&0_u32.to_le_bytes()); // the only interface
        self.time(packet.at_ns);
        self.put(&(packet.bytes.len() as u32).to_le_bytes());
        self.put(&(packet.len as u32).to_le_bytes());
        self.put(packet.bytes);
        self.pad();
        let flags: u32 = match packet.direction {
            Direction::Inbound => 0b01,
            Direction::Outbound => 0b10,
        };
        self.option(PACKET_FLAGS, &[&flags.to_le_bytes()]);
        if let Some(reason) = packet.discard {
            self.option(COMMENT, &[b"discarded: ", reason.as_bytes()]);
        }
        self.end_options();
        self.finish_block(ENHANCED_PACKET)
    }

    /// Writes the number of packets that passed and the number that the capture missed.
    pub(super) fn statistics(&mut self, at_ns: u64, passed: u64, missed: u64) -> io::Result<()> {
        self.put(&0_u32.to_le_bytes());
        self.time(at_ns);
        if missed > 0 {
            let count = missed.to_string();
            self.option(COMMENT, &[b"not captured because the queue was full: ", count.as_bytes()]);
        }
        self.option(STATISTICS_RECEIVED, &[&passed.to_le_bytes()]);
        self.option(STATISTICS_DROPPED, &[&missed.to_le_bytes()]);
        self.end_options();
        self.finish_block(INTERFACE_STATISTICS)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
    }

    fn time(&mut self, at_ns: u64) {
        self.put(&((at_ns >> 32) as u32).to_le_bytes());
        self.put(&(at_ns as u32).to_le_bytes());
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    /// Writes an option whose value is the concatenation of `parts`.
    fn option(&mut self, code: u16, parts: &[&[u8]]) {
        // The length field has 16 bits, so a longer value is truncated.
        let value: usize = parts.iter().map(|part| part.len()).sum();
        let len = u16::try_from(value).unwrap_or(u16::MAX);
        self.put(&code.to_le_bytes());
        self.put(&len.to_le_bytes());
        let end = self.block.len() + usize::from(len);
        for part in parts {
            self.put(part);
        }
        self.block.truncate(end);
        self.pad();
    }

    fn end_options(&mut self) {
        self.put(&[0; 4]);
    }

    fn finish_block(&mut self, kind: u32) -> io::Result<()> {
        let total = (self.block.len() + 12) as u32;
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&total.to_le_bytes())?;
        self.out.write_all(&self.block)?;
        self.out.write_all(&total.to_le_bytes())?;
        self.block.clear();
        Ok(())
    }
}
