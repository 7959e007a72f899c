//! A connection to the control socket of a running relay.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use serde_json::Value;
use strowger_runtime::places;

use crate::{
    exit::{Exit, Failure},
    limits::{CLIENT_REPLY_MAX, REPLY_BYTES_MAX},
};

/// The options for the connection to a relay and for the output of its reply.
#[derive(Debug, clap::Args)]
pub(crate) struct ControlOptions {
    /// Print the relay's JSON unchanged.
    #[arg(long)]
    pub(crate) json: bool,
    /// The relay's control socket.
    #[arg(long, value_name = "PATH", default_value_os_t = places::control_socket())]
    pub(crate) socket: PathBuf,
}

/// A connection to the control socket of a relay.
pub(crate) struct ControlConnection<'p> {
    socket: &'p Path,
    lines: BufReader<UnixStream>,
}

impl<'p> ControlConnection<'p> {
    /// Connects to the relay at this control socket.
    pub(crate) fn open(socket: &'p Path) -> Result<Self, Failure> {
        let shown = socket.display();
        let stream = UnixStream::connect(socket).map_err(|error| {
            if error.kind() == io::ErrorKind::PermissionDenied {
                let line = format!("{shown}: {error}; ask as the user that runs the relay");
                return Failure::new(Exit::Refused, line);
            }
            let line = format!(
                "no relay answers at {shown} ({error}); start one with `strowger relay`, or name \
                its control socket with --socket"
            );
            Failure::new(Exit::NoRelay, line)
        })?;
        let limits = stream.set_read_timeout(Some(CLIENT_REPLY_MAX));
        let limits = limits.and_then(|()| stream.set_write_timeout(Some(CLIENT_REPLY_MAX)));
        limits.map_err(|error| Failure::new(Exit::Refused, format!("{shown}: {error}")))?;
        Ok(Self { socket, lines: BufReader::new(stream) })
    }

    /// Removes the timeout of reads, so that [`next`](Self::next) blocks until a line arrives.
    pub(crate) fn wait_without_limit(&mut self) -> Result<(), Failure> {
        let set = self.lines.get_ref().set_read_timeout(None);
        set.map_err(|error| Failure::new(Exit::Refused, error.to_string()))
    }

    fn no_answer(&self, why: &str) -> Failure {
        let line = format!("the relay at {} does not answer: {why}", self.socket.display());
        Failure::new(Exit::NoRelay, line)
    }

    /// Sends a request and reads its reply.
    pub(crate) fn ask(&mut self, request: &Value) -> Result<Value, Failure> {
        let sent = self.lines.get_mut().write_all(format!("{request}\n").as_bytes());
        sent.map_err(|error| self.no_answer(&error.to_string()))?;
        self.next()
    }

    /// Reads the next line that the relay sends.
    pub(crate) fn next(&mut self) -> Result<Value, Failure> {
        let mut line = Vec::new();
        let read = self.lines.by_ref().take(REPLY_BYTES_MAX).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Err(self.no_answer("it closed the connection; it may be stopping")),
            Err(error) => return Err(self.no_answer(&error.to_string())),
            Ok(_) => {}
        }
        let answer: Value = serde_json::from_slice(&line)
            .map_err(|_| self.no_answer("its answer is not JSON; is it a relay?"))?;
        match answer.get("error").and_then(Value::as_str) {
            Some(why) => Err(Failure::new(Exit::Declined, format!("the relay declined: {why}"))),
            None => Ok(answer),
        }
    }
}
