//! Reads the text of an address book, and finds all its faults with their lines.

use core::ops::Range;
use std::{collections::HashMap, net::SocketAddr};

use strowger_crypto::PeerId;
use strowger_wire::{Label, label::AnyLabel};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{AddressBook, BookEntry, BookFault, BookFaults, Purposes, check_name, edit::KEYS};
use crate::{
    address::PeerAddress,
    limits::{BOOK_BYTES_MAX, BOOK_ENTRIES_MAX, CANDIDATES_MAX},
};

/// A book, and the positions of its entries in the text.
pub(super) struct ReadBook {
    pub(super) book: AddressBook,
    pub(super) sections: Vec<SectionSpan>,
}

/// The position of an entry in the text, as byte offsets.
pub(super) struct SectionSpan {
    /// The start of the section's heading or table.
    pub(super) start: usize,
    /// For each key, in the order of [`KEYS`]: the positions of the key and its value, if the key
    /// is present.
    pub(super) keys: [Option<KeySpan>; KEYS.len()],
}

/// The positions of a key and its value in the text.
#[derive(Clone)]
pub(super) struct KeySpan {
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
}

/// Reads an address book.
pub(super) fn read(text: &str) -> Result<ReadBook, BookFaults> {
    if text.len() > BOOK_BYTES_MAX {
        let text =
            format!("an address book has at most {BOOK_BYTES_MAX} bytes, not {}", text.len());
        return Err(BookFaults(vec![BookFault { line: 1, text }]));
    }
    let mut reader = Reader { lines: Lines::of(text), faults: Vec::new() };
    let read = match DeTable::parse(text) {
        Ok(table) => reader.book(table.get_ref()),
        Err(error) => {
            let line = error.span().map_or(1, |span| reader.lines.at(&span));
            let text = format!("not TOML: {}", error.message().replace('\n', ", "));
            return Err(BookFaults(vec![BookFault { line, text }]));
        }
    };
    if reader.faults.is_empty() {
        return Ok(read);
    }
    reader.faults.sort();
    Err(BookFaults(reader.faults))
}

/// The offsets of the line breaks of a text.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Lines(ends.map(|(at, _)| at).collect())
    }

    /// The line of a span, from 1.
    fn at(&self, span: &Range<usize>) -> usize {
        1 + self.0.partition_point(|end| *end < span.start)
    }
}

struct Reader {
    lines: Lines,
    faults: Vec<BookFault>,
}

impl Reader {
    fn fault(&mut self, at: &Range<usize>, text: String) {
        self.faults.push(BookFault { line: self.lines.at(at), text });
    }

