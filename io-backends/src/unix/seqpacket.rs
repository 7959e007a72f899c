//! Messages between processes of this machine, with descriptors: sockets of type `SOCK_SEQPACKET`
//! for code that blocks. The local API of `strowger-gateway` uses them.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    mem::size_of,
    net::Shutdown,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use super::{
    ListenError,
    socket::{self, check},
};

/// A listening socket. When it is dropped, it removes its file, unless another file has replaced it.
#[derive(Debug)]
pub struct SeqpacketListener(socket::Listener);

/// A connection. All calls block, and take `&self`: one thread may send while another receives.
#[derive(Debug)]
pub struct Seqpacket(UnixStream);

impl SeqpacketListener {
    /// Listens at `path`, with a file of this mode. Removes a socket file whose process no longer
    /// exists.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(path: &Path, mode: u32) -> Result<Self, ListenError> {
        socket::Listener::bind(path, mode).map(Self)
    }

    /// Removes the file of the socket, unless another file has replaced it. Processes that have
    /// connected before are still accepted.
    pub fn remove_file(&self) {
        self.0.remove_file();
    }

    /// Blocks until a process connects.
    ///
    /// # Errors
    /// No descriptor is available; the process waits. `Interrupted` by a signal.
    pub fn accept(&self) -> io::Result<Seqpacket> {
        loop {
            let mut polled =
                libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: `polled` is one entry, writable, and outlives the call.
            check(unsafe { libc::poll(&raw mut polled, 1, -1) })?;
            if let Some(fd) = self.0.try_accept()? {
                return Seqpacket::blocking(fd);
            }
        }
    }
}

impl Seqpacket {
    fn blocking(fd: OwnedFd) -> io::Result<Self> {
        let stream = UnixStream::from(fd);
        stream.set_nonblocking(false)?;
        Ok(Self(stream))
    }

    /// Connects to a listener.
    ///
    /// # Errors
    /// Errors of `connect(2)`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Self::blocking(socket::connect(path)?)
    }

    /// Two connected sockets.
    ///
    /// # Errors
    /// No descriptor is available.
    pub fn pair() -> io::Result<(Self, Self)> {
        let mut fds = [-1; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        // SAFETY: `fds` has room for two descriptors.
        check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
        // SAFETY: the kernel has just returned these descriptors, and only we have them.
        let [a, b] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        socket::enlarge_buffers(&a);
        socket::enlarge_buffers(&b);
        Ok((Self(a.into()), Self(b.into())))
    }

    /// Another handle of the same socket.
    ///
    /// # Errors
    /// No descriptor is available.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends one message, which consists of these parts. Blocks while the socket is full.
    ///
    /// # Errors
    /// The other end has closed the connection, or the message is too long for the socket.
    pub fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        loop {
            match (&self.0).write_vectored(parts) {
                Ok(_) => return Ok(()), // a message is sent whole
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends one message together with a descriptor. Blocks while the socket is full.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_with(&self, message: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
        /// Room for a header and one descriptor, aligned as the header must be.
        #[repr(C)]
        union Control {
            header: libc::cmsghdr,
            bytes: [u8; 64],
        }
        let mut control = Control { bytes: [0; 64] };
        let mut part =
            libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
        // SAFETY: a `msghdr` consists of integers and pointers, for which zero is a valid value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut control).cast();
        let fd_bytes = size_of::<RawFd>() as u32;
        // SAFETY: the function only computes a length.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(fd_bytes) } as _;
        // SAFETY: `header` points to `control`, which has room for one header and its data.
        let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        // SAFETY: `first` points to the start of `control`, which is aligned for it.
        let cmsg = unsafe { &mut *first };
        cmsg.cmsg_level = libc::SOL_SOCKET;
        cmsg.cmsg_type = libc::SCM_RIGHTS;
        // SAFETY: the function only computes a length.
        cmsg.cmsg_len = unsafe { libc::CMSG_LEN(fd_bytes) } as _;
        // SAFETY: the header's data lie behind it, in `control`.
        let data = unsafe { libc::CMSG_DATA(first) };
        // SAFETY: `control` has room for a descriptor there. It need not be aligned.
        unsafe { data.cast::<RawFd>().write_unaligned(descriptor.as_raw_fd()) };
        loop {
            // SAFETY: `header` and what it points to are readable and outlive the call.
            let sent =
                unsafe { libc::sendmsg(self.0.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Receives one message and returns its length; 0 if the other end has closed the connection. A
    /// longer message is cut to the buffer. Descriptors that come with it are closed.
    ///
    /// # Errors
    /// `WouldBlock` after the timeout of [`set_receive_timeout`](Self::set_receive_timeout).
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&self.0).read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The other end has closed the connection without reading everything.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                done => return done,
            }
        }
    }

    /// Sets how long [`receive`](Self::receive) blocks; `None` means without a limit.
    ///
    /// # Errors
    /// The time is zero.
    pub fn set_receive_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(timeout)
    }

    /// Sets how long [`send`](Self::send) blocks; `None` means without a limit.
    ///
    /// # Errors
    /// The time is zero.
    pub fn set_send_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.set_write_timeout(timeout)
    }

    /// Ends the connection for all handles. Threads that send or receive return.
    pub fn shut_down(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl std::os::fd::AsFd for Seqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
