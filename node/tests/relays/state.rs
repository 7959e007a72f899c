//! The state file of a relay. After a kill, the relay's slots are as before. A damaged file is
//! refused and not changed. A relay whose file cannot be written continues.

use std::{
    fs,
    io::{BufRead, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use strowger_testkit::skip;
use strowger_wire::{
    Scheme,
    scheme::{Form, V4X8},
};

/// Starts a relay with these endpoints in this folder. Returns the process and its output until it
/// was ready or ended.
fn start(folder: &Path, endpoints: &[&str]) -> (Child, Vec<String>) {
    start_by(Command::new(crate::STROWGER), folder, endpoints, "")
}

/// Like `start`, with more lines in `[switch]`, and with a command to which the arguments of
/// `relay` are appended.
fn start_by(
    mut command: Command,
    folder: &Path,
    endpoints: &[&str],
    switch: &str,
) -> (Child, Vec<String>) {
    let dir = folder.to_str().expect("UTF-8");
    let mut config = format!("control.socket = \"{dir}/control\"\n[memory]\nhuge_pages = \"no\"\n");
    config += &format!("[switch]\nstate = \"{dir}/kept/state\"\n{switch}\n");
    for name in endpoints {
        config += &format!("[[unix]]\nname = \"{name}\"\npath = \"{dir}/{name}\"\n");
    }
    let file = folder.join("relay.toml");
    fs::write(&file, config).expect("written");
    let mut child = command
        .args(["relay", "--config"])
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let mut printed = Vec::new();
    for line in output.lines().map_while(Result::ok) {
        let is_ready = line == "ready";
        printed.push(line);
        if is_ready {
            break;
        }
    }
    (child, printed)
}

/// Kills the relay with SIGKILL, without a goodbye or cleanup.
fn kill(mut child: Child) {
    child.kill().expect("it runs");
    child.wait().expect("it has ended");
}

fn says(printed: &[String], line: &str) {
    assert!(printed.iter().any(|text| text.starts_with(line)), "no {line:?} in {printed:#?}");
}

#[test]
fn r11_after_kill_9_the_same_endpoints_have_the_same_slots() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("kept")).expect("made");
    let (child, printed) = start(folder.path(), &["a", "b", "c"]);
    for line in ["slot 0: a", "slot 2: b", "slot 3: c"] {
        says(&printed, line);
    }
    kill(child);
    // The relay restarts without `b`, with another endpoint, and in another order.
    let (child, printed) = start(folder.path(), &["z", "c", "a"]);
    for line in ["state: 3 slots as before", "slot 0: a", "slot 3: c", "slot 4: z"] {
        says(&printed, line);
    }
    kill(child);
    let (child, printed) = start(folder.path(), &["b", "z"]);
    for line in ["slot 2: b", "slot 4: z"] {
        says(&printed, line);
    }
    kill(child);

    // After a bit of the file is changed, the relay refuses the file with a one-line error and does
    // not change it.
    let state = folder.path().join("kept/state");
    let mut bytes = fs::read(&state).expect("the state file is there");
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
fn r1_another_scheme_than_the_state_file_s_is_refused_unless_it_is_a_growth() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("kept")).expect("made");
    let state = folder.path().join("kept/state");
    // The first scheme has two forms, and the second has one more. The third decodes labels
    // differently.
    let [small, grown, other] = [
        Scheme::new(&[Form::new(3, 1, 0b1), Form::new(8, 3, 0b000)]).expect("sane"),
        Scheme::new(&[Form::new(3, 1, 0b1), Form::new(5, 2, 0b10), Form::new(8, 3, 0b000)])
            .expect("sane"),
        V4X8,
    ]
    .map(|scheme| {
        let bytes = scheme.serialize();
        bytes.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    });
    let run = |scheme: &str| {
        let command = Command::new(crate::STROWGER);
        let switch = format!("scheme = \"{scheme}\"\nslot_max = 200\n");
        start_by(command, folder.path(), &["a", "b"], &switch)
    };
    kill(run(&small).0);
    let before = fs::read(&state).expect("the state file is there");
    let (mut child, printed) = run(&other);
    assert!(!child.wait().expect("it ends by itself").success(), "{printed:#?}");
    let mut line = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut line).expect("text");
    let way_out = format!("write scheme = \"{small}\"");
    assert!(line.lines().count() == 1 && line.contains(&way_out), "{line}");
    assert_eq!(fs::read(&state).expect("still there"), before);
    let (child, printed) = run(&grown);
    says(&printed, "state: the scheme has grown");
    says(&printed, "slot 2: b");
    kill(child);
    // The relay must refuse the smaller scheme, because labels in use may need the new form.
    let (mut child, printed) = run(&small);
    assert!(!child.wait().expect("it ends by itself").success(), "{printed:#?}");
}

