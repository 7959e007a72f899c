//! Slots that come, move and go: what is ordered of the workers at each step, and in which order
//! the steps are taken. Which number is given it leaves to [`super::numbers`].

use std::{collections::BTreeMap, mem, sync::Arc};

use arrayvec::ArrayVec;
use strowger_frame::{Address, Mark};
use strowger_wire::{Scheme, Slot};

use super::{
    Attach, AttachError, Attachment, DetachError, Event, GrowError, PortId, RenumberError,
    SlotState, Step, Switch, SwitchConfig, check,
    ledger::Awaited,
    numbers::{
        Detached, Given, Informed, Lead, Published, Retiring, Unnamed, Who, Wish, Withdrawn,
    },
    table,
};
use crate::{
    Now,
    discard::Discard,
    egress::{Drain, Egress},
    limits::{ATTACHED_MAX, PUBLISH_POLLS_MAX},
    link::{Behind, Guard, Link, Told},
    orders::{Ending, Growth, Order, PuntKind},
    rate::TokenBucket,
    slots::{NextHop, ReturnPath},
};

impl Switch {
    /// Attaches a neighbour or an endpoint; says which slot it has. Frames flow once the event
    /// [`Event::SlotAttached`] has come.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(&mut self, attach: Attach) -> Result<u32, AttachError> {
        if !self.ports.is_plugged(attach.port) {
            return Err(AttachError::NoPort);
        }
        if let Some(at) = attach.at
            && let Some(slot) = self.address_taken(attach.port, at)
        {
            return Err(AttachError::AddressTaken(slot));
        }
        let who = Who::new(attach.key, &attach.name);
        let mark = self.free_mark()?;
        let (unknown_max, may_wait) = (attach.unknown_max, true);
        let wish = Wish { slot: attach.slot, who: Some(&who), unknown_max, may_wait };
        let given = self.numbers.give(wish, mark, self.now)?;
        let slot = given.slot();
        let alias_until = Now(self.now.0.saturating_add(self.config.alias_ns));
        self.numbers.adopt(&who, mark, alias_until, self.now);

