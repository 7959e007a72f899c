//! A chat of two: lines of standard input go to the peer, and the peer's lines to standard output.
//!
//! Start it on both sides. The side without `PEER` waits for a connection:
//!
//! `cargo run -p strowger --example chat UNIX_PORT KEY_FILE ADDRESS_BOOK [PEER]`

use std::{
    error::Error,
    fs::read_to_string,
    io::{BufRead, Write},
    thread,
    time::Duration,
};

use strowger::socket::{CloseReason, Node, RecvError, Socket, StaticTable, Unix};

const PROTOCOL: &str = "/chat/1";

/// Sends the lines of `input`, and meanwhile writes the peer's lines to `output`. Returns when the
/// input has ended or the peer has closed.
fn talk(
    socket: Socket,
    input: impl BufRead,
    mut output: impl Write + Send + 'static,
) -> Result<(), Box<dyn Error>> {
    // Each thread has one half of the socket, so the threads need no lock and do not wait for each
    // other.
    let (mut sender, mut receiver) = socket.split();
    thread::spawn(move || {
        loop {
            match receiver.recv_wait() {
                Ok(line) => {
                    let line = String::from_utf8_lossy(&line);
                    // Control characters of a peer do not reach the terminal.
                    let line: String = line.chars().filter(|c| !c.is_control()).collect();
                    writeln!(output, "< {line}").ok();
                }
                Err(RecvError::Closed(CloseReason::ByPeer(goodbye))) => {
                    writeln!(output, "the peer has left ({goodbye})").ok();
                    return;
                }
                Err(_) => return,
            }
        }
    });
    for line in input.lines() {
        let line = line?;
        // Cut the line at the longest message of the present path.
        let mut end = line.len().min(sender.message_max());
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        if sender.send_wait(&line.as_bytes()[..end], Duration::from_secs(5)).is_err() {
            break;
        }
    }
    // The other half continues until the peer or the node closes.
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: chat UNIX_PORT KEY_FILE ADDRESS_BOOK [PEER]";
    let argument = |number| std::env::args().nth(number).ok_or(usage);
    let path = argument(3)?;
    let book = read_to_string(&path).map_err(|error| format!("address book {path}: {error}"))?;
    let node = Node::builder()
        .attach(Unix::at(argument(1)?))
        .identity(strowger::key_file(argument(2)?)?)
        .address_book(StaticTable::parse(&book)?)
        .start()?;
    println!("this node is {}", node.peer_id());
    let socket = match argument(4) {
        Ok(peer) => node.connect(peer.parse::<strowger::PeerId>()?, PROTOCOL).wait()?,
        Err(_) => node.listen(PROTOCOL)?.accept_wait()?,
    };
    println!("chatting with {}", socket.peer());
    talk(socket, std::io::stdin().lock(), std::io::stdout())?;
    // Send goodbyes before the process ends.
    node.close(Default::default()).wait(Duration::from_secs(1));
    Ok(())
}

#[cfg(test)]
#[path = "support/two_nodes.rs"]
mod two_nodes;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A writer that sends to a channel.
    struct Written(mpsc::Sender<String>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(String::from_utf8_lossy(bytes).into_owned()).ok();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_reaches_the_other_side() {
        let (_relay, a, b) = two_nodes::two_nodes();
        let listener = b.listen(PROTOCOL).unwrap();
        let ours = a.connect(b.peer_id(), PROTOCOL).wait().unwrap();
        let (written, seen) = mpsc::channel();
        talk(ours, &b"good evening\n\x1b[2Jbell\x07\n"[..], std::io::sink()).unwrap();
        let theirs = listener.accept_wait().unwrap();
        talk(theirs, &b""[..], Written(written)).unwrap();
        a.close(Default::default()).wait(Duration::from_secs(10));
        // The channel ends when the listening thread does.
        let all: String = seen.iter().collect();
        assert!(all.starts_with("< good evening\n< [2Jbell\n"), "{all:?}");
        assert!(all.contains("the peer has left"), "{all:?}");
    }
}
