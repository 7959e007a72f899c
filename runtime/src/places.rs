//! The default paths of a user's files, which the command and the programs that attach to its relay
//! share.
//!
//! A folder that `strowger init FOLDER` has written holds all of them, the sockets included.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The key of a node, in its folder.
pub const KEY: &str = "key";
/// The configuration of a relay, in its folder.
pub const CONFIG: &str = "relay.toml";
/// The address book, in the folder of a node.
pub const BOOK: &str = "peers.toml";
/// The control socket, in the folder of a relay that was started with a folder.
pub const CONTROL: &str = "control";
/// The socket at which programs attach, in the folder of a relay that was started with a folder.
pub const PROGRAMS: &str = "programs";

/// The folder for configurations of this user: `strowger` in `$XDG_CONFIG_HOME` or in `~/.config`
/// (XDG Base Directory Specification). `None` if the environment names no folder.
pub fn user_folder() -> Option<PathBuf> {
    let absolute =
        |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CONFIG_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".config")))
        .map(|folder| folder.join("strowger"))
}

/// The default path of a relay's control socket.
pub fn control_socket() -> PathBuf {
    in_runtime_folder("strowger.sock")
}

/// The default path of the unix socket at which programs attach to a relay.
pub fn programs_socket() -> PathBuf {
    in_runtime_folder("strowger-programs.sock")
}

/// The default path of the socket of `strowger api`.
pub fn api_socket() -> PathBuf {
    in_runtime_folder("strowger-api.sock")
}

/// A file in `$XDG_RUNTIME_DIR`, or in `/run` without it.
fn in_runtime_folder(name: &str) -> PathBuf {
    let folder = env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    folder.as_deref().map_or(Path::new("/run"), Path::new).join(name)
}
