//! The runtime of a Strowger relay. It supplies what the sans-I/O switch lacks: threads, a clock,
//! ports, a state file and an orderly shutdown.
//!
//! Programs should depend on the crate `strowger`, which re-exports what programs need of this
//! crate, and contains the guide. Start at [`Relay::builder`].

pub mod address;
mod alternates;
mod attach;
mod builder;
pub mod clock;
mod dry_run;
mod error;
mod ethernet;
mod event;
pub mod files;
mod handle;
mod health;
mod host;
pub mod key_files;
pub mod limits;
mod local_port;
pub mod machine_addresses;
mod memory;
mod open;
pub mod places;
mod port_info;
pub mod recovery;
pub mod rights;
mod slow_path;
mod spec;
mod state;
mod stats;
mod udp;
mod unix_clients;
mod unix_facts;
pub mod untrusted;
pub mod worker_thread;

pub use strowger_crypto::{
    Identity, IdentityKey, OsEntropy, PeerId, Psk, StaticPublic, aead::Provider,
};
pub use strowger_engine::{
    control::{
        SwitchConfig,
        peering::{Liveness, UnknownPeerPolicy},
    },
    link::Rights,
};
pub use strowger_frame::{Address, Burst};
pub use strowger_io::sys::account::Account;
pub use strowger_wire::{Hop, Label, Scheme, Slot, hello::SealWish, label::LabelError};

pub use self::{
    builder::{Relay, RelayBuilder},
    error::{
        CallError, FileUse, NeighborError, NoLocalPort, ShutdownError, SlotError, StartError,
        StateError,
    },
    ethernet::EthernetInfo,
    event::{Event, EventKind, Events},
    handle::RelayHandle,
    key_files::{KeyError, key_file},
    local_port::{
        LocalPort, LocalReceiver, LocalSender, Packet, PacketError, PortClosed, TxBuffer,
    },
    memory::{MemoryUse, Need},
    open::{OpenRelay, workers},
    port_info::{PortInfo, PortKind},
    slow_path::SlowPath,
    spec::{
        CustomPort, EthernetInterface, LocalPortSpec, Memory, Neighbor, NeighborAddress, Peer,
        PeerKey, Queues, UdpListener, UnixSocket,
    },
    stats::{LinkStats, PortStats, Stats, Summary},
    worker_thread::{IdlePolicy, WorkerLoop},
};
