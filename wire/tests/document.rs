//! Compares the examples and tables of docs/wire.md, sections 1, 2 and 5, with this crate.

// A table with an unexpected format fails the test, also outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

use strowger_testkit::wire_md::{assert_example, example, table};
use strowger_wire::{
    Hop, Label, Register, Scheme, Slot, U256,
    control::{
        AnnounceVerdict, Announcement, Behind, HopWord, Host, Message, Reason, Resolution,
        ResolveTarget, ResolvedLabel,
    },
    hex::Hex,
    label::{AnyLabel, Step, step},
    scheme::V3X5X8,
    switch_header::{AnyHeader, Ecn, Flags, HeaderRepr},
    with_header,
};

/// The text inside the backquotes of a cell.
fn code(cell: &str) -> &str {
    cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).unwrap()
}

fn named(name: &str) -> &'static Scheme {
    Scheme::named(name).unwrap()
}

/// The form that a pattern such as `nnn1` draws: its data bits, its prefix bits, its prefix.
fn drawn(pattern: &str) -> (u8, u8, u32) {
    let data = pattern.chars().take_while(|bit| *bit == 'n').count();
    let prefix = &pattern[data..];
    let value = if prefix.is_empty() { 0 } else { u32::from_str_radix(prefix, 2).unwrap() };
    (data as u8, prefix.len() as u8, value)
}

/// wire.md: W1.1-6, W1.1-7.
#[test]
fn the_named_schemes_are_those_of_the_table() {
    let rows = table("schemes");
    assert_eq!(rows.len(), 4);
    assert_eq!(Scheme::default().name(), Some("v3x5x8"));
    for row in rows {
        let scheme = named(code(&row[0]));
        let forms: Vec<_> =
            scheme.forms().iter().map(|f| (f.data_bits, f.prefix_bits, f.prefix)).collect();
        let patterns: Vec<_> = row[1].split(", ").map(|form| drawn(code(form))).collect();
        assert_eq!(forms, patterns, "{row:?}");
        let mut end = 0;
        for range in row[2].split("; ") {
            let (slots, width) = range.split_once(": ").unwrap();
            let (first, last) = slots.split_once("..").unwrap();
            assert_eq!(first.parse(), Ok(end), "{row:?}");
            end = last.parse::<u32>().unwrap() + 1;
            for slot in first.parse().unwrap()..end {
                let director = scheme.encode_least(Slot::new(slot)).unwrap();
                assert_eq!(Ok(director.width()), width.parse(), "slot {slot} in {row:?}");
            }
        }
        assert!(scheme.encode_least(Slot::new(end)).is_err());
        assert_eq!(Hex(scheme.serialize().as_bytes()).to_string(), code(&row[3]));
    }
    assert_example("scheme-v3x5x8", V3X5X8.serialize().as_bytes());
}

/// wire.md: W1.1-1, W1.1-3, W1.1-4, W1.1-5, W1.1-17, W1.1-18, W1.4-1.
#[test]
fn directors_are_those_of_the_table() {
    let columns = [
        ("f4", 4),
        ("f8", 8),
        ("v3x5x8", 4),
        ("v3x5x8", 7),
        ("v3x5x8", 10),
        ("v4x8", 5),
        ("v4x8", 9),
    ];
    let rows = table("directors");
    assert_eq!(rows.len(), 13);
    for row in rows {
        let slot: Slot = row[0].parse().unwrap();
        for ((name, width), cell) in columns.into_iter().zip(&row[1..]) {
            let director = named(name).encode(slot, width).ok().map(|director| director.bits());
            let wanted = (cell != "-").then(|| u64::from_str_radix(code(cell), 16).unwrap());
            assert_eq!(director, wanted, "slot {slot} in {width} bits of {name}");
            if let Some(bits) = director {
                assert_eq!(named(name).decode(bits).map(|read| read.slot()), Ok(slot));
            }
        }
    }
}

