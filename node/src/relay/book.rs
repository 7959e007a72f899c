//! The address book of a relay, from which the switch answers lookups of programs.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use strowger_crypto::{Identity, Nanos, PeerId};
use strowger_engine::{
    Now,
    control::messages::{KnownPeer, Resolver},
};
use strowger_routing::{Candidate, FileStamp, LookupTarget, Route, StaticTable};
use strowger_runtime::files;
use strowger_wire::control::{ResolveTarget, ResolvedLabel};

use crate::{
    exit::{Exit, Failure},
    relay::log::{Kind, Log},
};

/// The minimum time in nanoseconds between two checks of the file.
const LOOK_NS: u64 = 1_000_000_000;

/// The log of a relay, which starts after the relay has dropped its privileges.
pub(crate) type LateLog = Arc<OnceLock<Log>>;

/// Answers with the labels of the address book. If the file has changed, it is read again, at most
/// once a second. If a version is faulty or unreadable, the relay logs this once and keeps the
/// former book.
///
/// The answers contain only labels, because a lookup of a program creates no link.
#[derive(Debug)]
pub(crate) struct BookResolver {
    file: PathBuf,
    table: StaticTable,
    looked: Option<Now>,
    /// The reason why the present version of the file is not used; `None` if it is used.
    fault: Option<String>,
    log: LateLog,
}

impl BookResolver {
    /// Reads the book.
    ///
    /// # Errors
    /// One line: the file cannot be read, or its faults.
    pub(crate) fn open(file: &Path, log: LateLog) -> Result<BookResolver, Failure> {
        let unread = |error: io::Error| {
            let text = format!(
                "cannot read the address book {} (address_book in [switch]): {error}",
                file.display()
            );
            Failure::new(Exit::Refused, text)
        };
        let stamp = stamp(file).map_err(unread)?;
        let text = text(file).map_err(unread)?;
        let mut table = StaticTable::default();
        table
            .reload(stamp, &text)
            .map_err(|faults| Failure::new(Exit::Usage, format!("{}: {faults}", file.display())))?;
        Ok(BookResolver { file: file.to_owned(), table, looked: None, fault: None, log })
    }

    fn look(&mut self, now: Now) {
        if self.looked.is_some_and(|at| now.0.saturating_sub(at.0) < LOOK_NS) {
            return;
        }
        self.looked = Some(now);
        match self.read_if_changed() {
            Ok(false) => {}
            Ok(true) => {
                if self.fault.take().is_some() {
                    self.write(Kind::AddressBookBack, "the relay uses the file again");
                }
            }
            Err(fault) if self.fault.as_ref() == Some(&fault) => {}
            Err(fault) => {
                let text = format!("the relay keeps the former version: {fault}");
                self.write(Kind::AddressBookTrouble, &text);
                self.fault = Some(fault);
            }
        }
    }

    /// Reads the file if it has changed, or if the last read failed. Returns whether it was read.
    fn read_if_changed(&mut self) -> Result<bool, String> {
        let stamp = stamp(&self.file).map_err(|error| error.to_string())?;
        if !self.table.needs_reload(&stamp) {
            return Ok(false);
        }
        let text = text(&self.file).map_err(|error| error.to_string())?;
        self.table.reload(stamp, &text).map_err(|faults| faults.to_string())?;
        Ok(true)
    }

    fn write(&self, kind: Kind, text: &str) {
        if let Some(log) = self.log.get() {
            log.write(kind, &format!("address book {}", self.file.display()), text);
        }
    }
}

fn stamp(file: &Path) -> io::Result<FileStamp> {
    let data = fs::metadata(file)?;
    let modified_ns = i128::from(data.mtime()) * 1_000_000_000 + i128::from(data.mtime_nsec());
    Ok(FileStamp { inode: data.ino(), modified_ns, bytes: data.len() })
}

fn text(file: &Path) -> io::Result<String> {
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "the file is not UTF-8");
    String::from_utf8(files::configuration(file)?).map_err(not_text)
}

