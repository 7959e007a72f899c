//! Runs programs from the folder of this program: `strowger-bench`, `strowger-gateway`.

use std::{ffi::OsString, io, os::unix::process::CommandExt as _, path::Path, process::Command};

use crate::exit::{Exit, Failure};

/// The program that runs the measurements.
pub(crate) const BENCH: &str = "strowger-bench";
/// The program that makes connections to peers.
pub(crate) const GATEWAY: &str = "strowger-gateway";

/// Replaces this process by a program with these arguments (`exec`).
///
/// # Errors
/// The program is missing or cannot be run. If it can be run, the function does not return.
pub(crate) fn run(program: &str, arguments: &[OsString]) -> Failure {
    let here = match std::env::current_exe() {
        Ok(here) => here,
        Err(error) => {
            let line = format!("cannot find {program}: {error}; run it by its path");
            return Failure::new(Exit::Refused, line);
        }
    };
    let path = here.with_file_name(program);
    let error = Command::new(&path).args(arguments).exec();
    Failure::new(Exit::Refused, refusal(program, &path, &error))
}

/// Runs a subcommand of `strowger-gateway`, as [`run`].
///
/// # Errors
/// As [`run`].
pub(crate) fn gateway(subcommand: &str, arguments: &[OsString]) -> Failure {
    let all = [OsString::from(subcommand)].into_iter().chain(arguments.iter().cloned());
    run(GATEWAY, &all.collect::<Vec<_>>())
}

fn refusal(program: &str, path: &Path, error: &io::Error) -> String {
    let folder = path.parent().unwrap_or(Path::new(".")).display();
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{program} is not in {folder}; install it there, or build it: cargo build --release -p \
             {program}"
        ),
        _ => format!("{} cannot be run: {error}", path.display()),
    }
}
