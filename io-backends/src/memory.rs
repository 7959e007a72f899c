//! A wire inside this process: two ports joined by two rings.
//!
//! Frames are moved, not copied. `flush` wakes the worker at the far end if it sleeps. While that
//! worker is awake, this costs one fence and one load.
//!
//! One thread can poll both ends, as in benchmarks and simulators, or each end can have its own
//! thread.
//!
//! ```
//! use strowger_frame::{Address, Burst, ChunkClass, Mark, Pool, PoolSpec, Port as _};
//!
//! let (mut near, mut far) = strowger_io::memory::wire(64)?;
//! near.admit(Mark(2), Address::Only)?; // the far end is slot 2 here
//! far.admit(Mark(9), Address::Only)?; // and the near end is slot 9 there
//! let mut pool = Pool::new(&PoolSpec { trains: 0, singles: 1, huge_pages: false })?;
//!
//! let mut burst = Burst::new();
//! burst.push(pool.take(ChunkClass::Single).expect("the pool has one").into_frame(256, 100));
//! near.tx_burst(Mark(2), &mut burst);
//! near.flush();
//! assert!(burst.is_empty());
//!
//! far.rx_burst(&mut pool, &mut burst);
//! assert_eq!((burst.len(), burst[0].mark()), (1, Mark(9)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{io, sync::Arc};

use strowger_frame::{
    Address, Burst, Frame, Loss, Mark, Pool, Port,
    port::{AdmitError, Arm, PortTally},
};

use crate::wire::{self, End, Interest, bytes_of};

/// Maximum length of a frame in bytes, limited by the length field of a frame.
const FRAME_BYTES_MAX: usize = u16::MAX as usize;

/// One end of a wire inside this process.
#[derive(Debug)]
pub struct MemoryPort {
    end: End,
    mark: Option<Mark>,
    /// Whether frames have been queued since the far end was last woken.
    unflushed: bool,
    name: &'static str,
}

/// Makes a wire with room for `depth` frames in each direction, rounded up to a power of two.
///
/// # Errors
/// No file descriptor is available for the doorbells.
pub fn wire(depth: usize) -> io::Result<(MemoryPort, MemoryPort)> {
    let (near, far) = wire::ends(depth)?;
    Ok((MemoryPort::new(near, "memory"), MemoryPort::new(far, "memory")))
}

impl MemoryPort {
    pub(crate) fn new(end: End, name: &'static str) -> Self {
        Self { end, mark: None, unflushed: false, name }
    }

    /// Whether the far end has been dropped.
    ///
    /// Frames that the far end sent may still be waiting here. Frames sent to it from now on count
    /// as [`Loss::PeerGone`].
    pub fn is_gone(&self) -> bool {
        self.end.is_gone()
    }

    /// Drops frames that arrive while no neighbour is admitted, and counts them.
    #[cold]
    fn drop_unknown(&mut self) {
        let mut unknown_senders = Burst::new();
        if self.end.take(&mut unknown_senders) > 0 {
            let n = unknown_senders.len() as u64;
            self.end.count_in(n, bytes_of(&unknown_senders));
            self.end.tally.count_loss(Loss::UnknownSender, n);
        }
    }
}

impl Port for MemoryPort {
    #[inline]
    fn rx_burst(&mut self, _pool: &mut Pool, burst: &mut Burst) {
        let Some(mark) = self.mark else { return self.drop_unknown() };
        let before = burst.len();
        let n = self.end.take(burst);
        if n > 0 {
            let mut bytes = 0;
            for frame in &mut burst[before..] {
                frame.set_mark(mark);
                bytes += frame.len() as u64;
            }
            self.end.count_in(n as u64, bytes);
        }
    }

    #[inline]
    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        if self.mark == Some(to) {
            self.unflushed |= self.end.put(frames) > 0;
        } else {
            self.end.tally.count_loss(Loss::NoNeighbour, frames.len() as u64);
            frames.clear();
        }
    }

    #[inline]
    fn flush(&mut self) {
        if self.unflushed {
            self.unflushed = false;
            self.end.ring();
        }
    }

    fn is_blocked(&self, to: Mark) -> bool {
        self.mark == Some(to) && self.end.is_blocked()
    }

    fn is_flushed(&self) -> bool {
        !self.unflushed
    }

    fn admit(&mut self, mark: Mark, at: Address) -> Result<(), AdmitError> {
        if at != Address::Only {
            return Err(AdmitError::WrongKind);
        }
        if self.mark.is_some_and(|other| other != mark) {
            return Err(AdmitError::Taken);
        }
        self.mark = Some(mark);
        Ok(())
    }

    fn forget(&mut self, mark: Mark) {
        if self.mark == Some(mark) {
            self.mark = None;
        }
    }

    fn address_of(&self, mark: Mark) -> Option<Address> {
        (self.mark == Some(mark)).then_some(Address::Only)
    }

    fn send_to(&mut self, to: Address, frame: Frame) {
        let mut one = Burst::new();
        one.push(frame);
        if to == Address::Only {
            self.unflushed |= self.end.put(&mut one) > 0;
        }
        // The caller does not retry this frame, so it is lost.
        self.end.tally.count_loss(Loss::NoNeighbour, one.len() as u64);
    }

    fn arm(&mut self) -> Arm {
        self.end.arm(Interest::FramesOrRoom)
    }

    fn disarm(&mut self) {
        self.end.disarm();
    }

    fn frame_bytes_max(&self) -> usize {
        FRAME_BYTES_MAX
    }

    fn tally(&self) -> &Arc<PortTally> {
        &self.end.tally
    }

    fn describe(&self) -> &str {
        self.name
    }
}

