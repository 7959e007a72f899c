//! Punts and notes to the slow path, and packets that the switch itself makes (their ingress is
//! slot 1).

use std::cell::Cell;

use arrayvec::ArrayVec;
use strowger_crypto::handshake::could_be_handshake;
use strowger_frame::{Address, Frame, Mark};
use strowger_wire::Slot;
use strowger_wire::{
    Register,
    link_header::{Kind, LINK_HEADER_BYTES, LinkHeader},
    switch_header::{AnyHeader, Header, HeaderRepr, header_bytes},
    with_header,
};

use super::{NO_QUEUE, Worker, forward::Found, verdict::Outcome};
use crate::{
    Now,
    command::{DropNotice, HandshakeDatagram, NextHopInfo, Punt, PuntKind},
    discard::Discard,
    limits::{
        BEACONS_WAITING_MAX, HANDSHAKES_MAX, HEAD_BYTES_MAX, LINK_PUNTS_AT_ONCE,
        LINK_PUNTS_PER_SECOND, PACKETS_UP_AT_ONCE, PACKETS_UP_PER_SECOND,
    },
    link::{Link, plain_header},
    mark::OWN,
    rate::Rate,
};

/// Rate limit, per link, of drop notices, of handshake initiations, and of responses and cookie
/// replies. It applies to each of these three separately.
const LINK_PUNT_RATE: Rate = Rate::per_second(LINK_PUNTS_PER_SECOND, LINK_PUNTS_AT_ONCE);
/// Rate limit, per link, of packets addressed to this switch.
const PACKET_UP_RATE: Rate = Rate::per_second(PACKETS_UP_PER_SECOND, PACKETS_UP_AT_ONCE);

/// The length of a window in nanoseconds. A worker reports at most one frame that names a former
/// slot number in each window.
const ALIAS_NOTE_NS: u64 = 100_000_000;

/// Records whether a frame has named a slot by its former number.
#[derive(Default)]
pub(super) struct AliasUsed {
    /// The former number and the start of the frame, until the note is queued.
    seen: Cell<Option<(u16, DropNotice)>>,
    is_new: Cell<bool>,
    /// The number of the window of the last report, plus one.
    window: Cell<u64>,
    /// Whether the forwarding step is a dry run for a trace. A dry run causes no note.
    is_dry: Cell<bool>,
}

impl Worker {
    /// Queues the notes that switching frames has caused.
    #[inline]
    pub(super) fn note_what_came_up(&mut self) {
        if let Some(link) = self.tx.rekey_due.take() {
            self.note_often(link, Punt::RekeyDue(link));
        }
        if self.alias_used.is_new.get() {
            self.note_alias_used();
        }
    }

    #[cold]
    fn note_alias_used(&mut self) {
        self.alias_used.is_new.set(false);
        if let Some((slot, packet)) = self.alias_used.seen.take() {
            self.note(Punt::AliasUsed { slot: Slot::new(u32::from(slot)), packet });
        }
    }

    /// Returns `to`, the link that a former number leads to. Notes the use of the number only if
    /// this step will forward the frame; a dropped frame causes an error instead.
    #[cold]
    #[allow(clippy::too_many_arguments)] // the header is passed by value, as below
    pub(super) fn pass_alias<R: Register>(
        &self,
        ingress: &Link,
        slot: u16,
        to: Mark,
        form: u8,
        width: u8,
        header: HeaderRepr<R>,
        payload: &[u8],
    ) -> Mark {
        let return_path = ingress.return_path.in_form(form);
        let return_path = return_path.or_else(|| ingress.return_path.former_in_form(form));
        let has_room = u32::from(header.shift) + u32::from(width) < R::BITS;
        let turns = ingress.mark == to && !ingress.u_turns;
        if ingress.rights.transit && !turns && return_path.is_some() && has_room {
            self.note_alias(ingress, slot, header, payload);
        }
        to
    }

    /// Stores the start of a frame that names a slot by its former number, at a limited rate.
    #[cold]
    pub(super) fn note_alias<R: Register>(
        &self,
        ingress: &Link,
        slot: u16,
        header: HeaderRepr<R>, // by value: the hot path must not need an address for this
        payload: &[u8],
    ) {
        if self.alias_used.is_dry.get() {
            return;
        }
        let window = 1 + self.tx.now.0 / ALIAS_NOTE_NS;
        if self.alias_used.window.replace(window) != window {
            let mut head = [0; HEAD_BYTES_MAX];
            let Ok(rest) = header.emit(&mut head) else { return };
            let follows = rest.len().min(payload.len());
            rest[..follows].copy_from_slice(&payload[..follows]);
            let bytes = header_bytes::<R>();
            let packet = DropNotice {
                worker: self.number,
                ingress: ingress.mark,
                ingress_slot: ingress.slot,
                rights: ingress.rights,
                at: self.tx.now,
                // The frame was not dropped.
                discard: Discard::Handled,
                dry_run: None,
                next_hop: None,
                packet_bytes: (bytes + payload.len()) as u16,
                head: head.into_iter().take(bytes + follows).collect(),
            };
            self.alias_used.seen.set(Some((slot, packet)));
            self.alias_used.is_new.set(true);
        }
    }

