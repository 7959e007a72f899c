//! Reads the tables of a TOML file with the line of each key, and collects faults about unknown
//! keys and wrong values.

use std::{cell::RefCell, collections::HashSet, ops::Range};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::Fault;

/// The text of a fault about a missing key. It follows the section's title.
const NEEDS_KEY: &str = " needs the key ";

type Entry<'t> = (&'t Spanned<DeString<'t>>, &'t Spanned<DeValue<'t>>);

/// A parsed file.
pub(super) struct Document<'t> {
    lines: Lines,
    table: DeTable<'t>,
    /// The faults so far.
    faults: RefCell<Vec<Fault>>,
    /// The lines of sections with an unknown key. Such a section may only seem to lack a required
    /// key, because that key is misspelled.
    misspelled: RefCell<HashSet<usize>>,
}

/// The offsets of the line breaks of a text. They are computed once for all keys.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(ends.map(|(at, _)| at).collect())
    }

    /// The line of a span, counted from 1.
    fn at(&self, span: Range<usize>) -> usize {
        1 + self.0.partition_point(|end| *end < span.start)
    }
}

/// One table of the file, for example `[switch]` or one of the `[[udp]]` tables.
pub(super) struct Section<'d> {
    lines: &'d Lines,
    table: Option<&'d DeTable<'d>>,
    /// The title as in the file: `[switch]`, `[[udp]]`.
    pub(super) title: String,
    /// The line on which the section begins.
    pub(super) line: usize,
}

/// A string and its line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'d> {
    pub(super) value: &'d str,
    pub(super) line: usize,
}

impl<'t> Document<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Self, Fault> {
        match DeTable::parse(text) {
            Ok(table) => {
                let (lines, table) = (Lines::of(text), table.into_inner());
                Ok(Self {
                    lines,
                    table,
                    faults: RefCell::default(),
                    misspelled: RefCell::default(),
                })
            }
            Err(error) => {
                let line = error.span().map_or(1, |span| Lines::of(text).at(span));
                let message = error.message().replace('\n', ", ");
                Err(Fault { line, text: format!("not TOML: {message}") })
            }
        }
    }

    /// Notes a fault. A fault about a missing key is ignored if the section has an unknown key.
    pub(super) fn note(&self, fault: Fault) {
        let is_missing = fault.text.contains(NEEDS_KEY);
        if !(is_missing && self.misspelled.borrow().contains(&fault.line)) {
            self.faults.borrow_mut().push(fault);
        }
    }

    /// Returns the value of a result. Notes the fault if there is no value.
    pub(super) fn good<T>(&self, read: Result<T, Fault>) -> Option<T> {
        read.map_err(|fault| self.note(fault)).ok()
    }

    /// All faults, in the order in which they were found.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults.into_inner()
    }

    /// The number of faults so far.
    pub(super) fn faults(&self) -> usize {
        self.faults.borrow().len()
    }

    /// Notes a fault for every top-level table and key that is not in `known`, a list of sections
    /// with their keys.
    pub(super) fn check_sections(&self, known: &[(&str, &[&str])]) {
        let unknown =
            |(key, _): &Entry<'_>| !known.iter().any(|(name, _)| *name == key.get_ref().as_ref());
        for entry in in_order(&self.table).into_iter().filter(unknown) {
            self.note(self.unknown(entry, known));
        }
    }

    fn unknown(&self, (key, value): Entry<'_>, known: &[(&str, &[&str])]) -> Fault {
        let name = key.get_ref().as_ref();
        let line = self.lines.at(key.span());
        let home = known.iter().find(|(_, keys)| keys.contains(&name));
        let text = match (value.get_ref().is_table() || value.get_ref().is_array(), home) {
            (false, Some((home, _))) => {
                format!("`{name}` is outside of any section; it belongs to [{home}]")
            }
            (is_table, _) => {
                let what = if is_table { "section" } else { "key" };
                let near = nearest(name, known.iter().map(|(name, _)| *name));
                let renamed = RENAMED.iter().find(|(old, _)| *old == name);
                let hint = match (renamed, near) {
                    (Some((_, new)), _) => format!("it is called [{new}] now"),
                    (None, Some(near)) => format!("did you mean `{near}`?"),
                    (None, None) => {
                        let all: Vec<_> = known.iter().map(|(name, _)| *name).collect();
                        format!("the sections are: {}", all.join(", "))
                    }
                };
                format!("unknown {what} `{name}`; {hint}")
            }
        };
        Fault { line, text }
    }

    /// Returns the table `[name]`. The table may be absent.
    pub(super) fn section(&self, name: &str, keys: &[&str]) -> Result<Section<'_>, Fault> {
        let title = format!("[{name}]");
        let Some(value) = self.table.get(name) else {
            return Ok(Section { lines: &self.lines, table: None, title, line: 1 });
        };
        let line = self.lines.at(value.span());
        let Some(table) = value.get_ref().as_table() else {
            let text = format!("{name} is a single section; write {title}, once");
            return Err(Fault { line, text });
        };
        let section = Section { lines: &self.lines, table: Some(table), title, line };
        self.note_unknown(&section, keys);
        Ok(section)
    }

    fn note_unknown(&self, section: &Section<'_>, keys: &[&str]) {
        for fault in section.unknown(keys) {
            self.note(fault);
            self.misspelled.borrow_mut().insert(section.line);
        }
    }

    /// All tables `[[name]]`.
    pub(super) fn sections(&self, name: &str, keys: &[&str]) -> Result<Vec<Section<'_>>, Fault> {
        let title = format!("[[{name}]]");
        let Some(value) = self.table.get(name) else { return Ok(Vec::new()) };
        let fault = |span| {
            let text = format!("there may be several of {name}; write {title}");
            Fault { line: self.lines.at(span), text }
        };
        let Some(array) = value.get_ref().as_array() else { return Err(fault(value.span())) };
        array
            .iter()
            .map(|value| {
                let table = value.get_ref().as_table().ok_or_else(|| fault(value.span()))?;
                let line = self.lines.at(value.span());
                let title = title.clone();
                let section = Section { lines: &self.lines, table: Some(table), title, line };
                self.note_unknown(&section, keys);
                Ok(section)
            })
            .collect()
    }
}

