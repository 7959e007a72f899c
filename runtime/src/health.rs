//! What nobody reports by itself: workers that make no progress, and memory that runs out. The slow path looks once
//! a second, and logs what has changed.

use std::time::{Duration, Instant};

use crate::{
    limits::{HEALTH_EVERY, WORKER_STALLED_LOOKS},
    log::{Kind, Log},
    topology::Topology,
};

/// What was seen last.
#[derive(Debug)]
pub(super) struct Health {
    looked: Instant,
    workers: Vec<Worker>,
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
    fn look(&mut self, turns: u64, exhausted: u64) -> [Option<Found>; 2] {
        let was_stalled = self.stalled >= WORKER_STALLED_LOOKS;
        self.stalled = if turns == self.turns { self.stalled.saturating_add(1) } else { 0 };
        let more = exhausted.saturating_sub(self.exhausted);
        (self.turns, self.exhausted) = (turns, exhausted);
        let progress = match (was_stalled, self.stalled) {
            (false, WORKER_STALLED_LOOKS) => Some(Found::Stalled),
            (true, 0) => Some(Found::Back),
            _ => None,
        };
        [progress, (more > 0).then_some(Found::Exhausted(more))]
    }
}

impl Health {
    pub(super) fn new() -> Self {
        Self { looked: Instant::now(), workers: Vec::new() }
    }

    /// Looks, if it is time.
    pub(super) fn look(&mut self, now: Instant, topology: &Topology, log: &Log) {
        if now.saturating_duration_since(self.looked) < HEALTH_EVERY {
            return;
        }
        self.looked = now;
        self.workers.resize(topology.running.len(), Worker::default());
        let tallies = &topology.memory.tallies;
        let workers = self.workers.iter_mut().zip(&topology.running).zip(tallies);
        for (number, ((worker, running), tally)) in workers.enumerate() {
            for found in worker.look(running.turns(), tally.exhausted.read()).iter().flatten() {
                say(log, number, *found);
            }
        }
    }
}

fn say(log: &Log, number: usize, found: Found) {
    let subject = format!("worker {number}");
    let seconds = (HEALTH_EVERY * WORKER_STALLED_LOOKS).max(Duration::from_secs(1)).as_secs();
    match found {
        Found::Stalled => log.write(
            Kind::WorkerStalled,
            &subject,
            format_args!("no progress for {seconds} s; its links will fail"),
        ),
        Found::Back => log.write(Kind::WorkerBack, &subject, "makes progress again"),
        Found::Exhausted(times) => log.write(
            Kind::PoolEmpty,
            &subject,
            format_args!(
                "found no free memory {times} times in the last second; frames are lost; leave out \
                 [memory], or raise it"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stalls_and_one_without_memory_is_seen_once_each() {
        let mut worker = Worker::default();
        assert_eq!(worker.look(5, 0), [None, None]);
        for look in 1..=10 {
            let stalled = (look == WORKER_STALLED_LOOKS).then_some(Found::Stalled);
            assert_eq!(worker.look(5, 0), [stalled, None], "look {look}");
        }
        assert_eq!(worker.look(6, 0), [Some(Found::Back), None]);
        assert_eq!(worker.look(7, 3), [None, Some(Found::Exhausted(3))]);
        assert_eq!(worker.look(8, 3), [None, None]);
    }
}
