//! Sending: frames that may ride together become one message with `UDP_SEGMENT`, and all messages
//! of a round go to the kernel in one sendmmsg. It never copies payload and never lets a frame
//! go uncounted.
//!
//! Sends do not go through io_uring, even where receives do: beside an io_uring receive a direct
//! sendmmsg was measured as fast or 5 to 15 % faster, it needs no bookkeeping of sends in flight,
//! and both backends can share it.

use std::{net::SocketAddr, sync::Arc};

use arrayvec::ArrayVec;
use strowger_frame::{BURST_MAX, Burst, Frame, Held, Loss, Mark, port::PortTally};

use super::{
    control::{CONTROL_MESSAGE_BYTES, ControlRoom, segment_message},
    limits::{
        DATAGRAM_BYTES_MAX, DIRECT_ERRORS_MAX, FRAMES_WAITING_MAX, MESSAGES_MAX, PIECES_MAX,
        STALLED_FLUSHES, TRAINS_AGAIN_BURSTS,
    },
    name::{Key, Name},
    neighbours::{Neighbour, Neighbours},
    send_sockets::{By, Place, SendSockets},
    socket::{Socket, empty_header, send_messages},
};

const _: () = assert!(MESSAGES_MAX == FRAMES_WAITING_MAX, "see `Queue::room`");

/// From one message's vectors to the next one's: some more than it may have, so that the first
/// vectors of messages do not all fall into the same sets of the first-level cache.
const PIECES_STRIDE: usize = PIECES_MAX + 4;

/// Frames to one neighbour that leave in one send: all of `segment` bytes, the last perhaps shorter.
#[derive(Clone, Copy, Debug)]
struct Message {
    name: Name,
    mark: Mark,
    segment: u32,
    frames: u32,
    bytes: u32,
    pieces: u32,
    /// Where a frame must begin to lengthen the last piece.
    end: *const u8,
    /// A shorter frame ends a train.
    ended: bool,
}

/// Messages of one socket that wait to be sent, and the memory of their frames.
struct Queue {
    /// In order; those before `first` have gone.
    messages: Vec<Message>,
    first: usize,
    /// Frames of `messages[first]` that have gone one by one, since `refusal` befell it.
    gone: u32,
    refusal: i32,
    vectors: Vec<libc::iovec>,
    /// Memory of all frames in `messages`, and beside it the message that each belongs to. Given up
    /// when the last message has gone, or, when the socket is full, with the messages that have.
    held: Vec<Held>,
    held_for: Vec<u16>,
    frames: usize,
    /// See `take_cost`.
    cost: usize,
    /// Built from `messages` for each call, so that no pointer is kept from one to the next.
    headers: Vec<libc::mmsghdr>,
    controls: Vec<ControlRoom<CONTROL_MESSAGE_BYTES>>,
    tally: Arc<PortTally>,
}

/// What `tx_burst` has taken and `flush` has not yet sent.
pub(super) struct Outbox {
    /// For the socket that all share.
    shared: Queue,
    /// For the spare sockets: sent by each call that fills it, and empty after it.
    spare: Queue,
    /// Raised by each flush: a message that one has seen takes no more frames.
    round: u64,
    /// Frames in a message at most; 1 where the kernel does not cut.
    segments_max: u32,
    /// Flushes in a row at which the kernel took nothing.
    stalled: u32,
    /// To which addresses `send_now` was refused, and how.
    direct_errors: ArrayVec<(Key, i32), DIRECT_ERRORS_MAX>,
    tally: Arc<PortTally>,
}

// SAFETY: the pointers lead into chunks that `held` keeps, and go where it goes.
unsafe impl Send for Queue {}

/// What a flush came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    /// Nothing waits any more.
    All,
    /// The socket is full.
    Full,
}

/// What a message costs of a send buffer beside its bytes, roughly; and a frame that may be one.
const MESSAGE_COST_BYTES: usize = 1024;
const FRAME_COST_BYTES: usize = 256;

