//! How long a frame the path behind a link takes: found by path challenges of that length (RFC 8899,
//! datagram packetization layer path MTU discovery), and looked after. Sans I/O; it never believes a
//! message that it did not ask for, so nobody can make a path narrower than it is but by losing
//! what is long.
//!
//! ```text
//!  keys, or another address
//!     │
//!     ▼            answered                    nothing lies between what
//!   reach: a short ─────────► search: longer ─ arrives and what does not ─► rest
//!     challenge                                                            │ │ ▲
//!     ▲                          ▲  10 minutes, link in use (raise) ───────┘ │ │
//!     └─ what rested is not answered any more; the short one is: search ◄────┘ └─ answered
//! ```

use strowger_crypto::{Nanos, Sealed, limits};
use strowger_frame::Mark;
use strowger_wire::limits::LINK_MTU_MIN;

use super::{
    super::{Event, base::Base},
    Links, Peer,
};
use crate::{Now, command::Command};

/// Bytes of the token that a path challenge carries.
pub(super) const TOKEN_BYTES: usize = 8;

/// What IPv6 and UDP put in front of a frame.
const IPV6_UDP_BYTES: u16 = 40 + 8;

/// What stands while nothing is known: as if the path were Ethernet, as nearly all are. So nothing that
/// such a path takes is refused at first (decision 14).
const PRESUMED: u16 = 1_500 - IPV6_UDP_BYTES;

/// What stands when that is too much: IPv6 asks for 1,280 of every path (RFC 8200, section 5), which
/// is BASE_PLPMTU of RFC 8899.
const BASE: u16 = 1_280 - IPV6_UDP_BYTES;

/// Lengths that paths have, so that most searches end soon: tunnels, PPPoE, Ethernet and its jumbo
/// frames, over IPv6 and UDP, IPv4 and UDP, and bare but for a length of two bytes.
const COMMON: [u16; 14] = [
    BASE, 1_252, 1_352, 1_372, 1_392, 1_412, 1_444, 1_464, PRESUMED, 1_472, 1_498, 8_952, 8_972,
    8_998,
];

/// A challenge is asked so often before it counts as unanswered (MAX_PROBES).
const PROBES_MAX: u8 = 3;

/// How long an answer is waited for (PROBE_TIMER, which must be a second at least).
const PROBE_TIMER: Nanos = Nanos::from_secs(1);

/// A link in use is asked so often whether its path still takes what it took (CONFIRMATION_TIMER).
const CONFIRM_AFTER: Nanos = Nanos::from_secs(15);

/// And so often whether it takes more by now (PMTU_RAISE_TIMER).
const RAISE_AFTER: Nanos = Nanos::from_secs(600);

/// Age of keys under which nothing is asked any more.
const ASKS_UNTIL: Nanos = Nanos(limits::SEAL_REFUSED_AFTER.0 - limits::REKEY_SPACING.0);

const _: () = assert!(LINK_MTU_MIN < BASE && BASE < PRESUMED);

/// What is asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// Whether anybody is there at all: no long frame goes to an address that has not answered a short
    /// one (R8), and none is missed where nothing is answered. With what a path took that does not any
    /// more, if it is asked for that reason.
    Reach { fails: Option<u16> },
    /// Something between what arrives and what does not.
    Search { works: u16, fails: u16, presumes: bool },
    /// The length that was found.
    Rest,
}

/// A challenge that is not answered yet.
#[derive(Debug)]
struct Probe {
    token: [u8; TOKEN_BYTES],
    bytes: u16,
    asked: u8,
    since: Nanos,
}

/// A challenge to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) token: [u8; TOKEN_BYTES],
    /// The frame's length, or 0: no longer than it must be.
    pub(super) bytes: u16,
}

/// What is known of one link's path.
#[derive(Debug)]
pub(super) struct PathMtu {
    agreed: u16,
    limit: u16,
    is_found: bool,
    goal: Goal,
    probe: Option<Probe>,
    /// Nothing is asked before this.
    rest_until: Nanos,
    raise_at: Nanos,
    /// Frames of data that had crossed the link when it was last asked.
    frames: u64,
    /// What was last told.
    told: Option<u16>,
}

/// Whether the link is used, as far as that decides what is asked.
#[derive(Clone, Copy)]
pub(super) struct Crossed {
    /// Frames of data so far.
    pub(super) frames: u64,
    /// Whether the last of them is not long ago.
    pub(super) lately: bool,
}

