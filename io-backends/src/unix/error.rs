//! Why a unix port cannot be opened.

use std::{fmt, io, path::PathBuf};

use crate::sys::{CallError, messages::ALLOW_CALLS};

/// Why a unix port cannot be opened.
#[derive(Debug)]
pub enum ListenError {
    /// Another process is listening at this path.
    Busy(PathBuf),
    /// The path refers to a file that is not a socket. The file is not changed.
    NotASocket(PathBuf),
    /// The path is empty, longer than 107 bytes (the limit of the kernel), or contains a zero byte.
    PathTooLong(PathBuf),
    /// A sandbox refuses all calls that send or receive messages.
    CallsRefused {
        /// The path of the socket.
        path: PathBuf,
        /// The call for one message, and the error with which it was refused.
        error: CallError,
    },
    /// Another system call failed.
    System {
        /// The operation that failed, for example `bind`.
        what: &'static str,
        /// The path of the socket.
        path: PathBuf,
        /// The kernel's error.
        error: io::Error,
    },
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(path) => {
                write!(
                    f,
                    "{}: another process listens there; stop it or use another path",
                    path.display()
                )
            }
            Self::NotASocket(path) => {
                write!(
                    f,
                    "{}: this file is not a socket; move it or use another path",
                    path.display()
                )
            }
            Self::PathTooLong(path) => {
                write!(
                    f,
                    "{}: the path of a socket has 1 to 107 bytes; use a shorter one",
                    path.display()
                )
            }
            Self::CallsRefused { path, error } => {
                write!(f, "{}: {error}; {ALLOW_CALLS}", path.display())
            }
            Self::System { what, path, error } => {
                write!(f, "cannot {what} {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { error, .. } => Some(error),
            Self::CallsRefused { error, .. } => Some(error),
            _ => None,
        }
    }
}
