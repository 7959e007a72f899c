//! Tests of whole configurations: their values, and the faults with their lines.

use strowger_wire::{Scheme, hex::Hex, scheme::Form};

use super::*;

/// A valid file.
const VALID: &str = "\
[switch]
workers = 2
[[udp]]
name = \"wan\"
address = \"127.0.0.1:7000\"
seal = \"plain\"
[[neighbour]]
name = \"a\"
address = \"127.0.0.1:7001\"
slot = 2
[[unix]]
name = \"local\"
path = \"/run/local\"
slot = 4
";

#[test]
fn a_state_file_has_a_name() {
    let state = |text: &str| parse(text).map(|config| config.state);
    assert_eq!(state(""), Ok(None));
    let path = PathBuf::from("kept/state");
    assert_eq!(state("[switch]\nstate = \"kept/state\""), Ok(Some(path)));
    for none in ["", "..", "/"] {
        let fault = state(&format!("[switch]\nstate = \"{none}\"")).expect_err("no file");
        assert_eq!(fault.line, 2);
    }
}

#[test]
fn a_valid_file_is_parsed() {
    let config = parse(VALID).unwrap();
    assert_eq!(config.workers, Some(2));
    assert_eq!(config.idle, IdlePolicy::ADAPTIVE);
    assert_eq!(config.udp[0].backend, BackendChoice::Auto);
    let neighbour = &config.neighbours[0];
    assert_eq!((neighbour.listener, neighbour.slot), (0, Some(2)));
    assert_eq!(config.unix[0].path, Path::new("/run/local"));
    assert!(config.memory.huge_pages && config.memory.trains.is_none());
    let empty = parse("").unwrap();
    assert_eq!((empty.workers, empty.switch.slot_max()), (Some(1), 256));
}

#[test]
fn a_scheme_bounds_its_slots() {
    let config = parse("switch.scheme = \"f4\"").unwrap();
    assert_eq!((config.switch.scheme().name(), config.switch.slot_max()), (Some("f4"), 15));
    let config = parse("switch.scheme = \"6114458100\"").unwrap();
    assert_eq!(config.switch.scheme().name(), Some("v3x5x8"));
    let auto = parse("switch.workers = \"auto\"").unwrap();
    assert_eq!(auto.workers, None);
}

#[test]
fn the_sample_is_valid_and_its_wide_scheme_is_correct() {
    parse(SAMPLE).unwrap();
    let wide = SAMPLE.lines().find_map(|line| line.split_once("up to 4095: ")).unwrap().1;
    let forms = [(4, 1, 0b1), (8, 2, 0b10), (12, 2, 0b00)]
        .map(|(data, prefix_bits, prefix)| Form::new(data, prefix_bits, prefix));
    let scheme = Scheme::new(&forms).unwrap();
    assert_eq!(wide, format!("scheme = \"{}\"", Hex(scheme.serialize().as_bytes())));
    let config = parse(&format!("switch.{wide}\nswitch.slot_max = 4095")).unwrap();
    assert_eq!(config.switch.scheme(), &scheme);
}

