//! The configurations of peers and of a switch's sealed links, and the view of a peer.

use core::time::Duration;
use std::fmt;

use strowger_crypto::{
    Entropy, Identity, LocalIdentity, PeerId, Psk, SealMode, StaticPublic, aead::Provider,
};
use strowger_frame::Address;
use strowger_wire::{Slot, hello::SealWish};

use super::{DownReason, LinkState};
use crate::{
    Now,
    control::{AttachError, PortId},
    limits::FRAME_BYTES_MAX,
    link::Rights,
};

/// The configuration of a switch for sealed links.
#[non_exhaustive]
pub struct PeeringConfig {
    pub(in crate::control) local: LocalIdentity,
    pub(in crate::control) entropy: Box<dyn Entropy + Send>,
    pub(in crate::control) provider: Provider,
    pub(in crate::control) wall_at_zero: u64,
    pub(in crate::control) unknown_peers: Option<UnknownPeerPolicy>,
}

impl PeeringConfig {
    /// Makes the configuration for the identity `local`, with the default provider, a wall clock
    /// that is not set, and no unknown peers.
    pub fn new(local: LocalIdentity, entropy: Box<dyn Entropy + Send>) -> Self {
        Self { local, entropy, provider: Provider::DEFAULT, wall_at_zero: 0, unknown_peers: None }
    }

    /// Sets the crypto library that seals and opens.
    #[must_use]
    pub fn with_provider(mut self, provider: Provider) -> Self {
        self.provider = provider;
        self
    }

    /// Sets the time of the wall clock at the switch's time 0, in nanoseconds since 1970
    /// ([`SessionConfig`](strowger_crypto::session::SessionConfig)).
    /// [`Switch::set_wall_clock`](crate::control::Switch::set_wall_clock) can change it later.
    #[must_use]
    pub fn with_wall_at_zero(mut self, ns: u64) -> Self {
        self.wall_at_zero = ns;
        self
    }

    /// Sets the policy for unknown peers. `None` refuses unknown peers, and is the default.
    #[must_use]
    pub fn with_unknown_peers(mut self, policy: impl Into<Option<UnknownPeerPolicy>>) -> Self {
        self.unknown_peers = policy.into();
        self
    }
}

impl fmt::Debug for PeeringConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeeringConfig")
            .field("unknown_peers", &self.unknown_peers)
            .finish_non_exhaustive()
    }
}

/// The configuration of beacons on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeaconSpec {
    pub(in crate::control) to: Address,
    pub(in crate::control) interval_ns: u64,
}

impl BeaconSpec {
    /// Makes the configuration for one beacon per `interval`, with a jitter of up to a quarter of
    /// the interval in both directions. `to` is an address at which all nodes of a segment receive.
    pub const fn new(to: Address, interval: Duration) -> Self {
        Self { to, interval_ns: interval.as_nanos() as u64 }
    }
}

/// The parameters with which a switch detects that a peer is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    pub(in crate::control) interval_ns: u64,
    pub(in crate::control) multiplier: u8,
    pub(in crate::control) always: bool,
}

impl Liveness {
    /// Makes parameters with which a peer is probed if it has been silent for `interval` although
    /// frames were sent to it. After three silent intervals the link is down.
    pub const fn new(interval: Duration) -> Self {
        Self { interval_ns: interval.as_nanos() as u64, multiplier: 3, always: false }
    }

    /// Sets the number of silent intervals after which the link is down. A number below two counts
    /// as two.
    #[must_use]
    pub const fn with_multiplier(self, multiplier: u8) -> Self {
        Self { multiplier, ..self }
    }

    /// Sets whether the peer is probed even if no frame was sent to it.
    #[must_use]
    pub const fn with_always(self, always: bool) -> Self {
        Self { always, ..self }
    }

    /// The time of silence after which the peer is probed.
    pub const fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval_ns)
    }

    /// The number of silent intervals after which the link is down.
    pub const fn multiplier(&self) -> u8 {
        self.multiplier
    }

    /// Whether the peer is probed even if no frame was sent to it.
    pub const fn is_always(&self) -> bool {
        self.always
    }

    /// The time of silence after which the link is down.
    pub fn detection(&self) -> Duration {
        Duration::from_nanos(self.detection_ns())
    }

    pub(in crate::control) fn detection_ns(&self) -> u64 {
        self.interval_ns.saturating_mul(u64::from(self.multiplier.max(2)))
    }
}

