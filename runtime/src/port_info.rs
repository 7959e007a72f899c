//! The ports of a relay, with their names, addresses and backends.

use std::{fmt, net::SocketAddr};

use strowger_engine::control::PortId;
use strowger_frame::Address;
use strowger_io::{UnixPort, sys::Refusal, udp::UdpReport};

use crate::{ethernet::EthernetInfo, untrusted::Untrusted};

/// One port of a relay.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PortInfo {
    /// The port's number in the switch.
    pub id: PortId,
    /// The port's name.
    pub name: String,
    /// The port's kind, with details.
    pub kind: PortKind,
    /// The listener of which this port is an alternate port; `None` for any other port.
    pub alternate_of: Option<PortId>,
}

/// The kind of a port, with details.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PortKind {
    /// A UDP listener.
    #[non_exhaustive]
    Udp {
        /// The address to which the listener is bound.
        local: SocketAddr,
        /// Whether plain links through the port are allowed.
        plain: bool,
        /// The report of each worker's socket.
        reports: Vec<UdpReport>,
        /// `Ok` if handshakes have their own socket, otherwise the reason why they do not. `None`
        /// without an identity.
        steered: Option<Result<(), Refusal>>,
    },
    /// An Ethernet interface.
    Ethernet(EthernetInfo),
    /// A port of a unix socket, for one process of this machine.
    #[non_exhaustive]
    Unix {
        /// The socket's path.
        path: String,
        /// The worker that serves the socket.
        worker: usize,
        /// Whether the port is for one of several processes on the socket, which gets a slot when
        /// it connects.
        is_shared: bool,
    },
    /// A port for code of this process.
    #[non_exhaustive]
    Local {
        /// The worker that serves the port.
        worker: usize,
    },
    /// A port that the program opened itself.
    #[non_exhaustive]
    Custom {
        /// Whether plain links through the port are allowed.
        plain: bool,
    },
}

impl PortInfo {
    pub(crate) fn new(id: PortId, name: impl Into<String>, kind: PortKind) -> Self {
        Self { id, name: name.into(), kind, alternate_of: None }
    }

    /// The port's backend: `io_uring`, `mmsg`, the mode of an Ethernet port, `unix`, `local` or
    /// `custom`. `none` if the port is not open.
    pub fn backend(&self) -> &'static str {
        match &self.kind {
            PortKind::Udp { reports, .. } => {
                reports.first().map_or("none", |report| report.backend.name())
            }
            PortKind::Ethernet(info) => info.backend(),
            PortKind::Unix { .. } => "unix",
            PortKind::Local { .. } => "local",
            PortKind::Custom { .. } => "custom",
        }
    }

    /// The address to which a UDP listener is bound; `None` for other ports.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self.kind {
            PortKind::Udp { local, .. } => Some(local),
            _ => None,
        }
    }

    /// Whether plain links to other switches through the port are allowed.
    pub fn is_plain(&self) -> bool {
        match &self.kind {
            PortKind::Udp { plain, .. } | PortKind::Custom { plain } => *plain,
            PortKind::Ethernet(info) => info.plain,
            PortKind::Unix { .. } | PortKind::Local { .. } => false,
        }
    }

    /// Whether the port can lead to other switches. A port of a unix socket or a local port cannot:
    /// it leads to one user on this machine.
    pub fn is_shared(&self) -> bool {
        !matches!(self.kind, PortKind::Unix { .. } | PortKind::Local { .. })
    }

    /// Whether sealed links to other switches may use the port.
    pub fn has_sealed_links(&self) -> bool {
        !self.is_plain() && self.is_shared()
    }

    /// Whether neighbors on this port have addresses of this kind.
    pub fn fits(&self, at: Address) -> bool {
        match &self.kind {
            PortKind::Udp { .. } => matches!(at, Address::Udp(_)),
            PortKind::Ethernet(_) => matches!(at, Address::Ether(_)),
            PortKind::Unix { .. } | PortKind::Local { .. } => at == Address::Only,
            PortKind::Custom { .. } => true,
        }
    }

    /// Warnings about what the machine refuses or limits, without duplicates.
    pub fn warnings(&self) -> Vec<String> {
        let all: Vec<String> = match &self.kind {
            PortKind::Udp { reports, steered, .. } => {
                let through_workers = |why: &Refusal| format!("workers receive handshakes: {why}");
                let refused = steered.as_ref().and_then(|steered| steered.as_ref().err());
                let of_sockets = reports.iter().flat_map(UdpReport::warnings);
                of_sockets.chain(refused.map(through_workers)).collect()
            }
            PortKind::Ethernet(info) => info.warnings(),
            PortKind::Unix { .. } => {
                let refused = UnixPort::many().err();
                let warning = refused.map(|why| format!("one system call for each packet: {why}"));
                warning.into_iter().collect()
            }
            PortKind::Local { .. } | PortKind::Custom { .. } => Vec::new(),
        };
        let mut warnings: Vec<String> = Vec::new();
        for warning in all {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        warnings
    }
}

impl fmt::Display for PortInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id: PortId(id), name, kind, .. } = self;
        match kind {
            PortKind::Unix { path, worker, .. } => {
                writeln!(f, "port {id} {name}: unix {}, on worker {worker}", Untrusted(path))?;
            }
            PortKind::Local { worker } => {
                writeln!(f, "port {id} {name}: local, on worker {worker}")?
            }
            PortKind::Custom { .. } => writeln!(f, "port {id} {name}: custom")?,
            PortKind::Udp { reports, plain, steered, .. } => {
                if let Some(report) = reports.first() {
                    // Print only the first line. The warnings of all workers follow below, without
                    // duplicates.
                    let chosen = report.to_string();
                    let chosen = chosen.lines().next().unwrap_or_default();
                    let links = if *plain { "links plain" } else { "links sealed" };
                    let apart = match steered {
                        Some(Ok(())) => ", handshakes at a socket of their own",
                        Some(Err(_)) | None => "",
                    };
                    writeln!(f, "port {id} {name}: {chosen}; {links}{apart}")?;
                }
            }
            PortKind::Ethernet(info) => {
                let links = if info.plain { "links plain" } else { "links sealed" };
                let every = info.beacon_s.map(|s| format!(", a beacon every {s} s"));
                let beacon = every.unwrap_or_default();
                for chosen in info.chosen() {
                    writeln!(f, "port {id} {name}: {chosen}; {links}{beacon}")?;
                }
            }
        }
        let mut warnings = self.warnings().into_iter();
        warnings.try_for_each(|warning| writeln!(f, "  warning: {warning}"))
    }
}
