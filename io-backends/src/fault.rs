//! A wrapper around any port. It drops, duplicates, reorders, corrupts and delays frames, for
//! tests.
//!
//! It reads no clock, so the same seed and the same calls give the same faults. Frames that it
//! drops count as [`Loss::Injected`].
//!
//! Time is counted in calls: of `rx_burst` for received frames, of `flush` for sent frames. A
//! delayed frame is passed on after its number of calls, even if no other frame follows.
//!
//! When no call is in progress, this holds:
//! `frames_in + frames_made + taken by tx_burst = delivered + frames_out + losses +`
//! [`held`](Fault::held).

use std::{collections::VecDeque, io};

use strowger_frame::{
    BURST_MAX, Burst, Frame, Loss, Mark, Pool, PoolSpec, Port,
    port::{Arm, PortTally},
};

/// Maximum number of frames that one direction holds. A full direction accepts no more frames.
const HELD_FRAMES_MAX: usize = 512;
/// Maximum number of frames that result from one frame: the frame, its duplicate, and the frame
/// that it overtakes.
const FRAMES_OF_ONE_MAX: usize = 3;

const _: () = assert!(HELD_FRAMES_MAX > BURST_MAX * FRAMES_OF_ONE_MAX);

/// Faults of one direction. Rates are in frames per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Frames that are dropped and counted.
    pub loss_per_million: u32,
    /// Frames that are followed by a copy.
    pub duplicate_per_million: u32,
    /// Frames that are overtaken by the next frame in the same direction.
    pub reorder_per_million: u32,
    /// Frames in which one bit is flipped, at a random position.
    pub corrupt_per_million: u32,
    /// Frames that are held for 1 to `delay_calls_max` calls. Later frames wait behind them, so
    /// that the order is kept.
    pub delay_per_million: u32,
    /// Maximum delay, in calls.
    pub delay_calls_max: u32,
}

/// Faults of both directions, and the seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultSpec {
    /// Seed of all random choices.
    pub seed: u64,
    /// Faults of received frames.
    pub rx: Faults,
    /// Faults of sent frames.
    pub tx: Faults,
}

/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state, one output per step.
///
/// It is implemented here, so that a seed gives the same faults in every version.
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a random number below `bound`, or 0 if `bound` is 0.
    fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }

    fn chance(&mut self, per_million: u32) -> bool {
        self.below(1_000_000) < per_million
    }
}

#[derive(Debug)]
struct Held {
    /// Number of the call from which on the frame can be passed on.
    due: u64,
    to: Mark,
    frame: Frame,
}

/// One direction: its faults and the frames that it holds.
#[derive(Debug)]
struct Lane {
    faults: Faults,
    random: SplitMix64,
    calls: u64,
    queue: VecDeque<Held>,
    /// A frame that waits until the next frame overtakes it or until it is due.
    overtaken: Option<Held>,
}

impl Lane {
    fn new(faults: Faults, seed: u64) -> Self {
        let queue = VecDeque::with_capacity(HELD_FRAMES_MAX);
        Self { faults, random: SplitMix64(seed), calls: 0, queue, overtaken: None }
    }

    /// Whether this direction injects no faults and holds no frames, so that frames can bypass it.
    fn is_clear(&self) -> bool {
        self.faults == Faults::default() && self.held() == 0
    }

    fn held(&self) -> usize {
        self.queue.len() + usize::from(self.overtaken.is_some())
    }

    /// Number of frames that this direction can accept, whatever faults they get.
    fn room(&self) -> usize {
        (HELD_FRAMES_MAX - self.held()) / FRAMES_OF_ONE_MAX
    }

    /// Advances the time by one call.
    fn tick(&mut self) {
        self.calls += 1;
        if let Some(held) = self.overtaken.take_if(|held| held.due <= self.calls) {
            self.append(held);
        }
    }

    /// Applies the faults to a frame.
    ///
    /// Every frame uses the same number of random values, so that its values depend only on the
    /// seed and on the frame's position.
    fn take(&mut self, mut frame: Frame, to: Mark, pool: &mut Pool, tally: &PortTally) {
        let faults = self.faults;
        let lose = self.random.chance(faults.loss_per_million);
        let duplicate = self.random.chance(faults.duplicate_per_million);
        let reorder = self.random.chance(faults.reorder_per_million);
        let corrupt = self.random.chance(faults.corrupt_per_million);
        let bit = self.random.below(8 * frame.len() as u32) as usize;
        let delay = self.random.chance(faults.delay_per_million);
        let calls = self.random.below(faults.delay_calls_max) + 1;

        if lose {
            tally.count_loss(Loss::Injected, 1);
            return;
        }
        if corrupt && let Some(byte) = frame.bytes_mut().get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        let due = if delay { self.calls + u64::from(calls) } else { self.calls };
        let copy = if duplicate { pool.copy(&frame) } else { None };
        if reorder && self.overtaken.is_none() {
            self.overtaken = Some(Held { due: due + 1, to, frame });
        } else {
            self.append(Held { due, to, frame });
            if let Some(overtaken) = self.overtaken.take() {
                self.append(overtaken);
            }
        }
        if let Some(frame) = copy {
            tally.frames_made.add(1);
            self.append(Held { due, to, frame });
        }
    }

