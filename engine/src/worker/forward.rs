//! The path of a packet through one worker, in packet order.
//!
//! `receive` takes a burst from a port, and `forward` switches it. For each frame, `classify` finds
//! the link and opens the frame, `lookup` finds the next hop and swaps the label (RFC 3031, section
//! 3.10), and `encapsulate` prepares the frame for the next hop. `dispatch` then moves the frames
//! to their queues.

use arrayvec::ArrayVec;
use strowger_frame::{BURST_MAX, Burst, Frame, Mark, reserve::PoolUser};
use strowger_wire::Slot;
use strowger_wire::{
    Register,
    link_header::Kind,
    switch_header::{AnyHeader, Header, hops_behind},
    with_header,
};

use super::{
    Worker,
    verdict::{Outcome, PuntReason, Verdict},
};
use crate::{
    Now,
    command::PortQueue,
    discard::Discard,
    limits::BURSTS_PER_POLL,
    link::{Link, Opened, PendingFrame, kind_of},
    slots::NextHop,
};

/// The result of a lookup.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) egress: Mark,
    pub(super) is_control: bool,
    /// The packet's ingress slot. Ingresses share the places of a contended egress queue.
    pub(super) ingress_slot: Slot,
}

impl Worker {
    /// Polls once: applies commands, takes bursts from ports and from other workers, and transmits.
    /// Returns the number of frames that arrived; 0 if the poll was idle.
    pub fn poll(&mut self, now: Now) -> usize {
        let now = Now(now.0.wrapping_add(self.slow_path.skew.read()));
        self.tx.now = now;
        self.apply_commands(now);
        self.tx.pool.reclaim();
        self.offer_again();

        let (ports, rings) = (self.ports.len(), self.handoff_rings.workers());
        let (mut switched, had_turn) = if rings > 0 { self.take_first(now) } else { (0, 0) };
        // Takes one burst from each port and ring per round, so that none of them occupies the
        // whole poll.
        self.schedule.begin(ports + rings);
        for round in 0..BURSTS_PER_POLL {
            let mut has_more = 0;
            for at in 0..self.schedule.order.len() {
                let place = self.schedule.order[at];
                let taken = match usize::from(place).checked_sub(ports) {
                    None => Some(self.receive(usize::from(place), now)),
                    Some(ring) if round == 0 && had_turn >> ring & 1 == 1 => None,
                    Some(ring) => Some(self.take_handoffs(ring, now)),
                };
                switched += taken.unwrap_or_default();
                if taken.is_none_or(|taken| taken == BURST_MAX) {
                    self.schedule.order[has_more] = place;
                    has_more += 1;
                }
            }
            self.schedule.order.truncate(has_more);
            if has_more == 0 {
                break;
            }
        }
        if switched > 0 {
            self.slow_path.note_frames();
        }
        self.flush();
        switched
    }

    /// Takes one burst from a port and switches it.
    fn receive(&mut self, queue: usize, now: Now) -> usize {
        let mut burst = Burst::new();
        let Some(PortQueue { number, port, .. }) = self.ports.at(queue) else { return 0 };
        self.tx.pool.set_user(PoolUser::port(*number));
        port.rx_burst(&mut self.tx.pool, &mut burst);
        self.tx.pool.set_user(PoolUser::COMMON);
        let received = burst.len();
        self.forward(&mut burst, queue, now);
        self.flush_after(received);
        received
    }

    /// Switches one burst. Frames are rewritten in place, and each is then moved once.
    #[inline]
    pub(super) fn forward(&mut self, burst: &mut Burst, queue: usize, now: Now) {
        let verdicts: ArrayVec<Verdict, BURST_MAX> =
            burst.iter_mut().map(|frame| self.decide(frame, queue, now)).collect();
        self.dispatch(burst.drain(..), &verdicts, queue);
        self.transmit();
    }

    #[inline(always)]
    pub(super) fn decide(&mut self, frame: &mut Frame, queue: usize, now: Now) -> Verdict {
        let found = match self.classify(frame, queue, now) {
            Ok(packet) => self.lookup(packet, now),
            Err(verdict) => Err(verdict),
        };
        match found {
            Ok(found) => self.encapsulate(frame, found, now),
            Err(verdict) => verdict,
        }
    }

