//! The switch.
#![cfg_attr(not(feature = "std"), no_std)]

pub mod director;
pub mod header;
pub mod label;
pub mod scheme;
