//! Compares the label arithmetic with vectors from an independent implementation ("the source"),
//! row by row. Rows that differ intentionally are listed here, with the reason.

// A row with an unexpected format fails the test, also outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use strowger_wire::{
    Hop, Label, Scheme, Slot,
    hex::Hex,
    label::{LabelError, Step, StepError, step},
    scheme::{self, Form, V3X5X8},
};

/// Pairs of labels for which the source returns a label of 64 bits, which leaves no bit for the end
/// marker of a return path. Here the result is `too_long`, as for a splice of that length.
const TOO_LONG_FOR_ASKER: [(&str, &str); 1] = [("03fee739c73620cd", "0000000000000220")];

/// The number of steps to slot 1 in which the label continues after the director of slot 1. The
/// source forwards them to its own router, which ignores the rest. A switch discards them as
/// `beyond_endpoint` (W1.3-9).
const BEYOND_SLOT_1: usize = 16;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/labels.json")).unwrap()
}

fn rows<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap_or_else(|| panic!("{key} is a list"))
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_else(|| panic!("{key} is text in {row}"))
}

fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or_else(|| panic!("{key} is a number in {row}"))
}

fn label(row: &Value, key: &str) -> Label {
    text(row, key).parse().unwrap()
}

fn slots(row: &Value, key: &str) -> Vec<Slot> {
    rows(row, key).iter().map(|slot| Slot::new(slot.as_u64().unwrap() as u32)).collect()
}

/// The expected label; `None` for the source's marker of an impossible label.
fn wanted(text: &str) -> Option<Label> {
    (text != "ffffffffffffffff").then(|| text.parse().unwrap())
}

/// wire.md: W1.1-7.
#[test]
fn schemes() {
    let vectors = vectors();
    let rows = rows(&vectors, "schemes");
    for row in rows {
        let forms: Vec<Form> = self::rows(row, "forms")
            .iter()
            .map(|form| {
                let prefix = u32::from_str_radix(text(form, "prefix"), 16).unwrap();
                let bits = |key| number(form, key) as u8;
                Form::new(bits("bitCount"), bits("prefixLen"), prefix)
            })
            .collect();
        let scheme = Scheme::new(&forms).unwrap();
        let hex = Hex(scheme.serialize().as_bytes()).to_string();
        assert_eq!(hex, text(row, "serialized"));
        assert_eq!(Scheme::parse(scheme.serialize().as_bytes()), Ok(scheme), "{row}");
        match Scheme::named(text(row, "name")) {
            Some(named) => assert_eq!(*named, scheme),
            None => assert_eq!(scheme.name(), None),
        }
        assert_eq!(number(row, "is358") == 1, scheme == V3X5X8);
    }
    assert_eq!(rows.len(), 6);
}

/// wire.md: W1.1-4, W1.1-5, W1.1-17.
#[test]
fn number_compress() {
    let vectors = vectors();
    let mut seen = 0;
    for (name, scheme) in scheme::NAMED {
        for row in rows(&vectors["number_compress"][name], "compress") {
            let slot = Slot::new(number(row, "number") as u32);
            let least = scheme.encode_least(slot).unwrap();
            assert_eq!(u64::from(least.width()), number(row, "bits_min"), "{name} {row}");
            let forms = row["forms"].as_object().unwrap();
            for form in scheme.forms() {
                let wanted = forms.get(&form.width().to_string());
                let wanted =
                    wanted.map(|bits| u64::from_str_radix(bits.as_str().unwrap(), 16).unwrap());
                let director = scheme.encode(slot, form.width()).ok();
                assert_eq!(director.map(|director| director.bits()), wanted, "{name} {row}");
                if let Some(director) = director {
                    // The widths are not compared: slot 1 is decoded at its own width, whatever
                    // zeros are above it.
                    let read = scheme.decode(director.bits()).unwrap();
                    assert_eq!((read.slot(), read.bits()), (slot, director.bits()));
                }
            }
            seen += 1;
        }
        assert_eq!(rows(&vectors["number_compress"][name], "decompress").len(), 0);
    }
    assert_eq!(seen, 392);
}

