//! `strowger peer`: edits and prints the address book.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde_json::{Value, json};
use strowger_crypto::PeerId;
use strowger_routing::{
    AddressBook, PeerAddress,
    address::AddressParts,
    book::{self, BookEntry, EditError, Purposes, check_name},
    wire::label::AnyLabel,
};
use strowger_runtime::{files, places};

use super::{folder::default_folder, print::print};
use crate::exit::{Exit, Failure};

/// The text of `strowger peer --help` about the address book.
pub(crate) const ABOUT: &str = "\
The address book gives names to PeerIds, and says how the peers are reached: by labels, which begin at \
this node's slot, or by addresses of nodes. Programs that open sockets by PeerId or name will read it; \
today only this command does.

It changes nothing at a running relay: the links of a relay are the [[peer]] sections of its \
configuration (`strowger config add-peer`).";

/// `strowger peer`.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Add a peer to the address book.
    Add(Box<AddOptions>),
    /// Print the address book, or one entry.
    List {
        /// Print only the entry with this name or PeerId.
        #[arg(value_name = "NAME or PEER_ID")]
        wanted: Option<String>,
        #[command(flatten)]
        book: BookOptions,
    },
    /// Remove a peer from the address book, with the comment directly above its entry.
    Remove {
        /// The name or the PeerId of the peer.
        #[arg(value_name = "NAME or PEER_ID")]
        wanted: String,
        #[command(flatten)]
        book: BookOptions,
    },
}

/// Which book, and how results are printed.
#[derive(Debug, clap::Args)]
pub(crate) struct BookOptions {
    /// The address book. The default is peers.toml in strowger in $XDG_CONFIG_HOME or in ~/.config.
    #[arg(long = "book", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// `strowger peer add`.
#[derive(Debug, clap::Args)]
pub(crate) struct AddOptions {
    /// The name of the peer here.
    #[arg(value_parser = parse_name)]
    name: String,
    /// The PeerId (12D3KooW...), or an address that ends with it, as
    /// /ip4/192.0.2.1/udp/7000/strowger/p2p/12D3KooW...
    #[arg(value_name = "PEER_ID or ADDRESS")]
    peer: PeerArgument,
    /// A label to the peer, from this node's slot. Repeat the option, best first.
    #[arg(long = "label", value_name = "LABEL", value_parser = book::parse_label)]
    labels: Vec<AnyLabel>,
    /// An address of the peer, as /ip4/192.0.2.1/udp/7000/strowger. Repeat the option, best first.
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// What the entry is for: `connect` (programs here may connect to the peer), `accept` (the peer
    /// may connect to programs here that accept peers of this book), both, or an empty text.
    #[arg(long, value_name = "WORDS", default_value = "connect")]
    purposes: Purposes,
    /// Replace the entry with this name or PeerId. Comments stay.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    book: BookOptions,
}

fn parse_name(text: &str) -> Result<String, String> {
    check_name(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// A PeerId, or an address that names the peer.
#[derive(Clone, Debug)]
struct PeerArgument {
    peer: PeerId,
    address: Option<PeerAddress>,
}

impl std::str::FromStr for PeerArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(
                "this is a static key; need the PeerId, which `strowger key id FILE` prints"
                    .to_owned(),
            );
        }
        let is_address = text.starts_with('/');
        let address = if is_address { text.parse() } else { format!("/p2p/{text}").parse() };
        let address: PeerAddress =
            address.map_err(|error: strowger_routing::address::AddressError| {
                if is_address { error.to_string() } else { error.fault.to_string() }
            })?;
        let peer = address.peer().map_err(|error| error.to_string())?;
        if address.parts().protocol.is_some() {
            return Err("an address in the book has no protocol behind the PeerId".to_owned());
        }
        let says_more = address != PeerAddress::of_peer(peer);
        Ok(Self { peer, address: says_more.then_some(address) })
    }
}

/// `strowger peer`.
///
/// # Errors
/// One line: an argument is wrong, the book is faulty, or a file cannot be read or written. In that
/// case the book is unchanged.
pub(crate) fn run(task: &Task, output: &mut dyn Write) -> Result<(), Failure> {
    let text = match task {
        Task::Add(options) => add(options)?,
        Task::List { wanted, book } => list(wanted.as_deref(), book)?,
        Task::Remove { wanted, book } => remove(wanted, book)?,
    };
    print(output, &text)
}

