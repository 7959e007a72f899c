//! The control socket of a relay: a unix stream socket for requests and replies as JSON lines. Its
//! thread does not block on a client, and the memory per client is bounded.
//!
//! A request is one line with an object that has one key. The reply to a request is one line, and
//! replies are in the order of the requests. After the reply to `watch`, further lines follow.
//!
//! | request | answer |
//! |---|---|
//! | `{"show":"slots"}` | `{"slots":[{"slot":..,"state":..,"name":..,...},...]}` |
//! | `{"show":"ports"}` | `{"ports":[{"port":..,"name":..,"queues":[...],...},...]}` |
//! | `{"show":"discards"}` | `{"balance":{...},"discards":{reason:n,...},"kernel_drops_by_reason":{...},"ports":[...]}` |
//! | `{"show":"peers"}` | `{"peers":[{"name":..,"slot":..,"up":..,"key":..,...},...]}` |
//! | `{"show":"links"}` | `{"links":[{"slot":..,"name":..,"seal":..,"up":..,...},...]}` |
//! | `{"show":"events"}` | `{"events":[{"number":..,"event":..,"slot":..,...},...],"missed":n}` |
//! | `{"show":"status"}` | `{"version":..,"uptime_s":..,"workers":..,"sealed":..,...}` |
//! | `{"attach":{"name":..,"address":..,"listener":..,"slot":..}}` | `{"attached":slot,"opens_s":..}` |
//! | `{"detach":slot}` | `{"detached":slot}` |
//! | `{"renumber":{"slot":..,"to":..}}` | `{"renumbered":{"slot":..,"to":..,"alias_s":..,"narrow_bits":[..]}}` |
//! | `{"drain":{"slot":..,"for_s":..}}` | `{"draining":{"slot":..,"for_s":..}}` |
//! | `{"grow":{"scheme":..,"slot_max":..}}` | `{"grown":{"scheme":..,"slot_max":..}}` |
//! | `{"watch":"events"}` | a line `{"watching":"events"}`, then one for each event, recent and new |
//! | `{"ping":{"label":..,"bytes":..}}`, `{"trace":{"label":..}}`, `{"identify":{"label":..}}` | `{"request":n}` |
//! | `{"replies":n}` | `{"replies":[...],"done":..}`: the replies since the last such request |
//! | `{"watch":"balance"}` | a line with the balance immediately and every second, until the client disconnects |
//!
//! `attach` needs `name`. For a neighbour that is reached through a `[[udp]]` or `[[ethernet]]` it
//! needs `address`. `listener` is the name of the `[[udp]]`, `[[ethernet]]` or `[[unix]]`; it may
//! be absent if the relay has only one listener. `slot` requests a slot number. The reply is sent
//! when every worker's table has the slot. If the number is still in quarantine, the reply is sent
//! immediately, with the number of seconds until the slot opens. `key` (a static key in hex),
//! `peer_id` (the PeerId, which the handshake authenticates), or both attach a peer over a sealed
//! link. Such a request may also have `psk` (a file, as the relay's process sees it) and `rights`
//! (a list). A client that watches events and falls behind misses the oldest events; a line
//! `{"missed":n}` gives their number. The reply to a refused request is `{"error":"<one
//! line>","kind":"bad_request"|"declined"|"line_too_long"|"idle"|"no_answer"}`. After
//! `line_too_long` and `idle` the server closes the connection.
//!
//! Counters count frames and bytes since the relay started. The names of reasons are those of
//! [`Discard`](strowger_engine::discard::Discard).

mod change;
mod client;
mod control_request;
mod render;
mod request;
mod server;
mod socket;

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};
use strowger_crypto::{Identity, PeerId, StaticPublic};
use strowger_engine::{
    Now,
    control::{Balance, PortView, SlotView, SwitchConfig, messages, peering::PeerView},
    link::Rights,
};
use strowger_frame::Address;
use strowger_runtime::{IdlePolicy, MemoryUse, PortInfo};
use strowger_wire::Slot;
use strowger_wire::{Label, Scheme};

