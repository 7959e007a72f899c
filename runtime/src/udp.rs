//! UDP listeners. A listener has one socket per worker, all bound to the same address. In a relay
//! with an identity it also has a handshake socket, if the kernel can steer handshakes to it.

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

/// The size of a handshake socket's pool: a burst to receive into, a burst that is being processed,
/// and a reply.
pub(crate) const HANDSHAKE_POOL: PoolSpec =
    PoolSpec { trains: 0, singles: 2 * BURST_MAX as u32 + 1, huge_pages: false };

/// An open listener.
pub(crate) struct OpenedPort {
    /// One queue per worker, in the workers' order.
    pub(crate) queues: Vec<Box<dyn Port>>,
    pub(crate) reports: Vec<UdpReport>,
    pub(crate) handshake_socket: Option<HandshakeSocket>,
    /// `Ok` if handshakes arrive on their own socket, otherwise the reason why they do not. `None`
    /// without an identity.
    pub(crate) steered: Option<Result<(), Refusal>>,
}

/// Whether the relay performs handshakes. It does if it has an identity.
pub(crate) fn has_handshakes(config: &RelayBuilder) -> bool {
    config.identity.is_some()
}

/// Makes the specification of a listener's sockets.
pub(crate) fn spec_of(listener: &UdpListener, config: &RelayBuilder) -> UdpSpec {
    UdpSpec {
        backend: listener.backend,
        socket_buffer_bytes: listener.socket_buffer_bytes,
        neighbours_max: config.switch.slot_max() + 1,
        posted_buffers: listener.posted_buffers,
        steering_refused: !has_handshakes(config),
        dual_stack: takes_ipv4_too(listener.address, config.udp.iter().map(|it| it.address)),
        ..UdpSpec::new(listener.address)
    }
}

/// Opens the sockets of an alternate port from this specification, without captures.
pub(crate) fn open_alternate(spec: &UdpSpec, workers: usize) -> Result<OpenedPort, String> {
    let Steered { workers: opened, slow } =
        open_steered(spec, workers).map_err(|error| error.to_string())?;
    let (queues, reports) = opened.into_iter().map(OpenedUdpPort::boxed).unzip();
    let (handshake_socket, steered) = match slow {
        Ok(slow) => (Some(handshake_socket_of(slow.boxed().0)?), Some(Ok(()))),
        Err(refusal) => (None, Some(Err(refusal))),
    };
    Ok(OpenedPort { queues, reports, handshake_socket, steered })
}

pub(crate) fn open(
    listener: &UdpListener,
    config: &RelayBuilder,
    opener: &Opener,
    workers: usize,
) -> Result<OpenedPort, String> {
    let has_identity = has_handshakes(config);
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
    let (handshake_socket, steered) = match slow {
        Ok(slow) => (Some(open_handshake_socket(slow, listener, opener)?), Some(Ok(()))),
        Err(refusal) => (None, has_identity.then_some(Err(refusal))),
    };
    Ok(OpenedPort { queues, reports, handshake_socket, steered })
}

fn open_handshake_socket(
    slow: OpenedUdpPort,
    listener: &UdpListener,
    opener: &Opener,
) -> Result<HandshakeSocket, String> {
    let path = listener.capture.as_deref().map(handshake_file);
    handshake_socket_of(captured(slow.boxed().0, opener, path.as_deref())?)
}

fn handshake_socket_of(port: Box<dyn Port>) -> Result<HandshakeSocket, String> {
    let pool =
        Pool::new(&HANDSHAKE_POOL).map_err(|error| format!("memory for handshakes: {error}"))?;
    let worker_of = |at: Address, workers: usize| match at {
        Address::Udp(at) => worker_of(at, workers),
        Address::Only | Address::Ether(_) => 0,
    };
    Ok(HandshakeSocket { port, pool, worker_of })
}
