//! Sends over AF_XDP.
//!
//! Frames become descriptors, and are held until the kernel reports that it has read them. Payload
//! is copied only if the kernel cannot access it. Such copies are counted.

use std::{sync::Arc, time::Instant};

use strowger_frame::{Burst, Chunk, Frame, Loss, pool::HEADROOM_BYTES, port::PortTally};

use super::{
    ether::Template,
    limits::{
        COMPLETION_RING, DESCRIPTORS_PER_FRAME_MAX, HEADER_STRIDE_BYTES, HEADERS, IDLE_KICKS_MAX,
        SPARE_CHUNKS, STALL_MAX, TRAINS_MAX, TX_RING, UMEM_CHUNK_BYTES,
    },
    socket::{Descriptor, Rings, Socket},
};
use crate::pinned::Pinned;

/// State of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceState {
    Open,
    /// The device has sent nothing for too long.
    Stalled,
    /// The interface is down (`ENETDOWN`).
    Down,
    /// The interface no longer exists (`ENXIO`). This state is final.
    Gone,
}

/// A descriptor in the transmit ring or in the kernel.
struct InFlight {
    addr: u64,
    done: bool,
    /// The header slot to which the descriptor points; `None` if it points to no header slot.
    header: Option<u16>,
    /// In the last descriptor of a frame, the memory of the frame and the frame's length.
    memory: Memory,
    bytes: u16,
}

enum Memory {
    /// No memory, because the frame continues in the next descriptor.
    None,
    Frame(#[allow(dead_code)] Frame), // kept for its drop, not read
    /// A chunk of the port into which a frame was copied.
    Spare(Chunk),
}

const IDLE: InFlight =
    InFlight { addr: 0, done: false, header: None, memory: Memory::None, bytes: 0 };
const IN_FLIGHT_MAX: usize = (TX_RING + COMPLETION_RING) as usize;
const _: () = assert!(IN_FLIGHT_MAX.is_power_of_two());

/// Frames that `tx_burst` has accepted and the kernel has not yet completed.
pub(super) struct TxQueue {
    /// Descriptors in the order of the transmit ring, beginning at `first`.
    in_flight: Box<[InFlight]>,
    first: usize,
    next: usize,
    /// The descriptor that should complete next, because completions nearly always arrive in order.
    expected: usize,
    /// Whether descriptors that the kernel has not taken were left after the last flush.
    pending: bool,
    /// Chunks for headers that have no room in front of their frame, each with its offset in the
    /// UMEM.
    header_chunks: Vec<(usize, Chunk)>,
    free_headers: Vec<u16>,
    spare: Vec<Chunk>,
    /// Whether a frame may have several descriptors.
    multi_buffer: bool,
    zero_copy: bool,
    /// Number of frames that the device refused (`EBUSY`). This many of the next completed frames
    /// count as lost.
    refused: u64,
    /// Number of frames in flight, from the oldest on, that already count as lost because the
    /// interface is gone.
    lost: u64,
    stalled_since: Option<Instant>,
    pub(super) device: DeviceState,
    /// The train chunks that the frames in flight hold.
    pinned: Pinned,
    frames_put: u64,
    frames_done: u64,
    tally: Arc<PortTally>,
}

impl TxQueue {
    /// Makes an empty queue. Each of `header_chunks` has its offset in the UMEM.
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
            stalled_since: None,
            device: DeviceState::Open,
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

    /// Whether the kernel has taken all descriptors, or takes none because of the device state.
    ///
    /// The kernel may complete them later. Some drivers do that only when the next frame is sent.
    pub(super) fn is_flushed(&self) -> bool {
        !self.pending || self.device != DeviceState::Open
    }

