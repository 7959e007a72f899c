//! Finds the longest packet that a path delivers, by padded challenges (RFC 8899; wire.md, W6-46
//! and 3.6).
//!
//! Lengths are those of connection packets, from the connection header to the tag. The limits of
//! ports, candidates and errors include the switch header, which the caller subtracts.

use strowger_crypto::Nanos;
use strowger_wire::connection::PathToken;

use crate::limits::{
    LENGTH_CONFIRM_AFTER, LENGTH_MIN, LENGTH_RAISE_AFTER, LENGTH_START_WITH_HEADER,
    LENGTH_TRIES_MAX, LENGTH_TRY_AFTER,
};

/// Packet lengths that common underlays carry, with the switch header: tunnels, PPPoE, Ethernet and
/// jumbo frames; over IPv6 and UDP, over IPv4 and UDP, and without IP.
const COMMON: [u16; 13] =
    [1_228, 1_328, 1_348, 1_368, 1_388, 1_420, USUAL, 1_440, 1_448, 1_474, 8_928, 8_948, 8_974];

/// The packet length that nearly all paths carry: an underlay of 1,500 bytes, over IPv6 and UDP.
const USUAL: u16 = 1_428;

/// A challenge of one length that has no response yet.
#[derive(Clone, Copy, Debug)]
struct Probe {
    token: PathToken,
    bytes: u16,
    sent: u8,
    at: Nanos,
}

/// A challenge to send: its token, and the length of the connection packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LengthProbe {
    pub(crate) token: PathToken,
    pub(crate) bytes: u16,
}

/// The search on one path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LengthSearch {
    /// Bytes of the switch header.
    header: u16,
    /// The longest packet that both ends can handle.
    top: u16,
    /// The longest length that is used.
    works: u16,
    /// Whether a challenge of the length `works`, or the handshake, has shown that this length
    /// arrives.
    is_shown: bool,
    /// The shortest length that did not arrive, or that is not tried.
    fails: u16,
    probe: Option<Probe>,
    /// The time at which the length `works` is tried again.
    confirm_at: Nanos,
    /// The time at which lengths that failed are tried again.
    raise_at: Nanos,
}

impl LengthSearch {
    /// A search that has not begun. `top`: the longest connection packet that both ends can handle.
    /// `hint`: the limit that the label's source states.
    pub(crate) fn new(header: u16, top: u16, hint: Option<u16>) -> LengthSearch {
        let top = top.max(LENGTH_MIN);
        let hinted = hint.map_or(top, |hint| hint.clamp(LENGTH_MIN, top));
        let works = hinted.min(LENGTH_START_WITH_HEADER - header);
        LengthSearch {
            header,
            top,
            works,
            is_shown: works == LENGTH_MIN,
            fails: hinted + 1,
            probe: None,
            confirm_at: Nanos::ZERO,
            raise_at: Nanos::ZERO,
        }
    }

    /// The limit for packets that are sent.
    pub(crate) const fn limit(&self) -> u16 {
        self.works
    }

    /// The longest packet that both ends can handle.
    pub(crate) const fn top(&self) -> u16 {
        self.top
    }

    /// Whether the search has ended.
    pub(crate) const fn is_found(&self) -> bool {
        self.works + 1 >= self.fails && self.is_shown
    }

    /// Sets the longest packet on which the two ends have agreed. A change begins the search again.
    pub(crate) fn set_top(&mut self, top: u16) {
        if top.max(LENGTH_MIN) != self.top {
            *self = LengthSearch::new(self.header, top, None);
        }
    }

    /// The challenge that is due, on a validated path on which messages are sent. `token` is new and
    /// random. `is_long`: messages as long as the start of the search were sent.
    pub(crate) fn poll(
        &mut self,
        now: Nanos,
        token: PathToken,
        is_long: bool,
    ) -> Option<LengthProbe> {
        if let Some(probe) = &mut self.probe {
            if now.since(probe.at) < LENGTH_TRY_AFTER {
                return None;
            }
            if probe.sent < LENGTH_TRIES_MAX {
                (probe.sent, probe.at) = (probe.sent + 1, now);
                return Some(LengthProbe { token: probe.token, bytes: probe.bytes });
            }
            let bytes = probe.bytes;
            self.probe = None;
            self.miss(now, bytes);
        }
        if self.is_found() {
            if self.fails <= self.top && self.raise_at <= now {
                self.fails = self.top + 1;
            } else if !is_long || now < self.confirm_at {
                return None;
            }
        }
        let bytes = self.between().unwrap_or(self.works);
        self.probe = Some(Probe { token, bytes, sent: 1, at: now });
        Some(LengthProbe { token, bytes })
    }

