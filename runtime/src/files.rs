//! Safe access to the files of a relay. Except for the configuration, it opens only regular files,
//! follows no symbolic link of another user, and does not block on a pipe. It also checks that each
//! file has one purpose.
//!
//! # Folders that the unprivileged user may change
//! Root may start a relay that later switches to another user (`[process]`). That user must not be
//! able to misuse root's privileges through symbolic links, hard links or pipes in its own folder.
//! In a folder that only root can change, [`Opener`] uses root's privileges, and gives new sockets
//! to the user. In any other folder it uses the user's file privileges (`setfsuid`), so that the
//! kernel decides.
//!
//! | role | opened | symbolic link as last component |
//! |---|---|---|
//! | configuration | for reading, by the path on the command line | followed |
//! | key, psk | for reading; mode 0600, owned by root, this user or the later one | followed if root or this user owns it |
//! | state | for reading, and replaced by rename | refused |
//! | state.lock, captures | for writing, mode 0600 | refused |
//! | new keys | made, never overwritten, mode 0600 | refused |
//! | sockets | made by bind, mode 0600 | refused |

mod may;

use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::{OsStr, OsString},
    fmt,
    fs::{self, File, Permissions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use strowger_io::sys::{
    account::Account,
    folder::{FileInfo, Folder, OpenMode, file_user},
};
use zeroize::Zeroizing;

use crate::limits::{CONFIG_BYTES_MAX, STATE_BYTES_MAX};

/// The mode of new files: only the owner may read and write them.
const MODE: u32 = 0o600;
/// The mode bits that group and others must not have.
const OTHERS: u32 = 0o077;
/// The first bytes of a pcapng file: the type of its first block.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The role of a file. One file has one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The configuration.
    Configuration,
    /// The key of the relay.
    Key,
    /// The pre-shared key of a link.
    Psk,
    /// The address book.
    AddressBook,
    /// The state file.
    State,
    /// The new state file, before it replaces the old one.
    StateNew,
    /// The lock of the state file.
    StateLock,
    /// The capture file of the section with this title and name.
    Capture(String),
    /// The control socket.
    Control,
    /// The socket of the `[[unix]]` with this name.
    Unix(String),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration => f.write_str("the configuration"),
            Self::Key => f.write_str("the key of [identity]"),
            Self::Psk => f.write_str("a psk"),
            Self::AddressBook => f.write_str("the address book"),
            Self::State => f.write_str("the state file"),
            Self::StateNew => f.write_str("the new state file, until it is whole"),
            Self::StateLock => f.write_str("the lock of the state file"),
            Self::Capture(of) => write!(f, "the capture of {of}"),
            Self::Control => f.write_str("the control socket"),
            Self::Unix(name) => write!(f, "the socket of [[unix]] {name}"),
        }
    }
}

/// Appends a suffix to the name of a file. For example, `state` and `.lock` give `state.lock`.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// The files of a configuration with their roles.
#[derive(Debug, Default)]
pub struct Roles(Vec<(Role, PathBuf)>);

impl Roles {
    /// Adds a file. The file need not exist yet.
    pub fn add(&mut self, role: Role, path: impl Into<PathBuf>) {
        self.0.push((role, path.into()));
    }

    /// Returns a message for each file that has two roles. Files are compared by resolved path, and
    /// by device and inode.
    pub fn conflicts(&self) -> Vec<String> {
        let mut by_path: HashMap<PathBuf, &Role> = HashMap::new();
        let mut by_id: HashMap<(u64, u64), &Role> = HashMap::new();
        let mut lines = Vec::new();
        for (role, path) in &self.0 {
            let id = fs::metadata(path).ok().map(|there| (there.dev(), there.ino()));
            let first = by_path.get(&resolved(path)).or_else(|| by_id.get(&id?)).copied();
            match first {
                // Several links may use the same pre-shared key file.
                Some(Role::Psk) if *role == Role::Psk => {}
                Some(first) => lines.push(format!(
                    "{role}: {} is also {first}; each file has one purpose: choose another path",
                    path.display()
                )),
                None => {
                    by_path.insert(resolved(path), role);
                    if let Some(id) = id {
                        by_id.insert(id, role);
                    }
                }
            }
        }
        lines
    }
}

/// The path with the symbolic links of its folder resolved, if the folder exists.
fn resolved(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    folder.join(path.file_name().unwrap_or_default())
}

