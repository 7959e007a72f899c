//! Code of this process on a slot: the switch holds the port, the code holds the [`Endpoint`].
//! Frames pass by ownership and are never copied. Either half may be dropped; the other stays up
//! and says so.
//!
//! A frame that the endpoint receives carries in its mark the number of the slot by which the
//! packet entered the switch; with it and the label the way back is computed.
//!
//! ```
//! use std::time::Duration;
//! use strowger_frame::{Address, Burst, Mark, Port as _};
//! use strowger_io::endpoint::{self, EndpointSpec};
//!
//! let (mut port, mut endpoint) = endpoint::pair(&EndpointSpec::default())?;
//! port.admit(Mark(5), Address::Only)?; // it stands on slot 5
//!
//! let mut frame = endpoint.frame(100).expect("its pool is fresh");
//! frame.bytes_mut().fill(7);
//! endpoint.send(frame)?;
//!
//! // What the switch does with the port, in short: here, it sends the packet straight back.
//! let mut pool = strowger_frame::Pool::new(&strowger_frame::PoolSpec {
//!     trains: 0,
//!     singles: 0,
//!     huge_pages: false,
//! })?;
//! let mut burst = Burst::new();
//! port.rx_burst(&mut pool, &mut burst);
//! port.tx_burst(Mark(5), &mut burst);
//! port.flush();
//!
//! let back = endpoint.receive_wait(Duration::from_secs(1))?.expect("it was sent");
//! assert_eq!((back.bytes(), back.mark()), (&[7; 100][..], Mark(5)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod split;

use std::{
    fmt, io,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use arrayvec::ArrayVec;
use strowger_frame::{
    Burst, ChunkClass, Frame, Pool, PoolSpec, Train,
    pool::{PoolTally, TRAIN_DATA_BYTES},
    port::{Arm, PortTally},
};

use crate::{
    memory::MemoryPort,
    wait::Waiter,
    wire::{self, End, Wanted, bytes_of},
};

pub use self::split::{EndpointReceiver, EndpointSender, split_pair};

/// Bytes in front of every frame that an endpoint makes: a hop writes a link's header there.
pub const HEADROOM_BYTES: usize = 128;
/// Bytes behind it, at least: a hop writes a link's tag there.
pub const TAILROOM_BYTES: usize = 64;

/// How large an endpoint is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Frames that can wait each way, rounded up to a power of two.
    pub depth_frames: usize,
    /// The memory for frames that it sends; only [`ChunkClass::Train`] chunks are used.
    pub pool: PoolSpec,
}

impl Default for EndpointSpec {
    /// 1,024 frames each way, 4 MiB for frames to send.
    fn default() -> Self {
        let pool = PoolSpec { trains: 64, singles: 0, huge_pages: false };
        Self { depth_frames: 1024, pool }
    }
}

/// The switch's half: an end of a wire like any other, whose far end is code and no switch.
pub type EndpointPort = MemoryPort;

/// The half that code of this process holds. One thread at a time uses it; it may move.
#[derive(Debug)]
pub struct Endpoint {
    end: End,
    maker: FrameMaker,
    waiter: Waiter,
}

/// Makes frames out of an endpoint's own memory.
#[derive(Debug)]
struct FrameMaker {
    pool: Pool,
    /// The chunk that frames are being cut from.
    carving: Option<Train>,
}

/// Frames of one length in one memory, with room behind each: see [`Endpoint::train_with_room`].
#[derive(Debug)]
pub struct RoomyTrain {
    train: Train,
    /// In front of the first one; behind it, the room of one is in front of the next.
    headroom: usize,
    segment: usize,
    room: usize,
    frames: usize,
}

impl RoomyTrain {
    /// The next frame to fill and send; `None` at the end.
    #[inline]
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.frames = self.frames.checked_sub(1)?;
        self.train.carve(std::mem::take(&mut self.headroom), self.segment, self.room)
    }
}

/// The switch's half has been dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the switch no longer has this endpoint's port")
    }
}

impl std::error::Error for Gone {}

/// Why a frame could not be sent. It is given back.
#[derive(Debug)]
pub enum SendError {
    /// The switch has not yet taken what was sent before.
    Full(Frame),
    /// The switch's half has been dropped.
    Gone(Frame),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the switch has not yet taken what was sent before"),
            Self::Gone(_) => Gone.fmt(f),
        }
    }
}

impl std::error::Error for SendError {}

