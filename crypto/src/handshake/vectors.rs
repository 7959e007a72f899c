//! The examples of wire.md 6.3 and 6.7, computed from their inputs.

use strowger_wire::connection::{ConnectionId, HelloFields};
use strowger_wire::hello::{Lanes, Mtu, SealWish, Timestamp, Widths};
use strowger_wire::limits::KEY_BYTES;
use strowger_wire::link_header::{Lane, SessionIndex};

use crate::cipher::Provider;
use crate::entropy::{Entropy, EntropyFailed};
use crate::handshake::cookie::{MacKeys, Way};
use crate::handshake::{
    Admission, Admitted, CookieChecker, DirectEnd, Established, FieldBytes, Load, LocalParams,
    Offer, ProtocolBytes, TimestampGuard, ik, xx,
};
use crate::identity::{IdentityKey, LocalIdentity, NetworkId};
use crate::sealer::lane_key;
use crate::secret::{Psk, Secret};
use crate::time::Nanos;

/// The source of the messages: ingress slot 3, a label of 8 bytes, and the label.
const SOURCE: &[u8] = &[0, 0, 0, 3, 8, 0, 0, 0, 0, 0, 0, 0x43, 0x21];
const A: u32 = 0x0a_0b0c;
const B: u32 = 0x1a_2b3c;
const SENT_AT: u64 = 1_700_000_000_000_000_000;
/// `/echo/1`, without flags.
const TABLE: &[u8] = b"\x00\x07/echo/1";

/// The names of the examples and their bytes, in the order of the page.
pub type Examples = Vec<(&'static str, Vec<u8>)>;

/// An entropy source that fills the first draw with the byte `first`, and each later draw with the
/// next higher byte.
struct Repeated {
    first: u8,
}

impl Entropy for Repeated {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyFailed> {
        bytes.fill(self.first);
        self.first += 1;
        Ok(())
    }
}

/// One end of the examples.
struct End {
    local: LocalIdentity,
    offer: Offer,
    index: u32,
}

impl End {
    fn params(&self) -> LocalParams<'_> {
        let index = SessionIndex::new(self.index).expect("24 bits");
        let timestamp = Timestamp(SENT_AT);
        LocalParams { local: &self.local, offer: &self.offer, index, timestamp }
    }
}

fn network() -> NetworkId {
    NetworkId::new(b"example").expect("short")
}

fn key(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&Secret::from_bytes([seed; KEY_BYTES]))
}

fn fields(fields: HelloFields<'_>) -> FieldBytes {
    let mut bytes = vec![0; fields.wire_bytes()];
    fields.emit(&mut bytes).expect("as long as the fields");
    FieldBytes::new(&bytes).expect("short")
}

fn offer(lanes: u8, mtu: u16) -> Offer {
    Offer {
        lanes: Lanes::new(lanes).expect("1 to 4"),
        mtu: Mtu::new(mtu).expect("large enough"),
        protocols: ProtocolBytes::new(TABLE).expect("short"),
        ..Offer::default()
    }
}

/// The initiator.
fn a() -> End {
    let id = Some(ConnectionId([1, 2, 3, 4, 5, 6, 7, 8]));
    let fields = fields(HelloFields { id, idle_s: Some(300), ..HelloFields::default() });
    let offer = Offer { widths: Widths::ALL, fields, ..offer(2, 1_424) };
    End { local: LocalIdentity::for_connections(&key(0xa0), network()), offer, index: A }
}

/// The responder. It does not know the connection.
fn b() -> End {
    let fields = fields(HelloFields { id: Some(ConnectionId::UNKNOWN), ..HelloFields::default() });
    let offer = Offer { seal: SealWish::MayHeaderOnly, fields, ..offer(1, 1_400) };
    End { local: LocalIdentity::for_connections(&key(0xb0), network()), offer, index: B }
}

/// B as a responder of XX: without protocol table and fields.
fn b_by_peer_id() -> End {
    let none = (ProtocolBytes::default(), FieldBytes::default());
    let End { local, offer, index } = b();
    End { local, offer: Offer { protocols: none.0, fields: none.1, ..offer }, index }
}

/// The checker of B: its current secret is `c1*32`, of epoch 1.
fn checker(b: &LocalIdentity) -> CookieChecker {
    CookieChecker::new(b, Nanos::ZERO, &mut Repeated { first: 0xc1 }).expect("no draw fails")
}

fn admit<'m>(checker: &CookieChecker, message: &'m [u8]) -> Admitted<'m> {
    match checker.admit(SOURCE, message, Load::Normal) {
        Ok(Admission::Admitted(admitted)) => admitted,
        _ => unreachable!("the macs are right and there is no load"),
    }
}

/// The direction keys, A to B first, and then the keys of the lanes that the hellos name.
fn keys(of_a: &Established, b_lanes: u8) -> Vec<u8> {
    let [there, back] = of_a.direction_keys();
    let domain = crate::Domain::Connection;
    let mut bytes = [*there.expose(), *back.expose()].concat();
    for (direction, lanes) in [(there, 2), (back, b_lanes)] {
        for lane in (0..lanes).filter_map(Lane::new) {
            bytes.extend_from_slice(lane_key(domain, direction, lane).expose());
        }
    }
    bytes
}

