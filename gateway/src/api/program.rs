//! A connection of a program, before it becomes a socket or a listener.

use std::{io::IoSlice, sync::Arc};

use serde_json::{Value, json};
use strowger_gateway::api_message::{ErrorName, Failed, FromProgram, Request, read};
use strowger_io::unix::seqpacket::Seqpacket;

use super::{Service, failure, listener, socket};
use crate::{
    exit::Failure,
    id::AGENT,
    limits::{API_DATAGRAM_BYTES_MAX, API_FIRST_MAX},
    node::destination,
    target::Target,
};

/// Sends an object. Ignores errors: they mean that the program has gone, and the next receive call
/// reports that.
pub(super) fn say(program: &Seqpacket, value: &Value) {
    let _ = program.send(&[IoSlice::new(value.to_string().as_bytes())]);
}

/// The answer to `id`: who this node is.
pub(super) fn id(service: &Service) -> Value {
    json!({ "id": {
        "peer_id": service.node.peer_id().to_string(),
        "ip6": service.node.ip().to_string(),
        "network": service.place.network,
        "agent": AGENT,
    } })
}

/// Serves a program until its connection ends.
pub(super) fn serve(service: &Arc<Service>, program: &Seqpacket) {
    let mut buffer = vec![0; API_DATAGRAM_BYTES_MAX];
    // A program that sends no request must not hold its place for long.
    if program.set_receive_timeout(Some(API_FIRST_MAX)).is_err() {
        return;
    }
    loop {
        let bytes = match program.receive(&mut buffer) {
            Ok(0) => return,
            Ok(bytes) => bytes,
            Err(_) => {
                let text = format!("no request for {} s", API_FIRST_MAX.as_secs());
                return say(program, &Failed::new(ErrorName::Timeout, text).to_json());
            }
        };
        let done = match read(&buffer[..bytes]) {
            Ok(FromProgram::Request(Request::Id)) => {
                say(program, &id(service));
                continue;
            }
            Ok(FromProgram::Request(Request::Connect { peer, protocols, timeout })) => {
                connect(service, program, &peer, &protocols, timeout)
            }
            Ok(FromProgram::Request(Request::Listen { protocols })) => {
                listener::serve(service, program, &protocols)
            }
            Ok(FromProgram::Request(Request::Info) | FromProgram::Message(_)) => {
                let text = "this connection is no socket yet: connect first";
                Err(Failed::new(ErrorName::WrongState, text))
            }
            Err(failed) => Err(failed),
        };
        match done {
            Ok(()) => return,
            Err(failed) => say(program, &failed.to_json()),
        }
    }
}

/// Connects, and then passes messages until either end closes.
fn connect(
    service: &Arc<Service>,
    program: &Seqpacket,
    peer: &str,
    protocols: &[String],
    timeout: std::time::Duration,
) -> Result<(), Failed> {
    let counted = service.socket_place()?;
    // The book may have changed since the service has started.
    let unknown = |failure: Failure| Failed::new(ErrorName::UnknownPeer, failure.line);
    let book = service.place.book().map_err(unknown)?;
    let target = Target::find(peer, &book, &service.place).map_err(unknown)?;
    let labels = book.of_peer(&target.peer).into_iter().flat_map(|entry| entry.labels.iter());
    let to = labels.fold(destination(&target), |to, &label| to.label(label));
    let connecting = service.node.connect(to, protocols).timeout(timeout);
    let connected = connecting
        .wait()
        .map_err(|error| failure::of_connect(&target, &protocols.join(", "), &error))?;
    say(program, &socket::opened("connected", &connected));
    let Ok(other) = program.try_clone() else { return Ok(()) };
    socket::pass(service, program, other, connected);
    drop(counted);
    Ok(())
}
