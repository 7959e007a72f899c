//! The driver's side of sockets.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
};

use strowger_connection::{CloseReason, MessageInfo, SendRefused, SocketId};
use strowger_crypto::{Nanos, PeerId};
use strowger_frame::{BURST_MAX, Burst, ChunkClass, Frame, Train, ready::WORD_BITS};
use strowger_wire::link_header::LINK_HEADER_BYTES;

use super::{Driver, is_set, ring_if};
use crate::{
    limits::{CHUNKS_READY, COPIES_MAX, FIRST_PART_BYTES},
    shared::{
        Arrived, DriverEnds, NO_PATH, OPEN, SocketShared, SocketTally, UNSUPPORTED, count, rings,
        unpack_marking,
    },
    socket::Socket,
};

/// Bytes of link header, switch header with a label of 64 bits, connection header and protocol
/// number: those of most packets. A socket uses this length until its first packet shows the real
/// one.
const USUAL_HEADERS: usize = LINK_HEADER_BYTES
    + strowger_wire::switch_header::header_bytes::<u64>()
    + strowger_wire::connection::header::CONNECTION_HEADER_BYTES
    + 1;

/// Bytes of the tag of a connection.
const TAG: usize = strowger_wire::limits::TAG_BYTES;

/// The driver's side of a socket.
pub(super) struct SocketEntry {
    pub(super) id: SocketId,
    pub(super) shared: Arc<SocketShared>,
    ends: DriverEnds,
    /// Messages that could not be sealed: the endpoint refused them as `Full`, or the port was full.
    stuck: Option<Box<Burst>>,
    /// Whether `stuck` waits until the endpoint reports that the socket is writable.
    is_refused: bool,
    /// The program has not yet taken the socket from its listener.
    is_untaken: bool,
    is_touched: bool,
    marking: usize,
}

impl Driver {
    pub(super) fn entry(&mut self, id: SocketId) -> Option<&mut SocketEntry> {
        self.sockets.get_mut(id.index())?.as_mut().filter(|entry| entry.id == id)
    }

    /// Makes a socket for a handle of the endpoint. `None` if the node is ending or has reached its
    /// limit of sockets.
    pub(super) fn make_socket(
        &mut self,
        id: SocketId,
        peer: PeerId,
        protocol: &str,
        is_untaken: bool,
    ) -> Option<Socket> {
        let alive = self.alive.upgrade()?;
        let place = id.index();
        if place >= self.shared.ready.capacity() {
            return None;
        }
        let info = self.endpoint.socket(id)?;
        let shared = Arc::new(SocketShared {
            place,
            peer,
            protocol: protocol.into(),
            message_max: AtomicUsize::new(info.message_max),
            headers: AtomicUsize::new(USUAL_HEADERS),
            state: AtomicU8::new(OPEN),
            closed: AtomicBool::new(false),
            close_reason: std::sync::OnceLock::new(),
            is_dropped: AtomicBool::new(false),
            is_taken: AtomicBool::new(false),
            marking: AtomicUsize::new(0),
            tally: SocketTally::default(),
            hold: Arc::default(),
            rx_bell: Default::default(),
            tx_bell: Default::default(),
        });
        let (ours, mut ends) = rings(self.settings.depth);
        if let Some(part) = self.first_part() {
            // The ring is empty.
            let _ = ends.chunks.push(part);
        }
        if self.sockets.len() <= place {
            self.sockets.resize_with(place + 1, || None);
            self.ready.resize(self.sockets.len().div_ceil(WORD_BITS), 0);
        }
        let entry = SocketEntry {
            id,
            shared: shared.clone(),
            ends,
            stuck: None,
            is_refused: false,
            is_untaken,
            is_touched: false,
            marking: 0,
        };
        if let Some(old) = self.sockets[place].replace(entry) {
            // The endpoint has closed the old socket, and has not returned its event yet.
            old.shared.close(CloseReason::ByUs);
        }
        Some(Socket::new(shared, alive, ours))
    }

    /// Cuts the first part of memory for a new socket.
    fn first_part(&mut self) -> Option<Train> {
        if let Some(part) = self.nursery.as_mut().and_then(|train| train.split(FIRST_PART_BYTES)) {
            return Some(part);
        }
        let nursery = self.pool.take(ChunkClass::Train)?.into_carving();
        self.nursery.insert(nursery).split(FIRST_PART_BYTES)
    }

