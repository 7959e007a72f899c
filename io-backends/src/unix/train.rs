//! The second form of messages: several packets in one message, received into one chunk and sent
//! from the frames of a burst.

use std::os::fd::{AsRawFd as _, OwnedFd};

use arrayvec::ArrayVec;
use strowger_frame::{
    BURST_MAX, Burst, Chunk, ChunkClass, Frame, Loss, Mark, Pool, port::KernelDrop,
};

use super::{
    UnixPort,
    limits::{TRAIN_BYTES_MAX, TRAIN_PACKETS_MAX, TRAINS_RECEIVED_MAX},
    message,
    message::{HELLO, TRAIN_HEADER_BYTES, ToSwitch, train_header},
    socket,
};
use crate::sys::messages::Calls;

/// Numbers of frames and of messages that the kernel accepted.
pub(super) struct Sent {
    pub(super) frames: usize,
    pub(super) messages: usize,
}

impl UnixPort {
    /// Answers a request for the second form. If the socket has no room, the client gets no answer
    /// and may ask again.
    #[cold]
    pub(super) fn greet(&mut self) {
        let (Some(facts), Some(client)) = (&self.facts, &self.client) else { return };
        let greeting = facts.greeting(self.spec.frame_bytes_max).emit();
        if socket::send(client, &greeting).is_ok() && !self.is_greeted {
            self.is_greeted = true;
            // The kernel refuses a message that is longer than the send buffer, even if the buffer
            // is empty. A quarter leaves room for several trains.
            let buffer = socket::send_buffer_bytes(client).unwrap_or(0);
            self.train_bytes_max = TRAIN_BYTES_MAX.min(buffer / 4);
        }
    }

    /// Cuts received trains into frames until the burst is full.
    pub(super) fn cut_trains(&mut self, burst: &mut Burst) {
        let (mut frames, mut bytes) = (0, 0);
        while let Some(train) = self.trains.first_mut() {
            while !burst.is_full()
                && let Some(frame) = train.next_frame()
            {
                frames += 1;
                bytes += frame.len() as u64;
                burst.push(frame);
            }
            if train.remaining() > 0 {
                break;
            }
            self.trains.remove(0);
        }
        self.tally.frames_in.add(frames);
        self.tally.bytes_in.add(bytes);
    }

    /// Drops received trains, and counts their packets.
    pub(super) fn drop_trains(&mut self) {
        for mut train in self.trains.drain(..) {
            let n = std::iter::from_fn(|| train.next_frame()).count() as u64;
            self.tally.frames_in.add(n);
            self.tally.count_loss(Loss::UnknownSender, n);
        }
    }

