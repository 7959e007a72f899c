//! Asks the relay of this machine at its control socket, if this user has the right.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use serde_json::{Value, json};
use strowger_wire::Slot;

use crate::limits::{RELAY_REPLY_BYTES_MAX, RELAY_REPLY_MAX};

/// The slots that may lead to neighbours. Empty if the relay does not answer: then routing asks
/// only the relay itself for peers.
pub(crate) fn neighbours(control: &Path) -> Vec<Slot> {
    let links = ask(control, &json!({ "show": "links" })).unwrap_or_default();
    let links = links["links"].as_array().map(Vec::as_slice).unwrap_or_default();
    let slots = links.iter().filter_map(|link| u32::try_from(link["slot"].as_u64()?).ok());
    slots.map(Slot::new).collect()
}

/// The slots and names of the relay's links; empty if the relay does not answer.
pub(crate) fn link_names(control: &Path) -> Vec<(u64, String)> {
    let links = ask(control, &json!({ "show": "links" })).unwrap_or_default();
    let links = links["links"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |link: &Value| Some((link["slot"].as_u64()?, link["name"].as_str()?.to_owned()));
    links.iter().filter_map(named).collect()
}

/// Sends a request, and reads the reply.
fn ask(control: &Path, request: &Value) -> io::Result<Value> {
    let mut stream = UnixStream::connect(control)?;
    stream.set_read_timeout(Some(RELAY_REPLY_MAX))?;
    stream.set_write_timeout(Some(RELAY_REPLY_MAX))?;
    writeln!(stream, "{request}")?;
    let mut line = String::new();
    BufReader::new(stream.take(RELAY_REPLY_BYTES_MAX)).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(io::Error::from)
}
