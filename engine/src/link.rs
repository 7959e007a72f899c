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
//! A plain link's frame is of kind plain data, addressed to session 0, with a counter that tells a
//! receiver (and a capture) what was lost. A sealed link's frame ends in a tag of 16 bytes, and is
//! opened and sealed in place by `strowger-crypto`: its length is the same on every sealed hop.
//! `Link::open_plain`, [`crate::session`] and `Link::queue` are the only places that touch
//! these bytes, and nothing behind opening can be reached without it.

use std::{mem, sync::Arc};

use arrayvec::ArrayVec;
use strowger_crypto::{Nanos, SealRefused, Sealed, Sealer};
use strowger_frame::{BURST_MAX, Frame, Mark, Pool, Port, tally::Counter};
use strowger_wire::{
    Register, Scheme, Slot,
    limits::TAG_BYTES,
    link_header::{Kind, LINK_HEADER_BYTES, LinkHeader, SessionIndex},
    switch_header::{AnyHeader, Ecn, Header, HeaderError, HeaderRepr},
    with_header,
};

use crate::{
    Now,
    command::PuntKind,
    discard::Discard,
    egress::{Drain, Egress, weight},
    limits::{
        CONTROL_WEIGHT_AT_ONCE, CONTROL_WEIGHT_PER_SECOND, FRAME_BYTES_MAX, FRAME_BYTES_MIN,
        LINK_FRAMES_WAITING_MAX, LINK_NOTES_AT_ONCE, LINK_NOTES_PER_SECOND,
    },
    rate::{Rate, TokenBucket},
    slots::ReturnPath,
};

/// See [`Link::may_go_ahead`].
const CONTROL_RATE: Rate = Rate::per_second(CONTROL_WEIGHT_PER_SECOND, CONTROL_WEIGHT_AT_ONCE);
/// See [`Link::may_note`].
const NOTE_RATE: Rate = Rate::per_second(LINK_NOTES_PER_SECOND, LINK_NOTES_AT_ONCE);

/// What is behind a link. The data path treats both alike but at the label's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Another switch: the label goes on.
    Neighbour,
    /// A local user: the label ends there, and the frame is punted as it came, with its ingress
    /// slot beside it (wire.md 1.3).
    Endpoint,
}

/// What is counted for one slot on one worker.
#[derive(Debug, Default)]
pub(crate) struct SlotTally {
    /// Frames that came in by the slot and were opened.
    pub(crate) frames_in: Counter,
    /// Their bytes, link header included.
    pub(crate) bytes_in: Counter,
    /// Frames that left by the slot.
    pub(crate) frames_out: Counter,
    /// Their bytes.
    pub(crate) bytes_out: Counter,
    /// Frames that came in by the slot and went no further, or met a full queue here.
    pub(crate) discards: Counter,
    /// Of those that came in, keepalives: what is no keepalive is data.
    pub(crate) keepalives_in: Counter,
    /// Of those that left, what the link itself had to say: the others are data.
    pub(crate) link_messages_out: Counter,
    /// Frames that were to leave, and met a quiet link that had no keys to seal them with.
    pub(crate) unsealed: Counter,
    /// Frames that came in by the slot and bear its former number in their return path, since its number
    /// of today cannot be written in so few bits.
    pub(crate) by_former: Counter,
    /// When a frame last came in: the worker's time in nanoseconds.
    pub(crate) heard_ns: Counter,
    /// What the slow path has taken of this link's punts, by [`PuntKind`]. It alone writes these.
    pub(crate) punts_taken: [Counter; PuntKind::COUNT],
}

/// Where a neighbour's frames may go, as its operator wrote. Unknown peers have none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Through this switch, to other neighbours.
    pub transit: bool,
    /// To this switch's endpoints.
    pub endpoints: bool,
    /// To this switch itself: control messages.
    pub control: bool,
}

impl Rights {
    /// Everywhere.
    pub const ALL: Self = Self { transit: true, endpoints: true, control: true };
    /// Nowhere.
    pub const NONE: Self = Self { transit: false, endpoints: false, control: false };
}

/// How frames leave by a link.
#[derive(Debug)]
pub(crate) enum LinkProtection {
    /// As they are: only where the operator wrote so, and for endpoints of this machine.
    Plain {
        /// Frames sent so far, wrapping.
        counter: u32,
    },
    /// Sealed, on this worker's lane; `None` before the first handshake.
    Sealed(Option<Box<Sealer>>),
}

