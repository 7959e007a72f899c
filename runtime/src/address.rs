//! Converts addresses to and from text, with the interface of a link-local address by name or
//! number (`[fe80::1%eth0]:7000`, RFC 4007, section 11). Also checks for addresses that no peer can
//! have on any machine.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

use strowger_frame::Address;
use strowger_io::sys::probe::{interface_index, interface_name};

/// Scope IDs from this number on are placeholders of unresolved names. The kernel numbers
/// interfaces from 1, so real indexes are smaller.
const UNRESOLVED: u32 = 0xf000_0000;

/// The names of interfaces in parsed addresses. They are resolved separately.
#[derive(Clone, Debug, Default)]
pub struct Interfaces(Vec<String>);

impl Interfaces {
    /// The placeholder for a name, which [`resolve`](Self::resolve) replaces.
    fn number_of(&mut self, name: &str) -> u32 {
        let place = self.0.iter().position(|known| known == name).unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        });
        UNRESOLVED + place as u32
    }

    /// The names that no interface of this machine has now.
    pub fn absent(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str).filter(|name| interface_index(name).is_none())
    }

    /// Replaces the placeholder of an interface in an address by the interface's index.
    ///
    /// # Errors
    /// The name, if no interface of this machine has it now.
    pub fn resolve(&self, at: SocketAddr) -> Result<SocketAddr, &str> {
        let SocketAddr::V6(v6) = at else { return Ok(at) };
        let place = v6.scope_id().checked_sub(UNRESOLVED);
        let Some(name) = place.and_then(|place| self.0.get(place as usize)) else { return Ok(at) };
        let scope = interface_index(name).ok_or(name.as_str())?;
        Ok(SocketAddrV6::new(*v6.ip(), v6.port(), 0, scope).into())
    }

    /// The name of the interface with this scope ID, from this list or from this machine.
    fn name_of(&self, scope: u32) -> Option<String> {
        match scope.checked_sub(UNRESOLVED) {
            Some(place) => self.0.get(place as usize).cloned(),
            None => interface_name(scope),
        }
    }

    /// The text of an IP address, without the port.
    pub fn shown_ip(&self, at: SocketAddr) -> String {
        match at {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => {
                let scope = v6.scope_id();
                let name = self.name_of(scope).unwrap_or_else(|| scope.to_string());
                format!("{}%{name}", v6.ip())
            }
            at => at.ip().to_string(),
        }
    }

    /// The text of an address.
    pub fn shown(&self, at: SocketAddr) -> String {
        match at {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => {
                format!("[{}]:{}", self.shown_ip(at), v6.port())
            }
            at => at.to_string(),
        }
    }
}

/// Displays an address as text, with the name of the interface if the address is link-local.
pub struct AddressText(pub Address);

impl fmt::Display for AddressText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Address::Udp(at) => f.write_str(&Interfaces::default().shown(at)),
            at @ (Address::Only | Address::Ether(_)) => at.fmt(f),
        }
    }
}

/// Parses an IP address and a port. Adds the name of an interface to `interfaces`, without
/// resolving it.
///
/// # Errors
/// One sentence with the fault of the text.
pub fn parse_socket(text: &str, interfaces: &mut Interfaces) -> Result<SocketAddr, String> {
    let Some((before, after)) = text.split_once('%') else {
        return text.parse().map_err(|_| not_an_address(text));
    };
    let (name, after) = after.split_once(']').ok_or_else(|| not_an_address(text))?;
    let at: SocketAddrV6 = format!("{before}]{after}").parse().map_err(|_| not_an_address(text))?;
    if !is_link_local(*at.ip()) {
        return Err(format!(
            "\"{text}\" names an interface, and {} is not link-local (fe80::/10); leave \
             \"%{name}\" out",
            at.ip()
        ));
    }
    let is_invalid = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == '%';
    let scope = match name.parse::<u32>() {
        Ok(number) if (1..UNRESOLVED).contains(&number) => number,
        Err(_) if !name.is_empty() && name.len() < 16 && !name.contains(is_invalid) => {
            interfaces.number_of(name)
        }
        Ok(_) | Err(_) => {
            return Err(format!(
                "\"{text}\": \"{name}\" is not an interface; `ip link` lists them"
            ));
        }
    };
    Ok(SocketAddrV6::new(*at.ip(), at.port(), 0, scope).into())
}

