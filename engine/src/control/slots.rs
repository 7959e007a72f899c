//! Attaches, renumbers and detaches the users of slots. The module sends the workers the commands
//! of each step, and keeps the steps in order. `SlotAllocator` decides which number is allocated.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use strowger_frame::Mark;
use strowger_wire::{Scheme, Slot};

use super::{
    Attach, AttachError, DetachError, Event, GrowError, Kept, RenumberError, RestoreError,
    SlotState, SlotView, Snapshot, SwitchConfig,
    attachments::{Attachment, Attachments},
    base::{Outputs, Recovery},
    grace_period::Barrier,
    ports::Ports,
    slot_allocator::{
        Allocated, Detached, Informed, Published, Recovered, Retiring, SlotAllocator, SlotRequest,
        Standing, Target, Unnamed, Who, Withdrawn,
    },
    tables::{check, read_otherwise, table},
    workers::Step,
};
use crate::{
    Now,
    command::{Command, Growth},
    discard::Discard,
    limits::PUBLISH_POLLS_MAX,
    link::{Behind, Link, LinkSpec},
    slots::{NextHop, ReturnPath},
};

/// The slots of one switch.
pub(super) struct Slots {
    /// The configuration, with the scheme in use now.
    config: SwitchConfig,
    attachments: Attachments,
    allocator: SlotAllocator,
    /// The number of polls for which the publication of pending numbers has been delayed.
    publish_polls: u32,
    /// Numbers that are published when labels to their last users have expired.
    deferred: Vec<Allocated>,
    /// The generation of the last written snapshot, if numbers wait for snapshots.
    written: Option<u64>,
    /// The time of quarantines ([`Clock::quarantine_now`](super::clock::Clock::quarantine_now)).
    now: Now,
    /// The links detached since the last call of [`take_detached`](Self::take_detached).
    detached: Vec<Mark>,
}

impl Slots {
    pub(super) fn new(config: SwitchConfig) -> Self {
        Self {
            config,
            attachments: Attachments::default(),
            allocator: SlotAllocator::new(config.slot_max),
            publish_polls: 0,
            deferred: Vec::new(),
            written: None,
            now: Now(0),
            detached: Vec::new(),
        }
    }

    pub(super) fn config(&self) -> &SwitchConfig {
        &self.config
    }

    /// Sets the time of quarantines.
    pub(super) fn set_now(&mut self, rest: Now) {
        self.now = rest;
    }

    /// The links detached since the last call.
    pub(super) fn take_detached(&mut self) -> Vec<Mark> {
        mem::take(&mut self.detached)
    }

    /// The generation of the last written snapshot, if numbers wait for snapshots.
    pub(super) fn written(&self) -> Option<u64> {
        self.written
    }

    /// All attachments, with their marks.
    pub(super) fn attachments(&self) -> impl Iterator<Item = (Mark, &Attachment)> {
        self.attachments.iter()
    }

    /// The number of a user.
    pub(super) fn slot_of(&self, mark: Mark) -> Option<Slot> {
        Some(self.user(mark)?.slot)
    }

    /// The user of a number; former numbers have none.
    pub(super) fn mark_of(&self, slot: Slot) -> Option<Mark> {
        self.allocator.numbers().user_of(slot)
    }

