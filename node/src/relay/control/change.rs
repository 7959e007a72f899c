//! Parses requests that change slots and their numbers.

use serde_json::{Map, Value};
use strowger_wire::Slot;

use super::Request;
use crate::{
    labels::scheme_of,
    limits::{DRAIN_S, DRAIN_S_MAX},
};

/// Parses the value of `renumber`.
///
/// # Errors
/// One line with the fault and the expected value.
pub(super) fn renumber(what: &Value) -> Result<Request, String> {
    let object = object("renumber", what, &["slot", "to"])?;
    let from = slot("renumber", object, "slot")?.ok_or("renumber needs slot")?;
    Ok(Request::Renumber { from, to: slot("renumber", object, "to")? })
}

/// Parses the value of `drain`.
///
/// # Errors
/// One line with the fault and the expected value.
pub(super) fn drain(what: &Value) -> Result<Request, String> {
    let object = object("drain", what, &["slot", "for_s"])?;
    let for_s = match object.get("for_s") {
        None | Some(Value::Null) => DRAIN_S,
        Some(seconds) => seconds
            .as_u64()
            .filter(|seconds| *seconds <= DRAIN_S_MAX)
            .ok_or_else(|| format!("for_s in drain is 0 to {DRAIN_S_MAX}, in seconds"))?,
    };
    Ok(Request::Drain { slot: slot("drain", object, "slot")?.ok_or("drain needs slot")?, for_s })
}

/// Parses the value of `grow`.
///
/// # Errors
/// One line with the fault and the expected value.
pub(super) fn grow(what: &Value) -> Result<Request, String> {
    const EXPECTED: &str = "f4, f8, v3x5x8, v4x8, or the serialization of a scheme in hex";
    let object = object("grow", what, &["scheme", "slot_max"])?;
    let text = object.get("scheme").and_then(Value::as_str);
    let text = text.ok_or_else(|| format!("grow needs scheme: {EXPECTED}"))?;
    let scheme = scheme_of(text)
        .map_err(|kind| format!("\"{text}\" is not a scheme ({kind}); need {EXPECTED}"))?;
    Ok(Request::Grow {
        scheme: Box::new(scheme),
        slot_max: slot("grow", object, "slot_max")?.map(Slot::number),
    })
}

fn object<'v>(
    verb: &str,
    what: &'v Value,
    known: &[&str],
) -> Result<&'v Map<String, Value>, String> {
    let wanted = known.join(", ");
    let object = what.as_object().ok_or_else(|| format!("{verb} takes an object with {wanted}"))?;
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("{verb} has no field {key:?}; its fields: {wanted}")),
        None => Ok(object),
    }
}

fn slot(verb: &str, object: &Map<String, Value>, key: &str) -> Result<Option<Slot>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(slot) => {
            let slot = slot.as_u64().and_then(|slot| u32::try_from(slot).ok());
            slot.map(|slot| Some(Slot::new(slot)))
                .ok_or_else(|| format!("{key} in {verb} must be a slot number"))
        }
    }
}