/// Parses an IP address and a port, or the MAC address of one station.
///
/// # Errors
/// One sentence with the fault of the text.
pub fn parse(text: &str, interfaces: &mut Interfaces) -> Result<Address, String> {
    let Some(mac) = parse_mac(text) else {
        return parse_socket(text, interfaces).map(Address::Udp);
    };
    if mac[0] & 1 == 1 || mac == [0; 6] {
        return Err(format!(
            "{text} is not the address of one station; `ip link` shows those of a machine"
        ));
    }
    Ok(Address::Ether(mac))
}

/// Parses an address as [`parse`] does, and resolves names of interfaces on this machine.
///
/// # Errors
/// One sentence with the fault of the text, or the name of the missing interface.
pub fn parse_here(text: &str) -> Result<Address, String> {
    let mut interfaces = Interfaces::default();
    match parse(text, &mut interfaces)? {
        Address::Udp(at) => interfaces.resolve(at).map(Address::Udp).map_err(|name| {
            format!(
                "\"{text}\": this machine has no interface {name}; `ip link` lists those it has"
            )
        }),
        at => Ok(at),
    }
}

/// Checks that a text is an address and returns it unchanged, for a program that passes it on.
///
/// # Errors
/// One sentence with the fault of the text.
pub fn checked(text: &str) -> Result<String, String> {
    parse(text, &mut Interfaces::default()).map(|_| text.to_owned())
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut bytes = text.split(':');
    for byte in &mut mac {
        let digits = bytes.next().filter(|digits| digits.len() == 2)?;
        // Accept only digits, because `from_str_radix` would accept a sign.
        let hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        *byte = u8::from_str_radix(digits, 16).ok().filter(|_| hex)?;
    }
    bytes.next().is_none().then_some(mac)
}

fn not_an_address(text: &str) -> String {
    format!(
        "\"{text}\" is not an address: need an IP and a port, as 192.0.2.7:7000, [2001:db8::7]:7000 or \
         [fe80::7%eth0]:7000 (host names are not looked up); behind an [[ethernet]] a MAC address, as \
         02:00:00:00:00:01"
    )
}

/// The reason why no host can have this address; `None` if a host can.
pub fn unusable(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) if ip.octets()[0] == 0 => Some("0.0.0.0/8 is not the address of a host"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("it is the broadcast address"),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Some(":: is not the address of a host"),
        ip if ip.is_multicast() => Some("it is a multicast group"),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            Some("it is an IPv4 address in IPv6 form; write it as IPv4")
        }
        _ => None,
    }
}

/// The reason why no neighbor behind a UDP listener can have this address; `None` if one can. Does
/// not check against the machine's addresses, nor whether a listener has the same address family.
/// `own` are the addresses on which the relay listens.
pub fn unusable_as_peer(
    at: SocketAddr,
    own: impl IntoIterator<Item = SocketAddr>,
) -> Option<String> {
    if at.port() == 0 {
        return Some("need a unicast IP and a non-zero port".to_owned());
    }
    if let Some(why) = unusable(at.ip()) {
        return Some(format!("{why}: need a unicast IP and a non-zero port"));
    }
    if let SocketAddr::V6(v6) = at
        && is_link_local(*v6.ip())
        && v6.scope_id() == 0
    {
        let why = format!(
            "a link-local address needs its interface, as [{}%eth0]:{}",
            v6.ip(),
            v6.port()
        );
        return Some(why);
    }
    let is_own = |own: SocketAddr| {
        let is_loopback = is_wildcard_for(own, at) && at.ip().is_loopback();
        own.port() == at.port() && (own == at || is_loopback)
    };
    own.into_iter()
        .find(|own| is_own(*own))
        .map(|own| format!("this relay itself listens at {own}"))
}

/// Whether a listener accepts packets to any address of the family of `at`. A listener at `[::]`
/// counts as one that also accepts IPv4.
pub(crate) fn is_wildcard_for(listener: SocketAddr, at: SocketAddr) -> bool {
    listener.ip().is_unspecified() && (listener.is_ipv6() || at.is_ipv4())
}

/// Adds the interface of the listener to a link-local address that has no interface.
pub fn in_scope_of(at: SocketAddr, local: SocketAddr) -> SocketAddr {
    match (at, local) {
        (SocketAddr::V6(v6), SocketAddr::V6(local))
            if is_link_local(*v6.ip()) && v6.scope_id() == 0 =>
        {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, local.scope_id()).into()
        }
        _ => at,
    }
}

