//! Links between switches on a simulated network, in virtual time. All tests are one program, since
//! each program costs a link step.

mod attacks;
mod beacons;
mod discovery;
mod junk;
mod junk_cost;
mod left_behind;
mod location;
mod path_mtu;
mod peering;
mod quiet;
mod r10_recover;
mod r1_clock;
mod refused_attach;
mod sealed;
mod sources;
mod steered;
mod timeouts;
mod unknown_numbers;
