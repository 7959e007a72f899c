//! Compares the examples and tables of docs/wire.md, section 6, with this crate.

// A table with an unexpected format fails the test, also outside of `#[test]` functions.
#![allow(clippy::unwrap_used)]

use strowger_testkit::wire_md::{assert_example, example, table};
use strowger_wire::certificate::{CertificateError, CertificateFields, KeyRole};
use strowger_wire::connection::hello_field::HelloFieldError;
use strowger_wire::connection::item::{
    BadItem, ItemFault, LabelBytes, PathUse, ProtocolRef, UnsupportedCode,
};
use strowger_wire::connection::message::{PassThroughError, UnknownConnectionMalformed};
use strowger_wire::connection::table::TableError;
use strowger_wire::connection::{
    ConnectionHeader, ConnectionHeaderError, ConnectionId, ConnectionKind, ControlItem,
    ControlItems, EarlyMessage, EarlyResult, EntryCount, EntryFlags, EntryNumber, HelloFields,
    PassThrough, PathToken, ProtocolName, SealedBody, TableEntries, TableEntry, TableState,
    UnknownConnection,
};
use strowger_wire::limits::{
    CONNECTION_OVERHEAD_BYTES, ITEM_BODY_BYTES_MAX, TABLE_BYTES_MAX, TAG_BYTES,
};
use strowger_wire::link_header::{LINK_HEADER_BYTES, Lane, SessionIndex};
use strowger_wire::switch_header::HEADER_64_BYTES;

const ID: ConnectionId = ConnectionId([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
const LABEL: [u8; 8] = [0x80, 0, 0, 0, 0, 0, 0, 0xa2];

fn number(number: u8) -> EntryNumber {
    EntryNumber::new(number).unwrap()
}

fn count(number: u8) -> EntryCount {
    EntryCount::new(number).unwrap()
}

fn name(bytes: &str) -> ProtocolName<'_> {
    ProtocolName::new(bytes.as_bytes()).unwrap()
}

fn lane(number: u8) -> Lane {
    Lane::new(number).unwrap()
}

/// The text inside the backquotes of a cell.
fn code(cell: &str) -> &str {
    cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).unwrap()
}

#[test]
fn the_longest_messages_are_those_of_the_table() {
    let overhead = LINK_HEADER_BYTES + TAG_BYTES + HEADER_64_BYTES + CONNECTION_OVERHEAD_BYTES;
    assert_eq!(overhead, 65);
    let rows = table("message-lengths");
    assert_eq!(rows.len(), 3);
    for row in rows {
        let of_cell = |cell: &str| cell.split(' ').next().unwrap().parse::<usize>().unwrap();
        assert_eq!(of_cell(&row[0]) - of_cell(&row[1]) - overhead, of_cell(&row[2]), "{row:?}");
    }
}

/// wire.md: W6-1, W6-6, W6-7.
#[test]
fn kinds_are_those_of_the_table_and_no_others() {
    let rows = table("connection-kinds");
    let listed: Vec<u8> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    assert!(ConnectionKind::ALL.iter().map(|kind| *kind as u8).eq(listed.iter().copied()));
    for first in 0..=255 {
        let packet = [first, 0, 0, 1, 0, 0, 0, 0];
        let read = ConnectionHeader::parse(&packet).map(|header| header.kind as u8);
        if listed.contains(&(first >> 4)) {
            assert_eq!(read, Ok(first >> 4));
            assert!((0x10..=0x9f).contains(&first));
        } else {
            assert_eq!(read, Err(ConnectionHeaderError::BadKind));
        }
        for length in 0..8 {
            let read = ConnectionHeader::parse(&packet[..length]);
            assert_eq!(read, Err(ConnectionHeaderError::TooShort));
        }
    }
}

/// wire.md: W6-1, W6-37, W6-55, W6-57.
#[test]
fn sealed_packets_have_the_headers_and_lengths_of_the_examples() {
    for (name, kind, low, body) in [
        ("connection-message", ConnectionKind::SealedMessage, 7, 6),
        ("connection-confirmation", ConnectionKind::SealedMessage, 0, 0),
        ("connection-items", ConnectionKind::SealedMessage, 8, 9),
        ("connection-path-challenge", ConnectionKind::PathChallenge, 9, 8),
        ("connection-path-response", ConnectionKind::PathResponse, 10, 8),
    ] {
        let packet = example(name);
        let index = SessionIndex::new(0xabcdef).unwrap();
        let header = ConnectionHeader { kind, lane: lane(1), index, low };
        assert_eq!(ConnectionHeader::parse(&packet), Ok(header), "{name}");
        assert_eq!(header.to_bytes(), packet[..8]);
        assert_eq!(packet.len(), 8 + body + TAG_BYTES, "{name}");
        assert!(kind.is_sealed());
    }
}

