//! The slow path's view of the workers: their rings, the queued commands, and the steps that wait
//! until every worker has completed the commands sent before them ([`GracePeriods`]). The other
//! owners decide which commands and steps to queue.

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
    limits::{COMMANDS_MAX, MESSAGES_WAITING_MAX, REPLIES_WAITING_MAX},
    session::AwaitedPlaces,
    worker::SlowPath,
};

/// A step that is taken when every worker has completed the commands sent before it.
pub(super) enum Step {
    Publish(Barrier<Allocated>),
    Announce(Barrier<Mark>),
    /// The workers' tables have both numbers: the workers write the new one into return paths.
    Rewrite(Barrier<Retiring>),
    Retire(Barrier<Retiring>),
    Remove(Barrier<Informed>),
    Quarantine(Barrier<Unnamed>),
    /// All workers have reported their links and sessions.
    Inventory(Barrier<Informed>),
    /// As [`Step::Quarantine`], at the end of a recovery.
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

/// The rings of one worker, and the commands and replies queued for it.
struct WorkerHandle {
    commands: Producer<Command>,
    completions: Consumer<Completion>,
    /// Counts discards of frames whose port belongs to another worker, or is removed.
    orphan_drops: Arc<DiscardTally>,
    /// Frames that the worker made for the slow path.
    frames_made: Arc<Counter>,
    /// Commands queued for the ring.
    waiting: VecDeque<Command>,
    /// Replies and errors, by the ingress of the packet that caused them. They enter the ring only
    /// when no command is queued.
    replies: VecDeque<(Mark, Vec<u8>)>,
    waker: Option<Arc<dyn Wake>>,
    /// The number of the inventory request whose reply is awaited after a
    /// [`reset`](Workers::reset). Grace periods count no completions before this reply.
    awaits: Option<u64>,
}

/// The workers of one switch.
pub(super) struct Workers {
    handles: Vec<WorkerHandle>,
    grace_periods: GracePeriods,
    /// The steps in their order, so that a later change does not overtake an earlier one.
    steps: VecDeque<Step>,
    /// Links that come up as soon as every worker forwards their data.
    openings: Vec<Barrier<Mark>>,
    /// Whether a command was queued since the rings were last filled.
    is_unflushed: bool,
    /// The number of messages that were dropped before they became frames.
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
    /// Makes the slow path's ends of the rings, and the ends of each worker. `skew` is the
    /// difference between the switch's time and the time of the callers of the workers.
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
                replies: VecDeque::new(),
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

    /// The number of workers.
    pub(super) fn len(&self) -> usize {
        self.handles.len()
    }

    /// Sets the waker of a worker. The slow path calls the waker after it has sent commands to the
    /// worker.
    pub(super) fn set_waker(&mut self, number: usize, waker: Arc<dyn Wake>) {
        if let Some(handle) = self.handles.get_mut(number) {
            handle.waker = Some(waker);
        }
    }

    /// The queues of punts.
    pub(super) fn punts(&self) -> Arc<PuntQueues> {
        Arc::clone(&self.punts)
    }

    /// The session indices for which handshake responses are awaited, in a table shared with the
    /// workers.
    pub(super) fn awaited_places(&self) -> Arc<AwaitedPlaces> {
        Arc::clone(&self.awaited)
    }

    /// The flags with which the slow path asks workers to wake it for events other than punts.
    pub(super) fn attention(&self) -> &Attention {
        &self.punts.attention
    }

    /// Queues a command for a worker. A message to another node (a link's own message, a probe or a
    /// handshake) is dropped if `MESSAGES_WAITING_MAX` commands and messages already wait.
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

    /// Queues a command for every worker.
    pub(super) fn command_all(&mut self, mut command: impl FnMut(usize) -> Command) {
        for worker in 0..self.handles.len() {
            self.command(worker, command(worker));
        }
    }

    /// Makes a worker send a reply to a packet that arrived on `ingress`. The reply is dropped if
    /// its ingress already holds as many places in the queue as are free.
    pub(super) fn reply(&mut self, worker: usize, ingress: Mark, packet: Vec<u8>) {
        self.is_unflushed = true;
        let replies = &mut self.handles[worker].replies;
        let held = replies.iter().filter(|(by, _)| *by == ingress).count();
        if held < REPLIES_WAITING_MAX - replies.len() {
            replies.push_back((ingress, packet));
        } else {
            self.messages_lost += 1;
        }
    }

    /// Delays a step until every worker has completed the commands sent so far.
    pub(super) fn after_all<T>(&mut self, what: T, step: fn(Barrier<T>) -> Step) {
        self.steps.push_back(step(self.grace_periods.wait_for_all(what)));
    }

    /// Notes that a link comes up when every worker has completed the commands sent so far.
    pub(super) fn note_opening(&mut self, link: Mark) {
        self.cancel_opening(link);
        self.openings.push(self.grace_periods.wait_for_all(link));
    }

    /// Cancels [`note_opening`](Self::note_opening) for a link that does not come up.
    pub(super) fn cancel_opening(&mut self, link: Mark) {
        self.openings.retain(|opening| *opening.what() != link);
    }

    /// The next link that has come up.
    pub(super) fn next_opened(&mut self) -> Option<Mark> {
        let is_open = |opening: &Barrier<Mark>| self.grace_periods.has_passed(opening);
        let place = self.openings.iter().position(is_open)?;
        Some(*self.openings.remove(place).what())
    }

