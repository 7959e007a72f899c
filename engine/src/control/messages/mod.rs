//! Control messages (wire.md 5): requests to slot 1 and their replies, errors about dropped
//! packets, and the requests that this switch sends. No worker waits for these messages.
//!
//! | received | sent |
//! |---|---|
//! | a request from an ingress with the right `control` | the reply, no longer than the request, within the ingress' budget |
//! | a request from another ingress | the same error as for an empty slot |
//! | a reply, error or notice about one of this switch's requests | nothing; it becomes an event |
//! | a reply, error or notice about any other packet | nothing; it is counted as `unsolicited` |
//! | a goodbye from the neighbour on the ingress | nothing; it becomes an event, and a sealed link goes down |
//! | any other packet | nothing; it is counted as `unhandled` |
//! | a worker's drop notice | an error, or one hop of a trace; never about an error (R4) |

mod budget;
mod lookups;
mod requests;

use std::mem;

use strowger_crypto::LocalIdentity;
use strowger_frame::{Frame, Mark};
use strowger_wire::{
    Label, Register, Slot,
    control::{Behind, HopWord, Message, MessageBytes, is_request, trace_id},
    link_header::LINK_HEADER_BYTES,
    switch_header::{AnyHeader, Flags, HEADER_BYTES_MAX, Header, HeaderRepr},
    with_header,
};

pub use self::lookups::{AnnouncementView, KnownPeer, Resolver};
pub use self::requests::{
    Complaint, ControlReply, ControlRequest, HopReport, RequestError, RequestId,
};

use self::{
    budget::Budgets,
    lookups::{Lookups, may_resolve, observed},
    requests::PendingRequests,
};
use super::{
    Event,
    base::{Base, Outputs},
    slots::Slots,
};
use crate::{
    Now,
    command::{Command, DropNotice, NextHopInfo, Punt, PuntKind},
    discard::Discard,
    limits::HOPS_MAX,
    link::{self, Rights},
};

/// The budgets of each ingress, the requests of this switch that wait for replies, and the
/// announcements of endpoints.
#[derive(Debug, Default)]
pub(super) struct ControlMessages {
    budgets: Budgets,
    requests: PendingRequests,
    lookups: Lookups,
}

/// The properties of a packet that determine whether a reply to it, or an error or notice about it,
/// is sent.
#[derive(Clone, Copy)]
struct Cause {
    ingress: Mark,
    ingress_slot: Slot,
    rights: Rights,
    at: Now,
    /// The length of the packet without link header and tag.
    packet_bytes: usize,
}

impl Cause {
    fn of(notice: &DropNotice) -> Self {
        Self {
            ingress: notice.ingress,
            ingress_slot: notice.ingress_slot,
            rights: notice.rights,
            at: notice.at,
            packet_bytes: usize::from(notice.packet_bytes),
        }
    }
}

/// The drop reason of a packet, and its next hop.
struct DroppedPacket {
    why: Discard,
    dry_run: Option<Discard>,
    next_hop: Option<NextHopInfo>,
}

/// A goodbye: the neighbour on a slot ends its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Goodbye {
    pub(super) slot: Slot,
    pub(super) retry_after_s: u32,
}

/// The outcome of a packet for slot 1.
struct Outcome {
    end: Discard,
    goodbye: Option<Goodbye>,
}

impl From<Discard> for Outcome {
    fn from(end: Discard) -> Self {
        Self { end, goodbye: None }
    }
}