    fn book(&mut self, root: &DeTable<'_>) -> ReadBook {
        let mut read = ReadBook { book: AddressBook::default(), sections: Vec::new() };
        let mut sections = Vec::new();
        for (key, value) in root.iter() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("name", DeValue::Array(array)) => sections.extend(array.iter()),
                (name, _) => {
                    let text =
                        format!("unknown `{name}`: an address book has [[name]] sections alone");
                    self.fault(&key.span(), text);
                }
            }
        }
        if let Some(more) = sections.get(BOOK_ENTRIES_MAX) {
            let text = format!("an address book has at most {BOOK_ENTRIES_MAX} entries");
            self.fault(&more.span(), text);
            return read;
        }
        let mut names: HashMap<String, usize> = HashMap::new();
        let mut peers: HashMap<PeerId, usize> = HashMap::new();
        for section in sections {
            let DeValue::Table(table) = section.get_ref() else {
                self.fault(&section.span(), "`name` is a section: write [[name]]".to_owned());
                continue;
            };
            let Some((entry, keys)) = self.section(section, table) else { continue };
            let line = self.lines.at(&section.span());
            if let Some(first) = names.insert(entry.name.clone(), line) {
                let text = format!(
                    "the name \"{}\" is taken by the entry in line {first}; choose another",
                    entry.name
                );
                self.fault(&section.span(), text);
            }
            if let Some(first) = peers.insert(entry.peer_id, line) {
                let text = format!(
                    "{} has an entry already, in line {first}; join the two",
                    entry.peer_id
                );
                self.fault(&section.span(), text);
            }
            read.book.entries.push(entry);
            read.sections.push(SectionSpan { start: section.span().start, keys });
        }
        read
    }

    /// Reads one section. `None` if it has a fault.
    fn section(
        &mut self,
        section: &Spanned<DeValue<'_>>,
        table: &DeTable<'_>,
    ) -> Option<(BookEntry, [Option<KeySpan>; KEYS.len()])> {
        let before = self.faults.len();
        let mut spans = [const { None }; KEYS.len()];
        let mut values: [Option<&Spanned<DeValue<'_>>>; KEYS.len()] = [None; KEYS.len()];
        for (key, value) in table.iter() {
            let Some(place) = KEYS.iter().position(|known| *known == key.get_ref().as_ref()) else {
                let text = format!(
                    "unknown key `{}` in [[name]]; its keys are {}",
                    key.get_ref(),
                    KEYS.join(", ")
                );
                self.fault(&key.span(), text);
                continue;
            };
            spans[place] = Some(KeySpan { key: key.span(), value: value.span() });
            values[place] = Some(value);
        }
        let [name, peer_id, purposes, labels, addresses] = values;
        let name = self.name(section, name);
        let peer_id = self.peer_id(section, peer_id, name.as_deref().unwrap_or("?"));
        let purposes = purposes.map(|value| self.purposes(value));
        let labels = labels.map(|value| self.labels(value)).unwrap_or_default();
        let addresses = match (addresses, peer_id) {
            (Some(value), Some(peer_id)) => self.addresses(value, peer_id),
            _ => Vec::new(),
        };
        if labels.len() + addresses.len() > CANDIDATES_MAX {
            let text =
                format!("an entry has at most {CANDIDATES_MAX} labels and addresses together");
            self.fault(&section.span(), text);
        }
        if self.faults.len() > before {
            return None;
        }
        let purposes = purposes.unwrap_or_default();
        let entry = BookEntry { name: name?, peer_id: peer_id?, purposes, labels, addresses };
        Some((entry, spans))
    }

    fn name(
        &mut self,
        section: &Spanned<DeValue<'_>>,
        value: Option<&Spanned<DeValue<'_>>>,
    ) -> Option<String> {
        let Some(value) = value else {
            self.fault(&section.span(), "[[name]] needs the key `name`".to_owned());
            return None;
        };
        let name = self.text(value, "name")?;
        if let Err(error) = check_name(name) {
            self.fault(&value.span(), error.to_string());
            return None;
        }
        Some(name.to_owned())
    }

    fn peer_id(
        &mut self,
        section: &Spanned<DeValue<'_>>,
        value: Option<&Spanned<DeValue<'_>>>,
        name: &str,
    ) -> Option<PeerId> {
        let Some(value) = value else {
            self.fault(&section.span(), format!("[[name]] \"{name}\" needs the key `peer_id`"));
            return None;
        };
        let text = self.text(value, "peer_id")?;
        match format!("/p2p/{text}").parse::<PeerAddress>() {
            Ok(address) if !text.contains('/') => address.peer().ok(),
            Ok(_) => {
                self.fault(&value.span(), format!("peer_id: need a PeerId alone, not {text:?}"));
                None
            }
            Err(error) => {
                self.fault(&value.span(), format!("peer_id {text:?}: {}", error.fault));
                None
            }
        }
    }

    fn purposes(&mut self, value: &Spanned<DeValue<'_>>) -> Purposes {
        let mut purposes = Purposes::NONE;
        for (word, at) in self.texts(value, "purposes") {
            if let Err(error) = purposes.add(word) {
                self.fault(&at, error.to_string());
            }
        }
        purposes
    }

    fn labels(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<AnyLabel> {
        let mut labels = Vec::new();
        for (text, at) in self.texts(value, "labels") {
            match parse_label(text) {
                Ok(label) if labels.contains(&label) => {
                    self.fault(&at, format!("the label {text:?} is there twice"));
                }
                Ok(label) => labels.push(label),
                Err(error) => self.fault(&at, error),
            }
        }
        labels
    }

    fn addresses(&mut self, value: &Spanned<DeValue<'_>>, peer: PeerId) -> Vec<PeerAddress> {
        let mut addresses = Vec::new();
        for (text, at) in self.texts(value, "addresses") {
            match parse_address(text, peer) {
                Ok(address) if addresses.contains(&address) => {
                    self.fault(&at, format!("the address {text:?} is there twice"));
                }
                Ok(address) => addresses.push(address),
                Err(error) => self.fault(&at, error),
            }
        }
        addresses
    }

    fn text<'v>(&mut self, value: &'v Spanned<DeValue<'_>>, key: &str) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.fault(&value.span(), format!("{key} in [[name]] must be a string"));
        }
        text
    }

    fn texts<'v>(
        &mut self,
        value: &'v Spanned<DeValue<'_>>,
        key: &str,
    ) -> Vec<(&'v str, Range<usize>)> {
        let array = value.get_ref().as_array();
        let texts: Option<Vec<_>> = array.and_then(|array| {
            array.iter().map(|text| Some((text.get_ref().as_str()?, text.span()))).collect()
        });
        if texts.is_none() {
            self.fault(&value.span(), format!("{key} in [[name]] must be a list of strings"));
        }
        texts.unwrap_or_default()
    }
}

