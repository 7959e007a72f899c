//! `strowger config check` reports what a start on this machine would refuse, without changing a
//! file.

use std::{
    collections::BTreeMap,
    fs,
    net::UdpSocket,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::STROWGER;
use strowger_testkit::{
    DEADLINE, eventually,
    harness::{
        netns::{self, *},
        packet,
        relay::*,
    },
    skip,
};

/// The user of `[process]` in these tests, and its group.
const NOBODY: u32 = 65_534;

/// A folder with a key, and configurations in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(strowger(&["key", "new", place.path("key").to_str().unwrap()]).status.success());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a configuration, after replacing `DIR` with the folder.
    fn write(&self, sections: &str) -> String {
        let dir = self.0.path().to_str().unwrap();
        let text = format!("control.socket = \"DIR/control\"\n{sections}").replace("DIR", dir);
        let file = self.path("relay.toml");
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }

    fn check(&self, sections: &str) -> Output {
        strowger(&["config", "check", &self.write(sections)])
    }

    /// Asserts that the check reports exactly one problem per list, which contains all words of the
    /// list, and that the folder is unchanged.
    #[track_caller]
    fn refused(&self, sections: &str, code: i32, problems: &[&[&str]]) {
        let file = self.write(sections);
        let before = everything_in(self.0.path());
        let output = strowger(&["config", "check", &file]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert_eq!(stderr.lines().count(), problems.len(), "{stderr}");
        for words in problems {
            let is_it = |line: &&str| words.iter().all(|word| line.contains(word));
            assert_eq!(stderr.lines().filter(is_it).count(), 1, "{words:?}: {stderr}");
        }
        assert!(!String::from_utf8_lossy(&output.stdout).contains("fine"));
        assert_eq!(everything_in(self.0.path()), before);
    }

    /// Asserts that the check passes and that the folder is unchanged. Returns the output.
    #[track_caller]
    fn fine(&self, sections: &str) -> String {
        let file = self.write(sections);
        let before = everything_in(self.0.path());
        let output = strowger(&["config", "check", &file]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(everything_in(self.0.path()), before);
        String::from_utf8(output.stdout).unwrap()
    }
}

/// For the folder and each entry below it, by path: type and mode, owner, length and change time.
fn everything_in(folder: &Path) -> BTreeMap<PathBuf, (u32, u32, u64, i64, i64)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let at = fs::symlink_metadata(&path).unwrap();
        if at.is_dir() {
            found.extend(everything_in(&path));
        }
        found.insert(path, (at.mode(), at.uid(), at.len(), at.ctime(), at.ctime_nsec()));
    }
    let at = fs::metadata(folder).unwrap();
    found.insert(folder.into(), (at.mode(), at.uid(), 0, at.ctime(), at.ctime_nsec()));
    found
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

const UDP: &str = "[[udp]]\nname = \"wan\"\naddress = \"127.0.0.1:0\"\n";
const IDENTITY: &str = "[identity]\nkey = \"DIR/key\"\n";

/// A peer with a key that depends on `number`.
fn peer(name: &str, number: u8, more: &str) -> String {
    let key = format!("{number:02x}").repeat(32);
    format!("[[peer]]\nname = \"{name}\"\nkey = \"{key}\"\n{more}\n")
}

#[test]
fn config_check_reads_the_keys_and_reports_each_fault() {
    let place = Place::new();
    let set_mode = |name: &str, mode| {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    place.fine(&format!("{IDENTITY}{UDP}"));
    for name in ["open", "short"] {
        fs::write(place.path(name), "0123").unwrap();
    }
    set_mode("open", 0o640);
    set_mode("short", 0o600);
    let peers = peer("a", 1, "psk = \"DIR/none\"")
        + &peer("b", 2, "psk = \"DIR/open\"")
        + &peer("c", 3, "psk = \"DIR/short\"");
    set_mode("key", 0o644);
    place.refused(
        &format!("{IDENTITY}{UDP}{peers}"),
        3,
        &[
            &["[identity]: key file ", "mode 0644", "chmod 600"],
            &["peer \"a\": psk file ", "/none", "key psk FILE"],
            &["peer \"b\": psk file ", "mode 0640", "chmod 600"],
            &["peer \"c\": psk file ", "64 hex digits"],
        ],
    );
    fs::write(place.path("key"), "no key\n").unwrap();
    set_mode("key", 0o600);
    place.refused(&format!("{IDENTITY}{UDP}"), 3, &[&["[identity]: key file "]]);
    if is_root() {
        fs::remove_file(place.path("key")).unwrap();
        assert!(strowger(&["key", "new", place.path("key").to_str().unwrap()]).status.success());
        chown(place.path("key"), Some(12_345), None).unwrap();
        place.refused(&format!("{IDENTITY}{UDP}"), 3, &[&["[identity]: key file ", "user 12345"]]);
    }
}

#[test]
fn config_check_reports_a_missing_process_user() {
    let place = Place::new();
    place.refused(
        &format!("{IDENTITY}{UDP}[process]\nuser = \"no-such-user\"\n"),
        3,
        &[&["[process]: ", "no user \"no-such-user\"", "getent passwd"]],
    );
}

#[test]
fn config_check_reports_files_and_sockets_that_the_process_user_cannot_use() {
    let place = Place::new();
    if !is_root() {
        return skip("only root has rights that a relay can give up");
    }
    let process = "[process]\nuser = \"nobody\"\n";
    // Root owns this folder, and the configured user cannot write in it.
    fs::create_dir(place.path("ours")).unwrap();
    place.refused(
        &format!("switch.state = \"DIR/ours/state\"\n{process}"),
        3,
        &[&["the state file: ", "/ours/state", "ermission denied", "chown nobody"]],
    );
    // Another user owns this folder. The configured user cannot write in it, and root must not use
    // its own privileges there.
    fs::create_dir(place.path("theirs")).unwrap();
    chown(place.path("theirs"), Some(12_345), None).unwrap();
    fs::set_permissions(place.path("theirs"), fs::Permissions::from_mode(0o755)).unwrap();
    let udp = "[[udp]]\nname = \"wan\"\naddress = \"127.0.0.1:0\"\nseal = \"plain\"\n";
    place.refused(
        &format!(
            "switch.state = \"DIR/theirs/state\"\n{process}{udp}capture = \"DIR/theirs/cap.pcapng\"\n\
             [[unix]]\nname = \"local\"\npath = \"DIR/theirs/local\"\n"
        ),
        3,
        &[
            &["the state file: ", "/theirs/state", "chown nobody"],
            &["the capture of [[udp]] wan: ", "/theirs/cap.pcapng", "chown nobody"],
            &["the socket of [[unix]] local: ", "/theirs/local", "chown nobody"],
        ],
    );
    // Now the configured user owns the folder.
    chown(place.path("theirs"), Some(NOBODY), Some(NOBODY)).unwrap();
    place.fine(&format!(
        "switch.state = \"DIR/theirs/state\"\n{process}{udp}capture = \"DIR/theirs/cap.pcapng\"\n\
         [[unix]]\nname = \"local\"\npath = \"DIR/theirs/local\"\n"
    ));
}

#[test]
fn config_check_reports_files_in_the_way() {
    let place = Place::new();
    let udp = "[[udp]]\nname = \"wan\"\naddress = \"127.0.0.1:0\"\nseal = \"plain\"\n";
    fs::write(place.path("notes"), "not a capture").unwrap();
    fs::write(place.path("control"), "not a socket").unwrap();
    symlink(place.path("elsewhere"), place.path("state.lock")).unwrap();
    place.refused(
        &format!(
            "switch.state = \"DIR/state\"\n{udp}capture = \"DIR/notes\"\n\
             [[unix]]\nname = \"local\"\npath = \"DIR/none/local\"\n"
        ),
        3,
        &[
            &["the capture of [[udp]] wan: ", "/notes", "no capture", "not overwritten"],
            &["the control socket: ", "/control", "a regular file is in the way"],
            &["the lock of the state file: ", "/state.lock", "symbolic link"],
            &["the socket of [[unix]] local: ", "/none/local", "make the folder"],
        ],
    );
    fs::remove_file(place.path("control")).unwrap();
    fs::remove_file(place.path("state.lock")).unwrap();
    fs::write(place.path("state"), "not a state file\n").unwrap();
    place.refused("switch.state = \"DIR/state\"\n", 3, &[&["state file ", "not a state file"]]);
    place.refused(
        "switch.state = \"DIR/none/state\"\n",
        3,
        &[&["the state file: ", "make the folder"]],
    );
}

#[test]
fn config_check_reads_the_address_book() {
    let place = Place::new();
    let book = "[switch]\naddress_book = \"DIR/peers.toml\"\n";
    place.refused(
        &format!("{IDENTITY}{UDP}{book}"),
        3,
        &[&["the address book", "peers.toml (address_book in [switch]): "]],
    );
    std::fs::write(place.path("peers.toml"), "[[name]]\nname = 7\n").unwrap();
    place.refused(
        &format!("{IDENTITY}{UDP}{book}"),
        2,
        &[&["peers.toml: line 1: ", "line 2: name in [[name]] must be a string"]],
    );
}

#[test]
fn config_check_finds_one_file_in_two_roles() {
    let place = Place::new();
    place.refused(
        &format!("{IDENTITY}{UDP}[switch]\naddress_book = \"DIR/key\"\n"),
        2,
        &[&["the address book", "is also the key of [identity]"], &["key: "]],
    );
    place.refused(
        &format!("{IDENTITY}{UDP}capture = \"DIR/../{}/key\"\n", file_name(place.0.path())),
        2,
        &[
            &["capture of [[udp]] wan", "is also the key of [identity]"],
            &["capture of [[udp]] wan", "not overwritten"],
        ],
    );
}

fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn config_check_reports_missing_addresses_and_interfaces() {
    let place = Place::new();
    place.refused(
        &format!(
            "{IDENTITY}[[udp]]\nname = \"wan\"\naddress = \"192.0.2.1:7000\"\n\
             [[udp]]\nname = \"link\"\naddress = \"[fe80::1%no-such-if]:7000\"\n\
             [[ethernet]]\nname = \"lan\"\ninterface = \"no-such-if\"\n\
             [[ethernet]]\nname = \"loop\"\ninterface = \"lo\"\n{}{}",
            peer("a", 1, "listener = \"link\"\naddress = \"[fe80::2%no-such-if]:7000\""),
            peer("b", 2, "listener = \"lan\""),
        ),
        3,
        &[
            &["listener \"wan\": address \"192.0.2.1:7000\": ", "no such address", "waits 60 s"],
            &["listener \"link\": address \"[fe80::1%no-such-if]:7000\": ", "no interface"],
            &["peer \"a\": address \"[fe80::2%no-such-if]:7000\": ", "no interface no-such-if"],
            &["[[ethernet]] lan: ", "no interface no-such-if", "ip link", "waits 60 s"],
            &["[[ethernet]] loop: ", "lo is not an Ethernet interface"],
        ],
    );
}

#[test]
fn config_check_reports_the_program_that_has_a_port_or_a_socket() {
    let place = Place::new();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let _listener = UnixListener::bind(place.path("local")).unwrap();
    let sections = format!(
        "[[udp]]\nname = \"wan\"\naddress = \"{at}\"\nseal = \"plain\"\n\
         [[unix]]\nname = \"local\"\npath = \"DIR/local\"\n"
    );
    // This process holds the sockets. The kernel cuts its name to 15 bytes. A child that another
    // test has just forked also holds the sockets, so the process ID is not compared.
    let process = "(process ";
    let program = fs::read_to_string("/proc/self/comm").unwrap();
    let used = format!("in use by {}", program.trim());
    place.refused(
        &sections,
        3,
        &[
            &["listener \"wan\": ", &at.to_string(), &used, process],
            &["the socket of [[unix]] local, ", "/local", &used, process],
        ],
    );
}

#[test]
fn config_check_reports_ports_that_an_ordinary_user_may_not_bind() {
    let place = Place::new();
    if !is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        return skip("setpriv is to be root's, to become an ordinary user");
    }
    let all = fs::Permissions::from_mode(0o777);
    fs::set_permissions(place.0.path(), all).unwrap();
    let file =
        place.write("[[udp]]\nname = \"dns\"\naddress = \"127.0.0.1:99\"\nseal = \"plain\"\n");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    // In a new network namespace the kernel's default for unprivileged ports applies.
    let Ok(space) = Namespace::new() else { return skip("no network namespace") };
    netns::run(&format!("ip -n {} link set dev lo up", space.0)).unwrap();
    let mut outer = Command::new("ip");
    outer.args(["netns", "exec", &space.0, "setpriv"]).args(command.get_args());
    let output = outer.args([STROWGER, "config", "check", &file]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(3), 1), "{stderr}");
    assert!(
        stderr.contains("ports below 1024") && stderr.contains("CAP_NET_BIND_SERVICE"),
        "{stderr}"
    );
}

