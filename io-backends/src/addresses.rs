//! The addresses that this machine has, in this network namespace. It changes none.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr,
};

/// All addresses of all interfaces, sorted, each once.
///
/// # Errors
/// The kernel's.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: `list` is writable, and receives a list that is freed below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: `next` is an entry of the list that `getifaddrs` made, and that is not freed yet.
        let entry = unsafe { next.read() };
        addresses.extend(address(entry.ifa_addr));
        next = entry.ifa_next;
    }
    // SAFETY: `list` came from `getifaddrs`, and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// The IP address in a socket address of the list, if it is one.
fn address(at: *const libc::sockaddr) -> Option<IpAddr> {
    if at.is_null() {
        return None;
    }
    // SAFETY: it is not null, so it points to a socket address of the list, which begins with its family.
    let family = unsafe { (*at).sa_family };
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: an address of this family is a `sockaddr_in`; it may lie unaligned.
            let at = unsafe { at.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(at.sin_addr.s_addr))))
        }
        libc::AF_INET6 => {
            // SAFETY: an address of this family is a `sockaddr_in6`; it may lie unaligned.
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
    fn the_loopback_address_is_among_them_and_a_foreign_one_is_not() {
        let own = own_addresses().expect("the kernel says");
        assert!(own.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{own:?}");
        assert!(!own.contains(&IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77))));
        assert!(own.is_sorted());
    }
}
