//! The sending end of a transfer.
//!
//! Loss detection and congestion control are those of RFC 9002 in a simple form: a block counts as
//! lost when a block that was sent three or more blocks later is acknowledged, or after a timeout.
//! The window halves once for each round of losses (NewReno), and a timeout reduces it to the
//! minimum.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use blake2::{Blake2s256, Digest as _};

use super::{
    TransferError, Verdict,
    message::{DATA_HEADER_BYTES, Message},
};
use crate::limits::{
    TRANSFER_ACK_DELAY, TRANSFER_BLOCK_BYTES_MIN, TRANSFER_CONTROL_EVERY_MAX, TRANSFER_IDLE_EVERY,
    TRANSFER_OFFER_EVERY, TRANSFER_REORDERED, TRANSFER_RTO_MAX, TRANSFER_RTO_MIN, TRANSFER_SILENCE,
    TRANSFER_WINDOW_BLOCKS, TRANSFER_WINDOW_BLOCKS_MIN, TRANSFER_WINDOW_BYTES,
};

/// Sends a file.
pub(crate) struct Sender {
    id: u32,
    length: Option<u64>,
    /// The bytes of the file from offset `acknowledged` on that were read.
    buffer: VecDeque<u8>,
    /// The receiver has all bytes below this offset.
    acknowledged: u64,
    /// The offset of the first byte that was never sent.
    next: u64,
    window_end: u64,
    is_input_complete: bool,
    hash: Blake2s256,
    /// Blocks that were sent and not acknowledged, by offset.
    blocks: BTreeMap<u64, Block>,
    /// Offsets of the blocks that must be sent again.
    lost: BTreeSet<u64>,
    /// The transmissions of blocks, oldest first: the number of the transmission, and the offset of
    /// the block.
    order: VecDeque<(u64, u64)>,
    sent: u64,
    bytes_in_flight: u64,
    congestion_window: u64,
    slow_start_until: u64,
    /// The loss of a transmission with a lower number does not halve the window, because the window
    /// was already reduced for this round of losses.
    recovery_until: u64,
    /// The highest number of an acknowledged transmission, plus 1; 0 if there is none.
    newest_acknowledged: u64,
    round_trip: Option<RoundTrip>,
    backoff: u32,
    has_answer: bool,
    heard_at: Duration,
    /// The time at which a block or an idle offer was last sent.
    said_at: Duration,
    /// The time at which the next copy of the offer or of the end is sent.
    control_at: Duration,
    /// The time at which unacknowledged blocks count as lost; `None` if no timer runs.
    timeout_at: Option<Duration>,
    outcome: Option<Result<(), TransferError>>,
    repeated: u64,
}

struct Block {
    bytes: u64,
    order: u64,
    sent_at: Duration,
    /// Whether the block was sent more than once, so that its ack gives no round-trip sample
    /// (Karn's algorithm).
    is_repeated: bool,
    is_in_flight: bool,
}

/// The estimate of RFC 6298.
#[derive(Clone, Copy)]
struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
}

impl Sender {
    /// Makes a sender. `length` is `None` if unknown; `id` identifies the transfer.
    pub(crate) fn new(id: u32, length: Option<u64>, now: Duration) -> Sender {
        Sender {
            id,
            length,
            buffer: VecDeque::new(),
            acknowledged: 0,
            next: 0,
            window_end: 0,
            is_input_complete: false,
            hash: Blake2s256::new(),
            blocks: BTreeMap::new(),
            lost: BTreeSet::new(),
            order: VecDeque::new(),
            sent: 0,
            bytes_in_flight: 0,
            congestion_window: 0,
            slow_start_until: u64::MAX,
            recovery_until: 0,
            newest_acknowledged: 0,
            round_trip: None,
            backoff: 0,
            has_answer: false,
            heard_at: now,
            said_at: now,
            control_at: now,
            timeout_at: None,
            outcome: None,
            repeated: 0,
        }
    }

    /// The number of bytes of input that the sender accepts now.
    pub(crate) fn room(&self) -> usize {
        if self.is_input_complete { 0 } else { TRANSFER_WINDOW_BYTES as usize - self.buffer.len() }
    }

    /// Takes the next bytes of the file, at most [`room`](Self::room).
    pub(crate) fn input(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.buffer.extend(bytes);
    }

    /// Marks the end of the file.
    pub(crate) fn end_input(&mut self) {
        self.is_input_complete = true;
    }

    /// The outcome of the transfer; `None` while it is not known.
    pub(crate) fn outcome(&self) -> Option<Result<(), TransferError>> {
        self.outcome
    }