fn add(options: &AddOptions) -> Result<String, Failure> {
    let entry = options.entry()?;
    let file = options.book.path()?;
    change(&file, |text| {
        let changed = match options.replace {
            true => book::replace(text, &entry),
            false => book::add(text, &entry),
        };
        changed.map_err(|error| match error {
            EditError::PeerTaken(other, _) if options.replace => Failure::new(
                Exit::Usage,
                format!(
                    "{}: \"{}\" and \"{other}\" are two entries; first: strowger peer remove {other}",
                    file.display(),
                    entry.name
                ),
            ),
            error => edit_failure(&file, &error),
        })
    })?;
    let verb = if options.replace { "replaced" } else { "added" };
    if options.book.json {
        return Ok(format!("{}\n", json!({ "book": shown(&file), verb: json_of(&entry) })));
    }
    Ok(format!("{verb} \"{}\" in {}\n{}", entry.name, file.display(), text_of(&entry)))
}

impl AddOptions {
    fn entry(&self) -> Result<BookEntry, Failure> {
        let PeerArgument { peer, address } = &self.peer;
        let usage = |line: String| Failure::new(Exit::Usage, line);
        let mut entry =
            BookEntry::new(&self.name, *peer).map_err(|error| usage(error.to_string()))?;
        entry.purposes = self.purposes;
        entry.labels.clone_from(&self.labels);
        match address.as_ref().map(PeerAddress::parts) {
            // An address with only a label and the PeerId.
            Some(AddressParts { underlay: None, label: Some(label), .. }) => {
                entry.labels.insert(0, *label);
            }
            Some(_) => {
                let text = address.as_ref().map(ToString::to_string).unwrap_or_default();
                entry.addresses.push(book::parse_address(&text, *peer).map_err(usage)?);
            }
            None => {}
        }
        for text in &self.addresses {
            entry.addresses.push(book::parse_address(text, *peer).map_err(usage)?);
        }
        Ok(entry)
    }
}

fn list(wanted: Option<&str>, options: &BookOptions) -> Result<String, Failure> {
    let file = options.path()?;
    let book = read_book(&file)?;
    if wanted.is_some() && book.is_none() {
        return Err(no_book(&file));
    }
    let is_there = book.is_some();
    let book = book.unwrap_or_default();
    let is_wanted = |entry: &&BookEntry| {
        wanted.is_none_or(|wanted| entry.name == wanted || entry.peer_id.to_string() == wanted)
    };
    let entries: Vec<&BookEntry> = book.entries().iter().filter(is_wanted).collect();
    if let (Some(wanted), true) = (wanted, entries.is_empty()) {
        return Err(edit_failure(&file, &EditError::Absent(wanted.to_owned())));
    }
    if options.json {
        let entries: Vec<Value> = entries.into_iter().map(json_of).collect();
        return Ok(format!("{}\n", json!({ "book": shown(&file), "entries": entries })));
    }
    if entries.is_empty() {
        let state = match is_there {
            true => "has no entry; `strowger peer add NAME PEER_ID` adds one",
            false => "does not exist yet; `strowger peer add NAME PEER_ID` makes it",
        };
        return Ok(format!("{} {state}\n", file.display()));
    }
    let texts: Vec<String> = entries.into_iter().map(text_of).collect();
    Ok(texts.join("\n"))
}

fn remove(wanted: &str, options: &BookOptions) -> Result<String, Failure> {
    let file = options.path()?;
    if read(&file)?.is_none() {
        return Err(no_book(&file));
    }
    let mut removed = None;
    change(&file, |text| {
        let (changed, entry) =
            book::remove(text, wanted).map_err(|error| edit_failure(&file, &error))?;
        removed = Some(entry);
        Ok(changed)
    })?;
    let Some(entry) = removed else { return Ok(String::new()) };
    if options.json {
        return Ok(format!("{}\n", json!({ "book": shown(&file), "removed": json_of(&entry) })));
    }
    Ok(format!("removed \"{}\" ({}) from {}\n", entry.name, entry.peer_id, file.display()))
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}

