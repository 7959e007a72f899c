//! The routes of an address book.

use std::collections::HashMap;

use core::net::Ipv6Addr;

use strowger_crypto::{Nanos, PeerId};

use crate::{
    book::{AddressBook, BookEntry, BookFaults},
    candidate::{Candidate, Candidates, Route, Source},
    ends::Ends,
    limits::{FAILED_ROUTE_LAST, FAILED_ROUTE_S},
    peer_routing::{LookupEnd, LookupResult, LookupTarget, Outcome, PeerRouting},
    question::{ControlReply, QuestionQueue},
};

/// [`PeerRouting`] with the routes of an address book: labels first, then addresses, each in the
/// order of the entry.
///
/// The next poll after a lookup returns all routes and the end. A route that has failed comes last
/// for 30 s. Entries without the purpose `connect` have no routes.
///
/// ```
/// use strowger_routing::{
///     Candidates, LookupTarget, PeerRouting, QuestionQueue, StaticTable, crypto::Nanos,
/// };
///
/// let mut table = StaticTable::parse(
///     r#"
///     [[name]]
///     name = "alice"
///     peer_id = "12D3KooWN1hpF14DNzraYWzE2HQH1zK7hNtYy7HALnB9s3gE79TY"
///     labels = ["0000.0000.0001.5315"]
///     "#,
/// )?;
/// let alice = table.book().named("alice").expect("an entry").peer_id;
/// let (now, mut questions) = (Nanos::ZERO, QuestionQueue::new());
/// table.lookup(now, LookupTarget::Address(alice.ip6()), &mut questions);
/// let result = table.poll(now, &mut questions).expect("a result");
/// assert_eq!(result.candidates[0].peer, alice);
/// assert!(questions.is_empty());
/// # Ok::<(), strowger_routing::book::BookFaults>(())
/// ```
#[derive(Debug, Default)]
pub struct StaticTable {
    book: AddressBook,
    by_peer: HashMap<PeerId, usize>,
    by_address: HashMap<Ipv6Addr, usize>,
    /// The state of the routes of the book; other routes have none.
    routes: HashMap<Route, RouteState>,
    ends: Ends,
    stamp: Option<FileStamp>,
}

/// The outcomes that the users of a route have reported.
#[derive(Clone, Copy, Debug, Default)]
struct RouteState {
    failed_until: Option<Nanos>,
    mtu: Option<u16>,
}

/// The version of a file, to notice that it has changed. The caller reads it from the file's
/// metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// The inode. It changes if the file is replaced by another one.
    pub inode: u64,
    /// The time of the last modification, in nanoseconds of any clock.
    pub modified_ns: i128,
    /// The length in bytes.
    pub bytes: u64,
}

/// The changes in a new version of the book: names, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BookChanges {
    /// The names of entries whose PeerId was not in the book.
    pub added: Vec<String>,
    /// The names of entries whose PeerId was in the book, with another name or other fields.
    pub changed: Vec<String>,
    /// The names of entries whose PeerId is no longer in the book.
    pub removed: Vec<String>,
}

impl StaticTable {
    /// The table of a book.
    pub fn new(book: AddressBook) -> StaticTable {
        let mut table = StaticTable::default();
        table.set(book);
        table
    }

    /// Reads the text of a book, and makes its table.
    ///
    /// # Errors
    /// All faults of the text, with their lines.
    pub fn parse(text: &str) -> Result<StaticTable, BookFaults> {
        AddressBook::parse(text).map(StaticTable::new)
    }

    /// The book.
    pub const fn book(&self) -> &AddressBook {
        &self.book
    }

    /// Whether the file must be read again: its stamp differs from that of the last
    /// [`reload`](StaticTable::reload). A faulty version is not read twice.
    pub fn needs_reload(&self, stamp: &FileStamp) -> bool {
        self.stamp.as_ref() != Some(stamp)
    }

    /// Replaces the book with that of a new version of the file. Keeps the state of routes that
    /// stay in the book.
    ///
    /// # Errors
    /// All faults of the text. The table keeps its former book.
    pub fn reload(&mut self, stamp: FileStamp, text: &str) -> Result<BookChanges, BookFaults> {
        self.stamp = Some(stamp);
        let book = AddressBook::parse(text)?;
        let mut changes = BookChanges::default();
        for entry in book.entries() {
            match self.entry(&entry.peer_id) {
                Some(former) if former == entry => {}
                Some(_) => changes.changed.push(entry.name.clone()),
                None => changes.added.push(entry.name.clone()),
            }
        }
        let former = std::mem::take(&mut self.book);
        self.set(book);
        let removed = former.entries().iter().filter(|entry| self.entry(&entry.peer_id).is_none());
        changes.removed = removed.map(|entry| entry.name.clone()).collect();
        Ok(changes)
    }

