//! Budgets for packets that are not authenticated yet.
//!
//! The budget of initiations is divided by ingress slot, and each part by the next director of the
//! return path. Switches near this node wrote these bits, so a distant sender cannot choose them. A
//! keyed hash maps slots and directors to a fixed number of buckets: a sender that varies its
//! return path uses no more memory, and shares a bucket with others only by chance.

use strowger_crypto::Nanos;
use strowger_wire::Slot;

use crate::{
    bucket::{Bucket, BucketRate},
    limits::{INITIATIONS_OWN_THREAD, INITIATIONS_SHARED, UNKNOWN_ANSWERS},
};

/// Number of buckets by ingress slot.
const INGRESSES: usize = 64;

/// Number of buckets by ingress slot and next director.
const DIRECTORS: usize = 256;

/// The part of a packet's origin that switches near this node wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The slot by which the packet arrived.
    pub(crate) ingress: Slot,
    /// The second director of the return label, after that of the ingress slot; `None` if
    /// unreadable.
    pub(crate) next: Option<u32>,
}

/// What the endpoint does with an initiation whose mac1 is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Evaluate the initiation.
    Evaluate,
    /// Answer with a cookie (W6-24).
    DemandCookie,
    /// Discard the initiation (`over_budget`).
    OverBudget,
}

/// The budgets of one endpoint.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Half of the budget, in initiations per second.
    half: u32,
    key: u64,
    known: Bucket,
    unknown: Bucket,
    by_ingress: Box<[Bucket; INGRESSES]>,
    by_director: Box<[Bucket; DIRECTORS]>,
    answers: Box<[Bucket; INGRESSES]>,
}

impl Admission {
    /// Makes full budgets. `key` is random and secret, so that no sender can choose its bucket.
    pub(crate) fn new(has_own_thread: bool, key: u64) -> Admission {
        let all = if has_own_thread { INITIATIONS_OWN_THREAD } else { INITIATIONS_SHARED };
        Admission {
            half: all / 2,
            key,
            known: Bucket::FULL,
            unknown: Bucket::FULL,
            by_ingress: Box::new([Bucket::FULL; INGRESSES]),
            by_director: Box::new([Bucket::FULL; DIRECTORS]),
            answers: Box::new([Bucket::FULL; INGRESSES]),
        }
    }

    /// Decides about an initiation (W6-188, W6-189). `is_known`: a connection recently received a
    /// packet by the same slot and return label. `has_cookie`: the initiation's mac2 is right. The
    /// caller discards messages with a wrong mac1, which use no budget (W6-190).
    pub(crate) fn initiation(
        &mut self,
        now: Nanos,
        from: Origin,
        is_known: bool,
        has_cookie: bool,
    ) -> Verdict {
        if self.demands_cookie(now, is_known) && !has_cookie {
            return Verdict::DemandCookie;
        }
        let may = if is_known { self.take_known(now) } else { self.take_unknown(now, from) };
        if may { Verdict::Evaluate } else { Verdict::OverBudget }
    }

    /// Whether half of the budget of known or unknown peers is used, so that cookies are demanded.
    pub(crate) fn demands_cookie(&self, now: Nanos, is_known: bool) -> bool {
        let bucket = if is_known { &self.known } else { &self.unknown };
        bucket.is_half_empty(now, per_second(self.half))
    }

    /// Whether a packet with an unknown index may be answered with kind 7 (W6-142).
    pub(crate) fn unknown_answer(&mut self, now: Nanos, ingress: Slot) -> bool {
        let (place, _) = self.places(Origin { ingress, next: None });
        self.answers[place].take(now, per_second(UNKNOWN_ANSWERS))
    }

    fn take_known(&mut self, now: Nanos) -> bool {
        self.known.take(now, per_second(self.half))
    }

    fn take_unknown(&mut self, now: Nanos, from: Origin) -> bool {
        let (ingress, director) = self.places(from);
        let (all, by_ingress, by_director) =
            (per_second(self.half), per_second(self.half / 2), per_second(self.half / 4));
        // Take a token from all three buckets, or from none.
        let may = self.unknown.has(now, all)
            && self.by_ingress[ingress].has(now, by_ingress)
            && self.by_director[director].has(now, by_director);
        may && self.unknown.take(now, all)
            && self.by_ingress[ingress].take(now, by_ingress)
            && self.by_director[director].take(now, by_director)
    }

    fn places(&self, from: Origin) -> (usize, usize) {
        let ingress = mix(self.key ^ u64::from(from.ingress.number()));
        let next = from.next.map_or(1 << 32, u64::from);
        let director = mix(ingress ^ next);
        (ingress as usize % INGRESSES, director as usize % DIRECTORS)
    }
}

/// A rate that holds one second's tokens.
const fn per_second(tokens: u32) -> BucketRate {
    BucketRate { per_second: tokens, at_once: tokens }
}

