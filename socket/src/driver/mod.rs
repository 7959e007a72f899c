//! The driver: polls the endpoint of a node, and moves messages between it, the sockets and the
//! port.
//!
//! The driver has its own thread, or the program calls it ([`NodeBuilder::start_manual`]). In the
//! steady state it takes no lock and allocates nothing.
//!
//! [`NodeBuilder::start_manual`]: crate::NodeBuilder::start_manual

mod datagrams;
mod requests;
mod sockets;

use std::{
    os::fd::AsRawFd as _,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use strowger_connection::{
    CloseReason, Endpoint, Event, Goodbye, GoodbyeCode, MessageTo, Received,
};
use strowger_crypto::Nanos;
use strowger_frame::{BURST_MAX, Burst, Frame, Pool, ready::WORD_BITS, waker::TaskBell};
use strowger_io::{Doorbell, Waiter, sys::clock::boottime};

use self::{
    datagrams::DatagramEntry,
    requests::{Attempt, ListenerEntry},
    sockets::SocketEntry,
};
use crate::{
    attach::{PortChange, SlotPort},
    event::NodeEvent,
    limits::{FIRST_HEADROOM, IDLE_POLLS, RETRY, RING_DEPTH_MAX},
    reply::Responder,
    shared::{Alive, NodeShared, count},
};

/// The clock of a node. It starts at 1, because 0 means "never" in some state machines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(pub(crate) Duration);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(boottime())
    }

    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        Nanos(boottime().saturating_sub(self.0).as_nanos() as u64 + 1)
    }
}

/// Settings of the driver from the builder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) depth: usize,
    pub(crate) hold_max: usize,
}

/// Drives a node. See [`NodeBuilder::start_manual`](crate::NodeBuilder::start_manual).
pub struct Driver {
    shared: Arc<NodeShared>,
    alive: Weak<Alive>,
    endpoint: Endpoint,
    port: SlotPort,
    pool: Pool,
    clock: Clock,
    settings: Settings,
    doorbell: Doorbell,
    waiter: Waiter,
    /// Sockets by the index of their handle at the endpoint, which is also their ready bit.
    sockets: Vec<Option<SocketEntry>>,
    /// Ready bits that were taken and whose sockets were not served yet, by word.
    ready: Vec<u64>,
    /// The word at which the next round begins.
    next_word: usize,
    attempts: Vec<Attempt>,
    listeners: Vec<Option<ListenerEntry>>,
    datagrams: Vec<Option<DatagramEntry>>,
    ready_datagrams: Vec<u64>,
    /// The rest of a chunk from which new sockets get their first parts.
    nursery: Option<strowger_frame::Train>,
    /// The receive burst: `None` while in use, and boxed so that taking it moves one pointer.
    arrived: Option<Box<Burst>>,
    messages: Option<Box<Burst>>,
    /// Packets for which the port had no room.
    packets: Burst,
    /// Sockets that got messages in this round, to be woken at its end.
    touched: Vec<usize>,
    /// Sockets that wait for a chunk that the pool did not have.
    starved: Vec<usize>,
    closing: Vec<Responder<()>>,
    is_closing: bool,
    is_port_over: bool,
}

impl Driver {
    #[allow(clippy::too_many_arguments)] // one caller, which has made these parts
    pub(crate) fn new(
        shared: Arc<NodeShared>,
        alive: Weak<Alive>,
        endpoint: Endpoint,
        port: SlotPort,
        pool: Pool,
        clock: Clock,
        settings: Settings,
        doorbell: Doorbell,
    ) -> Self {
        Self {
            shared,
            alive,
            endpoint,
            port,
            pool,
            clock,
            settings,
            doorbell,
            // The doorbell, and two descriptors of the port.
            waiter: Waiter::with_capacity(3),
            sockets: Vec::new(),
            ready: Vec::new(),
            next_word: 0,
            attempts: Vec::new(),
            listeners: Vec::new(),
            datagrams: Vec::new(),
            ready_datagrams: Vec::new(),
            nursery: None,
            arrived: Some(Box::default()),
            messages: Some(Box::default()),
            packets: Burst::new(),
            touched: Vec::new(),
            starved: Vec::new(),
            closing: Vec::new(),
            is_closing: false,
            is_port_over: false,
        }
    }

