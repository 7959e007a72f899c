//! The folder in which the command keeps the files of a user by default.

use std::path::PathBuf;

use strowger_runtime::places;

use crate::exit::{Exit, Failure};

/// The folder for configurations of this user (XDG Base Directory Specification). `instead` is the
/// hint, in the error, how to choose another folder.
///
/// # Errors
/// One line: the environment names no folder.
pub(super) fn default_folder(instead: &str) -> Result<PathBuf, Failure> {
    places::user_folder().ok_or_else(|| {
        let line = format!("neither XDG_CONFIG_HOME nor HOME is set; {instead}");
        Failure::new(Exit::Usage, line)
    })
}
