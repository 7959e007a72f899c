//! Tests R1 with random schedules on real switches. A simple model records which user had each
//! number, and when. Events are attach, detach, renumber, drain, growth of the scheme, aliases that
//! expire, frames, workers that poll or stall, and a slow path that panics between any two steps
//! and recovers. The model never reads the switch's tables. Every frame carries its sender and its
//! destination. The destination is the user that the number had when the label was issued. Labels
//! come from events and from return paths. They are used as long as a packet may be in flight:
//! until one quarantine after the number was withdrawn. Neighbours reply to some frames
//! immediately, along the return path that the switch has written. Such a reply must reach the
//! sender as long as two numbers are in use, each of which may be a former number: the one that
//! names the sender, and the one that named the receiver. `STROWGER_R1_EVENTS` sets the number of
//! events (for a long run in release mode: 10^8), and `STROWGER_R1_SEED` sets the seed. A failure
//! prints the seed.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use strowger_engine::{
    Now,
    control::{Attach, AttachError, Event, PortId, Switch, SwitchConfig},
    discard::Discard,
    limits::FRAME_BYTES_MIN,
    link::{Behind, plain_header},
    worker::Worker,
};
use strowger_frame::{Address, Burst, ChunkClass, Mark, Pool, PoolSpec, Port as _, Wake};
use strowger_io::{MemoryPort, memory::wire};
use strowger_testkit::Rng;
use strowger_wire::{
    Label, Scheme, Slot,
    link_header::LINK_HEADER_BYTES,
    scheme::{self, Form},
    switch_header::{AnyHeader, HeaderRepr},
};

const WORKERS: usize = 2;
const SEATS: usize = 9;
/// There are few numbers, so that each is allocated again soon after it may be.
const SLOT_MAX: u32 = 13;
const QUARANTINE_NS: u64 = 1_000;
const ALIAS_NS: u64 = 1_500;
/// The maximum time from sending a frame to switching it. The quarantine includes this time.
const ON_ITS_WAY_NS: u64 = 200;
const EVENTS_PER_SWITCH: u64 = 50_000;
const LABELS_MAX: usize = 24;
/// The length of a frame: the headers, the sender, the destination, the slot number in the label,
/// and the number of the reply (0 for a request).
const FRAME_BYTES: usize = FRAME_BYTES_MIN + 4 * 8;
/// The maximum time until a reply has arrived or was dropped.
const ANSWERED_NS: u64 = 3 * ON_ITS_WAY_NS;

/// A waker that panics once, at the n-th call, so that the slow path panics between two of its
/// steps.
#[derive(Default)]
struct Alarm(AtomicU64);

impl Wake for Alarm {
    fn wake(&self) {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 1 {
            resume_unwind(Box::new("injected")); // does not call the panic hook
        }
    }
}

/// The last user of a number, as the model records it.
#[derive(Clone, Copy, Default)]
struct Owner {
    user: u64,
    /// The time since which no new label names the number.
    withdrawn: Option<u64>,
    /// Whether any issued label names the number.
    named: bool,
    /// Whether an event has announced that the number leads to its user. Replies are sent only
    /// after this event.
    announced: bool,
}

#[derive(Clone, Copy)]
struct Issued {
    slot: u32,
    user: u64,
}

/// A reply on its return path.
struct Reply {
    id: u64,
    sent: u64,
    /// The user that replies, with the number in the request's label. `to` is the
    /// receiver of the reply, with the number in the return path.
    by: Issued,
    to: Issued,
}

/// A wire, and the user that is reached through it.
struct Seat {
    port: PortId,
    worker: usize,
    far: MemoryPort,
    user: Option<User>,
}

struct User {
    id: u64,
    slot: u32,
    /// The number that the user is moving to.
    to: Option<u32>,
    aliases: Vec<u32>,
    leaving: bool,
    /// The time when its drain ends, if it is draining.
    drained: Option<u64>,
    is_endpoint: bool,
}

/// Counts of what happened. The test fails if the schedules covered a case too rarely.
#[derive(Debug, Default)]
struct Seen {
    sent: u64,
    delivered: u64,
    by_alias: u64,
    return_paths: u64,
    attached: u64,
    refused: u64,
    detached: u64,
    moved: u64,
    grown: u64,
    reused: u64,
    alias_notes: u64,
    panics: u64,
    answers: u64,
    answered: u64,
    /// The number of replies to requests that named the receiver by a number that is now an alias.
    answered_by_alias: u64,
    /// The number of replies that were lost because a queue was full.
    dropped_by_full_queue: u64,
}

