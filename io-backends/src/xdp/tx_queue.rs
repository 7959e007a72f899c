//! Sending by AF_XDP: frames become descriptors, and are held until the kernel says that it has
//! read them. Payload is copied only where the kernel cannot reach it, and then counted.

use std::{sync::Arc, time::Instant};

use strowger_frame::{Burst, Chunk, Frame, Loss, pool::HEADROOM_BYTES, port::PortTally};

use super::{
    ether::Template,
    limits::{
        COMPLETION_RING, HEADER_STRIDE_BYTES, HEADERS, KICKS_IN_VAIN_MAX, PIECES_MAX, SPARE_CHUNKS,
        STALL_MAX, TRAINS_MAX, TX_RING, UMEM_CHUNK_BYTES,
    },
    socket::{Descriptor, Rings, Socket},
};
use crate::pinned::Pinned;

/// Whether frames leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Open,
    /// Nothing has left for too long.
    Stalled,
    /// The interface is down (`ENETDOWN`).
    Down,
    /// The interface is no more (`ENXIO`): never again.
    Gone,
}

/// One descriptor that the kernel has or will have.
struct InFlight {
    addr: u64,
    done: bool,
    /// The header slot that it reads.
    header: Option<u16>,
    /// With the last descriptor of a frame: what the frame lies in, and its length.
    memory: Memory,
    bytes: u16,
}

enum Memory {
    /// None: the frame goes on with the next descriptor.
    None,
    Frame(#[allow(dead_code)] Frame), // kept, not read: dropping it is what counts
    /// One of our own, that a frame was copied into.
    Spare(Chunk),
}

const IDLE: InFlight =
    InFlight { addr: 0, done: false, header: None, memory: Memory::None, bytes: 0 };
const IN_FLIGHT_MAX: usize = (TX_RING + COMPLETION_RING) as usize;
const _: () = assert!(IN_FLIGHT_MAX.is_power_of_two());

/// What `tx_burst` has taken and the kernel has not yet done with.
pub(super) struct TxQueue {
    /// In the order of the transmit ring, from `first` on.
    in_flight: Box<[InFlight]>,
    first: usize,
    next: usize,
    /// The one that the kernel should tell of next: it does so in order, nearly always.
    expected: usize,
    /// The kernel has still to take some of it, as of the last flush.
    pending: bool,
    /// Where headers stand that cannot stand in front of their frame.
    header_chunks: Vec<(usize, Chunk)>,
    free_headers: Vec<u16>,
    spare: Vec<Chunk>,
    /// A frame may lie in several pieces.
    multi_buffer: bool,
    zero_copy: bool,
    /// Frames that the device refused (`EBUSY`) among the next to complete.
    refused: u64,
    /// Frames in flight, the oldest, that are counted as lost already: the interface is gone.
    lost: u64,
    stuck_since: Option<Instant>,
    pub(super) way: Way,
    /// Train chunks that the frames in flight hold.
    pinned: Pinned,
    frames_put: u64,
    frames_done: u64,
    tally: Arc<PortTally>,
}

impl TxQueue {
    /// `header_chunks` lie at the offsets said.
    pub(super) fn new(
        (multi_buffer, zero_copy): (bool, bool),
        header_chunks: Vec<(usize, Chunk)>,
        spare: Vec<Chunk>,
        tally: Arc<PortTally>,
    ) -> Self {
        debug_assert!(spare.len() <= SPARE_CHUNKS);
        Self {
            in_flight: (0..IN_FLIGHT_MAX).map(|_| IDLE).collect(),
            first: 0,
            next: 0,
            expected: 0,
            pending: false,
            header_chunks,
            free_headers: (0..HEADERS as u16).rev().collect(),
            spare,
            multi_buffer,
            zero_copy,
            refused: 0,
            lost: 0,
            stuck_since: None,
            way: Way::Open,
            pinned: Pinned::new(TRAINS_MAX),
            frames_put: 0,
            frames_done: 0,
            tally,
        }
    }

