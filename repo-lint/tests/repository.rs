//! The house test: what the project promises about itself, read from its own files. It never looks
//! at what the code does, only at how the house stands; each message says what to do about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;

/// Which of our crates each may import. An arrow that is not here is not drawn.
const ARROWS: [(&str, &[&str]); 12] = [
    (WIRE, &[]),
    ("strowger-frame", &[]),
    (CRYPTO, &[WIRE]),
    ("strowger-io", &["strowger-frame"]),
    (ENGINE, &[WIRE, FRAME, CRYPTO]),
    (RUNTIME, &[WIRE, FRAME, CRYPTO, ENGINE, IO]),
    ("strowger", &[WIRE, FRAME, CRYPTO, ENGINE, IO, RUNTIME]),
    ("strowger-cli", &[WIRE, FRAME, CRYPTO, ENGINE, IO, RUNTIME]),
    (BENCH, &[WIRE, FRAME, CRYPTO, ENGINE, IO, RUNTIME]),
    ("strowger-fuzz", &[WIRE, FRAME, CRYPTO, ENGINE, IO]),
    ("strowger-loom-tests", &[WIRE, FRAME, CRYPTO, ENGINE, IO]),
    ("strowger-repo-lint", &[]),
];
const WIRE: &str = "strowger-wire";
const FRAME: &str = "strowger-frame";
const CRYPTO: &str = "strowger-crypto";
const ENGINE: &str = "strowger-engine";
const IO: &str = "strowger-io";
const RUNTIME: &str = "strowger-runtime";
const BENCH: &str = "strowger-bench";

/// Arrows for tests alone: the engine is tested over the memory port.
const ARROWS_OF_TESTS: [(&str, &str); 1] = [(ENGINE, IO)];

/// Where `unsafe` may stand; everything else forbids it.
const UNSAFE_ROOMS: [&str; 2] = ["frame", "io-backends"];

/// What a file may have at most, its tests aside, and those that had more when the rule came: they may only shrink.
const LINES_MAX: usize = 700;
const LONGER_FILES: [(&str, usize); 0] = [];

const FOLDERS: [&str; 13] = [
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
    "repo-lint",
    "docs",
];

/// What `strowger demo --json` says at least; the README explains each.
const DEMO_FIELDS: [&str; 11] = [
    "ok",
    "balanced",
    "frames_per_s",
    "bits_per_s",
    "lost",
    "reordered",
    "frames_copied",
    "worker_allocations",
    "discards",
    "backend",
    "sealed",
];

/// Lines of the embed example, blank ones included.
const EMBED_LINES_MAX: usize = 25;

/// Invariants that a test must be named after (`r3_...`) from now on.
const TESTED_INVARIANTS: [&str; 13] = [
    "r1_", "r2_", "r3_", "r4_", "r5_", "r6_", "r7_", "r8_", "r10_", "r11_", "r12_", "r13_", "r23_",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files of the project: what git knows, or, without git, all but what is built.
fn files() -> &'static [String] {
    static FILES: OnceLock<Vec<String>> = OnceLock::new();
    FILES.get_or_init(|| {
        let git = Command::new("git").args(["ls-files"]).current_dir(root()).output();
        let mut files: Vec<String> = match git {
            Ok(out) if out.status.success() => {
                String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
            }
            _ => {
                let mut found = Vec::new();
                walk(root(), &mut found);
                found
            }
        };
        // A file that is being removed is no file of the project any more.
        files.retain(|file| root().join(file).is_file());
        files.sort();
        files
    })
}

fn walk(folder: &Path, found: &mut Vec<String>) {
    let entries = fs::read_dir(folder).expect("a folder of the project");
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        if path.is_dir() && !name.starts_with("target") && name != ".git" {
            walk(&path, found);
        } else if path.is_file() {
            let path = path.strip_prefix(root()).expect("below the root");
            found.push(path.to_string_lossy().into_owned());
        }
    }
}

fn rust_files() -> impl Iterator<Item = (&'static str, String)> {
    files().iter().filter(|file| file.ends_with(".rs")).map(|file| (file.as_str(), read(file)))
}

