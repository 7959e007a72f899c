//! Makes two connected ports of each backend. If the far end is not a port but an endpoint or
//! another process, a wrapper makes it a port.

use std::{
    os::fd::AsRawFd as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use strowger_frame::{
    Address, Burst, ChunkClass, Loss, Mark, Pool, PoolSpec, Port,
    port::{AdmitError, Arm, PortTally},
};
use strowger_io::{
    Endpoint,
    capture::{Capture, CaptureSpec},
    endpoint::{self, EndpointSpec},
    fault::{Fault, FaultSpec},
    memory as wires,
    udp::{BackendChoice, UdpSpec, open},
    unix::{Client, UnixPort, UnixSpec},
    xdp::{EtherPort, RxMode},
};

use super::suite::{Backend, INGRESS, Joined, until};
use crate::veth::{Station, Veth, skip, spec};

const DEPTH_FRAMES: usize = 128;

fn joined(near: impl Port + 'static, far: impl Port + 'static) -> Joined {
    let (near, far) = (Box::new(near), Box::new(far));
    Joined { near, far, to_far: Address::Only, to_near: Address::Only }
}

pub(crate) fn memory() -> Backend {
    let join = || {
        let (near, far) = wires::wire(DEPTH_FRAMES).expect("descriptors");
        Ok(joined(near, far))
    };
    Backend { join, zero_copy: true, keeps_when_full: true, knows_when_gone: true }
}

pub(crate) fn capture_of_memory() -> Backend {
    let join = || {
        let (near, far) = wires::wire(DEPTH_FRAMES).expect("descriptors");
        let spec = CaptureSpec::default();
        let near = Capture::new(near, std::io::sink(), &spec, || 0).expect("a thread");
        Ok(joined(near, far))
    };
    Backend { join, ..memory() }
}

pub(crate) fn fault_of_memory_with_no_faults() -> Backend {
    let join = || {
        let (near, far) = wires::wire(DEPTH_FRAMES).expect("descriptors");
        Ok(joined(Fault::new(near, &FaultSpec::default()).expect("memory"), far))
    };
    Backend { join, ..memory() }
}

pub(crate) fn endpoint() -> Backend {
    let join = || {
        let spec = EndpointSpec { depth_frames: DEPTH_FRAMES, ..EndpointSpec::default() };
        let (near, endpoint) = endpoint::pair(&spec).expect("memory");
        Ok(joined(near, EndpointPlayer { endpoint, mark: None }))
    };
    Backend { join, ..memory() }
}

pub(crate) fn unix() -> Backend {
    let join = || Ok(unix_joined(&UnixSpec::default()));
    Backend { join, zero_copy: false, keeps_when_full: true, knows_when_gone: true }
}

pub(crate) fn unix_with_largest_frames() -> Backend {
    let join = || {
        Ok(unix_joined(&UnixSpec { frame_bytes_max: usize::from(u16::MAX), ..Default::default() }))
    };
    Backend { join, ..unix() }
}

fn unix_joined(spec: &UnixSpec) -> Joined {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("strowger-conformance-{}-{n}", std::process::id());
    let path: PathBuf = std::env::temp_dir().join(name);
    let mut near = UnixPort::listen(&path, spec).expect("no other listener");
    let client = Client::connect(&path).expect("it listens");
    // Uses a pool without chunks: it is dropped here, so the port must not keep any of its chunks.
    let empty = PoolSpec { trains: 0, singles: 0, huge_pages: false };
    let mut empty = Pool::new(&empty).expect("memory");
    until("the client is served", || {
        near.rx_burst(&mut empty, &mut Burst::new());
        near.is_serving()
    });
    let room = vec![0; usize::from(u16::MAX)].into();
    let frame_bytes_max = spec.frame_bytes_max;
    let tally = Arc::default();
    joined(near, ClientPlayer { client, mark: None, room, frame_bytes_max, tally, stuck: false })
}

pub(crate) fn udp_mmsg() -> Backend {
    let join = || udp_joined(BackendChoice::Mmsg);
    Backend { join, zero_copy: false, keeps_when_full: false, knows_when_gone: false }
}

pub(crate) fn udp_io_uring() -> Backend {
    let join = || udp_joined(BackendChoice::IoUring);
    Backend { join, ..udp_mmsg() }
}

fn udp_joined(backend: BackendChoice) -> Result<Joined, String> {
    let bind = "127.0.0.1:0".parse().expect("an address");
    let spec = UdpSpec { backend, ..UdpSpec::new(bind) };
    let near = open(&spec, 0).map_err(|why| why.to_string())?;
    let far = open(&spec, 0).map_err(|why| why.to_string())?;
    let (to_near, to_far) = (Address::Udp(near.local_addr()), Address::Udp(far.local_addr()));
    Ok(Joined { near: Box::new(near.port), far: Box::new(far.port), to_far, to_near })
}

pub(crate) fn xdp_copy() -> Backend {
    let join = || ether_joined(RxMode::Copy);
    Backend { join, ..udp_mmsg() }
}

pub(crate) fn xdp_generic() -> Backend {
    let join = || ether_joined(RxMode::Generic);
    Backend { join, ..udp_mmsg() }
}

pub(crate) fn af_packet() -> Backend {
    let join = || ether_joined(RxMode::Packet);
    Backend { join, ..udp_mmsg() }
}

fn ether_joined(mode: RxMode) -> Result<Joined, String> {
    let veth = Veth::new().inspect_err(|why| skip(why))?;
    let near = Station::new(&veth.a, &spec("a0", mode)).map_err(|why| why.to_string())?;
    let far = Station::new(&veth.b, &spec("b0", mode)).map_err(|why| why.to_string())?;
    let (to_near, to_far) = (near.at, far.at);
    // The sockets keep their namespaces, and the namespaces keep the pair, even after their names
    // have been removed.
    let [near, far] = [near, far].map(|Station { port, pool, .. }| -> Box<dyn Port> {
        if mode == RxMode::Packet { Box::new(port) } else { Box::new(InArena { port, pool }) }
    });
    Ok(Joined { near, far, to_far, to_near })
}

/// An AF_XDP port receives into registered memory, but the suite passes any pool. This wrapper
/// passes the pool with which the port was opened.
struct InArena {
    port: EtherPort,
    pool: Pool,
}

impl Port for InArena {
    fn rx_burst(&mut self, _pool: &mut Pool, burst: &mut Burst) {
        self.port.rx_burst(&mut self.pool, burst);
    }

    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        self.port.tx_burst(to, frames);
    }

    fn flush(&mut self) {
        self.port.flush();
    }

    fn is_flushed(&self) -> bool {
        self.port.is_flushed()
    }

    fn admit(&mut self, mark: Mark, at: Address) -> Result<(), AdmitError> {
        self.port.admit(mark, at)
    }

    fn forget(&mut self, mark: Mark) {
        self.port.forget(mark);
    }

    fn arm(&mut self) -> Arm {
        self.port.arm()
    }

    fn disarm(&mut self) {
        self.port.disarm();
    }

    fn frame_bytes_max(&self) -> usize {
        self.port.frame_bytes_max()
    }

    fn tally(&self) -> &Arc<PortTally> {
        self.port.tally()
    }

    fn describe(&self) -> &str {
        self.port.describe()
    }
}

