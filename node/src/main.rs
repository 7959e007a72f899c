//! The command `strowger`: reads the arguments and calls the module of the subcommand.

mod command;
mod exit;
mod labels;
mod limits;
mod relay;
mod table;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use self::{
    command::{
        config, conform, control_request, demo, doctor, init, key, label, peer,
        relay as relay_command, scheme, show, sibling, slot,
    },
    exit::{Exit, Failure, output_ended},
};

/// The runtime forbids allocations on a worker's thread. This allocator aborts the process if one
/// happens (R13).
#[global_allocator]
static ALLOC: strowger_frame::alloc::GuardedAlloc = strowger_frame::alloc::GuardedAlloc;

/// A label-switching engine for source-routed overlay networks.
#[derive(Debug, Parser)]
#[command(name = "strowger", version, after_help = Exit::TABLE, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forward packets through a relay on this machine for some seconds; needs no privileges.
    Demo(demo::Options),
    /// Measure forwarding rates on this machine, paired with those of plain forwarders in the same
    /// run.
    #[command(disable_help_flag = true)]
    Bench {
        /// See `strowger bench --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Connect to a peer by its PeerId, and send lines of standard input or a file.
    #[command(disable_help_flag = true)]
    Send {
        /// See `strowger send --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Accept a connection from a peer, and print its lines or write its file.
    #[command(disable_help_flag = true)]
    Receive {
        /// See `strowger receive --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Check each stage of a connection to a peer, from the address book to its protocols.
    #[command(disable_help_flag = true)]
    Probe {
        /// See `strowger probe --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Show your PeerId, or what a peer says of itself, in the shape of `ipfs id`.
    #[command(disable_help_flag = true)]
    Id {
        /// See `strowger id --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Run the local service through which programs in other languages connect to peers.
    #[command(disable_help_flag = true)]
    Api {
        /// See `strowger api --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Write a key and a configuration that works without changes.
    Init(init::Options),
    /// Run a relay until SIGINT or SIGTERM.
    Relay(relay_command::Options),
    /// Show the slots, ports, peers, links, events, discards or status of a running relay.
    Show(show::Options),
    /// Attach, renumber, drain and detach neighbours of a running relay, while traffic flows.
    Slot {
        #[command(subcommand)]
        task: slot::Task,
    },
    /// Extend the range of slot numbers of a running relay, while traffic flows.
    Scheme {
        #[command(subcommand)]
        task: scheme::Task,
    },
    /// Send pings to the switch at the end of a label or link, or to a peer end to end.
    #[command(after_help = control_request::PING_TARGETS)]
    Ping(control_request::PingOptions),
    /// Show what each hop along a label does with a packet, or where and why it is dropped.
    Trace(control_request::Options),
    /// Show the PeerId of the switch at the end of a label, and the key of its links.
    Identify(control_request::Options),
    /// Make and read key files: new, id, show, psk.
    Key {
        #[command(subcommand)]
        task: key::Task,
    },
    /// Check a configuration, add a peer to one, or print a sample.
    Config {
        #[command(subcommand)]
        task: config::Task,
    },
    /// Edit and print the address book: add, list, remove.
    #[command(after_help = peer::ABOUT)]
    Peer {
        #[command(subcommand)]
        task: peer::Task,
    },
    /// Read and compute labels: show, splice, reverse, build, step.
    #[command(disable_help_flag = true)]
    Label {
        /// See `strowger label --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "VERB AND LABELS")]
        arguments: Vec<String>,
    },
    /// Compute labels, handshakes and packets as JSON lines, to compare another implementation.
    #[command(after_help = conform::help())]
    Conform,
    /// Print which capabilities this machine allows, and how to enable the others.
    Doctor(doctor::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            if !failure.line.is_empty() {
                let _ = writeln!(io::stderr(), "strowger: {failure}");
            }
            failure.code()
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    let output = &mut io::stdout();
    let result = match command {
        Command::Bench { arguments } => return Err(sibling::run(sibling::BENCH, &arguments)),
        Command::Send { arguments } => return Err(sibling::gateway("send", &arguments)),
        Command::Receive { arguments } => return Err(sibling::gateway("receive", &arguments)),
        Command::Probe { arguments } => return Err(sibling::gateway("probe", &arguments)),
        Command::Id { arguments } => return Err(sibling::gateway("id", &arguments)),
        Command::Api { arguments } => return Err(sibling::gateway("api", &arguments)),
        Command::Config { task } => return config::run(&task, output),
        Command::Demo(options) => return demo::run(&options),
        Command::Doctor(options) => return doctor::run(&options, output),
        Command::Conform => conform::run(io::stdin(), output).or_else(|error| output_ended(&error)),
        Command::Identify(options) => control_request::identify(&options, output),
        Command::Init(options) => init::run(&options, output),
        Command::Key { task } => key::run(&task, output),
        Command::Label { arguments } => label::run(&arguments, output),
        Command::Peer { task } => peer::run(&task, output),
        Command::Ping(options) => control_request::ping(&options, output),
        Command::Relay(options) => relay_command::run(&options),
        Command::Scheme { task } => scheme::run(&task, output),
        Command::Show(options) => show::run(&options, output),
        Command::Slot { task } => slot::run(task, output),
        Command::Trace(options) => control_request::trace(&options, output),
    };
    result.map(|()| ExitCode::SUCCESS)
}
