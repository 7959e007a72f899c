//! Workers that make no progress, and memory that runs out: conditions that nothing reports by itself. The slow
//! path looks once a second while a worker is awake. When all of them block, the first that a port wakes up wakes
//! the slow path.

use std::time::Instant;

use crate::{
    event::EventKind,
    limits::{CHECK_EVERY, WORKER_STALLED_CHECKS},
    slow_path::SlowPath,
    worker_thread::WorkerThread,
};

/// What was seen last.
#[derive(Debug)]
pub(crate) struct Health {
    looked: Instant,
    workers: Vec<Worker>,
    /// All workers blocked at the last look.
    is_idle: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Worker {
    turns: u64,
    /// Looks in a row at which it had made no progress.
    stalled: u32,
    exhausted: u64,
}

/// What came of one look at one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Stalled,
    Back,
    /// It found no memory so many times since the last look.
    Exhausted(u64),
}

impl Worker {
    fn look(&mut self, turns: u64, is_asleep: bool, exhausted: u64) -> [Option<Found>; 2] {
        let was_stalled = self.stalled >= WORKER_STALLED_CHECKS;
        let is_still = turns == self.turns && !is_asleep;
        self.stalled = if is_still { self.stalled.saturating_add(1) } else { 0 };
        let more = exhausted.saturating_sub(self.exhausted);
        (self.turns, self.exhausted) = (turns, exhausted);
        let progress = match (was_stalled, self.stalled) {
            (false, WORKER_STALLED_CHECKS) => Some(Found::Stalled),
            (true, 0) => Some(Found::Back),
            _ => None,
        };
        [progress, (more > 0).then_some(Found::Exhausted(more))]
    }
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { looked: Instant::now(), workers: Vec::new(), is_idle: false }
    }

    /// When [`look`](Self::look) is due, as long as all workers block.
    pub(crate) fn next_timeout(&self, slow_path: &SlowPath) -> Option<Instant> {
        let is_awake = slow_path.threads.iter().any(|thread| !thread.is_asleep());
        (is_awake || !self.is_idle).then(|| self.looked + CHECK_EVERY)
    }

    /// Looks, if it is time.
    pub(crate) fn look(&mut self, now: Instant, slow_path: &SlowPath) -> Vec<EventKind> {
        let mut events = Vec::new();
        if now.saturating_duration_since(self.looked) < CHECK_EVERY {
            return events;
        }
        self.looked = now;
        self.workers.resize(slow_path.threads.len(), Worker::default());
        let tallies = &slow_path.memory.tallies;
        let workers = self.workers.iter_mut().zip(&slow_path.threads).zip(tallies);
        // Before it is looked whether they block: one that wakes up after this tells.
        slow_path.threads.iter().for_each(WorkerThread::watch);
        self.is_idle = slow_path.threads.iter().all(WorkerThread::is_asleep);
        for (worker, ((last, thread), tally)) in workers.enumerate() {
            let found = last.look(thread.turns(), thread.is_asleep(), tally.exhausted.read());
            events.extend(found.into_iter().flatten().map(|found| match found {
                Found::Stalled => EventKind::WorkerStalled { worker },
                Found::Back => EventKind::WorkerRecovered { worker },
                Found::Exhausted(times) => EventKind::PoolExhausted { worker, times },
            }));
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stalls_and_one_without_memory_is_seen_once_each() {
        let mut worker = Worker::default();
        assert_eq!(worker.look(5, false, 0), [None, None]);
        for look in 1..=10 {
            let stalled = (look == WORKER_STALLED_CHECKS).then_some(Found::Stalled);
            assert_eq!(worker.look(5, false, 0), [stalled, None], "look {look}");
        }
        assert_eq!(worker.look(6, false, 0), [Some(Found::Back), None]);
        assert_eq!(worker.look(7, false, 3), [None, Some(Found::Exhausted(3))]);
        assert_eq!(worker.look(8, false, 3), [None, None]);
        for _ in 0..=WORKER_STALLED_CHECKS {
            assert_eq!(worker.look(8, true, 3), [None, None], "it blocks");
        }
    }
}