impl Resolver for BookResolver {
    fn resolve(&mut self, target: &ResolveTarget<'_>, now: Now) -> Option<KnownPeer> {
        self.look(now);
        let now = Nanos(now.0);
        let target = match target {
            ResolveTarget::Peer(key) => Identity::from_bytes(key).ok()?.peer_id().into(),
            ResolveTarget::Address(address) => LookupTarget::Address((**address).into()),
        };
        let found = self.table.routes_to(now, &target);
        let peer: PeerId = found.first()?.peer;
        let label = |candidate: &Candidate| match candidate.route {
            // Cost 0 is that of a peer on a slot of the relay itself.
            Route::Label(label) => Some(ResolvedLabel {
                label,
                cost: candidate.cost + 1,
                mtu: candidate.mtu.unwrap_or(0),
                seconds: 0,
            }),
            Route::Underlay(_) => None,
        };
        Some(KnownPeer {
            identity: peer.identity().ok()?.to_bytes(),
            certificate: None,
            labels: found.iter().filter_map(label).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const ALICE: &str = "12D3KooWN1hpF14DNzraYWzE2HQH1zK7hNtYy7HALnB9s3gE79TY";

    fn book(labels: &str) -> String {
        format!(
            "[[name]]\nname = \"alice\"\npeer_id = \"{ALICE}\"\nlabels = [{labels}]\n\
             addresses = [\"/ip4/192.0.2.1/udp/7/strowger\"]\n"
        )
    }

    #[test]
    fn a_book_that_changes_is_read_again_and_a_faulty_one_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("peers.toml");
        let alice: PeerId = ALICE.parse().unwrap();
        let key = alice.identity().unwrap().to_bytes();
        let ip6 = alice.ip6().octets();
        let labels = |resolver: &mut BookResolver, seconds: u64| {
            let now = Now(seconds * LOOK_NS);
            let known = resolver.resolve(&ResolveTarget::Peer(&key), now)?;
            assert_eq!(resolver.resolve(&ResolveTarget::Address(&ip6), now), Some(known.clone()));
            assert_eq!(known.identity, key);
            Some(
                known
                    .labels
                    .iter()
                    .map(|one| (one.label.to_string(), one.cost))
                    .collect::<Vec<_>>(),
            )
        };
        let missing = BookResolver::open(&file, LateLog::default()).unwrap_err();
        assert!(missing.to_string().contains("address_book in [switch]"), "{missing}");
        fs::write(&file, "labels = 1\n").unwrap();
        let faulty = BookResolver::open(&file, LateLog::default()).unwrap_err();
        assert!(faulty.to_string().contains("peers.toml: "), "{faulty}");

        fs::write(&file, book("\"15\", \"17\"")).unwrap();
        let mut resolver = BookResolver::open(&file, LateLog::default()).unwrap();
        let label = |text: &str, cost| (format!("0000.0000.0000.00{text}"), cost);
        assert_eq!(labels(&mut resolver, 1), Some(vec![label("15", 1), label("17", 2)]));
        assert_eq!(resolver.resolve(&ResolveTarget::Peer(&[9; 32]), Now(2 * LOOK_NS)), None);
        fs::write(&file, book("\"15\"")).unwrap();
        assert_eq!(labels(&mut resolver, 2).unwrap().len(), 2, "once a second");
        assert_eq!(labels(&mut resolver, 3), Some(vec![label("15", 1)]));
        fs::write(&file, "labels = 1\n").unwrap();
        assert_eq!(labels(&mut resolver, 5).unwrap().len(), 1);
        fs::remove_file(&file).unwrap();
        assert_eq!(labels(&mut resolver, 7).unwrap().len(), 1);
        fs::write(&file, "").unwrap();
        assert_eq!(labels(&mut resolver, 9), None);
    }

    /// Collects the output of a log.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_book_that_cannot_be_used_is_logged_once_until_it_can_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("peers.toml");
        fs::write(&file, book("\"15\"")).unwrap();
        let (sink, log) = (Sink::default(), LateLog::default());
        let mut resolver = BookResolver::open(&file, log.clone()).unwrap();
        log.set(Log::start_on(sink.clone()).unwrap()).unwrap();
        let mut seconds = 0;
        let mut look = || {
            seconds += 1;
            resolver.look(Now(seconds * LOOK_NS));
        };
        look();
        fs::write(&file, "labels = 1\n").unwrap();
        look();
        look();
        fs::remove_file(&file).unwrap();
        look();
        look();
        fs::write(&file, book("\"17\"")).unwrap();
        look();
        look();
        log.get().unwrap().clone().close();
        let lines = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = lines.lines().collect();
        let [faulty, missing, back] = lines[..] else { panic!("{lines:?}") };
        let name = file.display().to_string();
        for (line, kind, text) in [
            (faulty, "warning address_book_trouble", "unknown `labels`"),
            (missing, "warning address_book_trouble", "No such file"),
            (back, "info address_book_back", "uses the file again"),
        ] {
            assert!(line.contains(kind) && line.contains(&name) && line.contains(text), "{line}");
        }
    }
}