    /// Drops the outstanding challenge: the path may have failed, so a missing response says
    /// nothing about the length.
    pub(crate) fn pause(&mut self) {
        self.probe = None;
    }

    /// Handles a response. Returns whether it answers a challenge of this search.
    pub(crate) fn handle_response(&mut self, now: Nanos, token: PathToken) -> bool {
        let was_found = self.is_found();
        let Some(probe) = self.probe.take_if(|probe| probe.token == token) else { return false };
        if probe.bytes >= self.works {
            (self.works, self.is_shown) = (probe.bytes, true);
        }
        self.fails = self.fails.max(self.works + 1);
        self.settle(now, was_found);
        true
    }

    /// Handles a *too big* error, which is not authenticated: it limits the length for a limited
    /// time, and not below the length of a handshake (W6-183).
    pub(crate) fn too_big(&mut self, now: Nanos, bytes_max: u16) {
        let most = bytes_max.max(LENGTH_MIN);
        if most >= self.fails {
            return;
        }
        self.fails = most + 1;
        if most < self.works {
            (self.works, self.is_shown) = (most, most == LENGTH_MIN);
        }
        self.probe = self.probe.filter(|probe| probe.bytes <= most);
        self.raise_at = now.plus(LENGTH_RAISE_AFTER);
    }

    /// The time at which [`poll`](LengthSearch::poll) has something to do, on a path on which
    /// messages are sent.
    pub(crate) fn next_timeout(&self, now: Nanos, is_long: bool) -> Option<Nanos> {
        match self.probe {
            Some(probe) => Some(probe.at.plus(LENGTH_TRY_AFTER)),
            None if !self.is_found() => Some(now),
            None => {
                let raise = (self.fails <= self.top).then_some(self.raise_at);
                let confirm = is_long.then_some(self.confirm_at);
                [raise, confirm].into_iter().flatten().min()
            }
        }
    }

    /// Handles a challenge all of whose copies are unanswered.
    fn miss(&mut self, now: Nanos, bytes: u16) {
        let was_found = self.is_found();
        self.fails = self.fails.min(bytes);
        if bytes <= self.works {
            // The length in use no longer arrives. The handshake's length did arrive.
            (self.works, self.is_shown) = (LENGTH_MIN, true);
            self.fails = self.fails.max(LENGTH_MIN + 1);
        }
        self.settle(now, was_found);
    }

    fn settle(&mut self, now: Nanos, was_found: bool) {
        self.confirm_at = now.plus(LENGTH_CONFIRM_AFTER);
        if self.is_found() && !was_found {
            self.raise_at = now.plus(LENGTH_RAISE_AFTER);
        }
    }

