//! The command `strowger`: arguments in, exit code out. It never does anything itself; each
//! subcommand has a module of its own.

mod admin;
mod ask;
mod backend;
mod bench_cmd;
mod check;
mod config;
mod conform;
mod demo;
mod doctor;
mod exit;
mod init;
mod journal;
mod key;
mod label_cmd;
mod limits;
mod log;
mod own;
mod plan;
mod relay;
mod roles;
mod show;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use serde_json::json;
use strowger_runtime::{address, files, untrusted};

use self::{
    exit::{Exit, Failure, output_ended},
    label_cmd::LabelFailure,
    show::Topic,
};

/// Aborts if a worker's thread allocates (R13): the runtime forbids it there.
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
    /// Show what a switch does: a relay and two endpoints on this machine, no rights needed.
    Demo(demo::Options),
    /// Measure forwarding rates on this machine, as pairs with plain forwarders in one run.
    #[command(disable_help_flag = true)]
    Bench {
        /// See `strowger bench --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Write a key and a configuration that starts as it is.
    Init(init::Options),
    /// Run a switch until SIGINT or SIGTERM.
    Relay {
        /// The configuration; `strowger config sample` prints one to begin with.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Ask a running relay for its slots, ports, peers, links, events, discards or status.
    Show {
        /// What to show.
        topic: Topic,
        /// With events: go on, a line for each, until interrupted.
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Attach, renumber, drain and detach neighbours of a running relay, while traffic flows.
    Slot {
        #[command(subcommand)]
        change: Change,
    },
    /// Let the numbering of a running relay's slots grow, while traffic flows.
    Scheme {
        #[command(subcommand)]
        change: SchemeChange,
    },
    /// Ask whoever is at the end of a label whether it is there; sent by a running relay.
    Ping(ask::Pinging),
    /// Ask every hop of a label what it does with a packet, and where and why one is discarded.
    Trace(ask::Options),
    /// Ask whoever is at the end of a label who it is: its PeerId and the key of its links.
    Identify(ask::Options),
    /// Make and read key files: new, id, show, psk.
    Key {
        #[command(subcommand)]
        task: key::Task,
    },
    /// Check a configuration, add a peer to one, or print a sample.
    Config {
        #[command(subcommand)]
        task: ConfigTask,
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
    /// Say what this machine allows, and how to allow the rest.
    Doctor {
        /// Print one JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
}

/// How a relay is asked.
#[derive(Debug, clap::Args)]
struct Asking {
    /// Print the relay's JSON as it came.
    #[arg(long)]
    json: bool,
    /// The relay's control socket.
    #[arg(long, value_name = "PATH", default_value_os_t = config::default_control_socket())]
    socket: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Give a neighbour a slot.
    Attach {
        /// What to call it.
        name: String,
        /// Where it is: IP and port, or a MAC address. None behind a unix endpoint.
        #[arg(value_parser = address::checked)]
        address: Option<String>,
        /// The `[[udp]]`, `[[ethernet]]` or `[[unix]]` that it is behind, if there is more than one.
        #[arg(long, value_name = "NAME")]
        listener: Option<String>,
        /// The slot number; the lowest free one if none is given.
        #[arg(long, value_name = "N")]
        slot: Option<u32>,
        /// The static key of a peer, in hex: its link is sealed. Without it the link is plain, which
        /// the listener must allow.
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
        /// Who the peer must prove to be: its PeerId, 12D3KooW...; without its key, that is found out.
        #[arg(long, value_name = "PEER_ID")]
        peer_id: Option<String>,
        /// The file of the key that both operators have, as the relay's process sees it.
        #[arg(long, value_name = "FILE", requires = "key")]
        psk: Option<PathBuf>,
        /// What a peer may do: transit, endpoints, control.
        #[arg(long, value_name = "RIGHT", value_delimiter = ',')]
        rights: Option<Vec<String>>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Give a slot another number. The former one leads to it for `alias_s`, and who uses it is told.
    Renumber {
        /// The slot number.
        slot: u32,
        /// The new one; the lowest free one if none is given.
        to: Option<u32>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Say that no new label should name a slot; it forwards as before, and is detached after a while.
    Drain {
        /// The slot number.
        slot: u32,
        /// After so many seconds, up to a day.
        #[arg(long = "for", value_name = "SECONDS", default_value_t = admin::DRAIN_S)]
        for_s: u64,
        #[command(flatten)]
        asking: Asking,
    },
    /// Take a slot away. Its number rests before it is given again.
    Detach {
        /// The slot number.
        slot: u32,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Debug, Subcommand)]
enum SchemeChange {
    /// Go over to a scheme that reads every label in use as before: every number that can be written
    /// now is written so in it, too.
    Grow {
        /// f4, f8, v3x5x8, v4x8, or a serialised one in hex.
        scheme: String,
        /// The highest slot number that is given out from now on.
        #[arg(long, value_name = "N")]
        slot_max: Option<u32>,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigTask {
    /// Say what is wrong with a file, and what this machine would refuse of it. Nothing is opened, made or
    /// changed, so it works beside a relay that runs. Run it as the user that starts the relay.
    Check {
        /// The file.
        file: PathBuf,
        /// Look at the text alone: for a file that is for another machine.
        #[arg(long)]
        text_only: bool,
    },
    /// Print a commented sample.
    Sample,
    /// Add a [[peer]] to a configuration. The file stays as it is if it would not be valid with the peer.
    AddPeer(init::AddPeer),
}

fn main() -> ExitCode {
    match perform(Arguments::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            if !failure.line.is_empty() {
                let _ = writeln!(io::stderr(), "strowger: {failure}");
            }
            failure.code()
        }
    }
}

fn perform(command: Command) -> Result<ExitCode, Failure> {
    let output = &mut io::stdout();
    let done = match command {
        Command::Bench { arguments } => return Err(bench_cmd::perform(&arguments)),
        Command::Demo(options) => return demo::run(&options),
        Command::Doctor { json } => return doctor::run(json, output),
        Command::Config { task: ConfigTask::Check { file, text_only } } => {
            return check::run(&file, text_only, output);
        }
        Command::Ping(options) => ask::ping(&options, output),
        Command::Identify(options) => ask::identify(&options, output),
        Command::Trace(options) => ask::trace(&options, output),
        Command::Init(options) => init::init(&options, output),
        Command::Relay { config } => relay::run(&config),
        Command::Show { topic, follow, asking } => {
            let topic = if follow { topic.followed()? } else { topic };
            show::show(topic, asking.json, &asking.socket, output)
        }
        Command::Slot {
            change:
                Change::Attach { name, address, listener, slot, key, peer_id, psk, rights, asking },
        } => {
            let wish = json!({ "name": name, "address": address, "listener": listener,
                "slot": slot, "key": key, "peer_id": peer_id, "psk": psk, "rights": rights });
            show::change(&json!({ "attach": wish }), asking.json, &asking.socket, output)
        }
        Command::Slot { change: Change::Renumber { slot, to, asking } } => {
            let wish = json!({ "renumber": { "slot": slot, "to": to } });
            show::change(&wish, asking.json, &asking.socket, output)
        }
        Command::Slot { change: Change::Drain { slot, for_s, asking } } => {
            let wish = json!({ "drain": { "slot": slot, "for_s": for_s } });
            show::change(&wish, asking.json, &asking.socket, output)
        }
        Command::Scheme { change: SchemeChange::Grow { scheme, slot_max, asking } } => {
            let wish = json!({ "grow": { "scheme": scheme, "slot_max": slot_max } });
            show::change(&wish, asking.json, &asking.socket, output)
        }
        Command::Slot { change: Change::Detach { slot, asking } } => {
            show::change(&json!({ "detach": slot }), asking.json, &asking.socket, output)
        }
        Command::Key { task } => key::run(&task, output),
        Command::Config { task: ConfigTask::Sample } => {
            output.write_all(config::SAMPLE.as_bytes()).or_else(|error| output_ended(&error))
        }
        Command::Config { task: ConfigTask::AddPeer(options) } => init::add_peer(&options, output),
        Command::Label { arguments } => {
            label_cmd::run(&arguments, output).or_else(|failure| match failure {
                LabelFailure::Output(error) => output_ended(&error),
                LabelFailure::Usage(line) => Err(Failure::new(Exit::Usage, line)),
                LabelFailure::Refused(line) => Err(Failure::new(Exit::CheckFailed, line)),
            })
        }
        Command::Conform => conform::run(io::stdin(), output).or_else(|error| output_ended(&error)),
    };
    done.map(|()| ExitCode::SUCCESS)
}
