//! The command `strowger`: reads the arguments and calls the module of the subcommand.

mod command;
mod exit;
mod limits;
mod relay;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use serde_json::json;
use strowger_runtime::address;

use self::{
    command::{
        ask, bench,
        config::check,
        conform, demo, doctor, init, key,
        label::{self, LabelFailure},
        relay as relay_command,
        show::{self, Topic},
    },
    exit::{Exit, Failure, output_ended},
    relay::{config, control::DRAIN_S},
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
    /// Forward packets through a relay on this machine for some seconds; needs no rights.
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
    /// Run a relay until SIGINT or SIGTERM.
    Relay {
        /// The configuration; `strowger init` writes one.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Ask a running relay for its slots, ports, peers, links, events, discards or status.
    Show {
        /// What to show.
        topic: Topic,
        /// With events: print new ones, too, until interrupted.
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
    /// Extend the slot numbers of a running relay, while traffic flows.
    Scheme {
        #[command(subcommand)]
        change: SchemeChange,
    },
    /// Ask the switch at the end of a label, or a peer by its name, for an answer.
    Ping(ask::Pinging),
    /// Ask every hop of a label what it does with a packet, and where and why it drops one.
    Trace(ask::Options),
    /// Ask the switch at the end of a label for its PeerId and the key of its links.
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
    /// Print what this machine allows, and how to allow the rest.
    Doctor {
        /// Print one JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
}

/// How to ask a relay.
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
        /// Its name.
        name: String,
        /// Its address: IP and port, or MAC. None for a unix endpoint.
        #[arg(value_parser = address::checked)]
        address: Option<String>,
        /// The `[[udp]]`, `[[ethernet]]` or `[[unix]]` that it is behind, if there is more than one.
        #[arg(long, value_name = "NAME")]
        listener: Option<String>,
        /// The slot number; the lowest free one if none is given.
        #[arg(long, value_name = "N")]
        slot: Option<u32>,
        /// The static key of a peer, in hex, for an encrypted link. Without it the link is plain, which
        /// the listener must allow.
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
        /// The identity that the peer must prove: its PeerId, 12D3KooW...; without --key the handshake finds the key.
        #[arg(long, value_name = "PEER_ID")]
        peer_id: Option<String>,
        /// The file of the pre-shared key, as the relay's process sees it.
        #[arg(long, value_name = "FILE", requires = "key")]
        psk: Option<PathBuf>,
        /// What a peer may do: transit, endpoints, control.
        #[arg(long, value_name = "RIGHT", value_delimiter = ',')]
        rights: Option<Vec<String>>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Give a slot another number. The former one leads to it for `alias_s`, and its users are told.
    Renumber {
        /// The slot number.
        slot: u32,
        /// The new one; the lowest free one if none is given.
        to: Option<u32>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Ask that no new label names a slot; it forwards as before, and is detached after a while.
    Drain {
        /// The slot number.
        slot: u32,
        /// After so many seconds, up to a day.
        #[arg(long = "for", value_name = "SECONDS", default_value_t = DRAIN_S)]
        for_s: u64,
        #[command(flatten)]
        asking: Asking,
    },
    /// Detach a slot. Its number is in quarantine before it is given out again.
    Detach {
        /// The slot number.
        slot: u32,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(Debug, Subcommand)]
enum SchemeChange {
    /// Change to a scheme that reads every label in use as before.
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
    /// Print the errors of a file, and what this machine would refuse of it. It changes nothing, so it works
    /// beside a relay that runs. Run it as the user that starts the relay.
    Check {
        /// The file.
        file: PathBuf,
        /// Look at the text only, for a file of another machine.
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
        Command::Bench { arguments } => return Err(bench::perform(&arguments)),
        Command::Demo(options) => return demo::run(&options),
        Command::Doctor { json } => return doctor::run(json, output),
        Command::Config { task: ConfigTask::Check { file, text_only } } => {
            return check::run(&file, text_only, output);
        }
        Command::Ping(options) => ask::ping(&options, output),
        Command::Identify(options) => ask::identify(&options, output),
        Command::Trace(options) => ask::trace(&options, output),
        Command::Init(options) => init::init(&options, output),
        Command::Relay { config } => relay_command::run(&config),
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
            label::run(&arguments, output).or_else(|failure| match failure {
                LabelFailure::Output(error) => output_ended(&error),
                LabelFailure::Usage(line) => Err(Failure::new(Exit::Usage, line)),
                LabelFailure::Refused(line) => Err(Failure::new(Exit::CheckFailed, line)),
            })
        }
        Command::Conform => conform::run(io::stdin(), output).or_else(|error| output_ended(&error)),
    };
    done.map(|()| ExitCode::SUCCESS)
}
