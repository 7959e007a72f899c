//! Checks whether a start could open the files of a relay. The checks do not make, write, lock or
//! remove a file.

use std::{
    io::{self, Read as _},
    path::Path,
};

use strowger_io::sys::folder::{FileInfo, Folder, OpenMode};

use super::{Opener, PCAPNG, Role, Roles};

impl Roles {
    /// All files with their roles, in the order in which they were added.
    pub fn each(&self) -> impl Iterator<Item = (&Role, &Path)> {
        self.0.iter().map(|(role, path)| (role, path.as_path()))
    }
}

impl Opener {
    /// Whether a file that only the relay writes could be made or opened. Returns the file's
    /// metadata if it exists.
    ///
    /// # Errors
    /// The reason.
    pub fn may_keep(&self, path: &Path) -> io::Result<Option<FileInfo>> {
        self.within(path, |folder, name| {
            let found = folder.may_keep(name)?;
            if let Some(found) = &found {
                self.check_owner(found)?;
            }
            Ok(found)
        })
    }

    /// Whether a capture could be made or overwritten.
    ///
    /// # Errors
    /// The reason; `InvalidInput` for a file that is no capture.
    pub fn may_capture(&self, path: &Path) -> io::Result<()> {
        if self.may_keep(path)?.is_none() {
            return Ok(());
        }
        let (file, _) = self.within(path, |folder, name| folder.open(name, OpenMode::Read))?;
        let mut first = Vec::new();
        file.take(PCAPNG.len() as u64).read_to_end(&mut first)?;
        if first.is_empty() || first == PCAPNG { Ok(()) } else { Err(super::no_capture()) }
    }

    /// Whether a socket could be bound at this path. Returns the metadata of a socket file that
    /// already exists there.
    ///
    /// # Errors
    /// The reason.
    pub fn may_bind(&self, path: &Path) -> io::Result<Option<FileInfo>> {
        self.within(path, |folder, name| {
            folder.may_write()?;
            match folder.find(name) {
                Ok(found) if found.is_socket() => Ok(Some(found)),
                Ok(found) => {
                    let text = format!("{} is in the way; move it", found.kind());
                    Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// Whether the running relay could replace this file, as the account if there is one.
    ///
    /// # Errors
    /// The reason.
    pub fn may_replace_later(&self, path: &Path) -> io::Result<()> {
        let may = || {
            let (folder, name) = Folder::of(path)?;
            folder.may_replace(&name)
        };
        match &self.account {
            None => may(),
            Some(account) => {
                account.with_file_rights(may).map_err(|why| io::Error::other(why.to_string()))?
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_check_makes_and_writes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().canonicalize().unwrap();
        let opener = Opener::default();
        for name in ["none", "none.pcapng"] {
            assert_eq!(opener.may_keep(&at.join(name)).unwrap(), None);
            opener.may_capture(&at.join(name)).unwrap();
            assert_eq!(opener.may_bind(&at.join(name)).unwrap(), None);
            opener.may_replace_later(&at.join(name)).unwrap();
        }
        assert_eq!(fs::read_dir(&at).unwrap().count(), 0);

        fs::write(at.join("notes"), "not a capture").unwrap();
        fs::write(at.join("empty"), "").unwrap();
        symlink(at.join("elsewhere"), at.join("link")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(at.join("socket")).unwrap();
        opener.may_capture(&at.join("empty")).unwrap();
        assert!(opener.may_bind(&at.join("socket")).unwrap().is_some());
        for (name, word) in [("notes", "no capture"), ("link", "link"), ("socket", "socket")] {
            let refused = opener.may_capture(&at.join(name)).expect_err(name);
            assert!(refused.to_string().contains(word), "{name}: {refused}");
        }
        for name in ["notes", "link"] {
            let refused = opener.may_bind(&at.join(name)).expect_err(name);
            assert!(refused.to_string().contains("in the way"), "{name}: {refused}");
        }
        let refused = opener.may_keep(&at.join("no/file")).expect_err("no folder");
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read_to_string(at.join("notes")).unwrap(), "not a capture");
        drop(socket);
    }
}
