//! Parses `[identity]`, `[[peer]]`, `[[neighbour]]`, `[unknown_peers]` and `[liveness]`: this node,
//! and the nodes at the other ends of its links.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use strowger_crypto::{Identity, NetworkId, PeerId, StaticPublic};
use strowger_engine::{
    control::peering::{Liveness, UnknownPeerPolicy},
    limits::{ATTACHED_MAX, FRAME_BYTES_MAX},
    link::Rights,
};
use strowger_frame::Address;
use strowger_wire::{hello::SealWish, limits::LINK_MTU_MIN};

use super::{
    Ethernet, Fault, IdentityFile, Listener, Neighbour, Peer, address,
    ethernet::ETHERNET_KEYS,
    reader::{Document, Section, nearest},
    unique::{Names, Slots, name},
};
use strowger_runtime::address::{Interfaces, in_scope_of, takes_ipv4_too, unusable_as_peer};

use crate::limits::{INTERVAL_MS_MAX, INTERVAL_MS_MIN};

pub(super) const IDENTITY_KEYS: &[&str] = &["key", "network"];
pub(super) const LIVENESS_KEYS: &[&str] = &["interval_ms", "multiplier", "always"];
pub(super) const UNKNOWN_PEERS_KEYS: &[&str] =
    &["allow", "rights", "max", "interval_ms", "multiplier", "always"];
pub(super) const NEIGHBOUR_KEYS: &[&str] = &["name", "address", "listener", "slot"];
pub(super) const PEER_KEYS: &[&str] = &[
    "name",
    "key",
    "peer_id",
    "address",
    "listener",
    "slot",
    "psk",
    "rights",
    "seal",
    "mtu",
    "interval_ms",
    "multiplier",
    "always",
];

/// The listeners, and the addresses that peers and neighbours have claimed so far, with their
/// lines.
pub(super) struct Behind<'c> {
    pub(super) udp: &'c [Listener],
    pub(super) ethernet: &'c [Ethernet],
    pub(super) addresses: HashMap<(Option<usize>, Address), usize>,
}

impl Behind<'_> {
    /// The names of all listeners, in the order of their indexes.
    fn names(&self) -> Vec<&str> {
        let udp = self.udp.iter().map(|listener| listener.name.as_str());
        udp.chain(self.ethernet.iter().map(|ethernet| ethernet.name.as_str())).collect()
    }

    /// Returns whether plain links through this listener are allowed, its name, and the title of
    /// its section.
    fn is_plain(&self, listener: usize) -> (bool, &str, &'static str) {
        match self.udp.get(listener) {
            Some(udp) => (udp.plain, &udp.name, "[[udp]]"),
            None => {
                let Ethernet { plain, name, .. } = &self.ethernet[listener - self.udp.len()];
                (*plain, name, "[[ethernet]]")
            }
        }
    }

    /// Claims the address of a section's peer or neighbour, which is reached through this listener.
    /// Only one section may claim an address. `whose` names the subject of the section, for example
    /// `peer "alice"`.
    fn claim(
        &mut self,
        listener: usize,
        section: &Section<'_>,
        interfaces: &mut Interfaces,
        whose: &str,
    ) -> Result<Address, Fault> {
        let line = section.line_of("address");
        let fault = |text| Err(Fault { line, text });
        let (mut address, written) = super::address(section, interfaces)?;
        if let (Some(Listener { address: local, .. }), Address::Udp(at)) =
            (self.udp.get(listener), &mut address)
        {
            *at = in_scope_of(*at, *local);
            let own = self.udp.iter().map(|listener| listener.address);
            if let Some(why) = unusable_as_peer(*at, own) {
                return fault(format!("{whose}: address \"{written}\" is not usable: {why}"));
            }
        }
        match (self.udp.get(listener), address) {
            (Some(Listener { address: local, name, .. }), Address::Udp(at))
                if local.is_ipv4() != at.is_ipv4()
                    && !(at.is_ipv4()
                        && takes_ipv4_too(*local, self.udp.iter().map(|it| it.address))) =>
            {
                let kind = if local.is_ipv4() { "IPv4" } else { "IPv6" };
                let text = format!(
                    "{whose}: address \"{written}\" is not usable: listener \"{name}\" is {kind} \
                     ({local}); add a [[udp]] of the neighbour's address family and name it with listener"
                );
                return fault(text);
            }
            (Some(_), Address::Udp(_)) | (None, Address::Ether(_)) => {}
            (Some(Listener { name, .. }), _) => {
                let text = format!(
                    "behind \"{name}\", a [[udp]], an address is an IP and a port, not {written}; \
                     name an [[ethernet]] with listener"
                );
                return fault(text);
            }
            (None, _) => {
                let (_, name, _) = self.is_plain(listener);
                let text = format!(
                    "behind \"{name}\", an [[ethernet]], an address is a MAC address, as \
                     02:00:00:00:00:01, not {written}; name a [[udp]] with listener"
                );
                return fault(text);
            }
        }
        // Two stations may have the same MAC address on different interfaces. An IP address with a
        // port belongs to one station.
        let place = self.udp.get(listener).is_none().then_some(listener);
        if let Some(first) = self.addresses.insert((place, address), line) {
            let text = format!(
                "{whose}: address \"{written}\" belongs to another neighbour (line {first}); use each once"
            );
            return fault(text);
        }
        Ok(address)
    }
}

