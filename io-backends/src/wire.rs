//! One end of a wire inside this process.
//!
//! A wire has a ring in each direction. Each end has a doorbell, or one for each half, and a flag
//! that reports that the end is gone.
//!
//! Frames are moved, not copied. The sender can determine what happened to every frame that it
//! queued.

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

/// Maximum number of train chunks pinned by the frames in one direction.
///
/// This is a quarter of a typical pool, and enough for 256 trains. It bounds the chunks that a far
/// end can pin by not reading.
const CHUNKS_MAX: usize = 256;

/// State that one end shares with the other, apart from frames. It changes only around a sleep and
/// when the end closes, so reads stay in the cache.
#[derive(Debug)]
struct EndState {
    /// This end could not queue all its frames, and may sleep until there is room.
    blocked: AtomicBool,
    /// This end is gone. `taken` is the total number of frames that it took.
    gone: AtomicBool,
    taken: AtomicU64,
}

impl Default for EndState {
    fn default() -> Self {
        let (blocked, gone) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { blocked, gone, taken: AtomicU64::new(0) }
    }
}

/// One end of a wire: its two halves, its doorbell and its counters.
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
    /// Whether the last `put` left frames because the ring had no room or too many chunks were
    /// pinned.
    blocked: bool,
    /// Whether the far end is gone and the frames that it left in the ring have been freed.
    reclaimed: bool,
    tally: Arc<PortTally>,
    /// Doorbell of the far end, rung when frames have been queued.
    far: DoorbellWaker,
    /// This field is the last, because `to` and `from` must be dropped before the far end is
    /// notified that this end is gone.
    _close_notice: Arc<CloseNotice>,
}

/// The receiving half of an end.
#[derive(Debug)]
pub(crate) struct Rx {
    from: Consumer<Frame>,
    here: Arc<EndState>,
    there: Arc<EndState>,
    taken: u64,
    /// Whether frames were taken since a blocked far end was last notified of room.
    notify_due: bool,
    tally: Arc<PortTally>,
    /// Doorbell of the far end, rung when there is room.
    far: DoorbellWaker,
    _close_notice: Arc<CloseNotice>,
}

/// Notifies the far end that this end is gone, when both halves of this end have been dropped.
#[derive(Debug)]
struct CloseNotice {
    here: Arc<EndState>,
    /// The doorbells that the far end sleeps on.
    far: [DoorbellWaker; 2],
}

impl Drop for CloseNotice {
    fn drop(&mut self) {
        // Release: pairs with Acquire in `put`, `arm` and `is_gone`.
        self.here.gone.store(true, Ordering::Release);
        self.far.iter().for_each(DoorbellWaker::wake);
    }
}

/// The events for which a sleeping end waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    FramesOrRoom,
    Room,
}

/// Makes a wire with room for `depth` frames in each direction, and returns its two ends.
pub(crate) fn ends(depth: usize) -> io::Result<(End, End)> {
    let (left, right) = (Doorbell::new()?, Doorbell::new()?);
    let bells = [right.waker(), right.waker()];
    let (left_halves, right_halves) = halves(depth, [left.waker(), left.waker()], bells);
    Ok((End::new(left_halves, left), End::new(right_halves, right)))
}

/// A half of an end, and the doorbell that it sleeps on.
pub(crate) type Half<T> = (T, Doorbell);

/// Makes one end for a port, and the other end as two halves, each with its own doorbell.
pub(crate) fn split_ends(depth: usize) -> io::Result<(End, Half<Tx>, Half<Rx>)> {
    let (near, room, frames) = (Doorbell::new()?, Doorbell::new()?, Doorbell::new()?);
    let far = [frames.waker(), room.waker()];
    let (near_halves, (tx, rx)) = halves(depth, [near.waker(), near.waker()], far);
    Ok((End::new(near_halves, near), (tx, room), (rx, frames)))
}

/// Makes the halves of both ends. The parameters are the doorbells for frames and for room at each
/// end.
fn halves(
    depth: usize,
    left: [DoorbellWaker; 2],
    right: [DoorbellWaker; 2],
) -> ((Tx, Rx), (Tx, Rx)) {
    let (there, back) = (ring(depth), ring(depth));
    let (left_state, right_state) = (Arc::<EndState>::default(), Arc::<EndState>::default());
    let at_left = one_end((there.0, back.1), right, (&left_state, &right_state));
    let at_right = one_end((back.0, there.1), left, (&right_state, &left_state));
    (at_left, at_right)
}

