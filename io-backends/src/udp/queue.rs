//! A queue of messages for one socket.
//!
//! Frames to one neighbour are joined into messages with `UDP_SEGMENT`, and sendmmsg sends the
//! messages. Payload is not copied, and each frame is counted.

use std::sync::Arc;

use strowger_frame::{Frame, HeldFrames, Loss, Mark, port::PortTally};

use super::{
    control::{
        CONTROL_MESSAGE_BYTES, CONTROL_OUT_BYTES, ControlRoom, Source, segment_message,
        write_source,
    },
    limits::{
        DATAGRAM_BYTES_MAX, FRAMES_WAITING_MAX, MESSAGES_MAX, PIECES_MAX, TRAINS_AGAIN_BURSTS,
    },
    name::Name,
    neighbours::{Neighbour, Neighbours},
    socket::{Socket, send_messages},
};
use crate::sys::messages::empty_header;

const _: () = assert!(MESSAGES_MAX == FRAMES_WAITING_MAX, "see `Queue::room`");

/// Distance between the first vectors of consecutive messages.
///
/// It is a few vectors more than a message may have, so that the first vectors of the messages use
/// different sets of the first-level cache.
const PIECES_STRIDE: usize = PIECES_MAX + 4;

/// Frames to one neighbour that are sent in one message. Each has `segment` bytes; only the last
/// one may be shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    name: Name,
    mark: Mark,
    source: Option<Source>,
    segment: u32,
    frames: u32,
    bytes: u32,
    pieces: u32,
    /// Address at which a frame must begin to extend the last piece.
    end: *const u8,
    /// Whether a shorter frame has ended the train.
    ended: bool,
}

/// Messages of one socket that are waiting to be sent, and the chunks of their frames.
pub(super) struct Queue {
    /// Messages in order. Those before `first` have been sent or dropped.
    pub(super) messages: Vec<Message>,
    first: usize,
    /// Number of frames of `messages[first]` that were sent or dropped one by one, after the kernel
    /// had refused the message with `refusal`.
    gone: u32,
    refusal: i32,
    vectors: Vec<libc::iovec>,
    /// The chunks of all frames in `messages`, and for each the index of its message.
    ///
    /// All are released when no message waits any more. If the socket is full, only those of sent
    /// or dropped messages are released.
    held: Vec<HeldFrames>,
    held_for: Vec<u16>,
    frames: usize,
    /// See `take_cost`.
    cost: usize,
    /// Headers, which each flush builds from `messages`. Their pointers are not used after the
    /// flush.
    headers: Vec<libc::mmsghdr>,
    controls: Vec<ControlRoom<CONTROL_OUT_BYTES>>,
    tally: Arc<PortTally>,
}

// SAFETY: the pointers in `messages` and `vectors` point into chunks that `held` owns. Those in
// `headers` are written before each use.
unsafe impl Send for Queue {}

/// Result of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// All messages were sent.
    All,
    /// The socket is full.
    Full,
}

/// Approximate cost of a message in the send buffer, apart from its bytes.
const MESSAGE_COST_BYTES: usize = 1024;

/// Result of sending the frames of a message one by one.
enum Single {
    Done,
    Blocked,
}

/// Whether the error means that the socket, the device or the kernel has no room at present.
pub(super) fn is_full(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM)
}

/// Whether the error may concern an earlier datagram: the kernel can report it in a later call.
fn is_earlier_error(errno: i32) -> bool {
    matches!(errno, libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EPROTO)
}

/// Whether the error may mean that the source address is not local.
fn is_source_error(errno: i32) -> bool {
    matches!(errno, libc::EINVAL | libc::ENETUNREACH | libc::EADDRNOTAVAIL)
}

pub(super) fn loss_of(errno: i32) -> Loss {
    if errno == libc::EMSGSIZE { Loss::PathTooNarrow } else { Loss::SendRefused }
}

