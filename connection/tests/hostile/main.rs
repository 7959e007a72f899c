//! Hostile peers, relays and networks, in virtual time.
//!
//! A [`World`](world::World) has model switches that rewrite labels, wires that lose, delay, repeat
//! and reorder packets, and [`Endpoint`](strowger_connection::Endpoint)s. One seed determines each
//! run; a failing test prints the seed. `STROWGER_SEEDS` sets how many seeds each test runs.
#![allow(clippy::unwrap_used)] // functions that only tests call count as tests

mod traffic;
mod world;

mod at_most_once;
mod changes;
mod early;
mod flood;
mod forgeries;
mod lasting;
mod ledger;
mod paths;
mod restarts;
mod rules;
mod secrecy;
mod tables;
