//! The network namespace of the cases with slow and dead paths. It has no name, so it ends when the
//! thread that made it ends. The benchmark changes no interface of the machine.
//!
//! ```text
//! relay 10.78.0.1 --> dead0 ===== dead1   no node answers ARP: dead next hops
//! relay 10.79.0.1 --> slow0 ===== slow1   10 Mbit/s with a deep queue; frames end there
//! ```

use std::net::Ipv4Addr;

use crate::{
    Failure,
    xdp::wires::{command as run, enter},
};

/// The relay's address on the interface to the dead next hops.
pub(super) const DEAD_SIDE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

/// The neighbour that is reached through the slow interface.
pub(super) const SLOW: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 2);

/// The dead next hop with this number.
pub(super) fn dead(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, 60 + number)
}

/// Runs `work` on a thread in a fresh namespace with these interfaces.
pub(super) fn in_namespace<T: Send>(
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter()?;
            make()?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn make() -> Result<(), Failure> {
    run("ip", "link set dev lo up")?;
    let pairs = [("dead0", "dead1", "10.78.0.1/24"), ("slow0", "slow1", "10.79.0.1/24")];
    for (near, far, at) in pairs {
        run("ip", &format!("link add {near} type veth peer name {far}"))?;
        for name in [near, far] {
            // IPv6 is disabled, so that the kernel itself sends no IPv6 packets on this interface.
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
            run("ip", &format!("link set dev {name} up"))?;
        }
        run("ip", &format!("addr add {at} dev {near}"))?;
    }
    run("ip", &format!("neigh add {SLOW} lladdr 02:00:00:00:00:02 nud permanent dev slow0"))?;
    run("tc", "qdisc add dev slow0 root tbf rate 10mbit burst 5000 limit 64000000")
}
