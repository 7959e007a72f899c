//! The imports that are allowed between crates, and between modules of the engine.

use crate::{
    CONNECTION, CRYPTO, ENGINE, FRAME, Faults, IO, OWN_FOLDER, ROUTING, RUNTIME, Repo, SOCKET,
    WIRE, list, text, without_tests,
};

/// The crates that each crate of the workspace may import. A crate may also import itself in its
/// tests.
const ARROWS: [(&str, &[&str]); 18] = [
    (WIRE, &[]),
    (FRAME, &[]),
    (CRYPTO, &[WIRE]),
    (ROUTING, &[WIRE, CRYPTO]),
    (CONNECTION, &[WIRE, FRAME, CRYPTO, ROUTING]),
    (IO, &[FRAME]),
    (ENGINE, &[WIRE, FRAME, CRYPTO]),
    (RUNTIME, &[WIRE, FRAME, CRYPTO, ENGINE, IO]),
    (SOCKET, &[WIRE, FRAME, CRYPTO, ROUTING, CONNECTION, ENGINE, IO, RUNTIME]),
    ("strowger", &[WIRE, FRAME, CRYPTO, ROUTING, ENGINE, IO, RUNTIME, SOCKET]),
    ("strowger-cli", &[WIRE, FRAME, CRYPTO, ROUTING, CONNECTION, ENGINE, IO, RUNTIME]),
    ("strowger-gateway", &[WIRE, FRAME, CRYPTO, ROUTING, CONNECTION, IO, RUNTIME, SOCKET]),
    (CHAIN, &[WIRE, FRAME, ENGINE, IO]),
    (
        "strowger-bench",
        &[WIRE, FRAME, CRYPTO, ROUTING, CONNECTION, ENGINE, IO, RUNTIME, SOCKET, CHAIN],
    ),
    ("strowger-fuzz", &[WIRE, FRAME, CRYPTO, ROUTING, CONNECTION, ENGINE, IO, "strowger-gateway"]),
    ("strowger-loom-tests", &[WIRE, FRAME, CRYPTO, ENGINE, IO]),
    (TESTKIT, &[WIRE, FRAME, CRYPTO, ENGINE, IO]),
    ("strowger-repo-lint", &[]),
];

/// The crate with the switches whose instructions are counted.
const CHAIN: &str = "strowger-bench-chain";

/// The crate with the code that tests share. Every crate may import it, but only as a
/// dev-dependency.
const TESTKIT: &str = "strowger-testkit";

/// Imports that are allowed only as dev-dependencies: tests of the engine use the memory port.
const ARROWS_OF_TESTS: [(&str, &str); 1] = [(ENGINE, IO)];

/// Facilities that the engine, routing and connections must not use: these crates are sans I/O.
const ABSENT_WITHOUT_IO: [&str; 7] =
    ["std::time", "std::net", "std::fs", "std::thread", "println!", "Mutex", "RwLock"];

/// Whether a crate of the workspace has this name.
pub(crate) fn is_ours(name: &str) -> bool {
    ARROWS.iter().any(|(ours, _)| *ours == name)
}

/// Each crate imports only what `ARROWS` allows. The table and the workspace have the same members.
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

/// In the engine, only `control` and `lib.rs` may name workers, and `worker.rs` may name only
/// `SwitchConfig` of `control`. The engine does no I/O.
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
        for absent in ABSENT_WITHOUT_IO.iter().filter(|absent| code.contains(**absent)) {
            faults.add(format!("{file} uses {absent}"));
        }
    }
    faults
}

/// Routing and connections do no I/O.
pub fn routing_does_no_io(repo: &Repo) -> Faults {
    let mut faults = Faults::new("pass time, texts and messages as arguments");
    let folders = ["routing/src/", "connection/src/"];
    let sources =
        |(file, _): &(&str, String)| folders.iter().any(|folder| file.starts_with(folder));
    for (file, code) in repo.rust_files().filter(sources) {
        for absent in ABSENT_WITHOUT_IO.iter().filter(|absent| code.contains(**absent)) {
            faults.add(format!("{file} uses {absent}"));
        }
    }
    faults
}

/// In the crates `node`, `strowger` and `runtime`, only `WorkerLoop` polls a worker. Outside of the
/// engine, only `WorkerLoop` arms a worker's ports to block.
///
/// Benchmarks and tests may poll a worker themselves.
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
