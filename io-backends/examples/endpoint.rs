//! An endpoint on a slot of a switch, with a capture and some loss:
//! `cargo run -p strowger-io --example endpoint [FILE.pcapng]`.
//!
//! In place of a switch, a loop returns every packet to the slot on which it arrived.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use strowger_frame::{Address, Burst, Loss, Mark, Pool, PoolSpec, Port};
use strowger_io::{
    Waiter,
    capture::{Capture, CaptureSpec},
    endpoint::{self, EndpointSpec},
    fault::{Fault, FaultSpec, Faults},
};

const SLOT: Mark = Mark(5);
const PACKETS: u32 = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let (port, mut endpoint) = endpoint::pair(&EndpointSpec::default())?;
    let rx = Faults { loss_per_million: 10_000, ..Faults::default() };
    let mut port: Box<dyn Port> =
        Box::new(Fault::new(port, &FaultSpec { seed: 1, rx, tx: Faults::default() })?);
    if let Some(path) = std::env::args_os().nth(1) {
        port = Box::new(Capture::to_path(port, path, &CaptureSpec::default())?);
    }
    port.admit(SLOT, Address::Only)?;
    let tally = port.tally().clone();

    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let switch = std::thread::spawn(move || -> std::io::Result<()> {
        let mut pool = Pool::new(&PoolSpec { trains: 1, singles: 0, huge_pages: false })?;
        let mut waiter = Waiter::with_capacity(1);
        let mut burst = Burst::new();
        while !stopped.load(Ordering::Relaxed) {
            port.rx_burst(&mut pool, &mut burst);
            if burst.is_empty() {
                waiter.begin();
                waiter.add(port.arm());
                waiter.wait(Some(Duration::from_millis(10)));
                port.disarm();
            }
            port.tx_burst(SLOT, &mut burst);
            port.flush();
        }
        Ok(()) // dropping the port ends the capture
    });

    let mut back = 0;
    for n in 0..PACKETS {
        let mut frame = endpoint.frame(64).ok_or("all memory is in use")?;
        frame.bytes_mut()[..4].copy_from_slice(&n.to_be_bytes());
        endpoint.send_wait(frame, Duration::from_secs(1))?;
        while endpoint.receive()?.is_some() {
            back += 1;
        }
    }
    while endpoint.receive_wait(Duration::from_millis(50))?.is_some() {
        back += 1;
    }
    stop.store(true, Ordering::Relaxed);
    switch.join().map_err(|_| "the switch panicked")??;
    let lost = tally.lost(Loss::Injected);
    println!("{PACKETS} sent, {back} returned, {lost} dropped by the fault wrapper");
    if back + lost == u64::from(PACKETS) { Ok(()) } else { Err("some are missing".into()) }
}
