//! Handles the datagrams that either backend has received.
//!
//! It counts the datagrams, finds their neighbours and cuts trains into frames. It makes no system
//! calls.

use std::sync::Arc;

use arrayvec::ArrayVec;
use strowger_frame::{
    BURST_MAX, Burst, Chunk, Loss, Mark, Train,
    port::{KernelDrop, PortTally},
};

use super::{
    control::{DatagramInfo, Fault},
    name::Key,
    neighbours::Neighbours,
    sources::Sources,
};

/// The receiving state of a port: the rest of a train that is being cut into frames, the unknown
/// senders and local addresses of the burst, and the counters.
#[derive(Debug)]
pub(super) struct RxQueue {
    /// The rest of a train that did not fit into the last burst.
    train: Option<Train>,
    mark: Mark,
    /// The last value of the kernel's drop counter, which wraps. It counts buffers, so a dropped
    /// train counts as one.
    drops_seen: u32,
    /// The unknown senders of this burst, indexed by the numbers of their marks. It is `None` if
    /// frames from unknown senders are not accepted.
    unknown_senders: Option<ArrayVec<Key, UNKNOWN_SENDERS_MAX>>,
    /// On a wildcard socket, the local address to which each datagram was sent.
    sources: Option<Sources>,
    tally: Arc<PortTally>,
}

/// Maximum number of unknown senders in one burst: one for each frame, and the sender of the train
/// that is being cut.
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

    /// From now on, records the local address of each datagram.
    pub(super) fn keep_sources(&mut self) {
        self.sources = Some(Sources::new());
    }

    /// The recorded local addresses.
    pub(super) fn sources(&self) -> Option<&Sources> {
        self.sources.as_ref()
    }

    #[cold]
    fn note_source(
        &mut self,
        neighbours: &mut Neighbours,
        mark: Result<Mark, Loss>,
        info: &DatagramInfo,
        at: usize,
    ) {
        let (Some(sources), Some(from), Some(to)) = (&mut self.sources, info.from, info.to) else {
            return;
        };
        sources.note(from, to, at, info.bytes);
        if let Ok(mark) = mark {
            neighbours.heard_at(mark, to);
        }
    }

    pub(super) fn accept_unknown(&mut self, accept: bool) {
        self.unknown_senders = accept.then(ArrayVec::new);
    }

    /// Begins a new burst: forgets unknown senders, but one whose train is being cut keeps its
    /// number.
    #[inline]
    pub(super) fn begin(&mut self) {
        let is_cutting = self.train.is_some();
        if let Some(sources) = &mut self.sources {
            sources.begin(is_cutting);
        }
        let Some(unknown_senders) = &mut self.unknown_senders else { return };
        if self.train.is_some() && self.mark.is_unknown() {
            // The frames of the train already have the mark, so the sender keeps its number.
            unknown_senders.truncate(usize::from(self.mark.0 as u8) + 1);
        } else {
            unknown_senders.clear();
        }
    }

    /// The address of the unknown sender with this mark.
    pub(super) fn unknown_sender(&self, mark: Mark) -> Option<&Key> {
        self.unknown_senders.as_ref()?.get(usize::from(mark.0 as u8)).filter(|_| mark.is_unknown())
    }

    /// Returns a mark for an unknown sender. Returns `None` if unknown senders are not accepted or
    /// if there are too many.
    #[cold]
    fn unknown_mark(&mut self, from: Key) -> Option<Mark> {
        let unknown_senders = self.unknown_senders.as_mut()?;
        let known = unknown_senders.iter().position(|known| *known == from);
        let number = known.unwrap_or(unknown_senders.len());
        if known.is_none() {
            unknown_senders.try_push(from).ok()?;
        }
        Some(Mark::unknown(number as u8))
    }

    /// Counts that the pool had no free chunk. The datagrams stay in the socket.
    #[cold]
    pub(super) fn note_pool_empty(&self) {
        self.tally.kernel_drops.add(KernelDrop::PoolEmpty, 1);
    }

    /// Whether a train is being cut.
    pub(super) fn is_cutting(&self) -> bool {
        self.train.is_some()
    }

    /// Moves frames of the train into `burst`. Returns `false` if the burst is full.
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

    /// Handles the datagram in `chunk`, which begins at `start`.
    ///
    /// Call it only while no train is being cut and `burst` has room.
    #[inline]
    pub(super) fn take(
        &mut self,
        neighbours: &mut Neighbours,
        chunk: Chunk,
        start: usize,
        info: &DatagramInfo,
        burst: &mut Burst,
    ) {
        debug_assert!(self.train.is_none() && !burst.is_full());
        let frames = info.frames();
        self.tally.frames_in.add(frames);
        self.tally.bytes_in.add(info.bytes as u64);
        self.tally.trains_in.add(1);
        if let Some(drops) = info.drops {
            let new = u64::from(drops.wrapping_sub(self.drops_seen));
            self.tally.kernel_drops.add(KernelDrop::SocketFull, new);
            self.drops_seen = drops;
        }
        let whole = start + info.bytes <= chunk.room();
        let mark = match info.fault {
            Some(Fault::Truncated) => Err(Loss::Truncated),
            Some(Fault::Malformed) => Err(Loss::Malformed),
            None if !whole => Err(Loss::Malformed),
            None => info
                .from
                .and_then(|from| neighbours.mark_of(from).or_else(|| self.unknown_mark(from)))
                .ok_or(Loss::UnknownSender),
        };
        if self.sources.is_some() {
            let at = chunk.at().as_ptr().addr() + start;
            self.note_source(neighbours, mark, info, at);
        }
        match mark {
            Err(loss) => self.tally.count_loss(loss, frames),
            Ok(mark) if frames == 1 => {
                let mut frame = chunk.into_frame(start, info.bytes);
                frame.set_mark(mark);
                burst.push(frame);
            }
            Ok(mark) => {
                let train = chunk.into_train(start, info.bytes, info.segment);
                self.train = Some(train.with_mark(mark));
                self.mark = mark;
                self.cut(burst);
            }
        }
    }

    /// Drops the rest of the train if it came from this neighbour, because its sender is unknown
    /// now.
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
