//! The receiving end of a transfer.

use std::{collections::BTreeMap, mem, time::Duration};

use blake2::{Blake2s256, Digest as _};

use super::{
    Verdict,
    message::{HASH_BYTES, Message},
};
use crate::limits::{
    TRANSFER_ACK_DELAY, TRANSFER_ACK_EVERY, TRANSFER_PIECES_MAX, TRANSFER_RANGES_MAX,
    TRANSFER_SILENCE, TRANSFER_WINDOW_BYTES,
};

/// Receives a file: returns its bytes in order, and checks their hash.
pub(crate) struct Receiver {
    id: Option<u32>,
    /// All bytes below this offset have arrived.
    received: u64,
    /// Pieces above `received`, by offset.
    pieces: BTreeMap<u64, Vec<u8>>,
    /// The bytes that the pieces cover, as disjoint ranges: start to end.
    ranges: BTreeMap<u64, u64>,
    /// Bytes in order that the caller has not taken.
    output: Vec<u8>,
    hash: Blake2s256,
    end: Option<(u64, [u8; HASH_BYTES])>,
    verdict: Option<Verdict>,
    /// The number of data messages since the last ack.
    unacknowledged: u32,
    ack_at: Option<Duration>,
    owes_result: bool,
    /// The time at which the sender's newest message arrived.
    heard_at: Duration,
}

impl Receiver {
    /// A receiver that waits for an offer.
    pub(crate) fn new(now: Duration) -> Receiver {
        Receiver {
            id: None,
            received: 0,
            pieces: BTreeMap::new(),
            ranges: BTreeMap::new(),
            output: Vec::new(),
            hash: Blake2s256::new(),
            end: None,
            verdict: None,
            unacknowledged: 0,
            ack_at: None,
            owes_result: false,
            heard_at: now,
        }
    }

    /// Whether an offer has arrived.
    pub(crate) fn has_begun(&self) -> bool {
        self.id.is_some()
    }

    /// Handles a message.
    pub(crate) fn receive(&mut self, now: Duration, message: &[u8]) {
        let message = Message::parse(message);
        if let Some(Message::Offer { id, .. } | Message::Data { id, .. } | Message::End { id, .. }) =
            message
            && self.id.is_none_or(|ours| ours == id)
        {
            self.heard_at = now;
        }
        match message {
            Some(Message::Offer { id, .. }) if self.id.is_none_or(|ours| ours == id) => {
                self.id = Some(id);
                self.ack_at = Some(now);
            }
            Some(Message::Data { id, offset, bytes }) if self.id == Some(id) => {
                self.data(now, offset, bytes);
            }
            Some(Message::End { id, length, hash }) if self.id == Some(id) => {
                self.end.get_or_insert((length, hash));
                self.owes_result = true;
                self.judge();
                if self.verdict.is_none() {
                    self.ack_at = Some(now);
                }
            }
            _ => {}
        }
    }

    fn data(&mut self, now: Duration, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let is_next = offset <= self.received && self.ranges.is_empty();
        self.unacknowledged += 1;
        if is_next && self.unacknowledged < TRANSFER_ACK_EVERY {
            self.ack_at.get_or_insert(now + TRANSFER_ACK_DELAY);
        } else {
            // After a gap or a repetition, ack at once.
            self.ack_at = Some(now);
        }
        // After the verdict no more bytes are accepted.
        let is_judged = self.verdict.is_some();
        if is_judged || end <= self.received || end > self.received + TRANSFER_WINDOW_BYTES {
            return;
        }
        if offset > self.received {
            let has_it = self.pieces.get(&offset).is_some_and(|held| held.len() >= bytes.len());
            if !has_it && self.pieces.len() < TRANSFER_PIECES_MAX {
                self.pieces.insert(offset, bytes.to_vec());
                self.cover(offset, end);
            }
            return;
        }
        self.pass_on(offset, bytes);
        while let Some(entry) = self.pieces.first_entry()
            && *entry.key() <= self.received
        {
            let (offset, bytes) = entry.remove_entry();
            self.pass_on(offset, &bytes);
        }
        while let Some(entry) = self.ranges.first_entry()
            && *entry.get() <= self.received
        {
            entry.remove();
        }
        self.judge();
    }

    /// Outputs the new part of bytes that begin at or below `received`.
    fn pass_on(&mut self, offset: u64, bytes: &[u8]) {
        let known = (self.received - offset).min(bytes.len() as u64) as usize;
        let new = &bytes[known..];
        self.hash.update(new);
        self.output.extend_from_slice(new);
        self.received += new.len() as u64;
    }

    /// Adds a range to the disjoint ranges.
    fn cover(&mut self, mut start: u64, mut end: u64) {
        while let Some((&held_start, &held_end)) = self.ranges.range(..=end).next_back()
            && held_end >= start
        {
            self.ranges.remove(&held_start);
            start = start.min(held_start);
            end = end.max(held_end);
        }
        self.ranges.insert(start, end);
    }

    /// Compares length and hash with those of the sender, if the whole file has arrived.
    fn judge(&mut self) {
        let Some((length, hash)) = self.end else { return };
        if self.verdict.is_some() || self.received < length {
            return;
        }
        let is_same = self.received == length && self.hash.clone().finalize()[..] == hash;
        if !is_same {
            self.verdict = Some(Verdict::Differs);
        }
    }

    /// Whether no message of the sender has arrived for [`TRANSFER_SILENCE`], and there is no
    /// verdict. A sender that waits for input repeats its offer.
    pub(crate) fn is_silent(&self, now: Duration) -> bool {
        self.verdict.is_none() && now >= self.silence()
    }

    fn silence(&self) -> Duration {
        self.heard_at + TRANSFER_SILENCE
    }

    /// The bytes that have arrived in order since the last call.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        mem::take(&mut self.output)
    }

    /// Whether all bytes have arrived with the right hash, and the caller has not called
    /// [`finish`](Self::finish) yet.
    pub(crate) fn is_whole(&self) -> bool {
        let Some((length, _)) = self.end else { return false };
        self.received == length && self.verdict.is_none()
    }

    /// Sets the verdict, for the sender, after the caller has written the file.
    pub(crate) fn finish(&mut self, verdict: Verdict) {
        self.verdict.get_or_insert(verdict);
        self.owes_result = true;
    }

    /// The number of pieces above a gap.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.pieces.len()
    }

    /// The outcome of the transfer; `None` while it is not known.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// Writes the next message that is due. Returns whether there is one.
    pub(crate) fn transmit(&mut self, now: Duration, to: &mut Vec<u8>) -> bool {
        let Some(id) = self.id else { return false };
        if let (true, Some(verdict)) = (self.owes_result, self.verdict) {
            self.owes_result = false;
            Message::Result { id, verdict }.write(to);
            return true;
        }
        if self.ack_at.is_none_or(|at| at > now) {
            return false;
        }
        self.ack_at = None;
        self.unacknowledged = 0;
        let ranges = self.ranges.iter().take(TRANSFER_RANGES_MAX);
        let message = Message::Ack {
            id,
            received: self.received,
            window_end: self.received + TRANSFER_WINDOW_BYTES,
            ranges: ranges.map(|(start, end)| (*start, *end)).collect(),
        };
        message.write(to);
        true
    }

    /// The time at which [`transmit`](Self::transmit) has a message to send, or at which the sender
    /// counts as silent. `None` if there is no such time.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        if self.owes_result && self.verdict.is_some() {
            return Some(Duration::ZERO);
        }
        let silence = self.verdict.is_none().then(|| self.silence());
        self.ack_at.into_iter().chain(silence).min()
    }
}
