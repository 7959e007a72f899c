//! `strowger conform`: the operations of the specification as JSON lines, to check another
//! implementation against this one, byte by byte. An error in a line does not end the program.
//! The program ends at the end of its input.
//!
//! Each line of input is one object with the key `op`. It gets one line of output, in the order of
//! the input. The reply to a failed operation, or to a line that is no valid request, is
//! `{"error":"<kind>"}`, with the key `field` if one field is wrong. [`OPERATIONS`] lists the
//! operations, and docs/conform.md explains them.

#[cfg(test)]
mod examples;
mod fields;
mod handshake;
mod keys;
mod labels;
mod lookups;
mod packets;
mod request;

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
};

use serde_json::{Value, json};
use strowger_wire::{Register, U256};

use self::request::Request;

/// One operation, as the help and docs/conform.md describe it.
struct Operation {
    name: &'static str,
    takes: &'static str,
    gives: &'static str,
    /// Whether the request contains private keys or secrets. The reply then has [`WARNING`].
    takes_secrets: bool,
}

/// The field `warning` of a reply to a request that contains secrets.
const WARNING: &str = "the keys in this request are no longer secret: never use them on a network";

const fn op(name: &'static str, takes: &'static str, gives: &'static str) -> Operation {
    Operation { name, takes, gives, takes_secrets: false }
}

const fn secret_op(name: &'static str, takes: &'static str, gives: &'static str) -> Operation {
    Operation { name, takes, gives, takes_secrets: true }
}

/// All operations. A question mark after a field means that the field may be absent.
const OPERATIONS: [Operation; 40] = [
    op("encode", "scheme slot width?", "director, width if the request has none"),
    op("decode", "scheme label", "slot width form self one_hop"),
    op("convert", "scheme label, form: an index or \"canonical\"", "label"),
    op("widen", "scheme label, ingress or asker", "label"),
    op("splice", "onward first", "label"),
    op("unsplice", "full first", "label"),
    op("routes_through", "label via", "result"),
    op("hop_count", "scheme label", "hops"),
    op("step", "scheme taken from label shift u_turns?", "to label shift"),
    op("reverse", "label and shift after step, scheme and ingress?", "label"),
    op("build", "hops: list of scheme out in; per?", "label back"),
    op("scheme", "scheme or serialized", "forms sane, why or serialized"),
    secret_op("mac", "key label parts: list", "mac"),
    secret_op(
        "identity",
        "seed static_private? domain?",
        "identity peer_id static_private static proof",
    ),
    op("peer_id", "identity or peer_id", "identity peer_id bytes"),
    op("proof_read", "proof static domain?", "identity peer_id"),
    op("mac1", "receiver network message domain?", "mac1"),
    secret_op("mac2", "cookie message", "mac2"),
    op("key_hint", "receiver ephemeral_public domain?", "hint"),
    secret_op(
        "cookie_reply",
        "seed static_private? network secret source message domain?",
        "reply",
    ),
    op("cookie_reply_read", "receiver network message reply domain?", "cookie"),
    secret_op("certificate", "seed role key stamp network", "certificate"),
    op("certificate_read", "certificate role network", "identity peer_id key stamp"),
    secret_op("beacon", "seed static_private? network", "beacon"),
    op("beacon_read", "beacon network", "static identity peer_id"),
    op(
        "hello",
        "index proof timestamp? oldest? newest? suites? seal? widths? flags? lanes? mtu? scheme? \
         protocols? fields? bytes?",
        "hello",
    ),
    op(
        "hello_read",
        "hello",
        "index proof timestamp oldest newest suites seal widths flags lanes mtu scheme protocols \
         fields",
    ),
    op("agree", "hello other", "version suite seal widths mtu"),
    secret_op(
        "ik",
        "network initiator responder psk? cookie? domain?",
        "initiation response transcript keys agreement",
    ),
    secret_op(
        "xx",
        "network initiator responder cookie? domain? by_peer_id?",
        "first second third responder_index transcript keys agreement",
    ),
    op("link_header", "kind lane index low", "header"),
    op("link_header_read", "packet", "kind lane index low"),
    op("header", "label shift hops class? flow? ecn? e? c? t?", "header"),
    op("header_read", "packet", "label bits shift hops class flow ecn e c t payload"),
    secret_op("lane_key", "key lane domain?", "lane_key"),
    secret_op("seal", "key kind lane index counter body domain?", "packet"),
    secret_op("open", "key packet edge? domain?", "kind lane index counter body"),
    op("counter", "edge low older?: list", "counter"),
    op("message", "kind, fields of the kind", "message"),
    op("message_read", "message", "kind, fields of the kind"),
];

/// The list of operations for `strowger conform --help`.
pub(crate) fn help() -> String {
    let mut text = String::from(
        "Each line of input is a JSON object with the key \"op\" and the fields of the operation, \
         each line of output its reply: the fields that the operation gives, or \"error\". Bytes \
         are hex digits. docs/conform.md explains the fields.\n\n\
         Operations marked * take private keys or secrets. Never use such keys on a network.\n",
    );
    for Operation { name, takes, gives, takes_secrets } in &OPERATIONS {
        let mark = if *takes_secrets { "*" } else { "" };
        let _ = write!(text, "\n  {name}{mark}: {takes}\n      gives {gives}");
    }
    text
}

/// The maximum length of a line that is parsed, in bytes: far more than a real request has, and
/// little enough to buffer. A longer line is skipped, and its reply is `line_too_long`.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The kind of an error, as the reply names it.
type Kind = &'static str;

/// The error of a request that has no result.
struct Fault {
    kind: Kind,
    /// The wrong field; `None` if the error is not about one field.
    field: Option<String>,
}

