//! Strowger between two sealed links over UDP: one worker, and a slow path that runs on the thread
//! that polls it. The ends of the links use `strowger-crypto` directly, without a switch.

use std::{
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use strowger_crypto::{
    LocalIdentity, Nanos, Openers, OsEntropy, Psk, Sealed, Sealer,
    aead::Provider,
    handshake::{Admission, CookieChecker, Load, LocalParams, Offer, TimestampGuard, ik},
};
use strowger_engine::{
    Now,
    control::{
        HandshakeSocket, Switch, SwitchConfig,
        peering::{Liveness, PeerSpec},
    },
    worker::Worker,
};
use strowger_frame::{Address, Pool, PoolSpec, tally::Counter};
use strowger_io::{
    Doorbell,
    udp::{self, UdpSpec},
};
use strowger_runtime::{IdlePolicy, WorkerLoop, clock::Clock};
use strowger_wire::Slot;
use strowger_wire::{
    hello::{Mtu, Timestamp},
    limits::TAG_BYTES,
    link_header::{Kind, LinkHeader, SessionIndex},
};

use crate::{
    Failure, packet,
    sealed_chain::{Mode, local, peering},
    sealed_udp::{Ends, FORWARDER_BUFFER_BYTES, Open, Seal, anywhere},
};

/// The numbers of the identities.
pub(crate) const RELAY: u8 = 10;
const SOURCE: u8 = 11;
const SINK: u8 = 12;

/// The slots of source and sink.
const SLOTS: (u32, u32) = (2, 3);

/// The number of chunks in the worker's pool, as in [`relay`](crate::relay).
const CHUNKS: u32 = 256;

/// The MTU of a link of the benchmark.
const MTU: u16 = 1_452;

/// Longest time that links may take to come up.
const UP_MAX: Duration = Duration::from_secs(5);

/// A relay with two sealed links that are up, and the closures that seal and open packets at the
/// far ends. The worker is for the forwarder's thread, and the slow path is for another thread.
pub(crate) struct SealedRelay {
    pub(crate) worker: WorkerLoop,
    pub(crate) slow_path: SlowPath,
    pub(crate) at: SocketAddrV4,
    pub(crate) seal: Seal,
    pub(crate) open: Open,
}

/// The switch, with a handshake socket if handshakes are steered.
pub(crate) struct SlowPath {
    switch: Switch,
}

impl SlowPath {
    /// Polls once.
    pub(crate) fn poll(&mut self, now: Now) {
        self.switch.poll(now);
    }

    /// Handshake messages that arrived at the handshake socket, including those dropped by the
    /// kernel; `None` without such a socket.
    pub(crate) fn handshakes_received(&self) -> Option<u64> {
        let ports = self.switch.ports();
        let handshake_socket =
            ports.iter().flat_map(|port| &port.queues).find(|queue| queue.worker.is_none());
        handshake_socket
            .map(|handshake_socket| handshake_socket.frames_in + handshake_socket.kernel_drops)
    }
}

/// Returns whether a packet has the right content.
pub(crate) type Check = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// The content of the packets of a trial.
pub(crate) struct Inside {
    /// Writes a packet with its link header, and leaves room for the tag of the link.
    pub(crate) write: Seal,
    /// Returns whether a packet that the relay forwarded is one that `write` wrote. The packet is
    /// passed without link header and tag.
    pub(crate) is_right: Check,
}

impl Inside {
    /// Bare packets.
    fn bare(size: usize) -> Result<Self, Failure> {
        let label = packet::label(SwitchConfig::default().scheme(), &[SLOTS])?;
        let template = packet::packet(size - TAG_BYTES, label, 7);
        let write = move |bytes: &mut [u8]| bytes[..template.len()].copy_from_slice(&template);
        let is_right = |packet: &[u8]| packet.last() == Some(&7);
        Ok(Self { write: Box::new(write), is_right: Box::new(is_right) })
    }
}

impl SealedRelay {
    /// Returns a relay whose links to these ends are up, and bare packets of this length.
    pub(crate) fn new(
        ends: &Ends,
        size: usize,
        mode: Mode,
        steered: bool,
    ) -> Result<Self, Failure> {
        Self::with_inside(ends, mode, steered, Inside::bare(size)?)
    }

    /// As [`new`](Self::new), with other packets from slot 2 to slot 3.
    pub(crate) fn with_inside(
        ends: &Ends,
        mode: Mode,
        steered: bool,
        inside: Inside,
    ) -> Result<Self, Failure> {
        let mut spec = UdpSpec::new(anywhere());
        spec.socket_buffer_bytes = FORWARDER_BUFFER_BYTES;
        spec.steering_refused = !steered;
        let mut opened = udp::open_steered(&spec, 1)?;
        let first = opened.workers.pop().ok_or(Failure::Bug("one worker, one socket"))?;
        let SocketAddr::V4(at) = first.local_addr() else {
            return Err(Failure::Bug("relays are bound to 127.0.0.1"));
        };
        let pool = |trains, singles| {
            let spec = PoolSpec { trains, singles, huge_pages: trains > 0 };
            Pool::new(&spec).map_err(Failure::kernel("memory"))
        };
        let config = SwitchConfig::default();
        let (mut switch, mut workers) = Switch::new(config, vec![pool(CHUNKS, 64)?])?;
        let worker = workers.pop().ok_or(Failure::Bug("one pool, one worker"))?;
        switch.set_identity(peering(RELAY)?, Now(1))?;
        let port = switch.plug_at(0, first.boxed().0);
        let port = port.map_err(|_| Failure::Bug("the first port of many"))?;
        switch.accept_unknown(port, true);
        if let Ok(slow) = opened.slow {
            let handshake_socket =
                HandshakeSocket { port: slow.boxed().0, pool: pool(0, 256)?, worker_of: |_, _| 0 };
            let opened = switch.open_handshake_socket(port, handshake_socket);
            opened.map_err(|_| Failure::Bug("the port is plugged in"))?;
        }
        for (number, socket, slot) in [(SOURCE, &ends.source, SLOTS.0), (SINK, &ends.sink, SLOTS.1)]
        {
            let mut spec = PeerSpec::new("end", *local(number)?.static_public(), port);
            let at = socket.local_addr().map_err(Failure::kernel("getsockname"))?;
            spec = spec.with_address(Address::Udp(at));
            spec = spec.with_slot(Slot::new(slot));
            spec = spec.with_seal(mode.wish());
            // The liveness interval is longer than any run, because the ends send no keepalives.
            spec = spec.with_liveness(Liveness::new(std::time::Duration::from_nanos(u64::MAX / 4)));
            switch.add_peer(spec, Now(1))?;
        }
        let slow_path = SlowPath { switch };
        let mut source = End::new(SOURCE, mode)?;
        let mut sink = End::new(SINK, mode)?;
        let mut parts = (worker, slow_path);
        come_up(&mut parts, [(&ends.source, &mut source), (&ends.sink, &mut sink)])?;
        let (worker, slow_path) = parts;
        let doorbell = Doorbell::new().map_err(Failure::kernel("a doorbell"))?;
        let clock = Clock::starting_at(COMING_UP);
        let worker = WorkerLoop::new(worker, doorbell, clock, IdlePolicy::Spin);

        let (mut sealer, _) = source.keys.ok_or(Failure::Bug("the source has keys"))?;
        let (_, mut openers) = sink.keys.ok_or(Failure::Bug("the sink has keys"))?;
        let Inside { mut write, mut is_right } = inside;
        let seal: Seal = Box::new(move |bytes: &mut [u8]| {
            write(bytes);
            let sealed = sealer.seal(Nanos(1), Sealed::Data, bytes);
            sealed.expect("young keys, and buffer for a tag");
        });
        let open: Open = Box::new(move |bytes: &mut [u8]| {
            let opened = openers.open(Nanos(1), bytes);
            opened.is_ok_and(|opened| is_right(opened.body()))
        });
        Ok(Self { worker, slow_path, at, seal, open })
    }
}

/// Forwards until `stopped`, without blocking.
pub(crate) fn forward(worker: &mut WorkerLoop, idle_polls: &Counter, stopped: &dyn Fn() -> bool) {
    worker.run(|switched| {
        if switched == 0 {
            idle_polls.add(1);
        }
        stopped()
    });
}

/// The virtual time while links come up. Later, the clock continues from this time.
pub(crate) const COMING_UP: Now = Now(1_000_000);

fn come_up(
    (worker, slow_path): &mut (Worker, SlowPath),
    mut ends: [(&UdpSocket, &mut End); 2],
) -> Result<(), Failure> {
    let started = Instant::now();
    while started.elapsed() < UP_MAX {
        worker.poll(COMING_UP);
        slow_path.poll(COMING_UP);
        for (socket, end) in &mut ends {
            end.answer(socket)?;
        }
        let opened = ends.iter().all(|(_, end)| end.opened);
        let up = slow_path.switch.peers().iter().all(|peer| peer.is_up());
        if opened && up && slow_path.switch.is_settled() {
            return Ok(());
        }
        thread::sleep(Duration::from_micros(200));
    }
    Err(Failure::Wrong(format!(
        "no sealed link came up over UDP: {:?}",
        slow_path.switch.balance()
    )))
}

/// One end of a link, without a switch.
struct End {
    local: LocalIdentity,
    checker: CookieChecker,
    offer: Offer,
    keys: Option<(Sealer, Openers)>,
    /// Whether a packet of the relay has proved that the relay has the keys.
    opened: bool,
}

impl End {
    fn new(number: u8, mode: Mode) -> Result<Self, Failure> {
        let local = local(number)?;
        let checker = CookieChecker::new(&local, Nanos::ZERO, &mut OsEntropy);
        let checker = checker.map_err(|_| Failure::Bug("the system has randomness"))?;
        let mtu = Mtu::new(MTU).ok_or(Failure::Bug("an MTU as links have it"))?;
        let offer = Offer { seal: mode.wish(), mtu, ..Offer::default() };
        Ok(Self { local, checker, offer, keys: None, opened: false })
    }

    /// Answers the initiations that have arrived at this end's socket, and opens the other packets.
    fn answer(&mut self, socket: &UdpSocket) -> Result<(), Failure> {
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let message = &mut buffer[..length];
            let kind = LinkHeader::parse(message).map(|header| header.kind);
            if kind == Ok(Kind::Initiation) {
                let response = self.respond(message)?;
                socket.send_to(&response, from).map_err(Failure::kernel("a response"))?;
            } else if let Some((_, openers)) = &mut self.keys {
                self.opened |= openers.open(Nanos(1), message).is_ok();
            }
        }
        Ok(())
    }

    fn respond(&mut self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let refused = || Failure::Bug("our own relay's handshake is an honest one");
        let index = SessionIndex::new(1).ok_or_else(refused)?;
        let ours = LocalParams {
            local: &self.local,
            offer: &self.offer,
            index,
            timestamp: Timestamp::default(),
        };
        let Ok(Admission::Admitted(admitted)) = self.checker.admit(b"", message, Load::Normal)
        else {
            return Err(refused());
        };
        let initiation = ik::read(&self.local, &admitted).map_err(|_| refused())?;
        let guard = &mut TimestampGuard::default();
        let accepted = initiation.accept(&ours, &Psk::NONE, guard, &mut OsEntropy);
        let (established, response) = accepted.map_err(|_| refused())?;
        let mut transport = established.into_transport(Nanos::ZERO, Provider::DEFAULT);
        self.keys = Some((transport.sealers.swap_remove(0), transport.openers));
        Ok(response)
    }
}