    fn set(&mut self, book: AddressBook) {
        let places = || book.entries().iter().enumerate();
        self.by_peer = places().map(|(place, entry)| (entry.peer_id, place)).collect();
        self.by_address = places().map(|(place, entry)| (entry.peer_id.ip6(), place)).collect();
        let former = std::mem::take(&mut self.routes);
        for candidate in book.entries().iter().flat_map(candidates) {
            let state = former.get(&candidate.route).copied().unwrap_or_default();
            self.routes.insert(candidate.route, state);
        }
        self.book = book;
    }

    fn entry(&self, peer: &PeerId) -> Option<&BookEntry> {
        self.book.entries().get(*self.by_peer.get(peer)?)
    }

    /// The routes to a target, best first.
    pub fn routes_to(&self, now: Nanos, target: &LookupTarget) -> Candidates {
        let place = match target {
            LookupTarget::Peer(peer) => self.by_peer.get(peer),
            LookupTarget::Address(address) => self.by_address.get(address),
        };
        let entry = place.and_then(|place| self.book.entries().get(*place));
        let entry = entry.filter(|entry| entry.purposes.connect);
        let mut found: Candidates = entry.into_iter().flat_map(candidates).collect();
        for candidate in &mut found {
            let state = self.routes.get(&candidate.route).copied().unwrap_or_default();
            candidate.mtu = state.mtu;
            if state.failed_until.is_some_and(|until| now < until) {
                candidate.cost += FAILED_ROUTE_LAST;
            }
        }
        found.sort_by_key(|candidate| candidate.cost);
        found
    }
}

/// The routes of an entry, best first. The reader of the book has bounded their number.
fn candidates(entry: &BookEntry) -> impl Iterator<Item = Candidate> {
    let labels = entry.labels.iter().map(|label| {
        Some(Candidate::new(entry.peer_id, Route::Label(*label), Source::StaticTable))
    });
    let addresses =
        entry.addresses.iter().map(|address| Candidate::of_address(address, Source::StaticTable));
    let all = labels.chain(addresses).flatten().enumerate();
    all.map(|(place, candidate)| Candidate { cost: place as u32, ..candidate })
}

impl PeerRouting for StaticTable {
    fn lookup(&mut self, now: Nanos, target: LookupTarget, _: &mut QuestionQueue) {
        let candidates = self.routes_to(now, &target);
        self.ends.push(LookupResult { target, candidates, end: Some(LookupEnd::Complete) });
    }

    fn cancel(&mut self, target: &LookupTarget) {
        self.ends.cancel(target);
    }

    fn handle_reply(&mut self, _: Nanos, _: &ControlReply<'_>, _: &mut QuestionQueue) {}

    fn poll(&mut self, _: Nanos, _: &mut QuestionQueue) -> Option<LookupResult> {
        self.ends.pop()
    }

    fn feedback(&mut self, now: Nanos, route: &Route, outcome: &Outcome) {
        let Some(state) = self.routes.get_mut(route) else { return };
        match *outcome {
            Outcome::Validated { mtu, .. } => {
                *state = RouteState { failed_until: None, mtu: mtu.or(state.mtu) };
            }
            Outcome::Failed(_) => {
                state.failed_until = Some(now.plus(Nanos::from_secs(FAILED_ROUTE_S)));
            }
        }
    }

    fn next_timeout(&self) -> Option<Nanos> {
        None
    }
}

#[cfg(test)]
mod tests {
    use strowger_wire::label::AnyLabel;

    use super::*;
    use crate::peer_routing::RouteFailure;

    const ALICE: &str = "12D3KooWN1hpF14DNzraYWzE2HQH1zK7hNtYy7HALnB9s3gE79TY";
    const BOB: &str = "12D3KooWHP2Ve7tpkRQMJACbU4xmq9aDwL6gphLRHLJ3xB6nU5KA";

    fn text(fields: &str) -> String {
        format!("[[name]]\nname = \"alice\"\npeer_id = \"{ALICE}\"\n{fields}\n")
    }

    fn stamp(version: u64) -> FileStamp {
        FileStamp { inode: 1, modified_ns: 0, bytes: version }
    }