#[cfg(test)]
mod tests {
    use strowger_frame::{ChunkClass, PoolSpec};

    use super::*;

    fn pool() -> Pool {
        Pool::new(&PoolSpec { trains: 0, singles: 64, huge_pages: false }).expect("memory")
    }

    fn frames(pool: &mut Pool, n: usize) -> Burst {
        (0..n)
            .map(|_| pool.take(ChunkClass::Single).expect("enough").into_frame(256, 100))
            .collect()
    }

    fn joined(depth: usize) -> (MemoryPort, MemoryPort) {
        let (mut near, mut far) = wire(depth).expect("descriptors");
        near.admit(Mark(1), Address::Only).expect("free");
        far.admit(Mark(2), Address::Only).expect("free");
        (near, far)
    }

    #[test]
    fn frames_left_in_the_ring_are_counted_when_the_far_end_goes() {
        let mut pool = pool();
        let (mut near, mut far) = joined(8);
        near.tx_burst(Mark(1), &mut frames(&mut pool, 8));
        let mut taken = Burst::new();
        far.rx_burst(&mut pool, &mut taken);
        near.tx_burst(Mark(1), &mut frames(&mut pool, 5));
        assert!(!near.is_gone());
        drop((far, taken));
        assert!(near.is_gone());
        near.tx_burst(Mark(1), &mut frames(&mut pool, 3));
        let tally = near.tally();
        assert_eq!((tally.frames_out.read(), tally.lost(Loss::PeerGone)), (8, 8));
        assert_eq!(pool.free(ChunkClass::Single), 64);
    }

    #[test]
    fn a_far_end_that_does_not_read_holds_a_bounded_number_of_train_chunks() {
        let spec = PoolSpec { trains: 400, singles: 64, huge_pages: false };
        let mut pool = Pool::new(&spec).expect("memory");
        let (mut near, mut far) = joined(1024);
        let mut alone = |pool: &mut Pool, class| {
            let chunk = pool.take(class).expect("enough");
            let mut burst = Burst::new();
            burst.push(chunk.into_frame(256, 100));
            near.tx_burst(Mark(1), &mut burst);
            (burst.is_empty(), near.is_blocked(Mark(1)))
        };
        for _ in 0..256 {
            assert_eq!(alone(&mut pool, ChunkClass::Train), (true, false));
        }
        for _ in 0..10 {
            assert_eq!(alone(&mut pool, ChunkClass::Train), (false, true));
        }
        assert_eq!(alone(&mut pool, ChunkClass::Single), (true, false), "that holds less");
        let mut taken = Burst::new();
        far.rx_burst(&mut pool, &mut taken);
        for _ in 0..taken.len() {
            assert_eq!(alone(&mut pool, ChunkClass::Train), (true, false));
        }
        assert_eq!(alone(&mut pool, ChunkClass::Train), (false, true));
    }

    #[test]
    fn the_end_of_the_far_end_is_reported_once() {
        let (mut near, far) = joined(8);
        assert!(matches!(near.arm(), Arm::Wait(_)));
        near.disarm();
        drop(far);
        assert_eq!(near.arm(), Arm::Ready);
        assert!(matches!(near.arm(), Arm::Wait(_)));
    }

    #[test]
    fn a_sleeper_with_a_full_ring_is_woken_when_there_is_room() {
        use crate::wait::{Waited, Waiter};
        let mut pool = pool();
        let (mut near, mut far) = joined(4);
        let mut queue = frames(&mut pool, 6);
        near.tx_burst(Mark(1), &mut queue);
        assert_eq!(queue.len(), 2);
        assert!(near.is_blocked(Mark(1)) && !near.is_blocked(Mark(2)));
        let mut waiter = Waiter::with_capacity(1);
        waiter.add(near.arm());
        assert_eq!(waiter.wait(Some(std::time::Duration::ZERO)), Waited::TimedOut);
        far.rx_burst(&mut pool, &mut Burst::new());
        assert_eq!(waiter.wait(Some(std::time::Duration::from_secs(5))), Waited::Ready);
        near.disarm();
        assert!(!near.is_blocked(Mark(1)));
        near.tx_burst(Mark(1), &mut queue);
        assert!(queue.is_empty());
    }
}