    /// Attaches a neighbour or an endpoint; returns its slot. Frames flow after
    /// [`Event::SlotAttached`].
    ///
    /// # Errors
    /// [`AttachError`].
    pub(super) fn attach(
        &mut self,
        attach: Attach,
        ports: &Ports,
        out: &mut Outputs,
    ) -> Result<(Slot, Mark), AttachError> {
        if !ports.is_plugged(attach.port) {
            return Err(AttachError::NoPort);
        }
        if let Some(at) = attach.at
            && let Some(slot) = self.attachments.slot_at(attach.port, at)
        {
            return Err(AttachError::AddressTaken(slot));
        }
        let who = (!attach.is_passing).then(|| Who::new(attach.key, &attach.name));
        let mark = self.attachments.vacant()?;
        let (unknown_max, may_wait) = (attach.unknown_max, !attach.is_passing);
        let request = SlotRequest { slot: attach.slot, who: who.as_ref(), unknown_max, may_wait };
        let allocated = self.allocator.allocate(request, mark, self.now)?;
        let slot = allocated.slot();
        let alias_until = Now(self.now.0.saturating_add(self.config.alias_ns));
        if let Some(who) = &who {
            self.allocator.adopt(who, mark, alias_until, self.now);
        }

        let tallies: Vec<_> = (0..out.workers.len()).map(|_| Arc::default()).collect();
        let homes = ports.home(attach.port);
        for (worker, tally) in tallies.iter().enumerate() {
            let spec = LinkSpec {
                mark,
                slot,
                port: attach.port.0,
                home: homes.filter(|&home| usize::from(home) != worker),
                u_turns: self.config.u_turns,
                rights: attach.rights,
                is_sealed: attach.sealed,
                frame_bytes_max: attach.frame_bytes_max,
            };
            let link = Link::new(spec, &self.config.scheme, Arc::clone(tally));
            out.workers.command(worker, Command::Attach(Box::new(link), attach.at));
        }
        let attachment = Attachment {
            slot,
            written: slot,
            port: attach.port,
            at: attach.at,
            behind: attach.behind,
            sealed: attach.sealed,
            name: attach.name,
            who,
            state: SlotState::Coming,
            tallies,
            refused: None,
            announced: false,
        };
        self.attachments.insert(mark, attachment);
        out.workers.after_all(allocated, Step::Publish);
        Ok((slot, mark))
    }

    pub(super) fn user_mut(&mut self, mark: Mark) -> Option<&mut Attachment> {
        self.attachments.get_mut(mark)
    }

    pub(super) fn user(&self, mark: Mark) -> Option<&Attachment> {
        self.attachments.get(mark)
    }

    /// Detaches the user of a slot, and ends its aliases. The numbers go into quarantine before
    /// they are allocated again.
    ///
    /// # Errors
    /// [`DetachError`].
    pub(super) fn detach(&mut self, slot: Slot, out: &mut Outputs) -> Result<(), DetachError> {
        let mark = self.allocator.numbers().user_of(slot).ok_or(DetachError::EmptySlot(slot))?;
        self.detach_users(&[mark], out);
        Ok(())
    }

    /// Detaches the users of all these slots, with one table for each worker. Skips empty slots.
    pub(super) fn detach_all(&mut self, slots: impl IntoIterator<Item = Slot>, out: &mut Outputs) {
        let users: Vec<Mark> =
            slots.into_iter().filter_map(|slot| self.allocator.numbers().user_of(slot)).collect();
        self.detach_users(&users, out);
    }

    fn detach_users(&mut self, users: &[Mark], out: &mut Outputs) {
        let Some(withdrawn) = self.allocator.withdraw_all(users) else { return };
        for &mark in users {
            if let Some(attachment) = self.user_mut(mark) {
                attachment.state = SlotState::Leaving;
            }
            self.detached.push(mark);
        }
        self.remove(withdrawn, out);
    }

    /// Changes the number of a slot's user to `to`, or to the lowest free number. The old number
    /// leads to the user for [`SwitchConfig::alias_ns`] after [`Event::SlotMoved`], and then goes
    /// into quarantine.
    ///
    /// # Errors
    /// [`RenumberError`].
    pub(super) fn renumber(
        &mut self,
        slot: Slot,
        to: Option<Slot>,
        out: &mut Outputs,
    ) -> Result<Slot, RenumberError> {
        let mark = self.allocator.numbers().user_of(slot).ok_or(RenumberError::EmptySlot(slot))?;
        match self.user_mut(mark).map(|user| user.state) {
            Some(SlotState::Attached | SlotState::Draining) => (),
            _ => return Err(RenumberError::EmptySlot(slot)),
        }
        if !self.allocator.numbers().may_move(mark) {
            return Err(RenumberError::Moving(slot));
        }
        // Refuse a number that is not free yet: the caller would not expect the change to happen
        // minutes later.
        let request = SlotRequest { slot: to, ..SlotRequest::default() };
        let allocated =
            self.allocator.allocate(request, mark, self.now).map_err(RenumberError::Number)?;
        let to = allocated.slot();
        out.workers.after_all(allocated, Step::Publish);
        Ok(to)
    }

