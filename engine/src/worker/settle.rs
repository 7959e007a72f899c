//! Frames that wait at exits while memory runs low: none of them goes on holding memory that ports
//! receive into. It never runs while there is memory enough, and then copies nothing.

use super::Worker;
use crate::{discard::Discard, limits::EGRESS_DRAIN_WINDOW_NS_LOG2};

impl Worker {
    /// Settles what ports have left at exits. What an exit has no share left for is
    /// dropped there, and counted as `egress_full`.
    #[cold]
    pub(super) fn settle(&mut self) {
        let window = self.tx.now.0 >> EGRESS_DRAIN_WINDOW_NS_LOG2;
        for nth in 0..self.backlog.contended.len() {
            let mark = self.backlog.contended[nth];
            let Some(link) = self.links.get_mut(mark) else { continue };
            let drains = link.drain.recent(window, link.tally.frames_out.read());
            let dropped = link.egress.settle(&mut self.tx.pool, drains);
            for _ in 0..dropped {
                self.count_at_egress(mark, Discard::EgressFull);
            }
            if dropped > 0 {
                self.tx.pool.reclaim(); // the next exit may have what they gave up
            }
        }
    }
}
