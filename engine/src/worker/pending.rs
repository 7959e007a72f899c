//! Frames that wait for a quiet link's keys: a few, in the order in which they came. The slow path is
//! told, begins a handshake, and ends the wait one way or the other; nothing here counts time.

use std::mem;

use strowger_frame::{Frame, Mark};

use super::{NO_QUEUE, Worker, verdict::Verdict};
use crate::{
    command::Punt,
    discard::Discard,
    limits::{FRAMES_WAITING_MAX, LINK_FRAMES_WAITING_MAX},
    link::PendingFrame,
};

impl Worker {
    /// Keeps a frame that its exit refused for want of keys, if the link may be woken and there is
    /// room. Else it comes back.
    #[cold]
    pub(super) fn hold_for_keys(
        &mut self,
        exit: Mark,
        discard: Discard,
        waiting: PendingFrame,
    ) -> Result<(), (Discard, Frame)> {
        let wants_keys = matches!(discard, Discard::LinkDown | Discard::KeysExpired);
        let link = self.links.get_mut(exit).filter(|link| wants_keys && link.accepts_pending);
        let Some(link) = link else { return Err((discard, waiting.frame)) };
        // Where the note finds no room, the slow path sees the count.
        link.tally.unsealed.add(1);
        let has_room = link.pending.len() < LINK_FRAMES_WAITING_MAX;
        let has_place = has_room && self.backlog.pending_frames < FRAMES_WAITING_MAX;
        let kept = if has_place {
            link.pending.push(waiting);
            self.backlog.pending_frames += 1;
            Ok(())
        } else {
            Err((discard, waiting.frame))
        };
        self.note_often(exit, Punt::Unsealed(exit));
        kept
    }

    /// The link has keys: what waited for them leaves, before anything that comes now.
    #[cold]
    pub(super) fn send_pending(&mut self, exit: Mark) {
        let Some(link) = self.links.get_mut(exit) else { return };
        let waited = mem::take(&mut link.pending);
        self.backlog.pending_frames -= waited.len();
        for waiting in waited {
            self.send_from_pending(exit, waiting);
        }
    }

    /// Nobody is there: what waited goes no further, and nothing waits there any more.
    #[cold]
    pub(super) fn drop_pending(&mut self, exit: Mark) {
        let Some(link) = self.links.get_mut(exit) else { return };
        link.accepts_pending = false;
        let waited = mem::take(&mut link.pending);
        self.backlog.pending_frames -= waited.len();
        for PendingFrame { frame, .. } in waited {
            self.drop_at_egress(exit, Discard::LinkDown, &frame);
        }
    }

    /// Lets one frame leave by an exit of this worker, if that takes it.
    pub(super) fn send_from_pending(&mut self, exit: Mark, waiting: PendingFrame) {
        let PendingFrame { mut frame, ingress_slot, is_control } = waiting;
        let Self { links, tx, .. } = self;
        let prepared = match links.get_mut(exit) {
            None => Err(Discard::ExitGone),
            Some(link) => link.encapsulate_special(&mut frame, ingress_slot, is_control, tx),
        };
        let discard = match prepared {
            Ok(is_control) => {
                let verdict = Verdict::transmit(exit, is_control);
                return self.dispatch(Some(frame).into_iter(), &[verdict], NO_QUEUE);
            }
            Err(discard) => discard,
        };
        let kept =
            self.hold_for_keys(exit, discard, PendingFrame { frame, ingress_slot, is_control });
        if let Err((discard, frame)) = kept {
            self.drop_at_egress(exit, discard, &frame);
        }
    }

    fn drop_at_egress(&mut self, exit: Mark, discard: Discard, frame: &Frame) {
        self.notify_drop(discard, frame, Some(exit));
        self.count_at_egress(exit, discard);
    }
}
