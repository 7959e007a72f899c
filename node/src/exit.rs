//! How the command ends: every exit code and its meaning, and failures as one line for people. It
//! never prints anything itself.

use std::{fmt, io, process::ExitCode};

use strowger_runtime::untrusted::Untrusted;

/// The exit codes. `strowger --help` prints [`TABLE`](Self::TABLE), and nothing else decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something that was checked is not so: a demo, a doctor's finding, a balance that is uneven.
    CheckFailed = 1,
    /// The command line or the configuration is not what it must be. Clap uses the same number.
    Usage = 2,
    /// The machine refused: a busy port, no rights, no memory, a file that cannot be read.
    Refused = 3,
    /// No relay answers at the control socket.
    NoRelay = 4,
    /// The relay answered that it will not do what it was asked.
    Declined = 5,
    /// A thread of a relay has died: a bug of ours, to be reported.
    Died = 6,
}

impl Exit {
    /// The codes, for `--help`.
    pub(crate) const TABLE: &str = "\
Exit codes:
  0  done; a relay that was stopped by SIGINT, SIGTERM or the loss of its terminal
  1  a check failed
  2  wrong usage, or an error in the configuration
  3  the machine refused: busy port, no rights, no memory, unreadable file
  4  no relay answers at the control socket
  5  the relay will not do what it was asked
  6  a thread of the relay died: a bug, please report it";
}

/// Why a command did not do what was asked: a code for programs, one line for people.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// What is wrong and the way out; empty where everything has been said already.
    pub(crate) line: String,
}

impl Failure {
    /// A failure with its line. Line breaks become spaces: an error is one line.
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

/// What is left of an error in writing to standard output: nobody reads any more, which is no
/// failure of ours, or the machine refused.
pub(crate) fn output_ended(error: &io::Error) -> Result<(), Failure> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("cannot write the answer: {error}")))
}
