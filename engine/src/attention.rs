//! Flags with which the slow path asks workers to wake it for completions or for frames.
//!
//! The slow path asks for completions while a change is in progress, and for frames while no link
//! carries frames. The first worker that then forwards a frame wakes the slow path once. After that
//! the slow path reads the counters at intervals.

use strowger_frame::sleep::SleepFlag;

/// The flags. The slow path and all workers share them.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    completions: SleepFlag,
    frames: SleepFlag,
}

impl Attention {
    /// Asks workers to wake the slow path for completions. After this call the caller must check
    /// the completion rings once more.
    pub(crate) fn want_completions(&self) {
        self.completions.fall_asleep();
    }

    /// Stops asking for completions.
    pub(crate) fn ignore_completions(&self) {
        self.completions.wake_up();
    }

    /// Whether a worker that has completed a command must wake the slow path.
    pub(crate) fn must_tell_completion(&self) -> bool {
        self.completions.must_wake()
    }

    /// Asks workers to wake the slow path for frames. After this call the caller must read the
    /// frame counters once more.
    pub(crate) fn want_frames(&self) {
        self.frames.fall_asleep();
    }

    /// Stops asking for frames.
    pub(crate) fn ignore_frames(&self) {
        self.frames.wake_up();
    }

    /// Whether the slow path has asked for frames and no worker has woken it since.
    pub(crate) fn wants_frames(&self) -> bool {
        self.frames.is_asleep()
    }

    /// Whether a worker that has switched frames must wake the slow path. This is usually one load.
    ///
    /// A worker may miss a request that is a few nanoseconds old, because there is no fence between
    /// the counters and this load. The worker that switches the next frame sees the request. If no
    /// frame follows, the slow path sees in the counters, at its next timer, that this worker has
    /// switched a frame.
    #[inline]
    pub(crate) fn must_tell_frames(&self) -> bool {
        self.frames.is_asleep() && self.frames.must_wake()
    }
}
