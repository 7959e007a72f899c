//! A wrapper around any port that loses, repeats, reorders, corrupts and delays frames, for tests.
//! The same seed and the same calls give the same faults: it never reads a clock, and never loses
//! a frame without counting it as [`Loss::Injected`].
//!
//! Time is counted in calls: of `rx_burst` for what arrives, of `flush` for what leaves. Every
//! frame that is held back goes on after so many more calls, whether others follow or not.
//!
//! At rest, `frames_in + frames_made + taken by tx_burst = punted + frames_out + losses +`
//! [`held`](Fault::held).

use std::{collections::VecDeque, io};

use strowger_frame::{
    BURST_MAX, Burst, Frame, Loss, Mark, Pool, PoolSpec, Port,
    port::{Arm, PortTally},
};

/// Frames that one direction holds back at most; when it is full, frames wait where they are.
const HELD_FRAMES_MAX: usize = 512;
/// What one frame can become: itself, its duplicate, and the one that it overtakes.
const FRAMES_OF_ONE_MAX: usize = 3;

const _: () = assert!(HELD_FRAMES_MAX > BURST_MAX * FRAMES_OF_ONE_MAX);

/// What goes wrong in one direction. Rates are in frames of a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Lost, and counted.
    pub loss_per_million: u32,
    /// Followed at once by a copy of itself.
    pub duplicate_per_million: u32,
    /// Overtaken by the next frame in the same direction.
    pub reorder_per_million: u32,
    /// One bit, anywhere in it, turned over.
    pub corrupt_per_million: u32,
    /// Held for one to `delay_calls_max` calls. Frames behind it wait as well: order is kept.
    pub delay_per_million: u32,
    /// The longest delay, in calls.
    pub delay_calls_max: u32,
}

/// What goes wrong, and by which seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultSpec {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// On the way in.
    pub rx: Faults,
    /// On the way out.
    pub tx: Faults,
}

/// SplitMix64 (Steele, Lea, Flood 2014): one 64-bit word of state, one output a step, every seed
/// good. Ours, so that a seed means the same for ever.
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

    /// A number below `bound` (0 for 0).
    fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }

    fn chance(&mut self, per_million: u32) -> bool {
        self.below(1_000_000) < per_million
    }
}

#[derive(Debug)]
struct Held {
    /// The call at which it goes on.
    due: u64,
    to: Mark,
    frame: Frame,
}

/// One direction: what is to go wrong, and what is held back.
#[derive(Debug)]
struct Lane {
    faults: Faults,
    random: SplitMix64,
    calls: u64,
    queue: VecDeque<Held>,
    /// It waits for the next frame to pass it, until its time is up.
    overtaken: Option<Held>,
}

impl Lane {
    fn new(faults: Faults, seed: u64) -> Self {
        let queue = VecDeque::with_capacity(HELD_FRAMES_MAX);
        Self { faults, random: SplitMix64(seed), calls: 0, queue, overtaken: None }
    }

    /// Whether frames may pass by it.
    fn is_clear(&self) -> bool {
        self.faults == Faults::default() && self.held() == 0
    }

    fn held(&self) -> usize {
        self.queue.len() + usize::from(self.overtaken.is_some())
    }

    /// Frames that it can surely take.
    fn room(&self) -> usize {
        (HELD_FRAMES_MAX - self.held()) / FRAMES_OF_ONE_MAX
    }

    /// Time goes on by one call.
    fn tick(&mut self) {
        self.calls += 1;
        if let Some(held) = self.overtaken.take_if(|held| held.due <= self.calls) {
            self.append(held);
        }
    }

    /// Decides a frame's fate. Each frame takes the same number of draws, so that what befalls it
    /// depends on the seed and its place alone.
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

    /// Behind all others, and not to go on before them.
    fn append(&mut self, mut held: Held) {
        let last_due = self.queue.back().map_or(0, |last| last.due);
        held.due = held.due.max(last_due);
        debug_assert!(self.queue.len() < HELD_FRAMES_MAX, "`room` was asked first");
        self.queue.push_back(held);
    }

    /// The next frame whose time has come, if it goes to `to` (or wherever, for `None`).
    fn next_due(&mut self, to: Option<Mark>) -> Option<Held> {
        let front = self.queue.front()?;
        let goes = front.due <= self.calls && to.is_none_or(|to| front.to == to);
        if goes { self.queue.pop_front() } else { None }
    }
}

/// A port with faults.
#[derive(Debug)]
pub struct Fault<P> {
    inner: P,
    rx: Lane,
    tx: Lane,
    /// Memory for duplicates on the way out, where no pool is at hand.
    pool: Pool,
}

impl<P: Port> Fault<P> {
    /// Wraps `inner`.
    ///
    /// # Errors
    /// The kernel's, when there is no memory for duplicates.
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

    /// Frames that are held back now, both ways together.
    pub fn held(&self) -> usize {
        self.rx.held() + self.tx.held()
    }

    /// The port inside.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    /// Sends what is due, in runs to the same neighbour, until the port inside takes no more.
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
        // What is held goes on by being called again.
        if self.held() > 0 { Arm::Ready } else { self.inner.arm() }
    }

    strowger_frame::delegate_port!(self, self.inner);

    fn note_discard(&mut self, frame: &Frame, reason: &'static str) {
        self.inner.note_discard(frame, reason);
    }
}