    /// The next length to try: the greatest first, then common ones, then the middle.
    fn between(&self) -> Option<u16> {
        let Self { header, works, fails, top, .. } = *self;
        if works + 1 >= fails {
            return None;
        }
        if fails > top {
            return Some(top);
        }
        let is_between = |bytes: &u16| works < *bytes && *bytes < fails;
        let common = [USUAL, LENGTH_START_WITH_HEADER].into_iter().chain(COMMON);
        let common = common.map(|bytes| bytes - header).find(is_between);
        let is_common = COMMON.contains(&(works + header));
        common.or(is_common.then_some(works + 1)).or(Some(works + (fails - works) / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a search on a path that delivers up to `takes` bytes; returns the number of challenges.
    fn run(search: &mut LengthSearch, takes: u16, now: &mut Nanos, seconds: u64) -> u32 {
        let mut probes = 0;
        for _ in 0..10 * seconds {
            *now = now.plus(Nanos::from_millis(100));
            let mut token = now.0.to_be_bytes();
            while let Some(probe) = search.poll(*now, PathToken(token), true) {
                probes += 1;
                token[0] ^= probes as u8;
                assert!((LENGTH_MIN..=search.top).contains(&probe.bytes));
                if probe.bytes <= takes {
                    assert!(search.handle_response(*now, probe.token));
                    assert!(!search.handle_response(*now, probe.token), "twice");
                }
            }
        }
        probes
    }

    /// The header with a label of 64 bits.
    const HEADER: u16 = 16;

    /// wire.md: W6-46.
    #[test]
    fn every_length_is_found_exactly_with_few_challenges() {
        for top in [896, 1_192, 1_300, 1_412, 1_500, 9_176] {
            for takes in (896..1_600).step_by(5).chain((1_600..9_300).step_by(397)) {
                let (mut search, mut now) = (LengthSearch::new(HEADER, top, None), Nanos::ZERO);
                let probes = run(&mut search, takes, &mut now, 100);
                assert!(search.is_found(), "{takes} of {top}: {search:?}");
                assert_eq!(search.limit(), takes.min(top), "{takes} of {top}");
                assert!(probes <= 75, "{probes} for {takes} of {top}");
            }
        }
    }

    /// wire.md: W6-46.
    #[test]
    fn the_search_starts_at_1208_bytes_with_the_header() {
        for (header, start) in [(16, 1_192), (24, 1_184), (40, 1_168)] {
            assert_eq!(LengthSearch::new(header, 9_000, None).limit(), start);
            assert_eq!(LengthSearch::new(header, 1_000, None).limit(), 1_000);
        }
    }

    #[test]
    fn a_usual_path_needs_one_challenge_and_then_is_only_confirmed() {
        let (mut search, mut now) = (LengthSearch::new(HEADER, 1_412, None), Nanos::ZERO);
        let token = PathToken([1; 8]);
        let probe = search.poll(now, token, false).expect("it begins");
        assert_eq!(probe.bytes, 1_412);
        assert!(search.handle_response(now, probe.token));
        assert!(search.is_found() && search.limit() == 1_412);
        assert_eq!(search.next_timeout(now, false), None);
        now = now.plus(Nanos::from_secs(3_600));
        assert_eq!(search.poll(now, token, false), None);
        let probe = search.poll(now, token, true).expect("it is confirmed while it is used");
        assert_eq!(probe.bytes, 1_412);
    }

    /// wire.md: W3-59.
    #[test]
    fn a_length_is_sent_three_times_in_a_row_with_one_token_once_a_second() {
        let (mut search, mut sent) = (LengthSearch::new(HEADER, 1_412, None), Vec::new());
        for tenth in 0..30_u64 {
            let token = PathToken(tenth.to_be_bytes());
            let probe = search.poll(Nanos::from_millis(100 * tenth), token, true);
            sent.extend(probe.map(|probe| (tenth, probe)));
        }
        let times: Vec<u64> = sent.iter().map(|(tenth, _)| *tenth).collect();
        assert_eq!(times, [0, 10, 20]);
        assert!(sent.iter().all(|(_, probe)| *probe == sent[0].1));
    }

    #[test]
    fn a_hint_saves_the_search_for_what_it_excludes() {
        let mut search = LengthSearch::new(HEADER, 9_000, Some(1_400));
        let probe = search.poll(Nanos::ZERO, PathToken([1; 8]), true).expect("a search");
        assert!(probe.bytes <= 1_400);
        assert_eq!(LengthSearch::new(HEADER, 9_000, Some(0)).limit(), LENGTH_MIN);
        assert_eq!(LengthSearch::new(HEADER, 9_000, Some(u16::MAX)).fails, 9_001);
        assert_eq!(LengthSearch::new(HEADER, 0, None).limit(), LENGTH_MIN);
    }

    /// wire.md: W6-183.
    #[test]
    fn an_error_limits_the_length_for_ten_minutes_and_never_below_a_handshake() {
        let (mut search, mut now) = (LengthSearch::new(HEADER, 1_412, None), Nanos::ZERO);
        run(&mut search, 1_412, &mut now, 5);
        search.too_big(now, 2_000);
        assert_eq!(search.limit(), 1_412, "it says nothing new");
        search.too_big(now, 1_300);
        assert_eq!(search.limit(), 1_300);
        search.too_big(now, 10);
        assert_eq!(search.limit(), LENGTH_MIN);
        run(&mut search, 1_412, &mut now, 590);
        assert_eq!(search.limit(), LENGTH_MIN);
        run(&mut search, 1_412, &mut now, 20);
        assert_eq!(search.limit(), 1_412, "a forged error ends");
    }

    #[test]
    fn a_path_that_takes_less_than_before_is_noticed_while_it_is_used() {
        let (mut search, mut now) = (LengthSearch::new(HEADER, 1_474, None), Nanos::ZERO);
        run(&mut search, 1_474, &mut now, 5);
        assert_eq!(search.limit(), 1_474);
        run(&mut search, 1_388, &mut now, 100);
        assert_eq!((search.limit(), search.is_found()), (1_388, true));
    }

    /// wire.md: W6-181.
    #[test]
    fn another_agreement_begins_the_search_again() {
        let (mut search, mut now) = (LengthSearch::new(HEADER, 1_192, None), Nanos::ZERO);
        run(&mut search, 9_000, &mut now, 5);
        search.set_top(1_412);
        assert!(!search.is_found() && search.limit() == 1_192);
        run(&mut search, 9_000, &mut now, 5);
        assert_eq!(search.limit(), 1_412);
        search.set_top(1_000);
        assert_eq!(search.limit(), 1_000);
    }
}