    /// Announces that no new label should name a slot, and detaches its user `for_ns` nanoseconds
    /// after the last [`poll`](Self::poll). Until then the slot forwards as before.
    ///
    /// # Errors
    /// [`RenumberError::EmptySlot`].
    pub(super) fn drain(
        &mut self,
        slot: Slot,
        for_ns: u64,
        out: &mut Outputs,
    ) -> Result<(), RenumberError> {
        let until = Now(self.now.0.saturating_add(for_ns));
        let mark = self.allocator.numbers().user_of(slot).ok_or(RenumberError::EmptySlot(slot))?;
        if !self.allocator.drain(slot, until) {
            return Err(RenumberError::EmptySlot(slot));
        }
        if let Some(user) = self.user_mut(mark) {
            user.state = SlotState::Draining;
        }
        out.events.push(Event::SlotDraining(slot));
        Ok(())
    }

    /// Changes to a larger scheme while traffic flows. The new scheme must read every existing code
    /// as the present scheme does. Numbers up to `slot_max` are allocated from now on.
    ///
    /// # Errors
    /// [`GrowError`].
    pub(super) fn grow_scheme(
        &mut self,
        scheme: Scheme,
        slot_max: u32,
        out: &mut Outputs,
    ) -> Result<(), GrowError> {
        let grown = SwitchConfig { scheme, slot_max, ..self.config };
        check(&grown).map_err(GrowError::Config)?;
        let old = self.config.scheme;
        if slot_max < self.config.slot_max {
            return Err(GrowError::SlotMax(self.config.slot_max));
        }
        // Check every number that can be written, not only those in use: labels in flight may name
        // any of them.
        for slot in 0..=self.config.slot_max {
            if let Some(form) = read_otherwise(Slot::new(slot), &old, &scheme) {
                return Err(GrowError::CodeChanges { slot: Slot::new(slot), form });
            }
        }
        self.config = grown;
        self.allocator.raise_max(slot_max);
        for worker in 0..out.workers.len() {
            let exits = self.exits();
            let Ok(table) = table(&self.config, &exits) else { continue };
            let return_paths = self.return_paths();
            out.workers.command(worker, Command::Grow(Box::new(Growth { table, return_paths })));
        }
        out.workers.after_all((), Step::Grown);
        Ok(())
    }

    /// The numbers that a user's link writes into return paths: the number that every table has or,
    /// if it does not fit into the director, a former number.
    fn return_path(&self, mark: Mark, user: &Attachment) -> ReturnPath {
        let scheme = &self.config.scheme;
        let former = self.allocator.numbers().former(mark).into_iter();
        former.fold(ReturnPath::new(scheme, user.written), |return_path, former| {
            return_path.or_former(scheme, former)
        })
    }

    pub(super) fn return_paths(&self) -> Vec<(Mark, ReturnPath)> {
        self.attachments().map(|(mark, user)| (mark, self.return_path(mark, user))).collect()
    }

    /// Makes every worker write a user's present numbers into return paths.
    fn write_return_path(&self, mark: Mark, out: &mut Outputs) {
        let Some((_, user)) = self.attachments().find(|(other, _)| *other == mark) else { return };
        let (written, return_path) = (user.written, self.return_path(mark, user));
        out.workers.command_all(|_| Command::Renumber(mark, written, Box::new(return_path)));
    }

