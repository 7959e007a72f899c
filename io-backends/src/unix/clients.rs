//! One listening socket for several processes, each with its own port.
//!
//! [`Clients`] listens, and its owner decides which process gets which port. Each [`UnixPort`]
//! serves one process and shares nothing with the others: a process that does not read, or that
//! ends, has no effect on other ports.
//!
//! The owner accepts a process, attaches a free port to a slot, and assigns the process to the
//! port. When the process has disconnected and the port has read its last messages, the port wakes
//! the owner. The owner then detaches the port, and may use the port again after the port has
//! removed its mark.

use std::{
    fmt, io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use strowger_frame::sleep::Wake;

use super::{
    ListenError, UnixPort, UnixSpec,
    message::HEADER_BUSY,
    refusal::ClientRefusal,
    socket::{self, Listener},
};
use crate::{Doorbell, DoorbellWaker};

/// A process that has connected and has no port yet.
#[derive(Debug)]
pub struct WaitingClient(OwnedFd);

impl WaitingClient {
    /// Refuses the process: sends it the reason, and ends the connection.
    ///
    /// The first message is the one that a socket for one process sends, which every client knows.
    /// The second message has the reason.
    pub fn refuse(self, why: &ClientRefusal) {
        // If the messages cannot be sent, the client only sees that the connection ends.
        if socket::send(&self.0, &HEADER_BUSY).is_ok() {
            let _ = socket::send(&self.0, &why.emit());
        }
    }
}

/// State that the owner and one port share.
#[derive(Debug)]
struct Place {
    /// A process that the port has not taken yet.
    given: Mutex<Option<OwnedFd>>,
    /// Whether `given` has a process, so that the port need not lock it.
    is_given: AtomicBool,
    /// Whether the process has disconnected.
    is_gone: AtomicBool,
}

/// The owner's half of a socket for several processes.
#[derive(Debug)]
pub struct Clients {
    listener: Listener,
    places: Vec<(Arc<Place>, DoorbellWaker)>,
}

impl Clients {
    /// Listens at `path` and makes a port for each of `count` processes. A port wakes `owner` when
    /// its process has disconnected.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn listen(
        path: impl AsRef<Path>,
        spec: &UnixSpec,
        count: usize,
        owner: &Arc<dyn Wake>,
    ) -> Result<(Self, Vec<UnixPort>), ListenError> {
        let path = path.as_ref();
        let listener = UnixPort::bind(path, spec)?;
        let (mut places, mut ports) = (Vec::new(), Vec::new());
        for number in 1..=count {
            let failed = |error| ListenError::System { what: "wait for", path: path.into(), error };
            let bell = Doorbell::new().map_err(failed)?;
            let place = Arc::new(Place {
                given: Mutex::default(),
                is_given: AtomicBool::new(false),
                is_gone: AtomicBool::new(false),
            });
            places.push((place.clone(), bell.waker()));
            let inbox = Inbox { place, bell, owner: owner.clone() };
            let name = format!("unix {} client {number}", path.display());
            ports.push(UnixPort::for_client(inbox, path, spec, name)?);
        }
        Ok((Self { listener, places }, ports))
    }

    /// Accepts a process, if one is waiting.
    ///
    /// # Errors
    /// The process has no file descriptor left. The client waits.
    pub fn accept(&self) -> io::Result<Option<WaitingClient>> {
        Ok(self.listener.try_accept()?.map(WaitingClient))
    }

    /// Assigns a process to a port, by the port's number from 0. The port must be attached, or
    /// being attached, and must have no process.
    pub fn give(&self, port: usize, client: WaitingClient) {
        let Some((place, bell)) = self.places.get(port) else { return };
        // Relaxed: the port sets it only after it has taken this process, and reads no other data.
        place.is_gone.store(false, Ordering::Relaxed);
        *place.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.0);
        // Release: pairs with Acquire in `Inbox::take`.
        place.is_given.store(true, Ordering::Release);
        bell.wake();
    }

    /// Whether the process of a port has disconnected since it was given.
    pub fn is_gone(&self, port: usize) -> bool {
        // Acquire: pairs with Release in `Inbox::note_gone`.
        self.places.get(port).is_some_and(|(place, _)| place.is_gone.load(Ordering::Acquire))
    }
}

/// The descriptor that becomes readable when a process connects.
impl AsRawFd for Clients {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

/// The port's half.
pub(super) struct Inbox {
    place: Arc<Place>,
    pub(super) bell: Doorbell,
    owner: Arc<dyn Wake>,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Inbox {
    pub(super) fn is_given(&self) -> bool {
        // Acquire: pairs with Release in `Clients::give`.
        self.place.is_given.load(Ordering::Acquire)
    }

    /// Takes the given process. The owner holds the lock only while it stores a descriptor, before
    /// the flag is set, so the port never waits for it.
    pub(super) fn take(&self) -> Option<OwnedFd> {
        if !self.is_given() {
            return None;
        }
        self.place.is_given.store(false, Ordering::Relaxed);
        self.place.given.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Reports that the process has disconnected.
    pub(super) fn note_gone(&self) {
        // Release: pairs with Acquire in `Clients::is_gone`.
        self.place.is_gone.store(true, Ordering::Release);
        self.owner.wake();
    }
}