/// wire.md: W6-3, W6-8, W6-9, W6-37.
#[test]
fn the_protocol_number_is_the_first_byte_of_a_sealed_body() {
    let message = SealedBody::Message { number: number(3), message: b"hello" };
    assert_eq!(SealedBody::parse(b"\x03hello"), Ok(message));
    assert_eq!(SealedBody::parse(b""), Ok(SealedBody::Empty));
    for first in 0..=255 {
        match SealedBody::parse(&[first]) {
            Ok(SealedBody::Items(items)) => assert!(first == 0 && items.as_bytes().is_empty()),
            Ok(SealedBody::Message { number, message }) => {
                assert!((1..=254).contains(&first) && number.number() == first);
                assert!(message.is_empty());
            }
            Ok(SealedBody::Empty) => panic!("{first} is a number"),
            Err(_) => assert_eq!(first, 255),
        }
    }
    let items: Vec<_> = ControlItems::new(&[2, 0, 1, 3, 6, 0, 1, 10]).iter().collect();
    let wanted = [ControlItem::TableAck { count: count(3) }, ControlItem::Stay { weight: 10 }];
    assert_eq!(items, wanted.map(Ok));
}

/// wire.md: W6-38, W6-39, W6-50, W6-51, W6-52.
#[test]
fn a_pass_through_message_is_that_of_the_example_and_others_are_discarded() {
    let packet = example("connection-pass-through");
    let index = SessionIndex::new(0xabcdef).unwrap();
    let wanted = PassThrough { lane: lane(1), index, number: number(2), message: &packet[9..] };
    assert_eq!(PassThrough::parse(&packet), Ok(wanted));
    assert_example("connection-pass-through", &[&wanted.prefix()[..], wanted.message].concat());
    let changed = |at: usize, value: u8| {
        let mut packet = packet.clone();
        packet[at] = value;
        PassThrough::parse(&packet).map(|read| read.number.number())
    };
    for value in 0..=255 {
        assert_eq!(changed(7, value), Ok(2), "the counter is ignored");
        let is_number = (1..=254).contains(&value);
        assert_eq!(changed(8, value).ok(), is_number.then_some(value));
        let is_short_header = value < 0x80;
        let wanted = if is_short_header { Ok(2) } else { Err(PassThroughError::LongHeader) };
        assert_eq!(changed(9, value), wanted);
    }
    assert_eq!(changed(8, 0), Err(PassThroughError::BadNumber));
    for length in 8..=9 {
        let read = PassThrough::parse(&packet[..length]);
        assert_eq!(read, Err(PassThroughError::TooShort));
    }
}

/// wire.md: W6-19, W6-53, W6-54.
#[test]
fn unknown_connection_is_that_of_the_example_and_never_answers_itself() {
    let message = example("connection-message");
    assert_eq!(UnknownConnection::answer_to(&message), None, "it has 30 bytes");
    let longer = [&message[..], &[0, 0]].concat();
    let answer = UnknownConnection::answer_to(&longer).unwrap();
    assert_example("connection-unknown", &answer.to_bytes());
    let packet = example("connection-unknown");
    assert_eq!(UnknownConnection::parse(&packet), Ok(answer));
    assert_eq!(answer.received(), ConnectionHeader::parse(&message).unwrap());
    for kind in 0..16 {
        let cause = [kind << 4; 100];
        let is_sealed = matches!(kind, 4 | 8 | 9);
        assert_eq!(UnknownConnection::answer_to(&cause).is_some(), is_sealed, "kind {kind}");
        assert_eq!(UnknownConnection::answer_to(&cause[..32]).is_some(), is_sealed);
        assert_eq!(UnknownConnection::answer_to(&cause[..31]), None);
    }
    let refused = Err(UnknownConnectionMalformed);
    assert_eq!(UnknownConnection::parse(&packet[..15]), refused);
    assert_eq!(UnknownConnection::parse(&[&packet[..], &[0]].concat()), refused);
    for at in 0..9 {
        let mut changed = packet.clone();
        changed[at] ^= 0x80;
        assert_eq!(UnknownConnection::parse(&changed), refused, "byte {at}");
    }
}