pub(super) fn neighbours(
    document: &Document<'_>,
    behind: &mut Behind<'_>,
    names: &mut Names,
    slots: &mut Slots<'_>,
) -> Result<Vec<Neighbour>, Fault> {
    let mut neighbours = Vec::new();
    let mut one = |section: Section<'_>| {
        let name = name(&section)?;
        names.claim("neighbour", &name, &section)?;
        address(&section, &mut names.interfaces)?;
        let listener = listener_of(&section, behind)?;
        let (plain, listens, kind) = behind.is_plain(listener);
        if !plain {
            let text = format!(
                "a [[neighbour]] has a plain link, and listener \"{listens}\" has only sealed ones; \
                 make it a [[peer]] with a key, or write seal = \"plain\" in the {kind}"
            );
            return Err(Fault { line: section.line, text });
        }
        let whose = format!("neighbour \"{name}\"");
        let address = behind.claim(listener, &section, &mut names.interfaces, &whose)?;
        Ok(Neighbour { name, address, listener, slot: slots.claim(&section)? })
    };
    for section in document.sections("neighbour", NEIGHBOUR_KEYS)? {
        neighbours.extend(document.good(one(section)));
    }
    Ok(neighbours)
}

/// The default liveness settings of peers, and the policy for unknown peers (`None` refuses them).
pub(super) struct Policies {
    pub(super) liveness: Liveness,
    pub(super) unknown_peers: Option<UnknownPeerPolicy>,
}

/// The key and identity of a peer, if the section has them, and its rights.
fn key_and_rights(
    section: &Section<'_>,
    unknown_peers: Option<&UnknownPeerPolicy>,
) -> Result<(Option<StaticPublic>, Option<Identity>, Rights), Fault> {
    let key = section
        .text("key")?
        .map(|text| parse_key(text.value).map_err(|why| Fault { line: text.line, text: why }));
    let (key, identity) = (key.transpose()?, identity_of(section)?);
    let rights = rights(section)?;
    let fault = |key, text: &str| Err(Fault { line: section.line_of(key), text: text.to_owned() });
    if key.is_none() && section.text("psk")?.is_some() {
        return fault(
            "psk",
            "psk needs key: a handshake that has to find the key cannot use a psk",
        );
    }
    if key.is_some() || identity.is_some() {
        let default = Rights { control: false, ..Rights::ALL };
        return Ok((key, identity, rights.unwrap_or(default)));
    }
    let Some(policy) = unknown_peers else {
        let text = "a [[peer]] has neither key nor peer_id, so the node at its address is an unknown peer; \
                    write one of them (`strowger key id FILE` prints both on its machine), or allow = true \
                    in [unknown_peers]";
        return Err(Fault { line: section.line, text: text.to_owned() });
    };
    if rights.is_some() {
        return fault(
            "rights",
            "a [[peer]] with neither key nor peer_id is an unknown peer: its rights are those of [unknown_peers]",
        );
    }
    if section.text("address")?.is_none() {
        let text = "a [[peer]] with neither key nor peer_id needs an address";
        return Err(Fault { line: section.line, text: text.to_owned() });
    }
    Ok((None, None, policy.rights()))
}

