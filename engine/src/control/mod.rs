//! The slow path, without I/O. It keeps the switch's attachments, sends commands to the workers,
//! and handles their completions. It forwards no packets and reads no clock.
//!
//! A change reaches the workers in steps. The slow path takes a step when all workers have
//! completed the commands of the previous step:
//!
//! | change | first | then | last |
//! |---|---|---|---|
//! | attach | the link, at every worker | the table that names the link | the event |
//! | detach | the table without the link | every worker returns the link | the number goes into quarantine |
//! | renumber | the table with both numbers | every worker writes the new number into return paths | the lifetime of the former number begins |
//!
//! A worker's table therefore never names a link that the worker does not have.
//!
//! The state is divided among owners with private fields: `Workers` (commands, completions, grace
//! periods), `Ports`, `Slots` (attachments and their slot numbers), `Links` (peers and sessions, in
//! [`peering`]) and `ControlMessages` (in [`messages`]). [`Switch`] composes them.

mod attachments;
mod base;
mod clock;
#[cfg(feature = "internals")]
pub mod grace_period;
#[cfg(not(feature = "internals"))]
#[allow(dead_code, unreachable_pub)] // public with the feature `internals`
mod grace_period;
mod handshake_socket;
pub mod messages;
pub mod peering;
mod ports;
mod request;
#[cfg(feature = "internals")]
pub mod slot_allocator;
#[cfg(not(feature = "internals"))]
#[allow(dead_code, unreachable_pub)] // public with the feature `internals`
mod slot_allocator;
mod slots;
mod snapshot;
mod switch;
mod tables;
mod view;
mod workers;

pub use self::handshake_socket::HandshakeSocket;
pub use self::request::{
    Attach, AttachError, ConfigError, DetachError, Event, GrowError, NotFree, PlugError, PortId,
    RenumberError, SwitchConfig,
};
pub use self::slot_allocator::Who;
pub use self::snapshot::{Former, Kept, RestoreError, Snapshot};
pub use self::switch::Switch;
pub use self::view::{Balance, PortView, QueueView, SlotState, SlotView};
