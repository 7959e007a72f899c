//! What changes on the machine while the relay runs: the wall clock, and its own addresses. The slow path looks once
//! a second, lets the stamps of handshakes follow the wall clock, and says what has changed.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use strowger_io::{
    addresses::own_addresses,
    xdp::{Rung, hidden_tags},
};

use crate::{
    limits::{ADDRESS_GONE_LOOKS, CLOCK_PLAUSIBLE_S, CLOCK_STEP_SAID, HEALTH_EVERY},
    log::{Kind, Rfc3339},
    topology::{PortInfo, PortKind, Topology},
};

/// Something that was seen: for the log, and for the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    /// What the line is about.
    pub(super) subject: String,
    pub(super) text: String,
}

/// What was seen last.
#[derive(Debug)]
pub(super) struct Host {
    looked: Option<Instant>,
    wall: WallClock,
    /// By listener: looks in a row that did not find its address.
    addresses: Vec<u32>,
    own: Option<Vec<IpAddr>>,
    /// By port: whether its interface hides VLAN tags from it.
    hides_tags: Vec<bool>,
}

/// The wall clock beside one that nobody sets.
#[derive(Debug, Default)]
struct WallClock {
    /// What the wall clock showed at time 0, as of the last look, in nanoseconds since 1970.
    at_zero: Option<i128>,
    /// Whether it was said that it cannot be right.
    is_wrong: bool,
}

impl WallClock {
    /// The wall clock shows this, so long after time 0.
    fn look(&mut self, wall: Duration, since_zero: Duration) -> Vec<(Kind, String)> {
        let mut seen = Vec::new();
        let at_zero = wall.as_nanos() as i128 - since_zero.as_nanos() as i128;
        let step = at_zero - self.at_zero.replace(at_zero).unwrap_or(at_zero);
        let step_s = step.unsigned_abs() / 1_000_000_000;
        let shown = Rfc3339(UNIX_EPOCH + wall);
        if step.unsigned_abs() >= CLOCK_STEP_SAID.as_nanos() {
            let text = if step > 0 {
                format!("was set forward by {step_s} s, to {shown}; handshakes follow")
            } else {
                format!(
                    "was set back by {step_s} s, to {shown}; handshakes go on from the time before"
                )
            };
            seen.push((Kind::ClockSet, text));
        }
        let is_wrong = wall.as_secs() < CLOCK_PLAUSIBLE_S;
        if is_wrong && !self.is_wrong {
            let text = format!(
                "shows {shown}, which cannot be right; peers that have seen a later handshake refuse \
                 this node's until the clock is set"
            );
            seen.push((Kind::ClockWrong, text));
        }
        self.is_wrong = is_wrong;
        seen
    }
}

impl Host {
    pub(super) fn new() -> Self {
        Self {
            looked: None,
            wall: WallClock::default(),
            addresses: Vec::new(),
            own: None,
            hides_tags: Vec::new(),
        }
    }

    /// Looks, if it is time.
    pub(super) fn look(&mut self, now: Instant, topology: &mut Topology) -> Vec<Seen> {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < HEALTH_EVERY) {
            return Vec::new();
        }
        self.looked = Some(now);
        let mut seen = self.look_at_clock(topology);
        self.addresses.resize(topology.ports.len(), 0);
        for (port, missed) in topology.ports.iter().zip(&mut self.addresses) {
            seen.extend(look_at_address(port, missed, is_own));
        }
        self.hides_tags.resize(topology.ports.len(), false);
        for (port, hidden) in topology.ports.iter().zip(&mut self.hides_tags) {
            seen.extend(look_at_tags(port, hidden));
        }
        if let Ok(own) = own_addresses()
            && let Some(before) = self.own.replace(own)
            && self.own.as_ref() != Some(&before)
        {
            // Peers learn where this node is now before they have something to say.
            topology.switch.show_where_we_are(topology.clock.now());
        }
        seen
    }

    fn look_at_clock(&mut self, topology: &mut Topology) -> Vec<Seen> {
        let Topology { switch, clock, identity, .. } = topology;
        // Without sealed links nothing depends on it.
        if identity.is_none() {
            return Vec::new();
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        switch.set_wall_clock(wall.as_nanos() as u64, clock.now());
        let seen = self.wall.look(wall, Duration::from_nanos(clock.now().0));
        let subject = || "the wall clock".to_owned();
        seen.into_iter().map(|(kind, text)| Seen { kind, subject: subject(), text }).collect()
    }
}

