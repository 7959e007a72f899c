//! Properties of addresses and address books: reading is total, printed values are read back, and
//! an edit changes one entry.

use bolero::check;
use strowger_routing::{
    AddressBook, PeerAddress,
    book::{self, BookEntry},
    limits::{ADDRESS_BYTES_MAX, ADDRESS_PRINTED_BYTES_MAX, ADDRESS_TEXT_BYTES_MAX},
};

/// Parts of addresses. Control characters in the input select them, so that random input contains
/// whole addresses.
const PARTS: [&str; 16] = [
    "/ip4/192.0.2.1/udp/4737/strowger",
    "/ip6/2001:db8::1/udp/1/cryptoauth",
    "/p2p/12D3KooWN1hpF14DNzraYWzE2HQH1zK7hNtYy7HALnB9s3gE79TY",
    "/ipfs/12D3KooWHP2Ve7tpkRQMJACbU4xmq9aDwL6gphLRHLJ3xB6nU5KA",
    "/switch/0000.4321.1234.4321",
    "/switch",
    "/chat/1",
    "/p2p",
    "/ipfs",
    "/beef.1",
    "/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
    "/0000.0000.0000.0000.0000.0000.0000.0015",
    "/udp",
    "/0",
    "/",
    ".",
];

/// Lines of address books.
const LINES: [&str; 16] = [
    "[[name]]\n",
    "name = \"a\"\n",
    "name = 'b' # c\n",
    "peer_id = \"12D3KooWN1hpF14DNzraYWzE2HQH1zK7hNtYy7HALnB9s3gE79TY\"\n",
    "peer_id=\"12D3KooWHP2Ve7tpkRQMJACbU4xmq9aDwL6gphLRHLJ3xB6nU5KA\"\r\n",
    "purposes = []\n",
    "purposes = [\"connect\", \"accept\"]\n",
    "labels = [\"15\", # near\n]\n",
    "labels = [\"17\"]",
    "addresses = [\"/ip4/192.0.2.1/udp/1/strowger\"]\n",
    "\n", // stands for itself
    "#[[name]]\n",
    "# a comment\n",
    "  ",
    "\"\"\"",
    "[name]\n",
];

/// The input as text. Bytes below 16 select the words.
fn text_of(input: &[u8], words: &[&str; 16]) -> String {
    let raw = String::from_utf8_lossy(input);
    let word = |char: char| words.get(char as usize).map(|word| (*word).to_owned());
    raw.chars().map(|char| word(char).unwrap_or_else(|| char.to_string())).collect()
}

/// Reads any text and any bytes as an address. An accepted address has one text and one binary
/// form, and each is converted to the other. A fault has a position in the input.
///
/// wire.md: W6-116, W6-117, W6-119.
#[test]
fn addresses_parse_totally_and_have_one_form() {
    fn both_forms(address: &PeerAddress) {
        let (text, bytes) = (address.to_string(), address.to_bytes());
        assert!(text.len() <= ADDRESS_PRINTED_BYTES_MAX && bytes.len() <= ADDRESS_BYTES_MAX);
        assert_eq!(text.parse().as_ref(), Ok(address), "{text}");
        assert_eq!(PeerAddress::from_bytes(&bytes).as_ref(), Ok(address), "{text}");
        assert_eq!(PeerAddress::new(address.parts().clone()).as_ref(), Ok(address));
    }
    check!().for_each(|input: &[u8]| {
        match PeerAddress::from_bytes(input) {
            Ok(address) => {
                assert_eq!(address.to_bytes(), input);
                both_forms(&address);
            }
            Err(error) => assert!(error.at <= input.len()),
        }
        let text = text_of(input, &PARTS);
        match text.parse::<PeerAddress>() {
            Ok(address) => {
                assert!(text.len() <= ADDRESS_TEXT_BYTES_MAX);
                both_forms(&address);
            }
            Err(error) => {
                assert!(error.at <= text.len() && text.is_char_boundary(error.at));
                assert!(!error.to_string().contains('\n'));
            }
        }
    });
}

/// Reads any text as an address book. An accepted book is printed and read back. Removing an entry
/// and adding it again changes no other entry; a text that cannot be edited is refused.
#[test]
fn address_books_parse_totally_and_edits_change_one_entry() {
    check!().for_each(|input: &[u8]| {
        let text = text_of(input, &LINES);
        let book = match AddressBook::parse(&text) {
            Ok(book) => book,
            Err(faults) => {
                let lines = 1 + text.matches('\n').count();
                assert!(!faults.all().is_empty());
                assert!(faults.all().iter().all(|fault| (1..=lines).contains(&fault.line)));
                assert!(faults.all().is_sorted());
                return;
            }
        };
        assert_eq!(AddressBook::parse(&book.to_string()).as_ref(), Ok(&book));
        let without = |entry: &BookEntry| -> Vec<BookEntry> {
            book.entries().iter().filter(|other| *other != entry).cloned().collect()
        };
        for entry in book.entries() {
            let Ok((rest, removed)) = book::remove(&text, &entry.name) else { continue };
            assert_eq!(&removed, entry);
            let left = AddressBook::parse(&rest).expect("checked by the edit");
            assert_eq!(left.entries(), without(entry));
            if let Ok(again) = book::add(&rest, entry) {
                assert!(again.starts_with(&*rest));
                let again = AddressBook::parse(&again).expect("checked by the edit");
                assert_eq!(again.entries().last(), Some(entry));
            }
            assert_eq!(book::replace(&text, entry).as_deref().unwrap_or(&text), text);
        }
    });
}