impl ControlMessages {
    /// The time at which [`poll`](Self::poll) has work.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        self.requests.next_timeout().into_iter().chain(self.lookups.next_timeout()).min()
    }

    /// Repeats or abandons the requests that got no reply in time. Deletes announcements that are
    /// no longer valid.
    pub(super) fn poll(&mut self, now: Now, base: &mut Base) {
        self.requests.poll(now, &mut base.out);
        self.lookups.poll(now, &base.slots, &mut base.out);
    }

    /// Sets the source of labels for resolve messages.
    pub(super) fn set_resolver(&mut self, resolver: Option<Box<dyn Resolver>>) {
        self.lookups.set_resolver(resolver);
    }

    /// The announcements of a slot's user.
    pub(super) fn announcements(&self, user: Mark, now: Now) -> Vec<AnnouncementView> {
        self.lookups.views(user, now)
    }

    /// Removes all budgets and requests. Announcements and slots stay. The numbering of requests
    /// continues, so a late reply does not match a later request.
    pub(super) fn reset(&mut self) {
        self.budgets = Budgets::default();
        self.requests.forget();
    }

    /// Sends a request along `label`; see [`Switch::send_request`](super::Switch::send_request).
    pub(super) fn send_request(
        &mut self,
        label: Label,
        request: ControlRequest,
        now: Now,
        base: &mut Base,
    ) -> Result<RequestId, RequestError> {
        // The reply arrives on the label's first slot. If the label does not begin with a director,
        // this switch itself (slot 1) sends the error.
        let first = base.slots.config().scheme.decode(label.low());
        let by = first.map_or(1, |director| director.slot().number());
        self.requests.send_request(label, request, Slot::new(by), now, &mut base.out)
    }

    /// Handles a punt that carries a packet or a notice about one. Returns the goodbye, if the
    /// packet is one.
    pub(super) fn handle(
        &mut self,
        punt: Punt,
        now: Now,
        identity: Option<&LocalIdentity>,
        base: &mut Base,
    ) -> Option<Goodbye> {
        match punt {
            Punt::Packet { worker, ingress, ingress_slot, rights, at, mut frame } => {
                base.note_taken(ingress, worker, PuntKind::Packet);
                let packet_bytes = frame.len().saturating_sub(LINK_HEADER_BYTES);
                let cause = Cause { ingress, ingress_slot, rights, at, packet_bytes };
                base.held.hold(1);
                let outcome = self.handle_packet(cause, &mut frame, now, identity, base);
                base.held.end(outcome.end);
                return outcome.goodbye;
            }
            Punt::Dropped(notice) => {
                base.note_taken(notice.ingress, notice.worker, PuntKind::DropNotice);
                self.handle_drop_notice(notice, now, base);
            }
            Punt::AliasUsed { slot: named, packet } => {
                self.handle_alias_used(named, packet, now, base);
            }
            // `Links` handles these.
            Punt::LinkMessage { .. }
            | Punt::FirstFrame(_)
            | Punt::Roamed { .. }
            | Punt::Migrate(..)
            | Punt::RekeyDue(_)
            | Punt::Unsealed(_)
            | Punt::SendFailed { .. } => (),
        }
        None
    }

    fn handle_packet(
        &mut self,
        cause: Cause,
        frame: &mut Frame,
        now: Now,
        identity: Option<&LocalIdentity>,
        base: &mut Base,
    ) -> Outcome {
        let packet = frame.bytes_mut().get_mut(LINK_HEADER_BYTES..).unwrap_or_default();
        match AnyHeader::parse(packet) {
            Ok(header) => with_header!(header, header => {
                self.handle_message(cause, &header, now, identity, base)
            }),
            Err(_) => Discard::Unhandled.into(),
        }
    }

    /// Handles a packet for slot 1.
    fn handle_message<R: Register>(
        &mut self,
        cause: Cause,
        header: &Header<'_, R>,
        now: Now,
        identity: Option<&LocalIdentity>,
        base: &mut Base,
    ) -> Outcome {
        if !header.is_control() {
            return Discard::Unhandled.into();
        }
        let Ok(message) = Message::parse(header.payload()) else {
            return Discard::Unhandled.into();
        };
        if is_request(header.payload()) {
            return self.reply_to(cause, header, &message, now, identity, base).into();
        }
        let by = cause.ingress_slot;
        match message {
            Message::Goodbye { code, retry_after_s, text } => {
                if !is_of_neighbour(header) {
                    // Only a direct neighbour may end its link (W5-12).
                    return Discard::Unhandled.into();
                }
                if !self.budgets.goodbye(cause.ingress, now) {
                    return Discard::OverBudget.into();
                }
                let text = text.to_owned();
                base.out.events.push(Event::Goodbye { slot: by, code, retry_after_s, text });
                let goodbye = Some(Goodbye { slot: by, retry_after_s });
                Outcome { end: Discard::Handled, goodbye }
            }
            // No packet was lost. The event informs the application that uses the labels.
            Message::SlotMoved { from, to, offending } => {
                if !self.requests.has_sent(by, offending, now) {
                    return Discard::Unsolicited.into();
                }
                if !self.budgets.notice(cause.ingress, now) {
                    return Discard::OverBudget.into();
                }
                base.out.events.push(Event::SlotMovedAway {
                    by,
                    from: Slot::new(from),
                    to: Slot::new(to),
                });
                Discard::Handled.into()
            }
            message if self.requests.handle(by, &message, now, &mut base.out) => {
                Discard::Handled.into()
            }
            _ => Discard::Unsolicited.into(),
        }
    }

    /// Replies to a request, and returns the outcome of the request.
    fn reply_to<R: Register>(
        &mut self,
        cause: Cause,
        header: &Header<'_, R>,
        request: &Message<'_>,
        now: Now,
        identity: Option<&LocalIdentity>,
        base: &mut Base,
    ) -> Discard {
        if !cause.rights.control {
            // Send the same error as for an empty slot (W5-9).
            self.send_error(cause, header, Discard::EmptySlot, None, now, base);
            return Discard::NotAllowed;
        }
        if !self.budgets.reply(cause.ingress, now) {
            return Discard::OverBudget;
        }
        let keys = identity.map(|local| (local.identity().to_bytes(), local.static_public().0));
        let reply = match *request {
            Message::Ping { id, payload } => Message::Pong { id, payload },
            Message::TraceRequest { id } => {
                let hop = HopWord {
                    slot_in: cause.ingress_slot.number(),
                    slot_out: Some(Slot::SWITCH.number()),
                    behind: Behind::Switch,
                    discard: None,
                    held_ns: now.0.saturating_sub(cause.at.0),
                    worker_ns: cause.at.0,
                    queue_frames: 0,
                    packet_bytes_max: 0,
                };
                Message::TraceReply { id, hop }
            }
            Message::IdentityRequest { id } => match &keys {
                Some((identity, link_key)) => Message::IdentityReply { id, identity, link_key },
                // This switch has no identity.
                None => return Discard::Handled,
            },
            Message::Find { nonce, tag } => {
                if !self.budgets.find(cause.ingress, now) {
                    return Discard::OverBudget;
                }
                let host = self.lookups.find(cause, nonce, tag, &base.slots, now);
                let found = Message::Found { nonce, host };
                send_reply(cause, header, &found, base);
                return Discard::Handled;
            }
            Message::Announce { .. }
            | Message::ObservedRequest { .. }
            | Message::Resolve { .. } => {
                return self.reply_to_neighbour(cause, header, request, now, identity, base);
            }
            _ => return Discard::Unhandled,
        };
        send_reply(cause, header, &reply, base);
        Discard::Handled
    }

    /// Replies to a request that only the neighbour or endpoint of the ingress may send.
    fn reply_to_neighbour<R: Register>(
        &mut self,
        cause: Cause,
        header: &Header<'_, R>,
        request: &Message<'_>,
        now: Now,
        identity: Option<&LocalIdentity>,
        base: &mut Base,
    ) -> Discard {
        if !is_of_neighbour(header) {
            return Discard::Unhandled;
        }
        match *request {
            Message::Announce { id, ref announcement } => {
                if !self.budgets.announce(cause.ingress, now) {
                    return Discard::OverBudget;
                }
                let (slots, out) = (&base.slots, &mut base.out);
                let verdict =
                    self.lookups.announce(cause, announcement, identity, (slots, out), now);
                let (verdict, seconds) = verdict;
                if !verdict.is_taken() {
                    let slot = cause.ingress_slot;
                    base.out.events.push(Event::AnnounceRefused { slot, verdict });
                }
                send_reply(cause, header, &Message::Announced { id, verdict, seconds }, base);
            }
            Message::ObservedRequest { id } => {
                let address = observed(cause, &base.slots);
                send_reply(cause, header, &Message::ObservedReply { id, address }, base);
            }
            Message::Resolve { id, ref target } => {
                if !may_resolve(cause, &base.slots) {
                    self.send_error(cause, header, Discard::EmptySlot, None, now, base);
                    return Discard::NotAllowed;
                }
                let answer = self.lookups.resolve(cause, target, &base.slots, now);
                let resolution = answer.resolution();
                send_reply(cause, header, &Message::Resolved { id, resolution }, base);
            }
            _ => return Discard::Unhandled,
        }
        Discard::Handled
    }

    /// Sends an error or a trace reply to the sender of a dropped packet, if wire.md allows it.
    fn handle_drop_notice(&mut self, mut notice: DropNotice, now: Now, base: &mut Base) {
        let mut head = mem::take(&mut notice.head);
        let cause = Cause::of(&notice);
        let drop = DroppedPacket {
            why: notice.discard,
            dry_run: notice.dry_run,
            next_hop: notice.next_hop,
        };
        if let Ok(header) = AnyHeader::parse(&mut head) {
            with_header!(header, header => self.send_drop_error(cause, header, &drop, now, base));
        }
    }

    fn send_drop_error<R: Register>(
        &mut self,
        cause: Cause,
        mut header: Header<'_, R>,
        drop: &DroppedPacket,
        now: Now,
        base: &mut Base,
    ) {
        let DroppedPacket { why, dry_run, next_hop } = *drop;
        if let (Some(next_hop), true) = (next_hop, why != Discard::HopsSpent)
            && undo_hop(&mut header, cause.ingress_slot, next_hop.link, &base.slots).is_none()
        {
            return;
        }
        let header = &header;
        if !may_send_error(header) {
            return;
        }
        let traced = trace_id(header.payload())
            .filter(|_| header.is_control() && header.wants_telemetry())
            .filter(|_| why == Discard::HopsSpent && cause.rights.control);
        let Some(id) = traced else {
            let packet_bytes_max = next_hop.map(|next_hop| next_hop.packet_bytes_max);
            return self.send_error(cause, header, why, packet_bytes_max, now, base);
        };
        if !self.budgets.reply(cause.ingress, now) {
            return;
        }
        let discard = dry_run.map(|why| disclosed(why, cause.rights));
        let scheme = &base.slots.config().scheme;
        let slot_out = scheme.decode(header.label().low()).ok().map(|d| d.slot().number());
        let behind = match (discard, next_hop) {
            (Some(_), _) => Behind::Nothing,
            (None, None) => Behind::Switch,
            (None, Some(next_hop)) => match behind(&base.slots, next_hop.link) {
                Some(link::Behind::Neighbour) => Behind::Neighbour,
                Some(link::Behind::Endpoint) => Behind::Endpoint,
                None => Behind::Nothing,
            },
        };
        let hop = HopWord {
            slot_in: cause.ingress_slot.number(),
            slot_out,
            behind,
            discard: discard.and_then(Discard::reason),
            held_ns: now.0.saturating_sub(cause.at.0),
            worker_ns: cause.at.0,
            queue_frames: next_hop.map_or(0, |next_hop| next_hop.queue_frames),
            packet_bytes_max: next_hop.map_or(0, |next_hop| next_hop.packet_bytes_max),
        };
        send_reply(cause, header, &Message::TraceReply { id, hop }, base);
    }

    /// Sends an error about a packet, within the ingress' budget.
    fn send_error<R: Register>(
        &mut self,
        cause: Cause,
        header: &Header<'_, R>,
        why: Discard,
        packet_bytes_max: Option<u16>,
        now: Now,
        base: &mut Base,
    ) {
        if header.no_errors() {
            return;
        }
        let why = disclosed(why, cause.rights);
        let mut buffer = [0; HEADER_BYTES_MAX];
        let Some(offending) = offending(header, &mut buffer) else { return };
        let error = match (why, why.reason()) {
            (Discard::TooBig, _) => {
                let Some(packet_bytes_max) = packet_bytes_max else { return };
                Message::TooBig { packet_bytes_max, offending }
            }
            (Discard::SlotGone, _) => {
                let named = base.slots.config().scheme.decode(header.label().low());
                let Ok(director) = named else { return };
                Message::SlotGone { slot: director.slot().number(), offending }
            }
            (Discard::EgressFull, _) => Message::Congestion { offending },
            (_, Some(why)) => Message::Error { why, offending },
            (_, None) => return,
        };
        self.send_within_budget(cause, header, &error, now, base);
    }

    fn send_within_budget<R: Register>(
        &mut self,
        cause: Cause,
        header: &Header<'_, R>,
        error: &Message<'_>,
        now: Now,
        base: &mut Base,
    ) {
        let bytes = header.to_repr().wire_bytes() + error.to_bytes().len();
        // Check the budget last, so that an error that is too long uses none of it.
        if bytes <= cause.packet_bytes && self.budgets.error(cause.ingress, now) {
            send_reply(cause, header, error, base);
        }
    }

    /// Handles a frame whose label named a slot by a former number. Does nothing if the number no
    /// longer leads to the slot's user.
    fn handle_alias_used(&mut self, named: Slot, packet: DropNotice, now: Now, base: &mut Base) {
        let ingress = packet.ingress_slot;
        if let Some(slot) = base.slots.renamed(named) {
            base.out.events.push(Event::AliasUsed { ingress, named, slot });
            self.send_slot_moved(packet, named, slot, now, base);
        }
    }

    /// Informs the sender of a packet that the slot with the former number `from` now has the
    /// number `to`. The message is sent only if an error about the packet may be sent, and within
    /// the ingress' budget for errors. `notice` contains the start of the packet; its discard is
    /// ignored.
    fn send_slot_moved(
        &mut self,
        mut notice: DropNotice,
        from: Slot,
        to: Slot,
        now: Now,
        base: &mut Base,
    ) {
        let mut head = mem::take(&mut notice.head);
        let cause = Cause::of(&notice);
        if let Ok(header) = AnyHeader::parse(&mut head) {
            with_header!(header, header => {
                let mut buffer = [0; HEADER_BYTES_MAX];
                let Some(offending) = offending(&header, &mut buffer) else { return };
                if may_send_error(&header) {
                    let moved = Message::SlotMoved { from: from.number(), to: to.number(), offending };
                    self.send_within_budget(cause, &header, &moved, now, base);
                }
            });
        }
    }
}

