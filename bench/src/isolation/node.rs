//! The switch under test, with real ports and with pools of the same size as in `strowger relay`.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use strowger_engine::{
    Now,
    control::{
        Attach, Balance, HandshakeSocket, PortId, Switch, SwitchConfig,
        peering::{Liveness, PeerSpec},
    },
    limits::HOPS_MAX,
    link::{Behind, plain_header},
    memory::SwitchShape,
    worker::Worker,
};
use strowger_frame::{
    Address, BURST_MAX, Pool, PoolSpec,
    reserve::{Chunks, PoolUser},
};
use strowger_io::{
    UnixPort,
    udp::{self, UdpSpec, worker_of},
    unix::{Client, UnixSpec},
};
use strowger_wire::Slot;
use strowger_wire::{
    Label,
    link_header::LINK_HEADER_BYTES,
    switch_header::{Flags, HeaderRepr},
};

use crate::{
    Failure, packet,
    sealed_chain::{local, peering},
};

/// A switch, its workers, and the files of its unix sockets.
pub(super) struct Node {
    pub(super) switch: Switch,
    pub(super) workers: Vec<Worker>,
    folder: Folder,
}

/// The properties that determine the pool sizes of a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NodeSpec {
    pub(super) workers: usize,
    pub(super) listeners: u32,
    pub(super) clients: u32,
    /// The number of the node's identity; `None` if it has no sealed links.
    pub(super) identity: Option<u8>,
}

impl NodeSpec {
    /// The pool of one worker, and the part of it that is reserved for frames in egress queues.
    /// Both are computed as in `strowger relay` with its defaults.
    fn pool(self) -> (PoolSpec, Chunks) {
        let burst = BURST_MAX as u32;
        let posted = u32::from(udp::limits::POSTED_BUFFERS).next_power_of_two().max(burst);
        let shape = SwitchShape {
            workers: self.workers,
            is_sealed: self.identity.is_some(),
            endpoints: Chunks { trains: 0, singles: self.clients },
        };
        let mut trains = self.listeners * (posted + 4 * burst);
        let mut singles = self.clients * (32 + burst);
        for need in shape.needs() {
            trains += need.chunks.trains;
            singles += need.chunks.singles;
        }
        (PoolSpec { trains, singles, huge_pages: true }, shape.egress_when_low())
    }
}

impl Node {
    pub(super) fn new(spec: NodeSpec) -> Result<Self, Failure> {
        let (memory, waiting) = spec.pool();
        let mut pools = Pool::group(&memory, spec.workers).map_err(Failure::kernel("memory"))?;
        for pool in &mut pools {
            pool.reserve(PoolUser::WAITING, waiting);
        }
        let (mut switch, workers) = Switch::new(SwitchConfig::default(), pools)?;
        if let Some(number) = spec.identity {
            switch.set_identity(peering(number)?, Now(1))?;
        }
        Ok(Self { switch, workers, folder: Folder::new()? })
    }

    /// Adds a UDP listener, with a handshake socket if `sealed` is set and handshakes can be
    /// steered.
    pub(super) fn listen(
        &mut self,
        at: Ipv4Addr,
        buffer_bytes: Option<usize>,
        sealed: bool,
    ) -> Result<(PortId, SocketAddrV4), Failure> {
        let mut spec = UdpSpec::new(SocketAddr::from((at, 0)));
        spec.steering_refused = !sealed;
        spec.socket_buffer_bytes = buffer_bytes.unwrap_or(spec.socket_buffer_bytes);
        let opened = udp::open_steered(&spec, self.workers.len())?;
        let bound = opened.workers.first().map(udp::OpenedUdpPort::local_addr);
        let Some(SocketAddr::V4(bound)) = bound else {
            return Err(Failure::Bug("listeners are bound to IPv4 addresses"));
        };
        let queues = opened.workers.into_iter().map(|one| one.boxed().0).collect();
        let port = self.switch.plug_everywhere(queues);
        let port = port.map_err(|why| Failure::Refused(why.to_string()))?;
        self.switch.accept_unknown(port, sealed);
        if let (true, Ok(slow)) = (sealed, opened.slow) {
            let memory =
                PoolSpec { trains: 0, singles: 2 * BURST_MAX as u32 + 1, huge_pages: false };
            let pool = Pool::new(&memory).map_err(Failure::kernel("memory"))?;
            let worker_of = |at: Address, workers: usize| match at {
                Address::Udp(at) => worker_of(at, workers),
                Address::Only | Address::Ether(_) => 0,
            };
            let opened = self.switch.open_handshake_socket(
                port,
                HandshakeSocket { port: slow.boxed().0, pool, worker_of },
            );
            opened.map_err(|why| Failure::Refused(why.to_string()))?;
        }
        Ok((port, bound))
    }