impl From<Kind> for Fault {
    fn from(kind: Kind) -> Self {
        Self { kind, field: None }
    }
}

impl From<Fault> for Value {
    fn from(fault: Fault) -> Self {
        match fault.field {
            None => json!({ "error": fault.kind }),
            Some(field) => json!({ "error": fault.kind, "field": field }),
        }
    }
}

/// Writes a reply to `output` for each line of `input`, until `input` ends. It flushes the replies
/// before it blocks for more input, so a caller may send one request at a time.
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
            Line::TooLong => Fault::from("line_too_long").into(),
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

/// The reply to one line of input. The line may contain any bytes.
fn answer(line: &[u8]) -> Value {
    try_answer(line).unwrap_or_else(Value::from)
}

fn try_answer(line: &[u8]) -> Result<Value, Fault> {
    let text = str::from_utf8(line).map_err(|_| "not_utf8")?.trim();
    if text.is_empty() {
        return Err("empty_line".into());
    }
    let request: Value = serde_json::from_str(text).map_err(|_| "bad_json")?;
    let request = Request::new(request.as_object().ok_or("not_an_object")?);
    match request.get("bits").map(Value::as_u64) {
        None | Some(Some(64)) => perform::<u64>(request),
        Some(Some(128)) => perform::<u128>(request),
        Some(Some(256)) => perform::<U256>(request),
        Some(_) => Err("bad_bits".into()),
    }
}

/// Performs the operation. `R` is the register of its labels.
fn perform<R: Register>(request: Request<'_>) -> Result<Value, Fault> {
    let op = request.text("op")?;
    fields::check(op, request)?;
    let answer = labels::answer::<R>(op, request)
        .or_else(|| keys::answer(op, request))
        .or_else(|| handshake::answer(op, request))
        .or_else(|| packets::answer::<R>(op, request));
    let mut answer = answer.ok_or("unknown_op")??;
    if let Some(answer) = answer.as_object_mut().filter(|_| takes_secrets(op)) {
        answer.insert("warning".to_owned(), json!(WARNING));
    }
    Ok(answer)
}

fn takes_secrets(op: &str) -> bool {
    OPERATIONS.iter().any(|operation| operation.name == op && operation.takes_secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the command on one request, and returns its reply.
    pub(super) fn ask(request: Value) -> Value {
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
    fn an_error_of_a_request_names_the_field() {
        let seed = "a0".repeat(32);
        let end = json!({ "seed": seed, "ephemeral": seed, "index": 7 });
        let ik = |name: &str, value: Value| {
            let mut responder = end.clone();
            responder["seed"] = json!("b0".repeat(32));
            responder[name] = value;
            json!({ "op": "ik", "network": "n", "initiator": end, "responder": responder })
        };
        for (request, kind, field) in [
            (json!({ "op": "mac1", "netwrok": "n" }), "unknown_field", "netwrok"),
            (ik("sael", json!(1)), "unknown_field", "responder.sael"),
            (ik("seal", json!(9)), "bad_field", "responder.seal"),
            (ik("mtu", json!(5)), "bad_field", "responder.mtu"),
            (ik("index", json!(1 << 24)), "bad_field", "responder.index"),
            (ik("ephemeral", json!("a0")), "bad_length", "responder.ephemeral"),
            (ik("ephemeral", json!("x".repeat(64))), "bad_hex", "responder.ephemeral"),
            (
                json!({ "op": "ik", "initiator": end, "responder": { "seed": "b0".repeat(32), "index": 1 } }),
                "missing_field",
                "responder.ephemeral",
            ),
            (
                json!({ "op": "beacon", "seed": seed, "network": "n", "network_hex": "6e" }),
                "conflicting_fields",
                "network_hex",
            ),
            (
                json!({ "op": "scheme", "scheme": "f4", "serialized": "8000" }),
                "conflicting_fields",
                "serialized",
            ),
            (
                json!({ "op": "build", "hops": [{ "scheme": "f4", "out": 1 }] }),
                "missing_field",
                "hops[0].in",
            ),
            (json!({ "op": "build", "scheme": "f4", "hops": [3] }), "bad_field", "hops[0]"),
            (
                json!({ "op": "build", "hops": [{ "scheme": "f4", "out": 1, "on": 1 }] }),
                "unknown_field",
                "hops[0].on",
            ),
            (json!({ "op": "message", "kind": "pong", "code": 1 }), "unknown_field", "code"),
            (json!({ "op": "lane_key", "key": seed, "lane": 16 }), "bad_field", "lane"),
        ] {
            assert_eq!(ask(request.clone()), json!({ "error": kind, "field": field }), "{request}");
        }
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
        assert_eq!(answers[5], json!({ "error": "line_too_long" }));
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
    fn the_page_lists_the_operations_of_the_code() {
        let page = include_str!("../../../../docs/conform.md");
        let cells = |row: &str| -> Vec<String> {
            let cells = row.trim_matches('|').split('|').map(str::trim);
            cells.map(|cell| cell.replace('`', "")).collect()
        };
        let rows = page.lines().filter(|line| line.starts_with("| `"));
        let listed: Vec<_> = rows.map(cells).collect();
        let ops = OPERATIONS.iter().map(|op| {
            let mark = if op.takes_secrets { "*" } else { "" };
            vec![format!("{}{mark}", op.name), op.takes.to_owned(), op.gives.to_owned()]
        });
        assert_eq!(listed, ops.collect::<Vec<_>>());
    }

    #[test]
    fn each_listed_operation_is_known() {
        for op in &OPERATIONS {
            let answer = ask(json!({ "op": op.name }));
            let kind = answer["error"].as_str().unwrap();
            assert_ne!(kind, "unknown_op", "{}", op.name);
            assert!(help().contains(op.name));
        }
    }
}
