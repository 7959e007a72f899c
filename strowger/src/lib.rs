//! A relay for source-routed overlay networks that runs inside your program.
//!
//! A packet carries its path as a *label*, into which slot numbers are packed. Each relay removes
//! one slot number from the label, writes a slot number of the return path in its place, and
//! forwards the packet to the neighbor at the removed slot. Relays have no routing tables. The
//! links between them are sealed (Noise IKpsk2, ChaCha20-Poly1305 or AES-GCM), unless the program
//! chooses plain ones.
//!
//! # Overview
//!
//! | step | type |
//! |---|---|
//! | describe the relay: identity, ports, peers | [`Relay::builder`], [`RelayBuilder`] |
//! | ports to other machines | [`UdpListener`], [`EthernetInterface`] |
//! | ports to programs | [`LocalPortSpec`] for this one, [`UnixSocket`] for others, [`CustomPort`] for your own |
//! | neighbors | [`Peer`] over a sealed link, [`Neighbor`] over a plain one |
//! | run it | [`RelayBuilder::start`], [`RelayHandle`] |
//! | send and receive | [`LocalPort`], [`LocalSender`], [`LocalReceiver`], [`Packet`] |
//! | watch it | [`Events`], [`Stats`] |
//! | change it | [`RelayHandle::attach`], [`detach`](RelayHandle::detach), [`renumber`](RelayHandle::renumber) |
//! | end it | [`RelayHandle::shutdown`], or drop every handle |
//! | exchange messages with peers by PeerId, sealed from end to end | [`socket`] |
//!
//! A relay runs one thread for each worker, and one thread for the slow path. Workers forward
//! packets. The slow path handles handshakes, keys, liveness and changes. The library needs Linux
//! but no async runtime: every `async` method is a plain future.
//!
//! # Start a relay
//!
//! ```
//! use strowger::{IdentityKey, OsEntropy, Peer, Relay};
//!
//! # let alice = IdentityKey::generate(&mut OsEntropy)?.public().peer_id();
//! let key = IdentityKey::generate(&mut OsEntropy)?; // or strowger::key_file("relay.key")?
//! let relay = Relay::builder()
//!     .identity(key)
//!     .network("example")
//!     .workers(1)
//!     .udp("127.0.0.1:0".parse()?)
//!     .peer(Peer::new(alice).name("alice").at("192.0.2.1:4737"))
//!     .local_port("app")
//!     .start()?;
//! println!("listening at {:?}", relay.ports()?[0].local_address());
//! relay.shutdown()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Compute a label
//!
//! A label is built from the ingress slot and the egress slot at each switch. Here the packet
//! enters the first switch at slot 4 and leaves it at slot 3. It enters the second switch at slot
//! 5, and its path ends there at slot 6:
//!
//! ```
//! use strowger::{Hop, Label, Scheme, Slot};
//!
//! let scheme = &Scheme::default();
//! let hop = |ingress, egress| Hop { scheme, ingress: Slot::new(ingress), egress: Slot::new(egress) };
//! let (label, return_path) = Label::<u64>::build(&[hop(4, 3), hop(5, 6)])?;
//! let same: Label = label.to_string().parse()?; // labels travel as text, too
//! assert_eq!(same, label);
//! # let _ = return_path;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Send and receive
//!
//! This example uses two local ports of one relay. Across several relays only the label differs:
//!
//! ```
//! use strowger::{Hop, Label, LocalPortSpec, Relay, Scheme, Slot};
//!
//! let relay = Relay::builder()
//!     .workers(1)
//!     .local_port_spec(LocalPortSpec::new("one").slot(2))
//!     .local_port_spec(LocalPortSpec::new("two").slot(3))
//!     .start()?;
//! let (mut one_tx, mut one_rx) = relay.take_port("one")?.split();
//! let (mut two_tx, mut two_rx) = relay.take_port("two")?.split();
//! let hop = Hop { scheme: &Scheme::default(), ingress: Slot::new(2), egress: Slot::new(3) };
//! let (label, _) = Label::<u64>::build(&[hop])?;
//!
//! one_tx.send_to(label, b"hello")?;
//! let packet = two_rx.recv()?; // blocks; recv_timeout, try_recv, poll_recv and recv_async are the other forms
//! assert_eq!((packet.payload(), packet.ingress()), (&b"hello"[..], 2));
//! two_tx.reply(&packet, b"hello yourself")?;
//! assert_eq!(one_rx.recv()?.payload(), b"hello yourself");
//! # relay.shutdown()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Send and receive bursts
//!
//! ```
//! # use strowger::{Hop, Label, LocalPortSpec, Relay, Scheme, Slot};
//! # let relay = Relay::builder()
//! #     .workers(1)
//! #     .local_port_spec(LocalPortSpec::new("one").slot(2))
//! #     .local_port_spec(LocalPortSpec::new("two").slot(3))
//! #     .start()?;
//! # let (mut sender, _) = relay.take_port("one")?.split();
//! # let (_sender, mut receiver) = relay.take_port("two")?.split();
//! # let hop = Hop { scheme: &Scheme::default(), ingress: Slot::new(2), egress: Slot::new(3) };
//! # let (label, _) = Label::<u64>::build(&[hop])?;
//! use strowger::{Burst, Packet};
//!
//! let mut burst = Burst::new();
//! for number in 0..16_u8 {
//!     let mut buffer = sender.buffer(label, 1)?; // in the port's memory: nothing is copied
//!     buffer.payload_mut()[0] = number;
//!     burst.push(buffer.into_frame());
//! }
//! sender.send_burst(&mut burst)?;
//!
//! let mut received = 0;
//! while received < 16 {
//!     let mut burst = Burst::new();
//!     receiver.recv_burst_wait(&mut burst, None)?;
//!     for packet in burst.drain(..).filter_map(Packet::from_frame) {
//!         assert_eq!(packet.payload(), [received]);
//!         received += 1;
//!     }
//! }
//! # relay.shutdown()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Watch a relay
//!
//! ```
//! # use strowger::{EventKind, Relay};
//! # let relay = Relay::builder().workers(1).local_port("app").start()?;
//! let mut events = relay.events();
//! while let Some(event) = events.try_recv() { // or recv, recv_timeout, poll_recv, next().await
//!     match event.kind {
//!         EventKind::Missed { events } => println!("{events} events came too fast"),
//!         kind => println!("{} {}", event.name, kind.name()),
//!     }
//! }
//! let stats = relay.stats()?;
//! for port in &stats.ports {
//!     let sum: u64 = port.port.queues.iter().map(|queue| queue.frames_in).sum();
//!     println!("{}: {sum} frames in", port.name);
//! }
//! for (reason, count) in stats.totals.by_reason() {
//!     println!("{count} frames discarded: {reason:?}");
//! }
//! # relay.shutdown()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Change a running relay
//!
//! ```
//! # use strowger::{LocalPortSpec, Relay, Slot};
//! # let relay = Relay::builder().workers(1).local_port("app").start()?;
//! let port = relay.attach_local(LocalPortSpec::new("later").slot(7))?;
//! let to = relay.renumber(7, Some(Slot::new(9)))?; // slot 7 leads to it for a while
//! relay.detach(to)?;
//! # drop(port);
//! # relay.shutdown()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Keep the identity in a file
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("relay.key");
//! let key = strowger::key_file(&path)?; // makes the file, with mode 0600, if it does not exist
//! println!("peers add this relay as {}", key.public().peer_id());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Ping along a label
//!
//! [`RelayHandle::call`] runs code on the slow path's thread. The code can use the [`switch`] for
//! pings, traces, views of slots and peers, and changes of the scheme. Replies arrive as events.
//! The label `0000.0000.0000.0001` leads to this relay itself:
//!
//! ```
//! use strowger::{EventKind, Label, Relay, switch};
//!
//! let relay = Relay::builder().workers(1).local_port("app").start()?;
//! let mut events = relay.events();
//! let label: Label = "0000.0000.0000.0001".parse()?;
//! let request = switch::ControlRequest::Ping { payload_bytes: 56 };
//! relay.call(move |slow_path| {
//!     let now = slow_path.now();
//!     slow_path.switch().send_request(label, request, now)
//! })??;
//! let reply = loop {
//!     let event = events.recv().ok_or("the relay has ended")?;
//!     if let EventKind::Switch(switch::Event::Replied(_, reply)) = event.kind {
//!         break reply;
//!     }
//! };
//! assert!(matches!(reply, switch::ControlReply::Pong { .. }));
//! # relay.shutdown()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Exchange messages with a peer
//!
//! A [`Node`](socket::Node) is an identity on a slot. Its sockets exchange messages with peers by
//! PeerId and protocol name, sealed from end to end: relays on the path read neither. Here both
//! nodes are in this program; [`Unix`](socket::Unix) attaches a node to a relay in another process:
//!
//! ```
//! use std::time::Duration;
//!
//! use strowger::{
//!     Hop, IdentityKey, Label, LocalPortSpec, OsEntropy, Relay, Scheme, Slot,
//!     socket::{Anyone, Destination, Node},
//! };
//!
//! let relay = Relay::builder()
//!     .workers(1)
//!     .local_port_spec(LocalPortSpec::new("ours").slot(2))
//!     .local_port_spec(LocalPortSpec::new("theirs").slot(3))
//!     .start()?;
//! let node = |port| -> Result<Node, Box<dyn std::error::Error>> {
//!     let key = IdentityKey::generate(&mut OsEntropy)?;
//!     Ok(Node::builder().identity(key).policy(Anyone).attach(relay.take_port(port)?).start()?)
//! };
//! let (ours, theirs) = (node("ours")?, node("theirs")?);
//! let listener = theirs.listen("/greeting/1")?;
//!
//! let hop = Hop { scheme: &Scheme::default(), ingress: Slot::new(2), egress: Slot::new(3) };
//! let (label, _) = Label::<u64>::build(&[hop])?; // an address book finds labels by PeerId
//! let to = Destination::from(theirs.peer_id()).label(label.into());
//! let mut socket = ours.connect(to, "/greeting/1").wait()?;
//! socket.send_wait(b"hello", Duration::from_secs(1))?;
//! let mut accepted = listener.accept_wait()?;
//! assert_eq!(&*accepted.recv_wait()?, b"hello");
//! accepted.send_wait(b"hello yourself", Duration::from_secs(1))?;
//! assert_eq!(&*socket.recv_wait()?, b"hello yourself");
//! # relay.shutdown()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The module [`socket`] lists the types, and the guide is `docs/sockets.md`.
//!
//! # Errors
//!
//! Each error says what failed, on which object, why, and what to do. If another error caused it,
//! `source()` returns that error.
//!
//! | step | error | frequent causes |
//! |---|---|---|
//! | [`RelayBuilder::start`] | [`StartError`] | an address in use, a peer without [`identity`](RelayBuilder::identity), a name used twice |
//! | [`key_file`] | [`KeyError`] | other users can read the file |
//! | [`RelayHandle::attach`] | [`NeighborError`] | an address that no peer can have, a name in use |
//! | [`RelayHandle::take_port`] | [`NoLocalPort`] | another name, or the port was taken already |
//! | [`LocalSender::send_to`] | [`PacketError`] | the relay has ended, or all buffers are in flight |
//! | [`LocalReceiver::recv`] | [`PortClosed`] | the relay has ended, or the slot was detached |
//! | [`RelayHandle::renumber`], [`detach`](RelayHandle::detach) | [`SlotError`] | the slot has no user, or the number is in quarantine |
//! | [`NodeBuilder::start`](socket::NodeBuilder::start) | [`StartError`](socket::StartError) | no relay at the unix port, or no free slot there |
//! | [`Node::connect`](socket::Node::connect) | [`ConnectError`](socket::ConnectError) | no label for the peer, or the peer does not allow this node |
//! | [`RelayHandle::shutdown`] | [`ShutdownError`] | a bug in Strowger; please report it |
//!
//! The guide `docs/embedding.md` lists the remedies, and describes the threads, memory and limits
//! of a relay.

