//! Requests that this switch sends: ping, trace and identity. The switch matches replies to
//! requests, and repeats a trace request that got no reply.
//!
//! A trace sends one request to each hop. The request for hop `n` starts with `n` hops left. The
//! `n`th switch (this switch is number 0) therefore drops it, and reports what it would have done
//! with the packet (RFC 792, time exceeded, as traceroute uses it; the replies are those of RFC
//! 8029). An endpoint at the end of the label receives no request.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use strowger_wire::Slot;
use strowger_wire::{
    Label, Register,
    control::{Behind, HopWord, Message, Reason},
    limits::CONTROL_BYTES_MAX,
    switch_header::{AnyHeader, Flags, HEADER_BYTES_MAX, Header, HeaderRepr},
};

use super::{super::Event, Outputs, transmit};
use crate::{
    Now,
    discard::Discard,
    limits::{HOPS_MAX, QUESTIONS_MAX, QUESTIONS_REMEMBERED_MAX},
};

/// The time, in nanoseconds, after which a request without a reply is abandoned or sent again.
const ANSWER_NS_MAX: u64 = 1_000_000_000;

/// The number of requests to one hop of a trace before the hop counts as silent.
const TRIES: u8 = 3;

/// The number of consecutive silent hops after which a trace ends.
const SILENT_HOPS_MAX: u8 = 3;

/// The time, in nanoseconds, after a packet was sent during which a notice about it is accepted. A
/// reply takes less time, including the delay in the slow paths that it passes.
const NOTICE_NS_MAX: u64 = 5_000_000_000;

/// The shortest payload of a ping, in bytes. An error about such a packet is never longer than the
/// packet (W5-7).
const PING_BYTES_MIN: usize = 48;

/// The number of a request. Consecutive requests have different numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(pub u32);

/// A request to the node at the end of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Asks the node to return a payload.
    Ping {
        /// Length of the payload in bytes; 48 is the minimum.
        payload_bytes: u16,
    },
    /// Asks each hop on the path to report what it does with a packet.
    Trace,
    /// Asks for the public keys of the node.
    Identity,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The reply to a ping.
    Pong {
        /// The time from request to reply.
        round_trip_ns: u64,
        /// Length of the returned payload in bytes.
        payload_bytes: u16,
    },
    /// One hop of a trace. Further hops or [`Answer::TraceEnd`] follow.
    Hop(HopReport),
    /// The trace is over. The report of the last hop tells where and why the trace ended.
    TraceEnd,
    /// The reply to an identity request.
    Identity {
        /// The Ed25519 key.
        identity: [u8; 32],
        /// The X25519 key for links.
        link_key: [u8; 32],
    },
    /// A switch on the path dropped a packet of the request.
    Complaint(Complaint),
    /// No reply arrived in time.
    Silence,
}

/// The report of a switch that dropped a packet of this switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The drop reason.
    pub why: Reason,
    /// The number of switches that had forwarded it, including this switch.
    pub hops: u8,
    /// If the packet was too big: the longest packet that fits, in bytes, including the link header
    /// and excluding the tag.
    pub packet_bytes_max: Option<u16>,
    /// The time from request to error.
    pub round_trip_ns: u64,
}

/// The report on one hop of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HopReport {
    /// Its number; 0 is this switch.
    pub hop: u8,
    /// The hop's own report. `None` if no reply arrived in time, or only an error.
    pub word: Option<HopWord>,
    /// The drop reason in the error, if an error came instead of a report.
    pub complaint: Option<Reason>,
    /// The time from request to reply; 0 if there was none.
    pub round_trip_ns: u64,
}

/// The reason why a request was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AskError {
    /// [`QUESTIONS_MAX`] requests wait for replies.
    Busy,
    /// The payload is longer than a control message allows.
    TooLong,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => write!(f, "{QUESTIONS_MAX} requests wait for replies; try again later"),
            Self::TooLong => {
                write!(f, "a control message carries at most {} bytes", CONTROL_BYTES_MAX - 8)
            }
        }
    }
}

impl std::error::Error for AskError {}

/// Requests that wait for replies, by their number in the packet, and the packets sent recently.
/// The number of both is limited.
#[derive(Debug, Default)]
pub(super) struct Questions {
    waiting: BTreeMap<u32, Asked>,
    last: u64,
    /// Packets sent recently; the newest is last. Notices about them may arrive after the reply.
    sent: VecDeque<Sent>,
}

/// A packet that this switch sent. Its header is compared with the header in a notice or error.
#[derive(Clone, Copy, Debug)]
struct Sent {
    flow: u16,
    label: Label,
    is_trace: bool,
    hops_left: u8,
    /// The slot on which a notice about the packet arrives.
    by: Slot,
    at: Now,
}

impl Sent {
    /// Whether an offending header is the header of this packet at some point of its path.
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

/// A request that waits for its reply.
#[derive(Clone, Copy, Debug)]
struct Asked {
    id: QuestionId,
    label: Label,
    question: Question,
    /// The slot on which the reply arrives.
    by: Slot,
    sent: Now,
    /// For a trace: the hop of this request, the number of requests sent to it, and the number of
    /// silent hops before it.
    hop: u8,
    tries: u8,
    silent: u8,
}

impl Questions {
    /// Removes all requests. The numbering continues.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.sent.clear();
    }

