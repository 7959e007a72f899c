//! Changes one entry in the text of an address book, and keeps the text of the other entries.

use strowger_crypto::PeerId;

use super::{
    AddressBook, BadName, BookEntry, BookFaults, Purposes, check_name,
    reader::{self, ReadBook, SectionSpan},
};

/// The keys of a `[[name]]` section, in the order in which they are written.
pub(super) const KEYS: [&str; 5] = ["name", "peer_id", "purposes", "labels", "addresses"];

/// The first line of a new book.
const HEADING: &str = "# Address book of Strowger. `strowger peer` edits it; comments stay.\n";

/// The value of a key in the file; `None` if the key is not written.
pub(super) fn value_of(entry: &BookEntry, key: &str) -> Option<String> {
    // Names, PeerIds, words, labels and addresses contain neither quotes nor backslashes.
    let quoted = |text: &str| format!("\"{text}\"");
    let list = |texts: Vec<String>| {
        let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
        format!("[{}]", texts.join(", "))
    };
    match key {
        "name" => Some(quoted(&entry.name)),
        "peer_id" => Some(quoted(&entry.peer_id.to_string())),
        "purposes" if entry.purposes == Purposes::default() => None,
        "purposes" => Some(list(entry.purposes.words().map(str::to_owned).collect())),
        "labels" if entry.labels.is_empty() => None,
        "labels" => Some(list(entry.labels.iter().map(ToString::to_string).collect())),
        "addresses" if entry.addresses.is_empty() => None,
        "addresses" => Some(list(entry.addresses.iter().map(ToString::to_string).collect())),
        _ => None,
    }
}

/// The reason why the text of an address book is not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The text is not a valid address book.
    #[error("{0}")]
    Faulty(BookFaults),
    /// The name of the entry is not a valid name.
    #[error("{0}")]
    Name(BadName),
    /// Another entry already has the name.
    #[error("the name \"{0}\" is taken, by the entry of {1}")]
    NameTaken(String, PeerId),
    /// Another entry already has the PeerId.
    #[error("{1} is in the book already, as \"{0}\"")]
    PeerTaken(String, PeerId),
    /// No entry has this name or PeerId.
    #[error("no entry \"{0}\" in the book")]
    Absent(String),
    /// The entry would not be valid.
    #[error("the entry cannot be written: {0}")]
    Entry(String),
    /// The file has a form in which an entry cannot be changed in place.
    #[error(
        "line {0}: this entry is not a plain [[name]] section, so it can only be changed by hand"
    )]
    Layout(usize),
}

/// Adds an entry at the end of the text.
///
/// # Errors
/// [`EditError`]; the name and the peer must not be in the book.
pub fn add(text: &str, entry: &BookEntry) -> Result<String, EditError> {
    let ReadBook { mut book, .. } = reader::read(text).map_err(EditError::Faulty)?;
    check_name(&entry.name).map_err(EditError::Name)?;
    if let Some(other) = book.named(&entry.name) {
        return Err(EditError::NameTaken(entry.name.clone(), other.peer_id));
    }
    if let Some(other) = book.of_peer(&entry.peer_id) {
        return Err(EditError::PeerTaken(other.name.clone(), entry.peer_id));
    }
    let ending = line_ending(text);
    let section = entry.to_string().replace('\n', ending);
    let text = match text {
        "" => format!("{HEADING}\n{section}"),
        text if text.ends_with('\n') => format!("{text}{ending}{section}"),
        text => format!("{text}{ending}{ending}{section}"),
    };
    book.entries.push(entry.clone());
    checked(text, &book, 1)
}

/// Replaces the entry that has the name or the peer of `entry`. Comments stay, except those inside
/// a value that changes.
///
/// # Errors
/// [`EditError`], for example if no entry has the name or the peer, or if one entry has the name
/// and another one has the peer.
pub fn replace(text: &str, entry: &BookEntry) -> Result<String, EditError> {
    let ReadBook { mut book, sections } = reader::read(text).map_err(EditError::Faulty)?;
    check_name(&entry.name).map_err(EditError::Name)?;
    let by_name = book.entries.iter().position(|other| other.name == entry.name);
    let by_peer = book.entries.iter().position(|other| other.peer_id == entry.peer_id);
    let place = match (by_name, by_peer) {
        (Some(name), Some(peer)) if name != peer => {
            let other = book.entries[peer].name.clone();
            return Err(EditError::PeerTaken(other, entry.peer_id));
        }
        (Some(place), _) | (None, Some(place)) => place,
        (None, None) => return Err(EditError::Absent(entry.name.clone())),
    };
    let section = &sections[place];
    let line = line_of(text, section.start);
    heading(text, section).ok_or(EditError::Layout(line))?;
    let old = std::mem::replace(&mut book.entries[place], entry.clone());

    // The changes are applied from the last to the first in the text, so that offsets stay valid.
    let mut changes = Vec::new();
    let mut absent = Vec::new();
    for (place, key) in KEYS.iter().enumerate() {
        let value = value_of(entry, key);
        match &section.keys[place] {
            _ if value == value_of(&old, key) => {}
            Some(span) => match value {
                Some(value) => changes.push((span.value.clone(), value)),
                None => {
                    changes.push((whole_line(text, span.key.start, span.value.end), String::new()))
                }
            },
            None => absent.extend(value.map(|value| format!("{key} = {value}"))),
        }
    }
    if !absent.is_empty() {
        let ending = line_ending(text);
        let last = section.keys.iter().flatten().map(|span| span.value.end).max();
        let at = end_of_line(text, last.unwrap_or(section.start));
        let is_ended = text[..at].ends_with('\n');
        let lines: String = absent.iter().map(|line| format!("{line}{ending}")).collect();
        changes.push((at..at, if is_ended { lines } else { format!("{ending}{lines}") }));
    }
    changes.sort_by_key(|(span, _)| (span.start, span.end));
    let mut text = text.to_owned();
    for (span, with) in changes.into_iter().rev() {
        text.replace_range(span, &with);
    }
    checked(text, &book, line)
}