/// The code of a file above its tests.
fn without_tests(code: &str) -> &str {
    code.split("\nmod tests {").next().unwrap_or_default()
}

fn markdown_files() -> impl Iterator<Item = &'static str> {
    files().iter().map(String::as_str).filter(|file| file.ends_with(".md"))
}

/// Fails with all faults at once, each on a line.
#[track_caller]
fn none(faults: Vec<String>, what_to_do: &str) {
    assert!(faults.is_empty(), "\n  {}\n{what_to_do}\n", faults.join("\n  "));
}

fn metadata(more: &[&str]) -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let out = Command::new(cargo)
        .args(["metadata", "--offline", "--format-version", "1"])
        .args(more)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("cargo writes JSON")
}

/// Our packages, with the direct dependencies of each.
fn members() -> &'static [Value] {
    static MEMBERS: OnceLock<Value> = OnceLock::new();
    list(&MEMBERS.get_or_init(|| metadata(&["--no-deps"]))["packages"])
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn is_ours(name: &str) -> bool {
    ARROWS.iter().any(|(ours, _)| *ours == name)
}

fn manifest(folder: &str) -> toml::Table {
    read(&format!("{folder}/Cargo.toml")).parse().expect("a manifest is TOML")
}

#[test]
fn crates_import_along_the_arrows() {
    let mut faults = Vec::new();
    for package in members() {
        let from = text(&package["name"]);
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == from) else {
            faults.push(format!("{from} is not in the table of arrows"));
            continue;
        };
        for dependency in list(&package["dependencies"]) {
            let to = text(&dependency["name"]);
            let tests_only = text(&dependency["kind"]) == "dev";
            let drawn = allowed.contains(&to)
                || tests_only && ARROWS_OF_TESTS.contains(&(from, to))
                || tests_only && from == to;
            if is_ours(to) && !drawn {
                faults.push(format!("{from} -> {to}"));
            }
        }
    }
    assert_eq!(members().len(), ARROWS.len(), "each member has its row in the table of arrows");
    none(
        faults,
        "docs/architecture.md draws the arrows; a new one is drawn in a change of its own",
    );
}

#[test]
fn inside_the_engine_the_worker_knows_no_control() {
    let code = |file: &str| {
        let all = read(file);
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        without_tests(&all).lines().filter(is_code).collect::<Vec<_>>().join("\n")
    };
    let worker = code("engine/src/worker.rs");
    let known = worker.matches("control::").count();
    let config = worker.matches("control::SwitchConfig").count();
    assert_eq!(known, config, "of control, worker.rs may know SwitchConfig alone");
    let mut faults = Vec::new();
    for file in files().iter().filter(|file| file.starts_with("engine/src/")) {
        let code = code(file);
        let outside_control = !file.contains("/control/") && file != "engine/src/lib.rs";
        if outside_control && file != "engine/src/worker.rs" && code.contains("worker::") {
            faults.push(format!("{file} knows a worker; only control may"));
        }
        for absent in
            ["std::time", "std::net", "std::fs", "std::thread", "println!", "Mutex", "RwLock"]
        {
            if code.contains(absent) {
                faults.push(format!("{file} uses {absent}"));
            }
        }
    }
    none(faults, "the engine reads no clock, file or socket, starts no thread and locks nothing");
}

#[test]
fn one_loop_runs_around_a_worker() {
    // Benchmarks and tests step a worker by hand where they count; nothing else does, and nothing blocks for one.
    let is_shipped = |file: &str| {
        ["node/", "strowger/", "runtime/"].iter().any(|folder| file.starts_with(folder))
    };
    let mut faults = Vec::new();
    for (file, code) in rust_files().filter(|(file, _)| !file.starts_with("repo-lint/")) {
        let is_the_loop = file == "runtime/src/worker_thread.rs";
        if is_shipped(file) && !is_the_loop && code.contains("worker.poll(") {
            faults.push(format!("{file} polls a worker"));
        }
        let is_engine = file.starts_with("engine/");
        if !is_the_loop && !is_engine && code.contains("worker.arm(") {
            faults.push(format!("{file} blocks for a worker"));
        }
    }
    none(faults, "run it by strowger_runtime::WorkerLoop");
}