    /// Finds the ingress link of a frame, and opens the frame.
    #[inline(always)]
    fn classify<'f>(
        &mut self,
        frame: &'f mut Frame,
        queue: usize,
        now: Now,
    ) -> Result<Opened<'f>, Verdict> {
        match kind_of(frame)? {
            Kind::PlainData => {
                let ingress = self.links.get(frame.mark()).ok_or_else(|| no_link(frame))?;
                Ok(ingress.open_plain(frame)?)
            }
            kind @ (Kind::SealedData
            | Kind::SealedHeaderData
            | Kind::PathChallenge
            | Kind::PathResponse) => self.open_sealed(frame, kind, queue, now),
            Kind::Initiation | Kind::Response | Kind::Cookie => Err(Verdict::PUNT_HANDSHAKE),
            Kind::Beacon if self.accepts_beacons(queue) => Err(Verdict::PUNT_HANDSHAKE),
            Kind::Beacon => Err(Discard::BadLinkKind.into()),
        }
    }

    /// Parses the header, finds the next hop by the label's low bits, and swaps the label.
    #[inline(always)]
    fn lookup(&self, packet: Opened<'_>, now: Now) -> Result<Found, Verdict> {
        let ingress = self.links.get(packet.frame().mark()).ok_or(Discard::IngressGone)?;
        ingress.count_arrival(packet.frame(), now);
        if packet.is_keepalive() {
            return Err(Verdict::CONSUMED);
        }
        // `parse` checks all lengths, so the code after it checks none.
        let header = AnyHeader::parse(packet.packet())?;
        with_header!(header, header => self.swap(ingress, header))
    }

    /// Makes one forwarding step (wire.md 1.2). The step writes only after all its checks, so a
    /// frame that it drops is unchanged.
    #[inline(always)]
    pub(super) fn swap<R: Register>(
        &self,
        ingress: &Link,
        mut header: Header<'_, R>,
    ) -> Result<Found, Verdict> {
        let hops_left = hops_behind(header.hops_left(), self.hops_max).ok_or(Discard::HopsSpent)?;
        let (label, shift) = (header.label(), header.shift());
        if label.is_spent(shift) {
            return Err(Discard::LabelSpent.into());
        }

        let entry = self.slots.lookup(label.low());
        let (ingress_slot, is_control) = (ingress.slot, header.is_control());
        let egress = match entry.next_hop() {
            NextHop::Neighbour(egress) => egress,
            NextHop::Alias { to, slot, is_endpoint: false } => {
                let (form, width) = (entry.form(), entry.width());
                self.pass_alias(ingress, slot, to, form, width, header.to_repr(), header.payload())
            }
            NextHop::Endpoint(egress) | NextHop::Alias { to: egress, is_endpoint: true, .. } => {
                check_turn(ingress, egress)?;
                check_right(ingress.rights.endpoints)?;
                check_label_ends(&header, entry.width())?;
                if let NextHop::Alias { slot, .. } = entry.next_hop() {
                    self.note_alias(ingress, slot, header.to_repr(), header.payload());
                }
                return Ok(Found { egress, is_control, ingress_slot });
            }
            NextHop::Switch => {
                // A link without the control right may still send replies. The slow path checks
                // whether the packet is a reply.
                check_label_ends(&header, entry.width())?;
                return Err(Verdict::PUNT_PACKET);
            }
            NextHop::Drop(reason) => return Err(reason.into()),
        };
        check_turn(ingress, egress)?;
        check_right(ingress.rights.transit)?;
        let return_path = match ingress.return_path.in_form(entry.form()) {
            Some(return_path) => return_path,
            None => former_return_path(ingress, entry.form()).ok_or(Discard::ReturnPath)?,
        };
        let shift = shift + u16::from(entry.width());
        if u32::from(shift) >= R::BITS {
            return Err(Discard::LabelFull.into());
        }
        header.advance(label.advance(entry.width(), return_path), shift, hops_left);
        Ok(Found { egress, is_control, ingress_slot })
    }

    /// Reserves a place in the egress queue of the next hop, then writes the link header in place.
    /// On a sealed link it also seals the frame in place.
    #[inline(always)]
    pub(super) fn encapsulate(&mut self, frame: &mut Frame, found: Found, now: Now) -> Verdict {
        let Found { egress, is_control, ingress_slot } = found;
        let Some(link) = self.links.get_mut(egress) else {
            return Verdict::drop(Discard::ExitGone);
        };
        if is_control | link.is_special() {
            return self.encapsulate_special(frame, found, now);
        }
        match link.encapsulate(frame, ingress_slot, &mut self.tx) {
            Ok(()) => Verdict::transmit(egress, false),
            Err(discard) => Verdict::refused(discard, egress, false),
        }
    }

    /// Moves each frame to the queue of its verdict; consecutive frames for one queue move
    /// together. No command is applied between the verdict and the move, so every next hop still
    /// exists.
    #[inline]
    pub(super) fn dispatch(
        &mut self,
        mut frames: impl ExactSizeIterator<Item = Frame>,
        verdicts: &[Verdict],
        queue: usize,
    ) {
        let mut rest = verdicts;
        while let Some(&verdict) = rest.first() {
            let run = match verdict.as_transmit() {
                Some((egress, is_control)) => {
                    let run = rest.iter().take_while(|&&other| other == verdict).count();
                    let Some(link) = self.links.get_mut(egress) else { return };
                    link.egress.put(frames.by_ref().take(run), is_control);
                    run
                }
                None => {
                    let Some(frame) = frames.next() else { return };
                    self.dispatch_other(verdict, frame, queue);
                    1
                }
            };
            rest = &rest[run..];
        }
    }

    /// As [`encapsulate`](Self::encapsulate), for control packets, for a next hop whose port
    /// belongs to another worker, and for a contended queue.
    #[cold]
    #[inline(never)]
    fn encapsulate_special(&mut self, frame: &mut Frame, found: Found, now: Now) -> Verdict {
        let Found { egress, is_control, ingress_slot } = found;
        let is_control = is_control && self.may_go_ahead(frame, now);
        let Some(link) = self.links.get_mut(egress) else {
            return Verdict::drop(Discard::ExitGone);
        };
        if let Some(worker) = link.home {
            return Verdict::handoff(worker, egress, is_control);
        }
        match link.encapsulate_special(frame, ingress_slot, is_control, &mut self.tx) {
            Ok(is_control) => Verdict::transmit(egress, is_control),
            Err(discard) => Verdict::refused(discard, egress, is_control),
        }
    }

    /// Hands off, punts, holds or drops a frame that joins no egress queue of this worker.
    #[cold]
    fn dispatch_other(&mut self, verdict: Verdict, frame: Frame, queue: usize) {
        let mut refused_by = None;
        let sent = match verdict.outcome() {
            Outcome::Handoff { worker, next_hop, is_control } => {
                self.handoff_to_egress(worker, next_hop, is_control, frame)
            }
            Outcome::WrongWorker { worker } => self.handoff_to_session(worker, frame, queue),
            Outcome::Punt(PuntReason::Packet) => self.punt_packet(frame),
            Outcome::Punt(PuntReason::LinkMessage { kind, from }) => {
                self.punt_link_message(kind, self.ports.address_of(queue, from), frame)
            }
            Outcome::Punt(PuntReason::Handshake) => self.punt_handshake(frame, queue),
            Outcome::Consumed => {
                if let Some(link) = self.links.get(frame.mark()) {
                    link.tally.keepalives_in.add(1);
                }
                Err((Discard::Handled, frame))
            }
            Outcome::Drop { discard, next_hop: Some(next_hop), is_control } => {
                refused_by = Some(next_hop);
                let ingress_slot = self.links.ingress_slot(frame.mark());
                self.hold_for_keys(
                    next_hop,
                    discard,
                    PendingFrame { frame, ingress_slot, is_control },
                )
            }
            Outcome::Drop { discard, next_hop: None, .. } => Err((discard, frame)),
            Outcome::Transmit { .. } => Err((Discard::Unhandled, frame)),
        };
        if let Err((discard, frame)) = sent {
            self.notify_drop(discard, &frame, refused_by);
            self.discard(queue, discard, &frame);
        }
    }
}