/// How a message that was sent frame by frame fared.
enum Single {
    Done,
    Blocked,
}

/// No room in the socket's or the device's queue: to be tried again, not lost.
fn is_full(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM)
}

/// Reports of an earlier datagram, which the kernel hands to the next call whatever that is.
fn is_old_news(errno: i32) -> bool {
    matches!(errno, libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EPROTO)
}

fn loss_of(errno: i32) -> Loss {
    if errno == libc::EMSGSIZE { Loss::PathTooNarrow } else { Loss::SendRefused }
}

impl Outbox {
    pub(super) fn new(segments_max: usize, tally: Arc<PortTally>) -> Self {
        Self {
            shared: Queue::new(MESSAGES_MAX, FRAMES_WAITING_MAX, tally.clone()),
            spare: Queue::new(BURST_MAX, BURST_MAX, tally.clone()),
            round: 0,
            segments_max: segments_max.max(1) as u32,
            stalled: 0,
            direct_errors: ArrayVec::new(),
            tally,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shared.messages.is_empty()
    }

    pub(super) fn tx_burst(
        &mut self,
        sockets: &mut SendSockets,
        neighbours: &mut Neighbours,
        to: Mark,
        frames: &mut Burst,
    ) {
        if self.shared.room() < frames.len() {
            self.flush(sockets, neighbours);
        }
        let Some(neighbour) = neighbours.at_mut(to) else {
            self.tally.lose(Loss::NoNeighbour, frames.len() as u64);
            frames.clear();
            return;
        };
        if sockets.is_suspicious() || neighbour.standing.by != By::Shared {
            return self.tx_under_suspicion(sockets, neighbours, to, frames);
        }
        // Each frame may turn out to need a message of its own.
        let taken = frames.len().min(self.shared.room());
        self.share(neighbour, frames, taken);
    }

    /// Takes so many frames for the socket that all share.
    #[inline]
    fn share(&mut self, neighbour: &mut Neighbour, frames: &mut Burst, taken: usize) {
        if taken == 0 {
            return;
        }
        // Frames join the neighbour's last message of this round, whatever was taken for others
        // since: order is promised to each neighbour, not among them.
        let open = (neighbour.round == self.round).then_some(neighbour.open as usize);
        let segments_max = neighbour.segments_max(self.segments_max);
        let open = self.shared.take(neighbour, frames.drain(..taken), open, segments_max);
        neighbour.open = open as u32;
        neighbour.round = self.round;
    }

    /// As [`tx_burst`](Self::tx_burst), as far as the neighbour's standing goes.
    #[cold]
    fn tx_under_suspicion(
        &mut self,
        sockets: &mut SendSockets,
        neighbours: &mut Neighbours,
        to: Mark,
        frames: &mut Burst,
    ) {
        while !frames.is_empty() {
            let place = sockets.place(neighbours, to);
            let Some(neighbour) = neighbours.at_mut(to) else { return };
            match place {
                Place::Shared(bytes) => {
                    let (taken, cost) = within(bytes, frames);
                    let taken = taken.min(self.shared.room());
                    if taken == 0 {
                        return;
                    }
                    sockets.spend(&mut neighbour.standing, cost);
                    self.share(neighbour, frames, taken);
                }
                Place::Spare(number, bytes) => {
                    // What waits for it in the shared queue goes first.
                    if neighbour.round == self.round && !self.is_empty() {
                        self.flush(sockets, neighbours);
                    }
                    if self.shared.has(to) {
                        return;
                    }
                    let (taken, _) = within(bytes, frames);
                    self.send_by_spare(sockets, neighbours, (to, number), frames, taken);
                }
                Place::Later => return,
                Place::Lost => {
                    self.tally.lose(Loss::SendStalled, frames.len() as u64);
                    frames.clear();
                }
            }
        }
    }

    /// Sends frames at once. What a spare socket does not take is lost: it has its window free, so it
    /// refuses only when others' frames of earlier trials fill it.
    fn send_by_spare(
        &mut self,
        sockets: &mut SendSockets,
        neighbours: &mut Neighbours,
        (to, number): (Mark, u8),
        frames: &mut Burst,
        taken: usize,
    ) {
        let Some(neighbour) = neighbours.at_mut(to) else { return };
        let segments_max = neighbour.segments_max(self.segments_max);
        self.spare.take(neighbour, frames.drain(..taken), None, segments_max);
        self.round += 1;
        neighbour.round = self.round;
        self.round += 1;
        let socket = sockets.spare(number);
        if self.spare.flush(socket, neighbours, self.round) == Flushed::Full {
            self.spare.lose_all(Loss::SendStalled);
        }
        self.spare.take_cost();
        sockets.sent_by(number);
    }

    /// Sends all that waits, as far as the kernel takes it.
    pub(super) fn flush(&mut self, sockets: &mut SendSockets, neighbours: &mut Neighbours) {
        sockets.begin_round();
        if self.is_empty() {
            return;
        }
        self.round += 1;
        loop {
            let waited = self.shared.frames_waiting();
            let flushed = self.shared.flush(sockets.shared(), neighbours, self.round);
            sockets.count(self.shared.take_cost());
            if flushed == Flushed::All {
                self.stalled = 0;
                return;
            }
            self.stalled = match self.shared.frames_waiting() {
                left if left < waited => 0,
                _ => self.stalled + 1,
            };
            if !sockets.replace_shared(neighbours) {
                break;
            }
        }
        self.shared.give_up_sent();
        if self.stalled >= STALLED_FLUSHES {
            self.stalled = 0;
            self.shared.lose_all(Loss::SendStalled);
        }
    }

    /// Sends one frame to an address, past whatever waits for neighbours.
    pub(super) fn send_now(&mut self, sockets: &SendSockets, to: SocketAddr, frame: &Frame) {
        let bytes = frame.bytes();
        let mut sent = Err(libc::EAGAIN);
        for socket in sockets.direct() {
            sent = send_alone(socket, &Name::of(to), bytes.as_ptr(), bytes.len());
            if !sent.is_err_and(is_full) {
                break;
            }
        }
        let key = Key::of(to);
        self.direct_errors.retain(|(refused, _)| *refused != key);
        match sent {
            Ok(()) => {
                self.tally.frames_out.add(1);
                self.tally.bytes_out.add(bytes.len() as u64);
                self.tally.trains_out.add(1);
            }
            Err(errno) if is_full(errno) => self.tally.lose(Loss::SendStalled, 1),
            Err(errno) => {
                self.tally.lose(loss_of(errno), 1);
                if errno != libc::EMSGSIZE {
                    if self.direct_errors.is_full() {
                        self.direct_errors.pop_at(0);
                    }
                    self.direct_errors.push((key, errno));
                }
            }
        }
    }

    /// How the last `send_now` to this address was refused, if it was.
    pub(super) fn direct_error(&self, to: &Key) -> Option<i32> {
        let found = self.direct_errors.iter().find(|(refused, _)| refused == to);
        found.map(|(_, errno)| *errno)
    }
}

/// How many frames from the front fit into `bytes` of a send buffer, at least one, and what they cost.
fn within(bytes: usize, frames: &Burst) -> (usize, usize) {
    let mut cost = 0;
    let mut taken = 0;
    for frame in frames {
        if taken > 0 && cost + frame.len() + FRAME_COST_BYTES > bytes {
            break;
        }
        cost += frame.len() + FRAME_COST_BYTES;
        taken += 1;
    }
    (taken, cost)
}

impl Queue {
    fn new(messages_max: usize, frames_max: usize, tally: Arc<PortTally>) -> Self {
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

    /// Frames that it can take, whatever they are.
    #[inline]
    fn room(&self) -> usize {
        // The arrays' lengths are what was asked for; a vector's capacity can be more.
        let messages = self.headers.len() - self.messages.len();
        messages.min(self.headers.len() - self.frames)
    }

    fn frames_waiting(&self) -> u32 {
        let waiting = self.messages.iter().skip(self.first);
        waiting.map(|message| message.frames).sum::<u32>() - self.gone
    }

    /// Whether frames to this neighbour wait.
    fn has(&self, to: Mark) -> bool {
        self.messages.iter().skip(self.first).any(|message| message.mark == to)
    }

    /// Takes frames to a neighbour, into the message that is open if they may ride with it; returns the
    /// one that is open after it. There is room for them.
    #[inline]
    fn take(
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
                _ => self.begin(neighbour.name, neighbour.mark, &frame),
            };
            open = Some(at);
            self.hold(frame, at as u16);
        }
        open.unwrap_or_default()
    }

