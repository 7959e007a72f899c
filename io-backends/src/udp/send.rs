//! Sends frames: selects the socket for each frame, and handles full sockets.
//!
//! Payload is not copied, and each frame is counted.
//!
//! Sends do not use io_uring, even if receives do. Measured together with an io_uring receive,
//! sendmmsg was as fast as io_uring sends, or 5 to 15 % faster. It needs no bookkeeping of sends in
//! flight, and both backends share it.

use std::{net::SocketAddr, sync::Arc};

use arrayvec::ArrayVec;
use strowger_frame::{BURST_MAX, Burst, Frame, Loss, Mark, port::PortTally};

use super::{
    control::Source,
    limits::{DIRECT_ERRORS_MAX, FRAMES_WAITING_MAX, MESSAGES_MAX, STALLED_FLUSHES},
    name::{Key, Name},
    neighbours::{Neighbour, Neighbours},
    queue::{Flushed, Queue, is_full, loss_of, send_alone},
    send_sockets::{Placement, SendBy, SendSockets},
};

/// Frames that `tx_burst` has accepted and `flush` has not yet sent.
pub(super) struct TxQueue {
    /// Messages for the shared socket.
    shared: Queue,
    /// Messages for a spare socket. The call that fills this queue also empties it.
    spare: Queue,
    /// Number of the current round. Frames do not join a message of an earlier round. A flush of
    /// waiting frames begins a new round, and so does a send on a spare socket.
    round: u64,
    /// Maximum number of frames in a message. It is 1 without segmentation offload.
    segments_max: u32,
    /// Number of consecutive flushes in which the kernel accepted nothing.
    stalled: u32,
    /// The last addresses to which the kernel refused a frame of `send_now`, each with the errno. A
    /// full socket and a frame that is too long are not recorded.
    direct_errors: ArrayVec<(Key, i32), DIRECT_ERRORS_MAX>,
    tally: Arc<PortTally>,
}

/// Assumed overhead of a frame in the send buffer, before it is known whether it joins a message.
const FRAME_COST_BYTES: usize = 256;

impl TxQueue {
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
            self.tally.count_loss(Loss::NoNeighbour, frames.len() as u64);
            frames.clear();
            return;
        };
        if sockets.is_congested() || neighbour.send_state.by != SendBy::Shared {
            return self.tx_congested(sockets, neighbours, to, frames);
        }
        // Each frame may need its own message.
        let taken = frames.len().min(self.shared.room());
        self.share(neighbour, frames, taken);
    }

    /// Moves the first `taken` frames of `frames` to the queue of the shared socket.
    #[inline]
    fn share(&mut self, neighbour: &mut Neighbour, frames: &mut Burst, taken: usize) {
        if taken == 0 {
            return;
        }
        // Frames join the neighbour's last message of this round, even if frames to other
        // neighbours were added in between: order is kept per neighbour, not between neighbours.
        let open = (neighbour.round == self.round).then_some(neighbour.open as usize);
        let segments_max = neighbour.segments_max(self.segments_max, &self.tally);
        let open = self.shared.take(neighbour, frames.drain(..taken), open, segments_max);
        neighbour.open = open as u32;
        neighbour.round = self.round;
    }

    /// As [`tx_burst`](Self::tx_burst), under congestion. It accepts frames up to the neighbour's
    /// allowance. The others stay in `frames`, or are dropped if the neighbour's frames are stuck.
    #[cold]
    fn tx_congested(
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
                Placement::Shared(bytes) => {
                    let (taken, cost) = fitting(bytes, frames);
                    let taken = taken.min(self.shared.room());
                    if taken == 0 {
                        return;
                    }
                    sockets.spend(&mut neighbour.send_state, cost);
                    self.share(neighbour, frames, taken);
                }
                Placement::Spare(number, bytes) => {
                    // Frames to the same neighbour that wait in the shared queue must be sent
                    // first.
                    if neighbour.round == self.round && !self.is_empty() {
                        self.flush(sockets, neighbours);
                    }
                    if self.shared.has(to) {
                        return;
                    }
                    let (taken, _) = fitting(bytes, frames);
                    self.send_by_spare(sockets, neighbours, (to, number), frames, taken);
                }
                Placement::Later => return,
                Placement::Lost => {
                    self.tally.count_loss(Loss::SendStalled, frames.len() as u64);
                    frames.clear();
                }
            }
        }
    }

    /// Sends the first `taken` frames immediately on a spare socket.
    ///
    /// Frames that the socket does not accept are dropped. The neighbour has not used up its
    /// allowance, so a full socket is full of frames of earlier probes.
    fn send_by_spare(
        &mut self,
        sockets: &mut SendSockets,
        neighbours: &mut Neighbours,
        (to, number): (Mark, u8),
        frames: &mut Burst,
        taken: usize,
    ) {
        let Some(neighbour) = neighbours.at_mut(to) else { return };
        let segments_max = neighbour.segments_max(self.segments_max, &self.tally);
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

    /// Sends waiting frames until the kernel accepts no more.
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

    /// Sends one frame to an address immediately, before the frames that wait for neighbours.
    ///
    /// A frame that the kernel refuses because of its length counts as `too_long`.
    pub(super) fn send_now(
        &mut self,
        sockets: &SendSockets,
        (to, source): (SocketAddr, Option<Source>),
        frame: &Frame,
        too_long: Loss,
    ) {
        let bytes = frame.bytes();
        let mut sent = Err(libc::EAGAIN);
        for socket in sockets.direct() {
            sent = send_alone(socket, &Name::of(to), source, bytes.as_ptr(), bytes.len());
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
            Err(errno) if is_full(errno) => self.tally.count_loss(Loss::SendStalled, 1),
            Err(libc::EMSGSIZE) => self.tally.count_loss(too_long, 1),
            Err(errno) => {
                self.tally.count_loss(loss_of(errno), 1);
                if self.direct_errors.is_full() {
                    self.direct_errors.pop_at(0);
                }
                self.direct_errors.push((key, errno));
            }
        }
    }

    /// The errno with which the kernel refused the last `send_now` to this address. It is `None` if
    /// that send succeeded or if newer errors have replaced this one.
    pub(super) fn direct_error(&self, to: &Key) -> Option<i32> {
        let found = self.direct_errors.iter().find(|(refused, _)| refused == to);
        found.map(|(_, errno)| *errno)
    }
}

