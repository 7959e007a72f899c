//! Frames that wait at exits while memory runs low: none of them goes on holding memory that ports
//! receive into. It never runs while there is memory enough, and then copies nothing.

use super::{Worker, live_mut};
use crate::discard::Discard;

impl Worker {
    /// Settles what ports have left at exits. What an exit has no share left for is
    /// dropped there, and counted as `egress_full`.
    #[cold]
    pub(super) fn settle(&mut self) {
        for nth in 0..self.contended.len() {
            let mark = self.contended[nth];
            let Some(link) = live_mut(&mut self.links, mark) else { continue };
            for _ in 0..link.egress.settle(&mut self.tx.pool) {
                self.count_at_exit(mark, Discard::EgressFull);
            }
        }
    }
}
