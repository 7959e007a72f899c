//! Parses `[[ethernet]]`: ports on interfaces and their queues.

use std::path::PathBuf;

use strowger_io::xdp::{ModeChoice, RxMode, limits};

use super::{
    Fault,
    reader::{Document, Section},
    unique::{Captures, Names, name},
};
use crate::limits::{BEACON_S, BEACON_S_MAX, ETHERTYPE_MIN, INTERFACE_BYTES_MAX, QUEUES_MAX};

pub(super) const ETHERNET_KEYS: &[&str] = &[
    "name",
    "interface",
    "queue",
    "queues",
    "worker",
    "ethertype",
    "vlan",
    "seal",
    "backend",
    "multi_buffer",
    "fill_ring_frames",
    "beacon",
    "beacon_s",
    "capture",
];

/// EtherTypes that the machine itself needs. A relay that used one of them would receive the
/// machine's own frames.
const TAKEN: [(u16, &str); 5] = [
    (0x0800, "IPv4"),
    (0x0806, "ARP"),
    (0x86dd, "IPv6"),
    (0x8100, "VLAN tags"),
    (0x88a8, "VLAN tags"),
];

/// One interface, or one queue of it.
#[derive(Clone, Debug)]
pub(crate) struct Ethernet {
    pub(crate) name: String,
    pub(crate) interface: String,
    pub(crate) queues: Queues,
    pub(crate) ethertype: u16,
    pub(crate) vlan: Option<u16>,
    /// Whether plain links through the port are allowed: `seal = "plain"`.
    pub(crate) plain: bool,
    pub(crate) backend: ModeChoice,
    /// Whether an AF_XDP frame may span several descriptors (`XDP_USE_SG`).
    pub(crate) multi_buffer: bool,
    /// The number of chunks in the kernel's fill ring, per queue.
    pub(crate) fill_ring_frames: u32,
    /// The number of seconds between two beacons; `None` to neither send nor receive beacons.
    pub(crate) beacon_s: Option<u32>,
    /// The pcapng file for the port's traffic; `None` for no capture.
    pub(crate) capture: Option<PathBuf>,
}

/// The queues of an interface that a section uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queues {
    /// One queue, and the worker that owns it.
    One { queue: u32, worker: usize },
    /// One queue per worker: worker 0 owns queue 0, and so on.
    All,
}

pub(super) fn ethernet(
    document: &Document<'_>,
    workers: Option<usize>,
    names: &mut Names,
    captures: &mut Captures,
) -> Result<Vec<Ethernet>, Fault> {
    let mut found: Vec<Ethernet> = Vec::new();
    let mut lines = Vec::new();
    let mut one = |section: Section<'_>, found: &[Ethernet]| {
        let interface = interface(&section)?;
        let name = match section.text("name")? {
            Some(_) => name(&section)?,
            None => interface.clone(),
        };
        names.claim("ethernet", &name, &section)?;
        let queues = queues(&section, workers)?;
        let ethertype = ethertype(&section)?;
        let vlan = section.number("vlan", 1, 4_094)?.map(|vlan| vlan as u16);
        let line = section.line_of("interface");
        for (other, first) in found.iter().zip(&lines).filter(|(it, _)| it.interface == interface) {
            let same_queue = match (queues, other.queues) {
                (Queues::One { queue: a, .. }, Queues::One { queue: b, .. }) => a == b,
                _ => true,
            };
            let text = if same_queue {
                format!("{interface} is used already (line {first}); name another queue of it")
            } else if (other.ethertype, other.vlan) != (ethertype, vlan) {
                format!(
                    "all queues of {interface} have one ethertype and one VLAN, and line {first} \
                     has others; write the same"
                )
            } else {
                continue;
            };
            return Err(Fault { line, text });
        }
        lines.push(line);
        let backends = [
            ("auto", ModeChoice::Auto),
            ("af_xdp", ModeChoice::Xdp),
            ("af_packet", ModeChoice::Only(RxMode::Packet)),
        ];
        Ok(Ethernet {
            name,
            interface,
            queues,
            ethertype,
            vlan,
            plain: section.choice("seal", &[("sealed", false), ("plain", true)])?.unwrap_or(false),
            backend: section.choice("backend", &backends)?.unwrap_or_default(),
            multi_buffer: section.flag("multi_buffer")?.unwrap_or(true),
            fill_ring_frames: section
                .number("fill_ring_frames", 64, u64::from(limits::FILL_RING_FRAMES_MAX))?
                .map_or(limits::FILL_RING_FRAMES, |frames| frames as u32),
            beacon_s: beacon_s(&section)?,
            capture: captures.claim(&section)?,
        })
    };
    for section in document.sections("ethernet", ETHERNET_KEYS)? {
        let read = one(section, &found);
        found.extend(document.good(read));
    }
    Ok(found)
}