#[test]
fn unsafe_is_forbidden_but_in_two_rooms() {
    let workspace = read("Cargo.toml").parse::<toml::Table>().expect("TOML");
    let lints = &workspace["workspace"]["lints"]["rust"];
    assert_eq!(lints["unsafe_code"].as_str(), Some("forbid"), "the workspace forbids unsafe");
    for folder in FOLDERS.iter().filter(|folder| **folder != "docs") {
        let lints = manifest(folder)["lints"].clone();
        if UNSAFE_ROOMS.contains(folder) {
            for lint in ["undocumented_unsafe_blocks", "multiple_unsafe_ops_per_block"] {
                let level = lints["clippy"][lint].as_str();
                assert_eq!(level, Some("deny"), "{folder}/Cargo.toml denies clippy::{lint}");
            }
            assert_eq!(lints["rust"]["unsafe_op_in_unsafe_fn"].as_str(), Some("deny"), "{folder}");
        } else {
            let inherits = lints.get("workspace").and_then(toml::Value::as_bool);
            assert_eq!(inherits, Some(true), "{folder}/Cargo.toml has `lints.workspace = true`");
        }
    }
    let loosened = ["allow", "expect", "warn"].map(|level| format!("{level}({})", "unsafe_code"));
    let faults = rust_files().filter(|(_, code)| loosened.iter().any(|l| code.contains(l)));
    none(faults.map(|(file, _)| file.to_owned()).collect(), "no file loosens the lint on unsafe");
}

#[test]
fn every_file_with_unsafe_stands_in_the_book() {
    let page = read("docs/unsafe.md");
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
    let found: BTreeMap<&str, String> = rust_files()
        .filter(|(file, _)| {
            UNSAFE_ROOMS.iter().any(|room| file.starts_with(&format!("{room}/src")))
        })
        .filter(|(_, code)| uses(code))
        .collect();
    let missing = found.keys().filter(|file| !listed.contains(*file));
    let mut faults: Vec<_> = missing.map(|file| format!("{file} is not listed")).collect();
    let over = listed.iter().filter(|file| !found.contains_key(*file));
    faults.extend(over.map(|file| format!("{file} has no unsafe, or does not exist")));
    none(faults, "docs/unsafe.md lists each file with what for, and what would see it break");
}

/// The reasons in deny.toml: `# name: why`, one line for each direct dependency.
fn reasons() -> Vec<(String, String)> {
    let deny = read("deny.toml");
    let table = deny.split("# Direct dependencies").nth(1).expect("deny.toml has the reasons");
    table
        .lines()
        .filter_map(|line| line.strip_prefix("# ")?.split_once(": "))
        .map(|(name, why)| (name.to_owned(), why.to_owned()))
        .collect()
}

#[test]
fn every_direct_dependency_has_its_reason() {
    let mut used: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in members() {
        for dependency in list(&package["dependencies"]) {
            let name = text(&dependency["name"]);
            if !is_ours(name) {
                used.entry(name).or_default().push(text(&package["name"]));
            }
        }
    }
    let reasons = reasons();
    let named: BTreeSet<&str> = reasons.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(named.len(), reasons.len(), "each dependency has one reason in deny.toml");
    let mut faults = Vec::new();
    for (name, by) in &used {
        if !named.contains(name) {
            faults.push(format!("{name}, used by {}, has no reason", by.join(", ")));
        }
    }
    for (name, why) in &reasons {
        if !used.contains_key(name.as_str()) {
            faults.push(format!("{name} has a reason and no user"));
        }
        if why.len() < 20 {
            faults.push(format!("{name}: {why:?} is no reason"));
        }
    }
    none(faults, "write or remove the line `# name: why` in deny.toml");
}

