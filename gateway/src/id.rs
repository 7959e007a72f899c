//! `strowger id`: prints a peer in the format of `ipfs id`.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use strowger_crypto::Identity;
use strowger_routing::AddressBook;
use strowger_socket::{Events, Node, NodeEvent};
use strowger_wire::label::AnyLabel;

use crate::{
    base64,
    exit::{Exit, Failure, output_ended},
    limits::{CONNECT_S, PONG_MAX},
    node::{self, Access},
    place::PlaceOptions,
    send::seconds,
    signals,
    target::Target,
};

/// The agent of this program in `identify`.
pub(crate) const AGENT: &str = concat!("strowger/", env!("CARGO_PKG_VERSION"));

/// `strowger id`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The peer to ask. Without it, the identity of this program's key.
    #[arg(value_name = "PEER")]
    peer: Option<String>,
    /// How long a connection may take.
    #[arg(long, value_name = "SECONDS", default_value_t = CONNECT_S, value_parser = seconds, allow_negative_numbers = true)]
    timeout: f64,
    #[command(flatten)]
    place: PlaceOptions,
}

/// `strowger id`.
///
/// # Errors
/// One line: the key cannot be read, or there is no connection to the peer.
pub(crate) fn run(options: &Options, output: &mut dyn Write) -> Result<(), Failure> {
    let place = options.place.place()?;
    if let Some(peer) = &options.peer {
        let book = place.book()?;
        let target = Target::find(peer, &book, &place)?;
        let known = addresses(&book, &target);
        let node = node::start(&place, book, Access::Refused)?;
        signals::close_on_signal(&node)?;
        let shape = options.ask(&node, &target, known);
        node::close(node, "");
        return print(output, &shape?);
    }
    let identity = place.identity()?.public();
    print(output, &shape(&identity, Vec::new(), AGENT, &[]))
}

impl Options {
    /// Asks the peer.
    fn ask(&self, node: &Node, target: &Target, mut known: Vec<String>) -> Result<Value, Failure> {
        let mut events = node.events();
        let _connection = node::reach(node, target, Duration::from_secs_f64(self.timeout))?;
        let identified = identify(node, &mut events, target)?;
        let info = node.connection(&target.peer).info().wait(PONG_MAX);
        let info = info.and_then(|info| info.ok().flatten());
        let identity = target
            .peer
            .identity()
            .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", target.peer)))?;
        let paths = info.iter().flat_map(|info| &info.paths);
        for path in paths {
            let address = format!("/switch/{}/p2p/{}", path.label, target.peer);
            if !known.contains(&address) {
                known.push(address);
            }
        }
        let protocols = info.as_ref().map_or(&[][..], |info| &info.their_protocols);
        Ok(shape(&identity, known, &identified.agent, protocols))
    }
}

/// The answer of a peer to `identify`.
pub(crate) struct Identified {
    /// The name and version of its program.
    pub(crate) agent: String,
    /// The label from the peer to this node: the return label of the request.
    pub(crate) label: AnyLabel,
}

/// Asks a connected peer.
///
/// # Errors
/// One line: the peer does not answer.
pub(crate) fn identify(
    node: &Node,
    events: &mut Events,
    target: &Target,
) -> Result<Identified, Failure> {
    let deadline = Instant::now() + 2 * PONG_MAX;
    while Instant::now() < deadline {
        let _ = node.connection(&target.peer).identify().wait(PONG_MAX);
        let again = Instant::now() + PONG_MAX / 4;
        loop {
            match events.next_timeout(again.saturating_duration_since(Instant::now())) {
                Some(NodeEvent::Identified { peer, agent, label, .. }) if peer == target.peer => {
                    return Ok(Identified { agent, label });
                }
                Some(_) => {}
                None => break,
            }
        }
    }
    let line = format!("{target} does not answer a question about itself; try again");
    Err(Failure::new(Exit::CheckFailed, line))
}

/// The addresses of a peer in the book.
fn addresses(book: &AddressBook, target: &Target) -> Vec<String> {
    let Some(entry) = book.of_peer(&target.peer) else { return Vec::new() };
    let labels = entry.labels.iter().map(|label| format!("/switch/{label}/p2p/{}", target.peer));
    labels.chain(entry.addresses.iter().map(ToString::to_string)).collect()
}

fn print(output: &mut dyn Write, value: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    writeln!(output, "{text}").or_else(|error| output_ended(&error))
}

/// The fields of `ipfs id`. `PublicKey` is libp2p's protobuf of the key in base64.
fn shape(
    identity: &Identity,
    mut addresses: Vec<String>,
    agent: &str,
    protocols: &[String],
) -> Value {
    let peer = identity.peer_id();
    addresses.push(format!("/p2p/{peer}"));
    json!({
        "ID": peer.to_string(),
        "PublicKey": base64::encode(&identity.to_protobuf()),
        "Addresses": addresses,
        "AgentVersion": agent,
        "Protocols": protocols,
    })
}