    /// The time at which the first request times out.
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

    /// Whether a notice that arrived on this slot is about a packet that was sent recently.
    pub(super) fn has_sent(&self, by: Slot, offending: &[u8], now: Now) -> bool {
        let is_lately = |sent: &&Sent| now.0.saturating_sub(sent.at.0) < NOTICE_NS_MAX;
        let lately = self.sent.iter().rev().take_while(is_lately);
        with_header(offending, |header| {
            lately.into_iter().any(|sent| (sent.by == by || by.is_switch()) && sent.is_in(header))
        })
        .unwrap_or(false)
    }

    /// Returns a number that differs from those of all waiting requests. Its low 16 bits differ
    /// too: they are the packet's flow, by which an error is matched to the packet. An off-path
    /// node cannot easily guess the number; nodes on the path see it.
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

    /// Sends a request whose reply arrives on slot `by`.
    pub(super) fn ask(
        &mut self,
        label: Label,
        question: Question,
        by: Slot,
        now: Now,
        out: &mut Outputs,
    ) -> Result<QuestionId, AskError> {
        if let Question::Ping { payload_bytes } = question
            && usize::from(payload_bytes) + 8 > CONTROL_BYTES_MAX
        {
            return Err(AskError::TooLong);
        }
        if self.waiting.len() >= QUESTIONS_MAX {
            return Err(AskError::Busy);
        }
        let number = self.number(now);
        let id = QuestionId(number);
        let asked = Asked { id, label, question, by, sent: now, hop: 0, tries: 0, silent: 0 };
        self.send(number, asked, now, out);
        Ok(id)
    }

