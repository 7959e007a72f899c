//! Tests that the operations of `strowger conform` compute the examples of wire.md.

use serde_json::{Value, json};
use strowger_testkit::wire_md::{assert_example, example, table};
use strowger_wire::hex::{self, Hex};

use super::{WARNING, tests::ask};

fn hex_of(bytes: &[u8]) -> String {
    Hex(bytes).to_string()
}

/// 32 bytes with this value, in hex.
fn repeated(byte: u8) -> String {
    hex_of(&[byte; 32])
}

fn bytes_of(answer: &Value) -> Vec<u8> {
    let text = answer.as_str().unwrap_or_else(|| panic!("no hex digits: {answer}"));
    hex::bytes(text).collect::<Result<_, _>>().unwrap()
}

/// Asserts that a field of the reply equals the example.
#[track_caller]
fn assert_answer(answer: &Value, field: &str, name: &str) {
    assert!(answer["error"].is_null(), "{name}: {answer}");
    assert_example(name, &bytes_of(&answer[field]));
}

const SOURCE: &str = "c00002070fa00003";

fn ends() -> (Value, Value) {
    let a = json!({
        "seed": repeated(0xa0), "ephemeral": repeated(0xa1), "index": 0x0a_0b0c,
        "timestamp": 1_700_000_000_000_000_000_u64,
        "widths": 7, "lanes": 2, "mtu": 9216, "scheme": "v3x5x8",
    });
    let b = json!({
        "seed": repeated(0xb0), "ephemeral": repeated(0xb1), "index": 0x1a_2b3c,
        "seal": 1, "mtu": 1400, "scheme": "v3x5x8",
    });
    (a, b)
}

fn node(seed: u8) -> Value {
    ask(json!({ "op": "identity", "seed": repeated(seed) }))
}

/// The public key of an X25519 private key.
fn static_of(private: &str) -> Value {
    let node = json!({ "op": "identity", "seed": repeated(1), "static_private": private });
    ask(node)["static"].clone()
}

fn lane_key(direction: &Value, lane: u8) -> Vec<u8> {
    bytes_of(&ask(json!({ "op": "lane_key", "key": direction, "lane": lane }))["lane_key"])
}

/// The keys of both directions of a session, then the keys of lanes 0 and 1 of the first direction
/// and of lane 0 of the second.
fn keys_of(session: &Value) -> Vec<u8> {
    let keys = &session["keys"];
    let directions = [bytes_of(&keys[0]), bytes_of(&keys[1])].concat();
    [directions, lane_key(&keys[0], 0), lane_key(&keys[0], 1), lane_key(&keys[1], 0)].concat()
}

/// wire.md: W4-18.
#[test]
fn the_mac() {
    let parts = ["6162", "", "63"];
    let request = json!({ "op": "mac", "key": repeated(1), "label": "label", "parts": parts });
    assert_answer(&ask(request), "mac", "mac");
}

/// wire.md: W4-5, W4-59.
#[test]
fn keys_and_identities() {
    let mut all = Vec::new();
    for (seed, proof) in [(0xa0, "identity-proof-a"), (0xb0, "identity-proof-b")] {
        let node = node(seed);
        for field in ["identity", "static_private", "static"] {
            all.extend(bytes_of(&node[field]));
        }
        assert_answer(&node, "proof", proof);
        assert_eq!(node["warning"], WARNING);
        let read =
            ask(json!({ "op": "proof_read", "proof": node["proof"], "static": node["static"] }));
        assert_eq!(read, json!({ "identity": node["identity"], "peer_id": node["peer_id"] }));
        let other = json!({ "op": "proof_read", "proof": node["proof"], "static": repeated(1) });
        assert_eq!(ask(other), json!({ "error": "bad_signature" }));
        let of_text = ask(json!({ "op": "peer_id", "peer_id": node["peer_id"] }));
        let of_key = ask(json!({ "op": "peer_id", "identity": node["identity"] }));
        assert_eq!(of_text, of_key);
        assert_eq!(of_text["identity"], node["identity"]);
    }
    assert_example("node-keys", &all);
    let rows = table("handshake-example");
    let row = rows.iter().find(|row| row[0] == "PeerId").unwrap();
    for (cell, seed) in row[1..].iter().zip([0xa0, 0xb0]) {
        assert_eq!(*cell, format!("`{}`", node(seed)["peer_id"].as_str().unwrap()));
    }
}

