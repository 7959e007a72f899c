//! A folder whose path was opened component by component, and the files in the folder.
//!
//! Files are opened, replaced and removed relative to the folder's descriptor, so that a symbolic
//! link of another user cannot redirect the access. Only regular files are opened.
//!
//! A path is walked from the root or from the current folder. A symbolic link on the path is
//! followed if its owner is root or this user; a link of another user is an error.
//! [`Folder::is_ours`] returns whether only root and this user can change what the path refers to.

use std::{
    collections::VecDeque,
    ffi::{CStr, CString, OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::MetadataExt as _,
        },
    },
    path::{Component, Path, PathBuf},
};

/// Maximum number of symbolic links on one path, as in the kernel.
const LINKS_MAX: usize = 40;
/// Write permission of group and others.
const OTHERS_WRITE: u32 = 0o022;
/// Sticky bit of a folder: only the owner of an entry may rename or remove it.
const STICKY: u32 = 0o1000;

/// An open folder, and whether its path is protected.
#[derive(Debug)]
pub struct Folder {
    at: OwnedFd,
    found: FileInfo,
    /// Whether only root and this user could change the path to it.
    reached: bool,
}

/// The access for which a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Read an existing file. If the name is a symbolic link, it is followed like a link on the
    /// path.
    Read,
    /// Read and write. If the file does not exist, it is created, with access for its owner only.
    ReadWrite,
    /// Create a file, with access for its owner only. It is an error if the file exists.
    CreateNew,
}

/// Identity, owner and type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Device and inode, which together identify a file.
    pub id: (u64, u64),
    /// User ID of its owner.
    pub owner: u32,
    /// Type and permissions.
    pub mode: u32,
}

impl FileInfo {
    /// Whether this is a regular file.
    fn is_regular(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// Whether this is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFLNK
    }

    /// Whether this is the file of a unix socket.
    pub fn is_socket(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFSOCK
    }

    /// Name of the file's type, for messages.
    pub fn kind(&self) -> &'static str {
        match self.mode & libc::S_IFMT {
            libc::S_IFREG => "a regular file",
            libc::S_IFDIR => "a folder",
            libc::S_IFLNK => "a symbolic link",
            libc::S_IFIFO => "a pipe",
            libc::S_IFSOCK => "a socket",
            _ => "a device",
        }
    }
}

