//! All that passes between the slow path and a worker: orders one way, reports the other. Neither
//! side ever waits for the other, and a worker never frees what an order brought.

use std::sync::Arc;

use strowger_frame::{
    Frame, Mark, Port,
    port::{Address, AdmitError},
};

use crate::{discard::DiscardTally, link::Link, slots::SlotTable};

/// Something attached to a worker: a port, and what is counted of it here.
pub struct PortSeat {
    /// The port's number in the switch.
    pub number: u16,
    /// The port itself.
    pub port: Box<dyn Port>,
    /// Discards of frames that came in by it, or were to leave by it.
    pub discards: Arc<DiscardTally>,
}

impl std::fmt::Debug for PortSeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortSeat")
            .field("number", &self.number)
            .field("port", &self.port.describe())
            .finish()
    }
}

/// What the slow path tells a worker. Obeyed in order, at most a few a breath.
#[derive(Debug)]
pub enum Order {
    /// Poll this port from now on.
    Plug(Box<PortSeat>),
    /// Stop polling this port and give it back. Its links were detached before.
    Unplug(u16),
    /// A link exists from now on; where its port is this worker's, admit it there.
    Attach(Box<Link>, Address),
    /// A link exists no longer.
    Detach(Mark),
    /// Decide by this table from now on.
    Slots(Box<SlotTable>),
}

/// What a worker tells the slow path: one for each order, with what the order replaced or could not
/// place, to be freed there.
#[derive(Debug)]
pub enum Report {
    /// The order was obeyed, and nothing is given back.
    Done,
    /// The table that was replaced.
    Slots(Box<SlotTable>),
    /// The link that was detached.
    Detached(Box<Link>),
    /// The port that was unplugged.
    Unplugged(Box<PortSeat>),
    /// The port would not have this neighbour.
    AttachRefused(Box<Link>, AdmitError),
    /// There was no such port, or no place for one: what the order brought comes back.
    PlugRefused(Box<PortSeat>),
}

/// A frame that was for this switch itself, on its way to the slow path.
#[derive(Debug)]
pub struct Punt {
    /// The worker that it came through.
    pub worker: u8,
    /// The link that it came in by.
    pub ingress: Mark,
    /// The slot that it came in by.
    pub ingress_slot: u32,
    /// The frame as it came: label and shift untouched.
    pub frame: Frame,
}

/// A frame on its way to the worker that owns its exit.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) to: Mark,
    pub(crate) ingress_slot: u32,
    pub(crate) is_control: bool,
    pub(crate) frame: Frame,
}

/// What wakes a worker that sleeps. The engine rings it after an order or a handover; how the
/// worker sleeps is not the engine's business.
pub trait Bell: Send + Sync {
    /// Wakes the worker if it sleeps; close to free if it does not.
    fn ring(&self);
}
