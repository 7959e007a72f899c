//! Checks of the repository. They read its files and do not run its code. `cargo test -p
//! strowger-repo-lint` runs them.
//!
//! Each check is a function that takes the [`Repo`] and returns [`Faults`]. There is a module per
//! topic. `tests/repository.rs` runs each check as a test.

pub mod arrows;
pub mod dependencies;
pub mod docs;
pub mod examples;
pub mod formats;
pub mod layout;
pub mod requirements;
pub mod source;
pub mod tests_named;
pub mod unsafe_code;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;

const WIRE: &str = "strowger-wire";
const FRAME: &str = "strowger-frame";
const CRYPTO: &str = "strowger-crypto";
const ROUTING: &str = "strowger-routing";
const CONNECTION: &str = "strowger-connection";
const ENGINE: &str = "strowger-engine";
const IO: &str = "strowger-io";
const RUNTIME: &str = "strowger-runtime";
const SOCKET: &str = "strowger-socket";

/// The folder of this crate. Some checks skip it, because it quotes the text that they search for.
const OWN_FOLDER: &str = "repo-lint/";

/// The repository's files, and its packages as cargo describes them.
#[derive(Debug)]
pub struct Repo {
    root: PathBuf,
    files: Vec<String>,
    packages: OnceLock<Value>,
}

impl Repo {
    /// The repository that contains this crate.
    ///
    /// Its files are those that git tracks. Without git they are all files outside of `.git` and
    /// target folders.
    pub fn here() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member of a workspace");
        let git = Command::new("git").args(["ls-files"]).current_dir(root).output();
        let mut files: Vec<String> = match git {
            Ok(out) if out.status.success() => {
                String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
            }
            _ => {
                let mut found = Vec::new();
                walk(root, root, &mut found);
                found
            }
        };
        // Git also lists a file that is deleted and not yet committed.
        files.retain(|file| root.join(file).is_file());
        files.sort();
        Self { root: root.to_owned(), files, packages: OnceLock::new() }
    }

    /// Paths of all files, relative to the root, sorted.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    fn has(&self, path: &str) -> bool {
        self.files().any(|file| file == path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Path and text of each Rust file.
    fn rust_files(&self) -> impl Iterator<Item = (&str, String)> {
        self.files().filter(|file| file.ends_with(".rs")).map(|file| (file, self.read(file)))
    }

    fn markdown_files(&self) -> impl Iterator<Item = &str> {
        self.files().filter(|file| file.ends_with(".md"))
    }

    fn manifest(&self, path: &str) -> toml::Table {
        self.read(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The workspace's packages, with the direct dependencies of each.
    fn members(&self) -> &[Value] {
        list(&self.packages.get_or_init(|| self.metadata(&["--no-deps"]))["packages"])
    }

    fn metadata(&self, more: &[&str]) -> Value {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let out = Command::new(cargo)
            .args(["metadata", "--offline", "--format-version", "1"])
            .args(more)
            .current_dir(&self.root)
            .output()
            .expect("cargo runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("cargo writes JSON")
    }
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
    let entries = fs::read_dir(folder).expect("a folder of the repository");
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        if path.is_dir() && !name.starts_with("target") && name != ".git" {
            walk(root, &path, found);
        } else if path.is_file() {
            let path = path.strip_prefix(root).expect("below the root");
            found.push(path.to_string_lossy().into_owned());
        }
    }
}

/// The faults that a check found, and how to fix them.
#[must_use]
#[derive(Debug)]
pub struct Faults {
    found: Vec<String>,
    remedy: &'static str,
}

impl Faults {
    fn new(remedy: &'static str) -> Self {
        Self { found: Vec::new(), remedy }
    }

    fn add(&mut self, fault: impl Into<String>) {
        self.found.push(fault.into());
    }

    fn add_unless(&mut self, holds: bool, fault: impl Into<String>) {
        if !holds {
            self.add(fault);
        }
    }

    fn extend(&mut self, faults: impl IntoIterator<Item = String>) {
        self.found.extend(faults);
    }

    /// Panics if there is a fault. The message lists all faults, one on each line.
    #[track_caller]
    pub fn assert_none(mut self) {
        self.found.dedup();
        let (found, remedy) = (self.found.join("\n  "), self.remedy);
        assert!(self.found.is_empty(), "\n  {found}\n{remedy}\n");
    }
}

/// The part of a file above its unit tests.
fn without_tests(code: &str) -> &str {
    code.split("\nmod tests {").next().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