/// Whether a listener at this address also accepts IPv4. Only a listener at `[::]` does, and only
/// if no other listener has the same port on IPv4.
pub fn takes_ipv4_too(at: SocketAddr, listeners: impl IntoIterator<Item = SocketAddr>) -> bool {
    let is_any = at.is_ipv6() && at.ip().is_unspecified();
    is_any && !listeners.into_iter().any(|other| other.is_ipv4() && other.port() == at.port())
}

fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> Result<SocketAddr, String> {
        parse_socket(text, &mut Interfaces::default())
    }

    #[test]
    fn a_link_local_address_names_its_interface_by_name_or_number() {
        let mut interfaces = Interfaces::default();
        let at = parse_socket("[fe80::1%lo]:7000", &mut interfaces).unwrap();
        assert_eq!(interfaces.shown(at), "[fe80::1%lo]:7000");
        let resolved = interfaces.resolve(at).unwrap();
        let number = interface_index("lo").expect("every machine has it");
        assert_eq!(resolved, format!("[fe80::1%{number}]:7000").parse().unwrap());
        assert_eq!(Interfaces::default().resolve(resolved), Ok(resolved));
        assert_eq!(AddressText(Address::Udp(resolved)).to_string(), "[fe80::1%lo]:7000");
        let by_number = format!("[fe80::1%{number}]:7000");
        assert_eq!(socket(&by_number), Ok(resolved));
        let absent = parse_socket("[fe80::1%no-such-if]:7000", &mut interfaces).unwrap();
        assert_eq!(interfaces.resolve(absent), Err("no-such-if"));
        assert!(
            parse_here("[fe80::1%no-such-if]:7000")
                .unwrap_err()
                .contains("no interface no-such-if")
        );
        for (text, word) in [
            ("[2001:db8::1%eth0]:7000", "leave \"%eth0\" out"),
            ("[fe80::1%]:7000", "not an interface"),
            ("[fe80::1%0]:7000", "not an interface"),
            ("[fe80::1%4294967295]:7000", "not an interface"),
            ("[fe80::1%a b]:7000", "not an interface"),
            ("[fe80::1%a-name-too-long-x]:7000", "not an interface"),
            ("[fe80::1%eth0:7000", "not an address"),
            ("fe80::1%eth0", "not an address"),
            ("192.0.2.1%eth0:7000", "not an address"),
        ] {
            let why = socket(text).expect_err(text);
            assert!(why.contains(word), "{text}: {why}");
        }
    }

    #[test]
    fn an_address_that_can_never_work_is_refused_with_the_reason() {
        let own = ["192.0.2.1:7000", "0.0.0.0:7001", "[::]:7002"].map(|at| at.parse().unwrap());
        let why = |at: &str, local: &str| {
            let (at, local) = (socket(at).unwrap(), socket(local).unwrap());
            unusable_as_peer(in_scope_of(at, local), own)
        };
        for (at, local, word) in [
            ("0.0.0.0:7000", "192.0.2.1:7000", "not the address of a host"),
            ("0.1.2.3:7000", "192.0.2.1:7000", "not the address of a host"),
            ("[::]:7000", "[::]:7002", "not the address of a host"),
            ("192.0.2.2:0", "192.0.2.1:7000", "non-zero port"),
            ("255.255.255.255:7000", "192.0.2.1:7000", "broadcast"),
            ("224.0.0.1:7000", "192.0.2.1:7000", "multicast"),
            ("[ff02::1]:7000", "[::]:7002", "multicast"),
            ("[::ffff:192.0.2.2]:7000", "[::]:7002", "write it as IPv4"),
            ("[fe80::1]:7000", "[::]:7002", "needs its interface"),
            ("192.0.2.1:7000", "0.0.0.0:7001", "this relay itself listens at 192.0.2.1:7000"),
            ("127.0.0.2:7001", "0.0.0.0:7001", "this relay itself"),
            ("[::1]:7002", "[::]:7002", "this relay itself"),
            ("127.0.0.1:7002", "[::]:7002", "this relay itself"),
        ] {
            let why = why(at, local).unwrap_or_else(|| panic!("{at} is taken"));
            assert!(why.contains(word), "{at}: {why}");
        }
        for (at, local) in [
            ("192.0.2.2:7000", "192.0.2.1:7000"),
            ("127.0.0.2:7003", "0.0.0.0:7001"),
            ("[fe80::1%3]:7000", "[::]:7002"),
            ("[fe80::1]:7000", "[fe80::2%3]:7000"),
        ] {
            assert_eq!(why(at, local), None, "{at}");
        }
    }
}