/// Each case has a text of the valid file, its replacement, the expected line of the fault, and
/// words of its message.
#[test]
fn each_error_names_its_line_and_the_remedy() {
    let cases: &[(&str, &str, usize, &[&str])] = &[
        // Keys.
        ("workers = 2", "wokers = 2", 2, &["`wokers` in [switch]", "did you mean `workers`?"]),
        ("slot = 2", "solt = 2", 10, &["`solt` in [[neighbour]]", "did you mean `slot`?"]),
        ("slot = 2", "colour = 2", 10, &["`colour`", "its keys are: name, address"]),
        ("[switch]", "[swich]", 1, &["unknown section `swich`", "did you mean `switch`?"]),
        ("[switch]", "[[switch]]", 1, &["single section; write [switch]"]),
        ("[[udp]]", "[udp]", 3, &["several of udp; write [[udp]]"]),
        ("[switch]", "", 2, &["`workers` is outside", "belongs to [switch]"]),
        ("[switch]", "colours = 7\n[switch]", 1, &["unknown key `colours`"]),
        ("workers = 2", "workers = 2\nworkers = 3", 3, &["not TOML", "duplicate"]),
        ("workers = 2", "workers = ", 2, &["not TOML"]),
        // Types and ranges.
        ("workers = 2", "workers = 0", 2, &["a number from 1 to 64 or \"auto\"", "not 0"]),
        ("workers = 2", "workers = -1", 2, &["not -1"]),
        ("workers = 2", "workers = 99999999999999999999999", 2, &["from 1 to 64"]),
        ("workers = 2", "workers = \"many\"", 2, &["not \"many\""]),
        ("workers = 2", "workers = 2.5", 2, &["not 2.5"]),
        ("workers = 2", "u_turns = 1", 2, &["u_turns in [switch] must be true or false"]),
        ("workers = 2", "idle = \"lazy\"", 2, &["\"adaptive\" or \"spin\"", "\"lazy\""]),
        ("workers = 2", "hops_max = 65", 2, &["a number from 1 to 64"]),
        ("workers = 2", "scheme = \"v9\"", 2, &["f4, f8, v3x5x8, v4x8"]),
        ("workers = 2", "slot_max = 257", 2, &["a number from 2 to 256"]),
        ("workers = 2", "quarantine_s = 86401", 2, &["0 to 86400"]),
        ("workers = 2", "alias_s = 2592001", 2, &["0 to 2592000"]),
        ("workers = 2", "cores = 1", 2, &["a list"]),
        ("workers = 2", "cores = [0, 1]", 2, &["names 2 and workers = 1"]),
        ("workers = 2", "workers = 2\ncores = [3, 3]", 3, &["core 3 twice"]),
        ("workers = 2", "workers = \"auto\"\ncores = [3]", 3, &["workers is \"auto\""]),
        ("[[udp]]", "[memory]\ntrains = 5\n[[udp]]", 4, &["64 to 1048576"]),
        ("[[udp]]", "[memory]\nhuge_pages = true\n[[udp]]", 4, &["\"try\" or \"no\""]),
        ("[[udp]]", "[control]\nsocket = \"\"\n[[udp]]", 4, &["1 to 107 bytes"]),
        // Listeners.
        ("seal = \"plain\"", "", 7, &["only sealed ones", "seal = \"plain\""]),
        ("seal = \"plain\"", "seal = \"none\"", 6, &["\"sealed\" or \"plain\""]),
        (
            "[[neighbour]]",
            "[[udp]]\naddress = \"127.0.0.1:7009\"\n[[neighbour]]\nlistener = \"wan\"",
            7,
            &["has sealed links", "needs [identity]", "key new", "seal = \"plain\""],
        ),
        ("127.0.0.1:7000", "localhost:7000", 5, &["not an address", "not looked up"]),
        ("127.0.0.1:7000", "127.0.0.1", 5, &["an IP and a port"]),
        ("name = \"wan\"", "name = \"\"", 4, &["1 to 64 bytes"]),
        ("name = \"wan\"", "name = \"local\"", 12, &["\"local\" is taken", "[[udp]] in line 4"]),
        ("seal = \"plain\"", "seal = \"plain\"\nbackend = \"mmap\"", 7, &["\"mmsg\""]),
        (
            "[[neighbour]]",
            "[[udp]]\naddress = \"127.0.0.1:7000\"\nseal = \"plain\"\n[[neighbour]]",
            8,
            &["already (line 5)"],
        ),
        (
            "[[neighbour]]",
            "[[udp]]\naddress = \"127.0.0.1:7009\"\nseal = \"plain\"\n[[neighbour]]",
            10,
            &["needs listener", "wan, udp1"],
        ),
        // Neighbours and endpoints.
        ("slot = 2", "slot = 1", 10, &["slot 1 is the switch itself"]),
        ("slot = 2", "slot = 4", 10, &["slot 4 is taken in line 14"]),
        ("slot = 2", "slot = 257", 10, &["a number from 0 to 256"]),
        ("slot = 2", "listener = \"wna\"", 10, &["\"wna\"", "did you mean \"wan\"?"]),
        ("127.0.0.1:7001", "[::1]:7001", 9, &["IPv4", "add a [[udp]]"]),
        ("127.0.0.1:7001", "127.0.0.1:0", 9, &["neighbour \"a\"", "not usable", "non-zero port"]),
        ("127.0.0.1:7001", "0.0.0.0:7", 9, &["neighbour \"a\"", "not usable", "unicast IP"]),
        ("127.0.0.1:7001", "127.0.0.1:7000", 9, &["not usable", "this relay itself listens"]),
        ("127.0.0.1:7001", "224.0.0.1:7000", 9, &["not usable", "multicast"]),
        ("127.0.0.1:7001", "255.255.255.255:7", 9, &["not usable", "broadcast"]),
        ("127.0.0.1:7000", "224.0.0.1:7000", 5, &["listener \"wan\"", "multicast"]),
        ("127.0.0.1:7000", "[2001:db8::1%lo]:7000", 5, &["not link-local", "leave \"%lo\" out"]),
        ("name = \"a\"", "", 7, &["[[neighbour]] needs the key `name`"]),
        ("name = \"a\"", "name = 5", 8, &["must be a string, not 5"]),
        (
            "[[unix]]",
            "[[neighbour]]\nname = \"b\"\naddress = \"127.0.0.1:7001\"\n[[unix]]",
            13,
            &["another neighbour (line 9)"],
        ),
        ("path = \"/run/local\"", "", 11, &["[[unix]] needs the key `path`"]),
        ("slot = 4", "worker = 2", 14, &["a number from 0 to 1"]),
        ("slot = 4", "frame_bytes_max = 1", 14, &["24 to 9216"]),
        ("slot = 4", "capture = \"\"", 14, &["the path of a file"]),
        ("slot = 4", "clients = 0", 14, &["1 to 64"]),
        ("slot = 4", "slot = 4\nclients = 2", 14, &["leave out `slot`", "a [[unix]] of its own"]),
        (
            "slot = 4",
            "clients = 2\n[[neighbour]]\nname = \"local.2\"\naddress = \"127.0.0.1:7002\"",
            16,
            &["\"local.2\" is taken by the [[unix]] in line 12"],
        ),
    ];
    for (line, instead, blamed, words) in cases {
        assert!(VALID.contains(line), "{line}");
        let text = VALID.replacen(line, instead, 1);
        let fault = parse(&text).expect_err(instead);
        assert_eq!(fault.line, *blamed, "{instead}: {fault}");
        assert!(words.iter().all(|word| fault.text.contains(word)), "{instead}: {fault}");
        assert!(!fault.text.contains('\n'), "one line: {fault}");
    }
}