struct Rig {
    rng: Rng,
    switch: Switch,
    workers: Vec<Worker>,
    alarm: Arc<Alarm>,
    seats: Vec<Seat>,
    pool: Pool,
    now: u64,
    /// For each worker, the time since which frames wait for it.
    waits_since: [Option<u64>; WORKERS],
    owners: Vec<Owner>,
    labels: VecDeque<Issued>,
    replies: VecDeque<Reply>,
    users: u64,
    scheme: Scheme,
    seen: Seen,
}

/// A scheme with an unused prefix, and a larger scheme that uses it. `v3x5x8` is not used here,
/// because it numbers slots differently.
fn growing() -> (Scheme, Scheme) {
    let (a, b) = (Form::new(3, 1, 0b1), Form::new(8, 3, 0b000));
    let between = Form::new(5, 2, 0b10);
    (
        Scheme::new(&[a, b]).expect("prefix-free"),
        // The new form lies between these two, so that forms change their places.
        Scheme::new(&[a, between, b]).expect("prefix-free"),
    )
}

impl Rig {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let scheme = match rng.below(4) {
            0 => scheme::F4,
            1 => scheme::V4X8,
            2 => scheme::V3X5X8,
            _ => growing().0,
        };
        let config = SwitchConfig::default()
            .with_scheme(scheme)
            .with_slot_max(SLOT_MAX)
            .with_quarantine(std::time::Duration::from_nanos(QUARANTINE_NS))
            .with_alias(std::time::Duration::from_nanos(ALIAS_NS))
            .with_u_turns(true);
        let memory = |singles| {
            Pool::new(&PoolSpec { trains: 0, singles, huge_pages: false }).expect("memory")
        };
        let pools = (0..WORKERS).map(|_| memory(0)).collect();
        let (mut switch, workers) = Switch::new(config, pools).expect("a valid configuration");
        let alarm = Arc::new(Alarm::default());
        (0..WORKERS).for_each(|worker| switch.set_waker(worker, alarm.clone()));
        let seats = (0..SEATS)
            .map(|number| {
                let worker = number % WORKERS;
                let (near, mut far) = wire(64).expect("descriptors");
                far.admit(Mark(0), Address::Only).expect("no other neighbour");
                let port = switch.plug_at(worker, Box::new(near)).expect("a place");
                Seat { port, worker, far, user: None }
            })
            .collect();
        Self {
            rng,
            switch,
            workers,
            alarm,
            seats,
            pool: memory(1_500),
            now: 1,
            waits_since: [None; WORKERS],
            owners: vec![Owner::default(); SLOT_MAX as usize + 1],
            labels: VecDeque::new(),
            replies: VecDeque::new(),
            users: 0,
            scheme,
            seen: Seen::default(),
        }
    }

    fn event(&mut self) {
        match self.rng.below(1_000) {
            0..420 => self.send(),
            420..640 => {
                let worker = self.rng.below(WORKERS);
                self.poll_workers(worker);
            }
            640..800 => self.poll(),
            800..920 => {
                let seat = self.rng.below(SEATS);
                self.receive(seat);
            }
            920..930 => self.attach(),
            930..936 => self.detach(),
            936..944 => self.renumber(),
            944..946 => self.drain(),
            946 => self.grow(),
            // The slow path panics at one of its next steps.
            947 => self.alarm.0.store(1 + self.rng.below(12) as u64, Ordering::Relaxed),
            _ => self.let_time_pass(),
        }
    }

    fn let_time_pass(&mut self) {
        let next = self.now + 1 + self.rng.below(120) as u64;
        // Each worker may be polled twice: one worker may hand frames off, and the other one may
        // then hold them for as long again.
        for worker in (0..WORKERS).chain(0..WORKERS) {
            if self.waits_since[worker].is_some_and(|since| since + ON_ITS_WAY_NS <= next) {
                self.poll_workers(worker);
            }
        }
        self.now = next;
        self.check_answers();
    }

    /// Whether the number still leads to the user that it had when the label was issued.
    fn is_in_use(&self, issued: Issued) -> bool {
        let owner = self.owners[issued.slot as usize];
        owner.user == issued.user && owner.withdrawn.is_none_or(|at| at > self.now)
    }

    /// Checks that replies sent long ago have arrived, if their numbers are still in use.
    fn check_answers(&mut self) {
        if self.replies.front().is_none_or(|reply| reply.sent + ANSWERED_NS > self.now) {
            return;
        }
        for _ in 0..2 {
            (0..SEATS).for_each(|seat| self.receive(seat));
            (0..WORKERS).for_each(|worker| self.poll_workers(worker));
        }
        (0..SEATS).for_each(|seat| self.receive(seat));
        let late = self.replies.iter().take_while(|r| r.sent + ANSWERED_NS <= self.now).count();
        for reply in self.replies.drain(..late).collect::<Vec<_>>() {
            if !self.is_in_use(reply.by) || !self.is_in_use(reply.to) {
                continue;
            }
            // Only a full queue may have dropped the reply, and the drop must be counted.
            self.seen.dropped_by_full_queue += 1;
            let discards = self.switch.balance().discards;
            let full =
                discards[Discard::EgressFull as usize] + discards[Discard::HandoffFull as usize];
            assert!(
                self.seen.dropped_by_full_queue <= full,
                "R1: a reply from slot {} did not reach slot {}, though both are in use: {:?}",
                reply.by.slot,
                reply.to.slot,
                self.switch.balance().by_reason().collect::<Vec<_>>()
            );
        }
    }

    fn poll_workers(&mut self, worker: usize) {
        self.workers[worker].poll(Now(self.now));
        if self.waits_since[worker].take().is_some() {
            // Some frames may have been handed off.
            for other in (0..WORKERS).filter(|&other| other != worker) {
                self.waits_since[other].get_or_insert(self.now);
            }
        }
    }

    /// A random seat. `None` if it has no user, or if its user is being detached.
    fn seat_with(&mut self) -> Option<usize> {
        let seat = self.rng.below(SEATS);
        self.seats[seat].user.as_ref().is_some_and(|user| !user.leaving).then_some(seat)
    }

    /// Checks a newly allocated number against the model.
    fn given(&mut self, slot: u32, user: u64) {
        assert!(slot != 1 && slot <= SLOT_MAX);
        // Read all frames first: frames that arrived long ago have an old return path.
        (0..SEATS).for_each(|seat| self.receive(seat));
        let owner = &mut self.owners[slot as usize];
        if owner.named {
            let gone = owner.withdrawn.expect("R1: a number in use was given");
            assert!(
                gone + QUARANTINE_NS <= self.now,
                "R1: slot {slot} was given at {} too early after {gone}",
                self.now
            );
            self.seen.reused += 1;
        }
        *owner = Owner { user, withdrawn: None, named: false, announced: false };
        self.labels.retain(|label| label.slot != slot);
    }

    fn attach(&mut self) {
        let seat = self.rng.below(SEATS);
        if self.seats[seat].user.is_some() {
            return;
        }
        if self.waits_since[self.seats[seat].worker].is_some() {
            // Frames of the last user of this plain wire would otherwise count as frames of the new
            // user.
            self.poll_workers(self.seats[seat].worker);
        }
        self.users += 1;
        let id = self.users;
        let is_endpoint = self.rng.below(3) == 0;
        let behind = if is_endpoint { Behind::Endpoint } else { Behind::Neighbour };
        let mut attach =
            Attach::plain(self.seats[seat].port, Address::Only, behind, id.to_string());
        if self.rng.below(8) == 0 {
            // A memory wire has no such address. The worker, and not the slow path, refuses the
            // address.
            attach = attach.with_address(Address::Udp(([127, 0, 0, 1], 1).into()));
        }
        if self.rng.below(3) > 0 {
            attach = attach.with_slot(Slot::new(self.rng.below(SLOT_MAX as usize + 1) as u32));
        }
        match self.switch.attach(attach) {
            Ok(slot) => {
                self.given(slot.number(), id);
                let (to, aliases, leaving, drained) = (None, vec![], false, None);
                self.seats[seat].user = Some(User {
                    id,
                    slot: slot.number(),
                    to,
                    aliases,
                    leaving,
                    drained,
                    is_endpoint,
                });
            }
            Err(
                AttachError::NoSuchSlot { slot: Slot::SWITCH, .. }
                | AttachError::SlotTaken(_)
                | AttachError::SlotNotFree { .. }
                | AttachError::SlotsFull,
            ) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn withdraw(&mut self, slot: u32, at: u64) {
        let owner = &mut self.owners[slot as usize];
        owner.withdrawn = Some(owner.withdrawn.map_or(at, |before| before.min(at)));
    }

    /// Records that all numbers of a user end at this time.
    fn withdraw_all(&mut self, seat: usize, at: u64) {
        let user = self.seats[seat].user.as_ref().expect("a user");
        let mut slots = user.aliases.clone();
        slots.push(user.slot);
        slots.extend(user.to);
        for slot in slots {
            self.withdraw(slot, at);
        }
    }

    fn detach(&mut self) {
        let Some(seat) = self.seat_with() else { return };
        self.withdraw_all(seat, self.now);
        let user = self.seats[seat].user.as_mut().expect("a user");
        user.leaving = true;
        let slot = user.slot;
        // The drain may have ended meanwhile, or the user may already have the new number.
        let to = user.to;
        if self.switch.detach(Slot::new(slot)).is_err()
            && let Some(to) = to
        {
            let _ = self.switch.detach(Slot::new(to));
        }
    }

    fn drain(&mut self) {
        let Some(seat) = self.seat_with() else { return };
        let for_ns = self.rng.below(2_000) as u64;
        let slot = self.seats[seat].user.as_ref().expect("a user").slot;
        // The drain time is counted from the last poll.
        self.poll();
        let still = self.seats[seat].user.as_ref().is_some_and(|u| u.slot == slot && !u.leaving);
        if still
            && self.switch.drain(Slot::new(slot), std::time::Duration::from_nanos(for_ns)).is_ok()
        {
            let until = self.now + for_ns;
            self.withdraw_all(seat, until);
            self.seats[seat].user.as_mut().expect("a user").drained = Some(until);
        }
    }

    fn renumber(&mut self) {
        let Some(seat) = self.seat_with() else { return };
        let wish = self.rng.below(SLOT_MAX as usize + 1) as u32;
        let wish = (self.rng.below(2) == 0).then_some(wish);
        let user = self.seats[seat].user.as_ref().expect("a user");
        let (id, drained) = (user.id, user.drained);
        if let Ok(to) = self.switch.renumber(Slot::new(user.slot), wish.map(Slot::new)) {
            self.given(to.number(), id);
            self.owners[to.index()].withdrawn = drained;
            self.seats[seat].user.as_mut().expect("a user").to = Some(to.number());
        }
    }

    fn grow(&mut self) {
        let (small, large) = growing();
        if self.scheme == small {
            assert_eq!(self.switch.grow_scheme(large, SLOT_MAX), Ok(()));
            self.scheme = large;
            self.seen.grown += 1;
        } else {
            assert!(self.switch.grow_scheme(small, SLOT_MAX).is_err());
        }
    }

    fn poll(&mut self) {
        let polled = catch_unwind(AssertUnwindSafe(|| self.switch.poll(Now(self.now))));
        let events = polled.unwrap_or_else(|panic| {
            if panic.downcast_ref() != Some(&"injected") {
                resume_unwind(panic);
            }
            self.seen.panics += 1;
            // The panic has lost events about the numbers, so the model cannot check replies that
            // were in flight.
            self.replies.clear();
            self.switch.recover(Now(self.now));
            Vec::new()
        });
        for event in events {
            match event {
                Event::SlotAttached(slot) => {
                    self.seen.attached += 1;
                    self.owners[slot.index()].announced = true;
                    let user = self.owners[slot.index()].user;
                    self.issue(slot.number(), user);
                }
                Event::SlotMoved(slot, to) => {
                    self.seen.moved += 1;
                    let holds =
                        |s: &&mut Seat| s.user.as_ref().is_some_and(|u| u.slot == slot.number());
                    let seat = self.seats.iter_mut().find(holds).expect("it was given");
                    let user = seat.user.as_mut().expect("a user");
                    assert_eq!(user.to.take(), Some(to.number()));
                    user.aliases.push(slot.number());
                    user.slot = to.number();
                    let id = user.id;
                    self.owners[to.index()].announced = true;
                    self.issue(to.number(), id);
                }
                Event::AliasEnded(slot) => {
                    self.withdraw(slot.number(), self.now);
                    for user in self.seats.iter_mut().filter_map(|seat| seat.user.as_mut()) {
                        user.aliases.retain(|&alias| alias != slot.number());
                    }
                }
                Event::SlotDetached(slot) => {
                    self.seen.detached += 1;
                    self.leave(slot.number());
                }
                Event::AttachRefused(slot, _) => {
                    self.seen.refused += 1;
                    self.leave(slot.number());
                }
                Event::AliasUsed { .. } => self.seen.alias_notes += 1,
                _ => {}
            }
        }
    }

    /// Records that the last user of this number was detached.
    fn leave(&mut self, slot: u32) {
        let had = |seat: &Seat| {
            seat.user.as_ref().is_some_and(|user| user.slot == slot || user.to == Some(slot))
        };
        let seat = self.seats.iter().position(had).expect("a user had it");
        self.receive(seat);
        self.withdraw_all(seat, self.now);
        self.seats[seat].user = None;
    }

    fn issue(&mut self, slot: u32, user: u64) {
        let owner = &mut self.owners[slot as usize];
        if owner.user != user {
            return;
        }
        owner.named = true;
        if self.labels.len() == LABELS_MAX {
            self.labels.pop_front();
        }
        self.labels.push_back(Issued { slot, user });
    }

    fn send(&mut self) {
        if self.labels.is_empty() {
            return;
        }
        let from = self.rng.below(SEATS);
        let Some(id) = self.seats[from].user.as_ref().map(|user| user.id) else { return };
        let which = self.rng.below(self.labels.len());
        let Issued { slot, user } = self.labels[which];
        let owner = self.owners[slot as usize];
        assert_eq!(owner.user, user, "labels of a number's former user are forgotten");
        let end = owner.withdrawn.map_or(u64::MAX, |at| at + QUARANTINE_NS);
        if self.now + ON_ITS_WAY_NS > end {
            self.labels.remove(which);
            return;
        }
        let form = self.rng.below(self.scheme.forms().len()) as u8;
        let Ok(director) = self.scheme.encode_in(Slot::new(slot), form) else { return };
        let label = Label::new(director.bits() | 1 << director.width());
        if self.send_along(from, label, [id, user, u64::from(slot), 0]) {
            self.seen.sent += 1;
        }
    }

    /// Sends a frame from a seat. Returns `false` if there is no room for it.
    fn send_along(&mut self, from: usize, label: Label, words: [u64; 4]) -> bool {
        let Some(chunk) = self.pool.take(ChunkClass::Single) else {
            // All chunks are in use: read the frames that have arrived.
            (0..SEATS).for_each(|seat| self.receive(seat));
            return false;
        };
        let start = chunk.start();
        let mut frame = chunk.into_frame(start, FRAME_BYTES);
        let bytes = frame.bytes_mut();
        bytes[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(0));
        HeaderRepr::new(label, 0, 9).emit(&mut bytes[LINK_HEADER_BYTES..]).expect("room");
        bytes[FRAME_BYTES_MIN..].copy_from_slice(words.map(u64::to_be_bytes).as_flattened());
        let mut burst = Burst::new();
        burst.push(frame);
        let seat = &mut self.seats[from];
        seat.far.tx_burst(Mark(0), &mut burst);
        seat.far.flush();
        self.waits_since[seat.worker].get_or_insert(self.now);
        burst.is_empty()
    }

    fn receive(&mut self, seat: usize) {
        loop {
            let mut burst = Burst::new();
            self.seats[seat].far.rx_burst(&mut self.pool, &mut burst);
            if burst.is_empty() {
                return;
            }
            for mut frame in burst {
                self.arrived(seat, frame.bytes_mut());
            }
        }
    }

    fn arrived(&mut self, seat: usize, bytes: &mut [u8]) {
        let words = bytes[FRAME_BYTES_MIN..].as_chunks::<8>().0;
        let [from, meant, named, answer] = std::array::from_fn(|at| u64::from_be_bytes(words[at]));
        let user = self.seats[seat].user.as_ref();
        let here = user.map(|user| user.id);
        assert_eq!(here, Some(meant), "R1: a frame left by a slot that its label did not name");
        self.seen.delivered += 1;
        if user.is_some_and(|user| !user.aliases.is_empty()) {
            self.seen.by_alias += 1;
        }
        if let Some(place) = self.replies.iter().position(|reply| reply.id == answer) {
            self.replies.remove(place);
            self.seen.answered += 1;
        }
        let by_alias = user.is_some_and(|user| u64::from(user.slot) != named);
        if user.is_some_and(|user| user.is_endpoint) {
            return;
        }
        let Ok(AnyHeader::W64(header)) = AnyHeader::parse(&mut bytes[LINK_HEADER_BYTES..]) else {
            panic!("the switch moved the label")
        };
        // The return path at the top of the label, reversed, names the sender and can be used as a
        // label.
        let back = header.label().register().reverse_bits();
        let slot = self.scheme.decode(back).expect("a director").slot().number();
        let owner = self.owners[slot as usize];
        assert_eq!(owner.user, from, "R1: the return path names slot {slot}, which another has");
        self.seen.return_paths += 1;
        if self.rng.below(4) == 0 {
            self.issue(slot, from);
        }
        if answer == 0 && owner.announced && self.rng.below(2) == 0 {
            let width = header.shift();
            let back = back & ((1 << width) - 1) | 1 << width;
            self.seen.answers += 1;
            let id = self.seen.answers;
            if self.send_along(seat, Label::new(back), [meant, from, u64::from(slot), id]) {
                let by = Issued { slot: named as u32, user: meant };
                let to = Issued { slot, user: from };
                self.replies.push_back(Reply { id, sent: self.now, by, to });
                self.seen.answered_by_alias += u64::from(by_alias);
            }
        }
    }

    /// Runs until all frames are handled, and checks the balance.
    fn finish(&mut self) {
        self.alarm.0.store(0, Ordering::Relaxed);
        for _ in 0..10_000 {
            (0..WORKERS).for_each(|worker| self.poll_workers(worker));
            self.poll();
            (0..SEATS).for_each(|seat| self.receive(seat));
            let waiting: usize = self.workers.iter().map(Worker::frames_waiting).sum();
            if self.switch.is_settled() && waiting == 0 && self.switch.balance().is_even() {
                return;
            }
        }
        panic!("the switch does not come to rest: {:?}", self.switch.balance());
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// Prints the seed if the schedule fails.
struct SeedReport(u64);

impl Drop for SeedReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to reproduce: STROWGER_R1_SEED={} STROWGER_R1_EVENTS=1", self.0);
        }
    }
}

