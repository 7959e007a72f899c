//! Requests that this switch sends: ping, trace and identity. The switch matches replies to
//! requests, and repeats a trace request that got no reply.
//!
//! A trace sends a request to each hop in turn. The request to hop `n` starts with `n` hops left.
//! The `n`th switch (this switch is number 0) therefore drops the request, and reports what it
//! would have done if a hop had been left. This is similar to traceroute with time exceeded (RFC
//! 792) and to the traceroute of MPLS (RFC 8029). An endpoint at the end of the label receives a
//! request only if the switch before it sent no report.

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
    limits::{HOPS_MAX, REQUESTS_MAX, REQUESTS_REMEMBERED_MAX},
};

/// The time, in nanoseconds, after which a request without a reply is abandoned or sent again.
const REPLY_NS_MAX: u64 = 1_000_000_000;

/// The number of requests to one hop of a trace before the hop counts as silent.
const TRIES: u8 = 3;

/// The number of consecutive silent hops after which a trace ends.
const SILENT_HOPS_MAX: u8 = 3;

/// The time, in nanoseconds, for which notices about a sent packet are accepted. A notice normally
/// takes less time, including the delays in slow paths.
const NOTICE_NS_MAX: u64 = 5_000_000_000;

/// The shortest payload of a ping, in bytes. An error about such a packet is never longer than the
/// packet (W5-51).
const PING_BYTES_MIN: usize = 48;

/// The number of a request. Replies to the request are reported with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u32);

/// A request that this switch sends along a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRequest {
    /// Asks the node at the end of the label to return a payload.
    Ping {
        /// Length of the payload in bytes. A value below 48 counts as 48.
        payload_bytes: u16,
    },
    /// Asks each hop on the path to report what it would do with a packet.
    Trace,
    /// Asks the node at the end of the label for its public keys.
    Identity,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlReply {
    /// The reply to a ping.
    Pong {
        /// The time from request to reply.
        round_trip_ns: u64,
        /// Length of the returned payload in bytes.
        payload_bytes: u16,
    },
    /// One hop of a trace. Further hops or [`ControlReply::TraceEnd`] follow.
    Hop(HopReport),
    /// The trace is over. The report of the last hop shows where and why the trace ended.
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
    /// The number of switches that had forwarded the packet, including this switch.
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
    /// The number of the hop; 0 is this switch.
    pub hop: u8,
    /// The hop's own report. `None` if nothing arrived in time, or only an error.
    pub word: Option<HopWord>,
    /// The drop reason, if an error arrived instead of a report.
    pub complaint: Option<Reason>,
    /// The time from request to reply; 0 if there was none.
    pub round_trip_ns: u64,
}

/// The reason why a request was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// [`REQUESTS_MAX`] requests wait for replies.
    Busy,
    /// The payload is longer than a control message allows.
    TooLong,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => write!(f, "{REQUESTS_MAX} requests wait for replies; try again later"),
            Self::TooLong => {
                write!(f, "a control message carries at most {} bytes", CONTROL_BYTES_MAX - 8)
            }
        }
    }
}

impl std::error::Error for RequestError {}

/// Requests that wait for replies, by their number in the packet, and the packets sent recently.
/// The number of both is limited.
#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    waiting: BTreeMap<u32, PendingRequest>,
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
    /// Whether an offending header is the header of this packet at some hop of its path.
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
struct PendingRequest {
    id: RequestId,
    label: Label,
    request: ControlRequest,
    /// The slot on which the reply arrives.
    by: Slot,
    sent: Now,
    /// For a trace: the hop that this request is for.
    hop: u8,
    /// The number of times that the request was sent to this hop.
    tries: u8,
    /// For a trace: the number of consecutive silent hops before this one.
    silent: u8,
}

