//! Tests of the protocol tables.

use strowger_testkit::{Rng, wire_md};
use strowger_wire::connection::ControlItems;

use super::*;

fn name(text: &str) -> ProtocolName<'_> {
    ProtocolName::new(text.as_bytes()).expect("a name")
}

fn count(number: usize) -> EntryCount {
    EntryCount::new(number as u8).expect("at most 254")
}

fn number(number: u8) -> EntryNumber {
    EntryNumber::new(number).expect("1 to 254")
}

fn own(names: &[&str]) -> OwnTable {
    let mut table = OwnTable::new();
    for text in names {
        table.add(Nanos::ZERO, name(text), EntryFlags::NONE).expect("room");
    }
    table
}

/// The items of the packet that is due, as bytes.
fn packet(table: &mut OwnTable, now: Nanos, bytes_max: usize) -> Vec<Vec<u8>> {
    let Some(part) = table.poll_part(now, bytes_max) else { return Vec::new() };
    let mut items = Vec::new();
    for item in part.items() {
        let mut room = vec![0; bytes_max];
        let left = item.emit(&mut room).expect("it fits").len();
        room.truncate(bytes_max - left);
        items.push(room);
    }
    assert!(items.concat().len() <= bytes_max, "all of them fit one packet");
    items
}

/// Passes one item to a table; returns the acknowledgement.
fn deliver(
    table: &mut PeerTable,
    item: &[u8],
) -> (Result<PeerTableNews, PeerTableRefused>, EntryCount) {
    let item = ControlItems::new(item).iter().next().expect("an item");
    let Ok(ControlItem::Table { first, entries }) = item else { panic!("{item:?}") };
    let news = table.handle_item(first, entries);
    (news, table.count())
}

fn entries(bytes: &[u8]) -> TableEntries<'_> {
    TableEntries::parse(bytes).expect("well-formed entries")
}

/// wire.md: W6-68, W6-69.
#[test]
fn a_name_keeps_the_first_number_and_flags_that_it_got() {
    let mut table = own(&["/a", "/b", "/c"]);
    let again = table.add(Nanos::ZERO, name("/b"), EntryFlags::EARLY).expect("it is there");
    assert_eq!((again.on_wire().number(), again.index()), (2, 1));
    assert_eq!(table.count(), count(3));
    assert_eq!(table.entry(again), TableEntry { flags: EntryFlags::NONE, name: name("/b") });
    assert_eq!(table.number(number(3)).map(OwnNumber::index), Some(2));
    assert_eq!(table.number(number(4)), None, "no entry has this number");
    assert_eq!(table.number_of(name("/d")), None);
}

/// wire.md: W6-63, W6-71.
#[test]
fn the_state_is_that_of_the_document() {
    let mut table = OwnTable::new();
    for entry in entries(&wire_md::example("connection-table")).iter() {
        table.add(Nanos::ZERO, entry.name, entry.flags).expect("room");
    }
    assert_eq!(table.state().count, count(3));
    wire_md::assert_example("connection-table-hash", &table.state().digest);
}

/// wire.md: W6-33.
#[test]
fn a_table_holds_254_entries_and_8_kib() {
    let mut table = OwnTable::new();
    for number in 0..254 {
        table.add(Nanos::ZERO, name(&format!("/{number}")), EntryFlags::NONE).expect("room");
    }
    assert_eq!(table.add(Nanos::ZERO, name("/last"), EntryFlags::NONE), Err(OwnTableFull));
    assert!(table.add(Nanos::ZERO, name("/7"), EntryFlags::NONE).is_ok(), "a name that it has");
    let mut table = OwnTable::new();
    for number in 0..62 {
        table.add(Nanos::ZERO, name(&format!("/{number:0127}")), EntryFlags::NONE).expect("room");
    }
    table.add(Nanos::ZERO, name(&"/".repeat(126)), EntryFlags::NONE).expect("room");
    assert_eq!(table.entries().as_bytes().len(), 8_188);
    let long = table.add(Nanos::ZERO, name("/ab"), EntryFlags::NONE);
    assert_eq!(long, Err(OwnTableFull), "one byte too many");
    assert_eq!(table.add(Nanos::ZERO, name("//"), EntryFlags::NONE).map(OwnNumber::index), Ok(63));
    assert_eq!(table.count(), count(64));
}

