//! The command runs `strowger-gateway` from its own folder.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use crate::{STROWGER, copy_program};

const ALICE: &str = "12D3KooWN1hpF14DNzraYWzE2HQH1zK7hNtYy7HALnB9s3gE79TY";

/// A folder with a copy of the command, and its output for these arguments.
fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let command = folder.join("strowger");
    if !command.exists() {
        copy_program(Path::new(STROWGER), &command);
    }
    let ran = Command::new(command).args(arguments).env_clear().env("HOME", folder).output();
    let ran = ran.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ran.status.code().unwrap(), text(ran.stdout), text(ran.stderr))
}

/// A program that prints its arguments, one a line, in place of `strowger-gateway`.
fn install(folder: &Path) {
    let text = folder.join("text");
    fs::write(&text, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n").unwrap();
    fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(&text, &folder.join("strowger-gateway"));
}

#[test]
fn a_missing_sibling_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["send", ALICE, "/chat/1"][..], &["ping", ALICE], &["id"]] {
        let (code, out, error) = run(folder.path(), arguments);
        assert_eq!((code, out.as_str()), (3, ""), "{error}");
        assert!(error.contains("strowger-gateway is not in "), "{error}");
        assert!(error.contains("cargo build --release -p strowger-gateway"), "{error}");
    }
}

#[test]
fn arguments_are_passed_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path());
    for command in ["send", "receive", "probe", "id", "api"] {
        let (code, out, error) = run(folder.path(), &[command, "--help", "a b", "-x"]);
        assert_eq!((code, out, error.as_str()), (0, format!("{command}\n--help\na b\n-x\n"), ""));
    }
}

/// A label or a link is the relay's business; a peer is pinged end to end.
#[test]
fn ping_tells_peers_from_labels_and_links() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path());
    let config = folder.path().join(".config/strowger");
    fs::create_dir_all(&config).unwrap();
    let book = format!("[[name]]\nname = \"alice\"\npeer_id = \"{ALICE}\"\n");
    fs::write(config.join("peers.toml"), book).unwrap();
    let numbers = "--count\n4\n--interval\n1\n--bytes\n56\n";
    let address = format!("/switch/0000.0000.0000.0015/p2p/{ALICE}");
    for target in [ALICE, &address, "alice"] {
        let (code, out, error) = run(folder.path(), &["ping", target]);
        assert_eq!((code, error.as_str()), (0, ""));
        assert_eq!(out, format!("ping\n{target}\n{numbers}"));
    }
    let files =
        ["--socket", "/s", "--folder", "/f", "--key", "/k", "--network", "n", "--timeout", "3"];
    let (_, out, _) = run(folder.path(), &[&["ping", ALICE, "--json"][..], &files].concat());
    assert_eq!(out, format!("ping\n{ALICE}\n{}\n{numbers}--json\n", files.join("\n")));

    let socket = folder.path().join("none");
    let socket = ["--socket", socket.to_str().unwrap()];
    for target in [&["0000.0000.0000.0015"][..], &["bob"], &["alice", "--link"]] {
        let (code, _, error) = run(folder.path(), &[&["ping"], target, &socket[..]].concat());
        assert_eq!(code, 4, "{target:?}: {error}");
    }
    let (code, _, error) = run(folder.path(), &["ping", ""]);
    assert_eq!(code, 2, "{error}");
}
