//! `strowger config check`: reports the problems of a configuration on this machine without
//! starting a relay. It checks files, searches the kernel's lists of sockets, and performs a dry
//! run. It changes no file and binds no listener, so it may run while a relay runs.
//!
//! A problem would make a start fail, or make the relay run without a configured part. A note
//! reports something that is no error, for example that a running relay uses a socket.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use strowger_crypto::{IdentityKey, OsEntropy, Psk};
use strowger_io::{
    udp,
    xdp::{self, ModeChoice, RxMode},
};
use strowger_runtime::{
    address::{AddressText, takes_ipv4_too},
    files::{Opener, Role},
    key_files,
    machine_addresses::{MachineAddresses, is_on_this_machine},
    untrusted::Untrusted,
};

use super::in_use::{Holder, Sockets, holder_of_lock};
use crate::{
    exit::{Exit, Failure, output_ended},
    limits::SOCKET_BUFFER_BYTES,
    relay::{
        book::LateLog,
        builder,
        config::{self, Config, Ethernet, Listener, addresses},
        files::roles,
    },
};

/// The number of bytes that the check pins to test whether AF_XDP may be used.
const UMEM_BYTES_TRIED: usize = 1 << 20;

/// The results of the checks.
#[derive(Debug, Default)]
struct Findings {
    problems: Vec<Failure>,
    notes: Vec<String>,
}

impl Findings {
    fn refused(&mut self, text: String) {
        self.problems.push(Failure::new(Exit::Refused, text));
    }

    fn wrong(&mut self, text: String) {
        self.problems.push(Failure::new(Exit::Usage, text));
    }

    fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Reports that a process uses a socket or file. This is a problem only if the process is known
    /// and is not a relay.
    fn in_use(&mut self, what: &str, holder: &Holder) {
        match holder {
            Holder::Other(..) => self.refused(format!(
                "{what} is in use by {holder}; stop that process, or choose another"
            )),
            Holder::Relay(_) | Holder::Unknown => {
                self.note(format!("{what} is in use by {holder}"))
            }
        }
    }
}

/// Checks a file and prints its problems. The exit code is 2 for an error in the configuration.
/// Otherwise it is 3 if this machine would refuse an operation of the relay.
///
/// # Errors
/// The file cannot be read, or the output cannot be written.
pub(crate) fn run(
    file: &Path,
    is_text_only: bool,
    output: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let shown = file.display().to_string();
    let print_error = |line: &str| {
        let _ = writeln!(io::stderr(), "strowger: {}", Untrusted(line));
    };
    let config = match config::read_lines(file)? {
        Ok(config) => config,
        Err(lines) => {
            lines.iter().for_each(|line| print_error(line));
            return Ok(Failure::new(Exit::Usage, "").code());
        }
    };
    let found = if is_text_only { Findings::default() } else { check_machine(file, config) };
    let mut text = String::new();
    for note in &found.notes {
        text += &format!("{}: note: {}\n", Untrusted(&shown), Untrusted(note));
    }
    for problem in &found.problems {
        print_error(&format!("{shown}: {}", problem.line));
    }
    let exit = found.problems.iter().map(|problem| problem.exit).min_by_key(|exit| *exit as u8);
    if exit.is_none() {
        text += &format!("{}: fine\n", Untrusted(&shown));
    }
    output.write_all(text.as_bytes()).or_else(|error| output_ended(&error))?;
    Ok(exit.map_or(ExitCode::SUCCESS, |exit| Failure::new(exit, "").code()))
}

