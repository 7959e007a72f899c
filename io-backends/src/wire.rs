//! One end of a wire inside this process: a ring each way, a doorbell at each end, and the news
//! that an end is gone. Frames pass by ownership; nothing is copied, and no frame that was put in
//! is lost without the sender being able to say so.

use std::{io, mem, sync::Arc};

use arrayvec::ArrayVec;
use strowger_frame::{
    Frame, Loss,
    port::{Arm, PortTally},
    ring::{Consumer, Producer, ring},
    sync::{AtomicBool, AtomicU64, Ordering, fence},
};

use crate::{
    doorbell::{Doorbell, DoorbellWaker},
    pinned::Pinned,
};

/// Train chunks that the frames of one direction hold at most: a quarter of a pool of usual size, and
/// what 256 bursts of trains need. A far end that takes nothing holds no more.
const CHUNKS_MAX: usize = 256;

/// What one end tells the other, apart from frames. Written at most once a sleep, and when it ends.
#[derive(Debug)]
struct EndState {
    /// This end could not put all its frames and may sleep until there is room.
    stuck: AtomicBool,
    /// This end is gone; `taken` says how many frames it took in its life.
    gone: AtomicBool,
    taken: AtomicU64,
}

impl Default for EndState {
    fn default() -> Self {
        let (stuck, gone) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { stuck, gone, taken: AtomicU64::new(0) }
    }
}

/// One end: what it sends and receives, what it sleeps beside, and what it counts.
#[derive(Debug)]
pub(crate) struct End {
    tx: Tx,
    rx: Rx,
    bell: Doorbell,
    pub(crate) tally: Arc<PortTally>,
}

/// The sending half of an end.
#[derive(Debug)]
pub(crate) struct Tx {
    to: Producer<Frame>,
    here: Arc<EndState>,
    there: Arc<EndState>,
    put: u64,
    pinned: Pinned,
    /// The last frames did not all go in.
    stuck: bool,
    /// The far end was found gone: what was left in the ring has been given back.
    settled: bool,
    tally: Arc<PortTally>,
    /// Wakes the far end to frames.
    far: DoorbellWaker,
    /// Last: the far end learns that this end is gone when `to` and `from` are dropped.
    _farewell: Arc<CloseNotice>,
}

/// The receiving half of an end.
#[derive(Debug)]
pub(crate) struct Rx {
    from: Consumer<Frame>,
    here: Arc<EndState>,
    there: Arc<EndState>,
    taken: u64,
    /// Frames were taken, and the far end, if stuck, has not been told that there is room.
    drained_untold: bool,
    tally: Arc<PortTally>,
    /// Wakes the far end to room.
    far: DoorbellWaker,
    _farewell: Arc<CloseNotice>,
}

/// Announces that an end is gone, once both of its halves are dropped.
#[derive(Debug)]
struct CloseNotice {
    here: Arc<EndState>,
    /// The bells that the far end sleeps beside.
    far: [DoorbellWaker; 2],
}

impl Drop for CloseNotice {
    fn drop(&mut self) {
        // Release: pairs with Acquire in `put`, `arm` and `is_gone`.
        self.here.gone.store(true, Ordering::Release);
        self.far.iter().for_each(DoorbellWaker::wake);
    }
}

/// What a sleeper waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    FramesOrRoom,
    Room,
}

/// Two ends of a new wire, with room for `depth` frames each way.
pub(crate) fn ends(depth: usize) -> io::Result<(End, End)> {
    let (left, right) = (Doorbell::new()?, Doorbell::new()?);
    let bells = [right.waker(), right.waker()];
    let (left_halves, right_halves) = halves(depth, [left.waker(), left.waker()], bells);
    Ok((End::new(left_halves, left), End::new(right_halves, right)))
}

/// A half of an end, and the bell that it sleeps beside.
pub(crate) type Half<T> = (T, Doorbell);

/// An end as a port has it, and the two halves of the other end, each with a bell of its own.
pub(crate) fn split_ends(depth: usize) -> io::Result<(End, Half<Tx>, Half<Rx>)> {
    let (near, room, frames) = (Doorbell::new()?, Doorbell::new()?, Doorbell::new()?);
    let far = [frames.waker(), room.waker()];
    let (near_halves, (tx, rx)) = halves(depth, [near.waker(), near.waker()], far);
    Ok((End::new(near_halves, near), (tx, room), (rx, frames)))
}

/// The halves of both ends of a new wire, from the bells for frames and for room at each.
fn halves(
    depth: usize,
    left: [DoorbellWaker; 2],
    right: [DoorbellWaker; 2],
) -> ((Tx, Rx), (Tx, Rx)) {
    let (there, back) = (ring(depth), ring(depth));
    let (left_says, right_says) = (Arc::<EndState>::default(), Arc::<EndState>::default());
    let at_left = one_end((there.0, back.1), right, (&left_says, &right_says));
    let at_right = one_end((back.0, there.1), left, (&right_says, &left_says));
    (at_left, at_right)
}