/// Sends a goodbye to the neighbour or endpoint on `slot`; see
/// [`Switch::goodbye`](super::Switch::goodbye).
pub(super) fn send_goodbye(slot: Slot, code: u8, retry_after_s: u32, text: &str, base: &mut Base) {
    let Ok(director) = base.slots.config().scheme.encode_least(slot) else { return };
    let here = Label::<u64>::here().register();
    let label = Label::new(here << director.width() | director.bits());
    let flags = Flags { no_errors: true, control: true, telemetry: false };
    // Two hops: this switch and the receiver.
    let header = HeaderRepr { flags, ..HeaderRepr::new(label, 0, 2) };
    transmit(&header, &Message::Goodbye { code, retry_after_s, text }.to_bytes(), &mut base.out);
}

/// Sends a message from slot 1.
fn transmit<R: Register>(header: &HeaderRepr<R>, message: &MessageBytes, out: &mut Outputs) {
    if let Some(packet) = packet(header, message) {
        out.workers.command(0, Command::Transmit(packet));
    }
}

/// Sends a reply or an error along the return path of its cause. No errors may be sent about the
/// message. Sends nothing if the message would be longer than its cause (R4).
fn send_reply<R: Register>(
    cause: Cause,
    header: &Header<'_, R>,
    reply: &Message<'_>,
    base: &mut Base,
) {
    let ingress = base.slots.config().scheme.encode_least(cause.ingress_slot);
    let Ok(ingress) = ingress else { return };
    let Ok(back) = header.label().reverse(header.shift(), Some(ingress)) else { return };
    let flags = Flags { no_errors: true, control: true, telemetry: false };
    let repr = HeaderRepr {
        flags,
        class: header.class(),
        flow: header.flow(),
        ..HeaderRepr::new(back, 0, HOPS_MAX)
    };
    let message = reply.to_bytes();
    if repr.wire_bytes() + message.len() > cause.packet_bytes {
        return;
    }
    if let Some(packet) = packet(&repr, &message) {
        base.out.workers.reply(0, cause.ingress, packet);
    }
}

