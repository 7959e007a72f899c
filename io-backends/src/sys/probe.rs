//! What the machine allows beside UDP, found by trying: raw sockets of both kinds, and limits. It
//! keeps nothing open and changes nothing. (UDP's own findings: [`udp::probe`](crate::udp::probe).)

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

/// Whether an AF_XDP socket can be made.
///
/// # Errors
/// The kernel's: `EPERM` without the capability `CAP_NET_RAW`, `EAFNOSUPPORT` where the kernel was
/// built without.
pub fn af_xdp() -> io::Result<()> {
    try_socket(libc::AF_XDP)
}

/// Whether an AF_PACKET socket can be made.
///
/// # Errors
/// As for [`af_xdp`].
pub fn af_packet() -> io::Result<()> {
    try_socket(libc::AF_PACKET)
}

fn try_socket(family: libc::c_int) -> io::Result<()> {
    // SAFETY: takes numbers and gives a number.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// A limit of this process; `None` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What holds now.
    pub now: Option<u64>,
    /// How far the process may raise it by itself.
    pub max: Option<u64>,
}

/// Bytes of memory that may be locked: what is registered with the kernel counts.
///
/// # Errors
/// The kernel's, which this call gives for a bug only.
pub fn locked_bytes_max() -> io::Result<Limit> {
    limit(libc::RLIMIT_MEMLOCK)
}

/// Descriptors that may be open.
///
/// # Errors
/// As for [`locked_bytes_max`].
pub fn open_files_max() -> io::Result<Limit> {
    limit(libc::RLIMIT_NOFILE)
}

/// What the C library calls a resource differs from library to library.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

fn limit(resource: Resource) -> io::Result<Limit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a whole `rlimit`, writable, and outlives the call.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let finite = |bytes| (bytes != libc::RLIM_INFINITY).then_some(bytes);
    Ok(Limit { now: finite(limit.rlim_cur), max: finite(limit.rlim_max) })
}

/// The number of an interface; `None` if this machine has none of that name now.
pub fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends in zero and lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// The name of the interface with this number, if there is one.
pub fn interface_name(index: u32) -> Option<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: `name` has the room that the call asks for.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return None;
    }
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    Some(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_to_be_had_or_refused_with_a_reason() {
        for tried in [af_xdp(), af_packet()] {
            if let Err(error) = tried {
                let errno = error.raw_os_error().expect("the kernel refused it");
                assert!([libc::EPERM, libc::EACCES, libc::EAFNOSUPPORT].contains(&errno));
            }
        }
        assert!(try_socket(-1).is_err());
    }

    #[test]
    fn limits_are_below_their_maximum() {
        for limit in [locked_bytes_max(), open_files_max()] {
            let Limit { now, max } = limit.expect("the kernel knows it");
            assert!(now.unwrap_or(u64::MAX) <= max.unwrap_or(u64::MAX));
        }
    }
}