/// Returns the number of frames from the front that fit into `bytes` of a send buffer, at least
/// one, and the size that the buffer is charged for them.
fn fitting(bytes: usize, frames: &Burst) -> (usize, usize) {
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use strowger_frame::{ChunkClass, Pool, PoolSpec};

    use super::*;
    use crate::udp::{
        limits::TRAINS_AGAIN_BURSTS,
        socket::{
            Forced::{self, Errno, Take},
            Socket,
        },
    };

    const TOO_LONG: Loss = Loss::PathTooNarrow;

    struct Bench {
        pool: Pool,
        sockets: SendSockets,
        sink: Socket,
        neighbours: Neighbours,
        tx_queue: TxQueue,
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
        Bench { pool, sockets, sink, neighbours, tx_queue: TxQueue::new(64, tally.clone()), tally }
    }

    impl Bench {
        /// Queues one frame of each length. The first two bytes of a frame are its number.
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
            self.tx_queue.tx_burst(&mut self.sockets, &mut self.neighbours, Mark(0), &mut burst);
            assert!(burst.is_empty());
        }

        fn flush(&mut self) {
            self.tx_queue.flush(&mut self.sockets, &mut self.neighbours);
        }

        /// The numbers of the received frames.
        fn arrived(&self) -> Vec<u16> {
            let mut bytes = [0_u8; 2048];
            std::iter::from_fn(|| {
                let at = bytes.as_mut_ptr().cast();
                // SAFETY: `bytes` has this length and outlives the call.
                let received =
                    unsafe { libc::recv(self.sink.fd(), at, bytes.len(), libc::MSG_DONTWAIT) };
                (received > 1).then(|| u16::from_be_bytes([bytes[0], bytes[1]]))
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
            assert!(!bench.tx_queue.is_empty() && bench.arrived().is_empty());
            bench.take(3, &[300, 300]);
            bench.flush();
            assert_eq!(bench.arrived(), [1, 2, 3, 4]);
            assert!(bench.tx_queue.is_empty());
            assert_eq!(bench.tally.total_lost(), 0);
            assert_eq!(bench.pool.free(ChunkClass::Train), 200);
        }
    }

    #[test]
    fn messages_that_were_sent_release_their_memory_while_the_rest_waits() {
        // The kernel accepts two of three messages. Frames to the two neighbours alternate.
        let mut bench = bench([Take(2), Errno(libc::EAGAIN)]);
        let other: SocketAddr = "127.0.0.1:9".parse().unwrap();
        bench.neighbours.admit(Mark(1), other).unwrap();
        bench.take(0, &[100, 100]);
        let mut burst: Burst =
            [bench.pool.take(ChunkClass::Train).unwrap().into_frame(256, 7)].into_iter().collect();
        let Bench { tx_queue, sockets, neighbours, .. } = &mut bench;
        tx_queue.tx_burst(sockets, neighbours, Mark(1), &mut burst);
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
    fn frames_that_the_kernel_does_not_take_for_long_are_dropped_and_counted() {
        let forever = STALLED_FLUSHES as usize;
        let mut bench = bench(std::iter::repeat_n(Errno(libc::EAGAIN), forever));
        bench.take(0, &[100, 200, 300]);
        for flush in 1..=STALLED_FLUSHES {
            assert_eq!(bench.tx_queue.is_empty(), flush > STALLED_FLUSHES);
            bench.flush();
        }
        assert!(bench.tx_queue.is_empty());
        assert_eq!(bench.tally.lost(Loss::SendStalled), 3);
        assert_eq!(bench.pool.free(ChunkClass::Train), 200);
        bench.take(3, &[100]);
        bench.flush();
        assert_eq!(bench.arrived(), [3]);
    }

    #[test]
    fn another_socket_replaces_a_full_one_and_order_holds() {
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
        assert!(bench.tx_queue.is_empty() && bench.sockets.is_congested());
        // Under congestion, frames are still sent in order, on whichever socket.
        for first in (5..400).step_by(5) {
            bench.take(first, &[1400, 1400, 1400, 1400, 900]);
            bench.flush();
            let expected: Vec<u16> = (first..first + 5).collect();
            assert_eq!(bench.arrived(), expected);
        }
        assert_eq!(bench.tally.total_lost(), 0);
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
        bench.tx_queue.send_now(&bench.sockets, (to, None), &frame, TOO_LONG);
        assert_eq!(bench.tally.lost(Loss::SendStalled), 1, "all are full");
        bench.sockets.receiving().forced.borrow_mut().clear();
        bench.tx_queue.send_now(&bench.sockets, (to, None), &frame, TOO_LONG);
        assert_eq!((bench.arrived().len(), bench.tally.frames_out.read()), (1, 1));
    }

    #[test]
    fn a_probe_that_is_too_long_for_the_path_counts_as_path_probe() {
        let mut bench = bench([Errno(libc::EMSGSIZE); 2]);
        let to = (bench.sink.local().unwrap(), None);
        let frame = bench.pool.take(ChunkClass::Train).unwrap().into_frame(256, 2);
        bench.tx_queue.send_now(&bench.sockets, to, &frame, Loss::PathProbe);
        bench.tx_queue.send_now(&bench.sockets, to, &frame, Loss::PathTooNarrow);
        let lost = |loss| bench.tally.lost(loss);
        assert_eq!((lost(Loss::PathProbe), lost(Loss::PathTooNarrow)), (1, 1));
        assert_eq!(bench.tally.total_lost(), 2);
    }

    #[test]
    fn the_last_send_error_is_kept_until_a_send_succeeds() {
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
        bench.tx_queue.send_now(&bench.sockets, (far, None), &frame, TOO_LONG);
        assert_eq!(bench.tx_queue.direct_error(&Key::of(far)), Some(libc::ENETUNREACH));
        assert_eq!(bench.tx_queue.direct_error(&at), None);
    }

    #[test]
    fn a_source_address_that_is_gone_is_forgotten_and_no_frame_is_lost() {
        let mut bench = bench([]);
        let gone = Source(0xc000_0201); // 192.0.2.1
        for (first, lens) in [(0, &[100][..]), (1, &[100, 100, 40]), (4, &[100, 200])] {
            bench.neighbours.authenticated_at(Mark(0), gone);
            bench.take(first, lens);
            bench.flush();
            let expected: Vec<u16> = (first..first + lens.len() as u16).collect();
            assert_eq!(bench.arrived(), expected);
            let sink = Key::of(bench.sink.local().unwrap());
            assert_eq!(bench.neighbours.source_for(&sink), None);
        }
        let frame = bench.pool.take(ChunkClass::Train).unwrap().into_frame(256, 2);
        let to = (bench.sink.local().unwrap(), Some(gone));
        bench.tx_queue.send_now(&bench.sockets, to, &frame, TOO_LONG);
        assert_eq!((bench.arrived().len(), bench.tally.total_lost()), (1, 0));
        assert_eq!(bench.tally.trains_out.read(), 5, "the train stayed one");
    }

    #[test]
    fn a_full_queue_leaves_frames_with_the_caller() {
        let mut bench = bench([Errno(libc::EAGAIN); 6]);
        for round in 0..5 {
            let mut burst: Burst = (0..64)
                .filter_map(|n| Some(bench.pool.take(ChunkClass::Train)?.into_frame(256, 2 + n)))
                .collect();
            let before = burst.len();
            let Bench { tx_queue, sockets, neighbours, .. } = &mut bench;
            tx_queue.tx_burst(sockets, neighbours, Mark(0), &mut burst);
            tx_queue.flush(sockets, neighbours);
            assert!(burst.is_empty() || round >= 3, "{} of {before} left", burst.len());
        }
        assert!(bench.tx_queue.shared.messages.len() <= MESSAGES_MAX);
    }

    #[test]
    fn a_refused_message_is_counted_and_the_next_ones_are_sent() {
        let mut bench = bench([Errno(libc::EPERM), Errno(libc::EMSGSIZE)]);
        bench.take(0, &[100, 200, 300]);
        bench.flush();
        assert_eq!(bench.arrived(), [2]);
        assert_eq!(bench.tally.lost(Loss::SendRefused), 1);
        assert_eq!(bench.tally.lost(Loss::PathTooNarrow), 1);
        assert_eq!(bench.tally.frames_out.read(), 1);
    }

    #[test]
    fn an_error_of_an_earlier_datagram_is_retried_once() {
        let mut bench = bench([Errno(libc::ECONNREFUSED)]);
        bench.take(0, &[100]);
        bench.flush();
        assert_eq!((bench.arrived(), bench.tally.total_lost()), (vec![0], 0));
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
        assert_eq!((bench.tally.frames_out.read(), bench.tally.total_lost()), (6, 0));
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
        assert_eq!(bench.tally.trains_refused.read(), 1);
        assert_eq!(bench.tally.trains_retried.read(), 1);
    }

    #[test]
    fn a_train_that_stops_half_way_continues_where_it_stopped() {
        let forced = [Errno(libc::EINVAL), Take(1), Take(1), Errno(libc::EAGAIN)];
        let mut bench = bench(forced);
        bench.take(0, &[100, 100, 100, 40]);
        bench.flush();
        assert_eq!(bench.arrived(), [0, 1]);
        bench.flush();
        assert_eq!(bench.arrived(), [2, 3]);
        assert_eq!((bench.tally.frames_out.read(), bench.tally.total_lost()), (4, 0));
    }

    #[test]
    fn a_train_too_long_for_the_path_loses_only_the_frames_that_are() {
        let mut bench = bench([Errno(libc::EMSGSIZE), Errno(libc::EMSGSIZE), Take(1)]);
        bench.take(0, &[100, 40]);
        bench.flush();
        assert_eq!(bench.arrived(), [1]);
        assert_eq!(bench.tally.lost(Loss::PathTooNarrow), 1);
        // The path still accepts trains of shorter frames.
        bench.take(2, &[50, 50]);
        bench.flush();
        assert_eq!((bench.arrived(), bench.tally.trains_out.read()), (vec![2, 3], 2));
    }

    #[test]
    fn a_train_of_frames_too_long_for_the_interface_does_not_disable_trains() {
        // The kernel returns these errors for the train and for each long frame.
        let mut bench = bench([Errno(libc::EINVAL), Errno(libc::EMSGSIZE), Errno(libc::EMSGSIZE)]);
        bench.take(0, &[200, 200, 40]);
        bench.flush();
        assert_eq!((bench.arrived(), bench.tally.lost(Loss::PathTooNarrow)), (vec![2], 2));
        bench.take(3, &[50, 50]);
        bench.flush();
        assert_eq!((bench.arrived(), bench.tally.trains_out.read()), (vec![3, 4], 2));
    }

    #[test]
    fn frames_that_wait_when_the_port_is_dropped_are_counted() {
        let mut bench = bench([Take(1), Errno(libc::EAGAIN)]);
        bench.take(0, &[100, 200, 200]);
        bench.flush();
        let Bench { tx_queue, tally, mut pool, .. } = bench;
        drop(tx_queue);
        assert_eq!(tally.lost(Loss::SendRefused), 2);
        assert_eq!(pool.free(ChunkClass::Train), 200);
    }
}
