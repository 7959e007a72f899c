//! The sessions of all links: the worker that opens the frames of each session, and the free
//! session indices.

use std::{collections::HashMap, sync::Arc};

use strowger_crypto::{Nanos, Openers, limits::OPEN_REFUSED_AFTER};
use strowger_frame::Mark;
use strowger_wire::link_header::SessionIndex;

use super::{
    indices::{Asker, Indices},
    nanos,
};
use crate::{
    Now,
    command::Command,
    control::{base::Outputs, workers::Step},
    session::{AwaitedPlaces, RxSession},
};

/// A session whose keys are at a worker.
struct OpenSession {
    link: Mark,
    /// The worker that opens the session's frames.
    owner: u8,
    /// The worker to which the session is moving; `None` if it is not moving.
    moving: Option<u8>,
}

/// The sessions of all links, by index.
pub(super) struct Sessions {
    open: HashMap<SessionIndex, OpenSession>,
    indices: Indices,
    /// Session indices that belong to no peer's session, and the times at which the workers must
    /// drop the keys with these indices.
    retired: Vec<(Nanos, SessionIndex)>,
}

impl Sessions {
    pub(super) fn new(places: Arc<AwaitedPlaces>) -> Self {
        Self { open: HashMap::new(), indices: Indices::new(places), retired: Vec::new() }
    }

    /// The session indices that are free, and those for which a response is awaited.
    pub(super) fn indices(&mut self) -> &mut Indices {
        &mut self.indices
    }

    /// Notes that a response with this session index belongs to a peer's handshake.
    pub(super) fn await_answer(&mut self, index: SessionIndex, link: Mark) {
        self.indices.await_answer(index, Asker::Peer(link));
    }

    /// The link of a session.
    pub(super) fn link_of(&self, index: SessionIndex) -> Option<Mark> {
        self.open.get(&index).map(|session| session.link)
    }

    /// The worker that opens the frames of a session.
    pub(super) fn owner_of(&self, index: SessionIndex) -> Option<u8> {
        self.open.get(&index).map(|session| session.owner)
    }

    /// Sends the keys of a new session to the worker `owner`, and makes the other workers hand the
    /// session's frames to it.
    pub(super) fn open(
        &mut self,
        index: SessionIndex,
        link: Mark,
        owner: u8,
        openers: Openers,
        out: &mut Outputs,
    ) {
        self.indices.settle(index);
        self.open.insert(index, OpenSession { link, owner, moving: None });
        open_at(Box::new(RxSession::new(index, link, openers)), owner, out);
    }

    /// Frees the index of a session or of a handshake attempt. Makes every worker drop the keys of
    /// the session; an attempt has none.
    pub(super) fn close(&mut self, index: SessionIndex, out: &mut Outputs) {
        self.open.remove(&index);
        let was_attempt = self.indices.give_back(index);
        if !was_attempt {
            out.workers.command_all(|_| Command::Close(index));
        }
    }

    /// Moves a session to the worker at which its authenticated frames arrive.
    pub(super) fn migrate(&mut self, index: SessionIndex, worker: u8, out: &mut Outputs) {
        let Some(session) = self.open.get_mut(&index) else { return };
        if session.owner == worker || session.moving.is_some() {
            return;
        }
        session.moving = Some(worker);
        // The completion of this command returns the session's keys and replay windows. The slow
        // path then sends them to the new worker.
        out.workers.command(usize::from(session.owner), Command::Close(index));
        out.workers.after_all(worker, Step::Moved);
    }

    /// Handles the keys that a worker has returned: the session has ended or is moving. Returns the
    /// link and the new worker if the session is moving.
    pub(super) fn take_back(
        &mut self,
        returned: Box<RxSession>,
        out: &mut Outputs,
    ) -> Option<(Mark, u8)> {
        let session = self.open.get_mut(&returned.index)?;
        let to = session.moving.filter(|_| session.link == returned.link)?;
        session.owner = to;
        let link = session.link;
        open_at(returned, to, out);
        out.workers.after_all(to, Step::Moved);
        Some((link, to))
    }

    /// Notes that all sessions that were moving to this worker have moved.
    pub(super) fn end_moves(&mut self, to: u8) {
        for session in self.open.values_mut() {
            session.moving.take_if(|moving| *moving == to);
        }
    }

    /// Frees the session indices after a recovery, except those whose keys workers have. `owns`
    /// returns whether a session index belongs to a peer's session.
    pub(super) fn reset(&mut self, owns: impl Fn(SessionIndex) -> bool, now: Now) {
        self.retired.clear();
        self.indices.reset();
        let open: Vec<SessionIndex> = self.open.keys().copied().collect();
        self.retire_all(&open, owns, now);
    }

    /// Marks the listed sessions without a record in the slow path as retired. These sessions end
    /// when their keys expire.
    pub(super) fn retire_unknown(
        &mut self,
        sessions: &[SessionIndex],
        owns: impl Fn(SessionIndex) -> bool,
        now: Now,
    ) {
        let is_unknown = |index: &&SessionIndex| !self.open.contains_key(*index);
        let unknown: Vec<_> = sessions.iter().filter(is_unknown).copied().collect();
        self.retire_all(&unknown, owns, now);
    }

    /// Retires sessions that belong to no peer. Workers still open frames with their keys until the
    /// keys expire.
    fn retire_all(
        &mut self,
        indices: &[SessionIndex],
        owns: impl Fn(SessionIndex) -> bool,
        now: Now,
    ) {
        let until = nanos(now).plus(OPEN_REFUSED_AFTER);
        for &index in indices {
            let is_retired = self.retired.iter().any(|&(_, other)| other == index);
            let is_known = is_retired || owns(index);
            // Skip a place that is in use: it belongs to a newer session, whose keys have replaced
            // these.
            if !is_known && self.indices.take_index(index) {
                self.retired.push((until, index));
            }
        }
    }

    /// Drops the expired keys of retired sessions.
    pub(super) fn close_retired(&mut self, now: Now, out: &mut Outputs) {
        let is_over = |&(until, _): &(Nanos, SessionIndex)| until <= nanos(now);
        let (over, left): (Vec<_>, Vec<_>) = self.retired.drain(..).partition(is_over);
        self.retired = left;
        for (_, index) in over {
            self.close(index, out);
        }
    }

    /// The time at which [`close_retired`](Self::close_retired) has work.
    pub(super) fn next_timeout(&self) -> Option<Nanos> {
        self.retired.iter().map(|(until, _)| *until).min()
    }
}

/// Makes one worker open a session's frames, and makes the other workers hand the frames to it.
fn open_at(session: Box<RxSession>, owner: u8, out: &mut Outputs) {
    let index = session.index;
    for worker in (0..out.workers.len()).filter(|worker| *worker != usize::from(owner)) {
        out.workers.command(worker, Command::OpenAtWorker(index, owner));
    }
    out.workers.command(usize::from(owner), Command::Open(session));
}