    fn entry(&mut self, at: usize) -> &mut InFlight {
        &mut self.in_flight[at & (IN_FLIGHT_MAX - 1)]
    }

    fn waiting(&self) -> usize {
        self.next.wrapping_sub(self.first)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    /// Whether the kernel has taken all that was put, or will not for some time. It may tell later
    /// that it is done with it: some drivers do so only with the next frame.
    pub(super) fn is_flushed(&self) -> bool {
        !self.pending || self.way != Way::Open
    }

    /// Takes frames from the front of `frames`, as many as there is room for.
    pub(super) fn tx_burst(
        &mut self,
        socket: &Socket,
        rings: &mut Rings,
        template: &Template,
        frames: &mut Burst,
    ) {
        if !matches!(self.way, Way::Open | Way::Gone) {
            // The kernel may have sent what waited by itself (poll(2) has it do so), and then nobody
            // would ever look again.
            self.flush(socket, rings);
        }
        if self.way != Way::Open {
            let loss = if self.way == Way::Gone { Loss::PeerGone } else { Loss::SendRefused };
            self.tally.count_loss(loss, frames.len() as u64);
            frames.clear();
            return;
        }
        let mut taken = self.room(rings, template, frames);
        if taken < frames.len() {
            self.flush(socket, rings);
            taken = self.room(rings, template, frames);
        }
        taken = self.pin(&frames[..taken]);
        self.pending |= taken > 0;
        for frame in frames.drain(..taken) {
            self.put(rings, template, frame);
        }
    }

    /// Counts what frames are about to hold; says how many may go.
    fn pin(&mut self, frames: &[Frame]) -> usize {
        let n = frames.len() as u64;
        let may_go = if self.pinned.are_few(self.frames_put - self.frames_done + n) {
            self.pinned.pass(self.frames_put + n);
            frames.len()
        } else {
            self.pinned.enter(frames, self.frames_put, self.frames_done)
        };
        self.frames_put += may_go as u64;
        may_go
    }

    /// How many from the front of `frames` can be taken now.
    fn room(&self, rings: &mut Rings, template: &Template, frames: &Burst) -> usize {
        let wanted = frames.len() as u32 * PIECES_MAX;
        let places = IN_FLIGHT_MAX - self.waiting();
        let room = (rings.tx.room(wanted) as usize).min(places) / PIECES_MAX as usize;
        let room = room.min(self.free_headers.len()).min(frames.len());
        if self.spare.len() >= room {
            return room;
        }
        let mut spare = self.spare.len();
        let mut may_go = |frame: &&Frame| {
            let copied = self.must_copy(rings, template, frame);
            let may_go = !copied || spare > 0;
            spare -= usize::from(copied && may_go);
            may_go
        };
        frames[..room].iter().take_while(&mut may_go).count()
    }

    /// Whether the kernel cannot reach the frame where it lies.
    fn must_copy(&self, rings: &Rings, template: &Template, frame: &Frame) -> bool {
        let Some(offset) = rings.mapping.offset_of(frame.bytes().as_ptr(), frame.len()) else {
            return true;
        };
        // With its header in front of it, in one piece.
        let whole = frame.headroom() >= template.len()
            && (offset - template.len()) % UMEM_CHUNK_BYTES + template.len() + frame.len()
                <= UMEM_CHUNK_BYTES;
        !self.multi_buffer && !whole
    }

    /// Puts a frame's descriptors. There is room for them.
    #[inline]
    fn put(&mut self, rings: &mut Rings, template: &Template, mut frame: Frame) {
        let (header, len) = (template.len(), frame.len());
        if self.must_copy(rings, template, &frame) {
            return self.put_copy(rings, template, &frame);
        }
        let Some(offset) = rings.mapping.offset_of(frame.bytes().as_ptr(), len) else { return };
        if frame.grow_front(header) {
            template.write(len, frame.bytes_mut());
            return self.put_pieces(rings, None, offset - header, header + len, len, frame);
        }
        let Some(slot) = self.free_headers.pop() else { return };
        let at = usize::from(slot) * HEADER_STRIDE_BYTES;
        let (base, chunk) = &mut self.header_chunks[at / UMEM_CHUNK_BYTES];
        let at = at % UMEM_CHUNK_BYTES;
        template.write(len, &mut chunk.bytes_mut()[at..at + HEADER_STRIDE_BYTES]);
        let header = (slot, *base + at, header);
        self.put_pieces(rings, Some(header), offset, len, len, frame);
    }

    /// The header apart, if it is, and `bytes` from `offset` on, cut where a chunk of the UMEM ends.
    #[inline]
    fn put_pieces(
        &mut self,
        rings: &mut Rings,
        header: Option<(u16, usize, usize)>,
        offset: usize,
        bytes: usize,
        len: usize,
        frame: Frame,
    ) {
        if let Some((number, at, header_bytes)) = header {
            if bytes == 0 {
                let memory = Memory::Frame(frame);
                return self.describe(rings, at, header_bytes, Some(number), memory, len);
            }
            self.describe(rings, at, header_bytes, Some(number), Memory::None, 0);
        }
        let first = bytes.min(UMEM_CHUNK_BYTES - offset % UMEM_CHUNK_BYTES);
        if first < bytes {
            self.describe(rings, offset, first, None, Memory::None, 0);
            let (offset, bytes) = (offset + first, bytes - first);
            return self.describe(rings, offset, bytes, None, Memory::Frame(frame), len);
        }
        self.describe(rings, offset, bytes, None, Memory::Frame(frame), len);
    }

    #[cold]
    fn put_copy(&mut self, rings: &mut Rings, template: &Template, frame: &Frame) {
        let (header, len) = (template.len(), frame.len());
        let Some(mut chunk) = self.spare.pop() else { return };
        let Some(base) = rings.mapping.offset_of(chunk.at().as_ptr(), UMEM_CHUNK_BYTES) else {
            return;
        };
        let room = &mut chunk.bytes_mut()[HEADROOM_BYTES..];
        template.write(len, room);
        room[header..header + len].copy_from_slice(frame.bytes());
        self.tally.frames_copied.add(1);
        let memory = Memory::Spare(chunk);
        self.describe(rings, base + HEADROOM_BYTES, header + len, None, memory, len);
    }

    #[inline]
    fn describe(
        &mut self,
        rings: &mut Rings,
        offset: usize,
        bytes: usize,
        header: Option<u16>,
        memory: Memory,
        frame_bytes: usize,
    ) {
        let addr = offset as u64;
        let options = if matches!(memory, Memory::None) { libc::XDP_PKT_CONTD } else { 0 };
        let put = rings.tx.put(Descriptor { addr, len: bytes as u32, options });
        debug_assert!(put, "`room` has seen that there is some");
        *self.entry(self.next) =
            InFlight { addr, done: false, header, memory, bytes: frame_bytes as u16 };
        self.next = self.next.wrapping_add(1);
    }

    /// Has the kernel take what was put, and takes back what it has done with.
    pub(super) fn flush(&mut self, socket: &Socket, rings: &mut Rings) {
        rings.tx.publish();
        let mut pending = rings.tx.pending();
        let before = pending;
        let mut in_vain = 0;
        let in_vain_max = if self.way == Way::Open { KICKS_IN_VAIN_MAX } else { 1 };
        while pending > 0 && in_vain < in_vain_max && self.way != Way::Gone {
            if !rings.tx.wants_wakeup() {
                break;
            }
            match socket.kick_tx() {
                // In copy mode one packet was dropped by the device; its descriptors complete.
                Err(libc::EBUSY) if !self.zero_copy => self.refused += 1,
                Err(libc::ENETDOWN) => {
                    self.way = Way::Down;
                    break;
                }
                Err(libc::ENXIO | libc::ENODEV) => self.way = Way::Gone,
                // EAGAIN: no room in the device or the socket, or merely not all at once.
                Ok(()) | Err(_) => {}
            }
            // A place in the completion ring may be all that is missing.
            self.reap(rings);
            let now = rings.tx.pending();
            in_vain = if now < pending { 0 } else { in_vain + 1 };
            pending = now;
        }
        self.reap(rings);
        self.pending = pending > 0;
        if self.way == Way::Gone {
            return self.give_up();
        }
        self.judge(pending < before);
    }

    /// Whether nothing has left for too long.
    fn judge(&mut self, moved: bool) {
        if !self.pending || moved {
            self.stuck_since = None;
            self.way = Way::Open;
        } else {
            // The clock is read only when a flush has moved nothing.
            let now = Instant::now();
            let since = *self.stuck_since.get_or_insert(now);
            if self.way == Way::Open && now - since > STALL_MAX {
                self.way = Way::Stalled;
            }
        }
    }

    /// Takes back what the kernel has done with.
    pub(super) fn reap(&mut self, rings: &mut Rings) {
        let mut any = false;
        while let Some(addr) = rings.completion.take() {
            any = true;
            self.complete(addr);
        }
        if any {
            rings.completion.release();
            self.settle();
        }
    }

    /// Marks the descriptor with this address as done.
    #[inline]
    fn complete(&mut self, addr: u64) {
        let at = self.expected;
        if at != self.next && self.entry(at).addr == addr && !self.entry(at).done {
            self.entry(at).done = true;
            self.expected = at.wrapping_add(1);
            return;
        }
        let mut at = self.first;
        while at != self.next {
            let entry = self.entry(at);
            if entry.addr == addr && !entry.done {
                entry.done = true;
                self.expected = at.wrapping_add(1);
                return;
            }
            at = at.wrapping_add(1);
        }
    }

    /// Gives up the memory of frames that are done, in order.
    #[inline]
    fn settle(&mut self) {
        let (mut frames, mut bytes) = (0, 0);
        while self.first != self.next {
            let at = self.first;
            if !self.entry(at).done {
                break;
            }
            let entry = std::mem::replace(self.entry(at), IDLE);
            self.first = at.wrapping_add(1);
            self.free_headers.extend(entry.header);
            match entry.memory {
                Memory::None => continue,
                Memory::Frame(frame) => drop(frame),
                Memory::Spare(chunk) => self.spare.push(chunk),
            }
            self.frames_done += 1;
            if self.lost > 0 {
                self.lost -= 1; // counted when the interface went
            } else if self.refused > 0 {
                self.refused -= 1;
                self.tally.count_loss(Loss::SendRefused, 1);
            } else {
                frames += 1;
                bytes += u64::from(entry.bytes);
            }
        }
        if frames > 0 {
            self.tally.frames_out.add(frames);
            self.tally.bytes_out.add(bytes);
            self.tally.trains_out.add(1);
        }
    }

    /// The interface is gone, or is going: what is in flight counts as lost. Its memory stays here, since
    /// a device may read it until the kernel says that it is done, or the socket is closed: the kernel
    /// tells of the end before it has stopped the device.
    #[cold]
    fn give_up(&mut self) {
        let in_flight = (0..self.waiting()).map(|n| &self.in_flight[self.place(n)].memory);
        let frames = in_flight.filter(|memory| !matches!(memory, Memory::None)).count() as u64;
        self.tally.count_loss(Loss::PeerGone, frames - self.lost);
        self.lost = frames;
        self.pending = false;
        self.stuck_since = None;
    }

    /// Where the n-th of those in flight stands.
    fn place(&self, n: usize) -> usize {
        self.first.wrapping_add(n) & (IN_FLIGHT_MAX - 1)
    }

    /// The interface is gone, as the socket says.
    pub(super) fn lose_the_way(&mut self) {
        self.way = Way::Gone;
        self.give_up();
    }

    /// The port ends: what has not been told of is lost. What the kernel may still be reading is
    /// nobody's from here on, on purpose: `taken` descriptors from the oldest on.
    pub(super) fn abandon(&mut self, pending: usize) {
        let read_by_the_kernel = self.waiting().saturating_sub(pending);
        let mut headers_read = false;
        for n in 0..self.waiting() {
            let entry = std::mem::replace(self.entry(self.first.wrapping_add(n)), IDLE);
            let in_use = !entry.done && (n < read_by_the_kernel || self.zero_copy);
            headers_read |= in_use && entry.header.is_some();
            if !matches!(entry.memory, Memory::None) {
                self.tally.count_loss(Loss::SendRefused, u64::from(self.lost == 0));
                self.lost = self.lost.saturating_sub(1);
            }
            if in_use {
                std::mem::forget(entry.memory);
            }
        }
        self.first = self.next;
        if headers_read {
            std::mem::forget(std::mem::take(&mut self.header_chunks));
        }
    }

    /// Whether the kernel may be reading what it has not yet told of.
    pub(super) fn is_read(&self, pending: usize) -> bool {
        self.waiting() > pending
    }
}

#[cfg(test)]
mod tests {
    use strowger_frame::{ChunkClass, Pool, PoolSpec};

