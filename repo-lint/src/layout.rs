//! The folders and files that the repository must have, and the contents of each manifest.

use crate::{CRYPTO, ENGINE, FRAME, Faults, IO, Repo, WIRE, list, text};

/// Folders of the workspace: the crates, and the documents.
pub(crate) const FOLDERS: [&str; 14] = [
    "wire",
    "frame",
    "crypto",
    "io-backends",
    "engine",
    "runtime",
    "strowger",
    "node",
    "bench",
    "fuzz",
    "loom-tests",
    "testkit",
    "repo-lint",
    "docs",
];

/// Files that must be committed, beside the manifest of each crate.
const FILES: [&str; 19] = [
    "Cargo.lock",
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "deny.toml",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    ".ci/run",
    "docs/SUMMARY.md",
    "docs/architecture.md",
    "docs/relay/README.md",
    "docs/wire.md",
    "docs/glossary.md",
    "docs/style.md",
    "docs/unsafe.md",
    "bench/README.md",
    "fuzz/README.md",
    "loom-tests/README.md",
];

/// Crates that a registry publishes for others to depend on, with their folders.
const LIBRARIES: [(&str, &str); 6] = [
    ("strowger", "strowger"),
    (WIRE, "wire"),
    (FRAME, "frame"),
    (CRYPTO, "crypto"),
    (ENGINE, "engine"),
    (IO, "io-backends"),
];

/// Every file that users, contributors and tools look for is committed.
pub fn the_repository_is_complete(repo: &Repo) -> Faults {
    let mut faults = Faults::new("these files must be committed");
    let crates = FOLDERS.iter().filter(|folder| **folder != "docs");
    let manifests = crates.map(|folder| format!("{folder}/Cargo.toml"));
    let readmes = LIBRARIES.iter().map(|(_, folder)| format!("{folder}/README.md"));
    let wanted = manifests.chain(readmes).chain(FILES.map(str::to_owned));
    faults.extend(wanted.filter(|file| !repo.has(file)));
    faults
}

/// Manifests contain the fields that registries and readers need.
pub fn manifests_describe_their_crates(repo: &Repo) -> Faults {
    let mut faults = Faults::new("say it in the crate's Cargo.toml");
    for package in repo.members() {
        let name = text(&package["name"]);
        let mut wants = vec!["rust_version", "license", "description", "repository"];
        if LIBRARIES.iter().any(|(library, _)| *library == name) {
            wants.push("readme");
            for field in ["keywords", "categories"] {
                let has_some = !list(&package[field]).is_empty();
                faults.add_unless(has_some, format!("{name} has no {field}"));
            }
        }
        let missing = wants.iter().filter(|want| package[**want].is_null());
        faults.extend(missing.map(|want| format!("{name} has no {want}")));
        let has_our_licence = text(&package["license"]) == "MIT OR Apache-2.0";
        faults.add_unless(has_our_licence, format!("{name} has another licence than the project"));
    }
    faults
}
