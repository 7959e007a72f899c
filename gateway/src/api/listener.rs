//! A program that listens: the service passes it a descriptor for each peer that connects.

use std::{
    os::fd::AsFd as _,
    sync::{Arc, mpsc::sync_channel},
};

use serde_json::json;
use strowger_gateway::api_message::{ErrorName, Failed, FromProgram, Request, read};
use strowger_io::unix::seqpacket::Seqpacket;
use strowger_socket::{Listener, Socket};

use super::{
    Service, failure,
    program::{id, say},
    socket, spawn,
    waker::{End, Waiting},
};
use crate::limits::API_DATAGRAM_BYTES_MAX;

/// Listens until the program closes its connection. Sockets that the program has received stay
/// open.
pub(super) fn serve(
    service: &Arc<Service>,
    program: &Seqpacket,
    protocols: &[String],
) -> Result<(), Failed> {
    let listener = service.node.listen(protocols).map_err(|error| failure::of_listen(&error))?;
    let Ok(other) = program.try_clone() else { return Ok(()) };
    if program.set_receive_timeout(None).is_err() {
        return Ok(());
    }
    say(program, &json!({ "listening": { "protocol": protocols } }));
    let end = End::default();
    let (of_accepting, of_service) = (end.clone(), service.clone());
    let (ended_in, ended) = sync_channel(1);
    let thread = spawn("accept", move || {
        accept(&of_service, &other, &listener, of_accepting);
        other.shut_down();
        // Drop the listener before the program's connection ends, so that the program may listen
        // again at once.
        drop(listener);
        let _ = ended_in.send(());
    });
    if thread.is_some() {
        answer(service, program);
    }
    end.set(thread.as_ref());
    program.shut_down();
    let _ = ended.recv();
    Ok(())
}

/// Answers requests until the program closes its end.
fn answer(service: &Service, program: &Seqpacket) {
    let mut buffer = vec![0; API_DATAGRAM_BYTES_MAX];
    loop {
        let bytes = match program.receive(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => bytes,
        };
        match read(&buffer[..bytes]) {
            Ok(FromProgram::Request(Request::Id)) => say(program, &id(service)),
            Ok(_) => {
                let text = "this connection listens: messages pass through the descriptors that it \
                            gets; use another connection to connect";
                say(program, &Failed::new(ErrorName::WrongState, text).to_json());
            }
            Err(failed) => say(program, &failed.to_json()),
        }
    }
}

/// Passes the program a descriptor for each peer.
fn accept(service: &Arc<Service>, program: &Seqpacket, listener: &Listener, end: End) {
    let waiting = Waiting::new(end);
    loop {
        match waiting.until(|cx| listener.poll_accept(cx)) {
            None => return,
            Some(Ok(accepted)) => {
                if !hand_over(service, program, accepted) {
                    return;
                }
            }
            Some(Err(closed)) => {
                let failed = Failed::new(ErrorName::NodeClosed, closed.to_string());
                return say(program, &failed.to_json());
            }
        }
    }
}

/// Passes an accepted socket to the program, as a descriptor. Returns whether the program is still
/// connected. If the limit of sockets or descriptors is reached, the peer gets a goodbye.
fn hand_over(service: &Arc<Service>, program: &Seqpacket, accepted: Socket) -> bool {
    let Ok(counted) = service.socket_place() else { return true };
    let Ok((ours, theirs)) = Seqpacket::pair() else { return true };
    let Ok(other) = ours.try_clone() else { return true };
    let text = socket::opened("accepted", &accepted).to_string();
    if program.send_with(text.as_bytes(), theirs.as_fd()).is_err() {
        return false;
    }
    let service = service.clone();
    spawn("accepted", move || {
        socket::pass(&service, &ours, other, accepted);
        drop(counted);
    });
    true
}
