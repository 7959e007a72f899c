//! Reads the examples and tables of docs/wire.md, so that tests compare the code with the document
//! itself.
//!
//! An example is a fenced block whose info string is `hex NAME`. Within a line, everything from `;`
//! on is a comment. `00*512` is the byte 00 repeated 512 times. The rest is pairs of hex digits and
//! spaces.
//!
//! A table is named by the line `<!-- table: NAME -->` above it.

use std::{fmt::Write as _, fs, path::Path};

/// The maximum of n in `00*n`. No example is longer than the longest packet.
const REPEAT_MAX: usize = 9_216;

/// The bytes of an example.
///
/// # Panics
/// If docs/wire.md has no example with this name, if it has two, or if the example is malformed.
/// For a malformed example, the message names the line.
#[track_caller]
pub fn example(name: &str) -> Vec<u8> {
    match find_example(&page(), name) {
        Ok(bytes) => bytes,
        Err(why) => panic!("docs/wire.md: {why}"),
    }
}

/// Compares every byte of `actual` with an example.
///
/// # Panics
/// If a byte or the length differs, and in the cases of [`example`]. The message describes the
/// difference, and contains `actual` in the format of an example.
#[track_caller]
pub fn assert_example(name: &str, actual: &[u8]) {
    let wanted = example(name);
    if let Some(difference) = difference(&wanted, actual) {
        panic!(
            "docs/wire.md: example {name:?} differs from the code: {difference}\n\
             the code gives:\n{}",
            block(actual)
        );
    }
}

/// The rows of a table below its heading. Each row is the list of its cells, without the spaces
/// around them.
///
/// # Panics
/// If docs/wire.md has no table with this name, if it has two, or if a row has another number of
/// cells than the heading.
#[track_caller]
pub fn table(name: &str) -> Vec<Vec<String>> {
    match find_table(&page(), name) {
        Ok(rows) => rows,
        Err(why) => panic!("docs/wire.md: {why}"),
    }
}

/// The names of all examples, in the order of the document.
pub fn names() -> Vec<String> {
    blocks(&page()).into_iter().map(|block| block.name.to_owned()).collect()
}

/// Formats bytes as an example, 16 per line, with the offset of each line as a comment.
pub fn block(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (row, line) in bytes.chunks(16).enumerate() {
        for part in line.chunks(4) {
            for byte in part {
                let _ = write!(text, "{byte:02x}");
            }
            text.push(' ');
        }
        let _ = writeln!(text, "; {}", row * 16);
    }
    text
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/wire.md");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One fenced block of hex: its name, and its lines with their numbers in the page.
struct Block<'a> {
    name: &'a str,
    lines: Vec<(usize, &'a str)>,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut lines = page.lines().enumerate().map(|(at, line)| (at + 1, line));
    while let Some((_, line)) = lines.next() {
        // A fence inside a list item is indented.
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let inside: Vec<_> =
            lines.by_ref().take_while(|(_, line)| !line.trim_start().starts_with("```")).collect();
        if let Some(name) = info.strip_prefix("hex ") {
            found.push(Block { name: name.trim(), lines: inside });
        }
    }
    found
}

fn find_example(page: &str, name: &str) -> Result<Vec<u8>, String> {
    let all = blocks(page);
    let mut of_name = all.iter().filter(|block| block.name == name);
    let Some(block) = of_name.next() else {
        let names: Vec<_> = all.iter().map(|block| block.name).collect();
        return Err(format!("no example {name:?}; the examples are: {}", names.join(", ")));
    };
    if of_name.next().is_some() {
        return Err(format!("two examples have the name {name:?}"));
    }
    let mut bytes = Vec::new();
    for &(number, line) in &block.lines {
        let digits = line.split(';').next().unwrap_or_default();
        for word in digits.split_whitespace() {
            read_word(word, &mut bytes)
                .map_err(|why| format!("line {number}: example {name:?}: {word:?} {why}"))?;
        }
    }
    Ok(bytes)
}

/// Appends the bytes of one word: pairs of hex digits, or one pair, `*` and a decimal number.
fn read_word(word: &str, bytes: &mut Vec<u8>) -> Result<(), String> {
    let (digits, count) = match word.split_once('*') {
        None => (word, 1),
        Some((digits, count)) => {
            let count = count.parse().map_err(|_| "has no number behind `*`")?;
            if digits.len() != 2 {
                return Err("must have one byte before `*`".to_owned());
            }
            if count > REPEAT_MAX {
                return Err(format!("repeats a byte more than {REPEAT_MAX} times"));
            }
            (digits, count)
        }
    };
    if let Some(wrong) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("has {wrong:?}, which is no hex digit"));
    }
    if digits.len() % 2 != 0 {
        return Err("has an odd number of digits".to_owned());
    }
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let text = str::from_utf8(pair).expect("hex digits");
        u8::from_str_radix(text, 16).expect("two hex digits")
    });
    let pairs: Vec<u8> = pairs.collect();
    for _ in 0..count {
        bytes.extend_from_slice(&pairs);
    }
    Ok(())
}

