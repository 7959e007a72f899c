//! `strowger init` writes a key and a configuration that starts as it is; `strowger config add-peer` adds a peer to a
//! configuration.

use std::{
    env, fmt,
    fs::DirBuilder,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use strowger_crypto::{IdentityKey, StaticPublic};

use crate::{
    command::key,
    exit::{Exit, Failure, output_ended},
    relay::config::{self, Fault, parse_key},
};
use strowger_runtime::{files, untrusted::Untrusted};

/// The names of the files in the folder of a node.
const KEY: &str = "key";
const CONFIG: &str = "relay.toml";
const STATE: &str = "state";
const CONTROL: &str = "control";

/// The rights of a peer that the operator names: all of them. `control` lets the peer ping and trace this relay.
const RIGHTS: &str = "transit,endpoints,control";

/// `strowger init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The folder to write to. Without it, strowger in $XDG_CONFIG_HOME or in ~/.config.
    folder: Option<PathBuf>,
    /// The UDP address at which neighbours reach this relay.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7000")]
    listen: String,
    /// The name of the network. Both ends of a link must have the same.
    #[arg(long, value_name = "NAME", default_value = "strowger")]
    network: String,
    /// A neighbour: its key, its name here, its address. Without an address this relay learns it from the
    /// neighbour's first handshake. Repeat the option for more neighbours.
    #[arg(long = "peer", value_name = "[NAME=]KEY[@ADDRESS]")]
    peers: Vec<PeerSpec>,
    /// Replace a configuration that exists. A key that exists is always kept.
    #[arg(long)]
    force: bool,
}

/// `strowger config add-peer`.
#[derive(Debug, clap::Args)]
pub(crate) struct AddPeer {
    /// The configuration to add to.
    file: PathBuf,
    /// The neighbour: its key, its name here, its address.
    #[arg(value_name = "[NAME=]KEY[@ADDRESS]")]
    peer: PeerSpec,
    /// The [[udp]] or [[ethernet]] that the neighbour is behind, if the file has more than one.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
}

/// A peer as the command line names it.
#[derive(Clone, Debug)]
pub(crate) struct PeerSpec {
    name: Option<String>,
    key: StaticPublic,
    address: Option<String>,
}

impl FromStr for PeerSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = match text.split_once('=') {
            Some((name, rest)) => (Some(name.to_owned()), rest),
            None => (None, text),
        };
        let (key, address) = match rest.split_once('@') {
            Some((key, address)) => (key, Some(address.to_owned())),
            None => (rest, None),
        };
        Ok(Self { name, key: parse_key(key)?, address })
    }
}

/// A string as TOML writes it.
fn quoted(text: &str) -> toml::Value {
    toml::Value::String(text.to_owned())
}

/// A `[[peer]]` section.
struct Section<'a> {
    name: &'a str,
    spec: &'a PeerSpec,
    listener: Option<&'a str>,
}

impl fmt::Display for Section<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n[[peer]]\nname = {}\nkey = \"{}\"", quoted(self.name), self.spec.key)?;
        match &self.spec.address {
            Some(address) => writeln!(f, "address = {}", quoted(address))?,
            None => f.write_str("# address: learned from the peer's first handshake\n")?,
        }
        if let Some(listener) = self.listener {
            writeln!(f, "listener = {}", quoted(listener))?;
        }
        let rights: Vec<String> = RIGHTS.split(',').map(|right| format!("\"{right}\"")).collect();
        writeln!(f, "rights = [{}] # \"control\": may ping and trace this relay", rights.join(", "))
    }
}

/// The name of a peer that has none on the command line: the first of peer1, peer2, ... that is free.
fn free_name(taken: &[String]) -> String {
    let mut number = 1;
    loop {
        let name = format!("peer{number}");
        if !taken.contains(&name) {
            return name;
        }
        number += 1;
    }
}

