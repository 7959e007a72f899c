//! Events of a relay, and subscriptions to them. A subscriber that falls behind loses the oldest
//! events, and receives their number.

use std::{
    collections::VecDeque,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime},
};

use strowger_engine::control::Event as SwitchEvent;
use strowger_wire::Slot;

/// An event of a relay.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// The time since the relay started.
    pub at: Duration,
    /// The slot that the event is about; `None` if it is about no slot.
    pub slot: Option<Slot>,
    /// The name of the slot's user, or of its former user. Empty if the event is about no slot.
    pub name: String,
    /// The kind of event, with its details.
    pub kind: EventKind,
}

/// The kind of an event, with its details.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// An event of the switch: slots, links, peers.
    Switch(SwitchEvent),
    /// This subscriber was too slow and missed events.
    Missed {
        /// The number of missed events.
        events: u64,
    },
    /// The slow path, or code that the program ran on its thread, panicked. The slow path
    /// restarted, and the workers continued to forward.
    SlowPathRestarted {
        /// The message of the panic, in one line.
        panic: String,
    },
    /// The slow path has completed or undone everything that the panic interrupted.
    SlowPathRecovered,
    /// A worker makes no progress.
    WorkerStalled {
        /// The worker's number.
        worker: usize,
    },
    /// A stalled worker makes progress again.
    WorkerRecovered {
        /// The worker's number.
        worker: usize,
    },
    /// A worker found no free chunk in its pool, so frames were lost.
    PoolExhausted {
        /// The worker's number.
        worker: usize,
        /// The number of times this happened since the last check.
        times: u64,
    },
    /// The wall clock was set.
    WallClockSet {
        /// Whether the wall clock was set forward.
        forward: bool,
        /// The difference between the old and the new time.
        by: Duration,
        /// The new time.
        to: SystemTime,
    },
    /// The wall clock is wrong: it shows a time before 2025. Peers that have seen a later timestamp
    /// of this relay refuse its handshakes.
    WallClockWrong {
        /// The time that it shows.
        shows: SystemTime,
    },
    /// The machine no longer has the address to which a listener is bound.
    AddressGone {
        /// The listener.
        port: String,
        /// The address.
        address: IpAddr,
    },
    /// The machine again has the address to which a listener is bound.
    AddressBack {
        /// The listener.
        port: String,
        /// The address.
        address: IpAddr,
    },
    /// An Ethernet interface has started to strip VLAN tags. The port therefore receives frames of
    /// other VLANs as its own.
    VlanTagsHidden {
        /// The port.
        port: String,
        /// The interface.
        interface: String,
        /// The remedy.
        remedy: String,
    },
    /// An Ethernet interface no longer strips VLAN tags.
    VlanTagsShown {
        /// The port.
        port: String,
        /// The interface.
        interface: String,
    },
    /// An Ethernet interface has vanished. Its port works again only after a restart of the relay.
    InterfaceGone {
        /// The port.
        port: String,
    },
    /// Peers of a listener do not respond, so handshakes are also sent from another local port.
    AlternatePort {
        /// The listener.
        port: String,
        /// The new local address.
        local: SocketAddr,
    },
    /// An alternate port of a listener could not be opened.
    AlternatePortFailed {
        /// The listener.
        port: String,
        /// The cause.
        why: String,
    },
    /// The state file cannot be written.
    StateFileFailed {
        /// The cause and the consequence.
        why: String,
    },
    /// The state file can be written again.
    StateFileWritten {
        /// The file.
        file: String,
    },
}

impl EventKind {
    /// A name for logs and programs, in snake_case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Switch(event) => event.name(),
            Self::Missed { .. } => "missed",
            Self::SlowPathRestarted { .. } => "slow_path_restarted",
            Self::SlowPathRecovered => "slow_path_recovered",
            Self::WorkerStalled { .. } => "worker_stalled",
            Self::WorkerRecovered { .. } => "worker_back",
            Self::PoolExhausted { .. } => "pool_empty",
            Self::WallClockSet { .. } => "clock_set",
            Self::WallClockWrong { .. } => "clock_wrong",
            Self::AddressGone { .. } | Self::VlanTagsHidden { .. } => "port_trouble",
            Self::AddressBack { .. } | Self::VlanTagsShown { .. } => "port_back",
            Self::InterfaceGone { .. } => "interface_gone",
            Self::AlternatePort { .. } | Self::AlternatePortFailed { .. } => "alternate_port",
            Self::StateFileFailed { .. } => "state_file_trouble",
            Self::StateFileWritten { .. } => "state_file_back",
        }
    }
}

/// Locks a mutex and ignores poisoning, because no code leaves partial state in a mutex.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Delivers each event to all subscribers.
#[derive(Debug, Default)]
pub(crate) struct EventHub(Mutex<HubState>);

#[derive(Debug, Default)]
struct HubState {
    queues: Vec<Weak<Queue>>,
    is_closed: bool,
}

impl EventHub {
    pub(crate) fn subscribe(&self, waiting_max: usize) -> Events {
        let mut state = lock(&self.0);
        let queue = Arc::new(Queue { waiting_max: waiting_max.max(1), ..Queue::default() });
        lock(&queue.state).is_closed = state.is_closed;
        state.queues.push(Arc::downgrade(&queue));
        Events { queue }
    }

