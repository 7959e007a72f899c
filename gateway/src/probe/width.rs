//! The width of a path: the longest packet to which the peer answers, by pings of several lengths.
//!
//! Lengths are those of packets with the switch header.

use std::time::{Duration, Instant};

use strowger_socket::{Events, Node, PathInfo, connection::limits::SHORT_CHALLENGE_BYTES};
use strowger_wire::switch_header::FIXED_BYTES;

use crate::{
    limits::{WIDTH_PAUSE, WIDTH_TRIES, WIDTH_WAIT_MIN},
    ping::{Answer, ping_within},
    target::Target,
};

/// The longest packets that common underlays carry, including the switch header: tunnels, PPPoE,
/// Ethernet and jumbo frames, with UDP over IPv6, with UDP over IPv4, or directly in a frame. The
/// most frequent length is first.
const COMMON: [u16; 12] =
    [1_428, 1_228, 1_328, 1_348, 1_368, 1_388, 1_420, 1_440, 1_448, 1_474, 8_928, 8_948];

/// A search for the longest packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Search {
    /// The longest packet that has arrived.
    pub(super) takes: u16,
    /// The shortest packet that has not arrived, or one more than both ends handle.
    pub(super) fails: u16,
    top: u16,
}

impl Search {
    /// `takes` is a length that is known to arrive, and `top` is the longest packet that both ends
    /// handle.
    pub(super) fn new(takes: u16, top: u16) -> Search {
        Search { takes, fails: top.max(takes) + 1, top }
    }

    /// The next length to try; `None` if the search has ended.
    pub(super) fn next(&self) -> Option<u16> {
        let Search { takes, fails, top } = *self;
        if takes + 1 >= fails {
            return None;
        }
        if fails > top {
            return Some(top);
        }
        let is_between = |bytes: &u16| takes < *bytes && *bytes < fails;
        let common = COMMON.into_iter().find(is_between);
        let next = COMMON.contains(&takes).then_some(takes + 1);
        common.or(next).or(Some(takes + (fails - takes) / 2))
    }

    /// Notes whether a packet of this length has arrived.
    pub(super) fn note(&mut self, bytes: u16, arrived: bool) {
        if arrived {
            self.takes = self.takes.max(bytes);
        } else {
            self.fails = self.fails.min(bytes);
        }
    }

    /// Whether the longest packet that both ends handle has arrived, so that the path is no limit.
    pub(super) fn is_limited_by_ends(&self) -> bool {
        self.takes >= self.top
    }
}

/// Searches along the active path until `deadline`.
pub(super) fn search(
    node: &Node,
    events: &mut Events,
    target: &Target,
    path: &PathInfo,
    round_trip: Duration,
    deadline: Instant,
) -> Search {
    let overhead = FIXED_BYTES + path.label.width_bits() as usize / 8 + SHORT_CHALLENGE_BYTES;
    let wait = WIDTH_WAIT_MIN.max(3 * round_trip);
    let mut search = Search::new(path.mtu, path.mtu_max);
    while let Some(bytes) = search.next() {
        let padding = usize::from(bytes).saturating_sub(overhead);
        let mut tries = 0;
        let arrived = loop {
            if Instant::now() >= deadline {
                return search;
            }
            match ping_within(node, events, &target.peer, padding, wait) {
                Answer::Pong(_) => break true,
                Answer::Silence => tries += 1,
                // Usually too many pings are unanswered: wait until the connection forgets some.
                Answer::NotSent => std::thread::sleep(WIDTH_PAUSE),
            }
            if tries == WIDTH_TRIES {
                break false;
            }
        };
        search.note(bytes, arrived);
    }
    search
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_packet_is_found_exactly_and_common_lengths_at_once() {
        for top in [1_208, 1_300, 1_428, 1_500, 9_200] {
            for takes in (1_208..1_600).chain([8_928, 9_199, 9_200]) {
                let (mut search, mut lost) = (Search::new(1_208, top), 0);
                while let Some(bytes) = search.next() {
                    assert!((1_208..=top).contains(&bytes));
                    lost += u32::from(bytes > takes);
                    search.note(bytes, bytes <= takes);
                }
                assert_eq!(search.takes, takes.min(top), "of {top}");
                assert_eq!(search.is_limited_by_ends(), takes >= top);
                if COMMON.contains(&takes) && top <= 1_500 {
                    assert!(lost <= 4, "{lost} for {takes} of {top}");
                }
            }
        }
    }
}
