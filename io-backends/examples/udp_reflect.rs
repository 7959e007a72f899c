//! Returns every frame to the neighbour that sent it. The command line lists the neighbours; frames
//! from any other address get no reply.
//!
//! ```text
//! cargo run --release --example udp_reflect -- 127.0.0.1:7000 127.0.0.1:7001 127.0.0.1:7002
//! ```

use std::{error::Error, net::SocketAddr};

use strowger_frame::{Address, Burst, Mark, Pool, PoolSpec, Port, port::Arm};
use strowger_io::udp::{UdpSpec, open};

fn main() -> Result<(), Box<dyn Error>> {
    let mut addresses = std::env::args().skip(1).map(|text| text.parse::<SocketAddr>());
    let bind = addresses.next().ok_or("usage: udp_reflect BIND NEIGHBOUR...")??;
    let opened = open(&UdpSpec::new(bind), 0)?;
    println!("{}", opened.report);
    let mut port = opened.port;
    for (mark, at) in (0..).zip(addresses) {
        port.admit(Mark(mark), Address::Udp(at?))?;
    }

    let mut pool = Pool::new(&PoolSpec { trains: 256, singles: 0, huge_pages: true })?;
    let (mut burst, mut back) = (Burst::new(), Burst::new());
    loop {
        port.rx_burst(&mut pool, &mut burst);
        for frame in burst.drain(..) {
            let to = frame.mark();
            // Collects consecutive frames to one neighbour, so that they are sent as one train.
            if back.last().is_some_and(|last| last.mark() != to) {
                port.tx_burst(back[0].mark(), &mut back);
                back.clear();
            }
            back.push(frame);
        }
        if let Some(to) = back.first().map(|frame| frame.mark()) {
            port.tx_burst(to, &mut back);
            back.clear();
            port.flush();
        } else if let Arm::Wait(fd) = port.arm() {
            let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: the call accesses one pollfd, which outlives it.
            unsafe { libc::poll(&mut poll, 1, -1) };
            port.disarm();
        }
    }
}
