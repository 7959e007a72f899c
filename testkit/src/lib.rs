//! Code that the tests of all crates share. Crates use it only as a dev-dependency.
//!
//! - [`Rng`]: random numbers from a seed, which is printed if the test panics.
//! - [`wait`]: waiting for a condition without sleeping, up to a deadline.
//! - `sim`: switches on a simulated network, in virtual time (feature `sim`).
//! - `harness`: network namespaces, and relays as processes (feature `harness`).
//! - [`wire_md`]: the examples and tables of docs/wire.md.
//! - [`skipped`]: records tests that cannot run on this machine.
#![allow(clippy::unwrap_used)] // functions that only tests call count as tests

#[cfg(feature = "harness")]
pub mod harness;
mod rng;
#[cfg(feature = "sim")]
pub mod sim;
pub mod skipped;
pub mod wait;
pub mod wire_md;

pub use rng::Rng;
pub use skipped::{skip, skip_case, unsupported};
pub use wait::{DEADLINE, eventually, until};
