//! Messages with their sender and receiver, and the check of delivered messages.

use std::collections::{HashMap, HashSet};

use strowger_connection::{DatagramId, SendRefused, SocketId, crypto::PeerId};

use crate::world::{World, peer};

/// The sender, receiver and protocol of a sent message.
struct Told {
    from: PeerId,
    to: PeerId,
    protocol: String,
}

/// The protocol of datagram sockets.
pub(crate) const DATAGRAMS: &str = "/datagrams/1";

/// All messages that were sent.
#[derive(Default)]
pub(crate) struct Traffic {
    told: HashMap<Vec<u8>, Told>,
}

impl Traffic {
    /// Sends a unique message. Returns the message if the endpoint accepted it.
    pub(crate) fn send(
        &mut self,
        world: &mut World,
        (from, to): (usize, usize),
        socket: SocketId,
        protocol: &str,
    ) -> Result<Vec<u8>, SendRefused> {
        let message = self.message(world, (from, to), protocol);
        world.send(from, socket, &message).map(|()| message)
    }

    /// Sends a message of a datagram socket.
    pub(crate) fn send_to(
        &mut self,
        world: &mut World,
        (from, to): (usize, usize),
        socket: DatagramId,
    ) -> Result<Vec<u8>, SendRefused> {
        let message = self.message(world, (from, to), DATAGRAMS);
        let to = peer(world.ends[to].seed);
        world.send_to(from, socket, &to, &message).map(|()| message)
    }

    fn message(
        &mut self,
        world: &mut World,
        (from, to): (usize, usize),
        protocol: &str,
    ) -> Vec<u8> {
        let len = 24 + world.rng.below(200);
        let mut message = (self.told.len() as u64).to_be_bytes().to_vec();
        message.extend(world.rng.bytes(len));
        let told = Told {
            from: peer(world.ends[from].seed),
            to: peer(world.ends[to].seed),
            protocol: protocol.to_owned(),
        };
        self.told.insert(message.clone(), told);
        message
    }

    /// Fails if a message was delivered twice (R15), or to another peer or protocol (R16).
    pub(crate) fn check(&self, world: &World) {
        let mut seen = HashSet::new();
        for end in &world.ends {
            let receiver = peer(end.seed);
            for got in &end.got {
                let told = self.told.get(&got.bytes).expect("R16: this message was sent");
                assert_eq!(told.to, receiver, "R16: another peer got the message");
                assert_eq!(told.from, got.peer, "R16: the socket of another peer got the message");
                // The datagram socket of each end accepts one protocol.
                let is_datagram = got.protocol.is_empty() && told.protocol == DATAGRAMS;
                assert!(
                    is_datagram || told.protocol == got.protocol,
                    "R16: {:?} got a message for {:?}",
                    got.protocol,
                    told.protocol
                );
                let is_new = seen.insert(&got.bytes);
                assert!(is_new || got.early, "R15: the message was delivered twice");
            }
        }
    }

    /// Whether a message was delivered at this end.
    pub(crate) fn has_arrived(world: &World, end: usize, message: &[u8]) -> bool {
        world.ends[end].got.iter().any(|got| got.bytes == message)
    }
}