/// Restores the header with which a packet arrived, if it was already rewritten for the next hop.
/// Returns `None` if that next hop was detached, or if the header cannot be restored.
fn undo_hop<R: Register>(
    header: &mut Header<'_, R>,
    ingress_slot: Slot,
    next_hop: Mark,
    slots: &Slots,
) -> Option<()> {
    if behind(slots, next_hop)? == link::Behind::Endpoint {
        return Some(()); // the header was not rewritten
    }
    let (scheme, shift) = (&slots.config().scheme, header.shift());
    let width = if ingress_slot == Slot::SWITCH {
        // The packet started at this switch, so its shift is the width of one director. The return
        // path does not show the width, because slot 1 has the same code in every width.
        u8::try_from(shift).ok()?
    } else {
        let back = header.label().reverse(shift, None).ok()?;
        scheme.decode(back.low()).ok()?.width()
    };
    let used = scheme.encode(slots.slot_of(next_hop)?, width).ok()?;
    let label = header.label().register().shl(u32::from(width)).or(R::from_low(used.bits()));
    let hops_left = header.hops_left().saturating_add(1);
    header.advance(Label::new(label), shift.checked_sub(u16::from(width))?, hops_left);
    Some(())
}

/// The kind of node at the other end of a link; `None` if the link was detached and its mark has
/// another generation.
fn behind(slots: &Slots, link: Mark) -> Option<link::Behind> {
    Some(slots.user(link)?.behind)
}