#[test]
fn config_check_finds_faults_that_only_the_switch_refuses() {
    let place = Place::new();
    let id = strowger(&["key", "id", "--json", place.path("key").to_str().unwrap()]);
    let id: serde_json::Value = serde_json::from_slice(&id.stdout).unwrap();
    let own = format!("[[peer]]\nname = \"me\"\nkey = \"{}\"\n", id["key"].as_str().unwrap());
    place.refused(
        &format!("{IDENTITY}{UDP}{own}{}", peer("other", 1, "")),
        2,
        &[&["me cannot be attached: ", "this switch's own"]],
    );
    let many = "switch.workers = 17\n";
    place.refused(
        &format!("{many}{IDENTITY}{UDP}{}{}", peer("a", 1, ""), peer("b", 2, "")),
        3,
        &[&["[identity]: ", "at most 16 workers"]],
    );
}

#[test]
fn config_check_finds_a_state_file_of_another_scheme() {
    let home = Home::new();
    let state = home.file("state");
    let with = |scheme: &str| {
        format!("[switch]\nscheme = \"{scheme}\"\nstate = \"{}\"\n", state.display())
    };
    drop(home.start_with(&with("v3x5x8")));
    assert!(state.exists());
    let place = Place::new();
    place.fine(&with("v3x5x8"));
    place.refused(&with("f4"), 3, &[&["state file ", "write scheme = \"v3x5x8\""]]);
}

