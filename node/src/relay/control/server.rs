//! The thread of the control socket. It accepts clients and serves them without blocking on one of
//! them.

use std::{
    io,
    os::{
        fd::AsRawFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use strowger_frame::port::Arm;
use strowger_io::{Doorbell, DoorbellWaker, Waiter};

use super::{client::ClientConnection, socket::ControlSocket};
use crate::{
    exit::{Exit, Failure},
    limits::{ACCEPT_PAUSE, CLIENTS_MAX},
    relay::{RequestSender, journal::Journal},
};

/// The sources of replies: the slow path and the journal.
pub(super) struct Sources {
    pub(super) slow_path: RequestSender,
    pub(super) journal: Journal,
}

/// The clients of the control socket.
struct ControlServer {
    sources: Sources,
    clients: Vec<ClientConnection>,
    /// The time before which the server accepts no client; `None` if there is no pause.
    accept_after: Option<Instant>,
}

/// The relay's handle of the control socket's thread.
#[derive(Debug)]
pub(in crate::relay) struct ControlThread {
    stop: Arc<AtomicBool>,
    waker: DoorbellWaker,
    thread: JoinHandle<()>,
}

impl ControlSocket {
    /// Serves clients on a separate thread.
    ///
    /// # Errors
    /// The kernel cannot create a thread or a descriptor.
    pub(in crate::relay) fn serve(
        self,
        slow_path: RequestSender,
        journal: Journal,
    ) -> Result<ControlThread, Failure> {
        let refused = |error: io::Error| {
            Failure::new(Exit::Refused, format!("cannot serve the control socket: {error}"))
        };
        let doorbell = Doorbell::new().map_err(refused)?;
        let waker = doorbell.waker();
        let stop = Arc::new(AtomicBool::new(false));
        let must_stop = stop.clone();
        journal.set_waker(waker.clone());
        let sources = Sources { slow_path, journal };
        let server = ControlServer { sources, clients: Vec::new(), accept_after: None };
        let builder = std::thread::Builder::new().name("control".to_owned());
        let thread =
            builder.spawn(move || server.run(self, doorbell, &must_stop)).map_err(refused)?;
        Ok(ControlThread { stop, waker, thread })
    }
}

impl ControlThread {
    /// Closes all connections, removes the socket's file and ends the thread. The thread sends no
    /// requests to the slow path afterwards.
    pub(in crate::relay) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        let _ = self.thread.join();
    }
}

impl ControlServer {
    fn run(mut self, socket: ControlSocket, mut doorbell: Doorbell, stop: &AtomicBool) {
        let mut waiter = Waiter::with_capacity(CLIENTS_MAX + 2);
        while !stop.load(Ordering::Acquire) {
            self.accept(&socket.listener);
            let now = Instant::now();
            let Self { sources, clients, .. } = &mut self;
            clients.retain_mut(|client| client.serve(sources, now).is_continue());

            waiter.begin();
            doorbell.arm();
            waiter.add(Arm::Wait(doorbell.as_raw_fd()));
            if self.accept_after.is_none() {
                waiter.add(Arm::Wait(socket.listener.as_raw_fd()));
            }
            for client in self.clients.iter().filter(|client| client.may_read()) {
                waiter.add(Arm::Wait(client.as_raw_fd()));
            }
            if !stop.load(Ordering::Acquire) {
                waiter.wait(self.timeout(now));
            }
            doorbell.disarm();
        }
    }

    fn accept(&mut self, listener: &UnixListener) {
        if self.accept_after.is_some_and(|after| Instant::now() < after) {
            return;
        }
        self.accept_after = None;
        // Accept a bounded number of clients per turn, so that connected clients are served in
        // between.
        for _ in 0..CLIENTS_MAX {
            match listener.accept() {
                Ok((stream, _)) => self.add(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Usually no descriptor is free. Do not poll the listener for a while, because it
                // stays readable.
                Err(_) => {
                    self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Adds a client. If there are too many, closes the connection that has been inactive longest.
    fn add(&mut self, stream: UnixStream) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.clients.len() >= CLIENTS_MAX {
            let clients = self.clients.iter().enumerate();
            let silent = clients.min_by_key(|(_, client)| client.last_active());
            if let Some((longest, _)) = silent {
                self.clients.swap_remove(longest);
            }
        }
        self.clients.push(ClientConnection::new(stream));
    }

    /// The time until the next client needs service.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let due = self.clients.iter().map(|client| client.due_in(&self.sources.journal, now));
        let due = due.chain(self.accept_after.map(|after| after.saturating_duration_since(now)));
        due.min()
    }
}
