//! How a session's keys come about: handshakes that it began and that have not been answered, and those
//! that it takes up. Nothing is sent here.

use crate::handshake::{Cookie, Refused, StampGuard, ik, xx};
use crate::identity::StaticPublic;
use crate::limits::RETRY_AFTER;
use crate::link_header::SessionIndex;
use crate::time::Nanos;

use super::{Context, Output, Session};

/// What waits for a response.
pub(super) enum Begun {
    Known(ik::AwaitResponse),
    Discover(xx::AwaitResponse),
}

impl Begun {
    pub(super) const fn index(&self) -> SessionIndex {
        match self {
            Begun::Known(state) => state.index(),
            Begun::Discover(state) => state.index(),
        }
    }

    pub(super) fn read_cookie(&self, message: &[u8]) -> Result<Cookie, Refused> {
        match self {
            Begun::Known(state) => state.read_cookie(message),
            Begun::Discover(state) => state.read_cookie(message),
        }
    }
}

/// A handshake that we began.
pub(super) struct Attempt {
    pub(super) state: Begun,
    pub(super) sent: Nanos,
    pub(super) again_at: Nanos,
}

/// Which side of an XX handshake a session comes from.
#[derive(Debug)]
pub enum Adopted {
    /// We began it.
    Initiator {
        /// The third message.
        third: Vec<u8>,
    },
    /// The peer began it.
    Responder {
        /// What is known of the peer's stamps.
        guard: StampGuard,
    },
}

impl Session {
    /// Where both began at once: the smaller key goes on, unless its message seems to be lost, or asks
    /// who is there.
    pub(super) fn goes_on(&self, context: &Context<'_>, theirs: &StaticPublic) -> bool {
        context.local.static_public() < theirs
            && self.attempt.as_ref().is_some_and(|attempt| {
                let is_known = matches!(attempt.state, Begun::Known(_));
                is_known && context.now.since(attempt.sent) < RETRY_AFTER
            })
    }

    /// The wall clock was set forward: stamps go on from there. `wall_at_zero` is that of
    /// [`SessionConfig`](super::SessionConfig); a lower one changes nothing.
    pub fn raise_wall(&mut self, wall_at_zero: u64) {
        self.config.wall_at_zero = self.config.wall_at_zero.max(wall_at_zero);
    }

    /// Begins nothing before this, and gives up what it had begun. What the peer begins is answered.
    pub fn rest_until(&mut self, until: Nanos, outputs: &mut Vec<Output>) {
        self.drop_attempt(outputs);
        self.rest_until = self.rest_until.max(until);
    }
}
