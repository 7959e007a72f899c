//! What connects one worker to the slow path: commands and completions, punts, and the waker.

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

/// One worker's ends of everything that it shares with the slow path. The slow path makes it.
pub(crate) struct SlowPath {
    pub(crate) commands: Consumer<Command>,
    pub(crate) reports: Producer<Completion>,
    pub(crate) punts: Arc<PuntQueues>,
    /// Where answers to handshakes are awaited.
    pub(crate) awaited: Arc<AwaitedPlaces>,
    /// Discards of frames whose port is another worker's, or gone.
    pub(crate) orphan_drops: Arc<DiscardTally>,
    /// Frames that this worker made for the slow path.
    pub(crate) frames_made: Arc<Counter>,
    /// What makes the switch's own time of the caller's.
    pub(crate) skew: Arc<Counter>,
    /// Wakes the slow path.
    pub(crate) waker: Option<Arc<dyn Wake>>,
    /// There is something new for the slow path to read.
    pub(crate) has_news: bool,
}

impl SlowPath {
    /// A command was completed: the slow path is woken if it waits for that.
    pub(super) fn note_completion(&mut self) {
        self.has_news |= self.punts.attention.must_tell_completion();
    }

    /// Frames were switched: the slow path is woken if it waits for traffic.
    #[inline]
    pub(super) fn note_frames(&mut self) {
        self.has_news |= self.punts.attention.must_tell_frames();
    }

    /// Wakes the slow path if there is news.
    pub(super) fn wake_if_news(&mut self) {
        if mem::take(&mut self.has_news)
            && let Some(waker) = &self.waker
        {
            waker.wake();
        }
    }
}
