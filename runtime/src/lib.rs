//! The runtime of a Strowger relay: the threads, clocks and waiting around a switch.
//!
//! The engine ([`strowger_engine`]) is sans I/O. This crate gives its workers threads and its slow path a loop.

pub mod clock;
pub mod recovery;
pub mod worker_thread;
