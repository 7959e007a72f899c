//! The policy: which peers may connect, and which protocols they may use.

use std::collections::HashSet;

use strowger_crypto::PeerId;

/// The access rules of an endpoint. The endpoint calls them on the control path, not for each
/// message.
pub trait Policy: Send + Sync {
    /// Whether this peer may connect: asked before a response by static key, and at the third
    /// message by PeerId. A peer that may not connect gets no answer.
    fn may_connect(&self, peer: &PeerId) -> bool;

    /// Whether this peer may use this protocol. The table for the peer contains no protocol that
    /// the peer may not use.
    fn may_use(&self, peer: &PeerId, protocol: &str) -> bool {
        let _ = (peer, protocol);
        true
    }

    /// Whether this peer is known: known peers have their own share of the budgets.
    fn is_known(&self, peer: &PeerId) -> bool {
        let _ = peer;
        false
    }

    /// Whether this node gives its link key to the peer, for a direct link.
    fn may_go_direct(&self, peer: &PeerId) -> Consent {
        let _ = peer;
        Consent::Never
    }
}

/// The answer to a request for a direct link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consent {
    /// This node does not give its link key.
    #[default]
    Never,
    /// The program is asked.
    Ask,
    /// This node gives its link key.
    Yes,
}

/// Every peer may connect and use every protocol.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anyone;

impl Policy for Anyone {
    fn may_connect(&self, _: &PeerId) -> bool {
        true
    }
}

/// Only these peers may connect; they may use every protocol.
#[derive(Clone, Debug, Default)]
pub struct Only(HashSet<PeerId>);

impl Only {
    /// A policy that allows these peers.
    pub fn new(peers: impl IntoIterator<Item = PeerId>) -> Only {
        Only(peers.into_iter().collect())
    }
}

impl Policy for Only {
    fn may_connect(&self, peer: &PeerId) -> bool {
        self.0.contains(peer)
    }

    fn is_known(&self, peer: &PeerId) -> bool {
        self.0.contains(peer)
    }
}
