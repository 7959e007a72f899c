//! What a configuration names and the machine has not yet: at boot a relay may be faster than the network. The start
//! waits for it, says so, and goes on when it is there, or when the time is up. It opens nothing that stays open.

use std::time::Instant;

use strowger_io::sys::probe::interface_index;
use strowger_runtime::machine_addresses::is_on_this_machine;

use super::signals::Signals;
use crate::{
    limits::WAIT_LOOK_EVERY,
    relay::{
        config::Config,
        log::{Kind, say_early},
    },
};

/// Waits until the machine has every address and interface that the configuration names, as long as it allows; less
/// where a signal ends the relay.
pub(super) fn wait_for_network(config: &Config, signals: &Signals) {
    let until = Instant::now() + config.wait;
    let mut waited_for = Vec::new();
    loop {
        let missing = missing(config);
        let is_over = Instant::now() >= until || signals.stop().is_some();
        if is_over {
            return; // what is missing is refused when it is opened, with its reason
        }
        for what in missing.iter().filter(|what| !waited_for.contains(*what)) {
            let text =
                format!("not on this machine yet; it is waited for {} s", config.wait.as_secs());
            say_early(Kind::Waiting, what, text);
        }
        for what in waited_for.iter().filter(|what| !missing.contains(what)) {
            say_early(Kind::Waiting, what, "is there");
        }
        if missing.is_empty() {
            return;
        }
        waited_for = missing;
        std::thread::sleep(WAIT_LOOK_EVERY);
    }
}

/// What is not there, in the order of the file, each once.
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