/// wire.md: W4-4, W4-47, W4-49, W4-50, W4-52, W4-53, W4-54, W4-55, W4-56.
#[test]
fn hellos_are_written_and_read() {
    let (a, b) = ends();
    for (mut end, seed, name) in [(a, 0xa0, "hello-a"), (b, 0xb0, "hello-b")] {
        for of_handshake in ["seed", "ephemeral"] {
            end.as_object_mut().unwrap().remove(of_handshake);
        }
        end["op"] = json!("hello");
        end["proof"] = node(seed)["proof"].clone();
        let written = ask(end.clone());
        assert_answer(&written, "hello", name);
        let mut read = ask(json!({ "op": "hello_read", "hello": written["hello"] }));
        assert_eq!(read["mtu"], end["mtu"]);
        assert_eq!(read["scheme"], "6114458100");
        // A parsed hello is written to the same bytes again, also with padding.
        read["op"] = json!("hello");
        assert_answer(&ask(read.clone()), "hello", name);
        read["bytes"] = json!(760);
        let padded = bytes_of(&ask(read)["hello"]);
        let hello = example(name);
        assert_eq!((padded.len(), &padded[..hello.len()]), (760, hello.as_slice()));
    }
    let ask_of = |one: &str, other: &str| {
        let hello = |name| hex_of(&example(name));
        ask(json!({ "op": "agree", "hello": hello(one), "other": hello(other) }))
    };
    let agreed = json!({ "version": 1, "suite": 1, "seal": "full", "widths": 1, "mtu": 1400 });
    assert_eq!(ask_of("hello-a", "hello-b"), agreed);
    assert_eq!(ask_of("hello-b", "hello-a"), agreed);
    assert_eq!(ask_of("hello-b", "hello-b")["seal"], "header_only");
    let cut = hex_of(&example("hello-a")[..100]);
    assert_eq!(ask(json!({ "op": "hello_read", "hello": cut })), json!({ "error": "hello_cut" }));
}

/// wire.md: W4-32, W4-33, W4-38, W4-64, W4-65.
#[test]
fn ik_with_and_without_a_psk() {
    let (a, b) = ends();
    let mut request = json!({ "op": "ik", "network": "example", "initiator": a, "responder": b });
    let done = ask(request.clone());
    assert_answer(&done, "initiation", "ik-initiation");
    assert_answer(&done, "response", "ik-response");
    assert_answer(&done, "transcript", "ik-transcript");
    assert_example("ik-keys", &keys_of(&done));
    assert_eq!(done["agreement"]["mtu"], 1400);
    assert_eq!(done["warning"], WARNING);

    request["psk"] = json!(repeated(3));
    let with_psk = ask(request.clone());
    assert_eq!(with_psk["initiation"], done["initiation"]);
    assert_answer(&with_psk, "response", "ik-psk-response");
    let transcript = bytes_of(&with_psk["transcript"]);
    assert_example("ik-psk-keys", &[transcript, keys_of(&with_psk)].concat());

    request["network"] = json!("other");
    assert_ne!(ask(request)["transcript"], with_psk["transcript"]);
}

