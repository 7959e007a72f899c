//! Passes messages between a program and a peer. One thread serves each direction.

use std::{
    io::IoSlice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    task::Poll,
};

use serde_json::{Value, json};
use strowger_gateway::api_message::{ErrorName, Failed, FromProgram, MESSAGE, Request, read};
use strowger_io::unix::seqpacket::Seqpacket;
use strowger_socket::{RecvError, SendError, Socket, SocketReceiver, SocketSender};

use super::{
    Service, failure,
    program::{id, say},
    spawn,
    waker::{End, Waiting},
};
use crate::limits::{API_DATAGRAM_BYTES_MAX, API_SEND_TURN};

/// The object that announces a socket to a program: `connected`, or `accepted` with a descriptor.
pub(super) fn opened(what: &str, socket: &Socket) -> Value {
    json!({ what: {
        "peer": socket.peer().to_string(),
        "protocol": socket.protocol_name(),
        "message_max": socket.message_max(),
    } })
}

/// Passes messages until the program or the peer closes. `other` is a second handle of `program`.
pub(super) fn pass(service: &Service, program: &Seqpacket, other: Seqpacket, socket: Socket) {
    if program.set_receive_timeout(None).is_err() {
        return;
    }
    let (mut sender, receiver) = socket.split();
    let end = End::default();
    let (ended_in, ended) = sync_channel(1);
    let refused = Arc::new(AtomicBool::new(false));
    let (of_receiver, refusal) = (end.clone(), refused.clone());
    let thread = spawn("to program", move || {
        to_program(&other, receiver, of_receiver, &refusal);
        // End the receive call in which the other direction blocks.
        other.shut_down();
        let _ = ended_in.send(());
    });
    if thread.is_some() {
        to_peer(service, program, &mut sender, &refused);
    }
    drop(sender);
    end.set(thread.as_ref());
    // Otherwise a send to a program that does not read would block the thread.
    program.shut_down();
    let _ = ended.recv();
}

/// Passes messages of the program to the peer, until the program closes its end. `refused`: whether
/// the program knows that the peer does not accept the protocol.
fn to_peer(
    service: &Service,
    program: &Seqpacket,
    sender: &mut SocketSender,
    refused: &AtomicBool,
) {
    let mut buffer = vec![0; API_DATAGRAM_BYTES_MAX];
    // While there is no path, a program gets one error for all messages.
    let mut last_failed = None;
    loop {
        let bytes = match program.receive(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => bytes,
        };
        match read(&buffer[..bytes]) {
            Ok(FromProgram::Message(message)) => {
                let sent = loop {
                    match sender.send_wait(message, API_SEND_TURN) {
                        Err(SendError::Timeout) if !sender.is_closed() => {}
                        done => break done,
                    }
                };
                match sent {
                    Ok(()) => {
                        last_failed = None;
                        refused.store(false, Ordering::Relaxed);
                    }
                    Err(error) => {
                        // The socket is closed. After the last message the other thread reports it
                        // to the program, and ends this one.
                        let Some(failed) = failure::of_send(sender.protocol_name(), &error) else {
                            continue;
                        };
                        let is_new = match failed.name {
                            ErrorName::Unsupported => !refused.swap(true, Ordering::Relaxed),
                            name => last_failed != Some(name),
                        };
                        last_failed = Some(failed.name);
                        if is_new || failed.name == ErrorName::TooLong {
                            say(program, &failed.to_json());
                        }
                    }
                }
            }
            Ok(FromProgram::Request(Request::Info)) => say(program, &info(sender)),
            Ok(FromProgram::Request(Request::Id)) => say(program, &id(service)),
            Ok(FromProgram::Request(_)) => {
                let text = "this connection is a socket already: use another connection";
                say(program, &Failed::new(ErrorName::WrongState, text).to_json());
            }
            Err(failed) => say(program, &failed.to_json()),
        }
    }
}

fn info(sender: &SocketSender) -> Value {
    let counters = sender.counters();
    json!({ "info": {
        "peer": sender.peer().to_string(),
        "protocol": sender.protocol_name(),
        "message_max": sender.message_max(),
        "received_lost": counters.rx_queue_full + counters.rx_hold_full,
        "sent_lost": counters.tx_refused,
    } })
}

/// Passes messages of the peer to the program, until the peer closes or `end` is set.
///
/// A program may send once and then only receive, so this direction reports that the peer does not
/// accept the protocol.
fn to_program(program: &Seqpacket, mut receiver: SocketReceiver, end: End, refused: &AtomicBool) {
    let waiting = Waiting::new(end);
    loop {
        let next = waiting.until(|cx| match receiver.poll_recv(cx) {
            Poll::Ready(received) => Poll::Ready(Some(received)),
            Poll::Pending if receiver.is_unsupported() && !refused.load(Ordering::Relaxed) => {
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        });
        let Some(next) = next else { return };
        match next {
            None => {
                let protocol = receiver.protocol_name();
                let failed = failure::of_send(protocol, &SendError::Unsupported);
                if !refused.swap(true, Ordering::Relaxed)
                    && let Some(failed) = failed
                {
                    say(program, &failed.to_json());
                }
            }
            Some(Ok(message)) => {
                if program.send(&[IoSlice::new(&[MESSAGE]), IoSlice::new(&message)]).is_err() {
                    return;
                }
            }
            Some(Err(RecvError::Closed(reason))) => {
                return say(
                    program,
                    &json!({ "closed": {
                        "name": failure::close_name(&reason),
                        "text": reason.to_string(),
                    } }),
                );
            }
            Some(Err(_)) => return,
        }
    }
}
