//! End-to-end connections between PeerIds, without I/O: the crate has no socket, thread or clock.
//!
//! Two peers share one connection, which may use any labels. Its packets are sealed from end to
//! end, so switches on the path read neither payload nor names. A program addresses messages by
//! PeerId and protocol name.
//!
//! | item | content |
//! |---|---|
//! | [`Endpoint`] | all connections of one slot: packets, messages, time and events |
//! | [`EndpointConfig`] | identity, network, scheme and limits of an endpoint |
//! | [`Destination`], [`ProtocolNames`], [`ConnectOptions`] | what to connect to |
//! | [`Policy`] | who may connect, and who may use which protocol |
//! | [`Received`], [`Sent`], [`Event`] | results of packets, messages and time |
//! | [`Counters`] | every packet and every message is counted |
//! | [`limits`] | every bound, with its reason |
//!
//! A driver calls [`Endpoint::receive`] for each packet from the slot's port and passes the packets
//! of [`Endpoint::send`] to the port. It calls [`Endpoint::poll`], [`Endpoint::poll_transmit`] and
//! [`Endpoint::poll_event`] after each of these calls and at [`Endpoint::next_timeout`].
#![forbid(unsafe_code)]

mod accepts;
mod admission;
mod bucket;
mod config;
mod connection;
mod connections;
mod counters;
mod data_path;
mod destination;
mod endpoint;
mod error;
mod event;
mod goodbye;
mod handshake;
mod heap;
mod ids;
mod info;
mod known_labels;
pub mod limits;
mod memory;
mod message;
mod names;
mod options;
mod outbox;
mod packet;
mod path;
mod policy;
mod protocol_table;
mod sessions;
mod shared;
mod sockets;
mod transmit;
mod waiting;

pub use strowger_crypto as crypto;
pub use strowger_frame as frame;
pub use strowger_routing as routing;
pub use strowger_wire as wire;

pub use config::EndpointConfig;
pub use counters::{Counters, Discard};
pub use destination::Destination;
pub use endpoint::Endpoint;
pub use error::{
    ConfigError, ConnectError, ConnectStage, ListenError, NoConnection, SendRefused, SocketEnd,
};
pub use event::Event;
pub use goodbye::{CloseReason, Goodbye, GoodbyeCode};
pub use ids::{DatagramId, ListenerId, PingId, SocketId};
pub use info::{ConnectionInfo, PathInfo, PathState, SocketInfo, SocketState};
pub use message::{MessageInfo, MessageTo, Received, Sent};
pub use names::{BadProtocolName, ProtocolNames};
pub use options::{ConnectOptions, ListenOptions};
pub use policy::{Anyone, Consent, Only, Policy};
pub use transmit::Transmit;

/// Bytes in front of a message that [`Endpoint::send`] needs: the longest switch header, the
/// connection header, and the protocol number.
pub const HEADROOM_BYTES: usize =
    wire::switch_header::HEADER_BYTES_MAX + wire::connection::header::CONNECTION_HEADER_BYTES + 1;

/// Bytes behind a message that [`Endpoint::send`] needs: the tag.
pub const TAILROOM_BYTES: usize = wire::limits::TAG_BYTES;
