//! Checks the folders and files of the repository, and the fields of each manifest.

use crate::{
    CONNECTION, CRYPTO, ENGINE, FRAME, Faults, IO, ROUTING, Repo, SOCKET, WIRE, list, text,
};

/// Folders of the crates.
pub(crate) const CRATES: [&str; 18] = [
    "wire",
    "frame",
    "crypto",
    "routing",
    "connection",
    "io-backends",
    "engine",
    "runtime",
    "socket",
    "strowger",
    "node",
    "gateway",
    "bench/chain",
    "bench",
    "fuzz",
    "loom-tests",
    "testkit",
    "repo-lint",
];

/// Files that must be committed, in addition to each crate's manifest and each library's README.
const FILES: [&str; 20] = [
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
    "interop/README.md",
    "loom-tests/README.md",
];

/// Crates that a registry publishes for others to depend on, with their folders.
const LIBRARIES: [(&str, &str); 9] = [
    ("strowger", "strowger"),
    (WIRE, "wire"),
    (FRAME, "frame"),
    (CRYPTO, "crypto"),
    (ROUTING, "routing"),
    (CONNECTION, "connection"),
    (ENGINE, "engine"),
    (IO, "io-backends"),
    (SOCKET, "socket"),
];

/// Every file that users, contributors and tools look for is committed.
pub fn the_repository_is_complete(repo: &Repo) -> Faults {
    let mut faults = Faults::new("these files must be committed");
    let manifests = CRATES.iter().map(|folder| format!("{folder}/Cargo.toml"));
    let readmes = LIBRARIES.iter().map(|(_, folder)| format!("{folder}/README.md"));
    let wanted = manifests.chain(readmes).chain(FILES.map(str::to_owned));
    faults.extend(wanted.filter(|file| !repo.has(file)));
    faults
}

/// Each manifest has the fields that registries and readers need.
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