/// wire.md: W6-154, W6-155.
#[test]
fn an_announcement_is_repeated_with_doubling_pauses_until_it_is_acknowledged() {
    let mut table = own(&["/a"]);
    assert_eq!(table.next_timeout(), None, "it is not announced yet");
    assert!(packet(&mut table, Nanos::ZERO, 100).is_empty());
    table.announce(Nanos::ZERO);
    let (mut now, mut pauses) = (Nanos::ZERO, Vec::new());
    for _ in 0..7 {
        assert_eq!(packet(&mut table, now, 100).len(), 2, "the entry and the end");
        let next = table.next_timeout().expect("not acknowledged");
        assert!(packet(&mut table, Nanos(next.0 - 1), 100).is_empty());
        pauses.push(next.since(now).0 / 1_000_000);
        now = next;
    }
    assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 8_000]);
    // After the eighth copy the table waits for a packet of the peer.
    assert_eq!(packet(&mut table, now, 100).len(), 2);
    assert_eq!(table.next_timeout(), None);
    assert!(packet(&mut table, now.plus(Nanos::from_secs(600)), 100).is_empty());
    table.note_opened();
    assert_eq!(table.next_timeout(), Some(now.plus(TABLE_RETRY_MAX)));
    assert_eq!(packet(&mut table, now.plus(TABLE_RETRY_MAX), 100).len(), 2);
    assert_eq!(table.handle_ack(now, count(1)), Ok(()));
    assert!(table.is_acknowledged() && table.next_timeout().is_none());
    assert!(packet(&mut table, now.plus(Nanos::from_secs(60)), 100).is_empty());
    // Growth begins with the short pause again.
    table.add(now, name("/b"), EntryFlags::NONE).expect("room");
    assert_eq!(table.next_timeout(), Some(now));
    assert_eq!(packet(&mut table, now, 100)[0], b"\x01\0\x05\x02\0\x02/b");
    assert_eq!(table.next_timeout(), Some(now.plus(TABLE_RETRY)));
}

/// wire.md: W6-80.
#[test]
fn an_empty_table_is_announced_and_acknowledged_too() {
    let mut table = OwnTable::new();
    table.announce(Nanos::ZERO);
    assert_eq!(packet(&mut table, Nanos::ZERO, 8), [b"\x01\0\x01\x01"]);
    assert!(!table.is_acknowledged() && table.next_timeout().is_some());
    assert_eq!(table.handle_ack(Nanos::ZERO, count(1)), Err(AckTooHigh));
    assert!(!table.is_acknowledged(), "it has no entry that can be acknowledged");
    assert_eq!(table.handle_ack(Nanos::ZERO, count(0)), Ok(()));
    assert!(table.is_acknowledged());
    let mut peer = PeerTable::new();
    assert!(!peer.is_complete());
    assert_eq!(deliver(&mut peer, b"\x01\0\x01\x01"), (Ok(PeerTableNews::Grown), count(0)));
    assert!(peer.is_complete());
}

/// wire.md: W6-155.
#[test]
fn a_full_table_has_no_end_item() {
    let mut table = OwnTable::new();
    for number in 0..254 {
        table.add(Nanos::ZERO, name(&format!("/{number}")), EntryFlags::NONE).expect("room");
    }
    table.announce(Nanos::ZERO);
    assert_eq!(packet(&mut table, Nanos::ZERO, 9_000).len(), 1);
    assert_eq!(table.handle_ack(Nanos::ZERO, count(254)), Ok(()));
    assert!(table.is_acknowledged());
}

