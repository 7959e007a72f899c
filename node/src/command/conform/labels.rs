//! Operations on labels and schemes (wire.md 1).
//!
//! A step to slot 1 returns only `to` if the ingress slot does not fit the width of the removed
//! director. The packet has arrived, and its ingress slot is passed alongside the packet instead of
//! in its label (wire.md 1.3).
//!
//! `per` defines the hops of `build`. With `"per":"switch"`, each hop names two slots of one
//! switch: the egress slot and the ingress slot of the packet. With `"per":"link"`, each hop names
//! the two ends of one link: the egress slot at one switch and the ingress slot at the next switch.
//! The path then goes from slot 1 of the first switch to slot 1 of the last, as the chains of the
//! test vectors do, and the last switch has the scheme of the last hop. Without `per`, a list that
//! begins with `in` 1 or ends with `out` 1 is a list of switches, because no link ends at slot 1.
//! Any other list is a list of links.

use serde_json::{Value, json};
use strowger_wire::{
    Hop, Label, Register, Scheme, Slot,
    director::DirectorError,
    hex::Hex,
    label::{LabelError, Step, StepError, step},
    scheme::{Form, read_forms},
};

use super::{Fault, request::Request};
use crate::labels::{hop, hops_of_links};

/// The reply to an operation on labels; `None` for other operations.
pub(super) fn answer<R: Register>(op: &str, request: Request<'_>) -> Option<Result<Value, Fault>> {
    Some(match op {
        "encode" => encode(request),
        "decode" => decode::<R>(request),
        "convert" => convert::<R>(request),
        "widen" => widen::<R>(request),
        "splice" => splice::<R>(request),
        "unsplice" => unsplice::<R>(request),
        "routes_through" => routes_through::<R>(request),
        "hop_count" => hop_count::<R>(request),
        "step" => step_once::<R>(request),
        "reverse" => reverse::<R>(request),
        "build" => build::<R>(request),
        "scheme" => show_scheme(request),
        _ => return None,
    })
}

fn encode(request: Request<'_>) -> Result<Value, Fault> {
    let (scheme, slot) = (request.scheme()?, request.slot("slot")?);
    let digits = |bits| format!("{:x}", Label::<u64>::new(bits));
    if request.has("width") {
        let width = u8::try_from(request.number("width")?).map_err(|_| "no_such_width")?;
        let director = scheme.encode(slot, width).map_err(DirectorError::kind)?;
        Ok(json!({ "director": digits(director.bits()) }))
    } else {
        let director = scheme.encode_least(slot).map_err(DirectorError::kind)?;
        Ok(json!({ "director": digits(director.bits()), "width": director.width() }))
    }
}

fn decode<R: Register>(request: Request<'_>) -> Result<Value, Fault> {
    let (scheme, label) = (request.scheme()?, request.label::<R>("label")?);
    let director = label.decode(&scheme).map_err(LabelError::kind)?;
    Ok(json!({
        "slot": director.slot().number(),
        "width": director.width(),
        "form": director.form(),
        "self": label.is_self(&scheme),
        "one_hop": label.is_one_hop(&scheme),
    }))
}

fn convert<R: Register>(request: Request<'_>) -> Result<Value, Fault> {
    let (scheme, label) = (request.scheme()?, request.label::<R>("label")?);
    let form = match request.field("form")? {
        Value::String(text) if text == "canonical" => None,
        Value::String(text) => Some(text.parse::<u64>().map_err(|_| request.bad("form"))?),
        other => Some(other.as_u64().ok_or_else(|| request.bad("form"))?),
    };
    let converted = match form {
        None => label.canonical(&scheme),
        Some(form) => label.convert(&scheme, u8::try_from(form).map_err(|_| "no_such_form")?),
    };
    labelled(converted.map_err(LabelError::kind)?)
}

fn widen<R: Register>(request: Request<'_>) -> Result<Value, Fault> {
    let (scheme, label) = (request.scheme()?, request.label::<R>("label")?);
    let widened = if request.has("asker") {
        label.widen_for(&scheme, request.label("asker")?)
    } else {
        label.widen(&scheme, request.slot("ingress")?)
    };
    labelled(widened.map_err(LabelError::kind)?)
}

fn splice<R: Register>(request: Request<'_>) -> Result<Value, Fault> {
    let spliced = Label::splice(request.label::<R>("onward")?, request.label("first")?);
    labelled(spliced.map_err(LabelError::kind)?)
}