    /// Takes frames from the front of `frames` while there is room. Drops all frames if the device
    /// is not open.
    pub(super) fn tx_burst(
        &mut self,
        socket: &Socket,
        rings: &mut Rings,
        template: &Template,
        frames: &mut Burst,
    ) {
        if !matches!(self.device, DeviceState::Open | DeviceState::Gone) {
            // The kernel may have sent the waiting descriptors without a call of this port (poll(2)
            // can cause that), and then no other code would check.
            self.flush(socket, rings);
        }
        if self.device != DeviceState::Open {
            let loss =
                if self.device == DeviceState::Gone { Loss::PeerGone } else { Loss::SendRefused };
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

    /// Counts the train chunks of frames that are to be sent. Returns the number of frames that may
    /// be taken.
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

    /// Returns the number of frames from the front of `frames` that can be taken now.
    fn room(&self, rings: &mut Rings, template: &Template, frames: &Burst) -> usize {
        let wanted = frames.len() as u32 * DESCRIPTORS_PER_FRAME_MAX;
        let places = IN_FLIGHT_MAX - self.waiting();
        let room =
            (rings.tx.room(wanted) as usize).min(places) / DESCRIPTORS_PER_FRAME_MAX as usize;
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

    /// Whether the frame must be copied, because the kernel cannot read it in place.
    fn must_copy(&self, rings: &Rings, template: &Template, frame: &Frame) -> bool {
        let Some(offset) = rings.mapping.offset_of(frame.bytes().as_ptr(), frame.len()) else {
            return true;
        };
        // The frame with its header in front of it must be inside one chunk of the UMEM.
        let whole = frame.headroom() >= template.len()
            && (offset - template.len()) % UMEM_CHUNK_BYTES + template.len() + frame.len()
                <= UMEM_CHUNK_BYTES;
        !self.multi_buffer && !whole
    }

    /// Appends the descriptors of a frame. The ring must have room for them.
    #[inline]
    fn put(&mut self, rings: &mut Rings, template: &Template, mut frame: Frame) {
        let (header, len) = (template.len(), frame.len());
        if self.must_copy(rings, template, &frame) {
            return self.put_copy(rings, template, &frame);
        }
        let Some(offset) = rings.mapping.offset_of(frame.bytes().as_ptr(), len) else { return };
        if frame.grow_front(header) {
            template.write(len, frame.bytes_mut());
            return self.put_parts(rings, None, offset - header, header + len, len, frame);
        }
        let Some(slot) = self.free_headers.pop() else { return };
        let at = usize::from(slot) * HEADER_STRIDE_BYTES;
        let (base, chunk) = &mut self.header_chunks[at / UMEM_CHUNK_BYTES];
        let at = at % UMEM_CHUNK_BYTES;
        template.write(len, &mut chunk.bytes_mut()[at..at + HEADER_STRIDE_BYTES]);
        let header = (slot, *base + at, header);
        self.put_parts(rings, Some(header), offset, len, len, frame);
    }

    /// Appends descriptors for the header, if it is separate, and for `bytes` beginning at
    /// `offset`. The bytes are split where a chunk of the UMEM ends.
    #[inline]
    fn put_parts(
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
        debug_assert!(put, "the caller checks `room` first");
        *self.entry(self.next) =
            InFlight { addr, done: false, header, memory, bytes: frame_bytes as u16 };
        self.next = self.next.wrapping_add(1);
    }

    /// Makes the kernel send the descriptors, and takes back those that it has completed.
    pub(super) fn flush(&mut self, socket: &Socket, rings: &mut Rings) {
        rings.tx.publish();
        let mut pending = rings.tx.pending();
        let before = pending;
        let mut idle_kicks = 0;
        let idle_kicks_max = if self.device == DeviceState::Open { IDLE_KICKS_MAX } else { 1 };
        while pending > 0 && idle_kicks < idle_kicks_max && self.device != DeviceState::Gone {
            if !rings.tx.wants_wakeup() {
                break;
            }
            match socket.kick_tx() {
                // In copy mode the device has dropped one packet, but the packet's descriptors
                // complete.
                Err(libc::EBUSY) if !self.zero_copy => self.refused += 1,
                Err(libc::ENETDOWN) => {
                    self.device = DeviceState::Down;
                    break;
                }
                Err(libc::ENXIO | libc::ENODEV) => self.device = DeviceState::Gone,
                // EAGAIN means that the device or the socket has no room, or that only a part was
                // sent.
                Ok(()) | Err(_) => {}
            }
            // While the completion ring is full, the kernel takes no descriptors.
            self.reap(rings);
            let now = rings.tx.pending();
            idle_kicks = if now < pending { 0 } else { idle_kicks + 1 };
            pending = now;
        }
        self.reap(rings);
        self.pending = pending > 0;
        if self.device == DeviceState::Gone {
            return self.give_up();
        }
        self.check_stall(pending < before);
    }

    /// Checks whether the device has sent nothing for too long.
    fn check_stall(&mut self, moved: bool) {
        if !self.pending || moved {
            self.stalled_since = None;
            self.device = DeviceState::Open;
        } else {
            // The clock is read only after a flush without progress.
            let now = Instant::now();
            let since = *self.stalled_since.get_or_insert(now);
            if self.device == DeviceState::Open && now - since > STALL_MAX {
                self.device = DeviceState::Stalled;
            }
        }
    }

    /// Releases the frames of completed descriptors.
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

    /// Releases completed frames, in order.
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
                self.lost -= 1; // counted when the interface went away
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

    /// Counts the frames in flight as lost, because the interface is gone.
    ///
    /// Their memory is kept until the kernel completes them or the socket is closed, because the
    /// kernel may report the end of the interface before it has stopped the device.
    #[cold]
    fn give_up(&mut self) {
        let in_flight = (0..self.waiting()).map(|n| &self.in_flight[self.place(n)].memory);
        let frames = in_flight.filter(|memory| !matches!(memory, Memory::None)).count() as u64;
        self.tally.count_loss(Loss::PeerGone, frames - self.lost);
        self.lost = frames;
        self.pending = false;
        self.stalled_since = None;
    }

    /// Index of the n-th descriptor in flight.
    fn place(&self, n: usize) -> usize {
        self.first.wrapping_add(n) & (IN_FLIGHT_MAX - 1)
    }

    /// Records that the interface is gone, as the socket has reported.
    pub(super) fn set_gone(&mut self) {
        self.device = DeviceState::Gone;
        self.give_up();
    }

    /// Ends the port. All frames in flight count as lost, if they do not already.
    ///
    /// The kernel has not taken the last `pending` descriptors. Memory that the kernel may still
    /// read is leaked on purpose.
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

    /// Whether the kernel may be reading descriptors that it has not completed.
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

    /// Appends descriptors with these addresses. The last descriptor of each frame has memory.
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
    fn memory_comes_back_in_any_order_of_completions() {
        let mut pool = pool();
        let (mut tx_queue, tally) = tx_queue(&mut pool);
        tx_queue.first = usize::MAX - 1; // and the count may wrap
        (tx_queue.next, tx_queue.expected) = (tx_queue.first, tx_queue.first);
        put(&mut tx_queue, &mut pool, &[(1, true), (2, false), (3, true), (4, true)]);
        complete(&mut tx_queue, &[3, 4]);
        assert_eq!((tally.frames_out.read(), pool.free(ChunkClass::Single)), (0, 12));
        complete(&mut tx_queue, &[1, 77, 1]); // an unknown address, and one twice
        assert_eq!((tally.frames_out.read(), pool.free(ChunkClass::Single)), (1, 13));
        complete(&mut tx_queue, &[2]);
        assert_eq!((tally.frames_out.read(), pool.free(ChunkClass::Single)), (3, 15));
        assert_eq!((tx_queue.waiting(), tx_queue.free_headers.len()), (0, HEADERS));
        put(&mut tx_queue, &mut pool, &[(4, true), (5, true)]);
        complete(&mut tx_queue, &[4, 5]);
        assert_eq!((tally.frames_out.read(), tally.bytes_out.read()), (5, 500));
    }

    #[test]
    fn frames_that_the_device_refused_count_as_lost() {
        let mut pool = pool();
        let (mut tx_queue, tally) = tx_queue(&mut pool);
        put(&mut tx_queue, &mut pool, &[(1, true), (2, true), (3, true)]);
        tx_queue.refused = 2;
        complete(&mut tx_queue, &[1, 2, 3]);
        assert_eq!((tally.frames_out.read(), tally.lost(Loss::SendRefused)), (1, 2));
    }

    #[test]
    fn a_stall_is_found_in_time_and_ends() {
        let mut pool = pool();
        let (mut tx_queue, _) = tx_queue(&mut pool);
        put(&mut tx_queue, &mut pool, &[(1, true)]);
        tx_queue.pending = true;
        let started = Instant::now();
        while tx_queue.device == DeviceState::Open {
            assert!(!tx_queue.is_flushed() && started.elapsed() < 50 * STALL_MAX);
            tx_queue.check_stall(false);
        }
        assert!(tx_queue.device == DeviceState::Stalled && started.elapsed() > STALL_MAX);
        assert!(tx_queue.is_flushed(), "the caller does not wait for it");
        tx_queue.check_stall(true);
        assert!(tx_queue.device == DeviceState::Open && tx_queue.stalled_since.is_none());
    }

    #[test]
    fn a_device_that_does_not_send_holds_a_bounded_number_of_train_chunks() {
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
    fn frames_of_a_device_that_is_going_stay_until_the_kernel_completes_them() {
        let mut pool = pool();
        let (mut tx_queue, tally) = tx_queue(&mut pool);
        put(&mut tx_queue, &mut pool, &[(1, true), (2, false), (3, true), (4, true)]);
        complete(&mut tx_queue, &[1]);
        for _ in 0..2 {
            tx_queue.set_gone();
            assert_eq!((tally.frames_out.read(), tally.lost(Loss::PeerGone)), (1, 2), "once each");
            assert_eq!(pool.free(ChunkClass::Single), 13, "the device may still read");
        }
        assert!(tx_queue.is_flushed());
        // The kernel completes one of the two lost frames; the other stays in flight.
        complete(&mut tx_queue, &[2, 3]);
        assert_eq!((tally.frames_out.read(), pool.free(ChunkClass::Single)), (1, 14));
        tx_queue.zero_copy = true;
        tx_queue.abandon(0);
        assert_eq!((pool.free(ChunkClass::Single), tally.total_lost()), (14, 2), "leaked");
    }

    #[test]
    fn a_port_that_ends_leaves_the_kernel_the_memory_that_it_may_read() {
        let mut pool = pool();
        let (mut tx_queue, tally) = tx_queue(&mut pool);
        put(&mut tx_queue, &mut pool, &[(1, true), (2, true), (3, true), (4, true)]);
        complete(&mut tx_queue, &[2]);
        // The kernel has taken three frames and completed the second; it has not seen the fourth.
        tx_queue.abandon(1);
        assert_eq!(tally.lost(Loss::SendRefused), 4);
        assert_eq!(pool.free(ChunkClass::Single), 13, "two are leaked, and one holds headers");
    }
}
