//! One request, and its fields.

use serde_json::{Map, Value};
use strowger_crypto::{Domain, NetworkId, Secret};
use strowger_wire::{
    Label, Register, Scheme, Slot,
    director::DirectorError,
    hex::{self, HexError},
    label::TextError,
    link_header::{Lane, SessionIndex},
};

use super::{Fault, Kind};
use crate::labels::{bytes_of, scheme_of};

/// One request, or an object in one. Its accessors check the fields. An error names the field, as
/// `lane`, `responder.lane` or `hops[0].out`.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    fields: &'a Map<String, Value>,
    place: Place,
}

/// The position of an object in a request.
#[derive(Clone, Copy)]
enum Place {
    Line,
    Field(&'static str),
    Item(&'static str, usize),
}

impl<'a> Request<'a> {
    pub(super) fn new(fields: &'a Map<String, Value>) -> Self {
        Self { fields, place: Place::Line }
    }

    /// An error that names a field.
    pub(super) fn fault(self, kind: Kind, name: &str) -> Fault {
        let field = match self.place {
            Place::Line => name.to_owned(),
            Place::Field(object) => format!("{object}.{name}"),
            Place::Item(list, number) => format!("{list}[{number}].{name}"),
        };
        Fault { kind, field: Some(field) }
    }

    /// A field has a value of the wrong type or outside of its range.
    pub(super) fn bad(self, name: &str) -> Fault {
        self.fault("bad_field", name)
    }

    pub(super) fn names(self) -> impl Iterator<Item = &'a str> {
        self.fields.keys().map(String::as_str)
    }

    pub(super) fn has(self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    pub(super) fn get(self, name: &str) -> Option<&'a Value> {
        self.fields.get(name)
    }

    pub(super) fn field(self, name: &str) -> Result<&'a Value, Fault> {
        self.get(name).ok_or_else(|| self.fault("missing_field", name))
    }

