//! Starts a node at the socket of a relay, connects it to a peer, and makes error messages.

use std::{
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use strowger_crypto::{NetworkId, OsEntropy, PeerId};
use strowger_routing::{
    AddressBook, AskNeighbours, AskRelay, PeerRouting, StaticTable, combine::First,
};
use strowger_socket::{
    Anyone, ConnectError, Destination, Goodbye, GoodbyeCode, Node, Only, SlotFacts, Socket,
    StartError, Unix,
    connection::{self, ConnectStage},
};
use strowger_wire::Slot;

use crate::{
    exit::{Exit, Failure},
    id::AGENT,
    limits::{
        CLOSE_MAX, PONG_MAX, PROBE_PROTOCOL, RING_DEPTH, SLOT_UNKNOWN, TABLE_EVERY, TABLE_MAX,
    },
    place::Place,
    relay,
    target::Target,
};

/// Which peers may connect.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    /// None: the program only connects.
    Refused,
    /// The peers of the address book with the purpose `accept`.
    Book,
    /// These peers.
    Peers(Vec<PeerId>),
    /// Every peer that knows this PeerId.
    Anyone,
}

/// Starts a node.
///
/// # Errors
/// One line: no relay answers, the key cannot be read, or the machine refuses memory.
pub(crate) fn start(place: &Place, book: AddressBook, access: Access) -> Result<Node, Failure> {
    start_with(place, book, access, |routing| routing)
}

/// As [`start`], but the node uses the routing that `wrap` returns.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_with(
    place: &Place,
    book: AddressBook,
    access: Access,
    wrap: impl FnOnce(Box<dyn PeerRouting>) -> Box<dyn PeerRouting> + Send + 'static,
) -> Result<Node, Failure> {
    let identity = place.identity()?;
    let network = place.network()?;
    warn_of_shared_key(place);
    let accepted = book.entries().iter().filter(|entry| entry.purposes.accept);
    let accepted: Vec<PeerId> = accepted.map(|entry| entry.peer_id).collect();
    let control = place.control.clone();
    let builder = Node::builder()
        .identity(identity)
        .network(network.as_bytes())
        .attach(Unix::at(&place.socket))
        .routing_from(move |facts| wrap(routing(book, network, facts, &control)))
        .announce(!matches!(access, Access::Refused))
        .ring_depth(RING_DEPTH)
        .agent(AGENT);
    let builder = match access {
        Access::Refused => builder.policy(Only::default()),
        Access::Book => builder.policy(Only::new(accepted)),
        Access::Peers(peers) => builder.policy(Only::new(peers)),
        Access::Anyone => builder.policy(Anyone),
    };
    builder.start().map_err(|error| start_failure(place, &error))
}

/// The routing of a node: the address book, then the relay, then its neighbours.
fn routing(
    book: AddressBook,
    network: NetworkId,
    facts: &SlotFacts,
    control: &Path,
) -> Box<dyn PeerRouting> {
    let relay = AskRelay::new(network, Box::new(OsEntropy));
    let known = First::new(StaticTable::new(book), relay);
    // The width of a label to a neighbour depends on the own slot; assume a wide slot number if it
    // is unknown.
    let own = Slot::new(facts.slot.unwrap_or(SLOT_UNKNOWN));
    let mut neighbours = AskNeighbours::new(network, facts.scheme, own, Box::new(OsEntropy));
    neighbours.set_neighbours(relay::neighbours(control));
    Box::new(First::new(known, neighbours))
}

fn start_failure(place: &Place, error: &StartError) -> Failure {
    let shown = place.socket.display();
    match error {
        StartError::Unix { why, .. } => Failure::new(
            Exit::NoRelay,
            format!(
                "no relay takes programs at {shown} ({why}); start one with `strowger relay`, or name \
                 the path of its [[unix]] with `clients`: --socket PATH, or --folder FOLDER"
            ),
        ),
        StartError::NoGreeting { .. } | StartError::BadScheme { .. } => {
            Failure::new(Exit::NoRelay, error.to_string())
        }
        other => Failure::new(Exit::Refused, other.to_string()),
    }
}

/// Warns if another program uses the key now. The lock ends with the process.
fn warn_of_shared_key(place: &Place) {
    let Ok(file) = File::open(&place.key) else { return };
    if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
        eprintln!(
            "strowger: another program uses {}; a peer keeps one connection for each PeerId, so give \
             one of the two another key (`strowger key new FILE`, --key FILE)",
            place.key.display()
        );
    }
    // The lock is held until the process ends.
    std::mem::forget(file);
}

/// The destination of a target.
pub(crate) fn destination(target: &Target) -> Destination {
    let address = target.address.as_ref();
    let by_address = address.and_then(|address| Destination::try_from(address).ok());
    by_address.unwrap_or_else(|| Destination::from(target.peer))
}