/// wire.md: W6-55, W6-56, W6-57.
#[test]
fn a_challenge_has_a_token_and_padding_and_a_response_only_the_token() {
    let body = [&[1, 2, 3, 4, 5, 6, 7, 8][..], &[9; 40]].concat();
    for length in 0..=body.len() {
        let token = PathToken([1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(PathToken::of_challenge(&body[..length]), (length >= 8).then_some(token));
        assert_eq!(PathToken::of_response(&body[..length]), (length == 8).then_some(token));
    }
}

fn hello_fields<'a>(digest: &[u8]) -> HelloFields<'a> {
    HelloFields {
        id: Some(ID),
        table: Some(TableState { count: count(3), digest: digest.try_into().unwrap() }),
        early: Some(EarlyMessage { name: name("/echo/1"), message: b"early" }),
        early_result: Some(EarlyResult::Refused),
        idle_s: Some(300),
    }
}

/// wire.md: W6-58, W6-61, W6-62, W6-63, W6-64, W6-65, W6-66.
#[test]
fn the_fields_of_a_hello_are_those_of_the_example() {
    let bytes = example("connection-hello-fields");
    let digest = example("connection-table-hash");
    let fields = hello_fields(&digest);
    assert_eq!(HelloFields::parse(&bytes), Ok(fields));
    let mut written = vec![0; fields.wire_bytes()];
    assert!(fields.emit(&mut written).unwrap().is_empty());
    assert_example("connection-hello-fields", &written);
    // The order of the fields does not matter.
    let ends = [0, 11, 23, 39, 43, 48];
    let parts = ends.windows(2).map(|ends| &bytes[ends[0]..ends[1]]);
    let turned: Vec<u8> = parts.rev().flatten().copied().collect();
    assert_eq!(HelloFields::parse(&turned), Ok(fields));
    for (result, number) in
        [(EarlyResult::Delivered, 0), (EarlyResult::UnknownProtocol, 1), (EarlyResult::Refused, 2)]
    {
        let bytes = [4, 0, 1, number];
        let read = HelloFields::parse(&bytes).map(|read| read.early_result);
        assert_eq!(read, Ok(Some(result)));
    }
}

/// wire.md: W6-59, W6-60, W6-62, W6-63, W6-64, W6-65, W6-66.
#[test]
fn unknown_fields_are_skipped_and_malformed_ones_refused() {
    let bytes = example("connection-hello-unknown-field");
    let idle = HelloFields { idle_s: Some(300), ..HelloFields::default() };
    assert_eq!(HelloFields::parse(&bytes), Ok(idle));
    for number in (0..=255).filter(|number| !(1..=5).contains(number)) {
        let twice = [number, 0, 1, 9, number, 0, 0];
        assert_eq!(HelloFields::parse(&twice), Ok(HelloFields::default()), "type {number}");
    }
    let all = example("connection-hello-fields");
    let ends = [0, 11, 23, 39, 43, 48];
    for length in 0..all.len() {
        let read = HelloFields::parse(&all[..length]);
        let is_end = ends.contains(&length);
        assert_eq!(read.err(), (!is_end).then_some(HelloFieldError::Cut), "{length} bytes");
    }
    for ends in ends.windows(2) {
        let field = &all[ends[0]..ends[1]];
        let twice = [field, field].concat();
        assert_eq!(HelloFields::parse(&twice), Err(HelloFieldError::Twice));
        // A value with one byte less or more is refused. An early message may have any length that
        // holds its name.
        let value = match field[0] {
            3 => &field[3..11],
            _ => &field[3..],
        };
        let of_value = |value: &[u8]| {
            let bytes = [&[field[0], 0, value.len() as u8], value].concat();
            HelloFields::parse(&bytes).map(|_| ())
        };
        assert!(of_value(value).is_ok(), "type {}", field[0]);
        let shorter = of_value(&value[..value.len() - 1]);
        assert_eq!(shorter, Err(HelloFieldError::BadValue), "type {}", field[0]);
        let longer = of_value(&[value, &[0]].concat());
        assert_eq!(longer.is_ok(), field[0] == 3, "type {}", field[0]);
    }
    for bad in
        [&[4, 0, 1, 3][..], &[2, 0, 9, 255, 0, 0, 0, 0, 0, 0, 0, 0], &[3, 0, 3, 2, b'a', b'b']]
    {
        assert_eq!(HelloFields::parse(bad), Err(HelloFieldError::BadValue));
    }
}

fn table_of_example<'a>() -> [TableEntry<'a>; 3] {
    [
        TableEntry { flags: EntryFlags::EARLY, name: name("/echo/1") },
        TableEntry { flags: EntryFlags::PASS_THROUGH, name: name("/quic") },
        TableEntry { flags: EntryFlags::NONE, name: name("/voice/2") },
    ]
}

/// wire.md: W6-30, W6-67, W6-68, W6-69.
#[test]
fn a_protocol_table_is_that_of_the_example() {
    let bytes = example("connection-table");
    let table = TableEntries::parse(&bytes).unwrap();
    assert!(table.iter().eq(table_of_example()));
    let mut written = vec![0; bytes.len()];
    let mut left = &mut written[..];
    for entry in table_of_example() {
        left = entry.emit(left).unwrap();
    }
    assert!(left.is_empty());
    assert_example("connection-table", &written);
    for (at, entry) in (1..).zip(table_of_example()) {
        assert_eq!(table.find(entry.name), Some((number(at), entry)));
    }
    assert_eq!(table.find(name("/Echo/1")), None);
    let again = [&bytes[..], &bytes[..]].concat();
    let again = TableEntries::parse(&again).unwrap();
    assert_eq!(again.find(name("/quic")), Some((number(2), table_of_example()[1])));
    // Unknown flags are kept.
    let entry = TableEntries::parse(b"\xfe\x02/a").unwrap().iter().next().unwrap();
    assert_eq!(entry.flags.bits(), 0xfe);
    assert!(entry.flags.holds(EntryFlags::EARLY) && !entry.flags.holds(EntryFlags::PASS_THROUGH));
}

/// wire.md: W6-31, W6-33, W6-70.
#[test]
fn a_table_with_one_fault_has_no_entry() {
    let bytes = example("connection-table");
    for length in 0..bytes.len() {
        let wanted = [0, 9, 16].contains(&length);
        let read = TableEntries::parse(&bytes[..length]);
        assert_eq!(read.err(), (!wanted).then_some(TableError::Cut), "{length} bytes");
    }
    for (at, value) in [(2, b'e'), (3, b' '), (4, 0x7f), (5, 0x80), (18, b'v'), (25, 0)] {
        let mut changed = bytes.clone();
        changed[at] = value;
        assert_eq!(TableEntries::parse(&changed), Err(TableError::BadName), "byte {at}");
    }
    let entry = |length: usize| [&[0, length as u8][..], &vec![b'/'; length]].concat();
    assert_eq!(TableEntries::parse(&entry(1)), Err(TableError::BadName));
    assert!(TableEntries::parse(&entry(2)).is_ok() && TableEntries::parse(&entry(128)).is_ok());
    assert_eq!(TableEntries::parse(&entry(129)), Err(TableError::BadName));
    assert!(TableEntries::parse(&entry(2).repeat(254)).is_ok());
    assert_eq!(TableEntries::parse(&entry(2).repeat(255)), Err(TableError::TooMany));
    assert_eq!(entry(126).repeat(64).len(), TABLE_BYTES_MAX);
    assert!(TableEntries::parse(&entry(126).repeat(64)).is_ok());
    let long = [entry(127), entry(126).repeat(63)].concat();
    assert_eq!(TableEntries::parse(&long), Err(TableError::TooLong));
}

/// wire.md: W6-72.
#[test]
fn a_table_is_cut_between_two_entries() {
    let bytes = example("connection-table");
    let table = TableEntries::parse(&bytes).unwrap();
    for most in 0..=bytes.len() {
        let (front, rest) = table.split_at_bytes(most);
        let complete = [0, 9, 16, 26].into_iter().rfind(|end| *end <= most).unwrap();
        assert_eq!((front.as_bytes(), rest.as_bytes()), bytes.split_at(complete));
        assert_eq!(table.skip(front.count()), rest);
    }
}

/// The only item in these bytes.
#[track_caller]
fn item(bytes: &[u8]) -> Result<ControlItem<'_>, BadItem> {
    let mut items = ControlItems::new(bytes).iter();
    let item = items.next().expect("one item");
    assert_eq!(items.next(), None);
    item
}

