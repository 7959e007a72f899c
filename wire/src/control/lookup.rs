//! The parts of the messages with which endpoints announce themselves and find peers (W5-80 and
//! up).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{MessageError, PREFIX_BYTES};
use crate::certificate::{CERTIFICATE_BYTES, KeyRole};
use crate::fields::{Reader, Writer};
use crate::label::AnyLabel;
use crate::limits::{
    FIND_NONCE_BYTES, FIND_TAG_BYTES, FORM_WIDTH_MAX, KEY_BYTES, RESOLVED_LABELS_MAX,
    SIGNATURE_BYTES,
};

/// Bytes of an announce message.
pub const ANNOUNCE_BYTES: usize =
    PREFIX_BYTES + 4 + 4 + 4 + 8 + CERTIFICATE_BYTES + SIGNATURE_BYTES;

/// Bytes of the answer to an announce message.
pub const ANNOUNCED_BYTES: usize = PREFIX_BYTES + 4 + 4;

/// Bytes of a find message and of its answer: no answer is longer than its question (W5-6).
pub const FIND_BYTES: usize = PREFIX_BYTES + FIND_NONCE_BYTES + HOST_BYTES;

/// Bytes of a question for the observed address, and of its answer.
pub const OBSERVED_BYTES: usize = PREFIX_BYTES + 4 + OBSERVED_ADDRESS_BYTES;

/// Bytes of a resolve message and of its answer.
pub const RESOLVE_BYTES: usize =
    PREFIX_BYTES + 4 + KEY_BYTES + CERTIFICATE_BYTES + RESOLVED_LABELS_MAX * RESOLVED_LABEL_BYTES;

/// Bytes of the fields of a found message after the nonce.
const HOST_BYTES: usize = 1 + 8 + 4 + 2 + CERTIFICATE_BYTES;

const OBSERVED_ADDRESS_BYTES: usize = 1 + 1 + 2 + 16;

const RESOLVED_LABEL_BYTES: usize = 1 + 1 + 2 + 4 + 4 + LABEL_BYTES_MAX;

/// Bytes of the widest label.
const LABEL_BYTES_MAX: usize = 32;

const TARGET_BYTES: usize = 1 + 3 + KEY_BYTES;

const _: () = assert!(ANNOUNCED_BYTES <= ANNOUNCE_BYTES);
const _: () = assert!(PREFIX_BYTES + FIND_NONCE_BYTES + FIND_TAG_BYTES <= FIND_BYTES);
const _: () = assert!(PREFIX_BYTES + 4 + TARGET_BYTES <= RESOLVE_BYTES);

/// An announcement of an endpoint to its own switch: an identity is at a slot of the switch.
///
/// `strowger-crypto` makes and verifies the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement<'a> {
    /// The number of the endpoint's slot.
    pub slot: u32,
    /// Seconds for which the announcement is valid; 0 withdraws it.
    pub seconds: u32,
    /// The time of signing in nanoseconds since 1970.
    pub stamp: u64,
    /// The identity certificate of the connection key.
    pub certificate: &'a [u8; CERTIFICATE_BYTES],
    /// The signature of the certified identity.
    pub signature: &'a [u8; SIGNATURE_BYTES],
}

/// The verdict of a switch on an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AnnounceVerdict(u8);

impl AnnounceVerdict {
    /// The announcement is valid for the stated seconds, or withdrawn.
    pub const TAKEN: AnnounceVerdict = AnnounceVerdict(0);
    /// The switch has no identity, so it belongs to no network.
    pub const NO_IDENTITY: AnnounceVerdict = AnnounceVerdict(1);
    /// The sender's slot has another number, or no endpoint is there.
    pub const OTHER_SLOT: AnnounceVerdict = AnnounceVerdict(2);
    /// The certificate is not one of a connection key, or is not valid in the switch's network.
    pub const BAD_CERTIFICATE: AnnounceVerdict = AnnounceVerdict(3);
    /// The signature is not one of the certified identity over these fields and this switch.
    pub const BAD_SIGNATURE: AnnounceVerdict = AnnounceVerdict(4);
    /// The switch has an announcement of this identity with an equal or greater stamp.
    pub const STALE: AnnounceVerdict = AnnounceVerdict(5);
    /// The slot, or the switch, has reached its limit of announcements.
    pub const FULL: AnnounceVerdict = AnnounceVerdict(6);

    /// The verdict with this number. Any number is one: later versions may define more.
    #[must_use]
    pub const fn new(number: u8) -> AnnounceVerdict {
        AnnounceVerdict(number)
    }

    /// The number in the code field.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether the switch has accepted the announcement.
    #[must_use]
    pub const fn is_taken(self) -> bool {
        self.0 == 0
    }

