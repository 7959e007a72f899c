//! A socket address in the kernel's form, and in the form of a lookup key.
//!
//! The parser accepts any bytes. Returns no key for bytes that are not an address.

use std::{
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
};

const V4_BYTES: usize = mem::size_of::<libc::sockaddr_in>();
const V6_BYTES: usize = mem::size_of::<libc::sockaddr_in6>();

// `Name` writes and reads the bytes at these offsets.
const _: () = assert!(V4_BYTES == 16 && V6_BYTES == 28);
const _: () = assert!(mem::offset_of!(libc::sockaddr_in, sin_port) == 2);
const _: () = assert!(mem::offset_of!(libc::sockaddr_in, sin_addr) == 4);
const _: () = assert!(mem::offset_of!(libc::sockaddr_in6, sin6_port) == 2);
const _: () = assert!(mem::offset_of!(libc::sockaddr_in6, sin6_addr) == 8);
const _: () = assert!(mem::offset_of!(libc::sockaddr_in6, sin6_scope_id) == 24);

/// A `sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub(super) struct Name {
    bytes: [u8; Name::ROOM],
}

/// A socket address in two words. An IPv4 address is in the low 32 bits of `ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    ip: u128,
    port_and_scope: u64,
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

impl Name {
    /// Number of bytes for an address of either family.
    pub(super) const ROOM: usize = 32;

    pub(super) fn of(at: SocketAddr) -> Self {
        let mut bytes = [0; Self::ROOM];
        bytes[2..4].copy_from_slice(&at.port().to_be_bytes());
        match at {
            SocketAddr::V4(at) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                bytes[4..8].copy_from_slice(&at.ip().octets());
            }
            SocketAddr::V6(at) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                bytes[8..24].copy_from_slice(&at.ip().octets());
                bytes[24..28].copy_from_slice(&at.scope_id().to_ne_bytes());
            }
        }
        Self { bytes }
    }

    pub(super) fn is_v4(&self) -> bool {
        self.bytes[..2] == (libc::AF_INET as u16).to_ne_bytes()
    }

    /// Length of the address in use.
    pub(super) fn len(&self) -> usize {
        if self.is_v4() { V4_BYTES } else { V6_BYTES }
    }

    pub(super) fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    /// The first `len` bytes, or all bytes if there are fewer.
    pub(super) fn bytes(&self, len: usize) -> &[u8] {
        &self.bytes[..len.min(Self::ROOM)]
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        let port = u16::from_be_bytes(part(&self.bytes, 2)?);
        if self.is_v4() {
            let ip = Ipv4Addr::from(part::<4>(&self.bytes, 4)?);
            return Some(SocketAddrV4::new(ip, port).into());
        }
        if u16::from_ne_bytes(part(&self.bytes, 0)?) != libc::AF_INET6 as u16 {
            return None;
        }
        let ip = Ipv6Addr::from(part::<16>(&self.bytes, 8)?);
        let scope = u32::from_ne_bytes(part(&self.bytes, 24)?);
        Some(SocketAddrV6::new(ip, port, 0, scope).into())
    }
}

impl Key {
    pub(super) fn of(at: SocketAddr) -> Self {
        let (ip, scope) = match at {
            SocketAddr::V4(at) => (u128::from(at.ip().to_bits()), 0),
            SocketAddr::V6(at) => (at.ip().to_bits(), at.scope_id()),
        };
        Self { ip, port_and_scope: u64::from(scope) << 16 | u64::from(at.port()) }
    }

    /// Reads the key from the source address of a datagram, as the kernel wrote it. Returns `None`
    /// if the bytes are not an address.
    #[inline]
    pub(super) fn read(name: &[u8]) -> Option<Self> {
        let family = u16::from_ne_bytes(part(name, 0)?);
        let port = u64::from(u16::from_be_bytes(part(name, 2)?));
        if family == libc::AF_INET as u16 {
            let ip = u128::from(u32::from_be_bytes(part(name, 4)?));
            return Some(Self { ip, port_and_scope: port });
        }
        if family != libc::AF_INET6 as u16 {
            return None;
        }
        let ip = u128::from_be_bytes(part(name, 8)?);
        let scope = u64::from(u32::from_ne_bytes(part(name, 24)?));
        Some(Self { ip, port_and_scope: scope << 16 | port })
    }
}

impl Key {
    /// The key's address as a socket address of the same family as `like`.
    pub(super) fn address(&self, like: IpAddr) -> SocketAddr {
        let port = self.port_and_scope as u16;
        let scope = (self.port_and_scope >> 16) as u32;
        match like {
            IpAddr::V4(_) => SocketAddrV4::new(Ipv4Addr::from(self.ip as u32), port).into(),
            IpAddr::V6(_) => SocketAddrV6::new(Ipv6Addr::from(self.ip), port, 0, scope).into(),
        }
    }
}

/// Whether a socket bound to one address can send to the other: both must be of the same family.
pub(super) fn same_kind(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// wire.md: W8-8.
    #[test]
    fn an_address_is_the_same_after_conversion_to_the_kernels_form() {
        for text in ["127.0.0.1:7000", "0.0.0.0:0", "[::1]:65535", "[fe80::1%3]:9"] {
            let at: SocketAddr = text.parse().unwrap();
            let name = Name::of(at);
            assert_eq!(name.address(), Some(at));
            assert_eq!(Key::read(name.bytes(name.len())), Some(Key::of(at)));
        }
    }

    #[test]
    fn bytes_that_are_no_address_give_no_key() {
        let name = Name::of("[::1]:7".parse().unwrap());
        for len in 0..V6_BYTES {
            assert_eq!(Key::read(&name.bytes(V6_BYTES)[..len]), None);
        }
        assert_eq!(Key::read(&[0xff; 32]), None);
        assert_eq!(Name::default().address(), None);
    }
}