/// Performs those checks of a start that depend on this machine.
fn check_machine(file: &Path, mut config: Config) -> Findings {
    let mut found = Findings::default();
    let account = builder::account(&config).unwrap_or_else(|failure| {
        found.problems.push(failure);
        None
    });
    let workers = strowger_runtime::workers(config.workers, config.cores.as_deref());
    let workers = workers.unwrap_or_else(|error| {
        found.problems.push(builder::failure(error));
        config.workers.unwrap_or(1)
    });
    let opener = Opener::new(account.as_ref());
    let user = account.as_ref().map(|account| account.name.as_str());
    let sockets = Sockets::now();

    let roles = roles(&config, file, workers);
    roles.conflicts().into_iter().for_each(|conflict| found.wrong(conflict));
    let identity = check_secrets(&config, &opener, &mut found);
    for (role, path) in roles.each() {
        check_file(role, path, (&opener, user), &sockets, &mut found);
    }
    if let Err(absent) = config.resolve() {
        absent.into_iter().for_each(|line| found.refused(line));
    }
    for listener in &config.udp {
        check_listener(listener, &config, &sockets, &mut found);
    }
    check_interfaces(&config, workers, &mut found);
    addresses::faults(&MachineAddresses::now(), &config)
        .into_iter()
        .for_each(|fault| found.wrong(fault));
    // If the key cannot be read, use a new key in its place for the remaining checks.
    let identity = identity.or_else(|| IdentityKey::generate(&mut OsEntropy).ok());
    let builder = builder::builder(&config, identity, |_| Ok(Psk::NONE), &LateLog::default());
    let builder = builder.map(|builder| builder.workers(workers).opener(opener));
    match builder {
        Ok(builder) => found.problems.extend(builder::dry_run(builder)),
        Err(failure) => found.problems.push(failure),
    }
    found
}

/// Reads the keys. Each file is read once.
fn check_secrets(config: &Config, opener: &Opener, found: &mut Findings) -> Option<IdentityKey> {
    let identity = config.identity.as_ref().and_then(|identity| {
        let read = key_files::read(&identity.key, opener);
        read.map_err(|why| found.refused(format!("[identity]: {why}"))).ok()
    });
    let mut read: Vec<&PathBuf> = Vec::new();
    let with_psk = config.peers.iter().filter_map(|peer| Some((peer, peer.psk.as_ref()?)));
    for (peer, file) in with_psk {
        if read.contains(&file) {
            continue;
        }
        read.push(file);
        if let Err(why) = key_files::read_psk(file, opener) {
            found.refused(format!("peer \"{}\": {why}", peer.name));
        }
    }
    identity
}

fn check_file(
    role: &Role,
    path: &Path,
    (opener, user): (&Opener, Option<&str>),
    sockets: &Sockets,
    found: &mut Findings,
) {
    let may = match role {
        // These files have been read already, so they need no check.
        Role::Configuration | Role::Key | Role::Psk | Role::AddressBook => Ok(()),
        Role::State | Role::StateNew => opener.may_replace_later(path),
        Role::StateLock => opener.may_keep(path).map(|there| {
            if let Some(holder) = there.and_then(|there| holder_of_lock(there.id)) {
                found.in_use(&format!("{role}, {},", path.display()), &holder);
            }
        }),
        Role::Capture(_) => opener.may_capture(path),
        Role::Control | Role::Unix(_) => opener.may_bind(path).map(|there| {
            if let Some(holder) = there.and_then(|_| sockets.holder_of_unix(path)) {
                found.in_use(&format!("{role}, {},", path.display()), &holder);
            }
        }),
    };
    let Err(error) = may else { return };
    let line = format!("{role}: {}: {error}; {}", path.display(), remedy(&error, path, user));
    // A problem with both the state file and its lock is reported only once.
    let is_reported = matches!(role, Role::StateNew | Role::StateLock)
        && found.problems.iter().any(|problem| problem.line.starts_with("the state file: "));
    if !is_reported {
        found.refused(line);
    }
}

fn remedy(error: &io::Error, path: &Path, user: Option<&str>) -> String {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).display();
    match error.kind() {
        io::ErrorKind::NotFound => format!("make the folder {folder}, or choose another path"),
        io::ErrorKind::PermissionDenied => match user {
            Some(user) => format!("chown {user} {folder}, or choose another path"),
            None => format!("allow this user to write in {folder}, or choose another path"),
        },
        _ => "choose another path".to_owned(),
    }
}

