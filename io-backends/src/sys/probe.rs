//! Raw sockets, resource limits and interfaces of this machine. It keeps nothing open and changes
//! nothing. For UDP see [`udp::probe`](crate::udp::probe).

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

/// Tries to make an AF_XDP socket.
///
/// # Errors
/// The kernel's error: `EPERM` without `CAP_NET_RAW`, `EAFNOSUPPORT` if the kernel was built without
/// AF_XDP.
pub fn af_xdp() -> io::Result<()> {
    try_socket(libc::AF_XDP)
}

/// Tries to make an AF_PACKET socket.
///
/// # Errors
/// As for [`af_xdp`].
pub fn af_packet() -> io::Result<()> {
    try_socket(libc::AF_PACKET)
}

fn try_socket(family: libc::c_int) -> io::Result<()> {
    // SAFETY: the call takes and returns only numbers.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// A resource limit of this process; `None` means unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The limit in force.
    pub now: Option<u64>,
    /// The limit up to which the process may raise it.
    pub max: Option<u64>,
}

/// Bytes of memory that may be locked. Memory that is registered with the kernel counts.
///
/// # Errors
/// The kernel's error; the arguments are valid, so none is expected.
pub fn locked_bytes_max() -> io::Result<Limit> {
    limit(libc::RLIMIT_MEMLOCK)
}

/// Number of files that may be open.
///
/// # Errors
/// As for [`locked_bytes_max`].
pub fn open_files_max() -> io::Result<Limit> {
    limit(libc::RLIMIT_NOFILE)
}

/// The type of a resource differs between C libraries.
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

/// The index of an interface; `None` if there is no interface of this name.
pub fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends in a zero byte and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// The name of the interface with this index, if there is one.
pub fn interface_name(index: u32) -> Option<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: `name` has the length that the call requires.
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
    fn a_socket_opens_or_is_refused_with_a_reason() {
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
            let Limit { now, max } = limit.expect("the kernel returns it");
            assert!(now.unwrap_or(u64::MAX) <= max.unwrap_or(u64::MAX));
        }
    }
}
