//! Resource limits and interface names of this machine.
//!
//! The probes of the features that ports need are [`udp::probe`](crate::udp::probe) and
//! [`xdp::probe`](crate::xdp::probe()).

use std::{
    ffi::{CStr, CString},
    io,
};

/// A resource limit of this process; `None` means unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The limit in force.
    pub now: Option<u64>,
    /// The value up to which the process may raise the limit.
    pub max: Option<u64>,
}

/// Maximum number of bytes of memory that the process may lock. Memory that is registered with the
/// kernel counts.
///
/// # Errors
/// The kernel's error; the arguments are valid, so none is expected.
pub fn locked_bytes_max() -> io::Result<Limit> {
    limit(libc::RLIMIT_MEMLOCK)
}

/// Maximum number of files that the process may have open.
///
/// # Errors
/// As for [`locked_bytes_max`].
pub fn open_files_max() -> io::Result<Limit> {
    limit(libc::RLIMIT_NOFILE)
}

/// The type of a resource is not the same in all C libraries.
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
    fn limits_are_below_their_maximum() {
        for limit in [locked_bytes_max(), open_files_max()] {
            let Limit { now, max } = limit.expect("the kernel returns it");
            assert!(now.unwrap_or(u64::MAX) <= max.unwrap_or(u64::MAX));
        }
    }
}
