//! The file of the control socket. Only its owner can use the socket, and the file is removed at
//! the end.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use strowger_io::{sys::folder, unix};

use crate::exit::{Exit, Failure};
use strowger_runtime::files::Opener;

/// A bound control socket. Dropping it removes its file.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// The device and inode of the socket's file.
    file: (u64, u64),
}

impl ControlSocket {
    /// Binds the socket with mode 0600. Removes the socket of a relay that has ended.
    ///
    /// # Errors
    /// One line: a running relay uses the socket, a file that is not a socket has the path, or the
    /// kernel refuses a call.
    pub(crate) fn bind(path: &Path, opener: &Opener) -> Result<Self, Failure> {
        let bound = opener.within(path, |_, _| Ok(Self::bind_here(path)));
        bound.unwrap_or_else(|error| {
            let shown = path.display();
            Err(Failure::new(Exit::Refused, format!("control socket {shown}: {error}")))
        })
    }

    fn bind_here(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let refused = |what: &str, error: &io::Error| {
            let line = format!(
                "control socket {shown}: cannot {what}: {error}; choose another with [control] \
                 socket"
            );
            Failure::new(Exit::Refused, line)
        };
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(|error| refused("bind", &error))?;
        let made = folder::set_socket_mode(path, 0o600);
        let file = made.map_err(|error| refused("set its mode", &error))?.id;
        let control = Self { listener, path: path.to_owned(), file };
        let listener = &control.listener;
        listener.set_nonblocking(true).map_err(|error| refused("make it non-blocking", &error))?;
        // Close the connections that were made before the mode was set.
        while listener.accept().is_ok() {}
        Ok(control)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Another relay may have bound its socket at this path in the meantime.
        let is_ours = |file: fs::Metadata| (file.dev(), file.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket of a relay that has ended.
fn remove_stale(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        let line = format!(
            "control socket {shown}: a file that is no socket is in the way; move it, or choose \
            another with [control] socket"
        );
        return Err(Failure::new(Exit::Refused, line));
    }
    match unix::is_served(path) {
        Ok(false) => {
            let _ = fs::remove_file(path);
            Ok(())
        }
        Ok(true) | Err(_) => {
            let line = format!(
                "control socket {shown}: a relay runs there already; stop it, or choose another \
                 with [control] socket"
            );
            Err(Failure::new(Exit::Refused, line))
        }
    }
}
