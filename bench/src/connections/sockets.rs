//! Two nodes and two bare local ports at one relay in this process.

use std::{
    future::Future as _,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use strowger_crypto::{IdentityKey, OsEntropy};
use strowger_runtime::{
    IdlePolicy, LocalPort, LocalPortSpec, LocalReceiver, LocalSender, Relay, RelayHandle,
};
use strowger_socket::{
    Anyone, Connecting, Destination, Driver, Listener, Node, NodeBuilder, Socket,
};
use strowger_wire::{Hop, Label, Scheme, Slot};

use crate::Failure;

/// The protocol of all sockets.
pub(super) const PROTOCOL: &str = "/bench/1";
/// The slots of the bare ports and of the nodes.
const BARE: [u32; 2] = [2, 3];
const NODES: [u32; 2] = [4, 5];
/// The maximum time for a socket to open, or for a message to arrive.
pub(super) const LONG: Duration = Duration::from_secs(10);
/// The longest packet of a node: messages of 1,400 bytes fit.
const PACKET_BYTES: u16 = 1_500;

/// Turns an error of a socket or relay into a failure.
pub(super) fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::Refused(error.to_string())
}

/// The label of a path. Each pair is the ingress slot and the egress slot at one switch.
pub(super) fn label(hops: &[(u32, u32)]) -> Result<Label, Failure> {
    let scheme = &Scheme::default();
    let hop = |&(from, to)| Hop { scheme, ingress: Slot::new(from), egress: Slot::new(to) };
    let hops: Vec<_> = hops.iter().map(hop).collect();
    Ok(Label::<u64>::build(&hops).map_err(refused)?.0)
}

/// The description of a node with a new identity, to which every peer may connect.
pub(super) fn node(port: LocalPort) -> Result<NodeBuilder, Failure> {
    let key = IdentityKey::generate(&mut OsEntropy).map_err(refused)?;
    let node = Node::builder().identity(key).network("bench").policy(Anyone);
    Ok(node.longest_packet(PACKET_BYTES).attach(port))
}

/// A relay with one worker, two bare ports and two ports for nodes.
pub(super) struct Local {
    pub(super) relay: RelayHandle,
    pub(super) bare: Bare,
    pub(super) ports: [LocalPort; 2],
}

impl Local {
    /// Starts the relay. A worker with its own core does not block.
    pub(super) fn new(own_core: Option<usize>) -> Result<Self, Failure> {
        let mut relay = Relay::builder().workers(1);
        if let Some(core) = own_core {
            relay = relay.cores([core]).idle(IdlePolicy::Spin);
        }
        for slot in BARE.into_iter().chain(NODES) {
            relay = relay.local_port_spec(LocalPortSpec::new(slot.to_string()).slot(slot));
        }
        let relay = relay.start().map_err(refused)?;
        let take = |slot: u32| relay.take_port(&slot.to_string()).map_err(refused);
        let ends = [take(BARE[0])?.split(), take(BARE[1])?.split()];
        let labels = [label(&[(BARE[0], BARE[1])])?, label(&[(BARE[1], BARE[0])])?];
        let ports = [take(NODES[0])?, take(NODES[1])?];
        Ok(Self { relay, bare: Bare { ends, labels }, ports })
    }
}

/// The destination of the second node, for the first one.
fn destination(to: &Node) -> Result<Destination, Failure> {
    let label = label(&[(NODES[0], NODES[1])])?;
    Ok(Destination::from(to.peer_id()).label(label.into()))
}

/// Two bare local ports.
pub(super) struct Bare {
    ends: [(LocalSender, LocalReceiver); 2],
    labels: [Label; 2],
}

impl Bare {
    /// The time for one message from one end to the other.
    pub(super) fn one_way(&mut self, from: usize, message: &[u8]) -> Result<Duration, Failure> {
        let started = Instant::now();
        self.ends[from].0.send_to(self.labels[from], message).map_err(refused)?;
        loop {
            if let Some(packet) = self.ends[1 - from].1.try_recv().map_err(refused)? {
                let took = started.elapsed();
                return check(packet.payload(), message, took);
            }
            late(started)?;
        }
    }
}

