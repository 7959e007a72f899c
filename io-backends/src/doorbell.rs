//! A doorbell: an eventfd, and a flag that shows whether a thread sleeps.
//!
//! While the sleeper is awake, ringing costs one fence and one load; while it sleeps, also one
//! `write`. Ringing does not block or allocate.
//!
//! [`strowger_frame::sleep`] describes the protocol of the flag and why no ring is lost.
//!
//! ```
//! let mut bell = strowger_io::Doorbell::new()?;
//! let waker = bell.waker();
//! bell.arm(); // then check for work once more, and only then poll the descriptor
//! waker.wake();
//! bell.disarm();
//! # Ok::<(), std::io::Error>(())
//! ```

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
    sync::Arc,
};

use strowger_frame::sleep::{SleepFlag, Wake};
#[cfg(feature = "async")]
use strowger_frame::waker::WakerCell;

#[derive(Debug)]
struct Shared {
    flag: SleepFlag,
    event: OwnedFd,
    #[cfg(feature = "async")]
    waker: WakerCell,
}

/// The sleeper's half. It is not `Clone`, because only one thread at a time sleeps on a doorbell.
#[derive(Debug)]
pub struct Doorbell {
    shared: Arc<Shared>,
    armed: bool,
}

/// The waking half. Any number of threads can hold a clone.
#[derive(Clone, Debug)]
pub struct DoorbellWaker {
    shared: Arc<Shared>,
}

impl Doorbell {
    /// Makes a doorbell that is not armed.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor, and only we have it.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        let shared = Shared {
            flag: SleepFlag::default(),
            event,
            #[cfg(feature = "async")]
            waker: WakerCell::default(),
        };
        Ok(Self { shared: Arc::new(shared), armed: false })
    }

    /// Makes another waking half.
    pub fn waker(&self) -> DoorbellWaker {
        DoorbellWaker { shared: self.shared.clone() }
    }

    /// Prepares to sleep. From now on, ringing makes the descriptor readable.
    ///
    /// Check for work once more after this call, and block only if there is none.
    #[inline]
    pub fn arm(&mut self) {
        self.reset();
        self.armed = true;
        self.shared.flag.fall_asleep();
    }

    /// Ends the sleep. Ringing makes no system call from now on. Resets the descriptor.
    #[inline]
    pub fn disarm(&mut self) {
        if self.armed {
            self.shared.flag.wake_up();
            self.reset();
        }
    }

    /// Whether the doorbell is armed.
    #[inline]
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    /// Resets the eventfd.
    ///
    /// A waker that read the flag earlier may still write after this call. The next sleep then ends
    /// immediately, which is harmless.
    fn reset(&mut self) {
        if !self.armed {
            return;
        }
        self.armed = false;
        let mut rung = 0_u64;
        let fd = self.shared.event.as_raw_fd();
        // SAFETY: `rung` is eight writable bytes and outlives the call. An error means that the
        // doorbell did not ring.
        unsafe { libc::read(fd, (&raw mut rung).cast(), size_of::<u64>()) };
    }

    /// Stores the waker of a task that waits for this doorbell.
    #[cfg(feature = "async")]
    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.shared.waker.register(waker);
    }
}

impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }
}

impl Wake for DoorbellWaker {
    #[inline]
    fn wake(&self) {
        Self::wake(self);
    }
}

impl DoorbellWaker {
    /// Wakes the sleeper if it sleeps. Call this after the work has been published.
    #[inline]
    pub fn wake(&self) {
        if self.shared.flag.must_wake() {
            self.signal();
        }
    }

    #[cold]
    fn signal(&self) {
        let one = 1_u64;
        let fd = self.shared.event.as_raw_fd();
        // SAFETY: `one` is eight readable bytes and outlives the call. The only possible error is a
        // full counter, and then the descriptor is readable already.
        unsafe { libc::write(fd, (&raw const one).cast(), size_of::<u64>()) };
        #[cfg(feature = "async")]
        self.shared.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use strowger_frame::port::Arm;

    use super::*;
    use crate::wait::{Waited, Waiter};

    fn is_rung(bell: &Doorbell) -> bool {
        let mut waiter = Waiter::with_capacity(1);
        waiter.add(Arm::Wait(bell.as_raw_fd()));
        waiter.wait(Some(Duration::ZERO)) == Waited::Ready
    }

    #[test]
    fn a_ring_reaches_the_descriptor_only_while_armed() {
        let mut bell = Doorbell::new().expect("a descriptor");
        let waker = bell.waker();
        waker.wake();
        assert!(!is_rung(&bell));
        bell.arm();
        waker.wake();
        assert!(is_rung(&bell));
        bell.disarm();
        assert!(!is_rung(&bell));
    }

    #[test]
    fn arming_again_forgets_the_ring_before() {
        let mut bell = Doorbell::new().expect("a descriptor");
        let waker = bell.waker();
        bell.arm();
        waker.wake();
        bell.arm();
        assert!(!is_rung(&bell));
        waker.clone().wake();
        assert!(is_rung(&bell));
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        use std::sync::atomic::{AtomicU32, Ordering};
        const ROUNDS: u32 = 20_000;
        let mut bell = Doorbell::new().expect("a descriptor");
        let waker = bell.waker();
        let work = Arc::new(AtomicU32::new(0));
        let given = work.clone();
        let giver = std::thread::spawn(move || {
            for n in 1..=ROUNDS {
                given.store(n, Ordering::Release);
                waker.wake();
            }
        });
        let mut waiter = Waiter::with_capacity(1);
        let mut seen = 0;
        while seen < ROUNDS {
            bell.arm();
            let now = work.load(Ordering::Acquire);
            if now == seen {
                waiter.begin();
                waiter.add(Arm::Wait(bell.as_raw_fd()));
                let woken = waiter.wait(Some(Duration::from_secs(10)));
                assert_ne!(woken, Waited::TimedOut, "a ring was lost at {seen}");
            }
            bell.disarm();
            seen = now;
        }
        giver.join().expect("no panic");
    }
}
