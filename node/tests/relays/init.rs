//! Tests of `strowger init` and `strowger config add-peer`. The commands of the README and of
//! docs/relay/three-relays.md run as they are printed there.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::STROWGER;
use strowger_testkit::{eventually, harness::relay::*};

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn mode(file: &str) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o7777
}

/// The rest of the line that begins with this word.
fn field<'a>(text: &'a str, word: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).expect("the line")
}

/// Runs a shell line in this folder, with `strowger` as a command.
fn shell(folder: &Path, line: &str) -> Command {
    let binaries = Path::new(STROWGER).parent().unwrap().to_str().unwrap();
    let mut path = std::env::var("PATH").unwrap_or_default();
    path.insert_str(0, &format!("{binaries}:"));
    let mut command = Command::new("bash");
    command.args(["-euc", line]).current_dir(folder).env("PATH", path);
    command
}

/// The text of a page of the repository.
fn page(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(root.join(name)).unwrap()
}

/// The code block of the README after this mark.
fn block(mark: &str) -> String {
    let readme = page("README.md");
    let rest = readme.split(&format!("<!-- {mark} -->")).nth(1).expect("the README has the mark");
    let code = rest.split("```").nth(1).expect("a code block follows the mark");
    code.split_once('\n').unwrap().1.to_owned()
}

/// The code blocks of a page, each with its language.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let blocks = page.split("```").skip(1).step_by(2);
    blocks.map(|block| block.split_once('\n').expect("a block has lines")).collect()
}

/// Processes that a shell started. They are killed when this is dropped.
struct Jobs(Vec<String>);

impl Drop for Jobs {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(&self.0).status();
    }
}

#[test]
fn two_relays_are_linked_and_pinged_by_the_readme_s_commands() {
    let folder = tempfile::tempdir().unwrap();
    // No other test uses this address, so the ports are free.
    let [.., high, low] = std::process::id().to_be_bytes();
    let here = format!("127.{}.{low}.77:", high | 0x40);
    let block = block("two relays").replace("127.0.0.1:", &here);
    let mut relays = Vec::new();
    let mut pinged = false;
    for line in block.lines() {
        if let Some(relay) = line.strip_suffix('&') {
            let child =
                shell(folder.path(), &format!("exec {relay}")).stdout(Stdio::null()).spawn();
            relays.push(KillOnDrop(child.unwrap()));
        } else if line.contains("strowger ping") {
            // The line must succeed although the relays have just been started.
            pinged = true;
            let output =
                shell(folder.path(), &format!("timeout 60 bash -c '{line}'")).output().unwrap();
            assert!(output.status.success(), "{line}: {}", stderr(&output));
            assert!(stdout(&output).contains("bytes back in"), "{}", stdout(&output));
        } else {
            let output = shell(folder.path(), line).output().unwrap();
            assert!(output.status.success(), "{line}: {}", stderr(&output));
        }
    }
    assert!(pinged && relays.len() == 2, "{block}");
    // The error for an unknown name lists the names of the links.
    let socket = path(folder.path(), "alice/control");
    let output = strowger(&["ping", "bobby", "--socket", &socket]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("\"bobby\"") && stderr(&output).contains("its links: bob"));
    // If a link has the name `ada`, the text means the link, although it is also a label in hex.
    // With dots the text is a label.
    let key = "05".repeat(32);
    let attach = ["slot", "attach", "ada", &format!("{here}9"), "--key", &key, "--socket", &socket];
    let output = strowger(&attach);
    assert!(output.status.success(), "{}", stderr(&output));
    let output = strowger(&["trace", "ada", "--socket", &socket]);
    assert!(stderr(&output).contains("link_down"), "{}", stderr(&output));
    let output = strowger(&["trace", "0000.0000.0000.0ada", "--socket", &socket]);
    assert!(!stderr(&output).contains("link_down"), "{}", stderr(&output));
    let output = strowger(&["trace", "bob", "--socket", &socket]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("the switch's own slot 1"));
}

