//! Attaches a node to a slot: a local port of a relay in this process, or a unix port of a relay in
//! another process.

mod in_process;
mod unix;

use std::path::{Path, PathBuf};

use strowger_frame::{Burst, Pool, port::Arm};
use strowger_runtime::LocalPort;
use strowger_wire::Scheme;

pub(crate) use self::{
    in_process::InProcessPort,
    unix::{RECEIVES, UnixSlot},
};
use crate::{announce::SharedPlace, error::StartError};

/// The slot of a relay in this process.
#[derive(Debug)]
pub struct InProcess(pub(crate) Box<LocalPort>);

impl InProcess {
    /// Attaches to a port that [`RelayHandle::take_port`](strowger_runtime::RelayHandle::take_port)
    /// or [`attach_local`](strowger_runtime::RelayHandle::attach_local) returned.
    pub fn new(port: LocalPort) -> Self {
        Self(Box::new(port))
    }
}

/// The slot of a relay in another process, by its unix port.
#[derive(Clone, Debug)]
pub struct Unix(pub(crate) PathBuf);

impl Unix {
    /// Attaches to the socket at this path.
    pub fn at(path: impl AsRef<Path>) -> Self {
        Self(path.as_ref().to_owned())
    }
}

/// The kind of port by which a node reaches its slot.
#[derive(Debug)]
#[non_exhaustive]
pub enum Attachment {
    /// A port of a relay in this process.
    InProcess(InProcess),
    /// A unix port of a relay in another process.
    Unix(Unix),
}

impl From<InProcess> for Attachment {
    fn from(port: InProcess) -> Self {
        Self::InProcess(port)
    }
}

impl From<LocalPort> for Attachment {
    fn from(port: LocalPort) -> Self {
        Self::InProcess(InProcess::new(port))
    }
}

impl From<Unix> for Attachment {
    fn from(port: Unix) -> Self {
        Self::Unix(port)
    }
}

impl Attachment {
    pub(crate) fn open(self) -> Result<(SlotPort, PortFacts), StartError> {
        match self {
            Self::InProcess(port) => Ok(InProcessPort::open(port)),
            Self::Unix(port) => UnixSlot::open(port.0),
        }
    }
}

/// The facts about its switch that a port knows.
#[derive(Clone, Debug)]
pub(crate) struct PortFacts {
    pub(crate) scheme: Scheme,
    /// The slot and the switch, as far as the port knows them.
    pub(crate) place: SharedPlace,
    /// Bytes of the longest packet, with the switch header; `None` if the port sets no limit below
    /// that of the node.
    pub(crate) longest_packet: Option<u16>,
}

/// A change of the switch behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortChange {
    /// The switch has ended for good.
    Ended,
    /// The switch has ended, and the port tries to connect again.
    Gone,
    /// The port is connected again.
    Back,
}

/// A port, as the driver uses it. Packets begin with the switch header. The mark of a received
/// frame is the number of its ingress slot.
pub(crate) enum SlotPort {
    InProcess(Box<InProcessPort>),
    Unix(Box<UnixSlot>),
}

/// Calls the method of the same name of the port.
macro_rules! delegate {
    ($self:ident, $port:ident => $call:expr) => {
        match $self {
            Self::InProcess($port) => $call,
            Self::Unix($port) => $call,
        }
    };
}

impl SlotPort {
    /// Receives packets while `burst` has room. Returns a change of the switch, if there is one.
    #[inline]
    pub(crate) fn receive(&mut self, pool: &mut Pool, burst: &mut Burst) -> Option<PortChange> {
        delegate!(self, port => port.receive(pool, burst))
    }

    /// Sends packets from the front of `packets`. Packets that find no room in the port stay.
    /// Returns the number of packets that were lost because the switch is gone.
    #[inline]
    pub(crate) fn transmit(&mut self, packets: &mut Burst) -> usize {
        delegate!(self, port => port.transmit(packets))
    }

    /// Whether packets that `transmit` took wait for room.
    pub(crate) fn is_stalled(&self) -> bool {
        delegate!(self, port => port.is_stalled())
    }

    /// Prepares to block: passes each descriptor to wait for to `add`.
    pub(crate) fn arm(&mut self, add: impl FnMut(Arm)) {
        delegate!(self, port => port.arm(add));
    }

    /// Whether the port must be polled again after [`RETRY`](crate::limits::RETRY), although no
    /// descriptor becomes readable.
    pub(crate) fn must_retry(&self) -> bool {
        delegate!(self, port => port.must_retry())
    }
}