/// Whether the sender of a packet is the neighbour or endpoint of the ingress itself (W5-12).
fn is_of_neighbour<R: Register>(header: &Header<'_, R>) -> bool {
    header.label().reverse(header.shift(), None) == Ok(Label::here())
}

/// Whether an error may be sent about a packet (W5-8).
fn may_send_error<R: Register>(header: &Header<'_, R>) -> bool {
    !header.no_errors() && (!header.is_control() || is_request(header.payload()))
}

/// Returns the bytes of a packet's header.
fn offending<'b, R: Register>(
    header: &Header<'_, R>,
    buffer: &'b mut [u8; HEADER_BYTES_MAX],
) -> Option<&'b [u8]> {
    let repr = header.to_repr();
    repr.emit(buffer).ok()?;
    buffer.get(..repr.wire_bytes())
}

/// The drop reason that a sender with these rights may see (W5-9). `not_allowed` is shown as
/// `empty_slot`. So are `slot_gone`, `u_turn` and `beyond_endpoint` if the sender lacks the right
/// `transit` or the right `endpoints`.
fn disclosed(why: Discard, rights: Rights) -> Discard {
    let sees_slots = rights.transit && rights.endpoints;
    match why {
        Discard::NotAllowed => Discard::EmptySlot,
        Discard::SlotGone | Discard::UTurn | Discard::BeyondEndpoint if !sees_slots => {
            Discard::EmptySlot
        }
        why => why,
    }
}

/// Makes a packet from a header and a message. Returns `None` if the header is not valid.
fn packet<R: Register>(header: &HeaderRepr<R>, message: &MessageBytes) -> Option<Vec<u8>> {
    let bytes = header.wire_bytes();
    let mut packet = vec![0; bytes + message.len()];
    header.emit(&mut packet).ok()?;
    packet[bytes..].copy_from_slice(message);
    Some(packet)
}