/// A packet may be sent back through its ingress slot only if the operator allows U-turns (wire.md
/// 1.2).
#[inline]
fn check_turn(ingress: &Link, egress: Mark) -> Result<(), Discard> {
    if ingress.mark == egress && !ingress.u_turns { Err(Discard::UTurn) } else { Ok(()) }
}

/// Checks one right of the sender. A sender without the right gets the same error as for an empty
/// slot; the counters distinguish the two.
#[inline]
fn check_right(has: bool) -> Result<(), Discard> {
    if has { Ok(()) } else { Err(Discard::NotAllowed) }
}

/// Checks that at most the end marker follows the last director (wire.md 1.3).
#[inline]
fn check_label_ends<R: Register>(header: &Header<'_, R>, width: u8) -> Result<(), Discard> {
    let forward = header.label().forward(header.shift()).register();
    let rest = forward.shr(u32::from(width));
    if rest == R::ZERO || rest == R::ONE { Ok(()) } else { Err(Discard::BeyondEndpoint) }
}

/// The return-path bits of a former number of the link's slot. They are used if the present number
/// does not fit the width.
#[cold]
#[inline(never)]
fn former_return_path(ingress: &Link, form: u8) -> Option<u64> {
    let return_path = ingress.return_path.former_in_form(form)?;
    ingress.tally.by_former.add(1);
    Some(return_path)
}

/// The discard reason for a frame whose mark names no link.
#[cold]
fn no_link(frame: &Frame) -> Discard {
    if frame.mark().is_unknown() { Discard::UnknownSender } else { Discard::IngressGone }
}
