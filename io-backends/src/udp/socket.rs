//! A UDP socket and its options, with one function for each system call.
//!
//! These functions do not retry. The caller handles the errno.

use std::{
    io, mem,
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use super::name::Name;
use crate::sys::messages::Calls;

/// A UDP socket.
///
/// It stays in blocking mode, and every call passes `MSG_DONTWAIT`: io_uring completes a receive on
/// an `O_NONBLOCK` socket with `EAGAIN` instead of waiting.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    calls: Calls,
    /// Results of the next sends, in place of the kernel's results.
    #[cfg(test)]
    pub(super) forced: std::cell::RefCell<std::collections::VecDeque<Forced>>,
}

/// A result that a test forces, because it does not occur on loopback.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(super) enum Forced {
    Errno(i32),
    /// The kernel accepts this many messages and leaves the rest.
    Take(usize),
}

/// The errno of the call that just failed.
pub(super) fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or_default()
}

impl Socket {
    /// Makes a socket of the family of `at`. It is not bound yet.
    pub(super) fn new(at: SocketAddr) -> Result<Self, i32> {
        Self::with(at, false)
    }

    /// As `new`. The socket is dual-stack if `at` is IPv6 and `dual` is set.
    pub(super) fn with(at: SocketAddr, dual: bool) -> Result<Self, i32> {
        let domain = if at.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: the call takes and returns only numbers.
        let fd = unsafe { libc::socket(domain, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(errno());
        }
        // SAFETY: the kernel has just returned this descriptor, and only we have it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Self {
            fd,
            calls: Calls::best(),
            #[cfg(test)]
            forced: Default::default(),
        };
        if at.is_ipv6() {
            // The option is set in both cases, so that the system's default has no effect.
            socket.set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, i32::from(!dual))?;
        }
        Ok(socket)
    }

    pub(super) fn bind(&self, at: SocketAddr) -> Result<(), i32> {
        let name = Name::of(at);
        // SAFETY: `name` has `len` bytes and outlives the call.
        let bound =
            unsafe { libc::bind(self.fd(), name.as_ptr().cast(), name.len() as libc::socklen_t) };
        if bound < 0 { Err(errno()) } else { Ok(()) }
    }

    /// The local address.
    pub(super) fn local(&self) -> Result<SocketAddr, i32> {
        let mut name = Name::default();
        let mut len = Name::ROOM as libc::socklen_t;
        // SAFETY: `name` has `len` bytes to be written, and both outlive the call.
        let result = unsafe { libc::getsockname(self.fd(), name.as_mut_ptr().cast(), &mut len) };
        if result < 0 {
            return Err(errno());
        }
        name.address().ok_or(libc::EAFNOSUPPORT)
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(super) fn set(&self, level: i32, option: i32, value: i32) -> Result<(), i32> {
        let at = (&raw const value).cast();
        let len = mem::size_of::<i32>() as libc::socklen_t;
        // SAFETY: `at` points to `len` bytes that outlive the call.
        let set = unsafe { libc::setsockopt(self.fd(), level, option, at, len) };
        if set < 0 { Err(errno()) } else { Ok(()) }
    }

    /// Attaches a program that selects the socket of the group (`SO_REUSEPORT`) for each datagram.
    pub(super) fn attach_to_group(&self, program: &[libc::sock_filter]) -> Result<(), i32> {
        let len = program.len() as u16;
        let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
        let at = (&raw const program).cast();
        let len = mem::size_of::<libc::sock_fprog>() as libc::socklen_t;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF);
        // SAFETY: `at` points to a `sock_fprog` of `len` bytes, which points to the instructions
        // and contains their number; all outlive the call, and the kernel copies them and writes
        // nothing.
        let set = unsafe { libc::setsockopt(self.fd(), level, option, at, len) };
        if set < 0 { Err(errno()) } else { Ok(()) }
    }

    pub(super) fn read(&self, level: i32, option: i32) -> Result<i32, i32> {
        let mut value = 0_i32;
        let mut len = mem::size_of::<i32>() as libc::socklen_t;
        let at = (&raw mut value).cast();
        // SAFETY: `at` points to `len` bytes to be written, and both outlive the call.
        let read = unsafe { libc::getsockopt(self.fd(), level, option, at, &mut len) };
        if read < 0 { Err(errno()) } else { Ok(value) }
    }

    /// Bytes charged to the send buffer: sent on this socket, but still in the machine.
    pub(super) fn in_flight(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the request writes one int, which outlives the call.
        let result = unsafe { libc::ioctl(self.fd(), libc::TIOCOUTQ, &raw mut bytes) };
        // If the call fails, the socket counts as not congested.
        if result < 0 { 0 } else { usize::try_from(bytes).unwrap_or_default() }
    }

    /// Receives one datagram or train of up to 200 bytes, and returns its length.
    pub(super) fn take_one(&self) -> Result<usize, i32> {
        let mut bytes = [0_u8; 200];
        let at = bytes.as_mut_ptr().cast();
        // SAFETY: `bytes` has this length and outlives the call.
        let received = unsafe { libc::recv(self.fd(), at, bytes.len(), libc::MSG_DONTWAIT) };
        if received < 0 { Err(errno()) } else { Ok(received as usize) }
    }

    /// Blocks until something can be received. Returns `false` after `timeout_ms`, or if poll(2)
    /// fails.
    pub(super) fn wait_readable(&self, timeout_ms: i32) -> bool {
        let mut poll = libc::pollfd { fd: self.fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the call accesses one pollfd, which outlives it.
        unsafe { libc::poll(&mut poll, 1, timeout_ms) == 1 }
    }
}

/// Sends the messages of `headers`. Returns the number of messages sent, at least one, or the errno
/// of the first message.
///
/// # Safety
/// Every pointer in `headers` is null with length 0, or points to that many readable bytes.
pub(super) unsafe fn send_messages(
    socket: &Socket,
    headers: &mut [libc::mmsghdr],
) -> Result<usize, i32> {
    #[cfg(test)]
    let headers = match socket.forced.borrow_mut().pop_front() {
        Some(Forced::Errno(errno)) => return Err(errno),
        Some(Forced::Take(most)) => &mut headers[..most],
        None => headers,
    };
    // SAFETY: the caller guarantees what the headers point to.
    unsafe { socket.calls.send(socket.fd(), headers, libc::MSG_DONTWAIT) }
}

/// Receives into `headers`. Returns the number of messages, at least one, or the errno.
///
/// # Safety
/// As for [`send_messages`], and the memory is writable and not accessed by others during the call.
pub(super) unsafe fn receive_messages(
    socket: &Socket,
    headers: &mut [libc::mmsghdr],
) -> Result<usize, i32> {
    // SAFETY: as above.
    unsafe { socket.calls.receive(socket.fd(), headers) }
}
