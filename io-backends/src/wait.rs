//! How a worker blocks after every port has said what would wake it: one `ppoll` over descriptors
//! in memory taken beforehand. It never allocates after it is made, and never blocks if a port has
//! work or cannot be waited for.
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

/// What a worker gathers before it blocks. Owned by that worker.
pub struct Waiter {
    polled: Box<[libc::pollfd]>,
    used: usize,
    /// Something is ready, or has to be polled: blocking would be wrong.
    awake: bool,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Something may be waiting: look at every port.
    Ready,
    /// Nothing happened for as long as was said.
    TimedOut,
    /// A signal came: look at what it asks for, then wait again.
    Interrupted,
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter").field("used", &self.used).field("awake", &self.awake).finish()
    }
}

impl Waiter {
    /// Room for this many descriptors: one for each port, and one for orders.
    pub fn with_capacity(descriptors: usize) -> Self {
        let none = libc::pollfd { fd: -1, events: 0, revents: 0 };
        Self { polled: vec![none; descriptors].into_boxed_slice(), used: 0, awake: false }
    }

    /// Forgets what was gathered last time.
    #[inline]
    pub fn begin(&mut self) {
        self.used = 0;
        self.awake = false;
    }

    /// Adds what a port's [`arm`](strowger_frame::Port::arm) said. A port that must be polled, and
    /// one more descriptor than there is room for, keep the worker from blocking.
    #[inline]
    pub fn add(&mut self, arm: Arm) {
        // `ppoll` ignores an entry without a descriptor; it keeps the places in order.
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

    /// Whether what was added as number `nth`, from 0, needs attention: its descriptor was readable
    /// (or failed) when [`wait`](Self::wait) returned, or it was no descriptor to wait for.
    #[inline]
    pub fn is_ready(&self, nth: usize) -> bool {
        nth < self.used && self.polled.get(nth).is_none_or(|polled| polled.revents != 0)
    }

    /// Whether [`wait`](Self::wait) would return at once.
    pub fn is_awake(&self) -> bool {
        self.awake
    }

    /// Blocks until a descriptor is readable, a signal comes or `timeout` has passed (`None`: for
    /// ever). An error of the kernel counts as ready: whoever owns the bad descriptor finds out.
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
        // SAFETY: the first `used` entries are initialised and ours, `used` is at most their
        // number; `limit` is null or points to a time that outlives the call.
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
    fn who_is_ready_is_said_by_place() {
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
