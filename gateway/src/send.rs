//! `strowger send`: connects to a peer, and sends lines or a file.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use strowger_socket::{CloseReason, Node, Socket};
use strowger_wire::connection::ProtocolName;

use crate::{
    exit::{Exit, Failure},
    file,
    limits::{CONNECT_S, FILE_PROTOCOL},
    lines,
    node::{self, Access},
    place::PlaceOptions,
    signals,
    target::Target,
};

/// `strowger send`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The peer: a name of the address book, a PeerId, or an address with a PeerId.
    #[arg(value_name = "PEER")]
    peer: String,
    /// The name of the protocol, as /chat/1: the peer must accept it (`strowger receive /chat/1`).
    #[arg(value_name = "PROTOCOL", value_parser = protocol)]
    protocol: String,
    /// Read this file instead of standard input.
    #[arg(value_name = "FILE")]
    input: Option<PathBuf>,
    /// Send the input as one file, complete and with its hash. The peer needs the option, too.
    /// Without it each line is a message, which a path may lose.
    #[arg(long)]
    file: bool,
    /// After the end of the input, receive for this many seconds more, or until the peer closes.
    #[arg(long, short, value_name = "SECONDS", default_value_t = 0.0, value_parser = seconds, allow_negative_numbers = true)]
    wait: f64,
    /// How long a connection may take.
    #[arg(long, value_name = "SECONDS", default_value_t = CONNECT_S, value_parser = seconds, allow_negative_numbers = true)]
    timeout: f64,
    #[command(flatten)]
    place: PlaceOptions,
}

/// The name of a protocol (W6-31).
pub(crate) fn protocol(text: &str) -> Result<String, String> {
    match ProtocolName::new(text.as_bytes()) {
        Some(_) => Ok(text.to_owned()),
        None => {
            Err("a protocol is a name of 2 to 128 printable characters that begins with /, as \
                     /chat/1"
                .to_owned())
        }
    }
}

/// A number of seconds.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if Duration::try_from_secs_f64(seconds).is_ok() => Ok(seconds),
        _ => Err("expected seconds, as 0.5 or 10".to_owned()),
    }
}

/// `strowger send`.
///
/// # Errors
/// One line: there is no connection, or the file did not arrive.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let place = options.place.place()?;
    let book = place.book()?;
    let target = Target::find(&options.peer, &book, &place)?;
    let (input, length) = options.open()?;
    let node = node::start(&place, book, Access::Refused)?;
    signals::close_on_signal(&node)?;
    let timeout = Duration::from_secs_f64(options.timeout);
    let sent = node::connect(&node, &target, &options.protocol, timeout).and_then(|mut socket| {
        if options.file {
            let report = file::send(&mut socket, input, length)?;
            eprintln!("strowger: sent {report} to {target}");
            return Ok(());
        }
        if node::states(&node, &target, FILE_PROTOCOL) {
            let line = format!(
                "{target} receives a file and takes no lines: send one with --file, or there: \
                 strowger receive {} without --file",
                options.protocol
            );
            return Err(Failure::new(Exit::Usage, line));
        }
        talk(&node, socket, input, Duration::from_secs_f64(options.wait))
    });
    node::close(node, "");
    sent
}

impl Options {
    /// The input, and its length if it is a regular file.
    fn open(&self) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
        let Some(path) = &self.input else { return Ok((Box::new(io::stdin()), None)) };
        let open = || -> io::Result<(File, Option<u64>)> {
            let file = File::open(path)?;
            let facts = file.metadata()?;
            if facts.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            Ok((file, facts.is_file().then_some(facts.len())))
        };
        let (file, length) = open().map_err(|error| {
            Failure::new(Exit::Refused, format!("cannot read {}: {error}", path.display()))
        })?;
        Ok((Box::new(file), length))
    }
}

/// Sends lines on another thread, and prints the peer's messages, until the input has ended and
/// `wait` is over, or the peer closes.
fn talk(
    node: &Node,
    socket: Socket,
    input: Box<dyn Read + Send>,
    wait: Duration,
) -> Result<(), Failure> {
    let (mut sender, mut receiver) = socket.split();
    let ending = node.clone();
    let feed = move || {
        let sent = lines::read(input, |line| lines::send(&mut sender, line));
        if sent.is_ok() {
            std::thread::sleep(wait);
        }
        // The node sends queued messages before the goodbye; then the receiver reports that the
        // node is closed.
        drop(sender);
        node::close(ending, "");
        sent
    };
    let thread = std::thread::Builder::new().name("input".to_owned()).spawn(feed);
    let thread =
        thread.map_err(|error| Failure::new(Exit::Refused, format!("no thread: {error}")))?;
    let reason = lines::print(&mut receiver, |_| {}, &mut io::stdout())?;
    // If the peer has closed, the thread may still wait for input. Then it ends with the process.
    if thread.is_finished() || reason == Some(CloseReason::ByUs) {
        return thread.join().unwrap_or(Ok(()));
    }
    lines::check_goodbye(reason.as_ref())
}
