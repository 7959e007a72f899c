//! Multicast groups. Frames to a group address arrive at all stations of a segment.
//!
//! The NIC drops such frames unless the interface has joined the group. The interface is a member
//! as long as the port exists.

use std::{
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::{
    ether::{Mac, is_one_station},
    interface::Interface,
};
use crate::sys::CallError;

/// A multicast group. The port receives those packets to the group that begin with `first_byte`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Address of the group: the lowest bit of its first byte is set.
    pub address: [u8; 6],
    /// First byte of every packet to the group.
    ///
    /// Packets with another first byte count as packets from unknown senders. Otherwise all
    /// stations would reply to a packet that is meant for one station.
    pub first_byte: u8,
}

impl Group {
    /// Whether the address is a multicast address and not broadcast.
    pub(super) fn is_one(&self) -> bool {
        !is_one_station(self.address) && self.address != [0; 6] && self.address != [0xff; 6]
    }
}

/// A socket that holds the membership and receives nothing.
///
/// The kernel ends the membership when the process ends, even if it is killed.
pub(super) struct Membership(#[allow(dead_code)] OwnedFd);

/// Joins a group on the interface.
pub(super) fn join(interface: &Interface, address: Mac) -> Result<Membership, CallError> {
    // With protocol 0 the socket receives nothing.
    // SAFETY: the call takes and returns only numbers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(CallError::last("socket(AF_PACKET)"));
    }
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all fields are numbers, for which zero is a valid value.
    let mut request: libc::packet_mreq = unsafe { mem::zeroed() };
    request.mr_ifindex = interface.index as i32;
    request.mr_type = libc::PACKET_MR_MULTICAST as u16;
    request.mr_alen = address.len() as u16;
    request.mr_address[..address.len()].copy_from_slice(&address);
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP);
    let at = (&raw const request).cast();
    let len = mem::size_of_val(&request) as libc::socklen_t;
    // SAFETY: `at` points to `len` bytes that outlive the call.
    let set = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, at, len) };
    if set < 0 {
        return Err(CallError::last("PACKET_ADD_MEMBERSHIP"));
    }
    Ok(Membership(fd))
}
