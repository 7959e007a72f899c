//! Control messages (wire.md 5): what comes to slot 1 is answered from there, and who sent a packet
//! that went no further is told, seldom. Nothing here is waited for by a worker.
//!
//! | what comes | what goes |
//! |---|---|
//! | a question by somebody who may ask | its answer, no longer than it, within the ingress' budget |
//! | a question by somebody who may not | what a label that names an empty slot gets |
//! | an answer, or an error or a notice about a question of ours | an event |
//! | the same about nothing that we sent lately | nothing; it is counted as `unsolicited` |
//! | any other packet | nothing; it is counted as `unhandled` |
//! | the notice of a packet | an error, or one hop of a trace; never about an error (R4) |

mod asked;
mod budget;

use std::mem;

use strowger_frame::{Frame, Mark};
use strowger_wire::{
    Label, Register, Slot,
    control::{Behind, HopWord, Message, MessageBytes, is_question, trace_id},
    link_header::LINK_HEADER_BYTES,
    switch_header::{AnyHeader, Flags, HEADER_BYTES_MAX, Header, HeaderRepr},
    with_header,
};

pub use self::asked::{Answer, AskError, Complaint, HopReport, Question, QuestionId};

use self::{asked::Questions, budget::Budgets};
use super::{PortId, Switch, peering::Location};
use crate::{
    Now,
    command::{Command, DropNotice, Punt, PuntKind},
    discard::Discard,
    limits::HOPS_MAX,
    link::{self, Rights},
};

/// What the slow path remembers of control messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    budgets: Budgets,
    questions: Questions,
}

/// A packet that came to slot 1, or that ended on its way through: what an answer to it needs.
#[derive(Clone, Copy)]
struct Cause {
    ingress: Mark,
    ingress_slot: u32,
    rights: Rights,
    at: Now,
    /// Without link header and tag.
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

/// What a drop notice is told by.
struct Told {
    why: Discard,
    dry_run: Option<Discard>,
    exit: Option<crate::command::NextHopInfo>,
}

impl Messages {
    /// When [`Switch::turn_questions`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        self.questions.next_timeout()
    }

    /// Forgets all budgets and questions; numbers go on, so that no late answer is taken for another's.
    pub(super) fn reset(&mut self) {
        self.budgets = Budgets::default();
        self.questions.forget();
    }
}

impl Switch {
    /// Takes the workers' punts: as many as were there when it began, so that those who come
    /// meanwhile wait for the next turn.
    pub(super) fn take_punts(&mut self, now: Now) {
        let up = self.out.workers.punts();
        // What links say themselves first.
        for queue in [&up.link_messages, &up.packets, &up.drop_notices] {
            for _ in 0..queue.len() {
                let Some(punt) = queue.pop() else { break };
                self.take_punt(punt, now);
            }
        }
        self.turn_questions(now);
    }

    fn take_punt(&mut self, punt: Punt, now: Now) {
        match punt {
            Punt::Packet { worker, ingress, ingress_slot, rights, at, mut frame } => {
                self.note_taken(ingress, worker, PuntKind::Packet);
                let packet_bytes = frame.len().saturating_sub(LINK_HEADER_BYTES);
                let cause = Cause { ingress, ingress_slot, rights, at, packet_bytes };
                self.in_hand += 1;
                let end = self.take_packet(cause, &mut frame, now);
                self.end(end);
            }
            Punt::Dropped(notice) => {
                self.note_taken(notice.ingress, notice.worker, PuntKind::DropNotice);
                self.take_drop_notice(notice, now);
            }
            Punt::Said { worker, link, kind, from, frame } => {
                self.note_taken(link, worker, PuntKind::LinkMessage);
                self.discards.count(Discard::Handled);
                let from = from.map(|(port, at)| Location { port: PortId(port), at });
                self.take_link_message(link, kind, from, &frame, now);
            }
            // Notes, which have a queue of their own.
            Punt::Heard(_)
            | Punt::Roamed { .. }
            | Punt::Migrate(..)
            | Punt::RekeyDue(_)
            | Punt::Unsealed(_)
            | Punt::SendFailed { .. }
            | Punt::AliasUsed { .. } => (),
        }
    }