    use super::*;

    fn tx_queue(pool: &mut Pool) -> (TxQueue, Arc<PortTally>) {
        let tally = Arc::new(PortTally::default());
        let chunk = pool.take(ChunkClass::Single).unwrap();
        (TxQueue::new((true, false), vec![(0, chunk)], Vec::new(), tally.clone()), tally)
    }

    fn pool() -> Pool {
        Pool::new(&PoolSpec { trains: 0, singles: 16, huge_pages: false }).unwrap()
    }

    /// As if descriptors with these addresses had been put; those of whole frames with memory.
    fn put(tx_queue: &mut TxQueue, pool: &mut Pool, descriptors: &[(u64, bool)]) {
        for &(addr, ends) in descriptors {
            let memory = match ends {
                true => Memory::Frame(pool.take(ChunkClass::Single).unwrap().into_frame(256, 100)),
                false => Memory::None,
            };
            let header = if ends { None } else { tx_queue.free_headers.pop() };
            *tx_queue.entry(tx_queue.next) =
                InFlight { addr, done: false, header, memory, bytes: 100 };
            tx_queue.next = tx_queue.next.wrapping_add(1);
        }
    }

    fn complete(tx_queue: &mut TxQueue, addresses: &[u64]) {
        addresses.iter().for_each(|addr| tx_queue.complete(*addr));
        tx_queue.settle();
    }