#[test]
fn r1_no_packet_leaves_by_a_slot_its_label_did_not_name() {
    let events = from_environment("STROWGER_R1_EVENTS", 300_000);
    let first = from_environment("STROWGER_R1_SEED", 1);
    let began = Instant::now();
    let mut all = Seen::default();
    for seed in first..first + events.div_ceil(EVENTS_PER_SWITCH) {
        let _said = SeedReport(seed);
        let mut rig = Rig::new(seed);
        for _ in 0..EVENTS_PER_SWITCH {
            rig.event();
        }
        rig.finish();
        let seen = rig.seen;
        all.sent += seen.sent;
        all.delivered += seen.delivered;
        all.by_alias += seen.by_alias;
        all.return_paths += seen.return_paths;
        all.attached += seen.attached;
        all.refused += seen.refused;
        all.detached += seen.detached;
        all.moved += seen.moved;
        all.grown += seen.grown;
        all.reused += seen.reused;
        all.alias_notes += seen.alias_notes;
        all.panics += seen.panics;
        all.answers += seen.answers;
        all.answered += seen.answered;
        all.answered_by_alias += seen.answered_by_alias;
        all.dropped_by_full_queue += seen.dropped_by_full_queue;
    }
    let done = events.div_ceil(EVENTS_PER_SWITCH) * EVENTS_PER_SWITCH;
    let rate = done as f64 / began.elapsed().as_secs_f64();
    println!("{done} events from seed {first}, {rate:.0} a second: {all:?}");
    let Seen { delivered, by_alias, return_paths, reused, moved, refused, panics, .. } = all;
    let Seen { answered, answered_by_alias, .. } = all;
    if events > EVENTS_PER_SWITCH {
        let least = [delivered, by_alias, return_paths, reused, moved, refused, panics]
            .into_iter()
            .chain([answered, answered_by_alias])
            .min();
        assert!(least > Some(20), "the schedule tests something: {all:?}");
    }
}
