//! Changes on the machine while the relay runs: the wall clock, and the machine's addresses. The slow path looks
//! when the kernel tells of a change, and lets the stamps of handshakes follow the wall clock.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use strowger_frame::port::Arm;
use strowger_io::{
    sys::{addresses::local_addresses, changes::MachineChanges},
    xdp::{RxMode, hidden_tags},
};

use crate::{
    event::EventKind,
    limits::{ADDRESS_GONE_CHECKS, CHECK_EVERY, CLOCK_PLAUSIBLE_S, CLOCK_STEP_MIN},
    machine_addresses::is_on_this_machine,
    port_info::{PortInfo, PortKind},
    slow_path::SlowPath,
};

/// What was seen last.
#[derive(Debug)]
pub(crate) struct Host {
    looked: Option<Instant>,
    /// What tells of changes; without it the slow path looks once a second.
    changes: Option<MachineChanges>,
    /// So many looks follow each other: a change may come in parts, and an address is gone when some looks
    /// have missed it.
    looks_left: u32,
    wall: WallClock,
    /// By listener: looks in a row that did not find its address.
    addresses: Vec<u32>,
    own: Option<Vec<IpAddr>>,
    /// By port: whether its interface hides VLAN tags from it.
    hides_tags: Vec<bool>,
}

/// The wall clock beside one that is never set.
#[derive(Debug, Default)]
struct WallClock {
    /// What the wall clock showed at time 0, as of the last look, in nanoseconds since 1970.
    at_zero: Option<i128>,
    /// Whether it was reported that it cannot be right.
    is_wrong: bool,
}

impl WallClock {
    /// The wall clock shows this, so long after time 0.
    fn look(&mut self, wall: Duration, since_zero: Duration) -> Vec<EventKind> {
        let mut seen = Vec::new();
        let at_zero = wall.as_nanos() as i128 - since_zero.as_nanos() as i128;
        let step = at_zero - self.at_zero.replace(at_zero).unwrap_or(at_zero);
        let to = UNIX_EPOCH + wall;
        if step.unsigned_abs() >= CLOCK_STEP_MIN.as_nanos() {
            let by = Duration::from_nanos(u64::try_from(step.unsigned_abs()).unwrap_or(u64::MAX));
            seen.push(EventKind::WallClockSet { forward: step > 0, by, to });
        }
        let is_wrong = wall.as_secs() < CLOCK_PLAUSIBLE_S;
        if is_wrong && !self.is_wrong {
            seen.push(EventKind::WallClockWrong { shows: to });
        }
        self.is_wrong = is_wrong;
        seen
    }
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            looked: None,
            changes: MachineChanges::watch().ok(),
            looks_left: 0,
            wall: WallClock::default(),
            addresses: Vec::new(),
            own: None,
            hides_tags: Vec::new(),
        }
    }

    /// What wakes the slow path when the machine has changed.
    pub(crate) fn arm(&self, each: impl FnMut(Arm)) {
        self.changes.iter().flat_map(MachineChanges::arm).for_each(each);
    }

    /// When [`look`](Self::look) is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let looks = self.looks_left > 0 || self.changes.is_none();
        self.looked.filter(|_| looks).map(|looked| looked + CHECK_EVERY)
    }

    /// Looks, if it is time, or something has changed.
    pub(crate) fn look(&mut self, now: Instant, slow_path: &mut SlowPath) -> Vec<EventKind> {
        if self.changes.as_mut().is_some_and(MachineChanges::take) {
            self.looks_left = ADDRESS_GONE_CHECKS + 1;
        }
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < CHECK_EVERY) {
            return Vec::new();
        }
        self.looked = Some(now);
        self.looks_left = self.looks_left.saturating_sub(1);
        let mut seen = self.look_at_clock(slow_path);
        self.addresses.resize(slow_path.ports.len(), 0);
        for (port, missed) in slow_path.ports.iter().zip(&mut self.addresses) {
            seen.extend(look_at_address(port, missed, is_on_this_machine));
        }
        self.hides_tags.resize(slow_path.ports.len(), false);
        for (port, hidden) in slow_path.ports.iter().zip(&mut self.hides_tags) {
            seen.extend(look_at_tags(port, hidden));
        }
        if let Ok(own) = local_addresses()
            && let Some(before) = self.own.replace(own)
            && self.own.as_ref() != Some(&before)
        {
            // Peers learn where this node is now before they have something to send.
            slow_path.switch.show_where_we_are(slow_path.clock.now());
        }
        seen
    }

    fn look_at_clock(&mut self, slow_path: &mut SlowPath) -> Vec<EventKind> {
        let SlowPath { switch, clock, identity, .. } = slow_path;
        // Without sealed links nothing depends on it.
        if identity.is_none() {
            return Vec::new();
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        switch.set_wall_clock(wall.as_nanos() as u64, clock.now());
        self.wall.look(wall, Duration::from_nanos(clock.now().0))
    }
}

