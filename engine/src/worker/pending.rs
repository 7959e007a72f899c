//! Frames that wait for a link's keys, in the order of arrival. The worker notifies the slow path,
//! which begins a handshake and then sends a command to send or drop the frames.

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
    /// Queues a frame that its next hop refused for lack of keys, if a handshake is likely to
    /// succeed and there is a free place. Otherwise returns the frame.
    #[cold]
    pub(super) fn hold_for_keys(
        &mut self,
        egress: Mark,
        discard: Discard,
        waiting: PendingFrame,
    ) -> Result<(), (Discard, Frame)> {
        let lacks_keys = matches!(discard, Discard::LinkDown | Discard::KeysExpired);
        let link = self.links.get_mut(egress).filter(|link| lacks_keys && link.accepts_pending);
        let Some(link) = link else { return Err((discard, waiting.frame)) };
        // If the note is lost because its queue is full, the slow path sees the frame in this
        // counter.
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
        self.note_often(egress, Punt::Unsealed(egress));
        kept
    }

    /// Sends the frames that waited for keys, before any later frame. The link has keys now.
    #[cold]
    pub(super) fn send_pending(&mut self, egress: Mark) {
        let Some(link) = self.links.get_mut(egress) else { return };
        let pending = mem::take(&mut link.pending);
        self.backlog.pending_frames -= pending.len();
        for waiting in pending {
            self.send_from_pending(egress, waiting);
        }
    }

    /// Drops the frames that wait for keys, because the peer does not answer. No further frames are
    /// queued until the next `Seal` or `Unseal` command.
    #[cold]
    pub(super) fn drop_pending(&mut self, egress: Mark) {
        let Some(link) = self.links.get_mut(egress) else { return };
        link.accepts_pending = false;
        let pending = mem::take(&mut link.pending);
        self.backlog.pending_frames -= pending.len();
        for PendingFrame { frame, .. } in pending {
            self.drop_at_egress(egress, Discard::LinkDown, &frame);
        }
    }

    /// Sends one frame to a next hop of this worker. If the link lacks keys, the frame waits for
    /// them or is dropped.
    pub(super) fn send_from_pending(&mut self, egress: Mark, waiting: PendingFrame) {
        let PendingFrame { mut frame, ingress_slot, is_control } = waiting;
        let Self { links, tx, .. } = self;
        let prepared = match links.get_mut(egress) {
            None => Err(Discard::ExitGone),
            Some(link) => link.encapsulate_special(&mut frame, ingress_slot, is_control, tx),
        };
        let discard = match prepared {
            Ok(is_control) => {
                let verdict = Verdict::transmit(egress, is_control);
                return self.dispatch(Some(frame).into_iter(), &[verdict], NO_QUEUE);
            }
            Err(discard) => discard,
        };
        let kept =
            self.hold_for_keys(egress, discard, PendingFrame { frame, ingress_slot, is_control });
        if let Err((discard, frame)) = kept {
            self.drop_at_egress(egress, discard, &frame);
        }
    }

    fn drop_at_egress(&mut self, egress: Mark, discard: Discard, frame: &Frame) {
        self.notify_drop(discard, frame, Some(egress));
        self.count_at_egress(egress, discard);
    }
}
