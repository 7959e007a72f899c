//! The budgets of each ingress: token buckets for replies to its requests, for errors about its
//! packets, and for the notices and goodbyes that arrive on it. Messages over budget are dropped,
//! not queued.

use std::collections::BTreeMap;

use strowger_frame::Mark;

use crate::{
    Now,
    limits::{
        ANSWERS_AT_ONCE, ANSWERS_PER_SECOND, ERRORS_AT_ONCE, ERRORS_PER_SECOND, GOODBYES_AT_ONCE,
        GOODBYES_PER_SECOND, NOTICES_AT_ONCE, NOTICES_PER_SECOND,
    },
    rate::{Rate, TokenBucket},
};

const ANSWERS: Rate = Rate::per_second(ANSWERS_PER_SECOND, ANSWERS_AT_ONCE);
const ERRORS: Rate = Rate::per_second(ERRORS_PER_SECOND, ERRORS_AT_ONCE);
const NOTICES: Rate = Rate::per_second(NOTICES_PER_SECOND, NOTICES_AT_ONCE);
const GOODBYES: Rate = Rate::per_second(GOODBYES_PER_SECOND, GOODBYES_AT_ONCE);

#[derive(Debug, Default)]
struct Buckets {
    answers: TokenBucket,
    errors: TokenBucket,
    notices: TokenBucket,
    goodbyes: TokenBucket,
}

/// The buckets of every ingress, by mark index, so there are never more buckets than mark indices.
#[derive(Debug, Default)]
pub(super) struct Budgets(BTreeMap<usize, Buckets>);

impl Budgets {
    /// Whether the budget allows one more reply to a request from `ingress`.
    pub(super) fn answer(&mut self, ingress: Mark, now: Now) -> bool {
        self.of(ingress).answers.take(ANSWERS, now)
    }

    /// Whether the budget allows one more error about a packet from `ingress`.
    pub(super) fn error(&mut self, ingress: Mark, now: Now) -> bool {
        self.of(ingress).errors.take(ERRORS, now)
    }

    /// Whether the budget allows one more notice that arrived on `ingress`.
    pub(super) fn notice(&mut self, ingress: Mark, now: Now) -> bool {
        self.of(ingress).notices.take(NOTICES, now)
    }

    /// Whether the budget allows one more goodbye from the neighbour at `ingress`. This budget is
    /// separate from that of notices, which may also come from distant switches.
    pub(super) fn goodbye(&mut self, ingress: Mark, now: Now) -> bool {
        self.of(ingress).goodbyes.take(GOODBYES, now)
    }

    /// Returns the buckets of an ingress. The next user of a mark's index inherits them, so that a
    /// link that is attached repeatedly gets no more replies than a link that stays attached.
    fn of(&mut self, ingress: Mark) -> &mut Buckets {
        self.0.entry(ingress.index()).or_default()
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
        let granted =
            (1..=1_000).filter(|step| budgets.answer(mark, Now(5 + step * 1_000_000))).count();
        assert_eq!(granted, ANSWERS_PER_SECOND as usize);
    }

    #[test]
    fn one_ingress_spends_nothing_of_another_s() {
        let mut budgets = Budgets::default();
        while budgets.error(Mark(1), Now(1)) {}
        assert!(budgets.error(Mark(2), Now(1)));
        assert!(budgets.answer(Mark(1), Now(1)), "answers have a separate bucket");
        assert!(
            !budgets.error(Mark::new(1, 7), Now(1)),
            "the next user of an index inherits the buckets"
        );
    }
}
