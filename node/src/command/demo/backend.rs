//! The receive backends of UDP sockets, with the names that the command line uses.

use strowger_io::udp::BackendChoice;

/// How the sockets receive.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Backend {
    /// The default: recvmmsg, the fastest in our benchmarks
    Auto,
    /// io_uring; the demo fails if the kernel does not allow it
    #[value(name = "io_uring")]
    IoUring,
    /// recvmmsg
    Mmsg,
}

impl From<Backend> for BackendChoice {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Auto => Self::Auto,
            Backend::IoUring => Self::IoUring,
            Backend::Mmsg => Self::Mmsg,
        }
    }
}
