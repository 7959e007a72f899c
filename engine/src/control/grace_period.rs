//! Grace periods, as in RCU: for each worker, counters of the commands sent to it and of those that
//! it has completed. A [`Barrier`] waits until all workers have completed the commands sent before
//! it.

/// The number of commands sent to each worker, and the number of commands that it has completed.
#[derive(Debug)]
pub struct GracePeriods {
    given: Vec<u64>,
    completed: Vec<u64>,
}

/// A step that waits until every worker has completed the commands that were sent before it.
#[derive(Debug)]
#[must_use = "a step whose barrier is dropped is never taken"]
pub struct Barrier<T> {
    due: Vec<u64>,
    what: T,
}

/// Proof that every worker has completed the commands sent before the barrier. Only
/// [`GracePeriods::pass`] makes such a proof.
#[derive(Debug)]
#[must_use = "the proof is needed for the step that it allows"]
pub struct Quiesced<T>(T);

impl<T> Quiesced<T> {
    /// Returns the step that was delayed.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Barrier<T> {
    /// The delayed step.
    pub fn what(&self) -> &T {
        &self.what
    }
}

impl GracePeriods {
    /// Makes the counters for this number of workers.
    pub fn new(workers: usize) -> Self {
        Self { given: vec![0; workers], completed: vec![0; workers] }
    }

    /// Counts a command that was sent to a worker.
    pub fn note_given(&mut self, worker: usize) {
        self.given[worker] += 1;
    }

    /// Counts a command that a worker has completed.
    pub fn note_completed(&mut self, worker: usize) {
        self.completed[worker] += 1;
        assert!(self.completed[worker] <= self.given[worker], "a completion follows its command");
    }

    /// Makes a barrier that follows all commands sent so far.
    pub fn wait_for_all<T>(&self, what: T) -> Barrier<T> {
        Barrier { due: self.given.clone(), what }
    }

    /// Whether all workers have passed the barrier.
    pub fn has_passed<T>(&self, barrier: &Barrier<T>) -> bool {
        barrier.due.iter().zip(&self.completed).all(|(due, completed)| completed >= due)
    }

    /// Returns the proof that all workers have passed the barrier.
    ///
    /// # Errors
    /// Returns the barrier if a worker has not passed it.
    pub fn pass<T>(&self, barrier: Barrier<T>) -> Result<Quiesced<T>, Barrier<T>> {
        if self.has_passed(&barrier) { Ok(Quiesced(barrier.what)) } else { Err(barrier) }
    }

    /// The number of commands that were sent to a worker and are not completed.
    pub fn outstanding(&self, worker: usize) -> u64 {
        self.given[worker] - self.completed[worker]
    }

    /// Whether every command is completed.
    pub fn is_even(&self) -> bool {
        self.given == self.completed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_waits_for_the_last_worker() {
        let mut grace_periods = GracePeriods::new(2);
        grace_periods.note_given(0);
        grace_periods.note_given(1);
        let barrier = grace_periods.wait_for_all("x");
        grace_periods.note_given(1);
        grace_periods.note_completed(0);
        let barrier = grace_periods.pass(barrier).expect_err("worker 1 has not completed");
        grace_periods.note_completed(1);
        assert_eq!(grace_periods.pass(barrier).expect("both have").into_inner(), "x");
        assert!(!grace_periods.is_even(), "a later command is not part of the barrier");
    }
}