    /// Makes every worker remove these numbers from tables and return paths. The next step is taken
    /// when all workers have done so.
    fn remove(&mut self, withdrawn: Withdrawn, out: &mut Outputs) {
        for &mark in withdrawn.staying() {
            self.write_return_path(mark, out);
        }
        self.publish_tables(out);
        let informed = self.allocator.inform(withdrawn);
        out.workers.after_all(informed, Step::Remove);
    }

    fn exits(&mut self) -> BTreeMap<Slot, NextHop> {
        let leads = self.allocator.targets();
        let behind = |mark: Mark| self.attachments.get(mark).map(|user| user.behind);
        let exit = |(slot, target): (Slot, Target)| {
            let exit = match target {
                Target::Empty => NextHop::Drop(Discard::EmptySlot),
                Target::Gone => NextHop::Drop(Discard::SlotGone),
                Target::User(mark) => match behind(mark) {
                    Some(Behind::Neighbour) => NextHop::Neighbour(mark),
                    Some(Behind::Endpoint) => NextHop::Endpoint(mark),
                    None => NextHop::Drop(Discard::SlotGone),
                },
                Target::Alias(to) => {
                    let is_endpoint = behind(to) == Some(Behind::Endpoint);
                    NextHop::Alias { to, slot: slot.number() as u16, is_endpoint }
                }
            };
            (slot, exit)
        };
        leads.into_iter().map(exit).collect()
    }

    pub(super) fn publish_tables(&mut self, out: &mut Outputs) {
        let exits = self.exits();
        for worker in 0..out.workers.len() {
            // `check` has accepted this scheme, so a table for it can be made.
            if let Ok(table) = table(&self.config, &exits) {
                out.workers.command(worker, Command::Slots(Box::new(table)));
            }
        }
    }

    /// Reports a user whose number is in every worker's table.
    pub(super) fn announce(&mut self, mark: Barrier<Mark>, out: &mut Outputs) {
        let Ok(passed) = out.workers.pass(mark) else { return };
        let mark = passed.into_inner();
        let Some(user) = self.user_mut(mark) else { return };
        user.announced = true;
        let slot = user.slot;
        out.events.push(Event::SlotAttached(slot));
        if !self.allocator.numbers().former(mark).is_empty() {
            // Former numbers from before the restart are now in every table too.
            self.write_return_path(mark, out);
        }
    }

    /// Publishes the pending numbers whose commands all workers have completed, with one table for
    /// each worker. Each table contains all numbers, so one table for each number would take
    /// quadratic time. If more numbers follow soon, the publication waits for them, but only for a
    /// limited number of polls. Returns `false` if nothing was published.
    pub(super) fn publish_due(&mut self, out: &mut Outputs) -> bool {
        let (due, more_follow) = out.workers.publishable(self.written);
        let waits = more_follow && due < self.attachments.places() / 4;
        if due == 0 || waits && self.publish_polls < PUBLISH_POLLS_MAX {
            self.publish_polls += u32::from(due > 0);
            return false;
        }
        self.publish_polls = 0;
        let allocated = out.workers.next_publications(due);
        self.publish(allocated, self.now, out);
        true
    }

