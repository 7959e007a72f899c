//! Which files a relay of a configuration uses, and what for. It opens none.

use std::path::Path;

use super::{beside, of_worker, udp};
use crate::{
    config::{Config, Queues},
    files::{self, Role, Roles},
};

/// All files of a relay with so many workers, whose configuration is `file`.
pub(crate) fn roles(config: &Config, file: &Path, workers: usize) -> Roles {
    let mut roles = Roles::default();
    roles.add(Role::Configuration, file);
    if let Some(identity) = &config.identity {
        roles.add(Role::Key, &identity.key);
    }
    for psk in config.peers.iter().filter_map(|peer| peer.psk.as_ref()) {
        roles.add(Role::Psk, psk);
    }
    if let Some(state) = &config.state {
        roles.add(Role::State, state);
        roles.add(Role::StateNew, files::beside(state, ".new"));
        roles.add(Role::StateLock, files::beside(state, ".lock"));
    }
    roles.add(Role::Control, &config.control_socket);
    for unix in &config.unix {
        roles.add(Role::Unix(unix.name.clone()), &unix.path);
        if let Some(capture) = &unix.capture {
            roles.add(Role::Capture(format!("[[unix]] {}", unix.name)), capture);
        }
    }
    for udp in &config.udp {
        let Some(capture) = &udp.capture else { continue };
        let role = || Role::Capture(format!("[[udp]] {}", udp.name));
        for worker in 0..workers {
            roles.add(role(), of_worker(capture, worker, workers));
        }
        if udp::has_doors(config) {
            roles.add(role(), beside(capture, "handshakes"));
        }
    }
    for ethernet in &config.ethernet {
        let Some(capture) = &ethernet.capture else { continue };
        let role = || Role::Capture(format!("[[ethernet]] {}", ethernet.name));
        match ethernet.queues {
            Queues::One { .. } => roles.add(role(), capture),
            Queues::All => {
                for worker in 0..workers {
                    roles.add(role(), of_worker(capture, worker, workers));
                }
            }
        }
    }
    roles
}