/// wire.md: W3-3.
#[test]
fn a_plain_link_exists_only_if_the_operator_has_configured_it() {
    assert!(parse(VALID).is_ok());
    for other in ["", "seal = \"sealed\"\n"] {
        let fault = parse(&VALID.replace("seal = \"plain\"\n", other)).expect_err("no key");
        assert!(fault.text.contains("only sealed ones"), "{fault}");
    }
    // Unknown peers have sealed links, which need an identity.
    let text = format!("{VALID}[unknown_peers]\nallow = true\n");
    let fault = parse(&text).expect_err("no identity");
    assert!(fault.text.contains("[identity]"), "{fault}");
}

/// A valid file with a sealed link.
const SEALED: &str = "\
[identity]
key = \"k\"
network = \"n\"
[unknown_peers]
allow = false
[[udp]]
address = \"127.0.0.1:7000\"
[[peer]]
name = \"a\"
key = \"0101010101010101010101010101010101010101010101010101010101010101\"
address = \"127.0.0.1:7001\"
rights = [\"transit\", \"control\"]
seal = \"header-only\"
mtu = 1400
";

#[test]
fn every_error_is_found_and_no_error_that_follows_from_another() {
    let text = VALID
        .replace("workers = 2", "wokers = 2\nidle = \"lazy\"")
        .replace("127.0.0.1:7001", "0.0.0.0:7001")
        .replace("slot = 4", "slot = 1\n[[unix]]\nname = \"local\"\npath = \"/run/other\"");
    let faults = parse_all(&text).expect_err("five errors");
    let mut lines: Vec<usize> = faults.iter().map(|fault| fault.line).collect();
    lines.sort_unstable();
    assert_eq!(lines, [2, 3, 10, 15, 17], "{faults:#?}");
    // Neighbours that use a faulty listener are not checked.
    let text = VALID.replace("127.0.0.1:7000", "localhost");
    assert_eq!(parse_all(&text).expect_err("one").len(), 1);
}

#[test]
fn a_valid_sealed_file_is_parsed() {
    let config = parse(SEALED).unwrap();
    let peer = &config.peers[0];
    assert_eq!((peer.key.map(|key| key.0), peer.frame_bytes_max), (Some([1; 32]), 1400));
    assert_eq!(peer.rights, Rights { endpoints: false, ..Rights::ALL });
    assert_eq!((peer.seal, peer.psk.is_none()), (SealWish::MayHeaderOnly, true));
    assert!(config.unknown_peers.is_none() && !config.udp[0].plain);
    let text = SEALED.replace("allow = false", "allow = true\nmax = 3");
    let text = text.replace("rights =", "#").replace("seal =", "#");
    let config = parse(&text).unwrap();
    let policy = UnknownPeerPolicy::default().with_links_max(3);
    assert_eq!(config.unknown_peers, Some(policy), "defaults for the rest");
    let Peer { rights, seal, .. } = &config.peers[0];
    assert_eq!((*rights, *seal), (Rights { control: false, ..Rights::ALL }, SealWish::Full));
}

#[test]
fn each_error_of_a_sealed_file_names_its_line_and_the_remedy() {
    let key = "key = \"0101010101010101010101010101010101010101010101010101010101010101\"";
    let cases: &[(&str, &str, usize, &[&str])] = &[
        ("[identity]\nkey = \"k\"\nnetwork = \"n\"", "\n\n", 8, &["[[peer]]", "key new FILE"]),
        ("key = \"k\"", "", 1, &["[identity] needs the key `key`", "key new FILE"]),
        ("key = \"k\"", "key = \"\"", 2, &["the path of a file"]),
        ("key = \"k\"", "kye = \"k\"", 2, &["did you mean `key`?"]),
        ("\"n\"", "\"a name that has more than 32 bytes, much\"", 3, &["at most 32 bytes"]),
        (key, "", 8, &["[[peer]] has neither key nor peer_id", "[unknown_peers]"]),
        (key, "key = \"01\"", 10, &["64 hex digits", "key id FILE"]),
        ("name = \"a\"\n", "", 8, &["needs the key `name`"]),
        ("\"transit\"", "\"transmit\"", 12, &["no right \"transmit\"", "\"transit\"?"]),
        ("\"transit\"", "7", 12, &["a list of strings"]),
        ("\"header-only\"", "\"plain\"", 13, &["\"full\" or \"header-only\""]),
        ("mtu = 1400", "mtu = 575", 14, &["576 to 9216"]),
        ("mtu = 1400", "psk = \"\"", 14, &["the path of a file"]),
        ("mtu = 1400", "slot = 1", 14, &["slot 1 is the switch itself"]),
        ("127.0.0.1:7001", "[::1]:7001", 11, &["IPv4"]),
        ("[[udp]]\naddress = \"127.0.0.1:7000\"", "\n", 8, &["[[peer]] needs a [[udp]]"]),
        ("allow = false", "max = 0", 5, &["1 to 8192"]),
        (
            "[[peer]]",
            "[[neighbour]]\nname = \"b\"\naddress = \"127.0.0.1:9\"\n[[peer]]",
            8,
            &["only sealed ones", "[[peer]] with a key"],
        ),
        (
            "[unknown_peers]",
            "[strangers]",
            4,
            &["unknown section `strangers`", "it is called [unknown_peers] now"],
        ),
        ("[unknown_peers]", "[liveness]\nmultiplier = 0\n[unknown_peers]", 5, &["1 to 255"]),
        ("mtu = 1400", "interval_ms = 9", 14, &["interval_ms in [[peer]]", "10 to"]),
        ("allow = false", "always = 1", 5, &["always in [unknown_peers]", "true or false"]),
        ("mtu = 1400", "peer_id = \"12D3KooW\"", 14, &["not a PeerId", "key id FILE"]),
        (
            "mtu = 1400",
            "peer_id = \"QmNLei78zWmzUdbeRB3CiUfAizWUrbeeZh5K1rhAQKCh51\"",
            14,
            &["not a PeerId"],
        ),
    ];
    for (line, instead, blamed, words) in cases {
        assert!(SEALED.contains(line), "{line}");
        let fault = parse(&SEALED.replacen(line, instead, 1)).expect_err(instead);
        assert_eq!(fault.line, *blamed, "{instead}: {fault}");
        assert!(words.iter().all(|word| fault.text.contains(word)), "{instead}: {fault}");
        assert!(!fault.text.contains('\n'), "one line: {fault}");
    }
    let twice = format!("{SEALED}[[peer]]\nname = \"b\"\n{key}\n");
    assert!(parse(&twice).unwrap_err().text.contains("line 10"));
    // Without a key.
    let id = "peer_id = \"12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X\"";
    let named = SEALED.replace(key, id);
    assert!(parse(&named).unwrap().peers[0].identity.is_some());
    let twice = format!("{named}[[peer]]\nname = \"b\"\n{id}\n");
    assert!(parse(&twice).unwrap_err().text.contains("line 10"));
    let psk = named.replace("mtu = 1400", "psk = \"p\"");
    assert!(parse(&psk).unwrap_err().text.contains("needs key"));
    let unknown = SEALED.replace(key, "").replace("allow = false", "allow = true");
    let fault = parse(&unknown).unwrap_err();
    assert!(fault.line == 12 && fault.text.contains("those of [unknown_peers]"), "{fault}");
    let unknown = unknown.replace("rights = [\"transit\", \"control\"]", "");
    let peer = parse(&unknown).unwrap().peers.remove(0);
    assert!(peer.key.is_none() && peer.identity.is_none() && peer.rights == Rights::NONE);
    let nowhere = unknown.replace("address = \"127.0.0.1:7001\"", "");
    assert!(parse(&nowhere).unwrap_err().text.contains("address"));
    let only_policy = "[unknown_peers]\nallow = true";
    assert!(parse(only_policy).unwrap_err().text.contains("needs [identity]"));
}

#[test]
fn more_users_than_slots_are_an_error() {
    let mut text = VALID.replace("workers = 2", "scheme = \"f4\"");
    for port in 1..=14 {
        text += &format!("[[neighbour]]\nname = \"n{port}\"\naddress = \"127.0.0.1:{port}\"\n");
    }
    let fault = parse(&text).unwrap_err();
    assert!(fault.text.contains("16 peers") && fault.text.contains("15 slots"), "{fault}");
}

#[test]
fn no_bytes_panic() {
    let mut state = 1_u64;
    for _ in 0..2_000 {
        let mut text = VALID.as_bytes().to_vec();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 33) as usize % text.len();
            text[at] = b"\n[]\"=#{}, 0a."[(state >> 50) as usize % 13];
        }
        let text = String::from_utf8(text).unwrap();
        if let Err(fault) = parse(&text) {
            assert!(fault.line >= 1 && fault.line <= 1 + text.lines().count(), "{fault}");
        }
    }
}
