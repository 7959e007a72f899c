//! Blocks a worker until a port has work, with one `ppoll` on a fixed array of descriptors.
//!
//! A waiter allocates only when it is created. It does not block if a port has work already or must
//! be polled.
//!
//! ```
//! use std::time::Duration;
//! use strowger_frame::{Port as _, port::Arm};
//! use strowger_io::wait::{Waited, Waiter};
//!
//! let (mut near, _far) = strowger_io::memory::wire(8)?;
//! let mut waiter = Waiter::with_capacity(1);
//! waiter.begin();
//! waiter.add(near.arm());
//! assert_eq!(waiter.wait(Some(Duration::from_millis(1))), Waited::TimedOut);
//! near.disarm();
//! # Ok::<(), std::io::Error>(())
//! ```

use std::{io, ptr, time::Duration};

use strowger_frame::port::Arm;

/// The descriptors on which one worker blocks.
pub struct Waiter {
    polled: Box<[libc::pollfd]>,
    used: usize,
    /// Whether a port is ready or must be polled. The worker then must not block.
    awake: bool,
}

/// The reason why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A descriptor is ready: poll every port.
    Ready,
    /// The timeout passed.
    TimedOut,
    /// A signal arrived. Handle it, then wait again.
    Interrupted,
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter").field("used", &self.used).field("awake", &self.awake).finish()
    }
}

impl Waiter {
    /// Allocates room for this many descriptors: one for each port and one for commands.
    pub fn with_capacity(descriptors: usize) -> Self {
        let none = libc::pollfd { fd: -1, events: 0, revents: 0 };
        Self { polled: vec![none; descriptors].into_boxed_slice(), used: 0, awake: false }
    }

    /// Removes all descriptors.
    #[inline]
    pub fn begin(&mut self) {
        self.used = 0;
        self.awake = false;
    }

    /// Adds the result of a port's [`arm`](strowger_frame::Port::arm).
    ///
    /// If a port must be polled, or if there is no room for its descriptor, the worker does not
    /// block.
    #[inline]
    pub fn add(&mut self, arm: Arm) {
        // `ppoll` ignores an entry with a negative descriptor. The entry keeps the positions equal
        // to the order of the calls.
        let (fd, revents) = match arm {
            Arm::Wait(fd) => (fd, 0),
            Arm::Ready | Arm::Poll => (-1, libc::POLLIN),
        };
        self.awake |= fd < 0;
        match self.polled.get_mut(self.used) {
            Some(polled) => *polled = libc::pollfd { fd, events: libc::POLLIN, revents },
            None => self.awake = true,
        }
        self.used += 1;
    }

    /// Whether the entry at position `nth`, from 0, needs attention after [`wait`](Self::wait) has
    /// returned.
    ///
    /// This is so if its descriptor was readable or had an error, if the port was ready or must be
    /// polled, or if there was no room for the entry.
    #[inline]
    pub fn is_ready(&self, nth: usize) -> bool {
        nth < self.used && self.polled.get(nth).is_none_or(|polled| polled.revents != 0)
    }

    /// Whether [`wait`](Self::wait) would return immediately.
    pub fn is_awake(&self) -> bool {
        self.awake
    }

    /// Blocks until a descriptor is readable, a signal arrives or `timeout` passes (`None`: no
    /// limit).
    ///
    /// An invalid descriptor counts as ready, so that its port finds the error when it is polled.
    /// Other errors of `ppoll` count as ready too.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Waited {
        if self.awake {
            return Waited::Ready;
        }
        let limit = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
        let used = self.used.min(self.polled.len()) as libc::nfds_t;
        // SAFETY: the first `used` entries are initialised and belong to us, and there are at least
        // that many; `limit` is null or points to a time that outlives the call.
        let ready = unsafe { libc::ppoll(self.polled.as_mut_ptr(), used, limit, ptr::null()) };
        match ready {
            0 => Waited::TimedOut,
            n if n > 0 => Waited::Ready,
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {
                Waited::Interrupted
            }
            _ => Waited::Ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_port_keeps_the_worker_awake() {
        for arm in [Arm::Ready, Arm::Poll] {
            let mut waiter = Waiter::with_capacity(4);
            waiter.add(arm);
            assert!(waiter.is_awake());
            assert_eq!(waiter.wait(None), Waited::Ready);
        }
    }

    #[test]
    fn a_descriptor_too_many_keeps_the_worker_awake() {
        let mut waiter = Waiter::with_capacity(0);
        waiter.add(Arm::Wait(0));
        assert_eq!(waiter.wait(None), Waited::Ready);
        waiter.begin();
        assert_eq!(waiter.wait(Some(Duration::ZERO)), Waited::TimedOut);
    }

    #[test]
    fn readiness_is_reported_by_position() {
        use std::os::fd::AsRawFd as _;
        let (mut quiet, mut rung) =
            (crate::Doorbell::new().unwrap(), crate::Doorbell::new().unwrap());
        quiet.arm();
        rung.arm();
        rung.waker().wake();
        let mut waiter = Waiter::with_capacity(2);
        waiter.add(Arm::Wait(quiet.as_raw_fd()));
        waiter.add(Arm::Wait(rung.as_raw_fd()));
        assert_eq!(waiter.wait(None), Waited::Ready);
        assert_eq!([0, 1, 2].map(|nth| waiter.is_ready(nth)), [false, true, false]);
        waiter.begin();
        waiter.add(Arm::Poll);
        waiter.add(Arm::Wait(quiet.as_raw_fd()));
        waiter.add(Arm::Wait(rung.as_raw_fd()));
        assert_eq!(waiter.wait(None), Waited::Ready, "there is no room for the third");
        assert_eq!([0, 1, 2].map(|nth| waiter.is_ready(nth)), [true, false, true]);
    }

    #[test]
    fn a_closed_descriptor_does_not_block() {
        let mut waiter = Waiter::with_capacity(1);
        waiter.add(Arm::Wait(1 << 20)); // above any limit of a test process
        assert_eq!(waiter.wait(None), Waited::Ready);
    }
}
