//! Rate limits of handshakes from unknown addresses, by source network. The tables have a fixed
//! size and no entries for single senders, so no sender can fill them or evict another sender.
//!
//! Under load, messages are read only from senders that have proved with a cookie that they receive
//! at their address. Two limits apply to each sender. The first limit is for its own prefix: an
//! IPv4 address, an IPv6 /64 (one subnet), or a MAC address. The second limit is for the prefix of
//! its network: an IPv4 /24, the longest prefix that is routed, or an IPv6 /48, the prefix of a
//! large site (RFC 6177).
//!
//! Each source has one cell in each row, selected by a keyed hash. A source is refused only if all
//! its cells are used up (stochastic fair blue, Feng and others 2001). During a hundred floods, one
//! honest source in a thousand shares all its cells with them until the key changes.

use std::hash::{DefaultHasher, Hasher};

use arrayvec::ArrayVec;
use strowger_crypto::{Entropy, Nanos};
use strowger_frame::Address;

use crate::limits::{
    COOKIES_PER_SECOND_AND_HOST, HOST_READS_AT_ONCE, NETWORK_READS_AT_ONCE,
    READS_PER_SECOND_AND_HOST, READS_PER_SECOND_AND_NETWORK, SOURCE_CELLS, SOURCE_ROWS,
    SOURCES_TOLD_APART_NS,
};

/// The rate limits of all sources.
pub(super) struct Sources {
    key: [u8; 16],
    /// The time of the last change of the key; `None` before the first key.
    since: Option<Nanos>,
    hosts: Cells,
    networks: Cells,
    cookies: Cells,
}

impl Sources {
    pub(super) fn new() -> Self {
        Self {
            key: [0; 16],
            since: None,
            hosts: Cells::new(READS_PER_SECOND_AND_HOST, HOST_READS_AT_ONCE),
            networks: Cells::new(READS_PER_SECOND_AND_NETWORK, NETWORK_READS_AT_ONCE),
            cookies: Cells::new(COOKIES_PER_SECOND_AND_HOST, COOKIES_PER_SECOND_AND_HOST),
        }
    }

    /// Changes the key when the change is due. After a change, each source shares its cells with
    /// other sources than before, and all buckets are full again.
    pub(super) fn rotate(&mut self, now: Nanos, entropy: &mut dyn Entropy) {
        let is_due = |since: Nanos| now.since(since).0 >= SOURCES_TOLD_APART_NS;
        if self.since.is_none_or(is_due) && entropy.fill(&mut self.key).is_ok() {
            self.since = Some(now);
            for cells in [&mut self.hosts, &mut self.networks, &mut self.cookies] {
                cells.clear();
            }
        }
    }

    /// Whether one more message may be read from a source. If so, the message is counted. The
    /// sender has proved that it receives at its address.
    pub(super) fn may_read(&mut self, from: Address, now: Nanos) -> bool {
        let host = self.hash(0, &host(from));
        if !self.hosts.spend(host, now) {
            return false; // uses nothing of its network's budget
        }
        let network = network(from).map(|network| self.hash(1, &network));
        network.is_none_or(|network| self.networks.spend(network, now))
    }

    /// Whether one more cookie reply may be sent to a source. If so, the reply is counted. The
    /// source may be forged, so this limit only prevents one address from using up the budget.
    pub(super) fn may_have_cookie(&mut self, from: Address, now: Nanos) -> bool {
        let host = self.hash(2, &host(from));
        self.cookies.spend(host, now)
    }

    fn hash(&self, what: u8, prefix: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.key);
        hasher.write_u8(what);
        hasher.write(prefix);
        hasher.finish()
    }
}

/// The prefix that is limited as one host: an IPv4 address, an IPv6 /64, or a MAC address.
fn host(at: Address) -> ArrayVec<u8, 16> {
    prefix(at, 4, 8)
}

/// The part of an IP address that is limited as one network, an IPv4 /24 or an IPv6 /48. `None` for
/// other kinds of addresses.
fn network(at: Address) -> Option<ArrayVec<u8, 16>> {
    matches!(at, Address::Udp(_)).then(|| prefix(at, 3, 6))
}

fn prefix(at: Address, v4_bytes: usize, v6_bytes: usize) -> ArrayVec<u8, 16> {
    match at {
        Address::Only => ArrayVec::new(),
        Address::Udp(at) => match at.ip().to_canonical() {
            core::net::IpAddr::V4(ip) => ip.octets().into_iter().take(v4_bytes).collect(),
            core::net::IpAddr::V6(ip) => ip.octets().into_iter().take(v6_bytes).collect(),
        },
        Address::Ether(mac) => mac.into_iter().collect(),
    }
}

/// Rows of token buckets. Each bucket stores the time at which it is full again (ITU-T I.371, the
/// generic cell rate algorithm).
struct Cells {
    interval_ns: u64,
    at_once_ns: u64,
    rows: Box<[[u64; SOURCE_CELLS]; SOURCE_ROWS]>,
}

impl Cells {
    fn new(per_second: u32, at_once: u32) -> Self {
        let interval_ns = 1_000_000_000 / u64::from(per_second);
        let rows = Box::new([[0; SOURCE_CELLS]; SOURCE_ROWS]);
        Self { interval_ns, at_once_ns: interval_ns * u64::from(at_once), rows }
    }

    fn clear(&mut self) {
        self.rows.iter_mut().for_each(|row| row.fill(0));
    }

