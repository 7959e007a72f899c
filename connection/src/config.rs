//! The fixed parameters of an endpoint.

use strowger_crypto::{IdentityKey, LocalIdentity, NetworkId, aead::Provider};
use strowger_wire::Scheme;

use crate::limits::{IDLE_TIME_S, LONGEST_PACKET};

/// The fixed parameters of an endpoint.
#[derive(Debug)]
pub struct EndpointConfig {
    pub(crate) local: LocalIdentity,
    pub(crate) scheme: Scheme,
    pub(crate) provider: Provider,
    pub(crate) wall_at_zero: u64,
    pub(crate) longest_packet: u16,
    pub(crate) hide_identity: bool,
    pub(crate) accept_without_peer_id: bool,
    pub(crate) accept_pass_through: bool,
    pub(crate) idle_time_s: u16,
    pub(crate) agent: Box<str>,
    pub(crate) has_own_thread: bool,
}

impl EndpointConfig {
    /// An endpoint with this identity in this network, on a slot of a switch with this scheme.
    /// `key` signs the connection key and is not kept.
    pub fn new(key: &IdentityKey, network: NetworkId, scheme: Scheme) -> EndpointConfig {
        EndpointConfig::of(LocalIdentity::for_connections(key, network), scheme)
    }

    /// As [`new`](Self::new), with an identity [for
    /// connections](LocalIdentity::for_connections).
    pub fn of(local: LocalIdentity, scheme: Scheme) -> EndpointConfig {
        EndpointConfig {
            local,
            scheme,
            provider: Provider::DEFAULT,
            wall_at_zero: 0,
            longest_packet: LONGEST_PACKET,
            hide_identity: false,
            accept_without_peer_id: false,
            accept_pass_through: false,
            idle_time_s: IDLE_TIME_S,
            agent: concat!("strowger ", env!("CARGO_PKG_VERSION")).into(),
            has_own_thread: false,
        }
    }

    /// Sets the provider of the cipher.
    #[must_use]
    pub fn provider(mut self, provider: Provider) -> EndpointConfig {
        self.provider = provider;
        self
    }

    /// Sets the Unix time, in nanoseconds, at which the clock of the endpoint's callers was zero.
    #[must_use]
    pub fn wall_at_zero(mut self, nanoseconds: u64) -> EndpointConfig {
        self.wall_at_zero = nanoseconds;
        self
    }

    /// Sets the longest packet that the port takes and delivers, in bytes with the switch header.
    #[must_use]
    pub fn longest_packet(mut self, bytes: u16) -> EndpointConfig {
        self.longest_packet = bytes;
        self
    }

    /// Sets whether the endpoint always connects by PeerId, never by static key. Then the
    /// initiator's identity stays hidden from an attacker who later gets the responder's static
    /// key. Early messages are not possible.
    #[must_use]
    pub fn hide_identity(mut self, hides: bool) -> EndpointConfig {
        self.hide_identity = hides;
        self
    }

    /// Sets whether the endpoint answers handshakes of nodes that know only a label of this node
    /// (wire.md W6-10).
    #[must_use]
    pub fn accept_without_peer_id(mut self, accepts: bool) -> EndpointConfig {
        self.accept_without_peer_id = accepts;
        self
    }

    /// Sets whether the endpoint accepts pass-through messages for the protocols that allow them.
    #[must_use]
    pub fn accept_pass_through(mut self, accepts: bool) -> EndpointConfig {
        self.accept_pass_through = accepts;
        self
    }

    /// Sets the seconds without traffic after which a connection without sockets is closed.
    #[must_use]
    pub fn idle_time_s(mut self, seconds: u16) -> EndpointConfig {
        self.idle_time_s = seconds;
        self
    }

    /// Sets the name and version of the program for `identify`; it is cut to 32 bytes.
    #[must_use]
    pub fn agent(mut self, agent: &str) -> EndpointConfig {
        let mut end = agent.len().min(strowger_wire::limits::AGENT_BYTES_MAX);
        while !agent.is_char_boundary(end) {
            end -= 1;
        }
        self.agent = agent[..end].into();
        self
    }

    /// Sets whether handshakes run on a thread that handles no messages. The budget of initiations
    /// is then 2,000 a second instead of 200.
    #[must_use]
    pub fn has_own_thread(mut self, has: bool) -> EndpointConfig {
        self.has_own_thread = has;
        self
    }
}
