//! Tests of the address book.

use strowger_crypto::{IdentityKey, Secret};
use strowger_testkit::Rng;
use strowger_wire::Label;

use super::*;

fn peer(seed: u64) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    IdentityKey::from_seed(&Secret::from_bytes(bytes)).public().peer_id()
}

fn book(text: &str) -> AddressBook {
    AddressBook::parse(text).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

/// Replaces `ALICE` and `BOB` in a text with PeerIds.
fn text(text: &str) -> String {
    text.replace("ALICE", &peer(1).to_string()).replace("BOB", &peer(2).to_string())
}

const BOOK: &str = r#"# The book of this file.

# A friend.
[[name]]
name = "alice"          # calls herself so
peer_id = "ALICE"
purposes = ["connect", "accept"]
labels = [
    "15",               # over the cable
    "0000.0000.0001.5315",
]
# alice moved in May

# --- the others ---

# bob's key
  [[ name ]]  # spaced
  peer_id = 'BOB'
  name = "bob"
  addresses = ["/ip4/192.0.2.1/udp/4737/strowger", "/ip4/192.0.2.2/udp/1/cryptoauth/ipfs/ALICE/switch/0000.0000.0000.0013"]
"#;

#[test]
fn a_book_is_read_with_its_defaults() {
    let book = book(&text(BOOK));
    let [alice, bob] = book.entries() else { panic!("two entries") };
    assert_eq!(book.named("alice"), Some(alice));
    assert_eq!(book.of_peer(&peer(2)), Some(bob));
    assert_eq!(alice.purposes, Purposes { connect: true, accept: true });
    let labels: Vec<String> = alice.labels.iter().map(ToString::to_string).collect();
    assert_eq!(labels, ["0000.0000.0000.0015", "0000.0000.0001.5315"]);
    assert_eq!(bob.purposes, Purposes::default());
    let addresses: Vec<String> = bob.addresses.iter().map(ToString::to_string).collect();
    let expected = [
        "/ip4/192.0.2.1/udp/4737/strowger/p2p/BOB",
        "/ip4/192.0.2.2/udp/1/strowger/p2p/ALICE/switch/0000.0000.0000.0013/p2p/BOB",
    ];
    assert_eq!(addresses, expected.map(text));
    assert_eq!(AddressBook::parse(&book.to_string()), Ok(book));
    assert_eq!(AddressBook::parse(""), Ok(AddressBook::default()));
    assert_eq!(AddressBook::parse("# nothing\n"), Ok(AddressBook::default()));
}

#[test]
fn a_fault_has_its_line_and_says_what_is_needed() {
    for (faulty, line, part) in [
        ("[[name]\n", 1, "not TOML"),
        ("\n[[nmae]]\n", 2, "[[name]] sections alone"),
        ("x = 1\n", 1, "[[name]] sections alone"),
        ("[name]\nname = \"a\"\n", 1, "[[name]] sections alone"),
        ("name = [1]\n", 1, "write [[name]]"),
        ("[[name]]\nname = \"a\"\n", 1, "needs the key `peer_id`"),
        ("[[name]]\npeer_id = \"ALICE\"\n", 1, "needs the key `name`"),
        ("[[name]]\nname = \"a b\"\npeer_id = \"ALICE\"\n", 2, "letters and digits"),
        ("[[name]]\nname = \"ALICE\"\npeer_id = \"ALICE\"\n", 2, "no PeerId"),
        ("[[name]]\nname = 1\npeer_id = \"ALICE\"\n", 2, "must be a string"),
        ("[[name]]\nname = \"a\"\npeer_id = \"ALICEx\"\n", 3, "need a PeerId, as 12D3KooW"),
        ("[[name]]\nname = \"a\"\npeer_id = \"ALICE/x\"\n", 3, "a PeerId alone"),
        (
            "[[name]]\nname = \"a\"\npeer_id = \"QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N\"\n",
            3,
            "hash of a key",
        ),
        ("[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\nkey = \"x\"\n", 4, "its keys are name,"),
        (
            "[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\npurposes = [\"conect\"]\n",
            4,
            "no purpose \"conect\"",
        ),
        (
            "[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\npurposes = \"connect\"\n",
            4,
            "a list of strings",
        ),
        (
            "[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\nlabels = [\n\"15\",\n\"1g\"]\n",
            6,
            "byte 1",
        ),
        ("[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\nlabels = [\"0\"]\n", 4, "zeros"),
        ("[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\nlabels = [\"15\", \"0015\"]\n", 4, "twice"),
        (
            "[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\nlabels = [\"0000.0000.0000.0000.0015\"]\n",
            4,
            "4, 8 or 16",
        ),
        (
            "[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\naddresses = [\"/p2p/ALICE\"]\n",
            4,
            "says no more",
        ),
        (
            "[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\naddresses = [\"/ip4/192.0.2.1/udp/1/strowger/p2p/BOB\"]\n",
            4,
            "another peer",
        ),
        (
            "[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\naddresses = [\"/ip4/192.0.2.1/udp/1/strowger/switch/0000.0000.0000.0015\"]\n",
            4,
            "who answers",
        ),
        (
            "[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\naddresses = [\"/switch/0000.0000.0000.0015/p2p/ALICE/chat\"]\n",
            4,
            "no protocol",
        ),
        (
            "[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\naddresses = [\"/ip4/192.0.2.1/tcp/1\"]\n",
            4,
            "byte 14: need /udp",
        ),
        (
            "[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\n[[name]]\nname = \"a\"\npeer_id = \"BOB\"\n",
            4,
            "taken by the entry in line 1",
        ),
        (
            "[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\n[[name]]\nname = \"b\"\npeer_id = \"ALICE\"\n",
            4,
            "has an entry already, in line 1",
        ),
    ] {
        let faults = AddressBook::parse(&text(faulty)).expect_err(faulty);
        let [fault] = faults.all() else { panic!("{faulty}: {faults}") };
        assert_eq!(fault.line, line, "{faulty}: {faults}");
        assert!(fault.text.contains(part), "{faulty}: {faults}");
        assert!(!fault.text.contains('\n'), "{faults}");
    }
    let nine: Vec<String> = (1..=9).map(|label| format!("\"1{label}\"")).collect();
    let nine =
        format!("[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\nlabels = [{}]\n", nine.join(","));
    assert!(AddressBook::parse(&text(&nine)).unwrap_err().to_string().contains("at most 8"));
    let addresses: Vec<String> =
        (1..=4).map(|port| format!("\"/ip4/192.0.2.1/udp/{port}/strowger\"")).collect();
    let both = format!(
        "[[name]]\nname = \"a\"\npeer_id = \"ALICE\"\nlabels = [\"11\",\"12\",\"13\",\"14\"{}]\naddresses = [{}]\n",
        ",\"15\"",
        addresses.join(",")
    );
    assert!(AddressBook::parse(&text(&both)).unwrap_err().to_string().contains("at most 8"));
    assert!(AddressBook::parse(&text(&both.replace(",\"15\"", ""))).is_ok());
    let long = "#".repeat(crate::limits::BOOK_BYTES_MAX + 1);
    assert!(AddressBook::parse(&long).unwrap_err().to_string().contains("at most 4194304 bytes"));
    let many = "[[name]]\n".repeat(crate::limits::BOOK_ENTRIES_MAX + 1);
    assert!(AddressBook::parse(&many).unwrap_err().to_string().contains("at most 8192 entries"));
}

#[test]
fn all_faults_are_found_in_the_order_of_their_lines() {
    let faulty = "[[name]]\nname = \"?\"\npeer_id = \"x\"\nkey = 1\n[[name]]\nlabels = 1\nname = \"b\"\npeer_id = \"BOB\"\n";
    let faults = AddressBook::parse(&text(faulty)).unwrap_err();
    let lines: Vec<usize> = faults.all().iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [2, 3, 4, 6], "{faults}");
}

