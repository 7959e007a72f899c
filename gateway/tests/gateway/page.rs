//! The commands of docs/connections.md and of the README, as they are printed there.

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use strowger_testkit::{eventually, skip};

use crate::GATEWAY;

/// The code block of a page after a mark.
fn block(page: &str, mark: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    let page = fs::read_to_string(page).unwrap();
    let rest = page.split(&format!("<!-- {mark} -->")).nth(1).expect("the page has the mark");
    let code = rest.split("```").nth(1).expect("a code block follows the mark");
    code.split_once('\n').unwrap().1.to_owned()
}

/// Processes that run in the background, each with its children.
#[derive(Default)]
struct Background(Vec<Child>);

impl Drop for Background {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a block line by line in a new folder, and returns what `receive` printed.
fn run(code: &str, host: &str) -> Option<String> {
    let binaries = Path::new(GATEWAY).parent().unwrap();
    if !binaries.join("strowger").exists() {
        skip("the command strowger is not built: cargo build");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default());
    let shell = |line: &str| {
        let mut command = Command::new("bash");
        command.args(["-euc", line]).current_dir(folder.path()).env("PATH", &path);
        command.env("HOME", folder.path()).env_remove("XDG_CONFIG_HOME");
        command.stdin(Stdio::null());
        command
    };
    let mut background = Background::default();
    for line in code.replace("127.0.0.1:", host).lines() {
        if let Some(line) = line.strip_suffix('&') {
            let child = shell(&format!("exec {line}")).stdout(Stdio::piped()).spawn().unwrap();
            background.0.push(child);
            continue;
        }
        let line = format!("timeout 60 bash -euc '{line}'");
        let ran = shell(&line).output().unwrap();
        assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
    }
    let receiver = background.0.last_mut().unwrap();
    eventually("the receiver ends", || receiver.try_wait().unwrap());
    let mut out = String::new();
    receiver.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    Some(out)
}

/// An address of the loopback network that no other test uses, so that the ports are free.
fn host(number: u8) -> String {
    let [.., high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{low}.{number}:", high | 0x40)
}

#[test]
fn the_page_s_two_programs_talk() {
    if let Some(out) = run(&block("docs/connections.md", "two programs"), &host(81)) {
        assert_eq!(out, "hello\n");
    }
}

#[test]
fn the_readme_s_two_programs_talk() {
    let code = block("README.md", "two relays") + &block("README.md", "connect");
    if let Some(out) = run(&code, &host(82)) {
        assert_eq!(out, "hello\n");
    }
}
