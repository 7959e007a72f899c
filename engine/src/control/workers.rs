//! The workers, as the slow path reaches them: what each was told and has not done yet, and what waits until
//! all of them have. It decides nothing; whoever changes something commands here, and the step that may only
//! follow is kept until every worker has reported what it was given before ([`GracePeriods`]).

use std::{collections::VecDeque, fmt, sync::Arc};

use strowger_frame::{
    Mark, Wake,
    ring::{Consumer, Producer, ring},
    tally::Counter,
};

use super::{
    PortId,
    grace_period::{Barrier, GracePeriods, Quiesced},
    slot_allocator::{Allocated, Informed, Retiring, Unnamed},
    view::Balance,
};
use crate::{
    attention::Attention,
    command::{Command, Completion, PuntQueues},
    discard::{Discard, DiscardTally},
    limits::{ANSWERS_WAITING_MAX, COMMANDS_MAX, MESSAGES_WAITING_MAX},
    session::AwaitedPlaces,
    worker::SlowPath,
};

/// What is done once every worker has reported what it was given before.
pub(super) enum Step {
    Publish(Barrier<Allocated>),
    Announce(Barrier<Mark>),
    /// Tables lead by both numbers: the new one goes into return paths.
    Rewrite(Barrier<Retiring>),
    Retire(Barrier<Retiring>),
    Remove(Barrier<Informed>),
    Quarantine(Barrier<Unnamed>),
    /// All workers have said what they have.
    Inventory(Barrier<Informed>),
    /// As [`Step::Quarantine`], and the last of what was left over is gone.
    Recovered(Barrier<Unnamed>),
    Grown(Barrier<()>),
    Forget(Barrier<PortId>),
    /// Sessions have moved to this worker.
    Moved(Barrier<u8>),
}

impl Step {
    fn has_passed(&self, grace_periods: &GracePeriods) -> bool {
        match self {
            Self::Publish(what) => grace_periods.has_passed(what),
            Self::Announce(what) => grace_periods.has_passed(what),
            Self::Rewrite(what) | Self::Retire(what) => grace_periods.has_passed(what),
            Self::Remove(what) | Self::Inventory(what) => grace_periods.has_passed(what),
            Self::Quarantine(what) | Self::Recovered(what) => grace_periods.has_passed(what),
            Self::Grown(what) => grace_periods.has_passed(what),
            Self::Forget(what) => grace_periods.has_passed(what),
            Self::Moved(what) => grace_periods.has_passed(what),
        }
    }
}

/// How one worker is reached.
struct WorkerHandle {
    commands: Producer<Command>,
    completions: Consumer<Completion>,
    /// Discards of frames whose port is another worker's, or gone.
    orphan_drops: Arc<DiscardTally>,
    /// Frames that it made for the slow path.
    frames_made: Arc<Counter>,
    /// What waits to enter its ring.
    waiting: VecDeque<Command>,
    /// Answers and errors, by the ingress of what they are about. They enter the ring when the worker has
    /// caught up with all else.
    answers: VecDeque<(Mark, Vec<u8>)>,
    waker: Option<Arc<dyn Wake>>,
    /// Reports are of commands from before a [`reset`](Workers::reset), up to the answer to this inventory: the
    /// grace_periods knows nothing of them.
    awaits: Option<u64>,
}

/// See the module.
pub(super) struct Workers {
    handles: Vec<WorkerHandle>,
    grace_periods: GracePeriods,
    /// In the order in which they are taken: a later change never overtakes an earlier one.
    steps: VecDeque<Step>,
    /// Links that come up, until every worker lets data pass.
    openings: Vec<Barrier<Mark>>,
    /// Something was given since the rings were last filled.
    is_unflushed: bool,
    /// Messages that were made and lost before they were frames.
    messages_lost: u64,
    punts: Arc<PuntQueues>,
    awaited: Arc<AwaitedPlaces>,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("count", &self.handles.len()).finish_non_exhaustive()
    }
}

impl Workers {
    /// The slow path's ends for so many workers, and each worker's. `skew` makes the switch's time of that
    /// of whoever runs them.
    pub(super) fn connect(count: usize, skew: &Arc<Counter>) -> (Self, Vec<SlowPath>) {
        let punts = Arc::new(PuntQueues::new());
        let awaited = Arc::new(AwaitedPlaces::new());
        let connect = |_| {
            let (commands, orders_taken) = ring(COMMANDS_MAX);
            let (completions_tx, completions) = ring(COMMANDS_MAX);
            let slow_path = SlowPath {
                commands: orders_taken,
                completions: completions_tx,
                punts: punts.clone(),
                awaited: awaited.clone(),
                orphan_drops: Arc::default(),
                frames_made: Arc::default(),
                skew: skew.clone(),
                waker: None,
                has_news: false,
            };
            let handle = WorkerHandle {
                commands,
                completions,
                orphan_drops: slow_path.orphan_drops.clone(),
                frames_made: slow_path.frames_made.clone(),
                waiting: VecDeque::new(),
                answers: VecDeque::new(),
                waker: None,
                awaits: None,
            };
            (handle, slow_path)
        };
        let (handles, slow_paths) = (0..count).map(connect).unzip();
        let workers = Self {
            handles,
            grace_periods: GracePeriods::new(count),
            steps: VecDeque::new(),
            openings: Vec::new(),
            is_unflushed: false,
            messages_lost: 0,
            punts,
            awaited,
        };
        (workers, slow_paths)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.handles.len()
    }