    fn publish(&mut self, all: Vec<Allocated>, now: Now, out: &mut Outputs) {
        let (mut announced, mut retired, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for allocated in all {
            let (slot, mark) = (allocated.slot(), allocated.user());
            let Some(user) = self.user_mut(mark) else { continue };
            let was = user.slot;
            if user.refused.is_some() {
                // The port at some worker has refused the neighbour: remove the link from the other
                // workers.
                refused.push(mark);
                continue;
            }
            match self.allocator.publish(allocated, now) {
                Published::Never => {}
                Published::Later(allocated) => self.deferred.push(allocated),
                Published::Now if was == slot => {
                    if let Some(user) = self.user_mut(mark)
                        && user.state == SlotState::Coming
                    {
                        user.state = SlotState::Attached;
                    }
                    announced.push(mark);
                }
                Published::Now => {
                    retired.extend(self.allocator.retire(was, slot));
                    if let Some(user) = self.user_mut(mark) {
                        user.slot = slot;
                    }
                }
            }
        }
        self.detach_users(&refused, out);
        if announced.is_empty() && retired.is_empty() {
            return;
        }
        self.publish_tables(out);
        for mark in announced {
            out.workers.after_all(mark, Step::Announce);
        }
        for retiring in retired {
            out.workers.after_all(retiring, Step::Rewrite);
        }
    }

    pub(super) fn rewrite(&mut self, moving: Barrier<Retiring>, out: &mut Outputs) {
        let Ok(passed) = out.workers.pass(moving) else { return };
        let retiring = passed.into_inner();
        let (mark, to) = (retiring.user(), retiring.to());
        if let Some(user) = self.user_mut(mark) {
            user.written = to;
        }
        self.write_return_path(mark, out);
        out.workers.after_all(retiring, Step::Retire);
    }

    pub(super) fn retire(&mut self, moving: Barrier<Retiring>, out: &mut Outputs) {
        let (slot, to) = (moving.what().slot(), moving.what().to());
        let Ok(passed) = out.workers.pass(moving) else { return };
        let until = Now(self.now.0.saturating_add(self.config.alias_ns));
        if self.allocator.retired(passed, until) {
            out.events.push(Event::SlotMoved(slot, to));
        }
    }

    pub(super) fn drop_detached_links(&mut self, informed: Barrier<Informed>, out: &mut Outputs) {
        let Ok(passed) = out.workers.pass(informed) else { return };
        match Unnamed::after(passed).without_user() {
            Ok(detached) => self.quarantine(detached),
            Err(unnamed) => {
                Self::drop_links(&unnamed, out);
                out.workers.after_all(unnamed, Step::Quarantine);
            }
        }
    }

    /// Makes every worker remove the links that are being detached.
    fn drop_links(unnamed: &Unnamed, out: &mut Outputs) {
        for &mark in unnamed.leaving() {
            out.workers.command_all(|_| Command::Detach(mark));
        }
    }

    pub(super) fn finish_detach(&mut self, unnamed: Barrier<Unnamed>, out: &mut Outputs) {
        let leaving = unnamed.what().leaving().to_vec();
        let Ok(passed) = out.workers.pass(unnamed) else { return };
        self.quarantine(Detached::after(passed));
        for mark in leaving {
            let Some(gone) = self.attachments.remove(mark) else { continue };
            out.events.push(match gone.refused {
                Some(why) => Event::AttachRefused(gone.slot, why),
                None => Event::SlotDetached(gone.slot),
            });
        }
    }

    fn quarantine(&mut self, detached: Detached) {
        self.allocator.quarantine(detached, self.now, self.config.quarantine_ns);
    }

    /// The time, on the clock of quarantines, at which [`poll`](Self::poll) has work.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        let deferred = self
            .deferred
            .iter()
            .map(|allocated| self.allocator.numbers().opens_at(allocated.slot()));
        deferred.map(|opens| opens.unwrap_or(self.now)).chain(self.allocator.next_timeout()).min()
    }

    /// Handles expired timers: detaches drained slots, ends aliases, and publishes and frees
    /// numbers.
    pub(super) fn poll(&mut self, out: &mut Outputs) {
        let now = self.now;
        if self.next_timeout().is_none_or(|due| now < due) {
            return;
        }
        // Slots that are already being detached are skipped.
        let drained = self.allocator.numbers().drained(now);
        self.detach_all(drained, out);
        if let Some(withdrawn) = self.allocator.expire(now) {
            out.events.extend(withdrawn.slots().map(Event::AliasEnded));
            self.remove(withdrawn, out);
        }
        let deferred = mem::take(&mut self.deferred);
        self.publish(deferred, now, out);
        let numbers = self.allocator.out_of_quarantine(now);
        if numbers.is_empty() {
            return;
        }
        for number in numbers {
            out.events.push(Event::SlotFree(number.slot()));
            self.allocator.free(number);
        }
        // From this table on, the drop reason is `empty_slot` instead of `slot_gone`.
        self.publish_tables(out);
    }