fn label(name: &str) -> Label {
    Label::new(u64::from_be_bytes(example(name).try_into().unwrap()))
}

/// wire.md: W1.2-1, W1.2-8, W1.2-9, W1.3-4, W1.4-6, W1.4-7.
#[test]
fn the_step_and_the_return_label_are_those_of_the_examples() {
    let slot = Slot::new;
    let before = label("label-step-before");
    let after = step(&V3X5X8, before, 4, slot(2), |_| true, false);
    let wanted = Step::Forward { to: slot(9), label: label("label-step-after"), shift: 11 };
    assert_eq!(after, Ok(wanted));
    let ingress = V3X5X8.encode_least(slot(2)).ok();
    let back = label("label-step-after").reverse(11, ingress);
    assert_eq!(back, Ok(label("label-return")));
    // The label of the same path, from slot 1 of a switch, is the forward part of the first one.
    let hop =
        |egress, ingress| Hop { scheme: &V3X5X8, egress: slot(egress), ingress: slot(ingress) };
    let built = Label::build(&[hop(9, 2), hop(1, 2)]);
    assert_eq!(built, Ok((before.forward(4), label("label-return"))));
}

fn emitted<R: Register>(repr: &HeaderRepr<R>) -> Vec<u8> {
    let mut bytes = vec![0xee; repr.wire_bytes()];
    assert!(repr.emit(&mut bytes).unwrap().is_empty());
    bytes
}

fn header<R: Register>(low: u64) -> HeaderRepr<R> {
    let label = R::ONE.shl(R::BITS - 1).or(R::from_low(low));
    HeaderRepr { class: 0x2e, flow: 0xbeef, ..HeaderRepr::new(Label::new(label), 4, 64) }
}

/// wire.md: W2-1, W2-2, W2-3, W2-4, W2-5, W2-7, W1.5-1.
#[test]
fn headers_are_those_of_the_examples() {
    let all = Flags { no_errors: true, control: true, telemetry: true };
    let flagged = HeaderRepr { flags: all, ecn: Ecn::Capable0, ..header::<u64>(0xa2) };
    assert_example("switch-header", &emitted(&flagged));
    assert_example("switch-header-128", &emitted(&header::<u128>(0xa2)));
    assert_example("switch-header-256", &emitted(&header::<U256>(0xa2)));
    for (flag, mask) in [
        (Flags { no_errors: true, ..Flags::default() }, 0x80),
        (Flags { control: true, ..Flags::default() }, 0x40),
        (Flags { telemetry: true, ..Flags::default() }, 0x20),
    ] {
        let one = HeaderRepr { flags: flag, ..header::<u64>(0xa2) };
        assert_eq!(emitted(&one)[1], mask);
    }
    for (ecn, bits) in [(Ecn::Capable1, 0x08), (Ecn::Capable0, 0x10), (Ecn::Congested, 0x18)] {
        assert_eq!(emitted(&HeaderRepr { ecn, ..header::<u64>(0xa2) })[1], bits);
    }
    for name in ["switch-header", "switch-header-128", "switch-header-256"] {
        let mut bytes = example(name);
        let again = with_header!(AnyHeader::parse(&mut bytes).unwrap(), header => {
            assert!(header.payload().is_empty());
            emitted(&header.to_repr())
        });
        assert_example(name, &again);
    }
}

/// Compares a message with its example, in both directions.
#[track_caller]
fn compare(name: &str, message: Message<'_>) {
    assert_example(name, &message.to_bytes());
    assert_eq!(Message::parse(&example(name)), Ok(message), "{name}");
}

const ID: u32 = 0x0102_0304;