    /// What wakes a worker when it has been given something.
    pub(super) fn set_waker(&mut self, number: usize, waker: Arc<dyn Wake>) {
        if let Some(handle) = self.handles.get_mut(number) {
            handle.waker = Some(waker);
        }
    }

    /// What workers punt.
    pub(super) fn punts(&self) -> Arc<PuntQueues> {
        Arc::clone(&self.punts)
    }

    /// Where workers see which answers to handshakes are awaited.
    pub(super) fn awaited_places(&self) -> Arc<AwaitedPlaces> {
        Arc::clone(&self.awaited)
    }

    /// What workers ring for beside punts.
    pub(super) fn attention(&self) -> &Attention {
        &self.punts.attention
    }

    /// Gives a worker something to do. Of messages, which any wire may lose, so many wait at most.
    pub(super) fn command(&mut self, worker: usize, command: Command) {
        self.is_unflushed = true;
        let is_message = matches!(
            command,
            Command::SendLinkMessage(..) | Command::Probe(..) | Command::Send(..)
        );
        if is_message && self.handles[worker].waiting.len() >= MESSAGES_WAITING_MAX {
            self.messages_lost += 1;
            return;
        }
        self.grace_periods.note_given(worker);
        self.handles[worker].waiting.push_back(command);
    }

    /// Gives every worker something to do.
    pub(super) fn command_all(&mut self, mut command: impl FnMut(usize) -> Command) {
        for worker in 0..self.handles.len() {
            self.command(worker, command(worker));
        }
    }

    /// Has a worker send an answer to something that came in by `ingress`, which has as many places at most
    /// as are left free for the others.
    pub(super) fn answer(&mut self, worker: usize, ingress: Mark, packet: Vec<u8>) {
        self.is_unflushed = true;
        let answers = &mut self.handles[worker].answers;
        let held = answers.iter().filter(|(by, _)| *by == ingress).count();
        if held < ANSWERS_WAITING_MAX - answers.len() {
            answers.push_back((ingress, packet));
        } else {
            self.messages_lost += 1;
        }
    }

    /// Keeps a step until every worker has reported all that it was given so far.
    pub(super) fn after_all<T>(&mut self, what: T, step: fn(Barrier<T>) -> Step) {
        self.steps.push_back(step(self.grace_periods.wait_for_all(what)));
    }

    /// A link comes up once every worker has reported all that it was given so far.
    pub(super) fn note_opening(&mut self, link: Mark) {
        self.cancel_opening(link);
        self.openings.push(self.grace_periods.wait_for_all(link));
    }

    /// It does not.
    pub(super) fn cancel_opening(&mut self, link: Mark) {
        self.openings.retain(|opening| *opening.what() != link);
    }

    /// The next link that has come up.
    pub(super) fn next_opened(&mut self) -> Option<Mark> {
        let is_open = |opening: &Barrier<Mark>| self.grace_periods.has_passed(opening);
        let place = self.openings.iter().position(is_open)?;
        Some(*self.openings.remove(place).what())
    }

    /// The proof that every worker has reported what this waited for.
    ///
    /// # Errors
    /// Gives it back if they have not.
    pub(super) fn pass<T>(&self, awaited: Barrier<T>) -> Result<Quiesced<T>, Barrier<T>> {
        self.grace_periods.pass(awaited)
    }

    /// Fills the rings, and wakes those who were given something.
    pub(super) fn flush(&mut self) {
        self.is_unflushed = false;
        for (number, handle) in self.handles.iter_mut().enumerate() {
            let mut has_new = false;
            while let Some(command) = handle.waiting.pop_front() {
                if let Err(command) = handle.commands.push(command) {
                    handle.waiting.push_front(command);
                    break;
                }
                has_new = true;
            }
            // Half of the ring stays free for what must not wait behind them.
            while handle.waiting.is_empty()
                && handle.commands.has_room(COMMANDS_MAX / 2 + 1)
                && let Some((_, packet)) = handle.answers.pop_front()
            {
                self.grace_periods.note_given(number);
                let pushed = handle.commands.push(Command::Transmit(packet));
                debug_assert!(pushed.is_ok(), "room was seen above, and only we fill it");
                has_new = true;
            }
            if has_new && let Some(waker) = &handle.waker {
                waker.wake();
            }
        }
    }

