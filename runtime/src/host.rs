//! Detects changes of the machine while the relay runs: the wall clock, addresses, VLAN tags. The
//! slow path checks them when the kernel reports a change. In a relay with an identity, each check
//! also passes the wall-clock time to the switch, for the timestamps of handshakes.

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

/// The state of the machine at the last check.
#[derive(Debug)]
pub(crate) struct Host {
    checked: Option<Instant>,
    /// The kernel's notifications. Without them the slow path checks once a second.
    changes: Option<MachineChanges>,
    /// The number of checks that are left after the last change. Several are needed, because a
    /// change may consist of several steps, and an address counts as gone only after several
    /// checks.
    checks_left: u32,
    wall: WallClock,
    /// For each port, the number of consecutive checks that did not find its address.
    addresses: Vec<u32>,
    own: Option<Vec<IpAddr>>,
    /// For each port, whether its interface strips VLAN tags.
    hides_tags: Vec<bool>,
}

/// Compares the wall clock with the relay's clock, which cannot be set.
#[derive(Debug, Default)]
struct WallClock {
    /// The wall-clock time at time 0 of the relay's clock, as computed by the last check, in
    /// nanoseconds since 1970. `None` before the first check.
    at_zero: Option<i128>,
    /// Whether the last check found a wrong clock, which is reported once.
    is_wrong: bool,
}

impl WallClock {
    /// Checks the wall clock. `wall` is its time since 1970, and `since_zero` the time since time 0
    /// of the relay's clock.
    fn check(&mut self, wall: Duration, since_zero: Duration) -> Vec<EventKind> {
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
            checked: None,
            changes: MachineChanges::watch().ok(),
            checks_left: 0,
            wall: WallClock::default(),
            addresses: Vec::new(),
            own: None,
            hides_tags: Vec::new(),
        }
    }

    /// Calls `each` with the descriptors that wake the slow path when the machine has changed.
    pub(crate) fn arm(&self, each: impl FnMut(Arm)) {
        self.changes.iter().flat_map(MachineChanges::arm).for_each(each);
    }

    /// The time of the next check; `None` if only a notification of the kernel causes it.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let is_active = self.checks_left > 0 || self.changes.is_none();
        self.checked.filter(|_| is_active).map(|checked| checked + CHECK_EVERY)
    }

    /// Checks the machine if a check is due.
    pub(crate) fn check(&mut self, now: Instant, slow_path: &mut SlowPath) -> Vec<EventKind> {
        if self.changes.as_mut().is_some_and(MachineChanges::take) {
            self.checks_left = ADDRESS_GONE_CHECKS + 1;
        }
        if self.checked.is_some_and(|checked| now.saturating_duration_since(checked) < CHECK_EVERY)
        {
            return Vec::new();
        }
        self.checked = Some(now);
        self.checks_left = self.checks_left.saturating_sub(1);
        let mut seen = self.check_clock(slow_path);
        self.addresses.resize(slow_path.ports.len(), 0);
        for (port, missed) in slow_path.ports.iter().zip(&mut self.addresses) {
            seen.extend(check_address(port, missed, is_on_this_machine));
        }
        self.hides_tags.resize(slow_path.ports.len(), false);
        for (port, hidden) in slow_path.ports.iter().zip(&mut self.hides_tags) {
            seen.extend(check_vlan_tags(port, hidden));
        }
        if let Ok(own) = local_addresses()
            && let Some(before) = self.own.replace(own)
            && self.own.as_ref() != Some(&before)
        {
            // Send a message on every link now, so that peers learn the new address.
            slow_path.switch.show_where_we_are(slow_path.clock.now());
        }
        seen
    }

    fn check_clock(&mut self, slow_path: &mut SlowPath) -> Vec<EventKind> {
        let SlowPath { switch, clock, identity, .. } = slow_path;
        // Only sealed links depend on the wall clock.
        if identity.is_none() {
            return Vec::new();
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        switch.set_wall_clock(wall.as_nanos() as u64, clock.now());
        self.wall.check(wall, Duration::from_nanos(clock.now().0))
    }
}

/// Returns an event if the machine lost the address of a listener, or has it again. `is_own` tests
/// whether the machine has an address.
fn check_address(
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

/// Returns an event if the interface of an AF_XDP port started or stopped stripping VLAN tags.
fn check_vlan_tags(port: &PortInfo, were_hidden: &mut bool) -> Option<EventKind> {
    let PortKind::Ethernet(info) = &port.kind else { return None };
    let report = info.reports.iter().find(|report| report.mode != RxMode::Packet)?;
    let interface = report.interface.clone();
    // An error counts as no change, because the interface may be gone.
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
    fn a_wrong_clock_and_a_set_clock_are_reported_once() {
        let mut clock = WallClock::default();
        let second = Duration::from_secs;
        assert_eq!(kinds(&clock.check(second(7), second(2))), ["clock_wrong"]);
        assert_eq!(kinds(&clock.check(second(8), second(3))), [""; 0]);
        let now = 56 * YEAR;
        assert_eq!(kinds(&clock.check(now, second(4))), ["clock_set"]);
        assert_eq!(kinds(&clock.check(now + second(1), second(5))), [""; 0]);
        let back = clock.check(now - second(60), second(6));
        assert_eq!(kinds(&back), ["clock_set"]);
        let EventKind::WallClockSet { forward: false, by, .. } = back[0] else {
            panic!("{back:?}")
        };
        assert_eq!(by.as_secs(), 62);
        // A small step causes no report.
        assert_eq!(kinds(&clock.check(now - second(58), second(7))), [""; 0]);
        let wrong = clock.check(second(9), second(8));
        assert_eq!(kinds(&wrong), ["clock_set", "clock_wrong"]);
    }

    #[test]
    fn a_lost_address_and_its_return_are_reported_once() {
        let local = "198.51.100.1:7000".parse().expect("an address");
        let kind = PortKind::Udp { local, plain: false, reports: Vec::new(), steered: None };
        let port = PortInfo::new(PortId(0), "wan", kind);
        let mut missed = 0;
        let mut check = |is_own: bool| {
            check_address(&port, &mut missed, |at| {
                assert_eq!(at, local);
                is_own
            })
            .map(|seen| seen.name())
        };
        assert_eq!(check(true), None);
        for checks in 1..=10 {
            let reported = (checks == ADDRESS_GONE_CHECKS).then_some("port_trouble");
            assert_eq!(check(false), reported, "check {checks}");
        }
        assert_eq!(check(true), Some("port_back"));
        assert_eq!([check(false), check(true)], [None, None], "a moment");
    }
}
