//! Waits at start for addresses and interfaces of the configuration, because during boot a relay
//! may start before the network is ready.

use std::time::Instant;

use strowger_io::sys::probe::interface_index;
use strowger_runtime::machine_addresses::is_on_this_machine;

use super::signals::Signals;
use crate::{
    limits::WAIT_LOOK_EVERY,
    relay::{
        config::Config,
        log::{Kind, write_early},
    },
};

/// Blocks until the machine has every address and interface of the configuration. Returns earlier
/// if the configured time has passed, or if a signal ends the relay.
pub(super) fn wait_for_network(config: &Config, signals: &Signals) {
    let until = Instant::now() + config.wait;
    let mut waited_for = Vec::new();
    loop {
        let missing = missing(config);
        let is_over = Instant::now() >= until || signals.stop().is_some();
        if is_over {
            return; // opening the port reports what is missing
        }
        for what in missing.iter().filter(|what| !waited_for.contains(*what)) {
            let text = format!(
                "not on this machine yet; the start waits {} s for it",
                config.wait.as_secs()
            );
            write_early(Kind::Waiting, what, text);
        }
        for what in waited_for.iter().filter(|what| !missing.contains(what)) {
            write_early(Kind::Waiting, what, "is present");
        }
        if missing.is_empty() {
            return;
        }
        waited_for = missing;
        std::thread::sleep(WAIT_LOOK_EVERY);
    }
}

/// The missing addresses and interfaces, in the order of the file. Each is listed once.
pub(super) fn missing(config: &Config) -> Vec<String> {
    let mut missing: Vec<String> = Vec::new();
    let mut add = |what: String| {
        if !missing.contains(&what) {
            missing.push(what);
        }
    };
    let interface = |name: &str| format!("interface {name}");
    for listener in &config.udp {
        match config.interfaces.resolve(listener.address) {
            Err(name) => add(interface(name)),
            Ok(at) if !is_on_this_machine(at) => {
                add(format!("address {}", config.interfaces.shown_ip(at)))
            }
            Ok(_) => {}
        }
    }
    for ethernet in &config.ethernet {
        if interface_index(&ethernet.interface).is_none() {
            add(interface(&ethernet.interface));
        }
    }
    for name in config.interfaces.absent() {
        add(interface(name));
    }
    missing
}
