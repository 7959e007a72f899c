//! A start without real ports: makes the switch and attaches everything to ports that do nothing.
//! It finds the errors that only the switch detects, such as conflicting slots or keys, and
//! unusable slot numbers in the state file.

use std::sync::Arc;

use strowger_engine::control::{PortId, Switch};
use strowger_frame::{
    Address, Burst, Mark, Pool, PoolSpec, Port,
    port::{AdmitError, Arm, PortTally},
};

use crate::{
    builder::RelayBuilder,
    clock::Clock,
    error::StartError,
    ethernet::EthernetInfo,
    files::Opener,
    open::{attach_requests, check_names, identify, workers},
    port_info::{PortInfo, PortKind},
    state::StateFile,
};

/// The size of the pools: no chunks, because no frame is received or sent.
const NO_MEMORY: PoolSpec = PoolSpec { trains: 0, singles: 0, huge_pages: false };

/// A port that is not opened: it receives and sends nothing.
struct Unopened(Arc<PortTally>);

impl Port for Unopened {
    fn rx_burst(&mut self, _pool: &mut Pool, _burst: &mut Burst) {}

    fn tx_burst(&mut self, _to: Mark, _frames: &mut Burst) {}

    fn flush(&mut self) {}

    fn admit(&mut self, _mark: Mark, _at: Address) -> Result<(), AdmitError> {
        Ok(())
    }

    fn forget(&mut self, _mark: Mark) {}

    fn arm(&mut self) -> Arm {
        Arm::Poll
    }

    fn frame_bytes_max(&self) -> usize {
        usize::from(u16::MAX)
    }

    fn tally(&self) -> &Arc<PortTally> {
        &self.0
    }

    fn describe(&self) -> &'static str {
        "not opened"
    }
}

impl RelayBuilder {
    /// Performs those steps of [`start`](Self::start) that neither open a port nor change a file,
    /// and returns the errors that it finds. It reads the state file without the lock, so a running
    /// relay may use the file.
    pub fn dry_run(mut self) -> Vec<StartError> {
        let mut errors = Vec::new();
        if let Err(error) = attach_all(&mut self, &mut errors) {
            errors.push(error);
        }
        errors
    }
}

fn attach_all(builder: &mut RelayBuilder, errors: &mut Vec<StartError>) -> Result<(), StartError> {
    check_names(builder)?;
    let opener = builder.opener.take().unwrap_or_else(|| Opener::new(builder.run_as.as_ref()));
    let workers = workers(builder.workers, builder.cores.as_deref())?;
    let pools = Pool::group(&NO_MEMORY, workers);
    let pools = pools.map_err(|source| StartError::Memory { bytes: 0, source })?;
    let (mut switch, _workers) = Switch::new(builder.switch, pools).map_err(StartError::Switch)?;
    let clock = Clock::start();
    identify(builder, &mut switch, clock)?;
    let mut ports = Vec::new();
    for (name, kind) in unopened(builder) {
        let queue = || Box::new(Unopened(Arc::default())) as Box<dyn Port>;
        let plugged = switch.plug_everywhere((0..workers).map(|_| queue()).collect());
        let id: PortId = plugged.map_err(|why| StartError::Port {
            kind: "any",
            name: name.clone(),
            source: why.into(),
        })?;
        ports.push(PortInfo::new(id, name, kind));
    }
    if let Some(path) = &builder.state_file {
        // After an error the slot numbers of the file are not restored. The other checks continue.
        let read = StateFile::read(path, &opener).and_then(|kept| match kept {
            Some(kept) => StateFile::restore(path, &kept, &mut switch, clock.now()),
            None => Ok(()),
        });
        errors.extend(read.err().map(StartError::State));
    }
    let (attach_requests, refused) = attach_requests(builder, &switch, &ports);
    errors.extend(refused);
    for request in attach_requests {
        errors.extend(request.attach(&mut switch, clock.now()).err());
    }
    Ok(())
}

/// The ports that a start would open, in the same order.
fn unopened(builder: &RelayBuilder) -> Vec<(String, PortKind)> {
    let mut ports = Vec::new();
    for udp in &builder.udp {
        let (local, plain) = (udp.address, udp.plain);
        let kind = PortKind::Udp { local, plain, reports: Vec::new(), steered: None };
        ports.push((udp.name.clone(), kind));
    }
    for ethernet in &builder.ethernet {
        let info = EthernetInfo::unopened(ethernet.plain, ethernet.beacon_s);
        ports.push((ethernet.name.clone(), PortKind::Ethernet(info)));
    }
    for unix in &builder.unix {
        ports.extend(unix.port_names().into_iter().map(|name| (name, unix.port_kind())));
    }
    for local in &builder.local {
        ports.push((local.name.clone(), PortKind::Local { worker: local.worker }));
    }
    for custom in &builder.custom {
        ports.push((custom.name.clone(), PortKind::Custom { plain: custom.plain }));
    }
    ports
}
