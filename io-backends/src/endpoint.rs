//! A port whose far end is code in this process.
//!
//! The switch holds the port, and the code holds the [`Endpoint`]. Frames are moved, not copied.
//! When one of the two is dropped, the other stays valid and reports that its far end is gone.
//!
//! The mark of a received frame is the number of the ingress slot, on which the packet entered the
//! switch. The return path is computed from this number and the label.
//!
//! ```
//! use std::time::Duration;
//! use strowger_frame::{Address, Burst, Mark, Port as _};
//! use strowger_io::endpoint::{self, EndpointSpec};
//!
//! let (mut port, mut endpoint) = endpoint::pair(&EndpointSpec::default())?;
//! port.admit(Mark(5), Address::Only)?; // the port has slot 5
//!
//! let mut frame = endpoint.frame(100).expect("no frame is in use yet");
//! frame.bytes_mut().fill(7);
//! endpoint.send(frame)?;
//!
//! // In place of a switch: the port returns the packet.
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
    wire::{self, End, Interest, bytes_of},
};

pub use self::split::{EndpointReceiver, EndpointSender, split_pair};

/// Free bytes in front of a frame from `Endpoint::frame`. A link writes its header there.
pub const HEADROOM_BYTES: usize = 128;
/// Minimum number of free bytes after such a frame. A sealed link writes its tag there.
pub const TAILROOM_BYTES: usize = 64;

/// Capacity of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Maximum number of frames that wait in each direction, rounded up to a power of two.
    pub depth_frames: usize,
    /// The pool for frames to send. Only [`ChunkClass::Train`] chunks are used.
    pub pool: PoolSpec,
}

impl Default for EndpointSpec {
    /// 1,024 frames in each direction, and 4 MiB for frames to send.
    fn default() -> Self {
        let pool = PoolSpec { trains: 64, singles: 0, huge_pages: false };
        Self { depth_frames: 1024, pool }
    }
}

/// The half that the switch holds.
pub type EndpointPort = MemoryPort;

/// The half that code of this process holds. It can move between threads, but only one thread at a
/// time can use it.
#[derive(Debug)]
pub struct Endpoint {
    end: End,
    maker: FrameMaker,
    waiter: Waiter,
}

/// Makes frames from the endpoint's own pool.
#[derive(Debug)]
struct FrameMaker {
    pool: Pool,
    /// The chunk from which frames are cut.
    carving: Option<Train>,
}

/// Frames of one length in one chunk, with free bytes after each frame: see
/// [`Endpoint::train_with_room`].
#[derive(Debug)]
pub struct SpacedTrain {
    train: Train,
    /// Headroom of the first frame. The free bytes after a frame are the headroom of the next one.
    headroom: usize,
    segment: usize,
    room: usize,
    frames: usize,
}

impl SpacedTrain {
    /// Returns the next frame to fill and send, or `None` after the last one.
    #[inline]
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.frames = self.frames.checked_sub(1)?;
        self.train.carve(std::mem::take(&mut self.headroom), self.segment, self.room)
    }
}

/// The switch's port has been dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the switch no longer has this endpoint's port")
    }
}

impl std::error::Error for Gone {}

/// Why a frame cannot be sent. The error returns the frame.
#[derive(Debug)]
pub enum SendError {
    /// The ring is full, because the switch has not yet taken the earlier frames.
    Full(Frame),
    /// The switch's port has been dropped.
    Gone(Frame),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the switch has not yet taken the earlier frames"),
            Self::Gone(_) => Gone.fmt(f),
        }
    }
}

impl std::error::Error for SendError {}

/// Makes a port for the switch, and the endpoint at its far end.
///
/// # Errors
/// The kernel refuses memory or a file descriptor.
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
        // The stride is an odd number of cache lines. The frames of a chunk then use all sets of
        // the first-level cache; with an even number they would use only every second set.
        let lines = (HEADROOM_BYTES + len + TAILROOM_BYTES).div_ceil(64) | 1;
        let tailroom = lines * 64 - HEADROOM_BYTES - len;
        let mut cut = |train: &mut Train| train.carve(HEADROOM_BYTES, len, tailroom);
        if let Some(frame) = self.carving.as_mut().and_then(&mut cut) {
            return Some(frame);
        }
        // Releases the old chunk first. If no frame of it is in use, the pool returns the same
        // chunk next.
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
    ) -> Option<SpacedTrain> {
        let len = segment.checked_add(room)?.checked_mul(frames)?;
        if segment == 0 || len == 0 || len > TRAIN_DATA_BYTES || segment > usize::from(u16::MAX) {
            return None;
        }
        let chunk = self.pool.take(ChunkClass::Train)?;
        let headroom = chunk.start();
        Some(SpacedTrain { train: chunk.into_carving(), headroom, segment, room, frames })
    }
}

impl Endpoint {
    /// Returns a frame of `len` bytes with arbitrary contents, to fill and send.
    ///
    /// The frame has [`HEADROOM_BYTES`] free bytes in front of it and at least [`TAILROOM_BYTES`]
    /// after it. Several frames share a chunk. Returns `None` if no chunk is free, which
    /// [`pool_tally`](Self::pool_tally) counts, or if `len` is above 65,535.
    pub fn frame(&mut self, len: usize) -> Option<Frame> {
        self.maker.frame(len)
    }

    /// Returns `frames` frames of `segment` bytes, contiguous in one chunk, to fill and send.
    ///
    /// A port with segmentation offload sends them as one train. Returns `None` if no chunk is
    /// free, if the frames have more than 65,536 bytes in total, if `segment` is above 65,535, or
    /// if either number is 0.
    pub fn train(&mut self, segment: usize, frames: usize) -> Option<Train> {
        self.maker.train(segment, frames)
    }

