//! Programs on the slots of a relay announce themselves and look up peers, by control messages.

use std::{fs, thread, time::Duration};

use strowger_crypto::{
    AnnouncePlace, Identity, IdentityKey, Nanos, NetworkId, PeerId, SeededEntropy, find_tag,
};
use strowger_engine::link::plain_header;
use strowger_io::unix::Client;
use strowger_routing::{
    AskNeighbours, AskRelay, Candidate, ControlReply, LookupTarget, PeerRouting, QuestionQueue,
    Route,
};
use strowger_testkit::{
    DEADLINE, eventually,
    harness::relay::{Home, Relay, until_up},
};
use strowger_wire::{
    Label, Slot,
    control::{Message, ResolveTarget},
    label::AnyLabel,
    link_header::LINK_HEADER_BYTES,
    scheme::V3X5X8,
    switch_header::{AnyHeader, Flags, HEADER_64_BYTES, HeaderRepr},
};

const BOB: &str = "12D3KooWHP2Ve7tpkRQMJACbU4xmq9aDwL6gphLRHLJ3xB6nU5KA";

/// Sends a message to the relay itself, and returns the answer.
fn ask(client: &mut Client, message: &[u8]) -> Vec<u8> {
    ask_along(client, Label::here(), 0, message).1
}

/// Sends a message along a label, and returns the answer and the label back.
fn ask_along(client: &mut Client, label: Label, flow: u16, message: &[u8]) -> (Label, Vec<u8>) {
    let mut packet = vec![0; LINK_HEADER_BYTES + HEADER_64_BYTES];
    packet[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(1));
    let (label, shift) = label.depart().unwrap();
    let flags = Flags { control: true, ..Flags::default() };
    let header = HeaderRepr { flags, flow, ..HeaderRepr::new(label, shift, 8) };
    header.emit(&mut packet[LINK_HEADER_BYTES..]).unwrap();
    packet.extend_from_slice(message);
    assert!(client.send(&packet, DEADLINE).unwrap());
    let mut bytes = [0; 2048];
    let received = client.receive(&mut bytes, DEADLINE).unwrap().expect("an answer");
    let packet = &mut bytes[LINK_HEADER_BYTES..received.len];
    let AnyHeader::W64(header) = AnyHeader::parse(packet).unwrap() else { panic!("64 bits") };
    assert!(header.is_control());
    let ingress = V3X5X8.encode_least(Slot::new(received.ingress)).unwrap();
    let back = header.label().reverse(header.shift(), Some(ingress)).unwrap();
    (back, header.payload().to_vec())
}

/// Announces an identity at a slot of this relay's switch.
fn announce(home: &Home, client: &mut Client, slot: u32, who: &IdentityKey) {
    let network = NetworkId::new(b"test").unwrap();
    let switch: Identity = home.peer_id.parse::<PeerId>().unwrap().identity().unwrap();
    let certificate = who.certify_connection_key(1, &network);
    let place = AnnouncePlace { network: &network, switch: &switch, slot };
    let made = who.announce(&place, &certificate, 300, 10);
    let answer = ask(client, &made.message(9));
    let Ok(Message::Announced { id: 9, verdict, seconds: 300 }) = Message::parse(&answer) else {
        panic!("{answer:?}")
    };
    assert!(verdict.is_taken());
}

/// Looks a peer up, and answers the questions along their labels.
fn lookup(mut routing: impl PeerRouting, client: &mut Client, peer: PeerId) -> Vec<Candidate> {
    let (now, mut out) = (Nanos::from_secs(1), QuestionQueue::new());
    routing.lookup(now, LookupTarget::Peer(peer), &mut out);
    loop {
        if let Some(result) = routing.poll(now, &mut out) {
            return result.candidates.to_vec();
        }
        let question = out.pop().expect("a question");
        let AnyLabel::W64(to) = question.to else { panic!("64 bits") };
        let (from, answer) = ask_along(client, to, question.flow(), &question.message);
        let reply = ControlReply::parse(from.into(), &answer).unwrap();
        routing.handle_reply(now, &reply, &mut out);
    }
}

