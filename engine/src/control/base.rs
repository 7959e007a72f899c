//! The state that links and control messages share: slots, ports, workers, events, the clock, and
//! counters of frames that the slow path holds.

use std::collections::BTreeSet;

use strowger_frame::{Mark, Pool};
use strowger_wire::link_header::SessionIndex;

use super::{
    Balance, ConfigError, DetachError, Event, PortId, SwitchConfig,
    clock::Clock,
    grace_period::Barrier,
    peering::Location,
    ports::Ports,
    slot_allocator::{Allocated, Informed, Retiring},
    slots::Slots,
    tables,
    workers::{Step, Workers},
};
use crate::{
    Now,
    command::{Command, Inventory, PuntKind},
    discard::{Discard, DiscardTally},
    limits::HANDOFF_FRAMES_MAX,
    worker::{HandoffRings, Worker},
};

/// The outputs of the slow path: commands to the workers, and events to the caller of
/// [`Switch::poll`](super::Switch::poll).
pub(super) struct Outputs {
    pub(super) workers: Workers,
    pub(super) events: Vec<Event>,
}

/// The number of frames that the slow path holds, and the outcomes of frames that it held earlier.
#[derive(Debug, Default)]
pub(super) struct HeldFrames {
    ended: DiscardTally,
    held: u64,
}

impl HeldFrames {
    /// Counts frames that were taken from a queue or socket.
    pub(super) fn hold(&mut self, frames: u64) {
        self.held += frames;
    }

    /// Counts the outcome of one held frame.
    pub(super) fn end(&mut self, how: Discard) {
        self.ended.count(how);
        self.held = self.held.saturating_sub(1);
    }

    /// Counts the outcome of a frame that was not counted as held.
    pub(super) fn count(&self, how: Discard) {
        self.ended.count(how);
    }

    /// Counts all held frames as `abandoned`, because a panic interrupted their processing.
    fn abandon(&mut self) {
        self.ended.count_many(Discard::Abandoned, std::mem::take(&mut self.held));
    }
}

/// The steps to repeat after a recovery.
pub(super) struct Recovery {
    /// Numbers that are not published yet.
    pub(super) allocated: Vec<Allocated>,
    /// Former numbers. The new numbers of their users must be written into return paths.
    pub(super) retiring: Vec<Retiring>,
    /// Attachments that are published and not announced yet.
    pub(super) announced: Vec<Mark>,
    /// Numbers that are withdrawn and not yet in quarantine.
    pub(super) informed: Informed,
}

/// The links and sessions that the workers report after a recovery.
#[derive(Debug, Default)]
struct Inventories {
    /// The number of the inventory request. With it, the slow path distinguishes replies to this
    /// request from replies to older ones.
    number: u64,
    /// The links that were attached when the slow path requested the inventory.
    expected: Vec<Mark>,
    /// The links of each worker that has replied.
    links: Vec<BTreeSet<Mark>>,
    sessions: Vec<SessionIndex>,
}

/// The state that links and control messages share.
pub(super) struct Base {
    pub(super) slots: Slots,
    pub(super) ports: Ports,
    pub(super) out: Outputs,
    pub(super) clock: Clock,
    pub(super) held: HeldFrames,
    inventories: Inventories,
}

impl Base {
    /// Makes one worker for each pool, and the slow path's state for them.
    pub(super) fn new(
        config: SwitchConfig,
        pools: Vec<Pool>,
    ) -> Result<(Self, Vec<Worker>), ConfigError> {
        tables::check(&config)?;
        if pools.is_empty() || pools.len() > 64 {
            return Err(ConfigError::Workers);
        }
        let clock = Clock::default();
        let (handles, slow_paths) = Workers::connect(pools.len(), &clock.skew());
        let handoff_rings = HandoffRings::between(pools.len(), HANDOFF_FRAMES_MAX);
        let mut workers = Vec::new();
        for (number, ((pool, handoff_rings), slow_path)) in
            pools.into_iter().zip(handoff_rings).zip(slow_paths).enumerate()
        {
            let table = Box::new(tables::empty(&config)?);
            workers.push(Worker::new(number as u8, &config, pool, table, handoff_rings, slow_path));
        }
        let base = Self {
            slots: Slots::new(config),
            ports: Ports::default(),
            out: Outputs { workers: handles, events: Vec::new() },
            clock,
            held: HeldFrames::default(),
            inventories: Inventories::default(),
        };
        Ok((base, workers))
    }

    /// Advances the clock to the caller's time. Returns the switch's time.
    pub(super) fn advance(&mut self, caller: Now) -> Now {
        let now = self.clock.advance(caller);
        self.slots.set_now(self.clock.quarantine_now());
        now
    }

    /// Begins to remove a port. Fails if the port has attachments.
    pub(super) fn unplug(&mut self, id: PortId) -> Result<(), DetachError> {
        if let Some(user) = self.slots.attachments().find(|(_, user)| user.port == id) {
            return Err(DetachError::PortInUse(user.1.slot));
        }
        self.ports.unplug(id, &mut self.out.workers)
    }

