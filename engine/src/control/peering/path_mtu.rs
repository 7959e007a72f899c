//! Finds the longest frame that the path of a link accepts, by path challenges of different lengths
//! (RFC 8899, datagram packetization layer path MTU discovery), and confirms it regularly. Only
//! responses to this node's challenges count, so an attacker can lower the path MTU only by
//! dropping frames.
//!
//! ```text
//!  keys, or another address
//!     │
//!     ▼            answered                    no length left between the longest that
//!   reach: a short ─────────► search: longer ─ arrives and the shortest that does not ─► found
//!     challenge                                                            │ │ ▲
//!     ▲                          ▲  10 minutes, link in use (raise) ───────┘ │ │
//!     └─ the found length is not answered; the short one is: search ◄────────┘ └─ answered
//! ```

use strowger_crypto::{Nanos, limits};
use strowger_wire::limits::LINK_MTU_MIN;

/// The length in bytes of the token in a path challenge.
pub(super) const TOKEN_BYTES: usize = 8;

/// The length in bytes of the IPv6 and UDP headers in front of a frame.
const IPV6_UDP_BYTES: u16 = 40 + 8;

/// The limit before the first result. Nearly all paths accept packets of 1,500 bytes. The limit
/// allows every frame that fits into such a packet over IPv6 and UDP (decision 14).
const PRESUMED: u16 = 1_500 - IPV6_UDP_BYTES;

/// The limit if `PRESUMED` is too long: IPv6 requires that every path accepts 1,280 bytes (RFC
/// 8200, section 5). It serves as the BASE_PLPMTU of RFC 8899.
const BASE: u16 = 1_280 - IPV6_UDP_BYTES;

/// Common path MTUs, so that most searches end soon: those of tunnels, PPPoE, Ethernet and jumbo
/// frames. They are the lengths of frames over IPv6 and UDP, over IPv4 and UDP, and directly over
/// Ethernet after a length field of two bytes.
const COMMON: [u16; 14] = [
    BASE, 1_252, 1_352, 1_372, 1_392, 1_412, 1_444, 1_464, PRESUMED, 1_472, 1_498, 8_952, 8_972,
    8_998,
];

/// The number of times that a challenge is sent before it counts as unanswered (MAX_PROBES).
const PROBES_MAX: u8 = 3;

/// The time for which a response is awaited (PROBE_TIMER, at least one second).
const PROBE_TIMER: Nanos = Nanos::from_secs(1);

/// The interval at which the limit of a link in use is confirmed (CONFIRMATION_TIMER).
const CONFIRM_AFTER: Nanos = Nanos::from_secs(15);

/// The interval at which a longer frame is tried (PMTU_RAISE_TIMER).
const RAISE_AFTER: Nanos = Nanos::from_secs(600);

/// The age of keys above which no challenge begins, because the keys expire soon.
pub(super) const PROBES_UNTIL: Nanos =
    Nanos(limits::SEAL_REFUSED_AFTER.0 - limits::REKEY_SPACING.0);

const _: () = assert!(LINK_MTU_MIN < BASE && BASE < PRESUMED);

/// The state of the discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// The response to a short challenge is awaited. No long challenge is sent to an address from
    /// which no short one was answered (R8). A missing response to a long challenge also proves
    /// nothing unless a short one is answered. `fails` is a length that was found earlier and is no
    /// longer answered.
    Reach { fails: Option<u16> },
    /// A search for a length between the longest that arrives and the shortest that does not.
    Search { works: u16, fails: u16, presumes: bool },
    /// The limit is found.
    Found,
}

/// A challenge that has no response yet.
#[derive(Debug)]
struct Probe {
    token: [u8; TOKEN_BYTES],
    bytes: u16,
    sent: u8,
    since: Nanos,
}

/// A challenge to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SendProbe {
    pub(super) token: [u8; TOKEN_BYTES],
    /// The frame's length; 0 for the shortest challenge.
    pub(super) bytes: u16,
}

/// The path MTU discovery of one link.
#[derive(Debug)]
pub(super) struct PathMtu {
    agreed: u16,
    limit: u16,
    is_found: bool,
    goal: Goal,
    probe: Option<Probe>,
    /// No challenge is sent before this time.
    idle_until: Nanos,
    raise_at: Nanos,
    /// The number of data frames that the link had carried at the last challenge.
    frames: u64,
    /// The limit that was last reported; `None` before the first report.
    reported: Option<u16>,
}

/// How much data a link has carried, and whether it did so recently: the input for path MTU
/// discovery.
#[derive(Clone, Copy)]
pub(super) struct Crossed {
    /// The number of data frames so far.
    pub(super) frames: u64,
    /// Whether the last of them was carried recently.
    pub(super) lately: bool,
}