    /// Runs until the node is closed.
    pub(crate) fn run(mut self) {
        let mut idle = 0;
        while !self.is_over() {
            if self.poll() {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle > IDLE_POLLS {
                self.sleep(None);
                idle = 0;
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Whether the node is closed, so that the program should drop the driver.
    pub fn is_over(&self) -> bool {
        self.is_port_over || self.is_closing && self.endpoint.is_closed()
    }

    /// Receives a burst, serves the sockets and requests, handles timers, and sends. Returns
    /// whether there was work. Does not block.
    pub fn poll(&mut self) -> bool {
        let now = self.clock.now();
        let mut worked = self.send_waiting();
        self.pool.reclaim();
        worked |= self.receive(now);
        worked |= self.serve_requests(now);
        worked |= self.serve_datagrams(now);
        worked |= self.serve_sockets(now);
        if worked || self.endpoint.next_timeout().is_some_and(|at| at <= now) {
            self.endpoint.poll(now);
            self.serve_events(now);
            self.transmit_control(now);
            worked = true;
        }
        self.wake_receivers();
        worked
    }

    /// The time from now until [`poll`](Self::poll) has work even if nothing arrives; `None` if it
    /// then has none.
    pub fn next_timeout(&self) -> Option<Duration> {
        let due = self.endpoint.next_timeout().map(|at| {
            let left = at.since(self.clock.now());
            Duration::from_nanos(left.0)
        });
        let retries = !self.starved.is_empty() || self.port.must_retry();
        let retry = retries.then_some(RETRY);
        due.into_iter().chain(retry).min()
    }

    /// Blocks until there is work, but no longer than `timeout` (`None`: no limit). May return
    /// earlier.
    pub fn sleep(&mut self, timeout: Option<Duration>) {
        let mut waiter = std::mem::replace(&mut self.waiter, Waiter::with_capacity(0));
        waiter.begin();
        let may_block = self.arm(|arm| waiter.add(arm));
        let limit = self.next_timeout().into_iter().chain(timeout).min();
        if may_block && limit != Some(Duration::ZERO) {
            waiter.wait(limit);
        }
        self.disarm();
        self.waiter = waiter;
    }

    /// Prepares to block in the program's own `poll`: passes each descriptor to wait for to `add`.
    /// Returns whether the program may block, for [`next_timeout`](Self::next_timeout) at most.
    /// Call [`disarm`](Self::disarm) afterwards.
    pub fn arm(&mut self, mut add: impl FnMut(strowger_frame::port::Arm)) -> bool {
        use strowger_frame::port::Arm;
        // Arm the doorbell before the checks, so that no wake-up between a check and blocking is
        // lost.
        self.doorbell.arm();
        add(Arm::Wait(self.doorbell.as_raw_fd()));
        let mut is_ready = false;
        self.port.arm(|arm| {
            is_ready |= arm != Arm::Poll && !matches!(arm, Arm::Wait(_));
            add(arm);
        });
        !is_ready && !self.has_work()
    }

    /// Ends the waiting that [`arm`](Self::arm) prepared.
    pub fn disarm(&mut self) {
        self.doorbell.disarm();
    }

    /// Whether sockets, datagram sockets, requests or dropped handles wait for the driver.
    fn has_work(&self) -> bool {
        let shared = &self.shared;
        let is_stalled = self.port.is_stalled() || !self.packets.is_empty();
        let has_local = || self.ready.iter().chain(&self.ready_datagrams).any(|word| *word != 0);
        shared.ready.any(self.sockets.len().div_ceil(WORD_BITS))
            || shared.ready_datagrams.any(self.datagrams.len().div_ceil(WORD_BITS))
            || !shared.requests.is_empty()
            || shared.sweep.load(Ordering::Relaxed)
            || !is_stalled && has_local()
    }

    /// Sends packets that wait for the port.
    fn send_waiting(&mut self) -> bool {
        if self.packets.is_empty() && !self.port.is_stalled() {
            return false;
        }
        let before = self.packets.len();
        self.flush();
        self.packets.len() < before
    }

    /// Passes packets to the port.
    fn flush(&mut self) {
        let lost = self.port.transmit(&mut self.packets);
        if lost > 0 {
            count(&self.shared.tally.tx_port_gone, lost as u64);
        }
    }

    /// Whether packets wait for the port, so that the driver should seal no more.
    fn is_blocked(&self) -> bool {
        !self.packets.is_empty() || self.port.is_stalled()
    }

    fn receive(&mut self, now: Nanos) -> bool {
        let mut arrived = self.arrived.take().unwrap_or_default();
        if let Some(change) = self.port.receive(&mut self.pool, &mut arrived) {
            self.note_port(change);
        }
        let is_some = !arrived.is_empty();
        for frame in arrived.drain(..) {
            self.receive_one(now, frame);
        }
        self.arrived = Some(arrived);
        is_some
    }

    fn receive_one(&mut self, now: Nanos, frame: Frame) {
        match self.endpoint.receive(now, frame) {
            Received::Message { to: MessageTo::Socket(id), frame, info } => {
                // A peer's first message opens the socket, and its event is queued before the
                // message is returned.
                if self.entry(id).is_none() {
                    self.serve_events(now);
                }
                self.deliver(id, frame, info);
            }
            Received::Message { to: MessageTo::Datagram(id, from), frame, info } => {
                self.deliver_datagram(id, from, frame, info);
            }
            // Handle events now: the next packet may hold a message for a socket that this packet
            // opened.
            Received::Consumed => self.serve_events(now),
            Received::Discarded(_) => {}
        }
    }

    fn note_port(&mut self, change: PortChange) {
        match change {
            PortChange::Ended => self.is_port_over = true,
            PortChange::Gone => self.shared.events.emit(&NodeEvent::SwitchGone),
            PortChange::Back => self.shared.events.emit(&NodeEvent::SwitchBack),
        }
    }

    fn serve_events(&mut self, now: Nanos) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Connected { socket, peer, name } => self.connected(now, socket, peer, name),
                Event::ConnectFailed { socket, error } => self.connect_failed(socket, error),
                Event::Accepted { listener, socket, .. } => self.accepted(now, listener, socket),
                Event::MessageMax { socket, bytes } => self.set_message_max(socket, bytes),
                Event::Writable { socket } => self.writable(socket),
                Event::Unsupported { socket } => self.unsupported(socket),
                Event::SocketClosed { socket, reason } => self.socket_closed(now, socket, reason),
                other => {
                    if let Some(event) = NodeEvent::of(other) {
                        self.shared.events.emit(&event);
                    }
                }
            }
        }
    }

    /// Sends the packets of the control part.
    fn transmit_control(&mut self, now: Nanos) {
        loop {
            while !self.packets.is_full()
                && let Some(packet) = self.endpoint.poll_transmit(now)
            {
                match self.pool.copy_bytes(&packet) {
                    Some(frame) => self.packets.push(frame),
                    None => count(&self.shared.tally.no_memory, 1),
                }
            }
            let is_full = self.packets.is_full();
            self.flush();
            if !is_full || self.is_blocked() {
                return;
            }
        }
    }

    /// Copies a message into a frame with room for every header.
    fn roomy_copy(pool: &mut Pool, frame: &Frame) -> Option<Frame> {
        let copy = pool.copy(frame)?;
        debug_assert!(copy.headroom() >= FIRST_HEADROOM);
        Some(copy)
    }

    fn begin_closing(&mut self, now: Nanos, goodbye: Goodbye) {
        if !self.is_closing {
            self.is_closing = true;
            // Send queued messages before the goodbye.
            for _ in 0..RING_DEPTH_MAX.div_ceil(BURST_MAX) {
                if !(self.serve_datagrams(now) | self.serve_sockets(now)) {
                    break;
                }
            }
            self.endpoint.close(now, goodbye);
        }
    }

    /// Closes what belongs to dropped handles.
    fn sweep(&mut self, now: Nanos) -> bool {
        // Relaxed: the swap below orders it; the next poll sees a flag that this load misses.
        if !self.shared.sweep.load(Ordering::Relaxed) {
            return false;
        }
        // Acquire: pairs with Release in `request_sweep`.
        self.shared.sweep.swap(false, Ordering::Acquire);
        self.sweep_requests(now);
        self.sweep_datagrams(now);
        if self.alive.strong_count() == 0 {
            self.begin_closing(now, Goodbye::new(GoodbyeCode::STOPPING));
        }
        true
    }
}

/// Rings a bell if `did`, after a flag was set.
fn ring_if(bell: &TaskBell, did: bool) {
    if did {
        bell.ring();
    }
}

/// Reads a flag of a handle, which another thread sets with release ordering.
fn is_set(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Acquire)
}

impl Drop for Driver {
    fn drop(&mut self) {
        for entry in self.sockets.iter().flatten() {
            entry.shared.close(CloseReason::ByUs);
        }
        for entry in self.listeners.iter().flatten() {
            entry.shared.close();
        }
        for entry in self.datagrams.iter().flatten() {
            entry.shared.close();
        }
        self.shared.events.close();
        // SeqCst, as in `NodeShared::request`: a request that comes later sees the flag.
        self.shared.is_over.store(true, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        while self.shared.requests.pop().is_some() {}
        for closed in self.closing.drain(..) {
            closed.send(());
        }
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
