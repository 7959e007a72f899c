//! The slow path of a relay panics. It restarts while packets pass, and repeated panics end the
//! relay. A request on the control socket causes the panic, in debug builds only.
#![cfg(debug_assertions)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use strowger_testkit::{eventually, harness::relay::*};

const PANIC: &str = r#"{"panic":"slow_path"}"#;

fn restarts(relay: &Relay) -> u64 {
    relay.ask(r#"{"show":"status"}"#)["slow_path_restarts"].as_u64().unwrap()
}

fn handshakes(relay: &Relay) -> u64 {
    relay.ask(r#"{"show":"peers"}"#)["peers"][0]["handshakes"].as_u64().unwrap()
}

#[test]
fn r10_a_slow_path_that_panics_recovers_and_links_continue() {
    let (a, b) = (Home::new(), Home::new());
    let first = a.start(&b.key, Some(b.at), "");
    let second = b.start(&a.key, None, "");
    until_up([&first, &second]);
    let (mut at_a, mut at_b) = (first.client(), second.client());
    assert_exchange(&mut at_a, &mut at_b);
    for round in 1..=3 {
        let before = handshakes(&first);
        assert_eq!(first.ask(PANIC)["kind"], "no_answer");
        // Packets pass without a pause, because the workers have the keys.
        for _ in 0..20 {
            assert_exchange(&mut at_a, &mut at_b);
        }
        assert_eq!(restarts(&first), round);
        eventually("new keys", || (handshakes(&first) > before).then_some(()));
        until_up([&first, &second]);
        assert_exchange(&mut at_a, &mut at_b);
    }
    let in_journal = || first.events("slow_path_restarted").len();
    eventually("all restarts are in the journal", || (in_journal() >= 3).then_some(()));
    assert_eq!(in_journal(), 3);
    // After the restarts, the slow path still detaches slots and makes new links.
    let detached = first.ask(r#"{"detach":2}"#);
    assert_eq!(detached["detached"], 2, "{detached}");
    let attach = format!(
        r#"{{"attach":{{"name":"again","key":"{}","address":"{}","listener":"{}"}}}}"#,
        b.key,
        b.at,
        first.ask(r#"{"show":"ports"}"#)["ports"][0]["name"].as_str().unwrap()
    );
    let attached = first.ask(&attach);
    assert!(attached["attached"].is_u64(), "{attached}");
    until_up([&first, &second]);
    first.stop();
    second.stop();
}

fn ask(directory: &Path, request: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(directory.join("control")).ok()?;
    writeln!(stream, "{request}").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

#[test]
fn a_slow_path_that_panics_again_and_again_ends_the_relay_and_the_state_file_stays() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let shown = dir.to_str().unwrap();
    let config = format!(
        "control.socket = \"{shown}/control\"\nswitch.state = \"{shown}/state\"\n\
         [[unix]]\nname = \"one\"\npath = \"{shown}/one\"\n\
         [[unix]]\nname = \"two\"\npath = \"{shown}/two\"\n"
    );
    fs::write(dir.join("relay.toml"), config).unwrap();
    let start = || {
        let mut command = Command::new(crate::STROWGER);
        let file = dir.join("relay.toml");
        command.args(["relay", "--config", file.to_str().unwrap()]);
        command.env_remove("RUST_BACKTRACE").stdout(Stdio::null()).stderr(Stdio::piped());
        KillOnDrop(command.spawn().expect("it runs"))
    };
    let slots = || {
        let mut answer = eventually("it answers", || ask(dir, r#"{"show":"slots"}"#));
        let rows = answer["slots"].take();
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| (row["slot"].clone(), row["name"].clone())).collect::<Vec<_>>()
    };
    let mut relay = start();
    let before = slots();
    assert_eq!(before.len(), 2);
    let code = eventually("the relay ends", || {
        let _ = ask(dir, PANIC);
        relay.0.try_wait().unwrap()
    });
    assert_eq!(code.code(), Some(6));
    let mut stderr = String::new();
    relay.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 6, "{stderr}");
    assert!(lines[..5].iter().all(|line| line.contains("restarts")), "{stderr}");
    assert!(lines[5].contains("repeatedly") && lines[5].contains("requests.rs"), "{stderr}");
    let _second = start();
    assert_eq!(slots(), before);
}
