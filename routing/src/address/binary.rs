//! The binary form of addresses: for each part its code as a varint, followed by its fields.

use core::net::IpAddr;

use strowger_crypto::{Identity, NameError, PeerId};
use strowger_wire::label::AnyLabel;

use super::{AddressError, AddressFault, AddressParts, PeerAddress, UdpAddress};
use crate::limits::{ADDRESS_BYTES_MAX, VARINT_BYTES_MAX};

/// The codes of the parts. Those of Strowger are in the private range of multicodec
/// (0x300000 to 0x3fffff).
mod code {
    /// An IPv4 address: its 4 bytes follow.
    pub(super) const IP4: u32 = 4;
    /// An IPv6 address: its 16 bytes follow.
    pub(super) const IP6: u32 = 41;
    /// A UDP port: its 2 bytes follow.
    pub(super) const UDP: u32 = 273;
    /// A PeerId: its length as a varint and its bytes follow.
    pub(super) const P2P: u32 = 421;
    /// A label: its width code (W2-3, 1 byte) and its 8, 16 or 32 bytes follow.
    pub(super) const SWITCH: u32 = 0x30_0053;
    /// The end of an underlay address: no field follows.
    pub(super) const STROWGER: u32 = 0x30_0054;
    /// The name of a protocol: its length as a varint and its bytes follow.
    pub(super) const PROTOCOL: u32 = 0x30_0055;
}

/// The first bytes of a PeerId: multihash and protobuf of an Ed25519 key.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
/// The first bytes of a PeerId that is a SHA-256 hash.
const HASH_PREFIX: [u8; 2] = [0x12, 0x20];

impl PeerAddress {
    /// The binary form, at most [`ADDRESS_BYTES_MAX`] bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let AddressParts { underlay, link_peer, label, peer, protocol } = self.parts();
        let mut out = Vec::with_capacity(ADDRESS_BYTES_MAX);
        if let Some(UdpAddress { ip, port }) = underlay {
            match ip {
                IpAddr::V4(ip) => {
                    put_varint(code::IP4, &mut out);
                    out.extend(ip.octets());
                }
                IpAddr::V6(ip) => {
                    put_varint(code::IP6, &mut out);
                    out.extend(ip.octets());
                }
            }
            put_varint(code::UDP, &mut out);
            out.extend(port.to_be_bytes());
            put_varint(code::STROWGER, &mut out);
        }
        let put_counted = |code, bytes: &[u8], out: &mut Vec<u8>| {
            put_varint(code, out);
            put_varint(bytes.len() as u32, out);
            out.extend(bytes);
        };
        if let Some(peer) = link_peer {
            put_counted(code::P2P, peer.as_bytes(), &mut out);
        }
        if let Some(label) = label {
            put_varint(code::SWITCH, &mut out);
            out.push(label.width_code());
            label.with_be_bytes(|bytes| out.extend(bytes));
        }
        if let Some(peer) = peer {
            put_counted(code::P2P, peer.as_bytes(), &mut out);
        }
        if let Some(protocol) = protocol {
            put_counted(code::PROTOCOL, protocol.as_bytes(), &mut out);
        }
        out
    }

    /// Reads the binary form. The address must use all bytes.
    ///
    /// # Errors
    /// [`AddressError`] says which byte is wrong, and what is expected.
    pub fn from_bytes(bytes: &[u8]) -> Result<PeerAddress, AddressError> {
        if bytes.len() > ADDRESS_BYTES_MAX {
            return Err(AddressError { at: ADDRESS_BYTES_MAX, fault: AddressFault::TooLong });
        }
        let mut reader = Reader { bytes, at: 0 };
        let mut parts = AddressParts::default();
        let mut read = Part::Start;
        let mut start = 0;
        while reader.at < bytes.len() {
            start = reader.at;
            read = reader.part(read, &mut parts)?;
        }
        match read {
            Part::Ip(_) => return Err(expected(reader.at, "udp (code 273)")),
            Part::Udp => return Err(expected(reader.at, "strowger (code 0x300054)")),
            Part::Start
            | Part::Strowger
            | Part::UnderlayPeer
            | Part::Label
            | Part::Peer
            | Part::Protocol => {}
        }
        PeerAddress::new(parts).map_err(|fault| AddressError { at: start, fault })
    }
}

/// The part that was read last.
#[derive(Clone, Copy)]
enum Part {
    Start,
    Ip(IpAddr),
    Udp,
    Strowger,
    /// A peer directly after the underlay. If a label follows, this is the peer of the link.
    UnderlayPeer,
    Label,
    Peer,
    Protocol,
}

fn expected(at: usize, what: &'static str) -> AddressError {
    AddressError { at, fault: AddressFault::Expected(what) }
}