    /// A text for human readers.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            AnnounceVerdict::TAKEN => "taken",
            AnnounceVerdict::NO_IDENTITY => "the switch has no identity",
            AnnounceVerdict::OTHER_SLOT => "the endpoint is at another slot",
            AnnounceVerdict::BAD_CERTIFICATE => "the certificate is not valid in this network",
            AnnounceVerdict::BAD_SIGNATURE => "the signature is not valid for this switch",
            AnnounceVerdict::STALE => "a newer announcement of this identity was taken",
            AnnounceVerdict::FULL => "too many announcements",
            _ => "refused for an unknown reason",
        }
    }
}

/// The slot at which a switch hosts the peer of a find message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    /// Bits of the director.
    pub width: u8,
    /// The director of the peer's slot, in the scheme of the switch that answers, in the low bits.
    /// The director is wide enough for the slot by which the question came in.
    pub director: u64,
    /// Seconds for which the announcement is still valid.
    pub seconds: u32,
    /// Bytes of the longest packet that fits the slot, with the switch header; 0 if unknown.
    pub mtu: u16,
    /// The certificate of the peer's connection key.
    pub certificate: &'a [u8; CERTIFICATE_BYTES],
}

/// The peer that a resolve message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveTarget<'a> {
    /// The peer with this Ed25519 key.
    Peer(&'a [u8; KEY_BYTES]),
    /// The peer with this address in `fd53::/16`.
    Address(&'a [u8; 16]),
}

/// The answer of a switch about the peer of a resolve message. If the switch does not know the
/// peer, there is no label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution<'a> {
    /// The Ed25519 key of the peer; zeros if there is no label.
    pub identity: &'a [u8; KEY_BYTES],
    /// The certificate of the peer's connection key, if it is known.
    pub certificate: Option<&'a [u8; CERTIFICATE_BYTES]>,
    /// The labels, best first.
    pub labels: [Option<ResolvedLabel>; RESOLVED_LABELS_MAX],
}

/// One label of a [`Resolution`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedLabel {
    /// The label, from the slot of the node that asked.
    pub label: AnyLabel,
    /// A smaller cost is better.
    pub cost: u32,
    /// Bytes of the longest packet that fits, with the switch header; 0 if unknown.
    pub mtu: u16,
    /// Seconds for which the label is valid; 0 if it does not expire.
    pub seconds: u32,
}

type Parsed<T> = Result<T, MessageError>;

fn take<'a, const N: usize>(fields: &mut Reader<'a>) -> Parsed<&'a [u8; N]> {
    fields.take().ok_or(MessageError::TooShort)
}

fn take_u8(fields: &mut Reader<'_>) -> Parsed<u8> {
    fields.u8().ok_or(MessageError::TooShort)
}

fn take_u16(fields: &mut Reader<'_>) -> Parsed<u16> {
    fields.u16().ok_or(MessageError::TooShort)
}

fn take_u32(fields: &mut Reader<'_>) -> Parsed<u32> {
    fields.u32().ok_or(MessageError::TooShort)
}

fn take_u64(fields: &mut Reader<'_>) -> Parsed<u64> {
    fields.u64().ok_or(MessageError::TooShort)
}

impl<'a> Announcement<'a> {
    pub(super) fn parse(fields: &mut Reader<'a>) -> Parsed<Announcement<'a>> {
        Ok(Announcement {
            slot: take_u32(fields)?,
            seconds: take_u32(fields)?,
            stamp: take_u64(fields)?,
            certificate: take(fields)?,
            signature: take(fields)?,
        })
    }

    pub(super) fn write<'o>(&self, out: Writer<'o>) -> Option<Writer<'o>> {
        out.put(&self.slot.to_be_bytes())?
            .put(&self.seconds.to_be_bytes())?
            .put(&self.stamp.to_be_bytes())?
            .put(self.certificate)?
            .put(self.signature)
    }
}

impl<'a> Host<'a> {
    /// Width 0 means that the peer is not here.
    pub(super) fn parse(fields: &mut Reader<'a>) -> Parsed<Option<Host<'a>>> {
        let (width, director) = (take_u8(fields)?, take_u64(fields)?);
        let (seconds, mtu) = (take_u32(fields)?, take_u16(fields)?);
        let certificate = take(fields)?;
        if width == 0 {
            return Ok(None);
        }
        if width > FORM_WIDTH_MAX || director >> width != 0 {
            return Err(MessageError::Field);
        }
        Ok(Some(Host { width, director, seconds, mtu, certificate }))
    }

    pub(super) fn write<'o>(host: Option<&Self>, out: Writer<'o>) -> Option<Writer<'o>> {
        let Some(host) = host else { return out.zeros(HOST_BYTES) };
        out.put(&[host.width])?
            .put(&host.director.to_be_bytes())?
            .put(&host.seconds.to_be_bytes())?
            .put(&host.mtu.to_be_bytes())?
            .put(host.certificate)
    }
}

