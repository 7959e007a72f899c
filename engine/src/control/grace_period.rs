//! What each worker was given and has reported, and tokens that can be used only once all workers
//! have reported what they were given before. It never sees a command, only counts them.

/// Orders given to each worker, and reports of it.
#[derive(Debug)]
pub struct GracePeriods {
    given: Vec<u64>,
    reported: Vec<u64>,
}

/// Something that waits until every worker has reported all that it was given so far.
#[derive(Debug)]
#[must_use = "what is not waited for never comes true"]
pub struct Barrier<T> {
    due: Vec<u64>,
    what: T,
}

/// Proof that every worker has reported all that it was given before this was awaited. Only
/// [`GracePeriods::pass`] makes one.
#[derive(Debug)]
#[must_use = "a proof is for the step that it allows"]
pub struct Quiesced<T>(T);

impl<T> Quiesced<T> {
    /// What was waited for.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Barrier<T> {
    /// What waits.
    pub fn what(&self) -> &T {
        &self.what
    }
}

impl GracePeriods {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        Self { given: vec![0; workers], reported: vec![0; workers] }
    }

    /// A worker was given a command.
    pub fn note_given(&mut self, worker: usize) {
        self.given[worker] += 1;
    }

    /// A worker has reported a command.
    pub fn note_completed(&mut self, worker: usize) {
        self.reported[worker] += 1;
        assert!(self.reported[worker] <= self.given[worker], "reports follow commands");
    }

    /// Lets something wait for all commands given so far.
    pub fn wait_for_all<T>(&self, what: T) -> Barrier<T> {
        Barrier { due: self.given.clone(), what }
    }

    /// Whether what it waits for has been reported.
    pub fn has_passed<T>(&self, awaited: &Barrier<T>) -> bool {
        awaited.due.iter().zip(&self.reported).all(|(due, reported)| reported >= due)
    }

    /// The proof that it was reported.
    ///
    /// # Errors
    /// Gives it back if it was not.
    pub fn pass<T>(&self, awaited: Barrier<T>) -> Result<Quiesced<T>, Barrier<T>> {
        if self.has_passed(&awaited) { Ok(Quiesced(awaited.what)) } else { Err(awaited) }
    }

    /// Orders that a worker was given and has not reported.
    pub fn outstanding(&self, worker: usize) -> u64 {
        self.given[worker] - self.reported[worker]
    }

    /// Whether every order was reported.
    pub fn is_even(&self) -> bool {
        self.given == self.reported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_passes_before_the_last_worker_has_reported() {
        let mut grace_periods = GracePeriods::new(2);
        grace_periods.note_given(0);
        grace_periods.note_given(1);
        let awaited = grace_periods.wait_for_all("x");
        grace_periods.note_given(1);
        grace_periods.note_completed(0);
        let awaited = grace_periods.pass(awaited).expect_err("worker 1 has not reported");
        grace_periods.note_completed(1);
        assert_eq!(grace_periods.pass(awaited).expect("both have").into_inner(), "x");
        assert!(!grace_periods.is_even(), "what was given later is not waited for");
    }
}
