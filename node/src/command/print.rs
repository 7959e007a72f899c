//! Prints lines and JSON values on standard output.

use std::io::{self, Write};

use serde_json::Value;
use strowger_runtime::untrusted::{Untrusted, json_line};

use crate::exit::{Failure, output_ended};

/// Prints lines. Control characters in them are escaped. A closed output is not an error.
pub(super) fn print(output: &mut dyn Write, text: &str) -> Result<(), Failure> {
    write_lines(output, text).or_else(|error| output_ended(&error))
}

/// Prints lines as [`print`] does, but also returns the error of a closed output.
pub(super) fn write_lines(output: &mut dyn Write, text: &str) -> io::Result<()> {
    let mut lines = text.split_inclusive('\n');
    lines.try_for_each(|line| match line.strip_suffix('\n') {
        Some(line) => writeln!(output, "{}", Untrusted(line)),
        None => write!(output, "{}", Untrusted(line)),
    })?;
    output.flush()
}

/// The elements of the array with this key; none if there is no such array.
pub(super) fn rows<'v>(answer: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    answer[key].as_array().into_iter().flatten()
}

/// Formats a value as a cell of a table. A string has no quotes; null and the empty string become
/// `-`.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => Untrusted(text).to_string(),
        other => json_line(other),
    }
}
