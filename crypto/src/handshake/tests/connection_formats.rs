//! Recomputes the examples of docs/wire.md, section 6, that need cryptography.

use blake2::Digest;
use strowger_testkit::wire_md::{assert_example, example};
use strowger_wire::certificate::{CertificateFields, KeyRole};
use strowger_wire::connection::{ConnectionHeader, ConnectionKind, TableEntries};
use strowger_wire::limits::TAG_BYTES;
use strowger_wire::link_header::{Lane, SessionIndex};

use crate::certificate::Certificate;
use crate::cipher::{Aead, Provider, nonce_of};
use crate::domain::Domain;
use crate::identity::{IdentityKey, NetworkId};
use crate::sealer::lane_key;
use crate::secret::Secret;

/// A connection packet that is sealed with the lane key of the examples.
fn seal(kind: ConnectionKind, counter: u64, body: &[u8]) -> Vec<u8> {
    let key = Secret::from_bytes(example("connection-lane-key").try_into().expect("32 bytes"));
    let lane = Lane::new(1).expect("below 16");
    let index = SessionIndex::new(0xabcdef).expect("24 bits");
    let header = ConnectionHeader { kind, lane, index, low: counter as u32 }.to_bytes();
    let mut body = body.to_vec();
    let tag = Provider::DEFAULT.key(&key).seal(&nonce_of(counter), &header, &mut body);
    assert_eq!(tag.len(), TAG_BYTES);
    [&header[..], &body, &tag].concat()
}

/// wire.md: W6-2, W6-9, W6-37, W6-55, W6-57.
#[test]
fn sealed_packets_of_connections_are_those_of_the_examples() {
    let direction = Secret::from_bytes(core::array::from_fn(|place| place as u8));
    let key = lane_key(Domain::Connection, &direction, Lane::new(1).expect("below 16"));
    assert_example("connection-lane-key", key.expose());
    let message = ConnectionKind::SealedMessage;
    assert_example("connection-message", &seal(message, 7, b"\x03hello"));
    assert_example("connection-confirmation", &seal(message, 0, b""));
    assert_example("connection-items", &seal(message, 8, &[0, 2, 0, 1, 3, 6, 0, 1, 10]));
    let token = [1, 2, 3, 4, 5, 6, 7, 8];
    let challenge = seal(ConnectionKind::PathChallenge, 9, &token);
    assert_example("connection-path-challenge", &challenge);
    let response = seal(ConnectionKind::PathResponse, 10, &token);
    assert_example("connection-path-response", &response);
}

/// wire.md: W6-63, W6-71.
#[test]
fn the_hash_of_a_protocol_table_is_that_of_the_example() {
    let bytes = example("connection-table");
    let table = TableEntries::parse(&bytes).expect("well-formed");
    let hash = blake2::Blake2s256::digest(table.as_bytes());
    assert_example("connection-table-hash", &hash[..8]);
    // The state in the hello of the example is that of this table.
    let fields = example("connection-hello-fields");
    assert_eq!((fields[14], &fields[15..23]), (table.count().number(), &hash[..8]));
}

/// wire.md: W6-16, W6-98, W6-102.
#[test]
fn the_certificate_is_that_of_the_example() {
    let key = IdentityKey::from_seed(&Secret::from_bytes([0xb0; 32]));
    let network = NetworkId::new(b"example").expect("short");
    let made = key.certify_connection_key(1_700_000_000_000_000_000, &network);
    assert_example("certificate", made.as_bytes());
    let read = Certificate::verify(&example("certificate"), KeyRole::Connection, &network);
    assert_eq!(read, Ok(made));
    let (fields, _) = CertificateFields::parse(made.as_bytes()).expect("well-formed");
    assert_example("certificate-signed", &fields.signed(b"example").expect("a short name"));
}
