//! The keys of one handshake, and until when they are good for what. It holds no key.

use strowger_wire::link_header::SessionIndex;

use crate::limits::{
    OPEN_REFUSED_AFTER, REKEY_AFTER, REKEY_AFTER_AS_RESPONDER, SEAL_REFUSED_AFTER,
};
use crate::time::Nanos;

/// Where the keys of one handshake stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generation {
    pub(super) index: SessionIndex,
    pub(super) born: Nanos,
    pub(super) initiator: bool,
    /// Whether anything was opened under it.
    pub(super) confirmed: bool,
    /// Whether they come of IK, so that whoever began has seen that the other has them, too.
    pub(super) by_ik: bool,
}

impl Generation {
    pub(super) fn rekey_at(&self) -> Nanos {
        self.born.plus(if self.initiator { REKEY_AFTER } else { REKEY_AFTER_AS_RESPONDER })
    }

    pub(super) fn seals_until(&self) -> Nanos {
        self.born.plus(SEAL_REFUSED_AFTER)
    }

    pub(super) fn opens_until(&self) -> Nanos {
        self.born.plus(OPEN_REFUSED_AFTER)
    }
}