        let tallies: Vec<_> = (0..self.workers.len()).map(|_| Arc::default()).collect();
        let homes = self.ports.home(attach.port);
        for (worker, tally) in tallies.iter().enumerate() {
            let link = Link {
                mark,
                slot,
                port: attach.port.0,
                home: homes.filter(|&home| usize::from(home) != worker),
                u_turns: self.config.u_turns,
                rights: attach.rights,
                return_path: ReturnPath::new(&self.config.scheme, Slot::new(slot)),
                guard: if attach.sealed {
                    Guard::Sealed(None)
                } else {
                    Guard::Plain { counter: 0 }
                },
                frame_bytes_max: attach.frame_bytes_max,
                egress: Egress::default(),
                may_wake: false,
                allows_data: false,
                waiting: ArrayVec::new(),
                told: Told::default(),
                knocked: Told::default(),
                answered: Told::default(),
                drain: Drain::default(),
                control: TokenBucket::default(),
                packets_up: TokenBucket::default(),
                notes: TokenBucket::default(),
                punts: [0; PuntKind::COUNT],
                listed: false,
                tally: Arc::clone(tally),
            };
            self.workers.command(worker, Order::Attach(Box::new(link), attach.at));
        }
        if let Some(at) = attach.at {
            self.by_address.insert((attach.port.0, at), mark.index());
        }
        self.attached[mark.index()].1 = Some(Attachment {
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
        });
        self.workers.after_all(given, Step::Publish);
        Ok(slot)
    }

    /// The slot of who has an address behind a port.
    fn address_taken(&self, port: PortId, at: Address) -> Option<u32> {
        let index = *self.by_address.get(&(port.0, at))?;
        let user = self.attached.get(index)?.1.as_ref()?;
        (user.port == port && user.at == Some(at)).then_some(user.slot)
    }

    fn free_mark(&mut self) -> Result<Mark, AttachError> {
        // Below `barred` some worker may still have a link that nobody here knows of.
        let from = self.barred.max(self.vacant_from);
        let mut places = self.attached.iter().skip(from);
        let found = places.position(|(_, user)| user.is_none());
        // What is found is taken next, unless the attach fails: then it is found again.
        let vacant = found.map_or(self.attached.len(), |index| from + index);
        self.vacant_from = if self.barred == 0 { vacant } else { 0 };
        let index = match found {
            Some(index) => from + index,
            None if self.attached.len() < ATTACHED_MAX => {
                self.attached.push((0, None));
                self.attached.len() - 1
            }
            None => return Err(AttachError::Full),
        };
        Ok(Mark::new(index as u16, self.attached[index].0))
    }

    pub(super) fn user(&mut self, mark: Mark) -> Option<&mut Attachment> {
        let (generation, user) = self.attached.get_mut(mark.index())?;
        user.as_mut().filter(|_| *generation == mark.generation())
    }

    pub(super) fn user_of(&self, mark: Mark) -> Option<&Attachment> {
        let (generation, user) = self.attached.get(mark.index())?;
        user.as_ref().filter(|_| *generation == mark.generation())
    }

    /// Detaches what is attached to a slot, and ends its aliases. The numbers rest before they are
    /// given again.
    ///
    /// # Errors
    /// [`DetachError`].
    pub fn detach(&mut self, slot: u32) -> Result<(), DetachError> {
        let mark = self.numbers.user_of(slot).ok_or(DetachError::EmptySlot(slot))?;
        self.detach_users(&[mark]);
        Ok(())
    }

    /// Detaches what is attached to all these slots, as [`detach`](Self::detach) does to one. The workers get one
    /// table for all of them, where many calls of `detach` cost a table of all slots each. Empty slots are
    /// passed over.
    pub fn detach_all(&mut self, slots: impl IntoIterator<Item = u32>) {
        let users: Vec<Mark> =
            slots.into_iter().filter_map(|slot| self.numbers.user_of(slot)).collect();
        self.detach_users(&users);
    }

    pub(super) fn detach_users(&mut self, users: &[Mark]) {
        let Some(withdrawn) = self.numbers.withdraw_all(users) else { return };
        for &mark in users {
            if let Some(attachment) = self.user(mark) {
                attachment.state = SlotState::Leaving;
            }
            self.drop_peer(mark);
        }
        self.remove(withdrawn);
    }

    /// Gives the user of a slot another number: this one, or the lowest free. The old one leads to
    /// it for [`SwitchConfig::alias_ns`] after [`Event::SlotMoved`], and rests then.
    ///
    /// # Errors
    /// [`RenumberError`].
    pub fn renumber(&mut self, slot: u32, to: Option<u32>) -> Result<u32, RenumberError> {
        let mark = self.numbers.user_of(slot).ok_or(RenumberError::EmptySlot(slot))?;
        match self.user(mark).map(|user| user.state) {
            Some(SlotState::Attached | SlotState::Draining) => (),
            _ => return Err(RenumberError::EmptySlot(slot)),
        }
        if !self.numbers.may_move(mark) {
            return Err(RenumberError::Moving(slot));
        }
        // A number that is not free yet is refused: a change that comes minutes later is a surprise.
        let wish = Wish { slot: to, ..Wish::default() };
        let given = self.numbers.give(wish, mark, self.now).map_err(RenumberError::Number)?;
        let to = given.slot();
        self.workers.after_all(given, Step::Publish);
        Ok(to)
    }

    /// Says that no new label should name a slot, and detaches it after `for_ns` from the last
    /// [`poll`](Self::poll). It forwards as before until then.
    ///
    /// # Errors
    /// [`RenumberError::EmptySlot`].
    pub fn drain(&mut self, slot: u32, for_ns: u64) -> Result<(), RenumberError> {
        let until = Now(self.now.0.saturating_add(for_ns));
        let mark = self.numbers.user_of(slot).ok_or(RenumberError::EmptySlot(slot))?;
        if !self.numbers.drain(slot, until) {
            return Err(RenumberError::EmptySlot(slot));
        }
        if let Some(user) = self.user(mark) {
            user.state = SlotState::Draining;
        }
        self.events.push(Event::SlotDraining(slot));
        Ok(())
    }

    /// Goes over to a scheme that reads every code in use as before, while traffic flows, and gives
    /// out numbers up to `slot_max` from now on.
    ///
    /// # Errors
    /// [`GrowError`].
    pub fn grow_scheme(&mut self, scheme: Scheme, slot_max: u32) -> Result<(), GrowError> {
        let grown = SwitchConfig { scheme, slot_max, ..self.config };
        check(&grown).map_err(GrowError::Config)?;
        let old = self.config.scheme;
        if slot_max < self.config.slot_max {
            return Err(GrowError::SlotMax(self.config.slot_max));
        }
        // Whatever can be written may be on its way: not only numbers that somebody has now.
        for slot in 0..=self.config.slot_max {
            if let Some(form) = read_otherwise(slot, &old, &scheme) {
                return Err(GrowError::CodeChanges { slot, form });
            }
        }
        self.config = grown;
        self.numbers.raise_max(slot_max);
        self.offer_scheme();
        for worker in 0..self.workers.len() {
            let exits = self.exits();
            let Ok(table) = table(&self.config, &exits) else { continue };
            let return_paths = self.return_paths();
            self.workers.command(worker, Order::Grow(Box::new(Growth { table, return_paths })));
        }
        self.workers.after_all((), Step::Grown);
        Ok(())
    }

    /// What the link of a user writes into return paths: the number that every table leads by, and
    /// where that does not fit a former one that leads to it, too.
    fn return_path(&self, mark: Mark, user: &Attachment) -> ReturnPath {
        let scheme = &self.config.scheme;
        let former = self.numbers.former(mark).into_iter().map(Slot::new);
        former.fold(ReturnPath::new(scheme, Slot::new(user.written)), |return_path, former| {
            return_path.or_former(scheme, former)
        })
    }

    pub(super) fn return_paths(&self) -> Vec<(Mark, ReturnPath)> {
        self.attachments().map(|(mark, user)| (mark, self.return_path(mark, user))).collect()
    }

    /// Has every worker write a user's numbers into return paths as they are now.
    fn write_return_path(&mut self, mark: Mark) {
        let Some((_, user)) = self.attachments().find(|(other, _)| *other == mark) else { return };
        let (written, return_path) = (user.written, self.return_path(mark, user));
        self.workers.command_all(|_| Order::Renumber(mark, written, Box::new(return_path)));
    }

    /// Tells every worker that numbers lead nowhere any more, and that none of them is written any more;
    /// goes on once they all know.
    pub(super) fn remove(&mut self, withdrawn: Withdrawn) {
        for &mark in withdrawn.staying() {
            self.write_return_path(mark);
        }
        self.give_tables();
        let told = self.numbers.told(withdrawn);
        self.workers.after_all(told, Step::Remove);
    }

    pub(super) fn exits(&mut self) -> BTreeMap<u32, NextHop> {
        let leads = self.numbers.leads();
        let behind = |mark: Mark| self.attached[mark.index()].1.as_ref().map(|user| user.behind);
        let exit = |(slot, lead)| {
            let exit = match lead {
                Lead::Empty => NextHop::Drop(Discard::EmptySlot),
                Lead::Gone => NextHop::Drop(Discard::SlotGone),
                Lead::User(mark) => match behind(mark) {
                    Some(Behind::Neighbour) => NextHop::Neighbour(mark),
                    Some(Behind::Endpoint) => NextHop::Endpoint(mark),
                    None => NextHop::Drop(Discard::SlotGone),
                },
                Lead::Alias(to) => {
                    let is_endpoint = behind(to) == Some(Behind::Endpoint);
                    NextHop::Alias { to, slot: slot as u16, is_endpoint }
                }
            };
            (slot, exit)
        };
        leads.into_iter().map(exit).collect()
    }

    pub(super) fn give_tables(&mut self) {
        let exits = self.exits();
        for worker in 0..self.workers.len() {
            // `check` has made a table of this scheme before.
            if let Ok(table) = table(&self.config, &exits) {
                self.workers.command(worker, Order::Slots(Box::new(table)));
            }
        }
    }

    /// Takes a step, all of whose workers have reported.
    pub(super) fn take_step(&mut self, step: Step, now: Now) {
        match step {
            // Those are taken together: `publish_due`.
            Step::Publish(_) => {}
            Step::Announce(mark) => {
                let Ok(passed) = self.workers.pass(mark) else { return };
                let mark = passed.into_inner();
                if let Some(user) = self.user(mark) {
                    user.announced = true;
                    let slot = user.slot;
                    self.events.push(Event::SlotAttached(slot));
                    if !self.numbers.former(mark).is_empty() {
                        // Of before the restart: every table leads by them now.
                        self.write_return_path(mark);
                    }
                }
            }
            Step::Rewrite(moving) => self.rewrite(moving),
            Step::Retire(moving) => self.retire(moving, now),
            Step::Remove(told) => self.drop_user(told, now),
            Step::Rest(unnamed) => self.rest(unnamed, now),
            Step::Muster(told) => self.take_muster(told),
            Step::Recovered(unnamed) => {
                self.barred = 0;
                self.rest(unnamed, now);
            }
            Step::Grown(_) => self.events.push(Event::SchemeGrown),
            Step::Moved(worker) => {
                if let Ok(passed) = self.workers.pass(worker) {
                    self.end_moves(passed.into_inner());
                }
            }
            Step::Forget(id) => {
                if let Ok(passed) = self.workers.pass(id) {
                    let id = passed.into_inner();
                    self.events.extend(self.ports.forget(id).then_some(Event::PortUnplugged(id)));
                }
            }
        }
    }

    /// Publishes the numbers at the front of what is pending, all whose workers have reported, by one table: each
    /// table holds all numbers, so one for each of them would take a time that is quadratic in their count. Where more are
    /// about to follow they are waited for, but not for long. `false` if nothing was published.
    pub(super) fn publish_due(&mut self) -> bool {
        let (due, more_follow) = self.workers.publishable(self.written);
        let waits = more_follow && due < self.attached.len() / 4;
        if due == 0 || waits && self.publish_polls < PUBLISH_POLLS_MAX {
            self.publish_polls += u32::from(due > 0);
            return false;
        }
        self.publish_polls = 0;
        let given = self.workers.next_publications(due);
        self.publish(given, self.now);
        true
    }

    fn publish(&mut self, all: Vec<Given>, now: Now) {
        let (mut announced, mut retired, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for given in all {
            let (slot, mark) = (given.slot(), given.user());
            let Some(user) = self.user(mark) else { continue };
            let was = user.slot;
            if user.refused.is_some() {
                // Some worker's port would not have it: take back what others were given.
                refused.push(mark);
                continue;
            }
            match self.numbers.publish(given, now) {
                Published::Never => {}
                Published::Later(given) => self.deferred.push(given),
                Published::Now if was == slot => {
                    if let Some(user) = self.user(mark)
                        && user.state == SlotState::Coming
                    {
                        user.state = SlotState::Attached;
                    }
                    announced.push(mark);
                }
                Published::Now => {
                    retired.extend(self.numbers.retire(was, slot));
                    if let Some(user) = self.user(mark) {
                        user.slot = slot;
                    }
                }
            }
        }
        self.detach_users(&refused);
        if announced.is_empty() && retired.is_empty() {
            return;
        }
        self.give_tables();
        for mark in announced {
            self.workers.after_all(mark, Step::Announce);
        }
        for retiring in retired {
            self.workers.after_all(retiring, Step::Rewrite);
        }
    }

    fn rewrite(&mut self, moving: Awaited<Retiring>) {
        let Ok(passed) = self.workers.pass(moving) else { return };
        let retiring = passed.into_inner();
        let (mark, to) = (retiring.user(), retiring.to());
        if let Some(user) = self.user(mark) {
            user.written = to;
        }
        self.write_return_path(mark);
        self.workers.after_all(retiring, Step::Retire);
    }

    fn retire(&mut self, moving: Awaited<Retiring>, now: Now) {
        let (slot, to) = (moving.what().slot(), moving.what().to());
        let Ok(passed) = self.workers.pass(moving) else { return };
        let until = Now(now.0.saturating_add(self.config.alias_ns));
        if self.numbers.retired(passed, until) {
            self.events.push(Event::SlotMoved(slot, to));
        }
    }

    fn drop_user(&mut self, told: Awaited<Informed>, now: Now) {
        let Ok(passed) = self.workers.pass(told) else { return };
        match Unnamed::after(passed).without_user() {
            Ok(detached) => self.come_to_rest(detached, now),
            Err(unnamed) => {
                self.drop_links(&unnamed);
                self.workers.after_all(unnamed, Step::Rest);
            }
        }
    }

    /// Has every worker drop the links of those who leave.
    pub(super) fn drop_links(&mut self, unnamed: &Unnamed) {
        for &mark in unnamed.leaving() {
            self.workers.command_all(|_| Order::Detach(mark));
        }
    }

    fn rest(&mut self, unnamed: Awaited<Unnamed>, now: Now) {
        let leaving = unnamed.what().leaving().to_vec();
        let Ok(passed) = self.workers.pass(unnamed) else { return };
        self.come_to_rest(Detached::after(passed), now);
        for mark in leaving {
            if self.user(mark).is_none() {
                continue;
            }
            let (generation, place) = &mut self.attached[mark.index()];
            *generation = generation.wrapping_add(1);
            self.vacant_from = self.vacant_from.min(mark.index());
            if let Some(gone) = place.take() {
                if let Some(at) = gone.at
                    && self.by_address.get(&(gone.port.0, at)) == Some(&mark.index())
                {
                    self.by_address.remove(&(gone.port.0, at));
                }
                self.events.push(match gone.refused {
                    Some(why) => Event::AttachRefused(gone.slot, why),
                    None => Event::SlotDetached(gone.slot),
                });
            }
        }
    }

    fn come_to_rest(&mut self, detached: Detached, now: Now) {
        self.numbers.rest(detached, now, self.config.quarantine_ns);
    }

    /// When [`turn_numbers`](Self::turn_numbers) has something to do, in the time that numbers rest by.
    pub(super) fn numbers_due(&self) -> Option<Now> {
        let deferred = self.deferred.iter().map(|given| self.numbers.opens_at(given.slot()));
        deferred.map(|opens| opens.unwrap_or(self.now)).chain(self.numbers.next_timeout()).min()
    }

    /// What comes of time alone: drained slots go, aliases end, numbers come free.
    pub(super) fn turn_numbers(&mut self, now: Now) {
        if self.numbers_due().is_none_or(|due| now < due) {
            return;
        }
        // Some may be on their way out already.
        let drained = self.numbers.drained(now);
        self.detach_all(drained);
        if let Some(withdrawn) = self.numbers.expire(now) {
            self.events.extend(withdrawn.slots().map(Event::AliasEnded));
            self.remove(withdrawn);
        }
        let deferred = mem::take(&mut self.deferred);
        self.publish(deferred, now);
        let rested = self.numbers.rested(now);
        if rested.is_empty() {
            return;
        }
        for number in rested {
            self.events.push(Event::SlotFree(number.slot()));
            self.numbers.free(number);
        }
        // From "gone" to "empty", so that the counters tell the two apart.
        self.give_tables();
    }

    /// A frame named a slot by a number that is retiring, or was until a moment ago.
    pub(super) fn take_alias_used(&mut self, named: u32, packet: Ending, now: Now) {
        let to = self.numbers.alias_of(named).and_then(|mark| self.slot_of(mark));
        let ingress = packet.ingress_slot;
        if let Some(slot) = to {
            self.events.push(Event::AliasUsed { ingress, named, slot });
            self.tell_slot_moved(packet, named, slot, now);
        }
    }
}

/// The form, if any, in which a number written by one scheme is not read as itself by another.
pub(super) fn read_otherwise(slot: u32, old: &Scheme, new: &Scheme) -> Option<u8> {
    (0..old.forms().len() as u8).find(|&form| {
        let Ok(director) = old.encode_in(Slot::new(slot), form) else { return false };
        let reads_so = |bits: u64| {
            new.decode(bits).is_ok_and(|read| {
                read.slot() == director.slot() && read.width() == director.width()
            })
        };
        // With nothing above it, and with anything at all.
        !reads_so(director.bits()) || !reads_so(director.bits() | u64::MAX << director.width())
    })
}