/// wire.md: W4-17, W4-40, W4-41, W4-42, W4-73, W4-74, W4-75.
#[test]
fn macs_hints_and_cookies() {
    let (receiver, network) = (&node(0xb0)["static"], "example");
    for (label, parts, name) in [
        ("strowger mac1 key", vec![hex_of(network.as_bytes())], "mac1-key"),
        ("strowger cookie key", vec![hex_of(network.as_bytes())], "cookie-key"),
        ("strowger key hint key", vec![], "key-hint-key"),
    ] {
        let key = json!({ "op": "mac", "key": receiver, "label": label, "parts": parts });
        assert_answer(&ask(key), "mac", name);
    }
    let first = example("ik-initiation");
    let (covered, mac1) = (&first[..864], &first[864..880]);
    let mac = json!({
        "op": "mac1", "receiver": receiver, "network": network, "message": hex_of(covered),
    });
    assert_eq!(bytes_of(&ask(mac)["mac1"]), mac1);
    let ephemeral = static_of(&repeated(0xa1));
    assert_eq!(bytes_of(&ephemeral), first[8..40]);
    let hint = ask(json!({
        "op": "key_hint", "receiver": receiver, "ephemeral_public": ephemeral,
    }));
    assert_eq!(bytes_of(&hint["hint"]), first[1..4]);

    let reply = ask(json!({
        "op": "cookie_reply", "seed": repeated(0xb0), "network": network, "secret": repeated(0xc1),
        "source": SOURCE, "message": hex_of(&first),
    }));
    assert_answer(&reply, "reply", "cookie-reply");
    let cookie = ask(json!({
        "op": "cookie_reply_read", "receiver": receiver, "network": network,
        "message": hex_of(&first), "reply": reply["reply"],
    }));
    assert_answer(&cookie, "cookie", "cookie");
    let mac2 = ask(json!({
        "op": "mac2", "cookie": cookie["cookie"], "message": hex_of(&first[..880]),
    }));
    assert_answer(&mac2, "mac2", "ik-mac2");
    let (a, b) = ends();
    let with_cookie = ask(json!({
        "op": "ik", "network": network, "initiator": a, "responder": b, "cookie": cookie["cookie"],
    }));
    let initiation = bytes_of(&with_cookie["initiation"]);
    assert_example("ik-mac2", &initiation[880..]);
    assert_eq!(initiation[..880], first[..880]);
    let under_load = ask(json!({
        "op": "cookie_reply", "seed": repeated(0xb0), "network": network, "secret": repeated(0xc1),
        "source": SOURCE, "message": hex_of(&initiation),
    }));
    assert_eq!(under_load, json!({ "error": "has_cookie" }));
}

/// wire.md: W4-34, W4-36, W4-37, W4-38, W4-64.
#[test]
fn xx_with_a_given_key_and_with_a_secret() {
    let (a, mut b) = ends();
    let responder = example("xx-responder");
    let index = u32::from_be_bytes([0, responder[0], responder[1], responder[2]]);
    b["index"] = json!(index);
    b["ephemeral"] = json!(hex_of(&responder[3..]));
    let request =
        |b: &Value| json!({ "op": "xx", "network": "example", "initiator": a, "responder": b });
    let given = ask(request(&b));
    let b = b.as_object_mut().unwrap();
    b.remove("index");
    b.remove("ephemeral");
    b.insert("secret".to_owned(), json!(repeated(0xc1)));
    b.insert("source".to_owned(), json!(SOURCE));
    let derived = ask(request(&json!(b)));
    assert_eq!(given, derived);
    assert_eq!(given["responder_index"], json!(index));
    for (field, name) in [("first", "xx-1"), ("second", "xx-2"), ("third", "xx-3")] {
        assert_answer(&given, field, name);
    }
    assert_answer(&given, "transcript", "xx-transcript");
    assert_example("xx-keys", &keys_of(&given));
}

