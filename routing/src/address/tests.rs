//! Tests of addresses.

use core::net::{Ipv4Addr, Ipv6Addr};

use strowger_crypto::{IdentityKey, Secret};
use strowger_testkit::{Rng, wire_md};
use strowger_wire::Label;

use super::*;
use crate::limits::{ADDRESS_BYTES_MAX, ADDRESS_PRINTED_BYTES_MAX};

fn peer(seed: u8) -> PeerId {
    IdentityKey::from_seed(&Secret::from_bytes([seed; 32])).public().peer_id()
}

fn read(text: &str) -> PeerAddress {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error_of(text: &str) -> AddressError {
    text.parse::<PeerAddress>().expect_err(text)
}

/// wire.md: W6-105, W6-108, W6-111, W6-113, W6-118.
#[test]
fn the_forms_of_the_specification_are_read_and_printed() {
    let (a, b) = (peer(0xa0), peer(0xb0));
    let whole = format!(
        "/ip6/2001:db8::1/udp/4737/strowger/p2p/{a}/switch/0000.4321.1234.4321/p2p/{b}/voice/rtp/1"
    );
    let parts = read(&whole).into_parts();
    let ip = "2001:db8::1".parse().unwrap();
    assert_eq!(parts.underlay, Some(UdpAddress { ip, port: 4737 }));
    assert_eq!((parts.link_peer, parts.peer), (Some(a), Some(b)));
    assert_eq!(parts.label, Some("0000.4321.1234.4321".parse().unwrap()));
    assert_eq!(parts.protocol.as_deref(), Some("/voice/rtp/1"));

    let wide = ["0000.4321.1234.4321"; 2].join(".");
    let widest = [wide.as_str(); 2].join(".");
    for text in [
        whole.clone(),
        "/ip4/192.0.2.1/udp/1/strowger".to_owned(),
        format!("/ip4/192.0.2.1/udp/65535/strowger/p2p/{a}"),
        format!("/ip4/192.0.2.1/udp/4737/strowger/p2p/{a}/voice/rtp/1"),
        format!("/ip4/192.0.2.1/udp/4737/strowger/switch/{wide}/p2p/{a}"),
        "/ip4/192.0.2.1/udp/4737/strowger/switch/some-protocol".to_owned(),
        format!("/switch/{widest}"),
        format!("/switch/{widest}/voice/rtp/1"),
        format!("/switch/{widest}/p2p/{a}/switch/on"),
        format!("/p2p/{a}"),
        format!("/p2p/{a}/voice/rtp/1"),
        format!("/p2p/{a}/ipfs/id/1.0.0"),
        format!("/p2p/{a}//"),
    ] {
        let address = read(&text);
        assert_eq!(address.to_string(), text);
        assert_eq!(PeerAddress::from_bytes(&address.to_bytes()), Ok(address));
    }
}

/// wire.md: W6-109, W6-114.
#[test]
fn legacy_spellings_are_read_and_not_printed() {
    let a = peer(0xa0);
    let address = read(&format!(
        "/ip4/192.0.2.1/udp/4737/cryptoauth/ipfs/{a}/switch/0000.4321.1234.4321/ipfs/{a}/chat"
    ));
    assert_eq!(
        address.to_string(),
        format!("/ip4/192.0.2.1/udp/4737/strowger/p2p/{a}/switch/0000.4321.1234.4321/p2p/{a}/chat")
    );
    let legacy = read("/ip4/192.0.2.1/udp/4737/cryptoauth/switch/some-protocol");
    assert_eq!(legacy.parts().label, None);
    assert_eq!(legacy.parts().protocol.as_deref(), Some("/some-protocol"));
    assert_eq!(legacy.peer(), Err(NeedsPeer));
    assert_eq!(legacy.to_string(), "/ip4/192.0.2.1/udp/4737/strowger/switch/some-protocol");
}

/// wire.md: W6-105, W6-106, W6-107, W6-108, W6-110, W6-112, W6-113, W6-115, W6-116.
#[test]
fn errors_say_the_position_and_what_is_expected() {
    let a = peer(0xa0);
    let hashed = "/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
    for (text, at, part) in [
        ("", 0, "/p2p/12D3KooW"),
        ("p2p/x", 0, "need /ip4, /ip6, /switch or /p2p"),
        ("/dns/example.org", 0, "need /ip4, /ip6, /switch or /p2p"),
        ("/ip4", 4, "need / and an IP address"),
        ("/ip4/192.0.2.256/udp/1/strowger", 5, "192.0.2.1"),
        ("/ip4/0.0.0.0/udp/1/strowger", 5, "unicast"),
        ("/ip4/224.0.0.1/udp/1/strowger", 5, "unicast"),
        ("/ip4/255.255.255.255/udp/1/strowger", 5, "unicast"),
        ("/ip6/fe80::1%eth0/udp/1/strowger", 5, "without a zone"),
        ("/ip6/::/udp/1/strowger", 5, "unicast"),
        ("/ip4/192.0.2.1/tcp/1", 14, "/udp"),
        ("/ip4/192.0.2.1/udp/0/strowger", 19, "1 to 65535"),
        ("/ip4/192.0.2.1/udp/65536/strowger", 19, "1 to 65535"),
        ("/ip4/192.0.2.1/udp/+1/strowger", 19, "1 to 65535"),
        ("/ip4/192.0.2.1/udp/01/strowger", 19, "1 to 65535"),
        ("/ip4/192.0.2.1/udp/1", 20, "need /strowger"),
        ("/ip4/192.0.2.1/udp/1/quic-v1", 20, "need /strowger"),
        ("/ip4/192.0.2.1/udp/1/strowger/chat", 29, "/p2p, /switch or the end"),
        ("/switch", 7, "a label"),
        ("/switch/", 8, "it is missing"),
        ("/switch/15", 10, "4, 8 or 16 groups"),
        ("/switch/0000.0000.0000.00g5", 25, "neither a hex digit"),
        ("/switch/0000.0000.0000.0000", 8, "zeros"),
        ("/switch/chat", 9, "neither a hex digit"),
        ("/switch/0000.0000.0000.0015/p2p", 31, "a PeerId"),
        ("/switch/0000.0000.0000.0015/chat\u{e9}", 27, "from ! to ~"),
        ("/p2p/12D3KooWx", 5, "wrong length"),
        ("/p2p/12D3KooW0", 13, "character 8"),
        ("/p2p/bafzaajaiaejcb", 5, "CID"),
        (hashed, 5, "hash of a key"),
        (&hashed.replace("p2p", "ipfs"), 6, "hash of a key"),
        (&format!("/p2p/{a}/"), 57, "protocol name"),
        (&format!("/p2p/{a}/x y"), 57, "from ! to ~"),
        (&format!("/p2p/{a}/{}", "x".repeat(128)), 57, "2 to 128"),
        (&format!("/p2p/{a}/x/p2p/{a}"), 57, "reads as a PeerId"),
        (&format!("/p2p/{a}/x/ipfs/{a}"), 57, "reads as a PeerId"),
        (&format!("/p2p/{a}/p2p-circuit/p2p/{a}"), 57, "reads as a PeerId"),
        (&format!("/ip4/192.0.2.1/udp/1/strowger/p2p/{a}/switch/chat"), 95, "neither a hex"),
        (&format!("/p2p/{a}/{}", "x".repeat(512)), 512, "at most 512"),
    ] {
        let error = error_of(text);
        assert_eq!(error.at, at, "{text}: {error}");
        let shown = error.to_string();
        assert!(shown.contains(part) && shown.starts_with(&format!("byte {at}: ")), "{shown}");
    }
}

/// wire.md: W6-115, W6-117, W6-118, W6-119.
#[test]
fn binary_errors_say_the_position_and_what_is_expected() {
    let whole = binary_example();
    for length in 0..whole.len() {
        // A cut address is refused, unless the bytes before the cut are an address themselves.
        if let Ok(address) = PeerAddress::from_bytes(&whole[..length]) {
            assert_eq!(address.to_bytes(), whole[..length]);
        }
    }
    let changed = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        PeerAddress::from_bytes(&bytes).unwrap_err()
    };
    assert_eq!(changed(0, 5).at, 0);
    assert_eq!(changed(5, 0x92).at, 5);
    assert_eq!(PeerAddress::from_bytes(&[]).unwrap_err().fault, AddressFault::Empty);
    // The varint of 4 with an unnecessary second byte.
    let long = AddressError { at: 0, fault: AddressFault::Varint };
    assert_eq!(PeerAddress::from_bytes(&[0x84, 0]), Err(long));
    assert_eq!(PeerAddress::from_bytes(&[0xff; 5]), Err(long));
    let cut = AddressError { at: 3, fault: AddressFault::Cut };
    assert_eq!(PeerAddress::from_bytes(&[4, 192, 0]), Err(cut));
    let hashed = [&[0xa5, 3, 34, 0x12, 0x20][..], &[7; 32]].concat();
    let error = AddressError { at: 3, fault: AddressFault::HashedPeerId };
    assert_eq!(PeerAddress::from_bytes(&hashed), Err(error));
    // Faults that a text can have are also found in bytes: port 0, a broadcast address, a label of
    // zeros, and parts in a wrong order.
    for (at, byte) in [(8, 0), (7, 0)] {
        assert!(PeerAddress::from_bytes(&changed_bytes(&whole, &[(at, byte)])).is_ok());
    }
    let no_port = changed_bytes(&whole, &[(7, 0), (8, 0)]);
    assert_eq!(PeerAddress::from_bytes(&no_port).unwrap_err().fault, AddressFault::Port);
    let broadcast = changed_bytes(&whole, &[(1, 255), (2, 255), (3, 255), (4, 255)]);
    assert_eq!(PeerAddress::from_bytes(&broadcast).unwrap_err().fault, AddressFault::NotUnicast);
    let zeros: Vec<(usize, u8)> = (59..67).map(|at| (at, 0)).collect();
    let no_label = changed_bytes(&whole, &zeros);
    assert_eq!(PeerAddress::from_bytes(&no_label).unwrap_err().fault, AddressFault::ZeroLabel);
    let width = changed_bytes(&whole, &[(58, 3)]);
    assert_eq!(PeerAddress::from_bytes(&width).unwrap_err().at, 58);
    let swapped = [&whole[67..108], &whole[54..67]].concat();
    let error = AddressError {
        at: 41,
        fault: AddressFault::Expected("protocol (code 0x300055) or the end"),
    };
    assert_eq!(PeerAddress::from_bytes(&swapped), Err(error));
    let behind = [&whole[..], &whole[67..108]].concat();
    assert_eq!(
        PeerAddress::from_bytes(&behind).unwrap_err().fault,
        AddressFault::Expected("the end")
    );
    let two_peers = whole[67..108].repeat(2);
    assert_eq!(PeerAddress::from_bytes(&two_peers).unwrap_err().at, 41);
    // A protocol that reads as a label.
    let ambiguous = [&whole[..13], &[0xd5, 0x80, 0xc0, 1, 5], b"/beef"].concat();
    let error = AddressError { at: 13, fault: AddressFault::AmbiguousProtocol };
    assert_eq!(PeerAddress::from_bytes(&ambiguous), Err(error));
    let too_long = PeerAddress::from_bytes(&vec![4; ADDRESS_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(too_long.fault, AddressFault::TooLong);
}

fn changed_bytes(bytes: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
    bytes
}

/// The example address of wire.md has the bytes that wire.md states.
///
/// wire.md: W6-117, W6-118.
#[test]
fn the_bytes_are_those_of_the_document() {
    wire_md::assert_example("address", &binary_example());
}

fn binary_example() -> Vec<u8> {
    let (a, b) = (peer(0xa0), peer(0xb0));
    read(&format!(
        "/ip4/192.0.2.1/udp/4737/strowger/p2p/{a}/switch/0000.4321.1234.4321/p2p/{b}/chat/1"
    ))
    .to_bytes()
}

/// Random parts, many combinations of which are refused.
fn random_parts(rng: &mut Rng) -> AddressParts {
    let names = [
        "/chat/1",
        "/",
        "",
        "/x y",
        "/switch",
        "/switch/x",
        "/p2p",
        "/p2p/x",
        "/ipfs/x",
        "/beef",
        "/beef.1",
        "//",
        "/x//y",
        "/p2p/PEER",
        "/x/ipfs/PEER",
        "chat",
        "/~!",
    ];
    let mut ip = || match rng.below(8) {
        0 => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        1 => IpAddr::from(Ipv6Addr::from_bits(0xff02 << 112)),
        2..=4 => IpAddr::from(Ipv4Addr::from_bits(rng.next_u64() as u32)),
        5 => IpAddr::from(Ipv4Addr::from_bits(rng.next_u64() as u32).to_ipv6_mapped()),
        _ => IpAddr::from(Ipv6Addr::from_bits(u128::from(rng.next_u64()) << 64 | 1)),
    };
    let ip = ip();
    let port = rng.next_u64() as u16 & if rng.one_in(8) { 0 } else { u16::MAX };
    let label = match rng.below(4) {
        0 => AnyLabel::from(Label::<u64>::new(rng.next_u64() >> rng.below(64))),
        1 => AnyLabel::from(Label::<u128>::new(u128::from(rng.next_u64()))),
        2 => AnyLabel::from_be_bytes(&rng.bytes(32)).unwrap(),
        _ => AnyLabel::from(Label::<u64>::new(0)),
    };
    let name = names[rng.below(names.len())].replace("PEER", &peer(1).to_string());
    AddressParts {
        underlay: rng.one_in(2).then_some(UdpAddress { ip, port }),
        link_peer: rng.one_in(3).then(|| peer(rng.below(4) as u8)),
        label: rng.one_in(2).then_some(label),
        peer: rng.one_in(2).then(|| peer(rng.below(4) as u8)),
        protocol: rng.one_in(2).then_some(name),
    }
}

/// wire.md: W6-110, W6-119.
#[test]
fn what_is_printed_is_read_back() {
    let mut rng = Rng::new(0x5709_0001);
    let (mut addresses, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let parts = random_parts(&mut rng);
        let Ok(address) = PeerAddress::new(parts.clone()) else {
            refused += 1;
            continue;
        };
        addresses += 1;
        assert_eq!(address.parts(), &parts);
        let text = address.to_string();
        assert!(text.len() <= ADDRESS_PRINTED_BYTES_MAX);
        assert_eq!(text.parse(), Ok(address.clone()), "{text}");
        let bytes = address.to_bytes();
        assert!(bytes.len() <= ADDRESS_BYTES_MAX);
        assert_eq!(PeerAddress::from_bytes(&bytes), Ok(address), "{text}");
    }
    assert!(addresses > 2_000 && refused > 2_000, "{addresses} addresses, {refused} refused");
}

/// wire.md: W6-110, W6-111.
#[test]
fn what_is_read_is_printed_and_read_again() {
    let words = [
        "ip4",
        "ip6",
        "192.0.2.1",
        "::1",
        "udp",
        "4737",
        "strowger",
        "cryptoauth",
        "p2p",
        "ipfs",
        "switch",
        "0000.0000.0000.0015",
        "chat",
        "beef",
        "",
        "PEER",
    ];
    let mut rng = Rng::new(0x5709_0002);
    let mut read = 0;
    for _ in 0..20_000 {
        let mut text = String::new();
        if rng.one_in(2) {
            text += "/ip4/192.0.2.1/udp/4737/strowger";
        }
        for _ in 0..rng.below(7) {
            text += "/";
            text += words[rng.below(words.len())];
        }
        let text = text.replace("PEER", &peer(1).to_string());
        if let Ok(address) = text.parse::<PeerAddress>() {
            read += 1;
            let printed = address.to_string();
            assert_eq!(printed.parse(), Ok(address.clone()), "{text}");
            if !text.contains("cryptoauth") && !text.contains("ipfs") {
                assert_eq!(printed, text, "only legacy spellings have a second text");
            }
            assert_eq!(PeerAddress::from_bytes(&address.to_bytes()), Ok(address));
        }
    }
    assert!(read > 100, "only {read} texts were addresses");
}

/// wire.md: W6-117, W6-119.
#[test]
fn every_change_of_a_byte_is_another_address_or_none() {
    let whole = binary_example();
    let address = PeerAddress::from_bytes(&whole).unwrap();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            match PeerAddress::from_bytes(&bytes) {
                Ok(other) => {
                    assert_ne!(other, address);
                    assert_eq!(other.to_bytes(), bytes);
                }
                Err(error) => assert!(error.at <= bytes.len()),
            }
        }
    }
}
