//! `strowger init`: writes a key, and a configuration that works without changes.

use std::{
    fs::DirBuilder,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use strowger_crypto::IdentityKey;
use strowger_runtime::{
    files,
    places::{self, BOOK, CONFIG, CONTROL, KEY, PROGRAMS},
};

use super::{
    config::{PeerArgument, PeerSection, fault_texts, free_name, quoted},
    folder::default_folder,
    key,
    print::print,
};
use crate::{
    exit::{Exit, Failure},
    limits::PROGRAMS_MAX,
    relay::config,
};

/// The name of the state file in a node's folder.
const STATE: &str = "state";

/// `strowger init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The folder to write to. The default is strowger in $XDG_CONFIG_HOME or in ~/.config.
    folder: Option<PathBuf>,
    /// The UDP address at which neighbours reach this relay.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7000")]
    listen: String,
    /// The name of the network. Both ends of a link must have the same network.
    #[arg(long, value_name = "NAME", default_value = "strowger")]
    network: String,
    /// A neighbour: its key, its name here, its address. If the address is absent, this relay
    /// learns it from the neighbour's first handshake. Repeat the option for more neighbours.
    #[arg(long = "peer", value_name = "[NAME=]KEY[@ADDRESS]")]
    peers: Vec<PeerArgument>,
    /// Replace an existing configuration. An existing key is kept.
    #[arg(long)]
    force: bool,
}

/// `strowger init`.
///
/// # Errors
/// One line: the configuration exists, an option is not usable, or a file cannot be made. In that
/// case no configuration is written. A key that was written is used by the next run.
pub(crate) fn run(options: &Options, output: &mut dyn Write) -> Result<(), Failure> {
    let place = Place::of(options.folder.as_deref())?;
    let text = place.configuration(options)?;
    let file = place.path(CONFIG);
    let exists = file.symlink_metadata().is_ok();
    if exists && !options.force {
        let shown = file.display();
        let named = options.folder.iter().map(|folder| format!("{} ", folder.display()));
        let named: String = named.collect();
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "{shown} exists and is not overwritten; `strowger config add-peer {shown} NAME=KEY@ADDRESS` adds \
                 a neighbour, and `strowger init {named}--force` replaces the file and keeps the key"
            ),
        ));
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&place.folder)
        .map_err(|error| cannot("make the folder", &place.folder, &error))?;
    let (key, key_line) = place.key()?;
    let written = if exists {
        files::replace(&file, text.as_bytes())
    } else {
        files::create(&file, text.as_bytes())
    };
    written.map_err(|error| cannot("write", &file, &error))?;
    let config_line = format!("wrote {}", file.display());
    let text = format!("{key_line}\n{config_line}\n{}", place.next_steps(options, &key));
    print(output, &text)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Refused, format!("cannot {what} {}: {error}", path.display()))
}

/// The folder of a node.
struct Place {
    folder: PathBuf,
    /// Whether the command line names the folder. If so, the control socket is in that folder, so
    /// that one machine can run several relays. Otherwise the control socket has the default path
    /// of all commands.
    is_named: bool,
}

impl Place {
    fn of(named: Option<&Path>) -> Result<Self, Failure> {
        let folder = match named {
            Some(folder) => folder.to_owned(),
            None => default_folder("name a folder: strowger init FOLDER")?,
        };
        let folder = std::path::absolute(&folder)
            .map_err(|error| cannot("find the folder", &folder, &error))?;
        if folder.to_str().is_none() {
            let line = format!(
                "the folder {} has a name that is not UTF-8; choose another",
                folder.display()
            );
            return Err(Failure::new(Exit::Usage, line));
        }
        Ok(Self { folder, is_named: named.is_some() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn quoted(&self, name: &str) -> toml::Value {
        quoted(&self.path(name).to_string_lossy())
    }

    /// Makes the text of the configuration, and checks it.
    fn configuration(&self, options: &Options) -> Result<String, Failure> {
        let mut text = format!(
            "# Written by `strowger init`. `strowger config sample` shows every key.\n\
             # After a change: strowger config check FILE\n\n\
             [switch]\nstate = {} # keeps slot numbers over restarts\n\n",
            self.quoted(STATE)
        );
        if self.is_named {
            text += &format!("[control]\nsocket = {}\n\n", self.quoted(CONTROL));
        }
        text += &format!(
            "[identity]\nkey = {}\nnetwork = {} # the same at both ends of a link\n\n\
             [[udp]]\nname = \"udp\"\naddress = {}\n",
            self.quoted(KEY),
            quoted(&options.network),
            quoted(&options.listen)
        );
        let programs = match self.is_named {
            true => self.path(PROGRAMS),
            false => places::programs_socket(),
        };
        text += &format!(
            "\n# Programs attach here: strowger send, receive, ping, probe, id, api.\n\
             [[unix]]\nname = \"programs\"\npath = {}\nclients = {PROGRAMS_MAX}\n",
            quoted(&programs.to_string_lossy()),
        );
        let mut taken: Vec<String> =
            options.peers.iter().filter_map(|peer| peer.name.clone()).collect();
        for spec in &options.peers {
            let name = spec.name.clone().unwrap_or_else(|| free_name(&taken));
            text += &PeerSection { name: &name, spec, listener: None }.to_string();
            taken.push(name);
        }
        config::parse_all(&text).map_err(|faults| {
            Failure::new(Exit::Usage, format!("nothing was written: {}", fault_texts(&faults)))
        })?;
        Ok(text)
    }

    /// Reads the node's key, or makes one. Also returns a line that states whether the key is new.
    fn key(&self) -> Result<(IdentityKey, String), Failure> {
        let file = self.path(KEY);
        let shown = file.display();
        if file.symlink_metadata().is_ok() {
            let key = key::read(&file)?;
            return Ok((key, format!("kept {shown}: the key existed already")));
        }
        let key = key::make(&file)?;
        Ok((key, format!("wrote {shown}: the secret of this node, mode 0600")))
    }

    /// The text about the node's identity and the next steps for the user.
    fn next_steps(&self, options: &Options, key: &IdentityKey) -> String {
        let config = self.path(CONFIG);
        let public = key::static_public(key);
        let address = match options.listen.parse::<SocketAddr>() {
            Ok(at) if at.ip().is_unspecified() => format!("ADDRESS:{}", at.port()),
            _ => options.listen.clone(),
        };
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
        let socket = match self.is_named {
            true => format!(" --socket {}", self.path(CONTROL).display()),
            false => String::new(),
        };
        let (book, folder) = match self.is_named {
            true => (
                format!(" --book {}", self.path(BOOK).display()),
                format!(" --folder {}", self.folder.display()),
            ),
            false => (String::new(), String::new()),
        };
        format!(
            "peer_id {}\nkey {public}\n\n\
             Start the relay:\n  strowger relay --config {}\n\
             Add it at each neighbour, where ADDRESS is where the neighbour reaches this machine:\n  \
             strowger config add-peer FILE {name}={public}@{address}\n\
             Look at its links, and ping a neighbour by its name here:\n  strowger show peers{socket}\n  \
             strowger ping NAME{socket}\n\
             Connect to a peer, which first runs `strowger receive /chat/1`:\n  \
             strowger peer add NAME PEER_ID{book}\n  strowger send NAME /chat/1{folder}\n",
            key.public().peer_id(),
            config.display()
        )
    }
}
