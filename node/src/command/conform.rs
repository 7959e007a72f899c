//! `strowger conform`: label operations as JSON lines, to check another implementation against this
//! one. An error in a line does not end the program. It ends at the end of its input.
//!
//! Each line of input is one object with the key `op`. It gets one line of output, in the order of
//! the input. The reply to a failed operation, or to a line that is no valid request, is
//! `{"error":"<kind>"}`. Labels are written as in wire.md 1.4. A label in a reply has all of its
//! hex digits and no dots: 16 digits by default, 32 if the request has `"bits":128`, and 64 if it
//! has `"bits":256`. A scheme is written as its name or as the hex of its serialization.
//!
//! | op | takes | gives |
//! |---|---|---|
//! | `encode` | `scheme` `slot` `width`? | `director` (`width`, if the request has none) |
//! | `decode` | `scheme` `label` | `slot` `width` `form` `self` `one_hop` |
//! | `convert` | `scheme` `label` `form`: an index or `"canonical"` | `label` |
//! | `widen` | `scheme` `label`, and `ingress` or `asker` | `label` |
//! | `splice` | `onward` `first` | `label` |
//! | `unsplice` | `full` `first` | `label` |
//! | `routes_through` | `label` `via` | `result` |
//! | `hop_count` | `scheme` `label` | `hops` |
//! | `step` | `scheme` `taken` `from` `label` `shift` `u_turns`? | `to` `label` `shift` |
//! | `reverse` | `label` `shift`, or also `scheme` `ingress` | `label` |
//! | `build` | `hops`: list of `scheme` `out` `in`; `per`? | `label` `back` |
//! | `scheme` | `serialized`, or `scheme` | `forms` `sane` (`why`; `serialized`) |
//!
//! A step to slot 1 whose director cannot hold the ingress slot gives only `to`. The packet has
//! arrived, and the ingress slot is passed on next to the packet, not in its label (wire.md 1.3).
//!
//! `per` defines the hops of `build`. With `"per":"switch"`, each hop names two slots of one
//! switch: the egress slot and the ingress slot of the packet. With `"per":"link"`, each hop names
//! the two ends of one link: the egress slot at one switch and the ingress slot at the next switch.
//! The path then goes from slot 1 of the first switch to slot 1 of the last, as the chains of the
//! test vectors do, and the last switch has the scheme of the last hop. Without `per`, a list that
//! begins with `in` 1 or ends with `out` 1 is a list of switches, because no link ends at slot 1.
//! Any other list is a list of links.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use serde_json::{Map, Value, json};
use strowger_wire::{
    Hop, Label, Register, Scheme, Slot, U256,
    director::DirectorError,
    hex::Hex,
    label::{LabelError, Step, StepError, TextError, step},
    scheme::{Form, read_forms},
};

use crate::labels::{bytes_of, hop, hops_of_links, scheme_of};

/// The longest line that is parsed, in bytes: far longer than any real request, and short enough to
/// buffer. A longer line is skipped and answered with `line_too_long`.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The kind of an error, as the reply names it.
type Kind = &'static str;

/// Replies on `output` to every line of `input`, until `input` ends. It flushes the replies before
/// it blocks for more input, so a caller may send one request at a time.
///
/// # Errors
/// Errors of reading and writing.
pub(crate) fn run(input: impl Read, output: impl Write) -> io::Result<()> {
    let mut input = BufReader::new(input);
    let mut output = BufWriter::new(output);
    let mut line = Vec::new();
    loop {
        if !input.buffer().contains(&b'\n') {
            output.flush()?;
        }
        let answer = match read_line(&mut input, &mut line)? {
            Line::End => return output.flush(),
            Line::Whole => answer(&line),
            Line::TooLong => failed("line_too_long"),
        };
        serde_json::to_writer(&mut output, &answer)?;
        output.write_all(b"\n")?;
    }
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads up to the next newline into `line`, which never exceeds [`LINE_BYTES_MAX`].
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let (mut begun, mut too_long) = (false, false);
    loop {
        let bytes = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if bytes.is_empty() && !begun {
            return Ok(Line::End);
        }
        begun = true;
        let newline = bytes.iter().position(|&byte| byte == b'\n');
        let end = newline.unwrap_or(bytes.len());
        too_long |= line.len() + end > LINE_BYTES_MAX;
        if !too_long {
            line.extend_from_slice(&bytes[..end]);
        }
        let at_end = bytes.is_empty() || newline.is_some();
        input.consume(newline.map_or(end, |newline| newline + 1));
        if at_end {
            return Ok(if too_long { Line::TooLong } else { Line::Whole });
        }
    }
}