    /// Takes one token from the fullest bucket of a source. The other buckets are only lowered to
    /// its level, so that a source that shares one of them loses as few tokens as possible.
    fn spend(&mut self, hash: u64, now: Nanos) -> bool {
        let cell = |row: usize| (hash >> (row * 16)) as usize % SOURCE_CELLS;
        let least = self.rows.iter().enumerate().map(|(row, cells)| cells[cell(row)]).min();
        let paid_until = least.unwrap_or(0).max(now.0).saturating_add(self.interval_ns);
        if paid_until > now.0.saturating_add(self.at_once_ns) {
            return false;
        }
        for (row, cells) in self.rows.iter_mut().enumerate() {
            let cell = &mut cells[cell(row)];
            *cell = (*cell).max(paid_until);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use strowger_crypto::SeededEntropy;

    use super::*;

    fn sources(seed: u64) -> Sources {
        let mut sources = Sources::new();
        sources.rotate(Nanos(1), &mut SeededEntropy::new(seed));
        sources
    }

    fn at(ip: &str) -> Address {
        let ip: IpAddr = ip.parse().expect("an address");
        Address::Udp(SocketAddr::new(ip, 7_000))
    }

    /// The number of this source's attempts that are accepted in one second.
    fn in_a_second(sources: &mut Sources, from: Address, second: u64, attempts: u64) -> usize {
        let time = |n: u64| Nanos(second * 1_000_000_000 + n * 1_000_000_000 / attempts);
        (0..attempts).filter(|n| sources.may_read(from, time(*n))).count()
    }

    /// wire.md: W4-79.
    #[test]
    fn one_source_has_its_rate_and_takes_nothing_from_others() {
        let mut sources = sources(1);
        let flood = at("198.51.100.7");
        for second in 1..20 {
            let got = in_a_second(&mut sources, flood, second, 3_000);
            assert!((5..=15).contains(&got), "{got} in second {second}");
            assert_eq!(in_a_second(&mut sources, at("198.51.100.8"), second, 5), 5, "next to it");
            assert_eq!(in_a_second(&mut sources, at("203.0.113.7"), second, 5), 5, "elsewhere");
        }
    }

    /// wire.md: W4-79.
    #[test]
    fn a_prefix_is_one_source_whatever_its_addresses() {
        for (own, other) in [
            (
                (0..200).map(|n| format!("2001:db8:1:2::{n:x}")).collect::<Vec<_>>(),
                "2001:db8:1:3::1",
            ),
            ((0..200).map(|n| format!("::ffff:198.51.100.{}", n % 2)).collect(), "198.51.100.9"),
        ] {
            let mut sources = sources(2);
            let now = Nanos(1_000_000_000);
            let got = own.iter().filter(|ip| sources.may_read(at(ip), now)).count();
            assert!((10..=20).contains(&got), "{got} of {}", own[0]);
            assert!(sources.may_read(at(other), now));
        }
        // A sender that owns a whole network gets no more than four hosts get.
        for network in [
            (0..250).map(|n| format!("198.51.100.{n}")).collect::<Vec<_>>(),
            (0..250).map(|n| format!("2001:db8:1:{n:x}::1")).collect(),
        ] {
            let mut sources = sources(3);
            let now = Nanos(1_000_000_000);
            let got = network.iter().filter(|ip| sources.may_read(at(ip), now)).count();
            assert_eq!(got, NETWORK_READS_AT_ONCE as usize);
            assert!(sources.may_read(at("203.0.113.7"), now));
            assert!(sources.may_read(at("2001:db8:2::7"), now));
        }
    }

    #[test]
    fn with_a_hundred_floods_at_once_honest_sources_are_read() {
        let mut refused = 0;
        let mut attempts = 0;
        for seed in 0..20 {
            let mut sources = sources(100 + seed);
            for second in 1..4 {
                for flood in 0..100 {
                    in_a_second(&mut sources, at(&format!("10.0.{flood}.1")), second, 100);
                }
                for honest in 0..100 {
                    let now = Nanos((second + 1) * 1_000_000_000 - 1);
                    refused += u32::from(!sources.may_read(at(&format!("10.1.{honest}.1")), now));
                    attempts += 1;
                }
            }
        }
        assert!(refused < attempts / 100, "{refused} of {attempts}");
    }

    #[test]
    fn a_source_shares_all_cells_with_a_flood_for_a_short_time() {
        let mut entropy = SeededEntropy::new(9);
        let mut sources = Sources::new();
        sources.rotate(Nanos(1), &mut entropy);
        let (key, flood) = (sources.key, at("198.51.100.7"));
        let minute = Nanos::from_secs(60);
        while sources.may_read(flood, minute) {}
        sources.rotate(minute, &mut entropy);
        assert_eq!(sources.key, key, "not before it is due");
        assert!(!sources.may_read(flood, minute));
        sources.rotate(Nanos(SOURCES_TOLD_APART_NS + 1), &mut entropy);
        assert_ne!(sources.key, key);
        assert!(sources.may_read(flood, minute), "the cells start full after a change of the key");
    }

    /// wire.md: W4-79.
    #[test]
    fn cookies_have_cells_apart_from_reads() {
        let mut sources = sources(4);
        let (one, now) = (at("198.51.100.7"), Nanos(1_000_000_000));
        let got = (0..5_000).filter(|_| sources.may_have_cookie(one, now)).count();
        assert_eq!(got, COOKIES_PER_SECOND_AND_HOST as usize);
        assert!(sources.may_read(one, now), "a source without a proved address uses no reads");
        assert!(sources.may_have_cookie(at("198.51.100.8"), now));
        for other in [Address::Only, Address::Ether([2, 0, 0, 0, 0, 1])] {
            assert!(sources.may_read(other, now) && sources.may_have_cookie(other, now));
        }
    }
}
