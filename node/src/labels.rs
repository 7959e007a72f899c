//! Parses and formats schemes, and builds the hops of a path from links, for the subcommands and
//! the relay.

use strowger_wire::{
    Hop, Scheme, Slot,
    hex::{self, Hex, HexError},
    scheme::SchemeError,
};

/// The scheme with this name, or with this serialization in hex.
pub(crate) fn scheme_of(text: &str) -> Result<Scheme, &'static str> {
    if let Some(scheme) = Scheme::named(text) {
        return Ok(*scheme);
    }
    let bytes = bytes_of(text).map_err(|_| "unknown_scheme")?;
    Scheme::parse(&bytes).map_err(SchemeError::kind)
}

/// Decodes hex digits.
pub(crate) fn bytes_of(text: &str) -> Result<Vec<u8>, HexError> {
    hex::bytes(text).collect()
}

/// A scheme in the notation of the configuration: its name, or the hex of its serialization.
pub(crate) fn scheme_text(scheme: &Scheme) -> String {
    match scheme.name() {
        Some(name) => name.to_owned(),
        None => Hex(scheme.serialize().as_bytes()).to_string(),
    }
}

/// The hops of a path along links. Each row is one link: the scheme of the sending switch, its
/// egress slot, and the ingress slot of the receiving switch. The path begins and ends at slot 1.
/// The last switch is assumed to have the scheme of the last row.
pub(crate) fn hops_of_links(rows: &[(Scheme, Slot, Slot)]) -> Vec<Hop<'_>> {
    let mut hops = Vec::with_capacity(rows.len() + 1);
    let mut came_in = Slot::SWITCH;
    for (scheme, egress, ingress) in rows {
        hops.push(hop(scheme, *egress, came_in));
        came_in = *ingress;
    }
    if let Some((scheme, _, _)) = rows.last() {
        hops.push(hop(scheme, Slot::SWITCH, came_in));
    }
    hops
}

/// One hop: the switch with this scheme, and the packet's egress and ingress slots.
pub(crate) fn hop(scheme: &Scheme, egress: Slot, ingress: Slot) -> Hop<'_> {
    Hop { scheme, egress, ingress }
}
