//! Addresses of peers, in text and binary form (wire.md 6.9).
//!
//! ```text
//! /ip6/2001:db8::1/udp/4737/strowger/p2p/<link PeerId>/switch/0000.4321.1234.4321/p2p/<PeerId>/chat/1
//! `------------- underlay ----------------------------'`------- label ---------'`-- peer ---'`protocol
//! ```
//! Each part is optional; [`AddressParts`] says which combinations exist. Two values have the same
//! text, or the same bytes, only if they are equal. Every value can be read back from its text and
//! from its bytes.

mod binary;
mod text;

use core::{fmt, net::IpAddr};

use strowger_crypto::{NameError, PeerId};
use strowger_wire::{
    connection::ProtocolName,
    label::{AnyLabel, TextFault},
    limits::{PROTOCOL_NAME_BYTES_MAX, PROTOCOL_NAME_BYTES_MIN},
};

use crate::limits::ADDRESS_TEXT_BYTES_MAX;

/// The parts of an address. [`PeerAddress::new`] checks them together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressParts {
    /// The UDP address of a switch, at which the label begins. Without an underlay, the label
    /// begins at this node's own switch.
    pub underlay: Option<UdpAddress>,
    /// The peer that answers at `underlay`. Only an address with an underlay and a label has it:
    /// without a label, `peer` itself answers at `underlay`.
    pub link_peer: Option<PeerId>,
    /// The label to the peer. It is not zero.
    pub label: Option<AnyLabel>,
    /// The peer. An address without a peer can be connected to only if the peer accepts handshakes
    /// by label alone.
    pub peer: Option<PeerId>,
    /// The name of a protocol (W6-31).
    ///
    /// The name begins with `/`, and must not look like another part of the address.
    /// `/p2p/<PeerId>` and `/ipfs/<PeerId>` must not occur in it. After a label without a peer, it
    /// must not begin with the component `p2p` or `ipfs`. After an underlay and a peer without a
    /// label, it must not begin with the component `switch`. A protocol without label and peer
    /// needs an underlay (the legacy form `/switch/protocol`); the first component of the name must
    /// then not consist of hex digits and dots alone.
    pub protocol: Option<String>,
}

/// An IP address and a UDP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UdpAddress {
    /// The IP address; only a unicast address is valid.
    pub ip: IpAddr,
    /// The UDP port; zero is not valid.
    pub port: u16,
}

/// An address of a peer: how the peer may be reached, and its identity. The combination of the
/// parts is valid.
///
/// The text form is that of [`FromStr`](core::str::FromStr) and [`Display`](fmt::Display); the
/// binary form is that of [`from_bytes`](PeerAddress::from_bytes) and
/// [`to_bytes`](PeerAddress::to_bytes).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddress(AddressParts);

impl PeerAddress {
    /// Makes an address of these parts, if their combination is valid.
    ///
    /// # Errors
    /// [`AddressFault`] says which part is not valid.
    pub fn new(parts: AddressParts) -> Result<PeerAddress, AddressFault> {
        if let Some(udp) = &parts.underlay {
            check_udp(udp)?;
        }
        if parts.label.is_some_and(AnyLabel::is_zero) {
            return Err(AddressFault::ZeroLabel);
        }
        if parts.link_peer.is_some() && (parts.underlay.is_none() || parts.label.is_none()) {
            return Err(AddressFault::LinkPeer);
        }
        if let Some(protocol) = &parts.protocol {
            check_protocol(protocol, &parts)?;
        }
        if parts.underlay.is_none() && parts.label.is_none() && parts.peer.is_none() {
            return Err(AddressFault::Empty);
        }
        Ok(PeerAddress(parts))
    }

    /// The address of a peer whose label routing finds.
    pub fn of_peer(peer: PeerId) -> PeerAddress {
        PeerAddress(AddressParts { peer: Some(peer), ..AddressParts::default() })
    }

    /// The parts.
    pub fn parts(&self) -> &AddressParts {
        &self.0
    }

    /// The parts, to be changed and checked again.
    pub fn into_parts(self) -> AddressParts {
        self.0
    }

    /// The peer to connect to.
    ///
    /// # Errors
    /// [`NeedsPeer`] if the address names no peer, for example in the legacy form.
    pub fn peer(&self) -> Result<PeerId, NeedsPeer> {
        self.0.peer.ok_or(NeedsPeer)
    }
}

/// The address names no peer, so a connection to it needs the PeerId from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address names no peer: append /p2p/ and a PeerId (12D3KooW...)")]
pub struct NeedsPeer;