#[test]
fn init_writes_a_key_and_a_configuration_that_start_and_prints_the_identity() {
    let folder = tempfile::tempdir().unwrap();
    let node = path(folder.path(), "node");
    let made = strowger(&["init", &node, "--listen", "127.0.0.1:7000", "--network", "lab \"1\""]);
    assert!(made.status.success(), "{}", stderr(&made));
    let (key, config) = (format!("{node}/key"), format!("{node}/relay.toml"));
    assert_eq!((mode(&node), mode(&key), mode(&config)), (0o700, 0o600, 0o600));
    let text = stdout(&made);
    let id = stdout(&strowger(&["key", "id", &key]));
    assert_eq!(field(&text, "peer_id"), field(&id, "peer_id"));
    assert_eq!(field(&text, "key"), field(&id, "key"));
    assert_eq!(stdout(&strowger(&["key", "id", "--key-only", &key])).trim(), field(&id, "key"));
    for words in [
        format!("wrote {key}"),
        format!("strowger peer add NAME PEER_ID --book {node}/peers.toml"),
        format!("strowger send NAME /chat/1 --folder {node}"),
        format!("wrote {config}"),
        format!("strowger relay --config {config}"),
        format!("node={}@127.0.0.1:7000", field(&id, "key")),
        format!("strowger show peers --socket {node}/control"),
    ] {
        assert!(text.contains(&words), "{words}: {text}");
    }
    let secret = fs::read_to_string(&key).unwrap();
    assert!(!text.contains(secret.split(' ').nth(3).unwrap()), "the secret is not printed");
    let checked = strowger(&["config", "check", "--text-only", &config]);
    assert!(checked.status.success(), "{}", stderr(&checked));
    let config: toml::Table = fs::read_to_string(&config).unwrap().parse().unwrap();
    assert_eq!(config["identity"]["network"].as_str(), Some("lab \"1\""));
}

#[test]
fn init_overwrites_no_configuration_without_force_and_no_key_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let node = path(folder.path(), "node");
    let read = |name: &str| fs::read_to_string(format!("{node}/{name}")).unwrap();
    assert!(strowger(&["init", &node]).status.success());
    let (key, config) = (read("key"), read("relay.toml"));
    let refused = strowger(&["init", &node, "--network", "other"]);
    assert_eq!(refused.status.code(), Some(3));
    let force = format!("`strowger init {node} --force`");
    for words in ["relay.toml exists", "config add-peer", " NAME=KEY@ADDRESS", &force] {
        assert!(stderr(&refused).contains(words), "{words}: {}", stderr(&refused));
    }
    assert_eq!((read("key"), read("relay.toml")), (key.clone(), config.clone()));
    let forced = strowger(&["init", &node, "--network", "other", "--force"]);
    assert!(forced.status.success(), "{}", stderr(&forced));
    assert!(stdout(&forced).contains("kept "), "{}", stdout(&forced));
    assert_eq!(read("key"), key);
    assert!(read("relay.toml").contains("other") && !config.contains("other"));
    // An invalid key file is an error, and is not changed.
    fs::write(format!("{node}/key"), "nonsense").unwrap();
    assert_eq!(strowger(&["init", &node, "--force"]).status.code(), Some(3));
    assert_eq!(read("key"), "nonsense");
}

#[test]
fn init_writes_nothing_where_an_option_is_not_usable() {
    let folder = tempfile::tempdir().unwrap();
    let node = path(folder.path(), "node");
    let key = "01".repeat(32);
    let (nowhere, twice) = (format!("a={key}@0.0.0.0:7"), format!("a={key}@127.0.0.1:7"));
    let long = "n".repeat(33);
    let cases: [(&[&str], &str); 6] = [
        (&["--listen", "localhost"], "an IP and a port"),
        (&["--peer", "a=0011@127.0.0.1:7"], "64 hex digits"),
        (&["--peer", &nowhere], "unicast IP"),
        (&["--peer", &twice, "--peer", &twice], "taken"),
        (&["--network", &long], "at most 32 bytes"),
        (&["--listen", "[::1]:7000", "--peer", &twice], "is IPv6"),
    ];
    for (options, words) in cases {
        let output = strowger(&[&["init", node.as_str()], options].concat());
        assert_eq!(output.status.code(), Some(2), "{options:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{options:?}: {}", stderr(&output));
        assert!(!PathBuf::from(&node).exists(), "{options:?}");
    }
}