    fn labels(table: &StaticTable, now: Nanos) -> Vec<String> {
        let alice: PeerId = ALICE.parse().unwrap();
        let found = table.routes_to(now, &alice.into());
        assert!(found.is_sorted_by_key(|candidate| candidate.cost));
        let shown = |candidate: &Candidate| match candidate.route {
            Route::Label(label) => label.to_string(),
            Route::Underlay(underlay) => underlay.address.port.to_string(),
        };
        found.iter().map(shown).collect()
    }

    #[test]
    fn labels_come_first_and_failed_routes_last() {
        let fields = "labels = [\"15\", \"17\"]\naddresses = [\"/ip4/192.0.2.1/udp/7/strowger\"]";
        let mut table = StaticTable::parse(&text(fields)).unwrap();
        let (first, second) = ("0000.0000.0000.0015", "0000.0000.0000.0017");
        let label = |text: &str| Route::Label(text.parse::<AnyLabel>().unwrap());
        let now = Nanos::from_secs(5);
        assert_eq!(labels(&table, now), [first, second, "7"]);
        table.feedback(now, &label(first), &Outcome::Failed(RouteFailure::Silence));
        assert_eq!(labels(&table, now), [second, "7", first]);
        let later = Nanos::from_secs(5 + FAILED_ROUTE_S);
        assert_eq!(labels(&table, later), [first, second, "7"]);
        table.feedback(now, &label(second), &Outcome::Failed(RouteFailure::WrongPeer));
        let valid = Outcome::Validated { rtt: Nanos::from_millis(1), mtu: Some(1_400) };
        table.feedback(now, &label(first), &valid);
        assert_eq!(labels(&table, now), [first, "7", second]);
        let alice: PeerId = ALICE.parse().unwrap();
        assert_eq!(table.routes_to(now, &alice.into())[0].mtu, Some(1_400));
        // A route that is not in the book is not remembered.
        table.feedback(now, &label("0000.0000.0000.0019"), &valid);
        assert_eq!(table.routes.len(), 3);
    }

    #[test]
    fn only_entries_to_connect_to_have_routes() {
        let bob: PeerId = BOB.parse().unwrap();
        let alice: PeerId = ALICE.parse().unwrap();
        let table =
            StaticTable::parse(&text("purposes = [\"accept\"]\nlabels = [\"15\"]")).unwrap();
        assert!(labels(&table, Nanos::ZERO).is_empty());
        let table = StaticTable::parse(&text("labels = [\"15\"]")).unwrap();
        assert_eq!(table.routes_to(Nanos::ZERO, &LookupTarget::Address(alice.ip6())).len(), 1);
        assert!(table.routes_to(Nanos::ZERO, &LookupTarget::Address(bob.ip6())).is_empty());
        assert!(table.routes_to(Nanos::ZERO, &bob.into()).is_empty());
    }

    #[test]
    fn a_faulty_version_leaves_the_table_as_it_is_and_is_not_read_twice() {
        let mut table = StaticTable::default();
        assert!(table.needs_reload(&stamp(1)));
        let changes = table.reload(stamp(1), &text("labels = [\"15\"]")).unwrap();
        assert_eq!(changes.added, ["alice"]);
        assert!(!table.needs_reload(&stamp(1)) && table.needs_reload(&stamp(2)));
        let failed = Outcome::Failed(RouteFailure::Silence);
        let kept = Route::Label("0000.0000.0000.0015".parse().unwrap());
        table.feedback(Nanos::ZERO, &kept, &failed);

        let faults = table.reload(stamp(2), &text("labels = 1")).unwrap_err();
        assert_eq!(faults.all()[0].line, 4);
        assert!(!table.needs_reload(&stamp(2)));
        assert_eq!(labels(&table, Nanos::ZERO).len(), 1);

        let both = text("labels = [\"15\", \"17\"]")
            + &format!("[[name]]\nname = \"bob\"\npeer_id = \"{BOB}\"\n");
        let changes = table.reload(stamp(3), &both).unwrap();
        assert_eq!((changes.changed, changes.added), (vec!["alice".into()], vec!["bob".into()]));
        // The failure of a route that stays in the book is kept.
        assert_eq!(labels(&table, Nanos::ZERO)[1], "0000.0000.0000.0015");
        let changes = table.reload(stamp(4), "").unwrap();
        assert_eq!(changes.removed, ["alice", "bob"]);
        assert!(table.routes.is_empty());
    }
}
