//! Events of a node, and subscriptions to them.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use strowger_connection::{CloseReason, Event, Goodbye, PingId};
use strowger_crypto::{Nanos, PeerId};
use strowger_wire::label::AnyLabel;

use crate::{limits::EVENTS_WAITING, reply::lock, wait::block_on};

/// An event of a node. Events of single sockets are returned by the calls of the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// There is a connection with this peer.
    PeerConnected {
        /// The peer.
        peer: PeerId,
    },
    /// The connection with this peer is closed.
    PeerClosed {
        /// The peer.
        peer: PeerId,
        /// The reason why the connection was closed.
        reason: CloseReason,
    },
    /// The peer has restarted and has forgotten the connection. Sockets stay open.
    PeerRestarted {
        /// The peer.
        peer: PeerId,
    },
    /// Messages are sent along another label.
    PathChanged {
        /// The peer.
        peer: PeerId,
        /// The label.
        label: AnyLabel,
        /// The round trip, if it is known.
        rtt: Option<Duration>,
    },
    /// The connection has lost its last path. The node asks routing for another one.
    PathLost {
        /// The peer.
        peer: PeerId,
    },
    /// The answer to [`ConnectionHandle::identify`](crate::ConnectionHandle::identify).
    Identified {
        /// The peer.
        peer: PeerId,
        /// The name and version of the peer's program.
        agent: String,
        /// The hops left of the request when it arrived at the peer.
        hops_left: u8,
        /// The label from the peer to this node: the return label of the request.
        label: AnyLabel,
        /// Bytes of the longest connection packet that the peer accepts.
        mtu: u16,
    },
    /// The answer to [`ConnectionHandle::ping`](crate::ConnectionHandle::ping).
    Pong {
        /// The peer.
        peer: PeerId,
        /// The ping.
        id: PingId,
        /// The round trip.
        rtt: Duration,
    },
    /// The peer will close the connection.
    Leaving {
        /// The peer.
        peer: PeerId,
        /// The number of seconds until the peer closes the connection.
        seconds: u16,
        /// The code and the text that the peer stated.
        goodbye: Goodbye,
    },
    /// The peer wants the connection to stay.
    Stay {
        /// The peer.
        peer: PeerId,
        /// The strength of this wish, from 0 to 255.
        weight: u8,
    },
    /// A switch on the path reported congestion. The report is not authenticated.
    Congestion {
        /// The peer.
        peer: PeerId,
    },
    /// The peer's report of packets received on a path, for congestion control.
    Report {
        /// The peer.
        peer: PeerId,
        /// The number of packets.
        packets: u64,
        /// The number of packets with a congestion mark.
        marked_ce: u64,
    },
    /// The switch of the unix port has ended. The node connects again, and connections stay.
    SwitchGone,
    /// The switch of the unix port is back.
    SwitchBack,
    /// The subscriber was too slow: this many older events were dropped.
    Missed {
        /// The number of events.
        events: u64,
    },
}

fn span(nanos: Nanos) -> Duration {
    Duration::from_nanos(nanos.0)
}

impl NodeEvent {
    /// The event for subscribers; `None` if it concerns one socket.
    pub(crate) fn of(event: Event) -> Option<Self> {
        Some(match event {
            Event::PeerConnected { peer } => Self::PeerConnected { peer },
            Event::PeerClosed { peer, reason } => Self::PeerClosed { peer, reason },
            Event::PeerRestarted { peer } => Self::PeerRestarted { peer },
            Event::PathChanged { peer, label, rtt } => {
                Self::PathChanged { peer, label, rtt: rtt.map(span) }
            }
            Event::PathLost { peer } => Self::PathLost { peer },
            Event::Identified { peer, agent, hops_left, label, mtu } => {
                Self::Identified { peer, agent, hops_left, label, mtu }
            }
            Event::Pong { peer, id, rtt } => Self::Pong { peer, id, rtt: span(rtt) },
            Event::Leaving { peer, seconds, goodbye } => Self::Leaving { peer, seconds, goodbye },
            Event::Stay { peer, weight } => Self::Stay { peer, weight },
            Event::Congestion { peer } => Self::Congestion { peer },
            Event::Report { peer, packets, marked_ce, .. } => {
                Self::Report { peer, packets, marked_ce }
            }
            _ => return None,
        })
    }
}