impl<'d> Section<'d> {
    /// Returns a fault for each key of the section that is not in `keys`.
    fn unknown(&self, keys: &[&str]) -> Vec<Fault> {
        let unknown = |(key, _): &Entry<'_>| !keys.contains(&key.get_ref().as_ref());
        let entries = self.table.map(in_order).unwrap_or_default();
        let fault = |(key, _): Entry<'_>| {
            let name = key.get_ref().as_ref();
            let renamed = RENAMED.iter().find(|(old, new)| *old == name && keys.contains(new));
            let hint = match (renamed, nearest(name, keys.iter().copied())) {
                (Some((_, new)), _) => format!("it is called `{new}` now"),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => format!("its keys are: {}", keys.join(", ")),
            };
            let text = format!("unknown key `{name}` in {}; {hint}", self.title);
            Fault { line: self.lines.at(key.span()), text }
        };
        entries.into_iter().filter(unknown).map(fault).collect()
    }

    fn entry(&self, key: &str) -> Option<Entry<'d>> {
        self.table?.get_key_value(key)
    }

    /// The line of a key. If the key is missing, the line of the section.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.entry(key).map_or(self.line, |(key, _)| self.lines.at(key.span()))
    }

    /// The fault of a missing key.
    pub(super) fn missing(&self, key: &str) -> Fault {
        Fault { line: self.line, text: format!("{}{NEEDS_KEY}`{key}`", self.title) }
    }

    fn wrong(&self, key: &str, wanted: &str) -> Fault {
        let shown = self.entry(key).map(|(_, value)| shown(value.get_ref())).unwrap_or_default();
        let text = format!("{key} in {} must be {wanted}, not {shown}", self.title);
        Fault { line: self.line_of(key), text }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<Text<'d>>, Fault> {
        let Some((_, value)) = self.entry(key) else { return Ok(None) };
        let value = value.get_ref().as_str().ok_or_else(|| self.wrong(key, "a string"))?;
        Ok(Some(Text { value, line: self.line_of(key) }))
    }

    /// A list of strings.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&'d str>>, Fault> {
        let Some((_, value)) = self.entry(key) else { return Ok(None) };
        let wanted = || self.wrong(key, "a list of strings");
        let array = value.get_ref().as_array().ok_or_else(wanted)?;
        let texts: Option<Vec<&str>> = array.iter().map(|value| value.get_ref().as_str()).collect();
        texts.map(Some).ok_or_else(wanted)
    }

    /// Whether the file has the section.
    pub(super) fn is_there(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn is_text(&self, key: &str, text: &str) -> bool {
        self.entry(key).is_some_and(|(_, value)| value.get_ref().as_str() == Some(text))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Fault> {
        let Some((_, value)) = self.entry(key) else { return Ok(None) };
        let flag = value.get_ref().as_bool();
        flag.map(Some).ok_or_else(|| self.wrong(key, "true or false"))
    }

    pub(super) fn number(&self, key: &str, min: u64, max: u64) -> Result<Option<u64>, Fault> {
        self.number_or(key, min, max, "")
    }

    /// Reads a number as [`number`](Self::number) does. The fault also names the alternative
    /// `else_`.
    pub(super) fn number_or(
        &self,
        key: &str,
        min: u64,
        max: u64,
        else_: &str,
    ) -> Result<Option<u64>, Fault> {
        let Some((_, value)) = self.entry(key) else { return Ok(None) };
        let number = in_range(value.get_ref(), min, max);
        let wanted = || format!("{}{else_}", range(min, max));
        number.map(Some).ok_or_else(|| self.wrong(key, &wanted()))
    }

    pub(super) fn numbers(&self, key: &str, min: u64, max: u64) -> Result<Option<Vec<u64>>, Fault> {
        let Some((_, value)) = self.entry(key) else { return Ok(None) };
        let wanted = || self.wrong(key, &format!("a list, each {}", range(min, max)));
        let array = value.get_ref().as_array().ok_or_else(wanted)?;
        let numbers: Option<Vec<u64>> =
            array.iter().map(|value| in_range(value.get_ref(), min, max)).collect();
        numbers.map(Some).ok_or_else(wanted)
    }

    /// Reads a value that must be one of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Fault> {
        let Some((_, value)) = self.entry(key) else { return Ok(None) };
        let given = value.get_ref().as_str();
        let chosen = words.iter().find(|(word, _)| Some(*word) == given).map(|(_, value)| *value);
        let wanted = || {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            words.join(" or ")
        };
        chosen.map(Some).ok_or_else(|| self.wrong(key, &wanted()))
    }
}

