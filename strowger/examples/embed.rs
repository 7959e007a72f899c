//! A program without an async runtime that runs a relay with two sealed peers. It sends a packet to
//! a local port of one peer and prints the answer. README.md shows the function `ask`; a check of
//! `repo-lint` keeps both copies equal.
//!
//! `cargo run -p strowger --example embed KEY_FILE ALICE BOB BOB_ADDRESS LABEL`

use std::error::Error;

use strowger::{IdentityKey, Label, LocalPortSpec, Peer, PeerId, Relay};

fn ask(key: IdentityKey, alice: PeerId, bob: PeerId, bob_at: &str, to: Label) -> Answer {
    let relay = Relay::builder()
        .identity(key)
        .network("example")
        .workers(1)
        .udp("0.0.0.0:0".parse()?)
        .peer(Peer::new(alice).name("alice").slot(2)) // comes from any address
        .peer(Peer::new(bob).name("bob").at(bob_at).slot(3))
        .local_port_spec(LocalPortSpec::new("app").slot(4))
        .start()?;
    let (mut sender, mut receiver) = relay.take_port("app")?.split();
    let mut events = relay.events();
    while !relay.is_up("bob")? {
        events.recv().ok_or("the relay has ended")?;
    }
    sender.send_to(to, b"hello")?;
    let answer = receiver.recv()?.payload().to_vec();
    relay.shutdown()?; // peers receive a goodbye
    Ok(answer)
}

type Answer = Result<Vec<u8>, Box<dyn Error>>;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: embed KEY_FILE ALICE BOB BOB_ADDRESS LABEL";
    let argument = |number| std::env::args().nth(number).ok_or(usage);
    let key = strowger::key_file(argument(1)?)?;
    println!("this relay is {}", key.public().peer_id());
    let (alice, bob) = (argument(2)?.parse()?, argument(3)?.parse()?);
    let answer = ask(key, alice, bob, &argument(4)?, argument(5)?.parse()?)?;
    println!("answer: {:?}", answer.escape_ascii().to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    use strowger::{Hop, OsEntropy, Scheme, Slot};

    use super::*;

    #[test]
    fn it_gets_an_answer() {
        let [ours, alice, bob] = [(); 3].map(|()| IdentityKey::generate(&mut OsEntropy).unwrap());
        let (alice, bob_id) = (alice.public().peer_id(), bob.public().peer_id());
        let relay = Relay::builder()
            .identity(bob)
            .network("example")
            .workers(1)
            .udp("127.0.0.1:0".parse().unwrap())
            .peer(Peer::new(ours.public().peer_id()).slot(5))
            .local_port_spec(LocalPortSpec::new("app").slot(6))
            .start()
            .unwrap();
        let at = relay.ports().unwrap()[0].local_address().unwrap();
        let (mut sender, mut receiver) = relay.take_port("app").unwrap().split();
        let answering = std::thread::spawn(move || {
            let packet = receiver.recv().unwrap();
            assert_eq!((packet.payload(), packet.ingress()), (&b"hello"[..], 5));
            sender.reply(&packet, b"hello yourself").unwrap();
        });
        let scheme = &Scheme::default();
        let hop = |ingress, egress| {
            let (ingress, egress) = (Slot::new(ingress), Slot::new(egress));
            Hop { scheme, ingress, egress }
        };
        let (to, _) = Label::build(&[hop(4, 3), hop(5, 6)]).unwrap();
        let answer = ask(ours, alice, bob_id, &at.to_string(), to).unwrap();
        assert_eq!(answer, b"hello yourself");
        answering.join().unwrap();
        relay.shutdown().unwrap();
    }
}
