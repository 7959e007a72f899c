//! Text that others have chosen, as it may be shown: what peers say, names, paths, what a socket answers. It
//! never lets a character through that moves the cursor, begins a line, or reorders what is shown.

use std::fmt::{self, Write as _};

use serde_json::Value;

/// Text from outside. It is shown with every character escaped that is not just itself: controls (ESC, CR, LF
/// and those above 0x7f), line and paragraph separators, what reorders or hides text. Escaped text stays as it is.
#[derive(Clone, Copy, Debug)]
pub struct Untrusted<'t>(pub &'t str);

impl Untrusted<'_> {
    /// As shown, and no longer than this many bytes.
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

/// Whether a character only shows itself: no control character, nothing that reorders or hides what is shown
/// (Unicode, "Bidirectional Algorithm" and category Cf), nothing that ends a line.
pub fn is_harmless(char: char) -> bool {
    let acts = matches!(char,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !char.is_control() && !acts
}

/// A JSON value in one line that may be shown as it is: what would not be harmless stands as `\\uXXXX`, which
/// every reader of JSON takes for the same text.
pub fn json_line(value: &Value) -> String {
    let mut line = String::new();
    // Such characters stand in strings alone: the rest of JSON is ASCII.
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
    fn a_line_of_json_is_harmless_and_says_the_same() {
        let value = json!({ "a\u{1b}": ["\u{9b}\u{202e}\u{e0041}\n", 7, "🦀"] });
        let line = json_line(&value);
        assert!(line.chars().all(is_harmless), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON"), value);
    }
}
