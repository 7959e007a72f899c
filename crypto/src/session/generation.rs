//! Age and confirmation of the keys of one handshake.

use strowger_wire::link_header::SessionIndex;

use crate::limits::{OPEN_REFUSED_AFTER, SEAL_REFUSED_AFTER};
use crate::time::Nanos;

use super::SessionTimes;

/// One generation of keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generation {
    pub(super) index: SessionIndex,
    pub(super) born: Nanos,
    pub(super) initiator: bool,
    /// Whether a packet under these keys was opened.
    pub(super) confirmed: bool,
    /// Whether these keys come from IK. In IK the response proves to the initiator that the
    /// responder has the keys.
    pub(super) by_ik: bool,
    /// Whether the keys come from an XX handshake of the peer that crossed a handshake of this end,
    /// whose keys this end keeps. They only open packets that the peer sealed with them meanwhile
    /// (wire.md W6-213).
    pub(super) crossed: bool,
}

impl Generation {
    pub(super) fn rekey_at(&self, times: &SessionTimes) -> Nanos {
        let SessionTimes { rekey_after, rekey_after_as_responder, .. } = *times;
        self.born.plus(if self.initiator { rekey_after } else { rekey_after_as_responder })
    }

    pub(super) fn seals_until(&self) -> Nanos {
        self.born.plus(SEAL_REFUSED_AFTER)
    }

    pub(super) fn opens_until(&self) -> Nanos {
        self.born.plus(OPEN_REFUSED_AFTER)
    }
}
