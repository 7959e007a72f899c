//! The driver's side of datagram sockets.

use std::sync::{Arc, atomic::Ordering};

use strowger_connection::{DatagramId, MessageInfo, SendRefused, Sent};
use strowger_crypto::{Nanos, PeerId};
use strowger_frame::{ChunkClass, Frame, Train, ready::WORD_BITS};

use super::{Driver, is_set};
use crate::{
    datagram_socket::{DatagramArrived, DatagramShared, Filled},
    limits::{COPIES_MAX, DATAGRAM_BYTES_MAX, FIRST_HEADROOM, TAILROOM},
    shared::count,
};

/// The driver's side of a datagram socket.
pub(super) struct DatagramEntry {
    id: DatagramId,
    pub(super) shared: Arc<DatagramShared>,
    /// The chunk from which empty frames are cut.
    carving: Option<Train>,
    is_touched: bool,
}

impl Driver {
    /// Adds a datagram socket that the endpoint has opened. Returns false if its number is outside
    /// the bitmap.
    pub(super) fn add_datagram_socket(
        &mut self,
        id: DatagramId,
        shared: Arc<DatagramShared>,
    ) -> bool {
        let place = id.index();
        if place >= self.shared.ready_datagrams.capacity() {
            return false;
        }
        if self.datagrams.len() <= place {
            self.datagrams.resize_with(place + 1, || None);
            self.ready_datagrams.resize(self.datagrams.len().div_ceil(WORD_BITS), 0);
        }
        shared.message_max.store(DATAGRAM_BYTES_MAX, Ordering::Relaxed);
        shared.place.store(place, Ordering::Release);
        let entry = DatagramEntry { id, shared, carving: None, is_touched: false };
        self.datagrams[place] = Some(entry);
        self.refill(place);
        true
    }

    /// Cuts empty frames for a datagram socket, until its queue is full, and wakes its senders.
    fn refill(&mut self, place: usize) {
        let Some(entry) = self.datagrams.get_mut(place).and_then(Option::as_mut) else { return };
        let shared = &entry.shared;
        // `filled` may get every frame of `empty`, so the frames of both count.
        while shared.empty.len() + shared.filled.len() < shared.empty.capacity() {
            let cut = |train: &mut Train| train.carve(FIRST_HEADROOM, DATAGRAM_BYTES_MAX, TAILROOM);
            let frame = match entry.carving.as_mut().and_then(cut) {
                Some(frame) => frame,
                None => {
                    entry.carving = None;
                    let Some(chunk) = self.pool.take(ChunkClass::Train) else { break };
                    match cut(entry.carving.insert(chunk.into_carving())) {
                        Some(frame) => frame,
                        None => break,
                    }
                }
            };
            if shared.empty.push(frame).is_err() {
                break;
            }
        }
        shared.tx_waiters.wake();
    }

    pub(super) fn deliver_datagram(
        &mut self,
        id: DatagramId,
        from: PeerId,
        frame: Frame,
        info: MessageInfo,
    ) {
        let (hold_max, is_low) = (self.settings.hold_max, self.pool.is_low());
        let Self { datagrams, pool, shared: node, .. } = self;
        let entry = datagrams.get_mut(id.index()).and_then(Option::as_mut);
        let Some(entry) = entry.filter(|entry| entry.id == id) else {
            count(&node.tally.rx_queue_full, 1);
            return;
        };
        let shared = &entry.shared;
        let held = Arc::strong_count(&shared.hold) - 1 + shared.arrived.len();
        let mut frame = frame;
        if held >= hold_max || is_low {
            let copy = if held < hold_max + COPIES_MAX { pool.copy(&frame) } else { None };
            let Some(copy) = copy else {
                count(&shared.tally.rx_hold_full, 1);
                count(&node.tally.rx_hold_full, 1);
                return;
            };
            frame = copy;
            count(&shared.tally.messages_copied, 1);
            count(&node.tally.messages_copied, 1);
        }
        if shared.arrived.push(DatagramArrived { from, frame, info }).is_err() {
            count(&shared.tally.rx_queue_full, 1);
            count(&node.tally.rx_queue_full, 1);
        }
        entry.is_touched = true;
    }

    pub(super) fn wake_datagram_receivers(&mut self) {
        for entry in self.datagrams.iter_mut().flatten() {
            if std::mem::take(&mut entry.is_touched) {
                entry.shared.rx_waiters.wake();
            }
        }
    }

    /// Seals and sends the messages of datagram sockets whose ready bits are set.
    pub(super) fn serve_datagrams(&mut self, now: Nanos) -> bool {
        let mut worked = false;
        for word in 0..self.ready_datagrams.len() {
            self.ready_datagrams[word] |= self.shared.ready_datagrams.take(word);
            let mut left = self.ready_datagrams[word];
            while left != 0 && !self.is_blocked() {
                let bit = left.trailing_zeros() as usize;
                left &= left - 1;
                worked = true;
                if self.serve_datagram_socket(now, word * WORD_BITS + bit) {
                    self.ready_datagrams[word] &= !(1 << bit);
                }
            }
        }
        worked
    }

    /// Serves one datagram socket. Returns whether it has no more messages.
    fn serve_datagram_socket(&mut self, now: Nanos, place: usize) -> bool {
        let Some(entry) = self.datagrams.get(place).and_then(Option::as_ref) else { return true };
        let (id, shared) = (entry.id, entry.shared.clone());
        let mut is_empty = false;
        while !self.packets.is_full() {
            let Some(filled) = shared.filled.pop() else {
                is_empty = true;
                break;
            };
            self.send_datagram(now, id, &shared, filled);
        }
        self.flush();
        self.refill(place);
        is_empty
    }

    fn send_datagram(
        &mut self,
        now: Nanos,
        id: DatagramId,
        shared: &DatagramShared,
        Filled { peer, frame }: Filled,
    ) {
        match self.endpoint.send_to(now, id, &peer, frame) {
            Ok(Sent::Packet(packet)) => self.packets.push(packet),
            Ok(Sent::Queued) => {}
            Err((why, _)) => {
                debug_assert_ne!(why, SendRefused::NoRoom, "the frames have room for all headers");
                count(&shared.tally.tx_refused, 1);
                count(&self.shared.tally.tx_refused, 1);
            }
        }
    }

    /// Closes the datagram sockets that the program has dropped.
    pub(super) fn sweep_datagrams(&mut self, now: Nanos) {
        for place in 0..self.datagrams.len() {
            let is_dropped = |entry: &DatagramEntry| is_set(&entry.shared.is_dropped);
            if !self.datagrams[place].as_ref().is_some_and(is_dropped) {
                continue;
            }
            // Send messages that were queued before the drop.
            while !self.is_blocked() && !self.serve_datagram_socket(now, place) {}
            if let Some(entry) = self.datagrams[place].take() {
                self.endpoint.close_datagram_socket(now, entry.id);
            }
        }
    }
}