/// Removes the entry with this name or PeerId, and the comments that belong to it. Returns the new
/// text and the removed entry.
///
/// # Errors
/// [`EditError`].
pub fn remove(text: &str, name_or_peer: &str) -> Result<(String, BookEntry), EditError> {
    let ReadBook { mut book, sections } = reader::read(text).map_err(EditError::Faulty)?;
    let is_wanted =
        |entry: &BookEntry| entry.name == name_or_peer || entry.peer_id.to_string() == name_or_peer;
    let place = book.entries.iter().position(is_wanted);
    let place = place.ok_or_else(|| EditError::Absent(name_or_peer.to_owned()))?;
    let section = &sections[place];
    let line = line_of(text, section.start);
    let heading = heading(text, section).ok_or(EditError::Layout(line))?;
    let start = with_comment_above(text, heading);
    let last = section.keys.iter().flatten().map(|span| span.value.end).max();
    let mut end = end_of_line(text, last.unwrap_or(section.start));
    // Comments directly after the section belong to it, unless the next section follows them
    // without an empty line.
    let after = skip_lines(text, end, |line| line.starts_with('#'));
    let leads_on = text[after..].trim_start_matches([' ', '\t']).starts_with('[');
    if !leads_on {
        end = after;
    }
    // One empty line between the text before the section and the text after it is enough.
    if start == 0 || text[..start].ends_with("\n\n") || text[..start].ends_with("\r\n\r\n") {
        end = skip_lines(text, end, str::is_empty);
    }
    let entry = book.entries.remove(place);
    let mut rest = format!("{}{}", &text[..start], &text[end..]);
    if end == text.len() {
        let ending = line_ending(text);
        while rest.ends_with(&format!("{ending}{ending}")) {
            rest.truncate(rest.len() - ending.len());
        }
    }
    Ok((checked(rest, &book, line)?, entry))
}

/// Returns the changed text, if it is parsed as the book `wanted`.
fn checked(text: String, wanted: &AddressBook, line: usize) -> Result<String, EditError> {
    match AddressBook::parse(&text) {
        Ok(book) if book == *wanted => Ok(text),
        Ok(_) => Err(EditError::Layout(line)),
        // Either the entry itself is at fault, or the form of the text.
        Err(faults) => match AddressBook::parse(&wanted.to_string()) {
            Ok(_) => Err(EditError::Layout(line)),
            Err(_) => {
                let texts: Vec<&str> = faults.all().iter().map(|fault| &*fault.text).collect();
                Err(EditError::Entry(texts.join("; ")))
            }
        },
    }
}

/// The start of the line `[[name]]` of a section; `None` if the section has another form.
fn heading(text: &str, section: &SectionSpan) -> Option<usize> {
    let start = text[..section.start].rfind('\n').map_or(0, |at| at + 1);
    let line = text[start..].lines().next()?.trim_start();
    let words: String = line.chars().filter(|char| !char.is_whitespace()).take(8).collect();
    (words == "[[name]]").then_some(start)
}

/// The start of the comment directly above a line. A comment at the start of the file belongs to
/// the file, not to the line.
fn with_comment_above(text: &str, mut start: usize) -> usize {
    let heading = start;
    while start > 0 {
        let above = text[..start - 1].rfind('\n').map_or(0, |at| at + 1);
        if !text[above..start].trim_start().starts_with('#') {
            return start;
        }
        start = above;
    }
    heading
}

fn line_ending(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// The position after the line break of the line that contains this byte.
fn end_of_line(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |found| at + found + 1)
}

/// The position after the successive lines from `at` on that fulfil the predicate. The predicate is
/// applied to the trimmed line.
fn skip_lines(text: &str, mut at: usize, mut is_skipped: impl FnMut(&str) -> bool) -> usize {
    while at < text.len() {
        let end = end_of_line(text, at);
        if !is_skipped(text[at..end].trim()) {
            break;
        }
        at = end;
    }
    at
}

/// The range of a key and its value. If nothing else is on their lines, the range contains these
/// lines with the line break.
fn whole_line(text: &str, start: usize, end: usize) -> core::ops::Range<usize> {
    let line_end = end_of_line(text, end);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let is_alone =
        text[line_start..start].trim().is_empty() && text[end..line_end].trim().is_empty();
    if is_alone { line_start..line_end } else { start..end }
}
