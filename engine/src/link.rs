//! A link as one worker sees it: who is behind it, how its frames are opened and sealed, and what
//! was counted. It never decides where a frame goes.
//!
//! Every frame, on every kind of port, begins with the link header of wire.md section 3:
//!
//! ```text
//!  0               1               2               3
//! +-------+-------+---------------+---------------+---------------+
//! | kind  | lane  |  receiver's session index                     |
//! +-------+-------+---------------+---------------+---------------+
//! |  low 32 bits of the counter                                   |
//! +---------------------------------------------------------------+
//! ```
//!
//! Links are plain so far: kind 5, session 0, and a counter that tells a receiver (and a capture)
//! what was lost. **Here is where sealing goes**: [`Link::open`] and `seal` are the only
//! two places that touch these bytes, and nothing behind `open` can be reached without it.

use std::{mem, sync::Arc};

use strowger_frame::{Frame, Mark, Port, tally::Counter};

use crate::{
    Now,
    discard::Discard,
    egress::Egress,
    header::{AnyHeader, Ecn, Header},
    label::Register,
    limits::{FRAME_BYTES_MAX, FRAME_BYTES_MIN},
    slots::WayBack,
};

/// Bytes of the link header.
pub const LINK_HEADER_BYTES: usize = 8;

/// The high nibble of a plain data frame's first byte.
const KIND_PLAIN_DATA: u8 = 5;

/// What is behind a link. The data path treats both alike but at the label's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Another switch: the label goes on.
    Neighbour,
    /// A local user: the label ends there, and the frame is handed up as it came, with its ingress
    /// slot beside it (wire.md 1.3).
    Endpoint,
}

/// What is counted for one slot on one worker.
#[derive(Debug, Default)]
pub struct SlotTally {
    /// Frames that came in by the slot and were opened.
    pub frames_in: Counter,
    /// Their bytes, link header included.
    pub bytes_in: Counter,
    /// Frames that left by the slot.
    pub frames_out: Counter,
    /// Their bytes.
    pub bytes_out: Counter,
    /// Frames that came in by the slot and went no further, or met a full queue here.
    pub discards: Counter,
    /// When a frame last came in: the worker's time in nanoseconds.
    pub heard_ns: Counter,
}

/// One worker's replica of one attachment. Made and freed by the slow path.
pub struct Link {
    pub(crate) mark: Mark,
    pub(crate) slot: u32,
    pub(crate) port: u16,
    /// The worker that owns the port's queue, where it is another one.
    pub(crate) home: Option<u8>,
    pub(crate) u_turns: bool,
    pub(crate) way_back: WayBack,
    pub(crate) counter: u32,
    pub(crate) egress: Egress,
    /// Whether the worker has this link on its list of those with something to send.
    pub(crate) listed: bool,
    pub(crate) tally: Arc<SlotTally>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("slot", &self.slot).field("mark", &self.mark).finish()
    }
}

/// A frame whose link header was checked (and, on a sealed link, whose bytes were authenticated).
/// Only [`Link::open`] makes one, so nothing unopened can be switched.
#[derive(Debug)]
pub(crate) struct Opened<'f>(&'f mut [u8]);

impl<'f> Opened<'f> {
    /// The switch header and what follows it.
    #[inline]
    pub(crate) fn into_bytes(self) -> &'f mut [u8] {
        self.0
    }
}

impl Link {
    /// Checks a frame from this link. What it gives is the packet behind the link header.
    #[inline]
    pub(crate) fn open<'f>(&self, frame: &'f mut Frame) -> Result<Opened<'f>, Discard> {
        let bytes = frame.bytes_mut();
        if bytes.len() < FRAME_BYTES_MIN {
            return Err(Discard::TooShort);
        }
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(Discard::TooLong);
        }
        let (link_header, packet) = bytes.split_at_mut(LINK_HEADER_BYTES);
        if link_header[0] >> 4 != KIND_PLAIN_DATA {
            return Err(Discard::BadLinkKind);
        }
        Ok(Opened(packet))
    }

    /// Puts a frame at this exit, sealed and ready, and the link on the list of those with
    /// something to send. The frame's mark is from here on the slot that it came in by.
    #[inline(always)] // out of line, the frame would be moved once more through the stack
    pub(crate) fn queue(
        &mut self,
        mut frame: Frame,
        ingress_slot: u32,
        is_control: bool,
        exhaling: &mut Vec<Mark>,
    ) -> Result<(), (Discard, Frame)> {
        if !self.egress.has_room(is_control) {
            return Err((Discard::EgressFull, frame));
        }
        if self.egress.is_congested() {
            mark_congestion(&mut frame);
        }
        seal(&mut frame, &mut self.counter);
        self.list(exhaling);
        self.egress.push(frame, Mark(ingress_slot), is_control)
    }

    /// Offers the port what waits here; what it cannot take stays, and the link on the list.
    pub(crate) fn let_out(&mut self, port: &mut dyn Port, exhaling: &mut Vec<Mark>) {
        let mark = self.mark;
        let sent = self.egress.offer(|frames| port.tx_burst(mark, frames));
        self.tally.frames_out.add(sent.frames);
        self.tally.bytes_out.add(sent.bytes);
        self.listed = false;
        if self.egress.waiting() > 0 {
            self.list(exhaling);
        }
    }

    /// Lists the link once. There is a place for each, so nothing is allocated.
    #[inline]
    fn list(&mut self, exhaling: &mut Vec<Mark>) {
        if !mem::replace(&mut self.listed, true) {
            debug_assert!(exhaling.len() < exhaling.capacity(), "each link is listed once");
            exhaling.push(self.mark);
        }
    }

    /// Counts a frame that came in by this link.
    #[inline]
    pub(crate) fn count_arrival(&self, frame: &Frame, now: Now) {
        self.tally.frames_in.add(1);
        self.tally.bytes_in.add(frame.len() as u64);
        self.tally.heard_ns.set(now.0);
    }
}

/// Makes a frame ready to leave by a link.
#[inline]
fn seal(frame: &mut Frame, counter: &mut u32) {
    *counter = counter.wrapping_add(1);
    if let Some(bytes) = frame.bytes_mut().first_chunk_mut::<LINK_HEADER_BYTES>() {
        *bytes = plain_header(*counter);
    }
}

/// Tells the ends of a flow that can hear it (RFC 3168) that its frames wait here.
#[cold]
fn mark_congestion(frame: &mut Frame) {
    fn mark<R: Register>(mut header: Header<'_, R>) {
        if header.ecn() != Ecn::NotCapable {
            header.set_ecn(Ecn::Congested);
        }
    }
    let packet = frame.bytes_mut().get_mut(LINK_HEADER_BYTES..).unwrap_or_default();
    match AnyHeader::parse(packet) {
        Ok(AnyHeader::W64(header)) => mark(header),
        Ok(AnyHeader::W128(header)) => mark(header),
        Ok(AnyHeader::W256(header)) => mark(header),
        Err(_) => debug_assert!(false, "it was parsed on its way in"),
    }
}

/// The link header of a plain data frame: for endpoints, which write it in front of what they send.
#[inline]
pub fn plain_header(counter: u32) -> [u8; LINK_HEADER_BYTES] {
    let [a, b, c, d] = counter.to_be_bytes();
    [KIND_PLAIN_DATA << 4, 0, 0, 0, a, b, c, d]
}