impl Default for Liveness {
    /// An interval of five seconds and a multiplier of three: the switch detects within 15 seconds
    /// that the peer of a link in use is dead. An idle link is not probed.
    fn default() -> Self {
        Self::new(Duration::from_secs(5))
    }
}

/// The policy for unknown peers: their rights, their maximum number, and their liveness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPeerPolicy {
    pub(in crate::control) rights: Rights,
    pub(in crate::control) links_max: u32,
    pub(in crate::control) liveness: Liveness,
}

impl UnknownPeerPolicy {
    /// Sets the rights of frames from unknown peers.
    #[must_use]
    pub const fn with_rights(self, rights: Rights) -> Self {
        Self { rights, ..self }
    }

    /// Sets the maximum number of unknown peers that have a slot at the same time.
    #[must_use]
    pub const fn with_links_max(self, links_max: u32) -> Self {
        Self { links_max, ..self }
    }

    /// Sets the liveness parameters by which the switch detects that unknown peers are dead and
    /// frees their slots.
    #[must_use]
    pub const fn with_liveness(self, liveness: Liveness) -> Self {
        Self { liveness, ..self }
    }

    /// The rights of frames from unknown peers.
    pub const fn rights(&self) -> Rights {
        self.rights
    }

    /// The maximum number of unknown peers that have a slot at the same time.
    pub const fn links_max(&self) -> u32 {
        self.links_max
    }

    /// The liveness parameters by which the switch detects that unknown peers are dead.
    pub const fn liveness(&self) -> Liveness {
        self.liveness
    }
}

impl Default for UnknownPeerPolicy {
    /// 64 links, without any right.
    fn default() -> Self {
        Self { rights: Rights::NONE, links_max: 64, liveness: Liveness::default() }
    }
}

/// The configuration of a peer: a peer with a known key or identity, or any node at a known
/// address.
#[derive(Debug)]
pub struct PeerSpec {
    pub(in crate::control) name: String,
    /// The static key. Without it, an XX handshake reveals the key, and the node must have the
    /// configured `identity`. With neither key nor identity, any node at the address is accepted,
    /// with the rights of unknown peers.
    pub(in crate::control) key: Option<StaticPublic>,
    /// The identity; `None` accepts the first identity that the peer proves.
    pub(in crate::control) identity: Option<Identity>,
    pub(in crate::control) psk: Psk,
    pub(in crate::control) port: PortId,
    pub(in crate::control) at: Option<Address>,
    pub(in crate::control) slot: Option<Slot>,
    pub(in crate::control) rights: Rights,
    pub(in crate::control) seal: SealWish,
    pub(in crate::control) frame_bytes_max: u16,
    pub(in crate::control) liveness: Liveness,
}

impl PeerSpec {
    /// Makes the configuration of a peer with this static key, reached through a port. The peer has
    /// no psk. Its packets may pass through this switch and reach the switch's endpoints, but not
    /// the switch itself.
    pub fn new(name: impl Into<String>, key: StaticPublic, port: PortId) -> Self {
        Self { key: Some(key), ..Self::discovered(name, None, port) }
    }

    /// Makes the configuration of a peer whose static key is not known: the peer with this identity
    /// or, with `None`, any node at its address.
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