/// One worker's replica of one attachment. Made and freed by the slow path.
pub(crate) struct Link {
    pub(crate) mark: Mark,
    pub(crate) slot: u32,
    pub(crate) port: u16,
    /// The worker that owns the port's queue, where it is another one.
    pub(crate) home: Option<u8>,
    pub(crate) u_turns: bool,
    pub(crate) rights: Rights,
    pub(crate) return_path: ReturnPath,
    pub(crate) protection: LinkProtection,
    /// The longest frame, tag included, that the path behind it takes.
    pub(crate) frame_bytes_max: u16,
    pub(crate) egress: Egress,
    /// Frames wait for keys here, since a handshake is likely to bring some.
    pub(crate) accepts_pending: bool,
    /// Of a sealed link: whether data may leave, or only what the link itself has to say.
    pub(crate) allows_data: bool,
    pub(crate) pending: ArrayVec<PendingFrame, LINK_FRAMES_WAITING_MAX>,
    /// Drop notices about packets from here.
    pub(crate) drop_notices: TokenBucket,
    /// Handshake initiations from here, and answers to ours: either can be forged, and a flood of one kind
    /// must not suppress the other.
    pub(crate) initiations: TokenBucket,
    pub(crate) handshake_answers: TokenBucket,
    /// How fast its exit drains, for when memory runs low.
    pub(crate) drain: Drain,
    /// Control packets from here that go ahead of data.
    pub(crate) control: TokenBucket,
    /// Packets from here that go up to the switch itself.
    pub(crate) packets_up: TokenBucket,
    /// Notes of what every frame would say.
    pub(crate) notes: TokenBucket,
    /// What was punted from here, by [`PuntKind`].
    pub(crate) punts: [u64; PuntKind::COUNT],
    /// Whether the worker has this link on its list of those with something to send.
    pub(crate) listed: bool,
    pub(crate) tally: Arc<SlotTally>,
}

/// What the slow path decides about a link before a worker has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkSpec {
    pub(crate) mark: Mark,
    pub(crate) slot: Slot,
    pub(crate) port: u16,
    /// The worker that owns the port's queue, where it is another one.
    pub(crate) home: Option<u8>,
    pub(crate) u_turns: bool,
    pub(crate) rights: Rights,
    pub(crate) is_sealed: bool,
    pub(crate) frame_bytes_max: u16,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("slot", &self.slot).field("mark", &self.mark).finish()
    }
}

/// A frame that waits for its exit's keys, and what is known of it. Its mark is its ingress.
#[derive(Debug)]
pub(crate) struct PendingFrame {
    pub(crate) frame: Frame,
    pub(crate) ingress_slot: u32,
    pub(crate) is_control: bool,
}

/// A frame whose link header was checked and, on a sealed link, whose bytes were authenticated.
/// Only opening makes one, so nothing unopened can be switched.
#[derive(Debug)]
pub(crate) struct Opened<'f>(&'f mut Frame);

impl<'f> Opened<'f> {
    /// Vouches for a frame. Only [`Link::open_plain`] and [`crate::session`] call it.
    #[inline]
    pub(crate) fn vouch(frame: &'f mut Frame) -> Self {
        Self(frame)
    }

    /// The switch header and what follows it.
    #[inline]
    pub(crate) fn packet(self) -> &'f mut [u8] {
        self.0.bytes_mut().get_mut(LINK_HEADER_BYTES..).unwrap_or_default()
    }

    /// Whether it says nothing but "I am here".
    #[inline]
    pub(crate) fn is_keepalive(&self) -> bool {
        self.0.len() <= LINK_HEADER_BYTES
    }

    /// The frame, length and all.
    #[inline]
    pub(crate) fn frame(&self) -> &Frame {
        self.0
    }
}

impl Link {
    /// The mark of what comes from the switch itself. No attachment has it.
    pub(crate) const OWN: Mark = Mark::new(0xfe00, 0);

