//! Checks that the tests named in the documents exist, and that each invariant has a test that is
//! named after it.

use crate::{Faults, Repo};

/// Invariants that have at least one test named after them (`r3_...`).
const TESTED_INVARIANTS: [&str; 19] = [
    "r1_", "r2_", "r3_", "r4_", "r5_", "r6_", "r7_", "r8_", "r10_", "r11_", "r12_", "r13_", "r14_",
    "r15_", "r17_", "r18_", "r19_", "r22_", "r23_",
];

fn all_code(repo: &Repo) -> String {
    repo.rust_files().map(|(_, code)| code).collect()
}

/// Each invariant in `TESTED_INVARIANTS` has a test whose name begins with its number.
pub fn invariants_have_tests_named_after_them(repo: &Repo) -> Faults {
    let mut faults = Faults::new("docs/architecture.md lists the invariants");
    let code = all_code(repo);
    let untested = TESTED_INVARIANTS.iter().filter(|r| !code.contains(&format!("fn {r}")));
    faults.extend(untested.map(|r| format!("fn {r}...")));
    faults
}

/// Each test that docs/threats.md names in its last column exists.
pub fn every_test_that_the_threats_name_exists(repo: &Repo) -> Faults {
    let mut faults = Faults::new("docs/threats.md names the tests that show what it says");
    let tests = all_code(repo);
    let page = repo.read("docs/threats.md");
    let is_test = |word: &&str| {
        let is_name =
            word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        is_name && word.matches('_').count() > 2
    };
    // The other columns name events and counters, too.
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    let words = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let named: Vec<&str> = words.filter(is_test).collect();
    faults.add_unless(named.len() > 30, "docs/threats.md names fewer than 30 tests");
    let missing = named.iter().filter(|name| !tests.contains(&format!("fn {name}(")));
    faults.extend(missing.map(|name| format!("there is no `fn {name}`")));
    faults
}
