//! Helpers for the tests of several modules.

use strowger_wire::hex::{self, Hex};

/// Bytes from hex digits.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    hex::bytes(text).collect::<Result<_, _>>().expect("hex digits, in pairs")
}

/// Hex digits from bytes.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    Hex(bytes).to_string()
}