pub(super) use self::socket::ControlSocket;

/// A request to the slow path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Makes the slow path panic, for tests of its recovery.
    #[cfg(debug_assertions)]
    Panic,
    Slots,
    Ports,
    Discards,
    Balance,
    Peers,
    Links,
    Status,
    Attach(Box<AttachRequest>),
    Detach(Slot),
    /// Changes the number of a slot to `to`, or to the lowest free number.
    Renumber {
        from: Slot,
        to: Option<Slot>,
    },
    /// Drains a slot: it is detached after `for_s` seconds.
    Drain {
        slot: Slot,
        for_s: u64,
    },
    /// Changes to a larger scheme, which decodes every label in use as before.
    Grow {
        scheme: Box<Scheme>,
        slot_max: Option<u32>,
    },
    /// Sends a ping, a trace or an identify request along a label.
    Control(Label, messages::ControlRequest),
    /// Fetches the replies to the ping, trace or identify request with this number.
    Replies(u32),
}

/// A request to attach a neighbour, peer or endpoint, in the terms of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttachRequest {
    pub(crate) name: String,
    pub(crate) address: Option<Address>,
    pub(crate) listener: Option<String>,
    pub(crate) slot: Option<Slot>,
    /// The static key of a peer; `None` if the request has none. Without a key and an identity the
    /// link is plain.
    pub(crate) key: Option<StaticPublic>,
    /// The identity with which the peer must authenticate; `None` if the request has none.
    pub(crate) peer_id: Option<Identity>,
    pub(crate) psk: Option<PathBuf>,
    pub(crate) rights: Option<Rights>,
}

/// A response of the slow path. The control socket's thread converts it to JSON.
#[derive(Clone, Debug)]
pub(crate) enum Response {
    Slots(Vec<SlotView>, Now, Vec<(u16, String)>),
    Ports(Vec<PortView>, Vec<PortInfo>),
    Discards(Balance, Vec<PortView>, Vec<(u16, String)>),
    Balance(Balance, Duration),
    Peers(Vec<PeerView>, Now, Option<PeerId>, Vec<(u16, String)>),
    Links(Vec<SlotView>, Vec<PeerView>, Now, Vec<(u16, String)>),
    Status(Box<Status>),
    /// The neighbour is attached to this slot. The second field is the number of seconds until the
    /// slot opens; `None` if it is open.
    Attached(Slot, Option<u64>),
    Detached(Slot),
    Renumbered {
        from: Slot,
        to: Slot,
        alias_s: u64,
        /// The widths, in bits, of the forms that can encode the former number but not the new one.
        narrow_bits: Vec<u8>,
    },
    Draining {
        slot: Slot,
        for_s: u64,
    },
    Grown(Box<Scheme>, u32),
    Requested(u32),
    Replies(Vec<messages::ControlReply>, bool),
    /// The request is refused, with the reason.
    Declined(String),
}

/// The settings and state of a relay.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) uptime: Duration,
    pub(crate) workers: usize,
    pub(crate) cores: Option<Vec<usize>>,
    pub(crate) idle: IdlePolicy,
    pub(crate) switch: SwitchConfig,
    pub(crate) ports: Vec<PortInfo>,
    pub(crate) memory: MemoryUse,
    pub(crate) balance: Balance,
    pub(crate) identity: Option<PeerId>,
    /// Whether every link is sealed: the relay has an identity, and no port allows plain links.
    pub(crate) sealed: bool,
    /// The number of times the slow path has recovered from a panic.
    pub(crate) restarts: u64,
    /// The number of times the slow path blocked and was woken.
    pub(crate) wakeups: u64,
}

/// A reply that refuses a request.
fn error(kind: &str, text: &str) -> Value {
    json!({ "error": text, "kind": kind })
}