pub(super) fn peers(
    document: &Document<'_>,
    behind: &mut Behind<'_>,
    names: &mut Names,
    slots: &mut Slots<'_>,
    policies: &Policies,
) -> Result<Vec<Peer>, Fault> {
    let mut keys: HashMap<[u8; 32], usize> = HashMap::new();
    let mut identities: HashMap<[u8; 32], usize> = HashMap::new();
    let mut peers = Vec::new();
    let mut one = |section: Section<'_>| {
        let name = name(&section)?;
        names.claim("peer", &name, &section)?;
        let (key, identity, rights) = key_and_rights(&section, policies.unknown_peers.as_ref())?;
        let (what, line) = match key {
            Some(_) => ("key", section.line_of("key")),
            None => ("peer_id", section.line_of("peer_id")),
        };
        let first = match (key, &identity) {
            (Some(key), _) => keys.insert(key.0, line),
            (None, Some(identity)) => identities.insert(identity.to_bytes(), line),
            (None, None) => None,
        };
        if let Some(first) = first {
            let text =
                format!("the {what} belongs to the [[peer]] in line {first}; add a peer once");
            return Err(Fault { line, text });
        }
        let listener = listener_of(&section, behind)?;
        let whose = format!("peer \"{name}\"");
        let address = match section.text("address")? {
            Some(_) => Some(behind.claim(listener, &section, &mut names.interfaces, &whose)?),
            None => None,
        };
        let seals = [("full", SealWish::Full), ("header-only", SealWish::MayHeaderOnly)];
        Ok(Peer {
            name,
            key,
            identity,
            address,
            listener,
            slot: slots.claim(&section)?,
            psk: file(&section, "psk")?,
            rights,
            seal: section.choice("seal", &seals)?.unwrap_or(SealWish::Full),
            frame_bytes_max: section
                .number("mtu", u64::from(LINK_MTU_MIN), FRAME_BYTES_MAX as u64)?
                .map_or(FRAME_BYTES_MAX as u16, |bytes| bytes as u16),
            liveness: liveness_of(&section, policies.liveness)?,
        })
    };
    for section in document.sections("peer", PEER_KEYS)? {
        peers.extend(document.good(one(section)));
    }
    Ok(peers)
}

/// Parses a peer's static key.
///
/// # Errors
/// One sentence with the syntax of a key.
pub(crate) fn parse_key(text: &str) -> Result<StaticPublic, String> {
    text.parse().map_err(|_| {
        format!(
            "\"{text}\" is not a key: need 64 hex digits, which `strowger key id FILE` prints on the \
             peer's machine"
        )
    })
}

/// Parses the PeerId of a peer, and returns the identity in it.
///
/// # Errors
/// One sentence with the syntax of a PeerId.
pub(crate) fn parse_peer_id(text: &str) -> Result<Identity, String> {
    let peer_id = text.parse::<PeerId>().map_err(|error| error.to_string());
    peer_id.and_then(|id| id.identity().map_err(|error| error.to_string())).map_err(|why| {
        format!(
            "\"{text}\" is not a PeerId ({why}): need 12D3KooW..., which `strowger key id FILE` prints on the \
             peer's machine"
        )
    })
}

fn identity_of(section: &Section<'_>) -> Result<Option<Identity>, Fault> {
    let Some(text) = section.text("peer_id")? else { return Ok(None) };
    let identity = parse_peer_id(text.value).map_err(|why| Fault { line: text.line, text: why })?;
    Ok(Some(identity))
}

/// Parses the rights of a peer.
///
/// # Errors
/// One sentence that lists the rights.
pub(crate) fn parse_rights<'w>(words: impl Iterator<Item = &'w str>) -> Result<Rights, String> {
    let mut rights = Rights::NONE;
    for word in words {
        match word {
            "transit" => rights.transit = true,
            "endpoints" => rights.endpoints = true,
            "control" => rights.control = true,
            _ => {
                let hint = match nearest(word, ["transit", "endpoints", "control"].into_iter()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "the rights are \"transit\", \"endpoints\" and \"control\"".to_owned(),
                };
                return Err(format!("no right {word:?}; {hint}"));
            }
        }
    }
    Ok(rights)
}

fn rights(section: &Section<'_>) -> Result<Option<Rights>, Fault> {
    let Some(words) = section.texts("rights")? else { return Ok(None) };
    let rights = parse_rights(words.into_iter());
    rights.map(Some).map_err(|text| Fault { line: section.line_of("rights"), text })
}

fn file(section: &Section<'_>, key: &str) -> Result<Option<PathBuf>, Fault> {
    let Some(path) = section.text(key)? else { return Ok(None) };
    if path.value.is_empty() || path.value.contains('\0') {
        let text = format!("{key} in {} must be the path of a file", section.title);
        return Err(Fault { line: path.line, text });
    }
    Ok(Some(path.value.into()))
}

