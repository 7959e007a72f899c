//! What an operator says of a peer, and what is shown of one. Plain data: nothing here does anything.

use std::fmt;

use strowger_crypto::{Identity, PeerId, Psk, SealMode, StaticPublic};
use strowger_frame::Address;
use strowger_wire::hello::SealWish;

use super::{DownReason, LinkState, Liveness};
use crate::{
    Now,
    control::{AttachError, PortId},
    limits::FRAME_BYTES_MAX,
    link::Rights,
};

/// What a node lets unknown peers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPeerPolicy {
    /// Where their frames may go: nowhere, unless the operator wrote otherwise.
    pub rights: Rights,
    /// How many of them may have a slot at once.
    pub links_max: u32,
    /// How soon the death of one is noticed: its slot is given back then.
    pub liveness: Liveness,
}

impl Default for UnknownPeerPolicy {
    /// No right, and few.
    fn default() -> Self {
        Self { rights: Rights::NONE, links_max: 64, liveness: Liveness::default() }
    }
}

/// A peer whose operator and ours know each other; or whoever is at an address.
#[derive(Debug)]
pub struct PeerSpec {
    /// What people call it.
    pub name: String,
    /// Its static key. Where it is not known, a handshake by XX finds it out, and either `identity` says
    /// whose it must be, or the peer is an unknown peer at an address that is known.
    pub key: Option<StaticPublic>,
    /// Who has it; where nothing is said, whoever proves to, the first time.
    pub identity: Option<Identity>,
    /// The key that both operators wrote, or [`Psk::NONE`].
    pub psk: Psk,
    /// The port that it is behind.
    pub port: PortId,
    /// Where it is; `None` if it will come by itself.
    pub at: Option<Address>,
    /// The slot wanted.
    pub slot: Option<u32>,
    /// Where its frames may go. Those of one with neither key nor identity are what the policy gives to
    /// unknown peers, whatever stands here.
    pub rights: Rights,
    /// Whether only headers are sealed, if the peer asks for the same.
    pub seal: SealWish,
    /// The longest frame in bytes, link header and tag included, that is ever sent; what the path takes
    /// is found.
    pub frame_bytes_max: u16,
    /// How soon its death is noticed.
    pub liveness: Liveness,
}

impl PeerSpec {
    /// A peer with no psk, all else as it serves most: it may send through us and reach our
    /// endpoints, but not ask the switch itself.
    pub fn new(name: impl Into<String>, key: StaticPublic, port: PortId) -> Self {
        Self { key: Some(key), ..Self::discovered(name, None, port) }
    }

    /// The same whose static key is not known: the one with this identity, or whoever is there.
    pub fn discovered(name: impl Into<String>, identity: Option<Identity>, port: PortId) -> Self {
        Self {
            name: name.into(),
            key: None,
            identity,
            psk: Psk::NONE,
            port,
            at: None,
            slot: None,
            rights: Rights { control: false, ..Rights::ALL },
            seal: SealWish::Full,
            frame_bytes_max: FRAME_BYTES_MAX as u16,
            liveness: Liveness::default(),
        }
    }

    /// Whether it is to be found out who it is, and whoever it is will do.
    pub fn is_anybody(&self) -> bool {
        self.key.is_none() && self.identity.is_none()
    }
}

/// Why a peer could not be added. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// [`Switch::set_identity`](crate::control::Switch::set_identity) comes first.
    NoIdentity,
    /// The key is our own.
    Ourselves,
    /// Another peer has this key.
    KeyTaken,
    /// Another peer without a key has this identity.
    IdentityTaken,
    /// One with neither key nor identity is an unknown peer, and they are not allowed.
    UnknownPeer,
    /// One with neither key nor identity nor address is nobody.
    Nobody,
    /// A psk goes with a key: a handshake by XX cannot show it.
    PskWithoutKey,
    /// More workers than a link has lanes.
    TooManyWorkers,
    /// No slot for it.
    Attach(AttachError),
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIdentity => f.write_str("the switch has no identity yet"),
            Self::Ourselves => f.write_str("the key is this switch's own"),
            Self::KeyTaken => f.write_str("another peer has this key"),
            Self::IdentityTaken => f.write_str("another peer has this identity"),
            Self::UnknownPeer => f.write_str(
                "a peer with neither key nor identity is an unknown peer, and unknown peers are not allowed",
            ),
            Self::Nobody => f.write_str("a peer has a key, an identity or an address"),
            Self::PskWithoutKey => f.write_str("a psk goes with the key of a peer"),
            Self::TooManyWorkers => f.write_str("sealed links have at most 16 workers"),
            Self::Attach(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for PeerError {}

/// What a handshake agreed on, and with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Who the peer has proved to be.
    pub peer_id: PeerId,
    /// How data is sealed.
    pub seal: SealMode,
    /// The longest frame in bytes, link header and tag included, that both ends take.
    pub frame_bytes_max: u16,
}

/// What is shown of a sealed link.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// What people call it.
    pub name: String,
    /// Its slot.
    pub slot: u32,
    /// Its static key, once it is known.
    pub key: Option<StaticPublic>,
    /// The port that it is behind.
    pub port: PortId,
    /// Where it is.
    pub at: Option<Address>,
    /// Where two nodes are that both have its key, and take the link from each other.
    pub key_on_two_nodes: Option<[Address; 2]>,
    /// Where a beacon says that it is, while the link is down.
    pub suggested: Option<Address>,
    /// How the link is.
    pub state: LinkState,
    /// Why it is down; `None` where it is up, or idle.
    pub down: Option<DownReason>,
    /// Where its frames may go.
    pub rights: Rights,
    /// When its newest keys were made.
    pub keys_since: Option<Now>,
    /// Handshakes finished.
    pub handshakes: u64,
    /// What the last of them agreed on.
    pub agreed: Option<Agreed>,
    /// The longest frame in bytes, link header and tag included, that is sent now.
    pub frame_bytes_max: Option<u16>,
    /// Whether that was found to be what the path takes; else it is still looked for.
    pub is_path_found: bool,
    /// Whether it came by itself, under the policy for unknown peers.
    pub is_unknown: bool,
}

impl PeerView {
    /// Whether the link has keys that the peer has shown to have, too, and every worker lets data pass.
    pub fn is_up(&self) -> bool {
        self.state == LinkState::Up
    }
}