    /// Makes one worker's replica of an attachment: without keys, and with nothing waiting.
    pub(crate) fn new(spec: LinkSpec, scheme: &Scheme, tally: Arc<SlotTally>) -> Self {
        Self {
            mark: spec.mark,
            slot: spec.slot.number(),
            port: spec.port,
            home: spec.home,
            u_turns: spec.u_turns,
            rights: spec.rights,
            return_path: ReturnPath::new(scheme, spec.slot),
            protection: if spec.is_sealed {
                LinkProtection::Sealed(None)
            } else {
                LinkProtection::Plain { counter: 0 }
            },
            frame_bytes_max: spec.frame_bytes_max,
            egress: Egress::default(),
            accepts_pending: false,
            allows_data: false,
            pending: ArrayVec::new(),
            drop_notices: TokenBucket::default(),
            initiations: TokenBucket::default(),
            handshake_answers: TokenBucket::default(),
            drain: Drain::default(),
            control: TokenBucket::default(),
            packets_up: TokenBucket::default(),
            notes: TokenBucket::default(),
            punts: [0; PuntKind::COUNT],
            listed: false,
            tally,
        }
    }

    /// Makes slot 1: the switch's own packets come in by it, and none leave by it.
    pub(crate) fn own(scheme: &Scheme) -> Self {
        let spec = LinkSpec {
            mark: Self::OWN,
            slot: Slot::SWITCH,
            port: u16::MAX,
            home: None,
            u_turns: true,
            rights: Rights::ALL,
            is_sealed: false,
            frame_bytes_max: FRAME_BYTES_MAX as u16,
        };
        Self::new(spec, scheme, Arc::default())
    }

