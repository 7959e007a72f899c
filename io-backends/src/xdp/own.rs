//! The current MAC address of the interface.
//!
//! It can change while a port is open: by `ip link set address`, or when a bond changes its active
//! member.

use std::{
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::ether::Mac;
use crate::sys::CallError;

/// A socket that receives nothing. It is bound to the interface, so that the address is not read
/// from another interface of the same name.
pub(super) struct LocalMac(OwnedFd);

impl LocalMac {
    pub(super) fn of(interface: u32) -> Result<Self, CallError> {
        // With protocol 0 the socket receives nothing.
        // SAFETY: the call takes and returns only numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(CallError::last("socket(AF_PACKET)"));
        }
        // SAFETY: the kernel has just returned this descriptor, and only we have it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all fields are numbers, for which zero is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = interface as i32;
        let len = mem::size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address has `len` bytes and outlives the call.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
        if bound < 0 { Err(CallError::last("bind")) } else { Ok(Self(fd)) }
    }

    /// The current address. It is `None` if the interface is gone.
    pub(super) fn read(&self) -> Option<Mac> {
        // SAFETY: all fields are numbers, for which zero is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        let mut len = mem::size_of_val(&address) as libc::socklen_t;
        let (fd, at) = (self.0.as_raw_fd(), (&raw mut address).cast());
        // SAFETY: `len` bytes may be written there, and both outlive the call.
        let result = unsafe { libc::getsockname(fd, at, &raw mut len) };
        let mac: Mac = address.sll_addr[..6].try_into().ok()?;
        (result == 0 && address.sll_halen == 6 && mac != [0; 6]).then_some(mac)
    }
}