    fn take_packet(&mut self, cause: Cause, frame: &mut Frame, now: Now) -> Discard {
        let packet = frame.bytes_mut().get_mut(LINK_HEADER_BYTES..).unwrap_or_default();
        match AnyHeader::parse(packet) {
            Ok(header) => with_header!(header, header => self.take_message(cause, &header, now)),
            Err(_) => Discard::Unhandled,
        }
    }

    /// A packet for slot 1: how it ends.
    fn take_message<R: Register>(
        &mut self,
        cause: Cause,
        header: &Header<'_, R>,
        now: Now,
    ) -> Discard {
        if !header.is_control() {
            return Discard::Unhandled;
        }
        let Ok(message) = Message::parse(header.payload()) else { return Discard::Unhandled };
        if is_question(header.payload()) {
            return self.answer(cause, header, &message, now);
        }
        let is_from_neighbour = header.label().reverse(header.shift(), None) == Ok(Label::here());
        if matches!(message, Message::Goodbye { .. }) && !is_from_neighbour {
            // Somebody farther off, who can end no link of ours (W5-12).
            return Discard::Unhandled;
        }
        self.take_answer(cause.ingress, cause.ingress_slot, &message, now)
    }

    /// Answers a question; says how the question ends.
    fn answer<R: Register>(
        &mut self,
        cause: Cause,
        header: &Header<'_, R>,
        question: &Message<'_>,
        now: Now,
    ) -> Discard {
        if !cause.rights.control {
            // As if nothing were there (W5-9).
            self.complain(cause, header, Discard::EmptySlot, None, now);
            return Discard::NotAllowed;
        }
        if !self.messages.budgets.answer(cause.ingress, now) {
            return Discard::OverBudget;
        }
        let keys = self.public_keys();
        let answer = match *question {
            Message::Ping { id, payload } => Message::Pong { id, payload },
            Message::TraceRequest { id } => {
                let hop = HopWord {
                    slot_in: cause.ingress_slot,
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
                // There is nothing to tell.
                None => return Discard::Handled,
            },
            _ => return Discard::Unhandled,
        };
        self.reply(cause, header, &answer);
        Discard::Handled
    }

    /// The keys that anybody who may ask is told.
    fn public_keys(&self) -> Option<([u8; 32], [u8; 32])> {
        let local = self.local_identity()?;
        Some((local.identity().to_bytes(), local.static_public().0))
    }

    /// A packet went no further: its sender is told, if it may be.
    fn take_drop_notice(&mut self, mut notice: DropNotice, now: Now) {
        let mut head = mem::take(&mut notice.head);
        let cause = Cause::of(&notice);
        let told = Told { why: notice.discard, dry_run: notice.dry_run, exit: notice.exit };
        if let Ok(header) = AnyHeader::parse(&mut head) {
            with_header!(header, header => self.send_drop_error(cause, header, &told, now));
        }
    }

    fn send_drop_error<R: Register>(
        &mut self,
        cause: Cause,
        mut header: Header<'_, R>,
        told: &Told,
        now: Now,
    ) {
        if let (Some(exit), true) = (told.exit, told.why != Discard::HopsSpent)
            && self.take_step_back(&mut header, cause.ingress_slot, exit.link).is_none()
        {
            return;
        }
        let header = &header;
        if !may_hear(header) {
            return;
        }
        let traced = trace_id(header.payload())
            .filter(|_| header.is_control() && header.wants_telemetry())
            .filter(|_| told.why == Discard::HopsSpent && cause.rights.control);
        let Some(id) = traced else {
            return self.complain(
                cause,
                header,
                told.why,
                told.exit.map(|e| e.packet_bytes_max),
                now,
            );
        };
        if !self.messages.budgets.answer(cause.ingress, now) {
            return;
        }
        let discard = told.dry_run.map(|why| plain_word(why, cause.rights));
        let slot_out =
            self.slots.config().scheme.decode(header.label().low()).ok().map(|d| d.slot().number());
        let behind = match (discard, told.exit) {
            (Some(_), _) => Behind::Nothing,
            (None, None) => Behind::Switch,
            (None, Some(exit)) => match self.behind(exit.link) {
                Some(link::Behind::Neighbour) => Behind::Neighbour,
                Some(link::Behind::Endpoint) => Behind::Endpoint,
                None => Behind::Nothing,
            },
        };
        let hop = HopWord {
            slot_in: cause.ingress_slot,
            slot_out,
            behind,
            discard: discard.and_then(Discard::reason),
            held_ns: now.0.saturating_sub(cause.at.0),
            worker_ns: cause.at.0,
            queue_frames: told.exit.map_or(0, |exit| exit.queue_frames),
            packet_bytes_max: told.exit.map_or(0, |exit| exit.packet_bytes_max),
        };
        self.reply(cause, header, &Message::TraceReply { id, hop });
    }

    /// A packet that a neighbour's exit refused was written for that neighbour already; this makes
    /// of its header what it was when it came. `None` where the exit is gone meanwhile.
    fn take_step_back<R: Register>(
        &self,
        header: &mut Header<'_, R>,
        ingress_slot: u32,
        exit: Mark,
    ) -> Option<()> {
        if self.behind(exit)? == link::Behind::Endpoint {
            return Some(()); // punted as it came
        }
        let (scheme, shift) = (&self.slots.config().scheme, header.shift());
        let width = if ingress_slot == Slot::SWITCH.number() {
            // It departed here with nothing used, and slot 1 is the same in every width.
            u8::try_from(shift).ok()?
        } else {
            let back = header.label().reverse(shift, None).ok()?;
            scheme.decode(back.low()).ok()?.width()
        };
        let exit = scheme.encode(Slot::new(self.slots.slot_of(exit)?), width).ok()?;
        let label = header.label().register().shl(u32::from(width)).or(R::from_low(exit.bits()));
        let hops_left = header.hops_left().saturating_add(1);
        header.advance(Label::new(label), shift.checked_sub(u16::from(width))?, hops_left);
        Some(())
    }

    /// Sends an error about a packet, within the ingress' budget.
    fn complain<R: Register>(
        &mut self,
        cause: Cause,
        header: &Header<'_, R>,
        why: Discard,
        packet_bytes_max: Option<u16>,
        now: Now,
    ) {
        if header.no_errors() {
            return;
        }
        let why = plain_word(why, cause.rights);
        let mut room = [0; HEADER_BYTES_MAX];
        let Some(offending) = offending(header, &mut room) else { return };
        let error = match (why, why.reason()) {
            (Discard::TooBig, _) => {
                let Some(packet_bytes_max) = packet_bytes_max else { return };
                Message::TooBig { packet_bytes_max, offending }
            }
            (Discard::SlotGone, _) => {
                let named = self.slots.config().scheme.decode(header.label().low());
                let Ok(director) = named else { return };
                Message::SlotGone { slot: director.slot().number(), offending }
            }
            (Discard::EgressFull, _) => Message::Congestion { offending },
            (_, Some(why)) => Message::Error { why, offending },
            (_, None) => return,
        };
        self.send_error(cause, header, &error, now);
    }

    fn send_error<R: Register>(
        &mut self,
        cause: Cause,
        header: &Header<'_, R>,
        error: &Message<'_>,
        now: Now,
    ) {
        let bytes = header.to_repr().wire_bytes() + error.to_bytes().len();
        // The budget is looked at last, so that what is not sent costs nobody a place.
        if bytes <= cause.packet_bytes && self.messages.budgets.error(cause.ingress, now) {
            self.reply(cause, header, error);
        }
    }

    /// Sends an answer along the return path of its cause. It asks for no error about itself, and is
    /// never longer than its cause (R4).
    fn reply<R: Register>(&mut self, cause: Cause, header: &Header<'_, R>, answer: &Message<'_>) {
        let ingress = self.slots.config().scheme.encode_least(Slot::new(cause.ingress_slot));
        let Ok(ingress) = ingress else { return };
        let Ok(back) = header.label().reverse(header.shift(), Some(ingress)) else { return };
        let flags = Flags { no_errors: true, control: true, telemetry: false };
        let repr = HeaderRepr {
            flags,
            class: header.class(),
            flow: header.flow(),
            ..HeaderRepr::new(back, 0, HOPS_MAX)
        };
        let message = answer.to_bytes();
        if repr.wire_bytes() + message.len() > cause.packet_bytes {
            return;
        }
        if let Some(packet) = packet(&repr, &message) {
            self.out.workers.answer(0, cause.ingress, packet);
        }
    }

    /// Sends a message from slot 1.
    fn transmit<R: Register>(&mut self, header: &HeaderRepr<R>, message: &MessageBytes) {
        if let Some(packet) = packet(header, message) {
            self.out.workers.command(0, Command::Transmit(packet));
        }
    }

    /// Tells the neighbour or endpoint on `slot` that its link will end. What becomes of the link
    /// is the caller's matter, and of no other link.
    pub fn goodbye(&mut self, slot: u32, code: u8, retry_after_s: u32, text: &str) {
        let Ok(director) = self.slots.config().scheme.encode_least(Slot::new(slot)) else { return };
        let here = Label::<u64>::here().register();
        let label = Label::new(here << director.width() | director.bits());
        let flags = Flags { no_errors: true, control: true, telemetry: false };
        // Two hops: ours, and the one it ends at.
        let header = HeaderRepr { flags, ..HeaderRepr::new(label, 0, 2) };
        self.transmit(&header, &Message::Goodbye { code, retry_after_s, text }.to_bytes());
    }

    /// Tells the sender of a packet, which was delivered by the number `from`, that the slot's number
    /// is `to` from now on: within the ingress' budget for errors, and to nobody who wants none.
    /// `notice` is what a worker saw of the packet; its discard is not looked at.
    pub fn send_slot_moved(&mut self, mut notice: DropNotice, from: u32, to: u32, now: Now) {
        let mut head = mem::take(&mut notice.head);
        let cause = Cause::of(&notice);
        if let Ok(header) = AnyHeader::parse(&mut head) {
            with_header!(header, header => self.say_moved(cause, &header, from, to, now));
        }
    }

    fn say_moved<R: Register>(
        &mut self,
        cause: Cause,
        header: &Header<'_, R>,
        from: u32,
        to: u32,
        now: Now,
    ) {
        let mut room = [0; HEADER_BYTES_MAX];
        let Some(offending) = offending(header, &mut room) else { return };
        if may_hear(header) {
            self.send_error(cause, header, &Message::SlotMoved { from, to, offending }, now);
        }
    }

    fn behind(&self, mark: Mark) -> Option<link::Behind> {
        // Of another generation it is another's: then nobody is told.
        Some(self.slots.user_of(mark)?.behind)
    }
}

/// Whether an error may be sent about a packet (W5-8).
fn may_hear<R: Register>(header: &Header<'_, R>) -> bool {
    !header.no_errors() && (!header.is_control() || is_question(header.payload()))
}

/// The bytes of a packet's header.
fn offending<'r, R: Register>(
    header: &Header<'_, R>,
    room: &'r mut [u8; HEADER_BYTES_MAX],
) -> Option<&'r [u8]> {
    let repr = header.to_repr();
    repr.emit(room).ok()?;
    room.get(..repr.wire_bytes())
}

/// What a neighbour is told: one that may not go through hears the same of a slot that is taken,
/// resting or empty (W5-9).
fn plain_word(why: Discard, rights: Rights) -> Discard {
    let sees_slots = rights.transit && rights.endpoints;
    match why {
        Discard::NotAllowed => Discard::EmptySlot,
        Discard::SlotGone | Discard::UTurn | Discard::BeyondEndpoint if !sees_slots => {
            Discard::EmptySlot
        }
        why => why,
    }
}

/// A message behind its header.
fn packet<R: Register>(header: &HeaderRepr<R>, message: &MessageBytes) -> Option<Vec<u8>> {
    let bytes = header.wire_bytes();
    let mut packet = vec![0; bytes + message.len()];
    header.emit(&mut packet).ok()?;
    packet[bytes..].copy_from_slice(message);
    Some(packet)
}
