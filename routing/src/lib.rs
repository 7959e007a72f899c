//! Labels for PeerIds: the routing traits, their combinators, the address book, and addresses.
//!
//! A Strowger switch forwards packets by labels. This crate finds the labels that lead to a peer.
//! It starts no thread and reads no clock, file or socket: the caller sends its questions, and
//! passes the replies and the time to it.
//!
//! | item | content |
//! |---|---|
//! | [`PeerRouting`] | finds [`Candidate`]s for a [`LookupTarget`]: labels, or addresses of nodes that may become neighbours |
//! | [`SwitchRouting`] | makes labels of candidates, and repairs them after errors |
//! | [`NullRouting`], [`GivenLabels`] | a link to the peer itself and a label of one hop; labels as they are |
//! | [`StaticTable`], [`book`] | the address book: a TOML file with names, PeerIds, labels and addresses |
//! | [`AskRelay`], [`AskNeighbours`] | ask the own switch, or its neighbours |
//! | [`combine`] | `First`, `Both`, `Cached`, `Budgeted`, `Filtered`, `Scoped` |
//! | [`PeerAddress`], [`address`] | addresses of peers in text and binary form |
//! | [`limits`] | every bound, with its reason |
//!
//! The result of a lookup is a hint. Only a handshake authenticates the node at the end of a label.
#![forbid(unsafe_code)]

pub mod address;
mod ask;
pub mod book;
mod candidate;
pub mod combine;
mod ends;
pub mod limits;
mod null;
mod peer_routing;
mod question;
mod static_table;
mod switch_routing;

pub use strowger_crypto as crypto;
pub use strowger_wire as wire;

pub use address::PeerAddress;
pub use ask::{AskNeighbours, AskRelay};
pub use book::AddressBook;
pub use candidate::{Candidate, Candidates, NodeId, Route, Source, UnderlayRoute};
pub use null::{LinkRequest, NullConfig, NullRouting};
pub use peer_routing::{
    LookupEnd, LookupResult, LookupTarget, NoRouting, Outcome, PeerRouting, RouteFailure,
};
pub use question::{ControlReply, Question, QuestionQueue};
pub use static_table::{BookChanges, FileStamp, StaticTable};
pub use switch_routing::{
    Constraints, GivenLabels, OffendingHeader, Path, PathError, PathErrorKind, Paths, SwitchRouting,
};

/// The README's example runs with the other examples of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
