//! `strowger api`: the local service through which programs in other languages connect to peers.
//!
//! One process has one node: an identity on a slot. Programs connect to the unix socket of the
//! process, and each of their connections is a socket to a peer, or a listener. Each direction of a
//! connection has a thread, so a program that does not read or that exits has no effect on others.
//! docs/api.md specifies the protocol.

mod failure;
mod listener;
mod program;
mod socket;
mod waker;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use strowger_gateway::api_message::{ErrorName, Failed};
use strowger_io::unix::seqpacket::{Seqpacket, SeqpacketListener};
use strowger_runtime::places;
use strowger_socket::Node;

use self::program::say;
use crate::{
    exit::{Exit, Failure},
    limits::{API_PROGRAMS_MAX, API_SOCKETS_MAX, DESCRIPTORS_PAUSE},
    node::{self, Access},
    place::{Place, PlaceOptions},
    signals,
    target::Target,
};

/// Mode of the socket's file: only this user may connect.
const MODE: u32 = 0o600;

/// `strowger api`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The path of the socket for programs. The default is strowger-api.sock in $XDG_RUNTIME_DIR or
    /// in /run.
    #[arg(long, value_name = "PATH")]
    listen: Option<PathBuf>,
    /// Let only this peer connect to programs that listen. Repeat the option for more. Without it,
    /// the peers of the address book with the purpose `accept`.
    #[arg(long, value_name = "PEER")]
    from: Vec<String>,
    /// Let every peer connect that knows this PeerId.
    #[arg(long, conflicts_with = "from")]
    anyone: bool,
    #[command(flatten)]
    place: PlaceOptions,
}

/// State that all programs share.
struct Service {
    node: Node,
    place: Place,
    programs: AtomicUsize,
    sockets: AtomicUsize,
}

/// One unit of a count of [`Service`], returned when dropped.
struct Counted {
    service: Arc<Service>,
    of: fn(&Service) -> &AtomicUsize,
}

impl Counted {
    /// Adds one to a count, unless the count is `max`.
    fn take(
        service: &Arc<Service>,
        of: fn(&Service) -> &AtomicUsize,
        max: usize,
    ) -> Option<Counted> {
        // Relaxed: the count protects no other data.
        let add = |count: usize| (count < max).then_some(count + 1);
        of(service).fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Counted { service: service.clone(), of })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.of)(&self.service).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service {
    /// Counts a socket, up to the limit.
    fn socket_place(self: &Arc<Self>) -> Result<Counted, Failed> {
        Counted::take(self, |service| &service.sockets, API_SOCKETS_MAX).ok_or_else(|| {
            let text = format!("{API_SOCKETS_MAX} sockets are open: close one first");
            Failed::new(ErrorName::Busy, text)
        })
    }

    fn program_place(self: &Arc<Self>) -> Result<Counted, Failed> {
        Counted::take(self, |service| &service.programs, API_PROGRAMS_MAX).ok_or_else(|| {
            let text = format!("{API_PROGRAMS_MAX} programs are connected: end one first");
            Failed::new(ErrorName::Busy, text)
        })
    }
}

/// `strowger api`.
///
/// # Errors
/// One line: the service cannot start.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let place = options.place.place()?;
    let book = place.book()?;
    let access = if options.anyone {
        Access::Anyone
    } else if options.from.is_empty() {
        Access::Book
    } else {
        let from = options.from.iter().map(|peer| Target::find(peer, &book, &place));
        Access::Peers(from.map(|found| found.map(|it| it.peer)).collect::<Result<_, _>>()?)
    };
    let path = options.listen.clone().unwrap_or_else(places::api_socket);
    let node = node::start(&place, book, access)?;
    let listener = SeqpacketListener::bind(&path, MODE)
        .map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
    let listener = Arc::new(listener);
    let at_end = listener.clone();
    signals::close_on_signal_and(&node, move || at_end.remove_file())?;
    println!("api: {} for {}", path.display(), node.peer_id());
    let (programs, sockets) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let service = Arc::new(Service { node, place, programs, sockets });
    loop {
        match listener.accept() {
            Ok(program) => begin(&service, program),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => thread::sleep(DESCRIPTORS_PAUSE),
        }
    }
}

/// Serves a program on its own thread, or refuses it.
fn begin(service: &Arc<Service>, program: Seqpacket) {
    let counted = match service.program_place() {
        Ok(counted) => counted,
        Err(failed) => return say(&program, &failed.to_json()),
    };
    let service = service.clone();
    spawn("program", move || {
        program::serve(&service, &program);
        drop(counted);
    });
}

/// Runs `what` on another thread. If the kernel refuses a thread, `what` is dropped: the program
/// sees the end of its connection.
fn spawn(name: &str, what: impl FnOnce() + Send + 'static) -> Option<thread::Thread> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(what);
    spawned.ok().map(|handle| handle.thread().clone())
}
