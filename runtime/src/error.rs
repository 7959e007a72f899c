//! The errors of the runtime. Each message says what failed, on which object, why, and what to do.

use std::{error::Error, fmt, io, path::PathBuf};

use strowger_engine::control::{
    AttachError, ConfigError, DetachError, PlugError, PortView, RenumberError, RestoreError,
    peering::PeerError,
};
use strowger_io::sys::Refusal;
use strowger_wire::Slot;

use crate::{address::AddressText, stats::Summary};

/// An error of any type, as a source.
pub(crate) type Source = Box<dyn Error + Send + Sync>;

/// The reason why a relay could not start. No thread of the relay runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The process may not use this core.
    Core {
        /// The requested core.
        core: usize,
        /// The cores that the process may use.
        usable: Vec<usize>,
    },
    /// The kernel cannot map the memory of the workers.
    Memory {
        /// The size in bytes.
        bytes: usize,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The switch refuses its settings.
    Switch(ConfigError),
    /// A name is used twice, is empty, is too long, or contains characters that cannot be printed
    /// safely.
    Name {
        /// The name.
        name: String,
        /// The error.
        why: &'static str,
    },
    /// The network's name is too long.
    Network(String),
    /// The switch refuses the identity.
    Identity(PeerError),
    /// A port could not be opened.
    Port {
        /// The port's kind: `udp`, `ethernet`, `unix`, `local` or `custom`.
        kind: &'static str,
        /// The port's name.
        name: String,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A peer, neighbor or port could not be attached to its slot.
    Attach {
        /// The name of the peer, neighbor or port.
        name: String,
        /// The cause.
        source: NeighborError,
    },
    /// A worker refused the user of this slot.
    Refused {
        /// The slot number.
        slot: Slot,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The state file cannot be used.
    State(StateError),
    /// The process could not change to the configured user.
    Account {
        /// The user.
        user: String,
        /// The cause.
        source: Refusal,
    },
    /// The configured user cannot use a file that the relay needs.
    File {
        /// The file.
        path: PathBuf,
        /// The user.
        user: String,
        /// The purpose of the file.
        what: FileUse,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The kernel cannot create a thread or a file descriptor.
    Resource {
        /// The resource.
        what: &'static str,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The workers' threads did not confirm the attached slots in time.
    Workers,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core { core, usable } => write!(
                f,
                "core {core} cannot be used by this process; usable: {usable:?} (see `taskset -p`, or \
                 the container's cpuset)"
            ),
            Self::Memory { bytes, source } => write!(
                f,
                "cannot map {} of memory: {source}; lower [memory] trains, or raise `ulimit -v`",
                crate::memory::mib(*bytes)
            ),
            Self::Switch(why) => why.fmt(f),
            Self::Name { name, why } => write!(f, "the name {name:?} {why}; choose another"),
            Self::Network(name) => {
                write!(f, "the network name {name:?} is longer than 32 bytes; choose a shorter one")
            }
            Self::Identity(why) => write!(f, "identity: {why}"),
            Self::Port { kind, name, source } => write!(f, "{kind} port {name:?}: {source}"),
            Self::Attach { name, source } => write!(f, "{name} cannot be attached: {source}"),
            Self::Refused { slot, source } => {
                write!(f, "slot {slot} cannot be attached: {source}")
            }
            Self::State(why) => why.fmt(f),
            Self::Account { user, source } => write!(f, "cannot become user {user}: {source}"),
            Self::File { path, user, what: FileUse::Socket, source } => {
                write!(f, "{}: cannot be given to {user}: {source}", path.display())
            }
            Self::File { path, user, what: FileUse::State, source } => {
                let folder = crate::rights::folder_of(path).display();
                write!(
                    f,
                    "state file {}: {user} cannot write in {folder}: {source}; chown {user} {folder}, or \
                     choose another file",
                    path.display()
                )
            }
            Self::Resource { what, source } => {
                write!(f, "{what}: {source}; the limits are those of `ulimit -u` and `ulimit -n`")
            }
            Self::Workers => f.write_str(
                "the workers do not start; `strowger doctor` shows what the machine allows",
            ),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Memory { source, .. }
            | Self::File { source, .. }
            | Self::Resource { source, .. } => Some(source),
            Self::Switch(source) => Some(source),
            Self::Identity(source) => Some(source),
            Self::Port { source, .. } | Self::Refused { source, .. } => Some(&**source),
            Self::Attach { source, .. } => Some(source),
            Self::State(source) => Some(source),
            Self::Account { source, .. } => Some(source),
            Self::Core { .. } | Self::Name { .. } | Self::Network(_) | Self::Workers => None,
        }
    }
}

/// The purpose of a file that a user cannot use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileUse {
    /// The unix socket of a port.
    Socket,
    /// The state file.
    State,
}

/// An error of a state file. The file is unchanged.
#[derive(Debug)]
#[non_exhaustive]
pub enum StateError {
    /// The lock of the state file cannot be opened or taken.
    Unusable {
        /// The state file.
        path: PathBuf,
        /// The cause, in one line.
        why: String,
    },
    /// The state file cannot be read, is damaged, or has another version.
    Damaged {
        /// The state file.
        path: PathBuf,
        /// The error, in one line.
        why: String,
    },
    /// The switch refuses the content of the state file.
    Restore {
        /// The state file.
        path: PathBuf,
        /// The setting that would work, as text to append to the message. May be empty.
        hint: String,
        /// The cause.
        source: RestoreError,
    },
}

/// The remedy for a state file that was refused.
const STATE_REMEDY: &str = "restore a copy, or move it away: then slots get new numbers, and existing labels \
                            lead elsewhere";

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable { path, why } => write!(f, "state file {}: {why}", path.display()),
            Self::Damaged { path, why } => {
                write!(f, "state file {}: {why}; {STATE_REMEDY}", path.display())
            }
            Self::Restore { path, hint, source } => {
                write!(f, "state file {}: {source}{hint}; {STATE_REMEDY}", path.display())
            }
        }
    }
}

