//! Frames that wait at exits while memory runs low: none of them goes on holding memory that ports
//! receive into. It never runs while there is memory enough, and then copies nothing.

use super::Worker;
use crate::discard::Discard;

impl Worker {
    /// Settles what ports have left at exits. What an exit has no share left for is
    /// dropped there, and counted as `egress_full`.
    #[cold]
    pub(super) fn settle(&mut self) {
        for nth in 0..self.backlog.contended.len() {
            let mark = self.backlog.contended[nth];
            let Some(link) = self.links.get_mut(mark) else { continue };
            for _ in 0..link.egress.settle(&mut self.tx.pool) {
                self.count_at_exit(mark, Discard::EgressFull);
            }
        }
    }
}
