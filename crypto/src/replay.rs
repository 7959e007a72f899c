//! Replay window, and the reconstruction of 64-bit counters from the 32 bits on the wire.
//!
//! Each window has one writer: the worker that opens the lane. It calls [`Window::rebuild`] before
//! it decrypts a packet and [`Window::accept`] after the tag was verified. So a forged packet never
//! moves the window.

use crate::limits::{REPLAY_WINDOW_PACKETS, REPLAY_WORDS};

/// Why a counter is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stale {
    /// The counter was seen before.
    Replayed,
    /// The counter is older than the window.
    TooOld,
}

/// A reconstructed counter that the window has not seen. Only [`Window::rebuild`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh(u64);

impl Fresh {
    /// The 64-bit counter, for the nonce.
    #[inline]
    pub const fn counter(self) -> u64 {
        self.0
    }
}

/// A bitmap over the last [`REPLAY_WINDOW_PACKETS`] counters.
#[derive(Debug)]
pub struct Window {
    /// One more than the newest counter accepted; 0 before the first.
    edge: u64,
    seen: [u64; REPLAY_WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Window::new()
    }
}

impl Window {
    /// Makes an empty window, which expects counter 0 first.
    pub const fn new() -> Window {
        Window { edge: 0, seen: [0; REPLAY_WORDS] }
    }

    /// The window of a receiver that has accepted the counter `edge - 1` and these older ones.
    #[cfg(feature = "vectors")]
    pub(crate) fn at(edge: u64, older: &[u64]) -> Window {
        let mut window = Window { edge, ..Window::new() };
        for &counter in older.iter().chain(edge.checked_sub(1).as_ref()) {
            if counter < edge && edge - counter <= REPLAY_WINDOW_PACKETS {
                window.seen[word(counter)] |= bit(counter);
            }
        }
        window
    }

    /// A window whose newest counter is `edge - 1`.
    #[cfg(test)]
    pub(crate) const fn with_edge(edge: u64) -> Window {
        Window { edge, seen: [0; REPLAY_WORDS] }
    }

    /// One more than the newest counter accepted.
    #[cfg(any(test, feature = "internals"))]
    #[inline]
    pub const fn edge(&self) -> u64 {
        self.edge
    }

    /// Reconstructs a counter from its low half and checks that it is new (RFC 4303, appendix A2).
    ///
    /// The result is the one counter with this low half in `lowest ..= lowest + 2^32 - 1`, where
    /// `lowest` is the oldest counter in the window. So a sender may lose almost 2^32 packets in a
    /// row.
    #[inline]
    pub fn rebuild(&self, low: u32) -> Result<Fresh, Stale> {
        let lowest = self.edge.saturating_sub(REPLAY_WINDOW_PACKETS);
        let ahead = low.wrapping_sub(lowest as u32);
        let Some(counter) = lowest.checked_add(u64::from(ahead)) else {
            return Err(Stale::TooOld); // 2^64 or more: no sealer reaches it
        };
        if counter < self.edge && self.seen[word(counter)] & bit(counter) != 0 {
            return Err(Stale::Replayed);
        }
        Ok(Fresh(counter))
    }

    /// Marks a counter as seen, after its packet was authenticated.
    ///
    /// Fails only if, since `fresh` was made, the same counter was accepted or the window moved
    /// past it. So each counter is accepted at most once.
    #[inline]
    pub fn accept(&mut self, fresh: Fresh) -> Result<(), Stale> {
        let counter = fresh.0;
        if counter >= self.edge {
            self.advance(counter);
        } else if self.edge - counter > REPLAY_WINDOW_PACKETS {
            return Err(Stale::TooOld);
        } else if self.seen[word(counter)] & bit(counter) != 0 {
            return Err(Stale::Replayed);
        }
        self.seen[word(counter)] |= bit(counter);
        Ok(())
    }

