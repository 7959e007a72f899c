//! The files and sockets of a program that attaches to a relay.

use std::{
    io,
    path::{Path, PathBuf},
};

use strowger_crypto::{IdentityKey, NetworkId};
use strowger_routing::AddressBook;
use strowger_runtime::{
    files::{self, Opener},
    key_files, places,
};

use crate::{
    exit::{Exit, Failure},
    limits::NETWORK_DEFAULT,
};

/// The text of `--help` about the files.
pub(crate) const ABOUT: &str = "\
A program attaches to a relay of this machine by a unix socket, and has the identity of a key file. \
Without options these are the socket and the key of the relay that `strowger init` has configured. \
Two programs that talk to the same peer at the same time need two keys (`strowger key new FILE`): a \
peer keeps one connection for each PeerId.";

/// The options of all commands that attach to a relay.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Attachment and identity")]
pub(crate) struct PlaceOptions {
    /// The folder that `strowger init FOLDER` has written. The default is strowger in
    /// $XDG_CONFIG_HOME or in ~/.config.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,
    /// The unix socket of the relay for programs: the path of a [[unix]] with `clients`. The default
    /// is that of relay.toml in the folder, then strowger-programs.sock in $XDG_RUNTIME_DIR or in
    /// /run.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The key file of this program. The default is the key of the relay.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// The address book. The default is peers.toml in the folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) book: Option<PathBuf>,
    /// The name of the network, which both ends of a connection must share. The default is that of
    /// relay.toml in the folder, then `strowger`.
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
}

/// The sockets, the files and the network of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The socket of the relay.
    pub(crate) socket: PathBuf,
    /// The control socket of the relay, for probes and for the list of its neighbours.
    pub(crate) control: PathBuf,
    /// The key file.
    pub(crate) key: PathBuf,
    /// The address book.
    pub(crate) book: PathBuf,
    /// The name of the network.
    pub(crate) network: String,
}

/// The settings in relay.toml that concern programs.
#[derive(Debug, Default)]
struct RelayFile {
    socket: Option<PathBuf>,
    control: Option<PathBuf>,
    key: Option<PathBuf>,
    network: Option<String>,
}

impl PlaceOptions {
    /// The sockets, files and network, from the options, relay.toml and the defaults.
    ///
    /// # Errors
    /// One line: there is no home folder, or relay.toml in the folder is not TOML.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        let is_named = self.folder.is_some();
        let folder = self.folder.clone().or_else(places::user_folder);
        let relay = match &folder {
            Some(folder) => RelayFile::read(&folder.join(places::CONFIG))?,
            None => RelayFile::default(),
        };
        let in_folder = |name: &str, option: &str| {
            let file = folder.as_ref().map(|folder| folder.join(name));
            file.ok_or_else(|| {
                let line = format!(
                    "neither XDG_CONFIG_HOME nor HOME is set; name the file with {option} FILE, or \
                     all files with --folder FOLDER"
                );
                Failure::new(Exit::Usage, line)
            })
        };
        let socket = || match (&folder, is_named) {
            (Some(folder), true) => folder.join(places::PROGRAMS),
            _ => places::programs_socket(),
        };
        let control = || match (&folder, is_named) {
            (Some(folder), true) => folder.join(places::CONTROL),
            _ => places::control_socket(),
        };
        let key = self.key.clone().or(relay.key);
        Ok(Place {
            socket: self.socket.clone().or(relay.socket).unwrap_or_else(socket),
            control: relay.control.unwrap_or_else(control),
            key: key.map_or_else(|| in_folder(places::KEY, "--key"), Ok)?,
            book: self.book.clone().map_or_else(|| in_folder(places::BOOK, "--book"), Ok)?,
            network: self
                .network
                .clone()
                .or(relay.network)
                .unwrap_or_else(|| NETWORK_DEFAULT.to_owned()),
        })
    }
}

