//! The reasons why an Ethernet port cannot be opened, and the remedies.

use std::fmt;

use super::select_mode::{RefusedMode, lines};
use crate::sys::{CallError, Errno};

/// Why an Ethernet port cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EtherOpenError {
    /// There is no interface of this name in this network namespace.
    NoInterface {
        /// The requested name.
        interface: String,
    },
    /// The interface is not an Ethernet interface (for example loopback or a tunnel).
    NotEthernet {
        /// The requested name.
        interface: String,
    },
    /// The interface is down.
    InterfaceDown {
        /// The requested name.
        interface: String,
    },
    /// The interface has no queue of this index.
    NoQueue {
        /// The requested name.
        interface: String,
        /// The requested queue, counted from 0.
        queue: u32,
        /// Number of queues.
        queues: u32,
    },
    /// Another socket uses the queue and has not released it in time (`EBUSY`).
    QueueBusy {
        /// The requested name.
        interface: String,
        /// The requested queue.
        queue: u32,
    },
    /// Another XDP program is attached to the interface. It is not replaced.
    ProgramPresent {
        /// The requested name.
        interface: String,
        /// The kernel's error.
        errno: Errno,
    },
    /// The port has another ethertype or VLAN than the open ports of this interface. All ports of an
    /// interface must have the same ones, because they share one XDP program.
    OtherTraffic {
        /// The requested name.
        interface: String,
    },
    /// The ethertype is a length (below 0x0600), or the VLAN is not in 1 to 4094.
    BadSpec {
        /// The requested ethertype.
        ethertype: u16,
        /// The requested VLAN.
        vlan: Option<u16>,
    },
    /// The address is not a multicast address.
    NoGroup {
        /// The requested address.
        address: [u8; 6],
    },
    /// The chunks of the pool are not in the arena.
    ForeignPool,
    /// A system call failed.
    Call {
        /// The requested name.
        interface: String,
        /// The call and the kernel's error.
        error: CallError,
    },
    /// No permitted mode works.
    NothingWorks {
        /// The requested name.
        interface: String,
        /// The modes that were tried, and the reasons why they failed.
        refused: Vec<RefusedMode>,
    },
}

impl fmt::Display for EtherOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface { interface } => {
                write!(f, "there is no interface {interface} here; `ip link` lists them")
            }
            Self::NotEthernet { interface } => {
                write!(f, "{interface} is not an Ethernet interface")
            }
            Self::InterfaceDown { interface } => {
                write!(f, "{interface} is down; set it up with: ip link set dev {interface} up")
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
                write!(f, "the ports of {interface} must have the same ethertype and VLAN")
            }
            Self::BadSpec { ethertype, vlan } => write!(
                f,
                "ethertype {ethertype:#06x} or VLAN {vlan:?} cannot be: 0x0600 and above, 1 to 4094"
            ),
            Self::NoGroup { address } => {
                let address = strowger_frame::Address::Ether(*address);
                write!(f, "{address} is not a multicast address: its first byte must be odd")
            }
            Self::ForeignPool => f.write_str("the worker's pool is not in the arena"),
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

impl std::error::Error for EtherOpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::ProgramPresent { errno, .. } => Some(errno),
            Self::Call { error, .. } => Some(error),
            _ => None,
        }
    }
}
