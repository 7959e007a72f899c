//! Tests of the ports of every backend. They form one program, because linking takes time for each
//! program.
#![allow(clippy::unwrap_used)] // functions that only tests call are tests too

use strowger_frame::alloc::GuardedAlloc;

mod sandbox;
mod tagging;
#[macro_use]
mod veth;

mod capture;
mod conformance;
mod endpoint;
mod endpoint_split;
mod fault;
mod ports_sandbox;
mod seqpacket;
mod udp_isolation;
mod udp_no_allocation;
mod udp_port;
mod udp_sandbox;
mod udp_wildcard;
mod unix;
mod unix_clients;
mod unix_trains;
mod xdp_changes;
mod xdp_group;
mod xdp_life;
mod xdp_no_allocation;
mod xdp_port;
mod xdp_relay;

/// This allocator lets a test forbid allocation on its own thread.
#[global_allocator]
static ALLOC: GuardedAlloc = GuardedAlloc;
