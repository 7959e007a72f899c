//! `strowger bench`: runs the program `strowger-bench` from the folder of this program.

use std::{ffi::OsString, io, os::unix::process::CommandExt as _, path::Path, process::Command};

use crate::exit::{Exit, Failure};

/// The program that runs the measurements.
const PROGRAM: &str = "strowger-bench";

/// Replaces this process with `strowger-bench`, run with these arguments.
///
/// # Errors
/// The program is missing or cannot be run. If it can be run, the function does not return.
pub(crate) fn run(arguments: &[OsString]) -> Failure {
    let here = match std::env::current_exe() {
        Ok(here) => here,
        Err(error) => {
            let line = format!("cannot find {PROGRAM}: {error}; run it by its path");
            return Failure::new(Exit::Refused, line);
        }
    };
    let program = here.with_file_name(PROGRAM);
    let error = Command::new(&program).args(arguments).exec();
    Failure::new(Exit::Refused, refusal(&program, &error))
}

fn refusal(program: &Path, error: &io::Error) -> String {
    let folder = program.parent().unwrap_or(Path::new(".")).display();
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{PROGRAM} is not in {folder}; install it there, or build it: cargo build --release -p \
             {PROGRAM}"
        ),
        _ => format!("{} cannot be run: {error}", program.display()),
    }
}
