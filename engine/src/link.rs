//! One worker's view of a link: its rights, its seal, its egress queue and its counters.
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
//! A frame of a plain link has the kind "plain data" and session index 0; its counter lets a
//! receiver, or a capture, detect lost frames. A frame of a sealed link ends in a tag of 16 bytes.
//! `strowger-crypto` opens and seals it in place, so its length is the same on every sealed hop.
//! Only `Link::open_plain` and `RxSession::open` make an `Opened`, and only an `Opened` can be
//! switched.

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
    mark::{EgressMark, OWN},
    rate::{Rate, TokenBucket},
    slots::ReturnPath,
};

/// The rate limit, per link, of control packets that are sent before data.
const CONTROL_RATE: Rate = Rate::per_second(CONTROL_WEIGHT_PER_SECOND, CONTROL_WEIGHT_AT_ONCE);
/// The rate limit, per link, of notes that each frame of the link could cause.
const NOTE_RATE: Rate = Rate::per_second(LINK_NOTES_PER_SECOND, LINK_NOTES_AT_ONCE);

/// The kind of node at the far end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Another switch: it processes the rest of the label.
    Neighbour,
    /// A local user: the label ends there. The user receives the packet together with its ingress
    /// slot (wire.md 1.3).
    Endpoint,
}

/// Counters of one slot on one worker.
#[derive(Debug, Default)]
pub(crate) struct SlotTally {
    /// The number of frames that arrived on the slot and were opened.
    pub(crate) frames_in: Counter,
    /// The bytes of these frames, including the link header.
    pub(crate) bytes_in: Counter,
    /// The number of frames that were sent through the slot.
    pub(crate) frames_out: Counter,
    /// The bytes of these frames, including the link header.
    pub(crate) bytes_out: Counter,
    /// The number of frames that arrived on the slot and were dropped, or that were dropped at its
    /// egress queue.
    pub(crate) discards: Counter,
    /// Keepalives among `frames_in`; the others are data.
    pub(crate) keepalives_in: Counter,
    /// The link's own messages among `frames_out`; the others are data.
    pub(crate) link_messages_out: Counter,
    /// The number of frames that could not be sealed because the link had no valid keys. Frames
    /// that arrive while no frame may wait for keys are not counted.
    pub(crate) unsealed: Counter,
    /// The number of frames that arrived on the slot and carry its former number in their return
    /// paths, because the director is too narrow for the present number.
    pub(crate) by_former: Counter,
    /// The time at which the last frame arrived, in nanoseconds of the switch's clock.
    pub(crate) heard_ns: Counter,
    /// The number of punts of this link that the slow path has taken, by [`PuntKind`]. Only the
    /// slow path writes these counts.
    pub(crate) punts_taken: [Counter; PuntKind::COUNT],
}

/// The destinations to which a neighbour's frames may be forwarded. By default, an unknown peer has
/// no rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Other neighbours, through this switch.
    pub transit: bool,
    /// Endpoints of this switch.
    pub endpoints: bool,
    /// This switch, with control messages.
    pub control: bool,
}

impl Rights {
    /// All rights.
    pub const ALL: Self = Self { transit: true, endpoints: true, control: true };
    /// No right.
    pub const NONE: Self = Self { transit: false, endpoints: false, control: false };
}

/// The protection of frames that are sent on a link.
#[derive(Debug)]
pub(crate) enum LinkProtection {
    /// No protection. This is for endpoints of this machine, and for links that the operator
    /// configured as plain.
    Plain {
        /// The number of frames sent so far, wrapping.
        counter: u32,
    },
    /// Frames are sealed on this worker's lane. `None` while the link has no keys.
    Sealed(Option<Box<Sealer>>),
}