    /// Delivers a message to its socket.
    pub(super) fn deliver(&mut self, id: SocketId, frame: Frame, info: MessageInfo) {
        let hold_max = self.settings.hold_max;
        let is_low = self.pool.is_low();
        let Self { sockets, pool, touched, shared: node, .. } = self;
        let Some(entry) =
            sockets.get_mut(id.index()).and_then(Option::as_mut).filter(|entry| entry.id == id)
        else {
            // The socket was closed in this burst.
            count(&node.tally.rx_queue_full, 1);
            return;
        };
        let shared = &entry.shared;
        match place_for(&mut entry.ends.arrived, info.is_pass_through()) {
            ReceivePlace::Free => {}
            ReceivePlace::QueueFull => {
                count(&shared.tally.rx_queue_full, 1);
                count(&node.tally.rx_queue_full, 1);
                return;
            }
            ReceivePlace::PassThroughFull => {
                count(&shared.tally.pass_through_full, 1);
                count(&node.tally.pass_through_full, 1);
                return;
            }
        }
        // `shared` has one reference, and each message that the program holds has one.
        let held = Arc::strong_count(&shared.hold) - 1 + entry.ends.arrived.waiting();
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
        // There is room, as checked above.
        let _ = entry.ends.arrived.push(Arrived { frame, info });
        if !std::mem::replace(&mut entry.is_touched, true) {
            touched.push(id.index());
        }
    }

    /// Wakes the receivers of the messages of this round.
    pub(super) fn wake_receivers(&mut self) {
        for place in self.touched.drain(..) {
            if let Some(entry) = &mut self.sockets[place] {
                entry.is_touched = false;
                entry.shared.rx_bell.ring();
            }
        }
        self.wake_datagram_receivers();
    }

    /// Takes frames of the sockets whose ready bits are set, and seals and sends them.
    pub(super) fn serve_sockets(&mut self, now: Nanos) -> bool {
        let words = self.ready.len();
        let mut worked = false;
        if !self.starved.is_empty() && self.pool.free(ChunkClass::Train) > 0 {
            for place in self.starved.drain(..) {
                self.ready[place / WORD_BITS] |= 1 << (place % WORD_BITS);
            }
        }
        for n in 0..words {
            let word = (self.next_word + n) % words;
            self.ready[word] |= self.shared.ready.take(word);
            let mut left = self.ready[word];
            while left != 0 {
                if self.is_blocked() {
                    // The next round starts with the word of this socket.
                    self.next_word = word;
                    return worked;
                }
                let bit = left.trailing_zeros() as usize;
                left &= left - 1;
                self.ready[word] &= !(1 << bit);
                worked = true;
                if self.serve_socket(now, word * WORD_BITS + bit) {
                    self.ready[word] |= 1 << bit;
                }
            }
        }
        if words > 0 {
            self.next_word = (self.next_word + 1) % words;
        }
        worked
    }

    /// Serves one socket. Returns whether it has more frames.
    fn serve_socket(&mut self, now: Nanos, place: usize) -> bool {
        let Some(entry) = self.sockets.get_mut(place).and_then(Option::as_mut) else {
            return false;
        };
        let id = entry.id;
        let marking = entry.shared.marking.load(Ordering::Relaxed);
        if marking != entry.marking {
            entry.marking = marking;
            let (class, ecn) = unpack_marking(marking);
            self.endpoint.set_class(id, class);
            self.endpoint.set_ecn(id, ecn);
        }
        if entry.is_untaken && is_set(&entry.shared.is_taken) {
            entry.is_untaken = false;
            self.endpoint.take_accepted(id);
        }
        // Read the flag before taking frames: then frames that were pushed before the drop are
        // visible.
        let is_dropped = is_set(&entry.shared.is_dropped);
        if entry.is_refused {
            // The endpoint reports when the socket is writable; then the driver serves it.
            if is_dropped {
                self.remove_socket(now, place);
            }
            return false;
        }
        let mut has_more = false;
        let mut messages = self.messages.take().unwrap_or_default();
        if let Some(stuck) = entry.stuck.take() {
            messages = stuck;
            has_more = true;
        } else {
            has_more |= entry.ends.filled.pop_burst(&mut messages) == BURST_MAX;
        }
        self.send_messages(now, place, &mut messages);
        self.messages = Some(messages);
        if is_dropped && !has_more {
            self.remove_socket(now, place);
            return false;
        }
        self.supply(place);
        has_more
    }