impl PathMtu {
    /// Starts the discovery on an unknown path. `agreed` is the length that both ends have agreed
    /// on.
    pub(super) fn new(agreed: u16) -> Self {
        Self {
            agreed,
            limit: agreed.min(PRESUMED),
            is_found: false,
            goal: Goal::Reach { fails: None },
            probe: None,
            idle_until: Nanos::ZERO,
            raise_at: Nanos::ZERO,
            frames: 0,
            reported: None,
        }
    }

    /// The longest frame that both ends accept.
    pub(super) fn agreed(&self) -> u16 {
        self.agreed
    }

    /// The longest frame that may be sent now.
    pub(super) fn limit(&self) -> u16 {
        self.limit
    }

    /// Whether the limit is the result of a finished search.
    pub(super) fn is_found(&self) -> bool {
        self.is_found
    }

    /// The limit that a search has found, if it differs from the limit that was last reported.
    pub(super) fn news(&mut self) -> Option<u16> {
        let limit = self.limit;
        let is_new = self.is_found && self.reported.replace(limit) != Some(limit);
        is_new.then_some(limit)
    }

    /// Discards the outstanding challenge, because a missing response to it would prove nothing.
    pub(super) fn pause(&mut self) {
        self.probe = None;
    }

    /// Returns the challenge that is due, if any. `token` must be new and random.
    pub(super) fn poll(
        &mut self,
        now: Nanos,
        crossed: Crossed,
        token: [u8; TOKEN_BYTES],
    ) -> Option<SendProbe> {
        if let Some(probe) = &mut self.probe {
            if now.since(probe.since) < PROBE_TIMER {
                return None;
            }
            if probe.sent < PROBES_MAX {
                probe.sent += 1;
                probe.since = now;
                return Some(SendProbe { token: probe.token, bytes: probe.bytes });
            }
            let bytes = probe.bytes;
            self.probe = None;
            self.miss(bytes, now);
        }
        let bytes = self.next(now, crossed)?;
        self.frames = crossed.frames;
        self.probe = Some(Probe { token, bytes, sent: 1, since: now });
        Some(SendProbe { token, bytes })
    }

    fn next(&mut self, now: Nanos, crossed: Crossed) -> Option<u16> {
        match self.goal {
            _ if now < self.idle_until => None,
            Goal::Reach { .. } => Some(0),
            Goal::Search { works, fails, .. } => between(works, fails, self.agreed),
            Goal::Found if crossed.lately && now >= self.raise_at && self.limit < self.agreed => {
                let fails = self.agreed + 1;
                self.goal = Goal::Search { works: self.limit, fails, presumes: false };
                between(self.limit, fails, self.agreed)
            }
            Goal::Found => (crossed.frames != self.frames).then_some(self.limit),
        }
    }

    /// The time at which [`poll`](Self::poll) has work, provided that the link carries no frame
    /// until then.
    pub(super) fn next_timeout(&self, crossed: Crossed) -> Option<Nanos> {
        if let Some(probe) = &self.probe {
            return Some(probe.since.plus(PROBE_TIMER));
        }
        let has_crossed = crossed.frames != self.frames;
        let raises = crossed.lately && self.limit < self.agreed;
        match self.goal {
            Goal::Reach { .. } | Goal::Search { .. } => Some(self.idle_until),
            Goal::Found if has_crossed => Some(self.idle_until),
            Goal::Found => raises.then(|| self.raise_at.max(self.idle_until)),
        }
    }

    /// Handles a response from the link's location. Returns whether it answers a challenge of this
    /// discovery.
    pub(super) fn handle_response(&mut self, token: &[u8], now: Nanos) -> bool {
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
            Goal::Found => self.idle_until = now.plus(CONFIRM_AFTER),
        }
        self.settle(now);
        true
    }

    /// Handles a challenge of which all copies are unanswered.
    fn miss(&mut self, bytes: u16, now: Nanos) {
        match &mut self.goal {
            // The peer does not respond at all. Liveness detection handles this case.
            Goal::Reach { fails } => {
                self.idle_until = now.plus(CONFIRM_AFTER);
                if fails.is_some() {
                    self.goal = Goal::Found;
                }
            }
            Goal::Search { fails, .. } => *fails = bytes,
            Goal::Found => self.goal = Goal::Reach { fails: Some(bytes) },
        }
        self.settle(now);
    }

    fn settle(&mut self, now: Nanos) {
        let Goal::Search { works, fails, presumes } = self.goal else { return };
        let presumed = [PRESUMED, BASE].into_iter().find(|&bytes| bytes < fails);
        self.limit = works.max(presumed.filter(|_| presumes).unwrap_or(0));
        if between(works, fails, self.agreed).is_none() {
            (self.goal, self.is_found) = (Goal::Found, true);
            self.idle_until = now.plus(CONFIRM_AFTER);
            self.raise_at = now.plus(RAISE_AFTER);
        }
    }
}

