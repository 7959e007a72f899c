//! Tests of the command `strowger` as a process. All tests are one program, because each program
//! costs a link step.
#![allow(clippy::unwrap_used)] // functions that only tests call count as tests

mod address_book;
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
mod old_version;
mod peers;
mod quota;
mod relay;
mod resolve;
mod restart;
mod sealed;
mod sibling;
mod signals;
mod slots;
mod stalled;
mod state;
mod unix_clients;
mod untrusted;
mod why_down;
mod wildcard;

/// The path of the command.
const STROWGER: &str = env!("CARGO_BIN_EXE_strowger");

/// Copies a program in a process of its own. This process never has the copy open for writing, so no
/// child of another test inherits the descriptor, with which the kernel would refuse to run the copy
/// (`ETXTBSY`).
fn copy_program(from: &std::path::Path, to: &std::path::Path) {
    assert!(std::process::Command::new("cp").arg(from).arg(to).status().unwrap().success());
}
