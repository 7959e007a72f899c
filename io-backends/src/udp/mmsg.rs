//! Receives with recvmmsg. One call receives several trains, each into a chunk that was prepared
//! for it.
//!
//! The calls do not block. Datagrams for which the pool has no free chunk stay in the socket.

use strowger_frame::{Burst, Chunk, ChunkClass, Pool, reserve::Chunks};

use super::{
    control::{CONTROL_IN_BYTES, ControlRoom, DatagramInfo},
    limits::{CALLS_MAX, DATAGRAM_BYTES_MAX, MESSAGES_IN_MAX, MESSAGES_IN_MIN},
    name::Name,
    neighbours::Neighbours,
    rx_queue::RxQueue,
    socket::{Socket, receive_messages},
};
use crate::sys::messages::empty_header;

/// The arrays of a call and the chunks that it receives into.
pub(super) struct Mmsg {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    names: Vec<Name>,
    controls: Vec<ControlRoom<CONTROL_IN_BYTES>>,
    /// The array is filled from the front. A chunk that a call did not use stays for the next call.
    chunks: Vec<Option<Chunk>>,
    class: ChunkClass,
    /// Bytes of a chunk that a datagram may use.
    room: usize,
    /// Number of messages of the last call, and the number of these that have been handled.
    received: usize,
    next: usize,
    /// Number of messages to request: twice as many as the last call received, within limits, so
    /// that an idle port prepares few.
    wanted: usize,
}

// SAFETY: the pointers in the arrays are written before each call and not read after it.
unsafe impl Send for Mmsg {}

impl Mmsg {
    /// Allocates the arrays. With GRO, each message may be a whole train, so its chunk must hold 64
    /// KiB.
    ///
    /// Without GRO, the chunk must hold the longest datagram that the port accepts.
    pub(super) fn new(gro: bool, frame_bytes_max: usize) -> Self {
        // Every chunk of class `Single` has at least this many bytes after its start offset.
        let single = 3072;
        let (class, room) = if gro || frame_bytes_max > single {
            (ChunkClass::Train, if gro { 64 << 10 } else { frame_bytes_max })
        } else {
            (ChunkClass::Single, frame_bytes_max)
        };
        let n = MESSAGES_IN_MAX;
        Self {
            headers: vec![empty_header(); n],
            vectors: vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; n],
            names: vec![Name::default(); n],
            controls: vec![ControlRoom::EMPTY; n],
            chunks: (0..n).map(|_| None).collect(),
            class,
            room: room.min(64 << 10),
            received: 0,
            next: 0,
            wanted: MESSAGES_IN_MIN,
        }
    }

    /// Maximum number of chunks that are held for receiving.
    pub(super) fn chunks_max(&self) -> Chunks {
        let n = MESSAGES_IN_MAX as u32;
        match self.class {
            ChunkClass::Train => Chunks { trains: n, singles: 0 },
            ChunkClass::Single => Chunks { trains: 0, singles: n },
        }
    }

    /// Whether received messages are waiting to be handled.
    pub(super) fn is_waiting(&self) -> bool {
        self.next < self.received
    }

    pub(super) fn rx_burst(
        &mut self,
        socket: &Socket,
        neighbours: &mut Neighbours,
        rx_queue: &mut RxQueue,
        pool: &mut Pool,
        burst: &mut Burst,
    ) {
        let mut calls = 0;
        while rx_queue.cut(burst) {
            if !self.is_waiting() {
                // The loop is bounded: a flood from unknown senders does not fill the burst.
                if calls == CALLS_MAX || !self.receive(socket, rx_queue, pool) {
                    return;
                }
                // After fewer messages than `wanted`, the socket or the pool is empty, and a second
                // call is of no use.
                calls = if self.received < self.wanted { CALLS_MAX } else { calls + 1 };
                self.wanted = (2 * self.received).clamp(MESSAGES_IN_MIN, MESSAGES_IN_MAX);
            }
            let at = self.next;
            self.next += 1;
            let Some(chunk) = self.chunks[at].take() else { continue };
            let header = &self.headers[at];
            let name = self.names[at].bytes(header.msg_hdr.msg_namelen as usize);
            let control = &self.controls[at].0;
            let control = &control[..header.msg_hdr.msg_controllen.min(control.len())];
            let bytes = header.msg_len as usize;
            let info = DatagramInfo::read(bytes, header.msg_hdr.msg_flags, name, control);
            let start = chunk.start();
            rx_queue.take(neighbours, chunk, start, &info, burst);
        }
    }

    /// Makes one call. Returns `false` if nothing was received.
    fn receive(&mut self, socket: &Socket, rx_queue: &RxQueue, pool: &mut Pool) -> bool {
        (self.received, self.next) = (0, 0);
        let ready = self.prepare(pool);
        if ready == 0 {
            rx_queue.note_pool_empty();
            return false;
        }
        // SAFETY: `prepare` has pointed the first `ready` headers to a name, a control room and one
        // vector over a chunk that only we can access, each with its length.
        let received = unsafe { receive_messages(socket, &mut self.headers[..ready]) };
        // If the call failed, the next burst tries again. The error is EAGAIN, or one that an
        // earlier send caused.
        self.received = received.unwrap_or(0);
        self.received > 0
    }

    /// Prepares up to `wanted` headers, and returns their number.
    fn prepare(&mut self, pool: &mut Pool) -> usize {
        let names = self.names.as_mut_ptr();
        let controls = self.controls.as_mut_ptr();
        let vectors = self.vectors.as_mut_ptr();
        for at in 0..self.wanted {
            if self.chunks[at].is_none() {
                self.chunks[at] = pool.take(self.class);
            }
            let Some(chunk) = &self.chunks[at] else { return at };
            let base = chunk.at().as_ptr().wrapping_add(chunk.start());
            let vector = vectors.wrapping_add(at);
            // SAFETY: `at` is below the arrays' common length.
            unsafe { vector.write(libc::iovec { iov_base: base.cast(), iov_len: self.room }) };
            let header = &mut self.headers[at];
            header.msg_len = 0;
            header.msg_hdr.msg_name = names.wrapping_add(at).cast();
            header.msg_hdr.msg_namelen = Name::ROOM as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = controls.wrapping_add(at).cast();
            header.msg_hdr.msg_controllen = CONTROL_IN_BYTES as _;
            header.msg_hdr.msg_flags = 0;
        }
        self.wanted
    }
}

const _: () = assert!(DATAGRAM_BYTES_MAX <= 64 << 10);
