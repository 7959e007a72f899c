//! Exit codes, and failures as one line of text.

use std::{fmt, io, process::ExitCode};

use strowger_runtime::untrusted::Untrusted;

/// The exit codes. Codes that `strowger` also has mean the same there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A check failed: no ping was answered, a file arrived with another hash, a stage of `probe`
    /// failed.
    CheckFailed = 1,
    /// The command line, a configuration or the address book is wrong. Clap uses the same number.
    Usage = 2,
    /// The system refused an operation: a file cannot be read or written, or there is no memory.
    Refused = 3,
    /// No relay answers at the socket.
    NoRelay = 4,
    /// There is no connection to the peer: no route, no answer, or the peer refuses.
    NoPeer = 7,
}

impl Exit {
    /// The codes, for `--help`.
    pub(crate) const TABLE: &str = "\
Exit codes:
  0  success
  1  a check failed: no ping was answered, a hash differs, a stage of probe failed
  2  wrong usage, or an error in a configuration or in the address book
  3  the machine refused: unreadable file, existing file, no memory
  4  no relay answers at the socket for programs
  7  no connection to the peer: no route, no answer, another peer, or the peer refuses";
}

/// The failure of a command: an exit code for programs, and one line of text for the user.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code of the process.
    pub(crate) exit: Exit,
    /// The line for the user: what failed, why, and what to do. Empty if the command has already
    /// reported the failure.
    pub(crate) line: String,
}

impl Failure {
    /// A failure with this line. Line breaks become spaces.
    pub(crate) fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self { exit, line: line.into().replace(['\n', '\r'], " ") }
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Untrusted(&self.line).fmt(f)
    }
}

impl std::error::Error for Failure {}

/// Converts an error of writing to standard output. A closed pipe is no failure.
pub(crate) fn output_ended(error: &io::Error) -> Result<(), Failure> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("cannot write the output: {error}")))
}