/// The next length to try between one that arrives and one that does not, if any is left. The
/// agreed length is tried first, then common lengths. One byte above a common length that arrives
/// follows, then the middle of the range.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the discovery against a path with this limit for a number of seconds; returns the
    /// number of challenges.
    fn run(mtu: &mut PathMtu, takes: u16, now: &mut Nanos, seconds: u64, frames: &mut u64) -> u32 {
        let mut probes = 0;
        for tenth in 0..10 * seconds {
            *now = now.plus(Nanos::from_millis(100));
            *frames += u64::from(tenth % 10 == 0);
            let crossed = Crossed { frames: *frames, lately: true };
            let mut token = now.0.to_be_bytes();
            while let Some(ask) = mtu.poll(*now, crossed, token) {
                probes += 1;
                token[0] += 1;
                if ask.bytes <= takes {
                    assert!(mtu.handle_response(&ask.token, *now));
                    assert!(!mtu.handle_response(&ask.token, *now), "twice");
                }
            }
        }
        probes
    }

    /// wire.md: W3-22.
    #[test]
    fn every_limit_is_found_exactly_with_few_challenges() {
        for agreed in [576, 577, 1_232, 1_372, 1_452, 1_500, 9_216] {
            for takes in (576..1_600).chain((1_600..9_300).step_by(97)) {
                let (mut mtu, mut now, mut frames) = (PathMtu::new(agreed), Nanos::ZERO, 0);
                let probes = run(&mut mtu, takes, &mut now, 60, &mut frames);
                assert!(mtu.is_found(), "{takes} of {agreed}: {mtu:?}");
                assert_eq!(mtu.limit(), takes.min(agreed), "of {agreed}");
                assert!(probes <= 56, "{probes} for {takes} of {agreed}");
            }
        }
    }

    #[test]
    fn a_common_limit_is_found_within_ten_seconds() {
        for takes in [1_452, 1_472, 1_498, 8_952, 8_972, 8_998, 9_216] {
            let (mut mtu, mut now, mut frames) = (PathMtu::new(9_216), Nanos::ZERO, 0);
            run(&mut mtu, takes, &mut now, 10, &mut frames);
            assert!(mtu.is_found() && mtu.limit() == takes, "{takes}: {mtu:?}");
        }
    }

    #[test]
    fn a_lower_limit_is_noticed_and_a_higher_one_is_found_later() {
        let (mut mtu, mut now, mut frames) = (PathMtu::new(9_216), Nanos::ZERO, 0);
        run(&mut mtu, 1_472, &mut now, 60, &mut frames);
        run(&mut mtu, 1_300, &mut now, 60, &mut frames);
        assert_eq!((mtu.limit(), mtu.is_found()), (1_300, true));
        run(&mut mtu, 9_300, &mut now, 500, &mut frames);
        assert_eq!(mtu.limit(), 1_300, "not yet");
        run(&mut mtu, 9_300, &mut now, 200, &mut frames);
        assert_eq!(mtu.limit(), 9_216);
        let probes = run(&mut mtu, 9_300, &mut now, 600, &mut frames);
        assert!(probes <= 600 / 15, "{probes}");
    }

    /// wire.md: W3-59.
    #[test]
    fn a_silent_peer_gets_no_long_challenge_and_keeps_its_limit() {
        let (mut mtu, mut now, mut frames) = (PathMtu::new(9_216), Nanos::ZERO, 0);
        for tenth in 0..6_000_u64 {
            now = Nanos(tenth * 100_000_000);
            let crossed = Crossed { frames: tenth, lately: true };
            let ask = mtu.poll(now, crossed, now.0.to_be_bytes());
            assert!(ask.is_none_or(|ask| ask.bytes == 0));
        }
        assert_eq!(mtu.limit(), PRESUMED);
        // The limit is found. After that the path drops all frames.
        run(&mut mtu, 1_372, &mut now, 60, &mut frames);
        for _ in 0..6_000 {
            now = now.plus(Nanos::from_millis(100));
            frames += 1;
            mtu.poll(now, Crossed { frames, lately: true }, now.0.to_be_bytes());
        }
        assert_eq!((mtu.limit(), mtu.is_found()), (1_372, true));
    }

    #[test]
    fn an_idle_link_gets_no_challenge() {
        let (mut mtu, mut now, mut frames) = (PathMtu::new(9_216), Nanos::ZERO, 0);
        run(&mut mtu, 1_372, &mut now, 60, &mut frames);
        let crossed = Crossed { frames: mtu.frames, lately: false };
        for _ in 0..100_000 {
            now = now.plus(Nanos::from_millis(100));
            assert_eq!(mtu.poll(now, crossed, [9; 8]), None);
        }
    }
}
