//! Secret files: the identity of a relay, and the pre-shared key of a link.
//!
//! A file that group or others can access is refused. No file is overwritten.
//!
//! | file | its one line |
//! |---|---|
//! | identity | `strowger-key 1 ed25519 <seed> <check>` (`strowger_crypto::IdentityKey`) |
//! | pre-shared key | 64 hex digits, the same at both ends of a link |

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
};

use strowger_crypto::{IdentityKey, KeyFileError, OsEntropy, Psk, Secret};
use strowger_wire::hex;
use zeroize::Zeroizing;

use crate::{
    files::{Opener, create},
    limits::KEY_FILE_BYTES_MAX,
};

/// The commands that make each kind of file, for error messages.
const NEW_KEY: &str = "`strowger key new FILE` makes one";
const NEW_PSK: &str = "`strowger key psk FILE` makes one";

/// Reads the identity from a key file. If the file does not exist, makes it with a new identity.
///
/// Only the owner of the file may read and write it. `strowger key new` makes files of the same
/// format.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("relay.key");
/// let key = strowger_runtime::key_file(&path)?;
/// assert_eq!(strowger_runtime::key_file(&path)?.public().peer_id(), key.public().peer_id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`KeyError`].
pub fn key_file(path: impl AsRef<Path>) -> Result<IdentityKey, KeyError> {
    let path = path.as_ref();
    if !path.exists() {
        match make(path) {
            // Another process has made the file in the meantime.
            Err(KeyError::Exists { .. }) => {}
            made => return made,
        }
    }
    read(path, &Opener::default())
}

/// Makes a new identity and its file.
///
/// # Errors
/// [`KeyError::Exists`], [`KeyError::Make`], [`KeyError::Entropy`].
pub fn make(path: &Path) -> Result<IdentityKey, KeyError> {
    let key = IdentityKey::generate(&mut OsEntropy).map_err(|_| KeyError::Entropy)?;
    write(path, &key.to_key_file())?;
    Ok(key)
}

/// Reads the identity from a key file.
///
/// # Errors
/// [`KeyError::Read`], [`KeyError::Damaged`].
pub fn read(path: &Path, opener: &Opener) -> Result<IdentityKey, KeyError> {
    let text = opener.secret(path, "key file", NEW_KEY, KEY_FILE_BYTES_MAX);
    let text = text.map_err(|why| KeyError::Read { why })?;
    IdentityKey::from_key_file(&text)
        .map_err(|source| KeyError::Damaged { path: path.to_owned(), source })
}

/// Makes a new pre-shared key and its file.
///
/// # Errors
/// [`KeyError::Exists`], [`KeyError::Make`], [`KeyError::Entropy`].
pub fn make_psk(path: &Path) -> Result<(), KeyError> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let secret = Secret::random(&mut OsEntropy).map_err(|_| KeyError::Entropy)?;
    // Reserve the capacity beforehand: a string that grows leaves copies of the secret in memory.
    let mut line = Zeroizing::new(String::with_capacity(65));
    for byte in secret.expose() {
        line.push(char::from(DIGITS[usize::from(byte >> 4)]));
        line.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    line.push('\n');
    write(path, &line)
}

/// Reads the pre-shared key of a link.
///
/// # Errors
/// [`KeyError::Read`], [`KeyError::NotPsk`].
pub fn read_psk(path: &Path, opener: &Opener) -> Result<Psk, KeyError> {
    let text = opener.secret(path, "psk file", NEW_PSK, KEY_FILE_BYTES_MAX);
    let text = text.map_err(|why| KeyError::Read { why })?;
    let mut bytes = Zeroizing::new([0_u8; 32]);
    let filled = hex::fill(text.trim_end(), &mut *bytes);
    // Refuse a key of zeros: in a handshake it means "no psk" (wire.md section 4).
    if filled.is_err() || bytes.iter().all(|byte| *byte == 0) {
        return Err(KeyError::NotPsk { path: path.to_owned() });
    }
    Ok(Psk::from_bytes(*bytes))
}

fn write(path: &Path, text: &str) -> Result<(), KeyError> {
    create(path, text.as_bytes()).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
        _ => KeyError::Make { path: path.to_owned(), source },
    })
}

/// The reason why a key file cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyError {
    /// The system returns no random bytes.
    Entropy,
    /// The file already exists. It is not changed.
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be made.
    Make {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The file cannot be read, or other users can read or write it.
    Read {
        /// A text with the file, the reason and the remedy.
        why: String,
    },
    /// The file is not a key file.
    Damaged {
        /// The file.
        path: PathBuf,
        /// The error in the format of the file.
        source: KeyFileError,
    },
    /// The file does not contain a pre-shared key.
    NotPsk {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entropy => f.write_str("the system gives no random bytes for a key; try again"),
            Self::Exists { path } => write!(
                f,
                "{} exists and is not overwritten; choose another name, or move it away (peers that \
                 have its key configured then need the new one)",
                path.display()
            ),
            Self::Make { path, source } => write!(
                f,
                "key file {} cannot be made: {source}; make its folder, or choose another path",
                path.display()
            ),
            Self::Read { why } => f.write_str(why),
            Self::Damaged { path, source } => write!(f, "key file {}: {source}", path.display()),
            Self::NotPsk { path } => write!(
                f,
                "psk file {}: need 64 hex digits that are not all zero; {NEW_PSK}",
                path.display()
            ),
        }
    }
}

impl Error for KeyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Make { source, .. } => Some(source),
            Self::Damaged { source, .. } => Some(source),
            Self::Entropy | Self::Exists { .. } | Self::Read { .. } | Self::NotPsk { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_file_that_others_can_use_is_refused_with_the_remedy() {
        let (directory, opener) = (tempfile::tempdir().expect("a folder"), Opener::default());
        for (name, is_psk) in [("key", false), ("psk", true)] {
            let file = directory.path().join(name);
            if is_psk { make_psk(&file).map(drop) } else { make(&file).map(drop) }.expect("made");
            let read = || match is_psk {
                true => read_psk(&file, &opener).map(drop),
                false => read(&file, &opener).map(drop),
            };
            read().expect("mode 0600");
            for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o666] {
                fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("chmod");
                let line = read().expect_err("others can use it").to_string();
                assert!(line.contains("chmod 600 ") && line.contains("by others"), "{line}");
            }
            fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).expect("chmod");
            read().expect("mode 0400");
        }
    }

    #[test]
    fn a_file_that_holds_no_key_is_refused_and_not_quoted() {
        let (directory, opener) = (tempfile::tempdir().expect("a folder"), Opener::default());
        let file = directory.path().join("key");
        let long = "0".repeat(5000);
        for text in ["", "secret words", "strowger-key 1 ed25519 00 00", "0000", &long] {
            let _ = fs::remove_file(&file);
            create(&file, text.as_bytes()).expect("made");
            let key = read(&file, &opener).map(drop).expect_err("no key").to_string();
            let psk = read_psk(&file, &opener).map(drop).expect_err("no psk").to_string();
            for line in [key, psk] {
                assert!(!line.contains("secret words") && !line.contains('\n'), "{line}");
            }
        }
        let none = read(&directory.path().join("none"), &opener).map(drop).expect_err("no file");
        assert!(none.to_string().contains("key new"), "{none}");
        let folder = read(directory.path(), &opener).map(drop).expect_err("a folder");
        assert!(folder.to_string().contains("it is a folder"), "{folder}");
    }
}