#[test]
fn an_entry_is_removed_with_its_own_comments_alone() {
    let (rest, alice) = remove(&text(BOOK), "alice").unwrap();
    assert_eq!(alice.name, "alice");
    let expected = "# The book of this file.\n\n# --- the others ---\n\n# bob's key\n";
    assert!(rest.starts_with(expected), "{rest}");
    let (rest, _) = remove(&text(BOOK), &peer(2).to_string()).unwrap();
    assert!(text(BOOK).starts_with(&rest), "{rest}");
    assert!(rest.ends_with("# --- the others ---\n"), "{rest}");
    let (none, _) = remove(&rest, "alice").unwrap();
    assert_eq!(none, "# The book of this file.\n\n# --- the others ---\n");
    assert_eq!(remove(&none, "alice"), Err(EditError::Absent("alice".to_owned())));
    // A comment between two entries without an empty line belongs to the second one.
    let close = text(
        "[[name]]\nname=\"a\"\npeer_id=\"ALICE\"\n# of b\n[[name]]\nname=\"b\"\npeer_id=\"BOB\"\n",
    );
    assert!(remove(&close, "a").unwrap().0.starts_with("# of b\n[[name]]\n"));
    // The comment at the start of the file belongs to the file.
    let (none, _) =
        remove(&text("# File.\n[[name]]\nname=\"a\"\npeer_id=\"ALICE\"\n"), "a").unwrap();
    assert_eq!(none, "# File.\n");
}