fn emitted(item: &ControlItem<'_>) -> Vec<u8> {
    let mut bytes = vec![0xee; item.wire_bytes()];
    assert!(item.emit(&mut bytes).unwrap().is_empty());
    bytes
}

/// The item of each example. The table must be parsed first, because an item borrows it.
fn examples<'a>(entries: TableEntries<'a>) -> [(&'static str, ControlItem<'a>); 16] {
    [
        ("padding", ControlItem::Padding { bytes: 5 }),
        ("table", ControlItem::Table { first: number(2), entries }),
        (
            "table-empty",
            ControlItem::Table { first: EntryNumber::FIRST, entries: TableEntries::EMPTY },
        ),
        ("table-ack", ControlItem::TableAck { count: count(3) }),
        ("named", ControlItem::Named { name: name("/echo/1"), message: b"hello" }),
        (
            "unsupported-number",
            ControlItem::Unsupported {
                code: UnsupportedCode::UNKNOWN_PROTOCOL,
                protocol: ProtocolRef::Number(number(3)),
            },
        ),
        (
            "unsupported-name",
            ControlItem::Unsupported {
                code: UnsupportedCode::EARLY_REFUSED,
                protocol: ProtocolRef::Name(name("/echo/1")),
            },
        ),
        ("leaving", ControlItem::Leaving { seconds: 30, code: 2, text: "update" }),
        ("stay", ControlItem::Stay { weight: 10 }),
        (
            "goodbye",
            ControlItem::Goodbye {
                retry_after_s: 3_600,
                code: 5,
                protocol: Some(number(3)),
                text: "full",
            },
        ),
        ("goodbye-ack", ControlItem::GoodbyeAck { code: 5, protocol: Some(number(3)) }),
        ("identify", ControlItem::Identify),
        (
            "identify-answer",
            ControlItem::IdentifyAnswer {
                hops_left: 61,
                mtu: 1_400,
                label: LabelBytes::W64(&LABEL),
                agent: "strowger 0.1.0",
            },
        ),
        ("path", ControlItem::Path { lane: lane(1), state: PathUse::Standby }),
        (
            "receive-report",
            ControlItem::ReceiveReport {
                lane: lane(1),
                packets: 1_000,
                marked_ce: 3,
                newest: 1_007,
            },
        ),
        ("connection-id", ControlItem::ConnectionId(ID)),
    ]
}

