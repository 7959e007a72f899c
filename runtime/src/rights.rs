//! Drops privileges. After a relay has opened everything, its process permanently switches to an
//! unprivileged user.

use std::path::Path;

use strowger_io::sys::account::{Account, may_write_in};

use crate::{
    builder::RelayBuilder,
    error::{FileUse, StartError},
    files::Opener,
};

/// Switches the process to this account. Everything must be open. Adds messages for the operator to
/// `notes`.
///
/// # Errors
/// The user cannot use a file, or the kernel refuses the change of user.
pub(crate) fn give_up(
    builder: &RelayBuilder,
    account: &Account,
    opener: &Opener,
    notes: &mut Vec<String>,
) -> Result<(), StartError> {
    let Account { name, user, group } = account;
    let file = |path: &Path, what, source| StartError::File {
        path: path.to_owned(),
        user: name.clone(),
        what,
        source,
    };
    let sockets = || builder.unix.iter().map(|unix| unix.path.as_path());
    // Only sockets need a new owner. The relay has opened the other files already, or makes them as
    // the user.
    for path in sockets() {
        let given = opener.give(path);
        given.map_err(|source| file(path, FileUse::Socket, source))?;
    }
    let drop_privileges = account.drop_privileges();
    drop_privileges.map_err(|source| StartError::Account { user: name.clone(), source })?;
    notes.push(format!("user: {name} ({user}:{group}); all other privileges are given up"));
    notes.extend(sockets().filter_map(|path| socket_note(path, account)));
    if let Some(path) = &builder.state_file {
        may_write_in(folder_of(path)).map_err(|source| file(path, FileUse::State, source))?;
    }
    Ok(())
}

/// Returns a message if the account cannot remove the file of a socket when the relay ends. This is
/// no error, because the next start by root removes the file.
pub fn socket_note(path: &Path, account: &Account) -> Option<String> {
    let error = may_write_in(folder_of(path)).err()?;
    let (path, folder, name) = (path.display(), folder_of(path).display(), &account.name);
    Some(format!(
        "  {path} remains when the relay ends, since {name} cannot write in {folder}: {error}"
    ))
}

/// The folder of a file.
pub(crate) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}
