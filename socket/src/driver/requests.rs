//! Requests of other threads: connecting, listening, and other rare operations.

use std::sync::{Arc, atomic::Ordering};

use strowger_connection::{ConnectError, ListenerId, ProtocolNames, SocketId};
use strowger_crypto::{Nanos, PeerId};

use super::{Driver, is_set};
use crate::{
    listener::ListenerShared,
    reply::Responder,
    shared::{Request, count},
    socket::Socket,
};

/// An attempt to connect.
pub(super) struct Attempt {
    pub(super) socket: SocketId,
    names: ProtocolNames,
    reply: Responder<Result<Socket, ConnectError>>,
}

/// The driver's side of a listener.
pub(super) struct ListenerEntry {
    id: ListenerId,
    pub(super) shared: Arc<ListenerShared>,
}

impl Driver {
    pub(super) fn serve_requests(&mut self, now: Nanos) -> bool {
        let mut worked = self.sweep(now);
        while let Some(request) = self.shared.requests.pop() {
            worked = true;
            self.serve_request(now, request);
        }
        worked
    }

    fn serve_request(&mut self, now: Nanos, request: Request) {
        let endpoint = &mut self.endpoint;
        match request {
            Request::Connect { to, names, options, reply } => {
                if reply.is_abandoned() {
                    return;
                }
                match endpoint.connect(now, *to, names.clone(), options) {
                    Ok(socket) => self.attempts.push(Attempt { socket, names, reply }),
                    Err(error) => reply.send(Err(error)),
                }
            }
            Request::Listen { names, options, listener, reply } => {
                match endpoint.listen(now, names, options) {
                    Ok(id) => {
                        self.add_listener(id, listener);
                        reply.send(Ok(()));
                    }
                    Err(error) => {
                        listener.close();
                        reply.send(Err(error));
                    }
                }
            }
            Request::DatagramSocket { names, socket, reply } => {
                let opened = endpoint.datagram_socket(now, names).and_then(|id| {
                    if self.add_datagram_socket(id, socket.clone()) {
                        return Ok(());
                    }
                    self.endpoint.close_datagram_socket(now, id);
                    Err(strowger_connection::ListenError::TableFull)
                });
                if opened.is_err() {
                    socket.close();
                }
                reply.send(opened);
            }
            Request::Info { peer, reply } => reply.send(endpoint.connection(&peer)),
            Request::Peers { reply } => reply.send(endpoint.peers()),
            Request::Counters { reply } => reply.send(endpoint.counters().clone()),
            Request::Identify { peer, reply } => reply.send(endpoint.identify(now, &peer)),
            Request::Ping { peer, padding, reply } => {
                reply.send(endpoint.ping(now, &peer, padding));
            }
            Request::Leave { peer, seconds, goodbye, reply } => {
                reply.send(endpoint.leave(now, &peer, seconds, &goodbye));
            }
            Request::Stay { peer, weight, reply } => reply.send(endpoint.stay(now, &peer, weight)),
            Request::SetLabel { peer, label, reply } => {
                reply.send(endpoint.set_label(now, &peer, label));
            }
            Request::CloseConnection { peer, goodbye, reply } => {
                endpoint.close_connection(now, &peer, goodbye);
                reply.send(());
            }
            Request::Close { goodbye, reply } => {
                self.begin_closing(now, goodbye);
                self.closing.push(reply);
            }
        }
    }

    fn add_listener(&mut self, id: ListenerId, shared: Arc<ListenerShared>) {
        let place = id.index();
        if self.listeners.len() <= place {
            self.listeners.resize_with(place + 1, || None);
        }
        self.listeners[place] = Some(ListenerEntry { id, shared });
    }

    fn take_attempt(&mut self, socket: SocketId) -> Option<Attempt> {
        let at = self.attempts.iter().position(|attempt| attempt.socket == socket)?;
        Some(self.attempts.swap_remove(at))
    }

    pub(super) fn connected(&mut self, now: Nanos, socket: SocketId, peer: PeerId, name: usize) {
        let Some(attempt) = self.take_attempt(socket) else { return };
        if attempt.reply.is_abandoned() {
            self.endpoint.close_socket(now, socket);
            return;
        }
        let protocol = attempt.names.get(name).unwrap_or_default().to_owned();
        match self.make_socket(socket, peer, &protocol, false) {
            Some(made) => attempt.reply.send(Ok(made)),
            None => {
                self.endpoint.close_socket(now, socket);
                attempt.reply.send(Err(ConnectError::TooMany));
            }
        }
    }

    pub(super) fn connect_failed(&mut self, socket: SocketId, error: ConnectError) {
        if let Some(attempt) = self.take_attempt(socket) {
            attempt.reply.send(Err(error));
        }
    }

    pub(super) fn accepted(&mut self, now: Nanos, listener: ListenerId, socket: SocketId) {
        let entry = self.listeners.get(listener.index()).and_then(Option::as_ref);
        let entry = entry.filter(|entry| entry.id == listener && !is_set(&entry.shared.is_dropped));
        let Some(shared) = entry.map(|entry| entry.shared.clone()) else {
            self.endpoint.close_socket(now, socket);
            return;
        };
        let Some(info) = self.endpoint.socket(socket) else { return };
        let Some(made) = self.make_socket(socket, info.peer, &info.protocol, true) else {
            self.endpoint.close_socket(now, socket);
            return;
        };
        // If the queue is full, dropping the socket closes it.
        if shared.accepted.push(made).is_err() {
            count(&self.shared.tally.backlog_full, 1);
        }
        shared.waiters.wake();
        if shared.is_dropped.load(Ordering::Acquire) {
            // The listener was dropped meanwhile: close the sockets that it did not take.
            while shared.accepted.pop().is_some() {}
        }
    }

    /// Ends attempts whose futures were dropped, and listeners that were dropped.
    pub(super) fn sweep_requests(&mut self, now: Nanos) {
        let Self { attempts, endpoint, listeners, .. } = self;
        attempts.retain(|attempt| {
            let is_wanted = !attempt.reply.is_abandoned();
            if !is_wanted {
                endpoint.close_socket(now, attempt.socket);
            }
            is_wanted
        });
        for place in listeners.iter_mut() {
            if let Some(entry) = place.take_if(|entry| is_set(&entry.shared.is_dropped)) {
                endpoint.close_listener(now, entry.id);
                // Close sockets that were accepted meanwhile.
                while entry.shared.accepted.pop().is_some() {}
            }
        }
    }
}