    /// Whether there is a subscriber.
    pub(crate) fn has_subscribers(&self) -> bool {
        let mut state = lock(&self.0);
        state.queues.retain(|queue| queue.strong_count() > 0);
        !state.queues.is_empty()
    }

    pub(crate) fn emit(&self, event: &Event) {
        for queue in lock(&self.0).queues.iter().filter_map(Weak::upgrade) {
            queue.push(event.clone());
        }
    }

    /// Ends all subscriptions. Subscribers still receive the events in their queues, and then the
    /// end.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.0);
        state.is_closed = true;
        for queue in state.queues.drain(..).filter_map(|queue| queue.upgrade()) {
            lock(&queue.state).is_closed = true;
            queue.wake();
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting_max: usize,
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    events: VecDeque<Event>,
    missed: u64,
    is_closed: bool,
    waker: Option<Waker>,
}

impl QueueState {
    /// Removes and returns the next event. Returns `Some(None)` at the end, and `None` if no event
    /// waits yet.
    fn take(&mut self) -> Option<Option<Event>> {
        let missed = std::mem::take(&mut self.missed);
        if missed > 0 {
            let at = self.events.front().map(|event| event.at).unwrap_or_default();
            let kind = EventKind::Missed { events: missed };
            return Some(Some(Event { at, slot: None, name: String::new(), kind }));
        }
        match self.events.pop_front() {
            Some(event) => Some(Some(event)),
            None => self.is_closed.then_some(None),
        }
    }
}

impl Queue {
    fn push(&self, event: Event) {
        let mut state = lock(&self.state);
        if state.events.len() >= self.waiting_max {
            state.events.pop_front();
            state.missed += 1;
        }
        state.events.push_back(event);
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        self.changed.notify_all();
        let waker = lock(&self.state).waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A subscription to the events of a relay, from the moment of the subscription on.
///
/// [`RelayHandle::events`](crate::RelayHandle::events) makes a subscription. The subscription
/// queues a bounded number of events. A subscriber that falls behind loses the oldest events and
/// receives [`EventKind::Missed`] in their place.
#[derive(Debug)]
pub struct Events {
    queue: Arc<Queue>,
}

impl Events {
    /// Returns the next event without blocking. Returns `None` if no event waits, also after the
    /// relay has ended.
    pub fn try_recv(&mut self) -> Option<Event> {
        lock(&self.queue.state).take().flatten()
    }

    /// Blocks until the next event. Returns `None` when the relay has ended.
    pub fn recv(&mut self) -> Option<Event> {
        let mut state = lock(&self.queue.state);
        loop {
            if let Some(taken) = state.take() {
                return taken;
            }
            state = self.queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Blocks until the next event, but no longer than `timeout`. Returns `None` after the timeout,
    /// or when the relay has ended.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<Event> {
        let deadline = Instant::now() + timeout;
        let mut state = lock(&self.queue.state);
        loop {
            if let Some(taken) = state.take() {
                return taken;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.queue.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Polls for the next event. If there is none, registers the task's waker. Returns
    /// `Ready(None)` when the relay has ended.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut state = lock(&self.queue.state);
        if let Some(taken) = state.take() {
            return Poll::Ready(taken);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits for the next event. Returns `None` when the relay has ended. The future works in any
    /// async runtime.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Whether the relay has ended and no event waits.
    pub fn is_ended(&self) -> bool {
        let state = lock(&self.queue.state);
        state.is_closed && state.events.is_empty() && state.missed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(worker: usize) -> Event {
        let kind = EventKind::WorkerStalled { worker };
        Event { at: Duration::ZERO, slot: None, name: String::new(), kind }
    }

    #[test]
    fn a_subscriber_that_falls_behind_learns_how_many_events_it_missed() {
        let hub = EventHub::default();
        let mut events = hub.subscribe(3);
        (0..10).for_each(|worker| hub.emit(&event(worker)));
        let Some(Event { kind: EventKind::Missed { events: 7 }, .. }) = events.recv() else {
            panic!("the oldest seven are gone")
        };
        for expected in 7..10 {
            let kind = events.recv().map(|event| event.kind);
            assert!(
                matches!(kind, Some(EventKind::WorkerStalled { worker }) if worker == expected)
            );
        }
        assert!(events.try_recv().is_none() && !events.is_ended());
        hub.emit(&event(0));
        hub.close();
        assert!(events.recv().is_some() && events.recv().is_none() && events.is_ended());
        assert!(hub.subscribe(1).is_ended(), "after the end");
    }

    #[test]
    fn a_dropped_subscription_is_removed() {
        let hub = EventHub::default();
        assert!(!hub.has_subscribers());
        let events = hub.subscribe(1);
        assert!(hub.has_subscribers());
        drop(events);
        assert!(!hub.has_subscribers());
    }

    #[test]
    fn a_blocked_subscriber_is_woken_by_an_event_and_by_the_end() {
        let hub = Arc::new(EventHub::default());
        let mut events = hub.subscribe(1);
        let emits = hub.clone();
        let thread = std::thread::spawn(move || {
            emits.emit(&event(1));
            emits.close();
        });
        assert!(events.recv_timeout(Duration::from_secs(60)).is_some());
        assert!(events.recv().is_none());
        thread.join().expect("no panic");
    }
}