impl PathMtu {
    /// Nothing is known of a path but what both ends take.
    pub(super) fn new(agreed: u16) -> Self {
        Self {
            agreed,
            limit: agreed.min(PRESUMED),
            is_found: false,
            goal: Goal::Reach { fails: None },
            probe: None,
            rest_until: Nanos::ZERO,
            raise_at: Nanos::ZERO,
            frames: 0,
            told: None,
        }
    }

    /// What both ends take.
    pub(super) fn agreed(&self) -> u16 {
        self.agreed
    }

    /// The longest frame that may be sent now.
    pub(super) fn limit(&self) -> u16 {
        self.limit
    }

    /// Whether a search has ended with it.
    pub(super) fn is_found(&self) -> bool {
        self.is_found
    }

    /// The limit that a search has ended with, once.
    fn news(&mut self) -> Option<u16> {
        let limit = self.limit;
        let is_new = self.is_found && self.told.replace(limit) != Some(limit);
        is_new.then_some(limit)
    }

    /// What was asked will not be answered, and that means nothing.
    fn pause(&mut self) {
        self.probe = None;
    }

    /// What is to be asked now, if anything. `token` must be new and random.
    fn turn(&mut self, now: Nanos, crossed: Crossed, token: [u8; TOKEN_BYTES]) -> Option<Ask> {
        if let Some(probe) = &mut self.probe {
            if now.since(probe.since) < PROBE_TIMER {
                return None;
            }
            if probe.asked < PROBES_MAX {
                probe.asked += 1;
                probe.since = now;
                return Some(Ask { token: probe.token, bytes: probe.bytes });
            }
            let bytes = probe.bytes;
            self.probe = None;
            self.miss(bytes, now);
        }
        let bytes = self.next(now, crossed)?;
        self.frames = crossed.frames;
        self.probe = Some(Probe { token, bytes, asked: 1, since: now });
        Some(Ask { token, bytes })
    }

    fn next(&mut self, now: Nanos, crossed: Crossed) -> Option<u16> {
        match self.goal {
            _ if now < self.rest_until => None,
            Goal::Reach { .. } => Some(0),
            Goal::Search { works, fails, .. } => between(works, fails, self.agreed),
            Goal::Rest if crossed.lately && now >= self.raise_at && self.limit < self.agreed => {
                let fails = self.agreed + 1;
                self.goal = Goal::Search { works: self.limit, fails, presumes: false };
                between(self.limit, fails, self.agreed)
            }
            Goal::Rest => (crossed.frames != self.frames).then_some(self.limit),
        }
    }

    /// When there is something to ask, as long as no frame crosses the link.
    fn next_timeout(&self, crossed: Crossed) -> Option<Nanos> {
        if let Some(probe) = &self.probe {
            return Some(probe.since.plus(PROBE_TIMER));
        }
        let has_crossed = crossed.frames != self.frames;
        let raises = crossed.lately && self.limit < self.agreed;
        match self.goal {
            Goal::Reach { .. } | Goal::Search { .. } => Some(self.rest_until),
            Goal::Rest if has_crossed => Some(self.rest_until),
            Goal::Rest => raises.then(|| self.raise_at.max(self.rest_until)),
        }
    }

    /// A challenge was answered from where the link is; says whether it was one of these.
    fn take(&mut self, token: &[u8], now: Nanos) -> bool {
        let Some(Probe { bytes, .. }) = self.probe.take_if(|probe| probe.token == token) else {
            return false;
        };
        let floor = LINK_MTU_MIN.min(self.agreed);
        match &mut self.goal {
            Goal::Reach { fails } => {
                self.is_found = false;
                let fails = fails.unwrap_or(self.agreed + 1);
                self.goal = Goal::Search { works: floor, fails, presumes: true };
            }
            Goal::Search { works, .. } => *works = bytes,
            Goal::Rest => self.rest_until = now.plus(CONFIRM_AFTER),
        }
        self.settle(now);
        true
    }

    /// A challenge was asked as often as may be, and not answered.
    fn miss(&mut self, asked: u16, now: Nanos) {
        match &mut self.goal {
            // Nobody is there, which is for others to find out.
            Goal::Reach { fails } => {
                self.rest_until = now.plus(CONFIRM_AFTER);
                if fails.is_some() {
                    self.goal = Goal::Rest;
                }
            }
            Goal::Search { fails, .. } => *fails = asked,
            Goal::Rest => self.goal = Goal::Reach { fails: Some(asked) },
        }
        self.settle(now);
    }

