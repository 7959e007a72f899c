//! Formats tables of text for people, and numbers of bytes with a unit.

use serde_json::Value;

use strowger_runtime::untrusted::Untrusted;

/// A table whose columns are as wide as their widest cell. A heading that begins with `<` aligns
/// its column to the left. Other columns are aligned to the right.
pub(crate) struct Table {
    left: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<'h>(headings: impl IntoIterator<Item = &'h str>) -> Self {
        let (left, headings) = headings
            .into_iter()
            .map(|heading| (heading.starts_with('<'), heading.trim_start_matches('<').to_owned()))
            .unzip();
        Self { left, rows: vec![headings] }
    }

    /// Adds a row. Text in a cell is escaped, so that it cannot start a new line or move the cursor.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = cells.into_iter().map(|cell| Untrusted(&cell).to_string());
        self.rows.push(shown.collect());
    }

    /// The text of the table, or `empty` if it has no row.
    pub(crate) fn finish(self, empty: &str) -> String {
        if self.rows.len() == 1 {
            return format!("{empty}\n");
        }
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.left.len()).map(width).collect();
        let mut shown = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).zip(&self.left).map(|((cell, &width), left)| {
                if *left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            shown.push_str(line.trim_end());
            shown.push('\n');
        }
        shown
    }
}

/// Formats a JSON number of bytes with a unit.
pub(crate) fn bytes(value: &Value) -> String {
    value.as_u64().map_or("-".to_owned(), bytes_of)
}

/// Formats a number of bytes with a unit and, from 1 KiB on, one decimal.
pub(crate) fn bytes_of(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut scaled = bytes as f64;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{scaled:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["<name", "frames"]);
        table.row(["a".to_owned(), "1234567".to_owned()]);
        table.row(["longer".to_owned(), "8".to_owned()]);
        let expected = "name     frames\na       1234567\nlonger        8\n";
        assert_eq!(table.finish(""), expected);
        assert_eq!(Table::new(["<name"]).finish("nothing"), "nothing\n");
    }

    #[test]
    fn bytes_have_a_unit() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB")];
        for (bytes, shown) in cases {
            assert_eq!(bytes_of(bytes), shown);
        }
        assert_eq!(bytes_of(u64::MAX), "16.0 EiB");
    }
}