/// One worker's replica of an attachment. The slow path allocates and frees it.
pub(crate) struct Link {
    pub(crate) mark: Mark,
    pub(crate) slot: Slot,
    pub(crate) port: u16,
    /// The worker that owns the port's queue, if it is another worker.
    pub(crate) home: Option<u8>,
    pub(crate) u_turns: bool,
    pub(crate) rights: Rights,
    pub(crate) return_path: ReturnPath,
    pub(crate) protection: LinkProtection,
    /// The length of the longest frame that the path accepts, including the tag.
    pub(crate) frame_bytes_max: u16,
    pub(crate) egress: Egress,
    /// Whether frames may wait here for keys. This is so if a handshake is likely to succeed.
    pub(crate) accepts_pending: bool,
    /// For a sealed link: whether data may be sent, or only the link's own messages.
    pub(crate) allows_data: bool,
    pub(crate) pending: ArrayVec<PendingFrame, LINK_FRAMES_WAITING_MAX>,
    /// Limits the drop notices about packets that arrived on this link.
    pub(crate) drop_notices: TokenBucket,
    /// Limits handshake initiations from the link's address. `handshake_answers` limits responses
    /// and cookie replies. They are limited separately, because either can be forged and a flood of one
    /// kind must not suppress the other.
    pub(crate) initiations: TokenBucket,
    pub(crate) handshake_answers: TokenBucket,
    /// The rate at which the egress queue drains. The worker reads it when free chunks run low.
    pub(crate) drain: Drain,
    /// Limits the control packets from this link that are sent before data.
    pub(crate) control: TokenBucket,
    /// Limits the packets from this link that are addressed to this switch.
    pub(crate) packets_up: TokenBucket,
    /// Limits the notes that every frame could cause.
    pub(crate) notes: TokenBucket,
    /// The number of punts of this link, by [`PuntKind`].
    pub(crate) punts: [u64; PuntKind::COUNT],
    /// Whether the link is in one of the worker's lists of links with frames to send.
    pub(crate) listed: bool,
    pub(crate) tally: Arc<SlotTally>,
}

/// The properties of a link that the slow path configures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkSpec {
    pub(crate) mark: Mark,
    pub(crate) slot: Slot,
    pub(crate) port: u16,
    /// The worker that owns the port's queue, if it is another worker.
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

/// A frame that waits for the keys of its next hop. The frame's mark names its ingress link.
#[derive(Debug)]
pub(crate) struct PendingFrame {
    pub(crate) frame: Frame,
    pub(crate) ingress_slot: Slot,
    pub(crate) is_control: bool,
}

/// A frame whose link header was checked and, on a sealed link, whose bytes were authenticated.
///
/// Only opening makes this type, so an unopened frame cannot be switched.
#[derive(Debug)]
pub(crate) struct Opened<'f>(&'f mut Frame);

impl<'f> Opened<'f> {
    /// Declares a frame opened. Only [`Link::open_plain`] and [`crate::session`] call it.
    #[inline]
    pub(crate) fn vouch(frame: &'f mut Frame) -> Self {
        Self(frame)
    }

    /// The switch header and the payload.
    #[inline]
    pub(crate) fn packet(self) -> &'f mut [u8] {
        self.0.bytes_mut().get_mut(LINK_HEADER_BYTES..).unwrap_or_default()
    }

    /// Whether the frame ends after the link header.
    #[inline]
    pub(crate) fn is_keepalive(&self) -> bool {
        self.0.len() <= LINK_HEADER_BYTES
    }

    /// The whole frame, including the link header.
    #[inline]
    pub(crate) fn frame(&self) -> &Frame {
        self.0
    }
}

