//! For the tests of the examples: two nodes at one relay, each in the address book of the other.

use strowger::{
    Hop, IdentityKey, Label, LocalPortSpec, OsEntropy, Relay, RelayHandle, Scheme, Slot,
    socket::{Node, StaticTable},
};

/// The relay, and the nodes on its slots 2 and 3.
pub(crate) fn two_nodes() -> (RelayHandle, Node, Node) {
    let relay = Relay::builder()
        .workers(1)
        .local_port_spec(LocalPortSpec::new("a").slot(2))
        .local_port_spec(LocalPortSpec::new("b").slot(3))
        .start()
        .unwrap();
    let [a, b] = [(); 2].map(|()| IdentityKey::generate(&mut OsEntropy).unwrap());
    let [id_a, id_b] = [&a, &b].map(|key| key.public().peer_id());
    let node = |key, name: &str, other, from, to| {
        let scheme = &Scheme::default();
        let hop = Hop { scheme, ingress: Slot::new(from), egress: Slot::new(to) };
        let (label, _) = Label::<u64>::build(&[hop]).unwrap();
        let book = format!(
            "[[name]]\nname = \"other\"\npeer_id = \"{other}\"\nlabels = [\"{label}\"]\n\
             purposes = [\"connect\", \"accept\"]\n"
        );
        Node::builder()
            .identity(key)
            .network("example")
            .attach(relay.take_port(name).unwrap())
            .address_book(StaticTable::parse(&book).unwrap())
            .start()
            .unwrap()
    };
    let (a, b) = (node(a, "a", id_b, 2, 3), node(b, "b", id_a, 3, 2));
    (relay, a, b)
}