fn in_range(value: &DeValue<'_>, min: u64, max: u64) -> Option<u64> {
    let number = value.as_integer()?;
    let number = u64::from_str_radix(number.as_str(), number.radix()).ok()?;
    (min..=max).contains(&number).then_some(number)
}

fn range(min: u64, max: u64) -> String {
    if min == max { format!("{min}") } else { format!("a number from {min} to {max}") }
}

/// A value as an error message quotes it: its text if that is short, or else its kind.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.len() <= 60 => format!("{:?}", text.as_ref()),
        DeValue::String(_) => "a long string".to_owned(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "this list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// The entries of a table, in the order of the file.
fn in_order<'t>(table: &'t DeTable<'t>) -> Vec<Entry<'t>> {
    let mut entries: Vec<Entry<'t>> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Former names of sections and keys, with their current names.
const RENAMED: [(&str, &str); 3] = [
    ("strangers", "unknown_peers"),
    ("lent_frames", "fill_ring_frames"),
    ("pieces", "multi_buffer"),
];

/// The name that was probably meant: the one with the smallest edit distance, if that is small
/// enough.
pub(super) fn nearest<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let near_enough = 1 + written.chars().count() / 3;
    names
        .map(|name| (distance(written, name), name))
        .filter(|(distance, _)| *distance <= near_enough)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The number of edits between two words (optimal string alignment distance). An edit inserts,
/// deletes or changes one letter, or swaps two adjacent letters.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    // Keep three rows of the table of distances, because a swap needs the row before the previous
    // one.
    let mut two_back = vec![0; to.len() + 1];
    let mut back: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1; to.len() + 1];
        for (j, b) in to.iter().enumerate() {
            row[j + 1] = (back[j] + usize::from(a != b)).min(back[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                row[j + 1] = row[j + 1].min(two_back[j - 1] + 1);
            }
        }
        two_back = std::mem::replace(&mut back, row);
    }
    back[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_single_slips() {
        let cases = [
            ("", "", 0),
            ("slot", "slot", 0),
            ("adress", "address", 1),
            ("solt", "slot", 1),
            ("addresss", "address", 1),
            ("bakcend", "backend", 1),
            ("abc", "", 3),
            ("", "abc", 3),
            ("path", "name", 3),
        ];
        for (from, to, expected) in cases {
            assert_eq!(distance(from, to), expected, "{from} {to}");
            assert_eq!(distance(to, from), expected, "{to} {from}");
        }
    }

    #[test]
    fn what_is_near_nothing_gets_no_guess() {
        let names = ["name", "address", "slot"];
        assert_eq!(nearest("adres", names.into_iter()), Some("address"));
        assert_eq!(nearest("colour", names.into_iter()), None);
    }
}