const FAMILY_NONE: u8 = 0;
const FAMILY_V4: u8 = 4;
const FAMILY_V6: u8 = 6;

pub(super) fn parse_observed(fields: &mut Reader<'_>) -> Parsed<Option<SocketAddr>> {
    let (family, _) = (take_u8(fields)?, take_u8(fields)?);
    let (port, address) = (take_u16(fields)?, take::<16>(fields)?);
    let [a, b, c, d, ..] = *address;
    let ip = match family {
        FAMILY_NONE => return Ok(None),
        FAMILY_V4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        FAMILY_V6 => IpAddr::V6(Ipv6Addr::from(*address)),
        _ => return Err(MessageError::Field),
    };
    Ok(Some(SocketAddr::new(ip, port)))
}

pub(super) fn write_observed<'o>(
    address: Option<SocketAddr>,
    out: Writer<'o>,
) -> Option<Writer<'o>> {
    let Some(address) = address else { return out.zeros(OBSERVED_ADDRESS_BYTES) };
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => out.put(&[FAMILY_V4, 0])?.put(&port)?.put(&ip.octets())?.zeros(12),
        IpAddr::V6(ip) => out.put(&[FAMILY_V6, 0])?.put(&port)?.put(&ip.octets()),
    }
}

const TARGET_PEER: u8 = 1;
const TARGET_ADDRESS: u8 = 2;

impl<'a> ResolveTarget<'a> {
    pub(super) fn parse(fields: &mut Reader<'a>) -> Parsed<ResolveTarget<'a>> {
        let kind = take_u8(fields)?;
        take::<3>(fields)?;
        match kind {
            TARGET_PEER => Ok(ResolveTarget::Peer(take(fields)?)),
            TARGET_ADDRESS => Ok(ResolveTarget::Address(take(fields)?)),
            _ => Err(MessageError::Field),
        }
    }

    pub(super) fn write<'o>(&self, out: Writer<'o>) -> Option<Writer<'o>> {
        let padding = RESOLVE_BYTES - PREFIX_BYTES - 4 - TARGET_BYTES;
        match self {
            ResolveTarget::Peer(key) => out.put(&[TARGET_PEER, 0, 0, 0])?.put(*key)?.zeros(padding),
            ResolveTarget::Address(address) => out
                .put(&[TARGET_ADDRESS, 0, 0, 0])?
                .put(*address)?
                .zeros(KEY_BYTES - address.len() + padding),
        }
    }
}

impl<'a> Resolution<'a> {
    pub(super) fn parse(fields: &mut Reader<'a>) -> Parsed<Resolution<'a>> {
        let identity = take(fields)?;
        let certificate: &[u8; CERTIFICATE_BYTES] = take(fields)?;
        let mut labels = [None; RESOLVED_LABELS_MAX];
        for label in &mut labels {
            *label = ResolvedLabel::parse(fields)?;
        }
        let certificate = KeyRole::from_number(certificate[0]).map(|_| certificate);
        Ok(Resolution { identity, certificate, labels })
    }

    pub(super) fn write<'o>(&self, out: Writer<'o>) -> Option<Writer<'o>> {
        let out = out.put(self.identity)?;
        let mut out = match self.certificate {
            Some(certificate) => out.put(certificate)?,
            None => out.zeros(CERTIFICATE_BYTES)?,
        };
        for label in &self.labels {
            out = ResolvedLabel::write(label.as_ref(), out)?;
        }
        Some(out)
    }
}

impl ResolvedLabel {
    /// Width 0 means no label.
    fn parse(fields: &mut Reader<'_>) -> Parsed<Option<ResolvedLabel>> {
        let (width, _) = (take_u8(fields)?, take_u8(fields)?);
        let (mtu, cost, seconds) = (take_u16(fields)?, take_u32(fields)?, take_u32(fields)?);
        let label: &[u8; LABEL_BYTES_MAX] = take(fields)?;
        if width == 0 {
            return Ok(None);
        }
        let label = label.get(..usize::from(width)).and_then(AnyLabel::from_be_bytes);
        let label = label.ok_or(MessageError::Field)?;
        Ok(Some(ResolvedLabel { label, cost, mtu, seconds }))
    }

    fn write<'o>(label: Option<&Self>, out: Writer<'o>) -> Option<Writer<'o>> {
        let Some(label) = label else { return out.zeros(RESOLVED_LABEL_BYTES) };
        let ResolvedLabel { label, cost, mtu, seconds } = label;
        label.with_be_bytes(|bytes| {
            // A label has 8, 16 or 32 bytes.
            out.put(&[bytes.len() as u8, 0])?
                .put(&mtu.to_be_bytes())?
                .put(&cost.to_be_bytes())?
                .put(&seconds.to_be_bytes())?
                .put(bytes)?
                .zeros(LABEL_BYTES_MAX - bytes.len())
        })
    }
}
