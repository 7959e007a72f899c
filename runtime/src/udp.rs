//! UDP listeners: one socket for each worker at the same address, and, where handshakes may come in, a
//! door beside them, if the kernel steers. It never receives anything itself.

use strowger_engine::control::HandshakeSocket;
use strowger_frame::{Address, BURST_MAX, Pool, PoolSpec, Port};
use strowger_io::{
    sys::Refusal,
    udp::{OpenedUdpPort, Steered, UdpReport, UdpSpec, open_steered, worker_of},
};

use crate::{
    address::takes_ipv4_too,
    builder::RelayBuilder,
    files::Opener,
    open::captured,
    spec::{UdpListener, file_of_worker, handshake_file},
};

/// A door's memory: a burst that the socket is ready for, one that is being read, and an answer.
pub(crate) const DOOR_MEMORY: PoolSpec =
    PoolSpec { trains: 0, singles: 2 * BURST_MAX as u32 + 1, huge_pages: false };

/// A listener that is open.
pub(crate) struct Opening {
    /// One a worker, in their order.
    pub(crate) queues: Vec<Box<dyn Port>>,
    pub(crate) reports: Vec<UdpReport>,
    pub(crate) door: Option<HandshakeSocket>,
    /// Whether handshakes come in by the door; `None` where nobody has any to make.
    pub(crate) steered: Option<Result<(), Refusal>>,
}

/// Whether there is anything to shake hands with.
pub(crate) fn has_doors(config: &RelayBuilder) -> bool {
    config.identity.is_some()
}

/// What a listener's sockets are to be.
pub(crate) fn spec_of(listener: &UdpListener, config: &RelayBuilder) -> UdpSpec {
    UdpSpec {
        backend: listener.backend,
        socket_buffer_bytes: listener.socket_buffer_bytes,
        neighbours_max: config.switch.slot_max() + 1,
        posted_buffers: listener.posted_buffers,
        steering_refused: !has_doors(config),
        dual_stack: takes_ipv4_too(listener.address, config.udp.iter().map(|it| it.address)),
        ..UdpSpec::new(listener.address)
    }
}

/// The same sockets at another port, for handshakes and sealed links. It writes no captures.
pub(crate) fn open_alternate(spec: &UdpSpec, workers: usize) -> Result<Opening, String> {
    let Steered { workers: opened, slow } =
        open_steered(spec, workers).map_err(|error| error.to_string())?;
    let (queues, reports) = opened.into_iter().map(OpenedUdpPort::boxed).unzip();
    let (door, steered) = match slow {
        Ok(slow) => (Some(door_of(slow.boxed().0)?), Some(Ok(()))),
        Err(refusal) => (None, Some(Err(refusal))),
    };
    Ok(Opening { queues, reports, door, steered })
}

pub(crate) fn open(
    listener: &UdpListener,
    config: &RelayBuilder,
    opener: &Opener,
    workers: usize,
) -> Result<Opening, String> {
    let has_door = has_doors(config);
    let spec = spec_of(listener, config);
    let Steered { workers: opened, slow } =
        open_steered(&spec, workers).map_err(|error| error.to_string())?;
    let mut queues = Vec::new();
    let mut reports = Vec::new();
    for (worker, one) in opened.into_iter().enumerate() {
        let (queue, report) = one.boxed();
        let path = listener.capture.as_deref().map(|path| file_of_worker(path, worker, workers));
        queues.push(captured(queue, opener, path.as_deref())?);
        reports.push(report);
    }
    let (door, steered) = match slow {
        Ok(slow) => (Some(door(slow, listener, opener)?), Some(Ok(()))),
        Err(refusal) => (None, has_door.then_some(Err(refusal))),
    };
    Ok(Opening { queues, reports, door, steered })
}

fn door(
    slow: OpenedUdpPort,
    listener: &UdpListener,
    opener: &Opener,
) -> Result<HandshakeSocket, String> {
    let path = listener.capture.as_deref().map(handshake_file);
    door_of(captured(slow.boxed().0, opener, path.as_deref())?)
}

fn door_of(port: Box<dyn Port>) -> Result<HandshakeSocket, String> {
    let pool =
        Pool::new(&DOOR_MEMORY).map_err(|error| format!("memory for handshakes: {error}"))?;
    let worker_of = |at: Address, workers: usize| match at {
        Address::Udp(at) => worker_of(at, workers),
        Address::Only | Address::Ether(_) => 0,
    };
    Ok(HandshakeSocket { port, pool, worker_of })
}
