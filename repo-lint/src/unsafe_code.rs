//! Checks where `unsafe` is allowed, and that docs/unsafe.md lists each file that has it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Faults, Repo, layout::CRATES};

/// The crates that may use `unsafe`. Every other crate forbids it.
const UNSAFE_CRATES: [&str; 2] = ["frame", "io-backends"];

/// `unsafe` is forbidden in every crate except two. In these two, Clippy requires a comment at each
/// `unsafe` block.
pub fn unsafe_is_forbidden_except_in_two_crates(repo: &Repo) -> Faults {
    let mut faults = Faults::new("inherit the workspace's lints, and do not loosen them in a file");
    let workspace = repo.manifest("Cargo.toml");
    let level = workspace["workspace"]["lints"]["rust"]["unsafe_code"].as_str();
    faults.add_unless(level == Some("forbid"), "Cargo.toml: the workspace forbids unsafe");
    for folder in CRATES {
        let manifest = format!("{folder}/Cargo.toml");
        let lints = repo.manifest(&manifest).get("lints").cloned();
        let level = |group: &str, lint: &str| {
            lints.as_ref()?.get(group)?.get(lint).and_then(toml::Value::as_str)
        };
        if UNSAFE_CRATES.contains(&folder) {
            for lint in ["undocumented_unsafe_blocks", "multiple_unsafe_ops_per_block"] {
                let denies = level("clippy", lint) == Some("deny");
                faults.add_unless(denies, format!("{manifest} does not deny clippy::{lint}"));
            }
            let denies = level("rust", "unsafe_op_in_unsafe_fn") == Some("deny");
            faults.add_unless(denies, format!("{manifest} does not deny unsafe_op_in_unsafe_fn"));
        } else {
            let inherits = lints.as_ref().and_then(|lints| lints.get("workspace")?.as_bool());
            let fault = format!("{manifest} has no `lints.workspace = true`");
            faults.add_unless(inherits == Some(true), fault);
        }
    }
    let loosened = ["allow", "expect", "warn"].map(|level| format!("{level}({})", "unsafe_code"));
    let files = repo.rust_files().filter(|(_, code)| loosened.iter().any(|l| code.contains(l)));
    faults.extend(files.map(|(file, _)| format!("{file} loosens the lint")));
    faults
}

/// docs/unsafe.md lists each file with `unsafe`, and no other.
pub fn every_file_with_unsafe_is_listed(repo: &Repo) -> Faults {
    let mut faults = Faults::new(
        "docs/unsafe.md lists each file, what its unsafe is for, and which check would notice a fault",
    );
    let page = repo.read("docs/unsafe.md");
    let listed: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(file, _)| file)
        .collect();
    let uses = |code: &str| {
        code.lines().any(|line| {
            let line = line.split("//").next().unwrap_or_default();
            ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| line.contains(word))
        })
    };
    let is_allowed =
        |file: &str| UNSAFE_CRATES.iter().any(|folder| file.starts_with(&format!("{folder}/src")));
    let found: BTreeMap<&str, String> =
        repo.rust_files().filter(|(file, code)| is_allowed(file) && uses(code)).collect();
    let missing = found.keys().filter(|file| !listed.contains(*file));
    faults.extend(missing.map(|file| format!("{file} is not listed")));
    let over = listed.iter().filter(|file| !found.contains_key(*file));
    faults.extend(over.map(|file| format!("{file} has no unsafe, or does not exist")));
    faults
}
