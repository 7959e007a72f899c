//! Three relays in a line, each in its own namespace, and programs at both ends.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Once,
        mpsc::{Receiver, channel},
    },
    thread,
};

use serde_json::Value;
use strowger_crypto::{IdentityKey, Secret};
use strowger_testkit::{
    DEADLINE, eventually,
    harness::{
        label,
        netns::{Namespace, veth},
        relay::{Home, Relay, binary},
    },
    skip, until,
};
use strowger_wire::scheme::V3X5X8;

use crate::GATEWAY;

/// The slot to the west, and the slot to the east of the middle relay.
pub(crate) const WEST: u32 = 2;
pub(crate) const EAST: u32 = 3;
/// The numbers of the relays.
pub(crate) const FIRST: usize = 0;
pub(crate) const MIDDLE: usize = 1;
pub(crate) const LAST: usize = 2;

/// The configuration of the links between the relays.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    /// `plain`, `full` or `header-only`.
    pub(crate) seal: &'static str,
    /// Further keys in each section of a peer or neighbour.
    pub(crate) more: &'static str,
    /// Further sections of every relay.
    pub(crate) sections: &'static str,
    /// Whether each port of each relay has a capture.
    pub(crate) captures: bool,
    /// The address that the middle and the last relay use for each other, instead of the veth pair.
    pub(crate) detour: Option<&'static str>,
    /// The words in front of the command line of the middle relay; may be empty.
    pub(crate) before: String,
}

impl Default for Links {
    fn default() -> Links {
        Links {
            seal: "full",
            more: "",
            sections: "",
            captures: false,
            detour: None,
            before: String::new(),
        }
    }
}

/// Three relays.
pub(crate) struct Line {
    pub(crate) relays: Vec<Option<Relay>>,
    pub(crate) spaces: Vec<Namespace>,
    homes: Vec<Arc<Home>>,
    links: Links,
}

/// The interfaces: between the first and the middle relay, then between the middle and the last.
pub(crate) const INTERFACES: [[(usize, &str); 2]; 2] =
    [[(FIRST, "e0"), (MIDDLE, "e1")], [(MIDDLE, "e2"), (LAST, "e3")]];

/// Builds the command `strowger`. It is another package, which cargo does not build before these
/// tests.
fn build_command() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let test = std::env::current_exe().unwrap();
        if !test.ancestors().nth(2).unwrap().join("strowger").exists() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--offline", "--package", "strowger-cli"]);
            assert!(build.status().unwrap().success(), "strowger is not built");
        }
    });
}

impl Line {
    /// Starts the relays, and waits until their links are up. If there are no rights for
    /// namespaces, records the test as skipped and returns `None`.
    pub(crate) fn new(links: Links) -> Option<Line> {
        Line::new_with(links, |_| ()).map(|(line, ())| line)
    }

    /// Like `new`, and calls a function with the namespaces before the relays start.
    pub(crate) fn new_with<T>(
        links: Links,
        begin: impl FnOnce(&[Namespace]) -> T,
    ) -> Option<(Line, T)> {
        build_command();
        let spaces = connected().inspect_err(|why| skip(why)).ok()?;
        let begun = begin(&spaces);
        let homes = (0..3).map(|_| Home::new()).collect();
        let mut line = Line { relays: vec![None, None, None], spaces, homes, links };
        for number in [FIRST, MIDDLE, LAST] {
            line.relays[number] = Some(line.starter(number)());
        }
        line.until_up();
        Some((line, begun))
    }

    /// Returns a closure that starts or restarts this relay, on any thread.
    pub(crate) fn starter(&self, number: usize) -> impl FnOnce() -> Relay + Send + use<> {
        let Namespace(space) = &self.spaces[number];
        let before = if number == MIDDLE { self.links.before.as_str() } else { "" };
        let command = format!("ip netns exec {space} {before}{}", binary());
        let (home, config) = (self.homes[number].clone(), self.config(number));
        move || Relay::start(&command, home, &config)
    }

    pub(crate) fn relay(&self, number: usize) -> &Relay {
        self.relays[number].as_ref().expect("it runs")
    }

