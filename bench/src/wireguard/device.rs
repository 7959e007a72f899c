//! boringtun as deployed: its own device (epoll, sockets, TUN interface, table of allowed IPs) in a
//! private network namespace, in which the kernel routes from one tunnel into the other. boringtun
//! is complete and unmodified. The namespace ends with the last thread in it.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::{fd::IntoRawFd, unix::net::UnixStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use boringtun::{
    device::{DeviceConfig, DeviceHandle},
    noise::{Tunn, TunnResult},
    x25519::{PublicKey, StaticSecret},
};
use nix::sched::{CloneFlags, unshare};

use super::{DATAGRAM_BUFFER_BYTES, SINK, SOURCE, by_hand};
use crate::{
    Failure,
    machine::{OtherThreads, pin_this_thread},
    sealed_udp::{Ends, Forwarder, Parts, Run},
    sockets::address,
    trial::Outcome,
};

/// The name of the interface, and of the thread that creates boringtun's threads, which inherit it.
const NAME: &str = "boringtun0";

/// Longest time for a tunnel to come up, and for a device to end.
const UP_MAX: Duration = Duration::from_secs(5);

/// Runs a trial of boringtun as deployed, as a relay on core `core`, for datagrams of `size` bytes.
/// boringtun has `threads` threads, or its default number.
pub(crate) fn deployed(
    size: usize,
    core: usize,
    threads: Option<usize>,
    run: &Run<'_>,
) -> Result<Outcome, Failure> {
    // The work runs on a separate thread, because a thread cannot leave the namespace. Threads that
    // it starts are in the namespace as well.
    thread::scope(|scope| {
        let inside = thread::Builder::new().name(NAME.to_owned()).spawn_scoped(scope, || {
            own_network()?;
            let ends = Ends::new()?;
            let (device, parts) = Device::new(&ends, size, core, threads)?;
            let outcome = run(ends, parts);
            device.end();
            outcome
        });
        let inside = inside.map_err(Failure::kernel("a thread"))?;
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves this thread into a new network namespace that routes IPv4.
fn own_network() -> Result<(), Failure> {
    let refused = |why: String| {
        Failure::Refused(format!("no deployed WireGuard: {why}; it takes root and a TUN device"))
    };
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| refused(format!("unshare: {error}")))?;
    ip("link set lo up").map_err(|failure| refused(failure.to_string()))?;
    // The kernel must not send ICMP redirects to the source, although the egress interface of
    // packets is their ingress interface.
    for (name, value) in [
        ("ip_forward", "1"),
        ("conf/all/send_redirects", "0"),
        ("conf/default/send_redirects", "0"),
    ] {
        let file = format!("/proc/sys/net/ipv4/{name}");
        fs::write(&file, value).map_err(|error| refused(format!("{file}: {error}")))?;
    }
    Ok(())
}

/// Runs `ip` with these arguments, in this thread's namespace.
fn ip(words: &str) -> Result<(), Failure> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.map_err(|error| Failure::Refused(format!("ip: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Refused(format!("ip {words}: {}", stderr.trim())))
}

/// A running device.
struct Device {
    handle: DeviceHandle,
    threads: OtherThreads,
    /// The control socket. Closing it ends the device.
    control: UnixStream,
}

impl Device {
    /// Starts a device with these two ends as peers, and brings the tunnels up.
    fn new(
        ends: &Ends,
        size: usize,
        core: usize,
        threads: Option<usize>,
    ) -> Result<(Self, Parts), Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::Refused(format!("no deployed WireGuard: {error}"))
        };
        let (control, its) = UnixStream::pair().map_err(Failure::kernel("socketpair"))?;
        // The threads of the device inherit the core of their creator.
        pin_this_thread(core)?;
        let mut config = DeviceConfig { uapi_fd: its.into_raw_fd(), ..Default::default() };
        config.n_threads = threads.unwrap_or(config.n_threads);
        let handle = DeviceHandle::new(NAME, config).map_err(|error| failed(&error))?;
        let device = Self { handle, threads: OtherThreads::with_this_name()?, control };
        ip(&format!("address add 10.0.0.254/24 dev {NAME}"))?;
        ip(&format!("link set {NAME} up"))?;

        let [relay, source, sink] = [1, 2, 3].map(|number| StaticSecret::from([number; 32]));
        let mut words = format!("set=1\nprivate_key={}\n", hex(&relay.to_bytes()));
        for (secret, socket, inner) in [(&source, &ends.source, SOURCE), (&sink, &ends.sink, SINK)]
        {
            let key = hex(PublicKey::from(secret).as_bytes());
            let endpoint = address(socket)?;
            words += &format!("public_key={key}\nendpoint={endpoint}\nallowed_ip={inner}/32\n");
        }
        device.ask(&(words + "\n"))?;
        let port = device
            .ask("get=1\n\n")?
            .into_iter()
            .find_map(|line| line.strip_prefix("listen_port=").and_then(|port| port.parse().ok()));
        let port = port.ok_or(Failure::Bug("boringtun says where it listens"))?;
        let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);

        let relay = PublicKey::from(&relay);
        let source = bring_up(source, relay, &ends.source, at)?;
        let sink = bring_up(sink, relay, &ends.sink, at)?;
        let (seal, open) = by_hand(source, sink, size);
        let forwarder = Forwarder::External(device.threads.clone());
        Ok((device, Parts { at, seal, open, forwarder }))
    }

    /// Sends a request to the device's control socket; returns the lines of the reply.
    fn ask(&self, words: &str) -> Result<Vec<String>, Failure> {
        let kernel = || Failure::kernel("boringtun's control socket");
        let mut socket = &self.control;
        socket.set_read_timeout(Some(UP_MAX)).map_err(kernel())?;
        socket.write_all(words.as_bytes()).map_err(kernel())?;
        let mut answer = Vec::new();
        for line in BufReader::new(socket).lines() {
            let line = line.map_err(kernel())?;
            match line.strip_prefix("errno=") {
                Some("0") => return Ok(answer),
                Some(errno) => {
                    return Err(Failure::Refused(format!("boringtun refused its words: {errno}")));
                }
                None => answer.push(line),
            }
        }
        Err(Failure::Refused("boringtun did not answer".to_owned()))
    }

    /// Stops the device, and waits until its threads have ended, for at most `UP_MAX`, so that two
    /// devices do not share the core.
    fn end(self) {
        let Self { handle, threads, .. } = self;
        drop(handle);
        let stopped = Instant::now();
        while threads.any_alive() && stopped.elapsed() < UP_MAX {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Brings up the tunnel from one end to the relay: a handshake, then a packet that confirms it to
/// the relay.
fn bring_up(
    secret: StaticSecret,
    relay: PublicKey,
    socket: &UdpSocket,
    at: SocketAddrV4,
) -> Result<Tunn, Failure> {
    let send = Failure::kernel("a handshake");
    let mut tunnel = Tunn::new(secret, relay, None, None, 1, None);
    let (mut buffer, mut came) = ([0; DATAGRAM_BUFFER_BYTES], [0; DATAGRAM_BUFFER_BYTES]);
    let TunnResult::WriteToNetwork(initiation) =
        tunnel.format_handshake_initiation(&mut buffer, false)
    else {
        return Err(Failure::Bug("a tunnel without a session begins one"));
    };
    socket.send_to(initiation, at).map_err(&send)?;
    let began = Instant::now();
    while began.elapsed() < UP_MAX {
        let Ok(length) = socket.recv(&mut came) else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        if let TunnResult::WriteToNetwork(keepalive) =
            tunnel.decapsulate(None, &came[..length], &mut buffer)
        {
            socket.send_to(keepalive, at).map_err(&send)?;
            return Ok(tunnel);
        }
    }
    Err(Failure::Wrong("boringtun's device answered no handshake".to_owned()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
