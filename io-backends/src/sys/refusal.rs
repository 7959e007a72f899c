//! Why the machine refuses an operation, and how to allow it: one type for ports, probes and
//! accounts.

use std::{error::Error, fmt, io};

/// An error number of the kernel. It is displayed as name and number: `EPERM (os error 1)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The error number of the system call that just failed.
    pub(crate) fn last() -> Self {
        Self::of(&io::Error::last_os_error())
    }

    /// The error number in an [`io::Error`]; 0 if it holds none.
    pub(crate) fn of(error: &io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or_default())
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            libc::EPERM => "EPERM",
            libc::ENOENT => "ENOENT",
            libc::ESRCH => "ESRCH",
            libc::EIO => "EIO",
            libc::ENXIO => "ENXIO",
            libc::EAGAIN => "EAGAIN",
            libc::ENOMEM => "ENOMEM",
            libc::EACCES => "EACCES",
            libc::EBUSY => "EBUSY",
            libc::EEXIST => "EEXIST",
            libc::ENODEV => "ENODEV",
            libc::EINVAL => "EINVAL",
            libc::ENFILE => "ENFILE",
            libc::EMFILE => "EMFILE",
            libc::ENOSPC => "ENOSPC",
            libc::ERANGE => "ERANGE",
            libc::ENOSYS => "ENOSYS",
            libc::EPROTO => "EPROTO",
            libc::EMSGSIZE => "EMSGSIZE",
            libc::ENOPROTOOPT => "ENOPROTOOPT",
            libc::EOPNOTSUPP => "EOPNOTSUPP",
            libc::EAFNOSUPPORT => "EAFNOSUPPORT",
            libc::EADDRINUSE => "EADDRINUSE",
            libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
            libc::ENETDOWN => "ENETDOWN",
            libc::ENETUNREACH => "ENETUNREACH",
            libc::ENOBUFS => "ENOBUFS",
            libc::ETIMEDOUT => "ETIMEDOUT",
            number => return write!(f, "os error {number}"),
        };
        write!(f, "{name} (os error {})", self.0)
    }
}

impl Error for Errno {}

/// A system call or a socket option that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallError {
    /// The call, the option or the step that failed, for example `bind` or `UDP_GRO`.
    pub call: &'static str,
    /// The kernel's error.
    pub errno: Errno,
}

impl CallError {
    pub(crate) fn new(call: &'static str, errno: i32) -> Self {
        Self { call, errno: Errno(errno) }
    }

    /// The call that just failed, with the errno of this thread.
    pub(crate) fn last(call: &'static str) -> Self {
        Self { call, errno: Errno::last() }
    }

    /// Adds the remedy, which is an instruction for the operator. It is empty if none is known.
    pub(crate) fn with_remedy(self, remedy: impl Into<String>) -> Refusal {
        Refusal { what: self.call.to_owned(), errno: Some(self.errno), remedy: remedy.into() }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.errno)
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.errno)
    }
}

/// An operation that does not work on this machine, and the remedy.
///
/// It is displayed as one line: `io_uring_setup: EPERM (os error 1); allow io_uring in the seccomp
/// profile`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    what: String,
    errno: Option<Errno>,
    remedy: String,
}

impl Refusal {
    /// A refusal that was not caused by a system call. `remedy` is empty if none is known.
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), errno: None, remedy: remedy.into() }
    }

    /// What failed, with the errno if a system call failed, and without the remedy:
    /// `io_uring_setup: EPERM (os error 1)`.
    pub fn reason(&self) -> String {
        match self.errno {
            Some(errno) => format!("{}: {errno}", self.what),
            None => self.what.clone(),
        }
    }

    /// The remedy, which is an instruction for the operator. It is empty if none is known.
    pub fn remedy(&self) -> &str {
        &self.remedy
    }

    /// The kernel's error, if the refusal was caused by a system call.
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason())?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.errno.as_ref().map(|errno| errno as &(dyn Error + 'static))
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        error.with_remedy("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_call_the_error_and_the_remedy() {
        let error = CallError::new("bind", libc::EACCES);
        assert_eq!(error.to_string(), "bind: EACCES (os error 13)");
        let refusal = error.with_remedy("use a port above 1023");
        assert_eq!(refusal.to_string(), "bind: EACCES (os error 13); use a port above 1023");
        assert_eq!(refusal.reason(), "bind: EACCES (os error 13)");
        assert_eq!(refusal.source().map(ToString::to_string), Some("EACCES (os error 13)".into()));
        let unknown = Refusal::from(CallError::new("bind", 4_095));
        assert_eq!(unknown.to_string(), "bind: os error 4095");
        let other = Refusal::new("not enough memory", "");
        assert_eq!((other.to_string().as_str(), other.errno()), ("not enough memory", None));
        assert!(other.source().is_none());
    }
}