/// Whether an SPDX expression can be met with these licences. Parentheses bind; AND before OR.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    fn either(
        words: &mut std::iter::Peekable<std::vec::IntoIter<String>>,
        allowed: &BTreeSet<String>,
    ) -> bool {
        let mut met = both(words, allowed);
        while words.next_if(|word| word == "OR").is_some() {
            met |= both(words, allowed);
        }
        met
    }
    fn both(
        words: &mut std::iter::Peekable<std::vec::IntoIter<String>>,
        allowed: &BTreeSet<String>,
    ) -> bool {
        let mut met = one(words, allowed);
        while words.next_if(|word| word == "AND").is_some() {
            met &= one(words, allowed);
        }
        met
    }
    fn one(
        words: &mut std::iter::Peekable<std::vec::IntoIter<String>>,
        allowed: &BTreeSet<String>,
    ) -> bool {
        match words.next().as_deref() {
            Some("(") => {
                let met = either(words, allowed);
                words.next();
                met
            }
            Some(licence) => {
                let mut licence = licence.to_owned();
                if words.next_if(|word| word == "WITH").is_some() {
                    licence = format!("{licence} WITH {}", words.next().unwrap_or_default());
                }
                allowed.contains(&licence)
            }
            None => false,
        }
    }
    // Old manifests write a slash for OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
    either(&mut words.into_iter().peekable(), allowed)
}

#[test]
fn licences_are_those_that_deny_toml_allows() {
    let deny = read("deny.toml").parse::<toml::Table>().expect("deny.toml is TOML");
    let allowed: BTreeSet<String> = deny["licenses"]["allow"]
        .as_array()
        .expect("a list of licences")
        .iter()
        .filter_map(|licence| licence.as_str().map(str::to_owned))
        .collect();
    let two = ["MIT", "ISC"].map(str::to_owned).into();
    assert!(is_met("(MIT OR GPL-3.0) AND ISC", &two) && !is_met("MIT AND GPL-3.0", &two));

    // What this platform uses: nothing else is on this machine without a network.
    let rustc = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let host = String::from_utf8_lossy(&rustc.stdout).into_owned();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc has a host");
    let all = metadata(&["--filter-platform", host]);
    let mut faults = Vec::new();
    for package in list(&all["packages"]) {
        let licence = text(&package["license"]);
        if !is_met(licence, &allowed) {
            let (name, version) = (text(&package["name"]), text(&package["version"]));
            faults.push(format!("{name} {version}: {licence:?}"));
        }
    }
    none(faults, "deny.toml allows no such licence: use another crate, or decide to allow it");
}

#[test]
fn manifests_say_what_a_registry_and_a_reader_want() {
    let mut faults = Vec::new();
    for package in members() {
        let name = text(&package["name"]);
        let mut wants = vec!["rust_version", "license", "description", "repository"];
        if ["strowger", WIRE, FRAME, CRYPTO, ENGINE, IO].contains(&name) {
            wants.push("readme");
            for field in ["keywords", "categories"] {
                if list(&package[field]).is_empty() {
                    faults.push(format!("{name} has no {field}"));
                }
            }
        }
        faults.extend(
            wants
                .iter()
                .filter(|want| package[**want].is_null())
                .map(|w| format!("{name} has no {w}")),
        );
        if text(&package["license"]) != "MIT OR Apache-2.0" {
            faults.push(format!("{name} has another licence than the project"));
        }
    }
    none(faults, "say it in the crate's Cargo.toml");
}

#[test]
fn the_house_is_complete() {
    let wanted = FOLDERS.map(|folder| match folder {
        "docs" => "docs/SUMMARY.md".to_owned(),
        folder => format!("{folder}/Cargo.toml"),
    });
    let others = [
        "Cargo.lock",
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "deny.toml",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        ".ci/run",
        "docs/architecture.md",
        "docs/relay/README.md",
        "docs/wire.md",
        "docs/glossary.md",
        "docs/style.md",
        "docs/unsafe.md",
        "wire/README.md",
        "frame/README.md",
        "crypto/README.md",
        "engine/README.md",
        "io-backends/README.md",
        "bench/README.md",
        "fuzz/README.md",
        "loom-tests/README.md",
    ];
    let missing = wanted.into_iter().chain(others.map(str::to_owned));
    none(missing.filter(|file| !files().contains(file)).collect(), "these files must be committed");
}

