//! Questions of this switch's own: pings and traces, which answer belongs to which, and what is asked
//! again. It never answers anybody.
//!
//! A trace asks hop by hop: its packet for hop `n` starts with `n` hops left, so the `n`th switch,
//! ours being number 0, has none to lower and says what it would have done (RFC 792, time exceeded,
//! as traceroute uses it; the answers are those of RFC 8029). So a label that leads to an endpoint
//! is traced without anything being delivered there.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use strowger_frame::Mark;
use strowger_wire::{
    Label, Register,
    control::{Behind, HopWord, Message, Reason},
    limits::CONTROL_BYTES_MAX,
    switch_header::{AnyHeader, Flags, HEADER_BYTES_MAX, Header, HeaderRepr},
};

use super::super::{Event, Switch};
use crate::{
    Now,
    discard::Discard,
    limits::{HOPS_MAX, QUESTIONS_MAX, QUESTIONS_REMEMBERED_MAX},
};

/// An answer that has not come after this long is not waited for.
const ANSWER_NS_MAX: u64 = 1_000_000_000;

/// A hop that does not answer is asked this often.
const TRIES: u8 = 3;

/// After so many hops in a row that say nothing, a trace ends.
const SILENT_HOPS_MAX: u8 = 3;

/// A notice about a packet of ours is taken for so long after it was sent: an answer and the slow paths on
/// the way take less.
const NOTICE_NS_MAX: u64 = 5_000_000_000;

/// The shortest payload of a ping: so long that any error about it is no longer than it (W5-7).
const PING_BYTES_MIN: usize = 48;

/// A question's number, never given twice in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(pub u32);

/// What can be asked of whoever is at the end of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether it is there; the payload has so many bytes, at least 48.
    Ping {
        /// How many.
        payload_bytes: u16,
    },
    /// What every hop on the way does with a packet.
    Trace,
    /// Who it is.
    Identity,
}

/// What has come of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is there.
    Pong {
        /// From question to answer.
        round_trip_ns: u64,
        /// Of the payload that came back.
        payload_bytes: u16,
    },
    /// One hop of a trace; more follow, or [`Answer::TraceEnd`].
    Hop(HopReport),
    /// The trace is over. What its last hop said tells where and why.
    TraceEnd,
    /// Who it is.
    Identity {
        /// The Ed25519 key.
        identity: [u8; 32],
        /// The X25519 key of links.
        link_key: [u8; 32],
    },
    /// A packet of the question went no further.
    Complaint(Complaint),
    /// Nothing came in time.
    Silence,
}

/// Where and why a packet of ours went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Why, in the words of the counters.
    pub why: Reason,
    /// Switches that had passed it on, this one included.
    pub hops: u8,
    /// Where the packet was too big: how big is right, link header included and tag not.
    pub packet_bytes_max: Option<u16>,
    /// From question to answer.
    pub round_trip_ns: u64,
}

/// One hop of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopReport {
    /// Which: 0 is this switch.
    pub hop: u8,
    /// What it says; nothing where it did not answer in time, or says no more than an error does.
    pub word: Option<HopWord>,
    /// What it sent instead of an answer.
    pub complaint: Option<Reason>,
    /// From question to answer; 0 where none came.
    pub round_trip_ns: u64,
}

/// Why something was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskError {
    /// [`QUESTIONS_MAX`] questions wait for their answers.
    Busy,
    /// A payload longer than a control message carries.
    TooLong,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => write!(f, "{QUESTIONS_MAX} questions wait for their answers; ask later"),
            Self::TooLong => {
                write!(f, "a control message carries at most {} bytes", CONTROL_BYTES_MAX - 8)
            }
        }
    }
}

impl std::error::Error for AskError {}

/// Questions that wait for their answers, by the number on the wire, and what was sent lately. Bounded.
#[derive(Debug, Default)]
pub(super) struct Questions {
    waiting: BTreeMap<u32, Asked>,
    last: u64,
    /// The latest last: notices may come after the answer.
    sent: VecDeque<Sent>,
}

/// A packet of ours, by which a notice about it is known.
#[derive(Clone, Copy, Debug)]
struct Sent {
    flow: u16,
    label: Label,
    is_trace: bool,
    hops_left: u8,
    /// The slot that a notice about it comes in by.
    by: u32,
    at: Now,
}