    fn config(&self, number: usize) -> String {
        let Links { seal, more, sections, captures, detour, .. } = &self.links;
        let plain = *seal == "plain";
        let capture = |name: &str| match captures {
            true => format!("capture = \"DIR/{name}.pcapng\"\n"),
            false => String::new(),
        };
        let mut config = format!(
            "[identity]\nkey = \"DIR/key\"\nnetwork = \"test\"\n\
             [liveness]\ninterval_ms = 300\nmultiplier = 3\nalways = true\n\
             [[unix]]\nname = \"programs\"\npath = \"DIR/programs\"\nclients = 6\n{}\
             [[unix]]\nname = \"raw\"\npath = \"DIR/raw\"\nslot = 20\n\
             [switch]\nquarantine_s = 0\nalias_s = 2\n{sections}",
            capture("programs")
        );
        // The neighbours of this relay: number, slot, own address, address of the neighbour.
        let mut neighbours = Vec::new();
        if number > FIRST {
            neighbours.push((number - 1, WEST, 2, 1));
        }
        if number < LAST {
            neighbours.push((number + 1, if number == FIRST { WEST } else { EAST }, 1, 2));
        }
        for (neighbour, slot, own, far) in neighbours {
            let net = number.min(neighbour);
            let (mut at, mut to) =
                (format!("10.77.{net}.{own}:7000"), format!("10.77.{net}.{far}:7000"));
            if let (Some(address), MIDDLE) = (detour, net) {
                (at, to) = ("127.0.0.1:7000".to_owned(), (*address).to_owned());
            }
            let listener = if plain { "seal = \"plain\"\n" } else { "" };
            config += &format!(
                "[[udp]]\nname = \"udp{slot}\"\naddress = \"{at}\"\n{listener}{}",
                capture(&format!("udp{slot}"))
            );
            let kind = if plain { "neighbour" } else { "peer" };
            config += &format!(
                "[[{kind}]]\nname = \"relay{neighbour}\"\naddress = \"{to}\"\nslot = {slot}\n\
                 listener = \"udp{slot}\"\n{more}"
            );
            if !plain {
                config += &format!("key = \"{}\"\nseal = \"{seal}\"\n", self.homes[neighbour].key);
            }
        }
        config
    }

