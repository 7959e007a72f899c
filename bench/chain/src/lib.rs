//! Three switches in a row on one thread. The benchmarks measure them, and the example `icount` runs
//! them so that callgrind counts their instructions.

pub mod chain;
mod failure;
pub mod packet;

pub use failure::Failure;
