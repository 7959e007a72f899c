//! `strowger bench`: runs the program `strowger-bench` that lies beside this one.

use std::{ffi::OsString, io, os::unix::process::CommandExt as _, path::Path, process::Command};

use crate::exit::{Exit, Failure};

/// The program that measures.
const PROGRAM: &str = "strowger-bench";

/// Becomes the program that measures, with these arguments.
///
/// # Errors
/// It is not there, or cannot be run. It does not return otherwise.
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
            "there is no {PROGRAM} in {folder}; install it there, or build it: cargo build --release -p \
             {PROGRAM}"
        ),
        _ => format!("{} cannot be run: {error}", program.display()),
    }
}
