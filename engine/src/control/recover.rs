//! The slow path reset in the midst of things, after a panic: what is a plain fact is taken over
//! and looked at again, everything else is made anew, and what was half done is done again or undone.
//! It believes no token, no count and no promise of before.
//!
//! | taken over | made anew |
//! |---|---|
//! | the rings to the workers, with the commands that wait | the ledger: it begins with the answer to a inventory |
//! | attachments, ports, tallies, shared queues | the workers' tables and return paths, all of them |
//! | numbers and whose they are | tokens; quarantines and the time of aliases begin again (R1) |
//! | peers, their addresses, stamps that were used, when keys were made | sessions, handshakes, challenges, questions, budgets |
//!
//! Orders that were given and not carried out are carried out first, in their order: each of them was
//! decided once, and a worker that has some of them and not others is what the inventory is for. It
//! comes behind the new tables, so the workers' answers prove that no table of before is in use, and
//! say which links each of them has. Links that nobody knows, or that not every worker has, go the
//! way that every link goes; only then do numbers that were withdrawn before come to rest.

use std::{collections::BTreeSet, mem};

use strowger_frame::Mark;
use strowger_wire::link_header::SessionIndex;

use super::{
    Event, Step, Switch,
    grace_period::Barrier,
    slot_allocator::{Allocated, Informed, Retiring},
};
use crate::{
    Now,
    command::{Command, Inventory},
    discard::Discard,
};

/// What has to be done again after a recovery.
pub(super) struct Recovery {
    /// Not published yet.
    pub(super) given: Vec<Allocated>,
    /// Whose new numbers are to be written into return paths.
    pub(super) retiring: Vec<Retiring>,
    /// Published, and not announced yet.
    pub(super) announced: Vec<Mark>,
    /// On their way out.
    pub(super) told: Informed,
}

/// What the workers say that they have.
#[derive(Debug, Default)]
pub(super) struct Recovering {
    /// Counts inventories, so that an answer to an older one is not taken for this one's.
    number: u64,
    /// Who was attached when it was asked.
    expected: Vec<Mark>,
    /// Of each worker that has answered.
    links: Vec<BTreeSet<Mark>>,
    sessions: Vec<SessionIndex>,
}

impl Recovering {
    pub(super) fn take(&mut self, inventory: Inventory) {
        if inventory.number == self.number {
            self.links.push(inventory.links.into_iter().collect());
            self.sessions.extend(inventory.sessions);
        }
    }
}

impl Switch {
    /// Begins anew after a method of this switch has panicked; [`poll`](Self::poll) goes on from here.
    /// Workers are not disturbed: what they have, they go on with. What was being changed is done again
    /// or undone, and told by events. Until [`is_settled`](Self::is_settled) fewer marks are free
    /// than otherwise.
    ///
    /// It calls nothing that was handed in from outside (no bell, no source of randomness), so that
    /// what has panicked once does not panic here.
    pub fn recover(&mut self, now: Now) {
        let now = self.clock.turn(now);
        self.slots.set_now(self.clock.rest());
        let in_hand = mem::take(&mut self.in_hand);
        self.discards.count_many(Discard::Abandoned, in_hand);
        self.messages.reset();
        self.inventory = Recovering { number: self.inventory.number + 1, ..Recovering::default() };
        self.out.workers.reset(self.inventory.number);

        let peering = self.peering.as_ref();
        let has_peer = |mark| peering.is_none_or(|peering| peering.has_peer(mark));
        let Recovery { given, retiring, announced, told } =
            self.slots.recover(has_peer, &mut self.out);
        self.inventory.expected = self.slots.attachments().map(|(mark, _)| mark).collect();
        // What is given from here on is in the ledger.
        let number = self.inventory.number;
        self.out.workers.command_all(|_| Command::Inventory(Box::new(Inventory::new(number))));

        self.out.workers.after_all(told, Step::Inventory);
        for given in given {
            self.out.workers.after_all(given, Step::Publish);
        }
        for mark in announced {
            self.out.workers.after_all(mark, Step::Announce);
        }
        for retiring in retiring {
            self.out.workers.after_all(retiring, Step::Rewrite);
        }
        self.ports.command_again(&mut self.out.workers);
        self.recover_peering(now);
        self.out.events.push(Event::SlowPathRestarted);
    }

    /// Every worker has the new tables, and has said what else it has.
    pub(super) fn take_inventory(&mut self, told: Barrier<Informed>) {
        let Recovering { number, expected, links, sessions } = mem::take(&mut self.inventory);
        self.inventory.number = number;
        self.wane_unknown(&sessions, self.clock.now());
        self.slots.end_recovery(told, (expected, links), &mut self.out);
        self.drop_left_peers();
    }
}
