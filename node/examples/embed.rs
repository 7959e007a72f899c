//! A switch inside a program of one's own, driven by hand: two users of this process, one packet.
//! The README shows this file up to the test, and a test keeps the two equal.

use strowger_engine::control::{Attach, Switch, SwitchConfig};
use strowger_engine::link::{Behind, LINK_HEADER_BYTES, plain_header};
use strowger_engine::{Now, director::Slot, header::HeaderRepr, label::Hop, label::Label};
use strowger_frame::{Address, Pool, PoolSpec};
use strowger_io::endpoint;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // One worker, in memory that is taken now and never grows.
    let pool = Pool::new(&PoolSpec { trains: 16, singles: 0, huge_pages: false })?;
    let (mut switch, mut workers) = Switch::new(SwitchConfig::default(), vec![pool])?;

    // Two users on slots 2 and 3. A neighbour is attached likewise, behind a port of `udp::open`.
    let mut users = Vec::new();
    for slot in [2, 3] {
        let (port, user) = endpoint::pair(&endpoint::EndpointSpec::default())?;
        let port = switch.plug_at(0, Box::new(port))?;
        let attach = Attach::plain(port, Address::Only, Behind::Endpoint, format!("user {slot}"));
        switch.attach(attach.at_slot(slot))?;
        users.push(user);
    }
    while !switch.is_settled() {
        workers[0].breathe(Now(1)); // on a thread of its own: breathe for ever, block when idle
        switch.poll(Now(1)); // on another one
    }

    // A packet from slot 2 to slot 3: link header, switch header, payload.
    let hop = Hop { scheme: &switch.config().scheme, ingress: Slot::new(2), egress: Slot::new(3) };
    let (label, shift) = Label::<u64>::build(&[hop])?.0.depart()?;
    let header = HeaderRepr::new(label, shift, 8);
    let bytes = LINK_HEADER_BYTES + header.wire_bytes() + 5;
    let mut frame = users[0].frame(bytes).ok_or("no memory is free")?;
    let (link_header, packet) = frame.bytes_mut().split_at_mut(LINK_HEADER_BYTES);
    link_header.copy_from_slice(&plain_header(1));
    header.emit(packet)?.copy_from_slice(b"hello");
    users[0].send(frame)?;

    workers[0].breathe(Now(2));
    let frame = users[1].receive()?.ok_or("nothing came")?;
    println!("slot {} says {:?}", frame.mark().0, frame.bytes()[24..].escape_ascii().to_string());
    assert!(switch.balance().is_even());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        super::main().expect("as in the README");
    }
}