fn beacon_s(section: &Section<'_>) -> Result<Option<u32>, Fault> {
    let every = section.number("beacon_s", 1, BEACON_S_MAX)?;
    let fault = |key, text: &str| Err(Fault { line: section.line_of(key), text: text.to_owned() });
    match (section.flag("beacon")?.unwrap_or(false), every) {
        (true, _) if section.is_text("seal", "plain") => fault(
            "beacon",
            "beacons find peers for sealed links, and a plain port has none; leave out beacon or \
             seal = \"plain\"",
        ),
        (true, every) => Ok(Some(every.map_or(BEACON_S, |every| every as u32))),
        (false, Some(_)) => fault("beacon_s", "beacon_s goes with beacon = true"),
        (false, None) => Ok(None),
    }
}

fn interface(section: &Section<'_>) -> Result<String, Fault> {
    let interface = section.text("interface")?.ok_or_else(|| section.missing("interface"))?;
    let (value, line) = (interface.value, interface.line);
    let is_invalid = |c: char| c.is_whitespace() || c.is_control() || c == '/';
    if value.is_empty() || value.len() > INTERFACE_BYTES_MAX || value.contains(is_invalid) {
        let text = format!(
            "{value:?} is not the name of an interface; `ip link` lists those of this machine"
        );
        return Err(Fault { line, text });
    }
    Ok(value.to_owned())
}

fn queues(section: &Section<'_>, workers: Option<usize>) -> Result<Queues, Fault> {
    let all = section.choice("queues", &[("all", ())])?.is_some();
    let queue = section.number("queue", 0, QUEUES_MAX - 1)?;
    let last_worker = workers.unwrap_or(1) as u64 - 1;
    let worker = section.number("worker", 0, last_worker)?;
    let fault =
        |key: &str, text: &str| Err(Fault { line: section.line_of(key), text: text.into() });
    match (all, queue, worker) {
        (true, Some(_), _) => {
            fault("queue", "queue and queues = \"all\" exclude each other; write one of them")
        }
        (true, None, Some(_)) => fault(
            "worker",
            "with queues = \"all\" each worker has the queue of its number; leave worker out",
        ),
        (true, None, None) => Ok(Queues::All),
        (false, queue, worker) => Ok(Queues::One {
            queue: queue.unwrap_or(0) as u32,
            worker: worker.unwrap_or(0) as usize,
        }),
    }
}

fn ethertype(section: &Section<'_>) -> Result<u16, Fault> {
    let given = section.number("ethertype", ETHERTYPE_MIN, u64::from(u16::MAX))?;
    let ethertype = given.map_or(limits::ETHERTYPE, |given| given as u16);
    let Some((_, whose)) = TAKEN.iter().find(|(taken, _)| *taken == ethertype) else {
        return Ok(ethertype);
    };
    let text = format!(
        "ethertype {ethertype:#06x} belongs to {whose}, which the machine needs itself; leave the key \
         out for {:#06x}",
        limits::ETHERTYPE
    );
    Err(Fault { line: section.line_of("ethertype"), text })
}

#[cfg(test)]
mod tests {
    use strowger_frame::Address;

    use super::*;
    use crate::relay::config::parse;

    /// A valid file.
    const VALID: &str = "\
[switch]
workers = 2
[[ethernet]]
name = \"lan\"
interface = \"eth0\"
queue = 1
worker = 1
vlan = 7
seal = \"plain\"
[[ethernet]]
interface = \"eth1\"
queues = \"all\"
ethertype = 0x88b6
backend = \"af_packet\"
seal = \"plain\"
[[neighbour]]
name = \"a\"
address = \"02:00:00:00:00:0A\"
listener = \"lan\"
";

    #[test]
    fn a_valid_file_is_parsed() {
        let config = parse(VALID).unwrap();
        let [lan, eth1] = config.ethernet.as_slice() else { panic!("two") };
        assert_eq!(lan.queues, Queues::One { queue: 1, worker: 1 });
        assert_eq!(
            (lan.ethertype, lan.vlan, lan.plain, lan.multi_buffer),
            (0x88b5, Some(7), true, true)
        );
        assert_eq!(
            (eth1.name.as_str(), eth1.queues, eth1.ethertype),
            ("eth1", Queues::All, 0x88b6)
        );
        assert_eq!(eth1.backend, ModeChoice::Only(RxMode::Packet));
        assert_eq!(config.neighbours[0].address, Address::Ether([2, 0, 0, 0, 0, 10]));
    }