    /// Returns whether a link may queue one more punt of this kind, and if so counts the punt. A
    /// link may do so while it has fewer punts in the queue than there are free places, so that no
    /// link can fill the queue alone.
    #[cold]
    fn may_punt(&mut self, link: Mark, kind: PuntKind) -> bool {
        let free = self.slow_path.punts.free(kind);
        match self.links.get_mut(link) {
            Some(link) => {
                let may = link.punts_waiting(kind) < free as u64;
                link.punts[kind as usize] += u64::from(may);
                may
            }
            // The packet was made by the switch itself, or its ingress link was detached.
            None => free > 0,
        }
    }

    /// Sends a frame to the slow path. Returns the frame if the queue is full.
    #[cold]
    fn punt(&mut self, kind: PuntKind, punt: Punt) -> Result<(), (Discard, Frame)> {
        self.slow_path.has_news = true;
        let queue = if kind == PuntKind::LinkMessage {
            &self.slow_path.punts.link_messages
        } else {
            &self.slow_path.punts.packets
        };
        // This fails only if another worker has taken the last place in the meantime.
        match queue.push(punt).map_err(Punt::into_frame) {
            Err(Some(frame)) => {
                self.unpunt(frame.mark(), kind);
                Err((Discard::PuntFull, frame))
            }
            Ok(()) | Err(None) => Ok(()),
        }
    }

    /// Uncounts a punt for which there was no free place.
    #[cold]
    fn unpunt(&mut self, link: Mark, kind: PuntKind) {
        if let Some(link) = self.links.get_mut(link) {
            link.punts[kind as usize] -= 1;
        }
    }

    /// Punts a path challenge or a path response.
    #[cold]
    pub(super) fn punt_link_message(
        &mut self,
        kind: Kind,
        from: Option<(u16, Address)>,
        frame: Frame,
    ) -> Result<(), (Discard, Frame)> {
        let link = frame.mark();
        if !self.may_punt(link, PuntKind::LinkMessage) {
            return Err((Discard::PuntFull, frame));
        }
        let punt = Punt::LinkMessage { worker: self.number, link, kind, from, frame };
        self.punt(PuntKind::LinkMessage, punt)
    }

    /// Queues a note. If the queue is full, the note is lost; the next occurrence causes another
    /// one.
    #[cold]
    pub(super) fn note(&mut self, note: Punt) {
        let _ = self.slow_path.punts.notes.push(note);
        self.slow_path.has_news = true;
    }

    /// Queues a note of a kind that every frame of the link would cause. The link's rate limit
    /// applies.
    #[cold]
    pub(super) fn note_often(&mut self, link: Mark, note: Punt) {
        let now = self.tx.now;
        if self.links.get_mut(link).is_some_and(|link| link.may_note(now)) {
            self.note(note);
        }
    }

    /// Queues a note that a link's frames arrive from an address other than the link's.
    #[cold]
    pub(super) fn note_roamed(&mut self, link: Mark, from: Mark, bytes: usize, queue: usize) {
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        if let Some((port, from)) = self.ports.address_of(queue, from) {
            self.note(Punt::Roamed { link, port, from, bytes });
        }
    }

    /// Punts a packet addressed to this switch.
    pub(super) fn punt_packet(&mut self, frame: Frame) -> Result<(), (Discard, Frame)> {
        let (ingress, at) = (frame.mark(), self.tx.now);
        let Some(link) = self.links.ingress_mut(ingress) else {
            return Err((Discard::IngressGone, frame));
        };
        let (rights, ingress_slot) = (link.rights, link.slot);
        // Without the control right, a link's packets are punted within the rate limit of its drop
        // notices, because they may be replies to the switch's own requests.
        if !rights.control && !link.drop_notices.take(LINK_PUNT_RATE, at) {
            return Err((Discard::NotAllowed, frame));
        }
        let is_own = ingress == OWN;
        if !is_own && !link.packets_up.take(PACKET_UP_RATE, at) {
            return Err((Discard::OverBudget, frame));
        }
        if !self.may_punt(ingress, PuntKind::Packet) {
            return Err((Discard::PuntFull, frame));
        }
        let worker = self.number;
        let packet = Punt::Packet { worker, ingress, ingress_slot, rights, at, frame };
        self.punt(PuntKind::Packet, packet)
    }

