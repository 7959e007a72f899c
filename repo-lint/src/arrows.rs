//! The imports that are allowed between crates, and between modules of the engine.

use crate::{
    CRYPTO, ENGINE, FRAME, Faults, IO, OWN_FOLDER, RUNTIME, Repo, WIRE, list, text, without_tests,
};

/// The crates that each of our crates may import. A crate may always import itself in its tests.
const ARROWS: [(&str, &[&str]); 13] = [
    (WIRE, &[]),
    (FRAME, &[]),
    (CRYPTO, &[WIRE]),
    (IO, &[FRAME]),
    (ENGINE, &[WIRE, FRAME, CRYPTO]),
    (RUNTIME, &[WIRE, FRAME, CRYPTO, ENGINE, IO]),
    ("strowger", &[WIRE, FRAME, CRYPTO, ENGINE, IO, RUNTIME]),
    ("strowger-cli", &[WIRE, FRAME, CRYPTO, ENGINE, IO, RUNTIME]),
    ("strowger-bench", &[WIRE, FRAME, CRYPTO, ENGINE, IO, RUNTIME]),
    ("strowger-fuzz", &[WIRE, FRAME, CRYPTO, ENGINE, IO]),
    ("strowger-loom-tests", &[WIRE, FRAME, CRYPTO, ENGINE, IO]),
    (TESTKIT, &[WIRE, FRAME, CRYPTO, ENGINE, IO]),
    ("strowger-repo-lint", &[]),
];

/// The crate that tests share. Every crate may import it, and only as a dev-dependency.
const TESTKIT: &str = "strowger-testkit";

/// Imports that are allowed as dev-dependencies alone: the engine is tested over the memory port.
const ARROWS_OF_TESTS: [(&str, &str); 1] = [(ENGINE, IO)];

/// Facilities that the engine does not use, since it is sans I/O.
const ABSENT_FROM_THE_ENGINE: [&str; 7] =
    ["std::time", "std::net", "std::fs", "std::thread", "println!", "Mutex", "RwLock"];

/// Whether this is a crate of the workspace.
pub(crate) fn is_ours(name: &str) -> bool {
    ARROWS.iter().any(|(ours, _)| *ours == name)
}

/// Each crate imports only what the table of arrows allows, and each member has a row in it.
pub fn crates_import_along_the_arrows(repo: &Repo) -> Faults {
    let mut faults = Faults::new(
        "docs/architecture.md draws the arrows; a new one is drawn in a change of its own",
    );
    for package in repo.members() {
        let from = text(&package["name"]);
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == from) else {
            faults.add(format!("{from} is not in the table of arrows"));
            continue;
        };
        for dependency in list(&package["dependencies"]) {
            let to = text(&dependency["name"]);
            let tests_only = text(&dependency["kind"]) == "dev";
            let is_allowed = allowed.contains(&to)
                || tests_only && ARROWS_OF_TESTS.contains(&(from, to))
                || tests_only && [from, TESTKIT].contains(&to);
            faults.add_unless(!is_ours(to) || is_allowed, format!("{from} -> {to}"));
        }
    }
    for (name, _) in ARROWS {
        let is_member = repo.members().iter().any(|package| text(&package["name"]) == name);
        faults.add_unless(is_member, format!("{name} has an arrow and is no member"));
    }
    faults
}

/// Only `control` may name workers. The worker may name only the configuration of `control`. The
/// engine does no I/O.
pub fn inside_the_engine_the_worker_knows_no_control(repo: &Repo) -> Faults {
    let mut faults = Faults::new(
        "the engine reads no clock, file or socket, starts no thread and locks nothing",
    );
    let code = |file: &str| {
        let all = repo.read(file);
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        without_tests(&all).lines().filter(is_code).collect::<Vec<_>>().join("\n")
    };
    let worker = code("engine/src/worker.rs");
    let known = worker.matches("control::").count();
    let config = worker.matches("control::SwitchConfig").count();
    faults.add_unless(known == config, "of control, worker.rs may know SwitchConfig alone");
    for file in repo.files().filter(|file| file.starts_with("engine/src/")) {
        let code = code(file);
        let outside_control = !file.contains("/control/") && file != "engine/src/lib.rs";
        if outside_control && file != "engine/src/worker.rs" && code.contains("worker::") {
            faults.add(format!("{file} knows a worker; only control may"));
        }
        for absent in ABSENT_FROM_THE_ENGINE.iter().filter(|absent| code.contains(**absent)) {
            faults.add(format!("{file} uses {absent}"));
        }
    }
    faults
}

/// In the published code, `WorkerLoop` is the only loop around a worker, and the only code that
/// blocks for one.
///
/// Benchmarks and tests may step a worker by hand.
pub fn one_loop_runs_around_a_worker(repo: &Repo) -> Faults {
    let mut faults = Faults::new("run it by strowger_runtime::WorkerLoop");
    let is_shipped = |file: &str| {
        ["node/", "strowger/", "runtime/"].iter().any(|folder| file.starts_with(folder))
    };
    for (file, code) in repo.rust_files().filter(|(file, _)| !file.starts_with(OWN_FOLDER)) {
        let is_the_loop = file == "runtime/src/worker_thread.rs";
        if is_shipped(file) && !is_the_loop && code.contains("worker.poll(") {
            faults.add(format!("{file} polls a worker"));
        }
        let is_engine = file.starts_with("engine/");
        if !is_the_loop && !is_engine && code.contains("worker.arm(") {
            faults.add(format!("{file} blocks for a worker"));
        }
    }
    faults
}