    /// Moves the edge past `counter` and clears the words that enter the window.
    ///
    /// The loop is bounded by the number of words in the bitmap.
    fn advance(&mut self, counter: u64) {
        // The word that holds `edge - 1` is in use; the words after it enter the window. Before the
        // first packet every word is clear.
        let entered = (counter >> 6) - (self.edge.saturating_sub(1) >> 6);
        for step in 0..entered.min(REPLAY_WORDS as u64) {
            self.seen[word(counter.wrapping_sub(step << 6))] = 0;
        }
        self.edge = counter + 1;
    }
}

#[inline]
const fn word(counter: u64) -> usize {
    (counter >> 6) as usize & (REPLAY_WORDS - 1)
}

#[inline]
const fn bit(counter: u64) -> u64 {
    1 << (counter & 63)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use strowger_testkit::wire_md::table;

    use super::*;

    const W: u64 = REPLAY_WINDOW_PACKETS;
    const FAR: u64 = 1 << 32;

    fn offer(window: &mut Window, counter: u64) -> Result<u64, Stale> {
        let fresh = window.rebuild(counter as u32)?;
        window.accept(fresh)?;
        Ok(fresh.counter())
    }

    fn at(edge: u64) -> Window {
        Window::with_edge(edge)
    }

    /// wire.md: W3-36.
    #[test]
    fn counters_are_those_of_the_table() {
        let rows = table("counters");
        assert!(rows.len() > 10);
        for row in rows {
            let [edge, seen, low, counter] = &row[..] else { panic!("{row:?}") };
            let edge: u64 = edge.parse().expect("a number");
            let mut window = at(edge);
            for seen in seen.split_whitespace().filter(|seen| *seen != "-") {
                let seen: u64 = seen.parse().expect("a number");
                window.seen[word(seen)] |= bit(seen);
            }
            let low = u32::from_str_radix(low, 16).expect("hex");
            let got = window.rebuild(low).map(Fresh::counter);
            let wanted = match counter.as_str() {
                "replayed" => Err(Stale::Replayed),
                counter => Ok(counter.parse().expect("a number")),
            };
            assert_eq!(got, wanted, "{row:?}");
        }
    }

    /// wire.md: W3-36.
    #[test]
    fn counters_are_reconstructed_as_in_rfc_4303() {
        // (edge before, accepted before, counter sent, result)
        type Case = (u64, &'static [u64], u64, Result<u64, Stale>);
        let cases: &[Case] = &[
            // The first counter.
            (0, &[], 0, Ok(0)),
            (0, &[], 5, Ok(5)),
            (0, &[0], 0, Err(Stale::Replayed)),
            (0, &[5], 0, Ok(0)),
            (0, &[5, 0], 0, Err(Stale::Replayed)),
            (0, &[], FAR - 1, Ok(FAR - 1)),
            // The oldest counter in the window, and the one before it. The latter is reconstructed
            // as a counter 2^32 ahead, so its tag fails.
            (0, &[W], 1, Ok(1)),
            (0, &[W], 0, Ok(FAR)),
            (0, &[W - 1], 0, Ok(0)),
            // RFC 4303 A2, case A: the window does not span a wrap of the low half.
            (FAR + 10_000, &[], FAR + 10_000, Ok(FAR + 10_000)),
            (FAR + 10_000, &[], FAR + 10_000 - W, Ok(FAR + 10_000 - W)),
            (FAR + 10_000, &[], 2 * FAR + 7, Ok(2 * FAR + 7)),
            // Case B: the window spans a wrap. Low halves near 2^32 belong to the counters before
            // the wrap.
            (FAR + 10, &[], FAR - 1, Ok(FAR - 1)),
            (FAR + 10, &[], FAR + 10 - W, Ok(FAR + 10 - W)),
            (FAR + 10, &[FAR - 1], FAR - 1, Err(Stale::Replayed)),
            (FAR + 10, &[], 2 * FAR + 10 - W - 1, Ok(2 * FAR + 10 - W - 1)),
            // The wrap itself.
            (FAR, &[], FAR, Ok(FAR)),
            (FAR, &[], FAR - 1, Ok(FAR - 1)),
            // A jump by more than the window: only counters in the new window are kept.
            (0, &[0, 1, 2, 3 * W], 3 * W, Err(Stale::Replayed)),
            (0, &[0, 1, 2, 3 * W], 3 * W - 1, Ok(3 * W - 1)),
            (0, &[3 * W, 2 * W + 1], 2 * W + 1, Err(Stale::Replayed)),
            // The end of the counter space.
            (u64::MAX, &[], u64::MAX - 1, Ok(u64::MAX - 1)),
            (u64::MAX - 1, &[], 0, Err(Stale::TooOld)),
        ];
        for (number, (edge, before, counter, expected)) in cases.iter().enumerate() {
            let mut window = at(*edge);
            for counter in *before {
                assert_eq!(offer(&mut window, *counter), Ok(*counter), "case {number}, before");
            }
            assert_eq!(offer(&mut window, *counter), *expected, "case {number}");
        }
    }

    /// wire.md: W3-37.
    #[test]
    fn a_forged_packet_does_not_move_the_window() {
        let mut window = at(1000);
        let before = window.edge();
        let fresh = window.rebuild(4_000_000_000).expect("ahead");
        assert_eq!(window.edge(), before);
        assert_eq!(fresh.counter(), 4_000_000_000);
        assert_eq!(offer(&mut window, 1000), Ok(1000));
    }

    /// wire.md: W3-8.
    #[test]
    fn a_fresh_counter_is_accepted_once() {
        let mut window = Window::new();
        let fresh = window.rebuild(7).expect("new");
        assert_eq!(window.accept(fresh), Ok(()));
        assert_eq!(window.accept(fresh), Err(Stale::Replayed));
        let old = at(1).rebuild(1).expect("new");
        let mut moved = at(3 * W);
        assert_eq!(moved.accept(old), Err(Stale::TooOld));
    }

    /// Compares the window with a set of all accepted counters, over seeded sequences of small
    /// steps, jumps and repeats.
    /// wire.md: W3-8, W3-36.
    #[test]
    fn the_window_agrees_with_a_set_of_all_counters() {
        for seed in 1..=40u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut random = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            let start = match seed % 4 {
                0 => 0,
                1 => (1 << 32) - 3_000,
                2 => (7 << 32) + 100,
                _ => random() >> 4,
            };
            let mut window = at(start);
            let mut model: HashSet<u64> = HashSet::new();
            let mut newest = start;
            for _ in 0..30_000 {
                let counter = match random() % 8 {
                    0..=3 => newest + random() % 4,
                    4 => newest.saturating_sub(random() % 64),
                    5 => newest.saturating_sub(random() % (W + 200)),
                    6 => newest.saturating_sub(W - 3 + random() % 6),
                    _ => newest + random() % (3 * W),
                };
                let behind = counter + W < window.edge();
                let expected = if behind {
                    None // reconstructed 2^32 ahead: the tag would fail, so it is not accepted
                } else {
                    Some(model.insert(counter))
                };
                let got = window.rebuild(counter as u32);
                match expected {
                    None => assert_ne!(got.map(Fresh::counter), Ok(counter), "seed {seed}"),
                    Some(true) => {
                        let fresh = got.expect("new in the model");
                        assert_eq!(fresh.counter(), counter, "seed {seed}");
                        assert_eq!(window.accept(fresh), Ok(()), "seed {seed}");
                        newest = newest.max(counter);
                    }
                    Some(false) => assert_eq!(got, Err(Stale::Replayed), "seed {seed}"),
                }
            }
        }
    }

    /// Tests every distance behind the edge, for edges at each bit of a word.
    /// wire.md: W3-8.
    #[test]
    fn every_place_of_the_window_detects_a_replay() {
        for edge in (5 * W)..(5 * W + 130) {
            let mut window = at(edge);
            for counter in edge - W..edge {
                assert_eq!(offer(&mut window, counter), Ok(counter));
            }
            for counter in edge - W..edge {
                assert_eq!(offer(&mut window, counter), Err(Stale::Replayed));
            }
            assert_eq!(offer(&mut window, edge), Ok(edge));
            for counter in edge + 1 - W..=edge {
                assert_eq!(offer(&mut window, counter), Err(Stale::Replayed));
            }
        }
    }
}
