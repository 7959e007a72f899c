//! System calls for `SOCK_SEQPACKET` sockets: makes and binds sockets, and removes stale socket
//! files.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
        unix::{ffi::OsStrExt as _, fs::FileTypeExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use super::ListenError;
use crate::sys::folder::set_socket_mode;

/// Size of the send buffer to request. The kernel may give less (`net.core.wmem_max`).
const BUFFER_BYTES: i32 = 1 << 20;

/// Number of free bytes in the send buffer at which the port sends to a blocked client again.
///
/// This is room for some 20 short messages, so that frames are sent again long before the egress
/// queue overflows.
const ROOM_BYTES: i32 = 16 << 10;

/// A socket bound to a file. When it is dropped, it removes the file, unless another file has
/// replaced it.
#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl Listener {
    pub(super) fn bind(path: &Path, mode: u32) -> Result<Self, ListenError> {
        let failed = |what| move |error| ListenError::System { what, path: path.into(), error };
        let fd = seqpacket().map_err(failed("make a socket for"))?;
        // `bind` gives the new file the mode of the socket, less the umask. So the file never has a
        // wider mode than `mode`.
        // SAFETY: no pointers are passed, and we own the descriptor.
        check(unsafe { libc::fchmod(fd.as_raw_fd(), mode) }).map_err(failed("set the mode of"))?;
        let at = SocketName::new(path).ok_or_else(|| ListenError::PathTooLong(path.into()))?;
        if let Err(error) = at.bind(&fd) {
            if error.kind() != io::ErrorKind::AddrInUse {
                return Err(failed("bind")(error));
            }
            remove_if_stale(path, &at)?;
            at.bind(&fd).map_err(failed("bind"))?;
        }
        // Restores the bits that the umask removed.
        let made = set_socket_mode(path, mode).map_err(failed("set the mode of"))?;
        // SAFETY: no pointers are passed, and we own the descriptor.
        check(unsafe { libc::listen(fd.as_raw_fd(), 8) }).map_err(failed("listen on"))?;
        Ok(Self { fd, path: path.into(), file: made.id })
    }

    /// Accepts the next client, if one is waiting.
    pub(super) fn accept(&self) -> Option<OwnedFd> {
        // Without a free descriptor the client waits and is accepted later.
        self.try_accept().ok().flatten()
    }

    /// Accepts the next client, if one is waiting.
    ///
    /// # Errors
    /// No descriptor is available. The client waits.
    pub(super) fn try_accept(&self) -> io::Result<Option<OwnedFd>> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let none = std::ptr::null_mut();
        // SAFETY: null means that the peer's name is not wanted; we own the descriptor.
        let fd = unsafe { libc::accept4(self.fd.as_raw_fd(), none, none.cast(), flags) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Err(error),
                // No client is waiting, or it has disconnected.
                _ => Ok(None),
            };
        }
        // SAFETY: the kernel has just returned this descriptor, and only we have it.
        let client = unsafe { OwnedFd::from_raw_fd(fd) };
        enlarge_buffers(&client);
        Ok(Some(client))
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.remove_file();
    }
}

impl Listener {
    /// Removes the file, unless another one has replaced it.
    pub(super) fn remove_file(&self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket file of a process that has ended. Any other file at the path is an error.
fn remove_if_stale(path: &Path, at: &SocketName) -> Result<(), ListenError> {
    let failed = |what| move |error| ListenError::System { what, path: path.into(), error };
    let there = std::fs::symlink_metadata(path).map_err(failed("look at"))?;
    if !there.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.into()));
    }
    let probe = seqpacket().map_err(failed("make a socket for"))?;
    match at.connect(&probe) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed("remove the stale"))
        }
        // Any other result (connected, wrong type of socket, full queue, no permission) counts as a
        // socket in use.
        _ => Err(ListenError::Busy(path.into())),
    }
}

/// Sends a message. Does not block.
pub(super) fn send(fd: &OwnedFd, message: &[u8]) -> io::Result<()> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    let (at, len) = (message.as_ptr().cast(), message.len());
    // SAFETY: `at` points to `len` readable bytes, and the descriptor is open.
    let sent = unsafe { libc::send(fd.as_raw_fd(), at, len, flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Connects to the socket at `path`.
pub(super) fn connect(path: &Path) -> io::Result<OwnedFd> {
    let fd = seqpacket()?;
    let at = SocketName::new(path)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path is too long"))?;
    at.connect(&fd)?;
    enlarge_buffers(&fd);
    Ok(fd)
}

/// Whether a process is listening on the stream socket at `path`.
///
/// It does not block, as a connection would if the listener's queue is full.
///
/// # Errors
/// The kernel refused to connect for another reason than that no process listens.
pub fn is_served(path: &Path) -> io::Result<bool> {
    let at = SocketName::new(path)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path is too long"))?;
    match at.connect(&socket(libc::SOCK_STREAM)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(_) | Err(_) => Ok(true),
    }
}

fn seqpacket() -> io::Result<OwnedFd> {
    socket(libc::SOCK_SEQPACKET)
}

fn socket(kind: i32) -> io::Result<OwnedFd> {
    let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers are passed.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Requests a larger send buffer. If the kernel refuses, bursts become smaller.
pub(super) fn enlarge_buffers(fd: &OwnedFd) {
    let size = size_of::<i32>() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_SNDBUF);
    let wanted = BUFFER_BYTES;
    let at = (&raw const wanted).cast();
    // SAFETY: `at` points to `size` readable bytes, and we own the descriptor.
    unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, at, size) };
}

