//! The session of a connection. While it has no keys and needs none, only what must be kept of it
//! takes memory.

use strowger_crypto::handshake::{Refused, TimestampGuard};
use strowger_crypto::session::{IdleSession, Output, Session, SessionConfig, SessionTimes};
use strowger_crypto::{Identity, Nanos, PeerId, Psk, StaticPublic};
use strowger_wire::link_header::SessionIndex;

use crate::config::EndpointConfig;
use crate::shared::Shared;

/// The session of a connection.
#[derive(Debug)]
pub(crate) enum Keys {
    Full(Box<Session>),
    Idle(Box<IdleSession>),
    /// While the session is made again.
    None,
}

fn config_of(identity: Identity, config: &EndpointConfig) -> SessionConfig {
    SessionConfig {
        peer: None,
        identity: Some(identity),
        psk: Psk::NONE,
        offer: Shared::base_offer(config),
        provider: config.provider,
        wall_at_zero: config.wall_at_zero,
        times: &SessionTimes::CONNECTION,
    }
}

impl Keys {
    pub(crate) fn new(identity: Identity, config: &EndpointConfig) -> Keys {
        let mut session = Session::new(config_of(identity, config));
        if config.hide_identity {
            session.hide_identity();
        }
        Keys::Full(Box::new(session))
    }

    /// The session, if it is not idle.
    pub(crate) fn full(&mut self) -> Option<&mut Session> {
        match self {
            Keys::Full(session) => Some(session),
            Keys::Idle(_) | Keys::None => None,
        }
    }

    fn get(&self) -> Option<&Session> {
        match self {
            Keys::Full(session) => Some(session),
            Keys::Idle(_) | Keys::None => None,
        }
    }

    /// The session, which is made again if it is idle. Its hello must be set again then.
    pub(crate) fn restore(&mut self, peer: &PeerId, config: &EndpointConfig) -> &mut Session {
        if let Keys::Idle(_) = self
            && let Keys::Idle(idle) = std::mem::replace(self, Keys::None)
        {
            let identity = peer.identity();
            let identity = identity.expect("the PeerId of a connection is made of its identity");
            *self = Keys::Full(Box::new(Session::restore(config_of(identity, config), *idle)));
        }
        self.full().expect("it was made above")
    }

    /// Keeps only what is needed, if there are no keys and no handshake runs.
    pub(crate) fn reduce(&mut self) {
        if let Some(idle) = self.full().and_then(Session::reduce) {
            *self = Keys::Idle(Box::new(idle));
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.get().is_none()
    }

    /// As [`Session::peer`].
    pub(crate) fn peer(&self) -> Option<&StaticPublic> {
        match self {
            Keys::Full(session) => session.peer(),
            Keys::Idle(idle) => idle.peer(),
            Keys::None => None,
        }
    }

    /// As [`Session::guard`].
    pub(crate) fn guard(&self) -> TimestampGuard {
        match self {
            Keys::Full(session) => session.guard(),
            Keys::Idle(idle) => idle.guard(),
            Keys::None => TimestampGuard::default(),
        }
    }

    /// As [`Session::suggest_key`].
    pub(crate) fn suggest_key(&mut self, key: &StaticPublic) {
        match self {
            Keys::Full(session) => session.suggest_key(key),
            Keys::Idle(idle) => idle.suggest_key(key),
            Keys::None => {}
        }
    }

    /// As [`Session::raise_guard`], for a session that is not idle; an idle one is unchanged.
    pub(crate) fn raise_guard(&mut self, guard: TimestampGuard) {
        if let Some(session) = self.full() {
            session.raise_guard(guard);
        }
    }

    /// As [`Session::insist_on_key`], for a session that is not idle; an idle one is unchanged.
    pub(crate) fn insist_on_key(&mut self, insists: bool) {
        if let Some(session) = self.full() {
            session.insist_on_key(insists);
        }
    }

    /// As [`Session::close`].
    pub(crate) fn close(&mut self, outputs: &mut Vec<Output>) {
        if let Some(session) = self.full() {
            session.close(outputs);
        }
    }

    /// As [`Session::drop_former`].
    pub(crate) fn drop_former(&mut self, outputs: &mut Vec<Output>) {
        if let Some(session) = self.full() {
            session.drop_former(outputs);
        }
    }

    /// As [`Session::reset`].
    pub(crate) fn reset(&mut self) {
        match self {
            Keys::Full(session) => session.reset(),
            Keys::Idle(idle) => idle.reset(),
            Keys::None => {}
        }
    }

    /// As [`Session::check_response`].
    pub(crate) fn check_response(&self, message: &[u8]) -> Result<(), Refused> {
        self.get().ok_or(Refused::NotOurs)?.check_response(message)
    }

    /// As [`Session::is_up`].
    pub(crate) fn is_up(&self) -> bool {
        self.get().is_some_and(Session::is_up)
    }

    /// As [`Session::current_index`].
    pub(crate) fn current_index(&self) -> Option<SessionIndex> {
        self.get()?.current_index()
    }

    /// As [`Session::owns`].
    pub(crate) fn owns(&self, index: SessionIndex) -> bool {
        self.get().is_some_and(|session| session.owns(index))
    }

    /// As [`Session::only_opens`].
    pub(crate) fn only_opens(&self, index: SessionIndex) -> bool {
        self.get().is_some_and(|session| session.only_opens(index))
    }

    /// As [`Session::awaits`].
    pub(crate) fn awaits(&self, index: SessionIndex) -> bool {
        self.get().is_some_and(|session| session.awaits(index))
    }

    /// As [`Session::awaits_confirmation`].
    pub(crate) fn awaits_confirmation(&self) -> bool {
        self.get().is_some_and(Session::awaits_confirmation)
    }

    /// As [`Session::repeats_msg3`].
    pub(crate) fn repeats_msg3(&self) -> bool {
        self.get().is_some_and(Session::repeats_msg3)
    }

    /// As [`Session::has_attempt`].
    pub(crate) fn has_attempt(&self) -> bool {
        self.get().is_some_and(Session::has_attempt)
    }

    /// As [`Session::next_timeout`].
    pub(crate) fn next_timeout(&self) -> Option<Nanos> {
        self.get()?.next_timeout()
    }

    /// Bytes of memory behind this value, without the states of handshakes that wait.
    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Keys::Full(session) => size_of::<Session>() + session.memory_bytes(),
            Keys::Idle(idle) => size_of::<IdleSession>() + idle.memory_bytes(),
            Keys::None => 0,
        }
    }
}