/// wire.md: W6-73, W6-78, W6-79, W6-80, W6-81, W6-82, W6-84, W6-85, W6-86, W6-87, W6-88, W6-89,
/// W6-90, W6-91, W6-92, W6-93, W6-94, W6-95.
#[test]
fn control_items_are_those_of_the_examples() {
    let bytes = example("connection-table");
    let table = TableEntries::parse(&bytes).unwrap();
    let mut all = Vec::new();
    for (name, wanted) in examples(table.skip(count(1))) {
        let name = format!("item-{name}");
        assert_example(&name, &emitted(&wanted));
        assert_eq!(item(&example(&name)), Ok(wanted), "{name}");
        if !matches!(wanted, ControlItem::Named { .. }) {
            all.extend(example(&name));
        }
    }
    // One message contains all items except `named`.
    let read: Vec<_> = ControlItems::new(&all).iter().map(Result::unwrap).collect();
    let wanted = examples(table.skip(count(1))).map(|(_, item)| item);
    assert!(read.iter().eq(wanted.iter().filter(|item| item.op() != 3)));
}

/// The examples of items, which the check of the repository looks for by name.
const ITEM_EXAMPLES: [&str; 16] = [
    "item-padding",
    "item-table",
    "item-table-empty",
    "item-table-ack",
    "item-named",
    "item-unsupported-number",
    "item-unsupported-name",
    "item-leaving",
    "item-stay",
    "item-goodbye",
    "item-goodbye-ack",
    "item-identify",
    "item-identify-answer",
    "item-path",
    "item-receive-report",
    "item-connection-id",
];