#[doc(inline)]
pub use strowger_runtime::{
    Account, Address, Burst, CallError, CustomPort, EthernetInfo, EthernetInterface, Event,
    EventKind, Events, FileUse, Hop, Identity, IdentityKey, IdlePolicy, KeyError, Label,
    LabelError, LinkStats, Liveness, LocalPort, LocalPortSpec, LocalReceiver, LocalSender, Memory,
    MemoryUse, Need, Neighbor, NeighborAddress, NeighborError, NoLocalPort, OpenRelay, OsEntropy,
    Packet, PacketError, Peer, PeerId, PeerKey, PortClosed, PortInfo, PortKind, PortStats,
    Provider, Psk, Queues, Relay, RelayBuilder, RelayHandle, Rights, Scheme, SealWish,
    ShutdownError, Slot, SlotError, SlowPath, StartError, StateError, StaticPublic, Stats, Summary,
    SwitchConfig, TxBuffer, UdpListener, UnixSocket, UnknownPeerPolicy, key_file,
};

/// The switch inside a relay: [`SlowPath::switch`], and the types of events and counters.
pub mod switch {
    pub use strowger_engine::{
        Now,
        control::{
            Attach, AttachError, Balance, ConfigError, DetachError, Event, GrowError, NotFree,
            PlugError, PortId, PortView, QueueView, RenumberError, RestoreError, SlotState,
            SlotView, Snapshot, Switch,
            messages::{
                Complaint, ControlReply, ControlRequest, HopReport, RequestError, RequestId,
            },
            peering::{Agreed, BeaconSpec, DownReason, LinkState, PeerError, PeerSpec, PeerView},
        },
        discard::Discard,
        link::Behind,
    };
}