    /// Sends the packet of a request, and waits for the reply.
    fn send(&mut self, number: u32, mut asked: Asked, now: Now, out: &mut Outputs) {
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
                // Use a test pattern, because some paths treat a payload of zeros specially.
                let payload: Vec<u8> = (0..bytes).map(|n| n as u8).collect();
                Message::Ping { id: number, payload: &payload }.to_bytes()
            }
        };
        self.waiting.insert(number, asked);
        let (label, by, at) = (asked.label, asked.by, now);
        self.note_sent(Sent { flow, label, is_trace, hops_left, by, at });
        transmit(&header, &message, out);
    }

    /// Handles a reply or an error that arrived on slot `by`. Returns whether it belongs to a
    /// request.
    pub(super) fn handle(
        &mut self,
        by: Slot,
        message: &Message<'_>,
        now: Now,
        out: &mut Outputs,
    ) -> bool {
        match *message {
            Message::Pong { id, payload } => {
                self.settle(id, by, now, out, |asked, round_trip_ns| {
                    matches!(asked.question, Question::Ping { .. }).then_some(Answer::Pong {
                        round_trip_ns,
                        payload_bytes: payload.len() as u16,
                    })
                })
            }
            Message::IdentityReply { id, identity, link_key } => {
                self.settle(id, by, now, out, |asked, _| {
                    (asked.question == Question::Identity)
                        .then_some(Answer::Identity { identity: *identity, link_key: *link_key })
                })
            }
            Message::TraceReply { id, hop } => self.handle_hop(id, by, hop, now, out),
            Message::Error { why, offending } => {
                self.handle_error(by, Some(why), None, offending, now, out)
            }
            Message::TooBig { packet_bytes_max, offending } => {
                let size = Some(packet_bytes_max);
                self.handle_error(by, Discard::TooBig.reason(), size, offending, now, out)
            }
            Message::SlotGone { offending, .. } => {
                self.handle_error(by, Discard::SlotGone.reason(), None, offending, now, out)
            }
            Message::Congestion { offending } => {
                self.handle_error(by, Discard::EgressFull.reason(), None, offending, now, out)
            }
            Message::SlotMoved { .. }
            | Message::Goodbye { .. }
            | Message::Ping { .. }
            | Message::TraceRequest { .. }
            | Message::IdentityRequest { .. } => false,
        }
    }

    fn settle(
        &mut self,
        number: u32,
        by: Slot,
        now: Now,
        out: &mut Outputs,
        answer: impl FnOnce(&Asked, u64) -> Option<Answer>,
    ) -> bool {
        let asked = self.waiting.get(&number).filter(|asked| asked.by == by);
        let Some(asked) = asked else { return false };
        let round_trip_ns = now.0.saturating_sub(asked.sent.0);
        let Some(answer) = answer(asked, round_trip_ns) else { return false };
        let id = asked.id;
        self.waiting.remove(&number);
        out.events.push(Event::Answered(id, answer));
        true
    }

    fn handle_hop(
        &mut self,
        number: u32,
        by: Slot,
        word: HopWord,
        now: Now,
        out: &mut Outputs,
    ) -> bool {
        let Some(asked) = self.take_trace(number, by) else { return false };
        let round_trip_ns = now.0.saturating_sub(asked.sent.0);
        let report = HopReport { hop: asked.hop, word: Some(word), complaint: None, round_trip_ns };
        out.events.push(Event::Answered(asked.id, Answer::Hop(report)));
        let goes_on = word.behind == Behind::Neighbour && word.discard.is_none();
        self.next_hop(Asked { silent: 0, ..asked }, goes_on, now, out);
        true
    }

    /// Removes the trace that waits for a reply with this number.
    fn take_trace(&mut self, number: u32, by: Slot) -> Option<Asked> {
        let asked = *self.waiting.get(&number)?;
        // A reply may come from slot 1 at hop 0: this switch replies from slot 1, and so does the
        // next switch if the label turns back there.
        let is_from = asked.by == by || asked.hop == 0 && by.is_switch();
        if asked.question != Question::Trace || !is_from {
            return None;
        }
        self.waiting.remove(&number)
    }

    fn next_hop(&mut self, asked: Asked, goes_on: bool, now: Now, out: &mut Outputs) {
        if goes_on && asked.hop + 1 < HOPS_MAX {
            // Use a new number, so that a late reply does not match the request for the next hop.
            let number = self.number(now);
            self.send(number, Asked { hop: asked.hop + 1, tries: 0, ..asked }, now, out);
        } else {
            out.events.push(Event::Answered(asked.id, Answer::TraceEnd));
        }
    }

    /// Handles an error about a packet. This switch has sent the packet if its header is that of a
    /// waiting request, and the error arrives on the slot on which the request was sent.
    fn handle_error(
        &mut self,
        by: Slot,
        why: Option<Reason>,
        packet_bytes_max: Option<u16>,
        offending: &[u8],
        now: Now,
        out: &mut Outputs,
    ) -> bool {
        let Some(why) = why else { return false };
        let found = with_header(offending, |header| {
            let (&number, &asked) =
                self.waiting.iter().find(|(number, _)| **number as u16 == header.flow())?;
            let is_trace = asked.question == Question::Trace;
            let hops_left = if is_trace { asked.hop } else { HOPS_MAX };
            let (flow, label, at) = (number as u16, asked.label, asked.sent);
            let sent = Sent { flow, label, is_trace, hops_left, by: asked.by, at };
            let is_from = asked.by == by || by.is_switch();
            (is_from && sent.is_in(header)).then(|| (number, asked, header.hops_left()))
        });
        let Some(Some((number, asked, hops_left))) = found else { return false };
        self.waiting.remove(&number);
        let round_trip_ns = now.0.saturating_sub(asked.sent.0);
        if asked.question == Question::Trace {
            let report = HopReport {
                hop: asked.hop.saturating_sub(hops_left),
                word: None,
                complaint: Some(why),
                round_trip_ns,
            };
            out.events.push(Event::Answered(asked.id, Answer::Hop(report)));
            // Continue with the next hop after a switch that reports only that the hops are spent.
            // The next node may be an endpoint, which then receives one request and no more.
            let goes_on = why == Reason::HOPS_SPENT;
            let silent = SILENT_HOPS_MAX - 1;
            self.next_hop(Asked { silent, ..asked }, goes_on, now, out);
        } else {
            let hops = HOPS_MAX.saturating_sub(hops_left);
            let complaint = Complaint { why, hops, packet_bytes_max, round_trip_ns };
            out.events.push(Event::Answered(asked.id, Answer::Complaint(complaint)));
        }
        true
    }

    /// Abandons or repeats the requests that got no reply in time.
    pub(super) fn poll(&mut self, now: Now, out: &mut Outputs) {
        let is_late = |asked: &Asked| now.0.saturating_sub(asked.sent.0) >= ANSWER_NS_MAX;
        let late: Vec<u32> = self
            .waiting
            .iter()
            .filter(|(_, asked)| is_late(asked))
            .map(|(&number, _)| number)
            .collect();
        for number in late {
            let Some(asked) = self.waiting.remove(&number) else { continue };
            if asked.question != Question::Trace {
                out.events.push(Event::Answered(asked.id, Answer::Silence));
            } else if asked.tries < TRIES {
                let number = self.number(now);
                self.send(number, asked, now, out);
            } else {
                let report =
                    HopReport { hop: asked.hop, word: None, complaint: None, round_trip_ns: 0 };
                out.events.push(Event::Answered(asked.id, Answer::Hop(report)));
                let silent = asked.silent + 1;
                self.next_hop(Asked { silent, ..asked }, silent < SILENT_HOPS_MAX, now, out);
            }
        }
    }
}

/// Reads an offending header; `None` if its width differs from that of this switch's requests.
fn with_header<T>(offending: &[u8], read: impl FnOnce(&Header<'_, u64>) -> T) -> Option<T> {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let header = bytes.get_mut(..offending.len())?;
    header.copy_from_slice(offending);
    match AnyHeader::parse(header) {
        Ok(AnyHeader::W64(header)) => Some(read(&header)),
        _ => None,
    }
}