    pub(super) fn text(self, name: &str) -> Result<&'a str, Fault> {
        self.field(name)?.as_str().ok_or_else(|| self.bad(name))
    }

    pub(super) fn number(self, name: &str) -> Result<u64, Fault> {
        self.field(name)?.as_u64().ok_or_else(|| self.bad(name))
    }

    pub(super) fn list(self, name: &str) -> Result<&'a Vec<Value>, Fault> {
        self.field(name)?.as_array().ok_or_else(|| self.bad(name))
    }

    pub(super) fn slot(self, name: &str) -> Result<Slot, Fault> {
        self.slot_of(name, self.field(name)?)
    }

    /// A slot that is the value of a field, or an item of a list.
    pub(super) fn slot_of(self, name: &str, value: &Value) -> Result<Slot, Fault> {
        let number = value.as_u64().ok_or_else(|| self.bad(name))?;
        Ok(u32::try_from(number).map(Slot::new).map_err(|_| DirectorError::SlotTooWide.kind())?)
    }

    pub(super) fn shift(self) -> Result<u16, Fault> {
        // A shift above 65,535 is treated as 65,535. Both leave no bits of a label.
        Ok(u16::try_from(self.number("shift")?).unwrap_or(u16::MAX))
    }

    pub(super) fn label<R: Register>(self, name: &str) -> Result<Label<R>, Fault> {
        Ok(self.text(name)?.parse().map_err(TextError::kind)?)
    }

    pub(super) fn scheme(self) -> Result<Scheme, Fault> {
        Ok(scheme_of(self.text("scheme")?)?)
    }

    pub(super) fn object(self, name: &'static str) -> Result<Request<'a>, Fault> {
        let fields = self.field(name)?.as_object().ok_or_else(|| self.bad(name))?;
        Ok(Request { fields, place: Place::Field(name) })
    }

    /// A list of objects.
    pub(super) fn objects(self, name: &'static str) -> Result<Vec<Request<'a>>, Fault> {
        let of = |(number, item): (usize, &'a Value)| {
            let fields = item.as_object().ok_or_else(|| self.bad(&format!("{name}[{number}]")))?;
            Ok(Request { fields, place: Place::Item(name, number) })
        };
        self.list(name)?.iter().enumerate().map(of).collect()
    }

    /// A number of at most `max`; without the field, `default`.
    pub(super) fn number_or(self, name: &str, default: u64, max: u64) -> Result<u64, Fault> {
        let number = if self.has(name) { self.number(name)? } else { default };
        if number <= max { Ok(number) } else { Err(self.bad(name)) }
    }

    pub(super) fn byte_or(self, name: &str, default: u8) -> Result<u8, Fault> {
        self.number_or(name, default.into(), u8::MAX.into()).map(|number| number as u8)
    }

    pub(super) fn byte(self, name: &str) -> Result<u8, Fault> {
        self.number_to(name, u8::MAX.into()).map(|number| number as u8)
    }

    /// A number of at most `max`. The field must be present.
    pub(super) fn number_to(self, name: &str, max: u64) -> Result<u64, Fault> {
        self.field(name)?;
        self.number_or(name, 0, max)
    }

    pub(super) fn word(self, name: &str) -> Result<u32, Fault> {
        self.number_to(name, u32::MAX.into()).map(|number| number as u32)
    }

    /// The field `domain`; that of links if it is absent.
    pub(super) fn domain(self) -> Result<Domain, Fault> {
        match self.get("domain").map(Value::as_str) {
            None | Some(Some("link")) => Ok(Domain::Link),
            Some(Some("connection")) => Ok(Domain::Connection),
            Some(_) => Err(self.bad("domain")),
        }
    }

    /// A boolean; false if the field is absent.
    pub(super) fn flag(self, name: &str) -> Result<bool, Fault> {
        self.get(name).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| self.bad(name)))
    }

    /// Bytes, given as hex digits.
    pub(super) fn bytes(self, name: &str) -> Result<Vec<u8>, Fault> {
        self.hex_of(name, self.text(name)?)
    }

    /// Bytes of hex digits in a field.
    pub(super) fn hex_of(self, name: &str, text: &str) -> Result<Vec<u8>, Fault> {
        bytes_of(text).map_err(|error| self.not_hex(name, error))
    }

    fn not_hex(self, name: &str, error: HexError) -> Fault {
        match error {
            HexError::NotHex { .. } => self.fault("bad_hex", name),
            HexError::Length => self.fault("bad_length", name),
        }
    }

    /// Bytes, given as hex digits; empty if the field is absent.
    pub(super) fn bytes_or_none(self, name: &str) -> Result<Vec<u8>, Fault> {
        if self.has(name) { self.bytes(name) } else { Ok(Vec::new()) }
    }

    /// Exactly `N` bytes, given as hex digits.
    pub(super) fn array<const N: usize>(self, name: &str) -> Result<[u8; N], Fault> {
        hex::array(self.text(name)?).map_err(|error| self.not_hex(name, error))
    }

    pub(super) fn secret(self, name: &str) -> Result<Secret, Fault> {
        self.array(name).map(Secret::from_bytes)
    }

    /// The network's name: `network` as text, or `network_hex`. Without both it is empty.
    pub(super) fn network(self) -> Result<NetworkId, Fault> {
        let name = if self.has("network") {
            self.text("network")?.as_bytes().to_vec()
        } else {
            self.bytes_or_none("network_hex")?
        };
        NetworkId::new(&name)
            .ok_or_else(|| self.bad(if self.has("network") { "network" } else { "network_hex" }))
    }

    pub(super) fn index(self) -> Result<SessionIndex, Fault> {
        SessionIndex::new(self.word("index")?).ok_or_else(|| self.bad("index"))
    }

    pub(super) fn lane(self) -> Result<Lane, Fault> {
        Lane::new(self.byte_or("lane", 0)?).ok_or_else(|| self.bad("lane"))
    }
}