/// Sockets: messages between two PeerIds, by protocol name, sealed from end to end.
///
/// A [`Node`](socket::Node) is an identity on a slot: on a [`LocalPort`] of a relay in this
/// program, or on a unix port of a relay in another program. Here two nodes are on one relay:
///
/// ```
/// use std::time::Duration;
/// use strowger::{Hop, IdentityKey, Label, LocalPortSpec, OsEntropy, Relay, Scheme, Slot};
/// use strowger::socket::{Anyone, Destination, Node};
///
/// let relay = Relay::builder()
///     .workers(1)
///     .local_port_spec(LocalPortSpec::new("one").slot(2))
///     .local_port_spec(LocalPortSpec::new("two").slot(3))
///     .start()?;
/// let key = IdentityKey::generate(&mut OsEntropy)?;
/// let one = Node::builder().identity(key).attach(relay.take_port("one")?).start()?;
/// let key = IdentityKey::generate(&mut OsEntropy)?;
/// let two = Node::builder()
///     .identity(key)
///     .attach(relay.take_port("two")?)
///     .policy(Anyone) // or address_book: the peers of a file
///     .start()?;
/// let listener = two.listen("/echo/1")?;
///
/// // An address book says which label leads to a peer. Here the program says it.
/// let hop = Hop { scheme: &Scheme::default(), ingress: Slot::new(2), egress: Slot::new(3) };
/// let (label, _) = Label::<u64>::build(&[hop])?;
/// let to = Destination::from(two.peer_id()).label(label.into());
///
/// let second = Duration::from_secs(1);
/// let mut socket = one.connect(to, ["/echo/2", "/echo/1"]).wait()?; // or .await
/// socket.send_wait(b"hello", second)?; // or try_send, poll_send, send(..).await
/// let mut accepted = listener.accept_wait()?;
/// let message = accepted.recv_wait()?; // or try_recv, recv_timeout, poll_recv, recv().await
/// assert_eq!((&*message, message.from()), (&b"hello"[..], one.peer_id()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The guide is `docs/sockets.md`.
pub mod socket {
    pub use strowger_routing::{AddressBook, PeerAddress, PeerRouting, StaticTable};
    #[doc(inline)]
    pub use strowger_socket::{
        Anyone, Attachment, BadProtocolName, CloseReason, ConnectError, Connecting,
        ConnectionHandle, ConnectionInfo, Consent, Counters, DatagramSocket, Destination, Driver,
        Events, Goodbye, GoodbyeCode, InProcess, IntoProtocolNames, ListenError, ListenOptions,
        Listener, Message, Messages, NoConnection, Node, NodeBuilder, NodeClosed, NodeEvent, Only,
        PathInfo, PathState, PingId, Policy, ProtocolNames, QueueCounters, ReadMsg, ReadOne,
        RecvError, Reply, SendError, SlotFacts, Socket, SocketCounters, SocketReceiver,
        SocketSender, StartError, TrySendError, TxBuffer, TxBuffers, Unix, WriteMsg, WriteOne,
        connection, limits,
    };
}