    /// Returns the proof that every worker has passed a barrier.
    ///
    /// # Errors
    /// Returns the barrier if a worker has not passed it.
    pub(super) fn pass<T>(&self, awaited: Barrier<T>) -> Result<Quiesced<T>, Barrier<T>> {
        self.grace_periods.pass(awaited)
    }

    /// Fills the rings, and wakes the workers that were sent commands.
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
            // Half of the ring stays free for commands, so that they are not delayed by replies.
            while handle.waiting.is_empty()
                && handle.commands.has_room(COMMANDS_MAX / 2 + 1)
                && let Some((_, packet)) = handle.replies.pop_front()
            {
                self.grace_periods.note_given(number);
                let pushed = handle.commands.push(Command::Transmit(packet));
                debug_assert!(
                    pushed.is_ok(),
                    "there was room above, and only the slow path fills the ring"
                );
                has_new = true;
            }
            if has_new && let Some(waker) = &handle.waker {
                waker.wake();
            }
        }
    }

    /// The next completion of any worker.
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

    /// The next step, if all workers have completed the commands before it. Steps that publish
    /// numbers are not returned here, but by [`next_publications`](Self::next_publications).
    pub(super) fn next_step(&mut self) -> Option<Step> {
        let step = self.steps.front()?;
        let is_due = !matches!(step, Step::Publish(_)) && step.has_passed(&self.grace_periods);
        if is_due { self.steps.pop_front() } else { None }
    }

    /// The number of pending numbers that may be published now. `written` is the generation of the
    /// last written snapshot, if numbers wait for snapshots. The flag is `true` if the step after
    /// them is a number that may not be published yet.
    pub(super) fn publishable(&self, written: Option<u64>) -> (usize, bool) {
        let is_due = |step: &&Step| self.may_publish(step, written);
        let due = self.steps.iter().take_while(is_due).count();
        (due, matches!(self.steps.get(due), Some(Step::Publish(_))))
    }

    fn may_publish(&self, step: &Step, written: Option<u64>) -> bool {
        let Step::Publish(allocated) = step else { return false };
        let is_written = written.is_none_or(|written| allocated.what().generation() <= written);
        is_written && self.grace_periods.has_passed(allocated)
    }

    /// Removes and returns the next `count` numbers, which are [`publishable`](Self::publishable).
    pub(super) fn next_publications(&mut self, count: usize) -> Vec<Allocated> {
        let Self { steps, grace_periods, .. } = self;
        let publications = steps.drain(..count).filter_map(|step| match step {
            Step::Publish(awaited) => grace_periods.pass(awaited).ok(),
            _ => None,
        });
        publications.map(Quiesced::into_inner).collect()
    }

    /// Whether the slow path must immediately fill a ring or take a step.
    pub(super) fn is_due(&self, written: Option<u64>) -> bool {
        self.is_unflushed
            || self.steps.front().is_some_and(|step| match step {
                Step::Publish(_) => self.may_publish(step, written),
                step => step.has_passed(&self.grace_periods),
            })
    }

    /// Whether there is no work until a worker wakes the slow path. If the slow path waits for
    /// completions, workers also wake it for these from now on.
    pub(super) fn may_sleep(&mut self) -> bool {
        if !self.awaits_reports() {
            self.attention().ignore_completions();
            return true;
        }
        self.attention().want_completions();
        // From here on, a worker wakes the slow path for its completions. This check finds earlier
        // ones.
        self.handles.iter_mut().all(|handle| handle.completions.is_empty())
    }

    fn awaits_reports(&self) -> bool {
        let is_behind =
            |worker: usize| self.grace_periods.outstanding(worker) > COMMANDS_MAX as u64 / 2;
        let has_waiting = |handle: &WorkerHandle| {
            !handle.waiting.is_empty() || !handle.replies.is_empty() || handle.awaits.is_some()
        };
        !self.steps.is_empty()
            || !self.openings.is_empty()
            || self.handles.iter().any(has_waiting)
            || (0..self.handles.len()).any(is_behind)
    }

    /// Whether no change is in progress.
    pub(super) fn is_settled(&self) -> bool {
        let no_replies = self.handles.iter().all(|handle| handle.replies.is_empty());
        no_replies && self.steps.is_empty() && self.grace_periods.is_even()
    }

    /// Removes all steps. Grace periods begin with each worker's reply to this inventory request,
    /// and count no earlier completion. Queued commands stay in their queues.
    pub(super) fn reset(&mut self, inventory: u64) {
        self.steps.clear();
        self.openings.clear();
        self.grace_periods = GracePeriods::new(self.handles.len());
        for handle in &mut self.handles {
            handle.awaits = Some(inventory);
        }
    }

    /// Queues a command that precedes the inventory in the queue of a worker. Grace periods do not
    /// count this command.
    pub(super) fn command_before_inventory(&mut self, worker: usize, command: Command) {
        self.is_unflushed = true;
        self.handles[worker].waiting.push_back(command);
    }

    /// Adds those counters of the workers that belong to no port.
    pub(super) fn add_to(&self, balance: &mut Balance) {
        for handle in &self.handles {
            balance.add_discards(&handle.orphan_drops);
            balance.frames_made += handle.frames_made.read();
        }
        // These messages count on both sides of R3's balance.
        balance.frames_made += self.messages_lost;
        balance.discards[Discard::CommandsFull as usize] += self.messages_lost;
    }
}