/// wire.md: W6-156.
#[test]
fn an_older_acknowledgement_changes_nothing() {
    let mut table = own(&["/a", "/b", "/c"]);
    table.hello_entries(512);
    for (ack, acknowledged) in [(2, 2), (1, 2), (0, 2), (3, 3), (2, 3)] {
        assert_eq!(table.handle_ack(Nanos::ZERO, count(ack)), Ok(()));
        assert_eq!(table.acknowledged(), count(acknowledged), "after {ack}");
    }
    assert_eq!(table.handle_ack(Nanos::ZERO, count(4)), Err(AckTooHigh));
    assert!(table.is_acknowledged());
    table.forget_acknowledgement();
    assert!(!table.is_acknowledged() && table.next_timeout().is_none());
    assert_eq!(table.handle_ack(Nanos::ZERO, count(3)), Err(AckTooHigh));
    table.announce(Nanos::ZERO);
    assert_eq!(packet(&mut table, Nanos::ZERO, 100)[0][3], 1, "all of it again");
}

/// wire.md: W6-72.
#[test]
fn a_hello_has_as_many_first_entries_as_fit() {
    let mut table = own(&["/aaaa", "/bbbb", "/cccc"]);
    let all = own(&["/aaaa", "/bbbb", "/cccc"]);
    for (bytes_max, fit) in [(0, 0), (6, 0), (7, 1), (20, 2), (21, 3), (512, 3)] {
        let hello = table.hello_entries(bytes_max);
        assert_eq!(hello.count(), count(fit), "{bytes_max} bytes");
        assert!(hello.iter().eq(all.entries().iter().take(fit)));
    }
}

/// wire.md: W6-154, W6-155.
#[test]
fn a_long_table_is_sent_in_packets_that_fit() {
    let mut table = OwnTable::new();
    for number in 0..200 {
        table.add(Nanos::ZERO, name(&format!("/{number:030}")), EntryFlags::NONE).expect("room");
    }
    table.announce(Nanos::ZERO);
    let (mut peer, mut packets, mut now) = (PeerTable::new(), 0, Nanos::ZERO);
    while !table.is_acknowledged() {
        let items = packet(&mut table, now, 1_000);
        packets += 1;
        // The third packet is lost, and sent again after the pause.
        if packets == 3 {
            assert!(packet(&mut table, now, 1_000).is_empty());
            now = table.next_timeout().expect("it is repeated");
            continue;
        }
        for item in &items {
            let (news, ack) = deliver(&mut peer, item);
            assert_eq!(news, Ok(PeerTableNews::Grown));
            assert_eq!(table.handle_ack(now, ack), Ok(()));
        }
        let is_due = table.next_timeout() == Some(now);
        assert!(is_due || table.is_acknowledged(), "the next part goes at once");
    }
    assert_eq!((packets, now), (8, TABLE_RETRY));
    assert!(peer.is_complete() && peer.entries.all() == table.entries());
}

#[test]
fn an_item_that_does_not_fit_is_not_lost() {
    let mut table = own(&["/a-name-with-some-length"]);
    table.announce(Nanos::ZERO);
    assert_eq!(table.poll_part(Nanos::ZERO, 10), None);
    assert_eq!(table.poll_part(Nanos::ZERO, 0), None);
    assert_eq!(table.next_timeout(), Some(Nanos::ZERO), "it is still due");
    assert_eq!(packet(&mut table, Nanos(9), 100).len(), 2);
}

/// wire.md: W6-156.
#[test]
fn a_gap_stores_nothing() {
    let mut peer = PeerTable::new();
    assert_eq!(peer.handle_item(number(2), entries(b"\0\x02/b")), Ok(PeerTableNews::Gap));
    assert_eq!(peer.count(), count(0));
}