/// wire.md: W5-1, W5-2, W5-19, W5-20, W5-21, W5-22, W5-23, W5-24, W5-25.
#[test]
fn requests_and_replies_are_those_of_the_examples() {
    let payload = b"strowger";
    compare("control-ping", Message::Ping { id: ID, payload });
    compare("control-pong", Message::Pong { id: ID, payload });
    compare("control-trace-request", Message::TraceRequest { id: ID });
    let hop = HopWord {
        slot_in: 2,
        slot_out: Some(9),
        behind: Behind::Neighbour,
        discard: None,
        held_ns: 1_000,
        worker_ns: 2_000_000_000,
        queue_frames: 3,
        packet_bytes_max: 1_384,
    };
    compare("control-trace-reply", Message::TraceReply { id: ID, hop });
    let discarded = HopWord {
        slot_out: None,
        behind: Behind::Nothing,
        discard: Some(Reason::NO_DIRECTOR),
        queue_frames: 0,
        packet_bytes_max: 0,
        ..hop
    };
    compare("control-trace-reply-discard", Message::TraceReply { id: ID, hop: discarded });
    for (number, behind) in [Behind::Nothing, Behind::Neighbour, Behind::Endpoint, Behind::Switch]
        .into_iter()
        .enumerate()
    {
        let bytes = Message::TraceReply { id: ID, hop: HopWord { behind, ..hop } }.to_bytes();
        assert_eq!(usize::from(bytes[12]), number);
    }
    compare("control-identity-request", Message::IdentityRequest { id: ID });
    let beacon = example("beacon");
    let key = |at: usize| beacon[at..at + 32].try_into().unwrap();
    let (link_key, identity) = (key(12), key(44));
    compare("control-identity-reply", Message::IdentityReply { id: ID, identity, link_key });
}

/// wire.md: W5-2, W5-26, W5-27, W5-28, W5-29, W5-30, W5-31.
#[test]
fn errors_and_goodbyes_are_those_of_the_examples() {
    let cause = example("error-cause");
    let offending = &cause[..16];
    compare("control-error", Message::Error { why: Reason::EMPTY_SLOT, offending });
    compare("control-too-big", Message::TooBig { packet_bytes_max: 1_384, offending });
    compare("control-slot-moved", Message::SlotMoved { from: 5, to: 9, offending });
    compare("control-slot-gone", Message::SlotGone { slot: 5, offending });
    compare("control-congestion", Message::Congestion { offending });
    let bye = Message::Goodbye { code: 1, retry_after_s: 0, text: "the relay stops" };
    compare("control-goodbye", bye);
}

/// wire.md: W5-2, W5-80, W5-82, W5-83, W5-85.
#[test]
fn announcements_and_finds_are_those_of_the_examples() {
    let (whole, certificate) = (example("control-announce"), example("identity-certificate"));
    let certificate = certificate.as_slice().try_into().unwrap();
    let announcement = Announcement {
        slot: 4,
        seconds: 300,
        stamp: 1_700_000_001_000_000_000,
        certificate,
        signature: whole[162..].try_into().unwrap(),
    };
    compare("control-announce", Message::Announce { id: ID, announcement });
    let (verdict, seconds) = (AnnounceVerdict::TAKEN, 300);
    compare("control-announced", Message::Announced { id: ID, verdict, seconds });
    let (verdict, seconds) = (AnnounceVerdict::STALE, 0);
    compare("control-announced-refused", Message::Announced { id: ID, verdict, seconds });
    let find = example("control-find");
    let (nonce, tag) = (find[4..20].try_into().unwrap(), find[20..36].try_into().unwrap());
    compare("control-find", Message::Find { nonce, tag });
    let host = Host { width: 4, director: 9, seconds: 299, mtu: 2_048, certificate };
    compare("control-found", Message::Found { nonce, host: Some(host) });
    compare("control-found-nothing", Message::Found { nonce, host: None });
}