#[test]
fn rust_files_keep_the_house_style() {
    let banned = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("#[ign", "ore"),
        concat!("db", "g!("),
    ];
    let mut faults = Vec::new();
    for (file, code) in rust_files() {
        if !code.starts_with("//!") {
            faults.push(format!("{file}: begins with one `//!` sentence that says what it is"));
        }
        for word in banned.iter().filter(|word| code.contains(**word)) {
            faults.push(format!("{file}: {word}"));
        }
        // Tests stand below the code and are not counted: more of them are never too many.
        let is_test = file.ends_with("/tests.rs") || file.contains("/tests/");
        let lines = if is_test { 0 } else { without_tests(&code).lines().count() };
        match LONGER_FILES.iter().find(|(longer, _)| *longer == file) {
            Some((_, most)) if lines > *most => {
                faults.push(format!("{file}: {lines} lines; it had {most} and may only shrink"));
            }
            Some(_) if lines <= LINES_MAX => {
                faults.push(format!("{file}: {lines} lines; take it off the list of longer files"));
            }
            None if lines > LINES_MAX => {
                faults.push(format!("{file}: {lines} lines of {LINES_MAX}; it holds two things"));
            }
            _ => {}
        }
        for line in code.lines() {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let kind = words.find(|word| ["struct", "enum", "trait", "type", "mod"].contains(word));
            let name = words.next().unwrap_or_default();
            let of_nothing = ["Manager", "Helper", "Util", "Common", "helper", "util", "common"];
            let is_comment = line.trim_start().starts_with("//");
            if kind.is_some() && !is_comment && of_nothing.iter().any(|word| name.contains(word)) {
                faults.push(format!("{file}: `{name}` is a name for nothing"));
            }
        }
    }
    none(faults, "docs/style.md says why");
}

#[test]
fn every_module_has_its_word_in_the_glossary() {
    let glossary = read("docs/glossary.md");
    let words: BTreeSet<&str> = glossary.split("**").skip(1).step_by(2).collect();
    let mut faults = Vec::new();
    for room in ["wire", "frame", "crypto", "engine", "io-backends"] {
        let source = format!("{room}/src/");
        for file in files().iter().filter_map(|file| file.strip_prefix(&source)) {
            let module = file.split(['/', '.']).next().unwrap_or_default();
            if !["lib", "test_support"].contains(&module) && !words.contains(module) {
                faults.push(format!("{room}: {module}"));
            }
        }
    }
    faults.dedup();
    none(faults, "put the word in docs/glossary.md, or use one that stands there");
}

#[test]
fn nothing_committed_names_this_machine() {
    let places = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let mut faults = Vec::new();
    for file in files() {
        let Ok(content) = fs::read_to_string(root().join(file)) else { continue };
        for (number, line) in content.lines().enumerate() {
            if places.iter().any(|place| line.contains(place)) {
                faults.push(format!("{file}:{}", number + 1));
            }
        }
    }
    none(faults, "write a path relative to the project, or take it from the environment");
}

/// The targets of `[text](target)` in a page, code blocks left out.
fn links(page: &str) -> Vec<String> {
    let prose: String = page.split("```").step_by(2).collect();
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

/// A heading as mdBook and forges spell its anchor.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut faults = Vec::new();
    for file in markdown_files() {
        let page = read(file);
        for link in links(&page) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = Path::new(file).parent().unwrap_or(Path::new(""));
            let path: PathBuf = match target {
                "" => root().join(file),
                target => root().join(folder).join(target),
            };
            if !path.exists() {
                faults.push(format!("{file}: {link}"));
            } else if !anchor.is_empty() {
                let target = fs::read_to_string(&path).unwrap_or_default();
                if !anchors(&target).contains(anchor) {
                    faults.push(format!("{file}: {link}: no such heading"));
                }
            }
        }
    }
    none(faults, "correct the link");
}

