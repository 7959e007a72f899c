//! The budgets of each ingress: token buckets for replies to its requests, for errors about its
//! packets, and for the notices and goodbyes that arrive on it. Messages over budget are dropped,
//! not queued.

use std::collections::BTreeMap;

use strowger_frame::Mark;

use crate::{
    Now,
    limits::{
        ANNOUNCES_AT_ONCE, ANNOUNCES_PER_SECOND, ERRORS_AT_ONCE, ERRORS_PER_SECOND, FINDS_AT_ONCE,
        FINDS_PER_SECOND, GOODBYES_AT_ONCE, GOODBYES_PER_SECOND, NOTICES_AT_ONCE,
        NOTICES_PER_SECOND, REPLIES_AT_ONCE, REPLIES_PER_SECOND,
    },
    rate::{Rate, TokenBucket},
};

const REPLIES: Rate = Rate::per_second(REPLIES_PER_SECOND, REPLIES_AT_ONCE);
const FINDS: Rate = Rate::per_second(FINDS_PER_SECOND, FINDS_AT_ONCE);
const ANNOUNCES: Rate = Rate::per_second(ANNOUNCES_PER_SECOND, ANNOUNCES_AT_ONCE);
const ERRORS: Rate = Rate::per_second(ERRORS_PER_SECOND, ERRORS_AT_ONCE);
const NOTICES: Rate = Rate::per_second(NOTICES_PER_SECOND, NOTICES_AT_ONCE);
const GOODBYES: Rate = Rate::per_second(GOODBYES_PER_SECOND, GOODBYES_AT_ONCE);

#[derive(Debug, Default)]
struct Buckets {
    replies: TokenBucket,
    finds: TokenBucket,
    announces: TokenBucket,
    errors: TokenBucket,
    notices: TokenBucket,
    goodbyes: TokenBucket,
}

/// The buckets of each ingress, by mark index. The number of entries is therefore bounded.
#[derive(Debug, Default)]
pub(super) struct Budgets(BTreeMap<usize, Buckets>);

impl Budgets {
    /// Takes a token for a reply to a request from `ingress`. Returns `false` if none is left.
    pub(super) fn reply(&mut self, ingress: Mark, now: Now) -> bool {
        self.of(ingress).replies.take(REPLIES, now)
    }

    /// Takes a token for the answer to a find message from `ingress`, in addition to that for a
    /// reply. Returns `false` if none is left.
    pub(super) fn find(&mut self, ingress: Mark, now: Now) -> bool {
        self.of(ingress).finds.take(FINDS, now)
    }

    /// Takes a token for an announcement from `ingress`, in addition to that for a reply. Returns
    /// `false` if none is left.
    pub(super) fn announce(&mut self, ingress: Mark, now: Now) -> bool {
        self.of(ingress).announces.take(ANNOUNCES, now)
    }

    /// Takes a token for an error about a packet from `ingress`. Returns `false` if none is left.
    pub(super) fn error(&mut self, ingress: Mark, now: Now) -> bool {
        self.of(ingress).errors.take(ERRORS, now)
    }

    /// Takes a token for a notice that arrived on `ingress`. Returns `false` if none is left.
    pub(super) fn notice(&mut self, ingress: Mark, now: Now) -> bool {
        self.of(ingress).notices.take(NOTICES, now)
    }

    /// Takes a token for a goodbye from the neighbour on `ingress`. Returns `false` if none is
    /// left. Goodbyes have a separate budget, because notices may also come from distant switches.
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
        let granted = (0..1_000).filter(|_| budgets.reply(mark, now)).count();
        assert_eq!(granted, REPLIES_AT_ONCE as usize);
        let granted =
            (1..=1_000).filter(|step| budgets.reply(mark, Now(5 + step * 1_000_000))).count();
        assert_eq!(granted, REPLIES_PER_SECOND as usize);
    }

    #[test]
    fn one_ingress_spends_nothing_of_another_s() {
        let mut budgets = Budgets::default();
        while budgets.error(Mark(1), Now(1)) {}
        assert!(budgets.error(Mark(2), Now(1)));
        assert!(budgets.reply(Mark(1), Now(1)), "replies have a separate bucket");
        assert!(
            !budgets.error(Mark::new(1, 7), Now(1)),
            "the next user of an index inherits the buckets"
        );
    }
}