/// Reads a label. A label with at most 16 digits has 64 bits, and its leading zeros may be omitted.
///
/// # Errors
/// A text that says why this is not a label.
pub fn parse_label(text: &str) -> Result<AnyLabel, String> {
    if text.len() > 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!(
            "{text:?} is not a label of 64 bits: write wider labels as 8 or 16 groups with dots"
        ));
    }
    let label = match text.parse::<Label>() {
        Ok(label) => Ok(AnyLabel::W64(label)),
        Err(short) => {
            text.parse::<AnyLabel>().map_err(|error| if text.len() > 19 { error } else { short })
        }
    };
    match label {
        Ok(label) if label.is_zero() => Err(format!("{text:?}: a label of zeros names no path")),
        Ok(label) => Ok(label),
        Err(error) => Err(format!("{text:?} is not a label: {error}")),
    }
}

/// Reads an address of this peer. The PeerId may be omitted.
///
/// # Errors
/// A text that says why this is not an address of the peer in a book.
pub fn parse_address(text: &str, peer: PeerId) -> Result<PeerAddress, String> {
    let address: PeerAddress = text.parse().map_err(|error| {
        let form = match text.parse::<SocketAddr>() {
            Ok(SocketAddr::V4(at)) => format!("; as /ip4/{}/udp/{}/strowger", at.ip(), at.port()),
            Ok(SocketAddr::V6(at)) => format!("; as /ip6/{}/udp/{}/strowger", at.ip(), at.port()),
            Err(_) => String::new(),
        };
        format!("{text:?} is not an address: {error}{form}")
    })?;
    let mut parts = address.into_parts();
    if let Some(protocol) = &parts.protocol {
        return Err(format!("{text:?}: an address in the book has no protocol ({protocol})"));
    }
    if *parts.peer.get_or_insert(peer) != peer {
        return Err(format!("{text:?} is the address of another peer than {peer}"));
    }
    if parts.underlay.is_none() && parts.label.is_none() {
        return Err(format!("{text:?} says no more than peer_id: need an underlay or a label"));
    }
    if parts.underlay.is_some() && parts.label.is_some() && parts.link_peer.is_none() {
        return Err(format!(
            "{text:?}: who answers there? Need /p2p/ and the PeerId of that switch before /switch"
        ));
    }
    PeerAddress::new(parts).map_err(|error| format!("{text:?}: {error}"))
}
