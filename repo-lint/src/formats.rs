//! Checks citations of sections of docs/wire.md.

use std::collections::BTreeSet;

use crate::{Faults, OWN_FOLDER, Repo};

/// Each section that code or a page cites exists in docs/wire.md.
pub fn cited_sections_exist(repo: &Repo) -> Faults {
    let mut faults = Faults::new("docs/wire.md has no such section");
    let page = repo.read("docs/wire.md");
    let headings: BTreeSet<&str> = page
        .lines()
        .filter(|line| line.starts_with("##"))
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' '))
        .filter_map(|heading| heading.split_whitespace().next())
        .map(|number| number.trim_end_matches('.'))
        .collect();
    let citing = repo.files().filter(|file| file.ends_with(".rs") || file.ends_with(".md"));
    for file in citing.filter(|file| !file.starts_with(OWN_FOLDER)) {
        let content = repo.read(file);
        for rest in content.split("wire.md ").skip(1) {
            let rest = rest.strip_prefix("section ").unwrap_or(rest);
            let cited: String =
                rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            let cited = cited.trim_end_matches('.');
            if !cited.is_empty() && !headings.contains(cited) {
                faults.add(format!("{file}: wire.md {cited}"));
            }
        }
    }
    faults
}