    /// The sums of all counters, including those of removed ports.
    pub(super) fn balance(&self) -> Balance {
        let mut balance = self.ports.balance();
        balance.add_discards(&self.held.ended);
        self.out.workers.add_to(&mut balance);
        balance
    }

    /// Notes that a punt was taken from its queue. The link that caused the punt may then use one
    /// more place in the queue.
    pub(super) fn note_taken(&mut self, link: Mark, worker: u8, kind: PuntKind) {
        let user = self.slots.user(link);
        if let Some(tally) = user.and_then(|user| user.tallies.get(usize::from(worker))) {
            tally.punts_taken[kind as usize].add(1);
        }
    }

    /// Counts the outcome of a held handshake or beacon: at the port on which it arrived, or with
    /// the other held frames if that port is removed.
    pub(super) fn end_handshake(&mut self, port: PortId, how: Discard) {
        if !self.ports.count_handshake(port, how) {
            self.held.ended.count(how);
        }
        self.held.held = self.held.held.saturating_sub(1);
    }

    /// Changes the location of a link at all workers and in its attachment.
    pub(super) fn readdress(&mut self, link: Mark, to: Location) {
        let (port, at, home) = (to.port.0, to.at, self.ports.home(to.port));
        self.out.workers.command_all(|_| Command::SetAddress { link, port, home, at });
        if let Some(attachment) = self.slots.user_mut(link) {
            (attachment.port, attachment.at) = (to.port, Some(to.at));
        }
    }

    /// Executes a step of slots or ports, after all workers have completed the commands before it.
    pub(super) fn take_step(&mut self, step: Step) {
        let Self { slots, ports, out, .. } = self;
        match step {
            Step::Announce(mark) => slots.announce(mark, out),
            Step::Rewrite(moving) => slots.rewrite(moving, out),
            Step::Retire(moving) => slots.retire(moving, out),
            Step::Remove(informed) => slots.drop_detached_links(informed, out),
            Step::Quarantine(unnamed) => slots.finish_detach(unnamed, out),
            Step::Recovered(unnamed) => {
                slots.unbar();
                slots.finish_detach(unnamed, out);
            }
            Step::Grown(_) => out.events.push(Event::SchemeGrown),
            Step::Forget(id) => {
                if let Ok(passed) = out.workers.pass(id) {
                    let id = passed.into_inner();
                    out.events.extend(ports.forget(id).then_some(Event::PortUnplugged(id)));
                }
            }
            // `Slots::publish_due` publishes numbers together; other owners execute the other
            // steps.
            Step::Publish(_) | Step::Moved(_) | Step::Inventory(_) => {}
        }
    }

    /// Recovers from a panic of the slow path: keeps the state that is certain, and repeats or
    /// reverts the changes that were in progress. `has_peer` returns whether the peer of a sealed
    /// link is known.
    ///
    /// | kept | reset |
    /// |---|---|
    /// | the rings to the workers, with the queued commands | grace periods, which begin with the replies to an inventory request |
    /// | attachments, ports, tallies, shared queues | all tables and return paths of the workers |
    /// | numbers and their users | tokens; quarantines start again (R1) |
    /// | peers, their locations, timestamps, the age of keys | sessions, handshakes, challenges, requests, budgets |
    ///
    /// Commands from before the panic keep their order. The inventory request follows the new
    /// tables, so the replies prove that no old table is in use. The replies also report the links
    /// of each worker. Links without a record in the slow path, and links that only some workers
    /// have, are detached. Withdrawn numbers then go into quarantine.
    pub(super) fn recover(&mut self, has_peer: impl Fn(Mark) -> bool) {
        self.held.abandon();
        let number = self.inventories.number + 1;
        self.inventories = Inventories { number, ..Inventories::default() };
        self.out.workers.reset(number);

        let Recovery { allocated, retiring, announced, informed } =
            self.slots.recover(has_peer, &mut self.out);
        self.inventories.expected = self.slots.attachments().map(|(mark, _)| mark).collect();
        // Grace periods begin with this command, and count it.
        self.out.workers.command_all(|_| Command::Inventory(Box::new(Inventory::new(number))));

        self.out.workers.after_all(informed, Step::Inventory);
        for allocated in allocated {
            self.out.workers.after_all(allocated, Step::Publish);
        }
        for mark in announced {
            self.out.workers.after_all(mark, Step::Announce);
        }
        for retiring in retiring {
            self.out.workers.after_all(retiring, Step::Rewrite);
        }
        self.ports.command_again(&mut self.out.workers);
    }

    /// Handles a worker's reply to an inventory request.
    pub(super) fn take_inventory(&mut self, inventory: Inventory) {
        if inventory.number == self.inventories.number {
            self.inventories.links.push(inventory.links.into_iter().collect());
            self.inventories.sessions.extend(inventory.sessions);
        }
    }

    /// Ends the recovery: every worker has the new tables and has replied to the inventory request.
    /// Returns the sessions that workers have.
    pub(super) fn end_recovery(&mut self, informed: Barrier<Informed>) -> Vec<SessionIndex> {
        let Inventories { number, expected, links, sessions } =
            std::mem::take(&mut self.inventories);
        self.inventories.number = number;
        self.slots.end_recovery(informed, (expected, links), &mut self.out);
        sessions
    }
}