fn one_end(
    (to, from): (Producer<Frame>, Consumer<Frame>),
    far: [DoorbellWaker; 2],
    (here, there): (&Arc<EndState>, &Arc<EndState>),
) -> (Tx, Rx) {
    let [for_frames, for_room] = far.clone();
    let close_notice = Arc::new(CloseNotice { here: here.clone(), far });
    let tally: Arc<PortTally> = Arc::default();
    let pinned = Pinned::new(to.capacity().min(CHUNKS_MAX));
    let tx = Tx {
        to,
        here: here.clone(),
        there: there.clone(),
        put: 0,
        pinned,
        blocked: false,
        reclaimed: false,
        tally: tally.clone(),
        far: for_frames,
        _close_notice: close_notice.clone(),
    };
    let rx = Rx {
        from,
        here: here.clone(),
        there: there.clone(),
        taken: 0,
        notify_due: false,
        tally,
        far: for_room,
        _close_notice: close_notice,
    };
    (tx, rx)
}

impl Tx {
    /// Queues frames from the front of `frames` while there is room, and returns their number.
    ///
    /// If the far end is gone, removes all frames and counts them as lost. Call
    /// [`ring`](Self::ring) afterwards to wake the far end.
    #[inline]
    pub(crate) fn put<const N: usize>(&mut self, frames: &mut ArrayVec<Frame, N>) -> usize {
        // Acquire: pairs with Release in `CloseNotice::drop`, so `taken` is final.
        if self.there.gone.load(Ordering::Acquire) {
            self.reclaim();
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
        self.blocked = !frames.is_empty();
        let bytes = if self.blocked { offered - bytes_of(frames) } else { offered };
        self.put += n as u64;
        self.tally.frames_out.add(n as u64);
        self.tally.bytes_out.add(bytes);
        self.tally.trains_out.add(u64::from(n > 0));
        n
    }

    /// Counts the train chunks of frames that are to be queued. Returns the number of frames that
    /// may be queued.
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

    /// Whether the ring seems to have room for a frame.
    fn has_room(&self) -> bool {
        let waiting = self.to.waiting();
        waiting < self.to.capacity() && !self.pinned.is_full(self.put - waiting as u64)
    }

    /// Wakes the far end if it sleeps.
    #[inline]
    pub(crate) fn ring(&self) {
        self.far.wake();
    }

    pub(crate) fn is_gone(&self) -> bool {
        // Acquire: as in `put`.
        self.there.gone.load(Ordering::Acquire)
    }

    /// Prepares to sleep on `bell`. Returns whether to sleep: not if there is room or if the far
    /// end is gone.
    pub(crate) fn arm_for_room(&mut self, bell: &mut Doorbell) -> bool {
        // Relaxed: the fence in the doorbell orders this store.
        self.here.blocked.store(true, Ordering::Relaxed);
        bell.arm(); // SeqCst fence: pairs with those in `ring` and `notify_room`
        if !self.has_room() && !self.is_gone() {
            return true;
        }
        self.disarm(bell);
        false
    }

    pub(crate) fn disarm(&self, bell: &mut Doorbell) {
        // Relaxed: a stale flag causes one needless wake-up.
        self.here.blocked.store(false, Ordering::Relaxed);
        bell.disarm();
    }

    /// Drops the frames that the far end left in the ring, and counts them as lost.
    ///
    /// The far end must be gone. Only the first call has an effect. The ring's own memory is freed
    /// when this end is dropped, which does not happen on a worker, because workers free no memory
    /// (R13).
    #[cold]
    pub(crate) fn reclaim(&mut self) {
        if mem::replace(&mut self.reclaimed, true) {
            return;
        }
        let cleared = self.to.clear_disconnected();
        // Relaxed: `gone` was read with Acquire, and `taken` was written before it.
        let left_behind = self.put - self.there.taken.load(Ordering::Relaxed);
        debug_assert_eq!(
            cleared,
            Some(left_behind as usize),
            "the consumer is dropped before the flag is set"
        );
        self.blocked = false;
        self.tally.frames_out.set(self.tally.frames_out.read() - left_behind);
        self.tally.count_loss(Loss::PeerGone, left_behind);
    }

    pub(crate) fn tally(&self) -> &Arc<PortTally> {
        &self.tally
    }
}

impl Rx {
    /// Takes frames while `frames` has room, and returns their number.
    ///
    /// The caller counts them with [`count_in`](Self::count_in).
    #[inline]
    pub(crate) fn take<const N: usize>(&mut self, frames: &mut ArrayVec<Frame, N>) -> usize {
        let n = self.from.pop_burst(frames);
        self.taken += n as u64;
        self.notify_due |= n > 0;
        if self.notify_due && !frames.is_full() {
            self.notify_room();
        }
        n
    }