    fn settle(&mut self, now: Nanos) {
        let Goal::Search { works, fails, presumes } = self.goal else { return };
        let presumed = [PRESUMED, BASE].into_iter().find(|&bytes| bytes < fails);
        self.limit = works.max(presumed.filter(|_| presumes).unwrap_or(0));
        if between(works, fails, self.agreed).is_none() {
            (self.goal, self.is_found) = (Goal::Rest, true);
            self.rest_until = now.plus(CONFIRM_AFTER);
            self.raise_at = now.plus(RAISE_AFTER);
        }
    }
}

/// The length to be asked for next, if any lies between one that arrives and one that does not: the
/// longest of all first, then what paths often have, and what is one byte longer than that.
fn between(works: u16, fails: u16, agreed: u16) -> Option<u16> {
    if works + 1 >= fails {
        return None;
    }
    if fails > agreed {
        return Some(agreed);
    }
    let mut common = COMMON.into_iter().filter(|&bytes| works < bytes && bytes < fails);
    let usual = (works < PRESUMED && PRESUMED < fails).then_some(PRESUMED);
    let exact = COMMON.contains(&works).then_some(works + 1);
    usual.or_else(|| common.next()).or(exact).or(Some(works + (fails - works) / 2))
}

impl Links {
    /// Asks what is to be asked of a link's path.
    pub(super) fn turn_path(&mut self, mark: Mark, now: Now, base: &mut Base) {
        let Some(peering) = &mut self.peering else { return };
        let Some(peer) = peering.peers.get_mut(&mark) else { return };
        let Some(at) = peer.location() else { return };
        let Some(path) = &mut peer.path else { return };
        // Under keys that are about to end an answer that does not come would mean nothing.
        let age = peer.keys_since.map_or(0, |since| now.0.saturating_sub(since.0));
        if !peer.state.is_up() || age >= ASKS_UNTIL.0 {
            return path.pause();
        }
        let mut token = [0; TOKEN_BYTES];
        if peering.config.entropy.fill(&mut token).is_err() {
            return;
        }
        let before = path.limit();
        let ask = path.turn(Nanos(now.0), peer.usage.crossed(now), token);
        let (owner, limit, to) = (peer.owner, path.limit(), (at.port.0, at.at));
        if let Some(Ask { token, bytes }) = ask {
            let order = match bytes {
                0 => Command::SendLinkMessage(
                    mark,
                    Sealed::PathChallenge,
                    Some(to),
                    token.into_iter().collect(),
                ),
                bytes => Command::Probe(mark, to, token, bytes),
            };
            base.out.workers.command(base.ports.sender(owner, at.port), order);
        }
        self.tell_limit(mark, before, limit, base);
    }

    /// Somebody at the link's address has answered a path challenge: perhaps one of these.
    pub(super) fn take_path_response(
        &mut self,
        mark: Mark,
        token: &[u8],
        now: Now,
        base: &mut Base,
    ) {
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        let Some(path) = &mut peer.path else { return };
        let before = path.limit();
        if path.take(token, Nanos(now.0)) {
            let limit = path.limit();
            self.tell_limit(mark, before, limit, base);
            self.turn_path(mark, now, base);
        }
    }

    /// The link leads by another path, of which nothing is known.
    pub(super) fn forget_path(&mut self, mark: Mark, base: &mut Base) {
        let Some(peer) = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark)) else { return };
        let Some(path) = &mut peer.path else { return };
        let (before, agreed) = (path.limit(), path.agreed());
        *path = PathMtu::new(agreed);
        let limit = path.limit();
        self.tell_limit(mark, before, limit, base);
    }

    fn tell_limit(&mut self, mark: Mark, before: u16, limit: u16, base: &mut Base) {
        if before != limit {
            base.out.workers.command_all(|_| Command::SetMtu(mark, limit));
        }
        let slot = base.slots.slot_of(mark);
        let peer = self.peering.as_mut().and_then(|p| p.peers.get_mut(&mark));
        if let (Some(slot), Some(path)) = (slot, peer.and_then(|peer| peer.path.as_mut())) {
            base.out.events.extend(path.news().map(|bytes| Event::PathMtu(slot, bytes)));
        }
    }
}

