//! Exit codes, and failures as one line of text.

use std::{fmt, io, process::ExitCode};

use strowger_runtime::untrusted::Untrusted;

/// The exit codes, as `strowger --help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A check failed. For example, a test of `doctor` or of the demo failed, a ping got no reply,
    /// or the counters do not balance.
    CheckFailed = 1,
    /// The command line or the configuration is wrong. Clap uses the same number.
    Usage = 2,
    /// The machine refused an operation: a port is in use, privileges or memory are missing, a file
    /// cannot be read.
    Refused = 3,
    /// No relay answers at the control socket.
    NoRelay = 4,
    /// The relay refused the request.
    Declined = 5,
    /// A thread of a relay died. This is a bug.
    Died = 6,
}

impl Exit {
    /// The codes, for `--help`.
    pub(crate) const TABLE: &str = "\
Exit codes:
  0  success; a relay that SIGINT, SIGTERM or the loss of its terminal has ended
  1  a check failed
  2  wrong usage, or an error in the configuration
  3  the machine refused: busy port, no privileges, no memory, unreadable file
  4  no relay answers at the control socket
  5  the relay refused the request
  6  a thread of the relay died: a bug, please report it";
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

/// Converts an error of writing to standard output. An output that its reader has closed is not a
/// failure.
pub(crate) fn output_ended(error: &io::Error) -> Result<(), Failure> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("cannot write the answer: {error}")))
}
