//! When free chunks run low, moves waiting frames out of the chunks into which ports receive.

use super::Worker;
use crate::{discard::Discard, limits::EGRESS_DRAIN_WINDOW_NS_LOG2};

impl Worker {
    /// Moves the frames of contended queues to chunks that are reserved for waiting frames. Frames
    /// for which no such chunk is free are dropped and counted as `egress_full`.
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
                self.tx.pool.reclaim(); // the next queue may use the chunks that this one has freed
            }
        }
    }
}