#[test]
fn an_entry_with_other_bytes_is_a_conflict_and_stores_nothing() {
    let stored = entries(b"\0\x02/a\0\x02/b");
    let mut table = PeerTable::new();
    assert_eq!(table.handle_item(number(1), stored), Ok(PeerTableNews::Grown));
    for (first, bytes) in [
        (1, &b"\0\x02/x"[..]),
        (2, b"\0\x02/x"),
        (2, b"\x01\x02/b"),
        (1, b"\0\x02/a\0\x03/bb\0\x02/c"),
        (2, b"\0\x02/a\0\x02/c"),
    ] {
        let refused = table.handle_item(number(first), entries(bytes));
        assert_eq!(refused, Err(PeerTableRefused::Conflict), "{first} {bytes:?}");
        assert_eq!(table.count(), count(2));
    }
    assert_eq!(table.handle_item(number(2), entries(b"\0\x02/b")), Ok(PeerTableNews::None));
    let more = entries(b"\0\x02/b\x03\x02/c");
    assert_eq!(table.handle_item(number(2), more), Ok(PeerTableNews::Grown));
    let third = table.number_of(name("/c")).expect("it was announced");
    assert_eq!((third.on_wire(), table.flags(third).bits()), (number(3), 3));
}

/// wire.md: W6-155.
#[test]
fn a_late_end_of_a_shorter_table_has_no_effect() {
    let mut table = PeerTable::new();
    table.handle_item(number(1), entries(b"\0\x02/a")).expect("new");
    assert_eq!(table.handle_item(number(1), TableEntries::EMPTY), Ok(PeerTableNews::None));
    assert!(!table.is_complete());
    assert_eq!(table.handle_item(number(3), TableEntries::EMPTY), Ok(PeerTableNews::Gap));
    assert_eq!(table.handle_item(number(2), TableEntries::EMPTY), Ok(PeerTableNews::Grown));
    assert!(table.is_complete());
    table.handle_item(number(2), entries(b"\0\x02/b")).expect("new");
    assert!(!table.is_complete(), "it has grown, and may grow further");
    table.reset();
    assert_eq!((table.count(), table.is_complete()), (EntryCount::ZERO, false));
}

/// wire.md: W6-70.
#[test]
fn a_table_that_would_be_too_long_is_refused_as_a_whole() {
    let mut bytes = Vec::new();
    for _ in 0..31 {
        bytes.extend_from_slice(b"\0\x80");
        bytes.extend_from_slice(&[b'/'; 128]);
    }
    let mut table = PeerTable::new();
    assert_eq!(table.handle_item(number(1), entries(&bytes)), Ok(PeerTableNews::Grown));
    assert_eq!(table.handle_item(number(32), entries(&bytes)), Ok(PeerTableNews::Grown));
    let refused = table.handle_item(number(63), entries(&bytes));
    assert_eq!(refused, Err(PeerTableRefused::TooLong));
    assert_eq!(table.count(), count(62));
}

/// wire.md: W6-63, W6-155.
#[test]
fn the_state_in_a_hello_is_compared_with_what_is_stored() {
    let mut own = own(&["/a", "/b"]);
    let early = own.state();
    let mut peer = PeerTable::new();
    // A part of the table: the state says that there is more.
    let part = entries(b"\0\x02/a");
    assert_eq!(peer.handle_hello(part, Some(own.state())), Ok(PeerTableNews::Grown));
    assert!(!peer.is_complete());
    assert_eq!(peer.handle_hello(own.entries(), Some(own.state())), Ok(PeerTableNews::Grown));
    assert!(peer.is_complete());
    own.add(Nanos::ZERO, name("/c"), EntryFlags::NONE).expect("room");
    peer.handle_item(number(1), own.entries()).expect("growth");
    // A hello from before the growth.
    assert_eq!(peer.handle_hello(part, Some(early)), Ok(PeerTableNews::None));
    let other = TableState { digest: [7; 8], ..own.state() };
    let refused = peer.handle_hello(TableEntries::EMPTY, Some(other));
    assert_eq!(refused, Err(PeerTableRefused::Conflict));
    let mut end = peer.handle_hello(TableEntries::EMPTY, Some(own.state()));
    assert_eq!((end, peer.is_complete()), (Ok(PeerTableNews::Grown), true));
    // The state comes before the entries.
    own.add(Nanos::ZERO, name("/d"), EntryFlags::NONE).expect("room");
    end = peer.handle_hello(TableEntries::EMPTY, Some(own.state()));
    assert_eq!((end, peer.is_complete()), (Ok(PeerTableNews::None), true));
    assert_eq!(peer.handle_item(number(4), entries(b"\0\x02/d")), Ok(PeerTableNews::Grown));
    assert!(peer.is_complete(), "it has all that the hello counts");
    assert_eq!(peer.handle_hello(TableEntries::EMPTY, None), Ok(PeerTableNews::None));
}