impl Queue {
    pub(super) fn new(messages_max: usize, frames_max: usize, tally: Arc<PortTally>) -> Self {
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            messages: Vec::with_capacity(messages_max),
            first: 0,
            gone: 0,
            refusal: 0,
            vectors: vec![vector; messages_max * PIECES_STRIDE],
            held: Vec::with_capacity(frames_max),
            held_for: Vec::with_capacity(frames_max),
            frames: 0,
            cost: 0,
            headers: vec![empty_header(); messages_max],
            controls: vec![ControlRoom::EMPTY; messages_max],
            tally,
        }
    }

    /// Number of frames that the queue can accept, whatever their lengths and destinations.
    #[inline]
    pub(super) fn room(&self) -> usize {
        // Uses the length of `headers`, because the capacity of a vector can be larger than
        // requested.
        let messages = self.headers.len() - self.messages.len();
        messages.min(self.headers.len() - self.frames)
    }

    pub(super) fn frames_waiting(&self) -> u32 {
        let waiting = self.messages.iter().skip(self.first);
        waiting.map(|message| message.frames).sum::<u32>() - self.gone
    }

    /// Whether frames to this neighbour are waiting.
    pub(super) fn has(&self, to: Mark) -> bool {
        self.messages.iter().skip(self.first).any(|message| message.mark == to)
    }

    /// Adds frames to a neighbour. The queue must have room for them.
    ///
    /// Frames that fit join the message `open`. The others begin new messages. Returns the index of
    /// the last message.
    #[inline]
    pub(super) fn take(
        &mut self,
        neighbour: &Neighbour,
        frames: impl ExactSizeIterator<Item = Frame>,
        mut open: Option<usize>,
        segments_max: u32,
    ) -> usize {
        self.frames += frames.len();
        for frame in frames {
            let at = match open {
                Some(at) if self.join(at, &frame, segments_max) => at,
                _ => self.begin(neighbour, &frame),
            };
            open = Some(at);
            self.hold(frame, at as u16);
        }
        open.unwrap_or_default()
    }

    /// Adds `frame` to the message, if it fits.
    #[inline]
    fn join(&mut self, at: usize, frame: &Frame, segments_max: u32) -> bool {
        let message = &mut self.messages[at];
        let len = frame.len() as u32;
        let fits = len <= message.segment
            && len > 0
            && !message.ended
            && message.frames < segments_max
            && message.bytes + len <= DATAGRAM_BYTES_MAX as u32;
        if !fits {
            return false;
        }
        let begin = frame.bytes().as_ptr();
        let vectors = at * PIECES_STRIDE;
        if begin == message.end {
            self.vectors[vectors + message.pieces as usize - 1].iov_len += len as usize;
        } else if message.pieces < PIECES_MAX as u32 {
            self.vectors[vectors + message.pieces as usize] =
                libc::iovec { iov_base: begin.cast_mut().cast(), iov_len: len as usize };
            message.pieces += 1;
        } else {
            return false;
        }
        message.end = begin.wrapping_add(len as usize);
        message.frames += 1;
        message.bytes += len;
        message.ended = len < message.segment;
        true
    }

    /// Begins a message with `frame`, and returns the index of the message.
    #[inline]
    fn begin(&mut self, neighbour: &Neighbour, frame: &Frame) -> usize {
        let Neighbour { name, mark, source, .. } = *neighbour;
        let (begin, len) = (frame.bytes().as_ptr(), frame.len());
        let at = self.messages.len();
        self.vectors[at * PIECES_STRIDE] =
            libc::iovec { iov_base: begin.cast_mut().cast(), iov_len: len };
        self.messages.push(Message {
            name,
            mark,
            source,
            segment: len as u32,
            frames: 1,
            bytes: len as u32,
            pieces: 1,
            end: begin.wrapping_add(len),
            ended: false,
        });
        at
    }

    #[inline]
    fn hold(&mut self, frame: Frame, at: u16) {
        let alone = match (self.held.last_mut(), self.held_for.last()) {
            (Some(held), Some(&last)) if last == at => held.join(frame),
            _ => Err(frame),
        };
        if let Err(frame) = alone {
            self.held.push(HeldFrames::new(frame));
            self.held_for.push(at);
        }
    }

    /// Sends waiting messages until the kernel accepts no more.
    pub(super) fn flush(
        &mut self,
        socket: &Socket,
        neighbours: &mut Neighbours,
        round: u64,
    ) -> Flushed {
        self.write_headers();
        let mut earlier_error = false;
        let mut without: Option<Source> = None;
        while self.first < self.messages.len() {
            if self.gone > 0 {
                match self.send_singly(socket, neighbours, self.refusal) {
                    Single::Done => continue,
                    Single::Blocked => return Flushed::Full,
                }
            }
            let waiting = self.first..self.messages.len();
            // SAFETY: `write_headers` has pointed these headers to a name, to vectors over memory
            // that `held` keeps, and to a control message if there is one, each with its length;
            // none has moved since.
            let sent = unsafe { send_messages(socket, &mut self.headers[waiting]) };
            match sent {
                Ok(sent) => {
                    if without.take().is_some() {
                        // The send worked without the source address, so that address is no longer
                        // local.
                        neighbours.forget_source(self.messages[self.first].mark);
                    }
                    self.count_sent(sent);
                    earlier_error = false;
                }
                Err(libc::EINTR) => {}
                Err(errno) if is_full(errno) => return Flushed::Full,
                Err(errno)
                    if is_source_error(errno)
                        && without.is_none()
                        && self.messages[self.first].source.is_some() =>
                {
                    without = self.messages[self.first].source.take();
                    self.write_headers();
                }
                Err(errno) if is_earlier_error(errno) && !earlier_error => earlier_error = true,
                Err(errno) => {
                    earlier_error = false;
                    if let Some(source) = without.take() {
                        self.messages[self.first].source = Some(source);
                    }
                    let Message { frames, mark, .. } = self.messages[self.first];
                    // An error about the length does not mean that the neighbour is unreachable.
                    if errno != libc::EMSGSIZE
                        && let Some(neighbour) = neighbours.at_mut(mark)
                    {
                        neighbour.refused = Some((errno, round));
                    }
                    if frames > 1 {
                        if let Single::Blocked = self.send_singly(socket, neighbours, errno) {
                            return Flushed::Full;
                        }
                    } else {
                        self.tally.count_loss(loss_of(errno), 1);
                        self.first += 1;
                    }
                }
            }
        }
        self.clear();
        Flushed::All
    }

    fn clear(&mut self) {
        self.messages.clear();
        self.held.clear();
        self.held_for.clear();
        (self.first, self.gone, self.frames) = (0, 0, 0);
    }

    /// Releases the chunks of the messages that were sent or dropped, while other messages wait.
    #[cold]
    pub(super) fn give_up_sent(&mut self) {
        let mut at = 0;
        while let Some(&message) = self.held_for.get(at) {
            if usize::from(message) < self.first {
                self.held.swap_remove(at);
                self.held_for.swap_remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// Drops all waiting frames.
    #[cold]
    pub(super) fn lose_all(&mut self, loss: Loss) {
        self.tally.count_loss(loss, u64::from(self.frames_waiting()));
        self.clear();
    }

    /// Returns approximately how many bytes the send buffer was charged since this was last called.
    #[inline]
    pub(super) fn take_cost(&mut self) -> usize {
        std::mem::take(&mut self.cost)
    }

    fn write_headers(&mut self) {
        let vectors = self.vectors.as_mut_ptr();
        let controls = self.controls.as_mut_ptr();
        for (at, message) in self.messages.iter().enumerate().skip(self.first) {
            let header = &mut self.headers[at].msg_hdr;
            header.msg_name = message.name.as_ptr().cast_mut().cast();
            header.msg_namelen = message.name.len() as libc::socklen_t;
            header.msg_iov = vectors.wrapping_add(at * PIECES_STRIDE);
            header.msg_iovlen = message.pieces as _;
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
            if message.frames > 1 {
                let control = controls.wrapping_add(at);
                // SAFETY: `at` is below the length of the array, which is at least that of
                // `messages`.
                let control = unsafe { &mut *control };
                control.0[..CONTROL_MESSAGE_BYTES]
                    .copy_from_slice(&segment_message(message.segment as u16).0);
                header.msg_control = (&raw mut *control).cast();
                // This is the length of the room. The kernel reads the length of the value from the
                // control message.
                header.msg_controllen = CONTROL_MESSAGE_BYTES as _;
            }
            if let Some(source) = message.source {
                // SAFETY: as above.
                let control = unsafe { &mut *controls.wrapping_add(at) };
                let before = header.msg_controllen;
                let room = &mut control.0[before..];
                header.msg_controllen += write_source(room, source, message.name.is_v4());
                header.msg_control = (&raw mut *control).cast();
            }
        }
    }

    fn count_sent(&mut self, sent: usize) {
        let messages = &self.messages[self.first..self.first + sent];
        let frames: u32 = messages.iter().map(|message| message.frames).sum();
        let bytes: u64 = messages.iter().map(|message| u64::from(message.bytes)).sum();
        self.tally.frames_out.add(u64::from(frames));
        self.tally.bytes_out.add(bytes);
        self.tally.trains_out.add(sent as u64);
        self.cost += bytes as usize + sent * MESSAGE_COST_BYTES;
        self.first += sent;
    }

    /// Sends the frames of the first message one by one if `errno`, with which the kernel refused
    /// the message, may concern trains only. Otherwise drops them. If the kernel accepts a frame of
    /// full length and `errno` is not `EMSGSIZE`, no trains are sent to this neighbour for a while.
    #[cold]
    fn send_singly(&mut self, socket: &Socket, neighbours: &mut Neighbours, errno: i32) -> Single {
        let message = self.messages[self.first];
        if errno != libc::EMSGSIZE
            && errno != libc::EINVAL
            && errno != libc::EIO
            && errno != libc::EOPNOTSUPP
        {
            self.tally.count_loss(loss_of(errno), u64::from(message.frames - self.gone));
            return self.done();
        }
        let mut skip = self.gone as usize * message.segment as usize;
        for piece in 0..message.pieces as usize {
            let vector = self.vectors[self.first * PIECES_STRIDE + piece];
            // A piece consists of whole frames, so the skipped part ends at the end of a frame.
            let mut at = skip.min(vector.iov_len);
            skip -= at;
            while at < vector.iov_len {
                let len = (vector.iov_len - at).min(message.segment as usize);
                let begin = vector.iov_base.cast::<u8>().wrapping_add(at);
                match send_alone(socket, &message.name, message.source, begin, len) {
                    Ok(()) => {
                        self.tally.frames_out.add(1);
                        self.tally.bytes_out.add(len as u64);
                        self.tally.trains_out.add(1);
                        self.cost += len + MESSAGE_COST_BYTES;
                        // Some kernels also return EINVAL for segments that are longer than the
                        // MTU. In that case only a shorter last frame is accepted, so an accepted
                        // frame of full length shows that segmentation was the reason.
                        if errno != libc::EMSGSIZE
                            && len == message.segment as usize
                            && let Some(neighbour) = neighbours.at_mut(message.mark)
                            && neighbour.name == message.name
                        {
                            let before =
                                std::mem::replace(&mut neighbour.gso_retry_in, TRAINS_AGAIN_BURSTS);
                            self.tally.trains_refused.add(u64::from(before == 0));
                        }
                    }
                    Err(full) if is_full(full) => {
                        self.refusal = errno;
                        return Single::Blocked;
                    }
                    Err(errno) => self.tally.count_loss(loss_of(errno), 1),
                }
                self.gone += 1;
                at += len;
            }
        }
        self.done()
    }

    fn done(&mut self) -> Single {
        self.first += 1;
        self.gone = 0;
        Single::Done
    }
}

/// Sends one frame. Retries once after a signal or the error of an earlier datagram, and without
/// the source address if that may be the reason for the error.
pub(super) fn send_alone(
    socket: &Socket,
    name: &Name,
    source: Option<Source>,
    begin: *const u8,
    len: usize,
) -> Result<(), i32> {
    let mut control = ControlRoom::<CONTROL_OUT_BYTES>::EMPTY;
    let mut vector = libc::iovec { iov_base: begin.cast_mut().cast(), iov_len: len };
    let mut header = empty_header();
    header.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
    header.msg_hdr.msg_namelen = name.len() as libc::socklen_t;
    header.msg_hdr.msg_iov = &mut vector;
    header.msg_hdr.msg_iovlen = 1;
    if let Some(source) = source {
        header.msg_hdr.msg_controllen = write_source(&mut control.0, source, name.is_v4());
        header.msg_hdr.msg_control = (&raw mut control).cast();
    }
    let mut tries = 0;
    loop {
        // SAFETY: the name and the `len` bytes at `begin` belong to the caller, and vector and
        // control message to this function; all outlive the call.
        let sent = unsafe { send_messages(socket, std::slice::from_mut(&mut header)) };
        match sent {
            Ok(_) => return Ok(()),
            // The source address may no longer be local.
            Err(errno) if is_source_error(errno) && header.msg_hdr.msg_controllen > 0 => {
                header.msg_hdr.msg_control = std::ptr::null_mut();
                header.msg_hdr.msg_controllen = 0;
            }
            Err(errno) if tries < 1 && (is_earlier_error(errno) || errno == libc::EINTR) => {
                tries += 1
            }
            Err(errno) => return Err(errno),
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.tally.count_loss(Loss::SendRefused, u64::from(self.frames_waiting()));
    }
}
