//! Properties of the formats of connections: parsing is total, encoding is its inverse, and an item
//! that does not fit is not written.

use bolero::check;
use strowger_wire::certificate::CertificateFields;
use strowger_wire::connection::item::{
    ItemFault, LabelBytes, PathUse, ProtocolRef, UnsupportedCode,
};
use strowger_wire::connection::{
    ConnectionHeader, ConnectionId, ConnectionKind, ControlItem, ControlItems, EntryCount,
    EntryNumber, HelloFields, PassThrough, PathToken, ProtocolName, SealedBody, TableEntries,
    UnknownConnection,
};
use strowger_wire::limits::{ITEM_BODY_BYTES_MAX, TABLE_BYTES_MAX, TABLE_ENTRIES_MAX};
use strowger_wire::link_header::Lane;

/// Reads any bytes as a connection packet. A header, a pass-through message and the answer to an
/// unknown index encode to the bytes that were read, except for the counter of a pass-through
/// message.
#[test]
fn connection_packets_parse_totally_and_encode_to_the_same_bytes() {
    check!().for_each(|packet: &[u8]| {
        let header = ConnectionHeader::parse(packet);
        if let Ok(header) = header {
            assert_eq!(header.to_bytes(), packet[..8]);
            assert!((0x10..=0x9f).contains(&packet[0]), "wire.md 6.1: {:#x}", packet[0]);
        }
        if let Ok(message) = PassThrough::parse(packet) {
            assert_eq!(header.map(|header| header.kind), Ok(ConnectionKind::PassThrough));
            assert!(message.message[0] < 0x80, "a long header passes through");
            let encoded = [&message.prefix()[..], message.message].concat();
            assert_eq!(PassThrough::parse(&encoded), Ok(message));
            assert_eq!((&encoded[..4], &encoded[8..]), (&packet[..4], &packet[8..]));
        }
        if let Ok(answer) = UnknownConnection::parse(packet) {
            assert_eq!(answer.to_bytes(), packet);
            assert_eq!(UnknownConnection::answer_to(packet), None, "an answer to an answer");
        }
        if let Some(answer) = UnknownConnection::answer_to(packet) {
            assert!(answer.to_bytes().len() < packet.len(), "the answer is not shorter");
            assert_eq!(UnknownConnection::parse(&answer.to_bytes()), Ok(answer));
        }
        if let Some(token) = PathToken::of_response(packet) {
            assert_eq!(PathToken::of_challenge(packet), Some(token));
        }
    });
}

/// Reads any bytes as the items of a message. Each accepted item can be encoded into a buffer of its
/// length, and into no shorter one. All accepted items, encoded one after another, are read back as
/// the same items.
#[test]
fn control_items_parse_totally_and_encode_to_the_same_items() {
    check!().for_each(|bytes: &[u8]| {
        let body = [&[0], bytes].concat();
        assert_eq!(SealedBody::parse(&body), Ok(SealedBody::Items(ControlItems::new(bytes))));
        let read: Vec<_> = ControlItems::new(bytes).iter().collect();
        assert!(read.len() <= bytes.len(), "more items than bytes");
        let mut written = Vec::new();
        let mut good = Vec::new();
        for (at, item) in read.iter().enumerate() {
            match item {
                Ok(item) => {
                    if let ControlItem::Named { .. } = item {
                        assert_eq!(at + 1, read.len(), "an item follows a named message");
                    }
                    written.extend(encoded(item).expect("it was read"));
                    good.push(Ok(*item));
                }
                Err(bad) => {
                    let is_end = bad.fault == ItemFault::Cut;
                    assert!(!is_end || at + 1 == read.len(), "an item behind the end");
                }
            }
        }
        assert!(written.len() <= bytes.len());
        assert!(ControlItems::new(&written).iter().eq(good));
    });
}

/// Makes an item of any op from arbitrary values. Either the item is read back unchanged, or one of
/// its fields is out of bounds and nothing is written.
#[test]
fn an_item_is_read_back_or_not_written() {
    type Seed = (u8, u8, u8, [u64; 3], Vec<u8>, usize);
    check!().with_type::<Seed>().for_each(|(op, a, b, numbers, bytes, repeat)| {
        let bytes = bytes.repeat(1 + repeat % 80);
        let text = String::from_utf8_lossy(&bytes);
        let name = [b"/", &bytes[..bytes.len().min(140)]].concat();
        let Some(item) = item(*op, *a, *b, *numbers, &bytes, &text, &name) else { return };
        match encoded(&item) {
            Some(written) => {
                let again: Vec<_> = ControlItems::new(&written).iter().collect();
                assert_eq!(again, [Ok(item)]);
            }
            None => assert!(is_out_of_bounds(&item), "{item:?}"),
        }
    });
}

