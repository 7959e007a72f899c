//! The state file of a relay as a process: killed without warning, its slots are as they were; a file
//! that is damaged is refused and left alone; one that cannot be written stops nothing.

use std::{
    fs,
    io::{BufRead, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
};

/// Starts a relay with these endpoints in this folder; what it said until it was ready, or had ended.
fn start(folder: &Path, endpoints: &[&str]) -> (Child, Vec<String>) {
    let dir = folder.to_str().expect("UTF-8");
    let mut config = format!("control.socket = \"{dir}/control\"\n[memory]\nhuge_pages = \"no\"\n");
    config += &format!("[switch]\nstate = \"{dir}/kept/state\"\n");
    for name in endpoints {
        config += &format!("[[unix]]\nname = \"{name}\"\npath = \"{dir}/{name}\"\n");
    }
    let file = folder.join("relay.toml");
    fs::write(&file, config).expect("written");
    let mut child = Command::new(env!("CARGO_BIN_EXE_strowger"))
        .args(["relay", "--config"])
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let mut said = Vec::new();
    for line in output.lines().map_while(Result::ok) {
        let is_ready = line == "ready";
        said.push(line);
        if is_ready {
            break;
        }
    }
    (child, said)
}

/// The kernel's SIGKILL: nothing is said, and nothing put away.
fn kill(mut child: Child) {
    child.kill().expect("it runs");
    child.wait().expect("it has ended");
}

fn says(said: &[String], line: &str) {
    assert!(said.iter().any(|said| said.starts_with(line)), "no {line:?} in {said:#?}");
}

#[test]
fn r11_after_kill_9_the_same_endpoints_have_the_same_slots() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("kept")).expect("made");
    let (child, said) = start(folder.path(), &["a", "b", "c"]);
    for line in ["slot 0: a", "slot 2: b", "slot 3: c"] {
        says(&said, line);
    }
    kill(child);
    // Without `b`, with another, and in another order.
    let (child, said) = start(folder.path(), &["z", "c", "a"]);
    for line in ["state: 3 slots as before", "slot 0: a", "slot 3: c", "slot 4: z"] {
        says(&said, line);
    }
    kill(child);
    let (child, said) = start(folder.path(), &["b", "z"]);
    for line in ["slot 2: b", "slot 4: z"] {
        says(&said, line);
    }
    kill(child);

    // One byte of it changed: refused, in one line, and left as it is.
    let state = folder.path().join("kept/state");
    let mut bytes = fs::read(&state).expect("it is there");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&state, &bytes).expect("written");
    let (mut child, _) = start(folder.path(), &["b"]);
    let status = child.wait().expect("it ends by itself");
    let mut line = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut line).expect("text");
    assert!(!status.success() && line.contains("damaged") && line.lines().count() == 1, "{line}");
    assert_eq!(fs::read(&state).expect("still there"), bytes);
}

#[test]
fn a_state_file_that_cannot_be_written_stops_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    // No folder `kept`: like a full disk, nothing can be written there.
    let (child, said) = start(folder.path(), &["a"]);
    says(&said, "warning: state file");
    says(&said, "slot 0: a");
    says(&said, "ready");
    kill(child);
}
