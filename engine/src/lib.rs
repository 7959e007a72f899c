//! The Strowger switch, which receives frames and sends them on. The caller passes the time and the
//! received frames, so the same code runs under a simulator.
//!
//! The path of a packet, and the module of each step:
//!
//! | step | module |
//! |---|---|
//! | a worker takes a burst from a port and switches each frame | [`worker`] |
//! | the worker checks the link header and opens sealed frames in place | [`link`], `session` |
//! | the worker parses the switch header | [`wire::switch_header`] |
//! | one indexed load by the label's low bits gives the next hop | `slots`, made from [`wire::scheme`] |
//! | the worker shifts the label and writes the return path into its top bits | [`wire::label`] |
//! | the frame joins an egress queue | `egress` |
//! | or the worker drops the frame and counts the reason | [`discard`] |
//!
//! Workers punt packets that need more than forwarding through queues to the slow path in
//! [`control`]. The slow path sends commands to the workers. [`limits`] contains all limits, and
//! [`wire`] contains the formats of labels and headers.
//!
//! ```
//! use strowger_engine::{Now, control::{Switch, SwitchConfig}};
//! use strowger_frame::{Pool, PoolSpec};
//!
//! let pool = Pool::new(&PoolSpec { trains: 4, singles: 0, huge_pages: false })?;
//! let (mut switch, mut workers) = Switch::new(SwitchConfig::default(), vec![pool])?;
//! // One poll of the only worker, and one of the slow path.
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
mod mark;
pub mod memory;
pub mod rate;
mod session;
#[cfg(feature = "internals")]
pub mod slots;
#[cfg(not(feature = "internals"))]
#[allow(dead_code, unreachable_pub)] // public with the feature `internals`
mod slots;
pub mod worker;

/// A point in time, as the number of nanoseconds since a moment that the caller chose.
///
/// The engine compares and subtracts times; it never reads a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(pub u64);
