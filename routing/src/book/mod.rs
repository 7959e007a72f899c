//! The address book: a TOML file with the names, PeerIds, labels and addresses of peers.
//!
//! ```toml
//! [[name]]
//! name = "alice"
//! peer_id = "12D3KooWN1hpF14DNzraYWzE2HQH1zK7hNtYy7HALnB9s3gE79TY"
//! purposes = ["connect", "accept"]    # default: ["connect"]
//! labels = ["0000.0000.0001.5315"]    # optional
//! addresses = ["/ip4/192.0.2.1/udp/4737/strowger"] # optional
//! ```
//!
//! [`AddressBook::parse`] reads such a text. [`add`], [`replace`] and [`remove`] change one entry
//! of the text and keep the text of the other entries.

mod edit;
mod reader;

use core::{fmt, str::FromStr};

use strowger_crypto::PeerId;
use strowger_wire::label::AnyLabel;

use crate::{address::PeerAddress, limits::BOOK_NAME_BYTES_MAX};

pub use edit::{EditError, add, remove, replace};
pub use reader::{parse_address, parse_label};

/// The entries of an address book, in the order of the file. Names and PeerIds are unique.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressBook {
    entries: Vec<BookEntry>,
}

impl AddressBook {
    /// Reads the text of an address book. Returns a book or at least one fault for every text.
    ///
    /// # Errors
    /// The faults, in the order of their lines. A text that is not TOML has only one.
    pub fn parse(text: &str) -> Result<AddressBook, BookFaults> {
        reader::read(text).map(|read| read.book)
    }

    /// The entries, in the order of the file.
    pub fn entries(&self) -> &[BookEntry] {
        &self.entries
    }

    /// The entry with this name.
    pub fn named(&self, name: &str) -> Option<&BookEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The entry of this peer.
    pub fn of_peer(&self, peer: &PeerId) -> Option<&BookEntry> {
        self.entries.iter().find(|entry| entry.peer_id == *peer)
    }
}

impl fmt::Display for AddressBook {
    /// The text of the book, without comments. [`AddressBook::parse`] reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, entry) in self.entries.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            entry.fmt(f)?;
        }
        Ok(())
    }
}

/// One entry of an address book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookEntry {
    /// The local name of the peer. It is unique in the book.
    pub name: String,
    /// The peer. It is unique in the book.
    pub peer_id: PeerId,
    /// The purposes of the entry.
    pub purposes: Purposes,
    /// Labels to the peer from this node's slot, best first.
    pub labels: Vec<AnyLabel>,
    /// Addresses of the peer, best first. Each names the peer and has an underlay or a label, and
    /// no protocol.
    pub addresses: Vec<PeerAddress>,
}

impl BookEntry {
    /// An entry with a name, a PeerId and the default purpose `connect`.
    ///
    /// # Errors
    /// [`BadName`] if the text cannot be a name.
    pub fn new(name: &str, peer_id: PeerId) -> Result<BookEntry, BadName> {
        check_name(name)?;
        Ok(BookEntry {
            name: name.to_owned(),
            peer_id,
            purposes: Purposes::default(),
            labels: Vec::new(),
            addresses: Vec::new(),
        })
    }
}

impl fmt::Display for BookEntry {
    /// The section of the entry in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[[name]]")?;
        for key in edit::KEYS {
            if let Some(value) = edit::value_of(self, key) {
                writeln!(f, "{key} = {value}")?;
            }
        }
        Ok(())
    }
}

/// The purposes of an entry of an address book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Purposes {
    /// Programs may look the peer up, and connect to it.
    pub connect: bool,
    /// The peer may connect to programs here that accept peers by this book.
    pub accept: bool,
}

impl Purposes {
    /// No purpose: the entry only gives a name to a PeerId.
    pub const NONE: Purposes = Purposes { connect: false, accept: false };

    /// All words, as in the file.
    pub const WORDS: [&str; 2] = ["connect", "accept"];

    /// The words of these purposes.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Purposes::WORDS.into_iter().filter(move |word| self.has(word))
    }

    fn has(self, word: &str) -> bool {
        match word {
            "connect" => self.connect,
            "accept" => self.accept,
            _ => false,
        }
    }

    /// Adds a purpose by its word.
    ///
    /// # Errors
    /// [`NoPurpose`] if there is no such purpose.
    pub fn add(&mut self, word: &str) -> Result<(), NoPurpose> {
        match word {
            "connect" => self.connect = true,
            "accept" => self.accept = true,
            _ => return Err(NoPurpose(word.to_owned())),
        }
        Ok(())
    }
}

impl Default for Purposes {
    /// The purpose `connect`. A peer may connect to programs here only if its entry has the purpose
    /// `accept`.
    fn default() -> Purposes {
        Purposes { connect: true, accept: false }
    }
}

impl FromStr for Purposes {
    type Err = NoPurpose;

    /// Reads words that are separated by commas. An empty text gives `Purposes::NONE`.
    fn from_str(text: &str) -> Result<Purposes, NoPurpose> {
        let mut purposes = Purposes::NONE;
        for word in text.split(',').filter(|word| !word.is_empty()) {
            purposes.add(word)?;
        }
        Ok(purposes)
    }
}

/// A word that is no purpose.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no purpose {0:?}: the purposes are \"connect\" and \"accept\"")]
pub struct NoPurpose(String);

/// A text that cannot be a name in an address book.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be a name: need 1 to {BOOK_NAME_BYTES_MAX} letters and digits of ASCII, `-`, `_` and `.`, \
     a letter or digit first, and no PeerId"
)]
pub struct BadName(String);

/// Checks whether a text can be a name.
///
/// # Errors
/// [`BadName`], which says what a name is.
pub fn check_name(name: &str) -> Result<(), BadName> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = (1..=BOOK_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(is_plain)
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.parse::<PeerId>().is_err();
    if is_name { Ok(()) } else { Err(BadName(name.to_owned())) }
}

/// The faults of an address book, at least one, in the order of their lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookFaults(Vec<BookFault>);

impl BookFaults {
    /// All faults.
    pub fn all(&self) -> &[BookFault] {
        &self.0
    }
}

impl fmt::Display for BookFaults {
    /// All faults in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, fault) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("; ")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl core::error::Error for BookFaults {}

/// One fault of an address book.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BookFault {
    /// The line, from 1.
    pub line: usize,
    /// A text that says what is wrong and what is needed.
    pub text: String,
}

impl fmt::Display for BookFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

#[cfg(test)]
mod tests;
