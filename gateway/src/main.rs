//! The program `strowger-gateway`: sockets for the command and for programs in other languages.
//!
//! `strowger` runs it for `send`, `receive`, `probe`, `id`, `api`, and for `ping` of a peer. It
//! attaches to a relay of this machine and makes connections to peers. Relays cannot read these
//! connections. The program contains no TLS.

mod api;
mod base64;
mod exit;
mod file;
mod id;
mod limits;
mod lines;
mod node;
mod ping;
mod place;
mod probe;
mod receive;
mod relay;
mod send;
mod signals;
mod target;
mod transfer;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use self::exit::{Exit, Failure};

/// Connections between peers, over the labels of a Strowger network.
#[derive(Debug, Parser)]
#[command(name = "strowger", bin_name = "strowger", version, after_help = Exit::TABLE, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect to a peer, and send lines of standard input or a file.
    #[command(after_help = place::ABOUT)]
    Send(Box<send::Options>),
    /// Accept a connection from a peer, and print its lines or write its file.
    #[command(after_help = place::ABOUT)]
    Receive(Box<receive::Options>),
    /// Ping a peer end to end.
    #[command(after_help = place::ABOUT)]
    Ping(Box<ping::Options>),
    /// Check each stage of a connection to a peer, from the address book to its protocols.
    #[command(after_help = place::ABOUT)]
    Probe(Box<probe::Options>),
    /// Show your PeerId, or what a peer says of itself, in the shape of `ipfs id`.
    #[command(after_help = place::ABOUT)]
    Id(Box<id::Options>),
    /// Run the local service through which programs in other languages connect to peers.
    #[command(after_help = place::ABOUT)]
    Api(Box<api::Options>),
}

fn main() -> ExitCode {
    let ran = run(&Arguments::parse().command);
    signals::wait_if_ending();
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.line.is_empty() {
                let _ = writeln!(io::stderr(), "strowger: {failure}");
            }
            failure.code()
        }
    }
}

fn run(command: &Command) -> Result<(), Failure> {
    let output = &mut io::stdout();
    match command {
        Command::Send(options) => send::run(options),
        Command::Receive(options) => receive::run(options),
        Command::Ping(options) => ping::run(options, output),
        Command::Probe(options) => probe::run(options, output),
        Command::Id(options) => id::run(options, output),
        Command::Api(options) => api::run(options),
    }
}