    /// Checks a plain frame from this link.
    #[inline]
    pub(crate) fn open_plain<'f>(&self, frame: &'f mut Frame) -> Result<Opened<'f>, Discard> {
        // On a sealed link a plain frame is nobody's: anyone can write one.
        match self.protection {
            LinkProtection::Sealed(_) => Err(Discard::BadLinkKind),
            LinkProtection::Plain { .. } if frame.len() < FRAME_BYTES_MIN => Err(Discard::TooShort),
            LinkProtection::Plain { .. } => Ok(Opened::vouch(frame)),
        }
    }

    /// Whether frames leave by [`encapsulate_special`](Self::encapsulate_special) here, or by another worker.
    #[inline]
    pub(crate) fn is_special(&self) -> bool {
        self.home.is_some() | self.egress.is_contended()
    }

    /// Makes a data frame ready to leave by this link, where it lies: sealed, its mark from here on the
    /// slot that it came in by, and a place at the exit promised to it.
    #[inline(always)] // for each packet, and called in one place that is hot
    pub(crate) fn encapsulate(
        &mut self,
        frame: &mut Frame,
        ingress_slot: u32,
        tx: &mut TxContext,
    ) -> Result<(), Discard> {
        self.egress.promise()?;
        if let Err(discard) = self.protect(frame, tx) {
            self.egress.release(false);
            return Err(discard);
        }
        frame.set_mark(Mark(ingress_slot));
        self.list(&mut tx.tx_pending);
        Ok(())
    }

    /// As [`encapsulate`](Self::encapsulate), for control too, and where the port has left frames at the exit.
    /// Says whether the frame has a place among control.
    #[cold]
    pub(crate) fn encapsulate_special(
        &mut self,
        frame: &mut Frame,
        ingress_slot: u32,
        is_control: bool,
        tx: &mut TxContext,
    ) -> Result<bool, Discard> {
        if !self.egress.is_contended() {
            if !is_control || !self.egress.promise_control() {
                return self.encapsulate(frame, ingress_slot, tx).map(|()| false);
            }
            if let Err(discard) = self.protect(frame, tx) {
                self.egress.release(true);
                return Err(discard);
            }
            frame.set_mark(Mark(ingress_slot));
            self.list(&mut tx.tx_pending);
            return Ok(true);
        }
        let tag_bytes =
            if matches!(self.protection, LinkProtection::Plain { .. }) { 0 } else { TAG_BYTES };
        let entry = self.egress.admit(ingress_slot, frame.len() + tag_bytes, is_control)?;
        if self.egress.is_congested() {
            mark_congestion(frame);
        }
        // Before another frame has to leave for it.
        self.protect(frame, tx)?;
        if let Some(displaced) = self.egress.enter(entry) {
            // There is room for those of a burst; what is not noted would be missing in R3's balance.
            let noted = tx.displaced.try_push(displaced.mark());
            debug_assert!(noted.is_ok(), "counted after every burst");
        }
        frame.set_mark(Mark(ingress_slot));
        Ok(entry.is_control)
    }

    /// Writes the link header and seals, where the frame lies.
    #[inline(always)]
    fn protect(&mut self, frame: &mut Frame, tx: &mut TxContext) -> Result<(), Discard> {
        match &mut self.protection {
            LinkProtection::Plain { counter } => {
                if frame.len() > usize::from(self.frame_bytes_max) {
                    return Err(Discard::TooBig);
                }
                *counter = counter.wrapping_add(1);
                if let Some(bytes) = frame.bytes_mut().first_chunk_mut() {
                    *bytes = plain_header(*counter);
                }
                Ok(())
            }
            LinkProtection::Sealed(_) if !self.allows_data => Err(Discard::LinkDown),
            LinkProtection::Sealed(_) => self.seal(frame, Sealed::Data, tx),
        }
    }

    /// Punts of this kind from here that the slow path has not taken.
    pub(crate) fn punts_waiting(&self, kind: PuntKind) -> u64 {
        self.punts[kind as usize].saturating_sub(self.tally.punts_taken[kind as usize].read())
    }

    /// Whether one more note of what every frame says is made.
    pub(crate) fn may_note(&mut self, now: Now) -> bool {
        self.notes.take(NOTE_RATE, now)
    }

    /// Whether a control packet from here goes ahead of data.
    #[cold]
    pub(crate) fn may_go_ahead(&mut self, frame: &Frame, now: Now) -> bool {
        let weight = u32::from(weight(frame.len()));
        self.control.take_many(weight, CONTROL_RATE, now)
    }

    /// Seals a frame in place. Where the bytes behind it are another frame's (it came plain, inside
    /// a train), the tag needs a copy: the one such case, counted as `frames_copied`.
    #[inline(never)] // beside an AEAD a call is nothing, and the plain path stays short
    pub(crate) fn seal(
        &mut self,
        frame: &mut Frame,
        what: Sealed,
        tx: &mut TxContext,
    ) -> Result<(), Discard> {
        let LinkProtection::Sealed(Some(sealer)) = &mut self.protection else {
            return Err(Discard::LinkDown);
        };
        // A path challenge may be longer: it finds out.
        let is_long = frame.len() + TAG_BYTES > usize::from(self.frame_bytes_max);
        if is_long && what != Sealed::PathChallenge {
            return Err(Discard::TooBig);
        }
        if !frame.grow_back(TAG_BYTES) {
            *frame = tx.pool.copy(frame).ok_or(Discard::PoolEmpty)?;
            if !frame.grow_back(TAG_BYTES) {
                return Err(Discard::TooLong);
            }
        }
        if sealer.wants_rekey() {
            tx.rekey_due = Some(self.mark);
        }
        sealer.seal(Nanos(tx.now.0), what, frame.bytes_mut()).map(|_| ()).map_err(|refused| {
            let sealed_len = frame.len();
            frame.truncate(sealed_len - TAG_BYTES);
            match refused {
                SealRefused::NoRoom => Discard::TooShort,
                SealRefused::Expired | SealRefused::Exhausted => Discard::KeysExpired,
            }
        })
    }

    /// What [`encapsulate`](Self::encapsulate) would say to a packet of this length (link header included,
    /// tag not). It changes nothing.
    #[cold]
    pub(crate) fn dry_run(&self, packet_bytes: usize, is_control: bool) -> Option<Discard> {
        if !self.egress.has_place(is_control) {
            return Some(Discard::EgressFull);
        }
        let lacks_keys = match self.protection {
            LinkProtection::Plain { .. } => false,
            LinkProtection::Sealed(None) => true,
            LinkProtection::Sealed(Some(_)) => !self.allows_data,
        };
        if lacks_keys && !self.accepts_pending {
            return Some(Discard::LinkDown);
        }
        (packet_bytes > usize::from(self.packet_bytes_max())).then_some(Discard::TooBig)
    }

    /// Bytes of the longest packet that leaves by this link, link header included and tag not.
    #[cold]
    pub(crate) fn packet_bytes_max(&self) -> u16 {
        match self.protection {
            LinkProtection::Plain { .. } => self.frame_bytes_max,
            LinkProtection::Sealed(_) => self.frame_bytes_max.saturating_sub(TAG_BYTES as u16),
        }
    }

    /// Puts a frame that the link itself has to say at its exit.
    #[cold]
    pub(crate) fn send_link_message(
        &mut self,
        mut frame: Frame,
        what: Sealed,
        tx: &mut TxContext,
    ) -> Result<(), Discard> {
        self.egress.promise_link_message()?;
        if let Err(discard) = self.seal(&mut frame, what, tx) {
            self.egress.release(true);
            return Err(discard);
        }
        self.tally.link_messages_out.add(1);
        self.list(&mut tx.tx_pending);
        self.egress.put_link_message(frame);
        Ok(())
    }

    /// Offers the port what waits here. Says whether it has taken all; else the link stays listed.
    pub(crate) fn transmit(&mut self, port: &mut dyn Port) -> bool {
        let mark = self.mark;
        let sent = self.egress.offer(|frames| port.tx_burst(mark, frames));
        self.tally.frames_out.add(sent.frames);
        self.tally.bytes_out.add(sent.bytes);
        self.listed = self.egress.is_contended();
        !self.listed
    }

    /// Lists the link once. There is a place for each, so nothing is allocated.
    #[inline]
    fn list(&mut self, tx_pending: &mut Vec<Mark>) {
        if !mem::replace(&mut self.listed, true) {
            debug_assert!(tx_pending.len() < tx_pending.capacity(), "each link is listed once");
            tx_pending.push(self.mark);
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

/// Frames that can be displaced before they are counted: each frame of a burst displaces one at most,
/// and those of a few commands.
pub(crate) const DISPLACED_MAX: usize = 2 * BURST_MAX;

/// What a link needs of its worker when a frame leaves by it: one reference, where the path of a packet
/// would otherwise carry five.
pub(crate) struct TxContext {
    /// The time of this poll.
    pub(crate) now: Now,
    pub(crate) pool: Pool,
    /// Links with frames at their exits that were not offered yet, each once.
    pub(crate) tx_pending: Vec<Mark>,
    /// Marks of frames that had to leave a queue for others: the slots that they came in by.
    pub(crate) displaced: ArrayVec<Mark, DISPLACED_MAX>,
    /// A link whose sealer has sealed so much that new keys are wanted.
    pub(crate) rekey_due: Option<Mark>,
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
        Ok(header) => with_header!(header, header => mark(header)),
        Err(_) => debug_assert!(false, "it was parsed on its way in"),
    }
}

/// The link header of a plain data frame: for endpoints, which write it in front of what they send.
#[inline]
pub fn plain_header(counter: u32) -> [u8; LINK_HEADER_BYTES] {
    let [a, b, c, d] = counter.to_be_bytes();
    [(Kind::PlainData as u8) << 4, 0, 0, 0, a, b, c, d]
}

/// Writes link header and switch header to the front of a frame that an endpoint is to send; gives
/// back what lies behind them, the room for its payload.
///
/// # Errors
/// [`HeaderError`]: the frame is too short for the headers, or the label has no room for the shift.
pub fn emit_plain<'f, R: Register>(
    frame: &'f mut [u8],
    header: &HeaderRepr<R>,
) -> Result<&'f mut [u8], HeaderError> {
    let (link_header, packet) = frame.split_first_chunk_mut().ok_or(HeaderError::TooShort)?;
    *link_header = plain_header(0);
    header.emit(packet)
}

/// A frame's kind, if it is of a length that any frame has.
#[inline]
pub(crate) fn kind_of(frame: &Frame) -> Result<Kind, Discard> {
    let bytes = frame.bytes();
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(Discard::TooLong);
    }
    let header = bytes.first_chunk::<LINK_HEADER_BYTES>().ok_or(Discard::TooShort)?;
    Kind::from_number(header[0] >> 4).ok_or(Discard::BadLinkKind)
}

/// The session that a frame is addressed to.
#[inline]
pub(crate) fn session_of(frame: &Frame) -> Result<SessionIndex, Discard> {
    LinkHeader::parse(frame.bytes()).map(|header| header.index).map_err(|_| Discard::TooShort)
}