    /// The next report of any worker.
    pub(super) fn next_completion(&mut self) -> Option<Completion> {
        let mut handles = self.handles.iter_mut().enumerate();
        let (number, report) =
            handles.find_map(|(number, h)| Some((number, h.completions.pop()?)))?;
        let handle = &mut self.handles[number];
        if let Completion::Inventoried(inventory) = &report {
            handle.awaits.take_if(|awaited| *awaited == inventory.number);
        }
        if handle.awaits.is_none() {
            self.grace_periods.note_completed(number);
        }
        Some(report)
    }

    /// The next step, if it may be taken: not one that publishes numbers, for which see
    /// [`next_publications`](Self::next_publications).
    pub(super) fn next_step(&mut self) -> Option<Step> {
        let step = self.steps.front()?;
        let is_due = !matches!(step, Step::Publish(_)) && step.has_passed(&self.grace_periods);
        if is_due { self.steps.pop_front() } else { None }
    }

    /// How many numbers are next to be published and may be, as far as a restart would find those of this
    /// generation again; and whether more of them follow, for which workers have still to report.
    pub(super) fn publishable(&self, written: Option<u64>) -> (usize, bool) {
        let is_due = |step: &&Step| self.may_publish(step, written);
        let due = self.steps.iter().take_while(is_due).count();
        (due, matches!(self.steps.get(due), Some(Step::Publish(_))))
    }

    fn may_publish(&self, step: &Step, written: Option<u64>) -> bool {
        let Step::Publish(given) = step else { return false };
        let is_written = written.is_none_or(|written| given.what().generation() <= written);
        is_written && self.grace_periods.has_passed(given)
    }

    /// Takes so many numbers that are [`publishable`](Self::publishable).
    pub(super) fn next_publications(&mut self, count: usize) -> Vec<Allocated> {
        let Self { steps, grace_periods, .. } = self;
        let publications = steps.drain(..count).filter_map(|step| match step {
            Step::Publish(awaited) => grace_periods.pass(awaited).ok(),
            _ => None,
        });
        publications.map(Quiesced::into_inner).collect()
    }

    /// Whether there is something to do at once: rings to fill, or a step to take.
    pub(super) fn is_due(&self, written: Option<u64>) -> bool {
        self.is_unflushed
            || self.steps.front().is_some_and(|step| match step {
                Step::Publish(_) => self.may_publish(step, written),
                step => step.has_passed(&self.grace_periods),
            })
    }

    /// Whether nothing is left to do before a worker rings. Where a worker's report lets something go on, it
    /// rings for that from now on.
    pub(super) fn may_sleep(&mut self) -> bool {
        if !self.awaits_reports() {
            self.attention().ignore_completions();
            return true;
        }
        self.attention().want_completions();
        // Whatever a worker completes from here on it tells; what it has completed is read now.
        self.handles.iter_mut().all(|handle| handle.completions.is_empty())
    }

    fn awaits_reports(&self) -> bool {
        let is_behind =
            |worker: usize| self.grace_periods.outstanding(worker) > COMMANDS_MAX as u64 / 2;
        let has_waiting = |handle: &WorkerHandle| {
            !handle.waiting.is_empty() || !handle.answers.is_empty() || handle.awaits.is_some()
        };
        !self.steps.is_empty()
            || !self.openings.is_empty()
            || self.handles.iter().any(has_waiting)
            || (0..self.handles.len()).any(is_behind)
    }

    /// Whether no change is under way.
    pub(super) fn is_settled(&self) -> bool {
        let no_answers = self.handles.iter().all(|handle| handle.answers.is_empty());
        no_answers && self.steps.is_empty() && self.grace_periods.is_even()
    }

    /// Forgets all steps, and what was reported so far: the grace_periods begins with each worker's answer to this
    /// inventory. What waits to enter the rings still does.
    pub(super) fn reset(&mut self, inventory: u64) {
        self.steps.clear();
        self.openings.clear();
        self.grace_periods = GracePeriods::new(self.handles.len());
        for handle in &mut self.handles {
            handle.awaits = Some(inventory);
        }
    }

    /// Gives a worker something that comes before a inventory, and is not in the grace_periods.
    pub(super) fn command_before_inventory(&mut self, worker: usize, command: Command) {
        self.is_unflushed = true;
        self.handles[worker].waiting.push_back(command);
    }

    /// Adds what workers count beside their ports.
    pub(super) fn add_to(&self, balance: &mut Balance) {
        for handle in &self.handles {
            balance.add_discards(&handle.orphan_drops);
            balance.frames_made += handle.frames_made.read();
        }
        // On both sides of R3's balance.
        balance.frames_made += self.messages_lost;
        balance.discards[Discard::CommandsFull as usize] += self.messages_lost;
    }
}