/// wire.md: W6-75, W6-77, W6-96.
#[test]
fn bodies_have_the_lengths_of_the_table() {
    let rows = table("control-items");
    let ops: Vec<u8> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    for name in ITEM_EXAMPLES {
        let bytes = example(name);
        let at = ops.iter().position(|op| *op == bytes[0]).unwrap();
        let row = &rows[at];
        // The example of `unsupported-number` belongs to the row of `unsupported`.
        let word = code(&row[1]).replace('_', "-");
        assert!(name.strip_prefix("item-").unwrap().starts_with(&word), "{name}: {row:?}");
        let (least, most) = row[2].split_once(" to ").unwrap_or((&row[2], &row[2]));
        let (least, most): (usize, usize) = (least.parse().unwrap(), most.parse().unwrap());
        let body = bytes.len() - 3;
        assert!((least..=most).contains(&body), "{name}");
        // Every body below the least length is refused, and so is a body of one byte more than the
        // greatest.
        for length in 0..least {
            let short = [&[bytes[0], 0, length as u8], &bytes[3..3 + length]].concat();
            assert!(item(&short).is_err(), "{name}: {length} bytes");
        }
        let longer = [&bytes[3..], &vec![b'a'; most + 1 - body]].concat();
        let prefix = [bytes[0], (longer.len() >> 8) as u8, longer.len() as u8];
        let longer = [&prefix[..], &longer].concat();
        let read = item(&longer);
        assert!(read.is_err(), "{name}: {} bytes: {read:?}", longer.len() - 3);
    }
    let most = |op: u8| rows[ops.iter().position(|at| *at == op).unwrap()][2].clone();
    assert_eq!(most(0), format!("0 to {ITEM_BODY_BYTES_MAX}"));
    assert_eq!(most(1), format!("1 to {}", 1 + TABLE_BYTES_MAX));
}

