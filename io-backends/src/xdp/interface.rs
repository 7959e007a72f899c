//! Reads the properties of a network interface before a port is opened on it.

use std::{
    ffi::CString,
    fs::File,
    io::{Read as _, Write as _},
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::{
    ether::Mac,
    features::{HiddenTags, hidden_tags_of},
};
use crate::sys::CallError;

const CHANNELS_READ: u32 = 0x3c; // ETHTOOL_GCHANNELS

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    most: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

const _: () = assert!(mem::size_of::<Channels>() == 36);

/// An Ethernet interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    /// Its network namespace. It is needed because an index is unique only within one namespace.
    pub(super) namespace: u64,
    pub(super) mac: Mac,
    /// MTU: the number of bytes after the 14 bytes of the Ethernet header.
    pub(super) mtu: u32,
    /// Number of receive queues.
    pub(super) queues: u32,
    /// Whether the interface is up.
    pub(super) up: bool,
    /// The kinds of VLAN tags that are removed from frames, so that an XDP program does not see
    /// them.
    pub(super) hidden_tags: HiddenTags,
}

/// Why an interface is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    Missing,
    NotEthernet,
    Call(CallError),
}

impl Interface {
    /// Looks up the interface of this name in this thread's network namespace.
    pub(crate) fn find(name: &str) -> Result<Self, Unfit> {
        let c_name = CString::new(name).map_err(|_| Unfit::Missing)?;
        // SAFETY: the string ends in a zero byte and outlives the call.
        let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
        if index == 0 {
            return Err(Unfit::Missing);
        }
        let ioctl_socket = ioctl_socket()?;
        let mut mac = [0; 6];
        let request = ask(&ioctl_socket, name, libc::SIOCGIFHWADDR as _, "SIOCGIFHWADDR", NOTHING)?;
        // SAFETY: the kernel has filled this part of the union, which consists of numbers.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            return Err(Unfit::NotEthernet);
        }
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        let request = ask(&ioctl_socket, name, libc::SIOCGIFMTU as _, "SIOCGIFMTU", NOTHING)?;
        // SAFETY: as above.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        let request = ask(&ioctl_socket, name, libc::SIOCGIFFLAGS as _, "SIOCGIFFLAGS", NOTHING)?;
        // SAFETY: as above.
        let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
        let mut channels = Channels { command: CHANNELS_READ, ..Channels::default() };
        let result = ask(
            &ioctl_socket,
            name,
            libc::SIOCETHTOOL as _,
            "ETHTOOL_GCHANNELS",
            Some(&mut channels),
        );
        // If the driver does not support this request, the interface counts as having one queue.
        let queues = result.map_or(1, |_| (channels.rx + channels.combined).max(1));
        let up = flags & libc::IFF_UP != 0;
        let hidden_tags = hidden_tags_of(&ioctl_socket, name)?;
        let namespace = namespace();
        Ok(Self { index, namespace, mac, mtu: mtu.max(0) as u32, queues, up, hidden_tags })
    }
}

/// Inode of this thread's network namespace; 0 without `/proc`.
fn namespace() -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |at| at.ino())
}

/// A socket for requests about interfaces.
pub(super) fn ioctl_socket() -> Result<OwnedFd, Unfit> {
    // SAFETY: the call takes and returns only numbers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(Unfit::Call(CallError::last("socket")));
    }
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The data argument of requests without a data structure.
const NOTHING: Option<&mut ()> = None;

/// Makes a request about the interface with this name.
pub(super) fn ask<T: ?Sized>(
    socket: &OwnedFd,
    name: &str,
    request: libc::Ioctl,
    call: &'static str,
    data: Option<&mut T>,
) -> Result<libc::ifreq, Unfit> {
    // SAFETY: all fields are numbers or pointers, for which zero is a valid value.
    let mut arguments: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero, because the kernel expects a C string.
    for (to, from) in arguments.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    if let Some(data) = data {
        arguments.ifr_ifru.ifru_data = std::ptr::from_mut(data).cast();
    }
    // SAFETY: the request reads and writes `arguments`, and what it points to outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &mut arguments) };
    if result < 0 { Err(Unfit::Call(CallError::last(call))) } else { Ok(arguments) }
}

/// Whether any XDP program is attached to the interface. It is `None` if the kernel does not report
/// it.
///
/// The request uses rtnetlink, which requires no capabilities.
pub(super) fn has_program(index: u32) -> Option<bool> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes and returns only numbers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return None;
    }
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    let mut ioctl_socket = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // `struct nlmsghdr` and `struct ifinfomsg`.
    let mut request = [0; LINK_BYTES];
    request[..4].copy_from_slice(&(LINK_BYTES as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request[20..24].copy_from_slice(&index.to_ne_bytes());
    ioctl_socket.write_all(&request).ok()?;
    // The kernel has queued the reply before the write returns.
    let mut answer = vec![0; 64 << 10];
    let len = ioctl_socket.read(&mut answer).ok()?;
    tells_of_program(&answer[..len])
}

const LINK_BYTES: usize = 32;

/// Whether a reply to `RTM_GETLINK` reports a program. It is `None` if the message is not such a
/// reply.
fn tells_of_program(answer: &[u8]) -> Option<bool> {
    const XDP: u16 = 43; // IFLA_XDP
    const ATTACHED: u16 = 2; // IFLA_XDP_ATTACHED: in which mode; 0 is none
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != libc::RTM_NEWLINK {
        return None;
    }
    let nested = attribute(answer.get(LINK_BYTES..)?, XDP)?;
    Some(*attribute(nested, ATTACHED)?.first()? != 0)
}

/// The first attribute of this type.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let bytes = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        // The upper bits are flags (`NLA_F_NESTED`).
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & 0x3fff;
        let inside = rest.get(4..bytes)?;
        if kind == wanted {
            return Some(inside);
        }
        rest = rest.get(bytes.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_ethernet_is_refused() {
        assert_eq!(Interface::find("lo"), Err(Unfit::NotEthernet));
        assert_eq!(Interface::find("no-such-interface-at-all"), Err(Unfit::Missing));
        assert_eq!(Interface::find("a\0b"), Err(Unfit::Missing));
    }

    #[test]
    fn an_answer_that_is_cut_short_tells_nothing() {
        assert_eq!(has_program(1), Some(false), "a loopback has no program");
        assert_eq!(has_program(u32::MAX >> 1), None, "there is no such interface");
        let mut answer = vec![0; LINK_BYTES];
        answer[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
        // An attribute of five bytes, padded to eight; then `IFLA_XDP` with `NLA_F_NESTED`.
        for word in [5_u16, 3, 0, 0, 12, 43 | 0x8000, 5, 2, 1, 0] {
            answer.extend(word.to_ne_bytes());
        }
        assert_eq!(tells_of_program(&answer), Some(true));
        let attached = answer.len() - 4;
        for len in 0..attached {
            assert_eq!(tells_of_program(&answer[..len]), None, "{len} bytes");
        }
        answer[attached] = 0;
        answer[attached + 1] = 0;
        assert_eq!(tells_of_program(&answer), Some(false));
        answer[LINK_BYTES] = 0; // an attribute shorter than its header
        assert_eq!(tells_of_program(&answer), None);
    }
}