    /// Whether beacons that arrive on this port are punted. The result is one word, because a
    /// larger one would use registers that the plain path needs.
    #[cold]
    #[inline(never)]
    pub(super) fn accepts_beacons(&mut self, queue: usize) -> bool {
        self.ports.at(queue).is_some_and(|queue| queue.accepts_beacons)
    }

    /// Punts a handshake message or a beacon. Neither is authenticated.
    pub(super) fn punt_handshake(
        &mut self,
        frame: Frame,
        queue: usize,
    ) -> Result<(), (Discard, Frame)> {
        let link = frame.mark();
        let Some((port, from)) = self.ports.address_of(queue, link) else {
            return Err((Discard::UnknownSender, frame));
        };
        let Ok(header) = LinkHeader::parse(frame.bytes()) else {
            return Err((Discard::Malformed, frame));
        };
        let is_beacon = header.kind == Kind::Beacon;
        // A message is dropped if its length is wrong for its kind, or if it is a response or
        // cookie reply that this switch does not wait for.
        if !is_beacon && !could_be_handshake(&header, frame.len()) {
            return Err((Discard::Malformed, frame));
        }
        let is_answer = !is_beacon && header.kind != Kind::Initiation;
        if is_answer && !self.slow_path.awaited.has(header.index) {
            return Err((Discard::NoSession, frame));
        }
        // Messages from unknown senders have a separate queue. All beacons go to that queue,
        // whatever their source address.
        let is_known = !is_beacon && !link.is_unknown();
        // The rate of messages from each known sender is limited.
        let at = self.tx.now;
        let known = self.links.get_mut(link).filter(|_| is_known);
        let is_over_budget = known.is_some_and(|link| {
            let bucket =
                if is_answer { &mut link.handshake_answers } else { &mut link.initiations };
            !bucket.take(LINK_PUNT_RATE, at)
        });
        if is_over_budget {
            return Err((Discard::OverBudget, frame));
        }
        if is_known && !self.may_punt(link, PuntKind::HandshakeDatagram) {
            return Err((Discard::PuntFull, frame));
        }
        let punts = &self.slow_path.punts;
        let places = if is_beacon { BEACONS_WAITING_MAX } else { HANDSHAKES_MAX };
        let datagram = HandshakeDatagram { worker: self.number, port, link, from, frame };
        let pushed = if is_known {
            punts.handshakes.push(datagram)
        } else {
            punts.unknown_peers.push(datagram, places)
        };
        self.slow_path.has_news = true;
        if pushed.is_err() && is_known {
            self.unpunt(link, PuntKind::HandshakeDatagram);
        }
        pushed.map_err(|full| (Discard::PuntFull, full.frame))
    }

    /// Counts a drop at the port on which the frame arrived.
    #[cold]
    pub(super) fn discard(&mut self, queue: usize, discard: Discard, frame: &Frame) {
        // A frame that is completely processed does not count as a discard of its slot.
        if discard != Discard::Handled
            && let Some(link) = self.links.get(frame.mark())
        {
            link.tally.discards.add(1);
        }
        match self.ports.at(queue) {
            Some(queue) => {
                queue.discards.count(discard);
                queue.port.note_discard(frame, discard.name());
            }
            // The frame arrived on no port of this worker: another worker handed it off, or the
            // switch made it.
            None => self.slow_path.orphan_drops.count(discard),
        }
    }

    /// Counts a drop at a link and its port, usually those on which the frame was to be sent.
    #[cold]
    pub(super) fn count_at_egress(&mut self, egress: Mark, discard: Discard) {
        let discards = self.links.get(egress).and_then(|link| {
            link.tally.discards.add(1);
            self.ports.discards(link.port)
        });
        match discards {
            Some(discards) => discards.count(discard),
            // The link was detached, or its port was removed or belongs to another worker.
            None => self.slow_path.orphan_drops.count(discard),
        }
    }

