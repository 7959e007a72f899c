//! The IP and MAC addresses of this machine, in the network namespace of the calling thread.

use std::{
    ffi::CStr,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr,
};

/// A MAC address: six bytes in wire order.
pub type Mac = [u8; 6];

/// An address of an interface, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// Name of the interface. For an IPv4 address that has a label, it is the label (`eth0:1`).
    pub interface: String,
    /// The address.
    pub at: AddressKind,
}

/// The kinds of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// An IP address.
    ///
    /// An IPv4 address comes with the broadcast addresses of its network: the one derived from the
    /// prefix and, if it differs, the configured one.
    Ip(IpAddr, Vec<Ipv4Addr>),
    /// The MAC address of the interface.
    Mac(Mac),
}

/// The IP addresses of all interfaces, sorted and without duplicates.
///
/// # Errors
/// The kernel's error.
pub fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let entries = interface_addresses()?;
    let mut addresses: Vec<IpAddr> = entries
        .into_iter()
        .filter_map(|entry| match entry.at {
            AddressKind::Ip(ip, _) => Some(ip),
            AddressKind::Mac(_) => None,
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// The IP and MAC addresses of all interfaces, in the kernel's order.
///
/// # Errors
/// The kernel's error.
pub fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: `list` is writable, and receives a list that is freed below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut entries = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: `next` is an entry of the list from `getifaddrs`, which is not freed yet.
        let entry = unsafe { next.read() };
        if let Some(at) = kind(&entry) {
            // SAFETY: the name of an entry ends in a zero byte and lives as long as the list.
            let interface = unsafe { CStr::from_ptr(entry.ifa_name) };
            let interface = interface.to_string_lossy().into_owned();
            entries.push(InterfaceAddress { interface, at });
        }
        next = entry.ifa_next;
    }
    // SAFETY: `list` came from `getifaddrs`, and no pointer into it is left.
    unsafe { libc::freeifaddrs(list) };
    Ok(entries)
}

fn kind(entry: &libc::ifaddrs) -> Option<AddressKind> {
    if let Some(mac) = mac(entry.ifa_addr) {
        return Some(AddressKind::Mac(mac));
    }
    let ip = address(entry.ifa_addr)?;
    let mut broadcasts = Vec::new();
    if let IpAddr::V4(ip) = ip {
        if let Some(IpAddr::V4(mask)) = address(entry.ifa_netmask) {
            broadcasts.extend(broadcast(ip, mask));
        }
        if entry.ifa_flags & libc::IFF_BROADCAST as u32 != 0
            && let Some(IpAddr::V4(written)) = address(entry.ifa_ifu)
            // The C library returns the address itself if no broadcast address is configured.
            && written != ip
            && !written.is_unspecified()
            && !broadcasts.contains(&written)
        {
            broadcasts.push(written);
        }
    }
    Some(AddressKind::Ip(ip, broadcasts))
}

/// The highest address of a network. It is `None` if the network has only one or two addresses (RFC
/// 3021).
fn broadcast(ip: Ipv4Addr, mask: Ipv4Addr) -> Option<Ipv4Addr> {
    let mask = mask.to_bits();
    (mask.count_ones() < 31).then(|| Ipv4Addr::from_bits(ip.to_bits() | !mask))
}

/// The MAC address in a socket address of the list. It is `None` unless the address has six bytes.
fn mac(at: *const libc::sockaddr) -> Option<Mac> {
    // SAFETY: a non-null pointer points to a socket address of the list, which begins with its
    // family.
    if at.is_null() || i32::from(unsafe { (*at).sa_family }) != libc::AF_PACKET {
        return None;
    }
    // SAFETY: an address of this family is a `sockaddr_ll`; it may be unaligned.
    let at = unsafe { at.cast::<libc::sockaddr_ll>().read_unaligned() };
    let mac = at.sll_addr.first_chunk::<6>()?;
    (at.sll_halen == 6 && at.sll_hatype == libc::ARPHRD_ETHER).then_some(*mac)
}

/// The IP address in a socket address of the list. It is `None` for other address families.
fn address(at: *const libc::sockaddr) -> Option<IpAddr> {
    if at.is_null() {
        return None;
    }
    // SAFETY: the pointer is not null and points to a socket address of the list, which begins with
    // its family.
    let family = unsafe { (*at).sa_family };
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: an address of this family is a `sockaddr_in`; it may be unaligned.
            let at = unsafe { at.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(at.sin_addr.s_addr))))
        }
        libc::AF_INET6 => {
            // SAFETY: an address of this family is a `sockaddr_in6`; it may be unaligned.
            let at = unsafe { at.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(IpAddr::V6(Ipv6Addr::from(at.sin6_addr.s6_addr)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_local_and_a_foreign_one_is_not() {
        let own = local_addresses().expect("the kernel lists them");
        assert!(own.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{own:?}");
        assert!(!own.contains(&IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77))));
        assert!(own.is_sorted());
    }

    #[test]
    fn the_broadcast_address_of_a_network_of_more_than_two_addresses_is_its_highest() {
        let highest = |ip: [u8; 4], prefix: u32| {
            let mask = Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - prefix).unwrap_or(0));
            broadcast(ip.into(), mask).map(|at| at.octets())
        };
        assert_eq!(highest([198, 51, 100, 7], 24), Some([198, 51, 100, 255]));
        assert_eq!(highest([198, 51, 100, 7], 29), Some([198, 51, 100, 7]));
        assert_eq!(highest([198, 51, 100, 5], 30), Some([198, 51, 100, 7]));
        assert_eq!(highest([198, 51, 100, 6], 31), None);
        assert_eq!(highest([198, 51, 100, 7], 32), None);
    }

    #[test]
    fn the_loopback_interface_has_a_broadcast_address_and_no_mac_address() {
        let own = interface_addresses().expect("the kernel lists them");
        let lo: Vec<_> = own.iter().filter(|entry| entry.interface == "lo").collect();
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let broadcasts = lo.iter().find_map(|entry| match &entry.at {
            AddressKind::Ip(ip, broadcasts) if *ip == local => Some(broadcasts.clone()),
            AddressKind::Ip(..) | AddressKind::Mac(_) => None,
        });
        assert_eq!(broadcasts, Some(vec![Ipv4Addr::new(127, 255, 255, 255)]), "{own:?}");
        assert!(!lo.iter().any(|entry| matches!(entry.at, AddressKind::Mac(_))), "{own:?}");
    }
}
