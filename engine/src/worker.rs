//! One worker: one core's share of the data plane. Once started, a worker allocates nothing, never
//! blocks, and reads no clock.
//!
//! | file | content |
//! |---|---|
//! | `forward` | the path of a packet: poll, receive, classify, lookup, swap, encapsulate, dispatch |
//! | `open` | opening of sealed frames, and notes of what they prove about a peer |
//! | `transmit` | sending from egress queues to ports; actions before and after the thread sleeps |
//! | `verdict` | the outcome for one frame |
//! | `punt` | punts to the slow path, and packets that the switch itself makes |
//! | `handoff` | frames from and to other workers |
//! | `pending` | frames that wait for keys |
//! | `apply` | commands of the slow path |
//! | `links`, `ports`, `schedule`, `slow_path` | the state of a worker, by owner |

mod apply;
mod forward;
mod handoff;
mod links;
mod open;
mod pending;
mod ports;
mod punt;
mod schedule;
mod settle;
mod slow_path;
mod transmit;
mod verdict;

use std::sync::Arc;

use arrayvec::ArrayVec;
use strowger_frame::{Mark, Pool, Wake};
use strowger_wire::switch_header::HeaderError;

pub(crate) use self::{handoff::HandoffRings, slow_path::SlowPath};
use self::{links::LinkTable, ports::PortQueues, schedule::Schedule};
use crate::{
    Now, control::SwitchConfig, discard::Discard, limits::ATTACHED_MAX, link::TxContext,
    session::Sessions, slots::SlotTable,
};

/// The queue index of a frame that arrived on no port of this worker.
const NO_QUEUE: usize = usize::MAX;

/// One core's share of a switch: its tables, its queue of every port, and its pool.
pub struct Worker {
    number: u8,
    hops_max: u8,
    /// Maps the label's low bits to the next hop.
    slots: Box<SlotTable>,
    links: LinkTable,
    sessions: Sessions,
    ports: PortQueues,
    schedule: Schedule,
    tx: TxContext,
    backlog: Backlog,
    handoff_rings: HandoffRings,
    slow_path: SlowPath,
    /// The worker that handed off the frame that is being processed.
    handed_off_by: u8,
    alias_used: punt::AliasUsed,
}

/// The lists of links with waiting frames.
struct Backlog {
    /// Links that [`transmit`](Worker::transmit) is processing. Empty between calls.
    offering: Vec<Mark>,
    /// Links with contended egress queues: each once, and in no other list.
    contended: Vec<Mark>,
    /// The number of frames that wait for keys, over all links.
    pending_frames: usize,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("number", &self.number)
            .field("ports", &self.ports.len())
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// Sets the waker of another worker. This worker calls it after it has handed frames to that
    /// worker, and when chunks run low in this worker's pool.
    pub fn set_waker(&mut self, number: usize, waker: Arc<dyn Wake>) {
        self.handoff_rings.set_waker(number, waker);
    }

    /// Sets the waker of the slow path. The worker calls it at most once for each flush, and only
    /// if it has something new for the slow path.
    pub fn set_slow_path_waker(&mut self, waker: Arc<dyn Wake>) {
        self.slow_path.waker = Some(waker);
    }

    /// This worker's number in its switch.
    pub fn number(&self) -> usize {
        usize::from(self.number)
    }

    /// The pool of this worker's frames.
    pub fn pool_mut(&mut self) -> &mut Pool {
        &mut self.tx.pool
    }

    pub(crate) fn new(
        number: u8,
        config: &SwitchConfig,
        pool: Pool,
        slots: Box<SlotTable>,
        handoff_rings: HandoffRings,
        slow_path: SlowPath,
    ) -> Self {
        Self {
            number,
            hops_max: config.hops_max,
            slots,
            links: LinkTable::new(&config.scheme),
            sessions: Sessions::new(),
            ports: PortQueues::new(),
            schedule: Schedule::new(),
            tx: TxContext {
                now: Now::default(),
                pool,
                tx_pending: Vec::with_capacity(ATTACHED_MAX),
                displaced: ArrayVec::new(),
                rekey_due: None,
            },
            backlog: Backlog {
                offering: Vec::with_capacity(ATTACHED_MAX),
                contended: Vec::with_capacity(ATTACHED_MAX),
                pending_frames: 0,
            },
            handoff_rings,
            slow_path,
            handed_off_by: number,
            alias_used: punt::AliasUsed::default(),
        }
    }
}

impl From<HeaderError> for Discard {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::TooShort => Self::TooShort,
            HeaderError::Version => Self::BadVersion,
            HeaderError::Width => Self::BadWidth,
            HeaderError::Shift => Self::BadHeader,
        }
    }
}
