//! The Strowger switch: frames in, frames out. It never reads a clock or a socket: time, and
//! whatever was received, come in as arguments, so the same code runs under a simulator.
//!
//! A packet's path, and the file of each step:
//!
//! | step | file |
//! |---|---|
//! | a burst is taken from a port, and each frame of it is switched | [`worker`] |
//! | the link header is checked, and a sealed frame opened in place | [`link`], [`session`] |
//! | the switch header is parsed, once | [`wire::switch_header`] |
//! | the label's low bits give the exit, by one load | [`slots`], from [`wire::scheme`] |
//! | the label is shifted, and the return path written at its top | [`wire::label`] |
//! | the frame waits at its exit, or is refused | [`egress`] |
//! | or it ends, for a reason that is counted | [`discard`] |
//!
//! What is rare goes through one queue, the punts, to the slow path, [`control`]; what the slow path
//! decides comes back through one handshake socket, [`command`]. Every bound stands in [`limits`].
//!
//! The formats, labels and headers among them, are those of [`wire`], which needs no `std`.
//!
//! ```
//! use strowger_engine::{Now, control::{Switch, SwitchConfig}};
//! use strowger_frame::{Pool, PoolSpec};
//!
//! let pool = Pool::new(&PoolSpec { trains: 4, singles: 0, huge_pages: false })?;
//! let (mut switch, mut workers) = Switch::new(SwitchConfig::default(), vec![pool])?;
//! // By hand: one poll of the only worker, one turn of the slow path.
//! assert_eq!(workers[0].poll(Now(1)), 0);
//! assert!(switch.poll(Now(1)).is_empty());
//! assert!(switch.balance().is_even());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use strowger_wire as wire;

mod attention;
mod command;
pub mod control;
pub mod discard;
mod egress;
pub mod limits;
pub mod link;
pub mod memory;
pub mod rate;
mod session;
#[cfg(feature = "internals")]
pub mod slots;
#[cfg(not(feature = "internals"))]
#[allow(dead_code, unreachable_pub)] // public with the feature `internals`
mod slots;
pub mod worker;

/// A point in time: nanoseconds since some moment that the caller chose. The engine only compares
/// and subtracts; it never asks what time it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(pub u64);