/// The final mixer of SplitMix64 (Steele, Lea, Flood 2014).
const fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use strowger_testkit::Rng;

    use super::*;

    const fn from(ingress: u32, next: u32) -> Origin {
        Origin { ingress: Slot::new(ingress), next: Some(next) }
    }

    /// Sends one initiation each millisecond; returns how many are evaluated.
    fn evaluated(
        admission: &mut Admission,
        milliseconds: core::ops::Range<u64>,
        is_known: bool,
        mut from: impl FnMut(u64) -> Origin,
    ) -> u64 {
        let mut count = 0;
        for at in milliseconds {
            let now = Nanos::from_millis(at);
            let verdict = admission.initiation(now, from(at), is_known, true);
            count += u64::from(verdict == Verdict::Evaluate);
        }
        count
    }

    #[test]
    fn cookies_are_demanded_when_half_of_the_budget_is_used() {
        let mut admission = Admission::new(false, 1);
        let now = Nanos::from_secs(1);
        for slot in 0..50 {
            assert_eq!(admission.initiation(now, from(slot, 0), false, false), Verdict::Evaluate);
        }
        assert_eq!(admission.initiation(now, from(90, 0), false, false), Verdict::DemandCookie);
        assert!(admission.demands_cookie(now, false) && !admission.demands_cookie(now, true));
        assert_eq!(admission.initiation(now, from(90, 0), true, false), Verdict::Evaluate);
        let later = Nanos::from_secs(2);
        assert_eq!(admission.initiation(later, from(90, 0), false, false), Verdict::Evaluate);
    }

    /// wire.md: W6-188.
    #[test]
    fn known_and_unknown_peers_have_half_of_the_budget_each() {
        for (has_own_thread, half) in [(false, 100), (true, 1_000)] {
            let mut admission = Admission::new(has_own_thread, 7);
            // Two initiations a millisecond over 9 s, of which the first second is in the buckets.
            let mut count = [0; 2];
            for at in 0..18_000_u64 {
                let now = Nanos(at * 500_000);
                for is_known in [false, true] {
                    let origin = from(at as u32, at as u32);
                    let verdict = admission.initiation(now, origin, is_known, true);
                    count[usize::from(is_known)] += u64::from(verdict == Verdict::Evaluate);
                }
            }
            for count in count {
                assert!(
                    (half * 99 / 10..=half * 10).contains(&count),
                    "{count} of {half} a second"
                );
            }
        }
    }

    /// wire.md: W6-189.
    #[test]
    fn one_ingress_gets_at_most_half_and_one_director_a_quarter() {
        let mut admission = Admission::new(false, 3);
        let count = evaluated(&mut admission, 0..10_000, false, |at| from(5, at as u32));
        assert!((495..=550).contains(&count), "{count} by one ingress in 10 s");
        let mut admission = Admission::new(false, 3);
        let count = evaluated(&mut admission, 0..10_000, false, |_| from(5, 6));
        assert!((245..=275).contains(&count), "{count} by one director in 10 s");
        let mut admission = Admission::new(false, 3);
        let unread = Origin { ingress: Slot::new(5), next: None };
        let count = evaluated(&mut admission, 0..10_000, false, |_| unread);
        assert!((245..=275).contains(&count), "{count} by labels that cannot be read");
    }

    /// A flood by one slot, with any return labels, does not use the budget of another slot.
    ///
    /// wire.md: W6-189.
    #[test]
    fn a_flood_by_one_slot_leaves_the_other_slots_their_part() {
        let mut rng = Rng::new(5);
        let mut admission = Admission::new(false, rng.next_u64());
        let mut evaluated = 0;
        for at in 0..10_000_u64 {
            let now = Nanos::from_millis(at);
            for _ in 0..5 {
                admission.initiation(now, from(2, rng.next_u64() as u32), false, true);
            }
            if at % 50 == 0 {
                let verdict = admission.initiation(now, from(3, 1), false, true);
                evaluated += u32::from(verdict == Verdict::Evaluate);
            }
        }
        assert_eq!(evaluated, 200, "20 a second");
    }

    /// wire.md: W6-142.
    #[test]
    fn twenty_unknown_indices_a_second_are_answered_for_each_ingress() {
        let mut admission = Admission::new(true, 9);
        let mut answers = [0; 2];
        for at in 0..5_000 {
            for (slot, answers) in (2..).zip(&mut answers) {
                let now = Nanos::from_millis(at);
                *answers += u32::from(admission.unknown_answer(now, Slot::new(slot)));
            }
        }
        assert!(answers.iter().all(|answers| (118..=120).contains(answers)), "{answers:?}");
    }

    #[test]
    fn the_memory_does_not_grow_with_what_attackers_send() {
        let mut rng = Rng::new(6);
        let mut admission = Admission::new(true, 1);
        for _ in 0..100_000 {
            let from = from(rng.next_u64() as u32, rng.next_u64() as u32);
            admission.initiation(Nanos(rng.next_u64()), from, rng.one_in(2), rng.one_in(2));
        }
        // The buckets are arrays; this is all the memory there is.
        assert!(size_of::<Admission>() <= 64);
    }
}