    /// Wakes a far end that is blocked, because the ring has been drained.
    ///
    /// It costs one fence each time the ring is drained. After a full burst it is not called.
    #[inline]
    fn notify_room(&mut self) {
        self.notify_due = false;
        // SeqCst: pairs with the fence in `arm` (Dekker's algorithm, as in
        // `strowger_frame::sleep`): either the far end sees the room, or this end sees that the far
        // end is blocked.
        fence(Ordering::SeqCst);
        // Relaxed: the fence orders this load, and the swap only clears a flag.
        if self.there.blocked.load(Ordering::Relaxed)
            && self.there.blocked.swap(false, Ordering::Relaxed)
        {
            self.far.wake();
        }
    }

    /// Counts `n` received frames.
    #[inline]
    pub(crate) fn count_in(&self, n: u64, bytes: u64) {
        self.tally.frames_in.add(n);
        self.tally.bytes_in.add(bytes);
        self.tally.trains_in.add(u64::from(n > 0));
    }

    /// Whether the far end has been dropped. Frames that the far end sent may still be waiting
    /// here.
    pub(crate) fn is_gone(&self) -> bool {
        // Acquire: pairs with Release in `CloseNotice::drop`, so a later `take` sees the frames
        // that were queued before.
        self.there.gone.load(Ordering::Acquire)
    }

    /// Prepares to sleep on `bell`. Returns whether to sleep: not if there are frames or if the far
    /// end is gone.
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

    /// Whether the last [`put`](Self::put) left frames because there was no room, and there still
    /// is none.
    pub(crate) fn is_blocked(&self) -> bool {
        self.tx.blocked && !self.tx.has_room() && !self.is_gone()
    }

    /// Wakes the far end if it sleeps.
    #[inline]
    pub(crate) fn ring(&self) {
        self.tx.ring();
    }

    /// As [`Rx::take`].
    #[inline]
    pub(crate) fn take<const N: usize>(&mut self, frames: &mut ArrayVec<Frame, N>) -> usize {
        self.rx.take(frames)
    }

    /// Counts `n` received frames.
    #[inline]
    pub(crate) fn count_in(&self, n: u64, bytes: u64) {
        self.rx.count_in(n, bytes);
    }

    /// Prepares to sleep. Returns `Arm::Ready` if there is something to do.
    ///
    /// There is something to do in three cases: `interest` includes frames and a frame is waiting;
    /// the last `put` left frames and there is room now; the far end is gone. The last two cases
    /// are reported only once.
    pub(crate) fn arm(&mut self, interest: Interest) -> Arm {
        if self.tx.blocked {
            // Relaxed: the fence in the doorbell orders this store.
            self.tx.here.blocked.store(true, Ordering::Relaxed);
        }
        self.bell.arm(); // SeqCst fence: pairs with those in `ring` and `notify_room`
        let room = self.tx.blocked && !self.tx.reclaimed && self.tx.has_room();
        let gone = !self.tx.reclaimed && self.is_gone();
        let frames = interest == Interest::FramesOrRoom && !self.rx.from.is_empty();
        if !frames && !room && !gone {
            return Arm::Wait(std::os::fd::AsRawFd::as_raw_fd(&self.bell));
        }
        if gone {
            self.reclaim();
        }
        self.tx.blocked &= !room;
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

    /// Whether the far end has been dropped. Frames that the far end sent may still be waiting
    /// here.
    pub(crate) fn is_gone(&self) -> bool {
        self.rx.is_gone()
    }

    /// As [`Tx::reclaim`].
    pub(crate) fn reclaim(&mut self) {
        self.tx.reclaim();
    }
}

/// Total length in bytes.
#[inline]
pub(crate) fn bytes_of(frames: &[Frame]) -> u64 {
    frames.iter().map(|frame| frame.len() as u64).sum()
}