fn failed(kind: Kind) -> Value {
    json!({ "error": kind })
}

/// The reply to one line, which may contain any bytes.
fn answer(line: &[u8]) -> Value {
    match try_answer(line) {
        Ok(answer) => answer,
        Err(kind) => failed(kind),
    }
}

fn try_answer(line: &[u8]) -> Result<Value, Kind> {
    let text = str::from_utf8(line).map_err(|_| "not_utf8")?.trim();
    if text.is_empty() {
        return Err("empty_line");
    }
    let request: Value = serde_json::from_str(text).map_err(|_| "bad_json")?;
    let request = Request(request.as_object().ok_or("not_an_object")?);
    match request.0.get("bits").map(Value::as_u64) {
        None | Some(Some(64)) => request.perform::<u64>(),
        Some(Some(128)) => request.perform::<u128>(),
        Some(Some(256)) => request.perform::<U256>(),
        Some(_) => Err("bad_bits"),
    }
}

/// One request. Its accessors check the fields.
#[derive(Clone, Copy)]
struct Request<'a>(&'a Map<String, Value>);

impl Request<'_> {
    fn perform<R: Register>(self) -> Result<Value, Kind> {
        match self.text("op")? {
            "encode" => self.encode(),
            "decode" => self.decode::<R>(),
            "convert" => self.convert::<R>(),
            "widen" => self.widen::<R>(),
            "splice" => {
                let spliced = Label::splice(self.label::<R>("onward")?, self.label("first")?);
                labelled(spliced.map_err(LabelError::kind)?)
            }
            "unsplice" => {
                let onward = self.label::<R>("full")?.unsplice(self.label("first")?);
                labelled(onward.map_err(LabelError::kind)?)
            }
            "routes_through" => {
                let through = self.label::<R>("label")?.routes_through(self.label("via")?);
                Ok(json!({ "result": through }))
            }
            "hop_count" => {
                let hops = self.label::<R>("label")?.hop_count(&self.scheme()?);
                Ok(json!({ "hops": hops.map_err(LabelError::kind)? }))
            }
            "step" => self.step::<R>(),
            "reverse" => self.reverse::<R>(),
            "build" => self.build::<R>(),
            "scheme" => self.show_scheme(),
            _ => Err("unknown_op"),
        }
    }

    fn encode(self) -> Result<Value, Kind> {
        let (scheme, slot) = (self.scheme()?, self.slot("slot")?);
        let digits = |bits| format!("{:x}", Label::<u64>::new(bits));
        if self.0.contains_key("width") {
            let width = u8::try_from(self.number("width")?).map_err(|_| "no_such_width")?;
            let director = scheme.encode(slot, width).map_err(DirectorError::kind)?;
            Ok(json!({ "director": digits(director.bits()) }))
        } else {
            let director = scheme.encode_least(slot).map_err(DirectorError::kind)?;
            Ok(json!({ "director": digits(director.bits()), "width": director.width() }))
        }
    }

    fn decode<R: Register>(self) -> Result<Value, Kind> {
        let (scheme, label) = (self.scheme()?, self.label::<R>("label")?);
        let director = label.decode(&scheme).map_err(LabelError::kind)?;
        Ok(json!({
            "slot": director.slot().number(),
            "width": director.width(),
            "form": director.form(),
            "self": label.is_self(&scheme),
            "one_hop": label.is_one_hop(&scheme),
        }))
    }

    fn convert<R: Register>(self) -> Result<Value, Kind> {
        let (scheme, label) = (self.scheme()?, self.label::<R>("label")?);
        let form = match self.field("form")? {
            Value::String(text) if text == "canonical" => None,
            Value::String(text) => Some(text.parse::<u64>().map_err(|_| "bad_field")?),
            other => Some(other.as_u64().ok_or("bad_field")?),
        };
        let converted = match form {
            None => label.canonical(&scheme),
            Some(form) => label.convert(&scheme, u8::try_from(form).map_err(|_| "no_such_form")?),
        };
        labelled(converted.map_err(LabelError::kind)?)
    }

    fn widen<R: Register>(self) -> Result<Value, Kind> {
        let (scheme, label) = (self.scheme()?, self.label::<R>("label")?);
        let widened = if self.0.contains_key("asker") {
            label.widen_for(&scheme, self.label("asker")?)
        } else {
            label.widen(&scheme, self.slot("ingress")?)
        };
        labelled(widened.map_err(LabelError::kind)?)
    }

    fn step<R: Register>(self) -> Result<Value, Kind> {
        let (scheme, label) = (self.scheme()?, self.label::<R>("label")?);
        let (ingress, shift) = (self.slot("from")?, self.shift()?);
        let mut taken = Vec::new();
        for slot in self.list("taken")? {
            taken.push(slot_of(slot)?);
        }
        let u_turns = match self.0.get("u_turns") {
            None => false,
            Some(leave) => leave.as_bool().ok_or("bad_field")?,
        };
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

    fn reverse<R: Register>(self) -> Result<Value, Kind> {
        let (label, shift) = (self.label::<R>("label")?, self.shift()?);
        let ingress = if self.0.contains_key("ingress") {
            let director = self.scheme()?.encode_least(self.slot("ingress")?);
            Some(director.map_err(DirectorError::kind)?)
        } else {
            None
        };
        labelled(label.reverse(shift, ingress).map_err(LabelError::kind)?)
    }

    fn build<R: Register>(self) -> Result<Value, Kind> {
        let mut rows = Vec::new();
        for hop in self.list("hops")? {
            let hop = Request(hop.as_object().ok_or("bad_field")?);
            // A request may name one scheme for all hops, next to the list.
            let scheme = if hop.0.contains_key("scheme") { hop.scheme()? } else { self.scheme()? };
            rows.push((scheme, hop.slot("out")?, hop.slot("in")?));
        }
        let per_switch = match self.0.get("per").map(Value::as_str) {
            None => {
                rows.first().is_some_and(|&(_, _, ingress)| ingress.is_switch())
                    || rows.last().is_some_and(|&(_, egress, _)| egress.is_switch())
            }
            Some(Some("switch")) => true,
            Some(Some("link")) => false,
            Some(_) => return Err("bad_field"),
        };
        let hops = if per_switch { hops_of_switches(&rows) } else { hops_of_links(&rows) };
        let (label, back) = Label::<R>::build(&hops).map_err(LabelError::kind)?;
        Ok(json!({ "label": format!("{label:x}"), "back": format!("{back:x}") }))
    }

    fn show_scheme(self) -> Result<Value, Kind> {
        if !self.0.contains_key("serialized") {
            let scheme = self.scheme()?;
            let serialized = Hex(scheme.serialize().as_bytes()).to_string();
            let forms = forms_shown(scheme.forms());
            return Ok(json!({ "forms": forms, "sane": true, "serialized": serialized }));
        }
        let bytes = bytes_of(self.text("serialized")?).map_err(|_| "bad_hex")?;
        let (forms, count) = match read_forms(&bytes) {
            Ok(read) => read,
            // Without a serialization the operation fails. The scheme is not valid either.
            Err(error) => return Ok(json!({ "error": error.kind(), "forms": [], "sane": false })),
        };
        let forms = &forms[..count];
        Ok(match Scheme::new(forms) {
            Ok(_) => json!({ "forms": forms_shown(forms), "sane": true }),
            Err(why) => json!({ "forms": forms_shown(forms), "sane": false, "why": why.kind() }),
        })
    }

    fn field(&self, name: &str) -> Result<&Value, Kind> {
        self.0.get(name).ok_or("missing_field")
    }

    fn text(&self, name: &str) -> Result<&str, Kind> {
        self.field(name)?.as_str().ok_or("bad_field")
    }

    fn number(&self, name: &str) -> Result<u64, Kind> {
        self.field(name)?.as_u64().ok_or("bad_field")
    }

    fn list(&self, name: &str) -> Result<&Vec<Value>, Kind> {
        self.field(name)?.as_array().ok_or("bad_field")
    }

    fn slot(&self, name: &str) -> Result<Slot, Kind> {
        slot_of(self.field(name)?)
    }

    fn shift(&self) -> Result<u16, Kind> {
        // A shift that no register has is treated as the largest shift: the label has no bits left.
        Ok(u16::try_from(self.number("shift")?).unwrap_or(u16::MAX))
    }

    fn label<R: Register>(&self, name: &str) -> Result<Label<R>, Kind> {
        self.text(name)?.parse().map_err(TextError::kind)
    }

    fn scheme(&self) -> Result<Scheme, Kind> {
        scheme_of(self.text("scheme")?)
    }
}