impl Peer {
    /// When [`Links::turn_path`] has something to do.
    pub(super) fn path_due(&self, now: Now) -> Option<Nanos> {
        let path = self.path.as_ref().filter(|_| self.state.is_up() && self.at.is_some())?;
        let due = path.next_timeout(self.usage.crossed(now))?;
        let asks_until = self.keys_since.map(|since| Nanos(since.0).plus(ASKS_UNTIL));
        Some(due).filter(|due| asks_until.is_none_or(|until| *due < until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs against a path that takes frames of so many bytes; returns how many were asked, and for
    /// how long.
    fn run(mtu: &mut PathMtu, takes: u16, now: &mut Nanos, seconds: u64, frames: &mut u64) -> u32 {
        let mut asked = 0;
        for tenth in 0..10 * seconds {
            *now = now.plus(Nanos::from_millis(100));
            *frames += u64::from(tenth % 10 == 0);
            let crossed = Crossed { frames: *frames, lately: true };
            let mut token = now.0.to_be_bytes();
            while let Some(ask) = mtu.turn(*now, crossed, token) {
                asked += 1;
                token[0] += 1;
                if ask.bytes <= takes {
                    assert!(mtu.take(&ask.token, *now));
                    assert!(!mtu.take(&ask.token, *now), "twice");
                }
            }
        }
        asked
    }

    #[test]
    fn every_width_is_found_exactly_with_few_challenges() {
        for agreed in [576, 577, 1_232, 1_372, 1_452, 1_500, 9_216] {
            for takes in (576..1_600).chain((1_600..9_300).step_by(97)) {
                let (mut mtu, mut now, mut frames) = (PathMtu::new(agreed), Nanos::ZERO, 0);
                let asked = run(&mut mtu, takes, &mut now, 60, &mut frames);
                assert!(mtu.is_found(), "{takes} of {agreed}: {mtu:?}");
                assert_eq!(mtu.limit(), takes.min(agreed), "of {agreed}");
                assert!(asked <= 56, "{asked} for {takes} of {agreed}");
            }
        }
    }

    #[test]
    fn a_usual_path_is_found_within_ten_seconds() {
        for takes in [1_452, 1_472, 1_498, 8_952, 8_972, 8_998, 9_216] {
            let (mut mtu, mut now, mut frames) = (PathMtu::new(9_216), Nanos::ZERO, 0);
            run(&mut mtu, takes, &mut now, 10, &mut frames);
            assert!(mtu.is_found() && mtu.limit() == takes, "{takes}: {mtu:?}");
        }
    }

    #[test]
    fn a_path_that_grows_narrow_is_noticed_and_one_that_grows_wide_is_used_later() {
        let (mut mtu, mut now, mut frames) = (PathMtu::new(9_216), Nanos::ZERO, 0);
        run(&mut mtu, 1_472, &mut now, 60, &mut frames);
        run(&mut mtu, 1_300, &mut now, 60, &mut frames);
        assert_eq!((mtu.limit(), mtu.is_found()), (1_300, true));
        run(&mut mtu, 9_300, &mut now, 500, &mut frames);
        assert_eq!(mtu.limit(), 1_300, "not yet");
        run(&mut mtu, 9_300, &mut now, 200, &mut frames);
        assert_eq!(mtu.limit(), 9_216);
        let asked = run(&mut mtu, 9_300, &mut now, 600, &mut frames);
        assert!(asked <= 600 / 15, "{asked}");
    }

    #[test]
    fn nothing_long_is_asked_of_who_answers_nothing_and_nothing_changes() {
        let (mut mtu, mut now, mut frames) = (PathMtu::new(9_216), Nanos::ZERO, 0);
        for tenth in 0..6_000_u64 {
            now = Nanos(tenth * 100_000_000);
            let crossed = Crossed { frames: tenth, lately: true };
            let ask = mtu.turn(now, crossed, now.0.to_be_bytes());
            assert!(ask.is_none_or(|ask| ask.bytes == 0));
        }
        assert_eq!(mtu.limit(), PRESUMED);
        // It is found, falls silent, and comes back: it is as wide as it was.
        run(&mut mtu, 1_372, &mut now, 60, &mut frames);
        for _ in 0..6_000 {
            now = now.plus(Nanos::from_millis(100));
            frames += 1;
            mtu.turn(now, Crossed { frames, lately: true }, now.0.to_be_bytes());
        }
        assert_eq!((mtu.limit(), mtu.is_found()), (1_372, true));
    }

    #[test]
    fn a_link_that_nothing_crosses_is_asked_nothing() {
        let (mut mtu, mut now, mut frames) = (PathMtu::new(9_216), Nanos::ZERO, 0);
        run(&mut mtu, 1_372, &mut now, 60, &mut frames);
        let crossed = Crossed { frames: mtu.frames, lately: false };
        for _ in 0..100_000 {
            now = now.plus(Nanos::from_millis(100));
            assert_eq!(mtu.turn(now, crossed, [9; 8]), None);
        }
    }
}
