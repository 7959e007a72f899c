//! The text form of addresses.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use strowger_crypto::{NameError, PeerId};
use strowger_wire::label::AnyLabel;

use super::{AddressError, AddressFault, AddressParts, PeerAddress, UdpAddress, check_udp};
use crate::limits::ADDRESS_TEXT_BYTES_MAX;

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AddressParts { underlay, link_peer, label, peer, protocol } = self.parts();
        if let Some(UdpAddress { ip, port }) = underlay {
            let family = if ip.is_ipv4() { "ip4" } else { "ip6" };
            write!(f, "/{family}/{ip}/udp/{port}/strowger")?;
        }
        if let Some(link_peer) = link_peer {
            write!(f, "/p2p/{link_peer}")?;
        }
        match (label, peer, protocol) {
            (Some(label), _, _) => write!(f, "/switch/{label}")?,
            (None, None, Some(_)) => f.write_str("/switch")?,
            _ => {}
        }
        if let Some(peer) = peer {
            write!(f, "/p2p/{peer}")?;
        }
        protocol.as_deref().map_or(Ok(()), |protocol| f.write_str(protocol))
    }
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    /// Reads an address. `/ipfs/` is read as `/p2p/`, and `/cryptoauth` as `/strowger`.
    fn from_str(text: &str) -> Result<PeerAddress, AddressError> {
        if text.len() > ADDRESS_TEXT_BYTES_MAX {
            return Err(AddressError { at: ADDRESS_TEXT_BYTES_MAX, fault: AddressFault::TooLong });
        }
        let mut reader = Reader { text, at: 0 };
        let mut parts = AddressParts::default();
        reader.read(&mut parts)?;
        let rest = reader.at;
        if rest < text.len() {
            parts.protocol = Some(text[rest..].to_owned());
        }
        PeerAddress::new(parts).map_err(|fault| AddressError { at: rest, fault })
    }
}

/// Whether a component after `/switch/` is meant as a label: it is empty, or consists of hex digits
/// and dots.
pub(super) fn is_meant_as_label(component: &str) -> bool {
    component.bytes().all(|byte| byte == b'.' || byte.is_ascii_hexdigit())
}

/// Reads components from the front of the text. A component is `/` and all bytes up to the next
/// `/`.
struct Reader<'a> {
    text: &'a str,
    /// The number of bytes that have been read.
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next component, if the text continues with `/`.
    fn peek(&self) -> Option<&'a str> {
        let rest = self.text[self.at..].strip_prefix('/')?;
        rest.split('/').next()
    }

    /// Reads the next component. Returns it and the position of its first byte.
    fn next(&mut self) -> Option<(usize, &'a str)> {
        let component = self.peek()?;
        let at = self.at + 1;
        self.at = at + component.len();
        Some((at, component))
    }

    fn need(&mut self, expected: &'static str) -> Result<(usize, &'a str), AddressError> {
        let at = self.at;
        self.next().ok_or(AddressError { at, fault: AddressFault::Expected(expected) })
    }

    /// Reads all parts except the protocol, which is the rest of the text.
    fn read(&mut self, parts: &mut AddressParts) -> Result<(), AddressError> {
        if matches!(self.peek(), Some("ip4" | "ip6")) {
            parts.underlay = Some(self.underlay()?);
        }
        if let (Some(_), Some("p2p" | "ipfs")) = (parts.underlay, self.peek()) {
            let peer = self.peer_id()?;
            if self.peek() != Some("switch") {
                parts.peer = Some(peer);
                return Ok(());
            }
            parts.link_peer = Some(peer);
        }
        if self.peek() == Some("switch") {
            let (_, _) = self.need("/switch")?;
            match self.peek() {
                // The legacy form: a protocol, and neither label nor peer.
                Some(name)
                    if parts.underlay.is_some()
                        && parts.link_peer.is_none()
                        && !is_meant_as_label(name) =>
                {
                    return Ok(());
                }
                _ => parts.label = Some(self.label()?),
            }
        }
        if matches!(self.peek(), Some("p2p" | "ipfs")) {
            parts.peer = Some(self.peer_id()?);
            return Ok(());
        }
        let at = self.at;
        let expected = match (parts.underlay, parts.label) {
            (_, Some(_)) => return Ok(()),
            (Some(_), None) if at == self.text.len() => return Ok(()),
            (Some(_), None) => "/p2p, /switch or the end",
            (None, None) if self.text.is_empty() => {
                return Err(AddressError { at, fault: AddressFault::Empty });
            }
            (None, None) => "/ip4, /ip6, /switch or /p2p",
        };
        Err(AddressError { at, fault: AddressFault::Expected(expected) })
    }

    fn underlay(&mut self) -> Result<UdpAddress, AddressError> {
        let (_, family) = self.need("/ip4 or /ip6")?;
        let (at, ip) = self.need("/ and an IP address")?;
        let ip = if family == "ip4" {
            let ip = ip.parse::<Ipv4Addr>();
            IpAddr::V4(ip.map_err(|_| AddressError { at, fault: AddressFault::Ip4 })?)
        } else {
            let ip = ip.parse::<Ipv6Addr>();
            IpAddr::V6(ip.map_err(|_| AddressError { at, fault: AddressFault::Ip6 })?)
        };
        check_udp(&UdpAddress { ip, port: 1 }).map_err(|fault| AddressError { at, fault })?;
        self.word(&["udp"], "/udp: links are carried by UDP")?;
        let (at, port) = self.need("/ and a UDP port")?;
        let is_plain = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
        let port = port.parse().ok().filter(|_| is_plain);
        let port = port.ok_or(AddressError { at, fault: AddressFault::Port })?;
        self.word(&["strowger", "cryptoauth"], "/strowger")?;
        Ok(UdpAddress { ip, port })
    }

    fn word(&mut self, words: &[&str], expected: &'static str) -> Result<(), AddressError> {
        let at = self.at;
        match self.next() {
            Some((_, word)) if words.contains(&word) => Ok(()),
            _ => Err(AddressError { at, fault: AddressFault::Expected(expected) }),
        }
    }

    fn label(&mut self) -> Result<AnyLabel, AddressError> {
        let (start, text) = self.need("/ and a label, as /switch/0000.4321.1234.4321")?;
        let label: AnyLabel = text.parse().map_err(|error: strowger_wire::label::TextError| {
            AddressError { at: start + error.at, fault: AddressFault::Label(error.fault) }
        })?;
        if label.is_zero() {
            return Err(AddressError { at: start, fault: AddressFault::ZeroLabel });
        }
        Ok(label)
    }

    /// Reads `/p2p/` or `/ipfs/` and a PeerId.
    fn peer_id(&mut self) -> Result<PeerId, AddressError> {
        self.word(&["p2p", "ipfs"], "/p2p")?;
        let (start, text) = self.need("/ and a PeerId, as /p2p/12D3KooW...")?;
        text.parse().map_err(|error| {
            let (at, fault) = match error {
                _ if text.starts_with("Qm") => (0, AddressFault::HashedPeerId),
                _ if text.starts_with("baf")
                    || text.starts_with("k51")
                    || text.starts_with("k2k") =>
                {
                    (0, AddressFault::CidPeerId)
                }
                NameError::BadCharacter { at } => (at, AddressFault::PeerId(error)),
                NameError::WrongLength | NameError::NotEd25519 => (0, AddressFault::PeerId(error)),
            };
            AddressError { at: start + at, fault }
        })
    }
}
