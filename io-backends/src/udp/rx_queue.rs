//! What both receiving halves do with a datagram once they have it: count it, ask whose it is, cut
//! it into frames. It never makes a system call.

use std::sync::Arc;

use arrayvec::ArrayVec;
use strowger_frame::{
    BURST_MAX, Burst, Chunk, Loss, Mark, Train,
    port::{KernelDrop, PortTally},
};

use super::{
    control::{Arrival, Fault},
    name::Key,
    neighbours::Neighbours,
    sources::Sources,
};

/// The train that is being cut, and the counts.
#[derive(Debug)]
pub(super) struct RxQueue {
    /// Longer than a burst had room: it goes on with the next.
    train: Option<Train>,
    mark: Mark,
    /// The kernel's count of drops when it was last told; it wraps. It counts buffers, so a train
    /// that was dropped whole counts as one.
    drops_seen: u32,
    /// Who sent frames of this burst without being a neighbour, by their marks' numbers; `None`
    /// where unknown senders are not welcome.
    unknown_senders: Option<ArrayVec<Key, UNKNOWN_SENDERS_MAX>>,
    /// Where the socket is bound to all addresses: to which of them each datagram was sent.
    sources: Option<Sources>,
    tally: Arc<PortTally>,
}

/// Unknown peers in one burst at most: the one whose train is still being cut, and one for each frame.
const UNKNOWN_SENDERS_MAX: usize = BURST_MAX + 1;

impl RxQueue {
    pub(super) fn new(tally: Arc<PortTally>) -> Self {
        Self {
            train: None,
            mark: Mark::default(),
            drops_seen: 0,
            unknown_senders: None,
            sources: None,
            tally,
        }
    }

    /// From now on, the address of ours is kept that each datagram was sent to.
    pub(super) fn keep_sources(&mut self) {
        self.sources = Some(Sources::new());
    }

    /// Where datagrams from this address, or this frame of the burst, were sent to.
    pub(super) fn sources(&self) -> Option<&Sources> {
        self.sources.as_ref()
    }

    #[cold]
    fn note_source(
        &mut self,
        neighbours: &mut Neighbours,
        mark: Result<Mark, Loss>,
        arrival: &Arrival,
        at: usize,
    ) {
        let (Some(sources), Some(from), Some(to)) = (&mut self.sources, arrival.from, arrival.to)
        else {
            return;
        };
        sources.note(from, to, at, arrival.bytes);
        if let Ok(mark) = mark {
            neighbours.heard_at(mark, to);
        }
    }

    pub(super) fn accept_unknown(&mut self, accept: bool) {
        self.unknown_senders = accept.then(ArrayVec::new);
    }

    /// A new burst begins: unknown senders of the last one are forgotten, but for whose train is at hand.
    #[inline]
    pub(super) fn begin(&mut self) {
        let is_cutting = self.train.is_some();
        if let Some(sources) = &mut self.sources {
            sources.begin(is_cutting);
        }
        let Some(unknown_senders) = &mut self.unknown_senders else { return };
        if self.train.is_some() && self.mark.is_unknown() {
            // Frames of the train are marked already, so its sender must keep its number.
            unknown_senders.truncate(usize::from(self.mark.0 as u8) + 1);
        } else {
            unknown_senders.clear();
        }
    }

    /// The unknown peer under this mark.
    pub(super) fn stranger(&self, mark: Mark) -> Option<&Key> {
        self.unknown_senders.as_ref()?.get(usize::from(mark.0 as u8)).filter(|_| mark.is_unknown())
    }

    /// A mark for an unknown peer, if such are welcome and there is room for one more.
    #[cold]
    fn stranger_mark(&mut self, from: Key) -> Option<Mark> {
        let unknown_senders = self.unknown_senders.as_mut()?;
        let known = unknown_senders.iter().position(|known| *known == from);
        let number = known.unwrap_or(unknown_senders.len());
        if known.is_none() {
            unknown_senders.try_push(from).ok()?;
        }
        Some(Mark::unknown(number as u8))
    }

    /// The pool has no chunk to receive into: what has arrived stays in the socket.
    #[cold]
    pub(super) fn note_pool_empty(&self) {
        self.tally.kernel_drops.add(KernelDrop::PoolEmpty, 1);
    }

    /// Whether frames are waiting that have been received already.
    pub(super) fn is_cutting(&self) -> bool {
        self.train.is_some()
    }

    /// Moves frames of the train at hand into `burst`; `false` when the burst is full.
    #[inline]
    pub(super) fn cut(&mut self, burst: &mut Burst) -> bool {
        let Some(train) = &mut self.train else { return !burst.is_full() };
        while !burst.is_full() {
            let Some(frame) = train.next_frame() else {
                self.train = None;
                return true;
            };
            burst.push(frame);
        }
        if train.remaining() == 0 {
            self.train = None;
        }
        false
    }

    /// Takes in what lies in `chunk` from `start` on. Only called when no train is at hand and
    /// `burst` has room.
    #[inline]
    pub(super) fn take(
        &mut self,
        neighbours: &mut Neighbours,
        chunk: Chunk,
        start: usize,
        arrival: &Arrival,
        burst: &mut Burst,
    ) {
        debug_assert!(self.train.is_none() && !burst.is_full());
        let frames = arrival.frames();
        self.tally.frames_in.add(frames);
        self.tally.bytes_in.add(arrival.bytes as u64);
        self.tally.trains_in.add(1);
        if let Some(drops) = arrival.drops {
            let new = u64::from(drops.wrapping_sub(self.drops_seen));
            self.tally.kernel_drops.add(KernelDrop::SocketFull, new);
            self.drops_seen = drops;
        }
        let whole = start + arrival.bytes <= chunk.room();
        let mark = match arrival.fault {
            Some(Fault::Truncated) => Err(Loss::Truncated),
            Some(Fault::Malformed) => Err(Loss::Malformed),
            None if !whole => Err(Loss::Malformed),
            None => arrival
                .from
                .and_then(|from| neighbours.mark_of(from).or_else(|| self.stranger_mark(from)))
                .ok_or(Loss::UnknownSender),
        };
        if self.sources.is_some() {
            let at = chunk.at().as_ptr().addr() + start;
            self.note_source(neighbours, mark, arrival, at);
        }
        match mark {
            Err(loss) => self.tally.count_loss(loss, frames),
            Ok(mark) if frames == 1 => {
                let mut frame = chunk.into_frame(start, arrival.bytes);
                frame.set_mark(mark);
                burst.push(frame);
            }
            Ok(mark) => {
                let train = chunk.into_train(start, arrival.bytes, arrival.segment);
                self.train = Some(train.with_mark(mark));
                self.mark = mark;
                self.cut(burst);
            }
        }
    }

    /// What is still to be cut came from this neighbour: it is an unknown peer now.
    pub(super) fn forget(&mut self, mark: Mark) {
        if self.mark != mark {
            return;
        }
        if let Some(mut train) = self.train.take() {
            let rest = std::iter::from_fn(|| train.next_frame()).count();
            self.tally.count_loss(Loss::UnknownSender, rest as u64);
        }
    }
}