/// wire.md: W6-75, W6-77, W6-96.
#[test]
fn texts_have_their_lengths_and_are_utf_8() {
    let long = "ä".repeat(65);
    let leaving = |text| ControlItem::Leaving { seconds: 1, code: 0, text };
    let goodbye = |text| ControlItem::Goodbye { retry_after_s: 0, code: 0, protocol: None, text };
    let answer = |agent| ControlItem::IdentifyAnswer {
        hops_left: 1,
        mtu: 1_400,
        label: LabelBytes::W256(&[7; 32]),
        agent,
    };
    let makers: [(&dyn Fn(&'static str) -> ControlItem<'static>, usize); 3] =
        [(&leaving, 128), (&goodbye, 128), (&answer, 32)];
    let long: &'static str = long.leak();
    for (make, most) in makers {
        let longest = make(&long[..most]);
        let bytes = emitted(&longest);
        assert_eq!(item(&bytes), Ok(longest));
        let mut room = vec![0; 256];
        assert!(make(&long[..most + 2]).emit(&mut room).is_err());
        // The last byte of the text becomes the beginning of a character.
        let mut broken = bytes.clone();
        *broken.last_mut().unwrap() = 0xc3;
        let why = item(&broken).unwrap_err();
        assert_eq!((why.op, why.fault), (longest.op(), ItemFault::BadField));
        // One byte more.
        let mut longer = [&bytes[..], b"a"].concat();
        longer[2] += 1;
        let why = item(&longer).unwrap_err();
        assert_eq!((why.op, why.fault), (longest.op(), ItemFault::TooLong));
    }
}

/// wire.md: W6-74, W6-75, W6-76.
#[test]
fn faults_of_items_do_not_hide_the_items_behind_them() {
    let bytes = example("items-with-faults");
    let read: Vec<_> = ControlItems::new(&bytes).iter().collect();
    let wanted = [
        Err(BadItem { op: 6, fault: ItemFault::TooShort }),
        Ok(ControlItem::Stay { weight: 7 }),
        Err(BadItem { op: 2, fault: ItemFault::Cut }),
    ];
    assert_eq!(read, wanted);
    let known: Vec<u8> = table("control-items").iter().map(|row| row[0].parse().unwrap()).collect();
    for op in (0..=255).filter(|op| !known.contains(op)) {
        let bytes = [op, 0, 2, 1, 2, 6, 0, 1, 7];
        assert_eq!(item(&bytes), Ok(ControlItem::Stay { weight: 7 }), "op {op}");
    }
    for name in ITEM_EXAMPLES {
        let bytes = example(name);
        for length in 1..bytes.len() {
            let why = item(&bytes[..length]).unwrap_err();
            assert_eq!(why, BadItem { op: bytes[0], fault: ItemFault::Cut }, "{name}: {length}");
        }
    }
}

/// The fault of an example whose byte at this offset has another value.
fn fault(name: &str, at: usize, value: u8) -> Option<ItemFault> {
    let mut bytes = example(name);
    bytes[at] = value;
    item(&bytes).err().map(|bad| bad.fault)
}

/// wire.md: W6-79, W6-80, W6-81, W6-84, W6-85, W6-88, W6-89, W6-90, W6-92, W6-93, W6-94.
#[test]
fn fields_of_items_are_refused_just_outside_of_their_values() {
    let accepted = |name: &str, at: usize| -> Vec<u8> {
        (0..=255).filter(|value| fault(name, at, *value).is_none()).collect()
    };
    let all = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
    // The item has two entries, so the first can have the number 253 at most.
    assert_eq!(accepted("item-table", 3), all(1, 253));
    assert_eq!(accepted("item-table-empty", 3), all(1, 254));
    assert_eq!(accepted("item-table-ack", 3), all(0, 254));
    assert_eq!(accepted("item-unsupported-number", 3), all(0, 255));
    assert_eq!(accepted("item-unsupported-number", 4), all(1, 254));
    assert_eq!(accepted("item-unsupported-name", 4), [b'/']);
    assert_eq!(accepted("item-leaving", 5), all(0, 255));
    assert_eq!(accepted("item-stay", 3), all(0, 255));
    assert_eq!(accepted("item-goodbye", 7), all(0, 255));
    assert_eq!(accepted("item-goodbye", 8), all(0, 254));
    assert_eq!(accepted("item-goodbye-ack", 3), all(0, 255));
    assert_eq!(accepted("item-goodbye-ack", 4), all(0, 254));
    assert_eq!(accepted("item-path", 3), all(0, 15));
    assert_eq!(accepted("item-path", 4), all(1, 3));
    assert_eq!(accepted("item-receive-report", 3), all(0, 15));
    for bad in [(1, ItemFault::TooShort), (2, ItemFault::TooShort), (3, ItemFault::BadField)] {
        // Label and agent have 22 bytes together, so the label can have 64 or 128 bits.
        let wanted = (bad.0 != 1).then_some(bad.1);
        assert_eq!(fault("item-identify-answer", 4, bad.0), wanted, "width {}", bad.0);
    }
    let whole = ControlItem::Goodbye { retry_after_s: 0, code: 1, protocol: None, text: "" };
    assert_eq!(emitted(&whole), [7, 0, 6, 0, 0, 0, 0, 1, 0]);
    assert_eq!(item(&emitted(&whole)), Ok(whole));
    for (state, number) in [(PathUse::Active, 1), (PathUse::Standby, 2), (PathUse::Abandoned, 3)] {
        assert_eq!(emitted(&ControlItem::Path { lane: lane(0), state })[4], number);
    }
    for (bytes, width) in [(8, 0), (16, 1), (32, 2)] {
        let label = vec![7; bytes];
        let label = LabelBytes::new(&label).unwrap();
        let answer = ControlItem::IdentifyAnswer { hops_left: 1, mtu: 1, label, agent: "" };
        let written = emitted(&answer);
        assert_eq!((written[4], written.len()), (width, 7 + bytes));
        assert_eq!(item(&written), Ok(answer));
    }
}

/// wire.md: W6-78, W6-91.
#[test]
fn bytes_without_a_meaning_are_sent_as_zeros_and_ignored() {
    for name in ["item-padding", "item-identify"] {
        let bytes = example(name);
        assert!(bytes[3..].iter().all(|byte| *byte == 0));
        let wanted = item(&bytes);
        for at in 3..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] = 0xff;
            assert_eq!(item(&changed), wanted);
        }
    }
}

