//! Programs with connections over three relays in network namespaces. The relays are processes of
//! `strowger`, the programs processes of `strowger-gateway`.
#![allow(clippy::unwrap_used)] // functions that only tests call count as tests

mod captures;
mod changes;
mod killed;
mod line;
mod load;
mod loss;
mod refusals;

/// The path of the program.
const GATEWAY: &str = env!("CARGO_BIN_EXE_strowger-gateway");
