//! An endpoint in two halves: one thread or task can send while another one receives.
//!
//! ```
//! use strowger_frame::{Address, Burst, Mark, Pool, PoolSpec, Port as _};
//! use strowger_io::endpoint::{self, EndpointSpec};
//!
//! let (mut port, mut sender, mut receiver) = endpoint::split_pair(&EndpointSpec::default())?;
//! port.admit(Mark(5), Address::Only)?;
//! let echo = std::thread::spawn(move || receiver.receive_wait(None));
//!
//! let frame = sender.frame(100).expect("no frame is in use yet");
//! sender.send(frame)?;
//!
//! // In place of a switch: the port returns the frame.
//! let mut pool = Pool::new(&PoolSpec { trains: 0, singles: 0, huge_pages: false })?;
//! let mut burst = Burst::new();
//! port.rx_burst(&mut pool, &mut burst);
//! port.tx_burst(Mark(5), &mut burst);
//! port.flush();
//! assert_eq!(echo.join().expect("no panic")?.expect("a frame").len(), 100);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{
    io,
    os::fd::AsRawFd as _,
    sync::Arc,
    time::{Duration, Instant},
};

use arrayvec::ArrayVec;
use strowger_frame::{
    Burst, Frame, Pool, Train,
    pool::PoolTally,
    port::{Arm, PortTally},
};

use super::{EndpointPort, EndpointSpec, FrameMaker, Gone, SendError, SpacedTrain};
use crate::{
    Doorbell, MemoryPort,
    wait::Waiter,
    wire::{self, Rx, Tx, bytes_of},
};

/// Makes a port for the switch, and the endpoint at its far end as two halves.
///
/// When both halves have been dropped, the port reports that the endpoint is gone.
///
/// # Errors
/// The kernel refuses memory or a file descriptor.
pub fn split_pair(
    spec: &EndpointSpec,
) -> io::Result<(EndpointPort, EndpointSender, EndpointReceiver)> {
    let (near, (tx, room), (rx, frames)) = wire::split_ends(spec.depth_frames)?;
    let maker = FrameMaker { pool: Pool::new(&spec.pool)?, carving: None };
    let sender = EndpointSender { tx, bell: room, maker, waiter: Waiter::with_capacity(1) };
    let receiver = EndpointReceiver { rx, bell: frames, waiter: Waiter::with_capacity(1) };
    Ok((MemoryPort::new(near, "endpoint"), sender, receiver))
}

/// Blocks on an armed doorbell until it rings or the timeout expires.
fn sleep(bell: &Doorbell, waiter: &mut Waiter, timeout: Option<Duration>) {
    waiter.begin();
    waiter.add(Arm::Wait(bell.as_raw_fd()));
    waiter.wait(timeout);
}

/// The time left until the deadline; `None` without a deadline.
fn left(started: Instant, timeout: Option<Duration>) -> Option<Duration> {
    timeout.map(|timeout| timeout.saturating_sub(started.elapsed()))
}

/// The half that makes frames and sends them.
#[derive(Debug)]
pub struct EndpointSender {
    tx: Tx,
    bell: Doorbell,
    maker: FrameMaker,
    waiter: Waiter,
}

impl EndpointSender {
    /// Returns a frame of `len` bytes to fill and send, as
    /// [`Endpoint::frame`](super::Endpoint::frame).
    pub fn frame(&mut self, len: usize) -> Option<Frame> {
        self.maker.frame(len)
    }

    /// Returns frames of one length, contiguous in one chunk, as
    /// [`Endpoint::train`](super::Endpoint::train).
    pub fn train(&mut self, segment: usize, frames: usize) -> Option<Train> {
        self.maker.train(segment, frames)
    }

    /// Returns frames of one length with free bytes after each, as
    /// [`Endpoint::train_with_room`](super::Endpoint::train_with_room).
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

    /// Sends one frame. Does not block.
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

