//! Lists the files of a configuration, each with its role.

use std::path::Path;

use crate::relay::{
    builder::{ethernet_interface, udp_listener, unix_socket},
    config::Config,
};
use strowger_runtime::files::{self, Role, Roles};

/// All files of a relay with this number of workers. `file` is its configuration.
pub(crate) fn roles(config: &Config, file: &Path, workers: usize) -> Roles {
    let mut roles = Roles::default();
    roles.add(Role::Configuration, file);
    if let Some(identity) = &config.identity {
        roles.add(Role::Key, &identity.key);
    }
    for psk in config.peers.iter().filter_map(|peer| peer.psk.as_ref()) {
        roles.add(Role::Psk, psk);
    }
    if let Some(book) = &config.address_book {
        roles.add(Role::AddressBook, book);
    }
    if let Some(state) = &config.state {
        roles.add(Role::State, state);
        roles.add(Role::StateNew, files::beside(state, ".new"));
        roles.add(Role::StateLock, files::beside(state, ".lock"));
    }
    roles.add(Role::Control, &config.control_socket);
    for unix in &config.unix {
        roles.add(Role::Unix(unix.name.clone()), &unix.path);
        let role = || Role::Capture(format!("[[unix]] {}", unix.name));
        let files = unix_socket(unix).capture_files().into_iter();
        files.for_each(|path| roles.add(role(), path));
    }
    let has_identity = config.identity.is_some();
    for udp in &config.udp {
        let role = || Role::Capture(format!("[[udp]] {}", udp.name));
        let files = udp_listener(udp).capture_files(workers, has_identity).into_iter();
        files.for_each(|path| roles.add(role(), path));
    }
    for ethernet in &config.ethernet {
        let role = || Role::Capture(format!("[[ethernet]] {}", ethernet.name));
        let files = ethernet_interface(ethernet).capture_files(workers).into_iter();
        files.for_each(|path| roles.add(role(), path));
    }
    roles
}
