//! The formats of the Strowger switch: labels, schemes, headers, and the fields of hellos and beacons.
//!
//! The crate needs neither `std` nor `alloc`. Every parser is total: any bytes give a value or an
//! error.
#![no_std]

pub mod beacon;
pub mod control;
pub mod director;
mod fields;
pub mod hello;
pub mod hex;
pub mod label;
pub mod limits;
pub mod link_header;
pub mod register;
pub mod scheme;
pub mod slot;
pub mod switch_header;

pub use director::Director;
pub use label::{Hop, Label};
pub use register::{Register, U256};
pub use scheme::Scheme;
pub use slot::Slot;
