//! A relay's replies contain hostile text in each string. The command's output has as many lines as
//! with harmless text, and no control characters.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output},
    thread,
};

use serde_json::{Value, json};

/// Text with ESC, CR, LF, a complete line, control characters above 0x7f, and characters that
/// reorder or hide text.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\n0.000 s  link_up slot 9\n\u{9b}31m\u{85}\u{7f}\
                       \u{202e}\u{2066}\u{200b}\u{2028}\u{feff}\u{e0041}\0";

/// One reply of each kind, with `word` as the value of each string.
fn replies(word: &str) -> Vec<(&'static [&'static str], Value)> {
    let row = json!({
        "slot": 2, "state": word, "name": word, "behind": word, "address": word, "port": 1, "what": word,
        "seal": word, "up": false, "idle": false, "peer_id": word, "key": word, "rights": [word],
        "suggested": word, "key_on_two_nodes": [word, word], "discards": { (word): 3 }, "kernel_drops_by_reason": { (word): 3 }, "mtu": 5,
        "reason": word, "why": word, "backend": word, "chosen": word, "path": word, "warnings": [word],
    });
    let event = json!({ "number": 1, "uptime_s": 1.5, "event": word, "slot": 2, "name": word,
        "detail": word });
    let refused = json!({ "error": word, "kind": "declined" });
    let hop = json!({ "hop": 0, "slot_in": 1, "slot_out": 2, "behind": word, "discard": word, "error": word,
        "silent": false, "round_trip_us": 1.0 });
    let replied = |rows: Value| json!({ "request": 1, "replies": rows, "done": true });
    vec![
        (&["show", "slots"], json!({ "slots": [row] })),
        (&["show", "ports"], json!({ "ports": [row] })),
        (&["show", "peers"], json!({ "identity": word, "peers": [row] })),
        (&["show", "links"], json!({ "links": [row] })),
        (
            &["show", "discards"],
            json!({ "balance": {}, "discards": { (word): 9 }, "ports": [row] }),
        ),
        (&["show", "events"], json!({ "events": [event], "missed": 0 })),
        (
            &["show", "status"],
            json!({ "version": word, "pid": 1, "identity": word, "idle": word, "scheme": word,
                "memory": { "backing": word }, "cores": [word], "ports": [row] }),
        ),
        (&["slot", "attach", "a"], json!({ "attached": word, "opens_s": 5 })),
        (
            &["slot", "renumber", "2"],
            json!({ "renumbered": { "slot": word, "to": word, "alias_s": word,
            "narrow_bits": [word] } }),
        ),
        (&["slot", "drain", "2"], json!({ "draining": { "slot": word, "for_s": word } })),
        (&["slot", "detach", "2"], json!({ "detached": word })),
        (&["slot", "detach", "2"], json!({ (word): word })),
        (&["slot", "detach", "2"], refused),
        (&["scheme", "grow", "f8"], json!({ "grown": { "scheme": word, "slot_max": word } })),
        (&["ping", "19", "-c1"], replied(json!([{ "discard": word, "hop": word, "mtu": 5 }]))),
        (&["ping", "19", "-c1"], replied(json!([{ "pong": true, "bytes": word }]))),
        (&["trace", "19"], replied(json!([hop]))),
        (&["identify", "19"], replied(json!([{ "peer_id": word, "key": word }]))),
        (&["identify", "19"], replied(json!([{ "discard": word, "hop": word }]))),
    ]
}

/// Runs a command against a fake relay that sends this reply to each request.
fn ask(folder: &Path, arguments: &[&str], reply: &Value) -> Output {
    let socket = folder.join("control");
    let listener = UnixListener::bind(&socket).unwrap();
    // Escape only what JSON requires.
    let line = format!("{reply}\n");
    let relay = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let requests = BufReader::new(client.try_clone().unwrap());
        for _ in requests.lines().map_while(Result::ok) {
            if client.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    });
    let output = Command::new(crate::STROWGER)
        .args(arguments)
        .arg("--socket")
        .arg(&socket)
        .output()
        .expect("the command runs");
    relay.join().unwrap();
    std::fs::remove_file(socket).unwrap();
    output
}

fn is_harmless(char: char) -> bool {
    char == '\n' || !HOSTILE.contains(char) || char.is_ascii_graphic() || char == ' '
}

#[test]
fn no_word_of_a_relay_or_of_its_peers_reaches_the_terminal_as_more_than_text() {
    let folder = tempfile::tempdir().unwrap();
    let cases = replies("word").into_iter().zip(replies(HOSTILE));
    for ((arguments, harmless), (_, hostile)) in cases {
        for format in [None, Some("--json")] {
            let arguments: Vec<&str> = arguments.iter().copied().chain(format).collect();
            let [calm, loud] =
                [&harmless, &hostile].map(|reply| ask(folder.path(), &arguments, reply));
            assert_eq!(calm.status.code(), loud.status.code(), "{arguments:?}");
            let texts = [(&calm.stdout, &loud.stdout), (&calm.stderr, &loud.stderr)];
            for (calm, loud) in texts {
                let [calm, loud] =
                    [calm, loud].map(|bytes| String::from_utf8(bytes.clone()).unwrap());
                assert_eq!(calm.lines().count(), loud.lines().count(), "{arguments:?}: {loud:?}");
                let bad = loud.chars().find(|&char| !is_harmless(char) || char == '\u{1b}');
                assert_eq!(bad, None, "{arguments:?}: {loud:?}");
            }
        }
    }
}