    /// As [`train`](Self::train), with `room` free bytes after each frame.
    ///
    /// A sealed link writes its tag (16 bytes) there, so that the sealed frames are contiguous.
    /// Also returns `None` if the frames and the free bytes have more than 65,536 bytes in total.
    pub fn train_with_room(
        &mut self,
        segment: usize,
        frames: usize,
        room: usize,
    ) -> Option<SpacedTrain> {
        self.maker.train_with_room(segment, frames, room)
    }

    /// Sends frames from the front of `frames` and returns their number. Frames for which the ring
    /// has no room stay in `frames`, in order.
    ///
    /// # Errors
    /// [`Gone`]; all frames stay.
    pub fn send_burst(&mut self, frames: &mut Burst) -> Result<usize, Gone> {
        self.send_some(frames)
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// [`SendError`] with the frame.
    pub fn send(&mut self, frame: Frame) -> Result<(), SendError> {
        let mut one = ArrayVec::<Frame, 1>::from([frame]);
        let sent = self.send_some(&mut one);
        match (sent, one.pop()) {
            (_, None) => Ok(()),
            (Ok(_), Some(frame)) => Err(SendError::Full(frame)),
            (Err(Gone), Some(frame)) => Err(SendError::Gone(frame)),
        }
    }

    /// Sends one frame. If the ring is full, blocks up to `timeout`.
    ///
    /// # Errors
    /// [`SendError`] with the frame; it is `Full` if the timeout has expired.
    pub fn send_wait(&mut self, mut frame: Frame, timeout: Duration) -> Result<(), SendError> {
        let started = Instant::now();
        loop {
            match self.send(frame) {
                Err(SendError::Full(back)) if started.elapsed() < timeout => frame = back,
                sent => return sent,
            }
            self.sleep(Interest::Room, timeout.saturating_sub(started.elapsed()));
        }
    }

    fn send_some<const N: usize>(
        &mut self,
        frames: &mut ArrayVec<Frame, N>,
    ) -> Result<usize, Gone> {
        if self.end.is_gone() {
            self.end.reclaim();
            return Err(Gone);
        }
        let n = self.end.put(frames);
        if n > 0 {
            self.end.ring();
        }
        Ok(n)
    }

    /// Takes received frames while `burst` has room, and returns their number.
    ///
    /// # Errors
    /// [`Gone`], after all received frames have been taken.
    pub fn receive_burst(&mut self, burst: &mut Burst) -> Result<usize, Gone> {
        self.receive_some(burst)
    }

    /// Takes the oldest received frame.
    ///
    /// # Errors
    /// As [`receive_burst`](Self::receive_burst).
    pub fn receive(&mut self) -> Result<Option<Frame>, Gone> {
        let mut one = ArrayVec::<Frame, 1>::new();
        self.receive_some(&mut one)?;
        Ok(one.pop())
    }

    /// Takes the oldest received frame. If there is none, blocks up to `timeout`. Returns `None` if
    /// the timeout has expired.
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
            self.sleep(Interest::FramesOrRoom, left);
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
        // Reads the flag before taking frames: frames that the port sent before it was dropped are
        // then visible.
        let gone = self.end.is_gone();
        let before = frames.len();
        let n = self.end.take(frames);
        self.end.count_in(n as u64, bytes_of(&frames[before..]));
        if n == 0 && gone {
            self.end.reclaim();
            return Err(Gone);
        }
        Ok(n)
    }

    /// Blocks until the switch has sent or taken frames, or the timeout expires.
    fn sleep(&mut self, interest: Interest, timeout: Duration) {
        let arm = self.end.arm(interest);
        self.waiter.begin();
        self.waiter.add(arm);
        self.waiter.wait(Some(timeout));
        self.end.disarm();
    }

    /// Prepares the descriptor ([`AsRawFd`]) for the caller's own `poll`. Returns whether the
    /// caller should block.
    ///
    /// After this call, the descriptor becomes readable when a frame arrives or when the port is
    /// dropped. If the last send found the ring full, it also becomes readable when there is room.
    /// The next receiving call resets it.
    pub fn arm(&mut self) -> Arm {
        self.end.arm(Interest::FramesOrRoom)
    }

    /// Whether the switch's port has been dropped. Frames that the port sent may still be waiting
    /// here.
    pub fn is_gone(&self) -> bool {
        self.end.is_gone()
    }

    /// The counters of this half. `frames_out` counts frames sent to the switch.
    ///
    /// Frames that the port had not taken when it was dropped count as `PeerGone`.
    pub fn tally(&self) -> &Arc<PortTally> {
        &self.end.tally
    }

    /// The counters of the pool for frames to send.
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
    /// Takes the oldest received frame, or stores the task's waker. It works with any async
    /// runtime.
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
        // The doorbell is armed after the waker is stored, so that a far end that sees the armed
        // flag also finds the waker.
        if let Arm::Wait(_) = self.end.arm(Interest::FramesOrRoom) {
            return Poll::Pending;
        }
        match self.receive().transpose() {
            Some(frame) => Poll::Ready(frame),
            None => {
                // The end is ready only because there is room to send. This task waits for a frame,
                // so it must poll again.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Waits until a frame arrives, and takes it.
    ///
    /// # Errors
    /// As [`receive_burst`](Self::receive_burst).
    pub async fn receive_async(&mut self) -> Result<Frame, Gone> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }
}