/// wire.md: W1.4-4, W1.4-5, W1.4-8, W1.4-10, W1.4-13.
#[test]
fn label_ops() {
    let vectors = vectors();
    let mut seen = 0;
    for (name, scheme) in scheme::NAMED {
        for row in rows(&vectors["label_ops"], name) {
            let label = label(row, "label");
            assert_eq!(label.to_string(), text(row, "printed"));
            assert_eq!(text(row, "printed").parse(), Ok(label));
            assert_eq!(format!("{label:x}"), text(row, "label"));
            let director = label.decode(scheme).unwrap();
            assert_eq!(u64::from(director.form()), number(row, "form"), "{name} {row}");
            assert_eq!(u64::from(director.slot().number()), number(row, "director"));
            assert_eq!(label.is_self(scheme), number(row, "self") == 1, "{name} {row}");
            assert_eq!(label.is_one_hop(scheme), number(row, "oneHop") == 1, "{name} {row}");
            let conversions = row["convert"].as_object().unwrap();
            assert_eq!(conversions.len(), scheme.forms().len() + 1);
            for (to, result) in conversions {
                let converted = match to.as_str() {
                    "canonical" => label.canonical(scheme),
                    form => label.convert(scheme, form.parse().unwrap()),
                };
                assert_eq!(converted.ok(), wanted(result.as_str().unwrap()), "{name} {to} {row}");
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 420);
}

/// wire.md: W1.4-2, W1.4-3, W1.4-11, W1.4-15.
#[test]
fn splice() {
    let vectors = vectors();
    let (rows, mut differ) = (rows(&vectors, "splice"), 0);
    for row in rows {
        let (onward, first) = (label(row, "goHere"), label(row, "viaHere"));
        let spliced = Label::splice(onward, first);
        assert_eq!(spliced.ok(), wanted(text(row, "splice")), "{row}");
        assert_eq!(row.get("unsplice_back").is_some(), spliced.is_ok());
        if let Ok(spliced) = spliced {
            assert_eq!(spliced.unsplice(first), Ok(label(row, "unsplice_back")), "{row}");
            let through = number(row, "spliced_routesThrough_via") == 1;
            assert_eq!(spliced.routes_through(first), through, "{row}");
        }
        let through = number(row, "a_routesThrough_b") == 1;
        assert_eq!(onward.routes_through(first), through, "{row}");
        let widened = onward.widen_for(&V3X5X8, first);
        if TOO_LONG_FOR_ASKER.contains(&(text(row, "goHere"), text(row, "viaHere"))) {
            assert_eq!(widened, Err(LabelError::TooLong));
            differ += 1;
        } else {
            let key = "getLabelFor_a_asked_by_b_358";
            assert_eq!(widened.ok(), wanted(text(row, key)), "{row}");
        }
    }
    assert_eq!((rows.len(), differ), (150, TOO_LONG_FOR_ASKER.len()));
}

/// The hops of a chain of switches, from slot 1 of the first switch to slot 1 of the last.
fn switches<'a>(out_slots: &[Slot], in_slots: &[Slot]) -> Vec<Hop<'a>> {
    let ingress = [Slot::SWITCH].into_iter().chain(in_slots.iter().copied());
    let egress = out_slots.iter().copied().chain([Slot::SWITCH]);
    ingress.zip(egress).map(|(ingress, egress)| Hop { scheme: &V3X5X8, egress, ingress }).collect()
}

/// Forwards a label through all switches, compares each label on the wire, and returns the last
/// one.
fn walk(path: Label, hops: &[Hop], on_wire: &Value) -> (Label, u16) {
    let (mut label, mut shift) = (path, 0);
    let mut seen = on_wire.as_array().unwrap().iter();
    for hop in hops {
        match step(hop.scheme, label, shift, hop.ingress, |_| true, false).unwrap() {
            Step::Forward { to, label: next, shift: used } => {
                assert_eq!(to, hop.egress);
                assert_eq!(Some(format!("{next:x}").as_str()), seen.next().unwrap().as_str());
                (label, shift) = (next, used);
            }
            Step::Arrive { written } => {
                assert_eq!(hop.egress, Slot::SWITCH);
                (label, shift) = written.unwrap();
            }
        }
    }
    assert_eq!(seen.next(), None);
    (label, shift)
}

/// wire.md: W1.2-1, W1.3-4, W1.4-6, W1.4-7, W1.4-12.
#[test]
fn chains() {
    let vectors = vectors();
    let rows = rows(&vectors, "chains");
    for row in rows {
        let (out_slots, in_slots) = (slots(row, "out_slots"), slots(row, "in_slots"));
        assert_eq!(out_slots.len() as u64, number(row, "hops"));
        assert_eq!(number(row, "arrived_at_node"), number(row, "hops"));
        assert_eq!(number(row, "reply_arrived_at_node"), 0);

        let there = switches(&out_slots, &in_slots);
        let (path, back) = Label::build(&there).unwrap();
        assert_eq!(path, label(row, "path"));
        assert_eq!(back, label(row, "reverse_path"));
        assert_eq!(u64::from(path.hop_count(&V3X5X8).unwrap()), number(row, "hops"));

        let (arrived, shift) = walk(path, &there, &row["labels_on_wire"]);
        assert_eq!(arrived, label(row, "label_at_router"));
        assert_eq!(u64::from(shift), number(row, "label_shift"));
        assert_eq!(arrived.reverse(shift, None), Ok(back));

        let reversed = |slots: &[Slot]| slots.iter().rev().copied().collect::<Vec<_>>();
        let home = switches(&reversed(&in_slots), &reversed(&out_slots));
        let (arrived, shift) = walk(back, &home, &row["reply_labels_on_wire"]);
        assert_eq!(arrived.reverse(shift, None), Ok(label(row, "reply_reverse_path")));
    }
    assert_eq!(rows.len(), 5);
}

/// wire.md: W1.2-1, W1.2-9.
#[test]
fn forward() {
    let vectors = vectors();
    let (mut seen, mut forwarded, mut beyond) = (0, 0, 0);
    for group in rows(&vectors, "forward") {
        let (name, attached) = (text(group, "scheme"), number(group, "attached_peers"));
        let scheme = Scheme::named(name).unwrap();
        // Neighbours have the slots 0, 2, 3 and so on; slot 1 always exists.
        let taken = |slot: Slot| slot.number() == 0 || u64::from(slot.number()) <= attached;
        for row in rows(group, "steps") {
            seen += 1;
            let ingress = Slot::new(number(row, "from") as u32);
            let shift = number(row, "shift_in") as u16;
            let before = label(row, "in_label");
            let result = step(scheme, before, shift, ingress, taken, true);
            if text(row, "result") == "forward" {
                forwarded += 1;
                let (to, after, shift) = match result {
                    Ok(Step::Forward { to, label, shift }) => (to, label, shift),
                    Ok(Step::Arrive { written }) => {
                        let (label, shift) = written.unwrap_or_else(|| panic!("{row}"));
                        (Slot::SWITCH, label, shift)
                    }
                    // The test still compares the arithmetic of the source.
                    Err(StepError::BeyondSwitch) => {
                        beyond += 1;
                        let width = before.decode(scheme).unwrap().width();
                        let back = scheme.encode(ingress, width).unwrap().back_bits();
                        (Slot::SWITCH, before.advance(width, back), shift + u16::from(width))
                    }
                    Err(error) => panic!("{error:?}: {row}"),
                };
                assert_eq!(u64::from(to.number()), number(row, "to"), "{row}");
                assert_eq!(after, label(row, "out_label"), "{row}");
                assert_eq!(u64::from(shift), number(row, "shift_out"), "{row}");
                continue;
            }
            // Only the fact of the failure is compared, not its reason. The source reports
            // `return_path` also for packets without a next hop, and silently drops packets with
            // certain flags or lengths.
            match result {
                Ok(other) => panic!("{other:?}: {row}"),
                Err(error) => assert!(
                    matches!(
                        error,
                        StepError::EmptySlot
                            | StepError::BeyondSwitch
                            | StepError::ReturnPath
                            | StepError::RegisterFull
                    ),
                    "{error:?}: {row}"
                ),
            }
        }
    }
    assert_eq!(beyond, BEYOND_SLOT_1);
    assert_eq!((seen, forwarded), (1237, 837));
}

#[test]
fn bit_reverse64() {
    let vectors = vectors();
    let rows = rows(&vectors, "bit_reverse64");
    for row in rows {
        let word = |index: usize| row[index].as_str().unwrap().parse::<Label>().unwrap();
        assert_eq!(word(0).register().reverse_bits(), word(1).register());
    }
    assert_eq!(rows.len(), 8);
}

#[test]
fn every_group_of_the_vectors_has_a_test() {
    let vectors = vectors();
    let groups: Vec<&str> = vectors.as_object().unwrap().keys().map(String::as_str).collect();
    let tested = ["schemes", "number_compress", "label_ops", "splice", "chains", "forward"];
    for group in groups {
        assert!(
            group == "_about" || group == "bit_reverse64" || tested.contains(&group),
            "{group}"
        );
    }
}
