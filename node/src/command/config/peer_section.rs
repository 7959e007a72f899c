//! A `[[peer]]` section from the command line, for `strowger init` and `strowger config add-peer`.

use std::{fmt, str::FromStr};

use strowger_crypto::StaticPublic;

use crate::relay::config::{Fault, parse_key};

/// The rights that the commands write into the section: all of them. `control` lets the peer ping
/// and trace this relay.
pub(crate) const RIGHTS: &str = "transit,endpoints,control";

/// A peer on the command line: `[NAME=]KEY[@ADDRESS]`.
#[derive(Clone, Debug)]
pub(crate) struct PeerArgument {
    pub(crate) name: Option<String>,
    pub(crate) key: StaticPublic,
    pub(crate) address: Option<String>,
}

impl FromStr for PeerArgument {
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

/// The values of a `[[peer]]` section.
pub(crate) struct PeerSection<'a> {
    pub(crate) name: &'a str,
    pub(crate) spec: &'a PeerArgument,
    pub(crate) listener: Option<&'a str>,
}

impl fmt::Display for PeerSection<'_> {
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

/// A name for a peer without a name on the command line: the first free one of peer1, peer2, ...
pub(crate) fn free_name(taken: &[String]) -> String {
    let mut number = 1;
    loop {
        let name = format!("peer{number}");
        if !taken.contains(&name) {
            return name;
        }
        number += 1;
    }
}

/// A string, quoted as TOML requires.
pub(crate) fn quoted(text: &str) -> toml::Value {
    toml::Value::String(text.to_owned())
}

/// The texts of faults in one line.
pub(crate) fn fault_texts(faults: &[Fault]) -> String {
    let texts: Vec<&str> = faults.iter().map(|fault| fault.text.as_str()).collect();
    texts.join("; ")
}