/// wire.md: W3-5, W3-6, W3-9, W3-21, W3-42, W4-65.
#[test]
fn packets_are_sealed_and_opened() {
    let direction = hex_of(&(0..32).collect::<Vec<u8>>());
    assert_example("lane-key-2", &lane_key(&json!(direction), 2));
    let inner = "10004000000000010000000000000413";
    let header_only = format!("{inner}{}", hex_of(&(0..84).collect::<Vec<u8>>()));
    let token = "0102030405060708";
    for (name, kind, counter, body) in [
        ("sealed-full", 4, 7, format!("{inner}68656c6c6f")),
        ("sealed-header-only", 5, (1_u64 << 32) + 7, header_only),
        ("keepalive-full", 4, 0, String::new()),
        ("keepalive-header-only", 5, 0, String::new()),
        ("path-challenge", 8, 8, format!("{token}{}", "00".repeat(32))),
        ("path-response", 9, 9, token.to_owned()),
    ] {
        let sealed = ask(json!({
            "op": "seal", "key": direction, "kind": kind, "lane": 2, "index": 0xab_cdef,
            "counter": counter, "body": body,
        }));
        assert_answer(&sealed, "packet", name);
        let opened = ask(json!({
            "op": "open", "key": direction, "packet": sealed["packet"], "edge": counter,
        }));
        let wanted = json!({
            "kind": kind, "lane": 2, "index": 0xab_cdef, "counter": counter, "body": body,
            "warning": WARNING,
        });
        assert_eq!(opened, wanted);
        let replayed = ask(json!({
            "op": "open", "key": direction, "packet": sealed["packet"], "edge": counter + 1,
        }));
        assert_eq!(replayed, json!({ "error": "replayed" }));
    }
    let plain = json!({
        "op": "seal", "key": direction, "kind": 6, "lane": 0, "index": 0, "counter": 0, "body": "",
    });
    assert_eq!(ask(plain), json!({ "error": "kind_not_sealed" }));
}

/// wire.md: W3-7, W3-8.
#[test]
fn counters_are_reconstructed() {
    for row in table("counters") {
        let seen = row[1].split(' ').filter_map(|seen| seen.parse().ok());
        let seen: Vec<u64> = seen.collect();
        let edge: u64 = row[0].parse().unwrap();
        let low = u32::from_str_radix(&row[2], 16).unwrap();
        let answer = ask(json!({ "op": "counter", "edge": edge, "low": low, "older": seen }));
        match row[3].parse::<u64>() {
            Ok(counter) => assert_eq!(answer, json!({ "counter": counter }), "{row:?}"),
            Err(_) => assert_eq!(answer, json!({ "error": row[3] }), "{row:?}"),
        }
    }
}

/// wire.md: W2-1, W2-3, W2-4, W2-5, W3-1.
#[test]
fn headers_are_written_and_read() {
    let label = |zeros: usize| format!("80{}a2", "00".repeat(zeros));
    for (bits, name) in
        [(64, "switch-header"), (128, "switch-header-128"), (256, "switch-header-256")]
    {
        let all = bits == 64;
        let fields = json!({
            "bits": bits, "label": label(bits / 8 - 2), "shift": 4, "hops": 64, "class": 0x2e,
            "flow": 0xbeef, "ecn": if all { 2 } else { 0 }, "e": all, "c": all, "t": all,
        });
        let mut request = fields.clone();
        request["op"] = json!("header");
        let written = ask(request);
        assert_answer(&written, "header", name);
        let packet = format!("{}0102", written["header"].as_str().unwrap());
        let mut read = ask(json!({ "op": "header_read", "packet": packet }));
        assert_eq!(read.as_object_mut().unwrap().remove("payload"), Some(json!("0102")));
        assert_eq!(read, fields);
    }
    let fields = json!({ "kind": 4, "lane": 2, "index": 0xab_cdef, "low": 7 });
    let mut request = fields.clone();
    request["op"] = json!("link_header");
    let header = ask(request);
    assert_eq!(header, json!({ "header": "42abcdef00000007" }));
    assert_eq!(ask(json!({ "op": "link_header_read", "packet": header["header"] })), fields);
    let unknown = ask(json!({ "op": "link_header_read", "packet": "a000000000000000" }));
    assert_eq!(unknown, json!({ "error": "bad_link_kind" }));
}

