//! `strowger key`: makes key files, and prints their public parts.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde_json::json;
use strowger_crypto::{IdentityKey, StaticPublic};
use strowger_runtime::{
    files::Opener,
    key_files::{self, KeyError},
};
use strowger_wire::hex::Hex;

use super::print::print;
use crate::exit::{Exit, Failure};

/// `strowger key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Make a key. Only its owner can read the file, which must not exist yet.
    New {
        /// The file to make.
        file: PathBuf,
    },
    /// Print the PeerId of a key, and the static key that peers configure.
    Id {
        /// The key file.
        file: PathBuf,
        /// Print one JSON object instead of text.
        #[arg(long)]
        json: bool,
        /// Print the static key alone, for scripts.
        #[arg(long, conflicts_with = "json")]
        key_only: bool,
        /// Print the PeerId alone, for scripts.
        #[arg(long, conflicts_with_all = ["json", "key_only"])]
        peer_id_only: bool,
    },
    /// Print the public parts of a key file, never the secret.
    Show {
        /// The key file.
        file: PathBuf,
        /// Print one JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Make a pre-shared key for one link. Copy the file to the other end over a secure channel.
    Psk {
        /// The file to make.
        file: PathBuf,
    },
}

/// `strowger key`.
///
/// # Errors
/// One line: the file exists already, it cannot be read, or other users can read or write it.
pub(crate) fn run(task: &Task, output: &mut dyn Write) -> Result<(), Failure> {
    let text = match task {
        Task::New { file } => public_parts(&make(file)?),
        Task::Psk { file } => {
            key_files::make_psk(file).map_err(failure)?;
            format!("{}: made; the other end of the link needs the same file\n", file.display())
        }
        Task::Id { file, key_only: true, .. } => format!("{}\n", static_public(&read(file)?)),
        Task::Id { file, peer_id_only: true, .. } => {
            format!("{}\n", read(file)?.public().peer_id())
        }
        Task::Id { file, json: false, .. } => public_parts(&read(file)?),
        Task::Id { file, json: true, .. } => {
            let key = read(file)?;
            let (peer_id, public) = (key.public().peer_id().to_string(), static_public(&key));
            format!("{}\n", json!({ "peer_id": peer_id, "key": public.to_string() }))
        }
        Task::Show { file, json } => shown(file, *json)?,
    };
    print(output, &text)
}

fn failure(error: KeyError) -> Failure {
    Failure::new(Exit::Refused, error.to_string())
}

/// Makes the key of a node and the key file, which must not exist yet.
///
/// # Errors
/// One line: the file exists, or cannot be made.
pub(super) fn make(file: &Path) -> Result<IdentityKey, Failure> {
    key_files::make(file).map_err(failure)
}

/// Reads the key of a node.
///
/// # Errors
/// One line: the file cannot be read, other users can read or write it, or it is no key file.
pub(super) fn read(file: &Path) -> Result<IdentityKey, Failure> {
    key_files::read(file, &Opener::default()).map_err(failure)
}

/// The static key that peers configure.
pub(super) fn static_public(key: &IdentityKey) -> StaticPublic {
    *key.static_key().public()
}

fn public_parts(key: &IdentityKey) -> String {
    format!("peer_id {}\nkey {}\n", key.public().peer_id(), static_public(key))
}

fn shown(file: &Path, as_json: bool) -> Result<String, Failure> {
    let key = read(file)?;
    let (public, peer_id) = (key.public(), key.public().peer_id().to_string());
    let (signs, links) = (Hex(&public.to_bytes()).to_string(), static_public(&key).to_string());
    if as_json {
        let object = json!({
            "file": file.display().to_string(), "algorithm": "ed25519", "peer_id": peer_id,
            "identity": signs, "key": links,
        });
        return Ok(format!("{object}\n"));
    }
    Ok(format!(
        "file       {}\nalgorithm  ed25519 (identity), x25519 (links)\npeer_id    {peer_id}\n\
         identity   {signs}\nkey        {links}  (what a [[peer]] names)\n",
        file.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn printed(task: &Task) -> Result<String, Failure> {
        let mut output = Vec::new();
        run(task, &mut output)?;
        Ok(String::from_utf8(output).unwrap())
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_its_secret_is_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let made = printed(&Task::New { file: file.clone() }).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let written = fs::read_to_string(&file).unwrap();
        let again = printed(&Task::New { file: file.clone() }).unwrap_err();
        assert!(again.line.contains("not overwritten"), "{again}");
        assert_eq!(fs::read_to_string(&file).unwrap(), written);

        let secret = written.split(' ').nth(3).unwrap();
        assert_eq!(secret.len(), 64);
        let key = IdentityKey::from_key_file(&written).unwrap();
        for json in [false, true] {
            let id = printed(&Task::Id {
                file: file.clone(),
                json,
                key_only: false,
                peer_id_only: false,
            })
            .unwrap();
            let show = printed(&Task::Show { file: file.clone(), json }).unwrap();
            for text in [&id, &show, &made] {
                assert!(!text.contains(secret), "{text}");
                assert!(text.contains(&key.public().peer_id().to_string()), "{text}");
                assert!(text.contains(&static_public(&key).to_string()), "{text}");
            }
        }
        let alone = Task::Id { file, json: false, key_only: false, peer_id_only: true };
        assert_eq!(printed(&alone).unwrap(), format!("{}\n", key.public().peer_id()));
    }
}
