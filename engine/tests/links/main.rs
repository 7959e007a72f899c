//! Tests of links between switches on a simulated network, in virtual time. All tests are in one
//! program, because the linker runs once per program.

mod attacks;
mod beacons;
mod discovery;
mod idle;
mod junk;
mod junk_cost;
mod left_behind;
mod location;
mod path_mtu;
mod peering;
mod r10_recover;
mod r1_clock;
mod refused_attach;
mod scripted;
mod sealed;
mod sources;
mod steered;
mod timeouts;
mod unknown_numbers;