    /// The present number of the user whose former number this is. `None` if this number no longer
    /// leads to the user.
    pub(super) fn renamed(&self, slot: Slot) -> Option<Slot> {
        self.slot_of(self.allocator.numbers().alias_of(slot)?)
    }

    /// Whether a number is kept for this user over the restart.
    pub(super) fn is_kept_for(&self, who: &Who) -> bool {
        self.allocator.numbers().is_kept_for(who)
    }

    /// The time until an allocated number may lead to its user; `None` if it already may.
    pub(super) fn opens_in(&self, slot: Slot) -> Option<u64> {
        self.allocator.numbers().opens_in(slot, self.now)
    }

    /// The number of allocations so far, including those before restarts.
    pub(super) fn generation(&self) -> u64 {
        self.allocator.generation()
    }

    /// Makes each new number wait until a snapshot that contains it is written.
    pub(super) fn wait_for_writing(&mut self) {
        self.written.get_or_insert(0);
    }

    /// Notes that a snapshot of this generation is written.
    pub(super) fn set_written(&mut self, generation: u64) {
        if let Some(written) = &mut self.written {
            *written = generation.max(*written);
        }
    }
    /// The state that a restart needs. `rest` is the time of quarantines.
    pub(super) fn snapshot(&self, rest: Now, stamps_until: u64) -> Snapshot {
        let who = |mark: Mark| self.user(mark).and_then(|user| user.who.clone());
        let times = [self.config.alias_ns, self.config.quarantine_ns];
        let kept = self.allocator.numbers().to_keep(who, rest, times).into_iter();
        Snapshot {
            scheme: self.config.scheme,
            generation: self.allocator.generation(),
            numbers: kept
                .map(|(slot, who, rests_ns, unknown)| Kept { slot, who, rests_ns, unknown })
                .collect(),
            former: self.allocator.numbers().former_to_keep(who, rest, times[0]),
            stamps_until,
        }
    }

    /// Restores a snapshot, before anything is attached.
    pub(super) fn restore(
        &mut self,
        snapshot: &Snapshot,
        out: &mut Outputs,
    ) -> Result<(), RestoreError> {
        self.check_restore(snapshot)?;
        self.allocator = snapshot.to_allocator(self.config.slot_max, self.now)?;
        self.publish_tables(out);
        Ok(())
    }

    /// Checks that numbers can still be restored, and that their codes are unchanged.
    pub(super) fn check_restore(&self, snapshot: &Snapshot) -> Result<(), RestoreError> {
        if self.allocator.generation() > 0 {
            return Err(RestoreError::Late);
        }
        let slots = snapshot.numbers.iter().map(|kept| kept.slot);
        let is_changed =
            |slot: &Slot| read_otherwise(*slot, &snapshot.scheme, &self.config.scheme).is_some();
        match slots.chain([Slot::SWITCH]).find(is_changed) {
            Some(slot) => Err(RestoreError::Scheme(slot)),
            None => Ok(()),
        }
    }
    /// The name of the user of a number, or of the user that is being detached from it; `None` if
    /// there is neither.
    pub(super) fn name_at(&self, slot: Slot) -> Option<&str> {
        let user = match self.allocator.numbers().standing(slot)? {
            Standing::Coming(mark, _)
            | Standing::Live(mark)
            | Standing::Draining(mark, _)
            | Standing::Alias(mark, _) => self.user(mark)?,
            Standing::Withdrawn => self.attachments().find(|(_, user)| user.slot == slot)?.1,
            Standing::Quarantined(_) | Standing::Kept(_) => return None,
        };
        Some(&user.name)
    }