#[test]
fn a_replaced_entry_keeps_its_comments() {
    let mut alice = book(&text(BOOK)).named("alice").unwrap().clone();
    alice.purposes = Purposes::default();
    alice.labels = vec!["0000.0000.0000.0017".parse().unwrap()];
    alice.addresses = vec![text("/ip4/192.0.2.9/udp/9/strowger/p2p/ALICE").parse().unwrap()];
    let changed = replace(&text(BOOK), &alice).unwrap();
    let expected = text(BOOK)
        .replace("purposes = [\"connect\", \"accept\"]\n", "")
        .replace(
            "[\n    \"15\",               # over the cable\n    \"0000.0000.0001.5315\",\n]\n",
            &text("[\"0000.0000.0000.0017\"]\naddresses = [\"/ip4/192.0.2.9/udp/9/strowger/p2p/ALICE\"]\n"),
        );
    assert_eq!(changed, expected);
    // A new name for the same peer, and a new key for the same name.
    alice.name = "carol".to_owned();
    assert!(replace(&changed, &alice).unwrap().contains("name = \"carol\"          # calls"));
    let bob = BookEntry::new("bob", peer(3)).unwrap();
    assert!(replace(&changed, &bob).unwrap().contains(&peer(3).to_string()));
    let mixed = BookEntry::new("bob", peer(1)).unwrap();
    assert_eq!(replace(&changed, &mixed), Err(EditError::PeerTaken("alice".to_owned(), peer(1))));
    let absent = BookEntry::new("dave", peer(4)).unwrap();
    assert_eq!(replace(&changed, &absent), Err(EditError::Absent("dave".to_owned())));
}

#[test]
fn an_entry_is_added_at_the_end() {
    let alice = BookEntry::new("alice", peer(1)).unwrap();
    let first = add("", &alice).unwrap();
    assert_eq!(
        first,
        text(
            "# Address book of Strowger. `strowger peer` edits it; comments stay.\n\n[[name]]\n\
             name = \"alice\"\npeer_id = \"ALICE\"\n"
        )
    );
    let (name, other) = (&alice.name, peer(2));
    let bob = BookEntry::new("bob", other).unwrap();
    let both = add(&first, &bob).unwrap();
    assert_eq!(both, format!("{first}\n{bob}"));
    assert_eq!(add(first.trim_end(), &bob).unwrap(), both);
    let taken = BookEntry::new(name, other).unwrap();
    assert_eq!(add(&first, &taken), Err(EditError::NameTaken(name.clone(), peer(1))));
    let taken = BookEntry::new("carol", peer(1)).unwrap();
    assert_eq!(add(&first, &taken), Err(EditError::PeerTaken(name.clone(), peer(1))));
    let mut other = bob.clone();
    other.addresses.push(text("/ip4/192.0.2.9/udp/9/strowger/p2p/ALICE").parse().unwrap());
    let error = add(&first, &other).unwrap_err().to_string();
    assert!(error.contains("another peer"), "{error}");
    let lines = first.replace('\n', "\r\n");
    assert_eq!(add(&lines, &bob).unwrap(), both.replace('\n', "\r\n"));
}

#[test]
fn a_form_that_cannot_be_edited_is_refused_and_not_damaged() {
    let inline = text("# x\nname = [{ name = \"a\", peer_id = \"ALICE\" }]\n");
    assert_eq!(book(&inline).entries().len(), 1);
    assert_eq!(remove(&inline, "a"), Err(EditError::Layout(2)));
    let changed = BookEntry::new("a", peer(2)).unwrap();
    assert_eq!(replace(&inline, &changed), Err(EditError::Layout(2)));
    let error = add(&inline, &BookEntry::new("b", peer(2)).unwrap()).unwrap_err();
    assert!(error.to_string().contains("by hand"), "{error}");
    let faulty = add("[[name]]\n", &changed).unwrap_err();
    assert!(matches!(faulty, EditError::Faulty(_)), "{faulty}");
}