/// wire.md: W5-2, W5-80, W5-82, W5-83, W5-85, W5-86, W5-87, W5-88, W5-89.
#[test]
fn announcements_and_lookups_are_written_and_read() {
    let id = 0x0102_0304;
    let whole = |name| example(name);
    let announce = whole("control-announce");
    let certificate = hex_of(&announce[24..162]);
    let (nonce, tag) =
        (hex_of(&whole("control-find")[4..20]), hex_of(&whole("control-find")[20..36]));
    let identity = hex_of(&whole("node-keys")[..32]);
    let fields = [
        (
            "announce",
            "announce",
            json!({
                "id": id, "slot": 4, "seconds": 300, "stamp": 1_700_000_001_000_000_000_u64,
                "certificate": certificate, "signature": hex_of(&announce[162..]),
            }),
        ),
        ("announced", "announced", json!({ "id": id, "code": 0, "seconds": 300 })),
        ("announced-refused", "announced", json!({ "id": id, "code": 5, "seconds": 0 })),
        ("find", "find", json!({ "nonce": nonce, "tag": tag })),
        (
            "found",
            "found",
            json!({
                "nonce": nonce, "width": 4, "director": 9, "seconds": 299, "longest": 2048,
                "certificate": certificate,
            }),
        ),
        ("found-nothing", "found", json!({ "nonce": nonce, "width": 0 })),
        ("observed-request", "observed_request", json!({ "id": id })),
        ("observed-reply", "observed_reply", json!({ "id": id, "address": "192.0.2.1:4737" })),
        (
            "observed-reply-ipv6",
            "observed_reply",
            json!({ "id": id, "address": "[2001:db8::1]:4737" }),
        ),
        ("resolve", "resolve", json!({ "id": id, "identity": identity })),
        (
            "resolve-address",
            "resolve",
            json!({ "id": id, "address": "fd53:c901:5ab3:8afc:b7d:23a5:f83e:1db3" }),
        ),
        (
            "resolved",
            "resolved",
            json!({
                "id": id, "identity": identity, "certificate": certificate,
                "labels": [
                    { "label": "0000.0000.0000.0019", "cost": 0, "longest": 2048, "seconds": 299 },
                    {
                        "label": "0000.0000.0000.0001.0000.0000.0000.0ab2",
                        "cost": 1000, "longest": 0, "seconds": 0,
                    },
                ],
            }),
        ),
        (
            "resolved-nothing",
            "resolved",
            json!({ "id": id, "identity": hex_of(&[0; 32]), "labels": [] }),
        ),
    ];
    for (name, kind, mut fields) in fields {
        fields["kind"] = json!(kind);
        let mut request = fields.clone();
        request["op"] = json!("message");
        let written = ask(request);
        assert_answer(&written, "message", &format!("control-{name}"));
        let read = ask(json!({ "op": "message_read", "message": written["message"] }));
        assert_eq!(read, fields);
    }
}