/// Whether a listener still has its address, as `is_own` says; said where that changes.
fn look_at_address(
    port: &PortInfo,
    missed: &mut u32,
    is_own: impl Fn(SocketAddr) -> bool,
) -> Option<Seen> {
    let PortKind::Udp { local, .. } = port.kind else { return None };
    if local.ip().is_unspecified() || port.alternate_of.is_some() {
        return None;
    }
    let was_gone = *missed >= ADDRESS_GONE_LOOKS;
    *missed = if is_own(local) { 0 } else { missed.saturating_add(1) };
    let is_gone = *missed >= ADDRESS_GONE_LOOKS;
    let (kind, text) = match (was_gone, is_gone) {
        (false, true) => (
            Kind::PortTrouble,
            format!(
                "this machine has no address {} any more, so nothing comes in or goes out there; it works \
                 again when the address is back; to follow a changing address, listen at {}",
                local.ip(),
                if local.is_ipv4() { "0.0.0.0" } else { "[::]" },
            ),
        ),
        (true, false) => (Kind::PortBack, format!("this machine has address {} again", local.ip())),
        _ => return None,
    };
    Some(Seen { kind, subject: format!("[[udp]] {}", port.name), text })
}

/// Whether an interface that a port has AF_XDP on hides VLAN tags from it, which may change after the
/// start; said where that changes.
fn look_at_tags(port: &PortInfo, were_hidden: &mut bool) -> Option<Seen> {
    let PortKind::Ethernet(wire) = &port.kind else { return None };
    let report = wire.reports.iter().find(|report| report.rung != Rung::Packet)?;
    let interface = &report.interface;
    // What cannot be found out has not changed: the interface may be gone.
    let hidden = hidden_tags(interface).ok()?;
    if hidden.any() == std::mem::replace(were_hidden, hidden.any()) {
        return None;
    }
    let (kind, text) = if hidden.any() {
        (
            Kind::PortTrouble,
            format!(
                "{interface} takes VLAN tags off frames since the start, so frames of other VLANs are \
                 taken for this port's; {}, or start the relay anew",
                hidden.way_out(interface)
            ),
        )
    } else {
        (Kind::PortBack, format!("{interface} leaves VLAN tags in frames again"))
    };
    Some(Seen { kind, subject: format!("[[ethernet]] {}", port.name), text })
}

/// Whether this machine has the address: whether another socket may be bound there. What cannot be
/// found out is taken for yes.
fn is_own(at: SocketAddr) -> bool {
    let mut any_port = at;
    any_port.set_port(0);
    let bound = UdpSocket::bind(any_port);
    !matches!(bound, Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger_engine::control::PortId;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    fn kinds(seen: &[(Kind, String)]) -> Vec<Kind> {
        seen.iter().map(|(kind, _)| *kind).collect()
    }

    #[test]
    fn a_clock_that_cannot_be_right_is_said_once_and_that_it_was_set() {
        let mut clock = WallClock::default();
        let second = Duration::from_secs;
        assert_eq!(kinds(&clock.look(second(7), second(2))), [Kind::ClockWrong]);
        assert_eq!(kinds(&clock.look(second(8), second(3))), []);
        let now = 56 * YEAR;
        assert_eq!(kinds(&clock.look(now, second(4))), [Kind::ClockSet]);
        assert_eq!(kinds(&clock.look(now + second(1), second(5))), []);
        let back = clock.look(now - second(60), second(6));
        assert_eq!(kinds(&back), [Kind::ClockSet]);
        assert!(back[0].1.contains("set back by 62 s"), "{back:?}");
        // Slewing is nobody's business.
        assert_eq!(kinds(&clock.look(now - second(58), second(7))), []);
        let wrong = clock.look(second(9), second(8));
        assert_eq!(kinds(&wrong), [Kind::ClockSet, Kind::ClockWrong]);
    }

    #[test]
    fn an_address_that_goes_is_said_once_and_that_it_is_back() {
        let local = "198.51.100.1:7000".parse().expect("an address");
        let kind = PortKind::Udp { local, plain: false, reports: Vec::new(), steered: None };
        let port = PortInfo { id: PortId(0), name: "wan".to_owned(), kind, alternate_of: None };
        let mut missed = 0;
        let mut look = |is_own: bool| {
            look_at_address(&port, &mut missed, |at| {
                assert_eq!(at, local);
                is_own
            })
            .map(|seen| seen.kind)
        };
        assert_eq!(look(true), None);
        for looks in 1..=10 {
            let said = (looks == ADDRESS_GONE_LOOKS).then_some(Kind::PortTrouble);
            assert_eq!(look(false), said, "look {looks}");
        }
        assert_eq!(look(true), Some(Kind::PortBack));
        assert_eq!([look(false), look(true)], [None, None], "a moment");
    }

    #[test]
    fn an_address_of_this_machine_is_its_own_and_another_is_not() {
        assert!(is_own("127.0.0.1:7000".parse().expect("an address")));
        assert!(!is_own("192.0.2.77:7000".parse().expect("an address")));
    }
}