/// A valid entry for one of a few peers, with one of a few names.
fn random_entry(rng: &mut Rng, peers: &[PeerId]) -> BookEntry {
    let name = format!("n{}", rng.below(12));
    let mut entry = BookEntry::new(&name, peers[rng.below(peers.len())]).unwrap();
    entry.purposes = Purposes { connect: rng.one_in(2), accept: rng.one_in(2) };
    let labels = 1..=rng.below(4) as u64;
    entry.labels = labels.map(|number| Label::<u64>::new(0x10 + number).into()).collect();
    if rng.one_in(3) {
        entry.labels.push(AnyLabel::from_be_bytes(&[1; 32]).unwrap());
    }
    let addresses = 1..=rng.below(3);
    entry.addresses = addresses
        .map(|port| {
            let text = format!("/ip4/192.0.2.1/udp/{port}/strowger/p2p/{}", entry.peer_id);
            text.parse().unwrap()
        })
        .collect();
    entry
}

/// The lines of a text that contain only a comment.
fn comments(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| line.starts_with('#')).collect()
}

/// After random sequences of edits, the text is parsed as the book of a model, and keeps every
/// comment that does not belong to a removed entry.
#[test]
fn edits_change_what_they_name_and_nothing_else() {
    let peers: Vec<PeerId> = (0..8).map(peer).collect();
    let (mut done, mut with_comments) = ([0; 3], 0);
    for seed in 0..60 {
        let mut rng = Rng::new(0x5709_0100 + seed);
        let mut text = if rng.one_in(2) { String::new() } else { "# top\n\n".to_owned() };
        let mut model: Vec<BookEntry> = Vec::new();
        for step in 0..40 {
            let entry = random_entry(&mut rng, &peers);
            let before = text.clone();
            let same_name = model.iter().position(|other| other.name == entry.name);
            let same_peer = model.iter().position(|other| other.peer_id == entry.peer_id);
            match rng.below(4) {
                0 | 1 => match add(&text, &entry) {
                    Ok(changed) => {
                        assert!(same_name.is_none() && same_peer.is_none());
                        assert!(changed.starts_with(&text));
                        text = changed;
                        model.push(entry);
                        done[0] += 1;
                    }
                    Err(_) => assert!(same_name.is_some() || same_peer.is_some()),
                },
                2 => match replace(&text, &entry) {
                    Ok(changed) => {
                        assert_eq!(comments(&changed), comments(&before), "{before}\n{changed}");
                        let place = same_name.or(same_peer).unwrap();
                        text = changed;
                        model[place] = entry;
                        done[1] += 1;
                    }
                    Err(_) => {
                        assert!(same_name != same_peer || same_name.is_none());
                    }
                },
                _ => match remove(&text, &entry.name) {
                    Ok((changed, removed)) => {
                        assert_eq!(model.remove(same_name.unwrap()), removed);
                        let free = |text| {
                            let all = comments(text).into_iter();
                            all.filter(|line| !line.starts_with("# of ")).count()
                        };
                        assert_eq!(free(&changed), free(&before), "{before}\n{changed}");
                        let own = comments(&before).len() - comments(&changed).len();
                        assert!(own <= 2, "{before}\n{changed}");
                        with_comments += own;
                        text = changed;
                        done[2] += 1;
                    }
                    Err(_) => assert!(same_name.is_none()),
                },
            }
            assert_eq!(book(&text).entries(), model, "seed {seed} step {step}\n{before}\n{text}");
            // A person edits the file by hand.
            if rng.one_in(3) && !text.is_empty() {
                text += ["\n# free\n", "\n\n# free\n\n\n", "\n"][rng.below(3)];
            }
            let ends_with_entry = text.ends_with("]\n") || text.ends_with("\"\n");
            if rng.one_in(4)
                && ends_with_entry
                && let Some(last) = model.last()
            {
                text += &format!("# of {}\n", last.name);
            }
            if rng.one_in(4)
                && let Some(last) = model.last()
                && !text.contains(&format!("# of {}\n", last.name))
            {
                let at = text.rfind("[[name]]").unwrap();
                text.insert_str(at, &format!("\n# of {}\n", last.name));
            }
        }
    }
    assert!(done.iter().all(|count| *count > 100) && with_comments > 50, "{done:?}");
}

#[test]
fn names_and_purposes_are_checked() {
    for name in ["a", "Alice-2", "a_b.c", &"a".repeat(63), "4"] {
        assert_eq!(check_name(name), Ok(()), "{name}");
    }
    for name in ["", "-a", ".a", "a/b", "a b", "a\u{e9}", &"a".repeat(64), &peer(1).to_string()] {
        assert!(check_name(name).is_err(), "{name}");
    }
    assert_eq!("connect,accept".parse(), Ok(Purposes { connect: true, accept: true }));
    assert_eq!("".parse(), Ok(Purposes::NONE));
    assert!("connect,fly".parse::<Purposes>().unwrap_err().to_string().contains("\"fly\""));
}
