//! Hostile peers, relays and networks, in virtual time.
//!
//! A [`World`](world::World) has model switches that change labels as real ones do, wires that lose,
//! delay, repeat and reorder packets, and [`Endpoint`](strowger_connection::Endpoint)s. Everything
//! is decided by one seed, which is printed when a test fails. `STROWGER_SEEDS` sets how many seeds
//! each test runs.
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