#[test]
fn the_first_of_our_names_that_the_peer_has_is_chosen() {
    let mut table = PeerTable::new();
    table.handle_item(number(1), entries(b"\0\x02/a\0\x02/b\0\x02/a")).expect("new");
    for (names, wanted) in
        [(&["/b", "/a"][..], Some((0, 2))), (&["/x", "/a", "/b"], Some((1, 1))), (&["/x"], None)]
    {
        let names = ProtocolNames::try_from(names).expect("names");
        let chosen = table.choose(&names);
        assert_eq!(chosen.map(|(index, peer)| (index, peer.on_wire().number())), wanted);
    }
}

/// R19: under any loss, repetition and reordering of items, a number means the receiver's name or
/// nothing, and both tables are equal in the end.
#[test]
fn r19_a_number_means_the_name_of_the_receiver_whatever_is_lost() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let (mut table, mut peer) = (OwnTable::new(), PeerTable::new());
        let (mut now, mut flight, mut acks) = (Nanos::ZERO, Vec::new(), Vec::new());
        let mut counts = (table.count(), peer.count());
        table.announce(now);
        for step in 0..400 {
            match rng.below(6) {
                0 if step < 300 => {
                    let text = format!("/{:01$}", rng.below(300), 1 + rng.below(60));
                    let _ = table.add(now, name(&text), EntryFlags::from_bits(rng.below(4) as u8));
                }
                1 => now = now.plus(Nanos::from_millis(rng.below(9_000) as u64)),
                2 => flight.extend(packet(&mut table, now, 140 + rng.below(400))),
                3 | 4 if !flight.is_empty() => {
                    let item = flight.swap_remove(rng.below(flight.len()));
                    if rng.one_in(4) {
                        flight.push(item.clone());
                    }
                    let (news, ack) = deliver(&mut peer, &item);
                    assert!(news.is_ok());
                    acks.push(ack);
                }
                _ if !acks.is_empty() => {
                    let ack = acks.swap_remove(rng.below(acks.len()));
                    assert_eq!(table.handle_ack(now, ack), Ok(()), "it was sent");
                }
                _ => {}
            }
            flight.truncate(20);
            acks.truncate(20);
            // The comparison takes most of the time, and tables change only by growing. All entries
            // are compared once more at the end.
            if counts != (table.count(), peer.count()) {
                counts = (table.count(), peer.count());
                for entry in table.entries() {
                    let Some(theirs) = peer.number_of(entry.name) else { continue };
                    let ours = table.number(theirs.on_wire()).expect("the receiver made it");
                    assert_eq!(table.entry(ours), entry);
                }
            }
            assert!(peer.count() <= table.count() && table.acknowledged() <= peer.count());
        }
        while !table.is_acknowledged() {
            table.note_opened();
            now = table.next_timeout().expect("it is repeated").max(now);
            for item in packet(&mut table, now, 600) {
                let (_, ack) = deliver(&mut peer, &item);
                assert_eq!(table.handle_ack(now, ack), Ok(()));
            }
        }
        assert!(peer.entries.all() == table.entries());
    }
}