fn put_varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads one part, which must be allowed after the part `last`.
    fn part(&mut self, last: Part, parts: &mut AddressParts) -> Result<Part, AddressError> {
        let start = self.at;
        let code = self.varint()?;
        match (last, code) {
            (Part::Start, code::IP4) => Ok(Part::Ip(IpAddr::from(self.array::<4>()?))),
            (Part::Start, code::IP6) => Ok(Part::Ip(IpAddr::from(self.array::<16>()?))),
            (Part::Ip(ip), code::UDP) => {
                let port = u16::from_be_bytes(self.array()?);
                parts.underlay = Some(UdpAddress { ip, port });
                Ok(Part::Udp)
            }
            (Part::Udp, code::STROWGER) => Ok(Part::Strowger),
            (Part::Strowger, code::P2P) => {
                parts.peer = Some(self.peer_id()?);
                Ok(Part::UnderlayPeer)
            }
            (Part::Start | Part::Strowger | Part::UnderlayPeer, code::SWITCH) => {
                parts.link_peer = parts.peer.take();
                parts.label = Some(self.label()?);
                Ok(Part::Label)
            }
            (Part::Start | Part::Label, code::P2P) => {
                parts.peer = Some(self.peer_id()?);
                Ok(Part::Peer)
            }
            (Part::Strowger | Part::UnderlayPeer | Part::Label | Part::Peer, code::PROTOCOL) => {
                let (at, name) = self.counted()?;
                let name = str::from_utf8(name);
                let name = name.map_err(|_| AddressError { at, fault: AddressFault::Protocol })?;
                parts.protocol = Some(name.to_owned());
                Ok(Part::Protocol)
            }
            (Part::Ip(_), _) => Err(expected(start, "udp (code 273)")),
            (Part::Udp, _) => Err(expected(start, "strowger (code 0x300054)")),
            (Part::Protocol, _) => Err(expected(start, "the end")),
            (Part::Start, _) => {
                Err(expected(start, "ip4 (code 4), ip6 (41), switch (0x300053) or p2p (421)"))
            }
            (Part::Strowger, _) => Err(expected(
                start,
                "p2p (code 421), switch (0x300053), protocol (0x300055) or the end",
            )),
            (Part::UnderlayPeer, _) => {
                Err(expected(start, "switch (code 0x300053), protocol (0x300055) or the end"))
            }
            (Part::Label, _) => {
                Err(expected(start, "p2p (code 421), protocol (0x300055) or the end"))
            }
            (Part::Peer, _) => Err(expected(start, "protocol (code 0x300055) or the end")),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], AddressError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count);
        let taken = taken.ok_or(AddressError { at: self.bytes.len(), fault: AddressFault::Cut })?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], AddressError> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("take returns N bytes"))
    }

    /// Reads an unsigned varint of multiformats: seven bits per byte, least significant bits first,
    /// in its shortest form.
    fn varint(&mut self) -> Result<u32, AddressError> {
        let start = self.at;
        let wrong = AddressError { at: start, fault: AddressFault::Varint };
        let mut value = 0;
        for place in 0..VARINT_BYTES_MAX {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                let is_shortest = byte != 0 || place == 0;
                return if is_shortest { Ok(value) } else { Err(wrong) };
            }
        }
        Err(wrong)
    }

    /// Reads a length and that many bytes. Returns these bytes, and the position of the first of
    /// them.
    fn counted(&mut self) -> Result<(usize, &'a [u8]), AddressError> {
        let length = self.varint()? as usize;
        Ok((self.at, self.take(length)?))
    }

    fn peer_id(&mut self) -> Result<PeerId, AddressError> {
        let (at, bytes) = self.counted()?;
        let fault = |fault| AddressError { at, fault };
        if bytes.starts_with(&HASH_PREFIX) {
            return Err(fault(AddressFault::HashedPeerId));
        }
        let key = bytes.strip_prefix(&PEER_ID_PREFIX);
        let key = key.ok_or(fault(AddressFault::PeerId(NameError::NotEd25519)))?;
        let key =
            key.try_into().map_err(|_| fault(AddressFault::PeerId(NameError::WrongLength)))?;
        let identity = Identity::from_bytes(key);
        let identity = identity.map_err(|_| fault(AddressFault::PeerId(NameError::NotEd25519)))?;
        Ok(identity.peer_id())
    }

    fn label(&mut self) -> Result<AnyLabel, AddressError> {
        let at = self.at;
        let [width] = self.array()?;
        let bytes = match width {
            0 => self.take(8)?,
            1 => self.take(16)?,
            2 => self.take(32)?,
            _ => return Err(expected(at, "a width code: 0, 1 or 2 for 64, 128 or 256 bits")),
        };
        Ok(AnyLabel::from_be_bytes(bytes).expect("8, 16 or 32 bytes"))
    }
}