impl Error for StateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Restore { source, .. } => Some(source),
            Self::Unusable { .. } | Self::Damaged { .. } => None,
        }
    }
}

/// The reason why a peer, neighbor or local port could not be added.
#[derive(Debug)]
#[non_exhaustive]
pub enum NeighborError {
    /// No port has this name.
    NoSuchPort {
        /// The given name.
        name: String,
        /// The names of all ports.
        ports: Vec<String>,
    },
    /// The relay has no port through which this address can be reached.
    NoPort,
    /// The port uses another kind of address.
    WrongKind {
        /// The address.
        at: strowger_frame::Address,
        /// The port's name.
        port: String,
    },
    /// No neighbor can have the address.
    Address {
        /// The address; empty if the text is not an address.
        at: String,
        /// The cause.
        why: String,
    },
    /// The port allows only sealed links, and this link would be plain.
    Sealed {
        /// The port's name.
        port: String,
    },
    /// The port is for processes that connect to its socket. Each of them gets a slot when it
    /// connects.
    ForClients {
        /// The port's name.
        port: String,
    },
    /// Another slot has this name.
    NameTaken {
        /// The name.
        name: String,
        /// The slot that has the name.
        slot: Slot,
    },
    /// The PeerId holds no usable key.
    PeerId,
    /// The switch refuses the peer.
    Peer(PeerError),
    /// The switch refuses the neighbor.
    Switch(AttachError),
    /// The port refused the address: another neighbor has it, or the port has the maximum number of
    /// neighbors.
    Refused {
        /// The slot number, which is free again after its quarantine.
        slot: Slot,
    },
    /// The switch refuses another port.
    Plug(PlugError),
    /// The kernel cannot provide memory or a file descriptor for another port.
    Resource(io::Error),
    /// The call to the slow path failed.
    Call(CallError),
}