fn one_end(
    (to, from): (Producer<Frame>, Consumer<Frame>),
    far: [DoorbellWaker; 2],
    (here, there): (&Arc<EndState>, &Arc<EndState>),
) -> (Tx, Rx) {
    let [for_frames, for_room] = far.clone();
    let farewell = Arc::new(CloseNotice { here: here.clone(), far });
    let tally: Arc<PortTally> = Arc::default();
    let pinned = Pinned::new(to.capacity().min(CHUNKS_MAX));
    let tx = Tx {
        to,
        here: here.clone(),
        there: there.clone(),
        put: 0,
        pinned,
        stuck: false,
        settled: false,
        tally: tally.clone(),
        far: for_frames,
        _farewell: farewell.clone(),
    };
    let rx = Rx {
        from,
        here: here.clone(),
        there: there.clone(),
        taken: 0,
        drained_untold: false,
        tally,
        far: for_room,
        _farewell: farewell,
    };
    (tx, rx)
}

impl Tx {
    /// Puts frames from the front of `frames`, as far as there is room, and says how many; frames
    /// that can never go are taken and counted. The far end is not woken until [`ring`](Self::ring).
    #[inline]
    pub(crate) fn put<const N: usize>(&mut self, frames: &mut ArrayVec<Frame, N>) -> usize {
        // Acquire: pairs with Release in `CloseNotice::drop`: `taken` is final.
        if self.there.gone.load(Ordering::Acquire) {
            self.settle();
            self.tally.count_loss(Loss::PeerGone, frames.len() as u64);
            frames.clear();
            return 0;
        }
        let offered = bytes_of(frames);
        let mut n = self.to.room(frames.len()).min(frames.len());
        let put = self.put + n as u64;
        if self.pinned.are_few(self.to.waiting_seen() as u64 + n as u64) {
            self.pinned.pass(put);
        } else {
            n = self.enter(&frames[..n]);
        }
        self.to.push_at_most(frames, n);
        self.stuck = !frames.is_empty();
        let bytes = if self.stuck { offered - bytes_of(frames) } else { offered };
        self.put += n as u64;
        self.tally.frames_out.add(n as u64);
        self.tally.bytes_out.add(bytes);
        self.tally.trains_out.add(u64::from(n > 0));
        n
    }

    /// Counts what many frames hold; says how many may go.
    #[cold]
    fn enter(&mut self, frames: &[Frame]) -> usize {
        let waiting = self.to.waiting() as u64;
        let n = frames.len();
        if self.pinned.are_few(waiting + n as u64) {
            self.pinned.pass(self.put + n as u64);
            return n;
        }
        self.pinned.enter(frames, self.put, self.put - waiting)
    }

    /// Whether a frame may be put, as far as can be seen now.
    fn has_room(&self) -> bool {
        let waiting = self.to.waiting();
        waiting < self.to.capacity() && !self.pinned.is_full(self.put - waiting as u64)
    }

    /// Wakes the far end, if it sleeps, to what was put.
    #[inline]
    pub(crate) fn ring(&self) {
        self.far.wake();
    }

    pub(crate) fn is_gone(&self) -> bool {
        // Acquire: as in `put`.
        self.there.gone.load(Ordering::Acquire)
    }

    /// Falls asleep beside `bell`, the far end's bell for room, unless there is room or the far end
    /// is gone. Says whether to sleep.
    pub(crate) fn arm_for_room(&mut self, bell: &mut Doorbell) -> bool {
        // Relaxed: the fence in the doorbell orders it.
        self.here.stuck.store(true, Ordering::Relaxed);
        bell.arm(); // SeqCst fence: pairs with those in `ring` and `tell_drained`
        if !self.has_room() && !self.is_gone() {
            return true;
        }
        self.disarm(bell);
        false
    }

    pub(crate) fn disarm(&self, bell: &mut Doorbell) {
        // Relaxed: a stale hint costs the far end one ring too many.
        self.here.stuck.store(false, Ordering::Relaxed);
        bell.disarm();
    }

    /// The far end is gone: what it left in the ring was not taken after all. Gives that memory
    /// back and counts it as lost. The ring itself stays until this end is dropped, which is not
    /// done by a worker: workers free nothing (R13).
    #[cold]
    pub(crate) fn settle(&mut self) {
        if mem::replace(&mut self.settled, true) {
            return;
        }
        let cleared = self.to.clear_disconnected();
        // Relaxed: `gone` was read with Acquire, and `taken` was written before it.
        let left_behind = self.put - self.there.taken.load(Ordering::Relaxed);
        debug_assert_eq!(cleared, Some(left_behind as usize), "its consumer went before the news");
        self.stuck = false;
        self.tally.frames_out.set(self.tally.frames_out.read() - left_behind);
        self.tally.count_loss(Loss::PeerGone, left_behind);
    }

    pub(crate) fn tally(&self) -> &Arc<PortTally> {
        &self.tally
    }
}

impl Rx {
    /// Takes as many frames as `frames` has room for, and says how many. Counting what arrived is
    /// left to [`count_in`](Self::count_in).
    #[inline]
    pub(crate) fn take<const N: usize>(&mut self, frames: &mut ArrayVec<Frame, N>) -> usize {
        let n = self.from.pop_burst(frames);
        self.taken += n as u64;
        self.drained_untold |= n > 0;
        if self.drained_untold && !frames.is_full() {
            self.tell_drained();
        }
        n
    }

