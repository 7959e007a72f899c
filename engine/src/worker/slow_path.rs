//! The connection of one worker to the slow path: commands and completions, punts, and the waker.

use std::{mem, sync::Arc};

use strowger_frame::{
    Wake,
    ring::{Consumer, Producer},
    tally::Counter,
};

use crate::{
    command::{Command, Completion, PuntQueues},
    discard::DiscardTally,
    session::AwaitedPlaces,
};

/// One worker's ends of the queues and counters that it shares with the slow path. The slow path
/// allocates them.
pub(crate) struct SlowPath {
    pub(crate) commands: Consumer<Command>,
    pub(crate) completions: Producer<Completion>,
    pub(crate) punts: Arc<PuntQueues>,
    /// Shows which session indices wait for answers to handshakes.
    pub(crate) awaited: Arc<AwaitedPlaces>,
    /// Counts drops of frames whose port belongs to another worker or was removed.
    pub(crate) orphan_drops: Arc<DiscardTally>,
    /// The number of frames that this worker made for the slow path.
    pub(crate) frames_made: Arc<Counter>,
    /// The difference between the switch's clock and the caller's.
    pub(crate) skew: Arc<Counter>,
    /// Wakes the slow path.
    pub(crate) waker: Option<Arc<dyn Wake>>,
    /// Whether the worker has new punts, notes or completions for the slow path.
    pub(crate) has_news: bool,
}

impl SlowPath {
    /// Notes a completed command: [`wake_if_news`](Self::wake_if_news) then wakes the slow path, if it
    /// waits for completions.
    pub(super) fn note_completion(&mut self) {
        self.has_news |= self.punts.attention.must_tell_completion();
    }

    /// Notes received frames: [`wake_if_news`](Self::wake_if_news) then wakes the slow path, if it waits
    /// for traffic.
    #[inline]
    pub(super) fn note_frames(&mut self) {
        self.has_news |= self.punts.attention.must_tell_frames();
    }

    /// Wakes the slow path if the worker has something new for it.
    pub(super) fn wake_if_news(&mut self) {
        if mem::take(&mut self.has_news)
            && let Some(waker) = &self.waker
        {
            waker.wake();
        }
    }
}
