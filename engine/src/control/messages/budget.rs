//! How often one ingress is answered and heard: token buckets for its questions, for errors about its
//! packets, and for the notices and goodbyes that come in by it. What is over budget is not answered, and
//! nothing waits for its turn.

use std::collections::BTreeMap;

use strowger_frame::Mark;

use crate::{
    Now,
    limits::{
        ANSWERS_AT_ONCE, ANSWERS_PER_SECOND, ERRORS_AT_ONCE, ERRORS_PER_SECOND, GOODBYES_AT_ONCE,
        GOODBYES_PER_SECOND, NOTICES_AT_ONCE, NOTICES_PER_SECOND,
    },
};

const SECOND_NS: u64 = 1_000_000_000;

/// Tokens that come so many a second, and of which so many are kept.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Time that is not used up yet: one token is a second's part.
    saved_ns: u64,
    since: Now,
}

impl Bucket {
    fn full(now: Now) -> Self {
        Self { saved_ns: u64::MAX, since: now }
    }

    fn take(&mut self, now: Now, per_second: u32, at_once: u32) -> bool {
        let token_ns = SECOND_NS / u64::from(per_second);
        let gained = now.0.saturating_sub(self.since.0);
        let most = token_ns * u64::from(at_once);
        self.saved_ns = self.saved_ns.saturating_add(gained).min(most);
        self.since = now;
        let has = self.saved_ns >= token_ns;
        if has {
            self.saved_ns -= token_ns;
        }
        has
    }
}

#[derive(Debug)]
struct Buckets {
    /// Whose they are: another generation of the mark begins anew.
    of: Mark,
    answers: Bucket,
    errors: Bucket,
    notices: Bucket,
    goodbyes: Bucket,
}

/// The buckets of every ingress that was ever answered: one for each index of a mark, so never
/// more than there are attachments.
#[derive(Debug, Default)]
pub(super) struct Budgets(BTreeMap<usize, Buckets>);

impl Budgets {
    /// Whether one more question from `ingress` is answered.
    pub(super) fn answer(&mut self, ingress: Mark, now: Now) -> bool {
        self.of(ingress, now).answers.take(now, ANSWERS_PER_SECOND, ANSWERS_AT_ONCE)
    }

    /// Whether one more error is sent about a packet from `ingress`.
    pub(super) fn error(&mut self, ingress: Mark, now: Now) -> bool {
        self.of(ingress, now).errors.take(now, ERRORS_PER_SECOND, ERRORS_AT_ONCE)
    }

    /// Whether one more notice that came in by `ingress` is taken.
    pub(super) fn notice(&mut self, ingress: Mark, now: Now) -> bool {
        self.of(ingress, now).notices.take(now, NOTICES_PER_SECOND, NOTICES_AT_ONCE)
    }

    /// Whether one more goodbye of the neighbour at `ingress` is taken. Apart from notices, which come
    /// from farther off too.
    pub(super) fn goodbye(&mut self, ingress: Mark, now: Now) -> bool {
        self.of(ingress, now).goodbyes.take(now, GOODBYES_PER_SECOND, GOODBYES_AT_ONCE)
    }

    fn of(&mut self, ingress: Mark, now: Now) -> &mut Buckets {
        let [answers, errors, notices, goodbyes] = [Bucket::full(now); 4];
        let full = Buckets { of: ingress, answers, errors, notices, goodbyes };
        let buckets = self.0.entry(ingress.index()).or_insert(full);
        if buckets.of != ingress {
            // Not full: a link that comes and goes must not be answered more than one that stays.
            buckets.of = ingress;
        }
        buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_what_it_holds_and_then_its_rate() {
        let (mut budgets, mark) = (Budgets::default(), Mark(3));
        let now = Now(5);
        let granted = (0..1_000).filter(|_| budgets.answer(mark, now)).count();
        assert_eq!(granted, ANSWERS_AT_ONCE as usize);
        let granted = (1..=1_000)
            .filter(|step| budgets.answer(mark, Now(5 + step * SECOND_NS / 1_000)))
            .count();
        assert_eq!(granted, ANSWERS_PER_SECOND as usize);
    }

    #[test]
    fn one_ingress_spends_nothing_of_another_s() {
        let mut budgets = Budgets::default();
        while budgets.error(Mark(1), Now(1)) {}
        assert!(budgets.error(Mark(2), Now(1)));
        assert!(budgets.answer(Mark(1), Now(1)), "answers have a bucket of their own");
        assert!(!budgets.error(Mark::new(1, 7), Now(1)), "the next user of an index inherits");
    }
}