fn difference(wanted: &[u8], actual: &[u8]) -> Option<String> {
    let differs = wanted.iter().zip(actual).position(|(wanted, actual)| wanted != actual);
    match differs {
        Some(at) => Some(format!(
            "byte {at} is {:02x} in the document and {:02x} in the code",
            wanted[at], actual[at]
        )),
        None if wanted.len() != actual.len() => Some(format!(
            "{} bytes in the document and {} from the code; the first {} are equal",
            wanted.len(),
            actual.len(),
            wanted.len().min(actual.len())
        )),
        None => None,
    }
}

fn find_table(page: &str, name: &str) -> Result<Vec<Vec<String>>, String> {
    let mark = format!("<!-- table: {name} -->");
    let mut lines = page.lines().skip_while(|line| line.trim() != mark);
    if lines.next().is_none() {
        return Err(format!("no table {name:?}: the line {mark} is missing"));
    }
    if page.lines().filter(|line| line.trim() == mark).count() > 1 {
        return Err(format!("two tables have the name {name:?}"));
    }
    let mut rows = lines
        .skip_while(|line| line.trim().is_empty())
        .take_while(|line| line.trim_start().starts_with('|'))
        .map(cells);
    let (Some(heading), Some(_)) = (rows.next(), rows.next()) else {
        return Err(format!("no table follows {mark}"));
    };
    let rows: Vec<_> = rows.collect();
    match rows.iter().find(|row| row.len() != heading.len()) {
        Some(row) => Err(format!(
            "table {name:?}: a row has {} cells, the heading {}: {row:?}",
            row.len(),
            heading.len()
        )),
        None => Ok(rows),
    }
}

/// The cells of one row. `\|` is a bar in a cell.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim().replace("\\|", "\u{0}");
    let inside = row.strip_prefix('|').unwrap_or(&row);
    let inside = inside.strip_suffix('|').unwrap_or(inside);
    inside.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# A page

```text
not hex
```

- an item of a list

  ```hex inside-a-list
  70 00*7            ; the link header
  ff                 ; 99 is a comment
  ```

```hex whole
0123 45ab CDEF
```

```hex empty
```

```hex odd
01
012
```

```hex bad
0g
```

```hex twice
00
```

```hex twice
01
```

```hex repeats
0000*2
```

```hex endless
00*9999999
```

<!-- table: fruit -->

| name | colour |
|---|---|
| `apple` | red \\| green |
| plum |  |

<!-- table: uneven -->
| name | colour |
|---|---|
| apple |

<!-- table: none -->
text
";

    #[test]
    fn examples_are_read_with_comments_and_repetitions() {
        let read = |name| find_example(PAGE, name);
        assert_eq!(read("inside-a-list"), Ok(vec![0x70, 0, 0, 0, 0, 0, 0, 0, 0xff]));
        assert_eq!(read("whole"), Ok(vec![0x01, 0x23, 0x45, 0xab, 0xcd, 0xef]));
        assert_eq!(read("empty"), Ok(vec![]));
    }

    #[test]
    fn a_bad_example_is_refused_with_its_line() {
        let fault = |name| find_example(PAGE, name).unwrap_err();
        assert_eq!(fault("odd"), "line 23: example \"odd\": \"012\" has an odd number of digits");
        assert_eq!(fault("bad"), "line 27: example \"bad\": \"0g\" has 'g', which is no hex digit");
        assert!(fault("repeats").contains("must have one byte before `*`"));
        assert!(fault("endless").contains("more than 9216 times"));
        assert!(fault("twice").contains("two examples"));
        assert!(fault("unknown").starts_with("no example \"unknown\"; the examples are: inside-"));
    }

    #[test]
    fn a_difference_is_reported_with_its_offset() {
        assert_eq!(difference(&[1, 2], &[1, 2]), None);
        assert!(difference(&[1, 2, 3], &[1, 9, 3]).unwrap().starts_with("byte 1 is 02"));
        assert!(difference(&[1, 2, 3], &[1, 2]).unwrap().contains("the first 2 are equal"));
        assert!(difference(&[], &[1]).unwrap().contains("0 bytes in the document and 1"));
    }

    #[test]
    fn bytes_are_printed_as_an_example_is_read() {
        let bytes: Vec<u8> = (0..40).collect();
        let page = format!("```hex printed\n{}```\n", block(&bytes));
        assert_eq!(find_example(&page, "printed"), Ok(bytes));
    }

    #[test]
    fn tables_are_read_by_cells() {
        let rows = find_table(PAGE, "fruit").unwrap();
        assert_eq!(rows, [["`apple`", "red | green"], ["plum", ""]]);
        assert!(find_table(PAGE, "uneven").unwrap_err().contains("a row has 1 cells"));
        assert!(find_table(PAGE, "none").unwrap_err().contains("no table follows"));
        assert!(find_table(PAGE, "unknown").unwrap_err().contains("is missing"));
    }

    #[test]
    fn every_example_of_the_document_is_well_formed() {
        for name in names() {
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(!name.is_empty() && name.chars().all(is_plain), "the name {name:?}");
            example(&name);
        }
    }
}
