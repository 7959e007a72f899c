//! How a command line names the receiving half of UDP sockets. It never opens one.

use strowger_io::udp::Choice;

/// How our sockets receive.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Backend {
    /// The one that was measured to forward most
    Auto,
    /// io_uring, or an error
    #[value(name = "io_uring")]
    IoUring,
    /// recvmmsg
    Mmsg,
}

impl From<Backend> for Choice {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Auto => Self::Auto,
            Backend::IoUring => Self::IoUring,
            Backend::Mmsg => Self::Mmsg,
        }
    }
}
