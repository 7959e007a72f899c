//! Escapes untrusted text (text of peers, names, paths, replies on a socket), so that it can be
//! printed safely. The escaped characters are those that move the cursor, end a line, or reorder or
//! hide text.

use std::fmt::{self, Write as _};

use serde_json::Value;

/// Text from an untrusted source. When it is displayed, control characters (such as ESC, CR, LF,
/// and those from 0x7f on), line and paragraph separators, and characters that reorder or hide text
/// are escaped. Text that is already escaped does not change.
#[derive(Clone, Copy, Debug)]
pub struct Untrusted<'t>(pub &'t str);

impl Untrusted<'_> {
    /// The escaped text, cut to at most this number of bytes.
    pub fn up_to(self, bytes_max: usize) -> String {
        let mut shown = String::new();
        for char in self.0.chars() {
            let before = shown.len();
            push(&mut shown, char);
            if shown.len() > bytes_max {
                shown.truncate(before);
                break;
            }
        }
        shown
    }
}

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.chars().all(is_harmless) {
            return f.pad(self.0);
        }
        let mut shown = String::new();
        self.0.chars().for_each(|char| push(&mut shown, char));
        f.pad(&shown)
    }
}

fn push(shown: &mut String, char: char) {
    if is_harmless(char) {
        shown.push(char);
    } else {
        shown.extend(char.escape_unicode());
    }
}

/// Whether a character has no effect on other text: it is no control character, does not reorder or
/// hide text (Unicode, "Bidirectional Algorithm" and category Cf), and does not end a line.
pub fn is_harmless(char: char) -> bool {
    let acts = matches!(char,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !char.is_control() && !acts
}

/// A JSON value as one line that can be printed safely. Harmful characters are written as `\uXXXX`,
/// the JSON escape of the same character.
pub fn json_line(value: &Value) -> String {
    let mut line = String::new();
    // Only strings contain harmful characters, because the rest of JSON is ASCII.
    for char in value.to_string().chars() {
        if is_harmless(char) {
            line.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            let _ = write!(line, "\\u{unit:04x}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_character_that_does_something_is_escaped() {
        for char in '\0'..=char::MAX {
            let text = char.to_string();
            let shown = Untrusted(&text).to_string();
            assert!(shown.chars().all(is_harmless) && !shown.is_empty(), "{char:?}");
            assert_eq!(Untrusted(&shown).to_string(), shown, "escaped once");
        }
        for text in
            ["\u{1b}", "\r", "\n", "\u{7f}", "\u{85}", "\u{9b}", "\u{202e}", "\u{2066}", "\u{2028}"]
        {
            assert!(!is_harmless(text.chars().next().unwrap_or_default()), "{text:?}");
        }
        assert_eq!(Untrusted("Zürich 東京 \\ 🦀").to_string(), "Zürich 東京 \\ 🦀");
        assert_eq!(format!("{:>6}|", Untrusted("ab")), "    ab|");
        assert_eq!(Untrusted("ab\u{1b}").up_to(5), "ab", "no part of an escape is left");
    }

    #[test]
    fn a_line_of_json_is_harmless_and_has_the_same_value() {
        let value = json!({ "a\u{1b}": ["\u{9b}\u{202e}\u{e0041}\n", 7, "🦀"] });
        let line = json_line(&value);
        assert!(line.chars().all(is_harmless), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON"), value);
    }
}
