//! Prints lines and JSON values on standard output.

use std::io::{self, Write};

use serde_json::Value;
use strowger_runtime::untrusted::{Untrusted, json_line};

use crate::exit::{Failure, output_ended};

/// Prints lines. Untrusted text in them is escaped, so it cannot begin a line or move the cursor.
pub(super) fn print(output: &mut dyn Write, text: &str) -> Result<(), Failure> {
    write_lines(output, text).or_else(|error| output_ended(&error))
}

/// Prints lines as [`print`] does, and also reports a closed output.
pub(super) fn write_lines(output: &mut dyn Write, text: &str) -> io::Result<()> {
    let mut lines = text.split_inclusive('\n');
    lines.try_for_each(|line| match line.strip_suffix('\n') {
        Some(line) => writeln!(output, "{}", Untrusted(line)),
        None => write!(output, "{}", Untrusted(line)),
    })?;
    output.flush()
}

/// The rows of the array with this key. There are none if the array does not exist.
pub(super) fn rows<'v>(answer: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    answer[key].as_array().into_iter().flatten()
}

/// A value as a cell of a table: text has no quotes, and no value is shown as `-`.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => Untrusted(text).to_string(),
        other => json_line(other),
    }
}
