//! Sending: frames that may ride together become one message with `UDP_SEGMENT`, and all messages
//! of a round go to the kernel in one sendmmsg. It never copies payload and never lets a frame
//! go uncounted.
//!
//! Sends do not go through io_uring, even where receives do: beside an io_uring receive a direct
//! sendmmsg was measured as fast or 5 to 15 % faster, it needs no bookkeeping of sends in flight,
//! and both backends can share it.

use std::{net::SocketAddr, sync::Arc};

use strowger_frame::{Burst, Frame, Held, Loss, Mark, port::PortTally};

use super::{
    control::{CONTROL_MESSAGE_BYTES, ControlRoom, segment_message},
    limits::{DATAGRAM_BYTES_MAX, FRAMES_WAITING_MAX, MESSAGES_MAX, PIECES_MAX},
    name::Name,
    neighbours::Neighbours,
    socket::{Socket, empty_header, send_messages},
};

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

/// What `tx_burst` has taken and `flush` has not yet sent.
pub(super) struct Outbox {
    /// In order; those before `first` have gone.
    messages: Vec<Message>,
    first: usize,
    /// Frames of `messages[first]` that have gone one by one, since `refusal` befell it.
    gone: u32,
    refusal: i32,
    vectors: Vec<libc::iovec>,
    /// Memory of all frames in `messages`. Given up when the last message has gone.
    held: Vec<Held>,
    frames: usize,
    /// Built from `messages` for each call, so that no pointer is kept from one to the next.
    headers: Vec<libc::mmsghdr>,
    controls: Vec<ControlRoom<CONTROL_MESSAGE_BYTES>>,
    /// Raised by each flush: a message that one has seen takes no more frames.
    round: u64,
    /// Frames in a message at most; 1 where the kernel does not cut.
    segments_max: u32,
    tally: Arc<PortTally>,
}

// SAFETY: the pointers lead into chunks that `held` keeps, and go where it goes.
unsafe impl Send for Outbox {}

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
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            messages: Vec::with_capacity(MESSAGES_MAX),
            first: 0,
            gone: 0,
            refusal: 0,
            vectors: vec![vector; MESSAGES_MAX * PIECES_STRIDE],
            held: Vec::with_capacity(FRAMES_WAITING_MAX),
            frames: 0,
            headers: vec![empty_header(); MESSAGES_MAX],
            controls: vec![ControlRoom::EMPTY; MESSAGES_MAX],
            round: 0,
            segments_max: segments_max.max(1) as u32,
            tally,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn tx_burst(
        &mut self,
        socket: &Socket,
        neighbours: &mut Neighbours,
        to: Mark,
        frames: &mut Burst,
    ) {
        let most = frames.len();
        if self.messages.len() + most > MESSAGES_MAX || self.frames + most > FRAMES_WAITING_MAX {
            self.flush(socket, neighbours);
        }
        let Some(neighbour) = neighbours.at_mut(to) else {
            self.tally.lose(Loss::NoNeighbour, most as u64);
            frames.clear();
            return;
        };
        // Each frame may turn out to need a message of its own.
        let room = (MESSAGES_MAX - self.messages.len()).min(FRAMES_WAITING_MAX - self.frames);
        let taken = most.min(room);
        if taken == 0 {
            return;
        }
        let segments_max = if neighbour.takes_trains { self.segments_max } else { 1 };
        // Frames join the neighbour's last message of this round, whatever was taken for others
        // since: order is promised to each neighbour, not among them.
        let mut open = (neighbour.round == self.round).then_some(neighbour.open as usize);
        for frame in frames.drain(..taken) {
            let joined = open.is_some_and(|at| self.join(at, &frame, segments_max));
            if !joined {
                open = Some(self.begin(neighbour.name, to, &frame));
            }
            self.hold(frame);
        }
        self.frames += taken;
        neighbour.open = open.unwrap_or_default() as u32;
        neighbour.round = self.round;
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
    fn hold(&mut self, frame: Frame) {
        let alone = match self.held.last_mut() {
            Some(held) => held.join(frame),
            None => Err(frame),
        };
        if let Err(frame) = alone {
            self.held.push(Held::new(frame));
        }
    }

    /// Sends all that waits, as far as the kernel takes it.
    pub(super) fn flush(&mut self, socket: &Socket, neighbours: &mut Neighbours) {
        if self.messages.is_empty() {
            return;
        }
        self.round += 1;
        self.write_headers();
        let mut old_news = false;
        while self.first < self.messages.len() {
            if self.gone > 0 {
                match self.send_singly(socket, neighbours, self.refusal) {
                    Single::Done => continue,
                    Single::Blocked => return,
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
                Err(errno) if is_full(errno) => return,
                Err(errno) if is_old_news(errno) && !old_news => old_news = true,
                Err(errno) => {
                    old_news = false;
                    if self.messages[self.first].frames > 1 {
                        if let Single::Blocked = self.send_singly(socket, neighbours, errno) {
                            return;
                        }
                    } else {
                        self.tally.lose(loss_of(errno), 1);
                        self.first += 1;
                    }
                }
            }
        }
        self.messages.clear();
        self.held.clear();
        (self.first, self.frames) = (0, 0);
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
                        // Some kernels call a segment that is too long EINVAL, too; then
                        // only a shorter last frame goes.
                        if errno != libc::EMSGSIZE
                            && len == message.segment as usize
                            && let Some(neighbour) = neighbours.at_mut(message.mark)
                            && neighbour.name == message.name
                        {
                            neighbour.takes_trains = false;
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

impl Outbox {
    /// Sends one frame to whoever is there, past whatever waits for neighbours.
    pub(super) fn send_now(&mut self, socket: &Socket, to: SocketAddr, frame: &Frame) {
        let bytes = frame.bytes();
        match send_alone(socket, &Name::of(to), bytes.as_ptr(), bytes.len()) {
            Ok(()) => {
                self.tally.frames_out.add(1);
                self.tally.bytes_out.add(bytes.len() as u64);
                self.tally.trains_out.add(1);
            }
            Err(errno) => self.tally.lose(loss_of(errno), 1),
        }
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

impl Drop for Outbox {
    fn drop(&mut self) {
        let waiting = self.messages.iter().skip(self.first).map(|message| message.frames);
        let lost = waiting.sum::<u32>() - self.gone;
        self.tally.lose(Loss::SendRefused, u64::from(lost));
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
        socket: Socket,
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
        Bench { pool, socket, sink, neighbours, outbox: Outbox::new(64, tally.clone()), tally }
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
            self.outbox.tx_burst(&self.socket, &mut self.neighbours, Mark(0), &mut burst);
            assert!(burst.is_empty());
        }

        fn flush(&mut self) {
            self.outbox.flush(&self.socket, &mut self.neighbours);
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
    fn a_full_outbox_leaves_frames_with_the_caller() {
        let mut bench = bench([Errno(libc::EAGAIN); 6]);
        for round in 0..5 {
            let mut burst: Burst = (0..64)
                .filter_map(|n| Some(bench.pool.take(ChunkClass::Train)?.into_frame(256, 2 + n)))
                .collect();
            let before = burst.len();
            let Bench { outbox, socket, neighbours, .. } = &mut bench;
            outbox.tx_burst(socket, neighbours, Mark(0), &mut burst);
            outbox.flush(socket, neighbours);
            assert!(burst.is_empty() || round >= 3, "{} of {before} left", burst.len());
        }
        assert!(bench.outbox.messages.len() <= MESSAGES_MAX);
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
        bench.socket.forced.borrow_mut().extend([Errno(libc::ENETUNREACH); 2]);
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
