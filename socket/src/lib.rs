//! Sockets of Strowger: messages between two PeerIds, by protocol name, sealed from end to end.
//!
//! A *node* is an identity on a slot of a relay. It has one connection with each peer, over any
//! labels, and any number of sockets on it. Relays on the path read neither messages nor PeerIds
//! nor protocol names.
//!
//! | item | content |
//! |---|---|
//! | [`Node`], [`NodeBuilder`], [`attach`] | an identity on a slot: a local port of a relay in this process, or a unix port |
//! | [`Connecting`], [`Socket`], [`SocketSender`], [`SocketReceiver`] | messages to and from one peer in one protocol |
//! | [`Listener`] | sockets that peers open |
//! | [`DatagramSocket`] | messages to and from all peers in one protocol |
//! | [`Message`], [`Messages`], [`TxBuffer`], [`TxBuffers`] | messages in the frames in which they arrived, and frames to fill |
//! | [`ConnectionHandle`], [`Events`], [`NodeEvent`] | paths, round trips, peers that come and go |
//! | [`Policy`], [`Anyone`], [`Only`] | who may connect, and who may use which protocol |
//! | [`ReadMsg`], [`WriteMsg`] | traits for code that should not depend on sockets |
//! | [`Driver`] | the loop of a node, for programs that run it themselves |
//!
//! Most operations that wait have three forms: one that blocks, one that is polled, and a future
//! that works in any async runtime. Every future may be dropped at any time: a dropped send has
//! queued all of its message or nothing, and a dropped receive has taken no message.
//!
//! Messages are not acknowledged, repeated, ordered or congestion-controlled: a socket is to
//! PeerIds what UDP is to IP addresses. A message arrives whole, once, or not at all.
#![forbid(unsafe_code)]

mod announce;
pub mod attach;
mod connecting;
mod datagram_socket;
mod driver;
mod error;
mod event;
mod handle;
pub mod limits;
mod listener;
mod message;
mod msgio;
mod node;
mod reply;
mod shared;
mod socket;
mod tx_buffer;
mod wait;
mod waiters;

/// The connections below sockets, without I/O.
pub use strowger_connection as connection;
pub use strowger_crypto as crypto;
pub use strowger_frame as frame;
pub use strowger_routing as routing;
pub use strowger_wire as wire;

pub use strowger_connection::{
    Anyone, BadProtocolName, CloseReason, ConnectionInfo, Consent, Counters, Destination, Goodbye,
    GoodbyeCode, ListenOptions, NoConnection, Only, PathInfo, PathState, PingId, Policy,
    ProtocolNames,
};

pub use attach::{Attachment, InProcess, Unix};
pub use connecting::{Connecting, IntoProtocolNames};
pub use datagram_socket::DatagramSocket;
pub use driver::Driver;
pub use error::{
    ConnectError, ListenError, NodeClosed, RecvError, SendError, StartError, TrySendError,
};
pub use event::{Events, NodeEvent};
pub use handle::ConnectionHandle;
pub use listener::Listener;
pub use message::{Message, Messages};
pub use msgio::{ReadMsg, ReadOne, WriteMsg, WriteOne};
pub use node::{Node, NodeBuilder, QueueCounters, SlotFacts};
pub use reply::Reply;
pub use shared::SocketCounters;
pub use socket::{Socket, SocketReceiver, SocketSender};
pub use tx_buffer::{TxBuffer, TxBuffers};

/// The future of [`Node::close`].
pub type Closing = Reply<()>;
