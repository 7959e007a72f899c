//! Strowger under test: a switch with one worker and one UDP port. The loop of the runtime polls
//! the worker; with the idle policy that is used here it never blocks.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Instant,
};

use strowger_engine::{
    Now,
    control::{Attach, Balance, PortId, Switch, SwitchConfig},
    link::Behind,
};
use strowger_frame::{Address, Pool, PoolSpec, tally::Counter};
use strowger_io::{
    Doorbell,
    udp::{self, BackendChoice, UdpReport, UdpSpec},
};
use strowger_runtime::{IdlePolicy, WorkerLoop, clock::Clock};
use strowger_wire::{Scheme, scheme::Form};

use crate::Failure;

/// Number of chunks in a worker's pool: enough for the chunks posted to the kernel, for a burst
/// that waits to be sent (one chunk per frame), and for a burst that was just sent.
const CHUNKS: u32 = 256;

/// A switch, its only worker and its only port.
pub struct Relay {
    switch: Switch,
    worker: WorkerLoop,
    port: PortId,
    report: UdpReport,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Relay").field(&self.report).finish()
    }
}

/// The options of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelaySpec {
    /// The receive backend of the relay's port.
    pub backend: BackendChoice,
    /// Whether the relay uses GRO and GSO. If not, it behaves as on a kernel without them.
    pub trains: bool,
    /// Whether the relay's scheme has slots for a thousand neighbours instead of 256.
    pub many: bool,
}

impl RelaySpec {
    /// A relay with trains and up to 256 neighbours.
    pub const fn new(backend: BackendChoice) -> Self {
        Self { backend, trains: true, many: false }
    }

    fn config(self) -> SwitchConfig {
        let config = SwitchConfig::default();
        if !self.many {
            return config;
        }
        let scheme = const {
            match Scheme::new(&[Form::new(10, 0, 0)]) {
                Ok(scheme) => scheme,
                Err(_) => panic!("one form of ten bits is a scheme"),
            }
        };
        config.with_scheme(scheme).with_slot_max(1023)
    }
}

impl Relay {
    /// A relay on loopback with socket buffers of this size and no neighbours.
    ///
    /// # Errors
    /// The operation that the kernel refused.
    pub fn new(spec: RelaySpec, buffer_bytes: usize) -> Result<Self, Failure> {
        let mut udp = UdpSpec::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        udp.backend = spec.backend;
        udp.gro = spec.trains;
        udp.gso = spec.trains;
        udp.socket_buffer_bytes = buffer_bytes;
        let (port, report) = udp::open(&udp, 0)?.boxed();
        let pool = PoolSpec { trains: CHUNKS, singles: 0, huge_pages: true };
        let pool = Pool::new(&pool).map_err(Failure::kernel("memory"))?;
        let (mut switch, mut workers) = Switch::new(spec.config(), vec![pool])?;
        let worker = workers.pop().ok_or(Failure::Bug("one pool, one worker"))?;
        let doorbell = Doorbell::new().map_err(Failure::kernel("a doorbell"))?;
        let worker = WorkerLoop::new(worker, doorbell, Clock::start(), IdlePolicy::Spin);
        let port = switch.plug_at(0, port).map_err(|_| Failure::Bug("the first port of many"))?;
        Ok(Self { switch, worker, port, report })
    }

    /// Attaches a neighbour with this address; returns its slot.
    ///
    /// # Errors
    /// The operation that the switch refused.
    pub fn attach(&mut self, at: SocketAddrV4) -> Result<u32, Failure> {
        let (address, name) = (Address::Udp(at.into()), at.to_string());
        Ok((self.switch.attach(Attach::plain(self.port, address, Behind::Neighbour, name))?)
            .number())
    }

    /// The scheme of the relay's slots.
    pub fn scheme(&self) -> &Scheme {
        self.switch.config().scheme()
    }

    /// The address of the relay's socket, and its receive backend.
    pub fn report(&self) -> &UdpReport {
        &self.report
    }

    /// Waits until the worker has applied all attachments. Call it on the thread that forwards,
    /// because an io_uring belongs to the thread that first receives with it.
    pub fn settle(&mut self) {
        while !self.switch.is_settled() {
            self.worker.worker_mut().poll(Now(1));
            self.switch.poll(Now(1));
        }
    }

    /// Forwards until `stopped`, without blocking. Counts polls without a frame in `idle_polls`.
    pub fn forward(&mut self, idle_polls: &Counter, mut stopped: impl FnMut() -> bool) {
        self.worker.run(|switched| {
            if switched == 0 {
                idle_polls.add(1);
            }
            stopped()
        });
    }

    /// Polls once; returns the number of frames that were switched.
    pub fn poll(&mut self) -> usize {
        self.worker.worker_mut().poll(Now(1))
    }

    /// Forwards until two hundred successive polls were idle, for at most two seconds, so that
    /// packets in flight arrive. Sleeps between idle polls.
    pub fn drain(&mut self) {
        let started = Instant::now();
        let mut idle_polls = 0;
        self.worker.run(|switched| {
            if switched > 0 {
                idle_polls = 0;
            } else {
                idle_polls += 1;
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
            idle_polls >= 200 || started.elapsed().as_secs() >= 2
        });
    }

    /// The counters of the relay.
    pub fn balance(&mut self) -> Balance {
        self.switch.poll(Now(u64::MAX));
        self.switch.balance()
    }

    /// The number of frames whose payload was copied. It must be 0.
    pub fn frames_copied(&mut self) -> u64 {
        self.worker.worker_mut().pool_mut().tally().frames_copied.read()
    }
}
