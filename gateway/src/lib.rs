//! The formats of the local API of `strowger-gateway` (docs/api.md), in a library so that fuzzers
//! can use them.
#![forbid(unsafe_code)]

pub mod api_message;
