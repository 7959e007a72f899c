//! What the slow path wants to be woken for, beside what workers punt to it.
//!
//! It waits for completions only while a change is under way, and for frames only while no link moves any:
//! so a worker that forwards rings once, and the slow path looks at the counters while they move.

use strowger_frame::sleep::SleepFlag;

/// Shared by the slow path and all workers.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    completions: SleepFlag,
    frames: SleepFlag,
}

impl Attention {
    /// The slow path waits for what workers complete. It looks at their rings once more after this.
    pub(crate) fn want_completions(&self) {
        self.completions.fall_asleep();
    }

    /// It does not wait for them any more.
    pub(crate) fn ignore_completions(&self) {
        self.completions.wake_up();
    }

    /// A worker has completed something: whether it rings.
    pub(crate) fn must_tell_completion(&self) -> bool {
        self.completions.must_wake()
    }

    /// The slow path wants to know of the next frame. It looks at the counters once more after this.
    pub(crate) fn want_frames(&self) {
        self.frames.fall_asleep();
    }

    /// It looks at the counters by itself.
    pub(crate) fn ignore_frames(&self) {
        self.frames.wake_up();
    }

    /// Whether no worker has rung for moving frames since the slow path asked for it.
    pub(crate) fn wants_frames(&self) -> bool {
        self.frames.is_asleep()
    }

    /// A worker has switched frames: whether it rings. One load, unless it does. Without the fence that would
    /// order this behind the counters, a wish that is a few nanoseconds old may go unseen: the next frame's
    /// worker sees it, and of the last one before a silence no timer depends for longer than its keys live.
    #[inline]
    pub(crate) fn must_tell_frames(&self) -> bool {
        self.frames.is_asleep() && self.frames.must_wake()
    }
}