    /// Sends one frame. If the ring is full, blocks up to `timeout`, or without limit if it is
    /// `None`.
    ///
    /// # Errors
    /// [`SendError`] with the frame; it is `Full` if the timeout has expired.
    pub fn send_wait(
        &mut self,
        mut frame: Frame,
        timeout: Option<Duration>,
    ) -> Result<(), SendError> {
        let started = Instant::now();
        loop {
            let left = left(started, timeout);
            match self.send(frame) {
                Err(SendError::Full(back)) if left != Some(Duration::ZERO) => frame = back,
                sent => return sent,
            }
            if self.tx.arm_for_room(&mut self.bell) {
                sleep(&self.bell, &mut self.waiter, left);
                self.tx.disarm(&mut self.bell);
            }
        }
    }

    fn send_some<const N: usize>(
        &mut self,
        frames: &mut ArrayVec<Frame, N>,
    ) -> Result<usize, Gone> {
        if self.bell.is_armed() {
            self.tx.disarm(&mut self.bell);
        }
        if self.tx.is_gone() {
            self.tx.reclaim();
            return Err(Gone);
        }
        let n = self.tx.put(frames);
        if n > 0 {
            self.tx.ring();
        }
        Ok(n)
    }

    /// Prepares to wait for room with the caller's own `poll`. Returns whether the caller should
    /// block, and on which descriptor.
    ///
    /// The descriptor becomes readable when there is room or the port is dropped. The next call
    /// that sends resets it.
    pub fn arm(&mut self) -> Arm {
        match self.tx.arm_for_room(&mut self.bell) {
            true => Arm::Wait(self.bell.as_raw_fd()),
            false => Arm::Ready,
        }
    }

    /// Whether the switch's port has been dropped.
    pub fn is_gone(&self) -> bool {
        self.tx.is_gone()
    }

    /// The counters of this endpoint. `frames_out` counts frames sent to the switch.
    pub fn tally(&self) -> &Arc<PortTally> {
        self.tx.tally()
    }

    /// The counters of the pool for frames to send.
    pub fn pool_tally(&self) -> &Arc<PoolTally> {
        self.maker.pool.tally()
    }
}

/// The half that receives frames.
#[derive(Debug)]
pub struct EndpointReceiver {
    rx: Rx,
    bell: Doorbell,
    waiter: Waiter,
}

impl EndpointReceiver {
    /// Takes received frames while `burst` has room, and returns their number.
    ///
    /// # Errors
    /// [`Gone`], after all received frames have been taken.
    pub fn receive_burst(&mut self, burst: &mut Burst) -> Result<usize, Gone> {
        self.receive_some(burst)
    }

    /// Takes the oldest received frame. Does not block.
    ///
    /// # Errors
    /// As [`receive_burst`](Self::receive_burst).
    pub fn receive(&mut self) -> Result<Option<Frame>, Gone> {
        let mut one = ArrayVec::<Frame, 1>::new();
        self.receive_some(&mut one)?;
        Ok(one.pop())
    }

    /// Takes the oldest received frame. If there is none, blocks up to `timeout`, or without limit
    /// if it is `None`.
    ///
    /// Returns `None` if the timeout has expired.
    ///
    /// # Errors
    /// As [`receive_burst`](Self::receive_burst).
    pub fn receive_wait(&mut self, timeout: Option<Duration>) -> Result<Option<Frame>, Gone> {
        let mut one = ArrayVec::<Frame, 1>::new();
        self.wait_some(&mut one, timeout)?;
        Ok(one.pop())
    }

    /// Takes received frames. If there are none, blocks up to `timeout`, or without limit if it is
    /// `None`.
    ///
    /// Returns the number of frames. It is 0 if the timeout has expired or `burst` is full.
    ///
    /// # Errors
    /// As [`receive_burst`](Self::receive_burst).
    pub fn receive_burst_wait(
        &mut self,
        burst: &mut Burst,
        timeout: Option<Duration>,
    ) -> Result<usize, Gone> {
        self.wait_some(burst, timeout)
    }

    fn wait_some<const N: usize>(
        &mut self,
        frames: &mut ArrayVec<Frame, N>,
        timeout: Option<Duration>,
    ) -> Result<usize, Gone> {
        let started = Instant::now();
        loop {
            let left = left(started, timeout);
            let n = self.receive_some(frames)?;
            if n > 0 || frames.is_full() || left == Some(Duration::ZERO) {
                return Ok(n);
            }
            if self.rx.arm_for_frames(&mut self.bell) {
                sleep(&self.bell, &mut self.waiter, left);
            }
        }
    }