/// The item of one op, if the values are valid for its fields.
fn item<'a>(
    op: u8,
    a: u8,
    b: u8,
    numbers: [u64; 3],
    bytes: &'a [u8],
    text: &'a str,
    name: &'a [u8],
) -> Option<ControlItem<'a>> {
    let [first, second, third] = numbers;
    Some(match op % 16 {
        0 => ControlItem::Padding { bytes: first as u16 },
        1 => {
            let entries = TableEntries::parse(bytes).unwrap_or_default();
            ControlItem::Table { first: EntryNumber::new(a)?, entries }
        }
        2 => ControlItem::TableAck { count: EntryCount::new(a)? },
        3 => ControlItem::Named { name: ProtocolName::new(name)?, message: bytes },
        4 if b < 128 => ControlItem::Unsupported {
            code: UnsupportedCode(a),
            protocol: ProtocolRef::Number(EntryNumber::new(b)?),
        },
        4 => ControlItem::Unsupported {
            code: UnsupportedCode(a),
            protocol: ProtocolRef::Name(ProtocolName::new(name)?),
        },
        5 => ControlItem::Leaving { seconds: first as u16, code: a, text },
        6 => ControlItem::Stay { weight: a },
        7 => ControlItem::Goodbye {
            retry_after_s: first as u32,
            code: a,
            protocol: EntryNumber::new(b),
            text,
        },
        8 => ControlItem::GoodbyeAck { code: a, protocol: EntryNumber::new(b) },
        9 => ControlItem::Identify,
        10 => ControlItem::IdentifyAnswer {
            hops_left: a,
            mtu: first as u16,
            label: LabelBytes::new(bytes.get(..[8, 16, 32][usize::from(b) % 3])?)?,
            agent: text,
        },
        13 => ControlItem::Path { lane: Lane::new(a % 16)?, state: PathUse::from_number(b % 4)? },
        14 => ControlItem::ReceiveReport {
            lane: Lane::new(a % 16)?,
            packets: first,
            marked_ce: second,
            newest: third,
        },
        15 => ControlItem::ConnectionId(ConnectionId(first.to_be_bytes())),
        _ => return None,
    })
}

fn is_out_of_bounds(item: &ControlItem<'_>) -> bool {
    match item {
        ControlItem::Padding { bytes } => usize::from(*bytes) > ITEM_BODY_BYTES_MAX,
        ControlItem::Named { name, message } => {
            1 + name.as_bytes().len() + message.len() > ITEM_BODY_BYTES_MAX
        }
        ControlItem::Table { first, entries } => {
            let last = usize::from(first.number()) + usize::from(entries.count().number());
            last > TABLE_ENTRIES_MAX + 1
        }
        ControlItem::Leaving { text, .. } | ControlItem::Goodbye { text, .. } => text.len() > 128,
        ControlItem::IdentifyAnswer { agent, .. } => agent.len() > 32,
        _ => false,
    }
}

/// Encodes an item, which must fit a buffer of exactly its length and no shorter one. `None` if the
/// item cannot be encoded; then the buffer must be unchanged.
fn encoded(item: &ControlItem<'_>) -> Option<Vec<u8>> {
    let mut room = vec![0xee; item.wire_bytes()];
    if item.emit(&mut room).is_err() {
        assert!(room.iter().all(|byte| *byte == 0xee), "a part was written");
        return None;
    }
    let mut short = vec![0xee; room.len() - 1];
    assert!(item.emit(&mut short).is_err() && short.iter().all(|byte| *byte == 0xee));
    Some(room)
}

/// Reads any bytes as a protocol table, as the fields of a hello, and as a certificate.
#[test]
fn tables_and_hello_fields_parse_totally_and_encode_to_the_same_values() {
    check!().for_each(|bytes: &[u8]| {
        if let Ok(table) = TableEntries::parse(bytes) {
            assert!(bytes.len() <= TABLE_BYTES_MAX);
            let mut written = vec![0; bytes.len()];
            let mut left = &mut written[..];
            for (entry, number) in table.into_iter().zip(1..) {
                left = entry.emit(left).expect("the entries have the length of the table");
                let (first, _) = table.find(entry.name).expect("it is there");
                assert!(first.number() <= number);
                let before = table.skip(EntryCount::new(number - 1).expect("at most 254"));
                assert_eq!(before.iter().next(), Some(entry));
            }
            assert!(left.is_empty());
            assert_eq!(written, bytes);
            for most in 0..=bytes.len() {
                let (front, rest) = table.split_at_bytes(most);
                assert!(front.as_bytes().len() <= most);
                assert_eq!([front.as_bytes(), rest.as_bytes()].concat(), bytes);
                assert_eq!(TableEntries::parse(front.as_bytes()), Ok(front));
                assert_eq!(TableEntries::parse(rest.as_bytes()), Ok(rest));
            }
        }
        if let Ok(fields) = HelloFields::parse(bytes) {
            let mut written = vec![0xee; fields.wire_bytes()];
            assert!(written.len() <= bytes.len());
            assert!(fields.emit(&mut written).is_ok_and(|left| left.is_empty()));
            assert_eq!(HelloFields::parse(&written), Ok(fields));
        }
        if let Ok((fields, signature)) = CertificateFields::parse(bytes) {
            assert_eq!(fields.emit(signature), bytes);
            let signed = fields.signed(b"home").expect("a short name");
            assert_eq!(signed[28..], bytes[..74]);
        }
    });
}
