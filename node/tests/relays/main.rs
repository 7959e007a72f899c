//! The command `strowger` as a process: relays over sockets, namespaces and files. All tests are
//! one program, since each program costs a link step.
#![allow(clippy::unwrap_used)] // functions that only tests call count as tests

mod addresses;
mod beacons;
mod clocks;
mod config_check;
mod ethernet;
mod ethernet_life;
mod files;
mod flooded;
mod idle;
mod init;
mod late;
mod link_local;
mod log;
mod many_peers;
mod narrow;
mod peers;
mod quota;
mod relay;
mod restart;
mod sealed;
mod signals;
mod slots;
mod stalled;
mod state;
mod untrusted;
mod why_down;
mod wildcard;

/// The command.
const STROWGER: &str = env!("CARGO_BIN_EXE_strowger");