/// wire.md: W5-2.
#[test]
fn control_messages_are_written_and_read() {
    let (id, payload) = (0x0102_0304, hex_of(b"strowger"));
    let offending = "1000400000040304800000000000001b";
    let beacon = node(7);
    let reply = json!({
        "id": id, "slot_in": 2, "egress": 1, "slot_out": 9, "held_ns": 1000,
        "worker_ns": 2_000_000_000_u64, "queued": 3, "longest": 1384, "code": 0,
    });
    let discard = json!({
        "id": id, "slot_in": 2, "egress": 0, "slot_out": null, "held_ns": 1000,
        "worker_ns": 2_000_000_000_u64, "queued": 0, "longest": 0, "code": 3,
    });
    let identity = json!({ "id": id, "identity": beacon["identity"], "static": beacon["static"] });
    let goodbye = json!({ "code": 1, "retry_after_s": 0, "text": "the relay stops" });
    for (name, kind, mut fields) in [
        ("control-ping", "ping", json!({ "id": id, "payload": payload })),
        ("control-pong", "pong", json!({ "id": id, "payload": payload })),
        ("control-trace-request", "trace_request", json!({ "id": id })),
        ("control-trace-reply", "trace_reply", reply),
        ("control-trace-reply-discard", "trace_reply", discard),
        ("control-identity-request", "identity_request", json!({ "id": id })),
        ("control-identity-reply", "identity_reply", identity),
        ("control-error", "error", json!({ "code": 4, "offending": offending })),
        ("control-too-big", "too_big", json!({ "longest": 1384, "offending": offending })),
        (
            "control-slot-moved",
            "slot_moved",
            json!({ "former": 5, "new": 9, "offending": offending }),
        ),
        ("control-slot-gone", "slot_gone", json!({ "former": 5, "offending": offending })),
        ("control-congestion", "congestion", json!({ "offending": offending })),
        ("control-goodbye", "goodbye", goodbye),
    ] {
        fields["kind"] = json!(kind);
        let mut request = fields.clone();
        request["op"] = json!("message");
        let written = ask(request);
        assert_answer(&written, "message", name);
        let read = ask(json!({ "op": "message_read", "message": written["message"] }));
        assert_eq!(read, fields);
    }
    let no_header = json!({ "op": "message", "kind": "congestion", "offending": "13" });
    assert_eq!(ask(no_header), json!({ "error": "bad_message_field" }));
    let long =
        json!({ "op": "message", "kind": "goodbye", "retry_after_s": 0, "text": "x".repeat(129) });
    assert_eq!(ask(long), json!({ "error": "too_long" }));
}

/// wire.md: W10-1, W10-2, W10-3, W10-4.
#[test]
fn beacons_are_written_and_read() {
    let beacon = ask(json!({ "op": "beacon", "seed": repeated(7), "network": "home" }));
    assert_answer(&beacon, "beacon", "beacon");
    let read = |network: &str| {
        ask(json!({ "op": "beacon_read", "beacon": beacon["beacon"], "network": network }))
    };
    let node = node(7);
    let wanted = json!({
        "static": node["static"], "identity": node["identity"], "peer_id": node["peer_id"],
    });
    assert_eq!(read("home"), wanted);
    assert_eq!(read("away"), json!({ "error": "wrong_mac" }));
    let private = "eeaa39eb8e97c81ad41184258d237e35c66dc0d6f03fc43094a993d5bf929ac9";
    assert_eq!(node["static_private"], private);
}

/// The ends of the examples in wire.md 6.3.
fn ends_of_connections() -> (Value, Value) {
    let table = "00072f6563686f2f31"; // `/echo/1`, without flags
    let a = json!({
        "seed": repeated(0xa0), "ephemeral": repeated(0xa1), "index": 0x0a_0b0c,
        "timestamp": 1_700_000_000_000_000_000_u64, "widths": 7, "lanes": 2, "mtu": 1424,
        "protocols": table, "fields": "0100080102030405060708050002012c",
    });
    let b = json!({
        "seed": repeated(0xb0), "ephemeral": repeated(0xb1), "index": 0x1a_2b3c,
        "seal": 1, "mtu": 1400, "protocols": table, "fields": "0100080000000000000000",
    });
    (a, b)
}

/// The keys of both directions, and those of the lanes in use.
fn keys_of_connection(answer: &Value) -> Vec<u8> {
    let lane_key = |direction: &Value, lane: u8| {
        let op =
            json!({ "op": "lane_key", "key": direction, "lane": lane, "domain": "connection" });
        bytes_of(&ask(op)["lane_key"])
    };
    let keys = &answer["keys"];
    let directions = [bytes_of(&keys[0]), bytes_of(&keys[1])].concat();
    [directions, lane_key(&keys[0], 0), lane_key(&keys[0], 1), lane_key(&keys[1], 0)].concat()
}