#[test]
fn init_without_a_folder_uses_the_user_s_configuration_folder() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let init = |set: &[(&str, &str)]| {
        let mut command = Command::new(STROWGER);
        command.arg("init").env_remove("XDG_CONFIG_HOME").env_remove("HOME");
        command.envs(set.iter().copied()).output().unwrap()
    };
    let output = init(&[("HOME", home)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let config = fs::read_to_string(folder.path().join(".config/strowger/relay.toml")).unwrap();
    assert!(!config.contains("[control]"), "the control socket is where commands look for it");
    let xdg = path(folder.path(), "xdg");
    assert!(init(&[("HOME", home), ("XDG_CONFIG_HOME", &xdg)]).status.success());
    assert!(folder.path().join("xdg/strowger/key").is_file());
    let output = init(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("name a folder"), "{}", stderr(&output));
}

#[test]
fn add_peer_adds_one_section_or_leaves_the_file_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let node = path(folder.path(), "node");
    assert!(strowger(&["init", &node, "--listen", "127.0.0.1:7000"]).status.success());
    let file = format!("{node}/relay.toml");
    let read = || fs::read_to_string(&file).unwrap();
    let before = read();
    let keys = ["02", "03"].map(|byte| byte.repeat(32));
    let bad = ["x=00@127.0.0.1:1".to_owned(), format!("x={}@127.0.0.1:7000", keys[0])];
    for peer in &bad {
        let output = strowger(&["config", "add-peer", &file, peer]);
        assert_eq!(
            (output.status.code(), read()),
            (Some(2), before.clone()),
            "{}",
            stderr(&output)
        );
    }
    // The file may lack the newline at its end. The arguments have neither an address nor a name,
    // so the command chooses a name.
    fs::write(&file, before.trim_end()).unwrap();
    for key in &keys {
        let output = strowger(&["config", "add-peer", &file, key]);
        assert!(output.status.success(), "{}", stderr(&output));
        let attach =
            format!("strowger slot attach peer{} --key {key}", if *key == keys[0] { 1 } else { 2 });
        assert!(stdout(&output).contains(&attach), "{}", stdout(&output));
    }
    let after = read();
    assert!(after.starts_with(before.trim_end()));
    assert!(after.contains("name = \"peer1\"") && after.contains("name = \"peer2\""), "{after}");
    assert!(strowger(&["config", "check", "--text-only", &file]).status.success());
    let output = strowger(&["config", "add-peer", &file, &keys[0]]);
    assert_eq!((output.status.code(), read()), (Some(2), after), "{}", stderr(&output));
}

#[test]
fn three_relays_send_along_a_label_by_the_commands_of_their_page() {
    let folder = tempfile::tempdir().unwrap();
    let [.., high, low] = std::process::id().to_be_bytes();
    let here = format!("127.{}.{low}.78:", high | 0x40);
    let page = page("docs/relay/three-relays.md").replace("127.0.0.1:", &here);
    let blocks = blocks(&page);
    let commands: Vec<&str> =
        blocks.iter().filter(|(kind, _)| *kind == "sh").map(|(_, code)| *code).collect();
    let [configure, start, build, show, ask, nowhere] = commands[..] else {
        panic!("the page has six blocks of commands, not {}", commands.len());
    };
    let made = shell(folder.path(), configure).output().unwrap();
    assert!(made.status.success(), "{}", stderr(&made));
    let start = start.replace("relay.toml &", "relay.toml >$n.log 2>&1 &");
    let started = shell(folder.path(), &format!("{start}\njobs -p")).output().unwrap();
    let jobs = Jobs(stdout(&started).lines().map(str::to_owned).collect());
    assert_eq!(jobs.0.len(), 3, "{}", stderr(&started));
    // The commands print what the page shows.
    for command in [build, show] {
        let at = blocks.iter().position(|block| block.1 == command).unwrap();
        let output = shell(folder.path(), command).output().unwrap();
        assert_eq!(stdout(&output), blocks[at + 1].1, "{command}");
    }
    eventually("carol replies", || {
        let output = shell(folder.path(), ask).output().unwrap();
        (output.status.success() && stdout(&output).contains("leads to the switch's own slot 1"))
            .then_some(())
    });
    let output = shell(folder.path(), nowhere).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("discarded at hop 1: empty_slot (slot 200)"));
}
