//! Opens sealed frames, and queues notes of what they prove about a peer.

use strowger_frame::Frame;
use strowger_wire::{limits::TAG_BYTES, link_header::Kind};

use super::{Worker, verdict::Verdict};
use crate::{
    Now,
    command::Punt,
    discard::Discard,
    link::{Opened, session_of},
    mark::HANDED_OFF,
    session::{Place, Vouched},
};

impl Worker {
    /// Opens a frame with its session's keys, and queues notes of what the frame proves.
    #[inline(never)] // a call costs little beside an AEAD, and the plain path stays short
    pub(super) fn open_sealed<'f>(
        &mut self,
        frame: &'f mut Frame,
        kind: Kind,
        queue: usize,
        now: Now,
    ) -> Result<Opened<'f>, Verdict> {
        let session = match self.sessions.find(session_of(frame)?)? {
            Place::Here(session) => session,
            Place::OtherWorker(_, worker) => return Err(Verdict::wrong_worker(*worker)),
        };
        let (index, from) = (session.index, frame.mark());
        let Vouched { first, opened } = session.open(now, frame)?;
        let link = session.link;
        if from != HANDED_OFF {
            session.note_own_port(now);
        }
        if matches!(kind, Kind::PathChallenge | Kind::PathResponse) {
            // The message does not prove the link's address, because a peer answers each challenge,
            // whatever its source address.
            let may = session.may_punt_link_message(now);
            let migrate = from == HANDED_OFF && session.may_note_migrated(now);
            if first {
                self.note(Punt::FirstFrame(index));
            }
            if migrate {
                self.note(Punt::Migrate(index, self.handed_off_by));
            }
            return Err(if may {
                Verdict::link_message(kind, from)
            } else {
                Discard::OverBudget.into()
            });
        }
        let is_heard = first || opened.is_keepalive();
        if is_heard || from != link {
            let note_received = first || is_heard && session.may_note_heard(now);
            let migrate = from == HANDED_OFF && session.may_note_migrated(now);
            let roamed = from != HANDED_OFF && from != link && session.may_note_roamed(now);
            if note_received {
                self.note(Punt::FirstFrame(index));
                if from == link
                    && let Some(queue) = self.ports.at(queue)
                {
                    queue.port.authenticated(opened.frame());
                }
            }
            if migrate {
                self.note(Punt::Migrate(index, self.handed_off_by));
            }
            if roamed {
                self.note_roamed(link, from, opened.frame().len() + TAG_BYTES, queue);
            }
        }
        Ok(opened)
    }
}
