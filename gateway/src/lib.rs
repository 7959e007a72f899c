//! The formats of the local API of `strowger-gateway` (docs/api.md), apart from the program, so that
//! they can be tested with any input.
#![forbid(unsafe_code)]

pub mod api_message;
