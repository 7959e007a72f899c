//! Lines of text as messages, in both directions, as netcat does.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use strowger_socket::{CloseReason, RecvError, SendError, SocketReceiver, SocketSender};

use crate::{
    exit::{Exit, Failure, output_ended},
    limits::{LINE_BYTES_MAX, SEND_MAX},
    transfer,
};

/// Reads lines and calls `each` with each one, without its line break, until the end of the input.
///
/// # Errors
/// One line: the input cannot be read, or a line is too long; or the error of `each`.
pub(crate) fn read(
    input: impl Read,
    mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let mut limited = input.by_ref().take(LINE_BYTES_MAX as u64 + 1);
        let bytes = limited.read_until(b'\n', &mut line).map_err(|error| {
            Failure::new(Exit::Refused, format!("cannot read the input: {error}"))
        })?;
        if bytes == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if text.len() == LINE_BYTES_MAX + 1 {
            return Err(too_long(number, "more than 65536", 1_400));
        }
        each(text).map_err(|failure| match failure.line.strip_prefix(TOO_LONG) {
            Some(max) => too_long(number, &text.len().to_string(), max.parse().unwrap_or(0)),
            None => failure,
        })?;
    }
    Ok(())
}

/// The start of the text of an error, to which [`read`] adds the line number.
const TOO_LONG: &str = "too long:";

fn too_long(number: u64, bytes: &str, max: usize) -> Failure {
    let line = format!(
        "line {number} has {bytes} bytes, and a message on this path {max} at most; `--file` at both \
         ends sends input of any kind"
    );
    Failure::new(Exit::CheckFailed, line)
}

/// Sends a line as a message.
///
/// # Errors
/// One line: the message is too long, or the socket is closed.
pub(crate) fn send(socket: &mut SocketSender, line: &[u8]) -> Result<(), Failure> {
    socket.send_wait(line, SEND_MAX).map_err(|error| match error {
        SendError::TooLong { max } => Failure::new(Exit::CheckFailed, format!("{TOO_LONG}{max}")),
        error => Failure::new(Exit::NoPeer, error.to_string()),
    })
}

/// Prints the messages of a peer as lines until the socket is closed, and returns the reason of the
/// close. Returns `None` if the reader of the output has closed the output.
///
/// # Errors
/// One line: the output cannot be written, or the peer sends a file.
pub(crate) fn print(
    socket: &mut SocketReceiver,
    refuse: impl Fn(&[u8]),
    output: &mut dyn Write,
) -> Result<Option<CloseReason>, Failure> {
    loop {
        let message = match socket.recv_wait() {
            Ok(message) => message,
            Err(RecvError::Closed(reason)) => return Ok(Some(reason)),
            Err(error) => return Err(Failure::new(Exit::NoPeer, error.to_string())),
        };
        if let Some(refusal) = transfer::refusal_of(&message) {
            refuse(&refusal);
            let line = "the peer sends a file; receive it with `strowger receive --file`";
            return Err(Failure::new(Exit::Usage, line));
        }
        let mut line = message.to_vec();
        drop(message);
        line.push(b'\n');
        if let Err(error) = output.write_all(&line).and_then(|()| output.flush()) {
            return output_ended(&error).map(|()| None);
        }
    }
}

/// Fails if the peer closed the socket with an error message, or if neither end closed it.
///
/// # Errors
/// One line: the text of the goodbye.
pub(crate) fn check_goodbye(reason: Option<&CloseReason>) -> Result<(), Failure> {
    match reason {
        Some(CloseReason::ByPeer(goodbye)) if !goodbye.message().is_empty() => {
            let line = format!("the peer has closed: {}", goodbye.message());
            Err(Failure::new(Exit::NoPeer, line))
        }
        Some(CloseReason::ByPeer(_) | CloseReason::ByUs) | None => Ok(()),
        Some(other) => Err(Failure::new(Exit::NoPeer, format!("the connection ended: {other}"))),
    }
}

/// The sender of the peer that is connected now, for the thread that reads the input. The program
/// serves one peer after the other.
#[derive(Clone, Default)]
pub(crate) struct CurrentSender(Arc<(Mutex<Option<SocketSender>>, Condvar)>);

impl CurrentSender {
    /// Sets the sender to the peer for further lines. With `None`, lines wait for the next peer.
    pub(crate) fn set(&self, sender: Option<SocketSender>) {
        let (current, changed) = &*self.0;
        *current.lock().unwrap_or_else(PoisonError::into_inner) = sender;
        changed.notify_all();
    }

    /// Answers the present peer, if there is one.
    pub(crate) fn answer(&self, message: &[u8]) {
        let mut sender = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = sender.as_mut() {
            let _ = socket.try_send(message);
        }
    }

    /// Sends to the present peer; waits until there is one. A line for a peer that has just closed
    /// is lost, as any message may be.
    ///
    /// # Errors
    /// One line: the message is too long.
    pub(crate) fn send(&self, line: &[u8]) -> Result<(), Failure> {
        let (current, changed) = &*self.0;
        let mut sender = current.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match sender.as_mut() {
                Some(socket) => {
                    return match send(socket, line) {
                        Err(failure) if failure.exit == Exit::NoPeer => Ok(()),
                        sent => sent,
                    };
                }
                None => sender = changed.wait(sender).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Copies lines from standard input to the present peer, on its own thread, which runs until the
/// process ends.
pub(crate) fn feed(current: &CurrentSender) -> Result<(), Failure> {
    let current = current.clone();
    let feed = move || {
        if let Err(failure) = read(io::stdin(), |line| current.send(line)) {
            eprintln!("strowger: {failure}");
        }
    };
    let thread = std::thread::Builder::new().name("input".to_owned()).spawn(feed);
    thread.map(drop).map_err(|error| Failure::new(Exit::Refused, format!("no thread: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_without_their_breaks_and_long_ones_are_refused() {
        let mut seen = Vec::new();
        let each = |line: &[u8]| {
            seen.push(String::from_utf8(line.to_vec()).unwrap());
            Ok(())
        };
        read(&b"one\n\ntwo\r\nlast"[..], each).unwrap();
        assert_eq!(seen, ["one", "", "two\r", "last"]);

        let long = vec![b'x'; LINE_BYTES_MAX + 2];
        let failure = read(&long[..], |_| Ok(())).unwrap_err();
        assert!(failure.line.contains("line 1 has more than 65536 bytes"), "{failure}");
        let refuse = |line: &[u8]| match line.len() {
            5 => Err(Failure::new(Exit::CheckFailed, format!("{TOO_LONG}4"))),
            _ => Ok(()),
        };
        let failure = read(&b"1234\n12345\n"[..], refuse).unwrap_err();
        assert!(failure.line.contains("line 2 has 5 bytes"), "{failure}");
        assert!(failure.line.contains("4 at most"), "{failure}");
    }
}