    /// Adds a plain neighbour with all rights, which is reached through a listener.
    pub(super) fn neighbour(
        &mut self,
        port: PortId,
        at: impl Into<SocketAddr>,
        slot: u32,
    ) -> Result<(), Failure> {
        let at = Address::Udp(at.into());
        let attach = Attach::plain(port, at, Behind::Neighbour, format!("neighbour {slot}"));
        self.switch.attach(attach.with_slot(Slot::new(slot)))?;
        Ok(())
    }

    /// Adds a peer with a sealed link.
    pub(super) fn peer(
        &mut self,
        port: PortId,
        at: Option<SocketAddrV4>,
        slot: u32,
        number: u8,
        liveness: Liveness,
    ) -> Result<(), Failure> {
        let mut spec = PeerSpec::new("peer", *local(number)?.static_public(), port);
        spec = spec.with_address(at.map(|at| Address::Udp(at.into())));
        spec = spec.with_slot(Slot::new(slot));
        spec = spec.with_liveness(liveness);
        self.switch.add_peer(spec, Now(1))?;
        Ok(())
    }

    /// Adds a unix socket to this worker, attaches it to this slot, and connects a client.
    pub(super) fn client(&mut self, worker: usize, slot: u32) -> Result<Client, Failure> {
        let path = self.folder.0.join(slot.to_string());
        let port = UnixPort::listen(&path, &UnixSpec::default());
        let port = port.map_err(|why| Failure::Refused(why.to_string()))?;
        let port = self.switch.plug_at(worker, Box::new(port));
        let port = port.map_err(|why| Failure::Refused(why.to_string()))?;
        let name = format!("client {slot}");
        let attach = Attach::plain(port, Address::Only, Behind::Endpoint, name);
        self.switch.attach(attach.with_slot(Slot::new(slot)))?;
        self.settle(Now(1))?;
        let client = Client::connect(&path);
        client.map_err(|why| Failure::Refused(format!("{}: {why}", path.display())))
    }

    /// Polls until the workers have applied all commands.
    pub(super) fn settle(&mut self, now: Now) -> Result<(), Failure> {
        for _ in 0..10_000 {
            self.poll(now);
            if self.switch.is_settled() {
                return Ok(());
            }
        }
        Err(Failure::Bug("workers apply commands when they are polled"))
    }

    /// Polls each worker once; returns the number of frames that they switched.
    pub(super) fn poll_workers(&mut self, now: Now) -> usize {
        self.workers.iter_mut().map(|worker| worker.poll(now)).sum()
    }

    /// Polls each worker and the slow path once.
    pub(super) fn poll(&mut self, now: Now) -> usize {
        let switched = self.poll_workers(now);
        self.switch.poll(now);
        switched
    }

    /// A label through this switch, from an ingress slot to an egress slot.
    pub(super) fn label(&self, slots: (u32, u32)) -> Result<Label, Failure> {
        Ok(packet::label(self.switch.config().scheme(), &[slots])?)
    }

    pub(super) fn balance(&self) -> Balance {
        self.switch.balance()
    }
}

/// A plain packet with these flags, as a neighbour or a client sends it.
pub(super) fn flagged(label: Label, flags: Flags, payload: &[u8]) -> Result<Vec<u8>, Failure> {
    let header = HeaderRepr { flags, ..HeaderRepr::new(label, 0, HOPS_MAX) };
    let mut bytes = vec![0; LINK_HEADER_BYTES + header.wire_bytes() + payload.len()];
    bytes[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(0));
    let rest = header.emit(&mut bytes[LINK_HEADER_BYTES..]);
    rest.map_err(|_| Failure::Bug("the length was computed"))?.copy_from_slice(payload);
    Ok(bytes)
}

/// Reads all datagrams that have arrived at a socket; returns their number.
pub(super) fn drain(socket: &UdpSocket) -> u64 {
    let mut count = 0;
    while socket.recv(&mut [0; 64]).is_ok() {
        count += 1;
    }
    count
}

/// A folder for the files of unix sockets, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("strowger-bench-{}-{number}", std::process::id());
        let path = Path::new(&std::env::temp_dir()).join(name);
        std::fs::create_dir(&path).map_err(Failure::kernel("a folder for unix sockets"))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // If the folder cannot be removed, it stays in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