/// `strowger init`.
///
/// # Errors
/// One line: the configuration exists, an option is not usable, or a file cannot be made. Nothing is written then,
/// except that a key that was made before the failure stays, and the next run uses it.
pub(crate) fn init(options: &Options, output: &mut dyn Write) -> Result<(), Failure> {
    let place = Place::of(options.folder.as_deref())?;
    let text = place.configuration(options)?;
    let file = place.path(CONFIG);
    let exists = file.symlink_metadata().is_ok();
    if exists && !options.force {
        let shown = file.display();
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "{shown} exists and is not overwritten; `strowger config add-peer {shown} KEY@ADDRESS` adds a \
                 neighbour, and `strowger init --force` replaces the file and keeps the key"
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
    let said = format!("{key_line}\n{config_line}\n{}", place.next_steps(options, &key));
    say(output, &said)
}

/// `strowger config add-peer`.
///
/// # Errors
/// One line: the file cannot be read or written, or would not be valid with the peer. The file is as before then.
pub(crate) fn add_peer(options: &AddPeer, output: &mut dyn Write) -> Result<(), Failure> {
    let AddPeer { file, peer: spec, listener } = options;
    let shown = file.display();
    let before = config::read(file)?;
    let taken: Vec<String> = before.peers.iter().map(|peer| peer.name.to_string()).collect();
    let name = spec.name.clone().unwrap_or_else(|| free_name(&taken));
    let section = Section { name: &name, spec, listener: listener.as_deref() }.to_string();
    let text = files::configuration(file).map_err(|error| cannot("read", file, &error))?;
    let mut text = String::from_utf8(text).map_err(|_| {
        Failure::new(Exit::Usage, format!("{shown}: not UTF-8; save the file as UTF-8"))
    })?;
    let added =
        if text.is_empty() || text.ends_with('\n') { section } else { format!("\n{section}") };
    text += &added;
    config::parse_all(&text).map_err(|faults| {
        Failure::new(Exit::Usage, format!("{shown} is left as it was: {}", reasons(&faults)))
    })?;
    files::append(file, added.as_bytes()).map_err(|error| cannot("write", file, &error))?;
    let mut attach = format!("strowger slot attach {name}");
    if let Some(address) = &spec.address {
        attach += &format!(" {address}");
    }
    attach += &format!(
        " --key {} --rights {RIGHTS} --socket {}",
        spec.key,
        before.control_socket.display()
    );
    if let Some(listener) = listener {
        attach += &format!(" --listener {listener}");
    }
    say(
        output,
        &format!(
            "added [[peer]] \"{name}\" to {shown}\n\
             A relay that runs knows the peer after a restart, or at once by:\n  {attach}\n"
        ),
    )
}

/// Prints lines in which no text from the command line moves the cursor.
fn say(output: &mut dyn Write, text: &str) -> Result<(), Failure> {
    let mut lines = text.lines();
    let written = lines.try_for_each(|line| writeln!(output, "{}", Untrusted(line)));
    written.and_then(|()| output.flush()).or_else(|error| output_ended(&error))
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Refused, format!("cannot {what} {}: {error}", path.display()))
}

fn reasons(faults: &[Fault]) -> String {
    let texts: Vec<&str> = faults.iter().map(|fault| fault.text.as_str()).collect();
    texts.join("; ")
}

/// The folder of a node.
struct Place {
    folder: PathBuf,
    /// Whether the command line names it. The control socket is in the folder then, so that one machine can run
    /// several relays; otherwise it is where every command looks for it.
    is_named: bool,
}

impl Place {
    fn of(named: Option<&Path>) -> Result<Self, Failure> {
        let folder = match named {
            Some(folder) => folder.to_owned(),
            None => default_folder()?,
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

    /// The text of the configuration, checked.
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
        let mut taken: Vec<String> =
            options.peers.iter().filter_map(|peer| peer.name.clone()).collect();
        for spec in &options.peers {
            let name = spec.name.clone().unwrap_or_else(|| free_name(&taken));
            text += &Section { name: &name, spec, listener: None }.to_string();
            taken.push(name);
        }
        config::parse_all(&text).map_err(|faults| {
            Failure::new(Exit::Usage, format!("nothing was written: {}", reasons(&faults)))
        })?;
        Ok(text)
    }

    /// The node's key: the one that is there, or a new one; and a line that says which.
    fn key(&self) -> Result<(IdentityKey, String), Failure> {
        let file = self.path(KEY);
        let shown = file.display();
        if file.symlink_metadata().is_ok() {
            let key = key::identity(&file, &files::Opener::default())?;
            return Ok((key, format!("kept {shown}: the key was there already")));
        }
        let key = key::make(&file)?;
        Ok((key, format!("wrote {shown}: the secret of this node, mode 0600")))
    }

    /// Who the node is, and what to do next.
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
        format!(
            "peer_id {}\nkey {public}\n\n\
             Start the relay:\n  strowger relay --config {}\n\
             Add it at each neighbour, where ADDRESS is where the neighbour reaches this machine:\n  \
             strowger config add-peer FILE {name}={public}@{address}\n\
             Look at its links, and ping a neighbour by its name here:\n  strowger show peers{socket}\n  \
             strowger ping NAME{socket}\n",
            key.public().peer_id(),
            config.display()
        )
    }
}

/// Where configurations of users are (XDG Base Directory Specification).
fn default_folder() -> Result<PathBuf, Failure> {
    let absolute =
        |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CONFIG_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".config")))
        .map(|folder| folder.join("strowger"))
        .ok_or_else(|| {
            let line =
                "neither XDG_CONFIG_HOME nor HOME is set; name a folder: strowger init FOLDER";
            Failure::new(Exit::Usage, line)
        })
}
