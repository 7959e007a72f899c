//! Alternate ports. An alternate port is a second set of sockets of a listener, bound to a free
//! local port. It is for peers that do not respond to the listener's first port. The slow path
//! opens alternate ports while the relay runs. When it opens one, it closes the older ones of the
//! same listener that no link uses.

use std::{collections::BTreeMap, net::SocketAddr};

use strowger_engine::control::PortId;
use strowger_io::udp::UdpSpec;

use crate::{
    limits::ALTERNATES_MAX,
    port_info::{PortInfo, PortKind},
    slow_path::SlowPath,
    udp,
};

/// The settings for the alternate ports of each listener, and the open alternate ports, oldest
/// first.
#[derive(Debug, Default)]
pub(crate) struct Alternates {
    listeners: BTreeMap<PortId, (UdpSpec, String)>,
    opened: Vec<(PortId, PortId)>,
}

impl Alternates {
    /// Prepares alternate ports for these listeners, which have sealed links.
    pub(crate) fn new(listeners: impl Iterator<Item = (PortId, UdpSpec, String)>) -> Self {
        let listeners = listeners.map(|(id, mut spec, name)| {
            spec.bind.set_port(0);
            // Do not use io_uring: its posted buffers would occupy chunks for packets that may
            // never arrive.
            spec.backend = strowger_io::udp::BackendChoice::Mmsg;
            (id, (spec, name))
        });
        Self { listeners: listeners.collect(), opened: Vec::new() }
    }
}

impl SlowPath {
    /// Opens an alternate port for a listener, and uses it for handshakes. Returns `None` if the
    /// listener already has the maximum number of alternate ports, or has no sealed links.
    ///
    /// # Errors
    /// The cause in one line.
    pub(crate) fn open_alternate(&mut self, port: PortId) -> Result<Option<SocketAddr>, String> {
        let Some((spec, name)) = self.alternates.listeners.get(&port) else { return Ok(None) };
        let of_port = self.alternates.opened.iter().filter(|(of, _)| *of == port).count();
        if of_port >= ALTERNATES_MAX {
            return Ok(None);
        }
        let opening = udp::open_alternate(spec, self.threads.len())?;
        let udp::OpenedPort { queues, reports, handshake_socket, steered } = opening;
        let local = reports.first().map_or(spec.bind, |report| report.local);
        let name = format!("{name} at port {}", local.port());
        let switch = &mut self.switch;
        let id = switch.plug_everywhere(queues).map_err(|error| error.to_string())?;
        if let Some(handshake_socket) = handshake_socket {
            switch
                .open_handshake_socket(id, handshake_socket)
                .map_err(|error| error.to_string())?;
        }
        switch.accept_unknown(id, true);
        switch.set_alternate(port, id);
        let kind = PortKind::Udp { local, plain: false, reports, steered };
        self.ports.push(PortInfo { alternate_of: Some(port), ..PortInfo::new(id, name, kind) });
        // Close the older alternate ports of the listener that no link uses.
        for (of, former) in &self.alternates.opened {
            if *of == port {
                let _ = self.switch.unplug(*former);
            }
        }
        self.alternates.opened.push((port, id));
        Ok(Some(local))
    }

    /// Removes an alternate port that the switch has unplugged.
    pub(crate) fn forget_alternate(&mut self, id: PortId) {
        self.alternates.opened.retain(|(_, alternate)| *alternate != id);
        self.ports.retain(|port| port.id != id || port.alternate_of.is_none());
    }
}