/// Two sockets of one connection, with the drivers of their nodes if this thread runs them.
pub(super) struct Sockets {
    pub(super) ends: [Socket; 2],
    pub(super) drivers: Option<[Driver; 2]>,
    _nodes: [Node; 2],
    _listener: Listener,
}

impl Sockets {
    /// Opens sockets of nodes whose drivers have their own threads.
    pub(super) fn threads(ports: [LocalPort; 2]) -> Result<Self, Failure> {
        let [near, far] = ports;
        let nodes = [node(near)?.start().map_err(refused)?, node(far)?.start().map_err(refused)?];
        Self::open(nodes, None)
    }

    /// Opens sockets of nodes that the calling thread drives.
    pub(super) fn one_thread(ports: [LocalPort; 2]) -> Result<Self, Failure> {
        let [near, far] = ports;
        let (near, drive_near) = node(near)?.start_manual().map_err(refused)?;
        let (far, drive_far) = node(far)?.start_manual().map_err(refused)?;
        Self::open([near, far], Some([drive_near, drive_far]))
    }

    fn open(nodes: [Node; 2], mut drivers: Option<[Driver; 2]>) -> Result<Self, Failure> {
        let listener = nodes[1].listen(PROTOCOL).map_err(refused)?;
        let mut attempt = Box::pin(nodes[0].connect(destination(&nodes[1])?, PROTOCOL));
        let ends = open_both(&mut attempt, &listener, &mut || drive(&mut drivers))?;
        Ok(Self { ends, drivers, _nodes: nodes, _listener: listener })
    }

    /// The time for one message from one end to the other.
    pub(super) fn one_way(&mut self, from: usize, message: &[u8]) -> Result<Duration, Failure> {
        let started = Instant::now();
        self.ends[from].try_send(message).map_err(refused)?;
        loop {
            drive(&mut self.drivers);
            if let Some(received) = self.ends[1 - from].try_recv().map_err(refused)? {
                let took = started.elapsed();
                return check(&received, message, took);
            }
            late(started)?;
        }
    }

    /// Sends and receives messages until the path carries messages of this many bytes.
    pub(super) fn widen(&mut self, bytes: usize) -> Result<(), Failure> {
        let started = Instant::now();
        while self.ends[0].message_max() < bytes {
            self.one_way(0, &[0; 64])?;
            late(started)?;
        }
        Ok(())
    }
}

fn drive(drivers: &mut Option<[Driver; 2]>) {
    for driver in drivers.iter_mut().flatten() {
        driver.poll();
    }
}

/// Returns the socket of an attempt and the socket that the listener accepts. Sends the first
/// message, and returns when the accepted socket has received it.
pub(super) fn open_both(
    attempt: &mut std::pin::Pin<Box<Connecting>>,
    listener: &Listener,
    drive: &mut dyn FnMut(),
) -> Result<[Socket; 2], Failure> {
    let started = Instant::now();
    let mut cx = Context::from_waker(Waker::noop());
    let mut near = loop {
        drive();
        if let Poll::Ready(socket) = attempt.as_mut().poll(&mut cx) {
            break socket.map_err(refused)?;
        }
        late(started)?;
    };
    near.try_send(b"first").map_err(refused)?;
    let mut far = None;
    loop {
        drive();
        far = match far {
            None => listener.try_accept().map_err(refused)?,
            far => far,
        };
        if let Some(socket) = &mut far
            && socket.try_recv().map_err(refused)?.is_some()
        {
            break;
        }
        late(started)?;
    }
    let far = far.ok_or(Failure::Bug("the loop ends with a socket"))?;
    Ok([near, far])
}

fn check(received: &[u8], sent: &[u8], took: Duration) -> Result<Duration, Failure> {
    match received == sent {
        true => Ok(took),
        false => Err(Failure::Wrong("another message arrived than was sent".to_owned())),
    }
}

fn late(started: Instant) -> Result<(), Failure> {
    std::hint::spin_loop();
    match started.elapsed() > LONG {
        true => Err(Failure::Wrong("a message in this process did not arrive".to_owned())),
        false => Ok(()),
    }
}
