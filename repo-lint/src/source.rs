//! Rules for every Rust file, and for every text file.

use std::fs;

use crate::{Faults, Repo, without_tests};

/// Maximum number of lines of a file without its tests.
const LINES_MAX: usize = 700;

/// Code that may not be committed. `concat!` is needed because this file is checked, too.
const BANNED: [&str; 4] = [
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("#[ign", "ore"),
    concat!("db", "g!("),
];

/// Parts of type and module names that do not describe anything.
const EMPTY_NAMES: [&str; 7] = ["Manager", "Helper", "Util", "Common", "helper", "util", "common"];

/// Beginnings of paths that are specific to a machine.
const MACHINE_PATHS: [&str; 3] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Each Rust file begins with a `//!` line and is short. It contains no unfinished code, and no
/// name without a meaning.
pub fn rust_files_keep_the_style(repo: &Repo) -> Faults {
    let mut faults = Faults::new("docs/style.md says why");
    for (file, code) in repo.rust_files() {
        let says_what_it_is = code.starts_with("//!");
        faults.add_unless(says_what_it_is, format!("{file}: does not begin with a `//!` line"));
        for word in BANNED.iter().filter(|word| code.contains(**word)) {
            faults.add(format!("{file}: {word}"));
        }
        let is_test = file.ends_with("/tests.rs") || file.contains("/tests/");
        let lines = if is_test { 0 } else { without_tests(&code).lines().count() };
        faults.add_unless(
            lines <= LINES_MAX,
            format!("{file}: {lines} lines, more than {LINES_MAX}: split it by concept"),
        );
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let kind = words.find(|word| ["struct", "enum", "trait", "type", "mod"].contains(word));
            let name = words.next().unwrap_or_default();
            if kind.is_some() && EMPTY_NAMES.iter().any(|part| name.contains(part)) {
                faults.add(format!("{file}: the name `{name}` says nothing"));
            }
        }
    }
    faults
}

/// No file contains a path that is specific to a machine.
pub fn no_file_names_a_machine(repo: &Repo) -> Faults {
    let mut faults =
        Faults::new("write a path relative to the repository, or take it from the environment");
    for file in repo.files() {
        let Ok(content) = fs::read_to_string(repo.root.join(file)) else { continue };
        for (number, line) in content.lines().enumerate() {
            if MACHINE_PATHS.iter().any(|path| line.contains(path)) {
                faults.add(format!("{file}:{}", number + 1));
            }
        }
    }
    faults
}