/// An entry as lines of text.
fn text_of(entry: &BookEntry) -> String {
    let BookEntry { name, peer_id, labels, addresses, purposes } = entry;
    let words: Vec<&str> = purposes.words().collect();
    let words = if words.is_empty() { "-".to_owned() } else { words.join(",") };
    let mut text = format!(
        "{name}\n  peer_id   {peer_id}\n  ip6       {}\n  purposes  {words}\n",
        peer_id.ip6()
    );
    for label in labels {
        text += &format!("  label     {label}\n");
    }
    for address in addresses {
        text += &format!("  address   {address}\n");
    }
    text
}

fn json_of(entry: &BookEntry) -> Value {
    let labels: Vec<String> = entry.labels.iter().map(ToString::to_string).collect();
    let addresses: Vec<String> = entry.addresses.iter().map(ToString::to_string).collect();
    json!({
        "name": entry.name,
        "peer_id": entry.peer_id.to_string(),
        "ip6": entry.peer_id.ip6().to_string(),
        "purposes": entry.purposes.words().collect::<Vec<_>>(),
        "labels": labels,
        "addresses": addresses,
    })
}

fn edit_failure(file: &Path, error: &EditError) -> Failure {
    let shown = file.display();
    let line = match error {
        EditError::Faulty(faults) => {
            format!("{shown}: {faults}; correct the file first, it is unchanged")
        }
        EditError::NameTaken(..) | EditError::PeerTaken(..) => {
            format!("{shown}: {error}; `--replace` replaces that entry, the file is unchanged")
        }
        EditError::Absent(_) => {
            format!("{shown}: {error}; `strowger peer list` prints the entries")
        }
        EditError::Name(_) | EditError::Entry(_) | EditError::Layout(_) => {
            format!("{shown}: {error}; the file is unchanged")
        }
    };
    Failure::new(Exit::Usage, line)
}

fn no_book(file: &Path) -> Failure {
    let shown = file.display();
    Failure::new(
        Exit::Usage,
        format!("there is no file {shown}; `strowger peer add NAME PEER_ID` makes it"),
    )
}

impl BookOptions {
    /// The path of the book. If it is a symbolic link, the path that the link leads to, so that a
    /// change replaces the file and not the link.
    fn path(&self) -> Result<PathBuf, Failure> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => default_folder("name the book with --book FILE")?.join(places::BOOK),
        };
        Ok(file.canonicalize().unwrap_or(file))
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Refused, format!("cannot {what} {}: {error}", path.display()))
}

/// The book in a file; `None` if the file does not exist.
///
/// # Errors
/// One line: the file cannot be read, or its faults.
pub(super) fn read_book(file: &Path) -> Result<Option<AddressBook>, Failure> {
    let Some(text) = read(file)? else { return Ok(None) };
    AddressBook::parse(&text)
        .map(Some)
        .map_err(|faults| Failure::new(Exit::Usage, format!("{}: {faults}", file.display())))
}

/// The text of the book; `None` if the file does not exist.
fn read(file: &Path) -> Result<Option<String>, Failure> {
    let bytes = match files::configuration(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot("read", file, &error)),
    };
    String::from_utf8(bytes).map(Some).map_err(|_| {
        Failure::new(Exit::Usage, format!("{}: not UTF-8; save the file as UTF-8", file.display()))
    })
}

/// Replaces the text of the book. No other `strowger peer` changes the file at the same time: each
/// holds a lock on the folder, which ends with the process.
fn change(file: &Path, edit: impl FnOnce(&str) -> Result<String, Failure>) -> Result<(), Failure> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| cannot("make the folder", folder, &error))?;
    let lock = File::open(folder).map_err(|error| cannot("open the folder", folder, &error))?;
    lock.lock().map_err(|error| cannot("lock the folder", folder, &error))?;
    let before = read(file)?;
    let text = edit(before.as_deref().unwrap_or_default())?;
    let written = match before {
        None => files::create(file, text.as_bytes()),
        Some(_) => replace(file, text.as_bytes()),
    };
    written.map_err(|error| cannot("write", file, &error))
}