impl fmt::Display for NeighborError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchPort { name, ports } => {
                write!(f, "no port has the name {name:?}; the ports are: {}", ports.join(", "))
            }
            Self::NoPort => f.write_str(
                "the relay has no port for an address of this kind; add a UDP or Ethernet port first",
            ),
            Self::WrongKind { at, port } => {
                write!(f, "{} is not an address for port {port}; name another port", AddressText(*at))
            }
            Self::Address { at, why } if at.is_empty() => f.write_str(why),
            Self::Address { at, why } => write!(f, "address \"{at}\" is not usable: {why}"),
            Self::Sealed { port } => write!(
                f,
                "links behind {port} are sealed; add a peer with its key or PeerId, or allow plain links \
                 at that port"
            ),
            Self::ForClients { port } => write!(
                f,
                "{port} is for processes that connect to its socket: each gets a slot then"
            ),
            Self::NameTaken { name, slot } => {
                write!(f, "the name {name:?} belongs to slot {slot}; choose another")
            }
            Self::PeerId => f.write_str("the PeerId holds no Ed25519 public key; ask the peer's operator"),
            Self::Peer(why) => why.fmt(f),
            Self::Switch(why) => why.fmt(f),
            Self::Refused { slot } => write!(
                f,
                "a port refused the address of slot {slot}: another neighbor has it, or the port is full; \
                 see the event for the slot"
            ),
            Self::Plug(why) => why.fmt(f),
            Self::Resource(why) => {
                write!(f, "no memory or file descriptor for the port: {why}; see `ulimit -n`")
            }
            Self::Call(why) => why.fmt(f),
        }
    }
}

impl Error for NeighborError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Peer(source) => Some(source),
            Self::Switch(source) => Some(source),
            Self::Plug(source) => Some(source),
            Self::Resource(source) => Some(source),
            Self::Call(source) => Some(source),
            _ => None,
        }
    }
}

/// An error of a call to the slow path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// The relay has stopped or is stopping.
    Stopped,
    /// The called code panicked. The slow path recovered and continues.
    Panicked,
    /// The call comes from the slow path's own thread, so it would deadlock.
    SlowPathThread,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "the relay has stopped; start another one",
            Self::Panicked => "the slow path panicked in this call and recovered; see the log",
            Self::SlowPathThread => {
                "a call from the slow path's own thread would wait for itself; use its arguments instead"
            }
        })
    }
}

impl Error for CallError {}

/// The reason why a slot could not be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotError {
    /// The switch refuses to detach the slot.
    Detach(DetachError),
    /// The switch refuses to renumber the slot.
    Renumber(RenumberError),
    /// The call to the slow path failed.
    Call(CallError),
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Detach(why) => why.fmt(f),
            Self::Renumber(why) => why.fmt(f),
            Self::Call(why) => why.fmt(f),
        }
    }
}

impl Error for SlotError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Detach(source) => Some(source),
            Self::Renumber(source) => Some(source),
            Self::Call(source) => Some(source),
        }
    }
}

/// A local port could not be taken: no port has this name, or it was already taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoLocalPort {
    pub(crate) name: String,
    pub(crate) was_taken: bool,
}

impl fmt::Display for NoLocalPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        if self.was_taken {
            return write!(f, "local port {name:?} was taken already; a port is taken once");
        }
        write!(f, "the relay has no local port {name:?}; add it with `local_port` before `start`")
    }
}

impl Error for NoLocalPort {}

/// A relay ended with an error.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ShutdownError {
    /// A worker's thread panicked: a bug in Strowger.
    WorkerDied(usize),
    /// The slow path panicked too many times: a bug in Strowger.
    SlowPathDied(String),
    /// The workers did not complete the shutdown in time. The counters are in the summary.
    Unfinished(Box<Summary>),
    /// The counters do not balance: a bug in Strowger. They are in the summary.
    Uneven(Box<Summary>),
}

impl ShutdownError {
    /// The final counters; `None` if a worker or the slow path died.
    pub fn summary(&self) -> Option<&Summary> {
        match self {
            Self::Unfinished(summary) | Self::Uneven(summary) => Some(summary),
            Self::WorkerDied(_) | Self::SlowPathDied(_) => None,
        }
    }

    /// The final counters of the ports.
    pub fn ports(&self) -> &[PortView] {
        self.summary().map_or(&[], |summary| &summary.ports)
    }
}

impl fmt::Display for ShutdownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkerDied(number) => {
                write!(
                    f,
                    "worker {number} died, a bug in Strowger; please report its panic message"
                )
            }
            Self::SlowPathDied(why) => write!(
                f,
                "the slow path panics repeatedly, a bug in Strowger; please report: {why}"
            ),
            Self::Unfinished(_) => f.write_str(
                "the workers do not stop, a bug in Strowger; please report the counters above",
            ),
            Self::Uneven(_) => f.write_str(
                "the counters do not balance, a bug in Strowger; please report the counters above",
            ),
        }
    }
}

impl Error for ShutdownError {}
