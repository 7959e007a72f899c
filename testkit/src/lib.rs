//! Common code of the tests of all crates. Only dev-dependencies name this crate.
//!
//! - [`Rng`]: random numbers from a seed that a failing test prints.
//! - [`wait`]: waiting for a condition without sleeping, up to a deadline.
//! - `sim`: switches on a simulated network, in virtual time (feature `sim`).
//! - `harness`: network namespaces, and relays as processes (feature `harness`).
//! - [`skipped`]: tests that cannot run on this machine, and the record of them.
#![allow(clippy::unwrap_used)] // functions that only tests call count as tests

#[cfg(feature = "harness")]
pub mod harness;
mod rng;
#[cfg(feature = "sim")]
pub mod sim;
pub mod skipped;
pub mod wait;

pub use rng::Rng;
pub use skipped::{skip, skip_case, unsupported};
pub use wait::{DEADLINE, eventually, until};