impl Folder {
    /// Walks a path up to the folder that contains its last component. Returns the folder and that
    /// component.
    ///
    /// # Errors
    /// The kernel's error; `PermissionDenied` for a symbolic link of another user on the path.
    pub fn of(path: &Path) -> io::Result<(Self, OsString)> {
        let (folder, mut names) = Self::walk(path)?;
        match names.pop_front() {
            Some(name) => Ok((folder, name)),
            None => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "the path does not name a file"))
            }
        }
    }

    /// Walks a path up to its last folder. Returns that folder and the last component, which is not
    /// examined.
    fn walk(path: &Path) -> io::Result<(Self, VecDeque<OsString>)> {
        let mut names = VecDeque::new();
        if path.is_relative() {
            names.extend(names_of(&std::env::current_dir()?));
        }
        names.extend(names_of(path));
        let is_file = matches!(path.components().next_back(), Some(Component::Normal(_)));
        if !is_file || path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path does not name a file",
            ));
        }
        let me = file_user();
        let mut folder = Self::root()?;
        let mut links = 0;
        while names.len() > 1 {
            let Some(name) = names.pop_front() else { break };
            let next = open_at(&folder.at, &name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
            let found = info_of(&File::from(next.try_clone()?))?;
            let is_kept = folder.keeps(&found, me);
            if found.is_link() {
                if !is_owner(found.owner, me) {
                    let text = format!(
                        "{} on the way is a symbolic link of user {}",
                        name.display(),
                        found.owner
                    );
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
                }
                links += 1;
                if links > LINKS_MAX {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let target = PathBuf::from(read_link(&next)?);
                if target.is_absolute() {
                    folder = Self::root()?;
                }
                folder.reached &= is_kept;
                for name in names_of(&target).into_iter().rev() {
                    names.push_front(name);
                }
                continue;
            }
            if found.mode & libc::S_IFMT != libc::S_IFDIR {
                return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
            }
            folder = Self { at: next, found, reached: is_kept };
        }
        Ok((folder, names))
    }

    fn root() -> io::Result<Self> {
        let at = File::from(open_path(c"/")?);
        Ok(Self { found: info_of(&at)?, at: at.into(), reached: true })
    }

    /// Whether only root and this user could create this entry and can remove it.
    fn keeps(&self, entry: &FileInfo, me: u32) -> bool {
        // In a folder with the sticky bit, any user with write permission can create entries, but
        // only the owner of an entry can remove it.
        let is_sticky = self.found.mode & STICKY != 0 && is_owner(self.found.owner, me);
        self.reached && (self.is_closed(me) || is_sticky && is_owner(entry.owner, me))
    }

    /// Whether only root and this user can create, rename and remove entries.
    fn is_closed(&self, me: u32) -> bool {
        is_owner(self.found.owner, me) && self.found.mode & OTHERS_WRITE == 0
    }

    /// Whether only root and this user can change its entries and the path to it.
    pub fn is_ours(&self) -> bool {
        self.reached && self.is_closed(file_user())
    }

    /// User ID of the owner.
    pub fn owner(&self) -> u32 {
        self.found.owner
    }

    /// Looks up an entry. Does not follow a symbolic link.
    ///
    /// # Errors
    /// The kernel's error: `NotFound` if there is no such entry.
    pub fn find(&self, name: &OsStr) -> io::Result<FileInfo> {
        info_of(&File::from(open_at(&self.at, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?))
    }

    /// Opens a regular file.
    ///
    /// The call does not block, even if the name is a pipe that no process has opened. It follows a
    /// symbolic link only if the file is opened for reading (see [`OpenMode::Read`]).
    ///
    /// # Errors
    /// The kernel's error; `InvalidInput` if the file is not regular or, in modes that allow
    /// writing, has another hard link.
    pub fn open(&self, name: &OsStr, mode: OpenMode) -> io::Result<(File, FileInfo)> {
        // The type is examined before opening, because opening a device can have an effect.
        let before = match self.find(name) {
            Ok(found) if found.is_link() && mode == OpenMode::Read => {
                return self.open_linked(name);
            }
            Ok(found) if !found.is_regular() && mode != OpenMode::CreateNew => {
                return Err(wrong_type(&found));
            }
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound && mode != OpenMode::Read => None,
            Err(error) => return Err(error),
        };
        let flags = match mode {
            OpenMode::Read => libc::O_RDONLY,
            OpenMode::ReadWrite => libc::O_RDWR | libc::O_CREAT,
            OpenMode::CreateNew => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
        };
        let flags = flags | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = File::from(open_at(&self.at, name, flags, 0o600)?);
        let found = info_of(&file)?;
        if !found.is_regular() {
            return Err(wrong_type(&found));
        }
        if before.is_some_and(|before| before.id != found.id) {
            return Err(io::Error::other("another file took its place while it was opened"));
        }
        // A file with a second hard link can also be in another folder, which was not examined.
        if mode != OpenMode::Read && file.metadata()?.nlink() > 1 {
            return Err(second_name());
        }
        Ok((file, found))
    }

    /// Checks whether [`open`](Self::open) with [`OpenMode::ReadWrite`] would succeed, without
    /// opening or creating anything. Returns the existing file, if there is one.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn may_keep(&self, name: &OsStr) -> io::Result<Option<FileInfo>> {
        let found = match self.find(name) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.may_write().map(|()| None);
            }
            Err(error) => return Err(error),
        };
        if !found.is_regular() {
            return Err(wrong_type(&found));
        }
        let file = File::from(open_at(&self.at, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?);
        if file.metadata()?.nlink() > 1 {
            return Err(second_name());
        }
        let (at, name) = (self.at.as_raw_fd(), c_name(name)?);
        let (wanted, flags) =
            (libc::R_OK | libc::W_OK, libc::AT_EACCESS | libc::AT_SYMLINK_NOFOLLOW);
        // SAFETY: the name ends in a zero byte and outlives the call; we own the descriptor.
        check(unsafe { libc::faccessat(at, name.as_ptr(), wanted, flags) })?;
        Ok(Some(found))
    }

    /// Checks that this thread may replace the file of this name, or create it.
    ///
    /// # Errors
    /// The kernel's error; `PermissionDenied` if the sticky bit protects another user's file.
    pub fn may_replace(&self, name: &OsStr) -> io::Result<()> {
        self.may_write()?;
        let Ok(found) = self.find(name) else { return Ok(()) };
        let me = file_user();
        let is_kept =
            self.found.mode & STICKY != 0 && ![self.found.owner, found.owner].contains(&me);
        if is_kept && me != 0 {
            let text = format!("the folder keeps it for user {}, its owner", found.owner);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(())
    }

    /// Follows the symbolic link at the last component, by the same rules as links on the path.
    fn open_linked(&self, name: &OsStr) -> io::Result<(File, FileInfo)> {
        let mut names = VecDeque::from([name.to_owned()]);
        let (mut folder, mut links) = (Self { at: self.at.try_clone()?, ..*self }, 0);
        loop {
            let Some(name) = names.pop_front() else {
                return Err(io::Error::from_raw_os_error(libc::ENOENT));
            };
            let link = open_at(&folder.at, &name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
            let found = info_of(&File::from(link.try_clone()?))?;
            if !found.is_link() {
                return folder.open(&name, OpenMode::Read);
            }
            links += 1;
            if !is_owner(found.owner, file_user()) || links > LINKS_MAX {
                let text = format!("it is a symbolic link of user {}", found.owner);
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
            let target = PathBuf::from(read_link(&link)?);
            let target = if target.is_absolute() { target } else { folder.path()?.join(target) };
            (folder, names) = Self::walk(&target)?;
        }
    }

    /// The current path of the folder.
    fn path(&self) -> io::Result<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", self.at.as_raw_fd()))
    }

    /// Checks that this thread may create and remove entries.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn may_write(&self) -> io::Result<()> {
        let (at, wanted) = (self.at.as_raw_fd(), libc::W_OK | libc::X_OK);
        // SAFETY: the name ends in a zero byte; we own the descriptor.
        check(unsafe { libc::faccessat(at, c".".as_ptr(), wanted, libc::AT_EACCESS) }).map(drop)
    }

    /// Renames a file within this folder, and replaces an existing file.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        let (from, to) = (c_name(from)?, c_name(to)?);
        let at = self.at.as_raw_fd();
        // SAFETY: both names end in a zero byte and outlive the call; we own the descriptor.
        check(unsafe { libc::renameat(at, from.as_ptr(), at, to.as_ptr()) }).map(drop)
    }

    /// Removes an entry that is not a folder.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        let name = c_name(name)?;
        // SAFETY: the name ends in a zero byte and outlives the call; we own the descriptor.
        check(unsafe { libc::unlinkat(self.at.as_raw_fd(), name.as_ptr(), 0) }).map(drop)
    }

    /// Writes the folder's entries to disk.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn sync(&self) -> io::Result<()> {
        File::from(open_at(&self.at, OsStr::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)?)
            .sync_all()
    }

    /// Sets the owner and group of a file. If it is a symbolic link, the link itself is changed.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn give(&self, name: &OsStr, user: u32, group: u32) -> io::Result<()> {
        let name = c_name(name)?;
        let (at, flag) = (self.at.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
        // SAFETY: the name ends in a zero byte and outlives the call; we own the descriptor.
        check(unsafe { libc::fchownat(at, name.as_ptr(), user, group, flag) }).map(drop)
    }
}

