//! Sends a message to a peer that echoes messages, and prints the answer; without a peer, echoes
//! messages of others. README.md shows its first half; a check of `repo-lint` keeps both copies
//! equal.
//!
//! The relay has a unix port for each program, and the address book names both (docs/sockets.md):
//!
//! `cargo run -p strowger --example echo UNIX_PORT KEY_FILE ADDRESS_BOOK [PEER]`

use std::{error::Error, time::Duration};

use strowger::{
    IdentityKey, PeerId,
    socket::{Attachment, Node, StaticTable},
};

const SECOND: Duration = Duration::from_secs(1);

fn node(port: impl Into<Attachment>, key: IdentityKey, book: &str) -> Result<Node, Box<dyn Error>> {
    Ok(Node::builder()
        .attach(port)
        .identity(key)
        .address_book(StaticTable::parse(book)?)
        .start()?)
}

fn ask(node: &Node, peer: PeerId) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut echo = node.connect(peer, ["/echo/2", "/echo/1"]).wait()?; // or .await
    echo.send_wait(b"hello", SECOND)?; // or echo.send(b"hello").await
    Ok(echo.recv_timeout(SECOND)?.ok_or("no answer")?.to_vec())
}

fn serve(node: &Node) -> Result<(), Box<dyn Error>> {
    let listener = node.listen("/echo/1")?;
    loop {
        let mut socket = listener.accept_wait()?;
        std::thread::spawn(move || {
            while let Ok(message) = socket.recv_wait() {
                // A message that cannot be sent is lost, as a message in flight may be.
                let _ = socket.send_wait(&message, SECOND);
            }
        });
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: echo UNIX_PORT KEY_FILE ADDRESS_BOOK [PEER]";
    let argument = |number| std::env::args().nth(number).ok_or(usage);
    let port = strowger::socket::Unix::at(argument(1)?);
    let key = strowger::key_file(argument(2)?)?;
    let path = argument(3)?;
    let book =
        std::fs::read_to_string(&path).map_err(|error| format!("address book {path}: {error}"))?;
    let node = node(port, key, &book)?;
    println!("this node is {}", node.peer_id());
    match argument(4) {
        Ok(peer) => println!("answer: {}", ask(&node, peer.parse()?)?.escape_ascii()),
        Err(_) => serve(&node)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use strowger::{Hop, Label, LocalPortSpec, OsEntropy, Relay, Scheme, Slot};

    use super::*;

    #[test]
    fn it_gets_an_answer() {
        let relay = Relay::builder()
            .workers(1)
            .local_port_spec(LocalPortSpec::new("a").slot(2))
            .local_port_spec(LocalPortSpec::new("b").slot(3))
            .start()
            .unwrap();
        let [a, b] = [(); 2].map(|()| IdentityKey::generate(&mut OsEntropy).unwrap());
        let peer = b.public().peer_id();
        // One address book has the label of the other node; the other book allows the connection.
        let hop = Hop { scheme: &Scheme::default(), ingress: Slot::new(2), egress: Slot::new(3) };
        let (label, _) = Label::<u64>::build(&[hop]).unwrap();
        let ours =
            format!("[[name]]\nname = \"bob\"\npeer_id = \"{peer}\"\nlabels = [\"{label}\"]\n");
        let theirs = format!(
            "[[name]]\nname = \"alice\"\npeer_id = \"{}\"\npurposes = [\"accept\"]\n",
            a.public().peer_id()
        );
        let b = node(relay.take_port("b").unwrap(), b, &theirs).unwrap();
        let a = node(relay.take_port("a").unwrap(), a, &ours).unwrap();
        std::thread::spawn(move || serve(&b).map_err(|error| error.to_string()));
        // The first attempts may fail because `serve` does not listen yet.
        let started = std::time::Instant::now();
        let answer = loop {
            match ask(&a, peer) {
                Ok(answer) => break answer,
                Err(_) if started.elapsed() < 60 * SECOND => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(answer, b"hello");
    }
}
