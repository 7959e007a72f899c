//! A source whose private addresses stay on their own segments.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use arrayvec::ArrayVec;
use strowger_crypto::Nanos;

use crate::{
    candidate::{Candidate, Route},
    limits::SEGMENTS_MAX,
    peer_routing::{LookupResult, LookupTarget, Outcome, PeerRouting},
    question::{ControlReply, QuestionQueue},
};

/// A source whose underlay addresses are global or on one of the given segments.
///
/// Addresses that other nodes offer may point anywhere. Without this rule a distant node could make
/// this node send handshakes to the local network of this node, or to this node itself. Labels pass
/// unchanged.
///
/// Private, shared, loopback and link-local addresses (RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC
/// 4291) are not global, and neither are the reserved ranges 0.0.0.0/8 and 240.0.0.0/4. The same
/// holds for these IPv4 addresses in IPv4-mapped, NAT64 and 6to4 form. Multicast, broadcast and
/// unspecified addresses never pass.
#[derive(Debug)]
pub struct Scoped<A> {
    source: A,
    segments: ArrayVec<IpPrefix, SEGMENTS_MAX>,
}

impl<A> Scoped<A> {
    /// Lets addresses of these segments pass in addition to global ones. Segments after the first
    /// [`SEGMENTS_MAX`] are ignored.
    pub fn new(source: A, segments: impl IntoIterator<Item = IpPrefix>) -> Scoped<A> {
        Scoped { source, segments: segments.into_iter().take(SEGMENTS_MAX).collect() }
    }

    /// Replaces the segments, after the addresses of this machine have changed.
    pub fn set_segments(&mut self, segments: impl IntoIterator<Item = IpPrefix>) {
        self.segments = segments.into_iter().take(SEGMENTS_MAX).collect();
    }

    fn allows(&self, candidate: &Candidate) -> bool {
        candidate.route.ip().is_none_or(|ip| {
            let is_ours = || self.segments.iter().any(|segment| segment.contains(&ip));
            crate::address::is_unicast(&ip) && (is_global(ip) || is_ours())
        })
    }
}

/// Whether an address is valid outside of one network segment or site.
fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_shared = first == 100 && second & 0xc0 == 64;
            let is_reserved = first == 0 || first >= 240;
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || is_shared
                || is_reserved)
        }
        IpAddr::V6(ip) => match embedded(ip) {
            Some(inner) => is_global(IpAddr::V4(inner)),
            None => {
                !(ip.is_loopback()
                    || ip.is_unspecified()
                    || ip.is_multicast()
                    || ip.is_unique_local()
                    || ip.is_unicast_link_local())
            }
        },
    }
}

/// The IPv4 address that is embedded in an address of `::ffff:0:0/96` (RFC 4291), `64:ff9b::/96`
/// (RFC 6052) or `2002::/16` (RFC 3056).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let bytes = ip.octets();
    let low = || bytes.last_chunk().copied().map(Ipv4Addr::from);
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => low(),
        [0x2002, ..] => Some(Ipv4Addr::new(bytes[2], bytes[3], bytes[4], bytes[5])),
        _ => ip.to_ipv4_mapped(),
    }
}

/// A prefix of IP addresses, for example `192.0.2.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpPrefix {
    ip: IpAddr,
    bits: u8,
}

impl IpPrefix {
    /// The prefix of `bits` bits that contains `ip`; `None` if an address has fewer bits.
    pub fn new(ip: IpAddr, bits: u8) -> Option<IpPrefix> {
        let width = if ip.is_ipv4() { 32 } else { 128 };
        (bits <= width).then_some(IpPrefix { ip, bits })
    }

    /// Whether the address has this prefix.
    pub fn contains(&self, ip: &IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let different = own.to_bits() ^ other.to_bits();
                different.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let different = own.to_bits() ^ other.to_bits();
                different.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

/// A text that is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("need an IP address, / and a number of bits, as 192.0.2.0/24")]
pub struct BadPrefix;

impl FromStr for IpPrefix {
    type Err = BadPrefix;

    fn from_str(text: &str) -> Result<IpPrefix, BadPrefix> {
        let (ip, bits) = text.split_once('/').ok_or(BadPrefix)?;
        let (ip, bits) = (ip.parse().ok(), bits.parse().ok());
        ip.zip(bits).and_then(|(ip, bits)| IpPrefix::new(ip, bits)).ok_or(BadPrefix)
    }
}

impl<A: PeerRouting> PeerRouting for Scoped<A> {
    fn lookup(&mut self, now: Nanos, target: LookupTarget, out: &mut QuestionQueue) {
        self.source.lookup(now, target, out);
    }

    fn cancel(&mut self, target: &LookupTarget) {
        self.source.cancel(target);
    }

    fn handle_reply(&mut self, now: Nanos, reply: &ControlReply<'_>, out: &mut QuestionQueue) {
        self.source.handle_reply(now, reply, out);
    }

    fn poll(&mut self, now: Nanos, out: &mut QuestionQueue) -> Option<LookupResult> {
        loop {
            let mut result = self.source.poll(now, out)?;
            let allowed = result.candidates.iter().filter(|candidate| self.allows(candidate));
            result.candidates = allowed.cloned().collect();
            if !result.candidates.is_empty() || result.end.is_some() {
                return Some(result);
            }
        }
    }

    fn feedback(&mut self, now: Nanos, route: &Route, outcome: &Outcome) {
        self.source.feedback(now, route, outcome);
    }

    fn next_timeout(&self) -> Option<Nanos> {
        self.source.next_timeout()
    }
}