    /// All slot numbers that are not free, in order.
    pub(super) fn views(&self) -> Vec<SlotView> {
        SlotView::all(&self.attachments, self.allocator.numbers(), self.now)
    }

    /// Checks every number and attachment, after the slow path has lost its tokens in a panic.
    /// `has_peer` returns whether the peer of a sealed link is known. An attachment without its
    /// peer was not complete, and is removed.
    pub(super) fn recover(
        &mut self,
        has_peer: impl Fn(Mark) -> bool,
        out: &mut Outputs,
    ) -> Recovery {
        self.deferred.clear();
        let is_there = |mark: &Mark, user: &Attachment| {
            user.state != SlotState::Leaving && (!user.sealed || has_peer(*mark))
        };
        let there = self.attachments().filter(|(mark, user)| is_there(mark, user));
        let there: BTreeSet<Mark> = there.map(|(mark, _)| mark).collect();
        let quarantine_ns = self.config.quarantine_ns;
        let recovered =
            self.allocator.recover(|mark| there.contains(&mark), self.now, quarantine_ns);
        let numbers = self.allocator.numbers();
        let number_of = |mark| numbers.of_user(mark).map(|slot| (slot, numbers.is_live(slot)));
        let announced = self.attachments.recover(number_of);
        for retiring in &recovered.retiring {
            // A number may be written into return paths only if every worker's table has it.
            if let Some(user) = self.user_mut(retiring.user()) {
                user.written = retiring.slot();
            }
        }
        self.command_tables_again(out);
        let Recovered { allocated, retiring, withdrawn } = recovered;
        Recovery { allocated, retiring, announced, informed: self.allocator.inform(withdrawn) }
    }

    /// Sends the tables and return paths to every worker again. Grace periods begin after these
    /// commands, and do not count them.
    fn command_tables_again(&mut self, out: &mut Outputs) {
        let exits = self.exits();
        for worker in 0..out.workers.len() {
            // `check` has accepted this scheme, so a table for it can be made.
            let Ok(table) = table(&self.config, &exits) else { continue };
            let return_paths = self.return_paths();
            let growth = Box::new(Growth { table, return_paths });
            out.workers.command_before_inventory(worker, Command::Grow(growth));
        }
    }

    /// Ends the recovery: every worker has the new tables, and has reported its links. Links
    /// without a record in the slow path, and attachments that only some workers have, are
    /// detached.
    pub(super) fn end_recovery(
        &mut self,
        informed: Barrier<Informed>,
        (expected, links): (Vec<Mark>, Vec<BTreeSet<Mark>>),
        out: &mut Outputs,
    ) {
        let Ok(passed) = out.workers.pass(informed) else { return };
        let stays = self.attachments().filter(|(_, user)| user.state != SlotState::Leaving);
        let stays: BTreeSet<Mark> = stays.map(|(mark, _)| mark).collect();
        let attached = self.attachments().map(|(mark, _)| mark);
        let known = links.iter().flatten().copied().chain(attached);
        let leaving: BTreeSet<Mark> = known.filter(|mark| !stays.contains(mark)).collect();
        let unnamed = Unnamed::after(passed).and_leaving(leaving);
        Self::drop_links(&unnamed, out);
        out.workers.after_all(unnamed, Step::Recovered);

        let is_everywhere = |mark: &Mark| links.iter().all(|has| has.contains(mark));
        let lost = expected.iter().filter(|mark| stays.contains(mark) && !is_everywhere(mark));
        // The commands for these links were lost, or the port at some worker has refused the
        // neighbour.
        let lost: Vec<Mark> = lost.copied().collect();
        self.detach_users(&lost, out);
    }

    /// Allows all marks again, after every worker has removed the links that the slow path has no
    /// record of.
    pub(super) fn unbar(&mut self) {
        self.attachments.unbar();
    }
}