impl Sent {
    /// Whether an offending header is that of this packet, on its way along its label.
    fn is_in(&self, header: &Header<'_, u64>) -> bool {
        let shift = header.shift();
        let ahead = header.label().forward(shift).register();
        header.is_control()
            && header.flow() == self.flow
            && header.wants_telemetry() == self.is_trace
            && !header.no_errors()
            && header.hops_left() <= self.hops_left
            && ahead == self.label.register().shr(u32::from(shift))
    }
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    id: QuestionId,
    label: Label,
    question: Question,
    /// The slot that the answer comes in by.
    by: u32,
    sent: Now,
    /// Of a trace: which hop is being asked, how often it was, and how many were silent before it.
    hop: u8,
    tries: u8,
    silent: u8,
}

impl Questions {
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.sent.clear();
    }

    /// When a question has waited for its answer for long enough.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        let due = |asked: &Asked| Now(asked.sent.0.saturating_add(ANSWER_NS_MAX));
        self.waiting.values().map(due).min()
    }

    fn note_sent(&mut self, sent: Sent) {
        if self.sent.len() >= QUESTIONS_REMEMBERED_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(sent);
    }

    /// Whether a notice that came in by this slot is about a packet that was sent lately.
    fn has_sent(&self, by: u32, offending: &[u8], now: Now) -> bool {
        let is_lately = |sent: &&Sent| now.0.saturating_sub(sent.at.0) < NOTICE_NS_MAX;
        let lately = self.sent.iter().rev().take_while(is_lately);
        with_header(offending, |header| {
            lately.into_iter().any(|sent| (sent.by == by || by == 1) && sent.is_in(header))
        })
        .unwrap_or(false)
    }

    /// A number that nobody else waits under, in its low 16 bits too: they are the packet's flow,
    /// by which an error about it is known. Hard to guess for who sees none of them (it is no
    /// secret to those on the way).
    fn number(&mut self, now: Now) -> u32 {
        loop {
            // splitmix64
            self.last = (self.last ^ now.0).wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.last;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let number = (mixed ^ (mixed >> 31)) as u32;
            if !self.waiting.keys().any(|taken| *taken as u16 == number as u16) {
                return number;
            }
        }
    }
}