fn check_udp(udp: &UdpAddress) -> Result<(), AddressFault> {
    if is_unicast(&udp.ip) { Ok(()) } else { Err(AddressFault::NotUnicast) }?;
    if udp.port == 0 { Err(AddressFault::Port) } else { Ok(()) }
}

/// Whether an address is not unspecified, multicast or broadcast.
pub(crate) fn is_unicast(ip: &IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || is_broadcast)
}

fn check_protocol(protocol: &str, parts: &AddressParts) -> Result<(), AddressFault> {
    if ProtocolName::new(protocol.as_bytes()).is_none() {
        return Err(AddressFault::Protocol);
    }
    let mut components = protocol[1..].split('/').peekable();
    let first = components.peek().copied().unwrap_or_default();
    let is_peer = |name: &str| name == "p2p" || name == "ipfs";
    let is_ambiguous = match (parts.underlay, parts.label, parts.peer) {
        (_, Some(_), None) => is_peer(first),
        (Some(_), None, Some(_)) => first == "switch",
        (Some(_), None, None) => text::is_meant_as_label(first),
        (None, None, None) => return Err(AddressFault::Empty),
        (_, Some(_), Some(_)) | (None, None, Some(_)) => false,
    };
    let mut names_peer = false;
    while let Some(name) = components.next() {
        let id = components.peek().copied().unwrap_or_default();
        names_peer |= is_peer(name) && id.parse::<PeerId>().is_ok();
    }
    if is_ambiguous || names_peer { Err(AddressFault::AmbiguousProtocol) } else { Ok(()) }
}

/// Why a text or a sequence of bytes is not an address, and the position of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressError {
    /// The offset of the fault in bytes, from 0; the length if the address ends too early. A fault
    /// in the combination of parts has the offset of the last part.
    pub at: usize,
    /// The fault at that position.
    pub fault: AddressFault,
}

/// The fault of an address. Its text says what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// The address has no part.
    #[error("an address has an underlay, a label or a PeerId, as /p2p/12D3KooW...")]
    Empty,
    /// The address is longer than the longest valid address.
    #[error("an address has at most {ADDRESS_TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// Another part is expected at this position.
    #[error("need {0}")]
    Expected(&'static str),
    /// Not an IPv4 address.
    #[error("need an IPv4 address, as 192.0.2.1")]
    Ip4,
    /// Not an IPv6 address.
    #[error("need an IPv6 address without a zone, as 2001:db8::1")]
    Ip6,
    /// The IP address is unspecified, multicast or broadcast.
    #[error("need a unicast IP address: nothing can be sent to this one")]
    NotUnicast,
    /// Not a port.
    #[error("need a UDP port, a number from 1 to 65535")]
    Port,
    /// Not the text of a label.
    #[error("need a label, as 0000.4321.1234.4321: {}", label_fault(.0))]
    Label(TextFault),
    /// The label is zero.
    #[error("a label of zeros names no path")]
    ZeroLabel,
    /// Not a PeerId.
    #[error("need a PeerId, as 12D3KooW...: {0}")]
    PeerId(NameError),
    /// A PeerId of the form `Qm...`.
    #[error(
        "this PeerId is a hash of a key and does not contain the key, which a handshake needs: \
         need the PeerId of an Ed25519 key, as 12D3KooW..."
    )]
    HashedPeerId,
    /// A PeerId in the form of a CID.
    #[error("this PeerId is written as a CID: need its base58 form, as 12D3KooW...")]
    CidPeerId,
    /// Not the name of a protocol.
    #[error(
        "need a protocol name: \"/\" and more, {PROTOCOL_NAME_BYTES_MIN} to \
         {PROTOCOL_NAME_BYTES_MAX} bytes from ! to ~"
    )]
    Protocol,
    /// The protocol looks like another part of the address.
    #[error("this protocol name cannot be part of the address: it reads as a PeerId or a label")]
    AmbiguousProtocol,
    /// A link PeerId without an underlay or a label.
    #[error("the PeerId of a link needs an underlay before it, and /switch/ and a label behind it")]
    LinkPeer,
    /// A varint is longer than needed, or longer than the varint of any code.
    #[error("need an unsigned varint in its shortest form")]
    Varint,
    /// The bytes end within a part.
    #[error("the address is cut: more bytes must follow")]
    Cut,
}

fn label_fault(fault: &TextFault) -> &'static str {
    match fault {
        TextFault::Empty => "it is missing",
        TextFault::NotHex => "this is neither a hex digit nor a dot",
        TextFault::Dot => "each group has four hex digits",
        TextFault::TooLong => "it has more than 256 bits",
        TextFault::Groups => "it has 4, 8 or 16 groups of four hex digits",
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.at, self.fault)
    }
}

impl core::error::Error for AddressError {}

#[cfg(test)]
mod tests;