/// Two relays: the sources that ask find a program, and their labels lead to it.
///
/// wire.md: W5-3, W5-83, W5-85, W5-98.
#[test]
fn the_labels_of_sources_that_ask_lead_to_the_program() {
    let (a, b) = (Home::new(), Home::new());
    let rights = "rights = [\"transit\", \"endpoints\", \"control\"]\n";
    // The program is on slot 200 of the other relay, which needs a wider director.
    let app = "[[unix]]\nname = \"app\"\npath = \"DIR/app\"\nslot = 200\n";
    let ours = a.start(&b.key, Some(b.at), rights);
    let theirs = b.start(&a.key, Some(a.at), &format!("{rights}{app}"));
    until_up([&ours, &theirs]);
    let (mut local, mut app) = (ours.client(), theirs.client_of("app", 200));
    let alice = IdentityKey::generate(&mut SeededEntropy::new(5)).unwrap();
    announce(&b, &mut app, 200, &alice);
    let peer = alice.public().peer_id();
    let network = NetworkId::new(b"test").unwrap();
    let random = || Box::new(SeededEntropy::new(8));

    let mut neighbours = AskNeighbours::new(network, V3X5X8, Slot::new(4), random());
    neighbours.set_neighbours([Slot::new(2)]);
    let found = lookup(neighbours, &mut local, peer);
    let [one] = &found[..] else { panic!("{found:?}") };
    let own = lookup(AskRelay::new(network, random()), &mut local, peer);
    assert!(own.is_empty(), "the relay itself does not know it");
    let Route::Label(AnyLabel::W64(label)) = one.route else { panic!("{one:?}") };
    assert_eq!(one.certificate.map(|one| one.identity().peer_id()), Some(peer));

    // A packet along the label arrives.
    let mut packet = vec![0; LINK_HEADER_BYTES + HEADER_64_BYTES];
    packet[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(1));
    let (departed, shift) = label.depart().unwrap();
    let header = HeaderRepr::new(departed, shift, 8);
    header.emit(&mut packet[LINK_HEADER_BYTES..]).unwrap();
    packet.extend_from_slice(b"to alice");
    assert!(local.send(&packet, DEADLINE).unwrap());
    let mut bytes = [0; 2048];
    let received = app.receive(&mut bytes, DEADLINE).unwrap().expect("a packet");
    assert!(bytes[..received.len].ends_with(b"to alice"));

    let again = IdentityKey::generate(&mut SeededEntropy::new(6)).unwrap();
    announce(&a, &mut local, 4, &again);
    let there = lookup(AskRelay::new(network, random()), &mut app, again.public().peer_id());
    assert!(there.is_empty(), "a relay answers for its own slots");
    ours.stop();
    theirs.stop();
}

/// The labels to a peer, as text.
fn labels(client: &mut Client, peer: &PeerId) -> Vec<String> {
    let key = peer.identity().unwrap().to_bytes();
    let target = ResolveTarget::Peer(&key);
    let answer = ask(client, &Message::Resolve { id: 7, target }.to_bytes());
    let Ok(Message::Resolved { id: 7, resolution }) = Message::parse(&answer) else {
        panic!("{answer:?}")
    };
    let labels = resolution.labels.iter().flatten();
    labels.map(|label| label.label.to_string()).collect()
}

fn write_book(home: &Home, labels: &str) {
    let book = format!("[[name]]\nname = \"bob\"\npeer_id = \"{BOB}\"\nlabels = [{labels}]\n");
    // The file is replaced as `strowger peer` does it, so that the relay sees another inode.
    fs::write(home.file("peers.new"), book).unwrap();
    fs::rename(home.file("peers.new"), home.file("peers.toml")).unwrap();
}

/// wire.md: W5-80, W5-81, W5-82, W5-88, W5-89, W5-102.
#[test]
fn a_program_finds_who_announced_itself_and_who_is_in_the_relay_s_book() {
    let home = Home::new();
    write_book(&home, "\"1b\"");
    let relay: Relay = home.start_with(
        "[switch]\naddress_book = \"DIR/peers.toml\"\n\
         [[unix]]\nname = \"app\"\npath = \"DIR/app\"\nslot = 5\n",
    );
    let (mut local, mut app) = (relay.client(), relay.client_of("app", 5));
    let bob: PeerId = BOB.parse().unwrap();
    assert_eq!(labels(&mut local, &bob), ["0000.0000.0000.001b"]);
    write_book(&home, "\"17\", \"1bb\"");
    // The relay answers 100 requests a second.
    let pause = || thread::sleep(Duration::from_millis(50));
    let changed = || {
        pause();
        let found = labels(&mut local, &bob);
        // Slot 3 has no user, so its label is not given.
        (found == ["0000.0000.0000.01bb"]).then_some(())
    };
    eventually("the book is read again", changed);
    write_book(&home, "");
    eventually("the labels are gone", || {
        pause();
        labels(&mut local, &bob).is_empty().then_some(())
    });

    let alice = IdentityKey::generate(&mut SeededEntropy::new(5)).unwrap();
    announce(&home, &mut app, 5, &alice);
    let peer = alice.public().peer_id();
    assert_eq!(labels(&mut local, &peer), ["0000.0000.0000.001b"]);
    let nonce = [3; 16];
    let tag = find_tag(&nonce, &peer.ip6());
    let answer = ask(&mut local, &Message::Find { nonce: &nonce, tag: &tag }.to_bytes());
    let Ok(Message::Found { host: Some(host), .. }) = Message::parse(&answer) else {
        panic!("{answer:?}")
    };
    assert_eq!((host.width, host.director), (4, 0xb));
    relay.show("slots", &["announced", &peer.to_string()]);
    assert_eq!(relay.events("announced").len(), 1);
    // The program ends: its announcement ends with its slot, when the slot is detached.
    assert!(relay.command(&["slot", "detach", "5"]).status.success());
    assert!(labels(&mut local, &peer).is_empty());
    relay.stop();
}
