//! The control socket of a relay: a unix stream socket on which programs ask with JSON lines. Its
//! thread never waits for a client, and no client can make it hold more than a fixed amount.
//!
//! One request is one line, an object with one key; each gets one line of answer, in order:
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
//! | `{"watch":"events"}` | a line `{"watching":"events"}`, then one for each event: those kept, and those to come |
//! | `{"ping":{"label":..,"bytes":..}}`, `{"trace":{"label":..}}`, `{"identify":{"label":..}}` | `{"asked":n}` |
//! | `{"answers":n}` | `{"answers":[...],"done":..}`: what has come since this was last asked |
//! | `{"watch":"balance"}` | a line with the balance at once and every second, until the client goes |
//!
//! `attach` needs `name` and, behind a `[[udp]]` or `[[ethernet]]`, `address`; `listener` (the name of
//! one, or of a `[[unix]]`, which takes no address) where there are several, and `slot` to pin one. It is
//! answered once every worker knows; or, where the number is not free yet, at once with the seconds after
//! which it leads there. With `key` (a static key in
//! hex) or `peer_id` (who it must prove to be), or both, a peer is attached by a sealed link, for which
//! `psk` (a file, as the relay sees it) and `rights` (a list) can be given. A client that watches events
//! and falls behind misses the oldest: `{"missed":n}` says how many. A request that cannot be done is answered
//! `{"error":"<one line>","kind":"bad_request"|"declined"|"line_too_long"|"idle"|"no_answer"}`; after
//! `line_too_long` and `idle` the connection ends.
//!
//! Counts are frames and bytes since the relay began; names of reasons are those of
//! [`Discard`](strowger_engine::discard::Discard).

mod ask;
mod change;
mod client;
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
use strowger_wire::{Label, Scheme};

pub(super) use self::socket::ControlSocket;

/// What a client asks of the slow path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Have the slow path panic: for tests of what comes after.
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
    Detach(u32),
    /// Give a slot this number, or the lowest free one.
    Renumber {
        from: u32,
        to: Option<u32>,
    },
    /// Give a slot up after so long.
    Drain {
        slot: u32,
        for_s: u64,
    },
    /// Go over to a scheme that reads all that is written now as before.
    Grow {
        scheme: Box<Scheme>,
        slot_max: Option<u32>,
    },
    /// Have a packet ask whoever is at the label's end, or on its way.
    Ask(Label, messages::Question),
    /// What has come of a question.
    Answers(u32),
}

/// What a client wants attached, in the words of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttachRequest {
    pub(crate) name: String,
    pub(crate) address: Option<Address>,
    pub(crate) listener: Option<String>,
    pub(crate) slot: Option<u32>,
    /// The static key of a peer; without it the link is plain.
    pub(crate) key: Option<StaticPublic>,
    /// Who the peer must prove to be.
    pub(crate) peer_id: Option<Identity>,
    pub(crate) psk: Option<PathBuf>,
    pub(crate) rights: Option<Rights>,
}

/// What the slow path answers: copies of counters, made into JSON on the control socket's thread.
#[derive(Clone, Debug)]
pub(crate) enum Response {
    Slots(Vec<SlotView>, Now, Vec<(u16, String)>),
    Ports(Vec<PortView>, Vec<PortInfo>),
    Discards(Balance, Vec<PortView>, Vec<(u16, String)>),
    Balance(Balance, Duration),
    Peers(Vec<PeerView>, Now, Option<PeerId>, Vec<(u16, String)>),
    Links(Vec<SlotView>, Vec<PeerView>, Now, Vec<(u16, String)>),
    Status(Box<Status>),
    /// Attached to this slot, which leads there after so many seconds.
    Attached(u32, Option<u64>),
    Detached(u32),
    Renumbered {
        from: u32,
        to: u32,
        alias_s: u64,
        /// Widths in bits in which the former number can be written and the new one cannot.
        narrow_bits: Vec<u8>,
    },
    Draining {
        slot: u32,
        for_s: u64,
    },
    Grown(Box<Scheme>, u32),
    Asked(u32),
    Answers(Vec<messages::Answer>, bool),
    /// It will not be done, and why.
    Declined(String),
}

/// What a relay is, beside its counters.
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
    /// Whether no link may be plain.
    pub(crate) sealed: bool,
    /// How often the slow path has reset after a panic.
    pub(crate) restarts: u64,
    /// How often the slow path was woken.
    pub(crate) wakeups: u64,
}

/// An answer to a request that is refused.
fn error(kind: &str, text: &str) -> Value {
    json!({ "error": text, "kind": kind })
}
