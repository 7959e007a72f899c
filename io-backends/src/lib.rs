//! Ports of the Strowger switch.
//!
//! A backend moves frames between the switch and a socket, an interface or another thread, and
//! counts the frames that it drops. It does not read labels.
//!
//! | module | contents |
//! |---|---|
//! | [`endpoint`] | a port whose far end is code in this process |
//! | [`unix`] | a port whose far end is another process, over a unix socket (`SOCK_SEQPACKET`) |
//! | [`memory`] | a wire inside this process: two ports joined by rings |
//! | [`xdp`] | an Ethernet interface: one queue over AF_XDP, or all queues over AF_PACKET |
//! | [`udp`] | any number of neighbours on one UDP socket |
//! | [`capture`] | a wrapper that writes the packets of a port to a pcapng file |
//! | [`fault`] | a wrapper that drops, duplicates, reorders, corrupts and delays frames (seeded) |
//! | [`doorbell`] | an eventfd and a flag, which wake a thread only while it sleeps |
//! | [`wait`] | blocks a worker until a port has work |
//! | [`sys`] | properties and rights of the machine: accounts, addresses, clocks, cores, probes |
//! | `testgen` | traffic generators for benchmarks; requires the feature `testgen` |
//!
//! **Marks.** A frame from [`rx_burst`](strowger_frame::Port::rx_burst) carries the mark of its
//! neighbour. A frame for [`tx_burst`](strowger_frame::Port::tx_burst) carries the number of its
//! ingress slot. Ports to local programs (endpoint, unix) deliver that number with the packet,
//! because the receiver computes the return path from it. Other ports ignore it.
//!
//! `unsafe` code is allowed in this crate, mainly for system calls. Each block has one operation
//! and states why it is sound.

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
mod wire;
pub mod xdp;

pub use doorbell::{Doorbell, DoorbellWaker};
pub use endpoint::{Endpoint, EndpointPort, EndpointSpec};
pub use memory::MemoryPort;
pub use unix::UnixPort;
pub use wait::{Waited, Waiter};