/// A port for the switch and the endpoint behind it.
///
/// # Errors
/// The kernel's, when memory or descriptors are not to be had.
pub fn pair(spec: &EndpointSpec) -> io::Result<(EndpointPort, Endpoint)> {
    let (near, far) = wire::ends(spec.depth_frames)?;
    let maker = FrameMaker { pool: Pool::new(&spec.pool)?, carving: None };
    let waiter = Waiter::with_capacity(1);
    Ok((MemoryPort::new(near, "endpoint"), Endpoint { end: far, maker, waiter }))
}

impl FrameMaker {
    fn frame(&mut self, len: usize) -> Option<Frame> {
        if len > usize::from(u16::MAX) {
            return None;
        }
        // An odd number of cache lines, so that the frames of a chunk begin in all sets of the
        // first-level cache and not in every other one.
        let lines = (HEADROOM_BYTES + len + TAILROOM_BYTES).div_ceil(64) | 1;
        let tailroom = lines * 64 - HEADROOM_BYTES - len;
        let mut cut = |train: &mut Train| train.carve(HEADROOM_BYTES, len, tailroom);
        if let Some(frame) = self.carving.as_mut().and_then(&mut cut) {
            return Some(frame);
        }
        // First give up the old chunk: if nothing of it is abroad, it is the next one taken.
        self.carving = None;
        let carving = self.carving.insert(self.pool.take(ChunkClass::Train)?.into_carving());
        cut(carving)
    }

    fn train(&mut self, segment: usize, frames: usize) -> Option<Train> {
        let len = segment.checked_mul(frames)?;
        if len == 0 || len > TRAIN_DATA_BYTES || segment > usize::from(u16::MAX) {
            return None;
        }
        let chunk = self.pool.take(ChunkClass::Train)?;
        let start = chunk.start();
        Some(chunk.into_train(start, len, segment))
    }

    fn train_with_room(
        &mut self,
        segment: usize,
        frames: usize,
        room: usize,
    ) -> Option<RoomyTrain> {
        let len = segment.checked_add(room)?.checked_mul(frames)?;
        if segment == 0 || len == 0 || len > TRAIN_DATA_BYTES || segment > usize::from(u16::MAX) {
            return None;
        }
        let chunk = self.pool.take(ChunkClass::Train)?;
        let headroom = chunk.start();
        Some(RoomyTrain { train: chunk.into_carving(), headroom, segment, room, frames })
    }
}

impl Endpoint {
    /// An empty frame of `len` bytes to fill and send, whose contents are whatever lay there, with
    /// [`HEADROOM_BYTES`] in front and [`TAILROOM_BYTES`] behind. Several share a chunk. `None`
    /// when the memory is all in use (counted in [`pool_tally`](Self::pool_tally)), or `len` is
    /// above 65,535.
    pub fn frame(&mut self, len: usize) -> Option<Frame> {
        self.maker.frame(len)
    }

    /// `frames` frames of `segment` bytes that lie side by side, so that a port that can send them
    /// as one train will; fill each and send it. `None` when the memory is all in use, when they
    /// are more than 65,536 bytes together, or when there would be none.
    pub fn train(&mut self, segment: usize, frames: usize) -> Option<Train> {
        self.maker.train(segment, frames)
    }

    /// As [`train`](Self::train), with `room` bytes behind every frame, in which the first hop writes
    /// a sealed link's tag (16 bytes): the frames then lie side by side as they leave. `None` also
    /// when they do not fit together with their room.
    pub fn train_with_room(
        &mut self,
        segment: usize,
        frames: usize,
        room: usize,
    ) -> Option<RoomyTrain> {
        self.maker.train_with_room(segment, frames, room)
    }