    /// Waits until the relays that run have links to each other.
    pub(crate) fn until_up(&self) {
        if self.links.seal == "plain" {
            return;
        }
        for relay in self.relays.iter().flatten() {
            until("the links are up", || {
                let peers = relay.ask(r#"{"show":"peers"}"#);
                peers["peers"].as_array().unwrap().iter().all(|peer| peer["up"] == true)
            });
        }
    }

    /// The label from a program at the first relay to this slot of the last one.
    pub(crate) fn label_to(&self, slot: u32) -> String {
        label(&V3X5X8, &[(4, WEST), (WEST, EAST), (WEST, slot)]).to_string()
    }

    /// The slots of programs at this relay, with names of their ports.
    pub(crate) fn program_slots(&self, number: usize) -> Vec<(u32, String)> {
        let slots = self.relay(number).ask(r#"{"show":"slots"}"#);
        let rows = slots["slots"].as_array().unwrap().iter();
        let programs = rows.filter_map(|row| {
            let name = row["name"].as_str()?;
            let is_one = name.starts_with("programs.") && row["state"] == "attached";
            is_one.then(|| (row["slot"].as_u64().unwrap() as u32, name.to_owned()))
        });
        programs.collect()
    }

    /// The command `strowger-gateway` for this user at this relay.
    pub(crate) fn gateway(&self, number: usize, user: &User, arguments: &[&str]) -> Command {
        let folder = self.relay(number).home.path();
        let mut command = Command::new(GATEWAY);
        command
            .args(arguments)
            .arg("--folder")
            .arg(folder)
            .arg("--key")
            .arg(user.file("key"))
            .arg("--book")
            .arg(user.file("peers.toml"))
            .env("HOME", user.folder.path());
        command
    }

    /// Starts `receive` with these arguments at the last relay. Returns its process and slot.
    pub(crate) fn receive(&self, user: &User, arguments: &[&str]) -> (Program, u32) {
        let before = self.program_slots(LAST);
        let arguments = [&["receive"], arguments].concat();
        let program = Program::start(&mut self.gateway(LAST, user, &arguments));
        program.expect_error("accepts");
        let slot = eventually("the program has a slot", || {
            self.program_slots(LAST).into_iter().find(|slot| !before.contains(slot))
        });
        (program, slot.0)
    }

    /// Runs `send` with these arguments at the first relay until it ends, with standard input
    /// closed.
    pub(crate) fn send(&self, user: &User, arguments: &[&str]) -> Ran {
        self.run(user, &[&["send"], arguments].concat())
    }

    /// Runs the program with these arguments at the first relay until it ends.
    pub(crate) fn run(&self, user: &User, arguments: &[&str]) -> Ran {
        Program::start(&mut self.gateway(FIRST, user, arguments)).end()
    }

    /// Ends the relays, whose counters must balance.
    pub(crate) fn stop(mut self) {
        for relay in &mut self.relays {
            if let Some(relay) = relay.take() {
                relay.stop();
            }
        }
    }
}

fn connected() -> Result<Vec<Namespace>, String> {
    let spaces = [Namespace::new()?, Namespace::new()?, Namespace::new()?];
    for (net, [(a, a_name), (b, b_name)]) in INTERFACES.into_iter().enumerate() {
        veth([(&spaces[a], a_name, ""), (&spaces[b], b_name, "")])?;
        for (space, name, host) in [(a, a_name, 1), (b, b_name, 2)] {
            spaces[space].ip(&format!("addr add 10.77.{net}.{host}/24 dev {name}"));
        }
    }
    Ok(spaces.into())
}

/// A user with a key and an address book.
pub(crate) struct User {
    folder: tempfile::TempDir,
    pub(crate) peer_id: String,
    seed: u8,
}

impl User {
    pub(crate) fn new(seed: u8) -> User {
        let folder = tempfile::tempdir().unwrap();
        let key = IdentityKey::from_seed(&Secret::from_bytes([seed; 32]));
        strowger_runtime::files::create(&folder.path().join("key"), key.to_key_file().as_bytes())
            .unwrap();
        let peer_id = key.public().peer_id().to_string();
        User { folder, peer_id, seed }
    }

    pub(crate) fn key(&self) -> IdentityKey {
        IdentityKey::from_seed(&Secret::from_bytes([self.seed; 32]))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes an address book with this peer alone.
    pub(crate) fn knows_only(&self, name: &str, peer_id: &str, labels: &[String]) {
        let _ = fs::remove_file(self.file("peers.toml"));
        self.knows(name, peer_id, labels);
    }

    /// Adds a peer with these labels to the address book.
    pub(crate) fn knows(&self, name: &str, peer_id: &str, labels: &[String]) {
        let file = self.file("peers.toml");
        let book = fs::read_to_string(&file).unwrap_or_default();
        let entry = format!(
            "[[name]]\nname = \"{name}\"\npeer_id = \"{peer_id}\"\nlabels = {labels:?}\n\
             purposes = [\"connect\", \"accept\"]\n"
        );
        fs::write(file, book + &entry).unwrap();
    }
}

/// The output and exit status of a program.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) error: String,
}

/// A running program, whose output comes line by line. Dropping it kills the process.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) out: Receiver<String>,
    pub(crate) errors: Receiver<String>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Program {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the program starts");
        let out = lines(child.stdout.take().unwrap());
        let errors = lines(child.stderr.take().unwrap());
        Program { child, out, errors }
    }

    /// Waits for a line of standard error with these words.
    #[track_caller]
    pub(crate) fn expect_error(&self, words: &str) -> String {
        let mut seen = Vec::new();
        while let Ok(line) = self.errors.recv_timeout(DEADLINE) {
            if line.contains(words) {
                return line;
            }
            seen.push(line);
        }
        panic!("no line with {words:?}, but {seen:?}");
    }

    /// Closes standard input, and waits until the program has ended.
    pub(crate) fn end(mut self) -> Ran {
        self.child.stdin = None;
        self.wait()
    }

    /// Waits until the program has ended.
    pub(crate) fn wait(mut self) -> Ran {
        let status = eventually("the program ends", || self.child.try_wait().unwrap());
        let all = |lines: &Receiver<String>| lines.iter().collect::<Vec<_>>().join("\n");
        Ran { status, out: all(&self.out), error: all(&self.errors) }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (lines_in, lines) = channel();
    thread::spawn(move || {
        BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| lines_in.send(line))
    });
    lines
}

/// The discards of a relay, by reason.
pub(crate) fn discards(relay: &Relay) -> Value {
    relay.ask(r#"{"show":"discards"}"#)["discards"].take()
}