#[test]
fn config_check_and_start_refuse_the_machine_s_own_and_broadcast_addresses() {
    let Some([near, _far]) = pair() else { return };
    netns::run(&format!("ip -n {} addr add 198.51.100.1/24 dev e0", near.0)).unwrap();
    let place = Place::new();
    let address =
        |at: &str, listener: &str| format!("address = \"{at}\"\nlistener = \"{listener}\"");
    let sections = format!(
        "{IDENTITY}[[udp]]\nname = \"wan\"\naddress = \"0.0.0.0:7000\"\n\
         [[ethernet]]\nname = \"lan\"\ninterface = \"e0\"\nbackend = \"af_packet\"\n{}{}{}{}{}",
        peer("own", 1, &address("198.51.100.1:7000", "wan")),
        peer("all", 2, &address("198.51.100.255:7000", "wan")),
        peer("mac", 3, &address(MACS[0], "lan")),
        // These peers could be other relays, one on this machine and one on another.
        peer("beside", 4, &address("198.51.100.1:7001", "wan")),
        peer("far", 5, &address(MACS[1], "lan")),
    );
    let file = place.write(&sections);
    let within = |arguments: &[&str]| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &near.0, STROWGER]).args(arguments);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, printed) = within(&["config", "check", &file]);
    assert_eq!((code, printed.lines().count()), (Some(2), 3), "{printed}");
    for (name, word) in [
        ("own", "listens there"),
        ("all", "broadcast address of the network at e0"),
        ("mac", "e0 itself has it"),
    ] {
        let words = [&format!("peer \"{name}\": address "), "is not usable", word];
        let is_it = |line: &&str| words.iter().all(|word| line.contains(word));
        assert_eq!(printed.lines().filter(is_it).count(), 1, "{words:?}: {printed}");
    }
    let (code, printed) = within(&["relay", "--config", &file]);
    assert_eq!((code, printed.lines().count()), (Some(2), 1), "{printed}");
    assert!(
        printed.contains("peer \"own\"") && printed.contains("config check` shows 2 more"),
        "{printed}"
    );
    // A running relay refuses the same addresses in requests on its control socket.
    let directory = Home::new();
    let relay = Relay::within(
        &near,
        directory,
        "[identity]\nkey = \"DIR/key\"\n[[udp]]\nname = \"wan\"\naddress = \"0.0.0.0:7000\"\n\
         [[ethernet]]\nname = \"lan\"\ninterface = \"e0\"\nbackend = \"af_packet\"\n",
    );
    let key = "09".repeat(32);
    for (at, listener, word) in [
        ("198.51.100.1:7000", "wan", "listens there"),
        ("198.51.100.255:9", "wan", "broadcast"),
        (MACS[0], "lan", "e0 itself has it"),
    ] {
        let answer = relay.ask(&format!(
            "{{\"attach\":{{\"name\":\"x\",\"address\":\"{at}\",\"listener\":\"{listener}\",\"key\":\"{key}\"}}}}"
        ));
        assert!(answer.to_string().contains(word), "{at}: {answer}");
    }
    relay.stop();
}