    #[test]
    fn beacons_are_off_by_default() {
        assert!(parse(VALID).unwrap().ethernet.iter().all(|it| it.beacon_s.is_none()));
        let sealed = "[identity]\nkey = \"k\"\n[[ethernet]]\ninterface = \"eth0\"\n";
        for (more, every) in [
            ("", None),
            ("beacon = false", None),
            ("beacon = true", Some(BEACON_S)),
            ("beacon = true\nbeacon_s = 60", Some(60)),
        ] {
            let config = parse(&format!("{sealed}{more}")).unwrap();
            assert_eq!(config.ethernet[0].beacon_s, every, "{more}");
        }
    }

    #[test]
    fn each_error_names_its_line_and_the_remedy() {
        let cases: &[(&str, &str, usize, &[&str])] = &[
            ("interface = \"eth0\"", "", 3, &["[[ethernet]] needs the key `interface`"]),
            ("\"eth0\"", "\"an interface\"", 5, &["not the name of an interface", "ip link"]),
            ("\"eth0\"", "\"sixteen-letters-\"", 5, &["not the name of an interface"]),
            ("interface = \"eth0\"", "interfaces = \"eth0\"", 5, &["did you mean `interface`?"]),
            ("queue = 1", "queue = 4096", 6, &["0 to 4095"]),
            ("queue = 1", "queues = \"some\"", 6, &["\"all\""]),
            ("worker = 1", "worker = 2", 7, &["0 to 1"]),
            ("queue = 1", "queues = \"all\"", 7, &["leave worker out"]),
            ("worker = 1", "queues = \"all\"", 6, &["exclude each other"]),
            ("vlan = 7", "vlan = 4095", 8, &["1 to 4094"]),
            ("vlan = 7", "ethertype = 5", 8, &["1536 to 65535"]),
            ("vlan = 7", "ethertype = 0x0800", 8, &["IPv4", "0x88b5"]),
            ("vlan = 7", "backend = \"io_uring\"", 8, &["\"af_xdp\" or \"af_packet\""]),
            ("vlan = 7", "pieces = true", 8, &["it is called `multi_buffer` now"]),
            ("vlan = 7", "fill_ring_frames = 1", 8, &["64 to 16384"]),
            ("vlan = 7", "beacon = true", 8, &["sealed links", "leave out beacon or"]),
            ("vlan = 7", "beacon = 10", 8, &["true or false"]),
            ("vlan = 7", "beacon_s = 5", 8, &["beacon = true"]),
            ("vlan = 7", "beacon_s = 0", 8, &["1 to 3600"]),
            ("\"eth1\"", "\"eth0\"", 11, &["already (line 5)", "another queue"]),
            ("name = \"lan\"", "name = \"eth1\"", 10, &["the [[ethernet]] in line 4"]),
            ("seal = \"plain\"", "", 16, &["only sealed ones", "in the [[ethernet]]"]),
            ("02:00:00:00:00:0A", "02:00:00:00:00", 18, &["not an address", "02:00:00:00:00:01"]),
            ("02:00:00:00:00:0A", "ff:ff:ff:ff:ff:ff", 18, &["not the address of one station"]),
            ("02:00:00:00:00:0A", "192.0.2.1:7", 18, &["\"lan\"", "MAC address"]),
            ("listener = \"lan\"", "", 16, &["needs listener", "lan, eth1"]),
            ("listener = \"lan\"", "listener = \"lam\"", 19, &["did you mean \"lan\"?"]),
        ];
        for (line, instead, blamed, words) in cases {
            assert!(VALID.contains(line), "{line}");
            let fault = parse(&VALID.replacen(line, instead, 1)).expect_err(instead);
            assert_eq!(fault.line, *blamed, "{instead}: {fault}");
            assert!(words.iter().all(|word| fault.text.contains(word)), "{instead}: {fault}");
            assert!(!fault.text.contains('\n'), "one line: {fault}");
        }
        let queue = VALID.replace("eth1", "eth0").replace("queues = \"all\"", "queue = 0");
        assert!(parse(&queue).unwrap_err().text.contains("one ethertype and one VLAN"));
        let sealed = parse("[[ethernet]]\ninterface = \"eth0\"").unwrap_err();
        assert!(sealed.text.contains("needs [identity]"), "{sealed}");
        let by_udp = "[[udp]]\naddress = \"127.0.0.1:7\"\nseal = \"plain\"\n[[neighbour]]\n\
                      name = \"a\"\naddress = \"02:00:00:00:00:01\"";
        let fault = parse(by_udp).unwrap_err();
        assert!(fault.line == 6 && fault.text.contains("[[ethernet]]"), "{fault}");
    }
}
