//! The peer to connect to: a PeerId, a name of the address book, or an address with a peer.

use strowger_crypto::PeerId;
use strowger_routing::{AddressBook, PeerAddress};

use crate::{
    exit::{Exit, Failure},
    place::Place,
};

/// A peer, as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The peer.
    pub(crate) peer: PeerId,
    /// The name of the peer in the address book, if it has one.
    pub(crate) name: Option<String>,
    /// The address, if the user gave one with more than a PeerId.
    pub(crate) address: Option<PeerAddress>,
}

impl Target {
    /// Finds the peer.
    ///
    /// # Errors
    /// One line: what is wrong with the text, and what is needed.
    pub(crate) fn find(text: &str, book: &AddressBook, place: &Place) -> Result<Target, Failure> {
        let usage = |line: String| Failure::new(Exit::Usage, line);
        if text.starts_with('/') {
            let address: PeerAddress =
                text.parse().map_err(|error: strowger_routing::address::AddressError| {
                    usage(format!("{text:?} is not an address: {error}"))
                })?;
            let peer = address.peer().map_err(|error| usage(format!("{text}: {error}")))?;
            if address.parts().protocol.is_some() {
                return Err(usage(format!(
                    "{text}: name the protocol as the next argument, not in the address"
                )));
            }
            let says_more = address != PeerAddress::of_peer(peer);
            return Ok(Target {
                peer,
                name: name_of(book, &peer),
                address: says_more.then_some(address),
            });
        }
        if let Some(entry) = book.named(text) {
            let name = Some(entry.name.clone());
            return Ok(Target { peer: entry.peer_id, name, address: None });
        }
        if let Ok(peer) = text.parse::<PeerId>() {
            return Ok(Target { peer, name: name_of(book, &peer), address: None });
        }
        // The address parser reports what is wrong with a PeerId.
        if text.starts_with("12D3Koo") || text.starts_with("Qm") {
            let fault = format!("/p2p/{text}").parse::<PeerAddress>().err();
            let fault = fault.map_or_else(String::new, |error| error.fault.to_string());
            return Err(usage(format!("{text} is no PeerId: {fault}")));
        }
        Err(usage(format!(
            "{text:?} is neither a PeerId (12D3KooW...), nor an address with one, nor a name in {}; \
             `{}` adds the name",
            place.book.display(),
            place.peer_add(&format!("{text} PEER_ID"))
        )))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.peer),
            None => self.peer.fmt(f),
        }
    }
}

fn name_of(book: &AddressBook, peer: &PeerId) -> Option<String> {
    book.of_peer(peer).map(|entry| entry.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "12D3KooWN1hpF14DNzraYWzE2HQH1zK7hNtYy7HALnB9s3gE79TY";

    fn find(text: &str) -> Result<Target, Failure> {
        let book = format!("[[name]]\nname = \"alice\"\npeer_id = \"{ALICE}\"\n");
        let place = Place {
            socket: "/s".into(),
            control: "/c".into(),
            key: "/k".into(),
            book: "/book".into(),
            network: String::new(),
        };
        Target::find(text, &AddressBook::parse(&book).unwrap(), &place)
    }

    #[test]
    fn a_peer_is_named_in_three_ways() {
        let alice: PeerId = ALICE.parse().unwrap();
        let address = format!("/switch/0000.0000.0001.5315/p2p/{ALICE}");
        for text in ["alice", ALICE, &format!("/p2p/{ALICE}"), &address] {
            let target = find(text).unwrap();
            assert_eq!((target.peer, target.name.as_deref()), (alice, Some("alice")), "{text}");
            let label = target.address.as_ref().and_then(|address| address.parts().label);
            assert_eq!(label.is_some(), text == address);
        }
    }

    #[test]
    fn other_texts_are_refused_with_what_is_needed() {
        for (text, needed) in [
            ("bob", "strowger peer add bob PEER_ID --book /book`"),
            ("12D3KooWN1hpF14DNzraYWzE2HQH1zK7hNtYy7HALnB9s3gE79T", "is no PeerId"),
            ("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", "is a hash of a key"),
            ("/switch/0000.0000.0000.0015", "append /p2p/"),
            (&format!("/p2p/{ALICE}/chat/1"), "as the next argument"),
            ("/ip4/192.0.2.1/tcp/1", "need /udp"),
        ] {
            let failure = find(text).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.line.contains(needed), "{failure}");
        }
    }
}