/// Reads an offending header, which is no question of ours in any other width.
fn with_header<T>(offending: &[u8], read: impl FnOnce(&Header<'_, u64>) -> T) -> Option<T> {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let room = bytes.get_mut(..offending.len())?;
    room.copy_from_slice(offending);
    match AnyHeader::parse(room) {
        Ok(AnyHeader::W64(header)) => Some(read(&header)),
        _ => None,
    }
}

impl Switch {
    /// Asks whoever is at the end of `label`, which departs from this switch's slot 1: its first director is one of
    /// this switch's slots. What comes of it are [`Event::Answered`]s.
    ///
    /// # Errors
    /// [`AskError`]; nothing is sent then.
    pub fn ask(
        &mut self,
        label: Label,
        question: Question,
        now: Now,
    ) -> Result<QuestionId, AskError> {
        let now = self.clock.turn(now);
        if let Question::Ping { payload_bytes } = question
            && usize::from(payload_bytes) + 8 > CONTROL_BYTES_MAX
        {
            return Err(AskError::TooLong);
        }
        if self.messages.questions.waiting.len() >= QUESTIONS_MAX {
            return Err(AskError::Busy);
        }
        let number = self.messages.questions.number(now);
        // Where the label's first director leads, the answer comes from; at slot 1 it is our own.
        let by = self.slots.config().scheme.decode(label.low()).map_or(1, |d| d.slot().number());
        let id = QuestionId(number);
        let asked = Asked { id, label, question, by, sent: now, hop: 0, tries: 0, silent: 0 };
        self.send_question(number, asked, now);
        Ok(id)
    }

    /// Sends a question's packet and waits for what comes.
    fn send_question(&mut self, number: u32, mut asked: Asked, now: Now) {
        asked.sent = now;
        asked.tries += 1;
        let is_trace = asked.question == Question::Trace;
        let flags = Flags { no_errors: false, control: true, telemetry: is_trace };
        let hops_left = if is_trace { asked.hop } else { HOPS_MAX };
        let flow = number as u16;
        let header = HeaderRepr { flags, flow, ..HeaderRepr::new(asked.label, 0, hops_left) };
        let message = match asked.question {
            Question::Trace => Message::TraceRequest { id: number }.to_bytes(),
            Question::Identity => Message::IdentityRequest { id: number }.to_bytes(),
            Question::Ping { payload_bytes } => {
                let bytes = usize::from(payload_bytes).max(PING_BYTES_MIN);
                // What is compressed or dropped for being all zeros is told apart by a pattern.
                let payload: Vec<u8> = (0..bytes).map(|n| n as u8).collect();
                Message::Ping { id: number, payload: &payload }.to_bytes()
            }
        };
        self.messages.questions.waiting.insert(number, asked);
        let (label, by, at) = (asked.label, asked.by, now);
        self.messages.questions.note_sent(Sent { flow, label, is_trace, hops_left, by, at });
        self.transmit(&header, &message);
    }

    /// Takes a message that is no question: an answer to one of ours, an error or a notice about one, or
    /// a neighbour's goodbye; says how it ends.
    pub(super) fn take_answer(
        &mut self,
        ingress: Mark,
        by: u32,
        message: &Message<'_>,
        now: Now,
    ) -> Discard {
        let is_answer = match *message {
            Message::Pong { id, payload } => self.settle(id, by, now, |asked, round_trip_ns| {
                matches!(asked.question, Question::Ping { .. })
                    .then_some(Answer::Pong { round_trip_ns, payload_bytes: payload.len() as u16 })
            }),
            Message::IdentityReply { id, identity, link_key } => {
                self.settle(id, by, now, |asked, _| {
                    (asked.question == Question::Identity)
                        .then_some(Answer::Identity { identity: *identity, link_key: *link_key })
                })
            }
            Message::TraceReply { id, hop } => self.take_hop(id, by, hop, now),
            Message::Error { why, offending } => self.take_complaint(by, why, None, offending, now),
            Message::TooBig { packet_bytes_max, offending } => {
                let size = Some(packet_bytes_max);
                self.take_named(by, Discard::TooBig, size, offending, now)
            }
            Message::SlotGone { offending, .. } => {
                self.take_named(by, Discard::SlotGone, None, offending, now)
            }
            Message::Congestion { offending } => {
                self.take_named(by, Discard::EgressFull, None, offending, now)
            }
            // Nothing was lost, and whoever keeps labels is told.
            Message::SlotMoved { from, to, offending } => {
                let is_about_ours = self.messages.questions.has_sent(by, offending, now);
                if is_about_ours && !self.messages.budgets.notice(ingress, now) {
                    return Discard::OverBudget;
                }
                if is_about_ours {
                    self.out.events.push(Event::SlotMovedAway { by, from, to });
                }
                is_about_ours
            }
            Message::Goodbye { code, retry_after_s, text } => {
                if !self.messages.budgets.goodbye(ingress, now) {
                    return Discard::OverBudget;
                }
                let text = text.to_owned();
                self.out.events.push(Event::Goodbye { slot: by, code, retry_after_s, text });
                self.heed_goodbye(by, retry_after_s, now);
                true
            }
            Message::Ping { .. }
            | Message::TraceRequest { .. }
            | Message::IdentityRequest { .. } => false,
        };
        if is_answer { Discard::Handled } else { Discard::Unsolicited }
    }

    fn settle(
        &mut self,
        number: u32,
        by: u32,
        now: Now,
        answer: impl FnOnce(&Asked, u64) -> Option<Answer>,
    ) -> bool {
        let waiting = &mut self.messages.questions.waiting;
        let Some(asked) = waiting.get(&number).filter(|asked| asked.by == by) else { return false };
        let round_trip_ns = now.0.saturating_sub(asked.sent.0);
        let Some(answer) = answer(asked, round_trip_ns) else { return false };
        let id = asked.id;
        waiting.remove(&number);
        self.out.events.push(Event::Answered(id, answer));
        true
    }

    fn take_hop(&mut self, number: u32, by: u32, word: HopWord, now: Now) -> bool {
        let Some(asked) = self.trace_by(number, by) else { return false };
        let round_trip_ns = now.0.saturating_sub(asked.sent.0);
        let report = HopReport { hop: asked.hop, word: Some(word), complaint: None, round_trip_ns };
        self.out.events.push(Event::Answered(asked.id, Answer::Hop(report)));
        let goes_on = word.behind == Behind::Neighbour && word.discard.is_none();
        self.next_hop(Asked { silent: 0, ..asked }, goes_on, now);
        true
    }

    /// Takes the trace that waits under this number out of those that wait.
    fn trace_by(&mut self, number: u32, by: u32) -> Option<Asked> {
        let waiting = &mut self.messages.questions.waiting;
        let asked = *waiting.get(&number)?;
        // This switch's own word comes from slot 1, and so does that of the next one where a label turns back.
        let is_from = asked.by == by || asked.hop == 0 && by == 1;
        if asked.question != Question::Trace || !is_from {
            return None;
        }
        waiting.remove(&number)
    }

    fn next_hop(&mut self, asked: Asked, goes_on: bool, now: Now) {
        if goes_on && asked.hop + 1 < HOPS_MAX {
            // A number of its own, so that a late answer is not taken for the next hop's.
            let number = self.messages.questions.number(now);
            self.send_question(number, Asked { hop: asked.hop + 1, tries: 0, ..asked }, now);
        } else {
            self.out.events.push(Event::Answered(asked.id, Answer::TraceEnd));
        }
    }

    fn take_named(
        &mut self,
        by: u32,
        why: Discard,
        packet_bytes_max: Option<u16>,
        offending: &[u8],
        now: Now,
    ) -> bool {
        let Some(why) = why.reason() else { return false };
        self.take_complaint(by, why, packet_bytes_max, offending, now)
    }

    /// An error about a packet: of ours, if its header is that of a question on its way, and it comes from
    /// where that went.
    fn take_complaint(
        &mut self,
        by: u32,
        why: Reason,
        packet_bytes_max: Option<u16>,
        offending: &[u8],
        now: Now,
    ) -> bool {
        let waiting = &mut self.messages.questions.waiting;
        let found = with_header(offending, |header| {
            let (&number, &asked) =
                waiting.iter().find(|(number, _)| **number as u16 == header.flow())?;
            let is_trace = asked.question == Question::Trace;
            let hops_left = if is_trace { asked.hop } else { HOPS_MAX };
            let (flow, label, at) = (number as u16, asked.label, asked.sent);
            let sent = Sent { flow, label, is_trace, hops_left, by: asked.by, at };
            let is_from = asked.by == by || by == 1;
            (is_from && sent.is_in(header)).then(|| (number, asked, header.hops_left()))
        });
        let Some(Some((number, asked, hops_left))) = found else { return false };
        waiting.remove(&number);
        let round_trip_ns = now.0.saturating_sub(asked.sent.0);
        if asked.question == Question::Trace {
            let report = HopReport {
                hop: asked.hop.saturating_sub(hops_left),
                word: None,
                complaint: Some(why),
                round_trip_ns,
            };
            self.out.events.push(Event::Answered(asked.id, Answer::Hop(report)));
            // A switch that says no more than that the hops are spent is passed by. Behind it may be
            // an endpoint, which is not to be asked more often than need be.
            let goes_on = why == Reason::HOPS_SPENT;
            let silent = SILENT_HOPS_MAX - 1;
            self.next_hop(Asked { silent, ..asked }, goes_on, now);
        } else {
            let hops = HOPS_MAX.saturating_sub(hops_left);
            let complaint = Complaint { why, hops, packet_bytes_max, round_trip_ns };
            self.out.events.push(Event::Answered(asked.id, Answer::Complaint(complaint)));
        }
        true
    }

    /// Gives up what was not answered in time, or asks again.
    pub(super) fn turn_questions(&mut self, now: Now) {
        let late = |asked: &Asked| now.0.saturating_sub(asked.sent.0) >= ANSWER_NS_MAX;
        let waiting = &mut self.messages.questions.waiting;
        let late: Vec<u32> =
            waiting.iter().filter(|(_, asked)| late(asked)).map(|(&number, _)| number).collect();
        for number in late {
            let Some(asked) = self.messages.questions.waiting.remove(&number) else { continue };
            if asked.question != Question::Trace {
                self.out.events.push(Event::Answered(asked.id, Answer::Silence));
            } else if asked.tries < TRIES {
                let number = self.messages.questions.number(now);
                self.send_question(number, asked, now);
            } else {
                let report =
                    HopReport { hop: asked.hop, word: None, complaint: None, round_trip_ns: 0 };
                self.out.events.push(Event::Answered(asked.id, Answer::Hop(report)));
                let silent = asked.silent + 1;
                self.next_hop(Asked { silent, ..asked }, silent < SILENT_HOPS_MAX, now);
            }
        }
    }
}
