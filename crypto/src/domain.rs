//! The two uses of the handshakes: keys of links and keys of end-to-end connections.
//!
//! A [`Domain`] selects the texts that separate keys, macs and signatures (wire.md W4-23 and
//! W6-22), so no message, proof or key of one domain is valid in the other, even between the same
//! static keys. [`LocalIdentity`](crate::LocalIdentity) holds the domain: it is chosen once, when
//! the identity is made.

use strowger_wire::hello::VERSION;

use crate::identity::NetworkId;

/// The version of the connection format. It is independent of the version of the link format, so
/// each format can change alone.
pub const CONNECTION_VERSION: u8 = 1;

/// The use of a handshake and of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// A link between two neighbours (wire.md section 4).
    Link,
    /// An end-to-end connection of two identities (wire.md section 6).
    Connection,
}

/// The texts of one domain.
pub(crate) struct Texts {
    /// Beginning of the Noise prologue.
    prologue: &'static str,
    version: u8,
    /// Prefix of the bytes that an identity proof signs.
    pub(crate) proof: &'static str,
    pub(crate) mac1_key: &'static str,
    pub(crate) cookie_key: &'static str,
    pub(crate) hint_key: &'static str,
    pub(crate) lane_key: &'static str,
}

const LINK: Texts = Texts {
    prologue: "strowger link",
    version: VERSION,
    proof: "strowger-link-static-key:",
    mac1_key: "strowger mac1 key",
    cookie_key: "strowger cookie key",
    hint_key: "strowger key hint key",
    lane_key: "strowger link lane key",
};

const CONNECTION: Texts = Texts {
    prologue: "strowger connection",
    version: CONNECTION_VERSION,
    proof: "strowger-connection-static-key:",
    mac1_key: "strowger connection mac1 key",
    cookie_key: "strowger connection cookie key",
    hint_key: "strowger connection key hint key",
    lane_key: "strowger connection lane key",
};

impl Domain {
    pub(crate) const fn texts(self) -> &'static Texts {
        match self {
            Domain::Link => &LINK,
            Domain::Connection => &CONNECTION,
        }
    }

    /// The Noise prologue: protocol name, version, and the network's name with its length.
    pub(crate) fn prologue(self, network: &NetworkId) -> Vec<u8> {
        let texts = self.texts();
        let name = network.as_bytes();
        let mut bytes = texts.prologue.as_bytes().to_vec();
        bytes.push(texts.version);
        bytes.push(name.len() as u8); // `NetworkId::new` bounds the length
        bytes.extend_from_slice(name);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// wire.md: W6-22.
    #[test]
    fn no_text_of_one_domain_is_one_of_the_other() {
        let all = |domain: Domain| {
            let Texts { prologue, proof, mac1_key, cookie_key, hint_key, lane_key, .. } =
                *domain.texts();
            [prologue, proof, mac1_key, cookie_key, hint_key, lane_key]
        };
        let (link, connection) = (all(Domain::Link), all(Domain::Connection));
        for text in link {
            assert!(connection.iter().all(|other| !other.starts_with(text)), "{text}");
        }
        let network = NetworkId::new(b"example").expect("short");
        let prologue = Domain::Connection.prologue(&network);
        assert_eq!(prologue, b"strowger connection\x01\x07example");
    }
}