fn unsplice<R: Register>(request: Request<'_>) -> Result<Value, Fault> {
    let onward = request.label::<R>("full")?.unsplice(request.label("first")?);
    labelled(onward.map_err(LabelError::kind)?)
}

fn routes_through<R: Register>(request: Request<'_>) -> Result<Value, Fault> {
    let through = request.label::<R>("label")?.routes_through(request.label("via")?);
    Ok(json!({ "result": through }))
}

fn hop_count<R: Register>(request: Request<'_>) -> Result<Value, Fault> {
    let hops = request.label::<R>("label")?.hop_count(&request.scheme()?);
    Ok(json!({ "hops": hops.map_err(LabelError::kind)? }))
}

fn step_once<R: Register>(request: Request<'_>) -> Result<Value, Fault> {
    let (scheme, label) = (request.scheme()?, request.label::<R>("label")?);
    let (ingress, shift) = (request.slot("from")?, request.shift()?);
    let mut taken = Vec::new();
    for slot in request.list("taken")? {
        taken.push(request.slot_of("taken", slot)?);
    }
    let u_turns = request.flag("u_turns")?;
    let taken = |slot| taken.contains(&slot);
    match step(&scheme, label, shift, ingress, taken, u_turns).map_err(StepError::kind)? {
        Step::Forward { to, label, shift } => {
            Ok(json!({ "to": to.number(), "label": format!("{label:x}"), "shift": shift }))
        }
        Step::Arrive { written: Some((label, shift)) } => {
            Ok(json!({ "to": 1, "label": format!("{label:x}"), "shift": shift }))
        }
        Step::Arrive { written: None } => Ok(json!({ "to": 1 })),
    }
}

fn reverse<R: Register>(request: Request<'_>) -> Result<Value, Fault> {
    let (label, shift) = (request.label::<R>("label")?, request.shift()?);
    let ingress = if request.has("ingress") {
        let director = request.scheme()?.encode_least(request.slot("ingress")?);
        Some(director.map_err(DirectorError::kind)?)
    } else {
        None
    };
    labelled(label.reverse(shift, ingress).map_err(LabelError::kind)?)
}

fn build<R: Register>(request: Request<'_>) -> Result<Value, Fault> {
    let mut rows = Vec::new();
    for hop in request.objects("hops")? {
        // Instead of a scheme per hop, a request may have one scheme for all hops.
        let scheme = if hop.has("scheme") { hop.scheme()? } else { request.scheme()? };
        rows.push((scheme, hop.slot("out")?, hop.slot("in")?));
    }
    let per_switch = match request.get("per").map(Value::as_str) {
        None => {
            rows.first().is_some_and(|&(_, _, ingress)| ingress.is_switch())
                || rows.last().is_some_and(|&(_, egress, _)| egress.is_switch())
        }
        Some(Some("switch")) => true,
        Some(Some("link")) => false,
        Some(_) => return Err(request.bad("per")),
    };
    let hops = if per_switch { hops_of_switches(&rows) } else { hops_of_links(&rows) };
    let (label, back) = Label::<R>::build(&hops).map_err(LabelError::kind)?;
    Ok(json!({ "label": format!("{label:x}"), "back": format!("{back:x}") }))
}

fn show_scheme(request: Request<'_>) -> Result<Value, Fault> {
    if !request.has("serialized") {
        let scheme = request.scheme()?;
        let serialized = Hex(scheme.serialize().as_bytes()).to_string();
        let forms = forms_shown(scheme.forms());
        return Ok(json!({ "forms": forms, "sane": true, "serialized": serialized }));
    }
    let bytes = request.bytes("serialized")?;
    let (forms, count) = match read_forms(&bytes) {
        Ok(read) => read,
        // The forms cannot be parsed, so the reply is an error and also says that the scheme is
        // not valid.
        Err(error) => return Ok(json!({ "error": error.kind(), "forms": [], "sane": false })),
    };
    let forms = &forms[..count];
    Ok(match Scheme::new(forms) {
        Ok(_) => json!({ "forms": forms_shown(forms), "sane": true }),
        Err(why) => json!({ "forms": forms_shown(forms), "sane": false, "why": why.kind() }),
    })
}

fn labelled<R: Register>(label: Label<R>) -> Result<Value, Fault> {
    Ok(json!({ "label": format!("{label:x}") }))
}