/// Keys and texts that both handshakes use.
fn constants() -> Examples {
    let (a, b) = (a(), b());
    let pairs = [(0xa0, &a), (0xb0, &b)];
    let keys = pairs.map(|(seed, end)| {
        [*key(seed).connection_key().expose(), end.local.static_public().0].concat()
    });
    let MacKeys { mac1, cookie, hint } = MacKeys::to_us(&b.local, Way::StaticKey);
    let by_peer_id = MacKeys::to_us(&b.local, Way::PeerId);
    vec![
        ("connection-keys", keys.concat()),
        ("connection-prologue", a.local.prologue()),
        ("connection-proof-a", a.local.proof().0.to_vec()),
        ("connection-mac-keys", [mac1, cookie, hint].concat()),
        ("connection-mac-keys-by-peer-id", [by_peer_id.mac1, by_peer_id.cookie].concat()),
    ]
}

/// IKpsk2: A addresses B by its static key.
pub fn by_static_key() -> Examples {
    let (a, b) = (a(), b());
    let entropy = &mut Repeated { first: 0xa1 };
    let to = b.local.static_public();
    let begun = ik::initiate(&a.params(), to, &Psk::NONE, None, entropy);
    let (state, message) = begun.expect("an honest key");
    let checker = checker(&b.local);
    let initiation = ik::read(&b.local, &admit(&checker, &message)).expect("an honest message");
    let (guard, entropy) = (&mut TimestampGuard::default(), &mut Repeated { first: 0xb1 });
    let accepted = initiation.accept(&b.params(), &Psk::NONE, guard, entropy);
    let (_, response) = accepted.expect("an honest message");
    let of_a = state.read_response(&response).expect("an honest message");
    vec![
        ("connection-ik-initiation", message),
        ("connection-ik-response", response),
        ("connection-ik-transcript", of_a.transcript().to_vec()),
        ("connection-ik-keys", keys(&of_a, 1)),
    ]
}

/// XX: A addresses B by its PeerId. The cookie reply is the one that B sends under load.
pub fn by_peer_id() -> Examples {
    let (a, b) = (a(), b_by_peer_id());
    let begin = || {
        let entropy = &mut Repeated { first: 0xa1 };
        let begun = xx::initiate_by_peer_id(&a.params(), b.local.identity(), None, entropy);
        begun.expect("another identity")
    };
    let (state, first) = begin();
    let checker = checker(&b.local);
    let Ok(Admission::CookieReply(cookie)) = checker.admit(SOURCE, &first, Load::Heavy) else {
        unreachable!("under load, a message without a cookie gets one");
    };
    let answer = xx::answer(&checker, &b.local, &b.offer, SOURCE, &admit(&checker, &first));
    let answer = answer.expect("an honest message");
    let discovered = state.read_response(&a.local, &answer).expect("an honest message");
    let (of_a, third) = discovered.finish(&a.params(), None).expect("the offers agree");
    let (transcript, keys) = (of_a.transcript().to_vec(), keys(&of_a, 1));
    let transport = of_a.into_transport(Nanos::ZERO, Provider::DEFAULT);
    let exporter = transport.exporter.expect("a connection has one");
    let end =
        |seed, nonce| DirectEnd { link_key: *key(seed).static_key().public(), nonce: [nonce; 16] };
    let psk = exporter.direct_psk(&end(0xa0, 0x0a), &end(0xb0, 0x0b));
    vec![
        ("connection-xx-1", first),
        ("connection-cookie-reply", cookie.to_vec()),
        ("connection-xx-2", answer),
        ("connection-xx-3", third),
        ("connection-xx-transcript", transcript),
        ("connection-xx-keys", keys),
        ("connection-direct-psk", psk.expose().to_vec()),
    ]
}

/// The certificate of the connection key of A.
fn certificate() -> Examples {
    let made = key(0xa0).certify_connection_key(SENT_AT, &network());
    vec![("identity-certificate", made.as_bytes().to_vec())]
}

/// All examples that need the cryptography of connections.
#[cfg(feature = "vectors")]
pub fn examples() -> Examples {
    [constants(), by_static_key(), by_peer_id(), certificate()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use strowger_testkit::wire_md::assert_example;

    fn compare(examples: Examples) {
        assert!(!examples.is_empty());
        examples.iter().for_each(|(name, bytes)| assert_example(name, bytes));
    }

    /// wire.md: W6-16, W6-22, W6-23.
    #[test]
    fn keys_and_texts_are_those_of_the_examples() {
        compare(constants());
    }

    /// wire.md: W6-12.
    #[test]
    fn initiations_have_896_bytes_and_no_reply_is_longer() {
        let messages = [by_static_key(), by_peer_id()].concat();
        let length = |name: &str| {
            let found = messages.iter().find(|(of, _)| *of == name);
            found.unwrap_or_else(|| panic!("no {name}")).1.len()
        };
        for (first, replies) in [
            ("connection-ik-initiation", &["connection-ik-response"][..]),
            ("connection-xx-1", &["connection-xx-2", "connection-cookie-reply"]),
        ] {
            assert_eq!(length(first), 896);
            assert!(replies.iter().all(|reply| length(reply) <= 896), "{first}");
        }
    }

    /// wire.md: W6-10, W6-17, W6-22, W6-27.
    #[test]
    fn a_handshake_by_static_key_is_that_of_the_examples() {
        compare(by_static_key());
    }

    /// wire.md: W6-10, W6-17, W6-22, W6-23, W6-25.
    #[test]
    fn a_handshake_by_peer_id_is_that_of_the_examples() {
        compare(by_peer_id());
    }

    #[test]
    fn an_identity_certificate_is_that_of_the_example() {
        compare(certificate());
    }
}