#[test]
fn config_check_works_beside_a_running_relay() {
    let home = Home::new();
    let state = home.file("state");
    let other = home.file("other");
    let relay = home.start_with(&format!(
        "[[unix]]\nname = \"other\"\npath = \"{}\"\nslot = 5\n[switch]\nstate = \"{}\"\n",
        other.display(),
        state.display()
    ));
    eventually("the state is written", || state.exists().then_some(()));
    let (mut near, mut far) = (relay.client(), relay.client_of("other", 5));
    // Each client has sent one packet to the switch itself. The slow path counts the packet some
    // time after the worker has received it.
    eventually("both packets are counted", || {
        let discards = relay.ask(r#"{"show":"discards"}"#)["discards"].take();
        let all: u64 = discards.as_object().unwrap().values().filter_map(|n| n.as_u64()).sum();
        (all >= 2).then_some(())
    });
    let counts = || {
        let slots = relay.ask(r#"{"show":"slots"}"#)["slots"].take();
        let frames = slots.as_array().unwrap().iter().map(|row| row["frames_in"].clone());
        let discards = relay.ask(r#"{"show":"discards"}"#)["discards"].take();
        (frames.collect::<Vec<_>>(), discards, relay.events("slot_attached").len())
    };
    let (before, files) = (counts(), everything_in(home.path()));
    let file = home.file("relay.toml");
    let output = strowger(&["config", "check", file.to_str().unwrap()]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(stdout.lines().count(), 6, "{stdout}");
    let running = "in use by a running relay (process ";
    for what in
        ["the control socket, ", "the socket of [[unix]] local, ", "the lock of the state file, "]
    {
        assert!(
            stdout.lines().any(|line| line.contains(what) && line.contains(running)),
            "{stdout}"
        );
    }
    let wan = format!("address \"{}\" is in use by a running relay (process ", home.at);
    assert!(stdout.contains(&wan) && stdout.ends_with("relay.toml: fine\n"), "{stdout}");
    assert_eq!((counts(), everything_in(home.path())), (before, files));
    // The running relay still forwards between its endpoints.
    assert!(near.send(&packet(&[(4, 5)], b"there"), DEADLINE).unwrap());
    let received = far.receive(&mut [0; 2048], DEADLINE).unwrap();
    assert!(received.is_some_and(|received| received.ingress == 4));
}

#[test]
fn config_check_of_the_text_alone_reads_nothing_else() {
    let place = Place::new();
    let file = place.write(
        "[identity]\nkey = \"DIR/none\"\n[process]\nuser = \"no-such-user\"\n\
         [[udp]]\naddress = \"192.0.2.1:7000\"\n",
    );
    let output = strowger(&["config", "check", "--text-only", &file]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(place.check("[[udp]]\nadress = \"127.0.0.1:0\"\n").status.code(), Some(2));
}