/// Sets the mode of a socket file that this user has just created.
///
/// If the path now refers to another type of file or to another user's file, that file is not
/// changed.
///
/// # Errors
/// The kernel's error; `InvalidInput` if the file is not a socket of this user.
pub fn set_socket_mode(path: &Path, mode: u32) -> io::Result<FileInfo> {
    let (folder, name) = Folder::of(path)?;
    let at = open_at(&folder.at, &name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    let found = info_of(&File::from(at.try_clone()?))?;
    if found.mode & libc::S_IFMT != libc::S_IFSOCK || found.owner != file_user() {
        return Err(wrong_type(&found));
    }
    if found.mode & 0o777 != mode {
        // Sets the mode through `/proc/self/fd`, because `fchmodat` follows links and `fchmod`
        // refuses `O_PATH` descriptors.
        let by_descriptor = CString::new(format!("/proc/self/fd/{}", at.as_raw_fd()))?;
        // SAFETY: the path ends in a zero byte and outlives the call.
        check(unsafe { libc::chmod(by_descriptor.as_ptr(), mode) })?;
    }
    Ok(found)
}

/// The user ID with which this thread accesses files.
pub fn file_user() -> u32 {
    // SAFETY: the call takes only a number. An invalid user changes nothing, and the result is the
    // current one.
    let user = unsafe { libc::setfsuid(u32::MAX) };
    user as u32
}

fn is_owner(owner: u32, me: u32) -> bool {
    owner == 0 || owner == me
}

fn wrong_type(found: &FileInfo) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {}", found.kind()))
}

