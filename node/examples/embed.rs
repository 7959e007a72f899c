//! A switch inside a program of one's own, driven by hand: two users of this process, one packet.
//! The README shows this file up to the test, and a test keeps the two equal.

use strowger_engine::Now;
use strowger_engine::control::{Attach, Switch, SwitchConfig};
use strowger_engine::link::{Behind, emit_plain};
use strowger_frame::{Address, Pool, PoolSpec};
use strowger_io::endpoint;
use strowger_wire::{Hop, Label, Slot, switch_header::HeaderRepr};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::new(&PoolSpec { trains: 16, singles: 0, huge_pages: false })?;
    let (mut switch, mut workers) = Switch::new(SwitchConfig::default(), vec![pool])?;
    let mut users = Vec::new();
    for slot in [2, 3] {
        let (port, user) = endpoint::pair(&endpoint::EndpointSpec::default())?;
        let port = switch.plug_at(0, Box::new(port))?;
        switch.attach(Attach::plain(port, Address::Only, Behind::Endpoint, "me").at_slot(slot))?;
        users.push(user);
    }
    while !switch.is_settled() {
        workers[0].breathe(Now(1)); // on a thread of its own: breathe for ever, block when idle
        switch.poll(Now(1)); // on another one
    }
    let hop = Hop { scheme: &switch.config().scheme, ingress: Slot::new(2), egress: Slot::new(3) };
    let (label, shift) = Label::<u64>::build(&[hop])?.0.depart()?;
    let mut frame = users[0].frame(24 + 5).ok_or("no memory is free")?;
    emit_plain(frame.bytes_mut(), &HeaderRepr::new(label, shift, 8))?.copy_from_slice(b"hello");
    users[0].send(frame)?;
    workers[0].breathe(Now(2));
    let frame = users[1].receive()?.ok_or("nothing came")?;
    println!("slot {} says {:?}", frame.mark().0, frame.bytes()[24..].escape_ascii().to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        super::main().expect("as in the README");
    }
}