/// Whether a listener still has its address, as `is_own` says; reported when that changes.
fn look_at_address(
    port: &PortInfo,
    missed: &mut u32,
    is_own: impl Fn(SocketAddr) -> bool,
) -> Option<EventKind> {
    let PortKind::Udp { local, .. } = port.kind else { return None };
    if local.ip().is_unspecified() || port.alternate_of.is_some() {
        return None;
    }
    let was_gone = *missed >= ADDRESS_GONE_CHECKS;
    *missed = if is_own(local) { 0 } else { missed.saturating_add(1) };
    let is_gone = *missed >= ADDRESS_GONE_CHECKS;
    let (port, address) = (port.name.clone(), local.ip());
    match (was_gone, is_gone) {
        (false, true) => Some(EventKind::AddressGone { port, address }),
        (true, false) => Some(EventKind::AddressBack { port, address }),
        _ => None,
    }
}

/// Whether an interface that a port has AF_XDP on hides VLAN tags from it, which may change after the
/// start; reported when that changes.
fn look_at_tags(port: &PortInfo, were_hidden: &mut bool) -> Option<EventKind> {
    let PortKind::Ethernet(info) = &port.kind else { return None };
    let report = info.reports.iter().find(|report| report.mode != RxMode::Packet)?;
    let interface = report.interface.clone();
    // What cannot be found out has not changed: the interface may be gone.
    let hidden = hidden_tags(&interface).ok()?;
    if hidden.any() == std::mem::replace(were_hidden, hidden.any()) {
        return None;
    }
    let port = port.name.clone();
    Some(if hidden.any() {
        let remedy = hidden.remedy(&interface);
        EventKind::VlanTagsHidden { port, interface, remedy }
    } else {
        EventKind::VlanTagsShown { port, interface }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger_engine::control::PortId;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    fn kinds(seen: &[EventKind]) -> Vec<&'static str> {
        seen.iter().map(EventKind::name).collect()
    }

    #[test]
    fn a_clock_that_cannot_be_right_is_said_once_and_that_it_was_set() {
        let mut clock = WallClock::default();
        let second = Duration::from_secs;
        assert_eq!(kinds(&clock.look(second(7), second(2))), ["clock_wrong"]);
        assert_eq!(kinds(&clock.look(second(8), second(3))), [""; 0]);
        let now = 56 * YEAR;
        assert_eq!(kinds(&clock.look(now, second(4))), ["clock_set"]);
        assert_eq!(kinds(&clock.look(now + second(1), second(5))), [""; 0]);
        let back = clock.look(now - second(60), second(6));
        assert_eq!(kinds(&back), ["clock_set"]);
        let EventKind::WallClockSet { forward: false, by, .. } = back[0] else {
            panic!("{back:?}")
        };
        assert_eq!(by.as_secs(), 62);
        // Slewing is nobody's business.
        assert_eq!(kinds(&clock.look(now - second(58), second(7))), [""; 0]);
        let wrong = clock.look(second(9), second(8));
        assert_eq!(kinds(&wrong), ["clock_set", "clock_wrong"]);
    }

    #[test]
    fn an_address_that_goes_is_said_once_and_that_it_is_back() {
        let local = "198.51.100.1:7000".parse().expect("an address");
        let kind = PortKind::Udp { local, plain: false, reports: Vec::new(), steered: None };
        let port = PortInfo::new(PortId(0), "wan", kind);
        let mut missed = 0;
        let mut look = |is_own: bool| {
            look_at_address(&port, &mut missed, |at| {
                assert_eq!(at, local);
                is_own
            })
            .map(|seen| seen.name())
        };
        assert_eq!(look(true), None);
        for looks in 1..=10 {
            let said = (looks == ADDRESS_GONE_CHECKS).then_some("port_trouble");
            assert_eq!(look(false), said, "look {looks}");
        }
        assert_eq!(look(true), Some("port_back"));
        assert_eq!([look(false), look(true)], [None, None], "a moment");
    }
}