fn second_name() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it has another name, too (a hard link)")
}

fn names_of(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    names.collect()
}

fn info_of(file: &File) -> io::Result<FileInfo> {
    let metadata = file.metadata()?;
    let id = (metadata.dev(), metadata.ino());
    Ok(FileInfo { id, owner: metadata.uid(), mode: metadata.mode() })
}

fn read_link(link: &OwnedFd) -> io::Result<OsString> {
    let mut target = vec![0; libc::PATH_MAX as usize];
    let (at, len) = (target.as_mut_ptr().cast(), target.len());
    // SAFETY: `at` has `len` writable bytes; the empty name means the descriptor itself.
    let read = unsafe { libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), at, len) };
    if read < 0 {
        return Err(io::Error::last_os_error());
    }
    target.truncate(read as usize);
    Ok(OsString::from_vec(target))
}

fn c_name(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes()).map_err(io::Error::from)
}

fn open_path(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the path ends in a zero byte and outlives the call.
    let fd = check(unsafe { libc::open(path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn open_at(folder: &OwnedFd, name: &OsStr, flags: i32, mode: libc::mode_t) -> io::Result<OwnedFd> {
    let name = c_name(name)?;
    let (at, flags) = (folder.as_raw_fd(), flags | libc::O_CLOEXEC);
    // SAFETY: the name ends in a zero byte and outlives the call; the descriptor is open.
    let fd = check(unsafe { libc::openat(at, name.as_ptr(), flags, mode) })?;
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// A folder that is removed on drop.
    struct Temporary(PathBuf);

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn folder(name: &str) -> (Temporary, PathBuf) {
        let path = std::env::temp_dir().join(format!("strowger-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let path = path.canonicalize().unwrap();
        (Temporary(path.clone()), path)
    }

    fn open(path: &Path, mode: OpenMode) -> io::Result<(File, FileInfo)> {
        let (folder, name) = Folder::of(path)?;
        folder.open(&name, mode)
    }

    #[test]
    fn a_link_a_pipe_and_a_second_name_are_not_opened_for_writing() {
        let (_directory, path) = folder("kinds");
        let target = path.join("target");
        fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, path.join("link")).unwrap();
        std::os::unix::fs::symlink(path.join("none"), path.join("dangling")).unwrap();
        let pipe = CString::new(path.join("pipe").as_os_str().as_bytes()).unwrap();
        // SAFETY: the path ends in a zero byte and outlives the call.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        for name in ["link", "dangling", "pipe"] {
            for mode in [OpenMode::ReadWrite, OpenMode::CreateNew] {
                assert!(open(&path.join(name), mode).is_err(), "{name} {mode:?}");
            }
        }
        assert!(!path.join("none").exists() && fs::read_to_string(&target).unwrap() == "kept");
        assert!(open(&path.join("pipe"), OpenMode::Read).is_err(), "it does not wait, either");
        assert!(open(&path, OpenMode::Read).is_err(), "a folder");
        let mut text = String::new();
        let (mut file, _) = open(&path.join("link"), OpenMode::Read).expect("our own link");
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
        fs::hard_link(&target, path.join("second")).unwrap();
        assert!(open(&path.join("second"), OpenMode::ReadWrite).is_err());
        assert!(open(&target, OpenMode::CreateNew).is_err(), "it is there");
        let (_, found) = open(&path.join("made"), OpenMode::ReadWrite).unwrap();
        assert_eq!(found.mode & 0o7777, 0o600);
        assert_eq!(open(&path.join("made"), OpenMode::ReadWrite).unwrap().1.id, found.id);
    }

    #[test]
    fn may_keep_opens_and_makes_nothing() {
        let (_directory, path) = folder("may");
        let may = |name: &str| {
            let (folder, name) = Folder::of(&path.join(name)).unwrap();
            folder.may_keep(&name)
        };
        fs::write(path.join("file"), "kept").unwrap();
        let found = may("file").unwrap().expect("it is there");
        assert_eq!(found.id, open(&path.join("file"), OpenMode::Read).unwrap().1.id);
        assert_eq!(may("none").unwrap(), None);
        fs::write(path.join("first"), "").unwrap();
        fs::hard_link(path.join("first"), path.join("second")).unwrap();
        std::os::unix::fs::symlink("file", path.join("link")).unwrap();
        fs::create_dir(path.join("sub")).unwrap();
        for name in ["first", "second", "link", "sub"] {
            let refused = may(name).expect_err(name);
            assert!(open(&path.join(name), OpenMode::ReadWrite).is_err(), "{name}: {refused}");
        }
        assert!(!path.join("none").exists());
        let (folder, _) = Folder::of(&path.join("file")).unwrap();
        folder.may_replace(OsStr::new("file")).unwrap();
        folder.may_replace(OsStr::new("none")).unwrap();
    }

    #[test]
    fn links_on_the_way_are_followed_and_loops_are_refused() {
        let (_directory, path) = folder("links");
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("a/../a/b", path.join("relative")).unwrap();
        std::os::unix::fs::symlink(path.join("relative"), path.join("absolute")).unwrap();
        std::os::unix::fs::symlink("ring", path.join("ring")).unwrap();
        let at = |name: &str| open(&path.join(name), OpenMode::Read).map(|(_, found)| found.id);
        let id = at("a/b/file").unwrap();
        for name in ["relative/file", "absolute/file", "a/b/../b/file"] {
            assert_eq!(at(name).unwrap(), id, "{name}");
        }
        for name in ["ring/file", "ring", "a/b/file/further", "none/file"] {
            assert!(at(name).is_err(), "{name}");
        }
        for no_file in ["/", "..", "", "a/", "a/.."] {
            assert!(Folder::of(Path::new(no_file)).is_err(), "{no_file}");
        }
    }

    #[test]
    fn a_folder_that_others_can_change_is_not_ours() {
        let (_directory, path) = folder("closed");
        let is_ours = |name: &str| Folder::of(&path.join(name)).unwrap().0.is_ours();
        fs::create_dir_all(path.join("a/b")).unwrap();
        let set = |name: &str, mode| {
            fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        // The folder for temporary files is writable for all users and has the sticky bit.
        assert!(is_ours("a/b/file"));
        for (mode, ours) in [(0o775, false), (0o757, false), (0o1777, true), (0o755, true)] {
            set("a", mode);
            assert_eq!(is_ours("a/b/file"), ours, "{mode:o}");
        }
        set("a", 0o1777);
        assert!(!is_ours("a/file"), "everybody can make it");
    }
}
