//! Where frames meet the outside: ports of the Strowger switch. A backend moves frames and counts
//! what it could not move; it never knows what a label is.
//!
//! | room | what it holds |
//! |---|---|
//! | [`memory`] | a wire inside this process: two ports, two rings |
//! | [`endpoint`] | code of this process on a slot |
//! | [`unix`] | a process of this machine on a slot |
//! | [`udp`] | any number of neighbours behind one socket: recvmmsg or io_uring, trains in and out |
//! | [`capture`] | a wrapper that writes what passes to a pcapng file |
//! | [`fault`] | a wrapper that loses, repeats, reorders, corrupts and delays, by a seed |
//! | [`doorbell`] | waking a worker that sleeps, and only then |
//! | [`wait`] | how a worker blocks once no port has anything to do |
//! | [`sys`] | the machine: accounts, addresses, clocks, cores, probes |
//!
//! **Marks.** A frame that [`rx_burst`](strowger_frame::Port::rx_burst) yields carries the mark
//! under which its neighbour was admitted. A frame given to
//! [`tx_burst`](strowger_frame::Port::tx_burst) carries the number of the slot by which the packet
//! entered the switch; ports that end at a user (endpoint, unix) punt it beside the packet,
//! since the way back is computed from it, and the others ignore it.
//!
//! `unsafe` is allowed here (system calls), one operation to a block, each with its reason.

pub mod capture;
pub mod doorbell;
pub mod endpoint;
pub mod fault;
pub mod memory;
mod pinned;
pub mod sys;
#[cfg(feature = "testgen")]
pub mod testgen;
pub mod udp;
pub mod unix;
pub mod wait;
#[cfg(feature = "async")]
mod waker;
mod wire;
pub mod xdp;

pub use doorbell::{Doorbell, DoorbellWaker};
pub use endpoint::{Endpoint, EndpointPort, EndpointSpec};
pub use memory::MemoryPort;
pub use unix::UnixPort;
pub use wait::{Waited, Waiter};
