//! `strowger receive`: accepts connections, and prints lines or writes a file.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::PathBuf,
};

use strowger_runtime::untrusted::Untrusted;
use strowger_socket::{ListenError, Listener, Socket};

use crate::{
    exit::{Exit, Failure},
    file::{self, Output},
    limits::FILE_PROTOCOL,
    lines::{self, CurrentSender},
    node::{self, Access},
    place::PlaceOptions,
    send::protocol,
    signals,
    target::Target,
};

/// `strowger receive`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The name of the protocol, as /chat/1.
    #[arg(value_name = "PROTOCOL", value_parser = protocol)]
    protocol: String,
    /// Write to this file, which must not exist yet, instead of standard output.
    #[arg(value_name = "FILE")]
    output: Option<PathBuf>,
    /// Receive one file, complete and with its hash. The peer needs the option, too.
    #[arg(long)]
    file: bool,
    /// Accept only this peer. Repeat the option for more. Without it, the peers of the address book
    /// with the purpose `accept`.
    #[arg(long, value_name = "PEER")]
    from: Vec<String>,
    /// Accept every peer that knows this PeerId.
    #[arg(long, conflicts_with = "from")]
    anyone: bool,
    /// Accept the next peer after one has closed, until a signal ends the program.
    #[arg(long, short, conflicts_with = "file")]
    keep: bool,
    /// Replace an existing file.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    place: PlaceOptions,
}

/// `strowger receive`.
///
/// # Errors
/// One line: the program cannot listen, or the file did not arrive.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let place = options.place.place()?;
    let book = place.book()?;
    let from = options.from.iter().map(|peer| Target::find(peer, &book, &place));
    let from = from.collect::<Result<Vec<_>, _>>()?;
    let access = match (options.anyone, from.as_slice()) {
        (true, _) => Access::Anyone,
        (false, []) => Access::Book,
        (false, from) => Access::Peers(from.iter().map(|target| target.peer).collect()),
    };
    let accepts_nobody =
        matches!(access, Access::Book) && !book.entries().iter().any(|entry| entry.purposes.accept);
    if accepts_nobody {
        let line = format!(
            "no peer in {} may connect; name one with --from PEER, accept all with --anyone, or: {}",
            place.book.display(),
            place.peer_add("NAME PEER_ID --purposes connect,accept")
        );
        return Err(Failure::new(Exit::Usage, line));
    }
    let mut output = options.open()?;
    let node = node::start(&place, book, access)?;
    signals::close_on_signal(&node)?;
    // The order matters: a peer that has received the second name has also received the first.
    let names = [FILE_PROTOCOL, &options.protocol];
    let names = if options.file { &names[..] } else { &names[1..] };
    let listener = node.listen(names.to_vec()).map_err(|error: ListenError| {
        Failure::new(Exit::Refused, format!("{}: {error}", options.protocol))
    })?;
    eprintln!("strowger: {} accepts {}", node.peer_id(), options.protocol);
    let served = match &mut output {
        To::File(output) => receive_file(&listener, &options.protocol, output),
        To::Lines(output) => options.receive_lines(&listener, output.as_mut()),
    };
    node::close(node, served.as_ref().err().map_or("", |failure| &failure.line));
    served
}

/// The output of received messages.
enum To {
    File(Output),
    Lines(Box<dyn Write>),
}

fn accept(listener: &Listener, protocol: &str) -> Result<Socket, Failure> {
    loop {
        let accepted = listener.accept_wait();
        let socket = accepted.map_err(|error| Failure::new(Exit::NoRelay, error.to_string()))?;
        // A socket with `FILE_PROTOCOL` has no messages: the name only shows that this program
        // receives files.
        if socket.protocol_name() == protocol {
            eprintln!("strowger: {} has connected", socket.peer());
            return Ok(socket);
        }
    }
}

fn receive_file(listener: &Listener, protocol: &str, output: &mut Output) -> Result<(), Failure> {
    let received = accept(listener, protocol).and_then(|mut socket| {
        let report = file::receive(&mut socket, output)?;
        eprintln!("strowger: received {report} from {}", socket.peer());
        Ok(())
    });
    if received.is_err() {
        output.discard();
    }
    received
}

impl Options {
    fn open(&self) -> Result<To, Failure> {
        if self.file {
            return Output::open(self.output.as_deref(), self.force).map(To::File);
        }
        let Some(path) = &self.output else { return Ok(To::Lines(Box::new(io::stdout()))) };
        let mut open = OpenOptions::new();
        open.write(true).create_new(!self.force).create(self.force).truncate(self.force);
        let file = open.open(path).map_err(|error| {
            let shown = path.display();
            Failure::new(
                Exit::Refused,
                match error.kind() {
                    io::ErrorKind::AlreadyExists => {
                        format!("{shown} exists and is not overwritten; --force replaces it")
                    }
                    _ => format!("cannot make {shown}: {error}"),
                },
            )
        })?;
        Ok(To::Lines(Box::new(file)))
    }

    fn receive_lines(&self, listener: &Listener, output: &mut dyn Write) -> Result<(), Failure> {
        let current = CurrentSender::default();
        lines::feed(&current)?;
        loop {
            let socket = accept(listener, &self.protocol)?;
            let peer = socket.peer();
            let (sender, mut receiver) = socket.split();
            current.set(Some(sender));
            let refuse = |refusal: &[u8]| current.answer(refusal);
            let printed = lines::print(&mut receiver, refuse, output);
            current.set(None);
            if !self.keep {
                return printed.and_then(|reason| lines::check_goodbye(reason.as_ref()));
            }
            match printed {
                Ok(None) => return Ok(()),
                Ok(Some(reason)) => {
                    eprintln!("strowger: {peer}: {}", Untrusted(&reason.to_string()));
                }
                Err(failure) if failure.exit == Exit::Refused => return Err(failure),
                Err(failure) => eprintln!("strowger: {peer}: {failure}"),
            }
        }
    }
}
