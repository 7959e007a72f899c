//! Rights given up: a relay that opened what needs rights becomes the user of `[process]`, for good.
//! What it still needs of files is given to that user, or is an error before anything runs.

use std::{fmt::Display, io::Write, path::Path};

use strowger_io::account::{Account, may_write_in};

use crate::{
    config::{Config, RunAs},
    exit::{Exit, Failure},
    files::Opener,
};

/// The account that the relay is to become, if any: asked before anything is opened, and before any
/// thread is started.
///
/// # Errors
/// One line: there is no such user, or this process can never become it.
pub(crate) fn account(config: &Config) -> Result<Option<Account>, Failure> {
    let Some(account) = find(config)? else { return Ok(None) };
    account.prepare().map_err(|why| refused(&format_args!("[process]: {why}")))?;
    Ok(Some(account))
}

/// The account alone: the process is not prepared to become it.
///
/// # Errors
/// As for [`account`].
pub(crate) fn find(config: &Config) -> Result<Option<Account>, Failure> {
    let Some(RunAs { user, group }) = &config.run_as else { return Ok(None) };
    let found = Account::find(user, group.as_deref());
    found.map(Some).map_err(|why| refused(&format_args!("[process]: {why}")))
}

/// Becomes the account, once everything is open.
///
/// # Errors
/// One line that names the path and the user, or what the kernel refused.
pub(crate) fn give_up(
    config: &Config,
    account: &Account,
    opener: &Opener,
    said: &mut dyn Write,
) -> Result<(), Failure> {
    let Account { name, user, group } = account;
    let sockets = || {
        let endpoints = config.unix.iter().map(|unix| unix.path.as_path());
        [config.control_socket.as_path()].into_iter().chain(endpoints)
    };
    // All other files are in folders of the user's own, and were made as its own.
    for path in sockets() {
        opener.give(path).map_err(|error| {
            refused(&format_args!("{}: cannot be given to {name}: {error}", path.display()))
        })?;
    }
    account.become_it().map_err(|why| refused(&format_args!("[process] user {name}: {why}")))?;
    let _ = writeln!(said, "user: {name} ({user}:{group}); all other rights are given up");

    for path in sockets() {
        // Whoever starts the relay anew as root clears them away, so this is no error.
        if let Err(error) = may_write_in(folder_of(path)) {
            let (path, folder) = (path.display(), folder_of(path).display());
            let _ = writeln!(
                said,
                "  {path} stays when the relay ends, since {name} cannot write in {folder}: {error}"
            );
        }
    }
    if let Some(path) = &config.state {
        may_write_in(folder_of(path)).map_err(|error| {
            let (path, folder) = (path.display(), folder_of(path).display());
            refused(&format_args!(
                "state file {path}: {name} cannot write in {folder}: {error}; chown {name} \
                 {folder}, or choose another with [switch] state"
            ))
        })?;
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

fn refused(why: &dyn Display) -> Failure {
    Failure::new(Exit::Refused, why.to_string())
}