    fn receive_some<const N: usize>(
        &mut self,
        frames: &mut ArrayVec<Frame, N>,
    ) -> Result<usize, Gone> {
        self.bell.disarm();
        if frames.is_full() {
            return Ok(0);
        }
        // Reads the flag before taking frames: frames that the port sent before it was dropped are
        // then visible.
        let gone = self.rx.is_gone();
        let before = frames.len();
        let n = self.rx.take(frames);
        self.rx.count_in(n as u64, bytes_of(&frames[before..]));
        if n == 0 && gone { Err(Gone) } else { Ok(n) }
    }

    /// Prepares to wait for frames with the caller's own `poll`. Returns whether the caller should
    /// block, and on which descriptor.
    ///
    /// The descriptor becomes readable when a frame arrives or the port is dropped. The next call
    /// that receives resets it.
    pub fn arm(&mut self) -> Arm {
        match self.rx.arm_for_frames(&mut self.bell) {
            true => Arm::Wait(self.bell.as_raw_fd()),
            false => Arm::Ready,
        }
    }

    /// Whether the switch's port has been dropped. Frames that the port sent may still be waiting
    /// here.
    pub fn is_gone(&self) -> bool {
        self.rx.is_gone()
    }

    /// The counters of this endpoint. `frames_in` counts frames received from the switch.
    pub fn tally(&self) -> &Arc<PortTally> {
        self.rx.tally()
    }
}

#[cfg(feature = "async")]
mod futures {
    use std::{
        future::poll_fn,
        task::{Context, Poll},
    };

    use super::*;

    impl EndpointSender {
        /// Returns `Ready` if the ring seems to have room for a frame. Otherwise stores the task's
        /// waker. It works with any async runtime.
        ///
        /// # Errors
        /// [`Gone`].
        pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
            self.bell.register(cx.waker());
            if self.tx.arm_for_room(&mut self.bell) {
                return Poll::Pending;
            }
            Poll::Ready(if self.is_gone() { Err(Gone) } else { Ok(()) })
        }

        /// Sends one frame. If the ring is full, waits for room.
        ///
        /// # Errors
        /// [`SendError::Gone`] with the frame.
        pub async fn send_async(&mut self, mut frame: Frame) -> Result<(), SendError> {
            loop {
                match self.send(frame) {
                    Err(SendError::Full(back)) => frame = back,
                    sent => return sent,
                }
                // Once the port is gone, `send` returns the error with the frame.
                let _ = poll_fn(|cx| self.poll_ready(cx)).await;
            }
        }
    }

    impl EndpointReceiver {
        /// Takes the oldest received frame, or stores the task's waker.
        ///
        /// # Errors
        /// As [`receive_burst`](Self::receive_burst).
        pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Gone>> {
            let mut one = ArrayVec::<Frame, 1>::new();
            self.poll_some(cx, &mut one).map_ok(|_| one.pop().expect("ready with a frame"))
        }

        /// Takes one or more received frames, or stores the task's waker if there is none.
        ///
        /// # Errors
        /// As [`receive_burst`](Self::receive_burst).
        pub fn poll_receive_burst(
            &mut self,
            cx: &mut Context<'_>,
            burst: &mut Burst,
        ) -> Poll<Result<usize, Gone>> {
            self.poll_some(cx, burst)
        }

        fn poll_some<const N: usize>(
            &mut self,
            cx: &mut Context<'_>,
            frames: &mut ArrayVec<Frame, N>,
        ) -> Poll<Result<usize, Gone>> {
            loop {
                match self.receive_some(frames) {
                    Ok(0) if !frames.is_full() => {}
                    taken => return Poll::Ready(taken),
                }
                self.bell.register(cx.waker());
                // The doorbell is armed after the waker is stored, so that a far end that sees the
                // armed flag also finds the waker.
                if self.rx.arm_for_frames(&mut self.bell) {
                    return Poll::Pending;
                }
            }
        }

        /// Waits until a frame arrives, and takes it.
        ///
        /// # Errors
        /// As [`receive_burst`](Self::receive_burst).
        pub async fn receive_async(&mut self) -> Result<Frame, Gone> {
            poll_fn(|cx| self.poll_receive(cx)).await
        }
    }
}