impl RelayFile {
    /// Reads the configuration of a relay. A file that is absent or unreadable for this user counts
    /// as empty.
    fn read(file: &Path) -> Result<RelayFile, Failure> {
        let Ok(bytes) = files::configuration(file) else { return Ok(RelayFile::default()) };
        RelayFile::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| {
            let line = format!(
                "{}: {error}; `strowger config check {0}` shows every fault",
                file.display()
            );
            Failure::new(Exit::Usage, line)
        })
    }

    fn parse(text: &str) -> Result<RelayFile, String> {
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
        let identity = |key: &str| table.get("identity")?.get(key)?.as_str();
        let ports = table.get("unix").and_then(toml::Value::as_array).into_iter().flatten();
        let mut for_programs = ports.filter(|port| port.get("clients").is_some());
        let socket = for_programs.find_map(|port| port.get("path")?.as_str());
        let control = table.get("control").and_then(|control| control.get("socket")?.as_str());
        Ok(RelayFile {
            control: control.map(PathBuf::from),
            socket: socket.map(PathBuf::from),
            key: identity("key").map(PathBuf::from),
            network: identity("network").map(str::to_owned),
        })
    }
}

impl Place {
    /// The identity of this program.
    ///
    /// # Errors
    /// One line: the key file is absent, cannot be read, or is readable by other users.
    pub(crate) fn identity(&self) -> Result<IdentityKey, Failure> {
        if let Err(error) = self.key.symlink_metadata()
            && error.kind() == io::ErrorKind::NotFound
        {
            let line = format!(
                "there is no key file {}; `strowger init` makes one with a configuration, \
                 `strowger key new {0}` makes one alone",
                self.key.display()
            );
            return Err(Failure::new(Exit::Refused, line));
        }
        key_files::read(&self.key, &Opener::default())
            .map_err(|error| Failure::new(Exit::Refused, error.to_string()))
    }

    /// The command that adds an entry to this address book, for hints.
    pub(crate) fn peer_add(&self, arguments: &str) -> String {
        let is_default =
            places::user_folder().is_some_and(|folder| folder.join(places::BOOK) == self.book);
        let book =
            if is_default { String::new() } else { format!(" --book {}", self.book.display()) };
        format!("strowger peer add {arguments}{book}")
    }

    /// The network.
    ///
    /// # Errors
    /// One line: the name is too long.
    pub(crate) fn network(&self) -> Result<NetworkId, Failure> {
        NetworkId::new(self.network.as_bytes()).ok_or_else(|| {
            let line = format!("--network {:?}: a name has at most 32 bytes", self.network);
            Failure::new(Exit::Usage, line)
        })
    }

    /// The address book; an empty one if there is no file.
    ///
    /// # Errors
    /// One line: the file cannot be read, or its faults.
    pub(crate) fn book(&self) -> Result<AddressBook, Failure> {
        let shown = self.book.display();
        let bytes = match files::configuration(&self.book) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(AddressBook::default());
            }
            Err(error) => {
                return Err(Failure::new(Exit::Refused, format!("cannot read {shown}: {error}")));
            }
        };
        let text = String::from_utf8(bytes).map_err(|_| {
            Failure::new(Exit::Usage, format!("{shown}: not UTF-8; save the file as UTF-8"))
        })?;
        AddressBook::parse(&text).map_err(|faults| {
            Failure::new(Exit::Usage, format!("{shown}: {faults}; correct the file first"))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_files_are_those_of_the_relay_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let options =
            PlaceOptions { folder: Some(folder.path().to_owned()), ..PlaceOptions::default() };
        let expected = Place {
            socket: at("programs"),
            control: at("control"),
            key: at("key"),
            book: at("peers.toml"),
            network: "strowger".to_owned(),
        };
        assert_eq!(options.place().unwrap(), expected);

        let relay = "[control]\nsocket = \"/run/control\"\n[identity]\nkey = \"/srv/key\"\nnetwork = \"n\"\n\
                     [[unix]]\npath = \"/run/one\"\n\
                     [[unix]]\npath = \"/run/many\"\nclients = 8\n";
        fs::write(at("relay.toml"), relay).unwrap();
        let expected = Place {
            socket: "/run/many".into(),
            control: "/run/control".into(),
            key: "/srv/key".into(),
            network: "n".to_owned(),
            ..expected
        };
        assert_eq!(options.place().unwrap(), expected);
        let named = PlaceOptions {
            socket: Some("/a".into()),
            key: Some("/b".into()),
            book: Some("/c".into()),
            network: Some("m".to_owned()),
            ..options.clone()
        };
        let expected = Place {
            socket: "/a".into(),
            control: "/run/control".into(),
            key: "/b".into(),
            book: "/c".into(),
            network: "m".to_owned(),
        };
        assert_eq!(named.place().unwrap(), expected);

        fs::write(at("relay.toml"), "[identity\n").unwrap();
        let failure = options.place().unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.line.contains("config check"), "{failure}");
    }
}
