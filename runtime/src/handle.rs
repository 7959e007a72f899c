//! The handle of a running relay, for any thread of the program.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle, ThreadId},
};

use strowger_engine::control::Event as SwitchEvent;
use strowger_io::DoorbellWaker;
use strowger_wire::Slot;

use crate::{
    error::{CallError, NeighborError, NoLocalPort, ShutdownError, SlotError, StartError},
    event::{EventHub, Events, lock},
    limits::EVENTS_WAITING,
    local_port::LocalPort,
    port_info::PortInfo,
    recovery::caught,
    slow_path::{Call, RequestReceiver, SlowPath},
    spec::{LocalPortSpec, Neighbor, Peer},
    stats::{Stats, Summary},
};

/// A running relay. All clones are handles of the same relay.
///
/// When the last handle is dropped, the relay shuts down in order, as with
/// [`shutdown`](Self::shutdown). The drop blocks until the relay has ended. A drop on the slow
/// path's thread does not block.
///
/// Methods that call the slow path block until its next turn has ended, usually for about a
/// millisecond. An async program should call them on a thread that may block.
#[derive(Clone, Debug)]
pub struct RelayHandle {
    shared: Arc<Shared>,
    /// All handles share it. It stops the relay when it is dropped with the last handle.
    _last: Arc<StopOnDrop>,
}

#[derive(Debug)]
struct Shared {
    calls: SyncSender<Call>,
    waker: DoorbellWaker,
    stop: AtomicBool,
    hub: Arc<EventHub>,
    local_ports: Mutex<LocalPorts>,
    /// The result of the relay; `None` while it runs.
    outcome: Mutex<Option<Result<Summary, ShutdownError>>>,
    ended: Condvar,
    notes: Vec<String>,
}

#[derive(Debug, Default)]
struct LocalPorts {
    there: BTreeMap<String, LocalPort>,
    taken: BTreeSet<String>,
}

/// The slow path's thread. It is stopped when the last handle is dropped.
#[derive(Debug)]
struct StopOnDrop {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    id: ThreadId,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.shared.stop();
        // The slow path's thread must not join itself: that would be a deadlock.
        if thread::current().id() != self.id
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn stop(&self) {
        // Release: pairs with Acquire in `SlowPath::serve`.
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn end(&self, outcome: Result<Summary, ShutdownError>) {
        *lock(&self.outcome) = Some(outcome);
        self.ended.notify_all();
        self.hub.close();
    }
}

impl RelayHandle {
    /// Runs a slow path on its own thread.
    pub(crate) fn start(
        mut slow_path: SlowPath,
        mut inbox: RequestReceiver,
        early: Vec<SwitchEvent>,
        local_ports: BTreeMap<String, LocalPort>,
        notes: Vec<String>,
        hub: Arc<EventHub>,
    ) -> Result<Self, StartError> {
        let shared = Arc::new(Shared {
            calls: inbox.calls_in.clone(),
            waker: inbox.waker(),
            stop: AtomicBool::new(false),
            hub,
            local_ports: Mutex::new(LocalPorts { there: local_ports, taken: BTreeSet::new() }),
            outcome: Mutex::new(None),
            ended: Condvar::new(),
            notes,
        });
        let of_thread = shared.clone();
        let run = move || {
            let ran = caught(|| slow_path.run(&mut inbox, &early, &of_thread.stop));
            let outcome = ran.unwrap_or_else(|panic| Err(ShutdownError::SlowPathDied(panic)));
            // Drop the receiver, so that blocked callers get an error.
            drop(inbox);
            if outcome.is_ok() {
                // Close everything before the outcome is reported.
                drop(slow_path);
                of_thread.end(outcome);
            } else {
                // Report the outcome before the drop, because after a failure the drop may hang.
                of_thread.end(outcome);
                drop(slow_path);
            }
        };
        let named = thread::Builder::new().name("slow-path".to_owned());
        let what = "cannot start the slow path's thread";
        let thread = named.spawn(run).map_err(|source| StartError::Resource { what, source })?;
        let id = thread.thread().id();
        let last = StopOnDrop { shared: shared.clone(), thread: Some(thread), id };
        Ok(Self { shared, _last: Arc::new(last) })
    }

    /// Runs code on the slow path's thread and returns its result. The code has access to the
    /// switch and to the rest of the relay.
    ///
    /// The code runs between two turns of the slow path. It must not block: while it blocks, no
    /// handshake or liveness probe is answered.
    ///
    /// ```
    /// # use strowger_runtime::Relay;
    /// # let relay = Relay::builder().workers(1).local_port("app").start()?;
    /// let hops_max = relay.call(|slow_path| slow_path.switch().config().hops_max())?;
    /// assert!(hops_max > 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call<T: Send + 'static>(
        &self,
        code: impl FnOnce(&mut SlowPath) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        if thread::current().id() == self._last.id {
            return Err(CallError::SlowPathThread);
        }
        let (done, result) = sync_channel(1);
        let began = Arc::new(AtomicBool::new(false));
        let begins = began.clone();
        let call: Call = Box::new(move |slow_path| {
            begins.store(true, Ordering::Relaxed);
            let _ = done.send(code(slow_path));
        });
        self.shared.calls.send(call).map_err(|_| CallError::Stopped)?;
        self.shared.waker.wake();
        result.recv().map_err(|_| match began.load(Ordering::Relaxed) {
            true => CallError::Panicked,
            false => CallError::Stopped,
        })
    }

