//! The rate at which an egress queue drains. The worker computes it when free chunks run low.

/// Counts the frames that are sent from a queue in a window of time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Drain {
    window: u64,
    /// The total number of frames sent when the window was first read.
    left: u64,
    /// The average number of frames per window, from the previously read window to this one.
    before: u64,
}

impl Drain {
    /// The number of frames sent in this window, plus the average per window before it. `left` is
    /// the total number of frames that have been sent.
    pub(crate) fn recent(&mut self, window: u64, left: u64) -> usize {
        let windows = window.saturating_sub(self.window);
        if let Some(before) = left.saturating_sub(self.left).checked_div(windows) {
            *self = Self { window, left, before };
        }
        (self.before + left.saturating_sub(self.left)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_an_average_over_windows_that_were_not_read() {
        let mut drain = Drain::default();
        assert_eq!(drain.recent(10, 500), 50, "in each of ten windows");
        assert_eq!(drain.recent(10, 530), 80);
        assert_eq!(drain.recent(11, 530), 30);
        assert_eq!(drain.recent(12, 530), 0, "it is stuck");
        assert_eq!(drain.recent(12, 537), 7);
        assert_eq!(drain.recent(11, 537), 7, "time never goes back");
    }
}