/// The hops of a path. Each row is one switch: its scheme, and the packet's egress and ingress
/// slots.
fn hops_of_switches(rows: &[(Scheme, Slot, Slot)]) -> Vec<Hop<'_>> {
    rows.iter().map(|(scheme, egress, ingress)| hop(scheme, *egress, *ingress)).collect()
}

/// The forms, as objects with the field names of the test vectors.
fn forms_shown(forms: &[Form]) -> Vec<Value> {
    let shown = |form: &Form| {
        json!({
            "bitCount": form.data_bits,
            "prefixLen": form.prefix_bits,
            "prefix": format!("{:x}", form.prefix),
        })
    };
    forms.iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::ask;
    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../../../wire/tests/vectors/labels.json")).unwrap()
    }

    fn labelled(label: &Value) -> Value {
        json!({ "label": label })
    }

    fn check(answer: &Value, wanted: &Value, row: &Value) {
        if *wanted == json!("ffffffffffffffff") {
            assert!(answer["error"].is_string(), "{row} {answer}");
        } else {
            assert_eq!(*answer, labelled(wanted), "{row}");
        }
    }

    /// wire.md: W1.4-1, W1.4-2, W1.4-3, W1.4-4, W1.4-5, W1.4-6, W1.4-7, W1.4-9, W1.4-10, W1.4-11, W1.4-12,
    /// W1.4-13, W1.4-14, W1.4-15.
    #[test]
    fn the_replies_are_those_of_the_table() {
        let rows = strowger_testkit::wire_md::table("arithmetic");
        let code = |cell: &str| -> Value { serde_json::from_str(cell.trim_matches('`')).unwrap() };
        for row in &rows {
            assert_eq!(ask(code(&row[0])), code(&row[1]), "{}", row[0]);
        }
        assert!(rows.len() > 40);
    }

    #[test]
    fn encode_decode_and_convert_answer_the_vectors() {
        let vectors = vectors();
        for name in ["f4", "f8", "v3x5x8", "v4x8"] {
            for row in vectors["number_compress"][name]["compress"].as_array().unwrap() {
                for (width, bits) in row["forms"].as_object().unwrap() {
                    let width: u64 = width.parse().unwrap();
                    let slot = &row["number"];
                    let answer =
                        ask(json!({"op":"encode","scheme":name,"slot":slot,"width":width}));
                    let director = format!("{:0>16}", bits.as_str().unwrap());
                    assert_eq!(answer, json!({ "director": director }), "{row}");
                }
                let least = ask(json!({"op":"encode","scheme":name,"slot":row["number"]}));
                assert_eq!(least["width"], row["bits_min"]);
            }
            for row in vectors["label_ops"][name].as_array().unwrap() {
                let answer = ask(json!({"op":"decode","scheme":name,"label":row["label"]}));
                assert_eq!(answer["slot"], row["director"], "{row}");
                assert_eq!(answer["form"], row["form"], "{row}");
                assert_eq!(answer["self"], json!(row["self"] == 1), "{row}");
                assert_eq!(answer["one_hop"], json!(row["oneHop"] == 1), "{row}");
                for (form, wanted) in row["convert"].as_object().unwrap() {
                    let mut request =
                        json!({"op":"convert","scheme":name,"label":row["printed"],"form":form});
                    check(&ask(request.clone()), wanted, row);
                    if let Ok(form) = form.parse::<u64>() {
                        request["form"] = json!(form);
                        check(&ask(request), wanted, row);
                    }
                }
            }
        }
    }

    #[test]
    fn splices_answer_the_vectors() {
        for row in vectors()["splice"].as_array().unwrap() {
            let (onward, first) = (&row["goHere"], &row["viaHere"]);
            let spliced = ask(json!({"op":"splice","onward":onward,"first":first}));
            check(&spliced, &row["splice"], row);
            if let Some(back) = row.get("unsplice_back") {
                let full = &row["splice"];
                let answer = ask(json!({"op":"unsplice","full":full,"first":first}));
                assert_eq!(answer, labelled(back), "{row}");
                let answer = ask(json!({"op":"routes_through","label":full,"via":first}));
                assert_eq!(answer, json!({"result":row["spliced_routesThrough_via"] == 1}));
            }
            let answer = ask(json!({"op":"routes_through","label":onward,"via":first}));
            assert_eq!(answer, json!({"result":row["a_routesThrough_b"] == 1}), "{row}");
        }
    }

    #[test]
    fn steps_answer_the_vectors() {
        let mut beyond = 0;
        for group in vectors()["forward"].as_array().unwrap() {
            let attached = group["attached_peers"].as_u64().unwrap();
            let taken: Vec<u64> = (0..=attached).filter(|&slot| slot != 1).collect();
            for row in group["steps"].as_array().unwrap() {
                let answer = ask(json!({
                    "op": "step", "scheme": group["scheme"], "taken": taken, "from": row["from"],
                    "label": row["in_label"], "shift": row["shift_in"], "u_turns": true,
                }));
                if row["result"] == "forward" && answer["error"] == "beyond_endpoint" {
                    // W1.3-9. The implementation that made the vectors ignores what follows the
                    // director of slot 1.
                    assert_eq!(row["to"], 1, "{row}");
                    beyond += 1;
                } else if row["result"] == "forward" {
                    let wanted = json!({
                        "to": row["to"], "label": row["out_label"], "shift": row["shift_out"],
                    });
                    assert_eq!(answer, wanted, "{row}");
                } else {
                    assert!(answer["error"].is_string(), "{row} {answer}");
                }
            }
        }
        assert_eq!(beyond, 16);
    }

    #[test]
    fn chains_are_built_from_links_and_from_switches_alike() {
        for row in vectors()["chains"].as_array().unwrap() {
            let plain = |key: &str| row[key].as_str().unwrap().replace('.', "");
            let wanted = json!({ "label": plain("path"), "back": plain("reverse_path") });
            let slots = |key: &str| row[key].as_array().unwrap().clone();
            let (out, into) = (slots("out_slots"), slots("in_slots"));
            let hop =
                |(out, into): (&Value, &Value)| json!({"scheme":"v3x5x8","out":out,"in":into});
            let links: Vec<Value> = out.iter().zip(&into).map(hop).collect();
            assert_eq!(ask(json!({"op":"build","hops":links})), wanted);
            let one = json!(1);
            let switches: Vec<Value> =
                out.iter().chain([&one]).zip([&one].into_iter().chain(&into)).map(hop).collect();
            assert_eq!(ask(json!({"op":"build","hops":switches})), wanted);
            let arrived = &row["label_at_router"];
            let answer = ask(json!({"op":"reverse","label":arrived,"shift":row["label_shift"]}));
            assert_eq!(answer["label"], wanted["back"]);
        }
    }

    #[test]
    fn schemes_answer_the_vectors() {
        for row in vectors()["schemes"].as_array().unwrap() {
            let answer = ask(json!({"op":"scheme","serialized":row["serialized"]}));
            assert_eq!(answer, json!({"forms":row["forms"],"sane":true}));
            let by_hex = ask(json!({"op":"scheme","scheme":row["serialized"]}));
            assert_eq!(by_hex["serialized"], row["serialized"]);
        }
        // The first scheme has two forms with the same prefix, the second has no data bits, and the
        // third has no form at all.
        for insane in ["810408", "0000", ""] {
            let answer = ask(json!({"op":"scheme","serialized":insane}));
            assert_eq!(answer["sane"], json!(false), "{insane} {answer}");
        }
        let half = ask(json!({"op":"scheme","serialized":"61144581"}));
        assert_eq!((&half["error"], &half["sane"]), (&json!("trailing"), &json!(false)));
    }

    #[test]
    fn a_return_path_at_full_width_uses_the_slot_beside_the_packet() {
        // Slot 100 needs ten bits but the self director has only four, so the reply has only `to`.
        let (label, shift) = ("8800000000000001", 4);
        let taken: Vec<u64> = vec![0];
        let arrived = ask(json!({
            "op":"step","scheme":"v3x5x8","taken":taken,"from":100,
            "label":"8000000000000011","shift":4,"u_turns":false,
        }));
        assert_eq!(arrived, json!({"to":1}));
        let back = ask(json!({
            "op":"reverse","scheme":"v3x5x8","label":label,"shift":shift,"ingress":100,
        }));
        assert_eq!(back, json!({"label":"000000000000058c"}));
    }

    #[test]
    fn wider_registers_have_longer_labels() {
        let request = json!({"op":"splice","bits":128,"onward":"0400000000000000","first":"15"});
        assert_eq!(ask(request), json!({"label":"00000000000000004000000000000005"}));
        let request = json!({"op":"splice","onward":"2000000000000000","first":"15"});
        assert_eq!(ask(request), json!({"error":"too_long"}));
    }
}