/// Opens the files of a relay while the process has the privileges with which it started.
#[derive(Debug, Default)]
pub struct Opener {
    account: Option<Account>,
    /// The files opened for writing, by device and inode, with their paths.
    opened: RefCell<HashMap<(u64, u64), PathBuf>>,
}

impl Opener {
    /// An opener for a relay. With `account`, the relay later switches to that account.
    pub fn new(account: Option<&Account>) -> Self {
        Self { account: account.cloned(), opened: RefCell::default() }
    }

    /// Calls `what` with the folder and the file name of a path, under the file privileges that are
    /// safe for the folder. `what` must not start a thread.
    ///
    /// # Errors
    /// Errors of the kernel, or of `what`.
    pub fn within<T>(
        &self,
        path: &Path,
        what: impl FnOnce(&Folder, &OsStr) -> io::Result<T>,
    ) -> io::Result<T> {
        let walked = Folder::of(path);
        let Some(account) = &self.account else {
            let (folder, name) = walked?;
            return what(&folder, &name);
        };
        match walked {
            Ok((folder, name)) if folder.is_ours() => what(&folder, &name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            // The account may have placed symbolic links in the path, so use the account's
            // privileges.
            Ok(_) | Err(_) => {
                let done = account.with_file_rights(|| {
                    let (folder, name) = Folder::of(path)?;
                    what(&folder, &name)
                });
                done.map_err(|error| io::Error::other(error.to_string()))?
            }
        }
    }

    /// Makes the account the owner of a socket, if root made the socket.
    ///
    /// # Errors
    /// Errors of the kernel.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        let Some(account) = &self.account else { return Ok(()) };
        let (folder, name) = Folder::of(path)?;
        // In any other folder, the socket was made with the account's privileges.
        if folder.is_ours() { folder.give(&name, account.user, account.group) } else { Ok(()) }
    }

