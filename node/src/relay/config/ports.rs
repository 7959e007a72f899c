//! Parses `[[udp]]` and `[[unix]]`: ports for neighbours, and ports for processes of this machine.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use strowger_engine::limits::{FRAME_BYTES_MAX, FRAME_BYTES_MIN};
use strowger_io::{
    udp::{BackendChoice, limits::POSTED_BUFFERS, limits::POSTED_BUFFERS_MAX},
    unix::limits::CLIENTS_MAX,
};

use super::{
    Fault, Listener, UnixEndpoint,
    reader::{Document, Section},
    socket_address, socket_path,
    unique::{Captures, Names, Slots, name},
};
use crate::limits::{SOCKET_BUFFER_BYTES, SOCKET_BUFFER_BYTES_MAX, UNIX_FRAME_BYTES};
use strowger_runtime::address;

pub(super) const UDP_KEYS: &[&str] =
    &["name", "address", "seal", "backend", "socket_buffer_bytes", "posted_buffers", "capture"];
pub(super) const UNIX_KEYS: &[&str] =
    &["name", "path", "slot", "clients", "frame_bytes_max", "worker", "capture"];

pub(super) fn listeners(
    document: &Document<'_>,
    names: &mut Names,
    captures: &mut Captures,
) -> Result<Vec<Listener>, Fault> {
    let mut addresses: HashMap<SocketAddr, usize> = HashMap::new();
    let mut listeners = Vec::new();
    let mut one = |section: Section<'_>, number: usize| {
        let name = match section.text("name")? {
            Some(_) => name(&section)?,
            None if number == 0 => "udp".to_owned(),
            None => format!("udp{number}"),
        };
        names.claim("udp", &name, &section)?;
        let address = socket_address(&section, &mut names.interfaces)?;
        if let Some(why) = unusable_to_listen(address.ip()) {
            let at = section.text("address")?.map_or("", |text| text.value);
            let text = format!("listener \"{name}\": address \"{at}\" is not usable: {why}");
            return Err(Fault { line: section.line_of("address"), text });
        }
        if address.port() != 0
            && let Some(first) = addresses.insert(address, section.line_of("address"))
        {
            let text = format!(
                "another [[udp]] listens at {address} already (line {first}); use each address once"
            );
            return Err(Fault { line: section.line_of("address"), text });
        }
        // The default is sealed. Plain links are possible only if the configuration allows them
        // (wire.md 3).
        let plain = section.choice("seal", &[("sealed", false), ("plain", true)])?.unwrap_or(false);
        let backends = [
            ("auto", BackendChoice::Auto),
            ("io_uring", BackendChoice::IoUring),
            ("mmsg", BackendChoice::Mmsg),
        ];
        Ok(Listener {
            name,
            address,
            plain,
            backend: section.choice("backend", &backends)?.unwrap_or_default(),
            socket_buffer_bytes: section
                .number("socket_buffer_bytes", 4096, SOCKET_BUFFER_BYTES_MAX)?
                .map_or(SOCKET_BUFFER_BYTES, |bytes| bytes as usize),
            posted_buffers: section
                .number("posted_buffers", 1, u64::from(POSTED_BUFFERS_MAX))?
                .map_or(POSTED_BUFFERS, |buffers| buffers as u16),
            capture: captures.claim(&section)?,
        })
    };
    for (number, section) in document.sections("udp", UDP_KEYS)?.into_iter().enumerate() {
        listeners.extend(document.good(one(section, number)));
    }
    Ok(listeners)
}

pub(super) fn unix(
    document: &Document<'_>,
    workers: Option<usize>,
    names: &mut Names,
    slots: &mut Slots<'_>,
    captures: &mut Captures,
) -> Result<Vec<UnixEndpoint>, Fault> {
    let mut paths: HashMap<PathBuf, usize> = HashMap::new();
    let mut endpoints = Vec::new();
    let mut one = |section: Section<'_>| {
        let name = name(&section)?;
        names.claim("unix", &name, &section)?;
        let path = socket_path(&section, "path")?.ok_or_else(|| section.missing("path"))?;
        if let Some(first) = paths.insert(path.clone(), section.line_of("path")) {
            let text = format!(
                "another [[unix]] has the path {} already (line {first}); choose another",
                path.display()
            );
            return Err(Fault { line: section.line_of("path"), text });
        }
        let last_worker = workers.unwrap_or(1) as u64 - 1;
        let clients = section.number("clients", 1, CLIENTS_MAX as u64)?;
        let slot = slots.claim(&section)?;
        if clients.is_some() && slot.is_some() {
            let text = "with `clients`, each client gets a free slot number: leave out `slot`, or \
                        give the program that needs this number a [[unix]] of its own";
            return Err(Fault { line: section.line_of("slot"), text: text.to_owned() });
        }
        for client in 1..=clients.unwrap_or(0) {
            names.claim("unix", &format!("{name}.{client}"), &section)?;
        }
        Ok(UnixEndpoint {
            name,
            path,
            slot,
            clients: clients.map(|clients| clients as usize),
            frame_bytes_max: section
                .number("frame_bytes_max", FRAME_BYTES_MIN as u64, FRAME_BYTES_MAX as u64)?
                .map_or(UNIX_FRAME_BYTES, |bytes| bytes as usize),
            worker: section.number("worker", 0, last_worker)?.unwrap_or(0) as usize,
            capture: captures.claim(&section)?,
        })
    };
    for section in document.sections("unix", UNIX_KEYS)? {
        endpoints.extend(document.good(one(section)));
    }
    Ok(endpoints)
}

/// The reason why no listener can have this address. Port 0 is allowed: the kernel then chooses the
/// port.
fn unusable_to_listen(ip: IpAddr) -> Option<&'static str> {
    if ip.is_unspecified() { None } else { address::unusable(ip) }
}