/// Replaces the file atomically. It keeps its mode, because a book may be readable for others.
fn replace(file: &Path, text: &[u8]) -> io::Result<()> {
    let mode = fs::metadata(file)?.permissions().mode() & 0o777;
    files::replace(file, text)?;
    fs::set_permissions(file, PermissionsExt::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const ALICE: &str = "12D3KooWN1hpF14DNzraYWzE2HQH1zK7hNtYy7HALnB9s3gE79TY";
    const BOB: &str = "12D3KooWHP2Ve7tpkRQMJACbU4xmq9aDwL6gphLRHLJ3xB6nU5KA";

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        task: Task,
    }

    /// Runs `strowger peer` with this command line and book.
    fn peer(file: &Path, line: &str) -> Result<String, String> {
        let words = line
            .split_whitespace()
            .map(|word| word.replace("ALICE", ALICE).replace("BOB", BOB).replace("NONE", ""));
        let book = ["--book".to_owned(), file.to_str().unwrap().to_owned()];
        let words = ["peer".to_owned()].into_iter().chain(words).chain(book);
        let Line { task } = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let mut output = Vec::new();
        run(&task, &mut output).map_err(|failure| {
            assert!(!failure.line.contains('\n'), "{failure}");
            failure.line
        })?;
        Ok(String::from_utf8(output).unwrap())
    }

    fn json(file: &Path, line: &str) -> Value {
        serde_json::from_str(&peer(file, &format!("{line} --json")).unwrap()).unwrap()
    }

    #[test]
    fn peers_are_added_listed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/peers.toml");
        assert!(
            peer(&file, "list")
                .unwrap()
                .contains("does not exist yet; `strowger peer add NAME PEER_ID` makes it")
        );
        for line in ["list bob", "remove bob"] {
            assert!(peer(&file, line).unwrap_err().contains("there is no file"), "{line}");
        }
        assert!(!file.parent().unwrap().exists());
        let added = peer(&file, "add alice ALICE --label 15 --label 17").unwrap();
        for part in
            ["added \"alice\"", "0000.0000.0000.0017", "fd53:c901:5ab3:8afc:b7d:", "connect"]
        {
            assert!(added.contains(part), "{added}");
        }
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let bob = "add bob /ip4/192.0.2.1/udp/7000/strowger/p2p/BOB --purposes connect,accept \
                   --address /ip4/192.0.2.1/udp/1/strowger/p2p/ALICE/switch/0000.0000.0000.0013";
        let added = json(&file, bob);
        let far = format!(
            "/ip4/192.0.2.1/udp/1/strowger/p2p/{ALICE}/switch/0000.0000.0000.0013/p2p/{BOB}"
        );
        let near = format!("/ip4/192.0.2.1/udp/7000/strowger/p2p/{BOB}");
        assert_eq!(added["added"]["addresses"], json!([near, far]));
        assert_eq!(added["added"]["purposes"], json!(["connect", "accept"]));

        let listed = json(&file, "list");
        assert_eq!(listed["book"], shown(&file));
        assert_eq!(listed["entries"][0]["name"], "alice");
        assert_eq!(listed["entries"][1], added["added"]);
        assert_eq!(json(&file, "list BOB")["entries"], json!([added["added"]]));
        let text = peer(&file, "list").unwrap();
        assert!(text.starts_with("alice\n  peer_id   ") && text.contains("\n\nbob\n"), "{text}");

        fs::write(&file, format!("# mine\n\n{}", fs::read_to_string(&file).unwrap())).unwrap();
        assert_eq!(json(&file, "remove alice")["removed"]["peer_id"], ALICE);
        assert!(peer(&file, "remove BOB").unwrap().contains("removed \"bob\""));
        assert!(fs::read_to_string(&file).unwrap().starts_with("# mine\n"));
        assert!(peer(&file, "list").unwrap().contains("has no entry"));
        assert_eq!(json(&file, "list")["entries"], json!([]));
    }

    #[test]
    fn a_label_in_an_address_becomes_a_label() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("book");
        let added = json(&file, "add alice /switch/0000.0000.0000.0015/p2p/ALICE --label 17");
        let labels = json!(["0000.0000.0000.0015", "0000.0000.0000.0017"]);
        assert_eq!(added["added"]["labels"], labels);
        let replaced = json(&file, "add alice BOB --purposes=NONE --replace");
        assert_eq!(replaced["replaced"]["peer_id"], BOB);
        assert_eq!(replaced["replaced"]["purposes"], json!([]));
        assert_eq!(replaced["replaced"]["labels"], json!([]));
    }

    #[test]
    fn errors_say_what_is_wrong_and_leave_the_file_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("book");
        peer(&file, "add alice ALICE").unwrap();
        let before = fs::read_to_string(&file).unwrap();
        for (line, part) in [
            ("add alice BOB", "the name \"alice\" is taken"),
            ("add carol ALICE", "in the book already, as \"alice\""),
            ("add a/b BOB", "cannot be a name"),
            ("add bob BOBx", "need a PeerId, as 12D3KooW"),
            ("add bob QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "hash of a key"),
            ("add bob /ip4/192.0.2.1/udp/7000/strowger", "names no peer"),
            ("add bob /p2p/BOB/chat/1", "no protocol"),
            ("add bob BOB --label 1g", "byte 1"),
            ("add bob BOB --label 0", "zeros"),
            ("add bob BOB --label 15 --label 0015", "twice"),
            ("add bob BOB --address /ip4/192.0.2.1/tcp/1", "byte 14: need /udp"),
            ("add bob BOB --address /ip4/192.0.2.1/udp/1/strowger/p2p/ALICE", "another peer"),
            ("add bob BOB --purposes fly", "no purpose \"fly\""),
            ("add bob BOB --replace", "no entry \"bob\""),
            ("add alice BOB --label 00000000000000000000000000000015", "8 or 16 groups with dots"),
            (
                "add bob BOB --address 127.0.0.1:7000",
                "/switch or /p2p; as /ip4/127.0.0.1/udp/7000/strowger",
            ),
            ("add bob BOB --address [fd00::1]:7000", "as /ip6/fd00::1/udp/7000/strowger"),
            (
                "add bob 0001020304050607000102030405060700010203040506070001020304050607",
                "this is a static key; need the PeerId, which `strowger key id FILE` prints",
            ),
            ("remove bob", "`strowger peer list`"),
            ("list bob", "no entry \"bob\""),
        ] {
            let error = peer(&file, line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
            assert_eq!(fs::read_to_string(&file).unwrap(), before);
        }
        fs::write(&file, "[[name]]\n").unwrap();
        for line in ["add bob BOB", "remove bob", "list"] {
            let error = peer(&file, line).unwrap_err();
            assert!(error.contains("line 1: [[name]] needs the key"), "{error}");
        }
        fs::write(&file, b"\xff").unwrap();
        assert!(peer(&file, "list").unwrap_err().contains("UTF-8"));
        assert!(peer(folder.path(), "list").unwrap_err().contains("cannot read"));
    }

    #[test]
    fn a_name_and_a_peer_of_two_entries_cannot_become_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("book");
        peer(&file, "add alice ALICE").unwrap();
        peer(&file, "add bob BOB").unwrap();
        let error = peer(&file, "add alice BOB --replace").unwrap_err();
        let wanted = "\"alice\" and \"bob\" are two entries; first: strowger peer remove bob";
        assert!(error.ends_with(wanted), "{error}");
        peer(&file, "remove bob").unwrap();
        peer(&file, "add alice BOB --replace").unwrap();
    }

    #[test]
    fn a_book_keeps_its_mode_and_a_link_to_it_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("book"), folder.path().join("link"));
        fs::write(&file, "# shared\n").unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink("book", &link).unwrap();
        peer(&link, "add alice ALICE").unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        assert!(fs::read_to_string(&file).unwrap().contains("alice"));
    }

    #[test]
    fn changes_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = &folder.path().join("book");
        let ids: Vec<String> = (0..16)
            .map(|seed| {
                let secret = strowger_crypto::Secret::from_bytes([seed; 32]);
                let key = strowger_crypto::IdentityKey::from_seed(&secret);
                key.public().peer_id().to_string()
            })
            .collect();
        std::thread::scope(|scope| {
            for (number, id) in ids.iter().enumerate() {
                scope.spawn(move || peer(file, &format!("add n{number} {id}")).unwrap());
            }
        });
        assert_eq!(json(file, "list")["entries"].as_array().unwrap().len(), ids.len());
    }
}
