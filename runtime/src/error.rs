//! Errors of the runtime. Each message says what failed, on what, why, and what to do.

use std::{error::Error, fmt, io, path::PathBuf};

use strowger_engine::control::{
    AttachError, ConfigError, DetachError, PlugError, PortView, RenumberError, RestoreError,
    peering::PeerError,
};
use strowger_io::sys::Refusal;
use strowger_wire::Slot;

use crate::{address::AddressText, stats::Summary};

/// Any other error, as a source.
pub(crate) type Source = Box<dyn Error + Send + Sync>;

/// Why a relay did not start. Nothing runs then.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The process may not use this core.
    Core {
        /// The core that was wanted.
        core: usize,
        /// Those that the process may use.
        usable: Vec<usize>,
    },
    /// The kernel does not map the memory of the workers.
    Memory {
        /// How much it was.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The switch cannot be as it was configured.
    Switch(ConfigError),
    /// A name is used twice, is empty, or cannot be shown.
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The network's name is too long.
    Network(String),
    /// The relay cannot have its identity.
    Identity(PeerError),
    /// A port could not be opened.
    Port {
        /// What kind: `udp`, `ethernet`, `unix`, `local` or `custom`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A peer, neighbor or port could not have its slot.
    Attach {
        /// Its name.
        name: String,
        /// Why.
        source: NeighborError,
    },
    /// A worker refused what was to have this slot.
    Refused {
        /// The slot number.
        slot: Slot,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The state file cannot be used.
    State(StateError),
    /// The process could not become the user that it was to run as.
    Account {
        /// The user.
        user: String,
        /// Why.
        source: Refusal,
    },
    /// The user that the process runs as cannot use a file that it needs.
    File {
        /// The file.
        path: PathBuf,
        /// The user.
        user: String,
        /// What it is for.
        what: FileUse,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel gives no thread or file descriptor.
    Resource {
        /// What was asked for.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The workers' threads did not confirm what is attached in time.
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
                write!(f, "what was to have slot {slot} cannot be attached: {source}")
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
                "the workers do not start; `strowger doctor` says what the machine allows",
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

/// What a file is for that a user cannot use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileUse {
    /// The unix socket of a port.
    Socket,
    /// The state file.
    State,
}

/// Why a state file cannot be used. The file is left as it is.
#[derive(Debug)]
#[non_exhaustive]
pub enum StateError {
    /// It, or its lock, cannot be read, made or locked.
    Unusable {
        /// The state file.
        path: PathBuf,
        /// Why, in one line.
        why: String,
    },
    /// Its content is damaged, or of another version.
    Damaged {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it, in one line.
        why: String,
    },
    /// The switch cannot take over what it says.
    Restore {
        /// The state file.
        path: PathBuf,
        /// What to write in the configuration, where that helps.
        hint: String,
        /// Why.
        source: RestoreError,
    },
}

/// What a user can do about a state file that is refused.
const STATE_REMEDY: &str = "put a copy back, or move it away: slots are given anew then, and labels of before \
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

/// Why a peer, neighbor or local port was not added. Nothing has changed then.
#[derive(Debug)]
#[non_exhaustive]
pub enum NeighborError {
    /// No port has this name.
    NoSuchPort {
        /// The name that was given.
        name: String,
        /// The names that there are.
        ports: Vec<String>,
    },
    /// The relay has no port that a neighbor with this address can be behind.
    NoPort,
    /// The address is of another kind than those behind the port.
    WrongKind {
        /// The address.
        at: strowger_frame::Address,
        /// The port's name.
        port: String,
    },
    /// Nothing can ever be sent to the address.
    Address {
        /// The address; empty if the text is none.
        at: String,
        /// Why.
        why: String,
    },
    /// Links behind the port are sealed, and this one would be plain.
    Sealed {
        /// The port's name.
        port: String,
    },
    /// Another slot has the name.
    NameTaken {
        /// The name.
        name: String,
        /// The slot.
        slot: Slot,
    },
    /// The PeerId holds no usable key.
    PeerId,
    /// The switch does not add the peer.
    Peer(PeerError),
    /// The switch does not attach the neighbor.
    Switch(AttachError),
    /// A port refused the address: another neighbor has it, or the port has no room for another one.
    Refused {
        /// The slot number, which is free again after its quarantine.
        slot: Slot,
    },
    /// The switch has no place for another port.
    Plug(PlugError),
    /// The kernel gives no memory or file descriptor for another port.
    Resource(io::Error),
    /// The slow path could not be asked.
    Call(CallError),
}

impl fmt::Display for NeighborError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchPort { name, ports } => {
                write!(f, "no port has the name {name:?}; there are: {}", ports.join(", "))
            }
            Self::NoPort => f.write_str(
                "the relay has no port for an address of this kind; add a UDP or Ethernet port first",
            ),
            Self::WrongKind { at, port } => {
                write!(f, "{} is no address behind {port}; name another port", AddressText(*at))
            }
            Self::Address { at, why } if at.is_empty() => f.write_str(why),
            Self::Address { at, why } => write!(f, "address \"{at}\" is not usable: {why}"),
            Self::Sealed { port } => write!(
                f,
                "links behind {port} are sealed; add a peer with its key or PeerId, or allow plain links \
                 at that port"
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

/// Why the slow path did not answer a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// The relay has stopped, or is about to.
    Stopped,
    /// The code that was called panicked. The slow path recovered and goes on.
    Panicked,
    /// The call came from the slow path's own thread, which would wait for itself.
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

/// Why a slot was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotError {
    /// The switch does not detach it.
    Detach(DetachError),
    /// The switch does not renumber it.
    Renumber(RenumberError),
    /// The slow path could not be asked.
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

/// The relay has no local port with this name, or it was taken already.
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

/// Why a relay did not end as it should.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ShutdownError {
    /// A worker's thread ended: a bug of ours.
    WorkerDied(usize),
    /// The slow path panicked too often: a bug of ours.
    SlowPathDied(String),
    /// The workers did not give up their ports in time. The counters are in the summary.
    Unfinished(Box<Summary>),
    /// Frames were lost without being counted: a bug of ours. The counters are in the summary.
    Uneven(Box<Summary>),
}

impl ShutdownError {
    /// The counters at the end, where there are any.
    pub fn summary(&self) -> Option<&Summary> {
        match self {
            Self::Unfinished(summary) | Self::Uneven(summary) => Some(summary),
            Self::WorkerDied(_) | Self::SlowPathDied(_) => None,
        }
    }

    /// The counters of ports at the end.
    pub fn ports(&self) -> &[PortView] {
        self.summary().map_or(&[], |summary| &summary.ports)
    }
}

impl fmt::Display for ShutdownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkerDied(number) => {
                write!(f, "worker {number} died, a bug of ours; please report what it said")
            }
            Self::SlowPathDied(why) => write!(
                f,
                "the slow path panics again and again, a bug of ours; please report: {why}"
            ),
            Self::Unfinished(_) => f.write_str(
                "the workers do not stop: a bug of ours; please report the counters above",
            ),
            Self::Uneven(_) => f.write_str(
                "the counters are uneven: a bug of ours; please report the counters above",
            ),
        }
    }
}

impl Error for ShutdownError {}