    #[test]
    fn memory_comes_back_in_whatever_order_the_kernel_tells_of_it() {
        let mut pool = pool();
        let (mut tx_queue, tally) = tx_queue(&mut pool);
        tx_queue.first = usize::MAX - 1; // and the count may wrap
        (tx_queue.next, tx_queue.expected) = (tx_queue.first, tx_queue.first);
        put(&mut tx_queue, &mut pool, &[(1, true), (2, false), (3, true), (4, true)]);
        complete(&mut tx_queue, &[3, 4]);
        assert_eq!((tally.frames_out.read(), pool.free(ChunkClass::Single)), (0, 12));
        complete(&mut tx_queue, &[1, 77, 1]); // one that we know nothing of, and one twice
        assert_eq!((tally.frames_out.read(), pool.free(ChunkClass::Single)), (1, 13));
        complete(&mut tx_queue, &[2]);
        assert_eq!((tally.frames_out.read(), pool.free(ChunkClass::Single)), (3, 15));
        assert_eq!((tx_queue.waiting(), tx_queue.free_headers.len()), (0, HEADERS));
        put(&mut tx_queue, &mut pool, &[(4, true), (5, true)]);
        complete(&mut tx_queue, &[4, 5]);
        assert_eq!((tally.frames_out.read(), tally.bytes_out.read()), (5, 500));
    }