/// Sends a request to the relay in this folder, and reads the reply.
fn ask(folder: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(folder.join("control")).expect("the relay is up");
    writeln!(stream, "{request}").expect("the request is sent");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a reply arrives");
    line
}

#[test]
fn a_relay_survives_a_full_disk_and_writes_the_state_file_when_there_is_room() {
    let may_mount = Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"])
        .output();
    if !may_mount.is_ok_and(|output| output.status.success()) {
        return skip("a full disk needs the right to mount one (CAP_SYS_ADMIN): run as root");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("kept");
    fs::create_dir(&kept).expect("made");
    // The relay has its own file system of 64 KiB, in a mount namespace that ends with it.
    let mut command = Command::new("unshare");
    let mount = format!("mount -t tmpfs -o size=64k tmpfs '{}'", kept.display());
    let relay = crate::STROWGER;
    command.args(["--mount", "sh", "-c", &format!("{mount} && exec \"$0\" \"$@\""), relay]);
    let (mut child, printed) = start_by(command, folder.path(), &["a", "b"], "");
    says(&printed, "ready");
    let seen = kept.strip_prefix("/").expect("absolute");
    let disk = Path::new("/proc").join(child.id().to_string()).join("root").join(seen);
    let state = || fs::read_to_string(disk.join("state")).expect("the state file is there");
    let before = state();
    assert!(before.contains("\"b\""), "{before}");

    let mut filler = fs::File::create(disk.join("filler")).expect("made");
    let full =
        (0..1_000).find_map(|_| filler.write_all(&[0; 1_024]).err()).expect("the disk is full");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let mut stderr = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut says_next = || stderr.next().expect("the relay prints a line").expect("text");
    assert!(ask(folder.path(), r#"{"detach":2}"#).contains("detached"), "the relay continues");
    let line = says_next();
    assert!(line.contains("cannot be written") && line.contains("os error 28"), "{line}");
    assert_eq!(state(), before, "the old file, whole");
    assert!(ask(folder.path(), r#"{"show":"slots"}"#).contains("quarantined"));

    fs::remove_file(disk.join("filler")).expect("removed");
    drop(filler);
    let line = says_next();
    assert!(line.contains("is written again"), "{line}");
    assert!(!state().contains("\"b\""), "{}", state());
    kill(child);
}

#[test]
fn a_relay_runs_on_when_the_state_file_cannot_be_written() {
    let folder = tempfile::tempdir().expect("a folder");
    // The folder `kept` is missing, so the relay cannot write the file.
    let (child, printed) = start(folder.path(), &["a"]);
    says(&printed, "warning: state file");
    says(&printed, "slot 0: a");
    says(&printed, "ready");
    kill(child);
}

#[test]
fn r11_a_state_file_is_that_of_one_relay_at_a_time() {
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let kept = first.path().join("kept");
    fs::create_dir(&kept).expect("made");
    std::os::unix::fs::symlink(&kept, second.path().join("kept")).expect("made");
    let (child, _) = start(first.path(), &["a"]);
    let (mut refused, _) = start(second.path(), &["b"]);
    let status = refused.wait().expect("it ends by itself");
    let mut line = String::new();
    refused.stderr.take().expect("piped").read_to_string(&mut line).expect("text");
    assert_eq!(status.code(), Some(3), "{line}");
    assert!(line.contains("a running relay") && line.lines().count() == 1, "{line}");
    // The kernel releases the lock when the process ends.
    kill(child);
    let (child, printed) = start(second.path(), &["b"]);
    says(&printed, "slot 2: b");
    kill(child);
}