impl PendingRequests {
    /// Removes all requests. The numbering continues.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.sent.clear();
    }

    /// The time at which the first request times out.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        let due = |pending: &PendingRequest| Now(pending.sent.0.saturating_add(REPLY_NS_MAX));
        self.waiting.values().map(due).min()
    }

    fn note_sent(&mut self, sent: Sent) {
        if self.sent.len() >= REQUESTS_REMEMBERED_MAX {
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
    /// too: they are the packet's flow, by which an error is matched to the packet. A node that is
    /// not on the path cannot easily guess the number; nodes on the path see it.
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
    pub(super) fn send_request(
        &mut self,
        label: Label,
        request: ControlRequest,
        by: Slot,
        now: Now,
        out: &mut Outputs,
    ) -> Result<RequestId, RequestError> {
        if let ControlRequest::Ping { payload_bytes } = request
            && usize::from(payload_bytes) + 8 > CONTROL_BYTES_MAX
        {
            return Err(RequestError::TooLong);
        }
        if self.waiting.len() >= REQUESTS_MAX {
            return Err(RequestError::Busy);
        }
        let number = self.number(now);
        let id = RequestId(number);
        let pending =
            PendingRequest { id, label, request, by, sent: now, hop: 0, tries: 0, silent: 0 };
        self.send(number, pending, now, out);
        Ok(id)
    }

    /// Sends the packet of a request, and notes that its reply is awaited.
    fn send(&mut self, number: u32, mut pending: PendingRequest, now: Now, out: &mut Outputs) {
        pending.sent = now;
        pending.tries += 1;
        let is_trace = pending.request == ControlRequest::Trace;
        let flags = Flags { no_errors: false, control: true, telemetry: is_trace };
        let hops_left = if is_trace { pending.hop } else { HOPS_MAX };
        let flow = number as u16;
        let header = HeaderRepr { flags, flow, ..HeaderRepr::new(pending.label, 0, hops_left) };
        let message = match pending.request {
            ControlRequest::Trace => Message::TraceRequest { id: number }.to_bytes(),
            ControlRequest::Identity => Message::IdentityRequest { id: number }.to_bytes(),
            ControlRequest::Ping { payload_bytes } => {
                let bytes = usize::from(payload_bytes).max(PING_BYTES_MIN);
                // Use a test pattern, because some paths treat a payload of zeros specially.
                let payload: Vec<u8> = (0..bytes).map(|n| n as u8).collect();
                Message::Ping { id: number, payload: &payload }.to_bytes()
            }
        };
        self.waiting.insert(number, pending);
        let (label, by, at) = (pending.label, pending.by, now);
        self.note_sent(Sent { flow, label, is_trace, hops_left, by, at });
        transmit(&header, &message, out);
    }

    /// Handles a reply or an error that arrived on slot `by`. Returns whether the message belongs
    /// to a request.
    pub(super) fn handle(
        &mut self,
        by: Slot,
        message: &Message<'_>,
        now: Now,
        out: &mut Outputs,
    ) -> bool {
        match *message {
            Message::Pong { id, payload } => {
                self.settle(id, by, now, out, |pending, round_trip_ns| {
                    matches!(pending.request, ControlRequest::Ping { .. }).then_some(
                        ControlReply::Pong { round_trip_ns, payload_bytes: payload.len() as u16 },
                    )
                })
            }
            Message::IdentityReply { id, identity, link_key } => {
                self.settle(id, by, now, out, |pending, _| {
                    (pending.request == ControlRequest::Identity).then_some(
                        ControlReply::Identity { identity: *identity, link_key: *link_key },
                    )
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
            | Message::IdentityRequest { .. }
            | Message::Announce { .. }
            | Message::Announced { .. }
            | Message::Find { .. }
            | Message::Found { .. }
            | Message::ObservedRequest { .. }
            | Message::ObservedReply { .. }
            | Message::Resolve { .. }
            | Message::Resolved { .. } => false,
        }
    }

    fn settle(
        &mut self,
        number: u32,
        by: Slot,
        now: Now,
        out: &mut Outputs,
        reply: impl FnOnce(&PendingRequest, u64) -> Option<ControlReply>,
    ) -> bool {
        let pending = self.waiting.get(&number).filter(|pending| pending.by == by);
        let Some(pending) = pending else { return false };
        let round_trip_ns = now.0.saturating_sub(pending.sent.0);
        let Some(reply) = reply(pending, round_trip_ns) else { return false };
        let id = pending.id;
        self.waiting.remove(&number);
        out.events.push(Event::Replied(id, reply));
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
        let Some(pending) = self.take_trace(number, by) else { return false };
        let round_trip_ns = now.0.saturating_sub(pending.sent.0);
        let report =
            HopReport { hop: pending.hop, word: Some(word), complaint: None, round_trip_ns };
        out.events.push(Event::Replied(pending.id, ControlReply::Hop(report)));
        let goes_on = word.behind == Behind::Neighbour && word.discard.is_none();
        self.next_hop(PendingRequest { silent: 0, ..pending }, goes_on, now, out);
        true
    }

    /// Removes the trace that waits for a reply with this number.
    fn take_trace(&mut self, number: u32, by: Slot) -> Option<PendingRequest> {
        let pending = *self.waiting.get(&number)?;
        // At hop 0 this switch itself replies, and its reply arrives from slot 1.
        let is_from = pending.by == by || pending.hop == 0 && by.is_switch();
        if pending.request != ControlRequest::Trace || !is_from {
            return None;
        }
        self.waiting.remove(&number)
    }

    fn next_hop(&mut self, pending: PendingRequest, goes_on: bool, now: Now, out: &mut Outputs) {
        if goes_on && pending.hop + 1 < HOPS_MAX {
            // Use a new number, so that a late reply about this hop does not match the request to
            // the next hop.
            let number = self.number(now);
            self.send(
                number,
                PendingRequest { hop: pending.hop + 1, tries: 0, ..pending },
                now,
                out,
            );
        } else {
            out.events.push(Event::Replied(pending.id, ControlReply::TraceEnd));
        }
    }

    /// Handles an error about a packet. The error belongs to a waiting request if the offending
    /// header is that of the request. The error must also arrive on the slot on which the request
    /// was sent, or from slot 1 of this switch.
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
            let (&number, &pending) =
                self.waiting.iter().find(|(number, _)| **number as u16 == header.flow())?;
            let is_trace = pending.request == ControlRequest::Trace;
            let hops_left = if is_trace { pending.hop } else { HOPS_MAX };
            let (flow, label, at) = (number as u16, pending.label, pending.sent);
            let sent = Sent { flow, label, is_trace, hops_left, by: pending.by, at };
            let is_from = pending.by == by || by.is_switch();
            (is_from && sent.is_in(header)).then(|| (number, pending, header.hops_left()))
        });
        let Some(Some((number, pending, hops_left))) = found else { return false };
        self.waiting.remove(&number);
        let round_trip_ns = now.0.saturating_sub(pending.sent.0);
        if pending.request == ControlRequest::Trace {
            let report = HopReport {
                hop: pending.hop.saturating_sub(hops_left),
                word: None,
                complaint: Some(why),
                round_trip_ns,
            };
            out.events.push(Event::Replied(pending.id, ControlReply::Hop(report)));
            // Continue with the next hop after a switch that reports only that the hops are spent.
            // The next node may be an endpoint, which does not reply. So the trace ends if the next
            // hop is silent.
            let goes_on = why == Reason::HOPS_SPENT;
            let silent = SILENT_HOPS_MAX - 1;
            self.next_hop(PendingRequest { silent, ..pending }, goes_on, now, out);
        } else {
            let hops = HOPS_MAX.saturating_sub(hops_left);
            let complaint = Complaint { why, hops, packet_bytes_max, round_trip_ns };
            out.events.push(Event::Replied(pending.id, ControlReply::Complaint(complaint)));
        }
        true
    }

    /// Abandons or repeats the requests that got no reply in time.
    pub(super) fn poll(&mut self, now: Now, out: &mut Outputs) {
        let is_late =
            |pending: &PendingRequest| now.0.saturating_sub(pending.sent.0) >= REPLY_NS_MAX;
        let late: Vec<u32> = self
            .waiting
            .iter()
            .filter(|(_, pending)| is_late(pending))
            .map(|(&number, _)| number)
            .collect();
        for number in late {
            let Some(pending) = self.waiting.remove(&number) else { continue };
            if pending.request != ControlRequest::Trace {
                out.events.push(Event::Replied(pending.id, ControlReply::Silence));
            } else if pending.tries < TRIES {
                let number = self.number(now);
                self.send(number, pending, now, out);
            } else {
                let report =
                    HopReport { hop: pending.hop, word: None, complaint: None, round_trip_ns: 0 };
                out.events.push(Event::Replied(pending.id, ControlReply::Hop(report)));
                let silent = pending.silent + 1;
                self.next_hop(
                    PendingRequest { silent, ..pending },
                    silent < SILENT_HOPS_MAX,
                    now,
                    out,
                );
            }
        }
    }
}

/// Reads an offending header. Returns `None` if the header is not valid, or if its width differs
/// from that of this switch's requests.
fn with_header<T>(offending: &[u8], read: impl FnOnce(&Header<'_, u64>) -> T) -> Option<T> {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let header = bytes.get_mut(..offending.len())?;
    header.copy_from_slice(offending);
    match AnyHeader::parse(header) {
        Ok(AnyHeader::W64(header)) => Some(read(&header)),
        _ => None,
    }
}
