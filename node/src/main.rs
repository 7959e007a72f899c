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
        ask, bench, config, conform, demo, doctor, init, key, label, relay as relay_command,
        scheme, show, slot,
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
    /// Measure forwarding rates on this machine, as pairs with plain forwarders in one run.
    #[command(disable_help_flag = true)]
    Bench {
        /// See `strowger bench --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Write a key and a configuration that starts as it is.
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
    /// Extend the slot numbers of a running relay, while traffic flows.
    Scheme {
        #[command(subcommand)]
        task: scheme::Task,
    },
    /// Send pings to the switch at the end of a label, or to a peer by its name.
    Ping(ask::PingOptions),
    /// Show what each hop of a label does with a packet, and where and why one drops it.
    Trace(ask::Options),
    /// Show the PeerId of the switch at the end of a label, and the key of its links.
    Identify(ask::Options),
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
    /// Read and compute labels: show, splice, reverse, build, step.
    #[command(disable_help_flag = true)]
    Label {
        /// See `strowger label --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "VERB AND LABELS")]
        arguments: Vec<String>,
    },
    /// Answer label operations as JSON lines on standard input and output.
    Conform,
    /// Print what this machine allows, and how to allow the rest.
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
        Command::Bench { arguments } => return Err(bench::run(&arguments)),
        Command::Config { task } => return config::run(&task, output),
        Command::Demo(options) => return demo::run(&options),
        Command::Doctor(options) => return doctor::run(&options, output),
        Command::Conform => conform::run(io::stdin(), output).or_else(|error| output_ended(&error)),
        Command::Identify(options) => ask::identify(&options, output),
        Command::Init(options) => init::run(&options, output),
        Command::Key { task } => key::run(&task, output),
        Command::Label { arguments } => label::run(&arguments, output),
        Command::Ping(options) => ask::ping(&options, output),
        Command::Relay(options) => relay_command::run(&options),
        Command::Scheme { task } => scheme::run(&task, output),
        Command::Show(options) => show::run(&options, output),
        Command::Slot { task } => slot::run(task, output),
        Command::Trace(options) => ask::trace(&options, output),
    };
    result.map(|()| ExitCode::SUCCESS)
}