    #[test]
    fn what_the_device_refused_is_lost_and_not_sent() {
        let mut pool = pool();
        let (mut tx_queue, tally) = tx_queue(&mut pool);
        put(&mut tx_queue, &mut pool, &[(1, true), (2, true), (3, true)]);
        tx_queue.refused = 2;
        complete(&mut tx_queue, &[1, 2, 3]);
        assert_eq!((tally.frames_out.read(), tally.lost(Loss::SendRefused)), (1, 2));
    }

    #[test]
    fn a_ring_that_stalls_is_known_in_time_and_recovers() {
        let mut pool = pool();
        let (mut tx_queue, _) = tx_queue(&mut pool);
        put(&mut tx_queue, &mut pool, &[(1, true)]);
        tx_queue.pending = true;
        let started = Instant::now();
        while tx_queue.way == Way::Open {
            assert!(!tx_queue.is_flushed() && started.elapsed() < 50 * STALL_MAX);
            tx_queue.judge(false);
        }
        assert!(tx_queue.way == Way::Stalled && started.elapsed() > STALL_MAX);
        assert!(tx_queue.is_flushed(), "nobody need wait for it");
        tx_queue.judge(true);
        assert!(tx_queue.way == Way::Open && tx_queue.stuck_since.is_none());
    }