/// Opens a socket to a peer.
///
/// # Errors
/// One line: why not, and what to do.
pub(crate) fn connect(
    node: &Node,
    target: &Target,
    protocol: &str,
    timeout: Duration,
) -> Result<Socket, Failure> {
    let connecting = node.connect(destination(target), protocol).timeout(timeout);
    let socket = connecting.wait().map_err(|error| connect_failure(target, protocol, &error))?;
    // The socket opens before the peer has sent its protocol table (W6-34). Wait for the table, to
    // report a refusal.
    if !accepts(node, target, protocol, TABLE_MAX.min(timeout)) {
        let error = connection::ConnectError::Unsupported;
        return Err(connect_failure(target, protocol, &error.into()));
    }
    Ok(socket)
}

/// Waits until a connected peer has stated that it accepts a protocol, for at most `wait`. Returns
/// whether it accepts the protocol. The peer's table follows the handshake, and the peer repeats it
/// after a loss.
pub(crate) fn accepts(node: &Node, target: &Target, protocol: &str, wait: Duration) -> bool {
    let began = Instant::now();
    loop {
        let info = node.connection(&target.peer).info().wait(PONG_MAX);
        let info = info.and_then(|info| info.ok().flatten());
        if info.iter().flat_map(|info| &info.their_protocols).any(|name| name == protocol) {
            return true;
        }
        let is_complete = info.is_some_and(|info| info.are_their_protocols_complete);
        if is_complete || began.elapsed() >= wait {
            return false;
        }
        std::thread::sleep(TABLE_EVERY);
    }
}

/// Whether a connected peer has already stated that it accepts a protocol.
pub(crate) fn states(node: &Node, target: &Target, protocol: &str) -> bool {
    let info = node.connection(&target.peer).info().wait(PONG_MAX);
    let info = info.and_then(|info| info.ok().flatten());
    info.is_some_and(|info| info.their_protocols.iter().any(|name| name == protocol))
}

/// Connects to a peer without a protocol of the program: for pings and identify requests. The
/// connection stays while the returned socket is open. If the peer refuses the protocol, there is a
/// connection but no socket.
///
/// # Errors
/// One line: why there is no connection, and what to do.
pub(crate) fn reach(
    node: &Node,
    target: &Target,
    timeout: Duration,
) -> Result<Option<Socket>, Failure> {
    let connecting = node.connect(destination(target), PROBE_PROTOCOL).timeout(timeout);
    match connecting.wait() {
        Ok(socket) => Ok(Some(socket)),
        Err(ConnectError::Failed(connection::ConnectError::Unsupported)) => Ok(None),
        Err(error) => Err(connect_failure(target, PROBE_PROTOCOL, &error)),
    }
}

/// The failure for an error of connecting, with a hint what to do.
pub(crate) fn connect_failure(target: &Target, protocol: &str, error: &ConnectError) -> Failure {
    use connection::ConnectError as Why;
    let ConnectError::Failed(why) = error else {
        return Failure::new(Exit::NoPeer, format!("{target}: {error}"));
    };
    let peer = target.peer;
    let text = match why {
        Why::NoRoute | Why::Timeout { stage: ConnectStage::Lookup } => no_label(target),
        Why::Timeout { stage: ConnectStage::Handshake } => format!(
            "no answer to the handshake: the peer does not run, its label is wrong, it is in another \
             network, or it does not accept this PeerId (there: strowger receive --from, or `strowger \
             peer add NAME PEER_ID --purposes accept`); `strowger probe {peer}` checks each stage"
        ),
        Why::Timeout { stage: ConnectStage::Protocols } => {
            "the peer answered, but its protocols did not arrive: the path loses packets; try again"
                .to_owned()
        }
        Why::WrongPeer { found } => format!(
            "another peer answers at the label: {found}; correct the label in the address book"
        ),
        Why::Unsupported => unsupported(protocol),
        Why::PathTooNarrow { bytes, needed } => format!(
            "the path takes packets of {bytes} bytes, and a handshake needs {needed}: choose another \
             path, or raise the MTU of the link that `strowger trace` shows"
        ),
        Why::Ourselves => format!(
            "this is the PeerId of this program itself: give one of the two programs another key \
             (`strowger key new FILE`, --key FILE; {peer} is that of --key here)"
        ),
        Why::Refused(goodbye) => format!("the peer refused the connection ({goodbye})"),
        other => other.to_string(),
    };
    Failure::new(Exit::NoPeer, format!("{target}: {text}"))
}

/// The text of the failure if the peer does not accept a protocol, with the remedy.
pub(crate) fn unsupported(protocol: &str) -> String {
    format!(
        "the peer does not accept {protocol}, or not from this PeerId; there: strowger receive \
         {protocol}"
    )
}

/// The text of the failure if no source knows a label, with the remedy.
pub(crate) fn no_label(target: &Target) -> String {
    format!(
        "no label leads to the peer: neither the address book nor the relay knows one; `strowger \
         peer add NAME {} --label LABEL` adds one. A peer on this relay or on a neighbour needs \
         none while a program with its key accepts there (strowger receive), in the same network",
        target.peer
    )
}

/// Sends goodbyes to all peers and closes the node. Takes at most [`CLOSE_MAX`].
pub(crate) fn close(node: Node, text: &str) {
    let goodbye = Goodbye::new(GoodbyeCode::STOPPING).text(text);
    let _ = node.close(goodbye).wait(CLOSE_MAX);
}
