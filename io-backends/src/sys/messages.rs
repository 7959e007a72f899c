//! Sends and receives many messages in one system call (`recvmmsg`, `sendmmsg`). If a sandbox
//! refuses these calls, each message needs its own call. The calls do not block.

use std::{io, os::fd::RawFd, ptr};

use super::{CallError, Errno, Refusal};

/// The remedy if a sandbox refuses the calls that send and receive messages.
pub(crate) const ALLOW_CALLS: &str =
    "allow recvmmsg and sendmmsg, or recvmsg and sendmsg, in the sandbox's seccomp profile";

/// The system calls that a port uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    one_by_one: bool,
}

impl Calls {
    /// Returns the calls for many messages if they are allowed, otherwise the calls for one
    /// message.
    pub(crate) fn best() -> Self {
        Self { one_by_one: many_refused().is_some() }
    }

    /// As [`best`](Self::best), after checking that the calls work.
    ///
    /// # Errors
    /// The process may use neither kind of call, so a port could not send or receive.
    pub(crate) fn find() -> Result<Self, CallError> {
        let best = Self::best();
        match one_refused() {
            Some(refused) if best.one_by_one => Err(refused),
            _ => Ok(best),
        }
    }

    /// Sends the messages of `headers`. Returns the number of messages sent, at least one, or the
    /// errno of the first message.
    ///
    /// # Safety
    /// Every pointer in `headers` is null with length 0, or points to that many readable bytes.
    pub(crate) unsafe fn send(
        self,
        fd: RawFd,
        headers: &mut [libc::mmsghdr],
        flags: libc::c_int,
    ) -> Result<usize, i32> {
        if self.one_by_one {
            return one_by_one(headers, |header| {
                // SAFETY: the caller guarantees what the header points to.
                unsafe { libc::sendmsg(fd, &raw const header.msg_hdr, flags) }
            });
        }
        let (at, len) = (headers.as_mut_ptr(), headers.len() as u32);
        // SAFETY: `headers` has this length; the caller guarantees what it points to.
        let sent = unsafe { libc::sendmmsg(fd, at, len, flags as _) };
        if sent < 0 { Err(errno()) } else { Ok(sent as usize) }
    }

    /// Receives into `headers`. Returns the number of messages, at least one, or the errno.
    ///
    /// # Safety
    /// As for [`send`](Self::send), and the memory is writable and not accessed by others during
    /// the call.
    pub(crate) unsafe fn receive(
        self,
        fd: RawFd,
        headers: &mut [libc::mmsghdr],
    ) -> Result<usize, i32> {
        if self.one_by_one {
            return one_by_one(headers, |header| {
                // SAFETY: the caller guarantees what the header points to.
                unsafe { libc::recvmsg(fd, &raw mut header.msg_hdr, libc::MSG_DONTWAIT) }
            });
        }
        let (at, len) = (headers.as_mut_ptr(), headers.len() as u32);
        // SAFETY: `headers` has this length; the caller guarantees what it points to.
        let received =
            unsafe { libc::recvmmsg(fd, at, len, libc::MSG_DONTWAIT as _, ptr::null_mut()) };
        if received < 0 { Err(errno()) } else { Ok(received as usize) }
    }
}

/// Makes one call per message, until one fails.
#[cold]
fn one_by_one(
    headers: &mut [libc::mmsghdr],
    mut call: impl FnMut(&mut libc::mmsghdr) -> isize,
) -> Result<usize, i32> {
    for (done, header) in headers.iter_mut().enumerate() {
        match u32::try_from(call(header)) {
            Ok(bytes) => header.msg_len = bytes,
            Err(_) if done > 0 => return Ok(done),
            Err(_) => return Err(errno()),
        }
    }
    Ok(headers.len())
}

/// Checks that the calls for many messages are allowed.
pub(crate) fn many() -> Result<(), Refusal> {
    let sandbox = "allow recvmmsg and sendmmsg in the sandbox's seccomp profile";
    many_refused().map_or(Ok(()), |error| Err(error.with_remedy(sandbox)))
}

/// Returns the call for many messages that is refused here, or `None` if both are allowed.
///
/// It passes an invalid descriptor: a kernel that allows the call returns `EBADF`.
fn many_refused() -> Option<CallError> {
    // SAFETY: the descriptor is invalid, and no message is pointed to.
    let receive = || unsafe {
        libc::recvmmsg(-1, ptr::null_mut(), 0, libc::MSG_DONTWAIT as _, ptr::null_mut())
    };
    // SAFETY: as above.
    let send = || unsafe { libc::sendmmsg(-1, ptr::null_mut(), 0, libc::MSG_DONTWAIT as _) };
    refused("recvmmsg", || receive().into()).or_else(|| refused("sendmmsg", || send().into()))
}

/// Returns the call for one message that is refused here, or `None` if both are allowed.
fn one_refused() -> Option<CallError> {
    let mut header = empty_header().msg_hdr;
    let at = &raw mut header;
    // SAFETY: the descriptor is invalid; the header outlives the call and points to nothing.
    let receive = || unsafe { libc::recvmsg(-1, at, libc::MSG_DONTWAIT) };
    // SAFETY: as above.
    let send = || unsafe { libc::sendmsg(-1, at, libc::MSG_DONTWAIT) };
    refused("recvmsg", || receive() as i64).or_else(|| refused("sendmsg", || send() as i64))
}

fn refused(name: &'static str, call: impl FnOnce() -> i64) -> Option<CallError> {
    let result = call();
    let error = CallError::last(name);
    (result >= 0 || error.errno != Errno(libc::EBADF)).then_some(error)
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or_default()
}

/// A message header without name, data or control messages.
pub(crate) fn empty_header() -> libc::mmsghdr {
    // SAFETY: all fields are numbers or pointers, for which zero is a valid value.
    unsafe { std::mem::zeroed() }
}