    /// Adds empty chunks to a socket's ring, and wakes its sender.
    fn supply(&mut self, place: usize) {
        let Some(entry) = self.sockets.get_mut(place).and_then(Option::as_mut) else { return };
        while entry.ends.chunks.has_room(1) && entry.ends.chunks.waiting() < CHUNKS_READY {
            let Some(chunk) = self.pool.take(ChunkClass::Train) else {
                if !self.starved.contains(&place) {
                    self.starved.push(place);
                }
                break;
            };
            let _ = entry.ends.chunks.push(chunk.into_carving());
        }
        entry.shared.tx_bell.ring();
    }

    /// Seals messages of a socket and passes the packets to the port. Keeps messages that the
    /// endpoint refuses for now.
    fn send_messages(&mut self, now: Nanos, place: usize, messages: &mut Burst) {
        while !messages.is_empty() {
            let Some(entry) = self.sockets.get_mut(place).and_then(Option::as_mut) else {
                messages.clear();
                break;
            };
            let (first, len) = (self.packets.len(), messages[0].len());
            let outcome = self.endpoint.send_burst(now, entry.id, messages, &mut self.packets);
            if let Some(packet) = self.packets.get(first) {
                // The first packet shows how long the headers of the present path are.
                let headers = (packet.len() + LINK_HEADER_BYTES).saturating_sub(len + TAG);
                if entry.shared.headers.load(Ordering::Relaxed) != headers {
                    entry.shared.headers.store(headers, Ordering::Relaxed);
                }
            }
            self.make_room_for_links(first);
            self.flush();
            match outcome {
                Ok(()) if messages.is_empty() || !self.packets.is_full() => {}
                // The port is full, and so is `packets`.
                Ok(()) => {
                    self.keep(place, messages, false);
                    break;
                }
                Err(SendRefused::Full) => {
                    self.keep(place, messages, true);
                    break;
                }
                Err(why) => self.refuse(place, messages, &why),
            }
        }
    }

    /// Copies packets from `first` on that have no room for a link header. Their frames were cut
    /// for the shorter headers of a former path, or before the first packet showed the length.
    fn make_room_for_links(&mut self, first: usize) {
        for at in (first..self.packets.len()).rev() {
            if self.packets[at].headroom() >= LINK_HEADER_BYTES {
                continue;
            }
            match Self::roomy_copy(&mut self.pool, &self.packets[at]) {
                Some(roomy) => self.packets[at] = roomy,
                None => {
                    self.packets.remove(at);
                    count(&self.shared.tally.no_memory, 1);
                }
            }
        }
    }

    /// Keeps messages of a socket until it is writable, or until the port has room.
    fn keep(&mut self, place: usize, messages: &mut Burst, is_refused: bool) {
        if let Some(entry) = self.sockets.get_mut(place).and_then(Option::as_mut) {
            entry.stuck = Some(Box::new(std::mem::take(messages)));
            entry.is_refused = is_refused;
            if !is_refused {
                self.ready[place / WORD_BITS] |= 1 << (place % WORD_BITS);
            }
        }
    }

    /// Handles a refusal of the first message. A message without room for headers is copied.
    /// Otherwise the message is dropped, or all messages if no other one can succeed.
    fn refuse(&mut self, place: usize, messages: &mut Burst, why: &SendRefused) {
        if *why == SendRefused::NoRoom
            && let Some(roomy) = Self::roomy_copy(&mut self.pool, &messages[0])
        {
            messages[0] = roomy;
            return;
        }
        let Some(entry) = self.sockets.get_mut(place).and_then(Option::as_mut) else { return };
        let state = match why {
            SendRefused::TooLong { max } => {
                entry.shared.message_max.store(*max, Ordering::Relaxed);
                None
            }
            SendRefused::NoRoom => None,
            SendRefused::NoPath => Some(NO_PATH),
            SendRefused::Unsupported => Some(UNSUPPORTED),
            _ => Some(OPEN),
        };
        let refused = match state {
            None => 1,
            Some(state) => {
                entry.shared.state.store(state, Ordering::Relaxed);
                messages.len()
            }
        };
        messages.drain(..refused);
        count(&entry.shared.tally.tx_refused, refused as u64);
        count(&self.shared.tally.tx_refused, refused as u64);
    }