/// Delivers each event to all subscribers.
#[derive(Debug, Default)]
pub(crate) struct EventHub(Mutex<Hub>);

#[derive(Debug, Default)]
struct Hub {
    queues: Vec<Weak<Mutex<Queue>>>,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<NodeEvent>,
    missed: u64,
    is_closed: bool,
    waker: Option<Waker>,
}

impl EventHub {
    pub(crate) fn subscribe(&self) -> Events {
        let mut hub = lock(&self.0);
        let is_closed = hub.is_closed;
        let queue = Arc::new(Mutex::new(Queue { is_closed, ..Queue::default() }));
        hub.queues.retain(|queue| queue.strong_count() > 0);
        hub.queues.push(Arc::downgrade(&queue));
        Events(queue)
    }

    pub(crate) fn emit(&self, event: &NodeEvent) {
        for queue in lock(&self.0).queues.iter().filter_map(Weak::upgrade) {
            let mut queue = lock(&queue);
            if queue.events.len() == EVENTS_WAITING {
                queue.events.pop_front();
                queue.missed += 1;
            }
            queue.events.push_back(event.clone());
            if let Some(waker) = queue.waker.take() {
                waker.wake();
            }
        }
    }

    pub(crate) fn close(&self) {
        let mut hub = lock(&self.0);
        hub.is_closed = true;
        for queue in hub.queues.drain(..).filter_map(|queue| queue.upgrade()) {
            let mut queue = lock(&queue);
            queue.is_closed = true;
            if let Some(waker) = queue.waker.take() {
                waker.wake();
            }
        }
    }
}

/// A subscription to the events of a node from now on. It queues 1,024 events; a slower subscriber
/// loses the oldest ones and receives [`NodeEvent::Missed`].
#[derive(Debug)]
pub struct Events(Arc<Mutex<Queue>>);

impl Events {
    fn take(&self, waker: Option<&Waker>) -> Poll<Option<NodeEvent>> {
        let mut queue = lock(&self.0);
        let missed = std::mem::take(&mut queue.missed);
        if missed > 0 {
            return Poll::Ready(Some(NodeEvent::Missed { events: missed }));
        }
        match queue.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if queue.is_closed => Poll::Ready(None),
            None => {
                queue.waker = waker.cloned();
                Poll::Pending
            }
        }
    }

    /// The next event if there is one. Does not block.
    pub fn try_next(&mut self) -> Option<NodeEvent> {
        match self.take(None) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    /// Returns the next event, or registers the task's waker if there is none. `None` after the
    /// node has closed.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<NodeEvent>> {
        self.take(Some(cx.waker()))
    }

    /// Waits for the next event. `None` after the node has closed.
    #[allow(clippy::should_implement_trait)] // an iterator would block
    pub fn next(&mut self) -> impl Future<Output = Option<NodeEvent>> {
        poll_fn(|cx| self.poll_next(cx))
    }

    /// Blocks until the next event, but no longer than `timeout`. `None` after the timeout, and
    /// after the node has closed.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<NodeEvent> {
        block_on(Some(timeout), |cx| self.poll_next(cx)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use strowger_crypto::{IdentityKey, SeededEntropy};

    use super::*;

    #[test]
    fn a_slow_subscriber_learns_how_many_events_it_has_missed() {
        const MORE: u64 = 6;
        let key = IdentityKey::generate(&mut SeededEntropy::new(1)).expect("entropy");
        let peer = key.public().peer_id();
        let event = |number| NodeEvent::Report { peer, packets: number, marked_ce: 0 };
        let hub = EventHub::default();
        let (mut slow, mut fast) = (hub.subscribe(), hub.subscribe());
        let all = EVENTS_WAITING as u64 + MORE;
        for number in 0..all {
            hub.emit(&event(number));
            assert_eq!(fast.try_next(), Some(event(number)), "this one reads");
        }
        assert_eq!(slow.try_next(), Some(NodeEvent::Missed { events: MORE }));
        // The newest events are kept, in their order.
        for number in MORE..all {
            assert_eq!(slow.try_next(), Some(event(number)));
        }
        assert_eq!((slow.try_next(), fast.try_next()), (None, None));
        // The loss is reported once, and the end comes after the last event.
        hub.emit(&event(all));
        hub.close();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(slow.poll_next(&mut cx), Poll::Ready(Some(event(all))));
        assert_eq!(slow.poll_next(&mut cx), Poll::Ready(None));
    }
}
