//! What there is to know of a network interface before a port is opened on it. It changes nothing.

use std::{
    ffi::CString,
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::{ether::Mac, socket::errno};

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
pub(super) struct Interface {
    pub(super) index: u32,
    /// The network namespace that it is in: an index alone is no name.
    pub(super) namespace: u64,
    pub(super) mac: Mac,
    /// Bytes behind the 14 of the Ethernet header.
    pub(super) mtu: u32,
    /// Queues that receive, as the driver has them now.
    pub(super) queues: u32,
    /// Whether it is up.
    pub(super) up: bool,
}

/// Why it is none for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    Missing,
    NotEthernet,
    Refused { step: &'static str, errno: i32 },
}

impl Interface {
    /// The interface of this name in this thread's network namespace.
    pub(super) fn find(name: &str) -> Result<Self, Unfit> {
        let c_name = CString::new(name).map_err(|_| Unfit::Missing)?;
        // SAFETY: a string that ends in zero and lives through the call.
        let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
        if index == 0 {
            return Err(Unfit::Missing);
        }
        // SAFETY: takes numbers and gives a number.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(Unfit::Refused { step: "socket", errno: errno() });
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
        let asking = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut mac = [0; 6];
        let request = ask(&asking, name, libc::SIOCGIFHWADDR as _, "SIOCGIFHWADDR", None)?;
        // SAFETY: the kernel has just filled this part of the union, of plain numbers.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            return Err(Unfit::NotEthernet);
        }
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        let request = ask(&asking, name, libc::SIOCGIFMTU as _, "SIOCGIFMTU", None)?;
        // SAFETY: as above.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        let request = ask(&asking, name, libc::SIOCGIFFLAGS as _, "SIOCGIFFLAGS", None)?;
        // SAFETY: as above.
        let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
        let mut channels = Channels { command: CHANNELS_READ, ..Channels::default() };
        let told =
            ask(&asking, name, libc::SIOCETHTOOL as _, "ETHTOOL_GCHANNELS", Some(&mut channels));
        // A driver that does not say has one.
        let queues = told.map_or(1, |_| (channels.rx + channels.combined).max(1));
        let up = flags & libc::IFF_UP != 0;
        let namespace = namespace();
        Ok(Self { index, namespace, mac, mtu: mtu.max(0) as u32, queues, up })
    }
}

/// The number of this thread's network namespace; all are one where there is no `/proc`.
fn namespace() -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |at| at.ino())
}

fn ask(
    socket: &OwnedFd,
    name: &str,
    request: libc::Ioctl,
    step: &'static str,
    channels: Option<&mut Channels>,
) -> Result<libc::ifreq, Unfit> {
    // SAFETY: all its fields are numbers and pointers, for which zero is a value.
    let mut asked: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero; a name that is longer was found by no index either.
    for (to, from) in asked.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    if let Some(channels) = channels {
        asked.ifr_ifru.ifru_data = std::ptr::from_mut(channels).cast();
    }
    // SAFETY: `asked` is what these requests read and write, and what it points to lives as long.
    let told = unsafe { libc::ioctl(socket.as_raw_fd(), request, &mut asked) };
    if told < 0 { Err(Unfit::Refused { step, errno: errno() }) } else { Ok(asked) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ethernet_is_refused() {
        assert_eq!(Interface::find("lo"), Err(Unfit::NotEthernet));
        assert_eq!(Interface::find("no-such-interface-at-all"), Err(Unfit::Missing));
        assert_eq!(Interface::find("a\0b"), Err(Unfit::Missing));
    }
}