/// wire.md: W6-82, W6-83.
#[test]
fn a_named_message_is_the_last_item() {
    let named = example("item-named");
    for behind in [&b"\x06"[..], b"\x06\0\x01\x07", &named] {
        let both = [&named[..], behind].concat();
        let first = ControlItems::new(&both).iter().next();
        assert_eq!(first, Some(Err(BadItem { op: 3, fault: ItemFault::NotLast })));
    }
    let before = [&example("item-stay")[..], &named].concat();
    assert!(ControlItems::new(&before).iter().all(|item| item.is_ok()));
    let empty = ControlItem::Named { name: name("/a"), message: b"" };
    assert_eq!(item(&emitted(&empty)), Ok(empty));
    let message = vec![0; ITEM_BODY_BYTES_MAX - 3];
    let longest = ControlItem::Named { name: name("/a"), message: &message };
    assert_eq!(item(&emitted(&longest)), Ok(longest));
    let message = vec![0; ITEM_BODY_BYTES_MAX - 2];
    let too_long = ControlItem::Named { name: name("/a"), message: &message };
    assert!(too_long.emit(&mut vec![0; 10_000]).is_err());
}

/// wire.md: W6-97.
#[test]
fn no_answer_is_longer_than_its_item() {
    let bytes = |item: ControlItem<'_>| emitted(&item).len();
    let table = ControlItem::Table { first: EntryNumber::FIRST, entries: TableEntries::EMPTY };
    assert!(bytes(ControlItem::TableAck { count: count(254) }) <= bytes(table));
    for name in ["/a", "/echo/1", &"/".repeat(128)] {
        let name = ProtocolName::new(name.as_bytes()).unwrap();
        let protocol = ProtocolRef::Name(name);
        let code = UnsupportedCode::UNKNOWN_PROTOCOL;
        let unsupported = bytes(ControlItem::Unsupported { code, protocol });
        assert!(unsupported <= bytes(ControlItem::Named { name, message: b"" }));
    }
    let goodbye = ControlItem::Goodbye { retry_after_s: 0, code: 0, protocol: None, text: "" };
    let ack = ControlItem::GoodbyeAck { code: 0, protocol: Some(number(254)) };
    assert!(bytes(ack) <= bytes(goodbye));
    let answer = ControlItem::IdentifyAnswer {
        hops_left: 0,
        mtu: 0,
        label: LabelBytes::W256(&[0; 32]),
        agent: &"a".repeat(32),
    };
    assert_eq!(bytes(answer), bytes(ControlItem::Identify));
}

/// wire.md: W6-98, W6-99, W6-100, W6-101.
#[test]
fn a_certificate_has_its_fields_at_their_offsets() {
    let bytes = example("certificate");
    let identity: [u8; 32] = example("node-keys")[96..128].try_into().unwrap();
    let (fields, signature) = CertificateFields::parse(&bytes).unwrap();
    let wanted = CertificateFields {
        role: KeyRole::Connection,
        flags: 0,
        stamp: 1_700_000_000_000_000_000,
        identity: &identity,
        key: bytes[42..74].try_into().unwrap(),
    };
    assert_eq!((fields, &signature[..]), (wanted, &bytes[74..]));
    assert_example("certificate", &wanted.emit(signature));
    for value in 0..=255 {
        let mut changed = bytes.clone();
        changed[0] = value;
        let read = CertificateFields::parse(&changed).map(|(fields, _)| fields.role as u8);
        let is_role = (1..=3).contains(&value);
        assert_eq!(read, if is_role { Ok(value) } else { Err(CertificateError::Role) });
        changed[0] = bytes[0];
        changed[1] = value;
        let read = CertificateFields::parse(&changed).map(|(fields, _)| fields.flags);
        assert_eq!(read, Ok(value), "the flags are signed, so they are kept");
    }
    for length in (0..bytes.len()).chain([bytes.len() + 1]) {
        let other: Vec<u8> = bytes.iter().copied().cycle().take(length).collect();
        assert_eq!(CertificateFields::parse(&other), Err(CertificateError::Length));
    }
}

/// wire.md: W6-102.
#[test]
fn the_signed_bytes_of_a_certificate_are_those_of_the_example() {
    let bytes = example("certificate");
    let (fields, _) = CertificateFields::parse(&bytes).unwrap();
    assert_example("certificate-signed", &fields.signed(b"example").unwrap());
    assert_ne!(fields.signed(b"exampl").unwrap()[..], fields.signed(b"example").unwrap()[..]);
}