    /// Sends frames from the front of `frames` and says how many; what there is no room for stays,
    /// in order.
    ///
    /// # Errors
    /// [`Gone`]; the frames stay.
    pub fn send_burst(&mut self, frames: &mut Burst) -> Result<usize, Gone> {
        self.send_some(frames)
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// [`SendError`], with the frame.
    pub fn send(&mut self, frame: Frame) -> Result<(), SendError> {
        let mut one = ArrayVec::<Frame, 1>::from([frame]);
        let sent = self.send_some(&mut one);
        match (sent, one.pop()) {
            (_, None) => Ok(()),
            (Ok(_), Some(frame)) => Err(SendError::Full(frame)),
            (Err(Gone), Some(frame)) => Err(SendError::Gone(frame)),
        }
    }

    /// Sends one frame, waiting up to `timeout` for room.
    ///
    /// # Errors
    /// [`SendError`], with the frame; `Full` when the time was up.
    pub fn send_wait(&mut self, mut frame: Frame, timeout: Duration) -> Result<(), SendError> {
        let started = Instant::now();
        loop {
            match self.send(frame) {
                Err(SendError::Full(back)) if started.elapsed() < timeout => frame = back,
                sent => return sent,
            }
            self.sleep(Wanted::Room, timeout.saturating_sub(started.elapsed()));
        }
    }

    fn send_some<const N: usize>(
        &mut self,
        frames: &mut ArrayVec<Frame, N>,
    ) -> Result<usize, Gone> {
        if self.end.is_gone() {
            self.end.settle();
            return Err(Gone);
        }
        let n = self.end.put(frames);
        if n > 0 {
            self.end.ring();
        }
        Ok(n)
    }

    /// Takes what has arrived, as far as `burst` has room, and says how many frames.
    ///
    /// # Errors
    /// [`Gone`], once all that had arrived has been taken.
    pub fn receive_burst(&mut self, burst: &mut Burst) -> Result<usize, Gone> {
        self.receive_some(burst)
    }

    /// Takes the oldest frame that has arrived.
    ///
    /// # Errors
    /// As [`receive_burst`](Self::receive_burst).
    pub fn receive(&mut self) -> Result<Option<Frame>, Gone> {
        let mut one = ArrayVec::<Frame, 1>::new();
        self.receive_some(&mut one)?;
        Ok(one.pop())
    }

    /// Takes the oldest frame, waiting for one up to `timeout`. `None` when the time is up.
    ///
    /// # Errors
    /// As [`receive_burst`](Self::receive_burst).
    pub fn receive_wait(&mut self, timeout: Duration) -> Result<Option<Frame>, Gone> {
        if let Some(frame) = self.receive()? {
            return Ok(Some(frame));
        }
        let started = Instant::now();
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            self.sleep(Wanted::FramesOrRoom, left);
            match self.receive()? {
                None if !left.is_zero() => {}
                taken => return Ok(taken),
            }
        }
    }

    fn receive_some<const N: usize>(
        &mut self,
        frames: &mut ArrayVec<Frame, N>,
    ) -> Result<usize, Gone> {
        if frames.is_full() {
            return Ok(0);
        }
        if self.end.is_armed() {
            self.end.disarm();
        }
        // Asked before taking: whatever the port sent before it went is then in sight.
        let gone = self.end.is_gone();
        let before = frames.len();
        let n = self.end.take(frames);
        self.end.count_in(n as u64, bytes_of(&frames[before..]));
        if n == 0 && gone {
            self.end.settle();
            return Err(Gone);
        }
        Ok(n)
    }

    /// Blocks until the switch has done something, or the time is up.
    fn sleep(&mut self, wanted: Wanted, timeout: Duration) {
        let arm = self.end.arm(wanted);
        self.waiter.begin();
        self.waiter.add(arm);
        self.waiter.wait(Some(timeout));
        self.end.disarm();
    }

    /// Before blocking on the descriptor ([`AsRawFd`]) with a poll of your own: says whether to
    /// block at all. After it, a frame that arrives, room after a full send, and the end of the
    /// port make the descriptor readable; the next receiving call makes it quiet again.
    pub fn arm(&mut self) -> Arm {
        self.end.arm(Wanted::FramesOrRoom)
    }

    /// Whether the switch's half has been dropped. Frames that it sent may still be waiting.
    pub fn is_gone(&self) -> bool {
        self.end.is_gone()
    }

    /// What this half counts, seen from here: `frames_out` went to the switch. Frames that the
    /// port left untaken when it was dropped are counted as `PeerGone`.
    pub fn tally(&self) -> &Arc<PortTally> {
        &self.end.tally
    }

    /// What the memory for frames to send counts.
    pub fn pool_tally(&self) -> &Arc<PoolTally> {
        self.maker.pool.tally()
    }
}

impl AsRawFd for Endpoint {
    fn as_raw_fd(&self) -> RawFd {
        self.end.bell().as_raw_fd()
    }
}

#[cfg(feature = "async")]
impl Endpoint {
    /// Takes the oldest frame, or leaves the task's waker with the port. Needs no runtime.
    ///
    /// # Errors
    /// As [`receive_burst`](Self::receive_burst).
    pub fn poll_receive(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<Frame, Gone>> {
        use std::task::Poll;
        if let Some(frame) = self.receive().transpose() {
            return Poll::Ready(frame);
        }
        self.end.bell().register(cx.waker());
        // Only now: who sees us armed finds the waker.
        if let Arm::Wait(_) = self.end.arm(Wanted::FramesOrRoom) {
            return Poll::Pending;
        }
        match self.receive().transpose() {
            Some(frame) => Poll::Ready(frame),
            None => {
                // There was room to send, and no frame: not what this task waits for.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Waits for a frame.
    ///
    /// # Errors
    /// As [`receive_burst`](Self::receive_burst).
    pub async fn receive_async(&mut self) -> Result<Frame, Gone> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }
}
