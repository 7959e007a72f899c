//! Strowger under test over Ethernet: a switch with one worker and two ports. The loop of the
//! runtime runs it as in `strowger relay`: it polls for some time, then blocks.

use std::time::{Duration, Instant};

use strowger_engine::{
    Now,
    control::{Attach, Balance, PortId, Switch, SwitchConfig},
    link::Behind,
};
use strowger_frame::{Address, Pool, PoolSpec};
use strowger_io::{
    Doorbell, DoorbellWaker,
    xdp::{Arena, EtherReport, ModeChoice, XdpSpec, limits, open},
};
use strowger_runtime::{IdlePolicy, WorkerLoop, clock::Clock};
use strowger_wire::Label;

use super::{
    run::DRAIN_MAX,
    wires::{Mac, Wires, mac},
};
use crate::{Failure, packet};

/// The time for which the relay forwards between two readings of its counters.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A switch, its only worker and its two ports.
pub(crate) struct EtherRelay {
    switch: Switch,
    worker: WorkerLoop,
    clock: Clock,
    /// Ends the block of [`EtherRelay::forward`].
    pub(crate) waker: DoorbellWaker,
    pub(crate) label: Label,
    pub(crate) report: EtherReport,
}

impl EtherRelay {
    /// Opens the relay between the two wires, with `backend`.
    ///
    /// # Errors
    /// The operation that the kernel or the switch refused.
    pub(crate) fn new(wires: &Wires, backend: ModeChoice) -> Result<Self, Failure> {
        let port_chunks = limits::FILL_RING_FRAMES + limits::OWN_CHUNKS + limits::SENDS_WAITING;
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
        let label = packet::label(switch.config().scheme(), &[(from, to)])?;
        let doorbell = Doorbell::new().map_err(Failure::kernel("a doorbell"))?;
        let (waker, clock) = (doorbell.waker(), Clock::start());
        let worker = WorkerLoop::new(worker, doorbell, clock, IdlePolicy::ADAPTIVE);
        let mut relay = Self { switch, worker, clock, waker, label, report };
        while !relay.switch.is_settled() {
            relay.worker.worker_mut().poll(Now(1));
            relay.switch.poll(Now(1));
        }
        Ok(relay)
    }

    /// Forwards until `stopped`. The loop may be blocked when the condition becomes true, so call
    /// the waker afterwards.
    pub(crate) fn forward(&mut self, mut stopped: impl FnMut() -> bool) {
        self.worker.run(|_| stopped());
    }

    /// Forwards until every frame that the wire has `taken` is accounted for, for at most
    /// [`DRAIN_MAX`]. Returns the balance. It polls and does not block, because no frame comes that
    /// would end the block.
    pub(crate) fn drain(&mut self, taken: u64) -> Balance {
        let began = Instant::now();
        let mut balance = self.balance();
        let rests = |balance: &Balance| {
            balance.frames_in + balance.kernel_drops == taken && balance.is_even()
        };
        while !rests(&balance) && began.elapsed() < DRAIN_MAX {
            let until = Instant::now() + DRAIN_POLL_INTERVAL;
            while Instant::now() <= until {
                self.worker.worker_mut().poll(self.clock.now());
            }
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
    Ok((switch.attach(Attach::plain(port, address, Behind::Neighbour, address.to_string()))?)
        .number())
}
