//! A start without ports: the switch of a configuration is made, and everything is attached to ports that do
//! nothing. So `strowger config check` finds what only the switch knows: slots and keys that clash, numbers that a
//! state file keeps. It opens no socket and no file.

use std::sync::Arc;

use strowger_crypto::{IdentityKey, LocalIdentity, OsEntropy, Psk};
use strowger_engine::control::{PortId, Snapshot, Switch};
use strowger_frame::{
    Address, Burst, Mark, Pool, PoolSpec, Port,
    port::{AdmitError, Arm, PortTally},
};
use strowger_runtime::clock::Clock;

use super::{introduce, wishes};
use crate::{
    config::Config,
    exit::{Exit, Failure},
    state::StateFile,
};

/// Nothing is received or sent, so nothing is needed.
const NO_MEMORY: PoolSpec = PoolSpec { trains: 0, singles: 0, huge_pages: false };

/// Stands for a port that is not opened. It has no neighbours and no frames.
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

/// Makes the switch and attaches everything. `identity` is the node's key, or another one in its place if it
/// cannot be read; `kept` is what the state file says. All that goes wrong is returned.
pub(crate) fn rehearse(
    config: &Config,
    workers: usize,
    identity: Option<&IdentityKey>,
    kept: Option<&Snapshot>,
) -> Vec<Failure> {
    let mut faults = Vec::new();
    if let Err(fault) = attach_all(config, workers, identity, kept, &mut faults) {
        faults.push(fault);
    }
    faults
}

fn attach_all(
    config: &Config,
    workers: usize,
    identity: Option<&IdentityKey>,
    kept: Option<&Snapshot>,
    faults: &mut Vec<Failure>,
) -> Result<(), Failure> {
    let refused = |why: String| Failure::new(Exit::Refused, why);
    let pools = Pool::many(&NO_MEMORY, workers).map_err(|why| refused(why.to_string()))?;
    let (mut switch, _workers) = Switch::new(config.switch, pools)
        .map_err(|error| Failure::new(Exit::Usage, format!("the configuration: {error}")))?;
    let clock = Clock::start();
    if let Some(written) = &config.identity {
        let local = match identity {
            Some(key) => LocalIdentity::new(key, written.network),
            None => {
                let key = IdentityKey::generate(&mut OsEntropy);
                LocalIdentity::new(
                    &key.map_err(|why| refused(format!("no key: {why}")))?,
                    written.network,
                )
            }
        };
        introduce(config, local, &mut switch, clock)?;
    }
    let mut ids: Vec<PortId> = Vec::new();
    for _ in 0..config.udp.len() + config.ethernet.len() + config.unix.len() {
        let unopened = || Box::new(Unopened(Arc::default())) as Box<dyn Port>;
        let id = switch.plug_everywhere((0..workers).map(|_| unopened()).collect());
        ids.push(id.map_err(|why| refused(why.to_string()))?);
    }
    if let (Some(path), Some(kept)) = (&config.state, kept) {
        // What is kept is not attached then; all else is looked at.
        let restored = StateFile::restore(path, kept, &mut switch, clock.now());
        faults.extend(restored.err());
    }
    for wish in wishes(config, &switch, &ids, |_| Ok(Psk::NONE))? {
        faults.extend(wish.attach(&mut switch, clock.now()).err());
    }
    Ok(())
}
