//! Tests that need no relay: wrong usage, and the own identity.

use std::{fs, path::Path, process::Command};

use strowger_crypto::{IdentityKey, Secret};

use crate::GATEWAY;

const ALICE: &str = "12D3KooWN1hpF14DNzraYWzE2HQH1zK7hNtYy7HALnB9s3gE79TY";

struct Ran {
    code: i32,
    out: String,
    error: String,
}

fn run(home: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(GATEWAY);
    command.args(arguments).env_clear().env("HOME", home).env("XDG_RUNTIME_DIR", home);
    let ran = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: ran.status.code().unwrap(), out: text(ran.stdout), error: text(ran.stderr) }
}

#[test]
fn wrong_usage_is_refused_with_code_2_and_what_is_needed() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, needed) in [
        (&["send"][..], "<PEER> <PROTOCOL>"),
        (&["send", ALICE, "chat"], "begins with /"),
        (&["send", ALICE, "/"], "2 to 128"),
        (&["send", "bob", "/chat/1"], "strowger peer add bob PEER_ID"),
        (&["send", "Qmhash", "/chat/1"], "no PeerId"),
        (&["receive", "/chat/1", "--from", "bob"], "strowger peer add bob"),
        (&["receive", "/chat/1", "--from", ALICE, "--anyone"], "cannot be used with"),
        (&["ping", ALICE, "--count", "0"], "--count"),
        (&["ping", ALICE, "--interval=-1"], "--interval"),
        (&["probe"], "<PEER>"),
        (&["id", "--nothing"], "--nothing"),
        (&["tun"], "tun"),
        (&[], "Usage"),
    ] {
        let ran = run(home.path(), arguments);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}: {}", ran.error);
        assert!(ran.error.contains(needed), "{arguments:?}: {}", ran.error);
    }
}

#[test]
fn each_command_has_a_help_page() {
    let home = tempfile::tempdir().unwrap();
    let all = run(home.path(), &["--help"]);
    assert_eq!(all.code, 0);
    for command in ["send", "receive", "ping", "probe", "id", "api"] {
        assert!(all.out.contains(command), "{command}");
        let ran = run(home.path(), &[command, "--help"]);
        assert_eq!((ran.code, ran.error.as_str()), (0, ""));
        assert!(ran.out.contains(&format!("Usage: strowger {command}")), "{}", ran.out);
        assert!(ran.out.contains("--folder <FOLDER>"), "{}", ran.out);
    }
    assert!(all.out.contains("Exit codes:"));
}

#[test]
fn id_without_a_peer_has_the_shape_of_ipfs_id() {
    let home = tempfile::tempdir().unwrap();
    let none = run(home.path(), &["id"]);
    assert_eq!(none.code, 3, "{}", none.error);
    assert!(none.error.contains("`strowger init`"), "{}", none.error);

    let folder = home.path().join(".config/strowger");
    fs::create_dir_all(&folder).unwrap();
    // The seed of test 1 of RFC 8032, section 7.1, has this public key.
    let seed = *b"\x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4\
                  \x44\x49\xc5\x69\x7b\x32\x69\x19\x70\x3b\xac\x03\x1c\xae\x7f\x60";
    let key = IdentityKey::from_seed(&Secret::from_bytes(seed));
    strowger_runtime::files::create(&folder.join("key"), key.to_key_file().as_bytes()).unwrap();
    let ran = run(home.path(), &["id"]);
    assert_eq!((ran.code, ran.error.as_str()), (0, ""));
    let id: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let peer = key.public().peer_id().to_string();
    assert_eq!(id["ID"], peer);
    // base64 of 08 01 12 20 and the public key d75a9801...; computed with another program.
    assert_eq!(id["PublicKey"], "CAESINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea");
    assert_eq!(id["Addresses"], serde_json::json!([format!("/p2p/{peer}")]));
    assert!(id["AgentVersion"].as_str().unwrap().starts_with("strowger/"));
    assert!(id["Protocols"].as_array().unwrap().is_empty());
}