    /// Sets the peer's static key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Option<StaticPublic>>) -> Self {
        self.key = key.into();
        self
    }

    /// Sets the identity that the peer must prove.
    #[must_use]
    pub fn with_identity(mut self, identity: impl Into<Option<Identity>>) -> Self {
        self.identity = identity.into();
        self
    }

    /// Sets the pre-shared key (psk), which both operators must configure. A psk requires the
    /// peer's static key.
    #[must_use]
    pub fn with_psk(mut self, psk: Psk) -> Self {
        self.psk = psk;
        self
    }

    /// Sets the peer's address. Without an address, the switch waits until the peer begins a
    /// handshake.
    #[must_use]
    pub fn with_address(mut self, at: impl Into<Option<Address>>) -> Self {
        self.at = at.into();
        self
    }

    /// Sets the peer's slot number. By default, the peer gets the number that is kept for it or, if
    /// there is none, the lowest free one.
    #[must_use]
    pub fn with_slot(mut self, slot: impl Into<Option<Slot>>) -> Self {
        self.slot = slot.into();
        self
    }

    /// Sets the rights of frames from the peer. A peer with neither key nor identity has the rights
    /// of unknown peers instead.
    #[must_use]
    pub fn with_rights(mut self, rights: Rights) -> Self {
        self.rights = rights;
        self
    }

    /// Sets the seal modes that are acceptable for the link: full only, header-only if the peer
    /// accepts it too, or header-only.
    #[must_use]
    pub fn with_seal(mut self, seal: SealWish) -> Self {
        self.seal = seal;
        self
    }

    /// Sets the maximum length, in bytes including link header and tag, of a frame sent to the
    /// peer. The switch discovers the path MTU within this limit.
    #[must_use]
    pub fn with_frame_bytes_max(mut self, bytes: u16) -> Self {
        self.frame_bytes_max = bytes;
        self
    }

    /// Sets the liveness parameters by which the switch detects that the peer is dead.
    #[must_use]
    pub fn with_liveness(mut self, liveness: Liveness) -> Self {
        self.liveness = liveness;
        self
    }

    /// The peer's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port through which the peer is reached.
    pub fn port(&self) -> PortId {
        self.port
    }

    /// The peer's static key, if it is known.
    pub fn key(&self) -> Option<&StaticPublic> {
        self.key.as_ref()
    }

    /// The peer's address, if it is known.
    pub fn address(&self) -> Option<Address> {
        self.at
    }

    /// The slot number that was requested.
    pub fn slot(&self) -> Option<Slot> {
        self.slot
    }

    /// Whether any node at its address is accepted: the configuration has neither key nor identity.
    pub fn is_any(&self) -> bool {
        self.key.is_none() && self.identity.is_none()
    }
}

/// The reason why a peer could not be added. The switch is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerError {
    /// The identity is not set: call [`Switch::set_identity`](crate::control::Switch::set_identity)
    /// first.
    NoIdentity,
    /// The key is this node's own.
    Ourselves,
    /// Another peer has this key.
    KeyTaken,
    /// Another peer without a key has this identity.
    IdentityTaken,
    /// The peer has neither key nor identity, and unknown peers are not allowed.
    UnknownPeer,
    /// The peer has neither key nor identity nor address.
    Unspecified,
    /// The peer has a psk but no key. An XX handshake cannot authenticate with a psk.
    PskWithoutKey,
    /// The switch has more workers than a link has lanes.
    TooManyWorkers,
    /// The peer could not be attached.
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
            Self::Unspecified => f.write_str("a peer needs a key, an identity or an address"),
            Self::PskWithoutKey => f.write_str("a peer with a psk needs a key"),
            Self::TooManyWorkers => f.write_str("sealed links have at most 16 workers"),
            Self::Attach(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for PeerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Attach(why) => Some(why),
            _ => None,
        }
    }
}

/// The result of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Agreed {
    /// The identity that the peer has proved.
    pub peer_id: PeerId,
    /// The seal mode of data.
    pub seal: SealMode,
    /// The longest frame in bytes, including link header and tag, that both ends accept.
    pub frame_bytes_max: u16,
}

/// A sealed link in views.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerView {
    /// The peer's name.
    pub name: String,
    /// The peer's slot.
    pub slot: Slot,
    /// The peer's static key, if it is known.
    pub key: Option<StaticPublic>,
    /// The port through which the peer is reached.
    pub port: PortId,
    /// The peer's address; `None` if it is not known yet.
    pub at: Option<Address>,
    /// The addresses of two nodes that both have the peer's key and alternately take over the link;
    /// `None` if no two such nodes are known.
    pub key_on_two_nodes: Option<[Address; 2]>,
    /// The address that a beacon of the peer has suggested; `None` if there is none, or if the link
    /// is not down.
    pub suggested: Option<Address>,
    /// The state of the link.
    pub state: LinkState,
    /// The reason why the link is down; `None` if it is up or idle.
    pub down: Option<DownReason>,
    /// The rights of frames from the peer.
    pub rights: Rights,
    /// The time at which the newest keys were made; `None` before the first keys.
    pub keys_since: Option<Now>,
    /// The number of completed handshakes.
    pub handshakes: u64,
    /// The result of the last completed handshake; `None` before the first one.
    pub agreed: Option<Agreed>,
    /// The maximum length, in bytes including link header and tag, of a frame that may be sent at
    /// present; `None` before the first keys.
    pub frame_bytes_max: Option<u16>,
    /// Whether path MTU discovery has finished.
    pub is_path_found: bool,
    /// Whether the peer is an unknown peer: not configured, and accepted by the policy for unknown
    /// peers.
    pub is_unknown: bool,
}

impl PeerView {
    /// Whether the peer has proved that it has the keys, and every worker forwards data.
    pub fn is_up(&self) -> bool {
        self.state == LinkState::Up
    }
}