fn check_listener(listener: &Listener, config: &Config, sockets: &Sockets, found: &mut Findings) {
    let Listener { name, address: at, backend, .. } = listener;
    let shown = AddressText(strowger_frame::Address::Udp(*at));
    let whose = format!("listener \"{name}\": address \"{shown}\"");
    if !is_on_this_machine(*at) {
        found.refused(format!(
            "{whose}: this machine has no such address; `ip address` lists those it has{}",
            waiting(config)
        ));
    } else if let Some(first) = first_unprivileged(*at) {
        found.refused(format!(
            "{whose}: ports below {first} need root or CAP_NET_BIND_SERVICE, which this process lacks"
        ));
    }
    if let Some(holder) =
        sockets.holder_of_udp(*at, takes_ipv4_too(*at, config.udp.iter().map(|it| it.address)))
    {
        found.in_use(&whose, &holder);
    }
    let wants = match backend {
        udp::BackendChoice::Auto => None,
        udp::BackendChoice::IoUring => Some(udp::probe(SOCKET_BUFFER_BYTES).io_uring),
        udp::BackendChoice::Mmsg => Some(udp::probe(SOCKET_BUFFER_BYTES).datagrams),
    };
    if let Some(Err(refusal)) = wants {
        found.refused(format!(
            "listener \"{name}\": the configured backend does not work here: {refusal}; or leave backend out"
        ));
    }
}

/// The lowest port that this process may bind; `None` if it may bind the listener's port, or if the
/// kernel does not report the limit.
fn first_unprivileged(at: SocketAddr) -> Option<u16> {
    const PATH: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    /// `CAP_NET_BIND_SERVICE`.
    const BIT: u64 = 1 << 10;
    let first = fs::read_to_string(PATH).ok()?.trim().parse::<u16>().ok()?;
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let has = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let may_bind = u64::from_str_radix(has.trim(), 16).ok()? & BIT != 0;
    (at.port() != 0 && at.port() < first && !may_bind).then_some(first)
}

/// The end of a message about a missing address or interface: the time for which a start waits for
/// it. Empty if a start does not wait.
fn waiting(config: &Config) -> String {
    match config.wait.as_secs() {
        0 => String::new(),
        seconds => format!("; a start waits {seconds} s for it (wait_s in [switch])"),
    }
}

fn check_interfaces(config: &Config, workers: usize, found: &mut Findings) {
    if config.ethernet.is_empty() {
        return;
    }
    let machine = xdp::probe(UMEM_BYTES_TRIED);
    let of_xdp = [&machine.socket, &machine.memory, &machine.program];
    let no_xdp = of_xdp.iter().find_map(|tried| tried.as_ref().err());
    for ethernet in &config.ethernet {
        let by_packet = match ethernet.backend {
            ModeChoice::Only(mode) => mode == RxMode::Packet,
            ModeChoice::Auto => no_xdp.is_some(),
            ModeChoice::Xdp => false,
        };
        // With AF_PACKET a relay opens only the first queue, and receives the frames of all queues.
        let opened = if by_packet { 1 } else { usize::MAX };
        for spec in builder::ethernet_interface(ethernet)
            .specs(workers, config.switch.slot_max())
            .iter()
            .take(opened)
        {
            if let Err(why) = xdp::check(spec) {
                let waits = match why {
                    xdp::EtherOpenError::NoInterface { .. } => waiting(config),
                    _ => String::new(),
                };
                found.refused(format!("[[ethernet]] {}: {why}{waits}", ethernet.name));
                break;
            }
        }
    }
    for Ethernet { name, interface, backend, .. } in &config.ethernet {
        let refusal = match backend {
            ModeChoice::Only(RxMode::Packet) => machine.packet.as_ref().err(),
            ModeChoice::Auto => no_xdp.and_then(|_| machine.packet.as_ref().err()),
            ModeChoice::Xdp | ModeChoice::Only(_) => no_xdp,
        };
        let same = |other: &&Ethernet| other.interface == *interface;
        let alone = config.ethernet.iter().filter(same).count() == 1;
        if let Some(refusal) = refusal {
            found.refused(format!("[[ethernet]] {name}: {refusal}"));
        } else if !alone && (*backend == ModeChoice::Only(RxMode::Packet) || no_xdp.is_some()) {
            let why = no_xdp.map(|why| format!(", since AF_XDP cannot be used: {why}"));
            found.refused(format!(
                "[[ethernet]] {name}: af_packet takes the frames of all queues of {interface}, and there is \
                 more than one [[ethernet]] of it; leave one{}",
                why.unwrap_or_default()
            ));
        } else if let (Some(why), ModeChoice::Auto) = (no_xdp, backend) {
            found.note(format!(
                "[[ethernet]] {name}: by af_packet, since AF_XDP cannot be used: {why}"
            ));
        }
    }
}
