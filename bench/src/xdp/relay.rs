//! Ours under test over Ethernet: a switch with one worker and two ports, run as `strowger relay`
//! runs it: it looks a little while for frames, then blocks. It never looks at what passes.

use std::time::{Duration, Instant};

use strowger_engine::{
    Now,
    control::{Attach, Balance, PortId, Switch, SwitchConfig},
    link::Behind,
    worker::Worker,
};
use strowger_frame::{Address, Pool, PoolSpec};
use strowger_io::{
    Waiter,
    xdp::{Arena, Choice, Report, XdpSpec, limits, open},
};
use strowger_wire::Label;

use super::{
    run::AT_REST_MAX,
    wires::{Mac, Wires, mac},
};
use crate::{Failure, packet};

/// Looks in vain before it blocks: as node's `adaptive` does.
const LOOKS_MAX: u32 = 200;

/// The longest that it blocks, so that it hears when it is to stop.
const BLOCK_MAX: Duration = Duration::from_millis(5);

/// A switch, its only worker and its two ports.
pub(crate) struct EtherRelay {
    switch: Switch,
    worker: Worker,
    started: Instant,
    pub(crate) label: Label,
    pub(crate) report: Report,
}

impl EtherRelay {
    /// Between the two wires, by `backend`.
    ///
    /// # Errors
    /// What the kernel or the switch refused.
    pub(crate) fn new(wires: &Wires, backend: Choice) -> Result<Self, Failure> {
        let port_chunks = limits::LENT_FRAMES + limits::OWN_CHUNKS + limits::SENDS_WAITING;
        let pool = PoolSpec { trains: 64, singles: 2 * port_chunks + 256, huge_pages: true };
        let mut pool = Pool::new(&pool).map_err(Failure::kernel("memory"))?;
        let mut arena = Arena::of(&pool);
        let mut opened = |interface: &str| {
            let spec = XdpSpec { backend, neighbours_max: 16, ..XdpSpec::new(interface, 0) };
            let opened = open(&spec, &mut arena, &mut pool, 0);
            opened.map_err(|why| Failure::Refused(why.to_string()))
        };
        let (inward, report) = opened(&wires.inward)?.boxed();
        let (outward, _) = opened(&wires.outward)?.boxed();
        let (mut switch, mut workers) = Switch::new(SwitchConfig::default(), vec![pool])?;
        let worker = workers.pop().ok_or(Failure::Bug("one pool, one worker"))?;
        let mut slot = |port, far: &str| {
            let port = switch.plug_at(0, port).map_err(|_| Failure::Bug("two ports of many"))?;
            attach(&mut switch, port, mac(far)?)
        };
        let (from, to) = (slot(inward, &wires.source)?, slot(outward, &wires.sink)?);
        let label = packet::label(&switch.config().scheme, &[(from, to)])?;
        let mut relay = Self { switch, worker, started: Instant::now(), label, report };
        while !relay.switch.is_settled() {
            relay.breathe();
            relay.switch.poll(Now(1));
        }
        Ok(relay)
    }

    fn breathe(&mut self) -> usize {
        self.worker.breathe(Now(self.started.elapsed().as_nanos() as u64 + 1))
    }

    /// Forwards until `stopped`.
    pub(crate) fn forward(&mut self, mut stopped: impl FnMut() -> bool) {
        let mut waiter = Waiter::with_capacity(2);
        let mut vain = 0;
        while !stopped() {
            if self.breathe() > 0 {
                vain = 0;
                continue;
            }
            vain += 1;
            if vain > LOOKS_MAX {
                waiter.begin();
                self.worker.arm(|arm| waiter.add(arm));
                waiter.wait(Some(BLOCK_MAX));
                self.worker.disarm(|nth| waiter.is_ready(nth));
                vain = 0;
            }
        }
    }

    /// Goes on until it has let none of the frames that the wire has `taken` wait, or for
    /// [`AT_REST_MAX`]; says what it has counted.
    pub(crate) fn come_to_rest(&mut self, taken: u64) -> Balance {
        let began = Instant::now();
        let mut balance = self.balance();
        let rests = |balance: &Balance| {
            balance.frames_in + balance.kernel_drops == taken && balance.is_even()
        };
        while !rests(&balance) && began.elapsed() < AT_REST_MAX {
            let until = Instant::now() + BLOCK_MAX;
            self.forward(|| Instant::now() > until);
            balance = self.balance();
        }
        balance
    }

    fn balance(&mut self) -> Balance {
        self.switch.poll(Now(u64::MAX));
        self.switch.balance()
    }
}

fn attach(switch: &mut Switch, port: PortId, at: Mac) -> Result<u32, Failure> {
    let address = Address::Ether(at);
    Ok(switch.attach(Attach::plain(port, address, Behind::Neighbour, address.to_string()))?)
}