    /// The ring is drained: if the far end sleeps because it was full, there is room now. One fence
    /// a drain, which a busy wire's full bursts do not pay.
    #[inline]
    fn tell_drained(&mut self) {
        self.drained_untold = false;
        // SeqCst: pairs with the fence in `arm` (Dekker's pattern, as in `strowger_frame::sleep`):
        // either the far end sees the room we made, or we see that it is stuck.
        fence(Ordering::SeqCst);
        // Relaxed: the fence orders it; the swap only clears a hint.
        if self.there.stuck.load(Ordering::Relaxed)
            && self.there.stuck.swap(false, Ordering::Relaxed)
        {
            self.far.wake();
        }
    }

    /// Counts `n` frames that arrived.
    #[inline]
    pub(crate) fn count_in(&self, n: u64, bytes: u64) {
        self.tally.frames_in.add(n);
        self.tally.bytes_in.add(bytes);
        self.tally.trains_in.add(u64::from(n > 0));
    }

    /// Whether the far end has been dropped. Frames that it sent may still be waiting.
    pub(crate) fn is_gone(&self) -> bool {
        // Acquire: pairs with Release in `CloseNotice::drop`: what it put before is seen by a later
        // `take`.
        self.there.gone.load(Ordering::Acquire)
    }

    /// Falls asleep beside `bell`, the far end's bell for frames, unless there are frames or the far
    /// end is gone. Says whether to sleep.
    pub(crate) fn arm_for_frames(&mut self, bell: &mut Doorbell) -> bool {
        bell.arm(); // SeqCst fence: pairs with the one in `ring`
        if self.from.is_empty() && !self.is_gone() {
            return true;
        }
        bell.disarm();
        false
    }

    pub(crate) fn tally(&self) -> &Arc<PortTally> {
        &self.tally
    }
}

impl Drop for Rx {
    fn drop(&mut self) {
        // Relaxed: published by the Release in `CloseNotice::drop`.
        self.here.taken.store(self.taken, Ordering::Relaxed);
    }
}

impl End {
    fn new((tx, rx): (Tx, Rx), bell: Doorbell) -> Self {
        let tally = tx.tally.clone();
        Self { tx, rx, bell, tally }
    }

    /// As [`Tx::put`].
    #[inline]
    pub(crate) fn put<const N: usize>(&mut self, frames: &mut ArrayVec<Frame, N>) -> usize {
        self.tx.put(frames)
    }

    /// Whether the last [`put`](Self::put) had too little room, and there is still none.
    pub(crate) fn is_stuck(&self) -> bool {
        self.tx.stuck && !self.tx.has_room() && !self.is_gone()
    }

    /// Wakes the far end, if it sleeps, to what was put.
    #[inline]
    pub(crate) fn ring(&self) {
        self.tx.ring();
    }

    /// As [`Rx::take`].
    #[inline]
    pub(crate) fn take<const N: usize>(&mut self, frames: &mut ArrayVec<Frame, N>) -> usize {
        self.rx.take(frames)
    }

    /// Counts `n` frames that arrived.
    #[inline]
    pub(crate) fn count_in(&self, n: u64, bytes: u64) {
        self.rx.count_in(n, bytes);
    }

    /// Falls asleep, unless there is something to do: frames to take (if those are `wanted`), room
    /// after the last `put` had too little, or a far end that has just gone. The last two are said
    /// once.
    pub(crate) fn arm(&mut self, wanted: Wanted) -> Arm {
        if self.tx.stuck {
            // Relaxed: the fence in the doorbell orders it.
            self.tx.here.stuck.store(true, Ordering::Relaxed);
        }
        self.bell.arm(); // SeqCst fence: pairs with those in `ring` and `tell_drained`
        let wanted_room = self.tx.stuck && !self.tx.settled && self.tx.has_room();
        let news = !self.tx.settled && self.is_gone();
        let frames = wanted == Wanted::FramesOrRoom && !self.rx.from.is_empty();
        if !frames && !wanted_room && !news {
            return Arm::Wait(std::os::fd::AsRawFd::as_raw_fd(&self.bell));
        }
        if news {
            self.settle();
        }
        self.tx.stuck &= !wanted_room;
        self.disarm();
        Arm::Ready
    }

    pub(crate) fn disarm(&mut self) {
        self.tx.disarm(&mut self.bell);
    }

    pub(crate) fn bell(&self) -> &Doorbell {
        &self.bell
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.bell.is_armed()
    }

    /// Whether the far end has been dropped. Frames that it sent may still be waiting.
    pub(crate) fn is_gone(&self) -> bool {
        self.rx.is_gone()
    }

    /// As [`Tx::settle`].
    pub(crate) fn settle(&mut self) {
        self.tx.settle();
    }
}

/// Their bytes, added up.
#[inline]
pub(crate) fn bytes_of(frames: &[Frame]) -> u64 {
    frames.iter().map(|frame| frame.len() as u64).sum()
}
