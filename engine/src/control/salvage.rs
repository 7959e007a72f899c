//! The slow path begun anew in the midst of things, after a panic: what is a plain fact is taken over
//! and looked at again, everything else is made anew, and what was half done is done again or undone.
//! It believes no token, no count and no promise of before.
//!
//! | taken over | made anew |
//! |---|---|
//! | the rings to the workers, with the orders that wait | the ledger: it begins with the answer to a muster |
//! | attachments, ports, tallies, shared queues | the workers' tables and ways back, all of them |
//! | numbers and whose they are | tokens; quarantines and the time of aliases begin again (R1) |
//! | peers, their addresses, stamps that were used, when keys were made | sessions, handshakes, challenges, questions, budgets |
//!
//! Orders that were given and not carried out are carried out first, in their order: each of them was
//! decided once, and a worker that has some of them and not others is what the muster is for. It
//! comes behind the new tables, so the workers' answers prove that no table of before is in use, and
//! say which links each of them has. Links that nobody knows, or that not every worker has, go the
//! way that every link goes; only then do numbers that were withdrawn before come to rest.

use std::{collections::BTreeSet, mem};

use strowger_frame::Mark;
use strowger_wire::link_header::SessionIndex;

use super::{
    Event, SlotState, Step, Switch,
    ledger::Awaited,
    numbers::{Informed, Unnamed, salvage::Salvaged},
    table,
};
use crate::{
    Now,
    discard::Discard,
    orders::{Growth, Muster, Order},
};

/// What the workers say that they have.
#[derive(Debug, Default)]
pub(super) struct Mustering {
    /// Counts musters, so that an answer to an older one is not taken for this one's.
    number: u64,
    /// Who was attached when it was asked.
    expected: Vec<Mark>,
    /// Of each worker that has answered.
    links: Vec<BTreeSet<Mark>>,
    sessions: Vec<SessionIndex>,
}

impl Mustering {
    pub(super) fn take(&mut self, muster: Muster) {
        if muster.number == self.number {
            self.links.push(muster.links.into_iter().collect());
            self.sessions.extend(muster.sessions);
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
    pub fn salvage(&mut self, now: Now) {
        let now = self.clock.turn(now);
        self.now = self.clock.rest();
        let in_hand = mem::take(&mut self.in_hand);
        self.discards.count_many(Discard::Abandoned, in_hand);
        self.deferred.clear();
        self.messages.begin_anew();
        self.muster = Mustering { number: self.muster.number + 1, ..Mustering::default() };
        self.workers.reset(self.muster.number);

        let Salvaged { given, retiring, withdrawn } = self.salvage_numbers(self.now);
        let announced = self.salvage_attached();
        for retiring in &retiring {
            // A number is written only where every table leads by it.
            if let Some(user) = self.user(retiring.user()) {
                user.written = retiring.slot();
            }
        }
        self.tell_all_anew();
        let told = self.numbers.told(withdrawn);
        self.muster.expected = self.attachments().map(|(mark, _)| mark).collect();
        for worker in 0..self.workers.len() {
            // What is given from here on is in the ledger.
            self.workers.command(worker, Order::Muster(Box::new(Muster::new(self.muster.number))));
        }

        self.workers.after_all(told, Step::Muster);
        for given in given {
            self.workers.after_all(given, Step::Publish);
        }
        for mark in announced {
            self.workers.after_all(mark, Step::Announce);
        }
        for retiring in retiring {
            self.workers.after_all(retiring, Step::Rewrite);
        }
        self.ports.command_again(&mut self.workers);
        self.salvage_peering(now);
        self.events.push(Event::SlowPathRestarted);
    }

    fn salvage_numbers(&mut self, now: Now) -> Salvaged {
        let (attached, peering) = (&self.attached, self.peering.is_some());
        let half_made = |mark: Mark, sealed: bool| peering && sealed && !self.has_peer(mark);
        let is_there = |mark: Mark| {
            let Some((generation, Some(user))) = attached.get(mark.index()) else { return false };
            *generation == mark.generation()
                && user.state != SlotState::Leaving
                && !half_made(mark, user.sealed)
        };
        let there: BTreeSet<Mark> =
            self.attachments().map(|(mark, _)| mark).filter(|&mark| is_there(mark)).collect();
        self.numbers.salvage(|mark| there.contains(&mark), now, self.config.quarantine_ns)
    }

    /// Who is attached by what numbers say; returns those who are to be announced yet.
    fn salvage_attached(&mut self) -> Vec<Mark> {
        let mut unannounced = Vec::new();
        self.barred = self.attached.len();
        for index in 0..self.attached.len() {
            let (generation, place) = &mut self.attached[index];
            let Some(user) = place else {
                // Somebody may have been on the way to this place.
                *generation = generation.wrapping_add(1);
                continue;
            };
            let mark = Mark::new(index as u16, *generation);
            let Some(slot) = self.numbers.of_user(mark) else {
                user.state = SlotState::Leaving;
                continue;
            };
            (user.slot, user.written) = (slot, slot);
            if self.numbers.is_live(slot) {
                if user.state == SlotState::Coming {
                    user.state = SlotState::Attached;
                }
                if !user.announced {
                    unannounced.push(mark);
                }
            } else {
                user.state = SlotState::Coming;
            }
        }
        unannounced
    }

    /// Gives every worker the tables and ways back as they are to be. Not in the ledger, which begins
    /// behind them.
    fn tell_all_anew(&mut self) {
        let exits = self.exits();
        for worker in 0..self.workers.len() {
            // `check` has made a table of this scheme before.
            let Ok(table) = table(&self.config, &exits) else { continue };
            let return_paths = self.return_paths();
            let growth = Box::new(Growth { table, return_paths });
            self.workers.command_before_muster(worker, Order::Grow(growth));
        }
    }

    /// Every worker has the new tables, and has said what else it has.
    pub(super) fn take_muster(&mut self, told: Awaited<Informed>) {
        let Ok(passed) = self.workers.pass(told) else { return };
        let Mustering { number, expected, links, sessions } = mem::take(&mut self.muster);
        self.muster.number = number;
        self.wane_unknown(&sessions, self.clock.now());

        let stays: BTreeSet<Mark> = self
            .attachments()
            .filter(|(_, user)| user.state != SlotState::Leaving)
            .map(|(mark, _)| mark)
            .collect();
        let leaving: BTreeSet<Mark> = links
            .iter()
            .flatten()
            .copied()
            .chain(self.attachments().map(|(mark, _)| mark))
            .filter(|mark| !stays.contains(mark))
            .collect();
        let unnamed = Unnamed::after(passed).and_leaving(leaving);
        self.drop_links(&unnamed);
        self.workers.after_all(unnamed, Step::Recovered);

        let is_everywhere = |mark: &Mark| links.iter().all(|has| has.contains(mark));
        let mut lost = Vec::new();
        for mark in expected.iter().filter(|&mark| stays.contains(mark) && !is_everywhere(mark)) {
            // Its order was lost, or some worker's port would not have it.
            lost.push(*mark);
        }
        self.detach_users(&lost);
    }
}
