//! The reason why something could not be measured, in one line.

use std::{fmt, io};

use strowger_engine::control::{AttachError, ConfigError, peering::PeerError};
use strowger_io::udp::UdpOpenError;
use strowger_wire::label::LabelError;

/// The error of a measurement.
#[derive(Debug)]
pub enum Failure {
    /// The kernel refused this operation.
    Kernel(&'static str, io::Error),
    /// The UDP port could not be opened with these options.
    Open(UdpOpenError),
    /// The switch, a port or a tool refused an operation. The text says why.
    Refused(String),
    /// A run did not go as expected, for example because packets were lost or changed. The text
    /// says what was observed.
    Wrong(String),
    /// The options are not valid.
    Options(String),
    /// An invariant of the benchmark does not hold.
    Bug(&'static str),
}

impl Failure {
    /// Returns a function for `map_err` that adds the name of the operation to an error of the
    /// kernel.
    pub fn kernel<E: Into<io::Error>>(step: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::Kernel(step, error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(step, error) => write!(f, "{step}: {error}"),
            Self::Open(error) => error.fmt(f),
            Self::Refused(why) | Self::Wrong(why) | Self::Options(why) => f.write_str(why),
            Self::Bug(what) => write!(f, "a bug of the benchmark: this does not hold: {what}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<UdpOpenError> for Failure {
    fn from(error: UdpOpenError) -> Self {
        Self::Open(error)
    }
}

impl From<LabelError> for Failure {
    fn from(error: LabelError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        Self::Refused(error.to_string())
    }
}