impl Link {
    /// Makes one worker's replica of an attachment, without keys and with empty queues.
    pub(crate) fn new(spec: LinkSpec, scheme: &Scheme, tally: Arc<SlotTally>) -> Self {
        Self {
            mark: spec.mark,
            slot: spec.slot,
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

    /// Makes the link of slot 1, which is the ingress of packets that the switch itself makes. No
    /// packet is sent through this link.
    pub(crate) fn own(scheme: &Scheme) -> Self {
        let spec = LinkSpec {
            mark: OWN,
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

    /// Checks the length of a plain frame, and that the link is plain.
    #[inline]
    pub(crate) fn open_plain<'f>(&self, frame: &'f mut Frame) -> Result<Opened<'f>, Discard> {
        // A plain frame on a sealed link is refused: any node can send one, so it proves nothing.
        match self.protection {
            LinkProtection::Sealed(_) => Err(Discard::BadLinkKind),
            LinkProtection::Plain { .. } if frame.len() < FRAME_BYTES_MIN => Err(Discard::TooShort),
            LinkProtection::Plain { .. } => Ok(Opened::vouch(frame)),
        }
    }

    /// Whether frames for this link must pass through
    /// [`encapsulate_special`](Self::encapsulate_special) or are handed to another worker.
    #[inline]
    pub(crate) fn is_special(&self) -> bool {
        self.home.is_some() | self.egress.is_contended()
    }

    /// Reserves a place in the egress queue, then writes the link header and, on a sealed link,
    /// seals the frame in place.
    ///
    /// On success, the frame's mark is then its ingress slot.
    #[inline(always)] // executed for each packet, and called in one hot place
    pub(crate) fn encapsulate(
        &mut self,
        frame: &mut Frame,
        ingress_slot: Slot,
        tx: &mut TxContext,
    ) -> Result<(), Discard> {
        self.egress.reserve()?;
        if let Err(discard) = self.protect(frame, tx) {
            self.egress.release(false);
            return Err(discard);
        }
        frame.set_ingress_slot(ingress_slot);
        self.list(&mut tx.tx_pending);
        Ok(())
    }

    /// As [`encapsulate`](Self::encapsulate), but also for control packets and for an egress queue
    /// that the port did not empty. Returns whether the frame takes one of the places that the
    /// queue keeps for control packets.
    #[cold]
    pub(crate) fn encapsulate_special(
        &mut self,
        frame: &mut Frame,
        ingress_slot: Slot,
        is_control: bool,
        tx: &mut TxContext,
    ) -> Result<bool, Discard> {
        if !self.egress.is_contended() {
            if !is_control || !self.egress.reserve_control() {
                return self.encapsulate(frame, ingress_slot, tx).map(|()| false);
            }
            if let Err(discard) = self.protect(frame, tx) {
                self.egress.release(true);
                return Err(discard);
            }
            frame.set_ingress_slot(ingress_slot);
            self.list(&mut tx.tx_pending);
            return Ok(true);
        }
        let tag_bytes =
            if matches!(self.protection, LinkProtection::Plain { .. }) { 0 } else { TAG_BYTES };
        let entry = self.egress.admit(ingress_slot, frame.len() + tag_bytes, is_control)?;
        if self.egress.is_congested() {
            mark_congestion(frame);
        }
        // The frame is sealed first: a frame that cannot be sealed must not displace another frame.
        self.protect(frame, tx)?;
        if let Some(displaced) = self.egress.enter(entry) {
            // The list has room for a whole burst. Each displaced frame must be in it: a frame that
            // is missing would also be missing from the balance (R3).
            let noted = tx.displaced.try_push(displaced.ingress_slot());
            debug_assert!(noted.is_ok(), "counted after every burst");
        }
        frame.set_ingress_slot(ingress_slot);
        Ok(entry.is_control)
    }

    /// Writes the link header and, on a sealed link, seals the frame in place.
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

    /// The number of punts of this kind that the slow path has not taken.
    pub(crate) fn punts_waiting(&self, kind: PuntKind) -> u64 {
        self.punts[kind as usize].saturating_sub(self.tally.punts_taken[kind as usize].read())
    }

    /// Whether the rate limit allows the link one more note.
    pub(crate) fn may_note(&mut self, now: Now) -> bool {
        self.notes.take(NOTE_RATE, now)
    }

    /// Whether the rate limit allows a control packet from this link to be sent before data.
    #[cold]
    pub(crate) fn may_go_ahead(&mut self, frame: &Frame, now: Now) -> bool {
        let weight = u32::from(weight(frame.len()));
        self.control.take_many(weight, CONTROL_RATE, now)
    }

    /// Seals a frame in place.
    ///
    /// The tag does not fit behind a frame that arrived plain and inside a train, because another
    /// frame's bytes follow it. The pool then copies the frame and counts `frames_copied`.
    #[inline(never)] // a call costs little beside an AEAD, and the plain path stays short
    pub(crate) fn seal(
        &mut self,
        frame: &mut Frame,
        what: Sealed,
        tx: &mut TxContext,
    ) -> Result<(), Discard> {
        let LinkProtection::Sealed(Some(sealer)) = &mut self.protection else {
            return Err(Discard::LinkDown);
        };
        // A path challenge may be longer, because it tests the path.
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

    /// The reason for which [`encapsulate`](Self::encapsulate) would refuse a packet of this length
    /// (including the link header, excluding the tag). It changes nothing.
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

    /// The length of the longest packet that may be sent on this link, in bytes, including the link
    /// header and excluding the tag.
    #[cold]
    pub(crate) fn packet_bytes_max(&self) -> u16 {
        match self.protection {
            LinkProtection::Plain { .. } => self.frame_bytes_max,
            LinkProtection::Sealed(_) => self.frame_bytes_max.saturating_sub(TAG_BYTES as u16),
        }
    }

    /// Seals one of the link's own messages and puts it into the egress queue.
    #[cold]
    pub(crate) fn send_link_message(
        &mut self,
        mut frame: Frame,
        what: Sealed,
        tx: &mut TxContext,
    ) -> Result<(), Discard> {
        self.egress.reserve_link_message()?;
        if let Err(discard) = self.seal(&mut frame, what, tx) {
            self.egress.release(true);
            return Err(discard);
        }
        self.tally.link_messages_out.add(1);
        self.list(&mut tx.tx_pending);
        self.egress.put_link_message(frame);
        Ok(())
    }

    /// Offers the frames of the egress queue to the port. Returns whether the port took all of
    /// them. If not, the link stays in the list.
    pub(crate) fn transmit(&mut self, port: &mut dyn Port) -> bool {
        let mark = self.mark;
        let sent = self.egress.offer(|frames| port.tx_burst(mark, frames));
        self.tally.frames_out.add(sent.frames);
        self.tally.bytes_out.add(sent.bytes);
        self.listed = self.egress.is_contended();
        !self.listed
    }

    /// Adds the link to the list, unless the list already contains it. The list has a place for
    /// every link, so this allocates nothing.
    #[inline]
    fn list(&mut self, tx_pending: &mut Vec<Mark>) {
        if !mem::replace(&mut self.listed, true) {
            debug_assert!(tx_pending.len() < tx_pending.capacity(), "each link is listed once");
            tx_pending.push(self.mark);
        }
    }

    /// Counts a frame that arrived on this link.
    #[inline]
    pub(crate) fn count_arrival(&self, frame: &Frame, now: Now) {
        self.tally.frames_in.add(1);
        self.tally.bytes_in.add(frame.len() as u64);
        self.tally.heard_ns.set(now.0);
    }
}

/// The maximum number of frames that may be displaced before they are counted: one for each frame
/// of a burst, and as many again because of commands.
pub(crate) const DISPLACED_MAX: usize = 2 * BURST_MAX;

/// The part of a worker's state that a link needs to send a frame. It is passed as one reference
/// instead of five arguments.
pub(crate) struct TxContext {
    /// The time of this poll.
    pub(crate) now: Now,
    pub(crate) pool: Pool,
    /// The links with frames that were not yet offered to a port. Each link is listed once.
    pub(crate) tx_pending: Vec<Mark>,
    /// The ingress slots of displaced frames.
    pub(crate) displaced: ArrayVec<Slot, DISPLACED_MAX>,
    /// A link whose sealer has sealed so many packets with its keys that a new handshake is due.
    pub(crate) rekey_due: Option<Mark>,
}

/// Sets ECN "congestion experienced" (RFC 3168), if both ends of the flow support it.
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
        Err(_) => debug_assert!(false, "the header was parsed before"),
    }
}

/// The link header of a plain data frame. Endpoints write it in front of each packet.
#[inline]
pub fn plain_header(counter: u32) -> [u8; LINK_HEADER_BYTES] {
    let [a, b, c, d] = counter.to_be_bytes();
    [(Kind::PlainData as u8) << 4, 0, 0, 0, a, b, c, d]
}

/// Writes the link header and the switch header to the front of a frame that an endpoint sends.
/// Returns the rest of the frame, for the payload.
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

/// The kind in a frame's link header. Returns an error if the frame's length or the kind is not
/// valid.
#[inline]
pub(crate) fn kind_of(frame: &Frame) -> Result<Kind, Discard> {
    let bytes = frame.bytes();
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(Discard::TooLong);
    }
    let header = bytes.first_chunk::<LINK_HEADER_BYTES>().ok_or(Discard::TooShort)?;
    Kind::from_number(header[0] >> 4).ok_or(Discard::BadLinkKind)
}

/// The session index in a frame's link header.
#[inline]
pub(crate) fn session_of(frame: &Frame) -> Result<SessionIndex, Discard> {
    LinkHeader::parse(frame.bytes()).map(|header| header.index).map_err(|_| Discard::TooShort)
}
