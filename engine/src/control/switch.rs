//! The switch. It passes each call, punt and completion to the owner of the state concerned. One
//! thread makes all calls.

use core::time::Duration;
use std::{fmt, mem, sync::Arc};

use strowger_frame::{Pool, Port, Wake, port::Arm};
use strowger_wire::Slot;
use strowger_wire::{Label, Scheme};

use super::{
    Attach, AttachError, Balance, ConfigError, DetachError, Event, GrowError, HandshakeSocket,
    PlugError, PortId, PortView, RenumberError, RestoreError, SlotView, Snapshot, SwitchConfig,
    base::Base,
    messages::{ControlMessages, ControlRequest, RequestError, RequestId, Resolver, send_goodbye},
    peering::{BeaconSpec, Links, PeerError, PeerSpec, PeerView, PeeringConfig},
    slot_allocator::Who,
    workers::Step,
};
use crate::{
    Now,
    command::{Completion, Punt},
    worker::Worker,
};

/// The slow-path part of a switch. One thread owns it.
pub struct Switch {
    base: Base,
    links: Links,
    messages: ControlMessages,
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch")
            .field("workers", &self.base.out.workers.len())
            .field("generation", &self.base.slots.generation())
            .finish_non_exhaustive()
    }
}

impl Switch {
    /// Makes a switch with one worker for each pool. The caller runs the workers, each on a
    /// separate thread or step by step.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: SwitchConfig, pools: Vec<Pool>) -> Result<(Self, Vec<Worker>), ConfigError> {
        let (base, workers) = Base::new(config, pools)?;
        let (links, messages) = (Links::default(), ControlMessages::default());
        Ok((Self { base, links, messages }, workers))
    }

    /// Sets the waker of worker `number`. The switch calls the waker after it has sent commands to
    /// the worker.
    pub fn set_waker(&mut self, number: usize, waker: Arc<dyn Wake>) {
        self.base.out.workers.set_waker(number, waker);
    }

    /// The configuration, with the scheme in use now.
    pub fn config(&self) -> &SwitchConfig {
        self.base.slots.config()
    }

    /// Plugs in a port that has one queue for each worker. `ports` contains the queues in the order
    /// of the workers.
    ///
    /// # Errors
    /// [`PlugError`]; the ports are then dropped.
    pub fn plug_everywhere(&mut self, ports: Vec<Box<dyn Port>>) -> Result<PortId, PlugError> {
        self.base.ports.plug_everywhere(ports, &mut self.base.out.workers)
    }

    /// Plugs in a port that one worker owns. The other workers pass frames for it through their
    /// handoff rings.
    ///
    /// # Errors
    /// [`PlugError`]; the port is then dropped.
    pub fn plug_at(&mut self, worker: usize, port: Box<dyn Port>) -> Result<PortId, PlugError> {
        self.base.ports.plug_at(worker, port, &mut self.base.out.workers)
    }

    /// Stops a port and removes its queues from the workers ([`poll`](Self::poll) drops the
    /// queues). Detach the port's links and endpoints first.
    ///
    /// # Errors
    /// [`DetachError`].
    pub fn unplug(&mut self, id: PortId) -> Result<(), DetachError> {
        self.base.unplug(id)?;
        self.links.drop_beacon(id);
        Ok(())
    }

    /// Adds a handshake socket to a port. [`poll`](Self::poll) reads it until the port is
    /// unplugged. The counters of the port include the frames of the socket.
    ///
    /// # Errors
    /// [`PlugError::NoPort`], if there is no such port; the handshake socket is then dropped.
    pub fn open_handshake_socket(
        &mut self,
        port: PortId,
        handshake_socket: HandshakeSocket,
    ) -> Result<(), PlugError> {
        self.base.ports.open_handshake_socket(port, handshake_socket)
    }

    /// Lists the events that wake the slow path to read handshakes. Call it before the thread
    /// blocks.
    pub fn arm(&mut self, add: impl FnMut(Arm)) {
        self.base.ports.arm(add);
    }

    /// Ends the state that `arm` began. Call it after the thread has woken up.
    pub fn disarm(&mut self) {
        self.base.ports.disarm();
    }

    /// Sets whether a port accepts frames from unknown senders: handshakes, and the data of peers
    /// that have moved. The port must accept them if a peer may send from an address that is not
    /// configured.
    pub fn accept_unknown(&mut self, port: PortId, accept: bool) {
        self.base.ports.accept_unknown(port, accept, &mut self.base.out.workers);
    }

    /// Attaches a neighbour or an endpoint; returns its slot number. Frames flow after
    /// [`Event::SlotAttached`].
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(&mut self, attach: Attach) -> Result<Slot, AttachError> {
        Ok(self.base.slots.attach(attach, &self.base.ports, &mut self.base.out)?.0)
    }

    /// Detaches the user of a slot, and ends its aliases. The numbers go into quarantine before
    /// they are allocated again.
    ///
    /// # Errors
    /// [`DetachError`].
    pub fn detach(&mut self, slot: Slot) -> Result<(), DetachError> {
        self.base.slots.detach(slot, &mut self.base.out)?;
        self.links.drop_detached(&mut self.base);
        Ok(())
    }

    /// Detaches the users of all these slots, with one table for each worker. Separate calls of
    /// [`detach`](Self::detach) would each make a table of all slots. Skips empty slots.
    pub fn detach_all(&mut self, slots: impl IntoIterator<Item = Slot>) {
        self.base.slots.detach_all(slots, &mut self.base.out);
        self.links.drop_detached(&mut self.base);
    }

    /// Changes the number of a slot's user to `to`, or to the lowest free number. The old number
    /// leads to the user for [`SwitchConfig::alias`] after [`Event::SlotMoved`], and then goes into
    /// quarantine.
    ///
    /// # Errors
    /// [`RenumberError`].
    pub fn renumber(&mut self, slot: Slot, to: Option<Slot>) -> Result<Slot, RenumberError> {
        self.base.slots.renumber(slot, to, &mut self.base.out)
    }

    /// Announces that no new label should name a slot, and detaches its user after `duration`,
    /// counted from the last [`poll`](Self::poll). Until then the slot forwards as before.
    ///
    /// # Errors
    /// [`RenumberError::EmptySlot`].
    pub fn drain(&mut self, slot: Slot, duration: Duration) -> Result<(), RenumberError> {
        let for_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.base.slots.drain(slot, for_ns, &mut self.base.out)
    }

    /// Changes to a larger scheme while traffic flows. The new scheme must read every existing code
    /// as the present scheme does. Numbers up to `slot_max` are allocated from now on.
    ///
    /// # Errors
    /// [`GrowError`].
    pub fn grow_scheme(&mut self, scheme: Scheme, slot_max: u32) -> Result<(), GrowError> {
        self.base.slots.grow_scheme(scheme, slot_max, &mut self.base.out)?;
        self.links.offer_scheme(&self.base);
        Ok(())
    }

    /// The name of the user of a slot number, or of the user that is being detached from it; `None`
    /// if there is neither.
    pub fn name_at(&self, slot: Slot) -> Option<&str> {
        self.base.slots.name_at(slot)
    }

    /// All slot numbers that are not free, in order.
    pub fn slots(&self) -> Vec<SlotView> {
        let mut views = self.base.slots.views();
        let now = self.base.clock.now();
        for view in &mut views {
            if let Some(user) = self.base.slots.mark_of(view.slot) {
                view.announcements = self.messages.announcements(user, now);
            }
        }
        views
    }

    /// Sets the source of labels that the switch gives to endpoints which ask for a peer (wire.md
    /// 5.5), besides the announcements at its own slots. Without it, only these are used.
    pub fn set_resolver(&mut self, resolver: Option<Box<dyn Resolver>>) {
        self.messages.set_resolver(resolver);
    }

    /// All ports, in order of their numbers.
    pub fn ports(&self) -> Vec<PortView> {
        self.base.ports.views()
    }

    /// All sealed links, in order of their slots.
    pub fn peers(&self) -> Vec<PeerView> {
        self.links.peers(&self.base)
    }

    /// The sums of all counters, including those of removed ports.
    pub fn balance(&self) -> Balance {
        self.base.balance()
    }

    /// The number of allocations so far, including those before restarts. When it changes, the
    /// caller should write a new snapshot.
    pub fn generation(&self) -> u64 {
        self.base.slots.generation()
    }

    /// The state that a restart needs, at the time `now`.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        self.base.slots.snapshot(self.base.clock.quarantine_at(now), self.stamps_until(now))
    }

    /// Restores a snapshot, before anything is attached. A user gets the number that it had, unless
    /// it requests another one. Its former numbers lead to it again. If it requests another number,
    /// the number that it had in the snapshot leads to it, too. Another user gets a kept number only if it requests that
    /// number, or if no other number is free. The number leads to that user only when labels to its
    /// last user have expired. Call [`set_identity`](Self::set_identity) first, so that the
    /// timestamps of handshakes continue from those of the snapshot.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore(&mut self, snapshot: &Snapshot, now: Now) -> Result<(), RestoreError> {
        self.base.slots.check_restore(snapshot)?;
        let now = self.base.advance(now);
        self.base.slots.restore(snapshot, &mut self.base.out)?;
        self.links.stamp_from(snapshot.stamps_until, now);
        Ok(())
    }

    /// Whether a number is kept over the restart for the peer with this static key or, without a
    /// key, for the attachment with this name. Attach peers and attachments with a kept number
    /// before the others.
    pub fn is_kept_for(&self, key: Option<[u8; 32]>, name: &str) -> bool {
        self.base.slots.is_kept_for(&Who::new(key, name))
    }

    /// The time until an allocated number may lead to its user; `None` if it already may. Labels to
    /// the number's last user must expire first.
    pub fn opens_in(&self, slot: Slot) -> Option<Duration> {
        self.base.slots.opens_in(slot).map(Duration::from_nanos)
    }

    /// Delays the use of each new number until a snapshot that contains it was written
    /// ([`set_written`](Self::set_written)). If the writing succeeds, the snapshot contains every
    /// number that labels may name, even after a crash.
    pub fn wait_for_writing(&mut self) {
        self.base.slots.wait_for_writing();
    }

    /// Notes that a snapshot of this generation was written, or that writing it failed. In both
    /// cases the numbers in it are published.
    pub fn set_written(&mut self, generation: u64) {
        self.base.slots.set_written(generation);
    }

    /// Sets this node's identity, so that it can have sealed links.
    ///
    /// # Errors
    /// [`PeerError`]: the random source fails, or there are more workers than lanes.
    pub fn set_identity(&mut self, config: PeeringConfig, now: Now) -> Result<(), PeerError> {
        let now = self.base.clock.advance(now);
        self.links.set_identity(config, now, &self.base)
    }

    /// Adds a peer. The peer has a slot immediately. Its link comes up after a handshake.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn add_peer(&mut self, spec: PeerSpec, now: Now) -> Result<Slot, PeerError> {
        let now = self.base.clock.advance(now);
        self.links.add_peer(spec, now, &mut self.base)
    }

    /// Sets whether the switch sends beacons through a port and receives those of other nodes
    /// there. With `None`, the initial state of a port, it does neither. To find peers on the port,
    /// the port must also [accept unknown peers](Self::accept_unknown).
    ///
    /// The call has no effect if the switch has no identity, or if there is no such port.
    pub fn set_beacon(&mut self, port: PortId, spec: Option<BeaconSpec>) {
        self.links.set_beacon(port, spec, &mut self.base);
    }

    /// Sends every other initiation to a silent peer of `port` through `alternate`, another UDP
    /// port that is plugged in. Peers that are down and were last reached through the previous
    /// alternate return to their configured location. The previous alternate can then be
    /// [unplugged](Self::unplug) as soon as no link uses it.
    pub fn set_alternate(&mut self, port: PortId, alternate: PortId) {
        self.links.set_alternate(port, alternate, &mut self.base);
    }

    /// Informs the peers whose links are not down that this node's addresses have changed. The
    /// switch sends a probe on each link that is up, and begins a handshake on each idle link. So
    /// peers learn the new address before they send to the old one.
    pub fn show_where_we_are(&mut self, now: Now) {
        let now = self.base.clock.advance(now);
        self.links.show_where_we_are(now, &mut self.base);
    }

    /// The latest timestamp that a handshake of this node may carry before the caller must write a
    /// new [`snapshot`](Self::snapshot), in nanoseconds since 1970. 0 if the node has no identity.
    pub fn stamps_until(&self, now: Now) -> u64 {
        self.links.stamps_until(self.base.clock.now().max(now))
    }

    /// Sets the wall clock to `wall_ns`, in nanoseconds since 1970. If the clock is set forward,
    /// the timestamps of handshakes follow it. So peers accept a node that started with a clock
    /// that was behind, as soon as the clock is right. If the clock is set back, timestamps
    /// continue from their present value.
    pub fn set_wall_clock(&mut self, wall_ns: u64, now: Now) {
        let now = self.base.clock.advance(now);
        self.links.stamp_from(wall_ns, now);
    }

    /// Sends a request along `label`. The label starts at this switch's slot 1: its first director
    /// names one of this switch's slots. [`Event::Replied`] reports the results.
    ///
    /// # Errors
    /// [`RequestError`]; nothing is sent in this case.
    pub fn send_request(
        &mut self,
        label: Label,
        request: ControlRequest,
        now: Now,
    ) -> Result<RequestId, RequestError> {
        let now = self.base.clock.advance(now);
        self.messages.send_request(label, request, now, &mut self.base)
    }

    /// Sends a goodbye, the announcement that a link will end, to the neighbour or endpoint on
    /// `slot`. The call does not end the link. The caller must do so.
    pub fn goodbye(&mut self, slot: Slot, code: u8, retry_after_s: u32, text: &str) {
        send_goodbye(slot, code, retry_after_s, text, &mut self.base);
    }

    /// Whether no change is in progress.
    pub fn is_settled(&self) -> bool {
        self.base.out.workers.is_settled()
    }

    /// Executes all due work: sends queued commands, reads completions, takes the next steps,
    /// handles punts. It never blocks. Returns the events, oldest first.
    ///
    /// Call it at the time that [`next_timeout`](Self::next_timeout) returns, and after any other
    /// call that changes state. Call it also when a worker has called the waker from
    /// [`Worker::set_slow_path_waker`], and when an event that [`arm`](Self::arm) has listed
    /// occurs. Additional calls do no harm.
    pub fn poll(&mut self, now: Now) -> Vec<Event> {
        let now = self.base.advance(now);
        self.links.renew_secrets(now);
        let punts = self.base.out.workers.punts();
        // The messages of links precede packets and drop notices.
        for queue in [&punts.notes, &punts.link_messages, &punts.packets, &punts.drop_notices] {
            // Punts that arrive during this loop wait for the next poll.
            for _ in 0..queue.len() {
                let Some(punt) = queue.pop() else { break };
                self.handle(punt, now);
            }
        }
        self.messages.poll(now, &mut self.base);
        self.links.poll(now, &mut self.base);
        self.base.slots.poll(&mut self.base.out);
        self.links.drop_detached(&mut self.base);
        loop {
            self.take_steps(now);
            if self.base.out.workers.may_sleep() {
                break;
            }
        }
        self.links.send_answers(&mut self.base);
        mem::take(&mut self.base.out.events)
    }

    /// The time, by the caller's clock, at which [`poll`](Self::poll) has work if no other event
    /// occurs; a time in the past if it has work now. `None` if no timer is running.
    pub fn next_timeout(&self) -> Option<Now> {
        let Base { slots, out, clock, .. } = &self.base;
        let is_due = out.workers.is_due(slots.written()) || !out.events.is_empty();
        if is_due || !out.workers.punts().is_empty() {
            return Some(clock.caller_time(Now(0)));
        }
        let links = self.links.next_timeout(&self.base);
        let due = links.into_iter().chain(self.messages.next_timeout()).min();
        let numbers = slots.next_timeout().map(|due| clock.caller_quarantine_time(due));
        due.map(|due| clock.caller_time(due)).into_iter().chain(numbers).min()
    }

    /// Resets the slow path after a method of this switch has panicked; [`poll`](Self::poll) then
    /// continues. The workers keep forwarding with their present state. Changes that were in
    /// progress are repeated or reverted, and reported by events. Until
    /// [`is_settled`](Self::is_settled) returns `true`, fewer marks are free than usual.
    ///
    /// This method calls no code of the caller (wakers, the random source), which may have caused
    /// the panic.
    pub fn recover(&mut self, now: Now) {
        let now = self.base.advance(now);
        self.messages.reset();
        self.base.recover(|mark| self.links.has_peer(mark));
        self.links.recover(now, &mut self.base);
        self.base.out.events.push(Event::SlowPathRestarted);
    }

    /// Passes a punt to its owner.
    fn handle(&mut self, punt: Punt, now: Now) {
        match punt {
            Punt::Packet { .. } | Punt::Dropped(_) | Punt::AliasUsed { .. } => {
                let identity = self.links.local_identity();
                let goodbye = self.messages.handle(punt, now, identity, &mut self.base);
                if let Some(goodbye) = goodbye {
                    self.links.handle_goodbye(goodbye, now, &mut self.base);
                }
            }
            punt => self.links.handle(punt, now, &mut self.base),
        }
    }

    /// Fills the workers' rings, reads their completions, and takes the steps that are due.
    fn take_steps(&mut self, now: Now) {
        loop {
            self.base.out.workers.flush();
            while let Some(completion) = self.base.out.workers.next_completion() {
                self.handle_completion(completion);
            }
            match self.base.out.workers.next_step() {
                Some(step) => self.take_step(step, now),
                None if self.base.slots.publish_due(&mut self.base.out) => {}
                None => break,
            }
            self.links.drop_detached(&mut self.base);
        }
        self.links.show_opened(now, &mut self.base);
    }

    /// Executes a step, after all workers have completed the commands before it.
    fn take_step(&mut self, step: Step, now: Now) {
        match step {
            Step::Inventory(informed) => {
                let sessions = self.base.end_recovery(informed);
                self.links.retire_unknown(&sessions, now);
            }
            Step::Moved(worker) => {
                if let Ok(passed) = self.base.out.workers.pass(worker) {
                    self.links.end_moves(passed.into_inner());
                }
            }
            step => self.base.take_step(step),
        }
    }

    fn handle_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Session(session) => self.links.take_session_back(session, &mut self.base),
            Completion::Inventoried(inventory) => self.base.take_inventory(*inventory),
            Completion::AttachRefused(link, why) => {
                if let Some(attachment) = self.base.slots.user_mut(link.mark) {
                    attachment.refused = Some(why);
                }
            }
            // This would be a bug: the slow path allocates only port numbers within the workers'
            // limits.
            Completion::PlugRefused(queue) => debug_assert!(false, "no place for {queue:?}"),
            // The content is dropped here: the slow path frees the objects that workers return.
            _ => (),
        }
    }
}