/// Admits one neighbour, for ports that have only one.
fn admit_only(held: &mut Option<Mark>, mark: Mark, at: Address) -> Result<(), AdmitError> {
    match (at, *held) {
        (Address::Only, Some(other)) if other != mark => Err(AdmitError::Taken),
        (Address::Only, _) => {
            *held = Some(mark);
            Ok(())
        }
        _ => Err(AdmitError::WrongKind),
    }
}

/// An endpoint at the far end, as a port.
struct EndpointPlayer {
    endpoint: Endpoint,
    mark: Option<Mark>,
}

impl Port for EndpointPlayer {
    fn rx_burst(&mut self, _pool: &mut Pool, burst: &mut Burst) {
        let before = burst.len();
        if self.endpoint.receive_burst(burst).is_ok() {
            for frame in &mut burst[before..] {
                assert_eq!(frame.mark(), INGRESS, "the ingress slot is punted");
                frame.set_mark(self.mark.unwrap_or_default());
            }
        }
    }

    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        let loss = if self.mark != Some(to) { Loss::NoNeighbour } else { Loss::PeerGone };
        if loss == Loss::NoNeighbour || self.endpoint.send_burst(frames).is_err() {
            self.endpoint.tally().count_loss(loss, frames.len() as u64);
            frames.clear();
        }
    }

    fn flush(&mut self) {}

    fn admit(&mut self, mark: Mark, at: Address) -> Result<(), AdmitError> {
        admit_only(&mut self.mark, mark, at)
    }

    fn forget(&mut self, _: Mark) {
        self.mark = None;
    }

    fn arm(&mut self) -> Arm {
        self.endpoint.arm()
    }

    fn frame_bytes_max(&self) -> usize {
        usize::from(u16::MAX)
    }

    fn tally(&self) -> &Arc<PortTally> {
        self.endpoint.tally()
    }

    fn describe(&self) -> &str {
        "an endpoint"
    }
}

/// The client of a unix port at the far end, as a port.
struct ClientPlayer {
    client: Client,
    mark: Option<Mark>,
    room: Box<[u8]>,
    frame_bytes_max: usize,
    tally: Arc<PortTally>,
    stuck: bool,
}

impl Port for ClientPlayer {
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst) {
        while !burst.is_full() {
            let Some(mut chunk) = pool.take(ChunkClass::Train) else { return };
            let Ok(Some(got)) = self.client.try_receive(&mut self.room) else { return };
            assert_eq!(got.ingress, INGRESS.0, "the ingress slot is punted");
            let start = chunk.start();
            chunk.bytes_mut()[start..start + got.len].copy_from_slice(&self.room[..got.len]);
            let mut frame = chunk.into_frame(start, got.len);
            frame.set_mark(self.mark.unwrap_or_default());
            burst.push(frame);
            self.tally.frames_in.add(1);
        }
    }

    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        self.stuck = false;
        if self.mark != Some(to) {
            self.tally.count_loss(Loss::NoNeighbour, frames.len() as u64);
            frames.clear();
        }
        while let Some(first) = frames.first() {
            match self.client.try_send(first.bytes()) {
                Ok(true) => self.tally.frames_out.add(1),
                Ok(false) => {
                    self.stuck = true;
                    return;
                }
                Err(_) => self.tally.count_loss(Loss::PeerGone, 1),
            }
            frames.remove(0);
        }
    }

    fn flush(&mut self) {}

    fn admit(&mut self, mark: Mark, at: Address) -> Result<(), AdmitError> {
        admit_only(&mut self.mark, mark, at)
    }

    fn forget(&mut self, _: Mark) {
        self.mark = None;
    }

    fn arm(&mut self) -> Arm {
        if self.stuck { Arm::Poll } else { Arm::Wait(self.client.as_raw_fd()) }
    }

    fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    fn tally(&self) -> &Arc<PortTally> {
        &self.tally
    }

    fn describe(&self) -> &str {
        "another process"
    }
}
