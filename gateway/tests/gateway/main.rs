//! Tests of the program `strowger-gateway` as a process. All tests are one program, because each
//! program costs a link step.
#![allow(clippy::unwrap_used)] // functions that only tests call count as tests

mod api;
mod commands;
mod page;
mod usage;

/// The path of the program.
const GATEWAY: &str = env!("CARGO_BIN_EXE_strowger-gateway");
