//! `strowger config add-peer`: adds a peer to a configuration.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use strowger_runtime::files;

use super::peer_section::{PeerArgument, PeerSection, RIGHTS, fault_texts, free_name};
use crate::{
    command::print::print,
    exit::{Exit, Failure},
    relay::config,
};

/// `strowger config add-peer`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The configuration to add to.
    file: PathBuf,
    /// The neighbour: its key, its name here, its address.
    #[arg(value_name = "[NAME=]KEY[@ADDRESS]")]
    peer: PeerArgument,
    /// The [[udp]] or [[ethernet]] through which the neighbour is reached, if the file has more
    /// than one.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
}

/// `strowger config add-peer`.
///
/// # Errors
/// One line: the file cannot be read or written, or it would not be valid with the peer. An invalid
/// file is not written.
pub(crate) fn run(options: &Options, output: &mut dyn Write) -> Result<(), Failure> {
    let Options { file, peer: spec, listener } = options;
    let shown = file.display();
    let before = config::read(file)?;
    let taken: Vec<String> = before.peers.iter().map(|peer| peer.name.to_string()).collect();
    let name = spec.name.clone().unwrap_or_else(|| free_name(&taken));
    let section = PeerSection { name: &name, spec, listener: listener.as_deref() }.to_string();
    let text = files::configuration(file).map_err(|error| cannot("read", file, &error))?;
    let mut text = String::from_utf8(text).map_err(|_| {
        Failure::new(Exit::Usage, format!("{shown}: not UTF-8; save the file as UTF-8"))
    })?;
    let added =
        if text.is_empty() || text.ends_with('\n') { section } else { format!("\n{section}") };
    text += &added;
    config::parse_all(&text).map_err(|faults| {
        Failure::new(
            Exit::Usage,
            format!("cannot add peer \"{name}\": {}; {shown} is unchanged", fault_texts(&faults)),
        )
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
    print(
        output,
        &format!(
            "added [[peer]] \"{name}\" to {shown}\n\
             A running relay uses the peer after a restart, or at once after:\n  {attach}\n"
        ),
    )
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Refused, format!("cannot {what} {}: {error}", path.display()))
}
