//! Reports changes on this machine: of interfaces, of IP addresses and of the wall clock.
//!
//! The kernel makes a descriptor readable. The caller must find out what has changed.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use strowger_frame::port::Arm;

/// A time in the far future, in seconds since 1970. A timer set to it does not expire in practice,
/// but setting the clock cancels it.
const NEVER_S: libc::time_t = 1 << 40;

/// Interfaces and addresses: groups of rtnetlink(7).
const GROUPS: u32 =
    (libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;

/// Reports that something has changed on the machine or in this network namespace.
#[derive(Debug)]
pub struct MachineChanges {
    links: OwnedFd,
    clock: OwnedFd,
}

impl MachineChanges {
    /// Starts to watch for changes.
    ///
    /// # Errors
    /// The kernel refused a descriptor, for example in a sandbox.
    pub fn watch() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers are passed.
        let links = owned(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) })?;
        // SAFETY: zero is a valid value of all fields.
        let mut at: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        at.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        at.nl_groups = GROUPS;
        let bytes = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: `at` is an address of `bytes` bytes, and outlives the call.
        checked(unsafe { libc::bind(links.as_raw_fd(), (&raw const at).cast(), bytes) })?;
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: no pointers are passed.
        let clock = owned(unsafe { libc::timerfd_create(libc::CLOCK_REALTIME, flags) })?;
        let changes = Self { links, clock };
        changes.arm_clock()?;
        Ok(changes)
    }

    /// Arms the timer that is cancelled when the clock is set. Each arming reports one change.
    fn arm_clock(&self) -> io::Result<()> {
        let never = libc::timespec { tv_sec: NEVER_S, tv_nsec: 0 };
        let once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let timer = libc::itimerspec { it_interval: once, it_value: never };
        let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
        let fd = self.clock.as_raw_fd();
        // SAFETY: `timer` outlives the call, and the former setting is not requested.
        checked(unsafe { libc::timerfd_settime(fd, flags, &raw const timer, ptr::null_mut()) })
    }

    /// The descriptors that become readable when something has changed.
    pub fn arm(&self) -> [Arm; 2] {
        [Arm::Wait(self.links.as_raw_fd()), Arm::Wait(self.clock.as_raw_fd())]
    }

    /// Whether something has changed since the last call.
    pub fn take(&mut self) -> bool {
        let mut changed = false;
        // If the kernel's queue overflows, the kernel drops messages and returns an error. The
        // error counts as a change too.
        while is_read(self.links.as_raw_fd()) {
            changed = true;
        }
        if is_read(self.clock.as_raw_fd()) {
            changed = true;
            // The same call succeeded before, so no error is expected.
            let _ = self.arm_clock();
        }
        changed
    }
}

/// Whether a message or an error could be read. The contents of the message are not needed.
fn is_read(fd: RawFd) -> bool {
    let mut message = [0_u8; 4_096];
    // SAFETY: `message` is writable for its length, and outlives the call.
    let read = unsafe { libc::read(fd, message.as_mut_ptr().cast(), message.len()) };
    read >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    checked(fd)?;
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wait::{Waited, Waiter};

    #[test]
    fn a_watch_reports_changes_only() {
        let mut changes = MachineChanges::watch().expect("descriptors");
        changes.take();
        let mut waiter = Waiter::with_capacity(2);
        changes.arm().into_iter().for_each(|arm| waiter.add(arm));
        // Another program may change something in the meantime, which causes a report too.
        if waiter.wait(Some(Duration::from_millis(10))) == Waited::Ready {
            assert!(changes.take());
        }
    }
}