    #[test]
    fn what_a_device_has_not_done_holds_a_bounded_number_of_train_chunks() {
        let spec = PoolSpec { trains: TRAINS_MAX as u32 + 8, singles: 16, huge_pages: false };
        let mut pool = Pool::new(&spec).unwrap();
        let (mut tx_queue, _) = tx_queue(&mut pool);
        let mut frames: Vec<Frame> = (0..TRAINS_MAX + 8)
            .map(|_| pool.take(ChunkClass::Train).unwrap().into_frame(256, 100))
            .collect();
        assert_eq!(tx_queue.pin(&frames), TRAINS_MAX);
        assert_eq!(tx_queue.pin(&frames[TRAINS_MAX..]), 0);
        tx_queue.frames_done += 3;
        assert_eq!(tx_queue.pin(&frames.split_off(TRAINS_MAX)), 3);
    }

    #[test]
    fn a_device_that_is_going_keeps_what_it_may_read_until_the_kernel_is_done() {
        let mut pool = pool();
        let (mut tx_queue, tally) = tx_queue(&mut pool);
        put(&mut tx_queue, &mut pool, &[(1, true), (2, false), (3, true), (4, true)]);
        complete(&mut tx_queue, &[1]);
        for _ in 0..2 {
            tx_queue.lose_the_way();
            assert_eq!((tally.frames_out.read(), tally.lost(Loss::PeerGone)), (1, 2), "once each");
            assert_eq!(pool.free(ChunkClass::Single), 13, "the device may still read");
        }
        assert!(tx_queue.is_flushed());
        // The kernel says that it is done with one; of the other it never speaks.
        complete(&mut tx_queue, &[2, 3]);
        assert_eq!((tally.frames_out.read(), pool.free(ChunkClass::Single)), (1, 14));
        tx_queue.zero_copy = true;
        tx_queue.abandon(0);
        assert_eq!((pool.free(ChunkClass::Single), tally.total_lost()), (14, 2), "nobody's");
    }

    #[test]
    fn an_end_leaves_to_the_kernel_what_it_may_be_reading() {
        let mut pool = pool();
        let (mut tx_queue, tally) = tx_queue(&mut pool);
        put(&mut tx_queue, &mut pool, &[(1, true), (2, true), (3, true), (4, true)]);
        complete(&mut tx_queue, &[2]);
        // The kernel has taken three, and told of the second; the fourth it has not seen.
        tx_queue.abandon(1);
        assert_eq!(tally.lost(Loss::SendRefused), 4);
        assert_eq!(pool.free(ChunkClass::Single), 13, "two are nobody's; the header's is ours");
    }
}