    /// Receives messages of a greeted client with one call. Returns the number of messages.
    ///
    /// No train waits when this is called.
    pub(super) fn receive_trains(&mut self, pool: &mut Pool, burst: &mut Burst) -> usize {
        while self.train_chunks.len() < TRAINS_RECEIVED_MAX
            && let Some(chunk) = pool.take(ChunkClass::Train)
        {
            self.train_chunks.push(chunk);
        }
        if self.train_chunks.is_empty() {
            self.tally.kernel_drops.add(KernelDrop::PoolEmpty, 1);
        }
        let Some(client) = self.client.as_ref().filter(|_| !self.train_chunks.is_empty()) else {
            return 0;
        };
        let mut parts = ArrayVec::<libc::iovec, TRAINS_RECEIVED_MAX>::new();
        for chunk in &mut self.train_chunks {
            // The header goes into the headroom, so that the packets begin at the usual offset.
            let start = chunk.start() - TRAIN_HEADER_BYTES;
            let room = &mut chunk.bytes_mut()[start..][..TRAIN_HEADER_BYTES + TRAIN_BYTES_MAX];
            parts.push(libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() });
        }
        let mut messages = ArrayVec::<libc::mmsghdr, TRAINS_RECEIVED_MAX>::new();
        messages.extend(parts.iter_mut().map(|part| super::message_of(part, 1)));
        // SAFETY: each message points to one part, and each part to a chunk that we own; all
        // outlive the call.
        let got = match unsafe { self.calls.receive(client.as_raw_fd(), &mut messages) } {
            Ok(got) => got,
            // The kernel reports a reset once, before it returns the messages that arrived earlier.
            Err(libc::EAGAIN | libc::EINTR | libc::ECONNRESET) => return 0,
            Err(_) => {
                self.hang_up();
                return 0;
            }
        };
        let got = &messages[..got];
        // An empty message looks like the end of the connection.
        if got.iter().all(|message| message.msg_len == 0) && socket::has_hung_up(client) {
            self.hang_up();
            return 0;
        }
        let chunks: ArrayVec<Chunk, TRAINS_RECEIVED_MAX> =
            self.train_chunks.drain(..got.len()).collect();
        for (chunk, message) in chunks.into_iter().zip(got) {
            self.tally.trains_in.add(1);
            if let Some(chunk) = self.sort_train(chunk, message) {
                // Insert at the front, because the chunk is still in the cache.
                self.train_chunks.insert(0, chunk);
            }
        }
        self.cut_trains(burst);
        got.len()
    }

    /// Handles a message that was received into `chunk`. Its header begins 8 bytes before the
    /// chunk's start offset. Returns the chunk if the message has no packets.
    fn sort_train(&mut self, mut chunk: Chunk, message: &libc::mmsghdr) -> Option<Chunk> {
        let start = chunk.start() - TRAIN_HEADER_BYTES;
        let len = message.msg_len as usize;
        let head = &chunk.bytes_mut()[start..start + len.min(HELLO.len())];
        let parsed = if message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            Err(Loss::Truncated)
        } else {
            ToSwitch::parse(head, len, true, self.spec.frame_bytes_max)
        };
        let (at, segment, len) = match parsed {
            Ok(ToSwitch::Hello) => {
                self.greet();
                return Some(chunk);
            }
            // A train of no bytes would have no frame.
            Ok(ToSwitch::Packet { len: 0 }) => return self.lose(chunk, Loss::Malformed, 1),
            Ok(ToSwitch::Packet { len }) => (start + message::HEADER_BYTES, len, len),
            Ok(ToSwitch::Train { segment, len }) => (start + TRAIN_HEADER_BYTES, segment, len),
            Err(loss) => return self.lose(chunk, loss, 1),
        };
        let Some(mark) = self.mark else {
            return self.lose(chunk, Loss::UnknownSender, len.div_ceil(segment) as u64);
        };
        self.trains.push(chunk.into_train(at, len, segment).with_mark(mark));
        None
    }

    fn lose(&self, chunk: Chunk, loss: Loss, n: u64) -> Option<Chunk> {
        self.tally.frames_in.add(n);
        self.tally.count_loss(loss, n);
        Some(chunk)
    }

    /// Sends frames in order, as trains, with one `sendmmsg` if the process may use it. Returns what
    /// the kernel accepted, or the errno.
    pub(super) fn send_trains(
        calls: Calls,
        client: &OwnedFd,
        frames: &[Frame],
        train_bytes_max: usize,
    ) -> Result<Sent, i32> {
        let mut trains = ArrayVec::<&[Frame], BURST_MAX>::new();
        let mut headers = ArrayVec::<[u8; TRAIN_HEADER_BYTES], BURST_MAX>::new();
        let mut rest = frames;
        while let Some(first) = rest.first() {
            let (train, others) = rest.split_at(train_frames(rest, train_bytes_max));
            let Mark(ingress) = first.mark();
            headers.push(train_header(ingress.to_be_bytes(), first.len()));
            trains.push(train);
            rest = others;
        }
        let mut parts = ArrayVec::<libc::iovec, { 2 * BURST_MAX }>::new();
        let mut counts = ArrayVec::<usize, BURST_MAX>::new();
        for (header, train) in headers.iter_mut().zip(&trains) {
            let before = parts.len();
            let at = header.as_mut_ptr().cast();
            parts.push(libc::iovec { iov_base: at, iov_len: TRAIN_HEADER_BYTES });
            let mut last: Option<&Frame> = None;
            for frame in *train {
                // Frames that lie side by side need one part.
                match parts.last_mut().filter(|_| last.is_some_and(|last| last.adjoins(frame))) {
                    Some(part) => part.iov_len += frame.len(),
                    None => {
                        // The kernel only reads through this pointer, although the type allows
                        // writes.
                        let at = frame.bytes().as_ptr().cast_mut().cast();
                        parts.push(libc::iovec { iov_base: at, iov_len: frame.len() });
                    }
                }
                last = Some(frame);
            }
            counts.push(parts.len() - before);
        }
        let mut messages = ArrayVec::<libc::mmsghdr, BURST_MAX>::new();
        let mut rest = parts.as_mut_slice();
        for count in counts {
            let (of_train, others) = rest.split_at_mut(count);
            messages.push(super::message_of(of_train.as_mut_ptr(), count));
            rest = others;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: each message points to its parts, a header and the bytes of frames; all are
        // readable and outlive the call.
        let messages = unsafe { calls.send(client.as_raw_fd(), &mut messages, flags) }?;
        let frames = trains[..messages].iter().map(|train| train.len()).sum();
        Ok(Sent { frames, messages })
    }
}

/// The number of frames at the front of `frames` that fit into one message: of one ingress slot,
/// of one length except the last one, which may be shorter.
fn train_frames(frames: &[Frame], train_bytes_max: usize) -> usize {
    let Some(first) = frames.first() else { return 0 };
    let (mut n, mut bytes) = (1, first.len());
    for frame in &frames[1..] {
        bytes += frame.len();
        let fits = n < TRAIN_PACKETS_MAX && bytes <= train_bytes_max;
        let is_alike = frame.mark() == first.mark() && (1..=first.len()).contains(&frame.len());
        if !fits || !is_alike {
            break;
        }
        n += 1;
        if frame.len() < first.len() {
            break;
        }
    }
    n
}