pub(super) fn identity(document: &Document<'_>) -> Result<Option<IdentityFile>, Fault> {
    let section = document.section("identity", IDENTITY_KEYS)?;
    if !section.is_there() {
        return Ok(None);
    }
    let key = file(&section, "key")?.ok_or_else(|| Fault {
        text: "[identity] needs the key `key`: a file that `strowger key new FILE` makes"
            .to_owned(),
        ..section.missing("key")
    })?;
    let name = section.text("network")?;
    let network = NetworkId::new(name.map_or("", |name| name.value).as_bytes());
    let network = network.ok_or_else(|| Fault {
        line: section.line_of("network"),
        text: "network in [identity] has at most 32 bytes; choose a shorter name, the same on all \
               nodes"
            .to_owned(),
    })?;
    Ok(Some(IdentityFile { key, network }))
}

/// Checks that a configuration with sealed links has `[identity]`.
pub(super) fn check_identity(
    document: &Document<'_>,
    identity: Option<&IdentityFile>,
) -> Result<(), Fault> {
    const REMEDY: &str =
        "needs [identity] with key = \"FILE\", which `strowger key new FILE` makes";
    if identity.is_some() {
        return Ok(());
    }
    if let Some(peer) = document.sections("peer", PEER_KEYS)?.first() {
        return Err(Fault { line: peer.line, text: format!("a [[peer]] {REMEDY}") });
    }
    let unknown_peers = document.section("unknown_peers", UNKNOWN_PEERS_KEYS)?;
    if unknown_peers.flag("allow")? == Some(true) {
        let text = format!("[unknown_peers] allow = true {REMEDY}");
        return Err(Fault { line: unknown_peers.line_of("allow"), text });
    }
    for (kind, keys) in [("udp", super::ports::UDP_KEYS), ("ethernet", ETHERNET_KEYS)] {
        let sections = document.sections(kind, keys)?;
        if let Some(section) = sections.iter().find(|section| !section.is_text("seal", "plain")) {
            let text = format!(
                "{} has sealed links and {REMEDY}; or write seal = \"plain\" in it for plain links",
                section.title
            );
            return Err(Fault { line: section.line, text });
        }
    }
    Ok(())
}

pub(super) fn liveness(document: &Document<'_>) -> Result<Liveness, Fault> {
    liveness_of(&document.section("liveness", LIVENESS_KEYS)?, Liveness::default())
}

/// The liveness settings of a section, with defaults for missing keys.
fn liveness_of(section: &Section<'_>, default: Liveness) -> Result<Liveness, Fault> {
    let interval_ms = section.number("interval_ms", INTERVAL_MS_MIN, INTERVAL_MS_MAX)?;
    let multiplier = section.number("multiplier", 1, u64::from(u8::MAX))?;
    let interval = interval_ms.map_or(default.interval(), Duration::from_millis);
    Ok(Liveness::new(interval)
        .with_multiplier(multiplier.map_or(default.multiplier(), |n| n as u8))
        .with_always(section.flag("always")?.unwrap_or(default.is_always())))
}

pub(super) fn unknown_peers(
    document: &Document<'_>,
    liveness: Liveness,
) -> Result<Option<UnknownPeerPolicy>, Fault> {
    let section = document.section("unknown_peers", UNKNOWN_PEERS_KEYS)?;
    let allow = section.flag("allow")?.unwrap_or(false);
    let rights = rights(&section)?.unwrap_or(Rights::NONE);
    let max = section.number("max", 1, ATTACHED_MAX as u64)?;
    let links_max = max.map_or(UnknownPeerPolicy::default().links_max(), |max| max as u32);
    let liveness = liveness_of(&section, liveness)?;
    Ok(allow.then_some(
        UnknownPeerPolicy::default()
            .with_rights(rights)
            .with_links_max(links_max)
            .with_liveness(liveness),
    ))
}

fn listener_of(section: &Section<'_>, behind: &Behind<'_>) -> Result<usize, Fault> {
    let names = behind.names();
    match (section.text("listener")?, names.len()) {
        (_, 0) => {
            let text = format!("a {} needs a [[udp]] or an [[ethernet]]; add one", section.title);
            Err(Fault { line: section.line, text })
        }
        (Some(wanted), _) => names.iter().position(|name| *name == wanted.value).ok_or_else(|| {
            let hint = match nearest(wanted.value, names.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("the names are: {}", names.join(", ")),
            };
            let text =
                format!("no [[udp]] or [[ethernet]] has the name \"{}\"; {hint}", wanted.value);
            Fault { line: wanted.line, text }
        }),
        (None, 1) => Ok(0),
        (None, _) => {
            let text = format!(
                "{} needs listener, since there are several: {}",
                section.title,
                names.join(", ")
            );
            Err(Fault { line: section.line, text })
        }
    }
}