fn labelled<R: Register>(label: Label<R>) -> Result<Value, Kind> {
    Ok(json!({ "label": format!("{label:x}") }))
}

fn slot_of(value: &Value) -> Result<Slot, Kind> {
    let number = value.as_u64().ok_or("bad_field")?;
    u32::try_from(number).map(Slot::new).map_err(|_| DirectorError::SlotTooWide.kind())
}

/// The hops of a path. Each row is one switch of the path.
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
    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../../wire/tests/vectors/labels.json")).unwrap()
    }

    /// Runs the whole command on one request, and returns its reply.
    fn ask(request: Value) -> Value {
        let mut output = Vec::new();
        run(format!("{request}\n").as_bytes(), &mut output).unwrap();
        serde_json::from_slice(&output).unwrap()
    }

    /// The reply to each line of `input`.
    fn answers(input: &[u8]) -> Vec<Value> {
        let mut output = Vec::new();
        run(input, &mut output).unwrap();
        let text = String::from_utf8(output).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn kind(line: &[u8]) -> String {
        answer(line)["error"].as_str().unwrap().to_owned()
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
        let mut arrived = 0;
        for group in vectors()["forward"].as_array().unwrap() {
            let attached = group["attached_peers"].as_u64().unwrap();
            let taken: Vec<u64> = (0..=attached).filter(|&slot| slot != 1).collect();
            for row in group["steps"].as_array().unwrap() {
                let answer = ask(json!({
                    "op": "step", "scheme": group["scheme"], "taken": taken, "from": row["from"],
                    "label": row["in_label"], "shift": row["shift_in"], "u_turns": true,
                }));
                if row["result"] == "forward" {
                    let wanted = json!({
                        "to": row["to"], "label": row["out_label"], "shift": row["shift_out"],
                    });
                    assert_eq!(answer, wanted, "{row}");
                } else if answer == json!({"to": 1}) {
                    // These rows are the case of wire.md 1.3; wire/tests/label_vectors.rs lists
                    // them.
                    arrived += 1;
                } else {
                    assert!(answer["error"].is_string(), "{row} {answer}");
                }
            }
        }
        assert_eq!(arrived, 10);
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
            "label":"8800000000000021","shift":4,"u_turns":false,
        }));
        assert_eq!(arrived, json!({"to":1}));
        let back = ask(json!({
            "op":"reverse","scheme":"v3x5x8","label":label,"shift":shift,"ingress":100,
        }));
        assert_eq!(back, json!({"label":"000000000000058c"}));
    }

    #[test]
    fn a_line_that_is_no_request_is_answered_with_an_error() {
        assert_eq!(kind(b""), "empty_line");
        assert_eq!(kind(b"  \t "), "empty_line");
        assert_eq!(kind(b"{"), "bad_json");
        assert_eq!(kind(b"\xff\xfe{}"), "not_utf8");
        assert_eq!(kind(b"[1]"), "not_an_object");
        assert_eq!(kind(b"{}"), "missing_field");
        assert_eq!(kind(br#"{"op":5}"#), "bad_field");
        assert_eq!(kind(br#"{"op":"fly"}"#), "unknown_op");
        assert_eq!(kind(br#"{"op":"encode"}"#), "missing_field");
        assert_eq!(kind(br#"{"op":"encode","scheme":"v9","slot":1}"#), "unknown_scheme");
        assert_eq!(kind(br#"{"op":"encode","scheme":"f4","slot":-1,"width":4}"#), "bad_field");
        assert_eq!(kind(br#"{"op":"encode","scheme":"f4","slot":1.5,"width":4}"#), "bad_field");
        assert_eq!(kind(br#"{"op":"encode","scheme":"f4","slot":16,"width":4}"#), "slot_too_wide");
        assert_eq!(kind(br#"{"op":"encode","scheme":"f4","slot":1e3,"width":4}"#), "bad_field");
        assert_eq!(
            kind(br#"{"op":"encode","scheme":"f4","slot":5000000000,"width":4}"#),
            "slot_too_wide"
        );
        assert_eq!(kind(br#"{"op":"encode","scheme":"f4","slot":1,"width":400}"#), "no_such_width");
        assert_eq!(kind(br#"{"op":"decode","scheme":"f4","label":"xyz"}"#), "label_not_hex");
        assert_eq!(kind(br#"{"op":"decode","scheme":"f4","label":5}"#), "bad_field");
        assert_eq!(kind(br#"{"op":"build","scheme":"f4","hops":[]}"#), "no_hops");
        assert_eq!(kind(br#"{"op":"build","scheme":"f4","hops":[3]}"#), "bad_field");
        assert_eq!(kind(br#"{"op":"splice","onward":"0","first":"1"}"#), "zero_label");
        assert_eq!(kind(br#"{"op":"splice","bits":65,"onward":"0","first":"1"}"#), "bad_bits");
        assert_eq!(
            kind(br#"{"op":"step","scheme":"f4","taken":[0],"from":0,"label":"0","shift":0}"#),
            "spent_label"
        );
        let deep = "[".repeat(10_000);
        assert_eq!(kind(deep.as_bytes()), "bad_json");
    }

    #[test]
    fn a_failed_line_does_not_end_the_stream() {
        let good = br#"{"op":"routes_through","label":"15","via":"1"}"#;
        let mut input = Vec::new();
        for bad in [&b"\xff"[..], b"", b"null", b"{\"op\":", b"\r"] {
            input.extend_from_slice(bad);
            input.push(b'\n');
        }
        input.extend(std::iter::repeat_n(b'x', LINE_BYTES_MAX + 1));
        input.push(b'\n');
        input.extend_from_slice(good);
        // The last line needs no newline.
        let answers = answers(&input);
        assert_eq!(answers.len(), 7);
        assert!(answers[..6].iter().all(|answer| answer["error"].is_string()));
        assert_eq!(answers[5], failed("line_too_long"));
        assert_eq!(answers[6], json!({ "result": true }));
    }

    #[test]
    fn an_endless_line_takes_bounded_memory() {
        let mut line = Vec::new();
        let endless = io::repeat(b'{').take(64 << 20);
        let mut input = BufReader::new(endless);
        assert!(matches!(read_line(&mut input, &mut line), Ok(Line::TooLong)));
        assert!(line.capacity() <= 2 * LINE_BYTES_MAX);
    }

    #[test]
    fn wider_registers_have_longer_labels() {
        let request = json!({"op":"splice","bits":128,"onward":"0400000000000000","first":"15"});
        assert_eq!(ask(request), json!({"label":"00000000000000004000000000000005"}));
        let request = json!({"op":"splice","onward":"2000000000000000","first":"15"});
        assert_eq!(ask(request), failed("too_long"));
    }
}