    /// Opens or makes a file with mode 0600 that only this relay writes.
    fn keep(&self, path: &Path) -> io::Result<File> {
        let file = self.within(path, |folder, name| {
            let (file, found) = folder.open(name, OpenMode::ReadWrite)?;
            self.check_owner(&found)?;
            if found.mode & 0o777 != MODE {
                file.set_permissions(Permissions::from_mode(MODE))?;
            }
            Ok((file, found))
        });
        let (file, found) = file?;
        if let Some(other) = self.opened.borrow_mut().insert(found.id, path.to_owned()) {
            let text = format!("it is open already, as {}", other.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(file)
    }

    /// Makes a capture file, or overwrites one. The content of any other file is not changed.
    ///
    /// # Errors
    /// Errors of the kernel; `InvalidInput` for a file that is no capture.
    pub fn capture(&self, path: &Path) -> io::Result<File> {
        let mut file = self.keep(path)?;
        let mut first = Vec::new();
        (&mut file).take(PCAPNG.len() as u64).read_to_end(&mut first)?;
        if !first.is_empty() && first != PCAPNG {
            return Err(no_capture());
        }
        file.set_len(0)?;
        io::Seek::rewind(&mut file)?;
        Ok(file)
    }

    /// Locks the lock file of a state file for this process. Returns `None` if no file can be made
    /// in that folder. In that case the later write of the state file fails and reports the cause.
    ///
    /// # Errors
    /// One line: another process has the lock, or the file cannot be used.
    pub fn lock(&self, state: &Path) -> Result<Option<File>, String> {
        let path = beside(state, ".lock");
        let file = match self.keep(&path) {
            Ok(file) => file,
            // Check the path itself and not the target of a symbolic link.
            Err(_) if fs::symlink_metadata(&path).is_err() => return Ok(None),
            Err(error) => {
                return Err(format!(
                    "its lock {} cannot be opened: {error}; if no relay runs there, remove it",
                    path.display()
                ));
            }
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Err("a running relay uses it".to_owned()),
            Err(TryLockError::Error(error)) => {
                Err(format!("its lock {} cannot be locked: {error}", path.display()))
            }
        }
    }

    /// Reads the state file. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// Errors of the kernel; `InvalidInput` for a file that is a link, not regular, or too long;
    /// `PermissionDenied` for a file of another user.
    pub fn state(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let opened = self.within(path, |folder, name| {
            // Refuse a symbolic link, because the first write would replace it.
            if folder.find(name)?.is_link() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link"));
            }
            let (file, found) = folder.open(name, OpenMode::Read)?;
            self.check_owner(&found)?;
            Ok(file)
        });
        match opened {
            Ok(file) => read_at_most(file, STATE_BYTES_MAX).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Checks that root, the current user or the account owns a file.
    fn check_owner(&self, found: &FileInfo) -> io::Result<()> {
        let later = self.account.as_ref().map(|account| account.user);
        check_owner(found, later)
    }

    /// Reads a secret file. Refuses the file if group or others have access.
    ///
    /// # Errors
    /// One line with the file, the reason and the remedy.
    pub fn secret(
        &self,
        path: &Path,
        what: &str,
        remedy: &str,
        bytes_max: u64,
    ) -> Result<Zeroizing<String>, String> {
        let later = self.account.as_ref().map(|account| account.user);
        read_secret(path, what, remedy, bytes_max, later)
    }
}

fn no_capture() -> io::Error {
    let text = "a file that is no capture (pcapng) is in the way and is not overwritten";
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn check_owner(found: &FileInfo, later: Option<u32>) -> io::Result<()> {
    let owners = [Some(0), Some(file_user()), later];
    if owners.contains(&Some(found.owner)) {
        return Ok(());
    }
    let text = format!("user {} owns it; chown it, or choose another path", found.owner);
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

fn read_at_most(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let text = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(bytes)
}

/// Reads a configuration. It follows symbolic links and reads pipes, because the operator chose the
/// path.
///
/// # Errors
/// Errors of the kernel; `InvalidInput` for a file that is too long.
pub fn configuration(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(File::open(path)?, CONFIG_BYTES_MAX)
}

fn read_secret(
    path: &Path,
    what: &str,
    remedy: &str,
    bytes_max: u64,
    later: Option<u32>,
) -> Result<Zeroizing<String>, String> {
    let shown = path.display();
    let unread = |error: io::Error| format!("{what} {shown}: {error}; {remedy}");
    let (folder, name) = Folder::of(path).map_err(unread)?;
    let (file, found) = folder.open(&name, OpenMode::Read).map_err(unread)?;
    check_owner(&found, later).map_err(unread)?;
    if found.mode & OTHERS != 0 {
        return Err(format!(
            "{what} {shown} can be read or written by others (mode {:04o}); remedy: chmod 600 \
             {shown}",
            found.mode & 0o7777
        ));
    }
    // Reserve the capacity beforehand: a string that grows leaves copies of the secret in memory.
    let mut text = Zeroizing::new(String::with_capacity(bytes_max as usize + 1));
    file.take(bytes_max + 1).read_to_string(&mut text).map_err(unread)?;
    if text.len() as u64 > bytes_max {
        return Err(format!("{what} {shown} is too long; {remedy}"));
    }
    Ok(text)
}

/// Appends text to a configuration, and syncs it to disk.
///
/// # Errors
/// Errors of the kernel.
pub fn append(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::options().append(true).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Makes a new file with mode 0600, and syncs it to disk.
///
/// # Errors
/// Errors of the kernel; `AlreadyExists` if the path exists. No partial file is left.
pub fn create(path: &Path, text: &[u8]) -> io::Result<()> {
    let (folder, name) = Folder::of(path)?;
    let (file, _) = folder.open(&name, OpenMode::CreateNew)?;
    fill(&folder, &name, file, text)
}

/// Replaces a file atomically: after a crash, either the old or the new file exists.
///
/// # Errors
/// Errors of the kernel. The old file remains, unless only the last sync of the folder failed.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let (folder, name) = Folder::of(path)?;
    let mut new = name.clone();
    new.push(".new");
    // A crash or another program may have left a file with this name. Remove it; do not open it.
    match folder.remove(&new) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let (file, _) = folder.open(&new, OpenMode::CreateNew)?;
    fill(&folder, &new, file, text)?;
    if let Err(error) = folder.rename(&new, &name) {
        let _ = folder.remove(&new);
        return Err(error);
    }
    folder.sync()
}

/// Writes a new file, and removes the file if the write fails.
fn fill(folder: &Folder, name: &OsString, mut file: File, text: &[u8]) -> io::Result<()> {
    // Set the mode, because a umask may have removed mode bits of the owner.
    let filled = file
        .set_permissions(Permissions::from_mode(MODE))
        .and_then(|()| file.write_all(text))
        .and_then(|()| file.sync_all())
        .and_then(|()| folder.sync());
    if filled.is_err() {
        let _ = folder.remove(name);
    }
    filled
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        (directory, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_with_two_roles_is_found_by_path_and_by_inode() {
        let (_directory, at) = folder();
        fs::create_dir(at.join("sub")).unwrap();
        fs::write(at.join("key"), "x").unwrap();
        fs::hard_link(at.join("key"), at.join("sub/hard")).unwrap();
        symlink(at.join("key"), at.join("soft")).unwrap();
        let capture = || Role::Capture("[[udp]] wan".to_owned());
        for (path, conflicts) in [
            ("key", 1),
            ("sub/../key", 1),
            ("sub/hard", 1),
            ("soft", 1),
            ("sub/key", 0),
            ("state.lock", 1),
            ("sub/../state.new", 1),
        ] {
            let mut roles = Roles::default();
            roles.add(Role::Key, at.join("key"));
            for (role, ending) in
                [(Role::State, ""), (Role::StateNew, ".new"), (Role::StateLock, ".lock")]
            {
                roles.add(role, beside(&at.join("state"), ending));
            }
            roles.add(capture(), at.join(path));
            let lines = roles.conflicts();
            assert_eq!(lines.len(), conflicts, "{path}: {lines:?}");
            assert!(lines.iter().all(|line| line.starts_with("the capture of [[udp]] wan: ")));
        }
        let mut roles = Roles::default();
        (0..2).for_each(|_| roles.add(Role::Psk, at.join("key")));
        assert!(roles.conflicts().is_empty(), "two links may share a psk");
        roles.add(Role::Key, at.join("key"));
        assert_eq!(roles.conflicts().len(), 1);
    }

    #[test]
    fn a_capture_overwrites_only_captures_and_has_mode_0600() {
        let (_directory, at) = folder();
        let opener = Opener::default();
        let path = at.join("wan.pcapng");
        fs::write(&path, [&PCAPNG[..], b"of before"].concat()).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let mut file = opener.capture(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o600, b"new".to_vec()));
        assert!(opener.capture(&path).is_err(), "it is open already");
        fs::write(at.join("notes"), "not a capture").unwrap();
        symlink(at.join("elsewhere"), at.join("link")).unwrap();
        for name in ["notes", "link"] {
            let _refused = opener.capture(&at.join(name)).unwrap_err();
        }
        assert_eq!(fs::read_to_string(at.join("notes")).unwrap(), "not a capture");
        assert!(!at.join("elsewhere").exists());
    }

    #[test]
    fn a_lock_has_mode_0600_and_a_link_in_its_place_is_refused() {
        let (_directory, at) = folder();
        let state = at.join("state");
        let lock = at.join("state.lock");
        fs::write(&lock, "").unwrap();
        fs::set_permissions(&lock, Permissions::from_mode(0o666)).unwrap();
        let held = Opener::default().lock(&state).unwrap();
        assert!(held.is_some() && mode(&lock) == 0o600);
        assert!(Opener::default().lock(&state).unwrap_err().contains("a running relay"));
        drop(held);
        fs::remove_file(&lock).unwrap();
        symlink(at.join("elsewhere"), &lock).unwrap();
        assert!(Opener::default().lock(&state).unwrap_err().contains("cannot be opened"));
        assert!(!at.join("elsewhere").exists());
        assert!(Opener::default().lock(&at.join("none/state")).unwrap().is_none());
    }

    #[test]
    fn a_state_file_is_replaced_and_no_link_is_followed() {
        let (_directory, at) = folder();
        let (state, new) = (at.join("state"), at.join("state.new"));
        fs::write(at.join("target"), "kept").unwrap();
        for name in [&state, &new] {
            symlink(at.join("target"), name).unwrap();
        }
        assert!(Opener::default().state(&state).is_err(), "a link");
        replace(&state, b"whole").unwrap();
        assert_eq!(fs::read_to_string(at.join("target")).unwrap(), "kept");
        assert!(!new.exists() && mode(&state) == 0o600);
        assert_eq!(Opener::default().state(&state).unwrap().unwrap(), b"whole");
        assert!(Opener::default().state(&at.join("none")).unwrap().is_none());
        create(&state, b"x").unwrap_err();
        assert_eq!(fs::read(&state).unwrap(), b"whole");
    }
}
