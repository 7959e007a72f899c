//! Key files: `strowger key`, and reading what a configuration names. A file that others can read or
//! write is refused, none is ever overwritten, and nothing secret is ever printed.
//!
//! | file | its one line |
//! |---|---|
//! | identity | `strowger-key 1 ed25519 <seed> <check>` (`strowger_crypto::IdentityKey`) |
//! | psk | 64 hex digits, the same at both ends of a link |

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde_json::json;
use strowger_crypto::{IdentityKey, OsEntropy, Psk, Secret, StaticPublic};
use strowger_wire::hex::{self, Hex};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, output_ended};
use strowger_runtime::files::{self, Opener};

/// A key file is a line; whatever is longer is another file.
const FILE_BYTES_MAX: u64 = 1_024;

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

/// `strowger key ...`.
///
/// # Errors
/// One line: the file is there already, cannot be read, or others can.
pub(crate) fn run(task: &Task, output: &mut dyn Write) -> Result<(), Failure> {
    let text = match task {
        Task::New { file } => names(&make(file)?),
        Task::Psk { file } => {
            let secret = Secret::random(&mut OsEntropy)
                .map_err(|error| Failure::new(Exit::Refused, format!("no psk: {error}")))?;
            let mut line = Zeroizing::new(String::with_capacity(65));
            for byte in secret.expose() {
                line.push(char::from(HEX[usize::from(byte >> 4)]));
                line.push(char::from(HEX[usize::from(byte & 15)]));
            }
            line.push('\n');
            create(file, &line)?;
            format!("{}: made; the other end of the link needs the same file\n", file.display())
        }
        Task::Id { file, key_only: true, .. } => {
            format!("{}\n", static_public(&identity(file, &Opener::default())?))
        }
        Task::Id { file, json: false, .. } => names(&identity(file, &Opener::default())?),
        Task::Id { file, json: true, .. } => {
            let key = identity(file, &Opener::default())?;
            let (peer_id, public) = (key.public().peer_id().to_string(), static_public(&key));
            format!("{}\n", json!({ "peer_id": peer_id, "key": public.to_string() }))
        }
        Task::Show { file, json } => shown(file, *json)?,
    };
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .or_else(|error| output_ended(&error))
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Makes the key of a node, and its file, which must not exist yet.
///
/// # Errors
/// One line: the file exists, or cannot be made.
pub(crate) fn make(file: &Path) -> Result<IdentityKey, Failure> {
    let key = IdentityKey::generate(&mut OsEntropy)
        .map_err(|error| Failure::new(Exit::Refused, format!("no key: {error}")))?;
    create(file, &key.to_key_file())?;
    Ok(key)
}

/// The static key that peers configure.
pub(crate) fn static_public(key: &IdentityKey) -> StaticPublic {
    *key.static_key().public()
}

fn names(key: &IdentityKey) -> String {
    format!("peer_id {}\nkey {}\n", key.public().peer_id(), static_public(key))
}

fn shown(file: &Path, as_json: bool) -> Result<String, Failure> {
    let key = identity(file, &Opener::default())?;
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

/// Reads the key of a node.
///
/// # Errors
/// One line: it cannot be read, others can read it, or it is no key file.
pub(crate) fn identity(file: &Path, opener: &Opener) -> Result<IdentityKey, Failure> {
    let way_out = "`strowger key new FILE` makes one";
    let text = opener.secret(file, "key file", way_out, FILE_BYTES_MAX);
    let text = text.map_err(|line| Failure::new(Exit::Refused, line))?;
    IdentityKey::from_key_file(&text).map_err(|error| {
        let line = format!("key file {}: {error}", file.display());
        Failure::new(Exit::Refused, line)
    })
}

/// Reads the pre-shared key of a link.
///
/// # Errors
/// One line: it cannot be read, others can read it, or it is not 64 hex digits.
pub(crate) fn psk(file: &Path, opener: &Opener) -> Result<Psk, Failure> {
    let way_out = "`strowger key psk FILE` makes one";
    let text = opener.secret(file, "psk file", way_out, FILE_BYTES_MAX);
    let text = text.map_err(|line| Failure::new(Exit::Refused, line))?;
    let mut bytes = Zeroizing::new([0_u8; 32]);
    let read = hex::fill(text.trim_end(), &mut *bytes);
    // All zero is how "no psk" is written on the wire (wire.md section 4).
    if read.is_err() || bytes.iter().all(|byte| *byte == 0) {
        let line = format!(
            "psk file {}: it must be 64 hex digits, not all zero; `strowger key psk FILE` makes one",
            file.display()
        );
        return Err(Failure::new(Exit::Refused, line));
    }
    Ok(Psk::from_bytes(*bytes))
}

/// Makes a file that was not there, for its owner alone, and has it on disk before it is named.
fn create(file: &Path, text: &str) -> Result<(), Failure> {
    let shown = file.display();
    files::create(file, text.as_bytes()).map_err(|error| {
        let line = match error.kind() {
            io::ErrorKind::AlreadyExists => format!(
                "{shown} is there already and is not overwritten; choose another name, or move it \
                 away (whoever has it configured as a peer would need the new key)"
            ),
            _ => format!("{shown} cannot be made: {error}"),
        };
        Failure::new(Exit::Refused, line)
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn said(task: &Task) -> Result<String, Failure> {
        let mut output = Vec::new();
        run(task, &mut output)?;
        Ok(String::from_utf8(output).unwrap())
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_its_secret_is_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let made = said(&Task::New { file: file.clone() }).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let written = fs::read_to_string(&file).unwrap();
        let again = said(&Task::New { file: file.clone() }).unwrap_err();
        assert!(again.line.contains("not overwritten"), "{again}");
        assert_eq!(fs::read_to_string(&file).unwrap(), written);

        let secret = written.split(' ').nth(3).unwrap();
        assert_eq!(secret.len(), 64);
        let key = IdentityKey::from_key_file(&written).unwrap();
        for json in [false, true] {
            let id = said(&Task::Id { file: file.clone(), json, key_only: false }).unwrap();
            let show = said(&Task::Show { file: file.clone(), json }).unwrap();
            for text in [&id, &show, &made] {
                assert!(!text.contains(secret), "{text}");
                assert!(text.contains(&key.public().peer_id().to_string()), "{text}");
                assert!(text.contains(&static_public(&key).to_string()), "{text}");
            }
        }
    }

    #[test]
    fn a_file_that_others_can_use_is_refused_with_the_way_to_mend_it() {
        let (directory, ours) = (tempfile::tempdir().unwrap(), Opener::default());
        for (name, is_psk) in [("key", false), ("psk", true)] {
            let file = directory.path().join(name);
            let task = if is_psk {
                Task::Psk { file: file.clone() }
            } else {
                Task::New { file: file.clone() }
            };
            said(&task).unwrap();
            let read = || {
                if is_psk { psk(&file, &ours).map(drop) } else { identity(&file, &ours).map(drop) }
            };
            read().unwrap();
            for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o666] {
                fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
                let line = read().unwrap_err().line;
                assert!(line.contains("chmod 600 ") && line.contains("by others"), "{line}");
            }
            fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
            read().unwrap();
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_quoted_by_nobody() {
        let (directory, ours) = (tempfile::tempdir().unwrap(), Opener::default());
        let file = directory.path().join("key");
        let long = "0".repeat(5000);
        for text in ["", "secret words", "strowger-key 1 ed25519 00 00", "0000", &long] {
            let _ = fs::remove_file(&file);
            create(&file, text).unwrap();
            for line in
                [identity(&file, &ours).unwrap_err().line, psk(&file, &ours).unwrap_err().line]
            {
                assert!(!line.contains("secret words") && !line.contains('\n'), "{line}");
            }
        }
        assert!(
            identity(&directory.path().join("none"), &ours).unwrap_err().line.contains("key new")
        );
        assert!(identity(directory.path(), &ours).unwrap_err().line.contains("it is a folder"));
    }
}
