//! Handles of connections, for operations that concern all sockets of a connection.

use std::sync::Arc;

use strowger_connection::{ConnectionInfo, Goodbye, NoConnection, PingId};
use strowger_crypto::PeerId;
use strowger_wire::label::AnyLabel;

use crate::{
    reply::{Reply, Responder, reply},
    shared::{Alive, Request},
};

/// The connection with a peer, from [`Node::connection`](crate::Node::connection). Each call is a
/// request to the driver, whose [`Reply`] may be awaited, waited for, or dropped.
#[derive(Clone)]
pub struct ConnectionHandle {
    pub(crate) alive: Arc<Alive>,
    pub(crate) peer: PeerId,
}

impl ConnectionHandle {
    fn ask<T>(&self, request: impl FnOnce(PeerId, Responder<T>) -> Request) -> Reply<T> {
        let (responder, waiting) = reply();
        // A request that cannot be queued is dropped, and so answered with `NodeClosed`.
        let _ = self.alive.0.request(request(self.peer, responder));
        waiting
    }

    /// The peer.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The status of the connection: its paths, keys, protocol tables and limits. `None` if there
    /// is no connection.
    pub fn info(&self) -> Reply<Option<ConnectionInfo>> {
        self.ask(|peer, reply| Request::Info { peer, reply })
    }

    /// Asks the peer for the name of its program, and for the label and hops left with which the
    /// request arrived. The answer is the event [`Identified`](crate::NodeEvent::Identified).
    pub fn identify(&self) -> Reply<Result<(), NoConnection>> {
        self.ask(|peer, reply| Request::Identify { peer, reply })
    }

    /// Measures the round trip with a packet that has `padding` bytes of padding. The answer is the
    /// event [`Pong`](crate::NodeEvent::Pong) with the same id; a ping without an answer has no
    /// event. The packet may be longer than what is known to arrive, and not longer than
    /// [`PathInfo::mtu_max`](strowger_connection::PathInfo::mtu_max).
    pub fn ping(&self, padding: usize) -> Reply<Result<PingId, NoConnection>> {
        self.ask(|peer, reply| Request::Ping { peer, padding, reply })
    }

    /// Tells the peer that this end will close the connection in this many seconds.
    pub fn leave(&self, seconds: u16, goodbye: Goodbye) -> Reply<Result<(), NoConnection>> {
        self.ask(|peer, reply| Request::Leave { peer, seconds, goodbye, reply })
    }

    /// Tells the peer how much this end wants to keep the connection, 0 to 255.
    pub fn stay(&self, weight: u8) -> Reply<Result<(), NoConnection>> {
        self.ask(|peer, reply| Request::Stay { peer, weight, reply })
    }

    /// Moves the connection to another label. The label is validated before messages use it.
    pub fn set_label(&self, label: AnyLabel) -> Reply<Result<(), NoConnection>> {
        self.ask(|peer, reply| Request::SetLabel { peer, label, reply })
    }

    /// Closes the connection and all its sockets. The peer gets the goodbye.
    pub fn close(&self, goodbye: Goodbye) -> Reply<()> {
        self.ask(|peer, reply| Request::CloseConnection { peer, goodbye, reply })
    }
}

impl std::fmt::Debug for ConnectionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionHandle").field("peer", &self.peer).finish_non_exhaustive()
    }
}
