//! Attacks through files at the start of a relay: an unprivileged user puts files into a folder
//! that root's relay uses. A deadline ends each command that hangs.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use strowger_testkit::{eventually, harness::relay::*, skip};

/// The user of `[process]` in these tests, and its group.
const NOBODY: u32 = 65_534;

/// A folder of the configured user (`theirs`) and a folder of root (`ours`).
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// Returns `None` and skips the test if the test does not run as root.
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let all = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), all).unwrap();
        let place = Self { directory };
        fs::create_dir(place.theirs("")).unwrap();
        fs::create_dir(place.ours("")).unwrap();
        if chown(place.theirs(""), Some(NOBODY), Some(NOBODY)).is_err() {
            skip("only root has rights that a relay can give up");
            return None;
        }
        assert!(strowger(&["key", "new", place.ours("key").to_str().unwrap()]).status.success());
        Some(place)
    }

    fn theirs(&self, name: &str) -> PathBuf {
        self.directory.path().join("theirs").join(name)
    }

    fn ours(&self, name: &str) -> PathBuf {
        self.directory.path().join("ours").join(name)
    }

    /// The command that starts a relay with these sections, after replacing `THEIRS` and `OURS`
    /// with the folders.
    fn command(&self, sections: &str) -> Command {
        let socket = if sections.contains("control.socket") {
            ""
        } else {
            "control.socket = \"OURS/control\"\n"
        };
        let text = format!("{socket}{sections}");
        let text = text.replace("THEIRS", self.theirs("").to_str().unwrap().trim_end_matches('/'));
        let text = text.replace("OURS", self.ours("").to_str().unwrap().trim_end_matches('/'));
        fs::write(self.ours("relay.toml"), text).unwrap();
        let mut command = Command::new(crate::STROWGER);
        command.args(["relay", "--config", self.ours("relay.toml").to_str().unwrap()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Asserts that the relay ends by itself with one line that contains these words.
    #[track_caller]
    fn refused(&self, sections: &str, words: &[&str]) {
        let mut child = KillOnDrop(self.command(sections).spawn().unwrap());
        let status = eventually("the relay ends by itself", || child.0.try_wait().unwrap());
        let output = child.output();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(status.code(), Some(2 | 3)), "{status}: {stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{words:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }

    /// Starts a relay, and waits until it listens on this socket.
    fn runs(&self, sections: &str, socket: &Path) -> KillOnDrop {
        let mut child = KillOnDrop(self.command(sections).spawn().unwrap());
        eventually("the relay is ready", || {
            if child.0.try_wait().unwrap().is_some() {
                let stderr = String::from_utf8(child.output().stderr).unwrap();
                panic!("it ended: {stderr}");
            }
            std::os::unix::net::UnixStream::connect(socket).ok()
        });
        child
    }
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

const NOBODYS: &str = "[process]\nuser = \"nobody\"\n";

#[test]
fn a_link_in_the_place_of_a_lock_makes_no_file_of_root_s() {
    let Some(place) = Place::new() else { return };
    symlink(place.ours("made"), place.theirs("state.lock")).unwrap();
    for process in [NOBODYS, ""] {
        let config = format!("switch.state = \"THEIRS/state\"\n{process}");
        place.refused(&config, &["state file", "state.lock", "cannot be opened"]);
        assert!(!place.ours("made").exists());
    }
}

#[test]
fn a_link_in_the_place_of_a_state_file_leads_nowhere() {
    let Some(place) = Place::new() else { return };
    fs::write(place.ours("secret"), "of root's").unwrap();
    symlink(place.ours("secret"), place.theirs("state")).unwrap();
    let config = format!("switch.state = \"THEIRS/state\"\n{NOBODYS}");
    place.refused(&config, &["state file", "symbolic link"]);
    symlink(place.ours("secret"), place.theirs("state.new")).unwrap();
    fs::remove_file(place.theirs("state")).unwrap();
    // A relay that stays root replaces the link `state.new` and does not follow it.
    fs::remove_file(place.theirs("state.lock")).unwrap();
    let unix = "[[unix]]\nname = \"local\"\npath = \"OURS/local\"\n";
    let config = format!("switch.state = \"THEIRS/state\"\n{unix}");
    let relay = place.runs(&config, &place.ours("control"));
    eventually("it is written", || place.theirs("state").exists().then_some(()));
    assert_eq!(fs::read_to_string(place.ours("secret")).unwrap(), "of root's");
    assert!(fs::symlink_metadata(place.theirs("state")).unwrap().is_file());
    drop(relay);
}

#[test]
fn a_pipe_in_any_place_is_refused_and_not_waited_for() {
    let Some(place) = Place::new() else { return };
    for name in ["state", "state.lock", "cap.pcapng", "control", "local", "key"] {
        fifo(&place.theirs(name));
        let config = match name {
            "cap.pcapng" => {
                "[[udp]]\naddress = \"127.0.0.1:0\"\nseal = \"plain\"\ncapture = \"THEIRS/cap.pcapng\"\n"
            }
            "control" => "control.socket = \"THEIRS/control\"\n",
            "local" => "[[unix]]\nname = \"local\"\npath = \"THEIRS/local\"\n",
            "key" => "[identity]\nkey = \"THEIRS/key\"\n",
            _ => "switch.state = \"THEIRS/state\"\n",
        };
        for process in [NOBODYS, ""] {
            place.refused(&format!("{config}{process}"), &[name]);
        }
        fs::remove_file(place.theirs(name)).unwrap();
        let _ = fs::remove_file(place.theirs("state.lock"));
    }
}

#[test]
fn a_capture_truncates_no_file_of_root_s_by_a_link_or_a_second_name() {
    let Some(place) = Place::new() else { return };
    let secret = place.ours("secret");
    let udp =
        "[[udp]]\naddress = \"127.0.0.1:0\"\nseal = \"plain\"\ncapture = \"THEIRS/cap.pcapng\"\n";
    for process in [NOBODYS, ""] {
        for hard in [false, true] {
            fs::write(&secret, "of root's").unwrap();
            let link = place.theirs("cap.pcapng");
            if hard { fs::hard_link(&secret, &link) } else { symlink(&secret, &link) }.unwrap();
            place.refused(&format!("{udp}{process}"), &["cap.pcapng"]);
            fs::remove_file(&link).unwrap();
            let there = fs::metadata(&secret).unwrap();
            assert_eq!(
                (fs::read_to_string(&secret).unwrap().as_str(), there.uid()),
                ("of root's", 0)
            );
        }
    }
}

#[test]
fn no_file_of_root_s_is_given_away_by_a_second_name() {
    let Some(place) = Place::new() else { return };
    let secret = place.ours("secret");
    fs::write(&secret, "of root's").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["state", "state.lock", "state.new"] {
        fs::hard_link(&secret, place.theirs(name)).unwrap();
        let config = format!("switch.state = \"THEIRS/state\"\n{NOBODYS}");
        if name == "state.new" {
            drop(place.runs(&config, &place.ours("control")));
        } else {
            place.refused(&config, &["state file"]);
        }
        let there = fs::metadata(&secret).unwrap();
        assert_eq!((there.uid(), there.mode() & 0o777), (0, 0o600), "{name}");
        let _ = fs::remove_file(place.theirs(name));
        let _ = fs::remove_file(place.theirs("state.lock"));
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "of root's");
}

#[test]
fn a_lock_and_a_capture_are_their_owner_s_alone() {
    let Some(place) = Place::new() else { return };
    // An older relay left this file, which all users may read and write.
    fs::write(place.theirs("state.lock"), "").unwrap();
    fs::set_permissions(place.theirs("state.lock"), fs::Permissions::from_mode(0o666)).unwrap();
    chown(place.theirs("state.lock"), Some(NOBODY), Some(NOBODY)).unwrap();
    let config = format!(
        "switch.state = \"THEIRS/state\"\ncontrol.socket = \"THEIRS/control\"\n\
         [[udp]]\naddress = \"127.0.0.1:0\"\nseal = \"plain\"\ncapture = \"THEIRS/cap.pcapng\"\n\
         [[unix]]\nname = \"local\"\npath = \"THEIRS/local\"\n{NOBODYS}"
    );
    let relay = place.runs(&config, &place.theirs("control"));
    eventually("the state is written", || place.theirs("state").exists().then_some(()));
    for name in ["state", "state.lock", "cap.pcapng", "control", "local"] {
        let there = fs::symlink_metadata(place.theirs(name)).unwrap();
        assert_eq!((there.uid(), there.mode() & 0o777), (NOBODY, 0o600), "{name}");
    }
    drop(relay);
}

#[test]
fn one_file_in_two_roles_is_refused_before_it_is_touched() {
    let Some(place) = Place::new() else { return };
    let key = fs::read(place.ours("key")).unwrap();
    symlink(place.ours(""), place.theirs("way")).unwrap();
    let identity = "[identity]\nkey = \"OURS/key\"\n";
    let cap = |path: &str| {
        format!("{identity}[[udp]]\naddress = \"127.0.0.1:0\"\ncapture = \"{path}\"\n")
    };
    for (config, words) in [
        (cap("OURS/key"), ["capture of [[udp]] udp", "is also the key of [identity]"]),
        (cap("OURS/../ours/key"), ["capture of [[udp]] udp", "is also the key of [identity]"]),
        (cap("THEIRS/way/key"), ["capture of [[udp]] udp", "is also the key of [identity]"]),
        (cap("OURS/relay.toml"), ["capture of [[udp]] udp", "is also the configuration"]),
        (format!("switch.state = \"OURS/key\"\n{identity}"), ["the state file: ", "the key"]),
        ("switch.state = \"OURS/control\"\n".to_owned(), ["the control socket: ", "state file"]),
        (
            "switch.state = \"OURS/s\"\n[[unix]]\nname = \"u\"\npath = \"OURS/s.lock\"\n"
                .to_owned(),
            ["the socket of [[unix]] u: ", "is also the lock of the state file"],
        ),
    ] {
        place.refused(&config, &words);
        assert_eq!(fs::read(place.ours("key")).unwrap(), key);
        assert!(!place.ours("control").exists());
    }
}

#[test]
fn a_capture_overwrites_no_other_file() {
    let Some(place) = Place::new() else { return };
    let other = place.ours("key-of-another-relay");
    assert!(strowger(&["key", "new", other.to_str().unwrap()]).status.success());
    let before = fs::read(&other).unwrap();
    let config = "[[udp]]\naddress = \"127.0.0.1:0\"\nseal = \"plain\"\ncapture = \"OURS/key-of-another-relay\"\n";
    place.refused(config, &["key-of-another-relay", "not overwritten"]);
    assert_eq!(fs::read(&other).unwrap(), before);
}

#[test]
fn a_control_socket_whose_queue_is_full_is_not_waited_for() {
    let Some(place) = Place::new() else { return };
    // Another program listens on the socket, does not accept, and has a full queue.
    let script = "import socket,sys,os\ns=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(0)\n\
                  c=[]\nfor _ in range(3):\n x=socket.socket(socket.AF_UNIX); x.setblocking(False); c.append(x)\n try: x.connect(sys.argv[1])\n except BlockingIOError: pass\n\
                  print('full',flush=True); sys.stdin.read()";
    let socket = place.ours("control");
    let mut other = Command::new("python3");
    other.args(["-c", script, socket.to_str().unwrap()]);
    let mut other = KillOnDrop(other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(other.0.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "full\n");
    let mut relay = KillOnDrop(place.command("").spawn().unwrap());
    let status = eventually("the relay ends without a hang", || relay.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(3));
    assert!(socket.exists(), "the socket belongs to another program");
}

#[test]
fn a_relay_removes_its_own_control_socket_and_no_other() {
    let Some(place) = Place::new() else { return };
    let socket = place.ours("control");
    let mut first = place.runs("", &socket);
    fs::remove_file(&socket).unwrap();
    let second = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let kill = format!("kill -TERM {}", first.0.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    eventually("the relay ends", || first.0.try_wait().unwrap());
    assert!(socket.exists());
    drop(second);
}

#[test]
fn a_key_of_another_user_is_refused_and_a_link_of_root_s_is_followed() {
    let Some(place) = Place::new() else { return };
    let theirs = place.theirs("key");
    assert!(strowger(&["key", "new", theirs.to_str().unwrap()]).status.success());
    chown(&theirs, Some(12_345), None).unwrap();
    let config = "[identity]\nkey = \"THEIRS/key\"\n";
    place.refused(config, &["key file", "user 12345"]);
    // The key file is a symbolic link to the current version, as with secrets that are mounted into
    // containers.
    fs::create_dir(place.ours("day")).unwrap();
    fs::rename(place.ours("key"), place.ours("day/key")).unwrap();
    symlink("day", place.ours("today")).unwrap();
    symlink("today/key", place.ours("key")).unwrap();
    drop(place.runs("[identity]\nkey = \"OURS/key\"\n", &place.ours("control")));
}
