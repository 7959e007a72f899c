//! Detects workers that make no progress, and pools that are exhausted. The slow path checks once a
//! second while a worker is awake. No check is needed while all workers block: the first worker
//! that a port wakes up then wakes the slow path.

use std::time::Instant;

use crate::{
    event::EventKind,
    limits::{CHECK_EVERY, WORKER_STALLED_CHECKS},
    slow_path::SlowPath,
    worker_thread::WorkerThread,
};

/// The results of the last check.
#[derive(Debug)]
pub(crate) struct Health {
    checked: Instant,
    workers: Vec<Worker>,
    /// Whether all workers were blocked at the last check.
    is_idle: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Worker {
    turns: u64,
    /// The number of consecutive checks without progress.
    stalled: u32,
    exhausted: u64,
}

/// The result of a check of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Stalled,
    Back,
    /// The number of times that the worker found its pool exhausted since the last check.
    Exhausted(u64),
}

impl Worker {
    fn check(&mut self, turns: u64, is_asleep: bool, exhausted: u64) -> [Option<Finding>; 2] {
        let was_stalled = self.stalled >= WORKER_STALLED_CHECKS;
        let is_still = turns == self.turns && !is_asleep;
        self.stalled = if is_still { self.stalled.saturating_add(1) } else { 0 };
        let more = exhausted.saturating_sub(self.exhausted);
        (self.turns, self.exhausted) = (turns, exhausted);
        let progress = match (was_stalled, self.stalled) {
            (false, WORKER_STALLED_CHECKS) => Some(Finding::Stalled),
            (true, 0) => Some(Finding::Back),
            _ => None,
        };
        [progress, (more > 0).then_some(Finding::Exhausted(more))]
    }
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { checked: Instant::now(), workers: Vec::new(), is_idle: false }
    }

    /// The time of the next check; `None` while all workers block.
    pub(crate) fn next_timeout(&self, slow_path: &SlowPath) -> Option<Instant> {
        let is_awake = slow_path.threads.iter().any(|thread| !thread.is_asleep());
        (is_awake || !self.is_idle).then(|| self.checked + CHECK_EVERY)
    }

    /// Checks all workers, if a check is due.
    pub(crate) fn check(&mut self, now: Instant, slow_path: &SlowPath) -> Vec<EventKind> {
        let mut events = Vec::new();
        if now.saturating_duration_since(self.checked) < CHECK_EVERY {
            return events;
        }
        self.checked = now;
        self.workers.resize(slow_path.threads.len(), Worker::default());
        let tallies = &slow_path.memory.tallies;
        let workers = self.workers.iter_mut().zip(&slow_path.threads).zip(tallies);
        // Call `watch` before `is_asleep`, so that a worker that wakes up in between also wakes the
        // slow path.
        slow_path.threads.iter().for_each(WorkerThread::watch);
        self.is_idle = slow_path.threads.iter().all(WorkerThread::is_asleep);
        for (worker, ((last, thread), tally)) in workers.enumerate() {
            let findings = last.check(thread.turns(), thread.is_asleep(), tally.exhausted.read());
            events.extend(findings.into_iter().flatten().map(|finding| match finding {
                Finding::Stalled => EventKind::WorkerStalled { worker },
                Finding::Back => EventKind::WorkerRecovered { worker },
                Finding::Exhausted(times) => EventKind::PoolExhausted { worker, times },
            }));
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_worker_and_one_without_memory_are_reported_once_each() {
        let mut worker = Worker::default();
        assert_eq!(worker.check(5, false, 0), [None, None]);
        for check in 1..=10 {
            let stalled = (check == WORKER_STALLED_CHECKS).then_some(Finding::Stalled);
            assert_eq!(worker.check(5, false, 0), [stalled, None], "check {check}");
        }
        assert_eq!(worker.check(6, false, 0), [Some(Finding::Back), None]);
        assert_eq!(worker.check(7, false, 3), [None, Some(Finding::Exhausted(3))]);
        assert_eq!(worker.check(8, false, 3), [None, None]);
        for _ in 0..=WORKER_STALLED_CHECKS {
            assert_eq!(worker.check(8, true, 3), [None, None], "it blocks");
        }
    }
}