/// Frames, their memory, and the trait of ports, for a [`CustomPort`] and for bursts.
pub mod frame {
    pub use strowger_frame::{
        Frame, Mark, Pool, PoolSpec, Port, Train,
        map::Backing,
        pool::{ChunkClass, PoolTally},
        port,
        tally::Counter,
    };
}

/// The ports of a relay: settings, reports and errors.
pub mod ports {
    pub use strowger_io::{
        EndpointSpec, MemoryPort,
        endpoint::{EndpointReceiver, EndpointSender, Gone, SendError},
        memory::wire,
        sys::{CallError, Errno, Refusal},
        unix::{Client, ClientError, Received},
    };
    /// Settings, reports and errors of UDP ports.
    pub mod udp {
        pub use strowger_io::udp::{
            Backend, BackendChoice, BufferBytes, OpenedUdpPort, UdpOpenError, UdpPort, UdpReport,
            UdpSpec, open,
        };
    }
    /// Settings and reports of Ethernet ports.
    pub mod ethernet {
        pub use strowger_io::xdp::{EtherReport, Group, ModeChoice, RefusedMode, RxMode, XdpSpec};
    }
}

/// Keys, their errors, and sources of random bytes.
pub mod crypto {
    pub use strowger_crypto::{
        Entropy, EntropyFailed, IdentityProof, IdentityRefused, KeyFileError, NameError, SealMode,
        Secret, SeededEntropy, StaticKey,
    };
}

/// Labels of all widths, and the schemes that encode slots in them.
pub mod label {
    pub use strowger_wire::{
        Director, Label, Register, Scheme, Slot, U256, director::DirectorError, label::*, scheme::*,
    };
}

/// Safe access to files, for programs that root starts: see [`RelayBuilder::opener`].
pub mod files {
    pub use strowger_io::sys::folder::{FileInfo, Folder};
    pub use strowger_runtime::files::Opener;
}

/// The code of the guide, which `cargo test` compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/sockets.md")]
mod guide_of_sockets {}