pub(super) fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Whether the process at the other end has closed the connection.
pub(super) fn has_hung_up(fd: &OwnedFd) -> bool {
    let mut polled = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: `polled` is one entry, writable, and outlives the call.
    let found = unsafe { libc::poll(&raw mut polled, 1, 0) };
    found != 0
}

/// A path in the form that the system calls for unix sockets require.
struct SocketName {
    at: libc::sockaddr_un,
    len: libc::socklen_t,
}

impl SocketName {
    /// Returns `None` if the path is empty, is longer than 107 bytes or contains a zero byte.
    fn new(path: &Path) -> Option<Self> {
        let path = CString::new(path.as_os_str().as_bytes()).ok()?;
        let bytes = path.as_bytes_with_nul();
        // SAFETY: a `sockaddr_un` consists of integers, for which zero is a valid value.
        let mut at: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        if bytes.len() > at.sun_path.len() || bytes.len() == 1 {
            return None;
        }
        at.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in at.sun_path.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        let len = std::mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len();
        Some(Self { at, len: len as libc::socklen_t })
    }

    fn bind(&self, fd: &OwnedFd) -> io::Result<i32> {
        let at = (&raw const self.at).cast();
        // SAFETY: `at` points to `len` readable bytes; the descriptor is open.
        check(unsafe { libc::bind(fd.as_raw_fd(), at, self.len) })
    }

    fn connect(&self, fd: &OwnedFd) -> io::Result<i32> {
        let at = (&raw const self.at).cast();
        // SAFETY: `at` points to `len` readable bytes; the descriptor is open.
        check(unsafe { libc::connect(fd.as_raw_fd(), at, self.len) })
    }
}

/// Whether a client's socket has room for some messages, or has an error that ends its connection.
///
/// `POLLOUT` alone is not suitable, because the kernel sets it only when three quarters of the send
/// buffer are free. An egress queue of 64 frames would then wait until the client has read about a
/// thousand frames, and would overflow meanwhile (R23).
pub(super) fn has_room(client: &OwnedFd) -> bool {
    let mut poll_fd = libc::pollfd { fd: client.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: the call accesses one entry, which outlives it, and does not wait.
    let ready = unsafe { libc::poll(&raw mut poll_fd, 1, 0) };
    ready > 0 || has_free(client).unwrap_or(false)
}

/// Whether the send buffer has at least [`ROOM_BYTES`] free, or a quarter of its size if that is
/// less.
fn has_free(client: &OwnedFd) -> io::Result<bool> {
    let mut taken = 0_i32;
    // SAFETY: `taken` is a writable integer, which the request fills in.
    check(unsafe { libc::ioctl(client.as_raw_fd(), libc::TIOCOUTQ, &raw mut taken) })?;
    let size = send_buffer_bytes(client)? as i32;
    Ok(size - taken >= ROOM_BYTES.min(size / 4))
}

/// Size of the send buffer of a socket, in bytes.
pub(super) fn send_buffer_bytes(client: &OwnedFd) -> io::Result<usize> {
    let mut size = 0_i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_SNDBUF);
    let at = (&raw mut size).cast();
    // SAFETY: `at` points to `length` writable bytes, and `length` is a writable integer.
    check(unsafe { libc::getsockopt(client.as_raw_fd(), level, option, at, &raw mut length) })?;
    Ok(usize::try_from(size).unwrap_or(0))
}

/// An epoll set: one descriptor that represents all descriptors on which a port waits.
#[derive(Debug)]
pub(super) struct Epoll(OwnedFd);

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just returned this descriptor, and only we have it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds `fd` to the set, for `events`. The kernel removes a descriptor when it is closed.
    pub(super) fn add(&self, fd: RawFd, events: i32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, events)
    }

    /// Changes the events for which the set waits on `fd`.
    pub(super) fn change(&self, fd: RawFd, events: i32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, events)
    }

    fn control(&self, verb: i32, fd: RawFd, events: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: 0 };
        // SAFETY: `event` is readable and outlives the call; both descriptors are open.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), verb, fd, &raw mut event) }).map(drop)
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