#[test]
fn the_book_lists_every_page() {
    let summary = read("docs/SUMMARY.md");
    let listed: BTreeSet<String> =
        links(&summary).into_iter().map(|page| format!("docs/{page}")).collect();
    let pages = markdown_files().filter(|file| file.starts_with("docs/"));
    let missing = pages.filter(|page| *page != "docs/SUMMARY.md" && !listed.contains(*page));
    none(missing.map(str::to_owned).collect(), "list the page in docs/SUMMARY.md");
}

#[test]
fn the_pages_for_operators_name_every_key_drop_reason_and_command() {
    let mut faults = Vec::new();
    let (reference, counters) = (read("docs/relay/reference.md"), read("docs/relay/counters.md"));
    for line in read("node/src/config/sample.toml").lines() {
        let Some((key, _)) = line.trim_start_matches('#').split_once(" = ") else { continue };
        let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_key && !reference.contains(&format!("`{key}`")) {
            faults.push(format!("docs/relay/reference.md: the key `{key}`"));
        }
    }
    let discards = read("engine/src/discard.rs");
    for line in without_tests(&discards).lines() {
        let name = line.trim().strip_suffix("\",").and_then(|line| line.split_once(" = \""));
        if let Some((_, name)) = name.filter(|(_, name)| !counters.contains(&format!("`{name}`"))) {
            faults.push(format!("docs/relay/counters.md: the reason `{name}`"));
        }
    }
    let main = read("node/src/main.rs");
    let commands = main.split("enum Command {").nth(1).and_then(|rest| rest.split("\n}").next());
    for line in commands.expect("main.rs has the commands").lines() {
        let word: String = line.trim().chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        let is_command = line.starts_with("    ") && line.trim().starts_with(char::is_uppercase);
        if is_command && !reference.contains(&format!("strowger {}", word.to_lowercase())) {
            let is_named = reference.contains(&format!("`{}`", word.to_lowercase()));
            if !is_named {
                faults
                    .push(format!("docs/relay/reference.md: the command {}", word.to_lowercase()));
            }
        }
    }
    none(faults, "the pages for operators name each of them");
}

#[test]
fn decisions_are_numbered_and_say_what_was_measured() {
    let mut numbers = Vec::new();
    let mut faults = Vec::new();
    let decisions = markdown_files().filter_map(|file| file.strip_prefix("docs/decisions/"));
    for file in decisions.filter(|file| *file != "README.md") {
        let page = read(&format!("docs/decisions/{file}"));
        let number: usize = file.get(..4).and_then(|n| n.parse().ok()).unwrap_or(0);
        numbers.push(number);
        if !page.starts_with(&format!("# {number}. ")) {
            faults.push(format!("{file}: the title begins with its number"));
        }
        for part in ["Context", "Decision", "Reason", "Measured"] {
            if !page.contains(&format!("\n## {part}\n")) {
                faults.push(format!("{file}: no part \"{part}\""));
            }
        }
    }
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>(), "numbered without a gap");
    none(faults, "a decision has a number and four parts");
}

#[test]
fn what_is_said_of_the_formats_stands_in_them() {
    let page = read("docs/wire.md");
    let headings: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| {
            line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with("##"))
        })
        .filter_map(|heading| heading.split([' ', '.']).next().map(|_| heading))
        .filter_map(|heading| heading.split_whitespace().next())
        .map(|number| number.trim_end_matches('.'))
        .collect();
    let defined: Vec<&str> =
        page.split("- **W").skip(1).filter_map(|rest| rest.split("**").next()).collect();
    let unique: BTreeSet<&str> = defined.iter().copied().collect();
    assert_eq!(unique.len(), defined.len(), "each requirement of docs/wire.md has its own number");

    let mut faults = Vec::new();
    let cites = files().iter().filter(|file| file.ends_with(".rs") || file.ends_with(".md"));
    for file in cites.filter(|file| !file.starts_with("repo-lint/")) {
        let content = read(file);
        for rest in content.split("wire.md ").skip(1) {
            let rest = rest.strip_prefix("section ").unwrap_or(rest);
            let cited: String =
                rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            let cited = cited.trim_end_matches('.');
            if !cited.is_empty() && !headings.contains(cited) {
                faults.push(format!("{file}: wire.md {cited}"));
            }
        }
        for (at, _) in content.match_indices('W') {
            let cited: String = content[at + 1..]
                .chars()
                .take_while(|c| c.is_ascii_digit() || ".-".contains(*c))
                .collect();
            let is_one = cited.starts_with(|c: char| c.is_ascii_digit()) && cited.contains('-');
            let cited = cited.trim_end_matches(['.', '-']);
            if is_one && cited.contains('-') && !unique.contains(cited) {
                faults.push(format!("{file}: W{cited}"));
            }
        }
    }
    none(faults, "docs/wire.md has no such section or requirement");
}

