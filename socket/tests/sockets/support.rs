//! Two nodes at one relay.

use std::time::Duration;

use strowger_runtime::{LocalPort, LocalPortSpec, Relay, RelayHandle};
use strowger_socket::{
    Anyone, ConnectError, Destination, Node, NodeBuilder, Socket, connection,
    crypto::{IdentityKey, PeerId, SeededEntropy},
    wire::{Hop, Label, Scheme, Slot, label::AnyLabel},
};

/// Long enough for a busy machine; it only ends a test that hangs.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn key(seed: u64) -> IdentityKey {
    IdentityKey::generate(&mut SeededEntropy::new(seed)).expect("entropy")
}

/// The label from one slot of the relay to another one.
pub(crate) fn label(from: u32, to: u32) -> AnyLabel {
    let scheme = &Scheme::default();
    let hop = Hop { scheme, ingress: Slot::new(from), egress: Slot::new(to) };
    Label::<u64>::build(&[hop]).expect("one hop fits").0.into()
}

/// A relay with local ports on slots 2, 3 and 4.
pub(crate) fn relay() -> (RelayHandle, [LocalPort; 3]) {
    let mut relay = Relay::builder().workers(1);
    for slot in 2..5 {
        relay = relay.local_port_spec(LocalPortSpec::new(format!("app{slot}")).slot(slot));
    }
    let relay = relay.start().expect("a relay");
    let ports =
        [2, 3, 4].map(|slot| relay.take_port(&format!("app{slot}")).expect("an unused port"));
    (relay, ports)
}

/// A builder for a node with its own key, to which any peer may connect.
pub(crate) fn builder(seed: u64) -> NodeBuilder {
    Node::builder().identity(key(seed)).network("test").policy(Anyone)
}

pub(crate) struct Pair {
    pub(crate) relay: RelayHandle,
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) spare: Option<LocalPort>,
}

/// Nodes `a` and `b` on slots 2 and 3 of one relay, and a spare port on slot 4.
pub(crate) fn pair_with(change: impl Fn(NodeBuilder) -> NodeBuilder) -> Pair {
    let (relay, [at_a, at_b, spare]) = relay();
    let a = change(builder(1)).attach(at_a).start().expect("a node");
    let b = change(builder(2)).attach(at_b).start().expect("a node");
    Pair { relay, a, b, spare: Some(spare) }
}

pub(crate) fn pair() -> Pair {
    pair_with(|builder| builder)
}

pub(crate) fn to(peer: PeerId, label: AnyLabel) -> Destination {
    Destination::from(peer).label(label)
}

impl Pair {
    /// The label from `a` to `b`, as a destination.
    pub(crate) fn to_b(&self) -> Destination {
        to(self.b.peer_id(), label(2, 3))
    }

    /// A socket of `a`, and the one that `b` accepts. The first message is `hello`.
    pub(crate) fn sockets(&self, name: &str) -> (Socket, Socket) {
        let listener = self.b.listen(name).expect("a free name");
        // On an open connection, a new name is not accepted until its announcement has arrived.
        let mut ours = strowger_testkit::eventually("a socket", || {
            match self.a.connect(self.to_b(), name).wait() {
                Ok(socket) => Some(socket),
                Err(ConnectError::Failed(connection::ConnectError::Unsupported)) => None,
                Err(error) => panic!("{error}"),
            }
        });
        ours.send_wait(b"hello", LONG).expect("queued");
        let mut theirs = listener.accept_timeout(LONG).expect("open").expect("accepted");
        let first = theirs.recv_timeout(LONG).expect("open").expect("arrived");
        assert_eq!(&*first, b"hello");
        (ours, theirs)
    }
}

/// Receives one message.
pub(crate) fn recv(socket: &mut Socket) -> Vec<u8> {
    socket.recv_timeout(LONG).expect("open").expect("arrived").to_vec()
}
