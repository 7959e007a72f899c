//! The file of a relay's identity.

use std::{error::Error, fmt, io, path::Path, path::PathBuf};

use strowger_crypto::{IdentityKey, KeyFileError, OsEntropy};

use crate::files::{Opener, create};

/// A key file is one line; anything longer is another file.
const FILE_BYTES_MAX: u64 = 1_024;

/// Reads the identity in a key file, or makes the file with a new one if it is not there.
///
/// Only its owner may read and write the file. `strowger key new` makes files of the same format.
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
    let at = || path.to_owned();
    if !path.exists() {
        let key = IdentityKey::generate(&mut OsEntropy).map_err(|_| KeyError::Entropy)?;
        match create(path, key.to_key_file().as_bytes()) {
            Ok(()) => return Ok(key),
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(KeyError::Make { path: at(), source }),
        }
    }
    let way_out = "`strowger key new FILE` makes one";
    let text = Opener::default()
        .secret(path, "key file", way_out, FILE_BYTES_MAX)
        .map_err(|why| KeyError::Read { why })?;
    IdentityKey::from_key_file(&text).map_err(|source| KeyError::Damaged { path: at(), source })
}

/// Why a key file cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyError {
    /// The system gives no random bytes.
    Entropy,
    /// The file cannot be made.
    Make {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file cannot be read, or others can read or write it.
    Read {
        /// Which file, why, and what to do.
        why: String,
    },
    /// It is no key file.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyFileError,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entropy => f.write_str("the system gives no random bytes for a key; try again"),
            Self::Make { path, source } => write!(
                f,
                "key file {} cannot be made: {source}; make its folder, or choose another path",
                path.display()
            ),
            Self::Read { why } => f.write_str(why),
            Self::Damaged { path, source } => write!(f, "key file {}: {source}", path.display()),
        }
    }
}

impl Error for KeyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Make { source, .. } => Some(source),
            Self::Damaged { source, .. } => Some(source),
            Self::Entropy | Self::Read { .. } => None,
        }
    }
}