    pub(super) fn set_message_max(&mut self, id: SocketId, bytes: usize) {
        if let Some(entry) = self.entry(id) {
            entry.shared.message_max.store(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn writable(&mut self, id: SocketId) {
        let place = id.index();
        if let Some(entry) = self.entry(id) {
            let before = entry.shared.state.swap(OPEN, Ordering::Relaxed);
            entry.is_refused = false;
            ring_if(&entry.shared.tx_bell, before != OPEN);
            // Serve the socket's ring again.
            self.ready[place / WORD_BITS] |= 1 << (place % WORD_BITS);
        }
    }

    pub(super) fn unsupported(&mut self, id: SocketId) {
        if let Some(entry) = self.entry(id) {
            entry.shared.state.store(UNSUPPORTED, Ordering::Relaxed);
            entry.shared.tx_bell.ring();
            entry.shared.rx_bell.ring();
        }
    }

    pub(super) fn socket_closed(&mut self, now: Nanos, id: SocketId, reason: CloseReason) {
        self.attempts.retain(|attempt| attempt.socket != id);
        let place = id.index();
        if self.entry(id).is_some()
            && let Some(entry) = self.sockets[place].take()
        {
            self.count_unsent(&entry);
            entry.shared.close(reason);
        }
        self.endpoint.close_socket(now, id);
    }

    /// Closes a socket that the program has dropped.
    fn remove_socket(&mut self, now: Nanos, place: usize) {
        if let Some(entry) = self.sockets.get_mut(place).and_then(Option::take) {
            self.count_unsent(&entry);
            self.endpoint.close_socket(now, entry.id);
        }
    }

    fn count_unsent(&self, entry: &SocketEntry) {
        let unsent = entry.stuck.as_ref().map_or(0, |stuck| stuck.len());
        if unsent > 0 {
            count(&entry.shared.tally.tx_refused, unsent as u64);
            count(&self.shared.tally.tx_refused, unsent as u64);
        }
    }
}

/// Whether a receive queue has a place for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReceivePlace {
    Free,
    QueueFull,
    PassThroughFull,
}

/// Whether a receive queue has a place for a message. Pass-through messages are not authenticated,
/// so they may use only half of the queue and cannot displace sealed messages (wire.md W6-162).
#[inline]
fn place_for<T: Send>(
    queue: &mut strowger_frame::ring::Producer<T>,
    is_pass_through: bool,
) -> ReceivePlace {
    if !queue.has_room(1) {
        ReceivePlace::QueueFull
    } else if is_pass_through && queue.waiting() >= queue.capacity() / 2 {
        ReceivePlace::PassThroughFull
    } else {
        ReceivePlace::Free
    }
}

#[cfg(test)]
mod tests {
    use strowger_frame::ring::ring;

    use super::*;

    /// wire.md: W6-162.
    #[test]
    fn pass_through_messages_have_at_most_half_of_the_places() {
        let (mut queue, mut taken) = ring::<u32>(64);
        for number in 0..100 {
            let place = place_for(&mut queue, true);
            if number < 32 {
                assert_eq!(place, ReceivePlace::Free);
                queue.push(number).expect("room");
            } else {
                assert_eq!(place, ReceivePlace::PassThroughFull);
            }
        }
        for number in 0..32 {
            assert_eq!(place_for(&mut queue, false), ReceivePlace::Free);
            queue.push(number).expect("room");
        }
        assert_eq!(place_for(&mut queue, false), ReceivePlace::QueueFull);
        assert_eq!(place_for(&mut queue, true), ReceivePlace::QueueFull);
        for _ in 0..33 {
            taken.pop().expect("a message");
        }
        assert_eq!(place_for(&mut queue, true), ReceivePlace::Free);
    }
}
