//! Why an Ethernet port could not be opened, each with the way out. It decides nothing.

use std::fmt;

use super::select_mode::{RefusedMode, lines};
use crate::sys::{CallError, Errno};

/// Why a port could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no interface of this name in this network namespace.
    NoInterface {
        /// The name asked for.
        interface: String,
    },
    /// It is no Ethernet (loopback, a tunnel).
    NotEthernet {
        /// The name asked for.
        interface: String,
    },
    /// It is down.
    InterfaceDown {
        /// The name asked for.
        interface: String,
    },
    /// The driver has fewer queues, or has come to have fewer.
    NoQueue {
        /// The name asked for.
        interface: String,
        /// The queue asked for, from 0 on.
        queue: u32,
        /// How many there are.
        queues: u32,
    },
    /// Another socket has the queue, and has not let go of it within a second (`EBUSY`).
    QueueBusy {
        /// The name asked for.
        interface: String,
        /// The queue asked for.
        queue: u32,
    },
    /// Another XDP program is on the interface; we replace nobody's.
    ProgramPresent {
        /// The name asked for.
        interface: String,
        /// The kernel's error.
        errno: Errno,
    },
    /// Ports of one interface share one program, and so an ethertype and a VLAN.
    OtherTraffic {
        /// The name asked for.
        interface: String,
    },
    /// The ethertype is a length (below 0x0600), or the VLAN is none (1 to 4094).
    BadSpec {
        /// The ethertype asked for.
        ethertype: u16,
        /// The VLAN asked for.
        vlan: Option<u16>,
    },
    /// The address is no group's.
    NoGroup {
        /// The address asked for.
        address: [u8; 6],
    },
    /// The pool does not lie in the arena.
    ForeignPool,
    /// A system call failed.
    Call {
        /// The name asked for.
        interface: String,
        /// The call and the kernel's error.
        error: CallError,
    },
    /// All that may be used here was tried, and refused.
    NothingWorks {
        /// The name asked for.
        interface: String,
        /// What was tried, and why not.
        refused: Vec<RefusedMode>,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface { interface } => {
                write!(f, "there is no interface {interface} here; `ip link` lists them")
            }
            Self::NotEthernet { interface } => write!(f, "{interface} is no Ethernet"),
            Self::InterfaceDown { interface } => {
                write!(f, "{interface} is down; raise it with: ip link set dev {interface} up")
            }
            Self::NoQueue { interface, queue, queues } => write!(
                f,
                "{interface} has {queues} queue(s), so none with number {queue}; see: \
                 ethtool -l {interface}"
            ),
            Self::QueueBusy { interface, queue } => write!(
                f,
                "queue {queue} of {interface} is in use by another AF_XDP socket: {}; stop that \
                 process or choose another queue",
                Errno(libc::EBUSY)
            ),
            Self::ProgramPresent { interface, errno } => write!(
                f,
                "another XDP program is on {interface}: {}; `ip link show dev {interface}` tells \
                 which, `ip link set dev {interface} xdp off` removes it if no process holds it",
                errno
            ),
            Self::OtherTraffic { interface } => {
                write!(f, "the ports of {interface} must have one ethertype and one VLAN in common")
            }
            Self::BadSpec { ethertype, vlan } => write!(
                f,
                "ethertype {ethertype:#06x} or VLAN {vlan:?} cannot be: 0x0600 and above, 1 to 4094"
            ),
            Self::NoGroup { address } => {
                let address = strowger_frame::Address::Ether(*address);
                write!(f, "{address} is no group's address; one begins with an odd byte")
            }
            Self::ForeignPool => f.write_str("the worker's pool does not lie in the arena"),
            Self::Call { interface, error } => write!(f, "{interface}: {error}"),
            Self::NothingWorks { interface, refused } => {
                write!(f, "{interface} cannot be opened:")?;
                for refused in lines(refused) {
                    write!(f, "\n  {refused}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::ProgramPresent { errno, .. } => Some(errno),
            Self::Call { error, .. } => Some(error),
            _ => None,
        }
    }
}
