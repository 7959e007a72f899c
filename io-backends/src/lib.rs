//! Ports of the Strowger switch.
//!
//! A backend moves frames between the switch and a socket, an interface or another thread, and counts the
//! frames that it drops. It does not read labels.
//!
//! | module | what it holds |
//! |---|---|
//! | [`memory`] | a wire inside this process: two ports joined by two rings |
//! | [`endpoint`] | a port whose other end is code of this process |
//! | [`unix`] | a port whose other end is another process, over `SOCK_SEQPACKET` |
//! | [`udp`] | one UDP socket and any number of neighbours: recvmmsg or io_uring, GRO and GSO |
//! | [`xdp`] | one queue of an Ethernet interface, by AF_XDP or AF_PACKET |
//! | [`capture`] | a wrapper that writes the packets of a port to a pcapng file |
//! | [`fault`] | a wrapper that drops, duplicates, reorders, corrupts and delays frames, from a seed |
//! | [`doorbell`] | an eventfd and a flag: wakes a thread only while it sleeps |
//! | [`wait`] | blocks a worker until a port has something to do |
//! | [`sys`] | the machine: accounts, addresses, clocks, cores, probes |
//! | `testgen` | traffic generators for benchmarks, with the feature `testgen` |
//!
//! **Marks.** A frame from [`rx_burst`](strowger_frame::Port::rx_burst) carries the mark of its
//! neighbour. A frame for [`tx_burst`](strowger_frame::Port::tx_burst) carries the number of the ingress
//! slot. Ports that end at a user (endpoint, unix) deliver that number beside the packet, because the
//! return path is computed from it; other ports ignore it.
//!
//! `unsafe` is allowed here for system calls: one operation in each block, with its reason.

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