    /// Adds a peer, blocks until every worker's table has its slot, and returns the slot number.
    /// The link comes up later: [`events`](Self::events) reports it.
    ///
    /// # Errors
    /// [`NeighborError`].
    pub fn attach(&self, peer: Peer) -> Result<Slot, NeighborError> {
        Ok(self.add(move |slow_path| slow_path.add_peer(peer).map(|slot| (slot, ())))?.0)
    }

    /// Adds a neighbor with a plain link, blocks until every worker forwards to it, and returns its
    /// slot number.
    ///
    /// # Errors
    /// [`NeighborError`].
    pub fn attach_neighbor(&self, neighbor: Neighbor) -> Result<Slot, NeighborError> {
        Ok(self.add(move |slow_path| slow_path.add_neighbor(neighbor).map(|slot| (slot, ())))?.0)
    }

    /// Adds a port for code of this process. The relay's memory does not grow after the start, so
    /// the frames of this port share it with those of the other ports.
    ///
    /// # Errors
    /// [`NeighborError`].
    pub fn attach_local(&self, port: LocalPortSpec) -> Result<LocalPort, NeighborError> {
        Ok(self.add(move |slow_path| slow_path.add_local_port(port))?.1)
    }

    /// Attaches a user to a slot, and blocks until every worker's table has the slot. The slot can
    /// then be renumbered.
    fn add<T: Send + 'static>(
        &self,
        code: impl FnOnce(&mut SlowPath) -> Result<(Slot, T), NeighborError> + Send + 'static,
    ) -> Result<(Slot, T), NeighborError> {
        // Subscribe before the call, so that no event after it is missed.
        let mut events = self.events();
        let (slot, added) = self.call(code).map_err(NeighborError::Call)??;
        loop {
            match self
                .call(move |slow_path| slow_path.is_pending(slot))
                .map_err(NeighborError::Call)?
            {
                Some(true) => (),
                Some(false) => return Ok((slot, added)),
                None => return Err(NeighborError::Refused { slot }),
            }
            events.recv().ok_or(NeighborError::Call(CallError::Stopped))?;
        }
    }

    /// Detaches the user of a slot. A peer whose link is up receives a goodbye. The slot number is
    /// quarantined before it is assigned again.
    ///
    /// # Errors
    /// [`SlotError`].
    pub fn detach(&self, slot: impl Into<Slot>) -> Result<(), SlotError> {
        let slot = slot.into();
        let detached = self.call(move |slow_path| slow_path.detach(slot));
        detached.map_err(SlotError::Call)?.map_err(SlotError::Detach)
    }

    /// Changes the number of a slot, and returns the new number: `to`, or the lowest free one if
    /// `to` is `None`. The former number leads to the slot for a limited time, and senders that use
    /// it are notified.
    ///
    /// # Errors
    /// [`SlotError`].
    pub fn renumber(&self, slot: impl Into<Slot>, to: Option<Slot>) -> Result<Slot, SlotError> {
        let slot = slot.into();
        let renumbered = self.call(move |slow_path| slow_path.switch().renumber(slot, to));
        renumbered.map_err(SlotError::Call)?.map_err(SlotError::Renumber)
    }

    /// Subscribes to all events from now on, with a queue of 1,024 events.
    pub fn events(&self) -> Events {
        self.events_of(EVENTS_WAITING)
    }

    /// Subscribes to all events from now on, with a queue of `waiting_max` events.
    pub fn events_of(&self, waiting_max: usize) -> Events {
        self.shared.hub.subscribe(waiting_max)
    }

    /// The counters of every port and link.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn stats(&self) -> Result<Stats, CallError> {
        self.call(|slow_path| slow_path.stats())
    }

    /// Whether the link of the peer or neighbor with this name forwards. To wait for a change,
    /// first subscribe to [`events`](Self::events), then call `is_up`, then wait for the next
    /// event.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn is_up(&self, name: &str) -> Result<bool, CallError> {
        let name = name.to_owned();
        self.call(move |slow_path| slow_path.is_up(&name))
    }

    /// The ports, with the addresses to which they are bound.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn ports(&self) -> Result<Vec<PortInfo>, CallError> {
        self.call(|slow_path| slow_path.ports().to_vec())
    }

    /// Takes the local port with this name. Each port can be taken once.
    ///
    /// # Errors
    /// [`NoLocalPort`].
    pub fn take_port(&self, name: &str) -> Result<LocalPort, NoLocalPort> {
        let mut ports = lock(&self.shared.local_ports);
        match ports.there.remove(name) {
            Some(port) => {
                ports.taken.insert(name.to_owned());
                Ok(port)
            }
            None => {
                Err(NoLocalPort { name: name.to_owned(), was_taken: ports.taken.contains(name) })
            }
        }
    }

    /// Messages about the start for the operator: the user as which the relay runs, and the slots
    /// from the state file.
    pub fn start_notes(&self) -> &[String] {
        &self.shared.notes
    }

    /// Starts the shutdown without blocking.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Blocks until the relay has ended.
    ///
    /// # Errors
    /// [`ShutdownError`].
    pub fn wait(&self) -> Result<Summary, ShutdownError> {
        let mut outcome = lock(&self.shared.outcome);
        loop {
            if let Some(outcome) = &*outcome {
                return outcome.clone();
            }
            outcome = self.shared.ended.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Shuts the relay down in order and blocks until it has ended. Peers receive a goodbye,
    /// waiting frames are sent or counted, and ports are closed. Local ports then return errors,
    /// such as [`PortClosed`](crate::PortClosed).
    ///
    /// # Errors
    /// [`ShutdownError`].
    pub fn shutdown(&self) -> Result<Summary, ShutdownError> {
        self.stop();
        self.wait()
    }
}