    /// Punts a drop notice, from which the slow path makes an error. No notice is punted if the
    /// reason is not reported to senders, if the packet has the flag "no errors", if the link's
    /// rate limit is exceeded, or if the queue is full.
    #[cold]
    pub(super) fn notify_drop(&mut self, discard: Discard, frame: &Frame, egress: Option<Mark>) {
        let at = self.tx.now;
        if !discard.is_reported() || self.slow_path.punts.free(PuntKind::DropNotice) == 0 {
            return;
        }
        let packet = frame.bytes().get(LINK_HEADER_BYTES..).unwrap_or_default();
        let mut head: ArrayVec<u8, HEAD_BYTES_MAX> =
            packet.iter().take(HEAD_BYTES_MAX).copied().collect();
        let (no_errors, is_trace) = match AnyHeader::parse(&mut head) {
            Ok(header) => with_header!(header, header => flags(&header)),
            Err(_) => return,
        };
        let ingress = frame.mark();
        let Some(link) = self.links.ingress_mut(ingress) else { return };
        if no_errors || !link.drop_notices.take(LINK_PUNT_RATE, at) {
            return;
        }
        let (ingress_slot, rights) = (link.slot, link.rights);
        if !self.may_punt(ingress, PuntKind::DropNotice) {
            return;
        }
        let mut next_hop = egress.and_then(|mark| self.next_hop_info(mark));
        let mut dry_run = None;
        if is_trace && discard == Discard::HopsSpent {
            (next_hop, dry_run) = self.dry_run(ingress, head.clone(), frame.len());
        }
        let notice = DropNotice {
            worker: self.number,
            ingress,
            ingress_slot,
            rights,
            at,
            discard,
            dry_run,
            next_hop,
            packet_bytes: packet.len() as u16,
            head,
        };
        self.slow_path.has_news = true;
        if self.slow_path.punts.drop_notices.push(Punt::Dropped(notice)).is_err() {
            self.unpunt(ingress, PuntKind::DropNotice);
        }
    }

    /// Returns the outcome that a trace packet would have if it had one more hop. To find it, the
    /// function runs the forwarding step on a copy of the packet's start.
    fn dry_run(
        &self,
        ingress: Mark,
        mut head: ArrayVec<u8, HEAD_BYTES_MAX>,
        frame_bytes: usize,
    ) -> (Option<NextHopInfo>, Option<Discard>) {
        let Some(ingress) = self.links.ingress(ingress) else { return (None, None) };
        self.alias_used.is_dry.set(true);
        let found = match AnyHeader::parse(&mut head) {
            Ok(header) => with_header!(header, header => self.swap(ingress, with_a_hop(header))),
            Err(error) => Err(error.into()),
        };
        self.alias_used.is_dry.set(false);
        match found {
            Ok(Found { egress, is_control, .. }) => {
                let link = self.links.get(egress);
                let refused = match link {
                    None => Some(Discard::ExitGone),
                    // The queue and the sealer belong to another worker.
                    Some(link) if link.home.is_some() => None,
                    Some(link) => link.dry_run(frame_bytes, is_control),
                };
                (self.next_hop_info(egress), refused)
            }
            Err(verdict) => match verdict.outcome() {
                Outcome::Drop { discard, .. } => (None, Some(discard)),
                _ => (None, None),
            },
        }
    }

    fn next_hop_info(&self, egress: Mark) -> Option<NextHopInfo> {
        let link = self.links.get(egress)?;
        Some(NextHopInfo {
            link: egress,
            queue_frames: link.egress.waiting() as u16,
            packet_bytes_max: link.packet_bytes_max(),
        })
    }

    /// Sends a packet that the switch itself made. The packet's ingress is slot 1.
    pub(super) fn originate(&mut self, packet: &[u8], now: Now) {
        let Some(mut frame) = self.make(LINK_HEADER_BYTES + packet.len()) else { return };
        frame.set_mark(OWN);
        let (link_header, rest) = frame.bytes_mut().split_at_mut(LINK_HEADER_BYTES);
        link_header.copy_from_slice(&plain_header(0));
        rest.copy_from_slice(packet);
        let found = match AnyHeader::parse(rest) {
            Ok(header) => with_header!(header, header => self.swap(self.links.own(), header)),
            Err(error) => Err(error.into()),
        };
        let verdict = match found {
            Ok(found) => self.encapsulate(&mut frame, found, now),
            Err(verdict) => verdict,
        };
        self.dispatch(Some(frame).into_iter(), &[verdict], NO_QUEUE);
    }

    /// Whether a control packet is sent before data. Control packets that the switch itself makes
    /// always are: they were rate-limited when they were made.
    #[cold]
    pub(super) fn may_go_ahead(&mut self, frame: &Frame, now: Now) -> bool {
        let ingress = frame.mark();
        ingress == OWN
            || self.links.get_mut(ingress).is_some_and(|link| link.may_go_ahead(frame, now))
    }
}

/// Returns whether the packet's sender asks for no errors, and whether it is a trace packet.
fn flags<R: Register>(header: &Header<'_, R>) -> (bool, bool) {
    (header.no_errors(), header.is_control() && header.wants_telemetry())
}

fn with_a_hop<R: Register>(mut header: Header<'_, R>) -> Header<'_, R> {
    header.set_hops_left(1);
    header
}