/// The code block of a page that follows this mark: `<!-- mark -->`.
fn block<'a>(page: &'a str, mark: &str) -> &'a str {
    let mark = format!("<!-- {mark} -->");
    let rest = page.split(&mark).nth(1).unwrap_or_else(|| panic!("no {mark} before a code block"));
    let code = rest.split("```").nth(1).expect("a code block follows the mark");
    code.split_once('\n').map_or("", |(_, code)| code)
}

#[test]
fn the_readme_shows_the_code_that_is_tested() {
    let readme = read("README.md");
    for (page, mark, file) in [
        (readme.as_str(), "embed", "strowger/examples/embed.rs"),
        (&read("docs/embedding.md"), "embed tokio", "strowger/examples/embed_tokio.rs"),
    ] {
        let example = read(file);
        // The function is shown, and what it imports; not what calls it.
        let code = example.split("\ntype Answer").next().unwrap_or_default();
        let code: Vec<&str> = code.lines().filter(|line| !line.starts_with("//!")).collect();
        let code = code.join("\n");
        let lines = code.trim().lines().count();
        assert!(lines <= EMBED_LINES_MAX, "{file}: {lines} lines, and a relay takes no more");
        let (mut shown, mut tested) = (block(page, mark).trim().lines(), code.trim().lines());
        loop {
            match (shown.next(), tested.next()) {
                (None, None) => break,
                (shown, tested) => assert_eq!(shown, tested, "{mark} and {file}"),
            }
        }
    }
    assert_eq!(block(&readme, "demo command").trim(), "cargo run --release -- demo");
    assert_eq!(block(&readme, "test command").trim(), "cargo test --workspace");
    for room in ["loom-tests", "fuzz"] {
        // The first block of these pages is what .ci/run runs.
        let page = read(&format!("{room}/README.md"));
        let first = page.split("```").nth(1).unwrap_or_default();
        let command = format!("cargo test -p strowger-{room}");
        assert!(first.contains(&command), "{room}/README.md: the first code block has `{command}`");
    }
    let missing = DEMO_FIELDS.iter().filter(|field| !readme.contains(&format!("`{field}`")));
    none(
        missing.map(|f| (*f).to_owned()).collect(),
        "README.md says what each field of the demo means",
    );
}

#[test]
fn invariants_have_tests_named_after_them() {
    let code: String = rust_files().map(|(_, code)| code).collect();
    let untested = TESTED_INVARIANTS.iter().filter(|r| !code.contains(&format!("fn {r}")));
    none(
        untested.map(|r| format!("fn {r}...")).collect(),
        "docs/architecture.md lists the invariants",
    );
}

#[test]
fn every_test_that_the_threats_name_exists() {
    let tests: String = rust_files().map(|(_, code)| code).collect();
    let page = read("docs/threats.md");
    let is_test = |word: &&str| {
        let is_name =
            word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        is_name && word.matches('_').count() > 2
    };
    // The last column has the tests; elsewhere there are events and counters, too.
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    let words = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let named: Vec<&str> = words.filter(is_test).collect();
    assert!(named.len() > 30, "docs/threats.md names the test that shows what it says");
    let missing = named.iter().filter(|name| !tests.contains(&format!("fn {name}(")));
    none(missing.map(|name| (*name).to_owned()).collect(), "name the test that there is");
}