    /// Appends a frame. It is not due before the frames ahead of it.
    fn append(&mut self, mut held: Held) {
        let last_due = self.queue.back().map_or(0, |last| last.due);
        held.due = held.due.max(last_due);
        debug_assert!(self.queue.len() < HELD_FRAMES_MAX, "the caller checks `room` first");
        self.queue.push_back(held);
    }

    /// Removes and returns the first frame if it is due and its destination is `to`. If `to` is
    /// `None`, any destination matches.
    fn next_due(&mut self, to: Option<Mark>) -> Option<Held> {
        let front = self.queue.front()?;
        let goes = front.due <= self.calls && to.is_none_or(|to| front.to == to);
        if goes { self.queue.pop_front() } else { None }
    }
}

/// A port with injected faults.
#[derive(Debug)]
pub struct Fault<P> {
    inner: P,
    rx: Lane,
    tx: Lane,
    /// Pool for duplicates of sent frames.
    pool: Pool,
}

impl<P: Port> Fault<P> {
    /// Wraps `inner`.
    ///
    /// # Errors
    /// The kernel refuses the memory for duplicates.
    pub fn new(inner: P, spec: &FaultSpec) -> io::Result<Self> {
        let any = u32::from(spec.tx.duplicate_per_million > 0);
        let pool = PoolSpec { trains: 4 * any, singles: 256 * any, huge_pages: false };
        let mut seeds = SplitMix64(spec.seed);
        Ok(Self {
            inner,
            rx: Lane::new(spec.rx, seeds.next()),
            tx: Lane::new(spec.tx, seeds.next()),
            pool: Pool::new(&pool)?,
        })
    }

    /// Number of frames that are held now, in both directions.
    pub fn held(&self) -> usize {
        self.rx.held() + self.tx.held()
    }

    /// The wrapped port.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    /// Sends due frames, grouped by neighbour, until the wrapped port accepts no more.
    fn send_due(&mut self) {
        while let Some(first) = self.tx.next_due(None) {
            let to = first.to;
            let mut run = Burst::new();
            run.push(first.frame);
            while !run.is_full()
                && let Some(next) = self.tx.next_due(Some(to))
            {
                run.push(next.frame);
            }
            self.inner.tx_burst(to, &mut run);
            if !run.is_empty() {
                for frame in run.into_iter().rev() {
                    self.tx.queue.push_front(Held { due: 0, to, frame });
                }
                return;
            }
        }
    }
}

impl<P: Port> Port for Fault<P> {
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst) {
        if self.rx.is_clear() {
            return self.inner.rx_burst(pool, burst);
        }
        self.rx.tick();
        if self.rx.room() >= BURST_MAX {
            let mut arrived = Burst::new();
            self.inner.rx_burst(pool, &mut arrived);
            for frame in arrived {
                self.rx.take(frame, Mark::default(), pool, self.inner.tally());
            }
        }
        while !burst.is_full()
            && let Some(held) = self.rx.next_due(None)
        {
            burst.push(held.frame);
        }
    }

    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        if self.tx.is_clear() {
            return self.inner.tx_burst(to, frames);
        }
        let n = self.tx.room().min(frames.len());
        for frame in frames.drain(..n) {
            self.tx.take(frame, to, &mut self.pool, self.inner.tally());
        }
        self.send_due();
    }

    fn flush(&mut self) {
        if !self.tx.is_clear() {
            self.tx.tick();
            self.send_due();
        }
        self.inner.flush();
    }

    fn is_flushed(&self) -> bool {
        self.tx.held() == 0 && self.inner.is_flushed()
    }

    fn arm(&mut self) -> Arm {
        // Held frames are passed on only when the port is polled.
        if self.held() > 0 { Arm::Ready } else { self.inner.arm() }
    }

    strowger_frame::delegate_port!(self, self.inner);

    fn note_discard(&mut self, frame: &Frame, reason: &'static str) {
        self.inner.note_discard(frame, reason);
    }
}