/// wire.md: W5-2, W5-86, W5-87, W5-88, W5-89.
#[test]
fn observed_addresses_and_resolutions_are_those_of_the_examples() {
    compare("control-observed-request", Message::ObservedRequest { id: ID });
    for (name, address) in [
        ("control-observed-reply", "192.0.2.1:4737"),
        ("control-observed-reply-ipv6", "[2001:db8::1]:4737"),
    ] {
        compare(name, Message::ObservedReply { id: ID, address: address.parse().ok() });
    }
    let keys = example("node-keys");
    let identity: &[u8; 32] = keys[..32].try_into().unwrap();
    compare("control-resolve", Message::Resolve { id: ID, target: ResolveTarget::Peer(identity) });
    let address: std::net::Ipv6Addr = "fd53:c901:5ab3:8afc:b7d:23a5:f83e:1db3".parse().unwrap();
    let target = ResolveTarget::Address(&address.octets());
    compare("control-resolve-address", Message::Resolve { id: ID, target });
    let certificate = example("identity-certificate");
    let own = AnyLabel::W64(Label::new(0x19));
    let wide = AnyLabel::W128(Label::new(0x1_0000_0000_0000_0ab2));
    let resolution = Resolution {
        identity,
        certificate: Some(certificate.as_slice().try_into().unwrap()),
        labels: [
            Some(ResolvedLabel { label: own, cost: 0, mtu: 2_048, seconds: 299 }),
            Some(ResolvedLabel { label: wide, cost: 1_000, mtu: 0, seconds: 0 }),
            None,
            None,
        ],
    };
    compare("control-resolved", Message::Resolved { id: ID, resolution });
    let nothing = Resolution { identity: &[0; 32], certificate: None, labels: [None; 4] };
    compare("control-resolved-nothing", Message::Resolved { id: ID, resolution: nothing });
}

/// wire.md: W5-83, W5-85, W5-86, W5-87, W5-88, W5-89.
#[test]
fn paddings_of_lookups_may_have_any_value() {
    for (name, ignored) in [
        ("control-find", 36..173),
        ("control-found-nothing", 21..173),
        ("control-observed-request", 8..28),
        ("control-observed-reply", 16..28),
        ("control-observed-reply-ipv6", 9..10),
        ("control-resolve", 44..354),
        ("control-resolve", 9..12),
        ("control-resolve-address", 28..354),
        ("control-resolved", 198..222),
        ("control-resolved", 267..310),
    ] {
        let wanted = example(name);
        for place in ignored {
            let mut bytes = wanted.clone();
            bytes[place] ^= 0xff;
            assert_eq!(Message::parse(&bytes), Message::parse(&wanted), "byte {place} of {name}");
        }
    }
}

/// wire.md: W5-19, W5-20, W5-22, W5-24, W13-11.
#[test]
fn fields_that_are_ignored_may_have_any_value() {
    let ignores = |name: &str, at: std::ops::Range<usize>| {
        let wanted = example(name);
        for place in at {
            let mut bytes = wanted.clone();
            bytes[place] ^= 0xff;
            assert_eq!(Message::parse(&bytes), Message::parse(&wanted), "byte {place} of {name}");
        }
    };
    for name in ["ping", "pong", "trace-request", "identity-request", "identity-reply", "too-big"] {
        ignores(&format!("control-{name}"), 2..4);
    }
    for name in ["slot-moved", "slot-gone", "congestion"] {
        ignores(&format!("control-{name}"), 2..4);
    }
    for name in ["error", "goodbye", "trace-reply"] {
        ignores(&format!("control-{name}"), 3..4);
    }
    ignores("control-trace-request", 8..36);
    ignores("control-identity-request", 8..72);
}

/// wire.md: W1.1-19.
#[test]
fn of_two_forms_of_one_width_the_first_that_holds_the_slot_is_used() {
    use strowger_wire::scheme::Form;
    let scheme = Scheme::new(&[Form::new(2, 3, 0b100), Form::new(4, 1, 0b1)]).unwrap();
    for (slot, form) in [(0, 0), (2, 0), (3, 0), (4, 1), (15, 1)] {
        assert_eq!(scheme.encode(Slot::new(slot), 5).map(|d| d.form()), Ok(form), "slot {slot}");
    }
}