/// wire.md: W6-10, W6-16, W6-17, W6-22, W6-27.
#[test]
fn a_connection_by_static_key() {
    let (a, b) = ends_of_connections();
    let answer = ask(json!({
        "op": "ik", "domain": "connection", "network": "example", "initiator": a, "responder": b,
    }));
    assert_answer(&answer, "initiation", "connection-ik-initiation");
    assert_answer(&answer, "response", "connection-ik-response");
    assert_answer(&answer, "transcript", "connection-ik-transcript");
    assert_example("connection-ik-keys", &keys_of_connection(&answer));
}

/// wire.md: W6-10, W6-17, W6-22, W6-23.
#[test]
fn a_connection_by_peer_id() {
    let (a, mut b) = ends_of_connections();
    let source = "00000003080000000000004321";
    for field in ["protocols", "fields", "ephemeral", "index"] {
        b.as_object_mut().unwrap().remove(field);
    }
    b["secret"] = json!(repeated(0xc1));
    b["source"] = json!(source);
    let answer = ask(json!({
        "op": "xx", "domain": "connection", "by_peer_id": true, "network": "example",
        "initiator": a, "responder": b,
    }));
    assert_answer(&answer, "first", "connection-xx-1");
    assert_answer(&answer, "second", "connection-xx-2");
    assert_answer(&answer, "third", "connection-xx-3");
    assert_answer(&answer, "transcript", "connection-xx-transcript");
    assert_example("connection-xx-keys", &keys_of_connection(&answer));
    let first = &answer["first"];
    let reply = ask(json!({
        "op": "cookie_reply", "domain": "connection", "network": "example",
        "seed": repeated(0xb0), "secret": repeated(0xc1), "source": source, "message": first,
    }));
    assert_answer(&reply, "reply", "connection-cookie-reply");
    let responder = &node(0xb0)["identity"];
    let read = ask(json!({
        "op": "cookie_reply_read", "domain": "connection", "network": "example",
        "receiver": responder, "message": first, "reply": reply["reply"],
    }));
    assert!(read["cookie"].is_string(), "{read}");
    let covered = &first.as_str().unwrap()[..2 * (896 - 32)];
    let mac1 = ask(json!({
        "op": "mac1", "domain": "connection", "network": "example",
        "receiver": responder, "message": covered,
    }));
    assert_eq!(bytes_of(&mac1["mac1"]), example("connection-xx-1")[864..880]);
    let of_a = ask(json!({
        "op": "identity", "domain": "connection", "seed": repeated(0xa0),
    }));
    assert_answer(&of_a, "proof", "connection-proof-a");
    let proof = json!({
        "op": "proof_read", "domain": "connection", "proof": of_a["proof"],
        "static": of_a["static"],
    });
    assert_eq!(ask(proof)["peer_id"], of_a["peer_id"]);
}

#[test]
fn an_identity_certificate() {
    let of_a = ask(json!({
        "op": "identity", "domain": "connection", "seed": repeated(0xa0),
    }));
    let made = ask(json!({
        "op": "certificate", "seed": repeated(0xa0), "role": 2, "key": of_a["static"],
        "stamp": 1_700_000_000_000_000_000_u64, "network": "example",
    }));
    assert_answer(&made, "certificate", "identity-certificate");
    let read = |role: u8, network: &str| {
        ask(json!({
            "op": "certificate_read", "certificate": made["certificate"], "role": role,
            "network": network,
        }))
    };
    let good = read(2, "example");
    assert_eq!((&good["key"], &good["peer_id"]), (&of_a["static"], &of_a["peer_id"]));
    assert_eq!(read(1, "example")["error"], "other_role");
    assert_eq!(read(4, "example")["error"], "bad_role");
    assert_eq!(read(2, "other")["error"], "bad_signature");
}