    /// Lets `frame` ride with the message, if it may.
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

    /// A new message with `frame` in it; returns where it stands.
    #[inline]
    fn begin(&mut self, name: Name, mark: Mark, frame: &Frame) -> usize {
        let (begin, len) = (frame.bytes().as_ptr(), frame.len());
        let at = self.messages.len();
        self.vectors[at * PIECES_STRIDE] =
            libc::iovec { iov_base: begin.cast_mut().cast(), iov_len: len };
        self.messages.push(Message {
            name,
            mark,
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
            self.held.push(Held::new(frame));
            self.held_for.push(at);
        }
    }

    /// Sends all that waits, as far as the kernel takes it.
    fn flush(&mut self, socket: &Socket, neighbours: &mut Neighbours, round: u64) -> Flushed {
        self.write_headers();
        let mut old_news = false;
        while self.first < self.messages.len() {
            if self.gone > 0 {
                match self.send_singly(socket, neighbours, self.refusal) {
                    Single::Done => continue,
                    Single::Blocked => return Flushed::Full,
                }
            }
            let waiting = self.first..self.messages.len();
            // SAFETY: `write_headers` has pointed these headers to a name, vectors over memory
            // that `held` keeps, and a control message, each with its length; none has moved.
            let sent = unsafe { send_messages(socket, &mut self.headers[waiting]) };
            match sent {
                Ok(sent) => {
                    self.count_sent(sent);
                    old_news = false;
                }
                Err(libc::EINTR) => {}
                Err(errno) if is_full(errno) => return Flushed::Full,
                Err(errno) if is_old_news(errno) && !old_news => old_news = true,
                Err(errno) => {
                    old_news = false;
                    let Message { frames, mark, .. } = self.messages[self.first];
                    // A frame too long for the path says nothing of whether there is one.
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
                        self.tally.lose(loss_of(errno), 1);
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

    /// Gives up the memory of the messages that have gone, while others wait.
    #[cold]
    fn give_up_sent(&mut self) {
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

    /// Loses all that waits.
    #[cold]
    fn lose_all(&mut self, loss: Loss) {
        self.tally.lose(loss, u64::from(self.frames_waiting()));
        self.clear();
    }

    /// What was sent since the last call costs of a send buffer, roughly.
    #[inline]
    fn take_cost(&mut self) -> usize {
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
                // SAFETY: `at` is below `MESSAGES_MAX`, the array's length.
                unsafe { control.write(segment_message(message.segment as u16)) };
                header.msg_control = control.cast();
                // What counts is the two bytes of the number, not the room they stand in.
                header.msg_controllen = CONTROL_MESSAGE_BYTES as _;
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

    /// The first message was refused as a train (`errno` says how): its frames go one by one. If
    /// they do go, and it was not their size, then the path takes no trains, and is sent none.
    #[cold]
    fn send_singly(&mut self, socket: &Socket, neighbours: &mut Neighbours, errno: i32) -> Single {
        let message = self.messages[self.first];
        if errno != libc::EMSGSIZE
            && errno != libc::EINVAL
            && errno != libc::EIO
            && errno != libc::EOPNOTSUPP
        {
            self.tally.lose(loss_of(errno), u64::from(message.frames - self.gone));
            return self.done();
        }
        let mut skip = self.gone as usize * message.segment as usize;
        for piece in 0..message.pieces as usize {
            let vector = self.vectors[self.first * PIECES_STRIDE + piece];
            // A piece is made of whole frames, so skipping ends where a frame does.
            let mut at = skip.min(vector.iov_len);
            skip -= at;
            while at < vector.iov_len {
                let len = (vector.iov_len - at).min(message.segment as usize);
                let begin = vector.iov_base.cast::<u8>().wrapping_add(at);
                match send_alone(socket, &message.name, begin, len) {
                    Ok(()) => {
                        self.tally.frames_out.add(1);
                        self.tally.bytes_out.add(len as u64);
                        self.tally.trains_out.add(1);
                        self.cost += len + MESSAGE_COST_BYTES;
                        // Some kernels call a segment that is too long EINVAL, too; then
                        // only a shorter last frame goes.
                        if errno != libc::EMSGSIZE
                            && len == message.segment as usize
                            && let Some(neighbour) = neighbours.at_mut(message.mark)
                            && neighbour.name == message.name
                        {
                            neighbour.trains_in_bursts = TRAINS_AGAIN_BURSTS;
                        }
                    }
                    Err(full) if is_full(full) => {
                        self.refusal = errno;
                        return Single::Blocked;
                    }
                    Err(errno) => self.tally.lose(loss_of(errno), 1),
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

/// Sends one frame; tries again if the kernel had old news, or a signal came.
fn send_alone(socket: &Socket, name: &Name, begin: *const u8, len: usize) -> Result<(), i32> {
    let mut vector = libc::iovec { iov_base: begin.cast_mut().cast(), iov_len: len };
    let mut header = empty_header();
    header.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
    header.msg_hdr.msg_namelen = name.len() as libc::socklen_t;
    header.msg_hdr.msg_iov = &mut vector;
    header.msg_hdr.msg_iovlen = 1;
    let mut tries = 0;
    loop {
        // SAFETY: the name is the caller's, the vector ours, and `begin..len` is memory that the
        // outbox holds; all live through the call.
        let sent = unsafe { send_messages(socket, std::slice::from_mut(&mut header)) };
        match sent {
            Ok(_) => return Ok(()),
            Err(errno) if tries < 1 && (is_old_news(errno) || errno == libc::EINTR) => tries += 1,
            Err(errno) => return Err(errno),
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.tally.lose(Loss::SendRefused, u64::from(self.frames_waiting()));
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use strowger_frame::{ChunkClass, Pool, PoolSpec};

    use super::*;
    use crate::udp::socket::Forced::{self, Errno, Take};

    struct Bench {
        pool: Pool,
        sockets: SendSockets,
        sink: Socket,
        neighbours: Neighbours,
        outbox: Outbox,
        tally: Arc<PortTally>,
    }

    fn bench(forced: impl IntoIterator<Item = Forced>) -> Bench {
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let [socket, sink] = [(); 2].map(|()| {
            let socket = Socket::new(local).unwrap();
            socket.bind(local).unwrap();
            socket
        });
        socket.forced.borrow_mut().extend(forced);
        let mut neighbours = Neighbours::new(4, local);
        neighbours.admit(Mark(0), sink.local().unwrap()).unwrap();
        let tally = Arc::new(PortTally::default());
        let spec = PoolSpec { trains: 200, singles: 0, huge_pages: false };
        let pool = Pool::new(&spec).unwrap();
        let sockets = SendSockets::new(socket);
        Bench { pool, sockets, sink, neighbours, outbox: Outbox::new(64, tally.clone()), tally }
    }

    impl Bench {
        /// Takes one frame of each length; its first two bytes say which it is.
        fn take(&mut self, first: u16, lens: &[usize]) {
            let mut burst: Burst = lens
                .iter()
                .zip(first..)
                .map(|(len, n)| {
                    let chunk = self.pool.take(ChunkClass::Train).unwrap();
                    let mut frame = chunk.into_frame(256, *len);
                    frame.bytes_mut()[..2].copy_from_slice(&n.to_be_bytes());
                    frame
                })
                .collect();
            self.outbox.tx_burst(&mut self.sockets, &mut self.neighbours, Mark(0), &mut burst);
            assert!(burst.is_empty());
        }

        fn flush(&mut self) {
            self.outbox.flush(&mut self.sockets, &mut self.neighbours);
        }

        /// The numbers of the frames that arrived.
        fn arrived(&self) -> Vec<u16> {
            let mut bytes = [0_u8; 2048];
            std::iter::from_fn(|| {
                let at = bytes.as_mut_ptr().cast();
                // SAFETY: `bytes` is as long as said, and lives through the call.
                let came =
                    unsafe { libc::recv(self.sink.fd(), at, bytes.len(), libc::MSG_DONTWAIT) };
                (came > 1).then(|| u16::from_be_bytes([bytes[0], bytes[1]]))
            })
            .collect()
        }
    }

    #[test]
    fn a_full_socket_keeps_what_it_did_not_take_in_order() {
        for full in [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM] {
            let mut bench = bench([Take(1), Errno(full), Errno(full)]);
            bench.take(0, &[100, 200, 300]);
            bench.flush();
            assert_eq!((bench.arrived(), bench.tally.frames_out.read()), (vec![0], 1));
            bench.flush();
            assert!(!bench.outbox.is_empty() && bench.arrived().is_empty());
            bench.take(3, &[300, 300]);
            bench.flush();
            assert_eq!(bench.arrived(), [1, 2, 3, 4]);
            assert!(bench.outbox.is_empty());
            assert_eq!(bench.tally.lost_in_all(), 0);
            assert_eq!(bench.pool.free(ChunkClass::Train), 200);
        }
    }

    #[test]
    fn what_has_left_gives_its_memory_back_while_the_rest_waits() {
        // Two messages of three go; frames of the two neighbours were taken in turn.
        let mut bench = bench([Take(2), Errno(libc::EAGAIN)]);
        let other: SocketAddr = "127.0.0.1:9".parse().unwrap();
        bench.neighbours.admit(Mark(1), other).unwrap();
        bench.take(0, &[100, 100]);
        let mut burst: Burst =
            [bench.pool.take(ChunkClass::Train).unwrap().into_frame(256, 7)].into_iter().collect();
        let Bench { outbox, sockets, neighbours, .. } = &mut bench;
        outbox.tx_burst(sockets, neighbours, Mark(1), &mut burst);
        bench.take(2, &[100, 300]);
        assert_eq!(bench.pool.free(ChunkClass::Train), 195);
        bench.flush();
        assert_eq!(bench.arrived(), [0, 1, 2]);
        assert_eq!(bench.pool.free(ChunkClass::Train), 199, "the one that waits has its chunk");
        bench.flush();
        assert_eq!(bench.arrived(), [3]);
        assert_eq!(bench.pool.free(ChunkClass::Train), 200);
    }

    #[test]
    fn what_the_kernel_does_not_take_for_long_is_lost_and_counted() {
        let forever = STALLED_FLUSHES as usize;
        let mut bench = bench(std::iter::repeat_n(Errno(libc::EAGAIN), forever));
        bench.take(0, &[100, 200, 300]);
        for flush in 1..=STALLED_FLUSHES {
            assert_eq!(bench.outbox.is_empty(), flush > STALLED_FLUSHES);
            bench.flush();
        }
        assert!(bench.outbox.is_empty());
        assert_eq!(bench.tally.lost(Loss::SendStalled), 3);
        assert_eq!(bench.pool.free(ChunkClass::Train), 200);
        bench.take(3, &[100]);
        bench.flush();
        assert_eq!(bench.arrived(), [3]);
    }

    #[test]
    fn another_socket_takes_the_place_of_a_full_one_and_order_holds() {
        let mut bench = bench([Take(1), Errno(libc::EAGAIN)]);
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let more = [(); 3].map(|()| {
            let socket = Socket::new(local).unwrap();
            socket.bind(local).unwrap();
            socket
        });
        bench.sockets.add(more);
        bench.take(0, &[100, 200, 300, 400, 500]);
        bench.flush();
        assert_eq!(bench.arrived(), [0, 1, 2, 3, 4]);
        assert!(bench.outbox.is_empty() && bench.sockets.is_suspicious());
        // Under suspicion frames still leave in order, by whatever socket.
        for first in (5..400).step_by(5) {
            bench.take(first, &[1400, 1400, 1400, 1400, 900]);
            bench.flush();
            let expected: Vec<u16> = (first..first + 5).collect();
            assert_eq!(bench.arrived(), expected);
        }
        assert_eq!(bench.tally.lost_in_all(), 0);
    }

    #[test]
    fn a_frame_to_an_address_is_not_lost_to_a_full_socket() {
        let mut bench = bench([Errno(libc::EAGAIN), Errno(libc::EAGAIN)]);
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let full = Socket::new(local).unwrap();
        full.bind(local).unwrap();
        full.forced.borrow_mut().push_back(Errno(libc::EAGAIN));
        bench.sockets.add([full]);
        let frame = bench.pool.take(ChunkClass::Train).unwrap().into_frame(256, 2);
        let to = bench.sink.local().unwrap();
        bench.outbox.send_now(&bench.sockets, to, &frame);
        assert_eq!(bench.tally.lost(Loss::SendStalled), 1, "all are full");
        bench.sockets.receiving().forced.borrow_mut().clear();
        bench.outbox.send_now(&bench.sockets, to, &frame);
        assert_eq!((bench.arrived().len(), bench.tally.frames_out.read()), (1, 1));
    }

    #[test]
    fn the_last_error_of_a_send_is_kept_until_one_goes() {
        let mut bench = bench([Errno(libc::EPERM)]);
        let at = Key::of(bench.sink.local().unwrap());
        bench.take(0, &[100]);
        bench.flush();
        assert_eq!(bench.neighbours.last_send_error(&at), Some(libc::EPERM));
        bench.take(1, &[100]);
        bench.flush();
        assert_eq!(bench.neighbours.last_send_error(&at), None);
        let far: SocketAddr = "192.0.2.1:9".parse().unwrap();
        let frame = bench.pool.take(ChunkClass::Train).unwrap().into_frame(256, 2);
        let forced = [Errno(libc::ENETUNREACH); 2];
        bench.sockets.receiving().forced.borrow_mut().extend(forced);
        bench.outbox.send_now(&bench.sockets, far, &frame);
        assert_eq!(bench.outbox.direct_error(&Key::of(far)), Some(libc::ENETUNREACH));
        assert_eq!(bench.outbox.direct_error(&at), None);
    }

    #[test]
    fn a_full_outbox_leaves_frames_with_the_caller() {
        let mut bench = bench([Errno(libc::EAGAIN); 6]);
        for round in 0..5 {
            let mut burst: Burst = (0..64)
                .filter_map(|n| Some(bench.pool.take(ChunkClass::Train)?.into_frame(256, 2 + n)))
                .collect();
            let before = burst.len();
            let Bench { outbox, sockets, neighbours, .. } = &mut bench;
            outbox.tx_burst(sockets, neighbours, Mark(0), &mut burst);
            outbox.flush(sockets, neighbours);
            assert!(burst.is_empty() || round >= 3, "{} of {before} left", burst.len());
        }
        assert!(bench.outbox.shared.messages.len() <= MESSAGES_MAX);
    }

    #[test]
    fn a_refused_message_is_counted_and_the_next_ones_go() {
        let mut bench = bench([Errno(libc::EPERM), Errno(libc::EMSGSIZE)]);
        bench.take(0, &[100, 200, 300]);
        bench.flush();
        assert_eq!(bench.arrived(), [2]);
        assert_eq!(bench.tally.lost(Loss::SendRefused), 1);
        assert_eq!(bench.tally.lost(Loss::PathTooNarrow), 1);
        assert_eq!(bench.tally.frames_out.read(), 1);
    }

    #[test]
    fn old_news_is_heard_once_and_then_believed() {
        let mut bench = bench([Errno(libc::ECONNREFUSED)]);
        bench.take(0, &[100]);
        bench.flush();
        assert_eq!((bench.arrived(), bench.tally.lost_in_all()), (vec![0], 0));
        bench.sockets.receiving().forced.borrow_mut().extend([Errno(libc::ENETUNREACH); 2]);
        bench.take(1, &[100, 100]);
        bench.flush();
        assert_eq!(bench.tally.lost(Loss::SendRefused), 2, "both frames of the train");
    }

    #[test]
    fn a_path_without_segmentation_gets_frames_one_by_one_and_is_remembered() {
        let mut bench = bench([Errno(libc::EIO)]);
        bench.take(0, &[100, 100, 100, 40]);
        bench.flush();
        assert_eq!(bench.arrived(), [0, 1, 2, 3]);
        assert_eq!(bench.tally.trains_out.read(), 4);
        bench.take(4, &[100, 100]);
        bench.flush();
        assert_eq!((bench.arrived(), bench.tally.trains_out.read()), (vec![4, 5], 6));
        assert_eq!((bench.tally.frames_out.read(), bench.tally.lost_in_all()), (6, 0));
        // After a while trains are tried again.
        for _ in 1..TRAINS_AGAIN_BURSTS {
            bench.take(6, &[10]);
            bench.flush();
        }
        bench.arrived();
        let before = bench.tally.trains_out.read();
        bench.take(7, &[100, 100]);
        bench.flush();
        assert_eq!((bench.arrived(), bench.tally.trains_out.read()), (vec![7, 8], before + 1));
    }

    #[test]
    fn a_train_cut_short_half_way_goes_on_where_it_stopped() {
        let forced = [Errno(libc::EINVAL), Take(1), Take(1), Errno(libc::EAGAIN)];
        let mut bench = bench(forced);
        bench.take(0, &[100, 100, 100, 40]);
        bench.flush();
        assert_eq!(bench.arrived(), [0, 1]);
        bench.flush();
        assert_eq!(bench.arrived(), [2, 3]);
        assert_eq!((bench.tally.frames_out.read(), bench.tally.lost_in_all()), (4, 0));
    }

    #[test]
    fn a_train_too_wide_for_the_path_loses_only_the_frames_that_are() {
        let mut bench = bench([Errno(libc::EMSGSIZE), Errno(libc::EMSGSIZE), Take(1)]);
        bench.take(0, &[100, 40]);
        bench.flush();
        assert_eq!(bench.arrived(), [1]);
        assert_eq!(bench.tally.lost(Loss::PathTooNarrow), 1);
        // The path still takes trains of shorter frames.
        bench.take(2, &[50, 50]);
        bench.flush();
        assert_eq!((bench.arrived(), bench.tally.trains_out.read()), (vec![2, 3], 2));
    }

    #[test]
    fn a_train_of_frames_too_long_for_the_interface_is_no_path_without_trains() {
        // What the kernel says to the train, and to each long frame of it.
        let mut bench = bench([Errno(libc::EINVAL), Errno(libc::EMSGSIZE), Errno(libc::EMSGSIZE)]);
        bench.take(0, &[200, 200, 40]);
        bench.flush();
        assert_eq!((bench.arrived(), bench.tally.lost(Loss::PathTooNarrow)), (vec![2], 2));
        bench.take(3, &[50, 50]);
        bench.flush();
        assert_eq!((bench.arrived(), bench.tally.trains_out.read()), (vec![3, 4], 2));
    }

    #[test]
    fn what_waits_when_the_port_ends_is_counted() {
        let mut bench = bench([Take(1), Errno(libc::EAGAIN)]);
        bench.take(0, &[100, 200, 200]);
        bench.flush();
        let Bench { outbox, tally, mut pool, .. } = bench;
        drop(outbox);
        assert_eq!(tally.lost(Loss::SendRefused), 2);
        assert_eq!(pool.free(ChunkClass::Train), 200);
    }
}
