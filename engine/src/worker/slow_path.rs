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
    /// Shows for which session indices the switch waits for a response or cookie reply.
    pub(crate) awaited: Arc<AwaitedPlaces>,
    /// Counts drops of frames that belong to no port of this worker.
    pub(crate) orphan_drops: Arc<DiscardTally>,
    /// The number of frames that this worker made for the slow path.
    pub(crate) frames_made: Arc<Counter>,
    /// The switch's clock minus the caller's clock, in nanoseconds.
    pub(crate) skew: Arc<Counter>,
    /// Wakes the slow path.
    pub(crate) waker: Option<Arc<dyn Wake>>,
    /// Whether the worker has something new for the slow path: punts, notes, completions, or
    /// traffic that the slow path waits for.
    pub(crate) has_news: bool,
}

impl SlowPath {
    /// Notes a completed command. If the slow path waits for completions,
    /// [`wake_if_news`](Self::wake_if_news) then wakes it.
    pub(super) fn note_completion(&mut self) {
        self.has_news |= self.punts.attention.must_tell_completion();
    }

    /// Notes received frames. If the slow path waits for traffic,
    /// [`wake_if_news`](Self::wake_if_news) then wakes it.
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
