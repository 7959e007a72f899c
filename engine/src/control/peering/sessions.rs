//! The sessions of all links: where the frames of each are opened, and which indices are free.

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

/// A session whose keys a worker has.
struct OpenSession {
    link: Mark,
    /// The worker that opens its frames.
    owner: u8,
    /// The worker that it is moving to.
    moving: Option<u8>,
}

/// See the module.
pub(super) struct Sessions {
    open: HashMap<SessionIndex, OpenSession>,
    indices: Indices,
    /// Indices that no session has any more, and when the workers drop their keys.
    retired: Vec<(Nanos, SessionIndex)>,
}

impl Sessions {
    pub(super) fn new(places: Arc<AwaitedPlaces>) -> Self {
        Self { open: HashMap::new(), indices: Indices::new(places), retired: Vec::new() }
    }

    /// Which indices are free or awaited.
    pub(super) fn indices(&mut self) -> &mut Indices {
        &mut self.indices
    }

    /// The answer to this index belongs to a peer's handshake.
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

    /// Gives the keys of a new session to the worker `owner`, and has the others hand its frames to it.
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

    /// Has every worker drop the keys of a session, if it has any, and frees its index.
    pub(super) fn close(&mut self, index: SessionIndex, out: &mut Outputs) {
        self.open.remove(&index);
        let was_attempt = self.indices.give_back(index);
        if !was_attempt {
            out.workers.command_all(|_| Command::Close(index));
        }
    }

    /// The authenticated frames of a session come in by another worker than opens them: it moves there.
    pub(super) fn migrate(&mut self, index: SessionIndex, worker: u8, out: &mut Outputs) {
        let Some(session) = self.open.get_mut(&index) else { return };
        if session.owner == worker || session.moving.is_some() {
            return;
        }
        session.moving = Some(worker);
        // The completion returns its keys and replay windows, which go to the new worker.
        out.workers.command(usize::from(session.owner), Command::Close(index));
        out.workers.after_all(worker, Step::Moved);
    }

    /// A worker has returned the keys of a session that is over, or that moves. Returns the link and its new
    /// worker if it moves.
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

    /// All sessions that were moving to this worker have moved.
    pub(super) fn end_moves(&mut self, to: u8) {
        for session in self.open.values_mut() {
            session.moving.take_if(|moving| *moving == to);
        }
    }

    /// Frees all indices after a recovery, except those of keys that workers have. `owns` returns whether a
    /// peer's session has an index.
    pub(super) fn reset(&mut self, owns: impl Fn(SessionIndex) -> bool, now: Now) {
        self.retired.clear();
        self.indices.reset();
        let open: Vec<SessionIndex> = self.open.keys().copied().collect();
        self.retire_all(&open, owns, now);
    }

    /// Ends the sessions of this list that are not known here, when their keys are too old.
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

    /// No peer's session has these: frames under them are opened for as long as keys may live.
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
            // A place that is taken belongs to a newer session, whose keys have replaced these.
            if !is_known && self.indices.take_index(index) {
                self.retired.push((until, index));
            }
        }
    }

    /// Drops the keys of retired sessions that are too old.
    pub(super) fn close_retired(&mut self, now: Now, out: &mut Outputs) {
        let is_over = |&(until, _): &(Nanos, SessionIndex)| until <= nanos(now);
        let (over, left): (Vec<_>, Vec<_>) = self.retired.drain(..).partition(is_over);
        self.retired = left;
        for (_, index) in over {
            self.close(index, out);
        }
    }

    /// When [`close_retired`](Self::close_retired) has something to do.
    pub(super) fn next_timeout(&self) -> Option<Nanos> {
        self.retired.iter().map(|(until, _)| *until).min()
    }
}

/// Has one worker open a session's frames, and the others hand them to it.
fn open_at(session: Box<RxSession>, owner: u8, out: &mut Outputs) {
    let index = session.index;
    for worker in (0..out.workers.len()).filter(|worker| *worker != usize::from(owner)) {
        out.workers.command(worker, Command::OpenAtWorker(index, owner));
    }
    out.workers.command(usize::from(owner), Command::Open(session));
}