    /// The number of bytes that the receiver has acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The number of retransmissions of blocks.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated
    }

    fn read_end(&self) -> u64 {
        self.acknowledged + self.buffer.len() as u64
    }

    fn is_all_acknowledged(&self) -> bool {
        self.is_input_complete && self.buffer.is_empty()
    }

    /// Handles a message.
    pub(crate) fn receive(&mut self, now: Duration, message: &[u8]) {
        match Message::parse(message) {
            Some(Message::Ack { id, received, window_end, ranges }) if id == self.id => {
                self.ack(now, received, window_end, &ranges);
            }
            Some(Message::Result { id, verdict }) if id == self.id => {
                self.outcome.get_or_insert(match verdict {
                    Verdict::Complete if self.is_input_complete => Ok(()),
                    verdict => Err(TransferError::Refused(verdict)),
                });
            }
            _ => {}
        }
    }

    fn ack(&mut self, now: Duration, received: u64, window_end: u64, ranges: &[(u64, u64)]) {
        if received > self.next || ranges.iter().any(|(_, end)| *end > self.next) {
            return; // Bytes that were never sent.
        }
        self.heard_at = now;
        self.has_answer = true;
        self.window_end = self.window_end.max(window_end);
        let mut is_news = false;
        let whole = std::iter::once((0, received)).chain(ranges.iter().copied());
        for (start, end) in whole {
            is_news |= self.take(now, start, end);
        }
        if received > self.acknowledged {
            let bytes = (received - self.acknowledged) as usize;
            self.buffer.drain(..bytes.min(self.buffer.len()));
            self.acknowledged = received;
        }
        self.find_losses();
        if is_news {
            self.backoff = 0;
            self.timeout_at = (self.bytes_in_flight > 0).then(|| now + self.timeout());
            if self.is_all_acknowledged() {
                self.control_at = now;
            }
        }
    }

    /// Removes the blocks of an acknowledged range. Returns whether there were any.
    fn take(&mut self, now: Duration, start: u64, end: u64) -> bool {
        let within =
            |(offset, block): (&u64, &Block)| (*offset + block.bytes <= end).then_some(*offset);
        let offsets: Vec<u64> = self.blocks.range(start..end).filter_map(within).collect();
        for offset in &offsets {
            let Some(block) = self.blocks.remove(offset) else { continue };
            self.lost.remove(offset);
            if block.is_in_flight {
                self.bytes_in_flight -= block.bytes;
            }
            self.newest_acknowledged = self.newest_acknowledged.max(block.order + 1);
            if !block.is_repeated {
                self.measure(now.saturating_sub(block.sent_at));
            }
            if block.order >= self.recovery_until {
                self.grow(block.bytes);
            }
        }
        !offsets.is_empty()
    }

    fn grow(&mut self, bytes: u64) {
        if self.congestion_window < self.slow_start_until {
            self.congestion_window += bytes;
        } else {
            self.congestion_window += bytes * bytes / self.congestion_window.max(1) + 1;
        }
        self.congestion_window = self.congestion_window.min(TRANSFER_WINDOW_BYTES);
    }

    fn measure(&mut self, sample: Duration) {
        self.round_trip = Some(match self.round_trip {
            None => RoundTrip { smoothed: sample, variation: sample / 2 },
            Some(RoundTrip { smoothed, variation }) => RoundTrip {
                smoothed: smoothed * 7 / 8 + sample / 8,
                variation: variation * 3 / 4 + smoothed.abs_diff(sample) / 4,
            },
        });
    }

    fn timeout(&self) -> Duration {
        let base = match self.round_trip {
            Some(RoundTrip { smoothed, variation }) => {
                smoothed + variation * 4 + TRANSFER_ACK_DELAY
            }
            None => TRANSFER_OFFER_EVERY,
        };
        let base = base.max(TRANSFER_RTO_MIN);
        base.saturating_mul(1 << self.backoff.min(8)).min(TRANSFER_RTO_MAX)
    }

    /// Marks blocks as lost if a block that was sent at least [`TRANSFER_REORDERED`] blocks later
    /// has arrived.
    fn find_losses(&mut self) {
        let mut newest_lost = None;
        while let Some(&(order, offset)) = self.order.front()
            && order + TRANSFER_REORDERED < self.newest_acknowledged
        {
            self.order.pop_front();
            if self.lose(order, offset) {
                newest_lost = Some(order);
            }
        }
        if newest_lost.is_some_and(|order| order >= self.recovery_until) {
            self.recovery_until = self.sent;
            self.slow_start_until = self.congestion_window / 2;
            self.congestion_window = self.slow_start_until;
        }
    }

    /// Marks a block as lost, unless it was sent again after the transmission `order`. Returns
    /// whether it is newly lost.
    fn lose(&mut self, order: u64, offset: u64) -> bool {
        let Some(block) = self.blocks.get_mut(&offset) else { return false };
        if block.order != order || !block.is_in_flight {
            return false;
        }
        block.is_in_flight = false;
        self.bytes_in_flight -= block.bytes;
        self.lost.insert(offset);
        true
    }

    fn time_out(&mut self, now: Duration) {
        while let Some((order, offset)) = self.order.pop_front() {
            self.lose(order, offset);
        }
        self.slow_start_until = self.congestion_window / 2;
        self.congestion_window = 0; // The minimum applies.
        self.recovery_until = self.sent;
        self.backoff += 1;
        self.timeout_at = Some(now + self.timeout());
    }

    /// Writes the next message that may be sent. `message_max` is the longest message that the path
    /// allows, in bytes. Returns whether there is one.
    pub(crate) fn transmit(&mut self, now: Duration, message_max: usize, to: &mut Vec<u8>) -> bool {
        if self.outcome.is_some() {
            return false;
        }
        if now.saturating_sub(self.heard_at) >= TRANSFER_SILENCE
            && (!self.has_answer || self.bytes_in_flight > 0 || self.is_all_acknowledged())
        {
            self.outcome = Some(Err(TransferError::Silence));
            return false;
        }
        let block_max = message_max.saturating_sub(DATA_HEADER_BYTES);
        if block_max < TRANSFER_BLOCK_BYTES_MIN {
            self.outcome = Some(Err(TransferError::TooNarrow));
            return false;
        }
        if !self.has_answer || self.is_all_acknowledged() {
            return self.transmit_control(now, to);
        }
        if self.timeout_at.is_some_and(|at| at <= now) {
            self.time_out(now);
        }
        if self.transmit_block(now, block_max as u64, to) {
            self.said_at = now;
            return true;
        }
        self.transmit_idle(now, to)
    }

    /// Repeats the offer while the input is slow, so that the receiver knows that the sender is
    /// running.
    fn transmit_idle(&mut self, now: Duration, to: &mut Vec<u8>) -> bool {
        if self.bytes_in_flight > 0 || now < self.said_at + TRANSFER_IDLE_EVERY {
            return false;
        }
        self.said_at = now;
        Message::Offer { id: self.id, length: self.length }.write(to);
        true
    }

    fn transmit_control(&mut self, now: Duration, to: &mut Vec<u8>) -> bool {
        if self.control_at > now {
            return false;
        }
        self.control_at = now + self.timeout().min(TRANSFER_CONTROL_EVERY_MAX);
        self.backoff += 1;
        let message = if self.has_answer {
            let hash = self.hash.clone().finalize().into();
            Message::End { id: self.id, length: self.acknowledged, hash }
        } else {
            Message::Offer { id: self.id, length: self.length }
        };
        message.write(to);
        true
    }

    fn transmit_block(&mut self, now: Duration, block_max: u64, to: &mut Vec<u8>) -> bool {
        if self.congestion_window == 0 && self.sent == 0 {
            self.congestion_window = TRANSFER_WINDOW_BLOCKS * block_max;
        }
        let window = self.congestion_window.max(TRANSFER_WINDOW_BLOCKS_MIN * block_max);
        if self.bytes_in_flight + block_max > window {
            return false;
        }
        let (offset, bytes, is_repeated) = match self.lost.pop_first() {
            Some(offset) => {
                let Some(block) = self.blocks.remove(&offset) else { return false };
                let bytes = block.bytes.min(block_max);
                if bytes < block.bytes {
                    // The path's limit has decreased: the rest becomes another lost block.
                    let rest = Block { bytes: block.bytes - bytes, ..block };
                    self.blocks.insert(offset + bytes, rest);
                    self.lost.insert(offset + bytes);
                }
                self.repeated += 1;
                (offset, bytes, true)
            }
            None => {
                let end = self.read_end().min(self.window_end);
                let bytes = end.saturating_sub(self.next).min(block_max);
                // Send a short block only at the end of the file, or if nothing is in flight.
                let is_short = bytes < block_max
                    && !(self.is_input_complete && self.next + bytes == self.read_end())
                    && self.bytes_in_flight > 0;
                if bytes == 0 || is_short {
                    return false;
                }
                let offset = self.next;
                self.next += bytes;
                (offset, bytes, false)
            }
        };
        let at = (offset - self.acknowledged) as usize;
        to.clear();
        Message::Data { id: self.id, offset, bytes: &[] }.write(to);
        to.extend(self.buffer.range(at..at + bytes as usize));
        let order = self.sent;
        self.sent += 1;
        self.bytes_in_flight += bytes;
        self.order.push_back((order, offset));
        let block = Block { bytes, order, sent_at: now, is_repeated, is_in_flight: true };
        self.blocks.insert(offset, block);
        if self.timeout_at.is_none() {
            self.timeout_at = Some(now + self.timeout());
        }
        true
    }

    /// The time at which [`transmit`](Self::transmit) must be called even if no message or input
    /// comes. `None` if there is no such time.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        if self.outcome.is_some() {
            return None;
        }
        let silence = self.heard_at + TRANSFER_SILENCE;
        if !self.has_answer || self.is_all_acknowledged() {
            return Some(self.control_at.min(silence));
        }
        if self.bytes_in_flight > 0 {
            self.timeout_at.map(|at| at.min(silence))
        } else {
            Some(self.said_at + TRANSFER_IDLE_EVERY)
        }
    }
}
